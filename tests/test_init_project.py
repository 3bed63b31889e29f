"""A project that `dlpipe init` of a wheel made is used as its README says and debugged as launch.json says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from debugging import Debugger, configuration, last_line
from texts import reviews, write_csv
from warm import WarmPython

from dlpipe.orchestrator.deployments import Version
from dlpipe.orchestrator.state import State
from dlpipe.templates import make_project

pytestmark = pytest.mark.slow

NOT_INHERITED = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "RAY_", "PYTEST_", "AWS_", "MAKE", "MFLAGS", "PYTHON")

CHANGED = "run --epochs 1"
"""Of the README's command that is run in a debugger."""


@pytest.fixture(scope="module")
def environment(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What commands see: nothing that leads to other places, and settings that make them quick."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    quick = {"BACKBONE": str(tiny_backbone), "LEARNING_RATE": "5e-3", "BATCH_SIZE": "16", "TRIALS": "0"}
    own = {"DLPIPE_STATE": str(tmp_path_factory.mktemp("state")), "METAFLOW_USER": "ana", "HF_HUB_OFFLINE": "1"}
    return {**kept, **own, **{f"METAFLOW_RUN_{name}": value for name, value in quick.items()}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, installed: Path, environment: dict[str, str]) -> Path:
    """A project that was just made."""
    folder = tmp_path_factory.mktemp("projects")
    write_csv(folder / "films.csv", reviews(), "text,label")
    run(f"{installed} -m dlpipe.cli init films --data films.csv", folder, environment)
    return folder / "films"


@pytest.fixture
def variables(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process see what the commands see."""
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.long
def test_every_command_of_the_readme_works(project: Path, environment: dict[str, str]) -> None:
    commands = [command for command in list_commands(project) if CHANGED not in command]
    assert commands[:2] == ["make train\n", "make test\n"]
    first, *others = commands
    warm = WarmPython(project / ".venv/bin/python", environment)
    said = run(first, project, {**environment, "MAKEFLAGS": f"BIN={warm.bin}"})
    warm.end()
    said += run("\n".join(others), project, environment)
    assert "registered   models:/films/1 (challenger, champion)" in said
    assert re.search(r"^=+ 3 passed", said, re.MULTILINE)
    assert "Task finished successfully" in said.rpartition("Spinning up step evaluate")[2]


def list_commands(project: Path) -> list[str]:
    """Return the blocks of the README that are for a shell."""
    readme = (project / "README.md").read_text()
    return re.findall(r"^```sh\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)


def test_its_environment_has_the_wheel_and_not_this_tree(
    project: Path, installed: Path, environment: dict[str, str]
) -> None:
    where = run(".venv/bin/python -c 'import dlpipe; print(dlpipe.__file__)'", project, environment)
    assert where.startswith(str(installed.parents[1]))


@pytest.mark.long
def test_the_step_that_trains_can_be_run_again_by_itself(project: Path, environment: dict[str, str]) -> None:
    said = run(".venv/bin/python flows/train_flow.py spin train", project, environment)
    assert re.search(r"weights [0-9a-f]{64}", said)


def test_two_projects_deploy_a_flow_of_one_name_each(
    project: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    own = {name: value for name, value in environment.items() if name != "DLPIPE_STATE"}
    variables = {**own, "HOME": str(tmp_path / "home"), "METAFLOW_TOKEN_HOME": str(tmp_path / "tokens")}
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        variables.pop(name, None)
    data = write_csv(tmp_path / "songs.csv", reviews(), "text,label")
    other = make_project(tmp_path / "songs", str(data)).folder
    for folder, epochs in ((project, 2), (other, 3)):
        create = f".venv/bin/python flows/train_flow.py local-scheduler create --set training.epochs={epochs}"
        run(create, folder, variables)
    versions = [read_deployed(folder / ".dlpipe/state") for folder in (project, other)]
    assert [(version.deployment, version.number) for version in versions] == [("TrainFlow", 1)] * 2
    assert [version.folder for version in versions] == [str(project), str(other)]
    assert [version.parameters["set"] for version in versions] == ["training.epochs=2", "training.epochs=3"]
    assert (other / ".dlpipe/state").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "home/.local/state/dlpipe/state.db").exists()
    listed = run(".venv/bin/dlpipe deployments --json", other, variables)
    assert [deployment["deployment"] for deployment in json.loads(listed)] == ["TrainFlow"]


def read_deployed(folder: Path) -> Version:
    """Return the version of the only deployment in a state folder."""
    with closing(State.open(folder)) as state:
        (deployment,) = state.list_deployments()
        return deployment.version


@pytest.mark.long
def test_a_debugger_stops_at_a_breakpoint_inside_a_step(project: Path, tmp_path: Path, variables: None) -> None:
    (command,) = [command for command in list_commands(project) if CHANGED in command]
    launch = configuration(project / ".vscode/launch.json", "Train")
    flow = project / "flows/train_flow.py"
    started = f"python {flow.relative_to(project)} {' '.join(launch['args'])}"
    assert command.startswith(started)
    launch["args"] += command.removeprefix(started).split()
    line = last_line(flow, "train")
    debugger = Debugger((flow, line), "str(self.data_version)")
    debugger.run(launch, tmp_path / "log", python=str(project / ".venv/bin/python"))
    said = (tmp_path / "log").read_text()
    assert debugger.exit_code == 0, said
    assert [(name, at) for name, at, _ in debugger.stops] == [("train", line)]
    assert re.fullmatch(r"'films@v\d+'", debugger.stops[0][2])
    assert debugger.processes > 7  # that of each step
    assert "pydevd" not in said
    assert "Done!" in said
    assert "epoch 1/1" in said  # as the command changed it


def run(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Return what a command says that goes well."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
