"""A made-up history: tables, models, predictions, explanations and requests as flows and servers leave them.

Rows, commits, tags and moves are real; only the models are missing, which nothing of lineage opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from stores import new_store
from texts import reviews, write_csv

from dlpipe.attempt import VARIABLE
from dlpipe.registry import KIND, MADE_FROM, ModelVersion, resolve
from dlpipe.serving.log_rows import dump, make_feedback_rows, make_request_rows
from dlpipe.tables import (
    Append,
    Sources,
    TableVersion,
    append,
    append_by_day,
    ingest,
    read_table,
    write_table,
)
from dlpipe.task.text_classification import TextClassData

REQUEST = "01a221e0-e8fb-7abc-8def-0123456789ab"


@contextmanager
def in_task(attempt: str) -> Iterator[None]:
    """Do as a task of a bridged run does: its commits name it."""
    os.environ[VARIABLE] = attempt
    try:
        yield
    finally:
        del os.environ[VARIABLE]


class History:
    """What happens in a folder, one call after the other; the current folder must be that one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = new_store(folder).client()
        os.environ["DLPIPE_TABLES"] = str(folder / "tables")
        os.environ["DLPIPE_STATE"] = str(folder / "state")

    def ingest(
        self, run: str, *, name: str = "films.csv", rows: Sequence[tuple[str, str]] | None = None
    ) -> TableVersion:
        """The step `start` of a run: a file becomes the table `reviews`."""
        source = write_csv(self.folder / name, list(rows or reviews()[:60] + reviews()[-60:]))
        with in_task(f"{run}/start/1/0"):
            done = ingest(Sources(data=source.name), "reviews", settings=TextClassData())
        return done.table

    def append(self, name: str, text: str) -> Append:
        """A person appends the lines of a file, the first of which is its header."""
        (self.folder / name).write_text(text)
        return append(name, "reviews")

    def register(self, run: str, rows: TableVersion, *, name: str = "reviews") -> ModelVersion:
        """The steps `train` and `register`: a version with its pipeline."""
        lineage = {
            "delta.table": rows.path,
            "delta.version": str(rows.version),
            "delta.digest": rows.digest,
            "metaflow.pathspec": f"{run}/train/3",
            "metaflow.attempt": "0",
        }
        registered_by = {"metaflow.task": f"{run}/register/5/0"}
        made = self._create(name, {**lineage, **registered_by})
        self._create(f"{name}-pipeline", {**lineage, **registered_by, MADE_FROM: made, KIND: "pipeline"})
        return resolve(made)

    def _create(self, name: str, tags: dict[str, str]) -> str:
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        return f"models:/{name}/{self.client.create_model_version(name, 'nowhere', tags=tags).version}"

    def predict(self, run: str, model: ModelVersion, rows: TableVersion, ids: Sequence[str]) -> TableVersion:
        """The step `predict`: answers for some rows, in one commit."""
        columns = {
            "row_id": list(ids),
            "predicted": ["positive"] * len(ids),
            **make_origin(model, rows, len(ids)),
            "scored_at": pa.array([datetime.now(UTC)] * len(ids), pa.timestamp("us", "UTC")),
            "answer_set": [f"{model.uri} {rows}"] * len(ids),
        }
        with in_task(f"{run}/predict/6/0"):
            key = make_key(model, rows, split="*", ids=f"{len(ids)} from {ids[0]}")
            return write_table("reviews_predictions", pa.table(columns), key=key)

    def explain(self, run: str, model: ModelVersion, rows: TableVersion, ids: Sequence[str]) -> TableVersion:
        """The step `explain`: two words of each row."""
        twice = [row_id for row_id in ids for _ in range(2)]
        columns = {
            "row_id": twice,
            "part": ["good", "film"] * len(ids),
            "attribution": [0.5, 0.1] * len(ids),
            "method": ["partition"] * len(twice),
            **make_origin(model, rows, len(twice)),
        }
        with in_task(f"{run}/explain/7/0"):
            key = make_key(model, rows, method="partition")
            return write_table("reviews_explanations", pa.table(columns), key=key)

    def look(self, model: ModelVersion, rows: TableVersion, scored: TableVersion) -> TableVersion:
        """The step `compare` of the monitor: it finds drift, and an event is to be published."""
        look = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "model_version": model.uri,
            "trained_on": model.tags["delta.table"],
            "trained_version": int(model.tags["delta.version"]),
            "source": rows.path,
            "source_version": rows.version,
            "drifted": True,
            "published": True,
            "reason": "words drifted",
        }
        key = {
            "monitored": scored.path,
            "version": str(scored.version),
            "source_version": str(rows.version),
            "model": model.uri,
        }
        return write_table("reviews_drift", pa.table({name: [value] for name, value in look.items()}), key=key)

    def describe_look(self, look: TableVersion) -> dict[str, object]:
        """What the event of a look tells."""
        (row,) = read_table(look).to_pylist()
        told = {"champion": "model_version", "scored_table": "source", "scored_version": "source_version"}
        return {**{name: row[column] for name, column in told.items()}, "reason": row["reason"]}

    def answer(
        self, model: ModelVersion, *, request: str = REQUEST, text: str = "a fine film", texts: Sequence[str] = ()
    ) -> None:
        """A server answers a request for one text or for several, and its log is committed."""
        asked_for = list(texts or [text])
        asked = datetime.now(UTC).timestamp()
        head = ["predict", model.name, model.version, "", "torch", "champion", "", 200, ""]
        answers = [{"predicted": "positive"}] * len(asked_for)
        line = [True, request, *head, asked, 3.0, [4] * len(asked_for), asked_for, answers]
        append_by_day(f"{model.name}_requests", make_request_rows([dump(line)]))

    def label(self, model: ModelVersion, label: str, *, request: str = REQUEST, row: int | None = 0) -> None:
        """Somebody says what was true."""
        now = datetime.now(UTC).timestamp()
        line = [request, row, label, "labels.csv", "", now, int(now * 1e9)]
        append_by_day(f"{model.name}_feedback", make_feedback_rows([dump(line)]))


def make_origin(model: ModelVersion, rows: TableVersion, count: int) -> dict[str, object]:
    """Return the columns that name the model and the rows of answers."""
    return {
        "model_version": [model.uri] * count,
        "source": [rows.path] * count,
        "source_version": pa.array([rows.version] * count, pa.int64()),
    }


def make_key(model: ModelVersion, rows: TableVersion, **more: str) -> dict[str, str]:
    """Return the key of a commit of answers."""
    return {"model": model.uri, "source": rows.path, "source_version": str(rows.version), **more}


def list_ids(rows: TableVersion, split: str | None = None) -> list[str]:
    """Return the ids of the rows of a version, or of a split of it."""
    return list(read_table(rows, split=split, columns=["row_id"])["row_id"].to_pylist())


def find_id(rows: TableVersion, text: str) -> str:
    """Return the id of the row with a text."""
    table = read_table(rows, columns=["row_id", "text"]).to_pydict()
    return str(table["row_id"][table["text"].index(text)])
