"""`dlpipe tables delete`: a table, with all of its versions."""

from __future__ import annotations

import json

import click

from dlpipe.cli.dependents import confirm_deletion, find_table_dependents
from dlpipe.cli.printing import as_json, say
from dlpipe.errors import DlpipeError


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(name: str, yes: bool, json_: bool) -> None:
    """Delete a table with all of its versions.

    First it names what depends on the table: models that learnt from it, tables that were computed from it,
    deployments that name it. They stay, but a model without its table can be neither made again nor judged again.
    What is deleted cannot be restored.

    \b
    Example:
      dlpipe tables delete unlabelled --yes
    """
    from dlpipe.tables import check_deletable, delete_table

    location = check_deletable(name)
    dependents = find_table_dependents(location)
    confirm_deletion(describe_size(location), dependents, yes=yes)
    delete_table(location)
    if json_:
        say(json.dumps({"deleted": location, "dependents": [found._asdict() for found in dependents]}))
    else:
        say(f"{location} is deleted")


def describe_size(location: str) -> str:
    """Return which table is at ``location``, and how much that is; only the place where it cannot be read."""
    from dlpipe.tables import table_at

    try:
        table = table_at(location)
    except DlpipeError:
        return location
    versions = "1 version" if table.version == 0 else f"{table.version + 1:,} versions"
    return f"{location} ({versions}, {table.rows:,} rows in the latest)"
