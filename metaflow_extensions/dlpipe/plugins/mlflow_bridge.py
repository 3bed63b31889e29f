"""The bridge's place in Metaflow: starts the process that follows the run, and waits for it at the end.

A hook that raises breaks the flow, so none of them does, but for the one that was asked to (``required``). The
tasks get a few environment variables and import nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from metaflow.decorators import StepDecorator
from metaflow.exception import MetaflowException

WAIT_SECONDS, OUTAGE_SECONDS = 4.0, 1.0
"""How long the launcher waits for the mirror at the end; less where MLflow did not answer a moment ago."""
TASK_SECONDS = 20.0
"""How long a task at most mirrors its run itself, where no process follows it."""
DOING = "doing: "
"""Before what the follower says of what it does; ``dlpipe.bridge.follow`` has the same."""
OPENLINEAGE = "DLPIPE_OPENLINEAGE"
"""Names who is told of the run as events of OpenLineage; ``dlpipe.openlineage.receivers`` has the same."""
NOBODY = ("", "0", "false", "no", "off")
STARTS, REST_SECONDS = 4, 0.5
"""How often a follower is started, and how long after it was killed."""


class BridgeRequired(MetaflowException):
    """MLflow was required and is not there."""

    headline = "The bridge to MLflow is required"


class BadSetting(MetaflowException):
    """A setting of the bridge is none."""

    headline = "A setting of mlflow_bridge"


class MlflowBridge(StepDecorator):
    """Mirror the run into MLflow while it goes; one process follows it, however many steps have the decorator.

    MLflow is where ``MLFLOW_TRACKING_URI`` says, by default ``mlflow.db`` in the working directory. The flow never
    fails because of it, and waits at most five seconds in all.

    Parameters
    ----------
    required : bool, default False
        Whether a server that does not answer is an error at the start. ``DLPIPE_BRIDGE_REQUIRED=1`` means the
        same.
    resources : float, default 0
        Seconds between two looks at what each running task takes (processor, memory, GPU), which MLflow shows as
        its system metrics; 0 for none. ``DLPIPE_BRIDGE_RESOURCES=1`` means the same as 1.
    """

    name = "mlflow_bridge"
    defaults: ClassVar[dict[str, Any]] = {"required": False, "resources": 0}
    _followers: ClassVar[dict[str, Follower]] = {}
    _tellers: ClassVar[dict[str, KeptProcess]] = {}
    _given: ClassVar[dict[str, Any]] = {}

    @classmethod
    def parse_decorator_spec(cls, deco_spec: str) -> Any:
        """Return the decorator that ``--with`` asks for, and remember what that says.

        Metaflow drops the new one where a step has one already, as all have of a class with the decorator.
        """
        made = super().parse_decorator_spec(deco_spec)
        _, given = cls.extract_args_kwargs_from_decorator_spec(deco_spec)
        cls._given = {**given, **cls._given}  # what the command itself says comes first, and counts
        return made

    def step_init(self, *args: Any, **more: Any) -> None:
        """Remember how Metaflow wants lines to be printed; refuse a setting that is none."""
        self.attributes.update(self._given)
        self._interval = read_interval(self.attributes["resources"] or os.environ.get("DLPIPE_BRIDGE_RESOURCES"))
        self._logger = more.get("logger") or args[-1]

    def runtime_init(self, flow: Any, graph: Any, package: Any, run_id: str) -> None:
        """Start following, once a run."""
        pathspec = f"{flow.name}/{run_id}"
        if pathspec not in self._followers:
            required = self.attributes["required"], os.environ.get("DLPIPE_BRIDGE_REQUIRED", "")
            if any(str(word).lower() in ("1", "true", "yes") for word in required):
                check_mlflow()
            self._followers[pathspec] = Follower(pathspec, interval=self._interval)
            if tells_receiver():
                check_openlineage()
                self._tellers[pathspec] = KeptProcess(make_command("dlpipe.openlineage.follow", pathspec))
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                self._say_runs_elsewhere()
        self._follower = self._followers[pathspec]

    def _say_runs_elsewhere(self) -> None:
        """Say that the run and its mirror are in two folders, if so."""
        from dlpipe.bridge.marks import explain_elsewhere

        with contextlib.suppress(Exception):
            if line := explain_elsewhere():
                self._logger(line, head="", bad=False)

    def runtime_task_created(self, task_datastore: Any, *args: Any, **more: Any) -> None:
        """See that the follower still lives."""
        self._follower.keep_alive()
        for teller in self._tellers.values():
            teller.keep_alive()
        self._follower.has_finished_steps |= task_datastore.step_name != "start"

    def runtime_step_cli(self, cli_args: Any, *args: Any, **more: Any) -> None:
        """Tell the task that a process beside the run mirrors it."""
        cli_args.env["_DLPIPE_BRIDGE_FOLLOWED"] = "1"
        cli_args.env["_DLPIPE_BRIDGE_FOLDER"] = self._follower.folder

    def runtime_finished(self, exception: BaseException | None) -> None:
        """Say where the run stands in MLflow, and how to resume one that failed, once a run."""
        with contextlib.suppress(Exception):
            for follower in self._followers.values():
                if line := follower.last_line():
                    self._logger(line, head="", bad=False)
                    if exception is not None and (command := follower.build_resume()):
                        self._logger(f"To resume this run, after a repair: {command}", head="", bad=False)
                    if problem := follower.find_untold():
                        self._logger(problem, head="", bad=False)
            for teller in self._tellers.values():
                teller.let_go()

    def task_pre_step(
        self, step_name: str, task_datastore: Any, metadata: Any, run_id: str, task_id: str, *rest: Any
    ) -> None:
        """Say in the environment which task this is, so that its own MLflow calls find their run."""
        with contextlib.suppress(Exception):
            flow, _, retry_count = rest[:3]
            os.environ["_DLPIPE_BRIDGE_TASK"] = f"{flow.name}/{run_id}/{step_name}/{task_id}/{retry_count}"
            os.environ["_DLPIPE_BRIDGE_PID"] = str(os.getpid())
            os.environ.pop("MLFLOW_RUN_ID", None)  # of a run outside, which this task is no part of
            if not os.environ.get("MLFLOW_TRACKING_URI"):
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{os.path.join(os.getcwd(), 'mlflow.db')}"

    def task_finished(
        self, step_name: str, flow: Any, graph: Any, is_task_ok: bool | None, *args: Any, **more: Any
    ) -> None:
        """Leave what the task took; where no process follows the run (Argo, Step Functions), mirror it so far."""
        if "_DLPIPE_BRIDGE_TASK" not in os.environ:
            return
        key = os.environ["_DLPIPE_BRIDGE_TASK"]
        pathspec = "/".join(key.split("/")[:2])
        with contextlib.suppress(Exception):
            note_resources(find_folder(pathspec), key)
        if os.environ.get("_DLPIPE_BRIDGE_FOLLOWED"):
            return
        modules = ["dlpipe.bridge.follow", *(["dlpipe.openlineage.follow"] if tells_receiver() else [])]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("_DLPIPE_BRIDGE_")}
        for module in modules:
            command = make_command(module, pathspec, key)
            with contextlib.suppress(Exception):  # `dlpipe bridge sync`, or `lineage export`, will catch up
                subprocess.run(command, env=kept, stdin=subprocess.DEVNULL, timeout=TASK_SECONDS, check=False)


def find_script() -> str:
    """Return the flow's file, as it is named from the working directory."""
    from dlpipe.bridge.resuming import spell_script

    return spell_script(sys.argv[0])


