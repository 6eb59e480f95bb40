"""What is known of each station beside its device: how it is registered, how strictly it is treated, where it deviated from the document.

Whether a station is let in is its device's ``admission`` and nothing else: an operator accepts or rejects the device. What the station *was told* is
kept here, as a document, because a station that reconnects does not boot again (CONFORMANCE B18 to B20). Other rooms (api, cli) ask on the bus:
``LIST``, ``SHOW``, ``CHANGE``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core import audit, subjects
from gridloom.core.errors import NotFound, StorageError
from gridloom.core.events import new_event
from gridloom.core.hub import Hub
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.model import Admission, Device, DeviceKind, Event, EventState, MeterReading, Principal, ReadingType
from gridloom.core.ports import Put
from gridloom.core.settings import Zone
from gridloom.core.subjects import DeviceState
from gridloom.integrations.os3p import schedule
from gridloom.integrations.os3p.accepted import Schedules
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.lights import Lights
from gridloom.integrations.os3p.orders import Call

log = logging.getLogger(__name__)

SPACE = "os3p"
KIND, LIGHTS, SCHEDULES = "station", "lights", "schedules"
"""The kinds of our documents; their ids are identities."""
MOST_KINDS = 100
"""Kinds of deviation counted for one station, and measurands known of it; more kinds are counted as ``other``."""
MOST_SERIES = 400
"""Series of one station, by measurand, unit, phase and location: about twice those of the document. Values of more are left out."""
EVENTS_AT_ONCE, EVENTS_PER_SECOND = 1_000, 10.0
"""What one station may tell of what is stored event by event; it waits for its answers when it tells more."""
MOST_REPLACED, REPLACED_WITHIN = 10, 60.0
"""So many connections of one identity may take the place of an older one within so many seconds; then the newer one is told to come later."""
LONGEST_IDENTITY = 200
"""Characters."""
OTHER = "other"
GEOLOCATION = "geolocation"
"""The attribute of a device that says where it stands (``[52.09, 5.12]``), if the station does not say so itself."""
KEYS: Mapping[str, str] = MappingProxyType(
    {"Geolocation": "geolocation", "TimeZone": "timezone", "StreetlightProfileMaxStackLevel": "max_stack_level"}
)
"""The keys of a station's configuration that its schedules depend on, and the fields of its record for them."""

LIST = subjects.of(SPACE, "stations")
"""Asked with None: a ``StationView`` of every station, ordered by identity, without ``lights``; with a list of identities: of those there are."""
SHOW = subjects.of(SPACE, "station")
"""Asked with an identity: its ``StationView``, or None when there is no such station."""
CHANGE = subjects.of(SPACE, "change")
"""Asked with a ``Change``: the ``StationView`` afterwards, or None. Who asks has made sure that the principal may (``device.manage``)."""
CREDENTIAL = subjects.of(SPACE, "credential")
"""Told with an identity: its secret has changed, so that whoever is connected as this station has to come again with the new one."""

Status = Literal["Accepted", "Pending", "Rejected"]
"""What a station is told (A6.1)."""
_TOLD: dict[Admission, Status] = {Admission.KNOWN: "Accepted", Admission.PENDING: "Pending", Admission.REJECTED: "Rejected"}


