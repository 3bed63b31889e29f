"""Everything that the orchestrator knows, in one SQLite file: deployments, runs, attempts and events."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from dlpipe.errors import DeploymentNotFound, RunEnded, RunNotFound, StateUnusable
from dlpipe.orchestrator.database import Database
from dlpipe.orchestrator.deployments import Deployment, Version
from dlpipe.orchestrator.rows import (
    ALERT_COLUMNS,
    MIGRATIONS,
    RUN_COLUMNS,
    alert_of,
    attempt_of,
    event_of,
    events_of,
    text_of,
    version_of,
)
from dlpipe.orchestrator.runs import ENDED, OPEN, Alert, Attempt, Event, Run, Status

FILE = "state.db"
CHUNK = 500
KEPT_VERSIONS = 1000


def state_folder() -> Path:
    """The folder of the state: ``DLPIPE_STATE``, by default ``dlpipe`` where XDG has the state of programs."""
    named = os.environ.get("DLPIPE_STATE")
    if named:
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home, "dlpipe")


class State:
    """The state in a folder; several threads may use one, and several processes have one each.

    Every call is one transaction: a kill at any moment leaves all of it or nothing.

    Attributes
    ----------
    folder : Path
        Where it is, with the code of deployments and the folders of attempts beside it.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database
        self._versions: dict[tuple[str, int], Version] = {}

    @classmethod
    def open(cls, folder: Path | None = None, *, check: bool = False) -> State:
        """The state in ``folder``, by default :func:`state_folder`, made if there is none.

        Parameters
        ----------
        folder : Path, optional
            Where it is.
        check : bool
            Whether the whole file is checked for damage (about a second for a million runs); damage that a call
            comes upon is always noticed.

        Raises
        ------
        StateUnusable
            When the file is locked for more than ten seconds, damaged, of another program or of a newer dlpipe.
        StorageFull
            When there is no space for it.
        """
        folder = (folder or state_folder()).absolute()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateUnusable(
                f"The state cannot be kept in {folder}: {error.strerror}. Name another folder with DLPIPE_STATE."
            ) from error
        state = cls(folder, Database(folder / FILE, MIGRATIONS))
        if check:
            state._database.check()
        return state

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make several calls one commit; an exception undoes them all."""
        return self._database.transaction()

    def data_version(self) -> int:
        """A number that changes when another process, or another ``State``, has changed something."""
        return self._database.data_version()

    # deployments ------------------------------------------------------------------------------------------------

    def deploy(self, version: Version, *, now: float) -> Version:
        """Make ``version`` the newest one of its deployment and return it with its number.

        A new deployment begins at ``now``. So does one whose schedule has changed: due times of the new schedule
        before ``now`` never were. A suspended deployment stays so.
        """
        name = version.deployment
        with self.transaction():
            known = self._database.one("SELECT max(number) FROM versions WHERE deployment = ?", name)[0]
            made = dataclasses.replace(version, number=(known or 0) + 1, created=version.created or now)
            before = self._database.one("SELECT version FROM deployments WHERE name = ?", name)
            self._database.all("INSERT INTO versions VALUES (?, ?, ?)", name, made.number, text_of(made))
            if before is None:
                self._database.all(
                    "INSERT INTO deployments VALUES (?, ?, 0, ?, ?)", name, made.number, now, self._last_event()
                )
            else:
                self._replace_version(made, self.version(name, before[0]), now)
        return made

    def _replace_version(self, made: Version, before: Version, now: float) -> None:
        name = made.deployment
        self._database.all("UPDATE deployments SET version = ? WHERE name = ?", made.number, name)
        if made.schedule != before.schedule:
            self.set_scheduled_until(name, now)
        if made.trigger != before.trigger:
            self._database.all("DELETE FROM held WHERE deployment = ?", name)

    def deployments(self) -> list[Deployment]:
        """All deployments, by name."""
        rows = self._database.all(
            "SELECT name, version, suspended, scheduled_until, events_after FROM deployments ORDER BY name"
        )
        return [self._deployment(row) for row in rows]

    def deployment(self, name: str) -> Deployment:
        """The deployment ``name``.

        Raises
        ------
        DeploymentNotFound
            When there is none; near names are suggested.
        """
        row = self._database.one(
            "SELECT name, version, suspended, scheduled_until, events_after FROM deployments WHERE name = ?", name
        )
        if row is None:
            raise self._not_found(name)
        return self._deployment(row)

    def versions(self, name: str) -> list[Version]:
        """All versions of a deployment, the newest first; also of a deleted one."""
        rows = self._database.all(
            "SELECT number, body FROM versions WHERE deployment = ? ORDER BY number DESC", name
        )
        if not rows:
            raise self._not_found(name)
        return [version_of(body) for _, body in rows]

    def version(self, name: str, number: int) -> Version:
        """One version of a deployment; also of a deleted one, whose runs are kept."""
        found = self._versions.get((name, number))
        if found is None:
            row = self._database.one("SELECT body FROM versions WHERE deployment = ? AND number = ?", name, number)
            if row is None:
                last = self.versions(name)[0].number
                raise DeploymentNotFound(f"{name!r} has no version {number}; its latest is {last}.")
            if len(self._versions) >= KEPT_VERSIONS:
                self._versions.clear()
            found = self._versions[name, number] = version_of(row[0])
        return found

    def suspend(self, name: str, suspended: bool, *, now: float) -> None:
        """Suspend a deployment, or let it go on from ``now``: what was due meanwhile is not made up."""
        with self.transaction():
            if self.deployment(name).suspended == suspended:
                return
            self._database.all("UPDATE deployments SET suspended = ? WHERE name = ?", int(suspended), name)
            if not suspended:
                self._database.all(
                    "UPDATE deployments SET scheduled_until = ?, events_after = ? WHERE name = ?",
                    now,
                    self._last_event(),
                    name,
                )
                self._database.all("DELETE FROM held WHERE deployment = ?", name)

    def delete(self, name: str) -> None:
        """Delete a deployment: its queued runs become terminated, its runs and versions stay to be read."""
        with self.transaction():
            self.deployment(name)
            for run in self.runs(deployment=name, status=["queued"]):
                self.set_status(run.number, "terminated", reason="the deployment was deleted")
            self._database.all("DELETE FROM held WHERE deployment = ?", name)
            self._database.all("DELETE FROM deployments WHERE name = ?", name)

    def set_scheduled_until(self, name: str, until: float) -> None:
        """Note that due times up to ``until`` have been dealt with."""
        self._database.all("UPDATE deployments SET scheduled_until = ? WHERE name = ?", until, name)

    def _deployment(self, row: Sequence[Any]) -> Deployment:
        name, version, suspended, until, events_after = row
        return Deployment(name, self.version(name, version), bool(suspended), until, events_after)

    def _not_found(self, name: str) -> DeploymentNotFound:
        known = [row[0] for row in self._database.all("SELECT name FROM deployments ORDER BY name")]
        if not known:
            return DeploymentNotFound(
                f"No deployment {name!r}: nothing is deployed here (`python FLOW.py local-scheduler create`)."
            )
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        return DeploymentNotFound(f"No deployment {name!r}{hint} Deployed: {', '.join(known)}.")

    # runs -------------------------------------------------------------------------------------------------------

    def add_run(
        self,
        deployment: str,
        *,
        version: int | None = None,
        cause: str,
        key: str,
        due: float,
        parameters: Mapping[str, Any] = {},
        events: Sequence[Event] = (),
        status: Status = "queued",
        reason: str = "",
    ) -> tuple[Run, bool]:
        """Note that ``deployment`` is to run, once for each ``key``; return the run and whether it is new.

        Without ``version`` it runs the newest one.
        """
        with self.transaction():
            known = self._database.one("SELECT number FROM runs WHERE deployment = ? AND key = ?", deployment, key)
            if known is not None:
                return self.run(known[0]), False
            number = self.deployment(deployment).version.number if version is None else version
            self.version(deployment, number)
            row = self._database.one(
                f"INSERT INTO runs ({RUN_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, 0.0, ?) RETURNING number",
                *(deployment, number, cause, key, due),
                *(text_of(parameters), text_of(list(events)), status, reason),
            )
            return self.run(row[0]), True

    def run(self, number: int) -> Run:
        """The run ``number``.

        Raises
        ------
        RunNotFound
            When there is none.
        """
        found = self._runs(self._database.all(f"SELECT {RUN_COLUMNS} FROM runs WHERE number = ?", number))
        if not found:
            raise self._no_run(str(number))
        return found[0]

    def find_run(self, text: str) -> Run:
        """The run with this number or this Metaflow run, by its id or a pathspec ``FLOW/RUN[/STEP[/TASK]]``."""
        parts = text.strip().split("/")
        name = parts[0] if len(parts) == 1 else parts[1]
        row = self._database.one(
            "SELECT run FROM attempts WHERE metaflow_run = ? AND metaflow_run != '' ORDER BY run DESC", name
        )
        if row is not None:
            return self.run(row[0])
        if len(parts) == 1 and name.isdecimal():
            return self.run(int(name))
        raise self._no_run(text)

    def runs(
        self, *, deployment: str | None = None, status: Sequence[Status] = (), limit: int | None = None
    ) -> list[Run]:
        """Runs, the newest first: those of a deployment, those in one of several states, at most so many."""
        where, values = ("deployment = ?", [deployment]) if deployment is not None else ("TRUE", [])
        # an index gives the newest of one status at once, but not those of several: they are merged here
        parts = [(f"{where} AND status = ?", [*values, one]) for one in dict.fromkeys(status)]
        end = "ORDER BY number DESC LIMIT ?"
        most = -1 if limit is None else limit
        rows = [
            row
            for condition, wanted in parts or [(where, values)]
            for row in self._database.all(f"SELECT {RUN_COLUMNS} FROM runs WHERE {condition} {end}", *wanted, most)
        ]
        rows.sort(key=lambda row: -row[0])
        return self._runs(rows if limit is None else rows[:limit])

    def set_status(self, run: int, status: Status, *, reason: str = "", not_before: float = 0.0) -> None:
        """Note where a run stands; one that has ended is no more to be stopped."""
        if not self._database.all(
            "UPDATE runs SET status = ?, reason = ?, not_before = ?, stop = stop AND ? WHERE number = ? "
            "RETURNING number",
            *(status, reason, not_before, int(status in OPEN), run),
        ):
            raise self._no_run(str(run))

    def add_attempt(self, run: int, attempt: Attempt) -> None:
        """Note the next attempt of a run, which is now running.

        Raises
        ------
        RunEnded
            When the run has ended meanwhile, by the deletion of its deployment for one.
        ValueError
            When it is not the next one.
        """
        with self.transaction():
            known = self.run(run)
            if known.status in ENDED:
                raise RunEnded(f"Run {run} of {known.deployment} is {known.status}: it begins no further attempt.")
            if attempt.number != len(known.attempts):
                raise ValueError(f"the next attempt of run {run} is {len(known.attempts)}, not {attempt.number}")
            self._database.all(
                "INSERT INTO attempts VALUES (?, ?, ?, ?)",
                *(run, attempt.number, attempt.metaflow_run, text_of(attempt)),
            )
            self.set_status(run, "running")

    def set_attempt(self, run: int, attempt: Attempt) -> None:
        """Replace the attempt of this number."""
        if not self._database.all(
            "UPDATE attempts SET metaflow_run = ?, body = ? WHERE run = ? AND number = ? RETURNING number",
            *(attempt.metaflow_run, text_of(attempt), run, attempt.number),
        ):
            raise ValueError(f"run {run} has no attempt {attempt.number}")

    def request_stop(self, run: int) -> None:
        """Ask that a run be stopped; the request stays until the run has ended.

        Raises
        ------
        RunEnded
            When it has ended already.
        """
        with self.transaction():
            known = self.run(run)
            if known.status in ENDED:
                raise RunEnded(f"Run {run} of {known.deployment} is {known.status} already.")
            self._database.all("UPDATE runs SET stop = 1 WHERE number = ?", run)

    def stop_requested(self) -> list[int]:
        """Numbers of the runs that are to be stopped."""
        return [row[0] for row in self._database.all("SELECT number FROM runs WHERE stop = 1 ORDER BY number")]

    def _runs(self, rows: Sequence[Sequence[Any]]) -> list[Run]:
        attempts: dict[int, list[Attempt]] = {}
        for chunk in chunks([row[0] for row in rows]):
            marks = ", ".join("?" * len(chunk))
            for number, body in self._database.all(
                f"SELECT run, body FROM attempts WHERE run IN ({marks}) ORDER BY run, number", *chunk
            ):
                attempts.setdefault(number, []).append(attempt_of(body))
        return [run_of(row, attempts.get(row[0], ())) for row in rows]

    def _no_run(self, text: str) -> RunNotFound:
        last = self._database.one("SELECT max(number) FROM runs")[0]
        if last is None:
            return RunNotFound(f"No run {text!r}: nothing has run here.")
        return RunNotFound(f"No run {text!r}; runs are 1 to {last}, `dlpipe runs` lists them.")

    # events -----------------------------------------------------------------------------------------------------

    def publish(self, event: Event) -> bool:
        """Note that ``event`` happened; ``False`` if its id is known already."""
        rows = self._database.all(
            "INSERT INTO events (id, name, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING sequence",
            *(event.id, event.name, text_of(event)),
        )
        return bool(rows)

    def events_after(self, sequence: int) -> list[tuple[int, Event]]:
        """Events published after the one with this sequence, in order, each with its own."""
        rows = self._database.all(
            "SELECT sequence, body FROM events WHERE sequence > ? ORDER BY sequence", sequence
        )
        return [(row[0], event_of(row[1])) for row in rows]

    def events_dealt(self) -> int:
        """Sequence of the last event that triggers have been told of."""
        return int(self._database.one("SELECT sequence FROM dealt")[0])

    def set_events_dealt(self, sequence: int) -> None:
        """Note that triggers have been told of events up to this sequence."""
        self._database.all("UPDATE dealt SET sequence = ?", sequence)

    def held_events(self, deployment: str) -> dict[str, Event]:
        """Events by name that a deployment's trigger holds until the others that it needs have come."""
        rows = self._database.all(
            "SELECT held.name, body FROM held JOIN events USING (sequence) WHERE deployment = ?", deployment
        )
        return {name: event_of(body) for name, body in rows}

    def hold_event(self, deployment: str, name: str, sequence: int) -> None:
        """Hold an event for a deployment's trigger, instead of an earlier one of its name."""
        self._database.all("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", deployment, name, sequence)

    def forget_events(self, deployment: str, names: Iterable[str]) -> None:
        """Hold the events of these names no longer."""
        with self.transaction():
            for name in names:
                self._database.all("DELETE FROM held WHERE deployment = ? AND name = ?", deployment, name)

    def _last_event(self) -> int:
        return int(self._database.one("SELECT coalesce(max(sequence), 0) FROM events")[0])

    # alerts -----------------------------------------------------------------------------------------------------

    def add_alert(self, alert: Alert) -> bool:
        """Note that ``alert`` is to be sent; ``False`` if its key is known already."""
        rows = self._database.all(
            "INSERT INTO alerts (deployment, key, kind, body, at, next_try) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO NOTHING RETURNING number",
            *(alert.deployment, alert.key, alert.kind, text_of(alert.body), alert.at, alert.at),
        )
        return bool(rows)

    def alerts_to_send(self, until: float) -> list[Alert]:
        """Alerts whose next try is no later than ``until``, in the order in which they were noted."""
        rows = self._database.all(
            f"SELECT {ALERT_COLUMNS} FROM alerts WHERE next_try IS NOT NULL AND next_try <= ? ORDER BY number",
            until,
        )
        return [alert_of(row) for row in rows]

    def next_alert(self) -> float | None:
        """When an alert is to be tried next; ``None`` when none is to be sent."""
        return self._database.one("SELECT min(next_try) FROM alerts WHERE next_try IS NOT NULL")[0]

    def last_alert(self, deployment: str) -> Alert | None:
        """The newest alert of a deployment, sent or not."""
        row = self._database.one(
            f"SELECT {ALERT_COLUMNS} FROM alerts WHERE deployment = ? ORDER BY number DESC LIMIT 1", deployment
        )
        return alert_of(row) if row else None

    def set_alert(self, number: int, *, tries: int, next_try: float | None) -> None:
        """Note how often an alert was tried and when it is again; ``None`` for never."""
        self._database.all("UPDATE alerts SET tries = ?, next_try = ? WHERE number = ?", tries, next_try, number)


def run_of(row: Sequence[Any], attempts: Iterable[Attempt]) -> Run:
    """The run that a row of ``RUN_COLUMNS`` is."""
    number, deployment, version, cause, key, due, parameters, events, status, not_before, reason = row
    return Run(
        number=number,
        deployment=deployment,
        version=version,
        cause=cause,
        key=key,
        due=due,
        parameters=json.loads(parameters),
        events=events_of(events),
        status=status,
        not_before=not_before,
        reason=reason,
        attempts=tuple(attempts),
    )


def chunks(numbers: list[int]) -> Iterator[list[int]]:
    """``numbers`` in lists that fit into one statement."""
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]
