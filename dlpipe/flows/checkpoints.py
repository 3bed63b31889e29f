"""Training checkpoints in Metaflow's datastore, found again by a retry and by ``resume``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from metaflow import Checkpoint, FlowMutator, Run, current, namespace
from metaflow.exception import MetaflowNotFound
from metaflow_extensions.obcheckpoint.plugins.machine_learning_utilities.card_utils import CardDecoratorInjector

NAME = "training"
CARD = "task_checkpoints"
"""What metaflow-checkpoint calls its card."""


class without_cards(FlowMutator):
    """Keep metaflow-checkpoint from adding cards: with ``show_card=False`` it adds one that stays blank."""

    def mutate(self, mutable_flow: Any) -> None:
        """Say of each step that its card was considered before."""
        for name, _ in mutable_flow.steps:
            CardDecoratorInjector._set_first_time_init_cached_value(name, CARD, False)


class TaskCheckpoints:
    """The checkpoints of the current task (its step carries ``@checkpoint``).

    A retry finds those of its earlier attempts. A resumed run finds those of the same step in the run that it
    resumes, or in the one before that; never those of an unrelated run, as metaflow-checkpoint's own policy
    ``eager`` would.
    """

    def latest(self) -> Path | None:
        """Return a folder with the newest checkpoint, or ``None``."""
        if current.get("checkpoint") is None:  # `spin` runs a step without this decorator
            return None
        if current.checkpoint.is_loaded:
            return Path(current.checkpoint.directory)
        for run in list_origins(current.flow_name, current.origin_run_id):
            if found := find_newest_checkpoint(run, current.step_name):
                current.checkpoint.load(found)
                return Path(current.checkpoint.directory)
        return None

    def save(self, folder: Path) -> None:
        """Copy the files in ``folder`` into the datastore."""
        if current.get("checkpoint") is not None:
            current.checkpoint.save(str(folder), name=NAME)


def list_origins(flow: str, run_id: str | None) -> Iterator[Run]:
    """Yield the run that is resumed, then the one which that had resumed, and so on."""
    namespace(None)
    while run_id:
        try:
            run = Run(f"{flow}/{run_id}")
        except MetaflowNotFound:
            return
        yield run
        run_id = _find_origin(run)


def find_newest_checkpoint(run: Run, step: str) -> dict[str, Any] | None:
    """Return the newest checkpoint of the step's task in ``run``; ``None`` if it did not get that far."""
    try:
        task = run[step].task
    except KeyError:
        return None
    if "ds-root" not in task.metadata_dict:  # killed before it began; list() would raise
        return None
    # given the task's path instead of the task, list() of metaflow-checkpoint 0.2.14 breaks
    attempts = (
        Checkpoint().list(task=task, attempt=number, name=NAME) for number in range(task.current_attempt + 1)
    )
    return max(chain.from_iterable(attempts), key=lambda checkpoint: checkpoint["created_on"], default=None)


def _find_origin(run: Run) -> str | None:
    # a task that was killed before it began does not say
    numbers = (task.metadata_dict.get("origin-run-id") for step in run for task in step)
    return next(filter(None, numbers), None)
