"""Numbers inside an artifact: what MLflow can compare, sort, search and draw, and would not find in a file."""

from __future__ import annotations

import itertools
import numbers
from collections.abc import Callable, Collection, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dlpipe.bridge.records import cut
from dlpipe.bridge.series import (
    DEPTH,
    INDEXES,
    MOST_POINTS,
    Path,
    TooMany,
    TooManyPoints,
    find_index,
    is_finite,
    is_flag,
    is_number,
    is_scalar,
    name_keys,
    number_names,
    read_columns,
    read_records,
    to_columns,
    unpack,
)
from dlpipe.bridge.values import PARAM_LENGTH, keep, look_inside, shorten_key, to_mlflow_key
from dlpipe.redaction import HIDDEN, is_credential, looks_secret

MOST_NAMES = 200
"""So many metrics and parameters of one artifact; a page with more of them says nothing."""
SETTINGS_DEPTH, MOST_SETTINGS_VISITED = 8, 2_000
"""So many keys stand in the name of a setting, of so many mappings."""
TRANSPARENT = frozenset({"metrics", "scores", "params"})
"""Names that say nothing of a value but of what kind it is: ``metrics/accuracy`` is ``accuracy``."""
DATASET_FIELDS, MODEL_FIELDS = (
    frozenset({"path", "version", "digest", "rows"}),
    frozenset({"name", "version", "uri"}),
)
"""What a table version and a model version have: they stand in MLflow as such, here with what can be compared."""
VERSION_FIELDS = frozenset({"version", "rows"})
"""Of them, the numbers that are the version's own; what was measured stands beside them."""
SCORES = ("metrics", "scores")
"""Names of artifacts that hold what a step measured; their numbers stand first, and the later artifact counts."""
SETTINGS = frozenset({"params", "hyperparameters"})
"""Names of artifacts that hold what a run was set to: their numbers are parameters, of the task and of the run."""


Taken = MutableSet[tuple[str, str]]


