"""What a training reads: prepared once from a table version, then shared by trials and epochs without copying."""

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
    """What the network reads of the rows of a split, with their labels as the loss takes them."""

    inputs: EncodedRows
    targets: np.ndarray


@dataclass(frozen=True)
class TrainingData:
    """The train and valid rows of a table version as a task encodes them."""

    coding: Coding
    train: Examples
    valid: Examples


def prepare(
    table: TableVersion,
    settings: TrainingSettings,
    *,
    task: Task,
    say: Callable[[str], None] = lambda line: None,
) -> TrainingData:
    """Return what a training with ``settings`` reads of ``table``, from what is kept beside it where it is.

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
    coding = task.target.learn_coding(labels["train"])
    encoded = task.inputs.encode_splits(table, names, settings, say=say)
    train, valid = (Examples(encoded[name], task.target.encode_labels(labels[name], coding)) for name in names)
    return TrainingData(coding, train, valid)
