"""What one line understood, on its way to registry and intake; and what happens to the line itself, as events, errors and figures.

The reader never waits. Of frames that come faster than they can be stored the newest is kept and the others are counted; what a group says at
once (an overload) takes a way of its own past the frames. Both ways are bounded. Events that find the disk full are kept, for the mapping does
not say them again, and recorded when there is space. Troubles of a port are events of the hub with the port as
their subject: a port has no device until a meter has told its number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import exp
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core import subjects
from gridloom.core.errors import GridloomError, NotFound, StorageFull
from gridloom.core.events import clears, new_event
from gridloom.core.hub import Hub
from gridloom.core.metrics import Metrics
from gridloom.core.model import Device, Event, EventState
from gridloom.core.ports import Put
from gridloom.core.registry import Link
from gridloom.core.subjects import ToldEvent
from gridloom.integrations.tic.codec import Frame, Group, Statistics
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.mapping import URGENT, Mapping, MappingState, device_id
from gridloom.integrations.tic.messages import ErrorKind, LineError, PortState

log = logging.getLogger(__name__)

EVENTS = 1_000
"""Events that may wait for the store, and as many again for space on its disk; then the oldest go, and are counted."""
KEEP_SECONDS = 5.0
"""Seconds of the hub's clock between two writes of what the mapping remembers."""
NOISY, QUIET = 0.8, 0.95
"""Share of good groups below which a line is told to be noisy, and above which it no longer is."""
GROUP_BYTES = 20
"""Bytes of noise that count as one damaged group in that share."""
GROUPS = 200
"""Groups over which that share is smoothed: five frames of a standard meter."""
LABELS_EVERY = 10
"""Measurements between two counts of the labels."""


class Figures:
    """What is counted of all lines; ``port`` is the line's name, labels are those that were right at least once (256 a line)."""

    def __init__(self, metrics: Metrics) -> None:
        port = ("port",)
        self.frames = metrics.counter("gridloom_tic_frames_total", "TIC frames stored.", port)
        self.partial = metrics.counter("gridloom_tic_frames_partial_total", "TIC frames stored of which groups are missing.", port)
        self.dropped = metrics.counter("gridloom_tic_frames_dropped_total", "TIC frames given up for a newer one: storing lagged behind.", port)
        self.refused = metrics.counter("gridloom_tic_frames_refused_total", "TIC frames that could not be stored, by reason.", ("port", "reason"))
        self.groups = metrics.counter("gridloom_tic_groups_total", "TIC groups by label and result.", ("port", "label", "result"))
        self.bytes = metrics.counter("gridloom_tic_read_bytes_total", "Bytes read from TIC lines.", port)
        self.events = metrics.counter("gridloom_tic_events_dropped_total", "Events of TIC lines and meters that could not be recorded.", port)
        self.latency = metrics.histogram("gridloom_tic_frame_latency_seconds", "From the last byte of a frame to its being stored and told.")


