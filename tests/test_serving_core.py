"""What a server is made of: batches of rows that wait, versions that follow an alias, and their examples."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from stores import new_store, untouched_environment

from dlpipe.errors import (
    DeadlinePassed,
    DlpipeError,
    ModelDamaged,
    ModelNotFound,
    ModelNotLoaded,
    Overloaded,
    StoreNotFound,
    TrackingUnavailable,
)
from dlpipe.explain import ExplainSettings, register_explainer
from dlpipe.inference import load_predictor, predict_frame, register_pipeline
from dlpipe.registry import AliasWatcher, ModelVersion, log_and_register, promote, resolve
from dlpipe.serving import batching
from dlpipe.serving.batching import Batcher
from dlpipe.serving.explaining import Explainers
from dlpipe.serving.followed import SWAPS, Swap
from dlpipe.serving.following import Models
from dlpipe.serving.metrics import Metrics
from dlpipe.serving.queues import Queue, Waiting
from dlpipe.serving.refusals import NOT_LOADED, REGISTRY_AWAY, refuse
from dlpipe.serving.served import open_served
from dlpipe.serving.status_page import view_models
from dlpipe.task import open_predictor
from dlpipe.task.example import EXAMPLE, check_example, write_example

TEXTS = ["the film was good", "awful plot and all", "what a superb score", "so"]


class Slow:
    """A version that answers a row with the row itself, after a time; and that can be held up."""

    batch_tokens, engine, digest, takes_missing, checked = 1024, "slow", "d", False, True

    def __init__(self, *, lanes: int = 1, seconds: float = 0.0, number: int = 1) -> None:
        self.lanes, self.seconds = lanes, seconds
        self.version = ModelVersion("slow", number, f"models:/slow/{number}", "", "", "")
        self.batches: list[list[Any]] = []
        self.calls = 0
        self.go = threading.Event()
        self.go.set()

    def predict_batch(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        self.calls += 1
        self.go.wait(10)
        time.sleep(self.seconds)
        self.batches.append(list(rows))
        if "bad" in rows:
            raise ValueError("a bad row")
        return [{"row": row} for row in rows]


def run(work: Any) -> Any:
    """Run ``work(batcher)`` in an event loop with a batcher of two threads."""

    async def main() -> Any:
        batcher = Batcher(threads=2, max_wait=0.5)
        try:
            return await work(batcher)
        finally:
            await asyncio.to_thread(batcher.close)

    return asyncio.run(main())


def test_rows_come_back_in_their_order_whatever_batch_they_were_in():
    served = Slow(lanes=2)
    rows = [f"{'word ' * (7 * n % 50)}{n}" for n in range(200)]

    async def ask(batcher: Batcher) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(batcher.compute(served, rows[at : at + 7]) for at in range(0, 200, 7)))

    answers = run(ask)
    assert [record["row"] for answer in answers for record in answer] == rows
    assert sum(map(len, served.batches)) == 200
    assert run(lambda batcher: batcher.compute(served, [])) == []


def test_an_idle_server_computes_at_once_and_a_busy_one_takes_what_came_meanwhile():
    served = Slow()

    async def ask(batcher: Batcher) -> None:
        served.go.clear()
        first = asyncio.create_task(batcher.compute(served, ["one"]))
        while not served.calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(batcher.compute(served, [f"row {n}"])) for n in range(9)]
        while batcher.count_waiting() < 9:
            await asyncio.sleep(0.001)
        served.go.set()
        await asyncio.gather(first, *others)

    run(ask)
    assert list(map(len, served.batches)) == [1, 9]


def test_short_rows_and_long_ones_are_not_computed_together():
    served = Slow()
    short, long = "a few words here", "many words " * 100

    async def ask(batcher: Batcher) -> None:
        served.go.clear()
        tasks = [asyncio.create_task(batcher.compute(served, ["x"]))]
        while not served.calls:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.compute(served, [row])) for row in [long, short] * 4]
        while batcher.count_waiting() < 8:
            await asyncio.sleep(0.001)
        served.go.set()
        await asyncio.gather(*tasks)

    run(ask)
    assert all(len(set(batch)) == 1 for batch in served.batches)
    assert served.batches[1] == [short] * 4  # they cost less, so their turn comes before that of long ones


def test_a_request_of_many_rows_lets_a_small_one_pass():
    served = Slow(seconds=0.01)
    served.batch_tokens = 40
    ended: list[str] = []

    async def ask(batcher: Batcher) -> None:
        async def one(name: str, rows: list[str]) -> None:
            await batcher.compute(served, rows)
            ended.append(name)

        many = asyncio.create_task(one("many", [f"a row of words {n}" for n in range(400)]))
        await asyncio.sleep(0.05)
        await asyncio.gather(many, one("few", ["a row of words"]))

    run(ask)
    assert ended == ["few", "many"]


def test_a_bad_row_costs_its_own_request_alone():
    served = Slow()

    async def ask(batcher: Batcher) -> list[Any]:
        served.go.clear()
        tasks = [asyncio.create_task(batcher.compute(served, ["x"]))]
        while not served.calls:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.compute(served, [row])) for row in ("one", "bad", "two")]
        while batcher.count_waiting() < 3:
            await asyncio.sleep(0.001)
        served.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, one, bad, two = run(ask)
    assert (first, one, two) == ([{"row": "x"}], [{"row": "one"}], [{"row": "two"}])
    assert isinstance(bad, ValueError)


def test_what_would_wait_too_long_is_refused_at_once_and_says_when_to_come_back():
    served = Slow()
    served.batch_tokens = 64

    async def ask(batcher: Batcher) -> tuple[Overloaded, float]:
        served.go.clear()
        held = [asyncio.create_task(batcher.compute(served, ["word " * 800])) for _ in range(12)]
        await asyncio.sleep(0.3)
        started = time.monotonic()
        with pytest.raises(Overloaded, match="Too much waits for models:/slow/1") as caught:
            await batcher.compute(served, ["one more"])
        seconds = time.monotonic() - started
        served.go.set()
        await asyncio.gather(*held, return_exceptions=True)
        return caught.value, seconds

    error, seconds = run(ask)
    assert error.retry_after > 0.5
    assert seconds < 0.1


def test_rows_that_nobody_waits_for_any_more_are_not_computed():
    served = Slow()

    async def ask(batcher: Batcher) -> None:
        served.go.clear()
        first = asyncio.create_task(batcher.compute(served, ["first"]))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batcher.compute(served, ["late"], timeout=0.05))
        cancelled = asyncio.create_task(batcher.compute(served, ["cancelled"]))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        with pytest.raises(DeadlinePassed, match=r"No answer within 0\.05 s"):
            await late
        served.go.set()
        await first
        await batcher.compute(served, ["last"])

    run(ask)
    assert [row for batch in served.batches for row in batch] == ["first", "last"]


def make_queue(*costs: int) -> Queue:
    """A queue of rows whose turns come one a second."""
    queue, asked = Queue(), SimpleNamespace(deadline=float("inf"))
    for turn, cost in enumerate(costs):
        queue.add(Waiting(asked, turn, cost, turn))
    return queue


def take_batch(queue: Queue, *, free: int = 1, budget: int = 1024) -> list[int]:
    """The numbers of the rows of the next batch."""
    first = queue.find_first(0.0)
    return [row.number for row in queue.take_batch(first, 0.0, free=free, budget=budget)]


def test_a_lane_that_is_free_gets_its_share_of_what_waits():
    assert take_batch(make_queue(*[25] * 32), free=2) == list(range(16))
    assert take_batch(make_queue(*[25] * 32)) == list(range(32))
    assert take_batch(make_queue(*[25] * 32), budget=100) == [0, 1, 2, 3]
    assert take_batch(make_queue(5000, *[25] * 32)) == [0]


def test_a_batch_has_rows_that_cost_alike_in_the_order_of_their_turns():
    queue = make_queue(30, 200, 25, 40, 210, 10, 30)
    assert take_batch(queue) == [0, 2, 3, 6]
    assert take_batch(queue) == [1, 4]
    assert take_batch(queue) == [5]
    assert (queue.count, queue.cost) == (0, 0)
    assert queue.find_first(0.0) is None


def test_what_is_due_is_what_waits_and_whose_turn_has_come():
    queue = make_queue(*[10] * 6)
    assert [queue.measure_due(now) for now in (-1, 0, 2.5)] == [0, 10, 30]
    take_batch(queue, budget=20)
    assert queue.measure_due(2.5) == 10
    assert queue.measure_due(9) == 40


def test_as_many_rows_as_a_request_may_have_are_taken_in_a_moment():
    queue, asked = Queue(), SimpleNamespace(deadline=float("inf"))
    for number in range(100_000):
        queue.add(Waiting(asked, number, 10 + number % 60, number))
    started = time.process_time()
    for _ in range(500):
        take_batch(queue)
    assert time.process_time() - started < 2  # by looking at all that wait: minutes
    assert queue.count < 95_000


def test_a_queue_that_stays_takes_in_less_than_a_burst_until_it_has_been_short_for_a_while(monkeypatch):
    monkeypatch.setattr(batching, "BURST_SECONDS", 0.3)
    monkeypatch.setattr(batching, "CALM_SECONDS", 1.0)
    served, row = Slow(seconds=0.01), "word " * 40  # 10 ms at the rate that is assumed first
    served.batch_tokens = 64

    async def ask(batcher: Batcher) -> tuple[int, int, int]:
        async def add(number: int) -> list[asyncio.Task[Any]]:
            served.go.clear()
            tasks = [asyncio.create_task(batcher.compute(served, [row])) for _ in range(number)]
            await asyncio.sleep(0.02)
            return tasks

        async def count_refused(tasks: list[asyncio.Task[Any]]) -> int:
            served.go.set()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            return sum(isinstance(answer, Overloaded) for answer in answers)

        burst = await add(43) + await add(1)
        await asyncio.sleep(0.5)
        second = await count_refused(burst + await add(5))
        few = await count_refused(await add(batching.STEADY_ROWS + 1) + await add(5))
        await asyncio.sleep(1.2)
        return second, few, await count_refused(await add(44))

    second, few, later = run(ask)
    assert second == 5  # the burst was over
    assert few == 5
    assert later == 0


def test_under_too_much_load_who_gets_an_answer_gets_it_as_soon_as_a_few_clients_do():
    class Steady(Slow):
        def predict_batch(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
            time.sleep(0.002 + 0.002 * len(rows))
            return [{"row": row} for row in rows]

    served, row = Steady(lanes=2), "word " * 21
    served.batch_tokens = 256

    async def measure(batcher: Batcher) -> tuple[list[float], list[float], int]:
        usual, accepted, refused = [], [], 0

        async def ask(seconds: list[float]) -> None:
            nonlocal refused
            began = time.monotonic()
            try:
                await batcher.compute(served, [row])
            except Overloaded:
                refused += 1
            else:
                seconds.append(time.monotonic() - began)

        async def ask_again(until: float) -> None:
            while time.monotonic() < until:
                await ask(usual)

        began = time.monotonic()
        await asyncio.gather(*(ask_again(began + 1) for _ in range(32)))
        assert not refused
        pause = (time.monotonic() - began) / len(usual) / 5
        tasks = []
        due, until = time.monotonic(), time.monotonic() + 4
        while due < until:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(ask(accepted)))
            due += pause
        await asyncio.gather(*tasks)
        return usual, accepted, refused

    usual, accepted, refused = run(measure)
    assert refused > 2 * len(accepted)
    assert len(accepted) / 4 > 0.8 * len(usual)
    assert np.median(accepted) < 2 * np.median(usual)  # quantiles near 1 are those of a busy machine


def test_a_request_of_many_rows_has_nobody_refused_though_it_takes_longer_than_expected():
    class Slower(Slow):
        def predict_batch(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
            time.sleep(0.015 * len(rows))  # 3,400 tokens a second instead of the 5,000 that are assumed first
            return [{"row": row} for row in rows]

    served, row = Slower(), "word " * 40
    served.batch_tokens = 128

    async def ask(batcher: Batcher) -> list[float]:
        many = asyncio.create_task(batcher.compute(served, [row] * 200))
        await asyncio.sleep(0.05)
        seconds = []
        while not many.done():
            began = time.monotonic()
            batcher.check_room(served)
            await batcher.compute(served, [row])
            seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
        await many
        return seconds

    seconds = run(ask)
    assert len(seconds) > 10
    assert np.median(seconds) < 0.3


def test_too_much_load_is_seen_before_a_body_is_read():
    served, row = Slow(seconds=0.01), "word " * 400

    async def ask(batcher: Batcher) -> None:
        batcher.check_room(served)
        served.go.clear()
        tasks = [asyncio.create_task(batcher.compute(served, [row])) for _ in range(batching.STEADY_ROWS + 1)]
        await asyncio.sleep(1)
        with pytest.raises(Overloaded, match="Too much waits") as caught:
            batcher.check_room(served)
        assert caught.value.retry_after > 0.5
        served.go.set()
        await asyncio.gather(*tasks)
        batcher.check_room(served)

    run(ask)


def test_a_version_that_is_not_asked_any_more_is_let_go():
    async def ask(batcher: Batcher) -> bool:
        served = Slow()
        await batcher.compute(served, ["row"])
        there = weakref.ref(served)
        del served
        for _ in range(200):
            gc.collect()
            if there() is None:
                return True
            await asyncio.sleep(0.01)
        return False

    assert run(ask)


# versions ------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    with untouched_environment():
        yield new_store(tmp_path)


def register(model: Any, name: str = "reviews", version: str = "0") -> ModelVersion:
    tags = {"delta.table": "t", "delta.version": version, "delta.digest": "d"}
    return log_and_register(model, name=name, example=TEXTS[:2], params={}, tags=tags)


def test_a_version_answers_as_its_predictor_does(store, tiny_model):
    version = register(tiny_model)
    served = open_served(version)
    assert served.checked
    assert served.version == version
    rows = served.read_request({"text": TEXTS})
    frame = predict_frame(load_predictor(version.uri), TEXTS)
    records = served.predict_batch(rows)
    assert [list(record) for record in records] == [list(frame)] * 4
    for name in frame:
        assert [record[name] for record in records] == pytest.approx(frame[name].tolist(), abs=1e-6)
    json.dumps(records)  # values of Python itself


def test_a_pipeline_answers_rows_that_cannot_be_read_as_well(store, tiny_model):
    pipeline = register_pipeline(register(tiny_model))
    served = open_served(pipeline)
    assert served.checked
    assert served.takes_missing
    good, missing, number = served.predict_batch(served.read_request({"text": ["a good film", None, 3]}))
    assert good["predicted"] in served.card["labels"]
    assert (missing["status"], missing["predicted"], missing["probability"]) == ("empty", None, None)
    assert number["predicted"] is None
    json.dumps([good, missing, number], allow_nan=False)


def damage(folder: Path) -> None:
    """Change what the example of the model in ``folder`` is to be answered by."""
    there = json.loads((folder / EXAMPLE).read_text())
    there["outputs"] = (1 - np.array(there["outputs"]) ** 2).tolist()
    (folder / EXAMPLE).write_text(json.dumps(there))


def test_a_model_that_answers_its_example_otherwise_is_damaged(tiny_model, tmp_path):
    folder = tiny_model.save(tmp_path / "model")
    predictor = open_predictor(folder)
    assert not check_example(folder, predictor)  # there is none
    write_example(folder, TEXTS[:2])
    assert check_example(folder, predictor)
    damage(folder)
    with pytest.raises(ModelDamaged, match=r"answers its registered example otherwise .*it differs by 0\.\d+"):
        check_example(folder, predictor)


class Registry:
    """Where an alias points, and what opening a version does."""

    def __init__(self) -> None:
        self.aliases: dict[str, int] = {"champion": 1}
        self.broken: dict[int, Exception] = {}
        self.down = False
        self.gone: set[int] = set()
        self.run = ""
        self.said: list[str] = []

    def find(self, uri: str) -> ModelVersion:
        if self.down:
            raise TrackingUnavailable("The database is away.")
        name, _, which = uri.removeprefix("models:/").replace("@", "/").partition("/")
        number = int(which) if which.isdecimal() else self.aliases.get(which)
        if number is None or number in self.gone or name != "slow":
            raise ModelNotFound(f"{name!r} has no alias {which!r}.")
        return ModelVersion(name, number, f"models:/{name}/{number}", "", self.run, "")

    def read_aliases(self, names: Any) -> dict[str, Any]:
        if self.down:
            raise TrackingUnavailable("The database is away.")
        return {name: dict(self.aliases) for name in names}

    def open(self, version: ModelVersion) -> Any:
        if version.version in self.broken:
            raise self.broken[version.version]
        made = Slow(number=version.version)
        made.version = version
        return made

    def serve(self, **options: Any) -> Models:
        return Models(
            open_version=self.open,
            find_version=self.find,
            read_aliases=self.read_aliases,
            say=self.said.append,
            poll_seconds=0.02,
            **options,
        )


async def until(holds: Any) -> None:
    for _ in range(500):
        if await holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def follow(work: Any, **options: Any) -> Registry:
    registry = Registry()

    async def main() -> None:
        models = registry.serve(**options)
        await models.start()
        try:
            await work(registry, models)
        finally:
            await models.stop()

    asyncio.run(main())
    return registry


def test_an_alias_that_moves_is_followed_and_the_old_version_stays_reachable():
    async def work(registry: Registry, models: Models) -> None:
        assert (await models.find("slow")).version.version == 1
        registry.aliases["champion"] = 2

        async def moved() -> bool:
            return (await models.find("slow")).version.version == 2

        await until(moved)
        assert (await models.find("slow", "1")).version.version == 1
        (followed,) = models.list_followed()
        assert [(swap.before, swap.after, swap.refused) for swap in followed.swaps] == [(None, 1, ""), (1, 2, "")]

    registry = follow(work)
    assert registry.said[1].startswith("slow@champion is v2 (slow), was v1")


def test_a_version_that_cannot_answer_never_gets_a_request():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")
        registry.broken[2] = ModelDamaged("It answers otherwise.")
        registry.aliases["champion"] = 2
        (followed,) = models.list_followed()

        async def refused() -> bool:
            return bool(followed.refused)

        await until(refused)
        assert (await models.find("slow")).version.version == 1
        await asyncio.sleep(0.1)  # some polls later it has said so once
        assert len(followed.swaps) == 2
        registry.aliases["champion"] = 3

        async def moved() -> bool:
            return (await models.find("slow")).version.version == 3

        await until(moved)
        assert not followed.refused

    registry = follow(work)
    assert (
        registry.said[1] == "models:/slow/2 is not served as champion; v1 goes on answering: It answers otherwise."
    )


def test_a_version_that_is_not_meant_any_more_when_it_is_loaded_never_answers():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")
        opened: list[int] = []
        open_at_once = registry.open

        def open_slowly(version: ModelVersion) -> Any:
            opened.append(version.version)
            if version.version == 2:
                registry.aliases["champion"] = 3
            return open_at_once(version)

        models._open = open_slowly
        registry.aliases["champion"] = 2

        async def moved() -> bool:
            return (await models.find("slow")).version.version == 3

        await until(moved)
        (followed,) = models.list_followed()
        assert opened == [2, 3]
        assert [(swap.before, swap.after) for swap in followed.swaps] == [(None, 1), (1, 3)]

    assert not any("v2" in line for line in follow(work).said)


def test_a_version_that_is_asked_for_while_it_is_loaded_is_loaded_once():
    registry, opened = Registry(), []

    def open_slowly(version: ModelVersion) -> Any:
        opened.append(version.version)
        time.sleep(0.2)
        return Slow(number=version.version)

    async def main() -> None:
        models = Models(
            only=["models:/slow/3"],
            open_version=open_slowly,
            find_version=registry.find,
            read_aliases=registry.read_aliases,
            say=registry.said.append,
        )
        asking = [asyncio.create_task(models.find("slow", "3")) for _ in range(3)]
        await models.start()
        assert len({id(await task) for task in asking}) == 1
        await models.stop()

    asyncio.run(main())
    assert opened == [3]


def test_why_a_version_cannot_be_loaded_is_for_the_operator_alone():
    registry = Registry()
    registry.broken[2] = OSError("/home/ana/model.onnx is broken")

    async def main() -> list[Any]:
        models = registry.serve()
        await models.start()
        errors = []
        registry.aliases["champion"] = 2
        for which in ("2", "2", "champion"):
            with pytest.raises(ModelNotLoaded, match="/home/ana") as caught:
                await models.find("slow", which)
            errors.append(refuse(caught.value))
        models.only = [("slow", None, "champion")]
        assert models.list_missing() == {"slow@champion": NOT_LOADED}
        await models.stop()
        return errors

    for refused in asyncio.run(main()):
        assert (refused.status, refused.message) == (503, NOT_LOADED)
    assert [line for line in registry.said if "models:/slow/2 cannot be loaded: /home/ana" in line] == [
        "models:/slow/2 cannot be loaded: /home/ana/model.onnx is broken"
    ]


def test_a_first_version_that_cannot_answer_is_not_loaded_by_each_request():
    async def work(registry: Registry, models: Models) -> None:
        registry.broken[1] = ModelDamaged("It answers otherwise.")
        for _ in range(3):
            with pytest.raises(DlpipeError, match="answers otherwise"):
                await models.find("slow")
        (followed,) = models.list_followed()
        assert len(followed.swaps) == 1
        registry.aliases["champion"] = 2

        async def moved() -> bool:
            return bool(followed.served and not followed.refused)

        await until(moved)
        assert (await models.find("slow")).version.version == 2

    assert len(follow(work).said) == 2


@pytest.mark.parametrize("which", [None, "1"])
def test_a_model_that_can_never_answer_is_opened_once_and_is_no_trouble(which):
    async def work(registry: Registry, models: Models) -> None:
        opened: list[int] = []

        def open_version(version: ModelVersion) -> Any:
            opened.append(version.version)
            raise ModelNotFound("models:/slow/1 is not a dlpipe model.")

        models._open = open_version
        for _ in range(3):
            with pytest.raises(ModelNotFound, match="is not a dlpipe model"):
                await models.find("slow", which)
        assert (opened, models.list_followed()) == ([1], [])

    assert len(follow(work).said) == (which is None)


def test_an_explainer_is_not_opened_and_says_where_explanations_are(store, tiny_model):
    register_explainer(register(tiny_model), tiny_model, settings=ExplainSettings(), example=TEXTS[:1])

    async def main() -> None:
        models = Models(say=lambda line: None)
        for which in ("challenger", "1"):
            with pytest.raises(ModelNotFound, match="ask /models/reviews/explain"):
                await models.find("reviews-explainer", which)
        registered = await models.lookup.list_all()
        assert set(registered) == {"reviews", "reviews-explainer"}
        views = view_models(models, {name: {"champion": 1} for name in registered}, {})
        assert [(view.name, view.status) for view in views] == [("reviews", "not loaded")]

    asyncio.run(main())


def test_a_registry_that_is_down_changes_nothing():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")
        registry.down = True
        (followed,) = models.list_followed()

        async def unseen() -> bool:
            return followed.unseen == REGISTRY_AWAY

        await until(unseen)
        assert (await models.find("slow")).version.version == 1
        with pytest.raises(DlpipeError, match="The database is away"):
            await models.find("slow", "challenger")
        registry.down, registry.aliases["champion"] = False, 2

        async def moved() -> bool:
            return (await models.find("slow")).version.version == 2

        await until(moved)

    registry = follow(work)
    assert [line for line in registry.said if "registry" in line] == [
        "The registry does not answer; what is loaded goes on answering. The database is away.",
        "The registry answers again.",
    ]


def test_a_line_that_cannot_be_said_ends_no_following():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")

        def fail(line: str) -> None:
            raise OSError("No space left on device")

        models.say = fail
        for number in (2, 3):
            registry.aliases["champion"] = number

            async def moved(number: int = number) -> bool:
                return (await models.find("slow")).version.version == number

            await until(moved)

    follow(work)


def test_an_alias_that_is_gone_answers_no_more_and_its_version_does_by_its_number():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")
        del registry.aliases["champion"]

        async def gone() -> bool:
            try:
                await models.find("slow")
            except ModelNotFound as error:
                return "has no alias 'champion'" in str(error)
            return False

        await until(gone)
        assert (await models.find("slow", "1")).version.version == 1
        registry.aliases["champion"] = 2

        async def back() -> bool:
            (followed,) = models.list_followed()
            return followed.served is not None and (await models.find("slow")).version.version == 2

        await until(back)

    assert "slow@champion is gone; v1 answers by its number alone." in follow(work).said


def test_only_models_that_are_named_are_served():
    async def work(registry: Registry, models: Models) -> None:
        assert registry.said  # loaded before the first request
        with pytest.raises(ModelNotFound, match=r"'other' is not served here\. GET /models"):
            await models.find("other")

    follow(work, only=["slow"])
    with pytest.raises(ModelNotFound, match="has no alias"):
        follow(work, only=["slow@production"])


def test_versions_that_are_named_stay_loaded_however_many_and_others_do_not_push_them_out():
    registry, opened = Registry(), []

    def open_version(version: ModelVersion) -> Any:
        opened.append(version.version)
        return Slow(number=version.version)

    async def main() -> None:
        models = registry.serve(only=["slow/1", "slow/2", "slow/3"])
        models._open = open_version
        await models.start()
        assert models.list_missing() == {}
        for number in (1, 2, 3, 4, 5, 6, 1, 2, 3, 5, 6):
            assert (await models.find("slow", str(number))).version.version == number
        assert models.list_missing() == {}
        await models.stop()

    asyncio.run(main())
    assert opened == [1, 2, 3, 4, 5, 6]


def test_a_model_that_was_deleted_and_made_anew_answers_with_what_it_is_now(store, tiny_model):
    """MLflow's numbers begin at 1 again then."""

    async def main() -> None:
        models = Models(say=lambda line: None, poll_seconds=0.02)
        explained: list[ModelVersion] = []

        def load(uri: str) -> SimpleNamespace:
            explained.append(resolve(uri))
            return SimpleNamespace(explain=lambda rows, *, method: SimpleNamespace(rows=[]))

        explainers = Explainers(load=load)
        old = register(tiny_model)
        promote(old)
        await models.start()
        try:
            before = await models.find("reviews", "1")
            await explainers.explain(before, ["good"], method=None, timeout=5)
            MlflowClient().delete_registered_model("reviews")
            new = register(tiny_model, version="1")
            promote(new)
            assert (new.uri, new.identity == old.identity) == (old.uri, False)
            assert (await models.find("reviews")).version.identity == new.identity

            async def followed() -> bool:
                return (await models.find("reviews", "1")).version.identity == new.identity

            await until(followed)
            await explainers.explain(await models.find("reviews"), ["good"], method=None, timeout=5)
            assert [version.model_id for version in explained] == [old.model_id, new.model_id]
            MlflowClient().delete_registered_model("reviews")

            async def gone() -> bool:
                try:
                    await models.find("reviews", "1")
                except ModelNotFound:
                    return True
                return False

            await until(gone)
        finally:
            explainers.close()
            await models.stop()

    asyncio.run(main())


