"""Request bodies -> rows: MLflow's, those of the Open Inference Protocol, and plain JSON.

What a body holds is brought into a form that the inputs of every task read: a mapping of columns, a list of
records, or a list of values. A dictionary of lists is rows, in every form, as MLflow documents.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from dlpipe.serving.refusals import Refused, bad_request
from dlpipe.task.requests import describe_value

Shape = Literal["plain", "mlflow", "v2"]
JSON, CSV = "application/json", "text/csv"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
"""The keys of MLflow's bodies, of which one must be there."""
BESIDE = ("params", "id", "outputs", "parameters")
"""What may stand beside them, or beside ``inputs`` of the Open Inference Protocol."""
NO_NUMBER = re.compile(r"\W?(NaN|-?Infinity)\b")
"""What Python's own writer of JSON makes of such a float."""
LARGE = 50_000
"""Bytes from which on a body is read beside the event loop: smaller ones take less than half a millisecond."""
DATATYPES = frozenset(
    (
        "BOOL",
        "BYTES",
        "FP16",
        "FP32",
        "FP64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
    )
)


@dataclass(slots=True)
class Asked:
    """What a body asks.

    Attributes
    ----------
    given : mapping of columns, list of records, list of values or a value
        As ``Served.read_request`` reads it.
    id : str
        Of the client, in the Open Inference Protocol; it comes back.
    outputs : list of str
        Columns that are asked for, in the Open Inference Protocol; by default all.
    """

    given: Any
    id: str = ""
    outputs: Sequence[str] = ()


def check_content_type(header: str, *, shape: Shape) -> str:
    """Return the media type of a body, ``application/json`` where none is named.

    Raises
    ------
    Refused
        With 415.

    Examples
    --------
    >>> check_content_type("application/json; charset=UTF-8", shape="plain")
    'application/json'
    """
    if header in ("", JSON):
        return JSON
    media, *parameters = (part.strip().lower() for part in header.split(";"))
    charset = next((part[8:].strip('"') for part in parameters if part.startswith("charset=")), "utf-8")
    known = (JSON, CSV) if shape == "mlflow" else (JSON,)
    if charset not in ("utf-8", "utf8", "us-ascii") or media not in known:
        raise Refused(
            415,
            "unsupported_media_type",
            f"The body is {header[:80]!r}; what is read here is {' and '.join(known)}, in UTF-8. "
            f"Set the header Content-Type: {known[0]}.",
        )
    return media


def parse(body: bytes, media: str, shape: Shape) -> Asked:
    """Return what a body asks.

    Parameters
    ----------
    body : bytes
    media : str
        As ``check_content_type`` returned it.
    shape : str
        ``plain``, ``mlflow`` or ``v2``.

    Raises
    ------
    Refused
        With 400; the message says what to pass.

    Examples
    --------
    >>> parse(b'{"text": ["good", "bad"]}', JSON, "plain").given
    {'text': ['good', 'bad']}
    >>> parse(b'{"dataframe_split": {"columns": ["text"], "data": [["good"], ["bad"]]}}', JSON, "mlflow").given
    {'text': ['good', 'bad']}
    """
    if media == CSV:
        return Asked(parse_csv(body))
    given = load_json(body)
    if shape == "plain":
        check_plain(given)
        return Asked(check_columns(given))
    return read_mlflow(given) if shape == "mlflow" else read_v2(given)


def load_json(body: bytes) -> Any:
    """Return what JSON says, or raise ``Refused``."""
    try:
        return orjson.loads(body)
    except ValueError as error:
        if (at := find_bad_byte(body)) is not None:
            raise bad_request(f"The body is no JSON: byte {at} is no UTF-8.") from None
        told = describe_json_error(error)
        if (word := NO_NUMBER.match(body.decode(), max(getattr(error, "pos", 0) - 1, 0))) is not None:
            told = f"it has no {word[1]}; write null for a value that is missing"
        raise bad_request(f"The body is no JSON: {told}.") from None


