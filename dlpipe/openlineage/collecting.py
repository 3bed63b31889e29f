"""All events: of every run, of commits by hand, of models and of what is served."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from dlpipe.bridge.metadata import find_runs
from dlpipe.errors import RunNotFound
from dlpipe.lineage import Records
from dlpipe.openlineage.events import Body, Group
from dlpipe.openlineage.other_events import list_changes_of_models, list_commits, list_served
from dlpipe.openlineage.outputs import Outputs
from dlpipe.openlineage.run_events import RunEvents, Runs


def list_groups(told: Container[str] = (), *, on_step: Callable[[str], None] = lambda name: None) -> list[Group]:
    """Return everything that can be told, the oldest first, without what is in ``told``.

    Parameters
    ----------
    told : container of str
        Keys of groups that need not be looked at.
    on_step : callable, optional
        Gets what is looked at next, for progress.

    Raises
    ------
    TrackingUnavailable
        When the registry cannot be asked: half of what is known would be told as if it were all.
    """
    on_step("looking at runs")
    runs = Runs()
    pathspecs = _list_runs()
    known = frozenset(pathspec for pathspec in pathspecs if make_run_key(pathspec) in told)
    found = [run for pathspec in pathspecs if pathspec not in known and (run := runs.read(pathspec))]
    on_step("looking at tables and models")
    # only now: whatever an attempt made that has ended is there
    outputs = Outputs(Records())
    groups = [make_run_group(RunEvents(reading, snapshot, outputs, runs)) for reading, snapshot in found]
    groups += list_commits(outputs, runs, known)
    groups += list_changes_of_models(outputs)
    on_step("looking at requests")
    groups += list_served(outputs)
    return sorted((group for group in groups if group.key not in told), key=lambda group: group.at)


def _list_runs() -> list[str]:
    try:
        return find_runs()
    except RunNotFound:
        return []


def make_run_key(pathspec: str) -> str:
    """Return what a run as a whole is known by."""
    return f"run {pathspec}"


def make_run_group(events: RunEvents) -> Group:
    """Return the events of a run; one that was killed may yet turn out to go on elsewhere."""
    snapshot = events.snapshot
    final = snapshot.status in ("FINISHED", "FAILED") and all(attempt.complete for attempt in snapshot.attempts)
    return Group(make_run_key(snapshot.pathspec), snapshot.created, events.list, is_final=final)


def make_events() -> Iterator[Body]:
    """Yield all events in JSON's own types, the oldest first.

    Examples
    --------
    >>> from dlpipe.openlineage import make_events
    >>> sum(event["eventType"] == "START" for event in make_events())  # doctest: +SKIP
    12
    """
    for group in list_groups():
        yield from (event.make() for event in group.list_events())
