"""Rows of a table that are read, scored and kept a part at a time, and committed once.

A scorer has two halves: ``begin`` reads a part and prepares it, ``finish`` computes its rows and stages them. Here
the next part is begun while this one is finished. Elsewhere ``scorer(part)`` does both, in as many processes as
there are; then the parts are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dlpipe.cluster import Cluster
from dlpipe.inference.progress import Progress
from dlpipe.registry import ModelVersion
from dlpipe.tables import (
    TablePart,
    TableVersion,
    check_target,
    commit_parts,
    find_commit,
    read_part,
    stage_part,
    staged_parts,
    table_parts,
)

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Scored:
    """What scoring a table did.

    Attributes
    ----------
    table : TableVersion
        The predictions table at the version that holds these rows.
    rows : int
        The rows of the source that have a prediction.
    new_rows : int
        The rows committed now; 0 when the same model had scored the same table version before.
    doubt : str
        Why the predictions may say nothing: no row had a text, or all had the same. Empty where there is no doubt.
    """

    table: TableVersion
    rows: int
    new_rows: int
    doubt: str = ""


@dataclass(frozen=True)
class Scoring:
    """What is scored with what, and where to: small, and good in any process."""

    source: TableVersion
    model: ModelVersion
    target: str
    split: str | None = None
    after: int | None = None
    """The version of the source whose rows are left out, -1 for none; ``None`` for a scoring of all rows."""
    chosen: Mapping[int, Sequence[int]] | None = field(default=None, compare=False, repr=False)
    """Of a scoring of new rows: where these are in each part."""

    @property
    def key(self) -> dict[str, str]:
        """What makes a scoring the same as an earlier one."""
        made = {
            "model": self.model.uri,
            "weights": self.model.digest,
            "source": self.source.path,
            "source_version": str(self.source.version),
            "split": self.split or "*",
        }
        return made if self.after is None else {**made, "after": str(self.after)}

    def read(self, part: TablePart) -> pa.Table:
        """Return ``row_id`` and ``text`` of the rows of ``part`` that are to be scored."""
        rows = read_part(part, columns=["row_id", "text"], split=self.split)
        if self.chosen is None:
            return rows
        import pyarrow as pa

        return rows.take(pa.array(self.chosen[part.number], pa.int64()))

    def size(self, part: TablePart) -> int:
        """Return how many rows of ``part`` are to be scored."""
        return part_sizes([part], self.split)[0] if self.chosen is None else len(self.chosen[part.number])

    def stage(self, part: TablePart, rows: pa.Table) -> int:
        """Keep the rows made of ``part`` until all parts are committed, and return how many they are."""
        stage_part(self.target, rows, key=self.key, part=part.number, cut=part.cut)
        return rows.num_rows

    def __str__(self) -> str:
        which = self.split or "all splits" if self.after is None else "new rows"
        return f"scoring {self.source} {which}"


class Scorer(Protocol):
    """Makes rows of parts."""

    @property
    def scoring(self) -> Scoring:
        """What it scores."""

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""

    def __call__(self, part: TablePart) -> int:
        """Make and stage the rows of ``part``, and return how many."""

    def begin(self, part: TablePart) -> Any:
        """Read and prepare ``part``; another thread may do this while ``finish`` works."""

    def finish(self, begun: Any, *, progress: Callable[[int], None] | None = None) -> int:
        """Make and stage the rows of what was begun, and return how many; ``progress`` gets them bit by bit."""


def score_by_part(
    scorer: Scorer, *, part_rows: int, say: Callable[[str], None] | None, cluster: Cluster | None = None
) -> Scored:
    """Commit the rows that ``scorer`` makes of its table version, unless they are there; go on after a kill."""
    scoring = scorer.scoring
    source, target, key = scoring.source, scoring.target, scoring.key
    if find_commit(target, key) is not None:
        # again, for what a process left that was killed after its commit
        done = commit_parts(target, key=key, parts=0)
        rows = source.rows if scoring.split is None else sum(part_sizes(table_parts(source), scoring.split))
        return Scored(done, rows=rows, new_rows=0)
    check_target(target, scorer.schema)
    parts = table_parts(source, rows=part_rows)
    doubt = doubt_input(scoring, parts, say)
    rows = stage_missing(scorer, parts, say, cluster)
    table = commit_parts(target, key=key, parts=len(parts), cut=parts[0].cut)
    return Scored(table, rows=rows, new_rows=rows, doubt=doubt)


def doubt_input(scoring: Scoring, parts: Sequence[TablePart], say: Callable[[str], None] | None) -> str:
    """Return and ``say`` why predictions would say nothing, empty where two texts differ: two are all it reads."""
    texts: set[str] = set()
    rows = 0
    for part in parts:
        read = scoring.read(part)["text"]
        rows += len(read)
        texts.update("" if text is None else str(text).strip() for text in read.unique().to_pylist())
        if len(texts) > 1:
            return ""
    if not rows or (rows == 1 and texts != {""}):
        return ""
    which = "are without a text" if texts == {""} else "have the same text"
    doubt = f"all {rows:,} rows of {scoring.source}, scored just now, {which}: look at where its texts come from"
    if say is not None:
        say(doubt)
    return doubt


def stage_missing(
    scorer: Scorer, parts: Sequence[TablePart], say: Callable[[str], None] | None, cluster: Cluster | None
) -> int:
    """Stage the parts that are not staged yet, and return the rows of all of them."""
    scoring = scorer.scoring
    sizes = [scoring.size(part) for part in parts]
    staged = staged_parts(scoring.target, key=scoring.key, cut=parts[0].cut)
    there = sum(sizes[number] for number in staged)
    progress = Progress(str(scoring), total=sum(sizes), there=there, say=say)
    missing = [part for part in parts if part.number not in staged]
    if cluster:
        for rows in cluster.each(scorer, missing):
            progress.add(rows)
    else:
        for begun in one_ahead(missing, scorer.begin):
            scorer.finish(begun, progress=progress.add)
    progress.end()
    return sum(sizes)


def part_sizes(parts: Sequence[TablePart], split: str | None) -> list[int]:
    """Return the rows of each part that belong to ``split``."""
    if split is None:
        return [part.rows for part in parts]
    return [read_part(part, columns=["split"], split=split).num_rows for part in parts]


def one_ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[Made]:
    """Yield ``make(item)`` for each item; a thread makes the next one while the caller uses this one.

    Examples
    --------
    >>> list(one_ahead([1, 2, 3], str))
    ['1', '2', '3']
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as thread:
        coming = None
        for item in items:
            this, coming = coming, thread.submit(make, item)
            if this is not None:
                yield this.result()
        if coming is not None:
            yield coming.result()
