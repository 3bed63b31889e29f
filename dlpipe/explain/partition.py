"""Explanations by Owen values, checked."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError
from dlpipe.explain.explanations import ExplainSettings, Explanation, Row, Scorer, seen_words
from dlpipe.explain.owen import owen_values
from dlpipe.explain.pooling import Remembering, Work, in_rounds
from dlpipe.explain.tree import word_tree

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

TOLERANCE = 1e-4


def explain_by_partition(
    predictor: Scorer, rows: Sequence[Row], settings: ExplainSettings
) -> Iterator[Explanation]:
    """Yield the checked explanation of each row, many at a time.

    Raises
    ------
    ExplanationError
        When base value plus attributions is not the model's output within 1e-4.
    """
    works = (work_on(predictor, row_id, text, settings) for row_id, text in rows)
    yield from in_rounds(works, Remembering(predictor))


def work_on(predictor: Scorer, row_id: str, text: str, settings: ExplainSettings) -> Work[Explanation]:
    """Return the work of explaining one text."""
    words = seen_words(predictor, text)
    return Work(len(text), explaining(tuple(predictor.labels), row_id, text, words, settings))


def explaining(
    labels: tuple[str, ...], row_id: str, text: str, words: tuple[str, ...], settings: ExplainSettings
) -> Generator[list[str], Floats, Explanation]:
    """Ask for what the explanation of ``text`` needs, round by round, and return it."""
    seen = "".join(words)
    whole = text if seen == text else " ".join(seen.split())
    base, output = yield ["", whole]
    if len(words) < 2:
        attributions = np.repeat((output - base)[None], len(words), axis=0)
    else:
        attributions = yield from owen_values(
            word_tree(words),
            base,
            output,
            max_evals=settings.max_evals,
            batch_rows=settings.batch_rows,
            seed=settings.seed,
        )
    (output,) = yield [text]
    return checked(Explanation(row_id, text, labels, words, base, attributions, output))


def checked(made: Explanation) -> Explanation:
    """Return ``made`` when its numbers add up to the model's output."""
    if not made.gap <= TOLERANCE:
        raise ExplanationError(
            f"Row {made.row_id!r}: base value and attributions miss the model's output by {made.gap:.2g}, more "
            f"than {TOLERANCE:g}; make sure that the model gives the same text the same probabilities each time."
        )
    return made