def test_a_version_by_number_that_is_gone_answers_no_more_unless_the_registry_is_away():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow", "2")
        registry.down = True
        await asyncio.sleep(0.1)
        assert models.peek("slow", "2")
        registry.down, registry.gone = False, {1, 2}
        registry.aliases.clear()

        async def gone() -> bool:
            return models.peek("slow", "1") is None and models.peek("slow", "2") is None

        await until(gone)
        assert models.list_missing() == {"slow/1": "The registry has no such version any more."}
        with pytest.raises(ModelNotFound):
            await models.find("slow", "2")

    assert "models:/slow/2 is gone, and answers no more by its number." in follow(work, only=["slow/1"]).said


def test_a_model_that_could_never_answer_may_be_made_anew():
    async def work(registry: Registry, models: Models) -> None:
        registry.broken[1] = ModelNotFound("models:/slow/1 is not a dlpipe model.")
        for which in ("champion", "1"):
            with pytest.raises(ModelNotFound, match="not a dlpipe model"):
                await models.find("slow", which)
        registry.broken.clear()
        registry.run = "another"
        for which in ("champion", "1"):
            assert (await models.find("slow", which)).version.run_id == "another"

    follow(work)


def test_an_alias_is_looked_at_while_another_version_is_loaded_and_one_is_loaded_at_a_time():
    loading, go, opened = [], threading.Event(), []

    def open_version(version: ModelVersion) -> Any:
        loading.append(version.version)
        assert len(loading) == 1
        if version.version == 2:
            go.wait(10)
        opened.append(loading.pop())
        made = Slow(number=version.version)
        made.version = version
        return made

    async def work(registry: Registry, models: Models) -> None:
        models._open = open_version
        registry.aliases |= {"staging": 1, "other": 1}
        for alias in ("champion", "staging", "other"):
            await models.find("slow", alias)
        registry.aliases |= {"champion": 2, "other": 2}

        async def begun() -> bool:
            return loading == [2]

        await until(begun)
        del registry.aliases["staging"]

        async def gone() -> bool:
            return models.peek("slow", "staging") is None

        await until(gone)
        assert models.peek("slow", "").version.version == 1
        go.set()

        async def moved() -> bool:
            return {models.peek("slow", alias).version.version for alias in ("champion", "other")} == {2}

        await until(moved)
        assert opened == [1, 2]

    follow(work)


