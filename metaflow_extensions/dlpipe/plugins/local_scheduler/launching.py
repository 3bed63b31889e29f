"""A run whose id is known before it begins: Metaflow's ``run`` and ``resume`` take none, or only a number."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from metaflow import current, namespace
from metaflow.package import MetaflowPackage
from metaflow.runtime import NativeRuntime

from .decorator import FOLDER

SUSPENDED = "suspended"
"""The file in the attempt's folder while its run is suspended."""
LOOK_SECONDS = 0.5


class DeployedRuntime(NativeRuntime):
    """Metaflow's runtime of one attempt: it can be suspended, and does not know whether it is the last.

    While its run is suspended it begins no step; those that have begun end.
    """

    _is_held = False

    def _launch_workers(self) -> None:
        while self._run_queue and self._is_suspended():
            if self._active_tasks[0]:  # Metaflow has to look after them
                return
            time.sleep(LOOK_SECONDS)
        super()._launch_workers()

    def _is_suspended(self) -> bool:
        folder = os.environ.get(FOLDER)
        held = bool(folder) and os.path.exists(os.path.join(str(folder), SUSPENDED))
        if held != self._is_held:
            self._is_held = held
            self._logger("Suspended: no step begins." if held else "The run goes on.", system_msg=True)
        return held

    def _run_exit_hooks(self) -> None:
        """Leave the exit hooks to the scheduler: it calls them once, when the run has ended for good."""


def run_flow(
    obj: Any,
    run_id: str,
    *,
    tags: Sequence[str],
    origin: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    user_namespace: str | None = None,
    max_workers: int,
    max_num_splits: int,
    max_log_size: int,
) -> None:
    """Run the flow as ``run`` does, or go on with the run ``origin`` as ``resume`` does.

    The file ``latest_run``, by which people resume without naming a run, is left alone.
    """
    if user_namespace is not None:
        namespace(user_namespace or None)
    obj.metadata.add_sticky_tags(tags=tags)
    obj.package = MetaflowPackage(
        obj.flow, obj.environment, obj.echo, suffixes=obj.package_suffixes, flow_datastore=None
    )
    runtime = DeployedRuntime(
        obj.flow,
        obj.graph,
        obj.flow_datastore,
        obj.metadata,
        obj.environment,
        obj.package,
        obj.logger,
        obj.entrypoint,
        obj.event_logger,
        obj.monitor,
        run_id=run_id,
        clone_run_id=origin,
        steps_to_rerun=set(),
        max_workers=max_workers,
        max_num_splits=max_num_splits,
        max_log_size=max_log_size * 1024 * 1024,
    )
    if origin is None:  # otherwise they are the origin's
        obj.flow._set_constants(obj.graph, parameters or {}, obj.config_options)
    current._update_env({"run_id": runtime.run_id})
    runtime.print_workflow_info()
    runtime.persist_constants()
    with runtime.run_heartbeat():
        if origin is not None:
            runtime.clone_original_run(generate_task_obj=True, verbose=False)
        runtime.execute()
