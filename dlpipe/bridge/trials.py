"""Ray Tune's trials as MLflow runs under the run of the task that searches: the bridge's only file on Ray.

    ray.tune.RunConfig(callbacks=[TrialRuns()])

Three calls a trial, however often it reports; a search that is restored goes on in the same runs.
"""

from __future__ import annotations

import logging
import numbers
import os
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ray.tune import Callback

from dlpipe.bridge.records import TRIAL
from dlpipe.bridge.values import keep_text, to_mlflow_key
from dlpipe.redaction import redact_value

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

NOISE = frozenset(
    {"pid", "timestamp", "date", "hostname", "node_ip", "done", "trial_id", "experiment_tag", "should_checkpoint"}
    | {"time_this_iter_s", "time_total_s", "time_since_restore", "iterations_since_restore", "training_iteration"}
    | {"checkpoint_dir_name", "config", "episodes_total", "timesteps_total", "timesteps_since_restore"}
)
FLUSH_SECONDS = 30.0
_log = logging.getLogger(__name__)


class TrialRuns(Callback):
    """Logs each trial as a run of its own; a failure to log never fails the search.

    A run is called ``trial 3``, by the order in which trials were made; Ray's own id of the trial is in its tags.
    Inside a bridged step the runs stand under that task's run; elsewhere, in MLflow's active experiment. What a
    trial reports is a metric for each number, with ``training_iteration`` as its step; settings are parameters.
    A trial whose last report has an ``error`` ends as failed, with the error as a tag. What a trial that is tried
    again reports a second time is left out.
    """

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._numbers: dict[str, int] = {}
        self._points: dict[str, list[Metric]] = defaultdict(list)
        self._steps: dict[str, int] = defaultdict(int)
        self._errors: dict[str, str] = {}
        self._flushed: dict[str, float] = {}
        self._params: dict[str, list[Param]] = {}
        self._known: dict[str, Run] | None = None
        self._experiment = ""
        self._failed = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Make the trial's run, or find that of the search before it was restored."""
        for other in trials:  # in the order in which they were made: one that is tried again goes to the end later
            self._find_number(other)
        self._try(self._begin, trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep what the trial reports until there is enough for a call."""
        self._try(self._add, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial's run."""
        self._try(self._end, trial, "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End the trial's run as failed."""
        self._try(self._end, trial, "FAILED")

    def _try(self, do: Any, *args: Any) -> None:
        try:
            do(*args)
        except Exception as error:
            if not self._failed:
                _log.warning("MLflow lacks something of the trials: %s", str(error).splitlines()[0])
            self._failed = True

    def _begin(self, trial: Any) -> None:
        from mlflow.entities import Param

        if trial.trial_id in self._runs:
            return
        run = self._find_earlier(trial)
        if run is None:
            tags = {**self._make_stamp(), TRIAL: self._make_key(trial)}
            run = self._client().create_run(
                self._experiment, tags=tags, run_name=f"trial {self._find_number(trial)}"
            )
        self._runs[trial.trial_id] = run
        self._flushed[trial.trial_id] = time.monotonic()
        given = {to_mlflow_key(str(name)): str(value) for name, value in _flatten(trial.config or {})}
        self._params[trial.trial_id] = [
            Param(name, str(keep_text(name, value).param))
            for name, value in given.items()
            if name not in run.data.params
        ]

    def _find_number(self, trial: Any) -> int:
        """Return the number of the trial, from 1, by which the search's own lines call it."""
        return self._numbers.setdefault(trial.trial_id, len(self._numbers) + 1)

    def _find_earlier(self, trial: Any) -> Run | None:
        """Return the run that this trial had before the search was restored."""
        if self._known is None:
            client = self._client()
            self._experiment = self._find_experiment()
            name = self._make_key(trial).rpartition("/")[0]
            found = client.search_runs([self._experiment], f"tags.`{TRIAL}` LIKE '{name}/%'", max_results=1000)
            self._known = {run.data.tags[TRIAL]: run for run in found}
        return self._known.get(self._make_key(trial))

    def _make_key(self, trial: Any) -> str:
        return f"{getattr(trial, 'experiment_dir_name', '')}/{trial.trial_id}"

    def _find_experiment(self) -> str:
        """Return the experiment for the trials: that of the task's run, else the active one."""
        from mlflow.tracking import fluent

        if parent := self._make_stamp().get("mlflow.parentRunId"):
            return str(self._client().get_run(parent).info.experiment_id)
        return str(fluent._get_experiment_id())

    def _make_stamp(self) -> dict[str, str]:
        from mlflow.tracking.context.registry import resolve_tags

        wanted = ("mlflow.parentRunId", "metaflow.task", "mlflow.user")
        return {name: value for name, value in resolve_tags().items() if name in wanted}

    def _add(self, trial: Any, result: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        if result.get("error"):
            self._errors[trial.trial_id] = str(result["error"])
            return
        step = int(result.get("training_iteration", 0))
        if 0 < step <= self._steps[trial.trial_id]:
            return
        self._steps[trial.trial_id] = step
        when = int(result.get("timestamp", time.time()) * 1000)
        self._points[trial.trial_id] += [
            Metric(to_mlflow_key(str(name)), float(value), when, step)
            for name, value in _flatten(result)
            if name.partition("/")[0] not in NOISE and _is_number(value)
        ]
        if time.monotonic() - self._flushed.get(trial.trial_id, 0.0) > FLUSH_SECONDS:
            self._flush(trial)

    def _flush(self, trial: Any) -> None:
        points, params = self._points[trial.trial_id], self._params.setdefault(trial.trial_id, [])
        run_id = self._runs[trial.trial_id].info.run_id
        while points or params:
            self._client().log_batch(run_id, points[:800], params[:100], [])
            del points[:800], params[:100]  # not before: where MLflow does not answer, there is a next time
        self._flushed[trial.trial_id] = time.monotonic()

    def _end(self, trial: Any, status: str) -> None:
        self._begin(trial)
        self._flush(trial)
        run_id = self._runs[trial.trial_id].info.run_id
        if error := self._errors.get(trial.trial_id):
            status = "FAILED"
            self._client().set_tag(run_id, "error", redact_value("error", error)[:5000])
        self._client().set_terminated(run_id, status)

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or None)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _flatten(values: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Return nested settings and results under names such as ``optimizer/lr``."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flatten(value, f"{before}{name}/") if isinstance(value, dict) else [(f"{before}{name}", value)]
    return found
