"""The process that trains again: its environment, and its end with that of whoever started it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlpipe.errors import NotReproducible
from dlpipe.machine import read_cpu_features
from dlpipe.reproducing import retraining
from dlpipe.reproducing.code import TrainingCode
from dlpipe.reproducing.disk import make_full_error
from dlpipe.reproducing.origin import Origin
from dlpipe.tables import TableVersion
from dlpipe.training import Domain

LOWER = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "DEFAULT": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
"""What has a processor of today compute with the instructions of an older one."""
NOT_INHERITED = ("MLFLOW_", "METAFLOW_")
"""How the variables begin that would lead a training to the user's runs, models and experiments."""
NO_SPACE = ("No space left on device", "Disk quota exceeded")


def train_again(
    origin: Origin,
    *,
    rows: TableVersion,
    settings: Mapping[str, Any],
    code: TrainingCode,
    scratch: Path,
    lock: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train in a process of its own, with ``code``; return what came of it.

    Parameters
    ----------
    rows : TableVersion
        Features are kept beside it.
    scratch : Path
        Gets the model, as ``model``.
    lock : int
        A descriptor that the process inherits: while it lives, nobody takes ``scratch`` for one that was left.

    Raises
    ------
    NotReproducible
        When the training fails; the message has its last line.
    StorageFull
        When it fails for want of space.
    """
    request = scratch / "request.json"
    asked = {"task": origin.version.task, "table": rows.path, "version": rows.version, "settings": dict(settings)}
    request.write_text(json.dumps({**asked, "folder": str(scratch)}))
    command = [sys.executable, "-P", str(Path(retraining.__file__)), str(request)]
    last = ""
    with run_to_the_end(command, environment=build_environment(origin, code, scratch), lock=lock) as process:
        assert process.stdout is not None
        for line in filter(None, map(str.rstrip, process.stdout)):
            last = line
            say(line)
        process.wait()
    if process.returncode:
        if any(words in last for words in NO_SPACE):
            raise make_full_error()
        why = last or f"its process ended with {process.returncode}"
        raise NotReproducible(f"{origin.version.uri} could not be trained again with {code.words}: {why}")
    result: dict[str, Any] = json.loads((scratch / "result.json").read_text())
    return result


@contextmanager
def run_to_the_end(
    command: list[str], *, environment: Mapping[str, str], lock: int
) -> Iterator[subprocess.Popen[str]]:
    """Run a process whose output is read; it is killed where the block is left early.

    Its standard input ends when this process ends, however that happens: ``retraining`` ends with it.
    """
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
    )
    try:
        yield process
    finally:
        process.kill()  # does nothing to one that has ended
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
        process.wait()


def build_environment(origin: Origin, code: TrainingCode, scratch: Path) -> dict[str, str]:
    """Return the environment of the training: the code first, stores that are nobody's, the domain's variables.

    A variable of the domain that is set here stays as it is: whoever sets it wants to see what it changes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    ours = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch / 'mlflow.db'}",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(scratch / "metaflow"),
        "DLPIPE_TABLES": str(scratch / "tables"),
        "DLPIPE_STATE": str(scratch / "state"),
        "TMPDIR": str(scratch),  # torch leaves a folder of its compiler
        "PYTHONUNBUFFERED": "1",
        **(choose_instructions(origin.domain) if origin.domain else {}),
    }
    if code.paths:  # other packages may be on a path that was given to this process
        given = os.environ.get("PYTHONPATH")
        ours["PYTHONPATH"] = os.pathsep.join([*map(str, code.paths), *([given] if given else [])])
    wanted = origin.domain.variables if origin.domain else {}
    return {**kept, **ours, **{name: value for name, value in wanted.items() if name not in os.environ}}


def choose_instructions(domain: Domain) -> dict[str, str]:
    """Return the variables that hold this processor to the instructions of ``domain``, where it has more."""
    has_more = any(flag.startswith("avx512") for flag in read_cpu_features()) or (
        domain.capability == "DEFAULT" and "avx2" in read_cpu_features()
    )
    lower = LOWER.get(domain.capability, {}) if has_more else {}
    return {name: value for name, value in lower.items() if name not in os.environ}
