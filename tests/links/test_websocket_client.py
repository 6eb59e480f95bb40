"""links/websocket_client: raw sockets where a server breaks rules, the ``websockets`` library and our own server where they keep them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import itertools
import logging
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.links.proxy import DOWN, Proxy, twice
from tests.links.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.links.raw_server import Line, RawServer, accepted
from tests.links.test_websocket import BROKEN, until
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gridloom.core.clock import Clock, from_datetime, to_datetime
from gridloom.links.websocket import Accept, Connection, HandshakeRequest, WebSocketServer
from gridloom.links.websocket_client import (
    ClientConnection,
    ConnectFailed,
    ConnectTimeout,
    HandshakeBroken,
    HandshakeRefused,
    HostUnknown,
    TlsFailed,
    Unreachable,
    connect,
)
from gridloom.links.websocket_link import prepare

Script = Callable[[Line], Awaitable[None]]
Serve = Callable[[Script], Awaitable[str]]


@pytest.fixture
async def raw() -> AsyncIterator[Serve]:
    """Starts raw servers, and stops them."""
    started: list[RawServer] = []

    async def start(script: Script) -> str:
        server = RawServer(script)
        started.append(server)
        return await server.start()

    yield start
    for server in started:
        await server.stop()


async def join(where: str, path: str = "/", **more: Any) -> ClientConnection:
    return await connect(f"ws://{where}{path}", **{"clock": Clock(), "max_message": 1_000, "connect_timeout": 5.0, **more})


async def leave(link: ClientConnection) -> None:
    link.close()
    await asyncio.wait_for(link.wait_closed(), 5)


# ------------------------------------------------------------------------------------------------------------------ handshake


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/"),
        ("/", "/"),
        ("/os3p/SUBS%20123", "/os3p/SUBS%20123"),
        ("/a%2fb%2F%C3%A9;x=1/../y//z?q=%20&&r=?/", "/a%2fb%2F%C3%A9;x=1/../y//z?q=%20&&r=?/"),
        ("?only=query", "/?only=query"),
        ("/empty?", "/empty?"),
    ],
)
async def test_the_path_goes_out_byte_for_byte(path: str, target: str, raw: Serve) -> None:
    seen: list[Line] = []

    async def script(line: Line) -> None:
        seen.append(line)
        await line.open()
        await line.closed_with()
        line.writer.close()

    where = await raw(script)
    await leave(await join(where, path))
    assert seen[0].request.split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


async def test_what_is_asked_and_what_came_are_seen(raw: Serve) -> None:
    seen: list[Line] = []

    async def script(line: Line) -> None:
        seen.append(line)
        await line.open("Sec-WebSocket-Protocol: OS3P1.0", "X-Twice: a", "x-twice: b")
        await line.closed_with()
        line.writer.close()

    where = await raw(script)
    link = await connect(
        f"ws://st%C3%A4tion:p%40ss:w%3Ard@{where}/x", clock=Clock(), subprotocols=("OS3P1.1", "OS3P1.0"), headers=[("User-Agent", "RTU/1")]
    )
    fields = seen[0].fields
    assert fields["host"] == where
    assert fields["upgrade"] == "websocket"
    assert fields["connection"] == "Upgrade"
    assert fields["sec-websocket-version"] == "13"
    assert len(base64.b64decode(fields["sec-websocket-key"])) == 16
    assert fields["sec-websocket-protocol"] == "OS3P1.1, OS3P1.0"
    assert fields["user-agent"] == "RTU/1"
    assert base64.b64decode(fields["authorization"].removeprefix("Basic ")).decode() == "stätion:p@ss:w:rd"
    assert "sec-websocket-extensions" not in fields, "no compression is offered"
    assert link.subprotocol == "OS3P1.0"
    assert link.offered == ("OS3P1.1", "OS3P1.0")
    assert link.headers["x-twice"] == "a, b"
    assert link.address == "127.0.0.1"
    assert (link.open, link.close_code, link.close_reason) == (True, None, "")
    await leave(link)
    assert link.close_code == 1000


@pytest.mark.parametrize(("lines", "subprotocol"), [((), None), (("Sec-WebSocket-Protocol: soap",), "soap")])
async def test_no_subprotocol_and_one_that_was_not_offered_are_the_callers_to_judge(
    lines: tuple[str, ...], subprotocol: str | None, raw: Serve
) -> None:
    async def script(line: Line) -> None:
        await line.open(*lines)
        assert await line.closed_with() == 1002

    link = await join(await raw(script), subprotocols=("OS3P1.0",))
    assert link.subprotocol == subprotocol
    assert link.subprotocol not in link.offered
    link.close(1002, "no subprotocol of ours")
    assert link.close_reason == "no subprotocol of ours"


async def test_other_spellings_and_an_interim_answer_are_understood(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.hear()
        line.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        answer = accepted(line.key, "upgrade: WebSocket", "CONNECTION: keep-alive, UPGRADE", "Date: now", without="upgrade")
        for byte in answer.replace(b"Connection: Upgrade\r\n", b""):
            line.send(bytes([byte]))
            await asyncio.sleep(0)
        line.text("hello")
        await line.closed_with()
        line.writer.close()

    link = await join(await raw(script))
    assert await link.receive() == "hello"
    await leave(link)


def told(answer: str) -> Script:
    async def script(line: Line) -> None:
        await line.hear()
        line.send(answer.replace("KEY", accepted(line.key).decode().split("Accept: ")[1].strip()).encode("latin-1"))
        assert await line.ended(), "the client ends the line"

    return script


UP = "HTTP/1.1 101 Switching Protocols\r\n"
BROKEN_ANSWERS = {
    "a wrong key": (UP + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "our key"),
    "no key": (UP + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "our key"),
    "the key twice": (UP + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Accept: KEY\r\n\r\n", "our key"),
    "no upgrade": (UP + "Connection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n", "Upgrade is not websocket"),
    "no connection": (UP + "Upgrade: websocket\r\nSec-WebSocket-Accept: KEY\r\n\r\n", "Connection is not Upgrade"),
    "an extension": (
        UP + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        "extension that was not offered",
    ),
    "no HTTP": ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "begins with 'SSH-2.0"),
    "another HTTP": ("HTTP/2 101 Switching\r\n\r\n", "begins with 'HTTP/2"),
    "a broken header": (UP + "Upgrade websocket\r\n\r\n", "a header line is 'Upgrade websocket'"),
    "a folded header": (UP + "Upgrade: websocket\r\n folded: x\r\n\r\n", "a header line is ' folded: x'"),
    "a head without end": (UP + "X: " + "y" * 20_000, "does not end"),
    "a huge head": (UP + "X: " + "y" * 17_000 + "\r\n\r\n", "does not end"),
}


@pytest.mark.parametrize("what", BROKEN_ANSWERS)
async def test_what_is_no_handshake_is_said_in_words(what: str, raw: Serve) -> None:
    answer, words = BROKEN_ANSWERS[what]
    where = await raw(told(answer))
    with pytest.raises(HandshakeBroken) as caught:
        await join(where, "/station?secret=1")
    assert caught.value.message.startswith(f"ws://{where}/station: no WebSocket handshake: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("answer", "status", "text", "wait"),
    [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\nunknown station\nmore\nx", 404, "unknown station", None),
        ("HTTP/1.1 503 x\r\nRetry-After: 17\r\nContent-Length: 0\r\n\r\n", 503, "", 17.0),
        ("HTTP/1.1 503 x\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", 503, "", None),
        ("HTTP/1.1 503 x\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n", 503, "", 120.0),
        ("HTTP/1.0 401\r\nWWW-Authenticate: Basic realm=x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwho\r\n0\r\n\r\n", 401, "who", None),
        ("HTTP/1.1 301 Moved\r\nLocation: ws://elsewhere/\r\nContent-Length: 0\r\n\r\n", 301, "", None),
        ("HTTP/1.1 499 nobody knows\r\nContent-Length: 15\r\n\r\n<html><p>no</p>", 499, "", None),
        ("HTTP/1.1 200 OK\r\n\r\nit works", 200, "it works", None),
    ],
)
async def test_another_status_is_told_with_what_the_server_says(answer: str, status: int, text: str, wait: float | None, raw: Serve) -> None:
    where = await raw(told(answer))
    noon = from_datetime(to_datetime(0).replace(year=2015, month=10, day=21, hour=7, minute=26))
    with pytest.raises(HandshakeRefused) as caught:
        await join(where, clock=Clock(start=noon))
    refused = caught.value
    assert (refused.http_status, refused.text) == (status, text)
    assert refused.retry_after == (wait if wait is None else pytest.approx(wait, abs=1))
    assert refused.message == f"ws://{where}/: the server answers {status}" + (f": {text}" if text else "")
    if status == 401:
        assert refused.headers["www-authenticate"] == "Basic realm=x"


async def test_a_refusals_body_may_come_later_and_the_line_may_end_behind_it(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.hear()
        line.send(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        await asyncio.sleep(0.05)
        line.send(b"not you")
        line.writer.close()

    with pytest.raises(HandshakeRefused, match="403: not you"):
        await join(await raw(script))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 101 Swit"])
async def test_an_early_end_is_said_in_words(reset: bool, after: bytes, raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.hear()
        line.send(after)
        await asyncio.sleep(0.02)
        if reset:
            line.writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))
        line.writer.transport.abort()

    with pytest.raises(Unreachable, match="the line ended before the handshake was complete"):
        await join(await raw(script))


async def test_time_runs_out_also_when_the_answer_trickles(raw: Serve) -> None:
    ended: list[bool] = []

    async def script(line: Line) -> None:
        await line.hear()
        for byte in accepted(line.key):
            line.send(bytes([byte]))
            await asyncio.sleep(0.02)
            if line.reader.at_eof():
                break
        ended.append(await line.ended())

    where = await raw(script)
    with pytest.raises(ConnectTimeout, match=r"no complete handshake within 20 s"):
        await join(where, connect_timeout=20.0, clock=Clock(speed=100.0))
    await until(lambda: ended)
    assert ended == [True]


async def test_a_connect_that_is_cancelled_leaves_no_line(raw: Serve) -> None:
    ended: list[bool] = []

    async def script(line: Line) -> None:
        await line.hear()
        ended.append(await line.ended())

    where = await raw(script)
    task = asyncio.ensure_future(join(where))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: ended)
    assert ended == [True]


async def test_who_is_not_there_is_said_in_words_and_secrets_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = Proxy("127.0.0.1:1")
    where = await proxy.start()
    await proxy.stop()
    for url, kind, words in (
        (f"ws://me:hunter2@{where}/x?token=hunter2", Unreachable, "nobody listens there"),
        ("ws://me:hunter2@no-such-host.invalid/x?token=hunter2", HostUnknown, "there is no such host name"),
    ):
        with pytest.raises(kind) as caught:
            await connect(url, clock=Clock())
        assert words in caught.value.message
        assert isinstance(caught.value, ConnectFailed)
        assert "hunter2" not in caught.value.message + caplog.text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://x/", "begins with ws"),
        ("x", "begins with ws"),
        ("ws://", "no host"),
        ("ws://:80/", "no host"),
        ("ws://x:99999/", "no host, or no port"),
        ("ws://x:p/", "no host, or no port"),
        ("ws://x/a b", "printable ASCII"),
        ("ws://x/a\r\nEvil: 1", "printable ASCII"),
        ("ws://é/", "printable ASCII"),
        ("ws://x/#f", "fragment"),
    ],
)
async def test_a_url_that_is_none_is_not_tried(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        await connect(url, clock=Clock())
    assert url not in str(caught.value)


async def test_arguments_that_cannot_be_sent_are_refused() -> None:
    for more, why in (
        ({"subprotocols": ("two words",)}, "no name of a subprotocol"),
        ({"headers": [("X", "a\r\nb")]}, "letters that may not be sent"),
        ({"headers": [("X y", "a")]}, "letters that may not be sent"),
        ({"credentials": ("a:b", "c")}, "colon"),
        ({"tls": ssl.create_default_context()}, "write wss"),
        ({"ping_interval": -1.0}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=why):
            await join("127.0.0.1:1", **more)


# --------------------------------------------------------------------------------------------------------------------- frames

FOR_CLIENTS = {
    what: (frames, code) for what, (frames, code) in BROKEN.items() if what not in ("not masked", "a length of 2**63") and "length in" not in what
}


def unmasked(frames: bytes) -> bytes:
    """The same frames as a server sends them."""
    out = b""
    while frames:
        size = frames[1] & 0x7F
        head = 2 if size < 126 else 4 if size == 126 else 10
        if size > 125:
            size = int.from_bytes(frames[2:head], "big")
        mask, payload = frames[head : head + 4], frames[head + 4 : head + 4 + size]
        out += bytes((frames[0], frames[1] & 0x7F)) + frames[2:head] + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        frames = frames[head + 4 + size :]
    return out


@pytest.mark.parametrize("what", [*FOR_CLIENTS, "masked"])
async def test_a_broken_rule_closes_with_its_code(what: str, raw: Serve, caplog: pytest.LogCaptureFixture) -> None:
    frames, code = (frame(TEXT, b"x"), 1002) if what == "masked" else (unmasked(FOR_CLIENTS[what][0]), FOR_CLIENTS[what][1])
    codes: list[int] = []

    async def script(line: Line) -> None:
        await line.open(then=frame(TEXT, b"good", mask=False))
        await line.frame()
        line.send(frames)
        codes.append(await line.closed_with())
        assert await line.ended()

    link = await join(await raw(script), close_timeout=0.2)
    assert await link.receive() == "good"
    link.send("go on")
    assert await asyncio.wait_for(link.receive(), 5) is None
    await asyncio.wait_for(link.wait_closed(), 5)
    await until(lambda: codes)
    assert codes == [code]
    assert link.close_code == code
    await asyncio.sleep(0.01)
    del link
    gc.collect()  # asyncio would tell now what nobody asked a future
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_fragments_and_control_frames_between_them(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.open()
        whole = "é€🙂".encode()
        line.send(
            frame(TEXT, whole[:1], fin=False, mask=False), frame(PING, b"p", mask=False), frame(CONTINUATION, whole[1:4], fin=False, mask=False)
        )
        line.send(frame(PONG, b"unasked", mask=False), frame(CONTINUATION, whole[4:], mask=False), frame(BINARY, b"\xff", mask=False))
        assert await line.frame() == (0x8A, b"p")
        line.send(frame(CLOSE, struct.pack("!H", 4_001) + "für".encode(), mask=False))
        assert await line.closed_with() == 4_001
        line.writer.close()

    link = await join(await raw(script))
    assert [await link.receive() for _ in range(3)] == ["é€🙂", b"\xff", None]
    assert (link.close_code, link.close_reason) == (4_001, "für")
    assert not link.send("too late")
    await asyncio.wait_for(link.wait_closed(), 5)
    assert (link.received, link.sent) == (2, 0)


async def test_a_line_that_just_ends_is_1006(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.open()
        line.writer.transport.abort()

    link = await join(await raw(script))
    assert await link.receive() is None
    assert link.close_code == 1006


async def test_a_server_that_does_not_answer_our_close_is_cut(raw: Serve) -> None:
    ended: list[bool] = []

    async def script(line: Line) -> None:
        await line.open()
        assert await line.closed_with() == 1000
        ended.append(await line.ended())

    link = await join(await raw(script), close_timeout=0.2)
    await leave(link)
    await until(lambda: ended)
    assert ended == [True]


async def test_the_server_ends_the_line_first(raw: Serve) -> None:
    """RFC 6455 section 7.1.1: else the sockets in TIME_WAIT would be ours, not the server's."""
    waited: list[bool] = []

    async def script(line: Line) -> None:
        await line.open()
        code = await line.closed_with()
        line.send(frame(CLOSE, struct.pack("!H", code), mask=False))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(line.reader.read(1), 0.2)
            return
        waited.append(True)
        line.writer.close()

    await leave(await join(await raw(script)))
    assert waited == [True]


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65_535, 65_536, 200_001])
def test_masked_frames_are_what_rfc6455_says(size: int) -> None:
    payload = os.urandom(size)
    one, two = prepare(payload, masked=True), prepare(payload, masked=True)
    assert one != two, "each has a key of its own"
    assert unmasked(one) == frame(BINARY, payload, mask=False)


