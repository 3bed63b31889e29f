"""Evaluating models, baselines and champions on a table, and the gate.

on_table    evaluations on the test split of a table version
row_by_row  two models on the same rows: which are won and lost
gate        whether a candidate may become champion
registered  the gate for a version that is registered already
paired      two models on the same rows

The metrics, and what a gate asks beside the comparison, are those of the target of the model's task.
"""

from dlpipe.evaluation.gate import Rival, Verdict, judge, list_checks
from dlpipe.evaluation.on_table import LabelledRows, evaluate_baseline, evaluate_champion, evaluate_model
from dlpipe.evaluation.paired import (
    GroupOutcome,
    MetricDifference,
    ModelOutputs,
    PairedComparison,
    RowOutcome,
    compare_outputs,
)
from dlpipe.evaluation.registered import make_gate_tag, prepare_judge
from dlpipe.evaluation.row_by_row import ComparedRow, RowComparison, compare_row_by_row
from dlpipe.task import Evaluation, Mistake, Thresholds

__all__ = [
    "ComparedRow",
    "Evaluation",
    "GroupOutcome",
    "LabelledRows",
    "MetricDifference",
    "Mistake",
    "ModelOutputs",
    "PairedComparison",
    "Rival",
    "RowComparison",
    "RowOutcome",
    "Thresholds",
    "Verdict",
    "compare_outputs",
    "compare_row_by_row",
    "evaluate_baseline",
    "evaluate_champion",
    "evaluate_model",
    "judge",
    "list_checks",
    "make_gate_tag",
    "prepare_judge",
]
