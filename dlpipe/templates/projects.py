"""Projects made from the template, and brought up to a newer one."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlpipe.errors import SettingError
from dlpipe.settings import check_name, read_settings
from dlpipe.sklearn_data import NAMES, write_sklearn
from dlpipe.tables import TableSettings, preview
from dlpipe.task import DEFAULT_TASK, find_task
from dlpipe.task.columns import Given, Suggest, as_list
from dlpipe.templates.environment import make_environment
from dlpipe.templates.placing import put_files
from dlpipe.templates.rendering import ORIGINAL, Answers, render
from dlpipe.templates.sample import make_example, write_sample

SAMPLE_FILE = "tests/sample.csv"
DATASET_TASK = "tabular-classification"
"""What is learnt from the data sets of scikit-learn: all of them are numbers with a class."""
NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?", re.ASCII)


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
        When the data cannot be read.
    SettingError
        When there is no such task, data set or column, or the data leave it in doubt.
    """
    if dataset:
        check_name(dataset, list(NAMES), what="data set", where="scikit-learn")
    folder, given, how = Path(folder), dict(columns or {}), dict(reading or {})
    task = task or (DATASET_TASK if dataset else DEFAULT_TASK)
    suggest = find_suggest(task)
    name = name or folder.resolve().name
    _check_project_name(name)
    with tempfile.TemporaryDirectory(prefix="dlpipe-init-") as place:
        source = str(write_sklearn(dataset, Path(place, "data"))) if dataset else data
        known = [column for columns in given.values() for column in as_list(columns)]
        found = preview(source, settings=read_settings(TableSettings, how, where="[data]"), columns=known)
        suggested = suggest(found, given)
        settings = {**suggested.settings, **how}
        form = read_settings(find_task(task).data, settings, where="[data]").form
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
    return Project(folder, answers, files + 1, rows, make_environment(folder))


def find_suggest(task: str) -> Suggest:
    """Return what says which columns of a file a task reads; ``SettingError`` where the task does not."""
    if suggest := find_task(task).suggest:
        return suggest
    raise SettingError(
        f"The task {task!r} does not say which columns of a file it reads: write its project by hand."
    )


def _check_project_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} cannot name a project, its table and its model: use letters, digits, '-', '_' and '.'. "
            "Name another folder, or pass --name."
        )


def _make_relative(folder: Path, data: str) -> str:
    """Return the path of the data as it is from the project's folder, where runs are started."""
    if "://" in data or data.startswith(("/", "~")):
        return data
    return os.path.relpath(os.path.realpath(data), os.path.realpath(folder))
