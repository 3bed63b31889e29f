"""New rows for a data-set table, with labels or without, and labels for rows that had none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlpipe.errors import MarkMoved, StorageUnavailable, TableNotFound
from dlpipe.tables._commit import COMMIT_ATTEMPTS, check_target
from dlpipe.tables._form import RowForm, Values
from dlpipe.tables._index import Indexer
from dlpipe.tables._ingest import check_settings
from dlpipe.tables._labels import Spelling, fold_label, list_labels, name_labels, spell_labels
from dlpipe.tables._metadata import APPENDED, INGESTED, check_same_form, make_metadata, read_last_settings
from dlpipe.tables._quarantine import (
    CONFLICT,
    MISSING_LABEL,
    BadSet,
    Quarantine,
    check_bad_share,
    describe_bad,
    describe_hints,
    find_bad_reason,
    strip_label,
)
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import Row, describe_sources, read_rows
from dlpipe.tables._settings import SPLITS, Paths, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import choose_split, describe_moves, keep_in_train
from dlpipe.tables._storage import locate, show_path
from dlpipe.tables._versions import TableVersion, count_ingested_rows, table_at, try_open
from dlpipe.tables._write import append_rows, replace_rows

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN_LABEL = "label that the train split lacks"
LOOK_ROWS = 65_536

_BadRow = tuple[Row, str]
"""A row, and why it is bad."""


@dataclass(frozen=True)
class Append:
    """What an append did.

    Attributes
    ----------
    table : TableVersion
        The table, at the version that has the rows.
    new_rows, labelled_rows : int
        Rows that were added, and those of them that have a label.
    filled_labels : int
        Rows that had been there without a label and have one now.
    known_rows : int
        Rows of the sources that brought nothing: they were there, or stood in the sources twice.
    bad_rows : mapping
        How many were set aside, by reason.
    quarantine : TableVersion or None
        Where they are.
    new_version : bool
        False where nothing was added or filled in.
    notes : tuple of str
        What a person should know about the labels, one line each.
    """

    table: TableVersion
    new_rows: int
    labelled_rows: int
    filled_labels: int
    known_rows: int
    bad_rows: Mapping[str, int]
    quarantine: TableVersion | None
    new_version: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _NewRow:
    """A row of the sources that may be added."""

    values: Values
    label: str | None
    """As ``Label`` writes it."""
    split: str | None
    """None without a label."""
    digest: bytes
    row_id: str


class _GoodRow(NamedTuple):
    """A row with all of its inputs, as it was read."""

    row: Row
    digest: bytes
    row_id: str


@dataclass(frozen=True)
class _TableLabels:
    """What a table has: the labels of some rows, by row id, all classes or labels, and those of train."""

    labels: Mapping[str, set[str]]
    classes: frozenset[str]
    train: frozenset[str]


@dataclass(frozen=True)
class _Plan:
    """What an append does to a version of the table."""

    added: Sequence[_NewRow]
    filled: Mapping[str, _NewRow]
    """By row id."""
    bad: Sequence[tuple[Row, str]]
    known: int
    unknown: Mapping[str, int]
    """Rows of each label that is refused since train lacks it."""
    notes: Sequence[str]


def append(sources: Paths, table: str | Path, *, settings: TableSettings | None = None) -> Append:
    """Add the rows of ``sources`` to ``table`` in one atomic commit, and return what was done.

    A row is known by its ``row_id``, which is made of its inputs. A row that is there already is not added again;
    where it had no label and now comes with one, that is filled in. A label that contradicts the one that is
    there, or a class that no row of the train split has, makes a bad row. Rows with a label get the split that an
    ingest would give them, rows without one are in no split. The same sources again change nothing.

    Parameters
    ----------
    sources : path, glob or list of them
        They may lack the columns with the label.
    table : str or Path
        Made where there is none. Rows are kept by later ingests.
    settings : TableSettings, optional
        By default those of the table's last ingest; a new table needs those of a task.

    Raises
    ------
    SourceNotFound, BadSource, BadRows, SettingError, SchemaMismatch
        Nothing is committed to the data table.

    Examples
    --------
    >>> import tempfile
    >>> from dlpipe.tables import TEXT_FORM, FormSettings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(f"{folder}/new.csv").write_text("text\\nA fine film.\\nA fine film.\\nDull.\\n")
    ...     _ = Path(f"{folder}/later.csv").write_text("text,label\\nDull.,negative\\n")
    ...     first = append(f"{folder}/new.csv", f"{folder}/incoming", settings=FormSettings(rows=TEXT_FORM))
    ...     second = append(f"{folder}/later.csv", f"{folder}/incoming")
    >>> str(first.table), first.new_rows, first.known_rows, str(second.table), second.filled_labels
    ('incoming@v0', 2, 1, 'incoming@v1', 1)
    """
    location = locate(table)
    settings = settings or _find_settings(location)
    check_settings(settings)
    check_same_form(location, settings.form)
    check_target(location, settings.form.schema())
    found = find_sources(Sources(data=sources).list_paths())
    rows = [row for source in found for row in read_rows(source, settings, unlabelled=True)]
    good, bad = _separate_bad_rows(rows, settings.form)
    for _ in range(COMMIT_ATTEMPTS):
        try:
            return _append(location, good, bad, found, settings)
        except MarkMoved:
            continue
    raise StorageUnavailable(
        f"Others write to {show_path(location)} all the time; nothing was committed. Try again."
    )


def _find_settings(location: str) -> TableSettings:
    try:
        return read_last_settings(location)
    except TableNotFound as error:
        raise TableNotFound(f"{error} To make it of these rows, pass the settings of a task.") from None


def _append(
    location: str,
    good: Sequence[_GoodRow],
    bad: Sequence[_BadRow],
    sources: Sequence[Source],
    settings: TableSettings,
) -> Append:
    before = None if try_open(location) is None else table_at(location)
    there = _read_labels(before, {one.row_id for one in good}, settings.form)
    plan = _plan_append(good, bad, there, settings)
    set_of_bad = BadSet.from_rows(plan.bad)
    quarantine = Quarantine(location, set_of_bad, sources, settings.form)
    hints = {**describe_bad(set_of_bad, settings), **_describe_unknown(plan, there)}
    if good or bad:
        check_bad_share(len(good) + len(bad), set_of_bad, settings, quarantine, details=hints)
    set_aside = quarantine.commit() if plan.bad else None
    changed = bool(plan.added or plan.filled) or before is None
    version = _commit(location, before, plan, sources, settings) if changed else before
    assert version is not None
    return Append(
        table=version,
        new_rows=len(plan.added),
        labelled_rows=sum(row.label is not None for row in plan.added),
        filled_labels=len(plan.filled),
        known_rows=plan.known,
        bad_rows=set_of_bad.counts,
        quarantine=set_aside,
        new_version=changed,
        notes=(*describe_sources(sources, settings), *plan.notes, *describe_hints(set_of_bad, hints)),
    )


def _commit(
    location: str, before: TableVersion | None, plan: _Plan, sources: Sequence[Source], settings: TableSettings
) -> TableVersion:
    form, ingested = settings.form, 0 if before is None else count_ingested_rows(before)
    metadata = {**make_metadata(sources, settings), INGESTED: str(ingested), APPENDED: str(len(plan.added))}
    if before is None or not plan.filled:
        at = 0 if before is None else before.version + 1
        return append_rows(location, _to_table(plan.added, form), metadata=metadata, at=at)
    return replace_rows(location, _stream_filled(before, plan, form), metadata=metadata, at=before.version + 1)[0]


def _separate_bad_rows(rows: Sequence[Row], form: RowForm) -> tuple[list[_GoodRow], list[_BadRow]]:
    """Return the rows that have all inputs, and those that are bad by themselves."""
    good: list[_GoodRow] = []
    bad: list[_BadRow] = []
    for row in rows:
        reason = find_bad_reason(row, form)
        if reason and reason != MISSING_LABEL:
            bad.append((row, reason))
        else:
            digest = form.identify(row.values)
            good.append(_GoodRow(row, digest, to_row_id(digest)))
    return good, bad


def _read_labels(before: TableVersion | None, row_ids: set[str], form: RowForm) -> _TableLabels:
    """Return what the table has of the rows with these ids, and its classes; its rows pass by a few at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels: dict[str, set[str]] = {}
    classes: set[str] = set()
    train: set[str] = set()
    wanted = pa.array(sorted(row_ids), pa.string())
    columns = ["row_id", "label", "split"]
    for batch in stream_table(before, columns=columns, batch_rows=LOOK_ROWS) if before else ():
        ids, label = _strip_repeats(batch["row_id"]), batch["label"]
        classes.update(_list_strata(label, form))
        train.update(_list_strata(label.filter(pc.equal(batch["split"], "train")), form))
        found = pc.is_in(ids, wanted)
        for row_id, value in zip(ids.filter(found).to_pylist(), label.filter(found).to_pylist(), strict=True):
            has = form.label.write(value)
            labels.setdefault(row_id, set()).update({has} if has else ())
    return _TableLabels(labels, frozenset(classes), frozenset(train))


