"""The door in: store first, then tell. No client is shown what is not kept.

Readings are told once the store's group commit holds them, in the order of their cursors. Events are told after an fsync'd commit that
holds, together with them, the state of the alarms they change, the notifications they cause, and whatever documents the caller brings; an
event that is already in the journal changes nothing and is not told again.

While the disk is full readings are refused and counted, an alarm is raised in memory and told, and events of urgent kinds are told although
they cannot be kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from math import isfinite

import msgspec

from gridloom.core import subjects
from gridloom.core.alarms import Alarms
from gridloom.core.clock import Clock
from gridloom.core.errors import FieldFault, GridloomError, InvalidInput, NotFound, Refused, StorageFull
from gridloom.core.events import TABLE, new_event
from gridloom.core.faults import nearest
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.metrics import Metrics
from gridloom.core.model import Event, EventState, MeterReading
from gridloom.core.outbox import Outbox
from gridloom.core.ports import Bus, Commit, Entry, Put, Store, Write
from gridloom.core.registry import Registry
from gridloom.core.rules import Rules
from gridloom.core.subjects import Told, ToldEvent

log = logging.getLogger(__name__)

Companion = Callable[[Event], Sequence[Put]]
"""What else should be written in the same commit as an event (a notification for the outbox)."""

_OF_ANY_DEVICE = frozenset(
    {
        "device.registered", "device.pending", "device.rejected", "device.data.refused", "device.changed", "device.removed", "device.unknown",
        "device.credential.refused", "device.connection.replaced", "device.message.refused", "device.online", "device.offline",
    }
)  # fmt: skip
"""Kinds that are about the admission itself, and are therefore recorded of devices that are pending or rejected, too."""
_LOST_DEVICES = 10_000

_encoder = msgspec.json.Encoder()


class Intake:
    """Where all readings and events enter. ``rules`` watch readings once set (``Rules`` sets it)."""

    def __init__(
        self,
        *,
        store: Store,
        registry: Registry,
        bus: Bus,
        clock: Clock,
        alarms: Alarms,
        outbox: Outbox | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._bus = bus
        self._clock = clock
        self._alarms = alarms
        self._outbox = outbox
        self.rules: Rules | None = None
        self._companions: list[Companion] = []
        self._locks = KeyedLock()
        self._lost: dict[str, int] = {}
        self._full: Event | None = None
        self._space: asyncio.Task[None] | None = None
        metrics = metrics or Metrics()
        self._meter_readings = metrics.counter("gridloom_meter_readings_total", "Meter readings stored.").bind()
        self._values = metrics.counter("gridloom_values_total", "Values of meter readings stored.").bind()
        self._recorded = metrics.counter("gridloom_events_total", "Events recorded.", ("severity",))
        self._repeated = metrics.counter("gridloom_events_repeated_total", "Events that were delivered again and recognised.")
        self._refused = metrics.counter("gridloom_intake_refused_total", "Meter readings and events refused, by reason.", ("reason",))
        self._lost_total = metrics.counter("gridloom_meter_readings_lost_total", "Meter readings lost because the disk is full.")
        registry.start_recording(self)
        alarms.recorder = self

    async def start(self) -> None:
        """Begin to watch the disk."""
        loop = asyncio.get_running_loop()

        def told(full: bool) -> None:
            loop.call_soon_threadsafe(self._space_changed, full)

        self._store.watch_space(told)

    async def stop(self) -> None:
        """What is under way is finished."""
        if self._space is not None:
            await asyncio.gather(self._space, return_exceptions=True)

    def accompany(self, companion: Companion) -> None:
        """Ask ``companion`` for the outbox entries that belong to each event. Quick and synchronous; it must not raise."""
        self._companions.append(companion)

    async def readings(self, batch: Sequence[MeterReading]) -> tuple[str, ...]:
        """Keep, then tell. Returns the cursor of each.

        Nothing of the batch is kept or told when one of it is refused: NotFound (unknown device), Refused (pending, rejected),
        InvalidInput (a value that is not finite). Raises StorageFull while the disk is full: the readings are lost, and counted.
        """
        for reading in batch:
            self._check_reading(reading)
        try:
            cursors = await self._store.samples.append(batch)
        except StorageFull:
            for reading in batch:
                self._lost_total.inc()
                if reading.device in self._lost or len(self._lost) < _LOST_DEVICES:
                    self._lost[reading.device] = self._lost.get(reading.device, 0) + 1
            raise
        # No await between here and the telling: concurrent callers resume in the order of their cursors.
        values = 0
        for reading, cursor in zip(batch, cursors, strict=True):
            values += len(reading.readings)
            self._registry.heard(reading)
            self._bus.publish(subjects.readings(reading.device), Told(cursor, reading))
        self._meter_readings.inc(len(batch))
        self._values.inc(values)
        if self.rules is not None:
            told = self.rules.evaluate(batch)
            if told:
                await self._by_rule(told)
        return cursors

    async def event(self, event: Event) -> Commit:
        """One event; see ``events``."""
        return await self.events((event,))

    async def events(self, batch: Sequence[Event], documents: Sequence[Write] = ()) -> Commit:
        """Keep on disk, in one commit with the alarms, the notifications and ``documents``; then tell what was new.

        ``Commit.duplicates`` names the events that were already there. Raises InvalidInput (unknown kind), NotFound and Refused as
        ``readings`` does, Conflict when an ``expect`` of the documents is not met, StorageFull; urgent events are told even then.
        """
        by_id: dict[str, Event] = {}
        for event in batch:
            self._check_event(event)
            by_id.setdefault(event.id, event)
        return await finish(self._events(list(by_id.values()), list(documents)))

    async def commit(self, writes: Sequence[Write]) -> Commit:
        """Documents without an event; outbox entries among them are delivered. Raises Conflict, StorageFull."""
        return await finish(self._events([], list(writes)))

    def lost(self) -> dict[str, int]:
        """Meter readings lost by device since the start, because the disk was full."""
        return dict(self._lost)

    def forgotten(self, device: str) -> list[Write]:
        """What must go with a device that is removed (asked by the registry)."""
        self._lost.pop(device, None)
        return self._alarms.forgotten(device)

    # ---------------------------------------------------------------------------------------------------------- details

    def _check_reading(self, reading: MeterReading) -> None:
        try:
            self._registry.admitted(reading.device)
        except (NotFound, Refused) as error:
            self._refused.inc(reason=error.code)
            raise
        for position, one in enumerate(reading.readings):
            if isinstance(one.value, float) and not isfinite(one.value):
                self._refused.inc(reason="not-finite")
                reason = f"expected a finite number, got {one.value}"
                path = f"$.readings[{position}].value"
                raise InvalidInput(f"{reading.device}: {one.type.measurand}: {reason}", (FieldFault(path, reason),))

    def _check_event(self, event: Event) -> None:
        if event.kind not in TABLE:
            self._refused.inc(reason="unknown-kind")
            reason = f"there is no kind of event {event.kind[:60]!r}{nearest(event.kind, TABLE)}"
            raise InvalidInput(f"{event.device}: {reason}", (FieldFault("$.kind", reason),))
        if event.device == subjects.HUB:
            return
        try:
            if event.kind in _OF_ANY_DEVICE:
                self._registry.get(event.device)
            else:
                self._registry.admitted(event.device)
        except (NotFound, Refused) as error:
            self._refused.inc(reason=error.code)
            raise

    async def _events(self, events: list[Event], documents: list[Write]) -> Commit:
        async with self._locks.hold(event.device for event in events):
            writes: list[Write] = [_entry(event) for event in events]
            writes += self._alarms.writes(events)
            for event in events:
                for companion in self._companions:
                    writes += [msgspec.structs.replace(put, only_if_new=("event", event.id)) for put in companion(event)]
            writes += documents
            try:
                commit = await self._store.commit(writes)
            except StorageFull:
                urgent = [event for event in events if TABLE[event.kind].urgent]
                self._alarms.apply(urgent)
                for event in urgent:
                    self._bus.publish(subjects.event(event.device), ToldEvent("", event))
                raise
            new = [event for event in events if ("event", event.id) not in commit.duplicates]
            self._alarms.apply(new)
            for event in new:
                self._recorded.inc(severity=event.severity.value)
                self._bus.publish(subjects.event(event.device), ToldEvent(commit.cursor, event))
            self._repeated.inc(len(events) - len(new))
        if self._outbox is not None:
            puts = [write for write in writes if isinstance(write, Put)]
            self._outbox.told([put for put, version in zip(puts, commit.versions, strict=True) if version])
        return commit

    async def _by_rule(self, events: list[Event]) -> None:
        """What the rules found must not fail the reading that showed it; what could not be recorded is found again."""
        try:
            await self.events(events)
        except GridloomError as error:
            if self.rules is not None:
                self.rules.forget(events)
            log.error("an alarm of a rule could not be recorded", extra={"events": len(events), "reason": error.message})

    def _space_changed(self, full: bool) -> None:
        if full and self._full is None:
            log.error("the disk is full: readings are not stored until there is space")
            message = "The disk is full: readings are not stored until there is space."
            self._full = new_event("storage.full", subjects.HUB, self._clock, message=message)
            self._alarms.apply([self._full])
            self._bus.publish(subjects.event(subjects.HUB), ToldEvent("", self._full))
        elif not full and self._full is not None:
            raised, self._full = self._full, None
            self._space = asyncio.ensure_future(self._space_again(raised))

    async def _space_again(self, raised: Event) -> None:
        lost = int(sum(self._lost.values()))
        log.warning("there is space on the disk again", extra={"lost": lost})
        data = {"lost": lost}
        cleared = new_event("storage.full", subjects.HUB, self._clock, state=EventState.CLEARED, message="There is space again.", data=data)
        try:
            await self.events([raised, cleared])
        except GridloomError as error:  # full again already
            self._alarms.apply([cleared])
            self._bus.publish(subjects.event(subjects.HUB), ToldEvent("", cleared))
            log.error("the end of the full disk could not be recorded", extra={"reason": error.message})


def _entry(event: Event) -> Entry:
    return Entry("event", event.id, event.time, event.device, event.kind, event.severity.rank, _encoder.encode(event))