def test_looks_at_many_aliases_keep_a_request_that_asks_for_another_waiting_for_one_at_most():
    asked, most = [], []

    async def work(registry: Registry, models: Models) -> None:
        for number in range(30):
            registry.aliases[f"a{number}"] = 1
            await models.find("slow", f"a{number}")
        find = registry.find

        def find_slowly(uri: str) -> ModelVersion:
            asked.append(uri)
            most.append(len(asked))
            time.sleep(0.05)
            asked.remove(uri)
            return find(uri)

        models.lookup._find_version = find_slowly
        registry.aliases["late"] = 1  # which has all others looked at

        async def begun() -> bool:
            return len(most) > 1

        await until(begun)
        started = time.monotonic()
        await models.find("slow", "late")
        assert time.monotonic() - started < 1.0
        assert max(most) == 2

    follow(work)


def test_swaps_are_counted_however_many_versions_are_refused():
    async def work(registry: Registry, models: Models) -> None:
        await models.find("slow")
        (followed,) = models.list_followed()
        metrics = Metrics(models, lambda: 0)
        for number in range(2 * SWAPS):
            followed.note(Swap(0.0, 1, 2, refused="" if number < SWAPS else "It is damaged."))
        assert f'dlpipe_swaps_total{{alias="champion",model="slow"}} {SWAPS + 1}.0' in metrics.write().decode()
        assert len(followed.swaps) == SWAPS

    follow(work)


