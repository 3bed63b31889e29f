"""How the commands speak: tables for a person, JSON for a program, one line for an expected failure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from dlpipe.errors import DlpipeError
from dlpipe.redaction import redact
from dlpipe.terminal import make_visible


class OneLineErrors(click.Group):
    """A group whose commands end with one line and exit code 1 when something expected goes wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DlpipeError as error:
            raise click.ClickException(redact(str(error))) from None


def say(text: object = "", *, err: bool = False) -> None:
    """Print a line, or several, with nothing in them that a terminal would obey."""
    click.echo(make_visible(str(text)), err=err)


def say_runs_elsewhere() -> None:
    """Say on stderr that Metaflow keeps the runs of this folder above it, if so."""
    from dlpipe.bridge.marks import explain_elsewhere

    if line := explain_elsewhere():
        say(line, err=True)


as_json = click.option("--json", "json_", is_flag=True, help="Print JSON for a program instead of a table.")


def say_rows(rows: Sequence[Mapping[str, Any]], *, json_: bool, nothing: str) -> None:
    """Print ``rows`` as JSON or as a table; ``nothing`` goes to stderr when there are none.

    Parameters
    ----------
    rows : Sequence[mapping
        What there is to print, a mapping a row, columns by name.
    json_ : bool
        Print JSON for a program instead of a table.
    nothing : str
        What is printed instead of an empty table.
    """
    if json_:
        say(json.dumps([dict(row) for row in rows], indent=2, default=str))
    elif rows:
        say("\n".join(format_table(rows)))
    else:
        say(nothing, err=True)


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
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]


def format_cell(value: Any, *, width: int = 60) -> str:
    """Return ``value`` as a cell of a table: short, on one line.

    Examples
    --------
    >>> format_cell(0.91234), format_cell(["challenger", "champion"]), format_cell(None)
    ('0.912', 'challenger, champion', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        value = ", ".join(map(str, value))
    text = make_visible(" ".join(str(value).split()))
    return text if len(text) <= width else f"{text[: width - 3]}..."


def format_milliseconds(timestamp: int | None) -> str:
    """Return milliseconds since 1970 as a date and time in UTC.

    Examples
    --------
    >>> format_milliseconds(0)
    '1970-01-01 00:00:00'
    """
    if timestamp is None:
        return ""
    return datetime.fromtimestamp(timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def format_iso(at: float) -> str | None:
    """Seconds since 1970 for a program; ``None`` for not yet."""
    from dlpipe.orchestrator.time_formats import format_iso

    return format_iso(at) if at else None
