"""Which row a row id means in a version of a table: the same in all versions since the commit that brought it."""

from __future__ import annotations

from dlpipe.errors import DlpipeError
from dlpipe.lineage.catalog import Catalog
from dlpipe.lineage.nodes import Node


class RowOrigins:
    """Finds rows, each once."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._known: dict[tuple[str, int, str], tuple[Node | None, int | None]] = {}

    def find_row(self, location: str, version: int, row_id: str) -> Node | None:
        """Return the row with this id in a version of a table; ``None`` where it has none, or cannot be read.

        Parameters
        ----------
        location : str
        version : int
        row_id : str
        """
        return self._find(location, version, row_id)[0]

    def find_labelling(self, row: Node, version: int) -> int | None:
        """Return the version that filled in the label which a row has in ``version``; ``None`` for its own."""
        return self._find(row.name, version, row.key)[1]

    def _find(self, location: str, version: int, row_id: str) -> tuple[Node | None, int | None]:
        from dlpipe.tables import find_row_origin, table_at

        place = location, version, row_id
        if place not in self._known:
            self._known[place] = None, None
            try:
                origin = find_row_origin(table_at(location, version=version), row_id)
            except DlpipeError as error:
                self.catalog.problems[f"{location}@v{version}"] = str(error)
            else:
                if origin is not None:
                    self._known[place] = Node("row", location, origin.version, row_id), origin.labelled
        return self._known[place]
