"""Settings that have no option of their own, changed on the command line: ``--set training.warmup=0.2``."""

from __future__ import annotations

import datetime
import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from dlpipe.errors import SettingError

SET = "--set"
Changes = Mapping[str, Mapping[str, str]]
"""The text of each changed value, by section (an empty name for what stands above all sections) and setting."""
PART = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[^;])+""")
HELP = "Change any setting of the file, such as {}; several with ; between, or repeated."


def join_changes(words: list[str]) -> list[str]:
    """Return the words of a command line with all that ``--set`` is given as one value.

    It is one text for Metaflow: repeated, its own options keep only the last value, and Argo, Airflow and Step
    Functions know no parameter of several values.

    Examples
    --------
    >>> join_changes(["run", "--set", "gate.metric=macro_f1", "--epochs", "2", "--set=training.warmup=0.2"])
    ['run', '--set', 'gate.metric=macro_f1; training.warmup=0.2', '--epochs', '2']
    """
    values: list[str] = []
    joined: list[str] = []
    place = 0
    left = iter(words)
    for word in left:
        if word != SET and not word.startswith(f"{SET}="):
            joined.append(word)
            continue
        value = next(left, None) if word == SET else word.removeprefix(f"{SET}=")
        if value is None:  # Metaflow says that it needs one
            return words
        place = place if values else len(joined)
        values.append(value)
    return [*joined[:place], SET, "; ".join(values), *joined[place:]] if values else joined


def read_changes(text: str | None) -> dict[str, dict[str, str]]:
    """Return what ``--set`` changes: by section and name, the text of the value.

    Raises
    ------
    SettingError
        When there is no change, a part is no ``section.name=value``, or a setting stands there twice with other
        values.

    Examples
    --------
    >>> read_changes("training.warmup=0.2; gate.metric=macro_f1; task=text-regression")
    {'training': {'warmup': '0.2'}, 'gate': {'metric': 'macro_f1'}, '': {'task': 'text-regression'}}
    """
    found: dict[str, dict[str, str]] = {}
    for part in PART.findall(text or ""):
        if not part.strip():
            continue
        path, equals, value = (piece.strip() for piece in part.partition("="))
        section, _, name = path.rpartition(".") if "." not in path else path.partition(".")
        if not equals or not name:
            raise SettingError(f"{SET} {part.strip()!r} is no change of a setting: write section.name=value.")
        if found.setdefault(section, {}).setdefault(name, value) != value:
            raise SettingError(f"{SET} gives {path} twice: {found[section][name]} and {value}.")
    if text is not None and not found:
        raise SettingError(f"{SET} {text!r} changes no setting: write section.name=value, or leave it out.")
    return found


def check_sections(changes: Changes, names: Mapping[str, Iterable[str]]) -> None:
    """Raise ``SettingError`` for a setting without its section, and for a section that does not exist.

    Parameters
    ----------
    changes : mapping
    names : mapping of str to iterable of str
        The settings of each section, by its name.
    """
    for name in changes.get("", {}):
        if name in names.get("", ()):
            continue
        homes = [f"{section}.{name}" for section, settings in names.items() if section and name in settings]
        known = ", ".join([*names.get("", ()), *(f"{section}.NAME" for section in names if section)])
        hint = f"write {' or '.join(homes)}" if homes else f"there are: {known}"
        raise SettingError(f"{SET} {name}: a setting is named with its section; {hint}.")
    for section in changes:
        if section and section not in names:
            raise SettingError(f"{SET}: there is no section {section!r}; there are: {_sort_near(section, names)}.")
        for name in changes[section] if section and names[section] else ():
            if name not in names[section]:
                raise SettingError(
                    f"{SET}: [{section}] has no setting {name!r}; it has: {_sort_near(name, names[section])}."
                )


def _sort_near(name: str, known: Iterable[str]) -> str:
    """Return the known names, the nearest first."""
    alike = {other: difflib.SequenceMatcher(None, name, other).ratio() for other in known if other}
    return ", ".join(sorted(alike, key=lambda other: -alike[other]))


def parse_list(text: str, *, are_texts: bool) -> list[Any]:
    """Return the values of a list, written as TOML writes it or with commas between.

    Examples
    --------
    >>> parse_list("age, amount", are_texts=True), parse_list('["a, b"]', are_texts=True)
    (['age', 'amount'], ['a, b'])
    >>> parse_list("1, 2.5", are_texts=False), parse_list("", are_texts=True)
    ([1, 2.5], [])
    """
    value = parse_value(text)
    if isinstance(value, list):
        return value
    parts = (part.strip() for part in text.split(","))
    return [parse_value(part, is_text=are_texts) for part in parts if part]


def parse_value(text: str, *, is_text: bool = False) -> Any:
    """Return the value of a TOML literal; bare words are a text, and so is a number where one is asked for.

    Examples
    --------
    >>> parse_value("0.2"), parse_value("macro_f1"), parse_value('["de", "fr"]'), parse_value("{ urgent = 0.8 }")
    (0.2, 'macro_f1', ['de', 'fr'], {'urgent': 0.8})
    >>> parse_value("32", is_text=True), parse_value('"32"', is_text=True), parse_value("2024-01-31")
    ('32', '32', '2024-01-31')
    """
    try:
        read = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = read["value"]
    plain = len(read) > 1 or isinstance(value, datetime.date | datetime.time)  # more than one line; no setting
    return text if plain or (is_text and not isinstance(value, str)) else value


def find_example(sections: Mapping[str, Any], options: Iterable[str]) -> str:
    """Return a setting of the first section that has no option of its own, as ``--set`` takes it.

    Parameters
    ----------
    sections : mapping
        The class of each section.
    options : iterable of str
        The settings that have an option.

    Examples
    --------
    >>> from dlpipe.monitoring import DriftSettings
    >>> find_example({"search_space": dict, "monitoring": DriftSettings}, [])
    'monitoring.quiet_hours=168.0'
    """
    for section, cls in sections.items():
        settings = fields(cls) if is_dataclass(cls) else ()  # a search space is a mapping
        plain = [each for each in settings if each.name not in {*options, "seed"}]
        numbers = [each for each in plain if type(each.default) in (int, float)]
        if numbers:  # the last: those before it are likelier to be known
            return f"{section}.{numbers[-1].name}={numbers[-1].default}"
    return "section.name=value"
