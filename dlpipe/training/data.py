"""What a training reads: prepared once from a table version, then shared by epochs and trials without a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlpipe.errors import BadRows
from dlpipe.task import Coding, Task, TrainingSettings
from dlpipe.task.batches import EncodedRows

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion


@dataclass(frozen=True)
class Examples:
    """The rows of a split as the network reads them, with their labels as the loss takes them."""

    inputs: EncodedRows
    targets: np.ndarray


@dataclass(frozen=True)
class TrainingData:
    """The train and valid rows of a table version as a task encodes them."""

    coding: Coding
    train: Examples
    valid: Examples


def prepare_data(
    table: TableVersion,
    settings: TrainingSettings,
    *,
    task: Task,
    say: Callable[[str], None] = lambda line: None,
) -> TrainingData:
    """Return what a training with ``settings`` reads of ``table``; tokens and embeddings are reused if stored.

    Of the settings, those count that ``task.inputs.make_encoding_key`` returns.

    Parameters
    ----------
    table : TableVersion
    settings : TrainingSettings
    task : Task
        How rows and labels are encoded.
    say : callable, optional
        Gets progress as lines of text.

    Raises
    ------
    BadRows
        When there are no rows to train on, or none to choose the best epoch by.
    BackboneNotFound
        When the backbone is not available offline.
    """
    from dlpipe.tables import read_table

    names = ("train", "valid")
    labels = {name: read_table(table, split=name, columns=["label"])["label"].to_pylist() for name in names}
    for name, rows in labels.items():
        if not rows:
            raise BadRows(f"{table} has no rows in its {name!r} split; ingest more rows or raise its share.")
    # of the train split alone: a label that only the valid split has is none that the model can learn
    coding = task.target.learn_coding(labels["train"])
    encoded = task.inputs.encode_splits(table, names, settings, say=say)
    train, valid = (Examples(encoded[name], task.target.encode_labels(labels[name], coding)) for name in names)
    return TrainingData(coding, train, valid)
