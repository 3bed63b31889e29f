"""What there is to say of moves of champions and of versions that were deleted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from dlpipe.lineage.graph import Facts
from dlpipe.registry import ChampionMove
from dlpipe.time_formats import format_moment


def read_time(at: str) -> int:
    """Return the milliseconds since 1970 of a time in ISO 8601."""
    return round(datetime.fromisoformat(at).timestamp() * 1000)


def describe_count(moves: int) -> str:
    """Return how often a champion has moved.

    Examples
    --------
    >>> [describe_count(moves) for moves in (0, 1, 2)]
    ['never moved', 'moved once', 'moved 2 times']
    """
    return {0: "never moved", 1: "moved once"}.get(moves, f"moved {moves} times")


def describe_move(move: ChampionMove) -> Facts:
    """Return when and how a champion was moved, by whom and why."""
    before = "none" if move.before is None else f"v{move.before}"
    why = f": {move.why}" if move.why else ""
    return Facts(read_time(move.at), f"from {before} by {move.how}, {move.who}{why}")


def describe_deletion(note: Mapping[str, str]) -> str:
    """Return when a version was deleted, by whom and why.

    Examples
    --------
    >>> describe_deletion({"at": "2026-11-28T16:55:00+00:00", "who": "ana", "why": "leaked rows"})
    'deleted 2026-11-28 16:55 UTC by ana: leaked rows'
    """
    why = f": {note['why']}" if note.get("why") else ""
    when = format_moment(datetime.fromisoformat(note["at"]))
    return f"deleted {when} by {note.get('who', 'unknown')}{why}"
