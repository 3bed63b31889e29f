"""The torch network: embeddings of categories, scaled numbers and pooled texts under a few dense layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dlpipe.task.tabular.scaling import Scaling
from dlpipe.task.texts.network import TextNetwork

LARGEST_EMBEDDING = 32
"""Numbers of an embedding at most; below that it has the square root of how many categories there are."""


class TabularNetwork(nn.Module):
    """Logits of shape (n, n_outputs) from numbers, categories, and token ids or pooled states of texts.

    Parameters
    ----------
    scaling : Scaling
        How many numbers, and which categories.
    n_outputs, width, layers : int
    dropout : float
    hidden : int
        The width of pooled states; 0 without texts.
    text : TextNetwork, optional
        What reads token ids; without it, pooled states are given.
    """

    def __init__(
        self,
        scaling: Scaling,
        n_outputs: int,
        *,
        width: int,
        layers: int,
        dropout: float,
        hidden: int = 0,
        text: TextNetwork | None = None,
    ) -> None:
        super().__init__()
        sizes = [len(column.values) + 1 for column in scaling.categories]
        widths = [min(LARGEST_EMBEDDING, math.ceil(math.sqrt(size))) for size in sizes]
        self.embeddings = nn.ModuleList(map(nn.Embedding, sizes, widths))
        self.text = text
        inputs = 2 * len(scaling.numbers) + sum(widths) + hidden
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.dense = nn.Sequential(*parts)
        self.head = nn.Linear(inputs, n_outputs)

    @property
    def encoder(self) -> Any:
        """What reads texts, which strategies freeze; None without."""
        return None if self.text is None else self.text.encoder

    def forward(
        self,
        numbers: Tensor,
        categories: Tensor,
        pooled: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Return logits of shape (n, n_outputs).

        Parameters
        ----------
        numbers : float32 tensor of shape (n, 2 * n_numbers)
            Scaled ones, then 1 where one is missing.
        categories : int64 tensor of shape (n, n_categories)
            0 is a category that the train split lacks.
        pooled : float32 tensor of shape (n, hidden), optional
            States of texts by a frozen backbone.
        input_ids, attention_mask : int64 tensors of shape (n, n_tokens), optional
            Of texts, where the backbone stands in the network.
        """
        parts = [numbers, *(embed(categories[:, at]) for at, embed in enumerate(self.embeddings))]
        if self.text is not None and input_ids is not None and attention_mask is not None:
            pooled = self.text.pool_states(input_ids, attention_mask)
        if pooled is not None:
            parts.append(pooled)
        logits: Tensor = self.head(self.dense(torch.cat(parts, dim=1)))
        return logits
