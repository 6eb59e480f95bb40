"""links/websocket against RFC 6455: raw sockets where a client breaks rules, the ``websockets`` library where it keeps them, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
import websockets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.links.raw import ACCEPT, BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, Raw, frame, handshake
from websockets.asyncio.client import connect

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.links import websocket
from gridloom.links.websocket import Accept, Connection, HandshakeRequest, Reject, WebSocketServer

Start = Callable[..., Awaitable[tuple[WebSocketServer, str]]]


async def echo(connection: Connection) -> None:
    async for message in connection:
        connection.send(message)
        await connection.drain()


def everybody(request: HandshakeRequest) -> Accept:
    return Accept()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts listeners, and stops them."""
    started: list[WebSocketServer] = []

    async def make(handler: Any = echo, **more: Any) -> tuple[WebSocketServer, str]:
        arguments: dict[str, Any] = {"admit": everybody, "key": "test.listen", "clock": Clock(), "max_message": 1_000, **more}
        server = WebSocketServer("127.0.0.1", 0, handler, **arguments)
        started.append(server)
        return server, await server.start()

    yield make
    await Raw.close_all()
    for server in started:
        await server.stop()
        assert len(server) == 0
        assert not any(server._slots), "nothing of a link is kept"
        assert not server._closes_at
        assert not server._halfway


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), timeout)


# --------------------------------------------------------------------------------------------------------------------- frames


async def test_a_text_and_a_binary_message_come_back_as_what_they_were(start: Start) -> None:
    _, where = await start()
    raw = await Raw.open(where)
    for opcode, payload in (
        (TEXT, b""),
        (TEXT, "é€🙂".encode()),
        (BINARY, bytes(range(256))),
        (TEXT, b"x" * 125),
        (TEXT, b"y" * 126),
        (BINARY, b"z" * 1_000),
    ):
        raw.send(frame(opcode, payload))
        assert await raw.frame() == (0x80 | opcode, payload)


BROKEN = {
    "not masked": (frame(TEXT, b"x", mask=False), 1002),
    "an unknown opcode": (frame(3, b"x"), 1002),
    "an unknown control opcode": (frame(0xB), 1002),
    "a reserved bit": (frame(TEXT, b"x", rsv=4), 1002),
    "a reserved bit on a ping": (frame(PING, b"x", rsv=1), 1002),
    "a reserved bit on a continuation": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", rsv=2), 1002),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "a message inside a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "a fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a length in two bytes where one is enough": (frame(TEXT, b"x" * 20, wide=2), 1002),
    "a length in eight bytes where two are enough": (frame(TEXT, b"x" * 200, wide=8), 1002),
    "a length of 2**63": (struct.pack("!BBQ", 0x81, 0xFF, 1 << 63) + b"1234", 1002),
    "text that is not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "text with an overlong form": (frame(TEXT, b"\xc0\xaf"), 1007),
    "text that ends in the middle of a character": (frame(TEXT, "é".encode()[:1]), 1007),
    "fragments that are not UTF-8 together": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
    "a message over the limit": (frame(TEXT, b"x" * 1_001), 1009),
    "a header that claims 4 GB": (frame(BINARY, b"", size=1 << 32), 1009),
    "fragments over the limit together": (frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401), 1009),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close code that may not be sent": (frame(CLOSE, struct.pack("!H", 1006)), 1002),
    "a close code of nobody": (frame(CLOSE, struct.pack("!H", 2_999)), 1002),
    "a close code beyond all": (frame(CLOSE, struct.pack("!H", 5_000)), 1002),
    "a close code of zero": (frame(CLOSE, struct.pack("!H", 0)), 1002),
    "a close reason that is not UTF-8": (frame(CLOSE, struct.pack("!H", 1_000) + b"\xff"), 1007),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_rule_closes_with_its_code_and_nobody_else_notices(what: str, start: Start) -> None:
    server, where = await start(close_timeout=0.1)
    good, bad = await Raw.open(where), await Raw.open(where)
    frames, code = BROKEN[what]
    bad.send(frames)
    assert (await bad.frame()).code == code
    assert await bad.ended()
    await until(lambda: len(server) == 1)
    assert server.violations == 1
    good.text("still here")
    assert (await good.frame()).payload == b"still here"


