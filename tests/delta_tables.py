"""Delta tables as other programs write them, file by file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq


def column(name: str, kind: Any = "string", *, number: int = 0, stored: str = "", **rules: str) -> dict[str, Any]:
    """A column of Delta's schema; with ``number`` and ``stored``, one with column mapping."""
    mapped = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": stored} if stored else {}
    return {"name": name, "type": kind, "nullable": True, "metadata": {**mapped, **rules}}


def protocol(*features: str, reader: int = 1, writer: int = 2) -> dict[str, Any]:
    """Versions alone, or the features that a reader and a writer must have."""
    if not features:
        return {"minReaderVersion": reader, "minWriterVersion": writer}
    listed = {"readerFeatures": list(features)} if reader == 3 else {}
    return {"minReaderVersion": reader, "minWriterVersion": 7, "writerFeatures": list(features), **listed}


def foreign_table(
    folder: Path,
    columns: Sequence[Mapping[str, Any]],
    files: Mapping[str, tuple[pa.Table, Mapping[str, str | None]]],
    *,
    asks: Mapping[str, Any] | None = None,
    properties: Mapping[str, str] | None = None,
    partitions: Sequence[str] = (),
) -> Path:
    """A table of one commit; ``files`` are by their path in the log, with the values of their partition."""
    (folder / "_delta_log").mkdir(parents=True)
    schema = json.dumps({"type": "struct", "fields": list(columns)})
    about = {"id": "t", "format": {"provider": "parquet", "options": {}}, "schemaString": schema}
    about |= {"partitionColumns": list(partitions), "configuration": dict(properties or {}), "createdTime": 1}
    actions: list[dict[str, Any]] = [
        {"commitInfo": {"timestamp": 1_700_000_000_000, "operation": "WRITE"}},
        {"protocol": asks or protocol()},
        {"metaData": about},
    ]
    for path, (rows, values) in files.items():
        file = folder / unquote(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, file)
        stats = json.dumps({"numRecords": rows.num_rows})
        add = {"path": path, "partitionValues": dict(values), "size": file.stat().st_size, "stats": stats}
        actions.append({"add": {**add, "modificationTime": 1, "dataChange": True}})
    (folder / f"_delta_log/{0:020}.json").write_text("\n".join(map(json.dumps, actions)))
    return folder
