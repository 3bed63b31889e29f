"""Outputs of a model for rows of a table: from the table of predictions where it has them all, else by scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError
from dlpipe.evaluation import ModelOutputs
from dlpipe.task import ENGINE, find_task

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.registry import ModelVersion
    from dlpipe.tables import TableVersion
    from dlpipe.task import Row, Target

PREDICTIONS = "predictions"


@dataclass(frozen=True)
class FoundOutputs:
    """Outputs of a model for rows, and in words where they are from."""

    outputs: ModelOutputs
    words: str


def find_outputs(
    model: ModelVersion, card: Mapping[str, Any], table: TableVersion, row_ids: Sequence[str], rows: Sequence[Row]
) -> FoundOutputs:
    """Return what ``model`` says of rows of ``table``.

    Parameters
    ----------
    model : ModelVersion
    card : mapping
        Of the model.
    table : TableVersion
    row_ids : sequence of n_rows str
    rows : sequence of n_rows rows
        As the model's task reads them; used where not all of them were predicted before.
    """
    target = find_task(card["task"]).target
    names, decision = card["labels"], card.get("decision", {})
    kept = read_kept(model, table, row_ids, target=target, names=names)
    if kept is not None:
        return FoundOutputs(
            ModelOutputs(kept[0], names, decision),
            f"kept in {kept[1]}, by {model.tags.get(ENGINE, 'torch')}",
        )
    from dlpipe.inference import load_predictor

    # by the engine that predicts for everybody, as predictions that are kept are
    predictor = load_predictor(model.uri)
    made = predictor.predict_outputs(rows)
    return FoundOutputs(ModelOutputs(made, names, decision), f"made now, by {predictor.engine}")


def read_kept(
    model: ModelVersion, table: TableVersion, row_ids: Sequence[str], *, target: Target, names: Sequence[str]
) -> tuple[Any, TableVersion] | None:
    """Return outputs of shape (n_rows, n_outputs) and the table that keeps them; ``None`` if it lacks a row.

    Parameters
    ----------
    model : ModelVersion
    table : TableVersion
        Whose rows they are.
    row_ids : sequence of n_rows str
    target : Target
        Of the model's task.
    names : sequence of n_outputs str
    """
    from dlpipe.parts import Scoring
    from dlpipe.tables import read_table_id, stream_table, table_at

    try:
        there = table_at(f"{table.path}_{PREDICTIONS}")
        fields = [name for name, _ in target.list_prediction_fields()]
        wanted = ["row_id", "answer_set", *fields]
        if {*wanted} - {name for name, _ in there.columns} or not read_table_id(table.path):
            return None
        # by weights, version and id of the table: a model of another registry may have the same name and number
        answers = Scoring(table, model, there.path).answer_set
        batches = list(filter(len, (keep(batch, answers) for batch in stream_table(there, columns=wanted))))
    except DlpipeError:
        return None
    return None if not batches else _order(batches, row_ids, there, target=target, names=names, fields=fields)


def keep(batch: pa.RecordBatch, answers: str) -> pa.RecordBatch:
    """Return the rows of a batch that belong to these answers."""
    import pyarrow.compute as pc

    return batch.filter(pc.equal(batch["answer_set"], answers))


def _order(
    batches: Sequence[pa.RecordBatch],
    row_ids: Sequence[str],
    there: TableVersion,
    *,
    target: Target,
    names: Sequence[str],
    fields: Sequence[str],
) -> tuple[Any, TableVersion] | None:
    import pyarrow as pa

    found = pa.Table.from_batches(batches)
    places = {row: at for at, row in enumerate(found["row_id"].to_pylist())}
    if any(row not in places for row in row_ids):
        return None
    chosen = found.take(pa.array([places[row] for row in row_ids], pa.int64())).select(fields)
    outputs = target.read_outputs(chosen, names)
    return None if outputs is None else (outputs, there)
