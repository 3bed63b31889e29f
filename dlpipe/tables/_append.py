"""New rows for a data-set table, with labels or without, and labels for rows that had none."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import MarkMoved, StorageUnavailable
from dlpipe.settings import read_settings
from dlpipe.tables._commit import COMMIT_ATTEMPTS, check_target
from dlpipe.tables._ingest import (
    COLUMNS,
    CONFLICT,
    INGESTED,
    MISSING_LABEL,
    Quarantine,
    bad_reason,
    bare_label,
    check_bad_share,
    check_settings,
    counted_reasons,
    describe_bad,
    describe_hints,
    row_id_of,
    source_metadata,
)
from dlpipe.tables._labels import Spelling, fold_label, list_labels, name_labels, spell_labels
from dlpipe.tables._read import read_table
from dlpipe.tables._rows import Row, describe_sources, read_rows
from dlpipe.tables._settings import Paths, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import Placed, describe_moves, keep_in_train, split_of, text_digest
from dlpipe.tables._storage import locate, shown
from dlpipe.tables._versions import TableVersion, commit_info, ingested_rows, table_at, try_open
from dlpipe.tables._write import add_rows, put_table

if TYPE_CHECKING:
    import pyarrow as pa

APPENDED = "appended"
"""What the commit of an append calls the number of rows that it adds."""
OF_FILES = ("separator", "encoding")
"""Settings that belong to the files of an ingest: those that come later may be others."""
UNKNOWN_LABEL = "label that the train split lacks"


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
class _Plan:
    """What an append does to a version of the table."""

    added: Sequence[Placed]
    filled: Mapping[str, Placed]
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
    for _ in range(COMMIT_ATTEMPTS):
        try:
            return _append(location, rows, found, settings)
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


def _append(location: str, rows: Sequence[Row], sources: Sequence[Source], settings: TableSettings) -> Appended:
    before = None if try_open(location) is None else table_at(location)
    there = _schema().empty_table() if before is None else read_table(before, columns=COLUMNS)
    plan = _planned(rows, there, settings)
    quarantine = Quarantine(location, plan.bad, sources)
    hints = {**describe_bad(plan.bad, settings), **_describe_unknown(plan, there)}
    if rows:
        check_bad_share(rows, plan.bad, settings, quarantine, details=hints)
    set_aside = quarantine.commit() if plan.bad else None
    changed = bool(plan.added or plan.filled) or before is None
    version = _commit(location, before, there, plan, source_metadata(sources, settings)) if changed else before
    assert version is not None
    return Appended(
        table=version,
        new_rows=len(plan.added),
        labelled_rows=sum(row.label is not None for row in plan.added),
        filled_labels=len(plan.filled),
        known_rows=plan.known,
        bad_rows=counted_reasons(plan.bad),
        quarantine=set_aside,
        new_version=changed,
        notes=(*describe_sources(sources, settings), *plan.notes, *describe_hints(plan.bad, hints)),
    )


def _commit(
    location: str, before: TableVersion | None, there: pa.Table, plan: _Plan, metadata: Mapping[str, str]
) -> TableVersion:
    import pyarrow as pa

    ingested = 0 if before is None else ingested_rows(before)
    metadata = {**metadata, INGESTED: str(ingested), APPENDED: str(len(plan.added))}
    at = 0 if before is None else before.version + 1
    added = _as_table(plan.added)
    if not plan.filled:
        return add_rows(location, added, metadata=metadata, at=at)
    return put_table(location, pa.concat_tables([_filled(there, plan.filled), added]), metadata=metadata, at=at)[0]


def _planned(rows: Sequence[Row], there: pa.Table, settings: TableSettings) -> _Plan:
    """Return what ``rows`` do to a table with the rows ``there``."""
    labels = _labels_there(there)
    spelling = _spelling(rows, set().union(*labels.values()), settings)
    allowed = _train_labels(there)
    given, bad = _given(rows, spelling, settings)
    added: dict[str, Placed] = {}
    filled: dict[str, Placed] = {}
    unknown: Counter[str] = Counter()
    known = 0
    for row, one in given:
        has = labels.get(one.row_id)
        if one.label is not None and allowed and one.label not in allowed:
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
    kept, moved = keep_in_train([*added.values(), *filled.values()], there=allowed)
    more = {one.row_id: one for one in kept[len(added) :]}
    notes = (*spelling.notes, *describe_moves(moved))
    return _Plan(kept[: len(added)], more, bad, known, unknown, notes)


def _spelling(rows: Sequence[Row], known: Collection[str], settings: TableSettings) -> Spelling:
    """Return how the labels of ``rows`` are written in a table with the classes ``known``."""
    counts = Counter(bare_label(row) for row in rows if not bad_reason(row))
    return spell_labels(counts, fold=settings.fold_labels, known=known)


def _train_labels(there: pa.Table) -> set[str]:
    return {label for label, split in _pairs(there, "label", "split") if split == "train" and label}


def _describe_unknown(plan: _Plan, there: pa.Table) -> dict[str, str]:
    """Return, for the reason that needs it, the labels that train lacks and those it has."""
    if not plan.unknown:
        return {}
    train = _train_labels(there)
    levelled = {fold_label(label) for label in train}
    hint = "To make labels one that differ only in case, blanks or Unicode form, set fold_labels (--fold-labels)"
    near = f". {hint}" if any(fold_label(label) in levelled for label in plan.unknown) else ""
    named = f"{name_labels(plan.unknown)}; train has {list_labels(train)}. For a new class, ingest anew{near}"
    return {UNKNOWN_LABEL: named}


def _given(
    rows: Sequence[Row], spelling: Spelling, settings: TableSettings
) -> tuple[list[tuple[Row, Placed]], list[tuple[Row, str]]]:
    """Return the rows that may be added, and those that are bad by themselves or contradict each other."""
    good: list[tuple[Row, Placed]] = []
    bad: list[tuple[Row, str]] = []
    for row in rows:
        reason = bad_reason(row)
        if reason and reason != MISSING_LABEL:
            bad.append((row, reason))
            continue
        digest = text_digest(row.text or "")
        label = spelling(bare_label(row)) or None
        split = split_of("data", digest, {"data"}, settings) if label else None
        good.append((row, Placed(row.text or "", label, split, digest, row_id_of(digest), by_hash=True)))
    labels: dict[str, set[str]] = {}
    for _, one in good:
        labels.setdefault(one.row_id, set()).update({one.label} if one.label else ())
    fits = [pair for pair in good if len(labels[pair[1].row_id]) < 2]
    return fits, [*bad, *((row, CONFLICT) for row, one in good if len(labels[one.row_id]) > 1)]


def _labels_there(there: pa.Table) -> dict[str, set[str]]:
    """Return the labels of the rows of each text, by the row id of its first row."""
    labels: dict[str, set[str]] = {}
    for row_id, label in _pairs(there, "row_id", "label"):
        labels.setdefault(_first_id(row_id), set()).update({label} if label else ())
    return labels


def _filled(there: pa.Table, filled: Mapping[str, Placed]) -> pa.Table:
    """Return the rows with the labels, and their splits, that came in for them."""
    import pyarrow as pa

    columns = {name: there[name].to_pylist() for name in COLUMNS}
    for place, row_id in enumerate(columns["row_id"]):
        one = filled.get(_first_id(row_id))
        if one is not None and not columns["label"][place]:
            columns["label"][place], columns["split"][place] = one.label, one.split
    return pa.table(columns, schema=_schema())


def _first_id(row_id: str) -> str:
    return row_id.partition("-")[0]


def _pairs(rows: pa.Table, first: str, second: str) -> zip[tuple[str, str | None]]:
    return zip(rows[first].to_pylist(), rows[second].to_pylist(), strict=True)


def _as_table(rows: Sequence[Placed]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in COLUMNS])
