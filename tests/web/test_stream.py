"""The live stream, read by a client of our own making that shares no code with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.web.conftest import Make
from tests.web.running import Running, until

from gridloom.core.model import EventState, Role
from gridloom.core.subjects import HUB
from gridloom.web import stream as stream_module
from gridloom.web.stream import Stream

METER = "tic:021762010203"


class Reader:
    """Collects server-sent events by the letter of the specification."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Any]] = []
        self.comments = 0
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self.status = 0

    def named(self, name: str) -> list[Any]:
        return [data for _, event, data in self.events if event == name]

    @property
    def last_id(self) -> str:
        return str(next(id for id, _, _ in reversed(self.events) if id))

    async def run(self, hub: Running, token: str, query: str = "", last_id: str = "") -> None:
        headers = {b"last-event-id": last_id.encode("latin-1")} if last_id else {}
        async with hub.client(token) as client, client.stream("GET", f"/api/v1/stream?{query}", headers=headers) as answer:
            self.status = answer.status_code
            data: list[str] = []
            id, event = "", "message"
            async for line in answer.aiter_lines():
                self.opened.set()
                if line == "":
                    if data:
                        self.events.append((id, event, json.loads("\n".join(data))))
                    id, event, data = "", "message", []
                elif line.startswith(":"):
                    self.comments += 1
                else:
                    field, _, value = line.partition(": ")
                    if field == "id":
                        id = value
                    elif field == "event":
                        event = value
                    elif field == "data":
                        data.append(value)
        self.ended.set()


@contextlib.asynccontextmanager
async def reading(hub: Running, token: str, query: str = "", last_id: str = "") -> AsyncIterator[Reader]:
    reader = Reader()
    task = asyncio.create_task(reader.run(hub, token, query, last_id))
    try:
        await asyncio.wait_for(reader.opened.wait(), 5)
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_all_sorts_of_messages_come_with_ids(hub: Running) -> None:
    token = await hub.token(Role.ADMIN)
    async with reading(hub, token) as reader:
        await hub.device()
        await hub.reading(power=4321)
        await hub.event("alarm.silence", state=EventState.RAISED, message="quiet")
        await until(lambda: "quiet" in [data.get("message") for data in reader.named("event")] and bool(reader.named("reading")))
        told = reader.named("reading")[0]
        assert told["device"] == METER
        assert {one["measurand"]: one["value"] for one in told["readings"]}["Power.Active.Import"] == 4321
        assert "quiet" in [data["message"] for data in reader.named("event")]
        assert reader.named("device")[0]["id"] == METER
        ids = [id for id, _, _ in reader.events]
        assert all(ids)
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type=reading", {("reading", "tic:1"), ("reading", "os3p:SUBS 123")}),
        ("type=event", {("event", "tic:1"), ("event", "os3p:SUBS 123")}),
        ("type=reading&type=event&device=os3p:SUBS+123", {("reading", "os3p:SUBS 123"), ("event", "os3p:SUBS 123")}),
        ("type=reading&integration=tic", {("reading", "tic:1")}),
        ("type=event&kind=alarm.*", {("event", "tic:1")}),
        ("type=event&kind=alarm.silence", {("event", "tic:1")}),
        ("type=event&severity=error", set()),
        ("type=reading&measurand=Voltage", {("reading", "tic:1"), ("reading", "os3p:SUBS 123")}),
        ("type=reading&measurand=Frequency", set()),
    ],
)
async def test_filters(hub: Running, query: str, expected: set[tuple[str, str]]) -> None:
    await hub.device("tic:1")
    await hub.device("os3p:SUBS 123")
    token = await hub.token(Role.VIEWER)
    async with reading(hub, token, query) as reader, reading(hub, token) as everything:
        await hub.reading("tic:1")
        await hub.reading("os3p:SUBS 123")
        await hub.event("alarm.silence", "tic:1", state=EventState.RAISED)
        await hub.event("device.clock.set", "os3p:SUBS 123")
        await until(lambda: len(everything.named("event")) == 2)
        await asyncio.sleep(0.05)
        assert {(event, data["device"]) for _, event, data in reader.events} == expected
        if "Voltage" in query:
            assert all([one["measurand"] for one in data["readings"]] == ["Voltage"] for data in reader.named("reading"))


