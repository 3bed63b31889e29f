"""From source files to one version of a data-set table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.errors import BadRows, MarkMoved, SchemaMismatch, SettingError, StorageUnavailable
from dlpipe.tables._commit import COMMIT_ATTEMPTS, check_target
from dlpipe.tables._labels import Spelling, spell_labels
from dlpipe.tables._read import read_table
from dlpipe.tables._rows import Row, check_readable, describe_sources, encoding_hint, read_rows, readable
from dlpipe.tables._settings import SPLITS, Sources, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._splits import (
    Placed,
    check_splits,
    describe_splits,
    drop_leaks,
    is_by_hash,
    keep_in_train,
    split_of,
    text_digest,
)
from dlpipe.tables._storage import locate, shown
from dlpipe.tables._texts import check_text_settings
from dlpipe.tables._versions import TableVersion, ingested_rows, table_at, try_open
from dlpipe.tables._write import put_table, table_digest

if TYPE_CHECKING:
    import pyarrow as pa

EMPTY_TEXT = "empty text"
MISSING_LABEL = "missing label"
UNDECODABLE = "undecodable bytes"
CONFLICT = "conflicting labels"
COLUMNS = ("row_id", "text", "label", "split")
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
    found = _find_checked(sources, table, settings)
    rows = [row for source in found for row in read_rows(source, settings)]
    good, bad, spelling = _check_rows(rows, settings)
    kept_bad = Quarantine(locate(table), bad, found)
    hints = describe_bad(bad, settings)
    check_bad_share(rows, bad, settings, kept_bad, details=hints)
    placed, leaked = drop_leaks(_place(good, spelling, {source.split for source in found}, settings))
    placed, moved = keep_in_train(placed)
    check_splits(placed, settings)
    quarantine = kept_bad.commit()
    every, version, new = _put(locate(table), placed, found, settings)
    return Ingest(
        table=version,
        quarantine=quarantine,
        bad_rows=counted_reasons(bad),
        leaked_rows=leaked,
        new_version=new,
        **_counts(every),
        profile=_profile(every, bad, found, leaked),
        notes=(
            *describe_sources(found, settings),
            *describe_hints(bad, hints),
            *spelling.notes,
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
    every = _placed_rows(read_table(version, columns=COLUMNS))
    if not any(row.label for row in every):
        raise BadRows(f"{str(version)!r} has no row with a label. Append rows with labels, or ingest some.")
    check_splits([row for row in every if row.split], TableSettings())
    counts = {**_counts(every), "appended_rows": version.rows - ingested_rows(version), "profile": _profile(every)}
    classes = spell_labels(Counter(row.label for row in every if row.label))
    notes = (*classes.notes, *describe_splits(every, {}))
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


def _put(
    location: str, placed: Sequence[Placed], sources: Sequence[Source], settings: TableSettings
) -> tuple[list[Placed], TableVersion, bool]:
    """Make ``placed`` and the appended rows that stay the table's content; return these, and as ``put_table``."""
    metadata = {**source_metadata(sources, settings), INGESTED: str(len(placed))}
    for _ in range(COMMIT_ATTEMPTS):
        before = None if try_open(location) is None else table_at(location)
        every, _ = keep_in_train([*placed, *_appended_rows(before, {row.digest for row in placed})])
        check_splits([row for row in every if row.split], settings)
        try:
            return every, *_put_after(before, location, every, metadata)
        except MarkMoved:  # somebody appended rows meanwhile
            continue
    raise StorageUnavailable(f"Others write to {shown(location)} all the time; nothing was committed. Try again.")


def _put_after(
    before: TableVersion | None, location: str, every: Sequence[Placed], metadata: Mapping[str, str]
) -> tuple[TableVersion, bool]:
    rows = _as_table(every)
    if before is None:
        return put_table(location, rows, metadata=metadata, at=0)
    names = [name for name, _ in before.columns]
    same_form = before.rows == rows.num_rows and names == rows.column_names
    # the digest of a version with appended rows is not that of its content alone
    if same_form and table_digest(read_table(before)) == table_digest(rows):
        return before, False
    return put_table(location, rows, metadata=metadata, at=before.version + 1)


def _appended_rows(version: TableVersion | None, known: Set[bytes]) -> list[Placed]:
    """Return the rows that were appended to the table, without those whose text is ``known`` now."""
    if version is None or not {name for name, _ in version.columns}.issuperset(COLUMNS):
        return []
    first = ingested_rows(version)
    if first >= version.rows:
        return []
    rows = _placed_rows(read_table(version, columns=COLUMNS).slice(first))
    return [replace(row, by_hash=True) for row in rows if row.digest not in known]


