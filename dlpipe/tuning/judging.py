"""Whether a search found something: its best trial against guessing, and against the settings as they stand.

Four trials of one epoch on 294 rows differ by 0.07 by chance alone, so the best of several is not yet better. A
false winner is worse than a missed one: it moves every later number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.task import Chance

if TYPE_CHECKING:
    from dlpipe.tuning import Trial

CURRENT = "the settings as they stand"


@dataclass(frozen=True)
class ChosenValues:
    """The values that a search hands to the training.

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
    trials: Sequence[Trial], current: Mapping[str, Any], *, chance: Chance, confidence: float
) -> ChosenValues:
    """Return the values to train with.

    The best trial's are taken where it is better than guessing, and than the trial of the settings as they stand,
    by more than chance gives to the best of so many trials (Bonferroni's correction). Otherwise the settings stay.

    Parameters
    ----------
    trials : sequence of Trial
        One at least ended without an error. Where the settings as they stand failed, they are not gone back to.
    current : mapping
        The settings of the search space as they stand.
    chance : Chance
        What guessing gives on the valid split.
    confidence : float
        How sure it must be; 0 takes the best trial's.
    """
    done = [trial for trial in trials if trial.scores and not trial.error]
    best = max(done, key=lambda trial: (trial.score, -trial.number))
    first = next((trial for trial in trials if trial.values == current), None)
    if not confidence or not chance.rows or (first and first not in done):
        return ChosenValues(best.values, f"{_name_trial(best)} is the best")
    bar = chance.bound_guess(confidence=confidence, comparisons=len(done))
    if best.score <= bar:
        return ChosenValues(current, _describe_guessing(best, bar, chance))
    if best is first:
        return ChosenValues(best.values, f"{CURRENT} (trial {best.number + 1}) are the best of {len(done)}")
    return _compare_with_first(best, first, done, current, chance=chance, confidence=confidence)


def _compare_with_first(
    best: Trial,
    first: Trial | None,
    trials: Sequence[Trial],
    current: Mapping[str, Any],
    *,
    chance: Chance,
    confidence: float,
) -> ChosenValues:
    """Return the values of ``best``, if it differs from ``first`` by more than chance gives."""
    against = first or min(trials, key=lambda trial: trial.score)
    error = math.hypot(chance.error(best.score), chance.error(against.score))
    margin = chance.bound_difference(error, confidence=confidence, comparisons=max(1, len(trials) - 1))
    gain = best.score - against.score
    noise = f"chance alone gives {margin:.3f} on {chance.rows:,} valid rows"
    if first is None:  # outside the space, or failed: somebody wants others
        more = "" if gain > margin else f", but the trials do not differ: they lie {gain:.3f} apart, and {noise}"
        return ChosenValues(best.values, f"{_name_trial(best)} is the best{more}")
    if gain > margin:
        return ChosenValues(best.values, f"{_name_trial(best)} is {gain:.3f} better than {CURRENT}; {noise}")
    return ChosenValues(current, f"{CURRENT} are kept: {_name_trial(best)} is {gain:.3f} better, and {noise}")


def _describe_guessing(best: Trial, bar: float, chance: Chance) -> str:
    return (
        f"{CURRENT} are kept: no trial is better than guessing, whose {chance.words} is {chance.guess:.3f}, by "
        f"chance up to {bar:.3f}; the best has {best.score:.3f} on {chance.rows:,} valid rows. Give trials more "
        "rows or epochs"
    )


def _name_trial(trial: Trial) -> str:
    return f"trial {trial.number + 1}"
