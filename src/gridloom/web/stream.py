"""The live stream: everything that happens, as server-sent events, to many readers for the price of one.

Messages are collected for a fifth of a second, encoded once, joined once per group of streams that see the same (filter and
grants), and the same bytes object is handed to every stream of the group. Each stream has a bounded queue: a slow reader loses the oldest
batches, is told so by a ``gap`` event, and slows nobody.

Every message has an id that survives a restart of the hub: the place in this process's ring of recent messages, and behind
it the store's own cursors. ``Last-Event-ID`` resumes from the ring, else from the store (readings and events; a ``gap`` event says that orders
and states of devices are not kept there), else from now: with a ``gap`` event that gives the reason, and the current values. Delivery is at
least once: after a resume from the store a message may come twice, with the same content.

Whether a token still opens the hub is asked before every batch is sent, and every second of streams that are silent.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Annotated, Any, Literal
from urllib.parse import quote, unquote

import msgspec
from litestar.exceptions import MethodNotAllowedException
from litestar.handlers import asgi
from msgspec import Meta

from gridloom.core.errors import InvalidInput, NotFound, StorageError
from gridloom.core.hub import Hub
from gridloom.core.model import Command, Device, Event, MeterReading, Principal, Reading, Severity, TimeSource
from gridloom.core.ports import JournalFilter, LatestValue
from gridloom.core.subjects import ALL_COMMANDS, ALL_DEVICES, ALL_EVENTS, ALL_READINGS, HUB, DeviceState, Told, ToldEvent
from gridloom.web import problems, wire
from gridloom.web.operation import Id, Operation
from gridloom.web.settings import WebSettings
from gridloom.web.signin import SignIn

log = logging.getLogger(__name__)

PATH = "/api/v1/stream"
RING_MESSAGES = 2_000
RING_BYTES = 2_097_152
QUEUE_BYTES = 1_048_576
REPLAY_LIMIT = 10_000
"""A resume from the store gives about this many readings and events; who was away longer is told of a gap."""
REPLAY_PAGE = 500
LOOK_SECONDS = 1.0
"""How often the sign-ins of silent streams are looked at again."""

Sort = Literal["reading", "event", "command", "device"]
SORTS: tuple[Sort, ...] = ("reading", "event", "command", "device")
_VERB_OF: dict[str, str] = {"reading": "readings.read", "event": "events.read", "command": "commands.read", "device": "device.read"}


class StreamQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a stream wants to hear."""

    type: Annotated[tuple[Sort, ...], Meta(max_length=4, description="Only these sorts of messages. Repeatable.")] | None = None
    device: Annotated[tuple[Id, ...], Meta(max_length=100, description="Only these devices. Repeatable.")] | None = None
    integration: (
        Annotated[
            tuple[Id, ...],
            Meta(max_length=50, description="Only devices of these integrations. Repeatable."),
        ]
        | None
    ) = None
    measurand: (
        Annotated[
            tuple[Id, ...],
            Meta(max_length=100, description="Only these values of readings. Repeatable."),
        ]
        | None
    ) = None
    kind: (
        Annotated[
            tuple[Id, ...],
            Meta(max_length=100, description="Only these kinds of events; may end in `.*`. Repeatable."),
        ]
        | None
    ) = None
    severity: Annotated[Severity | None, Meta(description="Only events at least this severe.")] = None
    current: Annotated[bool, Meta(description="Begin with every device and its latest values.")] = False
    seconds: Annotated[float, Meta(gt=0, le=86_400, description="End the stream after so many seconds.")] | None = None


