"""A project brought up to a newer template, with what was changed in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dlpipe
from dlpipe.errors import ProjectUnusable
from dlpipe.templates.merging import LABELS, Merge, apply_merge, plan_merge
from dlpipe.templates.rendering import ANSWERS, ORIGINAL, Answers, read_answers, render


@dataclass(frozen=True)
class Update:
    """What a newer template did to a project.

    Attributes
    ----------
    folder : Path
    before, after : str
        The versions of dlpipe whose templates these are.
    merges : tuple of Merge
        By file; none where nothing changed.
    """

    folder: Path
    before: str
    after: str
    merges: tuple[Merge, ...]

    @property
    def conflicts(self) -> tuple[str, ...]:
        """The files in which marks stand around lines that both changed."""
        return tuple(merge.path for merge in self.merges if merge.what == "conflict")


def update_project(folder: str | Path, *, template: Path | None = None) -> Update:
    """Merge the template of this dlpipe into the project in ``folder``, with what was changed there.

    Parameters
    ----------
    folder : str or Path
    template : Path, optional
        By default that of this package.

    Raises
    ------
    ProjectUnusable
        When it is no project, a newer dlpipe made it, or an earlier update has left conflicts; nothing is changed.
    """
    folder = Path(folder)
    version, answers = _read_project(folder)
    original = folder / ORIGINAL
    with tempfile.TemporaryDirectory(prefix="dlpipe-update-") as place:
        made = Path(place, "project")
        render(answers, made, template=template)
        merges = plan_merge(folder, original, made)
        _check_no_conflicts(folder, [merge.path for merge in merges])
        apply_merge(folder, merges)
        # only now: an update that is cut off can be done again
        apply_merge(original, plan_merge(original, original, made))
    return Update(folder, version, dlpipe.__version__, tuple(merges))


def _read_project(folder: Path) -> tuple[str, Answers]:
    """Return the version of dlpipe that a project was made with, and what it was told."""
    from packaging.version import InvalidVersion, Version

    try:
        version, answers = read_answers(folder)
        newer = Version(version) > Version(dlpipe.__version__)
    except FileNotFoundError:
        raise ProjectUnusable(
            f"{str(folder)!r} is no project of dlpipe init: it has no {ANSWERS}. Name the folder of one, or make "
            "one with --data."
        ) from None
    except (KeyError, TypeError, ValueError, InvalidVersion) as error:
        raise ProjectUnusable(
            f"{str(folder / ANSWERS)!r} cannot be read ({type(error).__name__}: {error}). Take it from an older "
            "commit."
        ) from None
    if newer:
        raise ProjectUnusable(
            f"{str(folder)!r} is of dlpipe {version}, newer than this one, {dlpipe.__version__}. Install that."
        )
    return version, answers


def _check_no_conflicts(folder: Path, paths: Sequence[str]) -> None:
    mark = f"<<<<<<< {LABELS[0]}".encode()
    left = [path for path in paths if (folder / path).is_file() and mark in (folder / path).read_bytes()]
    if left:
        raise ProjectUnusable(
            f"An earlier update has left conflicts in {', '.join(left)}. Choose between the lines there, take the "
            "marks out, and update again."
        )
