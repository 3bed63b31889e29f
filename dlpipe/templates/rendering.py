"""A project's files from the template: copier fills in names, and the flows are those of this package."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dlpipe.task import Task, find_task
from dlpipe.templates.pins import list_pins
from dlpipe.templates.settings_file import list_section_names, set_values

TEMPLATE = Path(__file__).with_name("project")
CLONE = Path(__file__).parents[2] / "flows"
"""Where the flows are while this package is used in place; a wheel has them in the template."""
SAMPLE = "reviews"
"""What the flows call the table and the model of the sample that ships: a project puts its name in its place."""
ANSWERS = ".dlpipe/answers.json"
ORIGINAL = ".dlpipe/original"
"""Below a project: its files as the template had them. An update compares both sides with them."""


@dataclass(frozen=True)
class Answers:
    """What a project is made of, besides the template.

    Attributes
    ----------
    name : str
        Of the project, its table and its model.
    task : str
    data : str
        Where the rows are, seen from the project's folder.
    columns : mapping
        Settings of the section ``[data]``: names of columns, or lists of them, and how files are read.
    shown : tuple of str
        What the data showed, in lines.
    example : str
        A row as ``dlpipe predict`` takes it: a text, or a JSON object.
    training : mapping
        Settings of the section ``[training]`` that such data take, where they are not the task's defaults.
    """

    name: str
    task: str
    data: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    example: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)


def read_answers(folder: Path) -> tuple[str, Answers]:
    """Return the version of dlpipe that made the project in ``folder``, and what it was made of.

    Raises
    ------
    FileNotFoundError, KeyError, TypeError, ValueError
        When it does not say.
    """
    written = json.loads((folder / ANSWERS).read_text(encoding="utf-8"))
    columns, shown = dict(written["columns"]), tuple(map(str, written["shown"]))
    training = dict(written.get("training", {}))  # not in projects that were made before it was suggested
    named = (written["name"], written["task"], written["data"])
    told = Answers(*named, columns, shown, str(written["example"]), training)
    return written["dlpipe"], told


def render(answers: Answers, into: Path, *, template: Path | None = None) -> None:
    """Write the files of a project into the folder ``into``, which is empty.

    Parameters
    ----------
    answers : Answers
    into : Path
    template : Path, optional
        By default that of this package.
    """
    from platform import python_version_tuple

    from copier import Settings, run_copy

    from dlpipe import __version__

    more = {
        "quoted_example": shlex.quote(answers.example),
        "version": __version__,
        "python": ".".join(python_version_tuple()[:2]),
    }
    with tempfile.TemporaryDirectory(prefix="dlpipe-template-") as folder:
        source = Path(folder, "template")
        copy_tree(template or TEMPLATE, source)
        put_flows(source / "flows", answers)
        lines = ["# What was installed where this project was made.", *list_pins()]
        (source / "constraints.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        run_copy(
            str(source),
            into,
            data={**asdict(answers), "shown": list(answers.shown), **more},
            defaults=True,
            quiet=True,
            settings=Settings(),  # not those that a person has for copier
        )


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder; an installed package may be read-only, its copies are not."""

    def copy(file: str, to: str) -> None:
        shutil.copyfile(file, to)
        Path(to).chmod(0o755 if Path(file).stat().st_mode & 0o100 else 0o644)

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), copy_function=copy)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def put_flows(folder: Path, answers: Answers) -> None:
    """Put the flows and their settings into the template in ``folder``, with the project's name in them."""
    if not folder.is_dir():
        copy_tree(CLONE, folder)
    settings = folder / "train_flow.toml"
    text = settings.read_text(encoding="utf-8")
    values = make_settings(answers, text)
    settings.write_text(set_values(text, values, comments={"data": answers.shown}), encoding="utf-8")
    for file in folder.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(rf"\b{SAMPLE}\b", answers.name, text), encoding="utf-8")


def make_settings(answers: Answers, text: str) -> dict[str, dict[str, Any]]:
    """Return, by section, what a project's settings have in place of those of ``text``; ``None`` takes one out."""
    task, shipped = find_task(answers.task), find_task(tomllib.loads(text)["task"])
    columns = {name: None for name in list_section_names(text, "data") if name.endswith("_column")}
    data = {**columns, "data": answers.data, "table": answers.name, **answers.columns}
    values = {"": {"task": answers.task}, "data": data, "registry": {"model": answers.name}}
    if task.target.gate is not shipped.target.gate:
        values["gate"] = list_defaults(task.target.gate, text, "gate")
    if answers.training or task.inputs.training is not shipped.inputs.training:
        values |= make_training(task, shipped, text, answers.training)
    return values


def make_training(task: Task, shipped: Task, text: str, suggested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of a training that is of another kind than that of the task of the settings ``text``."""
    training = {**list_defaults(task.inputs.training, text, "training"), **suggested}
    usual, named = vars(shipped.inputs.training()), list_section_names(text, "training")
    # what neither the file names nor this task does otherwise would only hide the settings that matter
    training = {name: value for name, value in training.items() if name in named or usual.get(name, ...) != value}
    space = {name: None for name in list_section_names(text, "search_space") if name not in training}
    # a trial of the shipped settings is half a training; the best of them is what is trained in full
    return {"training": training, "search_space": space, "tuning": {"epochs": (training["epochs"] + 1) // 2}}


def list_defaults(cls: type[Any], text: str, section: str) -> dict[str, Any]:
    """Return the settings of a section with their defaults, and ``None`` for those of ``text`` that it lacks."""
    lacking = dict.fromkeys(list_section_names(text, section))
    return {**lacking, **{item.name: item.default for item in fields(cls)}}
