"""What MLflow should hold for a Metaflow run: plain values, which need no MLflow and no server."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
KEY = "metaflow.key"
DIGEST, NAME, NOTE_MARK = "mlflow.dlpipe.digest", "mlflow.dlpipe.name", "mlflow.dlpipe.note"
"""What was written, the name that was given, and a digest of the description: MLflow's page shows none of them."""
HISTORY = "mlflow.log-model.history"
"""The tag in which MLflow's table of runs looks for models of a run, beside the versions that belong to it."""
GRAPH = "graph.svg"
"""The picture of a run's graph."""
NOTE = "mlflow.note.content"
"""MLflow's own tag for the description of a run."""
TRIAL = "ray.trial"
"""Tag of a trial's run, which always stands under the task's."""
TAG_LENGTH = 5000
"""Characters of a tag; MLflow would cut longer ones itself at 8,000 bytes or so, each store at another place."""
TAKEN = "metaflow/"
"""Before a parameter's name that the step itself has logged with another value."""


@dataclass(frozen=True)
class Metric:
    """A finite number; ``time`` is in milliseconds since 1970."""

    key: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True)
class Document:
    """A file of an MLflow run."""

    path: str
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A table version that a task had in its hands.

    Attributes
    ----------
    path : str
        Folder or URI of the table.
    rows : int
        How many it has.
    role : str
        The artifact that named it.
    columns : tuple of (str, str)
        Names and types, as Delta has them.
    """

    path: str
    version: int
    digest: str
    rows: int
    role: str
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def table(self) -> str:
        """Name of the table, such as ``reviews``."""
        return self.path.rstrip("/").rpartition("/")[2][-480:]

    @property
    def name(self) -> str:
        """Table and version, such as ``reviews@v0``."""
        return f"{self.table}@v{self.version}"

    @property
    def source(self) -> str:
        """JSON that says where the rows are."""
        return json.dumps({"path": self.path, "version": self.version}, sort_keys=True)


@dataclass(frozen=True)
class Model:
    """A registered model version that a task made or used.

    Attributes
    ----------
    model_id : str
        Of MLflow's logged model that the version is; empty where it is none.
    again : bool
        Whether it was to be made, and existed: the same weights are the same version.
    """

    name: str
    version: int
    role: Literal["made", "used"]
    model_id: str = ""
    again: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class RunRecord:
    """One run that MLflow should hold.

    Attributes
    ----------
    key : str
        Names it for ever: ``Flow/run`` for a run, ``Flow/run/step/task/attempt`` for an attempt of a task.
    parent : str or None
        Key of the record that it is nested under.
    start, end : int
        Milliseconds since 1970; ``end`` is ``None`` while it runs.
    shared : bool
        Whether the step logs to this run itself, and so may end it before we do.
    former_names : tuple of str
        Other names that the bridge may have given it before.
    former_note : tuple of (str, str) or None
        How a description and its last line began before there was a digest of it; ``None`` where there was none.
    """

    key: str
    parent: str | None
    name: str
    status: Status
    start: int
    end: int | None
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()
    datasets: tuple[Dataset, ...] = ()
    models: tuple[Model, ...] = ()
    shared: bool = False
    former_names: tuple[str, ...] = ()
    former_note: tuple[str, str] | None = None

    @property
    def all_tags(self) -> dict[str, str]:
        """Tags with those that name the models, and that tell the run's own name and description from others."""
        roles = {role: [str(model) for model in self.models if model.role == role] for role in ("made", "used")}
        named = {f"metaflow.models.{role}": " ".join(uris) for role, uris in roles.items() if uris}
        history = make_history(self.models, self.start) if self.parent is None else {}
        tags = {name: cut(value) for name, value in {**self.tags, **named, **history, NAME: self.name}.items()}
        return {**tags, NOTE_MARK: make_note_mark(tags[NOTE])} if NOTE in tags else tags

    @property
    def logged_models(self) -> dict[tuple[str, str], Model]:
        """MLflow's logged models that are inputs or outputs of the run, by role and id."""
        return {(model.role, model.model_id): model for model in self.models if model.model_id}

    @property
    def digest(self) -> str:
        """SHA-256 of all that the record says; equal for two readings of the same Metaflow run."""
        plain: dict[str, Any] = {
            **{name: getattr(self, name) for name in ("key", "parent", "name", "status", "start", "end")},
            "params": dict(self.params),
            "tags": self.all_tags,
            "metrics": [vars(metric) for metric in self.metrics],
            "documents": {document.path: document.digest for document in self.documents},
            "datasets": [vars(dataset) for dataset in self.datasets],
            "logged_models": sorted(self.logged_models),
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def make_history(models: Collection[Model], start: int) -> dict[str, str]:
    """Return the tag that has MLflow's table of runs name a model which existed when the run was to make it.

    The version belongs to the run that was first, and the table shows it there alone. Of models such as
    ``reviews`` and ``reviews-pipeline``, the first stands for both.

    Parameters
    ----------
    models : collection of Model
        Of a run.
    start : int
        Of the run, in milliseconds since 1970.

    Examples
    --------
    >>> models = [Model(name, 1, "used", again=True) for name in ("reviews-pipeline", "reviews")]
    >>> json.loads(make_history(models, 0)[HISTORY])[0]["flavors"]
    {'reviews v1': {}}
    >>> make_history([Model("reviews", 1, "used"), Model("reviews", 2, "made")], 0)
    {}
    """
    again = {model.name: model.version for model in models if model.again}
    names = [name for name in again if not any(name.startswith(f"{other}-") for other in again)]
    if not names or any(model.role == "made" for model in models):
        return {}
    title = ", ".join(f"{name} v{again[name]}" for name in names)
    when = datetime.fromtimestamp(start / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    # what the table shows is the name of the first flavor, with a link to this file of the run
    return {HISTORY: json.dumps([{"artifact_path": GRAPH, "utc_time_created": when, "flavors": {title: {}}}])}


def make_note_mark(note: str) -> str:
    """Return the digest by which a description is known again as the bridge's own."""
    return hashlib.sha256(note.encode()).hexdigest()[:16]


def cut(text: str, length: int = TAG_LENGTH) -> str:
    """Return a text that a tag can hold: the beginning of a long one, without what no store takes.

    Examples
    --------
    >>> cut("word " * 10, 30)
    'word word w... (50 characters)'
    """
    text = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    end = f"... ({len(text):,} characters)"
    return text if len(text) <= length else text[: length - len(end)] + end


@dataclass(frozen=True)
class HeldRecord:
    """What MLflow holds under a record's key; ``documents`` maps paths to SHA-256."""

    run_id: str
    parent: str | None
    name: str
    status: str
    start: int
    end: int | None
    params: Mapping[str, str]
    metrics: frozenset[Metric]
    tags: Mapping[str, str]
    documents: Mapping[str, str]
    datasets: frozenset[Dataset]
    logged_models: frozenset[tuple[str, str]] = frozenset()
    """Role and id of each logged model that is an input or an output."""

    @cached_property
    def _points(self) -> frozenset[tuple[str, float, int]]:
        return frozenset((metric.key, metric.value, metric.step) for metric in self.metrics)

    def has_point(self, metric: Metric) -> bool:
        """Return whether it has the point, at whatever time.

        Another machine may not have the file that says when a point was reported, and must not write it twice.
        """
        return (metric.key, metric.value, metric.step) in self._points


@dataclass(frozen=True)
class Difference:
    """One thing in which MLflow differs from Metaflow; what people added to MLflow is none."""

    key: str
    what: str
    should: str
    holds: str

    def __str__(self) -> str:
        return f"{self.key}: {self.what} should be {self.should}, MLflow holds {self.holds}"


def find_differences(record: RunRecord, held: HeldRecord | None) -> list[Difference]:
    """Return every way in which ``held`` differs from ``record``.

    Examples
    --------
    >>> record = RunRecord("Flow/1", None, "1", "FINISHED", start=0, end=9)
    >>> [str(one) for one in find_differences(record, None)]
    ['Flow/1: run should be there, MLflow holds nothing']
    """
    if held is None:
        return [Difference(record.key, "run", "there", "nothing")]
    own = () if record.shared and record.status == "RUNNING" else ("status", "end")
    found = [
        Difference(record.key, name, str(getattr(record, name)), str(getattr(held, name)))
        for name in ("parent", "start", *own)
        if getattr(record, name) != getattr(held, name)
    ]
    if has_older_name(record, held):
        found.append(Difference(record.key, "name", record.name, held.name))
    found += _find_missing(record.key, "parameter", record.params, find_own_params(record, held.params))
    found += _find_missing(record.key, "tag", find_own_tags(record, held), held.tags)
    files = {document.path: document.digest for document in record.documents}
    found += _find_missing(record.key, "file", files, held.documents)
    found += [
        Difference(record.key, f"metric {metric.key}", f"{metric.value:g}", "no such point")
        for metric in record.metrics
        if not held.has_point(metric)
    ]
    found += [
        Difference(record.key, f"dataset {dataset.name}", dataset.role, "nothing")
        for dataset in record.datasets
        if not is_held(dataset, held.datasets)
    ]
    found += [
        Difference(record.key, f"model {model}", model.role, "nothing")
        for role_and_id, model in record.logged_models.items()
        if role_and_id not in held.logged_models
    ]
    return found


def has_older_name(record: RunRecord, held: HeldRecord) -> bool:
    """Return whether MLflow holds another name that the bridge gave; one that a person gave stays.

    Examples
    --------
    >>> record = RunRecord("Flow/1", None, "Flow · 28 Nov 00:03", "FINISHED", 0, 9, former_names=("1",))
    >>> for name in ("1", "my best run"):
    ...     held = HeldRecord("r", None, name, "FINISHED", 0, 9, {}, frozenset(), {}, {}, frozenset())
    ...     print(has_older_name(record, held))
    True
    False
    """
    return held.name != record.name and (held.name == held.tags.get(NAME) or held.name in record.former_names)


def has_others_note(record: RunRecord, held: HeldRecord) -> bool:
    """Return whether MLflow holds a description that the bridge has not written: it stays.

    Examples
    --------
    >>> record = RunRecord("Flow/1", None, "1", "FINISHED", 0, 9, tags={NOTE: "accuracy **0.9**"})
    >>> for tags in ({NOTE: "too few rows"}, {NOTE: "so far", NOTE_MARK: make_note_mark("so far")}, {}):
    ...     held = HeldRecord("r", None, "1", "FINISHED", 0, 9, {}, frozenset(), tags, {}, frozenset())
    ...     print(has_others_note(record, held))
    True
    False
    False
    """
    note = held.tags.get(NOTE, "")
    if not note.strip() or note == record.all_tags.get(NOTE):
        return False
    if NOTE_MARK in held.tags:
        return held.tags[NOTE_MARK] != make_note_mark(note)
    if record.former_note is None:
        return True
    begin, last = record.former_note
    return not (note.startswith(begin[:1000]) and note.splitlines()[-1].startswith(last))


def find_own_tags(record: RunRecord, held: HeldRecord) -> dict[str, str]:
    """Return the tags that MLflow should hold: without a description where somebody has written another one."""
    tags = record.all_tags
    others = (NOTE, NOTE_MARK) if has_others_note(record, held) else ()
    return {name: value for name, value in tags.items() if name not in others}


def is_held(dataset: Dataset, held: Collection[Dataset]) -> bool:
    """Return whether ``held`` has the dataset: of one dataset in two roles, MLflow keeps the first."""
    return any(
        (other.name, other.digest, other.source) == (dataset.name, dataset.digest, dataset.source)
        for other in held
    )


def find_own_params(record: RunRecord, params: Mapping[str, str]) -> dict[str, str]:
    """Return what ``params`` says of the record's own: a name that the step itself has taken stands under ours.

    Examples
    --------
    >>> record = RunRecord("Flow/1/a/1/0", "Flow/1", "a", "FINISHED", 0, 9, params={"lr": "1"})
    >>> find_own_params(record, {"lr": "2", "metaflow/lr": "1"})
    {'lr': '1', 'metaflow/lr': '1'}
    """
    aside = {name: params[TAKEN + name] for name in record.params if TAKEN + name in params}
    return {**params, **{name: value for name, value in aside.items() if params.get(name) != record.params[name]}}


def _find_missing(key: str, what: str, should: Mapping[str, str], holds: Mapping[str, str]) -> list[Difference]:
    return [
        Difference(key, f"{what} {name}", repr(value), repr(holds[name]) if name in holds else "nothing")
        for name, value in should.items()
        if holds.get(name) != value
    ]


def parse_object(text: str | None) -> dict[str, Any]:
    """Return the JSON object in ``text``; an empty one where there is something else.

    Examples
    --------
    >>> parse_object('{"a": 1}'), parse_object("nonsense"), parse_object(None)
    ({'a': 1}, {}, {})
    """
    try:
        value = json.loads(text or "{}")
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
