"""A WebSocket client: RFC 6455 on the client's side, for years, over networks that go silent, to servers that are not always WebSocket servers.

``connect`` answers with a ``ClientConnection`` or says in words why there is none (``ConnectFailed`` and its kinds). The request's path goes out byte
for byte as given; the server's answer is read here and not by picows' core, because the core knows one spelling of its header fields and drops the
body that says why it was refused. Frames: see ``websocket_link``. Redirects are not followed, proxies of the environment are not used, nothing is
compressed. Nothing here reconnects: that is the caller's, with ``backoff``.

ConnectFailed
├── HostUnknown        the name does not resolve
├── Unreachable        nobody listens there, no way there, or the line broke before the handshake was complete
├── TlsFailed          no TLS, or a certificate that one of both does not accept
├── HandshakeRefused   an HTTP answer instead of a WebSocket: 401, 404, 503 ...
├── HandshakeBroken    an answer that is none by RFC 6455
└── ConnectTimeout     no complete handshake in time
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from picows import WSAutoPingStrategy, WSProtocolError, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # its stub leaves it out

from gridloom.core.clock import Clock, from_datetime
from gridloom.core.errors import GridloomError
from gridloom.links.websocket_link import INTERNAL, PATIENCE, READ_BUFFER, Handshake, Link, Owner, Quiet, prepare, watch_line

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS = re.compile(r"HTTP/1\.[01] (\d{3})(?: .*)?")
_LONGEST_BODY = 1_024
_BODY_WAIT = 0.5
"""Seconds that a refusal's body may come later than its head."""
_QUIET = Quiet()


class ConnectFailed(GridloomError):
    """No connection. The message names the URL (without credentials and query) and the reason in words."""

    code = "connect-failed"
    status = 502


class HostUnknown(ConnectFailed):
    """The host's name does not resolve."""


class Unreachable(ConnectFailed):
    """Nobody listens there, there is no way there, or the line broke before the handshake was complete."""


class TlsFailed(ConnectFailed):
    """There is no TLS, or one side does not accept the other's certificate."""


class HandshakeBroken(ConnectFailed):
    """The answer is no handshake of RFC 6455."""


class ConnectTimeout(ConnectFailed):
    """There was no complete handshake in time."""


class HandshakeRefused(ConnectFailed):
    """The server answered with another HTTP status than 101: ``http_status``; ``retry_after``: seconds that it asks us to wait, or None;
    ``text``: first line of what it says, or empty; ``headers``: names in lower case, several values joined by commas."""

    def __init__(self, message: str, http_status: int, headers: dict[str, str], text: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.headers = headers
        self.text = text
        self.retry_after = retry_after


class ClientConnection(Link):
    """A link to a server; see Link. ``subprotocol``: as the server answered, None if it named none, and not necessarily one of ``offered``: the
    caller decides what then. ``headers``: of its answer, names in lower case."""

    __slots__ = ("_ended", "headers", "offered")
    _owner: _Keeper

    def __init__(self, keeper: _Keeper, address: str, headers: dict[str, str], offered: tuple[str, ...]) -> None:
        super().__init__(keeper, address, headers.get("sec-websocket-protocol"))
        self.headers = headers
        self.offered = offered
        self._ended = asyncio.Event()

    @property
    def ping_interval(self) -> float:
        """Seconds between pings, also while messages come; 0: none. It can be changed at any time and counts from then."""
        return self._owner.ping_interval

    @ping_interval.setter
    def ping_interval(self, seconds: float) -> None:
        self._owner.ping_every(seconds)

    def send(self, message: str | bytes) -> bool:
        """Send text (``str``) or binary (``bytes``). False when it is closed or closing: nothing was sent."""
        return self._send(prepare(message, masked=True))

    async def wait_closed(self) -> None:
        """Until the line has ended."""
        await self._ended.wait()

    def _end(self, transport: WSTransport) -> None:
        self._owner.closes(self, PATIENCE)  # RFC 6455 section 7.1.1: the server ends the line first


class _Keeper(Owner):
    """Of one link: pings, and cuts it when it is dead. Timers instead of a task, so that a thousand simulated stations may share a process."""

    def __init__(self, clock: Clock, ping_timeout: float, close_timeout: float, **limits: int) -> None:
        super().__init__(**limits)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._ping_timeout = ping_timeout
        self._close_timeout = close_timeout
        self._link: ClientConnection | None = None
        self._next_ping: asyncio.TimerHandle | None = None
        self._answer_due: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None
        self.ping_interval = 0.0

    def joins(self, link: ClientConnection) -> None:
        """Begins to ping."""
        self._link = link
        self.ping_every(self.ping_interval)

    def closes(self, link: ClientConnection, patience: float | None = None) -> None:
        """Cuts it when it does not end."""
        cut = self._later(min(self._close_timeout, patience or self._close_timeout), link.abort)
        if self._cut is not None and self._cut.when() < cut.when():
            cut, self._cut = self._cut, cut
        _cancel(self._cut)
        self._cut = cut

    def leaves(self, link: ClientConnection) -> None:
        """Forgets it."""
        for timer in (self._next_ping, self._answer_due, self._cut):
            _cancel(timer)
        self._link = None
        link._ended.set()
        assert link._transport is not None
        if self.violations:
            # Where the core itself found the violation it hands it to who waits; unheard, asyncio would log it.
            self._heard = self._loop.create_task(_hear_out(link._transport))

    def ping_every(self, seconds: float) -> None:
        """From now on; 0: no more."""
        if seconds < 0:
            raise ValueError(f"a ping interval is 0 or more seconds, not {seconds}")
        self.ping_interval = seconds
        _cancel(self._next_ping)
        self._next_ping = self._later(seconds, self._ping) if seconds and self._link is not None else None
        if not seconds:
            _cancel(self._answer_due)
            self._answer_due = None

    def _ping(self) -> None:
        self._next_ping = self._later(self.ping_interval, self._ping)
        link = self._link
        if link is None or not link.open:
            return
        assert link._transport is not None
        if link._transport.is_close_frame_sent:  # the core closed it for a frame against the rules, and it may not take even that
            self.closes(link)
            return
        if self._answer_due is None:
            link._silent = 1  # until anything comes
            self._answer_due = self._later(self._ping_timeout, self._look)
        if link.writable:
            link._transport.send_ping()

    def _look(self) -> None:
        self._answer_due = None
        link = self._link
        if link is None or not link.open or not link._silent:
            return
        if link._held:  # we are the ones who do not read
            self._answer_due = self._later(self._ping_timeout, self._look)
            return
        link.close(INTERNAL, "no answer to a ping")

    def _later(self, seconds: float, action: Any) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds / self._clock.speed, action)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


