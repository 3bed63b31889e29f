"""``local-scheduler``: what is deployed is frozen, runs as it was, and is changed only by those who may."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from projects import Done, environment

from dlpipe.orchestrator.runs import Event, Run
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

ROOT = Path(__file__).resolve().parents[2]
RUN_SECONDS = 120.0

FULL = '''
"""Everything that is frozen."""
import os
import sys
from pathlib import Path

from metaflow import Config, FlowSpec, IncludeFile, JSONType, Parameter, current, project, schedule, step
from words.one import WORD


def author(context):
    return f"made for {context.flow_name}"


@project(name="letters")
@schedule(cron="30 2 * * *", timezone="Europe/Berlin")
class FullFlow(FlowSpec):
    settings = Config("settings", default=str(Path(__file__).with_name("full.toml")), parser="words.toml.read")
    number = Parameter("a-number", type=int, default=3)
    yes = Parameter("yes", default=True)
    shape = Parameter("shape", type=JSONType, default='{"a": [1, 2]}')
    letter = IncludeFile("letter", default="letter.txt")
    made = Parameter("made", default=author)
    nothing = Parameter("nothing", type=str, default=None)
    priority = Parameter("priority", default="of the flow")
    several = Parameter("several", type=str, multiple=True, default=["default"])

    @step
    def start(self):
        from words.late import LATE

        import dlpipe
        import metaflow

        self.said = {
            "words": [WORD, LATE, self.settings.word],
            "parameters": [self.number, self.yes, self.shape, self.letter, self.made, self.nothing, self.several],
            "files": [__file__, dlpipe.__file__, metaflow.__file__, sys.modules["words.one"].__file__],
            "mark": dlpipe.MARK,
            "project": [current.project_flow_name, current.is_production, current.branch_name],
            "who": [current.namespace, current.username, sorted(current.tags)],
            "kept": [os.environ.get("DLPIPE_TABLES"), os.environ.get("MLFLOW_TRACKING_PASSWORD"), os.getcwd()],
        }
        self.decorators = [one.name for one in FullFlow.start.decorators]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    FullFlow()
'''

TINY = """
from metaflow import FlowSpec, Parameter, step


class TinyFlow(FlowSpec):
    p = Parameter("p", type=int, default=3)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        print("p is", self.p)


if __name__ == "__main__":
    TinyFlow()
"""

AFTER = """
import os
from pathlib import Path

from metaflow import FlowSpec, current, step, trigger_on_finish


@trigger_on_finish(flow="TinyFlow")
class AfterFlow(FlowSpec):
    @step
    def start(self):
        self.seen = [current.trigger.event.name, current.trigger.run.pathspec]
        self.next(self.middle)

    @step
    def middle(self):
        if not Path("repaired").exists():
            os.kill(os.getpid(), 9)
        self.next(self.end)

    @step
    def end(self):
        self.seen_again = [current.trigger.event.name, current.origin_run_id]


if __name__ == "__main__":
    AfterFlow()
