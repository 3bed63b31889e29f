"""The application of a server, as ASGI has it: requests for predictions and explanations, and pages about it.

What takes a body goes a short way of its own: route, key, body, rows, batch, answer. All other addresses are in
``pages``. Every answer and every refusal has the id of its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import orjson

from dlpipe.errors import DeadlinePassed, DlpipeError, ModelNotFound
from dlpipe.serving.allowances import Allowance
from dlpipe.serving.arrivals import Receive, check_rows, count_rows, find_authorization, read_body, read_headers
from dlpipe.serving.batching import Batcher
from dlpipe.serving.bodies import CSV, LARGE, Asked, check_content_type, parse, read_numbers
from dlpipe.serving.calls import Call, make_entry
from dlpipe.serving.entries import Entry, make_request_id
from dlpipe.serving.explaining import Explainers
from dlpipe.serving.feedback import Given
from dlpipe.serving.following import Models
from dlpipe.serving.guards import UNCHARGED, Guard, Open
from dlpipe.serving.labelling import Answered, find_label_error, read_labels
from dlpipe.serving.metrics import Metrics
from dlpipe.serving.origins import find_foreign, send_refusal
from dlpipe.serving.pages import make_pages
from dlpipe.serving.refusals import CLIENT_GONE, ENDING, GONE, Refused, bad_request, refuse
from dlpipe.serving.replies import JSON_TYPE, Headers, make_error, make_reply
from dlpipe.serving.routes import Route, find_route
from dlpipe.serving.served import Served
from dlpipe.serving.settings import LOAD_SECONDS, LimitSettings
from dlpipe.serving.tensors import check_outputs

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOGGER = logging.getLogger(__name__)
BODIES = 8
"""So many of the largest bodies may be held at a time; more are refused, or many clients could fill the memory."""
LOGGED_UNKNOWN = 1.0, 60.0
"""Requests without a valid key that are logged: so many a second, and so many at once."""
NO_ONLY = (
    "/invocations is the address of the only model of a server that was started with one --model. "
    "Write /models/NAME/invocations."
)


@dataclass(eq=False)
class Application:
    """What answers.

    Attributes
    ----------
    models, batcher : Models and Batcher
        Started by whoever made them.
    limits : LimitSettings
    guard : Guard
        By default everybody may do everything.
    record : callable, optional
        Gets the entry of each request before its answer is sent; what it raises is the answer.
    take : callable, optional
        Gets a model, labels for what was asked of it, and the id of a key; returns when they survive a kill.
    find_trouble : callable
        Returns why requests cannot be logged; empty while they can.
    is_logged : callable
        Gets a model, and returns whether the log has something of it; by default there is no log.
    gather : callable, optional
        Returns the numbers for Prometheus where others answer beside this application; by default its own.
    draining : bool
        Whether the server is about to end: ``/readyz`` says so.
    local : bool
        Whether requests are refused that a browser on this machine sends for other sites.
    """

    models: Models
    batcher: Batcher
    limits: LimitSettings = field(default_factory=LimitSettings)
    guard: Guard = field(default_factory=Open)
    record: Callable[[Entry], None] | None = None
    take: Callable[[str, Sequence[Given], str], None] | None = None
    gather: Callable[[], Awaitable[bytes]] | None = None
    is_logged: Callable[[str], bool] = field(default=lambda model: False)
    explainers: Explainers = field(default_factory=Explainers)
    find_trouble: Callable[[], str] = str
    draining: bool = False
    local: bool = False

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models, self.batcher.count_waiting, self.find_trouble)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="dlpipe-bodies")
        self._unknown = Allowance(LOGGED_UNKNOWN[1], time.time())
        self._held = 0
        self._answered = Answered()
        self._loading: dict[tuple[str, str], asyncio.Task[Served]] = {}
        self._pages = make_pages(self)

    async def write_metrics(self) -> bytes:
        """Return the numbers for Prometheus as text."""
        return self.metrics.write() if self.gather is None else await self.gather()

    def take_keys(self, guard: Guard) -> None:
        """Ask for keys from now on."""
        self.guard, self.local = guard, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        if self.local and (refused := find_foreign(scope["headers"], scope["method"])) is not None:
            await send_refusal(refused, scope["path"], send)
            return
        route = find_route(scope["path"])
        if route is None or scope["method"] != "POST":
            await self._pages(scope, receive, send)
            return
        await self._answer(route, scope, receive, send)

    async def _answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.time()
        call = Call(route, make_request_id(now), now, time.perf_counter(), scope.get("query_string", b""))
        status, error = 200, ""
        try:
            try:
                body, headers = await self._compute(call, scope, receive)
                self._note(call, 200, "")
            except Exception as raised:
                refused = refuse(raised)
                call.key = call.key or refused.key
                status, error = refused.status, refused.message
                if status in UNCHARGED and call.charged is not None:
                    self.guard.give_back(call.charged, len(call.rows))
                if status == 500:
                    LOGGER.exception("request %s failed", call.id)
                body, headers = make_error(refused, call.id, shape=route.shape)
                call.records = ()
                self._note_error(call, status, error)
        except asyncio.CancelledError as cancelled:
            call.records = ()
            if not self.draining or cancelled.args == (CLIENT_GONE,):
                self._note_error(call, GONE, CLIENT_GONE)
                return
            status, error = ENDING.status, ENDING.message
            body, headers = make_error(ENDING, call.id, shape=route.shape)
            self._note_error(call, status, error)
        finally:
            self._let_go(call)
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _compute(self, call: Call, scope: Scope, receive: Receive) -> tuple[bytes, Headers]:
        limits = self.limits
        route = call.route = self._name_only(call.route)
        name, which = route.name, route.which
        # first, for what anybody can send must fill no log
        grant = self.guard.check(find_authorization(scope["headers"]), model=name, right=route.action)
        call.key = grant.key
        if not name:
            raise ModelNotFound(NO_ONLY)
        call.media = check_content_type(read_headers(scope["headers"], limits.max_body), shape=route.shape)
        if route.action == "predict" and (served := self.models.peek(name, which)) is not None:
            call.served = served
            self.batcher.check_room(served)  # before the body is read and charged
        call.body = await read_body(receive, limits.max_body, limits.timeout, lambda size: self._hold(call, size))
        if route.action == "feedback":
            return await self._take_labels(call, name)
        served = self.models.peek(name, which)
        if served is None:
            call.loading, served = True, await self.load(name, which)
        call.served = served
        if len(call.body) > LARGE:
            # one at a time: what is made of them takes many times their room
            asked = await asyncio.get_running_loop().run_in_executor(self._reader, self._read, call, served)
        else:
            asked = self._read(call, served)
        self._let_go(call)
        check_outputs(asked.outputs, served)
        self.guard.charge(grant, len(call.rows))
        call.charged = grant
        if route.action == "explain":
            return await self._explain(call, served)
        call.records = await self.batcher.compute(served, call.rows, timeout=limits.timeout)
        self._answered.note(call.id, served.version.name, len(call.records))
        return make_reply(
            call.records, asked, served, shape=route.shape, request_id=call.id, duration_ms=call.measure()
        )

    def _hold(self, call: Call, size: int) -> None:
        """Count bytes of a body that are in memory, or refuse them."""
        if self._held + size > BODIES * self.limits.max_body:
            raise Refused(
                503, "overloaded", "Too many large bodies come in at a time. Try again.", retry_after=1.0
            )
        call.held += size
        self._held += size

    def _let_go(self, call: Call) -> None:
        self._held -= call.held
        call.held, call.body = 0, b""

    def _read(self, call: Call, served: Served) -> Asked:
        """Have the rows of a body read by the inputs of the model's task."""
        most = self.limits.max_explained if call.route.action == "explain" else self.limits.max_rows
        with call.reading():
            asked = parse(call.body, call.media, call.route.shape)
            check_rows(count_rows(asked.given), most)
            given = read_numbers(asked.given, served.example) if call.media == CSV else asked.given
            rows = call.rows = served.read_request(given)
            if self.record is not None:
                call.describe_rows(served)
        check_rows(len(rows), most)
        if None in rows and (not served.takes_missing or call.route.action == "explain"):
            raise bad_request(f"Row {rows.index(None)} is missing: it is null, and the model reads no such row.")
        return asked

    async def _explain(self, call: Call, served: Served) -> tuple[bytes, Headers]:
        method = parse_qs(call.query.decode("latin-1")).get("method", [None])[0]
        call.records = await self.explainers.explain(
            served, call.rows, method=method, timeout=self.limits.explain_timeout
        )
        version = served.version
        body = {
            "explanations": call.records,
            "request_id": call.id,
            "model": version.name,
            "version": version.version,
            "digest": served.digest,
            "engine": "exact",
            "duration_ms": round(call.measure(), 3),
        }
        return orjson.dumps(body), [JSON_TYPE, (b"x-request-id", call.id.encode())]

    async def _take_labels(self, call: Call, name: str) -> tuple[bytes, Headers]:
        """Keep labels for what was asked of a model that exists, whether it is loaded or not."""
        if self.take is None:
            raise Refused(503, "unavailable", "This server keeps no log, and so no labels.")
        await self._check_known(name)
        with call.reading():
            given = read_labels(call.body, self.limits.max_rows)
        cards = await self._list_cards(name)
        for number, label in enumerate(given):
            error = self._answered.find_error(label, name) or find_label_error(label.label, cards)
            if error:
                raise bad_request(f"Label {number}: {error}")
        self.take(name, given, call.key)
        body = {"accepted": len(given), "request_id": call.id, "model": name}
        return orjson.dumps(body), [JSON_TYPE, (b"x-request-id", call.id.encode())]

    async def _check_known(self, name: str) -> None:
        """Raise ``DlpipeError`` for a model that is not registered; while nobody can say so, the log is asked."""
        try:
            await self.models.check_registered(name)
        except ModelNotFound:
            raise
        except DlpipeError:
            if not await asyncio.to_thread(self.is_logged, name):
                raise

    async def _list_cards(self, name: str) -> list[Mapping[str, Any]]:
        """Return what the versions of a model know that answer; nothing where none can be loaded now."""
        if not (loaded := self.models.list_loaded(name)):
            with contextlib.suppress(DlpipeError):
                loaded = [await self.load(name, "")]
        return [served.card for served in loaded]

    def _name_only(self, route: Route) -> Route:
        """Return a route with the model that `/invocations` means, if any: the only one that is served."""
        if route.name or len(self.models.only) != 1:
            return route
        name, number, alias = self.models.only[0]
        return replace(route, name=name, which=alias or str(number))

    async def load(self, name: str, which: str) -> Served:
        """Return what answers for a model that nobody has asked for yet.

        It is loaded on when whoever asked does not wait for it any more.
        """
        key = name, which
        if (loading := self._loading.get(key)) is None:
            loading = self._loading[key] = asyncio.create_task(self.models.find(name, which or None))
            loading.add_done_callback(lambda done: self._end_loading(key, done))
        try:
            return await asyncio.wait_for(asyncio.shield(loading), LOAD_SECONDS)
        except TimeoutError:
            raise DeadlinePassed(
                f"{name} is being loaded, which takes more than {LOAD_SECONDS:g} s. Try again."
            ) from None

    def _end_loading(self, key: tuple[str, str], done: asyncio.Task[Served]) -> None:
        self._loading.pop(key, None)
        if not done.cancelled():
            done.exception()  # or asyncio says that nobody has seen it, where its client is gone

    # what is kept of a request -----------------------------------------------------------------------------

    def _note(self, call: Call, status: int, error: str) -> None:
        """Count a request, and hand its entry to the log."""
        entry = make_entry(call, status, error)
        # anybody can send wrong keys: all are counted, and some of them logged
        known = status != HTTPStatus.UNAUTHORIZED or not self._unknown.take(*LOGGED_UNKNOWN, call.arrived)
        if self.record is not None and known and call.route.action != "feedback":  # labels have their own table
            self.record(entry)
        self.metrics.count(entry, len(call.records))

    def _note_error(self, call: Call, status: int, error: str) -> None:
        try:
            self._note(call, status, error)
        except Exception:
            LOGGER.exception("request %s has no entry in the log", call.id)
