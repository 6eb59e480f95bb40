"""The TIC2WebSocket API as clients meet it: a foreign client library, hostile ones on raw sockets, frames through a real intake and store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.world import until
from tests.integrations.tic.api_world import METER, OTHER, POWER, ApiWorld, Client, api_world
from tests.links.raw import CLOSE, CONTINUATION, PING, TEXT, Raw, frame, handshake
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.core.model import Consent, MeterReading, Reading, Role
from gridloom.core.settings import Address, Origin, SecretFile
from gridloom.core.subjects import Told
from gridloom.integrations.tic import api as face
from gridloom.integrations.tic.api import READS_PER_CLIENT, Tic2WebSocket
from gridloom.integrations.tic.config import Section
from gridloom.integrations.tic.dialects import Dialect
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import PortState, TicGroup

FREE = Address("127.0.0.1:0")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with api_world(tmp_path) as made:
        yield made
        await Raw.close_all()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as the machine allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def serial_of(client: Client) -> str:
    """Of the next event, which must be of data."""
    event = await client.hear()
    assert event["name"] == "OnTICData", event
    return str(event["data"]["ticIdentifier"]["serialNumber"])


# --------------------------------------------------------------------------------------------------------------- subscriptions


async def test_who_did_not_subscribe_hears_nothing(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("GetAvailableTICs") == 0
        await api.feed()
        assert await client.nothing()


async def test_one_event_per_frame_however_often_it_is_subscribed(api: ApiWorld) -> None:
    async with api.client() as client:
        for identifier in ({"serialNumber": METER}, {"portId": "1-1"}, {"portName": "/dev/ttyUSB0"}, {"serialNumber": METER}):
            assert await client.code("SubscribeTIC", identifier) == 0
        assert await client.code("SubscribeTIC") == 0
        await api.feed()
        assert await serial_of(client) == METER
        assert await client.nothing()


async def test_each_subscription_ends_by_its_own_identifier(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC", [{"serialNumber": METER}, {"portName": "/dev/ttyUSB0"}]) == 0
        assert await client.code("UnsubscribeTIC", {"serialNumber": METER}) == 0
        await api.feed()
        assert await serial_of(client) == METER, "the one by portName is left"
        assert await client.code("UnsubscribeTIC", {"portName": "/dev/ttyUSB0", "portId": None}) == 0
        await api.feed()
        assert await client.nothing()


async def test_one_may_leave_while_subscribed_to_all_and_events_go_on(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        assert await client.code("UnsubscribeTIC", {"serialNumber": METER}) == 0
        await api.feed()
        assert await serial_of(client) == METER
        assert await client.code("UnsubscribeTIC", []) == 0, "which changes nothing"
        await api.feed()
        assert await serial_of(client) == METER
        assert await client.code("UnsubscribeTIC") == 0
        await api.feed()
        assert await client.nothing()


async def test_unsubscribing_all_ends_targeted_ones_too(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC", {"portId": "1-1"}) == 0
        assert await client.code("UnsubscribeTIC", None) == 0
        await api.feed()
        assert await client.nothing()


async def test_a_list_with_an_unknown_one_changes_nothing(api: ApiWorld) -> None:
    async with api.client() as client:
        for identifiers in ([{"serialNumber": METER}, {"serialNumber": "999"}], [{"serialNumber": "999"}, {"serialNumber": METER}]):
            assert await client.code("SubscribeTIC", identifiers) == -7
        await api.feed()
        assert await client.nothing()


async def test_subscribed_to_all_hears_what_is_plugged_in_later(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        await api.feed(api.frame(serial="010203040506", port="/dev/ttyUSB7"), "010203040506")
        event = await client.hear()
        assert event["data"]["ticIdentifier"] == {"serialNumber": "010203040506", "portName": "/dev/ttyUSB7", "portId": None}


async def test_a_targeted_subscription_outlives_an_unplug_and_follows_its_meter(api: ApiWorld) -> None:
    async with api.client() as client, api.client() as by_port:
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == 0
        assert await by_port.code("SubscribeTIC", {"portName": "/dev/ttyUSB0"}) == 0
        plugged = api.ports[0]
        api.fail("unplugged")
        api.tell(msgspec.structs.replace(plugged, state="unplugged"))
        for one in (client, by_port):
            event = await one.hear()
            assert (event["name"], event["data"]["errorCode"]) == ("OnError", -6)
            assert event["data"]["ticIdentifier"] == {"serialNumber": METER, "portName": "/dev/ttyUSB0", "portId": "1-1"}
        assert await client.code("SubscribeTIC", {"portName": "/dev/ttyUSB0"}) == -7, "it is not there now"
        assert [one["portName"] for one in (await client.request("GetAvailableTICs"))["data"]] == ["/dev/ttyUSB2", "/dev/ttyAMA0"]
        assert [one["portName"] for one in (await client.request("GetModemsInfo"))["data"]] == ["/dev/ttyUSB2", "/dev/ttyAMA0"]
        api.tell(msgspec.structs.replace(plugged, name="/dev/ttyUSB5", port_id="1-4"))
        await api.feed(api.frame(port="/dev/ttyUSB5"))
        event = await client.hear()
        assert event["data"]["ticIdentifier"] == {"serialNumber": METER, "portName": "/dev/ttyUSB5", "portId": "1-4"}
        assert await by_port.nothing(), "another port"
        api.tell(plugged)
        await api.feed()
        assert await serial_of(by_port) == METER


async def test_a_serial_number_is_known_from_its_first_frame_on(api: ApiWorld) -> None:
    new = "010203040506"
    async with api.client() as client:
        assert await client.code("SubscribeTIC", {"serialNumber": new}) == -7
        assert await client.code("SubscribeTIC", {"portName": "/dev/ttyAMA0"}) == 0
        await api.feed(api.frame(serial=new, port="/dev/ttyAMA0"), new)
        assert await serial_of(client) == new
        assert await client.code("UnsubscribeTIC") == 0
        api.tell(msgspec.structs.replace(api.ports[2], serial=new, state="reading"))
        assert await client.code("SubscribeTIC", {"serialNumber": new}) == 0
        await api.feed(api.frame(serial=new, port="/dev/ttyAMA0"), new)
        assert await serial_of(client) == new


async def test_a_frame_tells_the_serial_number_also_where_the_link_does_not(api: ApiWorld) -> None:
    async with api.client() as client:
        api.tell(api.ports[2])
        api.silence()
        await api.feed(api.frame(port="/dev/ttyAMA0"))
        (found,) = (await client.request("GetAvailableTICs"))["data"]
        assert found == {"serialNumber": METER, "portName": "/dev/ttyAMA0", "portId": None}
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == 0


async def test_a_frame_without_a_good_serial_number_is_the_known_meters(api: ApiWorld) -> None:
    """The link knows whose line it is; a damaged ADSC never makes a phantom meter (FACTS 5)."""
    async with api.client() as client:
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == 0
        damaged = api.frame((TicGroup("ADSC", "021762010299", valid=False), TicGroup("URMS1", "230")))
        await api.feed(msgspec.structs.replace(damaged, serial=None))
        event = await client.hear()
        assert event["data"]["ticIdentifier"]["serialNumber"] == METER
        assert event["data"]["content"] == {"URMS1": "230"}


async def test_subscriptions_of_one_client_are_bounded(api: ApiWorld) -> None:
    async with api.client() as client:
        many = [{"serialNumber": METER, "portName": f"/dev/{number}"} for number in range(1_000)]
        assert await client.code("SubscribeTIC", many) == 0
        answer = await client.request("SubscribeTIC", {"portId": "1-1"})
        assert (answer["errorCode"], "at most 1000" in answer["errorMessage"]) == (-99, True)
        await api.feed()
        assert await serial_of(client) == METER
        assert await client.nothing()


async def test_errors_go_to_the_subscribers_of_the_line(api: ApiWorld) -> None:
    async with api.client() as everything, api.client() as other, api.client("/v2") as v2:
        assert await everything.code("SubscribeTIC") == 0
        assert await other.code("SubscribeTIC", {"serialNumber": OTHER}) == 0
        assert await v2.code("SubscribeTIC") == 0
        api.fail("timeout", "/dev/ttyAMA0", None)
        told = (await everything.hear())["data"]
        assert told == {
            "errorCode": -5,
            "errorMessage": "TIC frame reading timeout",
            "ticIdentifier": {"serialNumber": None, "portName": "/dev/ttyAMA0", "portId": None},
        }
        assert (await v2.hear())["errorCode"] == 7
        api.fail("checksum", frame=api.frame("damaged"))
        assert await everything.nothing(), "the document leaves the group out and tells no error"
        assert await v2.nothing()
        api.fail("timeout", "/dev/ttyUSB2", OTHER)
        assert (await other.hear())["data"]["ticIdentifier"]["portId"] == "1-2"


async def test_v1_is_told_of_a_damaged_frame_either_way(api: ApiWorld) -> None:
    async with api.client("/v1") as client:
        assert await client.code("SubscribeTIC") == 0
        await api.feed(api.frame("damaged"))
        assert (await client.hear())["data"]["errorCode"] == 27
        api.fail("checksum", frame=api.frame("damaged"))
        event = await client.hear()
        assert event["data"]["data"]["partialTICFrame"]["ticFrame"][0]["ADSC"]["data"] == METER
        await api.feed(api.frame("horodate"))
        assert (await client.hear())["name"] == "OnTICData"


# --------------------------------------------------------------------------------------------------------------------- the link


async def test_without_a_link_what_was_heard_is_answered(tmp_path: Path) -> None:
    async with api_world(tmp_path, plugged=False) as api, api.client() as client:
        assert (await client.request("GetAvailableTICs"))["data"] == []
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == -7
        await api.feed()
        assert (await client.request("GetAvailableTICs"))["data"] == [{"serialNumber": METER, "portName": "/dev/ttyUSB0", "portId": "1-1"}]
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == 0
        await api.feed()
        assert await serial_of(client) == METER
        api.plug_in()
        assert len((await client.request("GetAvailableTICs"))["data"]) == 3
        api.silence()
        assert len((await client.request("GetAvailableTICs"))["data"]) == 3


async def test_a_port_that_came_this_moment_is_found(api: ApiWorld) -> None:
    async with api.client() as client:
        api.ports.append(PortState("/dev/ttyUSB3", "1-3", None, None, None, "searching", "", 1))
        assert await client.code("SubscribeTIC", {"portId": "1-3"}) == 0
        asked = api.asked
        assert await client.code("SubscribeTIC", {"portId": "1-1"}) == 0
        assert api.asked == asked, "what is known is not asked for"


async def test_messages_that_came_over_a_wire_are_understood(api: ApiWorld) -> None:
    """Another node's Structs arrive as plain values."""
    async with api.client() as client:
        assert await client.code("SubscribeTIC", {"serialNumber": METER}) == 0
        plain = msgspec.to_builtins(api.frame())
        api.hub.bus.publish(subjects.readings(f"tic:{METER}"), Told("1", MeterReading(f"tic:{METER}", 1, 1, (), native=plain)))
        assert await serial_of(client) == METER
        api.hub.bus.publish(subjects.of("tic", "error", "/dev/ttyUSB0"), {"port": "/dev/ttyUSB0", "serial": METER, "code_kind": "timeout"})
        assert (await client.hear())["data"]["errorCode"] == -5
        api.hub.bus.publish(subjects.of("tic", "port", "/dev/ttyX"), msgspec.to_builtins(api.ports[0]))
        assert await client.code("GetModemsInfo") == 0