"""


@dataclass(frozen=True)
class Place:
    """A folder with flows, a state folder of its own beside it, and a copy of dlpipe that they import."""

    folder: Path

    @property
    def state_folder(self) -> Path:
        return self.folder.parent / "state"

    @property
    def variables(self) -> dict[str, str]:
        lib = self.folder.parent / "lib"
        return {
            "DLPIPE_STATE": str(self.state_folder),
            "METAFLOW_TOKEN_HOME": str(self.folder.parent / "tokens"),
            "METAFLOW_USER": "alice",
            "PYTHONPATH": str(lib),
            "METAFLOW_EXTENSIONS_SEARCH_DIRS": f"{lib}:{sysconfig.get_paths()['purelib']}",
        }

    def write(self, name: str, content: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def python(self, *words: str, **more: str) -> Done:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=environment({**self.variables, **more}),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        return Done(done.returncode, done.stdout + done.stderr, time.monotonic() - started)

    def scheduler(self, flow: str, *words: str, **more: str) -> Done:
        return self.python(flow, *words, **more)

    def json(self, flow: str, *words: str) -> Any:
        """What a command says to a program."""
        said = subprocess.run(
            [sys.executable, flow, "local-scheduler", *words, "--json"],
            cwd=self.folder,
            env=environment(self.variables),
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(said.stdout)

    def state(self) -> State:
        return State.open(self.state_folder)

    def play(self) -> list[Run]:
        """Run what is queued until it has ended or waits; return all runs, the newest first."""
        state = self.state()
        with Supervisor(state) as supervisor:
            for run in state.list_runs(status=["queued", "waiting"]):
                supervisor.start(run.number, time.time())
            deadline = time.monotonic() + RUN_SECONDS
            while state.list_runs(status=["running"]):
                assert time.monotonic() < deadline, "a run does not end"
                supervisor.reconcile(time.time())
                time.sleep(0.05)
        runs = state.list_runs()
        state.close()
        return runs

    def metaflow_run(self, run: Run) -> Any:
        from metaflow import Run as MetaflowRun
        from metaflow import metadata, namespace

        state = self.state()
        flow = state.get_version(run.deployment, run.version).flow
        state.close()
        metadata(f"local@{self.folder}")
        namespace(None)
        return MetaflowRun(f"{flow}/{run.attempts[-1].metaflow_run}")


def a_place(folder: Path) -> Place:
    place = Place(folder / "project")
    place.folder.mkdir(parents=True)
    lib = folder / "lib"
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("dlpipe", "metaflow_extensions"):
        shutil.copytree(ROOT / name, lib / name, ignore=hidden)
    with (lib / "dlpipe" / "__init__.py").open("a") as file:
        file.write('MARK = "whole"\n')
    return place


def log_of(run: Run) -> str:
    return Path(run.attempts[-1].folder, "log").read_text()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place with ``TinyFlow``, which is deployed."""
    made = a_place(tmp_path_factory.mktemp("tiny"))
    made.write("tiny_flow.py", TINY)
    done = made.scheduler("tiny_flow.py", "local-scheduler", "create")
    assert done.code == 0, done.said
    return made


# -- what is frozen ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Run, Done]:
    """``FullFlow``, run after the working tree and dlpipe in it were broken: the place, its run and ``create``."""
    place = a_place(tmp_path_factory.mktemp("full"))
    place.write("full_flow.py", FULL)
    place.write("full.toml", 'word = "of the default file"\n')
    place.write("other.toml", 'word = "three"\n')
    place.write("letter.txt", "Dear reader")
    place.write("words/__init__.py", "")
    place.write("words/one.py", 'WORD = "one"\n')
    place.write("words/late.py", 'LATE = "two"\n')
    place.write("words/toml.py", "import tomllib\n\n\ndef read(text):\n    return tomllib.loads(text)\n")
    created = place.scheduler(
        *("full_flow.py", "--production", "--with", "retry:times=0", "--config", "settings", "other.toml"),
        *("local-scheduler", "create"),
        *("--a-number", "4", "--tag", "nightly", "--max-workers", "2", "--time-limit", "1h"),
        *("--several", "a b", "--several", "-c", "--max-num-splits", "200", "--max-log-size", "1"),
        DLPIPE_TABLES="tables of create",
        MLFLOW_TRACKING_PASSWORD="secret",
    )
    assert created.code == 0, created.said
    for name in ("full_flow.py", "full.toml", "other.toml", "letter.txt"):
        place.write(name, "this is not what it was (")
    shutil.rmtree(place.folder / "words")
    (place.folder.parent / "lib" / "dlpipe" / "__init__.py").write_text("MARK = broken(")
    with closing(place.state()) as state:
        state.add_run("letters.prod.FullFlow", cause="by hand", key="manual:1", due=time.time())
    return place, place.play()[0], created


def test_production_goes_on_with_the_frozen_code_when_the_working_tree_is_broken(
    broken: tuple[Place, Run, Done],
) -> None:
    place, run, _ = broken
    assert run.status == "succeeded", log_of(run)
    said = place.metaflow_run(run)["start"].task.data.said
    assert said["words"] == ["one", "two", "three"]
    assert said["mark"] == "whole"
    code = place.state_folder / "code"
    assert [file for file in said["files"] if not Path(file).is_relative_to(code)] == []