async def test_fragments_are_put_together_and_control_frames_may_stand_between(start: Start) -> None:
    _, where = await start()
    raw = await Raw.open(where)
    whole = "é€🙂" * 20
    pieces = [whole.encode()[place : place + 1] for place in range(len(whole.encode()))]  # cuts inside characters
    raw.send(frame(TEXT, pieces[0], fin=False), frame(PING, b"p"), *[frame(CONTINUATION, piece, fin=False) for piece in pieces[1:]])
    raw.send(frame(PONG, b"unasked"), frame(CONTINUATION, b"", fin=True))
    assert await raw.frame() == (0x8A, b"p")
    assert await raw.frame() == (0x81, whole.encode())
    raw.send(frame(BINARY, b"\xff", fin=False), frame(CONTINUATION, b"\x00"))
    assert await raw.frame() == (0x82, b"\xff\x00")


async def test_a_frame_may_come_byte_by_byte_and_many_at_once(start: Start) -> None:
    _, where = await start(max_queue=200)
    raw = await Raw.open(where)
    for byte in frame(TEXT, b"slowly") + frame(TEXT, b"x" * 300):
        raw.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await raw.frame()).payload == b"slowly"
    assert (await raw.frame()).payload == b"x" * 300
    raw.send(b"".join(frame(TEXT, str(number).encode()) for number in range(150)))
    assert [(await raw.frame()).payload for _ in range(150)] == [str(number).encode() for number in range(150)]


async def test_frames_in_the_handshakes_own_packet_are_heard(start: Start) -> None:
    _, where = await start()
    raw = await Raw.connect(where)
    raw.send(handshake() + frame(TEXT, b"early"))
    assert (await raw.answer()).status == 101
    assert (await raw.frame()).payload == b"early"


async def test_pings_are_answered_with_their_own_bytes(start: Start) -> None:
    _, where = await start()
    raw = await Raw.open(where)
    raw.send(frame(PING), frame(PING, b"x" * 125))
    assert await raw.frame() == (0x8A, b"")
    assert await raw.frame() == (0x8A, b"x" * 125)


# ---------------------------------------------------------------------------------------------------------------------- close


@pytest.mark.parametrize(
    ("sent", "answered", "known"),
    [
        (b"", 1000, 1005),
        (struct.pack("!H", 1_000), 1000, 1000),
        (struct.pack("!H", 4_321) + "für".encode(), 4321, 4321),
        (struct.pack("!H", 1_001), 1001, 1001),
    ],
)
async def test_a_close_is_answered_and_then_we_end_the_line(sent: bytes, answered: int, known: int, start: Start) -> None:
    seen: list[tuple[int | None, str]] = []

    async def handler(connection: Connection) -> None:
        assert await connection.receive() is None
        assert not connection.open
        assert not connection.send("too late")
        seen.append((connection.close_code, connection.close_reason))

    server, where = await start(handler)
    raw = await Raw.open(where)
    raw.send(frame(CLOSE, sent), frame(TEXT, b"behind the close nobody listens"))
    assert (await raw.frame()).code == answered
    assert await raw.ended()
    await until(lambda: seen)
    assert seen == [(known, sent[2:].decode())]
    assert server.violations == 0


async def test_our_close_waits_for_the_answer_and_is_cut_when_none_comes(start: Start) -> None:
    async def handler(connection: Connection) -> None:
        await connection.receive()
        connection.close(4_000, "ü" * 100)
        connection.close(1_000, "a second close changes nothing")

    server, where = await start(handler, close_timeout=0.3)
    polite, silent = await Raw.open(where), await Raw.open(where)
    for raw in (polite, silent):
        raw.text("go")
        closed = await raw.frame()
        assert closed.code == 4_000
        assert closed.payload[2:].decode() == "ü" * 61, "123 bytes at most, cut between characters"
    polite.send(frame(TEXT, b"not heard any more"), frame(CLOSE, struct.pack("!H", 4_000)))
    assert await polite.ended(0.2)
    assert len(server) == 1
    assert await silent.ended(2)


