"""Score a table a part at a time: each part is staged when it is done, and all parts are committed at once.

A scorer has two halves: ``begin`` reads a part and prepares it, ``finish`` computes its rows and stages them. In
this process the next part is begun while this one is finished. On a cluster ``scorer(part)`` does both, in as many
processes as there are.

A kill loses the part that was worked on, and on a cluster one for each process. It leaves staged parts beside the
table, which no reader of the table sees; the next try with the same key and cut uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlpipe.cluster import Cluster
from dlpipe.errors import MarkMoved
from dlpipe.parts.choosing import Scoring, choose_missing
from dlpipe.parts.prefetching import prefetch
from dlpipe.parts.progress import RowProgress
from dlpipe.parts.slices import count_part_rows
from dlpipe.parts.staging import stage_missing
from dlpipe.tables import (
    Mark,
    TablePart,
    TableVersion,
    check_target,
    commit_parts,
    find_commit,
    list_parts,
    table_at,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.task import Inputs


@dataclass(frozen=True)
class ScoringResult:
    """What scoring a table did.

    Attributes
    ----------
    table : TableVersion
        The predictions table at the version that holds these rows.
    rows : int
        The rows of the source that have a prediction.
    new_rows : int
        The rows committed now; 0 when the same model had scored all of them before.
    doubt : str
        Why the predictions may say nothing: all rows are empty, or the same. Empty where there is no doubt.
    """

    table: TableVersion
    rows: int
    new_rows: int
    doubt: str = ""


class Scorer(Protocol):
    """Makes the rows of a predictions table from parts of the source; can be pickled, to travel to a cluster."""

    @property
    def scoring(self) -> Scoring:
        """What it scores."""

    @property
    def inputs(self) -> Inputs:
        """What its rows are to the model."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""

    def __call__(self, part: TablePart) -> int:
        """Make and stage the rows of ``part``, and return how many."""

    def read(self, part: TablePart) -> pa.Table:
        """Return ``row_id`` and what the inputs read of the rows of ``part`` that are to be scored."""

    def begin(self, part: TablePart) -> Any:
        """Read and prepare ``part``; another thread may do this while ``finish`` works."""

    def finish(self, begun: Any, *, progress: Callable[[int], None] | None = None) -> int:
        """Make and stage the rows of what was begun, and return how many; ``progress`` gets them bit by bit."""


def score_by_part(
    make: Callable[[Scoring], Scorer],
    scoring: Scoring,
    *,
    part_rows: int,
    say: Callable[[str], None] | None,
    cluster: Cluster | None = None,
) -> ScoringResult:
    """Commit the rows that the model has not answered yet; continue after a kill.

    Parameters
    ----------
    make : callable
        Returns the scorer of a ``Scoring``, such as ``functools.partial(PartScorer, predictor)``.
    scoring : Scoring
        What to score; which rows are missing is found here.
    part_rows : int
        The rows of a part at most.
    say : callable, optional
        Gets progress and warnings as lines; None keeps silent.
    cluster : Cluster, optional
        Where parts are scored; by default in this process.
    """
    while True:
        try:
            return score_missing(make, scoring, part_rows=part_rows, say=say, cluster=cluster)
        except MarkMoved:
            # another program committed answers of this model meanwhile: choose again, or rows get a second answer
            continue


def score_missing(
    make: Callable[[Scoring], Scorer],
    scoring: Scoring,
    *,
    part_rows: int,
    say: Callable[[str], None] | None,
    cluster: Cluster | None = None,
    mark: Mark | None = None,
) -> ScoringResult:
    """Commit the rows that the model has not answered yet, in one try.

    Parameters
    ----------
    make, scoring, part_rows, say, cluster
        See ``score_by_part``.
    mark : Mark, optional
        A further mark of the target that moves in the same commit.

    Raises
    ------
    MarkMoved
        When another program moved ``mark``, or committed answers of the same model for the same table version.
    """
    target, key = scoring.target, scoring.key
    if find_commit(target, key) is not None:
        # the commit with no parts does nothing but remove the staged files of a process killed after its commit
        return ScoringResult(commit_parts(target, key=key, parts=0), rows=count_rows(scoring), new_rows=0)
    check_target(target, make(scoring).schema)  # before hours of work, not at the commit
    chosen, parts = choose_missing(scoring, part_rows=part_rows)
    # An empty commit is made only where it records something: up to which version rows were scored, or that all
    # rows were. Of a split whose rows all have an answer it would be one more version each time it is asked for.
    if not chosen.rows and scoring.split and (there := find_table(target)):
        return ScoringResult(there, rows=count_rows(scoring), new_rows=0)
    if chosen.repeats and say:
        rows = "1 row has" if chosen.repeats == 1 else f"{chosen.repeats:,} rows have"
        say(f"{scoring}: {rows} the row_id of an earlier row, which alone is scored")
    scorer = make(chosen)
    doubt = find_doubt(scorer, parts, say)
    stage_parts(scorer, parts, say, cluster)
    table = commit_scoring(chosen, parts, mark=mark)
    return ScoringResult(table, rows=count_rows(scoring), new_rows=chosen.rows, doubt=doubt)


