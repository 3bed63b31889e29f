"""Answers of a table computed again with the registered model, and compared with those of then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import DlpipeError
from dlpipe.inference import load_predictor
from dlpipe.registry import KIND, resolve
from dlpipe.reproducing.answered import ROUNDING, AnswersAgain, Stored, read_stored
from dlpipe.reproducing.explanations import EXPLAINED_AGAIN, compare_explanations, measure_gap
from dlpipe.tables import TableVersion, stream_table, table_at
from dlpipe.task import find_task

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 10_000
"""So many rows of the answers of one model are computed again."""


def compare_answers(asked: str, models: list[str]) -> Iterator[AnswersAgain]:
    """Yield, for each model and each version of a table that it answered, how far its answers are from those now.

    Of a model that has no answers left in the table, it is said that they are not compared.

    Parameters
    ----------
    asked : str
        A table of predictions or explanations.
    models : list of str
        The models whose answers are wanted.
    """
    table = table_at(asked)
    explained = "attribution" in dict(table.columns)
    found = read_stored(table, models, most=EXPLAINED_AGAIN if explained else MOST)
    for origin, stored in found.items():
        uri, path, version = origin
        try:
            source = table_at(path, version=version)
            if explained:
                yield compare_explanations(stored, uri, source, table=table)
            else:
                yield compare_predictions(stored, uri, source, table=str(table))
        except (DlpipeError, OSError) as error:
            where = f"{path.rpartition('/')[2]}@v{version}"
            yield AnswersAgain(uri, str(table), where, "not compared", why=str(error))
    for uri in dict.fromkeys(models):
        if not any(origin.model == uri for origin in found):
            why = f"{table} has none of them any more. Name the model to train it again and no more: {uri}"
            yield AnswersAgain(uri, str(table), "", "not compared", why=why)


def compare_predictions(stored: Stored, uri: str, source: TableVersion, *, table: str) -> AnswersAgain:
    """Return how far predictions of then are from those that the registered model gives now.

    Raises
    ------
    DlpipeError
        When its files, or those of the rows, are gone.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if KIND in resolve(uri).tags:
        why = "a pipeline's are not computed again. Name the predictions of its classifier"
        return AnswersAgain(uri, table, str(source), "not compared", why=why)
    predictor = load_predictor(uri)
    task = find_task(predictor.card["task"])
    then = pa.Table.from_batches(stored.batches)
    total = then.num_rows + stored.left_out
    columns = task.inputs.find_columns(source, predictor.card)
    batches = stream_table(source, columns=["row_id", *columns])
    kept = [batch.filter(pc.is_in(batch["row_id"], then["row_id"].combine_chunks())) for batch in batches]
    rows = pa.Table.from_batches(kept) if kept else pa.table({})
    if not rows.num_rows:
        why = f"none of its rows is in {source} any more"
        return AnswersAgain(uri, table, str(source), "not compared", left_out=total, why=why)
    places = pc.index_in(then["row_id"], rows["row_id"].combine_chunks())
    then, places = then.filter(pc.is_valid(places)), pc.drop_null(places)
    distinct, which = task.inputs.deduplicate_rows(rows.select(columns))
    outputs = predictor.predict_encoded(predictor.encode(distinct))[which][places.to_numpy()]
    made = task.target.make_prediction_columns(outputs, predictor.card)
    names = [name for name, _ in task.target.list_prediction_fields()]
    alike, largest = compare_columns(then.select(names), pa.Table.from_arrays(list(made), names=names))
    same = alike == then.num_rows and not largest > ROUNDING
    return AnswersAgain(
        uri,
        table,
        str(source),
        "same" if same else "different",
        rows=then.num_rows,
        left_out=total - then.num_rows,
        alike=alike,
        largest=largest,
    )


def compare_columns(then: pa.Table, now: pa.Table) -> tuple[int, float]:
    """Return how many rows are alike, and the largest difference of a number.

    A row is alike where its labels are the same and NaN stands where it stood; two NaN at one place are the same.

    Parameters
    ----------
    then, now : pyarrow.Table
        With the same columns and as many rows.

    Examples
    --------
    >>> import pyarrow as pa
    >>> then = pa.table({"predicted": ["a", "b"], "probability": [0.75, 0.5]})
    >>> compare_columns(then, pa.table({"predicted": ["a", "a"], "probability": [0.5, 0.5]}))
    (1, 0.25)
    """
    alike, largest = np.ones(then.num_rows, bool), 0.0
    for name in then.column_names:
        old, new = then[name].to_pylist(), now[name].to_pylist()
        for at, (before, after) in enumerate(zip(old, new, strict=True)):
            if not (is_number(before) and is_number(after)):
                alike[at] &= before == after
            elif math.isinf(gap := measure_gap(to_numbers(before), to_numbers(after))):
                alike[at] = False
            else:
                largest = max(largest, gap)
    return int(alike.sum()), largest


def is_number(value: Any) -> bool:
    """Return whether a value is a number, or a list of some.

    Examples
    --------
    >>> is_number(0.5), is_number([0.5, 0.5]), is_number("a"), is_number([])
    (True, True, False, False)
    """
    values = to_numbers(value)
    return bool(values) and all(isinstance(each, int | float) for each in values)


def to_numbers(value: Any) -> list[Any]:
    """Return a list as it is, and anything else in one."""
    return value if isinstance(value, list) else [value]
