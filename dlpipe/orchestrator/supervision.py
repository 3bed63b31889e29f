"""How an attempt ended, whether the run is resumed, and from which Metaflow run.

The order of notes makes every step safe against a kill: an attempt is in the state before its keeper is started,
it is begun once (see ``processes``), it has ended before the next one is noted, and what it left behind was ended
before that. Nothing is kept in memory that a new scheduler would miss.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlpipe.errors import DlpipeError, RunEnded
from dlpipe.orchestrator import inspection
from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.environment import changes
from dlpipe.orchestrator.keeper import NOT_STARTED, read
from dlpipe.orchestrator.processes import (
    Ended,
    end_all,
    ended,
    goes_on,
    has_begun,
    is_kept,
    reap,
    settle,
    start_attempt,
    starts,
)
from dlpipe.orchestrator.runs import ENDED, Attempt, Event, Outcome, Run
from dlpipe.orchestrator.state import State

LONGEST_BACKOFF = 3600.0
STARTS = 5  # keepers that died before they had begun
INSPECTION_SECONDS = 120.0
LOOKERS = 4
LOOKS = 5  # at an attempt of which Metaflow cannot say what became of it
TIMED_OUT = "stopped at its time limit"
SCHEDULER_USER = "local-scheduler"
NOT_INHERITED = re.compile(r"METAFLOW_|_DLPIPE_|PYTHON(PATH|HOME|STARTUP|SAFEPATH|NOUSERSITE)$|VIRTUAL_ENV$")
EVENTS = uuid.UUID("6d1f9c0e-3b0a-5b7e-9a51-54b8a51f2f60")
"""The end of a run is an event whose id is made of this and the attempt's token: publishing it twice is once."""
STEP_FAILED = re.compile(r"Step (\S+) \(task-id (\S+)\) failed\.")
"""Metaflow's last word when a task failed."""
LOG = logging.getLogger(__name__)


# -- commands --------------------------------------------------------------------------------------------------


def command_of(version: Version, run: Run, attempt: Attempt) -> list[str]:
    """The launcher's command: ``launch`` for a run from its beginning, ``relaunch`` for one that goes on."""
    options = [*version.options, "local-scheduler"]
    tags = [word for tag in version.tags for word in ("--tag", tag)]
    words = ["--run-id", attempt.metaflow_run, *version.run_options, *tags]
    if attempt.origin:
        words = ["relaunch", "--origin-run-id", attempt.origin, *words]
    else:
        words = ["launch", *words, *_parameters(version, run)]
    return [version.python, str(Path(version.code, version.script)), *options, *words]


def _parameters(version: Version, run: Run) -> Iterator[str]:
    for name, value in {**version.parameters, **run.parameters}.items():
        if value is not None:
            yield from (f"--{name}", value if isinstance(value, str) else _as_word(value))


def _as_word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | tuple) else str(value)


def variables_of(version: Version, run: Run, attempt: Attempt) -> dict[str, str]:
    """The launcher's whole environment: the scheduler's, without what would lead a flow elsewhere, and its own."""
    kept = {name: value for name, value in os.environ.items() if not NOT_INHERITED.match(name)}
    code = Path(version.code)
    path = os.pathsep.join([str(Path(version.python).parent), kept.get("PATH", os.defpath)])
    ours = {
        "PATH": path,
        "PYTHONPATH": os.pathsep.join([str(code), str(code / ".mf_code")]),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "METAFLOW_EXTRACTED_ROOT": version.code,
        "METAFLOW_USER": SCHEDULER_USER,
        "METAFLOW_OWNER": version.author,
        "METAFLOW_RUNTIME_NAME": SCHEDULER_USER,
        "METAFLOW_PRODUCTION_TOKEN": version.token,
        "METAFLOW_LOCAL_SCHEDULER_TRIGGERS": json.dumps(triggers_of(version, run)),
    }
    return {**kept, **{name: value for name, value in ours.items() if value}, **version.variables}


