"""Load a registered model by its URI."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dlpipe.errors import ModelNotFound
from dlpipe.registry import LOADER, ModelVersion, resolve
from dlpipe.tracking import TrackingStore, open_store, tracking_errors

if TYPE_CHECKING:
    from dlpipe.task import Predictor


def load_predictor(uri: str) -> Predictor:
    """Return the predictor of the registered model that ``uri`` names, such as ``models:/reviews@champion``.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias, or it is not a model of dlpipe.
    """
    from dlpipe.task import open_predictor

    version = resolve(uri)
    store = open_store()
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(store, version, scratch=Path(scratch))
        return open_predictor(folder)


def model_folder(store: TrackingStore, version: ModelVersion, *, scratch: Path) -> Path:
    """Return the folder with the weights of ``version``: where it is, or downloaded into ``scratch``."""
    import mlflow.artifacts
    from mlflow.models import Model

    with tracking_errors(store):
        place = store.client().get_model_version_download_uri(version.name, str(version.version))
        # a local folder is used where it stands: no copy of the weights
        target = None if urlsplit(place).scheme in ("", "file") else str(scratch)
        root = Path(mlflow.artifacts.download_artifacts(place, dst_path=target, tracking_uri=store.uri))
        flavor = Model.load(str(root)).flavors.get("python_function", {})
    if flavor.get("loader_module") != LOADER:
        raise ModelNotFound(f"{version.uri} is not a dlpipe model; its loader is {flavor.get('loader_module')!r}.")
    return root / str(flavor["data"])
