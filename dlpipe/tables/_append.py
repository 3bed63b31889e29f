"""New rows for a data-set table, with labels or without, and labels for rows that had none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlpipe.errors import MarkMoved, StorageUnavailable
from dlpipe.settings import read_settings
from dlpipe.tables._commit import COMMIT_ATTEMPTS, check_target
from dlpipe.tables._index import Indexer
from dlpipe.tables._ingest import INGESTED, check_settings, source_metadata
from dlpipe.tables._labels import Spelling, fold_label, list_labels, name_labels, spell_labels
from dlpipe.tables._look import COLUMNS
from dlpipe.tables._quarantine import (
    CONFLICT,
    MISSING_LABEL,
    BadSet,
    Quarantine,
    bad_reason,
    bare_label,
    check_bad_share,
    describe_bad,
    describe_hints,
)
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import Row, describe_sources, read_rows
from dlpipe.tables._settings import SPLITS, Paths, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import describe_moves, keep_in_train, split_of, text_digest
from dlpipe.tables._storage import locate, shown
from dlpipe.tables._versions import TableVersion, commit_info, ingested_rows, table_at, try_open
from dlpipe.tables._write import add_rows, put_rows

if TYPE_CHECKING:
    import pyarrow as pa

APPENDED = "appended"
"""What the commit of an append calls the number of rows that it adds."""
OF_FILES = ("separator", "encoding")
"""Settings that belong to the files of an ingest: those that come later may be others."""
UNKNOWN_LABEL = "label that the train split lacks"
LOOK_ROWS = 65_536

_Bad = tuple[Row, str]
"""A row, and why it is bad."""


@dataclass(frozen=True)
class Appended:
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
        Rows of the sources that brought nothing: their text was there, or stood in them twice.
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
class _Given:
    """A row of the sources that may be added."""

    text: str
    label: str | None
    split: str | None
    """None without a label."""
    digest: bytes
    row_id: str


class _Read(NamedTuple):
    """A row with a text, as it was read."""

    row: Row
    digest: bytes
    row_id: str


@dataclass(frozen=True)
class _There:
    """What a table has: the labels of some texts, by row id, all labels, and those of train."""

    labels: Mapping[str, set[str]]
    classes: frozenset[str]
    train: frozenset[str]


@dataclass(frozen=True)
class _Plan:
    """What an append does to a version of the table."""

    added: Sequence[_Given]
    filled: Mapping[str, _Given]
    """By row id."""
    bad: Sequence[tuple[Row, str]]
    known: int
    unknown: Mapping[str, int]
    """Rows of each label that is refused since train lacks it."""
    notes: Sequence[str]


def append(sources: Paths, table: str | Path, *, settings: TableSettings | None = None) -> Appended:
    """Add the rows of ``sources`` to ``table`` in one atomic commit, and return what was done.

    A row is known by its ``row_id``, which is made of its text. A text that is there already is not added again;
    where the row had no label and now comes with one, that is filled in. A label that contradicts the one that
    is there, or that no row of the train split has, is a bad row. Rows with a label get the split that an ingest
    would give them, rows without one are in no split. The same sources again change nothing.

    Parameters
    ----------
    sources : path, glob or list of them
        They may lack the column with the label.
    table : str or Path
        Made where there is none. Rows are kept by later ingests.
    settings : TableSettings, optional
        By default those of the table's last ingest or append.

    Raises
    ------
    SourceNotFound, BadSource, BadRows, SettingError, SchemaMismatch
        Nothing is committed to the data table.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(f"{folder}/new.csv").write_text("review\\nA fine film.\\nA fine film.\\nDull.\\n")
    ...     _ = Path(f"{folder}/later.csv").write_text("review,sentiment\\nDull.,negative\\n")
    ...     first = append(f"{folder}/new.csv", f"{folder}/incoming")
    ...     second = append(f"{folder}/later.csv", f"{folder}/incoming")
    >>> str(first.table), first.new_rows, first.known_rows, str(second.table), second.filled_labels
    ('incoming@v0', 2, 1, 'incoming@v1', 1)
    """
    location = locate(table)
    settings = settings or last_settings(location)
    check_settings(settings)
    check_target(location, _schema())
    found = find_sources(Sources(data=sources).given())
    rows = [row for source in found for row in read_rows(source, settings, unlabelled=True)]
    good, bad = _sort_out(rows)
    for _ in range(COMMIT_ATTEMPTS):
        try:
            return _append(location, good, bad, found, settings)
        except MarkMoved:
            continue
    raise StorageUnavailable(f"Others write to {shown(location)} all the time; nothing was committed. Try again.")


def last_settings(location: str) -> TableSettings:
    """Return the settings with which rows came into the table last; the defaults where nobody says."""
    if try_open(location) is not None:
        for version in range(table_at(location).version, -1, -1):
            info = commit_info(location, version)
            if (said := info.get("dlpipe.settings")) and not (version and _is_append(info)):
                # a flow's settings of its data have more fields
                names = set(TableSettings.__dataclass_fields__) - set(OF_FILES)
                kept = {name: json.loads(said).get(name) for name in names}
                return read_settings(TableSettings, kept, where=f"the last ingest of {shown(location)}")
    return TableSettings()


def _is_append(info: Mapping[str, Any]) -> bool:
    """Return whether a commit added rows; one that filled in labels wrote all of them anew."""
    return f"dlpipe.{APPENDED}" in info or info.get("operationParameters", {}).get("mode") == "Append"


def _append(
    location: str, good: Sequence[_Read], bad: Sequence[_Bad], sources: Sequence[Source], settings: TableSettings
) -> Appended:
    before = None if try_open(location) is None else table_at(location)
    there = _look_up(before, {one.row_id for one in good})
    plan = _plan(good, bad, there, settings)
    set_of_bad = BadSet.of(plan.bad)
    quarantine = Quarantine(location, set_of_bad, sources)
    hints = {**describe_bad(set_of_bad, settings), **_describe_unknown(plan, there)}
    if good or bad:
        check_bad_share(len(good) + len(bad), set_of_bad, settings, quarantine, details=hints)
    set_aside = quarantine.commit() if plan.bad else None
    changed = bool(plan.added or plan.filled) or before is None
    version = _commit(location, before, plan, source_metadata(sources, settings)) if changed else before
    assert version is not None
    return Appended(
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


def _commit(location: str, before: TableVersion | None, plan: _Plan, metadata: Mapping[str, str]) -> TableVersion:
    ingested = 0 if before is None else ingested_rows(before)
    metadata = {**metadata, INGESTED: str(ingested), APPENDED: str(len(plan.added))}
    if before is None or not plan.filled:
        at = 0 if before is None else before.version + 1
        return add_rows(location, _as_table(plan.added), metadata=metadata, at=at)
    return put_rows(location, _fill(before, plan), metadata=metadata, at=before.version + 1)[0]


def _sort_out(rows: Sequence[Row]) -> tuple[list[_Read], list[_Bad]]:
    """Return the rows that have a text, and those that are bad by themselves."""
    good: list[_Read] = []
    bad: list[_Bad] = []
    for row in rows:
        reason = bad_reason(row)
        if reason and reason != MISSING_LABEL:
            bad.append((row, reason))
        else:
            digest = text_digest(row.text or "")
            good.append(_Read(row, digest, row_id_of(digest)))
    return good, bad


def _look_up(before: TableVersion | None, row_ids: set[str]) -> _There:
    """Return what the table has of the texts with these ids, and its classes; its rows pass by a few at a time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labels: dict[str, set[str]] = {}
    classes: set[str] = set()
    train: set[str] = set()
    wanted = pa.array(sorted(row_ids), pa.string())
    columns = ["row_id", "label", "split"]
    for batch in stream_table(before, columns=columns, batch_rows=LOOK_ROWS) if before else ():
        ids, label = _first_ids(batch["row_id"]), batch["label"]
        classes.update(label.unique().to_pylist())
        train.update(label.filter(pc.equal(batch["split"], "train")).unique().to_pylist())
        found = pc.is_in(ids, wanted)
        for row_id, one in zip(ids.filter(found).to_pylist(), label.filter(found).to_pylist(), strict=True):
            labels.setdefault(row_id, set()).update({one} if one else ())
    return _There(labels, frozenset(filter(None, classes)), frozenset(filter(None, train)))


