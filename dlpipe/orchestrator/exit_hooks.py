"""``@exit_hook``: a flow's functions are called once, when its run has ended for good.

What is to be called is noted in the same commit as the run's end, so that no kill loses it. The calls are a
process with a keeper, as an attempt is: that is begun once, whoever starts it and how often.
"""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

from dlpipe.errors import RunNotFound
from dlpipe.orchestrator.attempts import build_environment, build_hook_command
from dlpipe.orchestrator.processes import conclude_attempt, count_starts, has_begun, has_keeper, start_attempt
from dlpipe.orchestrator.runs import Hook, Run, RunAttempt
from dlpipe.orchestrator.state import State

SECONDS = 3600.0
"""What the hooks of a run may take."""
STARTS = 5  # keepers that died before they had begun
LOG = logging.getLogger(__name__)


class ExitHooks:
    """Notes the hooks of runs that end, and has them called without holding up the caller."""

    def __init__(self, state: State) -> None:
        self._state = state

    def note(self, run: Run) -> None:
        """Note what the end of ``run`` calls; a run that was stopped before it began calls nothing."""
        version = self._state.get_version(run.deployment, run.version)
        functions = version.success_hooks if run.status == "succeeded" else version.error_hooks
        if functions and (run.attempts or run.status == "failed"):
            self._state.add_hook(Hook(run.number, len(run.attempts), str(uuid.uuid4()), functions))

    def look(self) -> list[str]:
        """Have called what is to be called; return the deployments of which calls have ended."""
        return [name for hook in self._state.list_hooks() if (name := self._carry_on(hook))]

    def _carry_on(self, hook: Hook) -> str:
        """Begin the calls, or see whether they have ended: then the name of their deployment."""
        folder = self._state.folder / "runs" / str(hook.run) / f"hook-{hook.attempts}"
        try:
            run = self._state.get_run(hook.run)
        except RunNotFound:  # forgotten, after months without a scheduler
            self._state.remove_hook(hook)
            return ""
        # calls are kept as attempts are: begun once, found by the next scheduler, ended with all that they started
        if not has_begun(folder) and count_starts(folder) < STARTS:
            if not has_keeper(folder):
                self._begin(hook, run, folder)
            return ""
        done = conclude_attempt(folder, hook.token)
        if done is None:
            return ""
        if done.exit_code != 0:
            LOG.warning(
                "run %d of %s: its exit hooks failed; `dlpipe logs %d`", hook.run, run.deployment, hook.run
            )
        # after their end: while a hook is noted, the code of its version is kept
        self._state.remove_hook(hook)
        return run.deployment

    def _begin(self, hook: Hook, run: Run, folder: Path) -> None:
        version = self._state.get_version(run.deployment, run.version)
        last = run.attempts[-1] if run.attempts else RunAttempt(0, hook.token, str(folder))
        try:
            start_attempt(
                folder,
                build_hook_command(version, run, hook.functions),
                cwd=version.folder,
                variables=build_environment(version, run, last),
                token=hook.token,
                time_limit=SECONDS,
                log=Path(last.folder, "log"),
            )
        except OSError as error:
            LOG.warning("run %d: %s", run.number, error)
