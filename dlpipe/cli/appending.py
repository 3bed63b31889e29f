"""`dlpipe append`: new rows for a table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click

from dlpipe.cli.printing import as_json, say
from dlpipe.errors import TableNotFound


@click.command()
@click.argument("table")
@click.argument("files", nargs=-1, required=True)
@click.option("--text-column", metavar="NAME", help="By default as in the table's last ingest.")
@click.option("--label-column", metavar="NAME", help="The files may lack it. By default as in the last ingest.")
@click.option(
    "--fold-labels/--no-fold-labels",
    default=None,
    help="Whether labels are one class that differ only in case, blanks or Unicode form. By default as before.",
)
@click.option("--separator", metavar="CHAR", help="Of CSV files: a character, or tab. By default it is found.")
@click.option("--encoding", metavar="NAME", help="Of text files, such as cp1252. By default UTF-8.")
@click.option("--new", is_flag=True, help="Make TABLE where there is none.")
@as_json
def append(table: str, files: tuple[str, ...], json_: bool, new: bool, **options: Any) -> None:
    """Add the rows of FILES to TABLE, with labels or without, and fill in labels that come later.

    \b
    Examples:
      dlpipe append reviews new.csv
      dlpipe append reviews "new/*.jsonl" --text-column text --json
      dlpipe append unlabelled new.csv --new
    """
    from dlpipe.tables import append, last_settings, locate

    if not new:
        check_exists(table)
    given = {name: value for name, value in options.items() if value not in (None, "")}
    done = append(files, table, settings=replace(last_settings(locate(table)), **given))
    counts = {
        "table": str(done.table),
        "new_rows": done.new_rows,
        "labelled_rows": done.labelled_rows,
        "filled_labels": done.filled_labels,
        "known_rows": done.known_rows,
        "bad_rows": dict(done.bad_rows),
        "notes": list(done.notes),
    }
    for note in () if json_ else done.notes:
        say(note, err=True)
    say(json.dumps(counts, indent=2) if json_ else format_append(counts))


def check_exists(table: str) -> None:
    """Raise ``TableNotFound`` where there is no such table: a mistyped name makes none."""
    from dlpipe.tables import table_at

    try:
        table_at(table)
    except TableNotFound as error:
        raise TableNotFound(f"{error} To make it, add --new.") from None


def format_append(counts: dict[str, Any]) -> str:
    """Return what an append did on one line.

    Examples
    --------
    >>> format_append({"table": "reviews@v1", "new_rows": 2, "labelled_rows": 1, "filled_labels": 0,
    ...                "known_rows": 3, "bad_rows": {"empty text": 1}})
    'reviews@v1: 2 new rows, 1 with a label; 0 labels filled in; 3 rows known; 1 bad row: empty text (1)'
    """
    bad = counts["bad_rows"]
    count = sum(bad.values())
    reasons = f": {', '.join(f'{reason} ({rows})' for reason, rows in bad.items())}" if bad else ""
    return (
        f"{counts['table']}: {counts['new_rows']:,} new rows, {counts['labelled_rows']:,} with a label; "
        f"{counts['filled_labels']:,} labels filled in; {counts['known_rows']:,} rows known; "
        f"{count} bad row{'' if count == 1 else 's'}{reasons}"
    )
