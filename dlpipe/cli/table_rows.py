"""`dlpipe tables show` and `export`: what a table version is, its rows, and its rows in a file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import as_json, say, say_cells
from dlpipe.errors import SettingError
from dlpipe.terminal import format_table
from dlpipe.time_formats import format_iso, format_time

if TYPE_CHECKING:
    from dlpipe.lineage import Edge
    from dlpipe.tables import RowCounts, TableChange, TableVersion

MOST_VALUES = 20
"""Labels that are listed one by one; the others are summed up."""
MOST_SOURCES, MOST_COLUMNS = 5, 12
OF_ROWS = ("scored", "explained", "compared")
"""How answers, explanations and looks came of the rows of a table."""
NO_VALUE = {"label": "no label", "split": "no split"}

of_version = click.option(
    "--version", type=click.IntRange(min=0), help="Version of the table; by default the latest."
)
of_split = click.option("--split", metavar="NAME", help="Only rows of this split: train, valid or test.")
of_condition = click.option(
    "--where", metavar="CONDITION", help="Only rows of which this is true, such as \"label = 'positive'\"."
)


@click.command()
@click.argument("name")
@of_version
@click.option(
    "--rows", type=click.IntRange(0, 100_000), default=5, show_default=True, help="How many rows are printed."
)
@of_split
@of_condition
@as_json
def show(name: str, version: int | None, rows: int, split: str | None, where: str | None, json_: bool) -> None:
    """Show what a table version is, and its first rows.

    Rows are counted by split and label; it says where they come from and what changed since the version before.

    A CONDITION compares columns with values: =, !=, <, <=, >, >=, like, between, in (...), is null, and has, for a
    list of labels. These are joined by and, or, not and parentheses. Texts stand in single quotes.

    \b
    Examples:
      dlpipe tables show reviews
      dlpipe tables show reviews --version 0 --split test --rows 3
      dlpipe tables show reviews --where "label = 'negative' and text like '%music%'"
    """
    from dlpipe.tables import count_rows, find_change, history, stream_table, table_at

    found = table_at(name, version=version)
    commit = next((commit for commit in history(name) if commit["version"] == found.version), {})
    counts, change = count_rows(found), find_change(found)
    batches = stream_table(found, split=split, where=where, batch_rows=max(rows, 1))
    first = next(batches, None) if rows else None
    if json_:
        from dlpipe.tables import to_plain, to_records

        shown = to_records(first) if first is not None else []
        say(json.dumps(to_plain({**describe(found, commit, counts, change), "first_rows": shown}), indent=2))
        return
    say("\n".join(format_facts(found, commit, change)))
    if counts is not None:
        say("\n" + "\n".join(format_counts(counts)))
    if rows:
        say_first_rows([] if first is None else first.to_pylist(), where=join_filters(split, where))


def join_filters(split: str | None, where: str | None) -> str:
    """Return which rows were asked for, as a sentence goes on."""
    return "".join([f" of the {split} split" if split else "", f" where {where}" if where else ""])


def say_first_rows(rows: Sequence[Mapping[str, Any]], *, where: str) -> None:
    """Print rows in the width of the terminal, the longest columns last."""
    if not rows:
        say(f"\nNo row{where}.", err=True)
        return
    say(f"\n{'The first row' if len(rows) == 1 else f'The first {len(rows)} rows'}{where}:\n")
    say_cells(rows)


def describe(
    found: TableVersion, commit: Mapping[str, Any], counts: RowCounts | None, change: TableChange | None
) -> dict[str, Any]:
    """Return what there is to say of a table version for a program.

    Parameters
    ----------
    found : TableVersion
    commit : mapping
        What its commit records, as ``dlpipe.tables.history`` has it.
    counts : RowCounts or None
        Its rows by split and label.
    change : TableChange or None
        What it changed.
    """
    return {
        "table": found.name,
        "version": found.version,
        "path": found.path,
        "rows": found.rows,
        "written": format_iso(found.timestamp // 1000),
        "digest": found.digest,
        "columns": dict(found.columns),
        "operation": commit.get("operation", ""),
        "task": commit.get("task"),
        "sources": commit.get("sources", []),
        "key": commit.get("key"),
        "made_by": commit.get("made_by"),
        "changed": vars(change) if change else None,
        "counts": [] if counts is None else list(describe_counts(counts)),
    }


def describe_counts(counts: RowCounts) -> Iterator[dict[str, Any]]:
    """Yield how many rows have a label in a split, for each pair; only the rows where labels are numbers."""
    for at, rows in counts.rows.items():
        group = {counts.group: at} if counts.group else {}
        for value, count in counts.counts[at].items():
            yield {**group, counts.value: value, "rows": count}
        if not counts.counts[at]:
            yield {**group, "rows": rows}


def format_facts(found: TableVersion, commit: Mapping[str, Any], change: TableChange | None) -> Iterator[str]:
    """Yield lines on what a table version is.

    Parameters
    ----------
    found, commit, change
        As for ``describe``.
    """
    facts = {
        str(found): f"{found.rows:,} rows, written {format_time(found.timestamp // 1000)}",
        "path": found.path,
        "task": commit.get("task", ""),
        "columns": join_some([f"{name} {kind}" for name, kind in found.columns], MOST_COLUMNS),
        "digest": found.digest,
        **{name: join_some(origins, MOST_SOURCES) for name, origins in find_origins(found, commit).items()},
    }
    if change is not None:
        facts[f"since v{change.since}"] = format_change(change)
    width = max(map(len, facts))
    yield from (f"{name:{width}}  {value}" for name, value in facts.items() if value)


def find_origins(version: TableVersion, commit: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a table version came of, as lineage has it: ``from`` what its rows are, and ``made by`` whom.

    Parameters
    ----------
    version : TableVersion
    commit : mapping
        As for ``describe``; where lineage has nothing of its rows, the key is what is known.
    """
    from dlpipe.lineage import Records

    records = Records()
    node = records.tables.find_node(version.path, version.version)
    edges = [*records.tables.find_origins(node), *records.answers.find_origins(node)]
    sources = [name_source(edge) for edge in edges if edge.how == "ingested from"]
    rows = [str(edge.origin) for edge in edges if edge.how in OF_ROWS and edge.origin.kind != "model"]
    models = [str(edge.origin) for edge in edges if edge.origin.kind == "model"]
    answers = " by ".join(", ".join(names) for names in (rows, models) if names)
    known = [f"{name.replace('_', ' ')} {value}" for name, value in (commit.get("key") or {}).items()]
    return {
        "from": [*sources, *([answers] if answers else [])] or known,
        "made by": [str(edge.origin) for edge in edges if edge.how == "made by"],
    }