async def test_other_readings_are_none_of_our_business(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        now = api.hub.clock.now()
        await api.hub.intake.readings([MeterReading(f"tic:{METER}", now, now, (Reading(POWER, 1),))])
        api.hub.bus.publish(subjects.readings("ekm:1"), Told("1", MeterReading("ekm:1", 1, 1, (), native=api.frame())))
        api.hub.bus.publish(subjects.readings(f"tic:{METER}"), Told("1", MeterReading(f"tic:{METER}", 1, 1, (), native={"type": "other"})))
        assert await client.nothing()


# ------------------------------------------------------------------------------------------------------------------------- reads


async def test_a_waiting_read_keeps_nobody_waiting(api: ApiWorld) -> None:
    async with api.client() as client, api.client() as other:
        for _ in range(3):
            await client.send({"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": METER}})
        await client.send({"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": OTHER}})
        assert await client.code("GetAvailableTICs") == 0, "answered before the reads"
        assert await other.code("GetModemsInfo") == 0
        await api.feed(api.frame(serial=OTHER, port="/dev/ttyUSB2"), OTHER)
        answer = await client.hear()
        assert (answer["name"], answer["data"]["ticIdentifier"]["serialNumber"]) == ("ReadTIC", OTHER)
        assert await client.nothing(), "the other meter's frame is not theirs"
        await api.feed()
        for _ in range(3):
            assert (await client.hear())["data"]["content"] == {"ADSC": "010203040506", "URMS1": "230"}
        await api.feed()
        assert await client.nothing(), "one frame each, and no subscription"
    assert not api.service._reads


