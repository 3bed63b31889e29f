"""What stands for an object whose class was not imported, and the error of one that is not opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dlpipe.bridge.opening.inert import Inert, find_name


class NotOpened(Exception):
    """A class or function that is named in a pickle was not opened; its whole name is the message."""


def make_refusal(tree: Inert) -> NotOpened:
    """Return the error for an object that is not as its class makes it."""
    return NotOpened(find_name(tree))


@dataclass(frozen=True)
class Unopened:
    """Stands for an object of a class that was not opened."""

    name: str


@dataclass(frozen=True, eq=False)
class Fields:
    """The fields of an object of one of our own classes, by name; the class itself is not needed."""

    name: str
    fields: Mapping[str, Any]


def read_fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of a dataclass; none of anything else."""
    if isinstance(value, Fields):
        return value.fields
    return {name: getattr(value, name, None) for name in getattr(type(value), "__dataclass_fields__", {})}


@dataclass(frozen=True)
class IncludedFile:
    """A file that was given as a parameter: only its size is known; ``None`` if not even that."""

    size: int | None
