"""The registry in a database, read without MLflow: answers are those of its client, or there are none."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from made_up_lineage import History
from stores import keep_runs_in, new_store, untouched_environment

from dlpipe.errors import TrackingUnavailable
from dlpipe.registry import MADE_FROM, ModelLookup, promote
from dlpipe.registry.records import ClientRegistry
from dlpipe.tracking import TrackingStore, open_registry_tables
from dlpipe.tracking._registry_tables import PROMPT

TABLE = '/films/it\'s "new"/100%_é'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TrackingStore]:
    with untouched_environment():
        store = new_store(tmp_path)
        client = store.client()
        for name in ("reviews", "reviews-pipeline", "it's", "words"):
            client.create_registered_model(name, tags={"note": name, "none": ""})
        for name in ("reviews", "reviews", "reviews", "it's"):
            client.create_model_version(name, "nowhere", tags={"delta.table": TABLE, "delta.version": "3"})
        client.create_model_version("reviews-pipeline", "nowhere", tags={MADE_FROM: "models:/reviews/1"})
        client.create_model_version("reviews-pipeline", "nowhere", tags={MADE_FROM: "models:/reviews/11"})
        client.delete_model_version("reviews", "2")
        client.set_registered_model_alias("reviews", "champion", "1")
        client.set_registered_model_alias("reviews", "first", "1")
        client.set_registered_model_alias("reviews", "challenger", "3")
        client.create_model_version("words", "nowhere", tags={"delta.table": TABLE})
        client.set_model_version_tag("words", "1", PROMPT, "true")
        client.set_registered_model_tag("words", PROMPT, "true")
        yield store


def test_every_answer_is_that_of_mlflows_client(store: TrackingStore) -> None:
    tables, client = open_registry_tables(store.registry_uri), ClientRegistry(store.client())
    assert tables is not None
    attributes = ("name", "tags", "aliases")
    for name in ("reviews", "reviews-pipeline", "it's", "words", "Reviews", "nothing", "a/b", "", ".."):
        ours, theirs = tables.find_model(name), client.find_model(name)
        assert (ours is None) == (theirs is None) == (name not in ("reviews", "reviews-pipeline", "it's"))
        if ours is not None:
            assert [getattr(ours, part) for part in attributes] == [getattr(theirs, part) for part in attributes]
    found = []
    for name in ("reviews", "reviews-pipeline", "it's", "words", "nothing"):
        for number in range(5):
            ours, theirs = tables.find_version(name, number), client.find_version(name, number)
            assert describe(ours) == describe(theirs)
            found += [f"{name}/{number}"] if ours is not None else []
    assert found == ["reviews/1", "reviews/3", "reviews-pipeline/1", "reviews-pipeline/2", "it's/1"]


def describe(found: object) -> object:
    names = ("name", "version", "creation_timestamp", "run_id", "tags")
    return found and [*(getattr(found, name) for name in names), sorted(found.aliases)]  # type: ignore[attr-defined]


SEARCHES = (
    ("delta.table", TABLE, False, 3),
    ("delta.table", TABLE[:-1], False, 0),
    ("delta.table", TABLE[:-1], True, 3),
    ("delta.table", "/FILMS", True, 0),
    (MADE_FROM, "models:/reviews/1", False, 1),
    (MADE_FROM, "models:/reviews/1", True, 2),
    (MADE_FROM, "models:/reviews_", True, 0),
    ("nothing", "", True, 0),
)


def test_a_search_by_tag_finds_what_mlflows_client_finds(
    store: TrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ModelLookup()
    monkeypatch.setattr("dlpipe.registry.records.open_registry_tables", lambda uri: None)
    theirs = ModelLookup()
    for tag, value, prefix, count in SEARCHES:
        found = ours.find_tagged(tag, value, prefix=prefix)
        assert len(found) == count
        assert found == theirs.find_tagged(tag, value, prefix=prefix)


def test_what_is_no_text_names_nothing(store: TrackingStore) -> None:
    lookup = ModelLookup()  # MLflow's client fails on it
    assert lookup.find_model("\udcff") is None
    assert lookup.find_version("\udcff", 1) is None
    assert lookup.find_tagged("delta.table", "\udcff") == []


CHANGES = (
    "UPDATE alembic_version SET version_num = 'acf3f17fdcc7'",
    "DROP TABLE alembic_version",
    "DELETE FROM experiments",
    "UPDATE registered_models SET workspace = 'team' WHERE name = 'words'",
)


def test_a_database_of_another_kind_is_left_to_mlflow(store: TrackingStore, tmp_path: Path) -> None:
    whole = (tmp_path / "mlflow.db").read_bytes()
    for number, change in enumerate(CHANGES):
        file = tmp_path / f"{number}.db"
        file.write_bytes(whole)
        assert open_registry_tables(f"sqlite:///{file}") is not None
        with closing(sqlite3.connect(file)) as database:
            database.execute(change)
            database.commit()
        assert open_registry_tables(f"sqlite:///{file}") is None, change


def test_a_server_and_workspaces_are_left_to_mlflow(store: TrackingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_registry_tables("http://127.0.0.1:5000") is None
    assert open_registry_tables("postgresql://127.0.0.1/mlflow") is None
    assert open_registry_tables(store.registry_uri) is not None
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert open_registry_tables(store.registry_uri) is None


def test_a_database_that_breaks_on_the_way_is_an_error_that_names_it(store: TrackingStore) -> None:
    lookup = ModelLookup()
    file = Path(store.registry_uri.removeprefix("sqlite:///"))
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(TrackingUnavailable, match=r"mlflow\.db cannot be used"):
        lookup.find_model("reviews")


PROGRAM = """
import sys
from dlpipe.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = ("mlflow", "torch", "transformers", "sqlalchemy", "sklearn")
    print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""


def test_lineage_of_models_answers_and_runs_imports_no_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        history = History(tmp_path)
        rows = history.ingest("TrainFlow/17")
        model = history.register("TrainFlow/17", rows)
        promote(model, how="gate", who="ana", why="passed")
        history.predict("TrainFlow/17", model, rows, ["ab12"])
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, "lineage", "reviews@champion"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "trained on, evaluated on reviews@v0" in done.stdout
    assert "reviews_predictions@v0" in done.stdout
    assert "models:/reviews-pipeline/1" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"
