"""Which versions of models have learnt from rows that are to be forgotten, or were judged by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError
from dlpipe.forgetting.asked import AskedRow
from dlpipe.forgetting.choosing import RowChooser
from dlpipe.registry import MADE_FROM

if TYPE_CHECKING:
    from dlpipe.lineage import Records

HOWS = {"train": "trained on", "valid": "validated on", "test": "tested on"}


@dataclass(frozen=True)
class LearntModel:
    """A version of a model, and what it had of the rows.

    Attributes
    ----------
    uri : str
    table : str
        Location of the table that it learnt from.
    version : int
    run : str
        The task that trained it.
    rows : mapping of str to str
        The split of each row, by row id.
    made_from : str
        The classifier of a pipeline or an explainer, which has what that one has.
    """

    uri: str
    table: str
    version: int
    run: str = ""
    rows: Mapping[str, str] = field(default_factory=dict)
    made_from: str = ""

    def describe(self) -> str:
        """Return what it had, such as ``trained on 2 rows, tested on 1``.

        Examples
        --------
        >>> LearntModel("models:/a/1", "/t", 0, rows={"x": "train", "y": "train", "z": "test"}).describe()
        'trained on 2 of the rows, tested on 1'
        """
        parts: list[str] = []
        for split, how in HOWS.items():
            if count := sum(there == split for there in self.rows.values()):
                parts.append(f"{how} {count:,}" + ("" if parts else " of the rows"))
        return ", ".join(parts)


def find_learnt(records: Records, rows: Sequence[AskedRow]) -> list[LearntModel]:
    """Return the versions that had any of the rows, with what was made from them."""
    chooser = RowChooser(rows)
    seen: dict[tuple[str, int], Mapping[str, str]] = {}
    found: dict[str, LearntModel] = {}
    versions = list(records.models.list_versions())
    for node, version in versions:
        tags = version.tags
        table, number = tags.get("delta.table", "").rstrip("/"), tags.get("delta.version", "")
        if MADE_FROM in tags or not table or not number.isdecimal():
            continue
        place = table, int(number)
        if place not in seen:
            seen[place] = dict(_find_splits(*place, rows, chooser))
        if seen[place]:
            found[str(node)] = LearntModel(str(node), *place, tags.get("metaflow.pathspec", ""), seen[place])
    for node, version in versions:
        if base := found.get(version.tags.get(MADE_FROM, "")):
            found[str(node)] = LearntModel(str(node), base.table, base.version, "", base.rows, base.uri)
    return list(found.values())


def _find_splits(
    table: str, version: int, rows: Sequence[AskedRow], chooser: RowChooser
) -> Iterator[tuple[str, str]]:
    """Yield the rows that a version of a table has, each with its split."""
    from dlpipe.tables import stream_table, table_at

    try:
        there = table_at(table, version=version)
        for batch in stream_table(there, batch_rows=65536):
            if "split" in batch.schema.names:
                for values in batch.filter(chooser.choose(batch, table)).to_pylist():
                    yield identify_row(values, rows, table), str(values["split"] or "")
    except DlpipeError:  # its files are gone: what an earlier call found is in its record
        return


def identify_row(values: Mapping[str, Any], rows: Sequence[AskedRow], table: str) -> str:
    """Return the row id of the asked row that a row of a table is."""
    from dlpipe.tables import normalise

    key = str(values.get("row_id", ""))
    base = key.partition("-")[0]
    for row in rows:
        if base == row.row_id or (row.own_id and (row.table, row.own_id) == (table, key)):
            return row.row_id
    strings = {normalise(value) for name, value in values.items() if isinstance(value, str) and name != "row_id"}
    for row in rows:
        if any(normalise(text) in strings for text in row.whole_texts):
            return row.row_id
    for row in rows:
        if len(row.inputs) > 1 and all(values.get(name) == value for name, value in row.inputs.items()):
            return row.row_id
    return base
