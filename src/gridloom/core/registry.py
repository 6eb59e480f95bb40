"""Which devices exist, who holds their link, are they alive, and what they said last.

The devices themselves are durable documents; who is connected is known in memory and told on the bus (``device.<device>``), so that every node
knows it. Registering a device that has not changed costs a comparison. Going online and offline records the events ``device.online`` and
``device.offline`` (an alarm), many of them in one commit, so that a thousand devices that come back at once are not a thousand fsyncs.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from gridloom.core import audit, ids, subjects
from gridloom.core.accounts import Accounts
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, FieldFault, GridloomError, InvalidInput, NotFound, Refused
from gridloom.core.events import new_event
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.metrics import Metrics
from gridloom.core.model import Admission, Command, Consent, Device, DeviceKind, Event, EventState, MeterReading, Principal, ReadingType, native_as
from gridloom.core.ports import Bus, Commit, Delete, LatestValue, Put, SeriesFilter, Store, Write
from gridloom.core.subjects import DeviceState, Told

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)
SPACE, KIND = "core", "device"
CLOCK_AHEAD = 60_000_000
"""µs that a device's clock may be ahead of ours before its values no longer count as the newest (see ``ports.LatestValue``)."""
_WAITING_EVENTS = 20_000
_EVENTS_AT_ONCE = 500

Executor = Callable[[Command], Awaitable[Any]]
"""Carries out one order: returns its result (JSON values, a Struct, or ``commands.LATER``); raises Refused, DeviceError, DeviceTimeout."""


class Recorder(Protocol):
    """What the registry asks of the intake, which in turn is built on the registry."""

    async def events(self, batch: Sequence[Event], documents: Sequence[Write] = ()) -> Commit:
        """Record events, and documents in the same commit."""
        ...

    def forgotten(self, device: str) -> list[Write]:
        """What else must go when a device is removed."""
        ...


class LinkWatcher(Protocol):
    """What the registry tells the orders about the links of this node. Quick and synchronous."""

    def attached(self, link: Link) -> None:
        """A link with an executor is here."""
        ...

    def online(self, link: Link) -> None:
        """Its device can be reached now."""
        ...

    def detached(self, link: Link) -> None:
        """It is gone, or a newer one took its place."""
        ...


class Link:
    """One connection to a device, held by this node. The newest of a device wins; what an older one says is no longer heard."""

    def __init__(self, registry: Registry, device: str, executor: Executor | None, replaced: Callable[[], None] | None, deduplicates: bool) -> None:
        self._registry = registry
        self.device = device
        self.executor = executor
        self.deduplicates = deduplicates
        self.replaced = replaced
        self.current = True

    def online(self) -> None:
        """The device can be reached from now on; orders that waited are sent."""
        if self.current:
            self._registry._set_online(self, True, "")

    def offline(self, reason: str) -> None:
        """The device cannot be reached, but the link is still ours (a serial line that is silent, a meter that does not answer)."""
        if self.current:
            self._registry._set_online(self, False, reason)

    def detach(self, reason: str = "the connection was closed") -> None:
        """The link is gone."""
        if self.current:
            self._registry._detach(self, reason)


class _Live:
    """What memory knows of one device."""

    __slots__ = ("device", "last_seen", "latest", "link", "native", "node", "online", "reason", "since")

    def __init__(self, device: Device, since: int) -> None:
        self.device = device
        self.online = False
        self.since = since
        self.last_seen: int | None = None
        self.reason = "not connected since the hub started"
        self.node = ""
        self.link: Link | None = None
        self.latest: MeterReading | None = None
        self.native: MeterReading | None = None

    def state(self, removed: bool = False) -> DeviceState:
        return DeviceState(self.device, self.online, self.since, self.last_seen, self.reason, self.node, removed)


