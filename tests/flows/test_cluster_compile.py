"""The production flows as Argo Workflows, AWS Step Functions and Airflow get them, seen without a cluster."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from orchestrators import FLOWS, IMAGE, SHIPPED, STEPS, Cluster, cluster

import dlpipe

CRON = {"predict": "0 * * * ? *", "train": "0 0 ? * SUN *"}
"""``@schedule`` as Metaflow writes it down."""
EVENTS = {
    "explain": ("metaflow.PredictFlow.end", "run"),
    "monitor": ("metaflow.PredictFlow.end", "run"),
    "train": ("model-drifted", "event"),
}
NO_EVENTS = {"step-functions": "AWS Step Functions", "airflow": "Airflow"}
Compiled = dict[tuple[str, str], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as one:
        yield one


@pytest.fixture(scope="module")
def compiled(made: Cluster) -> Compiled:
    """The commands that compile, by orchestrator and flow; Argo and Step Functions have been given all as well."""
    asked = [(orchestrator, flow) for orchestrator in ("argo-workflows", "step-functions") for flow in FLOWS]
    dags = [("airflow", flow) for flow in FLOWS]
    done = made.flows(
        *((flow, orchestrator, "create", "--only-json") for orchestrator, flow in asked),
        *((flow, orchestrator, "create", f"{flow}_dag.py") for orchestrator, flow in dags),
        *((flow, orchestrator, "create") for orchestrator, flow in asked),
    )
    assert {one.returncode for one in done} == {0}, "\n".join(one.stdout + one.stderr for one in done)
    return dict(zip((*asked, *dags), done, strict=False))


@pytest.fixture(scope="module")
def templates(compiled: Compiled) -> dict[str, dict[str, Any]]:
    """What ``--only-json`` prints for Argo, by flow."""
    return {flow: json.loads(compiled["argo-workflows", flow].stdout) for flow in FLOWS}


def dag_of(made: Cluster, flow: str) -> dict[str, Any]:
    """Return what is assigned at the top of the file that Airflow imports."""
    statement = ast.parse((made.project / f"{flow}_dag.py").read_text()).body[0]
    assert isinstance(statement, ast.Assign)
    return ast.literal_eval(statement.value)


def containers(template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the containers of the steps of an Argo template, by step."""
    annotated = (one for one in template["spec"]["templates"] if "container" in one)
    found = {variables(one["container"]).get("METAFLOW_STEP_NAME"): one["container"] for one in annotated}
    return {step: container for step, container in found.items() if step}


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value") for one in container["env"]}


# -- Argo Workflows ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_argo_runs_every_step_in_the_image(flow: str, templates: dict[str, dict[str, Any]]) -> None:
    steps = containers(templates[flow])
    assert sorted(steps) == sorted(STEPS[flow])
    assert {container["image"] for container in steps.values()} == {IMAGE}
    for step, container in steps.items():
        assert f" step {step} --run-id argo-{{{{workflow.name}}}}" in container["command"][-1]


@pytest.mark.parametrize("flow", FLOWS)
def test_argos_json_notes_the_schedule(flow: str, templates: dict[str, dict[str, Any]]) -> None:
    noted = json.loads(templates[flow]["metadata"]["annotations"].get("metaflow/cron", "{}"))
    assert noted.get("schedule") == (" ".join(CRON[flow].split()[:5]) if flow in CRON else None)


@pytest.mark.parametrize("flow", FLOWS)
def test_what_argo_is_given_runs_on_schedule_and_by_events(flow: str, made: Cluster, compiled: Compiled) -> None:
    name = f"{flow}flow"
    assert made.kept["WorkflowTemplate", name]["spec"]["arguments"]["parameters"]
    assert made.kept.get(("CronWorkflow", name), {}).get("spec", {}).get("schedule") == (
        " ".join(CRON[flow].split()[:5]) if flow in CRON else None
    )
    assert sensed(made.kept.get(("Sensor", name))) == EVENTS.get(flow)


def sensed(sensor: dict[str, Any] | None) -> tuple[str, str] | None:
    """Return the name and the type of the event that a sensor waits for."""
    if sensor is None:
        return None
    (dependency,) = sensor["spec"]["dependencies"]
    name = next(one["expr"] for one in dependency["filters"]["exprs"] if one["expr"].startswith("name == "))
    ((trigger,),) = ([one["template"] for one in sensor["spec"]["triggers"]],)
    resource = next(source["source"]["resource"] for source in trigger.values() if isinstance(source, dict))
    (noted,) = json.loads(resource["metadata"]["annotations"]["metaflow/triggered_by"])
    assert name == f"name == '{noted['name']}'"
    return noted["name"], noted["type"]


# -- the code package --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_the_code_package_holds_the_flow_its_settings_and_dlpipe(
    flow: str, made: Cluster, templates: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (url,) = {variables(one)["METAFLOW_CODE_URL"] for one in containers(templates[flow]).values()}
    folder = made.unpacked(url, tmp_path)
    assert names(folder, "*.[pt]*") >= names(made.project / "flows", "*.[pt]*") > {f"{flow}_flow.py"}
    assert names(folder / ".mf_code/dlpipe", "**/*.py") == names(Path(dlpipe.__file__).parent, "**/*.py")
    assert (folder / ".mf_code/metaflow_extensions/dlpipe/plugins/mlflow_bridge.py").exists()


