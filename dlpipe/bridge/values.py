"""What becomes of an artifact in MLflow: a metric, a parameter, a file, or a reference only."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import fractions
import hashlib
import io
import json
import math
import numbers
import posixpath
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dlpipe.bridge.opening import Fields, Unopened
from dlpipe.bridge.records import Document
from dlpipe.redaction import HIDDEN, is_credential, redact_json, redact_value

PARAM_LENGTH = 250
KEY_LENGTH = 250  # MLflow's limit
PREVIEW_ROWS = 20
DEPTH, VALUES, CHARACTERS = 100, 2_000_000, 2**26
"""How deep a document in JSON is, and how much is in it: of values that are there twice there may be no end."""
ARRAY_VALUES, MOST_FILES = 10_000, 20
"""The largest array that is written into a document, and how many files may stand beside one."""
TABLE_ROWS, TABLE_BYTES, CELL = 2**27, 2**28, 1000
"""The largest table, and how much of a value is in its preview."""
TEXTS = (
    datetime.date
    | datetime.time
    | datetime.timedelta
    | datetime.tzinfo
    | decimal.Decimal
    | fractions.Fraction
    | uuid.UUID
    | complex
)
"""Plain values that JSON does not know: they are texts there."""
EXACT, LONGEST_NUMBER = 2**53, 10**100
"""Between these, whole numbers such as seeds and row ids are texts: a metric would hold other ones."""
IMAGES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif"}


@dataclass(frozen=True)
class KeptValue:
    """What is kept of one value; neither number, text nor file means that a reference to it has to do.

    ``lost`` names what is in none of its files.
    """

    metric: float | None = None
    param: str | None = None
    documents: tuple[Document, ...] = field(default=())
    lost: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """In a word."""
        if self.metric is not None:
            return "metric"
        return "parameter" if self.param is not None else "file" if self.documents else "reference"


def keep(name: str, value: Any, *, folder: str = "artifacts") -> KeptValue:
    """Return what MLflow keeps of ``value``; files stand in ``folder``.

    Parameters
    ----------
    name : str
        Of the artifact or parameter; one that looks secret is hidden.
    value : object
        Of any type.
    folder : str, optional
        Where its files stand among the run's artifacts in MLflow.

    Examples
    --------
    >>> keep("accuracy", 0.5).kind, keep("loss", float("nan")).param, keep("notes", {"a": 1}).kind
    ('metric', 'nan', 'file')
    """
    if isinstance(value, bool | type(None)):
        return KeptValue(param=str(value))
    if _is_unshaped(value):  # as torch.Tensor.numpy gives it
        value = value[()]
    if is_credential(name, value):
        return KeptValue(param=HIDDEN)
    if isinstance(value, numbers.Real):
        return _keep_number(value)
    if isinstance(value, str):
        return keep_text(name, value, folder=folder)
    if isinstance(value, TEXTS):
        return keep_text(name, format_plain(value), folder=folder)
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return KeptValue(param=str(bool(value)))
    base = f"{folder}/{make_file_name(name)}"
    if isinstance(value, bytes):
        return _keep_picture(base, value)
    lost: list[str] = []
    for make in (_keep_array, _keep_figure):
        if documents := make(base, value):
            return KeptValue(documents=documents)
    if documents := _keep_table(base, value, name, lost):
        return KeptValue(documents=documents, lost=tuple(lost))
    return _keep_json(folder, name, value)


def keep_text(name: str, value: str, *, folder: str = "artifacts") -> KeptValue:
    """Return short text as a parameter; long text as its beginning and a file with the whole of it.

    Parameters
    ----------
    name : str
        Of the artifact or parameter; one that looks secret is hidden.
    value : str
        Its text.
    folder : str, optional
        Where its file stands among the run's artifacts in MLflow.
    """
    value = redact_value(name, value)
    if len(value) <= PARAM_LENGTH:
        return KeptValue(param=value)
    short = f"{value[: PARAM_LENGTH - 20]}... ({len(value):,})"
    return KeptValue(param=short, documents=(Document(f"{folder}/{make_file_name(name)}.txt", value.encode()),))


def to_mlflow_key(name: str) -> str:
    """Return ``name`` with what MLflow refuses written as ``_uHEX_``; ``to_python_name`` turns it back.

    MLflow wants a name that could be the path of a file below a folder: others are escaped.
    Of a name that is too long, the beginning and a digest are left; ``artifacts.json`` has the whole of it.

    Examples
    --------
    >>> to_mlflow_key("a[0]"), to_python_name(to_mlflow_key("a[0]"))
    ('a_u5b_0_u5d_', 'a[0]')
    >>> to_mlflow_key("scores/f1"), to_mlflow_key("scores//f1")
    ('scores/f1', 'scores_u2f__u2f_f1')
    """
    escaped = re.sub(r"_u(?=[0-9a-f]+_)", "_u5f_u", name)
    key = re.sub(r"[^\w.\- :/]", lambda hit: f"_u{ord(hit[0]):x}_", escaped)
    if posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        key = key.replace("/", "_u2f_") if key.strip(".") else key.replace(".", "_u2e_")
    return shorten_key(key, name)


def shorten_key(key: str, name: str = "") -> str:
    """Return a key that is not too long for MLflow: of a longer one its beginning, and a digest of the whole.

    Parameters
    ----------
    key : str
        Of characters that MLflow takes.
    name : str, optional
        What the digest is of; by default the key.
    """
    if len(key) <= KEY_LENGTH:
        return key
    return f"{key[: KEY_LENGTH - 18]}_u{hashlib.sha256((name or key).encode()).hexdigest()[:16]}"


def to_python_name(key: str) -> str:
    """Return the name that ``to_mlflow_key`` made ``key`` of."""
    return re.sub(r"_u([0-9a-f]+)_", lambda hit: chr(int(hit[1], 16)), key)


def make_file_name(name: str) -> str:
    """Return ``name`` as a name of a file anywhere; a digest stands for what cannot be in one."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", name):
        return name
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:80]
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _keep_number(value: Any) -> KeptValue:
    if isinstance(value, numbers.Integral) and EXACT < abs(int(value)) < LONGEST_NUMBER:
        return KeptValue(param=str(int(value)))
    try:
        number = float(value)
    except OverflowError:  # no double holds it
        return KeptValue(param=f"{'-' if value < 0 else ''}about 2^{int(abs(value)).bit_length()}")
    return KeptValue(metric=number) if math.isfinite(number) else KeptValue(param=str(number))