class Follow:
    """The newest values of one device, kept up to date while somebody follows it. Everything is a look-up in memory."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._values: dict[ReadingType, LatestValue] = {}
        self._native: Any = None
        self._native_time = -1
        self._stored: bytes | None = None
        self._leave: Callable[[], None] | None = None

    def get(self, type: ReadingType) -> LatestValue | None:
        """The newest value of a series, or None."""
        return self._values.get(type)

    def values(self) -> list[LatestValue]:
        """The newest value of every series."""
        return list(self._values.values())

    def native(self, kind: type[T]) -> T | None:
        """The newest native message as ``kind``, or None when there is none of that kind."""
        if self._native is None and self._stored is not None:
            return _decoded(self._stored, kind)
        return None if self._native is None else native_as(self._native, kind)

    def close(self) -> None:
        """Follow no longer; the values stay as they were."""
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _hear(self, _: str, told: Told) -> None:
        reading = told.reading
        if reading.time > reading.received + CLOCK_AHEAD:
            return
        if reading.native is not None and reading.time >= self._native_time:
            self._native, self._native_time = reading.native, reading.time
        for one in reading.readings:
            self._take(LatestValue(reading.device, one.type, reading.time, reading.source, reading.received, one.value, one.exponent, one.quality))

    def _take(self, value: LatestValue) -> None:
        known = self._values.get(value.type)
        if known is None or _moment(value) >= _moment(known):
            self._values[value.type] = value


def _moment(value: LatestValue) -> tuple[int, int]:
    """What makes a value newer than another. The store may have nothing but a value of a clock far ahead: that gives way to what comes."""
    return (value.time if value.time <= value.received + CLOCK_AHEAD else value.received - CLOCK_AHEAD, value.received)


class Registry:
    """All devices of the hub. ``node`` names this process among others; it is made up when not given."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, accounts: Accounts, metrics: Metrics | None = None, node: str | None = None) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._accounts = accounts
        self.node = node or ids.unique(clock.now())
        self.recorder: Recorder | None = None
        self._live: dict[str, _Live] = {}
        self._capable: dict[str, dict[str, None]] = {}
        self._refusing: set[str] = set()
        self._locks = KeyedLock()
        self._watchers: list[LinkWatcher] = []
        self._events: deque[Event] = deque()
        self._recording: asyncio.Task[None] | None = None
        self._closing = False
        self._leave: Callable[[], None] | None = None
        metrics = metrics or Metrics()
        self._dropped = metrics.counter("gridloom_registry_events_dropped_total", "Events of devices going on- and offline that had to be dropped.")
        metrics.gauge("gridloom_devices", "Devices by admission and whether they are online.", ("admission", "online"), self._counts)

    async def load(self) -> None:
        """Read all devices. Call once, before anything is attached."""
        now = self._clock.now()
        decoder = msgspec.json.Decoder(Device)
        for found in await self._store.documents.find(SPACE, KIND):
            self._remember(decoder.decode(found.body), now)
        self._leave = self._bus.listen(subjects.ALL_DEVICES, self._heard)

    # ---------------------------------------------------------------------------------------------------------- devices

    async def register(self, device: Device, principal: Principal | None = None) -> Device:
        """The device is there: known from now on, with what its link says of it. Returns it as it is kept.

        What people set (name, site, admission, consent) is kept; what the link leaves empty is kept too; ``attributes`` are merged;
        ``verbs`` and ``measurands`` are taken as given unless empty. Durable; a device that has not changed costs no commit. With a
        ``principal`` (somebody adds a device by hand) ``device.manage`` is required and the audit trail gets a line.
        Raises InvalidInput when the id is not ``integration:identity``, Forbidden, NotFound (the site).
        """
        if device.id != f"{device.integration}:{device.identity}" or not device.integration or not device.identity:
            reason = f"expected {device.integration}:{device.identity}, got {device.id!r}"
            raise InvalidInput(f"device id: {reason}", (FieldFault("$.id", reason),))
        if principal is not None:
            self._accounts.require(principal, "device.manage", site=device.site or None)
        live = self._live.get(device.id)
        if live is not None and _merged(live.device, device) == live.device:
            return live.device
        return await finish(self._register(device, principal))

    async def update(
        self,
        id: str,
        principal: Principal,
        *,
        name: str | None = None,
        site: str | None = None,
        admission: Admission | None = None,
        consent: Consent | None = None,
        attributes: dict[str, str] | None = None,
    ) -> Device:
        """What people say of a device.

        Needs ``device.manage`` (also in the new ``site``), for ``admission`` ``device.approve``, for ``consent`` ``consent.manage``.
        Raises NotFound, Forbidden, InvalidInput (``$.site``).
        """
        return await finish(self._update(id, principal, name, site, admission, consent, attributes))

    async def remove(self, id: str, principal: Principal) -> None:
        """The device is gone: its document and its alarms; its readings, events and the audit trail stay. Its link is told to close.

        Raises NotFound, Forbidden.
        """
        await finish(self._remove(id, principal))

    def get(self, id: str) -> Device:
        """Raises NotFound. Whether somebody may see it is asked by the caller (``accounts.visible``)."""
        return self._of(id).device

    def admitted(self, id: str) -> Device:
        """The device, if the hub takes its data. Raises NotFound for an unknown one, Refused for one that is pending or rejected."""
        device = self._of(id).device
        if device.admission is not Admission.KNOWN:
            raise Refused(f"{id} is {device.admission.value}: nothing of it is kept")
        return device

    def devices(self) -> list[Device]:
        """All, ordered by id."""
        return [self._live[id].device for id in sorted(self._live)]

    def find(
        self, capability: str | None = None, *, kind: DeviceKind | None = None, site: str | None = None, integration: str | None = None
    ) -> list[Device]:
        """Known (neither pending nor rejected) devices with all of these, ordered by id. ``capability`` is a verb or a measurand."""
        candidates = self._live if capability is None else self._capable.get(capability, {})
        return [
            device
            for device in (self._live[id].device for id in sorted(candidates))
            if device.admission is Admission.KNOWN
            and (kind is None or device.kind is kind)
            and (site is None or device.site == site)
            and (integration is None or device.integration == integration)
        ]

    def refusing(self) -> frozenset[str]:
        """Ids of devices whose owners refused consent: their readings are let out to an admin of the hub only."""
        return frozenset(self._refusing)

    # ------------------------------------------------------------------------------------------------------------- links

    def attach(
        self,
        device_id: str,
        executor: Executor | None = None,
        *,
        replaced: Callable[[], None] | None = None,
        deduplicates: bool = False,
    ) -> Link:
        """This node holds the link of a registered device from now on. The newest wins: the owner of an older one is told by its ``replaced``.

        ``executor`` carries out orders, one at a time. ``deduplicates``: the other end knows an order's id again, so that one which was under way
        when the hub died may be sent again under the same id. The device is not online before ``link.online()``. Raises NotFound.
        """
        live = self._of(device_id)
        self._replace(live)
        link = Link(self, device_id, executor, replaced, deduplicates)
        live.link = link
        live.node = self.node
        for watcher in self._watchers:
            watcher.attached(link)
        return link

    def link(self, id: str) -> Link | None:
        """The link of a device that this node holds, or None."""
        live = self._live.get(id)
        return None if live is None else live.link

    def watch_links(self, watcher: LinkWatcher) -> None:
        """Tell ``watcher`` about links, also about those that are already here."""
        self._watchers.append(watcher)
        for live in self._live.values():
            if live.link is not None:
                watcher.attached(live.link)
                if live.online:
                    watcher.online(live.link)

    def state(self, id: str) -> DeviceState:
        """Raises NotFound."""
        return self._of(id).state()

    def states(self) -> list[DeviceState]:
        """Of all devices, ordered by id."""
        return [self._live[id].state() for id in sorted(self._live)]

    def online(self, id: str) -> bool:
        """Whether the device can be reached; False for one that does not exist."""
        live = self._live.get(id)
        return live is not None and live.online

    def seen(self, id: str, time: int) -> None:
        """The device said something at ``time`` (µs, the hub's clock)."""
        live = self._live.get(id)
        if live is not None and (live.last_seen is None or time > live.last_seen):
            live.last_seen = time

    # ------------------------------------------------------------------------------------------------------------ values

    def heard(self, reading: MeterReading) -> None:
        """A reading that the store has (called by the intake)."""
        live = self._live.get(reading.device)
        if live is None:
            return
        if live.last_seen is None or reading.received > live.last_seen:
            live.last_seen = reading.received
        if reading.time > reading.received + CLOCK_AHEAD:
            return
        if live.latest is None or reading.time >= live.latest.time:
            live.latest = reading
        if reading.native is not None and (live.native is None or reading.time >= live.native.time):
            live.native = reading

    def latest(self, id: str) -> MeterReading | None:
        """The newest MeterReading of this process that carries a native message, else the newest of all, else None."""
        live = self._live.get(id)
        return None if live is None else live.native or live.latest

    async def latest_values(self, id: str) -> Sequence[LatestValue]:
        """The newest value of every series of the device, from the store. Raises NotFound."""
        self._of(id)
        return await self._store.samples.latest(SeriesFilter(devices=(id,)))

    async def native(self, id: str, kind: type[T]) -> T | None:
        """The newest native message of the device as ``kind``; from the store when the device has not spoken since the start. Raises NotFound."""
        live = self._of(id)
        if live.native is not None:
            return native_as(live.native.native, kind)
        stored = await self._store.samples.native(id)
        return None if stored is None else _decoded(stored, kind)

    async def follow(self, id: str) -> Follow:
        """The newest values of a device at hand, from the store at first and then from the bus. Close it. Raises NotFound."""
        self._of(id)
        follow = Follow(id)
        follow._leave = self._bus.listen(subjects.readings(id), follow._hear)
        try:
            follow._stored = await self._store.samples.native(id)
            for value in await self._store.samples.latest(SeriesFilter(devices=(id,))):
                follow._take(value)
        except BaseException:
            follow.close()
            raise
        return follow

    # -------------------------------------------------------------------------------------------------------------- end

    async def settle(self) -> None:
        """Returns when the events that were waiting to be recorded are recorded (or could not be)."""
        while self._recording is not None:
            await asyncio.shield(self._recording)

    async def close(self) -> None:
        """The hub stops: links that go from now on are no outage, raise no alarm and record nothing. Call before the links are stopped."""
        self._closing = True
        await self.settle()
        if self._leave is not None:
            self._leave()
            self._leave = None

    # ---------------------------------------------------------------------------------------------------------- details

    def _of(self, id: str) -> _Live:
        live = self._live.get(id)
        if live is None:
            raise NotFound(f"there is no device {id[:120]!r}")
        return live

    def _remember(self, device: Device, now: int) -> _Live:
        live = self._live.get(device.id)
        if live is None:
            live = self._live[device.id] = _Live(device, now)
        elif live.device is not device:
            for capability in (*live.device.verbs, *live.device.measurands):
                self._capable.get(capability, {}).pop(device.id, None)
        live.device = device
        if device.consent is Consent.REFUSED:
            self._refusing.add(device.id)
        else:
            self._refusing.discard(device.id)
        for capability in (*device.verbs, *device.measurands):
            self._capable.setdefault(capability, {})[device.id] = None
        return live

    def _forget(self, id: str) -> None:
        live = self._live.pop(id, None)
        self._refusing.discard(id)
        if live is not None:
            for capability in (*live.device.verbs, *live.device.measurands):
                self._capable.get(capability, {}).pop(id, None)

    async def _register(self, device: Device, principal: Principal | None) -> Device:
        async with self._locks.hold((device.id,)):
            live = self._live.get(device.id)
            now = self._clock.now()
            new = msgspec.structs.replace(device, created=device.created or now) if live is None else _merged(live.device, device)
            if live is not None and new == live.device:
                return new
            writes: list[Write] = [_put(new)]
            if principal is not None:
                writes.append(audit.entry(self._clock, principal, "device.manage", new.id, "done", device=new.id, data={"added": new.name}))
            await self._store.commit(writes)
            first = live is None
            self._publish(self._remember(new, now))
        if first:
            self._record(new_event("device.registered", new.id, self._clock, message=f"{new.id} is known from now on"))
            if new.admission is Admission.PENDING:
                self._record(new_event("device.pending", new.id, self._clock, message=f"{new.id} waits to be accepted or rejected"))
        return new

    async def _update(
        self,
        id: str,
        principal: Principal,
        name: str | None,
        site: str | None,
        admission: Admission | None,
        consent: Consent | None,
        attributes: dict[str, str] | None,
    ) -> Device:
        async with self._locks.hold((id,)):
            old = self.get(id)
            if admission is not None:
                self._accounts.require(principal, "device.approve", old)
            if consent is not None:
                self._accounts.require(principal, "consent.manage", old)
            if name is not None or site is not None or attributes is not None or (admission is None and consent is None):
                self._accounts.require(principal, "device.manage", old)
            if site:
                try:
                    self._accounts.require(principal, "device.manage", site=site)
                    self._accounts.site(principal, site)
                except NotFound as error:
                    raise InvalidInput(error.message, (FieldFault("$.site", error.message),)) from None
            new = msgspec.structs.replace(
                old,
                name=old.name if name is None else name,
                site=old.site if site is None else site,
                admission=old.admission if admission is None else admission,
                consent=old.consent if consent is None else consent,
                attributes=old.attributes if attributes is None else attributes,
            )
            if new == old:
                return old
            fields = ("name", "site", "admission", "consent", "attributes")
            changed = {field: getattr(new, field) for field in fields if getattr(new, field) != getattr(old, field)}
            action = "device.approve" if "admission" in changed else "consent.manage" if "consent" in changed else "device.manage"
            line = audit.entry(self._clock, principal, action, new.id, "done", device=new.id, data=dict(changed))
            await self._store.commit([_put(new), line])
            self._publish(self._remember(new, self._clock.now()))
        by = {"account": principal.account}
        if old.admission is Admission.PENDING and new.admission is not Admission.PENDING:
            self._record(new_event("device.pending", new.id, self._clock, state=EventState.CLEARED, data=by))
        if new.admission is Admission.REJECTED and old.admission is not Admission.REJECTED:
            self._record(new_event("device.rejected", new.id, self._clock, data=by))
        if new.consent is not old.consent:
            self._record(new_event("consent.changed", new.id, self._clock, data={"consent": new.consent.value} | by))
        self._record(new_event("device.changed", new.id, self._clock, data={"changed": sorted(changed)} | by))
        return new

    async def _remove(self, id: str, principal: Principal) -> None:
        async with self._locks.hold((id,)):
            device = self.get(id)
            self._accounts.require(principal, "device.manage", device)
            line = audit.entry(self._clock, principal, "device.manage", id, "done", device=id, data={"removed": device.name})
            writes: list[Write] = [Delete(SPACE, KIND, id), line]
            if self.recorder is None:
                await self._store.commit(writes)
            else:
                event = new_event("device.removed", id, self._clock, data={"account": principal.account})
                await self.recorder.events([event], [*writes, *self.recorder.forgotten(id)])
            live = self._of(id)
            self._replace(live)
            live.online = False
            live.reason = "the device was removed"
            self._forget(id)
            self._publish(live, removed=True)

    def _replace(self, live: _Live) -> None:
        """The link that was here is no longer the one."""
        link = live.link
        if link is None:
            return
        link.current = False
        live.link = None
        for watcher in self._watchers:
            watcher.detached(link)
        if link.replaced is not None:
            try:
                link.replaced()
            except Exception:  # the old owner's trouble must not keep the new one out
                log.exception("the owner of a replaced link failed to let go", extra={"device": link.device})

    def _set_online(self, link: Link, online: bool, reason: str) -> None:
        live = self._of(link.device)
        if live.online == online:
            live.reason = reason
            if online:
                for watcher in self._watchers:  # a newer link of a device that never went offline
                    watcher.online(link)
            return
        live.online = online
        live.since = self._clock.now()
        live.reason = reason
        live.node = self.node
        self._publish(live)
        if online:
            for watcher in self._watchers:
                watcher.online(link)
        if not self._closing:
            kind = "device.online" if online else "device.offline"
            self._record(new_event(kind, link.device, self._clock, time=live.since, message=reason))

    def _detach(self, link: Link, reason: str) -> None:
        live = self._of(link.device)
        link.current = False
        live.link = None
        for watcher in self._watchers:
            watcher.detached(link)
        self._set_online(link, False, reason)

    def _publish(self, live: _Live, removed: bool = False) -> None:
        self._bus.publish(subjects.device(live.device.id), live.state(removed))

    def _heard(self, _: str, state: DeviceState) -> None:
        """What another node says of a device. Our own messages come by here too and change nothing."""
        if state.node in (self.node, "") and not state.removed:
            live = self._live.get(state.device.id)
            if live is None or live.device != state.device:  # registered or changed on another node that holds no link of it
                self._remember(state.device, state.since)
            return
        if state.removed:
            live = self._live.get(state.device.id)
            if live is not None:
                self._replace(live)
                self._forget(state.device.id)
            return
        live = self._remember(state.device, state.since)
        if state.online and live.link is not None:
            self._replace(live)  # the device is connected over there now: the newest wins
        if live.link is None:
            live.online, live.since, live.reason, live.node = state.online, state.since, state.reason, state.node
            live.last_seen = state.last_seen

    def _record(self, event: Event) -> None:
        if len(self._events) >= _WAITING_EVENTS:
            self._events.popleft()
            self._dropped.inc()
        self._events.append(event)
        if self._recording is None and self.recorder is not None:
            self._recording = asyncio.ensure_future(self._drain())

    def start_recording(self, recorder: Recorder) -> None:
        """From now on events have where to go (called by the intake)."""
        self.recorder = recorder
        if self._events and self._recording is None:
            self._recording = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        """Record what waits, many in one commit; what comes while a commit is under way goes into the next."""
        recorder = self.recorder
        try:
            while self._events and recorder is not None:
                await asyncio.sleep(0)  # let all who are coming in this turn of the loop come along
                batch = [self._events.popleft() for _ in range(min(len(self._events), _EVENTS_AT_ONCE))]
                known = [event for event in batch if event.device in self._live]  # not of devices removed meanwhile
                try:
                    await recorder.events(known)
                except GridloomError as error:
                    self._dropped.inc(len(known))
                    log.error("events of devices could not be recorded", extra={"events": len(known), "reason": error.message})
        finally:
            self._recording = None

    def _counts(self) -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for live in self._live.values():
            key = (live.device.admission.value, "yes" if live.online else "no")
            counts[key] = counts.get(key, 0) + 1
        return counts


def _put(device: Device) -> Put:
    keys = {"integration": device.integration, "site": device.site, "kind": device.kind.value}
    return Put(SPACE, KIND, device.id, msgspec.json.encode(device), keys)


def _merged(old: Device, new: Device) -> Device:
    """What is kept of a device that registers again."""
    if new.integration != old.integration:
        raise Conflict(f"{old.id} belongs to {old.integration}")
    return msgspec.structs.replace(
        old,
        kind=old.kind if new.kind is DeviceKind.OTHER else new.kind,
        name=old.name or new.name,
        site=old.site or new.site,
        vendor=new.vendor or old.vendor,
        model=new.model or old.model,
        serial=new.serial or old.serial,
        firmware=new.firmware or old.firmware,
        verbs=new.verbs or old.verbs,
        measurands=new.measurands or old.measurands,
        attributes=old.attributes | new.attributes if new.attributes else old.attributes,
    )


def _decoded(stored: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(stored, type=kind)
    except msgspec.ValidationError:
        return None
