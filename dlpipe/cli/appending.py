"""`dlpipe append`: new rows for a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, say
from dlpipe.errors import SettingError, TableNotFound

if TYPE_CHECKING:
    from dlpipe.tables import TableSettings

COLUMN_OPTIONS = ("text_column", "label_column")


@click.command()
@click.argument("table")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--text-column", metavar="NAME", help="The column with the text; by default that of the table's last ingest."
)
@click.option(
    "--label-column",
    metavar="NAME",
    help="The column with the label, which the files may lack; by default that of the last ingest.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="COLUMN=NAME",
    help="The name that a column of the table has in the files; may be repeated.",
)
@click.option(
    "--fold-labels/--no-fold-labels",
    default=None,
    help="Take labels that differ only in case, blanks or Unicode form as one class; by default as before.",
)
@click.option(
    "--separator", metavar="CHAR", help="Separator of CSV files: a character, or tab; by default it is found."
)
@click.option("--encoding", metavar="NAME", help="Encoding of text files, such as cp1252; by default UTF-8.")
@click.option("--new", is_flag=True, help="Make TABLE if it does not exist.")
@click.option(
    "--task", metavar="NAME", help="With --new: the task that the rows are for.  [default: text-classification]"
)
@as_json
def append(
    table: str,
    files: tuple[str, ...],
    json_: bool,
    new: bool,
    task: str | None,
    columns: tuple[str, ...],
    **options: Any,
) -> None:
    """Add the rows of files to a table.

    Rows may have no label yet: appended again with one, the row gets it. Rows that TABLE has are not added twice.

    \b
    Examples:
      dlpipe append reviews new.csv
      dlpipe append reviews "new/*.jsonl" --text-column text --json
      dlpipe append unlabelled new.csv --new
    """
    from dlpipe.tables import append

    given = {name: value for name, value in options.items() if value not in (None, "")}
    settings = choose_settings(table, new=new, task=task, given=given, columns=dict(map(read_pair, columns)))
    done = append(files, table, settings=settings)
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


def choose_settings(
    table: str, *, new: bool, task: str | None, given: Mapping[str, Any], columns: Mapping[str, str]
) -> TableSettings:
    """Return the settings of an append: those of the table's last ingest, or of a task for a new table.

    Parameters
    ----------
    new : bool
        Whether the table may be made; without it, a mistyped name makes none.
    task : str or None
        Of a new table.
    given : mapping
        Settings that were given by options.
    columns : mapping
        What the files call columns of the table.
    """
    from dlpipe.tables import FormSettings, locate, read_last_settings
    from dlpipe.task import DEFAULT_TASK, find_task

    named = {name.removesuffix("_column"): value for name, value in given.items() if name in COLUMN_OPTIONS}
    others = {name: value for name, value in given.items() if name not in COLUMN_OPTIONS}
    try:
        settings = read_last_settings(locate(table))
    except TableNotFound as error:
        if not new:
            raise TableNotFound(f"{error} To make it, add --new.") from None
        first = find_task(task or DEFAULT_TASK).data()
        settings = FormSettings(rows=first.form, task_name=first.task)
    form = settings.form.rename_sources({**named, **columns})
    return replace(settings, **others, rows=form)


def read_pair(written: str) -> tuple[str, str]:
    """Return the two names in ``COLUMN=NAME``.

    Examples
    --------
    >>> read_pair("other=question 2")
    ('other', 'question 2')
    """
    column, _, name = written.partition("=")
    if not column or not name:
        raise SettingError(f"--column {written!r} is refused: write COLUMN=NAME, such as --column text=body.")
    return column, name


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
