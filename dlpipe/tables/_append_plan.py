"""What the rows of an append do to a table: rows to add, labels to fill in, rows that are known or bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from dlpipe.tables._forgotten import ForgottenRows
from dlpipe.tables._form import RowForm, Values
from dlpipe.tables._index import Indexer
from dlpipe.tables._labels import Spelling, fold_label, list_labels, name_labels, spell_labels
from dlpipe.tables._quarantine import CONFLICT, IDENTIFIABLE, MISSING_LABEL, find_bad_reason, strip_label
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import Row
from dlpipe.tables._settings import SPLITS, TableSettings
from dlpipe.tables._splits import choose_split, describe_moves, keep_in_train
from dlpipe.tables._versions import TableVersion

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN_LABEL = "label that the train split lacks"
SCAN_ROWS = 65_536
"""Rows of the table that are looked through at once."""

BadRow = tuple[Row, str]
"""A row, and why it is bad."""


class GoodRow(NamedTuple):
    """A row with all of its inputs, as it was read."""

    read: Row
    digest: bytes
    row_id: str


@dataclass(frozen=True)
class NewRow:
    """A row of the sources that may be added."""

    values: Values
    label: str | None
    """As ``Label`` writes it."""
    split: str | None
    """None without a label."""
    digest: bytes
    row_id: str


@dataclass(frozen=True)
class TableLabels:
    """The labels of a table.

    Attributes
    ----------
    of_rows : mapping of str to set of str
        By row id, of those rows that the sources have too; an empty set where a row has no label yet.
    every, train : frozenset of str
        All classes or labels, and those of the train split.
    """

    of_rows: Mapping[str, set[str]]
    every: frozenset[str]
    train: frozenset[str]


@dataclass(frozen=True)
class AppendPlan:
    """What an append does to a version of the table."""

    added: Sequence[NewRow]
    filled: Mapping[str, NewRow]
    """Rows that have their label from now on, by row id."""
    bad: Sequence[BadRow]
    known: int
    """How many rows change nothing."""
    unknown: Mapping[str, int]
    """Rows of each label that is refused since train lacks it."""
    notes: Sequence[str]


def separate_bad_rows(
    rows: Sequence[Row], form: RowForm, banned: ForgottenRows
) -> tuple[list[GoodRow], list[BadRow], int]:
    """Return the rows that have all inputs, those bad by themselves, and how many were forgotten before."""
    good: list[GoodRow] = []
    bad: list[BadRow] = []
    left_out = 0
    for row in rows:
        reason = find_bad_reason(row, form)
        if banned and reason in IDENTIFIABLE and banned.is_banned(row.values, form):
            left_out += 1
            continue
        if reason and reason != MISSING_LABEL:
            bad.append((row, reason))
        else:
            digest = form.identify(row.values)
            good.append(GoodRow(row, digest, to_row_id(digest)))
    return good, bad, left_out


def to_row_id(digest: bytes) -> str:
    """Return the row id of a row with this digest."""
    return digest[:8].hex()


def read_labels(before: TableVersion | None, row_ids: set[str], form: RowForm) -> TableLabels:
    """Return the labels of a version of the table, and those of the rows with these ids.

    Its rows pass by a batch at a time, so that memory does not grow with the table.

    Parameters
    ----------
    before : TableVersion or None
        None where there is no table.
    row_ids : set of str
        Those of the rows to append, without ``-2`` and the like.
    form : RowForm
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    of_rows: dict[str, set[str]] = {}
    every: set[str] = set()
    train: set[str] = set()
    wanted = pa.array(sorted(row_ids), pa.string())
    columns = ["row_id", "label", "split"]
    for batch in stream_table(before, columns=columns, batch_rows=SCAN_ROWS) if before else ():
        ids, labels = strip_repeats(batch["row_id"]), batch["label"]
        every.update(_list_strata(labels, form))
        train.update(_list_strata(labels.filter(pc.equal(batch["split"], "train")), form))
        found = pc.is_in(ids, wanted)
        for row_id, value in zip(ids.filter(found).to_pylist(), labels.filter(found).to_pylist(), strict=True):
            label = form.label.to_string(value)
            of_rows.setdefault(row_id, set()).update({label} if label else ())
    return TableLabels(of_rows, frozenset(every), frozenset(train))


