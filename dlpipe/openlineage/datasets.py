"""Data sets of events: tables, files, models and logs of requests, each with what is to be told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial

from openlineage.client.event_v2 import InputDataset, OutputDataset, StaticDataset
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    data_quality_assertions_dataset,
    dataset_type_dataset,
    dataset_version_dataset,
    input_statistics_input_dataset,
)

from dlpipe.lineage import OF_TABLES, Node, Records
from dlpipe.lineage.catalog import TableRecord
from dlpipe.lineage.tables import make_table_node
from dlpipe.openlineage.model_facets import make_model_facets
from dlpipe.openlineage.naming import Name, find_version, name_node
from dlpipe.openlineage.table_facets import TableFacets


class Datasets:
    """The data sets of events; what is to be told of a version is read once.

    Parameters
    ----------
    records : Records
        Of what is there by now.
    """

    def __init__(self, records: Records) -> None:
        self.records = records
        self._tables: dict[Node, TableFacets | None] = {}
        self._facets: dict[Node, Mapping[str, DatasetFacet]] = {}

    def make_input(self, node: Node, *, by: Node | None = None) -> InputDataset:
        """Return a version that something was made of.

        Parameters
        ----------
        node : Node
        by : Node, optional
            What was made of it: of a file it tells how many rows were set aside.
        """
        name, table = get_name(node), self._find_table(node)
        facets: dict[str, InputDatasetFacet] = table.make_input_facets() if table else {}
        if node.kind == "file":
            facets = self._make_file_facets(node, by)
        return InputDataset(name.namespace, name.name, facets=dict(self._make_facets(node)), inputFacets=facets)

    def make_output(self, node: Node) -> OutputDataset:
        """Return a version that was made."""
        name, table = get_name(node), self._find_table(node)
        facets, written = dict(self._make_facets(node)), dict[str, OutputDatasetFacet]()
        if table:
            facets |= table.make_facets_when_written()
            written = table.make_output_facets()
        return OutputDataset(name.namespace, name.name, facets=facets, outputFacets=written)

    def make_static(self, node: Node, more: Mapping[str, DatasetFacet]) -> StaticDataset:
        """Return a version by itself, with facets that say what is new of it."""
        name = get_name(node)
        return StaticDataset(name.namespace, name.name, facets={**self._make_version(node), **more})

    def _make_version(self, node: Node) -> dict[str, DatasetFacet]:
        if not (version := find_version(node)):
            return {}
        return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=version)}

    def _make_facets(self, node: Node) -> Mapping[str, DatasetFacet]:
        if node not in self._facets:
            self._facets[node] = {**self._make_version(node), **self._describe(node)}
        return self._facets[node]

    def _describe(self, node: Node) -> Mapping[str, DatasetFacet]:
        if node.kind == "model":
            version = self.records.models.find_version(node)
            return make_model_facets(version) if version else {}
        if node.kind in ("file", "requests"):
            kind = {"file": "FILE", "requests": "TABLE"}[node.kind]
            named = dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=kind, subType=node.kind.upper())
            return {"datasetType": named}
        table = self._find_table(node)
        return table.make_facets() if table else {}

    def _find_table(self, node: Node) -> TableFacets | None:
        """Return what is known of a version of a table; ``None`` for anything else, and one that is gone."""
        if node not in self._tables:
            record = self.records.catalog.find(node.name) if node.kind in OF_TABLES else None
            there = record is not None and node.number in record.commits
            find_former = partial(self._find_former_columns, node)
            self._tables[node] = TableFacets(self.records, record, node, find_former) if record and there else None
        return self._tables[node]

    def _find_former_columns(self, node: Node) -> Sequence[tuple[str, str]]:
        """Return the columns of the version before; it is an input as well, so that it is looked at anyway."""
        record, before = self.records.catalog.find(node.name), (node.number or 0) - 1
        if record is None or before not in record.commits:
            return ()
        former = self._find_table(make_table_node(record, before))
        return former.version.columns if former and former.version else ()

    def _make_file_facets(self, node: Node, by: Node | None) -> dict[str, InputDatasetFacet]:
        """Return the size of a file as it was read, and whether rows of it had to be set aside."""
        record = self.records.catalog.find(by.name) if by else None
        if record is None or by is None or by.number is None:
            return {}
        facets: dict[str, InputDatasetFacet] = {}
        for source in record.list_sources(by.number):
            if source.get("sha256") == node.key and isinstance(source.get("size"), int):
                facets["inputStatistics"] = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                    size=source["size"], fileCount=1
                )
        if (set_aside := self._count_set_aside(record, by.number)) is not None:
            facets["dataQualityAssertions"] = make_assertion(set_aside)
        return facets

    def _count_set_aside(self, record: TableRecord, number: int) -> int | None:
        """Return how many rows of the sources of a version were set aside; ``None`` where nobody says."""
        if record.kind != "data" or "form" not in record.commits[number]:
            return None
        quarantine = self._quarantines.get(f"{record.location}_quarantine")
        for commit in reversed(list(quarantine.commits.values())) if quarantine else ():
            if commit.get("sources") == record.list_sources(number):
                return int(commit.get("rows", 0))
        return 0

    @cached_property
    def _quarantines(self) -> Mapping[str, TableRecord]:
        return {record.location: record for record in self.records.catalog.list_records("quarantine")}


def get_name(node: Node) -> Name:
    """Return what a node is called as a data set.

    Raises
    ------
    ValueError
        For a node that is none.
    """
    if (name := name_node(node)) is None:
        raise ValueError(f"{node.id} is no data set")
    return name


def make_assertion(set_aside: int) -> InputDatasetFacet:
    """Return the facet that says whether all rows of the sources of an ingest could be rows of its table."""
    found = data_quality_assertions_dataset.Assertion(
        assertion="valid_rows",
        success=set_aside == 0,
        severity="warn",
        expected="0",
        actual=str(set_aside),
        description="Rows of the sources of this ingest that could not be rows of the table, and were set aside.",
    )
    return data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(assertions=[found])
