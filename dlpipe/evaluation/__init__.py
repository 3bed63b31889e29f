"""Models, baselines and champions scored on a table, and the gate.

What is measured, and what a gate asks beside the comparison, is of the target of the model's task.
"""

from dlpipe.evaluation.gate import Rival, Verdict, judge
from dlpipe.evaluation.on_table import evaluate_baseline, evaluate_champion, evaluate_model
from dlpipe.evaluation.registered import gate_tag, judge_registered
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
    "gate_tag",
    "judge",
    "judge_registered",
]
