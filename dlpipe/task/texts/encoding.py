"""Token ids and pooled states of a split, computed once and stored beside its table.

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

from dlpipe.machine import has_gpu, read_arithmetic, read_cpu_name, read_device_name
from dlpipe.task.array_cache import cache_arrays
from dlpipe.task.batches import sort_batches
from dlpipe.task.texts.backbones import Backbone
from dlpipe.task.texts.tokens import TextEmbeddings, TextTokenizer, TokenIds

if TYPE_CHECKING:
    from dlpipe.tables import TableVersion

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}  # in one thread each, 1,024 ran 11 % faster than 4,096 in two
SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class SplitEncoder:
    """Encodes the texts of a table version as a backbone reads them.

    Attributes
    ----------
    max_length : int
        Tokens of a text beyond this are cut off.
    threads : int
        How many embed texts; 0 takes every core that the process may use. Values do not depend on it.
    say : callable
        Gets progress as lines of text.
    columns : tuple of str
        One column of texts, or two that are read together.
    """

    table: TableVersion
    backbone: Backbone
    max_length: int
    threads: int = 0
    say: Callable[[str], None] = field(default=lambda line: None, compare=False)
    columns: tuple[str, ...] = ("text",)

    def tokenize(self, split: str) -> TokenIds:
        """Return the token ids of the split's texts, in the order of its rows."""
        key = {**self._key(split), "kind": "tokens"}
        made = cache_arrays(self.table.path, key, lambda: self._tokenize(split), say=self.say)
        return TokenIds(made["ids"], made["offsets"], self.backbone.limits[1])

    def embed(self, split: str) -> TextEmbeddings:
        """Return the means of the encoder's token states, computed in evaluation mode and 32 bits."""
        key = {
            **self._key(split),
            "kind": "embeddings",
            "pooling": "mean",
            "backbone": self.backbone.digest,
            # other versions, processors and instructions round otherwise; a training does not know who computed
            "torch": version("torch"),
            "computed": {"processor": read_cpu_name(), "device": read_device_name(), **read_arithmetic()},
        }
        made = cache_arrays(
            self.table.path,
            key,
            lambda: {"vectors": self._embed(split)},
            say=self.say,
        )
        return TextEmbeddings(made["vectors"])

    def _key(self, split: str) -> dict[str, Any]:
        table = {name: getattr(self.table, name) for name in ("path", "version", "digest")}
        libraries = {name: version(name) for name in ("tokenizers", "transformers")}
        tokenizer = self.backbone.tokenizer_digest
        key = {"table": table, "split": split, "max_length": self.max_length, "tokenizer": tokenizer, **libraries}
        # one column adds nothing to the key, so that entries written before there were pairs are still found
        return key if self.columns == ("text",) else {**key, "columns": list(self.columns)}

    def _embed(self, split: str) -> np.ndarray:
        return compute_embeddings(self.tokenize(split), self.backbone, threads=self.threads, say=self.say)

    def _tokenize(self, split: str) -> dict[str, np.ndarray]:
        from dlpipe.tables import read_table
        from dlpipe.task.texts.network import read_tokenizer_json

        rows = read_table(self.table, split=split, columns=list(self.columns))
        texts = [rows[name].to_pylist() for name in self.columns]
        # a pair is encoded as one sequence, so that each word of one text sees those of the other
        every = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
        made = TextTokenizer(read_tokenizer_json(self.backbone.folder), max_length=self.max_length)(every)
        return {"ids": made.ids, "offsets": made.offsets}


def compute_embeddings(
    encoded: TokenIds, backbone: Backbone, *, threads: int, say: Callable[[str], None]
) -> np.ndarray:
    """Return the encoder's mean-pooled states, float32 of shape (n, hidden).

    On a CPU, each core takes batches of its own and computes them in one thread: less waiting than with all cores
    at one batch, and the same values on any number of cores.

    Parameters
    ----------
    encoded : TokenIds
        Of n texts.
    backbone : Backbone
    threads : int
        How many batches at a time; 0 takes every core that the process may use.
    say : callable
        Gets a line of progress every few seconds.
    """
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from dlpipe.machine import use_machine
    from dlpipe.task.texts.network import load_pretrained_network

    threads = use_machine(threads or None)
    device = _choose_device()
    network = load_pretrained_network(backbone, 1).eval().to(device)
    vectors = np.empty((len(encoded), network.head.in_features), dtype=np.float32)

    def pool(rows: np.ndarray) -> int:
        with torch.inference_mode():
            batch = {name: part.to(device) for name, part in encoded.pad_tensors(rows).items()}
            vectors[rows] = network.pool_states(**batch).cpu().numpy()
        return len(rows)

    batches = sort_batches(encoded.lengths, tokens=TOKENS_PER_BATCH[device])
    workers = threads if device == "cpu" else 1
    try:
        with ThreadPoolExecutor(workers, initializer=_use_one_thread) as executor:
            _say_progress(executor.map(pool, batches), len(encoded), say)
    finally:
        torch.set_num_threads(threads)  # a thread that starts later takes the number that any thread set last
    return vectors


def _say_progress(done: Any, rows: int, say: Callable[[str], None]) -> None:
    started = last_line = time.monotonic()
    count = 0
    for part in done:
        count += part
        if (now := time.monotonic()) - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            say(f"embedding {count:,}/{rows:,} texts  {count / (now - started):,.0f} rows/s")


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # of the calling thread


def _choose_device() -> str:
    return "cuda" if has_gpu() else "cpu"
