"""Rates and quotas that several processes share: they tell each other now and then what they gave."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_keys import Clock

from dlpipe.serving.allowances import Balances
from dlpipe.serving.key_file import create_key
from dlpipe.serving.keys import KeyRing
from dlpipe.serving.refusals import Refused

NOON = 1_780_315_200.0  # 2026-06-01 12:00 UTC
DAY = 86_400.0


@pytest.fixture
def clock() -> Clock:
    return Clock(NOON)


class Processes:
    """Two processes that take the same key."""

    def __init__(self, file: Path, clock: Clock, **bounds) -> None:
        _, self.shown = create_key(file, "shop", now=clock.now, **bounds)
        self.clock, self.balances = clock, Balances()
        self.rings = [KeyRing(file, clock=clock) for _ in range(2)]

    def ask(self, number: int, rows: int = 1) -> bool:
        """Return whether the process answers."""
        try:
            grant = self.rings[number].check(f"Bearer {self.shown}", model="reviews", right="predict")
            self.rings[number].charge(grant, rows)
        except Refused:
            return False
        return True

    def settle(self) -> None:
        """Have each tell what it gave, and then be told what all gave."""
        for ring in (*self.rings, *self.rings):
            ring.settle(self.balances.settle(ring.list_uses(), self.clock.now))


def test_a_quota_is_not_multiplied_by_processes(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 6)
    assert both.ask(1, 3)
    both.settle()
    assert not both.ask(0, 2)
    assert both.ask(1, 1)
    both.settle()
    assert not both.ask(0)
    assert not both.ask(1)


def test_what_was_given_between_two_talks_counts_for_all_after_the_next(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 10)
    assert both.ask(1, 10)  # nobody has told it yet
    both.settle()
    clock.now += DAY / 2 - 1
    both.settle()
    assert not both.ask(0)
    assert not both.ask(1)


def test_rows_that_are_given_while_the_others_are_told_are_not_lost(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 4)
    uses = both.rings[0].list_uses()
    assert both.ask(0, 3)
    both.rings[0].settle(both.balances.settle(uses, clock.now))
    assert not both.ask(0, 4)
    both.settle()
    assert not both.ask(1, 4)
    assert both.ask(1, 3)


def test_a_new_day_begins_for_all(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 10)
    both.settle()
    clock.now += DAY / 2
    both.settle()
    assert both.ask(1, 6)
    both.settle()
    assert not both.ask(0, 5)


def test_a_process_whose_day_is_over_already_takes_nothing_from_yesterday(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 10)
    late = both.rings[0].list_uses()
    clock.now += DAY / 2
    both.rings[1].settle(both.balances.settle(both.rings[1].list_uses(), clock.now))
    both.rings[0].settle(both.balances.settle(late, clock.now))
    assert both.ask(1, 10)


def test_who_shares_begins_again_with_what_the_processes_know(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, quota=10)
    assert both.ask(0, 6)
    both.settle()
    both.balances = Balances()
    both.settle()
    assert not both.ask(1, 5)
    assert both.ask(1, 4)


def test_a_rate_is_that_of_all_in_the_long_run(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, rate="10/s")
    answered = 0
    for _ in range(200):  # twenty seconds, each process asked 50 times a second
        answered += sum(both.ask(number) for number in (0, 1) for _ in range(5))
        clock.now += 0.1
        both.settle()
    assert 200 <= answered <= 230


def test_a_debt_is_waited_for(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock, rate="2/s")
    assert all(both.ask(number) for number in (0, 0, 1, 1))
    both.settle()
    with pytest.raises(Refused) as caught:
        both.rings[0].check(f"Bearer {both.shown}", model="reviews", right="predict")
    assert dict(caught.value.headers)[b"retry-after"] == b"2"  # two too many, and the next
    clock.now += 1.5
    assert both.ask(0)


def test_keys_without_rate_and_quota_are_not_told(tmp_path, clock):
    both = Processes(tmp_path / "keys.json", clock)
    assert both.ask(0)
    assert both.rings[0].list_uses() == []
