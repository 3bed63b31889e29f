"""Who was champion when, why, and by whom: a tag of the registered model for each move of the alias.

MLflow has no history of an alias, and a version may be deleted; tags of the registered model stay.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

MOVE = "mlflow.dlpipe.champion."
"""Prefix of these tags, which MLflow's pages do not show; a number follows."""
LONGEST = 2000  # characters of a reason that are kept

How = Literal["gate", "force", "rollback"]


@dataclass(frozen=True)
class ChampionMove:
    """A move of the alias ``champion``.

    Attributes
    ----------
    before, after : int or None
        The versions that it stood at.
    how : str
        ``gate``: a verdict allowed it; ``force``: without a verdict, or against it; ``rollback``.
    who, why, at : str
        A user, a reason, and the time in UTC.
    """

    before: int | None
    after: int | None
    how: How
    who: str
    why: str
    at: str

    def to_tag(self, earlier: Sequence[ChampionMove]) -> tuple[str, str]:
        """Return the name and the value of the tag that records this move after ``earlier`` ones."""
        # six digits: names are sorted as text
        return f"{MOVE}{len(earlier) + 1:06}", json.dumps(asdict(self))


def record_move(before: int | None, after: int | None, *, how: How, who: str, why: str) -> ChampionMove:
    """Return the record of a move that happens now.

    Parameters
    ----------
    before, after : int or None
        The champion before and after; ``None`` for none.
    how : str
        As in ``ChampionMove``.
    who, why : str
        An empty ``who`` is the current user; the reason is cut after ``LONGEST`` characters.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return ChampionMove(before, after, how, who or get_user(), why[:LONGEST], at)


def read_moves(tags: Mapping[str, str]) -> list[ChampionMove]:
    """Return the moves that the tags of a registered model record, oldest first."""
    return [ChampionMove(**json.loads(tags[name])) for name in sorted(tags) if name.startswith(MOVE)]


def list_earlier_champions(moves: Sequence[ChampionMove], current: int) -> list[int]:
    """Return the versions that were champion before ``current``, the last one first.

    A rollback is a step back on this way: after it, the next one leads further back.

    Examples
    --------
    >>> steps = [(None, 1, "gate"), (1, 2, "gate"), (2, 3, "gate"), (3, 2, "rollback")]
    >>> moves = [ChampionMove(before, after, how, "ana", "", "") for before, after, how in steps]
    >>> list_earlier_champions(moves, 3), list_earlier_champions(moves, 2)
    ([2, 1], [1])
    """
    found: list[int] = []
    at: int | None = current
    for move in reversed(moves):
        if move.after == at and move.how != "rollback":
            at = move.before
            if at is None:
                break
            found.append(at)
    return found


def get_user() -> str:
    """Return the name of who runs this process; ``unknown`` on a machine that does not know."""
    if user := os.environ.get("METAFLOW_USER"):
        return user
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
