"""From rows to their explanations, and how far the two methods agree about them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from dlpipe.errors import ExplanationError
from dlpipe.explain.agreement import Agreement, rank_correlation
from dlpipe.explain.explanations import ExplainSettings, Explanation, Explanations, Method, Row, Scorer

LOGGER = logging.getLogger(__name__)


def explain_rows(predictor: Scorer, rows: Sequence[Row], *, settings: ExplainSettings) -> Explanations:
    """Return the word attributions of each (row_id, text), in the order of ``rows``.

    By default attributions are Owen values over a tree of neighbouring words (shap's PartitionExplainer), of the
    probability of each label; a hidden word is left out of the text. The same seed gives the same numbers. With
    ``method="gradient"`` they are integrated gradients, which are near those in a fraction of the time.

    Words after those that the model reads are not explained: the predictor's ``seen_characters(text)`` says
    how many characters that are, and one without such a method is taken to read its first ``max_length`` words.
    Many texts are worked on at once; equal ones are explained once.

    Raises
    ------
    ExplanationError
        When Owen values and base value are not the model's output within 1e-4, or the model has no gradients.
    """
    first: dict[str, str] = {}
    for row_id, text in rows:
        first.setdefault(text, row_id)
    once = [(row_id, text) for text, row_id in first.items()]
    made = {one.text: one for one in explain_each(predictor, once, settings)}
    every = tuple(replace(made[text], row_id=row_id) for row_id, text in rows)
    return Explanations(every, tuple(predictor.labels), settings.method)


def explain_each(predictor: Scorer, rows: Sequence[Row], settings: ExplainSettings) -> Iterator[Explanation]:
    """Yield the explanation of each row by the method of ``settings``."""
    if settings.method == "gradient":
        from dlpipe.explain.gradient import explain_by_gradient

        return explain_by_gradient(predictor, rows, settings)
    from dlpipe.explain.partition import explain_by_partition

    return explain_by_partition(predictor, rows, settings)


def compare_methods(predictor: Scorer, known: Explanations, *, settings: ExplainSettings) -> Agreement | None:
    """Return how far gradients agree with Owen values on the first ``settings.compared`` texts of ``known``.

    ``None`` where there is nothing to compare, or ``predictor`` has no gradients.
    """
    some = replace(known, rows=known.rows[: settings.compared])
    rows = [(row.row_id, row.text) for row in some.rows]
    other: Method = "partition" if known.method == "gradient" else "gradient"
    if not rows:
        return None
    try:
        made = explain_rows(predictor, rows, settings=replace(settings, method=other))
    except ExplanationError as error:
        LOGGER.info("the methods are not compared: %s", error)
        return None
    exact, approximate = (made, some) if known.method == "gradient" else (some, made)
    return measure_agreement(exact, approximate)


def measure_agreement(exact: Explanations, approximate: Explanations) -> Agreement | None:
    """Return how far the two agree about the same texts in the same order; ``None`` where none says anything."""
    import numpy as np

    gaps, ranks, signs = [], [], []
    for one, other in zip(exact.rows, approximate.rows, strict=True):
        column = one.labels.index(one.predicted)
        mine, theirs = one.attributions[:, column], other.attributions[:, column]
        if min(len(set(mine.tolist())), len(set(theirs.tolist()))) < 2:
            continue
        ranks.append(rank_correlation(mine, theirs))
        signs.append(float(np.mean(np.sign(mine) == np.sign(theirs))))
        gaps.append(other.gap)
    if not ranks:
        return None
    return Agreement(len(ranks), float(np.mean(ranks)), float(np.mean(signs)), float(np.mean(gaps)))
