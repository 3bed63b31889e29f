"""Which row a row id means in a version of a table: the same in all versions since the commit that brought it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlpipe.errors import DlpipeError, TableVersionNotFound
from dlpipe.lineage.catalog import Catalog
from dlpipe.lineage.indexed_tables import TableIndex
from dlpipe.lineage.nodes import Node

if TYPE_CHECKING:
    from dlpipe.tables import RowOrigin


class RowOrigins:
    """Finds rows, each once."""

    def __init__(self, catalog: Catalog, index: TableIndex) -> None:
        self.catalog, self.index = catalog, index
        self._known: dict[tuple[str, int, str], RowOrigin | None] = {}

    def find_row(self, location: str, version: int, row_id: str) -> Node | None:
        """Return the row with this id in a version of a table; ``None`` where it has none, or cannot be read.

        Parameters
        ----------
        location : str
        version : int
        row_id : str
        """
        origin = self._find(location, version, row_id)
        return None if origin is None else Node("row", location, origin.version, row_id)

    def find_labelling(self, row: Node, version: int) -> int | None:
        """Return the version that filled in the label which a row has in ``version``; ``None`` for its own."""
        origin = self._find(row.name, version, row.key)
        return None if origin is None else origin.labelled

    def find_split(self, row: Node, version: int) -> str:
        """Return the split that a row has in a version of its table; empty where it is in none."""
        origin = self._find(row.name, version, row.key)
        return (origin.split or "") if origin else ""

    def _find(self, location: str, version: int, row_id: str) -> RowOrigin | None:
        from dlpipe.tables import find_remaining, find_remaining_origin, find_row_origin, table_at

        place = location, version, row_id
        if place not in self._known:
            self._known[place] = None
            try:
                self._known[place] = find_row_origin(
                    table_at(location, version=version), row_id, find_groups=self.index.find_groups
                )
            except TableVersionNotFound as error:
                # a forgetting has deleted its files: the other rows are in a later version
                there = table_at(location, version=version)
                self._known[place] = find_remaining_origin(there, row_id)
                if self._known[place] is None and find_remaining(there) is None:
                    self.catalog.problems[f"{location}@v{version}"] = str(error)
            except DlpipeError as error:
                self.catalog.problems[f"{location}@v{version}"] = str(error)
        return self._known[place]
