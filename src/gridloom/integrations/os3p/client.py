"""A Substation: the station's side of OS³P, for an RTU (annex A3 to A7; CONFORMANCE, the lines of SS and B).

One connection to the Central System, kept for ever: after a loss it is tried again at once, once, then with back-off and jitter (C15). A station
registers again only when there is something new to say (B13 to B16, B18). What happened to the street lights is kept and told until it is answered
(``state``, N19 to N23); the lights themselves are switched with or without a connection (``contactors``). What the hardware is, the ``driver`` knows.

What the documents leave open: an answer of SecurityError means that the Central System has forgotten us, so we register once on that connection.
Two answers in a row that do not come, while nothing else comes, are a dead line. StatusNotifications and those of files and firmware are
queued too, but given up when they are refused. MeterValues are sent when they are measured or never; GetFile hands out the past.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote
from zlib import crc32
from zoneinfo import ZoneInfo

import msgspec

from gridloom.codecs import ocppj
from gridloom.codecs.ocppj import ErrorCode
from gridloom.core import ids
from gridloom.core.clock import Clock, from_datetime, rfc3339, to_datetime
from gridloom.core.errors import DeviceTimeout, FieldFault, GridloomError, InvalidInput, Offline, Refused, Unanswered
from gridloom.core.settings import Secret, masked
from gridloom.integrations.os3p import keys, messages, schedule, sun
from gridloom.integrations.os3p.contactors import Contactors, cleared
from gridloom.integrations.os3p.driver import LONG, Driver, Turns
from gridloom.integrations.os3p.errors import PayloadRefused
from gridloom.integrations.os3p.faults import KEY as STATUS
from gridloom.integrations.os3p.faults import Faults
from gridloom.integrations.os3p.files_transfer import Firmware, Uploads
from gridloom.integrations.os3p.history import Past
from gridloom.integrations.os3p.messages import Context, Message, SampledValue
from gridloom.integrations.os3p.reading import Deviation, Kind, read, write
from gridloom.integrations.os3p.schedule import Place
from gridloom.integrations.os3p.state import Accepted, Event, Fault, Vault
from gridloom.integrations.os3p.timekeeping import StationClock
from gridloom.links.backoff import Backoff
from gridloom.links.calls import CallRefused, Calls
from gridloom.links.files import ANYBODY, Trust
from gridloom.links.websocket_client import ClientConnection, ConnectFailed, HandshakeRefused, connect
from gridloom.links.websocket_link import GOING_AWAY, INTERNAL, OK, PROTOCOL_ERROR

if TYPE_CHECKING:
    from gridloom.core.hub import Health

log = logging.getLogger(__name__)

SUBPROTOCOL = "OS3P1.0"
REJECTED_PATIENCE = 10.0
"""Seconds that a Central System that rejected us has to close (I19)."""
PENDING = 60.0
"""Seconds between two BootNotifications while we are Pending, where ``interval`` does not say."""
DAY = 86_400
"""Seconds: there is at least one Heartbeat in so long (B21)."""
LONGEST_INTERVAL = 7 * DAY
"""Seconds of an ``interval`` that are believed."""
STABLE = 60.0
"""Seconds that a connection must have lived for its loss to be answered at once again."""
UNANSWERED = 2
"""Calls without an answer, and without any other message meanwhile, after which the line is dead."""
STOPPING = 2.0
"""Seconds for the goodbye."""

T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of a Substation. ``url``: the endpoint of the Central System, without the identity (C3 to C5).

    ``secret``: sent by HTTP Basic with the identity as user. ``strict``: what deviates from the document is refused. ``without``: optional requests
    that are answered NotImplemented (S1). ``keys``: configuration keys of the first start. ``call_timeout`` in seconds, ``max_message`` in bytes.
    """

    url: str
    identity: str
    subprotocols: tuple[str, ...] = (SUBPROTOCOL,)
    secret: Secret | None = None
    tls: ssl.SSLContext | None = None
    trust: Trust = ANYBODY
    strict: bool = False
    without: frozenset[str] = frozenset()
    keys: Mapping[str, str] = {}
    call_timeout: float = 30.0
    max_message: int = 1_048_576

    def __repr__(self) -> str:
        return f"Settings({masked(self.url)}, {self.identity!r})"  # a URL may carry credentials


def connection_url(endpoint: str, identity: str) -> str:
    """The endpoint with the identity behind its path, percent-encoded once (C3 to C5)."""
    base, question, query = endpoint.partition("?")
    return f"{base.rstrip('/')}/{quote(identity, safe='')}{question}{query}"


