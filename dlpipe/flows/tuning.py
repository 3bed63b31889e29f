"""The search over settings, as a step does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlpipe.flows.checkpoints import TaskCheckpoints

if TYPE_CHECKING:
    from dlpipe.flows.settings import TrainFlowSettings
    from dlpipe.tables import TableVersion
    from dlpipe.tuning import Tuned


def search_settings(rows: TableVersion, settings: TrainFlowSettings, *, ray_address: str | None = None) -> Tuned:
    """Return the best settings of the search space for ``rows``, and all trials.

    Each trial is a run in MLflow inside that of the step (which carries ``@checkpoint``), and a retry goes on
    after the trials that ended.

    Parameters
    ----------
    ray_address : str, optional
        The cluster whose cores run trials; by default those of this machine.
    """
    from dlpipe.bridge.trials import TrialRuns
    from dlpipe.cluster import join
    from dlpipe.tuning import tune

    with join(ray_address) as cluster:
        return tune(
            rows,
            task=settings.task,
            space=settings.search_space,
            settings=settings.tuning,
            training=settings.training,
            callbacks=[TrialRuns()],
            checkpoints=TaskCheckpoints(),
            cluster=cluster,
        )
