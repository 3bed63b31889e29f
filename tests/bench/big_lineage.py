"""A store of many nodes for tests/bench/lineage.py: what is beside the history that is walked.

Everything is as flows and servers leave it, made by copying: a table of a hundred commits and a run of Metaflow
are real, and the others are their files with other names; versions of models are rows of MLflow's database.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from made_up_lineage import History, in_task, list_ids, make_key

from dlpipe.registry import MADE_FROM, ChampionMove, ModelVersion
from dlpipe.serving.log_rows import dump, make_request_rows
from dlpipe.tables import TableVersion, append_by_day, write_table

COMMITS = 100
"""Of each table beside, and as many versions of each model."""
TASKS = ("start/1", "train/2", "register/3", "end/4")
FLOW = """
from metaflow import FlowSpec, step


class TrainFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.train)

    @step
    def train(self):
        self.next(self.register)

    @step
    def register(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TrainFlow()
"""


@dataclass(frozen=True)
class Size:
    """How much is beside the history.

    Attributes
    ----------
    tables : int
        Of data, and as many of predictions, and as many models, each of a hundred versions.
    runs, requests : int
    """

    tables: int
    runs: int
    requests: int

    def count_nodes(self) -> int:
        """Return how many nodes that are."""
        # versions of both tables, models and their pipelines, moves; runs with their tasks; requests
        return self.tables * COMMITS * 4 + self.tables * COMMITS // 2 + self.runs * 5 + self.requests


def add_neighbours(history: History, size: Size) -> None:
    """Add so many tables, models, runs and requests to a history, whose working folder must be the current one."""
    runs = [str(1_700_000_000_000_000 + number) for number in range(size.runs)]
    _add_runs(history.folder, runs)
    _add_tables(history, size.tables, runs)
    _add_models(history, size.tables, runs)
    _add_requests(size.requests)


def _add_runs(folder: Path, runs: list[str]) -> None:
    Path("train_flow.py").write_text(FLOW)
    subprocess.run([sys.executable, "train_flow.py", "run"], check=True, capture_output=True)
    flow = folder / ".metaflow" / "TrainFlow"
    (made,) = (place for place in flow.iterdir() if place.name.isdigit())
    files = {file.relative_to(made): file.read_text() for file in made.rglob("*") if _is_record(file)}
    for run in runs:
        for name, content in files.items():
            place = flow / run / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(content.replace(made.name, run))


def _is_record(file: Path) -> bool:
    """Return whether a file of a run is one that somebody reads; the others only cost inodes."""
    if not file.is_file() or file.name == "0.attempt.json":
        return False
    return not file.match("*_artifact_*") or "_graph_info" in file.name


def _add_tables(history: History, count: int, runs: list[str]) -> None:
    tables = history.folder / "tables"
    for number in range(COMMITS):
        with in_task(f"TrainFlow/RUN{number}/start/1/0"):
            rows = pa.table({"row_id": [f"{number:016x}"], "text": [f"film {number}"], "split": ["train"]})
            data = write_table("template", rows)
        with in_task(f"TrainFlow/RUN{number}/train/2/0"):
            model = ModelVersion("template", number + 1, f"models:/template/{number + 1}", "", "", "")
            columns = {
                "row_id": [f"{number:016x}"],
                "predicted": ["positive"],
                "model_version": [model.uri],
                "source": [data.path],
                "source_version": pa.array([number], pa.int64()),
                "scored_at": pa.array([datetime.now(UTC)], pa.timestamp("us", "UTC")),
                "answer_set": [f"{model.uri} {data}"],
            }
            write_table("template_predictions", pa.table(columns), key=make_key(model, data, split="*"))
    for number in range(count):
        for name in ("template", "template_predictions"):
            _copy_table(tables, name, name.replace("template", f"t{number:04}"), runs, number)
    shutil.rmtree(tables / "template")
    shutil.rmtree(tables / "template_predictions")


def _copy_table(tables: Path, name: str, copy: str, runs: list[str], number: int) -> None:
    shutil.copytree(tables / name, tables / copy)
    for version, commit in enumerate(sorted((tables / copy / "_delta_log").glob("*.json"))):
        text = commit.read_text().replace("template", copy.removesuffix("_predictions"))
        run = runs[(number * COMMITS + version) % len(runs)]
        commit.write_text(text.replace(f"RUN{version}/", f"{run}/"))


def _add_models(history: History, count: int, runs: list[str]) -> None:
    now = int(time.time() * 1000)
    with sqlite3.connect(history.folder / "mlflow.db") as database:
        for number in range(count):
            names = f"t{number:04}", f"t{number:04}-pipeline"
            for name in names:
                database.execute("INSERT INTO registered_models (name, creation_time) VALUES (?, ?)", (name, now))
                versions = [(name, version, now, now, "READY") for version in range(1, COMMITS + 1)]
                database.executemany(
                    "INSERT INTO model_versions (name, version, creation_time, last_updated_time, status, "
                    "current_stage, source) VALUES (?, ?, ?, ?, ?, 'None', 'nowhere')",
                    versions,
                )
                tags = [
                    (key, value, name, version)
                    for version in range(1, COMMITS + 1)
                    for key, value in _make_tags(history, names[0], name, number, version, runs)
                ]
                database.executemany(
                    "INSERT INTO model_version_tags (key, value, name, version) VALUES (?, ?, ?, ?)", tags
                )
            database.executemany(
                "INSERT INTO registered_model_tags (key, value, name) VALUES (?, ?, ?)",
                [(*tag, names[0]) for tag in _make_moves()],
            )
    database.close()


def _make_tags(
    history: History, base: str, name: str, number: int, version: int, runs: list[str]
) -> Iterator[tuple[str, str]]:
    run = f"TrainFlow/{runs[(number * COMMITS + version - 1) % len(runs)]}"
    yield "delta.table", str(history.folder / "tables" / base)
    yield "delta.version", str(version - 1)
    yield "metaflow.pathspec", f"{run}/train/2"
    yield "metaflow.attempt", "0"
    yield "metaflow.task", f"{run}/register/3/0"
    if name != base:
        yield MADE_FROM, f"models:/{base}/{version}"


def _make_moves() -> Iterator[tuple[str, str]]:
    at, moves = datetime.now(UTC).isoformat(timespec="milliseconds"), list[ChampionMove]()
    for number in range(1, COMMITS // 2 + 1):
        moves.append(ChampionMove(number - 1 or None, number, "gate", "ana", "", at))
        yield moves[-1].to_tag(moves[:-1])


def _add_requests(count: int) -> None:
    asked = datetime.now(UTC).timestamp()
    head = ["predict", "t0000", 1, "", "torch", "champion", "", 200, ""]
    lines = [
        dump(
            [
                True,
                f"01a221e0-e8fb-7abc-8def-{number:012x}",
                *head,
                asked,
                3.0,
                [4],
                ["a"],
                [{"predicted": "good"}],
            ]
        )
        for number in range(count)
    ]
    append_by_day("t0000_requests", make_request_rows(lines))


def make_history(folder: Path, rows: int, models: int, size: Size) -> tuple[str, str]:
    """Make a history in a folder, and return the id of a row in the middle and the line that it stood on."""
    history = History(folder)
    texts = [(f"text number {number} of many words", ("good", "bad")[number % 2]) for number in range(rows)]
    table: TableVersion = history.ingest("TrainFlow/17", rows=texts)
    ids = list_ids(table)
    for _ in range(models):
        history.predict("TrainFlow/17", history.register("TrainFlow/17", table), table, ids)
    add_neighbours(history, size)
    return ids[rows // 2], f"films.csv:{rows // 2 + 2}"
