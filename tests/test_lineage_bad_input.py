"""What people get wrong, and what is old, foreign or broken: lineage says what it knows, and what it does not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import write_deltalake
from made_up_lineage import History, list_ids
from stores import keep_runs_in, untouched_environment
from texts import reviews, write_csv

from dlpipe.cli import main
from dlpipe.errors import NodeAmbiguous, SettingError
from dlpipe.lineage import Graph, Records, walk
from dlpipe.lineage.indexed_files import UNSURE
from dlpipe.tables import Sources, ingest, table_at
from dlpipe.task.text_classification import TextClassData


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        yield History(tmp_path)


def look(text: str, **how: object) -> Graph:
    records = Records()
    return walk(records, records.find(text), **how)  # type: ignore[arg-type]


def spell(graph: Graph) -> set[str]:
    return {f"{edge.result} {edge.how} {edge.origin}" for edge in graph.edges}


NOTHING = [
    *["", " ", "#", "@v", "reviews@v-1", "reviews@v99999999999999999999", "reviews@v0#", "reviews#"],
    *["films.csv:0", "films.csv:99999999999999999999", "../../etc/passwd", "TrainFlow/../17", "models:/"],
    *[
        "models:/../reviews/1",
        "code:",
        "code:TrainFlow@zz",
        "deployment:",
        "event:",
        "a" * 5000,
        "x\ny",
        "%",
        "it's",
        "\ud800",
        *["reviews#caf\udce9", "reviews@v0#caf\udce9", "caf\udce9.csv:3", "models:/caf\udce9/1"],
    ],
]


def test_what_names_nothing_is_an_error_and_no_traceback(history: History) -> None:
    history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
    for text in NOTHING:
        for command in ("lineage", "forget"):
            done = CliRunner().invoke(main, [command, text])
            assert (done.exit_code, done.stdout) == (1, ""), (text, done.output)
            assert isinstance(done.exception, SystemExit), (text, done.exception)
            assert done.stderr.startswith("Error: "), (text, done.stderr)


def test_a_file_whose_name_is_no_utf8_has_a_lineage_in_every_form(history: History) -> None:
    name = os.fsdecode(b"caf\xe9.csv")
    write_csv(history.folder / "films.csv", reviews()[:60] + reviews()[-60:]).rename(name)
    rows = ingest(Sources(data=name), "odd", settings=TextClassData()).table
    history.register("TrainFlow/17", rows, name="odd")
    seen = "caf\\udce9.csv"
    for node in ("odd@v0", "models:/odd/1", name, f"{name}:3"):
        for form in ([], ["--dot"], ["--json"], ["--graphml"], ["--html", "page.html"]):
            done = CliRunner().invoke(main, ["lineage", node, *form])
            assert done.exit_code == 0, (node, form, done.output, done.exception)
            told = Path("page.html").read_text() if "--html" in form else done.stdout
            assert seen in told.replace("\\\\", "\\"), (node, form, told)
    for command in (["check"], ["export", "--to", "told.jsonl"]):
        done = CliRunner().invoke(main, ["lineage", *command])
        assert isinstance(done.exception, SystemExit | None), done.exception
    time.sleep(UNSURE / 1e9)  # from now on the index says whether the file has changed
    looks = [look("odd@v0", direction="up") for _ in range(2)]
    assert not any(facts.gone for node, facts in looks[1].facts.items() if node.kind == "file")
    Path(name).write_text("other")
    looked = look("odd@v0", direction="up")
    assert any(facts.gone for node, facts in looked.facts.items() if node.kind == "file")


FOREIGN = ["TrainFlow/17", "nightly", "", "../../etc/x", "a/b/c/d/e/f"]


@pytest.mark.parametrize("value", FOREIGN)
def test_a_version_whose_tags_another_program_wrote_names_no_task_and_stops_nothing(
    history: History, value: str
) -> None:
    history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
    history.client.create_registered_model("theirs")
    tags = {"metaflow.pathspec": value, "metaflow.task": value}
    history.client.create_model_version("theirs", "nowhere", tags=tags)
    graph = look("models:/theirs/1")
    assert not graph.edges
    assert "its tags name no task that trained it" in {text for some in graph.unknown.values() for text in some}
    for command in (["check"], ["export", "--to", "told.jsonl"]):
        done = CliRunner().invoke(main, ["lineage", *command])
        assert isinstance(done.exception, SystemExit | None), done.exception
        assert done.exit_code == (1 if command == ["check"] else 0)  # the runs of this history are not there
        assert "theirs" not in done.stdout
    assert "theirs" in (history.folder / "told.jsonl").read_text()


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+10:00"])
def test_a_moment_that_no_calendar_has_in_utc_is_none(history: History, at: str) -> None:
    rows = history.ingest("TrainFlow/17")
    done = CliRunner().invoke(main, ["lineage", "nothing", "--at", at])
    assert (done.exit_code, f"'{at}' is not a time" in done.stderr) == (1, True), done.exception
    with pytest.raises(SettingError, match="is not a time"):
        table_at(rows.path, timestamp=at)
    done = CliRunner().invoke(main, ["keys", "create", "shop", "--ends", at])
    assert (done.exit_code, f"'{at}' is refused" in done.stderr) == (1, True), done.exception


def test_a_wrong_option_shows_the_usage_that_the_help_shows() -> None:
    usage = CliRunner().invoke(main, ["lineage", "--help"]).stdout.split("\n\n")[0].strip()
    assert "NODE [OPTIONS]" in usage
    done = CliRunner().invoke(main, ["lineage", "reviews", "--depth", "0"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{usage}\n"), done.stderr


def test_an_unknown_kind_is_told_with_those_that_there_are(history: History) -> None:
    history.ingest("TrainFlow/17")
    done = CliRunner().invoke(main, ["lineage", "reviews", "--kind", "modle"])
    assert done.exit_code == 1
    assert "'modle'" in done.stderr
    assert "model" in done.stderr
    assert "code" in done.stderr


def test_of_what_was_made_before_commits_named_their_tasks_the_rest_is_shown(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:2])
    for name in ("reviews", "reviews_predictions"):
        commit = history.folder / f"tables/{name}/_delta_log/00000000000000000000.json"
        actions = [json.loads(line) for line in commit.read_text().splitlines()]
        for action in actions:
            for note in ("made_by", "form", "settings"):
                action.get("commitInfo", {}).pop(f"dlpipe.{note}", None)
        commit.write_text("".join(json.dumps(action) + "\n" for action in actions))
    with sqlite3.connect(history.folder / "mlflow.db") as database:
        database.execute("DELETE FROM model_version_tags WHERE key LIKE 'metaflow.%'")
    database.close()
    row = list_ids(rows)[0]
    graph = look(f"reviews_predictions#{row}", direction="up")
    assert spell(graph) == {
        f"reviews_predictions@v0#{row} scored reviews@v0#{row}",
        f"reviews_predictions@v0#{row} scored with models:/reviews/1",
        f"reviews_predictions@v0#{row} part of reviews_predictions@v0",
        "reviews_predictions@v0 scored reviews@v0",
        "reviews_predictions@v0 scored with models:/reviews/1",
        f"reviews@v0#{row} part of reviews@v0",
        "reviews@v0 ingested from films.csv",
        "models:/reviews/1 trained on reviews@v0",
        "models:/reviews/1 evaluated on reviews@v0",
    }
    unknown = {str(node): problems for node, problems in graph.unknown.items()}
    assert unknown["models:/reviews/1"] == ("its tags name no task that trained it",)
    assert unknown["reviews@v0"][0].startswith("no task is named that committed it")
    assert unknown[f"reviews@v0#{row}"] == ("its commit does not say which lines rows came from",)


def test_a_table_of_another_program_has_rows_and_answers_all_the_same(history: History) -> None:
    place = history.folder / "tables/foreign"
    for number in range(3):
        rows = pa.table(
            {"row_id": [f"{number}-x"], "text": [f"text {number}"], "label": ["good"], "split": ["train"]}
        )
        write_deltalake(str(place), rows, mode="append")
    rows = table_at("foreign")
    history.predict("PredictFlow/9", history.register("TrainFlow/17", rows), rows, list_ids(rows))
    found = spell(look("foreign#1-x", direction="down"))
    assert "models:/reviews/1 trained on foreign@v1#1-x" in found
    assert "reviews_predictions@v0#1-x scored foreign@v1#1-x" in found
    (problems,) = look("foreign@v1", direction="up", depth=1).unknown.values()
    assert "another program committed it" in problems[0]


def test_two_tables_of_one_name_in_two_places_are_told_apart(history: History) -> None:
    first = history.ingest("TrainFlow/17")
    settings = TextClassData()
    write_csv(Path("old.csv"), reviews()[60:90] + reviews()[-90:-60])
    old = ingest(Sources(data="old.csv"), "old/reviews", settings=settings).table
    away = ingest(Sources(data="old.csv"), str(history.folder / "away/reviews"), settings=settings).table
    for table in (first, old, away):
        (node,) = Records().find(f"{table.path}@v0")
        assert node.name == table.path
    assert [node.name for node in Records().find("reviews")] == [first.path]
    assert [node.name for node in Records().find("old/reviews")] == [old.path]
    row = list_ids(old)[0]
    assert {node.name for node in Records().find(f"old/reviews#{row}")} == {old.path}
    assert {node.name for node in Records().find(f"{away.path}#{row}")} == {away.path}
    # a commit has the name and the digest of the table that it read
    names = TextClassData(text_column="text", label_column="label")
    ingest(Sources(data=old.path), "copies", settings=names)
    (edge,) = look("copies", direction="up", depth=1).edges
    assert edge.origin.name == old.path
    assert "copies@v0 ingested from old/reviews@v0" in spell(look("old/reviews", direction="down"))
    assert "copies" not in str(spell(look("reviews", direction="down")))
    Path("elsewhere").mkdir()
    write_csv(Path("elsewhere/old.csv"), reviews()[90:110] + reviews()[-110:-90])
    ingest(Sources(data="elsewhere/old.csv"), "third", settings=settings)
    with pytest.raises(NodeAmbiguous, match=r"elsewhere/old\.csv@"):
        Records().find("old.csv")


class Failing(BaseHTTPRequestHandler):
    """A server that answers its first questions, and then not any more."""

    answers = 3

    def do_GET(self) -> None:
        type(self).answers -= 1
        ok = type(self).answers >= 0
        self.send_response(200 if ok else 500)
        self.end_headers()
        self.wfile.write(b"OK" if ok else b"{}")

    do_POST = do_GET

    def log_message(self, *words: object) -> None:
        """Nobody reads it."""


def test_a_registry_that_fails_on_the_way_is_said_and_the_rest_is_shown(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = history.ingest("TrainFlow/17")
    history.predict("TrainFlow/17", history.register("TrainFlow/17", rows), rows, list_ids(rows)[:1])
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        done = CliRunner().invoke(main, ["lineage", "reviews@v0", "--down", "--json"])
        server.shutdown()
    assert done.exit_code == 0, done.output
    assert [edge["how"] for edge in json.loads(done.stdout)["edges"]] == ["scored"]
    assert "Something may be missing: " in done.stderr


RUN_EACH = """
from dlpipe.cli import main

