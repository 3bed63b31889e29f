"""Settings written into a TOML file that people read: its comments and its order stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

SECTION = re.compile(r"\[(\w+)\]\s*(#.*)?")
LINE = re.compile(r"(?P<name>\w+) = (?P<value>\"(?:[^\"\\]|\\.)*\"|\[[^\]]*\]|[^#\s]+)(?P<comment> *#.*)?")


def set_values(
    text: str, values: Mapping[str, Mapping[str, Any]], *, comments: Mapping[str, Iterable[str]]
) -> str:
    """Return the TOML ``text`` with other values.

    Parameters
    ----------
    text : str
        With one setting a line.
    values : mapping of str to mapping
        By section, an empty name for what stands above all sections, and by name. ``None`` takes a setting out.
        What a section does not have yet is added at its end.
    comments : mapping of str to iterable of str
        Lines to put below the head of a section.

    Examples
    --------
    >>> text = 'task = "a"\\n\\n[data]\\ntable = "reviews" # its name\\nold = 1\\n\\n[training]\\nepochs = 2\\n'
    >>> values = {"": {"task": "b"}, "data": {"table": "films", "old": None, "encoding": "cp1252"}}
    >>> print(set_values(text, values, comments={"data": ["Two classes."]}))
    task = "b"
    <BLANKLINE>
    [data]
    # Two classes.
    table = "films" # its name
    encoding = "cp1252"
    <BLANKLINE>
    [training]
    epochs = 2
    <BLANKLINE>
    """
    written: list[str] = []
    left = dict(values.get("", {}))
    for line in text.splitlines():
        if head := SECTION.fullmatch(line):
            written += _take_rest(written, left)
            left = dict(values.get(head[1], {}))
            written += [line, *(f"# {comment}" for comment in comments.get(head[1], ()))]
            continue
        found = LINE.fullmatch(line)
        if found and found["name"] in left:
            value = left.pop(found["name"])
            if value is None:
                continue
            line = f"{found['name']} = {quote(value)}{found['comment'] or ''}"
        written.append(line)
    written += _take_rest(written, left)
    return "\n".join(written) + "\n"


def list_section_names(text: str, section: str) -> list[str]:
    """Return the settings that a section of the TOML ``text`` has.

    Examples
    --------
    >>> list_section_names('[data]\\ntable = "a"\\n[training]\\nepochs = 2\\nseed = 0 # none\\n', "training")
    ['epochs', 'seed']
    """
    names, inside = [], False
    for line in text.splitlines():
        if head := SECTION.fullmatch(line):
            inside = head[1] == section
        elif inside and (found := re.match(r"(\w+) = ", line)):
            names.append(found[1])
    return names


def quote(value: Any) -> str:
    """Return a string, a number, a truth value or a list of them as TOML writes it.

    Examples
    --------
    >>> print(quote('a "b" \\x7f'), quote(["a", "b"]), quote(0.5), quote(True))
    "a \\"b\\" \\u007f" ["a", "b"] 0.5 true
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _take_rest(written: list[str], left: Mapping[str, Any]) -> list[str]:
    """Return the lines of the settings that a section lacked, and put its blank lines behind them."""
    added = [f"{name} = {quote(value)}" for name, value in left.items() if value is not None]
    if not added:
        return []
    blank = []
    while written and not written[-1].strip():
        blank.append(written.pop())
    return [*added, *blank]
