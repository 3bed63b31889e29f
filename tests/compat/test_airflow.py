"""The DAG files of the production flows, imported by a real Airflow."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from orchestrators import FLOWS, IMAGE, STEPS, cluster

pytestmark = pytest.mark.compat

HERE = Path(__file__).resolve().parent
PYTHON = HERE.parents[1] / ".venv-compat/bin/python"
SCHEDULES = {"predict": "0 * * * *", "explain": "None", "monitor": "None", "train": "0 0 * * 0"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Airflow sees of the four."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    with cluster(folder) as made:
        for flow in FLOWS:
            made.said(flow, "airflow", "create", str(folder / f"dags/{flow}.py"))
    own = {"AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    looked = subprocess.run(
        [PYTHON, HERE / "dags.py", folder / "dags"],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **own},
        capture_output=True,
        text=True,
    )
    assert looked.returncode == 0, looked.stderr
    return json.loads(looked.stdout.splitlines()[-1])


def test_airflow_imports_all_four_without_an_error(seen: dict[str, Any]) -> None:
    assert seen["errors"] == {}
    assert sorted(seen["dags"]) == sorted(f"{flow.capitalize()}Flow" for flow in FLOWS)


@pytest.mark.parametrize("flow", FLOWS)
def test_airflow_sees_schedule_tasks_and_their_order(flow: str, seen: dict[str, Any]) -> None:
    dag, steps = seen["dags"][f"{flow.capitalize()}Flow"], STEPS[flow]
    assert dag["schedule"] == SCHEDULES[flow]
    assert dag["tasks"] == {step: steps[at + 1 : at + 2] for at, step in enumerate(steps)}
    assert dag["operators"] == ["KubernetesPodOperator"]
    assert dag["images"] == [IMAGE]


def test_airflow_offers_the_parameters_that_have_a_value(seen: dict[str, Any]) -> None:
    assert seen["dags"]["PredictFlow"]["parameters"] == {
        "model": "reviews",
        "table": "reviews",
        "all-rows": "False",
    }
