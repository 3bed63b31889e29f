"""Score the rows of a table that are new since the last time, each exactly once, also after kills and repeats.

The log of the predictions table has a mark for each table that is scored into it: the version up to which its rows
were scored. The commit of new rows moves the mark in the same atomic step, and only from where it was when the
work began; so of two programs that score the same rows, one commits, and the other looks again at what is left.

The keys of commits alone would let two programs that began at different versions score the same rows; the ids in
the predictions alone would count what a challenger predicted as done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from dlpipe.cluster import Cluster
from dlpipe.errors import MarkMoved
from dlpipe.parts import NO_VERSION, Scorer, Scoring, ScoringResult, score_by_part, score_missing
from dlpipe.registry import ModelVersion
from dlpipe.tables import (
    PART_ROWS,
    Mark,
    TableVersion,
    clear_staged,
    commit_parts,
    find_commit,
    find_first_commit,
    read_added,
    read_mark,
    read_table_id,
    table_at,
)


@dataclass(frozen=True)
class ScoredVersion:
    """Up to which version of a table its rows have been scored into a target.

    Attributes
    ----------
    version : int
        -1 where none was.
    mark : int or None
        Where the target's mark is, which the next commit moves from there.
    """

    version: int
    mark: int | None


def find_scored_version(target: str, source: TableVersion, model: ModelVersion) -> ScoredVersion:
    """Return up to which version the rows of ``source`` have been scored into ``target``.

    That is the target's mark, or a later version of which ``model`` has scored all rows (as the train flow does
    with the model that it registers). What another model scored beside the mark does not count: it may have been a
    challenger.

    Parameters
    ----------
    target : str
        Path of the predictions table.
    source : TableVersion
        The table whose rows are scored, at the version that is to be scored next.
    model : ModelVersion
        Whose scorings of whole versions count.
    """
    mark = read_mark(target, name_mark(source))
    lowest = NO_VERSION if mark is None else mark
    key = Scoring(source, model, target).key
    whole = range(source.version, lowest, -1)
    found = find_first_commit(target, ({**key, "source_version": str(version)} for version in whole))
    return ScoredVersion(int(found["source_version"]) if found else lowest, mark)


def name_mark(source: TableVersion) -> str:
    """Return the name of the mark; a table that was made anew in the same place has another."""
    return f"rows of {source.path} {read_table_id(source.path)}"


def score_new(
    make: Callable[[Scoring], Scorer],
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    until: ScoredVersion | None = None,
    part_rows: int = PART_ROWS,
    say: Callable[[str], None] | None = print,
    cluster: Cluster | None = None,
) -> ScoringResult:
    """Append the predictions for the rows of ``source`` that are not scored yet to ``target``, in one commit.

    A row is new if the version of the table up to which rows were scored has no row of its ``row_id``. Which model
    scored the others does not matter. A new row that ``model`` has answered already, as one of a split, gets no
    second answer. Called again after a kill, it resumes after its last staged part; called again after its commit,
    it returns that commit.

    Parameters
    ----------
    make : callable
        Returns the scorer of a ``Scoring``, such as ``functools.partial(PartScorer, predictor)``.
    source : TableVersion
    model : ModelVersion
        What the rows will name; that of the scorer.
    target : str
        Path of the predictions table, made if needed.
    until : ScoredVersion, optional
        What ``find_scored_version`` returned when the work began first: a try after a kill passes it again, and
        finds by it what the killed one staged or committed. By default it is looked up.
    """
    begun = until or find_scored_version(target, source, model)
    # before the loop: it would find the rows of a killed try committed, and report that none was new
    if done := _find_own_commit(source, model, target, begun):
        return done
    while begun.mark is None or begun.mark < source.version:
        scoring = Scoring(source, model, target, after=begun.version)
        mark = Mark(name_mark(source), begun.mark, source.version)
        try:
            return score_missing(make, scoring, part_rows=part_rows, say=say, cluster=cluster, mark=mark)
        except MarkMoved:  # another program scored rows of this table: begin where it ended
            begun = find_scored_version(target, source, model)
    clear_staged(target)  # what a process left that was killed after its commit
    return ScoringResult(table_at(target), rows=source.rows, new_rows=0)


def score_whole(
    make: Callable[[Scoring], Scorer],
    source: TableVersion,
    *,
    model: ModelVersion,
    target: str,
    split: str | None = None,
    part_rows: int = PART_ROWS,
    say: Callable[[str], None] | None = print,
    cluster: Cluster | None = None,
) -> ScoringResult:
    """Append the predictions for all rows of ``source``, or of a split, that ``model`` has not answered yet.

    As ``score`` does, in one commit. Of all rows, the target's mark is moved too: for ``score_new`` none is new.

    Parameters
    ----------
    make, source, model, target
        See ``score_new``.
    split : str, optional
        By default all rows.
    part_rows, say, cluster
        See ``score``.
    """
    scoring = Scoring(source, model, target, split)
    done = score_by_part(make, scoring, part_rows=part_rows, say=say, cluster=cluster)
    if split is None:
        # a commit of its own, after that of the rows; a kill between the two leaves the mark behind, which costs
        # nothing: the version counts as scored by this model, see ``find_scored_version``
        score_new(make, source, model=model, target=target, say=None)
    return done


def load_scorer(model: ModelVersion) -> Callable[[Scoring], Scorer]:
    """Return what makes scorers with ``model``, a classifier or a pipeline, which is loaded here.

    Raises
    ------
    ModelNotFound
        When it is of another kind.
    """
    from dlpipe.inference.loading import is_pipeline, load_predictor
    from dlpipe.inference.pipeline import load_pipeline
    from dlpipe.inference.pipeline_scoring import PipelineScorer
    from dlpipe.inference.scoring import PartScorer

    if is_pipeline(model):
        return functools.partial(PipelineScorer, load_pipeline(model.uri))
    return functools.partial(PartScorer, load_predictor(model.uri))


def _find_own_commit(
    source: TableVersion, model: ModelVersion, target: str, begun: ScoredVersion
) -> ScoringResult | None:
    """Return what an earlier try of this work committed; it may have begun where another program had ended."""
    made = Scoring(source, model, target, after=begun.version).key
    # a try that lost to another program began again where that one had ended, so its key names a later version
    tries = range(begun.version, source.version + 1)
    key = find_first_commit(target, ({**made, "after": str(version)} for version in tries))
    if key is None or (done := find_commit(target, key)) is None:
        return None
    commit_parts(target, key=key, parts=0)  # for what a process left that was killed after its commit
    return ScoringResult(done, rows=source.rows, new_rows=read_added(done, columns=["row_id"]).num_rows)
