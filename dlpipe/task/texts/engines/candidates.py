"""The engines that can be made for a model on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dlpipe.errors import EngineUnavailable
from dlpipe.machine import use_machine
from dlpipe.task.texts.engines.graphs import onnx_graph
from dlpipe.task.texts.engines.int8 import int8_graph
from dlpipe.task.texts.engines.kinds import BF16, ENGINES, INT8, ONNX, TORCH, missing_instructions
from dlpipe.task.texts.engines.networks import Network, TorchNetwork
from dlpipe.task.texts.engines.opening import opened_graph
from dlpipe.task.texts.model import TextModel
from dlpipe.task.texts.tokens import Encoded

SAMPLE_ROWS = 32


@dataclass
class Candidates:
    """Engines that are ready, and why the others are not."""

    networks: dict[str, Network] = field(default_factory=dict)
    graphs: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def prepare(model: TextModel, encoded: Encoded, threads: int) -> Candidates:
    """Return every engine that can be made for ``model`` on this machine."""
    made = Candidates()
    samples = np.arange(min(SAMPLE_ROWS, len(encoded)))
    ways: dict[str, Callable[[], Network]] = {
        TORCH: lambda: on_torch(model, TORCH, threads),
        BF16: lambda: on_torch(model, BF16, threads),
        ONNX: lambda: opened_graph(made.graphs.setdefault(ONNX, onnx_graph(model)), threads),
        INT8: lambda: opened_graph(
            made.graphs.setdefault(INT8, int8_graph(exact_graph(made), [encoded.arrays(samples)])), threads
        ),
    }
    for engine in ENGINES:
        if why := missing_instructions(engine):
            made.refused[engine] = why
            continue
        try:
            network = ways[engine]()
            network.logits(encoded.arrays(samples[:2]))  # some fail only when they run
            made.networks[engine] = network
        except Exception as error:  # whatever a foreign encoder makes an exporter raise
            if engine == TORCH:
                raise
            made.refused[engine] = said_failure(error)
    return made


def on_torch(model: TextModel, engine: str, threads: int) -> Network:
    """Return the network in torch on the CPU."""
    use_machine(threads)
    return TorchNetwork(model, device="cpu", engine=engine)


def exact_graph(made: Candidates) -> bytes:
    """Return the graph with 32 bits that the one with eight is made from."""
    if ONNX not in made.networks:
        raise EngineUnavailable("it is made from the engine 'onnx'")
    return made.graphs[ONNX]


def said_failure(error: Exception) -> str:
    """Return why an engine could not be made, as one short line."""
    words = " ".join(str(error).split())
    return f"cannot be made or run: {type(error).__name__}: {words[:200]}"
