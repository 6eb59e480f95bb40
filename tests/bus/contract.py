"""What every bus must do: a class to inherit from, with a fixture ``bus``. NATS will be its second subject.

``settle`` gives a bus that needs a network the time to deliver.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from gridloom.core import subjects
from gridloom.core.errors import Conflict, DeviceTimeout, Offline
from gridloom.core.model import MeterReading
from gridloom.core.ports import Bus, Subscription
from gridloom.core.subjects import Told

PATTERNS = [
    ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.b", "a.b.c", False), ("a.b", "a", False),
    ("a.*", "a.b", True), ("a.*", "a.b.c", False), ("a.*", "a", False), ("*.b", "a.b", True), ("*.b", "a.c", False),
    ("a.*.c", "a.b.c", True), ("a.*.c", "a.b.d", False), ("*.*", "a.b", True), ("*", "a.b", False),
    ("a.>", "a.b", True), ("a.>", "a.b.c", True), ("a.>", "a", False), (">", "a", True), (">", "a.b.c", True), ("a.*.>", "a.b", False),
    ("a.*.>", "a.b.c.d", True),
]  # fmt: skip


def told(number: int) -> Told:
    return Told(str(number), MeterReading("tic:1", number, number, ()))


class BusContract:
    async def settle(self) -> None:
        await asyncio.sleep(0)

    async def take(self, subscription: Subscription, number: int) -> list[tuple[str, Any]]:
        taken: list[tuple[str, Any]] = []
        async for one in subscription:
            taken.append(one)
            if len(taken) == number:
                break
        return taken

    @pytest.mark.parametrize(("pattern", "subject", "matches"), PATTERNS)
    async def test_patterns(self, bus: Bus, pattern: str, subject: str, matches: bool) -> None:
        heard: list[Any] = []
        bus.listen(pattern, lambda subject, message: heard.append((subject, message)))
        await self.settle()
        bus.publish(subject, told(1))
        await self.settle()
        assert heard == ([(subject, told(1))] if matches else [])

    @pytest.mark.parametrize("pattern", ["", "a.", ".a", "a..b", "a b", "a.b*", "a.>.b", "a.>b"])
    async def test_a_pattern_that_is_none_is_refused(self, bus: Bus, pattern: str) -> None:
        with pytest.raises(ValueError):
            bus.listen(pattern, lambda subject, message: None)
        with pytest.raises(ValueError):
            bus.subscribe(pattern)

    async def test_each_listener_hears_once_and_no_more_after_it_left(self, bus: Bus) -> None:
        heard: list[str] = []

        def hearing(name: str) -> Callable[[str, Any], None]:
            return lambda _, __: heard.append(name)

        leave = [bus.listen(pattern, hearing(pattern)) for pattern in ("a.b", "a.*", "a.>")]
        await self.settle()
        bus.publish("a.b", told(1))
        await self.settle()
        assert sorted(heard) == ["a.*", "a.>", "a.b"]
        for one in leave:
            one()
            one()  # leaving twice is no error
        await self.settle()
        bus.publish("a.b", told(2))
        await self.settle()
        assert len(heard) == 3

    async def test_leaving_takes_nobody_else_along(self, bus: Bus) -> None:
        heard: list[str] = []
        first = bus.listen("a.*.c", lambda *_: heard.append("first"))
        bus.listen("a.*.c", lambda *_: heard.append("second"))
        bus.listen("a.*.>", lambda *_: heard.append("third"))
        first()
        await self.settle()
        bus.publish("a.b.c", told(1))
        await self.settle()
        assert sorted(heard) == ["second", "third"]

    async def test_a_subscription_keeps_order(self, bus: Bus) -> None:
        subscription = bus.subscribe(subjects.ALL_READINGS)
        await self.settle()
        for number in range(5):
            bus.publish(subjects.readings("tic:1"), told(number))
        taken = await asyncio.wait_for(self.take(subscription, 5), 5)
        assert [message.cursor for _, message in taken] == list("01234")
        assert taken[0][0] == "readings.tic:1"
        subscription.close()

    async def test_a_full_subscription_loses_its_oldest_and_counts(self, bus: Bus) -> None:
        slow = bus.subscribe("a.b", size=3)
        quick = bus.subscribe("a.b", size=10)
        await self.settle()
        for number in range(7):
            bus.publish("a.b", told(number))
        assert [message.cursor for _, message in await asyncio.wait_for(self.take(quick, 7), 5)] == list("0123456")
        assert [message.cursor for _, message in await asyncio.wait_for(self.take(slow, 3), 5)] == list("456")
        assert (slow.dropped, quick.dropped) == (4, 0)

    async def test_closing_a_subscription_ends_its_iteration(self, bus: Bus) -> None:
        subscription = bus.subscribe("a.b")
        waiting = asyncio.ensure_future(self.take(subscription, 1))
        await self.settle()
        subscription.close()
        assert await asyncio.wait_for(waiting, 5) == []

    async def test_a_listener_that_fails_keeps_nobody_from_hearing(self, bus: Bus) -> None:
        heard: list[Any] = []

        def fail(subject: str, message: Any) -> None:
            raise RuntimeError("broken listener")

        bus.listen("a.b", fail)
        bus.listen("a.b", lambda _, message: heard.append(message))
        await self.settle()
        bus.publish("a.b", told(1))
        await self.settle()
        assert heard == [told(1)]

    async def test_the_one_who_serves_answers(self, bus: Bus) -> None:
        async def answer(message: Any) -> Any:
            return f"answer to {message}"

        leave = bus.serve("order.x", answer)
        await self.settle()
        assert await bus.request("order.x", "7", 5.0) == "answer to 7"
        leave()
        await self.settle()
        with pytest.raises(Offline):
            await bus.request("order.x", "7", 5.0)

    async def test_what_the_answerer_raises_reaches_the_asker(self, bus: Bus) -> None:
        async def answer(message: Any) -> Any:
            raise Conflict("not now")

        bus.serve("order.x", answer)
        await self.settle()
        with pytest.raises(Conflict, match="not now"):
            await bus.request("order.x", "7", 5.0)

    async def test_no_answer_in_time_is_a_timeout_and_the_answerer_works_on(self, bus: Bus) -> None:
        done = asyncio.Event()

        async def answer(message: Any) -> Any:
            await asyncio.sleep(0.05)
            done.set()

        bus.serve("order.x", answer)
        await self.settle()
        with pytest.raises(DeviceTimeout):
            await bus.request("order.x", "7", 0.01)
        await asyncio.wait_for(done.wait(), 5)

    async def test_a_newer_server_takes_over_and_the_older_ones_leaving_does_not_harm_it(self, bus: Bus) -> None:
        async def older(message: Any) -> Any:
            return "older"

        async def newer(message: Any) -> Any:
            return "newer"

        leave = bus.serve("order.x", older)
        bus.serve("order.x", newer)
        leave()
        await self.settle()
        assert await bus.request("order.x", "7", 5.0) == "newer"

    async def test_closing_the_bus_ends_subscriptions_and_answers(self, bus: Bus) -> None:
        async def answer(message: Any) -> Any:
            await asyncio.sleep(60)

        bus.serve("order.x", answer)
        subscription = bus.subscribe("a.b")
        waiting = asyncio.ensure_future(self.take(subscription, 1))
        asking = asyncio.ensure_future(bus.request("order.x", "7", 60.0))
        await asyncio.sleep(0.01)
        await bus.close()
        assert await asyncio.wait_for(waiting, 5) == []
        with contextlib.suppress(asyncio.CancelledError, Offline, DeviceTimeout):
            await asyncio.wait_for(asking, 5)
        assert asking.done()
