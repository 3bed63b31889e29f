"""Records -> bodies of the shape that was asked in; each answer says which version made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from dlpipe.serving.bodies import Asked, Shape
from dlpipe.serving.refusals import Refused
from dlpipe.serving.served import Record, Served
from dlpipe.serving.tensors import make_tensors

Headers = list[tuple[bytes, bytes]]
JSON_TYPE = (b"content-type", b"application/json")


def make_reply(
    records: Sequence[Record],
    asked: Asked,
    served: Served,
    *,
    shape: Shape,
    request_id: str,
    duration_ms: float,
) -> tuple[bytes, Headers]:
    """Return the body and the headers of an answer.

    Parameters
    ----------
    records : sequence of records
        One a row.
    asked : Asked
    served : Served
        What answered.
    shape : str
        ``plain``: with fields beside the predictions. ``mlflow``: predictions alone, the rest in headers. ``v2``:
        with parameters.
    request_id : str
    duration_ms : float
        From the arrival of the request.
    """
    version = served.version
    duration_ms = round(duration_ms, 3)
    headers: Headers = [JSON_TYPE, (b"x-request-id", request_id.encode())]
    if shape == "mlflow":
        headers += describe_in_headers(served, duration_ms)
        return orjson.dumps({"predictions": records}), headers
    about = {
        "request_id": request_id,
        "model": version.name,
        "version": version.version,
        "digest": served.digest,
        "engine": served.engine,
        "duration_ms": duration_ms,
    }
    if shape == "plain":
        return orjson.dumps({"predictions": records, **about}), headers
    body = {
        "model_name": version.name,
        "model_version": str(version.version),
        "id": asked.id or request_id,
        "parameters": about,
        "outputs": make_tensors(records, asked.outputs, served),
    }
    return orjson.dumps(body), headers


def describe_in_headers(served: Served, duration_ms: float) -> Headers:
    """Return the headers that say which version answered."""
    return [
        (b"x-dlpipe-model", quote(served.version.name).encode()),
        (b"x-dlpipe-version", b"%d" % served.version.version),
        (b"x-dlpipe-digest", served.digest.encode()),
        (b"x-dlpipe-engine", served.engine.encode()),
        (b"x-dlpipe-duration-ms", b"%.3f" % duration_ms),
    ]


def make_error(refused: Refused, request_id: str, *, shape: Shape) -> tuple[bytes, Headers]:
    """Return the body and the headers of a refusal; the Open Inference Protocol wants its message alone."""
    error: Mapping[str, Any] = {"code": refused.code, "message": refused.message, "request_id": request_id}
    body = (
        {"error": refused.message, **{k: error[k] for k in ("code", "request_id")}}
        if shape == "v2"
        else {"error": error}
    )
    headers: Headers = [JSON_TYPE, (b"x-request-id", request_id.encode()), *refused.headers]
    return orjson.dumps(body), headers