def _keep_picture(base: str, value: bytes) -> KeptValue:
    for start, ending in IMAGES.items():
        if value.startswith(start):
            return KeptValue(documents=(Document(f"{base}.{ending}", value),))
    return KeptValue()


def _keep_table(base: str, value: Any, name: str, lost: list[str]) -> tuple[Document, ...]:
    """Return a table and its first rows; what is not as it was in them is added to ``lost``."""
    module, kind = type(value).__module__.partition(".")[0], type(value).__name__
    if (module, kind) == ("pandas", "Series"):
        value, kind = value.to_frame(), "DataFrame"
    if (module, kind) not in (("pandas", "DataFrame"), ("pyarrow", "Table")):
        return ()
    import pyarrow.parquet as pq

    size = value.nbytes if kind == "Table" else int(value.memory_usage(deep=True).sum())
    if len(value) > TABLE_ROWS or size > TABLE_BYTES:
        raise TooManyValues(f"a table of more than {TABLE_ROWS:,} rows or {TABLE_BYTES:,} bytes")
    table = value if kind == "Table" else _to_arrow(value, name, lost)
    if table is None:
        return ()
    pq.write_table(table, buffer := io.BytesIO())
    preview = json.dumps(
        {"columns": table.column_names, "data": [list(row.values()) for row in _take_first_rows(table)]}
    )
    return (
        Document(f"{base}.parquet", buffer.getvalue()),
        Document(f"{base}.preview.json", preview.encode()),
    )


