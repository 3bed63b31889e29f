"""What came of training again: the same weights, an equivalent model, or another one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dlpipe.registry import ModelVersion, describe_forgotten
from dlpipe.reproducing.apart import Apart
from dlpipe.reproducing.differences import Difference
from dlpipe.reproducing.origin import Origin

Outcome = Literal["same", "equivalent", "different"]
EXIT_CODES: Mapping[Outcome, int] = {"same": 0, "equivalent": 3, "different": 4}


@dataclass(frozen=True)
class Reproduction:
    """A version, trained again.

    Attributes
    ----------
    outcome : str
        ``same``: the weights are equal, bit for bit. ``equivalent``: they were computed in another domain, and the
        score lies in the interval of the registered one. ``different``: neither.
    weights : str
        SHA-256 of the new ones.
    code : str
        With which code it was trained.
    differences : tuple of Difference
        What is not as it was.
    apart : Apart, optional
        How far it is from the registered one; ``None`` where the weights are the same.
    seconds : float
        What training took.
    notes : tuple of str
        What is not known.
    """

    version: ModelVersion
    origin: Origin
    outcome: Outcome
    weights: str
    code: str
    differences: tuple[Difference, ...]
    apart: Apart | None
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 for the same weights, 3 for an equivalent model, 4 for a different one."""
        return EXIT_CODES[self.outcome]

    @property
    def scores(self) -> dict[str, tuple[float, float]]:
        """By metric, then and now, on the test rows; NaN for what is not known, empty for the same weights."""
        if self.apart is None:
            return {}
        then = self.apart.then.metrics if self.apart.then else {}
        return {name: (then.get(name, math.nan), value) for name, value in self.apart.now.metrics.items()}

    @property
    def metric(self) -> str:
        """The deciding metric; empty for the same weights."""
        return self.apart.now.headline if self.apart else ""

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the deciding metric as it was registered; NaN where it is not known."""
        return read_interval(self.apart)

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON; ``None`` stands for what is not known."""
        apart = self.apart
        return {
            "model": self.version.uri,
            "outcome": self.outcome,
            "weights": {"registered": self.version.digest, "now": self.weights},
            "training": self.origin.training,
            "table": str(self.origin.table),
            "code": self.code,
            "differences": [{"kind": found.kind, "what": found.words} for found in self.differences],
            "scores": {
                name: {"registered": to_finite(then), "now": to_finite(now)}
                for name, (then, now) in self.scores.items()
            },
            "interval": None if math.isnan(self.interval[0]) else {self.metric: list(self.interval)},
            "largest_difference": {
                "weight": 0.0 if apart is None else to_finite(apart.weight),
                "output": 0.0 if apart is None else to_finite(apart.output),
            },
            "norm_of_difference": 0.0 if apart is None else to_finite(apart.norm),
            "agreement": 1.0 if apart is None else to_finite(apart.agreement),
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
        }


def to_finite(value: float) -> float | None:
    """Return a number that JSON has; ``None`` for others."""
    return value if math.isfinite(value) else None


def read_interval(apart: Apart | None) -> tuple[float, float]:
    """Return the registered interval of the deciding metric; NaN where it is not known."""
    if apart is None or apart.then is None:
        return (math.nan, math.nan)
    return apart.then.intervals.get(apart.then.headline, (math.nan, math.nan))


def judge(
    origin: Origin,
    weights: str,
    differences: tuple[Difference, ...],
    apart: Apart | None,
    *,
    code: str,
    seconds: float,
) -> Reproduction:
    """Return what came of a training, with the outcome that its weights, scores and differences have."""
    outcome: Outcome = "same" if apart is None else "different"
    if apart is not None and {found.kind for found in differences} == {"domain"}:
        low, high = read_interval(apart)
        if low <= apart.now.metrics[apart.now.headline] <= high:
            outcome = "equivalent"
    return Reproduction(
        version=origin.version,
        origin=origin,
        outcome=outcome,
        weights=weights,
        code=code,
        differences=differences,
        apart=apart,
        seconds=seconds,
        notes=tuple(list_notes(origin, apart, explained=bool(differences) or outcome == "same")),
    )


def list_notes(origin: Origin, apart: Apart | None, *, explained: bool) -> Iterator[str]:
    """Yield what is to be known of a training, and what is not known and so may be a cause of other weights."""
    if forgotten := describe_forgotten(origin.version.tags):
        yield f"it was {forgotten}"
    if origin.domain is None:
        yield "the domain of its training was not recorded: threads, instructions and versions are not known"
    if origin.resumed:
        yield "it was resumed in another domain than it began in, which no single training repeats"
    if not origin.has_records:
        yield f"the records of {origin.run} are not here: its settings are those that the registry keeps"
    if apart is not None and math.isnan(apart.output) and math.isnan(apart.weight):
        yield "the files of the registered model cannot be read: only its scores are compared"
    if apart is not None and apart.measured != origin.table:
        yield f"{origin.table} lost files: the new model is measured on the test rows of {apart.measured}"
    if not explained:
        yield "nothing that was recorded differs"