def test_parameters_are_those_of_create(broken: tuple[Place, Run, Done]) -> None:
    place, run, _ = broken
    said = place.metaflow_run(run)["start"].task.data.said
    assert said["parameters"] == [4, True, {"a": [1, 2]}, "Dear reader", "made for FullFlow", None, ("a b", "-c")]


def test_a_version_knows_the_defaults_that_its_runs_have(place: Place) -> None:
    with closing(place.state()) as state:
        version = state.get_deployment("TinyFlow").version
    assert (version.parameters, version.defaults) == ({}, {"p": "3"})


def test_a_run_is_of_the_production_namespace_project_and_tags(broken: tuple[Place, Run, Done]) -> None:
    place, run, _ = broken
    data = place.metaflow_run(run)["start"].task.data
    assert data.said["project"] == ["letters.prod.FullFlow", True, "prod"]
    namespace, user, tags = data.said["who"]
    assert namespace.startswith("production:mfprj-")
    assert (user, "nightly" in tags) == ("local-scheduler", True)
    assert {namespace, "project:letters", "project_branch:prod"} <= place.metaflow_run(run).system_tags
    assert {"retry", "local_scheduler_internal"} <= set(data.decorators)


def test_variables_of_create_are_kept_without_secrets(broken: tuple[Place, Run, Done]) -> None:
    place, run, _ = broken
    kept = place.metaflow_run(run)["start"].task.data.said["kept"]
    assert kept == ["tables of create", None, str(place.folder)]
    assert b"secret" not in (place.state_folder / "state.db").read_bytes()


def test_create_says_what_was_deployed(broken: tuple[Place, Run, Done]) -> None:
    said = broken[2].said
    assert "Deployed letters.prod.FullFlow version 1." in said
    assert "30 2 * * * Europe/Berlin, next " in said
    assert "a-number=4" in said
    assert "time limit 1 h 0 min" in said
    assert "Parameter priority: `create` has an option of this name" in said
    assert "No scheduler is running here" in said


def test_the_frozen_code_is_the_code_of_the_metaflow_run(broken: tuple[Place, Run, Done]) -> None:
    place, run, _ = broken
    code = place.metaflow_run(run).code
    assert "one" in code.tarball.extractfile("words/one.py").read().decode()


def test_a_frozen_folder_is_read_only_and_whole(broken: tuple[Place, Run, Done]) -> None:
    from dlpipe.orchestrator.freezing import combine_digests, digest_files

    place, run, _ = broken
    with closing(place.state()) as state:
        version = state.get_version(run.deployment, run.version)
    assert combine_digests(digest_files(Path(version.code))) == version.digest
    writable = [file for file in Path(version.code).rglob("*") if file.stat().st_mode & 0o222]
    assert writable == []


# -- versions ------------------------------------------------------------------------------------------


def test_a_create_that_changes_nothing_makes_no_version(place: Place) -> None:
    done = place.scheduler("tiny_flow.py", "local-scheduler", "create")
    assert done.code == 0, done.said
    assert "Nothing has changed: version 1 of TinyFlow stays deployed." in done.said
    assert len(place.json("tiny_flow.py", "status")["versions"]) == 1


def test_status_shows_the_difference_to_the_working_tree(place: Place) -> None:
    assert not any(place.json("tiny_flow.py", "status")["difference"].values())
    place.write("tiny_flow.py", TINY.replace("default=3", "default=5"))
    place.write("more.py", "")
    try:
        difference = place.json("tiny_flow.py", "status")["difference"]
        said = place.scheduler("tiny_flow.py", "local-scheduler", "status").said
    finally:
        place.write("tiny_flow.py", TINY)
        (place.folder / "more.py").unlink()
    assert difference["changed"] == ["tiny_flow.py"]
    assert difference["added"] == ["more.py"]
    assert difference["parameters"] == difference["packages"] == []
    assert "The working tree differs from version 1:\n    changed     tiny_flow.py\n" in said


