"""WIRE: one RS-485 line and the conversations on it. ``Bus`` owns its port, reads its meters in turn, and lets orders in between.

One thing at a time is on the line: an exchange (a request and its reply). Orders go before polls; a poll that is under way makes room after each
exchange, and after each order one exchange of a poll has its turn, so that neither waits for long. A session is ended before anybody else
is spoken to: passwords and settings name no address, and a meter whose session is open would take those that are meant for another.

How long a reply takes is known from the speed of the line, and how long a meter thinks is learned: until then the line is left alone
(``Stream.rest``), so that an exchange costs a wake-up or two. Time-outs of the wire are real time, also where the hub's clock runs faster.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from random import Random
from typing import Any, Generic, Literal, Protocol, TypeVar

import msgspec

from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, GridloomError
from gridloom.core.metrics import Metrics
from gridloom.integrations.ekm import codec
from gridloom.integrations.ekm.codec import Answer, Ask, Conversation, Expect, Got, Read, Receiver
from gridloom.integrations.ekm.config import Bus as Settings
from gridloom.integrations.ekm.errors import LineLost
from gridloom.integrations.ekm.models import Model
from gridloom.links import serial
from gridloom.links.backoff import Backoff
from gridloom.links.serial import PORTS, PortError, Ports, Stream, Why

log = logging.getLogger(__name__)

T = TypeVar("T")
State = Literal["starting", "open", "missing", "denied", "busy", "unplugged"]
OWNER = "ekm"
BITS_PER_BYTE = 10
"""7E1 on the wire: start, seven data, parity, stop."""
GAP = 0.12
"""Seconds without a byte within a reply after which it has ended: adapters hold bytes back for 16 ms, networks for longer."""
WORTH = 0.02
"""Seconds; a shorter rest is none: adapters hand on what comes within 16 ms in one piece, and it may be there the next moment."""
AFTER = 0.001
"""Seconds behind the calculated end of a reply at which it is looked for."""
PROBE = 0.0005
"""Seconds by which a reply is looked for earlier each time that it was all there."""
LOOK = 0.25
"""Seconds between two looks whether a port that is missing is there."""
RECENT = 100
"""Exchanges of a meter of which the share of good ones is told."""
_STATES: dict[Why, State] = {
    Why.MISSING: "missing", Why.DENIED: "denied", Why.BUSY: "busy", Why.UNUSABLE: "missing", Why.LOST: "unplugged",
}  # fmt: skip


class Figures:
    """What is counted, by bus (its port) and meter."""

    def __init__(self, metrics: Metrics) -> None:
        meter = ("bus", "meter")
        self.exchanges = metrics.counter("gridloom_ekm_exchanges_total", "Exchanges with Omnimeters, by result.", (*meter, "result"))
        self.retries = metrics.counter("gridloom_ekm_retries_total", "Requests that were sent again.", meter)
        self.noise = metrics.counter("gridloom_ekm_noise_bytes_total", "Bytes that meant nothing; without a meter: between two exchanges.", meter)
        self.reads = metrics.counter("gridloom_ekm_reads_total", "Times that a meter was read whole.", meter)
        self.seconds = metrics.histogram("gridloom_ekm_exchange_seconds", "From the first byte of a request to the last of its reply.")


class Polled:
    """A meter that is read again and again. ``address`` is the one that is asked (perhaps the wildcard), ``identity`` the one that answered."""

    def __init__(self, address: str, model: Model, every: float | None, now: float) -> None:
        self.address, self.model, self.every = address, model, every
        self.identity = "" if address == codec.WILDCARD else address
        self.due = now
        self.heard = now
        """When it was read the last time, or the bus opened (monotonic seconds)."""
        self.silent = False
        self._recent: deque[bool] = deque(maxlen=RECENT)

    def count(self, good: bool) -> None:
        """An exchange was good, or not."""
        self._recent.append(good)

    @property
    def reliability(self) -> int:
        """Per cent of the last exchanges that were good; 100 before the first."""
        return 100 * sum(self._recent) // len(self._recent) if self._recent else 100


class Listener(Protocol):
    """Who is told what happens on a bus. Quick and synchronous."""

    def port(self, bus: Bus, state: State, reason: str) -> None:
        """The port can be used (open), or cannot, and why."""
        ...

    def read(self, bus: Bus, meter: Polled, read: Read) -> None:
        """The meter was read."""
        ...

    def failed(self, bus: Bus, meter: Polled, error: GridloomError) -> None:
        """It could not be read this time; ``meter.silent`` once that lasts too long."""
        ...


class _Talk(Generic[T]):
    """A conversation under way: what is to be asked next, or its end."""

    def __init__(self, conversation: Conversation[T], address: str, within: float | None = None) -> None:
        self.address, self.within = address, within
        self.ask: Ask | None = None
        self.asked: Ask | None = None
        self.result: T | None = None
        self.error: GridloomError | None = None
        self._conversation = conversation
        self._go(None)

    def hear(self, answer: Answer) -> None:
        """What came."""
        self.asked = self.ask
        self._go(answer)

    def _go(self, answer: Answer | None) -> None:
        try:
            self.ask = next(self._conversation) if answer is None else self._conversation.send(answer)
        except StopIteration as end:
            self.ask, self.result = None, end.value
        except GridloomError as error:
            self.ask, self.error = None, error


class _Order(msgspec.Struct, eq=False):
    """A conversation that somebody waits for."""

    conversation: Conversation[Any]
    address: str
    future: asyncio.Future[Any]
    within: float | None = None

    def settle(self, talk: _Talk[Any]) -> None:
        """Tell its end to the one who waits, if there still is one."""
        if self.future.done():
            return
        if talk.error is not None:
            self.future.set_exception(talk.error)
        else:
            self.future.set_result(talk.result)


class Bus:
    """One line, kept open for ever. ``meters`` are read every ``settings.poll_seconds``; add them before ``run``."""

    def __init__(self, settings: Settings, clock: Clock, listener: Listener, figures: Figures, *, ports: Ports = PORTS, owner: str = OWNER) -> None:
        self.name = serial.shown(str(settings.port))
        self.settings = settings
        self.state: State = "starting"
        self.reason = ""
        self.every = settings.poll_seconds
        self.meters: list[Polled] = []
        self._hub_clock, self._clock = clock, Clock()
        self._listener, self._figures, self._ports, self._owner = listener, figures, ports, owner
        self._backoff = Backoff(self._clock, Random(), first=0.5, cap=10.0, stable=30.0, least=0.1)  # noqa: S311  # jitter, not secrecy
        self._byte = BITS_PER_BYTE / settings.baud
        self._stream: Stream | None = None
        self._lost: PortError | None = None
        self._orders: deque[_Order] = deque()
        self._patient: deque[_Order] = deque()
        self._poll: tuple[Polled, _Talk[Read]] | None = None
        self._owed = self._polled_last = False
        self._session = False
        self._free = 0.0
        self._receiver: Receiver | None = None
        self._news, self._wake = asyncio.Event(), asyncio.Event()
        self._thinks: dict[tuple[str, int], float] = {}  # (meter, size of the request) -> seconds that its reply is late

    # ------------------------------------------------------------------------------------------------------- for callers

    async def converse(self, conversation: Conversation[T], address: str, *, patient: bool = False, within: float | None = None) -> T:
        """Have the conversation as soon as it is its turn; ``patient``: in turn with the polls, and not before them.

        ``within``: seconds that the first byte of an answer is waited for, if not as configured. Raises LineLost when the port cannot be used, and
        whatever the conversation raises. If the caller is cancelled, nothing more is sent.
        """
        if self.state != "open":
            raise LineLost(f"{self.name}: {self.reason or self.state}")
        order = _Order(conversation, address, asyncio.get_running_loop().create_future(), within)
        (self._patient if patient else self._orders).append(order)
        self._wake.set()
        return await order.future  # type: ignore[no-any-return]  # what the conversation returns

    def poll_soon(self, address: str) -> None:
        """Read this meter now and not when it is due."""
        for meter in self.meters:
            if address in (meter.address, meter.identity):
                meter.due = self._clock.monotonic()
                self._wake.set()

    def set_interval(self, seconds: float) -> None:
        """How often meters are read from now on (those without an interval of their own)."""
        self.every = seconds
        now = self._clock.monotonic()
        for meter in self.meters:
            if meter.every is None:
                meter.due = min(meter.due, now + seconds)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; raises only what is an error of ours."""
        try:
            while True:
                try:
                    await self._session_of(await self._there())
                except PortError as error:
                    self._cannot(_STATES[error.why], error.message)
                    if error.why is Why.LOST and not serial.is_url(self.settings.port):
                        await self._clock.sleep(LOOK)
                    else:
                        await self._backoff.wait()
                except Conflict as error:  # another section of this hub has it
                    self._cannot("busy", error.message)
                    await self._backoff.wait()
        finally:
            self._tell("starting", "the hub no longer uses the port")
            self._fail_orders()

    # ----------------------------------------------------------------------------------------------------------- the port

    async def _there(self) -> str:
        port = str(self.settings.port)
        while not _is_there(port):
            if self.state != "unplugged":
                self._cannot("missing", f"{self.name}: it is not there")
            await self._clock.sleep(LOOK)
        return port

    async def _session_of(self, port: str) -> None:
        lease = self._ports.lease(port, self._owner)
        try:
            stream = await serial.open(port, baudrate=self.settings.baud, bytesize=7, parity="E")
            try:
                await self._use(stream)
            finally:
                self._stream = None
                await stream.close()
        finally:
            lease.release()

    async def _use(self, stream: Stream) -> None:
        """Work until the port is gone; raises PortError then."""
        self._stream, self._lost, self._poll, self._session, self._free = stream, None, None, False, 0.0
        stream.listen(self._heard)
        self._backoff.up()
        now = self._clock.monotonic()
        for meter in self.meters:
            meter.heard = meter.due = now
        self._tell("open", "")
        watch = asyncio.create_task(self._watch(stream), name=f"ekm watch {self.name}")
        try:
            while self._lost is None:
                await self._work()
            raise self._lost
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch(self, stream: Stream) -> None:
        try:
            while True:
                await stream.read()  # bytes are taken as they come: this only tells the end
        except PortError as error:
            self._lose(error)

    def _lose(self, error: PortError) -> None:
        self._lost = error
        self._news.set()
        self._wake.set()

    def _is_lost(self) -> bool:
        return self._lost is not None

    def _cannot(self, state: State, reason: str) -> None:
        self._tell(state, reason)
        self._fail_orders()

    def _fail_orders(self) -> None:
        for order in (*self._orders, *self._patient):
            if not order.future.done():
                order.future.set_exception(LineLost(f"{self.name}: {self.reason}"))
        self._orders.clear()
        self._patient.clear()

    def _tell(self, state: State, reason: str) -> None:
        changed = (state, reason) != (self.state, self.reason)
        self.state, self.reason = state, reason
        if changed:
            log.info("an RS-485 port changed its state", extra={"port": self.name, "state": state, "reason": reason})
            self._listener.port(self, state, reason)

    # --------------------------------------------------------------------------------------------------------- whose turn

    async def _work(self) -> None:
        """One thing: an order, or one exchange of a poll, or one of what is patient; or wait until there is something to do."""
        self._wake.clear()
        self._orders = deque(order for order in self._orders if not order.future.done())
        ready = self._poll is not None or self._next_due() <= self._clock.monotonic() or bool(self._patient)
        if self._orders and not (self._owed and ready):
            self._owed = True
            await self._carry_out(self._orders.popleft())
        elif ready:
            self._owed = False
            await self._background()
        else:
            pause = self._next_due() - self._clock.monotonic()
            await _within(None if pause == float("inf") else max(0.0, pause), self._wake)

    def _next_due(self) -> float:
        return min((meter.due for meter in self.meters), default=float("inf"))

    async def _background(self) -> None:
        """Polls, and what is patient, in turn."""
        if self._poll is None and self._patient and (self._polled_last or self._next_due() > self._clock.monotonic()):
            self._polled_last = False
            order = self._patient.popleft()
            if not order.future.done():
                await self._carry_out(order)
            return
        if self._poll is None:
            meter = min(self.meters, key=lambda one: one.due)
            # One that is away is asked once each time, or it would take the line from the others.
            tries = 1 if meter.silent else codec.TRIES
            self._poll = meter, _Talk(codec.read(meter.address, meter.model, tries=tries), meter.identity or meter.address)
        meter, talk = self._poll
        await self._step(talk, meter)
        if talk.ask is None:
            self._poll, self._polled_last = None, True
            await self._end_session()
            self._polled(meter, talk)

    def _polled(self, meter: Polled, talk: _Talk[Read]) -> None:
        now = self._clock.monotonic()
        every = self.every if meter.every is None else meter.every
        meter.due = max(meter.due + every, now)  # what was missed is not caught up
        if talk.result is not None:
            self.heard(meter, talk.result)
        elif talk.error is not None and self._lost is None:
            meter.silent = now - meter.heard >= self.settings.silent_after
            self._listener.failed(self, meter, talk.error)

    def heard(self, meter: Polled, read: Read) -> Read:
        """The meter was read, by a poll or by an order: told. Returns the reading with what is known about it here."""
        meter.heard, meter.silent, meter.identity = self._clock.monotonic(), False, read.address
        self._figures.reads.inc(bus=self.name, meter=read.address)
        read = msgspec.structs.replace(read, received=self._hub_clock.now(), reliability=meter.reliability)
        self._listener.read(self, meter, read)
        return read

    async def _carry_out(self, order: _Order) -> None:
        """A whole conversation, without anybody in between; the poll that it interrupts has to end its session first."""
        await self._end_session()
        talk = _Talk(order.conversation, order.address, order.within)
        meter = next((one for one in self.meters if order.address in (one.identity, one.address)), None)
        try:
            while talk.ask is not None and not order.future.done():
                await self._step(talk, meter)
            order.settle(talk)  # at once: who waits for it need not wait for the end of the session, before which nobody else is spoken to
            await self._end_session()
        except asyncio.CancelledError:  # the hub stops: what was on the wire is not known to have arrived
            if talk.ask is not None:
                talk.hear(Answer(Got.LOST))
            raise
        finally:
            order.settle(talk)

    async def _step(self, talk: _Talk[Any], meter: Polled | None) -> None:
        """One exchange."""
        ask = talk.ask
        if ask is None:
            return
        if talk.asked is not None and talk.asked.data == ask.data:
            self._figures.retries.inc(bus=self.name, meter=talk.address)
        answer = await self._exchange(ask, talk.address, self.settings.timeout if talk.within is None else talk.within)
        if answer.got is not Got.LOST:
            self._count(answer, talk, meter)
        talk.hear(answer)
        if talk.within is not None and answer.got is Got.SILENCE:
            self._session = False  # a search found nobody: no session was opened

    def _count(self, answer: Answer, talk: _Talk[Any], meter: Polled | None) -> None:
        if talk.within is not None and answer.got is Got.SILENCE:
            return  # nobody lives at this address
        good = answer.got in (Got.FRAME, Got.ACK)
        self._figures.exchanges.inc(bus=self.name, meter=talk.address, result=answer.got.value)
        if answer.noise:
            self._figures.noise.inc(answer.noise, bus=self.name, meter=talk.address)
        if meter is not None:
            meter.count(good)

    # ------------------------------------------------------------------------------------------------------- an exchange

    async def _end_session(self) -> None:
        if self._session:
            self._session = False
            await self._quiet()
            if self._lost is None:
                self._write(codec.END)

    async def _quiet(self) -> None:
        """Wait until what was sent has left, and the silence behind it."""
        pause = self._free - self._clock.monotonic()
        if pause > 0:
            await self._clock.sleep(pause)

    def _write(self, data: bytes) -> float:
        """Send; returns when the last byte will have left (monotonic seconds). A port that is gone is noted."""
        stream = self._stream
        try:
            if stream is not None:
                stream.write(data)
        except PortError as error:
            self._lose(error)
        leaves = self._clock.monotonic() + len(data) * self._byte
        self._free = leaves + self.settings.quiet
        return leaves

    async def _exchange(self, ask: Ask, address: str, timeout: float) -> Answer:
        await self._quiet()
        if self._lost is not None:
            return Answer(Got.LOST)
        clock, stream = self._clock, self._stream
        receiver = self._receiver = Receiver(ask)
        self._news.clear()
        self._session = True
        began = clock.monotonic()
        leaves = self._write(ask.data)
        line = leaves + ask.expect.value * self._byte
        key = (address, len(ask.data))
        thinks = self._thinks.get(key) if ask.expect is Expect.FRAME else None
        if thinks is not None and stream is not None:
            stream.rest(max(0.0, line + thinks - clock.monotonic()))
        # While the line is left alone no first byte is seen: the end of that rest is the first time to look.
        deadline, most = max(leaves + timeout, 0.0 if thinks is None else line + thinks + WORTH), line + timeout + 4 * GAP
        looks = 0
        while receiver.answer is None and self._lost is None and (pause := min(deadline, most) - clock.monotonic()) > 0:
            if not await _within(pause, self._news):
                continue
            self._news.clear()
            looks += 1
            if receiver.heard:
                deadline = clock.monotonic() + receiver.missing * self._byte + GAP
        self._receiver = None
        now = clock.monotonic()
        self._free = max(self._free, now + self.settings.quiet)
        if receiver.answer is None and self._is_lost():
            return Answer(Got.LOST)
        answer = receiver.close()
        if answer.got is Got.FRAME:
            self._figures.seconds.observe(now - began)
            self._thinks[key] = max(0.0, min(timeout, now - line) if looks > 1 or thinks is None else thinks - PROBE)
        else:
            self._thinks.pop(key, None)
        return answer

    def _heard(self, data: bytes) -> None:
        """Bytes came. Never waits."""
        receiver, stream = self._receiver, self._stream
        if receiver is None:
            self._figures.noise.inc(len(data), bus=self.name, meter="")
            return
        if not receiver.feed(data) and stream is not None and (rest := receiver.missing * self._byte) > WORTH:
            stream.rest(rest + AFTER)
        self._news.set()


async def _within(seconds: float | None, event: asyncio.Event) -> bool:
    """Whether the event came. (``wait_for`` of Python 3.11 forgets that it was cancelled if the event comes at the same moment.)"""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _is_there(port: str) -> bool:
    return serial.is_url(port) or os.path.exists(port)


class Quiet:
    """A Listener for tools that are not interested."""

    def port(self, bus: Bus, state: State, reason: str) -> None:
        """The port can be used, or not."""

    def read(self, bus: Bus, meter: Polled, read: Read) -> None:
        """A meter was read."""

    def failed(self, bus: Bus, meter: Polled, error: GridloomError) -> None:
        """One could not be read."""