def _first_ids(row_ids: pa.Array) -> pa.Array:
    """Return the id of the first row of each row's text: that of a repeated text goes on with ``-2``."""
    import pyarrow.compute as pc

    return pc.replace_substring_regex(row_ids, "-.*", "")


def _plan(good: Sequence[_Read], bad: Sequence[_Bad], there: _There, settings: TableSettings) -> _Plan:
    """Return what rows do to a table."""
    counts = Counter(bare_label(one.row) for one in good if bare_label(one.row))
    spelling = spell_labels(counts, fold=settings.fold_labels, known=there.classes)
    given, conflicts = _without_conflicts([(one.row, _given(one, spelling, settings)) for one in good])
    bad = [*bad, *conflicts]
    added: dict[str, _Given] = {}
    filled: dict[str, _Given] = {}
    unknown: Counter[str] = Counter()
    known = 0
    for row, one in given:
        has = there.labels.get(one.row_id)
        if one.label is not None and there.train and one.label not in there.train:
            bad.append((row, UNKNOWN_LABEL))
            unknown[one.label] += 1
        elif one.label is not None and has and one.label not in has:
            bad.append((row, CONFLICT))
        elif has is None and (one.row_id not in added or added[one.row_id].label is None is not one.label):
            known += one.row_id in added
            added[one.row_id] = one
        elif has == set() and one.label is not None and one.row_id not in filled:
            filled[one.row_id] = one
        else:
            known += 1
    # a table that has no label yet gets its first classes here
    kept, moved = _keep_in_train([*added.values(), *filled.values()], there.train)
    more = {one.row_id: one for one in kept[len(added) :]}
    notes = (*spelling.notes, *describe_moves(moved))
    return _Plan(kept[: len(added)], more, bad, known, unknown, notes)