def strip_repeats(row_ids: pa.Array) -> pa.Array:
    """Return, for each row, the id of the first row that is the same: later ones end in ``-2``, ``-3``."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(row_ids, "-.*", "")


def _list_strata(labels: pa.Array, form: RowForm) -> list[str]:
    """Return the classes, or the labels, that stand in a column."""
    import pyarrow.compute as pc

    if form.label.kind == "number":
        return []
    flat = pc.list_flatten(labels) if form.label.kind == "labels" else labels
    return [stratum for stratum in flat.unique().to_pylist() if stratum]


def plan_append(
    good: Sequence[GoodRow], bad: Sequence[BadRow], there: TableLabels, settings: TableSettings
) -> AppendPlan:
    """Return what rows do to a table.

    Parameters
    ----------
    good, bad : sequence
        What ``separate_bad_rows`` returned.
    there : TableLabels
        Of the version on top of which the append is to be committed.
    settings : TableSettings
    """
    form = settings.form
    spelling = _spell(good, there, settings)
    pairs = [(row.read, _prepare_row(row, spelling, settings)) for row in good]
    conflicts: list[BadRow] = []
    if not form.repeats:
        pairs, conflicts = _separate_conflicts(pairs)
    rows = _PlannedRows(there, form, [*bad, *conflicts])
    for read, new in pairs:
        rows.take(read, new)
    # a class that train lacks gets this far only where train has no label at all: these rows bring the first
    placed, moved = _keep_in_train([*rows.added.values(), *rows.filled.values()], there.train, form)
    added, filled = placed[: len(rows.added)], placed[len(rows.added) :]
    notes = (*spelling.notes, *describe_moves(moved, form))
    return AppendPlan(added, {new.row_id: new for new in filled}, rows.bad, rows.known, rows.unknown, notes)


class _PlannedRows:
    """What becomes of each row of an append, decided row by row."""

    def __init__(self, there: TableLabels, form: RowForm, bad: list[BadRow]) -> None:
        self._there, self._form, self.bad = there, form, bad
        self.added: dict[str, NewRow] = {}
        self.filled: dict[str, NewRow] = {}
        self.unknown: Counter[str] = Counter()
        self.known = 0

    def take(self, read: Row, new: NewRow) -> None:
        """Decide about a row."""
        labels = self._there.of_rows.get(new.row_id)
        if unknown := self._find_unknown(new):
            self.bad.append((read, UNKNOWN_LABEL))
            self.unknown.update(unknown)
        elif new.label is not None and labels and new.label not in labels and not self._form.repeats:
            self.bad.append((read, CONFLICT))
        elif labels is None:
            self._add(new)
        elif not labels and new.label is not None and new.row_id not in self.filled:
            self.filled[new.row_id] = new
        else:
            self.known += 1

    def _find_unknown(self, new: NewRow) -> list[str]:
        """Return the labels of a row that no row of train has: a model of the table could never predict them."""
        if new.label is None or not self._there.train:
            return []
        return [stratum for stratum in self._form.label.list_strata(new.label) if stratum not in self._there.train]

    def _add(self, new: NewRow) -> None:
        earlier = self.added.setdefault(new.row_id, new)
        if earlier is not new:
            self.known += 1
            if earlier.label is None and new.label is not None:
                self.added[new.row_id] = new


def describe_unknown(plan: AppendPlan, there: TableLabels) -> dict[str, str]:
    """Return, for the reason that needs it, the labels that train lacks and those it has."""
    if not plan.unknown:
        return {}
    levelled = {fold_label(label) for label in there.train}
    hint = (
        "To make labels one that differ only in case, blanks or Unicode form, set fold_labels (--fold-labels true)"
    )
    near = f". {hint}" if any(fold_label(label) in levelled for label in plan.unknown) else ""
    named = (
        f"{name_labels(plan.unknown)}; train has {list_labels(there.train)}. For a new class, ingest anew{near}"
    )
    return {UNKNOWN_LABEL: named}


def _spell(good: Sequence[GoodRow], there: TableLabels, settings: TableSettings) -> Spelling:
    labels = [strip_label(row.read) for row in good]
    counts = Counter(stratum for label in labels if label for stratum in settings.form.label.list_strata(label))
    return spell_labels(counts, fold=settings.fold_labels, known=there.every)


def _prepare_row(good: GoodRow, spelling: Spelling, settings: TableSettings) -> NewRow:
    bare = strip_label(good.read)
    label = settings.form.label.spell(bare, spelling) if bare else None
    split = choose_split("data", good.digest, {"data"}, settings) if label else None
    return NewRow(good.read.values, label, split, good.digest, good.row_id)


def _separate_conflicts(pairs: Sequence[tuple[Row, NewRow]]) -> tuple[list[tuple[Row, NewRow]], list[BadRow]]:
    """Return the rows whose like all have the same label or none, and the others."""
    labels: dict[str, set[str]] = {}
    for _, new in pairs:
        labels.setdefault(new.row_id, set()).update({new.label} if new.label else ())
    agreeing = [pair for pair in pairs if len(labels[pair[1].row_id]) < 2]
    return agreeing, [(read, CONFLICT) for read, new in pairs if len(labels[new.row_id]) > 1]


def _keep_in_train(
    rows: Sequence[NewRow], there: Collection[str], form: RowForm
) -> tuple[list[NewRow], dict[str, int]]:
    """Return the rows with at least one of each class in train; as ``keep_in_train``."""
    indexer = Indexer(form)
    for row in rows:
        indexer.add(row.values, row.label, row.split, row.digest)
    index, moved = keep_in_train(indexer.build(), there=there)
    splits = [*SPLITS, None]  # NONE, the number of no split, is -1: the last of them
    return [replace(row, split=splits[number]) for row, number in zip(rows, index.split, strict=True)], moved
