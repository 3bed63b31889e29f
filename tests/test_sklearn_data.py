"""Data sets that come with scikit-learn: written as CSV, found by the catalogue, without a network."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dlpipe.datasets import fetch_dataset, find_dataset
from dlpipe.errors import SettingError
from dlpipe.sklearn_data import NAMES, write_sklearn

FLOWS = Path(__file__).resolve().parents[1] / "flows"
SHAPES = {"breast_cancer": (569, 30, 2), "iris": (150, 4, 3), "wine": (178, 13, 3)}


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_becomes_a_file_of_numbers_with_a_class(name, tmp_path):
    rows = read_rows(write_sklearn(name, tmp_path))
    n_rows, n_numbers, n_classes = SHAPES[name]
    assert (len(rows), len(rows[0]) - 1, len({row["class"] for row in rows})) == (n_rows, n_numbers, n_classes)
    numbers = [column for column in rows[0] if column != "class"]
    assert all(column.isidentifier() for column in numbers)
    assert all(float(row[column]) >= 0 for row in rows for column in numbers)


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_that_ships_has_it_without_a_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("asks the network"))
    sources = fetch_dataset(name, catalogue=FLOWS / "datasets.toml", folder=tmp_path / "raw")
    first = Path(str(sources.train)).stat()
    assert len(read_rows(Path(str(sources.train)))) == SHAPES[name][0]
    assert not sources.valid
    assert not sources.test
    known = find_dataset(name, catalogue=FLOWS / "datasets.toml")
    assert known.task == "tabular-classification"
    columns = [*known.data["number_columns"], known.data["label_column"]]
    assert columns == list(read_rows(Path(str(sources.train)))[0])
    fetch_dataset(name, catalogue=FLOWS / "datasets.toml", folder=tmp_path / "raw")
    assert Path(str(sources.train)).stat().st_mtime_ns == first.st_mtime_ns


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('sklearn = "whine"', "sklearn = 'whine' is refused: it must be breast_cancer, iris or wine"),
        ('sklearn = "wine"\nurl = "https://a.example/b.zip"', "refused beside url"),
        ('url = "https://a.example/b.zip"', "lacks train"),
    ],
)
def test_a_bad_entry_is_refused(lines, message, tmp_path):
    path = tmp_path / "datasets.toml"
    path.write_text(f"[mine]\n{lines}\n")
    with pytest.raises(SettingError, match=message):
        find_dataset("mine", catalogue=path)
