"""What is compared: rows that came in, and rows of the training table with predictions of its test split."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import ModelNotFound, NoRows, TableVersionNotFound
from dlpipe.parts import Scoring
from dlpipe.registry import MADE_FROM, ModelVersion
from dlpipe.tables import TableVersion, decode_texts, read_table, stream_table, table_at
from dlpipe.task import DriftSeries, Row, Target, Task, find_task

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Predict = Callable[[Sequence[Row]], pa.Table]

BATCH_ROWS = 65536

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
    """

    rows: Sequence[Row]
    series: tuple[DriftSeries, ...] = ()
    predicted: tuple[DriftSeries, ...] = ()
    predictions: int = 0


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
    >>> made = make_sample(find_task("text-classification"), ["so good", "bad"])
    >>> made.series
    (DriftSeries(name='length', words='words in a text', values=[2.0, 1.0]),)
    """
    made = empty_predictions(task.target) if predictions is None else predictions
    predicted = task.target.make_prediction_series(made)
    return Sample(rows, tuple(task.inputs.make_drift_series(rows)), tuple(predicted), made.num_rows)


@dataclass(frozen=True)
class Subject:
    """What is monitored.

    Attributes
    ----------
    model : ModelVersion
        The champion: the model of a task, or a pipeline around one.
    trained_on : TableVersion
        What it was trained on.
    source : TableVersion
        The table whose rows it scores.
    predictions : TableVersion
        The table with what it said.
    """

    model: ModelVersion
    trained_on: TableVersion
    source: TableVersion
    predictions: TableVersion

    @property
    def classifier(self) -> str:
        """The URI that predictions name."""
        return self.model.tags.get(MADE_FROM, self.model.uri)

    @property
    def task(self) -> Task:
        """What the model was trained for."""
        return find_task(self.model.task)


def subject_of(model: ModelVersion, source: TableVersion, predictions: TableVersion) -> Subject:
    """Return what is monitored, with the table version that the tags of ``model`` say it was trained on.

    Raises
    ------
    ModelNotFound
        When the tags do not say.
    TableNotFound, TableVersionNotFound
        When that version is gone.
    """
    path, version = model.tags.get("delta.table"), model.tags.get("delta.version")
    if not path or version is None:
        raise ModelNotFound(
            f"{model.uri} does not say what it was trained on: it has no tags delta.table and delta.version. "
            "Monitor a model that flows/train_flow.py registered."
        )
    trained_on = table_at(path, version=int(version))
    digest = model.tags.get("delta.digest", trained_on.digest)
    if trained_on.digest != digest:
        raise TableVersionNotFound(
            f"{str(trained_on)!r} is not what {model.uri} was trained on: its digest is {trained_on.digest[:12]}, "
            f"not {digest[:12]}. The table was made anew; train a model on it."
        )
    return Subject(model, trained_on, source, predictions)


def check_scored(subject: Subject) -> None:
    """Raise ``NoRows`` where the model has scored no row of the source: what came in there is not meant for it."""
    if has_scored(subject):
        return
    raise NoRows(
        f"No version of {model_of(subject)} has scored a row of {subject.source}: {subject.predictions} has none. "
        f"Score them first (python flows/predict_flow.py run --model {subject.model.uri} --table "
        f"{subject.source.name}), or name the table or the --target that it scores."
    )


def model_of(subject: Subject) -> str:
    """Return the name of the classifier in the registry."""
    return subject.classifier.removeprefix("models:/").rpartition("/")[0]


def has_scored(subject: Subject) -> bool:
    """Return whether a version of the model, this one or an earlier champion, has answered for the source."""
    import pyarrow.compute as pc

    name = subject.classifier.rpartition("/")[0]
    for batch in stream_table(subject.predictions, columns=["model_version", "source"], batch_rows=65536):
        own = pc.starts_with(batch["model_version"], pattern=f"{name}/")
        ours = pc.equal(batch["source"], subject.source.path)
        if pc.any(pc.and_(own, ours)).as_py():
            return True
    return False


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
        """Make a row the newest, and forget the oldest where there are twice as many as are compared."""
        rows.pop(name, None)
        rows[name] = predicted
        if len(rows) > 2 * self.window:
            for oldest in list(rows)[: self.window]:
                del rows[oldest]


def prediction_names(target: Target) -> list[str]:
    """Return the columns of a prediction, the prediction itself first."""
    return [name for name, _ in target.list_prediction_fields()]


def prediction_table(target: Target, rows: Sequence[Fields]) -> pa.Table:
    """Return predictions as the columns that the target names."""
    import pyarrow as pa

    return pa.Table.from_pylist(list(rows), schema=pa.schema(target.list_prediction_fields()))


def empty_predictions(target: Target) -> pa.Table:
    """Return no predictions."""
    return prediction_table(target, [])


def predict_table(target: Target, outputs: np.ndarray, card: Any) -> pa.Table:
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
    made = pa.table(target.make_prediction_columns(outputs[there], card), names=prediction_names(target))
    return made if there.all() else made.take(pa.array(there.cumsum() - 1, mask=~there))


def current_sample(subject: Subject, *, window: int) -> tuple[Sample, int, list[float]]:
    """Return the last rows that came in, how many have a label by now, and the scores of those that are judged.

    A row came in if the version that the model was trained on does not have it.
    """
    task, learnt = subject.task, known_ids(subject.trained_on)
    labels = labels_of(subject.source, learnt)
    incoming = Incoming(window, labels, subject.classifier, prediction_names(task.target))
    for row in scored_rows(subject, learnt):
        incoming.add(row)
    names = list(incoming.last)[-window:]
    predicted = [found for name in names if (found := incoming.last[name]) is not None]
    judged = list(incoming.judged.items())[-window:]
    sample = make_sample(task, rows_of(subject, names), prediction_table(task.target, predicted))
    scores = task.target.score_predictions(
        prediction_table(task.target, [found for _, found in judged]), [labels[name] for name, _ in judged]
    )
    return sample, len(labels), scores


def known_ids(version: TableVersion) -> pa.Array:
    """Return the ids of all rows of a table version."""
    return read_table(version, columns=["row_id"])["row_id"].combine_chunks()


def labels_of(source: TableVersion, learnt: pa.Array) -> dict[str, Any]:
    """Return the labels of the rows of ``source`` that have one and are not ``learnt``, by row id."""
    import pyarrow.compute as pc

    if "label" not in {name for name, _ in source.columns}:
        return {}
    found: dict[str, Any] = {}
    for batch in stream_table(source, columns=["row_id", "label"], batch_rows=BATCH_ROWS):
        new = batch.filter(pc.and_(pc.is_valid(batch["label"]), pc.invert(pc.is_in(batch["row_id"], learnt))))
        found.update(zip(new["row_id"].to_pylist(), new["label"].to_pylist(), strict=True))
    return found


def scored_rows(subject: Subject, learnt: pa.Array) -> Iterator[dict[str, Any]]:
    """Yield the rows of the predictions table that are of the source and not ``learnt``, as they were scored."""
    import pyarrow.compute as pc

    columns = ["row_id", "model_version", "source", *prediction_names(subject.task.target)]
    for batch in stream_table(subject.predictions, columns=columns, batch_rows=BATCH_ROWS):
        ours = pc.equal(batch["source"], subject.source.path)
        yield from batch.filter(pc.and_(ours, pc.invert(pc.is_in(batch["row_id"], learnt)))).to_pylist()


def rows_of(subject: Subject, names: Sequence[str]) -> list[Row]:
    """Return the rows of the source with these ids, in their order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted, columns = pa.array(names, pa.string()), columns_of(subject)
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


