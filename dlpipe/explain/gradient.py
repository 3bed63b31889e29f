"""Explanations by gradients: approximate, in a fraction of the time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError
from dlpipe.explain.explanations import ExplainSettings, Explanation, Row, Scorer, seen_words

if TYPE_CHECKING:
    import numpy.typing as npt

    from dlpipe.task.texts.gradients import TokenAttributions

    Floats = npt.NDArray[np.floating[Any]]

ROWS = 256  # texts at a time


def explain_by_gradient(
    predictor: Scorer, rows: Sequence[Row], settings: ExplainSettings
) -> Iterator[Explanation]:
    """Yield the explanation of each row: a word's number is the sum of its tokens' integrated gradients.

    The base value is the probability with all words weighted by 0, which is near that of the empty text.

    Raises
    ------
    ExplanationError
        When ``predictor`` holds no torch network, or one whose attention takes no weights.
    """
    from dlpipe.task.texts import TextPredictor
    from dlpipe.task.texts.gradients import token_attributions

    if not isinstance(predictor, TextPredictor):
        raise ExplanationError(
            f"Gradients need a predictor of dlpipe, not a {type(predictor).__name__}. "
            "Explain with method 'partition'."
        )
    waiting = iter(rows)
    while some := list(islice(waiting, ROWS)):
        tokens = token_attributions(predictor, [text for _, text in some], steps=settings.steps)
        for (row_id, text), made in zip(some, tokens, strict=True):
            words = seen_words(predictor, text)
            values = summed_by_word(made, words)
            yield Explanation(row_id, text, predictor.labels, words, made.base, values, made.output)


def summed_by_word(made: TokenAttributions, words: Sequence[str]) -> Floats:
    """Return the sum over the tokens that end in each word, shape (n_words, n_labels)."""
    values = np.zeros((len(words), len(made.base)))
    if words:
        ends = list(accumulate(map(len, words)))
        place = np.searchsorted(ends, made.ends - 1, side="right").clip(max=len(words) - 1)
        np.add.at(values, place, made.values)
    return values