def find_bad_byte(body: bytes) -> int | None:
    """Return where a body stops being UTF-8; ``None`` where it does not."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None


def describe_json_error(error: ValueError) -> str:
    """Return what is wrong with JSON, without the JSON."""
    said = str(error)
    return said[0].lower() + said[1:].rstrip(".") if said else "it cannot be read"


def check_plain(given: Any) -> None:
    """Raise ``Refused`` for a body of another protocol, whose key would be taken for the name of a column.

    Examples
    --------
    >>> check_plain({"inputs": ["good"]})
    Traceback (most recent call last):
    ...
    dlpipe.serving.refusals.Refused: 'inputs' is read at /models/NAME/invocations (MLflow) or /v2/models/NAME/in...
    """
    if not isinstance(given, dict) or not given.keys() <= {*FORMATS, *BESIDE}:
        return
    if there := [name for name in FORMATS if name in given]:
        v2 = " or /v2/models/NAME/infer (Open Inference Protocol)" if there == ["inputs"] else ""
        raise bad_request(
            f"{there[0]!r} is read at /models/NAME/invocations (MLflow){v2}; here, pass "
            '{"text": "..."}, an object of columns, or a list of either.'
        )


def check_columns(given: Any) -> Any:
    """Return rows in any plain form, after a look whether a mapping holds columns of one length, or one row.

    Raises
    ------
    Refused
        Where columns have different lengths, or values stand beside columns.

    Examples
    --------
    >>> check_columns({"age": 3, "town": "Rome"})
    [{'age': 3, 'town': 'Rome'}]
    """
    if not isinstance(given, dict):
        if isinstance(given, list):
            return given
        if isinstance(given, str):
            return [given]
        raise bad_request(
            f"The body is {describe_value(given)}. "
            'Pass {"text": "..."}, an object of columns, or a list of either.'
        )
    if not given:
        raise bad_request('The body is an empty object. Pass {"text": "..."}, or an object of columns.')
    lengths = {len(values) for values in given.values() if isinstance(values, list)}
    if not lengths:
        return [given]
    if len(lengths) > 1 or not all(isinstance(values, list) for values in given.values()):
        told = ", ".join(
            f"{name!r} {f'{len(values)} values' if isinstance(values, list) else 'one value'}"
            for name, values in list(given.items())[:6]
        )
        raise bad_request(f"Columns must have one length each row after row; here: {told}.")
    return given


# MLflow -------------------------------------------------------------------------------------------------------


def read_mlflow(given: Any) -> Asked:
    """Return what JSON of MLflow's scoring server asks; as there, ``params`` and other keys are not read."""
    there = [name for name in FORMATS if name in given] if isinstance(given, dict) else []
    if len(there) != 1:
        what = (
            f"it has {', '.join(map(repr, list(given)[:6])) or 'none'}"
            if isinstance(given, dict)
            else "it is none"
        )
        raise bad_request(f"The body must be a JSON object with one of {', '.join(FORMATS)}; {what}.")
    (name,) = there
    value = given[name]
    if name == "dataframe_split":
        return Asked(read_split(value))
    if name == "dataframe_records" and not (
        isinstance(value, list) and all(isinstance(row, dict) for row in value)
    ):
        raise bad_request('dataframe_records must be a list of objects, such as [{"text": "..."}].')
    return Asked(check_columns(value))


def read_split(value: Any) -> dict[str, list[Any]] | list[Any]:
    """Return the columns of ``dataframe_split``, or the values of the only one that has no name."""
    if not isinstance(value, dict) or "data" not in value or not value.keys() <= {"columns", "data", "index"}:
        raise bad_request('dataframe_split must have "data", and may have "columns" and "index".')
    rows, names = value["data"], value.get("columns")
    if not isinstance(rows, list):
        raise bad_request('"data" of dataframe_split must be a list of rows, each a list of values.')
    rows = [row if isinstance(row, list) else [row] for row in rows]
    if names is None:
        wide = next((number for number, row in enumerate(rows) if len(row) != 1), None)
        if wide is not None:
            raise bad_request(
                f'Row {wide} of dataframe_split has {len(rows[wide])} values; name them in "columns".'
            )
        return [row[0] for row in rows]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise bad_request('"columns" of dataframe_split must be a list of names.')
    if len(set(names)) < len(names):
        raise bad_request(f'"columns" of dataframe_split has a name twice: {", ".join(map(repr, names[:6]))}.')
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise bad_request(f"Row {number} of dataframe_split has {len(row)} values for {len(names)} columns.")
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def parse_csv(body: bytes) -> list[dict[str, str | None]]:
    """Return the records of a CSV whose first line names its columns; an empty field is a missing value."""
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        names = next(lines, [])
        if not names or len(set(names)) < len(names):
            raise bad_request("The first line of the CSV must name its columns, each once.")
        rows = [row for row in lines if row]
    except UnicodeDecodeError as error:
        raise bad_request(f"The CSV is no UTF-8: byte {error.start} cannot be read.") from None
    except csv.Error as error:
        raise bad_request(f"The CSV cannot be read: {error}.") from None
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise bad_request(f"Row {number} of the CSV has {len(row)} fields for {len(names)} columns.")
    return [{name: field or None for name, field in zip(names, row, strict=True)} for row in rows]


