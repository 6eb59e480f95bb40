"""links/backoff: grows, is capped, has full jitter, forgets only after a stable time, and asks the Clock."""

from __future__ import annotations

from random import Random

import pytest

from gridloom.core.clock import Clock
from gridloom.links.backoff import Backoff


class HandClock(Clock):
    """A clock that is moved by hand and sleeps by moving."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Highest(Random):
    """Always draws the upper end: shows the ceiling."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_ceiling_doubles_up_to_the_cap_and_never_overflows() -> None:
    backoff = Backoff(HandClock(), Highest(), first=1, cap=60)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(backoff.next() for _ in range(5000)) == 60
    assert backoff.failures == 5008


def test_jitter_is_full_and_repeatable() -> None:
    waits = [Backoff(HandClock(), Random(seed), first=10, cap=10).next() for seed in range(400)]
    assert all(0 <= wait <= 10 for wait in waits)
    assert min(waits) < 1
    assert max(waits) > 9
    assert Backoff(HandClock(), Random(7)).next() == Backoff(HandClock(), Random(7)).next()


def test_least_is_kept() -> None:
    assert min(Backoff(HandClock(), Random(seed), first=2, least=1.5).next() for seed in range(100)) == 1.5


def test_forgets_only_after_a_stable_time() -> None:
    clock = HandClock()
    backoff = Backoff(clock, Highest(), first=1, cap=60, stable=30)
    assert [backoff.next() for _ in range(3)] == [1, 2, 4]
    backoff.up()
    clock.at += 29
    assert backoff.next() == 8, "a link that flaps does not start again"
    backoff.up()
    clock.at += 30
    assert backoff.next() == 1
    clock.at += 1000
    assert backoff.next() == 2, "time that passed while it was down is not stable time"


async def test_wait_sleeps_by_the_clock() -> None:
    clock = HandClock()
    backoff = Backoff(clock, Highest(), first=5)
    assert await backoff.wait() == 5
    assert clock.at == 5


def test_refuses_settings_that_make_no_sense() -> None:
    for wrong in ({"first": 0.0}, {"factor": 0.5}, {"first": 5.0, "cap": 1.0}, {"least": 100.0}):
        with pytest.raises(ValueError, match="back-off needs"):
            Backoff(HandClock(), Random(0), **wrong)
