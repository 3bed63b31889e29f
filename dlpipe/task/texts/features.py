"""Features once: token ids and pooled states of a split, computed once and kept beside its table.

A frozen encoder gives the same states in each trial and epoch, and a tokenizer the same ids in each training. All
that their values depend on is in the key of an entry: another table version, backbone, length or library makes
another entry.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from dlpipe.task.array_cache import cache_arrays
from dlpipe.task.batches import sort_batches
from dlpipe.task.texts.backbones import Backbone
from dlpipe.task.texts.tokens import Embedded, Encoded, TextEncoder

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}  # in one thread each, 1,024 ran 11 % faster than 4,096 in two
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Reader:
    """How a backbone reads the texts of a table version: its files, and where texts are cut."""

    table: TableVersion
    backbone: Backbone
    max_length: int
    threads: int = 0
    """How many embed texts; 0 takes every core that the process may use."""
    say: Callable[[str], None] = field(default=lambda line: None, compare=False)
    columns: tuple[str, ...] = ("text",)
    """One column of texts, or two that are read together."""

    def token_ids(self, split: str) -> Encoded:
        """Return the token ids of the split's texts, in the order of its rows."""
        key = {**self._key(split), "kind": "tokens"}
        made = cache_arrays(self.table.path, key, lambda: self._tokenize(split), say=self.say)
        return Encoded(made["ids"], made["offsets"], self.backbone.limits[1])

    def embeddings(self, split: str) -> Embedded:
        """Return the means of the encoder's token states, computed in evaluation mode and 32 bits."""
        key = {
            **self._key(split),
            "kind": "embeddings",
            "pooling": "mean",
            "backbone": self.backbone.digest,
            "torch": version("torch"),
        }
        made = cache_arrays(
            self.table.path,
            key,
            lambda: {"vectors": self._embed(split)},
            say=self.say,
        )
        return Embedded(made["vectors"])

    def _key(self, split: str) -> dict[str, Any]:
        table = {name: getattr(self.table, name) for name in ("path", "version", "digest")}
        libraries = {name: version(name) for name in ("tokenizers", "transformers")}
        tokenizer = self.backbone.tokenizer_digest
        key = {"table": table, "split": split, "max_length": self.max_length, "tokenizer": tokenizer, **libraries}
        return key if self.columns == ("text",) else {**key, "columns": list(self.columns)}

    def _embed(self, split: str) -> np.ndarray:
        return embed(self.token_ids(split), self.backbone, threads=self.threads, say=self.say)

    def _tokenize(self, split: str) -> dict[str, np.ndarray]:
        from dlpipe.tables import read_table
        from dlpipe.task.texts.network import tokenizer_json

        rows = read_table(self.table, split=split, columns=list(self.columns))
        texts = [rows[name].to_pylist() for name in self.columns]
        every = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
        made = TextEncoder(tokenizer_json(self.backbone.folder), max_length=self.max_length)(every)
        return {"ids": made.ids, "offsets": made.offsets}


def embed(encoded: Encoded, backbone: Backbone, *, threads: int, say: Callable[[str], None]) -> np.ndarray:
    """Return the encoder's mean-pooled states, float32 of shape (n, hidden).

    On a CPU, each core takes batches of its own and computes them in one thread: less waiting than with all cores
    at one batch, and the same values on any number of cores.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from dlpipe.machine import use_machine
    from dlpipe.task.texts.network import pretrained_network

    threads = use_machine(threads or None)
    device = _device()
    network = pretrained_network(backbone, 1).eval().to(device)
    vectors = np.empty((len(encoded), network.head.in_features), dtype=np.float32)

    def pool(rows: np.ndarray) -> int:
        with torch.inference_mode():
            batch = {name: part.to(device) for name, part in encoded.padded(rows).items()}
            vectors[rows] = network.pooled(**batch).cpu().numpy()
        return len(rows)

    batches = sort_batches(encoded.lengths, tokens=TOKENS_PER_BATCH[device])
    workers = threads if device == "cpu" else 1
    try:
        with ThreadPoolExecutor(workers, initializer=_one_thread) as executor:
            _say_progress(executor.map(pool, batches), len(encoded), say)
    finally:
        torch.set_num_threads(threads)
    return vectors


def _say_progress(done: Any, rows: int, say: Callable[[str], None]) -> None:
    started = said = time.monotonic()
    count = 0
    for part in done:
        count += part
        if (now := time.monotonic()) - said >= SECONDS_BETWEEN_LINES:
            said = now
            say(f"embedding {count:,}/{rows:,} texts  {count / (now - started):,.0f} rows/s")


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # of the calling thread


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
