"""MLflow's dataset source for Delta tables that delta-rs reads: no Spark, and version 0 counts.

MLflow finds it by the entry point ``mlflow.dataset_source``, and imports it only then.
"""

from __future__ import annotations

from typing import Any

from mlflow.data.dataset_source import DatasetSource

from dlpipe.delta import check_readable, find_files, open_storage


class DeltaSource(DatasetSource):
    """One version of a Delta table.

    Parameters
    ----------
    path : str
        Folder or URI of the table.
    version : int
        Its version; 0 is the first.
    """

    def __init__(self, path: str, version: int) -> None:
        self.path, self.version = path, version

    @staticmethod
    def _get_source_type() -> str:
        return "delta_rs"

    def load(self, **storage_options: str) -> Any:
        """Return the rows as a pyarrow table; ``storage_options`` are those of delta-rs."""
        from deltalake import DeltaTable

        table = DeltaTable(self.path, version=self.version, storage_options=storage_options or None)
        check_readable(table, self.path)
        return find_files(table, open_storage(self.path, storage_options), self.path).read()

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> DeltaSource:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return path and version."""
        return {"path": self.path, "version": self.version}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> DeltaSource:
        """Return the source that ``to_dict`` described."""
        return cls(source_dict["path"], source_dict["version"])
