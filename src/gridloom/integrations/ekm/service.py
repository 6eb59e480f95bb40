"""The buses of this process as a service of the hub: what meters say goes to the intake, orders come from the commands, troubles are events.

The same is used by the agent, whose hub is elsewhere: it has no documents and no bus, and is given neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from gridloom.core import subjects
from gridloom.core.alarms import Alarms
from gridloom.core.commands import LATER
from gridloom.core.documents import Space
from gridloom.core.errors import ConfigurationError, GridloomError, NotFound, Refused
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.model import Command, Device, Event, EventState
from gridloom.core.ports import Bus as MessageBus
from gridloom.core.registry import Link
from gridloom.integrations.ekm import codec, mapping
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.config import Section
from gridloom.integrations.ekm.discovery import Progress
from gridloom.integrations.ekm.errors import PasswordRefused, WrongMeter
from gridloom.integrations.ekm.gateway import Gateway
from gridloom.integrations.ekm.link import OWNER, Bus, Figures, Polled, State
from gridloom.integrations.ekm.mapping import Translation
from gridloom.links import serial
from gridloom.links.serial import PORTS, Ports

log = logging.getLogger(__name__)

EVENTS = 1_000
"""Events that may wait for the store; then the oldest go, and are counted."""
PROGRESS_EVERY = 50
"""Addresses between two tellings of how far a search has come."""
NOISY, QUIET = 80, 95
"""Per cent of good exchanges with a meter below which its line is told to be noisy, and above which it no longer is."""
UNHURRIED = 0.02
"""Seconds for which the event of a setting waits, so that the answer to the order goes first: each is a commit of its own, one after the other."""
_ALARMS: Mapping[str, str] = {"missing": "line.lost", "unplugged": "line.lost", "denied": "line.denied", "busy": "line.busy"}
_AFTER: Mapping[str, str] = {
    "device.clock.set": "device.clock.set",
    "ekm.password.set": "password.changed",
    "ekm.iostack.password.set": "password.changed",
    "ekm.max_demand.reset": "demand.reset",
    "ekm.resettable_energy.reset": "device.counter.reset",
    "ekm.digital_input.reset": "device.counter.reset",
    **{
        verb: "device.settings.changed"
        for verb in mapping.WRITES
        if verb.startswith("ekm.") and verb not in ("ekm.password.set", "ekm.max_demand.reset", "ekm.resettable_energy.reset")
    },
}
"""Order -> the event that tells that it was carried out. What a relay does the meter itself tells."""


class _Interval(msgspec.Struct, frozen=True):
    """What was ordered at run time, as it is kept."""

    seconds: float


class _Known:
    """A meter that has answered: its translation, its link, and the newest of what it said that is not stored yet."""

    def __init__(self, device: Device, translation: Translation, link: Link | None) -> None:
        self.device, self.translation, self.link = device, translation, link
        self.waiting: Read | None = None


class Buses:
    """A ``core.hub.Service``. ``memory``: where what is ordered at run time is kept; ``bus``: where the progress of a search is told."""

    name = "ekm.buses"

    def __init__(
        self,
        section: Section,
        hub: Hub,
        *,
        memory: Space | None = None,
        bus: MessageBus | None = None,
        ports: Ports = PORTS,
        simulated: Sequence[str] = (),
    ) -> None:
        self._section, self._hub, self._memory, self._bus, self._ports = section, hub, memory, bus, ports
        self._simulated = frozenset(simulated)
        self.gateway = Gateway(section, hub.clock, self, Figures(hub.metrics), zone=hub.timezone, ports=ports)
        self._dropped = hub.metrics.counter("gridloom_ekm_events_dropped_total", "Events of EKM meters and buses that could not be recorded.")
        self._refused = hub.metrics.counter("gridloom_ekm_reads_refused_total", "Readings of EKM meters not stored, by reason.", ("meter", "reason"))
        self._superseded = hub.metrics.counter("gridloom_ekm_reads_superseded_total", "Readings given up for newer ones.", ("meter",))
        hub.metrics.gauge("gridloom_ekm_reliability_ratio", "Share of good exchanges with a meter lately.", ("bus", "meter"), self._reliabilities)
        self._known: dict[str, _Known] = {}
        self._links: dict[str, Link] = {}
        self._raised: set[tuple[str, str, str]] = set()
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._news = asyncio.Event()
        self._searching: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._reserve()

    # ------------------------------------------------------------------------------------------------------------ service

    async def start(self) -> Mapping[str, str]:
        """Devices are registered, orders are taken, and the buses begin to be read. No port needs to be there."""
        self._reserve()
        await self._attach(mapping.gateway_device(self.gateway.mac), online=True)
        for bus, meter in self.gateway.meters:
            if meter.identity:
                await self._attach(self._device(bus, meter))
        for settings in self._section.bus:
            for unit in settings.meters:
                if unit.address in self.gateway.iostacks:
                    driver = self.gateway.iostacks[unit.address].words
                    await self._attach(mapping.iostack_device(unit.address, serial.shown(str(settings.port)), driver), online=True)
        if self._memory is not None and (kept := await self._memory.get("gateway", "poll")) is not None:
            self.gateway.set_interval(msgspec.json.decode(kept.body, type=_Interval).seconds)
        self._task = asyncio.create_task(self._run(), name=self.name)
        return {}

    async def wait(self) -> None:
        """Raises what ended it: an error of ours."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Close all ports; what was said is stored first."""
        tasks = [task for task in (self._searching, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._task = self._searching = None
        await self._settle()
        for link in self._links.values():
            link.detach("the hub no longer reads its bus")
        self._links.clear()
        self._known.clear()
        self._ports.free(OWNER)

    def health(self) -> Health:
        """Well while every bus is open and no meter is silent for too long."""
        ill = [bus.reason or f"{bus.name}: {bus.state}" for bus in self.gateway.buses if bus.meters and bus.state not in ("open", "starting")]
        ill += [f"meter {meter.identity or '*'} on {bus.name} does not answer" for bus, meter in self.gateway.meters if meter.silent]
        return Health(not ill, "; ".join(ill))

    # ----------------------------------------------------------------------------------------------- what the buses tell

    def port(self, bus: Bus, state: State, reason: str) -> None:
        """A port can be used, or not: an alarm about it, and its meters are offline."""
        if state == "open":
            self._happen([new_event("line.found", subjects.HUB, self._hub.clock, subject=bus.name)])
            self._raised -= {(subjects.HUB, kind, bus.name) for kind in _ALARMS.values()}
        elif state in _ALARMS:
            self._alarm(_ALARMS[state], subjects.HUB, bus.name, reason)
            for meter in bus.meters:
                self._offline(meter, reason)

    def read(self, bus: Bus, meter: Polled, read: Read) -> None:
        """A meter was read: the newest waits for the store, alone."""
        known = self._known.get(read.address)
        if known is None:
            known = self._known[read.address] = self._meet(bus, meter, read)
        elif known.waiting is not None:
            self._superseded.inc(meter=read.address)
        known.waiting = read
        self._over("address.conflict", known.device.id)
        if read.reliability > QUIET:
            self._over("line.noise", subjects.HUB, bus.name)
        elif read.reliability < NOISY:
            self._alarm("line.noise", subjects.HUB, bus.name, f"{read.reliability} % of the exchanges with {read.address} are good")
        self._news.set()

    def failed(self, bus: Bus, meter: Polled, error: GridloomError) -> None:
        """A meter could not be read; after a while it is offline."""
        log.debug("a meter could not be read", extra={"bus": bus.name, "meter": meter.identity, "reason": error.message})
        if isinstance(error, WrongMeter) and meter.identity:
            self._alarm("address.conflict", mapping.device_id(meter.identity), "", error.message)
        if meter.silent:
            if meter.identity and meter.identity not in self._known:  # it was never there, so the registry does not see it go
                self._alarm("device.offline", mapping.device_id(meter.identity), "", error.message)
            self._offline(meter, error.message)

    def _meet(self, bus: Bus, meter: Polled, read: Read) -> _Known:
        device = self._device(bus, meter, read)
        translation = Translation(read.address, meter.model, self.gateway.zone_of(bus), simulated=bus.settings.port in self._simulated)
        return _Known(device, translation, None)

    def _offline(self, meter: Polled, reason: str) -> None:
        link = self._links.get(mapping.device_id(meter.identity)) if meter.identity else None
        if link is not None:
            link.offline(reason)
            if (known := self._known.get(meter.identity)) is not None:
                known.translation.forget_states()

    def _device(self, bus: Bus, meter: Polled, read: Read | None = None) -> Device:
        zone = self.gateway.zone_of(bus).key
        return mapping.meter_device(meter.identity, meter.model, bus.name, zone, None if read is None else read.frames[0])

    # ---------------------------------------------------------------------------------------------------------- the store

    async def _run(self) -> None:
        reading = asyncio.create_task(self.gateway.run(), name="ekm gateway")
        storing = asyncio.create_task(self._store(), name="ekm store")
        try:
            await asyncio.wait([reading, storing], return_when=asyncio.FIRST_COMPLETED)
            for task in (reading, storing):
                if task.done():
                    task.result()
        finally:
            reading.cancel()
            storing.cancel()
            await asyncio.gather(reading, storing, return_exceptions=True)

    async def _store(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self._settle()

    async def _settle(self) -> None:
        """Store what waits."""
        for address, known in list(self._known.items()):
            read, known.waiting = known.waiting, None
            if read is None:
                continue
            try:
                await self._store_one(known, read)
            except GridloomError as error:
                if isinstance(error, NotFound):
                    self._known.pop(address, None)  # somebody removed it: it is registered anew, for it is there
                    self._links.pop(known.device.id, None)
                self._refused.inc(meter=address, reason=error.code)
                log.debug("a reading was not stored", extra={"meter": address, "reason": error.message})
        events = list(self._events)
        self._events.clear()
        if events:
            try:
                await self._hub.intake.events(events)
            except GridloomError as error:
                self._dropped.inc(len(events))
                log.error("events of EKM buses could not be recorded", extra={"kinds": [event.kind for event in events], "reason": error.message})

    async def _store_one(self, known: _Known, read: Read) -> None:
        link, firmware = known.link, codec.firmware(read.frames[0])
        if link is None or not link.current or known.device.firmware != firmware:
            known.device = msgspec.structs.replace(known.device, firmware=firmware)
            link = known.link = await self._attach(known.device)
        reading, events = known.translation.read(read)
        if not self._hub.registry.online(known.device.id):
            link.online()
        self._events += events
        await self._hub.intake.readings([reading])

    async def _attach(self, device: Device, *, online: bool = False) -> Link:
        registry = self._hub.registry
        await registry.register(device)
        link = self._links.get(device.id)
        if link is None or not link.current:
            link = self._links[device.id] = registry.attach(device.id, self._executor(device))
        if online:
            link.online()
        return link

    # --------------------------------------------------------------------------------------------------------- the orders

    def _executor(self, device: Device) -> Callable[[Command], Awaitable[Any]]:
        async def execute(command: Command) -> Any:
            return await self._execute(device, command)

        return execute

    async def _execute(self, device: Device, command: Command) -> Any:
        arguments = self._hub.commands.arguments(command)
        if command.verb == "ekm.meters.scan":
            return await self._search(command, arguments)
        try:
            result = await self.gateway.execute(device.identity, command.verb, arguments)
        except PasswordRefused as error:
            self._happen([new_event("password.refused", device.id, self._hub.clock, message=error.message, data={"command": command.id})])
            raise
        if command.verb == "ekm.poll_interval.set" and self._memory is not None:
            body = msgspec.json.encode(_Interval(arguments.interval_s))
            await self._memory.commit([self._memory.put("gateway", "poll", body)])
        kind = _AFTER.get(command.verb)
        if kind is not None:
            self._keep([new_event(kind, device.id, self._hub.clock, data={"command": command.id, "verb": command.verb})])
            asyncio.get_running_loop().call_later(UNHURRIED, self._news.set)
        return result

    async def _search(self, command: Command, arguments: Any) -> Any:
        """Takes hours, perhaps: other orders go on meanwhile."""
        if self._searching is not None and not self._searching.done():
            raise Refused("a search goes on already; stop it first")
        self.gateway.can_search()

        async def search() -> None:
            result, failure = None, None
            try:
                result = await self.gateway.search(arguments.first, arguments.last, self._progress(command.id))
            except GridloomError as error:
                failure = error
            await self._hub.commands.finish(command.id, result, failure)

        self._searching = asyncio.create_task(search(), name="ekm search")
        return LATER

    def _progress(self, command: str) -> Callable[[Progress], None]:
        """How far it has come is told on the message bus; a meter that was found, as an event."""
        found: set[str] = set()

        def told(progress: Progress) -> None:
            for one in progress.found:
                if one.address not in found:
                    found.add(one.address)
                    message = f"meter {one.address} ({one.model or 'of an unknown model'}) on {progress.bus}"
                    data = msgspec.to_builtins(one) | {"bus": progress.bus, "command": command}
                    self._happen([new_event("device.found", subjects.HUB, self._hub.clock, subject=one.address, message=message, data=data)])
            if self._bus is not None and (progress.asked % PROGRESS_EVERY == 0 or progress.asked == progress.total):
                self._bus.publish(subjects.of("ekm", "search", command), progress)

        return told

    # --------------------------------------------------------------------------------------------------------- the events

    def _happen(self, events: Sequence[Event]) -> None:
        self._keep(events)
        self._news.set()

    def _keep(self, events: Sequence[Event]) -> None:
        self._dropped.inc(max(0, len(self._events) + len(events) - EVENTS))
        self._events += events

    def _alarm(self, kind: str, device: str, subject: str, message: str) -> None:
        if (device, kind, subject) not in self._raised:
            self._raised.add((device, kind, subject))
            self._happen([new_event(kind, device, self._hub.clock, subject=subject, message=message)])
            log.warning(
                "an RS-485 bus or a meter on it is in trouble", extra={"alarm": kind, "device": device, "subject": subject, "reason": message}
            )

    def _over(self, kind: str, device: str, subject: str = "") -> None:
        alarms: Alarms | None = self._hub.alarms  # an agent has none
        raised_before = alarms is not None and alarms.raised(device, kind, subject) is not None
        if raised_before or (device, kind, subject) in self._raised:
            self._raised.discard((device, kind, subject))
            self._happen([new_event(kind, device, self._hub.clock, subject=subject, state=EventState.CLEARED)])

    def _reserve(self) -> None:
        try:
            for settings in self._section.bus:
                self._ports.reserve(settings.port, OWNER)
        except ConfigurationError as error:
            raise ConfigurationError(f"ekm.bus: {error.message}") from None

    def _reliabilities(self) -> Mapping[tuple[str, ...], float]:
        return {(bus.name, meter.identity): meter.reliability / 100 for bus, meter in self.gateway.meters if meter.identity}
