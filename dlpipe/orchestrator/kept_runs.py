"""Runs and their attempts in the state."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dlpipe.errors import RunEnded, RunNotFound
from dlpipe.orchestrator.database import LARGEST
from dlpipe.orchestrator.kept_deployments import KeptDeployments
from dlpipe.orchestrator.rows import RUN_COLUMNS, read_attempt, read_events, to_json
from dlpipe.orchestrator.runs import ENDED, OPEN, Event, Run, RunAttempt, Status
from dlpipe.terminal import make_visible

CHUNK = 500
DIGITS = 20
"""No number of a run has more."""


class OpenRun(NamedTuple):
    """As much of a run that has not ended as tells whether it may start."""

    number: int
    deployment: str
    version: int
    status: Status
    not_before: float
    stopping: bool
    suspended: bool


class StartedRun(NamedTuple):
    """As much of a run that events started as tells what they came to; ``events`` are their ids."""

    number: int
    deployment: str
    status: Status
    reason: str
    events: frozenset[str]


class KeptRuns(KeptDeployments):
    """Runs with their attempts."""

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

        Parameters
        ----------
        deployment : str
            Its name.
        version : int, optional
            Number of the version to run.
        cause : str
            Why it runs, for people.
        key : str
            What must not run twice: the due time, the events, or the call by hand.
        due : float
            Seconds since 1970.
        parameters : mapping, optional
            Values by name, over those of the version.
        events : sequence of Event, optional
            What triggered it.
        status : Status, optional
            ``queued``, or ``skipped`` for one that only is noted.
        reason : str, optional
            Why it was skipped.
        """
        with self.transaction():
            # a cause that was dealt with and not noted as such, because of a kill, comes again: it has its run
            known = self._database.fetch_one(
                "SELECT number FROM runs WHERE deployment = ? AND key = ?", deployment, key
            )
            if known is not None:
                return self.get_run(known[0]), False
            number = self.get_deployment(deployment).version.number if version is None else version
            self.get_version(deployment, number)
            row = self._database.fetch_one(
                f"INSERT INTO runs ({RUN_COLUMNS}) VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, 0.0, ?, 0.0, 0) "
                "RETURNING number",
                *(deployment, number, cause, key, due),
                *(to_json(parameters), to_json(list(events)), status, reason),
            )
            return self.get_run(row[0]), True

    def get_run(self, number: int) -> Run:
        """The run ``number``.

        Raises
        ------
        RunNotFound
            When there is none.
        """
        row = f"SELECT {RUN_COLUMNS} FROM runs WHERE number = ?"
        found = self._read_runs(self._database.execute(row, number)) if number <= LARGEST else []
        if not found:
            raise self._make_run_not_found(str(number))
        return found[0]

    def find_run(self, text: str) -> Run:
        """The run with this number or this Metaflow run, by its id or a pathspec ``FLOW/RUN[/STEP[/TASK]]``."""
        parts = text.strip().encode(errors="replace").decode().split("/")  # a shell passes any bytes
        name = parts[0] if len(parts) == 1 else parts[1]
        row = self._database.fetch_one(
            "SELECT run FROM attempts WHERE metaflow_run = ? AND metaflow_run != '' ORDER BY run DESC", name
        )
        if row is not None:
            return self.get_run(row[0])
        if len(parts) == 1 and name.isdecimal() and len(name) <= DIGITS:
            return self.get_run(int(name))
        raise self._make_run_not_found(text)

    def list_runs(
        self, *, deployment: str | None = None, status: Sequence[Status] = (), limit: int | None = None
    ) -> list[Run]:
        """Runs, the newest first: those of a deployment, those in one of several states, at most so many.

        Parameters
        ----------
        deployment : str, optional
            Only those of one; by default of all.
        status : sequence of Status, optional
            Only those in one of these states; by default in any.
        limit : int, optional
            At most so many, the newest; by default all.
        """
        where, values = ("deployment = ?", [deployment]) if deployment is not None else ("TRUE", [])
        # an index gives the newest of one status at once, but not those of several: they are merged here
        parts = [(f"{where} AND status = ?", [*values, fromkey]) for fromkey in dict.fromkeys(status)]
        end = "ORDER BY number DESC LIMIT ?"
        most = -1 if limit is None else min(limit, LARGEST)
        rows = [
            row
            for condition, wanted in parts or [(where, values)]
            for row in self._database.execute(
                f"SELECT {RUN_COLUMNS} FROM runs WHERE {condition} {end}", *wanted, most
            )
        ]
        rows.sort(key=lambda row: -row[0])
        return self._read_runs(rows if limit is None else rows[:limit])

    def list_open_runs(self) -> list[OpenRun]:
        """Runs that have not ended, the oldest first: quickly, even if a thousand are queued."""
        rows = self._database.execute(
            "SELECT number, deployment, version, status, not_before, stop, suspended FROM runs "
            f"WHERE status IN {OPEN} ORDER BY number"
        )
        return [OpenRun(*row) for row in rows]

    def find_needed_versions(self, deployment: str, status: Sequence[Status]) -> set[int]:
        """Numbers of the versions that runs of a deployment in one of these states are of."""
        marks = ", ".join("?" * len(status))
        rows = self._database.execute(
            f"SELECT DISTINCT version FROM runs WHERE deployment = ? AND status IN ({marks})", deployment, *status
        )
        return {row[0] for row in rows}

    def list_runs_of_events(self, since: float) -> list[StartedRun]:
        """Runs that events started which came at ``since`` or later, the skipped ones too; the oldest first."""
        rows = self._database.execute(
            "SELECT number, deployment, status, reason, events FROM runs WHERE events != '[]' AND due >= ? "
            "ORDER BY number",
            since,
        )
        return [
            StartedRun(row[0], row[1], row[2], row[3], frozenset(event.id for event in read_events(row[4])))
            for row in rows
        ]

    def count_queued(self, deployment: str) -> int:
        """How many runs of a deployment are queued."""
        counting = "SELECT count(*) FROM runs WHERE deployment = ? AND status = 'queued'"
        return int(self._database.fetch_one(counting, deployment)[0])

    def set_status(self, run: int, status: Status, *, reason: str = "", not_before: float = 0.0) -> None:
        """Note where a run stands; one that has ended is no more to be stopped.

        Parameters
        ----------
        run : int
            Its number.
        status : Status
            Where it stands now.
        reason : str, optional
            Why, for people; control characters are made visible.
        not_before : float, optional
            When a waiting run may begin its next attempt, in seconds since 1970.
        """
        if not self._database.execute(
            "UPDATE runs SET status = ?, reason = ?, not_before = ?, stop = stop AND ? WHERE number = ? "
            "RETURNING number",
            *(status, make_visible(reason), not_before, int(status in OPEN), run),
        ):
            raise self._make_run_not_found(str(run))

    def add_attempt(self, run: int, attempt: RunAttempt, *, deadline: float = 0.0) -> None:
        """Note the next attempt of a run, which is now running, and until when all of the run may take.

        Parameters
        ----------
        run : int
            Its number.
        attempt : RunAttempt
            The next one; its number is that of the attempts so far.
        deadline : float, optional
            Seconds since 1970; 0 for none.

        Raises
        ------
        RunEnded
            When the run has ended meanwhile, by the deletion of its deployment for one.
        ValueError
            When it is not the next one.
        """
        with self.transaction():
            known = self.get_run(run)
            if known.status in ENDED:
                raise RunEnded(f"Run {run} of {known.deployment} is {known.status}: it begins no further attempt.")
            if attempt.number != len(known.attempts):
                raise ValueError(f"the next attempt of run {run} is {len(known.attempts)}, not {attempt.number}")
            self._database.execute(
                "INSERT INTO attempts VALUES (?, ?, ?, ?)",
                *(run, attempt.number, attempt.metaflow_run, to_json(attempt)),
            )
            self._database.execute("UPDATE runs SET deadline = ? WHERE number = ?", deadline, run)
            self.set_status(run, "running")

    def set_attempt(self, run: int, attempt: RunAttempt) -> None:
        """Replace the attempt of this number."""
        if not self._database.execute(
            "UPDATE attempts SET metaflow_run = ?, body = ? WHERE run = ? AND number = ? RETURNING number",
            *(attempt.metaflow_run, to_json(attempt), run, attempt.number),
        ):
            raise ValueError(f"run {run} has no attempt {attempt.number}")

    def resume_run(self, run: int) -> None:
        """Resume a run that has ended: it waits for its next attempt, and its time limit begins anew."""
        with self.transaction():
            self.set_status(run, "waiting", reason="resumed by hand")
            self._database.execute("UPDATE runs SET deadline = 0, suspended = 0 WHERE number = ?", run)

    def suspend_run(self, run: int, suspended: bool) -> None:
        """Let a run begin nothing more, or take that back.

        Raises
        ------
        RunEnded
            When it has ended.
        """
        with self.transaction():
            known = self.get_run(run)
            if known.status in ENDED:
                raise RunEnded(f"Run {run} of {known.deployment} is {known.status} already.")
            self._database.execute("UPDATE runs SET suspended = ? WHERE number = ?", int(suspended), run)

    def request_stop(self, run: int) -> None:
        """Ask that a run be stopped; the request stays until the run has ended.

        Raises
        ------
        RunEnded
            When it has ended already.
        """
        with self.transaction():
            known = self.get_run(run)
            if known.status in ENDED:
                raise RunEnded(f"Run {run} of {known.deployment} is {known.status} already.")
            self._database.execute("UPDATE runs SET stop = 1 WHERE number = ?", run)

    def list_stop_requested(self) -> list[int]:
        """Numbers of the runs that are to be stopped."""
        return [row[0] for row in self._database.execute("SELECT number FROM runs WHERE stop = 1 ORDER BY number")]

    def list_run_numbers(self) -> list[int]:
        """Numbers of all runs, the oldest first."""
        return [row[0] for row in self._database.execute("SELECT number FROM runs ORDER BY number")]

    def forget(self, before: float) -> int:
        """Forget runs that ended ``before``, and the events and alerts from then; return how many runs.

        What is still needed stays: events that nobody was told of or that a trigger holds, alerts that are to be
        sent, and each deployment's last one, which says whether it has recovered.
        """
        with self.transaction():
            numbers = self._database.execute(
                f"SELECT number FROM runs WHERE status IN {ENDED} AND due < ? AND NOT EXISTS "
                "(SELECT 1 FROM attempts WHERE run = runs.number AND json_extract(body, '$.ended') >= ?)",
                *(before, before),
            )
            for chunk in split_into_chunks([row[0] for row in numbers]):
                marks = ", ".join("?" * len(chunk))
                self._database.execute(f"DELETE FROM attempts WHERE run IN ({marks})", *chunk)
                self._database.execute(f"DELETE FROM runs WHERE number IN ({marks})", *chunk)
            self._forget_events(before)
        return len(numbers)

    def _read_runs(self, rows: Sequence[Sequence[Any]]) -> list[Run]:
        attempts: dict[int, list[RunAttempt]] = {}
        for chunk in split_into_chunks([row[0] for row in rows]):
            marks = ", ".join("?" * len(chunk))
            for number, body in self._database.execute(
                f"SELECT run, body FROM attempts WHERE run IN ({marks}) ORDER BY run, number", *chunk
            ):
                attempts.setdefault(number, []).append(read_attempt(body))
        return [read_run(row, attempts.get(row[0], ())) for row in rows]

    def _make_run_not_found(self, text: str) -> RunNotFound:
        last = self._database.fetch_one("SELECT max(number) FROM runs")[0]
        if last is None:
            return RunNotFound(f"No run {text!r}: nothing has run here.")
        return RunNotFound(f"No run {text!r}; runs are 1 to {last}, `dlpipe runs` lists them.")


def read_run(row: Sequence[Any], attempts: Iterable[RunAttempt]) -> Run:
    """The run that a row of ``RUN_COLUMNS`` is."""
    number, deployment, version, cause, key, due, parameters, events, status, not_before, reason, *more = row
    return Run(
        number=number,
        deployment=deployment,
        version=version,
        cause=cause,
        key=key,
        due=due,
        parameters=json.loads(parameters),
        events=read_events(events),
        status=status,
        not_before=not_before,
        reason=reason,
        deadline=more[0],
        suspended=bool(more[1]),
        attempts=tuple(attempts),
    )


def split_into_chunks(numbers: list[int]) -> Iterator[list[int]]:
    """``numbers`` in lists that fit into one statement."""
    for start in range(0, len(numbers), CHUNK):
        yield numbers[start : start + CHUNK]