def _placed_rows(rows: pa.Table) -> list[Placed]:
    columns = (rows[name].to_pylist() for name in ("text", "label", "split", "row_id"))
    return [
        Placed(text or "", label, split, text_digest(text or ""), row_id)
        for text, label, split, row_id in zip(*columns, strict=True)
    ]


def _counts(every: Sequence[Placed]) -> dict[str, Any]:
    counts = Counter(row.split for row in every)
    return {
        "split_rows": {split: counts[split] for split in SPLITS},
        "labels": tuple(sorted({row.label for row in every if row.label})),
        "appended_rows": sum(bool(row.row_id) for row in every),
        "unlabelled_rows": sum(not row.label for row in every),
    }


def check_settings(settings: TableSettings) -> None:
    """Raise ``SettingError`` for settings that no source can be read with."""
    check_text_settings(settings)
    if settings.text_column == settings.label_column:
        raise SettingError(
            f"Text and label are the same column, {settings.text_column!r}. Set text_column and label_column."
        )


@dataclass(frozen=True)
class Quarantine:
    """The bad rows of an ingest and the table they go to."""

    data_table: str
    bad: Sequence[tuple[Row, str]]
    sources: Sequence[Source]

    @property
    def location(self) -> str:
        return f"{self.data_table}_quarantine"

    def commit(self) -> TableVersion | None:
        """Make the bad rows the content of the quarantine table (none where none is and there is no table)."""
        if not self.bad and try_open(self.location) is None:
            return None
        return put_table(self.location, _bad_table(self.bad), metadata={"sources": _source_records(self.sources)})[
            0
        ]


def _check_rows(
    rows: Sequence[Row], settings: TableSettings
) -> tuple[list[tuple[Row, bytes]], list[tuple[Row, str]], Spelling]:
    """Return the good rows with their digests, the bad ones with the reasons, and how labels are spelled."""
    reasons = [bad_reason(row) for row in rows]
    digests = [b"" if reason else text_digest(row.text or "") for row, reason in zip(rows, reasons, strict=True)]
    counts = Counter(bare_label(row) for row, reason in zip(rows, reasons, strict=True) if not reason)
    spelling = spell_labels(counts, fold=settings.fold_labels)
    labels: dict[bytes, set[str]] = {}
    for row, reason, digest in zip(rows, reasons, digests, strict=True):
        if not reason:
            labels.setdefault(digest, set()).add(spelling(bare_label(row)))
    good: list[tuple[Row, bytes]] = []
    bad: list[tuple[Row, str]] = []
    for row, reason, digest in zip(rows, reasons, digests, strict=True):
        if reason or len(labels[digest]) > 1:
            bad.append((row, reason or CONFLICT))
        else:
            good.append((row, digest))
    return good, bad, spelling


def bare_label(row: Row) -> str:
    """Return the label as it was read, without the blanks around it; empty where there is none."""
    return (row.label or "").strip()


def bad_reason(row: Row) -> str:
    if not (_decodes(row.text) and _decodes(row.label)):
        return UNDECODABLE
    if not row.text or not row.text.strip():
        return EMPTY_TEXT
    return "" if row.label and row.label.strip() else MISSING_LABEL


def _decodes(text: str | None) -> bool:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def check_bad_share(
    rows: Sequence[Row],
    bad: Sequence[tuple[Row, str]],
    settings: TableSettings,
    quarantine: Quarantine,
    *,
    details: Mapping[str, str] | None = None,
) -> None:
    """Raise ``BadRows`` for too many bad rows, which are kept; ``details`` has more to say of a reason."""
    if len(bad) <= settings.max_bad_share * len(rows) and len(bad) < len(rows):
        return
    kept = quarantine.commit()
    firsts = {reason: row.place for row, reason in reversed(bad)}
    more = {reason: f": {text}" for reason, text in (details or {}).items()}
    listed = "; ".join(
        f"{count} with {reason} (first: {firsts[reason]}){more.get(reason, '')}"
        for reason, count in counted_reasons(bad).items()
    )
    raise BadRows(
        f"{len(bad)} of {len(rows)} rows are bad, more than max_bad_share={settings.max_bad_share:g} allows: "
        f"{listed}. "
        f"Nothing was committed; the rows are in {str(kept)!r} ({quarantine.location}). "
        "Mend the source, or raise max_bad_share."
    )


