"""The `dlpipe` command, as a person and a program would use it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest
import requests
from click.testing import CliRunner
from stores import make_scores, new_store, untouched_environment

from dlpipe.cli import main
from dlpipe.inference import predict_frame
from dlpipe.registry import log_and_register, promote
from dlpipe.tables import read_table, table_at
from dlpipe.task import open_predictor
from dlpipe.time_formats import format_moment, to_moment
from dlpipe.tracking import open_store

COMMANDS = sorted(main.commands)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A project folder with its store, as the working directory."""
    before = os.getcwd()
    with untouched_environment():
        folder = tmp_path_factory.mktemp("project")
        os.chdir(folder)
        os.environ.pop("DLPIPE_TABLES", None)
        yield new_store(folder)
    os.chdir(before)


@pytest.fixture(scope="module")
def champion(store, tiny_model):
    version = log_and_register(
        tiny_model,
        name="reviews",
        experiment="train",
        run_name="register",
        example=["the film was good"],
        params={},
        scores=make_scores(accuracy=0.9),
        tags={"delta.table": "data/tables/reviews", "delta.version": "0"},
    )
    return promote(version, verdict_passed=True).version


def dlpipe(*words: str, given: str | bytes | None = None):
    return CliRunner().invoke(main, list(words), input=given)


def said(*words: str, given: bytes | None = None) -> str:
    """Return what a command that fails as expected says: one line on stderr, exit code 1."""
    result = dlpipe(*words, given=given)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_help_names_every_command_and_comes_at_once():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dlpipe.cli", "--help"], capture_output=True, text=True
    )
    assert time.monotonic() - started < 3  # 0.1 s on a quiet machine
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"mlflow", "torch", "pandas", "pyarrow", "deltalake", "numpy"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command):
    shown = dlpipe(command, "--help").output
    assert f"  dlpipe {command}" in shown.partition("Example")[2]


