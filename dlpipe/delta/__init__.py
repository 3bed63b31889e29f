"""What Delta's protocol asks of readers and writers, and the files of a table, read as it asks."""

from dlpipe.delta._files import RowFilter, TableFiles, find_files, open_storage
from dlpipe.delta._protocol import (
    check_readable,
    check_writable,
    find_mapping_mode,
    find_missing_features,
    make_not_read_error,
)
from dlpipe.delta._views import cast_views

__all__ = [
    "RowFilter",
    "TableFiles",
    "cast_views",
    "check_readable",
    "check_writable",
    "find_files",
    "find_mapping_mode",
    "find_missing_features",
    "make_not_read_error",
    "open_storage",
]