async def _hear_out(transport: WSTransport) -> None:
    with contextlib.suppress(WSProtocolError):  # it was counted, and it is the link's close code
        await transport.wait_disconnected()


class _Url(NamedTuple):
    secure: bool
    host: str
    port: int
    target: str
    shown: str
    user: str | None
    password: str


def _split(url: str) -> _Url:
    """Takes a ``ws:`` or ``wss:`` URL apart; ``target`` is path and query byte for byte. Raises ValueError, which never shows the URL."""
    scheme, separator, rest = url.partition("://")
    secure = scheme.lower() == "wss"
    if not separator or scheme.lower() not in ("ws", "wss"):
        raise ValueError("a WebSocket URL begins with ws:// or wss://")
    if not all("!" <= letter <= "~" for letter in url):
        raise ValueError("a URL has printable ASCII only; everything else is percent-encoded")
    if "#" in rest:
        raise ValueError("a WebSocket URL has no fragment; a # in the path is written %23")
    end = next((place for place, letter in enumerate(rest) if letter in "/?"), len(rest))
    authority, target = rest[:end], rest[end:]
    try:
        parts = urlsplit(f"//{authority}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ValueError("the URL has no host, or no port from 1 to 65535")
    if not target.startswith("/"):
        target = "/" + target
    shown = f"{scheme.lower()}://{authority.rpartition('@')[2]}{target.partition('?')[0]}"
    user = None if parts.username is None else unquote(parts.username)
    return _Url(secure, host, port or (443 if secure else 80), target, shown, user, unquote(parts.password or ""))


class _Knock(Handshake):
    """A line until the server's answer is there; ``answer`` is the connection, or the reason why not."""

    def __init__(self, url: _Url, headers: list[tuple[str, str]], keeper: _Keeper, offered: tuple[str, ...]) -> None:
        super().__init__()
        self.answer: asyncio.Future[ClientConnection] = asyncio.get_running_loop().create_future()
        self._core = WSProtocol(
            "", url.target, True, lambda request, response: self._link, _QUIET, True, None, False, 20.0, 20.0, WSAutoPingStrategy.PING_WHEN_IDLE,
            False, keeper.max_message, headers, READ_BUFFER,
        )  # fmt: skip
        self._link: ClientConnection | None = None
        self._url = url
        self._keeper = keeper
        self._offered = offered
        self._refused: tuple[int, dict[str, str]] | None = None
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._core.connection_made(transport)  # asks

    def head(self, head: bytes, rest: bytes) -> None:
        try:
            status, headers = _parsed(head)
            if 100 <= status < 200 and status != 101:
                self._complete = False
                self.data_received(rest)
                return
            if status == 101:
                _check(headers, self._core.transport.request.headers["Sec-WebSocket-Key"])
        except ValueError as error:
            self._fail(HandshakeBroken(f"{self._url.shown}: no WebSocket handshake: {error}"))
            return
        if status != 101:
            self._refused = status, headers
            asyncio.get_running_loop().call_later(_BODY_WAIT, self._refuse)
            self.more(rest)
            return
        self._enter(headers, rest)

    def more(self, data: bytes) -> None:
        if self._refused is None:  # it has failed
            return
        self._body += data
        length = self._refused[1].get("content-length", "")
        if len(self._body) >= _LONGEST_BODY or (length.isdecimal() and len(self._body) >= int(length)):
            self._refuse()

    def endless(self) -> None:
        self._fail(HandshakeBroken(f"{self._url.shown}: no WebSocket handshake: its head does not end"))

    def connection_lost(self, error: Exception | None) -> None:
        if self._refused is not None:
            self._refuse()
        elif isinstance(error, ssl.SSLError):
            self._fail(TlsFailed(f"{self._url.shown}: {_tls_words(error)}"))
        else:
            hint = "; perhaps the server wants a client certificate" if self._url.secure and not self._came else ""
            self._fail(Unreachable(f"{self._url.shown}: the line ended before the handshake was complete{hint}"))

    def _enter(self, headers: dict[str, str], rest: bytes) -> None:
        peer = self.transport.get_extra_info("peername")
        self._link = ClientConnection(self._keeper, peer[0] if isinstance(peer, tuple) else "", headers, self._offered)
        # What was checked, as the core spells it.
        fields = f"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {headers['sec-websocket-accept']}"
        self.hand_over(self._core, f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n".encode() + rest)
        if not self.answer.done():
            self.answer.set_result(self._link)

    def _refuse(self) -> None:
        if self.answer.done():
            return
        assert self._refused is not None
        status, headers = self._refused
        text = _first_line(self._body, headers)
        words = f"{self._url.shown}: the server answers {status}" + (f": {text}" if text else "")
        self._fail(HandshakeRefused(words, status, headers, text, self._retry_after(headers)))

    def _retry_after(self, headers: dict[str, str]) -> float | None:
        said = headers.get("retry-after", "")
        if said.isascii() and said.isdecimal():
            return float(said[:9])
        try:
            moment = parsedate_to_datetime(said)
        except ValueError:
            return None
        return max(0.0, (from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - self._keeper._clock.now()) / 1_000_000)

    def _fail(self, error: ConnectFailed) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        self.transport.abort()

    def give_up(self) -> None:
        """Nobody will be given the link: refused, too late, cancelled."""
        if not self.answer.cancel() and not self.answer.cancelled():
            self.answer.exception()  # it was told already
        if self.transport is not None:
            self.transport.abort()


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and header fields of an HTTP answer. Raises ValueError with what is wrong."""
    first, *lines = head.decode("latin-1").split("\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        raise ValueError(f"it begins with {first[:40]!r} instead of HTTP/1.1 and a status")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise ValueError(f"a header line is {line[:40]!r}")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    return int(status[1]), headers


def _check(headers: dict[str, str], key: str) -> None:
    """RFC 6455 section 4.1, what the client validates; the subprotocol is the caller's. Raises ValueError."""
    if headers.get("upgrade", "").lower() != "websocket":
        raise ValueError("Upgrade is not websocket")
    if "upgrade" not in [word.strip().lower() for word in headers.get("connection", "").split(",")]:
        raise ValueError("Connection is not Upgrade")
    if headers.get("sec-websocket-accept") != base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode():
        raise ValueError("Sec-WebSocket-Accept does not fit our key")
    if "sec-websocket-extensions" in headers:
        raise ValueError("it uses an extension that was not offered")


def _first_line(body: bytes, headers: dict[str, str]) -> str:
    """What a refusal says, shortened; nothing of HTML."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = body.partition(b"\r\n")[2]
    line = body.lstrip().partition(b"\n")[0].decode(errors="replace").strip()
    return "" if line.startswith("<") else "".join(letter for letter in line[:200] if letter.isprintable())


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not accepted: {error.verify_message}"
    return f"no TLS with this server: {(error.reason or str(error)).lower().replace('_', ' ')}"


def _headers(url: _Url, subprotocols: tuple[str, ...], more: Iterable[tuple[str, str]], credentials: tuple[str, str] | None) -> list[tuple[str, str]]:
    """The request's header fields that the core does not write itself. Raises ValueError."""
    for word in subprotocols:
        if not _TOKEN.fullmatch(word):
            raise ValueError(f"{word!r} is no name of a subprotocol")
    more = list(more)
    for name, value in more:
        if not _TOKEN.fullmatch(name) or not all(" " <= letter <= "~" for letter in value):
            raise ValueError(f"the header field {name!r} has letters that may not be sent")
    usual = url.port == (443 if url.secure else 80)
    host = f"[{url.host}]" if ":" in url.host else url.host
    headers = [("Host", host if usual else f"{host}:{url.port}")]
    if subprotocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(subprotocols)))
    if credentials is None and url.user is not None:
        credentials = (url.user, url.password)
    if credentials is not None:
        if ":" in credentials[0]:
            raise ValueError("a user name with a colon cannot be sent by HTTP Basic")
        headers.append(("Authorization", "Basic " + base64.b64encode(":".join(credentials).encode()).decode()))
    return headers + more


