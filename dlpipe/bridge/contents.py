"""What an attempt left behind: artifacts, datasets, models, logs, cards, and the traceback of its failure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dlpipe.bridge.artifacts import Artifact, read_all_artifacts
from dlpipe.bridge.attempts import TaskAttempt
from dlpipe.bridge.datastore import DatastoreRoot, Unreadable, open_flow_store, read_log, read_page
from dlpipe.bridge.metadata import read_metadata
from dlpipe.bridge.opening import Fields, IncludedFile, read_fields
from dlpipe.bridge.pictures import find_pictures
from dlpipe.bridge.points import (
    DATASET_FIELDS,
    MODEL_FIELDS,
    SCORES,
    CollectedPoints,
    Points,
    choose_name,
    collect_points,
    is_version,
    name_points,
)
from dlpipe.bridge.records import Dataset, Document, Metric, Model
from dlpipe.bridge.repeats import drop_repeated
from dlpipe.bridge.reported import Reported
from dlpipe.bridge.values import KeptValue, TooManyValues, keep, look_inside, to_mlflow_key
from dlpipe.errors import DlpipeError
from dlpipe.redaction import find_secrets, looks_secret, redact, redact_card, set_secrets

LOG_CHARACTERS = 64_000
MOST_LOST = 3
"""So many values that are in no file are named."""
DIGEST_LENGTH = 36  # MLflow's limit for datasets
LONGEST_PATH, MOST_COLUMNS, LONGEST_REASON = 4000, 1000, 1000
NESTED, MOST_VERSIONS = 3, 100
"""So deep are versions of tables and models looked for, and among so many values of a list."""


@dataclass
class Contents:
    """What is kept of one attempt.

    Attributes
    ----------
    settings : dict of str to str
        Those of the parameters that hold for the whole run.
    numbers : dict of str to set of str
        The metrics that each artifact gave.
    verdicts : dict of str to str
        What was decided and why, by artifact.
    versions : dict of str to str
        The version of a table or model that a metric is a part of.
    held : dict of str to (dict of tuple of str to float)
        The last numbers inside each artifact by their paths, also those that stand elsewhere.
    prints : dict of str to str
        A digest of what is kept of each artifact, also of those that an earlier step had left just so.
    paths : dict of str to tuple of str
        Where in its artifact each metric is from that is not an artifact itself.
    notes : list of str
        What could not be mirrored, and why, but for artifacts, which have it in their index.
    """

    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, set[str]] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdicts: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    held: dict[str, dict[tuple[str, ...], float]] = field(default_factory=dict)
    prints: dict[str, str] = field(default_factory=dict)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def try_documents(self, what: str, make: Callable[[], Iterable[Document]]) -> None:
        """Add documents; where they cannot be had, a note. An outage is no reason for a note."""
        try:
            self.documents += make()
        except DlpipeError:
            raise
        except Exception as error:
            self.notes.append(f"{what}: {describe_error(error)}")


def describe_error(error: Exception) -> str:
    """Return why something could not be mirrored, the same at each reading."""
    is_told = isinstance(error, Unreadable | TooManyValues)
    return str(error) if is_told else f"cannot be shown: {type(error).__name__}"


def read_contents(
    attempt: TaskAttempt,
    passed_on: frozenset[tuple[str, str]],
    *,
    known: Mapping[str, str] = MappingProxyType({}),
    secrets: Collection[str] = (),
    reported: Reported | None = None,
) -> Contents:
    """Return what an attempt left behind.

    Parameters
    ----------
    attempt : TaskAttempt
        One that is complete.
    passed_on : frozenset of (str, str)
        Name and SHA-1 of what the run's parameters are, and of what the tasks before it held.
    known : mapping of str to str, optional
        What earlier steps have left, by name, as ``Contents.prints`` has it: the same again is passed on, too.
        Metaflow pickles again what a step has looked at, and the same value may come out as other bytes.
    secrets : collection of str, optional
        Values that are hidden wherever they stand.
    reported : Reported, optional
        What the attempt has reported.

    Raises
    ------
    StorageUnavailable
        When the datastore does not answer; whatever else is wrong is a note.
    """
    found, reported = Contents(), reported or Reported()
    found.try_documents("artifacts", lambda: _add_artifacts(found, attempt, passed_on, known, secrets, reported))
    found.metrics, notes = reported.merge(found.metrics, attempt.start)
    found.notes += notes
    metadata = _read_metadata(attempt)
    for stream in ("stdout", "stderr"):
        found.try_documents(f"logs/{stream}", lambda stream=stream: _make_log(metadata, attempt, stream))  # type: ignore[misc]
    if attempt.has_cards:
        found.try_documents("cards", lambda: _make_cards(found, attempt, metadata.get("ds-type", "local")))
    found.datasets = list(dict.fromkeys(found.datasets))
    found.models = _sort_models(found.models)
    return found


def read_values(
    attempt: TaskAttempt,
    passed_on: frozenset[tuple[str, str]],
    *,
    known: Mapping[str, str] = MappingProxyType({}),
    secrets: Collection[str] = (),
    reported: Reported | None = None,
) -> Contents:
    """Return what ``read_contents`` says of artifacts and points alone; the arguments are the same."""
    found, reported = Contents(), reported or Reported()
    found.try_documents("artifacts", lambda: _add_artifacts(found, attempt, passed_on, known, secrets, reported))
    found.metrics, _ = reported.merge(found.metrics, attempt.start)
    found.models = _sort_models(found.models)
    return found


def _sort_models(models: Iterable[Model]) -> list[Model]:
    """Return models once each, by name: a model stands before those whose names begin with its own."""
    return sorted(dict.fromkeys(models), key=lambda model: model.name)


def _add_artifacts(
    found: Contents,
    attempt: TaskAttempt,
    passed_on: frozenset[tuple[str, str]],
    known: Mapping[str, str],
    secrets: Collection[str],
    reported: Reported,
) -> list[Document]:
    """Put each artifact where its type says, and return the index of all and the traceback."""
    artifacts = read_all_artifacts(attempt.pathspec, attempt.number)
    own = [artifact for artifact in artifacts if not artifact.name.startswith("_")]
    set_secrets([*secrets, *(secret for artifact in own for secret in _find_secrets(artifact))])
    new = [artifact for artifact in own if (artifact.name, artifact.sha) not in passed_on]
    names = {("metric", to_mlflow_key(artifact.name)) for artifact in new} | {*reported.taken}
    keys = {  # of what the step has reported under the name of an artifact, that artifact's number is another
        artifact.name: choose_name((artifact.name,), "metric", names)
        for artifact in new
        if ("metric", to_mlflow_key(artifact.name)) in reported.taken
    }
    looked_at = {
        artifact.name: _look_at(attempt, artifact, keys.get(artifact.name) or to_mlflow_key(artifact.name))
        for artifact in new
    }
    found.prints = {name: part.prints[name] for name, (part, _, _) in looked_at.items() if part.prints}
    made = {
        name: seen
        for name, seen in looked_at.items()
        if name not in known or found.prints.get(name) != known[name]
    }
    taken = {(kind, to_mlflow_key(name)) for name in made for kind in ("metric", "param")} | {*reported.taken}
    taken |= {("metric", key) for key in keys.values()}
    for name, (part, _, _) in made.items():
        _add_part(found, name, part)
    collected = [points for _, points, _ in made.values() if points is not None]
    index = {name: entry for name, (_, _, entry) in made.items()}
    found.held = {points.name: points.find_last() for points in collected if points.metrics}
    drop_repeated(collected, {metric.key: metric.value for metric in found.metrics}, reported.names)
    for points in collected:
        _add_points(found, attempt, points.name, name_points(points, taken, reported.names))
    first = {key for name in SCORES for key in found.numbers.get(name, ())}
    found.metrics.sort(key=lambda metric: (metric.key not in first, metric.key in found.versions))
    documents = [Document("artifacts.json", json.dumps(index, indent=1).encode())] if index else []
    return [*documents, *_make_traceback(attempt, {artifact.name: artifact for artifact in artifacts})]


def _find_secrets(artifact: Artifact) -> Iterator[str]:
    if looks_secret(artifact.name):
        try:
            yield from find_secrets(artifact.value(), artifact.name)
        except Unreadable:  # so it is not shown either
            return


def _look_at(
    attempt: TaskAttempt, artifact: Artifact, metric: str
) -> tuple[Contents, CollectedPoints | None, dict[str, Any]]:
    """Return what is kept of one artifact, what stands inside it, and its entry in the index.

    An artifact that is a number is called ``metric``.
    """
    entry: dict[str, Any] = {"pathspec": artifact.pathspec, "size": artifact.size}
    if not looks_secret(artifact.name):  # a short secret can be found by its digest
        entry["sha1"] = artifact.sha
    part = Contents()
    try:
        kept, points = _keep(part, attempt, artifact, metric)
    except DlpipeError:
        raise
    except Exception as error:
        return Contents(), None, {**entry, "kept": "reference", "why": describe_error(error)}
    return part, points, {**entry, **kept}


def _add_part(found: Contents, name: str, part: Contents) -> None:
    """Add what is kept of one artifact."""
    found.metrics += part.metrics
    found.numbers[name] = {metric.key for metric in part.metrics}
    found.params |= part.params
    found.documents += part.documents
    found.datasets += part.datasets
    found.models += part.models
    found.notes += part.notes
    found.verdicts |= part.verdicts


def _keep(
    part: Contents, attempt: TaskAttempt, artifact: Artifact, metric: str
) -> tuple[dict[str, str], CollectedPoints]:
    """Put what is kept of an artifact into ``part``; return what the index says of it, and what is inside."""
    name, value = artifact.name, artifact.value()
    if isinstance(value, IncludedFile):
        raise Unreadable("a file that was given as a parameter")
    points, why = collect_points(name, value), ""
    try:
        kept = keep(name, value)
    except DlpipeError:
        raise
    except Exception as error:  # the numbers inside stand in MLflow all the same
        kept, why = KeptValue(), describe_error(error)
        points.notes = [f"{name} is in no file: {why}"] if points.metrics or points.params else []
    if kept.metric is not None:
        part.metrics.append(Metric(metric, kept.metric, attempt.end or attempt.start))
    if kept.param is not None:
        part.params[to_mlflow_key(name)] = kept.param
    part.documents += kept.documents
    if kept.documents and not kept.lost:
        part.prints[name] = hashlib.sha256("".join(made.digest for made in kept.documents).encode()).hexdigest()
    if kept.lost:
        more = f" and {len(kept.lost) - MOST_LOST} more" if len(kept.lost) > MOST_LOST else ""
        part.notes.append(redact(f"not in the file of {name}: {', '.join(kept.lost[:MOST_LOST])}{more}"))
    try:
        part.datasets += find_datasets(value, name)
        part.models += find_models(value, name, attempt.key)
    except Exception as error:
        part.notes.append(f"data sets and models in {name}: {describe_error(error)}")
    if verdict := describe_verdict(value):
        part.verdicts[name] = verdict
    entry = {"type": _name_type(value), "kept": kept.kind}
    return {**entry, "why": why} if why else entry, points


def _add_points(found: Contents, attempt: TaskAttempt, name: str, points: Points) -> None:
    """Add what stands inside an artifact; all of it at the time at which the attempt ended."""
    time = attempt.end or attempt.start
    found.metrics += [Metric(key, value, time, step) for key, value, step in points.metrics]
    found.numbers.setdefault(name, set()).update(key for key, _, _ in points.metrics)
    found.params |= {key: redact(value) for key, value in points.params.items()}
    found.settings |= {key: redact(value) for key, value in points.settings.items()}
    found.versions |= points.versions
    found.paths |= points.paths
    found.notes += points.notes


def _name_type(value: Any) -> str:
    if isinstance(value, Fields):
        return value.name
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def find_datasets(value: Any, role: str, depth: int = NESTED) -> Iterator[Dataset]:
    """Yield the table versions in a value: what has ``path``, ``version``, ``digest`` and ``rows``.

    Parameters
    ----------
    value : object
        What an artifact holds.
    role : str
        Name of the artifact; that of a field within is added after a dot.
    depth : int, optional
        So deep are dataclasses, mappings and lists looked into.
    """
    fields = _list_parts(value)
    if is_version(fields, DATASET_FIELDS):
        columns = list(fields.get("columns") or ())[:MOST_COLUMNS]
        yield Dataset(
            path=redact(str(fields["path"]))[:LONGEST_PATH],
            version=_to_count(fields["version"]),
            digest=redact(str(fields["digest"]))[:DIGEST_LENGTH],
            rows=_to_count(fields["rows"]),
            role=role[:500],
            columns=tuple((redact(str(name))[:500], redact(str(kind))[:100]) for name, kind in columns),
        )
    elif depth:
        for name, inner in fields.items():
            yield from find_datasets(inner, f"{role}.{name}", depth - 1)


def _list_parts(value: Any) -> Mapping[str, Any]:
    """Return what a value holds by name; of a list, its first values by number."""
    inner = look_inside(value)
    if isinstance(inner, Mapping):
        return {str(name): item for name, item in inner.items()}
    first = inner[:MOST_VERSIONS] if inner and isinstance(value, list | tuple) else ()
    return {str(at): item for at, item in enumerate(first)}


def _to_count(value: Any) -> int:
    """Return a number that every store can hold."""
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise Unreadable("a number of more than 64 bits where a version or a count of rows should be")
    return number


def find_models(value: Any, role: str, key: str, depth: int = NESTED) -> Iterator[Model]:
    """Yield the model versions in a value: what has ``name``, ``version`` and ``uri``.

    One whose tags name this attempt was made by it. Of one without such a tag, the artifact's name tells: what is
    called ``used_model`` or ``scored_by`` was used.
    """
    fields = _list_parts(value)
    if is_version(fields, MODEL_FIELDS):
        tags = fields.get("tags")
        maker = tags.get("metaflow.task") if isinstance(tags, Mapping) else None
        named_made = not re.search(r"(^|[._])(used|champion)|_by$", role)
        made = maker == key if maker else named_made
        yield Model(
            name=redact(str(fields["name"]))[:500],
            version=_to_count(fields["version"]),
            role="made" if made else "used",
            model_id=str(fields.get("model_id") or "")[:50],
            again=named_made and not made,
        )
    elif depth:
        for name, inner in fields.items():
            yield from find_models(inner, f"{role}.{name}", key, depth - 1)


def describe_verdict(value: Any) -> str:
    """Return what was decided and why, in a line: of what has ``passed``, a flag, and ``reason``, a text.

    Examples
    --------
    >>> describe_verdict({"passed": False, "reason": "accuracy 0.5 is below 0.6"})
    'not passed: accuracy 0.5 is below 0.6'
    >>> describe_verdict({"passed": 1})
    ''
    """
    inner = look_inside(value)
    if not isinstance(inner, Mapping):
        return ""
    passed, reason = inner.get("passed"), inner.get("reason")
    passed = bool(passed) if type(passed).__name__ in ("bool", "bool_") else None  # NumPy's, too
    if passed is None or not isinstance(reason, str) or not reason.strip():
        return ""
    first = redact(reason.strip().splitlines()[0])[:LONGEST_REASON]
    said = ("passed", "not ", "failed", "refused")
    return first if first.startswith(said) else f"{'passed' if passed else 'not passed'}: {first}"


# -- logs, tracebacks, cards -------------------------------------------------------------------------------------


def _read_metadata(attempt: TaskAttempt) -> Mapping[str, str]:
    """Return the metadata of the attempt's task by name."""
    return {str(entry["field_name"]): str(entry["value"]) for entry in read_metadata(attempt.pathspec)}