def list_commands(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from list_commands(command, *words, name)


def test_every_help_is_made_of_whole_sentences():
    for words, command in list_commands(main):
        shown = dlpipe(*words, "--help").stdout
        assert not re.search(r"^(?!Usage:).*[a-z]\.\.\.$", shown, flags=re.MULTILINE), words
        sentences = [command.help, *(option.help for option in command.params if isinstance(option, click.Option))]
        assert all((text and text.strip()[-1] in ".]") or "Example" in text for text in sentences), words


def test_misspelt_command_is_corrected():
    result = dlpipe("modles")
    assert result.exit_code != 0
    assert "models" in result.stderr


def test_models_lists_versions_with_aliases_and_accuracy(champion):
    lines = dlpipe("models").stdout.splitlines()
    assert lines[0].split() == ["model", "version", "aliases", "accuracy", "engine", "table", "weights", "uri"]
    assert lines[1].startswith("reviews  1        challenger, champion  0.900     torch ")
    assert lines[1].split()[-3:-1] == ["reviews@v0", champion.digest[:12]]


def test_a_model_where_a_command_belongs_is_answered_with_the_command_that_shows_it(champion):
    result = dlpipe("models", "reviews")
    assert result.exit_code == 2
    assert "To show a model: dlpipe models show reviews" in result.stderr


def test_models_speak_json(champion):
    (row,) = json.loads(dlpipe("models", "--json").stdout)
    assert (row["uri"], row["aliases"], row["accuracy"]) == (champion.uri, ["challenger", "champion"], 0.9)


def test_predict_takes_arguments_and_standard_input(champion, tiny_model):
    texts = ["the film was good", "awful plot and all"]
    expected = predict_frame(open_predictor(tiny_model), texts).to_dict("records")
    for result in (
        dlpipe("predict", "--model", "models:/reviews@champion", "--json", *texts),
        dlpipe("predict", "--model", "reviews", "--json", given="\n".join([texts[0], "", texts[1]])),
    ):
        rows = json.loads(result.stdout)
        assert [row["text"] for row in rows] == texts
        assert [row["predicted"] for row in rows] == [row["predicted"] for row in expected]
        assert rows[0]["probability"] == pytest.approx(expected[0]["probability"], abs=1e-5)
    assert dlpipe("predict", "--model", "reviews", texts[0]).stdout.splitlines()[0].startswith("text ")


def test_predict_reads_standard_input_in_the_encoding_that_is_named_and_proposes_one(champion):
    text = "the film was d\xe9j\xe0 vu"
    wrong = dlpipe("predict", "--model", "reviews", given=f"good film\n{text}\n".encode("cp1252"))
    assert (wrong.exit_code, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "Standard input, line 2 is no utf-8: " in wrong.stderr
    assert "It is likely cp1252: pass --encoding cp1252." in wrong.stderr
    for given in (text.encode("utf-16"), text.encode("utf-8-sig")):
        (row,) = json.loads(dlpipe("predict", "--model", "reviews", "--json", given=given).stdout)
        assert row["text"] == text
    wide = dlpipe("predict", "--model", "reviews", given=text.encode("utf-16-le"))
    assert "It is likely utf-16-le: pass --encoding utf-16-le." in wide.stderr
    named = ["--encoding", "cp1252", "--json"]
    (row,) = json.loads(dlpipe("predict", "--model", "reviews", *named, given=text.encode("cp1252")).stdout)
    assert row["text"] == text
    assert "There is no encoding" in said("predict", "--model", "reviews", "--encoding", "cp-1", given=b"x")
    assert "Text 1 of the command line is no UTF-8" in said("predict", "--model", "reviews", "caf\udce9")


def test_predict_without_a_text_or_with_an_unknown_model_is_one_line(champion):
    assert "No text to predict" in said("predict", "--model", "reviews")
    for command in ("predict", "explain"):
        assert "Text 2 of the command line is empty" in said(command, "--model", "reviews", "a film", " ")
    assert "leave out one of them" in said("predict", "--model", "reviews", "--encoding", "cp1252", "a film")
    assert "there are reviews" in said("predict", "--model", "models:/review@champion", "x")
    assert "has no version 9; it has 1" in said("predict", "--model", "reviews/9", "x")


def test_tables_lists_latest_versions_and_a_history(store, tiny_table, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", tiny_table.path.rpartition("/")[0])
    rows = json.loads(dlpipe("tables", "--json").stdout)
    (row,) = [row for row in rows if row["table"] == "reviews"]
    assert (row["version"], row["rows"]) == (tiny_table.version, tiny_table.rows)
    (commit,) = json.loads(dlpipe("tables", "reviews", "--json").stdout)
    assert (commit["version"], commit["rows"]) == (0, tiny_table.rows)
    assert row["written"] == commit["written"] == to_moment(tiny_table.timestamp).isoformat()
    for words in (("tables",), ("tables", "reviews")):
        assert format_moment(to_moment(tiny_table.timestamp)) in dlpipe(*words).stdout
    assert "nowhere" in said("tables", "nowhere")


def test_columns_may_be_called_as_in_the_table(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    files = {
        "own.csv": "text,label\nA fine film.,good\nA dull film.,bad\n",
        "own.jsonl": '{"text": "A long film."}\n{"text": "A short film.", "label": "good"}\n',
        "ingested.csv": "review,sentiment,text\nA lovely film.,good,not this\n",
        "neither.csv": "body,label\nA loud film.,good\n",
    }
    for name, rows in files.items():
        (tmp_path / name).write_text(rows)
    path = {name: str(tmp_path / name) for name in files}
    made = dlpipe("append", "reviews", path["own.csv"], "--new")  # of a task whose files say review and sentiment
    assert "reviews@v0: 2 new rows, 2 with a label" in made.stdout
    assert "own.csv' has no column 'review': its 'text' is read" in made.stderr
    assert "own.csv' has no column 'sentiment': its 'label' is read" in made.stderr
    more = dlpipe("append", "reviews", path["own.jsonl"], path["ingested.csv"])
    assert "reviews@v1: 3 new rows, 2 with a label" in more.stdout
    texts = read_table(table_at("reviews"), columns=["text"])["text"].to_pylist()
    assert set(texts) == {"A fine film.", "A dull film.", "A long film.", "A short film.", "A lovely film."}
    assert "has no column 'review'" in said("append", "reviews", path["neither.csv"])
    # a name that somebody gave is the one that is meant
    refused = said("append", "reviews", path["own.csv"], "--text-column", "review")
    assert "has no column 'review'" in refused
    assert "has no column 'sentiment'" in said("append", "reviews", path["own.csv"], "--label-column", "sentiment")


def test_a_mistyped_table_is_not_made_by_an_append(store, tmp_path, monkeypatch):
    monkeypatch.setenv("DLPIPE_TABLES", str(tmp_path / "tables"))
    (tmp_path / "new.csv").write_text("review,sentiment\nA fine film.,good\n")
    made = dlpipe("append", "reviews", str(tmp_path / "new.csv"), "--new")
    assert "reviews@v0: 1 new rows" in made.output
    line = said("append", "revews", str(tmp_path / "new.csv"))
    assert "has the tables: reviews" in line
    assert "--new" in line
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["reviews"]


def test_nothing_yet_says_what_to_do(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = dlpipe("tables")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "run flows/train_flow.py" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("models",),
        ("models", "show", "reviews"),
        ("models", "promote", "reviews/1"),
        ("models", "rollback", "reviews"),
        ("models", "delete", "reviews/1", "--yes"),
        ("compare", "reviews/1", "reviews/2"),
        ("predict", "--model", "reviews", "good film"),
        ("explain", "--model", "reviews", "good film"),
        ("feedback", "reviews"),
        ("ui",),
    ],
    ids=" ".join,
)
def test_in_a_folder_that_is_no_project_nothing_is_made(words, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    said_there = said(*words)
    assert str(tmp_path / "mlflow.db") in said_there
    assert "Stand in the folder of the project" in said_there
    assert list(tmp_path.iterdir()) == []


def test_dead_server_is_one_line(monkeypatch, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "does not answer" in said("models")
    assert "does not answer" in said("ui")


def test_taken_port_is_refused(store):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port} is taken" in said("ui", "--port", port)


@pytest.fixture(scope="module")
def portal(champion):
    """A running ``dlpipe ui``: the process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dlpipe.cli", "ui"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    yield process, process.stdout.readline().partition("/#")[0]
    if process.poll() is None:
        process.kill()


def test_portal_serves_the_project_and_registers_over_http(portal, champion, tiny_model, monkeypatch):
    _, address = portal
    assert requests.get(f"{address}/health", timeout=5).text == "OK"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    again = log_and_register(
        tiny_model,
        name="over-http",
        experiment="http",
        run_name="register",
        example=["the film was good"],
        params={"epochs": 3},
        scores=make_scores(accuracy=0.8),
        tags={},
    )
    assert (again.version, again.digest) == (1, champion.digest)
    assert open_store().client().get_run(again.run_id).info.status == "FINISHED"
    assert json.loads(dlpipe("predict", "--model", "over-http@challenger", "good film", "--json").stdout)
    assert dlpipe("ui").stdout.strip() == f"{address}/#/experiments?workflowType=machine_learning"


def test_ctrl_c_closes_the_portal_and_every_process_of_it(portal):
    process, address = portal
    group = children(process.pid)
    assert group
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    assert not [pid for pid in group if alive(pid)]
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/health", timeout=2)


def children(pid: int) -> list[int]:
    """Return the processes below ``pid``, from /proc."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat:
                parents[int(name)] = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = [child for child, parent in parents.items() if parent == pid]
    return found + [below for child in found for below in children(child)]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
