"""Load a registered model by its URI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlpipe.errors import ModelNotFound
from dlpipe.registry import KIND, LOADER, MADE_FROM, ModelVersion, resolve
from dlpipe.scratch import open_scratch
from dlpipe.task.model import CARD, load_card
from dlpipe.tracking import TrackingStore, open_store, tracking_errors

if TYPE_CHECKING:
    from dlpipe.task import Predictor

MLMODEL = "MLmodel"
PIPELINE_LOADER = "dlpipe.inference.pipeline"
"""The module whose ``_load_pyfunc`` opens a pipeline."""


def load_predictor(uri: str, *, engine: str | None = None) -> Predictor:
    """Return the predictor of the registered model that ``uri`` names, such as ``models:/reviews@champion``.

    Parameters
    ----------
    engine : str, optional
        By default the one chosen at registration; see ``dlpipe.task.open_predictor``.

    Raises
    ------
    ModelNotFound
        When there is no such model, version or alias, or it is not a model of dlpipe.
    EngineUnavailable
        When ``engine`` cannot be used.
    """
    from dlpipe.task import open_predictor

    version = resolve(uri)
    store = open_store()
    # a predictor has read its files when it is returned: what was downloaded goes at the end of the block
    with open_scratch() as scratch:
        folder = download_model(store, version, scratch=scratch)
        return open_predictor(folder, engine=engine)


def is_pipeline(version: ModelVersion) -> bool:
    """Return whether ``version`` is a pipeline around a classifier."""
    return version.tags.get(KIND) == "pipeline"


def download_model(store: TrackingStore, version: ModelVersion, *, scratch: Path, loader: str = LOADER) -> Path:
    """Return the folder with the files of ``version``: where they are, or downloaded into ``scratch``.

    Parameters
    ----------
    store : TrackingStore
        Whose registry has the version.
    version : ModelVersion
    scratch : Path
        A folder that the caller removes; unused where the files are on this machine's disk.
    loader : str
        The module that opens such a model; by default that of predictors.

    Raises
    ------
    ModelNotFound
        When ``version`` is of another kind than ``loader`` opens.
    """
    with tracking_errors(store):
        root = _fetch(store, version, "", scratch)
        data = _find_data(root, version, loader)
    return root / data


def read_card(version: ModelVersion) -> dict[str, Any]:
    """Return the card of ``version``, such as which columns it reads, without fetching its weights.

    Raises
    ------
    ModelNotFound
        When ``version`` is no model of a task: a pipeline, say, or another program's.
    """
    store = open_store()
    with tracking_errors(store), open_scratch() as scratch:
        data = _find_data(_fetch(store, version, MLMODEL, scratch), version, LOADER)
        return load_card(_fetch(store, version, f"{data}/{CARD}", scratch).parent)


def _fetch(store: TrackingStore, version: ModelVersion, path: str, scratch: Path) -> Path:
    """Return a file of ``version``, or its folder: where it is, or downloaded into ``scratch``."""
    import mlflow.artifacts

    place = store.client().get_model_version_download_uri(version.name, str(version.version))
    # a local folder is used where it stands: no copy of the weights
    target = None if urlsplit(place).scheme in ("", "file") else str(scratch)
    asked = f"{place.rstrip('/')}/{path}" if path else place
    return Path(mlflow.artifacts.download_artifacts(asked, dst_path=target, tracking_uri=store.uri))


def _find_data(mlmodel: Path, version: ModelVersion, loader: str) -> str:
    """Return where in its folder the files of ``version`` are, as its MLmodel has it."""
    from mlflow.models import Model

    flavor = Model.load(str(mlmodel)).flavors.get("python_function", {})
    if (found := flavor.get("loader_module")) != loader:
        kind = "pipeline" if loader == PIPELINE_LOADER else "model"
        made_as, made_from = version.tags.get(KIND), version.tags.get(MADE_FROM)
        hint = f" It is of the kind {made_as!r}; its classifier is {made_from}." if made_from else ""
        raise ModelNotFound(f"{version.uri} is not a dlpipe {kind}; its loader is {found!r}.{hint}")
    return str(flavor["data"])