def triggers_of(version: Version, run: Run) -> list[dict[str, Any]]:
    """What triggered a run, in the form of Metaflow's ``current.trigger``."""
    needed = version.trigger.needed if version.trigger else ()
    ends = {one.name for one in needed if one.kind == "run"}
    return [
        {
            "timestamp": int(event.at),
            "id": event.payload.get("pathspec", event.id) if event.name in ends else event.id,
            "name": event.name,
            "type": "run" if event.name in ends else "event",
        }
        for event in run.events
    ]


def origin_of(run: Run) -> str:
    """The Metaflow run that the next attempt resumes: the newest in which a task of its own began.

    One that was killed before that holds nothing, not even all of the tasks that it took over. Empty if there is
    none: then the run begins anew.
    """
    return next((one.metaflow_run for one in reversed(run.attempts) if one.metaflow_run and one.ended), "")


def next_attempt(state: State, run: Run, now: float) -> Attempt:
    """The attempt by which a queued or waiting run goes on."""
    token = str(uuid.uuid4())
    number = len(run.attempts)
    return Attempt(
        number=number,
        token=token,
        folder=str(state.folder / "runs" / str(run.number) / str(number)),
        origin=origin_of(run),
        metaflow_run=f"ls-{run.number}-{token[:8]}",
        started=now,
    )


# -- looking at what has ended -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """How an attempt ended.

    Attributes
    ----------
    outcome : str
        As an attempt has it.
    may_pass : bool
        Whether the next attempt may do better.
    began : bool
        Whether its Metaflow run has a task of its own, from which a resume can go on.
    step, reason : str
        What failed and why, in one line.
    end_pathspec : str
        The last task of a run that succeeded.
    """

    ended: Ended
    outcome: Outcome
    may_pass: bool = False
    began: bool = True
    step: str = ""
    reason: str = ""
    end_pathspec: str = ""


def look(version: Version, run: Run, attempt: Attempt) -> Finding | None:
    """How the attempt ended, after ending what it left behind; ``None`` while it goes on."""
    folder = Path(attempt.folder)
    done = settle(folder, attempt.token)
    if done is None:
        return None
    if done.exit_code == 0 and (end := _noted_end(folder)):
        return Finding(done, "succeeded", end_pathspec=end)
    if done.exit_code == NOT_STARTED and done.reason:
        return Finding(done, "failed", inspection.may_pass("", done.reason), began=False, reason=done.reason)
    return judge(done, inspected(version, run, attempt), folder)


def judge(done: Ended, seen: Mapping[str, Any], folder: Path) -> Finding:
    """What to make of a launcher's end and of what Metaflow says of the run."""
    code, began, step = done.exit_code, seen["began"], seen["step"]
    if code == 0 or seen["finished"]:
        return Finding(done, "succeeded", end_pathspec=seen["end_pathspec"])
    if done.timed_out:
        return Finding(done, "timed out", True, began, step, TIMED_OUT)
    if code is None:
        return Finding(done, "lost", True, began, step, "its processes were killed, or the machine stopped")
    if code < 0:
        return Finding(done, "killed", True, began, step, f"the launcher was ended by {_signal(-code)}")
    if seen["error_type"]:
        return Finding(done, "failed", seen["may_pass"], began, step, seen["reason"])
    said = _last_line(folder / "log")
    # a task that is killed as soon as it has recorded its success fails the run all the same
    if task := f"{step}/{seen['task']}" if step else _failed_task(said):
        return Finding(done, "killed", True, began, task.partition("/")[0], f"the task {task} was killed")
    return Finding(done, "failed", inspection.may_pass("", said), began, reason=said or f"exit code {code}")


