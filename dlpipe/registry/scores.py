"""The scores of a version: metrics of MLflow, and a tag that keeps their intervals and those of the baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dlpipe.registry.names import SCORES
from dlpipe.task import Evaluation

DIGEST_LENGTH = 36  # MLflow's limit for the digest of a data set


def name_metrics(scores: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return each metric under the name of its evaluation and its own.

    Examples
    --------
    >>> name_metrics({"test": Evaluation({"accuracy": 0.9}, {}, (), 10, (), "accuracy")})
    {'test_accuracy': 0.9}
    """
    return {
        f"{name}_{metric}": float(value)
        for name, evaluation in scores.items()
        for metric, value in evaluation.metrics.items()
    }


def make_scores_tag(scores: Mapping[str, Evaluation]) -> dict[str, str]:
    """Return the tag that keeps ``scores`` by their names, such as ``test``; none for no scores."""
    return {SCORES: json.dumps({name: to_plain(made) for name, made in scores.items()})} if scores else {}


def read_scores(tags: Mapping[str, str]) -> dict[str, Evaluation]:
    """Return the evaluations that the tags of a version keep, by name; none where they keep none.

    Examples
    --------
    >>> made = Evaluation({"accuracy": 0.9, "auroc": math.nan}, {"accuracy": (0.8, 1.0)}, (), 10, (), "accuracy")
    >>> read_scores(make_scores_tag({"test": made}))["test"].line()
    'accuracy 0.900 (0.800 to 1.000)'
    """
    try:
        return {name: from_plain(made) for name, made in json.loads(tags.get(SCORES, "{}")).items()}
    except (ValueError, TypeError, LookupError, AttributeError):  # somebody has changed the tag
        return {}


def to_plain(evaluation: Evaluation) -> dict[str, Any]:
    """Return what is kept of an evaluation, for JSON: no mistakes, and ``None`` for what is not finite."""
    intervals = evaluation.intervals.items()
    return {
        "rows": evaluation.rows,
        "headline": evaluation.headline,
        "metrics": {name: _to_finite(value) for name, value in evaluation.metrics.items()},
        "intervals": {name: [_to_finite(low), _to_finite(high)] for name, (low, high) in intervals},
    }


def from_plain(made: Mapping[str, Any]) -> Evaluation:
    """Return the evaluation that ``to_plain`` made this of, without labels and mistakes."""
    return Evaluation(
        metrics={name: _from_finite(value) for name, value in made["metrics"].items()},
        intervals={
            name: (_from_finite(low), _from_finite(high)) for name, (low, high) in made["intervals"].items()
        },
        labels=(),
        rows=int(made["rows"]),
        mistakes=(),
        headline=str(made["headline"]),
    )


def format_score(evaluation: Evaluation, metric: str) -> str:
    """Return a metric with its interval; ``-`` where it has no value.

    Examples
    --------
    >>> format_score(Evaluation({"r2": 0.5}, {"r2": (0.25, 0.75)}, (), 10, (), "r2"), "r2")
    '0.500 (0.250 to 0.750)'
    """
    value = evaluation.metrics.get(metric, math.nan)
    if not math.isfinite(value):
        return "-"
    low, high = evaluation.intervals.get(metric, (math.nan, math.nan))
    return f"{value:.3f} ({low:.3f} to {high:.3f})" if math.isfinite(low + high) else f"{value:.3f}"


def format_source(tags: Mapping[str, str]) -> str:
    """Return the table version that a model was made from, as its tags name it; empty where they name none.

    Examples
    --------
    >>> format_source({"delta.table": "data/tables/reviews", "delta.version": "2"})
    'reviews@v2'
    """
    name = tags.get("delta.table", "").rstrip("/").rpartition("/")[2]
    return f"{name}@v{tags['delta.version']}" if name and "delta.version" in tags else ""


def find_dataset(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """Return name and digest of the table version as MLflow's data set of a run has them; ``None`` without one."""
    name, digest = format_source(tags), tags.get("delta.digest", "")[:DIGEST_LENGTH]
    return (name[-500:], digest) if name and digest else None


def _to_finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _from_finite(value: float | None) -> float:
    return math.nan if value is None else float(value)
