"""One WebSocket link of either side: frames become messages, messages become frames, and every buffer has a bound.

The frames are read and written by picows' core (C, no task per link). What the core leaves open is decided here: text that is not UTF-8 (1007),
messages in many fragments and their limit (1009), what may be fragmented and what may stand between fragments, reserved bits, close codes,
pongs. ``websocket`` (server) and ``websocket_client`` add who opens a link, who pings, and when a link is cut.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from picows import WSFrame, WSListener, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub leaves it out

log = logging.getLogger(__name__)

OK, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1001, 1002, 1003
NO_STATUS, ABNORMAL, INVALID_TEXT, POLICY, TOO_BIG, INTERNAL, TRY_AGAIN = 1005, 1006, 1007, 1008, 1009, 1011, 1013
"""Close codes, RFC 6455 section 7.4.1. 1005 and 1006 are never sent: no code came, nothing came."""

PATIENCE = 1.0
"""Seconds that one who broke a rule has to take our close frame: ended at once, the line would be reset and the frame lost."""
READ_BUFFER = 2_048
"""Bytes of a link's first read buffer; it grows with what comes, up to twice the largest message."""
LONGEST_HEAD = 16_384
"""Bytes of a handshake's request or answer, without the body."""

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_SENDABLE = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
_LONGEST_REASON = 123
_PROBES, _PROBE_EVERY = 4, 30


def framed(first: int, payload: bytes, masked: bool = False) -> bytes:
    """A frame whose first byte is ``first``; ``masked`` with a key nobody can foresee, as RFC 6455 section 5.3 asks of clients."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65_536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = os.urandom(4)
    repeated = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(size, "little")


def prepare(message: str | bytes, masked: bool = False) -> bytes:
    """A whole frame: text of a ``str``, binary of ``bytes``. Unmasked, many connections can be sent the same (``Connection.send_prepared``)."""
    if isinstance(message, str):
        return framed(0x80 | _TEXT, message.encode(), masked)
    return framed(0x80 | _BINARY, message, masked)


def prepare_text(encoded: bytes) -> bytes:
    """As ``prepare``, of text that is already UTF-8 (as JSON encoders give it)."""
    return framed(0x80 | _TEXT, encoded)


def watch_line(line: socket.socket, idle: int) -> None:
    """Let the system find out whether the peer is still there after ``idle`` seconds of silence, also where nobody pings.

    Gone is who answers neither probes nor data for two minutes: such a line ends as any other (1006). Linux.
    """
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PROBES * _PROBE_EVERY * 1_000)


class Owner(ABC):
    """Who opened a link: its limits (bytes; ``max_queue`` messages), and who is told how it fares."""

    def __init__(self, max_message: int, max_queue: int, high_water: int, write_limit: int) -> None:
        if max_message < 125 or max_queue < 1 or not 0 < high_water <= write_limit:
            raise ValueError("max_message at least 125, max_queue at least 1, high_water above 0 and at most write_limit")
        self.max_message = max_message
        self.max_queue = max_queue
        self.high_water = high_water
        self.write_limit = write_limit
        self.violations = 0
        """Links closed because the peer broke the protocol."""
        self.stuck = 0
        """Links cut because the peer did not read."""

    @abstractmethod
    def joins(self, link: Any) -> None:
        """Its handshake is complete."""

    @abstractmethod
    def closes(self, link: Any, patience: float | None = None) -> None:
        """It begins to close: cut it when it has not ended after the close time-out, or ``patience`` seconds if that is less."""

    @abstractmethod
    def leaves(self, link: Any) -> None:
        """The line has ended."""


class Link(WSListener):
    """One link. Sending never waits: what the peer does not take is buffered, ``writable`` turns False above the owner's high-water mark (and
    ``on_writable`` is called when it is below again), and above the write limit the link is closed with 1013: its reader is stuck.

    ``received`` and ``sent`` count messages, ``received_size`` their characters (text) or bytes, ``sent_bytes`` the bytes of frames.
    """

    __slots__ = (
        "_binary", "_broke", "_close_code", "_close_reason", "_closing", "_fragments", "_full", "_held", "_owner", "_peer", "_queue", "_queued",
        "_receiver", "_silent", "_transport", "_waiters", "_wire", "on_writable", "received", "received_size", "sent", "sent_bytes", "subprotocol",
        "writable",
    )  # fmt: skip

    def __init__(self, owner: Owner, address: str, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self.writable = True
        self.on_writable: Callable[[], None] | None = None
        self.received = self.received_size = self.sent = self.sent_bytes = 0
        self._owner = owner
        self._peer = address
        self._transport: WSTransport | None = None
        self._wire: Any = None
        self._queue: deque[str | bytes] | None = None  # an empty one takes 600 bytes, and most links are idle
        self._queued = 0
        self._receiver: asyncio.Future[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._fragments: bytearray | None = None
        self._binary = False
        self._held = False
        self._silent = 0
        self._closing = False
        self._full = 0
        self._close_code: int | None = None
        self._close_reason = ""
        self._broke = False

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
    def broke_a_rule(self) -> bool:
        """Whether it was closed because the peer broke the protocol; ``close_code`` says how."""
        return self._broke

    @property
    def close_reason(self) -> str:
        """In words, or empty."""
        return self._close_reason

    # ----------------------------------------------------------------------------------------------------------- sending

    def send(self, message: str | bytes) -> bool:
        """Send text (``str``) or binary (``bytes``). False when it is closed or closing: nothing was sent."""
        return self._send(prepare(message))

    def _send(self, frame: bytes) -> bool:
        if self._closing or self._transport is None or self._transport.is_close_frame_sent:
            return False
        self._wire.write(frame)
        self.sent += 1
        self.sent_bytes += len(frame)
        if not self.writable and self._wire.get_write_buffer_size() > self._owner.write_limit:
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
        self._transport.send_close(code, shortened(reason))  # type: ignore[arg-type]  # the core takes every int, also 3000 to 4999
        self._owner.closes(self)

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
        while self._queue is None:
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
        if self._held and len(self._queue) <= self._owner.max_queue // 2 and not self._closing:
            self._held = False
            self._wire.resume_reading()
        if not self._queue:
            self._queue = None
        return message

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self.receive()) is not None:
            yield message

    # ---------------------------------------------------------------------------------------------- what the core tells

    def on_ws_connected(self, transport: WSTransport) -> None:
        """The handshake is complete."""
        del transport.request.headers, transport.response.headers  # the core keeps them as long as the link lives, with all secrets
        self._transport = transport
        self._wire = transport.underlying_transport
        self._wire.set_write_buffer_limits(high=self._owner.high_water, low=self._owner.high_water // 4)
        self._owner.joins(self)

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
                self._owner.violations += 1
                self._broke = True
                self._begin_to_close(int(refused.sent.code), refused.sent.reason or "")  # type: ignore[call-overload]  # an IntEnum
            else:
                self._begin_to_close(ABNORMAL, "")
        self._queue = None  # nobody is there to be answered
        self._owner.leaves(self)

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
        if len(fragments) + frame.payload_size > self._owner.max_message:
            self._fail(TOO_BIG, f"a message may have {self._owner.max_message} bytes")
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
        if self._queue is None:
            self._queue = deque()
        self._queue.append(message)
        self.received += 1
        self.received_size += len(message)
        self._queued += len(message)
        if not self._held and (len(self._queue) >= self._owner.max_queue or self._queued > 2 * self._owner.max_message):
            self._held = True
            self._wire.pause_reading()
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    def _hear_close(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._closing:
            self._end(transport)
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
        self._end(transport)
        self._owner.closes(self)  # it may not take our answer: then the line is cut after a while

    def _end(self, transport: WSTransport) -> None:
        """Both have said that they close."""
        transport.disconnect()

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke a rule: say which, stop listening to it."""
        self._owner.violations += 1
        self._broke = True
        log.debug("a websocket peer broke a rule", extra={"peer": self._peer, "code": code, "reason": reason})
        self._queue = None
        self.close(code, reason)
        self._owner.closes(self, PATIENCE)

    def _cut(self) -> None:
        """Its reader is stuck."""
        self._owner.stuck += 1
        log.info("a websocket peer does not read and is cut off", extra={"peer": self._peer, "buffered": self.buffered})
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


