"""The columns of a version as tensors of the Open Inference Protocol: in its metadata, and in answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from dlpipe.inference.packing import list_outputs as list_pipeline_outputs
from dlpipe.serving.refusals import bad_request
from dlpipe.serving.served import Record, Served

OUTPUT_TYPES = {"double": "FP64", "float": "FP64", "long": "INT64", "integer": "INT64", "boolean": "BOOL"}
"""MLflow's types as those of the protocol; texts and lists are BYTES."""


def is_single_text(served: Served) -> bool:
    """Return whether a row is a text."""
    return served.takes_missing or served.task.inputs.is_single_text


def list_inputs(served: Served) -> list[dict[str, Any]]:
    """Return the columns that a version reads, as the Open Inference Protocol writes them."""
    if is_single_text(served):
        return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    kinds: dict[str, str] = {}
    for row in served.example:
        for name, value in row.items():
            if value is not None or name not in kinds:
                kinds[name] = "FP64" if isinstance(value, int | float) else "BYTES"
    return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in kinds.items()]


def list_outputs(served: Served) -> list[dict[str, Any]]:
    """Return the columns that a version returns, as the Open Inference Protocol writes them."""
    if served.takes_missing:
        fields = list_pipeline_outputs(served.card)
    else:
        fields = served.task.target.list_frame_fields(served.card)
    return [{"name": name, "datatype": OUTPUT_TYPES.get(kind, "BYTES"), "shape": [-1]} for name, kind in fields]


def check_outputs(wanted: Sequence[str], served: Served) -> None:
    """Raise ``Refused`` where an output is wanted that the model has not."""
    if not wanted:
        return
    names = [output["name"] for output in list_outputs(served)]
    if unknown := [name for name in wanted if name not in names]:
        raise bad_request(f"The model has no output {unknown[0]!r}; it has {', '.join(names)}.")


def make_tensors(records: Sequence[Record], wanted: Sequence[str], served: Served) -> list[dict[str, Any]]:
    """Return each column of the records as a tensor.

    A column of lists, such as several labels, is BYTES: each value is JSON. A value that is missing, as a pipeline
    has for a row that it could not read, is null.
    """
    tensors = [make_tensor(name, [record[name] for record in records]) for name in wanted or records[0]]
    if any(not tensor["datatype"] for tensor in tensors):
        known = {output["name"]: output["datatype"] for output in list_outputs(served)}
        for tensor in tensors:
            tensor["datatype"] = tensor["datatype"] or known.get(tensor["name"], "BYTES")
    return tensors


def make_tensor(name: str, values: list[Any]) -> dict[str, Any]:
    """Return a column as a tensor; without a type where all of it is missing.

    Examples
    --------
    >>> make_tensor("probability", [0.5, 0.75])
    {'name': 'probability', 'shape': [2], 'datatype': 'FP64', 'data': [0.5, 0.75]}
    """
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        datatype = ""
    elif kinds <= {bool}:
        datatype = "BOOL"
    elif kinds <= {int}:
        datatype = "INT64"
    elif kinds <= {int, float}:
        datatype = "FP64"
    else:
        datatype = "BYTES"
        values = [
            value if value is None or isinstance(value, str) else orjson.dumps(value).decode() for value in values
        ]
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}
