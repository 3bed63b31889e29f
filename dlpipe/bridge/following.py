"""A run on its way into MLflow: what Metaflow says is read, and the difference is written."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dlpipe.bridge.records import Difference

if TYPE_CHECKING:
    from dlpipe.bridge.apply import Mirror
    from dlpipe.bridge.reading import RunReading
    from dlpipe.bridge.records import RunRecord, Status
    from dlpipe.bridge.snapshots import RunSnapshot
    from dlpipe.tracking import TrackingStore

PARENT_SECONDS = 30.0
"""How often the description of a run that goes on is written anew."""
LIVE_SECONDS = 5.0
"""So long a point that a step reports may be on its way."""
POINTS_SECONDS = 1.0
"""How often such points are written while other records are."""


@dataclass(frozen=True)
class SyncResult:
    """What ``sync`` did for one Metaflow run: ``written`` differences over ``records`` records.

    ``deleted`` of them were left out, because somebody has deleted them in MLflow.
    """

    run: str
    experiment: str
    run_id: str
    status: str
    records: int
    written: int
    deleted: int = 0


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
    _deleted: set[str] = field(default_factory=set)
    _running: dict[str, RunRecord] = field(default_factory=dict)
    _snapshot: RunSnapshot | None = None
    _seen_reporting: frozenset[str] = frozenset()
    _points_written: float = -math.inf
    on_progress: Callable[[str], None] = field(default=lambda doing: None)
    """Called with what it does: ``reading``, ``writing 3 of 8``."""

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

    def step(self, *, launcher_gone: bool = False, closed: str = "") -> SyncResult:
        """Write what has changed since the last step. Where nothing has, MLflow is not asked.

        The arguments are those of ``MetaflowRun.read``.
        """
        self.on_progress("reading")
        self._seen_reporting = self.reading.run.marks.list_reporting()
        snapshot = self._snapshot = self.reading.read_snapshot(launcher_gone=launcher_gone, closed=closed)
        try:
            written = self._write_changes(snapshot)
        except BaseException:
            self._mirror = None  # what is known of MLflow may be wrong
            raise
        if snapshot.status != "RUNNING":
            if not self._read_again:  # from the start, so that nothing that was taken for complete is missed
                from dlpipe.bridge.reading import RunReading

                # what tasks have reached is kept, since records that are written are not made again
                self._read_again, self._reading = True, RunReading(self.pathspec, self.reading.totals)
                again = self.step(launcher_gone=launcher_gone, closed=closed)
                return replace(again, written=written + again.written)
            self.reading.run.marks.set_complete()
        return self._make_result(snapshot, len(self.reading.list_keys(snapshot)), written)

    def _write_changes(self, snapshot: RunSnapshot) -> int:
        """Write the records that are new or have changed since the last step, and return how much differed."""
        from dlpipe.tracking import tracking_errors

        written = 0
        with ExitStack() as opened:
            mirror: Mirror | None = None
            keys = self.reading.list_keys(snapshot)
            for record in self.reading.make_records(snapshot, skip=self._final):
                self._note_running(record)
                if self._written.get(record.key) == record.digest or self._can_wait(record):
                    continue
                if mirror is None:  # as late as can be: where nothing has changed, nobody waits for the lock
                    opened.enter_context(self.reading.run.marks.mirror_lock())
                    opened.enter_context(tracking_errors(self.store))
                    mirror = self._open_mirror(snapshot)
                    self._begin(mirror, snapshot)
                self.on_progress(f"writing {min(len({*self._written, record.key}), len(keys))} of {len(keys)}")
                if not self._is_left_out(mirror, record):
                    written += len(mirror.write(record, thorough=False))
                self._written[record.key] = record.digest
                if record.status != "RUNNING" and record.parent is not None:
                    self._final[record.key] = (record.status, record.end)
                if (
                    time.monotonic() - self._points_written > POINTS_SECONDS
                ):  # files of other tasks take their time
                    written += self._write_points(mirror)
            if mirror is not None:
                mirror.remove_surplus(keys)
                self._note_where(snapshot)
        return written

    def _note_running(self, record: RunRecord) -> None:
        """Remember an attempt that runs: what it reports is written before the run is looked at again."""
        if record.status == "RUNNING" and record.parent is not None:
            self._running[record.key] = record
        else:
            self._running.pop(record.key, None)

    def write_points(self) -> int:
        """Write what running tasks have reported since the last look, and return how much that was.

        Nothing else is looked at, which takes next to nothing however many tasks the run has.
        """
        from dlpipe.tracking import tracking_errors

        if self._mirror is None or self._snapshot is None or not self._find_reported():
            return 0
        try:
            with self.reading.run.marks.mirror_lock(), tracking_errors(self.store):
                return self._write_points(self._open_mirror(self._snapshot))
        except BaseException:
            self._mirror = None  # what is known of MLflow may be wrong
            raise

    def has_new_reporting(self) -> bool:
        """Return whether a task has begun to report since the last step, which did not know it yet."""
        new = self.reading.run.marks.list_reporting() - self._seen_reporting
        # a step of many tasks has one record, without their points
        return any("/".join(key.split("/")[:3]) not in self._written for key in new)

    def _find_reported(self) -> list[RunRecord]:
        """Return the records of running tasks that have more points than when they were written."""
        grown = []
        for record in self._running.values():
            points = self.reading.read_reported(record.key)
            if len(points) > len(record.metrics):
                grown.append(replace(record, metrics=points))
        return grown

    def _write_points(self, mirror: Mirror) -> int:
        written = 0
        for record in self._find_reported():
            if mirror.run_id(record.key) is None:  # it has not been written at all
                continue
            self._running[record.key] = record
            if not self._is_left_out(mirror, record):
                written += len(mirror.write(record, thorough=False))
            self._written[record.key] = record.digest
        self._points_written = time.monotonic()
        return written

    def _begin(self, mirror: Mirror, snapshot: RunSnapshot) -> None:
        """Make the run's own record, which the others stand under, unless somebody has deleted it."""
        self._deleted = set()
        if not mirror.is_deleted(self.pathspec):
            mirror.ensure(self.reading.make_run_record(snapshot, begun=True))

    def _is_left_out(self, mirror: Mirror, record: RunRecord) -> bool:
        """Return whether somebody has deleted the record's run in MLflow, or the one that it stands under."""
        if not mirror.is_deleted(record.key, record.parent):
            return False
        self._deleted.add(record.key)
        return True

    def _can_wait(self, record: RunRecord) -> bool:
        """Return whether this is the run itself, which changes with each task, and was written just now."""
        if record.parent is not None or record.status != "RUNNING":
            return False
        if time.monotonic() - self._parent_written < PARENT_SECONDS:
            return True
        self._parent_written = time.monotonic()
        return False

    def sync(self, *, restore: bool = False, contents: bool = False) -> SyncResult:
        """Write all that is missing; files are looked for one by one.

        ``restore`` brings back the runs that somebody has deleted in MLflow; ``contents`` reads each file, as
        ``find_differences`` does.
        """
        from dlpipe.tracking import tracking_errors

        with self.reading.run.marks.mirror_lock(), tracking_errors(self.store):
            snapshot = self.reading.read_snapshot()
            mirror = self._open_mirror(snapshot)
            if restore:
                mirror.restore()
            self._begin(mirror, snapshot)
            records = (
                record for record in self.reading.make_records(snapshot) if not self._is_left_out(mirror, record)
            )
            written = sum(len(mirror.write(record, contents=contents)) for record in records)
            keys = self.reading.list_keys(snapshot)
            written += mirror.remove_surplus(keys)
            self._note_where(snapshot)
        if snapshot.status != "RUNNING":
            self.reading.run.marks.set_complete()
        return self._make_result(snapshot, len(keys), written)

    def find_differences(self, on_deleted: Callable[[str], None] | None = None) -> Iterator[Difference]:
        """Yield every way in which MLflow differs from what happened; records that people deleted are none."""
        from dlpipe.tracking import tracking_errors

        with self.reading.run.marks.mirror_lock(), tracking_errors(self.store):
            snapshot = self.reading.read_snapshot()
            mirror = self._open_mirror(snapshot)
            for record in self.reading.make_records(snapshot):
                if not self._is_left_out(mirror, record):
                    yield from mirror.compare(_leave_out_latest(record))
                elif on_deleted:
                    on_deleted(record.key)
            yield from mirror.compare_surplus(self.reading.list_keys(snapshot))

    def _open_mirror(self, snapshot: RunSnapshot) -> Mirror:
        from dlpipe.bridge.apply import Mirror
        from dlpipe.bridge.reading import name_experiment

        if self._mirror is None:
            self.experiment = name_experiment(snapshot.system_tags, self.reading.run.flow)
            self._mirror = Mirror(self.store.client(), self.store.experiment(self.experiment), self.pathspec)
            self._writer = uuid.uuid4().hex
        # whoever wrote in between has made runs that this mirror does not know, and would make a second time
        if self.reading.run.marks.take_over(self._writer):
            self._mirror.refresh()
        return self._mirror

    def _note_where(self, snapshot: RunSnapshot) -> None:
        """Leave the ids of the MLflow runs beside Metaflow's run.

        Not in Metaflow's tags and metadata: tags are changed there without a lock, so that those of a step that
        tags its run would be lost, and metadata of a task is compared with that of its clone.
        """
        assert self._mirror is not None
        ids = {
            attempt.key: run_id for attempt in snapshot.attempts if (run_id := self._mirror.run_id(attempt.key))
        }
        place = {"run_id": self.run_id, "experiment_id": self.experiment_id, "address": self.address()}
        with suppress(OSError):  # a folder that may only be read: the mirror is whole all the same
            self.reading.run.marks.note_where({**place, "attempts": ids})

    def _make_result(self, snapshot: RunSnapshot, records: int, written: int) -> SyncResult:
        run_id, deleted = self.run_id or "", len(self._deleted)
        return SyncResult(self.pathspec, self.experiment, run_id, snapshot.status, records, written, deleted)

    def address(self) -> str:
        """Return the address of the parent run's page; empty where no server stands before the store."""
        from dlpipe.redaction import show_address

        if not self.store.is_server or self.run_id is None:
            return ""
        return f"{show_address(self.store.uri).rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def where(self) -> str:
        """Return the line that says where the run stands in MLflow."""
        if self.run_id is None:
            again = f"dlpipe bridge sync --restore {self.pathspec}"
            return f"MLflow has not this run: somebody has deleted it there. To bring it back: {again}"
        place = self.address() or f"{self.run_id} in experiment {self.experiment}; open it with dlpipe ui"
        return f"MLflow has this run: {place}"


def _leave_out_latest(record: RunRecord) -> RunRecord:
    """Return the record of a task that runs without the points that may still be on their way."""
    if record.status != "RUNNING" or record.parent is None:
        return record
    due = (time.time() - LIVE_SECONDS) * 1000
    return replace(record, metrics=tuple(metric for metric in record.metrics if metric.time < due))
