"""Evaluating models, baselines and champions on a table, and the gate.

on_table    evaluations on the test split of a table version
gate        whether a candidate may become champion
registered  the gate for a version that is registered already
paired      two models on the same rows

The metrics, and what a gate asks beside the comparison, are those of the target of the model's task.
"""

from dlpipe.evaluation.gate import Rival, Verdict, judge
from dlpipe.evaluation.on_table import LabelledRows, evaluate_baseline, evaluate_champion, evaluate_model
from dlpipe.evaluation.paired import MetricDifference, ModelOutputs, PairedComparison, RowOutcome, compare_outputs
from dlpipe.evaluation.registered import make_gate_tag, prepare_judge
from dlpipe.task import Evaluation, Mistake, Thresholds

__all__ = [
    "Evaluation",
    "LabelledRows",
    "MetricDifference",
    "Mistake",
    "ModelOutputs",
    "PairedComparison",
    "Rival",
    "RowOutcome",
    "Thresholds",
    "Verdict",
    "compare_outputs",
    "evaluate_baseline",
    "evaluate_champion",
    "evaluate_model",
    "judge",
    "make_gate_tag",
    "prepare_judge",
]
