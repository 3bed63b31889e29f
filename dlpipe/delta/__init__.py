"""What Delta's protocol asks of readers and writers, and the files of a table, read as it asks."""

from dlpipe.delta._files import TableFiles, files_of, storage_of
from dlpipe.delta._protocol import check_readable, check_writable, missing_features, not_read

__all__ = [
    "TableFiles",
    "check_readable",
    "check_writable",
    "files_of",
    "missing_features",
    "not_read",
    "storage_of",
]
