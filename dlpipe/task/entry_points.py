"""Tasks by their names: entry points of the group ``dlpipe.tasks``."""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from dlpipe.errors import SettingError
from dlpipe.settings import check_name

if TYPE_CHECKING:
    from dlpipe.task.protocol import Task

GROUP, OWN = "dlpipe.tasks", "dlpipe"
DEFAULT_TASK = "text-classification"


def list_tasks() -> list[str]:
    """Return the names of the tasks that are installed, sorted."""
    return sorted(_read_entry_points())


def find_task(name: str = DEFAULT_TASK) -> Task:
    """Return the task of this name; packages bring theirs by an entry point of the group ``dlpipe.tasks``.

    Raises
    ------
    SettingError
        When no package that is installed brings it (the nearest name is suggested), or it cannot be imported.

    Examples
    --------
    >>> find_task("text-classification").name
    'text-classification'
    >>> find_task("text-clasification")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dlpipe.errors.SettingError: This environment has no task 'text-clasification'; did you mean 'text-...
    """
    found = _read_entry_points()
    check_name(name, sorted(found), what="task", where="This environment")
    return _load(found[name])


def list_own_tasks() -> dict[str, str]:
    """Return the tasks that dlpipe itself brings, by name, each with where its object is."""
    found = _read_entry_points().items()
    return {name: point.value for name, point in sorted(found) if point.module.startswith("dlpipe.")}


def find_distribution(name: str) -> str | None:
    """Return the distribution that brings the task ``name``; ``None`` for dlpipe itself, or an unknown task."""
    point = _read_entry_points().get(name)
    brought_by = point.dist.name if point is not None and point.dist is not None else OWN
    return None if brought_by == OWN else brought_by


@functools.cache
def _load(point: EntryPoint) -> Task:
    try:
        task: Task = point.load()
    except Exception as error:
        why = " ".join(str(error).split())
        raise SettingError(
            f"The task {point.name!r} cannot be imported from {point.value}: {type(error).__name__}: {why}. Mend "
            "the package that brings it, or install it again."
        ) from None
    if getattr(task, "name", None) != point.name:
        raise SettingError(
            f"{point.value} is no task named {point.name!r}: an entry point names a dlpipe.task.Task of its name."
        )
    return task


def _read_entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