async def test_waiting_reads_are_bounded_and_end_with_their_client(api: ApiWorld) -> None:
    async with api.client() as client:
        for _ in range(READS_PER_CLIENT):
            await client.send({"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": METER}})
        answer = await client.request("ReadTIC", {"serialNumber": METER})
        assert (answer["errorCode"], answer["errorMessage"]) == (-99, "at most 16 ReadTIC may wait on one connection")
        assert len(api.service._reads) == READS_PER_CLIENT
    await until(lambda: not api.service._reads)


async def test_a_read_of_v1_waits_for_a_whole_frame(api: ApiWorld) -> None:
    async with api.client("/v1") as client:
        await client.send({"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": METER}})
        await until(lambda: api.service._reads)
        await api.feed(api.frame("damaged"))
        assert await client.nothing()
        await api.feed()
        assert (await client.hear())["data"]["content"] == {"ADSC": "010203040506", "URMS1": "230"}


async def test_a_read_ends_after_ten_seconds_of_the_hubs_clock(tmp_path: Path) -> None:
    async with api_world(tmp_path, clock=Clock(speed=50.0)) as api, api.client() as client:
        began = asyncio.get_running_loop().time()
        assert await client.code("ReadTIC", {"serialNumber": METER}) == -13
        assert 0.19 < asyncio.get_running_loop().time() - began < 0.6


