"""FACE: the TIC2WebSocket API, as its existing clients know it, in the dialect of their choice.

Frames are heard on the bus (``readings.*``), ports and errors on subjects of the integration's own; the link is never seen, so that it may run on
another machine. A frame is encoded once per dialect and framed once, whatever the number of subscribers; who is slow keeps only the newest
frame of each stream, and what was left out for that is counted.

Every request is answered. A waiting ReadTIC keeps nobody waiting: neither other clients, nor other requests of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from litestar import MediaType, Request, Response, get

from gridloom.core import subjects
from gridloom.core.errors import DeviceTimeout, NotFound, Offline
from gridloom.core.hub import Health, Hub
from gridloom.core.model import Consent, Device, Principal, native_as
from gridloom.core.subjects import DeviceState, Told
from gridloom.integrations.tic import wire
from gridloom.integrations.tic.config import Section
from gridloom.integrations.tic.dialects import DIALECTS, Dialect
from gridloom.integrations.tic.messages import ErrorKind, LineError, PortState, State, TicFrame
from gridloom.integrations.tic.wire import Identifier, Malformed, Stream
from gridloom.links.websocket import POLICY, Accept, Connection, HandshakeRequest, Reject, WebSocketServer, prepare_text

log = logging.getLogger(__name__)

MESSAGE_BYTES = 65_536
READ_SECONDS = 10.0
"""Of the hub's clock, that ReadTIC waits for a frame (FACTS 3)."""
READS_PER_CLIENT = 16
SLICE = 200
"""Clients that are served at a stretch, before others have their turn."""
PENDING = 64
"""Events that wait for a slow client: the newest frame and the newest error of each kind, per stream."""
PING_SECONDS, PONG_SECONDS = 30.0, 900.0
"""Clients that only listen when they have asked something do not answer pings in time; the peer never sent any. Who is stuck is cut off anyway."""
RECHECK_SECONDS = 30.0
_HELD_FOR_CLIENT = 32_768
"""Bytes that the operating system, and again we, hold for a client: more would only be older frames."""
_LIVE: frozenset[State] = frozenset(("starting", "searching", "reading", "silent"))
_ABSENT: frozenset[State] = frozenset(("missing", "unplugged"))
_PREFIX = "tic:"


class Entrance(msgspec.Struct, frozen=True):
    """Where the API listens and how, for the test page. ``address``: ``host:port``; ``token``: whether one is asked for."""

    address: str
    dialect: str
    token: bool


class Admitted:
    """What was decided about a client at its handshake. ``principal`` None: nobody in particular, by the local door or the token of the section."""

    __slots__ = ("dialect", "principal", "secret")

    def __init__(self, dialect: str, principal: Principal | None, secret: str) -> None:
        self.dialect = dialect
        self.principal = principal
        self.secret = secret


class Client:
    """One connection: what it subscribed to, what waits for it."""

    __slots__ = ("connection", "dialect", "everything", "pending", "principal", "reads", "secret", "wanted")

    def __init__(self, connection: Connection, dialect: Dialect, admitted: Admitted) -> None:
        self.connection = connection
        self.dialect = dialect
        self.principal = admitted.principal
        self.secret = admitted.secret
        self.everything = False
        self.wanted: dict[Identifier, None] = {}
        self.pending: dict[Any, bytes] = {}
        self.reads: set[asyncio.Task[None]] = set()
        connection.on_writable = self.flush

    def wants(self, stream: Stream) -> bool:
        """Whether it subscribed to the stream, by whatever identifier."""
        return self.everything or any(identifier.matches(stream) for identifier in self.wanted)

    def offer(self, key: Any, event: bytes) -> int:
        """Send an event, or keep it (instead of an older one of the same key) until the client reads again. Returns how many were left out."""
        if self.connection.writable and not self.pending:
            self.connection.send_prepared(event)
            return 0
        left_out = 1 if self.pending.pop(key, None) is not None else 0
        if len(self.pending) >= PENDING:
            del self.pending[next(iter(self.pending))]
            left_out += 1
        self.pending[key] = event
        return left_out

    def flush(self) -> None:
        """It reads again."""
        while self.pending and self.connection.writable:
            event = self.pending.pop(next(iter(self.pending)))
            self.connection.send_prepared(event)