def commit_scoring(scoring: Scoring, parts: Sequence[TablePart], *, mark: Mark | None = None) -> TableVersion:
    """Commit the parts of a scoring, which are all staged, and return the version that they made.

    Parameters
    ----------
    scoring : Scoring
        As ``choose_missing`` returned it.
    parts : sequence of TablePart
        As ``choose_missing`` returned them.
    mark : Mark, optional
        A further mark of the target that moves in the same commit.

    Raises
    ------
    MarkMoved
        When another program committed answers of the same model for the same table version since the parts were
        chosen, or moved ``mark``; nothing is committed.
    """
    marks = [scoring.mark, *([mark] if mark else [])]
    return commit_parts(scoring.target, key=scoring.key, parts=len(parts), cut=parts[0].cut, marks=marks)


def find_doubt(scorer: Scorer, parts: Sequence[TablePart], say: Callable[[str], None] | None) -> str:
    """Return and ``say`` why predictions would say nothing: all rows are empty, or the same; else an empty text.

    Reading ends at the first row that differs from the one before: a good table costs one part.

    Parameters
    ----------
    scorer : Scorer
    parts : sequence of TablePart
        Those that are to be scored.
    say : callable, optional
        Gets the doubt as a line.
    """
    seen: set[str] = set()
    count = 0
    for part in parts:
        read = scorer.read(part)
        count += len(read)
        for row in scorer.inputs.deduplicate_rows(read.drop_columns(["row_id"]))[0]:
            seen.add(scorer.inputs.format_row(row).strip())
            if len(seen) > 1:
                return ""
    if not count or (count == 1 and seen != {""}):
        return ""
    what, which = f"all {count:,} rows of {scorer.scoring.source}", "empty" if seen == {""} else "the same"
    doubt = f"{what}, scored just now, are {which}: look at where they come from"
    if say is not None:
        say(doubt)
    return doubt


def stage_parts(
    scorer: Scorer, parts: Sequence[TablePart], say: Callable[[str], None] | None, cluster: Cluster | None
) -> None:
    """Stage the parts that are not staged yet.

    Parameters
    ----------
    scorer : Scorer
        Of a scoring whose rows are chosen.
    parts : sequence of TablePart
    say : callable, optional
        Gets progress as lines.
    cluster : Cluster, optional
        By default this process does the work.
    """
    scoring = scorer.scoring

    def work(missing: Sequence[TablePart], progress: RowProgress) -> None:
        if cluster:
            # the scorer is pickled once with its model: nodes read no registry, and all have the same weights
            for rows in cluster.each(scorer, missing):
                progress.add(rows)
        else:
            for begun in prefetch(missing, scorer.begin):
                scorer.finish(begun, progress=progress.add)

    sizes = [scoring.size(part) for part in parts]
    target, key, cut = scoring.target, scoring.key, parts[0].cut
    stage_missing(parts, sizes, work, target=target, key=key, cut=cut, what=str(scoring), say=say)


def count_rows(scoring: Scoring) -> int:
    """Return how many rows the split has, or the whole table version."""
    return sum(count_part_rows(list_parts(scoring.source), scoring.split))


def find_table(target: str) -> TableVersion | None:
    """Return the latest version of the table at ``target``, or None where there is none."""
    from dlpipe.errors import TableNotFound

    try:
        return table_at(target)
    except TableNotFound:
        return None
