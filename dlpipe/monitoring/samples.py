"""Samples to compare: rows that came in, and rows of the training table with predictions of its test split."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.monitoring.subjects import Subject, has_scored
from dlpipe.parts import Scoring
from dlpipe.tables import TableVersion, decode_texts, read_table, stream_table
from dlpipe.task import DriftSeries, Row, Target, Task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Predict = Callable[[Sequence[Row]], pa.Table]

BATCH_ROWS = 65536  # tables of rows and predictions are streamed: only the last rows are held

Fields = dict[str, Any]
"""The columns of one prediction."""


@dataclass(frozen=True)
class Sample:
    """Some rows, and what is compared of them and of predictions.

    Attributes
    ----------
    rows : sequence of rows
        As the model reads them.
    series : tuple of DriftSeries
        Of these rows.
    predicted : tuple of DriftSeries
        Of predictions; of other rows, or of fewer, where another model scored some.
    predictions : int
        How many those are.
    unread : str
        Why rows cannot be read, where they cannot.
    """

    rows: Sequence[Row]
    series: tuple[DriftSeries, ...] = ()
    predicted: tuple[DriftSeries, ...] = ()
    predictions: int = 0
    unread: str = ""

    @property
    def count(self) -> int:
        """How many rows are compared, be it by their predictions alone."""
        return len(self.rows) or self.predictions


@dataclass(frozen=True)
class Current:
    """The rows that came in.

    Attributes
    ----------
    sample : Sample
        The last of them.
    labelled : int
        How many of all of them have a label by now.
    scores : list of float
        What ``Target.score_predictions`` gives for the last that have one.
    foreign : str
        Why they say nothing of the model, where that is so.
    labels : str
        The version of the table with the labels, where they have one of their own.
    """

    sample: Sample
    labelled: int
    scores: list[float]
    foreign: str = ""
    labels: str = ""


def make_sample(task: Task, rows: Sequence[Row], predictions: pa.Table | None = None) -> Sample:
    """Return rows with what is compared of them.

    Parameters
    ----------
    task : Task
        Names what is compared.
    rows : sequence of rows
        As ``task.inputs`` reads them.
    predictions : pyarrow.Table, optional
        The columns that ``task.target.list_prediction_fields`` names, without missing ones.

    Examples
    --------
    >>> from dlpipe.task import find_task
    >>> made = make_sample(find_task("text-classification"), ["so good", "bad"])
    >>> made.series
    (DriftSeries(name='length', words='words in a text', values=[2.0, 1.0]),)
    """
    made = to_prediction_table(task.target, []) if predictions is None else predictions
    predicted = task.target.make_prediction_series(made)
    return Sample(rows, tuple(task.inputs.make_drift_series(rows)), tuple(predicted), made.num_rows)


@dataclass
class Incoming:
    """Rows that the model did not learn from, as they were scored: the last, and those with a label by now."""

    window: int
    labels: dict[str, Any]
    classifier: str
    fields: Sequence[str]
    """The columns of a prediction, the prediction itself first."""
    last: dict[str, Fields | None] = field(default_factory=dict)
    """Row id -> what the champion predicted, the newest last; None where another model scored it."""
    judged: dict[str, Fields] = field(default_factory=dict)
    """The same, of rows that have a label."""

    def add(self, row: dict[str, Any]) -> None:
        """Take in a row of a predictions table."""
        name, own = row["row_id"], row["model_version"] == self.classifier
        answered = own and row[self.fields[0]] is not None
        predicted = {column: row[column] for column in self.fields} if answered else None
        self._keep(self.last, name, predicted or self.last.get(name))
        if predicted and name in self.labels:
            self._keep(self.judged, name, predicted)

    def _keep(self, rows: dict[str, Any], name: str, predicted: Fields | None) -> None:
        """Make a row the newest, and forget the oldest.

        Forgetting a window of rows at a time, not each on its own, keeps the copy of the keys rare.
        """
        rows.pop(name, None)
        rows[name] = predicted
        if len(rows) > 2 * self.window:
            for oldest in list(rows)[: self.window]:
                del rows[oldest]


def list_prediction_columns(target: Target) -> list[str]:
    """Return the columns of a prediction, the prediction itself first."""
    return [name for name, _ in target.list_prediction_fields()]


def to_prediction_table(target: Target, rows: Sequence[Fields]) -> pa.Table:
    """Return predictions as the columns that the target names."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=pa.schema(target.list_prediction_fields()))


