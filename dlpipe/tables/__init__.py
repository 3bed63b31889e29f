"""Delta tables: ingest, versions, history, time travel, splits, streaming batches (delta-rs, no Spark)."""

from dlpipe.tables._append import Appended, append
from dlpipe.tables._commit import Mark, check_target
from dlpipe.tables._form import TEXT_FORM, Column, Label, RowForm, column_name
from dlpipe.tables._ingest import Ingest, check_settings, check_sources, ingest, stored
from dlpipe.tables._inputs import check_inputs, check_text, decode_texts
from dlpipe.tables._metadata import form_of, last_settings
from dlpipe.tables._parts import PART_ROWS, TablePart, read_part, table_parts
from dlpipe.tables._preview import Preview, preview
from dlpipe.tables._read import check_split, read_added, read_table, stream_table
from dlpipe.tables._settings import SPLITS, FormSettings, Sources, TableSettings
from dlpipe.tables._staging import clear_staged, commit_parts, stage_part, staged_parts
from dlpipe.tables._storage import filesystem, locate, tables_root
from dlpipe.tables._text_files import decode_lines
from dlpipe.tables._versions import (
    TableVersion,
    find_commit,
    find_first_commit,
    history,
    read_mark,
    table_at,
    table_id,
)
from dlpipe.tables._write import put_rows, write_table

__all__ = [
    "PART_ROWS",
    "SPLITS",
    "TEXT_FORM",
    "Appended",
    "Column",
    "FormSettings",
    "Ingest",
    "Label",
    "Mark",
    "Preview",
    "RowForm",
    "Sources",
    "TablePart",
    "TableSettings",
    "TableVersion",
    "append",
    "check_inputs",
    "check_settings",
    "check_sources",
    "check_split",
    "check_target",
    "check_text",
    "clear_staged",
    "column_name",
    "commit_parts",
    "decode_lines",
    "decode_texts",
    "filesystem",
    "find_commit",
    "find_first_commit",
    "form_of",
    "history",
    "ingest",
    "last_settings",
    "locate",
    "preview",
    "put_rows",
    "read_added",
    "read_mark",
    "read_part",
    "read_table",
    "stage_part",
    "staged_parts",
    "stored",
    "stream_table",
    "table_at",
    "table_id",
    "table_parts",
    "tables_root",
    "write_table",
]
