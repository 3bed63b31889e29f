"""What each word adds to each output, by gradients: approximate, and cheap.

Each token gets a weight from 0 (left out) to 1 (there), which attention and pooling multiply it by. Integrated
gradients (Sundararajan, Taly and Yan, ICML 2017, by Captum) along the way from no token to all give each token its
share of what lies between. At weight 0 or 1 the network computes what it computes for a text without or with the
token, but for the positions of the tokens after it: this way asks what leaving words out asks. A way through the
word embeddings leads over inputs that mean nothing, and agreed less with Owen values (docs/decisions.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError
from dlpipe.task.batches import BATCH_TOKENS, sort_batches
from dlpipe.task.row_parts import PartAttributions, RowParts
from dlpipe.task.texts.predictor import TextPredictor

if TYPE_CHECKING:
    import torch
    from tokenizers import Encoding

    from dlpipe.task.predictor import Predictor
    from dlpipe.task.protocol import Target

    Activate = Callable[[torch.Tensor], torch.Tensor]

TOLERANCE = 1e-3
CHECKED_TEXTS = 4
SMALLEST_WEIGHT = 1e-12
"""The least weight: near the smallest number of all, gradients are denormal, and CPUs compute those far slower."""


@dataclass(frozen=True)
class ExplainedNetwork:
    """A network whose outputs are explained.

    Attributes
    ----------
    network : torch.nn.Module
        With ``encoder`` and ``head``.
    activate : callable
        Makes outputs of what the head gives.
    shares : bool
        Whether outputs sum to 1, so that the last one's attributions follow from the others.
    """

    network: Any
    activate: Activate
    shares: bool


@dataclass(frozen=True)
class TokenAttributions:
    """What the tokens of one row add to each output.

    Attributes
    ----------
    which, ends : int arrays of shape (n_tokens,)
        The number of the text that each token is of, and behind which of its characters it ends.
    values : array of shape (n_tokens, n_outputs)
    base, output : array of shape (n_outputs,)
        The outputs with none of these tokens and with all. ``base + values.sum(0)`` comes near ``output``.
    """

    which: np.ndarray
    ends: np.ndarray
    values: np.ndarray
    base: np.ndarray
    output: np.ndarray


def attribute_words(
    predictor: Predictor, rows: Sequence[Any], parts: Sequence[RowParts], target: Target, *, steps: int
) -> list[PartAttributions]:
    """Return the attributions of the words of each row, in the order of ``rows``.

    Parameters
    ----------
    rows : sequence of str, or of tuples of str
        Texts, or pairs of texts that are read together.
    parts : sequence of RowParts
        The words of each row that the model reads; those of one text, joined, are its beginning.
    steps : int
        Points on the way; each costs a forward and, for each output (of shares all but one), a backward pass.

    Raises
    ------
    ExplanationError
        When ``predictor`` holds no torch network, or one whose attention takes no weights.
    """
    if not isinstance(predictor, TextPredictor):
        raise ExplanationError(
            f"Gradients need a predictor of dlpipe, not a {type(predictor).__name__}. "
            "Explain with method 'partition'."
        )
    card: Mapping[str, Any] = predictor.card
    given = ExplainedNetwork(
        get_torch_network(predictor),
        lambda logits: target.activate_tensor(logits, card),
        target.output_kind == "shares",
    )
    made = attribute_tokens(given, predictor._encode.encode_batch(rows), steps=steps)
    return [
        PartAttributions(sum_by_word(each, some), each.base, each.output)
        for each, some in zip(made, parts, strict=True)
    ]


def sum_by_word(made: TokenAttributions, parts: RowParts) -> np.ndarray:
    """Return the sum over the tokens that end in each word, shape (n_words, n_outputs)."""
    values = np.zeros((len(parts.shown), len(made.base)))
    for which, column in enumerate(parts.texts):
        places = [place for place, of_part in enumerate(parts.columns) if of_part == column]
        if places:
            tokens = made.which == which
            ends = list(accumulate(len(parts.shown[place]) for place in places))
            found = np.searchsorted(ends, made.ends[tokens] - 1, side="right").clip(max=len(places) - 1)
            np.add.at(values, np.array(places)[found], made.values[tokens])
    return values


def attribute_tokens(given: ExplainedNetwork, texts: Sequence[Encoding], *, steps: int) -> list[TokenAttributions]:
    """Return the attributions of the tokens of each text, in the order of ``texts``.

    Parameters
    ----------
    given : ExplainedNetwork
    texts : sequence of Encoding
        As the model's tokenizer encodes them, cut at its ``max_length``.
    steps : int
        Points on the way from no token to all.

    Raises
    ------
    ExplanationError
        When the network's attention takes no weights.
    """
    check_weights(given, texts[:CHECKED_TEXTS])
    lengths = np.array([len(text.ids) for text in texts], dtype=np.int64)
    result: dict[int, TokenAttributions] = {}
    # captum runs all steps of a batch at once, so a batch has as many times fewer tokens
    for rows in sort_batches(lengths, tokens=max(1, BATCH_TOKENS // steps)):
        batch = attribute_batch(given, [texts[row] for row in rows], steps)
        result.update(zip(rows.tolist(), batch, strict=True))
    return [result[row] for row in range(len(texts))]


def get_torch_network(predictor: TextPredictor) -> Any:
    """Return the network inside ``predictor``, which has ``encoder`` and ``head``."""
    network: Any = getattr(predictor, "_network", None)
    # a predictor holds an engine's network, and that of the engine "torch" holds the one with encoder and head
    inner = network if hasattr(network, "encoder") else getattr(network, "_network", None)
    if not hasattr(inner, "encoder"):
        raise ExplanationError(
            "Gradients need the torch network, which this predictor does not hold. Open it with "
            "open_predictor(model, engine='torch'), or explain with method 'partition'."
        )
    return inner


def attribute_batch(given: ExplainedNetwork, texts: Sequence[Encoding], steps: int) -> list[TokenAttributions]:
    """Return the attributions of the tokens of a batch of texts; see ``attribute_tokens``."""
    import torch

    ids, present, special = pad_texts(texts, given.network.head.weight.device)
    with torch.no_grad():
        base, output = (compute_weighted_outputs(given, roots, ids).cpu().numpy() for roots in (special, present))
    values = integrate_gradients(given, ids, special, present, steps)
    return [select_words(text, values[row], base[row], output[row]) for row, text in enumerate(texts)]


def select_words(text: Encoding, values: np.ndarray, base: np.ndarray, output: np.ndarray) -> TokenAttributions:
    """Return the attributions of one text, without padding and the tokenizer's own tokens.

    Parameters
    ----------
    text : Encoding
        Of n_tokens tokens, with the tokenizer's own.
    values : array of shape (length, n_outputs)
        ``length`` is that of the batch's longest text.
    base, output : array of shape (n_outputs,)
    """
    words = np.array(text.special_tokens_mask) == 0
    which = np.array([-1 if number is None else number for number in text.sequence_ids], dtype=np.int64)
    ends = np.array([end for _, end in text.offsets], dtype=np.int64)
    return TokenAttributions(which[words], ends[words], values[: len(words)][words], base, output)


def pad_texts(texts: Sequence[Encoding], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, and as floats which are tokens at all and which are special: each (n, longest).

    Special are the tokenizer's own, such as ``[CLS]``: they stay where all words are left out.
    """
    import torch

    shape = len(texts), max(len(text.ids) for text in texts)
    ids, present, special = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape), torch.zeros(shape)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = torch.tensor(text.ids)
        present[row, : len(text.ids)] = 1
        special[row, : len(text.ids)] = torch.tensor(text.special_tokens_mask, dtype=torch.float32)
    return ids.to(device), present.to(device), special.to(device)


