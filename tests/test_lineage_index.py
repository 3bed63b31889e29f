"""The index of lineage: without it, or with a damaged or stale one, answers are the same, and cost more."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from made_up_lineage import REQUEST, History, list_ids
from stores import keep_runs_in, untouched_environment

from dlpipe.lineage import Records, walk
from dlpipe.lineage.index import Index, find_index_path, to_number
from dlpipe.lineage.indexed_models import ModelIndex
from dlpipe.lineage.models import ModelReader
from dlpipe.lineage.nodes import Node
from dlpipe.registry import promote
from dlpipe.tables import delete_table, table_at, write_table
from dlpipe.tracking import RegistryTables

SEED = 17


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.chdir(tmp_path)
    keep_runs_in(tmp_path, monkeypatch)
    with untouched_environment():
        made = History(tmp_path)
        rows = made.ingest("TrainFlow/17")
        model = made.register("TrainFlow/17", rows)
        promote(model, how="gate", who="ana", why="passed")
        made.predict("TrainFlow/17", model, rows, list_ids(rows))
        made.explain("TrainFlow/17", model, rows, list_ids(rows, "test")[:2])
        made.answer(model)
        yield made


def ask_all() -> dict[str, set[str]]:
    """Return the edges around some nodes, as sentences: everything that the index is asked for."""
    row = list_ids(table_at("reviews", version=0))[3]
    return {
        text: ask(text)
        for text in (
            f"reviews@v0#{row}",
            f"reviews_predictions@v0#{row}",
            "films.csv:5",
            "reviews@v0",
            "reviews/1",
            REQUEST,
        )
    }


def ask(text: str) -> set[str]:
    records = Records()
    return {f"{edge.result} {edge.how} {edge.origin}" for edge in walk(records, records.find(text)).edges}


def find_file() -> Path:
    found = find_index_path()
    assert found is not None
    return found


def test_an_index_that_was_thrown_away_or_is_something_else_is_made_anew(history: History) -> None:
    expected = ask_all()
    assert all(expected.values())
    file = find_file()
    whole = file.read_bytes()
    shutil.rmtree(file.parent)
    assert ask_all() == expected
    for content in (b"", b"SQLite format 3\0", b"x" * len(whole), whole[: len(whole) // 2], whole[:5000]):
        file.write_bytes(content)
        assert ask_all() == expected
        assert file.stat().st_size > 10_000
    file.unlink()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    assert ask_all() == expected
    # a journal of the damaged one must not be played into the new one
    file.with_name(f"{file.name}-journal").write_bytes(whole[:4096])
    file.write_bytes(b"x" * 4096)
    assert ask_all() == expected


def test_bytes_that_changed_on_the_disk_are_noticed_where_they_are_read(history: History) -> None:
    expected, file = ask_all(), find_file()
    whole, chosen = file.read_bytes(), random.Random(SEED)
    used = [at for at, byte in enumerate(whole) if byte]
    for _ in range(4):
        damaged = bytearray(whole)
        for at in chosen.sample(used, 40):
            damaged[at] ^= 1 << chosen.randrange(8)
        file.write_bytes(damaged)
        assert ask_all() == expected


def test_rows_of_the_index_that_are_missing_or_others_are_noticed(history: History) -> None:
    expected = ask_all()
    for statement in (
        "DELETE FROM units WHERE id % 2",
        "DELETE FROM buckets WHERE id % 3 = 0",
        "DELETE FROM sources",
        "UPDATE units SET name = 'commit 7' WHERE name = 'commit 0'",
        "UPDATE buckets SET content = zeroblob(8)",
        "UPDATE sources SET mark = replace(mark, '\"version\": 0', '\"version\": 1')",
        "DROP TABLE buckets",
    ):
        with sqlite3.connect(find_file()) as database:
            database.execute(statement)
        database.close()
        assert ask_all() == expected, statement


def test_commits_that_came_after_the_index_are_in_the_next_answer(history: History) -> None:
    before = ask("reviews@v0")
    rows = table_at("reviews")
    again = history.register("TrainFlow/18", rows)
    history.predict("TrainFlow/18", again, rows, list_ids(rows)[:3])
    assert ask("reviews@v0") - before >= {
        "models:/reviews/2 trained on reviews@v0",
        "reviews_predictions@v1 scored reviews@v0",
    }
    row = list_ids(rows)[0]
    assert {text for text in ask(f"reviews@v0#{row}") if " scored " in text} >= {
        f"reviews_predictions@v0#{row} scored reviews@v0#{row}",
        f"reviews_predictions@v1#{row} scored reviews@v0#{row}",
    }


def test_a_table_that_was_deleted_restored_or_made_anew_is_read_again(history: History) -> None:
    expected, tables = ask_all(), history.folder / "tables"
    row = list_ids(table_at("reviews"))[3]
    shutil.copytree(tables / "reviews_predictions", history.folder / "kept")
    delete_table("reviews_predictions")
    assert not any("reviews_predictions" in text for text in ask(f"reviews@v0#{row}"))
    other = {"row_id": ["another"], "text": ["another table"]}
    for _ in range(3):
        write_table("reviews_predictions", pa.table(other))
    assert not any("reviews_predictions" in text for text in ask(f"reviews@v0#{row}"))
    shutil.rmtree(tables / "reviews_predictions")
    shutil.copytree(history.folder / "kept", tables / "reviews_predictions")
    assert ask_all() == expected


def test_a_file_that_changed_in_place_is_noticed_although_its_size_did_not(history: History) -> None:
    file = history.folder / "films.csv"
    past = time.time() - 60
    os.utime(file, (past, past))
    row = list_ids(table_at("reviews"))[3]
    for _ in range(2):
        assert any("ingested from films.csv:" in text for text in ask(f"reviews@v0#{row}"))
    file.write_bytes(file.read_bytes().replace(b"good", b"goof"))
    os.utime(file, (past, past))  # which cannot turn back when the file itself was changed
    assert not any("ingested from films.csv:" in text for text in ask(f"reviews@v0#{row}"))


def test_rows_that_are_the_same_keep_their_lines(history: History) -> None:
    same = [("a film twice", "good"), ("another", "bad"), ("a film twice", "good"), ("a third one", "bad")]
    rows = history.ingest(
        "TrainFlow/19", name="twice.csv", rows=same + [(f"film {n}", "good") for n in range(1200)]
    )
    first, second = (row for row in list_ids(rows) if row.startswith(list_ids(rows)[0]))
    for _ in range(2):
        assert f"reviews@v1#{first} ingested from twice.csv:2" in ask(f"reviews@v1#{first}")
        assert f"reviews@v1#{second} ingested from twice.csv:4" in ask("twice.csv:4")
        assert any("ingested from twice.csv:1100" in text for text in ask("twice.csv:1100"))


def find_companions() -> dict[str, set[str]]:
    """Return what came of some nodes by the tags of versions: by the index, and by a search of the registry."""
    found = {}
    for name, index in (("index", Index(find_index_path())), ("search", None)):
        models = ModelReader(ModelIndex(index or Index(None)))
        if index is None:
            models.index._mark = ""  # as of a registry that does not say whether it has changed
        nodes = [Node("model", "reviews", 1), Node("table", str(Path("tables/reviews").absolute()), 0)]
        nodes += [Node("task", "TrainFlow", key=f"{run}/{task}") for run in (17, 18) for task in TASKS]
        found[name] = {f"{edge.result} {edge.how} {node}" for node in nodes for edge in models.find_results(node)}
    return found


TASKS = ("train/3", "register/5", "train/30", "register/50")


def test_tags_that_changed_in_the_registry_are_in_the_next_answer(history: History) -> None:
    client, seen = history.client, list[int]()
    for change in (
        lambda: None,
        lambda: history.register("TrainFlow/18", table_at("reviews")),
        lambda: client.set_model_version_tag("reviews", "1", "metaflow.pathspec", "TrainFlow/18/train/30"),
        lambda: client.set_model_version_tag("reviews", "1", "metaflow.task", "TrainFlow/18/register/50/0"),
        lambda: client.delete_model_version_tag("reviews", "1", "metaflow.task"),
        lambda: client.delete_model_version("reviews", "1"),
        lambda: client.delete_registered_model("reviews"),
    ):
        change()
        found = find_companions()
        assert found["index"] == found["search"]
        seen.append(len(found["index"]))
    assert len(set(seen)) > 3
    assert seen[0] > 3


def test_a_registry_that_has_not_changed_is_not_searched(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = find_companions()["index"]
    monkeypatch.setattr(RegistryTables, "find_tagged", None)
    monkeypatch.setattr(RegistryTables, "read_tags", None)
    models = ModelReader(ModelIndex(Index(find_index_path())))
    edges = [*models.find_results(Node("model", "reviews", 1))]
    assert {f"{edge.result} {edge.how} {edge.origin}" for edge in edges} <= expected
    assert len(edges) == 2


def test_without_a_folder_to_be_in_the_index_is_in_memory(history: History) -> None:
    expected, folder = ask_all(), find_file().parent
    shutil.rmtree(folder)
    folder.write_text("")
    assert ask_all() == expected


def test_killed_at_any_moment_the_index_is_as_before_or_as_after(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dlpipe.lineage.index import Index, to_number\n"
        "index = Index(Path(sys.argv[1]))\n"
        "for n in range(10**9):\n"
        "    words = [to_number(f'{n} {word}') for word in range(500)]\n"
        "    index.add([('s', str(n - 1) if n else '', str(n), [(str(n), b'', words)])])\n"
        "    print(n, flush=True)\n"
    )
    for number in range(1):
        path = tmp_path / f"{number}.db"
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
        ) as made:
            assert made.stdout is not None
            for _ in range(20 + number):
                made.stdout.readline()
            made.kill()
            told = [int(line) for line in made.stdout.read().split()]
        index = Index(path)
        mark = int(index.read_mark("s"))
        assert mark >= max(told, default=0)
        assert index.made == 0
        assert [len(index.find(f"{n} {word}")) for n in (0, mark) for word in (0, 499)] == [1] * 4
        assert index.find(f"{mark + 1} 0") == []


def test_of_two_that_bring_it_up_to_date_one_is_first_and_nothing_is_lost(tmp_path: Path) -> None:
    first, second = Index(tmp_path / "index.db"), Index(tmp_path / "index.db")
    unit = ("commit 0", b"", [to_number("word")])
    first.add([("table", "", "0", [unit])])
    second.add([("table", "", "0", [unit]), ("other", "", "0", [unit])])
    assert [(found.source, found.name) for found in second.find("word")] == [
        ("table", "commit 0"),
        ("other", "commit 0"),
    ]
    assert first.find("word") == second.find("word")


def count_bytes() -> int:
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def measure(text: str) -> int:
    """Return the bytes that are read for an answer once it was given, by the kernel's count.

    Threads that other tests have left in this process read, too: the least of five times is that of the answer.
    """
    ask(text)
    counts = []
    for _ in range(5):
        before = count_bytes()
        ask(text)
        counts.append(count_bytes() - before)
    return min(counts)


def test_what_is_read_for_an_answer_does_not_grow_with_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[dict[str, int]] = []
    for times in (4, 12):  # with fewer rows, groups of rows are not whole, and reading one takes less
        folder = tmp_path / str(times)
        folder.mkdir()
        monkeypatch.chdir(folder)
        keep_runs_in(folder, monkeypatch)
        with untouched_environment():
            history = History(folder)
            texts = [(f"text number {number}", ("good", "bad")[number % 2]) for number in range(5000 * times)]
            rows = history.ingest("TrainFlow/17", rows=texts)
            past = time.time() - 60
            os.utime(folder / "films.csv", (past, past))
            model = history.register("TrainFlow/17", rows)
            history.predict("TrainFlow/17", model, rows, list_ids(rows))
            for number in range(3 * times):  # beside what is walked
                history.predict("TrainFlow/18", model, rows, [f"another{number}"])
                other = write_table(f"other{number}", pa.table({"row_id": [str(number)], "text": ["a"]}))
                history.register("TrainFlow/19", other, name=f"other{number}")
            row = list_ids(rows)[5]
            read.append({text: measure(text) for text in (f"reviews_predictions@v0#{row}", "films.csv:7")})
    assert all(second < 1.5 * first for first, second in zip(*(found.values() for found in read), strict=True))
