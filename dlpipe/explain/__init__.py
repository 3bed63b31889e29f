"""Word attributions and their pictures; the only place that names SHAP."""

from dlpipe.explain.explaining import explain_rows
from dlpipe.explain.explanations import (
    ExplainSettings,
    Explanation,
    Explanations,
    Scorer,
    WordEffect,
    choose_rows,
)
from dlpipe.explain.figures import row_figure, words_figure
from dlpipe.explain.on_table import explain_table
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
    "explain_table",
    "row_figure",
    "split_words",
    "words_figure",
]
