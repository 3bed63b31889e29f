"""A deployment's code, kept where editing the working tree does not reach it.

What is kept is Metaflow's own code package, unpacked: the flow's folder, and under ``.mf_code`` Metaflow, its
extensions and dlpipe. Each version has a folder of its own, written beside and renamed when it is whole. A file
that is in another kept folder already is linked to it, with its bytecode, so that a further version costs little.
"""

from __future__ import annotations

import compileall
import contextlib
import hashlib
import io
import os
import py_compile
import re
import shutil
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.durable import make_folder, move_folder
from dlpipe.errors import DeploymentRefused, StateUnusable
from dlpipe.orchestrator.runs import OPEN, RESUMABLE

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version
    from dlpipe.orchestrator.state import State

KEPT_VERSIONS = 5
"""So many of a deployment's versions keep their code, and those that a run needs or may need."""
ABANDONED_AFTER = 3600.0
"""Seconds after which a folder that is not whole belongs to a process that was killed."""
NO_CODE = (".mf_meta/INFO", ".mf_install")
"""Files that say of which commit the code is, who packed it and how."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+=-]*")


@dataclass(frozen=True)
class CodeDifference:
    """Files, by name, in which other code is not that of a version."""

    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.added or self.removed)


class CodePackage:
    """A code package: the bytes of a ``tar.gz``, its files' digests and the digest of all."""

    def __init__(self, content: bytes) -> None:
        self.files = {name: hashlib.sha256(data).hexdigest() for name, data in _read_members(content)}
        self.digest = combine_digests(self.files)
        self._content = content

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Yield each file's name and content."""
        return _read_members(self._content)


