"""Score a table version with a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dlpipe.errors import ModelNotFound
from dlpipe.inference.scoring import Progress, Scored, _count, scoring_key
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, find_commit, stream_table, write_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dlpipe.inference.pipeline import Pipeline


def score_with_pipeline(
    pipeline: Pipeline,
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = "test",
    batch_rows: int = 4096,
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
    import pyarrow as pa

    if pipeline.digest != model.digest:
        raise ModelNotFound(
            f"The pipeline has the digest {pipeline.digest[:12]}, not {model.digest[:12]} of {model.uri}. "
            f"Open it with load_pipeline({model.uri!r})."
        )
    key = scoring_key(source, model=model, split=split)
    if (done := find_commit(target, key)) is not None:
        return Scored(done, rows=_count(source, split), new_rows=0)
    counted = Progress(f"{source} {split or 'all splits'}")
    texts = stream_table(source, split=split, columns=["row_id", "text"], batch_rows=batch_rows)
    batches = answered_batches(pipeline, texts, source=source, model=model, progress=counted)
    table = write_table(target, pa.RecordBatchReader.from_batches(answer_schema(), batches), key=key)
    counted.end()
    return Scored(table, rows=counted.rows, new_rows=counted.rows)


def answered_batches(
    pipeline: Pipeline,
    batches: Iterator[pa.RecordBatch],
    *,
    source: TableVersion,
    model: ModelVersion,
    progress: Progress,
) -> Iterator[pa.RecordBatch]:
    """Yield the answers, a batch for each batch of ``row_id`` and ``text``."""
    for batch in batches:
        answers = pipeline.run(batch.column("text").to_pylist())
        yield answer_batch(batch.column("row_id"), answers, pipeline.labels, model=model, source=source)
        progress.add(batch.num_rows)


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
    row_ids: pa.Array, answers: pd.DataFrame, labels: tuple[str, ...], *, model: ModelVersion, source: TableVersion
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
        "source": [source.path] * len(answers),
        "source_version": [source.version] * len(answers),
        "pipeline_version": [model.uri] * len(answers),
    }
    return pa.RecordBatch.from_pydict(columns, schema=answer_schema())
