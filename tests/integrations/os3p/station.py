"""A substation of our own hand: sockets, handshake, frames and JSON arrays written out here; nothing of the product is imported."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import os
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

BOOT = {
    "vendor": "BrandX", "model": "SUBS-A1", "stationNumber": "987654321", "serialNumber": "AQ1234VB5678",
    "firmwareVersion": "1.1.0", "iccid": "83310415107943019317", "imsi": "080921439201835338",
}  # fmt: skip


class Refused(Exception):
    """The server answered with something other than 101."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {answer.body!r}")
        self.status = answer.status
        self.answer = answer


class Closed(Exception):
    """The server closed: ``code`` 1006 is a line that just ended."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Answer:
    """The server's answer to a handshake."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body


class CallError(Exception):
    """The server answered with a CALLERROR."""

    def __init__(self, code: str, description: str, details: Any) -> None:
        super().__init__(f"{code}: {description} {details}")
        self.code = code
        self.description = description
        self.details = details


def request(
    target: str,
    *,
    protocols: Sequence[str] | None = ("OS3P1.0",),
    headers: Sequence[tuple[str, str]] = (),
    version: str = "13",
    upgrade: bool = True,
    key: str = "",
) -> tuple[bytes, str]:
    """The bytes of a handshake and the key in it. Each of ``protocols`` that holds a comma or stands alone is one header line."""
    key = key or base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {target} HTTP/1.1", "Host: hub.example"]
    if upgrade:
        lines += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}"]
    lines += [f"Sec-WebSocket-Protocol: {line}" for line in protocols or ()]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1"), key


def basic(user: str, secret: str) -> tuple[str, str]:
    """The header of HTTP Basic."""
    return "Authorization", "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