# ------------------------------------------------------------------------------------------------------------------ many and slow


async def test_a_frame_is_encoded_once_per_dialect(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    original = Dialect.encoded

    def counting(self: Dialect, message: dict[str, Any]) -> bytes:
        encoded.append(f"{self.name} {message['name']}")
        return original(self, message)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(api.client(path)) for path in ("/", "/document", "/v1") for _ in range(5)]
        for client in clients:
            assert await client.code("SubscribeTIC") == 0
        monkeypatch.setattr(Dialect, "encoded", counting)
        await api.feed()
        for client in clients:
            assert (await client.hear())["name"] == "OnTICData"
        assert sorted(encoded) == ["document OnTICData", "v1 OnTICData"]
        assert api.world.metrics.counter("gridloom_tic_events_sent_total", "").value() == 15
        gauge = api.world.metrics.gauge("gridloom_tic_clients", "", ("dialect",))
        assert {value.labels[0][1]: value.value for value in gauge.values()} == {"document": 10, "v1": 5, "v2": 0}


async def test_nobody_listening_costs_no_encoding(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> bytes:
        raise AssertionError("nobody wanted this")

    async with api.client() as client:
        await client.request("GetModemsInfo")
        monkeypatch.setattr(Dialect, "encoded", never)
        await api.feed()
        await asyncio.sleep(0.05)
    assert not api.service._jobs


async def test_a_slow_client_gets_the_newest_frame_and_what_it_missed_is_counted(api: ApiWorld) -> None:
    slow, fast = await Raw.open(api.where), await Raw.open(api.where)
    for raw in (slow, fast):
        raw.text('{"type": "REQUEST", "name": "SubscribeTIC"}')
        await raw.frame()
    line: Any = slow.writer.transport
    line.pause_reading()
    left_out = api.world.metrics.counter("gridloom_tic_events_left_out_total", "")
    padding = "x" * 60_000
    number = 0
    while left_out.value() < 5:
        number += 1
        await api.feed(api.frame((TicGroup("NUMBER", str(number)), TicGroup("PADDING", padding))))
        assert json.loads((await fast.frame()).payload)["data"]["content"]["NUMBER"] == str(number)
        assert number < 500, "the system holds megabytes for a client that does not read"
    api.fail("timeout")
    await fast.frame()
    line.resume_reading()
    seen = []
    while True:
        event = json.loads((await slow.frame()).payload)
        if event["name"] == "OnError":
            break
        seen.append(int(event["data"]["content"]["NUMBER"]))
    assert seen == sorted(seen)
    assert seen[-1] == number, "the newest"
    assert seen[:-1] == list(range(1, len(seen))), "older ones were under way already"
    assert number - len(seen) == left_out.value()
    await api.feed()
    assert json.loads((await slow.frame()).payload)["data"]["content"]["URMS1"] == "230", "and goes on as before"


async def test_a_client_that_never_reads_is_cut_off_after_a_while(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "PING_SECONDS", 0.2)
    await api.service.stop()
    where = (await api.service.start())["tic"]
    stuck = await Raw.open(where)
    stuck.text('{"type": "REQUEST", "name": "SubscribeTIC"}')
    await stuck.frame()
    line: Any = stuck.writer.transport
    line.pause_reading()

    async def feed() -> None:
        while api.service._clients:
            await api.feed(api.frame((TicGroup("PADDING", "x" * 60_000),)))
            await asyncio.sleep(0.002)

    await asyncio.wait_for(feed(), 20)


async def test_who_floods_without_reading_is_not_read_either(api: ApiWorld) -> None:
    raw = await Raw.open(api.where)
    line: Any = raw.writer.transport
    line.pause_reading()
    request = frame(TEXT, b'{"type": "REQUEST", "name": "GetModemsInfo"}')
    for _ in range(100):
        raw.send(request * 500)
        await asyncio.sleep(0.001)
    (client,) = api.service._clients.values()
    assert client.connection.buffered < 200_000
    async with api.client() as other:
        assert await other.code("GetAvailableTICs") == 0


async def test_a_thousand_subscribers_of_which_some_never_read(api: ApiWorld, descriptors: None) -> None:
    """The others get every frame; the stuck ones cost bounded memory and no time."""
    subscribe = frame(TEXT, b'{"type": "REQUEST", "name": "SubscribeTIC"}')

    async def join(number: int) -> Raw:
        raw = await Raw.open(api.where, ("/", "/v1", "/v2")[number % 3])
        raw.send(subscribe)
        assert json.loads((await raw.frame(20)).payload)["errorCode"] == 0
        if number % 20 == 0:
            line: Any = raw.writer.transport
            line.pause_reading()
        return raw

    everybody: list[Raw] = []
    for begin in range(0, 1_000, 100):
        everybody += await asyncio.gather(*[join(number) for number in range(begin, begin + 100)])
    readers = [raw for number, raw in enumerate(everybody) if number % 20]
    assert len(api.service._clients) == 1_000
    loop = asyncio.get_running_loop()
    for number in range(20):
        await api.feed(api.frame((TicGroup("NUMBER", str(number)), TicGroup("PADDING", "x" * 1_000))))
        began = loop.time()
        for raw in readers:
            event = json.loads((await raw.frame(20)).payload)
            groups = event["data"]["content"] if "data" in event else event["frame"]
            assert groups["NUMBER"] == str(number)
        assert loop.time() - began < 2
    assert len(api.service._clients) == 1_000
    assert max(client.connection.buffered for client in api.service._clients.values()) < 70_000


async def test_reconnect_storms_leave_nothing_behind(api: ApiWorld, descriptors: None) -> None:
    async def visit(number: int) -> None:
        raw = await Raw.open(api.where)
        raw.text('{"type": "REQUEST", "name": "SubscribeTIC"}')
        await raw.frame(20)
        if number % 3 == 0:
            raw.text('{"type": "REQUEST", "name": "ReadTIC", "data": {"portId": "1-1"}}')
        if number % 2:
            raw.send(frame(CLOSE, struct.pack("!H", 1_000)))
        else:
            raw.hang_up()

    async def feed() -> None:
        while True:
            await api.feed()
            await asyncio.sleep(0.01)

    feeding = asyncio.ensure_future(feed())
    for _ in range(3):
        await asyncio.gather(*[visit(number) for number in range(300)])
        await until(lambda: not api.service._clients, 20)
    feeding.cancel()
    assert not api.service._reads
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        await api.feed()
        assert await serial_of(client) == METER


# ---------------------------------------------------------------------------------------------------------------------- hostile


async def test_a_message_may_be_64_kib_and_fragmented_but_no_more(api: ApiWorld) -> None:
    request = '{"type": "REQUEST", "name": "GetModemsInfo", "more": "%s"}'
    filled = request % ("x" * (65_536 - len(request) + 2))
    async with api.client() as client:
        assert (await client.ask(filled))["errorCode"] == 0
        await client.connection.send([filled[:10], filled[10:40_000], filled[40_000:]])
        assert (await client.hear())["errorCode"] == 0
        await client.send(filled + " ")
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    raw = await Raw.open(api.where)
    raw.send(frame(TEXT, b"x" * 40_000, fin=False), frame(CONTINUATION, b"x" * 40_000))
    assert (await raw.frame()).code == 1009


async def test_compression_is_not_agreed(api: ApiWorld) -> None:
    raw = await Raw.connect(api.where)
    answer = await raw.ask(handshake("/", "Sec-WebSocket-Extensions: permessage-deflate"))
    assert answer.status == 101
    assert "sec-websocket-extensions" not in answer.headers


async def test_pings_are_answered(api: ApiWorld) -> None:
    raw = await Raw.open(api.where)
    raw.send(frame(PING, b"there?"))
    assert await raw.frame() == (0x8A, b"there?")


def test_nothing_a_client_says_ends_anything(tmp_path: Path) -> None:
    """Fuzzed JSON in every dialect: each message has exactly one answer, with a known code, and the connection goes on."""
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
    names = st.sampled_from(["GetAvailableTICs", "GetModemsInfo", "SubscribeTIC", "UnsubscribeTIC"]) | values
    identifiers = st.dictionaries(
        st.sampled_from(["serialNumber", "portId", "portName", "other"]), st.sampled_from([METER, "1-1"]) | values, max_size=3
    )
    requests = st.fixed_dictionaries(
        {}, optional={"type": st.just("REQUEST") | values, "name": names, "data": identifiers | st.lists(identifiers, max_size=3) | values}
    )
    messages = st.one_of(requests.map(json.dumps), values.map(json.dumps), st.text(max_size=40), requests.map(lambda one: json.dumps(one)[:-1]))
    loop = asyncio.new_event_loop()
    stack = contextlib.AsyncExitStack()

    async def prepare() -> tuple[ApiWorld, list[Client]]:
        api = await stack.enter_async_context(api_world(tmp_path))
        return api, [await stack.enter_async_context(api.client(path)) for path in ("/document", "/v1", "/v2")]

    api, clients = loop.run_until_complete(prepare())

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages)
    def fuzz(message: str) -> None:
        for client in clients:
            answer = loop.run_until_complete(client.ask(message))
            assert answer["type"] == "RESPONSE"
            assert answer["errorCode"] in (0, -1, -2, -3, -4, -5, -6, -7, -10), answer
            assert "internal" not in answer.get("errorMessage", "")

    try:
        fuzz()
        for client in clients:
            assert loop.run_until_complete(client.code("GetAvailableTICs")) == 0
        assert api.service._clients
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()


