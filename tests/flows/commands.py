"""`dlpipe` as a command in a process of its own, forked from one that has imported MLflow already.

Nine tenths of what such a command costs is that import. Words, folder, environment, output and exit code are those
of the command; Metaflow, whose settings are read when it is imported, is imported by each.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path

IMPORTED = ("dlpipe.cli", "dlpipe.bridge", "mlflow", "mlflow.store.tracking.sqlalchemy_store")
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}  # as `open_store` has it


def dlpipe(
    *words: str, folder: Path, environment: Mapping[str, str], seconds: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Run ``dlpipe`` with these words in a folder, to the end."""
    with tempfile.TemporaryDirectory(prefix="dlpipe-command-") as place:
        out, err = Path(place, "out"), Path(place, "err")
        command = _context().Process(target=_command, args=(words, str(folder), dict(environment), out, err))
        command.start()
        command.join(seconds)
        if command.exitcode is None:
            command.kill()
            command.join()
        assert command.exitcode is not None
        return subprocess.CompletedProcess(("dlpipe", *words), command.exitcode, out.read_text(), err.read_text())


def _context() -> multiprocessing.context.ForkServerContext:
    """Return the context of processes that have what is imported; its server is started once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*IMPORTED])
    before = dict(os.environ)
    os.environ.update(QUIET)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _command(words: tuple[str, ...], folder: str, environment: dict[str, str], out: Path, err: Path) -> None:
    """Become the command."""
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["dlpipe", *words]

    from dlpipe.cli import main

    try:
        main(prog_name="dlpipe")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def without_system(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that a step has made, without those of what it took."""
    return {name: value for name, value in metrics.items() if not name.startswith("system/")}
