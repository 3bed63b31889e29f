"""What a server says of itself: its models, whether it is ready, numbers, and how to ask."""

from __future__ import annotations

import base64
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dlpipe import __version__
from dlpipe.errors import DlpipeError
from dlpipe.pages import HEADERS, POLICY, STYLE
from dlpipe.serving.entries import make_request_id
from dlpipe.serving.followed import Followed
from dlpipe.serving.following import Models
from dlpipe.serving.guards import READ, Grant, Guard, Open
from dlpipe.serving.lookup import Aliases
from dlpipe.serving.metrics import Metrics
from dlpipe.serving.openapi import make_document
from dlpipe.serving.refusals import NOT_LOADED, Refused, refuse
from dlpipe.serving.replies import make_error
from dlpipe.serving.routes import find_route
from dlpipe.serving.schemas import Json
from dlpipe.serving.served import Served
from dlpipe.serving.status_page import render, render_addresses
from dlpipe.serving.tensors import is_single_text, list_inputs, list_outputs

LOGGER = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
ASK_FOR_KEY = ((b"www-authenticate", b'Basic realm="dlpipe: a key with the right admin, as the password"'),)
FOREIGN = ("cross-site", "same-site")
"""What a browser says in ``Sec-Fetch-Site`` of a request that a page of somebody else has it send."""


class Shown(Protocol):
    """What is shown: see ``Application``."""

    models: Models
    guard: Guard
    metrics: Metrics
    draining: bool

    async def load(self, name: str, which: str) -> Served:
        """Return what answers for a model that is not loaded yet."""

    async def write_metrics(self) -> bytes:
        """Return the numbers for Prometheus as text."""


def make_pages(app: Shown) -> Starlette:
    """Return the application of all addresses that take no body."""
    pages = Pages(app)
    routes = {
        "/": pages.status,
        "/style.css": pages.style,
        "/docs": pages.describe,
        "/openapi.json": pages.document,
        "/livez": pages.live,
        "/readyz": pages.ready,
        "/ping": pages.ready,
        "/health": pages.ready,
        "/version": pages.version,
        "/metrics": pages.metrics,
        "/models": pages.models,
        "/models/{name}": pages.model,
        "/models/{name}/{which}": pages.model,
        "/v2": pages.server,
        "/v2/": pages.server,
        "/v2/health/live": pages.live,
        "/v2/health/ready": pages.ready,
        "/v2/models/{name}": pages.tensors,
        "/v2/models/{name}/ready": pages.model_ready,
        "/v2/models/{name}/versions/{which}": pages.tensors,
        "/v2/models/{name}/versions/{which}/ready": pages.model_ready,
    }
    shown = Starlette(
        routes=[Route(path, guarded(page)) for path, page in routes.items()],
        exception_handlers={HTTPException: answer_unknown},
    )
    shown.router.redirect_slashes = False  # such an answer has no body, and no id
    return shown


