"""Delta tables: ingest, versions, history, time travel, splits, streaming batches (delta-rs, no Spark)."""

from dlpipe.tables._commit import check_target
from dlpipe.tables._ingest import Ingest, ingest
from dlpipe.tables._parts import PART_ROWS, TablePart, read_part, table_parts
from dlpipe.tables._read import read_table, stream_table
from dlpipe.tables._settings import SPLITS, Sources, TableSettings
from dlpipe.tables._staging import commit_parts, stage_part, staged_parts
from dlpipe.tables._storage import filesystem, locate, tables_root
from dlpipe.tables._versions import TableVersion, find_commit, history, table_at
from dlpipe.tables._write import write_table

__all__ = [
    "PART_ROWS",
    "SPLITS",
    "Ingest",
    "Sources",
    "TablePart",
    "TableSettings",
    "TableVersion",
    "check_target",
    "commit_parts",
    "filesystem",
    "find_commit",
    "history",
    "ingest",
    "locate",
    "read_part",
    "read_table",
    "stage_part",
    "staged_parts",
    "stream_table",
    "table_at",
    "table_parts",
    "tables_root",
    "write_table",
]
