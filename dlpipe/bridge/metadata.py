"""Metaflow's metadata as its client's provider gives it; the bridge reads it, and never writes there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlpipe.errors import RunNotFound


def get_provider() -> Any:
    """Return Metaflow's metadata provider, as its client uses it, for every user's runs."""
    import metaflow

    metaflow.namespace(None)
    return metaflow.Metaflow().metadata


def list_objects(kind: str, below: str, *names: str) -> list[dict[str, Any]]:
    """Return what there is of kind ``below`` in one of ``kind`` that ``names`` name."""
    return [entry for entry in get_provider().get_object(kind, below, {}, None, *names) or [] if entry]


def _read_run_id(run: Mapping[str, Any]) -> str:
    return str(run.get("run_id") or run["run_number"])


def list_flows() -> list[str]:
    """Return the flows that have runs here, by name."""
    return sorted(entry["flow_id"] for entry in list_objects("root", "flow"))


def find_runs(pathspec: str = "") -> list[str]:
    """Return the pathspecs of the runs that ``FLOW`` or ``FLOW/RUN`` names, the oldest first; by default all.

    Raises
    ------
    RunNotFound
        The message says which there are.
    """
    flow, _, run = pathspec.partition("/")
    flows = list_flows()
    if flow and flow not in flows:
        known = ", ".join(flows) or "none"
        raise RunNotFound(
            f"Metaflow has no flow {flow!r} here; it has {known}. "
            "Stand in the folder that its runs were started in: `.metaflow` is there."
        )
    found = []
    for name in [flow] if flow else flows:
        runs = sorted(list_objects("flow", "run", name), key=lambda entry: int(entry["ts_epoch"]))
        found += [f"{name}/{_read_run_id(run)}" for run in runs]
    if run and pathspec not in found:
        latest = ", ".join(entry.partition("/")[2] for entry in found[:-6:-1]) or "none"
        raise RunNotFound(f"{flow} has no run {run!r}; its latest: {latest}.")
    return [pathspec] if run else found


def find_folder(flow: str) -> Path | None:
    """Return the folder of the runs of a flow; ``None`` where they are no files of this machine."""
    provider = get_provider()
    folder = provider._get_metadir(flow) if provider.TYPE == "local" else None
    return Path(folder).parent if folder else None


def list_run_ids(flow: str) -> list[str]:
    """Return the ids of the runs of a flow, in no order; where they are folders, none of them is read."""
    folder = find_folder(flow)
    if folder is None:
        return [_read_run_id(run) for run in list_objects("flow", "run", flow)]
    # one that has no record of itself yet has it in a moment, and the folder above does not change then
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name not in ("_meta", "data")]


def read_metadata(task: str) -> tuple[Mapping[str, Any], ...]:
    """Return the metadata of a task as its provider has it, the oldest first; damaged files are left out."""
    try:
        found = get_provider().get_object("task", "metadata", {}, None, *task.split("/")) or ()
    except ValueError:
        found = _read_undamaged(task)
    return tuple(sorted((entry for entry in found if entry), key=lambda entry: int(entry["ts_epoch"])))


def _read_undamaged(task: str) -> Iterator[dict[str, Any]]:
    folder = get_provider()._get_metadir(*task.split("/"))
    for path in sorted(Path(folder).glob("sysmeta_*")):
        with contextlib.suppress(ValueError, OSError):
            entry = json.loads(path.read_bytes())
            if isinstance(entry, dict) and "ts_epoch" in entry:
                yield entry
