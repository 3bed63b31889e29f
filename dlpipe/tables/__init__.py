"""Delta tables: ingest, versions, history, time travel, splits, streaming batches (delta-rs, no Spark)."""

from dlpipe.tables._append import Append, append
from dlpipe.tables._append_plan import to_row_id
from dlpipe.tables._changes import LoggedCommit, has_commit, list_commits, list_files, read_commit, read_groups
from dlpipe.tables._commit import Mark, retry_on_latest
from dlpipe.tables._days import append_by_day, find_first_kept_day, list_days, prepare_appends, tidy_days
from dlpipe.tables._deletion import (
    check_deletable,
    delete_folder,
    delete_table,
    find_deleted,
    locate_features,
)
from dlpipe.tables._forgotten import (
    FORGOTTEN,
    Forgetting,
    ForgottenRows,
    begin_forgetting,
    end_forgetting,
    lift_forgetting,
    read_forgotten,
)
from dlpipe.tables._form import TEXT_FORM, Column, Label, RowForm, join_words, to_column_name
from dlpipe.tables._ingest import Ingest, check_all_rows, check_settings, check_sources, describe_table, ingest
from dlpipe.tables._inputs import check_inputs, check_text, decode_texts
from dlpipe.tables._listing import list_tables
from dlpipe.tables._lookup import FoundRow, find_rows
from dlpipe.tables._metadata import read_form, read_last_settings
from dlpipe.tables._mirror import has_files, mirror_version
from dlpipe.tables._origins import (
    RowOrigin,
    SourceLine,
    explain_missing_line,
    find_row_origin,
    find_source_again,
    read_source_lines,
)
from dlpipe.tables._parts import PART_ROWS, TablePart, list_parts, read_part
from dlpipe.tables._preview import Preview, preview
from dlpipe.tables._quarantine import name_bad_inputs
from dlpipe.tables._read import check_split, open_files, read_added, read_table, read_table_schema, stream_table
from dlpipe.tables._remaining import find_remaining, find_remaining_origin, read_remaining
from dlpipe.tables._removal import (
    Chooser,
    FileSearch,
    FoundFile,
    RemovedRows,
    count_removed_rows,
    count_rows_to_remove,
    explain_left,
    find_unreadable_versions,
    purge_rows,
    remove_rows,
)
from dlpipe.tables._row_files import FileRows, RowFile, SchemaFinder, make_batch, open_row_file
from dlpipe.tables._row_writers import (
    FORMATS,
    RowWriter,
    check_csv_records,
    check_row_file,
    to_plain,
    to_records,
    write_row_file,
)
from dlpipe.tables._rows import parse_label, read_record
from dlpipe.tables._settings import (
    SPLITS,
    FormSettings,
    Sources,
    TableSettings,
    parse_split,
    to_split_key,
)
from dlpipe.tables._staging import clear_staged, commit_parts, find_staged_parts, stage_part
from dlpipe.tables._statistics import TableStatistics, read_statistics
from dlpipe.tables._storage import explain_storage_errors, filesystem, locate, tables_root
from dlpipe.tables._summary import RowCounts, TableChange, count_rows, find_change
from dlpipe.tables._targets import check_target
from dlpipe.tables._text_files import decode_lines
from dlpipe.tables._values import is_number, normalise
from dlpipe.tables._versions import (
    TableVersion,
    find_commit,
    find_first_commit,
    history,
    read_mark,
    read_mark_at,
    read_table_id,
    table_at,
)
from dlpipe.tables._where import Condition, parse_condition
from dlpipe.tables._write import replace_rows, write_table

__all__ = [
    "FORGOTTEN",
    "FORMATS",
    "PART_ROWS",
    "SPLITS",
    "TEXT_FORM",
    "Append",
    "Chooser",
    "Column",
    "Condition",
    "FileRows",
    "FileSearch",
    "Forgetting",
    "ForgottenRows",
    "FormSettings",
    "FoundFile",
    "FoundRow",
    "Ingest",
    "Label",
    "LoggedCommit",
    "Mark",
    "Preview",
    "RemovedRows",
    "RowCounts",
    "RowFile",
    "RowForm",
    "RowOrigin",
    "RowWriter",
    "SchemaFinder",
    "SourceLine",
    "Sources",
    "TableChange",
    "TablePart",
    "TableSettings",
    "TableStatistics",
    "TableVersion",
    "append",
    "append_by_day",
    "begin_forgetting",
    "check_all_rows",
    "check_csv_records",
    "check_deletable",
    "check_inputs",
    "check_row_file",
    "check_settings",
    "check_sources",
    "check_split",
    "check_target",
    "check_text",
    "clear_staged",
    "commit_parts",
    "count_removed_rows",
    "count_rows",
    "count_rows_to_remove",
    "decode_lines",
    "decode_texts",
    "delete_folder",
    "delete_table",
    "describe_table",
    "end_forgetting",
    "explain_left",
    "explain_missing_line",
    "explain_storage_errors",
    "filesystem",
    "find_change",
    "find_commit",
    "find_deleted",
    "find_first_commit",
    "find_first_kept_day",
    "find_remaining",
    "find_remaining_origin",
    "find_row_origin",
    "find_rows",
    "find_source_again",
    "find_staged_parts",
    "find_unreadable_versions",
    "has_commit",
    "has_files",
    "history",
    "ingest",
    "is_number",
    "join_words",
    "lift_forgetting",
    "list_commits",
    "list_days",
    "list_files",
    "list_parts",
    "list_tables",
    "locate",
    "locate_features",
    "make_batch",
    "mirror_version",
    "name_bad_inputs",
    "normalise",
    "open_files",
    "open_row_file",
    "parse_condition",
    "parse_label",
    "parse_split",
    "prepare_appends",
    "preview",
    "purge_rows",
    "read_added",
    "read_commit",
    "read_forgotten",
    "read_form",
    "read_groups",
    "read_last_settings",
    "read_mark",
    "read_mark_at",
    "read_part",
    "read_record",
    "read_remaining",
    "read_source_lines",
    "read_statistics",
    "read_table",
    "read_table_id",
    "read_table_schema",
    "remove_rows",
    "replace_rows",
    "retry_on_latest",
    "stage_part",
    "stream_table",
    "table_at",
    "tables_root",
    "tidy_days",
    "to_column_name",
    "to_plain",
    "to_records",
    "to_row_id",
    "to_split_key",
    "write_row_file",
    "write_table",
]
