"""Settings and sources of an ingest, and the names of splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from dlpipe.errors import SettingError
from dlpipe.settings import check_name
from dlpipe.tables._form import TEXT_FORM, RowForm

SPLITS = ("train", "valid", "test")
ALL_SPLITS = "all"
"""How options of flows and commands ask for the rows of all splits; inside the code that is ``None``."""

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class TableSettings:
    """How sources become a data-set table; a task's settings add the names of columns, and the form of a row."""

    max_bad_share: Annotated[float, Ge(0), Le(1)] = 0.1
    """More bad rows than this stop the ingest."""
    valid_share: Annotated[float, Gt(0), Le(0.5)] = 0.1
    test_share: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Shares of the hash split; those that were given as files are not touched."""
    fold_labels: bool = False
    """Whether labels are one class that differ only in case, blanks or Unicode form."""
    separator: str = ""
    """Of CSV files: a character, or a word such as ``tab``; by default it is found."""
    encoding: str = ""
    """Of text files; by default UTF-8, or what the first bytes of a file name."""

    @property
    def form(self) -> RowForm:
        """What a row of the table is."""
        raise NotImplementedError(f"{type(self).__name__} names no columns: take the settings of a task.")

    @property
    def task(self) -> str:
        """The name of the task that the rows are for; empty where nobody says."""
        return ""

    def to_record(self) -> dict[str, Any]:
        """Return what a commit remembers of the settings."""
        return asdict(self)


@dataclass(frozen=True)
class FormSettings(TableSettings):
    """Settings whose form is given, such as that of a table which is there."""

    rows: RowForm = TEXT_FORM
    task_name: str = ""

    @property
    def form(self) -> RowForm:
        """What a row of the table is."""
        return self.rows

    @property
    def task(self) -> str:
        """The name of the task that the rows are for; empty where nobody says."""
        return self.task_name

    def to_record(self) -> dict[str, Any]:
        """Return what a commit remembers of the settings; the form has a place of its own."""
        return {name: value for name, value in asdict(self).items() if name not in ("rows", "task_name")}


@dataclass(frozen=True)
class Sources:
    """Files or Delta tables to ingest: ``data`` to be split here, or one for each split.

    Each is a path, a glob, or a list of them. Without ``test``, ``train`` is split three ways like ``data``;
    with ``train`` and ``test``, the valid split is taken from ``train``.
    """

    data: Paths = ()
    train: Paths = ()
    valid: Paths = ()
    test: Paths = ()

    def list_paths(self) -> dict[str, tuple[str, ...]]:
        """Return the sources that were given, by name, each as a tuple of paths.

        Raises
        ------
        SettingError
            When it is not clear what the splits are to be.

        Examples
        --------
        >>> Sources(train="a.csv", test=["b.csv", "c.csv"]).list_paths()
        {'train': ('a.csv',), 'test': ('b.csv', 'c.csv')}
        """
        named = {"data": self.data, "train": self.train, "valid": self.valid, "test": self.test}
        given = {name: _to_tuple(paths) for name, paths in named.items() if _to_tuple(paths)}
        options = ", ".join(_to_option(name) for name in given)
        if not given:
            raise SettingError("No source is given. Pass --data, or --train-data (and --valid-data, --test-data).")
        if "data" in given and len(given) > 1:
            raise SettingError(
                f"{options} do not go together: --data is split here, --train-data and its like are not. "
                "Pass either --data, or --train-data with --valid-data and --test-data."
            )
        if "data" not in given and "train" not in given:
            raise SettingError(
                f"{options} without --train-data leaves nothing to train on. Pass --train-data too."
            )
        if set(given) == {"train", "valid"}:
            raise SettingError(
                "--train-data and --valid-data without --test-data leave nothing to test on. Pass --test-data "
                "too, or leave out --valid-data to have --train-data split three ways."
            )
        return given


def parse_split(option: str, *, where: str) -> str | None:
    """Return the split that an option names, ``None`` for all of them.

    Parameters
    ----------
    option : str
        ``train``, ``valid``, ``test`` or ``all``.
    where : str
        What has no other split, for the message, such as ``"The table"``.

    Raises
    ------
    SettingError
        When there is no such split.

    Examples
    --------
    >>> parse_split("test", where="The table"), parse_split("all", where="The table")
    ('test', None)
    """
    check_name(option, [*SPLITS, ALL_SPLITS], what="split", where=where)
    return None if option == ALL_SPLITS else option


def to_split_key(split: str | None) -> str:
    """Return how the keys of commits write a split: ``*`` for the rows of all splits.

    The keys of tables that exist have it so; another sign would score and explain their rows again.

    Examples
    --------
    >>> to_split_key("test"), to_split_key(None)
    ('test', '*')
    """
    return split or "*"


def _to_tuple(paths: Paths) -> tuple[str, ...]:
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    return tuple(str(path) for path in listed if str(path).strip())


def _to_option(name: str) -> str:
    return "--data" if name == "data" else f"--{name}-data"
