"""Who comes in, how fast, and who decides it: the server's side of a mass reconnect."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.links.raw import CLOSE, Answer, Raw, frame, handshake
from tests.links.test_websocket import until

from gridloom.core.clock import Clock
from gridloom.links.websocket import POLICY, Accept, Connection, HandshakeRequest, Reject, WebSocketServer, _Pace
from gridloom.links.websocket_client import HandshakeRefused, connect


async def echo(connection: Connection) -> None:
    async for message in connection:
        connection.send(message)


@pytest.fixture
async def start() -> AsyncIterator[Any]:
    """Starts listeners, and stops them; nothing of a line is left."""
    started: list[WebSocketServer] = []

    async def make(handler: Any = echo, **more: Any) -> tuple[WebSocketServer, str]:
        server = WebSocketServer("127.0.0.1", 0, handler, **{"admit": lambda request: Accept(), "key": "test", "clock": Clock(), **more})
        started.append(server)
        return server, await server.start()

    yield make
    await Raw.close_all()
    for server in started:
        await server.stop()
        await asyncio.sleep(0)
        assert not server._halfway
        assert len(server) == 0


async def knock(where: str, path: str = "/", *lines: str) -> tuple[Raw, Answer]:
    raw = await Raw.connect(where)
    return raw, await raw.ask(handshake(path, *lines))


# ----------------------------------------------------------------------------------------------------------------------- pace


def test_the_pace_lets_a_burst_in_then_one_after_the_other_and_turns_away_who_would_wait_too_long() -> None:
    pace = _Pace(rate=10.0, burst=3, patience=0.45)
    waits = [pace.wait(100.0) for _ in range(10)]
    assert waits[:7] == [pytest.approx(number / 10, abs=1e-9) for number in (0, 0, 0, 1, 2, 3, 4)]
    assert waits[7:] == [None] * 3
    assert pace.spread() == pytest.approx(0.3), "three were turned away"
    assert pace.wait(100.25) == pytest.approx(0.25), "a place became free"
    assert pace.wait(200.0) == 0.0
    assert pace.spread() == 0.0, "the crowd is gone"
    assert [pace.wait(300.0) for _ in range(4)] == [pytest.approx(wait, abs=1e-9) for wait in (0, 0, 0, 0.1)], (
        "quiet times do not save up more than a burst"
    )


async def test_a_crowd_waits_in_order_and_the_rest_is_spread(start: Any) -> None:
    order: list[str] = []

    def admit(request: HandshakeRequest) -> Accept:
        order.append(request.path)
        return Accept()

    server, where = await start(admit=admit, handshakes_per_second=50.0, handshake_burst=2, handshake_queue=0.5, retry_after=2)
    lines = [await Raw.connect(where) for _ in range(60)]
    for number, raw in enumerate(lines):
        raw.send(handshake(f"/{number}"))
        await asyncio.sleep(0)
    answers = [await raw.answer() for raw in lines]
    accepted = [number for number, answer in enumerate(answers) if answer.status == 101]
    refused = [answer for answer in answers if answer.status == 503]
    assert 20 <= len(accepted) <= 40
    assert len(accepted) + len(refused) == 60
    assert order == [f"/{number}" for number in accepted], "first come, first served"
    assert server.crowded == server.refused == len(refused)
    assert all(2 <= int(answer.headers["retry-after"]) <= 5 for answer in refused)
    assert len({answer.headers["retry-after"] for answer in refused}) > 1, "they do not come back in step"


async def test_without_a_pace_everybody_comes_in_at_once(start: Any) -> None:
    server, where = await start()
    await asyncio.gather(*[knock(where) for _ in range(100)])
    assert server.crowded == 0
    assert len(server) == 100


async def test_who_leaves_while_waiting_is_forgotten_and_stopping_ends_the_queue(start: Any) -> None:
    asked: list[str] = []

    def admit(request: HandshakeRequest) -> Accept:
        asked.append(request.path)
        return Accept()

    server, where = await start(admit=admit, handshakes_per_second=2.0, handshake_burst=1, handshake_queue=10.0, close_timeout=0.2)
    await Raw.open(where)
    waiting = [await Raw.connect(where) for _ in range(3)]
    for raw in waiting:
        raw.send(handshake("/waiting"))
    await until(lambda: sum(entrance._judging is not None for entrance in server._halfway) == 3)
    await server.stop()
    assert asked == ["/"]
    for raw in waiting:
        assert await raw.ended()


async def test_what_is_sent_while_waiting_is_heard_behind_the_handshake(start: Any) -> None:
    _, where = await start(handshakes_per_second=5.0, handshake_burst=1)
    await Raw.open(where)
    raw = await Raw.connect(where)
    raw.send(handshake() + frame(1, b"in the same packet"))
    await asyncio.sleep(0.05)
    raw.send(frame(1, b"later, still before the answer"))
    assert (await raw.answer()).status == 101
    assert (await raw.frame()).payload == b"in the same packet"
    assert (await raw.frame()).payload == b"later, still before the answer"


def test_a_pace_that_is_none_is_refused() -> None:
    for more in ({"handshakes_per_second": 0.0}, {"handshakes_per_second": 1.0, "handshake_burst": 0}):
        with pytest.raises(ValueError, match="handshakes_per_second above 0"):
            WebSocketServer("127.0.0.1", 0, echo, admit=lambda request: Accept(), key="test", clock=Clock(), **more)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- slow decisions


async def test_a_slow_verifier_in_a_thread_holds_up_nobody_else(start: Any) -> None:
    gate = threading.Event()

    async def ask(request: HandshakeRequest) -> Accept | Reject:
        good = await asyncio.to_thread(lambda: gate.wait(5) and request.secret("slow") == b"secret")
        return Accept(context="verified") if good else Reject(401, "Who are you?", (("WWW-Authenticate", 'Basic realm="os3p"'),))

    def admit(request: HandshakeRequest) -> Any:
        return Accept(context="cached") if request.path == "/cached" else ask(request)

    async def handler(connection: Connection) -> None:
        connection.send(str(connection.context))
        await connection.receive()

    _, where = await start(handler, admit=admit)
    slow = asyncio.ensure_future(connect(f"ws://slow:secret@{where}/slow", clock=Clock()))
    wrong = asyncio.ensure_future(connect(f"ws://slow:wrong@{where}/slow", clock=Clock()))
    for _ in range(20):
        cached = await connect(f"ws://{where}/cached", clock=Clock())
        assert await cached.receive() == "cached"
        cached.abort()
    assert not slow.done()
    gate.set()
    link = await asyncio.wait_for(slow, 5)
    assert await link.receive() == "verified"
    link.abort()
    with pytest.raises(HandshakeRefused) as caught:
        await wrong
    assert caught.value.http_status == 401
    assert caught.value.headers["www-authenticate"] == 'Basic realm="os3p"'


async def test_a_decision_that_takes_too_long_is_503_and_is_cancelled(start: Any) -> None:
    cancelled: list[bool] = []

    async def ask(request: HandshakeRequest) -> Accept:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return Accept()

    server, where = await start(admit=ask, handshake_timeout=0.2)
    raw, answer = await knock(where)
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "too long" in await raw.body(answer)
    assert await raw.ended()
    await until(lambda: cancelled)
    assert (server.refused, server.crowded, len(server)) == (1, 1, 0)


async def test_a_decision_that_fails_or_does_not_fit_tells_nothing(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def ask(request: HandshakeRequest) -> Accept:
        if request.path == "/fail":
            raise RuntimeError("inner secret")
        return Accept(subprotocol="never offered")

    _, where = await start(admit=ask)
    for path in ("/fail", "/protocol"):
        raw, answer = await knock(where, path)
        assert answer.status == 500
        assert "inner secret" not in await raw.body(answer)
    assert "inner secret" in caplog.text
    assert "never offered" not in (await raw.reader.read()).decode()


async def test_the_limit_holds_also_for_those_who_were_let_in_later(start: Any) -> None:
    gate = asyncio.Event()

    async def ask(request: HandshakeRequest) -> Accept:
        await gate.wait()
        return Accept()

    server, where = await start(admit=ask, max_connections=2)
    lines = [await Raw.connect(where) for _ in range(2)]
    for raw in lines:
        raw.send(handshake())
    await until(lambda: sum(entrance._judging is not None for entrance in server._halfway) == 2)
    server._max_connections = 1
    gate.set()
    assert sorted([(await raw.answer()).status for raw in lines]) == [101, 503]


# --------------------------------------------------------------------------------------------------------- what servers need


@pytest.mark.parametrize(
    ("line", "user", "secret"),
    [
        ("Basic " + base64.b64encode(b"SUBS 1:pass:word").decode(), "SUBS 1", b"pass:word"),
        ("Basic " + base64.b64encode(b"SUBS 1:pass:word").decode(), "SUBS 1:pass", b"word"),
        ("Basic " + base64.b64encode(b"SUBS 1:pass:word").decode(), "SUBS", None),
        ("Basic " + base64.b64encode(b"SUBS 1:").decode(), "SUBS 1", b""),
        ("basic   " + base64.b64encode("é:\xff".encode("latin-1")).decode(), "é", None),
        ("Basic " + base64.b64encode("é".encode() + b":\xff\x00").decode(), "é", b"\xff\x00"),
        ("Basic " + base64.b64encode(b"no colon").decode(), "no colon", None),
        ("Basic ####", "", None),
        ("Bearer token", "", None),
    ],
)
async def test_basic_credentials_are_read_or_none(line: str, user: str, secret: bytes | None, start: Any) -> None:
    seen: list[Any] = []

    def admit(request: HandshakeRequest) -> Accept:
        seen.append(request.secret(user))
        return Accept()

    _, where = await start(admit=admit)
    await knock(where, "/", f"Authorization: {line}")
    await knock(where)
    assert seen == [secret, None]


async def test_the_newest_connection_may_end_the_older_one(start: Any) -> None:
    stations: dict[str, Connection] = {}

    async def handler(connection: Connection) -> None:
        older = stations.get(connection.path)
        stations[connection.path] = connection
        if older is not None:
            older.close(POLICY, "a newer connection of this station")
        await echo(connection)

    server, where = await start(handler)
    first, other = await Raw.open(where, "/a"), await Raw.open(where, "/b")
    second = await Raw.open(where, "/a")
    closed = await first.frame()
    assert (closed.opcode, closed.code, closed.payload[2:]) == (CLOSE, 1008, b"a newer connection of this station")
    first.send(frame(CLOSE, closed.payload))
    assert await first.ended()
    for raw in (second, other):
        raw.text("still here")
        assert (await raw.frame()).payload == b"still here"
    await until(lambda: len(server) == 2)


async def test_a_connection_counts_what_came_and_went(start: Any) -> None:
    server, where = await start()
    raw = await Raw.open(where)
    for size in (5, 200):
        raw.text("x" * size)
        await raw.frame()
    (connection,) = server.connections
    assert (connection.received, connection.received_size, connection.sent, connection.sent_bytes) == (2, 205, 2, 2 + 5 + 4 + 200)


async def test_the_system_watches_idle_lines_and_the_handshake_is_not_kept(start: Any) -> None:
    import socket

    server, where = await start(keepalive=120)
    _, answer = await knock(where, "/", "Authorization: Basic c2VjcmV0OnNlY3JldA==")
    assert answer.status == 101
    await until(lambda: len(server) == 1)
    (connection,) = server.connections
    assert connection._transport is not None
    line = connection._wire.get_extra_info("socket")
    assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120
    assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000
    assert not hasattr(connection._transport.request, "headers"), "nor are the secrets in it"
    assert connection._queue is None
    link = await connect(f"ws://{where}/", clock=Clock(), keepalive=77)
    assert link._wire.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 77
    link.abort()


async def test_a_thousand_at_once_are_all_back_and_nobody_starves(start: Any) -> None:
    """Clients that heed Retry-After; the clock runs twenty times as fast."""
    clock = Clock(speed=20.0)
    server, where = await start(clock=clock, handshakes_per_second=50.0, handshake_burst=20, handshake_queue=3.0, retry_after=1)
    begin = clock.monotonic()
    tries: list[int] = []

    async def station() -> None:
        for number in range(1, 30):
            raw, answer = await knock(where)
            if answer.status == 101:
                tries.append(number)
                return
            raw.hang_up()
            await clock.sleep(float(answer.headers["retry-after"]))

    await asyncio.gather(*[station() for _ in range(1_000)])
    assert len(tries) == len(server) == 1_000
    assert clock.monotonic() - begin < 60
    assert max(tries) < 12
