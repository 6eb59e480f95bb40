"""supervisor: a service that ends or raises is logged, counted, shown, and started again; stopping is in order and bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from random import Random

import pytest

from gridloom import supervisor as room
from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Health
from gridloom.core.metrics import Metrics
from gridloom.supervisor import Supervisor


class Thing:
    """A service that does what a test says."""

    def __init__(self, name: str, story: list[str]) -> None:
        self.name = name
        self.story = story
        self.starts = 0
        self.fail_starts: list[Exception] = []
        self.fate: asyncio.Future[None] | None = None
        self.hang_in_stop = False
        self.hang_in_start = 0

    async def start(self) -> Mapping[str, str]:
        self.starts += 1
        self.story.append(f"start {self.name}")
        if self.starts <= self.hang_in_start:
            await asyncio.Event().wait()
        if self.fail_starts:
            raise self.fail_starts.pop(0)
        self.fate = asyncio.get_running_loop().create_future()
        return {self.name: f"127.0.0.1:{self.starts}"}

    async def wait(self) -> None:
        assert self.fate is not None
        await self.fate

    async def stop(self) -> None:
        self.story.append(f"stop {self.name}")
        if self.hang_in_stop:
            await asyncio.Event().wait()

    def health(self) -> Health:
        return Health(True, required=True)


def make() -> tuple[Supervisor, Metrics, list[str]]:
    metrics = Metrics()
    told: list[str] = []
    return Supervisor(Clock(speed=100), metrics, lambda: told.append("changed"), Random(1)), metrics, told


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_starts_in_order_stops_in_the_opposite_order() -> None:
    supervisor, _, story = make()
    for name in ("a", "b", "c"):
        await supervisor.start(Thing(name, story))
    assert supervisor.endpoints() == {"a": "127.0.0.1:1", "b": "127.0.0.1:1", "c": "127.0.0.1:1"}
    await supervisor.stop()
    assert story == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


@pytest.mark.parametrize("end", ["raises", "ends"])
async def test_one_that_ends_or_raises_is_started_again(end: str, caplog: pytest.LogCaptureFixture) -> None:
    supervisor, metrics, story = make()
    thing = Thing("a", story)
    await supervisor.start(thing)
    assert thing.fate is not None
    with caplog.at_level(logging.ERROR):
        if end == "raises":
            thing.fate.set_exception(ValueError("boom"))
        else:
            thing.fate.set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)  # it hears of it at once, and waits before the next start
    health = supervisor.health()["a"]
    assert health.required
    assert ("ValueError: boom" if end == "raises" else "ended by itself") in health.reason
    assert supervisor.endpoints() == {}
    await until(lambda: supervisor.health()["a"].ok)
    assert supervisor.endpoints() == {"a": "127.0.0.1:2"}
    assert story == ["start a", "stop a", "start a", "changed"]
    assert metrics.counter("gridloom_service_restarts_total", "", ("service",)).value(service="a") == 1
    assert metrics.gauge("gridloom_service_up", "", ("service",)).value(service="a") == 1
    assert "service failed" in caplog.text
    if end == "raises":
        assert "ValueError: boom" in caplog.text and "Traceback" in caplog.text
    await supervisor.stop()


async def test_a_failing_start_is_tried_again_and_does_not_end_the_others() -> None:
    supervisor, metrics, story = make()
    thing = Thing("a", story)
    thing.fail_starts = [OSError("no broker"), OSError("no broker"), ConfigurationError("a port that is busy for a moment")]
    await supervisor.start(thing)
    assert "no broker" in supervisor.health()["a"].reason
    await supervisor.start(Thing("b", story))
    await until(lambda: supervisor.health()["a"].ok)
    assert thing.starts == 4
    assert metrics.counter("gridloom_service_restarts_total", "", ("service",)).value(service="a") == 3
    await supervisor.stop()


async def test_a_wrong_configuration_at_the_first_start_is_for_the_caller() -> None:
    supervisor, _, story = make()
    thing = Thing("a", story)
    thing.fail_starts = [ConfigurationError("[x] listen: busy")]
    with pytest.raises(ConfigurationError, match="busy"):
        await supervisor.start(thing)
    assert supervisor.health() == {}
    await supervisor.stop()


async def test_stop_is_bounded_and_stops_the_others(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(room, "STOP_SECONDS", 0.05)
    supervisor, _, story = make()
    hanging = Thing("hanging", story)
    hanging.hang_in_stop = True
    await supervisor.start(Thing("a", story))
    await supervisor.start(hanging)
    async with asyncio.timeout(2):
        await supervisor.stop()
    assert story[-1] == "stop a"
    assert "did not stop in time" in caplog.text


async def test_a_start_that_hangs_is_given_up_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "START_SECONDS", 0.05)
    supervisor, _, story = make()
    thing = Thing("a", story)
    thing.hang_in_start = 1
    async with asyncio.timeout(2):
        await supervisor.start(thing)
    assert "TimeoutError" in supervisor.health()["a"].reason
    await until(lambda: supervisor.health()["a"].ok)
    await supervisor.stop()


async def test_stop_while_it_waits_to_start_again() -> None:
    supervisor, _, story = make()
    thing = Thing("a", story)
    thing.fail_starts = [OSError("x")] * 100
    await supervisor.start(thing)
    await supervisor.stop()
    starts = thing.starts
    await asyncio.sleep(0.05)
    assert thing.starts == starts
