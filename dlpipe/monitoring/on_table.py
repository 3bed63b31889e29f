"""All comparisons for a predictions table, kept as a row of ``<table>_drift``."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dlpipe.monitoring.samples import (
    Quality,
    Sample,
    Subject,
    check_scored,
    current_sample,
    has_scored,
    model_of,
    reference_sample,
    subject_of,
)
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.signals import MEASURES, Drift, compare
from dlpipe.tables import TableVersion, find_commit, read_added, read_table, table_at, write_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dlpipe.monitoring.samples import Predict
    from dlpipe.registry import ModelVersion

__all__ = ["Monitored", "Subject", "check_scored", "monitor", "predicting", "subject_of"]


@dataclass(frozen=True)
class Monitored:
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
        False where an earlier look at the same rows, or an earlier try of this one, has kept its row.
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

    @property
    def event_id(self) -> str:
        """The same for the same look, however often it is taken."""
        kept = self.history[-1]
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"dlpipe:{self.table.path}@{self.table.version} {kept['at']}"))

    def payload(self) -> dict[str, Any]:
        """Return the fields of the event: what ``train_flow.py`` takes, and why."""
        seen = self.subject
        sizes: dict[str, float] = {
            signal.name: round(signal.size, 4) for signal in self.drift.signals if math.isfinite(signal.size)
        }
        return {
            "model": seen.classifier.removeprefix("models:/").partition("/")[0],
            "table": seen.trained_on.path,
            "retrain": True,
            "reason": self.drift.reason,
            "champion": seen.classifier,
            "trained_version": seen.trained_on.version,
            "scored_table": seen.source.path,
            "scored_version": seen.source.version,
            "rows": len(self.current.texts),
            **sizes,
        }


def monitor(subject: Subject, *, predict: Predict, settings: DriftSettings, now: float) -> Monitored:
    """Compare the rows that came in with those that the model was trained on; keep what came of it as one row.

    The same look again, after a kill or on ``resume``, finds its row and decides the same.

    Parameters
    ----------
    subject : Subject
        See ``subject_of``.
    predict : callable
        Returns the model's predictions of texts, as ``dlpipe.inference.predictions`` does; called where the
        predictions of the test split are not kept.
    now : float
        Seconds since 1970.
    """
    current, labelled, right, judged = current_sample(subject, window=settings.window)
    reference, test_right, test_rows = reference_sample(
        subject, predict, rows=settings.reference_rows, seed=settings.seed
    )
    quality = Quality(right, judged, test_right, test_rows)
    drift = compare(reference, current, quality, settings)
    if not has_scored(subject):  # rows that were never meant for it: that they differ says nothing of it
        drift = Drift((), None, (f"no version of {model_of(subject)} has scored a row of {subject.source}",))
    target, key = f"{subject.source.path}_drift", look_key(subject, settings)
    done = find_commit(target, key)
    new = done is None
    if done is None:
        earlier = earlier_looks(target, subject)
        publish = drift.drifted and may_publish(earlier, now=now, labelled=labelled, settings=settings)
        row = as_row(subject, drift, quality, current, reference, labelled=labelled, publish=publish, now=now)
        done = write_table(target, pa_table(row), key=key)
    (kept,) = read_added(done).to_pylist()
    history = [*earlier_looks(target, subject, until=done.version - 1), kept]
    return Monitored(subject, drift, quality, reference, current, done, history, bool(kept["published"]), new)


def predicting(model: ModelVersion) -> Predict:
    """Return what predicts texts with ``model``, which is loaded when it is called first."""

    def predict(texts: Sequence[str]) -> pd.DataFrame:
        from dlpipe.inference import is_pipeline, load_pipeline, load_predictor, predictions

        if is_pipeline(model):
            return load_pipeline(model.uri).run(list(texts))
        return predictions(load_predictor(model.uri), texts)

    return predict


def look_key(subject: Subject, settings: DriftSettings) -> dict[str, str]:
    """Return what makes a look the same as an earlier one."""
    said = json.dumps(asdict(settings), sort_keys=True)
    return {
        "monitored": subject.predictions.path,
        "version": str(subject.predictions.version),
        "source_version": str(subject.source.version),
        "model": subject.classifier,
        "settings": hashlib.sha256(said.encode()).hexdigest()[:16],
    }


def earlier_looks(target: str, subject: Subject, *, until: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of ``<table>_drift`` for this model, the oldest first."""
    from dlpipe.errors import TableNotFound

    try:
        there = table_at(target, version=until) if until is None or until >= 0 else None
    except TableNotFound:
        return []
    rows = [] if there is None else read_table(there).to_pylist()
    return [row for row in rows if row["model_version"] == subject.classifier]


def may_publish(earlier: list[dict[str, Any]], *, now: float, labelled: int, settings: DriftSettings) -> bool:
    """Return whether an event may follow the last one for the same model.

    A champion that drifted stays drifted until another takes its place; an event each hour would train in vain.
    Where the last one came too early, without labels to learn from, the next follows as soon as there are some.
    """
    published = [row for row in earlier if row["published"]]
    if not published:
        return True
    last = published[-1]
    return (
        now - datetime.fromisoformat(last["at"]).timestamp() > settings.quiet_hours * 3600
        or last["labelled_rows"] < settings.min_labels <= labelled
    )


def as_row(
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
    """Return the row of ``<table>_drift`` for a look."""
    low, high = quality.interval
    sizes = {signal.name: signal for signal in drift.signals}
    measured: dict[str, float | None] = {}
    for name in MEASURES:
        signal = sizes.get(name)
        measured[name] = signal.size if signal else None
        measured[f"{name}_p"] = signal.adjusted if signal else None
    return {
        "at": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        "model_version": subject.classifier,
        "trained_on": subject.trained_on.path,
        "trained_version": subject.trained_on.version,
        "source": subject.source.path,
        "source_version": subject.source.version,
        "predictions_version": subject.predictions.version,
        "rows": len(current.texts),
        "reference_rows": len(reference.texts),
        "drifted": drift.drifted,
        "published": publish,
        "reason": drift.reason,
        "labelled_rows": labelled,
        "judged_rows": quality.rows,
        "accuracy": quality.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "test_accuracy": quality.test_accuracy,
        **measured,
    }


def pa_table(row: Mapping[str, Any]) -> pa.Table:
    """Return a row with the columns of ``<table>_drift``."""
    import pyarrow as pa

    kinds = {"trained_version": pa.int64(), "source_version": pa.int64(), "predictions_version": pa.int64()}
    kinds |= dict.fromkeys(("rows", "reference_rows", "labelled_rows", "judged_rows"), pa.int64())
    kinds |= dict.fromkeys(("drifted", "published"), pa.bool_())
    kinds |= dict.fromkeys(("at", "model_version", "trained_on", "source", "reason"), pa.string())
    return pa.table(
        {name: pa.array([value], kinds.get(name, pa.float64())) for name, value in row.items()},
    )
