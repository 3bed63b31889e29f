"""Models and their predictors, opened by the inputs of their task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlpipe.task.entry_points import find_task
from dlpipe.task.model import Model, load_card


def open_predictor(
    model: Model | Path | str,
    *,
    threads: int | None = None,
    device: str | None = None,
    engine: str | None = None,
) -> Any:
    """Return the ``Predictor`` of a model or the folder of one.

    Parameters
    ----------
    threads : int, optional
        Threads of this process; by default one for each core that this process may use.
    device : str, optional
        For torch, such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one.
    engine : str, optional
        By default the one chosen when the model was registered, or torch: where a model has none, on a GPU, and
        (with a line that says why) where the chosen one cannot be used here. ``"exact"`` asks for the fastest one
        with 32 bits, for work that adds outputs up.

    Raises
    ------
    ModelNotFound
        When the folder holds no model.
    EngineUnavailable
        When ``engine`` is given and cannot be used: unknown, not stored with the model, damaged, or this machine
        lacks what it needs.
    """
    folder = None if isinstance(model, Model) else Path(model)
    opened = model if isinstance(model, Model) else load_model(Path(model))
    inputs = find_task(opened.task).inputs
    return inputs.open_predictor(opened, folder, threads=threads, device=device, engine=engine)


def load_model(folder: Path) -> Any:
    """Return the model whose files are in ``folder``, as the inputs of its task load it.

    Raises
    ------
    ModelNotFound
        When the folder holds no model.
    """
    return find_task(load_card(folder)["task"]).inputs.load_model(folder)
