"""`dlpipe append`: new rows for a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, say
from dlpipe.errors import SettingError, TableNotFound

if TYPE_CHECKING:
    from dlpipe.tables import FormSettings, TableSettings

RENAMING = ("text_column", "label_column")
"""Options that say what files call a column of any table."""
COLUMN_OPTIONS = (*RENAMING, "text_pair_column", "number_columns", "category_columns", "label_columns")
"""Options that name the columns of a new table."""
LABEL_OPTIONS = ("label_column", "label_columns")


@click.command()
@click.argument("table")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "--text-column", metavar="NAME", help="The column with the text; by default that of the table's last ingest."
)
@click.option(
    "--label-column",
    metavar="NAME",
    help="The column with the label, which each file must have then; by default that of the last ingest, if it is "
    "there.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="COLUMN=NAME",
    help="The name that a column of the table has in the files; may be repeated.",
)
@click.option(
    "--fold-labels",
    type=bool,
    metavar="true|false",
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
@click.option("--text-pair-column", metavar="NAME", help="With --new: the column with the second text of a pair.")
@click.option("--number-columns", metavar="NAMES", help="With --new: columns with numbers, separated by commas.")
@click.option(
    "--category-columns", metavar="NAMES", help="With --new: columns with categories, separated by commas."
)
@click.option(
    "--label-columns",
    metavar="NAMES",
    help="With --new: columns of 0 and 1, one for each label, separated by commas.",
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
    Columns are called as in the table's last ingest, or as in the table itself, unless an option says otherwise.

    \b
    Examples:
      dlpipe append reviews new.csv
      dlpipe append reviews "new/*.jsonl" --text-column text --json
      dlpipe append unlabelled new.csv --new
      dlpipe append wines wines.csv --new --task tabular-classification --number-columns alcohol,hue
    """
    from dlpipe.tables import append

    given = {name: value for name, value in options.items() if value not in (None, "")}
    renamed = dict(map(read_pair, columns))
    settings = choose_settings(table, new=new, task=task, given=given, columns=renamed)
    named = {
        *renamed,
        *(name.removesuffix("s").removesuffix("_column") for name in given if name in COLUMN_OPTIONS),
    }
    done = append(files, table, settings=settings, labelled="label" in named, named=named)
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
    from dlpipe.tables import locate, read_last_settings

    named = {name: value for name, value in given.items() if name in COLUMN_OPTIONS}
    others = {name: value for name, value in given.items() if name not in COLUMN_OPTIONS}
    try:
        settings = read_last_settings(locate(table))
    except TableNotFound as error:
        if not new:
            raise TableNotFound(f"{error} To make it, add --new.") from None
        settings, renamed = make_new_settings(task, named), columns
    else:
        check_options_fit(table, settings.task, task, named)
        renamed = {**{name.removesuffix("_column"): value for name, value in named.items()}, **columns}
    return replace(settings, **others, rows=settings.form.rename_sources(renamed))


def make_new_settings(task: str | None, named: Mapping[str, str]) -> FormSettings:
    """Return the settings of a new table: those of a task, with the columns that options name."""
    from dlpipe.settings import read_settings
    from dlpipe.tables import FormSettings
    from dlpipe.task import DEFAULT_TASK, find_task
    from dlpipe.task.columns import to_option
    from dlpipe.task.options import check_options

    cls = find_task(task or DEFAULT_TASK).data
    check_options(task or DEFAULT_TASK, named)
    columns = {name: value.split(",") if name.endswith("_columns") else value for name, value in named.items()}
    first = read_settings(cls, columns, where="--new")
    try:
        form = first.form
    except SettingError:
        known = [field.name for field in fields(cls) if field.name in {*COLUMN_OPTIONS} - {*LABEL_OPTIONS}]
        raise SettingError(
            f"Rows of the task {task!r} have columns of your choice. Name them with "
            f"{' or '.join(map(to_option, known))}, such as {to_option(known[0])} NAME."
        ) from None
    return FormSettings(rows=form.forget_settings(), task_name=first.task)


def check_options_fit(table: str, made_for: str, task: str | None, named: Mapping[str, str]) -> None:
    """Raise ``SettingError`` for options that only a new table takes, where the table is there.

    Parameters
    ----------
    table : str
    made_for : str
        The task that its rows are for; empty where nobody says.
    task : str or None
        The one that was asked for.
    named : mapping
        Options that name columns.
    """
    from dlpipe.task.columns import to_option

    if task not in (None, made_for):
        raise SettingError(
            f"The table {table!r} is there already, with rows for {made_for or 'no task'}: leave out --task, or "
            "name a new table."
        )
    for name in named:
        if name not in RENAMING:
            raise SettingError(
                f"The table {table!r} is there already and has its columns: leave out {to_option(name)}, and say "
                "with --column COLUMN=NAME what the files call one of them."
            )


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
