"""The network of a model on the engine that was asked for, or on the best that works here."""

from __future__ import annotations

import logging
from pathlib import Path

from dlpipe.errors import EngineUnavailable
from dlpipe.machine import count_usable_cores, has_gpu, keep_freed_memory, use_machine
from dlpipe.task.texts.engines.kinds import (
    EXACTLY,
    GRAPH_FILES,
    ONNX,
    TORCH,
    check_engine,
    explain_missing_instructions,
)
from dlpipe.task.texts.engines.networks import Network, OnnxNetwork, TorchNetwork
from dlpipe.task.texts.engines.stored import read_engines, read_graph
from dlpipe.task.texts.model import TextModel

LOGGER = logging.getLogger(__name__)


def open_network(
    model: TextModel, folder: Path | None, *, threads: int | None, device: str | None, engine: str | None
) -> tuple[str, Network]:
    """Return the name of an engine and the network on it.

    Parameters
    ----------
    model : TextModel
    folder : Path, optional
        Where the model's engines are, if it has some.
    threads : int, optional
        By default one for each core that this process may use.
    device : str, optional
        By default a GPU where there is one.
    engine : str, optional
        One of ``ENGINES``, which is then used or refused; or ``"exact"``: the fastest with 32 bits. By default the
        one that was chosen at registration, or the next best that works here.

    Raises
    ------
    EngineUnavailable
        When an engine that was asked for by name cannot be used here.
    """
    if engine not in (None, EXACTLY):
        return engine, open_engine(check_engine(engine), model, folder, threads=threads, device=device)
    for name in list_engines_to_try(folder, device, exactly=engine == EXACTLY):
        try:
            return name, open_engine(name, model, folder, threads=threads, device=device)
        except EngineUnavailable as error:
            LOGGER.warning("engine %s is not used: %s", name, error)
    return TORCH, open_engine(TORCH, model, folder, threads=threads, device=device)


def list_engines_to_try(folder: Path | None, device: str | None, *, exactly: bool) -> list[str]:
    """Return the chosen engine (unless it has to be an exact one) and the exact ONNX one; nothing for torch.

    Parameters
    ----------
    folder : Path, optional
    device : str, optional
        The graphs are for CPUs: with a GPU, or a device that is asked for, torch is used.
    exactly : bool
        Whether only engines with 32 bits count.
    """
    try:
        engines = read_engines(folder)
    except EngineUnavailable as error:
        LOGGER.warning("torch is used: %s", error)
        return []
    if engines is None or engines.chosen == TORCH or device not in (None, "cpu") or has_gpu():
        return []
    # where the chosen one does not work (int8 on a CPU without its instructions), ONNX in 32 bits still does, and
    # is faster than torch
    exact = [ONNX] if GRAPH_FILES[ONNX] in engines.graphs else []
    chosen = [] if exactly or engines.chosen in exact else [engines.chosen]
    return [*chosen, *exact]


def open_engine(
    engine: str, model: TextModel, folder: Path | None, *, threads: int | None, device: str | None
) -> Network:
    """Return the network on ``engine``; see ``open_network`` for the parameters.

    Raises
    ------
    EngineUnavailable
        When it cannot be used here.
    """
    if why := explain_missing_instructions(engine):
        raise EngineUnavailable(f"The engine {engine!r} is not for this machine: {why}.")
    if engine not in GRAPH_FILES:
        use_machine(threads)
        return TorchNetwork(model, device=device, engine=engine)
    if device not in (None, "cpu"):
        raise EngineUnavailable(f"The engine {engine!r} runs on the CPU, not on {device!r}. Use engine='torch'.")
    keep_freed_memory()  # without torch, nobody else has asked for it
    return open_graph(read_graph(folder, engine, weights=model.digest), threads or count_usable_cores())


def open_graph(graph: bytes, threads: int) -> OnnxNetwork:
    """Return the network of ``graph``; ``EngineUnavailable`` when this ONNX Runtime cannot run it."""
    try:
        return OnnxNetwork(graph, threads=threads)
    except Exception as error:  # ONNX Runtime has a class for each status, and most are not exported
        reason = str(error).partition("\n")[0]
        raise EngineUnavailable(f"ONNX Runtime cannot open the graph: {reason}") from None
