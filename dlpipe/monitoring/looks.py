"""A look at new rows: all signals of a model, stored as a row of ``<table>_drift``; whether an event follows.

The row is the memory of a look: the same look again, by a retry or ``resume``, finds its row by the commit's key
and decides the same, whatever was published or trained since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from dlpipe.errors import MarkMoved, SchemaMismatch, TableNotFound
from dlpipe.monitoring.samples import Current, Sample, read_current, read_reference, to_predictions
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.signals import DOMAIN, QUALITY, Drift, compare, pair_samples
from dlpipe.monitoring.subjects import Subject
from dlpipe.tables import TableVersion, find_commit, read_added, read_table, replace_rows, table_at, write_table
from dlpipe.task import Quality, find_task
from dlpipe.time_formats import format_moment

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.monitoring.samples import Predict
    from dlpipe.registry import ModelVersion
    from dlpipe.task import Row


@dataclass(frozen=True)
class DriftReport:
    """What a look at the rows that came in has found.

    Attributes
    ----------
    subject : Subject
    drift : Drift
    quality : Quality
    reference, current : Sample
        What was compared.
    table : TableVersion
        ``<table>_drift`` at the version with the row of this look.
    history : list of dict
        All its rows for this model, the oldest first.
    publish : bool
        Whether the event is to be published.
    new : bool
        False where an earlier look at the same rows, or an earlier try of this one, has stored its row.
    settings : DriftSettings
        The limits.
    """

    subject: Subject
    drift: Drift
    quality: Quality
    reference: Sample
    current: Sample
    table: TableVersion
    history: list[dict[str, Any]]
    publish: bool
    new: bool
    settings: DriftSettings

    @property
    def event_id(self) -> str:
        """The same for the same look, however often it is taken: who publishes tells a repeat by it."""
        kept = self.history[-1]
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dlpipe:{self.table.path}@{self.table.version} {kept['at']}"))

    def describe_next(self, *, publishes: bool = True) -> str:
        """Return what happens next, in one or two sentences; ``publishes`` is whether events are published."""
        if not self.drift.signals:
            return "Nothing, until there is enough to compare."
        if not self.drift.drifted:
            return "Nothing: rows are compared again after the next scoring."
        if not publishes:
            return "Nothing by itself: this run was told not to publish the event (--publish false)."
        retraining = f"a training on the rows of {self.subject.trained_on.name} that have a label by then"
        if self.publish:
            return f"The event model-drifted asks for {retraining}; the gate compares its model with this one."
        last = next((row["at"] for row in reversed(self.history[:-1]) if row["published"]), "an earlier look")
        return (
            f"No new event: one of {format_date(last)} has asked for {retraining}. The next follows after "
            f"{self.settings.quiet_hours:g} hours, or once {self.settings.min_labels} new rows have a label."
        )

    def payload(self) -> dict[str, Any]:
        """Return the fields of the event: what ``train_flow.py`` takes, and why."""
        seen = self.subject
        fixed = {
            "model": seen.classifier.removeprefix("models:/").partition("/")[0],
            "table": seen.trained_on.path,
            "retrain": True,
            "reason": self.drift.reason,
            "champion": seen.classifier,
            "trained_version": seen.trained_on.version,
            "scored_table": seen.source.path,
            "scored_version": seen.source.version,
            "rows": self.current.count,
        }
        # a column of the data may have the name of a field
        sizes = {
            signal.name: round(signal.size, 4)
            for signal in self.drift.signals
            if math.isfinite(signal.size) and signal.name not in fixed
        }
        return {**fixed, **sizes}


def format_date(at: str) -> str:
    """Return a time of a look as people read it.

    Examples
    --------
    >>> format_date("2026-11-28T16:55:00+00:00"), format_date("an earlier look")
    ('2026-11-28 16:55 UTC', 'an earlier look')
    """
    try:
        return format_moment(datetime.fromisoformat(at))
    except ValueError:
        return at


class Read(Protocol):
    """Reads the rows that came in: ``read_current`` from tables, ``read_served`` from the log of a server."""

    def __call__(self, subject: Subject, *, window: int) -> Current:
        """Return them, the last ``window`` in the sample."""


def monitor(
    subject: Subject, *, predict: Predict, settings: DriftSettings, now: float, read: Read = read_current
) -> DriftReport:
    """Compare new rows with those that the model was trained on, and append the result to ``<table>_drift``.

    The same look again, after a kill or on ``resume``, finds its row and decides the same.

    Parameters
    ----------
    subject : Subject
        See ``find_subject``.
    predict : callable
        Returns the columns of predictions of rows, see ``make_predict``; called where the predictions of the test
        split are not stored.
    settings : DriftSettings
    now : float
        Seconds since 1970.
    read : callable
        Reads the rows that came in.
    """
    task = subject.task
    came = read(subject, window=settings.window)
    current, labelled = came.sample, came.labelled
    reference, test_scores = read_reference(subject, predict, rows=settings.reference_rows, seed=settings.seed)
    quality = task.target.compare_quality(came.scores, test_scores)
    drift = compare(reference, current, quality, settings, inputs=task.inputs)
    if came.foreign:
        drift = Drift((), None, (came.foreign,))
    target, key = f"{subject.source.path}_drift", make_key(subject, settings, labels=came.labels)
    done = find_commit(target, key)
    new = done is None
    if done is None:
        earlier = read_history(target, subject)
        publish = drift.drifted and may_publish(earlier, now=now, labelled=labelled, settings=settings)
        row = to_row(subject, drift, quality, current, reference, labelled=labelled, publish=publish, now=now)
        done = append_look(target, to_table(row), key=key)
    # what the table has decides, not what was computed now: of two tries of one look, one commits its row
    (kept,) = read_added(done).to_pylist()
    history = [*read_history(target, subject, until=done.version - 1), kept]
    publish = bool(kept["published"])
    return DriftReport(subject, drift, quality, reference, current, done, history, publish, new, settings)


def make_predict(model: ModelVersion) -> Predict:
    """Return what predicts rows with ``model``, which is loaded when it is called: the columns of predictions."""

    def predict(rows: Sequence[Row]) -> pa.Table:
        from dlpipe.inference import is_pipeline, load_pipeline, load_predictor

        if not is_pipeline(model):
            predictor = load_predictor(model.uri)
            outputs = predictor.predict_outputs(rows)
        else:
            pipeline = load_pipeline(model.uri)
            predictor = pipeline.predictor
            outputs = pipeline.answer(list(rows)).outputs  # NaN for a row that cannot be read
        return to_predictions(find_task(predictor.card["task"]).target, outputs, predictor.card)

    return predict


def make_key(subject: Subject, settings: DriftSettings, *, labels: str = "") -> dict[str, str]:
    """Return what makes a look the same as an earlier one; ``labels`` is the version of a table of their own."""
    written = json.dumps(asdict(settings), sort_keys=True)
    return {
        "monitored": subject.predictions.path,
        "version": str(subject.predictions.version),
        "source_version": str(subject.source.version),
        "model": subject.classifier,
        "settings": hashlib.sha256(written.encode()).hexdigest()[:16],
        **({"labels": labels} if labels else {}),
    }


def read_history(target: str, subject: Subject, *, until: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of ``<table>_drift`` for this model, the oldest first.

    Parameters
    ----------
    target : str
        Path of ``<table>_drift``; there are no rows where it does not exist.
    subject : Subject
    until : int, optional
        The version to read, -1 for none; by default the latest.
    """
    try:
        there = table_at(target, version=until) if until is None or until >= 0 else None
    except TableNotFound:
        return []
    rows = [] if there is None else read_table(_check_looks(there)).to_pylist()
    return [row for row in rows if row["model_version"] == subject.classifier]


