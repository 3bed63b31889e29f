"""A story of ten events, and what lineage says of each moment in it: the expected graphs are spelt out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deltalake import DeltaTable
from made_up_lineage import History, find_id, list_ids
from openlineage_graph import find_problems, list_edges, rebuild
from schedulers import deployed
from stores import keep_runs_in, untouched_environment

from dlpipe.lineage import Records, walk
from dlpipe.openlineage import make_events
from dlpipe.orchestrator.runs import Event, RunAttempt
from dlpipe.orchestrator.state import State
from dlpipe.registry import ModelVersion, find_earlier_champion, promote
from dlpipe.tables import TableVersion, history, table_at

FLOW = """
import os
from metaflow import FlowSpec, step

class TrainFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        if os.environ.get("FAILS"):
            raise SystemExit(1)

if __name__ == "__main__":
    TrainFlow()
"""
WRITING_FLOW = """
from metaflow import FlowSpec, retry, step
import pyarrow as pa
from dlpipe.tables import write_table

class NotingFlow(FlowSpec):
    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        from metaflow import current
        write_table("notes", pa.table({"note": ["a"]}))
        assert current.retry_count
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    NotingFlow()
"""
EVENT = "8b3f9a52-5a4c-4a6e-9f2e-1d2c3b4a5f60"
GONE = "Metaflow has no such run any more"


@dataclass
class Story:
    """What happened, and the moment after each event."""

    history: History
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, ModelVersion] = field(default_factory=dict)
    moments: dict[str, int] = field(default_factory=dict)

    def note(self, event: str) -> None:
        """Note a moment at which the event is over and the next one has not begun."""
        time.sleep(0.005)
        self.moments[event] = int(time.time() * 1000)
        time.sleep(0.005)

    def run(self, name: str, *words: str, fails: bool = False) -> str:
        """Run the flow and return its pathspec."""
        command = [sys.executable, "train_flow.py", "--quiet", *(words or ("run",))]
        environ = {**os.environ, "FAILS": "1" if fails else "", "METAFLOW_USER": "ana"}
        done = subprocess.run(
            [*command, "--run-id-file", "id"], env=environ, capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == fails, done.stderr
        self.runs[name] = f"TrainFlow/{Path('id').read_text()}"
        return self.runs[name]

    def train(self, name: str, run: str, rows: TableVersion) -> None:
        """Register a version that a run has trained, which the gate makes champion."""
        self.models[name] = self.history.register(run, rows)
        promote(self.models[name], how="gate", who="ana", why="passed")

    def at(self, event: str) -> Records:
        return Records(self.moments[event])

    def spell(self, event: str, text: str, **how: object) -> set[str]:
        """Return the edges of a walk after an event as sentences, with the runs by their names."""
        records = self.at(event)
        graph = walk(records, records.find(text), **how)  # type: ignore[arg-type]
        told = {f"{edge.result} {edge.how} {edge.origin}" for edge in graph.edges}
        for name, run in self.runs.items():
            told = {sentence.replace(run, name) for sentence in told}
        return told


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Ingest, train, train, roll back, append, drift, train, resume, delete a run, compact."""
    with pytest.MonkeyPatch.context() as patch, untouched_environment():
        folder = tmp_path_factory.mktemp("story")
        (folder / ".metaflow").mkdir()
        (folder / "train_flow.py").write_text(FLOW)
        patch.chdir(folder)
        keep_runs_in(folder, patch)
        told = Story(History(folder))
        history = told.history
        first, failed = told.run("FIRST"), told.run("FAILED", fails=True)
        rows = history.ingest(first)
        told.note("ingest")
        told.train("first", first, rows)
        told.note("train")
        told.train("second", failed, rows)
        told.note("train again")
        promote(find_earlier_champion("reviews"), how="rollback", who="ben", why="misreads irony")
        told.note("roll back")
        appended = history.append("new.csv", 'review,sentiment\n"a fine film","positive"\n').table
        scored = history.predict("PredictFlow/20", told.models["first"], appended, list_ids(appended)[-1:])
        told.note("append")
        look = history.look(told.models["first"], appended, scored)
        event = Event(EVENT, "model-drifted", history.describe_look(look), time.time())
        with_state(lambda state: state.publish(event))
        told.note("drift")
        third = told.run("THIRD")
        with_state(lambda state: start_run(state, event, third))
        told.train("third", third, appended)
        told.note("train on drift")
        told.run("RESUMED", "resume", "--origin-run-id", failed.partition("/")[2])
        told.note("resume")
        shutil.rmtree(folder / ".metaflow" / first)
        told.note("delete run")
        for table in ("reviews", "reviews_predictions"):
            DeltaTable(f"tables/{table}").optimize.compact()
        told.note("compact")
        yield told


