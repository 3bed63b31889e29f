"""From source files to one version of a data-set table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadRows, MarkMoved, SchemaMismatch, SettingError, StorageUnavailable
from dlpipe.tables._commit import COMMIT_ATTEMPTS, check_target
from dlpipe.tables._index import NONE, Indexer, RowIndex
from dlpipe.tables._labels import spell_labels
from dlpipe.tables._look import COLUMNS, AppendedRows, Look, TableRows, look_at, table_values
from dlpipe.tables._quarantine import Quarantine, check_bad_share, describe_bad, describe_hints, source_records
from dlpipe.tables._read import stream_table
from dlpipe.tables._rows import check_readable, describe_sources, readable
from dlpipe.tables._settings import SPLITS, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import check_splits, describe_splits, keep_in_train, text_digest
from dlpipe.tables._storage import locate, shown
from dlpipe.tables._texts import check_text_settings
from dlpipe.tables._versions import TableVersion, ingested_rows, table_at, try_open
from dlpipe.tables._write import content_digest, put_rows

if TYPE_CHECKING:
    import numpy as np

INGESTED = "ingested"
"""What a commit calls the number of rows that come from the sources; those after them were appended."""


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


def ingest(sources: Sources, table: str | Path, *, settings: TableSettings | None = None) -> Ingest:
    """Make the rows of ``sources`` the content of ``table``, in one atomic commit, and return what was done.

    The same content again makes no new version. Rows that ``append`` added stay, unless the sources have their
    text. Bad rows go to ``<table>_quarantine``, which is committed first: a process that is killed in between
    leaves the data table as it was.

    Parameters
    ----------
    sources : Sources
    table : str or Path
        A relative name is taken under ``tables_root()``.
    settings : TableSettings, optional

    Raises
    ------
    SourceNotFound, BadSource, BadRows, SettingError
        Nothing is committed to the data table.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lines = [f"text number {n},{'good' if n % 2 else 'bad'}" for n in range(40)]
    ...     _ = Path(f"{folder}/all.csv").write_text("\\n".join(["review,sentiment", *lines]))
    ...     done = ingest(Sources(data=f"{folder}/all.csv"), f"{folder}/reviews")
    >>> str(done.table), dict(done.split_rows), done.labels
    ('reviews@v0', {'train': 24, 'valid': 6, 'test': 10}, ('bad', 'good'))
    """
    settings = settings or TableSettings()
    look = look_at(_find_checked(sources, table, settings), settings)
    quarantine = Quarantine(locate(table), look.bad, look.sources)
    hints = describe_bad(look.bad, settings)
    check_bad_share(len(look.reasons), look.bad, settings, quarantine, details=hints)
    placed, moved = keep_in_train(look.rows)
    check_splits(placed, settings)
    set_aside = quarantine.commit()
    every, appended, version, new = _put(locate(table), look, placed)
    return Ingest(
        table=version,
        quarantine=set_aside,
        bad_rows=look.bad.counts,
        leaked_rows=look.leaked,
        new_version=new,
        appended_rows=appended,
        **_counts(every),
        profile=_profile(every, look),
        notes=(
            *describe_sources(look.sources, settings),
            *describe_hints(look.bad, hints),
            *look.spelling.notes,
            *describe_splits(every, moved),
        ),
    )


def check_sources(sources: Sources, table: str | Path, *, settings: TableSettings | None = None) -> None:
    """Raise what ``ingest`` would, as far as names, places and the first rows tell; nothing is written."""
    settings = settings or TableSettings()
    for source in _find_checked(sources, table, settings):
        check_readable(source, settings)


def _find_checked(sources: Sources, table: str | Path, settings: TableSettings) -> list[Source]:
    check_settings(settings)
    check_target(table)
    return find_sources(sources.given())


def stored(table: str | Path) -> Ingest:
    """Return what an ingest would say of the latest version of ``table``, as it is; nothing is ingested.

    Raises
    ------
    TableNotFound
    BadRows
        When the rows that have a label are no data set: of one class only, or none in a split.
    SchemaMismatch
        When a column of another program's table is missing or holds no strings.
    """
    version = table_at(table)
    check_strings(version)
    every = _index_of(version)
    if not every.count():
        raise BadRows(f"{str(version)!r} has no row with a label. Append rows with labels, or ingest some.")
    check_splits(every, TableSettings())
    counts = {**_counts(every), "appended_rows": version.rows - ingested_rows(version), "profile": _profile(every)}
    notes = (*spell_labels(every.count()).notes, *describe_splits(every, {}))
    return Ingest(version, None, bad_rows={}, leaked_rows=0, new_version=False, **counts, notes=notes)


def check_strings(version: TableVersion) -> None:
    """Raise ``SchemaMismatch`` where a column that an ingest would write holds something else."""
    there = dict(version.columns)
    for name in COLUMNS:
        if there.get(name) != "string":
            what = f"holds values of type {there[name]}" if name in there else "is missing"
            raise SchemaMismatch(
                f"{str(version)!r} is no table of an ingest: its column {name!r} {what}. Ingest it into another "
                f"table: --data {shown(version.path)} --table NAME."
            )


def _put(location: str, look: Look, placed: RowIndex) -> tuple[RowIndex, int, TableVersion, bool]:
    """Make ``placed`` and the appended rows that stay the table's content.

    Returns all rows, how many of them were appended, the version, and whether it is a new one.
    """
    metadata = {**source_metadata(look.sources, look.settings), INGESTED: str(len(placed))}
    for _ in range(COMMIT_ATTEMPTS):
        before = None if try_open(location) is None else table_at(location)
        appended = _appended(before, placed)
        every, _moved = keep_in_train(placed.add(appended.rows))
        check_splits(every, look.settings)
        rows = TableRows(look, appended, every)
        try:
            return every, len(appended.rows), *_put_after(before, location, rows, metadata)
        except MarkMoved:  # somebody appended rows meanwhile
            continue
    raise StorageUnavailable(f"Others write to {shown(location)} all the time; nothing was committed. Try again.")


def _put_after(
    before: TableVersion | None, location: str, rows: TableRows, metadata: Mapping[str, str]
) -> tuple[TableVersion, bool]:
    if before is None:
        return put_rows(location, rows.reader(), metadata=metadata, at=0)
    same_form = before.rows == len(rows.every) and [name for name, _ in before.columns] == list(COLUMNS)
    # the digest of a version with appended rows is not that of its content alone
    if same_form and content_digest(stream_table(before)) == content_digest(rows.reader()):
        return before, False
    return put_rows(location, rows.reader(), metadata=metadata, at=before.version + 1)


def _appended(version: TableVersion | None, placed: RowIndex) -> AppendedRows:
    """Return the rows that were appended to the table, without those whose text is in ``placed`` now."""
    import numpy as np

    ours = version is not None and {name for name, _ in version.columns}.issuperset(COLUMNS)
    first = ingested_rows(version) if ours and version else 0
    if version is None or not ours or first >= version.rows:
        return AppendedRows(None, 0, np.zeros(0, bool), Indexer().index())
    rows = _index_of(version, first)
    texts = placed.add(rows).text
    known = np.zeros(len(texts), bool)
    known[texts[: len(placed)]] = True
    stays = ~known[texts[len(placed) :]]
    return AppendedRows(version, first, stays, rows.take(stays))


def _index_of(version: TableVersion, first: int = 0) -> RowIndex:
    """Return what is known of the rows of a data-set table from the row ``first`` on."""
    indexer = Indexer()
    for text, label, split in table_values(version, ("text", "label", "split"), first):
        indexer.add(text or "", label or None, split, text_digest(text or ""))
    return indexer.index()


def _counts(every: RowIndex) -> dict[str, Any]:
    return {
        "split_rows": {split: sum(every.count(split).values()) for split in SPLITS},
        "labels": tuple(every.count()),
        "unlabelled_rows": int((every.label == NONE).sum()),
    }


def check_settings(settings: TableSettings) -> None:
    """Raise ``SettingError`` for settings that no source can be read with."""
    check_text_settings(settings)
    if settings.text_column == settings.label_column:
        raise SettingError(
            f"Text and label are the same column, {settings.text_column!r}. Set text_column and label_column."
        )


def source_metadata(sources: Sequence[Source], settings: TableSettings) -> dict[str, str]:
    return {"sources": source_records(sources), "settings": json.dumps(asdict(settings), sort_keys=True)}


def _profile(every: RowIndex, look: Look | None = None) -> dict[str, Any]:
    firsts = look.bad.firsts if look else {}
    return {
        "rows": len(every),
        "labels": {split: every.count(split) for split in SPLITS},
        "words": _quantiles(every.words),
        "characters": _quantiles(every.characters),
        "repeated_texts": int((every.repeat() > 0).sum()),
        "bad_rows": dict(look.bad.counts) if look else {},
        "bad_examples": {
            reason: {"place": row.place, "text": readable(row.text or "")[:200]} for reason, row in firsts.items()
        },
        "leaked_rows": look.leaked if look else 0,
        "sources": [source.record() for source in look.sources] if look else [],
    }


def _quantiles(lengths: np.ndarray) -> dict[str, int]:
    import numpy as np

    ranked = np.sort(lengths)
    last = len(ranked) - 1
    shares = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: int(ranked[round(share * last)]) for name, share in shares.items()}
