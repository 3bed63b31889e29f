"""The machine that a process runs on: its cores and threads, its memory, what its processors can do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

ARITHMETIC = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "MKL_CBWR"),
    *("MKL_ENABLE_INSTRUCTIONS", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE"),
)
"""Environment variables by which torch and its libraries choose how to compute."""


def count_allowed_cores() -> int:
    """Return how many cores the system lets this process run on."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def count_usable_cores() -> int:
    """Return how many cores this process may use: ``DLPIPE_CORES``, or all that it may run on."""
    if given := os.environ.get("DLPIPE_CORES"):
        return max(1, int(given))
    return count_allowed_cores()


def use_machine(threads: int | None = None) -> int:
    """Make this process use the machine well, and return its number of torch threads.

    Parameters
    ----------
    threads : int, optional
        By default the cores that this process may use.
    """
    import torch

    keep_freed_memory()
    count = threads or count_usable_cores()
    torch.set_num_threads(count)
    return count


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed tensors; giving it back each time costs a fifth of a training step.

    A step of 32 texts with 27 tokens took 401 ms instead of 503.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    if (libc := _open_glibc()) is not None:
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def give_back_memory() -> None:
    """Let the system have the memory that glibc keeps, once: after what takes much for a moment, such as loading.

    Loading a model of 90 MB leaves 180 MB behind, in pieces that the next one does not fit into, so a process that
    loads again and again grows by a third of a megabyte each time.
    """
    if (libc := _open_glibc()) is not None:
        libc.malloc_trim(0)


def _open_glibc() -> Any:
    import ctypes

    try:
        return ctypes.CDLL("libc.so.6")
    except OSError:  # another libc
        return None


def has_gpu() -> bool:
    """Return whether torch finds a GPU; torch is imported only where the system has such a device."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return bool(torch.cuda.is_available())


def read_device_name() -> str:
    """Return the name of the GPU that torch takes by itself; ``cpu`` where there is none."""
    if not has_gpu():
        return "cpu"
    import torch

    return str(torch.cuda.get_device_name())


def has_fast_bf16() -> bool:
    """Return whether torch multiplies bf16 faster than fp32 here, on the GPU where there is one.

    A CPU that lacks the instructions emulates it.
    """
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@cache
def read_cpu_features() -> frozenset[str]:
    """Return the instructions of this CPU by Linux's names for them; nothing on other systems."""
    return frozenset(_read_cpu_line("flags").split()) | frozenset(_read_cpu_line("Features").split())


def read_cpu_name() -> str:
    """Return the name of this CPU, as Linux has it."""
    return _read_cpu_line("model name") or "unknown"


def read_arithmetic() -> dict[str, str]:
    """Return the variables of ``ARITHMETIC`` that are set, by their names."""
    return {name: os.environ[name] for name in ARITHMETIC if os.environ.get(name)}


def _read_cpu_line(name: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
