"""What each part of a row adds to the outputs, and pictures of it.

The inputs of a task say which parts a row has: of a text its words, of two texts the words of both, of columns the
columns.

SHAP is used for two things. Values are those of its partition explainer, computed here for many rows at once;
the tests hold those of texts against SHAP's own. And for people who draw
with SHAP's plots, ``Explanation.to_shap`` makes its objects. No other room names SHAP.

explanations  settings, and the explanation of a row
explaining    rows to explanations by either method, or by both to compare them
partition     Owen values: the recursion is in owen, what many rows ask at once in pooling
gradient      gradients, where the inputs of the task know them
agreement     how far the two methods agree
slices        a table in pieces that are explained and kept on their own
on_table      a sample or a whole table into a table of explanations
pyfunc        the explainer as a registered model
figures       pictures
for_shap      attributions as objects of SHAP, for its plots
"""

from dlpipe.explain.agreement import Agreement
from dlpipe.explain.explaining import compare_methods, explain_rows
from dlpipe.explain.explanations import (
    ExplainSettings,
    Explanation,
    Explanations,
    PartEffect,
    choose_rows,
    explanation_schema,
)
from dlpipe.explain.figures import effects_figure, row_figure
from dlpipe.explain.on_table import Explained, explain_all, explain_table
from dlpipe.explain.pyfunc import register_explainer

__all__ = [
    "Agreement",
    "ExplainSettings",
    "Explained",
    "Explanation",
    "Explanations",
    "PartEffect",
    "choose_rows",
    "compare_methods",
    "effects_figure",
    "explain_all",
    "explain_rows",
    "explain_table",
    "explanation_schema",
    "register_explainer",
    "row_figure",
]