async def connect(
    url: str,
    *,
    clock: Clock,
    subprotocols: Iterable[str] = (),
    headers: Iterable[tuple[str, str]] = (),
    credentials: tuple[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
    connect_timeout: float = 30.0,
    max_message: int = 1_048_576,
    max_queue: int = 64,
    ping_interval: float = 0.0,
    ping_timeout: float = 20.0,
    close_timeout: float = 5.0,
    high_water: int = 65_536,
    write_limit: int = 8_388_608,
    keepalive: int = 300,
) -> ClientConnection:
    """Connect to a ``ws:`` or ``wss:`` URL and complete the handshake.

    ``subprotocols`` in order of preference; ``headers`` are sent as well; ``credentials`` (user, password) as HTTP Basic, else those in the URL;
    ``tls`` for ``wss:``, without it the system's authorities are trusted. Times in seconds of ``clock``: ``connect_timeout`` for name, line, TLS and
    handshake together; ``ping_interval`` see ClientConnection, and when nothing at all comes for ``ping_timeout`` behind a ping the link is closed
    with 1011; ``close_timeout`` how long the server may take to close; ``keepalive`` whole seconds of silence (real ones) after which the system
    itself looks whether the server is there. Sizes in bytes: ``max_message`` what may come, ``max_queue`` messages that wait, ``high_water``
    and ``write_limit`` see Link.

    Raises ConnectFailed (its kinds: see the module), ValueError for arguments that cannot be sent.
    """
    place = _split(url)
    offered = tuple(subprotocols)
    if tls is not None and not place.secure:
        raise ValueError("a ws: URL has no TLS; write wss:")
    keeper = _Keeper(clock, ping_timeout, close_timeout, max_message=max_message, max_queue=max_queue, high_water=high_water, write_limit=write_limit)
    keeper.ping_every(ping_interval)
    knock = _Knock(place, _headers(place, offered, headers, credentials), keeper, offered)
    timeouts: dict[str, Any] = {"ssl_handshake_timeout": 2 * connect_timeout / clock.speed} if place.secure else {}  # ours comes first
    context = (tls or ssl.create_default_context()) if place.secure else None

    async def knocking() -> ClientConnection:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(
            lambda: knock, place.host, place.port, ssl=context, server_hostname=place.host if place.secure else None, **timeouts
        )
        watch_line(transport.get_extra_info("socket"), keepalive)
        return await knock.answer

    with contextlib.ExitStack() as unless_connected:
        unless_connected.callback(knock.give_up)
        try:
            link = await clock.wait_for(knocking(), connect_timeout)
        except ConnectFailed:
            raise
        except TimeoutError as error:
            raise ConnectTimeout(f"{place.shown}: no complete handshake within {connect_timeout:g} s") from error
        except ssl.SSLError as error:
            raise TlsFailed(f"{place.shown}: {_tls_words(error)}") from error
        except socket.gaierror as error:
            raise HostUnknown(f"{place.shown}: there is no such host name") from error
        except OSError as error:
            words = "nobody listens there" if isinstance(error, ConnectionRefusedError) else error.strerror or str(error) or "the line broke"
            raise Unreachable(f"{place.shown}: {words}") from error
        unless_connected.pop_all()
        return link
