"""WebSocket listeners: RFC 6455 on the server's side, for thousands of links, of which some are hostile and some never read.

A line is an ``_Entrance`` until its handshake is decided, then picows' core reads it (C, no task per connection) and a ``Connection`` of
``websocket_link`` says what the frames mean. There is no permessage-deflate: it costs 47 to 122 KB per link.

The core is used instead of ``picows.websockets`` because that refuses Firefox (``Connection: keep-alive, Upgrade``), does not say who knocks
before the handshake is answered, answers a flood of pings into an unbounded buffer, and takes 35 KB per link. The request is read here and not
by the core, because the core wants its decision at once and keeps the whole request as long as the link lives.

**Who comes in** is decided in three steps. (1) Limits: ``max_connections``; who is too many gets 503. (2) Pace: with ``handshakes_per_second``, a
mass reconnect forms a queue of lines that wait up to ``handshake_queue`` seconds for their turn, first come first served; the rest gets 503 with a
Retry-After that spreads them over the time they all need. (3) ``admit``. It answers at once from memory (a cached verifier), or it returns an
awaitable where it must ask somebody slow (the first argon2 of a station, in a thread): then only this line waits, nothing is read from it, and
after ``handshake_timeout`` it gets 503. To answer 503 at once while a thread verifies would work, too, but a charger that is refused waits for
minutes and does not heed Retry-After.

**TLS** is begun here, line by line, because the servers of asyncio and uvloop keep to themselves whose handshake failed, and why; and so another
certificate can be taken while the listener runs (``secure``).

Nothing here knows what a message means.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import itertools
import logging
import math
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from http import HTTPStatus
from random import Random
from typing import Any

from picows import WSAutoPingStrategy, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol, _parse_http_request  # type: ignore[attr-defined]  # its stub leaves them out

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.links.websocket_link import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL,
    INVALID_TEXT,
    NO_STATUS,
    OK,
    POLICY,
    PROTOCOL_ERROR,
    READ_BUFFER,
    TOO_BIG,
    TRY_AGAIN,
    UNSUPPORTED,
    Handshake,
    Link,
    Owner,
    Quiet,
    prepare,
    prepare_text,
    shortened,
    watch_line,
)

__all__ = [
    "ABNORMAL", "GOING_AWAY", "INTERNAL", "INVALID_TEXT", "NO_STATUS", "OK", "POLICY", "PROTOCOL_ERROR", "TOO_BIG", "TRY_AGAIN", "UNSUPPORTED",
    "Accept", "Admit", "Connection", "Guest", "HandshakeRequest", "Reject", "Takeover", "WebSocketServer", "address", "prepare", "prepare_text",
]  # fmt: skip

log = logging.getLogger(__name__)

_UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
_TICK = 0.5
_SLOTS = 20
_FULL_LOOKS = 3
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_EXHAUSTED_PAUSE = 1.0
"""Seconds until the next line is accepted when the system has no place left for it."""
_LONGEST_RETRY = 60.0
"""Seconds of Retry-After at most, however many knock."""


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

    def secret(self, user: str) -> bytes | None:
        """The password of ``Authorization: Basic`` for this user, whose name may hold a colon; in bytes, for OCPP 1.6 has binary ones.

        None where there is none, or somebody else's, or a broken one.
        """
        scheme, _, encoded = self.header("authorization").strip().partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return None
        name = f"{user}:".encode()
        return given[len(name) :] if given.startswith(name) else None

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


_UNJUDGED = Reject(500, "Internal error.")


class Takeover(ABC):
    """An answer of another kind: somebody else has the line from now on (``links.push``: an HTTP stream on the same port)."""

    @abstractmethod
    def take(self, server: WebSocketServer, transport: Any) -> None:
        """Answer, and set the line's protocol if it goes on. What counts as a link joins and leaves ``server.guests``."""


class Guest(ABC):
    """A line that was taken over and lives on."""

    @abstractmethod
    def end(self) -> None:
        """The server stops."""


