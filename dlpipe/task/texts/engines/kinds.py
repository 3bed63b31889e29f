"""The names of the engines, and what each asks of the machine."""

from __future__ import annotations

from dlpipe.errors import EngineUnavailable
from dlpipe.machine import read_cpu_features

TORCH, BF16, ONNX, INT8 = "torch", "torch-bf16", "onnx", "onnx-int8"
ENGINES = (TORCH, BF16, ONNX, INT8)
EXACT = (TORCH, ONNX)
"""Engines that compute in 32 bits: their outputs are those of torch but for rounding."""
EXACTLY = "exact"
"""Asks for the fastest of them."""

GRAPH_FILES = {ONNX: "model.onnx", INT8: "model.int8.onnx"}

# one of these makes the engine fast; without any, int8 products saturate on older Intel, and bf16 is emulated
INSTRUCTIONS = {
    BF16: ("avx512_bf16", "amx_bf16", "bf16"),
    INT8: ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
}


def check_engine(name: str) -> str:
    """Return ``name`` if it is an engine.

    Examples
    --------
    >>> check_engine("onxx")
    Traceback (most recent call last):
    ...
    dlpipe.errors.EngineUnavailable: There is no engine 'onxx'; there are torch, torch-bf16, onnx, onnx-int8.
    """
    if name not in ENGINES:
        raise EngineUnavailable(f"There is no engine {name!r}; there are {', '.join(ENGINES)}.")
    return name


def explain_missing_instructions(engine: str, features: frozenset[str] | None = None) -> str:
    """Return why this machine should not run ``engine``; an empty text where it can.

    Examples
    --------
    >>> explain_missing_instructions("onnx-int8", frozenset({"avx2", "avx512f"}))
    'this CPU has none of avx512_vnni, avx_vnni, amx_int8, asimddp'
    >>> explain_missing_instructions("onnx", frozenset())
    ''
    """
    wanted = INSTRUCTIONS.get(engine, ())
    found = read_cpu_features() if features is None else features
    if not wanted or found.intersection(wanted):
        return ""
    return f"this CPU has none of {', '.join(wanted)}"