def shortened(reason: str) -> bytes:
    """At most what a close frame holds, cut between characters."""
    return reason.encode()[:_LONGEST_REASON].decode(errors="ignore").encode()


class Handshake(asyncio.Protocol, ABC):
    """A line until the head of its handshake is complete (``head``, at most LONGEST_HEAD bytes); then ``hand_over`` gives it to picows' core."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._came = bytearray()
        self._complete = False

    def connection_made(self, transport: Any) -> None:
        """The line is there."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collects the head; what comes behind it goes to ``more``."""
        if self._complete:
            self.more(data)
            return
        begin = max(0, len(self._came) - 3)
        self._came += data
        end = self._came.find(b"\r\n\r\n", begin)
        if end > LONGEST_HEAD or (end < 0 and len(self._came) > LONGEST_HEAD):
            self.endless()
        elif end >= 0:
            self._complete = True
            head, rest = bytes(self._came[:end]), bytes(self._came[end + 4 :])
            self._came.clear()
            self.head(head, rest)

    @abstractmethod
    def head(self, head: bytes, rest: bytes) -> None:
        """The head without the blank line, and what came behind it in the same piece."""

    @abstractmethod
    def more(self, data: bytes) -> None:
        """Bytes behind the head, before anybody decided."""

    @abstractmethod
    def endless(self) -> None:
        """More than a head may have."""

    def hand_over(self, core: WSProtocol, data: bytes) -> None:
        """From now on ``core`` reads the line; ``data`` is what it is to see first."""
        self.transport.pause_reading()  # uvloop changes the way it reads only between stop and start
        self.transport.set_protocol(core)
        self.transport.resume_reading()
        if core.transport is None:
            core.connection_made(self.transport)
        while data and not self.transport.is_closing():
            room = core.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            core.buffer_updated(count)
            data = data[count:]


class Quiet:
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
