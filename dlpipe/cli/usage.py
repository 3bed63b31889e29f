"""`dlpipe usage`: how much was asked of served models."""

from __future__ import annotations

import csv
import io
from typing import Any

import click

from dlpipe.cli.printing import as_json, say, say_rows
from dlpipe.errors import SettingError


@click.command()
@click.option(
    "--by",
    default="model",
    show_default=True,
    metavar="GROUPS",
    help="By what it is summed: some of key, model, version and day, separated by commas.",
)
@click.option("--since", metavar="DAY", help="From this day on, in UTC.")
@click.option("--until", metavar="DAY", help="Up to this day.")
@click.option("--csv", "csv_", is_flag=True, help="Print CSV for a program instead of a table.")
@as_json
def usage(by: str, since: str | None, until: str | None, csv_: bool, json_: bool) -> None:
    """Show how much was asked of served models.

    Calls, rows, tokens (about) and seconds of all requests, and of them those that got an error.

    \b
    Examples:
      dlpipe usage
      dlpipe usage --by key,model,day --since 2026-01-31 --csv
    """
    from dlpipe.serving.logged import check_day
    from dlpipe.serving.usage import sum_usage
    from dlpipe.tables import tables_root

    if csv_ and json_:
        raise SettingError("--csv and --json are two forms: pass one of them.")
    groups = [name.strip() for name in by.split(",") if name.strip()]
    first, last = (check_day(day) if day else "" for day in (since, until))
    rows: list[dict[str, Any]] = [one.describe() for one in sum_usage(groups, since=first, until=last)]
    if not csv_:
        days = " on these days" if first or last else ""
        nothing = (
            f"Nothing has been asked of a served model{days} (looked in {tables_root()!r}). Stand in the folder "
            "of the project, or name its tables in DLPIPE_TABLES."
        )
        say_rows(rows, json_=json_, nothing=nothing)
        return
    names = [*groups, "calls", "rows", "tokens", "seconds", "errors", "error_seconds"]
    written = io.StringIO()
    writer = csv.DictWriter(written, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    say(written.getvalue().rstrip("\n"))
