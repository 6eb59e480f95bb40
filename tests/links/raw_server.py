"""A WebSocket server made of a socket and RFC 6455: it shares no code with us, and may break every rule."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable

from tests.links.raw import CLOSE, TEXT, Frame, frame


def accepted(key: str, *lines: str, without: str = "") -> bytes:
    """The answer that completes a handshake, with ``lines``; ``without`` leaves out the fields whose name begins so."""
    digest = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
    fields = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {digest}"]
    fields = [field for field in fields if not without or not field.lower().startswith(without)]
    return ("\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, *lines]) + "\r\n\r\n").encode()


class Line:
    """A client's line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""
        self.fields: dict[str, str] = {}

    @property
    def key(self) -> str:
        return self.fields["sec-websocket-key"]

    async def hear(self) -> None:
        """Read the request."""
        self.request = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        for field in self.request.decode().split("\r\n")[1:-2]:
            name, _, value = field.partition(": ")
            assert name.lower() not in self.fields, f"{name} twice"
            self.fields[name.lower()] = value

    async def open(self, *lines: str, then: bytes = b"") -> None:
        """Read the request and complete the handshake; ``then`` goes out in the same packet."""
        await self.hear()
        self.send(accepted(self.key, *lines) + then)

    def send(self, *data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(b"".join(data))

    def text(self, message: str) -> None:
        """A text message."""
        self.send(frame(TEXT, message.encode(), mask=False))

    async def frame(self, timeout: float = 5) -> Frame:
        """The next frame of the client. It must be masked (RFC 6455 section 5.1)."""

        async def read() -> Frame:
            first, second = await self.reader.readexactly(2)
            assert second & 0x80, "a client masks"
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            mask = await self.reader.readexactly(4)
            payload = await self.reader.readexactly(size)
            return Frame(first, bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload)))

        return await asyncio.wait_for(read(), timeout)

    async def closed_with(self) -> int:
        """Skip to the client's close frame; its code."""
        while (came := await self.frame()).opcode != CLOSE:
            pass
        return came.code

    async def ended(self, timeout: float = 5) -> bool:
        """Whether the line ends without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), timeout) == b""
        except ConnectionError:
            return True


class RawServer:
    """Runs ``script`` for every line that comes, and keeps what it raised (``failures``)."""

    def __init__(self, script: Callable[[Line], Awaitable[None]]) -> None:
        self.script = script
        self.lines: list[Line] = []
        self.failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Returns ``host:port``."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Ends everything; raises what a script raised."""
        assert self._server is not None
        self._server.close()
        for line in self.lines:
            line.writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.failures:
            raise self.failures[0]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        self.lines.append(line)
        try:
            await self.script(line)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the test ends; asyncio would log what is cancelled
        except Exception as error:  # noqa: BLE001  # stop() raises it in the test
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
