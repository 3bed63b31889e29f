"""What two samples say: a signal for each way in which new rows can differ from those of the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from dlpipe.monitoring.domains import Domains, tell_apart
from dlpipe.monitoring.samples import Quality, Sample
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.statistics import chi_square, fewer_right, holm, kolmogorov_smirnov, psi, psi_of_counts

Name = Literal["domain", "length", "probability", "label", "quality"]
MEASURES: dict[Name, str] = {
    "domain": "AUC of telling new texts from old ones",
    "length": "PSI of words in a text",
    "probability": "PSI of the predicted probability",
    "label": "PSI of the predicted labels",
    "quality": "accuracy lost since the test split",
}


@dataclass(frozen=True)
class Signal:
    """One comparison.

    Attributes
    ----------
    name : str
    size, limit : float
        How large the difference is, and how large it may be, in the unit that ``MEASURES`` says.
    p_value, adjusted : float
        By itself, and by Holm's procedure over all signals of the run.
    rows : int
        The new rows that were compared.
    raised : bool
        Whether it is both significant and too large.
    """

    name: Name
    size: float
    limit: float
    p_value: float
    rows: int
    adjusted: float = 1.0
    raised: bool = False

    def __str__(self) -> str:
        sure = f"p {self.adjusted:.2g}" if self.adjusted >= 1e-9 else "p below 1e-9"
        return f"{MEASURES[self.name]} {self.size:.3f} (limit {self.limit:.3f}, {sure}, {self.rows:,} rows)"


@dataclass(frozen=True)
class Drift:
    """What all comparisons say together.

    Attributes
    ----------
    signals : tuple of Signal
        None where there were too few rows.
    domains : Domains or None
        What tells new texts from old ones.
    missing : tuple of str
        What was not compared, each with what it would take.
    """

    signals: tuple[Signal, ...]
    domains: Domains | None
    missing: tuple[str, ...] = ()

    @property
    def raised(self) -> tuple[Signal, ...]:
        """The signals that were raised."""
        return tuple(signal for signal in self.signals if signal.raised)

    @property
    def drifted(self) -> bool:
        """Whether one was."""
        return bool(self.raised)

    @property
    def title(self) -> str:
        """What was found, in two or three words: without a comparison, not that there is no drift."""
        if not self.signals:
            return "Nothing to compare"
        return "Drift" if self.drifted else "No drift"

    @property
    def reason(self) -> str:
        """Why, in one line."""
        if not self.signals:
            return f"nothing to compare: {'; '.join(self.missing)}"
        return "; ".join(map(str, self.raised)) or "no signal is raised"


def compare(reference: Sample, current: Sample, quality: Quality | None, settings: DriftSettings) -> Drift:
    """Return how far ``current`` is from ``reference``, and how far quality is from that on the test split.

    What has too few rows is not compared.

    Examples
    --------
    >>> old, new = (Sample(texts=[f"a {thing} {n}" for n in range(60)]) for thing in ("film", "phone"))
    >>> found = compare(old, new, None, DriftSettings())
    >>> [signal.name for signal in found.signals], [signal.name for signal in found.raised]
    (['domain', 'length'], ['domain'])
    """
    domains = None
    if len(current.texts) >= settings.min_rows and len(reference.texts) >= settings.min_rows:
        domains = tell_apart(reference.texts, current.texts, seed=settings.seed)
    found = [
        *_of_texts(reference, current, domains, settings),
        *_of_predictions(reference, current, settings),
        *_of_quality(quality, settings),
    ]
    adjusted = holm([signal.p_value for signal in found])
    judged = tuple(_judged(signal, value, settings) for signal, value in zip(found, adjusted, strict=True))
    return Drift(judged, domains, tuple(_missing(reference, current, quality, settings)))


def _missing(
    reference: Sample, current: Sample, quality: Quality | None, settings: DriftSettings
) -> Iterator[str]:
    """Yield what there is too little of, and how much it takes."""
    needed = f"of {settings.min_rows:,} needed"
    for what, new, old in (
        ("texts", current.texts, reference.texts),
        ("predictions", current.predicted, reference.predicted),
    ):
        if len(new) < settings.min_rows:
            yield f"{len(new):,} {what} of new rows {needed}"
        if len(old) < settings.min_rows:
            yield f"{len(old):,} {what} of the training's rows {needed}"
    if quality is not None and quality.rows < settings.min_labels:
        yield f"{quality.rows:,} labels of new rows of {settings.min_labels:,} needed"
    if quality is not None and not quality.test_rows:
        yield "no predictions of the test split to compare the accuracy with"


def _judged(signal: Signal, adjusted: float, settings: DriftSettings) -> Signal:
    raised = adjusted < settings.alpha and signal.size > signal.limit
    return replace(signal, adjusted=adjusted, raised=raised)


def _of_texts(
    reference: Sample, current: Sample, domains: Domains | None, settings: DriftSettings
) -> Iterator[Signal]:
    if domains is None:
        return
    rows, old, new = len(current.texts), reference.lengths, current.lengths
    yield Signal("domain", domains.auc, settings.max_auc, domains.p_value, rows)
    yield Signal("length", psi(old, new), settings.max_psi, kolmogorov_smirnov(old, new), rows)


def _of_predictions(reference: Sample, current: Sample, settings: DriftSettings) -> Iterator[Signal]:
    if min(len(reference.predicted), len(current.predicted)) < settings.min_rows:
        return
    rows, old, new = len(current.predicted), reference.probability, current.probability
    yield Signal("probability", psi(old, new), settings.max_psi, kolmogorov_smirnov(old, new), rows)
    before, after = Counter(reference.predicted), Counter(current.predicted)
    names = sorted({*before, *after})
    counts = [before[name] for name in names], [after[name] for name in names]
    yield Signal("label", psi_of_counts(*counts), settings.max_psi, chi_square(*counts), rows)


def _of_quality(quality: Quality | None, settings: DriftSettings) -> Iterator[Signal]:
    if quality is None or quality.rows < settings.min_labels or not quality.test_rows:
        return
    p_value = fewer_right(quality.right, quality.rows, quality.test_right, quality.test_rows)
    drop = quality.test_accuracy - quality.accuracy
    yield Signal("quality", drop, settings.max_accuracy_drop, p_value, quality.rows)
