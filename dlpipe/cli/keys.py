"""`dlpipe keys`: who may ask a server."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from dlpipe.cli.printing import OneLineErrors, as_json, say, say_rows, spell_for_json
from dlpipe.errors import DlpipeError

file_option = click.option(
    "--file", metavar="FILE", help="The file of keys.  [default: keys.json in the state folder]"
)


@click.group(cls=OneLineErrors)
def keys() -> None:
    """Make, list and revoke the keys of a server.

    A server that is running sees a change within two seconds.

    \b
    Examples:
      dlpipe keys create shop --model reviews --rate 20/s
      dlpipe keys list
      dlpipe keys revoke shop
    """


@keys.command()
@click.argument("name")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="Only this model; may be repeated.")
@click.option(
    "--right",
    "rights",
    multiple=True,
    metavar="RIGHT",
    help="predict, explain, feedback or admin; may be repeated.  [default: predict, explain, feedback]",
)
@click.option("--rate", metavar="RATE", default="", help="Requests at most, such as 10/s, 100/m or 1000/h.")
@click.option("--quota", type=click.IntRange(min=1), metavar="ROWS", help="Rows a day at most.")
@click.option(
    "--zone", metavar="ZONE", default="UTC", show_default=True, help="The time zone whose midnight begins a day."
)
@click.option("--ends", metavar="DAY", default="", help="The last day, or a moment in ISO 8601.")
@file_option
@as_json
def create(
    name: str,
    models: tuple[str, ...],
    rights: tuple[str, ...],
    rate: str,
    quota: int | None,
    zone: str,
    ends: str,
    file: str | None,
    json_: bool,
) -> None:
    """Make a key, and print it: it is shown this once.

    \b
    Examples:
      dlpipe keys create shop --model reviews --rate 20/s
      dlpipe keys create report --right predict --quota 100000 --zone Europe/Berlin --ends 2099-12-31
    """
    from dlpipe.serving.key_file import RIGHTS, create_key, describe_key, find_key_file

    if models:
        _warn_of_unknown(models)
    path = find_key_file(file or "")
    key, shown = create_key(
        path,
        name,
        models=models,
        rights=rights or RIGHTS[:3],
        rate=rate,
        quota=quota or 0,
        zone=zone,
        ends=ends,
    )
    if json_:
        say(json.dumps({**describe_key(key, time.time()), "key": shown}, indent=2, default=spell_for_json))
        return
    say(f"This is the only time that the key is shown; its id is {key.id}.", err=True)
    say(shown)


def _warn_of_unknown(models: tuple[str, ...]) -> None:
    """Say which models are not registered: a key may be made before its model, and a name may be misspelt."""
    from dlpipe.registry import list_aliases

    try:
        registered = list_aliases()
    except DlpipeError as error:
        say(f"Whether {', '.join(models)} is registered could not be looked up: {error}", err=True)
        return
    if unknown := [model for model in models if model not in registered]:
        names = ", ".join(sorted(registered)) or "none yet"
        say(f"No model {', '.join(map(repr, unknown))} is registered; there are: {names}.", err=True)


@keys.command("list")
@file_option
@as_json
def list_(file: str | None, json_: bool) -> None:
    """List keys, those included that have ended or been revoked.

    \b
    Example:
      dlpipe keys list
    """
    from dlpipe.serving.key_file import describe_key, find_key_file, read_keys

    now = time.time()
    rows: list[dict[str, Any]] = [describe_key(key, now) for key in read_keys(find_key_file(file or "")).values()]
    say_rows(rows, json_=json_, nothing="There are no keys. Make one: dlpipe keys create NAME")


@keys.command()
@click.argument("key")
@file_option
def revoke(key: str, file: str | None) -> None:
    """Revoke a key by its id or its name; servers refuse it within two seconds.

    \b
    Example:
      dlpipe keys revoke shop
    """
    from dlpipe.serving.key_file import find_key_file, revoke_key

    revoked = revoke_key(find_key_file(file or ""), key)
    say(f"The key {revoked.name} ({revoked.id}) is revoked.")
