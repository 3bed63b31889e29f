"""Work over the rows of a table by parts, resumable: killed anywhere, it goes on after its last part.

choosing   which rows a model has still to answer: none gets a second answer
by_part    rows that are read, scored and kept a part at a time, and committed once
slices     a table in slices of a few rows, for work that takes long for each
staging    pieces that are worked on and kept on their own, until all are committed
ahead      the next item made by a thread while this one is used
progress   how far the work is
"""

from dlpipe.parts.ahead import one_ahead
from dlpipe.parts.by_part import (
    Scored,
    Scorer,
    commit_scoring,
    find_table,
    rows_of,
    score_by_part,
    score_missing,
)
from dlpipe.parts.choosing import NOTHING, Scoring, choose
from dlpipe.parts.progress import Progress
from dlpipe.parts.slices import Slice, part_sizes, table_slices
from dlpipe.parts.staging import stage_missing

__all__ = [
    "NOTHING",
    "Progress",
    "Scored",
    "Scorer",
    "Scoring",
    "Slice",
    "choose",
    "commit_scoring",
    "find_table",
    "one_ahead",
    "part_sizes",
    "rows_of",
    "score_by_part",
    "score_missing",
    "stage_missing",
    "table_slices",
]
