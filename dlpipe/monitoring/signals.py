"""Two samples compared: a signal for each way in which new rows can differ from those of the training table.

A signal is raised when it is significant and large. With 50 rows sizes are noise, with 10,000 every difference is
significant; an alarm starts a training, so it should be rare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from dlpipe.monitoring.domains import Domains, tell_apart
from dlpipe.monitoring.samples import Sample
from dlpipe.monitoring.settings import DriftSettings
from dlpipe.monitoring.statistics import chi_square, holm, kolmogorov_smirnov, psi, psi_of_counts
from dlpipe.task import DriftSeries, Inputs, Quality
from dlpipe.task.evaluation import spell_metric

DOMAIN, QUALITY = "domain", "quality"


@dataclass(frozen=True)
class Signal:
    """One comparison.

    Attributes
    ----------
    name : str
        A word: ``domain``, ``quality``, or the name of a series. A column of ``<table>_drift``.
    words : str
        What ``size`` is, in the words of a sentence.
    size, limit : float
        How large the difference is, and how large it may be.
    p_value, adjusted : float
        By itself, and by Holm's procedure over all signals of the run.
    rows : int
        The new rows that were compared.
    raised : bool
        Whether it is both significant and too large.
    """

    name: str
    words: str
    size: float
    limit: float
    p_value: float
    rows: int
    adjusted: float = 1.0
    raised: bool = False

    def __str__(self) -> str:
        sure = f"p {self.adjusted:.2g}" if self.adjusted >= 1e-9 else "p below 1e-9"
        return f"{self.words} {self.size:.3f} (limit {self.limit:.3f}, {sure}, {self.rows:,} rows)"


@dataclass(frozen=True)
class Drift:
    """What all comparisons say together.

    Attributes
    ----------
    signals : tuple of Signal
        None where there were too few rows.
    domains : Domains or None
        What tells new rows from old ones.
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
    def outcome(self) -> str:
        """What was found, with the first of the signals that were raised."""
        if not self.raised:
            return f"no drift: {self.reason}" if self.signals else self.reason
        first, more = self.raised[0], len(self.raised) - 1
        others = f", and {more} more signal{'s' if more > 1 else ''}" if more else ""
        return f"drift: {first.words} {first.size:.3f} (limit {first.limit:.3f}){others}"

    @property
    def reason(self) -> str:
        """Why, in one line."""
        if not self.signals:
            return f"nothing to compare: {'; '.join(self.missing)}"
        return "; ".join(map(str, self.raised)) or "no signal is raised"


def compare(
    reference: Sample, current: Sample, quality: Quality | None, settings: DriftSettings, *, inputs: Inputs
) -> Drift:
    """Return how far ``current`` is from ``reference``, and how far quality is from that on the test split.

    What has too few rows is not compared.

    Parameters
    ----------
    reference, current : Sample
        Of the training table, and of the rows that came in.
    quality : Quality, optional
        What labels say.
    settings : DriftSettings
    inputs : Inputs
        Give the features by which new rows are told from old ones.

    Examples
    --------
    >>> from dlpipe.monitoring.samples import make_sample
    >>> from dlpipe.task import find_task
    >>> task = find_task("text-classification")
    >>> old, new = (make_sample(task, [f"a {thing} {n}" for n in range(60)]) for thing in ("film", "phone"))
    >>> found = compare(old, new, None, DriftSettings(), inputs=task.inputs)
    >>> [signal.name for signal in found.signals], [signal.name for signal in found.raised]
    (['domain', 'length'], ['domain'])
    """
    domains = None
    if len(current.rows) >= settings.min_rows and len(reference.rows) >= settings.min_rows:
        domains = tell_apart(reference.rows, current.rows, inputs=inputs, seed=settings.seed)
    found = [
        *_compare_rows(reference, current, domains, settings, inputs),
        *_compare_predictions(reference, current, settings),
        *_compare_quality(quality, settings),
    ]
    adjusted = holm([signal.p_value for signal in found])
    judged = tuple(_judge(signal, value, settings) for signal, value in zip(found, adjusted, strict=True))
    return Drift(judged, domains, tuple(_describe_missing(reference, current, quality, settings, inputs)))


def _describe_missing(
    reference: Sample, current: Sample, quality: Quality | None, settings: DriftSettings, inputs: Inputs
) -> Iterator[str]:
    """Yield what there is too little of, and how much it takes."""
    needed = f"of {settings.min_rows:,} needed"
    if current.unread:
        yield current.unread
    for what, new, old in (
        (inputs.rows_noun, len(current.rows), len(reference.rows)),
        ("predictions", current.predictions, reference.predictions),
    ):
        if new < settings.min_rows and not (current.unread and what == inputs.rows_noun):
            yield f"{new:,} {what} of new rows {needed}"
        if old < settings.min_rows:
            yield f"{old:,} {what} of the training's rows {needed}"
    if quality is not None and quality.rows < settings.min_labels:
        yield f"{quality.rows:,} labels of new rows of {settings.min_labels:,} needed"
    if quality is not None and not quality.test_rows:
        yield f"no predictions of the test split to compare the {spell_metric(quality.metric)} with"


