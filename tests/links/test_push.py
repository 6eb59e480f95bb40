"""HTTP streams beside WebSockets on one port, seen by raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gridloom.core.clock import Clock
from gridloom.links.push import Answer, Body, Stream, chunk
from gridloom.links.websocket import Accept, Connection, Decision, HandshakeRequest, WebSocketServer


class Place:
    """A server whose paths are /stream, /answer, /empty; everything else is a WebSocket."""

    def __init__(self) -> None:
        self.bodies: list[Body] = []
        self.ended: list[Body] = []
        self.server = WebSocketServer("127.0.0.1", 0, self._handle, admit=self._admit, key="[test] listen", clock=Clock(), max_connections=5)

    def _admit(self, request: HandshakeRequest) -> Decision:
        if request.path == "/stream":
            return Stream(self._open, (("Content-Type", "text/plain"),), limit=200_000)
        if request.path == "/answer":
            return Answer(200, b"done", (("Etag", "W/1"),))
        if request.path == "/empty":
            return Answer(304)
        return Accept()

    def _open(self, body: Body) -> None:
        self.bodies.append(body)
        body.on_end = lambda: self.ended.append(body)

    async def _handle(self, connection: Connection) -> None:
        await connection.receive()

    async def connect(self, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {request} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    async def open(self) -> Place:
        self.port = int((await self.server.start()).rpartition(":")[2])
        return self


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = await Place().open()
    yield made
    await made.server.stop()


async def head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
    return lines[0], dict(line.lower().split(": ", 1) for line in lines[1:] if line)


async def until(place: Place, count: int) -> None:
    for _ in range(500):
        if len(place.bodies) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no stream was opened")


async def test_a_stream_comes_in_chunks_and_ends_in_order(place: Place) -> None:
    reader, writer = await place.connect("/stream")
    status, headers = await head(reader)
    assert status == "HTTP/1.1 200 OK"
    assert (headers["transfer-encoding"], headers["content-type"]) == ("chunked", "text/plain")
    body = place.bodies[0]
    assert body.send(chunk(b"hello"))
    assert body.send(chunk(b"x" * 300))
    assert await reader.readexactly(10) == b"5\r\nhello\r\n"
    assert await reader.readexactly(5 + 300 + 2) == b"12c\r\n" + b"x" * 300 + b"\r\n"
    body.end()
    assert await asyncio.wait_for(reader.read(), 5) == b"0\r\n\r\n"
    assert not body.send(chunk(b"more"))
    assert place.ended == [body]
    writer.close()


async def test_a_whole_answer_ends_the_line(place: Place) -> None:
    reader, writer = await place.connect("/answer")
    status, headers = await head(reader)
    assert (status, headers["content-length"], headers["etag"]) == ("HTTP/1.1 200 OK", "4", "w/1")
    assert await asyncio.wait_for(reader.read(), 5) == b"done"
    writer.close()
    reader, writer = await place.connect("/empty")
    status, headers = await head(reader)
    assert status == "HTTP/1.1 304 Not Modified"
    assert "content-length" not in headers
    writer.close()


async def test_a_client_that_leaves_is_noticed(place: Place) -> None:
    reader, writer = await place.connect("/stream")
    await head(reader)
    writer.close()
    for _ in range(500):
        if place.ended:
            break
        await asyncio.sleep(0.01)
    assert place.ended == place.bodies
    assert not place.server.guests


async def test_who_does_not_read_is_cut_off_and_the_others_go_on(place: Place) -> None:
    slow_reader, slow_writer = await place.connect("/stream")
    await head(slow_reader)
    reader, writer = await place.connect("/stream")
    await head(reader)
    slow, quick = place.bodies
    reading = asyncio.create_task(reader.readexactly(100 * 100_009))
    block = chunk(b"x" * 100_000)
    slow_reader._transport.pause_reading()  # type: ignore[attr-defined]  # this client does not read
    for _ in range(100):
        slow.send(block)
        quick.send(block)
        await asyncio.sleep(0.002)
    assert slow.slow
    assert not slow.open
    assert quick.open
    assert len(await asyncio.wait_for(reading, 5)) == 100 * len(block)
    assert place.server.stuck == 1
    slow_writer.close()
    writer.close()


async def test_streams_count_for_the_limit_of_connections(place: Place) -> None:
    lines = [await place.connect("/stream") for _ in range(5)]
    await until(place, 5)
    reader, writer = await place.connect("/stream")
    assert (await head(reader))[0] == "HTTP/1.1 503 Service Unavailable"
    for _, one in [*lines, (reader, writer)]:
        one.close()


async def test_another_method_is_405(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    status, headers = await head(reader)
    assert (status, headers["allow"]) == ("HTTP/1.1 405 Method Not Allowed", "get")
    writer.close()


async def test_what_a_client_says_behind_its_request_is_not_heard(place: Place) -> None:
    reader, writer = await place.connect("/stream")
    await head(reader)
    writer.write(b"GET /answer HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    await asyncio.sleep(0.05)
    place.bodies[0].send(chunk(b"a"))
    assert await reader.readexactly(6) == b"1\r\na\r\n"
    writer.close()


async def test_a_server_that_stops_ends_its_streams() -> None:
    place = await Place().open()
    reader, writer = await place.connect("/stream")
    await head(reader)
    await place.server.stop()
    assert await asyncio.wait_for(reader.read(), 5) == b"0\r\n\r\n"
    with contextlib.suppress(OSError):
        writer.close()


def test_an_empty_chunk_would_end_the_body_and_is_none() -> None:
    assert chunk(b"") == b""
