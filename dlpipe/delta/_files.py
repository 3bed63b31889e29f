"""The Parquet files of one version of a Delta table, read under the names that the table gives its columns.

A table with column mapping keeps the name that a column was first written under (its physical name) in the files,
or finds columns by the number that Parquet calls a field id.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dlpipe.delta._protocol import MAPPING, find_mapping_mode, make_not_read_error
from dlpipe.delta._views import to_plain_type
from dlpipe.errors import TableDamaged, UnsupportedFeature

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyarrow.dataset import Expression, ParquetFileFragment, RowGroupInfo
    from pyarrow.fs import FileSystem

FIELD_ID = b"PARQUET:field_id"


@dataclass(frozen=True)
class RowFilter:
    """Which rows of files are wanted.

    Attributes
    ----------
    columns : tuple of str
        Those that it reads, as the table calls them.
    build : callable
        Takes what a file calls each column of the table, and returns what is true of a row that is wanted. Where
        the statistics of a file or of a row group rule that out, it is not read.
    """

    columns: tuple[str, ...]
    build: Callable[[Mapping[str, str]], Expression]


@dataclass(frozen=True)
class TableFiles:
    """The files of a table version, and how to read rows from them."""

    name: str
    """Of the table, for errors."""
    schema: pa.Schema
    """The columns as the table calls them."""
    stored: pa.Schema
    """The same columns, in the same order, as the files call them."""
    ids: Mapping[str, int]
    """Field id of each column, by the table's name; empty unless columns are found by it."""
    fragments: tuple[ParquetFileFragment, ...]
    """In the order of their paths: the names of dlpipe's own files sort in the order of their commits."""
    bounds: Mapping[str, Expression]
    """What the log says of all rows of a file, by its path; empty where it says nothing."""

    def find_fragments(self, where: RowFilter | None) -> Sequence[ParquetFileFragment]:
        """Return the files that may have rows that are wanted, as far as the log tells; they are not opened."""
        from pyarrow.dataset import FileSystemDataset, ParquetFileFormat

        if where is None or not self.bounds:
            return self.fragments
        form = ParquetFileFormat()
        known = [
            form.make_fragment(file.path, filesystem=file.filesystem, partition_expression=self.bounds[file.path])
            for file in self.fragments
            if file.path in self.bounds
        ]
        stored = dict(zip(self.schema.names, self.stored.names, strict=True))
        kept = FileSystemDataset(known, self.stored, form).get_fragments(filter=where.build(stored))
        left = self.bounds.keys() - {file.path for file in kept}
        return [file for file in self.fragments if file.path not in left]

    def scan(
        self,
        fragment: ParquetFileFragment,
        *,
        columns: Sequence[str],
        rows: int,
        where: RowFilter | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a file, or of some of its row groups, of at most ``rows`` rows each.

        Parameters
        ----------
        fragment : pyarrow.dataset.ParquetFileFragment
            One of ``fragments``, or a subset of it.
        columns : sequence of str
            As the table calls them.
        rows : int
        where : RowFilter, optional
            Only the rows that are wanted; row groups without any are not read where their statistics say so.
        """
        from pyarrow.dataset import ParquetFragmentScanOptions

        with self._explain_damage(fragment):
            stored = self._find_stored(fragment, [*columns, *(where.columns if where else ())])
            at = {name: stored.field(place).name for place, name in enumerate(self.schema.names)}
            # Arrow would compare the statistics of a view with a string, which it cannot
            late = where if where and _has_views(fragment, [at[name] for name in where.columns]) else None
            read = dict.fromkeys([*columns, *(late.columns if late else ())])
            batches = fragment.to_batches(
                schema=stored,
                columns=[at[name] for name in read],
                filter=None if where is None or late else where.build(at),
                batch_size=rows,
                # Arrow reads 16 batches ahead unless told, and buffers whole files
                batch_readahead=1,
                use_threads=False,  # threads decode as far ahead as the machine lets them
                fragment_scan_options=ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            )
            for batch in batches:
                wanted = batch.filter(late.build(at)).select([at[name] for name in columns]) if late else batch
                yield self._rename_columns(wanted, columns)

    def row_groups(self, fragment: ParquetFileFragment) -> list[RowGroupInfo]:
        """Return the row groups of a file."""
        with self._explain_damage(fragment):
            return list(fragment.row_groups)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows."""
        import pyarrow as pa

        names = self.schema.names if columns is None else list(columns)
        batches = [
            batch for fragment in self.fragments for batch in self.scan(fragment, columns=names, rows=65536)
        ]
        return pa.Table.from_batches(batches, schema=pa.schema([self.schema.field(name) for name in names]))

    def _rename_columns(self, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        import pyarrow as pa

        if batch.schema.names == list(columns):
            return batch
        schema = pa.schema([self.schema.field(name) for name in columns])
        # a view gives the fields inside a struct their names too, and copies nothing
        arrays = [
            array.view(field.type) if pa.types.is_nested(field.type) else array
            for array, field in zip(batch.columns, schema, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    @contextmanager
    def _explain_damage(self, fragment: ParquetFileFragment) -> Iterator[None]:
        """Say it in one line where a file is no Parquet, or holds what its columns cannot."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            # Arrow says of a torn page what a disk says; what the system said has a number
            if isinstance(error, OSError) and (error.errno or not _is_local(fragment)):
                raise
            problem = " ".join(str(error).split()).rstrip(".")[:300]
            raise TableDamaged(
                f"The data file {fragment.path} of {self.name} cannot be read as the table declares it: "
                f"{problem}. Restore the file, or read a version from before it was added."
            ) from None

    def _find_stored(self, fragment: ParquetFileFragment, columns: Sequence[str]) -> pa.Schema:
        """Return the columns as this file calls them."""
        import pyarrow as pa

        if not self.ids:
            spelt = _spell_columns(self.stored, fragment, self.name)
            self._check_shares(fragment, spelt)
            return spelt
        for name in columns:
            if pa.types.is_nested(self.schema.field(name).type):
                raise make_not_read_error(self.name, [f"fields inside the column {name!r} that are found by id"])
        in_file = {int(field.metadata[FIELD_ID]): field.name for field in _read_ids(fragment.physical_schema)}
        if not in_file:
            raise make_not_read_error(
                self.name, [f"columns found by id in the file {fragment.path}, which has no ids"]
            )
        # a column that was added later is in no older file, whatever name another column has there
        names = (in_file.get(self.ids[name], f"no column {self.ids[name]}") for name in self.schema.names)
        partitions = _find_columns(fragment.partition_expression, self.stored.names)
        fields = [
            old if old.name in partitions else old.with_name(name)
            for old, name in zip(self.stored, names, strict=True)
        ]
        return pa.schema(fields)

    def _check_shares(self, fragment: ParquetFileFragment, spelt: pa.Schema) -> None:
        """Raise where a file has none of the table's columns: each would be read as null."""
        there = fragment.physical_schema.names
        # with column mapping, those of an old file may all have been dropped since
        if self.stored is self.schema and there and not set(there) & set(spelt.names):
            raise TableDamaged(
                f"The data file {fragment.path} of {self.name} has none of the table's columns; it has "
                f"{', '.join(map(repr, there[:9]))}. Read a version from before it was added."
            )


def find_files(
    table: DeltaTable, storage: FileSystem, name: str, *, only: Collection[str] | None = None
) -> TableFiles:
    """Return the files of an opened table, which ``check_readable`` has passed.

    Parameters
    ----------
    table : deltalake.DeltaTable
    storage : pyarrow.fs.FileSystem
        Its root is the table's folder; see ``open_storage``.
    name : str
        What to call the table in errors.
    only : collection of str, optional
        The paths of those that are wanted, as far as the version has them; by default all.
    """
    import pyarrow as pa

    declared = json.loads(table.schema().to_json())
    schema = _to_arrow_schema(declared)
    mode = find_mapping_mode(table)
    stored = schema if mode == "none" else _to_arrow_schema(_to_physical(declared, name))
    ids = {field["name"]: _map_field(field, "id", name) for field in declared["fields"]} if mode == "id" else {}
    listed = pa.table(table.get_add_actions())
    if only is not None:  # before thousands of them become objects
        wanted = (at for at, path in enumerate(listed["path"].to_pylist()) if unquote(path) in only)
        listed = listed.take(pa.array(wanted, pa.int64()))
    actions = sorted(listed.to_pylist(), key=lambda file: unquote(file["path"]))
    fragments = tuple(_open_fragments(actions, storage, name, schema, stored))
    # with column mapping the log has statistics under names of its own
    bounds = dict(_read_bounds(actions, fragments, schema)) if mode == "none" else {}
    return TableFiles(name, schema, stored, ids, fragments, bounds)


def open_storage(location: str, options: Mapping[str, str] | None = None) -> FileSystem:
    """Return the file system whose root is the folder or URI ``location``."""
    from pyarrow.fs import LocalFileSystem, PyFileSystem, SubTreeFileSystem

    if "://" not in location or location.startswith("file://"):
        return SubTreeFileSystem(location.removeprefix("file://"), LocalFileSystem())
    from deltalake.fs import DeltaStorageHandler

    return PyFileSystem(DeltaStorageHandler(location, dict(options) if options else None))


def _open_fragments(
    actions: Sequence[Mapping[str, Any]], storage: FileSystem, name: str, schema: pa.Schema, stored: pa.Schema
) -> Iterator[ParquetFileFragment]:
    from pyarrow.dataset import ParquetFileFormat, scalar

    at = dict(zip(schema.names, stored.names, strict=True))
    for file in actions:
        path = unquote(file["path"])
        if re.match(r"[a-z][\w+.-]*:/", path, re.IGNORECASE) or os.path.isabs(path) or ".." in path.split("/"):
            raise UnsupportedFeature(
                f"{name} has data files outside of its folder ({path}), as a shallow clone has. "
                "Copy it whole (a deep clone), or read the table that it was made from."
            )
        values = {at[column]: value for column, value in (file.get("partition") or {}).items()}
        yield ParquetFileFormat().make_fragment(
            path, filesystem=storage, partition_expression=_join_values(values, stored) if values else scalar(True)
        )


def _read_bounds(
    actions: Sequence[Mapping[str, Any]], fragments: Sequence[ParquetFileFragment], schema: pa.Schema
) -> Iterator[tuple[str, Expression]]:
    """Yield the path of each file of which the log knows something, with what is true of all of its rows."""
    for action, fragment in zip(actions, fragments, strict=True):
        low, high, nulls = (action.get(name) or {} for name in ("min", "max", "null_count"))
        terms = [
            _bound(schema.field(name), low[name], high[name], nulls.get(name))
            for name in schema.names
            if _has_exact_bounds(schema.field(name).type) and None not in (low.get(name), high.get(name))
        ]
        if terms or action.get("partition"):
            whole = fragment.partition_expression
            for term in terms:
                whole = whole & term
            yield fragment.path, whole


def _has_exact_bounds(kind: pa.DataType) -> bool:
    """Return whether the log's bounds hold: it cuts times to milliseconds, and decimals become binary numbers."""
    import pyarrow as pa

    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_date(kind))


def _bound(column: pa.Field, low: Any, high: Any, nulls: int | None) -> Expression:
    """Return that a column lies between two values, or is null where it may be."""
    import pyarrow as pa
    from pyarrow.dataset import field

    ends = (field(column.name) >= pa.scalar(low, column.type), field(column.name) <= pa.scalar(high, column.type))
    if nulls == 0:
        return ends[0] & ends[1]
    # Arrow reads each end by itself: of (low and high) or null it would conclude nothing
    lower, upper = (end | field(column.name).is_null() for end in ends)
    return lower & upper


def _join_values(values: Mapping[str, Any], schema: pa.Schema) -> Expression:
    """Return what is true of every row of a file: the values of the columns that the table is partitioned by."""
    import pyarrow as pa
    from pyarrow.dataset import field

    terms = [
        field(name).is_null() if value is None else field(name) == pa.scalar(value, schema.field(name).type)
        for name, value in values.items()
    ]
    whole = terms[0]
    for term in terms[1:]:
        whole = whole & term
    return whole


def _find_columns(partition: Expression, names: Sequence[str]) -> set[str]:
    from pyarrow.dataset import get_partition_keys

    return {name for name in names if name in get_partition_keys(partition)}


def _spell_columns(stored: pa.Schema, fragment: ParquetFileFragment, table: str) -> pa.Schema:
    """Return the columns as a file spells them: names that differ by case only are the same to Delta.

    Arrow would give nulls for a column that a file lacks.
    """
    import pyarrow as pa

    in_file = fragment.physical_schema
    spelt: dict[str, list[pa.Field]] = {}
    for field in in_file:
        spelt.setdefault(field.name.casefold(), []).append(field)
    partitions = _find_columns(fragment.partition_expression, stored.names)
    fields = [
        field if field.name in partitions else _spell_field(field, in_file, spelt, fragment, table)
        for field in stored
    ]
    return pa.schema(fields)


def _spell_field(
    field: pa.Field,
    in_file: pa.Schema,
    spelt: Mapping[str, Sequence[pa.Field]],
    fragment: ParquetFileFragment,
    table: str,
) -> pa.Field:
    exact = in_file.get_field_index(field.name) >= 0
    like = [in_file.field(field.name)] if exact else spelt.get(field.name.casefold(), [])
    if len(like) > 1 or (like and _differs_inside(field.type, like[0].type)):
        names = ", ".join(repr(str(other.name if len(like) > 1 else other.type)) for other in like)
        raise make_not_read_error(
            table, [f"the column {field.name!r}, which the file {fragment.path} spells in another way ({names})"]
        )
    return field.with_name(like[0].name) if like else field


def _differs_inside(declared: pa.DataType, in_file: pa.DataType) -> bool:
    """Return whether a struct in a column has a field that the file spells in another case."""
    if declared.num_fields == 0 or in_file.num_fields == 0:
        return False
    inner, there = ([kind.field(place) for place in range(kind.num_fields)] for kind in (declared, in_file))
    if not hasattr(declared, "get_field_index"):  # a list's item and a map's key may have any name
        pairs = list(zip(inner, there, strict=False))
        return any(_differs_inside(pair.type, other.type) for pair, other in pairs)
    exact = {field.name: field for field in there}
    folded = {name.casefold() for name in exact}
    return any(
        _differs_inside(field.type, exact[field.name].type)
        if field.name in exact
        else field.name.casefold() in folded
        for field in inner
    )


def _has_views(fragment: ParquetFileFragment, columns: Sequence[str]) -> bool:
    schema = fragment.physical_schema
    there = [schema.field(name).type for name in columns if schema.get_field_index(name) >= 0]
    return any(to_plain_type(kind) != kind for kind in there)


def _is_local(fragment: ParquetFileFragment) -> bool:
    from pyarrow.fs import SubTreeFileSystem

    return isinstance(fragment.filesystem, SubTreeFileSystem)


def _read_ids(schema: pa.Schema) -> list[pa.Field]:
    return [field for field in schema if field.metadata and FIELD_ID in field.metadata]


def _to_arrow_schema(declared: Any) -> pa.Schema:
    import pyarrow as pa
    from deltalake import Schema

    schema = pa.schema(Schema.from_json(json.dumps(declared)).to_arrow())
    return pa.schema([field.remove_metadata() for field in schema])


def _to_physical(kind: Any, table: str) -> Any:
    """Return a type of Delta's schema with the physical names of its columns, those inside others too."""
    if not isinstance(kind, dict):
        return kind
    if kind.get("type") == "struct":
        fields = [
            {**field, "name": _map_field(field, "physicalName", table), "type": _to_physical(field["type"], table)}
            for field in kind["fields"]
        ]
        return {**kind, "fields": fields}
    inner = {
        name: _to_physical(kind[name], table) for name in ("elementType", "keyType", "valueType") if name in kind
    }
    return {**kind, **inner}


def _map_field(field: Any, what: str, table: str) -> Any:
    try:
        return field["metadata"][f"{MAPPING}.{what}"]
    except KeyError:
        raise make_not_read_error(
            table, [f"the column mapping of {field['name']!r}, which lacks its {what}"]
        ) from None
