"""One connection of a station: what it asks is answered here, and what is ordered of it goes out here (guide chapter 4, annex A3 to A6).

A station that was accepted once needs not boot again (B18, B19). One that never was is answered SecurityError, nothing of it is kept, and it is asked
for its BootNotification (B20). What it tells is answered when the store has it: events on disk (N22), readings with their group. An answer of
InternalError means that it was not kept, and should be told again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from gridloom.codecs import ocppj
from gridloom.codecs.ocppj import ErrorCode
from gridloom.core.clock import to_datetime
from gridloom.core.errors import GridloomError, NotFound, Offline, Refused, StorageError, Unanswered
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.locks import KeyedLock
from gridloom.core.model import Admission, Command, EventState, MeterReading
from gridloom.core.registry import Link
from gridloom.core.settings import masked
from gridloom.integrations.os3p import lights, mapping, orders, statuses
from gridloom.integrations.os3p import messages as wire
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.door import Visitor
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.lights import Lights
from gridloom.integrations.os3p.nights import VERBS, Nights
from gridloom.integrations.os3p.reading import read, write
from gridloom.integrations.os3p.reports import Reports
from gridloom.integrations.os3p.stations import LIGHTS, MOST_REPLACED, Boot, ConnectionView, Station, Stations
from gridloom.links.calls import CallRefused, Calls
from gridloom.links.websocket import INVALID_TEXT, OK, POLICY, TOO_BIG, Connection

log = logging.getLogger(__name__)

REFUSED = "device.data.refused"
CONFLICT = "address.conflict"
PEACE = 600.0
"""Seconds that a connection lasts after a fight of two for one identity, until the fight counts as over."""
BROKEN_FRAME = "websocket-frame"
"""What no fault of the grammar is: the station broke RFC 6455."""
_BROKEN: Final = {INVALID_TEXT: ocppj.Fault.NOT_UTF8, TOO_BIG: ocppj.Fault.TOO_BIG}
"""Faults that the listener sees before the grammar does, by close code."""
_BOOT: Final = "BootNotification"
_UNPACED: Final = frozenset({"Heartbeat", "MeterValues"})
"""Not stored event by event."""
_NOTHING = b"{}"
_ASK_TO_BOOT = write(wire.TriggerMessage(requestedMessage=_BOOT))
_encode = msgspec.json.Encoder().encode
_lights = msgspec.json.Decoder(Lights)


class Office:
    """What all conversations share."""

    def __init__(self, section: Section, hub: Hub, stations: Stations, reports: Reports, files: Files, nights: Nights) -> None:
        self.section = section
        self.hub = hub
        self.stations = stations
        self.reports = reports
        self.files = files
        self.nights = nights
        self.locks = KeyedLock()
        self.calls = hub.metrics.counter("gridloom_os3p_calls_total", "CALLs of stations by action and how they were answered.", ("action", "answer"))
        self.answered = {action: self.calls.bind(action=action, answer="ok") for action in _ANSWERS}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do it beside everything else."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        """Nothing goes on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Conversation:
    """From the handshake to the end of the connection; ``run`` it."""

    __slots__ = ("_admission", "_asked", "_booting", "_calls", "_connection", "_contested", "_link", "_office", "_secure", "_since", "_station")

    def __init__(self, office: Office, station: Station, connection: Connection, visitor: Visitor) -> None:
        self._office = office
        self._station = station
        self._connection = connection
        self._secure = visitor.secure
        self._since = office.hub.clock.now()
        self._admission = office.stations.admission(station.identity)
        self._asked = False
        self._booting = False
        self._contested = office.hub.alarms.raised(station.device, CONFLICT) is not None
        self._link: Link | None = None
        self._calls = Calls(
            connection,
            ocppj.Connection(max_message=office.section.max_message),
            clock=office.hub.clock,
            answer=self.answer,
            device=station.device,
            timeout=office.section.call_timeout,
            on_fault=self._deviates,
        )

    async def run(self) -> None:
        """Returns when the connection has ended."""
        station, office = self._station, self._office
        if isinstance(station.connection, Conversation):
            station.connection.replaced()
            self._replaces(station.replaced(office.hub.clock.monotonic()))
        station.connection = self
        grace = None if self._accepted else office.begin(self._boot_grace(), "os3p boot grace")
        peace = office.begin(self._peace(), "os3p peace") if self._contested else None
        try:
            self._attach()
            if self._accepted:
                self._go_online()  # it needs not boot again (B18, B19)
            await self._calls.run()
        finally:
            for waiting in (grace, peace):
                if waiting is not None:
                    waiting.cancel()
            if self._connection.broke_a_rule:
                self._deviates(_BROKEN.get(self._connection.close_code or 0, BROKEN_FRAME))
            if station.connection is self:
                station.connection = None
                office.stations.forget(station)
            if self._link is not None:
                self._link.detach(self._reason())

    # ------------------------------------------------------------------------------------------------ what others ask of it

    def view(self) -> ConnectionView:
        """For operators."""
        return ConnectionView(self._since, self._connection.address, self._connection.subprotocol or "", self._secure)

    def admission_changed(self, admission: Admission | None) -> None:
        """An operator has decided: a station that waits is asked to boot again at once (A4.1), one that was rejected has to go (B5).

        None: its device was removed, and its link with it.
        """
        if admission is self._admission:
            return
        self._admission = admission
        if admission is None:
            self._removed()
        elif admission is Admission.REJECTED:
            self._connection.close(OK, "rejected")
        elif not self._booting:
            if self._accepted:
                self._go_online()
            else:
                self._ask_again_to_boot()

    def replaced(self) -> None:
        """A newer connection of the identity is here (C16)."""
        self._connection.close(POLICY, "a newer connection of this identity is here")

    def credential_changed(self) -> None:
        """It came without the secret that is asked of it now."""
        self._connection.close(POLICY, "the secret of this station has changed")

    def _removed(self) -> None:
        self._connection.close(POLICY, "this station was removed")

    def _let_go(self) -> None:
        """The link is another's, perhaps on another node of the hub, or the device is just being removed: a moment later one knows which."""
        if self._office.stations.admission(self._station.identity) is None:
            self._removed()
        else:
            self.replaced()

    async def execute(self, command: Command) -> Any:
        """Carry out an order (``core.registry.Executor``)."""
        if command.verb not in VERBS:
            result = await orders.execute(
                command, self._calls.call, orders.Known(url=await self._office.files.location(command, self._station.identity))
            )
            if command.verb in ("light.override", "light.resume"):
                await self._office.nights.taken_over(self._station, command.arguments.get("contactor"))
            return result
        async with self._office.nights.visit(self._station, self._calls.call) as visit:
            known = orders.NOTHING
            if command.verb == "light.schedule.set":
                overridden = (await self._lights()).overridden() - visit.schedules.suspended
                known = orders.Known(overridden=overridden, max_stack_level=self._station.record.max_stack_level)
            result = await orders.execute(command, visit.call, known, verify=visit.verify)
            return visit.answered(command, result) if command.verb == "light.schedule.get" else result

    def caller(self) -> orders.Call | None:
        """What sends a CALL to it; None while it is not accepted."""
        return self._calls.call if self._accepted and self._connection.open else None

    # ----------------------------------------------------------------------------------------------------------- it asks

    async def answer(self, action: str, payload: bytes) -> bytes:
        """The answer to a CALL. Raises CallRefused."""
        hub, station = self._office.hub, self._station
        hub.registry.seen(station.device, hub.clock.now())
        try:
            answered = await self._answer(action, payload)
        except CallRefused as refusal:
            self._refused(action, refusal)
            raise
        self._office.answered[action].inc()
        return answered

    async def _answer(self, action: str, payload: bytes) -> bytes:
        if not self._accepted and action != _BOOT:
            await self._not_accepted(action)
        office = self._office
        stations = office.stations
        if action not in _UNPACED:
            await self._in_turn()
        message, deviations = read(action, payload, "client", strict=stations.strict(self._station), zone=stations.zone(self._station))
        if deviations:
            office.stations.deviated(self._station, {deviation.kind for deviation in deviations})
        try:
            return await _ANSWERS[action](self, message)
        except StorageError as error:
            raise CallRefused(ErrorCode.INTERNAL_ERROR, "not kept: tell it again later") from error
        except (NotFound, Refused) as error:  # rejected or removed while we looked
            raise CallRefused(ErrorCode.SECURITY_ERROR, error.message) from error

    def _refused(self, action: str, refusal: CallRefused) -> None:
        """Count it, and tell operators of the first of a while."""
        station, office = self._station, self._office
        station.refused += 1
        office.calls.inc(action=action if action in wire.ACTIONS else "unknown", answer=refusal.error_code)
        if self._admission is not None:
            data = {"action": action[:60], "code": refusal.error_code}
            message = masked(f"{action[:60]}: {refusal}")
            office.reports.tell(new_event("device.message.refused", station.device, office.hub.clock, message=message, data=data), station.identity)

    def _deviates(self, fault: str) -> None:
        """The grammar told of something wrong with a message."""
        self._office.stations.deviated(self._station, (fault,))

    async def _boot(self, message: wire.BootNotification) -> bytes:
        self._booting = True  # what its own registration changes is no reason to ask for one
        try:
            told = await self._office.stations.boot(self._station, msgspec.convert(message, Boot, from_attributes=True))
        finally:
            self._booting = False
        self._admission = self._office.stations.admission(self._station.identity)
        self._attach()
        if told.status != "Rejected":
            asyncio.get_running_loop().call_soon(self._go_online)  # after the answer: no order may overtake it
        if told.status == "Accepted":
            self._office.nights.learn(self._station)
        if told.status == "Pending" and self._admission is Admission.KNOWN:  # an operator decided meanwhile
            self._ask_again_to_boot()
        if told.status == "Rejected":
            # After the answer, which the close frame cannot overtake (I19).
            asyncio.get_running_loop().call_soon(self._connection.close, OK, "rejected")
        return write(wire.BootNotificationResponse(status=told.status, currentTime=self._time(), interval=told.interval))

    async def _heartbeat(self, message: wire.Heartbeat) -> bytes:
        return _encode(wire.HeartbeatResponse(currentTime=self._time()))  # nothing in it could be wrong, and there are many

    async def _meter_values(self, message: wire.MeterValues) -> bytes:
        hub, station = self._office.hub, self._station
        readings = self._office.stations.bounded(station, mapping.readings(message, station.device, hub.clock.now()))
        await hub.intake.readings(readings)
        await self._office.stations.measured(station, readings)
        return _NOTHING

    async def _status(self, message: wire.StatusNotification) -> bytes:
        hub, station = self._office.hub, self._station
        device = station.device
        # One after the other: what an event ends depends on what was raised before it, also by a connection that is just going.
        async with self._office.locks.hold((device,)):
            raised = [(alarm.kind, alarm.subject) for alarm in hub.alarms.raised_of(device)]
            events = statuses.status(message, device, hub.clock.now(), raised, station.errors)
            await hub.intake.events(events)
            station.errors |= {event.subject for event in events if event.kind == statuses.VENDORS}
        return _NOTHING

    async def _light(self, message: wire.StreetlightStatusNotification | wire.StreetlightModeStatusNotification) -> bytes:
        """N21, N22: the event and the live state in one commit, on disk before the answer."""
        hub, station = self._office.hub, self._station
        change = statuses.light(message, station.device, hub.clock.now())
        event = change.event
        async with self._office.locks.hold((station.device,)):
            new = lights.updated(await self._lights(), change.contactor, change.field, change.value, event.time, event.received)
            writes = []
            if new is not None:
                put = hub.documents.put(LIGHTS, station.identity, msgspec.json.encode(new))
                writes.append(msgspec.structs.replace(put, only_if_new=("event", event.id)))
            await hub.intake.events([event], writes)
        await self._chart(statuses.light_reading(change))
        return _NOTHING

    async def _lights(self) -> Lights:
        """The live state of the station's lights."""
        found = await self._office.hub.documents.get(LIGHTS, self._station.identity)
        return Lights() if found is None else _lights.decode(found.body)

    async def _chart(self, reading: MeterReading | None) -> None:
        """For charts; that it could not be kept is no reason to have the event told again."""
        if reading is None:
            return
        try:
            await self._office.hub.intake.readings([reading])
            await self._office.stations.measured(self._station, [reading])
        except GridloomError as error:
            log.warning("a switch of street lights is not in the charts", extra={"device": self._station.device, "reason": error.message})

    async def _progress(self, message: wire.FirmwareStatusNotification | wire.GetFileStatusNotification) -> bytes:
        """Of a transfer whose order has ended with its answer: events, which carry the order's requestId (N1, N2)."""
        hub = self._office.hub
        event = statuses.progress(message, self._station.device, hub.clock.now()).event
        if event is not None:
            await hub.intake.event(event)
        return _NOTHING

    # ------------------------------------------------------------------------------------------------------------- details

    @property
    def _accepted(self) -> bool:
        """Whether its data is taken: it was told so, and nobody has changed his mind."""
        return self._admission is Admission.KNOWN and self._station.record.status == "Accepted"

    async def _not_accepted(self, action: str) -> None:
        """B20. Raises CallRefused."""
        hub, device = self._office.hub, self._station.device
        self._ask_to_boot()
        if self._admission is not None and hub.alarms.raised(device, REFUSED) is None:
            await hub.intake.event(new_event(REFUSED, device, hub.clock, message=f"{action} before it was accepted"))
        raise CallRefused(ErrorCode.SECURITY_ERROR, "BootNotification first: this station was not accepted yet, and nothing of it is kept")

    def _attach(self) -> None:
        """Hold the device's link, once there is a device. Nothing is ordered over it before it is online."""
        if self._link is None and self._admission in (Admission.KNOWN, Admission.PENDING):
            self._link = self._office.hub.registry.attach(self._station.device, self.execute, replaced=self._lost_link)
            if not self._accepted:
                self._link.offline("it is connected, but has not been accepted yet")

    def _lost_link(self) -> None:
        asyncio.get_running_loop().call_soon(self._let_go)

    def _go_online(self) -> None:
        if self._link is not None and self._admission in (Admission.KNOWN, Admission.PENDING):
            self._link.online()

    def _replaces(self, times: int) -> None:
        """It has taken the place of an older connection, so many times of late."""
        office, station = self._office, self._station
        office.reports.tell(new_event("device.connection.replaced", station.device, office.hub.clock), station.identity)
        if times >= MOST_REPLACED and self._admission is Admission.KNOWN:
            self._contested = True
            message = f"{times} connections within a minute, each in the place of the one before: two stations may have this identity"
            office.reports.tell(new_event(CONFLICT, station.device, office.hub.clock, message=message), station.identity)

    async def _peace(self) -> None:
        """A connection that lasts ends the fight."""
        hub, device = self._office.hub, self._station.device
        await hub.clock.sleep(PEACE)
        try:
            await hub.intake.event(new_event(CONFLICT, device, hub.clock, state=EventState.CLEARED, message="One connection has lasted."))
        except GridloomError as error:  # the next connection that lasts ends it
            log.warning("the end of a conflict could not be recorded", extra={"device": device, "reason": error.message})

    async def _in_turn(self) -> None:
        """A station that tells more than it may waits; nothing else of it is read meanwhile."""
        clock = self._office.hub.clock
        seconds = self._station.pace(clock.monotonic())
        if seconds:
            self._deviates("too-many-events")
            await clock.sleep(seconds)

    def _ask_to_boot(self) -> None:
        if not self._asked and self._connection.open:
            self._asked = True
            self._office.begin(self._trigger_boot(), "os3p trigger")

    def _ask_again_to_boot(self) -> None:
        """Something has changed since it was asked."""
        self._asked = False
        self._ask_to_boot()

    async def _boot_grace(self) -> None:
        """Most stations that were never accepted boot by themselves; one that thinks it was is asked to (B19)."""
        await self._office.hub.clock.sleep(self._office.section.boot_grace)
        if self._station.connection is self and not self._accepted and self._station.record.booted < self._since:
            self._ask_to_boot()

    async def _trigger_boot(self) -> None:
        try:
            await self._calls.call("TriggerMessage", _ASK_TO_BOOT)
        except GridloomError as error:  # it may not know how, or be gone: it boots again by itself
            level = logging.DEBUG if isinstance(error, Offline | Unanswered) else logging.INFO  # many may go at once
            extra = {"device": self._station.device, "reason": error.message}
            log.log(level, "a station was asked to boot and did not say that it will", extra=extra)

    def _reason(self) -> str:
        code, reason = self._connection.close_code, self._connection.close_reason
        return f"the connection was closed: {code}{f' {reason}' if reason else ''}"

    def _time(self) -> str:
        """Now, in UTC, to the millisecond."""
        return to_datetime(self._office.hub.clock.now()).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_ANSWERS: Mapping[str, Callable[[Conversation, Any], Awaitable[bytes]]] = {
    "BootNotification": Conversation._boot,
    "Heartbeat": Conversation._heartbeat,
    "MeterValues": Conversation._meter_values,
    "StatusNotification": Conversation._status,
    "StreetlightStatusNotification": Conversation._light,
    "StreetlightModeStatusNotification": Conversation._light,
    "FirmwareStatusNotification": Conversation._progress,
    "GetFileStatusNotification": Conversation._progress,
}