def name_source(edge: Edge) -> str:
    """Return a file or a table that was ingested, with the split that it was."""
    from dlpipe.redaction import show_address

    name = show_address(edge.origin.name) if edge.origin.kind == "file" else str(edge.origin)
    return f"{name} ({edge.note})" if edge.note else name


def join_some(words: Sequence[str], most: int) -> str:
    """Return words with commas between them; of many the first ones and how many more there are.

    Examples
    --------
    >>> join_some(["a", "b", "c"], 2), join_some(["a", "b"], 2)
    ('a, b, 1 more', 'a, b')
    """
    shown = list(words[:most])
    return ", ".join([*shown, f"{len(words) - most:,} more"] if len(words) > most else shown)


def format_change(change: TableChange) -> str:
    """Return what a commit changed.

    Examples
    --------
    >>> from dlpipe.tables import TableChange
    >>> format_change(TableChange(0, added=1200, gone=0, relabelled=3)), format_change(TableChange(0, 0, 0))
    ('1,200 rows added, 3 labels changed', 'the same rows')
    """
    parts = {"row| added": change.added, "row| gone": change.gone, "label| changed": change.relabelled}
    parts["row| in another split"] = change.moved
    words = (f"{count:,} {what.replace('|', '' if count == 1 else 's')}" for what, count in parts.items() if count)
    return ", ".join(words) or "the same rows"


