"""`dlpipe lineage`: what something came of, and what came of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

import click

from dlpipe.cli.printing import as_json, say
from dlpipe.errors import SettingError


@click.command()
@click.argument("node")
@click.option("--up", "direction", flag_value="up", help="Only what it came of.")
@click.option("--down", "direction", flag_value="down", help="Only what came of it.")
@click.option("--both", "direction", flag_value="both", default="both", help="Both, the default.")
@click.option("--depth", type=click.IntRange(min=1), help="At most so many steps away; by default any number.")
@click.option("--kind", "kinds", metavar="KIND,...", help="Only what leads to nodes of these kinds.")
@click.option("--at", metavar="TIME", help="As things were then: ISO 8601, in UTC unless it has a time zone.")
@as_json
def lineage(
    node: str,
    direction: Literal["up", "down", "both"],
    depth: int | None,
    kinds: str | None,
    at: str | None,
    json_: bool,
) -> None:
    """Show what NODE came of, and what came of it.

    NODE is written as it is called elsewhere: a file, a line of it, a version of a table, a row, a prediction, a
    version of a model, a run or a task of Metaflow, a request id.

    \b
    Examples:
      dlpipe lineage models:/reviews@champion
      dlpipe lineage reviews@v0 --down --depth 1
    """
    from dlpipe.lineage import Records, format_tree, to_plain, walk

    records = Records(None if at is None else read_moment(at))
    graph = walk(
        records,
        records.find(node),
        direction=direction,
        depth=depth,
        kinds=read_kinds(kinds),
    )
    say(json.dumps(to_plain(graph), indent=2) if json_ else "\n".join(format_tree(graph)))


def read_kinds(given: str | None) -> tuple[str, ...]:
    """Return the kinds of nodes that are named, with commas between them."""
    from dlpipe.lineage import KINDS
    from dlpipe.settings import check_name

    names = tuple(name.strip() for name in (given or "").split(",") if name.strip())
    for name in names:
        check_name(name, [*KINDS], what="kind of node", where="Lineage")
    return names


def read_moment(at: str) -> int:
    """Return a time in milliseconds since 1970, to the end of the second where it names no parts of one.

    Examples
    --------
    >>> read_moment("1970-01-01"), read_moment("1970-01-01T00:00:01+00:00")
    (999, 1999)
    """
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise SettingError(
            f"{at!r} is not a time. Pass ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00+00:00."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000) + (0 if moment.microsecond else 999)
