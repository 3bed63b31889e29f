"""The artifacts of an attempt as Metaflow keeps them: read within limits, and opened without running them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlpipe.bridge.datastore import ARTIFACT_BYTES, Unreadable, find_place, read_blob, read_sizes
from dlpipe.bridge.metadata import get_provider
from dlpipe.bridge.opening import Unopened, open_pickle
from dlpipe.errors import DlpipeError

PICKLES = ("pickle-v2", "pickle-v4", "gzip+pickle-v2", "gzip+pickle-v4")


@dataclass(frozen=True)
class Artifact:
    """An artifact of an attempt, not read yet.

    Attributes
    ----------
    sha : str
        SHA-1 of its pickle.
    size : int or None
        Of the pickle in bytes; ``None`` when the datastore does not say.
    """

    pathspec: str
    name: str
    sha: str
    kind: str
    location: str
    encoding: str
    size: int | None = None

    def value(self) -> Any:
        """Return its value, of which no code runs that no setting names.

        Raises
        ------
        Unreadable
            When it cannot be read or opened; the message says why, the same at each reading.
        StorageUnavailable
            When the datastore does not answer.
        """
        if self.size is not None and self.size > ARTIFACT_BYTES:
            raise Unreadable(f"larger than {ARTIFACT_BYTES:,} bytes")
        if self.encoding not in PICKLES:
            raise Unreadable(f"kept as {self.encoding!r}, which is no pickle")
        flow = self.pathspec.partition("/")[0]
        return open_value(read_blob(find_place(self.kind, self.location, flow), flow, self.sha))


def open_value(data: bytes) -> Any:
    """Return the value in a pickle; raise ``Unreadable`` for a damaged one, or one of an unknown class."""
    try:
        value = open_pickle(data)
    except Exception as error:  # a damaged pickle, or a class that the setting names and that fails
        raise Unreadable(f"cannot be unpickled here: {type(error).__name__}") from None
    if isinstance(value, Unopened):
        raise Unreadable(f"{value.name} is not opened")
    return value


def read_artifacts(pathspec: str, number: int) -> list[Artifact]:
    """Return the artifacts of an attempt by name, without Metaflow's own (``_...``)."""
    return [artifact for artifact in read_all_artifacts(pathspec, number) if not artifact.name.startswith("_")]


def read_all_artifacts(pathspec: str, number: int) -> list[Artifact]:
    """Return all artifacts of an attempt by name, Metaflow's own among them."""
    found = [_make_artifact(pathspec, entry) for entry in _read_entries(pathspec, number)]
    sizes: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    made = []
    for artifact in sorted(found, key=lambda artifact: artifact.name):
        if artifact.location not in sizes:
            sizes[artifact.location] = _read_sizes(artifact, pathspec, number)
        size = sizes[artifact.location].get(artifact.name, {}).get("size")
        made.append(replace(artifact, size=size if isinstance(size, int) else None))
    return made


def _read_sizes(artifact: Artifact, pathspec: str, number: int) -> Mapping[str, Mapping[str, Any]]:
    try:
        return read_sizes(
            find_place(artifact.kind, artifact.location, pathspec.partition("/")[0]), pathspec, number
        )
    except Unreadable:
        return {}


def read_artifact_digests(pathspec: str, number: int) -> frozenset[tuple[str, str]]:
    """Return name and SHA-1 of each artifact of an attempt."""
    return frozenset((str(entry["name"]), str(entry["sha"])) for entry in _read_entries(pathspec, number))


def read_artifact_value(pathspec: str, number: int | None = None) -> Any:
    """Return the value of an artifact of an attempt, by default the last; ``None`` when none can be read."""
    task = pathspec.rpartition("/")[0]
    try:
        entries = _check_entries(get_provider().get_object("artifact", "self", {}, number, *pathspec.split("/")))
        return _make_artifact(task, entries[0]).value() if entries else None
    except DlpipeError:
        raise
    except Exception:  # killed before it was written, damaged, or made of classes that are not opened
        return None


def _make_artifact(pathspec: str, entry: Mapping[str, Any]) -> Artifact:
    name = str(entry["name"])
    return Artifact(
        pathspec=f"{pathspec}/{name}",
        name=name,
        sha=str(entry["sha"]),
        kind=str(entry["ds_type"]),
        location=str(entry["location"]),
        encoding=str(entry["content_type"]),
    )


def _read_entries(pathspec: str, number: int) -> list[Mapping[str, Any]]:
    return _check_entries(get_provider().get_object("task", "artifact", {}, number, *pathspec.split("/")))


def _check_entries(found: Any) -> list[Mapping[str, Any]]:
    return (
        [found] if isinstance(found, dict) else list(found or ())
    )  # the local provider does not list a single one
