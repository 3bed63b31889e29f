"""A task's own MLflow calls land in that task's run, from any of its threads and processes.

MLflow loads ``TaskContext`` by the entry point ``mlflow.run_context_provider`` in each process that makes a run;
where no bridged task is, it does nothing. In one, what is logged without a run, and the first run that is started,
are the run that stands for the attempt. Runs started later, or in other processes, are nested under it: two of
them could log the same parameter with two values, which one run cannot hold.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from functools import wraps
from typing import Any

from mlflow.tracking.context.abstract_context import RunContextProvider

from dlpipe.attempt import VARIABLE
from dlpipe.bridge.records import TRIAL

TASK, PROCESS, RUN = VARIABLE, "_DLPIPE_BRIDGE_PID", "_DLPIPE_BRIDGE_RUN_ID"
PARENT, STAMP = "mlflow.parentRunId", "metaflow.task"
KEPT = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.runName", PARENT, STAMP)
"""Tags that every new run gets from MLflow, and that the task's run has already."""

PATIENCE_SECONDS = 60.0
_lock = threading.RLock()
_state = {"bound": False, "taken": False}


class TaskContext(RunContextProvider):
    """Stamps the runs of a bridged task."""

    def in_context(self) -> bool:
        """Return whether this process belongs to a bridged task whose store MLflow uses."""
        if TASK not in os.environ or not _uses_our_store():
            return False
        bind()
        return True

    def tags(self) -> dict[str, str]:
        """Return the tags that nest a run under the task's own; of these, the stamp never fails."""
        stamp = {STAMP: os.environ[TASK]}
        with contextlib.suppress(Exception):  # MLflow would go on without any tag: `created` tries again
            return {**stamp, PARENT: own_run_id()}
        return stamp


def bind() -> None:
    """Make MLflow's client and its fluent calls of this process know the task's run, once."""
    from mlflow import MlflowClient
    from mlflow.tracking import fluent
    from mlflow.tracking._tracking_service.client import TrackingServiceClient

    with _lock:
        if _state["bound"]:
            return
        _state["bound"] = True
        create_run, get_or_start_run = TrackingServiceClient.create_run, fluent._get_or_start_run

        @wraps(create_run)
        def create_in_task(
            self: Any,
            experiment_id: str,
            start_time: int | None = None,
            tags: dict[str, Any] | None = None,
            run_name: str | None = None,
        ) -> Any:
            given = dict(tags or {})
            if STAMP in given and given[STAMP] == os.environ.get(TASK):
                parent = given.setdefault(PARENT, own_run_id(patience=PATIENCE_SECONDS))
                if parent == own_run_id() and TRIAL not in given and (_is_implicit() or _take_own_run()):
                    own = MlflowClient(self.tracking_uri)
                    for name, value in given.items():
                        if name not in KEPT and not name.startswith("metaflow."):
                            own.set_tag(parent, name, value)
                    return own.get_run(parent)
            return create_run(self, experiment_id, start_time, given, run_name)

        @wraps(get_or_start_run)
        def active_or_own() -> Any:
            stack = fluent._active_run_stack.get()
            if not stack and TASK in os.environ and _uses_our_store():
                own = own_run_id(patience=PATIENCE_SECONDS)
                stack.append(fluent.ActiveRun(MlflowClient().get_run(own)))
                _state["taken"] = True
            return stack[-1] if stack else get_or_start_run()

        # below MlflowClient, whose own method a caller may have looked up before this
        TrackingServiceClient.create_run = create_in_task
        fluent._get_or_start_run = active_or_own


def own_run_id(*, patience: float = 0.0) -> str:
    """Return the id of the MLflow run of this attempt, made if it is not there yet.

    Parameters
    ----------
    patience : float, optional
        Seconds for which to try again; as long as MLflow itself would, a server may be away for a moment.
    """
    task = os.environ[TASK]
    deadline = time.monotonic() + patience
    with _lock:
        while True:
            known_task, _, run_id = os.environ.get(RUN, "").partition(" ")
            if known_task == task:
                return run_id
            try:
                os.environ[RUN] = f"{task} {_make_run(task)}"  # child processes need not look for it
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(2.0)


def _make_run(key: str) -> str:
    from dlpipe.bridge.apply import Mirror
    from dlpipe.bridge.reading import RunReading, name_experiment
    from dlpipe.tracking import open_store

    flow, run, *_ = key.split("/")
    pathspec = f"{flow}/{run}"
    reading = RunReading(pathspec)
    # before MLflow is asked: where it does not answer, the mirror knows all the same that the step logs by itself
    reading.run.marks.note_uses(key)
    store = open_store(create=True)
    snapshot = reading.read_snapshot(only=key.rpartition("/")[0])
    (attempt,) = (attempt for attempt in snapshot.attempts if attempt.key == key)
    # under the follower's lock: both look whether the run is there before they make it
    with reading.run.marks.mirror_lock():
        reading.run.marks.take_over(key)
        mirror = Mirror(store.client(), store.experiment(name_experiment(snapshot.system_tags, flow)), pathspec)
        mirror.refresh()
        mirror.ensure(reading.make_run_record(snapshot, begun=True))
        run_id = mirror.ensure(reading.make_attempt_record(snapshot, attempt, pathspec))
    return run_id


def _uses_our_store() -> bool:
    """Return whether MLflow writes where the bridge does, and not to a store of the step's own choice."""
    import mlflow

    return mlflow.get_tracking_uri().rstrip("/") == os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")


def _take_own_run() -> bool:
    """Return whether this is the first run that the task's own process starts."""
    with _lock:
        if _state["taken"] or os.environ.get(PROCESS) != str(os.getpid()):
            return False
        _state["taken"] = True
        return True


def _is_implicit() -> bool:
    """Return whether MLflow makes this run because something was logged without one."""
    frame = sys._getframe(1)
    for _ in range(12):
        if frame.f_code.co_name == "_get_or_start_run":
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False
