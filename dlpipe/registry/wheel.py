"""dlpipe itself as a wheel among a model's files, so that they can be opened where it is not installed.

Not by ``code_paths``, which would put a second dlpipe in front of one that is installed.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import dlpipe
from dlpipe.task import GROUP, list_own_tasks

WHEELS = "wheels"
"""The folder of a model with the wheel; MLflow names its own folder of wheels so."""
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can hold: the same code is the same bytes


def make_wheel_version() -> str:
    """Return the version of the wheel: a local one, which no package index can have."""
    return f"{dlpipe.__version__}+model"


def list_wheel_requirements() -> list[str]:
    """Return the lines of a ``requirements.txt`` beside ``WHEELS`` that ask for the wheel.

    A local version is above the same version without one, so that pip takes the wheel before whatever a package
    index may have under this name; and a dlpipe that is installed already will do.
    """
    return [f"-f {WHEELS}", f"dlpipe=={dlpipe.__version__}"]


def write_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder`` (made if needed) and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"dlpipe-{make_wheel_version()}-py3-none-any.whl"
    path.write_bytes(build_wheel())
    return path


@functools.cache
def build_wheel() -> bytes:
    """Return the bytes of the wheel, the same for the same code.

    It names no requirements and no entry points but its tasks: what loading needs is in the model's own
    requirements, and nothing of it runs before a model is loaded. Made once a process: three models of a family
    have it.
    """
    info = f"dlpipe-{make_wheel_version()}.dist-info"
    files = [*read_package_files(), *make_metadata_files(info)]
    record = "".join(f"{name},sha256={hash_content(data)},{len(data)}\n" for name, data in files)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in [*files, (f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode())]:
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def read_package_files() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of the package."""
    root = Path(dlpipe.__file__).parent
    for file in sorted(root.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield f"dlpipe/{file.relative_to(root).as_posix()}", file.read_bytes()


def make_metadata_files(info: str) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of the wheel's metadata, but ``RECORD``."""
    about = (
        f"Metadata-Version: 2.1\nName: dlpipe\nVersion: {make_wheel_version()}\nSummary: What opens its models\n"
    )
    yield f"{info}/METADATA", about.encode()
    tasks = "".join(f"{name} = {value}\n" for name, value in list_own_tasks().items())
    yield f"{info}/entry_points.txt", f"[{GROUP}]\n{tasks}".encode()
    yield f"{info}/WHEEL", b"Wheel-Version: 1.0\nGenerator: dlpipe\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def hash_content(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as RECORD writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