async def test_a_line_that_just_ends_is_1006(start: Start) -> None:
    seen: list[int | None] = []

    async def handler(connection: Connection) -> None:
        assert await connection.receive() is None
        seen.append(connection.close_code)

    server, where = await start(handler)
    for _ in range(2):
        raw = await Raw.open(where)
        raw.hang_up()
    half = await Raw.open(where)
    half.writer.write_eof()
    await until(lambda: len(seen) == 3)
    assert seen == [1006] * 3
    await until(lambda: len(server) == 0)


async def test_a_handler_that_returns_closes_with_1000_and_one_that_fails_with_1011(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(connection: Connection) -> None:
        if await connection.receive() == "fail":
            raise RuntimeError("of the handler")

    _, where = await start(handler)
    for word, code in (("end", 1000), ("fail", 1011)):
        raw = await Raw.open(where)
        raw.text(word)
        closed = await raw.frame()
        assert closed.code == code
        assert b"of the handler" not in closed.payload, "what failed is ours to know"
        raw.hang_up()
    assert "of the handler" in caplog.text


async def test_stopping_tells_everybody_refuses_the_next_and_frees_the_port(start: Start) -> None:
    server, where = await start(close_timeout=0.5)
    polite, deaf, knocking = await Raw.open(where), await Raw.open(where), await Raw.connect(where)
    await until(lambda: len(server._halfway) == 1)
    stopping = asyncio.ensure_future(server.stop(1_012, "restart"))
    assert (await polite.frame()).code == 1_012
    polite.send(frame(CLOSE, struct.pack("!H", 1_012)))
    assert await polite.ended()
    assert (await deaf.frame()).code == 1_012
    assert await knocking.ended()
    await asyncio.wait_for(stopping, 2)
    assert await deaf.ended()
    with pytest.raises(OSError):
        await Raw.connect(where)
    await server.stop()
    again = WebSocketServer("127.0.0.1", int(where.rpartition(":")[2]), echo, admit=everybody, key="test.listen", clock=Clock())
    assert await again.start() == where
    await again.stop()


# ------------------------------------------------------------------------------------------------------------------ handshake


@pytest.mark.parametrize(
    ("request_bytes", "status", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 426, "WebSocket"),
        (handshake(without="upgrade"), 426, "WebSocket"),
        (handshake(without="connection"), 426, "WebSocket"),
        (handshake(version="8"), 426, "version 13"),
        (handshake(without="sec-websocket-version"), 426, "version 13"),
        (handshake(without="sec-websocket-key"), 400, "Sec-WebSocket-Key"),
        (handshake("/", f"Sec-WebSocket-Key: {KEY}"), 400, "Sec-WebSocket-Key"),
        (handshake(key="c2hvcnQ="), 400, "key"),
        (handshake(key="not base64 at all!!!!!!!"), 400, "key"),
        (handshake(host=None), 400, "Host"),
        (handshake("/", "Host: another"), 400, "Host"),
        (handshake("/elsewhere"), 404, "no such path"),
        (b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "no such path"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405, "GET"),
        (b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", 400, "HTTP/1.0"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: line\r\n\r\n", 400, "fold"),
        (handshake("/", "Content-Length: 5") + b"hello", 400, "body"),
    ],
)
async def test_what_is_no_handshake_is_answered_and_ended(request_bytes: bytes, status: int, said: str, start: Start) -> None:
    server, where = await start(admit=lambda request: Accept() if request.path == "/" else Reject(404, "no such path"))
    raw = await Raw.connect(where)
    answer = await raw.ask(request_bytes)
    assert answer.status == status
    assert said in await raw.body(answer)
    assert answer.headers["connection"] == "close"
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["sec-websocket-version"] == "13"
    assert await raw.ended()
    assert len(server) == 0


async def test_how_firefox_and_strange_clients_spell_it_is_accepted(start: Start) -> None:
    _, where = await start()
    for request in (
        handshake("/", "Connection: keep-alive, Upgrade", without="connection"),
        handshake("/", "Upgrade: WebSocket", "Connection: UPGRADE", without="upgrade").replace(b"Connection: Upgrade\r\n", b""),
        handshake("/", "Connection: keep-alive"),
        handshake("/", "sec-websocket-extensions: permessage-deflate; client_max_window_bits", "Origin: http://x"),
    ):
        raw = await Raw.connect(where)
        answer = await raw.ask(request)
        assert answer.status == 101
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        assert answer.headers["upgrade"].lower() == "websocket"
        assert "sec-websocket-extensions" not in answer.headers, "nothing is compressed"
        raw.text("hello")
        assert (await raw.frame()).payload == b"hello"


