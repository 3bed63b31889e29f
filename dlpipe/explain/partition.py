"""Explain rows by Owen values, and check that they add up to the model's output."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ExplanationError
from dlpipe.explain.explanations import ExplainSettings, Explanation, NamedRow, make_explanation
from dlpipe.explain.owen import compute_owen_values
from dlpipe.explain.rounds import OutputCache, Work, run_in_rounds
from dlpipe.task import Predictor, Row, Task
from dlpipe.task.row_parts import RowParts

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]

TOLERANCE = 1e-4


def explain_by_partition(
    predictor: Predictor, task: Task, rows: Sequence[NamedRow], settings: ExplainSettings
) -> Iterator[Explanation]:
    """Yield the checked explanation of each row, in the order of ``rows``; many are worked on at a time.

    Parameters
    ----------
    predictor, task, rows
        See ``explaining.explain_each``.
    settings : ExplainSettings
        ``max_evals``, ``batch_rows`` and ``seed``.

    Raises
    ------
    ExplanationError
        When base value plus attributions is not the model's output within 1e-4 (of an output above 1: of that).
    """
    works = (make_work(predictor, task, named, settings) for named in rows)
    yield from run_in_rounds(works, OutputCache(predictor))


def make_work(predictor: Predictor, task: Task, named: NamedRow, settings: ExplainSettings) -> Work[Explanation]:
    """Return the work of explaining one row.

    Parameters
    ----------
    predictor : Predictor
    task : Task
        That of the predictor.
    named : (row_id, row)
    settings : ExplainSettings
    """
    _, row = named
    parts = task.inputs.split_parts(row, predictor)

    def explain() -> Generator[list[Row], Floats, Explanation]:
        base, attributions, output = yield from attribute_row(row, parts, settings)
        return check_additivity(make_explanation(named, parts, predictor, task, base, attributions, output))

    return Work(len(task.inputs.format_row(row)), explain())


def attribute_row(
    row: Row, parts: RowParts, settings: ExplainSettings
) -> Generator[list[Row], Floats, tuple[Floats, Floats, Floats]]:
    """Ask for what the explanation of ``row`` needs, round by round; return base, attributions and output.

    Parameters
    ----------
    row : Row
    parts : RowParts
        Of that row.
    settings : ExplainSettings

    Yields
    ------
    list of rows
        Copies of the row; their outputs, shape (n_copies, n_outputs), are to be sent.
    """
    count = len(parts.shown)
    base, output = yield [parts.keep([False] * count), parts.keep([True] * count)]
    if count < 2:
        attributions = np.repeat((output - base)[None], count, axis=0)
    else:
        attributions = yield from compute_owen_values(
            parts.tree,
            parts.keep,
            base,
            output,
            max_evals=settings.max_evals,
            batch_rows=settings.batch_rows,
            seed=settings.seed,
        )
    # the row itself, not its copy with all parts: what is shown and checked is the output for what the table has
    (output,) = yield [row]
    return base, attributions, output


def check_additivity(made: Explanation) -> Explanation:
    """Return ``made`` when its numbers add up to the model's output."""
    size = max(1.0, float(abs(made.output).max()), float(abs(made.base).max()))
    if not made.gap <= TOLERANCE * size:
        raise ExplanationError(
            f"Row {made.row_id!r}: base value and attributions miss the model's output by {made.gap:.2g}, more "
            f"than {TOLERANCE * size:g}; make sure that the model gives the same row the same outputs each time."
        )
    return made
