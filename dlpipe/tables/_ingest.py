"""Ingest source files into one version of a data-set table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadRows, SchemaMismatch
from dlpipe.tables._appended import describe_unsure, find_appended
from dlpipe.tables._commit import retry_on_latest
from dlpipe.tables._forgotten import describe_left_out
from dlpipe.tables._form import RowForm, check_form
from dlpipe.tables._index import Indexer, RowIndex
from dlpipe.tables._labels import spell_labels
from dlpipe.tables._metadata import INGESTED, check_columns, is_form_lost, make_metadata, read_form
from dlpipe.tables._passes import AppendedRows, FirstPass, TableRows, run_first_pass, stream_values
from dlpipe.tables._quarantine import Quarantine, check_bad_share, describe_bad, describe_hints
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import check_first_rows, describe_sources
from dlpipe.tables._settings import SPLITS, FormSettings, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import check_splits, describe_splits, keep_in_train
from dlpipe.tables._storage import locate
from dlpipe.tables._targets import check_target
from dlpipe.tables._text_files import check_text_settings, to_readable
from dlpipe.tables._versions import TableVersion, table_at
from dlpipe.tables._write import content_digest, replace_rows

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Ingest:
    """What an ingest did."""

    table: TableVersion
    quarantine: TableVersion | None
    """The table of the bad rows; None where there never was one."""
    split_rows: Mapping[str, int]
    labels: tuple[str, ...]
    bad_rows: Mapping[str, int]
    """How many rows were bad, by reason."""
    leaked_rows: int
    """Rows dropped from train or valid because the same text stands in test (or valid)."""
    new_version: bool
    """False when the table had this content already."""
    appended_rows: int = 0
    """Rows that ``append`` added and that stay in the table."""
    unlabelled_rows: int = 0
    """Those of them without a label, and so in no split."""
    profile: dict[str, Any] = field(default_factory=dict)
    """Numbers for a card: labels by split, lengths, sources, examples of bad rows."""
    notes: tuple[str, ...] = ()
    """What a person should know about classes and splits, one line each."""


def ingest(sources: Sources, table: str | Path, *, settings: TableSettings) -> Ingest:
    """Make the rows of ``sources`` the content of ``table``, in one atomic commit, and return what was done.

    The same content again makes no new version. Rows that ``append`` added stay, unless the sources have their
    text. Bad rows go to ``<table>_quarantine``, which is committed first: a process that is killed in between
    leaves the data table as it was.

    Parameters
    ----------
    sources : Sources
    table : str or Path
        A relative name is taken under ``tables_root()``.
    settings : TableSettings
        Those of a task: they say which columns are read, and what a row is.

    Raises
    ------
    SourceNotFound, BadSource, BadRows, SettingError
        Nothing is committed to the data table.

    Examples
    --------
    >>> import tempfile
    >>> from dlpipe.tables import TEXT_FORM, FormSettings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lines = [f"text number {n},{'good' if n % 2 else 'bad'}" for n in range(40)]
    ...     _ = Path(f"{folder}/all.csv").write_text("\\n".join(["text,label", *lines]))
    ...     settings = FormSettings(rows=TEXT_FORM)
    ...     done = ingest(Sources(data=f"{folder}/all.csv"), f"{folder}/reviews", settings=settings)
    >>> str(done.table), dict(done.split_rows), done.labels
    ('reviews@v0', {'train': 24, 'valid': 6, 'test': 10}, ('bad', 'good'))
    """
    first_pass = run_first_pass(_check_and_find(sources, table, settings), settings)
    quarantine = Quarantine(locate(table), first_pass.bad, first_pass.sources, settings.form)
    hints = describe_bad(first_pass.bad, settings)
    check_bad_share(len(first_pass.reasons), first_pass.bad, settings, quarantine=quarantine, details=hints)
    placed, moved = keep_in_train(first_pass.rows)
    check_splits(placed, settings)
    # before the data: two tables have no common commit, and killed in between, the data table is as it was
    set_aside = quarantine.commit()
    index, appended, version, new, kept = _commit_rows(locate(table), first_pass, placed)
    return Ingest(
        table=version,
        quarantine=set_aside,
        bad_rows=first_pass.bad.counts,
        leaked_rows=first_pass.leaked,
        new_version=new,
        appended_rows=appended,
        **_count_rows(index),
        profile=_profile_rows(index, first_pass),
        notes=(
            *describe_sources(first_pass.sources, settings),
            *describe_left_out(first_pass.forgotten),
            *describe_hints(first_pass.bad, hints),
            *first_pass.spelling.notes,
            *describe_splits(index, moved),
            *kept,
        ),
    )


def check_sources(sources: Sources, table: str | Path, *, settings: TableSettings) -> None:
    """Raise what ``ingest`` would, as far as names, places and the first rows tell; nothing is written.

    Parameters
    ----------
    sources, table, settings
        As for ``ingest``.
    """
    for source in _check_and_find(sources, table, settings):
        check_first_rows(source, settings)


def check_all_rows(sources: Sources, *, settings: TableSettings) -> None:
    """Raise what ``ingest`` into a new table would; all rows are read, nothing is written.

    Parameters
    ----------
    sources, settings
        As for ``ingest``.
    """
    check_settings(settings)
    first_pass = run_first_pass(find_sources(sources.list_paths()), settings)
    hints = describe_bad(first_pass.bad, settings)
    check_bad_share(len(first_pass.reasons), first_pass.bad, settings, details=hints)
    check_splits(keep_in_train(first_pass.rows)[0], settings)


def _check_and_find(sources: Sources, table: str | Path, settings: TableSettings) -> list[Source]:
    check_settings(settings)
    check_target(table)
    return find_sources(sources.list_paths())


def describe_table(table: str | Path) -> Ingest:
    """Return what an ingest returns, of the latest version of ``table`` as it is; nothing is ingested.

    Raises
    ------
    TableNotFound
    BadRows
        When the rows that have a label are no data set: of one class only, or none in a split.
    SchemaMismatch
        When a column of another program's table is missing or holds no strings.
    """
    version = table_at(table)
    form = read_form(version)
    check_columns(version, form)
    index = _index_rows(version, form)
    if not index.has_label().any():
        raise BadRows(f"{str(version)!r} has no row with a label. Append rows with labels, or ingest some.")
    check_splits(index, FormSettings(rows=form))
    counts = {
        **_count_rows(index),
        "appended_rows": find_appended(version).rows,
        "profile": _profile_rows(index),
    }
    notes = (*spell_labels(index.count()).notes, *describe_splits(index, {}))
    return Ingest(version, None, bad_rows={}, leaked_rows=0, new_version=False, **counts, notes=notes)


def _commit_rows(
    location: str, first_pass: FirstPass, placed: RowIndex
) -> tuple[RowIndex, int, TableVersion, bool, list[str]]:
    """Make ``placed`` and the appended rows that stay the table's content.

    Returns all rows, how many of them were appended, the version, whether it is a new one, and a line where some
    rows stay of which it cannot be told whether they were appended.
    """
    metadata = {**make_metadata(first_pass.sources, first_pass.settings), INGESTED: str(len(placed))}

    def commit(before: TableVersion | None) -> tuple[RowIndex, int, TableVersion, bool, list[str]]:
        # here, since which appended rows there are, and which of them stay, depends on the version before
        appended, notes = _find_appended(before, placed)
        index, _moved = keep_in_train(placed.concat(appended.rows))
        check_splits(index, first_pass.settings)
        rows = TableRows(first_pass, appended, index)
        return index, len(appended.rows), *_commit_after(before, location, rows, metadata), notes

    return retry_on_latest(location, commit)


def _commit_after(
    before: TableVersion | None, location: str, rows: TableRows, metadata: Mapping[str, str]
) -> tuple[TableVersion, bool]:
    if before is None:
        # at=0: a table that another program makes meanwhile may have appended rows, which must stay
        return replace_rows(location, rows.make_reader(), metadata=metadata, at=0)
    same_form = before.rows == len(rows.index) and _has_rows_of(before, rows.form, exactly=True)
    # both are read, since the digest of a version with appended rows is a chain and not that of its content
    if same_form and content_digest(stream_table(before)) == content_digest(rows.make_reader()):
        return before, False
    return replace_rows(location, rows.make_reader(), metadata=metadata, at=before.version + 1)


def _find_appended(version: TableVersion | None, placed: RowIndex) -> tuple[AppendedRows, list[str]]:
    """Return the rows that were appended to the table, without those that are the same as one of ``placed``.

    Of a table with other rows, or of another program, nothing stays. Where it cannot be told of all rows whether
    they were appended, a line says so.
    """
    import numpy as np

    form = placed.form
    found = find_appended(version) if version is not None and _has_rows_of(version, form) else None
    if version is None or found is None or not found.rows:
        return AppendedRows(None, 0, np.zeros(0, bool), Indexer(form).build()), []
    rows = _index_rows(version, form, found.first)
    content = placed.concat(rows).content
    known = np.zeros(len(content), bool)
    known[content[: len(placed)]] = True
    stays = found.every[found.first :] & ~known[content[len(placed) :]]
    notes = [describe_unsure(version, int(stays.sum()))] if found.unsure and stays.any() else []
    return AppendedRows(version, found.first, stays, rows.take(stays)), notes


def _has_rows_of(version: TableVersion, form: RowForm, *, exactly: bool = False) -> bool:
    """Return whether a version has rows of this form; ``exactly`` if it also has no other columns.

    Where nobody can say any more what its rows are, its columns tell.
    """
    there = [name for name, _ in version.columns]
    try:
        if is_form_lost(version):
            check_columns(version, form)
        elif not read_form(version).has_same_rows(form):
            return False
    except SchemaMismatch:
        return False
    return there == list(form.columns) if exactly else set(form.columns) <= set(there)


def _index_rows(version: TableVersion, form: RowForm, first: int = 0) -> RowIndex:
    """Return what is known of the rows of a data-set table from the row ``first`` on."""
    indexer = Indexer(form)
    for (label, split), values in stream_values(version, form, ("label", "split"), first):
        indexer.add(values, form.label.to_string(label), split, form.identify(values))
    return indexer.build()


def _count_rows(index: RowIndex) -> dict[str, Any]:
    return {
        "split_rows": {split: int(index.has_label(split).sum()) for split in SPLITS},
        "labels": tuple(index.count()),
        "unlabelled_rows": int((~index.has_label()).sum()),
    }


def check_settings(settings: TableSettings) -> None:
    """Raise ``SettingError`` for settings that no source can be read with."""
    check_text_settings(settings)
    check_form(settings.form)


def _profile_rows(index: RowIndex, first_pass: FirstPass | None = None) -> dict[str, Any]:
    form, firsts = index.form, first_pass.bad.firsts if first_pass else {}
    lengths = {"words": index.words} if form.text_places else {}
    if form.is_text:
        lengths["characters"] = index.characters
    return {
        "rows": len(index),
        "labels": {split: index.count(split) for split in SPLITS},
        **({"numbers": _label_quantiles(index)} if index.has_numbers else {}),
        **{
            name: {at: int(length) for at, length in _compute_quantiles(found).items()}
            for name, found in lengths.items()
        },
        "repeated_texts": int((index.count_repeats() > 0).sum()),
        "bad_rows": dict(first_pass.bad.counts) if first_pass else {},
        "bad_examples": {
            reason: {"place": row.place, "text": to_readable(form.format_values(row.values))[:200]}
            for reason, row in firsts.items()
        },
        "leaked_rows": first_pass.leaked if first_pass else 0,
        "sources": [source.to_record() for source in first_pass.sources] if first_pass else [],
    }


def _label_quantiles(index: RowIndex) -> dict[str, dict[str, float]]:
    """Return the quantiles of the labels that are numbers, by split."""
    return {split: _compute_quantiles(index.value[index.has_label(split)]) for split in SPLITS}


def _compute_quantiles(values: np.ndarray) -> dict[str, float]:
    import numpy as np

    ranked = np.sort(values)
    last = len(ranked) - 1
    shares = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: float(ranked[round(share * last)]) for name, share in shares.items()}
