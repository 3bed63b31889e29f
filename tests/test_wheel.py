"""What is in the wheel: it is built, installed into an environment of its own, and used there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from pages import blocks
from wheels import ROOT

from dlpipe.task import list_tasks

pytestmark = pytest.mark.slow

FLOW = """
from metaflow import FlowSpec, mlflow_bridge, step

import dlpipe


@mlflow_bridge
class SmallFlow(FlowSpec):
    @step
    def start(self):
        print("dlpipe is in", dlpipe.__file__)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    SmallFlow()
"""


def run(python: Path, folder: Path, *words: str, more: Mapping[str, str] | None = None) -> str:
    """What a command says that goes well, in an environment without this working tree."""
    leads_back = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(leads_back)}
    places = {"DLPIPE_STATE": str(folder / "state"), "METAFLOW_TOKEN_HOME": str(folder / "tokens")}
    done = subprocess.run(
        [str(python), *words],
        cwd=folder,
        env={**kept, **places, "METAFLOW_USER": "ana", **(more or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_metaflow_finds_the_bridge_and_the_scheduler_of_an_installed_wheel(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    where = run(installed, tmp_path, "-c", "from metaflow import mlflow_bridge as b; print(b.__module__)")
    assert where.startswith("metaflow_extensions.dlpipe")
    printed = run(installed, tmp_path, "flow.py", "run")
    assert str(installed.parents[1]) in printed  # not the working tree
    assert "MLflow" in printed  # has the run, or is a little behind


def test_nothing_differs_right_after_a_flow_was_deployed(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/flow.py").write_text(FLOW)
    run(installed, tmp_path, "flows/flow.py", "local-scheduler", "create")
    found = json.loads(run(installed, tmp_path, "flows/flow.py", "local-scheduler", "status", "--json"))
    assert not any(found["difference"].values()), found["difference"]


def test_a_flow_of_ones_own_runs_in_an_empty_folder_with_nothing_but_the_wheel(
    installed: Path, tmp_path: Path
) -> None:
    for block in [block for block in blocks("docs/flows.md") if block.note.startswith("file ")][:2]:
        path = tmp_path / block.note.removeprefix("file ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(block.text)
    rows = [f"{number} is {word},{word}" for number in range(40) for word in ("good", "bad")]
    (tmp_path / "rows.csv").write_text("\n".join(["review,sentiment", *rows]) + "\n")
    printed = run(installed, tmp_path, "flows/small_flow.py", "run", "--data", "rows.csv")
    assert "small@v0" in printed


SAMPLES = {
    "text-classification": "reviews",
    "text-multilabel": "tickets",
    "text-regression": "ratings",
    "text-pair-classification": "questions",
    "tabular-classification": "claims",
}
"""The file in data/sample for each task."""


@pytest.mark.projects  # in `make test`, test_init_project.py does this and more for one task
@pytest.mark.parametrize("task", list_tasks())
def test_a_project_of_an_installed_wheel_trains_and_its_tests_pass(
    installed: Path, tmp_path: Path, tiny_backbone: Path, task: str
) -> None:
    rows = (ROOT / f"data/sample/{SAMPLES[task]}.csv").read_text().splitlines(keepends=True)
    (tmp_path / "rows.csv").write_text("".join(rows[:301]))
    run(installed, tmp_path, "-m", "dlpipe.cli", "init", "mine", "--data", "rows.csv", "--task", task)
    quick = {"BACKBONE": str(tiny_backbone), "EPOCHS": "1", "TRIALS": "0"}
    more = {"HF_HUB_OFFLINE": "1", **{f"METAFLOW_RUN_{name}": value for name, value in quick.items()}}
    program = "import subprocess; subprocess.run(['bash', '-c', 'make train && make test'], check=True)"
    printed = run(installed, tmp_path / "mine", "-c", program, more=more)
    assert "registered   models:/mine/1 (challenger" in printed
    assert " 3 passed" in printed
    where = run(installed, tmp_path / "mine", "-c", "import dlpipe; print(dlpipe.__file__)")
    assert str(installed.parents[1]) in where  # not the working tree


def test_a_wheel_has_every_flow_of_the_repository(installed: Path) -> None:
    (there,) = installed.parents[1].glob("lib/python3*/site-packages/dlpipe/templates/project/flows")
    listed = subprocess.run(["git", "ls-files", "flows"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(file.name for file in there.iterdir() if file.is_file()) == sorted(
        Path(name).name for name in listed.stdout.split()
    )