async def test_who_may_not_see_a_device_does_not_hear_it(hub: Running) -> None:
    admin = await hub.token(Role.ADMIN)
    owner = await hub.token(Role.OWNER)
    installer = await hub.token(Role.INSTALLER)
    async with hub.client(admin) as client:
        await client.post("/api/v1/sites", json={"name": "Home", "id": "home"})
        await client.put("/api/v1/grants", json={"account": "owner@example.org", "scope": "site:home", "role": "owner"})
        await client.put("/api/v1/grants", json={"account": "installer@example.org", "scope": "site:home", "role": "installer"})
        await hub.device("tic:mine")
        await hub.device("tic:other")
        await client.patch("/api/v1/devices/tic:mine", json={"site": "home"})
    async with reading(hub, owner) as own, reading(hub, installer) as general, reading(hub, admin) as everything:
        for id in ("tic:mine", "tic:other"):
            await hub.reading(id)
            await hub.event("alarm.silence", id, state=EventState.RAISED)
        await hub.event("hub.started", HUB)
        await until(lambda: len(everything.named("reading")) == 2 and len(everything.named("event")) == 3)
        await asyncio.sleep(0.05)
        assert {data["device"] for data in own.named("reading") + own.named("event")} == {"tic:mine"}
        assert general.named("reading") == []  # an installer sees no consumption
        assert general.named("event") == []
        # what is granted later is heard later, what is taken away is heard no longer
        async with hub.client(admin) as client:
            await client.request("DELETE", "/api/v1/grants?account=owner@example.org&scope=site:home")
        await hub.reading("tic:mine")
        await until(lambda: len(everything.named("reading")) == 3)
        await asyncio.sleep(0.05)
        assert len(own.named("reading")) == 1


