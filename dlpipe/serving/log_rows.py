"""The log's lines and rows: what a request becomes in a journal, and in the Delta table ``<model>_requests``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from dlpipe.serving.entries import Entry

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS, FEEDBACK = "_requests", "_feedback"
"""How the tables of a model end."""
REFUSED = "refused-requests"
"""The table of requests that reached no version; anybody can ask for models of any name."""
LONGEST_ERROR, LONGEST_NAME, LONGEST_TABLE = 500, 200, 100
BAD_REQUEST = 400
NOT_KEPT = "The body could not be read. (Texts are not kept, and the message quoted some.)"
SURROGATES = re.compile("[\ud800-\udfff]")

REQUEST_COLUMNS = (
    ("request_id", "string"),
    ("row", "int32"),
    ("rows", "int32"),
    ("kind", "string"),
    ("model", "string"),
    ("version", "int64"),
    ("digest", "string"),
    ("engine", "string"),
    ("alias", "string"),
    ("key", "string"),
    ("status", "int32"),
    ("error", "string"),
    ("arrived", "timestamp"),
    ("duration_ms", "float64"),
    ("tokens", "int64"),
    ("text", "string"),
    ("text_sha256", "string"),
    ("answer", "string"),
    ("day", "string"),
)
FEEDBACK_COLUMNS = (
    ("request_id", "string"),
    ("row", "int32"),
    ("label", "string"),
    ("source", "string"),
    ("key", "string"),
    ("received", "timestamp"),
    ("number", "int64"),
    ("day", "string"),
)


def name_table(model: str, ending: str) -> str:
    """Return the name of a table of a model; names that tables cannot have are told apart by a digest.

    Examples
    --------
    >>> name_table("reviews", REQUESTS), name_table("my reviews", FEEDBACK)
    ('reviews_requests', 'my_reviews-7b834efd_feedback')
    """
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", model).lstrip(".")[:LONGEST_TABLE]
    if plain != model:
        plain += f"-{hashlib.sha256(model.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return plain + ending


def choose_table(entry: Entry) -> str:
    """Return the name of the table that the rows of a request belong to."""
    return name_table(entry.model, REQUESTS) if entry.version else REFUSED


def encode_entry(entry: Entry, *, texts: bool) -> bytes:
    """Return a request as a line of a journal has it.

    Parameters
    ----------
    entry : Entry
    texts : bool
        Whether what was asked is in it; otherwise its SHA-256 is, and the text reaches no disk: neither do
        messages and explanations that quote it.
    """
    asked = entry.texts if texts else [digest_text(text) for text in entry.texts]
    error, records = entry.error, entry.records
    if not texts and entry.status == BAD_REQUEST:
        error = NOT_KEPT  # it quotes the body
    if not texts and entry.kind == "explain":
        records = ()  # an explanation holds the words
    fields = [
        texts,
        entry.request_id,
        entry.kind,
        entry.model[:LONGEST_NAME],
        entry.version,
        entry.digest,
        entry.engine,
        entry.alias[:LONGEST_NAME],
        entry.key,
        entry.status,
        error[:LONGEST_ERROR],
        entry.arrived,
        entry.duration_ms,
        entry.costs,
        asked,
        records,
    ]
    return dump(fields)


def dump(value: Any) -> bytes:
    """Return ``value`` as JSON on one line, whatever is in it: a half of a surrogate pair becomes a mark."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, option=options, default=_to_plain)
    except TypeError:
        return orjson.dumps(_make_encodable(value), option=options, default=_to_plain)


def _to_plain(value: Any) -> Any:
    # a sequence or mapping of another kind, or anything that people can read
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    if hasattr(value, "items"):
        return dict(value)
    return SURROGATES.sub("\ufffd", str(value))


def _make_encodable(value: Any) -> Any:
    if isinstance(value, str):
        return SURROGATES.sub("\ufffd", value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if hasattr(value, "items"):
        return {_make_encodable(str(name)): _make_encodable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_make_encodable(one) for one in value]
    return value


def digest_text(text: str | None) -> str | None:
    """Return the SHA-256 of a text in UTF-8.

    Examples
    --------
    >>> digest_text("A fine film.")[:16]
    '2b9e8b7903e329c1'
    """
    return None if text is None else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def make_request_rows(lines: Iterable[bytes]) -> pa.Table:
    """Return the rows of the requests in lines of a journal: one for each row of a request, at least one."""
    columns: dict[str, list[Any]] = {name: [] for name, _ in REQUEST_COLUMNS}
    put = [columns[name].append for name, _ in REQUEST_COLUMNS]
    for line in lines:
        kept, request_id, *head, arrived, duration, costs, asked, records = orjson.loads(line)
        day, count = to_day(arrived), max(len(asked), len(costs), len(records))
        moment = int(arrived * 1e6)
        for row in range(count or 1):
            text = asked[row] if row < len(asked) else None
            values = (
                *(request_id, row, count),
                *head,
                moment,
                duration,
                costs[row] if row < len(costs) else 0,
                text if kept else None,
                digest_text(text) if kept else text,
                orjson.dumps(records[row]).decode() if row < len(records) else None,
                day,
            )
            for append, value in zip(put, values, strict=True):
                append(value)
    return _to_table(columns, REQUEST_COLUMNS)


def make_feedback_rows(lines: Iterable[bytes]) -> pa.Table:
    """Return the rows of the labels in lines of a journal."""
    columns: dict[str, list[Any]] = {name: [] for name, _ in FEEDBACK_COLUMNS}
    for line in lines:
        request_id, row, label, source, key, received, number = orjson.loads(line)
        values = (request_id, row, label, source, key, int(received * 1e6), number, to_day(received))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return _to_table(columns, FEEDBACK_COLUMNS)


def make_rows(table: str, lines: Iterable[bytes]) -> pa.Table:
    """Return the rows of lines for a table of this name."""
    return make_feedback_rows(lines) if table.endswith(FEEDBACK) else make_request_rows(lines)


def to_day(moment: float) -> str:
    """Return the day of a moment, in UTC.

    Examples
    --------
    >>> to_day(1795866000.5)
    '2026-11-28'
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def make_schema(columns: Sequence[tuple[str, str]]) -> pa.Schema:
    """Return columns as Arrow has them."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns])


def _to_table(columns: dict[str, list[Any]], named: Sequence[tuple[str, str]]) -> pa.Table:
    import pyarrow as pa

    schema = make_schema(named)
    arrays = [
        pa.array(columns[field.name], pa.int64()).cast(field.type)
        if pa.types.is_timestamp(field.type)
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)
