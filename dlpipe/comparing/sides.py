"""One side of a comparison: a run of Metaflow or a version of a model, with all that is known of it here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dlpipe.errors import DlpipeError, ModelNotFound, RunNotFound, SettingError, TrackingUnavailable

if TYPE_CHECKING:
    from dlpipe.bridge.outcomes import Points, RunOutcome
    from dlpipe.registry import ModelVersion

OWN, TEST = "evaluation", "test_"
"""The artifact whose scores are the model's own, and what stands before them where MLflow has them."""
INDEX = "epoch"
FILE = "settings/"
"""Before the values of a flow's settings file."""


@dataclass(frozen=True)
class Score:
    """A score; ``low`` and ``high`` are its 95 % interval, NaN where it is not known."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def __str__(self) -> str:
        interval = "" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True)
class CodeState:
    """The code of a side: its commit, whether it had other changes, and its package; empty where unknown."""

    commit: str = ""
    uncommitted: str = ""
    package: str = ""
    uncommitted_lines: int = 0


@dataclass(frozen=True)
class TableRef:
    """A version of a table that a side worked on; ``rows`` is -1 where it is not known."""

    path: str
    version: int
    rows: int = -1

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Side:
    """What is compared.

    Attributes
    ----------
    asked : str
        As it was named.
    name : str
        Its heading, such as ``reviews v3``.
    model : ModelVersion or None
        The version whose predictions are compared: the one that was named, or that the run made or used.
    scores : mapping of str to Score
        Of the model by metric; those of others, such as a baseline, as ``baseline/accuracy``.
    numbers : mapping of str to float
        Of a run, the final numbers of its steps.
    curves : mapping of str to Points
        Series such as the losses of epochs.
    notes : tuple of str
        What is not known of it, and why.
    no_model : str
        Why there is no model, where that is known.
    """

    asked: str
    name: str
    run: str = ""
    status: str = ""
    model: ModelVersion | None = field(default=None, repr=False)
    started: int | None = None
    seconds: float | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    epochs: int | None = None
    best_epoch: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[TableRef, ...] = ()
    code: CodeState = CodeState()
    scores: Mapping[str, Score] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Points] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    no_model: str = ""

    def note(self, *lines: str) -> Side:
        """Return the side with more notes."""
        return replace(self, notes=(*self.notes, *lines))


def find_side(asked: str) -> Side:
    """Return the run or the model version that ``asked`` names.

    Parameters
    ----------
    asked : str
        ``TrainFlow/17`` or ``17`` for a run of Metaflow; ``reviews@champion``, ``reviews/3`` or ``reviews``, also
        with ``models:/``, for a version of a model.

    Raises
    ------
    RunNotFound, ModelNotFound
        When there is none; the message says which there are.
    SettingError
        When a flow is named instead of a run, or runs of several flows have the number.
    """
    from dlpipe.bridge.metadata import find_runs, list_objects

    text = asked.strip()
    if text.startswith("models:") or "@" in text:
        return describe_version(asked, text)
    flows = sorted(entry["flow_id"] for entry in list_objects("root", "flow"))
    flow, _, number = text.partition("/")
    if flow in flows and number:
        return describe_run(asked, find_runs(text)[0])
    if flow in flows:
        latest = find_runs(flow)[-1:]
        raise SettingError(f"{text!r} is a flow. Name a run of it, such as {(latest or [flow + '/1'])[0]}.")
    if text.isdigit():
        return describe_run(asked, find_run_by_number(text, find_runs() if flows else []))
    try:
        return describe_version(asked, text)
    except ModelNotFound as error:
        there = f"{', '.join(flows)}" if flows else "none"
        raise ModelNotFound(f"{str(error).rstrip('.')}. Flows with runs here: {there}.") from None


def find_run_by_number(number: str, runs: list[str]) -> str:
    """Return the pathspec of the one run with this number among ``runs``.

    Examples
    --------
    >>> find_run_by_number("17", ["TrainFlow/16", "TrainFlow/17"])
    'TrainFlow/17'
    """
    found = [run for run in runs if run.partition("/")[2] == number]
    if len(found) > 1:
        raise SettingError(f"{number!r} is a run of several flows. Name one: {', '.join(found)}.")
    if not found:
        raise RunNotFound(f"Metaflow has no run {number!r} here; its latest: {', '.join(runs[:-4:-1]) or 'none'}.")
    return found[0]


def describe_run(asked: str, pathspec: str) -> Side:
    """Return a run of Metaflow as a side."""
    from dlpipe.bridge.outcomes import read_outcome

    side = fill_from_run(Side(asked, pathspec), read_outcome(pathspec), named=True)
    return side


def describe_version(asked: str, uri: str) -> Side:
    """Return a version of a model as a side; what its run tells is added where that is here."""
    from dlpipe.bridge.outcomes import read_outcome
    from dlpipe.registry import MADE_FROM, resolve

    version = resolve(uri)
    side = Side(asked, str(version), model=version)
    if inside := version.tags.get(MADE_FROM):
        side = replace(side, model=resolve(inside)).note(
            f"{version.uri} is made from {inside}, which is compared in its place"
        )
        version = side.model or version
    # of a run that was resumed after its training, the one that registered the version is whole
    task = version.tags.get("metaflow.task") or version.tags.get("metaflow.pathspec", "")
    run = "/".join(task.split("/")[:2])
    try:
        if run.count("/") == 1:
            return fill_from_run(side, read_outcome(run), named=False)
    except DlpipeError as error:
        side = side.note(f"the run {run} that made it is not here: {str(error).rstrip('.')}")
    return fill_from_registry(side, version)


def fill_from_registry(side: Side, version: ModelVersion) -> Side:
    """Return the side with what the registry knows of its version: parameters and scores."""
    from dlpipe.registry import read_logged_values, read_scores

    params, metrics = read_logged_values(version)
    tags = version.tags
    scores = {name.removeprefix(TEST): Score(value) for name, value in metrics.items() if name.startswith(TEST)}
    if kept := read_scores(tags).get("test"):
        scores = {name: Score(value, *kept.intervals.get(name, ())) for name, value in kept.metrics.items()}
    return replace(
        side,
        settings=params,
        scores=scores,
        tables=find_tables(tags),
        code=CodeState(commit=clean(tags.get("git.commit")), uncommitted=clean(tags.get("git.uncommitted"))),
    )


def find_tables(tags: Mapping[str, str]) -> tuple[TableRef, ...]:
    """Return the table version that the tags of a model version name."""
    if not {"delta.table", "delta.version"} <= tags.keys():
        return ()
    return (TableRef(tags["delta.table"], int(tags["delta.version"])),)


def clean(value: str | None) -> str:
    """Return a tag's value, empty where it says that nothing is known."""
    return "" if value in (None, "unknown") else str(value)


