"""A deployment and its runs, as Metaflow's Deployer has them."""

from __future__ import annotations

import atexit
import contextlib
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metaflow import Run, get_metadata
from metaflow.exception import MetaflowNotFound
from metaflow.runner.deployer import DeployedFlow, Deployer, TriggeredRun, generate_fake_flow_file_contents
from metaflow.runner.utils import get_lower_level_group, handle_timeout, temporary_fifo

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version
    from dlpipe.orchestrator.state import State


KINDS = ("str", "int", "float", "bool", "JSON", "FilePath")
"""The types that Metaflow's stand-in for a flow can have; the others are given as text."""


class AttemptRun(Run):
    """The Metaflow run of an attempt, which has finished when the scheduler says that the run has ended for good.

    Metaflow's own ``finished`` waits for the last step: of a run that failed for good, for ever.
    """

    def __init__(self, number: int, pathspec: str, **more: Any) -> None:
        self._number = number
        super().__init__(pathspec, _namespace_check=False, **more)

    @property
    def finished(self) -> bool:
        """Return whether it has ended, well or not (``successful``), and no resume of it is to come."""
        return bool(super().finished) or self._find_end() is not None

    @property
    def finished_at(self) -> datetime | None:
        """Return when it ended, well or not."""
        ended = self._find_end()
        return super().finished_at or (None if ended is None else datetime.fromtimestamp(ended))

    def _find_end(self) -> float | None:
        """When its attempt ended; ``None`` while it or a resume of it goes on or is to come."""
        from dlpipe.errors import RunNotFound
        from dlpipe.orchestrator.runs import OPEN

        with _open_state() as state, contextlib.suppress(RunNotFound):  # of long ago
            run = state.get_run(self._number)
            own = next((attempt for attempt in run.attempts if attempt.metaflow_run == self.id), run.attempts[-1])
            return None if run.status in OPEN else own.ended
        return None


class LocalSchedulerTriggeredRun(TriggeredRun):
    """A run of a deployment; its Metaflow run exists once the scheduler has started it.

    Attributes
    ----------
    name : str
        ``ls-17`` for run 17.
    pathspec : str
        Of the newest attempt's Metaflow run; before there is one, the flow and the name.
    """

    @property
    def pathspec(self) -> str:
        """Return where its Metaflow run is."""
        found = self.run
        return found.pathspec if found else f"{self._flow}/{self.name}"

    @pathspec.setter
    def pathspec(self, text: str) -> None:
        self._flow = text.partition("/")[0]

    @property
    def number(self) -> int:
        """Return its number on this machine."""
        return int(self.name.removeprefix("ls-"))

    @property
    def run(self) -> Run | None:
        """Return the Metaflow run of the newest attempt that has one; ``None`` before there is any.

        While a resume begins, that is the run which it resumes.
        """
        return next(self._metaflow_runs(), None)

    @property
    def runs(self) -> list[Run]:
        """Return the Metaflow runs of all attempts, the oldest first."""
        return [*self._metaflow_runs()][::-1]

    def _metaflow_runs(self) -> Iterator[Run]:
        """The newest first."""
        for attempt in reversed(self._run().attempts):
            with contextlib.suppress(MetaflowNotFound):  # it has only just begun, or was killed before that
                pathspec = f"{self._flow}/{attempt.metaflow_run or self.name}"
                yield AttemptRun(self.number, pathspec, _current_metadata=self.metadata_for_flow)

    @property
    def status(self) -> str:
        """Return where it stands: queued, running, waiting, succeeded, failed, terminated or skipped."""
        return self._run().status

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        from dlpipe.orchestrator.runs import OPEN

        return self.status in OPEN

    def terminate(self, **options: Any) -> bool:
        """Stop it, and return whether that could be asked for; ``authorize`` is a production token."""
        return _finish(self.deployer, "terminate", run_id=str(self.number), **options)

    def suspend(self, **options: Any) -> bool:
        """Let it begin no further step, and return whether that could be asked for; as ``terminate`` does."""
        return _finish(self.deployer, "suspend", run_id=str(self.number), **options)

    def unsuspend(self, **options: Any) -> bool:
        """Let it go on."""
        return _finish(self.deployer, "unsuspend", run_id=str(self.number), **options)

    def wait_for_completion(self, check_interval: float = 5, timeout: float | None = None) -> None:
        """Return when it has ended.

        Raises
        ------
        TimeoutError
            When that takes more than ``timeout`` seconds.
        """
        started = time.monotonic()
        while self.is_running:
            if timeout is not None and time.monotonic() - started > timeout:
                raise TimeoutError(f"Run {self.number} is {self.status} after {timeout:.0f} seconds.")
            time.sleep(check_interval)

    def _run(self) -> Any:
        with _open_state() as state:
            return state.get_run(self.number)