async def test_random_frames_do_not_disturb_others(api: ApiWorld) -> None:
    dice = random.Random(4)
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        for _ in range(100):
            raw = await Raw.open(api.where)
            raw.send(dice.randbytes(dice.randrange(300)))
        await api.feed()
        assert await serial_of(client) == METER
    await Raw.close_all()
    await until(lambda: not api.service._clients)


async def test_our_own_failure_is_answered_logged_and_survived(
    api: ApiWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("inner detail")

    async with api.client() as client, api.client("/v2") as v2:
        assert await client.code("SubscribeTIC") == 0
        monkeypatch.setattr(Dialect, "modems", broken)
        for one, code in ((client, -99), (v2, -7)):
            answer = await one.request("GetModemsInfo")
            assert (answer["errorCode"], answer["errorMessage"]) == (code, "internal error")
        monkeypatch.setattr(Dialect, "data_event", broken)
        await api.feed()
        assert await client.nothing()
        monkeypatch.undo()
        await api.feed()
        assert await serial_of(client) == METER, "one frame that could not be told does not end the telling"
    assert caplog.text.count("inner detail") >= 3


# -------------------------------------------------------------------------------------------------------------------- admission


@pytest.mark.parametrize(
    ("path", "status"), [("/", 101), ("/document", 101), ("/v1", 101), ("/v2", 101), ("/v3", 404), ("//", 404), ("/V1", 404), ("/foo", 404),
                         ("/%2F", 404), ("/v1/", 404), ("/?token=x", 400), ("/v1?", 101), ("/foo?x", 404)],
)  # fmt: skip
async def test_paths(path: str, status: int, api: ApiWorld) -> None:
    raw = await Raw.connect(api.where)
    answer = await raw.ask(handshake(path))
    assert answer.status == status
    if status == 404:
        assert "/, /document, /v1, /v2" in await raw.body(answer)


async def test_plain_http_is_told_what_this_is(api: ApiWorld) -> None:
    for path, status in (("/", 426), ("/foo", 404)):
        raw = await Raw.connect(api.where)
        answer = await raw.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answer.status == status
        assert ("WebSocket client" if status == 426 else "the paths are") in await raw.body(answer)
        assert await raw.ended()


async def test_the_configured_dialect_is_that_of_the_root(tmp_path: Path) -> None:
    async with api_world(tmp_path, Section(listen=FREE, dialect="v2")) as api, api.client() as root, api.client("/document") as document:
        assert "datetime" in await root.request("GetModemsInfo")
        assert "dateTime" in await document.request("GetModemsInfo")


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        ("", "127.0.0.1:19584", True),
        ("http://127.0.0.1:8470", "127.0.0.1:19584", True),
        ("http://localhost:8470", "127.0.0.1:19584", True),
        ("http://[::1]:8470", "127.0.0.1:19584", True),
        ("http://hub.example:8470", "hub.example:19584", False),
        ("http://192.168.1.5:8470", "192.168.1.5:19584", True),
        ("http://192.168.1.5:8470", "192.168.1.6:19584", False),
        ("http://192.168.1.5:80", "192.168.1.5:19584", False),
        ("http://127.0.0.1:8471", "127.0.0.1:19584", False),
        ("http://127.0.0.1", "127.0.0.1:19584", False),
        ("http://evil.example", "127.0.0.1:19584", False),
        ("http://evil.example:8470", "evil.example:19584", False),
        ("http://localhost.evil.example:8470", "127.0.0.1:19584", False),
        ("null", "127.0.0.1:19584", False),
        ("file://", "127.0.0.1:19584", False),
        ("chrome-extension://abc:8470", "127.0.0.1:19584", False),
        ("http://127.0.0.1:notaport", "127.0.0.1:19584", False),
        ("http://[::1", "127.0.0.1:19584", False),
        ("https://grafana.example", "127.0.0.1:19584", True),
        ("https://Grafana.Example", "127.0.0.1:19584", True),
        ("https://grafana.example:444", "127.0.0.1:19584", False),
    ],
)
async def test_only_pages_of_the_hub_and_of_configured_origins_may_connect(origin: str, host: str, welcome: bool, tmp_path: Path) -> None:
    section = Section(listen=FREE, origins=(Origin("https://grafana.example"),))
    async with api_world(tmp_path, section, http=lambda: "http://127.0.0.1:8470") as api:
        raw = await Raw.connect(api.where)
        answer = await raw.ask(handshake("/", *([f"Origin: {origin}"] if origin else []), host=host))
        assert answer.status == (101 if welcome else 403)
        refused = api.world.metrics.counter("gridloom_tic_clients_refused_total", "", ("reason",))
        assert refused.value(reason="origin") == (0 if welcome else 1)
        await Raw.close_all()


