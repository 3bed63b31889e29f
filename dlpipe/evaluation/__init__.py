"""Metrics with intervals, the baseline, the gate, and their pictures."""

from dlpipe.evaluation.baseline import Baseline, fit_baseline
from dlpipe.evaluation.figures import calibration_figure, confusion_figure
from dlpipe.evaluation.gate import Thresholds, Verdict, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_model
from dlpipe.evaluation.scores import METRICS, Bin, Evaluation, Mistake, evaluate

__all__ = [
    "METRICS",
    "Baseline",
    "Bin",
    "Evaluation",
    "Mistake",
    "Thresholds",
    "Verdict",
    "calibration_figure",
    "confusion_figure",
    "evaluate",
    "evaluate_baseline",
    "evaluate_model",
    "fit_baseline",
    "judge",
]
