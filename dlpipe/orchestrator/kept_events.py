"""Events and alerts in the state."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from dlpipe.orchestrator.database import LARGEST, Database
from dlpipe.orchestrator.rows import ALERT_COLUMNS, read_alert, read_event, to_json
from dlpipe.orchestrator.runs import Alert, Event


class KeptEvents:
    """Events, those that triggers hold, and alerts that are to be sent."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractContextManager[None]:
        """Make several calls one commit; an exception undoes them all."""
        return self._database.transaction()

    def publish(self, event: Event) -> bool:
        """Note that ``event`` happened; ``False`` if its id is known already."""
        rows = self._database.execute(
            "INSERT INTO events (id, name, body) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING sequence",
            *(event.id, event.name, to_json(event)),
        )
        return bool(rows)

    def list_events_after(self, sequence: int) -> list[tuple[int, Event]]:
        """Events published after the one with this sequence, in order, each with its own."""
        rows = self._database.execute(
            "SELECT sequence, body FROM events WHERE sequence > ? ORDER BY sequence", sequence
        )
        return [(row[0], read_event(row[1])) for row in rows]

    def list_last_events(self, limit: int, *, name: str | None = None) -> list[tuple[int, Event]]:
        """The newest events, at most so many, the newest first, each with its sequence; of one name or of all."""
        where, values = ("WHERE name = ?", [name]) if name is not None else ("", [])
        rows = self._database.execute(
            f"SELECT sequence, body FROM events {where} ORDER BY sequence DESC LIMIT ?",
            *(*values, min(limit, LARGEST)),
        )
        return [(row[0], read_event(row[1])) for row in rows]

    def get_events_dealt(self) -> int:
        """Sequence of the last event that triggers have seen."""
        return int(self._database.fetch_one("SELECT sequence FROM dealt")[0])

    def set_events_dealt(self, sequence: int) -> None:
        """Note that triggers have seen the events up to this sequence."""
        self._database.execute("UPDATE dealt SET sequence = ?", sequence)

    def get_held_events(self, deployment: str) -> dict[str, Event]:
        """Events by name that a deployment's trigger holds until the others that it needs have come."""
        rows = self._database.execute(
            "SELECT held.name, body FROM held JOIN events USING (sequence) WHERE deployment = ?", deployment
        )
        return {name: read_event(body) for name, body in rows}

    def hold_event(self, deployment: str, name: str, sequence: int) -> None:
        """Hold an event for a deployment's trigger, instead of an earlier one of its name.

        Parameters
        ----------
        deployment : str
            Whose trigger holds it.
        name : str
            Of the event.
        sequence : int
            The one with which it was published.
        """
        self._database.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", deployment, name, sequence)

    def forget_events(self, deployment: str, names: Iterable[str]) -> None:
        """Hold the events of these names no longer."""
        with self.transaction():
            for name in names:
                self._database.execute("DELETE FROM held WHERE deployment = ? AND name = ?", deployment, name)

    def _find_last_event(self) -> int:
        return int(self._database.fetch_one("SELECT coalesce(max(sequence), 0) FROM events")[0])

    def add_alert(self, alert: Alert) -> bool:
        """Note that ``alert`` is to be sent; ``False`` if its key is known already."""
        rows = self._database.execute(
            "INSERT INTO alerts (deployment, key, kind, body, at, next_try) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (key) DO NOTHING RETURNING number",
            *(alert.deployment, alert.key, alert.kind, to_json(alert.body), alert.at, alert.at),
        )
        return bool(rows)

    def list_alerts_to_send(self, until: float) -> list[Alert]:
        """Alerts whose next try is no later than ``until``, in the order in which they were noted."""
        rows = self._database.execute(
            f"SELECT {ALERT_COLUMNS} FROM alerts WHERE next_try IS NOT NULL AND next_try <= ? ORDER BY number",
            until,
        )
        return [read_alert(row) for row in rows]

    def find_next_alert(self) -> float | None:
        """When an alert is to be tried next; ``None`` when none is to be sent."""
        return self._database.fetch_one("SELECT min(next_try) FROM alerts WHERE next_try IS NOT NULL")[0]

    def find_last_alert(self, deployment: str) -> Alert | None:
        """The newest alert of a deployment, sent or not, that says whether it works."""
        row = self._database.fetch_one(
            f"SELECT {ALERT_COLUMNS} FROM alerts WHERE deployment = ? AND kind != 'terminated' "
            "ORDER BY number DESC LIMIT 1",
            deployment,
        )
        return read_alert(row) if row else None

    def set_alert(self, number: int, *, tries: int, next_try: float | None) -> None:
        """Note how often an alert was tried and when it is again; ``None`` for never.

        Parameters
        ----------
        number : int
            Of the alert.
        tries : int
            How often sending it was tried.
        next_try : float or None
            Seconds since 1970; ``None`` when it was sent or given up.
        """
        self._database.execute(
            "UPDATE alerts SET tries = ?, next_try = ? WHERE number = ?", tries, next_try, number
        )

    def _forget_events(self, before: float) -> None:
        self._database.execute(
            "DELETE FROM events WHERE json_extract(body, '$.at') < ? AND sequence <= ? "
            "AND sequence NOT IN (SELECT sequence FROM held)",
            *(before, self.get_events_dealt()),
        )
        self._database.execute(
            "DELETE FROM alerts WHERE at < ? AND next_try IS NULL "
            "AND number NOT IN (SELECT max(number) FROM alerts GROUP BY deployment)",
            before,
        )