def combine_digests(files: Mapping[str, str]) -> str:
    """Return the SHA-256 over files' names and digests.

    Examples
    --------
    >>> combine_digests({"flow.py": "5e0a"}) == combine_digests({"flow.py": "5e0a", ".mf_meta/INFO": "91ab"})
    True
    """
    lines = [f"{name} {digest}\n" for name, digest in sorted(files.items()) if name not in NO_CODE]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_files(folder: Path) -> dict[str, str]:
    """Return the digests of the files of kept code, by name."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _list_files(folder)}


def compare_code(version: Version, package: CodePackage) -> CodeDifference:
    """Return in which files ``package`` is not the code of ``version``."""
    kept, now = digest_files(Path(version.code)), package.files
    both = sorted(kept.keys() & now.keys() - set(NO_CODE))
    return CodeDifference(
        tuple(name for name in both if kept[name] != now[name]),
        tuple(sorted(now.keys() - kept.keys() - set(NO_CODE))),
        tuple(sorted(kept.keys() - now.keys() - set(NO_CODE))),
    )


def check_deployment_name(name: str) -> str:
    """Return ``name``, which is safe as a folder's.

    Raises
    ------
    DeploymentRefused
        When it is not.
    """
    if NAME.fullmatch(name) is None:
        raise DeploymentRefused(
            f"{name!r} cannot be a deployment's name: letters, digits and ._@+=- are allowed, and the first is a "
            "letter or a digit."
        )
    return name


def freeze(package: CodePackage, name: str, *, under: Path) -> Path:
    """Unpack ``package`` for the deployment ``name`` and return the folder, which has no version's name yet.

    Parameters
    ----------
    under : Path
        The state folder.

    Raises
    ------
    StateUnusable
        When it cannot be written, as on a full disk; nothing is left behind.
    """
    # under a name that no version has: what a kill leaves behind is swept up, and never run
    home = under / "code" / check_deployment_name(name)
    folder = home / f".new-{uuid.uuid4().hex}"
    try:
        make_folder(home)
        _remove_abandoned(home)
        folder.mkdir()
        _fill(folder, package, _find_twins(under / "code", package))
    except OSError as error:
        _remove(folder)
        raise StateUnusable(
            f"The code of {name!r} could not be kept in {home}: {error.strerror or error}. Nothing was deployed."
        ) from None
    except BaseException:
        _remove(folder)
        raise
    return folder


def name_as_version(folder: Path, number: int, digest: str) -> Path:
    """Give a closed folder its name as version ``number`` and return it: an instant, for the state is locked.

    Parameters
    ----------
    folder : Path
        What ``freeze`` returned, after ``seal``.
    number : int
        Of the version.
    digest : str
        SHA-256 of the code, of which the name has the beginning.
    """
    versioned = folder.with_name(f"{number}-{digest[:12]}")
    if versioned.exists():  # of a create that was killed before it was noted
        _remove(versioned)
    os.chmod(folder, 0o755)  # a folder that cannot be written to cannot be renamed either
    move_folder(folder, versioned)
    os.chmod(versioned, 0o555)
    return versioned


def discard(folder: Path) -> None:
    """Remove a frozen folder that no version has become."""
    _remove(folder)


def prune(state: State, name: str, *, keep: int = KEPT_VERSIONS) -> list[int]:
    """Remove the code of old versions of ``name``; return their numbers.

    The newest ``keep`` stay, and those that a run needs which has not ended. So do those of runs that may be
    resumed, unless the deployment was deleted, which nobody resumes.
    """
    with state.transaction():  # they are chosen and out of reach in one moment; removing them takes longer
        deployed = state.is_deployed(name)
        needed = state.find_needed_versions(name, (*OPEN, *RESUMABLE) if deployed else OPEN)
        needed |= state.find_versions_with_hooks(name)
        old = [
            version
            for version in state.list_versions(name)[keep if deployed else 0 :]
            if version.number not in needed
        ]
        going = {version.number: _put_aside(Path(version.code)) for version in old if Path(version.code).is_dir()}
    for folder in going.values():
        _remove(folder)
    return list(going)


def _put_aside(folder: Path) -> Path:
    os.chmod(folder, 0o755)  # a folder that cannot be written to cannot be renamed either
    return folder.rename(folder.with_name(f".old-{uuid.uuid4().hex}"))


def _read_members(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packed:
        for member in packed:
            # what pip compiled at an install is no part of the code: it is compiled where it is kept
            if not member.isfile() or "__pycache__" in Path(member.name).parts:
                continue
            if (data := packed.extractfile(member)) is not None:
                yield os.path.normpath(member.name), data.read()


def _list_files(folder: Path) -> Iterator[str]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (os.path.relpath(os.path.join(at, name), folder) for name in names)


def _fill(folder: Path, package: CodePackage, twins: Mapping[str, Path]) -> None:
    fresh = []
    for name, data in package.members():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise OSError(f"{name!r} leads out of the code package")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _link(twins.get(package.files[name]), target):
            target.write_bytes(data)
            fresh.append(target)
    for target in fresh:
        if target.suffix == ".py":
            _compile(target)


def _find_twins(code: Path, package: CodePackage) -> dict[str, Path]:
    """Kept files that have the content of one of the package's, by digest; from the folder kept last."""
    try:
        folders = sorted(code.glob("*/[0-9]*-*"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    except OSError:
        return {}
    twins: dict[str, Path] = {}
    for folder in folders[:1]:
        with contextlib.suppress(OSError):
            twins = {digest: folder / name for name, digest in digest_files(folder).items()}
    return {digest: twins[digest] for digest in set(package.files.values()) & twins.keys()}


def _link(twin: Path | None, target: Path) -> bool:
    """Whether ``target`` is now ``twin`` under a second name, with its bytecode where that has the same name."""
    if twin is None or twin.name != target.name:
        return False
    try:
        os.link(twin, target)
    except OSError:  # pruned a moment ago, or too many links: written anew
        return False
    if target.suffix == ".py":
        with contextlib.suppress(OSError):
            bytecode = _find_bytecode(target)
            bytecode.parent.mkdir(exist_ok=True)
            os.link(_find_bytecode(twin), bytecode)
    return True


def _find_bytecode(source: Path) -> Path:
    from importlib.util import cache_from_source

    return Path(cache_from_source(str(source)))


def _compile(source: Path) -> None:
    # unchecked: the code never changes, so no import needs to look at its time; a file that does not compile
    # breaks its own import, not this
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_file(source, quiet=2, invalidation_mode=unchecked)


def seal(folder: Path) -> None:
    """Let nobody write to a frozen folder, and have it on the disk."""
    for at, _, names in os.walk(folder, topdown=False):
        for name in names:
            os.chmod(os.path.join(at, name), 0o444)
        os.chmod(at, 0o555)


def _remove(folder: Path) -> None:
    for at, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(at, 0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(home: Path) -> None:
    for folder in (*home.glob(".new-*"), *home.glob(".old-*")):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - ABANDONED_AFTER:
                _remove(folder)
