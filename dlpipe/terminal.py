r"""Text on a terminal: how wide it is, tables of it, and text from elsewhere made safe to print.

A terminal obeys what an exception, a tag or an event's name says: an escape sequence can change the title, the
clipboard and what was printed before; a bidirectional mark can show words in another order. All of these are
shown as Python writes them, such as ``\x1b`` and ``\u202e``.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from dlpipe.time_formats import format_moment

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and new line, with those of eight bits
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\u2028\u2029\ufeff\U000e0000-\U000e007f"  # separators of lines; what is shown as nothing
    "\ud800-\udfff]"  # halves of pairs, which no terminal takes
)
COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def is_utf8(text: str) -> bool:
    r"""Return whether what was typed is UTF-8; Python has half a pair for each byte that is none.

    Examples
    --------
    >>> is_utf8("caf\u00e9"), is_utf8("caf\udce9")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_visible(text: str) -> str:
    r"""Return ``text`` with nothing in it that a terminal would obey.

    Examples
    --------
    >>> print(make_visible("title \x1b]0;owned\x07, order \u202egnp.exe"))
    title \x1b]0;owned\x07, order \u202egnp.exe
    """
    return UNSAFE.sub(lambda found: _escape(found[0]), text)


def lose_unwritable(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return ``say`` for what goes on without a reader: a line that nobody can be told costs nothing else.

    Standard error may be a file on a full disk, a pipe that nobody reads any more, or closed.

    Examples
    --------
    >>> def fail(line: str) -> None:
    ...     raise OSError("No space left on device")
    >>> lose_unwritable(fail)("The registry answers again.")
    """

    def tell(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            say(line)

    return tell


def measure_width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes: two for a sign of Chinese, none for an accent.

    Examples
    --------
    >>> measure_width("film"), measure_width("映画"), measure_width("cafe\\u0301")
    (4, 4, 4)
    """
    return len(text) if text.isascii() else sum(map(_measure_character, text))


def cut_to_width(text: str, width: int) -> str:
    """Return ``text`` cut to so many columns of a terminal, with three dots where it was longer.

    Examples
    --------
    >>> cut_to_width("a good film", 8), cut_to_width("映画が好き", 8), cut_to_width("good", 8)
    ('a goo...', '映画...', 'good')
    """
    if measure_width(text) <= width:
        return text
    left = width - 3
    for place, character in enumerate(text):
        left -= _measure_character(character)
        if left < 0:
            return f"{text[:place]}..."[: max(width, 0)]
    return text


def pad_to_width(text: str, width: int) -> str:
    """Return ``text`` with blanks behind it up to so many columns of a terminal."""
    return text + " " * (width - measure_width(text))


def format_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return ``rows`` as lines of aligned columns under their names.

    Examples
    --------
    >>> for line in format_table([{"model": "reviews", "aliases": ["champion"], "accuracy": 0.91}]):
    ...     print(line)
    model    aliases   accuracy
    reviews  champion  0.910
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([format_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(measure_width, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(pad_to_width, line, widths)).rstrip() for line in cells]


def format_cell(value: Any, *, width: int = 60) -> str:
    """Return ``value`` as a cell of a table: short, on one line.

    Examples
    --------
    >>> format_cell(0.91234), format_cell(["challenger", "champion"]), format_cell(None)
    ('0.912', 'challenger, champion', '')
    """
    if value is None:
        return ""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return format_moment(value)
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        value = ", ".join(map(str, value))
    return cut_to_width(make_visible(" ".join(str(value).split())), width)


def is_right_to_left(text: str) -> bool:
    """Return whether a terminal may show a part of ``text`` from right to left, as Hebrew is written."""
    return not text.isascii() and any(unicodedata.bidirectional(sign) in ("R", "AL", "AN") for sign in text)


def _measure_character(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def make_log_visible(text: str) -> str:
    r"""Return a log's ``text`` with colours, and with nothing else that a terminal would obey.

    A line that was drawn again and again, as progress bars are, becomes a line each time.

    Examples
    --------
    >>> make_log_visible("\x1b[31mred\x1b[0m \x1b[2J10%\r20%\r\n")
    '\x1b[31mred\x1b[0m \\x1b[2J10%\n20%\n'
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(part if COLOUR.fullmatch(part) else make_visible(part) for part in COLOUR.split(lines))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
