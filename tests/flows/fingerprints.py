"""What a project holds, byte for byte: every file, link and folder, and every row of its MLflow database."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

PASSED_OVER = ("__pycache__", ".log")
"""Compiled modules, and what tests write beside a command."""


def take_fingerprint(folder: Path) -> dict[str, str]:
    """Return a digest of each file and row of a project, by their names."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if any(word in name for word in PASSED_OVER) or name.startswith("mlflow.db-"):  # journals, read below
            continue
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**found, **_read_rows(folder / "mlflow.db")}


def _read_rows(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            f"mlflow.db: {name}": repr(sorted(opened.execute(f"SELECT * FROM {name}"), key=repr))
            for name in tables
        }