class Selection(msgspec.Struct, frozen=True):
    """A StreamQuery in the form that is asked for every message; equal ones are served together."""

    sorts: frozenset[str]
    devices: frozenset[str] | None
    integrations: frozenset[str] | None
    measurands: frozenset[str] | None
    kinds: frozenset[str] | None
    prefixes: tuple[str, ...]
    severity: int

    @classmethod
    def of(cls, query: StreamQuery) -> Selection:
        """From the query."""
        kinds = query.kind or ()
        return cls(
            sorts=frozenset(query.type or SORTS),
            devices=None if query.device is None else frozenset(query.device),
            integrations=None if query.integration is None else frozenset(query.integration),
            measurands=None if query.measurand is None else frozenset(query.measurand),
            kinds=None if query.kind is None else frozenset(kind for kind in kinds if not kind.endswith(".*")),
            prefixes=tuple(sorted(kind[:-1] for kind in kinds if kind.endswith(".*"))),
            severity=0 if query.severity is None else query.severity.rank,
        )

    def wants(self, message: Message) -> bool:
        """Whether the message is asked for (whether it may be seen is another question)."""
        if message.sort not in self.sorts:
            return False
        if self.devices is not None and message.device not in self.devices:
            return False
        if self.integrations is not None and message.device.partition(":")[0] not in self.integrations:
            return False
        if message.sort == "event":
            it: Event = message.content
            if it.severity.rank < self.severity:
                return False
            if self.kinds is not None:
                return it.kind in self.kinds or it.kind.startswith(self.prefixes or "\0")
        return True


class Message:
    """One thing that happened, encoded when the first stream wants it."""

    __slots__ = ("content", "device", "encoded", "id", "partly", "size", "sort")

    def __init__(self, sort: str, device: str, content: Any, id: bytes) -> None:
        self.sort = sort
        self.device = device
        self.content = content
        self.id = id
        self.encoded: bytes | None = None
        self.partly: dict[frozenset[str], bytes] | None = None
        self.size = 400

    def bytes_for(self, measurands: frozenset[str] | None) -> bytes:
        """The message as a server-sent event; empty when nothing of it is asked for."""
        if measurands is None or self.sort != "reading":
            if self.encoded is None:
                self.encoded = self._encode(None)
                self.size = 400 + len(self.encoded)
            return self.encoded
        if self.partly is None:
            self.partly = {}
        found = self.partly.get(measurands)
        if found is None:
            found = self._encode(measurands)
            if len(self.partly) < 16:  # a bound: some streams may each want something else
                self.partly[measurands] = found
        return found

    def _encode(self, measurands: frozenset[str] | None) -> bytes:
        match self.content:
            case MeterReading():
                data = wire.stream_reading(self.content, measurands)
            case Event():
                data = _encode(wire.event(self.content))
            case Command():
                data = _encode(wire.command(self.content))
            case _:
                data = _encode(wire.device(self.content))
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (self.id, self.sort.encode(), data) if data else b""


_encode = msgspec.json.Encoder(decimal_format="number").encode


class Group:
    """Streams that see the same: one selection, one set of grants."""

    def __init__(self, selection: Selection, principal: Principal) -> None:
        self.selection = selection
        self.principal = principal
        self.streams: set[Stream] = set()


class Stream:
    """One reader's bounded queue of encoded batches. ``signed_in`` says whether what the reader signed in with still counts."""

    def __init__(self, signed_in: Callable[[], bool] = lambda: True) -> None:
        self.signed_in = signed_in
        self.queue: deque[tuple[bytes, int]] = deque()
        self.bytes = 0
        self.dropped = 0
        self.dropped_ever = 0
        self.woken = asyncio.Event()
        self.ended = False

    def put(self, batch: bytes, messages: int) -> int:
        """Hand a batch over; what had to go for it is counted and returned."""
        if self.ended:
            return 0
        lost = 0
        self.queue.append((batch, messages))
        self.bytes += len(batch)
        while self.bytes > QUEUE_BYTES and len(self.queue) > 1:
            old, count = self.queue.popleft()
            self.bytes -= len(old)
            lost += count
        self.dropped += lost
        self.dropped_ever += lost
        self.woken.set()
        return lost

    def take(self) -> bytes:
        """All that waits, with the news of what was dropped before it."""
        self.woken.clear()
        parts = [batch for batch, _ in self.queue]
        if self.dropped:
            parts.insert(0, gap("slow-reader", f"{self.dropped} messages were dropped because this reader was too slow", self.dropped))
            self.dropped = 0
        self.queue.clear()
        self.bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended = True
        self.woken.set()

    def over(self) -> bool:
        """Whether nothing more may be sent; looks at the sign-in now."""
        if not self.ended and not self.signed_in():
            self.end()
        return self.ended