def fill_from_run(side: Side, outcome: RunOutcome, *, named: bool) -> Side:
    """Return the side with what its run tells.

    Parameters
    ----------
    side : Side
    outcome : RunOutcome
    named : bool
        Whether the run was named, and not a version that it made.
    """
    if named:
        side = add_model(side, outcome)
    epochs = count_epochs(outcome)
    return replace(
        side,
        run=outcome.pathspec,
        status=outcome.status.lower(),
        started=outcome.start,
        seconds=None if outcome.end is None else (outcome.end - outcome.start) / 1000,
        steps={step.step: step.seconds for step in outcome.steps if step.seconds is not None},
        epochs=epochs,
        best_epoch=find_best_epoch(outcome) if epochs else None,
        settings=drop_repeats(outcome.settings),
        tables=tuple(
            TableRef(dataset.path, dataset.version, dataset.rows)
            for dataset in outcome.datasets
            # tables of predictions and explanations grow with each run
            if "model_version" not in dict(dataset.columns)
        ),
        code=CodeState(
            commit=clean(outcome.code.get("commit")),
            uncommitted=clean(outcome.code.get("uncommitted")).lower(),
            package=outcome.code.get("package", ""),
            uncommitted_lines=outcome.uncommitted_lines,
        ),
        scores={
            metric if name == OWN else f"{name}/{metric}": Score(*numbers)
            for name, metrics in sorted(outcome.evaluations.items(), key=lambda pair: pair[0] != OWN)
            for metric, numbers in metrics.items()
        },
        numbers=outcome.numbers,
        curves=outcome.series,
    ).note(*describe_end(outcome))