async def test_the_hubs_own_name_is_welcome_and_loopback_pages_only_on_this_machine(tmp_path: Path) -> None:
    async with api_world(tmp_path, http=lambda: "https://hub.example") as api:
        for origin, status in (
            ("https://hub.example", 101),
            ("https://hub.example:443", 101),
            ("http://hub.example", 403),
            ("https://localhost", 101),
        ):
            raw = await Raw.connect(api.where)
            assert (await raw.ask(handshake("/", f"Origin: {origin}"))).status == status, origin
        await Raw.close_all()


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[ApiWorld]:
    """With a token of its own."""
    file = tmp_path / "tic.token"
    file.write_text("a-token-of-the-section\n")
    file.chmod(0o600)
    async with api_world(tmp_path, Section(listen=FREE, token_file=SecretFile(str(file)))) as made:
        yield made
        await Raw.close_all()


async def test_the_token_of_the_section(guarded: ApiWorld) -> None:
    token = "a-token-of-the-section"
    for lines, status, protocol in (
        ((), 401, None),
        (("Authorization: Bearer wrong",), 401, None),
        (("Authorization: Basic " + token,), 401, None),
        (("Authorization: Bearer",), 401, None),
        (("Authorization: Bearer " + token[:-1],), 401, None),
        ((f"Authorization: Bearer {token}",), 101, None),
        ((f"authorization: bearer  {token}",), 101, None),
        ((f"Sec-WebSocket-Protocol: bearer.{token}",), 101, f"bearer.{token}"),
        ((f"Sec-WebSocket-Protocol: bearer.{token}, tic",), 101, "tic"),
        ((f"Sec-WebSocket-Protocol: tic, bearer.{token}",), 101, "tic"),
        (("Sec-WebSocket-Protocol: tic, bearer.wrong",), 401, None),
    ):
        raw = await Raw.connect(guarded.where)
        answer = await raw.ask(handshake("/", *lines))
        assert answer.status == status, lines
        assert answer.headers.get("sec-websocket-protocol") == protocol
        if status == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
            assert token not in await raw.body(answer)
    assert guarded.world.metrics.counter("gridloom_tic_clients_refused_total", "", ("reason",)).value(reason="token") == 6


