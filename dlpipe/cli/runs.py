"""`dlpipe runs`: what the scheduler has run, runs and will run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.printing import OneLineErrors, as_json, format_iso, say, say_rows
from dlpipe.cli.scheduler_state import describe_state, open_state
from dlpipe.errors import SettingError
from dlpipe.terminal import format_table

if TYPE_CHECKING:
    from dlpipe.orchestrator.overview import RunView
    from dlpipe.orchestrator.runs import RunAttempt
    from dlpipe.orchestrator.state import State

LIMIT = 20
WATCH_SECONDS = 1.0
SOON = "as soon as there is room"
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


@click.group(cls=OneLineErrors, invoke_without_command=True)
@click.option("--deployment", help="Only runs of this deployment.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=LIMIT, show_default=True, help="How many are listed."
)
@click.option(
    "--local",
    is_flag=True,
    help="List the runs in this folder's Metaflow datastore instead, also those started by hand.",
)
@click.option("--watch", is_flag=True, help="Keep showing what changes, until Ctrl-C.")
@click.option("--rounds", type=click.IntRange(min=1), help="With --watch: end after this many looks.")
@as_json
@click.pass_context
def runs(
    context: click.Context,
    deployment: str | None,
    limit: int,
    local: bool,
    watch: bool,
    rounds: int | None,
    json_: bool,
) -> None:
    """List the runs of deployments, the newest first.

    A run that failed is listed with the step, the reason and the command that resumes it.

    \b
    Examples:
      dlpipe runs
      dlpipe runs --watch --rounds 2
      dlpipe runs --local
    """
    if context.invoked_subcommand is not None:
        return
    if rounds is not None and not watch:
        raise SettingError("--rounds counts the looks of --watch: add --watch, or leave out --rounds.")
    if local and (unused := [name for name, value in (("deployment", deployment), ("watch", watch)) if value]):
        raise SettingError(
            f"--local lists the runs of this folder, whoever started them: leave out --{unused[0]}."
        )
    if local:
        from dlpipe.cli.local_runs import print_local_runs

        return print_local_runs(limit, json_=json_)
    with open_state() as state:
        if deployment is not None:
            state.list_versions(deployment)  # it may be deleted, but must have been there
        if watch:
            with suppress(KeyboardInterrupt):
                watch_runs(state, deployment, limit, rounds, json_=json_)
        else:
            print_runs(view_runs(state, deployment, limit), json_=json_)


def view_runs(state: State, deployment: str | None, limit: int) -> list[RunView]:
    """The newest runs as people see them.

    Parameters
    ----------
    state : State
        It is only read.
    deployment : str or None
        Only runs of one; ``None`` for all.
    limit : int
        At most so many, the newest.
    """
    from dlpipe.orchestrator.overview import view_run

    return [view_run(state, run) for run in state.list_runs(deployment=deployment, limit=limit)]


def print_runs(shown: Sequence[RunView], *, json_: bool) -> None:
    """Print runs."""
    if json_:
        say_rows([describe_run(view) for view in shown], json_=True, nothing="")
    elif shown:
        say("\n".join(format_runs(shown)))
    else:
        say(explain_no_runs(), err=True)


def explain_no_runs() -> str:
    """Return that no deployment has run, and where that is known from."""
    return f"Nothing has run here yet {describe_state()} Runs started by hand: dlpipe runs --local."


def format_runs(shown: Sequence[RunView]) -> Iterator[str]:
    """Yield a table of runs; below each that is unwell what is wrong and what helps."""
    from dlpipe.time_formats import format_span, format_time

    now = time.time()
    rows = [
        {
            "run": view.run.number,
            "deployment": view.run.deployment,
            "status": f"{view.run.status}, suspended" if view.run.suspended else view.run.status,
            "due": format_time(view.run.due // 1),
            "took": "" if (took := view.took(now)) is None else format_span(took),
            "cause": view.run.cause,
        }
        for view in shown
    ]
    head, *lines = format_table(rows)
    yield head
    for line, view in zip(lines, shown, strict=True):
        yield line
        where = f"{view.step}: " if view.step else ""
        if view.why:
            yield f"    {where}{view.why}"
        if view.run.status == "waiting":
            yield f"    next attempt: {format_time(at // 1) if (at := view.run.not_before) else SOON}"
        if view.resume:
            yield f"    resume: {view.resume}"


def describe_run(view: RunView) -> dict[str, Any]:
    """A run for a program."""
    from dlpipe.redaction import show_value

    run = view.run
    return {
        "run": run.number,
        "deployment": run.deployment,
        "version": run.version,
        "status": run.status,
        "suspended": run.suspended,
        "cause": run.cause,
        "due": format_iso(run.due),
        "started": format_iso(view.started),
        "ended": format_iso(view.ended),
        "deadline": format_iso(run.deadline),
        "next_attempt": format_iso(run.not_before) if run.status == "waiting" else None,
        "step": view.step,
        "why": view.why,
        "resume": view.resume,
        "parameters": {name: show_value(name, value) for name, value in run.parameters.items()},
        "events": [event.name for event in run.events],
        "attempts": [describe_attempt(attempt) for attempt in run.attempts],
    }


def describe_attempt(attempt: RunAttempt) -> dict[str, Any]:
    """An attempt for a program."""
    from dlpipe.orchestrator.attempt_files import find_log, find_mlflow_run

    return {
        "attempt": attempt.number,
        "outcome": attempt.outcome or "running",
        "metaflow_run": attempt.metaflow_run,
        "origin": attempt.origin,
        "started": format_iso(attempt.started),
        "ended": format_iso(attempt.ended),
        "exit_code": attempt.exit_code,
        "step": attempt.step,
        "reason": attempt.reason,
        "log": str(find_log(attempt)),
        "mlflow": find_mlflow_run(attempt),
    }


def watch_runs(state: State, deployment: str | None, limit: int, rounds: int | None, *, json_: bool) -> None:
    """Show runs again and again: the table on a terminal, elsewhere what changed.

    Parameters
    ----------
    state : State
        It is only read.
    deployment : str or None
        Only runs of one; ``None`` for all.
    limit : int
        At most so many, the newest.
    rounds : int or None
        End after so many looks; ``None`` for never.
    json_ : bool
        Print JSON for a program, an object a line.
    """
    known: dict[int, Any] = {}
    screen = sys.stdout.isatty() and not json_
    for look in range(rounds or sys.maxsize):
        if look:
            time.sleep(WATCH_SECONDS)
        shown = view_runs(state, deployment, limit)
        if screen:
            show_screen(format_runs(shown) if shown else [explain_no_runs()])
            continue
        changed = [view for view in reversed(shown) if known.get(view.run.number) != view.run]
        known.update({view.run.number: view.run for view in changed})
        for view in changed:
            say(json.dumps(describe_run(view), default=str) if json_ else format_change(view))


def show_screen(lines: Iterable[str]) -> None:
    """Show ``lines`` instead of what the terminal showed."""
    from dlpipe.terminal import make_visible

    sys.stdout.write(CLEAR + make_visible("\n".join(lines)) + "\n")
    sys.stdout.flush()


def format_change(view: RunView) -> str:
    """What a run is doing now, in one line."""
    why = f": {view.step + ': ' if view.step else ''}{view.why}" if view.why else ""
    resume = f"; resume: {view.resume}" if view.resume else ""
    return f"run {view.run.number} of {view.run.deployment} {view.run.status}{why}{resume}"
