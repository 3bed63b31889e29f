"""Score a table version: append a model's predictions to a predictions table."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dlpipe.cluster import Cluster
from dlpipe.errors import ModelNotFound
from dlpipe.parts import Scoring, ScoringResult, score_by_part
from dlpipe.registry import ModelVersion
from dlpipe.tables import PART_ROWS, TablePart, TableVersion
from dlpipe.task import find_task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dlpipe.task import Inputs, Predictor, Task
    from dlpipe.task.batches import EncodedRows


def score(
    predictor: Predictor,
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = "test",
    part_rows: int = PART_ROWS,
    say: Callable[[str], None] | None = print,
    cluster: Cluster | None = None,
) -> ScoringResult:
    """Append the predictions for ``source`` to the Delta table ``target`` in one commit, unless they exist.

    A row that the same model has answered in the same table version gets no second answer, whichever split was
    asked for then. A scoring that was killed continues after its last part. Beside the ids, memory does not grow
    with the table.

    Parameters
    ----------
    predictor : Predictor
        Of ``model``; see ``load_predictor``.
    source : TableVersion
        A table with ``row_id`` and the columns that the model reads (and ``split``). A missing text is scored as
        an empty one.
    target : str
        Path of the predictions table, made if needed. Its columns: ``row_id``, what the task predicts,
        ``model_version`` (``models:/name/3``), ``source`` (path of the table), ``source_version``, ``scored_at``
        and ``answer_set`` (the same for all answers of one model, by its weights, for one version of one table).
        Of a classification the task predicts ``predicted`` (a class), ``probability`` (of that class),
        ``probabilities`` (list of float32, in the order of ``labels``) and ``labels`` (list of string: models with
        other classes can share the table). In pandas::

            pd.DataFrame(rows["probabilities"].tolist(), columns=rows["labels"].iloc[0])
    split : str or None
        The split to score; ``None`` means all of them.
    part_rows : int
        Rows that are held in memory, sorted by length together, and done again at most after a kill.
    say : callable, optional
        Gets a line every ten seconds where there is no terminal for a bar; None keeps silent.
    cluster : Cluster, optional
        Where parts are scored, by what has one core each; by default in this process.

    Raises
    ------
    ModelNotFound
        When ``predictor`` does not hold the weights of ``model``.
    TableVersionNotFound
        When another program removes the data files of ``source`` meanwhile; nothing is committed.
    """
    make, scoring = functools.partial(PartScorer, predictor), Scoring(source, model, target, split)
    return score_by_part(make, scoring, part_rows=part_rows, say=say, cluster=cluster)


@dataclass(frozen=True)
class EncodedPart:
    """A part whose rows are encoded already, each different one once."""

    part: TablePart
    row_ids: pa.Array
    encoded: EncodedRows
    which: np.ndarray
    """For each row, the number of the different one that it is."""


class TaskScorer(ABC):
    """What scorers with a model and with a pipeline have in common: how rows of the model's task are read.

    Raises
    ------
    SchemaMismatch
        When the source has not the columns that the model reads.
    """

    def __init__(self, scoring: Scoring, card: Mapping[str, Any]) -> None:
        self.scoring, self.task = scoring, find_task(card["task"])
        self.columns = self.inputs.find_columns(scoring.source, card)

    @property
    def inputs(self) -> Inputs:
        """The inputs of the model's task."""
        return self.task.inputs

    def read(self, part: TablePart) -> pa.Table:
        """Return ``row_id`` and what the model reads of the rows of ``part`` that are to be scored."""
        return self.scoring.read(part, self.columns)

    @abstractmethod
    def begin(self, part: TablePart) -> Any:
        """Read and prepare ``part``."""

    @abstractmethod
    def finish(self, begun: Any, *, progress: Callable[[int], None] | None = None) -> int:
        """Predict and stage what was begun, and return its rows."""

    def __call__(self, part: TablePart) -> int:
        """Predict and stage ``part``, and return its rows."""
        return self.finish(self.begin(part))


class PartScorer(TaskScorer):
    """Makes predictions of parts with a model; see ``Scorer``. ``commit_parts`` makes them a version.

    Raises
    ------
    ModelNotFound
        When ``predictor`` does not hold the weights of the model that the rows will name.
    SchemaMismatch
        When the source has not the columns that the model reads.
    """

    def __init__(self, predictor: Predictor, scoring: Scoring) -> None:
        if predictor.digest != scoring.model.digest:
            raise ModelNotFound(
                f"The predictor has the weights {predictor.digest[:12]}, not {scoring.model.digest[:12]} of "
                f"{scoring.model.uri}. Open it with load_predictor({scoring.model.uri!r})."
            )
        super().__init__(scoring, predictor.card)
        self.predictor = predictor

    @property
    def schema(self) -> pa.Schema:
        """The columns of a predictions table."""
        return make_prediction_schema(self.task)

    def begin(self, part: TablePart) -> EncodedPart:
        """Read and encode ``part``; another thread may do this while ``finish`` works."""
        table = self.read(part)
        rows, which = self.inputs.deduplicate_rows(table.select(self.columns))
        return EncodedPart(part, table["row_id"].combine_chunks(), self.predictor.encode(rows), which)

    def finish(self, begun: EncodedPart, *, progress: Callable[[int], None] | None = None) -> int:
        """Predict and stage what was begun, and return its rows; ``progress`` gets them batch by batch."""
        import numpy as np
        import pyarrow as pa

        # progress counts the rows of the table, of which one encoded row may be many
        repeats = np.bincount(begun.which, minlength=len(begun.encoded))

        def done(rows: np.ndarray) -> None:
            if progress is not None:
                progress(int(repeats[rows].sum()))

        outputs = self.predictor.predict_encoded(begun.encoded, done=done)[begun.which]
        predicted = self.task.target.make_prediction_columns(outputs, self.predictor.card)
        columns = [begun.row_ids.cast(pa.string()), *predicted, *make_origin_columns(self.scoring, len(outputs))]
        return self.scoring.stage(begun.part, pa.Table.from_arrays(columns, schema=self.schema))


def make_prediction_schema(task: Task) -> pa.Schema:
    """Return the columns of a table of predictions of this task."""
    import pyarrow as pa

    return pa.schema(
        [
            ("row_id", pa.string()),
            *task.target.list_prediction_fields(),
            ("model_version", pa.string()),
            ("source", pa.string()),
            ("source_version", pa.int64()),
            ("scored_at", pa.timestamp("us", "UTC")),
            ("answer_set", pa.string()),
        ]
    )


def make_origin_columns(scoring: Scoring, count: int, *, model: str | None = None) -> list[pa.Array]:
    """Return the last columns of ``make_prediction_schema``: from which model and source, and when.

    Parameters
    ----------
    scoring : Scoring
    count : int
        How many rows.
    model : str, optional
        The version that rows name; by default that of the scoring.
    """
    import pyarrow as pa

    values = [
        pa.scalar(model or scoring.model.uri),
        pa.scalar(scoring.source.path),
        pa.scalar(scoring.source.version, pa.int64()),
        pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")),
        pa.scalar(scoring.answer_set),
    ]
    return [pa.repeat(value, count) for value in values]
