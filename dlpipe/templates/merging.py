"""What a person changed and what the template changed, put together file by file."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dlpipe.errors import ProjectUnusable

LABELS = ("yours", "before", "new template")
"""What the marks of a conflict call the three versions of a file."""


@dataclass(frozen=True)
class Merge:
    """What a merge does with one file.

    Attributes
    ----------
    path : str
        Below the project's folder.
    what : str
        ``added``, ``updated``, ``merged``, ``conflict``, ``removed``, or ``kept`` for a file that stays as it is
        although the template changed.
    content : bytes or None
        What the file holds afterwards; ``None`` where it is not written.
    executable : bool
    """

    path: str
    what: str
    content: bytes | None = None
    executable: bool = False


def plan_merge(project: Path, before: Path, after: Path) -> list[Merge]:
    """Return what has to be done to a project whose template was ``before`` and is ``after``.

    Lines that only one side changed are taken from that side, and where both changed the same lines both stand
    there between marks. A file that a person deleted stays deleted, and one that a person changed stays when the
    template has it no more. Nothing is written.
    """
    paths = sorted({*_list_files(before), *_list_files(after)})
    return [merge for path in paths if (merge := _plan_file(path, project / path, before / path, after / path))]


def apply_merge(project: Path, merges: list[Merge]) -> None:
    """Write and remove the files as planned."""
    for merge in merges:
        file = project / merge.path
        if merge.what == "removed":
            file.unlink()
        elif merge.content is not None:
            write_whole(file, merge.content)
            if merge.executable:
                file.chmod(file.stat().st_mode | 0o111)


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, with the rights of the one that it replaces."""
    file.parent.mkdir(parents=True, exist_ok=True)
    there = file.exists()
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as made:
        made.write(content)
    if there:
        shutil.copymode(file, made.name)
    else:
        Path(made.name).chmod(0o644)
    Path(made.name).replace(file)


def _list_files(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _plan_file(path: str, mine: Path, before: Path, after: Path) -> Merge | None:
    old, new, there = _read(before), _read(after), _read(mine)
    if old == new or there == new:  # both may be nothing
        return None
    executable = after.exists() and bool(after.stat().st_mode & 0o100)
    if there is None:
        return Merge(path, "added", new, executable) if old is None else Merge(path, "kept")
    if new is None:
        return Merge(path, "removed" if there == old else "kept")
    if there == old:
        return Merge(path, "updated", new, executable)
    content, conflicts = merge_lines(there, old or b"", new)
    return Merge(path, "conflict" if conflicts else "merged", content)


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def merge_lines(mine: bytes, before: bytes, after: bytes) -> tuple[bytes, bool]:
    """Return the lines of both changes of ``before``, and whether they are in conflict.

    Examples
    --------
    >>> merge_lines(b"A\\nb\\nc\\n", b"a\\nb\\nc\\n", b"a\\nb\\nC\\n")
    (b'A\\nb\\nC\\n', False)

    Raises
    ------
    ProjectUnusable
        When git, which merges, is not installed, or refuses: it merges no binary files.
    """
    with tempfile.TemporaryDirectory(prefix="dlpipe-merge-") as folder:
        names = ("mine", "before", "after")
        for name, content in zip(names, (mine, before, after), strict=True):
            Path(folder, name).write_bytes(content)
        words = [word for label in LABELS for word in ("-L", label)]
        try:
            done = subprocess.run(
                ["git", "merge-file", "-p", *words, *names], cwd=folder, capture_output=True, check=False
            )
        except FileNotFoundError:
            raise ProjectUnusable(
                "dlpipe init --update merges with git, which is not installed. Install it."
            ) from None
    if not 0 <= done.returncode < 128:  # the number of conflicts, at most 127
        reason = done.stderr.decode(errors="replace").strip()
        raise ProjectUnusable(f"git could not merge a file: {reason}. Nothing was changed.")
    return done.stdout, done.returncode > 0