def describe_end(outcome: RunOutcome) -> list[str]:
    """Return in a line how a run ended that did not go well, or that it goes on."""
    if outcome.status == "FINISHED":
        return []
    there = ", ".join(step.step for step in outcome.steps if step.status == "FINISHED") or "no step"
    if outcome.status == "RUNNING":
        return [f"it still runs; finished so far: {there}"]
    return [f"{outcome.failure}; it had finished {there}"]


def add_model(side: Side, outcome: RunOutcome) -> Side:
    """Return the side with the model that its run made, or used where it made none."""
    from dlpipe.registry import MADE_FROM, classifier_name, resolve

    # a pipeline is a model only where there is nothing else: what was used then is the classifier inside it
    models = sorted(outcome.models, key=lambda model: (classifier_name(model.name) is not None, model.role))
    if not models:
        ended = outcome.status in ("FINISHED", "RUNNING")
        what = "" if ended else ". Resume it, or name a run that finished"
        return replace(side, no_model=f"it registered none and used none{what}")
    chosen = models[0]
    try:
        version = resolve(str(chosen))
        inside = version.tags.get(MADE_FROM)
        side = replace(side, model=resolve(inside) if inside else version)
    except (ModelNotFound, TrackingUnavailable) as error:
        gone = f"{chosen} is gone ({str(error).rstrip('.')})"
        return replace(side, no_model=f"{gone}. Name a version that is registered, or train again")
    return side if chosen.role == "made" else side.note(f"it made no model; it used {chosen}")


def drop_repeats(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings as they were in force, each once: without the file's own, and without the options.

    Of a run that ended before it had put them together, those of the file, with the options in their place.

    Examples
    --------
    >>> given = {"settings/training/epochs": "2", "settings/training/seed": "0", "epochs": "3", "more": "x"}
    >>> drop_repeats({"training/epochs": "3", **given})
    {'training/epochs': '3', 'more': 'x'}
    >>> drop_repeats(given)
    {'training/epochs': '3', 'training/seed': '0', 'more': 'x'}
    """
    file = {name.removeprefix(FILE): value for name, value in settings.items() if name.startswith(FILE)}
    own = {name: value for name, value in settings.items() if "/" in name and not name.startswith(FILE)}
    options = {name: value for name, value in settings.items() if "/" not in name}
    if own:
        ends = {(name.rpartition("/")[2], value) for name, value in own.items()}
        return {**own, **{name: value for name, value in options.items() if (name, value) not in ends}}
    for option in list(options):
        places = [name for name in file if name.rpartition("/")[2] == option]
        if len(places) == 1:
            file[places[0]] = options.pop(option)
    return {**file, **options}


def count_epochs(outcome: RunOutcome) -> int | None:
    """Return how many epochs a run trained: the points of its longest series of epochs."""
    lengths = [len(points) for name, points in outcome.series.items() if INDEX in name]
    return max(lengths, default=None)


def find_best_epoch(outcome: RunOutcome) -> int | None:
    """Return the epoch that a step called the best one."""
    found: Any = next((value for name, value in outcome.numbers.items() if name.endswith("/best_epoch")), None)
    return None if found is None else int(found)
