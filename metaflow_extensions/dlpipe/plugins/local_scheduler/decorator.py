"""What a task of a deployed run does before its step: it says what triggered the run."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from metaflow import current
from metaflow.decorators import StepDecorator
from metaflow.events import Trigger
from metaflow.metadata_provider import MetaDatum

TRIGGERS = "METAFLOW_LOCAL_SCHEDULER_TRIGGERS"
"""Environment variable: JSON of ``{"timestamp", "id", "name", "type"}``, as ``MetaflowTrigger`` has them."""
FOLDER = "_DLPIPE_ATTEMPT_FOLDER"
"""Environment variable: the folder of the attempt."""


class LocalSchedulerInternal(StepDecorator):
    """Fill ``current.trigger`` and ``Run.trigger`` in runs that the local scheduler starts; not for people."""

    name = "local_scheduler_internal"
    defaults: ClassVar[dict[str, Any]] = {"deployment": None}

    def task_pre_step(
        self, step_name: str, task_datastore: Any, metadata: Any, run_id: str, task_id: str, *rest: Any
    ) -> None:
        """Set ``current.trigger`` in every task, and what ``Run.trigger`` reads in the first."""
        _, graph, retry_count = rest[:3]
        triggers = json.loads(os.environ.get(TRIGGERS) or "[]")
        fields = {"local-scheduler-deployment": self.attributes["deployment"]}
        if triggers:
            current._update_env({"trigger": Trigger(triggers)})
            if step_name == graph.start_step:
                fields["execution-triggers"] = json.dumps(triggers)
        tags = [f"attempt_id:{retry_count}"]
        metadata.register_metadata(
            run_id,
            step_name,
            task_id,
            [MetaDatum(field=key, value=value, type=key, tags=tags) for key, value in fields.items()],
        )

    def task_finished(
        self, step_name: str, flow: Any, graph: Any, is_task_ok: bool | None, *args: Any, **more: Any
    ) -> None:
        """Note the last task beside the attempt, so that nobody need ask Metaflow how the run ended."""
        folder = os.environ.get(FOLDER)
        if folder and is_task_ok and step_name == graph.end_step:
            from dlpipe.durable import write_file  # no task of another launcher imports dlpipe

            with contextlib.suppress(OSError):
                write_file(Path(folder, "end"), current.pathspec)
