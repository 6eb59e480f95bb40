"""A demo without a broker shows an EVerest transaction with its receipt, and a charger that takes orders."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.hub_process import HubProcess, Hubs

from gridloom.integrations.everest import ocmf
from gridloom.links.nullbroker import NullBroker, matches


def folder(hub: HubProcess) -> Path | None:
    lines = [line for line in hub.said.read_text().splitlines() if line.startswith("  data ")]
    return Path(lines[0].split()[1]) if lines else None


async def within(seconds: float, look: Any) -> Any:
    end = time.monotonic() + seconds
    while True:
        found = await asyncio.to_thread(look)
        if found:
            return found
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.1)


async def test_a_demo_shows_a_charge_and_its_receipt(hubs: Hubs) -> None:
    listen = {"GRIDLOOM__HTTP__LISTEN": "127.0.0.1:0"}
    hub = await asyncio.to_thread(hubs(None, env=listen, verb=("demo", "--for", "60", "--speed", "5")).start)
    hub.data = await within(15, lambda: folder(hub))

    def ended() -> Any:
        return hub.get("/api/v1/transactions?device=everest:powermeter&state=ended")["items"]

    (transaction, *_) = await within(30, ended)
    record = ocmf.parse(transaction["data"]["record"])
    assert [reading.TX for reading in record.readings] == ["B", "E"]
    assert "calibrated" in transaction["data"]["notice"]
    (charge, *_) = await within(10, lambda: hub.get("/api/v1/transactions?device=everest:charger")["items"])
    assert charge["key"] == transaction["key"], "the charge and its receipt are of one session"
    order = {"verb": "charge.limit", "arguments": {"current_a": 10}}
    status, done = await asyncio.to_thread(hub.request, "POST", "/api/v1/devices/everest%3Acharger/commands?wait=10", order)
    assert (status, done["state"]) == (200, "done")
    assert hub.stop() == 0
    assert "integrations/everest" not in hub.log.read_text(), "no traceback of ours"


async def test_a_broker_that_is_not_there_keeps_what_is_retained() -> None:
    broker, heard = NullBroker(), []
    one, other = broker.party(), broker.party()
    one.subscribe("a/+/c", lambda topic, payload: heard.append((topic, payload)))
    one.subscribe("orders", lambda topic, payload: heard.append((topic, payload)), kept=False)
    assert not other.send("a/b/c", "lost")
    await other.start()
    assert other.send("a/b/c", "kept", retain=True)
    other.send("orders", b"kept", retain=True)
    await asyncio.sleep(0)
    await one.start()
    assert heard == [("a/b/c", b"kept")]
    other.send("orders", b"now")
    await asyncio.sleep(0.01)
    assert heard[1:] == [("orders", b"now")]
    await one.stop()
    other.send("a/x/c", b"")
    await asyncio.sleep(0.01)
    assert len(heard) == 2


def test_topic_filters() -> None:
    assert matches("a/+/c", "a/b/c")
    assert matches("a/#", "a/b/c")
    assert matches("#", "a")
    assert not matches("a/+", "a/b/c")
    assert not matches("a/b", "a/b/c")
