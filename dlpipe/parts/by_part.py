"""Rows of a table that are read, scored and kept a part at a time, and committed once.

A scorer has two halves: ``begin`` reads a part and prepares it, ``finish`` computes its rows and stages them. Here
the next part is begun while this one is finished. Elsewhere ``scorer(part)`` does both, in as many processes as
there are; then the parts are committed.
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
    """Makes rows of parts."""

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
    """
    while True:
        try:
            return score_missing(make, scoring, part_rows=part_rows, say=say, cluster=cluster)
        except MarkMoved:  # the same model answered for rows of this version meanwhile: look again at what is left
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
    """Commit the rows that the model has not answered yet, once; ``mark`` moves with them.

    Raises
    ------
    MarkMoved
        When another program moved ``mark``, or committed answers of the same model for the same table version.
    """
    target, key = scoring.target, scoring.key
    if find_commit(target, key) is not None:
        # again, for what a process left that was killed after its commit
        return ScoringResult(commit_parts(target, key=key, parts=0), rows=count_rows(scoring), new_rows=0)
    check_target(target, make(scoring).schema)
    chosen, parts = choose_missing(scoring, part_rows=part_rows)
    # no commit without rows, unless it says something: up to where rows, or that all rows, were scored
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

    Raises
    ------
    MarkMoved
        When another program committed answers of the same model for the same table version since the parts were
        chosen, or moved ``mark``; nothing is committed.
    """
    marks = [scoring.mark, *([mark] if mark else [])]
    return commit_parts(scoring.target, key=scoring.key, parts=len(parts), cut=parts[0].cut, marks=marks)


def find_doubt(scorer: Scorer, parts: Sequence[TablePart], say: Callable[[str], None] | None) -> str:
    """Return and ``say`` why predictions would say nothing; empty where two rows differ: it reads no more."""
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
    """Stage the parts that are not staged yet."""
    scoring = scorer.scoring

    def work(missing: Sequence[TablePart], progress: RowProgress) -> None:
        if cluster:
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