def find_folder(pathspec: str) -> str:
    """Return where the files beside the run are."""
    if folder := os.environ.get("_DLPIPE_BRIDGE_FOLDER"):
        return folder
    from dlpipe.bridge.marks import find_marks

    return str(find_marks(pathspec).folder)


def note_resources(folder: str, key: str) -> None:
    """Leave what this process and those it has waited for took, in a file that ``dlpipe.bridge.marks`` reads.

    Written here in plain Python: a task imports nothing for the bridge.

    Parameters
    ----------
    folder : str
        Where the files beside the run are.
    key : str
        Of the attempt.
    """
    own, inner = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    took = {
        "cpu_seconds": round(own.ru_utime + own.ru_stime + inner.ru_utime + inner.ru_stime, 3),
        "peak_memory_mb": round(max(read_peak_memory(), inner.ru_maxrss / 1024), 1),
    }
    line = json.dumps({"name": "system", "time": int(time.time() * 1000), "record": took}) + "\n"
    place = os.path.join(folder, "resources")
    os.makedirs(place, exist_ok=True)
    if any(os.path.islink(way) for way in (place, folder, os.path.dirname(folder))):
        return  # whoever may write runs could lead us anywhere
    name = os.path.join(place, quote(key, safe=""))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o666), "w") as file:
        file.write(line)


