"""Questions to the registry: answered within seconds, and for what is not there not asked again at once.

A registry that hangs must not keep requests waiting, nor threads that others need; and a client that asks for
names that do not exist must not make the registry work for each of them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from dlpipe.errors import ModelNotFound, Overloaded, TrackingUnavailable
from dlpipe.registry import AliasWatcher, ModelVersion, list_aliases, parse_uri, resolve

Answer = TypeVar("Answer")
Aliases = Mapping[str, Mapping[str, int]]

ANSWER_SECONDS = 10.0
FIRST_SECONDS = 60.0
"""For the first answer: MLflow is imported in it."""
ABSENT_SECONDS = 1.0
"""How long a name that is not there is taken for absent."""
TRY_AGAIN_SECONDS = 2.0
"""After which a request may find out whether a registry that did not answer does so again."""
MOST_ABSENT = 1_000
MOST_WAITING = 16
"""Requests that may wait for the registry."""
THREADS = 3
LONGEST_URI = 600
"""Characters; MLflow's names have 256 at most."""


class Lookup:
    """What the registry says, for the event loop.

    Parameters
    ----------
    find_version : callable
        Takes a URI and returns its version.
    read_aliases : callable, optional
        Takes names and returns, for each, what is the same while its aliases are.
    list_all : callable
        Returns the aliases of every registered model.
    say : callable
        Gets a line when the registry stops answering, and when it answers again.
    answer_seconds : float
        After which a question has failed.
    """

    def __init__(
        self,
        *,
        find_version: Callable[[str], ModelVersion] = resolve,
        read_aliases: Callable[[Collection[str]], Mapping[str, Any]] | None = None,
        list_all: Callable[[], Aliases] = list_aliases,
        say: Callable[[str], None] = print,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._find_version, self._list_all = find_version, list_all
        self._read_aliases = read_aliases or AliasWatcher().read
        self._say, self._answer_seconds = say, answer_seconds
        self._threads = asyncio.Semaphore(THREADS)
        self._turn = asyncio.Lock()
        self._absent: OrderedDict[str, tuple[float, ModelNotFound]] = OrderedDict()
        self._waiting = 0
        self._answered = False
        self._failure: Exception | None = None
        self._try_again_at = 0.0
        self._listed: tuple[float, Aliases] = -ABSENT_SECONDS, {}

    async def find(self, uri: str) -> ModelVersion:
        """Return the version that a URI means now.

        Raises
        ------
        ModelNotFound
            When there is none.
        TrackingUnavailable
            When the registry does not answer.
        """
        try:
            found = await self._ask(self._find_version, uri)
        except ModelNotFound as error:
            self._absent[uri] = time.monotonic() + ABSENT_SECONDS, error
            while len(self._absent) > MOST_ABSENT:
                self._absent.popitem(last=False)
            raise
        self._absent.pop(uri, None)
        return found

    async def find_in_turn(self, uri: str) -> ModelVersion:
        """Return the same for those who can wait, one after the other: many of them keep no request waiting.

        Parameters
        ----------
        uri : str
        """
        async with self._turn:
            return await self.find(uri)

    async def find_asked(self, uri: str) -> ModelVersion:
        """Return the version that a URI of a request means, which may be any.

        Raises
        ------
        ModelNotFound
            When there is none; the registry is not asked again for ``ABSENT_SECONDS``, and not at all for a name
            that no model can have.
        TrackingUnavailable
            When the registry does not answer: at once, while that is known.
        Overloaded
            When many requests wait for it.
        """
        if len(uri) > LONGEST_URI:
            raise ModelNotFound(f"There is no model with a name as long as {uri[:60]!r}...")
        check_uri(uri)
        until, error = self._absent.get(uri, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error.with_traceback(None)
        return await self._ask_for_request(self.find, uri)

    async def read_aliases(self, names: Collection[str]) -> Mapping[str, Any]:
        """Return where the aliases of some models point, in a form that is the same while they do not move."""
        return await self._ask(self._read_aliases, names)

    async def list_all(self, *, age: float = 0.0) -> Aliases:
        """Return the aliases of every registered model, which may have been read ``age`` seconds ago."""
        at, listed = self._listed
        if time.monotonic() - at >= age:
            listed = await self._ask_for_request(self._ask, self._list_all)
            self._listed = time.monotonic(), listed
        return listed

    async def _ask_for_request(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """Ask for a request: not while the registry is away, and not where many wait."""
        now = time.monotonic()
        if self._failure is not None:
            if now < self._try_again_at:
                raise self._failure.with_traceback(None)
            self._try_again_at = now + self._answer_seconds + TRY_AGAIN_SECONDS
        if self._waiting >= MOST_WAITING:
            raise Overloaded("Many requests wait for the registry. Try again.", retry_after=1.0)
        self._waiting += 1
        try:
            return await ask(*arguments)
        finally:
            self._waiting -= 1

    async def _ask(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Return what a function of the registry returns, within the time that it has."""
        seconds = self._answer_seconds if self._answered else max(FIRST_SECONDS, self._answer_seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._threads.acquire()
                answer = await self._start(function, *arguments)
        except ModelNotFound:
            self._note_answer()
            raise
        except TimeoutError:
            raise self._fail(TrackingUnavailable(f"The registry does not answer within {seconds:g} s.")) from None
        except Exception as error:
            raise self._fail(error) from None
        self._note_answer()
        return answer

    def _note_answer(self) -> None:
        if self._failure is not None:
            self._say("The registry answers again.")
        self._answered, self._failure = True, None

    def _fail(self, error: Exception) -> Exception:
        if self._failure is None:
            why = str(error) or type(error).__name__
            self._say(f"The registry does not answer; what is loaded goes on answering. {why}")
        self._failure, self._try_again_at = error, time.monotonic() + TRY_AGAIN_SECONDS
        return error

    def _start(self, function: Callable[..., Answer], *arguments: Any) -> asyncio.Future[Answer]:
        """Call a function in a thread that the end of the process does not wait for: it may hang for minutes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def end(answer: Any, error: Exception | None) -> None:
            self._threads.release()
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        def work() -> None:
            answer, error = None, None
            try:
                answer = function(*arguments)
            except Exception as raised:
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(end, answer, error)

        threading.Thread(target=work, name="dlpipe-registry", daemon=True).start()
        return future


def check_uri(uri: str) -> None:
    """Raise ``ModelNotFound`` for a name that no model can have.

    Examples
    --------
    >>> check_uri("models:/reviews@staging@champion")
    Traceback (most recent call last):
    ...
    dlpipe.errors.ModelNotFound: 'reviews@staging' names no model here: ask /models/reviews/staging.
    """
    name, _, alias = uri.removeprefix("models:/").rpartition("@")[0].partition("@")
    if name and alias:
        raise ModelNotFound(f"'{name}@{alias}' names no model here: ask /models/{name}/{alias}.")
    parse_uri(uri)
