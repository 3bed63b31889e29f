"""Score a table version with a pipeline: append its answers to a table of answers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from dlpipe.errors import ModelNotFound
from dlpipe.inference.scoring import TaskScorer, make_origin_columns, make_prediction_schema
from dlpipe.parts import Scoring, ScoringResult, score_by_part
from dlpipe.registry import ModelVersion
from dlpipe.tables import PART_ROWS, TablePart, TableVersion

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.inference.pipeline import Answers, Pipeline
    from dlpipe.task import Task

BATCH_ROWS = 4096  # over which the time of a call is shared out as ``row_ms``


def score_with_pipeline(
    pipeline: Pipeline,
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = "test",
    part_rows: int = PART_ROWS,
    say: Callable[[str], None] | None = print,
) -> ScoringResult:
    """Append the answers for ``source`` to the Delta table ``target`` in one commit, unless they exist.

    Parameters
    ----------
    pipeline : Pipeline
        Of ``model``; see ``load_pipeline``.
    source : TableVersion
        A table with the columns ``row_id`` and ``text`` (and ``split``).
    model : ModelVersion
        The pipeline's.
    target : str
        Path of the table, made if needed. Beside the columns of a classifier's predictions (``model_version`` is
        the classifier's) it has ``status``, ``language``, ``language_probability``, ``cached``, ``row_ms`` and
        ``pipeline_version``. A row that cannot be read has a status and no prediction.
    split, part_rows, say
        See ``score``.

    Raises
    ------
    ModelNotFound
        When ``pipeline`` is not ``model``.
    """
    make, scoring = functools.partial(PipelineScorer, pipeline), Scoring(source, model, target, split)
    return score_by_part(make, scoring, part_rows=part_rows, say=say)


class PipelineScorer(TaskScorer):
    """Makes answers of parts with a pipeline; see ``Scorer``. ``commit_parts`` makes them a version.

    Raises
    ------
    ModelNotFound
        When ``pipeline`` is not the model that the rows will name.
    """

    def __init__(self, pipeline: Pipeline, scoring: Scoring) -> None:
        model = scoring.model
        if pipeline.digest != model.digest:
            raise ModelNotFound(
                f"The pipeline has the digest {pipeline.digest[:12]}, not {model.digest[:12]} of {model.uri}. "
                f"Open it with load_pipeline({model.uri!r})."
            )
        super().__init__(scoring, pipeline.predictor.card)
        self.pipeline = pipeline

    @property
    def schema(self) -> pa.Schema:
        """The columns of a table of answers."""
        return make_answer_schema(self.task)

    def begin(self, part: TablePart) -> tuple[TablePart, pa.Table]:
        """Read ``part``."""
        return part, self.read(part)

    def finish(self, begun: tuple[TablePart, pa.Table], *, progress: Callable[[int], None] | None = None) -> int:
        """Answer and stage what was begun, and return its rows; ``progress`` gets them batch by batch."""
        import pyarrow as pa

        part, texts = begun
        made = []
        for batch in texts.to_batches(max_chunksize=BATCH_ROWS):
            made.append(self._answer_batch(batch))
            if progress is not None:
                progress(batch.num_rows)
        return self.scoring.stage(part, pa.Table.from_batches(made, schema=self.schema))

    def _answer_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        import pyarrow as pa

        answers = self.pipeline.answer(self.inputs.read_rows(batch))
        count = batch.num_rows
        columns = [
            batch.column("row_id"),
            *self._make_prediction_columns(answers),
            *make_origin_columns(self.scoring, count, model=self.pipeline.model_version),
            *(answers.columns[name] for name, _ in list_pipeline_fields()),
            [self.scoring.model.uri] * count,
        ]
        return pa.RecordBatch.from_pydict(dict(zip(self.schema.names, columns, strict=True)), schema=self.schema)

    def _make_prediction_columns(self, answers: Answers) -> list[pa.Array]:
        """Return what the target makes of outputs; nothing for a row that could not be read."""
        import pyarrow as pa

        readable = answers.readable
        made = self.task.target.make_prediction_columns(answers.outputs[readable], self.pipeline.predictor.card)
        places = pa.array(readable.cumsum() - 1, mask=~readable)
        return [column.take(places) for column in made]


def list_pipeline_fields() -> list[tuple[str, pa.DataType]]:
    """Return the columns of answers that a pipeline has beside those of predictions."""
    import pyarrow as pa

    return [
        ("status", pa.string()),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("cached", pa.bool_()),
        ("row_ms", pa.float64()),
    ]


def make_answer_schema(task: Task) -> pa.Schema:
    """Return the columns of a table of the answers of pipelines around models of this task."""
    import pyarrow as pa

    return pa.schema([*make_prediction_schema(task), *list_pipeline_fields(), ("pipeline_version", pa.string())])
