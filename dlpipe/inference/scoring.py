"""Score a table version into a predictions table."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.errors import ModelNotFound
from dlpipe.registry import ModelVersion
from dlpipe.tables import TableVersion, find_commit, stream_table, write_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dlpipe.task import Predictor

LOGGER = logging.getLogger(__name__)
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Scored:
    """What scoring a table did.

    Attributes
    ----------
    table : TableVersion
        The predictions table at the version that holds these rows.
    rows : int
        The rows of the source that have a prediction.
    new_rows : int
        The rows written now; 0 when the same model had scored the same table version before.
    """

    table: TableVersion
    rows: int
    new_rows: int


def score(
    predictor: Predictor,
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = "test",
    batch_rows: int = 4096,
) -> Scored:
    """Append the predictions for ``source`` to the Delta table ``target`` in one commit, unless they are there.

    The same model version on the same table version and split again makes no new rows. Memory does not grow
    with the table.

    Parameters
    ----------
    predictor : Predictor
        Of ``model``; see ``load_predictor``.
    source : TableVersion
        A table with the columns ``row_id`` and ``text`` (and ``split``).
    target : str
        Path of the predictions table, made if needed. Its columns: ``row_id``, ``label``, ``probability`` (of
        that label), ``probabilities`` (list of float32, in the order of ``labels``), ``labels`` (list of
        string: models with other labels can share the table), ``model_version`` (``models:/name/3``),
        ``source`` (path of the table) and ``source_version``. In pandas::

            pd.DataFrame(rows["probabilities"].tolist(), columns=rows["labels"].iloc[0])
    split : str or None
        The split to score; ``None`` means all of them.
    batch_rows : int
        Rows read and scored at a time.

    Raises
    ------
    ModelNotFound
        When ``predictor`` does not hold the weights of ``model``.
    """
    import pyarrow as pa

    if predictor.digest != model.digest:
        raise ModelNotFound(
            f"The predictor has the weights {predictor.digest[:12]}, not {model.digest[:12]} of {model.uri}. "
            f"Open it with load_predictor({model.uri!r})."
        )
    key = scoring_key(source, model=model, split=split)
    if (done := find_commit(target, key)) is not None:
        return Scored(done, rows=_count(source, split), new_rows=0)
    counted = Progress(f"{source} {split or 'all splits'}")
    batches = scored_batches(predictor, source, model=model, split=split, batch_rows=batch_rows, progress=counted)
    rows = pa.RecordBatchReader.from_batches(prediction_schema(), batches)
    table = write_table(target, rows, mode="append", key=key)
    counted.end()
    return Scored(table, rows=counted.rows, new_rows=counted.rows)


def scoring_key(source: TableVersion, *, model: ModelVersion, split: str | None) -> dict[str, str]:
    """Return what makes a scoring the same as an earlier one."""
    return {
        "model": model.uri,
        "weights": model.digest,
        "source": source.path,
        "source_version": str(source.version),
        "split": split or "*",
    }


def prediction_schema() -> pa.Schema:
    """Return the columns of a predictions table."""
    import pyarrow as pa

    return pa.schema(
        [
            ("row_id", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float32()),
            ("probabilities", pa.list_(pa.float32())),
            ("labels", pa.list_(pa.string())),
            ("model_version", pa.string()),
            ("source", pa.string()),
            ("source_version", pa.int64()),
        ]
    )


def scored_batches(
    predictor: Predictor,
    source: TableVersion,
    *,
    model: ModelVersion,
    split: str | None,
    batch_rows: int,
    progress: Progress,
) -> Iterator[pa.RecordBatch]:
    """Yield the predictions for ``source``, a batch for each batch read."""
    for batch in stream_table(source, split=split, columns=["row_id", "text"], batch_rows=batch_rows):
        shares = predictor.predict_proba(batch.column("text").to_pylist())
        yield prediction_batch(batch.column("row_id"), shares, predictor.labels, model=model, source=source)
        progress.add(batch.num_rows)


def prediction_batch(
    row_ids: pa.Array, shares: np.ndarray, labels: Sequence[str], *, model: ModelVersion, source: TableVersion
) -> pa.RecordBatch:
    """Return the rows of a predictions table for ``row_ids`` and their probabilities (n_rows, n_labels)."""
    import numpy as np
    import pyarrow as pa

    count, width = shares.shape
    best = shares.argmax(axis=1)
    offsets = pa.array(np.arange(0, (count + 1) * width, width, dtype=np.int32)[: count + 1])
    names = pa.array(list(labels), pa.string())
    columns = [
        row_ids.cast(pa.string()),
        names.take(pa.array(best)),
        pa.array(shares[np.arange(count), best]),
        pa.ListArray.from_arrays(offsets, pa.array(shares.ravel())),
        pa.ListArray.from_arrays(offsets, names.take(pa.array(np.tile(np.arange(width), count)))),
        pa.repeat(model.uri, count),
        pa.repeat(source.path, count),
        pa.repeat(pa.scalar(source.version, pa.int64()), count),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=prediction_schema())


class Progress:
    """Rows done and their rate: a bar on a terminal, a line every ten seconds in a log."""

    def __init__(self, what: str) -> None:
        from tqdm import tqdm

        self.what, self.rows = what, 0
        self._started = self._said = time.monotonic()
        self._bar = tqdm(desc=f"scoring {what}", unit=" rows", disable=None, leave=False)

    def add(self, rows: int) -> None:
        """Count ``rows`` more as done."""
        self.rows += rows
        self._bar.update(rows)
        if self._bar.disable and time.monotonic() - self._said > REPORT_SECONDS:
            self._said = time.monotonic()
            LOGGER.info("scoring %s: %s", self.what, self)

    def end(self) -> None:
        """Close the bar and log the total."""
        self._bar.close()
        LOGGER.info("scored %s: %s", self.what, self)

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.rows / max(time.monotonic() - self._started, 1e-9):,.0f} rows/s"


def _count(source: TableVersion, split: str | None) -> int:
    if split is None:
        return source.rows
    return sum(batch.num_rows for batch in stream_table(source, split=split, columns=["row_id"]))
