"""The production flows: new rows scored once, then explained and compared; drift publishes an event."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from projects import Done, Project, as_csv, assert_in_mlflow
from test_bad_input import assert_one_clear_line
from test_kills import wait_until_gone
from test_train_flow import card_data
from texts import BAD, GOOD, THINGS

from dlpipe.orchestrator.state import State
from dlpipe.tables import append, read_added, read_table, table_at, write_table
from dlpipe.task.text_classification import TextClassData

PREDICT, EXPLAIN, MONITOR = "flows/predict_flow.py", "flows/explain_flow.py", "flows/monitor_flow.py"
SHIFTED = [(f"the {thing} came with a {part} that broke on day {n}", "") for n in range(10) for thing, part in
           (("camera", "strap"), ("kettle", "lid"), ("printer", "cable"), ("lamp", "switch"), ("drill", "bit"),
            ("router", "plug"))]  # fmt: skip


@pytest.fixture(scope="module")
def incoming(project: Project, first: Done) -> Path:
    """A table of rows without labels that look like nothing that the champion was trained on."""
    add(project, "incoming", SHIFTED)
    project.file("few.toml", "[explanation]\nrows = 2\nmax_evals = 60\n")
    return project.tables / "incoming"


def add(project: Project, table: str, rows: list[tuple[str, str]]) -> None:
    append(
        str(project.folder / project.file("new.csv", as_csv(rows))),
        project.tables / table,
        settings=TextClassData(),
    )


@pytest.fixture(scope="module")
def predicted(project: Project, incoming: Path) -> Done:
    return project.python(PREDICT, "run", "--table", "incoming")


@pytest.fixture(scope="module")
def explained(project: Project, predicted: Done) -> Done:
    words = ("--config", "settings", "few.toml", "--trigger", f"PredictFlow/{predicted.run_id}", "run")
    return project.python(EXPLAIN, *words)


@pytest.fixture(scope="module")
def monitored(project: Project, predicted: Done) -> Done:
    words = ("--trigger", f"PredictFlow/{predicted.run_id}", "run")
    return project.python(MONITOR, *words, env=state(project))


def state(project: Project) -> dict[str, str]:
    return {"DLPIPE_STATE": str(project.folder / "state")}


def events(project: Project) -> list:
    with contextlib.closing(State.open(project.folder / "state")) as opened:
        return [event for _, event in opened.list_events_after(0)]


def test_a_run_explains_some_of_the_rows_that_the_run_before_it_scored(
    project: Project, predicted: Done, explained: Done
) -> None:
    assert explained.code == 0, explained.said
    assert explained.summary("data") == f"incoming@v0, 2 of 60 rows that PredictFlow/{predicted.run_id} scored"
    made = project.run(explained.run_id, "ExplainFlow").data
    scored = read_added(made.explained)["row_id"].to_pylist()
    assert len(set(scored)) == 2
    assert set(scored) <= set(read_table(table_at(project.tables / "incoming"))["row_id"].to_pylist())


def test_drift_is_found_kept_drawn_and_published(project: Project, monitored: Done) -> None:
    assert monitored.code == 0, monitored.said
    assert monitored.summary("outcome").startswith("drift: AUC of telling new texts from old ones 1.000")
    assert monitored.summary("event") == "model-drifted is published"
    (event,) = events(project)
    assert (event.name, event.payload["model"], event.payload["retrain"]) == ("model-drifted", "reviews", True)
    assert event.payload["table"] == str(project.tables / "reviews")
    card = project.python(MONITOR, "card", "get", f"{monitored.run_id}/compare", "monitor.html")
    assert card.code == 0, card.said
    shown = card_data((project.folder / "monitor.html").read_text())
    assert "Drift: incoming" in shown
    assert "No new row has a label yet" in shown
    assert "The event model-drifted asks for a training" in shown
    assert table_at(project.tables / "incoming_drift").rows == 1


def test_the_card_of_a_scoring_is_there(project: Project, predicted: Done) -> None:
    card = project.python(PREDICT, "card", "get", f"{predicted.run_id}/score", "predict.html")
    assert card.code == 0, card.said
    shown = card_data((project.folder / "predict.html").read_text())
    assert "60 rows scored by reviews" in shown
    assert "no earlier predictions of this table" in shown


def test_the_next_run_scores_what_came_since_and_a_run_by_hand_compares_it(
    project: Project, monitored: Done, explained: Done
) -> None:
    add(project, "incoming", [("the toaster came without a plug", ""), ("the plot was great", "positive")])
    done = project.python(PREDICT, "run", "--table", "incoming")
    assert done.summary("predictions") == "incoming_predictions@v1, 2 new of 62 rows"
    rows = read_table(table_at(project.tables / "incoming_predictions"))["row_id"].to_pylist()
    assert len(rows) == len(set(rows)) == 62
    later = project.python(MONITOR, "run", "--table", "incoming", env=state(project))
    assert later.summary("event") == "none: the last one for this model is recent"
    assert later.summary("data") == "incoming@v1, the last 61 new rows"  # one of them the model has learnt from


def test_without_a_new_label_there_is_nothing_to_learn(project: Project, first: Done) -> None:
    done = project.flow("--config", "settings", "quick.toml", "run", "--retrain", "True")
    assert_one_clear_line(done, "has no label that models:/reviews/1", "0 of its 250 rows have no label")


def test_each_run_stands_in_mlflow(project: Project, monitored: Done, explained: Done) -> None:
    assert_in_mlflow(project, "ExplainFlow", "MonitorFlow")


@pytest.mark.chaos
def test_rows_that_keep_coming_are_scored_once_though_runs_are_killed(project: Project, first: Done) -> None:
    chance, words = random.Random(3), [*GOOD, *BAD, *THINGS, "the", "was", "a"]
    source, target = project.tables / "stream", project.tables / "stream_predictions"
    killed, while_scoring, seconds = 0, 0, 0.0
    for commit in range(11):
        ids = [f"{commit}-{row:05}" for row in range(24_000)]  # a second or two to score
        texts = [" ".join(chance.choices(words, k=20)) for _ in ids]
        made = write_table(source, pa.table({"row_id": ids, "text": texts}))
        origin = None
        for _ in range(chance.randint(1, 2) if commit else 0):  # the first one says how long a run takes
            command = ("resume", "--origin-run-id", origin) if origin else ("run", "--table", "stream")
            with project.running(*command, flow=PREDICT) as run:
                if commit % 2:  # however slow the machine is, some are killed at their work
                    run.wait_for("/score/")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.process.wait(chance.uniform(0.2, 1.0) * seconds * (0.3 if commit % 2 else 1))
                run.signal(signal.SIGKILL) if run.process.poll() is None else None
                wait_until_gone(project)
                if run.end().code == -signal.SIGKILL:
                    killed += 1
                    while_scoring += "/score/" in run.said
                origin = run.run_id if "run-id" in run.said else origin
        done = project.python(PREDICT, "run", "--table", "stream")
        assert done.code == 0, done.said
        seconds = seconds or done.seconds
        rows = read_table(table_at(target), columns=["row_id"])["row_id"].to_pylist()
        assert sorted(rows) == sorted(read_table(made, columns=["row_id"])["row_id"].to_pylist())
    assert killed >= 8
    assert while_scoring >= 3
    assert not list((target / "_staged").iterdir())
