"""Which version a name and an alias mean now: polled, loaded beside the old one, checked, then in its place.

A version that does not load, or does not answer its example as it did at registration, never gets a request: the
one before stays, and the state says why. Requests under way keep the version that they began with; it is let go
when the last of them has ended. A registry that does not answer changes nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from dlpipe.errors import DlpipeError, ModelNotFound, ModelNotLoaded, TrackingUnavailable
from dlpipe.machine import give_back_memory
from dlpipe.registry import CHAMPION, ModelVersion, parse_uri, resolve
from dlpipe.serving.followed import Followed, Swap, Watch
from dlpipe.serving.lookup import ABSENT_SECONDS, Lookup
from dlpipe.serving.numbered import Numbered
from dlpipe.serving.refusals import NOT_LOADED, REGISTRY_AWAY
from dlpipe.serving.served import Open, Served, open_served
from dlpipe.serving.unservable import Unservable

LOGGER = logging.getLogger(__name__)
POLL_SECONDS = 0.5
GONE = "The registry has no such version any more."
TRY_AGAIN_SECONDS = 30.0
"""After which a version that did not load is tried again, where the reason may have gone: a full disk, say."""
Find = Callable[[str], Awaitable[ModelVersion]]
"""What asks the registry which version a URI means."""


class Models:
    """The models that this process serves.

    Parameters
    ----------
    only : sequence of str, optional
        Names, or URIs with an alias or a version, which are loaded at once; other models are not served. By
        default every registered model is, from its first request on.
    engine : str, optional
        By default the one that each version chose at registration.
    say : callable
        Gets a line for each swap and each refusal.
    open_version, find_version, read_aliases : callable
        Load a version, find what a URI means, and read where the aliases of some names point: while that is the
        same, nothing else is asked.
    """

    def __init__(
        self,
        *,
        only: Sequence[str] = (),
        engine: str | None = None,
        say: Callable[[str], None] = print,
        open_version: Open | None = None,
        find_version: Callable[[str], ModelVersion] = resolve,
        read_aliases: Callable[[Collection[str]], Mapping[str, Any]] | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.only, self.say, self._poll_seconds = [parse_uri(uri) for uri in only], say, poll_seconds
        self._open: Open = open_version or (lambda version: open_served(version, engine=engine))
        self.lookup = Lookup(find_version=find_version, read_aliases=read_aliases, say=say)
        self.unservable = Unservable()
        self._followed: dict[tuple[str, str], Followed] = {}
        self._numbered = Numbered([(name, number) for name, number, _ in self.only if number])
        self._opening = threading.Lock()
        """One version is loaded at a time: two would need the memory of two."""
        self._locks: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()
        self._polling: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        """At aliases and versions, each beside the others."""
        self._beginning: dict[tuple[str, str], Followed] = {}
        """Aliases whose first version is being loaded: those who ask meanwhile wait for the same."""
        self._loading: dict[tuple[str, int], asyncio.Task[Served]] = {}
        """Versions that are being loaded by their number."""
        self._said: dict[str, str] = {}
        """Why versions could not be loaded by their number, which is said once."""
        self.started = False
        """Whether all that was named has been loaded."""

    async def check(self) -> None:
        """Raise ``DlpipeError`` where a model that was named is not registered, or nobody can be asked."""
        for name, number, alias in self.only:
            await self.lookup.find(f"models:/{name}/{number}" if number else f"models:/{name}@{alias}")

    async def start(self) -> None:
        """Load what was named, and begin to follow.

        Raises
        ------
        DlpipeError
            When one of those that were named cannot be served.
        """
        for name, number, alias in self.only:
            served = await self.find(name, str(number or alias))
            if number:
                self._numbered.keep(served)
        self.started = True
        self._polling = asyncio.create_task(self._poll())

    async def stop(self) -> None:
        """End following."""
        if self._polling is not None:
            ending = (self._polling, *self._looks)
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    async def find(self, name: str, which: str | None = None) -> Served:
        """Return what answers for a model; loaded by the first request that asks for it.

        Parameters
        ----------
        name : str
        which : str, optional
            The number of a version or an alias; by default the champion.

        Raises
        ------
        ModelNotFound
            When it is not registered or not served, the alias is gone, or the version can never answer.
        DlpipeError
            When it cannot be loaded; the message says why.
        """
        which = which or CHAMPION
        if which.isdecimal():
            return self._numbered_at(name, int(which)) or await self._load_numbered(name, int(which))
        followed = self._followed.get((name, which))
        if followed is not None and followed.served is not None:
            return followed.served
        return await self._follow(name, which)

    def peek(self, name: str, which: str) -> Served | None:
        """Return what ``find`` would, where it is loaded; ``None`` otherwise."""
        if which.isdecimal():
            return self._numbered_at(name, int(which))
        followed = self._followed.get((name, which or CHAMPION))
        return None if followed is None else followed.served

    async def check_registered(self, name: str) -> None:
        """Raise ``ModelNotFound`` for a model that is not served, whether it is loaded or not."""
        self._check_served(name)
        if self.only or any(name == followed for followed, _ in self._followed):
            return
        if name not in await self.lookup.list_all(age=ABSENT_SECONDS):
            raise ModelNotFound(f"No model {name[:100]!r} is registered. GET /models lists those that are.")

    def list_missing(self) -> dict[str, str]:
        """Return why those do not answer that were named and do not, by name and version or alias."""
        missing = {}
        for name, number, alias in self.only:
            which = str(number or alias)
            if self.peek(name, which) is None:
                followed = self._followed.get((name, which)) or Followed(name, which)
                refused = NOT_LOADED if followed.refused else ""
                gone = self.started and number and (name, number) not in self._loading
                why = (GONE if gone else followed.gone) or refused or followed.unseen or "It is being loaded."
                missing[f"{name}{'/' if number else '@'}{which}"] = why
        return missing

    def list_followed(self) -> list[Followed]:
        """Return every alias that is followed, by name."""
        return sorted(self._followed.values(), key=lambda one: (one.name, one.alias))

    def list_loaded(self, name: str) -> list[Served]:
        """Return the versions of a model that answer, each once: champion first."""
        followed = sorted(self.list_followed(), key=lambda one: one.alias != CHAMPION)
        found = [*(one.served for one in followed if one.served is not None), *self.list_numbered()]
        return list({served.version.version: served for served in found if served.version.name == name}.values())

    def list_numbered(self) -> list[Served]:
        """Return the versions that were asked for by their number and are loaded."""
        return self._numbered.list_all()

    # versions by their number --------------------------------------------------------------------------------

    def _numbered_at(self, name: str, number: int) -> Served | None:
        for followed in self._followed.values():
            served = followed.served
            if followed.name == name and served is not None and served.version.version == number:
                return served
        return self._numbered.find(name, number)

    def _lock(self, version: ModelVersion) -> asyncio.Lock:
        """Return what is held while a version is loaded: who wants it for something else gets the same."""
        return self._locks.setdefault(version.identity, asyncio.Lock())

    async def _open_or_find(self, version: ModelVersion) -> Served:
        """Return a version that answers under another alias or by its number already, or load it."""
        for served in (*(followed.served for followed in self._followed.values()), *self._numbered.list_all()):
            if served is not None and served.version.identity == version.identity:
                return served
        return await asyncio.to_thread(self._open_alone, version)

    async def _load_numbered(self, name: str, number: int) -> Served:
        self._check_served(name)
        loading = self._loading.get((name, number))
        if loading is None:
            loading = self._loading[name, number] = asyncio.create_task(self._open_numbered(name, number))
            loading.add_done_callback(lambda done: self._end_loading(name, number, done))
        return await asyncio.shield(loading)

    def _end_loading(self, name: str, number: int, done: asyncio.Task[Served]) -> None:
        del self._loading[name, number]
        if not done.cancelled():
            done.exception()  # or asyncio says that nobody has seen it, where its client is gone

    async def _open_numbered(self, name: str, number: int) -> Served:
        version = await self.lookup.find_asked(f"models:/{name}/{number}")
        self.unservable.check(version)
        try:
            async with self._lock(version):
                served = await self._open_or_find(version)
        except ModelNotFound:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            if self.started and self._said.get(version.uri) != reason:  # else whoever starts the server says it
                self._said[version.uri] = reason
                self.say(f"{version.uri} cannot be loaded: {reason}")
            raise ModelNotLoaded(reason) from error
        self._said.pop(version.uri, None)
        self._numbered.keep(served)
        return served

    async def _check_numbered(self, served: Served) -> None:
        """Let a version go that the registry has no more, or has another of with its number."""
        name, number = served.version.name, served.version.version
        try:
            now = await self.lookup.find_in_turn(f"models:/{name}/{number}")
        except ModelNotFound:
            now = None
        except Exception:
            return  # a registry that is away has taken nothing
        if now is not None and now.identity == served.version.identity:
            return
        named = self._numbered.drop(served)
        self.say(f"models:/{name}/{number} is gone, and answers no more by its number.")
        if named and now is not None:
            with contextlib.suppress(DlpipeError):  # it has been said
                await self.find(name, str(number))

    def _open_alone(self, version: ModelVersion) -> Served:
        with self._opening:
            try:
                return self._open(version)
            except ModelNotFound as error:
                self.unservable.note(version, error)
                raise
            finally:
                give_back_memory()

    # aliases -------------------------------------------------------------------------------------------------

    def _check_served(self, name: str) -> None:
        names = {served for served, _, _ in self.only}
        if names and name not in names:
            raise ModelNotFound(f"The model {name[:100]!r} is not served here. GET /models lists those that are.")

    async def _follow(self, name: str, alias: str) -> Served:
        """Return the first version of an alias that nobody has asked for yet, or say why there is none."""
        self._check_served(name)
        key = name, alias
        followed = self._followed.get(key) or self._beginning.setdefault(key, Followed(name, alias))
        try:
            async with followed.lock:
                if followed.served is None:
                    self.unservable.check(await self.lookup.find_asked(f"models:/{name}@{alias}"))
                    await self._look(followed, self.lookup.find)
                if followed.served is None:
                    if followed.wanted is not None:
                        self.unservable.check(followed.wanted)
                    if followed.refused:  # it is tried again by the poll, not by each request
                        self._followed.setdefault(key, followed)
                    if followed.gone:
                        raise ModelNotFound(followed.gone)
                    if followed.unseen:
                        raise TrackingUnavailable(followed.unseen)
                    raise ModelNotLoaded(followed.refused)
                self._followed.setdefault(key, followed)
                return followed.served
        finally:
            self._beginning.pop(key, None)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            names = {name for name, _ in self._followed} | self._numbered.list_names()
            if not names:
                continue
            try:
                aliases = await self.lookup.read_aliases(names)
            except Exception:
                for followed in self._followed.values():
                    self._miss(followed)
                continue
            for followed in list(self._followed.values()):
                sure = not followed.unseen and not followed.refused
                if followed.watch.begin(aliases.get(followed.name), sure=sure):
                    self._look_beside(followed.watch, self._look_alone(followed))
            for served, watch in self._numbered.list_watched():
                if watch.begin(aliases.get(served.version.name)):
                    self._look_beside(watch, self._check_numbered(served))

    def _look_beside(self, watch: Watch, look: Coroutine[Any, Any, None]) -> None:
        """Look at an alias or a version beside others: one that is being loaded keeps nobody waiting."""
        watch.task = asyncio.create_task(look)
        self._looks.add(watch.task)
        watch.task.add_done_callback(self._end_look)

    def _end_look(self, done: asyncio.Task[None]) -> None:
        self._looks.discard(done)
        if not done.cancelled() and (error := done.exception()) is not None:  # whatever it is, it is followed on
            LOGGER.error("An alias or a version could not be looked at", exc_info=error)

    async def _look_alone(self, followed: Followed) -> None:
        async with followed.lock:
            await self._look(followed, self.lookup.find_in_turn)

    async def _look(self, followed: Followed, find: Find) -> None:
        """See where the alias points, and load what is there if that is new."""
        while version := await self._find_new(followed, find):
            async with self._lock(version):
                served, reason, seconds = await self._load(version)
                # loading takes seconds: what is no longer meant must not take over, however good it is
                if not await self._still_means(followed, version, find):
                    continue
                if served is None:
                    self._refuse(followed, version, reason, seconds)
                else:
                    self._swap(followed, served, seconds)
                return

    async def _find_new(self, followed: Followed, find: Find) -> ModelVersion | None:
        """Return the version that is to be loaded for an alias; ``None`` where what answers may stay."""
        uri = f"models:/{followed.name}@{followed.alias}"
        try:
            version = await find(uri)
        except ModelNotFound as error:
            followed.gone, followed.unseen = str(error), ""
            if followed.served is not None:
                self._end(followed)
            return None
        except Exception:
            self._miss(followed)
            return None
        followed.gone = followed.unseen = ""
        if followed.served is not None and followed.served.version.identity == version.identity:
            followed.wanted, followed.refused = version, ""
            return None
        known = followed.wanted is not None and followed.wanted.identity == version.identity and followed.refused
        if known and time.monotonic() - followed.refused_at < TRY_AGAIN_SECONDS:
            return None
        followed.wanted = version
        return version

    async def _still_means(self, followed: Followed, version: ModelVersion, find: Find) -> bool:
        """Return whether an alias points at ``version`` still; taken as so where the registry does not answer."""
        try:
            now = await find(f"models:/{followed.name}@{followed.alias}")
        except ModelNotFound:
            return False
        except Exception:
            return True
        return now.identity == version.identity

    def _miss(self, followed: Followed) -> None:
        """Note that the registry does not answer: what is loaded goes on answering."""
        followed.unseen = REGISTRY_AWAY

    async def _load(self, version: ModelVersion) -> tuple[Served | None, str, float]:
        """Return ``version`` loaded, or why it cannot answer, and the seconds that this took."""
        started = time.monotonic()
        try:
            served = await self._open_or_find(version)
        except Exception as error:
            return None, str(error) or type(error).__name__, time.monotonic() - started
        return served, "", time.monotonic() - started

    def _refuse(self, followed: Followed, version: ModelVersion, reason: str, seconds: float) -> None:
        """Leave what answers for an alias as it is, and say why."""
        before = None if followed.served is None else followed.served.version.version
        stays = f"; v{before} goes on answering" if before is not None else ""
        if reason != followed.refused:
            self.say(f"{version.uri} is not served as {followed.alias}{stays}: {reason}")
            followed.note(Swap(time.time(), before, version.version, seconds, reason))
        followed.refused, followed.refused_at = reason, time.monotonic()

    def _swap(self, followed: Followed, served: Served, seconds: float) -> None:
        """Let a version answer for an alias from now on."""
        before = None if followed.served is None else followed.served.version.version
        number = served.version.version
        followed.served, followed.refused = served, ""
        followed.note(Swap(time.time(), before, number, seconds))
        was = "" if before is None else f", was v{before}"
        self.say(f"{followed.name}@{followed.alias} is v{number} ({served.engine}){was}: {seconds:.1f} s")

    def _end(self, followed: Followed) -> None:
        assert followed.served is not None
        before = followed.served.version.version
        followed.served = followed.wanted = None
        followed.note(Swap(time.time(), before, None))
        self.say(f"{followed.name}@{followed.alias} is gone; v{before} answers by its number alone.")