async def test_a_protocol_without_a_token_is_not_chosen(api: ApiWorld) -> None:
    """The peer knows no subprotocol."""
    raw = await Raw.connect(api.where)
    answer = await raw.ask(handshake("/", "Sec-WebSocket-Protocol: tic"))
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers


async def test_tokens_of_the_hub_let_in_and_show_what_they_may_see(guarded: ApiWorld) -> None:
    accounts = guarded.world.accounts
    await accounts.create_account(guarded.world.admin, "neighbour@example.org", role=Role.OWNER)
    account = accounts.account("neighbour@example.org").id
    await accounts.grant(guarded.world.admin, account, f"device:tic:{OTHER}", Role.OWNER)
    _, viewer = await accounts.create_token(guarded.world.admin, account="admin", role=Role.VIEWER)
    _, neighbour = await accounts.create_token(guarded.world.admin, account=account, role=Role.OWNER)
    async with (
        guarded.client(additional_headers={"Authorization": f"Bearer {viewer}"}) as all_of_it,
        guarded.client(additional_headers={"Authorization": f"Bearer {neighbour}"}) as one,
    ):
        assert [stream["portName"] for stream in (await all_of_it.request("GetAvailableTICs"))["data"]][:2] == ["/dev/ttyUSB0", "/dev/ttyUSB2"]
        assert [stream["portName"] for stream in (await one.request("GetAvailableTICs"))["data"]] == ["/dev/ttyUSB2", "/dev/ttyAMA0"]
        assert [modem["portName"] for modem in (await one.request("GetModemsInfo"))["data"]] == ["/dev/ttyUSB2", "/dev/ttyAMA0"]
        assert await one.code("SubscribeTIC", {"serialNumber": METER}) == -7
        for client in (all_of_it, one):
            assert await client.code("SubscribeTIC") == 0
        await guarded.feed()
        assert await serial_of(all_of_it) == METER
        assert await one.nothing()
        await guarded.feed(guarded.frame(serial=OTHER, port="/dev/ttyUSB2"), OTHER)
        assert await serial_of(one) == OTHER


