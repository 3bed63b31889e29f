"""What an attempt left behind: artifacts, datasets, models, logs, cards, and the traceback of its failure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlpipe.bridge.metadata import artifacts_of
from dlpipe.bridge.records import Dataset, Document, Metric, Model
from dlpipe.bridge.runs import Attempt
from dlpipe.bridge.values import keep, mlflow_key
from dlpipe.redaction import know, looks_secret, redact, redact_card, redact_value, secrets_in

ARTIFACT_BYTES = 16 * 2**20
LOG_CHARACTERS = 64_000
DIGEST_LENGTH = 36  # MLflow's limit for datasets
NESTED = 3


@dataclass
class Contents:
    """What is kept of one attempt."""

    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    datasets: list[Dataset] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)


def read_contents(
    attempt: Attempt, passed_on: frozenset[tuple[str, str]], *, secrets: Collection[str] = ()
) -> Contents:
    """Return what an attempt left behind.

    Parameters
    ----------
    attempt : Attempt
        One that is settled.
    passed_on : frozenset of (str, str)
        Name and SHA-1 of what the run's parameters are, and of what the tasks before it held.
    secrets : collection of str, optional
        Values that are hidden wherever they stand.
    """
    import metaflow

    found = Contents()
    task = metaflow.Task(attempt.pathspec, attempt=attempt.number)
    index: dict[str, Any] = {}
    artifacts = artifacts_of(attempt.pathspec, attempt.number)
    know([*secrets, *(one for artifact in artifacts for one in _secrets(artifact))])
    for artifact in artifacts:
        if (artifact.id, artifact.sha) not in passed_on:
            index[artifact.id] = _add(found, attempt, artifact)
    if index:
        found.documents.append(Document("artifacts.json", json.dumps(index, indent=1).encode()))
    found.documents += [*_logs(task), *_traceback(task), *(_cards(task) if attempt.has_cards else ())]
    found.datasets = list(dict.fromkeys(found.datasets))
    found.models = list(dict.fromkeys(found.models))
    return found


def _secrets(artifact: Any) -> Iterator[str]:
    if looks_secret(artifact.id) and artifact.size <= ARTIFACT_BYTES:
        try:
            yield from secrets_in(artifact.data, artifact.id)
        except Exception:  # it cannot be unpickled here, and so is not shown either
            return


def _add(found: Contents, attempt: Attempt, artifact: Any) -> dict[str, Any]:
    """Put one artifact where its type says, and return its entry in the index."""
    name = artifact.id
    entry: dict[str, Any] = {"pathspec": artifact.pathspec, "size": artifact.size}
    if not looks_secret(name):  # a short secret can be found by its digest
        entry["sha1"] = artifact.sha
    if artifact.size > ARTIFACT_BYTES:
        return {**entry, "kept": "reference", "why": f"larger than {ARTIFACT_BYTES:,} bytes"}
    try:
        value = artifact.data
    except Exception as error:
        return {**entry, "kept": "reference", "why": f"cannot be unpickled here: {type(error).__name__}"}
    try:
        kept = keep(name, value)
    except Exception as error:  # a class of the user's whose own methods fail
        return {**entry, "kept": "reference", "why": f"cannot be shown: {type(error).__name__}"}
    if kept.metric is not None:
        found.metrics.append(Metric(mlflow_key(name), kept.metric, attempt.end or attempt.start))
    if kept.param is not None:
        found.params[mlflow_key(name)] = redact_value(name, kept.param)
    found.documents += kept.documents
    found.datasets += _datasets(value, name)
    found.models += _models(value, name, attempt.key)
    return {**entry, "type": _type_name(value), "kept": kept.kind}


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of a dataclass that are there; none of anything else."""
    return {name: getattr(value, name, None) for name in getattr(type(value), "__dataclass_fields__", {})}


def _datasets(value: Any, role: str, depth: int = NESTED) -> Iterator[Dataset]:
    """Yield the table versions in a value: dataclasses with ``path``, ``version``, ``digest`` and ``rows``."""
    fields = _fields(value)
    if {"path", "version", "digest", "rows"} <= set(fields):
        yield Dataset(
            path=redact(str(fields["path"])),
            version=int(fields["version"]),
            digest=str(fields["digest"])[:DIGEST_LENGTH],
            rows=int(fields["rows"]),
            role=role,
            columns=tuple((str(name), str(kind)) for name, kind in fields.get("columns") or ()),
        )
    elif depth:
        for name, inner in fields.items():
            yield from _datasets(inner, f"{role}.{name}", depth - 1)


def _models(value: Any, role: str, key: str, depth: int = NESTED) -> Iterator[Model]:
    """Yield the model versions in a value: dataclasses with ``name``, ``version`` and ``uri``.

    One whose tags name this attempt was made by it. Of one without such a tag, the artifact's name tells: what is
    called ``used_model`` or ``scored_by`` was used.
    """
    fields = _fields(value)
    if {"name", "version", "uri"} <= set(fields):
        maker = dict(fields.get("tags") or {}).get("metaflow.task")
        made = maker == key if maker else not re.search(r"(^|[._])(used|champion)|_by$", role)
        yield Model(str(fields["name"]), int(fields["version"]), "made" if made else "used")
    elif depth:
        for name, inner in fields.items():
            yield from _models(inner, f"{role}.{name}", key, depth - 1)


def _logs(task: Any) -> Iterator[Document]:
    for stream in ("stdout", "stderr"):
        try:
            # a task without a log gives one empty text
            lines = [line for _, line in task.loglines(stream, as_unicode=False) if isinstance(line, bytes)]
        except Exception:  # written by a Metaflow that keeps logs elsewhere
            continue
        text = b"".join(line + b"\n" for line in lines).decode("utf-8", "backslashreplace")
        if text:
            yield Document(f"logs/{stream}.txt", redact(text[-LOG_CHARACTERS:]).encode())


def _traceback(task: Any) -> Iterator[Document]:
    try:
        error = task["_exception"].data
    except Exception:  # none, or of a class that is not here
        return
    if error is not None:
        text = getattr(error, "stacktrace", None) or str(error)
        yield Document("traceback.txt", redact(text).encode())


def _cards(task: Any) -> Iterator[Document]:
    """Yield the cards as pages. Metaflow looks under the ``.metaflow`` nearest to the working directory."""
    from metaflow.cards import get_cards

    try:
        cards = list(get_cards(task))
        for number, card in enumerate(sorted(cards, key=lambda one: (one.type, str(one.id), one.hash))):
            name = re.sub(r"[^\w.-]", "_", str(card.id or card.type))
            yield Document(f"cards/{number}-{name}.html", redact_card(card.get()).encode())
    except Exception:
        return
