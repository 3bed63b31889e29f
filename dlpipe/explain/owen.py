"""Owen values of the parts of a row, asked for in rounds: the recursion of ``shap.PartitionExplainer``.

shap runs one row from start to end. Written as a generator, the same recursion can stop at each of its requests,
so that the requests of many rows are answered together. Priorities, ties and cuts are shap's, step by step; the
tests hold the values against shap's own.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.task import Row
from dlpipe.task.row_parts import PartTree

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating[Any]]
    Mask = npt.NDArray[np.bool_]

OutputRequests = Generator[list[Row], "Floats", "Floats"]


@dataclass(frozen=True)
class Gain:
    """What the parts under ``node`` add to the ``shown`` ones: from ``low`` to ``high``, counted by ``weight``."""

    shown: Mask
    low: Floats
    high: Floats
    node: int
    weight: float


@dataclass(frozen=True)
class Split:
    """A gain to be split between the two children of its node, whose parts are shown in turn."""

    gain: Gain
    left: int
    right: int
    with_left: Mask
    with_right: Mask


Queue = list[tuple[float, float, Gain]]


def compute_owen_values(
    tree: PartTree,
    keep: Callable[[list[bool]], Row],
    base: Floats,
    output: Floats,
    *,
    max_evals: int,
    batch_rows: int,
    seed: int,
) -> OutputRequests:
    """Return, after some rounds, the attributions of shape (n_parts, n_outputs).

    Each round yields copies of the row with some parts left out, and is sent their outputs, shape (n_copies,
    n_outputs).

    Parameters
    ----------
    keep : callable
        Returns the row with some of its parts; see ``RowParts.keep``.
    base, output : array of shape (n_outputs,)
        The outputs without any part and with all.
    max_evals : int
        ``base`` and ``output`` count as two of them.
    batch_rows : int
        The copies of a round. Splits are chosen by what is known before it.
    seed : int
        Of the order among equal gains.
    """
    random = np.random.RandomState(seed)  # shap draws from NumPy's global state; this is the same stream
    values = np.zeros((len(tree.spans), len(base)))
    root = Gain(np.zeros(tree.leaves, dtype=bool), base, output, len(tree.spans) - 1, 1.0)
    queue: Queue = [(0.0, 0.0, root)]
    asked = 0
    while queue and asked < max_evals - 2:
        splits = take_splits(queue, tree, values, rows=min(batch_rows, max_evals - 2 - asked))
        if splits:
            masks = [mask for split in splits for mask in (split.with_left, split.with_right)]
            asked += len(masks)
            answers = yield [keep(mask.tolist()) for mask in masks]
            queue_gains(queue, splits, answers, random)
    for _, _, gain in queue:
        values[gain.node] += (gain.high - gain.low) * gain.weight
    return hand_down(tree, values)


def take_splits(queue: Queue, tree: PartTree, values: Floats, *, rows: int) -> list[Split]:
    """Take the largest gains from ``queue`` until they need ``rows`` copies; those of one part are credited."""
    splits: list[Split] = []
    while queue and 2 * len(splits) < rows:
        gain = heapq.heappop(queue)[2]
        below = tree.get_children(gain.node)
        if below is None:
            values[gain.node] += (gain.high - gain.low) * gain.weight
        else:
            left, right = below
            splits.append(Split(gain, *below, show_node(gain, tree, left), show_node(gain, tree, right)))
    return splits


def show_node(gain: Gain, tree: PartTree, node: int) -> Mask:
    """Return the shown parts of ``gain`` and those under ``node``."""
    mask = gain.shown.copy()
    mask[slice(*tree.spans[node])] = True
    return mask


def queue_gains(queue: Queue, splits: Sequence[Split], answers: Floats, random: np.random.RandomState) -> None:
    """Queue what each child adds, before and after the other one, the largest gain first."""
    with_left, with_right = answers[0::2], answers[1::2]
    low = np.stack([split.gain.low for split in splits])
    high = np.stack([split.gain.high for split in splits])
    weights = np.array([split.gain.weight for split in splits]) / 2
    steps = np.stack([with_left - low, with_right - low, high - with_right, high - with_left], axis=1)
    order = -np.abs(steps).max(axis=2) * weights[:, None]
    ties = random.randn(len(splits), 4)
    for at, split in enumerate(splits):
        before, weight = split.gain.shown, float(weights[at])
        gains = (
            Gain(before, low[at], with_left[at], split.left, weight),
            Gain(before, low[at], with_right[at], split.right, weight),
            Gain(split.with_right, with_right[at], high[at], split.left, weight),
            Gain(split.with_left, with_left[at], high[at], split.right, weight),
        )
        for entry in zip(order[at].tolist(), ties[at].tolist(), gains, strict=True):
            heapq.heappush(queue, entry)


def hand_down(tree: PartTree, values: Floats) -> Floats:
    """Return the values of the parts; what a group earned as a whole is shared by size on the way down."""
    for node in range(len(tree.spans) - 1, tree.leaves - 1, -1):
        for child in tree.get_children(node) or ():
            values[child] += values[node] * tree.count_leaves(child) / tree.count_leaves(node)
    return values[: tree.leaves]
