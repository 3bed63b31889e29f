"""Projects made from the template, and brought up to a newer one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dlpipe.errors import BadSource, DlpipeError, SettingError
from dlpipe.settings import check_name, read_settings
from dlpipe.sklearn_data import NAMES, write_sklearn
from dlpipe.tables import Sources, TableSettings, check_all_rows, join_words, preview
from dlpipe.task import DEFAULT_TASK, find_task
from dlpipe.task.columns import Given, as_list
from dlpipe.templates.choosing import choose_columns, find_suggest, make_form
from dlpipe.templates.environment import make_environment
from dlpipe.templates.placing import put_files
from dlpipe.templates.rendering import ORIGINAL, Answers, render
from dlpipe.templates.sample import make_example, write_sample

SAMPLE_FILE = "tests/sample.csv"
CHECKED_ROWS = 10_000
"""So many are read in half a second as a training reads them; larger files hardly lack rows."""
DATASET_TASK = "tabular-classification"
"""What is learnt from the data sets of scikit-learn: all of them are numbers with a class."""
NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)
DERIVED = re.compile(r"(.+)_(?:predictions|explanations|quarantine|drift|requests|feedback)")
"""Tables that belong to another: an ingest into one would replace its rows where projects share their tables."""


@dataclass(frozen=True)
class Project:
    """A project that was made.

    Attributes
    ----------
    folder : Path
    answers : Answers
    files : int
        How many it has, the originals that an update needs aside.
    sample : int
        Rows of the data that its tests have.
    environment : str
        The environment whose packages its ``.venv`` sees; empty where it had a ``.venv``.
    """

    folder: Path
    answers: Answers
    files: int
    sample: int
    environment: str
    doubts: tuple[str, ...] = ()


def make_project(
    folder: str | Path,
    data: str = "",
    *,
    dataset: str = "",
    task: str = "",
    name: str | None = None,
    columns: Given | None = None,
    reading: Mapping[str, str] | None = None,
) -> Project:
    """Make a project in ``folder`` for the rows in ``data``, or of a data set; no file that is there is changed.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there.
    data : str
        A file, a glob, a folder of Parquet or a Delta table.
    dataset : str
        Instead of ``data``, one that comes with scikit-learn, such as ``wine``: it becomes a file of the project.
    task : str
        A task that says what it reads of a file; by default text classification, of a data set the one it is for.
    name : str, optional
        Of its table and its model; by default that of the folder.
    columns : mapping, optional
        Columns that are known, or lists of them, by the settings that name them.
    reading : mapping of str to str, optional
        ``separator`` and ``encoding`` of text files, where they are known.

    Raises
    ------
    ProjectExists
        When one of the files is there already.
    SourceNotFound, BadSource
        When the data cannot be read, or are too few or too bad to train on.
    SettingError
        When there is no such task, data set or column, or the data leave it in doubt.
    """
    if dataset:
        check_name(dataset, list(NAMES), what="data set", where="scikit-learn")
    folder, given, how = Path(folder), dict(columns or {}), dict(reading or {})
    _check_reading(dataset, how)
    is_default = not task
    task = task or (DATASET_TASK if dataset else DEFAULT_TASK)
    find_suggest(task)  # before the data are read
    name = name or folder.resolve().name
    _check_project_name(name)
    with tempfile.TemporaryDirectory(prefix="dlpipe-init-") as place:
        source = str(write_sklearn(dataset, Path(place, "data"))) if dataset else data
        known = [column for columns in given.values() for column in as_list(columns)]
        found = preview(source, settings=read_settings(TableSettings, how, where="[data]"), columns=known)
        if dataset:
            found = replace(found, path=dataset)  # messages name what the person did
        chosen = choose_columns(found, task, given, is_default=is_default)
        suggested = chosen.suggested
        settings = {**suggested.settings, **how}
        if found.whole and found.rows <= CHECKED_ROWS:
            _check_training(source, task, settings)
        form = make_form(task, settings)
        seen = f"data/{dataset}.csv" if dataset else _make_relative(folder, data)
        example, training = make_example(found, form), suggested.training
        answers = Answers(name, task, seen, settings, suggested.lines, example, training)
        made, original = Path(place, "project"), Path(place, "original")
        render(answers, made)
        shutil.copytree(made, original)
        # data and sample are the user's, not the template's: an update must not find them among the originals
        if dataset:
            shutil.copytree(Path(place, "data"), made / "data")
        files = sum(file.is_file() for file in made.rglob("*"))
        shutil.copytree(original, made / ORIGINAL)
        rows = write_sample(made / SAMPLE_FILE, found, suggested.settings)
        put_files(made, folder)
    return Project(folder, answers, files + 1, rows, make_environment(folder), chosen.doubts)


def _check_training(data: str, task: str, settings: Given) -> None:
    """Raise ``BadSource`` where a training would refuse the rows: too few, or too many of them bad."""
    try:
        check_all_rows(Sources(data=data), settings=read_settings(find_task(task).data, settings, where="[data]"))
    except DlpipeError as error:
        raise BadSource(f"make train would refuse this file: {error}") from None


def _check_reading(dataset: str, how: Mapping[str, str]) -> None:
    if dataset and how:
        options = join_words([f"--{name}" for name in how])
        raise SettingError(f"{options} says how a file of --data is read: leave it out with --dataset.")


def _check_project_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name a project, its table and its model: use letters, digits, '-', '_' and '.'. "
            "Name another folder, or pass --name."
        )
    if belongs := DERIVED.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name a project: its table would be one that belongs to the table {belongs[1]!r}. "
            "Name another folder, or pass --name."
        )


def _make_relative(folder: Path, data: str) -> str:
    """Return the path of the data as it is from the project's folder, where runs are started."""
    if "://" in data or data.startswith(("/", "~")):
        return data
    return os.path.relpath(os.path.realpath(data), os.path.realpath(folder))
