"""The schema of MLflow's SQLite store, as migrations make it: ``python tests/mlflow_schema.py`` writes it anew."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from dlpipe.tracking._databases import find_schema_file

HEAD = "-- The tables of MLflow's SQLite store, as its migrations make them: python tests/mlflow_schema.py"


def migrated_schema(folder: Path) -> str:
    """Return the SQL of an empty store that MLflow itself has made in ``folder``, without its first experiment."""
    database = folder / "migrated.db"
    SqlAlchemyStore(f"sqlite:///{database}", str(folder / "artifacts")).engine.dispose()
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM experiments")
    connection.commit()
    lines = "\n".join(connection.iterdump())
    connection.close()
    return f"{HEAD}\n{lines}\n"


def statements(sql: str) -> list[list[str]]:
    """Return the statements of ``sql`` with their lines in order: MLflow's constraints and indexes come in any."""
    return sorted(sorted(line.strip(" ,") for line in one.splitlines()) for one in sql.split(";\n"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        find_schema_file().write_text(migrated_schema(Path(name)))