async def test_resume_within_the_process_misses_and_repeats_nothing(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading") as first:
        for power in range(3):
            await hub.reading(power=power)
        await until(lambda: len(first.named("reading")) == 3)
        second_id = [id for id, _, _ in first.events][1]
    for power in range(3, 6):
        await hub.reading(power=power)
    async with reading(hub, token, "type=reading", second_id) as again:
        await hub.reading(power=6)
        await until(lambda: len(again.named("reading")) >= 5)
        await asyncio.sleep(0.05)
        powers = [one["value"] for data in again.named("reading") for one in data["readings"] if one["measurand"] == "Power.Active.Import"]
        assert powers == [2, 3, 4, 5, 6]


async def test_resume_behind_the_ring_reads_the_store(hub: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "RING_MESSAGES", 2)
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading&type=event") as first:
        await hub.event("alarm.silence", state=EventState.RAISED)
        await hub.reading(power=0)
        # the device's own registration may be told, too
        await until(lambda: bool(first.named("reading")) and "alarm.silence" in {data["kind"] for data in first.named("event")})
    for power in range(1, 8):
        await hub.reading(power=power)
    await hub.event("alarm.silence", state=EventState.CLEARED)
    async with reading(hub, token, "type=reading&type=event", first.last_id) as again:
        await until(lambda: len(again.named("reading")) >= 7)
        powers = [one["value"] for data in again.named("reading") for one in data["readings"] if one["measurand"] == "Power.Active.Import"]
        assert powers[:7] == [1, 2, 3, 4, 5, 6, 7]
        assert [data["state"] for data in again.named("event")] == ["cleared"]
        assert again.named("gap") == []


async def test_resume_after_a_restart_of_the_hub(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading") as first:
        await hub.reading(power=1)
        await until(lambda: len(first.named("reading")) == 1)
    await hub.reading(power=2)
    await hub.restart()
    async with reading(hub, token, "type=reading", first.last_id) as again:
        await until(lambda: len(again.named("reading")) >= 1)
        powers = [one["value"] for data in again.named("reading") for one in data["readings"] if one["measurand"] == "Power.Active.Import"]
        assert powers[0] == 2
        assert again.named("gap") == []


def powers_of(reader: Reader) -> list[Any]:
    return [one["value"] for data in reader.named("reading") for one in data["readings"] if one["measurand"] == "Power.Active.Import"]


async def test_ids_say_where_the_store_is_before_anything_of_a_sort_was_heard(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    await hub.restart()  # a process that has heard no event
    async with reading(hub, token, "type=reading") as first:
        await hub.reading(power=1)
        await until(lambda: len(first.named("reading")) == 1)
    assert all(first.last_id.split("/"))
    await hub.event("alarm.silence", state=EventState.RAISED)
    await hub.restart()  # and one that has heard no reading
    async with reading(hub, token, "type=event", first.last_id) as again:
        await until(lambda: "alarm.silence" in {data["kind"] for data in again.named("event")})
        assert again.named("gap") == []
    async with reading(hub, token, "type=event") as second:
        await hub.event("device.clock.set")
        await until(lambda: len(second.named("event")) == 1)
    await hub.reading(power=2)
    await hub.restart()
    async with reading(hub, token, "type=reading", second.last_id) as again:
        await until(lambda: bool(again.named("reading")))
        assert powers_of(again)[0] == 2
        assert again.named("gap") == []


async def test_a_reader_that_is_cut_off_during_a_replay_misses_nothing(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    query = "type=reading&type=event"
    await hub.device()
    async with reading(hub, token, query) as first:
        await hub.reading(power=0)
        await until(lambda: len(first.named("reading")) == 1)
    await hub.event("alarm.silence", state=EventState.RAISED)
    for power in (1, 2, 3):
        await hub.reading(power=power)
    await hub.restart()
    async with reading(hub, token, query, first.last_id) as replayed:
        await until(lambda: len(replayed.named("reading")) >= 3)
    of_event = next(id for id, _, data in replayed.events if data.get("kind") == "alarm.silence")
    of_reading = next(id for id, event, _ in replayed.events if event == "reading")
    for id, expected in ((of_event, [1, 2, 3]), (of_reading, [2, 3])):
        async with reading(hub, token, query, id) as again:
            await until(lambda again=again, expected=expected: len(again.named("reading")) >= len(expected))  # type: ignore[misc]
            assert powers_of(again)[: len(expected)] == expected
            assert again.named("gap") == []
            assert "alarm.silence" not in {data["kind"] for data in again.named("event")}


async def test_a_long_replay_comes_whole_or_with_a_gap(hub: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "REPLAY_PAGE", 3)
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading") as first:
        await hub.reading(power=0)
        await until(lambda: len(first.named("reading")) == 1)
    for power in range(1, 8):
        await hub.reading(power=power)
    await hub.restart()
    async with reading(hub, token, "type=reading", first.last_id) as again:
        await until(lambda: len(again.named("reading")) >= 7)
        assert powers_of(again)[:7] == [1, 2, 3, 4, 5, 6, 7]
        assert again.named("gap") == []
    monkeypatch.setattr(stream_module, "REPLAY_LIMIT", 4)
    async with reading(hub, token, "type=reading", first.last_id) as again:
        await until(lambda: bool(again.named("gap")))
        assert again.named("gap")[0]["reason"] == "too-much"


@pytest.mark.parametrize("sort", ["command", "device"])
async def test_what_is_not_kept_for_resuming_is_told_as_a_gap(hub: Running, sort: str) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading") as first:
        await hub.reading()
        await until(lambda: len(first.named("reading")) == 1)
    await hub.restart()
    async with reading(hub, token, f"type={sort}", first.last_id) as again:
        await until(lambda: bool(again.named("gap")))
        assert again.named("gap")[0]["reason"] == "not-kept"
        assert sort in again.named("gap")[0]["detail"]


@pytest.mark.parametrize("empty", [2, 3])
async def test_an_id_with_an_empty_cursor_gives_a_gap(hub: Running, empty: int) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token) as first:
        await hub.reading()
        await hub.event("device.clock.set")
        await until(lambda: bool(first.named("reading")) and bool(first.named("event")))
    parts = ["-", "0", *first.last_id.split("/")[2:]]
    parts[empty] = ""
    async with reading(hub, token, "type=reading&type=event", "/".join(parts)) as again:
        await until(lambda: bool(again.named("gap")))
        assert again.named("gap")[0]["reason"] == "too-old"


async def test_the_ids_of_current_values_stand_before_what_happened_meanwhile(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if b": gridloom" in message.get("body", b""):  # the greeting: something happens before the current values are sent
            await hub.reading(power=5)
        sent.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.sleep(60)

    scope = {"method": "GET", "headers": [(b"authorization", f"Bearer {token}".encode())], "client": ("127.0.0.1", 1)}
    live, signin = hub.app.state["live"], hub.app.state["signin"]
    query = stream_module.StreamQuery(type=("device",), current=True, seconds=0.1)
    await live.serve(scope, receive, send, query, "", signin, await signin.find(scope))
    current = next(body for body in sent if b"event: device" in body)
    id = current.partition(b"id: ")[2].partition(b"\n")[0].decode()
    async with reading(hub, token, "type=reading", id) as again:
        await until(lambda: powers_of(again) == [5])


@pytest.mark.parametrize("id", ["nonsense", "a/b/c/d", "abc/1/other-5/other-6", "\u00e9", "//", "x" * 900])
async def test_an_id_that_says_nothing_gives_a_gap_and_how_things_are(hub: Running, id: str) -> None:
    await hub.device()
    await hub.reading(power=77)
    async with reading(hub, await hub.token(Role.VIEWER), "type=reading&type=device", id) as reader:
        await until(lambda: len(reader.named("reading")) >= 1)
        assert reader.events[0][1] == "gap"
        assert reader.named("gap")[0]["reason"] == "too-old"
        assert reader.named("gap")[0]["detail"]
        assert [data["id"] for data in reader.named("device")] == [METER]


async def test_current_values_first_when_asked(hub: Running) -> None:
    await hub.device()
    await hub.reading(power=55)
    async with reading(hub, await hub.token(Role.VIEWER), "current=true&type=device&type=reading") as reader:
        await until(lambda: len(reader.named("reading")) >= 1)
        assert [event for _, event, _ in reader.events] == ["device", "reading"]


async def test_heartbeats_and_an_end_by_time(hub: Running) -> None:
    reader = Reader()
    await asyncio.wait_for(reader.run(hub, await hub.token(Role.VIEWER), "seconds=1"), 5)
    assert reader.comments >= 3  # the greeting, and one every 0.3 s in this test
    assert reader.ended.is_set()


async def test_a_revoked_token_ends_its_streams(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    async with reading(hub, token) as reader:
        found = next(one for one in hub.hub.accounts.tokens() if one.account == hub.hub.accounts.account("viewer@example.org").id)
        await hub.hub.accounts.revoke_token(None, found.id)
        await asyncio.wait_for(reader.ended.wait(), 3)


@pytest.mark.parametrize("how", ["revoked", "disabled", "expired"])
async def test_a_silent_stream_ends_soon_after_its_sign_in(make: Make, how: str) -> None:
    hub = await make(heartbeat=60)
    accounts = hub.hub.accounts
    expires = hub.clock.now() + 500_000 if how == "expired" else None
    token, secret = await accounts.create_token(None, account="wall@example.org", role=Role.VIEWER, expires=expires)
    async with reading(hub, secret) as reader:
        if how == "revoked":
            await accounts.revoke_token(None, token.id)
        elif how == "disabled":
            await accounts.update_account(None, token.account, disabled=True)
        await asyncio.wait_for(reader.ended.wait(), 3)


async def test_nothing_is_sent_to_a_token_that_was_revoked(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "LOOK_SECONDS", 60.0)
    hub = await make(heartbeat=60)
    await hub.device()
    token, secret = await hub.hub.accounts.create_token(None, account="wall@example.org", role=Role.VIEWER)
    async with reading(hub, secret, "type=reading") as reader:
        await hub.reading()
        await until(lambda: len(reader.named("reading")) == 1)
        await hub.hub.accounts.revoke_token(None, token.id)
        await hub.reading()
        await asyncio.wait_for(reader.ended.wait(), 3)
        assert len(reader.named("reading")) == 1


def test_a_slow_reader_loses_the_oldest_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "QUEUE_BYTES", 100)

    async def run() -> bytes:
        stream = Stream()
        for number in range(10):
            stream.put(b"%d" % number * 30, 3)
        assert stream.bytes <= 100
        return stream.take()

    taken = asyncio.run(run())
    assert taken.startswith(b"event: gap\ndata: ")
    gap = json.loads(taken.partition(b"data: ")[2].partition(b"\n")[0])
    assert (gap["reason"], gap["dropped"]) == ("slow-reader", 21)
    assert taken.endswith(b"7" * 30 + b"8" * 30 + b"9" * 30)


async def test_a_reader_that_never_reads_slows_nobody(hub: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "QUEUE_BYTES", 200_000)
    token = await hub.token(Role.VIEWER)
    await hub.device()
    _, stuck = await asyncio.open_connection("127.0.0.1", hub.port, limit=1024)
    stuck.write(f"GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n".encode())
    await stuck.drain()
    dropped = hub.hub.metrics.counter("gridloom_http_stream_dropped_messages_total", "Messages not sent because a reader was too slow.")
    async with reading(hub, token, "type=event") as quick:
        await until(lambda: hub.app.state["live"].count() == 2)
        for _ in range(400):
            await hub.event("device.clock.set", message="x" * 30_000)
            if dropped.value():
                break
        assert dropped.value() > 0
        before = len(quick.named("event"))
        await hub.event("device.clock.set", message="last")
        await until(lambda: any(data.get("message") == "last" for data in quick.named("event")))
        assert before > 0
    stuck.transport.abort()
    await until(lambda: hub.app.state["live"].count() == 0)


async def test_one_batch_is_shared_by_all_who_see_the_same(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    await hub.device()
    async with reading(hub, token, "type=reading"), reading(hub, token, "type=reading"), reading(hub, token, "type=event"):
        live = hub.app.state["live"]
        assert live.count() == 3
        assert len(live._groups) == 2
        streams = next(list(group.streams) for group in live._groups.values() if len(group.streams) == 2)
        taken: list[bytes] = []
        for one in streams:
            one.put = lambda batch, messages: taken.append(batch) or 0  # type: ignore[func-returns-value]
        await hub.reading()
        await until(lambda: len(taken) == 2)
        assert taken[0] is taken[1]


@pytest.mark.parametrize(
    ("query", "status", "paths"),
    [
        ("typ=reading", 400, {"$.typ"}),
        ("type=readings&severity=bad&seconds=0&current=yes", 400, {"$.type[0]", "$.severity", "$.seconds", "$.current"}),
        ("device=", 400, {"$.device[0]"}),
    ],
)
async def test_wrong_questions(hub: Running, query: str, status: int, paths: set[str]) -> None:
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        answer = await client.get(f"/api/v1/stream?{query}")
    assert answer.status_code == status
    assert {one["path"] for one in answer.json()["errors"]} == paths


async def test_methods_and_sign_in(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    async with hub.client(token) as client, hub.client() as nobody:
        assert (await nobody.get("/api/v1/stream")).status_code == 401
        wrong = await client.post("/api/v1/stream")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert wrong.headers["content-type"] == "application/problem+json"
        head = await client.head("/api/v1/stream")
        assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert (await client.options("/api/v1/stream")).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_streams_are_counted(make: Make) -> None:
    hub = await make()
    async with reading(hub, await hub.token(Role.VIEWER)), httpx.AsyncClient() as client:
        text = (await client.get(f"{hub.url}/metrics")).text
        assert "gridloom_http_streams 1.0" in text


async def test_every_metric_has_the_prefix_of_the_hub(hub: Running) -> None:
    async with hub.client() as client:
        lines = (await client.get("/metrics")).text.splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if line and not line.startswith("#")}
    assert "gridloom_process_resident_memory_bytes" in names
    assert {name for name in names if not name.startswith("gridloom_")} == set()
