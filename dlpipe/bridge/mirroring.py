"""Make MLflow hold what happened, compare the two, and say which runs are behind."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dlpipe.bridge.records import Difference
from dlpipe.errors import DlpipeError, MirrorIncomplete

if TYPE_CHECKING:
    from dlpipe.bridge.apply import Mirror
    from dlpipe.bridge.reading import RunReading
    from dlpipe.bridge.records import RunRecord, Status
    from dlpipe.bridge.runs import Snapshot
    from dlpipe.tracking import TrackingStore

PARENT_SECONDS = 30.0
"""How often the description of a run that goes on is written anew."""


@dataclass(frozen=True)
class Synced:
    """What ``sync`` did for one Metaflow run: ``written`` differences over ``records`` records."""

    run: str
    experiment: str
    run_id: str
    status: str
    records: int
    written: int


@dataclass(frozen=True)
class Behind:
    """A run that MLflow may lack something of; ``since`` is in milliseconds since 1970."""

    run: str
    since: int
    reason: str


def sync(
    pathspec: str = "", *, store: TrackingStore | None = None, on_run: Callable[[Synced], None] | None = None
) -> list[Synced]:
    """Make MLflow hold what happened in ``FLOW/RUN``, in all runs of ``FLOW``, or in all runs of all flows.

    What it holds already is not written again, and what people added stays.

    Parameters
    ----------
    store : TrackingStore, optional
        By default the one that the environment names.
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
    from dlpipe.bridge.marks import mark_of
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.tracking import open_store

    runs = find_runs(pathspec)
    store = store or open_store()
    done: list[Synced] = []
    failed: list[str] = []
    for run in runs:
        try:
            done.append(Following(run, store).sync())
        except DlpipeError as error:
            mark_of(run).set_behind(said(error))
            raise
        except Exception as error:  # a damaged datastore, say: the other runs can still be written
            mark_of(run).set_behind(said(error))
            failed.append(f"{run}: {said(error)}")
            continue
        if on_run:
            on_run(done[-1])
    if failed:
        raise MirrorIncomplete(f"{len(failed)} of {len(runs)} runs could not be mirrored; {failed[0]}.")
    return done


def check(pathspec: str, *, store: TrackingStore | None = None) -> list[Difference]:
    """Return every way in which MLflow differs from what happened in ``FLOW`` or ``FLOW/RUN``."""
    from dlpipe.bridge.metadata import find_runs
    from dlpipe.tracking import open_store

    runs = find_runs(pathspec)
    store = store or open_store()
    return [one for run in runs for one in Following(run, store).differences()]


def status() -> list[Behind]:
    """Return the runs that MLflow may lack something of, the oldest first."""
    from dlpipe.bridge.marks import runs_behind

    said = [(mark.pathspec, mark.behind() or {}) for mark in runs_behind()]
    return [Behind(run, int(one.get("since", 0)), str(one.get("reason", ""))) for run, one in said]


