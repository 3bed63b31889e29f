"""Events of OpenLineage: valid, told once, and with the graph that lineage has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_up_lineage import History, list_ids
from openlineage_graph import find_problems, list_edges, list_facets, rebuild
from openlineage_receiver import KEY, Receiver, receiving
from stores import keep_runs_in, untouched_environment

from dlpipe.bridge.marks import find_marks
from dlpipe.cli import main
from dlpipe.errors import ReceiverUnavailable, SettingError
from dlpipe.lineage import Records
from dlpipe.openlineage import export_events, open_receiver
from dlpipe.openlineage.events import find_key
from dlpipe.registry import delete_version, promote
from dlpipe.tables import delete_table, locate


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A training, two appended rows that are scored, a second training, a drift, a request; no run of Metaflow."""
    with pytest.MonkeyPatch.context() as patch, untouched_environment():
        folder = tmp_path_factory.mktemp("told")
        patch.chdir(folder)
        keep_runs_in(folder, patch)
        made = History(folder)
        rows = made.ingest("TrainFlow/17")
        model = made.register("TrainFlow/17", rows)
        promote(model, how="gate", who="ana", why="passed")
        made.predict("TrainFlow/17", model, rows, list_ids(rows))
        made.explain("TrainFlow/17", model, rows, list_ids(rows, "test")[:2])
        appended = made.append("new.csv", 'review,sentiment\n"a fine film",\n"cold soup","negative"\n').table
        scored = made.predict("PredictFlow/20", model, appended, list_ids(appended)[-2:])
        made.look(model, appended, scored)
        again = made.register("TrainFlow/21", appended)
        promote(again, how="force", who="ben", why="better")
        made.answer(model)
        made.label(model, "negative")
        yield made


@pytest.fixture(scope="module")
def told(trained: History) -> list[dict[str, Any]]:
    return export(trained.folder / "told.jsonl")


def export(path: Path, *more: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["lineage", "export", "--to", str(path), *more])
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in path.read_text().splitlines()]


def find(told: list[dict[str, Any]], job: str, kind: str = "COMPLETE") -> dict[str, Any]:
    (event,) = [event for event in told if event.get("job", {}).get("name") == job and event["eventType"] == kind][
        :1
    ]
    return event


def test_all_events_are_valid_against_the_published_schemas(told: list[dict[str, Any]]) -> None:
    problems = {f"{event.get('job') or event.get('dataset')}": find_problems(event) for event in told}
    assert not {what: found for what, found in problems.items() if found}
    facets = Counter(name for event in told for name, _ in list_facets(event))
    assert {*facets} >= {"schema", "version", "dataQualityMetrics", "dataQualityAssertions", "outputStatistics"}
    assert {*facets} >= {"columnLineage", "lifecycleStateChange", "symlinks", "dlpipe_modelVersion", "lineage"}


def test_a_broken_event_is_found_out(told: list[dict[str, Any]]) -> None:
    event = json.loads(json.dumps(find(told, "reviews.register")))
    event["outputs"][0]["facets"]["dlpipe_modelVersion"]["kind"] = "toy"
    event["run"]["runId"] = 17
    assert len(find_problems(event)) == 2


def test_who_was_told_has_the_graph_of_lineage(trained: History, told: list[dict[str, Any]]) -> None:
    expected = list_edges(Records())
    assert len(expected) > 25
    assert rebuild(told) == expected


def test_a_second_export_tells_nothing_new(trained: History, told: list[dict[str, Any]]) -> None:
    assert export(trained.folder / "told.jsonl") == told
    assert export(trained.folder / "other.jsonl") == told


def test_told_again_it_has_the_same_ids(trained: History, told: list[dict[str, Any]]) -> None:
    assert export(trained.folder / "again.jsonl") + told == export(trained.folder / "again.jsonl", "--again")


def test_each_run_begins_once_and_ends_once(told: list[dict[str, Any]]) -> None:
    kinds: dict[str, list[str]] = {}
    for event in told:
        if "run" in event:
            kinds.setdefault(event["run"]["runId"], []).append(event["eventType"])
    assert {tuple(found) for found in kinds.values()} == {("START", "COMPLETE")}


def test_a_version_of_a_table_tells_what_is_known_of_it(told: list[dict[str, Any]]) -> None:
    event = find(told, "reviews.append")
    (made,) = event["outputs"]
    assert made["facets"]["version"]["datasetVersion"] == "1"
    assert [field["name"] for field in made["facets"]["schema"]["fields"]] == ["row_id", "text", "label", "split"]
    assert made["facets"]["dataQualityMetrics"]["columnMetrics"]["label"] == {"nullCount": 1, "count": 121}
    tags = {tag["key"]: tag["value"] for tag in made["facets"]["tags"]["tags"]}
    assert tags["rows.train"] == "84"
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert made["facets"]["symlinks"]["identifiers"] == [
        {"namespace": "dlpipe", "name": "reviews", "type": "TABLE"}
    ]
    columns = made["facets"]["columnLineage"]["fields"]
    assert [Path(origin["name"]).name + "." + origin["field"] for origin in columns["text"]["inputFields"]] == [
        "new.csv.review",
        "reviews.text",
    ]
    new, before = event["inputs"]
    assert Path(new["name"]).name == "new.csv"
    assert new["inputFacets"]["dataQualityAssertions"]["assertions"][0]["success"] is True
    assert before["facets"]["version"]["datasetVersion"] == "0"
    assert before["inputFacets"]["inputStatistics"]["rowCount"] == 120