def to_predictions(target: Target, outputs: np.ndarray, card: Any) -> pa.Table:
    """Return outputs as the columns of predictions, nulls for a row of NaN.

    Parameters
    ----------
    target : Target
    outputs : array of shape (n_rows, n_outputs)
    card : mapping
        Of the model.
    """
    import numpy as np
    import pyarrow as pa

    there = ~np.isnan(outputs).any(axis=1)
    made = pa.table(target.make_prediction_columns(outputs[there], card), names=list_prediction_columns(target))
    return made if there.all() else made.take(pa.array(there.cumsum() - 1, mask=~there))


def read_current(subject: Subject, *, window: int) -> Current:
    """Return the rows of a table that came in and were scored.

    A row came in if the version that the model was trained on does not have it. Rows that another model scored,
    such as the champion before this one, are compared without their predictions.
    """
    task, learnt = subject.task, read_row_ids(subject.trained_on)
    labels = read_labels(subject.source, learnt)
    incoming = Incoming(window, labels, subject.classifier, list_prediction_columns(task.target))
    for row in stream_scored(subject, learnt):
        incoming.add(row)
    names = list(incoming.last)[-window:]
    predicted = [found for name in names if (found := incoming.last[name]) is not None]
    judged = list(incoming.judged.items())[-window:]
    sample = make_sample(task, read_rows(subject, names), to_prediction_table(task.target, predicted))
    scores = task.target.score_predictions(
        to_prediction_table(task.target, [found for _, found in judged]), [labels[name] for name, _ in judged]
    )
    # rows that were never meant for a model differ from its training by nature
    stranger = f"no version of {subject.model_name} has scored a row of {subject.source}"
    return Current(sample, len(labels), scores, foreign="" if has_scored(subject) else stranger)


def read_row_ids(version: TableVersion) -> pa.Array:
    """Return the ids of all rows of a table version."""
    return read_table(version, columns=["row_id"])["row_id"].combine_chunks()


def read_labels(source: TableVersion, learnt: pa.Array) -> dict[str, Any]:
    """Return the labels of the rows of ``source`` that have one and are not ``learnt``, by row id."""
    import pyarrow.compute as pc

    if "label" not in {name for name, _ in source.columns}:
        return {}
    found: dict[str, Any] = {}
    for batch in stream_table(source, columns=["row_id", "label"], batch_rows=BATCH_ROWS):
        new = batch.filter(pc.and_(pc.is_valid(batch["label"]), pc.invert(pc.is_in(batch["row_id"], learnt))))
        found.update(zip(new["row_id"].to_pylist(), new["label"].to_pylist(), strict=True))
    return found


def stream_scored(subject: Subject, learnt: pa.Array) -> Iterator[dict[str, Any]]:
    """Yield the rows of the predictions table that are of the source and not ``learnt``, as they were scored."""
    import pyarrow.compute as pc

    columns = ["row_id", "model_version", "source", *list_prediction_columns(subject.task.target)]
    for batch in stream_table(subject.predictions, columns=columns, batch_rows=BATCH_ROWS):
        ours = pc.equal(batch["source"], subject.source.path)
        yield from batch.filter(pc.and_(ours, pc.invert(pc.is_in(batch["row_id"], learnt)))).to_pylist()


