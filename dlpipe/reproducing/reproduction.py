"""Training again, and what came of it: the same weights, an equivalent model, or another one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlpipe.errors import NotReproducible
from dlpipe.evaluation import evaluate_model
from dlpipe.evaluation.on_table import read_split
from dlpipe.inference import load_predictor
from dlpipe.machine import read_cpu_features
from dlpipe.registry import KIND, ModelVersion, list_versions, read_scores, resolve
from dlpipe.reproducing import retraining
from dlpipe.reproducing.code import TrainingCode, unpack_code
from dlpipe.reproducing.differences import (
    Difference,
    compare_code,
    compare_domains,
    compare_rows,
    compare_settings,
)
from dlpipe.reproducing.origin import TRAINED_BY, Changes, Origin, find_origin, find_trained, parse
from dlpipe.tables import TableVersion, table_at
from dlpipe.task import Evaluation, find_task, open_predictor
from dlpipe.training import Domain

Outcome = Literal["same", "equivalent", "different"]
EXIT_CODES: Mapping[Outcome, int] = {"same": 0, "equivalent": 3, "different": 4}
LOWER = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "DEFAULT": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
"""What has a processor of today compute with the instructions of an older one."""


@dataclass(frozen=True)
class Reproduction:
    """A version, trained again.

    Attributes
    ----------
    outcome : str
        ``same``: the weights are equal, bit for bit. ``equivalent``: they were computed in another domain, and the
        score lies in the interval of the registered one. ``different``: neither.
    weights : str
        SHA-256 of the new ones.
    code : str
        With which code it was trained.
    differences : tuple of Difference
        What is not as it was.
    scores : mapping of str to pair of float
        By metric, then and now, on the test rows; empty where the weights are the same.
    interval : pair of float
        The 95 % interval of the deciding metric as it was registered; NaN where it is not known.
    metric : str
        The deciding metric.
    largest : float
        The largest difference of an output on a test row; 0 where the weights are the same.
    seconds : float
        What training took.
    notes : tuple of str
        What is not known.
    """

    version: ModelVersion
    origin: Origin
    outcome: Outcome
    weights: str
    code: str
    differences: tuple[Difference, ...]
    scores: Mapping[str, tuple[float, float]]
    interval: tuple[float, float]
    metric: str
    largest: float
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 for the same weights, 3 for an equivalent model, 4 for a different one."""
        return EXIT_CODES[self.outcome]

    def to_plain(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "model": self.version.uri,
            "outcome": self.outcome,
            "weights": {"registered": self.version.digest, "now": self.weights},
            "training": self.origin.training,
            "table": str(self.origin.table),
            "code": self.code,
            "differences": [{"kind": found.kind, "what": found.words} for found in self.differences],
            "scores": {name: {"registered": then, "now": now} for name, (then, now) in self.scores.items()},
            "interval": None if math.isnan(self.interval[0]) else {self.metric: list(self.interval)},
            "largest_difference": self.largest,
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
        }


def list_trained() -> list[ModelVersion]:
    """Return every version in the registry that a flow trained."""
    return [
        version
        for version, _ in list_versions()
        if KIND not in version.tags and TRAINED_BY in version.tags and "delta.table" in version.tags
    ]


def reproduce(
    uri: str, *, changes: Changes | None = None, say: Callable[[str], None] = lambda line: None
) -> Reproduction:
    """Train the version that ``uri`` names again, and compare.

    Nothing of the user's is written: the new model is in a temporary folder, and goes with it.

    Parameters
    ----------
    uri : str
        ``models:/NAME@ALIAS``, ``NAME/VERSION`` or a name, which means its champion; of a pipeline or an explainer
        its classifier is meant.
    changes : Changes, optional
        What is to be otherwise; each shows among the differences.
    say : callable, optional
        Gets as lines which version is trained instead of a pipeline or an explainer, and the training's progress.

    Raises
    ------
    NotReproducible
        When code, settings or lineage were not kept, or the training fails.
    TableNotFound, TableVersionNotFound
        When its rows are gone.
    """
    asked, trained = resolve(uri), find_trained(uri)
    if asked.uri != trained.uri:
        say(f"{asked.uri} is made from {trained.uri}, which is trained again")
    origin, changes = find_origin(trained.uri), changes or Changes()
    settings = choose_settings(origin, changes)
    rows = origin.table if changes.rows is None else table_at(origin.table.path, version=changes.rows)
    with tempfile.TemporaryDirectory(prefix="dlpipe-reproduce-") as name:
        scratch = Path(name)
        kept, used = find_code(origin, changes, scratch / "code")
        began = time.monotonic()
        result = train_again(origin, rows=rows, settings=settings, code=used, scratch=scratch, say=say)
        seconds = time.monotonic() - began
        domain = Domain(**result["domain"]) if result["domain"] else None
        differences = (
            *compare_rows(origin, rows),
            *compare_settings(origin.settings, settings),
            *(compare_code(kept, used) if kept else ()),
            *compare_domains(origin.domain, domain),
        )
        beside = None
        if result["weights"] != origin.version.digest:
            beside = compare_models(origin, scratch / "model")
    return judge(origin, result["weights"], differences, beside, code=used.words, seconds=seconds)


def choose_settings(origin: Origin, changes: Changes) -> dict[str, Any]:
    """Return the settings to train with: as they were, with what makes the domain the same, and the changes.

    Raises
    ------
    SettingError
        When a changed setting does not exist or its value is refused.
    """
    from dlpipe.settings import check_name, read_settings

    cls = find_task(origin.version.task).inputs.training
    hints = typing.get_type_hints(cls)
    changed = {}
    for name, text in changes.settings.items():
        check_name(name, list(hints), what="setting", where="[training]")
        changed[name] = parse(text, hints[name])
    of_domain = {}
    if origin.domain:
        of_domain = {"threads": origin.domain.threads, "precision": origin.domain.precision}
    if changes.threads is not None:
        of_domain["threads"] = changes.threads
    settings = {**origin.settings, **of_domain, **changed}
    if changed:
        read_settings(cls, settings, where="[training] with --set")
    return settings


