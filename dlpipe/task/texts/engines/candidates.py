"""The engines that can be made for a model on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlpipe.errors import EngineUnavailable
from dlpipe.machine import use_machine
from dlpipe.task.texts.engines.graphs import export_onnx_graph
from dlpipe.task.texts.engines.int8 import quantize_graph
from dlpipe.task.texts.engines.kinds import BF16, ENGINES, INT8, ONNX, TORCH, explain_missing_instructions
from dlpipe.task.texts.engines.networks import Network, TorchNetwork
from dlpipe.task.texts.engines.opening import open_graph
from dlpipe.task.texts.model import TextModel
from dlpipe.task.texts.tokens import TokenIds

SAMPLE_ROWS = 32  # enough to show which channels peak


@dataclass
class Candidates:
    """Engines that are ready, and why the others are not.

    Attributes
    ----------
    networks : mapping of engine to Network
    graphs : mapping of engine to bytes
        The ONNX graphs.
    refused : mapping of engine to str
        Why it cannot be made here.
    """

    networks: dict[str, Network] = field(default_factory=dict)
    graphs: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def prepare_engines(model: TextModel, encoded: TokenIds, threads: int) -> Candidates:
    """Return every engine that can be made for ``model`` on this machine.

    Parameters
    ----------
    model : TextModel
    encoded : TokenIds
        Real texts: the first ones try each engine, and show which states peak.
    threads : int
    """
    made = Candidates()
    samples = np.arange(min(SAMPLE_ROWS, len(encoded)))
    # in this order: int8 is made from the graph of onnx
    ways: dict[str, Callable[[], Network]] = {
        TORCH: lambda: open_torch(model, TORCH, threads),
        BF16: lambda: open_torch(model, BF16, threads),
        ONNX: lambda: open_graph(made.graphs.setdefault(ONNX, export_onnx_graph(model)), threads),
        INT8: lambda: open_graph(
            made.graphs.setdefault(INT8, quantize_graph(get_exact_graph(made), [encoded.pad_arrays(samples)])),
            threads,
        ),
    }
    for engine in ENGINES:
        if why := explain_missing_instructions(engine):
            made.refused[engine] = why
            continue
        try:
            network = ways[engine]()
            network.compute_logits(encoded.pad_arrays(samples[:2]))  # some fail only when they run
            made.networks[engine] = network
        except Exception as error:  # whatever a foreign encoder makes an exporter raise
            if engine == TORCH:  # what the others are compared with
                raise
            made.refused[engine] = describe_failure(error)
    return made


def open_torch(model: TextModel, engine: str, threads: int) -> Network:
    """Return the network in torch on the CPU: engines are compared on what all of them run on."""
    use_machine(threads)
    return TorchNetwork(model, device="cpu", engine=engine)


def get_exact_graph(made: Candidates) -> bytes:
    """Return the graph with 32 bits that the one with eight is made from."""
    if ONNX not in made.networks:
        raise EngineUnavailable("it is made from the engine 'onnx'")
    return made.graphs[ONNX]


def describe_failure(error: Exception) -> str:
    """Return why an engine could not be made, as one short line."""
    words = " ".join(str(error).split())
    return f"cannot be made or run: {type(error).__name__}: {words[:200]}"