class _Job:
    """One thing to tell: a frame (``kind`` None), or an error."""

    __slots__ = ("frame", "kind", "stream")

    def __init__(self, stream: Stream, frame: TicFrame | None, kind: ErrorKind | None) -> None:
        self.stream = stream
        self.frame = frame
        self.kind = kind


class Tic2WebSocket:
    """The listener and its clients: a service."""

    name = "tic.api"

    def __init__(self, section: Section, hub: Hub) -> None:
        self._section = section
        self._hub = hub
        zone = ZoneInfo(hub.timezone)
        self._dialects = {name: kind(zone) for name, kind in DIALECTS.items()}
        self._paths = {"/": section.dialect, **{f"/{name}": name for name in DIALECTS}}
        self._secret = section.token_file.read().reveal() if section.token_file is not None else ""
        self._guarded = bool(self._secret) or not _is_loopback(section.listen.host)
        self._origins = {origin.lower() for origin in section.origins}
        self._server: WebSocketServer | None = None
        self._address = ""
        self._clients: dict[Connection, Client] = {}
        self._ports: dict[str, PortState] = {}
        self._audiences: dict[Stream, tuple[Client, ...]] = {}
        self._reads: dict[asyncio.Future[tuple[Stream, TicFrame]], tuple[Client, Identifier]] = {}
        self._jobs: dict[Any, _Job] = {}
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._leave: list[Callable[[], None]] = []
        metrics = hub.metrics
        metrics.gauge("gridloom_tic_clients", "Clients of the TIC2WebSocket API, by dialect.", ("dialect",), self._counts)
        self._requests = metrics.counter("gridloom_tic_requests_total", "Requests of TIC2WebSocket clients by name and error code.", ("name", "code"))
        self._refused = metrics.counter("gridloom_tic_clients_refused_total", "Clients that were not let in, by reason.", ("reason",))
        self._sent = metrics.counter("gridloom_tic_events_sent_total", "Events sent to TIC2WebSocket clients.").bind()
        self._left_out = metrics.counter(
            "gridloom_tic_events_left_out_total", "Events that a slow TIC2WebSocket client was not sent, because a newer one took their place."
        ).bind()
        self._overtaken = metrics.counter(
            "gridloom_tic_frames_overtaken_total", "Frames sent to nobody, because the next one came before they could be sent."
        ).bind()

    # ------------------------------------------------------------------------------------------------------------ service

    async def start(self) -> Mapping[str, str]:
        """Listen. Raises ConfigurationError naming ``[tic] listen``."""
        server = WebSocketServer(
            self._section.listen.host, self._section.listen.port, self._serve, admit=self.admit, key="[tic] listen", clock=self._hub.clock,
            max_message=MESSAGE_BYTES, ping_interval=PING_SECONDS, ping_timeout=PONG_SECONDS, close_timeout=2.0,
            high_water=_HELD_FOR_CLIENT, send_buffer=_HELD_FOR_CLIENT,
        )  # fmt: skip
        self._address = await server.start()
        self._server = server
        bus = self._hub.bus
        self._leave = [
            bus.listen(subjects.ALL_READINGS, self._hear_reading),
            bus.listen(f"{subjects.of('tic', 'port')}.*", self._hear_port),
            bus.listen(f"{subjects.of('tic', 'error')}.*", self._hear_error),
            bus.listen(subjects.ALL_DEVICES, self._hear_device),
            bus.serve(subjects.of("tic", "api"), self._tell_where),
        ]
        self._tasks = [asyncio.create_task(work, name=self.name) for work in (self._fan_out(), self._recheck())]
        await self._ask_ports()  # what they told before we listened
        return {"tic": self._address}

    async def wait(self) -> None:
        """Raises what ended it."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Clients are told, and the port is free. Never raises."""
        for leave in self._leave:
            leave()
        self._leave = []
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._jobs.clear()

    def health(self) -> Health:
        """Whether it listens."""
        return Health(self._server is not None, "" if self._server is not None else "does not listen")

    # ---------------------------------------------------------------------------------------------------------- admission

    def admit(self, request: HandshakeRequest) -> Accept | Reject:
        """Path, origin, token: in memory, at once."""
        dialect = self._paths.get(request.path)
        if dialect is None:
            return self._turn_away("path", Reject(404, f"There is nothing here; the paths are {', '.join(self._paths)}."))
        if request.query:
            return self._turn_away("query", Reject(400, "No query is understood here; a token goes into the header Authorization: Bearer TOKEN."))
        origin = request.header("origin")
        if origin and not self._is_welcome(origin, request):
            return self._turn_away("origin", Reject(403, 'Pages of this origin may not connect; "[tic] origins" in the configuration lists more.'))
        protocols = [word for word in request.subprotocols if word.startswith("bearer.")]
        scheme, _, secret = request.header("authorization").partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
        if not secret and protocols:
            secret = protocols[0].removeprefix("bearer.")
        principal = self._hub.accounts.authenticate_token(secret, request.address, request.header("user-agent")[:100]) if secret else None
        if self._guarded and principal is None and not self._is_ours(secret):
            challenge = (("WWW-Authenticate", "Bearer"),)
            text = "A token is needed: send the header Authorization: Bearer TOKEN, or offer the subprotocol bearer.TOKEN."
            return self._turn_away("token", Reject(401, text, challenge))
        chosen = None
        if protocols:  # browsers ask that one of those they offer is chosen: another one, if there is, so that the token is not sent back
            chosen = next((word for word in request.subprotocols if word not in protocols), protocols[0])
        return Accept(subprotocol=chosen, context=Admitted(dialect, principal, secret if principal is not None else ""))

    def _turn_away(self, reason: str, reject: Reject) -> Reject:
        self._refused.inc(reason=reason)
        return reject

    def _is_ours(self, secret: str) -> bool:
        return bool(self._secret) and hmac.compare_digest(secret.encode(), self._secret.encode())

    def _is_welcome(self, origin: str, request: HandshakeRequest) -> bool:
        """A page of this hub, or one that the configuration lists.

        A page is the hub's when it has its port, and a name that no other machine can have for this browser: the hub's own, a loopback name
        on this machine, or the very address that is connected to. (Its name alone proves nothing: whoever owns a name may let it point here.)
        """
        if origin.lower() in self._origins:
            return True
        try:
            page, own, here = urlsplit(origin), urlsplit(self._hub.http()), urlsplit(f"//{request.header('host')}")
            ports = [parts.port or (443 if parts.scheme == "https" else 80) for parts in (page, own)]
        except ValueError:
            return False
        if page.scheme not in ("http", "https") or not page.hostname or ports[0] != ports[1]:
            return False
        if page.hostname == own.hostname:
            return True
        if _is_loopback(page.hostname):
            return _is_loopback(request.address)
        return _is_address(page.hostname) and page.hostname == here.hostname

    # ------------------------------------------------------------------------------------------------------------ clients

    async def _serve(self, connection: Connection) -> None:
        admitted: Admitted = connection.context
        client = self._clients[connection] = Client(connection, self._dialects[admitted.dialect], admitted)
        try:
            async for message in connection:
                answer = await self._answer(client, message)
                if answer is not None:
                    connection.send_prepared(prepare_text(answer))
                await connection.drain()  # who does not read its answers is not asked for more
        finally:
            del self._clients[connection]
            self._audiences.clear()
            for task in client.reads:
                task.cancel()

    async def _answer(self, client: Client, message: str | bytes) -> bytes | None:
        """The answer to one message; None when it comes later."""
        dialect = client.dialect
        now = self._hub.clock.now()
        request = wire.parse(message)
        if isinstance(request, Malformed):
            name, code = dialect.malformed(request)
            self._requests.inc(name=request.name or "other", code=str(code[0]))
            return dialect.refusal(now, name, code)
        try:
            code, data = await self._carry_out(client, request)
        except Exception:  # one request must not end the connection; the client is told that it is our fault
            log.exception("a request could not be answered", extra={"request": request.name})
            code, data = dialect.internal("internal error"), None
        if code is _LATER:
            return None
        return self._outcome(dialect, request.name, code, data)

    def _outcome(self, dialect: Dialect, name: str, code: tuple[int, str], data: Any = None) -> bytes:
        self._requests.inc(name=name, code=str(code[0]))
        now = self._hub.clock.now()
        return dialect.answer(now, name, data) if code is _DONE else dialect.refusal(now, name, code)

    async def _carry_out(self, client: Client, request: wire.Request) -> tuple[tuple[int, str], Any]:
        dialect = client.dialect
        if request.name == "GetAvailableTICs":
            await self._ask_ports()
            return _DONE, dialect.available([_stream(port) for port in self._live_ports(client)])
        if request.name == "GetModemsInfo":
            await self._ask_ports()
            return _DONE, dialect.modems([port for port in self._ports.values() if port.state not in _ABSENT and self._sees(client, port.serial)])
        if request.name == "UnsubscribeTIC":
            if request.identifiers is None:
                client.everything = False
                client.wanted.clear()
            for identifier in request.identifiers or ():
                client.wanted.pop(identifier, None)
            self._audiences.clear()
            return _DONE, None
        missing = await self._missing(client, request.identifiers or ())
        if missing is not None:
            identifier, place = missing
            return dialect.not_found(request, identifier, place), None
        if request.name == "ReadTIC":
            return self._begin_to_read(client, request)
        wanted = client.wanted | dict.fromkeys(request.identifiers or ())
        if len(wanted) > wire.LONGEST_LIST:
            return dialect.internal(f"a client may have at most {wire.LONGEST_LIST} subscriptions; subscribe without data to have all streams"), None
        client.wanted = wanted
        client.everything = client.everything or request.identifiers is None
        self._audiences.clear()
        return _DONE, None

    def _begin_to_read(self, client: Client, request: wire.Request) -> tuple[tuple[int, str], Any]:
        if len(client.reads) >= READS_PER_CLIENT:
            return client.dialect.internal(f"at most {READS_PER_CLIENT} ReadTIC may wait on one connection"), None
        assert request.identifiers is not None
        task = asyncio.create_task(self._read(client, request.identifiers[0]), name="ReadTIC")
        client.reads.add(task)
        task.add_done_callback(client.reads.discard)
        return _LATER, None

    async def _read(self, client: Client, identifier: Identifier) -> None:
        """Wait for the next frame of the stream, and answer."""
        dialect = client.dialect
        heard: asyncio.Future[tuple[Stream, TicFrame]] = asyncio.get_running_loop().create_future()
        self._reads[heard] = (client, identifier)
        try:
            stream, frame = await self._hub.clock.wait_for(heard, READ_SECONDS)
            answer = self._outcome(dialect, "ReadTIC", _DONE, dialect.frame(frame, stream))
        except TimeoutError:
            answer = self._outcome(dialect, "ReadTIC", dialect.timeout())
        finally:
            del self._reads[heard]
        client.connection.send_prepared(prepare_text(answer))

    # -------------------------------------------------------------------------------------------------------------- ports

    async def _ask_ports(self) -> None:
        """The ports as the link knows them now; what was heard of them when nobody answers."""
        try:
            ports = await self._hub.bus.request(subjects.of("tic", "ports"), None, 2.0)
        except (Offline, DeviceTimeout):
            return
        self._ports = {port.name: port for port in msgspec.convert(ports, list[PortState])}
        self._audiences.clear()

    def _live_ports(self, client: Client) -> list[PortState]:
        return [port for port in self._ports.values() if port.state in _LIVE and self._sees(client, port.serial)]

    async def _missing(self, client: Client, identifiers: Iterable[Identifier]) -> tuple[Identifier, int] | None:
        """The first identifier that matches no stream now, and its place."""
        for asked in (False, True):
            streams = [_stream(port) for port in self._live_ports(client)]
            missing = next(((one, place) for place, one in enumerate(identifiers) if not any(one.matches(stream) for stream in streams)), None)
            if missing is None or asked:
                return missing
            await self._ask_ports()  # it may have come this very moment
        return None

    def _sees(self, client: Client, serial: str | None) -> bool:
        """Whether the meter exists for the client. A port whose meter is not known yet does."""
        device = self._device(serial)
        return device is None or client.principal is None or self._hub.accounts.visible(client.principal, device)

    def _may_hear(self, client: Client, device: Device | None) -> bool:
        """Whether its frames are for this client."""
        if device is None:
            return True
        if client.principal is None:
            return device.consent is not Consent.REFUSED
        return self._hub.accounts.may(client.principal, "readings.read", device)

    def _device(self, serial: str | None) -> Device | None:
        if serial is None:
            return None
        try:
            return self._hub.registry.get(_PREFIX + serial)
        except NotFound:
            return None

    # ---------------------------------------------------------------------------------------------- what is heard, at once

    def _hear_reading(self, _: str, told: Told) -> None:
        reading = told.reading
        if reading.native is None or not reading.device.startswith(_PREFIX):
            return
        frame = native_as(reading.native, TicFrame)
        if frame is None:
            return
        stream = Stream(frame.serial or reading.device.removeprefix(_PREFIX), frame.port, frame.port_id, frame.port_path)
        known = self._ports.get(stream.port)
        if known is None:
            self._ports[stream.port] = PortState(
                name=stream.port,
                port_id=stream.port_id,
                port_path=stream.port_path,
                serial=stream.serial,
                mode=frame.mode,
                state="reading",
                reason="",
                since=frame.captured,
            )
        elif known.serial != stream.serial:
            self._ports[stream.port] = msgspec.structs.replace(known, serial=stream.serial, mode=frame.mode)
        if not self._clients:
            return
        for heard, (client, identifier) in self._reads.items():
            wanted = not heard.done() and identifier.matches(stream) and not client.dialect.withholds(frame)
            if wanted and self._may_hear(client, self._device(stream.serial)):
                heard.set_result((stream, frame))
        self._put((stream.port, None), _Job(stream, frame, None))

    def _hear_error(self, _: str, message: LineError) -> None:
        error = msgspec.convert(message, LineError)
        if not self._clients:
            return
        known = self._ports.get(error.port) or PortState(error.port, None, None, None, None, "silent", "", 0)
        stream = Stream(error.serial or known.serial, error.port, known.port_id, known.port_path)
        self._put((stream.port, error.code_kind), _Job(stream, error.frame, error.code_kind))

    def _hear_port(self, _: str, message: PortState) -> None:
        port = msgspec.convert(message, PortState)
        before = self._ports.get(port.name)
        if port.serial is None and before is not None and port.state in _ABSENT:
            port = msgspec.structs.replace(port, serial=before.serial)  # so that who subscribed by it is told that it is gone
        self._ports[port.name] = port

    def _hear_device(self, _: str, message: DeviceState) -> None:
        """Whoever removed the device, or who may hear it now: asked again at the next frame."""
        self._audiences.clear()

    async def _tell_where(self, _: object) -> Entrance:
        return Entrance(self._address, self._section.dialect, self._guarded)

    # ------------------------------------------------------------------------------------------------------------- fan-out

    def _put(self, key: Any, job: _Job) -> None:
        if self._jobs.pop(key, None) is not None:
            self._overtaken.inc()
        self._jobs[key] = job
        self._work.set()

    async def _fan_out(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._jobs:
                key = next(iter(self._jobs))
                await self._tell(key, self._jobs.pop(key))

    async def _tell(self, key: Any, job: _Job) -> None:
        device = self._device(job.stream.serial)
        for_all = device is None or device.consent is not Consent.REFUSED
        encoded: dict[str, bytes | None] = {}
        sent = left_out = 0
        for place, client in enumerate(self._audience(job.stream), 1):
            if for_all if client.principal is None else self._may_hear(client, device):
                dialect = client.dialect
                if dialect.name not in encoded:
                    try:
                        encoded[dialect.name] = self._encoded(dialect, job)
                    except Exception:  # one frame that cannot be told must not end the telling: logged with its traceback, and the next is told
                        log.exception("a frame could not be told", extra={"port": job.stream.port, "dialect": dialect.name})
                        encoded[dialect.name] = None
                event = encoded[dialect.name]
                if event is not None:
                    sent += 1
                    left_out += client.offer(key, event)
            if place % SLICE == 0:
                await asyncio.sleep(0)
        self._sent.inc(sent - left_out)
        self._left_out.inc(left_out)

    def _encoded(self, dialect: Dialect, job: _Job) -> bytes | None:
        now = self._hub.clock.now()
        if job.frame is not None and job.kind is None and not dialect.withholds(job.frame):
            return prepare_text(dialect.data_event(now, job.frame, job.stream))
        event = dialect.error_event(now, job.kind or "checksum", job.stream, job.frame)
        return None if event is None else prepare_text(event)

    def _audience(self, stream: Stream) -> tuple[Client, ...]:
        """Who subscribed to the stream; each once."""
        found = self._audiences.get(stream)
        if found is None:
            if len(self._audiences) >= 1_000:
                self._audiences.clear()
            found = self._audiences[stream] = tuple([client for client in self._clients.values() if client.wants(stream)])
        return found

    async def _recheck(self) -> None:
        """A token that was revoked or has ended is worth nothing, also for those who are in."""
        while True:
            await self._hub.clock.sleep(RECHECK_SECONDS)
            for client in tuple(self._clients.values()):
                if client.principal is None:
                    continue
                again = self._hub.accounts.authenticate_token(client.secret, client.principal.address, client.principal.client)
                if again is None:
                    client.connection.close(POLICY, "the token is not valid any more")
                else:
                    client.principal = again

    def _counts(self) -> Mapping[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {(name,): 0.0 for name in self._dialects}
        for client in self._clients.values():
            counts[(client.dialect.name,)] += 1
        return counts


_DONE = (0, "")
_LATER = (0, "later")


def _stream(port: PortState) -> Stream:
    return Stream(port.serial, port.name, port.port_id, port.port_path)


def _is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------- the test page

_INLINE = re.compile(rb"<(script|style)(?:\s[^>]*)?>(.*?)</\1>", re.DOTALL)
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9.-]+", re.IGNORECASE)


class Page(msgspec.Struct, frozen=True):
    """The test page, and the policy that lets exactly its own script and style run."""

    content: bytes
    policy: str


@lru_cache(maxsize=1)
def page() -> Page:
    """Read once from ``static/tester.html``; it is one file."""
    content = resources.files("gridloom.integrations.tic").joinpath("static", "tester.html").read_bytes()
    hashes: dict[bytes, list[str]] = {b"script": [], b"style": []}
    for element, text in _INLINE.findall(content):
        hashes[element].append(f"'sha256-{b64encode(hashlib.sha256(text).digest()).decode()}'")
    script, style = (" ".join(hashes[element]) or "'none'" for element in (b"script", b"style"))
    return Page(content, f"default-src 'none'; script-src {script}; style-src {style}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def websocket_url(entrance: Entrance, host_header: str) -> str:
    """Where the page's browser finds the API: the listener's own address, or, where it listens on all, the name by which the hub was asked."""
    host, _, port = entrance.address.rpartition(":")
    if host in ("0.0.0.0", "[::]", "::"):  # noqa: S104  # compared, not bound
        found = _HOST.match(host_header)
        host = found[0] if found is not None else "localhost"
    return f"ws://{host}:{port}/"


def routers(section: Section, hub: Hub) -> list[Any]:
    """``/tic/tester``, a page to try the API with, and ``/tic/tester.json``, which tells it where the API listens."""

    async def entrance() -> Entrance:
        try:
            found: Entrance = await hub.bus.request(subjects.of("tic", "api"), None, 2.0)
        except (Offline, DeviceTimeout):
            return Entrance(str(section.listen), section.dialect, section.token_file is not None)
        return msgspec.convert(found, Entrance)

    @get("/tic/tester", media_type=MediaType.HTML, include_in_schema=False)
    async def tester(request: Request[Any, Any, Any]) -> Response[bytes]:
        """The page. It has no data of its own: what it shows comes from the API, by the rules of the API."""
        found = page()
        url = websocket_url(await entrance(), request.headers.get("host", ""))
        policy = f"{found.policy}; connect-src 'self' {url.removesuffix('/')}"
        return Response(found.content, media_type="text/html", headers={"content-security-policy": policy, "cache-control": "no-cache"})

    @get("/tic/tester.json", include_in_schema=False)
    async def where(request: Request[Any, Any, Any]) -> dict[str, Any]:
        """``url`` (ws://…), ``dialect`` (of the path ``/``), ``dialects`` (each also a path) and whether a ``token`` is needed."""
        found = await entrance()
        url = websocket_url(found, request.headers.get("host", ""))
        return {"url": url, "dialect": found.dialect, "dialects": list(DIALECTS), "token": found.token}

    return [tester, where]
