"""What a server counts, as Prometheus reads it: plain numbers on the way of a request, families when asked.

Names of models are labels only where the model exists, so that nobody can fill the memory with names of none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlpipe import __version__
from dlpipe.serving.entries import Entry
from dlpipe.serving.recent import ERROR, Recent

if TYPE_CHECKING:
    from prometheus_client import Metric

    from dlpipe.serving.following import Models

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds of the buckets."""


@dataclass(slots=True)
class Durations:
    """How long requests took."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a request."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """The counts of this process.

    Parameters
    ----------
    models : Models
        Whose versions and swaps are told.
    count_waiting : callable
        Returns how many rows wait.
    find_trouble : callable
        Returns why requests cannot be logged; empty while they can.
    """

    def __init__(
        self, models: Models, count_waiting: Callable[[], int], find_trouble: Callable[[], str] = str
    ) -> None:
        self._models, self.count_waiting, self.find_trouble = models, count_waiting, find_trouble
        self.recent = Recent()
        self._requests: dict[tuple[str, int, str, int], int] = defaultdict(int)
        self._rows: dict[tuple[str, int, str], int] = defaultdict(int)
        self._durations: dict[tuple[str, str], Durations] = defaultdict(Durations)

    def count(self, entry: Entry, rows: int) -> None:
        """Count a request and the rows that it got answers for."""
        # labels reach no version, and are taken for models that exist
        model = entry.model if entry.version or (entry.kind == "feedback" and entry.status < ERROR) else ""
        self._requests[model, entry.version, entry.kind, entry.status] += 1
        self._durations[model, entry.kind].add(entry.duration_ms / 1000)
        self.recent.count(entry)
        if rows:
            self._rows[model, entry.version, entry.kind] += rows

    def write(self) -> bytes:
        """Return all of it as text."""
        return write_families(self.list_families())

    def list_families(self) -> list[Metric]:
        """Return all of it, with the memory and the time of this process."""
        from prometheus_client.process_collector import ProcessCollector

        return [*self.collect(), *ProcessCollector(registry=None).collect()]

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        by = ["model", "version", "kind", "status"]
        requests = CounterMetricFamily("dlpipe_requests", "Requests, by the status of their answers", labels=by)
        for (model, version, kind, status), number in sorted(self._requests.items()):
            requests.add_metric([model, label(version), kind, str(status)], number)
        rows = CounterMetricFamily("dlpipe_rows", "Rows that got an answer", labels=by[:3])
        for (model, version, kind), number in sorted(self._rows.items()):
            rows.add_metric([model, label(version), kind], number)
        seconds = HistogramMetricFamily(
            "dlpipe_request_seconds", "Seconds from arrival to answer", labels=["model", "kind"]
        )
        for (model, kind), durations in sorted(self._durations.items()):
            seconds.add_metric([model, kind], list(accumulate(durations.buckets)), durations.total)
        waiting = GaugeMetricFamily("dlpipe_rows_waiting", "Rows that wait to be computed", self.count_waiting())
        about = GaugeMetricFamily("dlpipe_server_info", "The server", labels=["dlpipe"])
        about.add_metric([__version__], 1)
        log = GaugeMetricFamily(
            "dlpipe_log_trouble", "1 where requests cannot be logged, or not committed", bool(self.find_trouble())
        )
        yield from (requests, rows, seconds, waiting, log, about, *self._collect_versions())

    def _collect_versions(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        versions = GaugeMetricFamily(
            "dlpipe_model_version",
            "The version that answers for an alias; 0 for none",
            labels=["model", "alias", "engine", "digest"],
        )
        refused = GaugeMetricFamily(
            "dlpipe_version_refused",
            "1 where the version that an alias points at does not answer",
            labels=["model", "alias"],
        )
        unseen = GaugeMetricFamily(
            "dlpipe_registry_unseen", "1 where the registry could not be asked last", labels=["model", "alias"]
        )
        swaps = CounterMetricFamily(
            "dlpipe_swaps", "Versions that took the place of others", labels=["model", "alias"]
        )
        for followed in self._models.list_followed():
            name, served = [followed.name, followed.alias], followed.served
            told = ["", ""] if served is None else [served.engine, served.digest]
            versions.add_metric([*name, *told], 0 if served is None else served.version.version)
            refused.add_metric(name, bool(followed.refused))
            unseen.add_metric(name, bool(followed.unseen))
            swaps.add_metric(name, followed.swapped)
        yield from (versions, refused, unseen, swaps)


def write_families(families: Iterable[Metric]) -> bytes:
    """Return families as text."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import Collector

    class Given(Collector):
        def collect(self) -> Iterable[Metric]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Given())
    return generate_latest(registry)


def merge_families(parts: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """Return what several processes count, each number with the process's name as the label ``replica``.

    Parameters
    ----------
    parts : mapping of str to families

    Examples
    --------
    >>> from prometheus_client.core import GaugeMetricFamily
    >>> waiting = [GaugeMetricFamily("waiting", "Rows that wait", number) for number in (3, 5)]
    >>> (merged,) = merge_families({"a": waiting[:1], "b": waiting[1:]})
    >>> [(sample.labels, sample.value) for sample in merged.samples]
    [({'replica': 'a'}, 3), ({'replica': 'b'}, 5)]
    """
    from prometheus_client import Metric

    merged: dict[str, Metric] = {}
    for replica, families in parts.items():
        for family in families:
            whole = merged.get(family.name)
            if whole is None:
                whole = merged[family.name] = Metric(family.name, family.documentation, family.type, family.unit)
            whole.samples += [
                sample._replace(labels={**sample.labels, "replica": replica}) for sample in family.samples
            ]
    return list(merged.values())


def label(version: int) -> str:
    """Return a version as a label; nothing where none was reached."""
    return str(version) if version else ""


def accumulate(buckets: Iterable[int]) -> Iterator[tuple[str, float]]:
    """Yield the upper bound of each bucket and how many are below it.

    Examples
    --------
    >>> list(accumulate([1] * 15))[-1]
    ('+Inf', 15)
    """
    below = 0
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
        below += number
        yield bound, below
