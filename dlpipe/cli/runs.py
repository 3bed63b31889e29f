"""`dlpipe runs`, `logs` and `deployments`: what the scheduler did and does."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from dlpipe.cli.saying import OneLineErrors, as_json, say, say_rows, say_runs_elsewhere, table_lines
from dlpipe.errors import RunNotFound

if TYPE_CHECKING:
    from dlpipe.orchestrator.overview import DeploymentSeen, RunSeen
    from dlpipe.orchestrator.runs import Attempt
    from dlpipe.orchestrator.state import State

LIMIT = 20
INTERVAL = 1.0
SOON = "as soon as there is room"
CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def opened() -> closing[State]:
    """The state of this machine's scheduler, to be closed."""
    from dlpipe.orchestrator.state import State

    return closing(State.open())


# -- runs --------------------------------------------------------------------------------------------------------


@click.group(cls=OneLineErrors, invoke_without_command=True)
@click.option("--deployment", help="Only those of one deployment.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="So many, the newest.")
@click.option("--local", is_flag=True, help="Instead, runs of the Metaflow datastore here, made by hand or not.")
@click.option("--watch", is_flag=True, help="Go on showing what changes until Ctrl-C.")
@click.option("--rounds", type=click.IntRange(min=1), help="With --watch: end after so many looks.")
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
    """List runs, the newest first; for one that failed the step, why, and the command that resumes it.

    \b
    Examples:
      dlpipe runs
      dlpipe runs --watch --rounds 2
      dlpipe runs --local
    """
    if context.invoked_subcommand is not None:
        return
    if local:
        return say_local(limit, json_=json_)
    with opened() as state:
        if deployment is not None:
            state.versions(deployment)  # it may be deleted, but must have been there
        if watch:
            with suppress(KeyboardInterrupt):
                watch_runs(state, deployment, limit, rounds, json_=json_)
        else:
            say_runs(seen_runs(state, deployment, limit), json_=json_)


def seen_runs(state: State, deployment: str | None, limit: int) -> list[RunSeen]:
    """The newest runs as people see them."""
    from dlpipe.orchestrator.overview import seen_in

    return [seen_in(state, run) for run in state.runs(deployment=deployment, limit=limit)]


def say_runs(shown: Sequence[RunSeen], *, json_: bool) -> None:
    """Print runs."""
    if json_:
        say_rows([run_row(one) for one in shown], json_=True, nothing="")
    elif shown:
        say("\n".join(run_lines(shown)))
    else:
        say("Nothing has run here yet.", err=True)


def run_lines(shown: Sequence[RunSeen]) -> Iterator[str]:
    """Yield a table of runs; below each that is unwell what is wrong and what helps."""
    from dlpipe.orchestrator.overview import said_span, said_time

    now = time.time()
    rows = [
        {
            "run": one.run.number,
            "deployment": one.run.deployment,
            "status": f"{one.run.status}, suspended" if one.run.suspended else one.run.status,
            "due": said_time(one.run.due // 1),
            "took": "" if (took := one.took(now)) is None else said_span(took),
            "cause": one.run.cause,
        }
        for one in shown
    ]
    head, *lines = table_lines(rows)
    yield head
    for line, one in zip(lines, shown, strict=True):
        yield line
        where = f"{one.step}: " if one.step else ""
        if one.why:
            yield f"    {where}{one.why}"
        if one.run.status == "waiting":
            yield f"    next attempt: {said_time(at // 1) if (at := one.run.not_before) else SOON}"
        if one.resume:
            yield f"    resume: {one.resume}"


def run_row(seen: RunSeen) -> dict[str, Any]:
    """A run for a program."""
    from dlpipe.redaction import show_value

    run = seen.run
    return {
        "run": run.number,
        "deployment": run.deployment,
        "version": run.version,
        "status": run.status,
        "suspended": run.suspended,
        "cause": run.cause,
        "due": iso(run.due),
        "started": iso(seen.started),
        "ended": iso(seen.ended),
        "deadline": iso(run.deadline),
        "next_attempt": iso(run.not_before) if run.status == "waiting" else None,
        "step": seen.step,
        "why": seen.why,
        "resume": seen.resume,
        "parameters": {name: show_value(name, value) for name, value in run.parameters.items()},
        "events": [event.name for event in run.events],
        "attempts": [attempt_row(one) for one in run.attempts],
    }


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """An attempt for a program."""
    from dlpipe.orchestrator.overview import log_of, mlflow_of

    return {
        "attempt": attempt.number,
        "outcome": attempt.outcome or "running",
        "metaflow_run": attempt.metaflow_run,
        "origin": attempt.origin,
        "started": iso(attempt.started),
        "ended": iso(attempt.ended),
        "exit_code": attempt.exit_code,
        "step": attempt.step,
        "reason": attempt.reason,
        "log": str(log_of(attempt)),
        "mlflow": mlflow_of(attempt),
    }


def iso(at: float) -> str | None:
    """Seconds since 1970 for a program; ``None`` for not yet."""
    from dlpipe.orchestrator.alerts import iso

    return iso(at) if at else None


def watch_runs(state: State, deployment: str | None, limit: int, rounds: int | None, *, json_: bool) -> None:
    """Show runs again and again: the table on a terminal, elsewhere what changed."""
    known: dict[int, Any] = {}
    screen = sys.stdout.isatty() and not json_
    for look in range(rounds or sys.maxsize):
        if look:
            time.sleep(INTERVAL)
        shown = seen_runs(state, deployment, limit)
        if screen:
            show_screen(run_lines(shown) if shown else ["Nothing has run here yet."])
            continue
        changed = [one for one in reversed(shown) if known.get(one.run.number) != one.run]
        known.update({one.run.number: one.run for one in changed})
        for one in changed:
            say(json.dumps(run_row(one), default=str) if json_ else change_line(one))


def show_screen(lines: Iterable[str]) -> None:
    """Show ``lines`` instead of what the terminal showed."""
    from dlpipe.terminal import visible

    sys.stdout.write(CLEAR + visible("\n".join(lines)) + "\n")
    sys.stdout.flush()


def change_line(seen: RunSeen) -> str:
    """What a run is doing now, in one line."""
    why = f": {seen.step + ': ' if seen.step else ''}{seen.why}" if seen.why else ""
    resume = f"; resume: {seen.resume}" if seen.resume else ""
    return f"run {seen.run.number} of {seen.run.deployment} {seen.run.status}{why}{resume}"


def say_whether_somebody_works() -> None:
    """Say on stderr that no scheduler is there to do it, if so."""
    from dlpipe.orchestrator.presence import running_scheduler
    from dlpipe.orchestrator.state import state_folder

    if running_scheduler(state_folder()) is None:
        say("No scheduler is running; it is done when `dlpipe scheduler` is.", err=True)


# -- runs of the datastore here ----------------------------------------------------------------------------------


def say_local(limit: int, *, json_: bool) -> None:
    """Print the newest runs that Metaflow has here, whoever made them."""
    from dlpipe.cli.local_runs import local_runs

    say_runs_elsewhere()
    rows = [vars(one) for one in local_runs(limit)]
    if json_ or not rows:
        say_rows(rows, json_=json_, nothing="Metaflow has no runs here.")
        return
    head, *lines = table_lines([{key: row[key] for key in ("run", "status", "began", "step")} for row in rows])
    say(head)
    for line, row in zip(lines, rows, strict=True):
        say(line)
        for name in ("why", "resume"):
            if row[name]:
                say(f"    {name + ': ' if name == 'resume' else ''}{row[name]}")


# -- logs --------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("run")
@click.option("--attempt", type=click.IntRange(min=0), help="Which one; by default the last.")
@click.option("--follow", is_flag=True, help="Go on printing until the run ends, over all its attempts.")
def logs(run: str, attempt: int | None, follow: bool) -> None:
    """Print what a RUN said: its number, or the id of its Metaflow run.

    \b
    Examples:
      dlpipe logs 1
      dlpipe logs 1 --attempt 0
    """
    with opened() as state:
        found = state.find_run(run)
        if follow:
            with suppress(KeyboardInterrupt):
                follow_logs(state, found.number, first=attempt)
            return
        if not found.attempts:
            raise RunNotFound(f"Run {found.number} of {found.deployment} is {found.status} and has said nothing.")
        copy_log(attempt_of(found.attempts, found.number, attempt))


def attempt_of(attempts: Sequence[Attempt], run: int, number: int | None) -> Attempt:
    """The attempt ``number``, by default the last."""
    if number is None:
        return attempts[-1]
    if number >= len(attempts):
        last = len(attempts) - 1
        raise RunNotFound(f"Run {run} has no attempt {number}; its attempts are 0 to {last}.")
    return attempts[number]


def copy_log(attempt: Attempt, start: int = 0) -> int:
    """Print an attempt's log from byte ``start`` on, as ``visible_log`` has it; return where it ends now."""
    from codecs import getincrementaldecoder

    from dlpipe.orchestrator.overview import log_of
    from dlpipe.terminal import visible_log

    decoder = getincrementaldecoder("utf-8")(errors="replace")
    try:
        with log_of(attempt).open("rb") as file:
            file.seek(start)
            while chunk := file.read(1 << 16):
                sys.stdout.buffer.write(visible_log(decoder.decode(chunk)).encode())
            sys.stdout.buffer.flush()
            return file.tell() - len(decoder.getstate()[0])  # a character of which half is written comes later
    except FileNotFoundError:
        return start


def follow_logs(state: State, number: int, *, first: int | None) -> None:
    """Print the logs of a run as they grow, each attempt after the other, until it ends."""
    from dlpipe.orchestrator.runs import OPEN

    run = state.run(number)
    at = max(len(run.attempts) - 1, 0) if first is None else first
    place = 0
    while True:
        run = state.run(number)  # before the log is read: what is written after its end is nothing
        for attempt in run.attempts[at:]:
            if attempt.number > at:
                say(f"-- attempt {attempt.number}, resumes {attempt.origin or 'nothing'} --", err=True)
                at, place = attempt.number, 0
            place = copy_log(attempt, place)
        if run.status not in OPEN:
            say(change_line(seen(state, number)), err=True)
            return
        time.sleep(INTERVAL / 4)


def seen(state: State, number: int) -> RunSeen:
    """One run as people see it."""
    from dlpipe.orchestrator.overview import seen_in

    return seen_in(state, state.run(number))


# -- deployments -------------------------------------------------------------------------------------------------


@click.command()
@as_json
def deployments(json_: bool) -> None:
    """List what is deployed on this machine: schedule, next due time, triggers and last run.

    \b
    Examples:
      dlpipe deployments
      dlpipe deployments --json
    """
    from dlpipe.orchestrator.overview import deployments_seen

    with opened() as state:
        shown = deployments_seen(state, time.time())
    row = deployment_row if json_ else deployment_cells
    say_rows(
        [row(one) for one in shown],
        json_=json_,
        nothing="Nothing is deployed here: `python FLOW.py local-scheduler create` does it.",
    )


def deployment_cells(one: DeploymentSeen) -> dict[str, Any]:
    """A deployment for a person."""
    last = one.last_run
    return {
        "deployment": one.deployment.name,
        "version": one.deployment.version.number,
        "schedule": one.schedule,
        "next due": "suspended" if one.deployment.suspended else one.due,
        "starts after": one.triggers,
        **({"waits for": ", ".join(one.half.lacks)} if one.half else {}),
        "last run": f"{last.number} {last.status}" if last else "",
    }


def deployment_row(one: DeploymentSeen) -> dict[str, Any]:
    """A deployment for a program."""
    version = one.deployment.version
    return {
        "deployment": one.deployment.name,
        "flow": version.flow,
        "version": version.number,
        "created": iso(version.created),
        "cron": version.schedule.cron if version.schedule else None,
        "timezone": (version.schedule.timezone or "UTC") if version.schedule else None,
        "next_due": iso(one.next_due) if one.next_due is not None else None,
        "events": [needed.name for needed in version.trigger.needed] if version.trigger else [],
        "held": {name: iso(event.at) for name, event in one.half.came.items()} if one.half else {},
        "suspended": one.deployment.suspended,
        "last_run": {"run": one.last_run.number, "status": one.last_run.status} if one.last_run else None,
        "code": version.code,
    }
