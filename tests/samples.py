"""The samples that ship: their scripts, their rows, and the splits that the pipeline would choose."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import math
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

DATA = Path(__file__).resolve().parents[1] / "data"
SPLITS = ("train", "valid", "test")


def load_script(name: str) -> ModuleType:
    """Return a script of the folder ``data`` as a module."""
    if str(DATA) not in sys.path:  # scripts import what stands beside them
        sys.path.append(str(DATA))
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[name] = script  # dataclasses look their module up
    spec.loader.exec_module(script)
    return script


def read_sample(name: str) -> list[dict[str, str]]:
    """Return the rows of a file of the folder ``data/sample``."""
    with (DATA / "sample" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def split_of(text: str) -> str:
    """Return the split that the pipeline would choose, from a hash of the normalised text."""
    normal = " ".join(text.casefold().split())
    position = int.from_bytes(hashlib.sha256(normal.encode()).digest()[8:16], "big") / 2**64
    return "test" if position < 0.2 else "valid" if position < 0.3 else "train"


def word_set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(re.findall(r"[a-z']+", text.lower()))


def share_near_copies(texts: Sequence[str], others: Iterable[str]) -> float:
    """Return the share of texts that have more than 80 % of their words in common with one of the others."""
    known: dict[int, list[frozenset[str]]] = {}
    for words in map(word_set, others):
        known.setdefault(len(words), []).append(words)
    near = 0
    for words in map(word_set, texts):
        sizes = range(
            math.floor(0.8 * len(words)), math.ceil(len(words) / 0.8) + 1
        )  # others have too few or too many
        alike = (other for size in sizes for other in known.get(size, ()))
        near += any(len(words & other) > 0.8 * len(words | other) for other in alike)
    return near / len(texts)