def test_runs_are_triggered_listed_and_terminated(place: Place) -> None:
    done = place.scheduler("tiny_flow.py", "local-scheduler", "trigger", "--p", "8")
    assert "is queued (run-id ls-" in done.said
    assert "No scheduler is running here" in done.said
    (row,) = place.json("tiny_flow.py", "list-runs", "--status", "queued")
    assert (row["cause"], row["version"], row["metaflow_run"]) == ("by hand", 1, None)
    assert place.scheduler("tiny_flow.py", "local-scheduler", "terminate", f"ls-{row['run']}").code == 0
    assert place.play()[0].status == "terminated"
    assert place.json("tiny_flow.py", "status", str(row["run"]))["status"] == "terminated"
    again = place.scheduler("tiny_flow.py", "local-scheduler", "terminate", str(row["run"]))
    assert (again.code, "terminated already" in again.said) == (1, True)


def test_terminate_of_an_unknown_run_names_the_latest(place: Place) -> None:
    place.scheduler("tiny_flow.py", "local-scheduler", "trigger")
    done = place.scheduler("tiny_flow.py", "local-scheduler", "terminate", "999")
    assert done.code == 1
    assert "Error: TinyFlow has no run '999'. The latest: " in done.said
    assert "Traceback" not in done.said


def test_a_run_has_the_parameters_of_its_trigger(place: Place) -> None:
    place.play()
    place.scheduler("tiny_flow.py", "local-scheduler", "trigger", "--p", "9")
    run = place.play()[0]
    assert "p is 9" in log_of(run)


# -- who may ------------------------------------------------------------------------------------------


def test_another_user_needs_the_production_token(place: Place) -> None:
    others = {"METAFLOW_USER": "bob", "METAFLOW_TOKEN_HOME": str(place.folder.parent / "tokens of bob")}
    refused = place.scheduler("tiny_flow.py", "local-scheduler", "suspend", **others)
    assert (refused.code, "was deployed by alice" in refused.said) == (1, True)
    token = place.json("tiny_flow.py", "status")["namespace"].removeprefix("production:")
    done = place.scheduler("tiny_flow.py", "local-scheduler", "suspend", "--authorize", token, **others)
    assert done.code == 0, done.said
    status = place.json("tiny_flow.py", "status")
    assert (status["suspended"], status["next_due"], status["policies"]["overlap"]) == (True, [], "skip")
    assert place.scheduler("tiny_flow.py", "local-scheduler", "unsuspend").code == 0
    assert place.json("tiny_flow.py", "status")["suspended"] is False


# -- triggers ------------------------------------------------------------------------------------------


def test_current_trigger_is_filled_also_when_a_killed_run_goes_on(place: Place) -> None:
    place.scheduler("tiny_flow.py", "local-scheduler", "trigger")
    first = place.play()[0]
    assert first.status == "succeeded"
    place.write("after_flow.py", AFTER)
    done = place.scheduler("after_flow.py", "local-scheduler", "create", "--backoff", "0.1s")
    assert done.code == 0, done.said
    assert "overlap queue" in done.said  # a skipped event would be lost
    assert "end of TinyFlow" in done.said
    pathspec = f"TinyFlow/{first.attempts[-1].metaflow_run}/end/2"
    event = Event("5", "metaflow.TinyFlow.end", {"pathspec": pathspec, "flow_name": "TinyFlow"}, time.time())
    with closing(place.state()) as state:
        state.publish(event)
        state.add_run("AfterFlow", cause="end", key="event:5", due=time.time(), events=[event])
    waits = place.play()[0]
    assert waits.status == "waiting", log_of(waits)
    place.write("repaired", "")
    run = place.play()[0]
    assert (run.status, len(run.attempts)) == ("succeeded", 2), log_of(run)
    found = place.metaflow_run(run)
    names = ["metaflow.TinyFlow.end", pathspec.rsplit("/", 2)[0]]
    assert found["start"].task.data.seen == names
    assert found["end"].task.data.seen_again == [names[0], run.attempts[0].metaflow_run]
    assert "origin-task-id" in found["start"].task.metadata_dict  # it was not run again
    assert found.trigger.event.name == names[0]


