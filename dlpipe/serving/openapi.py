"""The description of a server's addresses: as OpenAPI for programs, and as a plain page for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from dlpipe import __version__

Json = dict[str, Any]
VALUE: Json = {"type": ["string", "number", "boolean", "null"]}
COLUMN: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Value"}}
RECORD: Json = {
    "type": "object",
    "additionalProperties": {"$ref": "#/components/schemas/Value"},
    "minProperties": 1,
}
COLUMNS: Json = {
    "type": "object",
    "additionalProperties": {"$ref": "#/components/schemas/Column"},
    "minProperties": 1,
}
RECORDS: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Record"}, "minItems": 1}
VALUES: Json = {"type": "array", "items": {"$ref": "#/components/schemas/Value"}, "minItems": 1}
ROWS: Json = {
    "description": "A text, a row as an object, columns as an object of lists, or a list of texts or of rows.",
    "anyOf": [
        {"type": "string"},
        {"$ref": "#/components/schemas/Record"},
        {"$ref": "#/components/schemas/Columns"},
        {"$ref": "#/components/schemas/Records"},
        VALUES,
    ],
}
SPLIT: Json = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "columns": {"type": "array", "items": {"type": "string"}},
        "index": {"type": "array"},
        "data": {"type": "array", "items": {"type": "array"}},
    },
}
INVOCATIONS: Json = {
    "description": "One of the four forms of MLflow's scoring server; other keys are not read.",
    "oneOf": [
        {"type": "object", "required": [name], "properties": {name: form}}
        for name, form in {
            "dataframe_split": SPLIT,
            "dataframe_records": {"$ref": "#/components/schemas/Records"},
            "instances": {"$ref": "#/components/schemas/Rows"},
            "inputs": {"$ref": "#/components/schemas/Rows"},
        }.items()
    ],
}
TENSOR: Json = {
    "type": "object",
    "required": ["name", "shape", "datatype", "data"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
        "datatype": {"type": "string", "enum": ["BOOL", "BYTES", "FP32", "FP64", "INT32", "INT64"]},
        "data": {"type": "array"},
        "parameters": {"type": "object"},
    },
}
INFER: Json = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}, "minItems": 1},
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        },
        "parameters": {"type": "object"},
    },
}
LABEL: Json = {
    "type": "object",
    "required": ["request_id", "label"],
    "properties": {
        "request_id": {"type": "string", "format": "uuid"},
        "label": {"type": ["string", "number", "array"], "description": "A class, a number, or several labels."},
        "row": {"type": "integer", "minimum": 0, "description": "Of the request, from 0."},
    },
}
ABOUT: Json = {
    "request_id": {"type": "string", "format": "uuid"},
    "model": {"type": "string"},
    "version": {"type": "integer"},
    "digest": {"type": "string", "description": "SHA-256 of the weights and of what decides beside them."},
    "engine": {"type": "string"},
    "duration_ms": {"type": "number"},
}
ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {name: {"type": "string"} for name in ("code", "message", "request_id")},
        }
    },
}
V2_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {name: {"type": "string"} for name in ("error", "code", "request_id")},
}
SCHEMAS: Json = {
    "Value": VALUE,
    "Column": COLUMN,
    "Record": RECORD,
    "Records": RECORDS,
    "Columns": COLUMNS,
    "Rows": ROWS,
    "Invocations": INVOCATIONS,
    "Tensor": TENSOR,
    "InferRequest": INFER,
    "Predictions": {
        "type": "object",
        "required": ["predictions", *ABOUT],
        "properties": {"predictions": {"type": "array", "items": {"type": "object"}}, **ABOUT},
    },
    "MlflowPredictions": {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": {"type": "object"}}},
    },
    "Explanations": {
        "type": "object",
        "required": ["explanations", *ABOUT],
        "properties": {"explanations": {"type": "array", "items": {"type": "object"}}, **ABOUT},
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "model_version", "id", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object", "properties": ABOUT},
            "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/Tensor"}},
        },
    },
    "Label": LABEL,
    "Labels": {
        "anyOf": [{"$ref": "#/components/schemas/Label"}, {"type": "array", "items": LABEL, "minItems": 1}]
    },
    "Accepted": {
        "type": "object",
        "required": ["accepted", "request_id", "model"],
        "properties": {
            "accepted": {"type": "integer"},
            "request_id": {"type": "string", "format": "uuid"},
            "model": {"type": "string"},
        },
    },
    "Error": ERROR,
    "V2Error": V2_ERROR,
}
REFUSALS = {
    "401": "No key, or one that is not valid.",
    "403": "The key has no right to this.",
    "400": "The body cannot be read, or a row is missing; the message names the row.",
    "404": "No such model, version or alias.",
    "408": "The body did not arrive in time.",
    "413": "The body, or the number of its rows, is too large.",
    "415": "Another Content-Type, encoding or compression.",
    "429": "The key asks too often, or has had its rows of the day; Retry-After says when to try again.",
    "503": "Too much waits, or the version cannot be loaded; Retry-After says when to try again.",
    "504": "No answer in time.",
}
NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Of a registered model.",
}
WHICH: Json = {
    "name": "which",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "A version or an alias; an address without it means the champion.",
}
METHOD: Json = {
    "name": "method",
    "in": "query",
    "schema": {"type": "string", "enum": ["partition", "gradient"]},
    "description": "Exact shares by leaving parts out, or quick gradients; by default as the explainer has it.",
}


def make_document() -> Json:
    """Return the OpenAPI document of a server."""
    about = (
        "Registered models behind an address. An alias that moves in the registry is followed within two seconds. "
        "Answers are those of `dlpipe predict` with the same engine."
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "dlpipe", "version": __version__, "description": about},
        "paths": {**dict(describe_posts()), **dict(describe_gets())},
        "components": {"schemas": SCHEMAS},
    }


def describe_posts() -> Iterator[tuple[str, Json]]:
    """Yield the addresses that take a body; those of plain predictions show the model too."""
    shows = describe_get("The version that answers: what it reads and returns.", error="Error")
    for at in ("/models/{name}", "/models/{name}/{which}"):
        given = [NAME, WHICH] if "which" in at else [NAME]
        plain = describe_post("Predict rows.", "Rows", "Predictions")
        yield at, {"parameters": given, "get": shows, "post": plain}
        invocations = describe_post(
            "Predict rows, asked and answered as by MLflow's scoring server; JSON or CSV.",
            "Invocations",
            "MlflowPredictions",
            csv=True,
        )
        yield f"{at}/invocations", {"parameters": given, "post": invocations}
        explain = describe_post("Explain rows: what each part adds to the prediction.", "Rows", "Explanations")
        yield f"{at}/explain", {"parameters": [*given, METHOD], "post": explain}
    labels = describe_post("Give labels for what was asked, by the ids of the answers.", "Labels", "Accepted")
    yield "/models/{name}/feedback", {"parameters": [NAME], "post": labels}
    only = describe_post(
        "The same of the only model, where the server was started with one --model.",
        "Invocations",
        "MlflowPredictions",
        csv=True,
    )
    yield "/invocations", {"post": only}
    for at in ("/v2/models/{name}", "/v2/models/{name}/versions/{which}"):
        given = [NAME, WHICH] if "which" in at else [NAME]
        infer = describe_post(
            "Predict rows by the Open Inference Protocol.", "InferRequest", "InferResponse", error="V2Error"
        )
        yield f"{at}/infer", {"parameters": given, "post": infer}
        metadata = describe_get("The tensors of a model.", error="V2Error")
        yield at, {"parameters": given, "get": metadata}
        yield f"{at}/ready", {"parameters": given, "get": describe_get("Whether it answers.", error="V2Error")}


def describe_gets() -> Iterator[tuple[str, Json]]:
    """Yield the addresses that show something of the server."""
    shown = {
        "/models": "The registered models, and what is loaded of them.",
        "/livez": "Whether the process runs.",
        "/readyz": "Whether requests are taken; 503 while the server ends.",
        "/version": "The version of dlpipe.",
        "/metrics": "Numbers, as Prometheus reads them.",
        "/openapi.json": "This description.",
        "/v2": "The server, by the Open Inference Protocol.",
        "/v2/health/live": "Whether the process runs.",
        "/v2/health/ready": "Whether requests are taken.",
    }
    for path, what in shown.items():
        named = {"/metrics": "text/plain", "/version": "text/plain"}.get(path, "application/json")
        yield (
            path,
            {"get": {"summary": what, "responses": {"200": {"description": "Shown.", "content": {named: {}}}}}},
        )
        if path.endswith(("readyz", "ready")):
            responses = {"200": {"description": "Yes."}, "503": {"description": "Not now."}}
            yield path, {"get": {"summary": what, "responses": responses}}


def describe_get(what: str, *, error: str) -> Json:
    """Return the description of a page about a model."""
    refused = {status: refusal(REFUSALS[status], error) for status in ("401", "403", "404", "429", "503", "504")}
    shown = {"description": "Shown.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"summary": what, "responses": {"200": shown, **refused}}


def describe_post(what: str, body: str, answer: str, *, csv: bool = False, error: str = "Error") -> Json:
    """Return the description of an address that takes a body.

    Parameters
    ----------
    what : str
        A sentence.
    body, answer, error : str
        Names of schemas.
    csv : bool
        Whether CSV is read as well.
    """
    content: Json = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
    if csv:
        content["text/csv"] = {"schema": {"type": "string"}}
    answered = {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer}"}}}
    return {
        "summary": what,
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {"description": "Answered.", "content": answered},
            **{status: refusal(told, error) for status, told in REFUSALS.items()},
        },
    }


def refusal(told: str, error: str) -> Json:
    """Return the description of an answer that is an error."""
    return {
        "description": told,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}},
    }


STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } table { border-collapse: collapse; width: 100%; } td { padding: .3rem .8rem .3rem 0;
vertical-align: top; border-top: 1px solid #ddd; } code, pre { font: 14px/1.5 ui-monospace, monospace; }
pre { background: #f4f4f4; padding: .8rem; overflow-x: auto; }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e8e8e8; } pre { background: #262626; }
td { border-color: #444; } a { color: #9bf; } }"""


def make_page(document: Mapping[str, Any]) -> str:
    """Return the addresses as a page that needs no script and nothing from elsewhere."""
    rows = "".join(
        f"<tr><td>{method.upper()}</td><td><code>{escape(path)}</code></td><td>{escape(one['summary'])}</td></tr>"
        for path, item in document["paths"].items()
        for method, one in item.items()
        if method in ("get", "post")
    )
    example = """curl ADDRESS/models/NAME -H 'Content-Type: application/json' -d '{"text": "I loved it."}'"""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>dlpipe</title><style>{STYLE}</style>"
        f"<h1>dlpipe {escape(__version__)}: models behind an address</h1>"
        f"<p>{escape(document['info']['description'])} The bodies are described in "
        '<a href="/openapi.json">/openapi.json</a>; <a href="/models">/models</a> lists the models.</p>'
        f"<pre>{escape(example)}</pre><table>{rows}</table></html>"
    )
