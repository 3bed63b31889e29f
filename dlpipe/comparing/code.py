"""How the code of two sides differs: lines of the commits, where the repository in this folder has them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dlpipe.comparing.sides import CodeState

COMMIT = re.compile(r"[0-9a-f]{7,64}")
SECONDS = 60


@dataclass(frozen=True)
class FileChange:
    """Lines added and removed of a file; both -1 for a file that is no text."""

    path: str
    added: int
    removed: int


@dataclass(frozen=True)
class CodeChange:
    """From the code of the first side to that of another; ``words`` says in a line what is known.

    Attributes
    ----------
    added, removed : int or None
        Lines, ``None`` where they are not known.
    """

    words: str
    added: int | None = None
    removed: int | None = None
    files: tuple[FileChange, ...] = ()


def compare_code(first: CodeState, second: CodeState, *, folder: Path | None = None) -> CodeChange:
    """Return how the code of two sides differs, as far as it is known here.

    Parameters
    ----------
    first, second : CodeState
    folder : Path, optional
        In the repository; by default the working folder.
    """
    loose = describe_uncommitted(first, second)
    if not first.commit or not second.commit:
        if first.package and second.package:
            same = first.package == second.package
            return CodeChange(f"{'the same code package' if same else 'other code packages'}, no commit{loose}")
        return CodeChange(f"not known: {describe_missing(first, second)}{loose}")
    if first.commit == second.commit:
        return CodeChange(f"the same commit {first.commit[:12]}{loose}", 0, 0)
    pair = f"{first.commit[:12]} to {second.commit[:12]}"
    files = list_changes(first.commit, second.commit, folder=folder or Path.cwd())
    if isinstance(files, str):
        return CodeChange(f"{pair}: {files}{loose}")
    added, removed = (sum(max(0, getattr(one, name)) for one in files) for name in ("added", "removed"))
    count = f"{len(files)} file{'' if len(files) == 1 else 's'}"
    return CodeChange(f"{pair}: {count}, {added} lines added, {removed} removed{loose}", added, removed, files)


def describe_missing(first: CodeState, second: CodeState) -> str:
    """Return which of two sides names no commit."""
    missing = [name for name, code in (("the first", first), ("the second", second)) if not code.commit]
    return f"{' and '.join(missing)} name{'s' if len(missing) == 1 else ''} no commit"


def describe_uncommitted(first: CodeState, second: CodeState) -> str:
    """Return the end of a line that says which side ran with changes that were not committed.

    Examples
    --------
    >>> describe_uncommitted(CodeState("a"), CodeState("a", "true", uncommitted_lines=3))
    '; the second with uncommitted changes of 3 lines'
    """
    found = []
    for name, code in (("the first", first), ("the second", second)):
        if code.uncommitted == "true" or code.uncommitted_lines:
            lines = f" of {code.uncommitted_lines:,} lines" if code.uncommitted_lines else ""
            found.append(f"{name} with uncommitted changes{lines}")
    return f"; {', '.join(found)}" if found else ""


def list_changes(first: str, second: str, *, folder: Path) -> tuple[FileChange, ...] | str:
    """Return the files in which two commits differ, those with the most lines first; else why that is not known.

    Parameters
    ----------
    first, second : str
        Commits, which metadata of others may name: anything but hexadecimal digits is refused.
    folder : Path
        In the repository.
    """
    if not COMMIT.fullmatch(first) or not COMMIT.fullmatch(second):
        return "no commits of git"
    options = ("--numstat", "-z", "--no-renames", "--no-ext-diff", "--no-textconv")
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), "diff", *options, first, second, "--"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "git does not answer here"
    if done.returncode:
        return "the repository of this folder has not both commits"
    return tuple(sorted(parse_numstat(done.stdout), key=lambda one: -(one.added + one.removed)))


def parse_numstat(output: bytes) -> Sequence[FileChange]:
    r"""Return the files that ``git diff --numstat -z`` lists.

    Examples
    --------
    >>> parse_numstat(b"3\t1\ta.py\x00-\t-\tb.png\x00")
    [FileChange(path='a.py', added=3, removed=1), FileChange(path='b.png', added=-1, removed=-1)]
    """
    found = []
    for entry in filter(None, output.decode(errors="replace").split("\0")):
        added, removed, path = entry.split("\t", 2)
        found.append(FileChange(path, *(int(count) if count.isdigit() else -1 for count in (added, removed))))
    return found
