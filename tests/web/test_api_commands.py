"""Orders over HTTP, to a device whose link answers as the test says; and transactions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.web.running import ENERGY, Running

from gridloom.core.errors import DeviceError
from gridloom.core.model import Command, DeviceKind, MeterReading, Reading, Role, Transaction

ID = "ekm:000300000234"
URL = f"/api/v1/devices/{ID}/commands"
CLOSE = {"verb": "relay.set", "arguments": {"relay": 1, "state": "closed"}}


class Relay:
    """Carries orders out, or not."""

    def __init__(self) -> None:
        self.got: list[Command] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def execute(self, command: Command) -> Any:
        self.got.append(command)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {"closed": True}


@pytest.fixture
async def relay(hub: Running) -> Relay:
    await hub.device(ID, kind=DeviceKind.IO, verbs=("relay.set", "device.poll"), measurands=())
    relay = Relay()
    hub.hub.registry.attach(ID, relay.execute).online()
    return relay


async def test_an_order_and_its_result(hub: Running, relay: Relay) -> None:
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        answer = await client.post(f"{URL}?wait=5", json={"verb": "relay.set", "arguments": {"relay": 1, "state": "closed", "password": "12345678"}})
        assert answer.status_code == 200, answer.text
        order = answer.json()
        assert (order["state"], order["final"], order["result"]) == ("done", True, {"closed": True})
        assert order["arguments"]["password"] == "***"
        assert relay.got[0].arguments["password"] == "12345678"
        shown = await client.get(answer.headers["location"])
        assert shown.json() == order
        assert [one["id"] for one in (await client.get(URL)).json()["items"]] == [order["id"]]
        assert [one["id"] for one in (await client.get("/api/v1/commands?state=done")).json()["items"]] == [order["id"]]
        assert (await client.get("/api/v1/commands?state=failed")).json()["items"] == []
        assert "12345678" not in (await client.get("/api/v1/audit")).text
        assert (await client.delete(f"/api/v1/commands/{order['id']}")).status_code == 409


async def test_accepted_is_202_with_a_place_to_ask(hub: Running, relay: Relay) -> None:
    relay.go.clear()
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        answer = await client.post(URL, json=CLOSE)
        assert answer.status_code == 202
        assert answer.json()["final"] is False
        assert answer.headers["location"] == f"/api/v1/commands/{answer.json()['id']}"
        slow = await client.post(f"{URL}?wait=0.1", json=CLOSE)
        assert (slow.status_code, slow.json()["final"]) == (202, False)
        asking = asyncio.create_task(client.get(f"{answer.headers['location']}?wait=5"))
        await asyncio.sleep(0.05)
        relay.go.set()
        assert (await asking).json()["state"] == "done"


async def test_a_device_that_says_no(hub: Running, relay: Relay) -> None:
    relay.error = DeviceError("wrong password")
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        order = (await client.post(f"{URL}?wait=5", json=CLOSE)).json()
    assert order["state"] == "failed"
    assert "wrong password" in order["error"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "paths"),
    [
        (
            {"verb": "relay.set", "arguments": {"relay": 0, "state": "ajar", "x": 1}},
            400,
            "invalid-input",
            {"$.arguments.relay", "$.arguments.state", "$.arguments.x"},
        ),
        ({"verb": "relay.sett"}, 400, "invalid-input", {"$.verb"}),
        ({"verb": "device.read"}, 400, "invalid-input", {"$.verb"}),
        ({"arguments": [], "expires_in": 0, "wait_onlin": True}, 400, "invalid-input", {"$.verb", "$.arguments", "$.expires_in", "$.wait_onlin"}),
        ({"verb": "charge.start"}, 409, "unsupported", set()),
        (
            {"verb": "relay.set", "arguments": {"relay": 1, "state": "open", "password": "secret-" * 20}},
            400,
            "invalid-input",
            {"$.arguments.password"},
        ),
    ],
)
async def test_what_is_refused_says_why_and_sends_nothing(
    hub: Running, relay: Relay, body: dict[str, Any], status: int, kind: str, paths: set[str]
) -> None:
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        answer = await client.post(URL, json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["type"] == f"/docs#problem-{kind}"
        assert {one["path"] for one in answer.json().get("errors", [])} == paths
        assert "secret-" not in answer.text
        assert (await client.get(URL)).json()["items"] == []
    assert relay.got == []


async def test_offline_is_a_refusal_unless_the_order_waits(hub: Running, relay: Relay) -> None:
    link = hub.hub.registry.link(ID)
    assert link is not None
    link.offline("pulled out")
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        refused = await client.post(URL, json=CLOSE)
        assert (refused.status_code, refused.json()["type"]) == (409, "/docs#problem-offline")
        waiting = await client.post(URL, json={**CLOSE, "wait_online": True, "expires_in": 60})
        assert waiting.status_code == 202
        taken = await client.delete(waiting.headers["location"])
        assert taken.json()["state"] == "cancelled"
        waiting = await client.post(URL, json={**CLOSE, "wait_online": True, "id": "mine-1"})
        again = await client.post(URL, json={**CLOSE, "wait_online": True, "id": "mine-1"})
        other = await client.post(URL, json={**CLOSE, "arguments": {"relay": 1, "state": "open"}, "wait_online": True, "id": "mine-1"})
        assert (other.status_code, "mine-1" in other.json()["detail"]) == (409, True)
        assert waiting.json()["id"] == again.json()["id"] == "mine-1"
        link.online()
        assert (await client.get(f"{waiting.headers['location']}?wait=5")).json()["state"] == "done"
    assert len(relay.got) == 1


async def test_orders_in_pages(hub: Running, relay: Relay) -> None:
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        made = [(await client.post(f"{URL}?wait=5", json={"verb": "device.poll"})).json()["id"] for _ in range(5)]
        seen, url = [], f"{URL}?limit=2"
        while url:
            answer = await client.get(url)
            seen += [one["id"] for one in answer.json()["items"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
    assert seen == made[::-1]


async def test_who_may_only_look_orders_nothing(hub: Running, relay: Relay) -> None:
    async with hub.client(await hub.token(Role.VIEWER)) as viewer, hub.client(await hub.token(Role.OWNER)) as stranger:
        assert (await viewer.post(URL, json=CLOSE)).status_code == 403
        assert (await stranger.post(URL, json=CLOSE)).status_code == 404
        assert (await viewer.get("/api/v1/commands/nothing")).status_code == 404
    assert relay.got == []


async def test_transactions(hub: Running) -> None:
    await hub.device("ocpp:cp1", kind=DeviceKind.CHARGER)
    start = 1_767_225_600_000_000
    for number in range(3):
        begin = MeterReading("ocpp:cp1", start, start, (Reading(ENERGY, 1_000_123, -1),))
        await hub.hub.transactions.begin(Transaction("", "ocpp:cp1", str(number), start + number, identification="tag", begin=begin))
    end = MeterReading("ocpp:cp1", start + 9, start + 9, (Reading(ENERGY, 1_100_123, -1),))
    await hub.hub.transactions.end("ocpp:cp1", "0", ended=start + 9, end=end, reason="EVDisconnected")
    async with hub.client(await hub.token(Role.VIEWER)) as client, hub.client(await hub.token(Role.OWNER)) as stranger:
        answer = await client.get("/api/v1/transactions?device=ocpp:cp1&state=ended")
        (ended,) = answer.json()["items"]
        assert (ended["key"], ended["reason"], ended["started"]) == ("0", "EVDisconnected", "2026-01-01T00:00:00Z")
        assert '"value":110012.3' in answer.text
        assert (await client.get(f"/api/v1/transactions/{ended['id']}")).json() == ended
        seen, url = [], "/api/v1/transactions?limit=2"
        while url:
            answer = await client.get(url)
            seen += [one["key"] for one in answer.json()["items"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
        assert seen == ["2", "1", "0"]
        assert (await stranger.get("/api/v1/transactions")).json()["items"] == []
        assert (await stranger.get(f"/api/v1/transactions/{ended['id']}")).status_code == 404
        assert (await stranger.get("/api/v1/transactions?device=ocpp:cp1")).status_code == 404
        assert (await client.get("/api/v1/transactions/nothing")).status_code == 404
