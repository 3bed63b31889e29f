"""The gate for a version that is registered already, as the run that registered it would have asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from dlpipe.errors import EvaluationError
from dlpipe.evaluation.gate import Verdict, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_champion, evaluate_model, task_of
from dlpipe.settings import read_settings
from dlpipe.task import Thresholds

if TYPE_CHECKING:
    from dlpipe.registry import ModelVersion

GATE = "gate"
"""The tag of a version that holds the thresholds of its run, as JSON."""


def gate_tag(thresholds: Thresholds) -> dict[str, str]:
    """Return the tag by which a version remembers ``thresholds``."""
    return {GATE: json.dumps(asdict(thresholds))}


def judge_registered(candidate: ModelVersion) -> Callable[[ModelVersion | None], Verdict]:
    """Return what judges ``candidate`` against a champion, on the test rows of the table it was made from.

    Thresholds are those that its run had, the defaults where it has none.

    Raises
    ------
    EvaluationError
        When the version does not say which table it was made from.
    TableNotFound, TableVersionNotFound
        When that is not there any more.
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
    task = task_of(predictor)
    given = json.loads(candidate.tags.get(GATE, "{}"))
    thresholds: Thresholds = read_settings(task.target.gate, given, where=candidate.uri)
    mine = evaluate_model(predictor, table, seed=seed)
    baseline = evaluate_baseline(table, beside=predictor, seed=seed)

    def against(champion: ModelVersion | None) -> Verdict:
        rival = None
        if champion is not None:
            rival = evaluate_champion(
                champion, table, candidate=mine, open_candidate=lambda: predictor, task=task, seed=seed
            )
        return judge(mine, baseline=baseline, champion=rival, thresholds=thresholds, target=task.target)

    return against
