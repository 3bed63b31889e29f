"""One name for one number: what a task has told already is not told again under a longer name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from dlpipe.bridge.points import TRANSPARENT, VERSION_FIELDS, CollectedPoints
from dlpipe.bridge.series import Path

Standing = Mapping[Path, Sequence[tuple[int, Any]]]
FEWEST = 2
"""So many equal values make a repetition; one may be equal by chance."""
NEVER = frozenset({"baseline"})
"""Artifacts that are compared with others, and so may be equal to them."""


def drop_repeated(
    found: Sequence[CollectedPoints],
    numbers: Mapping[str, float],
    reported: Container[Path] = frozenset(),
) -> None:
    """Take out of ``found`` what stands elsewhere in it: whole mappings, and versions of tables and models.

    A mapping is a repetition if each of its values stands under the same name without that of the artifact, or as
    a setting.

    Parameters
    ----------
    found : sequence of CollectedPoints
        What the artifacts of one task hold, in order; it is changed.
    numbers : mapping of str to float
        The artifacts that are numbers themselves.
    reported : container of tuple of str, optional
        The paths of what the step has told already while it ran: that stays.

    Examples
    --------
    >>> from dlpipe.bridge.points import collect_points
    >>> scores = {"accuracy": 0.9, "f1": 0.8}
    >>> found = [collect_points("result", {"metrics": scores, "rows": 5}), collect_points("scores", scores)]
    >>> drop_repeated(found, {})
    >>> [path for path, _ in found[0].metrics]
    [('result', 'rows')]
    """
    _drop_versions(found)
    standing = _list_standing(found, numbers)
    for at, part in enumerate(found):
        if part.are_settings or part.name in NEVER:
            continue
        groups: dict[Path, list[bool]] = {}
        same: set[Path] = set()
        for path, value in _list_values(part):
            if path not in reported and _stands_before(path, value, at, standing):
                same.add(path)
            groups.setdefault(path[:-1], []).append(
                path not in reported and (path in same or _stands_shorter(path, value, at, standing))
            )
        repeated = {above for above, stand in groups.items() if len(stand) >= FEWEST and all(stand)}
        part.drop(lambda path, repeated=repeated, same=same: path in same or path[:-1] in repeated)  # type: ignore[misc]


def _drop_versions(found: Sequence[CollectedPoints]) -> None:
    """Leave each version of a table or a model where its name is shortest."""
    places = [
        (len(path), at, path, version) for at, part in enumerate(found) for path, version in part.versions.items()
    ]
    seen: set[str] = set()
    for _, at, path, version in sorted(places, key=lambda place: place[:2]):
        if version in seen:
            found[at].drop(lambda inner, path=path: inner[:-1] == path and inner[-1] in VERSION_FIELDS)  # type: ignore[misc]
        seen.add(version)


def _list_standing(
    found: Sequence[CollectedPoints], numbers: Mapping[str, float]
) -> dict[Path, list[tuple[int, Any]]]:
    """Return all values by name, each with the number of its artifact; -1 for those that come before all."""
    standing: dict[Path, list[tuple[int, Any]]] = {}
    for name, number in numbers.items():
        standing.setdefault((name,), []).append((-1, [(number, 0)]))
    for at, part in enumerate(found):
        for path, value in _list_values(part):
            standing.setdefault(_strip(path), []).append((-1 if part.are_settings else at, value))
    return standing


def _list_values(part: CollectedPoints) -> Iterator[tuple[Path, Any]]:
    yield from part.metrics
    yield from part.params


def _stands_before(path: Path, value: Any, at: int, standing: Standing) -> bool:
    """Return whether an earlier artifact, or a setting, has the same value under the same name."""
    return any(_is_equal(other, value) for place, other in standing.get(_strip(path), ()) if place < at)


def _stands_shorter(path: Path, value: Any, at: int, standing: Standing) -> bool:
    """Return whether another artifact has the same value under the name without that of the artifact."""
    rest = _strip(path[1:])
    others = standing.get(rest, ()) if rest != _strip(path) else ()
    return any(_is_equal(other, value) for place, other in others if place != at)


def _is_equal(one: Any, other: Any) -> bool:
    """Return whether two values are the same; a number may stand as the text of a setting."""
    if isinstance(one, str) and not isinstance(other, str):
        try:
            return [(float(one), 0)] == list(other)
        except ValueError:
            return False
    return bool(one == other)


def _strip(path: Path) -> Path:
    return tuple(part for part in path if part not in TRANSPARENT)
