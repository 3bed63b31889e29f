"""Rows that a registered model is known by: what it answered when it was registered, and whether it still does."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import ModelDamaged
from dlpipe.task.entry_points import find_task
from dlpipe.task.opening import open_predictor
from dlpipe.task.predictor import Row

if TYPE_CHECKING:
    from dlpipe.task.predictor import Predictor

LOGGER = logging.getLogger(__name__)
EXAMPLE = "example.json"
SAME_ENGINE, OTHER_ENGINE = 0.01, 0.05
"""What an output may differ by, in the unit of outputs: CPUs round in their own ways, engines still more."""


def write_example(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``example.json`` into the folder of a model: rows, the engine that is chosen, and its outputs.

    A model that cannot be opened on this machine has none, and a warning says so.

    Parameters
    ----------
    folder : Path
        With all files of the model, its engines among them.
    rows : sequence of rows
        As the inputs of the task read them.
    """
    try:
        predictor = open_predictor(folder)
    except Exception as error:
        LOGGER.warning("the model is registered without what it answers: it cannot be opened here: %s", error)
        return
    inputs = find_task(predictor.card["task"]).inputs
    # by way of what a client sends: the check reads it again, and a row must not change on the way
    records = json.loads(inputs.make_example(rows).to_json(orient="records"))
    outputs = predictor.predict_outputs(inputs.read_request(records, predictor.card))
    made = {"engine": predictor.engine, "rows": records, "outputs": outputs.tolist()}
    (folder / EXAMPLE).write_text(json.dumps(made, indent=1))


def check_example(folder: Path, predictor: Predictor) -> bool:
    """Return whether ``folder`` has an example; raise where ``predictor`` answers it unlike before.

    Raises
    ------
    ModelDamaged
        When an output differs by more than 0.01 of the unit of outputs, or 0.05 with another engine.
    """
    if not (folder / EXAMPLE).is_file():
        return False
    there: dict[str, Any] = json.loads((folder / EXAMPLE).read_text())
    task = find_task(predictor.card["task"])
    outputs = predictor.predict_outputs(task.inputs.read_request(there["rows"], predictor.card))
    registered = np.array(there["outputs"], np.float32)
    scale = task.target.get_output_scale(predictor.card)
    bound = scale * (SAME_ENGINE if predictor.engine == there["engine"] else OTHER_ENGINE)
    if outputs.shape == registered.shape and np.allclose(outputs, registered, rtol=0, atol=bound):
        return True
    by = float(np.abs(outputs - registered).max()) if outputs.shape == registered.shape else None
    how = "has other outputs" if by is None else f"differs by {by:.3g}, and {bound:.3g} is allowed"
    raise ModelDamaged(
        f"The model answers its registered example otherwise than at registration ({predictor.engine}): it {how}. "
        "Its files are not those that were registered; register it again."
    )


def read_example(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the example in ``folder`` as records; none where there is no example."""
    if not (folder / EXAMPLE).is_file():
        return []
    rows: list[dict[str, Any]] = json.loads((folder / EXAMPLE).read_text())["rows"]
    return rows
