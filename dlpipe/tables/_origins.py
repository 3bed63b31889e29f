"""Where a row came from: the commit that brought it into its table, and the line of the file that it stood on.

Commits do not record lines. A file that is still as it was is read again, with the settings of that commit; of one
that was changed or removed, the lines are gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dlpipe.errors import BadSource, SourceNotFound, TableVersionNotFound
from dlpipe.settings import read_settings
from dlpipe.tables._append_plan import to_row_id
from dlpipe.tables._changes import read_commit
from dlpipe.tables._form import RowForm
from dlpipe.tables._lookup import FoundRow, find_rows
from dlpipe.tables._quarantine import MISSING_LABEL, find_bad_reason
from dlpipe.tables._read import find_forgetting, stream_table
from dlpipe.tables._rows import read_rows, use_own_names
from dlpipe.tables._settings import FormSettings, TableSettings
from dlpipe.tables._sources import Source, find_sources
from dlpipe.tables._storage import is_remote
from dlpipe.tables._versions import TableVersion, table_at

FACTS = ("label", "split")
WITH_HEADER = ("csv", "tsv")


@dataclass(frozen=True)
class RowOrigin:
    """How a row came into a table.

    Attributes
    ----------
    version : int
        Whose commit brought it.
    labelled : int or None
        A later version that filled in its label; ``None`` where the label came with the row, or never did.
    split : str or None
        That it has in the version that was asked about.
    """

    version: int
    labelled: int | None = None
    split: str | None = None


@dataclass(frozen=True)
class SourceLine:
    """A line of a file, or a row of a Parquet file, that an ingest or append has read.

    Attributes
    ----------
    number : int
    row_id : str
        Of the row that it becomes, without the ``-2`` of one that stood there before.
    reason : str
        Why the line by itself is bad; empty for a good one.
    inputs : mapping
        Its values by column.
    texts : tuple of str
        Which of these columns are texts.
    """

    number: int
    row_id: str
    reason: str
    inputs: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    texts: tuple[str, ...] = field(default=(), compare=False, repr=False)


FindGroups = Callable[[str, str], Mapping[str, Collection[int]] | None]
"""Takes the location of a table and the id of a row, and returns where to look, as ``find_rows`` is told."""


def find_row_origin(
    version: TableVersion, row_id: str, *, find_groups: FindGroups = lambda location, row_id: None
) -> RowOrigin | None:
    """Return which commit brought the row with this id into the table; ``None`` where ``version`` has none.

    Parameters
    ----------
    version : TableVersion
    row_id : str
    find_groups : callable, optional
        By default all files are looked through.

    Raises
    ------
    SchemaMismatch
        When the table has no ``row_id``.
    TableVersionNotFound
        When another program has removed the files of a version that would tell.
    """
    at, labelled, groups = version, None, find_groups(version.path, row_id)
    found = _find_row(at, row_id, groups)
    if found is None:
        return None
    split = found.values.get("split")
    while True:
        # the name of a file of another program, which compacted, does not say which commit wrote it
        wrote = _find_writer(at, found.file) if found.version is None else found.version
        commit = read_commit(version.path, wrote) if wrote else None
        if not wrote or not _may_be_older(commit.facts if commit else {}, wrote, version.path, row_id):
            return RowOrigin(wrote, labelled, split)
        at = table_at(version.path, version=wrote - 1)
        try:
            before = _find_row(at, row_id, groups)
        except TableVersionNotFound:
            if not find_forgetting(at, version.version):
                raise
            return RowOrigin(_pass_forgettings(version.path, wrote), labelled, split)
        if before is None:
            return RowOrigin(wrote, labelled, split)
        if before.values.get("label") is None and found.values.get("label") is not None:
            labelled = wrote
        found = before


def _find_writer(version: TableVersion, file: str) -> int:
    """Return the commit that wrote a file of a version; where the log does not say, the first one that it has."""
    number = version.version
    while number and (commit := read_commit(version.path, number)):
        if file in commit.added and commit.facts["operation"] != "RESTORE":
            return number
        number -= 1
    return min(number + 1, version.version) if number else 0


def _pass_forgettings(location: str, number: int) -> int:
    """Return the version before the forgettings that end with this one: what they left was there already."""
    while number and (commit := read_commit(location, number)) and "forgotten" in commit.facts:
        number -= 1
    return number


def _may_be_older(commit: Mapping[str, Any], number: int, location: str, row_id: str) -> bool:
    """Return whether a commit that wrote a row may have found it in the version before."""
    if commit.get("operation") != "WRITE":
        return True
    if commit.get("mode") == "Append":
        return False
    if "appended" in commit:  # all rows anew, with labels filled in
        return True
    if "ingested" not in commit or commit["ingested"] == commit.get("rows"):  # it kept none of the version before
        return False
    return _find_place(table_at(location, version=number), row_id) >= int(commit["ingested"])


def _find_row(version: TableVersion, row_id: str, groups: Mapping[str, Collection[int]] | None) -> FoundRow | None:
    columns = [name for name in FACTS if name in dict(version.columns)]
    return next(find_rows(version, "row_id", row_id, columns=columns, groups=groups), None)


def _find_place(version: TableVersion, row_id: str) -> int:
    """Return which row of a version has this id, counted from 0."""
    import pyarrow.compute as pc

    start = 0
    for batch in stream_table(version, columns=["row_id"], batch_rows=65536):
        place = pc.index(batch["row_id"], row_id).as_py()
        if place >= 0:
            return int(start + place)
        start += batch.num_rows
    return start


def read_source_lines(
    source: Mapping[str, Any], commit: Mapping[str, Any], *, only: int | None = None, changed: bool = False
) -> Iterator[SourceLine]:
    """Yield the lines of a file that a commit has read, as they became rows then.

    Parameters
    ----------
    source : mapping
        One of the commit's ``sources``.
    commit : mapping
        As ``history`` has it.
    only : int, optional
        The number of the line that is wanted; nothing is read after it.
    changed : bool, optional
        Whether a file that is another one by now is read, too, as the one before it was.

    Raises
    ------
    SourceNotFound
        When the file is not there any more.
    BadSource
        When it is another one by now, or the commit does not say how it was read.
    """
    found, settings = _open_again(source, commit, changed=changed)
    texts = settings.form.text_names
    for row in read_rows(found, settings, unlabelled=True):
        if only is not None and row.line != only:
            if row.line > only:
                return
            continue
        reason = find_bad_reason(row, settings.form)
        row_id = to_row_id(settings.form.identify(row.values)) if reason in ("", MISSING_LABEL) else ""
        names = (column.name for column in settings.form.inputs)
        yield SourceLine(row.line, row_id, reason, dict(zip(names, row.values or (), strict=False)), texts)


def explain_missing_line(source: Mapping[str, Any], commit: Mapping[str, Any], number: int) -> str:
    """Return why no row of a file that a commit has read begins on a line; empty where one does.

    Parameters
    ----------
    source : mapping
        One of the commit's ``sources``.
    commit : mapping
        As ``history`` has it.
    number : int
        Counted from 1; of a Parquet file, the number of a row.

    Raises
    ------
    SourceNotFound, BadSource
        As ``read_source_lines`` does.
    """
    found, settings = _open_again(source, commit)
    first, last = 0, 0
    for row in read_rows(found, settings, unlabelled=True):
        if row.line == number:
            return ""
        if first and last < number < row.line:
            return (
                f"No row of {found.path!r} begins on {found.unit} {number}: it is empty, or part of the row that "
                f"begins on {found.unit} {last}."
            )
        first, last = first or row.line, row.line
    rows = f"its rows begin on the lines {first} to {last}" if found.unit == "line" else f"it has {last} rows"
    if found.kind in WITH_HEADER and 1 <= number < first:
        return f"Line {number} of {found.path!r} is its header, of which no row came: {rows}."
    return f"{found.path!r} has no {found.unit} {number}: {rows}."


def find_source_again(record: Mapping[str, Any], *, changed: bool = False) -> Source:
    """Return the file that a commit's record names, seen to be the same unless it may be ``changed``.

    Raises
    ------
    SourceNotFound, BadSource
        As ``read_source_lines`` does.
    """
    name = str(record["name"])
    if is_remote(name):
        raise SourceNotFound(f"{name!r} is no file of this machine, so its lines cannot be looked up.")
    found = next(iter(find_sources({str(record["split"]): (name,)})))
    if found.sha256 != record["sha256"] and not changed:
        raise BadSource(
            f"{name!r} is not the file any more that was read then: its SHA-256 was {str(record['sha256'])[:12]} "
            f"and is {found.sha256[:12]}. Restore it to look up lines."
        )
    return found


def _open_again(
    source: Mapping[str, Any], commit: Mapping[str, Any], *, changed: bool = False
) -> tuple[Source, TableSettings]:
    """Return the file of a commit, seen to be the same, and the settings that it was read with."""
    settings = _read_commit_settings(commit)
    found = find_source_again(source, changed=changed)
    return found, use_own_names(found, settings, named=())[0]


def _read_commit_settings(commit: Mapping[str, Any]) -> FormSettings:
    if "form" not in commit or "settings" not in commit:
        raise BadSource("The commit does not say how its files were read: it was made by another program.")
    names = TableSettings.__dataclass_fields__
    kept = {name: value for name, value in commit["settings"].items() if name in names}
    given = read_settings(TableSettings, kept, where=f"the commit of version {commit['version']}")
    return FormSettings(**given.to_record(), rows=RowForm.from_json(json.dumps(commit["form"])))
