"""Runs and model versions beside each other: what differs, and which is better on the same rows.

sides       a run or a version, with all that is known of it here
data        how versions of a table differ
code        how two commits differ
kept        a model's outputs: those that a table keeps, else made now
pairs       two models on the same rows
comparison  all of it for two sides or more
sections    a comparison in words and tables, and as JSON
curves      learning curves and intervals as pictures in SVG
page        a comparison as one page
"""

from dlpipe.comparing.comparison import Comparison, compare
from dlpipe.comparing.page import make_page
from dlpipe.comparing.pairs import ComparedRows, Pair
from dlpipe.comparing.sections import Section, make_sections, summarize, to_plain
from dlpipe.comparing.sides import Side, find_side

__all__ = [
    "ComparedRows",
    "Comparison",
    "Pair",
    "Section",
    "Side",
    "compare",
    "find_side",
    "make_page",
    "make_sections",
    "summarize",
    "to_plain",
]
