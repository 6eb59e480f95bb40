"""The memory bus: the contract, and what only it promises."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.bus.contract import BusContract, told

from gridloom.bus.memory import MemoryBus
from gridloom.core.clock import Clock
from gridloom.core.errors import DeviceTimeout


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


class TestMemoryBus(BusContract):
    """The contract."""


async def test_ten_thousand_device_subjects_cost_the_teller_nothing(bus: MemoryBus) -> None:
    heard = [0]

    def hear(subject: str, message: object) -> None:
        heard[0] += 1

    def publish(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            bus.publish("readings.tic:77", told_one)
        return time.perf_counter() - began

    told_one = told(1)
    bus.listen("readings.tic:77", hear)
    few = min(publish(2_000) for _ in range(5))
    for number in range(10_000):
        bus.listen(f"readings.ocpp:{number}", hear)
    many = min(publish(2_000) for _ in range(5))
    assert heard[0] == 20_000
    assert many < 5 * few  # a scan over 10,000 patterns would be a thousand times as much


async def test_subscribers_that_left_leave_nothing_behind(bus: MemoryBus) -> None:
    for number in range(100):
        bus.subscribe(f"command.{number}").close()
        bus.subscribe(f"a.{number}.*").close()
        bus.subscribe("a.*.>").close()
    assert not bus._exact
    assert bus._tree.empty
    assert not bus._subscriptions


async def test_a_request_times_out_by_the_clock_it_was_given() -> None:
    bus = MemoryBus(Clock(speed=1_000.0))

    async def answer(message: object) -> None:
        await asyncio.sleep(60)

    bus.serve("order.x", answer)
    began = time.monotonic()
    with pytest.raises(DeviceTimeout):
        await bus.request("order.x", 1, 20.0)
    assert time.monotonic() - began < 2
    await bus.close()
