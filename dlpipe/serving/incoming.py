"""Rows that a server was asked and what it answered, from its log, as monitoring compares them.

Those count that are committed to the table: a look is at a version of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from dlpipe.errors import BadSource, SchemaMismatch, TableNotFound
from dlpipe.monitoring import Current, Sample, Subject, find_subject, make_sample
from dlpipe.registry import ModelVersion
from dlpipe.serving.asked import name_asked
from dlpipe.serving.counting import Place, find_counting, find_day
from dlpipe.serving.feedback import ASKED_FOR
from dlpipe.serving.log_rows import FEEDBACK, REQUESTS, name_table
from dlpipe.tables import (
    RowForm,
    TableVersion,
    list_days,
    parse_label,
    read_form,
    read_record,
    read_table,
    stream_table,
    table_at,
    to_row_id,
)
from dlpipe.task import Task

if TYPE_CHECKING:
    import pyarrow as pa

Asked = dict[str, Any]
"""A row of the log."""
COLUMNS = ("request_id", "row", "kind", "version", "arrived", "text", "answer")
BATCH_ROWS = 65536
NOT_KEPT = "what was asked is not in the log, which keeps it from when `texts = true` stands in [serving.log]"


def find_served(model: ModelVersion) -> Subject:
    """Return what is monitored where a server answers with ``model``: its log has the rows and the predictions.

    Raises
    ------
    TableNotFound
        When nobody has asked for the model yet.
    ModelNotFound, TableVersionNotFound
        As for ``find_subject``.
    """
    try:
        log = table_at(name_table(model.name, REQUESTS))
    except TableNotFound:
        raise TableNotFound(
            f"Nobody has asked a server for {model.name} yet: there is no table "
            f"{name_table(model.name, REQUESTS)!r}. Start one (dlpipe serve --model {model.name}), or look at "
            "the rows of a table."
        ) from None
    return find_subject(model, log, log)


def read_served(subject: Subject, *, window: int) -> Current:
    """Return the rows that a server was asked and answered, without those that the model has learnt from.

    Those that another version answered, such as the champion before this one, are compared without their
    predictions. Where the log keeps no texts, predictions are compared, and not rows.

    Parameters
    ----------
    subject : Subject
        As ``find_served`` returned it.
    window : int
        The rows asked last, at most so many, are compared; and the last so many that have a label are judged.
    """
    task, form = subject.task, read_form(subject.trained_on)
    labels, version = read_labels(subject.model.name, form)
    learnt = set(read_table(subject.trained_on, columns=["row_id"])["row_id"].to_pylist())
    incoming = Incoming(form, learnt, labels, subject.model.version, window)
    # a label may come for a request of long ago
    judged_days = {find_day(request_id) for request_id, _ in sorted(labels)[-window:]}
    for day in reversed(list_days(subject.source)):
        if day in judged_days or "" in judged_days or len(incoming.last) < window:
            for row in stream_answered(subject.source, day):
                incoming.add(row)
    return incoming.make_current(task, version)


class Incoming:
    """The last rows that were asked, and the last that have a label, whatever the order in which they come.

    Parameters
    ----------
    form : RowForm
        Of the training table.
    learnt : set of str
        Row ids that the model has learnt from.
    labels : mapping
        Place -> label.
    version : int
        Of the model whose predictions count.
    window : int
    """

    def __init__(
        self, form: RowForm, learnt: set[str], labels: Mapping[Place, Any], version: int, window: int
    ) -> None:
        self.form, self.learnt, self.labels, self.version, self.window = form, learnt, labels, version, window
        self.last: list[Asked] = []
        self.judged: list[Asked] = []
        self.labelled = 0

    def add(self, row: Asked) -> None:
        """Take in a row of the log that was answered, unless it has other columns: of an earlier version, say."""
        if row["text"] is not None:
            try:
                row["values"] = read_record(name_asked(row["text"], self.form), self.form, where="a request")
            except (SchemaMismatch, BadSource):
                return
            row["row_id"] = to_row_id(self.form.identify(row["values"]))
            if row["row_id"] in self.learnt:
                return
        self._keep(self.last, row)
        if (row["request_id"], row["row"]) in self.labels:
            self.labelled += 1
            if row["version"] == self.version:
                self._keep(self.judged, row)

    def _keep(self, rows: list[Asked], row: Asked) -> None:
        """Add a row, and forget the oldest: a window of rows at a time, so that they are seldom sorted."""
        rows.append(row)
        if len(rows) >= 2 * self.window:
            rows[:] = self._sort(rows)

    def _sort(self, rows: list[Asked]) -> list[Asked]:
        return sorted(rows, key=lambda row: (row["arrived"], row["request_id"], row["row"]))[-self.window :]

    def make_current(self, task: Task, labels_version: str) -> Current:
        """Return what has come in."""
        last, judged = self._sort(self.last), self._sort(self.judged)
        predictions = read_predictions(task, [row for row in last if row["version"] == self.version])
        kept = [row for row in last if row["text"] is not None]
        rows = make_rows(task, kept, self.form)
        sample = make_sample(task, rows, predictions)
        if last and not kept:
            sample = Sample((), (), sample.predicted, sample.predictions, unread=NOT_KEPT)
        judged = [row for row in judged if is_predicted(task, row)]
        truth = [self.labels[row["request_id"], row["row"]] for row in judged]
        scores = task.target.score_predictions(read_predictions(task, judged), truth)
        return Current(sample, self.labelled, scores, labels=labels_version)


def stream_answered(log: TableVersion, day: str) -> Iterator[Asked]:
    """Yield the rows of a day for which a prediction was answered."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in stream_table(log, columns=COLUMNS, where=f"day = '{day}'", batch_rows=BATCH_ROWS):
        answered = pc.and_(pc.is_in(batch["kind"], pa.array(ASKED_FOR)), pc.is_valid(batch["answer"]))
        yield from batch.filter(answered).to_pylist()


def read_labels(model: str, form: RowForm) -> tuple[dict[Place, Any], str]:
    """Return the labels that count, as a table of this form holds them, and the version of the table with them.

    Those that are none of its kind, or that nobody can say the row of, are left out.
    """
    try:
        version = table_at(name_table(model, FEEDBACK))
    except TableNotFound:
        return {}, ""
    counting = find_counting(model, read_table(version))
    read = {place: parse_label(one.label, form.label) for place, one in counting.items() if place[1] is not None}
    return {place: label for place, label in read.items() if label is not None}, str(version.version)


def is_predicted(task: Task, row: Asked) -> bool:
    """Return whether an answer has a prediction: that of a pipeline for a row that it cannot read has none."""
    return orjson.loads(row["answer"]).get(task.target.list_prediction_fields()[0][0]) is not None


def read_predictions(task: Task, rows: Sequence[Asked]) -> pa.Table:
    """Return what was answered as the columns of predictions, without rows that have none."""
    return task.target.read_records([orjson.loads(row["answer"]) for row in rows if is_predicted(task, row)])


def make_rows(task: Task, asked: Sequence[Asked], form: RowForm) -> list[Any]:
    """Return rows as the model reads them."""
    nothing = [None] * len(asked)
    batch = form.make_batch([row["row_id"] for row in asked], [row["values"] for row in asked], nothing, nothing)
    return list(task.inputs.read_rows(batch.select([column.name for column in form.inputs])))