class Boot(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of a BootNotification as they came (A6.1), however long; empty where nothing came (I17)."""

    vendor: str = ""
    model: str = ""
    stationNumber: str = ""
    serialNumber: str = ""
    firmwareVersion: str = ""
    iccid: str = ""
    imsi: str = ""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document of a station. Times in µs: ``accepted`` for the first time, ``booted`` the last time.

    ``status``: what it was last told; None: it has not sent a BootNotification yet.
    ``strict``: None is the section's. ``heartbeat_interval`` in s, told instead of the section's.
    ``geolocation``, ``timezone`` and ``max_stack_level``: as the station told them, empty where it told none that can be used; ``learnt``: when it
    was asked the last time.
    """

    status: Status | None = None
    accepted: int = 0
    booted: int = 0
    boots: int = 0
    boot: Boot = Boot()
    strict: bool | None = None
    heartbeat_interval: int | None = None
    geolocation: str = ""
    timezone: str = ""
    max_stack_level: int | None = None
    learnt: int = 0


class ConnectionView(msgspec.Struct, frozen=True):
    """The connection of a station: ``since`` in µs, the peer's address, and how it came."""

    since: int
    address: str
    subprotocol: str
    secure: bool


class StationView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A station as an operator sees it.

    ``strict``: what is in force. ``deviations``: how often since the hub started, by kind; ``refused``: its CALLs since then that were answered with
    a CALLERROR. ``connection``: None when it is not connected. ``lights``: the live state by contactor. ``schedules``: what it has accepted, and how
    its own answers compare. ``timezone`` and ``geolocation``: what our calculation goes by, wherever it is from; empty: nobody knows.
    """

    identity: str
    device: str
    admission: Admission
    strict: bool
    record: Record
    deviations: dict[str, int] = {}
    refused: int = 0
    connection: ConnectionView | None = None
    lights: Lights | None = None
    schedules: Schedules | None = None
    timezone: str = ""
    geolocation: str = ""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator sets for one station; what is left out stays, None is the section's again. ``principal`` is for the audit trail."""

    identity: str
    principal: Principal
    strict: bool | msgspec.UnsetType | None = msgspec.UNSET
    heartbeat_interval: Annotated[int, msgspec.Meta(ge=1, le=2_147_483_647)] | msgspec.UnsetType | None = msgspec.UNSET


class Connected(Protocol):
    """What a station's connection is asked."""

    def view(self) -> ConnectionView:
        """For operators."""
        ...

    def admission_changed(self, admission: Admission | None) -> None:
        """An operator has decided; None: the device was removed."""
        ...

    def credential_changed(self) -> None:
        """It has to come again, with its new secret."""
        ...

    def caller(self) -> Call | None:
        """What sends a CALL to it; None while it may not be asked."""
        ...


class Station:
    """What memory holds of one station: less than a kilobyte."""

    __slots__ = (
        "_paced", "_replaced", "_replaced_until", "connection", "deviations", "device", "errors", "identity", "measurands", "record", "refused",
        "series",
    )  # fmt: skip

    def __init__(self, identity: str, record: Record) -> None:
        self.identity = identity
        self.device = device_id(identity)
        self.record = record
        self.connection: Connected | None = None
        self.deviations: dict[str, int] | None = None
        self.refused = 0
        self.measurands: frozenset[str] = frozenset()
        self.series: frozenset[ReadingType] = frozenset()
        self.errors: frozenset[str] = frozenset()
        """Subjects of the vendor's errors that it told."""
        self._paced = 0.0
        self._replaced = 0
        self._replaced_until = 0.0

    def pace(self, now: float) -> float:
        """Seconds to wait before one more event of it is stored; ``now`` by the monotonic clock."""
        self._paced = max(self._paced, now - EVENTS_AT_ONCE / EVENTS_PER_SECOND) + 1 / EVENTS_PER_SECOND
        return max(0.0, self._paced - now)

    def replaced(self, now: float) -> int:
        """A newer connection takes the place of its older one: the how manieth within a minute."""
        if now >= self._replaced_until:
            self._replaced, self._replaced_until = 0, now + REPLACED_WITHIN
        self._replaced += 1
        return self._replaced

    def contested(self, now: float) -> float:
        """Seconds for which no newer connection may take the place of the one that it has."""
        if self.connection is None or self._replaced < MOST_REPLACED:
            return 0.0
        return max(0.0, self._replaced_until - now)


class Told(msgspec.Struct, frozen=True):
    """What a station that boots is told; ``interval`` in s (I18: to the next heartbeat, BootNotification or connection)."""

    status: Status
    interval: int


def identity_fault(identity: str) -> str | None:
    """Why no station can have this identity, None when one can."""
    if 1 <= len(identity) <= LONGEST_IDENTITY and identity.isprintable():
        return None
    return f"an identity has 1 to {LONGEST_IDENTITY} printable characters"


def device_id(identity: str) -> str:
    """Of the device that a station is."""
    return f"{SPACE}:{identity}"


_records = msgspec.json.Decoder(Record)
_lights = msgspec.json.Decoder(Lights)
_schedules = msgspec.json.Decoder(Schedules)


class Stations:
    """All stations of the hub. ``verbs``: what can be ordered from a station."""

    def __init__(self, section: Section, hub: Hub, verbs: tuple[str, ...]) -> None:
        self._section = section
        self._hub = hub
        self._verbs = verbs
        self._stations: dict[str, Station] = {}
        self._pending: set[str] = set()
        self._locks = KeyedLock()
        self._forgetting: set[asyncio.Task[None]] = set()
        self._leave: list[Callable[[], None]] = []
        self._counter = hub.metrics.counter(
            "gridloom_os3p_deviations_total", "Messages of stations that deviate from the document, by kind of deviation.", ("kind",)
        )

    async def start(self) -> None:
        """Read the documents, and answer other rooms."""
        for found in await self._hub.documents.find(KIND):
            self._stations[found.id] = Station(found.id, _records.decode(found.body))
        for device in self._hub.registry.devices():
            if device.integration == SPACE:
                self._see(device)
        bus = self._hub.bus
        self._leave = [
            bus.listen(subjects.ALL_DEVICES, self._heard),
            bus.serve(LIST, self._list),
            bus.serve(SHOW, self._show),
            bus.serve(CHANGE, self._change),
            bus.listen(CREDENTIAL, self._credential_changed),
        ]

    async def stop(self) -> None:
        """Answer and listen no longer."""
        for leave in self._leave:
            leave()
        self._leave = []
        await asyncio.gather(*self._forgetting, return_exceptions=True)
        self._stations.clear()
        self._pending.clear()

    # ------------------------------------------------------------------------------------------------------------- who is

    def find(self, identity: str) -> Station | None:
        """A station whose device the hub has, or None."""
        return self._of(identity) if self.admission(identity) is not None else None

    def admission(self, identity: str) -> Admission | None:
        """Whether the hub deals with the station; None when it has no such device."""
        device = self._device(identity)
        return None if device is None else device.admission

    def newcomer(self, identity: str) -> Station | None:
        """A station that the hub does not know and that may register; None when it may not. ``forget`` it when it leaves."""
        return None if self._section.accept == "known" or self.full else self._of(identity)

    @property
    def full(self) -> bool:
        """Whether as many stations wait for an operator as may, and all of them are here."""
        return self._crowded and self._longest_gone() is None

    @property
    def _crowded(self) -> bool:
        return self._section.accept == "approve" and len(self._pending) >= self._section.max_pending

    def forget(self, station: Station) -> None:
        """A newcomer has gone without having registered."""
        if self._device(station.identity) is None and station.connection is None:
            self._stations.pop(station.identity, None)

    def strict(self, station: Station) -> bool:
        """Whether its deviations are refused."""
        return self._section.strict if station.record.strict is None else station.record.strict

    def contested(self, identity: str) -> float:
        """Seconds after which one more connection may take the place of the one that it has; 0 when it may at once."""
        station = self._stations.get(identity)
        return 0.0 if station is None else station.contested(self._hub.clock.monotonic())

    def bounded(self, station: Station, readings: list[MeterReading]) -> list[MeterReading]:
        """The readings, without the values of more series than one station may have; that some were left out is counted as a deviation."""
        told = {one.type for reading in readings for one in reading.readings}
        if told <= station.series:
            return readings
        known, new = station.series, told - station.series
        room = MOST_SERIES - len(known)
        station.series = _same(known | new if len(new) <= room else known.union(sorted(new, key=repr)[:room]))
        if len(new) <= room:
            return readings
        self.deviated(station, ("too-many-series",))
        kept = [
            msgspec.structs.replace(reading, readings=tuple(one for one in reading.readings if one.type in station.series)) for reading in readings
        ]
        return [reading for reading in kept if reading.readings]

    def deviated(self, station: Station, kinds: Iterable[str]) -> None:
        """Count deviations."""
        counts = station.deviations
        if counts is None:
            counts = station.deviations = {}
        for kind in kinds:
            self._counter.inc(kind=kind)
            known = kind if kind in counts or len(counts) < MOST_KINDS else OTHER
            counts[known] = counts.get(known, 0) + 1

    # ------------------------------------------------------------------------------------------------------- where it stands

    def zone(self, station: Station) -> ZoneInfo:
        """Of its clock on the wall: what it told, else the section's, else the hub's."""
        return ZoneInfo(station.record.timezone or self._section.timezone or self._hub.timezone)

    def where(self, station: Station) -> tuple[float, float] | None:
        """Degrees north and east: what it told, else the attribute of its device, else the section's; None when nobody knows."""
        return schedule.coordinates(self._geolocation(station))

    def _geolocation(self, station: Station) -> str:
        device = self._device(station.identity)
        attribute = "" if device is None else device.attributes.get(GEOLOCATION, "")
        said = station.record.geolocation or (attribute if schedule.coordinates(attribute) is not None else "")
        return said or self._section.geolocation or ""

    async def learnt(self, station: Station, told: Mapping[str, str | None], *, asked: bool = False) -> None:
        """Keep what it told of its configuration, by key (None: it has no such value). ``asked``: it has no more to say. Raises StorageError."""
        fields = {KEYS[key]: _READ[key](value or "") for key, value in told.items() if key in KEYS}
        async with self._locks.hold((station.identity,)):
            record = msgspec.structs.replace(station.record, **fields)
            if asked or KEYS.keys() <= told.keys():
                record = msgspec.structs.replace(record, learnt=self._hub.clock.now())
            if record != station.record and self._device(station.identity) is not None:
                await finish(self._hub.intake.commit([self._put(station.identity, record)]))
                station.record = record

    # ---------------------------------------------------------------------------------------------------------- registers

    async def boot(self, station: Station, boot: Boot) -> Told:
        """A BootNotification came: the answer, which is on disk when this returns (B18, B19). Raises what the registry and the intake raise."""
        async with self._locks.hold((station.identity,)):
            return await finish(self._boot(station, boot))

    async def _boot(self, station: Station, boot: Boot) -> Told:
        device = before = self._device(station.identity)
        if device is None and (self._section.accept == "known" or self.full):
            # Removed while it was connected, or one too many: it may ask again, and nothing is kept of it.
            return self._told("Rejected" if self._section.accept == "known" else "Pending", station.record)
        if device is None and self._crowded:
            await self._take_a_place(station.identity)
        if device is None or device.admission is not Admission.REJECTED:
            device = await self._registered(self._described(station, boot))
        if device.admission is Admission.PENDING and self._section.accept == "any":
            device = await self._hub.registry.update(device.id, self._hub.accounts.system(SPACE), admission=Admission.KNOWN)
        now = self._hub.clock.now()
        old, status = station.record, _TOLD[device.admission]
        accepted = status == "Accepted"
        record = msgspec.structs.replace(
            old, status=status, accepted=old.accepted or (now if accepted else 0), booted=now, boots=old.boots + 1, boot=boot
        )
        events = self._events_of_boot(device, before, boot) if accepted else []
        await self._hub.intake.events(events, [self._put(station.identity, record)])
        station.record = record
        return self._told(status, record)

    def _longest_gone(self) -> Device | None:
        """Of those who wait and are not connected the one that came first: strangers who look in once shall not keep others out for good."""
        waiting = (self._device(identity) for identity in self._pending if not self._is_here(identity))
        return min((device for device in waiting if device is not None), key=lambda device: device.created, default=None)

    def _is_here(self, identity: str) -> bool:
        station = self._stations.get(identity)
        return (station is not None and station.connection is not None) or self._hub.registry.online(device_id(identity))

    async def _take_a_place(self, identity: str) -> None:
        """Of the one that waits and has been gone the longest. Raises StorageError."""
        gone = self._longest_gone()
        assert gone is not None, "it is not full"
        self._pending.discard(gone.identity)
        self._pending.add(identity)  # at once: many may come
        try:
            await self._hub.registry.remove(gone.id, self._hub.accounts.system(SPACE))
        except StorageError:
            self._pending.discard(identity)
            self._pending.add(gone.identity)
            raise

    async def _registered(self, device: Device) -> Device:
        """The device as it is kept. One that is new and has to wait counts from now on: many may come at once."""
        if device.admission is Admission.PENDING and self._device(device.identity) is None:
            self._pending.add(device.identity)
        try:
            return await self._hub.registry.register(device)
        except StorageError:
            if self._device(device.identity) is None:
                self._pending.discard(device.identity)
            raise

    def _described(self, station: Station, boot: Boot) -> Device:
        """The device as its BootNotification tells it."""
        attributes = {"stationNumber": boot.stationNumber, "iccid": boot.iccid, "imsi": boot.imsi}
        return Device(
            id=station.device,
            integration=SPACE,
            identity=station.identity,
            kind=DeviceKind.SUBSTATION,
            vendor=boot.vendor,
            model=boot.model,
            serial=boot.serialNumber,
            firmware=boot.firmwareVersion,
            admission=Admission.PENDING if self._section.accept == "approve" else Admission.KNOWN,
            verbs=self._verbs,
            attributes={name: value for name, value in attributes.items() if value},
        )

    def _events_of_boot(self, device: Device, before: Device | None, boot: Boot) -> list[Event]:
        clock, id = self._hub.clock, device.id
        fields = msgspec.to_builtins(boot)
        events = [new_event("device.booted", id, clock, data=fields)]
        if before is not None and before.firmware and before.firmware != device.firmware:
            data = {"from": before.firmware, "to": device.firmware}
            events.append(new_event("device.firmware.changed", id, clock, data=data))
        if self._hub.alarms.raised(id, "device.data.refused") is not None:
            events.append(new_event("device.data.refused", id, clock, state=EventState.CLEARED, message="it has been accepted"))
        return events

    def _told(self, status: Status, record: Record) -> Told:
        interval = float(self._section.pending_interval)
        if status == "Accepted":
            interval = record.heartbeat_interval or self._section.heartbeat_interval
        return Told(status, max(1, round(interval)))

    async def measured(self, station: Station, readings: Iterable[MeterReading]) -> None:
        """Its device measures what it told; a commit only when that is something new."""
        new = {one.type.measurand for reading in readings for one in reading.readings} - station.measurands
        if not new or len(station.measurands) >= MOST_KINDS or self._device(station.identity) is None:  # None: removed while it was stored
            return
        known = station.measurands.union(sorted(new)[: MOST_KINDS - len(station.measurands)])
        device = Device(id=station.device, integration=SPACE, identity=station.identity, measurands=tuple(sorted(known)))
        self._see(await self._hub.registry.register(device))

    # ---------------------------------------------------------------------------------------------------------- on the bus

    async def _list(self, asked: Iterable[str] | None) -> list[StationView]:
        found = (self._device(identity) for identity in (sorted(self._known()) if asked is None else asked))
        return [self._view(device) for device in found if device is not None]

    async def _show(self, identity: str) -> StationView | None:
        device = self._device(identity)
        if device is None:
            return None
        lights, schedules = await self._hub.documents.get(LIGHTS, identity), await self._hub.documents.get(SCHEDULES, identity)
        return msgspec.structs.replace(
            self._view(device),
            lights=None if lights is None else _lights.decode(lights.body),
            schedules=None if schedules is None else _schedules.decode(schedules.body),
        )

    async def _change(self, asked: Change) -> StationView | None:
        change = msgspec.convert(asked, Change, from_attributes=True)
        if self._device(change.identity) is None:
            return None
        async with self._locks.hold((change.identity,)):
            station = self._of(change.identity)
            fields = {name: getattr(change, name) for name in ("strict", "heartbeat_interval")}
            fields = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
            record = msgspec.structs.replace(station.record, **fields)
            line = audit.entry(self._hub.clock, change.principal, "device.manage", station.device, "done", device=station.device, data=fields)
            await self._hub.intake.commit([self._put(change.identity, record), line])
            station.record = record
        return await self._show(change.identity)

    def _credential_changed(self, _: str, identity: str) -> None:
        station = self._stations.get(identity)
        if station is not None and station.connection is not None:
            station.connection.credential_changed()

    def _view(self, device: Device) -> StationView:
        station = self._of(device.identity)
        return StationView(
            identity=device.identity,
            device=device.id,
            admission=device.admission,
            strict=self.strict(station),
            record=station.record,
            deviations=dict(station.deviations or {}),
            refused=station.refused,
            connection=None if station.connection is None else station.connection.view(),
            timezone=self.zone(station).key,
            geolocation=self._geolocation(station),
        )

    # ------------------------------------------------------------------------------------------------------------- details

    def _of(self, identity: str) -> Station:
        station = self._stations.get(identity)
        if station is None:
            station = self._stations[identity] = Station(identity, Record())
        return station

    def _device(self, identity: str) -> Device | None:
        try:
            return self._hub.registry.get(device_id(identity))
        except NotFound:
            return None

    def _known(self) -> Collection[str]:
        return [device.identity for device in self._hub.registry.devices() if device.integration == SPACE]

    def _heard(self, _: str, state: DeviceState) -> None:
        """A device has changed, or is on- or offline."""
        device = state.device
        if device.integration != SPACE:
            return
        if state.removed:
            self._pending.discard(device.identity)
            station = self._stations.pop(device.identity, None)
            task = asyncio.create_task(self._delete(device.identity), name="os3p station removed")
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)
        else:
            self._see(device)
            station = self._stations.get(device.identity)
        if station is not None and station.connection is not None:
            station.connection.admission_changed(None if state.removed else device.admission)

    async def _delete(self, identity: str) -> None:
        """The documents of a removed station: should it ever come again, it has to register again."""
        documents = self._hub.documents
        try:
            await documents.commit([documents.delete(kind, identity) for kind in (KIND, LIGHTS, SCHEDULES)])
        except StorageError as error:
            log.error("the documents of a removed station are still there", extra={"device": device_id(identity), "reason": error.message})

    def _see(self, device: Device) -> None:
        if device.admission is Admission.PENDING:
            self._pending.add(device.identity)
        else:
            self._pending.discard(device.identity)
        if device.measurands:
            self._of(device.identity).measurands = _set(device.measurands)

    def _put(self, identity: str, record: Record) -> Put:
        return self._hub.documents.put(KIND, identity, msgspec.json.encode(record), {"status": record.status or ""})


@lru_cache(maxsize=256)
def _same(series: frozenset[ReadingType]) -> frozenset[ReadingType]:
    """One object for all stations that have the same."""
    return series


@lru_cache(maxsize=256)
def _set(measurands: tuple[str, ...]) -> frozenset[str]:
    """One object for all stations that measure the same."""
    return frozenset(measurands)


def _geolocation(text: str) -> str:
    return text if schedule.coordinates(text) is not None else ""


def _timezone(text: str) -> str:
    try:
        return str(Zone(text))
    except ValueError:
        return ""


def _max_stack_level(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else None


_READ: Mapping[str, Callable[[str], str | int | None]] = {
    "Geolocation": _geolocation,
    "TimeZone": _timezone,
    "StreetlightProfileMaxStackLevel": _max_stack_level,
}
"""What a value is when it can be used."""