async def test_admission_sees_everything_as_it_was_sent(start: Start) -> None:
    seen: list[HandshakeRequest] = []

    def admit(request: HandshakeRequest) -> Accept:
        seen.append(request)
        return Accept(subprotocol=request.subprotocols[1], headers=[("X-Mark", "42")], context={"who": request.path})

    async def handler(connection: Connection) -> None:
        connection.send(f"{connection.context} {connection.subprotocol} {connection.path} {connection.address}")

    _, where = await start(handler, admit=admit)
    raw = await Raw.connect(where)
    answer = await raw.ask(
        handshake("/a%2Fb%20c?x=1?y", "Sec-WebSocket-Protocol: ocpp1.6, Ocpp2.0", "sec-websocket-protocol: third", "Authorization: Basic eA==")
    )
    assert answer.status == 101
    assert answer.headers["sec-websocket-protocol"] == "Ocpp2.0"
    assert answer.headers["x-mark"] == "42"
    assert (await raw.frame()).payload.decode() == "{'who': '/a%2Fb%20c'} Ocpp2.0 /a%2Fb%20c 127.0.0.1"
    (request,) = seen
    assert (request.path, request.query) == ("/a%2Fb%20c", "x=1?y")
    assert request.subprotocols == ["ocpp1.6", "Ocpp2.0", "third"]
    assert request.header("AUTHORIZATION") == "Basic eA=="
    assert request.header("absent") == ""
    assert (request.address, request.local_address, request.secure, request.certificate) == ("127.0.0.1", "127.0.0.1", False, None)
    assert request.port == raw.writer.get_extra_info("sockname")[1]


async def test_complete_without_a_subprotocol_and_close_at_once(start: Start) -> None:
    """What OS³P and OCPP ask for when no subprotocol fits."""
    ran: list[Connection] = []

    async def handler(connection: Connection) -> None:
        ran.append(connection)

    server, where = await start(handler, admit=lambda request: Accept(close=(1_002, "no subprotocol that we speak")))
    raw = await Raw.connect(where)
    answer = await raw.ask(handshake("/", "Sec-WebSocket-Protocol: soap"))
    assert answer.status == 101
    assert "sec-websocket-protocol" not in answer.headers
    closed = await raw.frame()
    assert (closed.code, closed.payload[2:]) == (1_002, b"no subprotocol that we speak")
    raw.send(frame(CLOSE, closed.payload))
    assert await raw.ended()
    await until(lambda: len(server) == 0)
    assert ran == []


