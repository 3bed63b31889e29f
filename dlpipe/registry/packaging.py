"""A model's files in the form that MLflow opens."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlpipe.registry.names import TASK
from dlpipe.registry.wheel import WHEELS, list_wheel_requirements, write_wheel
from dlpipe.task import Row, Task, find_distribution, find_task
from dlpipe.task.example import write_example

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

LOADER = "dlpipe.inference.pyfunc"
"""The module whose ``_load_pyfunc`` opens a model of any task."""

BASE_PACKAGES = ("mlflow", "numpy", "pandas", "safetensors", "torch")
"""What loading a model and predicting needs, whatever its task."""


class Loggable(Protocol):
    """What can be registered: files with a card and a digest."""

    @property
    def card(self) -> Mapping[str, Any]:
        """The card of the trained model: its task and the names of its outputs among it."""

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
        The columns that ``predict`` returns; by default those of the task. ``double[]`` is a list of doubles.
    params : mapping of name to default, optional
        What ``predict`` takes as ``params``.
    packages : sequence of str
        What is pinned in the model's requirements beside what every model of the task needs.
    """

    loader: str = LOADER
    outputs: Sequence[tuple[str, str]] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    packages: Sequence[str] = ()


def write_pyfunc(
    files: Loggable, folder: Path, *, example: Sequence[Row], logged: LoggedModel, packaging: Packaging
) -> None:
    """Write ``files`` into ``folder`` in the form that ``mlflow.pyfunc.load_model`` reads.

    Parameters
    ----------
    files : Loggable
    folder : Path
        Must not exist.
    example : sequence of rows
        As the inputs of the task read them.
    logged : LoggedModel
        Whose files they are: MLmodel names it.
    packaging : Packaging
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    task = find_task(files.card["task"])
    entry = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        run_id=logged.source_run_id,
        metadata={TASK: task.name},
    )
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        data = files.save(Path(scratch) / "files")
        if packaging.loader == LOADER:
            write_example(data, example)
        mlflow.pyfunc.save_model(
            folder,
            loader_module=packaging.loader,
            data_path=data,
            mlflow_model=entry,
            signature=make_signature(
                packaging.outputs or task.target.list_frame_fields(files.card), packaging.params
            ),
            input_example=task.inputs.make_example(example),
            # without them MLflow loads the model to see what it imports: 14 s instead of 0.1
            pip_requirements=[*list_requirements(task, packaging.packages), *list_wheel_requirements()],
        )
    write_wheel(folder / WHEELS)


def make_signature(outputs: Sequence[tuple[str, str]], params: Mapping[str, Any] | None = None) -> ModelSignature:
    """Return the signature of a model that returns the columns ``outputs`` (name and MLflow type).

    It names no inputs: with them MLflow would cut a table to its first column, make the word "None" of a null in
    JSON and one text of a dictionary's list, before the model sees them.
    """
    from mlflow.models import ModelSignature
    from mlflow.models.utils import _infer_param_schema
    from mlflow.types.schema import ColSpec, Schema

    return ModelSignature(
        None,
        Schema([ColSpec(to_mlflow_type(kind), name) for name, kind in outputs]),
        _infer_param_schema(dict(params)) if params else None,
    )


def to_mlflow_type(kind: str) -> Any:
    """Return the MLflow type that ``kind`` names; ``string[]`` is a list of strings."""
    from mlflow.types.schema import Array, DataType

    inner = kind.removesuffix("[]")
    return kind if inner == kind else Array(DataType[inner])


def list_requirements(task: Task, more: Sequence[str] = ()) -> list[str]:
    """Return what a model of ``task`` needs as pins of the installed versions, without suffixes like ``+cpu``.

    Where another distribution than dlpipe brings the task, it is one of them.

    Examples
    --------
    >>> [line.partition("==")[0] for line in list_requirements(find_task("text-classification"), ["ftfy"])]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['mlflow', 'numpy', 'onnxruntime', 'pandas', 'safetensors', 'tokenizers', 'torch', 'transformers', 'ftfy']
    """
    from importlib import metadata

    brought_by = find_distribution(task.name)
    packages = [*sorted({*BASE_PACKAGES, *task.inputs.packages}), *more, *([brought_by] if brought_by else [])]
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in packages]
