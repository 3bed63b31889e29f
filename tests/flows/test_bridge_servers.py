"""The bridge with real servers: many runs at once, passwords, outages, and MLflow that was never there."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import dlpipe, without_system
from projects import Done, warm_python
from servers import (
    ADMIN,
    BRIDGED,
    PASSWORD,
    SHAPES,
    Folder,
    auth_server,
    free_port,
    kill,
    mlflow_server,
    new_database,
    postgresql,
    postgresql_programs,
    silent_server,
    wait_until,
)

EXTRA_SECONDS = 5.0
"""By how much the bridge may lengthen a run, at most."""


# -- many runs at once -----------------------------------------------------------------------------------------


def assert_runs_at_once_are_mirrored(folder: Folder, *, together: int) -> None:
    """Start runs at the same moment: none fails, and each is complete in MLflow or marked as behind."""
    command = (str(warm_python().bin / "python"), str(SHAPES / "quick_flow.py"), *BRIDGED)
    (folder.folder / ".metaflow").mkdir()  # Metaflow itself fails where two first runs make it at once
    started = [folder.start(*command) for _ in range(together)]
    ended = [(process, process.communicate(timeout=200)[0]) for process in started]
    assert [process.returncode for process, _ in ended] == [0] * together, "\n".join(said for _, said in ended)
    assert not [said for _, said in ended if PASSWORD in said]
    marked = set(folder.behind())
    compared = dlpipe(
        "bridge", "check", "QuickFlow", "--json", folder=folder.folder, environment=folder.environment
    )
    differing = {"/".join(one["key"].split("/")[:2]) for one in json.loads(compared.stdout)}
    assert differing <= marked
    folder.bridge("sync", "QuickFlow")
    assert folder.bridge("check", "QuickFlow") == "0 differences\n"
    assert folder.behind() == []


@pytest.mark.long
def test_eight_runs_at_once_are_mirrored_into_a_fresh_sqlite_store(tmp_path: Path) -> None:
    assert_runs_at_once_are_mirrored(Folder(tmp_path), together=8)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URI of an empty database of a PostgreSQL server."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver psycopg2-binary is not installed")
    with postgresql(programs) as uri:
        yield uri


def test_four_runs_at_once_are_mirrored_into_a_fresh_postgresql_database(database: str, tmp_path: Path) -> None:
    assert_runs_at_once_are_mirrored(Folder(tmp_path).at(database), together=4)


def test_a_step_that_logs_itself_and_the_bridge_meet_in_a_fresh_postgresql_database(
    database: str, tmp_path: Path
) -> None:
    folder = Folder(tmp_path).at(new_database(database, "fresh"))
    run = folder.run("--log", "True")
    folder.wait_until_nothing_is_behind()
    assert folder.bridge("check", f"QuickFlow/{run}") == "0 differences\n"
    assert without_system(folder.held(f"QuickFlow/{run}")["start"].data.metrics) == {"count": 3.0, "logged": 1.0}


# -- servers -----------------------------------------------------------------------------------------------------


def test_a_run_stands_on_a_server_that_asks_for_a_password_and_a_wrong_one_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed (Flask-WTF)")
    with auth_server(tmp_path / "server") as address:
        known = Folder(tmp_path).at(address, MLFLOW_TRACKING_USERNAME=ADMIN, MLFLOW_TRACKING_PASSWORD=PASSWORD)
        run = known.run()
        known.wait_until_nothing_is_behind()
        assert known.bridge("check", f"QuickFlow/{run}") == "0 differences\n"

        wrong = "wrong-and-secret-4567"
        unknown = Folder(tmp_path).at(address, MLFLOW_TRACKING_USERNAME=ADMIN, MLFLOW_TRACKING_PASSWORD=wrong)
        done = unknown.flow(*BRIDGED)
        assert done.code == 0, done.said
        assert len(lines_behind(done)) == 1, done.said
        assert wrong not in done.said + unknown.bridge("status")
        assert unknown.behind() == [f"QuickFlow/{done.run_id}"]
        in_address = Folder(tmp_path).at(address.replace("//", f"//{ADMIN}:{wrong}@"))
        refused = in_address.bridge("sync", "QuickFlow", code=1)
        assert len(refused.splitlines()) == 1
        assert wrong not in refused
        assert_a_reader_is_told_before_a_run(address, monkeypatch)


def assert_a_reader_is_told_before_a_run(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look, as somebody who may only read, whether a training could do its work there."""
    from mlflow.server.auth.client import AuthServiceClient

    from dlpipe.errors import TrackingUnavailable
    from dlpipe.tracking import open_store

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    AuthServiceClient(address).create_user("reader", PASSWORD)
    store = open_store({"MLFLOW_TRACKING_URI": address})
    store.client().create_registered_model("reviews")
    store.check("QuickFlow", model="reviews")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    for experiment, says in (("QuickFlow", "write into the experiment 'QuickFlow'"), ("own", "of 'reviews'")):
        with pytest.raises(TrackingUnavailable, match=says) as told:
            store.check(experiment, model="reviews")
        assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in str(told.value)


