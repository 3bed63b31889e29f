"""What an ingest is told: sources and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from dlpipe.errors import SettingError

SPLITS = ("train", "valid", "test")

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class TableSettings:
    """How sources become a data-set table."""

    text_column: Annotated[str, MinLen(1)] = "review"
    label_column: Annotated[str, MinLen(1)] = "sentiment"
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

    def given(self) -> dict[str, tuple[str, ...]]:
        """Return the sources that were given, by name, each as a tuple of paths.

        Raises
        ------
        SettingError
            When it is not clear what the splits are to be.

        Examples
        --------
        >>> Sources(train="a.csv", test=["b.csv", "c.csv"]).given()
        {'train': ('a.csv',), 'test': ('b.csv', 'c.csv')}
        """
        named = {"data": self.data, "train": self.train, "valid": self.valid, "test": self.test}
        given = {name: _as_tuple(paths) for name, paths in named.items() if _as_tuple(paths)}
        options = ", ".join(_option(name) for name in given)
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


def _as_tuple(paths: Paths) -> tuple[str, ...]:
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    return tuple(str(path) for path in listed if str(path).strip())


def _option(name: str) -> str:
    return "--data" if name == "data" else f"--{name}-data"