def _describe_unknown(plan: _Plan, there: _There) -> dict[str, str]:
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


def _given(one: _Read, spelling: Spelling, settings: TableSettings) -> _Given:
    label = spelling(bare_label(one.row)) or None
    split = split_of("data", one.digest, {"data"}, settings) if label else None
    return _Given(one.row.text or "", label, split, one.digest, one.row_id)


def _without_conflicts(good: Sequence[tuple[Row, _Given]]) -> tuple[list[tuple[Row, _Given]], list[_Bad]]:
    """Return the rows whose text has one label at most, and the others."""
    labels: dict[str, set[str]] = {}
    for _, one in good:
        labels.setdefault(one.row_id, set()).update({one.label} if one.label else ())
    fits = [pair for pair in good if len(labels[pair[1].row_id]) < 2]
    return fits, [(row, CONFLICT) for row, one in good if len(labels[one.row_id]) > 1]


def _keep_in_train(rows: Sequence[_Given], there: Collection[str]) -> tuple[list[_Given], dict[str, int]]:
    """Return the rows with at least one text of each class in train; as ``keep_in_train``."""
    indexer = Indexer()
    for row in rows:
        indexer.add(row.text, row.label, row.split, row.digest)
    index, moved = keep_in_train(indexer.index(), there=there)
    splits = [*SPLITS, None]
    return [replace(row, split=splits[number]) for row, number in zip(rows, index.split, strict=True)], moved


def _fill(before: TableVersion, plan: _Plan) -> pa.RecordBatchReader:
    """Return the rows of the table with the labels and splits that came in for them, and the added rows."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in stream_table(before, columns=COLUMNS):
            yield from _filled(batch, plan.filled).to_batches()
        yield from _as_table(plan.added).to_batches()

    return pa.RecordBatchReader.from_batches(_schema(), batches())


def _filled(batch: pa.RecordBatch, filled: Mapping[str, _Given]) -> pa.Table:
    import pyarrow as pa

    columns = {name: batch[name].to_pylist() for name in COLUMNS}
    for place, row_id in enumerate(_first_ids(batch["row_id"]).to_pylist()):
        one = filled.get(row_id)
        if one is not None and not columns["label"][place]:
            columns["label"][place], columns["split"][place] = one.label, one.split
    return pa.table(columns, schema=_schema())


def _as_table(rows: Sequence[_Given]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in COLUMNS])


def row_id_of(digest: bytes) -> str:
    """Return the row id of a text with this digest."""
    return digest[:8].hex()
