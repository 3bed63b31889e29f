"""What lineage is of: nodes, and how they are written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from dlpipe.redaction import show_address

Kind = Literal[
    "file",
    "line",
    "quarantined",
    "table",
    "row",
    "model",
    "move",
    "predictions",
    "prediction",
    "explanations",
    "explanation",
    "look",
    "requests",
    "request",
    "feedback",
    "run",
    "task",
    "deployment",
    "event",
    "code",
    "trial",
    "checkpoint",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_TABLES = ("table", "predictions", "explanations", "look")
"""Kinds that are a version of a table, with what its commit says of it."""
OF_ROWS = ("row", "prediction", "explanation", "quarantined", "feedback")
SHORT = 12
"""Characters of a digest that are written."""
FEWEST_CHARACTERS = 4
"""Of a row id that stand for all of it."""


@dataclass(frozen=True, order=True)
class Node:
    """Something that came of something, or that something came of.

    Attributes
    ----------
    kind : str
        One of ``KINDS``.
    name : str
        Of a file its path as it was given; of a table, and what is in one, its location; of a model its name; of a
        run and a task the flow; of an event and a deployment its name.
    number : int or None
        The version of a table, model or deployment, the line of a file, the number of a move, a row of a request
        that had several, of a trial or a checkpoint which one of its task. A row has the version whose commit
        brought it.
    key : str
        What tells it from others beside these: the SHA-256 of a file, the digest of code, the id of a row,
        request, run or event, run, step and task of a task, the alias of a move.
    """

    kind: Kind
    name: str
    number: int | None = None
    key: str = ""

    @property
    def id(self) -> str:
        """How it is written where it must be told from all others; ``dlpipe lineage`` finds it by this.

        Examples
        --------
        >>> Node("line", "data/films.csv", 17, "f" * 64).id
        'data/films.csv@ffffffffffff:17'
        """
        return self._write(self.name)

    def __str__(self) -> str:
        """Return how people write it.

        Examples
        --------
        >>> print(Node("line", "data/films.csv", 17, "f" * 64), Node("model", "reviews", 3))
        films.csv:17 models:/reviews/3
        >>> print(Node("row", "/films/reviews", 3, "ab12"), Node("task", "TrainFlow", key="17/train/4"))
        /films/reviews@v3#ab12 TrainFlow/17/train/4
        """
        if self.kind in ("file", "line"):
            line = f":{self.number}" if self.kind == "line" else ""
            return show_address(self.name).rstrip("/").rpartition("/")[2] + line
        return self._write(shorten_location(self.name))

    def _write(self, name: str) -> str:
        if self.kind in ("file", "line"):
            return f"{name}@{self.key[:SHORT]}" + (f":{self.number}" if self.kind == "line" else "")
        if self.kind in OF_TABLES:
            return f"{name}@v{self.number}"
        if self.kind in OF_ROWS:
            version = "" if self.number is None else f"@v{self.number}"
            return f"{name}{version}#{self.key}"
        if self.kind == "model":
            return f"models:/{self.name}/{self.number}"
        if self.kind == "move":
            return f"models:/{self.name}@{self.key}#{self.number}"
        if self.kind == "request":
            return self.key if self.number is None else f"{self.key}:{self.number}"
        if self.kind == "code":
            return f"code:{self.name}@{self.key[:SHORT]}"
        if self.kind in ("trial", "checkpoint"):
            return f"{name}/{self.key} {self.kind} {self.number}"
        if self.kind == "requests":
            return f"{name} of {self.key}"
        if self.kind == "deployment":
            return f"deployment:{self.name}" + ("" if self.number is None else f"@{self.number}")
        return f"event:{self.key}" if self.kind == "event" else f"{self.name}/{self.key}"


def shorten_location(location: str) -> str:
    """Return the name of a table under the tables root, and the whole location of any other.

    Examples
    --------
    >>> os.environ["DLPIPE_TABLES"] = "/films/tables"
    >>> shorten_location("/films/tables/old/reviews"), shorten_location("/tmp/reviews")
    ('old/reviews', '/tmp/reviews')
    >>> del os.environ["DLPIPE_TABLES"]
    """
    from dlpipe.tables import tables_root

    if "/" not in location:  # the name of a model or a flow
        return location
    root = tables_root()
    root = root if "://" in root else os.path.abspath(root)
    return location.removeprefix(f"{root}/")
