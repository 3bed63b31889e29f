"""From rows to their explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlpipe.explain.explanations import ExplainSettings, Explanations, Row, Scorer
from dlpipe.explain.partition import explain_by_partition


def explain_rows(predictor: Scorer, rows: Sequence[Row], *, settings: ExplainSettings) -> Explanations:
    """Return the word attributions of each (row_id, text), in the order of ``rows``.

    Attributions are Owen values over a tree of neighbouring words (shap's PartitionExplainer), of the
    probability of each label; a hidden word is left out of the text. The same seed gives the same numbers.
    Words after those that the model reads are not explained: the predictor's ``seen_characters(text)`` says
    how many characters that are, and one without such a method is taken to read its first ``max_length`` words.
    Many texts are worked on at once; equal ones are explained once.

    Raises
    ------
    ExplanationError
        When base value plus attributions is not the model's output within 1e-4.
    """
    first: dict[str, str] = {}
    for row_id, text in rows:
        first.setdefault(text, row_id)
    once = [(row_id, text) for text, row_id in first.items()]
    made = {one.text: one for one in explain_by_partition(predictor, once, settings)}
    return Explanations(
        tuple(replace(made[text], row_id=row_id) for row_id, text in rows), tuple(predictor.labels)
    )
