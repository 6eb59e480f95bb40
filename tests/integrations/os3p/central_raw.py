"""A Central System of our own hand: sockets, handshake, frames and JSON arrays written out here; nothing of the product is imported.

    async with central() as office:
        line = await office.line()              # the next connection
        boot = await line.asked("BootNotification")
        assert await line.call("GetConfiguration") == {...}

What the station asks is answered by ``office.replies``: action -> a payload, a list of code, description and details, ``SILENT``, or a function of
the payload that gives one of these.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
SILENT = "nothing is answered"


class Refused(Exception):
    """The station answered with a CALLERROR."""

    def __init__(self, code: str, description: str, details: Any) -> None:
        super().__init__(f"{code}: {description} {details}")
        self.code = code
        self.description = description
        self.details = details


class Gone(Exception):
    """The line ended: ``code`` as the station said, 1006 when it said nothing."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


def now() -> str:
    """As a Central System tells the time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(text: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()


class Line:
    """One connection of the station."""

    def __init__(self, office: Central, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.office = office
        self.reader = reader
        self.writer = writer
        self.target = head.split(" ")[1]
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)}
        self.calls: list[tuple[str, Any]] = []
        """Every CALL that came, whoever took it."""
        self.heard: list[Any] = []
        """Every message that came, in order."""
        self.pings = 0
        self.pongs: list[bytes] = []
        self.ended: Gone | None = None
        self._taken = 0
        self._left: list[tuple[str, Any]] = []
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()

    def frame(self, opcode: int, payload: bytes = b"") -> None:
        """One whole frame, unmasked."""
        size = len(payload)
        if size < 126:
            head = bytes((0x80 | opcode, size))
        elif size < 65_536:
            head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
        self.writer.write(head + payload)

    def say(self, message: Any) -> None:
        """Text as it is, anything else as JSON."""
        self.frame(TEXT, (message if isinstance(message, str) else json.dumps(message)).encode())

    async def call(self, action: str, payload: Any = None, *, id: str | None = None, timeout: float = 10) -> Any:
        """Ask the station. Raises Refused, Gone, TimeoutError."""
        id = id or f"c{next(self.office.ids)}"
        self._waiting[id] = asyncio.get_running_loop().create_future()
        self.say([2, id, action, {} if payload is None else payload])
        return await asyncio.wait_for(self._waiting[id], timeout)

    async def asked(self, action: str, timeout: float = 10) -> Any:
        """The payload of the station's next CALL of this action that nobody has taken yet."""

        async def look() -> Any:
            while True:
                self._left += self.calls[self._taken :]
                self._taken = len(self.calls)
                for place, (name, payload) in enumerate(self._left):
                    if name == action:
                        del self._left[place]
                        return payload
                if self.ended is not None:
                    raise self.ended
                self._news.clear()
                await self._news.wait()

        return await asyncio.wait_for(look(), timeout)

    async def quiet(self, *actions: str, seconds: float = 0.3) -> bool:
        """Whether no CALL comes for so long (of these actions, if any are named)."""
        before = len(self.calls)
        await asyncio.sleep(seconds)
        return not [name for name, _ in self.calls[before:] if not actions or name in actions]

    async def gone(self, timeout: float = 10) -> int:
        """The code of its end."""

        async def look() -> int:
            while self.ended is None:
                self._news.clear()
                await self._news.wait()
            return self.ended.code

        return await asyncio.wait_for(look(), timeout)

    def cut(self) -> None:
        """End the line without a word."""
        self.writer.transport.abort()

    def close(self, code: int = 1000) -> None:
        """Begin to close."""
        self.frame(CLOSE, code.to_bytes(2, "big"))

    async def run(self) -> None:
        """Until the line ends."""
        code = 1006
        try:
            while True:
                opcode, payload = await self._next()
                if opcode == CLOSE:
                    code = int.from_bytes(payload[:2], "big") if payload else 1005
                    self.frame(CLOSE, payload[:2])
                    break
                if opcode == PING:
                    self.pings += 1
                    self.frame(PONG, payload)
                elif opcode == PONG:
                    self.pongs.append(payload)
                else:
                    self._take(json.loads(payload))
                self._news.set()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.ended = Gone(code)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(self.ended)
                    waiting.exception()
            self._news.set()
            self.writer.close()

    def _take(self, message: Any) -> None:
        self.heard.append(message)
        if message[0] == 2:
            assert len(message) == 4, message
            _, id, action, payload = message
            self.calls.append((action, payload))
            self.office.told.append((action, payload))
            reply = self.office.replies.get(action, {})
            if callable(reply):
                reply = reply(payload)
            if isinstance(reply, list):
                self.say([4, id, *reply])
            elif reply is not SILENT:
                self.say([3, id, reply])
            self.office.after(action)
            return
        waiting = self._waiting.get(message[1])
        if waiting is None or waiting.done():
            return
        if message[0] == 3:
            assert len(message) == 3, message
            waiting.set_result(message[2])
        else:
            assert message[0] == 4, message
            assert len(message) == 5, message
            waiting.set_exception(Refused(*message[2:]))

    async def _next(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        assert first & 0x70 == 0, "a reserved bit, though no extension was agreed"
        assert second & 0x80, "a client masks"
        assert first & 0x80, "the station sends whole messages"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await self.reader.readexactly(8), "big")
        mask = await self.reader.readexactly(4)
        payload = await self.reader.readexactly(size)
        pad = (mask * (size // 4 + 1))[:size]
        return first & 0x0F, (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big") if size else b""


class Central:
    """Listens on a free port. ``protocol``: what it answers as subprotocol, None: nothing; ``refuse``: an HTTP answer instead of a WebSocket."""

    def __init__(self) -> None:
        self.protocol: str | None = "OS3P1.0"
        self.refuse = b""
        self.interval = 300
        self.status = "Accepted"
        self.ids = itertools.count(1)
        self.replies: dict[str, Any] = {"BootNotification": self.registered, "Heartbeat": lambda _: {"currentTime": self.time()}}
        self.time: Callable[[], str] = now
        self.told: list[tuple[str, Any]] = []
        """Every CALL of every connection."""
        self.after: Callable[[str], None] = lambda action: None
        self.knocks = 0
        self.lines: list[Line] = []
        self.where = ""
        self._taken = 0
        self._news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def registered(self, _: Any = None) -> Any:
        """The answer to a BootNotification."""
        return {"status": self.status, "currentTime": self.time(), "interval": self.interval}

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"ws://{self.where}/OS3P"

    async def start(self) -> str:
        """Listen (again on the same port); ``host:port``."""
        port = int(self.where.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.where = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.where

    async def stop(self) -> None:
        """All lines end."""
        if self._server is not None:
            self._server.close()
        for line in self.lines:
            line.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def line(self, timeout: float = 10) -> Line:
        """The next connection that nobody has taken yet."""

        async def look() -> Line:
            while len(self.lines) <= self._taken:
                self._news.clear()
                await self._news.wait()
            self._taken += 1
            return self.lines[self._taken - 1]

        return await asyncio.wait_for(look(), timeout)

    def all(self, action: str) -> list[Any]:
        """Payloads of every CALL of an action so far."""
        return [payload for name, payload in self.told if name == action]

    async def until(self, condition: Callable[[], Any], timeout: float = 10) -> None:
        """Wait for something to be so."""

        async def look() -> None:
            while not condition():
                await asyncio.sleep(0.005)

        await asyncio.wait_for(look(), timeout)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            pass  # the test ends, or nobody speaks HTTP; asyncio would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.knocks += 1
        if self.refuse:
            writer.write(self.refuse)
            await writer.drain()
            writer.close()
            return
        line = Line(self, reader, writer, head)
        digest = base64.b64encode(hashlib.sha1((line.headers["sec-websocket-key"] + MAGIC).encode()).digest()).decode()
        fields = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {digest}"]
        if self.protocol is not None:
            fields.append(f"Sec-WebSocket-Protocol: {self.protocol}")
        writer.write(("\r\n".join(fields) + "\r\n\r\n").encode())
        self.lines.append(line)
        self._news.set()
        await line.run()


@contextlib.asynccontextmanager
async def central() -> AsyncIterator[Central]:
    """Listening, and gone in the end."""
    office = Central()
    await office.start()
    try:
        yield office
    finally:
        await office.stop()


Check = Callable[[Line], Awaitable[None]]
