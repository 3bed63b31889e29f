"""Real MLflow stores for tests: made once, copied for each test (making one takes a second or more)."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlpipe.task import Evaluation
from dlpipe.tracking import TrackingStore, open_store, touch_database

if TYPE_CHECKING:
    import pytest
    from mlflow.entities import Run


def plain_name(run: Run) -> str:
    """Return what tests call a run: the id of a Metaflow run, a task's name without the number of its step."""
    key = str(run.data.tags.get("metaflow.key", ""))
    return key.partition("/")[2] if key.count("/") == 1 else re.sub(r"^\d+ ", "", str(run.info.run_name))


@functools.cache
def template() -> Path:
    """Return an empty, complete MLflow database."""
    folder = tempfile.mkdtemp(prefix="dlpipe-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = Path(folder) / "mlflow.db"
    touch_database(database, str(database.parent / "mlartifacts"))
    return database


def copy_database(folder: Path, name: str = "mlflow.db") -> Path:
    """Put an empty, complete MLflow database into ``folder``, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(template(), folder / name)
    return folder


def new_store(folder: Path) -> TrackingStore:
    """Return a store of its own in ``folder`` and make it the one that the environment names."""
    copy_database(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / 'mlflow.db'}"
    return open_store()


def make_scores(**metrics: float) -> dict[str, Evaluation]:
    """Return the scores of a model on 100 test rows, with intervals of four points."""
    intervals = {name: (value - 0.02, value + 0.02) for name, value in metrics.items()}
    return {"test": Evaluation(metrics, intervals, (), 100, (), next(iter(metrics)))}


@contextmanager
def untouched_environment() -> Iterator[None]:
    """Give the variables and MLflow's global tracking URI back as they were."""
    from mlflow.tracking._tracking_service import utils

    environ, uri = dict(os.environ), utils._tracking_uri
    for name in ("MLFLOW_RUN_ID", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environ)
        utils._tracking_uri = uri


def kill_before_call(number: int, owner: Any, names: Iterable[str]) -> None:
    """Have this process kill itself before its call ``number`` of the functions ``names`` of ``owner``."""
    left = number

    def count(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in names:
        setattr(owner, name, count(getattr(owner, name)))


def keep_runs_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Have Metaflow look for runs in a folder; where it has looked once, it looks to the end of its process."""
    from metaflow.plugins.datastores.local_storage import LocalStorage

    patch.setattr(LocalStorage, "datastore_root", str(folder / ".metaflow"))
