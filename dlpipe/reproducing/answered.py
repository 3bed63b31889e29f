"""What answers of a table are compared by when they are computed again: those of then, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dlpipe.tables import TableVersion, stream_table

if TYPE_CHECKING:
    import pyarrow as pa

ROUNDING = 1e-4
"""Within this, a number is the same: batches of other rows add up in another order."""
EXIT_CODES = {"same": 0, "different": 4, "not compared": 1}


@dataclass(frozen=True)
class AnswersAgain:
    """What came of computing the answers of a model again: its predictions, or its explanations.

    Attributes
    ----------
    model, table, source : str
        The version that answered, the table with the answers, the version of the table with the rows.
    outcome : str
        ``same``: each label as it was, each number within 0.0001. ``not compared``: they cannot be computed again.
    rows : int
        How many were.
    left_out : int
        Rows beyond the first 10,000, of explanations beyond the first 50, and those that are not in the source any
        more.
    alike : int
        Rows with the same labels, and NaN at the same places; of explanations, those with the same parts and
        numbers.
    largest : float
        The largest difference of a number; NaN where none was compared.
    why : str
        Why they were not compared, and what to do.
    """

    model: str
    table: str
    source: str
    outcome: Literal["same", "different", "not compared"]
    rows: int = 0
    left_out: int = 0
    alike: int = 0
    largest: float = math.nan
    why: str = ""

    @property
    def exit_code(self) -> int:
        """0 for the same answers, 4 for different ones, 1 where they cannot be compared."""
        return EXIT_CODES[self.outcome]

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON; ``None`` stands for what is not known."""
        return {**vars(self), "largest": self.largest if math.isfinite(self.largest) else None}

    def __str__(self) -> str:
        if self.outcome == "not compared":
            return f"answers   of {self.model} in {self.table} not compared: {self.why}"
        rest = f"; {self.left_out:,} more were not compared" if self.left_out else ""
        numbers = f", numbers differ by at most {self.largest:.2g}" if math.isfinite(self.largest) else ""
        return (
            f"answers   of {self.model} in {self.table} for {self.source}: {self.alike:,} of {self.rows:,} rows "
            f"alike{numbers}{rest}"
        )


class Origin(NamedTuple):
    """What answers are of: the version of a model, and the path and the version of the table with the rows."""

    model: str
    source: str
    source_version: int


@dataclass
class Stored:
    """The answers of one origin, as a table has them.

    Attributes
    ----------
    batches : list of pyarrow.RecordBatch
        Those for the first rows.
    rows : dict of str to None
        The ids of these, in their order.
    left_out : int
        How many other rows there are answers for.
    """

    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: dict[str, None] = field(default_factory=dict)
    left_out: int = 0
    _last: str | None = None

    def add(self, batch: pa.RecordBatch, most: int) -> None:
        """Take over what is for the first ``most`` rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if len(self.rows) < most:
            self.rows |= dict.fromkeys(pc.unique(batch["row_id"]).to_pylist()[: most - len(self.rows)])
        is_wanted = pc.is_in(batch["row_id"], pa.array(self.rows, pa.string()))
        if (kept := batch.filter(is_wanted)).num_rows:
            self.batches.append(kept)
        for row_id in batch["row_id"].filter(pc.invert(is_wanted)).to_pylist():
            self.left_out += row_id != self._last  # the parts of an explained row stand together
            self._last = row_id


def read_stored(table: TableVersion, models: Collection[str], *, most: int) -> dict[Origin, Stored]:
    """Return the answers of models in a table, by what they are of.

    Parameters
    ----------
    table : TableVersion
    models : collection of str
    most : int
        Rows of each origin whose answers are wanted.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[Origin, Stored] = {}
    for batch in stream_table(table):
        origins = pa.table(batch).group_by(["model_version", "source", "source_version"]).aggregate([]).to_pylist()
        for origin in origins:
            if origin["model_version"] in models:
                ours = [pc.equal(batch[name], value) for name, value in origin.items()]
                mask = pc.and_(pc.and_(*ours[:2]), ours[2])
                found.setdefault(Origin(*origin.values()), Stored()).add(batch.filter(mask), most)
    return found