def names(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.glob(pattern)}


@pytest.mark.parametrize("flow", FLOWS)
def test_every_step_has_the_bridge_in_the_code_package(
    flow: str, made: Cluster, templates: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    url = variables(containers(templates[flow])["start"])["METAFLOW_CODE_URL"]
    given = {
        "PYTHONPATH": str(made.unpacked(url, tmp_path) / ".mf_code"),
        "METAFLOW_EXTRACTED_ROOT": str(tmp_path),
    }
    shown = subprocess.run(
        [sys.executable, f"{flow}_flow.py", "--quiet", "output-raw", "--json"],
        cwd=tmp_path,
        env={**made.variables, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    steps = json.loads(shown.stdout)["graph"]
    assert {name: "mlflow_bridge" in decorators(step) for name, step in steps.items()} == dict.fromkeys(
        STEPS[flow], True
    )


def decorators(step: dict[str, Any]) -> list[str]:
    return [one["name"] for one in step["decorators"]]


def test_a_bridge_that_is_attached_on_the_command_line_travels(made: Cluster) -> None:
    (made.project / "flows/plain_flow.py").write_text(PLAIN_FLOW)
    words = ("--with", "mlflow_bridge:required=true", "argo-workflows", "create", "--only-json")
    for container in containers(json.loads(made.said("plain", *words))).values():
        assert "--with mlflow_bridge:required=True" in container["command"][-1].replace("'", "")


PLAIN_FLOW = """
from metaflow import FlowSpec, step


class PlainFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    PlainFlow()
"""


# -- AWS Step Functions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_step_functions_runs_the_steps_in_their_order(flow: str, compiled: Compiled) -> None:
    machine, order = json.loads(compiled["step-functions", flow].stdout), []
    step = machine["StartAt"]
    while step:
        order.append(step)
        command = machine["States"][step]["Parameters"]["ContainerOverrides"]["Command"][-1]
        assert f"python {flow}_flow.py" in command
        assert f" step {step} --run-id sfn-" in command
        step = machine["States"][step].get("Next")
    assert order == STEPS[flow]


@pytest.mark.parametrize("flow", FLOWS)
def test_what_step_functions_is_given_runs_on_schedule(flow: str, made: Cluster, compiled: Compiled) -> None:
    name = f"{flow.capitalize()}Flow"
    names = [one["name"] for one in made.client("stepfunctions").list_state_machines()["stateMachines"]]
    rules = {one["Name"]: one["ScheduleExpression"] for one in made.client("events").list_rules()["Rules"]}
    assert name in names
    assert rules.get(name) == (f"cron({CRON[flow]})" if flow in CRON else None)


# -- Airflow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", FLOWS)
def test_airflow_gets_steps_schedule_image_and_the_parameters_that_have_a_value(
    flow: str, made: Cluster, compiled: Compiled
) -> None:
    dag = dag_of(made, flow)
    assert dag["graph_structure"] == STEPS[flow]
    assert {step["operator_args"]["image"] for step in dag["states"].values()} == {IMAGE}
    assert all("default" in one for one in dag["metaflow_params"])
    given = dag["dag_instantiation_params"]
    assert given["dag_id"] == f"{flow.capitalize()}Flow"
    assert given["schedule_interval"] == {"predict": "@hourly", "train": "@weekly"}.get(flow)


# -- what they have no means for ---------------------------------------------------------------------------------


@pytest.mark.parametrize("orchestrator", NO_EVENTS)
@pytest.mark.parametrize("flow", FLOWS)
def test_a_trigger_is_left_out_where_there_are_no_events_and_that_is_said(
    flow: str, orchestrator: str, compiled: Compiled
) -> None:
    said = compiled[orchestrator, flow].stderr
    decorator = {None: "", "event": "@trigger", "run": "@trigger_on_finish"}[EVENTS.get(flow, (None, None))[1]]
    assert (f"Left out, as {NO_EVENTS[orchestrator]} has no means for it: {decorator}" in said) or not decorator
    assert re.findall(r"@\w+", said) == [decorator] * bool(decorator)


def test_triggers_of_a_flow_that_is_not_portable_are_refused_there(made: Cluster) -> None:
    text = PLAIN_FLOW.replace("FlowSpec, step", "FlowSpec, step, trigger")
    text = text.replace("\nclass", '\n@trigger(event="news")\nclass')
    (made.project / "flows/triggered_flow.py").write_text(text)
    for words in (("step-functions", "create", "--only-json"), ("airflow", "create", "triggered_dag.py")):
        done = made.flow("triggered", *words)
        assert done.returncode == 1
        assert "@trigger" in done.stdout + done.stderr


def test_a_local_datastore_is_refused(made: Cluster) -> None:
    done = made.flow("predict", "--datastore", "local", "argo-workflows", "create", "--only-json")
    assert done.returncode == 1
    assert "datastore" in done.stdout + done.stderr


def test_every_production_flow_is_looked_at() -> None:
    assert {path.name for path in SHIPPED.glob("*_flow.py")} == {f"{name}_flow.py" for name in FLOWS}