# -- what is refused ------------------------------------------------------------------------------------------

HEAD = "from metaflow import FlowSpec, JSONType, Parameter, project, schedule, step, trigger, trigger_on_finish\n"
BODY = """
class BadFlow(FlowSpec):
    {parameters}

    @step
    def start(self):
        {start}
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BadFlow()
"""
NEEDED = 'p = Parameter("p", type=int, required=True)'
REFUSED = {
    "cron": ('@schedule(cron="61 * * * *")', "", "pass", "Cron line '61 * * * *': minute '61' is not in 0-59"),
    "zone": ('@schedule(cron="0 2 * * *", timezone="Europe/Berln")', "", "pass", "did you mean Europe/Berlin"),
    "needed": (
        "@schedule(hourly=True)",
        NEEDED,
        "pass",
        "Parameter 'p' has no default and is required, so the schedule",
    ),
    "unmapped": ('@trigger(events=["a", "b"])', NEEDED, "pass", "no event gives it"),
    "event": ('@trigger(event="a b")', "", "pass", "Event name 'a b' in @trigger"),
    "field": ('@trigger(event={"name": "a", "parameters": {"p": "x-y"}})', NEEDED, "pass", "Field 'x-y'"),
    "unknown": ('@trigger(event={"name": "a", "parameters": {"q": "x"}})', NEEDED, "pass", "the parameter 'q'"),
    "both": ('@trigger(event="a")\n@trigger_on_finish(flow="A")', "", "pass", "@trigger and @trigger_on_finish"),
    "half": ('@trigger_on_finish(flow={"name": "A", "project": "b"})', "", "pass", "only one of 'project'"),
    "cycle": ('@trigger_on_finish(flow="BadFlow")', "", "pass", "The end of BadFlow starts BadFlow: a cycle"),
    "raises": ("@trigger(event=lambda context: 1 / 0)", "", "pass", "of @trigger failed with ZeroDivisionError"),
    "nul": ("", 'p = Parameter("p", default=lambda context: "a\\0b")', "pass", "p has a value which has a NUL"),
    "pairs": ("", 'p = Parameter("p", type=int, nargs=2)', "pass", "a fixed number of values"),
    "elsewhere": ("", "", "import elsewhere", "imports 'elsewhere' from "),
    "syntax": ("@", "", "pass", "SyntaxError"),
}


ALL_AT_ONCE = """
import os, runpy, sys
from pathlib import Path
import metaflow.cli, metaflow.package, metaflow.plugins, metaflow.runtime
import dlpipe.orchestrator.state, dlpipe.orchestrator.supervision, dlpipe.orchestrator.timing

children = []
for flow in map(Path, sys.argv[1:]):  # Metaflow is imported once
    child = os.fork()
    if child == 0:
        out = os.open(flow.with_suffix(".log"), os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 1), os.dup2(out, 2)
        sys.path[0], sys.argv = str(flow.parent.absolute()), [str(flow), "local-scheduler", "create"]
        runpy.run_path(str(flow), run_name="__main__")
    children.append(os.waitpid(child, 0)[1])
print(*map(os.waitstatus_to_exitcode, children))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Done]]:
    place = a_place(tmp_path_factory.mktemp("refused"))
    (place.folder.parent / "lib" / "elsewhere.py").write_text("")
    for name, (decorators, parameters, start, _) in REFUSED.items():
        body = BODY.format(parameters=parameters or "pass", start=start)
        place.write(f"{name}/bad_flow.py", f"{HEAD}\n\n{decorators}{body}")
    done = place.python("-c", ALL_AT_ONCE, *(f"{name}/bad_flow.py" for name in REFUSED))
    codes = map(int, done.said.split()[-len(REFUSED) :])
    logs = [(place.folder / name / "bad_flow.log").read_text() for name in REFUSED]
    return place, {name: Done(code, log, 0) for name, code, log in zip(REFUSED, codes, logs, strict=True)}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_in_one_line(name: str, refusals: tuple[Place, dict[str, Done]]) -> None:
    done = refusals[1][name]
    assert done.code == 1
    assert REFUSED[name][3] in done.said
    assert name == "syntax" or "Traceback" not in done.said


def test_nothing_is_deployed_of_what_was_refused(refusals: tuple[Place, dict[str, Done]]) -> None:
    with closing(refusals[0].state()) as state:
        assert state.list_deployments() == []
    assert list(refusals[0].state_folder.glob("code/*/*")) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time-limit", "soon"), "--time-limit 'soon' is no time"),
        (("--resumes", "101"), "resumes = 101 is refused"),
        (("--p", "x"), "x is not a valid integer"),
        (("--alert-on", "end"), "--alert-on end tells nobody"),
        (("--max-workers", "0"), "--max-workers 0 is too low: give 1 or more"),
    ],
)
def test_a_wrong_option_is_refused(options: tuple[str, ...], said: str, place: Place) -> None:
    done = place.scheduler("tiny_flow.py", "local-scheduler", "create", *options)
    assert done.code in (1, 2)
    assert said in done.said


# -- from Python ------------------------------------------------------------------------------------------

SCRIPT = """
import json
from metaflow import Deployer, DeployedFlow

