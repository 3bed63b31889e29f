"""The flows of ../shared/cases that the local scheduler runs: what they are given, publish, and say."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from projects import environment
from test_local_scheduler import ALL_AT_ONCE

from dlpipe.cli import main
from dlpipe.orchestrator.decisions import decide
from dlpipe.orchestrator.page import make_app
from dlpipe.orchestrator.runs import OPEN, Run
from dlpipe.orchestrator.state import State
from dlpipe.orchestrator.supervision import Supervisor

CASES = Path(__file__).resolve().parents[3] / "shared/cases/flows"
FLOWS = ("ev1_flow", "allof_flow", "argoev", "cond_flow", "xss_flow")
ONLY_DEPLOYED = ("hook_pass", "hook_sleep", "sleep_flow")
SECONDS = 300.0

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not beside this checkout")


@dataclass(frozen=True)
class Played:
    """What every flow came to, after events and runs by hand."""

    folder: Path
    refused: list[str]

    def run(self, deployment: str, number: int = 0) -> Run:
        with closing(State.open(self.folder / "state")) as state:
            return state.list_runs(deployment=deployment)[::-1][number]

    def log(self, deployment: str, number: int = 0) -> str:
        return Path(self.run(deployment, number).attempts[-1].folder, "log").read_text()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("cases")
    for name in (*FLOWS, *ONLY_DEPLOYED, "params_flow", "foreach200"):
        shutil.copy(CASES / f"{name}.py", folder)
    (folder / "inc.txt").write_text("hello\n")
    variables = environment({"DLPIPE_STATE": str(folder / "state"), "METAFLOW_USER": "alice"})

    def python(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    at_once = [f"{name}.py" for name in (*FLOWS, *ONLY_DEPLOYED)]
    assert set(python("-c", ALL_AT_ONCE, *at_once).split()) == {"0"}
    python("foreach200.py", "--no-pylint", "local-scheduler", "create", "--max-num-splits", "2")
    python("params_flow.py", "--no-pylint", "local-scheduler", "create", "--neg=-7")
    python("params_flow.py", "--no-pylint", "local-scheduler", "trigger", "--lst", "a b", "--lst", "-c")
    refused = []
    with closing(State.open(folder / "state")) as state, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLPIPE_STATE", str(folder / "state"))
        for deployment, parameters in (("ArgoEv", {}), ("CondFlow", {"n": 1}), ("Foreach200", {"n": 3})):
            state.add_run(deployment, cause="by hand", key="by hand", due=time.time(), parameters=parameters)
        for words in (
            ("solo", '{"who": "a\\u0000b"}'),
            ("solo", '{"lst": ["x", null]}'),
            ("solo", '{"lst": ["x", "y"], "sep": ["1", "2"], "who": "\\u0007 é", "num": 3}'),
            ("alpha", '{"x": 5, "obj": {"k": [1]}}'),
            ("alpha", '{"x": "no number"}'),
            ("beta", '{"y": "\\ud800"}'),
            ("beta", '{"y": "yes"}'),
            ("xss", '{"p": "<b>"}'),
        ):
            done = CliRunner().invoke(main, ["event", "publish", words[0], "--payload", words[1]])
            refused += [f"{words[0]}: {done.stderr}"] if done.exit_code else []
        play(state)
    return Played(folder, refused)


def play(state: State) -> None:
    """Be the scheduler until nothing is open."""
    until = time.monotonic() + SECONDS
    with Supervisor(state) as supervisor:
        while True:
            supervisor.reconcile(time.time())
            for run in decide(state, time.time(), max_runs=2):
                supervisor.start(run.number, time.time())
            if (
                not state.list_runs(status=OPEN, limit=1)
                and state.list_events_after(state.get_events_dealt()) == []
            ):
                return
            assert time.monotonic() < until, state.list_runs(status=OPEN)
            time.sleep(0.05)


def test_values_of_every_type_arrive_as_they_were_given(played: Played) -> None:
    said = played.log("ParamsFlow")
    assert "'lst': ('a b', '-c'), 'sep': ['1', '2', '3'], 'inc': 'hello\\n'" in said
    assert "'neg': -7, 'cfg': {'k': 1}}" in said


def test_what_no_run_can_be_given_was_refused_and_left_the_good_ones_alone(played: Played) -> None:
    assert [line.partition(":")[0] for line in played.refused] == ["solo", "solo", "alpha", "beta"]
    both = played.run("AllOfFlow")
    assert (both.status, both.parameters) == ("succeeded", {"a": 5, "j": {"k": [1]}, "b": "yes"})
    one = played.run("Ev1Flow")
    assert (one.status, one.parameters["lst"]) == ("succeeded", ["x", "y"])
    assert "'\\x07 é' 3 False {} (['x'], ['y']) ['1', '2'] solo" in played.log("Ev1Flow")


def test_what_a_flow_publishes_with_metaflows_own_class_starts_runs(played: Played) -> None:
    assert played.log("ArgoEv").count("Event (solo) published.") == 2
    started = [played.run("Ev1Flow", number) for number in (1, 2)]
    assert [run.status for run in started] == ["succeeded"] * 2
    assert [run.parameters.get("who") for run in started] == ["argo", None]


def test_a_limit_of_create_reaches_metaflow_and_a_switch_goes_its_way(played: Played) -> None:
    wide = played.run("Foreach200")
    assert (wide.status, len(wide.attempts)) == ("failed", 1)
    assert "yielded 3 child steps which is more than the current maximum of 2 children" in wide.reason
    assert played.run("CondFlow").status == "succeeded"


def test_markup_and_escapes_of_a_flow_stay_text(played: Played) -> None:
    failed = played.run("XssFlow")
    assert (failed.status, len(failed.attempts)) == ("failed", 1)
    assert "\x1b" not in failed.reason
    with closing(State.open(played.folder / "state")) as state:
        shown = make_app(state).test_client().get(f"/runs/{failed.number}").text
    assert "<img" not in shown
    assert 'href="javascript' not in shown
