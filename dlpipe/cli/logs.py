"""`dlpipe logs`: what a run's launcher and tasks printed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from dlpipe.cli.printing import say
from dlpipe.cli.runs import format_change
from dlpipe.cli.scheduler_state import open_state
from dlpipe.errors import RunNotFound

if TYPE_CHECKING:
    from dlpipe.orchestrator.runs import RunAttempt
    from dlpipe.orchestrator.state import State

FOLLOW_SECONDS = 0.25
"""How soon a followed log shows what was written."""


@click.command()
@click.argument("run")
@click.option("--attempt", type=click.IntRange(min=0), help="Number of the attempt, from 0; by default the last.")
@click.option("--follow", is_flag=True, help="Keep printing until the run ends, through all its attempts.")
def logs(run: str, attempt: int | None, follow: bool) -> None:
    """Print the log of a deployment's run.

    RUN is its number in `dlpipe runs`, or the id of its Metaflow run.

    \b
    Examples:
      dlpipe logs 1
      dlpipe logs 1 --attempt 0
    """
    with open_state() as state:
        found = state.find_run(run)
        if follow:
            with suppress(KeyboardInterrupt):
                follow_logs(state, found.number, first=attempt)
            return
        if not found.attempts:
            raise RunNotFound(f"Run {found.number} of {found.deployment} is {found.status} and has said nothing.")
        copy_log(pick_attempt(found.attempts, found.number, attempt))


def pick_attempt(attempts: Sequence[RunAttempt], run: int, number: int | None) -> RunAttempt:
    """The attempt ``number``, by default the last.

    Parameters
    ----------
    attempts : sequence of RunAttempt
        Of the run, in order; at least one.
    run : int
        Its number, for the error.
    number : int or None
        From 0; ``None`` for the last.
    """
    if number is None:
        return attempts[-1]
    if number >= len(attempts):
        last = len(attempts) - 1
        raise RunNotFound(f"Run {run} has no attempt {number}; its attempts are 0 to {last}.")
    return attempts[number]


def copy_log(attempt: RunAttempt, start: int = 0) -> int:
    """Print an attempt's log from byte ``start`` on, as ``make_log_visible`` has it; return where it ends now."""
    from codecs import getincrementaldecoder

    from dlpipe.orchestrator.attempt_files import find_log
    from dlpipe.terminal import make_log_visible

    decoder = getincrementaldecoder("utf-8")(errors="replace")
    try:
        with find_log(attempt).open("rb") as file:
            file.seek(start)
            while chunk := file.read(1 << 16):
                sys.stdout.buffer.write(make_log_visible(decoder.decode(chunk)).encode())
            sys.stdout.buffer.flush()
            return file.tell() - len(decoder.getstate()[0])  # a character of which half is written comes later
    except FileNotFoundError:
        return start


def follow_logs(state: State, number: int, *, first: int | None) -> None:
    """Print the logs of a run as they grow, each attempt after the other, until it ends.

    Parameters
    ----------
    state : State
        It is only read.
    number : int
        Of the run.
    first : int or None
        The attempt to begin with; ``None`` for the last.
    """
    from dlpipe.orchestrator.overview import view_run
    from dlpipe.orchestrator.runs import OPEN

    run = state.get_run(number)
    at = max(len(run.attempts) - 1, 0) if first is None else first
    place = 0
    while True:
        run = state.get_run(number)  # before the log is read: what is written after its end is nothing
        for attempt in run.attempts[at:]:
            if attempt.number > at:
                say(f"-- attempt {attempt.number}, resumes {attempt.origin or 'nothing'} --", err=True)
                at, place = attempt.number, 0
            place = copy_log(attempt, place)
        if run.status not in OPEN:
            say(format_change(view_run(state, state.get_run(number))), err=True)
            return
        time.sleep(FOLLOW_SECONDS)