def test_a_server_that_is_killed_in_the_middle_of_a_run_holds_all_of_it_after_a_sync(tmp_path: Path) -> None:
    port, go_file = free_port(), tmp_path / "go"
    with mlflow_server(tmp_path / "server", port=port) as (address, server):
        folder = Folder(tmp_path).at(address)
        command = (sys.executable, str(SHAPES / "quick_flow.py"), *BRIDGED, "--go-file", str(go_file))
        launcher = folder.start(*command)
        try:
            wait_until(lambda: folder.client().get_experiment_by_name("QuickFlow"), "the run is in MLflow")
            kill(server)
            go_file.touch()
            said, _ = launcher.communicate(timeout=60)
        finally:
            launcher.kill()
    done = Done(launcher.returncode, said, 0)
    assert done.code == 0, said
    assert len(lines_behind(done)) == 1, said
    assert folder.behind() == [f"QuickFlow/{done.run_id}"]
    with mlflow_server(tmp_path / "server", port=port):
        folder.bridge("sync")
        assert folder.bridge("check", "QuickFlow") == "0 differences\n"
        assert folder.behind() == []


# -- MLflow that is not there ------------------------------------------------------------------------------------


def lines_behind(done: Done) -> list[str]:
    """Return the lines that say that MLflow is behind, or on a busy machine has not been seen to answer yet."""
    return [line for line in done.said.splitlines() if re.search("MLflow (is behind|has not all)", line)]


@dataclass(frozen=True)
class Outages:
    """A run without the bridge, one whose server has stopped, and one whose server accepts and never answers."""

    folder: Folder
    plain: Done
    dead: Done
    silent: Done

    def again(self, kind: str) -> tuple[Done, Done]:
        """Return a run without the bridge and one of this kind, each in a folder of its own."""
        beside = self.folder.folder.parent  # not below it, where Metaflow would find its runs
        folders = [Folder(beside / f"{kind} {name}") for name in ("plain", "bridged")]
        for one in folders:
            one.folder.mkdir()
        with silent_server() as silent:
            address = silent if kind == "silent" else nowhere()
            return folders[0].flow("run"), folders[1].at(address).flow(*BRIDGED)


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Outages:
    folder = Folder(tmp_path_factory.mktemp("outages"))
    plain, dead = folder.flow("run"), folder.at(nowhere()).flow(*BRIDGED)
    with silent_server() as address:
        return Outages(folder, plain, dead, folder.at(address).flow(*BRIDGED))


def nowhere() -> str:
    """Return the address of a server that has stopped."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_run_during_an_outage_ends_well_within_five_more_seconds_and_says_so_once(
    kind: str, outages: Outages
) -> None:
    done: Done = getattr(outages, kind)
    assert done.code == 0, done.said
    if done.seconds - outages.plain.seconds > EXTRA_SECONDS:  # on a machine that is busy for a moment, again
        plain, done = outages.again(kind)
        assert done.seconds - plain.seconds <= EXTRA_SECONDS, (plain.seconds, done.said)
    (line,) = lines_behind(done)
    assert f"dlpipe bridge sync QuickFlow/{done.run_id}" in line


def test_the_next_run_catches_up_with_those_of_the_outage(outages: Outages) -> None:
    missed = [f"QuickFlow/{outages.dead.run_id}", f"QuickFlow/{outages.silent.run_id}"]
    assert outages.folder.behind() == missed
    outages.folder.run()
    outages.folder.wait_until_nothing_is_behind()
    for pathspec in missed:
        assert outages.folder.bridge("check", pathspec) == "0 differences\n"


@pytest.mark.parametrize(
    ("words", "variables"),
    [(("run", "--with", "mlflow_bridge:required=True"), {}), (BRIDGED, {"DLPIPE_BRIDGE_REQUIRED": "1"})],
    ids=["attribute", "variable"],
)
def test_where_mlflow_is_required_a_dead_server_stops_the_run_before_its_first_task(
    words: tuple[str, ...], variables: dict[str, str], tmp_path: Path
) -> None:
    dead = nowhere()
    done = Folder(tmp_path).at(dead, **variables).flow(*words)
    assert done.code != 0
    assert "The bridge to MLflow is required" in done.said
    assert f"The MLflow server at {dead} does not answer (connection refused)" in done.said
    assert "Traceback" not in done.said
    assert "Task is starting" not in done.said
    assert not list((tmp_path / ".metaflow" / "QuickFlow").glob("*/start"))


def test_a_database_server_that_has_stopped_is_one_line_without_the_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg2", reason="PostgreSQL's driver psycopg2-binary is not installed")
    port = free_port()
    folder = Folder(tmp_path).at(f"postgresql+psycopg2://{ADMIN}:{PASSWORD}@127.0.0.1:{port}/films")
    done = folder.flow("run", "--with", "mlflow_bridge:required=True")
    assert done.code != 0, done.said
    assert "The bridge to MLflow is required" in done.said
    assert "Task is starting" not in done.said
    said = folder.bridge("sync", code=1)
    assert len(said.splitlines()) == 1
    for one in (done.said, said):
        assert f"127.0.0.1:{port}" in one
        assert PASSWORD not in one
