"""Score a table version with a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dlpipe.errors import ModelNotFound
from dlpipe.inference.by_part import Scored, score_by_part
from dlpipe.inference.choosing import Scoring
from dlpipe.registry import ModelVersion
from dlpipe.tables import PART_ROWS, TablePart, TableVersion

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dlpipe.inference.pipeline import Pipeline

BATCH_ROWS = 4096  # of which a row's share of the time is told


def score_with_pipeline(
    pipeline: Pipeline,
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = "test",
    part_rows: int = PART_ROWS,
    say: Callable[[str], None] | None = print,
) -> Scored:
    """Append the answers for ``source`` to the Delta table ``target`` in one commit, unless they are there.

    Parameters
    ----------
    pipeline : Pipeline
        Of ``model``; see ``load_pipeline``.
    source : TableVersion
        A table with the columns ``row_id`` and ``text`` (and ``split``).
    target : str
        Path of the table, made if needed. Beside the columns of a classifier's predictions (``model_version`` is
        the classifier's) it has ``status``, ``language``, ``language_probability``, ``cached``, ``row_ms`` and
        ``pipeline_version``. A row that cannot be read has a status and no label.

    Raises
    ------
    ModelNotFound
        When ``pipeline`` is not ``model``.
    """
    make, scoring = functools.partial(PipelineScorer, pipeline), Scoring(source, model, target, split)
    return score_by_part(make, scoring, part_rows=part_rows, say=say)


class PipelineScorer:
    """Makes answers of parts; ``commit_parts`` makes them a version.

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
        self.pipeline, self.scoring = pipeline, scoring

    @property
    def schema(self) -> pa.Schema:
        """The columns of a table of answers."""
        return answer_schema()

    def __call__(self, part: TablePart) -> int:
        """Answer and stage ``part``, and return its rows."""
        return self.finish(self.begin(part))

    def begin(self, part: TablePart) -> tuple[TablePart, pa.Table]:
        """Read ``part``."""
        return part, self.scoring.read(part)

    def finish(self, begun: tuple[TablePart, pa.Table], *, progress: Callable[[int], None] | None = None) -> int:
        """Answer and stage what was begun, and return its rows; ``progress`` gets them batch by batch."""
        import pyarrow as pa

        part, texts = begun
        made = []
        for batch in texts.to_batches(max_chunksize=BATCH_ROWS):
            made.append(self._answered(batch))
            if progress is not None:
                progress(batch.num_rows)
        return self.scoring.stage(part, pa.Table.from_batches(made, schema=self.schema))

    def _answered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        answers = self.pipeline.run(batch.column("text").to_pylist())
        return answer_batch(batch.column("row_id"), answers, self.pipeline.labels, scoring=self.scoring)


def answer_schema() -> pa.Schema:
    """Return the columns of a table of a pipeline's answers."""
    import pyarrow as pa

    from dlpipe.inference.scoring import prediction_schema

    more = [
        ("status", pa.string()),
        ("language", pa.string()),
        ("language_probability", pa.float64()),
        ("cached", pa.bool_()),
        ("row_ms", pa.float64()),
        ("pipeline_version", pa.string()),
    ]
    return pa.schema([*prediction_schema(), *more])


def answer_batch(
    row_ids: pa.Array, answers: pd.DataFrame, labels: tuple[str, ...], *, scoring: Scoring
) -> pa.RecordBatch:
    """Return the rows of the table for a batch of ``row_ids`` and the pipeline's answers for them."""
    import pyarrow as pa

    readable = answers["label"].notna().to_numpy()
    shares = answers[[f"p_{label}" for label in labels]].to_numpy()
    columns = {
        **{name: answers[name].tolist() for name in answers if name in answer_schema().names},
        "row_id": row_ids.cast(pa.string()),
        "probability": pa.array(answers["probability"].to_numpy(), mask=~readable),
        "probabilities": [row.tolist() if there else None for row, there in zip(shares, readable, strict=True)],
        "labels": [list(labels)] * len(answers),
        "source": [scoring.source.path] * len(answers),
        "source_version": [scoring.source.version] * len(answers),
        "scored_at": [datetime.now(UTC)] * len(answers),
        "answer_set": [scoring.answer_set] * len(answers),
        "pipeline_version": [scoring.model.uri] * len(answers),
    }
    return pa.RecordBatch.from_pydict(columns, schema=answer_schema())