Decision = Accept | Reject | Takeover
Admit = Callable[[HandshakeRequest], Decision | Awaitable[Decision]]
"""Decides who comes in, from memory and at once, or later where it returns an awaitable (the module says when). It changes nothing: it is also
asked about plain HTTP requests, which then get 426 where it accepts."""


class Connection(Link):
    """One link of a client. Its handler receives and sends; when the handler returns it is closed (1000), when it fails it is closed (1011).

    ``context``: what ``admit`` gave; ``path``: as in HandshakeRequest.
    """

    __slots__ = ("_slot", "context", "path")

    def __init__(self, server: WebSocketServer, request: HandshakeRequest, accept: Accept) -> None:
        super().__init__(server, request.address, accept.subprotocol)
        self.context = accept.context
        self.path = request.path
        self._slot = 0

    def send_prepared(self, frame: bytes) -> bool:
        """Send what ``prepare`` or ``prepare_text`` gave. False when it is closed or closing: nothing was sent."""
        return self._send(frame)


class _Entrance(Handshake):
    """A line that is not decided yet. It is cut when its request is not complete in time, and told 503 when the decision takes as long again."""

    def __init__(self, server: WebSocketServer, timeout: float) -> None:
        super().__init__()
        self._server = server
        self._timeout = timeout
        self._deadline: asyncio.TimerHandle | None = None
        self._judging: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(self._timeout, transport.abort)
        self._server._knocks(self)

    def head(self, head: bytes, rest: bytes) -> None:
        method = head.partition(b" ")[0]
        if method != b"GET" and method.isalpha() and method.isupper():
            self.refuse(Reject(405, "Here one can only GET.", (("Allow", "GET"),)))
            return
        try:
            asked = _parse_http_request(head)
        except RuntimeError as error:
            self.refuse(Reject(400, str(error)))
            return
        judging = self._server._hear(self, HandshakeRequest(asked, self.transport), rest)
        if judging is not None and not self.transport.is_closing():
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            self._judging = loop.create_task(judging)
            self._stop_clock()
            self._deadline = loop.call_later(self._timeout, self._too_long)

    def more(self, data: bytes) -> None:
        self.transport.abort()  # who waits for an answer has nothing to say; TLS may still have had it in hand when reading stopped

    def endless(self) -> None:
        self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.leave()

    def leave(self) -> None:
        """It is decided, or gone."""
        self._server._halfway.discard(self)
        self._stop_clock()
        if self._judging is not None and self._judging is not asyncio.current_task():
            self._judging.cancel()
        self._judging = None

    def refuse(self, reject: Reject) -> None:
        """Answer and end the line."""
        self._server.refused += 1
        self.leave()
        headers = [("Content-Type", "text/plain; charset=utf-8"), *reject.headers, ("Connection", "close")]
        answer = WSUpgradeResponse.create_error_response(HTTPStatus(reject.status), f"{reject.text}\n".encode(), headers)
        self.transport.write(bytes(answer.to_bytes()))
        self.transport.close()

    def accept(self, core: WSProtocol, key: str, rest: bytes) -> None:
        """The core completes the handshake of a request that is reduced to what it must know, and has the line from now on."""
        self.leave()
        request = f"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        self.hand_over(core, request.encode("latin-1") + rest)

    def _too_long(self) -> None:
        self.refuse(self._server._crowded("The answer takes too long; come again later."))

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Pace:
    """At most ``rate`` per second, ``burst`` at once; the others wait for their turn, ``patience`` seconds at most. The queue is but a time."""

    def __init__(self, rate: float, burst: int, patience: float) -> None:
        self._every = 1 / rate
        self._ahead = (burst - 1) / rate
        self._patience = patience
        self._turn = -math.inf
        self._turned_away = 0

    def wait(self, now: float) -> float | None:
        """Seconds until it is the next one's turn; None: too many wait already."""
        turn = max(self._turn, now - self._ahead)
        wait = max(0.0, turn - now)
        if wait > self._patience:
            self._turned_away += 1
            return None
        if not wait:
            self._turned_away = 0
        self._turn = turn + self._every
        return wait

    def spread(self) -> float:
        """Seconds that all who were turned away since nobody had to wait need to get in."""
        return self._turned_away * self._every


