"""Word attributions and their pictures; the only place that names SHAP."""

from dlpipe.explain.attributions import (
    ExplainSettings,
    Explanation,
    Explanations,
    Scorer,
    WordEffect,
    choose_rows,
    explain_rows,
)
from dlpipe.explain.figures import row_figure, words_figure
from dlpipe.explain.words import bare, split_words

__all__ = [
    "ExplainSettings",
    "Explanation",
    "Explanations",
    "Scorer",
    "WordEffect",
    "bare",
    "choose_rows",
    "explain_rows",
    "row_figure",
    "split_words",
    "words_figure",
]