async def test_a_revoked_token_ends_the_connection(tmp_path: Path) -> None:
    async with api_world(tmp_path, clock=Clock(speed=200.0)) as api:
        token, secret = await api.world.accounts.create_token(api.world.admin, account="admin", role=Role.VIEWER)
        async with api.client(additional_headers={"Authorization": f"Bearer {secret}"}) as client, api.client() as other:
            await asyncio.sleep(0.4)
            assert await client.code("GetModemsInfo") == 0
            await api.world.accounts.revoke_token(api.world.admin, token.id)
            with pytest.raises(ConnectionClosed) as closed:
                await client.hear()
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the token is not valid any more")
            assert await other.code("GetModemsInfo") == 0


async def test_who_listens_beyond_this_machine_asks_for_a_token(tmp_path: Path) -> None:
    async with api_world(tmp_path, Section(listen=Address("0.0.0.0:0"))) as api:
        where = api.where.replace("0.0.0.0", "127.0.0.1")
        raw = await Raw.connect(where)
        assert (await raw.ask(handshake())).status == 401
        _, secret = await api.world.accounts.create_token(api.world.admin, account="admin", role=Role.VIEWER)
        raw = await Raw.connect(where)
        assert (await raw.ask(handshake("/", f"Authorization: Bearer {secret}"))).status == 101
        await Raw.close_all()


async def test_readings_of_whoever_refused_consent_are_for_an_admin_only(api: ApiWorld) -> None:
    _, admin = await api.world.accounts.create_token(api.world.admin, account="admin", role=Role.ADMIN)
    _, viewer = await api.world.accounts.create_token(api.world.admin, account="admin", role=Role.VIEWER)
    async with (
        api.client() as anonymous,
        api.client(additional_headers={"Authorization": f"Bearer {viewer}"}) as sees,
        api.client(additional_headers={"Authorization": f"Bearer {admin}"}) as runs,
    ):
        for client in (anonymous, sees, runs):
            assert await client.code("SubscribeTIC") == 0
        await api.hub.registry.update(f"tic:{METER}", api.world.admin, consent=Consent.REFUSED)
        await anonymous.send({"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": METER}})
        await until(lambda: api.service._reads)
        await api.feed()
        assert await serial_of(runs) == METER
        assert await anonymous.nothing()
        assert await sees.nothing()
        await api.hub.registry.update(f"tic:{METER}", api.world.admin, consent=Consent.CONSENT)
        await api.feed()
        assert {(await anonymous.hear())["name"], (await anonymous.hear())["name"]} == {"ReadTIC", "OnTICData"}
        assert await serial_of(sees) == METER


async def test_no_secret_is_ever_written_down(guarded: ApiWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = "a-token-of-the-section"
    with pytest.raises(InvalidStatus):
        async with guarded.client(additional_headers={"Authorization": "Bearer my-own-secret"}):
            raise AssertionError("let in")
    async with guarded.client(additional_headers={"Authorization": f"Bearer {token}"}) as client:
        assert await client.code("GetModemsInfo") == 0
    told = [record for record in caplog.records if record.name.startswith("gridloom")]
    assert not [record for record in told if token in str(vars(record)) or "my-own-secret" in str(vars(record))]
    assert token not in repr(vars(guarded.service)["_section"])


# ---------------------------------------------------------------------------------------------------------------------- service


async def test_it_starts_again_after_a_stop_and_tells_clients_why(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        assert api.service.health().ok
        await api.service.stop()
        assert not api.service.health().ok
        with pytest.raises(ConnectionClosed) as closed:
            await client.hear()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    await api.service.stop()
    await api.feed()
    api.where = (await api.service.start())["tic"]
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        await api.feed()
        assert await serial_of(client) == METER
        assert await client.nothing(), "the bus is heard once"


async def test_a_busy_port_names_the_key(api: ApiWorld) -> None:
    second = Tic2WebSocket(Section(listen=Address(api.where)), api.hub)
    with pytest.raises(ConfigurationError, match=r"\[tic\] listen = '127\.0\.0\.1:\d+': cannot listen: another program listens there already"):
        await second.start()


async def test_what_ends_the_fan_out_is_told_to_the_supervisor(api: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("of ours")

    waiting = asyncio.ensure_future(api.service.wait())
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        assert not waiting.done()
        monkeypatch.setattr(Tic2WebSocket, "_audience", broken)
        await api.feed()
        with pytest.raises(RuntimeError, match="of ours"):
            await asyncio.wait_for(waiting, 2)


async def test_the_mode_of_a_meter_that_changed_is_told(api: ApiWorld) -> None:
    async with api.client() as client:
        assert await client.code("SubscribeTIC") == 0
        await api.feed(msgspec.structs.replace(api.frame((TicGroup("ADCO", METER),)), mode=Mode.HISTORIC, partial=True))
        data = (await client.hear())["data"]
        assert (data["mode"], data["content"]) == ("HISTORIC", {"ADCO": METER})
