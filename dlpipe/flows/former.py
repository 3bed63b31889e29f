"""The training of the champion that a new model will be measured against, from the runs of the same flow."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from metaflow import Flow, Task, current, get_namespace, namespace
from metaflow.exception import MetaflowNotFound

if TYPE_CHECKING:
    from metaflow import Run

    from dlpipe.registry import ModelVersion, Promotion
    from dlpipe.training import EpochScore

MOST_RUNS = 20
"""So many of the last runs are looked at: a training does not wait for the history of years."""
REGISTERS, SCORES = "register", "epoch_scores"


@dataclass(frozen=True)
class FormerTraining:
    """How an earlier version of a model was trained.

    Attributes
    ----------
    version : ModelVersion
    epochs : tuple of EpochScore
        At least one.
    rows : str
        The version of the table that it learnt from.
    was_champion : bool
        Whether it was the champion when the last version was judged.
    """

    version: ModelVersion
    epochs: tuple[EpochScore, ...]
    rows: str
    was_champion: bool

    def __str__(self) -> str:
        kind = "the champion so far" if self.was_champion else "the version before"
        return f"{self.version}, {kind}, trained on {self.rows}"


def find_former(model: str) -> FormerTraining | None:
    """Return the training of the champion that the last earlier run of this flow has left.

    Where that is not among the last runs, the training of the newest version; ``None`` where there is none. It
    asks Metaflow alone: to import MLflow takes longer than all of this. It is for people to look at, and never
    fails a run.

    Parameters
    ----------
    model : str
        The name under which versions are registered.
    """
    seen_by = get_namespace()
    namespace(None)  # runs by hand and those of a scheduler are in different ones
    try:
        return _choose(list(islice(_list_registered(model), MOST_RUNS)))
    except Exception:
        traceback.print_exc()
        return None
    finally:
        namespace(seen_by)


def _list_registered(model: str) -> Iterator[tuple[Run, Promotion]]:
    """Yield earlier runs that have registered a version, the newest first."""
    try:
        runs = list(islice(Flow(current.flow_name), MOST_RUNS + 1))
    except MetaflowNotFound:
        return
    for run in runs:
        promotion = None if run.id == current.run_id else _read(run, REGISTERS, "promotion")
        if promotion is not None and promotion.version.name == model:
            yield run, promotion


def _choose(registered: list[tuple[Run, Promotion]]) -> FormerTraining | None:
    if not registered:
        return None
    last = registered[0][1]
    champion = last.version.version if last.moved else last.previous
    for wanted in (champion, None):
        for run, promotion in registered:
            is_champion = promotion.version.version == champion
            if (wanted is None or is_champion) and (epochs := _read(run, current.step_name, SCORES)):
                rows = _read(run, current.step_name, "trained_on")
                return FormerTraining(promotion.version, tuple(epochs), str(rows or "another table"), is_champion)
    return None


def _read(run: Run, step: str, name: str) -> Any:
    """Return an artifact of a step's only task; ``None`` where the run has none."""
    try:
        task: Task = run[step].task
        return task[name].data
    except (KeyError, MetaflowNotFound):
        return None
