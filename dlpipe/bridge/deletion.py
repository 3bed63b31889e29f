"""Delete a run: what Metaflow has of it in the folder here and on S3, and its runs in MLflow.

MLflow first, whose deleted runs can be restored. Then the run's folder is moved in one step, its files on S3 are
deleted, and what was moved is removed: a kill leaves the run or none. Called again, it deletes the rest. What
artifacts hold stays: Metaflow has equal contents of all runs of a flow once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dlpipe.bridge.datastore import check_deletes_runs, delete_remote_files
from dlpipe.bridge.marks import find_marks, find_state_root
from dlpipe.bridge.metadata import find_runs
from dlpipe.bridge.reading import RunReading, name_experiment
from dlpipe.bridge.runs import MetaflowRun
from dlpipe.durable import make_folder, sync_folder
from dlpipe.errors import DlpipeError, RunActive, RunNotFound, StoreNotFound

DELETED, LATEST = ".deleted", "latest_run"
FOLDERS = ("{flow}/{run}", "mf.cards/{flow}/runs/{run}", "mf.checkpoints/checkpoints/metadata/{flow}/{run}")
"""Where Metaflow has a run: the run itself first, since the others are nothing without it."""


@dataclass(frozen=True)
class DeletedRun:
    """What was deleted: a run, and how many runs in MLflow."""

    run: str
    mlflow_runs: int = 0


def find_deletable(pathspec: str) -> str:
    """Return the pathspec of the run that ``FLOW/RUN``, or the number alone, names.

    Raises
    ------
    RunNotFound
        When there is none, nor anything that a killed deletion of it left.
    RunActive
        When it is running.
    StorageUnavailable
        When Metaflow has runs where dlpipe deletes none, see ``check_deletes_runs``.
    """
    check_deletes_runs()
    flow, _, run = pathspec.strip("/").rpartition("/")
    if not flow:
        found = [name for name in (*find_runs(), *_list_left()) if name.partition("/")[2] == run]
        if not found and run in {name.partition("/")[0] for name in find_runs()}:
            raise RunNotFound(f"{run!r} is a flow. Name a run of it, such as {find_runs(run)[-1]}.")
        if not found:
            raise RunNotFound(f"Metaflow has no run {run!r} here; `dlpipe runs --local` lists them.")
        flow = found[0].partition("/")[0]
    pathspec = f"{flow}/{run}"
    if pathspec in _list_left():
        return pathspec
    (pathspec,) = find_runs(pathspec)
    if is_active(pathspec):
        raise RunActive(f"{pathspec} is running. End it first, or wait until it has ended.")
    return pathspec


def is_active(pathspec: str) -> bool:
    """Return whether a run goes on, or somebody launches it."""
    run = MetaflowRun(pathspec)
    return run.marks.launcher() == "lives" or run.read().status == "RUNNING"


def list_made_models(pathspec: str) -> list[str]:
    """Return the URIs of the model versions that a run made, as what it left says: also of deleted ones.

    A run that cannot be read, such as one that is half deleted, names none.
    """
    try:
        reading = RunReading(pathspec)
        models = reading.make_run_record(reading.read_snapshot()).models
    except (DlpipeError, OSError, ValueError, LookupError):
        return []
    return [str(model) for model in models if model.role == "made"]


def delete_run(pathspec: str) -> DeletedRun:
    """Delete a run of this folder, and its runs in MLflow; called again after a kill, it deletes the rest.

    Parameters
    ----------
    pathspec : str
        As ``find_deletable`` returns it.
    """
    root = find_state_root()
    flow, _, run = pathspec.partition("/")
    places = [root / folder.format(flow=flow, run=run) for folder in FOLDERS]
    deleted = _delete_mirror(pathspec) if places[0].is_dir() else 0
    _forget_latest(root / flow / LATEST, run)
    trash = root / DELETED / flow / run
    make_folder(trash)
    for number, place in enumerate(places):
        if place.is_dir():
            os.rename(place, _find_free(trash, number))
            sync_folder(place.parent)
    delete_remote_files(folder.format(flow=flow, run=run) for folder in FOLDERS)
    shutil.rmtree(trash)
    with suppress(OSError):  # there is more of other runs
        trash.parent.rmdir()
        trash.parent.parent.rmdir()
    return DeletedRun(pathspec, deleted)


def _forget_latest(file: Path, run: str) -> None:
    """Take a run out of where Metaflow notes which one ``resume`` means without a number."""
    with suppress(FileNotFoundError):
        if file.read_text().strip() == run:
            file.unlink()


def _find_free(trash: Path, number: int) -> Path:
    """Return a name in the folder of what is deleted: a killed deletion may have left one there."""
    return next(place for at in range(1000) if not (place := trash / f"{number}-{at}").exists())


def _delete_mirror(pathspec: str) -> int:
    from dlpipe.bridge.apply import Mirror
    from dlpipe.tracking import open_store, tracking_errors

    try:
        store = open_store()
    except StoreNotFound:
        return 0
    snapshot = MetaflowRun(pathspec).read()
    with tracking_errors(store):
        client = store.client()
        experiment = client.get_experiment_by_name(
            name_experiment(snapshot.system_tags, pathspec.partition("/")[0])
        )
        if experiment is None:
            return 0
        with find_marks(pathspec).mirror_lock():
            mirror = Mirror(client, experiment.experiment_id, pathspec)
            mirror.refresh()
            return mirror.delete()


def _list_left() -> list[str]:
    """Return the runs of which a killed deletion left something."""
    return sorted(_find_left(find_state_root()))


def _find_left(root: Path) -> Iterator[str]:
    for place in (root / DELETED).glob("*/*"):
        flow, run = place.parts[-2:]
        if not (root / flow / run).is_dir():
            yield f"{flow}/{run}"
