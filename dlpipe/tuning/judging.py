"""Whether a search found something: its best trial against guessing, and against the settings as they stand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.training.chance import f1_error, guessed, guessed_at_most, quantile

if TYPE_CHECKING:
    from dlpipe.tuning import Trial

STAY = "the settings as they stand"


@dataclass(frozen=True)
class Found:
    """What a search gives to the training.

    Attributes
    ----------
    values : mapping
        Of the best trial, or those of the settings as they stand.
    note : str
        Why.
    """

    values: Mapping[str, Any]
    note: str


def judge_trials(
    trials: Sequence[Trial], as_set: Mapping[str, Any], *, rows: Sequence[int], confidence: float
) -> Found:
    """Return the values to train with.

    The best trial's are taken where it is better than guessing, and than the trial of the settings as they stand,
    by more than chance gives to the best of so many trials (Bonferroni's correction). Otherwise the settings stay.

    Parameters
    ----------
    trials : sequence of Trial
        One at least ended without an error. Where the settings as they stand failed, they are not gone back to.
    as_set : mapping
        The settings of the search space as they stand.
    rows : sequence of int
        The rows of each class in the valid split.
    confidence : float
        How sure it must be; 0 takes the best trial's.
    """
    done = [trial for trial in trials if trial.scores and not trial.error]
    best = max(done, key=lambda trial: (trial.score, -trial.number))
    first = next((trial for trial in trials if trial.values == as_set), None)
    if not confidence or not rows or (first and first not in done):
        return Found(best.values, f"{_named(best)} is the best")
    bar = guessed_at_most(rows, confidence=confidence, comparisons=len(done))
    if best.score <= bar:
        return Found(as_set, _guessing(best, bar, rows))
    if best is first:
        return Found(best.values, f"{STAY} (trial {best.number + 1}) are the best of {len(done)}")
    return _compared(best, first, done, as_set, rows=rows, confidence=confidence)


def _compared(
    best: Trial,
    first: Trial | None,
    trials: Sequence[Trial],
    as_set: Mapping[str, Any],
    *,
    rows: Sequence[int],
    confidence: float,
) -> Found:
    """Return the values of ``best``, if it differs from ``first`` by more than chance gives."""
    against = first or min(trials, key=lambda trial: trial.score)
    errors = math.hypot(f1_error(best.score, rows), f1_error(against.score, rows))
    margin, gain = quantile(confidence, max(1, len(trials) - 1)) * errors, best.score - against.score
    noise = f"chance alone gives {margin:.3f} on {sum(rows):,} valid rows"
    if first is None:  # outside the space, or failed: somebody wants others
        more = "" if gain > margin else f", but the trials do not differ: they lie {gain:.3f} apart, and {noise}"
        return Found(best.values, f"{_named(best)} is the best{more}")
    if gain > margin:
        return Found(best.values, f"{_named(best)} is {gain:.3f} better than {STAY}; {noise}")
    return Found(as_set, f"{STAY} are kept: {_named(best)} is {gain:.3f} better, and {noise}")


def _guessing(best: Trial, bar: float, rows: Sequence[int]) -> str:
    guess, scored = guessed(rows), f"{best.score:.3f} on {sum(rows):,} valid rows"
    return (
        f"{STAY} are kept: no trial is better than guessing, whose macro F1 is {guess:.3f}, by chance up to "
        f"{bar:.3f}; the best has {scored}. Give trials more rows or epochs"
    )


def _named(trial: Trial) -> str:
    return f"trial {trial.number + 1}"
