"""Make MLflow hold what happened, compare the two, and say which runs are behind."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.bridge.following import Following, SyncResult
from dlpipe.bridge.records import Difference
from dlpipe.errors import (
    DlpipeError,
    MirrorIncomplete,
    RunNotFound,
    SettingError,
    StorageUnavailable,
    TrackingUnavailable,
)

if TYPE_CHECKING:
    from dlpipe.tracking import TrackingStore


@dataclass(frozen=True)
class RunBehind:
    """A run that MLflow may lack something of; ``since`` is in milliseconds since 1970."""

    run: str
    since: int
    reason: str


def sync(
    pathspec: str = "",
    *,
    store: TrackingStore | None = None,
    restore: bool = False,
    on_run: Callable[[SyncResult], None] | None = None,
) -> list[SyncResult]:
    """Make MLflow hold what happened in ``FLOW/RUN``, in all runs of ``FLOW``, or in all runs of all flows.

    What it holds already is not written again, what people added stays, and runs that they deleted stay deleted.
    The files of one run are read; of many, their names and sizes are looked at.

    Parameters
    ----------
    store : TrackingStore, optional
        By default the one that the environment names.
    restore : bool, optional
        Bring back the runs that somebody has deleted in MLflow.
    on_run : callable, optional
        Called after each run, for progress.

    Raises
    ------
    RunNotFound
        When Metaflow has no such flow or run here.
    TrackingUnavailable
        When MLflow does not answer.
    MirrorIncomplete
        When a run cannot be read, after all others were written.
    """
    from dlpipe.bridge.marks import find_marks
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.tracking import open_store

    if not (runs := find_runs(pathspec)):
        return []
    store = store or open_store(create=True)
    done: list[SyncResult] = []
    failed: list[str] = []
    for run in runs:
        try:
            done.append(Following(run, store).sync(restore=restore, contents="/" in pathspec))
        except (StorageUnavailable, SettingError) as error:
            find_marks(run).set_behind(format_error(error))
            raise
        except Exception as error:  # a deleted experiment, say: the other runs can still be written
            if isinstance(error, TrackingUnavailable) and not _can_open_store():
                find_marks(run).set_behind(format_error(error))
                raise
            find_marks(run).set_behind(format_error(error))
            failed.append(f"{run}: {format_error(error)}")
            continue
        if on_run:
            on_run(done[-1])
    if failed and len(runs) == 1:
        raise MirrorIncomplete(f"{failed[0]}.")
    if failed:
        raise MirrorIncomplete(f"{len(failed)} of {len(runs)} runs could not be mirrored; {failed[0]}.")
    return done


def _can_open_store() -> bool:
    """Return whether the store that the environment names can be used: what went wrong then concerns one run."""
    from dlpipe.tracking import open_store

    with suppress(DlpipeError):
        return bool(open_store())
    return False


def check(
    pathspec: str, *, store: TrackingStore | None = None, on_deleted: Callable[[str], None] | None = None
) -> list[Difference]:
    """Return every way in which MLflow differs from what happened in ``FLOW`` or ``FLOW/RUN``.

    A run that cannot be read is a difference; a record that somebody has deleted in MLflow is none.

    Parameters
    ----------
    pathspec : str
        A flow or a run.
    store : TrackingStore, optional
        By default the one that the environment names.
    on_deleted : callable, optional
        Called with the key of each record that somebody has deleted.
    """
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.tracking import open_store

    runs = find_runs(pathspec)
    store = store or open_store()
    return [difference for run in runs for difference in _find_differences(Following(run, store), on_deleted)]


def _find_differences(following: Following, on_deleted: Callable[[str], None] | None) -> Iterator[Difference]:
    try:
        yield from following.find_differences(on_deleted)
    except Exception as error:  # a damaged datastore, say
        if isinstance(error, DlpipeError) and not isinstance(error, MirrorIncomplete):
            raise
        yield Difference(following.pathspec, "run", "read", f"what it may: {format_error(error)}")


def status() -> list[RunBehind]:
    """Return the runs that MLflow may lack something of, the oldest first."""
    from dlpipe.bridge.marks import list_behind

    notes = [(mark.pathspec, mark.behind() or {}) for mark in list_behind()]
    return [RunBehind(run, int(note.get("since", 0)), str(note.get("reason", ""))) for run, note in notes]


def where(pathspec: str) -> dict[str, Any]:
    """Return where ``FLOW/RUN`` stands in MLflow: ``run_id``, ``experiment_id``, ``address`` and ``attempts``.

    ``attempts`` has the ids of their runs by key. It is empty while nothing of the run has been written from here.
    """
    from dlpipe.bridge.marks import find_marks
    from dlpipe.bridge.metadata import find_runs

    flow, _, number = pathspec.partition("/")
    if not flow or not number:
        raise RunNotFound(
            f"{pathspec!r} is no run. Give FLOW/RUN, such as {flow or 'TrainFlow'}/1795494849196362."
        )
    (run,) = find_runs(pathspec)
    return find_marks(run).where()


def watch(
    *,
    interval: float,
    on_run: Callable[[SyncResult], None],
    on_error: Callable[[str], None],
    rounds: int | None = None,
) -> None:
    """Follow all runs of all flows until interrupted; those that have ended are looked at once.

    Parameters
    ----------
    interval : float
        Seconds between two looks.
    on_run, on_error : callable
        Called with each run that was written, and with each new reason why MLflow is behind.
    rounds : int, optional
        End after this many looks.
    """
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.tracking import open_store

    open_runs: dict[str, Following] = {}
    ended: set[str] = set()
    errors: dict[str, str] = {}
    for look in itertools.count(1):
        try:
            runs = [pathspec for pathspec in find_runs() if pathspec not in ended]
            store = open_store(create=bool(runs))
            for run in runs:
                following = open_runs.setdefault(run, Following(run, store))
                if (done := _try_step(following, errors, on_error)) is None:
                    continue
                if done.written:
                    on_run(done)
                if done.status != "RUNNING":
                    ended.add(run)
                    del open_runs[run]
            errors.pop("", None)
        except DlpipeError as error:
            _say_once(errors, "", format_error(error), on_error)
        if look == rounds:
            return
        time.sleep(interval)


def _try_step(following: Following, errors: dict[str, str], on_error: Callable[[str], None]) -> SyncResult | None:
    """Return what a step did; ``None`` when the run cannot be read, which is said once and tried again."""
    try:
        done = following.step()
    except (StorageUnavailable, SettingError):
        raise
    except Exception as error:
        if isinstance(error, TrackingUnavailable) and not _can_open_store():
            raise
        _say_once(errors, following.pathspec, f"{following.pathspec}: {format_error(error)}", on_error)
        return None
    errors.pop(following.pathspec, None)
    return done


def _say_once(errors: dict[str, str], where: str, line: str, on_error: Callable[[str], None]) -> None:
    if errors.get(where) != line:
        errors[where] = line
        on_error(line)


def format_error(error: Exception) -> str:
    """Return an error in one line."""
    text = str(error) if isinstance(error, DlpipeError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0].rstrip(".")