for words in (["reviews"], ["check"], ["export", "--to", "events.jsonl"]):
    try:
        main(["lineage", *words])
    except SystemExit as end:
        print(end.code)
"""


def test_an_empty_project_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with untouched_environment():
        for name in ("MLFLOW_TRACKING_URI", "DLPIPE_TABLES"):
            os.environ.pop(name, None)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "DLPIPE"))}
        program = [sys.executable, "-c", RUN_EACH]
        done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)
    assert done.stdout.split() == ["1", "1", "1"]
    assert done.stderr.count("Stand in the folder of the project") == 3
    assert not list(tmp_path.iterdir())


def test_a_run_whose_records_are_damaged_hides_no_other(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    run = history.folder / ".metaflow/TrainFlow/17"
    (history.folder / ".metaflow/TrainFlow/_meta").mkdir(parents=True)
    (history.folder / ".metaflow/TrainFlow/_meta/_self.json").write_text('{"flow_id": "TrainFlow"}')
    (run / "_meta").mkdir(parents=True)
    (run / "_meta/_self.json").write_text("{")
    graph = look(str(rows), direction="both")
    assert "reviews@v0 made by TrainFlow/17/start/1" in spell(graph)
    assert {facts.gone for node, facts in graph.facts.items() if node.kind in ("run", "task")} == {
        "Metaflow's records of it are damaged"
    }
    done = CliRunner().invoke(main, ["lineage", "check"])
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True)
    assert "dangling: Metaflow: its records of runs cannot be read: " in done.stdout
    shutil.rmtree(run)
    assert "reviews@v0 made by TrainFlow/17/start/1" in spell(look(str(rows)))
