"""Run the work of the pieces of a table that are not staged yet.

Each piece is staged as a file of its own when it is done; a try after a kill finds these and does the others. The
caller then commits all of them at once, which removes the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from dlpipe.parts.progress import RowProgress
from dlpipe.tables import find_staged_parts


class Piece(Protocol):
    """A part of a table, or a slice of one."""

    @property
    def number(self) -> int:
        """The number that its staged file is named by."""


P = TypeVar("P", bound=Piece)


def stage_missing(
    pieces: Sequence[P],
    sizes: Sequence[int],
    work: Callable[[Sequence[P], RowProgress], None],
    *,
    target: str,
    key: Mapping[str, str],
    cut: str,
    what: str,
    say: Callable[[str], None] | None,
) -> int:
    """Have the pieces worked on that are not staged yet, and return the rows that were worked on.

    Parameters
    ----------
    pieces : sequence
        Parts or slices, whose numbers name their staged rows.
    sizes : sequence of int
        The rows of each, to count progress by.
    work : callable
        Stages the rows of the pieces that it gets (``dlpipe.tables.stage_part``), in any order, and adds what is
        done to the progress.
    target : str
        The table that they will be committed to.
    key, cut : mapping and str
        What the work is and how it was cut: what an earlier try staged under the same is not done again.
    what, say
        See ``RowProgress``.
    """
    staged = find_staged_parts(target, key=key, cut=cut)
    there = sum(size for piece, size in zip(pieces, sizes, strict=True) if piece.number in staged)
    progress = RowProgress(what, total=sum(sizes), there=there, say=say)
    work([piece for piece in pieces if piece.number not in staged], progress)
    progress.end()
    return progress.rows
