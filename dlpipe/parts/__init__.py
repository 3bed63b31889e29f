"""Resumable work over the rows of a table, by parts: after a kill it resumes after the last staged part.

choosing     which rows a model has not answered yet: none gets a second answer
by_part      read, score and stage rows a part at a time, and commit all parts at once
slices       a table in slices of a few rows, for work that takes long for each row
staging      run the work of the parts that are not staged yet
prefetching  make the next item in a thread while this one is used
progress     rows done and their rate
"""

from dlpipe.parts.by_part import (
    Scorer,
    ScoringResult,
    commit_scoring,
    count_rows,
    find_table,
    score_by_part,
    score_missing,
)
from dlpipe.parts.choosing import NO_VERSION, Scoring, choose_missing
from dlpipe.parts.prefetching import prefetch
from dlpipe.parts.progress import RowProgress
from dlpipe.parts.slices import Slice, count_part_rows, cut_slices
from dlpipe.parts.staging import stage_missing

__all__ = [
    "NO_VERSION",
    "RowProgress",
    "Scorer",
    "Scoring",
    "ScoringResult",
    "Slice",
    "choose_missing",
    "commit_scoring",
    "count_part_rows",
    "count_rows",
    "cut_slices",
    "find_table",
    "prefetch",
    "score_by_part",
    "score_missing",
    "stage_missing",
]
