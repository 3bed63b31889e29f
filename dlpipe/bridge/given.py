"""What a run was given: its parameters and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlpipe.bridge.artifacts import Artifact, read_artifact_value, read_artifacts
from dlpipe.bridge.contents import describe_error
from dlpipe.bridge.graphs import read_graph
from dlpipe.bridge.opening import Fields, IncludedFile
from dlpipe.bridge.points import find_settings
from dlpipe.bridge.records import Document
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.bridge.values import KeptValue, keep, keep_text, to_mlflow_key
from dlpipe.errors import DlpipeError
from dlpipe.redaction import is_credential


@dataclass(frozen=True)
class Given:
    """What a run was given: its parameters, the values of its configuration by name, and both as files.

    ``notes`` say what is in the files alone.
    """

    params: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    documents: tuple[Document, ...] = ()
    notes: tuple[str, ...] = ()


def read_parameters(run: MetaflowRun) -> dict[str, Any] | None:
    """Return parameters and configuration by name; ``None`` while there are none yet.

    A file given as a parameter is not copied.
    """
    task = f"{run.pathspec}/_parameters/{run.find_parameters_task()}"
    graph = read_artifact_value(f"{task}/_graph_info")
    if graph is None:
        return None
    kinds = {entry["name"]: entry["type"] for entry in read_graph(graph).get("parameters", [])}
    found = read_artifacts(task, 0)
    return {entry.name: _read_value(entry, kinds.get(entry.name, "")) for entry in found if entry.name != "name"}


def _read_value(artifact: Artifact, kind: str) -> Any:
    try:
        value = artifact.value()
    except Exception as error:
        if isinstance(error, DlpipeError):
            raise
        return f"<{describe_error(error)}>"
    if isinstance(value, IncludedFile) or kind in ("IncludeFile", "FilePathClass"):
        size = value.size if isinstance(value, IncludedFile) else None
        return "<file>" if size is None else f"<file of {size:,} bytes>"
    return value


def make_given(values: Mapping[str, Any]) -> Given:
    """Return what ``read_parameters`` has read as MLflow holds it; what nobody has set is left out."""
    params: dict[str, str] = {}
    config: dict[str, str] = {}
    documents: list[Document] = []
    notes: list[str] = []
    for name, value in sorted(values.items()):
        if value is None:  # nobody has set it
            continue
        try:
            nested = isinstance(value, Mapping | list | tuple | Fields)
            kept = keep(name, value, folder="parameters") if nested else _to_text(name, value)
        except Exception as error:
            kept = _to_text(name, f"<{describe_error(error)}>")
        if nested:
            inside, more = find_settings(name, value)
            config |= inside
            notes += more
        if kept.param is not None:
            params[to_mlflow_key(name)] = str(kept.param)
        documents += kept.documents
    return Given(params, config, tuple(documents), tuple(notes))


def _to_text(name: str, value: Any) -> KeptValue:
    if isinstance(value, int | float) and not is_credential(name, value):
        return KeptValue(param=str(value))
    return keep_text(name, str(value), folder="parameters")
