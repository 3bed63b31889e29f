"""The gate for a version that is registered already, as the run that registered it would have asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from dlpipe.errors import EvaluationError
from dlpipe.evaluation.gate import Verdict, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_champion, evaluate_model, find_model_task
from dlpipe.settings import read_settings
from dlpipe.task import Thresholds

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion

GATE = "mlflow.dlpipe.gate"
"""The tag of a version that holds the thresholds of its run, as JSON; MLflow's pages do not show it."""


def make_gate_tag(thresholds: Thresholds) -> dict[str, str]:
    """Return the tag that records ``thresholds`` with a version."""
    return {GATE: json.dumps(asdict(thresholds))}


def prepare_judge(candidate: ModelVersion) -> Callable[[ModelVersion | None], Verdict]:
    """Return a function that judges ``candidate`` against a champion on the test rows of its own table version.

    Thresholds are those of the run that registered it, else the defaults. The candidate and its baseline are
    evaluated here, once: ``judge_and_promote`` calls the function again if another version became champion.

    Raises
    ------
    EvaluationError
        When the version does not say which table it was made from.
    TableNotFound, TableVersionNotFound
        When that table or version does not exist any more.
    """
    from dlpipe.inference import load_predictor
    from dlpipe.tables import table_at

    if not {"delta.table", "delta.version"} <= candidate.tags.keys():
        raise EvaluationError(
            f"{candidate.uri} does not say what it was trained on, so no gate can judge it. Use --force."
        )
    table = table_at(candidate.tags["delta.table"], version=int(candidate.tags["delta.version"]))
    seed = int(candidate.tags.get("seed", 0))
    predictor = load_predictor(candidate.uri, engine="torch")
    task = find_model_task(predictor)
    tagged = json.loads(candidate.tags.get(GATE, "{}"))
    thresholds: Thresholds = read_settings(task.target.gate, tagged, where=candidate.uri)
    evaluation = evaluate_model(predictor, table, seed=seed)
    baseline = evaluate_baseline(table, beside=predictor, seed=seed)

    def against(champion: ModelVersion | None) -> Verdict:
        rival = None
        if champion is not None:
            rival = evaluate_champion(
                champion, table, candidate=evaluation, open_candidate=lambda: predictor, task=task, seed=seed
            )
        return judge(evaluation, baseline=baseline, champion=rival, thresholds=thresholds, target=task.target)

    return against
