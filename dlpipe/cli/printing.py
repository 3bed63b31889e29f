"""How the commands speak: tables for a person, JSON for a program, one line for an expected failure."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import click

from dlpipe.errors import DlpipeError
from dlpipe.redaction import redact
from dlpipe.terminal import (
    cut_to_width,
    format_table,
    is_right_to_left,
    make_log_visible,
    make_visible,
    measure_width,
    pad_to_width,
)

WIDE, NARROWEST = 24, 12
"""Columns of a terminal: cells of a table that are wider come last, and none is cut to less."""
LONGEST_VALUE, ROW_ID = 2000, 12
"""Characters of a value, and of the id of a row, that are printed."""
LEFT_TO_RIGHT = "\u200e"
"""A mark that nobody sees: what follows a text from the right to the left stays to the right of it."""


class OneLineErrors(click.Group):
    """A group whose commands end with one line and exit code 1 when something expected goes wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DlpipeError as error:
            raise click.ClickException(redact(str(error))) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its first sentence, which click would cut."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(limit=500))
            for name, command in found
            if command and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line, or several, with nothing in them that a terminal would obey."""
    click.echo(make_visible(str(text)), err=err)


def say_progress(text: str) -> None:
    """Print a line on stderr of what takes a while, where a person looks at it."""
    if sys.stderr.isatty():
        say(text, err=True)


def say_in_colour(text: str) -> None:
    """Print lines with their colours, on a terminal and unless NO_COLOR is set; other marks are made visible.

    What is coloured must be made visible before: a colour of its own would go through.
    """
    # of a pipe or a file, click takes colours away
    click.echo(make_log_visible(text), color=False if os.environ.get("NO_COLOR") else None)


def say_runs_elsewhere() -> None:
    """Say on stderr that Metaflow keeps the runs of this folder above it, if so."""
    from dlpipe.bridge.marks import explain_elsewhere

    if line := explain_elsewhere():
        say(line, err=True)


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON, for a program.")


def say_rows(rows: Sequence[Mapping[str, Any]], *, json_: bool, nothing: str) -> None:
    """Print ``rows`` as JSON or as a table; ``nothing`` goes to stderr when there are none.

    Parameters
    ----------
    rows : Sequence[mapping
        What there is to print, a mapping a row, columns by name.
    json_ : bool
        Print JSON, for a program.
    nothing : str
        What is printed instead of an empty table.
    """
    if json_:
        say(json.dumps([dict(row) for row in rows], indent=2, default=spell_for_json))
    elif rows:
        say("\n".join(format_table(rows)))
    else:
        say(nothing, err=True)


def say_cells(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of any table in the width of the terminal, columns that are cut last.

    A row with more columns than fit is a block of lines.
    """
    for line in lay_out_rows(rows, shutil.get_terminal_size((100, 24)).columns):
        # made visible cell by cell: between two cells stand marks that keep right-to-left texts in their places
        click.echo(line)


def lay_out_rows(rows: Sequence[Mapping[str, Any]], width: int) -> list[str]:
    """Return rows as lines of at most ``width`` columns of a terminal.

    Examples
    --------
    >>> rows = [{"text": "a film that nobody has seen", "label": None}, {"text": "", "label": "bad"}]
    >>> print("\\n".join(lay_out_rows(rows, 24)))
    label  text
    null   a film that no...
    bad    ''
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: [format_value(row.get(name), name) for row in rows] for name in names}
    natural = {name: max(map(measure_width, [make_visible(name), *cells[name]])) for name in names}
    if sum(min(natural[name], NARROWEST) + 2 for name in names) > width + 2:
        return _lay_out_blocks(rows, cells, width)
    names.sort(key=lambda name: natural[name] > WIDE)  # a stable sort: the others stay in their order
    widths = _fit_widths(natural, width - 2 * (len(names) - 1))
    lines = [{name: make_visible(name) for name in names}]
    lines += [dict(zip(names, line, strict=True)) for line in zip(*(cells[name] for name in names), strict=True)]
    return [
        "".join(
            f"{pad_to_width(cut, widths[name])}{LEFT_TO_RIGHT if is_right_to_left(cut) else ''}  "
            for name in names
            if (cut := cut_to_width(line[name], widths[name])) is not None
        ).rstrip()
        for line in lines
    ]


def _lay_out_blocks(rows: Sequence[Mapping[str, Any]], cells: Mapping[str, list[str]], width: int) -> list[str]:
    """Return each row as a line for each of its columns."""
    first = min(max(map(measure_width, cells)), width // 3)
    lines = []
    for place in range(len(rows)):
        lines += [""] if place else []
        for name, column in cells.items():
            value = cut_to_width(column[place], max(width - first - 2, NARROWEST))
            lines.append(f"{pad_to_width(cut_to_width(make_visible(name), first), first)}  {value}")
    return lines


def _fit_widths(natural: Mapping[str, int], width: int) -> dict[str, int]:
    """Return widths of columns that fit together: the widest give way first, and get the same."""
    left, widths = width, {}
    for place, name in enumerate(sorted(natural, key=lambda name: natural[name])):
        widths[name] = min(natural[name], max(left // (len(natural) - place), NARROWEST))
        left -= widths[name]
    return widths


def format_value(value: Any, column: str = "") -> str:
    """Return a value of a table as one line: bytes, missing values and empty texts can be told from words.

    Examples
    --------
    >>> format_value(None), format_value(""), format_value(b"\\x89PNG"), format_value(["a", "b"])
    ('null', "''", '4 bytes: 89504e47', '[a, b]')
    """
    if value is None or value == "":
        return "null" if value is None else "''"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes: {value[:16].hex()}{'...' if len(value) > 16 else ''}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(format_value(part) for part in value)}]"
    text = str(value)[:LONGEST_VALUE]  # of a book, the rest would only be cut off
    return make_visible(" ".join((text[:ROW_ID] if column == "row_id" else text).split())) or "' '"


def spell_for_json(value: Any) -> str:
    """Return what JSON has no form for as a text: a moment as ISO 8601.

    Examples
    --------
    >>> spell_for_json(datetime.fromisoformat("2026-11-27T05:30:12Z"))
    '2026-11-27T05:30:12+00:00'
    """
    return value.isoformat() if isinstance(value, datetime) else str(value)


def format_iso(at: float) -> str | None:
    """Seconds since 1970 for a program; ``None`` for not yet."""
    from dlpipe.time_formats import format_iso

    return format_iso(at) if at else None