def columns_of(subject: Subject) -> list[str]:
    """Return the columns that the model reads: those of the table that it was trained on."""
    return list(subject.task.inputs.find_columns(subject.trained_on))


def reference_sample(subject: Subject, predict: Predict, *, rows: int, seed: int) -> tuple[Sample, list[float]]:
    """Return rows of the training table with what was predicted of its test split, and the scores of that.

    Rows are drawn from all splits. Predictions are those of the test split, since a model is surer of what it
    learnt. They are read where the train flow has left them, and made with ``predict`` otherwise.

    Parameters
    ----------
    subject : Subject
    predict : callable
        Takes rows and returns the columns of their predictions.
    rows, seed : int
        So many rows are drawn at most.
    """
    import pyarrow.compute as pc

    task, columns = subject.task, columns_of(subject)
    learnt = read_table(subject.trained_on, columns=[*columns, "split"])
    learnt = learnt.filter(pc.not_equal(pc.fill_null(learnt["split"], ""), ""))
    drawn = random.Random(seed).sample(range(learnt.num_rows), min(rows, learnt.num_rows))
    test = read_table(subject.trained_on, split="test", columns=["row_id", *columns, "label"])
    truth = dict(zip(test["row_id"].to_pylist(), test["label"].to_pylist(), strict=True))
    found = predicted_before(subject, truth) or predicted_now(task, predict, test)
    predictions = prediction_table(task.target, list(found.values()))
    scores = task.target.score_predictions(predictions, [truth[name] for name in found])
    return make_sample(task, task.inputs.read_rows(learnt.take(drawn).select(columns)), predictions), scores


def predicted_before(subject: Subject, truth: dict[str, Any]) -> dict[str, Fields]:
    """Return what the predictions table has of the test split, by row id; nothing where some of it is missing."""
    import pyarrow.compute as pc

    names = prediction_names(subject.task.target)
    own = Scoring(subject.trained_on, subject.model, subject.predictions.path).answer_set
    found: dict[str, Fields] = {}
    for batch in stream_table(
        subject.predictions, columns=["row_id", "answer_set", *names], batch_rows=BATCH_ROWS
    ):
        for row in batch.filter(pc.equal(batch["answer_set"], own)).to_pylist():
            if row["row_id"] in truth:
                found[row["row_id"]] = {name: row[name] for name in names}
    return answered(found, names[0]) if len(found) == len(truth) else {}


def predicted_now(task: Task, predict: Predict, test: pa.Table) -> dict[str, Fields]:
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
    return answered(found, prediction_names(task.target)[0])


def answered(found: dict[str, Fields], column: str) -> dict[str, Fields]:
    """Return the predictions that are there: of what cannot be read there is none."""
    return {name: row for name, row in found.items() if row[column] is not None}
