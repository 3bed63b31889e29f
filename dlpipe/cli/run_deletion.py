"""`dlpipe runs delete`: a run in Metaflow and MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from dlpipe.cli.dependents import confirm_deletion, find_run_dependents
from dlpipe.cli.printing import as_json, say
from dlpipe.errors import RunActive, RunNotFound


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(runs: Sequence[str], yes: bool, json_: bool) -> None:
    """Delete runs from Metaflow's folder here, with their files there or on S3, and from MLflow.

    RUN is FLOW/ID, or the id of a Metaflow run alone; `dlpipe runs --local` lists them.

    First it names what depends on them, and stays: models that they registered, tables that these computed, runs
    that resumed them, deployments whose history they are in. In MLflow a deleted run can be restored until
    `mlflow gc`; in Metaflow it cannot.

    \b
    Example:
      dlpipe runs delete TrainFlow/1795494849196362
    """
    from dlpipe.bridge.deletion import delete_run, find_deletable

    found = list(dict.fromkeys(map(find_deletable, runs)))
    for run in found:
        check_not_scheduled(run)
    dependents = list(dict.fromkeys(use for run in found for use in find_run_dependents(run)))
    dependents = [use for use in dependents if use.what != "run" or use.name not in found]
    confirm_deletion(", ".join(found), dependents, yes=yes, many=len(found) > 1)
    done = [delete_run(run) for run in found]
    if json_:
        facts = {"deleted": [vars(run) for run in done], "dependents": [use._asdict() for use in dependents]}
        say(json.dumps(facts, indent=2))
        return
    for gone in done:
        count = gone.mlflow_runs
        say(f"{gone.run} is deleted" + (f"; its {count} runs in MLflow can be restored" if count else ""))


def check_not_scheduled(run: str) -> None:
    """Raise ``RunActive`` where the scheduler still works on a run, or will resume it."""
    from dlpipe.cli.scheduler_state import open_state
    from dlpipe.orchestrator.runs import OPEN
    from dlpipe.orchestrator.state import has_state

    if not has_state():
        return
    with open_state() as state:
        try:
            scheduled = state.find_run(run)
        except RunNotFound:
            return
    if scheduled.status in OPEN:
        raise RunActive(
            f"{run} is run {scheduled.number} of {scheduled.deployment}, which is {scheduled.status}. Stop it "
            f"first: dlpipe runs terminate {scheduled.number}."
        )