def _failed_task(said: str) -> str:
    found = STEP_FAILED.fullmatch(said)
    return "/".join(found.groups()) if found else ""


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def inspected(version: Version, run: Run, attempt: Attempt) -> dict[str, Any]:
    """What ``inspection`` says.

    Raises
    ------
    NotInspected
        When it cannot be asked, as when the frozen code is gone or the machine has no memory left.
    """
    words = [version.python, "-P", inspection.__file__, f"{version.flow}/{attempt.metaflow_run}"]
    try:
        said = subprocess.run(
            words,
            cwd=version.folder,
            env=variables_of(version, run, attempt),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSPECTION_SECONDS,
            check=True,
        )
        return dict(json.loads(said.stdout.strip().splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise NotInspected(lines[-1] if lines else type(error).__name__) from error


class NotInspected(Exception):
    """Metaflow cannot say what became of an attempt."""


def _noted_end(folder: Path) -> str:
    """The last task's pathspec, which the task itself has noted."""
    try:
        return (folder / "end").read_text().strip()
    except OSError:
        return ""


def _last_line(log: Path) -> str:
    """The last line of a launcher's log that says something."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [" ".join(line.split()) for line in lines if line.strip(" \t^~-=")]
    line = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ", "", said[-1]) if said else ""
    return line[:300]


@dataclass
class _Tried:
    """How often something failed, and when it may be tried again, on the monotonic clock."""

    times: int = 0
    again: float = 0.0

    def failed(self) -> None:
        self.times += 1
        self.again = time.monotonic() + min(2.0**self.times, 60.0)


# -- the supervisor ----------------------------------------------------------------------------------------------


class Supervisor:
    """Starts attempts, notes how they ended, and lets runs go on whose failure may pass.

    Parameters
    ----------
    on_end : callable
        Called with each run that has succeeded, failed or was terminated, after that is in the state.
    """

    def __init__(self, state: State, *, on_end: Callable[[Run], object] = lambda run: None) -> None:
        self._state = state
        self._on_end = on_end
        self._pool = ThreadPoolExecutor(LOOKERS, thread_name_prefix="look")
        self._looks: dict[tuple[int, int], Future[Finding | None]] = {}
        self._tried: dict[tuple[int, int], _Tried] = {}

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what is looked at; runs go on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def busy(self) -> bool:
        """Whether something that ended is being looked at."""
        return bool(self._looks)

    def something_ended(self) -> bool:
        """A cheap sign that ``reconcile`` has something to do."""
        return any(one.done() for one in self._looks.values()) or any(
            (run.number, run.attempts[-1].number) not in self._looks
            and not goes_on(Path(run.attempts[-1].folder), run.attempts[-1].token)
            for run in self._state.runs(status=["running"])
        )

    def start(self, number: int, now: float) -> Run:
        """Begin the next attempt of a queued or waiting run, unless its deployment refuses."""
        run = self._state.run(number)
        if run.status not in ("queued", "waiting"):
            return run
        version = self._state.version(run.deployment, run.version)
        if changed := _changed(version):
            if version.policies.changed_environment == "refuse":
                return self._end(run, "failed", changed)
            LOG.warning("run %s of %s: %s", number, run.deployment, changed)
        attempt = next_attempt(self._state, run, now)
        with contextlib.suppress(RunEnded):  # its deployment was deleted meanwhile
            self._state.add_attempt(number, attempt)
            self._begin(version, run, attempt)
        return self._state.run(number)

    def _begin(self, version: Version, run: Run, attempt: Attempt) -> None:
        """Start the attempt's processes; what cannot be started now, ``reconcile`` starts later."""
        try:
            start_attempt(
                Path(attempt.folder),
                command_of(version, run, attempt),
                cwd=version.folder,
                variables=variables_of(version, run, attempt),
                token=attempt.token,
                time_limit=version.policies.time_limit,
            )
        except OSError as error:
            LOG.warning("run %s: %s", run.number, error)

    def reconcile(self, now: float, *, wait: bool = False) -> None:
        """Carry on every run: what has ended is noted, what has died may be resumed, what is to stop is stopped.

        What ended is looked at beside, and dealt with by a later call; with ``wait``, on return.
        """
        reap()
        stopping = set(self._state.stop_requested())
        for run in self._state.runs(status=["running", "waiting", "queued"]):
            if run.status != "running":
                if run.number in stopping:
                    self._end(run, "terminated", "stopped by hand")
                continue
            attempt = run.attempts[-1]
            if (run.number, attempt.number) not in self._looks:
                self._look_at(run, attempt, stop=run.number in stopping)
        for key, look_ in list(self._looks.items()):
            if wait or look_.done():
                self._deal_with(key, now)

    def _look_at(self, run: Run, attempt: Attempt, *, stop: bool) -> None:
        key = (run.number, attempt.number)
        if time.monotonic() < self._tried.get(key, _Tried()).again:
            return
        version = self._state.version(run.deployment, run.version)
        if not stop and not has_begun(Path(attempt.folder)) and self._is_begun_later(version, run, attempt):
            return
        overdue = _is_overdue(version, attempt)
        if stop or overdue or not goes_on(Path(attempt.folder), attempt.token):
            self._looks[key] = self._pool.submit(_stopped if stop or overdue else look, version, run, attempt)

    def _is_begun_later(self, version: Version, run: Run, attempt: Attempt) -> bool:
        """Whether an attempt that nobody has begun is begun now, or soon; its starter was killed."""
        folder = Path(attempt.folder)
        if is_kept(folder):
            return True
        if starts(folder) >= STARTS:
            return False
        self._tried.setdefault((run.number, attempt.number), _Tried()).failed()
        self._begin(version, run, attempt)
        return True

    def _deal_with(self, key: tuple[int, int], now: float) -> None:
        number, attempt_number = key
        task = self._looks.pop(key)
        tried = self._tried.setdefault(key, _Tried())
        try:
            finding = task.result()
        except Exception as error:  # no memory, no space: it is looked at again
            tried.failed()
            LOG.warning("run %s cannot be looked at: %s: %s", number, type(error).__name__, error)
            if tried.times < LOOKS or not isinstance(error, NotInspected):
                return
            finding = _unknown(self._state.run(number).attempts[-1], error)
        run = self._state.run(number)
        if finding is None or run.status in ENDED or run.attempts[-1].number != attempt_number:
            return
        self._apply(run, finding, now)
        del self._tried[key]

    def _apply(self, run: Run, finding: Finding, now: float) -> None:
        """Note what has become of the attempt and of its run, in one commit."""
        version = self._state.version(run.deployment, run.version)
        terminated = run.number in self._state.stop_requested() and finding.outcome != "succeeded"
        attempt = _noted(run.attempts[-1], finding, terminated=terminated)
        with self._state.transaction():
            self._state.set_attempt(run.number, attempt)
            if finding.outcome == "succeeded":
                if finding.end_pathspec:
                    self._state.publish(end_event(version, attempt, finding))
                self._state.set_status(run.number, "succeeded", reason="")
            elif terminated:
                self._state.set_status(run.number, "terminated", reason="stopped by hand")
            elif finding.may_pass and len(run.attempts) <= version.policies.resumes:
                seconds = backoff(version, len(run.attempts))
                self._state.set_status(run.number, "waiting", reason=_said(attempt), not_before=now + seconds)
            else:
                self._state.set_status(run.number, "failed", reason=_said(attempt))
            self._tell(self._state.run(run.number))

    def _end(self, run: Run, status: Any, reason: str) -> Run:
        with self._state.transaction():
            self._state.set_status(run.number, status, reason=reason)
            ended_run = self._state.run(run.number)
            self._tell(ended_run)
        return ended_run

    def _tell(self, run: Run) -> None:
        if run.status not in ENDED:
            return
        try:
            self._on_end(run)
        except Exception:  # an alert that cannot be sent changes nothing of the run
            LOG.exception("the end of run %s could not be told", run.number)


def reconcile(state: State, now: float) -> None:
    """Carry on every run of ``state`` once, and return when all that had ended is dealt with."""
    with Supervisor(state) as supervisor:
        supervisor.reconcile(now, wait=True)


def stop(state: State, run: Run, now: float) -> None:
    """Stop a run and return when that is done: its tasks get Ctrl-C's signal and seconds to end, then SIGKILL."""
    state.request_stop(run.number)
    reconcile(state, now)


def _is_overdue(version: Version, attempt: Attempt) -> bool:
    """Whether an attempt whose keeper was killed is over its time limit."""
    limit, folder = version.policies.time_limit, Path(attempt.folder)
    begun = read(folder, "begun") if limit else None
    if begun is None or is_kept(folder):
        return False
    return time.monotonic() > begun["monotonic"] + limit  # of this boot: the clock may have jumped


def _stopped(version: Version, run: Run, attempt: Attempt) -> Finding | None:
    """End an attempt, and say how."""
    overdue = _is_overdue(version, attempt)
    end_all(attempt.token)
    finding = look(version, run, attempt)
    if finding is None or not overdue or finding.outcome not in ("lost", "killed"):
        return finding
    return replace(finding, outcome="timed out", reason=TIMED_OUT)


def _unknown(attempt: Attempt, error: Exception) -> Finding:
    """What is said of an attempt that Metaflow cannot be asked about: a person has to look."""
    done = ended(Path(attempt.folder)) or Ended(None, datetime.now(UTC).timestamp())
    outcome: Outcome = "succeeded" if done.exit_code == 0 else "lost"
    return Finding(done, outcome, reason=f"Metaflow cannot say what became of it ({error})")


def _noted(attempt: Attempt, finding: Finding, *, terminated: bool) -> Attempt:
    done = finding.ended
    return replace(
        attempt,
        ended=done.ended,
        exit_code=done.exit_code,
        outcome="terminated" if terminated else finding.outcome,
        metaflow_run=attempt.metaflow_run if finding.began else "",
        step=finding.step,
        reason=finding.reason,
    )


def _said(attempt: Attempt) -> str:
    """How the attempt failed, in one line."""
    where = f"{attempt.step}: " if attempt.step else ""
    return f"{where}{attempt.reason or attempt.outcome}"


def _changed(version: Version) -> str:
    """How the Python packages differ from those of ``create``; empty if they do not."""
    try:
        changed = changes(version)
    except (OSError, DlpipeError) as error:
        changed = [str(error)]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    said = "; ".join(changed[:5]) + more
    return f"the Python packages are not those of `create`: {said}" if changed else ""


def backoff(version: Version, attempts: int) -> float:
    """Seconds before the next attempt, after so many."""
    return float(min(version.policies.backoff * 2.0 ** min(attempts - 1, 30), LONGEST_BACKOFF))


def end_event(version: Version, attempt: Attempt, finding: Finding) -> Event:
    """The event that the end of a run is, as a task on Argo publishes it."""
    flow, run_id, step, task = finding.end_pathspec.split("/")
    at = datetime.fromtimestamp(finding.ended.ended, UTC)
    identity = str(uuid.uuid5(EVENTS, attempt.token))
    payload = {
        "name": version.end_event,
        "id": finding.end_pathspec,
        "pathspec": finding.end_pathspec,
        "timestamp": int(at.timestamp()),
        "utc_date": at.strftime("%Y%m%d"),
        "generated-by-metaflow": True,
        "auto-generated-by-metaflow": "True",
        "flow_name": flow,
        "run_id": run_id,
        "step_name": step,
        "task_id": task,
        "deployment": version.deployment,
        "project_flow_name": f"{version.project}.{version.branch}.{version.flow}" if version.project else "",
        "project_name": version.project,
        "branch_name": version.branch,
        "is_user_branch": str(version.branch.startswith("user.")) if version.project else "",
        "is_production": str(version.branch.startswith("prod")) if version.project else "",
    }
    return Event(
        identity, version.end_event, {key: value for key, value in payload.items() if value}, at.timestamp()
    )
