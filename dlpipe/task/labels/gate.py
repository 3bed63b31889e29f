"""What a gate asks of a model that gives labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dlpipe.task.gate import TOLERANCE, Check, Thresholds
from dlpipe.task.labels.scores import LabelEvaluation

Share = Annotated[float, Ge(0.0), Le(1.0)]
Margin = Annotated[float, Ge(-1.0), Le(1.0)]
SHOWN = 6
"""So many labels stand in a line; of more, those with the lowest recall."""


@dataclass(frozen=True)
class LabelThresholds(Thresholds):
    """What a model must reach to become champion; ``None`` is not asked."""

    metric: Literal["macro_f1", "micro_f1", "exact_match", "log_loss"] = "macro_f1"
    min_macro_f1: Share | None = None
    min_micro_f1: Share | None = None
    min_exact_match: Share | None = None
    max_log_loss: Annotated[float, Ge(0.0), Le(100.0)] | None = None
    baseline_margin: Margin = 0.0
    champion_margin: Margin = 0.0


def check_constant(evaluation: LabelEvaluation) -> Check:
    """Return the check that labels are told apart: a macro F1 above that of giving each of them always."""
    there = [score.rows for score in evaluation.by_label if score.rows]
    constant = sum(2 * rows / (rows + evaluation.rows) for rows in there) / max(1, len(there))
    mine = evaluation.metrics["macro_f1"]
    passed = mine > constant + TOLERANCE
    relation = "above" if passed else "not above"
    return Check(passed, f"macro F1 {mine:.3f} is {relation} the {constant:.3f} of giving every label always")


def describe_recalls(evaluation: LabelEvaluation) -> str:
    """Return the recall of each label in words, the lowest first where there are many.

    Then the labels that the model never gives, and those that no row has: nothing is known of these.
    """
    there = [score for score in evaluation.by_label if score.rows]
    shown = sorted(there, key=lambda score: score.recall)[:SHOWN] if len(there) > SHOWN else there
    words = ", ".join(f"{score.label!r} {score.recall:.3f} of {score.rows}" for score in shown)
    lowest = "recall" if len(shown) == len(there) else f"lowest recall of {len(there)} labels"
    # a precision of NaN is that of a label that no row was given
    never = [score.label for score in there if score.precision != score.precision]
    absent = [score.label for score in evaluation.by_label if not score.rows]
    more = [f"never given: {name_labels(never)}"] if never else []
    more += [f"no row has {name_labels(absent)}"] if absent else []
    return "; ".join([f"{lowest} {words}", *more])


def name_labels(labels: Sequence[str]) -> str:
    """Return labels in a line, at most ``SHOWN`` of them by name.

    Examples
    --------
    >>> name_labels(["drama"]), name_labels(list("abcdefgh"))
    ("'drama'", "'a', 'b', 'c', 'd', 'e', 'f' and 2 more")
    """
    named = ", ".join(map(repr, labels[:SHOWN]))
    return named if len(labels) <= SHOWN else f"{named} and {len(labels) - SHOWN} more"
