"""The code of a training, unpacked from what its run kept: Metaflow's code package, or the commit."""

from __future__ import annotations

import difflib
import io
import lzma
import re
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dlpipe
from dlpipe.bridge.packages import read_code_package
from dlpipe.errors import NotReproducible, StorageFull
from dlpipe.reproducing.disk import explain_full_disk
from dlpipe.reproducing.origin import Origin

COMMIT = re.compile(r"[0-9a-f]{7,64}")
INSIDE = ".mf_code"
"""Where a code package has dlpipe and the extensions of Metaflow."""
SECONDS = 60


@dataclass(frozen=True)
class TrainingCode:
    """Code to train with.

    Attributes
    ----------
    words : str
        What it is, such as ``the code package of TrainFlow/17``.
    paths : tuple of Path
        What comes first on the path of Python; empty for what is installed.
    """

    words: str
    paths: tuple[Path, ...] = ()

    @property
    def package(self) -> Path:
        """The folder of its dlpipe."""
        return next((path / "dlpipe" for path in self.paths if (path / "dlpipe").is_dir()), INSTALLED)


INSTALLED = Path(dlpipe.__file__).parent


def unpack_code(origin: Origin, folder: Path) -> TrainingCode:
    """Return the code that a version was trained with, unpacked into ``folder``.

    Raises
    ------
    NotReproducible
        When neither its package nor its commit is to be had.
    """
    package = read_code_package(origin.run) if origin.has_records else None
    if package is not None:
        unpack(package, folder)
        return check_code(TrainingCode(f"the code package of {origin.run}", (folder, folder / INSIDE)))
    commit = origin.version.tags.get("git.commit", "")
    is_whole = origin.version.tags.get("git.uncommitted") == "false" and COMMIT.fullmatch(commit)
    if is_whole and (content := read_commit(commit)) is not None:
        unpack(content, folder)
        return check_code(TrainingCode(f"the commit {commit[:12]}", (folder,)))
    raise NotReproducible(
        f"The code that trained {origin.version.uri} was not kept: {origin.run} has no code package here, and no "
        "commit of this folder's repository is that code. With --code here it is trained with what is installed. "
        "Runs keep their code unless METAFLOW_FEAT_ALWAYS_UPLOAD_CODE_PACKAGE is set to 0."
    )


def check_code(code: TrainingCode) -> TrainingCode:
    """Return ``code`` if it has dlpipe, without which the installed one would be taken for that of then.

    Raises
    ------
    NotReproducible
    """
    if code.package == INSTALLED:
        raise NotReproducible(
            f"In {code.words} there is no dlpipe, so that the code of the training is not known. With --code here "
            "it is trained with what is installed."
        )
    return code


def read_commit(commit: str) -> bytes | None:
    """Return the files of a commit as a tar archive; ``None`` where the repository of this folder has it not."""
    command = ["git", "-c", "core.fsmonitor=false", "archive", "--format=tar", commit]
    try:
        top = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=SECONDS, check=True
        ).stdout.strip()
        return subprocess.run(command, cwd=top, capture_output=True, timeout=SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of an archive into ``folder``.

    Raises
    ------
    NotReproducible
        When it is damaged, or a path or link in it leads out of the folder, or it has a device.
    StorageFull
        When there is no space left for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with explain_full_disk(), tarfile.open(fileobj=io.BytesIO(content)) as packed:
            packed.extractall(folder, filter="data")
    except StorageFull:
        raise
    # those of a damaged archive come from the decompression, too, and from numbers and names that are none
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise NotReproducible(
            f"The kept code cannot be unpacked: {error}. With --code here, what is installed is used."
        ) from None


def compare_packages(then: Path, now: Path) -> Iterator[str]:
    """Yield in a line each file in which two folders of dlpipe's code differ.

    Parameters
    ----------
    then, now : Path
        Folders with Python files.
    """
    before, after = ({str(file.relative_to(root)): file for file in root.rglob("*.py")} for root in (then, now))
    for name in sorted(before.keys() | after.keys()):
        old, new = (read_lines(files.get(name)) for files in (before, after))
        if old == new:
            continue
        blocks = [block for block in difflib.SequenceMatcher(None, old, new).get_opcodes() if block[0] != "equal"]
        gone = sum(end - start for _, start, end, _, _ in blocks)
        added = sum(end - start for *_, start, end in blocks)
        yield f"dlpipe/{name} from line {blocks[0][3] + 1}: {added} added, {gone} gone"


def read_lines(file: Path | None) -> list[str]:
    """Return the lines of a file; none of one that is not there."""
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file else []