def watch(
    *,
    interval: float,
    on_run: Callable[[Synced], None],
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
            store = open_store()
            for run in [one for one in find_runs() if one not in ended]:
                following = open_runs.setdefault(run, Following(run, store))
                if (done := _stepped(following, errors, on_error)) is None:
                    continue
                if done.written:
                    on_run(done)
                if done.status != "RUNNING":
                    ended.add(run)
                    del open_runs[run]
            errors.pop("", None)
        except DlpipeError as error:
            _say_once(errors, "", said(error), on_error)
        if look == rounds:
            return
        time.sleep(interval)


def _stepped(following: Following, errors: dict[str, str], on_error: Callable[[str], None]) -> Synced | None:
    """Return what a step did; ``None`` when the run cannot be read, which is said once and tried again."""
    try:
        done = following.step()
    except DlpipeError:
        raise
    except Exception as error:
        _say_once(errors, following.pathspec, f"{following.pathspec}: {said(error)}", on_error)
        return None
    errors.pop(following.pathspec, None)
    return done


def _say_once(errors: dict[str, str], where: str, line: str, on_error: Callable[[str], None]) -> None:
    if errors.get(where) != line:
        errors[where] = line
        on_error(line)


def said(error: Exception) -> str:
    """Return an error in one line."""
    text = str(error) if isinstance(error, DlpipeError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0].rstrip(".")


@dataclass
class Following:
    """A run on its way into MLflow; what has been written whole is not looked at again by ``step``."""

    pathspec: str
    store: TrackingStore
    experiment: str = ""
    _reading: RunReading | None = None
    _mirror: Mirror | None = None
    _final: dict[str, tuple[Status, int | None]] = field(default_factory=dict)
    _written: dict[str, str] = field(default_factory=dict)
    _read_again: bool = False
    _parent_written: float = -math.inf
    _writer: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def reading(self) -> RunReading:
        """What Metaflow says."""
        from dlpipe.bridge.reading import RunReading

        self._reading = self._reading or RunReading(self.pathspec)
        return self._reading

    @property
    def run_id(self) -> str | None:
        """Id of the parent run in MLflow."""
        return self._mirror.run_id(self.pathspec) if self._mirror else None

    @property
    def experiment_id(self) -> str:
        """Id of the experiment in MLflow."""
        return self._mirror.experiment_id if self._mirror else ""

    def step(self, *, launcher_gone: bool = False, closed: str = "") -> Synced:
        """Write what has changed since the last step. Where nothing has, MLflow is not asked.

        The arguments are those of ``MetaflowRun.read``.
        """
        snapshot = self.reading.snapshot(launcher_gone=launcher_gone, closed=closed)
        try:
            written = self._write_changes(snapshot)
        except BaseException:
            self._mirror = None  # what is known of MLflow may be wrong
            raise
        if snapshot.status != "RUNNING":
            if not self._read_again:  # from the start, so that nothing that was taken for settled is missed
                self._read_again, self._reading = True, None
                again = self.step(launcher_gone=launcher_gone, closed=closed)
                return replace(again, written=written + again.written)
            self.reading.run.mark.set_complete()
        return self._synced(snapshot, len(self.reading.keys(snapshot)), written)

    def _write_changes(self, snapshot: Snapshot) -> int:
        """Write the records that are new or have changed since the last step, and return how much differed."""
        from dlpipe.tracking import tracking_errors

        written = 0
        with ExitStack() as opened:
            mirror: Mirror | None = None
            for record in self.reading.records(snapshot, skip=self._final):
                if self._written.get(record.key) == record.digest or self._can_wait(record):
                    continue
                if mirror is None:
                    opened.enter_context(self.reading.run.mark.mirror_lock())
                    opened.enter_context(tracking_errors(self.store))
                    mirror = self._opened(snapshot)
                    mirror.ensure(self.reading.run_record(snapshot, begun=True))
                written += len(mirror.write(record, thorough=False))
                self._written[record.key] = record.digest
                if record.status != "RUNNING" and record.parent is not None:
                    self._final[record.key] = (record.status, record.end)
            if mirror is not None:
                mirror.remove_surplus(self.reading.keys(snapshot))
                self._say_where(snapshot)
        return written

    def _can_wait(self, record: RunRecord) -> bool:
        """Return whether this is the run itself, which changes with each task, and was written just now."""
        if record.parent is not None or record.status != "RUNNING":
            return False
        if time.monotonic() - self._parent_written < PARENT_SECONDS:
            return True
        self._parent_written = time.monotonic()
        return False

    def sync(self) -> Synced:
        """Write all that is missing; files are looked for one by one."""
        from dlpipe.tracking import tracking_errors

        with self.reading.run.mark.mirror_lock(), tracking_errors(self.store):
            snapshot = self.reading.snapshot()
            mirror = self._opened(snapshot)
            mirror.ensure(self.reading.run_record(snapshot, begun=True))
            written = sum(len(mirror.write(record)) for record in self.reading.records(snapshot))
            keys = self.reading.keys(snapshot)
            written += mirror.remove_surplus(keys)
            self._say_where(snapshot)
        if snapshot.status != "RUNNING":
            self.reading.run.mark.set_complete()
        return self._synced(snapshot, len(keys), written)

    def differences(self) -> Iterator[Difference]:
        """Yield every way in which MLflow differs from what happened."""
        from dlpipe.tracking import tracking_errors

        with self.reading.run.mark.mirror_lock(), tracking_errors(self.store):
            snapshot = self.reading.snapshot()
            mirror = self._opened(snapshot)
            for record in self.reading.records(snapshot):
                yield from mirror.compare(record)
            yield from mirror.surplus(self.reading.keys(snapshot))

    def _opened(self, snapshot: Snapshot) -> Mirror:
        from dlpipe.bridge.apply import Mirror
        from dlpipe.bridge.reading import experiment_name

        if self._mirror is None:
            self.experiment = experiment_name(snapshot.system_tags, self.reading.run.flow)
            self._mirror = Mirror(self.store.client(), self.store.experiment(self.experiment), self.pathspec)
            self._writer = uuid.uuid4().hex
        if self.reading.run.mark.taken_over(self._writer):
            self._mirror.refresh()
        return self._mirror

    def _say_where(self, snapshot: Snapshot) -> None:
        """Leave the ids of the MLflow runs with Metaflow's run and tasks, once each."""
        from dlpipe.bridge.metadata import say_mlflow_runs

        assert self._mirror is not None
        ids = {one: run_id for one in snapshot.attempts if (run_id := self._mirror.run_id(one.key))}
        with suppress(Exception):  # a datastore that may only be read: the mirror is whole all the same
            say_mlflow_runs(self.pathspec, str(self.run_id), ids, address=self.address())

    def _synced(self, snapshot: Snapshot, records: int, written: int) -> Synced:
        return Synced(self.pathspec, self.experiment, self.run_id or "", snapshot.status, records, written)

    def address(self) -> str:
        """Return the address of the parent run's page; empty where no server stands before the store."""
        from dlpipe.redaction import show_address

        if not self.store.is_server or self.run_id is None:
            return ""
        return f"{show_address(self.store.uri).rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def where(self) -> str:
        """Return the line that says where the run stands in MLflow."""
        place = self.address() or f"{self.run_id} in experiment {self.experiment}; open it with dlpipe ui"
        return f"MLflow has this run: {place}"
