"""Where MLflow is, and its safe first touch.

``MLFLOW_TRACKING_URI`` decides, as everywhere in MLflow; without it the store is ``mlflow.db`` in the working
directory, with the artifacts in ``mlartifacts`` beside it, or where ``DLPIPE_ARTIFACTS`` says. Three things go
wrong with MLflow as it comes, and are put right here: a fresh SQLite database touched by several processes at
once is destroyed, a server that is down blocks each call for minutes, and experiments in a database get their
artifacts wherever the process that made them happened to stand.
"""

from __future__ import annotations

from dlpipe.tracking._databases import database_store, sqlite_path, touch_database
from dlpipe.tracking._errors import clear_error, tracking_errors
from dlpipe.tracking._locks import held
from dlpipe.tracking._opening import open_store
from dlpipe.tracking._servers import check_answers
from dlpipe.tracking._store import TrackingStore

__all__ = [
    "TrackingStore",
    "check_answers",
    "clear_error",
    "database_store",
    "held",
    "open_store",
    "sqlite_path",
    "touch_database",
    "tracking_errors",
]
