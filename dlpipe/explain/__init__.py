"""Attributions: what each part of a row adds to the model's outputs, with figures.

The inputs of a task say which parts a row has: of a text its words, of two texts the words of both, of columns the
columns.

Attributions are the Owen values of SHAP's partition explainer, computed here for many rows at once; the tests hold
them against SHAP's own. ``Explanation.to_shap`` makes objects for SHAP's plots. No other room names SHAP.

explanations      settings, the explanation of a row, and the columns of a table of explanations
explaining        explain rows by Owen values, by gradients, or by both to compare them
partition         Owen values of rows
owen              the recursion that computes them
rounds            model calls of many rows in one batch, none twice
gradient          integrated gradients, where the inputs of the task have them
agreement         how far the two methods agree
slices            explain a table in slices, each stored when it is done
table_explaining  explain a sample or a whole table, appended to a table of explanations
pyfunc            the explainer as a registered model
overview          what parts do over many rows
figures           the figure of a row
loading           the explainer of a registered model
page              explanations as a page of HTML
wording           what an explanation says in words
shap_objects      attributions as objects of SHAP, for its plots
"""

from dlpipe.explain.agreement import Agreement
from dlpipe.explain.explaining import compare_methods, explain_rows
from dlpipe.explain.explanations import (
    ExplainSettings,
    Explanation,
    Explanations,
    PartEffect,
    choose_rows,
    make_explanation_schema,
)
from dlpipe.explain.figures import make_row_figure
from dlpipe.explain.loading import load_explainer
from dlpipe.explain.overview import Overview, read_overview
from dlpipe.explain.page import make_page
from dlpipe.explain.pyfunc import register_explainer
from dlpipe.explain.table_explaining import ExplainedTable, explain_all, explain_table, read_named_rows

__all__ = [
    "Agreement",
    "ExplainSettings",
    "ExplainedTable",
    "Explanation",
    "Explanations",
    "Overview",
    "PartEffect",
    "choose_rows",
    "compare_methods",
    "explain_all",
    "explain_rows",
    "explain_table",
    "load_explainer",
    "make_explanation_schema",
    "make_page",
    "make_row_figure",
    "read_named_rows",
    "read_overview",
    "register_explainer",
]
