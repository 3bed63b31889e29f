"""Where MLflow is: real databases, real sockets."""

from __future__ import annotations

import contextlib
import http.server
import json
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow_schema import migrated_schema, statements
from stores import new_store, template, untouched_environment

from dlpipe.cli import portal
from dlpipe.errors import StorageFull, StoreNotFound, TrackingUnavailable
from dlpipe.redaction import show_address
from dlpipe.tracking import FLOW, _databases, find_page, open_store, to_dlpipe_error, touch_database
from dlpipe.tracking._databases import find_schema_file

TOUCH = """
import sys
from dlpipe.tracking import open_store
store = open_store({"MLFLOW_TRACKING_URI": sys.argv[1]}, create=True)
store.client().create_run(store.experiment("quiet"))
"""


@pytest.fixture(autouse=True)
def environment():
    with untouched_environment():
        yield


def touch(uri: str) -> None:
    """Open the store at ``uri`` and write a run, as one process of many."""
    store = open_store({"MLFLOW_TRACKING_URI": uri}, create=True)
    store.client().create_run(store.experiment("race"))


def refused(uri: str) -> str:
    """Return the message that opening ``uri`` gives, which must be one line and come within 10 seconds."""
    import mlflow.utils.rest_utils  # noqa: F401  # seconds on a busy machine, which the server does not take

    started = time.monotonic()
    with pytest.raises(TrackingUnavailable) as caught:
        open_store({"MLFLOW_TRACKING_URI": uri}, create=True)
    assert time.monotonic() - started < 10
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_eight_processes_at_once_make_one_good_database(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    template()  # imports what it takes: the forks do not spend their time on that, and arrive together
    touching = [multiprocessing.get_context("fork").Process(target=touch, args=(uri,)) for _ in range(8)]
    for process in touching:
        process.start()
    for process in touching:
        process.join()
    assert [process.exitcode for process in touching] == [0] * 8
    client = open_store({"MLFLOW_TRACKING_URI": uri}).client()
    experiment = client.get_experiment_by_name("race")
    assert experiment.artifact_location == str(tmp_path / "mlartifacts")
    assert len(client.search_runs([experiment.experiment_id])) == 8


def test_default_store_stands_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(template(), tmp_path)
    store = open_store({})
    assert store.uri == store.registry_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert store.artifact_location == str(tmp_path / "mlartifacts")
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("variable", ["", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_who_reads_makes_no_store_and_is_told_where_there_is_none(variable, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if variable == "MLFLOW_REGISTRY_URI":
        shutil.copy(template(), tmp_path)
    name = f"{variable}.db" if variable else "mlflow.db"
    given = {variable: f"sqlite:///{name}"} if variable else {}
    with pytest.raises(StoreNotFound, match=rf"{tmp_path / name}.*folder of the project.*{variable}"):
        open_store(given)
    assert not list(tmp_path.glob(f"{name}*"))
    assert open_store(given, create=True).registry_uri == f"sqlite:///{tmp_path / name}"


def test_relative_database_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(template(), tmp_path / "own.db")
    assert open_store({"MLFLOW_TRACKING_URI": "sqlite:///own.db"}).uri == f"sqlite:///{tmp_path / 'own.db'}"


def test_remains_of_a_killed_first_touch_do_no_harm(tmp_path):
    half = sqlite3.connect(tmp_path / "mlflow.db.new")
    half.execute("CREATE TABLE experiments (half INTEGER)")
    half.commit()
    half.close()
    (tmp_path / "mlflow.db").touch()
    touch_database(tmp_path / "mlflow.db", str(tmp_path / "mlartifacts"))
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["mlflow.db"]


def test_a_new_database_is_the_one_that_mlflows_migrations_would_have_made(tmp_path, monkeypatch):
    kept, made = find_schema_file().read_text(), migrated_schema(tmp_path)
    assert statements(kept) == statements(made), "run `python tests/mlflow_schema.py`"
    dumps = []
    for name, schema in (("quick", find_schema_file()), ("migrated", tmp_path / "no such file")):
        monkeypatch.setattr(_databases, "find_schema_file", lambda schema=schema: schema)
        (folder := tmp_path / name).mkdir()
        touch_database(folder / "mlflow.db", str(tmp_path / "mlartifacts"))
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as made:
            made.execute("UPDATE experiments SET creation_time = 0, last_update_time = 0")
            dumps.append(statements("\n".join(made.iterdump())))
    assert dumps[0] == dumps[1]
    assert any("mlartifacts" in line for lines in dumps[0] for line in lines)


@pytest.mark.parametrize("left", [None, b""], ids=["nothing", "an empty file"])
def test_a_database_that_was_taken_away_is_made_again_by_the_process_that_knew_it(tmp_path, left):
    new_store(tmp_path)
    database = tmp_path / "mlflow.db"
    database.unlink()
    if left is not None:
        database.write_bytes(left)
    open_store(create=True)
    with contextlib.closing(sqlite3.connect(database)) as made:
        assert made.execute("SELECT count(*) FROM experiments").fetchone() == (1,)


def test_opening_a_store_changes_no_global_of_mlflow(tmp_path):
    import mlflow

    store = new_store(tmp_path)
    mlflow.set_tracking_uri("sqlite:////nowhere/else.db")
    with store.as_default():
        assert mlflow.get_tracking_uri() == store.uri
    assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == "sqlite:////nowhere/else.db"


def test_telemetry_is_off_and_what_the_user_chose_stays(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    new_store(tmp_path)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_first_touch_says_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TOUCH, f"sqlite:///{tmp_path / 'mlflow.db'}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_folder_is_refused_with_what_to_do(tmp_path):
    assert "Unset it to use sqlite:///mlflow.db" in refused("./mlruns")
    assert "is a folder" in refused(f"file://{tmp_path}")


def test_a_mistyped_address_makes_no_folder(tmp_path):
    assert f"there is no folder '{tmp_path / 'nodir'}'" in refused(f"sqlite:///{tmp_path / 'nodir' / 'x.db'}")
    assert list(tmp_path.iterdir()) == []


def test_databricks_is_no_folder():
    assert open_store({"MLFLOW_TRACKING_URI": "databricks"}).uri == "databricks"


@pytest.mark.parametrize("place", ["file/mlflow.db", "folder", "text"])
def test_database_that_cannot_be_written_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("not a database, but long enough to look like one. " * 40)
    assert f"{tmp_path / place} cannot be used" in refused(f"sqlite:///{tmp_path / place}")


def test_full_disk_is_named():
    assert isinstance(
        to_dlpipe_error(sqlite3.OperationalError("database or disk is full"), asked="x"), StorageFull
    )


def test_closed_port_is_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://ana:secret@127.0.0.1:{taken.getsockname()[1]}"
    message = refused(uri)
    assert "connection refused" in message
    assert "secret" not in message


def test_server_that_never_answers_is_refused_within_ten_seconds():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert "no answer" in refused(f"http://127.0.0.1:{listening.getsockname()[1]}")


def test_server_that_answers_500_is_refused():
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(500)

        def log_message(self, *parts):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    assert "it says 500" in refused(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def answering(status: int, body: bytes = b"", **headers: str) -> Iterator[str]:
    """A server that gives everybody the same answer; its address."""

    class Same(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *parts):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401,), ("401", "MLFLOW_TRACKING_USERNAME")),
        ((403, b"not you"), ("403 Forbidden: not you", "MLFLOW_TRACKING_USERNAME")),
        ((404,), ("none of MLflow's", "MLFLOW_TRACKING_URI")),
        ((200, b"<html>another page</html>"), ("none of MLflow's", "MLFLOW_TRACKING_URI")),
        ((200, b'{"experiments": "no"}'), ("none of MLflow's", "MLFLOW_TRACKING_URI")),
        ((200, b'{"status": "ok"}'), ("none of MLflow's", "MLFLOW_TRACKING_URI")),
    ],
)
def test_a_server_that_cannot_be_read_is_refused_with_what_to_change(answer, says):
    with answering(*answer) as uri:
        message = refused(uri)
    assert all(part in message for part in says)


def test_a_server_that_sends_us_elsewhere_is_refused_with_the_other_address():
    with answering(302, Location="https://ana:secret@other.example/api/2.0/mlflow/experiments/search?x=1") as uri:
        message = refused(uri)
    assert "other.example)" in message
    assert "secret" not in message


def test_credentials_that_a_server_refuses_are_named_by_their_variables(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdef")
    with answering(401) as uri:
        assert "Correct the credentials in MLFLOW_TRACKING_TOKEN" in refused(uri)


def test_a_run_may_do_in_a_good_store_what_it_has_to_and_nothing_is_left_of_the_look(tmp_path):
    store = new_store(tmp_path)
    for _ in range(2):
        store.check("TrainFlow", model="reviews")
    client = store.client()
    assert [one.name for one in client.search_registered_models()] == []
    assert client.search_runs([store.experiment("TrainFlow")]) == []
    assert not [path for path in (tmp_path / "mlartifacts").rglob("*") if path.is_file()]
    client.create_registered_model("reviews")
    store.check("TrainFlow", model="reviews")
    assert client.get_registered_model("reviews").tags == {}


def test_artifacts_that_cannot_be_written_are_said_before_a_run(tmp_path):
    store = new_store(tmp_path)
    (tmp_path / "mlartifacts").write_text("in the way")
    with pytest.raises(TrackingUnavailable, match="does not let a run put files into"):
        store.check("TrainFlow")


@pytest.mark.parametrize("name", ["half%20way", "is it?"])
def test_a_folder_that_no_address_of_a_database_can_name_is_refused(tmp_path, monkeypatch, name):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(TrackingUnavailable, match="Rename the folder"):
        open_store({}, create=True)
    assert list(tmp_path.rglob("*.db")) == []


def test_deleted_experiment_is_named_with_the_way_back(tmp_path):
    store = new_store(tmp_path)
    store.client().delete_experiment(store.experiment("gone"))
    with pytest.raises(TrackingUnavailable, match="mlflow experiments restore --experiment-id 1"):
        store.experiment("gone")


def test_artifacts_go_beside_the_database_even_with_a_space_in_the_path(tmp_path):
    place = tmp_path / "my project"
    store = new_store(place)
    client = store.client()
    run = client.create_run(store.experiment("e")).info.run_id
    client.log_text(run, "hello", "note.txt")
    assert [path.name for path in Path(place, "mlartifacts").rglob("*.txt")] == ["note.txt"]


def test_password_is_never_shown():
    assert show_address("http://ana:secret@host:5000/x") == "http://[redacted]@host:5000/x"


def test_pages_open_on_the_runs_of_the_flow_that_ran_last_with_what_compares_them(tmp_path):
    client = (store := new_store(tmp_path)).client()
    assert find_page(client) == "#/experiments?workflowType=machine_learning"
    for flow, at in (("TrainFlow", 2), ("OtherFlow", 1)):
        experiment = store.experiment(flow)
        for rate in ("0.1", "0.2"):
            run = client.create_run(experiment, start_time=at, tags={FLOW: flow}).info.run_id
            client.log_param(run, "training/learning_rate", rate)
            client.log_param(run, "epochs", "2")
            client.log_inputs(run, [DatasetInput(Dataset("reviews@v0", "1", "local", "{}"), [])])
            folds = ("fold/accuracy", "fold/accuracy/mean")
            for name in (*folds, "baseline/accuracy", "train/val_accuracy", "accuracy_limit", "evaluate/f1"):
                client.log_metric(run, name, 0.5)
        client.create_run(experiment, start_time=9)  # not a flow's
    page = find_page(client)
    number = store.experiment("TrainFlow")
    assert page == f"#/experiments/{number}/runs?workflowType=machine_learning&viewStateShareKey=dlpipe"
    tag = client.get_experiment(number).tags["mlflow.sharedViewState.dlpipe"]
    assert [column.strip("`") for column in json.loads(tag)["selectedColumns"]] == [
        "metrics.`train/val_accuracy",
        "metrics.`evaluate/f1",
        "attributes.`Dataset",
        "params.`training/learning_rate",
        "params.`epochs",
        "metrics.`baseline/accuracy",
    ]
    order = json.loads(tag)["columnOrder"]
    assert order[:3] == ["attributes.`Run Name`", "runDateAndNestInfo", "metrics.`train/val_accuracy`"]
    assert set(order) == json.loads(tag)["columnWidths"].keys()
    assert f"#/experiments/{store.experiment('OtherFlow')}/" in find_page(client, "OtherFlow")
    with pytest.raises(TrackingUnavailable, match=r"There is no experiment 'Nosuch'\. There are: .*TrainFlow"):
        find_page(client, "Nosuch")


def test_while_the_portal_is_open_its_table_gains_the_columns_in_which_new_runs_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(portal, "REFRESH_SECONDS", 0.1)
    client = (store := new_store(tmp_path)).client()
    experiment = store.experiment("TrainFlow")

    def add_run(dropout: str) -> None:
        client.log_param(client.create_run(experiment, tags={FLOW: "TrainFlow"}).info.run_id, "dropout", dropout)

    def is_shown() -> bool:
        view = client.get_experiment(experiment).tags["mlflow.sharedViewState.dlpipe"]
        return "params.`dropout`" in json.loads(view)["selectedColumns"]

    add_run("0.1")
    find_page(client)
    assert not is_shown()
    server = subprocess.Popen(["sleep", "600"])
    waiting = threading.Thread(target=portal.wait_until_closed, args=(server, store, None))
    waiting.start()
    try:
        add_run("0.2")
        deadline = time.monotonic() + 60
        while not is_shown() and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        server.kill()
        waiting.join()
    assert is_shown()
