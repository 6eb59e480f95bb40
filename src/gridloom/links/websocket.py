"""WebSocket listeners: RFC 6455 on the server's side, for thousands of links, of which some are hostile and some never read.

The frames are read and written by picows' core (C, no task per connection, 8 KB per link on uvloop). What the core leaves open is decided
here: text that is not UTF-8 (1007), messages in many fragments and their limit (1009), what may be fragmented and what may stand between
fragments, reserved bits, close codes, pings, and a bound on every buffer. There is no permessage-deflate: it costs 47 to 122 KB per link.

The core is used instead of ``picows.websockets`` because that refuses Firefox (``Connection: keep-alive, Upgrade``), does not say who knocks
before the handshake is answered, answers a flood of pings into an unbounded buffer, and takes 35 KB per link.

Nothing here knows what a message means.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import math
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub leaves it out; ws_create_server does not say who connects

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError

log = logging.getLogger(__name__)

OK, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_STATUS, ABNORMAL, INVALID_TEXT, POLICY, TOO_BIG, INTERNAL, TRY_AGAIN = 1005, 1006, 1007, 1008, 1009, 1011, 1013
"""Close codes, RFC 6455 section 7.4.1. 1005 and 1006 are never sent: no code came, nothing came."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_SENDABLE = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
_LONGEST_REASON = 123
_READ_BUFFER = 2_048
"""Bytes of a link's first read buffer; it grows with what comes, up to twice the largest message."""
_UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
_TICK = 0.5
_SLOTS = 20
_FULL_LOOKS = 3
_PATIENCE = 1.0
"""Seconds that one who broke a rule has to take our close frame: ended at once, the line would be reset and the frame lost."""


def prepare(message: str | bytes) -> bytes:
    """A whole unmasked frame: text of a ``str``, binary of ``bytes``. Many connections are sent the same object (``Connection.send_prepared``)."""
    if isinstance(message, str):
        return _framed(0x80 | _TEXT, message.encode())
    return _framed(0x80 | _BINARY, message)


def prepare_text(encoded: bytes) -> bytes:
    """As ``prepare``, of text that is already UTF-8 (as JSON encoders give it)."""
    return _framed(0x80 | _TEXT, encoded)


