"""The wheel of this tree, installed into an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def install_wheel(folder: Path) -> Path:
    """Return the Python of an environment in which the wheel is installed, and which sees what dlpipe needs."""
    isolated = [] if find_spec("hatchling") is None else ["--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", *isolated, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env/bin/python"
    there = subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=False)
    assert there.returncode == 0
    (packages,) = folder.glob("env/lib/python3*/site-packages")
    # all in one folder, as pip puts it: the other package that extends Metaflow could hide dlpipe
    needs = Path(sysconfig.get_paths()["purelib"])
    for entry in needs.iterdir():
        if "dlpipe" not in entry.name and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    shutil.copytree(needs / "metaflow_extensions/obcheckpoint", packages / "metaflow_extensions/obcheckpoint")
    return python
