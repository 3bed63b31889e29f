"""A champion that moves under load: no request fails, and none is answered by a version that is not meant."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from served import Server, serving
from stores import new_store, untouched_environment

from dlpipe.inference import download_model
from dlpipe.registry import ModelVersion, log_and_register, promote
from dlpipe.task.example import EXAMPLE
from dlpipe.tracking import open_store

TEXTS = ["the film was good", "awful plot and all", "what a superb score"]
RATE, CLIENTS = 50, 10
SEEN_WITHIN = 2.0
"""Seconds after which a new champion answers."""
GOOD = 4
WARM = 4
"""Moves after which the memory is measured first: the libraries have what they keep."""


@dataclass
class Answer:
    arrived: float
    answered: float
    version: int


@dataclass
class Load:
    """Requests at a constant rate, and what came of them."""

    server: Server
    answers: list[Answer] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int) -> None:
        """Ask every ``CLIENTS / RATE`` seconds, whatever the others do."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        body, headers = json.dumps(TEXTS[number % 3]), {"Content-Type": "application/json"}
        due = time.monotonic() + number / RATE
        while not self.ended.is_set():
            time.sleep(max(0.0, due - time.monotonic()))
            due += CLIENTS / RATE
            arrived = time.monotonic()
            try:
                connection.request("POST", "/models/reviews", body, headers)
                answer = connection.getresponse()
                got = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            if answer.status != 200:
                self.failed.append(json.dumps(got))
                continue
            self.answers.append(Answer(arrived, time.monotonic(), got["version"]))
        connection.close()


@dataclass
class Move:
    """The champion moved at some moment between ``began`` and ``ended``."""

    version: int
    began: float
    ended: float


@pytest.fixture(scope="module")
def versions(tmp_path_factory, tiny_model) -> Iterator[list[ModelVersion]]:
    """Good versions, one whose files are broken, and one that answers otherwise than at registration."""
    with untouched_environment():
        new_store(tmp_path_factory.mktemp("serving"))
        made = [
            log_and_register(
                tiny_model,
                name="reviews",
                example=TEXTS[:2],
                params={},
                tags={"delta.table": "t", "delta.version": str(number), "delta.digest": "d"},
            )
            for number in range(GOOD + 2)
        ]
        broken, other = (find_folder(version) for version in made[GOOD:])
        for file in broken.rglob("*.safetensors"):
            file.write_bytes(b"broken")
        there = json.loads((other / EXAMPLE).read_text())
        there["outputs"] = [[1 - value for value in row] for row in there["outputs"]]
        (other / EXAMPLE).write_text(json.dumps(there))
        yield made


def find_folder(version: ModelVersion) -> Path:
    return download_model(open_store(), version, scratch=Path(shutil.os.devnull))


def move(version: ModelVersion) -> Move:
    began = time.monotonic()
    promote(version)
    return Move(version.version, began, time.monotonic())


def run_moves(versions: list[ModelVersion], *, moves: int, seed: int) -> None:
    """Move the champion so often under load, and then to what cannot be served."""
    chance = random.Random(seed)
    made = [move(versions[0])]
    with serving("--model", "reviews") as server:
        load = Load(server)
        clients = [threading.Thread(target=load.ask, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        memory = []
        for number in range(1, moves + 1):
            # some moves follow the one before while it is being loaded
            time.sleep(0.2 if chance.random() < 0.1 else SEEN_WITHIN + 0.3 + 0.5 * chance.random())
            made.append(move(versions[number % GOOD]))
            if number >= WARM:
                memory.append(server.measure_memory())
        time.sleep(SEEN_WITHIN + 0.5)
        memory.append(server.measure_memory())
        last = time.monotonic()
        for version in versions[GOOD:]:
            promote(version)
            time.sleep(SEEN_WITHIN + 0.5)
        load.ended.set()
        for client in clients:
            client.join()
        said = "".join(server.said)
    meant = [answer for answer in load.answers if answer.answered < last]
    stale = [answer for answer in meant if not is_meant(answer, made)]
    delays = [find_delay(meant, one, after) for one, after in zip(made, [*made[1:], None], strict=True)]
    print(
        f"{moves} moves, {len(load.answers)} answers, {len(load.failed)} failed; the new version after "
        f"{max(delay for delay in delays[1:] if delay is not None):.2f} s at most; memory "
        f"{[round(size / 1e6) for size in memory]} MB"
    )
    assert load.failed == []
    assert len(load.answers) > 0.9 * RATE * (load.answers[-1].arrived - load.answers[0].arrived)
    assert stale == []
    assert {answer.version for answer in load.answers if answer.arrived > last} == {made[-1].version}
    assert memory[-1] <= 1.1 * memory[0]
    for version in versions[GOOD:]:
        assert f"models:/reviews/{version.version} is not served as champion; v{made[-1].version} goes on" in said
    assert "answers its registered example otherwise" in said


def is_meant(answer: Answer, moves: list[Move], within: float = SEEN_WITHIN) -> bool:
    """Return whether the version of an answer was champion from ``within`` before its arrival on, until it.

    A version stays while the next one is loaded. Where that is replaced meanwhile, it never answers, and the time
    of the one before it begins with the last of such moves.
    """
    return any(
        one.version == answer.version
        and one.began <= answer.answered
        and find_end(moves, place) >= answer.arrived - within
        for place, one in enumerate(moves)
    )


def find_end(moves: list[Move], place: int) -> float:
    """Return when a version was replaced by one that was not replaced itself while it was loaded."""
    later = moves[place + 1 :]
    for number, after in enumerate(later):
        if number + 1 == len(later) or later[number + 1].began - after.ended > SEEN_WITHIN:
            return after.ended
    return float("inf")


def find_delay(answers: list[Answer], move: Move, after: Move | None) -> float | None:
    """Return the seconds until a version answers; ``None`` where the next move came before it had to."""
    if after is not None and after.began - move.ended < SEEN_WITHIN:
        return None
    first = min(a.answered for a in answers if a.version == move.version and a.answered >= move.began)
    return max(0.0, first - move.ended)


def test_what_is_meant_is_told_from_what_is_not():
    moves = [Move(1, 0, 0.1), Move(2, 10, 10.1), Move(3, 10.5, 10.6), Move(4, 20, 20.1)]
    meant = [(1, 5, 5.1), (1, 12.5, 13), (3, 20, 20.1), (3, 22.1, 25), (4, 20, 20.05), (4, 99, 99.1)]
    not_meant = [(1, 12.7, 12.8), (2, 9, 9.9), (3, 22.2, 22.3), (4, 19, 19.9)]
    assert [is_meant(Answer(at, end, version), moves) for version, at, end in meant] == [True] * 6
    assert [is_meant(Answer(at, end, version), moves) for version, at, end in not_meant] == [False] * 4


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_request_fails_while_the_champion_moves(versions):
    run_moves(versions, moves=10, seed=int(time.time()))


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_no_request_fails_while_the_champion_moves_100_times(versions):
    run_moves(versions, moves=100, seed=0)
