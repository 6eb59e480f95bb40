"""HTTP streams on the port of a WebSocket listener: plain answers, and responses without an end, for push servers whose clients use either.

``WebSocketServer.admit`` returns an ``Answer`` or a ``Stream`` instead of letting a WebSocket in. A stream is HTTP/1.1 in chunks; sending never
waits, and who does not read is cut off when the bound is reached. Nothing here knows what a message means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from gridloom.links.websocket import Guest, Takeover, WebSocketServer

_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1), to be sent to many. Empty data is none: an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


class Answer(Takeover):
    """A whole answer; the line ends with it."""

    def __init__(self, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()) -> None:
        self.status = status
        self.body = body
        self.headers = tuple(headers)

    def take(self, server: WebSocketServer, transport: Any) -> None:
        """Answer and end the line."""
        length = () if self.status in (204, 304) else (("Content-Length", str(len(self.body))),)
        transport.write(_head(self.status, (*self.headers, *length, ("Connection", "close"))) + self.body)
        transport.close()


class Stream(Takeover):
    """A response that goes on. ``opened`` is given its ``Body`` once the head is sent. ``limit``: bytes that may wait for a slow client."""

    def __init__(self, opened: Callable[[Body], None], headers: Iterable[tuple[str, str]] = (), *, limit: int = 262_144) -> None:
        self.opened = opened
        self.headers = tuple(headers)
        self.limit = limit

    def take(self, server: WebSocketServer, transport: Any) -> None:
        """Send the head; the line is the body's from now on."""
        body = Body(server, transport, self.limit)
        transport.write(_head(200, (*self.headers, ("Transfer-Encoding", "chunked"), ("Connection", "close"))))
        transport.set_protocol(body)
        self.opened(body)


class Later(Takeover):
    """An answer that comes later. ``opened`` is given its ``Pending``."""

    def __init__(self, opened: Callable[[Pending], None]) -> None:
        self.opened = opened

    def take(self, server: WebSocketServer, transport: Any) -> None:
        """The line waits."""
        pending = Pending(server, transport)
        transport.set_protocol(pending)
        self.opened(pending)


class _Line(asyncio.Protocol, Guest):
    """A line that lives on. ``on_end`` is called once, when it has ended for whatever reason."""

    __slots__ = ("_server", "_transport", "on_end", "open")

    def __init__(self, server: WebSocketServer, transport: Any) -> None:
        self.open = True
        self.on_end: Callable[[], None] | None = None
        self._server = server
        self._transport = transport
        server.guests.add(self)

    def data_received(self, data: bytes) -> None:
        """The client has nothing more to say; what it says all the same is not heard."""

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._leave()

    def _leave(self) -> None:
        if self.open:
            self.open = False
            self._server.guests.discard(self)
            if self.on_end is not None:
                self.on_end()


class Pending(_Line):
    """A request that waits for its answer."""

    __slots__ = ()

    def answer(self, answer: Answer) -> None:
        """Answer and end the line. Nothing when the client is gone."""
        if self.open:
            self._leave()
            answer.take(self._server, self._transport)

    def end(self) -> None:
        """The server stops."""
        self.answer(Answer(503, b"The server stops.\n"))


class Body(_Line):
    """The body of one stream."""

    __slots__ = ("_limit", "slow")

    def __init__(self, server: WebSocketServer, transport: Any, limit: int) -> None:
        super().__init__(server, transport)
        self.slow = False
        """Whether it was cut off because it did not read."""
        self._limit = limit

    def send(self, prepared: bytes) -> bool:
        """Send what ``chunk`` made. False when it has ended, or ends now because too much waits for its client."""
        if not self.open:
            return False
        self._transport.write(prepared)
        if self._transport.get_write_buffer_size() > self._limit:
            self.slow = True
            self._server.stuck += 1
            self._leave()
            self._transport.abort()
        return self.open

    def end(self) -> None:
        """End the body in order, and the line with it."""
        if self.open:
            self._transport.write(_END)
            self._leave()
            self._transport.close()
