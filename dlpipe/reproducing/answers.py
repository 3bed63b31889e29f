"""Predictions of a table computed again with the registered model, and compared with those of then."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlpipe.errors import DlpipeError
from dlpipe.inference import load_predictor
from dlpipe.registry import KIND, resolve
from dlpipe.tables import TableVersion, stream_table, table_at
from dlpipe.task import find_task

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 10_000
"""So many rows of the answers of one model are computed again."""
ROUNDING = 1e-4
"""Within this, a number is the same: batches of other rows add up in another order."""
EXIT_CODES = {"same": 0, "different": 4, "not compared": 1}


@dataclass(frozen=True)
class AnswersAgain:
    """What came of computing the answers of a model again.

    Attributes
    ----------
    model, table, source : str
        The version that answered, the table with the answers, the version of the table with the rows.
    outcome : str
        ``same``: each label as it was, each number within 0.0001. ``not compared``: they cannot be computed again.
    rows : int
        How many were.
    left_out : int
        Answers beyond the first 10,000, and those whose row is not in the source any more.
    alike : int
        Rows with the same labels.
    largest : float
        The largest difference of a number; NaN where none was compared.
    why : str
        Why they were not compared, and what to do.
    """

    model: str
    table: str
    source: str
    outcome: Literal["same", "different", "not compared"]
    rows: int = 0
    left_out: int = 0
    alike: int = 0
    largest: float = math.nan
    why: str = ""

    @property
    def exit_code(self) -> int:
        """0 for the same answers, 4 for different ones, 1 where they cannot be compared."""
        return EXIT_CODES[self.outcome]

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON; ``None`` stands for what is not known."""
        return {**vars(self), "largest": self.largest if math.isfinite(self.largest) else None}

    def __str__(self) -> str:
        if self.outcome == "not compared":
            return f"answers   of {self.model} in {self.table} not compared: {self.why}"
        rest = f"; {self.left_out:,} more were not compared" if self.left_out else ""
        return (
            f"answers   of {self.model} in {self.table} for {self.source}: {self.alike:,} of {self.rows:,} "
            f"decided alike, numbers differ by at most {self.largest:.2g}{rest}"
        )


def compare_answers(asked: str, models: list[str]) -> Iterator[AnswersAgain]:
    """Yield, for each model and each version of a table that it answered, how far its answers are from those now.

    Parameters
    ----------
    asked : str
        A table of predictions or explanations; explanations are not computed again.
    models : list of str
        The models whose answers are wanted.
    """
    table = table_at(asked)
    if "attribution" in dict(table.columns):
        for uri in models:
            why = f"explanations are not computed again. `dlpipe explain --model {uri} TEXT` explains one row"
            yield AnswersAgain(uri, str(table), "", "not compared", why=why)
        return
    for (uri, path, version), stored in read_stored(table, models).items():
        where = f"{path.rpartition('/')[2]}@v{version}"
        try:
            yield compare_stored(stored, uri, table_at(path, version=version), table=str(table))
        except (DlpipeError, OSError) as error:
            yield AnswersAgain(uri, str(table), where, "not compared", why=str(error))


def read_stored(table: TableVersion, models: list[str]) -> dict[tuple[str, str, int], list[pa.RecordBatch]]:
    """Return the answers of models in a table, by the version and the table and version that it answered."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[tuple[str, str, int], list[pa.RecordBatch]] = {}
    for batch in stream_table(table):
        origins = pa.table(batch).group_by(["model_version", "source", "source_version"]).aggregate([]).to_pylist()
        for origin in origins:
            if origin["model_version"] in models:
                ours = [pc.equal(batch[name], value) for name, value in origin.items()]
                mask = pc.and_(pc.and_(*ours[:2]), ours[2])
                key = (origin["model_version"], origin["source"], origin["source_version"])
                found.setdefault(key, []).append(batch.filter(mask))
    return found


def compare_stored(stored: list[pa.RecordBatch], uri: str, source: TableVersion, *, table: str) -> AnswersAgain:
    """Return how far answers of then are from those that the registered model gives now.

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
    then = pa.Table.from_batches(stored)
    total, then = then.num_rows, then.slice(0, MOST)
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
    """Return how many rows have the same labels, and the largest difference of a number.

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
            if is_number(before) and is_number(after):
                gap = np.abs(np.atleast_1d(np.asarray(before, float)) - np.atleast_1d(np.asarray(after, float)))
                largest = max(largest, float(gap.max(initial=0)))
            elif before != after:
                alike[at] = False
    return int(alike.sum()), largest


def is_number(value: Any) -> bool:
    """Return whether a value is a number, or a list of some.

    Examples
    --------
    >>> is_number(0.5), is_number([0.5, 0.5]), is_number("a"), is_number([])
    (True, True, False, False)
    """
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(isinstance(each, int | float) for each in values)