async def test_admission_that_fails_tells_nothing_and_ends_nothing(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    def admit(request: HandshakeRequest) -> Accept:
        if request.path == "/fail":
            raise RuntimeError("inner secret")
        return Accept(subprotocol="never offered") if request.path == "/protocol" else Accept()

    _, where = await start(admit=admit)
    for path in ("/fail", "/protocol"):
        raw = await Raw.connect(where)
        answer = await raw.ask(handshake(path))
        assert answer.status == 500
        assert "inner secret" not in await raw.body(answer)
    assert "inner secret" in caplog.text
    await Raw.open(where)


async def test_a_refusal_has_a_status_of_a_refusal() -> None:
    with pytest.raises(ValueError, match="400 to 599, not 200"):
        Reject(200, "fine")


async def test_a_handshake_that_trickles_is_cut_off_and_so_is_one_without_end(start: Start) -> None:
    server, where = await start(handshake_timeout=0.4)
    slow, silent, endless = await Raw.connect(where), await Raw.connect(where), await Raw.connect(where)

    async def trickle() -> None:
        for byte in handshake():
            slow.send(bytes([byte]))
            await asyncio.sleep(0.05)

    trickling = asyncio.ensure_future(trickle())
    endless.send(b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000)
    assert await endless.ended(0.3)
    assert await slow.ended(2)
    assert await silent.ended(2)
    trickling.cancel()
    assert len(server) == 0
    await until(lambda: not server._halfway)


async def test_more_than_the_limit_are_told_to_come_again(start: Start) -> None:
    server, where = await start(max_connections=2, retry_after=7)
    first, _ = await Raw.open(where), await Raw.open(where)
    raw = await Raw.connect(where)
    answer = await raw.ask(handshake())
    assert answer.status == 503
    assert 7 <= int(answer.headers["retry-after"]) <= 14
    first.hang_up()
    await until(lambda: len(server) == 1)
    await Raw.open(where)


async def test_a_busy_port_and_a_strange_host_name_the_key(start: Start) -> None:
    _, where = await start()
    for host, port, why in (
        ("127.0.0.1", int(where.rpartition(":")[2]), "another program listens there already; stop it, or choose another port"),
        ("192.0.2.1", 0, "this machine does not have that address"),
        ("no-such-host.invalid", 1, "there is no such host name"),
    ):
        server = WebSocketServer(host, port, echo, admit=everybody, key="[tic] listen", clock=Clock())
        with pytest.raises(ConfigurationError) as error:
            await server.start()
        assert error.value.message == f"[tic] listen = '{host}:{port}': cannot listen: {why}"


async def test_ipv6_stands_in_brackets() -> None:
    server = WebSocketServer("::1", 0, echo, admit=everybody, key="test.listen", clock=Clock())
    where = await server.start()
    assert where.startswith("[::1]:")
    raw = await Raw.open(where)
    raw.text("six")
    assert (await raw.frame()).payload == b"six"
    await Raw.close_all()
    await server.stop()


# ---------------------------------------------------------------------------------------------------------- silence and limits


async def test_who_says_nothing_is_pinged_and_who_does_not_answer_is_closed(start: Start) -> None:
    server, where = await start(clock=Clock(speed=100.0), ping_interval=20.0)  # 0.2 s
    answering, silent = await Raw.open(where), await Raw.open(where)

    async def answer() -> None:
        while True:
            ping = await answering.frame()
            assert ping.opcode == PING
            answering.send(frame(PONG, ping.payload))

    task = asyncio.ensure_future(answer())
    assert (await silent.frame()).opcode == PING
    closed = await silent.frame()
    assert (closed.code, closed.payload[2:]) == (1011, b"no answer to a ping")
    assert await silent.ended()
    await asyncio.sleep(0.8)
    assert len(server) == 1, "who answers stays"
    task.cancel()


async def test_who_never_reads_is_cut_off_and_the_memory_comes_back(start: Start) -> None:
    connections: list[Connection] = []

    async def handler(connection: Connection) -> None:
        connections.append(connection)
        await connection.receive()

    server, where = await start(handler, write_limit=300_000, high_water=50_000, send_buffer=16_384)
    raw = await Raw.open(where)
    await until(lambda: connections)
    (connection,) = connections
    prepared = websocket.prepare(b"x" * 10_000)
    most = 0
    while connection.send_prepared(prepared):
        most = max(most, connection.buffered)
        await asyncio.sleep(0)
    assert 200_000 < most <= 300_000
    assert not connection.writable
    assert connection.close_code == 1013
    assert server.stuck == 1
    await until(lambda: len(server) == 0)
    raw.hang_up()


async def test_who_takes_nothing_for_three_intervals_is_cut_off_however_little_it_is(start: Start) -> None:
    connections: list[Connection] = []

    async def handler(connection: Connection) -> None:
        connections.append(connection)
        await connection.receive()

    server, where = await start(handler, high_water=50_000, send_buffer=16_384, write_limit=100_000_000, ping_interval=0.1, ping_timeout=100.0)
    raw = await Raw.open(where)
    await until(lambda: connections)
    (connection,) = connections
    line: Any = raw.writer.transport
    line.pause_reading()
    for _ in range(1_000):
        connection.send(b"x" * 10_000)
    assert connection.open
    await until(lambda: len(server) == 0)
    assert connection.close_code == 1013
    assert server.stuck == 1


async def test_a_client_that_does_not_answer_pings_may_be_given_longer(start: Start) -> None:
    _, where = await start(ping_interval=0.1, ping_timeout=0.5)
    raw = await Raw.open(where)
    seen = []
    while (frame_ := await raw.frame()).opcode == PING:
        seen.append(frame_)
    assert len(seen) == 5
    assert frame_.code == 1011


async def test_who_reads_again_is_told_to_go_on(start: Start) -> None:
    connections: list[Connection] = []

    async def handler(connection: Connection) -> None:
        connections.append(connection)
        await connection.receive()

    _, where = await start(handler, high_water=50_000, send_buffer=16_384, write_limit=10_000_000)
    raw = await Raw.open(where)
    await until(lambda: connections)
    (connection,) = connections
    called: list[int] = []
    connection.on_writable = lambda: called.append(connection.buffered)
    line: Any = raw.writer.transport
    line.pause_reading()
    sent = full = 0
    while full < 20:  # until it stays full: neither its buffers nor the system's take any more
        full = 0 if connection.writable else full + 1
        if not full:
            sent += 1
            connection.send(f"{sent:06d}" + "x" * 1_994)
        await asyncio.sleep(0.005 if full else 0)
    called.clear()
    waiting = asyncio.ensure_future(connection.drain())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    line.resume_reading()
    for number in range(1, sent + 1):
        assert (await raw.frame()).payload[:6] == f"{number:06d}".encode()
    await asyncio.wait_for(waiting, 2)
    assert connection.writable
    assert len(called) == 1
    assert called[0] <= 12_500
    assert connection.buffered == 0


async def test_a_flood_of_pings_from_one_who_never_reads_does_not_fill_memory(start: Start) -> None:
    server, where = await start(high_water=20_000, send_buffer=16_384)
    raw = await Raw.open(where)
    await until(lambda: len(server) == 1)
    (connection,) = server.connections
    flood = b"".join(frame(PING, b"x" * 125) for _ in range(1_000))
    most = 0
    for _ in range(100):
        raw.send(flood)
        await asyncio.sleep(0.001)
        most = max(most, connection.buffered)
    assert 20_000 <= most < 40_000
    raw.hang_up()


async def test_a_flood_of_requests_is_read_no_faster_than_it_is_answered(start: Start) -> None:
    gate = asyncio.Event()
    got: list[Any] = []

    async def handler(connection: Connection) -> None:
        await gate.wait()
        async for message in connection:
            got.append(message)

    server, where = await start(handler, max_queue=16, ping_interval=0.2)
    raw = await Raw.open(where)
    await until(lambda: len(server) == 1)
    (connection,) = server.connections
    message = frame(TEXT, b"x" * 900)
    for _ in range(8_000):
        raw.send(message)
    for _ in range(50):
        await asyncio.sleep(0.01)
    assert 2 <= len(connection._queue or ()) < 30, "two messages' worth, and what was in the read buffer already"
    assert connection.open, "it is not pinged while we are the ones who do not read"
    gate.set()
    await until(lambda: len(got) == 8_000)
    assert connection.open
    raw.text("the line goes on")
    await until(lambda: got[-1] == "the line goes on")


async def test_close_gets_through_while_the_queue_is_full(start: Start) -> None:
    async def handler(connection: Connection) -> None:
        await asyncio.sleep(0.2)
        connection.close(4_001, "enough")

    server, where = await start(handler, max_queue=1)
    raw = await Raw.open(where)
    raw.send(*[frame(TEXT, b"x")] * 50)
    assert (await raw.frame()).code == 4_001
    raw.send(frame(CLOSE, struct.pack("!H", 4_001)))
    assert await raw.ended()
    await until(lambda: len(server) == 0)


async def test_a_broken_frame_from_one_who_never_reads_does_not_leave_the_line_behind(start: Start) -> None:
    """The core closes such a line in order, which waits for ever for a reader that does not read."""
    connections: list[Connection] = []

    async def handler(connection: Connection) -> None:
        connections.append(connection)
        await connection.receive()

    server, where = await start(handler, send_buffer=16_384, ping_interval=1.0, ping_timeout=100.0, close_timeout=0.2, write_limit=100_000_000)
    raw = await Raw.open(where)
    await until(lambda: connections)
    line: Any = raw.writer.transport
    line.pause_reading()
    for _ in range(3_000):
        connections[0].send(b"x" * 10_000)
    await asyncio.sleep(0.1)
    assert connections[0].buffered > 1_000_000
    raw.send(frame(TEXT, b"x", mask=False))
    await until(lambda: len(server) == 0, 2.8)


async def test_behind_the_close_frame_nothing_is_sent(start: Start) -> None:
    """Also where the core closed: the handler only hears of it when the line has ended."""
    results: list[bool] = []

    async def handler(connection: Connection) -> None:
        while connection.open:
            results.append(connection.send("tick"))
            await asyncio.sleep(0)

    _, where = await start(handler)
    raw = await Raw.open(where)
    await raw.frame()
    raw.send(frame(TEXT, b"x", mask=False))
    while (await raw.frame()).opcode != CLOSE:
        pass
    assert await raw.ended()
    await until(lambda: not results[-1])


async def test_what_is_sent_behind_control_frames_keeps_its_order(start: Start) -> None:
    """Pongs are written by the core, messages by us: neither may overtake the other, whether or not the socket takes them at once."""

    async def handler(connection: Connection) -> None:
        number = 0
        async for message in connection:
            for _ in range(int(message)):
                number += 1
                connection.send(f"{number}" + "x" * 3_000)
            assert connection._transport is not None
            connection._transport.send_ping(str(number).encode())

    _, where = await start(handler, send_buffer=8_192, high_water=10_000_000, write_limit=10_000_000)
    raw = await Raw.open(where)
    for count in (1, 3, 200, 1, 50):
        raw.text(str(count))
    number = 0
    for count in (1, 3, 200, 1, 50):
        for _ in range(count):
            number += 1
            assert (await raw.frame()).payload.rstrip(b"x") == str(number).encode()
        assert await raw.frame() == (0x89, str(number).encode())


async def test_two_tasks_may_not_receive_at_once(start: Start) -> None:
    refused: list[str] = []

    async def handler(connection: Connection) -> None:
        first = asyncio.ensure_future(connection.receive())
        await asyncio.sleep(0)
        try:
            await connection.receive()
        except RuntimeError as error:
            refused.append(str(error))
        connection.send(await first or "")

    _, where = await start(handler)
    raw = await Raw.open(where)
    raw.text("for the first")
    assert (await raw.frame()).payload == b"for the first"
    assert refused == ["two tasks receive from one connection"]


# ------------------------------------------------------------------------------------------------------------ foreign clients


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_a_foreign_client_gets_back_every_size(size: int, start: Start) -> None:
    _, where = await start(max_message=200_000)
    async with connect(f"ws://{where}/", compression=None, max_size=None) as client:
        for message in ("x" * size, os.urandom(size)):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        assert await (await client.ping()) >= 0
    assert client.close_code == 1000


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_prepared_frames_are_what_rfc6455_says(size: int) -> None:
    for first, prepared in (
        (0x81, websocket.prepare("y" * size)),
        (0x82, websocket.prepare(b"y" * size)),
        (0x81, websocket.prepare_text(b"y" * size)),
    ):
        expected = bytearray(frame(first & 0x0F, b"y" * size, mask=False))
        assert prepared == expected


async def test_tls_and_the_client_certificate(start: Start) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    mine = ssl.create_default_context()
    authority.configure_trust(mine)
    authority.issue_cert("station-1.example").configure_cert(mine)
    seen: list[HandshakeRequest] = []

    def admit(request: HandshakeRequest) -> Accept:
        seen.append(request)
        return Accept()

    _, where = await start(admit=admit, tls=tls, max_message=100_000, handshake_timeout=2.0)
    port = where.rpartition(":")[2]
    async with connect(f"wss://localhost:{port}/", ssl=mine, server_hostname="localhost", compression=None) as client:
        for size in (10, 100_000):
            await client.send("x" * size)
            assert await client.recv() == "x" * size
    assert seen[0].secure
    assert seen[0].certificate is not None
    assert ("DNS", "station-1.example") in seen[0].certificate["subjectAltName"]
    plain = await Raw.connect(where)
    plain.send(handshake())
    with contextlib.suppress(ConnectionError):
        assert b"101" not in await asyncio.wait_for(plain.reader.read(), 5)


async def test_whose_tls_handshake_fails_is_told_and_another_certificate_may_be_taken(start: Start) -> None:
    def tls_of(authority: trustme.CA) -> ssl.SSLContext:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(tls)
        tls.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(tls)
        return tls

    def mine(authority: trustme.CA, own: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        own.issue_cert("station-1.example").configure_cert(context)
        return context

    async def knock(tls: ssl.SSLContext) -> None:
        async with connect(f"wss://localhost:{port}/", ssl=tls, server_hostname="localhost", compression=None) as client:
            await client.send("x")
            assert await client.recv() == "x"

    async def gone(*, bytes_first: bytes = b"") -> None:
        raw = await Raw.connect(where)
        raw.send(bytes_first)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(raw.reader.read(), 5)

    first, second = trustme.CA(), trustme.CA()
    told: list[tuple[str, Exception]] = []
    server, where = await start(tls=tls_of(first), handshake_timeout=0.5, unsecured=lambda peer, error: told.append((peer, error)))
    port = where.rpartition(":")[2]
    await knock(mine(first, first))
    for wrong in (mine(first, second), mine(second, first)):
        with pytest.raises((OSError, websockets.WebSocketException)):
            await knock(wrong)
    await gone(bytes_first=handshake())
    await gone()  # silent until the time is over
    await until(lambda: len(told) == 4)
    assert {peer for peer, _ in told} == {"127.0.0.1"}
    assert isinstance(told[0][1], ssl.SSLCertVerificationError)
    assert isinstance(told[2][1], ssl.SSLError)
    assert isinstance(told[3][1], ConnectionError | TimeoutError)
    server.secure(tls_of(second))
    await knock(mine(second, second))
    with pytest.raises((OSError, websockets.WebSocketException)):
        await knock(mine(first, first))
    halfway = await Raw.connect(where)
    await asyncio.sleep(0.05)
    await server.stop()
    assert await halfway.ended(), "who is half in is cut"
    with pytest.raises(ConnectionRefusedError):
        await Raw.connect(where)


async def test_reconnect_storm(start: Start) -> None:
    """Two hundred clients at once, several times over; half of them leave without a word. Nothing is left behind."""
    server, where = await start()

    async def visit(number: int) -> None:
        raw = await Raw.open(where)
        raw.text(str(number))
        assert (await raw.frame()).payload == str(number).encode()
        if number % 2:
            raw.hang_up()
        else:
            raw.send(frame(CLOSE, struct.pack("!H", 1_001)))
            assert (await raw.frame()).code == 1_001
            raw.writer.close()

    for _ in range(3):
        await asyncio.gather(*[visit(number) for number in range(200)])
    await until(lambda: len(server) == 0)
    assert server.opened == 600
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Connection)][20:], "connections are freed"


