"""Events of OpenLineage: valid, told once, and with the graph that lineage has."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_lineage import History, list_ids
from openlineage_graph import find_problems, list_edges, list_facets, rebuild
from stores import keep_runs_in, untouched_environment

from dlpipe.cli import main
from dlpipe.lineage import Records
from dlpipe.registry import delete_version, promote
from dlpipe.tables import delete_table, locate

SECRET = "hunter2-of-ana"


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
