"""What asks a server: `dlpipe predict --url`, and MLflow's deployments."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException
from served import Server, serving, to_near
from stores import new_store, untouched_environment

from dlpipe.cli import main
from dlpipe.inference import load_predictor, predict_frame, register_pipeline
from dlpipe.registry import log_and_register, promote, resolve

pytestmark = pytest.mark.slow

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]


@pytest.fixture(scope="module")
def server(tmp_path_factory, tiny_model) -> Iterator[Server]:
    """A server of two versions, the first of them champion, and a pipeline."""
    with untouched_environment():
        new_store(tmp_path_factory.mktemp("serving"))
        versions = [
            log_and_register(
                tiny_model,
                name="reviews",
                example=TEXTS[:2],
                params={},
                tags={"delta.table": "t", "delta.version": str(number), "delta.digest": "d"},
            )
            for number in range(2)
        ]
        register_pipeline(versions[0])
        promote(versions[0])
        with serving() as running:
            yield running


def run(*words: str) -> str:
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("model", ["reviews", "reviews/2", "reviews@challenger", "reviews-pipeline"])
def test_a_server_answers_what_the_command_answers_here(model: str, server: Server) -> None:
    words = ["predict", "--model", model, "--json", *TEXTS]
    here, there = json.loads(run(*words)), json.loads(run(*words, "--url", server.address))
    assert here == there
    assert len(here) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nothing"], "No model 'nothing' is registered"),
        (["--model", "reviews@best"], "'reviews' has no alias 'best'"),
        (["--model", "reviews", "--engine", "torch"], "dlpipe serve --engine"),
        (["--model", "reviews", "--url", "http://127.0.0.1:1"], "No server answers at http://127.0.0.1:1"),
        (["--model", "reviews", "--url", "127.0.0.1:1"], "is no address of a server"),
    ],
)
def test_what_a_server_refuses_is_a_line(words: list[str], message: str, server: Server) -> None:
    done = CliRunner().invoke(main, ["predict", "--url", server.address, *words, "good"])
    assert done.exit_code in (1, 2)
    assert message in done.output
    assert "Traceback" not in done.output


# MLflow's deployments -------------------------------------------------------------------------------------------


def test_a_deployment_is_an_alias_that_the_server_follows(server: Server) -> None:
    target = server.address.replace("http:", "dlpipe:")
    client = get_deploy_client(target)
    made = client.create_deployment("reviews@staging", "models:/reviews/1")
    assert (made["name"], made["version"]) == ("reviews@staging", 1)
    with pytest.raises(MlflowException, match="Update it instead"):
        client.create_deployment("reviews@staging", "models:/reviews/2")
    assert client.update_deployment("reviews@staging", "models:/reviews/2")["version"] == 2
    assert resolve("reviews@staging").version == 2
    listed = {one["name"]: one["model_uri"] for one in client.list_deployments()}
    assert listed["reviews"] == "models:/reviews/1"
    assert listed["reviews@staging"] == "models:/reviews/2"
    assert client.get_deployment("reviews@staging")["version"] == 2

    frame = pd.DataFrame({"text": TEXTS})
    got = client.predict("reviews@staging", frame).get_predictions()
    local = predict_frame(load_predictor("models:/reviews/2"), TEXTS)
    pd.testing.assert_frame_equal(got, local, check_dtype=False)
    (explained,) = client.explain("reviews@staging", frame[:1])
    assert [part["part"] for part in explained["parts"]] == TEXTS[0].split()

    client.delete_deployment("reviews@staging")
    client.delete_deployment("reviews@staging")
    assert "reviews@staging" not in {one["name"] for one in client.list_deployments()}


def test_an_alias_that_was_asked_for_before_it_was_there_can_be_created(server: Server) -> None:
    client = get_deploy_client(server.address.replace("http:", "dlpipe:"))
    with pytest.raises(MlflowException, match="no alias 'late'"):
        client.get_deployment("reviews@late")
    try:
        assert client.create_deployment("reviews@late", "models:/reviews/1")["version"] == 1
    finally:
        client.delete_deployment("reviews@late")


def test_the_champion_is_moved_with_its_companions_and_not_taken_away(server: Server) -> None:
    client = get_deploy_client(server.address.replace("http:", "dlpipe:"))
    with pytest.raises(MlflowException, match="it is moved, and not taken away"):
        client.delete_deployment("reviews")
    register_pipeline(resolve("reviews/2"))
    try:
        assert client.update_deployment("reviews", "models:/reviews/2")["version"] == 2
        assert resolve("reviews-pipeline").version == 2
    finally:
        promote(resolve("reviews/1"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.predict("nothing", ["a"]), "No model 'nothing'"),
        (lambda client: client.get_deployment("reviews/1"), "is a version"),
        (lambda client: client.create_deployment("a@b", "models:/reviews/1"), "is another model"),
        (lambda client: client.create_deployment("reviews@b", "models:/reviews/9"), "has no version 9"),
        (
            lambda client: client.create_deployment("reviews@b", "models:/reviews/1", flavor="onnx"),
            "flavor 'onnx'",
        ),
        (lambda client: client.create_deployment("reviews@b", "models:/reviews/1", config={"a": 1}), "option 'a'"),
        (lambda client: client.update_deployment("reviews@b", "models:/reviews/1"), "no deployment 'reviews@b'"),
        (lambda client: client.update_deployment("reviews"), "Nothing to update"),
        (lambda client: client.predict("reviews", [None]), "Row 0 is missing"),
        (
            lambda client: client.predict("reviews", [{"text": float("nan")}]),
            "NaN .* Pass None",
        ),
    ],
)
def test_what_is_wrong_is_said_as_mlflow_does(call, message: str, server: Server) -> None:
    with pytest.raises(MlflowException, match=message):
        call(get_deploy_client(server.address.replace("http:", "dlpipe:")))


def test_mlflows_commands_work(server: Server, tmp_path: Path) -> None:
    target = server.address.replace("http:", "dlpipe:")
    asked = tmp_path / "asked.json"
    asked.write_text(json.dumps([{"text": text} for text in TEXTS]))

    def call(word: str, *words: str) -> str:
        command = [sys.executable, "-m", "mlflow", "deployments", word, "-t", target, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=server.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "deployment reviews@cli is created" in call(
        "create", "--name", "reviews@cli", "-m", "models:/reviews/1"
    )
    assert "is updated" in call("update", "--name", "reviews@cli", "-m", "models:/reviews/2")
    got = json.loads(call("predict", "--name", "reviews@cli", "-I", str(asked)))
    answers = predict_frame(load_predictor("models:/reviews/2"), TEXTS).to_dict("records")
    assert got["predictions"] == to_near(answers)
    assert "points an alias" in call("help")
