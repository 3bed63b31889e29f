"""Less common edges of lineage: rows of requests, labels from feedback, rows of other tables, code, mere use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_lineage import REQUEST, History, find_id, list_ids
from stores import keep_runs_in, untouched_environment

from dlpipe.errors import NodeNotFound
from dlpipe.lineage import Graph, Records, walk
from dlpipe.serving.feedback import append_labelled
from dlpipe.tables import Sources, ingest, table_at
from dlpipe.task.text_classification import TextClassData

FLOW = """
from metaflow import FlowSpec, checkpoint, current, step


class UseFlow(FlowSpec):
    @checkpoint
    @step
    def start(self):
        from dlpipe.tables import Sources, ingest, table_at
        from dlpipe.tuning import Trial, Tuned
        from dlpipe.task.text_classification import TextClassData

        self.rows = table_at("reviews")
        self.tuned = Tuned((Trial(0, {"rate": 0.1}, (), None), Trial(1, {"rate": 0.2}, (), None)), {"rate": 0.2})
        current.checkpoint.save("films.csv", name="training")
        self.made = ingest(Sources(data="films.csv"), "copy", settings=TextClassData()).table
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UseFlow()
"""


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


def run_flow(history: History) -> str:
    (history.folder / "use_flow.py").write_text(FLOW)
    command = [sys.executable, "use_flow.py", "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(f"UseFlow/{place.name}" for place in Path(".metaflow/UseFlow").iterdir() if place.name.isdigit())


def test_a_row_of_a_request_of_fifty_has_its_own_label_and_no_other(history: History) -> None:
    model = history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
    history.answer(model, texts=[f"a film of {number} hours" for number in range(50)])
    for row, label in ((3, "positive"), (4, "negative"), (44, "negative")):
        history.label(model, label, row=row)
    appended = append_labelled("reviews", "reviews")
    assert appended is not None
    row = find_id(appended.table, "a film of 3 hours")
    asked, label = f"{REQUEST}:3", f"reviews_feedback#{REQUEST}:3"
    assert spell(look(f"reviews#{row}", direction="up", depth=3)) >= {
        f"reviews@v1#{row} ingested from {asked}",
        f"reviews@v1#{row} labelled by {label}",
        f"{asked} labelled by {label}",
        f"{asked} part of {REQUEST}",
        f"{REQUEST} answered with models:/reviews/1",
    }
    up = look(f"reviews#{row}", direction="up")
    assert [node.key for node in up.nodes if node.kind == "feedback"] == [f"{REQUEST}:3"]
    assert spell(look(asked, direction="up", depth=1)) == {
        f"{asked} part of {REQUEST}",
        f"{asked} labelled by {label}",
    }
    assert spell(look(label, direction="down")) == {
        f"{asked} labelled by {label}",
        f"reviews@v1#{row} labelled by {label}",
        f"reviews@v1#{row} ingested from {asked}",
    }
    whole = look(REQUEST, direction="up")
    assert sorted(node.key for node in whole.nodes if node.kind == "feedback") == sorted(
        f"{REQUEST}:{number}" for number in (3, 4, 44)
    )
    assert f"reviews@v1#{row} ingested from {asked}" in spell(look(REQUEST, direction="down"))
    assert Records().find(asked) == tuple(node for node in up.nodes if node.id == asked)
    with pytest.raises(NodeNotFound, match=f"The request {REQUEST} had 50 rows, 0 to 49"):
        Records().find(f"{REQUEST}:50")


def test_the_only_row_of_a_request_may_be_named_by_its_number(history: History) -> None:
    history.answer(history.register("TrainFlow/17", history.ingest("TrainFlow/17")))
    assert Records().find(f"{REQUEST}:0") == Records().find(REQUEST)
    with pytest.raises(NodeNotFound, match=f"The request {REQUEST} had one row, 0"):
        Records().find(f"{REQUEST}:1")


@pytest.mark.parametrize("texts", [["a film of 3 hours"], ["a film of 3 hours", "a film of 4 hours"]])
def test_a_label_that_names_no_row_is_for_the_only_one(history: History, texts: list[str]) -> None:
    model = history.register("TrainFlow/17", history.ingest("TrainFlow/17"))
    history.answer(model, texts=texts)
    history.label(model, "negative", row=None)
    history.label(model, "positive", row=None)
    edge = f"{REQUEST} labelled by reviews_feedback#{REQUEST}:0"
    assert (edge in spell(look(REQUEST, direction="up"))) == (len(texts) == 1)
    if len(texts) == 1:
        assert edge in spell(look(f"reviews_feedback#{REQUEST}:0", direction="down"))
    else:
        with pytest.raises(NodeNotFound):
            Records().find(f"reviews_feedback#{REQUEST}:0")


def test_a_row_whose_label_came_from_feedback_later_leads_to_it(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    model = history.register("TrainFlow/17", rows)
    appended = history.append("new.csv", 'review,sentiment\n"a quiet film",\n').table
    history.answer(model, text="a quiet film")
    history.label(model, "positive")
    assert append_labelled("reviews", "reviews") is not None
    row = find_id(appended, "a quiet film")
    up = look(f"reviews#{row}", direction="up", depth=1)
    assert spell(up) == {
        f"reviews@v1#{row} ingested from new.csv:2",
        f"reviews@v1#{row} labelled by reviews_feedback#{REQUEST}:0",
        f"reviews@v1#{row} part of reviews@v1",
    }
    assert f"reviews@v1#{row} labelled by reviews_feedback#{REQUEST}:0" in spell(
        look(REQUEST, direction="down")
    ) | spell(look(f"reviews_feedback#{REQUEST}:0", direction="down"))


def test_a_row_of_a_table_that_was_ingested_from_another_leads_to_the_row_there_and_back(history: History) -> None:
    rows = history.ingest("TrainFlow/17")
    ingest(Sources(data=rows.path), "copies", settings=TextClassData(text_column="text", label_column="label"))
    row = list_ids(table_at("copies"))[0]
    assert row in list_ids(rows)
    assert spell(look(f"copies#{row}", direction="up", depth=1)) == {
        f"copies@v0#{row} ingested from reviews@v0#{row}",
        f"copies@v0#{row} part of copies@v0",
    }
    assert "line" in {node.kind for node in look(f"copies#{row}", direction="up").nodes}
    assert spell(look(f"reviews#{row}", direction="down")) == {f"copies@v0#{row} ingested from reviews@v0#{row}"}


def test_a_run_leads_to_its_code_its_trials_its_checkpoints_and_what_it_used(history: History) -> None:
    history.ingest("TrainFlow/17")
    run = run_flow(history)
    up = look(run, direction="up", depth=1)
    used = {text for text in spell(up) if " used " in text}
    assert used == {f"{run} used reviews@v0"}
    codes = [edge.origin for edge in up.edges if edge.how == "ran"]
    (code,) = codes
    assert spell(look(str(code), direction="down", depth=1)) == {f"{run} ran {code}"}
    assert up.facts[code].gone == ""
    assert f"{run} used reviews@v0" in spell(look("reviews@v0", direction="down", depth=1))
    assert f"{run} used copy@v0" not in spell(look("copy@v0", direction="down"))  # which it made
    task = f"{run}/start/1"
    best, saved = f"{task} trial 1", f"{task}/0 checkpoint 0"
    assert f"{run} tuned by {best}" in spell(look(run, direction="up", depth=1))
    found = spell(look(task, direction="down", depth=1))
    assert found >= {f"{task} trial 0 part of {task}", f"{best} part of {task}", f"{saved} made by {task}"}
    assert spell(look(best, direction="down", depth=1)) == {f"{run} tuned by {best}"}
    up = look(saved, direction="up", depth=1)
    assert spell(up) == {f"{saved} made by {task}"}
    assert (up.facts[up.roots[0]].gone, look(best).facts[look(best).roots[0]].about) == ("", "rate=0.2")
