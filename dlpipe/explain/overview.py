"""What parts do over many rows: an overview, or that there are too few rows for one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlpipe.explain.explanations import PartEffect

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.tables import TableVersion

ENOUGH_ROWS, ENOUGH_OF_PART = 30, 5
"""An overview takes so many rows; a part counts that stands in so many of them: one row is an anecdote."""
MOST_RECORDS = 5_000_000
"""A table of more is not read for a card."""


@dataclass(frozen=True)
class Overview:
    """The mean effect of parts on outputs.

    Attributes
    ----------
    rows : int
        The rows that were explained.
    effects : mapping of str to tuple of PartEffect
        By output, the largest total first, whatever its sign; empty where nothing can be said.
    """

    rows: int
    effects: Mapping[str, tuple[PartEffect, ...]]

    def describe_lack(self, noun: str) -> str:
        """Return why there are no effects, and what to do, in one line.

        Parameters
        ----------
        noun : str
            What a part is called.
        """
        more = "Explain more: python flows/explain_flow.py run --split test, or [explanation] rows"
        if self.rows < ENOUGH_ROWS:
            few = f"{self.rows:,} rows are too few to say what a {noun} does in general"
            return f"{few}; it takes {ENOUGH_ROWS}. {more}."
        return f"No {noun} stands in {ENOUGH_OF_PART} of the {self.rows:,} rows. {more}."


def read_overview(table: TableVersion, *, model: str, texts: Collection[str]) -> Overview:
    """Return the mean effects over all rows that a model has explained into a table.

    Parameters
    ----------
    table : TableVersion
        Of explanations, see ``make_explanation_schema``.
    model : str
        The URI of its version.
    texts : collection of str
        The columns whose parts are words: equal words are one part, whatever their case. Of another column, the
        column itself is the part.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from dlpipe.tables import stream_table

    if table.rows > MOST_RECORDS:
        return Overview(0, {})
    columns = ["row_id", "input_column", "part", "output_name", "attribution", "model_version"]
    batches = [
        batch.filter(pc.equal(batch["model_version"], model))
        for batch in stream_table(table, columns=columns, batch_rows=65_536)
    ]
    found = pa.Table.from_batches(batches) if batches else None
    if found is None or not found.num_rows:
        return Overview(0, {})
    rows = pc.count_distinct(found["row_id"]).as_py()
    return Overview(rows, _group(found, texts) if rows >= ENOUGH_ROWS else {})


def _group(found: pa.Table, texts: Collection[str]) -> dict[str, tuple[PartEffect, ...]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    is_word = pc.is_in(found["input_column"], pa.array([*texts], pa.string()))
    names = pc.if_else(is_word, pc.utf8_lower(found["part"]), found["input_column"])
    grouped = (
        found.append_column("name", names)
        .group_by(["output_name", "name", "input_column"])
        .aggregate([("attribution", "mean"), ("row_id", "count_distinct")])
    )
    effects: dict[str, list[PartEffect]] = defaultdict(list)
    for group in grouped.to_pylist():
        if group["row_id_count_distinct"] >= ENOUGH_OF_PART:
            effect = (group["name"], group["input_column"], group["output_name"], group["attribution_mean"])
            effects[group["output_name"]].append(PartEffect(*effect, group["row_id_count_distinct"]))
    return {
        output: tuple(sorted(each, key=lambda effect: (-abs(effect.total), effect.name)))
        for output, each in sorted(effects.items())
    }
