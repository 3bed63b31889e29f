"""Deployments and their versions in the state."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from dlpipe.errors import DeploymentNotFound
from dlpipe.orchestrator.database import Database
from dlpipe.orchestrator.deployments import Deployment, Version
from dlpipe.orchestrator.kept_events import KeptEvents
from dlpipe.orchestrator.rows import read_version, to_json

KEPT_VERSIONS = 10_000


class KeptDeployments(KeptEvents):
    """Deployments, and all versions that there ever were: they never change, so those read are remembered."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._versions: dict[tuple[str, int], Version] = {}

    def deploy(self, version: Version, *, now: float) -> Version:
        """Make ``version`` the newest one of its deployment and return it with its number.

        A new deployment begins at ``now``. So does one whose schedule has changed: due times of the new schedule
        before ``now`` never were. A suspended deployment stays so.
        """
        name = version.deployment
        with self.transaction():
            known = self._database.fetch_one("SELECT max(number) FROM versions WHERE deployment = ?", name)[0]
            made = dataclasses.replace(version, number=(known or 0) + 1, created=version.created or now)
            before = self._database.fetch_one("SELECT version FROM deployments WHERE name = ?", name)
            self._database.execute("INSERT INTO versions VALUES (?, ?, ?)", name, made.number, to_json(made))
            if before is None:
                # what happened before the deployment is none of its business: events, as due times
                self._database.execute(
                    "INSERT INTO deployments VALUES (?, ?, 0, ?, ?)",
                    name,
                    made.number,
                    now,
                    self._find_last_event(),
                )
            else:
                self._replace_version(made, self.get_version(name, before[0]), now)
        return made

    def _replace_version(self, made: Version, before: Version, now: float) -> None:
        name = made.deployment
        self._database.execute("UPDATE deployments SET version = ? WHERE name = ?", made.number, name)
        if made.schedule != before.schedule:
            self.set_scheduled_until(name, now)
        if made.trigger != before.trigger:
            self._database.execute("DELETE FROM held WHERE deployment = ?", name)

    def list_deployments(self) -> list[Deployment]:
        """All deployments, by name."""
        rows = self._database.execute(
            "SELECT name, version, suspended, scheduled_until, events_after FROM deployments ORDER BY name"
        )
        return [self._read_deployment(row) for row in rows]

    def get_deployment(self, name: str) -> Deployment:
        """The deployment ``name``.

        Raises
        ------
        DeploymentNotFound
            When there is none; near names are suggested.
        """
        row = self._database.fetch_one(
            "SELECT name, version, suspended, scheduled_until, events_after FROM deployments WHERE name = ?", name
        )
        if row is None:
            raise self._make_deployment_not_found(name)
        return self._read_deployment(row)

    def is_deployed(self, name: str) -> bool:
        """Whether there is a deployment ``name`` now; one that was deleted is none."""
        return self._database.fetch_one("SELECT 1 FROM deployments WHERE name = ?", name) is not None

    def list_ever_deployed(self) -> list[str]:
        """Names of all deployments that there ever were."""
        return [row[0] for row in self._database.execute("SELECT DISTINCT deployment FROM versions")]

    def list_versions(self, name: str) -> list[Version]:
        """All versions of a deployment, the newest first; also of a deleted one."""
        rows = self._database.execute(
            "SELECT number, body FROM versions WHERE deployment = ? ORDER BY number DESC", name
        )
        if not rows:
            raise self._make_deployment_not_found(name)
        return [read_version(body) for _, body in rows]

    def get_version(self, name: str, number: int) -> Version:
        """One version of a deployment; also of a deleted one, whose runs are kept."""
        found = self._versions.get((name, number))
        if found is None:
            row = self._database.fetch_one(
                "SELECT body FROM versions WHERE deployment = ? AND number = ?", name, number
            )
            if row is None:
                last = self.list_versions(name)[0].number
                raise DeploymentNotFound(f"{name!r} has no version {number}; its latest is {last}.")
            if len(self._versions) >= KEPT_VERSIONS:
                self._versions.clear()
            found = self._versions[name, number] = read_version(row[0])
        return found

    def suspend(self, name: str, suspended: bool, *, now: float) -> None:
        """Suspend a deployment, or unsuspend it from ``now`` on: what was due meanwhile is not made up.

        Parameters
        ----------
        name : str
            Of the deployment.
        suspended : bool
            Whether it starts nothing by itself.
        now : float
            Seconds since 1970.
        """
        with self.transaction():
            if self.get_deployment(name).suspended == suspended:
                return
            self._database.execute("UPDATE deployments SET suspended = ? WHERE name = ?", int(suspended), name)
            if not suspended:
                self._database.execute(
                    "UPDATE deployments SET scheduled_until = ?, events_after = ? WHERE name = ?",
                    now,
                    self._find_last_event(),
                    name,
                )
                self._database.execute("DELETE FROM held WHERE deployment = ?", name)

    def delete(self, name: str) -> None:
        """Delete a deployment: its queued runs become terminated, its runs and versions stay to be read."""
        with self.transaction():
            self.get_deployment(name)
            self._database.execute(
                "UPDATE runs SET status = 'terminated', stop = 0, reason = 'the deployment was deleted' "
                "WHERE deployment = ? AND status = 'queued'",
                name,
            )
            self._database.execute("DELETE FROM held WHERE deployment = ?", name)
            self._database.execute("DELETE FROM deployments WHERE name = ?", name)

    def set_scheduled_until(self, name: str, until: float) -> None:
        """Note that due times up to ``until`` have been dealt with."""
        self._database.execute("UPDATE deployments SET scheduled_until = ? WHERE name = ?", until, name)

    def _read_deployment(self, row: Sequence[Any]) -> Deployment:
        name, version, suspended, until, events_after = row
        return Deployment(name, self.get_version(name, version), bool(suspended), until, events_after)

    def _make_deployment_not_found(self, name: str) -> DeploymentNotFound:
        known = [row[0] for row in self._database.execute("SELECT name FROM deployments ORDER BY name")]
        if not known:
            return DeploymentNotFound(
                f"No deployment {name!r}: nothing is deployed here (`python FLOW.py local-scheduler create`)."
            )
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        return DeploymentNotFound(f"No deployment {name!r}{hint} Deployed: {', '.join(known)}.")