def read_peak_memory() -> float:
    """Return the most memory that this process had, in MB; of ``ru_maxrss``, the launcher's would be part."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def read_interval(given: Any) -> float:
    """Return seconds; raise ``BadSetting`` unless they are a number from 0.1, or 0 or nothing for none."""
    with contextlib.suppress(ValueError, TypeError):
        seconds = float(given or 0)
        if seconds == 0 or 0.1 <= seconds < 1e6:
            return seconds
    raise BadSetting(f"resources={given!r} is no number of seconds. Give one from 0.1, such as 1, or 0 for none.")


def tells_receiver() -> bool:
    """Return whether somebody is named who is to be told of runs."""
    return os.environ.get(OPENLINEAGE, "").strip().lower() not in NOBODY


def check_openlineage(package: str = "openlineage") -> None:
    """Raise ``BadSetting`` unless the package is there that tells of runs."""
    if importlib.util.find_spec(package) is None:
        raise BadSetting(
            f"{OPENLINEAGE} is set, which needs openlineage-python. Install the extra: pip install "
            "'dlpipe[openlineage]', or unset it."
        )


def check_mlflow() -> None:
    """Raise ``BridgeRequired`` unless MLflow is there."""
    from dlpipe.errors import DlpipeError
    from dlpipe.tracking import open_store

    try:
        open_store(create=True)
    except DlpipeError as error:
        raise BridgeRequired(str(error)) from None


def make_command(module: str, *words: str) -> list[str]:
    """Return how a module is run beside a run."""
    return [sys.executable, "-P", "-m", module, *words]


class KeptProcess:
    """A process beside a run that is started again when it is killed, and ends by itself after the launcher.

    Parameters
    ----------
    command : sequence of str
        How it is started; it reads its standard input to the end.
    environment : mapping of str to str, optional
        Of the process; by default this one's.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._command, self._environment = [*command], environment
        self._asked, self._starts = False, 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.keep_alive()

    def keep_alive(self) -> None:
        """Start the process unless it lives."""
        with self._lock:
            if self._starts >= STARTS or (self._process is not None and self._process.poll() is None):
                return
            self._starts += 1
            with contextlib.suppress(OSError):  # no process to be had: `dlpipe bridge sync` will catch up
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,  # closed by the kernel when the launcher dies, however it dies
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=self._environment,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for the flow; the mirror has to write how it ended
                )
                threading.Thread(target=self._guard, args=(self._process,), daemon=True).start()

    def _guard(self, process: subprocess.Popen[str]) -> None:
        """Start the next process when this one was killed: a task may report for hours before another begins."""
        process.wait()
        time.sleep(REST_SECONDS)
        if not self._asked:
            self.keep_alive()

    def let_go(self) -> None:
        """Say that the launcher ends; what is left to do, the process does by itself."""
        self._asked = True
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class Follower(KeptProcess):
    """The process that follows a run. It ends by itself once the launcher is gone and all is written.

    Parameters
    ----------
    pathspec : str
        ``Flow/run``.
    command : sequence of str, optional
        How it is started; it reads its standard input to the end, and prints what it does and at last one line.
    interval : float, optional
        Seconds between two looks at what the tasks take; 0 for none.
    """

    def __init__(self, pathspec: str, command: Sequence[str] = (), *, interval: float = 0) -> None:
        self._pathspec = pathspec
        self.has_finished_steps = False
        self._said: list[str] = []
        self._doing = "starting"
        with contextlib.suppress(Exception):  # no place to write: the mirror works without a mark as well
            from dlpipe.bridge.marks import find_marks

            self._mark = find_marks(pathspec)
            self._held = self._mark.hold()
            self._mark.keep_script(find_script())
        environment = {**os.environ, "_DLPIPE_BRIDGE_RESOURCES": str(interval)} if interval else None
        super().__init__([*command] or make_command("dlpipe.bridge.follow", pathspec), environment)

    @property
    def folder(self) -> str:
        """Where the files beside the run are; empty where there is no place for them."""
        return str(self._mark.folder.absolute()) if hasattr(self, "_mark") else ""

    def find_untold(self) -> str:
        """Return the line that a receiver of OpenLineage's events is behind; empty where none is."""
        problem = self._mark.receiver_problem() if hasattr(self, "_mark") else ""
        catch_up = f"To catch up, with {OPENLINEAGE} set: dlpipe lineage export"
        return f"OpenLineage is behind ({problem}). {catch_up}" if problem else ""

    def build_resume(self) -> str:
        """Return the command that resumes the run; nothing where no step has finished, or a scheduler does it."""
        if not self.has_finished_steps or os.environ.get("METAFLOW_RUNTIME_NAME", "dev") != "dev":
            return ""
        from dlpipe.bridge.resuming import build_resume

        return build_resume(self._pathspec.partition("/")[2], find_script())

    def last_line(self) -> str | None:
        """Return what the follower says at the end, once; after five seconds, what it is still doing."""
        if self._asked:
            return None
        self._asked = True
        until = time.monotonic() + (OUTAGE_SECONDS if self._problem() else WAIT_SECONDS)
        for _ in range(STARTS):
            self.keep_alive()
            if self._process is None:
                break
            reading = threading.Thread(target=self._read, args=(self._process,), daemon=True)
            reading.start()
            reading.join(max(0.0, until - time.monotonic()))
            if reading.is_alive():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):  # its output ends a moment before it has itself
                self._process.wait(1)
            if self._said:
                break
            # it was killed, perhaps just before it was asked: another one does what is left
        return self._said[-1] if self._said else self._line_of_state()

    def _line_of_state(self) -> str:
        """Return what can be said while the follower has not answered: MLflow is behind after an error only."""
        lives = self._process is not None and self._process.poll() is None
        problem = self._problem() or ("" if lives else "the process that follows the run has ended")
        if problem:
            return f"MLflow is behind ({problem}). To catch up: dlpipe bridge sync {self._pathspec}"
        return (
            f"MLflow has not all of this run yet: the process beside it is {self._doing}, and goes on by itself. "
            f"To be sure: dlpipe bridge sync {self._pathspec}"
        )

    def _problem(self) -> str:
        with contextlib.suppress(Exception):
            return self._mark.problem()
        return ""

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            for line in filter(None, map(str.strip, process.stdout)):
                if line.startswith(DOING):
                    self._doing = line.removeprefix(DOING)
                else:
                    self._said.append(line)
        except (OSError, ValueError):
            return