def format_counts(counts: RowCounts) -> list[str]:
    """Return a table of rows by label and split; of many labels the most frequent."""
    groups = sort_groups(counts.rows)
    totals = {value: sum(found.get(value, 0) for found in counts.counts.values()) for value in list_values(counts)}
    ranked = sorted(totals, key=lambda value: (value is None, -totals[value], str(value)))
    shown = ranked[:MOST_VALUES]
    rows = [make_count_row(counts, groups, [value], name_value(value, counts.value)) for value in shown]
    if rest := ranked[MOST_VALUES:]:
        rows.append(make_count_row(counts, groups, rest, f"{len(rest)} more"))
    every = {counts.value: "rows", **{name_value(at, counts.group): f"{counts.rows[at]:,}" for at in groups}}
    rows.append({**every, "all": f"{sum(counts.rows.values()):,}"} if counts.group else {**every})
    return format_table(rows)


def list_values(counts: RowCounts) -> list[str | None]:
    """Return every value that is counted, each once."""
    return list(dict.fromkeys(itertools.chain.from_iterable(counts.counts.values())))


def make_count_row(
    counts: RowCounts, groups: Sequence[str | None], values: Sequence[str | None], name: str
) -> dict[str, str]:
    """Return how many rows of each group have one of ``values``, as a row of a table."""
    found = [sum(counts.counts[at].get(value, 0) for value in values) for at in groups]
    row = {
        counts.value: name,
        **{name_value(at, counts.group): f"{n:,}" for at, n in zip(groups, found, strict=True)},
    }
    return {**row, "all": f"{sum(found):,}"} if counts.group else row


def sort_groups(rows: Mapping[str | None, int]) -> list[str | None]:
    """Return splits in their order, and what is no split behind them.

    Examples
    --------
    >>> sort_groups({"test": 1, None: 2, "train": 5})
    ['train', 'test', None]
    """
    order = {"train": 0, "valid": 1, "test": 2}
    return sorted(rows, key=lambda group: (group is None, order.get(str(group), 9), str(group)))


def name_value(value: str | None, column: str) -> str:
    """Return what a label or a split is called; a missing one, too."""
    if not column:
        return "rows"
    return NO_VALUE.get(column, "null") if value is None else value


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@of_version
@of_split
@of_condition
@click.option("--columns", metavar="NAME,...", help="Only these columns, in this order; by default all.")
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@as_json
def export(
    name: str,
    file: Path,
    version: int | None,
    split: str | None,
    where: str | None,
    columns: str | None,
    overwrite: bool,
    json_: bool,
) -> None:
    """Write rows of a table to a file: .csv, .jsonl or .parquet.

    FILE gets its name when it is whole: an export that is killed leaves none. It can be ingested or appended
    again. In a CSV, a missing value is an empty cell, and a list is JSON. For CONDITION see `dlpipe tables show
    --help`.

    \b
    Examples:
      dlpipe tables export reviews reviews.csv
      dlpipe tables export reviews bad.jsonl --split test --where "label = 'negative'" --columns text,label
    """
    from dlpipe.tables import check_row_file, table_at

    check_row_file(file, overwrite=overwrite)
    found = table_at(name, version=version)
    names = None if columns is None else [column.strip() for column in columns.split(",") if column.strip()]
    if names == []:
        raise SettingError("--columns names none. Name columns with commas between them, such as text,label.")
    rows = export_rows(found, file, split=split, where=where, columns=names, overwrite=overwrite)
    if json_:
        say(json.dumps({"table": str(found), "file": str(file), "rows": rows}))
    else:
        say(f"{found}: {rows:,} row{'' if rows == 1 else 's'} in {file}")


def export_rows(
    version: TableVersion,
    file: Path,
    *,
    split: str | None = None,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    overwrite: bool = False,
) -> int:
    """Write rows of a table version to a file, batch by batch, and return how many.

    Parameters
    ----------
    version : TableVersion
    file : Path
        Its ending says what it is.
    split, where, columns
        As for ``dlpipe.tables.stream_table``.
    overwrite : bool
        Whether a file that is there is replaced.
    """
    from dlpipe.tables import read_table_schema, stream_table, write_row_file

    schema = read_table_schema(version, columns=columns)
    batches = stream_table(version, split=split, where=where, columns=columns)
    with write_row_file(file, schema, overwrite=overwrite) as writer:
        for batch in batches:
            writer.write(batch)
    return writer.rows
