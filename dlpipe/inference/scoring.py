"""Score a table version into a predictions table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dlpipe.cluster import Cluster
from dlpipe.errors import ModelNotFound
from dlpipe.inference.by_part import Scored, score_by_part
from dlpipe.inference.choosing import Scoring
from dlpipe.registry import ModelVersion
from dlpipe.tables import PART_ROWS, TablePart, TableVersion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dlpipe.task import Predictor
    from dlpipe.task.texts.tokens import Encoded


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
) -> Scored:
    """Append the predictions for ``source`` to the Delta table ``target`` in one commit, unless they exist.

    A row that the same model has answered in the same table version gets no second answer, whichever split was
    asked for then. A scoring that was killed continues after its last part. Beside the ids, memory does not grow
    with the table.

    Parameters
    ----------
    predictor : Predictor
        Of ``model``; see ``load_predictor``.
    source : TableVersion
        A table with the columns ``row_id`` and ``text`` (and ``split``). A missing text is scored as an empty one.
    target : str
        Path of the predictions table, made if needed. Its columns: ``row_id``, ``label``, ``probability`` (of
        that label), ``probabilities`` (list of float32, in the order of ``labels``), ``labels`` (list of
        string: models with other labels can share the table), ``model_version`` (``models:/name/3``),
        ``source`` (path of the table), ``source_version``, ``scored_at`` and ``answer_set`` (the same for all
        answers of one model, by its weights, for one version of one table). In pandas::

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
class BegunPart:
    """A part whose texts are token ids already, each different text once."""

    part: TablePart
    row_ids: pa.Array
    encoded: Encoded
    which: np.ndarray
    """For each row, the number of its text."""


class PartScorer:
    """Makes predictions of parts; ``commit_parts`` makes them a version.

    Raises
    ------
    ModelNotFound
        When ``predictor`` does not hold the weights of the model that the rows will name.
    """

    def __init__(self, predictor: Predictor, scoring: Scoring) -> None:
        if predictor.digest != scoring.model.digest:
            raise ModelNotFound(
                f"The predictor has the weights {predictor.digest[:12]}, not {scoring.model.digest[:12]} of "
                f"{scoring.model.uri}. Open it with load_predictor({scoring.model.uri!r})."
            )
        self.predictor, self.scoring = predictor, scoring

    @property
    def schema(self) -> pa.Schema:
        """The columns of a predictions table."""
        return prediction_schema()

    def __call__(self, part: TablePart) -> int:
        """Score and stage ``part``, and return its rows."""
        return self.finish(self.begin(part))

    def begin(self, part: TablePart) -> BegunPart:
        """Read and tokenise ``part``; another thread may do this while ``finish`` works."""
        rows = self.scoring.read(part)
        texts, which = distinct_texts(rows["text"])
        return BegunPart(part, rows["row_id"].combine_chunks(), self.predictor.encode(texts), which)

    def finish(self, begun: BegunPart, *, progress: Callable[[int], None] | None = None) -> int:
        """Predict and stage what was begun, and return its rows; ``progress`` gets them batch by batch."""
        import numpy as np
        import pyarrow as pa

        repeats = np.bincount(begun.which, minlength=len(begun.encoded.lengths))

        def done(texts: np.ndarray) -> None:
            if progress is not None:
                progress(int(repeats[texts].sum()))

        shares = self.predictor.predict_encoded(begun.encoded, done=done)[begun.which]
        rows = prediction_batch(begun.row_ids, shares, self.predictor.labels, scoring=self.scoring)
        return self.scoring.stage(begun.part, pa.Table.from_batches([rows]))


def distinct_texts(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Return the different texts of ``column`` and, for each row, the number of its text.

    Examples
    --------
    >>> import pyarrow as pa
    >>> texts, which = distinct_texts(pa.chunked_array([["good", "bad"], ["good", None]]))
    >>> texts, which.tolist()
    (['good', 'bad', ''], [0, 1, 0, 2])
    """
    import numpy as np

    if not len(column):
        return [], np.empty(0, np.int64)
    coded = column.fill_null("").unify_dictionaries().dictionary_encode().combine_chunks()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


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
            ("scored_at", pa.timestamp("us", "UTC")),
            ("answer_set", pa.string()),
        ]
    )


def prediction_batch(
    row_ids: pa.Array, shares: np.ndarray, labels: Sequence[str], *, scoring: Scoring
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
        pa.repeat(scoring.model.uri, count),
        pa.repeat(scoring.source.path, count),
        pa.repeat(pa.scalar(scoring.source.version, pa.int64()), count),
        pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), count),
        pa.repeat(scoring.answer_set, count),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=prediction_schema())