def test_a_version_of_a_model_tells_where_it_comes_from(trained: History, told: list[dict[str, Any]]) -> None:
    (made,) = find(told, "reviews.register")["outputs"]
    assert (made["namespace"], made["name"]) == (f"mlflow://{trained.folder / 'mlflow.db'}", "reviews")
    facet = made["facets"]["dlpipe_modelVersion"]
    assert facet["trainedBy"] == "TrainFlow/17/train/3/0"
    assert facet["trainedOn"] == {"namespace": "file", "name": locate("reviews"), "version": "0"}


def test_what_cannot_be_read_any_more_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        history = History(tmp_path)
        rows = history.ingest("TrainFlow/17")
        history.register("TrainFlow/17", rows)
        delete_version(history.register("TrainFlow/18", rows), who="ana", why="leaked rows")
        delete_table("reviews")
        told = export(tmp_path / "told.jsonl")
    assert [problem for event in told for problem in find_problems(event)] == []
    (rows,) = find(told, "reviews.register")["inputs"]
    assert (rows["name"], [*rows["facets"]]) == (str(tmp_path / "tables/reviews"), ["version"])
    changed = [event["dataset"]["facets"] for event in told if "dataset" in event]
    dropped = [facets for facets in changed if "lifecycleStateChange" in facets]
    assert [facets["version"]["datasetVersion"] for facets in dropped] == ["2"]


# -- servers -----------------------------------------------------------------------------------------------------


def send(receiver: Receiver, *more: str) -> Result:
    return CliRunner().invoke(main, ["lineage", "export", "--to", receiver.address, *more])


def read_once(receiver: Receiver) -> dict[str, dict[str, Any]]:
    """Return the events of a receiver by their key; what it was told twice it was told in the same words."""
    found: dict[str, dict[str, Any]] = {}
    for event in receiver.read():
        assert found.setdefault(find_key(event), event) == event
    return found


def try_export(receiver: Receiver) -> bool:
    """Tell without asking again at once, and return whether all was told."""
    try:
        export_events(open_receiver(receiver.address, retries=0))
    except ReceiverUnavailable:
        return False
    return True


