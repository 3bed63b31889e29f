"""Evaluating models, baselines and champions on a table, and the gate.

on_table    evaluations on the test split of a table version
gate        whether a candidate may become champion
registered  the gate for a version that is registered already

The metrics, and what a gate asks beside the comparison, are those of the target of the model's task.
"""

from dlpipe.evaluation.gate import Rival, Verdict, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_champion, evaluate_model
from dlpipe.evaluation.registered import make_gate_tag, prepare_judge
from dlpipe.task import Evaluation, Mistake, Thresholds

__all__ = [
    "Evaluation",
    "Mistake",
    "Rival",
    "Thresholds",
    "Verdict",
    "evaluate_baseline",
    "evaluate_champion",
    "evaluate_model",
    "judge",
    "make_gate_tag",
    "prepare_judge",
]