def _framed(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


class HandshakeRequest:
    """What a client asks before the handshake is answered. Nothing of it was decoded.

    ``path``: as sent, percent-encoded, without the query; ``query``: behind the first ``?``, or empty. ``address`` and ``port`` are the peer's,
    ``secure`` whether by TLS, ``certificate`` the client's as ``ssl.SSLSocket.getpeercert`` gives it, or None. ``upgrade``: whether a WebSocket
    is asked for at all.
    """

    __slots__ = ("_headers", "address", "certificate", "local_address", "path", "port", "query", "secure", "upgrade")

    def __init__(self, request: WSUpgradeRequest, transport: Any) -> None:
        target = request.path.decode("latin-1")
        self.path, _, self.query = target.partition("?")
        self._headers = request.headers
        peer, here, tls = (transport.get_extra_info(name) for name in ("peername", "sockname", "ssl_object"))
        self.address: str = peer[0] if isinstance(peer, tuple) else ""
        self.port: int = peer[1] if isinstance(peer, tuple) else 0
        self.local_address: str = here[0] if isinstance(here, tuple) else ""
        self.secure = tls is not None
        self.certificate: Mapping[str, Any] | None = tls.getpeercert() if tls is not None else None
        self.upgrade = "websocket" in self.tokens("upgrade") and "upgrade" in self.tokens("connection")

    def header(self, name: str) -> str:
        """The value of a header field, whatever the case of its name; the first if it came more than once, empty if it did not."""
        return self._headers.get(name, "")

    def headers(self, name: str) -> list[str]:
        """All values of a header field, in order."""
        return list(self._headers.getall(name, []))

    def tokens(self, name: str) -> list[str]:
        """The comma-separated words of a header field, of all its lines, in lower case."""
        return [word for word in (word.strip().lower() for line in self.headers(name) for word in line.split(",")) if word]

    @property
    def subprotocols(self) -> list[str]:
        """What the client offers, in its order, as it spells them."""
        return [word for word in (word.strip() for line in self.headers("sec-websocket-protocol") for word in line.split(",")) if word]


class Accept:
    """Let them in. ``subprotocol`` must be one that was offered, or None: then the answer has no such header.

    ``context`` is handed to the handler as ``connection.context``. ``close``: complete the handshake, then close at once with this code and
    reason; the handler does not run (OS³P and OCPP ask for it when no subprotocol fits).
    """

    __slots__ = ("close", "context", "headers", "subprotocol")

    def __init__(
        self,
        *,
        subprotocol: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        context: Any = None,
        close: tuple[int, str] | None = None,
    ) -> None:
        self.subprotocol = subprotocol
        self.headers = tuple(headers)
        self.context = context
        self.close = close


class Reject:
    """An HTTP answer instead of a WebSocket: 4xx or 5xx with a sentence that says why."""

    __slots__ = ("headers", "status", "text")

    def __init__(self, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status from 400 to 599, not {status}")
        self.status = status
        self.text = text
        self.headers = tuple(headers)


Admit = Callable[[HandshakeRequest], Accept | Reject]
"""Decides in memory, at once, and changes nothing: it is also asked about plain HTTP requests, which then get 426 where it accepts."""


class Connection(WSListener):
    """One link. Its handler receives and sends; when the handler returns it is closed (1000), when it fails it is closed (1011).

    Sending never waits: what the peer does not take is buffered, ``writable`` turns False above the server's high-water mark (and
    ``on_writable`` is called when it is below again), and above the write limit the link is closed with 1013: its reader is stuck.
    """

    __slots__ = (
        "_binary", "_close_code", "_close_reason", "_closing", "_fragments", "_full", "_held", "_peer", "_queue", "_queued", "_receiver",
        "_server", "_silent", "_slot", "_transport", "_waiters", "_wire", "context", "on_writable", "path", "subprotocol", "writable",
    )  # fmt: skip

    def __init__(self, server: WebSocketServer, request: HandshakeRequest, accept: Accept) -> None:
        self.context = accept.context
        self.path = request.path
        self.subprotocol = accept.subprotocol
        self.writable = True
        self.on_writable: Callable[[], None] | None = None
        self._server = server
        self._peer = request.address
        self._transport: WSTransport | None = None
        self._wire: Any = None
        self._queue: deque[str | bytes] = deque()
        self._queued = 0
        self._receiver: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._fragments: bytearray | None = None
        self._binary = False
        self._held = False
        self._silent = 0
        self._slot = 0
        self._closing = False
        self._full = 0
        self._close_code: int | None = None
        self._close_reason = ""

    # ------------------------------------------------------------------------------------------------------------- state

    @property
    def address(self) -> str:
        """Of the peer."""
        return self._peer

    @property
    def open(self) -> bool:
        """Whether messages can still be sent."""
        return not self._closing

    @property
    def buffered(self) -> int:
        """Bytes that the peer has not taken yet and the operating system does not hold."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    @property
    def close_code(self) -> int | None:
        """None while it is open; then who closed first said so: the peer's code (1005 when it gave none), ours, or 1006: the line just ended."""
        return self._close_code

    @property
    def close_reason(self) -> str:
        """In words, or empty."""
        return self._close_reason

    # ----------------------------------------------------------------------------------------------------------- sending

    def send(self, message: str | bytes) -> bool:
        """Send text (``str``) or binary (``bytes``). False when it is closed or closing: nothing was sent."""
        return self.send_prepared(prepare(message))

    def send_prepared(self, frame: bytes) -> bool:
        """Send what ``prepare`` or ``prepare_text`` gave. False when it is closed or closing: nothing was sent."""
        if self._closing or self._transport is None or self._transport.is_close_frame_sent:
            return False
        self._wire.write(frame)
        if not self.writable and self._wire.get_write_buffer_size() > self._server.write_limit:
            self._cut()
        return not self._closing

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent, or it is closed."""
        while not self.writable and not self._closing:
            waiter = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = []
            self._waiters.append(waiter)
            await waiter

    def close(self, code: int = OK, reason: str = "") -> None:
        """Begin to close: says so to the peer, and ends the line when it answers, or after the close time-out. Closing twice changes nothing."""
        if self._closing:
            return
        self._begin_to_close(code, reason)
        if self._transport is None:  # before the handshake is complete: on_ws_connected does it
            return
        self._transport.send_close(code, _shortened(reason))  # type: ignore[arg-type]  # the core takes every int, also 3000 to 4999
        self._server._closes(self)

    def abort(self) -> None:
        """End the line at once, without a word."""
        if not self._closing:
            self._begin_to_close(ABNORMAL, "")
        if self._wire is not None:
            self._wire.abort()

    # --------------------------------------------------------------------------------------------------------- receiving

    async def receive(self) -> str | bytes | None:
        """The next message: text as ``str``, binary as ``bytes``; None when no more will come. One task at a time may wait.

        Messages wait in a queue of ``max_queue``; while it is full nothing is read from the line.
        """
        while not self._queue:
            if self._closing:
                return None
            if self._receiver is not None:
                raise RuntimeError("two tasks receive from one connection")
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        message = self._queue.popleft()
        self._queued -= len(message)
        if self._held and len(self._queue) <= self._server.max_queue // 2 and not self._closing:
            self._held = False
            self._wire.resume_reading()
        return message

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self.receive()) is not None:
            yield message

    # ---------------------------------------------------------------------------------------------- what the core tells

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is complete."""
        self._transport = transport
        self._wire = transport.underlying_transport
        self._wire.set_write_buffer_limits(high=self._server.high_water, low=self._server.high_water // 4)
        self._server._joins(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame, unmasked. The core has checked: masking, opcode, length, that control frames are short and whole."""
        self._silent = 0
        kind: int = frame.msg_type  # type: ignore[assignment]  # an IntEnum at run time
        if kind == _CLOSE:
            self._hear_close(transport, frame)
            return
        if self._closing:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed")
        elif kind == _PING:
            # Not answered by the core: a flood of pings from one who never reads would fill memory with pongs. RFC 6455 5.5.3 lets us skip some.
            if self.writable:
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == _PONG:
            pass
        elif kind == _CONTINUATION:
            if self._fragments is None:
                self._fail(PROTOCOL_ERROR, "a continuation of nothing")
            else:
                self._fragment(frame, self._fragments)
        elif self._fragments is not None:
            self._fail(PROTOCOL_ERROR, "a new message began inside a fragmented one")
        elif not frame.fin:
            self._binary = kind == _BINARY
            self._fragments = bytearray()
            self._fragment(frame, self._fragments)
        elif kind == _TEXT:
            try:
                self._take(frame.get_payload_as_utf8_text())
            except UnicodeDecodeError:
                self._fail(INVALID_TEXT, "text that is not UTF-8")
        else:
            self._take(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """The line has ended."""
        if not self._closing:
            refused = transport.close_handshake  # the core itself closed: a frame against the rules
            if refused is not None and refused.sent is not None:
                self._server.violations += 1
                self._begin_to_close(int(refused.sent.code), refused.sent.reason or "")  # type: ignore[call-overload]  # an IntEnum
            else:
                self._begin_to_close(ABNORMAL, "")
        self._queue.clear()  # nobody is there to be answered
        self._server._leaves(self)

    def pause_writing(self) -> None:
        """Above the high-water mark."""
        self.writable = False

    def resume_writing(self) -> None:
        """Well below it again."""
        self.writable = True
        self._full = 0
        self._wake_senders()
        if self.on_writable is not None and not self._closing:
            self.on_writable()

    # ----------------------------------------------------------------------------------------------------------- details

    def _fragment(self, frame: WSFrame, fragments: bytearray) -> None:
        if len(fragments) + frame.payload_size > self._server.max_message:
            self._fail(TOO_BIG, f"a message may have {self._server.max_message} bytes")
            return
        fragments += frame.get_payload_as_memoryview()
        if not frame.fin:
            return
        self._fragments = None
        if self._binary:
            self._take(bytes(fragments))
            return
        try:
            self._take(fragments.decode())
        except UnicodeDecodeError:
            self._fail(INVALID_TEXT, "text that is not UTF-8")

    def _take(self, message: str | bytes) -> None:
        self._queue.append(message)
        self._queued += len(message)
        if not self._held and (len(self._queue) >= self._server.max_queue or self._queued > 2 * self._server.max_message):
            self._held = True
            self._wire.pause_reading()
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _hear_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._closing:
            transport.disconnect()
            return
        code, reason = NO_STATUS, ""
        if frame.payload_size:
            code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
            if not (code in _SENDABLE or 3000 <= code <= 4999):
                self._fail(PROTOCOL_ERROR, f"{code} is no close code")
                return
            reason = frame.get_close_reason() or ""
        self._begin_to_close(code, reason)
        transport.send_close(OK if code == NO_STATUS else code)  # type: ignore[arg-type]  # as above
        transport.disconnect()
        self._server._closes(self)  # it may not take our answer: then the line is cut after a while

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: say which, stop listening to it."""
        self._server.violations += 1
        log.debug("a websocket client broke a rule", extra={"peer": self._peer, "code": code, "reason": reason})
        self._queue.clear()
        self.close(code, reason)
        self._server._closes(self, _PATIENCE)

    def _cut(self) -> None:
        """Its reader is stuck."""
        self._server.stuck += 1
        log.info("a websocket client does not read and is cut off", extra={"peer": self._peer, "buffered": self.buffered})
        self.close(TRY_AGAIN, "too slow: what was sent to you is not read")
        self._wire.abort()  # a close frame would wait behind all that is not read

    def _begin_to_close(self, code: int, reason: str) -> None:
        self._closing = True
        self._close_code = code
        self._close_reason = reason
        self._fragments = None
        if self._held:  # its answer to our close must be read
            self._held = False
            self._wire.resume_reading()
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)
        self._wake_senders()

    def _wake_senders(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class _Protocol(WSProtocol):  # type: ignore[misc]  # untyped, see its import
    """A line from its first byte: counted and bounded also before the handshake, and known by its address."""

    __slots__ = ("door",)
    door: WebSocketServer

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.door._knocks(self, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.door._halfway.discard(self)
        super().connection_lost(error)


class WebSocketServer:
    """One listener.

    ``handler``: runs once per connection. ``admit``: decides who comes in. ``key``: the configuration key that names host and port, for errors.
    Sizes in bytes, times in seconds of ``clock``: ``max_message`` what a client may send at once (also in fragments), ``max_queue`` messages
    that wait for the handler; ``ping_interval`` how often a silent client is pinged (None: never), ``ping_timeout`` how long it may stay silent
    from then on (as long again, if None) before it is closed with 1011; ``high_water`` and ``write_limit`` see Connection, and who is above the
    high-water mark for three intervals is cut off, too; ``send_buffer`` what the operating system may hold for a client (None: as much as it likes,
    which is megabytes); ``max_connections`` more are answered 503, to come again after ``retry_after`` seconds.
    ``key`` is written as in ``[tic] listen``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Callable[[Connection], Awaitable[None]],
        *,
        admit: Admit,
        key: str,
        clock: Clock,
        max_message: int = 65_536,
        max_queue: int = 16,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = None,
        handshake_timeout: float = 10.0,
        close_timeout: float = 5.0,
        high_water: int = 65_536,
        write_limit: int = 1_048_576,
        send_buffer: int | None = None,
        max_connections: int = 20_000,
        retry_after: int = 5,
        backlog: int = 1_024,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if max_message < 125 or max_queue < 1 or not 0 < high_water <= write_limit:
            raise ValueError("max_message at least 125, max_queue at least 1, high_water above 0 and at most write_limit")
        self.max_message = max_message
        self.max_queue = max_queue
        self.high_water = high_water
        self.write_limit = write_limit
        self.opened = 0
        """Handshakes completed."""
        self.refused = 0
        """Handshakes that were answered otherwise."""
        self.violations = 0
        """Links closed because the client broke the protocol."""
        self.stuck = 0
        """Links cut because the client did not read."""
        self._host = host
        self._port = port
        self._handler = handler
        self._admit = admit
        self._key = key
        self._clock = clock
        self._ping_interval = ping_interval
        self._pings = 1 if ping_interval is None or ping_timeout is None else max(1, math.ceil(ping_timeout / ping_interval))
        self._handshake_timeout = handshake_timeout
        self._close_timeout = close_timeout
        self._send_buffer = send_buffer
        self._max_connections = max_connections
        self._retry_after = retry_after
        self._backlog = backlog
        self._tls = tls
        self._tick = min(_TICK, close_timeout / 2, *(() if ping_interval is None else (ping_interval / _SLOTS,)))
        count = _SLOTS if ping_interval is None else max(1, round(ping_interval / self._tick))
        self._slots: list[set[Connection]] = [set() for _ in range(count)]
        self._turn = itertools.cycle(range(count))
        self._next = itertools.cycle(range(count))
        self._closes_at: dict[Connection, float] = {}
        self._halfway: set[_Protocol] = set()
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._empty = asyncio.Event()
        self._quiet = _Quiet()

    @property
    def connections(self) -> list[Connection]:
        """All that are open or closing, now."""
        return list(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    async def start(self) -> str:
        """Listen; returns ``host:port``. Raises ConfigurationError naming the key when that cannot be."""
        loop = asyncio.get_running_loop()
        timeouts: dict[str, Any] = {} if self._tls is None else {"ssl_handshake_timeout": self._handshake_timeout / self._clock.speed}
        try:
            self._server = await loop.create_server(
                self._protocol, self._host, self._port, backlog=self._backlog, ssl=self._tls, start_serving=False, **timeouts
            )
        except OSError as error:
            where = address(self._host, self._port)
            raise ConfigurationError(f"{self._key} = {where!r}: cannot listen: {_why(error)}") from error
        if self._send_buffer is not None:
            for listening in self._server.sockets:  # accepted sockets take it from the listening one
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        await self._server.start_serving()
        self._stopping = False
        self._keeper = loop.create_task(self._keep())
        host, port = self._server.sockets[0].getsockname()[:2]
        return address(host, port)

    async def wait(self) -> None:
        """Does not end by itself."""
        await asyncio.Event().wait()

    async def stop(self, code: int = GOING_AWAY, reason: str = "the hub is stopping") -> None:
        """No more come in; those that are here are told, and cut off when they have not left after the close time-out. Never raises."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
            self._server = None
        for protocol in tuple(self._halfway):
            protocol.transport.disconnect(False)
        for connection in tuple(self._tasks):
            connection.close(code, reason)
        self._empty.clear()
        if self._tasks:
            try:
                await self._clock.wait_for(self._empty.wait(), self._close_timeout)
            except TimeoutError:
                for connection in tuple(self._tasks):
                    connection.abort()
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            tasks = (*tasks, self._keeper)
            self._keeper = None
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------------- handshake

    def _protocol(self) -> _Protocol:
        protocol: _Protocol
        timeout = self._handshake_timeout / self._clock.speed

        def admit(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            return self._answer(protocol, request)

        protocol = _Protocol(
            None, None, False, admit, self._quiet, True, timeout, False, 20.0, 20.0, WSAutoPingStrategy.PING_WHEN_IDLE, False,
            self.max_message, None, _READ_BUFFER,
        )  # fmt: skip
        protocol.door = self
        return protocol

    def _knocks(self, protocol: _Protocol, transport: Any) -> None:
        self._halfway.add(protocol)
        if self._stopping or len(self._halfway) > self._max_connections:
            transport.abort()

    def _answer(self, protocol: _Protocol, asked: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        self._halfway.discard(protocol)
        request = HandshakeRequest(asked, protocol.transport.underlying_transport)
        decided = self._decide(request)
        if isinstance(decided, Reject):
            self.refused += 1
            return _refusal(decided)
        # The core knows one spelling of these; Firefox has another ("keep-alive, Upgrade").
        asked.headers["Connection"] = "upgrade"
        asked.headers["Upgrade"] = "websocket"
        headers = list(decided.headers)
        if decided.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", decided.subprotocol))
        connection = Connection(self, request, decided)
        if decided.close is not None:
            connection.close(*decided.close)
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), connection)

    def _decide(self, request: HandshakeRequest) -> Accept | Reject:
        if self._stopping or len(self._tasks) >= self._max_connections:
            return Reject(503, "No more connections now; come again later.", (("Retry-After", str(self._retry_after)),))
        if len(request.headers("host")) != 1:
            return Reject(400, "A request has one Host header.")
        try:
            decided = self._judge(request)
        except Exception:  # one request that we cannot judge must not end the listener, nor tell a stranger why
            log.exception("a handshake could not be judged", extra={"peer": request.address})
            return Reject(500, "Internal error.")
        return decided

    def _judge(self, request: HandshakeRequest) -> Accept | Reject:
        decided = self._admit(request)
        if isinstance(decided, Reject):
            return decided
        if not request.upgrade:
            return Reject(426, "Here is a WebSocket: connect with a WebSocket client (ws://).", _UPGRADE)
        if request.header("sec-websocket-version").strip() != "13":
            return Reject(426, "This server speaks version 13 of WebSocket.", _UPGRADE)
        if len(request.headers("sec-websocket-key")) != 1:
            return Reject(400, "A handshake has one Sec-WebSocket-Key.")
        if decided.subprotocol is not None and decided.subprotocol not in request.subprotocols:
            raise ValueError("the chosen subprotocol was not offered")
        return decided

    # ------------------------------------------------------------------------------------------------- links and their life

    def _joins(self, connection: Connection) -> None:
        self.opened += 1
        connection._slot = next(self._next)
        self._slots[connection._slot].add(connection)
        if connection._closing:  # let in only to be told
            code, reason = connection._close_code or OK, connection._close_reason
            self._tasks[connection] = asyncio.get_running_loop().create_task(_nothing())
            assert connection._transport is not None
            connection._transport.send_close(code, _shortened(reason))  # type: ignore[arg-type]  # as above
            self._closes(connection)
            return
        self._tasks[connection] = asyncio.get_running_loop().create_task(self._run(connection))

    async def _run(self, connection: Connection) -> None:
        try:
            await self._handler(connection)
        except Exception:  # one client's handler must not end the listener; the client is told that it is our fault
            log.exception("the handler of a websocket failed", extra={"peer": connection.address})
            connection.close(INTERNAL, "internal error")
        else:
            connection.close(OK)

    def _closes(self, connection: Connection, patience: float | None = None) -> None:
        deadline = self._clock.monotonic() + min(self._close_timeout, patience or self._close_timeout)
        self._closes_at[connection] = min(deadline, self._closes_at.get(connection, deadline))

    def _leaves(self, connection: Connection) -> None:
        self._slots[connection._slot].discard(connection)
        self._closes_at.pop(connection, None)
        task = self._tasks.pop(connection, None)
        if task is not None and not task.done() and self._stopping:
            task.cancel()
        if not self._tasks:
            self._empty.set()

    async def _keep(self) -> None:
        """Pings who is silent, cuts who does not leave. One task for all links: each is looked at once per interval."""
        while True:
            await self._clock.sleep(self._tick)
            now = self._clock.monotonic()
            for connection, deadline in tuple(self._closes_at.items()):
                if now >= deadline:
                    connection.abort()
            for connection in tuple(self._slots[next(self._turn)]):
                self._look_at(connection)

    def _look_at(self, connection: Connection) -> None:
        transport = connection._transport
        if transport is None:
            return
        if transport.is_close_frame_sent:  # the core closed it for a frame against the rules, and it may not take even that
            self._closes(connection)
            return
        if not connection.writable:
            connection._full += 1
            if connection._full > _FULL_LOOKS:
                connection._cut()
                return
        if self._ping_interval is not None and not connection._held:
            connection._silent += 1
            if connection._silent > 1 + self._pings:
                connection.close(INTERNAL, "no answer to a ping")
            elif connection._silent > 1:
                transport.send_ping()


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "there is no such host name"
    known = {
        errno.EADDRINUSE: "another program listens there already; stop it, or choose another port",
        errno.EACCES: "this user may not listen on that port; choose one from 1024 up",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    return known.get(error.errno or 0) or error.strerror or str(error)


def address(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refusal(reject: Reject) -> WSUpgradeResponseWithListener:
    headers = [("Content-Type", "text/plain; charset=utf-8"), *reject.headers]
    return WSUpgradeResponseWithListener(
        WSUpgradeResponse.create_error_response(HTTPStatus(reject.status), f"{reject.text}\n".encode(), headers), None
    )


def _shortened(reason: str) -> bytes:
    """At most what a close frame holds, cut between characters."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()


async def _nothing() -> None:
    """The handler of a link that is closed as soon as it is open."""


class _Quiet:
    """What the core would log of every connection and of every stranger's broken frame is not worth a line; its own failures are."""

    def isEnabledFor(self, level: int) -> bool:
        """Asked before details are put together."""
        return False

    def log(self, level: int, message: str, *details: Any) -> None:
        """Details."""

    def debug(self, message: str, *details: Any) -> None:
        """Details."""

    info = warning = error = debug

    def exception(self, message: str, *details: Any) -> None:
        """A failure in our own callbacks."""
        log.exception("websocket: %s", message % details if details else message)