# -------------------------------------------------------------------------------------------------------- foreign and own server


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
async def test_a_foreign_server_gets_and_gives_every_size(size: int) -> None:
    async def echo(line: ServerConnection) -> None:
        async for message in line:
            await line.send(message)

    async with serve(echo, "127.0.0.1", 0, compression="deflate", max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        link = await join(f"127.0.0.1:{port}", max_message=200_000)
        for message in ("x" * size, os.urandom(size)):
            assert link.send(message)
            assert await link.receive() == message
        await leave(link)
        assert link.close_code == 1000


async def test_a_foreign_server_refuses_by_credentials_and_chooses_a_subprotocol() -> None:
    def check(line: ServerConnection, request: Request) -> Response | None:
        good = "Basic " + base64.b64encode(b"station:secret").decode()
        return None if request.headers.get("Authorization") == good else line.respond(HTTPStatus.UNAUTHORIZED, "who are you?\n")

    async def quiet(line: ServerConnection) -> None:
        await line.wait_closed()

    async with serve(quiet, "127.0.0.1", 0, process_request=check, subprotocols=["OS3P1.0"]) as server:  # type: ignore[list-item]
        where = f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with pytest.raises(HandshakeRefused, match="401: who are you") as caught:
            await join(where, credentials=("station", "wrong"))
        assert "wrong" not in str(caught.value)
        link = await join(where, credentials=("station", "secret"), subprotocols=("OS3P2.0", "OS3P1.0"))
        assert link.subprotocol == "OS3P1.0"
        await leave(link)


@pytest.fixture
async def ours() -> AsyncIterator[Callable[..., Awaitable[tuple[WebSocketServer, str]]]]:
    """Our own server, which echoes."""
    started: list[WebSocketServer] = []

    async def echo(connection: Connection) -> None:
        async for message in connection:
            connection.send(message)

    async def start(**more: Any) -> tuple[WebSocketServer, str]:
        server = WebSocketServer("127.0.0.1", 0, echo, **{"admit": lambda request: Accept(), "key": "test", "clock": Clock(), **more})
        started.append(server)
        return server, await server.start()

    yield start
    for server in started:
        await server.stop()


async def test_tls_of_both_sides(ours: Any, raw: Serve) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    seen: list[HandshakeRequest] = []

    def admit(request: HandshakeRequest) -> Accept:
        seen.append(request)
        return Accept()

    _, where = await ours(tls=tls, admit=admit, max_message=100_000)
    port = where.rpartition(":")[2]
    mine = ssl.create_default_context()
    authority.configure_trust(mine)
    with pytest.raises(TlsFailed, match="certificate is not accepted"):
        await connect(f"wss://localhost:{port}/", clock=Clock())
    with pytest.raises(ConnectFailed, match=r"(wants a client certificate|certificate required)"):  # TLS 1.3 says so only behind its handshake
        await connect(f"wss://localhost:{port}/", clock=Clock(), tls=mine)
    authority.issue_cert("station-1.example").configure_cert(mine)
    with pytest.raises(TlsFailed, match="certificate is not accepted"):
        await connect(f"wss://127.0.0.1:{port}/", clock=Clock(), tls=mine)
    link = await connect(f"wss://localhost:{port}/", clock=Clock(), tls=mine)
    for size in (10, 100_000):
        link.send("x" * size)
        assert await asyncio.wait_for(link.receive(), 5) == "x" * size
    await leave(link)
    assert ("DNS", "station-1.example") in (seen[0].certificate or {})["subjectAltName"]

    async def plain(line: Line) -> None:
        await line.reader.read(100)
        line.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with pytest.raises(TlsFailed, match="no TLS with this server"):
        await connect(f"wss://{await raw(plain)}/", clock=Clock(), tls=mine, connect_timeout=3.0)


async def test_slow_takers_do_not_fill_our_memory(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.open()
        await asyncio.sleep(60)

    link = await join(await raw(script), write_limit=300_000, high_water=50_000)
    for _ in range(10_000):
        if not link.send(b"x" * 10_000):
            break
        await asyncio.sleep(0)
    assert link.close_code == 1013


async def test_more_than_we_take_is_left_on_the_line(raw: Serve) -> None:
    async def script(line: Line) -> None:
        await line.open(then=b"".join(frame(TEXT, str(number).encode(), mask=False) for number in range(500)))
        await line.closed_with()
        line.writer.close()

    link = await join(await raw(script), max_queue=2)
    assert [await link.receive() for _ in range(500)] == [str(number) for number in range(500)]
    await leave(link)


# ---------------------------------------------------------------------------------------------------------------- bad networks


async def test_pings_begin_change_and_end_while_it_is_open(raw: Serve) -> None:
    came: list[float] = []
    loop = asyncio.get_running_loop()

    async def script(line: Line) -> None:
        await line.open()
        while (ping := await line.frame()).opcode == PING:
            came.append(loop.time())
            line.send(frame(PONG, ping.payload, mask=False))
        line.send(frame(CLOSE, ping.payload, mask=False))
        line.writer.close()

    link = await join(await raw(script))
    await asyncio.sleep(0.15)
    assert came == [], "0 means none"
    link.ping_interval = 0.05
    await until(lambda: len(came) == 4)
    link.ping_interval = 0.0
    await asyncio.sleep(0.2)
    assert len(came) <= 5
    assert all(0.03 < late - early < 0.2 for early, late in itertools.pairwise(came))
    with pytest.raises(ValueError, match="0 or more"):
        link.ping_interval = -1.0
    await leave(link)


@pytest.mark.parametrize("ways", [(), (DOWN,)])
async def test_a_half_open_line_is_found_by_ping_and_both_sides_end(ways: tuple[str, ...], ours: Any) -> None:
    server, where = await ours(ping_interval=0.2, close_timeout=0.2)
    proxy = Proxy(where)
    link = await join(await proxy.start(), ping_interval=0.2, ping_timeout=0.3, close_timeout=0.2)
    link.send("works")
    assert await link.receive() == "works"
    await asyncio.sleep(0.7)
    assert link.open
    proxy.half_open(*ways)
    assert await asyncio.wait_for(link.receive(), 3) is None
    assert (link.close_code, link.close_reason) == (1011, "no answer to a ping")
    await asyncio.wait_for(link.wait_closed(), 3)
    await until(lambda: len(server) == 0)
    again = await join(proxy.address)
    again.send("a new line works")
    assert await again.receive() == "a new line works"
    await leave(again)
    await proxy.stop()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_line_is_noticed_at_once_by_both(reset: bool, ours: Any) -> None:
    server, where = await ours()
    proxy = Proxy(where)
    link = await join(await proxy.start())
    link.send("works")
    assert await link.receive() == "works"
    proxy.cut(reset=reset)
    assert await asyncio.wait_for(link.receive(), 2) is None
    assert link.close_code == 1006
    await until(lambda: len(server) == 0)
    await proxy.stop()


async def test_a_slow_and_a_thin_line_work(ours: Any) -> None:
    _, where = await ours()
    proxy = Proxy(where)
    proxy.delay, proxy.speed = 0.02, 100_000
    link = await join(await proxy.start(), max_message=100_000)
    for message in ("x" * 20_000, "short"):
        link.send(message)
        assert await asyncio.wait_for(link.receive(), 5) == message
    await leave(link)
    await proxy.stop()


async def test_wherever_a_handshake_is_cut_there_is_an_error_in_words(ours: Any) -> None:
    server, where = await ours()
    proxy = Proxy(where)
    url = await proxy.start()
    for cut_after in (*range(0, 250, 23), 1, 2, 3):
        proxy.cut_after, proxy.cut_by_reset = cut_after, bool(cut_after % 2)
        with pytest.raises(Unreachable, match="line ended before the handshake"):
            await join(url)
    proxy.cut_after = None
    proxy.deaf = True
    with pytest.raises(ConnectTimeout):
        await join(url, connect_timeout=0.2)
    proxy.deaf, proxy.refusing = False, True
    with pytest.raises(Unreachable):
        await join(url)
    proxy.refusing = False
    await leave(await join(url))
    await until(lambda: len(server) == 0 and not server._halfway)
    await proxy.stop()


async def test_a_stream_whose_pieces_come_twice_ends_by_the_rules(ours: Any) -> None:
    """The second copy of the handshake is no frame."""
    server, where = await ours()
    proxy = Proxy(where)
    proxy.change = twice
    url = await proxy.start()
    with contextlib.suppress(ConnectFailed):
        link = await join(url)
        assert await asyncio.wait_for(link.receive(), 3) is None
        assert link.close_code in (1002, 1006, 1009)
    await until(lambda: len(server) == 0)
    await proxy.stop()


async def test_nobody_reads_is_no_dead_peer(raw: Serve) -> None:
    """While our own queue is full we do not read, so no pong can be seen."""

    async def script(line: Line) -> None:
        await line.open(then=frame(TEXT, b"x" * 900, mask=False) * 200)
        await line.closed_with()
        line.writer.close()

    link = await join(await raw(script), max_queue=1, ping_interval=0.05, ping_timeout=0.05)
    await asyncio.sleep(0.3)
    assert link.open
    await leave(link)


def test_random_bytes_from_a_server_never_harm_the_client() -> None:
    """Whatever it answers, connect ends in an error of its tree or a connection that ends; nothing else is raised or logged."""
    messages: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record)

    keep = Keep(logging.WARNING)
    logging.getLogger().addHandler(keep)
    loop = asyncio.new_event_loop()

    async def meet(answer: list[bytes], shaken: bool) -> None:
        async def script(line: Line) -> None:
            await (line.open() if shaken else line.hear())
            for piece in answer:
                line.send(piece)
                await asyncio.sleep(0)
            line.writer.close()

        server = RawServer(script)
        where = await server.start()
        with contextlib.suppress(ConnectFailed):
            link = await join(where, close_timeout=0.2)
            while await asyncio.wait_for(link.receive(), 5) is not None:
                pass
            await asyncio.wait_for(link.wait_closed(), 5)
        await server.stop()

    pieces = st.one_of(
        st.binary(max_size=200),
        st.sampled_from([b"HTTP/1.1 ", b"101", b"\r\n", b"\r\n\r\n", b"Upgrade: websocket\r\n", b"503 x\r\nRetry-After: 9\r\n"]),
        st.builds(frame, st.integers(0, 15), st.binary(max_size=140), fin=st.booleans(), mask=st.sampled_from([False, False, True])),
    )

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(pieces, max_size=6), st.booleans())
    def fuzz(answer: list[bytes], shaken: bool) -> None:
        loop.run_until_complete(meet(answer, shaken))

    try:
        fuzz()
    finally:
        logging.getLogger().removeHandler(keep)
        loop.close()
    assert [record.getMessage() for record in messages] == []
