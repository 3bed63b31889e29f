"""`dlpipe compare`: runs and model versions beside each other."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dlpipe.cli.pages import check_page, write_page
from dlpipe.cli.printing import as_json, say
from dlpipe.terminal import format_table, make_visible

WIDTH = 100
NARROWEST = 9


@click.command()
@click.argument("things", nargs=-1, metavar="RUN RUN...")
@click.option(
    "--table", metavar="TABLE", help="Table to compare models on; by default the one that both learnt from."
)
@click.option("--version", type=click.IntRange(min=0), help="Version of the table; by default the later one.")
@click.option(
    "--split",
    type=click.Choice(["test", "valid", "train", "all"]),
    default="test",
    show_default=True,
    help="Rows of the table to compare models on.",
)
@click.option(
    "--rows",
    type=click.IntRange(0, 10_000),
    default=0,
    show_default=True,
    help="List so many rows that only one of two models has right, for each of the two; a page has at least 20.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one page to this file, with learning curves over each other.",
)
@as_json
def compare(
    things: tuple[str, ...],
    table: str | None,
    version: int | None,
    split: str,
    rows: int,
    html: Path | None,
    json_: bool,
) -> None:
    """Compare runs and model versions.

    RUN is a run of Metaflow (TrainFlow/1795494849196362, or its number alone) or a version of a model (reviews/3,
    reviews@champion). All are compared with the first one: settings that differ, rows added and gone, lines of
    code, scores, and on the same rows how much better one model is than the other, with its 95 % interval.

    \b
    Examples:
      dlpipe compare reviews/1 films/1 --table reviews --rows 3
      dlpipe compare reviews@champion films/1 --table reviews --html comparison.html
      dlpipe compare TrainFlow/1795494849196362 films/1 --json
    """
    from dlpipe.bridge import check_datastore
    from dlpipe.comparing import ComparedRows, make_page, make_sections, summarize, to_plain
    from dlpipe.comparing import compare as compare_sides

    if html:
        check_page(html)
    check_datastore()
    found = compare_sides(things, ComparedRows(table, version, split, shown=max(rows, 20)))
    if html:
        write_page(html, make_page(found))
    if json_:
        say(json.dumps({"summary": summarize(found), **to_plain(found)}, indent=2))
        return
    for line in summarize(found):
        say_wrapped(f"{line}.")
    for section in make_sections(found, rows=rows):
        say(f"\n{section.title}")
        if section.rows:
            say("\n".join(format_table(fit_columns(section.rows))))
        for note in section.notes:
            say_wrapped(note)
    if html:
        say(f"\nThe page is in {html}.", err=True)


def say_wrapped(text: str) -> None:
    """Print a sentence in lines that are not too long."""
    say(textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False))


def fit_columns(rows: Sequence[Mapping[str, Any]], width: int = WIDTH) -> list[dict[str, str]]:
    """Return rows whose table is no wider than ``width`` where that can be: the widest cells are cut.

    Examples
    --------
    >>> fit_columns([{"label": "good", "row": "a film of many words"}], width=20)
    [{'label': 'good', 'row': 'a film of...'}]
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[make_visible(" ".join(str(row.get(name, "")).split())) for name in names] for row in rows]
    widths = [max(len(name), *(len(line[at]) for line in cells)) for at, name in enumerate(names)]
    while sum(widths) + 2 * (len(names) - 1) > width and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    # names of models differ at their ends, in the version
    heads = [cut_middle(name, widths[at]) for at, name in enumerate(names)]
    return [{head: cut(line[at], widths[at]) for at, head in enumerate(heads)} for line in cells]


def cut_middle(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters, with its beginning and its end.

    Examples
    --------
    >>> cut_middle("reviews-of-films v12", 12), cut_middle("reviews v1", 12)
    ('revi...s v12', 'reviews v1')
    """
    if len(text) <= width:
        return text
    end = (width - 3) // 2 + 1
    return f"{text[: width - 3 - end]}...{text[-end:]}"


def cut(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters."""
    return text if len(text) <= width else f"{text[: width - 3]}..."
