"""What a training reads: prepared once from a table version, then shared by trials and epochs without copying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.errors import BadRows
from dlpipe.task.backbones import find_backbone
from dlpipe.task.batches import Embedded, Encoded
from dlpipe.task.features import Reader
from dlpipe.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from dlpipe.tables import TableVersion


@dataclass(frozen=True)
class Examples:
    """What the network reads of the rows of a split, with the numbers of their classes (int64)."""

    inputs: Encoded | Embedded
    classes: np.ndarray


@dataclass(frozen=True)
class TrainingData:
    """The train and valid rows of a table version, as token ids, or as pooled states for a frozen backbone."""

    labels: tuple[str, ...]
    max_length: int
    train: Examples
    valid: Examples


def prepare(
    table: TableVersion, settings: TrainingSettings, *, say: Callable[[str], None] = lambda line: None
) -> TrainingData:
    """Return what a training with ``settings`` reads of ``table``, from what is kept beside it where it is.

    Of the settings, ``backbone``, ``max_length`` and whether the strategy is ``freeze`` count (``data_settings``).

    Raises
    ------
    BadRows
        When there are no rows to train on, or none to choose the best epoch by.
    BackboneNotFound
        When the backbone is not available offline.
    """
    from dlpipe.tables import read_table

    splits = {name: read_table(table, split=name, columns=["label"])["label"] for name in ("train", "valid")}
    for name, rows in splits.items():
        if not len(rows):
            raise BadRows(f"{table} has no rows in its {name!r} split; ingest more rows or raise its share.")
    labels = tuple(sorted(splits["train"].unique().to_pylist()))
    backbone = find_backbone(settings.backbone, allow_download=settings.allow_download)
    length = min(settings.max_length, backbone.limits[0] or settings.max_length)
    reader = Reader(table, backbone, length, settings.threads, say)
    read = reader.embeddings if settings.strategy == "freeze" else reader.token_ids
    train, valid = (Examples(read(name), _classes(splits[name], labels)) for name in ("train", "valid"))
    return TrainingData(labels, reader.max_length, train, valid)


def data_settings(settings: TrainingSettings) -> tuple[Any, ...]:
    """Return the settings that decide what a training reads: those with the same ones can share it."""
    return settings.backbone, settings.max_length, settings.strategy == "freeze"


def _classes(rows: pa.ChunkedArray, labels: tuple[str, ...]) -> np.ndarray:
    return np.array([labels.index(label) for label in rows.to_pylist()], dtype=np.int64)
