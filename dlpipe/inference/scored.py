"""What a scoring has added, beside what stood in the table before: for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dlpipe.parts import ScoringResult
from dlpipe.tables import TableVersion, read_added, read_table, stream_table
from dlpipe.task import DriftSeries, Task

if TYPE_CHECKING:
    import pyarrow as pa

LEAST_SURE = 15
"""So many of the rows that the model is least sure of are read."""
MOST_ROWS = 1_000_000
"""Tables of more rows are not read again for a card."""


@dataclass(frozen=True)
class UnsureRow:
    """A row that the model is not sure of; the text is empty where it was not read."""

    row_id: str
    text: str
    predicted: str
    sureness: float


@dataclass(frozen=True)
class ScoredRows:
    """The predictions that a scoring has added.

    Attributes
    ----------
    rows, unanswered : int
        That were added, and those among them that could not be read.
    sureness, before_sureness : list of float
        How sure the model is of each, 0 to 1, and of those before; empty where predictions do not say that.
    series, before_series : tuple of DriftSeries
        What is compared of predictions, see ``Target.make_prediction_series``.
    before : int
        The predictions that stood there before: of the same model version, or of others where it has none; 0 where
        they were not read.
    before_is_own : bool
        Whether those are of the same model version.
    least : tuple of UnsureRow
        The least sure first.
    """

    rows: int
    unanswered: int
    sureness: list[float]
    before_sureness: list[float]
    series: tuple[DriftSeries, ...]
    before_series: tuple[DriftSeries, ...]
    before: int
    before_is_own: bool
    least: tuple[UnsureRow, ...]


def read_scored(done: ScoringResult, source: TableVersion, *, task: Task, columns: Sequence[str]) -> ScoredRows:
    """Return the predictions that a scoring has added, and those of the same table that stood there before.

    Parameters
    ----------
    done : ScoringResult
        With at least one new row.
    source : TableVersion
        Whose rows were scored.
    task : Task
        Of the model.
    columns : sequence of str
        Those of ``source`` that the model reads.
    """
    target = task.target
    names = [name for name, _ in target.list_prediction_fields()]
    added = read_added(done.table, columns=["row_id", "model_version", *names])
    answered = _drop_unanswered(added, names[0])
    before, is_own = _read_before(done.table, source, names, added["model_version"])
    sureness = target.measure_sureness(answered)
    return ScoredRows(
        added.num_rows,
        added.num_rows - answered.num_rows,
        sureness,
        target.measure_sureness(before),
        tuple(target.make_prediction_series(answered)),
        tuple(target.make_prediction_series(before)),
        before.num_rows,
        is_own,
        _find_least_sure(answered, sureness, names[0], source, task, columns),
    )


def _drop_unanswered(rows: pa.Table, column: str) -> pa.Table:
    """Return the rows without those that could not be read, which have nothing in ``column``."""
    import pyarrow.compute as pc

    return rows.filter(pc.is_valid(rows[column]))


def _read_before(
    table: TableVersion, source: TableVersion, names: Sequence[str], models: pa.ChunkedArray
) -> tuple[pa.Table, bool]:
    """Return the predictions of rows of the same table that stood there before; none where they are very many.

    Two models are not equally sure: where one of ``models`` has some, only its own are returned, and true.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = read_table(replace(table, version=0), columns=names).schema
    if table.version == 0 or table.rows > MOST_ROWS:
        return schema.empty_table(), False
    found = read_table(replace(table, version=table.version - 1), columns=["source", "model_version", *names])
    ours = _drop_unanswered(found.filter(pc.equal(found["source"], source.path)), names[0])
    own = ours.filter(pc.is_in(ours["model_version"], pc.unique(models)))
    before = (own if own.num_rows else ours).select(list(names))
    return pa.concat_tables([schema.empty_table(), before], promote_options="default"), own.num_rows > 0


def _find_least_sure(
    answered: pa.Table,
    sureness: Sequence[float],
    column: str,
    source: TableVersion,
    task: Task,
    columns: Sequence[str],
) -> tuple[UnsureRow, ...]:
    places = sorted(range(len(sureness)), key=lambda place: (sureness[place], place))[:LEAST_SURE]
    if not places:
        return ()
    chosen = answered.take(places).to_pylist()
    texts = _read_texts([row["row_id"] for row in chosen], source, task, columns)
    return tuple(
        UnsureRow(
            row["row_id"], texts.get(row["row_id"], ""), task.target.format_label(row[column]), sureness[place]
        )
        for row, place in zip(chosen, places, strict=True)
    )


def _read_texts(
    row_ids: Sequence[str], source: TableVersion, task: Task, columns: Sequence[str]
) -> dict[str, str]:
    """Return rows of a table as people read them, by row id."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if source.rows > MOST_ROWS:
        return {}
    wanted, found = pa.array(row_ids, pa.string()), dict[str, Any]()
    for batch in stream_table(source, columns=["row_id", *columns], batch_rows=65_536):
        some = batch.filter(pc.is_in(batch["row_id"], wanted))
        rows = task.inputs.read_rows(some.select(list(columns)))
        found.update(zip(some["row_id"].to_pylist(), map(task.inputs.format_row, rows), strict=True))
    return found