def find_code(origin: Origin, changes: Changes, folder: Path) -> tuple[TrainingCode | None, TrainingCode]:
    """Return the code that a version was trained with, if it was kept, and the code to train with now."""
    here = TrainingCode("the installed dlpipe")
    try:
        kept = unpack_code(origin, folder)
    except NotReproducible:
        if changes.code == "kept":
            raise
        return None, here
    return kept, kept if changes.code == "kept" else here


def train_again(
    origin: Origin,
    *,
    rows: TableVersion,
    settings: Mapping[str, Any],
    code: TrainingCode,
    scratch: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train in a process of its own, with ``code``; return what came of it.

    Raises
    ------
    NotReproducible
        When the training fails; the message has its last line.
    """
    request = scratch / "request.json"
    asked = {"task": origin.version.task, "table": rows.path, "version": rows.version, "settings": dict(settings)}
    request.write_text(json.dumps({**asked, "folder": str(scratch)}))
    command = [sys.executable, "-P", str(Path(retraining.__file__)), str(request)]
    last = ""
    with subprocess.Popen(
        command,
        env=build_environment(origin, code, scratch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in filter(None, map(str.rstrip, process.stdout)):
            last = line
            say(line)
    if process.returncode:
        raise NotReproducible(f"{origin.version.uri} could not be trained again with {code.words}: {last}")
    result: dict[str, Any] = json.loads((scratch / "result.json").read_text())
    return result


def build_environment(origin: Origin, code: TrainingCode, scratch: Path) -> dict[str, str]:
    """Return the environment of the training: the code first, stores that are nobody's, the domain's variables.

    A variable of the domain that is set here stays as it is: whoever sets it wants to see what it changes.
    """
    ours = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch / 'mlflow.db'}",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(scratch / "metaflow"),
        "PYTHONUNBUFFERED": "1",
        **(choose_instructions(origin.domain) if origin.domain else {}),
    }
    if code.paths:
        ours["PYTHONPATH"] = os.pathsep.join(map(str, code.paths))
    wanted = origin.domain.variables if origin.domain else {}
    return {**os.environ, **ours, **{name: value for name, value in wanted.items() if name not in os.environ}}


def choose_instructions(domain: Domain) -> dict[str, str]:
    """Return the variables that hold this processor to the instructions of ``domain``, where it has more."""
    has_more = any(flag.startswith("avx512") for flag in read_cpu_features()) or (
        domain.capability == "DEFAULT" and "avx2" in read_cpu_features()
    )
    lower = LOWER.get(domain.capability, {}) if has_more else {}
    return {name: value for name, value in lower.items() if name not in os.environ}


@dataclass(frozen=True)
class Beside:
    """The registered model and the new one on the same test rows."""

    then: Evaluation
    now: Evaluation
    largest: float


def compare_models(origin: Origin, folder: Path) -> Beside:
    """Return how the new model does beside the registered one, on the test rows that it was measured on.

    Parameters
    ----------
    origin : Origin
    folder : Path
        With the new model.
    """
    seed = int(origin.version.tags.get("seed", 0))
    registered, fresh = load_predictor(origin.version.uri, engine="torch"), open_predictor(folder, engine="torch")
    now = evaluate_model(fresh, origin.table, seed=seed)
    then = read_scores(origin.version.tags).get("test") or evaluate_model(registered, origin.table, seed=seed)
    if tuple(registered.labels) != tuple(fresh.labels):
        return Beside(then, now, math.nan)
    outputs = [
        predictor.predict_outputs(read_split(origin.table, "test", predictor=predictor).rows)
        for predictor in (registered, fresh)
    ]
    return Beside(then, now, float(np.abs(outputs[0] - outputs[1]).max(initial=0)))


def judge(
    origin: Origin,
    weights: str,
    differences: tuple[Difference, ...],
    beside: Beside | None,
    *,
    code: str,
    seconds: float,
) -> Reproduction:
    """Return what came of a training, with the outcome that its weights, scores and differences have."""
    outcome: Outcome = "same" if beside is None else "different"
    interval, metric, scores = (math.nan, math.nan), "", {}
    if beside is not None:
        metric = beside.then.headline
        interval = beside.then.intervals.get(metric, interval)
        scores = {
            name: (value, beside.now.metrics.get(name, math.nan)) for name, value in beside.then.metrics.items()
        }
        computed_elsewhere = {found.kind for found in differences} == {"domain"}
        if computed_elsewhere and interval[0] <= beside.now.metrics[metric] <= interval[1]:
            outcome = "equivalent"
    return Reproduction(
        version=origin.version,
        origin=origin,
        outcome=outcome,
        weights=weights,
        code=code,
        differences=differences,
        scores=scores,
        interval=interval,
        metric=metric,
        largest=0.0 if beside is None else beside.largest,
        seconds=seconds,
        notes=tuple(list_notes(origin, explained=bool(differences) or outcome == "same")),
    )


def list_notes(origin: Origin, *, explained: bool) -> Iterator[str]:
    """Yield what is not known of a training, and so may be a cause of other weights."""
    if origin.domain is None:
        yield "the domain of its training was not recorded: threads, instructions and versions are not known"
    if origin.resumed:
        yield "it was resumed in another domain than it began in, which no single training repeats"
    if not origin.has_records:
        yield f"the records of {origin.run} are not here: its settings are those that the registry keeps"
    if not explained:
        yield "nothing that was recorded differs"