def read_numbers(records: Sequence[dict[str, Any]], example: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of a CSV with numbers in those columns in which the example of the model has them.

    Examples
    --------
    >>> read_numbers([{"age": "3", "town": "07"}], [{"age": 4, "town": "Rome"}])
    [{'age': 3.0, 'town': '07'}]
    """
    names = {name for row in example for name, value in row.items() if isinstance(value, int | float)}
    return [{name: to_number(field) if name in names else field for name, field in row.items()} for row in records]


def to_number(field: Any) -> Any:
    """Return the number that a field says; what is none stays as it is, and is refused by the model's inputs."""
    try:
        return float(field)
    except (TypeError, ValueError):
        return field


# the Open Inference Protocol ----------------------------------------------------------------------------------


def read_v2(given: Any) -> Asked:
    """Return what a request of the Open Inference Protocol asks: each input is a column."""
    if not isinstance(given, dict):
        raise bad_request("The body must be a JSON object with 'inputs'.")
    asked_id, inputs, outputs = given.get("id", ""), given.get("inputs"), given.get("outputs", [])
    if not isinstance(asked_id, str):
        raise bad_request("'id' must be a string.")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
        raise bad_request("'inputs' must be a list of tensors, each with name, shape, datatype and data.")
    if not isinstance(outputs, list) or not all(
        isinstance(output, dict) and isinstance(output.get("name"), str) for output in outputs
    ):
        raise bad_request("'outputs' must be a list of objects with a name.")
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        name = tensor.get("name")
        if not isinstance(name, str) or name in columns:
            raise bad_request("Each of 'inputs' must have a name of its own.")
        columns[name] = read_tensor(name, tensor)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name!r} {count}" for name, count in list(lengths.items())[:6])
        raise bad_request(f"The tensors must have one number of rows; here: {told}.")
    return Asked(columns, asked_id, [output["name"] for output in outputs])


def read_tensor(name: str, tensor: Mapping[str, Any]) -> list[Any]:
    """Return the values of a tensor of one value a row: its shape is [rows] or [rows, 1]."""
    shape, datatype, data = tensor.get("shape"), tensor.get("datatype"), tensor.get("data")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise bad_request(f"Input {name!r}: 'shape' must be a list of sizes.")
    if datatype not in DATATYPES:
        raise bad_request(f"Input {name!r}: 'datatype' must be one of {', '.join(sorted(DATATYPES))}.")
    if not isinstance(data, list):
        raise bad_request(f"Input {name!r}: 'data' must be a list of values; binary tensors are not read.")
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise bad_request(f"Input {name!r} has the shape {shape[:6]}; write [rows] or [rows, 1].")
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    if len(values) != shape[0]:
        raise bad_request(f"Input {name!r} has {len(values)} values and the shape {shape}.")
    check_values(name, values, datatype)
    return values


def check_values(name: str, values: Sequence[Any], datatype: str) -> None:
    """Raise unless every value is what the datatype says, or missing."""
    allowed: tuple[type, ...] = (str,)
    if datatype == "BOOL":
        allowed = (bool,)
    elif datatype != "BYTES":
        allowed = (int, float) if datatype.startswith("FP") else (int,)
    for number, value in enumerate(values):
        if value is not None and type(value) not in allowed:
            raise bad_request(f"Input {name!r}: row {number} is no {datatype} but {repr(value)[:60]}.")
