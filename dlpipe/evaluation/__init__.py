"""Metrics with intervals, the baseline, the gate, and their pictures."""

from dlpipe.evaluation.evaluating import evaluate
from dlpipe.evaluation.figures import calibration_figure, confusion_figure
from dlpipe.evaluation.gate import Rival, Thresholds, Verdict, check_classes, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_champion, evaluate_model
from dlpipe.evaluation.registered import gate_tag, judge_registered
from dlpipe.evaluation.scores import METRICS, Bin, Evaluation, Mistake

__all__ = [
    "METRICS",
    "Bin",
    "Evaluation",
    "Mistake",
    "Rival",
    "Thresholds",
    "Verdict",
    "calibration_figure",
    "check_classes",
    "confusion_figure",
    "evaluate",
    "evaluate_baseline",
    "evaluate_champion",
    "evaluate_model",
    "gate_tag",
    "judge",
    "judge_registered",
]
