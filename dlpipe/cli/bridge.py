"""`dlpipe bridge`: Metaflow runs in MLflow."""

from __future__ import annotations

import json
import sys
from contextlib import suppress

import click

from dlpipe.cli.saying import OneLineErrors, as_json, said_time, say, say_rows


@click.group(cls=OneLineErrors)
def bridge() -> None:
    """Mirror Metaflow runs into MLflow, and compare the two.

    \b
    Example:
      dlpipe bridge sync TrainFlow
    """


@bridge.command()
@click.argument("pathspec", default="", metavar="[FLOW[/RUN]]")
@as_json
def sync(pathspec: str, json_: bool) -> None:
    """Write what MLflow lacks of a run, of all runs of a flow, or of all flows; again and again if you like.

    \b
    Examples:
      dlpipe bridge sync
      dlpipe bridge sync TrainFlow
      dlpipe bridge sync TrainFlow/1795494849196362
    """
    from dlpipe.bridge import Synced, check_datastore, sync

    def tell(done: Synced) -> None:
        say(f"{done.run}: {done.records} records, {done.written} differences written", err=True)

    check_datastore()
    rows = [vars(done) for done in sync(pathspec, on_run=say)]
    say_rows(rows, json_=json_, nothing="Metaflow has no runs here.")


@bridge.command()
@click.argument("pathspec", metavar="FLOW[/RUN]")
@as_json
def check(pathspec: str, json_: bool) -> None:
    """Compare MLflow with Metaflow, record by record; list every difference, exit code 1 if there is one.

    \b
    Examples:
      dlpipe bridge check TrainFlow/1795494849196362
      dlpipe bridge check TrainFlow --json
    """
    from dlpipe.bridge import check, check_datastore

    check_datastore()
    found = check(pathspec)
    if json_:
        say_rows([vars(difference) for difference in found], json_=True, nothing="")
    else:
        for difference in found:
            say(str(difference))
        say(f"{len(found)} difference{'' if len(found) == 1 else 's'}")
    sys.exit(1 if found else 0)


@bridge.command()
@as_json
def status(json_: bool) -> None:
    """List the runs that MLflow may be behind with, and why; `sync` catches up.

    \b
    Example:
      dlpipe bridge status
    """
    from dlpipe.bridge import status

    rows = [{"run": one.run, "since": said_time(one.since), "reason": one.reason} for one in status()]
    say_rows(rows, json_=json_, nothing="MLflow is behind with no run here.")


@bridge.command()
@click.option("--interval", type=click.FloatRange(0.1, 86400), default=5.0, show_default=True, help="Seconds.")
@click.option("--rounds", type=click.IntRange(min=1), help="End after so many looks; by default never.")
@as_json
def watch(interval: float, rounds: int | None, json_: bool) -> None:
    """Follow all flows of the datastore until Ctrl-C: for a server, where nobody attaches the bridge to each run.

    \b
    Example:
      dlpipe bridge watch --interval 10 --rounds 1
    """
    from dlpipe.bridge import Synced, watch

    def tell(done: Synced) -> None:
        line = f"{done.run} {done.status.lower()}: {done.written} differences written"
        say(json.dumps(vars(done)) if json_ else line)

    with suppress(KeyboardInterrupt):
        watch(interval=interval, on_run=tell, on_error=lambda line: say(line, err=True), rounds=rounds)
