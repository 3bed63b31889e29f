"""Owen values of the parts of a row: the recursion of ``shap.PartitionExplainer``, as a generator.

An Owen value is a Shapley value in which parts act in groups (Owen, "Values of Games with a Priori Unions", 1977):
the tree of neighbouring parts says which. A row of n parts needs about n * (n - 1) outputs of the model, Shapley
values 2 to the power of n.

shap runs a row from start to end. A generator can stop at each of its requests, so that the requests of many rows
are answered in one batch. Priorities, ties and cuts are shap's, step by step; the tests hold the values against
shap's own.
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
    tree : PartTree
        The groups; of a text, neighbouring words.
    keep : callable
        Returns the row with some of its parts; see ``RowParts.keep``.
    base, output : array of shape (n_outputs,)
        The outputs without any part and with all.
    max_evals : int
        Copies of the row that are scored at most; ``base`` and ``output`` count as two of them. What a group has
        then is shared among its parts by their number.
    batch_rows : int
        The copies of a round. Which gains are split is chosen by what is known before it, so that another number
        gives other values where ``max_evals`` cuts them.
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
    """Take the largest gains from ``queue`` until they need ``rows`` copies; credit those of a single part.

    Parameters
    ----------
    queue : list of (order, tie, Gain)
        A heap, which loses what is taken.
    tree : PartTree
    values : array of shape (n_nodes, n_outputs)
        Gets what single parts add.
    rows : int
        A split needs two copies.
    """
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
    """Queue what each child adds, before and after the other child, the largest gain first.

    Parameters
    ----------
    queue : list of (order, tie, Gain)
        A heap, which gets four gains for each split.
    splits : sequence of Split
    answers : array of shape (2 * n_splits, n_outputs)
        The outputs with the left child shown, and with the right one, of each split in turn.
    random : numpy.random.RandomState
        Orders equal gains.
    """
    with_left, with_right = answers[0::2], answers[1::2]
    low = np.stack([split.gain.low for split in splits])
    high = np.stack([split.gain.high for split in splits])
    weights = np.array([split.gain.weight for split in splits]) / 2
    steps = np.stack([with_left - low, with_right - low, high - with_right, high - with_left], axis=1)
    order = -np.abs(steps).max(axis=2) * weights[:, None]
    ties = random.randn(len(splits), 4)  # drawn also where nothing ties: shap's stream has to stay in step
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
    """Return the values of the parts; what a group earned as a whole is shared by size on the way down.

    Nodes are numbered from the leaves up, so that counting down reaches each group before its children.
    """
    for node in range(len(tree.spans) - 1, tree.leaves - 1, -1):
        for child in tree.get_children(node) or ():
            values[child] += values[node] * tree.count_leaves(child) / tree.count_leaves(node)
    return values[: tree.leaves]
