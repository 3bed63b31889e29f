"""Append rows to a data-set table, with labels or without, and fill in labels of rows that had none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import TableNotFound
from dlpipe.tables._append_plan import (
    AppendPlan,
    BadRow,
    GoodRow,
    NewRow,
    describe_unknown,
    plan_append,
    read_labels,
    separate_bad_rows,
    strip_repeats,
)
from dlpipe.tables._appended import (
    AppendedPlaces,
    count_ingested_rows,
    describe_unsure,
    find_appended,
    stay_first,
)
from dlpipe.tables._commit import retry_on_latest
from dlpipe.tables._forgotten import describe_left_out, read_forgotten
from dlpipe.tables._form import RowForm
from dlpipe.tables._ingest import check_settings
from dlpipe.tables._metadata import APPENDED, INGESTED, check_same_form, make_metadata, read_last_settings
from dlpipe.tables._quarantine import BadSet, Quarantine, check_bad_share, describe_bad, describe_hints
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import Row, describe_sources, read_rows, use_own_names
from dlpipe.tables._settings import Paths, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._storage import locate
from dlpipe.tables._targets import check_target
from dlpipe.tables._versions import TableVersion
from dlpipe.tables._write import append_rows, replace_rows

if TYPE_CHECKING:
    import pyarrow as pa


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


def append(
    sources: Paths,
    table: str | Path,
    *,
    settings: TableSettings | None = None,
    labelled: bool = False,
    named: Collection[str] | None = None,
) -> Append:
    """Add the rows of ``sources`` to ``table`` in one atomic commit, and return what was done.

    A row is known by its ``row_id``, which is made of its inputs. A row that is there already is not added again;
    where it had no label and now comes with one, that is filled in. A label that contradicts the one that is
    there, or a class that no row of the train split has, makes a bad row. Rows with a label get the split that an
    ingest would give them, rows without one are in no split. The same sources again change nothing.

    Parameters
    ----------
    sources : path, glob or list of them
    table : str or Path
        Made where there is none. Rows are kept by later ingests.
    settings : TableSettings, optional
        By default those of the table's last ingest; a new table needs those of a task.
    labelled : bool, optional
        Whether each source must have the columns with the label; by default it may lack them.
    named : collection of str, optional
        Columns of the table that each source must call as ``settings`` do. A source without another one under that
        name may call it as the table does. By default all of them.

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
    rows, notes = list[Row](), list[str]()
    for source in found:
        read, own = (settings, []) if named is None else use_own_names(source, settings, named=named)
        rows += read_rows(source, read, unlabelled=not labelled)
        notes += own
    banned = read_forgotten()
    good, bad, left_out = separate_bad_rows(rows, settings.form, banned)
    notes += describe_left_out(left_out)
    done = retry_on_latest(location, lambda before: _append_to(before, location, good, bad, found, settings))
    return replace(done, notes=(*notes, *done.notes))


def _find_settings(location: str) -> TableSettings:
    try:
        return read_last_settings(location)
    except TableNotFound as error:
        raise TableNotFound(f"{error} To make it of these rows, pass the settings of a task.") from None


def _append_to(
    before: TableVersion | None,
    location: str,
    good: Sequence[GoodRow],
    bad: Sequence[BadRow],
    sources: Sequence[Source],
    settings: TableSettings,
) -> Append:
    """Append on top of a version, or raise ``MarkMoved`` where another program commits meanwhile.

    What is new, known or in conflict depends on the rows that the table has: the plan holds for this version only.
    """
    there = read_labels(before, {row.row_id for row in good}, settings.form)
    plan = plan_append(good, bad, there, settings)
    bad_set = BadSet.from_rows(plan.bad)
    quarantine = Quarantine(location, bad_set, sources, settings.form)
    hints = {**describe_bad(bad_set, settings), **describe_unknown(plan, there)}
    if good or bad:
        check_bad_share(len(good) + len(bad), bad_set, settings, quarantine=quarantine, details=hints)
    # before the rows: killed in between, the bad ones can be looked at and the same append adds the others
    set_aside = quarantine.commit() if plan.bad else None
    changed = bool(plan.added or plan.filled) or before is None
    version, kept = _commit(location, before, plan, sources, settings) if changed else (before, [])
    assert version is not None
    return Append(
        table=version,
        new_rows=len(plan.added),
        labelled_rows=sum(row.label is not None for row in plan.added),
        filled_labels=len(plan.filled),
        known_rows=plan.known,
        bad_rows=bad_set.counts,
        quarantine=set_aside,
        new_version=changed,
        notes=(*describe_sources(sources, settings), *plan.notes, *describe_hints(bad_set, hints), *kept),
    )


def _commit(
    location: str,
    before: TableVersion | None,
    plan: AppendPlan,
    sources: Sequence[Source],
    settings: TableSettings,
) -> tuple[TableVersion, list[str]]:
    """Return the version that has the rows, and a line where some may have been appended before or not."""
    metadata = {**make_metadata(sources, settings), APPENDED: str(len(plan.added))}
    if before is None or not plan.filled:
        at = 0 if before is None else before.version + 1
        metadata |= _repeat_ingested(before)
        return append_rows(location, _to_table(plan.added, settings.form), metadata=metadata, at=at), []
    # all rows anew, in their order, which delta-rs's own updates do not promise
    appended = find_appended(before)
    metadata[INGESTED] = str(before.rows - appended.rows)
    rows = _stream_filled(before, plan, settings.form, appended)
    version, _ = replace_rows(location, rows, metadata=metadata, at=before.version + 1)
    return version, [describe_unsure(before, appended.rows)] if appended.unsure else []


def _repeat_ingested(before: TableVersion | None) -> dict[str, str]:
    """Return what tells an ingest, without a look at earlier commits, that it keeps the rows after so many."""
    rows = 0 if before is None else count_ingested_rows(before)
    if rows is None or (before is not None and not stay_first(before, rows)):
        return {}
    return {INGESTED: str(rows)}


def _stream_filled(
    before: TableVersion, plan: AppendPlan, form: RowForm, appended: AppendedPlaces
) -> pa.RecordBatchReader:
    """Return the rows of the table with the labels and splits that came in for them, and the added rows.

    Those that were appended stand last, wherever another program has put them.
    """
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        for chosen in [None] if appended.in_order else [~appended.every, appended.every]:
            first = 0
            for batch in stream_table(before, columns=form.columns):
                part = slice(first, first := first + batch.num_rows)
                some = batch if chosen is None else batch.filter(pa.array(chosen[part]))
                yield from _fill_labels(some, plan.filled, form).to_batches()
        yield from _to_table(plan.added, form).to_batches()

    return pa.RecordBatchReader.from_batches(form.schema(), batches())


def _fill_labels(batch: pa.RecordBatch, filled: Mapping[str, NewRow], form: RowForm) -> pa.Table:
    import pyarrow as pa

    columns = {name: batch[name].to_pylist() for name in form.columns}
    for place, row_id in enumerate(strip_repeats(batch["row_id"]).to_pylist()):
        row = filled.get(row_id)
        if row is not None and row.label and form.label.to_string(columns["label"][place]) is None:
            columns["label"][place], columns["split"][place] = form.label.from_string(row.label), row.split
    return pa.table(columns, schema=form.schema())


def _to_table(rows: Sequence[NewRow], form: RowForm) -> pa.Table:
    import pyarrow as pa

    labels = [None if row.label is None else form.label.from_string(row.label) for row in rows]
    ids, splits = [row.row_id for row in rows], [row.split for row in rows]
    return pa.Table.from_batches([form.make_batch(ids, [row.values for row in rows], labels, splits)])
