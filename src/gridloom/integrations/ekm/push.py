"""The push port: ``/sub/CHANNEL`` and ``/ws/CHANNEL`` as nginx-push-stream-module serves them (FACTS 5), and ``/gateway`` for gateways elsewhere.

A message is framed once for all who hear it the same way. Whoever does not read is cut off when what waits for it reaches its bound, and keeps
nobody else waiting. Only channels that this hub has issued can be subscribed to; their ids are all it takes, as with the maker.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec

from gridloom.core import subjects
from gridloom.core.hub import Health, Hub
from gridloom.core.model import Command
from gridloom.integrations.ekm.channels import KEPT, Asked, ChannelIds, Channels, Message, Place, asked, behind
from gridloom.integrations.ekm.orders import response
from gridloom.links.push import Answer, Body, Later, Pending, Stream, chunk
from gridloom.links.websocket import Accept, Connection, Decision, HandshakeRequest, WebSocketServer, prepare_text

log = logging.getLogger(__name__)

API = "ekm"
"""In the ``origin`` of an order: its answer goes to ``origin["channel"]``."""
GATEWAY_PATH = "/gateway"
KEY = "[ekm] push_listen"
PING_SECONDS = 30.0
"""How often a stream is told something that means nothing, so that what stands between does not take it for dead."""
POLL_SECONDS = 60.0
"""How long a long poll waits."""
SLOW_BYTES = 262_144
"""What may wait for one subscriber."""
SLICE = 100
"""Subscribers that are told in one turn of the event loop: others have theirs meanwhile, and what is published meanwhile goes out together."""

_HEADERS = (("Expires", "Thu, 01 Jan 1970 00:00:01 GMT"), ("Cache-Control", "no-cache, no-store, must-revalidate"))
_JSON = (("Content-Type", "application/json"), *_HEADERS)
_EVENTS = (("Content-Type", "text/event-stream; charset=utf-8"), *_HEADERS)
_PING, _EVENT_PING, _EVENT_BEGIN = chunk(b"\n"), chunk(b":\n\n"), chunk(b": \n\n")
_DONE = object()
_LOOK_BACK = 3_600_000_000
"""µs: orders that are older are not looked at for answers when the hub starts."""
_ORDERS_LOOKED_AT = 2_000


class Door(Protocol):
    """Who takes the gateways that connect at ``/gateway``."""

    def admit(self, request: HandshakeRequest) -> Decision | Awaitable[Decision]:
        """Whether it may come in; ``Accept.context`` is given back to ``serve``."""
        ...

    async def serve(self, connection: Connection) -> None:
        """Until it has gone."""
        ...


class _Audience:
    """Who hears one channel now, by the way they hear it, and what they are still to be told."""

    __slots__ = ("bodies", "events", "news", "polls", "sockets", "telling")

    def __init__(self) -> None:
        self.sockets: set[Connection] = set()
        self.bodies: set[Body] = set()
        self.events: set[Body] = set()
        self.polls: set[Pending] = set()
        self.news: list[Message] = []
        self.telling = False

    def __bool__(self) -> bool:
        return bool(self.sockets or self.bodies or self.events or self.polls)

    def __len__(self) -> int:
        return len(self.sockets) + len(self.bodies) + len(self.events) + len(self.polls)

    def tell(self) -> Iterator[None]:
        """Tell the news to those who are here now, a slice at each step. All that came since the last time goes out in one piece, framed once."""
        messages, self.news = self.news, []
        if not messages:
            return
        told = 0
        if self.sockets:
            frames = b"".join(prepare_text(message.text) for message in messages)
            for socket in tuple(self.sockets):
                socket.send_prepared(frames)
                told += 1
                if not told % SLICE:
                    yield
        if self.bodies:
            pieces = b"".join(chunk(message.text) for message in messages)
            for body in tuple(self.bodies):
                body.send(pieces)
                told += 1
                if not told % SLICE:
                    yield
        if self.events:
            happened = b"".join(map(_event, messages))
            for body in tuple(self.events):
                body.send(happened)
        for poll in tuple(self.polls):
            poll.answer(_polled(messages))


class Push:
    """The listener and its channels. ``host`` as clients are to be told it; empty: as it listens."""

    name = "push"

    def __init__(
        self, hub: Hub, ids: ChannelIds, listen: tuple[str, int], *, door: Door | None = None, tls: ssl.SSLContext | None = None, **limits: Any
    ) -> None:
        self.channels = Channels()
        self.address = ""
        """Where it listens, ``host:port``; empty while it does not."""
        self._hub = hub
        self._clock = hub.clock
        self._ids = ids
        self._listen = listen
        self._door = door
        self._tls = tls
        self._limits = limits
        self._audiences: dict[str, _Audience] = {}
        self._server: WebSocketServer | None = None
        self._tellings: deque[tuple[_Audience, Iterator[None]]] = deque()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._leave_bus: Callable[[], None] | None = None
        self._published = hub.metrics.counter("gridloom_ekm_push_messages_total", "Messages published on push channels.")
        hub.metrics.gauge("gridloom_ekm_push_subscribers", "Subscribers of push channels.", (), lambda: float(self.subscribers))

    @property
    def subscribers(self) -> int:
        """How many listen now; who listens to several channels counts in each."""
        return sum(map(len, self._audiences.values()))

    @property
    def slow(self) -> int:
        """Subscribers cut off since the start because they did not read."""
        return 0 if self._server is None else self._server.stuck

    # ---------------------------------------------------------------------------------------------------------- service

    async def start(self) -> Mapping[str, str]:
        """Take up the answers of the last minutes, listen to those that come, and accept."""
        self._leave_bus = self._hub.bus.listen(subjects.ALL_COMMANDS, self._ended)
        try:
            await self._take_up()
            server = WebSocketServer(
                *self._listen, self._serve, admit=self._admit, key=KEY, clock=self._clock, tls=self._tls, max_message=4_194_304,
                ping_interval=PING_SECONDS, high_water=SLOW_BYTES // 4, write_limit=SLOW_BYTES, **self._limits,
            )  # fmt: skip
            self.address = await server.start()
        except BaseException:
            self._leave_bus()
            raise
        self._server = server
        self._tasks = [asyncio.create_task(self._deliver(), name="ekm push"), asyncio.create_task(self._ping(), name="ekm push pings")]
        return {"push": self.address}

    async def wait(self) -> None:
        """Raises what ended it: an error of ours."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Streams end, WebSockets are closed."""
        self.address = ""
        for task in self._tasks:
            task.cancel()
        if self._leave_bus is not None:
            self._leave_bus()
        if self._server is not None:
            await self._server.stop()

    def health(self) -> Health:
        """Not needed for the rest of the hub."""
        return Health(bool(self.address), "" if self.address else "does not listen")

    # ------------------------------------------------------------------------------------------------------- publishing

    def publish(self, channel: str, text: bytes) -> Message:
        """Keep a message (UTF-8) and tell it to all who listen. Never waits."""
        message = self.channels.publish(channel, text, self._now())
        self._published.inc()
        audience = self._audiences.get(channel)
        if audience is not None:
            audience.news.append(message)
            self._tell(audience)
        return message

    def _tell(self, audience: _Audience) -> None:
        if not audience.telling:
            audience.telling = True
            self._tellings.append((audience, audience.tell()))
            self._news.set()

    async def _deliver(self) -> None:
        """Every audience a slice in turn."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._tellings:
                audience, telling = self._tellings.popleft()
                if next(telling, _DONE) is None:
                    self._tellings.append((audience, telling))
                    await asyncio.sleep(0)
                    continue
                audience.telling = False
                if audience.news:
                    self._tell(audience)

    def _ended(self, _: str, command: Command) -> None:
        channel = _channel(command)
        if channel and command.state.final:
            self.publish(channel, msgspec.json.encode(response(command)))

    async def _take_up(self) -> None:
        """The answers that were told, or were about to be told, when the last process ended: clients look for them with ``.bN``."""
        commands, now = self._hub.commands, self._clock.now()
        found: list[Command] = []
        for shown in await commands.list(self._hub.accounts.system(API), limit=_ORDERS_LOOKED_AT):
            if shown.created < now - _LOOK_BACK:
                break
            if shown.ended is not None and shown.ended > now - KEPT * 1_000_000:
                async for whole in commands.watch(shown.id):  # the list hides where orders came from
                    found.append(whole)
                    break
        for command in sorted(found, key=lambda one: one.ended or 0):
            channel = _channel(command)
            if channel and command.state.final:
                self.channels.publish(channel, msgspec.json.encode(response(command)), (command.ended or now) // 1_000_000)

    # ------------------------------------------------------------------------------------------------------ subscribing

    def _admit(self, request: HandshakeRequest) -> Decision | Awaitable[Decision]:
        if request.path == GATEWAY_PATH and self._door is not None:
            return self._door.admit(request)
        _, way, path = (*request.path.split("/", 2), "", "")[:3]
        if way not in ("sub", "ev", "ws") or not request.path.startswith("/"):
            return _no(404, "here are /sub/CHANNEL, /ev/CHANNEL and /ws/CHANNEL")
        try:
            wanted = asked(path)
        except ValueError as error:
            return _no(400, str(error))
        if not all(self._ids.issued(one.channel) for one in wanted):
            return _no(403, "there is no such channel: use the response_channel_id that sendCommand answered")
        place = behind(request.header("if-modified-since"), request.header("if-none-match"), request.header("last-event-id"))
        if way == "ws":
            return Accept(context=(wanted, place))
        mode = request.header("x-nginx-pushstream-mode").strip().lower()
        if mode in ("polling", "long-polling"):
            return self._poll(wanted, place, wait=mode == "long-polling")
        if way == "ev" or "text/event-stream" in request.header("accept").lower():
            return Stream(partial(self._open_events, wanted, place), _EVENTS, limit=SLOW_BYTES)
        return Stream(partial(self._open_body, wanted, place), _JSON, limit=SLOW_BYTES)

    def _open_body(self, wanted: Sequence[Asked], place: Place | None, body: Body) -> None:
        for message in self.channels.replay(wanted, place, self._now()):
            body.send(chunk(message.text))
        self._join(wanted, "bodies", body)

    def _open_events(self, wanted: Sequence[Asked], place: Place | None, body: Body) -> None:
        body.send(_EVENT_BEGIN)
        for message in self.channels.replay(wanted, place, self._now()):
            body.send(_event(message))
        self._join(wanted, "events", body)

    def _poll(self, wanted: Sequence[Asked], place: Place | None, *, wait: bool) -> Decision:
        """What is stored behind the place (from the beginning, if none is named) at once; else 304, for a long poll when its time is over."""
        place = place or Place(0)
        messages = self.channels.replay(wanted, place, self._now())
        if messages:
            return _polled(messages)
        nothing = Answer(304, headers=(*_HEADERS, *_where(place)))

        def opened(poll: Pending) -> None:
            self._join(wanted, "polls", poll)
            timer = asyncio.get_running_loop().call_later(POLL_SECONDS / self._clock.speed, poll.answer, nothing)
            leave = poll.on_end
            assert leave is not None

            def ended() -> None:
                timer.cancel()
                leave()

            poll.on_end = ended

        return Later(opened) if wait else nothing

    async def _serve(self, connection: Connection) -> None:
        if connection.path == GATEWAY_PATH and self._door is not None:
            await self._door.serve(connection)
            return
        wanted, place = connection.context
        connection.context = None
        for message in self.channels.replay(wanted, place, self._now()):
            connection.send_prepared(prepare_text(message.text))
        for one in wanted:
            self._audience(one.channel).sockets.add(connection)
        try:
            while await connection.receive() is not None:
                pass  # subscribers have nothing to say; what they say all the same is not heard
        finally:
            self._leave(wanted, "sockets", connection)

    def _join(self, wanted: Sequence[Asked], way: str, line: Body | Pending) -> None:
        line.on_end = partial(self._leave, wanted, way, line)
        if line.open:  # what was replayed may have been too much for it
            for one in wanted:
                getattr(self._audience(one.channel), way).add(line)

    def _audience(self, channel: str) -> _Audience:
        """To be joined. What came before is for those who were here before, and is told to them first."""
        audience = self._audiences.setdefault(channel, _Audience())
        if audience.telling:
            under_way = [telling for one, telling in self._tellings if one is audience]
            for telling in (*under_way, audience.tell()):
                for _ in telling:
                    pass
        return audience

    def _leave(self, wanted: Sequence[Asked], way: str, line: object) -> None:
        for one in wanted:
            audience = self._audiences.get(one.channel)
            if audience is not None:
                getattr(audience, way).discard(line)
                if not audience:
                    del self._audiences[one.channel]

    async def _ping(self) -> None:
        """WebSockets are pinged by their server."""
        while True:
            await self._clock.sleep(PING_SECONDS)
            for ping, bodies in (
                (_PING, {body for audience in self._audiences.values() for body in audience.bodies}),
                (_EVENT_PING, {body for audience in self._audiences.values() for body in audience.events}),
            ):
                for number, body in enumerate(bodies):
                    body.send(ping)
                    if number % 500 == 499:
                        await asyncio.sleep(0)
            self.channels.forget(self._now())

    def _now(self) -> int:
        return self._clock.now() // 1_000_000


def _channel(command: Command) -> str:
    return command.origin.get("channel", "") if command.origin.get("api") == API else ""


def _where(place: Place) -> tuple[tuple[str, str], ...]:
    return (("Last-Modified", place.modified), ("Etag", f"W/{place.tag or 0}"))


def _polled(messages: Sequence[Message]) -> Answer:
    return Answer(200, b"".join(message.text for message in messages), (*_JSON, *_where(messages[-1].place)))


def _event(message: Message) -> bytes:
    lines = b"".join(b"data: %b\n" % line for line in message.text.split(b"\n"))
    return chunk(b"id: %b\n%b\n" % (message.place.event_id.encode(), lines))


def _no(status: int, words: str) -> Answer:
    return Answer(status, msgspec.json.encode({"error": words}) + b"\n", (("Content-Type", "application/json"),))