def _make_log(metadata: Mapping[str, str], attempt: TaskAttempt, stream: str) -> list[Document]:
    """Return the end of a log; none of a task that a Metaflow wrote which keeps logs elsewhere."""
    if "ds-type" not in metadata or "ds-root" not in metadata:
        return []
    text = read_log(
        DatastoreRoot(metadata["ds-type"], metadata["ds-root"]), attempt.pathspec, attempt.number, stream
    )
    return [Document(f"logs/{stream}.txt", redact(text[-LOG_CHARACTERS:]).encode())] if text else []


def _make_traceback(attempt: TaskAttempt, artifacts: Mapping[str, Artifact]) -> list[Document]:
    """Return the traceback of the exception that failed the attempt, or that ``@catch`` took."""
    artifact = artifacts.get("_catch_exception" if attempt.caught else "_exception")
    try:
        fields = read_fields(artifact.value()) if artifact is not None else {}
    except Unreadable:
        fields = {}
    if not fields:
        return []
    text = fields.get("stacktrace") or f"{fields.get('type')}: {fields.get('exception')}"
    return [Document("traceback.txt", redact(str(text)).encode())]


def _make_cards(found: Contents, attempt: TaskAttempt, kind: str) -> list[Document]:
    """Return the cards as pages, and the pictures on them as files."""
    cards = [card for card in _list_cards(attempt, kind) if card.hash not in attempt.cards_of_others]
    if not cards and attempt.status == "FINISHED":  # one that was killed may not have made any
        raise Unreadable("none are found beside the datastore, nor in the nearest .metaflow")
    part = Contents()
    for number, card in enumerate(sorted(cards, key=lambda card: (card.type, str(card.id), card.hash))):
        name = f"cards/{number}-{re.sub(r'[^A-Za-z0-9_.-]', '_', str(card.id or card.type))}.html"
        part.try_documents(name, lambda name=name, card=card: _make_page(part, name, card))  # type: ignore[misc]
    found.notes += part.notes
    return part.documents


