"""`dlpipe lineage`: what something came of, and what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from dlpipe.cli.pages import check_page, write_page
from dlpipe.cli.printing import OneLineErrors, as_json, say, say_progress
from dlpipe.errors import SettingError
from dlpipe.time_formats import read_iso


class NodeCommands(OneLineErrors):
    """A group that takes a node where a command could stand: `dlpipe lineage reviews@v0`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the hidden command that shows a node before anything that is no other command."""
        word = next((word for word in args if not word.startswith("-")), None)
        return super().parse_args(ctx, args if word in self.commands else ["show", *args])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write it as the help of the hidden command has it: errors show it."""
        write_usage(ctx, formatter)


class NodeCommand(click.Command):
    """The command that is meant where none is named."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options; a mistake in them is that of the group, whose help tells of them."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            error.ctx = parent
            raise

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write it without its name, and the others beside it."""
        write_usage(ctx.parent or ctx, formatter)


def write_usage(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write how `dlpipe lineage` is used, by the context of the group."""
    for words in ("NODE [OPTIONS]", "check [OPTIONS]", "export [OPTIONS]"):
        formatter.write_usage(ctx.command_path, words)


@click.group(cls=NodeCommands)
def lineage() -> None:
    """Show what something came of, and what came of it; see whether records agree."""


@lineage.command(cls=NodeCommand, hidden=True)
@click.argument("node")
@click.option("--up", is_flag=True, help="Only what it came of.")
@click.option("--down", is_flag=True, help="Only what came of it.")
@click.option("--both", is_flag=True, help="Both, the default.")
@click.option("--depth", type=click.IntRange(min=1), help="At most so many steps away; by default any number.")
@click.option("--kind", "kinds", metavar="KIND,...", help="Only what leads to nodes of these kinds.")
@click.option("--at", metavar="TIME", help="As things were then: ISO 8601, in UTC unless it has a time zone.")
@click.option("--dot", is_flag=True, help="Print it for Graphviz.")
@click.option("--graphml", is_flag=True, help="Print it for network tools.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one page to this file, on which boxes can be clicked.",
)
@as_json
def show(
    node: str,
    up: bool,
    down: bool,
    both: bool,
    depth: int | None,
    kinds: str | None,
    at: str | None,
    dot: bool,
    graphml: bool,
    html: Path | None,
    json_: bool,
) -> None:
    """Show what NODE came of, and what came of it.

    NODE is written as it is called elsewhere: a file, a line of it, a version of a table, a row, a prediction, a
    version of a model, a run or a task of Metaflow, a request id.

    \b
    Examples:
      dlpipe lineage models:/reviews@champion
      dlpipe lineage reviews@v0 --down --depth 1
      dlpipe lineage data/sample/reviews.csv:17 --html lineage.html
    """
    from dlpipe.lineage import Records, format_tree, make_page, to_dot, to_graphml, to_plain, walk

    if html:
        check_page(html)
    if dot + graphml + json_ > 1:
        raise SettingError("Of --json, --dot and --graphml only one can be printed. Leave out the others.")
    wanted = read_kinds(kinds)
    records = Records(None if at is None else read_moment(at))
    say_progress(f"looking for {node} in tables, models, runs and requests")
    roots = records.find(node)
    graph = walk(
        records,
        roots,
        direction="both" if both or up == down else "up" if up else "down",
        depth=depth,
        kinds=wanted,
        on_step=lambda name: say_progress(f"looking at {name}"),
    )
    for problem in graph.problems:
        say(f"Something may be missing: {problem}", err=True)
    if html:
        write_page(html, make_page(graph))
        say(f"The page is in {html}.", err=True)
    if json_:
        say(json.dumps(to_plain(graph), indent=2))
    elif dot or graphml:
        say(to_dot(graph) if dot else to_graphml(graph))
    elif not html:
        say("\n".join(format_tree(graph)))


@lineage.command()
@as_json
def check(json_: bool) -> None:
    """See whether records agree, and list where they do not; exit code 1 if they do not.

    What a record names must be there (else it is dangling), what a record should name must be named (else it is
    missing), and MLflow must have the runs, tables and models that Metaflow and Delta have (else it differs). All
    rows of answers and all runs are read.

    \b
    Example:
      dlpipe lineage check
    """
    from dlpipe.bridge import check_datastore
    from dlpipe.lineage import Records, check_records, count_problems

    check_datastore()
    records = Records()
    records.check_something()
    found = check_records(records, on_step=lambda name: say(f"looking at {name}", err=True))
    if json_:
        say(json.dumps([vars(finding) for finding in found], indent=2))
    else:
        for finding in found:
            say(str(finding))
        say(", ".join(f"{count} {problem}" for problem, count in count_problems(found).items()))
    sys.exit(1 if found else 0)


@lineage.command()
@click.option(
    "--to",
    metavar="FILE|URL",
    default="",
    help="Who is told; by default what DLPIPE_OPENLINEAGE or OPENLINEAGE_URL names.",
)
@click.option("--again", is_flag=True, help="Tell all, with the same ids, also what was told before.")
@as_json
def export(to: str, again: bool, json_: bool) -> None:
    """Tell a catalog what is known, as events of OpenLineage.

    A file gets one event a line. A server gets them by POST at /api/v1/lineage, unless its address has a path.
    What it was told it is not told again. Exit code 1 if it does not answer or does not take an event.

    \b
    Examples:
      dlpipe lineage export --to lineage.jsonl
      dlpipe lineage export --to http://127.0.0.1:5000
    """
    from dlpipe.lineage import Records
    from dlpipe.openlineage import export_events, open_receiver

    Records().check_something()
    done = export_events(open_receiver(to), again=again, on_step=say_progress)
    if json_:
        say(json.dumps(vars(done), indent=2))
    else:
        for problem in dict.fromkeys(done.refused):
            say(problem, err=True)
        say(f"{done.receiver}: {done.sent:,} new event{'' if done.sent == 1 else 's'}")
    sys.exit(1 if done.refused else 0)


def read_kinds(given: str | None) -> tuple[str, ...]:
    """Return the kinds of nodes that are named, with commas between them."""
    from dlpipe.lineage import KINDS
    from dlpipe.settings import check_name

    names = tuple(name.strip() for name in (given or "").split(",") if name.strip())
    for name in names:
        check_name(name, [*KINDS], what="kind of node", where="Lineage")
    if given is not None and not names:
        raise SettingError(f"--kind names no kind of node. Write one of {', '.join(KINDS)}.")
    return names


def read_moment(at: str) -> int:
    """Return a time in milliseconds since 1970, to the end of the second where it names no parts of one.

    Examples
    --------
    >>> read_moment("1970-01-01"), read_moment("1970-01-01T00:00:01+00:00")
    (999, 1999)
    """
    try:
        moment = read_iso(at)
    except ValueError:
        raise SettingError(
            f"{at!r} is not a time. Pass ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00+00:00."
        ) from None
    return int(moment.timestamp() * 1000) + (0 if moment.microsecond else 999)
