"""`dlpipe init`: a new project, or a newer template for one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import say
from dlpipe.errors import SettingError

if TYPE_CHECKING:
    from dlpipe.templates import Project, Update

WHATS = {
    "added": "added",
    "updated": "updated",
    "merged": "merged with your changes",
    "conflict": "in conflict: choose between the lines inside the marks <<<<<<< and >>>>>>>",
    "removed": "removed: the template has it no more",
    "kept": "left as it is, though the template changed",
}


class NamedFolder(click.Path):
    """A folder that somebody named: no name is what an unset variable leaves, and would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the folder."""
        if value == "":
            raise SettingError("The name of the folder is empty. Name the folder; . for this one.")
        return super().convert(value, param, ctx)


@click.command()
@click.argument("folder", type=NamedFolder(path_type=Path, file_okay=False))
@click.option("--data", metavar="FILE", help="File to learn from: CSV, JSON Lines, Parquet or a Delta table.")
@click.option(
    "--dataset", metavar="NAME", help="Instead of --data, a data set of scikit-learn: breast_cancer, iris or wine."
)
@click.option(
    "--task", metavar="NAME", help="What is learnt, such as text-regression.  [default: text-classification]"
)
@click.option(
    "--text-column", metavar="NAME", help="Column with the text; by default the one with the longest texts."
)
@click.option("--text-pair-column", metavar="NAME", help="Column with the second text of a pair.")
@click.option("--number-columns", metavar="NAMES", help="Columns with numbers, separated by commas.")
@click.option("--category-columns", metavar="NAMES", help="Columns with categories, separated by commas.")
@click.option(
    "--label-column", metavar="NAME", help="Column with the label; by default it is guessed from the values."
)
@click.option(
    "--label-columns", metavar="NAMES", help="Columns of 0 and 1, one for each label, separated by commas."
)
@click.option("--name", metavar="NAME", help="Name of the table and of the model; by default that of the folder.")
@click.option(
    "--separator", metavar="CHAR", help="Separator of CSV files: a character, or tab; by default it is found."
)
@click.option("--encoding", metavar="NAME", help="Encoding of text files, such as cp1252; by default UTF-8.")
@click.option(
    "--update", is_flag=True, help="Merge the template of this dlpipe version into the project in FOLDER."
)
def init(folder: Path, update: bool, data: str | None, dataset: str | None, **options: str | None) -> None:
    """Make a project for a file of yours, or update one.

    FOLDER gets flows, settings with what the file showed, tests and a Makefile. Nothing is overwritten.

    \b
    Examples:
      dlpipe init films --data films.csv
      dlpipe init wine --dataset wine
      dlpipe init films --update
    """
    given = {name: value for name, value in options.items() if value}
    sources = {name: value for name, value in (("data", data), ("dataset", dataset)) if value}
    if update:
        _update(folder, [*sources, *given])
    elif not sources:
        raise SettingError(
            "dlpipe init needs --data or --dataset: what the project is to learn from. Or pass --update."
        )
    elif len(sources) > 1:
        raise SettingError("--data and --dataset are two sources: pass one of them.")
    else:
        _make(folder, sources, given)


def _make(folder: Path, sources: dict[str, str], given: dict[str, str]) -> None:
    from dlpipe.templates import make_project

    columns: dict[str, Any] = {name: value for name, value in given.items() if name.endswith("_column")}
    columns |= {name: value.split(",") for name, value in given.items() if name.endswith("_columns")}
    reading = {name: value for name, value in given.items() if name in ("separator", "encoding")}
    more = {name: value for name, value in given.items() if name in ("task", "name")}
    project = make_project(folder, **sources, columns=columns, reading=reading, **more)
    say(describe_project(project, sources.get("data", f"{folder / project.answers.data}")))


def describe_project(project: Project, data: str) -> str:
    """Return what was made, and what the data showed, as lines."""
    answers, folder = project.answers, str(project.folder)
    options = ["--task", *(f"--{name.replace('_', '-')}" for name in answers.columns)]
    lines = [
        f"data    {data}",
        f"task    {answers.task}",
        *answers.shown,
        *project.doubts,
        f"        Wrong? Remove {folder} and say {', '.join(options[:-1])} or {options[-1]}.",
        f"project {folder}: {project.files} files; {project.sample} rows of the data are in tests/sample.csv",
    ]
    if project.environment:
        lines.append(
            f"        .venv sees the packages of {project.environment}; to have its own: make clean install"
        )
    return "\n".join([*lines, f"next    {'' if folder == '.' else f'cd {folder} && '}make train && make test"])


def _update(folder: Path, others: list[str]) -> None:
    from dlpipe.templates import update_project

    if others:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise SettingError(
            f"--update takes no other option: {listed}. The project's settings are in its flows folder."
        )
    done = update_project(folder)
    say(describe_update(done))
    if done.conflicts:
        raise SystemExit(1)


def describe_update(done: Update) -> str:
    """Return what an update did, a line a file."""
    if not done.merges:
        return f"{done.folder} is up to date with dlpipe {done.after}."
    lines = [f"{done.folder}: from dlpipe {done.before} to {done.after}"]
    return "\n".join([*lines, *(f"{merge.path}: {WHATS[merge.what]}" for merge in done.merges)])
