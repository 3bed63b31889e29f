"""Values of parameters: whether a flow can be given them, and as which words of its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dlpipe.orchestrator.deployments import Version

TRUTHS = ("true", "t", "yes", "y", "1", "false", "f", "no", "n", "0")
WORD_BYTES = 128 * 1024 - 256
"""The kernel starts no program with a longer word (MAX_ARG_STRLEN); the rest is for the option's name."""


def build_words(version: Version, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words by which a run of ``version`` gets ``values``; those that are ``None`` keep the default.

    Examples
    --------
    >>> version = Version("A", 1, "A", "", "", "", "", "", {}, multiple=("tags",), separators={"days": ","})
    >>> list(build_words(version, {"tags": ["a", "b"], "days": [1, 2], "shape": {"n": 3}, "yes": True}))
    ['--tags', 'a', '--tags', 'b', '--days', '1,2', '--shape', '{"n": 3}', '--yes', 'True']
    """
    for name, value in values.items():
        if value is not None:
            yield from (part for word in split_value(version, name, value) for part in (f"--{name}", word))


def split_value(version: Version, name: str, value: Any) -> list[str]:
    """The words that ``value`` is for the parameter ``name``: several only where it takes several.

    Parameters
    ----------
    version : Version
        It says of what type the parameter is, and whether it takes several values.
    name : str
        Of the parameter.
    value : object
        As JSON has it.
    """
    kind = version.parameter_types.get(name, "")
    if isinstance(value, list | tuple) and name in version.multiple:
        return [format_word(each, kind) for each in value]
    if isinstance(value, list | tuple) and name in version.separators:
        return [version.separators[name].join(format_word(each, kind) for each in value)]
    return [format_word(value, kind)]


def format_word(value: Any, kind: str = "") -> str:
    """``value`` as a word of a command line, for a parameter of type ``kind``.

    Examples
    --------
    >>> format_word(True), format_word(True, "JSON"), format_word({"n": None})
    ('True', 'true', '{"n": null}')
    """
    if isinstance(value, str):
        return value
    return json.dumps(value) if kind == "JSON" or isinstance(value, dict | list | tuple) else str(value)


def explain_misfit(version: Version, name: str, value: Any) -> str:
    """Why ``value`` cannot be the parameter's; empty if it can.

    Parameters
    ----------
    version : Version
        It says what the parameter takes.
    name : str
        Of the parameter.
    value : object
        As JSON has it.

    Examples
    --------
    >>> version = Version("A", 1, "A", "", "", "", "", "", {}, parameter_types={"n": "int"}, multiple=("n",))
    >>> explain_misfit(version, "n", [1, 2]), explain_misfit(version, "n", [])
    ('', 'which is an empty list, and a command line has none')
    >>> explain_misfit(version, "n", [1, "x"])
    'but the parameter n is of type int, several'
    """
    if isinstance(value, list | tuple) and name in version.multiple:
        return explain_misfit_of_several(version, name, value)
    if isinstance(value, list | tuple) and name in version.separators:
        return explain_misfit_of_parts(version, name, value) or explain_unpassable(
            split_value(version, name, value)[0]
        )
    kind = version.parameter_types.get(name, "")
    if not can_convert(value, kind):
        several = ", several" if name in version.multiple else ""
        return f"but the parameter {name} is of type {kind}{several}"
    word = format_word(value, kind)
    choices = version.choices.get(name, ())
    if choices and word not in choices:
        return f"but the parameter {name} is one of {', '.join(choices)}"
    return explain_unpassable(word)


def explain_misfit_of_several(version: Version, name: str, values: Sequence[Any]) -> str:
    """Why ``values`` cannot be given to a parameter that takes several; empty if they can.

    Parameters
    ----------
    version : Version
        It says what the parameter takes.
    name : str
        Of a parameter with ``multiple=True``.
    values : sequence of object
        As JSON has them.
    """
    if not values:
        return "which is an empty list, and a command line has none"
    if any(each is None for each in values):
        return "which has a null in it"
    if any(isinstance(each, list) for each in values) and version.parameter_types.get(name, "") != "JSON":
        return f"but the parameter {name} takes a list of single values"
    return next(filter(None, (explain_misfit(version, name, each) for each in values)), "")


def explain_misfit_of_parts(version: Version, name: str, values: Sequence[Any]) -> str:
    """Why ``values`` cannot stand in one text with the parameter's separator between them; empty if they can.

    Parameters
    ----------
    version : Version
        It says what the separator is.
    name : str
        Of a parameter with a ``separator``.
    values : sequence of object
        As JSON has them.
    """
    between = version.separators[name]
    if not values:
        return "which is an empty list, and a text with a separator has none"
    if any(
        each is None or isinstance(each, dict | list | tuple) or between in format_word(each) for each in values
    ):
        return f"but the parameter {name} is texts with {between!r} between them"
    return ""


def can_convert(value: Any, kind: str) -> bool:
    """Whether Metaflow can make a parameter of type ``kind`` of ``value``."""
    if kind == "JSON":
        return not isinstance(value, str) or can_read(json.loads, value)
    if isinstance(value, dict | list | tuple):
        return not kind
    match kind:
        case "int":
            return not isinstance(value, float) and can_read(int, str(value))
        case "float":
            return can_read(float, str(value))
        case "bool":
            return str(value).lower() in TRUTHS
    return True


def can_read(reader: Callable[[str], Any], text: str) -> bool:
    """Whether ``reader`` can read ``text``."""
    try:
        reader(text)
    except (ValueError, RecursionError):
        return False
    return True


def explain_unpassable(word: str) -> str:
    r"""Why no program can be given ``word``; empty if it can.

    Examples
    --------
    >>> explain_unpassable("a\0b"), explain_unpassable("caf\udce9"), explain_unpassable("café\t")
    ('which has a NUL character, and a command line has none', 'which has half a character (a lone surrogate)', '')
    """
    if "\0" in word:
        return "which has a NUL character, and a command line has none"
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        return "which has half a character (a lone surrogate)"
    if size > WORD_BYTES:
        return f"which is {size:,} bytes long, and a command line takes {WORD_BYTES:,}; put it in a table"
    return ""


def show_json(value: Any) -> str:
    """``value`` as JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
