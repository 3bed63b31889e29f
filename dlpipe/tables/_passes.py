"""Sources are read twice: once to decide about index row, and again to write those that stay.

In between there is no text in memory, only what decides about it: some thirty bytes a row (see ``RowIndex``). A
file that changes in between has another time of change, and mostly rows of other lengths, which is seen before
anything is committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dlpipe.tables._forgotten import ForgottenRows, read_forgotten
from dlpipe.tables._form import RowForm, Values
from dlpipe.tables._index import Indexer, RowIndex
from dlpipe.tables._labels import Spelling, spell_labels
from dlpipe.tables._quarantine import (
    CONFLICT,
    IDENTIFIABLE,
    REASONS,
    UNDECODABLE,
    BadSet,
    find_bad_reason,
    strip_label,
)
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import Row, read_rows
from dlpipe.tables._settings import SPLITS, TableSettings
from dlpipe.tables._sources import Source, check_unchanged, make_changed_error
from dlpipe.tables._splits import find_conflicts, find_leaks, is_by_hash, place_by_hash
from dlpipe.tables._versions import TableVersion

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BATCH_ROWS = 1024
FORGOTTEN = len(REASONS)
"""In place of the number of a reason: the row stays away, and is not kept anywhere."""


@dataclass(frozen=True)
class FirstPass:
    """What the first reading of sources found.

    Attributes
    ----------
    sources : sequence of Source
    settings : TableSettings
    reasons : array of int
        Of each row, the number in ``REASONS`` of why it is bad, 0 for a good one.
    stays : array of bool
        Of each row, whether it will be in the table: it is good, and no leak.
    rows : RowIndex
        Those that stay.
    leaked : int
        How many good rows do not.
    spelling : Spelling
        Of the labels, over all sources.
    bad : BadSet
        The others.
    forgotten : int
        How many rows were forgotten before, and are neither in the table nor bad.
    """

    sources: Sequence[Source]
    settings: TableSettings
    reasons: np.ndarray
    stays: np.ndarray
    rows: RowIndex
    leaked: int
    spelling: Spelling
    bad: BadSet
    forgotten: int = 0


@dataclass(frozen=True)
class AppendedRows:
    """Rows that were appended to a version of a table, of which some stay through an ingest.

    Attributes
    ----------
    version : TableVersion or None
        None where nothing stays of what the table has.
    first : int
        Where they begin: the rows before come from sources, which the ingest replaces.
    stays : array of bool
        Of each appended row.
    rows : RowIndex
        Those that stay.
    """

    version: TableVersion | None
    first: int
    stays: np.ndarray
    rows: RowIndex


class _RowCollector:
    """The first reading of sources, row by row."""

    def __init__(self, form: RowForm, banned: ForgottenRows) -> None:
        self.form, self.reasons, self.good, self.banned = form, bytearray(), Indexer(form), banned
        self.firsts: dict[str, Row] = {}
        self.undecodable: dict[str, Row] = {}

    def take(self, row: Row) -> None:
        """Decide about a row as far as it alone tells; it is not kept, but for the first of each reason."""
        reason = find_bad_reason(row, self.form)
        if self.banned and reason in IDENTIFIABLE and self.banned.is_banned(row.values, self.form):
            self.reasons.append(FORGOTTEN)  # also of a bad row: the quarantine would have its text
            return
        self.reasons.append(REASONS.index(reason))
        if not reason:
            self.good.add(row.values, strip_label(row), None, self.form.identify(row.values))
            return
        self.firsts.setdefault(reason, row)
        if reason == UNDECODABLE:
            self.undecodable.setdefault(row.source.path, row)


def run_first_pass(sources: Sequence[Source], settings: TableSettings) -> FirstPass:
    """Read sources, and decide about each row.

    Raises
    ------
    BadSource
        When a source cannot be read.
    """
    import numpy as np

    found, ends = _collect_rows(sources, settings)
    rows = found.good.build()
    # over all sources at once: whether 1.0 is the number 1 depends on the other labels
    spelling = spell_labels(rows.count(), fold=settings.fold_labels)
    rows = _place(rows.spell(spelling), sources, ends, settings)
    reasons = np.frombuffer(bytes(found.reasons), np.uint8).copy()
    # conflicts before leaks: a text with two labels is bad wherever it stands
    at, conflicts = np.flatnonzero(reasons == 0), find_conflicts(rows)
    reasons[at[conflicts]] = REASONS.index(CONFLICT)
    if conflicts.any():
        # only now known to be bad, and no longer in memory: read up to it once more
        first = int(at[conflicts.argmax()])
        found.firsts[CONFLICT] = next(itertools.islice(_read_all(sources, settings), first, None))
    rows, leaks = rows.take(~conflicts), find_leaks(rows.take(~conflicts))
    stays = np.zeros(len(reasons), bool)
    stays[at[~conflicts][~leaks]] = True
    bad = _collect_bad_rows(reasons, found, sources, settings)
    left_out = int((reasons == FORGOTTEN).sum())
    return FirstPass(
        sources, settings, reasons, stays, rows.take(~leaks), int(leaks.sum()), spelling, bad, left_out
    )


def _collect_rows(sources: Sequence[Source], settings: TableSettings) -> tuple[_RowCollector, list[int]]:
    """Return what one reading finds, and how many good rows there were at the end of each source."""
    found, ends = _RowCollector(settings.form, read_forgotten()), []
    for source in sources:
        for row in read_rows(source, settings):
            found.take(row)
        ends.append(len(found.good))
    return found, ends


def _read_all(sources: Sequence[Source], settings: TableSettings) -> Iterator[Row]:
    return (row for source in sources for row in read_rows(source, settings))


def _place(rows: RowIndex, sources: Sequence[Source], ends: Sequence[int], settings: TableSettings) -> RowIndex:
    """Return the rows with their splits: the source's own, or by the hash."""
    given = {source.split for source in sources}
    split, by_hash = place_by_hash(rows, given, settings), rows.by_hash.copy()
    for source, first, end in zip(sources, [0, *ends], ends, strict=False):
        if not is_by_hash(source.split, given):
            split[first:end], by_hash[first:end] = SPLITS.index(source.split), False
    return replace(rows, split=split, by_hash=by_hash)


