"""Exit hooks in the state, from the end of their run until they have been called."""

from __future__ import annotations

import json

from dlpipe.orchestrator.kept_runs import KeptRuns
from dlpipe.orchestrator.runs import Hook


class KeptHooks(KeptRuns):
    """Exit hooks that are to be called, or are being called."""

    def add_hook(self, hook: Hook) -> None:
        """Note that a run's hooks are to be called; once for each of its ends, however often this is called."""
        self._database.execute(
            "INSERT INTO hooks VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            *(hook.run, hook.attempts, hook.token, json.dumps(hook.functions)),
        )

    def list_hooks(self) -> list[Hook]:
        """All of them, the oldest run first."""
        rows = self._database.execute("SELECT run, attempts, token, functions FROM hooks ORDER BY run, attempts")
        return [Hook(run, attempts, token, tuple(json.loads(names))) for run, attempts, token, names in rows]

    def remove_hook(self, hook: Hook) -> None:
        """Note that a run's hooks were called."""
        self._database.execute("DELETE FROM hooks WHERE run = ? AND attempts = ?", hook.run, hook.attempts)

    def find_versions_with_hooks(self, deployment: str) -> set[int]:
        """Numbers of a deployment's versions whose hooks are to be called, or are being called."""
        rows = self._database.execute(
            "SELECT DISTINCT version FROM runs JOIN hooks ON number = run WHERE deployment = ?", deployment
        )
        return {row[0] for row in rows}
