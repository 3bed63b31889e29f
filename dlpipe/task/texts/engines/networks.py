"""Networks that are loaded and ready, one class an engine: a batch of token ids in, logits out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from dlpipe.machine import count_usable_cores
from dlpipe.task.batches import BATCH_TOKENS, sort_batches
from dlpipe.task.entry_points import find_task
from dlpipe.task.texts.engines.kinds import BF16, TORCH
from dlpipe.task.texts.model import TextModel
from dlpipe.task.texts.tokens import TokenIds

Activate = Callable[[np.ndarray], np.ndarray]


def make_activation(card: Mapping[str, Any]) -> Activate:
    """Return what makes outputs of logits for a model with this card, as the target of its task does."""
    target = find_task(card["task"]).target
    return functools.partial(target.activate, card=card)


class Network(Protocol):
    """What gives logits for batches.

    Attributes
    ----------
    workers : int
        How many batches it computes at a time, each in a thread of its own.
    tokens : int
        How many padded tokens a batch has at most.
    """

    @property
    def workers(self) -> int:
        """How many batches at a time."""

    @property
    def tokens(self) -> int:
        """How many padded tokens a batch has at most."""

    def compute_logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32 of shape (n, n_labels) for ``input_ids`` and ``attention_mask``, both (n, length)."""


class TorchNetwork:
    """The network in torch: a batch at a time on all threads.

    A batch has four times the tokens of one for ONNX Runtime: it is shared by the cores.
    """

    workers, tokens = 1, BATCH_TOKENS

    def __init__(self, model: TextModel, *, device: str | None = None, engine: str = TORCH) -> None:
        import torch

        from dlpipe.task.texts.network import restore_network

        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        network = restore_network(model)
        if self._device.type == "cpu":  # a GPU would wait for the number of tokens
            network.skip_padding()
        self._network = (network.bfloat16() if engine == BF16 else network).to(self._device)

    def compute_logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32 of shape (n, n_labels)."""
        import torch

        with torch.inference_mode():
            tensors = {name: torch.from_numpy(part).to(self._device) for name, part in batch.items()}
            found: np.ndarray = self._network(**tensors).float().cpu().numpy()
            return found


class OnnxNetwork:
    """An ONNX graph in ONNX Runtime: each batch on one core, as many batches at a time as there are threads.

    One core a batch has no steps in which the others wait, and its tensors stay in that core's cache: with batches
    of 4,096 tokens, int8 took 1.2 times as long on a core with 2 MB.
    """

    tokens = 1024

    def __init__(self, graph: bytes, *, threads: int) -> None:
        self._graph, self.workers = graph, threads
        self._session = open_onnx_session(graph)

    def compute_logits(self, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return float32 of shape (n, n_labels)."""
        found: np.ndarray = self._session.run(None, dict(batch))[0]
        return found

    def __reduce__(self) -> tuple[Callable[..., OnnxNetwork], tuple[bytes]]:
        return reopen_network, (self._graph,)


def reopen_network(graph: bytes) -> OnnxNetwork:
    """Return an ``OnnxNetwork`` again in another process, on its cores: a session cannot travel."""
    return OnnxNetwork(graph, threads=count_usable_cores())


def open_onnx_session(graph: bytes) -> Any:
    """Return ONNX Runtime's session for ``graph``, on the CPU, without threads of its own."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    # one thread: batches run beside each other, one on each core
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # plans memory by shape, and batches have hundreds of shapes
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def compute_outputs(
    network: Network,
    encoded: TokenIds,
    n_outputs: int,
    *,
    activate: Activate,
    done: Callable[[np.ndarray], None] | None = None,
) -> np.ndarray:
    """Return the outputs of each row: float32 of shape (len(encoded), n_outputs).

    Parameters
    ----------
    network : Network
    encoded : TokenIds
    n_outputs : int
    activate : callable
        Makes outputs of the network's logits, batch by batch; see ``make_activation``.
    done : callable, optional
        Called in this thread with the numbers of the texts of each batch when they are predicted.
    """
    result = np.empty((len(encoded.lengths), n_outputs), dtype=np.float32)

    def predict(rows: np.ndarray) -> np.ndarray:
        result[rows] = activate(network.compute_logits(encoded.pad_arrays(rows)))
        return rows

    batches = sort_batches(encoded.lengths, tokens=choose_batch_tokens(encoded.lengths, network))
    for rows in map_in_parallel(predict, batches, network.workers):
        if done is not None:
            done(rows)
    return result


def choose_batch_tokens(lengths: np.ndarray, network: Network) -> int:
    """Return the most tokens of a batch: no more than leave a batch for every worker."""
    return min(network.tokens, max(1, int(lengths.sum()) // network.workers))


def map_in_parallel(
    work: Callable[[np.ndarray], np.ndarray], items: Iterable[np.ndarray], workers: int
) -> Iterable[np.ndarray]:
    """Yield the results of ``work`` on ``items``, in their order, ``workers`` of them at a time."""
    from concurrent.futures import ThreadPoolExecutor

    waiting = list(items)
    if workers == 1 or len(waiting) < 2:
        yield from map(work, waiting)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="dlpipe-engine") as threads:
        yield from threads.map(work, waiting)
