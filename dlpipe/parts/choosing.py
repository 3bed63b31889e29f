"""Which rows of a table version a model has not answered yet: no row gets a second answer of one model.

A row of a predictions table names in ``answer_set`` which model, by its weights, answered which version of which
table. A scoring leaves out the rows that the set has already, whatever option asked for them. The log of the
predictions table has a mark for each set, which every commit of such answers moves from where it was when the rows
were chosen; so of two programs that chose the same rows, one commits, and the other chooses again.

Rows alone cannot tell: two programs that read the table before either commits would both score. The commits' keys
cannot either: they know whole scorings, so a split after the whole table would be scored twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dlpipe.errors import SchemaMismatch
from dlpipe.registry import ModelVersion
from dlpipe.tables import (
    PART_ROWS,
    Mark,
    TablePart,
    TableVersion,
    decode_texts,
    list_parts,
    read_mark,
    read_part,
    read_table,
    read_table_id,
    stage_part,
    stream_table,
    table_at,
    to_split_key,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Places = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

NO_VERSION = -1
"""The version up to which nothing was scored."""


@dataclass(frozen=True)
class Scoring:
    """What is scored with what, and where to: small, and good in any process."""

    source: TableVersion
    model: ModelVersion
    target: str
    split: str | None = None
    after: int | None = None
    """The version of the source whose rows are left out, -1 for none; ``None`` for a scoring of all rows."""
    chosen: Mapping[int, Places] = field(default_factory=dict, compare=False, repr=False)
    """Where the rows to score are in each part; ``choose`` finds them."""
    answers_mark: int | None = None
    """Where the mark of the answer set was when the rows were chosen."""
    repeats: int = 0
    """The rows that have the ``row_id`` of an earlier one, and so no answer of their own."""

    @cached_property
    def key(self) -> dict[str, str]:
        """What makes a scoring the same as an earlier one."""
        made = {**self._origin, "split": to_split_key(self.split)}
        return made if self.after is None else {**made, "after": str(self.after)}

    @cached_property
    def answer_set(self) -> str:
        """What the answers of one model for one version of one table have in common, and no others.

        With the id of the table, since one that was made anew in the same place has versions of the same numbers.
        """
        return hashlib.sha256(json.dumps(self._origin, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def mark(self) -> Mark:
        """The mark that a commit of such answers moves."""
        before = self.answers_mark
        return Mark(f"answers {self.answer_set}", before, 0 if before is None else before + 1)

    @property
    def rows(self) -> int:
        """How many rows were chosen."""
        return sum(map(len, self.chosen.values()))

    @cached_property
    def _origin(self) -> dict[str, str]:
        return {
            "model": self.model.uri,
            "weights": self.model.digest,
            "source": self.source.path,
            "source_id": read_table_id(self.source.path),
            "source_version": str(self.source.version),
        }

    def read(self, part: TablePart, columns: Sequence[str]) -> pa.Table:
        """Return ``row_id`` and these columns of the rows of ``part`` that are to be scored."""
        import pyarrow as pa

        rows = decode_texts(read_part(part, columns=["row_id", *columns]), of=self.source)
        return rows.take(pa.array(self.chosen[part.number]))

    def size(self, part: TablePart) -> int:
        """Return how many rows of ``part`` are to be scored."""
        return len(self.chosen[part.number])

    def stage(self, part: TablePart, rows: pa.Table) -> int:
        """Keep the rows made of ``part`` until all parts are committed, and return how many they are."""
        stage_part(self.target, rows, key=self.key, part=part.number, cut=part.cut)
        return rows.num_rows

    def __str__(self) -> str:
        which = self.split or "all splits" if self.after is None else "new rows"
        return f"scoring {self.source} {which}"


def choose_missing(scoring: Scoring, *, part_rows: int = PART_ROWS) -> tuple[Scoring, list[TablePart]]:
    """Return ``scoring`` with the rows that its model has still to answer, and the parts that have such rows.

    Of rows with the same ``row_id`` the first is scored. Where nothing is left, there is one part of which no row
    is chosen: its commit has no rows.

    Raises
    ------
    SchemaMismatch
        When a row has no ``row_id``: nobody could tell whose its answer is.
    """
    # before the answers are read: a commit between the two moves the mark, so that ours fails and rows are chosen
    # again; read after them, that commit's answers would be missing here and its mark taken for ours
    mark = read_mark(scoring.target, scoring.mark.name)
    parts = list_parts(scoring.source, rows=part_rows)
    left, repeats = find_unanswered(scoring, answered=mark is not None)
    found: list[tuple[TablePart, Places]] = []
    start = 0
    for part in parts:
        places = left[start : start + part.rows].nonzero()[0]
        start += part.rows
        if len(places):
            found.append((replace(part, number=len(found)), places))
    # a part without rows: a commit has one part at least, and this one may have to move marks
    found = found or [(parts[0], left[:0].nonzero()[0])]
    chosen = {part.number: places for part, places in found}
    cut = digest_choice(parts[0].cut, list(chosen.values()))
    plan = replace(scoring, chosen=chosen, answers_mark=mark, repeats=repeats)
    return plan, [replace(part, cut=cut) for part, _ in found]


def find_unanswered(scoring: Scoring, *, answered: bool) -> tuple[Flags, int]:
    """Return which rows of the source are to be scored, and how many have the id of an earlier row.

    Parameters
    ----------
    scoring : Scoring
    answered : bool
        Whether some may have an answer. None has where the set has no mark, so that a first scoring reads no ids
        of the predictions table.
    """
    import numpy as np
    import pyarrow.compute as pc

    # ids of whole versions are held in memory, some 100 bytes a row; the rows themselves are not
    ids = read_row_ids(scoring.source)
    # every row of this version was scored: its ids need not be compared with themselves
    if scoring.after == scoring.source.version:
        return np.zeros(len(ids), dtype=bool), 0
    left = is_first_of_id(ids)
    repeats = int(len(ids) - left.sum())
    if scoring.split is not None:
        left &= is_in_split(scoring.source, scoring.split)
    if scoring.after is not None and scoring.after > NO_VERSION:
        known = read_row_ids(table_at(scoring.source.path, version=scoring.after))
        left &= ~pc.is_in(ids, value_set=known).to_numpy(zero_copy_only=False)
    if answered:
        left &= ~pc.is_in(ids, value_set=read_answered_ids(scoring)).to_numpy(zero_copy_only=False)
    return left, repeats


def digest_choice(cut: str, places: Sequence[Places]) -> str:
    """Return the cut of parts of which these rows were chosen.

    Parts that were staged for another choice of rows do not fit: a part that is taken up after a kill would hold
    answers for rows that another program has answered meanwhile.
    """
    made = hashlib.sha256(cut.encode())
    for some in places:
        made.update(b"part" + some.astype("<i8").tobytes())
    return made.hexdigest()[:8]


def read_row_ids(version: TableVersion) -> pa.Array:
    """Return the id of each row, in the order of the parts."""
    import pyarrow as pa

    ids = read_table(version, columns=["row_id"])["row_id"].cast(pa.large_string()).combine_chunks()
    if ids.null_count:
        raise SchemaMismatch(
            f"{ids.null_count:,} of the {len(ids):,} rows of {str(version)!r} have no row_id, so that nobody "
            "could tell whose an answer is. Give each row one."
        )
    return ids


def is_first_of_id(ids: pa.Array) -> Flags:
    """Return which rows are the first of their id.

    Examples
    --------
    >>> import pyarrow as pa
    >>> is_first_of_id(pa.array(["b", "a", "b"])).tolist()
    [True, True, False]
    """
    import numpy as np

    first = np.zeros(len(ids), dtype=bool)
    first[np.unique(ids.dictionary_encode().indices.to_numpy(), return_index=True)[1]] = True
    return first


def is_in_split(version: TableVersion, split: str) -> Flags:
    """Return which rows are in ``split``."""
    import pyarrow.compute as pc

    read_table(version, split=split, columns=[])  # raises where there is no such split, with those that exist
    splits = read_table(version, columns=["split"])["split"]
    return pc.fill_null(pc.equal(splits, split), False).to_numpy()


def read_answered_ids(scoring: Scoring) -> pa.Array:
    """Return the ids of the rows that have an answer of the set."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batches = stream_table(table_at(scoring.target), columns=["row_id", "answer_set"], batch_rows=65536)
    found = [batch.filter(pc.equal(batch["answer_set"], scoring.answer_set))["row_id"] for batch in batches]
    return pa.chunked_array(found, pa.string()).cast(pa.large_string()).combine_chunks()
