"""What each token adds to each label's probability, by gradients: approximate, and cheap.

Each token gets a weight from 0 (left out) to 1 (there), which attention and pooling multiply it by. Integrated
gradients (Sundararajan, Taly and Yan, ICML 2017, by Captum) along the way from no token to all give each token its
share of what lies between. At weight 0 or 1 the network computes what it computes for a text without or with the
token, but for the positions of the tokens after it: this way asks what leaving words out asks. A way through the
word embeddings leads over inputs that mean nothing, and agreed less with Owen values (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError
from dlpipe.task.batches import BATCH_TOKENS, sorted_batches
from dlpipe.task.texts.predictor import TextPredictor

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

TOLERANCE = 1e-3
CHECKED = 4  # texts
SMALLEST = 1e-12
"""The least weight: near the smallest number of all, gradients are denormal, and CPUs compute those far slower."""


@dataclass(frozen=True)
class TokenAttributions:
    """What the tokens of one text add to the probability of each label.

    Attributes
    ----------
    ends : int array of shape (n_tokens,)
        Behind which character of the text each token ends.
    values : array of shape (n_tokens, n_labels)
    base, output : array of shape (n_labels,)
        The probabilities with none of these tokens and with all. ``base + values.sum(0)`` comes near ``output``.
    """

    ends: np.ndarray
    values: np.ndarray
    base: np.ndarray
    output: np.ndarray


def token_attributions(predictor: TextPredictor, texts: Sequence[str], *, steps: int) -> list[TokenAttributions]:
    """Return the attributions of the tokens of each text that the model reads, in the order of ``texts``.

    Parameters
    ----------
    steps : int
        Points on the way; each costs a forward and, for each label but one, a backward pass.

    Raises
    ------
    ExplanationError
        When ``predictor`` holds no torch network, or one whose attention takes no weights.
    """
    network = torch_network(predictor)
    made = predictor._encode.encodings(texts)
    check_weights(network, made[:CHECKED])
    lengths = np.array([len(one.ids) for one in made], dtype=np.int64)
    result: dict[int, TokenAttributions] = {}
    for rows in sorted_batches(lengths, tokens=max(1, BATCH_TOKENS // steps)):
        batch = attributed(network, [made[row] for row in rows], steps)
        result.update(zip(rows.tolist(), batch, strict=True))
    return [result[row] for row in range(len(texts))]


def torch_network(predictor: TextPredictor) -> Any:
    """Return the network inside ``predictor``, which has ``encoder`` and ``head``."""
    network: Any = getattr(predictor, "_network", None)
    inner = network if hasattr(network, "encoder") else getattr(network, "_network", None)
    if not hasattr(inner, "encoder"):
        raise ExplanationError(
            "Gradients need the torch network, which this predictor does not hold. Open it with "
            "open_predictor(model, engine='torch'), or explain with method 'partition'."
        )
    return inner


def attributed(network: Any, texts: Sequence[Encoding], steps: int) -> list[TokenAttributions]:
    """Return the attributions of a batch of texts."""
    import torch

    ids, present, special = padded(texts, network.head.weight.device)
    with torch.no_grad():
        base, output = (weighted(network, roots, ids).cpu().numpy() for roots in (special, present))
    values = integrated(network, ids, special, present, steps)
    return [of_words(text, values[row], base[row], output[row]) for row, text in enumerate(texts)]


def of_words(text: Encoding, values: np.ndarray, base: np.ndarray, output: np.ndarray) -> TokenAttributions:
    """Return the attributions of one text, without padding and the tokenizer's own tokens."""
    words = np.array(text.special_tokens_mask) == 0
    ends = np.array([end for _, end in text.offsets], dtype=np.int64)
    return TokenAttributions(ends[words], values[: len(words)][words], base, output)


def padded(texts: Sequence[Encoding], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, and as floats which are tokens at all and which are special: each (n, longest)."""
    import torch

    shape = len(texts), max(len(text.ids) for text in texts)
    ids, present, special = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape), torch.zeros(shape)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        present[row, : len(text.ids)] = 1
        special[row, : len(text.ids)] = torch.tensor(text.special_tokens_mask, dtype=torch.float32)
    return ids.to(device), present.to(device), special.to(device)


def weighted(network: Any, roots: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return probabilities (n, n_labels) for tokens whose weights are the squares of ``roots``, both (n, length).

    The first few words change most, so equal steps of the root, small ones of the weight at first, need fewer.
    """
    import torch

    weights = roots.square()
    bias = weights.clamp_min(SMALLEST).log()[:, None, None, :]
    bias = bias.expand(-1, 1, ids.shape[1], -1).to(network.head.weight.dtype)
    states = network.encoder(input_ids=ids, attention_mask=bias).last_hidden_state
    pooled = (states * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
    return torch.softmax(network.head(pooled.to(states.dtype)).float(), dim=1)


def check_weights(network: Any, texts: Sequence[Encoding]) -> None:
    """Raise ``ExplanationError`` when weights of 0 and 1 do not give what a mask of 0 and 1 gives."""
    if not texts:
        return
    try:
        gap = gap_of_weights(network, texts)
    except Exception as error:  # each backbone has its own way to refuse
        why = str(error).partition("\n")[0] or type(error).__name__
    else:
        why = "" if gap <= TOLERANCE else f"answers are {gap:.2g} off"
    if why:
        kind = network.encoder.config.model_type
        raise ExplanationError(
            f"The attention of this backbone ({kind}) takes no weights: {why}. Explain with method 'partition'."
        )


def gap_of_weights(network: Any, texts: Sequence[Encoding]) -> float:
    """Return how far probabilities by weights of 0 and 1 are from those by a mask."""
    import torch

    ids, present, special = padded(texts, network.head.weight.device)
    with torch.inference_mode():
        gaps = [
            weighted(network, mask, ids)
            - network(input_ids=ids, attention_mask=mask.long()).float().softmax(dim=1)
            for mask in (present, special)
        ]
    return float(torch.stack(gaps).abs().max())


def integrated(
    network: Any, ids: torch.Tensor, special: torch.Tensor, present: torch.Tensor, steps: int
) -> np.ndarray:
    """Return the integrated gradients of every label's probability: float64 of shape (n, length, n_labels)."""
    from captum.attr import IntegratedGradients

    def forward(roots: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return weighted(network, roots, ids)

    labels = network.head.out_features
    gradients = IntegratedGradients(forward, multiply_by_inputs=True)
    found = [
        gradients.attribute(
            present, special, target=label, additional_forward_args=(ids,), n_steps=steps, method="gausslegendre"
        )
        for label in range(labels - 1)
    ]
    made = [one.detach().cpu().double().numpy() for one in found]
    # probabilities sum to 1, so the last label gets what the others lose
    last = -np.sum(made, axis=0) if made else np.zeros(tuple(ids.shape))
    return np.stack([*made, last], axis=-1)
