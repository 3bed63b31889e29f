"""A trained model that reads columns, as a network and as what makes arrays of its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dlpipe.task.model import WEIGHTS
from dlpipe.task.tabular.encoded import EncodedColumns
from dlpipe.task.tabular.model import TabularModel
from dlpipe.task.texts.model import CONFIG, TOKENIZER
from dlpipe.task.torch_predictor import TorchPredictor


class ColumnEncoder:
    """Makes arrays of rows, scaled as the model's train split was, with the token ids of their texts."""

    def __init__(self, model: TabularModel) -> None:
        self._scaling = model.scaling
        self._text = make_text_encoder(model) if self._scaling.text else None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> EncodedColumns:
        """Return the arrays of ``rows``."""
        scaling = self._scaling
        texts = None if self._text is None else self._text([str(row.get(scaling.text) or "") for row in rows])
        return EncodedColumns(scaling.scale_numbers(rows), scaling.encode_categories(rows), texts, scaling)

    def count_seen_characters(self, text: str) -> int:
        """Return how many characters of a text the model reads."""
        return 0 if self._text is None else int(self._text.count_seen_characters(text))


class TabularPredictor(TorchPredictor):
    """A trained model that reads columns, loaded and ready.

    Attributes
    ----------
    max_length : int
        Tokens of a text beyond this are not seen; 0 without a text.
    """

    def __init__(self, model: TabularModel) -> None:
        super().__init__(model, restore_network(model), ColumnEncoder(model))
        self.max_length = int(model.card.get("max_length", 0))

    def count_seen_characters(self, text: str) -> int:
        """Return how many characters of a text the model reads."""
        assert isinstance(self._encode, ColumnEncoder)
        return self._encode.count_seen_characters(text)


def make_text_encoder(model: TabularModel) -> Any:
    """Return what makes token ids of texts for ``model``."""
    from dlpipe.task.texts.tokens import TextTokenizer

    pad_id = int(json.loads(model.files[CONFIG]).get("pad_token_id") or 0)
    return TextTokenizer(model.files[TOKENIZER].decode(), max_length=model.card["max_length"], pad_id=pad_id)


def restore_network(model: TabularModel) -> Any:
    """Return the trained network."""
    from safetensors.torch import load

    from dlpipe.task.tabular.network import TabularNetwork
    from dlpipe.task.texts.network import build_empty_network

    text = build_empty_network(json.loads(model.files[CONFIG]), 1) if model.scaling.text else None
    network = TabularNetwork(
        model.scaling,
        len(model.labels),
        **model.card["network"],
        dropout=0.0,
        hidden=0 if text is None else text.head.in_features,
        text=text,
    )
    network.load_state_dict(load(model.files[WEIGHTS]))
    return network
