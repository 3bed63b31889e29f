"""Word attributions and their pictures.

SHAP is used for two things. Values are those of its partition explainer, computed here for many texts at once;
the tests hold them against SHAP's own, to which ``words.tokenise`` gives the same words. And for people who draw
with SHAP's plots, ``Explanation.to_shap`` makes its objects. No other room names SHAP.

explanations  settings, and the explanation of a text
explaining    rows to explanations by either method, or by both to compare them
partition     Owen values: tree, owen and pooling are its parts
gradient      integrated gradients, summed by word
agreement     how far the two methods agree
slices        a table in pieces that are explained and kept on their own
on_table      a sample or a whole table into a table of explanations
pyfunc        the explainer as a registered model
words         the words of a text
figures       pictures
for_shap      attributions as objects of SHAP, for its plots
"""

from dlpipe.explain.agreement import Agreement
from dlpipe.explain.explaining import compare_methods, explain_rows
from dlpipe.explain.explanations import (
    ExplainSettings,
    Explanation,
    Explanations,
    Scorer,
    WordEffect,
    choose_rows,
    explanation_schema,
)
from dlpipe.explain.figures import row_figure, words_figure
from dlpipe.explain.on_table import Explained, explain_all, explain_table
from dlpipe.explain.pyfunc import register_explainer
from dlpipe.explain.words import bare, split_words

__all__ = [
    "Agreement",
    "ExplainSettings",
    "Explained",
    "Explanation",
    "Explanations",
    "Scorer",
    "WordEffect",
    "bare",
    "choose_rows",
    "compare_methods",
    "explain_all",
    "explain_rows",
    "explain_table",
    "explanation_schema",
    "register_explainer",
    "row_figure",
    "split_words",
    "words_figure",
]