def with_state(act: object) -> None:
    state = State.open()
    try:
        act(state)  # type: ignore[operator]
    finally:
        state.close()


def start_run(state: State, event: Event, run: str) -> None:
    """Note that an event has started a run, as the scheduler does."""
    deployed(state, "TrainFlow", "")
    noted, _ = state.add_run(
        "TrainFlow", cause="event model-drifted", key=event.id, due=time.time(), events=[event]
    )
    state.add_attempt(noted.number, RunAttempt(0, "token", "folder", metaflow_run=run.partition("/")[2]))


CHAMPIONS = {
    "train": "first",
    "train again": "second",
    "roll back": "first",
    "append": "first",
    "drift": "first",
    "train on drift": "third",
    "resume": "third",
    "delete run": "third",
    "compact": "third",
}


@pytest.mark.parametrize("event", CHAMPIONS)
def test_the_champion_is_that_of_the_moment(event: str, story: Story) -> None:
    wanted = story.models[CHAMPIONS[event]]
    assert [str(node) for node in story.at(event).find("models:/reviews@champion")] == [wanted.uri]
    pipeline = wanted.uri.replace("reviews", "reviews-pipeline")
    assert [str(node) for node in story.at(event).find("reviews-pipeline@champion")] == [pipeline]


def of_first_training(model: str) -> set[str]:
    return {
        f"{model} trained on reviews@v0",
        f"{model} evaluated on reviews@v0",
        f"{model} made by FIRST/train/3",
        f"{model} made by FIRST/register/5",
    }


def test_what_came_of_the_file_grows_with_each_event(story: Story) -> None:
    def spell(event: str) -> set[str]:
        return story.spell(event, "films.csv", direction="down", kinds=["table", "model", "move", "event", "run"])

    ingested = {"reviews@v0 ingested from films.csv"}
    assert spell("ingest") == ingested
    first = {
        "models:/reviews/1 trained on reviews@v0",
        "models:/reviews/1 evaluated on reviews@v0",
        "models:/reviews-pipeline/1 made from models:/reviews/1",
        "models:/reviews@champion#1 points to models:/reviews/1",
    }
    assert spell("train") == ingested | first
    second = {
        *(sentence.replace("/1", "/2") for sentence in first if "champion" not in sentence),
        "models:/reviews@champion#2 points to models:/reviews/2",
    }
    assert spell("train again") == ingested | first | second
    back = {"models:/reviews@champion#3 points to models:/reviews/1"}
    assert spell("roll back") == ingested | first | second | back
    appended = {"reviews@v1 appended to reviews@v0"}
    assert spell("append") == ingested | first | second | back | appended
    drift = {
        "reviews_predictions@v0 scored reviews@v1",
        "reviews_predictions@v0 scored with models:/reviews/1",
        "reviews_drift@v0 compared reviews_predictions@v0",
        "reviews_drift@v0 compared models:/reviews/1",
        f"event:{EVENT} published by reviews_drift@v0",
    }
    assert spell("drift") == ingested | first | second | back | appended | drift
    third = {
        "models:/reviews/3 trained on reviews@v1",
        "models:/reviews/3 evaluated on reviews@v1",
        "models:/reviews-pipeline/3 made from models:/reviews/3",
        "models:/reviews@champion#4 points to models:/reviews/3",
        f"THIRD started by event:{EVENT}",
    }
    assert spell("train on drift") == ingested | first | second | back | appended | drift | third


def test_the_last_champion_leads_back_through_drift_to_the_first_one(story: Story) -> None:
    told = story.spell("train on drift", "models:/reviews@champion", direction="up")
    assert told >= {
        "models:/reviews/3 trained on reviews@v1",
        "reviews@v1 appended to reviews@v0",
        "reviews@v1 ingested from new.csv",
        "models:/reviews/3 made by THIRD/train/3",
        "THIRD/train/3 part of THIRD",
        f"THIRD started by event:{EVENT}",
        f"event:{EVENT} published by reviews_drift@v0",
        "reviews_drift@v0 compared models:/reviews/1",
        *of_first_training("models:/reviews/1"),
    }
    assert not [sentence for sentence in told if "models:/reviews/2" in sentence]


