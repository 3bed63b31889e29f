"""Lineage over made-up histories: the expected graphs are spelt out."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from browsers import open_in_browser
from click.testing import CliRunner
from made_up_lineage import REQUEST, History, find_id, list_ids
from schedulers import deployed, triggered
from stores import keep_runs_in, untouched_environment

from dlpipe.cli import main
from dlpipe.errors import NodeAmbiguous, NodeNotFound
from dlpipe.lineage import Edge, Facts, Graph, Node, Records, check_records, format_tree, make_page, walk
from dlpipe.lineage.layers import find_layers
from dlpipe.lineage.page import lay_out
from dlpipe.orchestrator.runs import RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.registry import delete_version, promote
from dlpipe.serving.feedback import append_labelled
from dlpipe.tables import delete_table, locate, read_table, table_at, write_table


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        yield History(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """A training with all that it leaves, two appended rows that are scored, and a request with its label."""
    with pytest.MonkeyPatch.context() as patch, untouched_environment():
        folder = tmp_path_factory.mktemp("trained")
        patch.chdir(folder)
        keep_runs_in(folder, patch)
        made = History(folder)
        rows = made.ingest("TrainFlow/17")
        model = made.register("TrainFlow/17", rows)
        promote(model, how="gate", who="ana", why="passed")
        made.predict("TrainFlow/17", model, rows, list_ids(rows))
        made.explain("TrainFlow/17", model, rows, list_ids(rows, "test")[:2])
        appended = made.append("new.csv", 'review,sentiment\n"a fine film",\n"cold soup","negative"\n').table
        made.predict("PredictFlow/20", model, appended, list_ids(appended)[-2:])
        made.answer(model)
        made.label(model, "negative")
        yield made


def look(text: str, **how: object) -> Graph:
    records = Records()
    return walk(records, records.find(text), **how)  # type: ignore[arg-type]


def spell(graph: Graph) -> set[str]:
    """Return the edges as sentences."""
    return {f"{edge.result} {edge.how} {edge.origin}" for edge in graph.edges}


TRAINING = {
    "models:/reviews/1 trained on reviews@v0",
    "models:/reviews/1 evaluated on reviews@v0",
    "models:/reviews/1 made by TrainFlow/17/train/3",
    "models:/reviews/1 made by TrainFlow/17/register/5",
    "TrainFlow/17/train/3 part of TrainFlow/17",
    "TrainFlow/17/register/5 part of TrainFlow/17",
    "reviews@v0 ingested from films.csv",
    "reviews@v0 made by TrainFlow/17/start/1",
    "TrainFlow/17/start/1 part of TrainFlow/17",
}


def test_a_model_came_of_its_rows_their_file_and_the_tasks_of_its_run(trained: History) -> None:
    assert spell(look("models:/reviews@champion", direction="up")) == TRAINING


def test_an_answer_leads_to_the_line_that_was_scored_and_to_what_taught_its_model(trained: History) -> None:
    row = find_id(Records().catalog.find(locate("reviews")).latest, "the film was good")
    assert spell(look(f"reviews_predictions#{row}", direction="up")) == {
        *TRAINING,
        f"reviews_predictions@v0#{row} scored reviews@v0#{row}",
        f"reviews_predictions@v0#{row} scored with models:/reviews/1",
        f"reviews_predictions@v0#{row} part of reviews_predictions@v0",
        f"reviews@v0#{row} ingested from films.csv:2",
        f"reviews@v0#{row} part of reviews@v0",
        "films.csv:2 part of films.csv",
        "reviews_predictions@v0 scored reviews@v0",
        "reviews_predictions@v0 scored with models:/reviews/1",
        "reviews_predictions@v0 made by TrainFlow/17/predict/6",
        "TrainFlow/17/predict/6 part of TrainFlow/17",
    }


def test_a_line_leads_to_its_row_and_to_all_that_the_row_reached(trained: History) -> None:
    rows = table_at("reviews", version=0)
    train, test = (list_ids(rows, split)[0] for split in ("train", "test"))
    line = next(
        edge.origin for edge in look(f"reviews@v0#{train}", direction="up").edges if edge.origin.kind == "line"
    )
    assert spell(look(line.id, direction="down", depth=2)) == {
        f"reviews@v0#{train} ingested from {line}",
        f"models:/reviews/1 trained on reviews@v0#{train}",
        f"reviews_predictions@v0#{train} scored reviews@v0#{train}",
    }
    assert spell(look(f"reviews@v0#{test}", direction="down", depth=1)) == {
        f"models:/reviews/1 evaluated on reviews@v0#{test}",
        f"reviews_predictions@v0#{test} scored reviews@v0#{test}",
        f"reviews_explanations@v0#{test} explained reviews@v0#{test}",
    }


def test_an_appended_row_taught_no_model_that_was_trained_before(trained: History) -> None:
    row = find_id(table_at("reviews", version=1), "cold soup")
    assert spell(look("new.csv:3", direction="down")) == {
        f"reviews@v1#{row} ingested from new.csv:3",
        f"reviews_predictions@v1#{row} scored reviews@v1#{row}",
    }


def test_a_row_is_the_same_in_later_versions(trained: History) -> None:
    row = find_id(table_at("reviews", version=0), "the film was good")
    found = [Records().find(f"reviews{version}#{row}") for version in ("@v0", "@v1", "")]
    assert [[str(node) for node in nodes] for nodes in found] == [[f"reviews@v0#{row}"]] * 3


def test_the_beginning_of_a_row_id_will_do(trained: History) -> None:
    row = find_id(table_at("reviews", version=0), "the film was good")
    assert Records().find(f"reviews#{row[:12]}") == Records().find(f"reviews#{row}")
    assert Records().find(f"reviews_predictions#{row[:12]}") == Records().find(f"reviews_predictions#{row}")


def test_a_version_leads_to_its_pipeline_its_answers_the_move_and_the_requests(trained: History) -> None:
    assert spell(look("reviews/1", direction="down")) == {
        "models:/reviews-pipeline/1 made from models:/reviews/1",
        "models:/reviews@champion#1 points to models:/reviews/1",
        "reviews_predictions@v0 scored with models:/reviews/1",
        "reviews_predictions@v1 scored with models:/reviews/1",
        "reviews_explanations@v0 explained with models:/reviews/1",
        "reviews_requests of models:/reviews/1 answered with models:/reviews/1",
    }


@pytest.mark.parametrize("looks", [0, 1000])
def test_which_versions_have_answered_is_the_same_whether_they_are_looked_for_alone_or_together(
    looks: int, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlpipe.lineage.requests.MOST_LOOKS", looks)
    rows = history.ingest("TrainFlow/17")
    versions = [history.register("TrainFlow/17", rows) for _ in range(3)]
    history.answer(versions[0])
    between = tick()
    history.answer(versions[2])

    def answered(until: int | None = None) -> list[bool]:
        records = Records(until)
        graphs = [walk(records, records.find(version.uri), direction="down") for version in versions]
        return [any(edge.how == "answered with" for edge in graph.edges) for graph in graphs]

    assert answered() == [True, False, True]
    assert answered(between) == [True, False, False]


def test_a_move_by_the_gate_was_made_by_the_task_that_registered_the_version(trained: History) -> None:
    assert spell(look("models:/reviews@champion#1", direction="up", depth=1)) == {
        "models:/reviews@champion#1 points to models:/reviews/1",
        "models:/reviews@champion#1 moved by TrainFlow/17/register/5",
    }


def test_a_request_leads_to_the_model_that_answered_and_to_its_label(trained: History) -> None:
    assert spell(look(REQUEST, direction="up", depth=1)) == {
        f"{REQUEST} answered with models:/reviews/1",
        f"{REQUEST} labelled by reviews_feedback#{REQUEST}:0",
    }
    assert spell(look(f"reviews_feedback#{REQUEST}:0", direction="down")) == {
        f"{REQUEST} labelled by reviews_feedback#{REQUEST}:0"
    }


def test_each_node_is_found_by_its_id(trained: History) -> None:
    row = find_id(table_at("reviews", version=0), "the film was good")
    graphs = [
        look(text) for text in (f"reviews_predictions#{row}", "films.csv", "reviews/1", "films.csv:2", REQUEST)
    ]
    nodes = {node for graph in graphs for node in graph.nodes if node.kind not in ("run", "task")}
    assert len(nodes) >= 14
    for node in nodes:
        assert Records().find(node.id) == (node,), node.id


def test_up_and_down_have_the_same_edges(trained: History) -> None:
    """But for rows: what has many of them leads to none, and each leads to what it is in."""
    records = Records()
    for text in ("films.csv", "reviews@v0", "reviews/1", REQUEST):
        roots = records.find(text)
        for edge in walk(records, roots, direction="down").edges:
            assert edge in set(records.find_origins(edge.result))
        for edge in walk(records, roots, direction="up").edges:
            many = edge.result.kind == "request" and edge.origin.kind == "model"
            of_run = edge.how == "part of" and edge.origin.kind == "run"  # Metaflow has no such run
            assert many or of_run or edge in set(records.find_results(edge.origin))


# -- what is written, and what is not there --------------------------------------------------------------------


def test_what_means_several_things_is_listed(trained: History) -> None:
    with pytest.raises(NodeAmbiguous, match=r"reviews@v1 \(table\), models:/reviews/1 \(model\)"):
        Records().find("reviews")


@pytest.mark.parametrize(
    "text",
    ["nothing", "reviews@v9", "reviews@v0#0000000000000000", "films.csv:9999999:1", "reviews/7", "reviews@nobody"],
)
def test_what_means_nothing_is_said_with_what_can_be_written(text: str, trained: History) -> None:
    with pytest.raises(NodeNotFound, match=r"Nothing is called .* (Write reviews@v3|has )"):
        Records().find(text)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (1, "Line 1 of 'films.csv' is its header, of which no row came: its rows begin on the lines 2 to 121."),
        (0, "'films.csv' has no line 0: its rows begin on the lines 2 to 121."),
        (999999, "'films.csv' has no line 999999: its rows begin on the lines 2 to 121."),
    ],
)
def test_a_line_that_no_row_came_of_is_told_from_one_that_the_file_lacks(
    line: int, problem: str, trained: History
) -> None:
    with pytest.raises(NodeNotFound, match=f"^{re.escape(problem)}$"):
        Records().find(f"films.csv:{line}")
    assert Records().find("films.csv:121")


def test_a_line_inside_a_row_of_several_lines_is_none_of_its_own(history: History) -> None:
    history.ingest("TrainFlow/17", rows=many_rows(40))
    history.append("new.csv", 'review,sentiment\n"a fine\nfilm","positive"\n"cold soup","negative"\n')
    with pytest.raises(NodeNotFound, match=r"No row of 'new\.csv' begins on line 3: .* begins on line 2\."):
        Records().find("new.csv:3")
    assert [str(*Records().find(f"new.csv:{line}")) for line in (2, 4)] == ["new.csv:2", "new.csv:4"]


def test_a_row_whose_id_has_only_digits_is_no_move_of_the_model_of_that_name(history: History) -> None:
    rows = history.ingest("TrainFlow/17", rows=many_rows(400))
    promote(history.register("TrainFlow/17", rows))
    row = next(row for row in list_ids(rows) if row[:5].isdecimal())
    assert {node.kind for node in Records().find(f"reviews#{row[:5]}")} == {"row"}
    with pytest.raises(NodeNotFound, match="Nothing is called"):
        Records().find("reviews#0000000000000000")
    assert [node.kind for node in Records().find("reviews@champion#1")] == ["move"]


def test_a_move_that_no_champion_made_is_told_with_how_often_it_has_moved(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    before = tick()
    models = [history.register("TrainFlow/17", rows) for _ in range(2)]
    promote(models[0])
    with pytest.raises(NodeNotFound, match=r"^The champion of 'reviews' has moved once, so it has no move 2\."):
        Records().find("models:/reviews@champion#2")
    promote(models[1])
    with pytest.raises(NodeNotFound, match=r"has moved 2 times, .* Write reviews@champion#1 to #2\."):
        Records().find("reviews@champion#0")
    with pytest.raises(NodeNotFound, match="has never moved by then"):
        Records(before).find("reviews@champion#1")


def test_two_files_of_one_name_are_told_apart_by_their_digests(history: History) -> None:
    history.ingest("TrainFlow/17")
    history.ingest("TrainFlow/18", rows=[("the film was good", "positive"), *many_rows(30)])
    with pytest.raises(NodeAmbiguous, match=r"films\.csv@"):
        Records().find("films.csv")


def many_rows(count: int) -> list[tuple[str, str]]:
    return [(f"text number {n}", "positive" if n % 2 else "negative") for n in range(count)]


def test_a_file_that_was_changed_since_leaves_its_lines_unknown(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    row = list_ids(rows)[0]
    (history.folder / "films.csv").write_text("review,sentiment\nother,positive\n")
    graph = look(f"reviews#{row}", direction="up")
    assert not [node for node in graph.nodes if node.kind == "line"]
    (problem,) = graph.unknown[graph.roots[0]]
    assert "not the file any more" in problem
    assert next(facts.gone for node, facts in graph.facts.items() if node.kind == "file")


def test_a_table_of_another_program_says_that_nothing_is_known_of_it(history: History) -> None:
    from deltalake import write_deltalake

    write_deltalake("tables/others", pa.table({"row_id": ["a"], "text": ["x"]}))
    graph = look("others#a", direction="up")
    assert spell(graph) == {"others@v0#a part of others@v0"}
    assert {str(node): problems for node, problems in graph.unknown.items()} == {
        "others@v0": ("another program committed it, and does not say of what",),
        "others@v0#a": ("its commit does not say which lines rows came from",),
    }


def test_a_commit_outside_a_flow_says_why_no_task_is_named(trained: History) -> None:
    graph = look("reviews@v1", direction="up", depth=1)
    (problem,) = graph.unknown[graph.roots[0]]
    assert problem.endswith(": that was before dlpipe recorded tasks, or outside a flow")


def test_a_label_that_came_later_is_another_origin_of_its_row(history: History) -> None:
    history.ingest("TrainFlow/17")
    first = history.append("new.csv", 'review,sentiment\n"a fine film",\n').table
    history.append("later.csv", 'review,sentiment\n"a fine film","positive"\n')
    row = find_id(first, "a fine film")
    assert spell(look(f"reviews#{row}", direction="up", depth=1)) == {
        f"reviews@v1#{row} ingested from new.csv:2",
        f"reviews@v1#{row} labelled by later.csv:2",
        f"reviews@v1#{row} part of reviews@v1",
    }


def test_a_bad_line_leads_to_the_quarantine(history: History) -> None:
    history.ingest("TrainFlow/17", rows=[("", "positive"), *many_rows(40)])
    assert spell(look("films.csv:2", direction="down")) == {
        "reviews_quarantine@v0#films.csv:2 set aside from films.csv:2"
    }
    graph = look("reviews_quarantine#films.csv:2", direction="up", depth=1)
    assert spell(graph) == {
        "reviews_quarantine@v0#films.csv:2 set aside from films.csv:2",
        "reviews_quarantine@v0#films.csv:2 part of reviews_quarantine@v0",
    }
    assert graph.facts[graph.roots[0]].about == "empty text"


def test_rows_that_stay_through_an_ingest_are_the_same_rows(history: History) -> None:
    history.ingest("TrainFlow/17", rows=many_rows(40))
    appended = history.append("new.csv", 'review,sentiment\n"a fine film","positive"\n').table
    again = history.ingest("TrainFlow/18", rows=many_rows(50))
    row = find_id(again, "a fine film")
    assert [str(node) for node in Records().find(f"reviews@v{again.version}#{row}")] == [f"reviews@v1#{row}"]
    assert spell(look(f"reviews#{row}", direction="up", depth=1)) == {
        f"reviews@v1#{row} ingested from new.csv:2",
        f"reviews@v1#{row} part of {appended}",
    }
    replaced = find_id(again, "text number 3")
    assert [str(node) for node in Records().find(f"reviews#{replaced}")] == [
        f"reviews@v0#{replaced}",
        f"reviews@v2#{replaced}",
    ]


def test_a_compaction_by_another_program_changes_no_lineage(history: History) -> None:
    from deltalake import DeltaTable

    rows = history.ingest("TrainFlow/17", rows=many_rows(40))
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:3])
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[3:6])
    history.append("new.csv", 'review,sentiment\n"a fine film","positive"\n')
    row = list_ids(rows)[0]
    before = spell(look(f"reviews#{row}"))
    for table in ("reviews", "reviews_predictions"):
        DeltaTable(f"tables/{table}").optimize.compact()
    assert spell(look(f"reviews#{row}")) == before
    history.append("later.csv", 'review,sentiment\n"a dull film","negative"\n')
    assert [str(node) for node in Records().find(f"reviews#{row}")] == [f"reviews@v0#{row}"]


def test_a_model_that_was_deleted_is_named_with_who_deleted_it(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:1])
    delete_version(model, who="ana", why="leaked rows")
    graph = look("reviews_predictions@v0", direction="up")
    gone = {str(node): facts.gone for node, facts in graph.facts.items() if node.kind == "model"}
    assert list(gone) == ["models:/reviews/1"]
    assert gone["models:/reviews/1"].endswith("by ana: leaked rows")


def test_a_deleted_table_is_gone_and_its_model_still_names_it(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    history.register("TrainFlow/17", rows)
    delete_table("reviews")
    graph = look("reviews/1", direction="up", depth=1)
    (gone,) = [facts.gone for node, facts in graph.facts.items() if node.kind == "table"]
    assert "no table" in gone


# -- how far -----------------------------------------------------------------------------------------------------


def test_depth_says_where_more_would_follow(trained: History) -> None:
    graph = look("models:/reviews/1", direction="up", depth=1)
    assert {str(node) for node in graph.cut} == {
        "reviews@v0",
        "TrainFlow/17/train/3",
        "TrainFlow/17/register/5",
    }


def test_kinds_leave_out_what_leads_to_none_of_them(trained: History) -> None:
    assert spell(look("models:/reviews/1", direction="up", kinds=["file"])) == {
        "models:/reviews/1 trained on reviews@v0",
        "models:/reviews/1 evaluated on reviews@v0",
        "reviews@v0 ingested from films.csv",
    }


class Circle:
    """Three versions, each of which came of the next one."""

    def find_origins(self, node: Node) -> Iterator[Edge]:
        yield Edge(node, "appended to", Node("table", "/t", (node.number + 1) % 3))

    def find_results(self, node: Node) -> Iterator[Edge]:
        yield Edge(Node("table", "/t", (node.number - 1) % 3), "appended to", node)

    def describe(self, node: Node) -> Facts:
        return Facts()

    def find_unknown(self, node: Node) -> tuple[str, ...]:
        return ()

    def list_problems(self) -> tuple[str, ...]:
        return ()


def test_a_circle_ends(trained: History) -> None:
    assert len(walk(Circle(), [Node("table", "/t", 0)]).edges) == 3


def test_an_origin_that_leads_back_to_a_root_is_none_of_its_results(trained: History) -> None:
    model, run, table = Node("model", "reviews", 1), Node("run", "TrainFlow", key="1"), Node("table", "/t", 0)

    class Leading(Circle):
        def find_origins(self, node: Node) -> Iterator[Edge]:
            yield from {model: [Edge(model, "made by", run)], run: [Edge(run, "used", model)]}.get(node, [])

        def find_results(self, node: Node) -> Iterator[Edge]:
            yield from [Edge(table, "scored with", model)] if node == model else []

    graph = walk(Leading(), [model])
    lines = list(format_tree(graph))
    below = lines[next(number for number, line in enumerate(lines) if line.startswith("what came of it")) :]
    assert [line for line in below if "TrainFlow" in line] == []
    assert len(graph.edges) == 3
    assert "TrainFlow" not in "\n".join(format_tree(walk(Leading(), [model], direction="down")))
    assert "what came of it" not in "\n".join(format_tree(walk(Leading(), [model], direction="up")))


# -- as things were ----------------------------------------------------------------------------------------------


def tick() -> int:
    """Return a moment between what has happened and what follows."""
    time.sleep(0.005)
    moment = int(time.time() * 1000)
    time.sleep(0.005)
    return moment


def test_the_champion_and_its_rows_are_those_of_the_moment(history: History) -> None:
    begun = tick()
    rows = history.ingest("TrainFlow/17", rows=many_rows(40))
    first = history.register("TrainFlow/17", rows)
    promote(first)
    trained_once = tick()
    history.append("new.csv", 'review,sentiment\n"a fine film","positive"\n')
    second = history.register("TrainFlow/18", table_at("reviews", version=1))
    promote(second)
    then, now = Records(trained_once), Records()
    with pytest.raises(NodeNotFound, match="Nothing is called 'reviews@v0' at"):
        Records(begun).find("reviews@v0")
    assert [str(*records.find("models:/reviews@champion")) for records in (then, now)] == [first.uri, second.uri]
    assert [str(*records.find("reviews-pipeline@champion")) for records in (then, now)] == [
        "models:/reviews-pipeline/1",
        "models:/reviews-pipeline/2",
    ]
    assert [len(walk(records, records.find("reviews@v0"), direction="down").edges) for records in (then, now)] == [
        4,
        9,
    ]


def test_a_run_of_a_deployment_was_not_there_before_it_started(history: History) -> None:
    with closing(State.open()) as state:
        deployed(state, "TrainFlow", "")
        number = triggered(state, "TrainFlow", "cron:1")
        due = state.get_run(number).due
        for attempt, started in enumerate([due + 1, due + 60]):
            state.add_attempt(
                number, RunAttempt(attempt, "t", "r", metaflow_run=str(90 + attempt), started=started)
            )

    def list_runs(seconds: float) -> list[str]:
        records = Records(int((due + seconds) * 1000) + 999)
        (deployment,) = records.find("deployment:TrainFlow")
        return [edge.result.key for edge in records.find_results(deployment)]

    assert [list_runs(seconds) for seconds in (0, 30, 90)] == [[], ["90"], ["90", "91"]]


# -- the command -------------------------------------------------------------------------------------------------


def run(*words: str) -> str:
    done = CliRunner().invoke(main, ["lineage", *words])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_tree_spreads_a_node_out_once(trained: History) -> None:
    lines = run("reviews_predictions@v0", "--up").splitlines()
    assert lines[0].startswith("reviews_predictions@v0  120 rows, ")
    assert (
        lines[1]
        == "what it came of: 1 model (champion: models:/reviews/1), 1 file, 1 version of a table, 1 run, 4 tasks"
    )
    assert sum("ingested from films.csv" in line for line in lines) == 1
    assert any(line.startswith("└─ scored with models:/reviews/1  champion, ") for line in lines)
    assert any("trained on, evaluated on reviews@v0" in line and line.endswith("(see above)") for line in lines)


def test_json_has_every_node_with_what_there_is_to_say(trained: History) -> None:
    told = json.loads(run("models:/reviews@champion", "--up", "--depth", "1", "--json"))
    assert told["roots"] == ["models:/reviews/1"]
    by_label = {node["label"]: node for node in told["nodes"]}
    assert by_label["reviews@v0"]["about"] == "120 rows"
    assert by_label["reviews@v0"]["cut"]
    assert {(edge["how"], edge["origin"]) for edge in told["edges"] if "task" not in edge["how"]} == {
        ("trained on", f"{locate('reviews')}@v0"),
        ("evaluated on", f"{locate('reviews')}@v0"),
        ("made by", "TrainFlow/17/train/3"),
        ("made by", "TrainFlow/17/register/5"),
    }


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["nothing"], "Nothing is called 'nothing' (looked in '"),
        (["reviews"], "is the name of several things"),
        (["reviews@v0", "--kind", "modle"], "did you mean 'model'"),
        (["reviews@v0", "--at", "yesterday"], "is not a time"),
        (["reviews@v0", "--kind", ""], "--kind names no kind"),
        (["reviews@v0", "--dot", "--graphml"], "only one can be printed"),
        (["reviews#"], "Behind # the id of a row of reviews is missing"),
        (["reviews#ab"], "reviews has no row 'ab'"),
        (["reviews@v9"], "The table reviews has the versions v0 to v1"),
        (["models:/reviews/7"], "The model reviews has models:/reviews/1"),
        (["models:/reviews@nope"], "The model reviews has reviews@champion"),
        (["deployment:nope"], "Runs were started by no deployment"),
        (["reviews@v0", "--at", "1999-01-01"], "at 1999-01-01 00:00 UTC"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_code_1(
    words: list[str], problem: str, trained: History
) -> None:
    done = CliRunner().invoke(main, ["lineage", *words])
    assert done.exit_code == 1
    assert problem in done.output
    assert done.output.count("\n") == 1


def test_commands_that_find_nothing_name_the_folder_in_which_they_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DLPIPE_TABLES", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(variable, raising=False)
    for words, place in (
        (
            ["lineage", "reviews"],
            f"(looked in '{tmp_path}/data/tables' for tables and in '{tmp_path}/mlflow.db' for models)",
        ),
        (["usage"], f"model (looked in '{tmp_path}/data/tables')"),
        (["usage", "--until", "2026-01-31"], f"on these days (looked in '{tmp_path}/data/tables')"),
    ):
        done = CliRunner().invoke(main, words)
        assert place in done.stderr
        assert "Stand in the folder of the project" in done.stderr
    assert not list(tmp_path.iterdir())


def test_on_a_terminal_what_is_read_is_said_and_elsewhere_it_is_not(
    trained: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, terminal = os.openpty()
    with os.fdopen(reader, "rb") as screen, os.fdopen(terminal, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        main(["lineage", "reviews/1", "--up"], standalone_mode=False)
        stderr.flush()
        told = [screen.readline().decode().strip() for _ in range(3)]
    assert told == [
        "looking for reviews/1 in tables, models, runs and requests",
        "looking at what it came of",
        "looking at what is known of each",
    ]
    assert CliRunner().invoke(main, ["lineage", "reviews/1", "--up"]).stderr == ""


def test_only_one_form_is_printed(trained: History) -> None:
    done = CliRunner().invoke(main, ["lineage", "reviews@v0", "--json", "--dot"])
    assert (done.exit_code, "only one can be printed" in done.output) == (1, True)


def test_dot_has_each_edge_from_origin_to_result(trained: History) -> None:
    lines = run("reviews@v0", "--up", "--depth", "1", "--dot").splitlines()
    table, (file,) = f"{locate('reviews')}@v0", (node.id for node in Records().find("films.csv"))
    assert f'  "{file}" -> "{table}" [label="ingested from"];' in lines
    assert f'  "{table}" [label="table\\nreviews@v0", style=bold];' in lines
    assert (lines[0], lines[-1]) == ("digraph lineage {", "}")


def test_graphml_has_the_nodes_and_edges_that_json_has(trained: History) -> None:
    words = ("reviews_predictions@v0", "--up")
    told, drawn = json.loads(run(*words, "--json")), ElementTree.fromstring(run(*words, "--graphml"))
    space = "{http://graphml.graphdrawing.org/xmlns}"
    edges = [
        (edge.get("target"), edge.findtext(f"{space}data[@key='edge-how']"), edge.get("source"))
        for edge in drawn.iter(f"{space}edge")
    ]
    assert edges == [(edge["result"], edge["how"], edge["origin"]) for edge in told["edges"]]
    assert [node.get("id") for node in drawn.iter(f"{space}node")] == [node["id"] for node in told["nodes"]]


def test_the_page_loads_nothing_and_runs_no_script_but_its_own(trained: History, tmp_path: Path) -> None:
    run("models:/reviews@champion", "--html", str(tmp_path / "lineage.html"))
    page = (tmp_path / "lineage.html").read_text()
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; script-src &#x27;sha256-{digest}"
        in page
    )
    assert not re.search(r"\b(src|href)=|@import|url\(", page)


def test_what_stands_in_names_and_texts_is_no_markup_on_the_page() -> None:
    table, file = Node("table", "/t/reviews", 0), Node("file", "<b>.csv", key="ab" * 32)
    graph = Graph((table,), (Edge(table, "ingested from", file, "</script><script>alert(1)</script>"),))
    page = make_page(graph)
    assert page.count("<script") == 2
    assert "<b>" not in page
    drawn = json.loads(page.partition('type="application/json">')[2].partition("</script>")[0])
    assert drawn["nodes"][1]["label"] == "<b>.csv"


def make_wide(count: int, *, own_runs: bool) -> Graph:
    table, model = Node("table", "/t/reviews", 0), Node("model", "reviews", 1)
    edges = [Edge(model, "trained on", table)]
    for number in range(count):
        made = Node("predictions", "/t/reviews_predictions", number)
        edges += [Edge(made, "scored", table), Edge(made, "scored with", model)]
        if own_runs:
            edges.append(Edge(made, "part of", Node("run", "PredictFlow", key=str(number))))
    return Graph((table,), tuple(edges))


@pytest.mark.parametrize("own_runs", [False, True])
def test_hundreds_of_things_that_are_alike_are_a_few_boxes(own_runs: bool) -> None:
    drawn = lay_out(make_wide(250, own_runs=own_runs))["nodes"]
    boxes = {node["id"] if node["group"] is None else node["group"] for node in drawn}
    assert len(drawn) == (502 if own_runs else 252)
    assert len(boxes) == (4 if own_runs else 3)


def test_few_things_that_differ_in_their_neighbours_are_boxes_of_their_own() -> None:
    assert {node["group"] for node in lay_out(make_wide(10, own_runs=True))["nodes"]} == {None}


def test_origins_are_left_of_what_came_of_them(trained: History) -> None:
    graph = look("films.csv")
    layers = find_layers(graph)
    assert all(layers[edge.origin] < layers[edge.result] for edge in graph.edges)


def test_a_circle_has_columns_too() -> None:
    nodes = [Node("table", "/t", number) for number in range(3)]
    edges = [Edge(nodes[number], "appended to", nodes[number - 1]) for number in range(3)]
    assert sorted(find_layers(Graph((nodes[0],), tuple(edges))).values()) == [0, 1, 2]


def test_all_columns_of_a_wide_and_low_graph_are_in_view(tmp_path: Path) -> None:
    nodes = [Node("table", "/t", number) for number in range(6)]
    chain = [Edge(nodes[number + 1], "appended to", nodes[number]) for number in range(5)]
    page = tmp_path / "lineage.html"
    page.write_text(make_page(Graph((nodes[3],), tuple(chain))), encoding="utf-8")
    drawn = open_in_browser(page.as_uri(), "--window-size=1400,1000", "--dump-dom", folder=tmp_path).stdout
    width = re.search(r'<svg[^>]* width="(\d+)"', drawn)
    assert drawn.count('class="box') == 6
    assert width is not None
    assert 1200 < int(width[1]) <= 1400
    assert '<div id="page" class="low">' in drawn


# -- whether records agree ---------------------------------------------------------------------------------------


def list_problems() -> set[str]:
    """Return what is wrong, without the runs that a made-up history does not have."""
    found = check_records(Records())
    return {f"{one.problem} {one.text}" for one in found if "Metaflow has no such run" not in one.text}


def test_a_history_in_which_nothing_is_gone_agrees_but_for_its_runs(trained: History) -> None:
    found = check_records(Records())
    assert not list_problems()
    assert {one.problem for one in found} == {"dangling"}
    assert "made by TrainFlow/17/start/1, but Metaflow has no such run any more" in {one.text for one in found}


def test_an_answer_for_a_row_that_nobody_has_is_found(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, [list_ids(rows)[0], "0000000000000000"])
    assert list_problems() == {"dangling 1 row is not in reviews@v0, such as 0000000000000000"}


def test_a_table_that_was_deleted_leaves_its_models_and_answers_dangling(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:1])
    delete_table("reviews")
    told = {problem.partition(", but ")[0] for problem in list_problems()}
    assert told >= {
        f"dangling {how} {locate('reviews').removeprefix(f'{history.folder}/tables/')}@v0"
        for how in ("trained on", "evaluated on", "scored")
    }


def test_a_version_that_was_deleted_with_a_reason_is_no_problem_and_one_without_is(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    models = [history.register("TrainFlow/17", rows) for _ in range(2)]
    for model in models:
        history.predict("TrainFlow/17", model, rows, list_ids(rows)[:1])
    delete_version(models[0], who="ana", why="leaked rows")
    assert not list_problems()
    history.client.delete_model_version("reviews", "2")
    assert list_problems() == {
        "dangling scored with models:/reviews/2, but the registry has no such version",
        "dangling made from models:/reviews/2, but the registry has no such version",
    }


def test_answers_whose_commit_does_not_say_whose_they_are_are_missing_it(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:1])
    added = read_table(table_at("reviews_predictions"))
    write_table("reviews_predictions", added)
    assert list_problems() == {"missing no record of the model and of the rows that it answered for"}


def test_the_command_ends_with_1_where_records_do_not_agree(trained: History) -> None:
    done = CliRunner().invoke(main, ["lineage", "check"])
    assert done.exit_code == 1
    assert re.fullmatch(r"\d+ dangling, 0 missing, 0 differs", done.stdout.splitlines()[-1])
    told = json.loads(CliRunner().invoke(main, ["lineage", "check", "--json"]).stdout)
    assert {finding["problem"] for finding in told} == {"dangling"}


# -- other commands that ask it ----------------------------------------------------------------------------------


def show_table(*words: str) -> dict[str, str]:
    """Return what `dlpipe tables show` says of a version, by name."""
    shown = CliRunner().invoke(main, ["tables", "show", *words, "--rows", "0"]).stdout
    return dict(re.split(r" {2,}", line, maxsplit=1) for line in shown.partition("\n\n")[0].splitlines())


def test_a_shown_table_says_what_it_came_of_and_which_task_made_it(trained: History) -> None:
    rows, answers, appended = (
        show_table(name, "--version", number)
        for name, number in (("reviews", "0"), ("reviews_predictions", "1"), ("reviews", "1"))
    )
    assert (rows["from"], rows["made by"]) == ("films.csv", "TrainFlow/17/start/1")
    assert (answers["from"], answers["made by"]) == ("reviews@v1 by models:/reviews/1", "PredictFlow/20/predict/6")
    assert (appended["from"], "made by" in appended) == ("new.csv", False)


def test_what_was_asked_and_labelled_leads_to_the_row_that_it_became_and_back(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.answer(model, text="a very fine film")
    history.answer(model, text="not labelled", request=REQUEST.replace("01a2", "01a3"))
    history.label(model, "positive")
    appended = append_labelled("reviews", "reviews")
    assert appended is not None
    row = find_id(appended.table, "a very fine film")
    assert spell(look(f"reviews#{row}", direction="up")) >= {
        f"reviews@v1#{row} ingested from {REQUEST}",
        f"{REQUEST} labelled by reviews_feedback#{REQUEST}:0",
        f"{REQUEST} answered with models:/reviews/1",
    }
    assert not look(f"reviews#{row}", direction="up", depth=1).unknown
    assert spell(look(REQUEST, direction="down")) == {f"reviews@v1#{row} ingested from {REQUEST}"}


def test_a_damaged_table_is_found_by_the_check(history: History) -> None:
    history.ingest("TrainFlow/17")
    (history.folder / "tables/reviews/_delta_log/00000000000000000000.json").write_text("{")
    assert any(problem.startswith("dangling") and "reviews" in problem for problem in list_problems())


def test_a_registry_that_is_down_leaves_the_lineage_of_tables_and_says_so(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    history.predict("TrainFlow/17", model, rows, list_ids(rows)[:1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = CliRunner().invoke(main, ["lineage", "reviews@v0", "--down", "--json"])
    told = json.loads(done.stdout)
    assert [edge["how"] for edge in told["edges"]] == ["scored"]
    assert "127.0.0.1:9" in told["problems"][0]
    assert "Something may be missing: " in done.stderr
    for words in (["models:/reviews/1"], ["check"]):
        asked = CliRunner().invoke(main, ["lineage", *words])
        assert (asked.exit_code, "127.0.0.1:9" in asked.stderr) == (1, True)


def test_a_log_of_requests_has_versions_although_its_commits_are_not_read(trained: History) -> None:
    record = Records().catalog.find(locate("reviews_requests"))
    assert [record.has_version(number) for number in (0, 9)] == [True, False]
    graph = look("reviews_requests@v0")
    assert (spell(graph), graph.unknown) == (set(), {})
    with pytest.raises(NodeNotFound):
        Records().find("reviews_requests@v9")
