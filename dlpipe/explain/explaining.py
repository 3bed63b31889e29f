"""Explain rows by Owen values or by gradients, and measure how far the two methods agree."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dlpipe.errors import ExplanationError
from dlpipe.explain.agreement import Agreement, correlate_ranks
from dlpipe.explain.explanations import ExplainSettings, Explanation, Explanations, Method, NamedRow
from dlpipe.explain.rounds import digest_row
from dlpipe.task import Predictor, Task, find_task

LOGGER = logging.getLogger(__name__)


def explain_rows(predictor: Predictor, rows: Sequence[NamedRow], *, settings: ExplainSettings) -> Explanations:
    """Return what each part of each (row_id, row) adds to each output, in the order of ``rows``.

    By default attributions are Owen values over a tree of neighbouring parts (shap's PartitionExplainer). The
    inputs of the model's task split a row into parts: a text into its words, as far as the model reads them, of
    which a hidden one is left out of the text. The same seed gives the same numbers. With ``method="gradient"``
    they are integrated gradients, which are near those in a fraction of the time.

    Many rows are worked on at once; equal ones are explained once.

    Parameters
    ----------
    predictor : Predictor
        The model; for gradients one of torch.
    rows : sequence of (row_id, row)
        Rows as ``Inputs.read_rows`` of the task returns them.
    settings : ExplainSettings
        ``method`` and its settings; how many rows are drawn is not its matter.

    Raises
    ------
    ExplanationError
        When Owen values and base value are not the model's output within 1e-4, the model has no gradients, or rows
        of its task are not explained.
    """
    task = task_of(predictor)
    if task.inputs.not_explained:
        raise ExplanationError(task.inputs.not_explained)
    digests = [digest_row(row) for _, row in rows]
    first: dict[bytes, NamedRow] = {}
    for digest, named in zip(digests, rows, strict=True):
        first.setdefault(digest, named)
    made = dict(zip(first, explain_each(predictor, task, list(first.values()), settings), strict=True))
    every = tuple(replace(made[digest], row_id=row_id) for digest, (row_id, _) in zip(digests, rows, strict=True))
    return Explanations(every, tuple(predictor.labels), settings.method)


def task_of(predictor: Predictor) -> Task:
    """Return the task that the card of ``predictor`` names."""
    return find_task(predictor.card["task"])


def explain_each(
    predictor: Predictor, task: Task, rows: Sequence[NamedRow], settings: ExplainSettings
) -> Iterator[Explanation]:
    """Yield the explanation of each row by the method of ``settings``.

    Parameters
    ----------
    predictor : Predictor
    task : Task
        That of the predictor.
    rows : sequence of (row_id, row)
        Without repeats, which would be explained again.
    settings : ExplainSettings
    """
    if settings.method == "gradient":
        from dlpipe.explain.gradient import explain_by_gradient

        return explain_by_gradient(predictor, task, rows, settings)
    from dlpipe.explain.partition import explain_by_partition

    return explain_by_partition(predictor, task, rows, settings)


def compare_methods(predictor: Predictor, known: Explanations, *, settings: ExplainSettings) -> Agreement | None:
    """Return how far gradients agree with Owen values on the first ``settings.compared`` rows of ``known``.

    ``None`` where there is nothing to compare, or ``predictor`` has no gradients.

    Parameters
    ----------
    predictor : Predictor
    known : Explanations
        By either method; the other one is run here.
    settings : ExplainSettings
    """
    some = replace(known, rows=known.rows[: settings.compared])
    rows = [(made.row_id, made.row) for made in some.rows]
    other: Method = "partition" if known.method == "gradient" else "gradient"
    if not rows:
        return None
    try:
        made = explain_rows(predictor, rows, settings=replace(settings, method=other))
    except ExplanationError as error:
        # a comparison is an extra: where gradients are impossible, the explanations stand without it
        LOGGER.info("the methods are not compared: %s", error)
        return None
    exact, approximate = (made, some) if known.method == "gradient" else (some, made)
    return measure_agreement(exact, approximate)


def measure_agreement(exact: Explanations, approximate: Explanations) -> Agreement | None:
    """Return how far the two agree about the same rows in the same order; ``None`` where no row can be compared.

    Compared are the attributions of the highest output by ``exact``. Rows in which all parts have the same number
    by one of the methods are left out, since equal values have no ranks to correlate.
    """
    import numpy as np

    gaps, ranks, signs = [], [], []
    for row, other in zip(exact.rows, approximate.rows, strict=True):
        column = row.highest
        mine, theirs = row.attributions[:, column], other.attributions[:, column]
        if min(len(set(mine.tolist())), len(set(theirs.tolist()))) < 2:
            continue
        ranks.append(correlate_ranks(mine, theirs))
        signs.append(float(np.mean(np.sign(mine) == np.sign(theirs))))
        gaps.append(other.gap)
    if not ranks:
        return None
    return Agreement(len(ranks), float(np.mean(ranks)), float(np.mean(signs)), float(np.mean(gaps)))
