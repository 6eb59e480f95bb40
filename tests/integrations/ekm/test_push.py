"""The push port: streams by curl and raw sockets, WebSockets by a foreign client, events, polls, replay, slow subscribers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import websockets
from tests.integrations.ekm.front import METER, RELAY, Front, front, section, subscribed

from gridloom.core.model import Command
from gridloom.integrations.ekm import push
from gridloom.integrations.ekm.push import Push

TEXT = b'{"msg_id":"2"}'


class Port:
    """The push port alone, with one channel."""

    def __init__(self, made: Push, hub: Front) -> None:
        self.push = made
        self.hub = hub
        self.channel = hub.face.keys.ids.of("anna/1")
        self.other = hub.face.keys.ids.of("anna/1", "other")
        self.writers: list[asyncio.StreamWriter] = []

    def tell(self, text: bytes = TEXT, channel: str = "") -> None:
        self.push.publish(channel or self.channel, text)

    async def ask(self, path: str, *headers: str) -> tuple[str, dict[str, str], asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw GET: status line and headers; the rest is to be read."""
        host, _, port = self.push.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self.writers.append(writer)
        writer.write("\r\n".join((f"GET {path} HTTP/1.1", "Host: x", *headers, "", "")).encode())
        lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
        return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:] if line), reader, writer

    async def close(self) -> None:
        """All lines and the port."""
        for writer in self.writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await self.hub.close()

    async def joined(self, count: int) -> None:
        """So many listen."""
        for _ in range(1_000):
            if self.push.subscribers == count:
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"{self.push.subscribers} listen, not {count}")


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    hub = await Front(tmp_path, section()).open()
    assert hub.face.push is not None
    made = Port(hub.face.push, hub)
    try:
        yield made
    finally:
        await made.close()


