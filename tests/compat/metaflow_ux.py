"""Metaflow's own user-level suite, ``test/ux/core``, in deployer mode on ``local-scheduler``.

    python tests/compat/metaflow_ux.py CHECKOUT [PYTEST-WORDS ...]

``CHECKOUT`` is a folder with Metaflow's repository, of about the version that is installed. The suite is copied to
a folder of its own, in which state, runs and tables are as well, a scheduler runs beside it, and the two tests of
``@timeout`` that Metaflow skips on remote backends run too. What the suite imports beyond pytest (``omegaconf``)
is fetched into that folder. Its test of conda, which downloads conda, is left out unless another ``-m`` is given.
About a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

SKIPPED_TIMEOUT = re.compile(r'@pytest\.mark\.skip\(\s*reason="@timeout enforcement.*?\n\)\n', re.DOTALL)
OPTIONS = ["--scheduler-type", "local-scheduler", "--exec-mode", "deployer", "-m", "not conda"]
QUIET = ["-p", "no:cacheprovider", "-q", "-rs", "--tb", "short"]
NEEDS = ["omegaconf", "antlr4-python3-runtime==4.9.3", "pyyaml"]


def main(checkout: Path, words: list[str]) -> int:
    """Run the suite and return pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="metaflow-ux-") as name:
        folder = Path(name)
        suite = copy_suite(checkout, folder)
        variables = variables_of(folder)
        with scheduling(folder, variables):
            command = [sys.executable, "-m", "pytest", "-c", suite / "pytest.ini", "--rootdir", suite]
            tests = [] if any("test_" in word for word in words) else [suite / "core"]
            return subprocess.run(
                [*command, *QUIET, *OPTIONS, *words, *tests], env=variables, cwd=suite
            ).returncode


def copy_suite(checkout: Path, folder: Path) -> Path:
    """Copy the suite, and return where it is; its tests of ``@timeout`` are skipped no more."""
    suite = folder / "test/ux"
    shutil.copytree(checkout / "test/ux", suite)
    compliance = suite / "core/test_compliance.py"
    text, count = SKIPPED_TIMEOUT.subn("", compliance.read_text())
    if count != 2:
        raise SystemExit(f"{compliance} skips {count} tests of @timeout, not 2: look at what has changed.")
    compliance.write_text(text)
    needed = ["pip", "install", "--quiet", "--no-deps", "--target", str(folder / "needed"), *NEEDS]
    subprocess.run([sys.executable, "-m", *needed], check=True)
    return suite


def variables_of(folder: Path) -> Mapping[str, str]:
    """Return the environment of the suite: nothing of the caller's Metaflow, and a state of its own."""
    ours = ("METAFLOW_", "MLFLOW_", "DLPIPE_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "PYTHONPATH": str(folder / "needed"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)]),
        "DLPIPE_STATE": str(folder / "state"),
        "METAFLOW_HOME": str(folder / "home"),
        "METAFLOW_PROFILE": "",  # the suite would ask for one of its own
        "METAFLOW_USER": "ux",
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
    }


@contextlib.contextmanager
def scheduling(folder: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Run a scheduler until the suite has ended."""
    words = [sys.executable, "-m", "dlpipe.cli", "scheduler", "--port", "0", "--max-runs", "4"]
    with (folder / "scheduler.txt").open("w") as log:
        scheduler = subprocess.Popen(words, env=dict(variables), cwd=folder, stderr=log)
    try:
        while scheduler.poll() is None and not (folder / "state/scheduler.json").exists():
            time.sleep(0.1)
        yield
    finally:
        scheduler.terminate()
        scheduler.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