def _to_arrow(frame: Any, name: str, lost: list[str]) -> Any:
    """Return a data frame as Arrow has it, what mixes types in it as texts; ``None`` if there is no way."""
    import pyarrow as pa

    def to_text(item: Any) -> str:
        plain = to_json_types(item)
        return plain if isinstance(plain, str) else json.dumps(plain)

    refused = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)
    with suppress(*refused):
        return pa.Table.from_pandas(frame)
    made = frame.copy(deep=False)
    for column in frame.columns:
        try:
            pa.array(frame[column], from_pandas=True)
        except refused:
            values = zip(frame[column].tolist(), frame[column].isna(), strict=True)
            made[column] = [None if missing else to_text(item) for item, missing in values]
            lost.append(f"{name}.{column} but as text")
    with suppress(*refused):
        return pa.Table.from_pandas(made)
    made.index = [to_text(item) for item in frame.index.tolist()]
    lost.append(f"{name}, its index, but as text")
    with suppress(*refused):
        return pa.Table.from_pandas(made)
    return None


def _take_first_rows(table: Any) -> list[dict[str, Any]]:
    rows = table.slice(0, PREVIEW_ROWS).to_pylist()
    return [
        {
            key: value if value is None or _is_finite_number(value) else redact_value(key, str(value)[:CELL])
            for key, value in row.items()
        }
        for row in rows
    ]


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _is_unshaped(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray" and value.shape == ()


def _keep_array(base: str, value: Any) -> tuple[Document, ...]:
    if type(value).__module__ != "numpy" or type(value).__name__ != "ndarray" or value.dtype.hasobject:
        return ()
    import numpy as np

    np.save(buffer := io.BytesIO(), value, allow_pickle=False)
    return (Document(f"{base}.npy", buffer.getvalue()),)


def _keep_figure(base: str, value: Any) -> tuple[Document, ...]:
    module, kind = type(value).__module__, type(value).__name__
    buffer = io.BytesIO()
    if (module, kind) == ("matplotlib.figure", "Figure"):
        value.savefig(buffer, format="png", metadata={"Software": None})
    elif module.startswith("PIL."):
        value.save(buffer, format="PNG")
    else:
        return ()
    return (Document(f"{base}.png", buffer.getvalue()),)


def _keep_json(folder: str, name: str, value: Any) -> KeptValue:
    if look_inside(value) is None:
        return KeptValue()
    plain = _Plain(folder, name)
    text = json.dumps(redact_json(plain.of(value, (name,)), name), indent=1, ensure_ascii=False)
    documents = (Document(f"{folder}/{make_file_name(name)}.json", text.encode()), *plain.documents)
    return KeptValue(documents=documents, lost=tuple(plain.lost))


def format_plain(value: Any) -> str:
    """Return a date, a number or a name of the kinds in ``TEXTS`` as text.

    Examples
    --------
    >>> format_plain(datetime.date(2026, 11, 28)), format_plain(decimal.Decimal("1.50"))
    ('2026-11-28', '1.50')
    """
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else str(value)


def to_json_types(value: Any) -> Any:
    """Return ``value`` as JSON knows it; what it does not know becomes text, and what is too deep is cut.

    Raises
    ------
    TooManyValues
        When it has more than two million, as small lists that hold each other easily do.

    Examples
    --------
    >>> to_json_types({1: {"when": datetime.date(2026, 11, 28), "what": object()}})
    {'1': {'when': '2026-11-28', 'what': '<object>'}}
    """
    return _Plain().of(value, ())


class TooManyValues(ValueError):
    """A file would be far larger than the artifact, because the same values are in it again and again."""


class _Plain:
    """A walk over one value. What JSON cannot hold stands in files of its own, which the text refers to.

    Attributes
    ----------
    documents : list of Document
        Those files: tables, and arrays of more than ``ARRAY_VALUES``.
    lost : list of str
        What is in none of them, by its path.
    """

    def __init__(self, folder: str = "", name: str = "") -> None:
        self._folder, self._name = folder, name
        self._values, self._characters = VALUES, CHARACTERS
        self.documents: list[Document] = []
        self.lost: list[str] = []

    def of(self, value: Any, path: tuple[str, ...], depth: int = 0) -> Any:
        self._values -= 1
        self._characters -= len(value) if isinstance(value, str) else 0
        if self._values < 0 or self._characters < 0:
            raise TooManyValues(f"more than {VALUES:,} values or {CHARACTERS:,} characters")
        if isinstance(value, str | bool | int | type(None)):
            return value
        if isinstance(value, float | numbers.Real) and not isinstance(value, fractions.Fraction):
            return _to_json_number(value)
        if isinstance(value, TEXTS):
            return format_plain(value)
        return self._inside(value, path, depth + 1)

    def _inside(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        inner = look_inside(value)
        if inner is None:
            return self._other(value, path, depth)
        if depth > DEPTH:
            return self._lose(f"<nested deeper than {DEPTH}>", path)
        if isinstance(inner, Mapping):
            return self._mapping(inner, path, depth)
        made = [
            self.of(item, path if isinstance(item, str | int | float | None) else (*path, str(at)), depth)
            for at, item in enumerate(inner)
        ]
        return sorted(made, key=str) if isinstance(value, set | frozenset) else made

    def _other(self, value: Any, path: tuple[str, ...], depth: int) -> Any:
        """Return an array as lists or what a file of its own holds, and of the rest what it is."""
        module, kind = type(value).__module__.partition(".")[0], type(value).__name__
        if (module, kind) == ("numpy", "ndarray") and value.size <= ARRAY_VALUES and value.dtype.names is None:
            return self.of(value.tolist(), path, depth)
        if (module, kind) in (("numpy", "bool"), ("numpy", "bool_")):
            return str(bool(value))
        base = f"{self._folder}/{make_file_name('.'.join(path))}"
        taken = any(document.path.startswith(f"{base}.") for document in self.documents)
        if self._folder and not taken and len(self.documents) < MOST_FILES:
            with suppress(TooManyValues):
                if documents := _keep_array(base, value) or _keep_table(base, value, ".".join(path), self.lost):
                    self.documents += documents
                    return f"<{documents[0].path}>"
        return self._lose(_describe(value), path)

    def _lose(self, words: str, path: tuple[str, ...]) -> str:
        self.lost.append(f"{'.'.join(path)} {words}")
        return words

    def _mapping(self, inner: Mapping[Any, Any], path: tuple[str, ...], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, item in inner.items():
            name = _to_key(key)
            while name in made:  # 1 and "1"
                name = f"{name} ({type(key).__name__})"
            hidden = is_credential(name, item)  # here, since it may have files of its own
            made[name] = HIDDEN if hidden else self.of(item, (*path, name), depth)
        return made


def look_inside(value: Any) -> Mapping[Any, Any] | list[Any] | None:
    """Return what a value holds, by name or in a row; ``None`` when it holds nothing that can be looked into.

    Examples
    --------
    >>> look_inside({"a": 1}), look_inside((1, 2)), look_inside(1)
    ({'a': 1}, [1, 2], None)
    """
    if isinstance(value, Fields):
        return value.fields
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Unopened):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a named tuple
        return dict(zip(value._fields, value, strict=True))
    return list(value) if isinstance(value, list | tuple | set | frozenset | collections.deque) else None


def _to_json_number(value: Any) -> int | float | str:
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else str(float(value))


def _to_key(key: Any) -> str:
    if isinstance(key, Unopened):
        return _describe(key)
    return format_plain(key) if isinstance(key, TEXTS) else str(key)


def _describe(value: Any) -> str:
    if isinstance(value, Unopened):
        return f"<not opened: {value.name}>"
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return str(bool(value))
    return f"<{len(value):,} bytes>" if isinstance(value, bytes) else f"<{type(value).__qualname__}>"
