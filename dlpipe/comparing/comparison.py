"""Runs and model versions beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dlpipe.comparing.code import CodeChange, compare_code
from dlpipe.comparing.data import TableComparison, compare_tables
from dlpipe.comparing.pairs import ComparedRows, Outputs, Pair, compare_pair
from dlpipe.comparing.sides import Score, Side, find_side
from dlpipe.errors import SettingError

SAME = ("data/catalogue",)
"""Settings that name places of a machine."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Comparison:
    """What differs between sides; all but the first are compared with the first.

    Attributes
    ----------
    settings : mapping of str to tuple of (str or None)
        Those that differ, a value for each side.
    same_settings, one_sided_settings : int
        How many are the same on all sides; how many are not listed since a side cannot have them: a run of
        another flow, or a version of which only the parameters of its training are known.
    scores : mapping of str to tuple of (Score or None)
    numbers : mapping of str to tuple of (float or None)
        The final numbers of runs that differ; only where no side has scores.
    code : tuple of CodeChange
        Of each side but the first.
    pairs : tuple of Pair
        Of each side but the first.
    """

    sides: tuple[Side, ...]
    settings: Mapping[str, tuple[str | None, ...]]
    same_settings: int
    one_sided_settings: int
    tables: tuple[TableComparison, ...]
    code: tuple[CodeChange, ...]
    scores: Mapping[str, tuple[Score | None, ...]]
    numbers: Mapping[str, tuple[float | None, ...]]
    pairs: tuple[Pair, ...]


def compare(asked: Sequence[str], rows: ComparedRows | None = None) -> Comparison:
    """Return what differs between runs and model versions.

    Parameters
    ----------
    asked : sequence of at least two str
        As ``find_side`` reads them.
    rows : ComparedRows, optional
        On which rows models are compared; by default the test split of the table that both learnt from.

    Raises
    ------
    SettingError
        When fewer than two are named, or one twice.
    RunNotFound, ModelNotFound
        When there is none of a name.
    """
    if len(asked) < 2:
        raise SettingError("Name at least two runs or model versions to compare, such as reviews/1 reviews/2.")
    sides = [find_side(text) for text in asked]
    check_different(sides)
    first, *others = sides
    settings, same, one_sided = compare_settings(sides)
    scores = line_up([side.scores for side in sides])
    outputs, chosen = Outputs(), rows or ComparedRows()
    return Comparison(
        sides=tuple(sides),
        settings=settings,
        same_settings=same,
        one_sided_settings=one_sided,
        tables=compare_tables(sides),
        code=tuple(compare_code(first.code, other.code) for other in others),
        scores=scores,
        numbers={} if scores else keep_different(line_up([side.numbers for side in sides])),
        pairs=tuple(compare_pair(first, other, chosen, outputs) for other in others),
    )


def check_different(sides: Sequence[Side]) -> None:
    """Raise ``SettingError`` where two sides are the same run or version, or a run and what it made."""
    for at, side in enumerate(sides):
        for other in sides[:at]:
            both = f"{other.asked!r} and {side.asked!r}"
            if side.name == other.name:
                raise SettingError(f"{both} are both {side.name}. Name two that differ.")
            one_version = side.model is not None and other.model is not None and side.model.uri == other.model.uri
            if one_version and side.run == other.run and side.run in (side.name, other.name):
                uri = side.model.uri if side.model else ""
                raise SettingError(f"{both} are the same: {side.run} made {uri}. Name two that differ.")


def line_up(mappings: Sequence[Mapping[str, Value]]) -> dict[str, tuple[Value | None, ...]]:
    """Return the values of all mappings beside each other, by name."""
    names = dict.fromkeys(name for values in mappings for name in values)
    return {name: tuple(values.get(name) for values in mappings) for name in names}


def keep_different(rows: Mapping[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    """Return the rows whose values are not all the same."""
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def compare_settings(sides: Sequence[Side]) -> tuple[dict[str, tuple[str | None, ...]], int, int]:
    """Return the settings that differ, how many are the same, and how many are not listed.

    Where one side has settings by section and another one has not (a version whose run is not here), a setting
    is found by its last name.
    """
    rows = line_up([align_names(side.settings, sides) for side in sides])
    # a side without any settings says nothing of them
    spoken = [bool(side.settings) for side in sides]
    alike = len({side.run.partition("/")[0] for side in sides if side.settings}) == 1
    different: dict[str, tuple[str | None, ...]] = {}
    same = one_sided = 0
    for name, values in rows.items():
        known = [value for value, speaks in zip(values, spoken, strict=True) if speaks]
        if len(set(known)) == 1 or name in SAME:
            same += len(known) > 1
        elif None in known and not alike:
            one_sided += 1
        else:
            different[name] = values
    return dict(sorted(different.items())), same, one_sided


def align_names(settings: Mapping[str, str], sides: Sequence[Side]) -> dict[str, str]:
    """Return settings under the names that other sides have for them: ``epochs`` becomes ``training/epochs``."""
    if any("/" in name for name in settings):
        return dict(settings)
    known = {name for side in sides for name in side.settings}
    return {f"training/{name}" if f"training/{name}" in known else name: value for name, value in settings.items()}
