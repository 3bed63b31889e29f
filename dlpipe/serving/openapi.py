"""The description of a server's addresses for programs, as OpenAPI; ``status_page`` shows them to people."""

from __future__ import annotations

from collections.abc import Iterator

from dlpipe import __version__
from dlpipe.serving.schemas import SCHEMAS, Json

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


SHOWN: dict[str, tuple[str, str | None, bool]] = {
    "/models": ("The registered models, and what is loaded of them.", "Models", True),
    "/livez": ("Whether the process runs.", "Live", False),
    "/readyz": ("Whether requests are taken.", "Ready", False),
    "/version": ("The version of dlpipe.", None, False),
    "/metrics": ("Numbers, as Prometheus reads them.", None, True),
    "/v2": ("The server, by the Open Inference Protocol.", "ServerMetadata", False),
    "/v2/health/live": ("Whether the process runs.", "Live", False),
    "/v2/health/ready": ("Whether requests are taken.", "Ready", False),
}
"""Pages about the server: a sentence, the schema of what is JSON, and whether one takes a key."""


def make_document(*, keys: bool) -> Json:
    """Return the OpenAPI document of a server.

    Parameters
    ----------
    keys : bool
        Whether it takes keys.
    """
    about = (
        "Registered models behind an address. An alias that moves in the registry is followed within two seconds. "
        "Answers are those of `dlpipe predict` with the same engine."
    )
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "dlpipe", "version": __version__, "description": about},
        "paths": {**dict(describe_posts()), **dict(describe_gets())},
        "components": {"schemas": SCHEMAS},
    }
    if keys:
        document["components"] = {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "dlpipe keys create"}},
        }
        document["security"] = [{"key": []}]
    return document


def describe_posts() -> Iterator[tuple[str, Json]]:
    """Yield the addresses that take a body; those of plain predictions show the model too."""
    shows = describe_get("The version that answers: what it reads and returns.", "Model", error="Error")
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
        metadata = describe_get("The tensors of a model.", "ModelMetadata", error="V2Error")
        yield at, {"parameters": given, "get": metadata}
        ready = describe_get("Whether it answers.", "ModelReady", error="V2Error")
        yield f"{at}/ready", {"parameters": given, "get": ready}


def describe_gets() -> Iterator[tuple[str, Json]]:
    """Yield the addresses that show something of the server."""
    for path, (what, schema, secured) in SHOWN.items():
        page = describe_page(what, schema)
        if schema == "Ready":
            page["responses"]["503"] = {**page["responses"]["200"], "description": "Not now."}
        if secured:
            page["responses"] |= {status: refusal(REFUSALS[status], "Error") for status in ("401", "403", "429")}
        else:
            page["security"] = []
        yield path, {"get": page}
    yield "/openapi.json", {"get": {**describe_page("This description.", "Document"), "security": []}}


def describe_page(what: str, schema: str | None) -> Json:
    """Return the description of a page: JSON of a schema, or text."""
    content: Json = {"text/plain": {}}
    if schema is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"summary": what, "responses": {"200": {"description": "Shown.", "content": content}}}


def describe_get(what: str, schema: str, *, error: str) -> Json:
    """Return the description of a page about a model."""
    page = describe_page(what, schema)
    for status in ("401", "403", "404", "429", "503", "504"):
        page["responses"][status] = refusal(REFUSALS[status], error)
    return page


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