def _list_strata(labels: pa.Array, form: RowForm) -> list[str]:
    """Return the classes, or the labels, that stand in a column."""
    import pyarrow.compute as pc

    if form.label.kind == "number":
        return []
    flat = pc.list_flatten(labels) if form.label.kind == "labels" else labels
    return [stratum for stratum in flat.unique().to_pylist() if stratum]


def _strip_repeats(row_ids: pa.Array) -> pa.Array:
    """Return the id of the first of the rows that are the same as each row: a later one goes on with ``-2``."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(row_ids, "-.*", "")


def _plan_append(
    good: Sequence[_GoodRow], bad: Sequence[_BadRow], there: _TableLabels, settings: TableSettings
) -> _Plan:
    """Return what rows do to a table."""
    form, read = settings.form, [strip_label(one.row) for one in good]
    counts = Counter(stratum for label in read if label for stratum in form.label.strata(label))
    spelling = spell_labels(counts, fold=settings.fold_labels, known=there.classes)
    given = [(one.row, _prepare_row(one, spelling, settings)) for one in good]
    conflicts: list[_BadRow] = []
    if not form.repeats:
        given, conflicts = _separate_conflicts(given)
    bad = [*bad, *conflicts]
    added: dict[str, _NewRow] = {}
    filled: dict[str, _NewRow] = {}
    unknown: Counter[str] = Counter()
    known = 0
    for row, one in given:
        has = there.labels.get(one.row_id)
        strata = form.label.strata(one.label) if one.label is not None and there.train else ()
        if new := [stratum for stratum in strata if stratum not in there.train]:
            bad.append((row, UNKNOWN_LABEL))
            unknown.update(new)
        elif one.label is not None and has and one.label not in has and not form.repeats:
            bad.append((row, CONFLICT))
        elif has is None and (one.row_id not in added or added[one.row_id].label is None is not one.label):
            known += one.row_id in added
            added[one.row_id] = one
        elif has == set() and one.label is not None and one.row_id not in filled:
            filled[one.row_id] = one
        else:
            known += 1
    # a table that has no label yet gets its first classes here
    kept, moved = _keep_in_train([*added.values(), *filled.values()], there.train, form)
    more = {one.row_id: one for one in kept[len(added) :]}
    notes = (*spelling.notes, *describe_moves(moved, form))
    return _Plan(kept[: len(added)], more, bad, known, unknown, notes)


def _describe_unknown(plan: _Plan, there: _TableLabels) -> dict[str, str]:
    """Return, for the reason that needs it, the labels that train lacks and those it has."""
    if not plan.unknown:
        return {}
    levelled = {fold_label(label) for label in there.train}
    hint = "To make labels one that differ only in case, blanks or Unicode form, set fold_labels (--fold-labels)"
    near = f". {hint}" if any(fold_label(label) in levelled for label in plan.unknown) else ""
    named = (
        f"{name_labels(plan.unknown)}; train has {list_labels(there.train)}. For a new class, ingest anew{near}"
    )
    return {UNKNOWN_LABEL: named}


def _prepare_row(one: _GoodRow, spelling: Spelling, settings: TableSettings) -> _NewRow:
    bare = strip_label(one.row)
    label = settings.form.label.spell(bare, spelling) if bare else None
    split = choose_split("data", one.digest, {"data"}, settings) if label else None
    return _NewRow(one.row.values, label, split, one.digest, one.row_id)


def _separate_conflicts(good: Sequence[tuple[Row, _NewRow]]) -> tuple[list[tuple[Row, _NewRow]], list[_BadRow]]:
    """Return the rows that have one label at most, with all that are the same, and the others."""
    labels: dict[str, set[str]] = {}
    for _, one in good:
        labels.setdefault(one.row_id, set()).update({one.label} if one.label else ())
    fits = [pair for pair in good if len(labels[pair[1].row_id]) < 2]
    return fits, [(row, CONFLICT) for row, one in good if len(labels[one.row_id]) > 1]


def _keep_in_train(
    rows: Sequence[_NewRow], there: Collection[str], form: RowForm
) -> tuple[list[_NewRow], dict[str, int]]:
    """Return the rows with at least one of each class in train; as ``keep_in_train``."""
    indexer = Indexer(form)
    for row in rows:
        indexer.add(row.values, row.label, row.split, row.digest)
    index, moved = keep_in_train(indexer.index(), there=there)
    splits = [*SPLITS, None]
    return [replace(row, split=splits[number]) for row, number in zip(rows, index.split, strict=True)], moved


def _stream_filled(before: TableVersion, plan: _Plan, form: RowForm) -> pa.RecordBatchReader:
    """Return the rows of the table with the labels and splits that came in for them, and the added rows."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in stream_table(before, columns=form.columns):
            yield from _fill_labels(batch, plan.filled, form).to_batches()
        yield from _to_table(plan.added, form).to_batches()

    return pa.RecordBatchReader.from_batches(form.schema(), batches())


def _fill_labels(batch: pa.RecordBatch, filled: Mapping[str, _NewRow], form: RowForm) -> pa.Table:
    import pyarrow as pa

    columns = {name: batch[name].to_pylist() for name in form.columns}
    for place, row_id in enumerate(_strip_repeats(batch["row_id"]).to_pylist()):
        row = filled.get(row_id)
        if row is not None and row.label and form.label.write(columns["label"][place]) is None:
            columns["label"][place], columns["split"][place] = form.label.read(row.label), row.split
    return pa.table(columns, schema=form.schema())


def _to_table(rows: Sequence[_NewRow], form: RowForm) -> pa.Table:
    import pyarrow as pa

    labels = [None if row.label is None else form.label.read(row.label) for row in rows]
    ids, splits = [row.row_id for row in rows], [row.split for row in rows]
    return pa.Table.from_batches([form.batch(ids, [row.values for row in rows], labels, splits)])


def to_row_id(digest: bytes) -> str:
    """Return the row id of a row with this digest."""
    return digest[:8].hex()