with Deployer("tiny_flow.py", show_output=False).local_scheduler(name="by-python") as deployer:
    flow = deployer.create(tags=["a", "b"], p=6, overlap="queue", time_limit="30m")
run = flow.trigger(p=7)
again = DeployedFlow.from_local_scheduler("by-python")
other = again.trigger(p=11)
named = DeployedFlow.get_triggered_local_scheduler_run("by-python", other.name)
print(json.dumps({
    "name": flow.name,
    "token": flow.production_token,
    "policies": flow.status["policies"],
    "tags": flow.status["tags"],
    "runs": [one.name for one in again.list_runs()],
    "triggered": [run.name, other.name, named.name],
    "before": [run.status, run.is_running, run.run],
    "terminated": other.terminate(),
    "suspended": [again.suspend(), flow.status["suspended"], again.unsuspend(), flow.status["suspended"]],
    "listed": sorted(one.name for one in DeployedFlow.list_local_scheduler()),
}))
"""
SCRIPT_AFTER = """
import json
from metaflow import DeployedFlow

flow = DeployedFlow.from_local_scheduler("by-python")
ended = flow.list_runs()[1]
ended.wait_for_completion(timeout=1)
print(json.dumps({
    "statuses": [one.status for one in flow.list_runs()],
    "p": ended.run["end"].task["p"].data,
    "pathspec": ended.pathspec,
    "deleted": flow.delete(),
    "token": flow.production_token,
}))
"""


def test_the_deployer_does_what_the_commands_do(place: Place) -> None:
    done = place.python("-c", SCRIPT)
    assert done.code == 0, done.said
    seen = json.loads(next(line for line in done.said.splitlines() if line.startswith("{")))
    assert (seen["name"], seen["tags"]) == ("by-python", ["a", "b"])
    assert seen["token"].startswith("by-python-0-")
    assert (seen["policies"]["overlap"], seen["policies"]["time_limit"]) == ("queue", 1800)
    assert seen["runs"][:2] == seen["triggered"][1::-1]
    assert seen["triggered"][1] == seen["triggered"][2]
    assert seen["before"] == ["queued", True, None]
    assert seen["terminated"] is True
    assert seen["suspended"] == [True, True, True, False]
    assert "by-python" in seen["listed"]
    place.play()
    done = place.python("-c", SCRIPT_AFTER)
    assert done.code == 0, done.said
    seen = json.loads(next(line for line in done.said.splitlines() if line.startswith("{")))
    assert seen["statuses"] == ["terminated", "succeeded"]
    assert seen["p"] == 7
    assert seen["pathspec"].startswith("TinyFlow/ls-")
    assert (seen["deleted"], seen["token"]) == (True, None)


def test_commands_have_help_without_a_deployment(place: Place) -> None:
    said = place.scheduler("tiny_flow.py", "local-scheduler", "--help").said
    for command in ("create", "trigger", "list-runs", "status", "terminate", "suspend", "unsuspend", "delete"):
        assert f"  {command} " in said
    assert "launch" not in said
