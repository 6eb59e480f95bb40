"""Kill -9 of the hub at any moment: no Streetlight notification that was answered is lost, none is there twice (CONFORMANCE N19 to N22).

It is the process that dies here, not the power; that fsync comes before the answer is shown by the trace test of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from urllib.parse import quote

import msgspec
import pytest
from tests.hub_process import HubProcess, Hubs
from tests.integrations.os3p.station import Closed, Station, connected

from gridloom.core.clock import Clock
from gridloom.integrations.os3p.lights import Lights
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

KILLS = 6
STATIONS = ("SUBS 1", "SUBS 2", "SUBS 3")
BEGIN = datetime(2026, 11, 20, tzinfo=UTC)
CONFIG = '[http]\nlisten = "127.0.0.1:0"\n[os3p]\nlisten = "127.0.0.1:0"\naccept = "any"\n'

Told = tuple[str, str, str]
"""Identity, moment, status."""


class Rtu:
    """A station with a queue: what was not answered it tells again, on the next connection (N19, N20)."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.moment = BEGIN
        self.queue: list[dict[str, object]] = []
        self.answered: list[Told] = []

    async def live(self, where: str) -> None:
        """Tell until the line ends."""
        with contextlib.suppress(Closed, ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            station: Station = await connected(where, self.identity)
            try:
                if not self.answered:
                    await station.boot()
                while True:
                    if not self.queue:
                        self.moment += timedelta(seconds=1)
                        on = self.moment.second % 2 == 0
                        self.queue.append({"contactorId": 1, "status": "On" if on else "Off", "timestamp": self.moment.isoformat()})
                    assert await station.call("StreetlightStatusNotification", self.queue[0]) == {}
                    told = self.queue.pop(0)
                    self.answered.append((self.identity, str(told["timestamp"]), str(told["status"])))
            finally:
                station.cut()


def stored(hub: HubProcess) -> list[Told]:
    """The events of the hub."""
    found: list[Told] = []
    cursor = ""
    while True:
        page = hub.get(f"/api/v1/events?kind=light.switched&limit=1000{cursor}")
        for event in page["items"]:
            moment = datetime.fromisoformat(event["time"]).isoformat()
            found.append((event["device"].removeprefix("os3p:"), moment, event["data"]["status"]))
        if page["next"] is None:
            return found
        cursor = f"&cursor={quote(page['next'], safe='')}"


@pytest.mark.timeout(180)
async def test_N22_kills_lose_nothing_that_was_answered(hubs: Hubs) -> None:
    hub, random = hubs(CONFIG), Random(22)
    rtus = [Rtu(identity) for identity in STATIONS]
    for _ in range(KILLS):
        hub.start()
        await asyncio.to_thread(hub.ready)
        assert hub.process is not None
        lives = [asyncio.create_task(rtu.live(hub.endpoints["os3p"])) for rtu in rtus]
        before = [len(rtu.answered) for rtu in rtus]
        while any(len(rtu.answered) < count + 5 for rtu, count in zip(rtus, before, strict=True)):
            assert not all(life.done() for life in lives), hub.log.read_text()[-3000:]
            await asyncio.sleep(0.002)
        await asyncio.sleep(random.uniform(0, 0.2))
        hub.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(hub.process.wait)
        await asyncio.gather(*lives)
    hub.start()
    await asyncio.to_thread(hub.ready)
    found = await asyncio.to_thread(stored, hub)
    answered = [told for rtu in rtus for told in rtu.answered]
    assert len(answered) > KILLS * 15
    assert set(answered) <= set(found)
    assert len(found) == len(set(found)), "what was told again was recognised"
    unanswered = {(rtu.identity, str(told["timestamp"]), str(told["status"])) for rtu in rtus for told in rtu.queue}
    assert set(found) - set(answered) <= unanswered, "nothing that nobody told"
    await asyncio.to_thread(hub.stop)
    for rtu in rtus:
        newest = max((told for told in found if told[0] == rtu.identity), key=lambda told: told[1])
        assert await live(hub.data / "gridloom.db", rtu.identity) == newest[2]


async def live(path: Path, identity: str) -> str | None:
    """The status of contactor 1 as the store has it."""
    store = SqliteStore(path, Clock(), StorageSettings(background=False))
    await store.open()
    try:
        document = await store.documents.get("os3p", "lights", identity)
    finally:
        await store.close()
    assert document is not None
    status = msgspec.json.decode(document.body, type=Lights).of(1).status
    return None if status is None else status.value
