"""How far a model that was made again is from the registered one: weights, outputs, scores."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlpipe.errors import DlpipeError
from dlpipe.evaluation import evaluate_model
from dlpipe.evaluation.on_table import read_split
from dlpipe.inference import download_model
from dlpipe.registry import read_scores
from dlpipe.reproducing.origin import Origin
from dlpipe.scratch import open_scratch
from dlpipe.tables import TableVersion, has_files
from dlpipe.task import Evaluation, Predictor, find_task, open_predictor
from dlpipe.task.model import WEIGHTS
from dlpipe.tracking import open_store


@dataclass(frozen=True)
class Apart:
    """A registered model and the one made again, on test rows.

    Attributes
    ----------
    then, now : Evaluation
        ``then`` as it was registered; ``None`` where neither that nor the registered model is there any more.
    measured : TableVersion
        Whose test rows they are.
    weight : float
        The largest difference of a weight; NaN where the weights cannot be laid beside each other.
    norm : float
        The norm of the difference of all weights, as a share of the norm of the registered ones; NaN likewise.
    output : float
        The largest difference of an output on a test row; NaN where the outputs are others.
    agreement : float
        The share of test rows that both decide alike; NaN likewise.
    """

    then: Evaluation | None
    now: Evaluation
    measured: TableVersion
    weight: float = math.nan
    norm: float = math.nan
    output: float = math.nan
    agreement: float = math.nan


def compare_models(origin: Origin, folder: Path, *, rows: TableVersion) -> Apart:
    """Return how far the model in ``folder`` is from the registered one; of one without files, its scores.

    Parameters
    ----------
    origin : Origin
    folder : Path
        With the new model.
    rows : TableVersion
        What that learnt from; it has the test rows where files of the version of then were removed.
    """
    seed = int(origin.settings.get("seed", 0))
    fresh = open_predictor(folder, engine="torch")
    measured = origin.table if has_files(origin.table) else rows
    then, now = read_scores(origin.version.tags).get("test"), evaluate_model(fresh, measured, seed=seed)
    with open_scratch() as scratch:
        try:
            registered = download_model(open_store(), origin.version, scratch=scratch)
            former: Predictor = open_predictor(registered, engine="torch")
        except (DlpipeError, OSError):  # its files were removed
            return Apart(then, now, measured)
        weight, norm = compare_weights(registered / WEIGHTS, folder / WEIGHTS)
    then = then or evaluate_model(former, measured, seed=seed)
    if tuple(former.labels) != tuple(fresh.labels):
        return Apart(then, now, measured, weight, norm)
    texts = read_split(measured, "test", predictor=former).rows
    outputs = [predictor.predict_outputs(texts) for predictor in (former, fresh)]
    largest = float(np.abs(outputs[0] - outputs[1]).max(initial=0))
    agreement = find_task(origin.version.task).target.measure_agreement(outputs[0], outputs[1], former.card)
    return Apart(then, now, measured, weight, norm, largest, float(agreement))


def compare_weights(then: Path, now: Path) -> tuple[float, float]:
    """Return the largest difference of a weight, and the norm of all differences by that of the weights.

    NaN, both of them, where the files do not have the same weights by name and shape.

    Parameters
    ----------
    then, now : Path
        Files of safetensors.
    """
    from safetensors.numpy import load_file

    with suppress(TypeError, KeyError):  # a type of number that NumPy lacks
        before, after = load_file(then), load_file(now)
        if {name: array.shape for name, array in before.items()} == {
            name: array.shape for name, array in after.items()
        }:
            pairs = [(before[name].astype(np.float64), after[name].astype(np.float64)) for name in before]
            largest = max((float(np.abs(old - new).max(initial=0)) for old, new in pairs), default=0.0)
            squares = [(float(((old - new) ** 2).sum()), float((old**2).sum())) for old, new in pairs]
            apart, whole = (math.sqrt(sum(part)) for part in zip(*squares, strict=True))
            return largest, apart / whole if whole else math.nan
    return math.nan, math.nan
