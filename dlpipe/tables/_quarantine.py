"""Bad rows: why a row of a source cannot be one of a table, and the quarantine table where bad rows are kept."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadRows
from dlpipe.tables._form import Column, RowForm
from dlpipe.tables._metadata import write_sources
from dlpipe.tables._rows import Row, suggest_encoding
from dlpipe.tables._settings import FormSettings, TableSettings
from dlpipe.tables._sources import Source
from dlpipe.tables._text_files import to_readable
from dlpipe.tables._versions import TableVersion, try_open
from dlpipe.tables._write import ROW_GROUP_ROWS, replace_rows

if TYPE_CHECKING:
    import pyarrow as pa

EMPTY_TEXT = "empty text"
MISSING_VALUE = "missing value"
NO_NUMBER = "value that is no number"
MISSING_LABEL = "missing label"
UNDECODABLE = "undecodable bytes"
CONFLICT = "conflicting labels"
BAD_LABELS = {
    "class": "label that is no class",
    "labels": "labels that are neither a list nor 0 and 1",
    "number": "label that is no number",
}
OWN_COLUMNS = ("source", "line", "reason", "label", "split")
"""Of the quarantine: the inputs stand before the label."""
IDENTIFIABLE = frozenset(["", MISSING_LABEL, *BAD_LABELS.values()])
"""Reasons of rows that have all of their inputs."""
REASONS = ("", UNDECODABLE, EMPTY_TEXT, MISSING_VALUE, NO_NUMBER, MISSING_LABEL, CONFLICT, *BAD_LABELS.values())


@dataclass(frozen=True)
class BadSet:
    """The bad rows of some sources.

    Attributes
    ----------
    counts : mapping
        How many, by reason, the most frequent first.
    firsts : mapping
        The first of each reason.
    undecodable : sequence of Row
        Some that could not be decoded, of each source the first.
    rows : callable
        Yields all, each with the reason; they may be read anew each time.
    """

    counts: Mapping[str, int]
    firsts: Mapping[str, Row]
    undecodable: Sequence[Row]
    rows: Callable[[], Iterable[tuple[Row, str]]]

    def __len__(self) -> int:
        return sum(self.counts.values())

    @classmethod
    def from_rows(cls, bad: Sequence[tuple[Row, str]]) -> BadSet:
        """Return the set of rows that are held in memory."""
        counts = dict(Counter(reason for _, reason in bad).most_common())
        firsts = {reason: row for row, reason in reversed(bad)}
        return cls(counts, firsts, [row for row, reason in bad if reason == UNDECODABLE], lambda: bad)


@dataclass(frozen=True)
class Quarantine:
    """The bad rows of an ingest and the table they go to."""

    data_table: str
    bad: BadSet
    sources: Sequence[Source]
    form: RowForm

    @property
    def location(self) -> str:
        return f"{self.data_table}_quarantine"

    def commit(self) -> TableVersion | None:
        """Make the bad rows the content of the quarantine table (none where none is and there is no table)."""
        if not self.bad and try_open(self.location) is None:
            return None
        # none too, where there is a table: what an earlier ingest set aside is not bad any more
        metadata = {"sources": write_sources(self.sources)}
        return replace_rows(self.location, _make_reader(self.bad, self.form), metadata=metadata)[0]


def strip_label(row: Row) -> str:
    """Return the label as it was read, without the blanks around it; empty where there is none."""
    return (row.label or "").strip()


def find_bad_reason(row: Row, form: RowForm) -> str:
    """Return why a row by itself cannot be one of a table; empty for a good one."""
    label = strip_label(row)
    try:
        # lone surrogates stand for bytes that were not in the encoding; they cannot be written either
        for value in (label, *row.values):
            if isinstance(value, str) and not value.isascii():
                value.encode()
    except UnicodeEncodeError:
        return UNDECODABLE
    for column, value in zip(form.inputs, row.values, strict=True):
        if reason := BAD_VALUES[column.kind](value, column):
            return reason
    if None in row.values and all(value is None for value in row.values):  # and each of them is optional
        return MISSING_VALUE
    if not label:
        return MISSING_LABEL
    return "" if form.label.is_valid(label) else BAD_LABELS[form.label.kind]


def _check_text(value: Any, column: Column) -> str:
    return "" if column.optional or (value and value.strip()) else EMPTY_TEXT


def _check_category(value: Any, column: Column) -> str:
    return "" if column.optional or value is not None else MISSING_VALUE


def _check_number(value: Any, column: Column) -> str:
    if isinstance(value, str):
        return NO_NUMBER
    return _check_category(value, column)


BAD_VALUES: Mapping[str, Callable[[Any, Column], str]] = {
    "text": _check_text,
    "category": _check_category,
    "number": _check_number,
}


def check_bad_share(
    rows: int,
    bad: BadSet,
    settings: TableSettings,
    *,
    quarantine: Quarantine | None = None,
    details: Mapping[str, str] | None = None,
) -> None:
    """Raise ``BadRows`` where too many rows are bad, or all of them; these are in the quarantine then.

    Parameters
    ----------
    rows : int
        How many there are, good and bad.
    bad : BadSet
    settings : TableSettings
        Its ``max_bad_share`` is how much may be bad.
    quarantine : Quarantine, optional
        Of the same bad rows; by default nothing is written.
    details : mapping of str to str, optional
        What more to say of a reason, by reason.
    """
    if len(bad) <= settings.max_bad_share * rows and len(bad) < rows:
        return
    # an append takes the share of the table's last ingest
    is_append = isinstance(settings, FormSettings)
    more_bad = "" if is_append else ", or raise max_bad_share (--set data.max_bad_share=...)"
    kept = ""
    if quarantine is not None:
        name = str(quarantine.commit())
        kept = f" Nothing was committed; the rows are in {name!r} ({quarantine.location})."
    more = {reason: f": {text}" for reason, text in (details or {}).items()}
    listed = "; ".join(
        f"{count} with {reason} (first: {bad.firsts[reason].place}){more.get(reason, '')}"
        for reason, count in bad.counts.items()
    )
    raise BadRows(
        f"{len(bad)} of {rows} rows are bad, more than max_bad_share={settings.max_bad_share:g} allows: "
        f"{listed}.{kept} Mend the source{more_bad}."
    )


def describe_bad(bad: BadSet, settings: TableSettings) -> dict[str, str]:
    """Return, for bad rows that another setting or spelling would make good, which one."""
    hint = suggest_encoding(bad.undecodable, settings)
    hints = {UNDECODABLE: hint.rstrip(".")} if hint else {}
    for reason in (NO_NUMBER, BAD_LABELS["number"]):
        if first := bad.firsts.get(reason):
            value = _find_first_word(first, settings.form) if reason == NO_NUMBER else strip_label(first)
            hints[reason] = f"{to_readable(value)[:40]!r}: write numbers with a point, and nothing else with them"
    return hints


def _find_first_word(row: Row, form: RowForm) -> str:
    """Return what stands first in a row where a number should."""
    pairs = zip(form.inputs, row.values, strict=True)
    return next(value for column, value in pairs if column.kind == "number" and isinstance(value, str))


def describe_hints(bad: BadSet, hints: Mapping[str, str]) -> list[str]:
    """Return a line for each reason that there is more to say of."""
    return [f"Rows set aside with {reason}: {bad.counts[reason]:,}. {text}." for reason, text in hints.items()]


def _make_reader(bad: BadSet, form: RowForm) -> pa.RecordBatchReader:
    import pyarrow as pa

    names = (*OWN_COLUMNS[:3], *name_bad_inputs(form), *OWN_COLUMNS[3:])
    schema = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in names])
    rows = iter(bad.rows())
    return pa.RecordBatchReader.from_batches(schema, _make_batches(rows, schema))


def name_bad_inputs(form: RowForm) -> list[str]:
    """Return what the quarantine calls the inputs: Delta compares names without their case.

    Examples
    --------
    >>> from dlpipe.tables import Label
    >>> columns = Column("Source", "Source", "category"), Column("age", "age", "number")
    >>> name_bad_inputs(RowForm(columns, Label(("paid",), "class")))
    ['input_Source', 'age']
    """
    taken = {column.name.casefold() for column in form.inputs}.union(OWN_COLUMNS)
    names = []
    for column in form.inputs:
        name = column.name
        if name.casefold() in OWN_COLUMNS:
            while name.casefold() in taken:
                name = f"input_{name}"
        names.append(name)
    return names


def _make_batches(rows: Iterator[tuple[Row, str]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    while some := list(itertools.islice(rows, ROW_GROUP_ROWS)):
        columns = [
            [to_readable(row.source.path) for row, _ in some],
            [row.line for row, _ in some],
            [reason for _, reason in some],
            *(
                [_to_readable(value) for value in values]
                for values in zip(*(row.values for row, _ in some), strict=True)
            ),
            [_to_readable(row.label) for row, _ in some],
            [row.source.split for row, _ in some],
        ]
        arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _to_readable(value: str | float | None) -> str | None:
    return None if value is None else to_readable(str(value))
