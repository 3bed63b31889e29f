"""Settings written into a TOML file that people read: its comments and its order stay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

SECTION = re.compile(r"\[(\w+)\]\s*(#.*)?")
LINE = re.compile(r"(?P<name>\w+) = (?P<value>\"(?:[^\"\\]|\\.)*\"|[^#\s]+)(?P<comment> *#.*)?")


def set_values(
    text: str, values: Mapping[str, Mapping[str, str]], *, comments: Mapping[str, Iterable[str]]
) -> str:
    """Return the TOML ``text`` with other values.

    Parameters
    ----------
    text : str
        With one setting a line.
    values : mapping of str to mapping
        By section and name. What the section does not have yet is added at its end.
    comments : mapping of str to iterable of str
        Lines to put below the head of a section.

    Examples
    --------
    >>> text = '[data]\\ntable = "reviews" # its name\\n\\n[training]\\nepochs = 2\\n'
    >>> values = {"data": {"table": "films", "encoding": "cp1252"}}
    >>> print(set_values(text, values, comments={"data": ["Two classes."]}))
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
    left: dict[str, str] = {}
    for line in text.splitlines():
        if head := SECTION.fullmatch(line):
            written += _rest(written, left)
            left = dict(values.get(head[1], {}))
            written += [line, *(f"# {comment}" for comment in comments.get(head[1], ()))]
            continue
        found = LINE.fullmatch(line)
        if found and found["name"] in left:
            line = f"{found['name']} = {quote(left.pop(found['name']))}{found['comment'] or ''}"
        written.append(line)
    written += _rest(written, left)
    return "\n".join(written) + "\n"


def quote(value: str) -> str:
    """Return a string as TOML writes it.

    Examples
    --------
    >>> print(quote('a "b" \\x7f'))
    "a \\"b\\" \\u007f"
    """
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _rest(written: list[str], left: Mapping[str, str]) -> list[str]:
    """Return the lines of the settings that a section lacked, and put its blank lines behind them."""
    if not left:
        return []
    blank = []
    while written and not written[-1].strip():
        blank.append(written.pop())
    return [*(f"{name} = {quote(value)}" for name, value in left.items()), *blank]
