"""The process beside a live run that tells a receiver of it: ``python -m dlpipe.openlineage.follow FLOW/RUN``.

The launcher of a bridged run starts it where ``DLPIPE_OPENLINEAGE`` names a receiver. It asks nothing of the run,
nor of the process that mirrors it to MLflow: it reads what Metaflow, Delta and the registry have. When its input
ends, the launcher has ended or was killed: it tells how the run ended and what earlier runs left untold, and ends.
What it cannot tell is told by the next one, or by ``dlpipe lineage export``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from dlpipe.bridge.follow import wait_for_launcher
from dlpipe.bridge.marks import find_marks
from dlpipe.bridge.mirroring import format_error
from dlpipe.bridge.reading import RunReading
from dlpipe.collector import collect_seldom
from dlpipe.errors import DlpipeError, RunNotFound, SettingError
from dlpipe.lineage import Records
from dlpipe.openlineage.collecting import make_run_group
from dlpipe.openlineage.exporting import Export, export_events, tell
from dlpipe.openlineage.outputs import Outputs
from dlpipe.openlineage.receivers import Receiver, open_receiver
from dlpipe.openlineage.run_events import RunEvents, Runs

INTERVAL, LONGEST, OUTAGE = 1.0, 10.0, 5.0
"""Seconds between two looks at the run, at least and at most, and at most while a receiver does not answer."""
NICE = 10
"""So much less urgent than the run and its mirror is this process."""
SHARE = 0.05
"""Of one core, at most, for looking at a run in which little happens."""
GIVE_UP_SECONDS = 3600.0
"""So long after the run a receiver that does not answer is asked again."""
MOST_FAULTS = 4
"""So often what no waiting mends, such as a record that cannot be read, may stop it after the run."""


def main(pathspec: str, closed: str = "") -> None:
    """Tell of a run until it has ended and all is told.

    With the key of an attempt that has just ended, tell of the run once: so does a task beside which no process
    follows the run.
    """
    collect_seldom()
    os.nice(NICE)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what libraries print
    try:
        receiver = open_receiver(retries=0)
    except SettingError as error:
        find_marks(pathspec).note_receiver(format_error(error))
        return
    telling = Telling(pathspec, receiver)
    if not closed:
        follow(telling)
        return
    try:
        telling.look(closed=closed)
        if telling.refused:
            find_marks(pathspec).note_receiver(describe_refused(telling.refused))
    except Exception as error:  # the next task tells it, or `dlpipe lineage export`
        find_marks(pathspec).note_receiver(format_error(error))


class Telling:
    """A run on its way to a receiver; an event that was told is not looked at again.

    Parameters
    ----------
    pathspec : str
        Flow and run.
    receiver : Receiver

    Attributes
    ----------
    refused : list of str
        Why the receiver did not take an event, for each.
    """

    def __init__(self, pathspec: str, receiver: Receiver) -> None:
        self.pathspec, self.receiver = pathspec, receiver
        self.refused: list[str] = []
        self._reading = RunReading(pathspec)
        self._told: set[str] = set()

    def look(self, *, launcher_gone: bool = False, closed: str = "") -> bool:
        """Tell what is new, and return whether the run has ended; the arguments are those of ``MetaflowRun.read``.

        Raises
        ------
        ReceiverUnavailable
            When the receiver does not answer.
        TrackingUnavailable
            When the registry does not answer: it knows what an attempt has registered.
        """
        snapshot = self._reading.read_snapshot(launcher_gone=launcher_gone, closed=closed)
        outputs = Outputs(Records())  # read when an end is told, and so after the snapshot
        group = make_run_group(RunEvents(self._reading, snapshot, outputs, Runs()))
        keys = {event.key for event in group.list_events()}
        if not keys <= self._told:
            with self.receiver.hold() as told:
                done = Export(self.receiver.address, 0, [])
                tell(self.receiver, told, [group], done)
            self.refused = done.refused  # whatever was refused before was tried again
            self._told = keys
        return snapshot.status != "RUNNING"

    def tell_rest(self) -> None:
        """Tell all that the receiver was not told yet, of this run and of others."""
        self.refused = export_events(self.receiver).refused


def describe_refused(refused: Sequence[str]) -> str:
    """Return how many events a receiver did not take, and why the first one; nothing where it took all.

    Examples
    --------
    >>> describe_refused(["http://catalog does not take an event (status 422)"])
    '1 event was not taken: http://catalog does not take an event (status 422)'
    """
    if not refused:
        return ""
    return f"{'1 event was' if len(refused) == 1 else f'{len(refused):,} events were'} not taken: {refused[0]}"


def follow(telling: Telling) -> None:
    """Tell of the run until it has ended, then what else was not told yet."""
    mark = find_marks(telling.pathspec)
    wait, deadline, faults, gone = 0.0, 0.0, 0, False
    while True:
        if not gone and wait_for_launcher(wait):
            gone, deadline = True, time.monotonic() + GIVE_UP_SECONDS
        elif gone:
            time.sleep(wait)
        began = time.process_time()
        try:
            ended = telling.look(launcher_gone=gone)
            if gone and ended:
                telling.tell_rest()
            mark.note_receiver(describe_refused(telling.refused))
            if gone and ended:
                return
            took, faults = time.process_time() - began, 0
            wait = INTERVAL if gone else min(max(INTERVAL, took / SHARE), LONGEST)
        except RunNotFound:  # it has only just begun, or was deleted meanwhile
            wait = INTERVAL
            if gone:
                return
        except Exception as error:  # an outage that may pass, or files that are being written
            mark.note_receiver(format_error(error))
            wait = min(max(INTERVAL, wait * 2), OUTAGE)
            faults += not isinstance(error, DlpipeError | OSError)
            if gone and (time.monotonic() > deadline or faults >= MOST_FAULTS):
                return


if __name__ == "__main__":
    main(*sys.argv[1:3])
