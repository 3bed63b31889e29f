"""Which columns of a file a project is made of, and what else the file could be learnt as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlpipe.errors import ColumnInDoubt, SettingError
from dlpipe.settings import read_settings
from dlpipe.tables import Preview, RowForm, is_number
from dlpipe.task import find_task, list_tasks
from dlpipe.task.columns import LISTED, Given, Suggest, Suggestion, as_list, count_values, describe_repeated
from dlpipe.task.options import check_options, list_settings

HINT_ROWS = 5_000
"""So many rows are looked at for tasks that nobody asked for; of many columns, all rows take a second a task."""
FLAGS = 2
"""So few different numbers are classes that somebody has written as numbers."""


@dataclass(frozen=True)
class Choice:
    """What a file is learnt as.

    Attributes
    ----------
    suggested : Suggestion
    doubts : tuple of str
        What to look at, one line each: other tasks that the file fits, a first line that may be a row.
    """

    suggested: Suggestion
    doubts: tuple[str, ...] = ()


def choose_columns(found: Preview, task: str, given: Given, *, is_default: bool) -> Choice:
    """Return which columns a task reads of a file, and what a person should look at.

    Parameters
    ----------
    found : Preview
    task : str
    given : mapping
        The settings of ``[data]`` that are known.
    is_default : bool
        Whether nobody named the task: then the doubts have the others that the file fits.

    Raises
    ------
    SettingError
        When the task has no such setting, a column is not there, or which one is meant is in doubt; the message
        names the tasks that have no doubt.
    """
    suggest = find_suggest(task)
    check_options(task, given)
    try:
        suggested = suggest(found, given)
    except SettingError as error:
        fitting = dict(_suggest_others(found, task, given))
        if fitting:
            named = " or ".join(f"--task {name} ({_list_read(other)})" for name, other in fitting.items())
            raise SettingError(f"{error} Or is it for another task? Pass {named}.") from None
        if isinstance(error, ColumnInDoubt):
            others = ", ".join(name for name in list_tasks() if name != task)
            raise SettingError(f"{error} Or name another task with --task: {others}.") from None
        raise
    alternatives = _describe_others(found, task, given, suggested) if is_default else ()
    return Choice(suggested, (*alternatives, *_describe_names(found)))


def find_suggest(task: str) -> Suggest:
    """Return what says which columns of a file a task reads; ``SettingError`` where the task does not."""
    if suggest := find_task(task).suggest:
        return suggest
    raise SettingError(
        f"The task {task!r} does not say which columns of a file it reads: write its project by hand."
    )


def make_form(task: str, settings: Given) -> RowForm:
    """Return the form of rows that a task reads with these settings."""
    return read_settings(find_task(task).data, settings, where="[data]").form


def find_odd_names(found: Preview) -> list[str]:
    """Return names of a CSV's columns that look like values: then its first line may be a row and no header.

    Examples
    --------
    >>> find_odd_names(Preview("a.csv", {"Dull.": ["Lovely."], "1": ["5"], "old": ["new", "old"]}, 2, True, ","))
    ['1', 'old']
    """
    if not found.separator:
        return []
    return [name for name, values in found.columns.items() if is_number(name.strip()) or name in values]


def _suggest_others(found: Preview, task: str, given: Given) -> Iterator[tuple[str, Suggestion]]:
    """Yield the other tasks that find their columns in a file, with those."""
    columns = {name: values[:HINT_ROWS] for name, values in found.columns.items()}
    rows = min(found.rows, HINT_ROWS)
    found = replace(found, columns=columns, rows=rows, whole=found.whole and rows == found.rows)
    for name in list_tasks():
        suggest = find_task(name).suggest
        if name == task or suggest is None or not {*given} <= {*list_settings(name)}:
            continue
        try:
            suggested = suggest(found, given)
            form = make_form(name, suggested.settings)
        except SettingError:
            continue
        if form.label.kind != "number" or not _are_flags(found, form.label.sources):
            yield name, suggested


def _describe_others(found: Preview, task: str, given: Given, suggested: Suggestion) -> Iterator[str]:
    """Yield a line on each other task that would read more columns of a file, or its labels as something else."""
    chosen = make_form(task, suggested.settings)
    for name, other in _suggest_others(found, task, given):
        form = make_form(name, other.settings)
        more = [name for name in form.sources if name not in chosen.sources]
        if form.label.kind != chosen.label.kind:
            yield f"or      --task {name}: {_describe_label(other)}"
        elif more:
            yield f"or      --task {name}, which reads {_list_names(more)} too"


def _describe_label(suggested: Suggestion) -> str:
    lines = [line for line in suggested.lines if line.startswith("label")] or suggested.lines
    return "; ".join(" ".join(line.split()) for line in lines)


def _are_flags(found: Preview, columns: Iterable[str]) -> bool:
    return all(len(count_values(found.columns[name])) <= FLAGS for name in columns)


def _describe_names(found: Preview) -> Iterator[str]:
    if odd := find_odd_names(found):
        names = ", ".join(repr(name[:40]) for name in found.columns)
        yield (
            f"names   the first line is taken as the names of the columns: {names}. {odd[0]!r} looks like a "
            "value: if the line is a row, put one with names above it, and make the project anew"
        )
    if line := describe_repeated(found):
        yield f"names   {line}"


def _list_read(suggested: Suggestion) -> str:
    """Return the columns that are read, as a sentence lists them."""
    return _list_names([name for names in suggested.settings.values() for name in as_list(names)])


def _list_names(names: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, names[:LISTED]))
    return f"{shown} and {len(names) - LISTED} more" if len(names) > LISTED else shown