async def chunk(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a body."""
    size = int(await asyncio.wait_for(reader.readline(), 5), 16)
    data = await reader.readexactly(size + 2)
    return data[:-2]


# -------------------------------------------------------------------------------------------------------------- streams


async def test_a_stream_is_endless_chunked_and_without_separators(port: Port) -> None:
    port.tell(b'{"msg_id":"1"}')
    status, headers, reader, writer = await port.ask(f"/sub/{port.channel}")
    assert status == "HTTP/1.1 200 OK"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["content-type"] == "application/json"
    assert headers["expires"] == "thu, 01 jan 1970 00:00:01 gmt"
    assert headers["cache-control"] == "no-cache, no-store, must-revalidate"
    assert "content-length" not in headers
    await port.joined(1)
    port.tell(b'{"msg_id":"2"}')
    port.tell(b'{"msg_id":"3"}')
    raw = await asyncio.wait_for(reader.readexactly(2 * (3 + 14 + 2)), 5)
    assert raw == b'e\r\n{"msg_id":"2"}\r\ne\r\n{"msg_id":"3"}\r\n', "only what is published after connecting"
    writer.close()
    await port.joined(0)


async def test_backtrack_gives_the_last_stored_and_goes_on(port: Port) -> None:
    for number in range(25):
        port.tell(b'{"n":%d}' % number)
    _, _, reader, writer = await port.ask(f"/sub/{port.channel}.b20")
    await port.joined(1)
    port.tell(b'{"n":25}')
    assert [await chunk(reader) for _ in range(21)] == [b'{"n":%d}' % number for number in range(5, 26)], "20 are stored"
    writer.close()
    _, _, reader, writer = await port.ask(f"/sub/{port.channel}.b2")
    assert [await chunk(reader) for _ in range(2)] == [b'{"n":24}', b'{"n":25}']
    writer.close()


async def test_several_channels_in_one_url(port: Port) -> None:
    port.tell(b"a1")
    port.tell(b"b1", port.other)
    port.tell(b"a2")
    _, _, reader, writer = await port.ask(f"/sub/{port.channel}.b1/{port.other}.b5")
    assert [await chunk(reader), await chunk(reader)] == [b"b1", b"a2"]
    await port.joined(2)
    port.tell(b"b2", port.other)
    assert await chunk(reader) == b"b2"
    writer.close()
    await port.joined(0)


async def test_curl_as_in_the_document(port: Port) -> None:
    port.tell(b'{"msg_id":"1"}')
    process = await asyncio.create_subprocess_exec(
        "curl", "--no-buffer", "-s", "-v", f"http://{port.push.address}/sub/{port.channel}.b20",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readexactly(14), 10) == b'{"msg_id":"1"}'
        port.tell(b'{"msg_id":"2"}')
        assert await asyncio.wait_for(process.stdout.readexactly(14), 10) == b'{"msg_id":"2"}'
    finally:
        process.kill()
    error = (await process.communicate())[1].decode()
    assert "< HTTP/1.1 200 OK" in error
    assert "< Transfer-Encoding: chunked" in error


async def test_a_stream_since_a_place(port: Port) -> None:
    port.tell(b"1")
    _, headers, reader, writer = await port.ask(f"/sub/{port.channel}", "X-Nginx-PushStream-Mode: polling")
    assert await reader.read() == b"1"
    writer.close()
    port.tell(b"2")
    since = (f"If-Modified-Since: {headers['last-modified']}", f"If-None-Match: {headers['etag'].upper()}")
    _, _, reader, writer = await port.ask(f"/sub/{port.channel}", *since)
    assert await chunk(reader) == b"2", "what is newer than the place, and no more"
    writer.close()


# ---------------------------------------------------------------------------------------------------------------- polls


async def test_polling_answers_once(port: Port) -> None:
    ask = (f"/sub/{port.channel}", "X-Nginx-PushStream-Mode: polling")
    status, headers, reader, writer = await port.ask(*ask)
    assert status == "HTTP/1.1 304 Not Modified"
    port.tell(b"1")
    port.tell(b"2")
    status, headers, reader, writer = await port.ask(*ask)
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-length"] == "2"
    assert headers["etag"].startswith("w/")
    assert await reader.read() == b"12"
    place = (f"If-Modified-Since: {headers['last-modified']}", f"If-None-Match: {headers['etag']}")
    status, same, _, writer = await port.ask(*ask, *place)
    assert status == "HTTP/1.1 304 Not Modified"
    assert (same["last-modified"], same["etag"]) == (headers["last-modified"], headers["etag"])
    writer.close()


async def test_a_long_poll_waits_for_the_first_message(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    port.tell(b"old")
    _, headers, _, _ = await port.ask(f"/sub/{port.channel}", "X-Nginx-PushStream-Mode: long-polling")
    place = (f"If-Modified-Since: {headers['last-modified']}", f"If-None-Match: {headers['etag']}", "X-Nginx-PushStream-Mode: long-polling")
    asking = asyncio.create_task(port.ask(f"/sub/{port.channel}", *place))
    await port.joined(1)
    assert not asking.done()
    port.tell(b"new")
    status, headers, reader, _ = await asking
    assert (status, await reader.read()) == ("HTTP/1.1 200 OK", b"new")
    await port.joined(0)
    monkeypatch.setattr(push, "POLL_SECONDS", 0.05)
    place = (f"If-Modified-Since: {headers['last-modified']}", f"If-None-Match: {headers['etag']}", "X-Nginx-PushStream-Mode: long-polling")
    status, _, _, _ = await port.ask(f"/sub/{port.channel}", *place)
    assert status == "HTTP/1.1 304 Not Modified"
    await port.joined(0)


# --------------------------------------------------------------------------------------------------------------- events


@pytest.mark.parametrize("how", ["/ev/", "Accept: text/event-stream"])
async def test_server_sent_events(port: Port, how: str) -> None:
    port.tell(b"1")
    path, headers = (f"/ev/{port.channel}.b1", ()) if how == "/ev/" else (f"/sub/{port.channel}.b1", (how,))
    _, answer, reader, writer = await port.ask(path, *headers)
    assert answer["content-type"].startswith("text/event-stream")
    assert await chunk(reader) == b": \n\n"
    first = (await chunk(reader)).decode()
    assert first.endswith("\ndata: 1\n\n")
    place = first.splitlines()[0].removeprefix("id: ")
    port.tell(b"two\nlines")
    assert (await chunk(reader)).endswith(b"\ndata: two\ndata: lines\n\n")
    writer.close()
    _, _, reader, writer = await port.ask(f"/ev/{port.channel}", f"Last-Event-ID: {place}")
    await chunk(reader)
    assert (await chunk(reader)).endswith(b"\ndata: two\ndata: lines\n\n"), "a browser that comes back misses nothing"
    writer.close()


# ----------------------------------------------------------------------------------------------------------- websockets


async def test_a_foreign_websocket_client(port: Port) -> None:
    port.tell(b"1")
    async with websockets.connect(f"ws://{port.push.address}/ws/{port.channel}.b20") as socket:
        assert await socket.recv() == "1", "text frames"
        await socket.send("what I say is not heard")
        port.tell(b"2")
        assert await asyncio.wait_for(socket.recv(), 5) == "2"
        await (await socket.ping())
    await port.joined(0)


async def test_a_plain_get_on_ws_is_told_what_is_there(port: Port) -> None:
    status, *_ = await port.ask(f"/ws/{port.channel}")
    assert status == "HTTP/1.1 426 Upgrade Required"


# ------------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404), ("/pub/x", 404), ("/subs/x", 404), ("sub/x", 404), ("/sub", 400), ("/sub/", 400), ("/sub/a b", 400), ("/sub/x.c3", 400),
        ("/sub/response_unknown", 403), ("/ws/response_unknown.b3", 403), ("/gateway", 401),
    ],
)  # fmt: skip
async def test_what_is_not_there(port: Port, path: str, status: int) -> None:
    line, _, reader, _ = await port.ask(path)
    assert line.split(" ")[1] == str(status)
    assert await reader.read()
    assert port.push.subscribers == 0


async def test_one_can_only_get(port: Port) -> None:
    reader, writer = await asyncio.open_connection(*port.push.address.split(":"))
    port.writers.append(writer)
    writer.write(f"POST /sub/{port.channel} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
    writer.close()


async def test_strangers_make_no_channels(port: Port) -> None:
    for number in range(50):
        await port.ask(f"/sub/response_{'A' * 40}{number:03}")
    assert (len(port.push.channels), port.push.subscribers) == (0, 0)


# ------------------------------------------------------------------------------------------------------- many, and slow


async def test_who_does_not_read_is_cut_off_and_keeps_nobody_waiting(port: Port) -> None:
    block = b"x" * 60_000
    _, _, slow, slow_writer = await port.ask(f"/sub/{port.channel}")
    slow._transport.pause_reading()  # type: ignore[attr-defined]
    url = f"ws://{port.push.address}/ws/{port.channel}"
    async with websockets.connect(url, max_size=None) as socket, websockets.connect(url) as slow_socket:
        slow_socket.transport.pause_reading()
        await port.joined(3)
        for number in range(300):
            port.tell(block)
            assert len(await asyncio.wait_for(socket.recv(), 5)) == 60_000, number
        await port.joined(1)
        assert port.push.slow == 2
        slow_socket.transport.abort()
    slow_writer.close()


async def test_a_message_reaches_all_of_many(port: Port) -> None:
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(websockets.connect(f"ws://{port.push.address}/ws/{port.channel}")) for _ in range(100)]
        streams = [await port.ask(f"/sub/{port.channel}") for _ in range(100)]
        await port.joined(200)
        for number in range(10):
            port.tell(b"%d" % number)
        for socket in sockets:
            assert [await asyncio.wait_for(socket.recv(), 5) for _ in range(10)] == [str(number) for number in range(10)]
        for _, _, reader, writer in streams:
            assert [await chunk(reader) for _ in range(10)] == [b"%d" % number for number in range(10)]
            writer.close()
    await port.joined(0)


async def test_who_joins_while_others_are_told_hears_only_what_comes_then(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "SLICE", 1)  # a turn of the event loop for each subscriber
    before = [await port.ask(f"/sub/{port.channel}") for _ in range(100)]
    await port.joined(100)
    joining = []
    for number in range(10):
        port.tell(b"%d" % number)
        joining.append((number, asyncio.create_task(port.ask(f"/sub/{port.channel}.b{number % 2 * 20}"))))
        await asyncio.sleep(0)
    joined = [(number, await task) for number, task in joining]
    await port.joined(110)
    port.tell(b"end")
    for _, _, reader, _ in before:
        assert [await chunk(reader) for _ in range(11)] == [b"%d" % number for number in range(10)] + [b"end"], "all, once, in order"
    for number, (_, _, reader, _) in joined:
        heard: list[bytes] = []
        while not heard or heard[-1] != b"end":
            heard.append(await chunk(reader))
        told = [int(one) for one in heard[:-1]]
        assert told == list(range(10 - len(told), 10)), "no gap, nothing twice"
        assert number % 2 == 0 or len(told) == 10, "with .b20 all that was stored comes first"


async def test_a_silent_stream_is_told_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "PING_SECONDS", 0.1)
    hub = await Front(tmp_path, section()).open()
    assert hub.face.push is not None
    port = Port(hub.face.push, hub)
    try:
        _, _, reader, writer = await port.ask(f"/sub/{port.channel}")
        assert await chunk(reader) == b"\n", "white space, which no reader of JSON values minds"
        writer.close()
        _, _, reader, writer = await port.ask(f"/ev/{port.channel}")
        assert [await chunk(reader), await chunk(reader)] == [b": \n\n", b":\n\n"]
        writer.close()
    finally:
        await port.close()


async def test_a_hub_that_stops_ends_its_streams(tmp_path: Path) -> None:
    hub = await Front(tmp_path, section()).open()
    assert hub.face.push is not None
    port = Port(hub.face.push, hub)
    _, _, reader, _ = await port.ask(f"/sub/{port.channel}")
    socket = await websockets.connect(f"ws://{port.push.address}/ws/{port.channel}")
    await port.joined(2)
    closing = asyncio.create_task(port.hub.close())
    assert await asyncio.wait_for(reader.read(), 5) == b"0\r\n\r\n"
    with pytest.raises(websockets.ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 5)
    await closing
    for writer in port.writers:
        writer.close()
        await writer.wait_closed()


# ------------------------------------------------------------------------------------------------------- after a restart


async def test_answers_are_still_there_after_a_crash(tmp_path: Path) -> None:
    async with front(tmp_path) as hub:
        _, accepted = await hub.order("SetRelay", RELAY)
        before = await hub.response(accepted)
        under_way = asyncio.Event()

        async def hang(command: Command) -> Any:
            under_way.set()
            await asyncio.Event().wait()

        hub.carry_out = hang
        _, open_ = await hub.order("SetRelay", RELAY)
        await under_way.wait()
        link = hub.world.registry.link(f"ekm:{METER}")
        assert link is not None
        again = await hub.world.again()
    second = await Front(tmp_path / "again", section()).open(again)
    try:
        assert accepted["response_channel_id"] == open_["response_channel_id"]
        assert await second.response(accepted) == before, "the same message on the same channel"
        message = await second.response(open_)
        assert message["success"] is False
        assert "not known" in message["error"]
    finally:
        second.world.abandoned.clear()
        await second.close()


async def test_a_subscriber_hears_the_answer_live(tmp_path: Path) -> None:
    async with front(tmp_path) as hub:
        _, first = await hub.order("SetRelay", RELAY)
        await hub.response(first)
        async with subscribed(hub.push, f"/sub/{first['response_channel_id']}") as stream:
            _, second = await hub.order("SetRelay", RELAY)
            message = await asyncio.wait_for(anext(stream), 5)
        assert message["msg_id"] == second["msg_id"]
        async with websockets.connect(f"ws://{hub.push}/ws/{first['response_channel_id']}.b2") as socket:
            assert [json.loads(await socket.recv())["msg_id"] for _ in range(2)] == [first["msg_id"], second["msg_id"]]
