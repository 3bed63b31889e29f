"""Write and read what the commits of a table record: sources, settings, and the form of rows.

A table has no file of settings beside it: what stands in the log is as atomic as the rows, and each version keeps
its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dlpipe.errors import SchemaMismatch
from dlpipe.settings import read_settings
from dlpipe.tables._form import TEXT_FORM, RowForm
from dlpipe.tables._settings import FormSettings, TableSettings
from dlpipe.tables._sources import Source
from dlpipe.tables._storage import show_path
from dlpipe.tables._versions import (
    TableVersion,
    find_restored,
    list_columns,
    read_commit_info,
    table_at,
    try_open,
)

INGESTED = "ingested"
"""What a commit calls the number of rows that come from the sources; those after them were appended."""
APPENDED = "appended"
"""What the commit of an append calls the number of rows that it adds."""
OF_FILES = ("separator", "encoding")
"""Settings that belong to the files of an ingest, and not to the table: later files may be written in another
way, and a wrong encoding reads without an error."""


def make_metadata(sources: Sequence[Source], settings: TableSettings) -> dict[str, str]:
    """Return what a commit of rows from sources remembers."""
    found = {
        "sources": write_sources(sources),
        "settings": json.dumps(settings.to_record(), sort_keys=True),
        "form": settings.form.to_json(),
    }
    return {**found, "task": settings.task} if settings.task else found


def write_sources(sources: Sequence[Source]) -> str:
    """Return what a commit remembers of sources."""
    return json.dumps([source.to_record() for source in sources])


def read_form(version: TableVersion) -> RowForm:
    """Return the form of the rows of a table version, as the ingest or append that made them recorded it.

    A table of another program, with the columns ``text`` and ``label``, has one text and one class a row.

    Raises
    ------
    SchemaMismatch
        When nobody says the form, and these columns are missing.
    UnsupportedFeature
        When a newer dlpipe wrote it.
    """
    there = dict(version.columns)
    for info in _walk_commits(version):
        if written := info.get("dlpipe.form"):
            form = RowForm.from_json(written, where=f"The form of {str(version)!r}")
            if set(form.columns) <= set(there):
                return form
        if _is_overwrite(info):  # what the commits before it recorded was of other rows
            break
    if not {"text", "label"} <= set(there):
        raise SchemaMismatch(
            f"{str(version)!r} does not say what its rows are: no ingest made it, and it has no columns 'text' "
            f"and 'label'. Ingest it into another table: --data {show_path(version.path)} --table NAME."
        )
    return TEXT_FORM


def is_form_lost(version: TableVersion) -> bool:
    """Return whether the log no longer has the commit that would say what the rows of a version are."""
    for info in _walk_commits(version):
        if "dlpipe.form" in info or _is_overwrite(info):
            return False
        if not info.keys() - {"version"}:
            return True
    return False


def read_last_settings(location: str) -> FormSettings:
    """Return the settings with which rows came into the table last; the defaults where nobody says.

    Raises
    ------
    TableNotFound
        When there is no table.
    SchemaMismatch
        When nobody says what its rows are.
    """
    latest = table_at(location)
    form = read_form(latest)
    for info in _walk_commits(latest):
        # an append by itself may have had other settings, for its files alone
        if (written := info.get("dlpipe.settings")) and (info["version"] == 0 or not _is_append(info)):
            # a flow's settings of its data have more fields
            names = set(TableSettings.__dataclass_fields__) - set(OF_FILES)
            kept = {name: json.loads(written).get(name) for name in names}
            given = read_settings(TableSettings, kept, where=f"the last ingest of {show_path(location)}")
            last = RowForm.from_json(info["dlpipe.form"]) if "dlpipe.form" in info else form
            rows = last.forget_settings()
            return FormSettings(**given.to_record(), rows=rows, task_name=info.get("dlpipe.task", ""))
    return FormSettings(rows=form.forget_settings())


def check_columns(version: TableVersion, form: RowForm) -> None:
    """Raise ``SchemaMismatch`` where a column that an ingest would write is missing or holds something else."""
    there = dict(version.columns)
    for name, kind in list_columns(form.schema()):
        if there.get(name) != kind:
            what = f"holds values of type {there[name]}" if name in there else "is missing"
            raise SchemaMismatch(
                f"{str(version)!r} is no table of an ingest: its column {name!r} {what}. Ingest it into another "
                f"table: --data {show_path(version.path)} --table NAME."
            )


def check_same_form(location: str, form: RowForm) -> None:
    """Raise ``SchemaMismatch`` where a table is there whose rows are something else than ``form`` says."""
    if try_open(location) is None:
        return
    version = table_at(location)
    there = read_form(version)
    if not there.has_same_rows(form):
        raise SchemaMismatch(
            f"The rows of {str(version)!r} are others: {describe_rows(there)}; those to add have "
            f"{describe_rows(form)}. Name another table, or ingest this one anew."
        )


def describe_rows(form: RowForm) -> str:
    """Return the columns of a form with their kinds.

    Examples
    --------
    >>> describe_rows(TEXT_FORM)
    'text (text) and label (class)'
    """
    inputs = ", ".join(f"{column.name} ({column.kind})" for column in form.inputs)
    return f"{inputs} and label ({form.label.kind})"


def _walk_commits(version: TableVersion) -> Iterator[dict[str, Any]]:
    """Yield what each commit records, from this version down; what a restore took back is passed over."""
    number = version.version
    while number >= 0:
        info = read_commit_info(version.path, number)
        yield {**info, "version": number}
        restored = find_restored(version.path, number, info)
        number = number - 1 if restored is None else restored


def _is_append(info: Mapping[str, Any]) -> bool:
    """Return whether a commit added rows; one that filled in labels wrote all of them anew."""
    return f"dlpipe.{APPENDED}" in info or info.get("operationParameters", {}).get("mode") == "Append"


def _is_overwrite(info: Mapping[str, Any]) -> bool:
    return str(info.get("operationParameters", {}).get("mode")) == "Overwrite"
