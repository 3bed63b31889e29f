"""Two evaluations of the same rows, as a run keeps them: by how much a model is better, and on which rows.

``paired`` compares outputs, in every metric; here there are only the errors of each row, enough for a card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.evaluation.paired import SURE, compute_mcnemar_p
from dlpipe.task import Evaluation, Task
from dlpipe.task.bootstrap import bootstrap

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

RIGHT_SHARE = "share of right rows"
SHOWN_ROWS = 8
"""So many rows that are won, and so many that are lost, are read."""


@dataclass(frozen=True)
class ComparedRow:
    """A row of which two models predict something else; label and predictions are as people read them."""

    row_id: str
    text: str
    label: str
    predicted: str
    rival_predicted: str


@dataclass(frozen=True)
class RowComparison:
    """A model beside a rival on the same rows.

    Attributes
    ----------
    measure : str
        What is compared: ``share of right rows``, or ``mean error`` where no number is right or wrong.
    gain : float
        By how much the model is better in that; below 0 it is worse.
    interval : (low, high)
        The 95 % interval of ``gain``, of a bootstrap over rows: each is drawn with both models' answers.
    rows, won, lost : int
        All rows, and those on which the model is better and worse.
    won_rows, lost_rows : tuple of ComparedRow
        Some of each, those with the largest difference first.
    """

    measure: str
    gain: float
    interval: tuple[float, float]
    rows: int
    won: int
    lost: int
    won_rows: tuple[ComparedRow, ...] = ()
    lost_rows: tuple[ComparedRow, ...] = ()

    @property
    def is_better(self) -> bool | None:
        """Whether the model is better; ``None`` where chance could make the difference.

        The rule is that of ``MetricDifference.verdict``: interval and, of right rows, exact test agree.
        """
        low, high = self.interval
        by_chance = self.measure == RIGHT_SHARE and compute_mcnemar_p(self.won, self.lost) >= SURE
        return None if low <= 0 <= high or by_chance else self.gain > 0

    def line(self) -> str:
        """Return the difference in words: ``share of right rows 0.081 better (0.050 to 0.112)``."""
        low, high = self.interval
        if not (self.won or self.lost):
            return f"{self.measure} the same on every row"
        if not self.gain:
            return f"{self.measure} the same ({low:+.3f} to {high:+.3f})"
        if self.gain < 0:
            low, high = -high, -low
        relation = "better" if self.gain > 0 else "worse"
        doubt = "; chance alone could do that" if self.is_better is None else ""
        return f"{self.measure} {abs(self.gain):.3f} {relation} ({low:.3f} to {high:.3f}){doubt}"


def compare_row_by_row(
    model: Evaluation,
    rival: Evaluation,
    table: TableVersion,
    *,
    task: Task,
    card: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> RowComparison | None:
    """Return a model beside a rival on the rows that both were evaluated on; ``None`` where that is not known.

    Parameters
    ----------
    model, rival : Evaluation
        Of the test split of ``table``, or of some of its rows; those of older runs have no ``by_row``.
    table : TableVersion
        The rows that are won and lost are read from it.
    task : Task
        Of both.
    card : mapping, optional
        Of the model, where its task reads columns that the card names.
    seed : int
        Of the resamples.
    """
    import numpy as np

    mine, theirs = model.by_row, rival.by_row
    if mine is None or theirs is None:
        return None
    row_ids = mine.row_ids.tolist()
    place = {row_id: at for at, row_id in enumerate(theirs.row_ids.tolist())}
    shared = [(at, place[row_id]) for at, row_id in enumerate(row_ids) if row_id in place]
    if not shared:
        return None
    own, other = np.array(shared).T
    errors = mine.errors[own], theirs.errors[other]
    if task.target.has_right_rows:
        errors = (errors[0] > 0).astype(float), (errors[1] > 0).astype(float)
    gains = errors[1] - errors[0]
    won = [at for at in np.argsort(-gains, kind="stable")[:SHOWN_ROWS] if gains[at] > 0]
    lost = [at for at in np.argsort(gains, kind="stable")[:SHOWN_ROWS] if gains[at] < 0]
    texts = _read_texts([row_ids[own[at]] for at in (*won, *lost)], table, task, card)

    def describe(at: int) -> ComparedRow:
        row_id = row_ids[own[at]]
        return ComparedRow(row_id, *texts[row_id], str(mine.predicted[own[at]]), str(theirs.predicted[other[at]]))

    rows = len(gains)
    return RowComparison(
        RIGHT_SHARE if task.target.has_right_rows else "mean error",
        float(gains.mean()),
        bootstrap(lambda counts: {"gain": gains @ counts / rows}, rows=rows, seed=seed, resamples=1000)["gain"],
        rows,
        int((gains > 0).sum()),
        int((gains < 0).sum()),
        tuple(map(describe, won)),
        tuple(map(describe, lost)),
    )


def _read_texts(
    row_ids: Sequence[str], table: TableVersion, task: Task, card: Mapping[str, Any] | None
) -> dict[str, tuple[str, str]]:
    """Return the text and the label of rows of the test split, as people read them, by row id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from dlpipe.tables import read_table

    columns = task.inputs.find_columns(table, card)
    test = read_table(table, split="test", columns=["row_id", *columns, "label"])
    found = test.filter(pc.is_in(test["row_id"], pa.array(row_ids, pa.string())))
    rows = task.inputs.read_rows(found.select(list(columns)))
    labels = found["label"].to_pylist()
    return {
        row_id: (task.inputs.format_row(row), task.target.format_label(label))
        for row_id, row, label in zip(found["row_id"].to_pylist(), rows, labels, strict=True)
    }
