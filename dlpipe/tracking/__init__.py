"""Where MLflow is, and its safe first touch.

``MLFLOW_TRACKING_URI`` decides, as everywhere in MLflow; without it the store is ``mlflow.db`` in the working
directory, with the artifacts in ``mlartifacts`` beside it, or where ``DLPIPE_ARTIFACTS`` says. Three things go
wrong with MLflow as it comes, and are put right here: a fresh SQLite database touched by several processes at
once is destroyed, a server that is down blocks each call for minutes, and experiments in a database get their
artifacts wherever the process that made them happened to stand.
"""

from __future__ import annotations

from dlpipe.tracking._databases import database_store, find_sqlite_path, touch_database
from dlpipe.tracking._errors import to_dlpipe_error, tracking_errors
from dlpipe.tracking._locks import hold_lock
from dlpipe.tracking._opening import open_store
from dlpipe.tracking._pages import FLOW, find_page
from dlpipe.tracking._registry_tables import ModelRow, RegistryTables, VersionRow, open_registry_tables
from dlpipe.tracking._servers import check_answers
from dlpipe.tracking._store import TrackingStore

__all__ = [
    "FLOW",
    "ModelRow",
    "RegistryTables",
    "TrackingStore",
    "VersionRow",
    "check_answers",
    "database_store",
    "find_page",
    "find_sqlite_path",
    "hold_lock",
    "open_registry_tables",
    "open_store",
    "to_dlpipe_error",
    "touch_database",
    "tracking_errors",
]
