"""WIRE: serial ports, from their bytes to the intake. One ``Line`` per port, read for ever; ``Manager`` keeps them and finds TIC modems.

A line opens its port (7E1), searches the speed by listening (``tuning``), and reads; what it understood goes to ``delivery``. Whatever goes
wrong is a state of the port, told on the bus (``PortState``), recorded as an event of the hub about that port, shown as health, and tried again
for ever: a port that is missing, denied or busy, an adapter that was unplugged and comes back under another name, a meter that is silent.

Time-outs of the wire are real time, also where the hub's clock runs faster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import msgspec

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, Conflict
from gridloom.core.hub import Health, Hub
from gridloom.integrations.tic import modems
from gridloom.integrations.tic.codec import Frame, Group, Parser
from gridloom.integrations.tic.config import Section
from gridloom.integrations.tic.delivery import Delivery, Figures
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import PortState, State, UsbInfo
from gridloom.integrations.tic.pace import AT_ONCE, Pace
from gridloom.integrations.tic.tuning import Tuning, Verdict
from gridloom.links import serial
from gridloom.links.backoff import Backoff
from gridloom.links.serial import PORTS, PortError, PortInfo, Ports, Stream, Why

log = logging.getLogger(__name__)

OWNER = "tic"
LOOK = 0.25
"""Real seconds between two looks whether a port that is missing is there, or a modem was plugged in."""
REST = 0.1
"""Real seconds between closing a port that made no sense and opening it anew, so that its adapter notices."""
_RESCAN = 5.0
_TICK_SEARCHING, _TICK_READING = 0.1, 1.0
HOLD = 0.25
"""Real seconds that groups which are not urgent wait to be looked at together."""
_LONGEST = 4_096
_URGENT = re.compile(b"[\0-\x1f]((?:" + b"|".join(sorted(label.encode() for label in AT_ONCE)) + b")[^\r]*)(\r?)")
"""A group that cannot wait, and its CR if that has come."""

_STATES: Mapping[Why, State] = {
    Why.MISSING: "missing", Why.DENIED: "denied", Why.BUSY: "busy", Why.UNUSABLE: "missing", Why.LOST: "unplugged",
}  # fmt: skip
_TIMES = {"missing": 8, "denied": 2, "busy": 2}
"""How often in a row a state is found before it is an alarm: a port that is not there is looked for four times a second."""
_ALARMS: Mapping[str, str] = {"missing": "line.lost", "unplugged": "line.lost", "denied": "line.denied", "busy": "line.busy"}


class Census:
    """Which ports the machine has; looked at again when something changed in /dev, and once in a while."""

    def __init__(self, clock: Clock, look: Callable[[], list[PortInfo]] = serial.list_ports) -> None:
        self._clock, self._look = clock, look
        self._mark = -1
        self._taken = 0.0
        self._found: list[PortInfo] = []

    def ports(self) -> list[PortInfo]:
        """By path."""
        now = self._clock.monotonic()
        mark = os.stat("/dev").st_mtime_ns
        if mark != self._mark or now - self._taken >= _RESCAN:
            self._mark, self._taken, self._found = mark, now, self._look()
        return self._found


class Line:
    """One port, read for ever. ``port`` as it is configured; ``known``: the modem, where it was discovered and not configured."""

    def __init__(
        self,
        port: str,
        hub: Hub,
        figures: Figures,
        *,
        ports: Ports = PORTS,
        census: Census,
        first: Mode | None = None,
        silent_after: float = 10.0,
        known: PortInfo | None = None,
        simulated: bool = False,
    ) -> None:
        self.port = port
        self.known = known
        self.state = PortState(serial.shown(port), None, None, None, None, "starting", "", hub.clock.now())
        self.delivery = Delivery(serial.shown(port), hub, figures, self._understood, simulated=simulated)
        self._discovered = known is not None
        self._simulated = simulated
        self._hub, self._ports, self._census = hub, ports, census
        self._figures = figures
        self._real = Clock()
        self._backoff = Backoff(self._real, Random(), first=0.5, cap=10.0, stable=30.0, least=0.1)  # noqa: S311  # jitter, not secrecy
        self._tuning = Tuning(first, silent_after)
        self._parser = Parser()
        self._pace = Pace()
        self._silent_after = silent_after
        self._held = b""
        self._looked = 0.0
        self._begun: list[tuple[bytes, bytes]] = []  # groups that cannot wait, in the part of this frame that was looked at
        self._said: set[bytes] = set()  # what such groups said in the last frame, and in this one
        self._closed_by_us = False
        self._told: PortState | None = None

    async def run(self) -> None:
        """Read until cancelled; raises only what is an error of ours."""
        self._publish()
        tasks = [asyncio.create_task(work, name=f"tic {self.state.name}") for work in (self.delivery.run(), self._keep_open())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self.delivery.measure(self._parser.statistics)
            await self.delivery.close()

    # ----------------------------------------------------------------------------------------------------------- the port

    async def _keep_open(self) -> None:
        while True:
            try:
                await self._session(await self._there())
                await self._real.sleep(REST)
            except PortError as error:
                self._cannot(_STATES[error.why], error.message)
                if error.why is Why.LOST and not serial.is_url(self.port):
                    await self._real.sleep(LOOK)  # it is waited for by looking
                else:
                    await self._backoff.wait()
            except Conflict as error:  # another section of this hub has it
                self._cannot("busy", error.message)
                await self._backoff.wait()

    async def _there(self) -> str:
        """The name under which the port can be opened now; waits until it is there."""
        while True:
            name = self._find()
            if name is not None:
                return name
            # A simulator makes its line after us, and is no port that an owner could have plugged in.
            if self.state.state != "unplugged" and not (self._simulated and self.state.state == "starting"):
                self._cannot("missing", f"{self.state.name}: it is not there")
            await self._real.sleep(LOOK)

    def _find(self) -> str | None:
        """By its name; by the number of its USB device where that has one, else by where that was plugged in."""
        if serial.is_url(self.port) or (not self._discovered and os.path.exists(self.port)):
            return self.port
        known = self.known
        if known is None or known.vendor_id is None:
            return None
        for info in self._census.ports():
            same = (info.vendor_id, info.product_id, info.serial) == (known.vendor_id, known.product_id, known.serial)
            if same and (known.serial or info.usb_path == known.usb_path) and self._ports.owner(info.path) in (None, OWNER):
                return info.path
        return None

    async def _session(self, name: str) -> None:
        """Open, read, close. Returns when the port is to be opened anew; raises PortError or Conflict when it cannot be used now."""
        lease = self._ports.lease(name, OWNER)
        try:
            stream = await serial.open(name, baudrate=self._tuning.speed, bytesize=7, parity="E")
            try:
                await self._opened(name)
                await self._read(stream)
            finally:
                await stream.close()
        finally:
            lease.release()

    async def _opened(self, name: str) -> None:
        info = serial.info_of(name)
        if info.vendor_id is not None or self.known is None:
            self.known = info
        self.state = msgspec.structs.replace(self.state, name=serial.shown(name), port_id=info.usb_path, port_path=info.id_path, usb=_usb(info))
        self._backoff.up()
        self._tuning.opened(self._real.monotonic())
        self._start_anew()
        self._closed_by_us = False
        self.delivery.found()
        if self.state.state != "silent":  # of a line that was silent it is known only when something comes
            self._tell("searching", "")

    def _cannot(self, state: State, reason: str) -> None:
        """The port cannot be used now."""
        if state == "unplugged":
            self.delivery.error("unplugged", self.state)
        self.delivery.offline(reason)
        self.delivery.trouble(_ALARMS[state], reason, times=_TIMES.get(state, 1))
        self._tell(state, reason)

    # ----------------------------------------------------------------------------------------------------------- the bytes

    async def _read(self, stream: Stream) -> None:
        watch = asyncio.create_task(self._watch(stream), name=f"tic watch {self.state.name}")
        try:
            stream.listen(partial(self._take, stream))
            await stream.read()  # returns with an error only: the bytes are taken as they come
        except PortError:
            if not self._closed_by_us:
                raise
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            if not watch.cancelled() and (failed := watch.exception()) is not None and not isinstance(failed, PortError):
                raise failed

    def _take(self, stream: Stream, data: bytes) -> None:
        """Bytes came. Never waits; never raises for what they are.

        Waking up is dear on small machines, and adapters hand on a few bytes at a time: a line that is understood is left alone until something
        may have come that cannot wait (``pace``), and groups are looked at together: at the frame's end, or when an urgent one says anything new.
        """
        if self.state.state == "silent":
            self._tell("searching", "")
            self.delivery.over("line.silent")
        held = self._held = self._held + data if self._held else data
        now = self._real.monotonic()
        if not self._tuning.found:
            self._held, self._looked = b"", now
            self._understand(held, now)
            return
        end = held.rfind(b"\x03") + 1
        urgent = self._begun + _URGENT.findall(held, 0, end or len(held))
        if end or self._is_due(held, urgent, now):
            # What an urgent label has begun is held until its CR, so that it is recognised then.
            cut = end or (held.rfind(b"\r") + 1 if len(held) < _LONGEST else len(held))
            self._held, self._looked = held[cut:], now
            said = {text for text, complete in urgent if complete}
            if end:
                self._said, self._begun = said, []
                urgent = _URGENT.findall(self._held) if self._held else []
            else:
                self._said |= said
                self._begun = [one for one in urgent if one[1]]
            if cut:
                self._understand(held[:cut], now)
        came = len(data)
        pause = self._pace.heard(came, came - len(held) + end if end else 0, [complete for _, complete in urgent], now, self._tuning.speed)
        if pause:
            stream.rest(pause)

    def _is_due(self, held: bytes, urgent: list[tuple[bytes, bytes]], now: float) -> bool:
        """Whether what came in the middle of a frame is to be looked at now."""
        if any(complete and text not in self._said for text, complete in urgent):
            return True
        return len(held) >= _LONGEST or not held.isascii() or (now - self._looked >= HOLD and not self._pace.known)

    def _understand(self, data: bytes, now: float) -> None:
        groups = []
        for value in self._parser.feed(data):
            if isinstance(value, Group):
                groups.append(value)
                if value.valid:
                    self.delivery.group(value)
            elif isinstance(value, Frame):
                self.delivery.frame(value, self.state)
                self._pace.ended(value)
        self._tuning.heard(len(data), groups, now)

    async def _watch(self, stream: Stream) -> None:
        """Tries speeds while they are searched, sees when a line no longer makes sense, closes the port when nothing does for too long."""
        while True:
            await self._real.sleep(_TICK_READING if self._tuning.found else _TICK_SEARCHING)
            self.delivery.measure(self._parser.statistics)
            verdict = self._tuning.verdict(self._real.monotonic())
            if verdict in (Verdict.SILENT, Verdict.NONSENSE):
                self._give_up(verdict, stream)
                await stream.close()
                return
            if verdict is Verdict.CONFUSED:
                self._tell("searching", "what comes makes no sense any more: speed and mode are searched")
                self.delivery.error("unreadable", self.state)
            if verdict is not Verdict.STAY:
                await stream.set_baudrate(self._tuning.other(self._real.monotonic()))
                self._start_anew()

    def _start_anew(self) -> None:
        self._parser.reset()
        self._pace.reset()
        self._held, self._begun, self._said = b"", [], set()

    def _give_up(self, verdict: Verdict, stream: Stream) -> None:
        """No good group for too long: clients are told, the device is offline, the port is opened anew."""
        self._closed_by_us = True
        self.delivery.error("timeout", self.state)
        if verdict is Verdict.SILENT:
            reason = f"{self.state.name}: nothing came for {self._silent_after:g} s"
            others = serial.holders(stream.name)
            if others:
                reason += f"; {others[0]} has the port open, too"
            self._tell("silent", reason)
            self.delivery.trouble("line.silent", reason)
        else:
            reason = f"{self.state.name}: bytes come, but nothing in them made sense for {self._silent_after:g} s"
            self._tell("searching", reason)
        self.delivery.offline(reason)

    # ----------------------------------------------------------------------------------------------------------- the state

    def _understood(self, mode: Mode, serial_number: str) -> None:
        """A frame was understood (told by the delivery)."""
        state = self.state
        if (state.state, state.mode, state.serial) != ("reading", mode, serial_number):
            self.state = msgspec.structs.replace(state, mode=mode, serial=serial_number)
            self.delivery.over("line.silent")
            self._tell("reading", "")

    def _tell(self, state: State, reason: str) -> None:
        """The state of the port is this now; told when anything about it changed."""
        old = self.state
        since = old.since if old.state == state else self._hub.clock.now()
        self.state = msgspec.structs.replace(old, state=state, reason=reason, since=since)
        if old.state != state:
            log.info(
                "a TIC port changed its state", extra={"port": self.state.name, "state": state, "reason": reason, "serial": self.state.serial or ""}
            )
        if self.state != self._told:
            self._publish()

    def _publish(self) -> None:
        self._told = self.state
        self._hub.bus.publish(subjects.of("tic", "port", self.state.name), self.state)


class Manager:
    """All lines: those of the configuration, those of simulators (``more``), and every TIC modem that is plugged in, if ``discover`` says so.

    Answers ``tic.ports`` on the bus with the states of all.
    """

    name = "tic.lines"

    def __init__(
        self,
        section: Section,
        hub: Hub,
        *,
        more: tuple[str, ...] = (),
        ports: Ports = PORTS,
        look: Callable[[], list[PortInfo]] = serial.list_ports,
    ) -> None:
        self._section, self._hub, self._more, self._ports = section, hub, more, ports
        self._figures = Figures(hub.metrics)
        self._census = Census(Clock(), look)
        self._lines: dict[Line, asyncio.Task[None]] = {}
        self._leave: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        hub.metrics.gauge("gridloom_tic_line_quality_ratio", "Share of good groups of a TIC line lately.", ("port",), self._qualities)
        hub.metrics.gauge("gridloom_tic_lines", "TIC lines by state.", ("state",), self._states)
        self._reserve()

    @property
    def lines(self) -> list[Line]:
        """By name of their ports."""
        return sorted(self._lines, key=lambda line: line.state.name)

    async def start(self) -> Mapping[str, str]:
        """Begin to read. No port needs to be there."""
        self._reserve()
        self._leave = self._hub.bus.serve(subjects.of("tic", "ports"), self._answer)
        for configured in self._section.ports:
            self._add(str(configured))
        for port in self._more:
            self._add(port, simulated=True)
        self._task = asyncio.create_task(self._run(), name=self.name)
        return {}

    async def wait(self) -> None:
        """Raises what ended a line: an error of ours."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Close all ports."""
        if self._leave is not None:
            self._leave()
            self._leave = None
        tasks = [*self._lines.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._lines.clear()
        self._task = None
        self._ports.free(OWNER)

    def health(self) -> Health:
        """Well while every port is read; without a port there is nothing to be ill."""
        ill = [line.state for line in self.lines if line.state.state not in ("reading", "starting") and not _just_opened(line.state)]
        reasons = [state.reason or f"{state.name}: {state.state}" for state in ill]
        return Health(not reasons, "; ".join(reasons))

    # ---------------------------------------------------------------------------------------------------------- details

    def _reserve(self) -> None:
        try:
            for port in self._section.ports:
                self._ports.reserve(port, OWNER)
        except ConfigurationError as error:
            raise ConfigurationError(f"tic.ports: {error.message}") from None

    def _add(self, port: str, known: PortInfo | None = None, *, simulated: bool = False) -> None:
        first, silent_after = self._section.first_mode, float(self._section.silent_after)
        line = Line(
            port, self._hub, self._figures,
            ports=self._ports, census=self._census, first=first, silent_after=silent_after, known=known, simulated=simulated,
        )  # fmt: skip
        self._lines[line] = asyncio.create_task(line.run(), name=f"tic {line.state.name}")
        self._changed.set()

    async def _run(self) -> None:
        """Looks for modems, if told so; raises what ended a line, which is an error of ours."""
        search = asyncio.create_task(self._search(), name="tic discovery")
        try:
            while True:
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                done, _ = await asyncio.wait([search, changed, *self._lines.values()], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                for task in done - {changed}:
                    task.result()
        finally:
            search.cancel()
            await asyncio.wait([search])

    async def _search(self) -> None:
        real = Clock()
        while self._section.discover:
            self._discover()
            await real.sleep(LOOK)
        await asyncio.Event().wait()

    def _discover(self) -> None:
        for info in self._census.ports():
            if modems.modem_type(info.vendor_id, info.product_id) is None or self._ports.owner(info.path) is not None:
                continue
            if not any(_is(line, info) for line in self._lines):
                log.info("a TIC modem is plugged in", extra={"port": info.path, "usb": info.usb_path or ""})
                self._add(info.path, info)

    async def _answer(self, _: object) -> list[PortState]:
        return [line.state for line in self.lines]

    def _qualities(self) -> Mapping[tuple[str, ...], float]:
        return {(line.delivery.label,): line.delivery.quality for line in self._lines}

    def _states(self) -> Mapping[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for line in self._lines:
            counts[(line.state.state,)] = counts.get((line.state.state,), 0) + 1
        return counts


def _just_opened(state: PortState) -> bool:
    """Whether a search is under way that is none of an owner's business yet."""
    return state.state == "searching" and not state.reason


def _usb(info: PortInfo) -> UsbInfo | None:
    if info.vendor_id is None:
        return None
    return UsbInfo(
        vendor_id=info.vendor_id,
        product_id=info.product_id,
        product=info.product or None,
        manufacturer=info.manufacturer or None,
        serial=info.serial or None,
        modem_type=modems.modem_type(info.vendor_id, info.product_id),
    )


def _is(line: Line, info: PortInfo) -> bool:
    """Whether this modem is read by that line already, or was before it was unplugged."""
    known = line.known
    if os.path.realpath(line.port) == info.path or line.state.name == info.path:
        return True
    if known is None or known.vendor_id is None:
        return False
    same = (known.vendor_id, known.product_id, known.serial) == (info.vendor_id, info.product_id, info.serial)
    return same and (bool(known.serial) or known.usb_path == info.usb_path)
