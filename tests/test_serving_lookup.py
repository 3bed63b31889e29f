"""What a server asks the registry: names that are not there, and a registry that does not answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dlpipe.errors import ModelNotFound, Overloaded, StoreNotFound, TrackingUnavailable
from dlpipe.registry import ModelVersion
from dlpipe.serving import lookup
from dlpipe.serving.following import Models
from dlpipe.serving.lookup import Lookup
from dlpipe.serving.refusals import refuse


class Registry:
    """Models of which ``reviews`` is one, counted questions, and a gate at which they wait."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def find(self, uri: str) -> ModelVersion:
        self.asked.append(uri)
        self.gate.wait(30)
        if self.error is not None:
            raise self.error
        if not uri.startswith("models:/reviews"):
            raise ModelNotFound(f"No {uri}.")
        return ModelVersion("reviews", 1, "models:/reviews/1", "", "", "")

    def list_all(self) -> dict[str, dict[str, int]]:
        self.asked.append("all")
        self.gate.wait(30)
        return {"reviews": {"champion": 1}}


def ask(work: Callable[[Lookup, Registry], Awaitable[None]], **options: Any) -> None:
    registry = Registry()

    async def main() -> None:
        await work(Lookup(find_version=registry.find, list_all=registry.list_all, **options), registry)

    try:
        asyncio.run(main())
    finally:
        registry.gate.set()


def test_a_name_that_is_not_there_is_asked_for_once_until_it_may_have_come(monkeypatch) -> None:
    async def work(found: Lookup, registry: Registry) -> None:
        for _ in range(50):
            with pytest.raises(ModelNotFound, match="No models:/nothing@champion"):
                await found.find_asked("models:/nothing@champion")
        assert registry.asked == ["models:/nothing@champion"]
        monkeypatch.setattr(lookup, "ABSENT_SECONDS", 0.0)
        with pytest.raises(ModelNotFound):
            await found.find_asked("models:/other")
        with pytest.raises(ModelNotFound):
            await found.find_asked("models:/other")
        assert registry.asked[1:] == ["models:/other"] * 2

    ask(work)


def test_a_name_that_no_model_can_have_is_asked_for_nowhere_and_costs_no_other_model() -> None:
    async def work(found: Lookup, registry: Registry) -> None:
        for name in ("..", ".", "..a", "a@b", "a:b", "a/b"):
            with pytest.raises(ModelNotFound, match="names no model"):
                await found.find_asked(f"models:/{name}@champion")
        assert registry.asked == []
        assert (await found.find_asked("models:/reviews/1")).version == 1

    ask(work)


def test_names_that_are_not_there_fill_no_memory(monkeypatch) -> None:
    monkeypatch.setattr(lookup, "MOST_ABSENT", 3)

    async def work(found: Lookup, registry: Registry) -> None:
        for number in range(5):
            with pytest.raises(ModelNotFound):
                await found.find_asked(f"models:/{number}")
        with pytest.raises(ModelNotFound, match="as long as"):
            await found.find_asked("models:/" + "a" * 60_000)
        assert len(found._absent) == 3
        assert len(registry.asked) == 5

    ask(work)


def test_while_a_registry_hangs_requests_are_refused_at_once_and_one_in_seconds_looks(monkeypatch) -> None:
    monkeypatch.setattr(lookup, "TRY_AGAIN_SECONDS", 60.0)

    async def work(found: Lookup, registry: Registry) -> None:
        assert (await found.find_asked("models:/reviews/1")).version == 1
        registry.gate.clear()
        with pytest.raises(TrackingUnavailable, match=r"registry does not answer within 0\.2 s"):
            await found.find_asked("models:/one")
        before = len(registry.asked)
        for _ in range(100):
            with pytest.raises(TrackingUnavailable, match="does not answer"):
                await found.find_asked("models:/two")
            with pytest.raises(TrackingUnavailable, match="does not answer"):
                await found.list_all()
        assert len(registry.asked) == before
        registry.gate.set()
        assert (await found.find("models:/reviews/1")).version == 1  # as the poll asks
        assert await found.list_all() == {"reviews": {"champion": 1}}

    ask(work, answer_seconds=0.2)


def test_few_requests_wait_for_the_registry_and_few_threads(monkeypatch) -> None:
    async def work(found: Lookup, registry: Registry) -> None:
        registry.gate.clear()
        waiting = [asyncio.create_task(found.find_asked(f"models:/reviews/{number}")) for number in range(40)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), Overloaded) for task in done)
        assert len(done) == 40 - lookup.MOST_WAITING
        assert sum(thread.name == "dlpipe-registry" for thread in threading.enumerate()) == lookup.THREADS
        registry.gate.set()
        await asyncio.wait(waiting)
        assert sum(task.exception() is None for task in waiting) == lookup.MOST_WAITING

    ask(work)


def test_a_listing_is_read_once_in_a_while() -> None:
    async def work(found: Lookup, registry: Registry) -> None:
        for _ in range(50):
            assert await found.list_all(age=60) == {"reviews": {"champion": 1}}
        assert registry.asked == ["all"]
        await found.list_all()
        assert registry.asked == ["all"] * 2

    ask(work)


def test_an_outage_is_said_once_and_its_end_too_and_clients_are_not_told_where_the_store_is() -> None:
    said: list[str] = []

    async def work(found: Lookup, registry: Registry) -> None:
        registry.error = StoreNotFound("There is no MLflow store '/srv/mlflow.db'.")
        for _ in range(3):
            with pytest.raises(StoreNotFound) as caught:
                await found.find("models:/reviews/1")
        assert "/srv" not in refuse(caught.value).message
        registry.error = None
        await found.find("models:/reviews/1")
        await found.find("models:/reviews/1")

    ask(work, say=said.append)
    assert [line[:28] for line in said] == ["The registry does not answer", "The registry answers again."]
    assert "/srv/mlflow.db" in said[0]


def test_what_is_loaded_answers_while_the_registry_hangs_and_its_end_does_not_wait_for_it() -> None:
    registry = Registry()

    async def main() -> float:
        models = Models(
            find_version=registry.find,
            open_version=lambda version: SimpleNamespace(version=version, engine="none"),  # type: ignore[return-value]
            read_aliases=lambda names: registry.find("models:/reviews") and {},
            say=lambda line: None,
        )
        await models.start()
        served = await models.find("reviews")
        registry.gate.clear()
        assert await models.find("reviews") is served
        started = time.monotonic()
        await models.stop()
        return time.monotonic() - started

    try:
        assert asyncio.run(main()) < 5
    finally:
        registry.gate.set()
