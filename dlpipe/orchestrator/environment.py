"""The Python packages of an interpreter, by the names of their metadata: nothing is imported.

A deployment keeps them with its version; before each attempt they are compared with what is there now.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError

if TYPE_CHECKING:
    from dlpipe.orchestrator.deployments import Version

KEPT_WITH_THE_CODE = frozenset({"dlpipe", "metaflow", "metaflow-checkpoint"})
"""A deployment has its own copy of these: another version beside it changes nothing."""


def list_packages(python: str) -> dict[str, str]:
    """Return the packages that the interpreter ``python`` finds, name -> version, with ``python`` itself.

    Examples
    --------
    >>> found = list_packages(sys.executable)
    >>> found["python"] == platform.python_version(), "click" in found
    (True, True)
    """
    found = {"python": _find_python_version(python)}
    for folder in _find_site_packages(Path(python)):
        for entry in _list_folder(folder):
            name, _, version = re.sub(r"\.(dist|egg)-info$", "", entry).partition("-")
            found.setdefault(_normalize_name(name), version.split("-py")[0])
    return dict(sorted(found.items()))


def find_changes(version: Version) -> list[str]:
    """Return what is no longer as it was when ``version`` was made, a line a package; empty when nothing is."""
    if not Path(version.python).exists():
        return [f"{version.python} is gone"]
    return compare_packages(version.packages, list_packages(version.python))


def describe_changes(version: Version) -> str:
    """Return in one line how the packages are not those of ``create``; empty if they are."""
    try:
        changes = find_changes(version)
    except (OSError, DlpipeError) as error:
        changes = [str(error)]
    if not changes:
        return ""
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return f"the Python packages are not those of `create`: {'; '.join(changes[:5])}{more}"


def compare_packages(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a line for each package that is not the same.

    Examples
    --------
    >>> compare_packages({"numpy": "1.26", "six": "1.17"}, {"numpy": "2.0", "tqdm": "4.67"})
    ['numpy 1.26 is 2.0', 'six 1.17 is gone', 'tqdm 4.67 is new']
    """
    return [
        _format_change(name, then.get(name), now.get(name))
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name) and name not in KEPT_WITH_THE_CODE
    ]


def _format_change(name: str, then: str | None, now: str | None) -> str:
    if then is None:
        return f"{name} {now} is new"
    return f"{name} {then} is gone" if now is None else f"{name} {then} is {now}"


def _find_python_version(python: str) -> str:
    if python == sys.executable:
        return platform.python_version()
    try:
        done = subprocess.run([python, "-I", "-S", "-V"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip().removeprefix("Python ")


def _find_site_packages(python: Path) -> Iterator[Path]:
    """The folders of packages: of the virtual environment, and of the Python under it where it uses that."""
    prefix = python.parent.parent  # never resolved: the link in a virtual environment says where it is
    yield from _find_below(prefix)
    try:
        settings = (prefix / "pyvenv.cfg").read_text().lower()
    except OSError:
        return
    if re.search(r"^include-system-site-packages\s*=\s*true", settings, re.MULTILINE):
        yield from _find_below(python.resolve().parent.parent)


def _find_below(prefix: Path) -> Iterator[Path]:
    for kind in ("local/lib", "lib", "lib64"):
        for name in ("site-packages", "dist-packages"):
            yield from sorted(prefix.joinpath(kind).glob(f"python3*/{name}"))


def _list_folder(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return []


def _normalize_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