def _list_cards(attempt: TaskAttempt, kind: str) -> list[Any]:
    """Return the cards beside the datastore; else those under the ``.metaflow`` nearest to the working directory.

    Metaflow reads cards from the one place and writes them to the other, which mostly are the same.
    """
    import metaflow
    from metaflow.cards import get_cards
    from metaflow.plugins.cards.card_client import CardContainer
    from metaflow.plugins.cards.card_datastore import CardDatastore
    from metaflow.plugins.cards.card_resolver import resolve_paths_from_task
    from metaflow.plugins.cards.exception import CardNotPresentException

    with suppress(CardNotPresentException):
        return list(get_cards(metaflow.Task(attempt.pathspec, attempt=attempt.number)))
    with suppress(CardNotPresentException):
        flow, root = attempt.pathspec.partition("/")[0], CardDatastore.get_storage_root(kind)
        return list(
            CardContainer(*resolve_paths_from_task(open_flow_store(kind, root, flow), pathspec=attempt.pathspec))
        )
    return []


def _make_page(part: Contents, name: str, card: Any) -> list[Document]:
    store = card._card_ds._backend
    page = redact_card(read_page(DatastoreRoot(store.TYPE, str(store.datastore_root)), card.path))
    pictures, note = find_pictures(page, f"pictures/{name.removeprefix('cards/').removesuffix('.html')}")
    part.notes += [f"{name}: {note}"] if note else []
    return [Document(name, page.encode()), *pictures]
