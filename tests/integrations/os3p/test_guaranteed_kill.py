"""Kill -9 of the whole hub, about twenty times at random moments, while stations tell of their street lights (CONFORMANCE N19 to N22).

The stations do as the document says: each keeps what happened until it was answered, tells it again on the next connection, oldest first, and
now and then tells again what was answered, because an answer may be lost on its way. What was answered is never lost, nothing is there twice, and
the live state is that of the newest event that is stored.

This proves the death of a process, not of the machine; that fsync comes before the answer is shown by the trace test of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from tests.hub_process import HubProcess, Hubs
from tests.integrations.os3p.station import Closed, Station, connected

KILLS = 20
STATIONS = ("SUBS 1", "SUBS 2", "Übergabe/3", "SUBS 4")
BEGIN = datetime(2025, 11, 20, tzinfo=UTC)
CONFIG = '[http]\nlisten = "127.0.0.1:0"\n[os3p]\nlisten = "127.0.0.1:0"\naccept = "any"\n'
STATUS, MODE = "StreetlightStatusNotification", "StreetlightModeStatusNotification"
PIPELINED = 4
"""CALLs on the way at once: the hub dies with several of them in hand."""


class Told(NamedTuple):
    """What makes two notifications the same (N21)."""

    identity: str
    field: str
    contactor: int | None
    moment: str
    value: str

    def call(self) -> tuple[str, dict[str, Any]]:
        """Action and payload."""
        payload = {self.field: self.value, "timestamp": self.moment} | ({} if self.contactor is None else {"contactorId": self.contactor})
        return (STATUS if self.field == "status" else MODE), payload


class Rtu:
    """A station and its queue on flash, which outlives every connection."""

    def __init__(self, identity: str, random: Random) -> None:
        self.identity = identity
        self.random = random
        self.moment = BEGIN
        self.queue: deque[Told] = deque()
        self.answered: list[Told] = []
        self.again = 0

    async def live(self, where: str) -> None:
        """Tell until the line ends."""
        with contextlib.suppress(Closed, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            station = await connected(where, self.identity)
            try:
                if not self.answered:
                    await station.boot()
                while True:
                    await self.tell(station)
            finally:
                station.cut()

    async def tell(self, station: Station) -> None:
        """The oldest of the queue at once, and sometimes something old; what is answered leaves the queue."""
        while len(self.queue) < PIPELINED:
            self.queue.append(self.happens())
        now = [self.queue[index] for index in range(self.random.randint(1, PIPELINED))]
        if self.answered and self.random.random() < 0.3:
            now.insert(self.random.randint(0, len(now)), self.random.choice(self.answered))
        waiting = [(told, self.begin(station, told)) for told in now]
        for told, answer in waiting:
            assert await station.answered(answer) == {}
            if self.queue and told == self.queue[0]:
                self.answered.append(self.queue.popleft())
            else:
                self.again += 1

    def begin(self, station: Station, told: Told) -> asyncio.Future[Any]:
        """Send the CALL with an id that was never used."""
        action, payload = told.call()
        return station.begin(action, payload, id=f"{self.random.getrandbits(100):x}")

    def happens(self) -> Told:
        """Something new at a contactor, or at all."""
        self.moment += timedelta(seconds=self.random.randint(1, 60), milliseconds=self.random.randint(0, 999))
        contactor = self.random.choice((None, 1, 2, 3, 4))
        if self.random.random() < 0.7:
            return Told(self.identity, "status", contactor or 1, self.moment.isoformat(), self.random.choice(("On", "Off")))
        return Told(self.identity, "mode", contactor, self.moment.isoformat(), self.random.choice(("Schedule", "LocalOverride", "RemoteOverride")))


def stored(hub: HubProcess) -> list[Told]:
    """The events of the hub."""
    found: list[Told] = []
    for kind, field in (("light.switched", "status"), ("light.mode.changed", "mode")):
        cursor = ""
        while True:
            page = hub.get(f"/api/v1/events?kind={kind}&limit=1000{cursor}")
            for event in page["items"]:
                moment = datetime.fromisoformat(event["time"]).isoformat()
                found.append(Told(event["device"].removeprefix("os3p:"), field, event["data"]["contactor"], moment, event["data"][field]))
            if page["next"] is None:
                break
            cursor = f"&cursor={quote(page['next'], safe='')}"
    return found


def newest(told: list[Told], identity: str, field: str, contactor: int) -> str | None:
    """What holds for a contactor after all of it (N15: what is told of none in particular holds for all)."""
    of_it = [one for one in told if (one.identity, one.field) == (identity, field) and one.contactor in (None, contactor)]
    return max(of_it, key=lambda one: datetime.fromisoformat(one.moment)).value if of_it else None


@pytest.mark.timeout(300)
async def test_N22_twenty_kills_lose_nothing_that_was_answered_and_double_nothing(hubs: Hubs, tmp_path: Path) -> None:
    hub, random = hubs(CONFIG), Random(4_220)
    rtus = [Rtu(identity, Random(number)) for number, identity in enumerate(STATIONS)]
    for _ in range(KILLS):
        hub.start()
        await asyncio.to_thread(hub.ready)
        assert hub.process is not None
        before = [len(rtu.answered) for rtu in rtus]
        lives = [asyncio.create_task(rtu.live(hub.endpoints["os3p"])) for rtu in rtus]
        end = time.monotonic() + 30
        while any(len(rtu.answered) == count for rtu, count in zip(rtus, before, strict=True)):
            assert time.monotonic() < end, hub.log.read_text()[-3000:]
            await asyncio.sleep(0.002)
        await asyncio.sleep(random.uniform(0, 0.1))
        hub.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(hub.process.wait)
        await asyncio.gather(*lives)
    hub.start()
    await asyncio.to_thread(hub.ready)
    found = await asyncio.to_thread(stored, hub)
    answered = {told for rtu in rtus for told in rtu.answered}
    assert len(answered) > KILLS * len(STATIONS)
    assert sum(rtu.again for rtu in rtus) > KILLS, "told again what was answered before"
    assert answered - set(found) == set(), "lost"
    assert len(found) == len(set(found)), "there twice"
    assert set(found) - answered <= {told for rtu in rtus for told in rtu.queue}, "nobody told that"
    for identity in STATIONS:
        page = await asyncio.to_thread(hub.get, f"/api/v1/os3p/stations/{quote(identity, safe='')}")
        assert [light["contactor"] for light in page["lights"]] == [1, 2, 3, 4]
        for light in page["lights"]:
            for field in ("status", "mode"):
                assert light.get(field) == newest(found, identity, field, light["contactor"]), (identity, light)
