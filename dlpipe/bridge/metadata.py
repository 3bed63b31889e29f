"""Metaflow's metadata as its client's provider gives it, and what the bridge leaves there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.durable import write_file
from dlpipe.errors import RunNotFound

if TYPE_CHECKING:
    from dlpipe.bridge.runs import Attempt

OWN_RUN, OWN_TAG = "mlflow-run-id", "mlflow_run:"
"""What the bridge writes into Metaflow: metadata of a task, and the start of a tag of a run."""
USES = f"{OWN_RUN} uses"
"""Type of the entry of a task that logs to MLflow itself."""


def provider() -> Any:
    """Return Metaflow's metadata provider, as its client uses it, for every user's runs."""
    import metaflow

    metaflow.namespace(None)
    return metaflow.Metaflow().metadata


def listed(kind: str, below: str, *names: str) -> list[dict[str, Any]]:
    """Return what there is of kind ``below`` in one of ``kind`` that ``names`` name."""
    return [one for one in provider().get_object(kind, below, {}, None, *names) or [] if one]


def _run_id(run: Mapping[str, Any]) -> str:
    return str(run.get("run_id") or run["run_number"])


def find_runs(pathspec: str = "") -> list[str]:
    """Return the pathspecs of the runs that ``FLOW`` or ``FLOW/RUN`` names, the oldest first; by default all.

    Raises
    ------
    RunNotFound
        The message says which there are.
    """
    flow, _, run = pathspec.partition("/")
    flows = sorted(one["flow_id"] for one in listed("root", "flow"))
    if flow and flow not in flows:
        known = ", ".join(flows) or "none"
        raise RunNotFound(
            f"Metaflow has no flow {flow!r} here; it has {known}. "
            "Stand in the folder with `.metaflow`, or set METAFLOW_DATASTORE_SYSROOT_LOCAL."
        )
    found = []
    for name in [flow] if flow else flows:
        runs = sorted(listed("flow", "run", name), key=lambda one: int(one["ts_epoch"]))
        found += [f"{name}/{_run_id(one)}" for one in runs]
    if run and pathspec not in found:
        latest = ", ".join(one.partition("/")[2] for one in found[:-6:-1]) or "none"
        raise RunNotFound(f"{flow} has no run {run!r}; its latest: {latest}.")
    return [pathspec] if run else found


def artifact_value(pathspec: str) -> Any:
    """Return the value of an artifact; ``None`` when there is none that can be read here."""
    import metaflow

    try:
        return metaflow.DataArtifact(pathspec).data
    except Exception:  # killed before it was written, or made of classes that are not here
        return None


def artifacts_of(pathspec: str, number: int) -> list[Any]:
    """Return the artifacts of an attempt by name, as Metaflow's client has them, without its own (``_...``)."""
    import metaflow

    names = sorted(one["name"] for one in _artifact_entries(pathspec, number))
    return [
        metaflow.DataArtifact(f"{pathspec}/{name}", attempt=number) for name in names if not name.startswith("_")
    ]


def artifact_digests(pathspec: str, number: int) -> frozenset[tuple[str, str]]:
    """Return name and SHA-1 of each artifact of an attempt."""
    return frozenset((one["name"], one["sha"]) for one in _artifact_entries(pathspec, number))


def _artifact_entries(pathspec: str, number: int) -> list[dict[str, Any]]:
    found = provider().get_object("task", "artifact", {}, number, *pathspec.split("/")) or []
    return [found] if isinstance(found, dict) else list(found)  # the local provider does not list a single one


def say_mlflow_runs(pathspec: str, run_id: str, ids: Mapping[Attempt, str], *, address: str) -> None:
    """Leave with Metaflow where its run and tasks stand in MLflow: a tag of the run, metadata of the tasks.

    What is there already is not written again. Providers other than the local one take tags only.
    """
    flow, run = pathspec.split("/")
    me = provider().get_object("run", "self", {}, None, flow, run) or {}
    tag = f"{OWN_TAG}{run_id}"
    stale = [one for one in me.get("tags", []) if one.startswith(OWN_TAG) and one != tag]
    if tag not in me.get("tags", []):
        provider().mutate_user_tags_for_run(flow, run, tags_to_add=[tag], tags_to_remove=stale)
    for attempt, own in ids.items():
        if attempt.settled:
            say_mlflow_run(attempt, own, address=address)


def say_mlflow_run(attempt: Attempt, run_id: str, *, address: str = "", uses: bool = False) -> None:
    """Leave with a task where its attempt stands in MLflow; ``uses`` says that the step logs there itself."""
    entry = _metadata_file(attempt, uses=uses)
    if entry is None or entry.exists():
        return
    flow, run, step, task = attempt.pathspec.split("/")
    said = {
        "flow_id": flow,
        "run_number": run,
        "step_name": step,
        "task_id": task,
        "field_name": OWN_RUN,
        "type": USES if uses else OWN_RUN,
        "value": json.dumps({"run_id": run_id, "address": address}) if address else run_id,
        "tags": [f"attempt_id:{attempt.number}"],
        "user_name": "mlflow_bridge",
        "ts_epoch": attempt.end or attempt.start,
    }
    write_file(entry, json.dumps(said).encode())


def _metadata_file(attempt: Attempt, *, uses: bool) -> Path | None:
    """Return the file that the local provider reads this entry from; ``None`` for another provider."""
    local = provider()
    if local.TYPE != "local":
        return None
    folder = local._get_metadir(*attempt.pathspec.split("/"))
    kind = "uses" if uses else "stands"
    return Path(folder) / f"sysmeta_{OWN_RUN}_{kind}_{attempt.number}.json" if folder else None