def _check_looks(table: TableVersion) -> TableVersion:
    """Return ``table``; raise ``SchemaMismatch`` where it is another kind of table than one of looks."""
    fixed = ("at", "model_version", "published", "labelled_rows")
    if missing := set(fixed) - {name for name, _ in table.columns}:
        raise SchemaMismatch(
            f"{str(table)!r} has no column {' and no column '.join(map(repr, sorted(missing)))}, so it is no "
            "table of looks at drift, which has this name. Move it away."
        )
    return table


def may_publish(earlier: list[dict[str, Any]], *, now: float, labelled: int, settings: DriftSettings) -> bool:
    """Return whether an event may follow the last one for the same model.

    A champion that drifted stays drifted until another takes its place; an event each hour would train in vain.
    Where the last one came too early, without labels to learn from, the next follows as soon as there are some.

    Parameters
    ----------
    earlier : list of dict
        The rows of ``<table>_drift`` for this model.
    now : float
        Seconds since 1970.
    labelled : int
        How many new rows have a label by now.
    settings : DriftSettings
        ``quiet_hours`` and ``min_labels``.
    """
    published = [row for row in earlier if row["published"]]
    if not published:
        return True
    last = published[-1]
    return (
        now - datetime.fromisoformat(last["at"]).timestamp() > settings.quiet_hours * 3600
        or last["labelled_rows"] < settings.min_labels <= labelled
    )