class LocalSchedulerDeployedFlow(DeployedFlow):
    """A deployment on dlpipe's scheduler for one machine."""

    TYPE: ClassVar[str | None] = "local-scheduler"

    @classmethod
    def list_deployed_flows(cls, flow_name: str | None = None) -> Iterator[LocalSchedulerDeployedFlow]:
        """Yield what is deployed here, of one flow or of all."""
        with _open_state() as state:
            names = [
                deployment.name
                for deployment in state.list_deployments()
                if flow_name in (None, deployment.version.flow)
            ]
        yield from map(cls.from_deployment, names)

    @classmethod
    def from_deployment(cls, identifier: str, metadata: str | None = None) -> LocalSchedulerDeployedFlow:
        """Return the deployment of this name; the flow's file is not needed."""
        with _open_state() as state:
            version = state.get_deployment(identifier).version
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
            file.write(_write_stand_in(version))
        atexit.register(Path(file.name).unlink, missing_ok=True)
        deployer = Deployer(
            file.name, env={"METAFLOW_USER": version.author}, cwd=version.folder, **_build_project_options(version)
        ).local_scheduler(**({} if version.project else {"name": identifier}))
        deployer.name, deployer.flow_name = identifier, version.flow
        deployer.metadata = metadata or get_metadata()
        return cls(deployer=deployer)

    @classmethod
    def get_triggered_run(
        cls, identifier: str, run_id: str, metadata: str | None = None
    ) -> LocalSchedulerTriggeredRun:
        """Return the run of a deployment that ``run_id`` names: ``17``, ``ls-17`` or a Metaflow run id."""
        from .telling import find_run

        flow = cls.from_deployment(identifier, metadata)
        with _open_state() as state:
            return flow._make_run(find_run(state, identifier, run_id).number)

    @property
    def production_token(self) -> str | None:
        """Return the production token; ``None`` once it is deleted."""
        from dlpipe.errors import DeploymentNotFound

        try:
            return self.version.token
        except DeploymentNotFound:
            return None

    @property
    def version(self) -> Version:
        """Return the newest version."""
        with _open_state() as state:
            return state.get_deployment(self.name).version

    @property
    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` says but for the working tree: schedule, due times, versions, policies."""
        from .telling import describe_deployment

        with _open_state() as state:
            return describe_deployment(state, self.name)

    def list_runs(self, states: Sequence[str] = (), limit: int | None = None) -> list[LocalSchedulerTriggeredRun]:
        """Return its runs, the newest first; of all statuses, or those in ``states``, in any case.

        Raises
        ------
        SettingError
            When there is no such status, or the limit is below nought.
        """
        from .telling import check_limit, parse_status

        check_limit(limit or 0)
        statuses = tuple(map(parse_status, states or ()))
        with _open_state() as state:
            runs = state.list_runs(deployment=self.name, status=statuses, limit=limit)
        return [self._make_run(run.number) for run in runs]

    def trigger(self, **parameters: Any) -> LocalSchedulerTriggeredRun:
        """Run it once with these parameters, over those of the deployment.

        Raises
        ------
        RuntimeError
            When the command fails, with what it said.
        """
        deployer = self.deployer
        with temporary_fifo() as (file, descriptor):
            command = _find_group(deployer).trigger(deployer_attribute_file=file, **parameters)
            process = _start(deployer, command)
            content = handle_timeout(descriptor, process, deployer.file_read_timeout)
            process.sync_wait()
            if process.process.returncode == 0:
                return LocalSchedulerTriggeredRun(deployer=deployer, content=content)
        raise RuntimeError(f"Error triggering {self.name} on {self.TYPE}")

    def suspend(self, **options: Any) -> bool:
        """Start no runs by schedule or events; ``authorize`` is a production token."""
        return _finish(self.deployer, "suspend", **options)

    def unsuspend(self, **options: Any) -> bool:
        """Start runs again."""
        return _finish(self.deployer, "unsuspend", **options)

    def delete(self, **options: Any) -> bool:
        """Delete the deployment; its runs stay to be read."""
        return _finish(self.deployer, "delete", **options)

    def _make_run(self, number: int) -> LocalSchedulerTriggeredRun:
        name = f"ls-{number}"
        content = {"name": name, "pathspec": f"{self.flow_name}/{name}", "metadata": self.metadata}
        return LocalSchedulerTriggeredRun(deployer=self.deployer, content=json.dumps(content))


@contextlib.contextmanager
def _open_state() -> Iterator[State]:
    from .cli import open_state

    with open_state() as state:
        yield state


def _find_group(deployer: Any) -> Any:
    return get_lower_level_group(deployer.api, deployer.top_level_kwargs, deployer.TYPE, deployer.deployer_kwargs)


def _start(deployer: Any, command: list[str]) -> Any:
    process = deployer.spm.run_command(
        [sys.executable, *command], env=deployer.env_vars, cwd=deployer.cwd, show_output=deployer.show_output
    )
    return deployer.spm.get(process)


def _finish(deployer: Any, command: str, **options: Any) -> bool:
    process = _start(deployer, getattr(_find_group(deployer), command)(**options))
    process.sync_wait()
    return process.process.returncode == 0


def _write_stand_in(version: Version) -> str:
    """A flow with the name, project and parameters of a deployed one."""
    described = {
        name: {
            "python_var_name": re.sub(r"\W", "_", name),
            "name": name,
            "type": kind if (kind := version.parameter_types.get(name)) in KINDS else "str",
            "description": "",
            "is_required": False,
        }
        for name in version.parameter_names
    }
    content = generate_fake_flow_file_contents(version.flow, described, version.project or None)
    for name in version.multiple:  # which Metaflow's stand-in knows nothing of
        content = content.replace(f"Parameter('{name}', ", f"Parameter('{name}', multiple=True, ")
    return content


def _build_project_options(version: Version) -> dict[str, Any]:
    """The options of ``@project`` that lead to the version's branch."""
    kind, _, branch = version.branch.partition(".")
    if kind == "prod":
        return {"production": True, **({"branch": branch} if branch else {})}
    return {"branch": branch} if kind == "test" else {}