def read_rows(subject: Subject, names: Sequence[str]) -> list[Row]:
    """Return the rows of the source with these ids, in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted, columns = pa.array(names, pa.string()), subject.columns
    found: list[pa.RecordBatch] = []
    for batch in stream_table(subject.source, columns=["row_id", *columns], batch_rows=BATCH_ROWS):
        rows = decode_texts(batch, of=subject.source)
        found.append(rows.filter(pc.is_in(rows["row_id"], wanted)))
    if not found:
        return []
    rows = pa.Table.from_batches(found)
    places = {name: place for place, name in enumerate(rows["row_id"].to_pylist())}
    order = pa.array([places[name] for name in names if name in places], pa.int64())
    return subject.task.inputs.read_rows(rows.take(order).select(columns))


def read_reference(subject: Subject, predict: Predict, *, rows: int, seed: int) -> tuple[Sample, list[float]]:
    """Return rows of the training table with what was predicted of its test split, and the scores of that.

    Rows are drawn from all splits. Predictions are those of the test split, since a model is surer of what it
    learnt. They are read where the train flow has left them, and made with ``predict`` otherwise.

    Parameters
    ----------
    subject : Subject
    predict : callable
        Takes rows and returns the columns of their predictions.
    rows : int
        How many rows are drawn at most.
    seed : int
        Of the draw: the same look compares the same rows.
    """
    import pyarrow.compute as pc

    task, columns = subject.task, subject.columns
    learnt = read_table(subject.trained_on, columns=[*columns, "split"])
    # a row without a split has come without a label: the model has not learnt from it
    learnt = learnt.filter(pc.not_equal(pc.fill_null(learnt["split"], ""), ""))
    drawn = random.Random(seed).sample(range(learnt.num_rows), min(rows, learnt.num_rows))
    test = read_table(subject.trained_on, split="test", columns=["row_id", *columns, "label"])
    truth = dict(zip(test["row_id"].to_pylist(), test["label"].to_pylist(), strict=True))
    found = read_test_predictions(subject, truth) or predict_test_split(task, predict, test)
    predictions = to_prediction_table(task.target, list(found.values()))
    scores = task.target.score_predictions(predictions, [truth[name] for name in found])
    return make_sample(task, task.inputs.read_rows(learnt.take(drawn).select(columns)), predictions), scores


def read_test_predictions(subject: Subject, truth: dict[str, Any]) -> dict[str, Fields]:
    """Return what the predictions table has of the test split, by row id; nothing where some of it is missing."""
    import pyarrow.compute as pc

    names = list_prediction_columns(subject.task.target)
    # of these very weights and this version of the table: the same URI may have scored another version of it
    own = Scoring(subject.trained_on, subject.model, subject.predictions.path).answer_set
    if "answer_set" not in dict(subject.predictions.columns):  # the log of a server has no test split
        return {}
    found: dict[str, Fields] = {}
    for batch in stream_table(
        subject.predictions, columns=["row_id", "answer_set", *names], batch_rows=BATCH_ROWS
    ):
        for row in batch.filter(pc.equal(batch["answer_set"], own)).to_pylist():
            if row["row_id"] in truth:
                found[row["row_id"]] = {name: row[name] for name in names}
    return drop_unanswered(found, names[0]) if len(found) == len(truth) else {}


def predict_test_split(task: Task, predict: Predict, test: pa.Table) -> dict[str, Fields]:
    """Return what the model predicts of the test split, by row id.

    Parameters
    ----------
    task : Task
    predict : callable
        Takes rows and returns the columns of their predictions.
    test : pyarrow.Table
        With ``row_id`` and what the model reads.
    """
    made = predict(task.inputs.read_rows(test.drop_columns(["row_id", "label"]))).to_pylist()
    found = dict(zip(test["row_id"].to_pylist(), made, strict=True))
    return drop_unanswered(found, list_prediction_columns(task.target)[0])


def drop_unanswered(found: dict[str, Fields], column: str) -> dict[str, Fields]:
    """Return the predictions without those of rows that could not be read, which have none in ``column``."""
    return {name: row for name, row in found.items() if row[column] is not None}