def compute_weighted_outputs(given: ExplainedNetwork, roots: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return outputs (n, n_outputs) for tokens whose weights are the squares of ``roots``, both (n, length).

    Parameters
    ----------
    given : ExplainedNetwork
    roots : float tensor of shape (n, length)
        From 0 to 1. The first few words change most, so equal steps of the root, which are small ones of the
        weight at first, need fewer steps.
    ids : int64 tensor of shape (n, length)
    """
    encoder, head = given.network.encoder, given.network.head
    weights = roots.square()
    # softmax of scores + log(weight) multiplies what a token gets by its weight: 0 is a mask, 1 changes nothing
    bias = weights.clamp_min(SMALLEST_WEIGHT).log()[:, None, None, :]
    bias = bias.expand(-1, 1, ids.shape[1], -1).to(head.weight.dtype)
    states = encoder(input_ids=ids, attention_mask=bias).last_hidden_state
    pooled = (states * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
    return given.activate(head(pooled.to(states.dtype)).float())


def check_weights(given: ExplainedNetwork, texts: Sequence[Encoding]) -> None:
    """Raise ``ExplanationError`` when weights of 0 and 1 do not give what a mask of 0 and 1 gives."""
    from dlpipe.task.texts.bert import Bert

    if not texts:
        return
    try:
        gap = measure_weight_gap(given, texts)
    except Exception as error:  # each backbone has its own way to refuse; ours takes weights
        if isinstance(given.network.encoder, Bert):
            raise
        why = str(error).partition("\n")[0] or type(error).__name__
    else:
        why = "" if gap <= TOLERANCE else f"answers are {gap:.2g} off"
    if why:
        kind = given.network.encoder.config.model_type
        raise ExplanationError(
            f"The attention of this backbone ({kind}) takes no weights: {why}. Explain with method 'partition'."
        )


def measure_weight_gap(given: ExplainedNetwork, texts: Sequence[Encoding]) -> float:
    """Return how far outputs by weights of 0 and 1 are from those by a mask, as a share of outputs above 1."""
    import torch

    ids, present, special = pad_texts(texts, given.network.head.weight.device)
    with torch.inference_mode():
        by_weights = torch.stack([compute_weighted_outputs(given, mask, ids) for mask in (present, special)])
        by_mask = torch.stack(
            [
                given.activate(given.network(input_ids=ids, attention_mask=mask.long()).float())
                for mask in (present, special)
            ]
        )
    return float((by_weights - by_mask).abs().max() / by_mask.abs().max().clamp_min(1))


def integrate_gradients(
    given: ExplainedNetwork, ids: torch.Tensor, special: torch.Tensor, present: torch.Tensor, steps: int
) -> np.ndarray:
    """Return the integrated gradients of every output: float64 of shape (n, length, n_outputs).

    Parameters
    ----------
    given : ExplainedNetwork
    ids : int64 tensor of shape (n, length)
    special, present : float tensor of shape (n, length)
        Where the way begins and ends: 1 for the tokenizer's own tokens, and for all tokens.
    steps : int
    """
    from captum.attr import IntegratedGradients

    def forward(roots: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return compute_weighted_outputs(given, roots, ids)

    outputs = given.network.head.out_features
    gradients = IntegratedGradients(forward, multiply_by_inputs=True)
    found = [
        gradients.attribute(
            present, special, target=output, additional_forward_args=(ids,), n_steps=steps, method="gausslegendre"
        )
        for output in range(outputs - 1 if given.shares else outputs)
    ]
    made = [values.detach().cpu().double().numpy() for values in found]
    if given.shares:  # the last output gets what the others lose
        made.append(-np.sum(made, axis=0) if made else np.zeros(tuple(ids.shape)))
    return np.stack(made, axis=-1)
