"""Every engine beside torch on labelled texts, and the choice."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from dlpipe.errors import BadRows, EngineUnavailable
from dlpipe.task.batches import Encoded, TextEncoder
from dlpipe.task.engines.graphs import onnx_graph
from dlpipe.task.engines.int8 import int8_graph
from dlpipe.task.engines.kinds import (
    BF16,
    ENGINES,
    EXACT,
    GRAPH_FILES,
    INSTRUCTIONS,
    INT8,
    ONNX,
    TORCH,
    cpu_features,
    cpu_name,
    missing_instructions,
)
from dlpipe.task.engines.networks import Network, TorchNetwork, probabilities
from dlpipe.task.engines.opening import opened_graph
from dlpipe.task.engines.stored import EngineCheck, Engines, ServedModel
from dlpipe.task.model import TOKENIZER, TextModel

PARTS = 4
SAMPLE_ROWS = 32


@dataclass(frozen=True)
class CheckSettings:
    """How engines are compared, and what they must reach to be offered.

    Attributes
    ----------
    rows : int
        Rows that they are compared on, at most.
    seconds : float
        Fewer rows where torch would need longer than this, but ``labelled_rows`` in any case.
    labelled_rows : int
        An engine with fewer bits is offered only if there are so many rows with labels.
    accuracy_lost : float
        The points of accuracy that it may lose against torch.
    label_agreement : float
        The share of rows on which it must give torch's label.
    exact_difference : float
        The most by which a probability of an engine with 32 bits may differ from torch's.
    gain : float
        Torch is left for an engine that is so many times as fast.
    """

    rows: int = 500
    seconds: float = 3.0
    labelled_rows: int = 200
    accuracy_lost: float = 0.5
    label_agreement: float = 0.98
    exact_difference: float = 1e-3
    gain: float = 1.1


def export_engines(
    model: TextModel,
    texts: Sequence[str],
    labels: Sequence[str] = (),
    *,
    threads: int | None = None,
    settings: CheckSettings | None = None,
) -> ServedModel:
    """Return ``model`` with its engines: exported, compared with torch on ``texts``, the fastest good one chosen.

    An engine that cannot be exported or run, or answers too differently, is not offered; ``Engines.checks`` says
    why. With torch alone left, torch is chosen.

    Parameters
    ----------
    texts : sequence of str
        Texts that the model was not trained on; some are drawn evenly if there are many.
    labels : sequence of str
        Their labels; without them, no engine with fewer than 32 bits is offered.
    threads : int, optional
        By default one for each core that this process may use.
    """
    from dlpipe.task.predictor import usable_cores

    if not texts:
        raise BadRows("There are no texts to compare engines on; give some of the valid split.")
    settings, threads = settings or CheckSettings(), threads or usable_cores()
    encode = TextEncoder(model.files[TOKENIZER].decode(), max_length=model.max_length, pad_id=model.pad_id)
    drawn = np.unique(np.linspace(0, len(texts) - 1, min(settings.rows, len(texts))).astype(int))
    rows = Rows(encode([texts[row] for row in drawn]), [labels[row] for row in drawn] if labels else [])
    candidates = prepare(model, rows.encoded, threads)
    compared = compare(candidates, rows, model.labels, settings)
    checks = tuple(judged(check, compared, settings) for check in compared.checks)
    graphs = {
        GRAPH_FILES[check.engine]: candidates.graphs[check.engine]
        for check in checks
        if check.engine in candidates.graphs and not check.refused
    }
    engines = Engines(
        chosen=choice(checks, settings.gain),
        checks=checks,
        rows=compared.rows,
        threads=threads,
        weights=model.digest,
        graphs={name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()},
        cpu=cpu_name(),
        instructions=tuple(sorted(cpu_features().intersection(sum(INSTRUCTIONS.values(), ())))),
        versions=versions(),
    )
    return ServedModel(model, engines, graphs)


@dataclass(frozen=True)
class Rows:
    """Texts as token ids, with their labels (or none at all)."""

    encoded: Encoded
    labels: Sequence[str]

    def part(self, rows: np.ndarray) -> Encoded:
        """Return the token ids of these rows."""
        ids, offsets = self.encoded.ids, self.encoded.offsets
        return Encoded.of([ids[offsets[row] : offsets[row + 1]] for row in rows], self.encoded.pad_id)


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
            made.networks[engine] = ways[engine]()
        except Exception as error:  # whatever a foreign encoder makes an exporter raise
            if engine == TORCH:
                raise
            made.refused[engine] = said_failure(error)
    return made


def on_torch(model: TextModel, engine: str, threads: int) -> Network:
    """Return the network in torch on the CPU."""
    from dlpipe.task.predictor import use_machine

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
    return f"could not be exported: {type(error).__name__}: {words[:200]}"


@dataclass(frozen=True)
class Compared:
    """The engines on the same rows, without a verdict."""

    checks: tuple[EngineCheck, ...]
    rows: int
    labelled: bool


def compare(candidates: Candidates, rows: Rows, labels: Sequence[str], settings: CheckSettings) -> Compared:
    """Run every engine on the rows, part by part in turn, so that all have the same luck with the machine."""
    count = affordable_rows(candidates.networks[TORCH], rows, settings)
    parts = [np.arange(start, count, PARTS) for start in range(min(PARTS, count))]
    names = list(candidates.networks)
    shares: dict[str, list[np.ndarray]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, part in enumerate(parts):
        encoded = rows.part(part)
        for name in names if number % 2 else reversed(names):
            started = time.perf_counter()
            shares[name].append(probabilities(candidates.networks[name], encoded, len(labels)))
            seconds[name].append(time.perf_counter() - started)
    truth = [rows.labels[int(row)] for part in parts for row in part] if rows.labels else []
    merged = {name: np.concatenate(found) for name, found in shares.items()}
    checks = [compared_check(name, merged, seconds, truth, labels) for name in names]
    failed = [EngineCheck(name, refused=why) for name, why in candidates.refused.items()]
    return Compared((*checks, *failed), count, bool(truth))


def affordable_rows(network: Network, rows: Rows, settings: CheckSettings) -> int:
    """Return how many rows to compare on, after a first batch that also wakes torch up."""
    first = rows.part(np.arange(min(SAMPLE_ROWS, len(rows.encoded))))
    width = len(network.logits(first.arrays(np.arange(1)))[0])
    started = time.perf_counter()
    probabilities(network, first, width)
    rate = len(first) / (time.perf_counter() - started)
    wanted = max(settings.labelled_rows, int(rate * settings.seconds))
    return min(len(rows.encoded), wanted)


def compared_check(
    name: str,
    shares: dict[str, np.ndarray],
    seconds: dict[str, list[float]],
    truth: Sequence[str],
    labels: Sequence[str],
) -> EngineCheck:
    """Return how the engine ``name`` did beside torch."""
    own, torch_ones = shares[name], shares[TORCH]
    accuracy, of_torch = (accuracy_of(found, truth, labels) for found in (own, torch_ones))
    return EngineCheck(
        name,
        rows_per_second=len(own) / sum(seconds[name]),
        speedup=statistics.median(t / s for t, s in zip(seconds[TORCH], seconds[name], strict=True)),
        accuracy=accuracy,
        accuracy_lost=None if accuracy is None or of_torch is None else 100 * (of_torch - accuracy),
        label_agreement=float((own.argmax(1) == torch_ones.argmax(1)).mean()),
        largest_difference=float(np.abs(own - torch_ones).max()),
    )


def accuracy_of(shares: np.ndarray, truth: Sequence[str], labels: Sequence[str]) -> float | None:
    """Return the share of rows whose highest probability is that of their true label."""
    if not truth:
        return None
    return float((np.array(labels, dtype=object)[shares.argmax(1)] == np.array(truth, dtype=object)).mean())


def judged(check: EngineCheck, compared: Compared, settings: CheckSettings) -> EngineCheck:
    """Return ``check`` with the reason for which the engine is not offered, if there is one."""
    if check.refused or check.largest_difference is None or check.label_agreement is None:
        return check
    exact = check.engine in EXACT
    reason = ""
    if not np.isfinite(check.largest_difference):
        reason = "gives probabilities that are not numbers"
    elif exact and check.largest_difference > settings.exact_difference:
        reason = f"probabilities differ from torch's by {check.largest_difference:.2g}"
    elif not exact and (check.accuracy_lost is None or compared.rows < settings.labelled_rows):
        reason = f"fewer than {settings.labelled_rows} labelled rows to compare accuracy on"
    elif not exact and check.accuracy_lost is not None and check.accuracy_lost > settings.accuracy_lost:
        reason = f"loses {check.accuracy_lost:.2f} points of accuracy, more than {settings.accuracy_lost}"
    elif not exact and check.label_agreement < settings.label_agreement:
        reason = f"gives torch's label on {check.label_agreement:.3f} of the rows only"
    return replace(check, refused=reason)


def choice(checks: Sequence[EngineCheck], gain: float) -> str:
    """Return the fastest engine that is offered, or torch where none is ``gain`` times as fast.

    Examples
    --------
    >>> choice([EngineCheck("torch", speedup=1.0), EngineCheck("onnx", speedup=1.05)], gain=1.1)
    'torch'
    """
    offered = [check for check in checks if not check.refused and (check.speedup or 0) >= gain]
    return max(offered, key=lambda check: check.speedup or 0).engine if offered else TORCH


def versions() -> dict[str, str]:
    """Return the versions of the libraries that the engines were made and measured with."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("onnxruntime", "onnx", "torch", "transformers")}
