"""What an ingest, an append and an export hold in memory: no texts but those of a batch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dlpipe.cli.table_rows import export_rows
from dlpipe.tables import Sources, append, ingest, read_table, table_at
from dlpipe.task.text_classification import TextClassData

WORDS = "a film that nobody has seen and that nobody will see again, for many good reasons that we know " * 4
FEW, MANY = 9_000, 18_000


def write_csv(path: Path, rows: int) -> Path:
    lines = (f"{number} {WORDS},{'good' if number % 2 else 'bad'}\n" for number in range(rows))
    path.write_text("review,sentiment\n" + "".join(lines).replace(", for", " for"))
    return path


def peak(work: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy held during ``work``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def peaks(tmp_path_factory) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {"ingest": [], "append": [], "fill": [], "export": []}
    for rows in (FEW, MANY):
        folder = tmp_path_factory.mktemp(str(rows))
        source = write_csv(folder / "all.csv", rows)
        (folder / "one.csv").write_text("review\na text that is new\n")
        (folder / "label.csv").write_text("review,sentiment\na text that is new,good\n")
        if rows == FEW:  # what is imported and cached once counts for neither
            ingest(Sources(data=write_csv(folder / "few.csv", 50)), folder / "first", settings=TextClassData())
            append(folder / "one.csv", folder / "first")
            export_rows(table_at(folder / "first"), folder / "first.csv")
        found["ingest"].append(peak(lambda: ingest(Sources(data=source), folder / "t", settings=TextClassData())))  # noqa: B023
        found["append"].append(peak(lambda: append(folder / "one.csv", folder / "t")))  # noqa: B023
        found["fill"].append(peak(lambda: append(folder / "label.csv", folder / "t")))  # noqa: B023
        found["export"].append(peak(lambda: export_rows(table_at(folder / "t"), folder / "out.csv")))  # noqa: B023
        filled = read_table(table_at(folder / "t"), columns=["text", "label"])
        assert (filled.num_rows, filled["label"].null_count) == (rows + 1, 0)
        assert filled["text"].to_pylist()[-1] == "a text that is new"
    return found


def test_an_ingest_holds_no_text_of_the_rows_that_it_has_read(peaks):
    few, many = peaks["ingest"]
    assert (many - few) / (MANY - FEW) < 250  # a text alone has 390 bytes


@pytest.mark.parametrize("what", ["append", "fill", "export"])
def test_an_append_holds_what_it_adds_and_an_export_a_batch_and_not_the_table(peaks, what):
    few, many = peaks[what]
    assert many < few + 200_000