def test_a_store_that_is_moved_away_does_not_answer_though_it_was_open(store, tiny_model, tmp_path):
    register(tiny_model)
    watcher, database = AliasWatcher(), tmp_path / "mlflow.db"
    before = watcher.read(["reviews"])
    database.rename(tmp_path / "away.db")
    with pytest.raises(StoreNotFound):
        watcher.read(["reviews"])
    (tmp_path / "away.db").rename(database)
    assert watcher.read(["reviews"]) == before


def test_the_aliases_of_a_companion_are_read_with_those_of_its_classifier(store, tiny_model):
    version = register(tiny_model)
    register_pipeline(version)
    watcher = AliasWatcher()
    before = watcher.read(["reviews", "reviews-pipeline", "unknown"])
    assert before["reviews"] == ({"challenger": 1}, {})
    assert before["unknown"] == ({}, {})
    promote(version)
    after = watcher.read(["reviews", "reviews-pipeline", "unknown"])
    assert after["reviews"] == ({"challenger": 1, "champion": 1}, {})
    assert after["reviews-pipeline"][1] == {"challenger": 1, "champion": 1}
    assert before["reviews-pipeline"] != after["reviews-pipeline"]


def test_real_versions_swap_and_a_changed_one_is_refused(store, tiny_model):
    first = register(tiny_model)
    promote(first)
    second = register(tiny_model, version="1")
    third = register(tiny_model, version="2")
    from dlpipe.inference import download_model
    from dlpipe.tracking import open_store

    damage(download_model(open_store(), third, scratch=Path(shutil.os.devnull)))
    said: list[str] = []

    async def main() -> None:
        models = Models(only=["reviews"], say=said.append, poll_seconds=0.05)
        await models.start()
        promote(second)
        started = time.monotonic()

        async def moved() -> bool:
            return (await models.find("reviews")).version.version == 2

        await until(moved)
        assert time.monotonic() - started < 5
        promote(third)
        (followed,) = models.list_followed()

        async def refused() -> bool:
            return "answers its registered example otherwise" in followed.refused

        await until(refused)
        assert (await models.find("reviews")).version.version == 2
        await models.stop()

    asyncio.run(main())
    assert said[-1].startswith("models:/reviews/3 is not served as champion; v2 goes on answering")