@dataclass
class Points:
    """What stands inside one artifact.

    Attributes
    ----------
    metrics : list of (str, float, int)
        Name, finite value and step; of a number that is no point of a series, the step is 0.
    params : dict of str to str
        Strings and flags beside the numbers, and numbers that are not finite.
    settings : dict of str to str
        Parameters that hold for the whole run, all of an artifact whose name is one of ``SETTINGS``.
    notes : list of str
        What was left out, and why.
    versions : dict of str to str
        The version of a table or model that a metric is a part of.
    paths : dict of str to tuple of str
        The keys on the way to each metric.
    """

    metrics: list[tuple[str, float, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)


@dataclass
class CollectedPoints:
    """What stands inside the artifact ``name``, by paths: tuples of keys, the artifact's name first.

    Attributes
    ----------
    are_settings : bool
        Whether all of it are parameters of the whole run.
    metrics : list of (tuple of str, list of (float, int))
        Points, of a number that is no series a single one at step 0.
    params : list of (tuple of str, str)
    versions : dict of tuple of str to str
        Where the versions of tables and models stand, and which they are.
    notes : list of str
        What was left out, and why.
    counted : set of tuple of str
        Series whose points are counted from 0, because their index repeats.
    """

    name: str
    are_settings: bool = False
    metrics: list[tuple[Path, list[tuple[float, int]]]] = field(default_factory=list)
    params: list[tuple[Path, str]] = field(default_factory=list)
    versions: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    counted: set[Path] = field(default_factory=set)

    def drop(self, is_dropped: Callable[[Path], bool]) -> None:
        """Take out the values at the paths of which this is true."""
        self.metrics = [entry for entry in self.metrics if not is_dropped(entry[0])]
        self.params = [entry for entry in self.params if not is_dropped(entry[0])]

    def find_last(self) -> dict[Path, float]:
        """Return the last value of each series, and each number."""
        return {path: max(points, key=lambda point: point[1])[0] for path, points in self.metrics}

    def find_version(self, path: Path) -> str:
        """Return the version of a table or model that a value is a part of; empty for none."""
        return self.versions.get(path[:-1], "") if path[-1] in VERSION_FIELDS else ""


def find_points(
    name: str, value: Any, taken: Taken | None = None, reported: Mapping[Path, str] = MappingProxyType({})
) -> Points:
    """Return the numbers inside the artifact ``name``, and what stands beside them.

    Numbers of mappings and dataclasses are metrics named by their keys, to a depth of two. A sequence of records,
    or a table, with one of ``INDEXES`` among its names is a series for each of the others that holds numbers.

    Parameters
    ----------
    name : str
        Of the artifact.
    value : object
        Of any type.
    taken : set of (str, str), optional
        Names that stand for something else already, each with ``metric`` or ``param`` before it; those that are
        given here are added.
    reported : mapping of tuple to str, optional
        Series that the step has reported while it ran, and the names that they have.

    Examples
    --------
    >>> found = find_points("run", {"loss": 0.5, "strategy": "freeze"})
    >>> found.metrics, found.params
    ([('run/loss', 0.5, 0)], {'run/strategy': 'freeze'})
    >>> find_points("epochs", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]).metrics
    [('epochs/loss', 0.5, 1), ('epochs/loss', 0.25, 2)]
    """
    return name_points(collect_points(name, value), set() if taken is None else taken, reported)


def collect_points(name: str, value: Any) -> CollectedPoints:
    """Return what ``find_points`` finds, by its path."""
    if looks_secret(name):
        return CollectedPoints(name)
    finder = _Finder(name, are_settings=name in SETTINGS)
    try:
        finder.add((name,), value)
    except TooMany as error:
        return CollectedPoints(name, notes=[f"{name}: {error}"])
    return finder.found if finder.has_content else CollectedPoints(name, notes=finder.found.notes)


def name_points(
    collected: CollectedPoints, taken: Taken, reported: Mapping[Path, str] = MappingProxyType({})
) -> Points:
    """Return what was collected, under names that MLflow takes and that are not ``taken``, and take them.

    ``reported`` are the names of what a step has told while it ran.
    """
    points = Points(notes=collected.notes)
    for path, series in collected.metrics:
        if path in reported and path in collected.counted:  # its points have other steps than those reported
            continue
        name = reported.get(path) or choose_name(path, "metric", taken)
        points.metrics += [(name, value, step) for value, step in series]
        points.paths[name] = path
        if version := collected.find_version(path):
            points.versions[name] = version
    for path, text in collected.params:
        points.params[choose_name(path, "param", taken)] = text
    points.settings = dict(points.params) if collected.are_settings else {}
    return points


def find_settings(name: str, value: Any) -> tuple[dict[str, str], list[str]]:
    """Return the values inside of a configuration by name, as parameters, and notes; of too many, none.

    Examples
    --------
    >>> find_settings("settings", {"training": {"epochs": 3, "seed": None}, "classes": ["a", "b"]})
    ({'settings/training/epochs': '3', 'settings/classes': 'a, b'}, [])
    """
    if looks_secret(name):
        return {}, []
    finder = _Finder(name, are_settings=True)
    try:
        finder.add((name,), value)
    except TooMany as error:
        return {}, [f"{name}: {error}"]
    return name_points(finder.found, set()).params, finder.found.notes


class _TooManyNames(TooMany):
    def __init__(self) -> None:
        super().__init__(f"more than {MOST_NAMES} numbers and texts: they are in the file alone")


class _Finder:
    """A walk over one artifact; what it has found so far is ``found``."""

    def __init__(self, name: str, *, are_settings: bool) -> None:
        self.found = CollectedPoints(name, are_settings)
        self._are_settings = are_settings
        self._depth = SETTINGS_DEPTH if are_settings else DEPTH
        self._n_numbers = self._n_visited = self._n_large = 0
        self._is_verdict = False

    @property
    def has_content(self) -> bool:
        """Whether this is more than a few texts."""
        return self._n_numbers > 0 or self._are_settings or self._is_verdict

    def add(self, path: Path, value: Any) -> None:
        """Take what stands inside of ``value``."""
        self._n_visited += 1
        if self._are_settings and self._n_visited > MOST_SETTINGS_VISITED:  # they may hold each other
            raise _TooManyNames
        columns = None if self._are_settings else read_columns(value)
        if columns is None and not self._are_settings and (records := read_records(value)):
            columns = to_columns(records, DEPTH - len(path))
        if columns is not None:
            if find_index(columns):
                self._add_series(path, columns)
            elif index := next((name for name in INDEXES if (name,) in columns), ""):
                self.found.notes.append(f"{_join((*path, index))} does not count: no points")
            return
        inner = look_inside(value)
        if not isinstance(inner, Mapping):
            return
        self._is_verdict |= (
            len(path) == 1 and is_flag(inner.get("passed")) and isinstance(inner.get("reason"), str)
        )
        if is_version(inner, DATASET_FIELDS) or is_version(inner, MODEL_FIELDS):
            self.found.versions[path] = " ".join(str(inner.get(key)) for key in ("path", "name", "version"))
            inner = {key: item for key, item in inner.items() if key in VERSION_FIELDS or _is_measured(item)}
        items = [((*path, key), unpack(item)) for key, item in name_keys(inner) if item is not None]
        for whole, item in sorted(
            items, key=lambda entry: not is_scalar(entry[1])
        ):  # large ones take none of these
            self._add_item(whole, item)

    def _add_alone(self, path: Path, value: Any) -> None:
        """Take what stands inside of ``value``; of what is too large nothing, and all that is beside it."""
        metrics, params, n_numbers = len(self.found.metrics), len(self.found.params), self._n_numbers
        try:
            self.add(path, value)
        except TooMany as error:
            if isinstance(error, _TooManyNames):
                self._n_large += len(path) == 2
                if self._n_large != 1 or len(path) > 2:  # many small ones are too many all together
                    raise
            del self.found.metrics[metrics:], self.found.params[params:]
            self._n_numbers = n_numbers
            inside = [place for place in self.found.versions if place[: len(path)] == path]
            for place in inside:
                del self.found.versions[place]
            self.found.notes.append(f"{_join(path)}: {error}")

    def _add_item(self, path: Path, item: Any) -> None:
        if is_credential(path[-1], item) and not is_flag(item):
            self._take_text(path, HIDDEN)  # whatever stands below it
        elif is_scalar(item):
            kept = keep(_join(path), item)
            if kept.metric is not None and self._are_settings:
                self._take_text(path, str(item))
            elif kept.metric is not None:
                self._take(path, [(kept.metric, 0)])
            elif kept.param and (self._are_settings or not kept.documents):
                self._take_text(path, kept.param)
            self._n_numbers += is_number(item)
        elif self._are_settings and isinstance(item, list | tuple) and item and all(map(is_scalar, item)):
            self._take_text(path, cut(", ".join(map(str, item)), PARAM_LENGTH))
        elif len(path) <= self._depth:
            self._add_alone(path, item)

    def _add_series(self, path: Path, columns: Mapping[tuple[str, ...], Sequence[Any]]) -> None:
        """Take the columns that hold numbers alone; a number that is missing or not finite leaves a gap."""
        index = find_index(columns)
        steps = list(columns[index])
        if len(set(steps)) < len(steps):
            self.found.notes.append(f"{_join((*path, *index))} repeats: points are counted from 0")
            steps = []
        for name, values in columns.items():
            if name == index:
                continue
            if not all(item is None or is_number(item) for item in values):
                if any(is_number(item) for item in values):
                    self.found.notes.append(f"{_join((*path, *name))} is not always a number")
                continue
            if any(map(looks_secret, name[:-1])) or any(is_credential(name[-1], item) for item in values):
                continue
            points = [
                (float(item), int(steps[at]) if steps else at) for at, item in enumerate(values) if is_finite(item)
            ]
            if gaps := sum(item is not None and not is_finite(item) for item in values):
                self.found.notes.append(f"{_join((*path, *name))}: {gaps} of {len(values)} points are not finite")
            if points:
                self.found.counted |= set() if steps else {(*path, *name)}
                self._take((*path, *name), points)
                self._n_numbers += 1

    def _take(self, path: Path, points: list[tuple[float, int]]) -> None:
        self.found.metrics.append((path, points))
        self._count()

    def _take_text(self, path: Path, text: str) -> None:
        self.found.params.append((path, text))
        self._count()

    def _count(self) -> None:
        if len(self.found.metrics) + len(self.found.params) > MOST_NAMES:
            raise _TooManyNames
        if sum(len(points) for _, points in self.found.metrics) > MOST_POINTS:
            raise TooManyPoints


def is_version(inner: Mapping[Any, Any], fields: Collection[str]) -> bool:
    """Return whether a mapping is a version with these fields, of a table or a model: what counts there is whole.

    Examples
    --------
    >>> [is_version({"name": "a", "version": at, "uri": "b"}, MODEL_FIELDS) for at in (3, "3", "1.2.0", 0.5, True)]
    [True, True, False, False, False]
    """
    return set(inner) >= set(fields) and all(
        (isinstance(inner[name], numbers.Integral) and not is_flag(inner[name]))
        or (isinstance(inner[name], str) and inner[name].isdecimal())
        for name in VERSION_FIELDS & set(fields)
    )


def _is_measured(value: Any) -> bool:
    """Return whether this is a number that is none of a version: those are whole, such as the time it was made."""
    value = unpack(value)
    return is_number(value) and not isinstance(value, numbers.Integral)


def _join(path: Path) -> str:
    return "/".join(path)


def choose_name(path: Path, kind: str, taken: Taken) -> str:
    """Return the first name that is free, and add it to ``taken``: shorter, whole, with a number."""
    whole = _to_key(path)
    short = tuple(part for part in path if part not in TRANSPARENT)
    candidates = itertools.chain([_to_key(short) if short else whole, whole], number_names(whole))
    name = next(name for name in candidates if (kind, name) not in taken)
    taken.add((kind, name))
    return name


def _to_key(path: Path) -> str:
    """Return a name that MLflow takes, in which only the keys are escaped that need it."""
    if "" in path:
        return to_mlflow_key(_join(path))
    return shorten_key("/".join(map(to_mlflow_key, path)), _join(path))
