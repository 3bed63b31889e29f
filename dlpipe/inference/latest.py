"""Read the latest prediction for each row of a predictions table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlpipe.errors import NoRows, SchemaMismatch
from dlpipe.tables import TableVersion, read_table

if TYPE_CHECKING:
    import pyarrow as pa


def read_latest_answers(answers: TableVersion, *, model: str | None = None, source: str | None = None) -> pa.Table:
    """Return the rows of a predictions table that were scored last, one for each row that was scored.

    Parameters
    ----------
    answers : TableVersion
        What ``score`` and the flows append to: a table of predictions, or of a pipeline's answers.
    model : str, optional
        URI of a version, such as ``models:/reviews/1``, or of a pipeline's: the latest of its answers. Without it,
        the latest of any model.
    source : str, optional
        Path of a table: only the answers for its rows. Without it, for the rows of each table that was scored.

    Raises
    ------
    NoRows
        When there is no such answer.
    SchemaMismatch
        When the table is none of answers.
    """
    import pyarrow.compute as pc

    names = [name for name, _ in answers.columns]
    if missing := [name for name in ("row_id", "source", "scored_at", "model_version") if name not in names]:
        raise SchemaMismatch(
            f"{str(answers)!r} has no column {' and no column '.join(map(repr, missing))}, so it is no table of "
            "answers of this version of dlpipe. Name one that flows/predict_flow.py or flows/train_flow.py made."
        )
    rows = read_table(answers)
    if not len(rows):
        raise NoRows(f"{str(answers)!r} has no answers: nothing was scored into it yet.")
    models = [name for name in ("model_version", "pipeline_version") if name in names]
    if model is not None:
        own = [pc.equal(rows[name], model) for name in models]
        rows = _filter_rows(rows, own[0] if len(own) == 1 else pc.or_(*own), answers, models, model)
    if source is not None:
        rows = _filter_rows(rows, pc.equal(rows["source"], source), answers, ["source"], source)
    return rows.take(find_latest(rows))


def find_latest(rows: pa.Table) -> pa.Array:
    """Return where the latest answer for each row is, in the order of the table.

    Of several at the same time, as in one commit, the last. Two sources may have the same ``row_id``.
    """
    import numpy as np
    import pyarrow as pa

    codes = [rows[name].combine_chunks().dictionary_encode().indices.to_numpy() for name in ("source", "row_id")]
    order = np.lexsort((np.arange(len(rows)), rows["scored_at"].to_numpy(), *codes))
    first, second = (some[order] for some in codes)
    ends = np.ones(len(rows), dtype=bool)
    ends[:-1] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return pa.array(np.sort(order[ends]))


def _filter_rows(
    rows: pa.Table, keep: pa.ChunkedArray, answers: TableVersion, columns: Sequence[str], asked: str
) -> pa.Table:
    """Return the rows to ``keep``; raise ``NoRows`` where there is none, with the models or tables that exist."""
    found = rows.filter(keep)
    if len(found):
        return found
    there = sorted({name for column in columns for name in rows[column].unique().to_pylist() if name})
    raise NoRows(f"{str(answers)!r} has no answer of {asked}; it has those of: {', '.join(there) or 'nobody'}.")