def test_a_row_that_came_later_taught_the_last_champion_alone(story: Story) -> None:
    row = find_id(table_at("reviews", version=1), "a fine film")
    split = next(
        split for split in ("train", "valid", "test") if row in list_ids(table_at("reviews", version=1), split)
    )
    how = "trained on" if split == "train" else "evaluated on"
    ingested = {f"reviews@v1#{row} ingested from new.csv:2"}
    scored = {f"reviews_predictions@v0#{row} scored reviews@v1#{row}"}
    assert story.spell("append", "new.csv:2", direction="down") == ingested | scored
    learnt = {f"models:/reviews/3 {how} reviews@v1#{row}"}
    assert story.spell("compact", "new.csv:2", direction="down", depth=2) == ingested | scored | learnt


def test_a_resumed_run_leads_to_the_one_that_failed_from_then_on(story: Story) -> None:
    failed = story.runs["FAILED"]
    before = story.spell("train on drift", failed, direction="down", depth=1)
    after = story.spell("resume", failed, direction="down", depth=1)
    assert after - before == {"RESUMED resumed from FAILED"}
    up = story.spell("resume", story.runs["RESUMED"], direction="up")
    assert {text for text in up if " ran code:" not in text} == {"RESUMED resumed from FAILED"}
    assert any(text.startswith("FAILED ran code:TrainFlow@") for text in up)


def test_a_deleted_run_is_gone_and_what_it_made_still_names_it(story: Story) -> None:
    records = story.at("delete run")
    graph = walk(records, records.find("reviews/1"), direction="up")
    gone = {re.sub(r"\d{16}", "FIRST", str(node)): facts.gone for node, facts in graph.facts.items() if facts.gone}
    assert gone["TrainFlow/FIRST"] == gone["TrainFlow/FIRST/start/1"] == GONE
    kept = walk(records, records.find("reviews/3"), direction="up")
    assert [facts.gone for node, facts in kept.facts.items() if str(node) == story.runs["THIRD"]] == [""]
    assert of_first_training("models:/reviews/1") <= story.spell("delete run", "reviews/1", direction="up")


def test_a_compaction_changes_nothing_of_the_lineage_of_rows(story: Story) -> None:
    row = find_id(table_at("reviews", version=1), "a fine film")
    for text in (f"reviews#{row}", f"reviews_predictions#{row}", "films.csv:2"):
        assert story.spell("compact", text) == story.spell("delete run", text)


def test_nothing_is_known_of_what_had_not_happened_yet(story: Story) -> None:
    for event, text in (
        ("ingest", "models:/reviews@champion"),
        ("roll back", "reviews@v1"),
        ("append", f"event:{EVENT}"),
        ("drift", story.runs["THIRD"]),
        ("resume", "reviews@v2"),
    ):
        with pytest.raises(LookupError, match="Nothing is called"):
            story.at(event).find(text)


def test_a_table_names_the_attempt_that_wrote_it_without_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    Path(".metaflow").mkdir()
    Path("noting_flow.py").write_text(WRITING_FLOW)
    command = [sys.executable, "noting_flow.py", "--quiet", "run", "--run-id-file", "id"]
    environ = {**os.environ, "METAFLOW_USER": "ana"}
    subprocess.run(command, env=environ, capture_output=True, check=True)
    task = f"NotingFlow/{Path('id').read_text()}/start/1"
    assert [commit["made_by"] for commit in history("notes")] == [f"{task}/1", f"{task}/0"]
    records = Records()
    assert f"notes@v1 made by {task}" in {
        f"{edge.result} {edge.how} {edge.origin}" for edge in walk(records, records.find("notes@v1")).edges
    }


def test_who_was_told_of_the_story_has_its_graph(story: Story) -> None:
    told = list(make_events())
    assert [problem for event in told for problem in find_problems(event)] == []
    runs = [run for run in story.runs.values() if run != story.runs["FIRST"]]
    expected = list_edges(Records(), runs)
    assert {how for _, how, _ in expected} >= {"resumed from", "started by", "part of", "compared", "ran"}
    assert rebuild(told) == expected
