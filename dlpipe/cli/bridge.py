"""`dlpipe bridge`: Metaflow runs in MLflow."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from dlpipe.cli.printing import OneLineErrors, as_json, say, say_rows, say_runs_elsewhere
from dlpipe.terminal import lose_unwritable
from dlpipe.time_formats import to_moment


@click.group(cls=OneLineErrors)
def bridge() -> None:
    """Mirror Metaflow runs into MLflow, and compare the two.

    \b
    Example:
      dlpipe bridge sync TrainFlow
    """
    say_runs_elsewhere()


@bridge.command()
@click.argument("pathspec", default="", metavar="[FLOW[/RUN]]")
@click.option("--restore", is_flag=True, help="Bring back runs that somebody has deleted in MLflow.")
@as_json
def sync(pathspec: str, restore: bool, json_: bool) -> None:
    """Write to MLflow what it lacks of Metaflow's runs.

    Of one run, of all runs of a flow, or without FLOW of all flows. It may be repeated: nothing is written twice.

    The page of each version of a model then says which files taught it, and what it was used for so far.

    Runs that somebody has deleted in MLflow stay deleted, unless `--restore` asks for them.

    \b
    Examples:
      dlpipe bridge sync
      dlpipe bridge sync TrainFlow
      dlpipe bridge sync TrainFlow/1795494849196362
      dlpipe bridge sync --restore TrainFlow/1795494849196362
    """
    from dlpipe.bridge import SyncResult, check_datastore, sync
    from dlpipe.lineage import Records, renew_pages

    def tell(done: SyncResult) -> None:
        left = f", {done.deleted} left out as deleted in MLflow" if done.deleted else ""
        say(f"{done.run}: {done.records} records, {done.written} differences written{left}", err=True)

    check_datastore()
    say_shared_runs()
    rows = [vars(done) for done in sync(pathspec, restore=restore, on_run=tell)]
    if changed := renew_pages(Records()):
        say(f"{changed} page{'' if changed == 1 else 's'} of model versions brought up to date", err=True)
    say_rows(
        rows, json_=json_, nothing=f"Metaflow has no runs in {os.getcwd()!r}. Stand in the folder of the project."
    )


@bridge.command()
@click.argument("pathspec", metavar="FLOW[/RUN]")
@as_json
def check(pathspec: str, json_: bool) -> None:
    """Compare MLflow with Metaflow, and list the differences.

    It compares record by record, and ends with exit code 1 if there is a difference.

    \b
    Examples:
      dlpipe bridge check TrainFlow/1795494849196362
      dlpipe bridge check TrainFlow --json
    """
    from dlpipe.bridge import check, check_datastore

    check_datastore()
    say_shared_runs()
    deleted: list[str] = []
    found = check(pathspec, on_deleted=deleted.append)
    if deleted:
        records = f"{len(deleted)} record{'' if len(deleted) == 1 else 's'}, such as {deleted[-1]},"
        say(
            f"{records} are left out: deleted in MLflow; `dlpipe bridge sync --restore` brings them back.",
            err=True,
        )
    if json_:
        say_rows([vars(difference) for difference in found], json_=True, nothing="")
    else:
        for difference in found:
            say(str(difference))
        say(f"{len(found)} difference{'' if len(found) == 1 else 's'}")
    sys.exit(1 if found else 0)


@bridge.command()
@click.argument("pathspec", metavar="FLOW/RUN")
@as_json
def where(pathspec: str, json_: bool) -> None:
    """Print where a Metaflow run is in MLflow.

    That is the ids of its MLflow runs, and their addresses where MLflow is a server.

    \b
    Example:
      dlpipe bridge where TrainFlow/1795494849196362
    """
    from dlpipe.bridge import where

    place = where(pathspec)
    rows = (
        [{"record": pathspec, "run_id": place["run_id"], "address": place.get("address", "")}]
        if place.get("run_id")
        else []
    )
    rows += [{"record": key, "run_id": own, "address": ""} for key, own in place.get("attempts", {}).items()]
    say_rows(
        rows, json_=json_, nothing=f"MLflow has {pathspec} not yet; `dlpipe bridge sync {pathspec}` writes it."
    )


@bridge.command()
@as_json
def status(json_: bool) -> None:
    """List the runs that MLflow may lack parts of, and why.

    `dlpipe bridge sync` catches up.

    \b
    Example:
      dlpipe bridge status
    """
    from dlpipe.bridge import status

    rows = [{"run": behind.run, "since": to_moment(behind.since), "reason": behind.reason} for behind in status()]
    say_rows(rows, json_=json_, nothing="MLflow is behind with no run here.")


@bridge.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 86400),
    default=5.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="End after this many looks; by default never.")
@as_json
def watch(interval: float, rounds: int | None, json_: bool) -> None:
    """Mirror all flows of the datastore as they run, until Ctrl-C.

    For a server, where nobody attaches the bridge to each run.

    \b
    Example:
      dlpipe bridge watch --interval 10 --rounds 1
    """
    from dlpipe.bridge import SyncResult, watch

    def tell(done: SyncResult) -> None:
        line = f"{done.run} {done.status.lower()}: {done.written} differences written"
        say(json.dumps(vars(done)) if json_ else line)

    with suppress(KeyboardInterrupt):
        watch(interval=interval, on_run=tell, on_error=lose_unwritable(partial(say, err=True)), rounds=rounds)


def say_shared_runs() -> None:
    """Say where the runs are when that is a folder above, whose runs other projects share, and MLflow is here."""
    from dlpipe.bridge.marks import find_state_root

    root = find_state_root()
    if (
        root.is_dir()
        and root.parent.resolve() != Path.cwd().resolve()
        and not os.environ.get("MLFLOW_TRACKING_URI")
    ):
        say(
            f"The runs are those in {root}, of all projects below it; MLflow is mlflow.db in this folder.",
            err=True,
        )