def _judge(signal: Signal, adjusted: float, settings: DriftSettings) -> Signal:
    raised = adjusted < settings.alpha and signal.size > signal.limit
    return replace(signal, adjusted=adjusted, raised=raised)


def _compare_rows(
    reference: Sample, current: Sample, domains: Domains | None, settings: DriftSettings, inputs: Inputs
) -> Iterator[Signal]:
    if domains is None:
        return
    words = f"AUC of telling new {inputs.rows_noun} from old ones"
    yield Signal(DOMAIN, words, domains.auc, settings.max_auc, domains.p_value, len(current.rows))
    yield from _compare_series(pair_samples(reference, current)[0], settings)


def _compare_predictions(reference: Sample, current: Sample, settings: DriftSettings) -> Iterator[Signal]:
    if min(reference.predictions, current.predictions) >= settings.min_rows:
        yield from _compare_series(pair_samples(reference, current)[1], settings)


class SeriesPair(NamedTuple):
    """The old and new values of a series, with the name of its signal."""

    signal: str
    old: DriftSeries
    new: DriftSeries


def pair_samples(reference: Sample, current: Sample) -> tuple[list[SeriesPair], list[SeriesPair]]:
    """Return the pairs of the series of rows, and of those of predictions, that both samples have.

    No two signals have one name: a column of the data that is called as another signal, or as another column but
    for its signs, gets a line behind its name.
    """
    taken = {DOMAIN, QUALITY}
    predictions = _name_pairs(pair_series(reference.predicted, current.predicted), taken)
    # after those of predictions, whose names do not depend on the data
    return _name_pairs(pair_series(reference.series, current.series), taken), predictions


def _name_pairs(pairs: Sequence[tuple[DriftSeries, DriftSeries]], taken: set[str]) -> list[SeriesPair]:
    named = []
    for old, new in pairs:
        signal = to_signal_name(new.name)
        while signal in taken:
            signal += "_"
        taken.add(signal)
        named.append(SeriesPair(signal, old, new))
    return named


def _compare_series(pairs: Sequence[SeriesPair], settings: DriftSettings) -> Iterator[Signal]:
    """Yield a signal for each series with enough values that are not missing."""
    for signal, old, new in pairs:
        if min(len(old.values), len(new.values)) < settings.min_rows:
            continue
        measure = _compare_words if has_words(old, new) else _compare_numbers
        size, p_value = measure(old.values, new.values)
        yield Signal(signal, f"PSI of {new.words}", size, settings.max_psi, p_value, len(new.values))


def pair_series(
    before: Sequence[DriftSeries], after: Sequence[DriftSeries]
) -> list[tuple[DriftSeries, DriftSeries]]:
    """Return old and new values of each series that both have, without missing values."""
    earlier = {series.name: series for series in before}
    return [
        (drop_missing(earlier[series.name]), drop_missing(series)) for series in after if series.name in earlier
    ]


def drop_missing(series: DriftSeries) -> DriftSeries:
    """Return the series without values that are missing: ``None``, or NaN.

    Examples
    --------
    >>> drop_missing(DriftSeries("width", "the width", [1.0, float("nan")])).values
    [1.0]
    """
    values: Sequence[Any] = [value for value in series.values if value is not None and value == value]
    return replace(series, values=values)


def has_words(old: DriftSeries, new: DriftSeries) -> bool:
    """Return whether values are words, compared by how often each occurs."""
    return any(isinstance(value, str) for series in (old, new) for value in series.values[:1])


def to_signal_name(name: str) -> str:
    """Return the name of a series as one word: it becomes that of a column and of an artifact.

    Examples
    --------
    >>> to_signal_name("length"), to_signal_name("mean radius")
    ('length', 'mean_radius')
    """
    return re.sub(r"\W+", "_", name)


def _compare_numbers(old: Sequence[Any], new: Sequence[Any]) -> tuple[float, float]:
    return psi(old, new), kolmogorov_smirnov(old, new)


def _compare_words(old: Sequence[Any], new: Sequence[Any]) -> tuple[float, float]:
    before, after = Counter(map(str, old)), Counter(map(str, new))
    names = sorted({*before, *after})
    counts = [before[name] for name in names], [after[name] for name in names]
    return psi_of_counts(*counts), chi_square(*counts)


def _compare_quality(quality: Quality | None, settings: DriftSettings) -> Iterator[Signal]:
    if quality is None or quality.rows < settings.min_labels or not quality.test_rows:
        return
    limit = getattr(settings, quality.limit)
    yield Signal(QUALITY, quality.words, quality.size, limit, quality.p_value, quality.rows)
