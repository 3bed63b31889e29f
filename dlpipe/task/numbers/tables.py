"""How large errors are, by how large the number is."""

from __future__ import annotations

from dlpipe.task.evaluation import ScoreTable
from dlpipe.task.numbers.scores import NumberEvaluation

PARTS = 5


def tabulate_errors(evaluation: NumberEvaluation, baseline: NumberEvaluation) -> ScoreTable:
    """Return the errors of the smallest fifth of the true numbers, of the next, and so on."""
    import numpy as np

    parts = min(PARTS, len(np.unique(evaluation.true)))
    edges = np.unique(np.quantile(evaluation.true, np.linspace(0, 1, parts + 1)))
    part_of = np.clip(np.searchsorted(edges, evaluation.true, side="right") - 1, 0, max(0, len(edges) - 2))
    rows = []
    for part in np.unique(part_of).tolist():
        true, error = evaluation.true[part_of == part], (evaluation.predicted - evaluation.true)[part_of == part]
        plain = np.abs(baseline.predicted - baseline.true)[part_of == part].mean()
        inside = np.abs(error) <= evaluation.halfwidth
        held = f"{inside.mean():.0%}" if evaluation.halfwidth == evaluation.halfwidth else "–"
        cells = (f"{np.abs(error).mean():.4g}", f"{error.mean():+.4g}", held, f"{plain:.4g}")
        rows.append((f"{true.min():.4g} to {true.max():.4g}", f"{len(true):,}", *cells))
    return ScoreTable(
        "By size of the true number",
        (
            "true number",
            "rows",
            "mean absolute error",
            "mean of predicted - true",
            "in the interval",
            "baseline's error",
        ),
        tuple(rows),
        note="Predictions of the smallest and largest numbers mostly lean towards the middle.",
    )
