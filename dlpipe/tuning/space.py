"""The search space: which settings a search varies, and over what."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from dlpipe.errors import SettingError
from dlpipe.settings import check_name, read_settings
from dlpipe.task import Task, TrainingSettings, find_task

Space = dict[str, "Range | Choices"]
"""The name of each setting that is varied, with its values."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; drawn on a logarithmic scale with ``log``; whole if both ends are."""

    low: float | int
    high: float | int
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low ({self.low}) must be below high ({self.high}), and above 0 with log")

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of the listed values."""

    choices: Annotated[tuple[Any, ...], MinLen(1)]

    def __contains__(self, value: Any) -> bool:
        return value in self.choices


def read_space(values: Mapping[str, Any], *, where: str, training: TrainingSettings | None = None) -> Space:
    """Return the search space that a settings file describes.

    Parameters
    ----------
    values : mapping
        As read from TOML: the name of each setting with ``{low, high, log, relative}`` or ``{choices}``.
    where : str
        What to call the place in errors, such as ``[search_space]``.
    training : TrainingSettings, optional
        The settings as they stand, which the ends of a range with ``relative`` are multiples of; by default
        those of text classification.

    Raises
    ------
    SettingError
        When a setting is unknown or one of its values is out of range.

    Examples
    --------
    >>> read_space({"learning_rate": {"low": 1e-5, "high": 1e-4, "log": True}}, where="[search_space]")
    {'learning_rate': Range(low=1e-05, high=0.0001, log=True)}
    >>> read_space({"learning_rate": {"low": 0.5, "high": 2.5, "relative": True}}, where="[search_space]")
    {'learning_rate': Range(low=0.0001, high=0.0005, log=False)}
    """
    training = training or find_task().inputs.training()
    known = [field.name for field in dataclasses.fields(training)]
    space: Space = {}
    for name, spec in values.items():
        check_name(name, known, what="setting", where=where)
        if not isinstance(spec, Mapping):
            raise SettingError(
                f"{where}: {name} = {spec!r}; write {{ low = ..., high = ... }} or {{ choices = [...] }}."
            )
        kind: type[Range | Choices] = Choices if "choices" in spec else Range
        spec, at = dict(spec), f"{where} {name}"
        if spec.pop("relative", False) is True:
            spec = _scale_range(spec, getattr(training.resolve(), name), at)
        space[name] = _convert_values(name, read_settings(kind, spec, where=at), type(training), where)
    return space


def _scale_range(spec: Mapping[str, Any], value: Any, where: str) -> dict[str, Any]:
    """Return the range ``spec`` with its ends multiplied by ``value``."""
    ends = read_settings(Range, spec, where=where)  # which also says what is wrong with them
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingError(f"{where}: relative = true multiplies numbers, and the setting is {value!r}.")
    low, high = ends.low * value, ends.high * value
    if isinstance(value, int):
        low, high = round(low), round(high)
    return {"low": low, "high": high, "log": ends.log}


def _convert_values(name: str, spec: Range | Choices, cls: type[TrainingSettings], where: str) -> Range | Choices:
    """Return ``spec`` with values of the type of setting ``name``: whole ends make a range of whole numbers."""

    def convert(value: Any) -> Any:
        # by the dataclass itself, so that a bad value fails before the search and not in each trial
        return getattr(read_settings(cls, {name: value}, where=where), name)

    if isinstance(spec, Choices):
        return Choices(tuple(convert(value) for value in spec.choices))
    return Range(convert(spec.low), convert(spec.high), spec.log)


def get_current_values(space: Space, training: TrainingSettings) -> dict[str, Any]:
    """Return the settings as they stand: the values that ``training`` has for the settings of ``space``."""
    return {name: getattr(training.resolve(), name) for name in space}


def list_variants(space: Space, training: TrainingSettings, task: Task) -> list[TrainingSettings]:
    """Return ``training`` with each combination of choices for which trials read other data.

    A longest length of texts, for one, decides what is tokenized; a learning rate does not. A range does not
    count: its values are not known before the search.
    """
    lists = {
        name: spec.choices
        for name, spec in space.items()
        if isinstance(spec, Choices) and _decides_data(name, spec, training, task)
    }
    combined = itertools.product(*lists.values())
    return [dataclasses.replace(training, **dict(zip(lists, values, strict=True))) for values in combined]


def _decides_data(name: str, spec: Choices, training: TrainingSettings, task: Task) -> bool:
    """Return whether trials with other choices of a setting read other data."""
    variants = (dataclasses.replace(training, **{name: choice}) for choice in spec.choices)
    return len({task.inputs.make_encoding_key(variant) for variant in variants}) > 1