class _Grammar(ocppj.Connection):
    """Knows when our last CALL was sent: waiting for its turn is no part of a round trip (B22)."""

    def __init__(self, clock: Clock, max_message: int) -> None:
        super().__init__(max_message=max_message)
        self._clock = clock
        self.sent = 0.0

    def call(self, id: str, action: str, payload: bytes) -> str:
        self.sent = self._clock.monotonic()
        return super().call(id, action, payload)


class _Session:
    """One connection."""

    def __init__(self, link: ClientConnection, calls: Calls, grammar: _Grammar) -> None:
        self.link = link
        self.calls = calls
        self.grammar = grammar
        self.boot_due = asyncio.Event()
        self.forgotten = False
        """It refused us once, and we registered again."""
        self.unanswered = 0
        self.heard = 0


class Substation:
    """A ``core.hub.Service``. With ``folder`` its state survives; without one it begins anew in each process."""

    def __init__(
        self, settings: Settings, driver: Driver, clock: Clock, *, folder: Path | None = None, random: Random | None = None, remembered: int = 200
    ) -> None:
        """``remembered``: lines of log and of meter values that are kept in memory where there is no folder."""
        self.settings = settings
        self.identity = settings.identity
        self.name = f"substation {settings.identity}"
        self.driver = driver
        self.clock = clock
        self.folder = folder
        self.trust = settings.trust
        self.time = StationClock(clock, settings.identity)
        self.ask = Turns(clock)
        """Everything that is asked of the driver goes through it."""
        self.alarms: dict[str, str] = {}
        """What somebody at the station has to look after, by its name."""
        self.syslog = Past(None if folder is None else folder / "syslog", lines=remembered)
        self.meters = Past(None if folder is None else folder / "meter-values", lines=remembered, head="timestamp,measurand,value,unit,location\n")
        self.vault = Vault()
        self._random = random or Random()  # noqa: S311  # jitter
        self._backoff = Backoff(clock, self._random, first=2.0, cap=300.0, stable=STABLE, least=0.5)
        self._boot_backoff = Backoff(clock, self._random, first=5.0, cap=300.0)
        self._life_backoff = Backoff(clock, self._random, first=2.0, cap=300.0, stable=STABLE, least=0.5)
        self._url = connection_url(settings.url, settings.identity)
        self._session: _Session | None = None
        self._registered = asyncio.Event()
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._beat = asyncio.Event()
        self._measure = asyncio.Event()
        self._over = asyncio.Event()
        self._again = asyncio.Event()
        self._last_beat = 0.0
        self._held: dict[str, tuple[float, Backoff]] = {}
        self._hardware: set[Fault] = set()
        self._standing: Sequence[Fault] | None = None
        self._hold = 0.0
        self._main: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._keys_of: dict[str, str] = {}
        self._place = Place(ZoneInfo("UTC"), 0.0, 0.0)
        self._build()

    def _build(self) -> None:
        self.contactors = Contactors(self.vault, self.driver, self.now, self.place, self.ask)
        self.faults = Faults(self.vault, self.now)
        self.uploads = Uploads(self)
        self.firmware = Firmware(self)

    # ------------------------------------------------------------------------------------------------------------- service

    async def start(self) -> Mapping[str, str]:
        """Begin. Raises ConfigurationError when the folder cannot be used."""
        self.vault = Vault(self.folder)
        self._over.clear()
        self._main = asyncio.create_task(self._run(), name=self.name)
        return {}

    async def wait(self) -> None:
        """It does not end by itself; raises what ended it."""
        if self._main is not None:
            await asyncio.shield(self._main)

    async def stop(self) -> None:
        """Say goodbye and keep everything for the next start."""
        self._over.set()
        if self._main is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wait([self._main]), 2 * STOPPING)
            self._main.cancel()
            await asyncio.wait([self._main])
            self._main = None
        self.vault.close()

    def health(self) -> Health:
        """Well while it is registered and nothing is wrong with it."""
        from gridloom.core.hub import Health  # an RTU has no hub, and no memory for it

        if self.alarms:
            return Health(False, "; ".join(f"{name}: {text}" for name, text in sorted(self.alarms.items())))
        return Health(self._registered.is_set(), "" if self._registered.is_set() else "not registered with its Central System")

    @property
    def registered(self) -> bool:
        """Connected, and accepted."""
        return self._registered.is_set()

    def now(self) -> int:
        """µs UTC, by the station's own time."""
        return self.time.now()

    def note(self, level: int, text: str, **extra: object) -> None:
        """Into our log and into the Syslog that GetFile hands out."""
        log.log(level, text, extra={"station": self.identity, **extra})
        words = "".join(f" {name}={value}" for name, value in extra.items()).replace("\n", " ")
        self.syslog.add(self.now(), f" {logging.getLevelName(level)} {text}{words}")

    def alarm(self, name: str, text: str) -> None:
        """Something is wrong, or with an empty text it is right again."""
        if text == self.alarms.get(name, ""):
            return
        if text:
            self.alarms[name] = text
            self.note(logging.ERROR, f"{name}: {text}")
        else:
            del self.alarms[name]
            self.note(logging.INFO, f"{name}: is well again")

    # ------------------------------------------------------------------------------------------------------------ its lives

    async def _run(self) -> None:
        """One life after the other. What ends one in disorder, such as hardware that does not start, does not end the station."""
        while not self._over.is_set():
            self._again.clear()
            try:
                await self._live()
            except Exception as error:  # whatever it was: a station that is silent for ever helps nobody
                log.exception("the station begins anew", extra={"station": self.identity})
                self.alarm("station", f"{type(error).__name__}: {error}"[:200])
                with suppress(TimeoutError):
                    await self._within(self._life_backoff.next(), self._over.wait())

    async def _live(self) -> None:
        """From a start to a reset or to the end."""
        self._build()
        await self.ask(self.driver.start, self.changed, patience=LONG)
        self._life_backoff.up()
        self.alarm("station", "")
        self._restore()
        loops = (self._watch(), self._connected_for_ever(), self._deliver(), self._beat_for_ever(), self._measure_for_ever())
        tasks = [asyncio.create_task(loop) for loop in (*loops, self._over.wait(), self._again.wait())]
        self.uploads.resume()
        self.firmware.resume()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await self._say_goodbye()
        finally:
            self.uploads.stop()
            self.firmware.stop()
            for task in (*tasks, *self._tasks):
                task.cancel()
            await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)
            async with self._hardware_is_well("driver"):
                await self.ask(self.driver.stop, patience=LONG)
        if not self._over.is_set():
            self.note(logging.INFO, "the hardware is reset")
            await self._reset_hardware()

    async def _reset_hardware(self) -> None:
        """Where it cannot be reset that is told, and the station goes on."""
        async with self._hardware_is_well("reset"):
            await self.ask(self.driver.reset, patience=LONG)
        if "reset" in self.alarms:
            failure = messages.StatusNotification(
                status="Ok", errorCode="ResetFailure", info=f"not reset: {self.alarms['reset']}"[:128], timestamp=rfc3339(self.now())
            )  # fmt: skip
            self.vault.commit(add=[(STATUS, failure)])

    def _restore(self) -> None:
        state = self.vault.state
        crashed = state.running and not (state.job is not None and state.job.installing)
        known = {**keys.defaults(), **self.settings.keys, **state.keys}
        told: list[tuple[str, Message]] = []
        now = rfc3339(self.now())
        if crashed:
            info = "the station was not stopped in order"
            told.append((STATUS, messages.StatusNotification(status="Ok", errorCode="ResetFailure", info=info, timestamp=now)))
        told += [
            (STATUS, messages.StatusNotification(
                status="Ok", errorCode="OtherError", info=f"kept state was damaged; {name} was set aside", timestamp=now,
                vendorId="Gridloom", vendorErrorCode="StateDamaged",
            )) for name in self.vault.state.set_aside
        ]  # fmt: skip
        self.vault.commit(add=told, keys=known, running=True, set_aside=())
        self.note(logging.INFO, "started", crashed=crashed, waiting=len(self.vault.events))
        self.changed()

    async def _say_goodbye(self) -> None:
        self.vault.commit(running=False)
        if self._session is not None:
            self._session.link.close(GOING_AWAY, "the station stops")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._session.link.wait_closed(), STOPPING)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Beside everything else: what is begun by a handler comes after its answer (S4)."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for news, at most so long; then there are none."""
        if seconds > 0:
            with suppress(TimeoutError):
                await self._within(min(seconds, DAY), event.wait())
        event.clear()

    async def _within(self, seconds: float | None, work: Awaitable[T]) -> T:
        """Raises TimeoutError. No task is made for it, and no cancellation is lost, which wait_for of Python 3.11 may do."""
        async with asyncio.timeout(None if seconds is None else seconds / self.clock.speed):
            return await work

    # ----------------------------------------------------------------------------------------------------------- connection

    async def _connected_for_ever(self) -> None:
        at_once = True
        while not (self._over.is_set() or self._again.is_set()):
            began = self.clock.monotonic()
            self._hold = 0.0
            reached, wait = await self._connect()
            at_once = reached and (at_once or self.clock.monotonic() - began >= STABLE)
            if self._hold or wait:
                await self.clock.sleep(max(self._hold, wait))
            elif at_once:
                at_once = False  # once (C15)
                continue
            else:
                await self._backoff.wait()
                continue
            at_once = False

    async def _connect(self) -> tuple[bool, float]:
        """One connection to its end: whether there was one, and for how long we were asked to stay away."""
        settings = self.settings
        credentials = None if settings.secret is None else (self.identity, settings.secret.reveal())
        try:
            link = await connect(
                self._url, clock=self.clock, subprotocols=settings.subprotocols, credentials=credentials, tls=settings.tls,
                max_message=settings.max_message, ping_interval=int(self.vault.state.keys[keys.PING]),
            )  # fmt: skip
        except ConnectFailed as error:
            self.note(logging.WARNING, "no connection", why=error.message)
            retry = error.retry_after if isinstance(error, HandshakeRefused) else None
            return False, min(retry or 0.0, LONGEST_INTERVAL)
        if link.subprotocol not in settings.subprotocols:  # C10
            link.close(PROTOCOL_ERROR, "no subprotocol that was offered")
            self.alarm("configuration", f"the Central System speaks {link.subprotocol or 'none'} of {', '.join(settings.subprotocols)}")
            await link.wait_closed()
            return False, 0.0
        self.alarm("configuration", "")
        self._backoff.up()
        self.note(logging.INFO, "connected", subprotocol=link.subprotocol)
        await self._converse(link)
        self.note(logging.WARNING, "the connection ended", code=link.close_code, reason=link.close_reason)
        return True, 0.0

    async def _converse(self, link: ClientConnection) -> None:
        grammar = _Grammar(self.clock, self.settings.max_message)
        calls = Calls(
            link, grammar, clock=self.clock, answer=self._answer, device="the Central System", timeout=self.settings.call_timeout,
            on_fault=lambda fault: self.note(logging.WARNING, "a message is not as it should be", fault=fault),
        )  # fmt: skip
        self._session = session = _Session(link, calls, grammar)
        registering = asyncio.create_task(self._register(session))
        try:
            await calls.run()
        finally:
            self._session = None
            self._registered.clear()
            link.close(OK)
            registering.cancel()
            with suppress(asyncio.CancelledError):
                await registering

    # --------------------------------------------------------------------------------------------------------- registration

    def _is_known(self) -> bool:
        """Whether what we would say was accepted already (B13 to B16)."""
        accepted = self.vault.state.accepted
        return accepted is not None and accepted.boot == self.about() and accepted.url == ids.digest(self.settings.url)

    def about(self) -> messages.BootNotification:
        """What the station is now; where the driver cannot say it, what it was."""
        try:
            found = self.driver.identity()
            write(found)
        except Exception as error:  # noqa: BLE001  # the owner's code may raise anything
            accepted = self.vault.state.accepted
            found = Driver().identity() if accepted is None else accepted.boot
            self.alarm("identity", f"{type(error).__name__}: {error}"[:200])
        else:
            self.alarm("identity", "")
        return found

    def first_boot(self) -> None:
        """After new firmware: connect and register as the first time (B13)."""
        self._registered.clear()
        if self._session is not None:
            self._session.link.close(OK, "new firmware")
        self.changed()

    async def _register(self, session: _Session) -> None:
        if self._is_known():
            self._open_gate()
        else:
            session.boot_due.set()
        pause: float | None = None
        while True:
            with suppress(TimeoutError):
                await self._within(pause, session.boot_due.wait())
            session.boot_due.clear()
            try:
                pause = await self._boot(session)
            except (Offline, Unanswered):
                return

    def _open_gate(self) -> None:
        self._boot_backoff.up()
        self._held.clear()
        self._registered.set()
        self._news.set()
        self._beat.set()

    async def _boot(self, session: _Session) -> float | None:
        """Send a BootNotification. The seconds until the next one, None: not before it is asked for."""
        boot = self.about()
        try:
            answer, round_trip = await self._asked(session, boot)
        except (CallRefused, DeviceTimeout, Refused, InvalidInput) as error:
            if isinstance(error, Offline | Unanswered):
                raise
            self.note(logging.WARNING, "BootNotification was not answered", why=error.message)
            return self._boot_backoff.next()  # B12
        self.note(logging.INFO, f"registration: {answer.status}", interval=answer.interval)
        interval = float(min(max(answer.interval, 0), LONGEST_INTERVAL))
        if answer.status == "Accepted":
            self.time_told(answer.currentTime, round_trip)
            self.vault.commit(accepted=Accepted(boot, ids.digest(self.settings.url), int(interval)))
            self._open_gate()
            return None
        self._registered.clear()
        if self.vault.state.accepted is not None:
            self.vault.commit(accepted=None)
        if answer.status == "Pending":
            return interval or PENDING
        self._hold = interval  # B6
        await self.clock.sleep(REJECTED_PATIENCE)
        session.link.close(OK, "rejected")
        return None

    def time_told(self, current_time: str, round_trip: float) -> None:
        """B4, B22."""
        self._last_beat = self.clock.monotonic()
        if self.time.told(current_time, round_trip) == "stepped":
            self.note(logging.WARNING, "the time jumped")
            self.changed()

    async def _beat_for_ever(self) -> None:
        while True:
            await self._registered.wait()
            accepted = self.vault.state.accepted
            period = min(accepted.interval or DAY, DAY) if accepted is not None else DAY
            wait = self._last_beat + period - self.clock.monotonic() if self._last_beat else 0.0
            if wait > 0:
                await self._until(self._beat, wait)
            elif not await self._heartbeat():
                await self._until(self._beat, min(float(period), 60.0))

    async def _heartbeat(self) -> bool:
        session = self._session
        if session is None:
            return False
        try:
            answer, round_trip = await self._asked(session, messages.Heartbeat())
        except GridloomError as error:
            self._not_told("Heartbeat", error)
            return False
        self.time_told(answer.currentTime, round_trip)
        return True

    # --------------------------------------------------------------------------------------------------------------- telling

    async def _asked(self, session: _Session, message: Message) -> tuple[Any, float]:
        """The response, and the seconds that it took. Raises what ``Calls.call`` raises, and CallRefused for an answer that makes no sense."""
        action = type(message).__name__
        raw = await self._called(session, action, write(message))
        took = self.clock.monotonic() - session.grammar.sent
        return read(action, raw, response=True).message, took

    async def _called(self, session: _Session, action: str, payload: bytes) -> bytes:
        heard = session.link.received
        try:
            raw = await session.calls.call(action, payload)
        except DeviceTimeout:
            session.unanswered = 1 if session.link.received != heard else session.unanswered + 1
            if session.unanswered >= UNANSWERED:
                session.link.close(INTERNAL, "no answers")
            raise
        except CallRefused as refused:
            session.unanswered = 0
            if refused.error_code == ErrorCode.SECURITY_ERROR and action != "BootNotification" and not session.forgotten:
                session.forgotten = True
                self.note(logging.WARNING, "the Central System does not know us; registering", refused=action)
                session.boot_due.set()
            raise
        session.unanswered = 0
        return raw

    def _not_told(self, action: str, error: GridloomError) -> None:
        if not isinstance(error, Offline | Unanswered):
            self.note(logging.WARNING, f"{action} was not taken", why=error.message)

    async def _tell(self, session: _Session | None, message: Message) -> bool:
        """Send something of now: once, and only if we are connected. Whether it was taken."""
        if session is None:
            return False
        try:
            await self._called(session, type(message).__name__, write(message))
        except GridloomError as error:
            self._not_told(type(message).__name__, error)
            return False
        return True

    async def _tell_all(self, session: _Session | None, told: Sequence[Message]) -> None:
        for message in told:
            await self._tell(session, message)

    def news(self) -> None:
        """There are events to deliver."""
        self._news.set()

    async def _deliver(self) -> None:
        """Tell what happened, oldest first and in order for each contactor; between two of them live messages have their turn (N19 to N23)."""
        while True:
            await self._registered.wait()
            self._watch_queue()
            event, wait = self._next_event()
            session = self._session
            if event is None or session is None:
                await self._until(self._news, wait)
                continue
            try:
                await self._called(session, event.action, msgspec.json.encode(event.payload))
            except (Offline, Unanswered):
                await self.clock.sleep(0.05)
            except (CallRefused, DeviceTimeout, Refused) as error:
                self._not_told(event.action, error)
                if event.guaranteed or not isinstance(error, CallRefused):
                    self._hold_back(event.key)
                else:
                    self.vault.commit(done=[event.seq])
            else:
                self._held.pop(event.key, None)
                self.vault.commit(done=[event.seq])

    def _next_event(self) -> tuple[Event | None, float]:
        """The oldest one whose kind is not held back; without one the seconds until one may be."""
        now = self.clock.monotonic()
        seen: set[str] = set()
        wait = float(DAY)
        for event in self.vault.events.values():
            if event.key in seen:
                continue
            seen.add(event.key)
            until = self._held[event.key][0] if event.key in self._held else now
            if until <= now:
                return event, 0.0
            wait = min(wait, until - now)
        return None, wait

    def _hold_back(self, key: str) -> None:
        backoff = self._held[key][1] if key in self._held else Backoff(self.clock, self._random, first=2.0, cap=600.0, least=1.0)
        self._held[key] = (self.clock.monotonic() + backoff.next(), backoff)

    def _watch_queue(self) -> None:
        lost = self.vault.lost
        self.alarm("queue", f"{lost} events of the street lights were given up: the Central System was away too long" if lost else "")
        self.alarm("state", self.vault.failing)
        self.alarm("history", self.meters.failing or self.syslog.failing)

    # ----------------------------------------------------------------------------------------------------------- the hardware

    def changed(self) -> None:
        """Look at everything now: an input, an order, the time or the place changed (rule 10)."""
        self._changed.set()

    def place(self) -> Place:
        """Where the station stands, by its keys."""
        known = self.vault.state.keys
        if known is not self._keys_of:
            where = schedule.coordinates(known[keys.GEOLOCATION])
            assert where is not None, "only coordinates are taken for the key"
            self._keys_of, self._place = known, Place(ZoneInfo(known[keys.ZONE]), *where)
        return self._place

    async def _watch(self) -> None:
        while True:
            wait = min(float(self.driver.poll), await self._look())
            if self.vault.events:
                self._news.set()
            self._watch_queue()
            await self._until(self._changed, max(wait, 0.001))

    async def _look(self) -> float:
        wait = await self.contactors.look()
        failed = ", ".join(map(str, sorted(self.contactors.failed)))
        self.alarm("contactors", f"{failed}: cannot be switched or read" if failed else "")
        async with self._hardware_is_well("driver"):
            self._standing = msgspec.convert(msgspec.to_builtins(await self.ask(self.driver.faults)), list[Fault])
        standing = [one.fault for one in self.faults.raised] if self._standing is None else self._standing  # as known last
        self.faults.found([*standing, *self.contactors.faults(), *self._hardware])
        return wait

    @asynccontextmanager
    async def _hardware_is_well(self, what: str) -> AsyncIterator[None]:
        """The owner's code is run inside. What it raises is told and does not end the station."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # the owner's code may raise anything
            self.alarm(what, f"{type(error).__name__}: {error}"[:200])
        else:
            self.alarm(what, "")

    async def _sampled(self, context: Context) -> messages.MeterValues | None:
        """Fresh readings, kept in the history; None: there are none (PowerMeterFailure where the driver says so)."""
        failure = Fault("PowerMeterFailure")
        samples, message = None, None
        async with self._hardware_is_well("meter"):
            samples = await self.ask(self.driver.meter, hurry=context == "Trigger")
            now = self.now()
            if samples:
                said: dict[str, Any] = {} if context == "Sample.Periodic" else {"context": context}  # what is the default is not sent
                values = tuple(
                    SampledValue(value=one.value, measurand=one.measurand, unit=one.unit, location=one.location, **said) for one in samples
                )
                made = messages.MeterValues(meterValue=(messages.MeterValue(timestamp=rfc3339(now), sampledValue=values),))
                write(made)
                self.meters.add(now, *(f",{one.measurand},{one.value},{one.unit or ''},{one.location or ''}" for one in samples))
                message = made
        if (failure in self._hardware) != ("meter" in self.alarms):
            self._hardware ^= {failure}
            self.changed()
        return message

    async def _measure_for_ever(self) -> None:
        phase = crc32(self.identity.encode())
        while True:
            interval = int(self.vault.state.keys[keys.METER])
            if not interval:
                await self._until(self._measure, DAY)
                continue
            # At moments of its own within the interval: a thousand stations do not measure in the same second.
            due = interval - (self.now() / 1_000_000 - phase % interval) % interval
            await self._until(self._measure, due)
            if int(self.vault.state.keys[keys.METER]) != interval:
                continue
            message = await self._sampled("Sample.Periodic")
            if message is not None and self.registered:
                await self._tell(self._session, message)

    # -------------------------------------------------------------------------------------------------------------- being asked

    async def _answer(self, action: str, payload: bytes) -> bytes:
        if action in self.settings.without:
            raise CallRefused(ErrorCode.NOT_IMPLEMENTED, f"{action} is not implemented here")
        message, deviations = read(action, payload, "server", strict=self.settings.strict)
        for deviation in deviations:
            self.note(logging.WARNING, f"{action} deviates", path=deviation.path, why=deviation.note)
        try:
            response = await _HANDLERS[action](self, message, deviations)
        except OSError as error:
            self.note(logging.ERROR, f"{action} cannot be kept", why=error.strerror)
            raise CallRefused(ErrorCode.INTERNAL_ERROR, "the state cannot be kept") from None
        self.note(logging.INFO, f"{action} was asked", answer=getattr(response, "status", "done"))
        return write(response)

    async def _change_configuration(self, message: messages.ChangeConfiguration, _: object) -> Message:
        key, value = keys.find(message.key), message.value.strip()
        if key is None or key.check is None or not key.check(value) or not self._can_be(key.name, value):
            return messages.ChangeConfigurationResponse(status="Rejected")
        self.vault.commit(must=True, keys={**self.vault.state.keys, key.name: value})
        if key.name == keys.PING and self._session is not None:
            self._session.link.ping_interval = int(value)
        self._measure.set()
        self.changed()
        return messages.ChangeConfigurationResponse(status="Accepted")

    def _can_be(self, name: str, value: str) -> bool:
        return name != keys.STACK or all(one.stack_level <= int(value) for one in self.vault.state.profiles)

    async def _get_configuration(self, message: messages.GetConfiguration, _: object) -> Message:
        wanted = message.key or tuple(row.name for row in keys.TABLE.values())
        found = {name: keys.find(name) for name in wanted}
        known = dict.fromkeys(key for key in found.values() if key is not None)
        return messages.GetConfigurationResponse(
            configurationKey=tuple(messages.ConfigurationKey(key=key.name, readonly=key.check is None, value=self._value(key)) for key in known),
            unknownKey=tuple(name for name, key in found.items() if key is None),
        )

    def _value(self, key: keys.Key) -> str | None:
        if key.name == keys.HEARTBEAT:
            accepted = self.vault.state.accepted
            return str(accepted.interval) if accepted is not None else None
        if key.name in (keys.SUNRISE, keys.SUNSET):
            place = self.place()
            midnight = datetime.combine(to_datetime(self.now()).astimezone(place.zone), time(), place.zone)
            today = from_datetime(midnight), from_datetime(midnight + timedelta(days=1))
            found = [one.at for one in sun.crossings(*today, place.latitude, place.longitude) if one.rises == (key.name == keys.SUNRISE)]
            return rfc3339(found[0]) if found else None  # S9; none in a polar night or day
        return self.vault.state.keys[key.name]

    async def _set_profiles(self, message: messages.SetStreetlightProfile, deviations: Sequence[Deviation]) -> Message:
        installed = schedule.install(self.vault.state.profiles, message, max_stack_level=int(self.vault.state.keys[keys.STACK]))
        reasons = [f"{fault.path}: {fault.reason}" for fault in installed.faults]
        reasons += [f"{one.path}: {one.note}" for one in deviations if one.kind is Kind.CONTRADICTION]  # I1
        if message.contactorId not in self.contactors.numbers:
            reasons.append(f"$.contactorId: there is no contactor {message.contactorId} here")
        for warning in installed.warnings:
            self.note(logging.WARNING, "a profile is odd", path=warning.path, why=warning.reason)
        if reasons:
            self.note(logging.WARNING, "profiles were rejected", why="; ".join(reasons))
            return messages.SetStreetlightProfileResponse(status="Rejected")
        self.vault.commit(must=True, profiles=installed.profiles)
        self.changed()
        return messages.SetStreetlightProfileResponse(status="Accepted")

    async def _clear_profile(self, message: messages.ClearSingleStreetlightProfile, _: object) -> Message:
        profiles = self.vault.state.profiles
        left = cleared(profiles, message)
        if left is None:
            return messages.ClearSingleStreetlightProfileResponse(status="Rejected")
        if len(left) == len(profiles):
            return messages.ClearSingleStreetlightProfileResponse(status="Unknown")
        self.vault.commit(must=True, profiles=left)
        self.changed()
        return messages.ClearSingleStreetlightProfileResponse(status="Accepted")

    async def _day_schedule(self, message: messages.GetEffectiveStreetlightDaySchedule, _: object) -> Message:
        contactor = message.contactorId
        if contactor not in self.contactors.numbers:
            raise PayloadRefused((FieldFault("$.contactorId", f"there is no contactor {contactor} here"),), ErrorCode.NOT_SUPPORTED)
        try:
            day = schedule.effective(self.vault.state.profiles, contactor, messages.day(message.at), self.place())
        except InvalidInput as error:
            raise PayloadRefused((FieldFault("$.at", error.message),), ErrorCode.PROPERTY_CONSTRAINT_VIOLATION) from None
        periods = tuple(messages.EffectivePeriod(start=start, end=end) for start, end in schedule.answer(day))
        return messages.GetEffectiveStreetlightDayScheduleResponse(contactorId=contactor, daySchedule=periods)

    async def _override(self, message: messages.OverrideStreetlight, _: object) -> Message:
        return messages.OverrideStreetlightResponse(status=await self._overridden(message.contactorId, message.action))

    async def _resume(self, message: messages.ResumeStreetlight, _: object) -> Message:
        return messages.ResumeStreetlightResponse(status=await self._overridden(message.contactorId, None))

    async def _overridden(self, contactor: int | None, action: schedule.Override | None) -> messages.OverrideResult:
        contactors = self.contactors.numbers if contactor is None else (contactor,)
        if not contactors or not set(contactors) <= set(self.contactors.numbers):
            return "Rejected"
        try:
            held = await self.contactors.locals(contactors)
        except Exception as error:  # noqa: BLE001  # the owner's code may raise anything
            self.note(logging.ERROR, "the local override switch cannot be read", why=f"{type(error).__name__}: {error}")
            self.changed()
            return "Rejected"
        if held:
            return "RejectedLocalOverride"
        self.contactors.override(contactors, action)
        self.news()
        self.changed()
        return "Accepted"

    async def _reset(self, message: messages.Reset, _: object) -> Message:
        self._begin(self._reset_soon())
        return messages.ResetResponse(status="Accepted")

    async def _reset_soon(self) -> None:
        """S19: behind the answer."""
        await asyncio.sleep(0)
        self._again.set()

    async def _test_indicators(self, message: messages.TestMVFaultIndicator, _: object) -> Message:
        if not self.driver.indicators:
            return messages.TestMVFaultIndicatorResponse(status="Rejected")
        if self.vault.state.testing or self.faults.indicated():
            return messages.TestMVFaultIndicatorResponse(status="RejectedAlreadyFaulted")
        self.vault.commit(must=True, testing=True)
        self._begin(self._tested())
        return messages.TestMVFaultIndicatorResponse(status="Accepted")

    async def _tested(self) -> None:
        async with self._hardware_is_well("driver"):
            await self.ask(self.driver.test_indicators)
        self.changed()

    async def _reset_indicators(self, message: messages.ResetMVFaultIndicator, _: object) -> Message:
        if not self.driver.indicators:
            return messages.ResetMVFaultIndicatorResponse(status="Rejected")
        self._begin(self._indicators_reset())
        return messages.ResetMVFaultIndicatorResponse(status="Accepted")

    async def _indicators_reset(self) -> None:
        async with self._hardware_is_well("driver"):
            await self.ask(self.driver.reset_indicators)
            self.faults.reset(await self.ask(self.driver.faults))
        self.news()
        self.changed()

    async def _get_file(self, message: messages.GetFile, _: object) -> Message:
        return await self.uploads.begin(message)

    async def _update_firmware(self, message: messages.UpdateFirmware, _: object) -> Message:
        self.firmware.order(message)
        return messages.UpdateFirmwareResponse()

    async def _trigger(self, message: messages.TriggerMessage, _: object) -> Message:
        told = await self._triggered(message)
        if told is None:
            return messages.TriggerMessageResponse(status="Rejected")
        if callable(told):
            self._begin(told())
        else:
            self._begin(self._tell_all(self._session, told))
        return messages.TriggerMessageResponse(status="Accepted")

    async def _triggered(self, message: messages.TriggerMessage) -> Sequence[Message] | Callable[[], Coroutine[Any, Any, Any]] | None:
        """What is sent behind the answer (S3 to S5); None: it cannot be."""
        match message.requestedMessage:
            case "BootNotification":
                return self._boot_asked_for
            case "Heartbeat":
                return self._heartbeat
            case "MeterValues":
                values = await self._sampled("Trigger")
                return None if values is None else (values,)
            case "StatusNotification":
                return self.faults.report()
            case "GetFileStatusNotification":
                return (self.uploads.status(),)
            case "FirmwareStatusNotification":
                return (self.firmware.status(),)
            case action:
                contactors = (message.connectorId,) if message.connectorId else self.contactors.numbers
                if not contactors or not set(contactors) <= set(self.contactors.numbers):
                    return None
                which = 0 if action == "StreetlightModeStatusNotification" else 1
                return [self.contactors.reported(contactor)[which] for contactor in contactors]

    async def _boot_asked_for(self) -> None:
        if self._session is not None:
            self._session.boot_due.set()


_HANDLERS: dict[str, Callable[[Substation, Any, Sequence[Deviation]], Awaitable[Message]]] = {
    "ChangeConfiguration": Substation._change_configuration,
    "ClearSingleStreetlightProfile": Substation._clear_profile,
    "GetConfiguration": Substation._get_configuration,
    "GetEffectiveStreetlightDaySchedule": Substation._day_schedule,
    "GetFile": Substation._get_file,
    "OverrideStreetlight": Substation._override,
    "ResumeStreetlight": Substation._resume,
    "Reset": Substation._reset,
    "ResetMVFaultIndicator": Substation._reset_indicators,
    "SetStreetlightProfile": Substation._set_profiles,
    "TestMVFaultIndicator": Substation._test_indicators,
    "TriggerMessage": Substation._trigger,
    "UpdateFirmware": Substation._update_firmware,
}