def guarded(page: Handler) -> Handler:
    """Return a page whose errors are JSON."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except Exception as error:
            return to_response(request, refuse(error), error)

    return answer


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Answer for an address that does not exist, or not with this method."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path[:200], request.method
    takes_body = find_route(request.url.path) is not None
    if error.status_code == 405 or takes_body:
        allowed = [] if is_body_only(request.url.path) else ["GET", "HEAD"]
        allowed += ["POST"] if takes_body else []
        headers = ((b"allow", ", ".join(allowed).encode()),)
        refused = Refused(405, "method_not_allowed", f"{path} takes {', '.join(allowed)}.", headers=headers)
    else:
        message = f"{method} {path}: there is no such address. GET /openapi.json lists those that there are."
        refused = Refused(404, "not_found", message)
    return to_response(request, refused, error)


def is_body_only(path: str) -> bool:
    """Return whether an address has nothing to show without a body."""
    return path.rpartition("/")[2] in ("invocations", "explain", "infer", "feedback")


def to_response(request: Request, refused: Refused, error: Exception) -> Response:
    """Return a refusal as a response."""
    request_id = make_request_id(time.time())
    if refused.status == 500:
        LOGGER.error("request %s failed", request_id, exc_info=error)
    shape = "v2" if request.url.path.startswith("/v2") else "plain"
    body, headers = make_error(refused, request_id, shape=shape)  # type: ignore[arg-type]
    return Response(body, refused.status, {name.decode(): value.decode("latin-1") for name, value in headers})


def to_json(content: Mapping[str, Any], status: int = 200) -> Response:
    """Return a response of JSON."""
    return Response(orjson.dumps(content, default=str), status, media_type="application/json")


def to_page(page: str) -> Response:
    """Return a response of HTML, of which browsers keep and guess nothing."""
    return HTMLResponse(page, headers={**HEADERS, "Content-Security-Policy": POLICY})


class Pages:
    """What is shown of an application."""

    def __init__(self, app: Shown) -> None:
        self.app = app

    # the server --------------------------------------------------------------------------------------------

    async def live(self, request: Request) -> Response:
        """Answer that the process runs."""
        return to_json({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answer whether requests are taken, and which models that were named do not answer, to who may see them.

        A model that goes later makes the server unready for none of the others.
        """
        ready, missing = self._is_ready(), self._list_missing(request)
        return to_json({"ready": ready, **({"not_ready": missing} if missing else {})}, 200 if ready else 503)

    def _is_ready(self) -> bool:
        return self.app.models.started and not self.app.draining

    async def version(self, request: Request) -> Response:
        """Answer with dlpipe's version, where MLflow's server has MLflow's."""
        return Response(__version__, media_type="text/plain")

    async def server(self, request: Request) -> Response:
        """Answer with what the Open Inference Protocol asks of a server."""
        return to_json({"name": "dlpipe", "version": __version__, "extensions": []})

    async def metrics(self, request: Request) -> Response:
        """Answer with the numbers, as Prometheus reads them."""
        self._check_all(request)
        return Response(await self.app.write_metrics(), media_type="text/plain; version=1.0.0; charset=utf-8")

    async def status(self, request: Request) -> Response:
        """Answer with the first page: models, traffic, errors and swaps.

        It takes the right ``admin``, for all models.
        """
        self._check_all(request)
        registered: Aliases = {}
        unseen = ""
        if not self.app.models.only:
            registered, unseen = await self._list_registered()
        address = f"{request.url.scheme}://{request.url.netloc}"
        metrics = self.app.metrics
        page = render(
            self.app.models,
            metrics.recent,
            registered=registered,
            unseen=unseen,
            trouble=metrics.find_trouble(),
            waiting=metrics.count_waiting(),
            draining=self.app.draining,
            address=address,
            keys=self._takes_keys(),
        )
        return to_page(page)

    async def style(self, request: Request) -> Response:
        """Answer with the style of pages."""
        return Response(STYLE.read_bytes(), media_type="text/css", headers=HEADERS)

    async def document(self, request: Request) -> Response:
        """Answer with the OpenAPI document."""
        return to_json(self._make_document())

    async def describe(self, request: Request) -> Response:
        """Answer with the same for people."""
        return to_page(render_addresses(self._make_document(), keys=self._takes_keys()))

    def _make_document(self) -> Json:
        return make_document(keys=self._takes_keys())

    def _takes_keys(self) -> bool:
        return not isinstance(self.app.guard, Open)

    # models ------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """Answer with the models that are registered, and what is loaded of them; those that the key may ask."""
        seen = self._check(request, "", READ).models
        loaded: dict[str, dict[str, Any]] = {}
        for followed in self.app.models.list_followed():
            loaded.setdefault(followed.name, {})[followed.alias] = describe_followed(followed)
        for served in self.app.models.list_numbered():
            about = {"version": served.version.version, "engine": served.engine, "digest": served.digest}
            loaded.setdefault(served.version.name, {})[str(served.version.version)] = about
        registered, unseen = await self._list_registered()
        only = {name for name, _, _ in self.app.models.only}
        names = only or {*registered, *loaded}
        listed = [
            {"name": name, "aliases": registered.get(name, {}), "loaded": loaded.get(name, {})}
            for name in sorted(names)
            if not seen or name in seen
        ]
        return to_json({"models": listed, **({"registry_unseen": unseen} if unseen else {})})

    async def model(self, request: Request) -> Response:
        """Answer with one version: what answers, what it reads and what it returns."""
        path = request.url.path
        if is_body_only(path) and find_route(path) is not None:
            raise Refused(405, "method_not_allowed", f"{path} takes POST.", headers=((b"allow", b"POST"),))
        served = await self._find(request)
        version = served.version
        return to_json(
            {
                "model": version.name,
                "version": version.version,
                "digest": served.digest,
                "engine": served.engine,
                "task": served.task.name,
                "pipeline": served.takes_missing,
                "single_text": is_single_text(served),
                "checked": served.checked,
                "inputs": list_inputs(served),
                "outputs": list_outputs(served),
            }
        )

    async def tensors(self, request: Request) -> Response:
        """Answer with what the Open Inference Protocol asks of a model."""
        served = await self._find(request)
        return to_json(
            {
                "name": served.version.name,
                "versions": [str(served.version.version)],
                "platform": f"dlpipe_{served.task.name}",
                "inputs": list_inputs(served),
                "outputs": list_outputs(served),
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Answer whether a model answers."""
        served = await self._find(request)
        return to_json({"name": served.version.name, "ready": self._is_ready()})

    async def _list_registered(self) -> tuple[Aliases, str]:
        """Return the aliases of each registered model, and why the registry could not be asked."""
        try:
            return await self.app.models.lookup.list_all(), ""
        except DlpipeError as error:
            return {}, refuse(error).message

    async def _find(self, request: Request) -> Served:
        name, which = request.path_params["name"], request.path_params.get("which", "")
        self._check(request, name, READ)
        return self.app.models.peek(name, which) or await self.app.load(name, which)

    def _list_missing(self, request: Request) -> dict[str, str]:
        """Return which models that were named do not answer, and why, as far as whoever asks may see them."""
        if not (missing := self.app.models.list_missing()):
            return missing
        try:
            seen = self._check(request, "", READ).models
        except Refused:
            return {}
        return {uri: why for uri, why in missing.items() if not seen or re.split("[/@]", uri)[0] in seen}

    def _check_all(self, request: Request) -> None:
        """Raise ``Refused`` without a key that has the right ``admin`` for all models: what is shown is of all."""
        grant = self._check(request, "", "admin")
        if grant.models:
            told = (
                f"The key {grant.key} is for some models only, and this is of all: it takes a key without --model."
            )
            raise Refused(403, "forbidden", told, key=grant.key)

    def _check(self, request: Request, model: str, right: str) -> Grant:
        """Return what a key may do, or raise ``Refused`` without one of this right.

        A browser sends a key as a password. It asks for one where it goes to a page, and is not heard where a page
        of somebody else has it fetch an address of this server.
        """
        headers = request.headers
        authorization = headers.get("authorization")
        goes = headers.get("sec-fetch-mode") == "navigate"
        if goes or headers.get("sec-fetch-site") not in FOREIGN:
            authorization = read_password(authorization)
        try:
            return self.app.guard.check(authorization, model=model, right=right)
        except Refused as refused:
            if refused.status == 401 and (request.url.path == "/" or "text/html" in headers.get("accept", "")):
                refused.headers = ASK_FOR_KEY
            raise


def read_password(authorization: str | None) -> str | None:
    """Return a header ``Authorization`` in which a key stands as a password, as programs send it.

    Examples
    --------
    >>> read_password("Basic " + base64.b64encode(b"ana:dlp_k1_secret").decode())
    'Bearer dlp_k1_secret'
    >>> read_password("Bearer dlp_k1_secret"), read_password("Basic ?")
    ('Bearer dlp_k1_secret', 'Basic ?')
    """
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        return "Bearer " + base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:
        return authorization


def describe_followed(followed: Followed) -> dict[str, Any]:
    """Return what answers for an alias, and what is the matter with it."""
    served = followed.served
    about: dict[str, Any] = (
        {}
        if served is None
        else {
            "version": served.version.version,
            "engine": served.engine,
            "digest": served.digest,
        }
    )
    for word in ("refused", "unseen", "gone"):
        if why := getattr(followed, word):
            about[word] = NOT_LOADED if word == "refused" else why
    return about
