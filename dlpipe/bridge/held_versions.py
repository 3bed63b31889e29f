"""Versions of tables and models in the artifacts of a run: those that ``read_outcome`` finds, and some more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlpipe.bridge.artifacts import Artifact, read_artifacts
from dlpipe.bridge.contents import find_datasets, find_models
from dlpipe.bridge.metadata import find_folder, list_flows
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.errors import DlpipeError

Held = tuple[str, int]
"""The place of a table or the URI of a model without its version, and the version."""


class HeldVersions:
    """Looks into artifacts, into each content once: most runs pass on what others had.

    Only runs whose records are files of this machine are looked into: elsewhere each artifact is a question to a
    server.
    """

    def __init__(self) -> None:
        self._known: dict[str, frozenset[Held]] = {}

    def list_flows(self) -> list[str]:
        """Return the flows whose runs can be looked into."""
        return [flow for flow in list_flows() if find_folder(flow) is not None]

    def read(self, flow: str, run: str) -> set[Held] | None:
        """Return the versions that a run held, those among them that it made; ``None`` while it may hold more."""
        folder = find_folder(flow)
        if folder is None or not _has_ended(folder / run, f"{flow}/{run}"):
            return None
        found: set[Held] = set()
        for task in sorted((folder / run).glob("*/*/_meta")):
            pathspec = f"{flow}/{'/'.join(task.parent.parts[-3:])}"
            for number in {name.partition("_")[0] for name in _list_names(task)}:
                for artifact in read_artifacts(pathspec, int(number)):
                    found |= self._look_into(artifact)
        return found

    def _look_into(self, artifact: Artifact) -> frozenset[Held]:
        # a name tells whether a model was used or made, and here both count
        if artifact.sha not in self._known:
            self._known[artifact.sha] = frozenset(_list_held(artifact))
        return self._known[artifact.sha]


def _list_names(folder: Path) -> list[str]:
    """Return the files of the records of a task's artifacts but Metaflow's own."""
    return [file.name for file in folder.glob("[0-9]*_artifact_[!_]*.json")]


def _has_ended(folder: Path, pathspec: str) -> bool:
    if next(folder.glob("end/*/_meta/sysmeta_attempt-done_*.json"), None):
        return True
    try:
        return not MetaflowRun(pathspec).read().alive
    except (DlpipeError, ValueError):  # it has only just begun, or its records are damaged and may be restored
        return False


def _list_held(artifact: Artifact) -> Iterator[Held]:
    try:
        value = artifact.value()
        for dataset in find_datasets(value, artifact.name):
            yield dataset.path.rstrip("/"), dataset.version
        for model in find_models(value, artifact.name, ""):
            yield f"models:/{model.name}", model.version
    except Exception:  # what cannot be opened or is damaged is not read by ``read_outcome`` either
        return
