"""A model's files in the form that MLflow opens."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlpipe.registry.wheel import WHEELS, wheel_lines, write_wheel

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

LOADER = "dlpipe.inference.pyfunc"
"""The module whose ``_load_pyfunc`` opens a classifier."""

# what loading and predicting needs, pinned in the model's requirements
INFERENCE_PACKAGES = (
    "mlflow",
    "numpy",
    "onnxruntime",
    "pandas",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)


class Loggable(Protocol):
    """What can be registered: files with a digest, and how MLflow opens them."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells apart."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what decides its answers."""

    def save(self, folder: Path) -> Path:
        """Write the files into ``folder`` (made if needed) and return it."""


@dataclass(frozen=True)
class Packaging:
    """How MLflow opens a model's files, and what goes in and out.

    Attributes
    ----------
    loader : str
        The module whose ``_load_pyfunc(path)`` opens them.
    outputs : sequence of (name, MLflow type)
        The columns that ``predict`` returns; by default those of a classifier. ``double[]`` is a list of doubles.
    params : mapping of name to default, optional
        What ``predict`` takes as ``params``.
    packages : sequence of str
        What is pinned in the model's requirements.
    """

    loader: str = LOADER
    outputs: Sequence[tuple[str, str]] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = INFERENCE_PACKAGES


def write_pyfunc(
    model: Loggable, folder: Path, *, example: Sequence[str], logged: LoggedModel, packaging: Packaging
) -> None:
    """Write ``model`` into ``folder`` in the form that ``mlflow.pyfunc.load_model`` reads."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model

    card = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=logged.source_run_id,
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        mlflow.pyfunc.save_model(
            folder,
            loader_module=packaging.loader,
            data_path=model.save(Path(scratch) / "files"),
            mlflow_model=card,
            signature=signature(packaging.outputs or classifier_outputs(model.labels), packaging.params),
            input_example=pd.DataFrame({"text": list(example)}),
            pip_requirements=[*requirements(packaging.packages), *wheel_lines()],
        )
    write_wheel(folder / WHEELS)


def signature(outputs: Sequence[tuple[str, str]], params: Mapping[str, Any] | None = None) -> ModelSignature:
    """Return the signature of a model with the columns ``outputs`` (name and MLflow type) out.

    It names no inputs: by those MLflow would cut a table to its first column, make the word "None" of a null in
    JSON and one text of a dictionary's list, before the model sees them.
    """
    from mlflow.models import ModelSignature
    from mlflow.models.utils import _infer_param_schema
    from mlflow.types.schema import ColSpec, Schema

    return ModelSignature(
        None,
        Schema([ColSpec(column_type(kind), name) for name, kind in outputs]),
        _infer_param_schema(dict(params)) if params else None,
    )


def column_type(kind: str) -> Any:
    """Return the MLflow type that ``kind`` names; ``string[]`` is a list of strings."""
    from mlflow.types.schema import Array, DataType

    inner = kind.removesuffix("[]")
    return kind if inner == kind else Array(DataType[inner])


def classifier_outputs(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Return the columns that a classifier's ``predict`` returns, each with its MLflow type.

    Examples
    --------
    >>> classifier_outputs(["bad", "good"])
    [('label', 'string'), ('probability', 'float'), ('p_bad', 'float'), ('p_good', 'float')]
    """
    return [("label", "string"), *((name, "float") for name in ("probability", *(f"p_{one}" for one in labels)))]


def requirements(packages: Sequence[str] = INFERENCE_PACKAGES) -> list[str]:
    """Return the installed versions of ``packages`` as exact pins, without local suffixes such as ``+cpu``.

    Examples
    --------
    >>> [line.partition("==")[0] for line in requirements(["numpy"])]
    ['numpy']
    """
    from importlib import metadata

    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in packages]