def _collect_bad_rows(
    reasons: np.ndarray, found: _RowCollector, sources: Sequence[Source], settings: TableSettings
) -> BadSet:
    import numpy as np

    reasons = np.where(reasons == FORGOTTEN, 0, reasons)
    numbers, first, counts = np.unique(reasons, return_index=True, return_counts=True)
    ranked = sorted(zip(-counts, first, numbers, strict=True))

    def rows() -> Iterator[tuple[Row, str]]:
        pairs = zip(_read_all(sources, settings), reasons, strict=False)
        return ((row, REASONS[reason]) for row, reason in pairs if reason)

    by_reason = {REASONS[number]: -int(count) for count, _, number in ranked if number}
    seen = [REASONS[number] for _, number in sorted(zip(first, numbers, strict=True)) if number]
    firsts = {reason: found.firsts[reason] for reason in seen}
    return BadSet(by_reason, firsts, list(found.undecodable.values()), rows)


@dataclass(frozen=True)
class TableRows:
    """The rows of a table to be: those of sources that stay, and after them those that were appended.

    In this order, so that a commit need record only how many come from sources.
    """

    first_pass: FirstPass
    appended: AppendedRows
    index: RowIndex

    def make_reader(self) -> pa.RecordBatchReader:
        """Return a new reader, which reads the sources and the table again."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.form.schema(), self._batches())

    @cached_property
    def form(self) -> RowForm:
        return self.first_pass.settings.form

    def _batches(self) -> Iterator[pa.RecordBatch]:
        form, rows, made, repeats = self.form, self.index, self._read_again(), self.index.count_repeats()
        labels, splits = rows.make_label_reader(), [*SPLITS, None]  # NONE is the last of them
        first = 0
        while some := list(itertools.islice(made, BATCH_ROWS)):
            part = slice(first, first := first + len(some))
            values = [row for _, row in some]
            self._check_same(values, rows.characters[part])
            numbers = zip(some, rows.digest[part, 0].tolist(), repeats[part].tolist(), strict=True)
            row_ids = [own or _make_row_id(digest, repeat) for (own, _), digest, repeat in numbers]
            yield form.make_batch(row_ids, values, labels(part), [splits[number] for number in rows.split[part]])
        # and whether rows are left over: a source that lost some at its end
        self._check_same([], rows.characters[first:])
        for source in self.first_pass.sources:
            check_unchanged(source)

    def _read_again(self) -> Iterator[tuple[str, Values]]:
        """Yield the row id (empty where it has none yet) and the inputs of each row."""
        stays = self.first_pass.stays.tobytes()
        for row in itertools.compress(_read_all(self.first_pass.sources, self.first_pass.settings), stays):
            yield "", row.values
        if self.appended.version is not None:
            there = stream_values(self.appended.version, self.form, ("row_id",), self.appended.first)
            for (row_id,), values in itertools.compress(there, self.appended.stays.tobytes()):
                yield row_id, values

    def _check_same(self, rows: Sequence[Values], characters: np.ndarray) -> None:
        """Raise ``BadSource`` where rows are not as long as they were: the decisions were made about others."""
        if [self.form.count_characters(values) for values in rows] != characters.tolist():
            raise make_changed_error(self.first_pass.sources)


def _make_row_id(digest: int, repeat: int) -> str:
    """Return 16 hex characters of the row's digest, ``-2``, ``-3`` after those of repeated rows."""
    return f"{digest:016x}" + (f"-{repeat + 1}" if repeat else "")


def stream_values(
    version: TableVersion, form: RowForm, others: Sequence[str], first: int = 0
) -> Iterator[tuple[tuple[Any, ...], Values]]:
    """Yield the values of some columns and the inputs of each row of a table version.

    Parameters
    ----------
    version : TableVersion
    form : RowForm
        Its inputs are read.
    others : sequence of str
        The columns beside the inputs, such as ``label``; their values come first.
    first : int
        The row from which on rows are read.
    """
    inputs = [column.name for column in form.inputs]
    for batch in stream_table(version, columns=[*others, *inputs]):
        skipped = min(first, batch.num_rows)
        first -= skipped
        columns = [column.to_pylist() for column in batch.slice(skipped).columns]
        own, rows = columns[: len(others)], zip(*columns[len(others) :], strict=True)
        yield from zip(zip(*own, strict=True), rows, strict=True)