def describe_bad(bad: Sequence[tuple[Row, str]], settings: TableSettings) -> dict[str, str]:
    """Return, for bad rows that another setting would make good, which one."""
    undecodable = [row for row, reason in bad if reason == UNDECODABLE]
    hint = encoding_hint(undecodable, settings)
    return {UNDECODABLE: hint.rstrip(".")} if hint else {}


def describe_hints(bad: Sequence[tuple[Row, str]], hints: Mapping[str, str]) -> list[str]:
    """Return a line for each reason that there is more to say of."""
    counts = counted_reasons(bad)
    return [f"Rows set aside with {reason}: {counts[reason]:,}. {text}." for reason, text in hints.items()]


def counted_reasons(bad: Sequence[tuple[Row, str]]) -> dict[str, int]:
    return dict(Counter(reason for _, reason in bad).most_common())


def _place(
    good: Sequence[tuple[Row, bytes]], spelling: Spelling, given: set[str], settings: TableSettings
) -> list[Placed]:
    """Return the rows with their classes and their splits: the source's own, or by the hash of the text."""
    return [
        Placed(
            row.text or "",
            spelling(bare_label(row)),
            split_of(row.source.split, digest, given, settings),
            digest,
            by_hash=is_by_hash(row.source.split, given),
        )
        for row, digest in good
    ]


def _as_table(placed: Sequence[Placed]) -> pa.Table:
    import pyarrow as pa

    columns = {
        "row_id": _row_ids(placed),
        "text": [row.text for row in placed],
        "label": [row.label for row in placed],
        "split": [row.split for row in placed],
    }
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def _row_ids(placed: Sequence[Placed]) -> list[str]:
    """Return 16 hex characters of each text's digest, ``-2``, ``-3`` after those of repeated texts."""
    seen: Counter[bytes] = Counter()
    names = []
    for row in placed:
        seen[row.digest] += 1
        times = seen[row.digest]
        names.append(row.row_id or row_id_of(row.digest) + (f"-{times}" if times > 1 else ""))
    return names


def row_id_of(digest: bytes) -> str:
    """Return the row id of a text with this digest."""
    return digest[:8].hex()


def _bad_table(bad: Sequence[tuple[Row, str]]) -> pa.Table:
    import pyarrow as pa

    texts = [(row.text, row.label) for row, _ in bad]
    columns = {
        "source": pa.array([row.source.path for row, _ in bad], pa.string()),
        "line": pa.array([row.line for row, _ in bad], pa.int64()),
        "reason": pa.array([reason for _, reason in bad], pa.string()),
        "text": pa.array([None if text is None else readable(text) for text, _ in texts], pa.string()),
        "label": pa.array([None if label is None else readable(label) for _, label in texts], pa.string()),
        "split": pa.array([row.source.split for row, _ in bad], pa.string()),
    }
    return pa.table(columns)


def source_metadata(sources: Sequence[Source], settings: TableSettings) -> dict[str, str]:
    return {"sources": _source_records(sources), "settings": json.dumps(asdict(settings), sort_keys=True)}


def _source_records(sources: Sequence[Source]) -> str:
    return json.dumps([source.record() for source in sources])


def _profile(
    placed: Sequence[Placed],
    bad: Sequence[tuple[Row, str]] = (),
    sources: Sequence[Source] = (),
    leaked: int = 0,
) -> dict[str, Any]:
    examples: dict[str, dict[str, str]] = {}
    for row, reason in bad:
        examples.setdefault(reason, {"place": row.place, "text": readable(row.text or "")[:200]})
    return {
        "rows": len(placed),
        "labels": {
            split: dict(sorted(Counter(r.label or "" for r in placed if r.split == split).items()))
            for split in SPLITS
        },
        "words": _quantiles([len(row.text.split()) for row in placed]),
        "characters": _quantiles([len(row.text) for row in placed]),
        "repeated_texts": len(placed) - len({row.digest for row in placed}),
        "bad_rows": counted_reasons(bad),
        "bad_examples": examples,
        "leaked_rows": leaked,
        "sources": [source.record() for source in sources],
    }


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    ranked = sorted(lengths)
    last = len(ranked) - 1
    shares = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
    return {name: ranked[round(share * last)] for name, share in shares.items()}