class Gap(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something is missing at this place of the stream. ``reason``: ``slow-reader``, ``too-old``, ``too-much`` or ``not-kept``."""

    reason: str
    detail: str
    dropped: int | None = None


def gap(reason: str, detail: str, dropped: int | None = None) -> bytes:
    """A ``gap`` event. It has no id: a resume goes on behind the last message that came."""
    return b"event: gap\ndata: %b\n\n" % _encode(Gap(reason, detail, dropped))


class Live:
    """All streams of this hub."""

    def __init__(self, hub: Hub, settings: WebSettings) -> None:
        self._hub = hub
        self._settings = settings
        self._boot = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._samples = ""
        self._journal = ""
        self._pending: list[Message] = []
        self._ring: deque[tuple[int, Message]] = deque()
        self._ring_bytes = 0
        self._last_number = 0
        self._groups: dict[tuple[Selection, frozenset[tuple[str, str]], str], Group] = {}
        self._flushing: asyncio.TimerHandle | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._closed = False
        self._stop_listening: list[Callable[[], None]] = []
        self._dropped = hub.metrics.counter("gridloom_http_stream_dropped_messages_total", "Messages not sent because a reader was too slow.")
        hub.metrics.gauge("gridloom_http_streams", "Open live streams.", read=self.count)

    def count(self) -> float:
        """Open streams."""
        return float(sum(len(group.streams) for group in self._groups.values()))

    async def start(self) -> None:
        """Begin to listen to the bus, from where the store is now: an id must say what came before it also while nothing has come yet.

        The place is taken before listening begins, so that a resume can only repeat, never leave out.
        """
        try:
            self._samples = self._journal = (await self._hub.query.store.commit(())).cursor
        except StorageError as error:  # a hub whose disk is full still serves; ids without a place are answered with a gap
            log.warning("the live stream cannot be resumed from the store yet", extra={"reason": error.message})
        listen = self._hub.bus.listen
        self._stop_listening = [listen(pattern, self._hear) for pattern in (ALL_READINGS, ALL_EVENTS, ALL_COMMANDS, ALL_DEVICES)]

    def close(self) -> None:
        """End all streams; each reader sees its response end."""
        self._closed = True
        for stop in self._stop_listening:
            stop()
        self._stop_listening = []
        for timer in (self._flushing, self._beating, self._looking):
            if timer is not None:
                timer.cancel()
        self._flushing = self._beating = self._looking = None
        for group in self._groups.values():
            for stream in group.streams:
                stream.end()

    # ------------------------------------------------------------------------------------------------------- one for all

    def _hear(self, subject: str, message: Any) -> None:
        match message:
            case Told():
                self._samples = message.cursor
                self._add("reading", message.reading.device, message.reading)
            case ToldEvent():
                self._journal = message.cursor or self._journal
                self._add("event", message.event.device, message.event)
            case Command():
                self._add("command", message.device, message)
            case DeviceState():
                self._add("device", message.device.id, message)
            case _:
                log.warning("unknown message on the bus", extra={"subject": subject, "type": type(message).__name__})

    def _add(self, sort: str, device: str, content: Any) -> None:
        number = self._last_number = next(self._numbers)
        message = Message(sort, device, content, self._id(number))
        self._ring.append((number, message))
        self._ring_bytes += message.size
        while len(self._ring) > RING_MESSAGES or self._ring_bytes > RING_BYTES:
            self._ring_bytes -= self._ring.popleft()[1].size
        if self._groups:
            self._pending.append(message)
            if self._flushing is None and not self._closed:
                self._flushing = asyncio.get_running_loop().call_later(self._settings.stream_interval, self._flush)

    def _id(self, number: int) -> bytes:
        return f"{self._boot}/{number:x}/{quote(self._samples, safe='')}/{quote(self._journal, safe='')}".encode()

    def _flush(self) -> None:
        self._flushing = None
        pending, self._pending = self._pending, []
        for message in pending:
            self._ring_bytes -= message.size  # the size is known once it is encoded
        for group in self._groups.values():
            parts = self._select(group, pending)
            if parts:
                batch = b"".join(parts)
                lost = 0
                for stream in group.streams:
                    lost += stream.put(batch, len(parts))
                if lost:
                    self._dropped.inc(lost)
        for message in pending:
            self._ring_bytes += message.size

    def _select(self, group: Group, messages: Iterable[Message]) -> list[bytes]:
        """The encoded messages that this group wants and may see."""
        wants, measurands = group.selection.wants, group.selection.measurands
        seen: dict[tuple[str, str], bool] = {}
        parts = []
        for message in messages:
            if not wants(message):
                continue
            key = (message.sort, message.device)
            may = seen.get(key)
            if may is None:
                may = seen[key] = self._may(group.principal, message)
            if may and (encoded := message.bytes_for(measurands)):
                parts.append(encoded)
        return parts

    def _may(self, principal: Principal, message: Message) -> bool:
        """The same question as the rest of the API asks, about one message."""
        accounts = self._hub.accounts
        verb = _VERB_OF[message.sort]
        if message.sort == "device":
            return accounts.may(principal, verb, message.content.device)
        if message.device in ("", HUB):
            return accounts.everywhere(principal, verb)  # of the hub itself: for those who see all of it
        return accounts.may(principal, verb, self._device(message.device))

    def _device(self, id: str) -> Device:
        """The device as registered; one that is not (it was removed just now) is judged by its id alone."""
        try:
            return self._hub.registry.get(id)
        except NotFound:
            integration, _, identity = id.partition(":")
            return Device(id=id, integration=integration, identity=identity)

    def _beat(self) -> None:
        """A comment line for every stream, so that a proxy keeps the connection and a dead reader is found."""
        self._beating = None
        for group in self._groups.values():
            for stream in group.streams:
                stream.put(b": \n\n", 0)
        if self._groups and not self._closed:
            self._beating = asyncio.get_running_loop().call_later(self._settings.heartbeat, self._beat)

    def _look(self) -> None:
        """End the streams whose token was revoked, has expired, or whose account was disabled."""
        self._looking = None
        for group in self._groups.values():
            for stream in group.streams:
                stream.over()
        if self._groups and not self._closed:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    # --------------------------------------------------------------------------------------------------------- one reader

    def _join(self, selection: Selection, principal: Principal, stream: Stream) -> Callable[[], None]:
        """Put a stream into its group; the result takes it out again."""
        grants = frozenset((grant.scope, str(grant.role)) for grant in principal.grants)
        key = (selection, grants, principal.account)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(selection, principal)
        group.streams.add(stream)
        if self._beating is None and not self._closed:
            self._beating = asyncio.get_running_loop().call_later(self._settings.heartbeat, self._beat)
        if self._looking is None and not self._closed:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

        def leave() -> None:
            group.streams.discard(stream)
            if not group.streams:
                self._groups.pop(key, None)
            if not self._groups:
                self._pending.clear()

        return leave

    def _after(self, last_id: str, selection: Selection, principal: Principal) -> tuple[bytes | None, tuple[str, str] | None]:
        """What a returning reader missed: from the ring, or else the store's cursors to read from; (None, None) when the id says nothing."""
        parts = last_id.split("/")
        if len(parts) != 4:
            return None, None
        boot, number_text, samples, journal = parts
        try:
            number = int(number_text, 16)
        except ValueError:
            return None, None
        if boot == self._boot and number <= self._last_number:
            oldest = self._ring[0][0] if self._ring else self._last_number + 1
            if number >= oldest - 1:
                group = Group(selection, principal)
                return b"".join(self._select(group, (message for place, message in self._ring if place > number))), None
        return None, (unquote(samples), unquote(journal))

    async def serve(
        self, scope: MutableMapping[str, Any], receive: Any, send: Any, query: StreamQuery, last_id: str, signin: SignIn, principal: Principal
    ) -> None:
        """Answer one reader until it goes, its token ends, its time is up, or the hub stops."""
        selection = Selection.of(query)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        stream = Stream(signin.watch(scope))
        # From here to _join nothing is awaited: no message can fall between what is replayed and what is live.
        self._flush_now()
        replay, cursors = self._after(last_id, selection, principal) if last_id else (b"", None)
        here = self._id(self._last_number)
        leave = self._join(selection, principal, stream)
        listening = asyncio.ensure_future(_until_gone(receive, stream))
        ending = None
        if query.seconds is not None:
            ending = asyncio.get_running_loop().call_later(query.seconds, stream.end)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b": gridloom\nretry: 2000\n\n" + (replay or b""), "more_body": True})
            if last_id and replay is None:
                await self._from_store(cursors, Group(selection, principal), here, send, stream)
            elif query.current:
                await self._current(Group(selection, principal), here, send, stream)
            await self._pump(stream, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leave()
            listening.cancel()
            if ending is not None:
                ending.cancel()

    def _flush_now(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flush()

    async def _pump(self, stream: Stream, send: Any) -> None:
        while not self._closed:
            await stream.woken.wait()
            await _give(send, stream, stream.take())
            if stream.ended:
                return

    async def _from_store(self, cursors: tuple[str, str] | None, group: Group, here: bytes, send: Any, stream: Stream) -> None:
        """Readings and events that a reader missed, longer ago than the ring goes back; then how things are now."""
        try:
            if cursors is None:
                raise NotFound("the id of the last message is not one of this hub's")
            await self._replay(*cursors, group, send, stream)
            unkept = sorted(group.selection.sorts & {"command", "device"})
            if unkept:
                detail = f"messages of the type {' and '.join(unkept)} that came behind the last message are not kept for resuming"
                await _give(send, stream, gap("not-kept", detail))
        except (NotFound, InvalidInput) as error:
            detail = error.message if cursors is None else "what came behind the last message is no longer kept for resuming"
            await _give(send, stream, gap("too-old", detail))
        except _TooMuchError:
            await _give(send, stream, gap("too-much", f"more than {REPLAY_LIMIT} messages were missed"))
        await self._current(group, here, send, stream)

    async def _replay(self, samples: str, journal: str, group: Group, send: Any, stream: Stream) -> None:
        """What the store has behind both cursors. Each id carries both, so that a reader cut off in the midst of this misses nothing either.

        Raises NotFound, InvalidInput (a cursor says nothing, or is too old), _TooMuchError.
        """
        if not samples or not journal:
            raise NotFound("no cursor")
        store = self._hub.query.store
        given = 0
        more = "event" in group.selection.sorts
        while more and not stream.over():
            events = await store.journal.entries(JournalFilter(stream="event"), limit=REPLAY_PAGE, cursor=journal, descending=False)
            found = [Message("event", one.entry.device, _event(one.entry.body), _foreign_id(samples, one.cursor)) for one in events]
            given = await self._give_page(found, given, group, send, stream)
            journal = events[-1].cursor if events else journal
            more = len(events) == REPLAY_PAGE
        more = "reading" in group.selection.sorts
        while more and not stream.over():
            readings = [pair async for pair in store.samples.since(samples, limit=REPLAY_PAGE)]
            found = [Message("reading", reading.device, reading, _foreign_id(cursor, journal)) for cursor, reading in readings]
            given = await self._give_page(found, given, group, send, stream)
            samples = readings[-1][0] if readings else samples
            more = len(readings) == REPLAY_PAGE

    async def _give_page(self, found: list[Message], given: int, group: Group, send: Any, stream: Stream) -> int:
        """Send a page of a replay; the result is how many messages it has had so far."""
        await _give(send, stream, b"".join(self._select(group, found)))
        if given + len(found) > REPLAY_LIMIT:
            raise _TooMuchError
        return given + len(found)

    async def _current(self, group: Group, here: bytes, send: Any, stream: Stream) -> None:
        """Every device that the reader may see, with its latest values. ``here`` is the id from which on the stream's queue has everything."""
        registry = self._hub.registry
        for device in registry.devices():
            if stream.ended:
                return
            messages = [Message("device", device.id, registry.state(device.id), here)]
            if "reading" in group.selection.sorts:
                messages.extend(Message("reading", device.id, one, here) for one in _readings(device.id, await registry.latest_values(device.id)))
            await _give(send, stream, b"".join(self._select(group, messages)))


class _TooMuchError(Exception):
    """A replay is longer than its limit."""


_event = msgspec.json.Decoder(Event).decode


def _foreign_id(samples: str, journal: str) -> bytes:
    """An id that can only be resumed from the store: its place in the ring is not known."""
    return f"-/0/{quote(samples, safe='')}/{quote(journal, safe='')}".encode()


async def _give(send: Any, stream: Stream, batch: bytes) -> None:
    """Send it, unless what the reader signed in with counts no longer: then the stream ends."""
    if not stream.signed_in():
        stream.end()
    elif batch:
        await send({"type": "http.response.body", "body": batch, "more_body": True})


async def _until_gone(receive: Callable[[], Awaitable[Any]], stream: Stream) -> None:
    """Ends the stream when its reader hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.end()


def _readings(device: str, values: Iterable[LatestValue]) -> list[MeterReading]:
    """Latest values as the MeterReadings they came in."""
    found: dict[tuple[int, TimeSource, int], list[Reading]] = {}
    for one in values:
        found.setdefault((one.time, one.source, one.received), []).append(Reading(one.type, one.value, one.exponent, quality=one.quality))
    return [
        MeterReading(device=device, time=time, received=received, readings=tuple(readings), source=source)
        for (time, source, received), readings in sorted(found.items())
    ]


OPERATION = Operation(
    method="GET",
    path=PATH,
    name="stream",
    summary="Everything live, as server-sent events",
    description=(
        "Events are named `reading`, `event`, `command` and `device`, their data is the JSON of the same name elsewhere in this API; "
        "`gap` says that something is missing here, and why. Each has an `id`; the header `Last-Event-ID` resumes behind it, "
        "also after a restart of the hub; `command` and `device` messages are not kept that long, a `gap` says so. Delivery is at least once. "
        "A comment line comes at least every 15 s. Once its token is revoked or has expired, or its account is disabled, nothing more is sent, "
        "and the stream ends within about a second. A reader that is too slow loses the oldest messages and is told how many."
    ),
    tag="stream",
    status=200,
    query=StreamQuery,
    answer=bytes,
    produces=("text/event-stream",),
    refuses={
        400: "A parameter is unknown, of a wrong type or out of range; `errors` names each.",
        401: "No valid token came with the request.",
        403: "The request came from another site's page.",
        431: "The request line and its headers are longer than the hub reads.",
    },
    headers={},
)


@asgi(PATH, copy_scope=False, name=f"GET {PATH}", opt={"operation": OPERATION})
async def stream(scope: Any, receive: Any, send: Any) -> None:
    """The raw ASGI application of the stream: no framework between a batch and the socket."""
    method = scope["method"]
    if method == "OPTIONS":
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", b"GET, HEAD, OPTIONS")]})
        await send({"type": "http.response.body", "body": b""})
        return
    if method not in ("GET", "HEAD"):
        raise MethodNotAllowedException(headers={"allow": "GET, HEAD, OPTIONS"})
    state = scope["litestar_app"].state
    signin: SignIn = state["signin"]
    principal = await signin.find(scope)
    query = problems.query(StreamQuery, scope["query_string"])
    last_id = next((value for name, value in scope["headers"] if name == b"last-event-id"), b"").decode("latin-1")[:1000]
    live: Live = state["live"]
    await live.serve(scope, receive, send, query, last_id, signin, principal)
