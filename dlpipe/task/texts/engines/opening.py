"""The network of a model on the engine that was asked for, or on the best that works here."""

from __future__ import annotations

import logging
from pathlib import Path

from dlpipe.errors import EngineUnavailable
from dlpipe.machine import count_usable_cores, has_gpu, keep_freed_memory, use_machine
from dlpipe.task.texts.engines.kinds import EXACTLY, GRAPH_FILES, ONNX, TORCH, check_engine, missing_instructions
from dlpipe.task.texts.engines.networks import Network, OnnxNetwork, TorchNetwork
from dlpipe.task.texts.engines.stored import engines_in, stored_graph
from dlpipe.task.texts.model import TextModel

LOGGER = logging.getLogger(__name__)


def open_network(
    model: TextModel, folder: Path | None, *, threads: int | None, device: str | None, engine: str | None
) -> tuple[str, Network]:
    """Return the name of an engine and the network on it; see ``open_predictor``."""
    if engine not in (None, EXACTLY):
        return engine, network_on(check_engine(engine), model, folder, threads=threads, device=device)
    for name in engines_to_try(folder, device, exactly=engine == EXACTLY):
        try:
            return name, network_on(name, model, folder, threads=threads, device=device)
        except EngineUnavailable as error:
            LOGGER.warning("engine %s is not used: %s", name, error)
    return TORCH, network_on(TORCH, model, folder, threads=threads, device=device)


def engines_to_try(folder: Path | None, device: str | None, *, exactly: bool) -> list[str]:
    """Return the chosen engine (unless it has to be an exact one) and the exact ONNX one; nothing for torch."""
    try:
        engines = engines_in(folder)
    except EngineUnavailable as error:
        LOGGER.warning("torch is used: %s", error)
        return []
    if engines is None or engines.chosen == TORCH or device not in (None, "cpu") or has_gpu():
        return []
    exact = [ONNX] if GRAPH_FILES[ONNX] in engines.graphs else []
    chosen = [] if exactly or engines.chosen in exact else [engines.chosen]
    return [*chosen, *exact]


def network_on(
    engine: str, model: TextModel, folder: Path | None, *, threads: int | None, device: str | None
) -> Network:
    """Return the network on ``engine``.

    Raises
    ------
    EngineUnavailable
        When it cannot be used here.
    """
    if why := missing_instructions(engine):
        raise EngineUnavailable(f"The engine {engine!r} is not for this machine: {why}.")
    if engine not in GRAPH_FILES:
        use_machine(threads)
        return TorchNetwork(model, device=device, engine=engine)
    if device not in (None, "cpu"):
        raise EngineUnavailable(f"The engine {engine!r} runs on the CPU, not on {device!r}. Use engine='torch'.")
    keep_freed_memory()
    return opened_graph(stored_graph(folder, engine, weights=model.digest), threads or count_usable_cores())


def opened_graph(graph: bytes, threads: int) -> OnnxNetwork:
    """Return the network of ``graph``; ``EngineUnavailable`` when this ONNX Runtime cannot run it."""
    try:
        return OnnxNetwork(graph, threads=threads)
    except Exception as error:  # ONNX Runtime has a class for each status, and most are not exported
        said = str(error).partition("\n")[0]
        raise EngineUnavailable(f"ONNX Runtime cannot open the graph: {said}") from None