def test_random_bytes_never_harm_the_listener() -> None:
    """Whatever comes after the handshake (or instead of it), the listener goes on and logs no traceback."""
    messages: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record)

    keep = Keep(logging.WARNING)
    logging.getLogger().addHandler(keep)
    loop = asyncio.new_event_loop()
    server = WebSocketServer("127.0.0.1", 0, echo, admit=everybody, key="test.listen", clock=Clock(), max_message=1_000)
    where = loop.run_until_complete(server.start())

    async def throw(chunks: list[bytes], shaken: bool) -> None:
        raw = await Raw.open(where) if shaken else await Raw.connect(where)
        for chunk in chunks:
            raw.send(chunk)
            await asyncio.sleep(0)
        with contextlib.suppress(OSError):
            raw.writer.write_eof()
            await asyncio.wait_for(raw.reader.read(), 5)
        await Raw.close_all()

    pieces = st.one_of(
        st.binary(max_size=200),
        st.builds(
            frame,
            st.integers(0, 15),
            st.binary(max_size=140),
            fin=st.booleans(),
            rsv=st.sampled_from([0, 0, 0, 1, 4]),
            mask=st.sampled_from([True, True, False]),
        ),
        st.just(handshake()),
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(pieces, max_size=8), st.booleans())
    def fuzz(chunks: list[bytes], shaken: bool) -> None:
        loop.run_until_complete(throw(chunks, shaken))

    async def alive() -> None:
        async with connect(f"ws://{where}/", compression=None) as client:
            await client.send("alive")
            assert await client.recv() == "alive"

    try:
        fuzz()
        loop.run_until_complete(alive())
        loop.run_until_complete(server.stop())
    finally:
        logging.getLogger().removeHandler(keep)
        loop.close()
    assert [record.getMessage() for record in messages] == []


async def test_the_version_of_the_foreign_library_is_not_ours() -> None:
    """The proof above rests on this: the client is the websockets project's own code."""
    assert websockets.__name__ == "websockets"
    assert "picows" not in type(connect).__module__
