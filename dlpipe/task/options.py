"""Options of commands that name columns, and the tasks that they are for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

from dlpipe.errors import SettingError
from dlpipe.tables import join_words
from dlpipe.task.columns import to_option
from dlpipe.task.entry_points import find_task, list_tasks


def check_options(task: str, names: Iterable[str]) -> None:
    """Raise ``SettingError`` for a setting of ``[data]`` that a task lacks, and name the tasks that have it.

    Examples
    --------
    >>> check_options("text-classification", ["text_column"])
    >>> check_options("text-regression", ["label_columns"])
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: The task 'text-regression' has no --label-columns; text-multilabel has (--task).
    """
    for name in names:
        if name not in list_settings(task):
            having = [other for other in list_tasks() if name in list_settings(other)]
            verb = "has" if len(having) == 1 else "have"
            hint = f"; {join_words(having)} {verb} (--task)" if having else ""
            raise SettingError(f"The task {task!r} has no {to_option(name)}{hint}.")


def list_settings(task: str) -> list[str]:
    """Return the settings of ``[data]`` that say how sources become a table of a task's rows."""
    return [field.name for field in fields(find_task(task).data)]
