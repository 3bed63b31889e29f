"""Every engine beside torch on labelled texts, and the choice."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlpipe.errors import BadRows
from dlpipe.machine import count_usable_cores, read_cpu_features, read_cpu_name
from dlpipe.task.batches import BATCH_TOKENS, sort_batches
from dlpipe.task.entry_points import find_task
from dlpipe.task.texts.engines.candidates import SAMPLE_ROWS, Candidates, prepare_engines
from dlpipe.task.texts.engines.kinds import EXACT, GRAPH_FILES, INSTRUCTIONS, TORCH
from dlpipe.task.texts.engines.networks import Network, compute_outputs, make_activation
from dlpipe.task.texts.engines.stored import EngineCheck, Engines, ServedModel
from dlpipe.task.texts.model import TOKENIZER, TextModel
from dlpipe.task.texts.tokens import TextTokenizer, TokenIds

PARTS = 4  # of the rows; the median of their speeds is not that of a moment in which the machine was busy

MOST_DIGITS = 6  # after the point, of points of accuracy: what differs later is only the rounding of floats


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
        The points of accuracy that it may lose against torch; see ``Target.measure_accuracy``.
    label_agreement : float
        The share of rows that it must decide as torch does; see ``Target.measure_agreement``.
    exact_difference : float
        The most by which an output of an engine with 32 bits may differ from torch's, as a share of what
        ``Target.get_output_scale`` returns.
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
    labels: Sequence[Any] = (),
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
    labels : sequence
        Their labels; without them, no engine with fewer than 32 bits is offered.
    threads : int, optional
        By default one for each core that this process may use.
    """
    if not texts:
        raise BadRows("There are no texts to compare engines on; give some of the valid split.")
    settings, threads = settings or CheckSettings(), threads or count_usable_cores()
    rows = draw_rows(model, texts, labels, settings.rows)
    candidates = prepare_engines(model, rows.encoded, threads)
    checks, count = compare_engines(candidates, rows, model.card, settings)
    graphs = {
        GRAPH_FILES[check.engine]: candidates.graphs[check.engine]
        for check in checks
        if check.engine in candidates.graphs and not check.refused
    }
    engines = Engines(
        chosen=choose_engine(checks, settings.gain),
        checks=checks,
        rows=count,
        threads=threads,
        weights=model.digest,
        graphs={name: hashlib.sha256(content).hexdigest() for name, content in graphs.items()},
        cpu=read_cpu_name(),
        instructions=tuple(sorted(read_cpu_features().intersection(sum(INSTRUCTIONS.values(), ())))),
        versions=read_versions(),
    )
    return ServedModel(model, engines, graphs)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts as token ids, with their labels (or none at all)."""

    encoded: TokenIds
    labels: Sequence[Any]

    def select(self, rows: np.ndarray) -> TokenIds:
        """Return the token ids of these rows."""
        ids, offsets = self.encoded.ids, self.encoded.offsets
        return TokenIds.from_rows([ids[offsets[row] : offsets[row + 1]] for row in rows], self.encoded.pad_id)


def draw_rows(model: TextModel, texts: Sequence[str], labels: Sequence[Any], count: int) -> LabelledTexts:
    """Return ``count`` of the texts, drawn evenly, with their labels; all where there are fewer.

    Evenly, not the first ones: a table may be sorted by label or by length.
    """
    encode = TextTokenizer(model.files[TOKENIZER].decode(), max_length=model.max_length, pad_id=model.pad_id)
    drawn = np.unique(np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int))
    return LabelledTexts(encode([texts[row] for row in drawn]), [labels[row] for row in drawn] if labels else [])


def compare_engines(
    candidates: Candidates, rows: LabelledTexts, card: Mapping[str, Any], settings: CheckSettings
) -> tuple[tuple[EngineCheck, ...], int]:
    """Run every engine on the same rows and return how each did, and how many rows it were.

    Parameters
    ----------
    candidates : Candidates
    rows : LabelledTexts
        Without labels, no engine with fewer than 32 bits is offered.
    card : mapping
        The model's.
    settings : CheckSettings
    """
    count = count_affordable_rows(candidates.networks[TORCH], rows, settings)
    parts = [np.arange(start, count, PARTS) for start in range(min(PARTS, count))]
    names = list(candidates.networks)
    width, activate = len(card["labels"]), make_activation(card)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    # part by part through all engines, forwards and backwards in turn, so that all have the same luck with a
    # machine that other work shares
    for number, part in enumerate(parts):
        encoded = rows.select(part)
        for name in names if number % 2 else reversed(names):
            started = time.perf_counter()
            outputs[name].append(compute_outputs(candidates.networks[name], encoded, width, activate=activate))
            seconds[name].append(time.perf_counter() - started)
    truth = [rows.labels[int(row)] for part in parts for row in part] if rows.labels else []
    merged = {name: np.concatenate(found) for name, found in outputs.items()}
    ran = [
        judge_engine(measure_engine(name, merged, seconds, truth, card), len(truth), settings) for name in names
    ]
    failed = [EngineCheck(name, refused=why) for name, why in candidates.refused.items()]
    return (*ran, *failed), count


def count_affordable_rows(network: Network, rows: LabelledTexts, settings: CheckSettings) -> int:
    """Return how many rows to compare on: what torch does in ``settings.seconds``, by the first rows' rate.

    Parameters
    ----------
    network : Network
        Torch's, the slowest.
    rows : LabelledTexts
    settings : CheckSettings
    """
    first = rows.select(np.arange(min(SAMPLE_ROWS, len(rows.encoded))))
    started = time.perf_counter()
    for batch in sort_batches(first.lengths, tokens=BATCH_TOKENS):
        network.compute_logits(first.pad_arrays(batch))
    rate = len(first) / (time.perf_counter() - started)
    wanted = max(settings.labelled_rows, int(rate * settings.seconds))
    return min(len(rows.encoded), wanted)


def measure_engine(
    name: str,
    outputs: dict[str, np.ndarray],
    seconds: dict[str, list[float]],
    truth: Sequence[Any],
    card: Mapping[str, Any],
) -> EngineCheck:
    """Return how the engine ``name`` did beside torch, in what the target of the task counts as right and same.

    Parameters
    ----------
    outputs, seconds : mappings
        Of each engine: its outputs, float32 of shape (n_rows, n_outputs), and the time that each part took.
    truth : sequence of n_rows labels, or empty
    card : mapping
        The model's.
    """
    target = find_task(card["task"]).target
    own, of_torch = outputs[name], outputs[TORCH]
    accuracy, best = (target.measure_accuracy(found, truth, card) if truth else None for found in (own, of_torch))
    return EngineCheck(
        name,
        rows_per_second=len(own) / sum(seconds[name]),
        speedup=statistics.median(t / s for t, s in zip(seconds[TORCH], seconds[name], strict=True)),
        accuracy=accuracy,
        accuracy_lost=None if accuracy is None or best is None else 100 * (best - accuracy),
        label_agreement=target.measure_agreement(own, of_torch, card),
        largest_difference=float(np.abs(own - of_torch).max()) / target.get_output_scale(card),
    )


def judge_engine(check: EngineCheck, labelled: int, settings: CheckSettings) -> EngineCheck:
    """Return ``check`` with the reason for which the engine is not offered, if there is one.

    Parameters
    ----------
    check : EngineCheck
    labelled : int
        The rows with labels that it was compared on.
    settings : CheckSettings
    """
    difference = check.largest_difference or 0.0
    if not np.isfinite(difference):
        return replace(check, refused="its outputs are not numbers")
    if check.engine not in EXACT:
        return replace(check, refused=explain_refusal(check, labelled, settings))
    if difference > settings.exact_difference:
        return replace(check, refused=f"its outputs differ from torch's by {difference:.2g}")
    return check


def explain_refusal(check: EngineCheck, labelled: int, settings: CheckSettings) -> str:
    """Return why an engine with fewer than 32 bits is refused; an empty text where it is not.

    Examples
    --------
    >>> explain_refusal(EngineCheck("onnx-int8", accuracy_lost=0.8, label_agreement=0.99), 500, CheckSettings())
    'it loses 0.80 points of accuracy, more than 0.5'
    >>> explain_refusal(EngineCheck("onnx-int8", accuracy_lost=0.5038, label_agreement=0.99), 397, CheckSettings())
    'it loses 0.504 points of accuracy, more than 0.5'
    """
    if check.accuracy_lost is None or labelled < settings.labelled_rows:
        return f"there are {labelled} labelled rows to compare on, fewer than {settings.labelled_rows}"
    # 100 * (0.9 - 0.895) is a little more than 0.5
    if (lost := round(check.accuracy_lost, MOST_DIGITS)) > settings.accuracy_lost:
        written = spell_above(lost, settings.accuracy_lost)
        return f"it loses {written} points of accuracy, more than {settings.accuracy_lost}"
    if (check.label_agreement or 0) < settings.label_agreement:
        return f"it decides {check.label_agreement:.3f} of the rows as torch does"
    return ""


def spell_above(lost: float, limit: float) -> str:
    """Return a number with two digits after the point, or with as many more as show that it is above ``limit``.

    Examples
    --------
    >>> spell_above(0.8, 0.5), spell_above(0.50001, 0.5)
    ('0.80', '0.50001')
    """
    written = (f"{lost:.{digits}f}" for digits in range(2, MOST_DIGITS + 1))
    return next((text for text in written if float(text) > limit), str(lost))


def choose_engine(checks: Sequence[EngineCheck], gain: float) -> str:
    """Return the fastest engine that is offered, or torch where none is ``gain`` times as fast.

    Examples
    --------
    >>> choose_engine([EngineCheck("torch", speedup=1.0), EngineCheck("onnx", speedup=1.05)], gain=1.1)
    'torch'
    """
    offered = [check for check in checks if not check.refused and (check.speedup or 0) >= gain]
    return max(offered, key=lambda check: check.speedup or 0).engine if offered else TORCH


def read_versions() -> dict[str, str]:
    """Return the versions of the libraries that the engines were made and measured with."""
    from importlib import metadata

    return {name: metadata.version(name) for name in ("onnxruntime", "onnx", "torch", "transformers")}