def to_row(
    subject: Subject,
    drift: Drift,
    quality: Quality,
    current: Sample,
    reference: Sample,
    *,
    labelled: int,
    publish: bool,
    now: float,
) -> dict[str, Any]:
    """Return the row of ``<table>_drift`` for a look.

    Parameters
    ----------
    subject, drift, quality, current, reference
        What was compared, and the result.
    labelled : int
        How many new rows have a label.
    publish : bool
        Whether the event is to be published.
    now : float
        Seconds since 1970.
    """
    low, high = quality.interval
    fixed = {
        "at": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "model_version": subject.classifier,
        "trained_on": subject.trained_on.path,
        "trained_version": subject.trained_on.version,
        "source": subject.source.path,
        "source_version": subject.source.version,
        "predictions_version": subject.predictions.version,
        "rows": current.count,
        "reference_rows": len(reference.rows),
        "drifted": drift.drifted,
        "published": publish,
        "reason": drift.reason,
        "labelled_rows": labelled,
        "judged_rows": quality.rows,
        quality.metric: quality.value,
        f"{quality.metric}_low": low,
        f"{quality.metric}_high": high,
        f"test_{quality.metric}": quality.test_value,
    }
    sizes = {signal.name: signal for signal in drift.signals}
    measured: dict[str, float | None] = {}
    for name in list_signals(reference, current):
        signal, column = sizes.get(name), f"{name}_" if name in fixed else name
        measured[column] = signal.size if signal else None
        measured[f"{column}_p"] = signal.adjusted if signal else None
    return {**fixed, **measured}


def list_signals(reference: Sample, current: Sample) -> list[str]:
    """Return the names of all signals that there would be with enough rows, in the order of the columns."""
    rows, predictions = pair_samples(reference, current)
    return [DOMAIN, *(pair.signal for pair in rows), *(pair.signal for pair in predictions), QUALITY]


def append_look(target: str, row: pa.Table, *, key: Mapping[str, str]) -> TableVersion:
    """Append the row of a look; what the table or the row lacks of the other's columns is null there.

    Models of other tasks, or of more columns, have other signals. Columns are added by a commit of their own: a
    kill after it leaves a wider table without the row, which the next try appends.

    Parameters
    ----------
    target : str
        ``<table>_drift``, which is made where there is none.
    row : pyarrow.Table
        Of one row.
    key : mapping
        See ``make_key``.
    """
    import pyarrow as pa

    try:
        there = table_at(target)
    except TableNotFound:
        return write_table(target, row, key=key)
    kept = read_table(there)
    schema = pa.unify_schemas([kept.schema, row.schema.remove_metadata()])
    if len(schema) > len(kept.schema):
        wide = pa.concat_tables([kept, schema.empty_table()], promote_options="default")
        with contextlib.suppress(MarkMoved):  # another look was first: the table is read again
            replace_rows(target, wide.to_reader(), metadata={}, at=there.version + 1)
        return append_look(target, row, key=key)
    whole = pa.concat_tables([kept.schema.empty_table(), row], promote_options="default")
    return write_table(target, whole, key=key)


def to_table(row: Mapping[str, Any]) -> pa.Table:
    """Return a row with the columns of ``<table>_drift``."""
    import pyarrow as pa

    kinds = {"trained_version": pa.int64(), "source_version": pa.int64(), "predictions_version": pa.int64()}
    kinds |= dict.fromkeys(("rows", "reference_rows", "labelled_rows", "judged_rows"), pa.int64())
    kinds |= dict.fromkeys(("drifted", "published"), pa.bool_())
    kinds |= dict.fromkeys(("at", "model_version", "trained_on", "source", "reason"), pa.string())
    return pa.table(
        {name: pa.array([value], kinds.get(name, pa.float64())) for name, value in row.items()},
    )
