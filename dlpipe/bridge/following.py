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
        snapshot = self.reading.read_snapshot(launcher_gone=launcher_gone, closed=closed)
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
            if mirror is not None:
                mirror.remove_surplus(keys)
                self._note_where(snapshot)
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

    def sync(self, *, restore: bool = False) -> SyncResult:
        """Write all that is missing; files are looked for one by one.

        ``restore`` brings back the runs that somebody has deleted in MLflow.
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
            written = sum(len(mirror.write(record)) for record in records)
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
                    yield from mirror.compare(record)
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