class Delivery:
    """Of one line. ``label`` is how events and figures call it; ``understood(mode, serial)`` is called for each frame that was stored."""

    def __init__(self, label: str, hub: Hub, figures: Figures, understood: Callable[[Mode, str], None], *, simulated: bool = False) -> None:
        self.label = label
        self.quality = 1.0
        """Share of good groups lately (of about 200), 0 to 1."""
        self._hub, self._figures, self._understood = hub, figures, understood
        self._mapping = Mapping(ZoneInfo(hub.timezone), simulated=simulated)
        self._newest: tuple[Frame, PortState, int] | None = None
        self._arrived = asyncio.Event()
        self._events: deque[tuple[list[Event], list[Put]]] = deque()
        self._happened = asyncio.Event()
        self._kept: tuple[list[Event], list[Put]] = ([], [])  # what found the disk full, and the newest memory with it
        self._found = False
        self._troubles: dict[str, int] = {}  # kind of alarm -> how often in a row
        self._raised: set[str] = set()
        self._link: Link | None = None
        self._device: Device | None = None
        self._shape: tuple[str, ...] = ()  # the labels of the frame that the device was made of
        self._kept_at = 0.0
        self._counted = Statistics({})
        self._labels: dict[str, tuple[int, int, int]] = {}
        self._ticks = 0

    async def run(self) -> None:
        """Store and record until cancelled."""
        leave = self._hub.bus.listen(subjects.event(subjects.HUB), self._heard)
        tasks = [asyncio.create_task(work, name=f"tic {self.label}") for work in (self._store(), self._record())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            leave()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """The line is read no longer. Never raises."""
        self._count_labels(self._counted)
        self._happen((), self._memory(at_once=True))
        self._try_again()
        while self._events:
            await self._record_some()
        self._figures.events.inc(len(self._kept[0]), port=self.label)
        if self._link is not None:
            self._link.detach("the hub no longer reads its line")
            self._link = None

    # ---------------------------------------------------------------------------------------------- from the reader, at once

    def group(self, group: Group) -> None:
        """A good group, at its CR: what it says at once is recorded past the frames. Of a meter that a frame has made known."""
        if group.label in URGENT and self._device is not None:
            self._happen(self._mapping.group_events(group, self._hub.clock.now()))

    def frame(self, frame: Frame, port: PortState) -> None:
        """A frame, at its ETX: the newest waits for the store, alone."""
        if not any(group.valid for group in frame.groups):
            self.error("unreadable", port)
            return
        if self._newest is not None:
            self._figures.dropped.inc(port=self.label)
        self._newest = (frame, port, self._hub.clock.now())
        self._arrived.set()

    def error(self, kind: ErrorKind, port: PortState) -> None:
        """Clients are told why there is no frame."""
        self._hub.bus.publish(subjects.of("tic", "error", port.name), LineError(port.name, port.serial, kind))

    def found(self) -> None:
        """The port is open: told the first time, and when it could not be used before."""
        self._troubles.clear()
        if not self._found or any(self._is_raised(kind) for kind in clears("line.found")):
            self._tell("line.found")
        self._found = True
        self._raised.difference_update(clears("line.found"))

    def trouble(self, kind: str, reason: str, *, times: int = 1) -> None:
        """An alarm of the port, raised once, when it was told so many ``times``: what is soon over (rights that udev is just setting) is none."""
        self._troubles[kind] = self._troubles.get(kind, 0) + 1
        if self._troubles[kind] >= times and not self._is_raised(kind):
            self._raised.add(kind)
            self._tell(kind, reason, EventState.RAISED)
            log.warning("a TIC line is in trouble", extra={"port": self.label, "alarm": kind, "reason": reason})

    def over(self, kind: str) -> None:
        """An alarm of the port is over."""
        self._troubles.pop(kind, None)
        if self._is_raised(kind):
            self._tell(kind, "", EventState.CLEARED)
            self._raised.discard(kind)

    def offline(self, reason: str) -> None:
        """The meter cannot be heard."""
        if self._link is not None:
            self._link.offline(reason)

    def measure(self, statistics: Statistics) -> None:
        """Bring the figures up to date; called a few times a second."""
        before, now = self._counted, statistics
        bad = now.bad_checksum - before.bad_checksum
        good = max(0, now.groups - before.groups - bad)
        damaged = bad + now.malformed - before.malformed + (now.noise - before.noise) / GROUP_BYTES
        if good or damaged:
            share = good / (good + damaged)
            self.quality += (share - self.quality) * (1 - exp(-(good + damaged) / GROUPS))
            if self.quality < NOISY:
                self.trouble("line.noise", f"{self.label}: {self.quality:.0%} of what comes is undamaged")
            elif self.quality > QUIET and "line.noise" in self._raised:
                self.over("line.noise")
        self._figures.bytes.inc(now.bytes - before.bytes, port=self.label)
        self._counted = msgspec.structs.replace(now)
        self._ticks += 1
        if self._ticks % LABELS_EVERY == 0:
            self._count_labels(now)

    # ----------------------------------------------------------------------------------------------------------- the store

    async def _store(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._newest is None:
                continue
            (frame, port, received), self._newest = self._newest, None
            try:
                await self._store_one(frame, port, received)
            except GridloomError as error:
                if isinstance(error, NotFound):
                    self._device = None  # somebody removed it: it is registered anew, for it is there
                self._refuse(error.code, error.message)
            except Exception:  # a frame that our tables cannot take must not end the line: logged with its traceback, counted, and the next is read
                log.exception("a TIC frame could not be understood", extra={"port": self.label})
                self._refuse("internal-error", "")

    async def _store_one(self, frame: Frame, port: PortState, received: int) -> None:
        mapping = self._mapping
        serial = mapping.identify(frame)
        if serial is None:
            self._refuse("no-serial", "whose frame it is is not known, or not believed yet")
            return
        if serial != mapping.serial:
            await self._meet(serial, frame, port, received)
        elif self._device is None or (shape := tuple([group.label for group in frame.groups])) != self._shape:
            await self._register(frame, port)
            self._shape = shape if self._device is not None else ()
        if not self._attached(device_id(serial)):
            self._refuse("other-line", f"{device_id(serial)} is read on another line")
            return
        readings, events = mapping.frame(frame, received, port)
        try:
            await self._hub.intake.readings(readings)
        except StorageFull:
            self._happen(events, self._memory(at_once=bool(events)))  # the readings are lost, but what they showed is not
            raise
        self._figures.latency.observe(max(0.0, (self._hub.clock.now() - received) / 1_000_000))
        self._figures.frames.inc(port=self.label)
        if frame.partial:
            self._figures.partial.inc(port=self.label)
        self._understood(frame.mode, serial)
        self._happen(events, self._memory(at_once=bool(events)))
        if events:
            self._shape = ()  # contract or mode may have changed: the device is described anew with the next frame

    async def _meet(self, serial: str, frame: Frame, port: PortState, received: int) -> None:
        """A meter that was not the one on this line until now. It is registered before anything is told of it."""
        if self._link is not None:
            self._link.detach(f"another meter is on the line {self.label}")
            self._link = None
        await self._register(frame, port)
        document = await self._hub.documents.get("meter", serial)
        state = None if document is None else _decoded(document.body)
        self._happen(self._mapping.meet(serial, received, state))

    async def _register(self, frame: Frame, port: PortState) -> None:
        device = self._mapping.device(frame, port)
        if device != self._device:
            await self._hub.registry.register(device)
            self._device = device

    def _attached(self, id: str) -> bool:
        """Whether the link of the device is ours, and it is online; False when another line of this hub reads it."""
        registry, link = self._hub.registry, self._link
        if link is None or not link.current:
            if link is not None and registry.online(id):
                return False
            link = self._link = registry.attach(id)
        if not registry.online(id):
            link.online()
        return True

    def _memory(self, *, at_once: bool) -> list[Put]:
        """What the mapping must know after a restart, when it changed, and not too often unless there are events to go with it."""
        now = self._hub.clock.monotonic()
        if not at_once and now - self._kept_at < KEEP_SECONDS:
            return []
        self._kept_at = now
        state = self._mapping.changed_state()
        return [] if state is None else [self._hub.documents.put("meter", state.serial, msgspec.json.encode(state))]

    def _refuse(self, reason: str, message: str) -> None:
        self._figures.refused.inc(port=self.label, reason=reason)
        log.debug("a TIC frame was not stored", extra={"port": self.label, "reason": reason, "why": message})

    # ---------------------------------------------------------------------------------------------------------- the events

    async def _record(self) -> None:
        while True:
            await self._happened.wait()
            self._happened.clear()
            self._try_again()
            while self._events:
                await self._record_some()

    async def _record_some(self) -> None:
        """What came together is one commit."""
        events, documents = self._events.popleft()
        try:
            await self._hub.intake.events(events, documents)
            if documents:
                self._kept = (self._kept[0], [])  # older than what was written now
        except StorageFull:
            self._keep(events, documents)
        except GridloomError as error:
            self._figures.events.inc(len(events), port=self.label)
            details = {"port": self.label, "kinds": [event.kind for event in events], "reason": error.message}
            log.error("events of a TIC line could not be recorded", extra=details)

    def _keep(self, events: list[Event], documents: list[Put]) -> None:
        kept = [*self._kept[0], *events]
        self._figures.events.inc(max(0, len(kept) - EVENTS), port=self.label)
        self._kept = (kept[-EVENTS:], documents or self._kept[1])

    def _try_again(self) -> None:
        """What found the disk full goes first, unless it is known to be full still (urgent events are told at each attempt)."""
        if any(self._kept) and self._hub.alarms.raised(subjects.HUB, "storage.full") is None:
            self._events.appendleft(self._kept)
            self._kept = ([], [])

    def _heard(self, _: str, told: ToldEvent) -> None:
        if told.event.kind == "storage.full":
            self._happened.set()

    def _happen(self, events: Sequence[Event], documents: Sequence[Put] = ()) -> None:
        if not events and not documents:
            return
        if len(self._events) >= EVENTS:
            self._figures.events.inc(len(self._events.popleft()[0]), port=self.label)
        self._events.append((list(events), list(documents)))
        self._happened.set()

    def _tell(self, kind: str, message: str = "", state: EventState | None = None) -> None:
        """Something happened to the port."""
        data = {} if self._device is None else {"device": self._device.id}
        self._happen([new_event(kind, subjects.HUB, self._hub.clock, subject=self.label, message=message, data=data, state=state)])

    def _is_raised(self, kind: str) -> bool:
        """Also when it was raised before the hub was started the last time."""
        return kind in self._raised or self._hub.alarms.raised(subjects.HUB, kind, self.label) is not None

    # ---------------------------------------------------------------------------------------------------------- the figures

    def _count_labels(self, statistics: Statistics) -> None:
        for label, count in statistics.labels.items():
            now = (count.seen - count.bad_checksum, count.bad_checksum, count.malformed)
            before = self._labels.get(label, (0, 0, 0))
            if now == before:
                continue
            self._labels[label] = now
            for result, new, old in zip(("good", "bad_checksum", "malformed"), now, before, strict=True):
                if new > old:
                    self._figures.groups.inc(new - old, port=self.label, label=label or "other", result=result)


def _decoded(body: bytes) -> MappingState | None:
    """None for what another version wrote: the meter is then as good as new."""
    try:
        return msgspec.json.decode(body, type=MappingState)
    except msgspec.MsgspecError:
        return None