class WebSocketServer(Owner):
    """One listener.

    ``handler``: runs once per connection. ``admit``: decides who comes in. ``key``: the configuration key that names host and port, for errors.
    Sizes in bytes, times in seconds of ``clock``: ``max_message`` what a client may send at once (also in fragments), ``max_queue`` messages
    that wait for the handler; ``ping_interval`` how often a silent client is pinged (None: never), ``ping_timeout`` how long it may stay silent
    from then on (as long again, if None) before it is closed with 1011; ``high_water`` and ``write_limit`` see Connection, and who is above the
    high-water mark for three intervals is cut off, too; ``send_buffer`` what the operating system may hold for a client (None: as much as it likes,
    which is megabytes); ``max_connections`` more are answered 503, to come again after ``retry_after`` to twice as many seconds, by chance.
    ``handshakes_per_second`` (None: no limit), ``handshake_burst`` and ``handshake_queue`` see the module; ``keepalive``: seconds of silence after
    which the system itself looks whether the client is there. ``unsecured``: is told the address and the error of each TLS handshake that fails.
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
        handshakes_per_second: float | None = None,
        handshake_burst: int = 50,
        handshake_queue: float = 5.0,
        keepalive: int = 300,
        random: Random | None = None,
        tls: ssl.SSLContext | None = None,
        unsecured: Callable[[str, Exception], None] | None = None,
    ) -> None:
        super().__init__(max_message, max_queue, high_water, write_limit)
        if handshakes_per_second is not None and not (handshakes_per_second > 0 and handshake_burst >= 1 and handshake_queue >= 0):
            raise ValueError("handshakes_per_second above 0, handshake_burst at least 1, handshake_queue at least 0")
        self.opened = 0
        """Handshakes completed."""
        self.refused = 0
        """Handshakes that were answered otherwise."""
        self.crowded = 0
        """Of these: because there were too many, or the decision took too long (503)."""
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
        self._unsecured = unsecured
        self._accepting: list[asyncio.Task[None]] = []
        self._securing: set[asyncio.Task[None]] = set()
        self._keepalive = keepalive
        self._random = random or Random()  # noqa: S311  # spreads, keeps no secret
        self._pace = None if handshakes_per_second is None else _Pace(handshakes_per_second, handshake_burst, handshake_queue)
        self._tick = min(_TICK, close_timeout / 2, *(() if ping_interval is None else (ping_interval / _SLOTS,)))
        count = _SLOTS if ping_interval is None else max(1, round(ping_interval / self._tick))
        self._slots: list[set[Connection]] = [set() for _ in range(count)]
        self._turn = itertools.cycle(range(count))
        self._next = itertools.cycle(range(count))
        self._closes_at: dict[Connection, float] = {}
        self._halfway: set[_Entrance] = set()
        self._tasks: dict[Connection, asyncio.Task[None]] = {}
        self.guests: set[Guest] = set()
        """Lines that were taken over and live on; they count for ``max_connections``."""
        self._server: asyncio.Server | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False
        self._empty = asyncio.Event()
        self._quiet = Quiet()

    @property
    def connections(self) -> list[Connection]:
        """All that are open or closing, now."""
        return list(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    async def start(self) -> str:
        """Listen; returns ``host:port``. Raises ConfigurationError naming the key when that cannot be."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._entrance, self._host, self._port, backlog=self._backlog, start_serving=False)
        except OSError as error:
            where = address(self._host, self._port)
            raise ConfigurationError(f"{self._key} = {where!r}: cannot listen: {_why(error)}") from error
        for listening in self._server.sockets:  # accepted sockets take all this from the listening one
            watch_line(listening, self._keepalive)
            if self._send_buffer is not None:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        if self._tls is None:
            await self._server.start_serving()
        else:
            self._accepting = [loop.create_task(self._accept(self._listen(one))) for one in self._server.sockets]
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
        for tasks_of_tls in (self._accepting, self._securing):  # in this order: no more come when those who are half in are cut
            for task in tasks_of_tls:
                task.cancel()
            await asyncio.gather(*tasks_of_tls, return_exceptions=True)
        self._accepting.clear()
        for entrance in tuple(self._halfway):
            entrance.transport.abort()
            entrance.leave()
        for guest in tuple(self.guests):
            guest.end()
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

    # ---------------------------------------------------------------------------------------------------------------- TLS

    def secure(self, tls: ssl.SSLContext) -> None:
        """Certificates and authorities for all who come from now on."""
        self._tls = tls

    def _listen(self, bound: socket.socket) -> socket.socket:
        """A socket of ours for one that the loop has bound, and does not serve."""
        listening = socket.socket(fileno=os.dup(bound.fileno()))
        listening.setblocking(False)
        listening.listen(self._backlog)
        return listening

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listening:
            while True:
                try:
                    line, peer = await loop.sock_accept(listening)
                except OSError as error:
                    log.error("no line can be accepted", extra={"listen": self._key, "reason": error.strerror})
                    await self._clock.sleep(_EXHAUSTED_PAUSE if error.errno in _EXHAUSTED else 0.0)
                    continue
                if len(self._securing) >= self._max_connections:
                    line.close()
                    continue
                task = loop.create_task(self._secured(line, peer[0]))
                self._securing.add(task)
                task.add_done_callback(self._securing.discard)
                await asyncio.sleep(0)  # however many knock, those who are in have their turn

    async def _secured(self, line: socket.socket, peer: str) -> None:
        """From then on it is as any other."""
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._entrance, line, ssl=self._tls, ssl_handshake_timeout=self._handshake_timeout / self._clock.speed
            )
        except OSError as error:  # TLS, a line that ended, or the time that a handshake may take
            if self._unsecured is not None:
                self._unsecured(peer, error)

    # ---------------------------------------------------------------------------------------------------------- handshake

    def _entrance(self) -> _Entrance:
        return _Entrance(self, self._handshake_timeout / self._clock.speed)

    def _knocks(self, entrance: _Entrance) -> None:
        self._halfway.add(entrance)
        if self._stopping or len(self._halfway) > self._max_connections:
            entrance.transport.abort()

    def _hear(self, entrance: _Entrance, request: HandshakeRequest, rest: bytes) -> Coroutine[Any, Any, None] | None:
        """Answer at once, or return what will: the request has to wait for its turn, or ``admit`` for somebody slow."""
        early = self._at_the_limits(request)
        if early is not None:
            entrance.refuse(early)
            return None
        wait = 0.0 if self._pace is None else self._pace.wait(self._clock.monotonic())
        if wait is None:
            entrance.refuse(self._crowded("Too many come at once; come again later."))
            return None
        if wait:
            return self._judge_later(entrance, request, rest, wait)
        decided = self._ask(request)
        if isinstance(decided, Accept | Reject | Takeover):
            self._settle(entrance, request, decided, rest)
            return None
        return self._judge_later(entrance, request, rest, 0.0, decided)

    async def _judge_later(
        self, entrance: _Entrance, request: HandshakeRequest, rest: bytes, wait: float, decided: Decision | Awaitable[Decision] | None = None
    ) -> None:
        if wait:
            await self._clock.sleep(wait)
        if decided is None:
            decided = self._ask(request)
        if not isinstance(decided, Accept | Reject | Takeover):
            try:
                decided = await decided
            except Exception:  # as in _ask
                log.exception("a handshake could not be judged", extra={"peer": request.address})
                decided = _UNJUDGED
        if not entrance.transport.is_closing():
            self._settle(entrance, request, decided, rest)

    def _at_the_limits(self, request: HandshakeRequest) -> Reject | None:
        if self._stopping or len(self._tasks) + len(self.guests) >= self._max_connections:
            return self._crowded("No more connections now; come again later.")
        if len(request.headers("host")) != 1:
            return Reject(400, "A request has one Host header.")
        return None

    def _crowded(self, text: str) -> Reject:
        """503, and by chance when to come again: the more there are, the longer, so that they do not come back in step."""
        self.crowded += 1
        spread = self._retry_after if self._pace is None else max(self._retry_after, self._pace.spread())
        seconds = self._retry_after + self._random.uniform(0, min(spread, _LONGEST_RETRY))
        return Reject(503, text, (("Retry-After", str(math.ceil(seconds))),))

    def _ask(self, request: HandshakeRequest) -> Decision | Awaitable[Decision]:
        try:
            return self._admit(request)
        except Exception:  # one request that we cannot judge must not end the listener, nor tell a stranger why
            log.exception("a handshake could not be judged", extra={"peer": request.address})
            return _UNJUDGED

    def _settle(self, entrance: _Entrance, request: HandshakeRequest, decided: Decision, rest: bytes) -> None:
        if isinstance(decided, Accept):
            decided = self._at_the_limits(request) or _fitting(request, decided)  # they may have been reached while it waited
        if isinstance(decided, Reject):
            entrance.refuse(decided)
            return
        if isinstance(decided, Takeover):
            entrance.leave()
            decided.take(self, entrance.transport)
            return
        headers = list(decided.headers)
        if decided.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", decided.subprotocol))
        connection = Connection(self, request, decided)
        if decided.close is not None:
            connection.close(*decided.close)
        answer = WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), connection)
        core = WSProtocol(
            None, None, False, lambda _: answer, self._quiet, True, None, False, 20.0, 20.0, WSAutoPingStrategy.PING_WHEN_IDLE, False,
            self.max_message, None, READ_BUFFER,
        )  # fmt: skip
        entrance.accept(core, request.header("sec-websocket-key"), rest)

    # ------------------------------------------------------------------------------------------------- links and their life

    def joins(self, connection: Connection) -> None:
        """Runs its handler."""
        self.opened += 1
        connection._slot = next(self._next)
        self._slots[connection._slot].add(connection)
        if connection._closing:  # let in only to be told
            code, reason = connection._close_code or OK, connection._close_reason
            self._tasks[connection] = asyncio.get_running_loop().create_task(_nothing())
            assert connection._transport is not None
            connection._transport.send_close(code, shortened(reason))  # type: ignore[arg-type]  # as above
            self.closes(connection)
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

    def closes(self, connection: Connection, patience: float | None = None) -> None:
        """Cuts it when it does not end."""
        deadline = self._clock.monotonic() + min(self._close_timeout, patience or self._close_timeout)
        self._closes_at[connection] = min(deadline, self._closes_at.get(connection, deadline))

    def leaves(self, connection: Connection) -> None:
        """Forgets it."""
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
            self.closes(connection)
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


def _fitting(request: HandshakeRequest, accept: Accept) -> Decision:
    """What stands against it although it may come in: then why not, else ``accept``."""
    if not request.upgrade:
        return Reject(426, "Here is a WebSocket: connect with a WebSocket client (ws://).", _UPGRADE)
    if request.header("sec-websocket-version").strip() != "13":
        return Reject(426, "This server speaks version 13 of WebSocket.", _UPGRADE)
    keys = request.headers("sec-websocket-key")
    if len(keys) != 1:
        return Reject(400, "A handshake has one Sec-WebSocket-Key.")
    if accept.subprotocol is not None and accept.subprotocol not in request.subprotocols:
        log.error("the chosen subprotocol was not offered", extra={"peer": request.address, "subprotocol": accept.subprotocol})
        return _UNJUDGED
    return accept


async def _nothing() -> None:
    """The handler of a link that is closed as soon as it is open."""