class Station:
    """One connection. CALLs that come are kept in ``asked`` until somebody takes them (``asked_for``) and are answered by hand or by ``replies``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self.reader = reader
        self.writer = writer
        self.answer = answer
        self.subprotocol = answer.headers.get("sec-websocket-protocol")
        self.replies: dict[str, Any] = {}
        """What is answered to a CALL of the server by itself: action -> payload, or a list of error code, description, details; or what makes one of
        them from the payload that came, None for no answer."""
        self.asked: list[list[Any]] = []
        self.messages: list[Any] = []
        self.pings = 0
        self.pongs: list[bytes] = []
        self.ended: Closed | None = None
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()
        self._ids = itertools.count(1)
        self._listening = asyncio.create_task(self._listen())

    # ------------------------------------------------------------------------------------------------------------ sending

    def frame(self, opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> None:
        """One frame, as it is."""
        size = len(payload)
        head = bytes(((0x80 if fin else 0) | opcode,))
        mark = 0x80 if masked else 0
        if size < 126:
            head += bytes((mark | size,))
        elif size < 65_536:
            head += bytes((mark | 126,)) + size.to_bytes(2, "big")
        else:
            head += bytes((mark | 127,)) + size.to_bytes(8, "big")
        if masked:
            mask = os.urandom(4)
            # As one big number: byte by byte a megabyte takes a second.
            pad = (mask * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
            head += mask
        self.writer.write(head + payload)

    def say(self, message: Any) -> None:
        """Text as it is, bytes as a text frame of them, anything else as JSON."""
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes):
            message = json.dumps(message).encode()
        self.frame(TEXT, message)

    async def call(self, action: str, payload: Any = None, *, id: str | None = None, timeout: float = 10.0) -> Any:
        """A CALL, and what it results in. Raises CallError, Closed, TimeoutError."""
        id = id or f"s{next(self._ids)}"
        return await self.answered(self.begin(action, payload, id=id), timeout)

    def begin(self, action: str, payload: Any = None, *, id: str) -> asyncio.Future[Any]:
        """Send a CALL and go on."""
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiting
        self.say([2, id, action, {} if payload is None else payload])
        return waiting

    async def answered(self, waiting: asyncio.Future[Any], timeout: float = 10.0) -> Any:
        """The payload of the CALLRESULT."""
        return await asyncio.wait_for(waiting, timeout)

    async def boot(self, **changed: Any) -> Any:
        """A BootNotification with all seven fields."""
        return await self.call("BootNotification", {**BOOT, **changed})

    def result(self, id: str, payload: Any = None) -> None:
        """Answer a CALL of the server."""
        self.say([3, id, {} if payload is None else payload])

    def error(self, id: str, code: str = "NotImplemented", description: str = "", details: Any = None) -> None:
        """Refuse a CALL of the server."""
        self.say([4, id, code, description, details or {}])

    # ---------------------------------------------------------------------------------------------------------- receiving

    async def asked_for(self, action: str, timeout: float = 10.0) -> tuple[str, Any]:
        """Id and payload of the server's next CALL of this action; others are left for later."""

        async def look() -> tuple[str, Any]:
            while True:
                for position, (_, id, name, payload) in enumerate(self.asked):
                    if name == action:
                        del self.asked[position]
                        return id, payload
                if self.ended is not None:
                    raise self.ended
                self._news.clear()
                await self._news.wait()

        return await asyncio.wait_for(look(), timeout)

    async def quiet(self, seconds: float = 0.15) -> bool:
        """Whether nothing comes for so long."""
        before = (len(self.messages), self.ended)
        await asyncio.sleep(seconds)
        return (len(self.messages), self.ended) == before

    async def closed(self, timeout: float = 10.0) -> Closed:
        """How the server closed."""
        await asyncio.wait_for(asyncio.shield(self._listening), timeout)
        assert self.ended is not None
        return self.ended

    async def close(self, code: int = 1000) -> None:
        """Say goodbye, and wait until the line ends."""
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            self.frame(CLOSE, code.to_bytes(2, "big"))
            await asyncio.wait_for(asyncio.shield(self._listening), 5)
        self.cut()

    def cut(self) -> None:
        """End the line at once."""
        self._listening.cancel()
        self.writer.transport.abort()

    async def _listen(self) -> None:
        try:
            while True:
                opcode, payload = await self._next()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big") if payload else 1005
                    self.ended = Closed(code, payload[2:].decode())
                    self.frame(CLOSE, payload[:2])
                    self.writer.close()
                    break
                if opcode == PING:
                    self.pings += 1
                    self.frame(PONG, payload)
                elif opcode == PONG:
                    self.pongs.append(payload)
                elif opcode == TEXT:
                    self._take(json.loads(payload))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended = Closed(1006)
        finally:
            ended = self.ended or Closed(1006)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ended)
                    waiting.exception()  # looked at: not everybody waits to the end
            self._news.set()

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        kind, id = message[0], message[1]
        if kind == 2:
            _, _, action, payload = message
            if action in self.replies:
                reply = self.replies[action]
                if callable(reply):
                    reply = reply(payload)
                if isinstance(reply, list):
                    self.error(id, *reply)
                elif reply is not None:
                    self.result(id, reply)
            self.asked.append(message)
        else:
            waiting = self._waiting.pop(id, None)
            if waiting is not None and not waiting.done():
                if kind == 3:
                    assert len(message) == 3, message
                    waiting.set_result(message[2])
                else:
                    assert kind == 4, message
                    assert len(message) == 5, message
                    waiting.set_exception(CallError(*message[2:]))
        self._news.set()

    async def _next(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        assert first & 0x70 == 0, "a reserved bit, though no extension was agreed"
        assert second & 0x80 == 0, "a server does not mask"
        assert first & 0x80, "the server sends whole messages"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(size)


async def shake(where: str, raw: bytes, tls: ssl.SSLContext | None = None) -> tuple[Answer, asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the bytes of a handshake and read the answer: its body, too, unless it is a 101."""
    host, _, port = where.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="hub.example" if tls is not None else None)
    writer.write(raw)
    try:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1").split("\r\n")
    except BaseException:
        writer.transport.abort()
        raise
    headers: dict[str, str] = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        assert name.lower() not in headers, f"{name} came twice"
        headers[name.lower()] = value.strip()
    answer = Answer(int(head[0].split(" ")[1]), headers)
    if answer.status != 101:
        answer.body = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    return answer, reader, writer


async def knock(where: str, identity: str = "SUBS001", *, path: str = "/OS3P", target: str | None = None, tls: Any = None, **more: Any) -> Answer:
    """A handshake, and nothing more. The line is cut."""
    raw, _ = request(target if target is not None else f"{path}/{quote(identity, safe='')}", **more)
    answer, _, writer = await shake(where, raw, tls)
    writer.transport.abort()
    return answer


async def connected(
    where: str, identity: str = "SUBS001", *, path: str = "/OS3P", target: str | None = None, tls: Any = None, **more: Any
) -> Station:
    """A station that is connected. Raises Refused."""
    raw, key = request(target if target is not None else f"{path}/{quote(identity, safe='')}", **more)
    answer, reader, writer = await shake(where, raw, tls)
    if answer.status != 101:
        raise Refused(answer)
    expected = base64.b64encode(hashlib.sha1((key + _MAGIC).encode()).digest()).decode()
    assert answer.headers["sec-websocket-accept"] == expected
    assert answer.headers["upgrade"].lower() == "websocket"
    assert answer.headers["connection"].lower() == "upgrade"
    assert "sec-websocket-extensions" not in answer.headers
    return Station(reader, writer, answer)


@contextlib.asynccontextmanager
async def station(where: str, identity: str = "SUBS001", **more: Any) -> AsyncIterator[Station]:
    """A station that is connected, and gone in the end."""
    one = await connected(where, identity, **more)
    try:
        yield one
    finally:
        one.cut()
