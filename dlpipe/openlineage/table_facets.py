"""What is to be told of a version of a table: columns, rows, missing values, splits, and what columns came of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    column_lineage_dataset,
    data_quality_metrics_dataset,
    dataset_type_dataset,
    datasource_dataset,
    input_statistics_input_dataset,
    lifecycle_state_change_dataset,
    output_statistics_output_dataset,
    schema_dataset,
    storage_dataset,
    symlinks_dataset,
    tags_dataset,
)

from dlpipe.errors import DlpipeError
from dlpipe.lineage import Node, Records
from dlpipe.lineage.catalog import TableRecord
from dlpipe.lineage.tables import builds_on_former
from dlpipe.openlineage.naming import Name, find_namespace, name_location
from dlpipe.tables import RowForm, TableStatistics, TableVersion, count_rows, read_form, read_statistics, table_at

MADE_OF_ROWS: Mapping[str, Sequence[str]] = {
    "predictions": ("predicted", "probability"),
    "explanations": ("part", "attribution"),
}
"""The columns that a model made of the columns which it reads."""


class TableFacets:
    """What is to be told of one version of a table; what cannot be read any more is left out.

    Parameters
    ----------
    records : Records
    record : TableRecord
        The table.
    node : Node
        The version.
    find_former : callable
        Returns the columns of the version before, by name and type; none where there is none.
    """

    def __init__(
        self,
        records: Records,
        record: TableRecord,
        node: Node,
        find_former: Callable[[], Sequence[tuple[str, str]]],
    ) -> None:
        self.records, self.record, self.node, self.find_former = records, record, node, find_former
        self.number = node.number or 0
        self.commit = record.commits.get(self.number, {})
        self.version: TableVersion | None = None
        self.statistics: TableStatistics | None = None
        with suppress(DlpipeError):  # vacuumed, or damaged
            self.version = table_at(record.location, version=self.number)
            self.statistics = read_statistics(self.version)

    def make_facets(self) -> dict[str, DatasetFacet]:
        """Return what is true of the version, whoever reads or writes it."""
        name = name_location(self.record.location)
        address = f"{name.namespace}/{name.name}" if "://" in name.namespace else f"file://{name.name}"
        named = {
            "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(
                datasetType="TABLE", subType=self.node.kind.upper()
            ),
            "dataSource": datasource_dataset.DatasourceDatasetFacet(name=self.record.name, uri=address),
            "storage": storage_dataset.StorageDatasetFacet(storageLayer="delta", fileFormat="parquet"),
            "symlinks": self._make_symlinks(),
            "schema": self._make_schema(),
            "dataQualityMetrics": self._make_quality(),
            "tags": self._make_tags(),
        }
        return {key: facet for key, facet in named.items() if facet is not None}

    def make_facets_when_written(self) -> dict[str, DatasetFacet]:
        """Return what is true of the commit that made the version."""
        named = {"lifecycleStateChange": self._make_change(), "columnLineage": self._make_column_lineage()}
        return {key: facet for key, facet in named.items() if facet is not None}

    def make_input_facets(self) -> dict[str, InputDatasetFacet]:
        """Return how much there was to read."""
        if self.statistics is None:
            return {}
        return {
            "inputStatistics": input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
                rowCount=self.statistics.rows, size=self.statistics.size, fileCount=self.statistics.files
            )
        }

    def make_output_facets(self) -> dict[str, OutputDatasetFacet]:
        """Return how much was written; the size is known where all of the version was."""
        rows = self._count_written()
        if rows is None:
            return {}
        whole = self.statistics if not builds_on_former(self.commit) else None
        return {
            "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                rowCount=rows, size=whole.size if whole else None, fileCount=whole.files if whole else None
            )
        }

    def _count_written(self) -> int | None:
        if "rows" not in self.commit:
            return None
        rows, before = int(self.commit["rows"]), self.record.commits.get(self.number - 1, {})
        if "appended" in self.commit:
            return int(self.commit["appended"])
        if self.commit.get("mode") == "Append" and self.number:
            return rows - int(before["rows"]) if "rows" in before else None
        return rows

    def _make_symlinks(self) -> DatasetFacet | None:
        """Return the name that the table has for people, beside that of its place."""
        names = {location: name for name, location in self.records.catalog.list_names()}
        if (called := names.get(self.record.location)) is None:
            return None
        other = symlinks_dataset.Identifier(namespace=find_namespace(), name=called, type="TABLE")
        return symlinks_dataset.SymlinksDatasetFacet(identifiers=[other])

    def _make_schema(self) -> DatasetFacet | None:
        if self.version is None:
            return None
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name=name, type=kind) for name, kind in self.version.columns
        ]
        return schema_dataset.SchemaDatasetFacet(fields=fields)

    def _make_quality(self) -> DatasetFacet | None:
        found = self.statistics
        if found is None or not found.nulls:
            return None
        columns = {
            name: data_quality_metrics_dataset.ColumnMetrics(nullCount=count, count=found.rows - count)
            for name, count in found.nulls.items()
        }
        return data_quality_metrics_dataset.DataQualityMetricsDatasetFacet(
            columnMetrics=columns, rowCount=found.rows, bytes=found.size, fileCount=found.files
        )

    def _make_tags(self) -> DatasetFacet:
        """Return the digest of the content, and of a data set how many rows each split has."""
        tags = {"digest": str(self.commit["digest"])} if "digest" in self.commit else {}
        with suppress(DlpipeError):
            counts = count_rows(self.version) if self.version and self.record.kind == "data" else None
            if counts is not None and counts.group == "split":
                tags |= {f"rows.{split}": str(rows) for split, rows in counts.rows.items() if split}
        made = [
            tags_dataset.TagsDatasetFacetFields(key=key, value=value, source="DLPIPE")
            for key, value in tags.items()
        ]
        return tags_dataset.TagsDatasetFacet(tags=made)

    def _make_change(self) -> DatasetFacet | None:
        """Return what the commit did to the table as a whole; ``None`` where it only added rows."""
        if self.number == 0:
            kind = lifecycle_state_change_dataset.LifecycleStateChange.CREATE
        elif "rows" in self.commit and not builds_on_former(self.commit):
            kind = lifecycle_state_change_dataset.LifecycleStateChange.OVERWRITE
        elif self._has_new_columns():
            kind = lifecycle_state_change_dataset.LifecycleStateChange.ALTER
        else:
            return None
        return lifecycle_state_change_dataset.LifecycleStateChangeDatasetFacet(lifecycleStateChange=kind)

    def _has_new_columns(self) -> bool:
        former = self.find_former()
        return self.version is not None and bool(former) and tuple(former) != self.version.columns

    def _make_column_lineage(self) -> DatasetFacet | None:
        fields: dict[str, list[column_lineage_dataset.InputField]] = {}
        for column, field in self._find_column_origins():
            fields.setdefault(column, []).append(field)
        if not fields:
            return None
        return column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={column: column_lineage_dataset.Fields(inputFields=found) for column, found in fields.items()}
        )

    def _find_column_origins(self) -> Iterator[tuple[str, column_lineage_dataset.InputField]]:
        """Yield each column with a column that it came of, where a record says it."""
        if self.node.kind in MADE_OF_ROWS:
            yield from self._find_scored_columns()
            return
        if written := self.commit.get("form"):
            with suppress(DlpipeError, LookupError, TypeError, ValueError):  # of another release
                yield from self._find_ingested_columns(read_form_of(written))
        if self.node.kind == "table" and self.version and builds_on_former(self.commit) and self.number:
            for column, _ in self.version.columns:
                yield column, spell_field(name_location(self.record.location), column, "IDENTITY")

    def _find_ingested_columns(self, form: RowForm) -> Iterator[tuple[str, column_lineage_dataset.InputField]]:
        pairs = [(column.name, [column.source]) for column in form.inputs] + [("label", list(form.label.sources))]
        for source in self.record.list_sources(self.number):
            node = self.records.tables.make_source_node(source)
            for column, origins in pairs:
                for origin in filter(None, origins):
                    yield column, spell_field(name_location(node.name), origin)

    def _find_scored_columns(self) -> Iterator[tuple[str, column_lineage_dataset.InputField]]:
        key = self.record.read_key(self.number)
        if "source" not in key or self.version is None:
            return
        source, there = name_location(key["source"]), dict(self.version.columns)
        if "row_id" in there:
            yield "row_id", spell_field(source, "row_id", "IDENTITY")
        with suppress(DlpipeError):
            form = read_form(table_at(key["source"], version=int(key["source_version"])))
            for column in MADE_OF_ROWS[self.node.kind]:
                for read in form.inputs if column in there else ():
                    yield column, spell_field(source, read.name, "TRANSFORMATION", key.get("model", ""))


def read_form_of(written: Any) -> RowForm:
    """Return the form of rows that a commit names."""
    import json

    return RowForm.from_json(written if isinstance(written, str) else json.dumps(written))


def spell_field(
    name: Name, column: str, subtype: str | None = None, description: str | None = None
) -> column_lineage_dataset.InputField:
    """Return a column of a data set as an origin; what happened to it in between, where that is known."""
    how = column_lineage_dataset.Transformation(type="DIRECT", subtype=subtype, description=description or None)
    return column_lineage_dataset.InputField(name.namespace, name.name, column, transformations=[how])