def test_a_server_gets_what_a_file_gets_and_nothing_twice(
    trained: History, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    with receiving(tmp_path / "got") as receiver:
        assert f"{len(told)} new events" in send(receiver).output
        assert "0 new events" in send(receiver).output
        assert receiver.read() == told
        assert json.loads(receiver.file.read_text().splitlines()[0])["path"] == "/api/v1/lineage"
        assert f"{len(told)} new events" in send(receiver, "--again").output
        assert list(read_once(receiver).values()) == told


def test_a_server_that_is_killed_at_random_gets_all_and_the_same_graph(trained: History, tmp_path: Path) -> None:
    failed = 0
    with receiving(tmp_path / "got", start=False) as receiver:
        first = send(receiver)
        assert first.exit_code == 1
        assert "does not answer: Connection refused; nothing was told" in first.output
        receiver.start()
        with receiver.killed_at_random(seed=1):
            while not try_export(receiver):
                failed += 1
        assert failed > 1
        got = read_once(receiver)
        assert rebuild([*got.values()]) == list_edges(Records())
        assert len(receiver.read()) - len(got) <= failed  # one for each time: told, and not answered


def test_without_the_note_all_is_told_again_with_the_same_ids(
    trained: History, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    with receiving(tmp_path / "got") as receiver:
        send(receiver)
        for note in (trained.folder / "state/openlineage").glob("*.sent"):
            note.unlink()
        assert f"{len(told)} new events" in send(receiver).output
        assert list(read_once(receiver).values()) == told


def test_a_note_that_a_kill_has_torn_is_read_to_its_last_line(trained: History, tmp_path: Path) -> None:
    with receiving(tmp_path / "got") as receiver:
        send(receiver)
        note = max((trained.folder / "state/openlineage").glob("*.sent"), key=lambda path: path.stat().st_mtime_ns)
        note.write_bytes(note.read_bytes()[:-5])
        assert send(receiver).exit_code == 0
        assert len(receiver.read()) - len(read_once(receiver)) <= 1


def test_a_file_that_a_kill_has_torn_loses_no_event(trained: History, told: list[dict[str, Any]]) -> None:
    path = trained.folder / "torn.jsonl"
    export(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert export(path) == told


def test_a_server_with_keys_gets_the_one_of_the_environment_and_no_line_shows_it(
    trained: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving(tmp_path / "got", RECEIVER_KEY=KEY) as receiver:
        refused = send(receiver)
        assert (refused.exit_code, "Set OPENLINEAGE_API_KEY" in refused.output) == (1, True)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
        done = send(receiver)
        assert (done.exit_code, KEY in refused.output + done.output) == (0, False)


@pytest.mark.parametrize("status", ["302", "304"])
def test_a_server_that_redirects_to_a_login_is_told_nothing_and_later_all(
    trained: History, told: list[dict[str, Any]], tmp_path: Path, status: str
) -> None:
    with receiving(tmp_path / "got", RECEIVER_REDIRECTS=status) as receiver:
        done = send(receiver)
        assert done.exit_code == 1
        assert "nothing was told" in done.output
        assert "ive its whole address" in done.output
        assert ("redirects to" in done.output, "hunter2" in done.output) == (status == "302", False), done.output
        receiver.kill()
        receiver.environment.pop("RECEIVER_REDIRECTS")
        receiver.start()
        assert send(receiver).exit_code == 0
        assert len(receiver.read()) == len(told)


def test_openlineage_yml_says_how_a_server_is_spoken_to(
    trained: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "openlineage.yml"
    auth = f"{{type: api_key, apiKey: {KEY}}}"
    config.write_text(f"transport: {{type: http, url: 'http://elsewhere', auth: {auth}}}\n")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(config))
    with receiving(tmp_path / "got", RECEIVER_KEY=KEY) as receiver:
        monkeypatch.setenv("OPENLINEAGE_URL", f"{receiver.address}/catalog/events")
        done = CliRunner().invoke(main, ["lineage", "export"])
        assert done.exit_code == 0, done.output
        assert json.loads(receiver.file.read_text().splitlines()[0])["path"] == "/catalog/events"


def test_an_event_that_is_not_taken_keeps_no_other_back_and_is_told_again(
    trained: History, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    with receiving(tmp_path / "got", RECEIVER_REFUSES="evaluated on") as receiver:
        done = send(receiver)
        assert done.exit_code == 1
        assert "does not take an event (status 422, not this one)" in done.output
        receiver.kill()
        receiver.environment.pop("RECEIVER_REFUSES")
        receiver.start()
        assert send(receiver).exit_code == 0
        assert len(receiver.read()) == len(told)


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ("", "Nobody is named who is to be told"),
        ("kafka://broker", "'kafka' is not spoken"),
        ("http://", "names no host"),
        ("http://two words/", "names no host"),
        ("http://caf\udce9/", "names no host"),
        ("http://[bad", "has a host or a port that is none"),
        ("http://127.0.0.1:99999", "has a host or a port that is none"),
        ("/dev/zero", "/dev/zero is no file"),
        ("no/such/folder/told.jsonl", "cannot be written"),
        ("films.csv", "holds something else than events"),
    ],
)
def test_a_receiver_that_is_none_is_refused(trained: History, to: str, words: str) -> None:
    before = (trained.folder / "films.csv").read_bytes()
    done = CliRunner().invoke(main, ["lineage", "export", "--to", to])
    assert (done.exit_code, words in done.output) == (1, True), done.output
    assert (trained.folder / "films.csv").read_bytes() == before


def test_a_registry_that_does_not_answer_is_no_empty_one(
    trained: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = CliRunner().invoke(main, ["lineage", "export", "--to", str(tmp_path / "told.jsonl")])
    assert done.exit_code == 1
    assert not (tmp_path / "told.jsonl").read_text()


# -- the process beside a run ------------------------------------------------------------------------------------


def test_a_setting_that_names_no_receiver_is_said_beside_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".metaflow/ToldFlow/17/_bridge").mkdir(parents=True)
    environment = {**os.environ, "DLPIPE_OPENLINEAGE": "kafka://broker"}
    command = [sys.executable, "-m", "dlpipe.openlineage.follow", "ToldFlow/17"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
    keep_runs_in(tmp_path, monkeypatch)
    assert "'kafka' is not spoken" in find_marks("ToldFlow/17").receiver_problem()


def test_a_bridged_run_is_refused_where_the_package_for_its_setting_is_missing() -> None:
    from metaflow_extensions.dlpipe.plugins.mlflow_bridge import BadSetting, check_openlineage

    check_openlineage()
    with pytest.raises(BadSetting, match=r"pip install 'dlpipe\[openlineage\]'"):
        check_openlineage("no_such_package")


@pytest.mark.parametrize(
    ("setting", "address"),
    [*((word, "far") for word in ("", "1", "0", "Off")), ("events.jsonl", "events.jsonl"), ("http://a/b", "a/b")],
)
def test_who_is_told_by_default_is_what_the_setting_or_the_url_names(setting, address, monkeypatch):
    monkeypatch.setenv("DLPIPE_OPENLINEAGE", setting)
    monkeypatch.setenv("OPENLINEAGE_URL", "http://far:5000")
    assert address in open_receiver().address
    monkeypatch.delenv("OPENLINEAGE_URL")
    if address == "far":
        with pytest.raises(SettingError, match="Nobody is named who is to be told"):
            open_receiver()
