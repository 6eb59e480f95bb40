"""Alarms by configuration: a value beyond a limit, a value that no longer comes, a value that changes too fast.

Rules are evaluated from readings as they pass the intake; a device for which no rule was written costs one look-up in a dict per meter
reading. Silence is watched by one loop with a heap of deadlines. An alarm of a rule is (device, ``alarm.threshold`` | ``alarm.silence`` |
``alarm.rate``, subject), the subject being the rule's name and the phase, tariff register and location of the series, where it has them.
After a restart a rule goes on from the alarm as it stands; alarms of rules that were taken out of the configuration are cleared at the start.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from gridloom.core import subjects
from gridloom.core.alarms import Alarms
from gridloom.core.clock import Clock
from gridloom.core.errors import FieldFault, GridloomError, InvalidInput
from gridloom.core.events import new_event
from gridloom.core.faults import nearest
from gridloom.core.measurands import TABLE
from gridloom.core.metrics import Metrics
from gridloom.core.model import Device, Event, EventState, MeterReading, Phase, Quality, ReadingType, Severity
from gridloom.core.ports import Bus
from gridloom.core.registry import CLOCK_AHEAD, Registry
from gridloom.core.subjects import DeviceState

if TYPE_CHECKING:
    from gridloom.core.intake import Intake

log = logging.getLogger(__name__)

_NAME = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$(?!\n)", description="word of letters, digits, - _ .")]
_POSITIVE = Annotated[float, Meta(gt=0, le=366 * 86_400)]
_NOT_NEGATIVE = Annotated[float, Meta(ge=0, le=366 * 86_400)]
_KINDS = ("alarm.threshold", "alarm.silence", "alarm.rate")
_WINDOW = 256
"""Samples kept of a series whose rate of change is watched; a longer window is thinned, not shortened."""
_UNSURE = Quality.SUSPECT | Quality.TEST


class _Base(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """What all rules say. ``name`` is unique. ``devices`` are ids, with ``*`` for any characters; ``site`` a site's id; none of them is any."""

    name: _NAME
    devices: tuple[str, ...] = ()
    site: str | None = None
    severity: Severity = Severity.WARNING
    message: str = ""


class Threshold(_Base, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="threshold"):
    """Raised when the value is above ``above`` or below ``below`` for ``for_seconds`` of the readings' own time (0: at once).

    Cleared when it is back inside by ``hysteresis``. Values in base units (W, V, A, Wh…). ``phase``, ``tariff`` and ``location`` narrow
    the series; without them each series of the measurand has an alarm of its own.
    """

    measurand: str
    above: float | None = None
    below: float | None = None
    hysteresis: _NOT_NEGATIVE = 0.0
    for_seconds: _NOT_NEGATIVE = 0.0
    phase: Phase | None = None
    tariff: str | None = None
    location: str | None = None


class Silence(_Base, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="silence"):
    """Raised when for ``seconds`` no reading came, or none of ``measurand`` if given; cleared by the next one. By the hub's clock."""

    seconds: _POSITIVE
    measurand: str | None = None


class Rate(_Base, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rate"):
    """Raised when the value rises or falls by more than ``rises`` or ``falls`` (base units, both positive) within ``within_seconds``.

    Cleared when it no longer does.
    """

    measurand: str
    rises: Annotated[float, Meta(gt=0)] | None = None
    falls: Annotated[float, Meta(gt=0)] | None = None
    within_seconds: _POSITIVE = 60.0
    phase: Phase | None = None
    tariff: str | None = None
    location: str | None = None


Rule = Threshold | Silence | Rate


def check(rules: Sequence[Rule], path: str = "$.rule") -> None:
    """What types cannot say. Raises InvalidInput with every fault: unknown measurands, names used twice, rules without a limit."""
    faults: list[FieldFault] = []
    names: set[str] = set()
    for number, rule in enumerate(rules):
        here = f"{path}[{number}]"
        if rule.name in names:
            faults.append(FieldFault(f"{here}.name", f"there are two rules named {rule.name!r}"))
        names.add(rule.name)
        if rule.measurand is not None and rule.measurand not in TABLE:
            reason = f"{rule.measurand[:80]!r} is no measurand{nearest(rule.measurand, TABLE)}; docs/reference lists them"
            faults.append(FieldFault(f"{here}.measurand", reason))
        if isinstance(rule, Threshold):
            if rule.above is None and rule.below is None:
                faults.append(FieldFault(here, "expected above or below"))
            elif rule.above is not None and rule.below is not None and rule.below + 2 * rule.hysteresis > rule.above:
                reason = f"expected below and above to leave room for values and hysteresis, got {rule.below} and {rule.above}"
                faults.append(FieldFault(f"{here}.below", reason))
        if isinstance(rule, Rate) and rule.rises is None and rule.falls is None:
            faults.append(FieldFault(here, "expected rises or falls"))
    if faults:
        raise InvalidInput(f"alarm rules: {faults[0].path}: {faults[0].reason}", tuple(faults))


class _Watch:
    """One rule on one series (or device): its state between readings."""

    __slots__ = ("device", "heard", "pending", "raised", "rule", "samples", "subject", "time")

    def __init__(self, rule: Rule, device: str, subject: str, raised: bool) -> None:
        self.rule = rule
        self.device = device
        self.subject = subject
        self.raised = raised
        self.pending: int | None = None  # since when it is beyond the limit, µs of the readings
        self.time = -1  # of the last reading looked at
        self.heard = 0.0  # when a reading came last, by the monotonic clock
        self.samples: deque[tuple[int, float]] = deque()


class _Device:
    """The rules that look at one device."""

    __slots__ = ("by_type", "device", "rules", "silences")

    def __init__(self, device: Device, rules: tuple[Threshold | Rate, ...], silences: tuple[_Watch, ...]) -> None:
        self.device = device
        self.rules = rules
        self.silences = silences
        self.by_type: dict[ReadingType, tuple[_Watch, ...]] = {}


class Rules:
    """Watches readings. Raises InvalidInput (``check``) when a rule cannot be. Connects itself to the intake at ``start``."""

    def __init__(
        self, rules: Sequence[Rule], *, registry: Registry, alarms: Alarms, intake: Intake, bus: Bus, clock: Clock, metrics: Metrics | None = None
    ) -> None:
        check(rules)
        self._rules = tuple(rules)
        self._registry = registry
        self._alarms = alarms
        self._intake = intake
        self._bus = bus
        self._clock = clock
        self._devices: dict[str, _Device | None] = {}
        self._deadlines: list[tuple[float, int, _Watch]] = []
        self._ticket = 0
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._leave: Callable[[], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = (metrics or Metrics()).counter("gridloom_rules_failed_total", "Alarms of rules that could not be recorded at first.")

    async def start(self) -> None:
        """Begin. Devices that never speak are watched for silence from now on."""
        await self._clear_orphans(None)
        if not self._rules:
            return
        for device in self._registry.devices():
            self._resolve(device)
        self._leave = self._bus.listen(subjects.ALL_DEVICES, self._heard)
        self._intake.rules = self
        if any(isinstance(rule, Silence) for rule in self._rules):
            self._loop = asyncio.ensure_future(self._watch_silence())

    async def stop(self) -> None:
        """Watch no more; alarms stay as they are."""
        self._intake.rules = None
        if self._leave is not None:
            self._leave()
            self._leave = None
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def evaluate(self, batch: Sequence[MeterReading]) -> list[Event]:
        """What the rules say of readings that are stored: events to record now. Called by the intake."""
        events: list[Event] = []
        for reading in batch:
            try:
                watched = self._devices[reading.device]
            except KeyError:
                watched = self._resolve(self._registry.get(reading.device))
            if watched is not None:
                self._evaluate(watched, reading, events)
        return events

    def forget(self, events: Sequence[Event]) -> None:
        """These could not be recorded: they are found again at the next reading."""
        self._failed.inc(len(events))
        for event in events:
            watched = self._devices.get(event.device)
            if watched is None:
                continue
            for watch in (*watched.silences, *(one for watches in watched.by_type.values() for one in watches)):
                if watch.subject == event.subject:
                    watch.raised = event.state is not EventState.RAISED

    # ---------------------------------------------------------------------------------------------------------- details

    def _evaluate(self, watched: _Device, reading: MeterReading, events: list[Event]) -> None:
        now = self._clock.monotonic()
        for silence in watched.silences:
            wanted = silence.rule.measurand
            if wanted is None or any(one.type.measurand == wanted for one in reading.readings):
                silence.heard = now
                if silence.raised:
                    silence.raised = False
                    self._due(silence)
                    events.append(self._event(silence, EventState.CLEARED, None, "Readings come again.", {}))
        if not watched.rules:
            return
        if reading.time > reading.received + CLOCK_AHEAD:  # judged as of its arrival, so that no rule waits for a moment that is far away
            reading = msgspec.structs.replace(reading, time=reading.received)
        for one in reading.readings:
            watches = watched.by_type.get(one.type)
            if watches is None:
                watches = watched.by_type[one.type] = self._watches(watched, one.type)
            if not watches or isinstance(one.value, str) or one.quality & _UNSURE:
                continue
            value = float(one.number)
            for watch in watches:
                if reading.time <= watch.time:
                    continue  # late or repeated: a rule looks at the newest only
                watch.time = reading.time
                event = self._threshold(watch, watch.rule, value, reading) if isinstance(watch.rule, Threshold) else self._rate(watch, value, reading)
                if event is not None:
                    events.append(event)

    def _threshold(self, watch: _Watch, rule: Threshold, value: float, reading: MeterReading) -> Event | None:
        beyond = (rule.above is not None and value > rule.above) or (rule.below is not None and value < rule.below)
        if watch.raised:
            inside = (rule.above is None or value <= rule.above - rule.hysteresis) and (rule.below is None or value >= rule.below + rule.hysteresis)
            if not inside:
                return None
            watch.raised, watch.pending = False, None
            words = f"{rule.measurand} is {value:g} {TABLE[rule.measurand].unit} again."
            return self._event(watch, EventState.CLEARED, reading, words, {"value": value})
        if not beyond:
            watch.pending = None
            return None
        if watch.pending is None:
            watch.pending = reading.time
        if reading.time - watch.pending < rule.for_seconds * 1_000_000:
            return None
        watch.raised = True
        above = rule.above is not None and value > rule.above
        limit = rule.above if above else rule.below
        words = f"{rule.measurand} is {value:g} {TABLE[rule.measurand].unit}, {'above' if above else 'below'} {limit:g}."
        return self._event(watch, EventState.RAISED, reading, words, {"value": value, "limit": limit, "since": watch.pending})

    def _rate(self, watch: _Watch, value: float, reading: MeterReading) -> Event | None:
        rule = watch.rule
        assert isinstance(rule, Rate)  # the only other rule with a series
        window = int(rule.within_seconds * 1_000_000)
        samples = watch.samples
        while samples and samples[0][0] < reading.time - window:
            samples.popleft()
        change = 0.0
        if samples:
            rise = value - min(sample for _, sample in samples)
            fall = max(sample for _, sample in samples) - value
            if rule.rises is not None and rise > rule.rises:
                change = rise
            elif rule.falls is not None and fall > rule.falls:
                change = -fall
        if len(samples) < 2 or reading.time - samples[-2][0] >= window // _WINDOW:
            samples.append((reading.time, value))
        else:
            samples[-1] = (reading.time, value)
        unit = TABLE[rule.measurand].unit
        if change and not watch.raised:
            watch.raised = True
            words = f"{rule.measurand} changed by {change:+g} {unit} within {rule.within_seconds:g} s."
            return self._event(watch, EventState.RAISED, reading, words, {"value": value, "change": change})
        if not change and watch.raised:
            watch.raised = False
            return self._event(watch, EventState.CLEARED, reading, f"{rule.measurand} is steady again at {value:g} {unit}.", {"value": value})
        return None

    def _event(self, watch: _Watch, state: EventState, reading: MeterReading | None, message: str, data: dict[str, Any]) -> Event:
        rule = watch.rule
        if state is EventState.RAISED and rule.message:
            message = rule.message
        return new_event(
            _kind(rule),
            watch.device,
            self._clock,
            # Alarms of one rule are in the order of the hub's clock, whichever clock the readings carry: the reading's time is in the data.
            state=state,
            severity=rule.severity,
            subject=watch.subject,
            message=message,
            data={"rule": rule.name} | data | ({} if reading is None else {"time": reading.time}),
        )

    def _resolve(self, device: Device) -> _Device | None:
        """Which rules look at the device; settled once, and again when the device changes."""
        known = self._devices.get(device.id)
        rules = [rule for rule in self._rules if _concerns(rule, device)]
        if not rules:
            self._devices[device.id] = None
            return None
        before = {watch.rule.name: watch for watch in known.silences} if known is not None else {}
        silences = []
        for rule in rules:
            if isinstance(rule, Silence):
                watch = before.get(rule.name)
                if watch is None:
                    watch = self._watch(rule, device.id, rule.name)
                    watch.heard = self._clock.monotonic()
                    self._due(watch)
                silences.append(watch)
        watched = _Device(device, tuple(rule for rule in rules if not isinstance(rule, Silence)), tuple(silences))
        if known is not None and known.rules == watched.rules:
            watched.by_type = known.by_type
        self._devices[device.id] = watched
        return watched

    def _watches(self, watched: _Device, type: ReadingType) -> tuple[_Watch, ...]:
        return tuple(self._watch(rule, watched.device.id, _subject(rule, type)) for rule in self._matching(watched, type))

    @staticmethod
    def _matching(watched: _Device, type: ReadingType) -> list[Threshold | Rate]:
        return [
            rule
            for rule in watched.rules
            if rule.measurand == type.measurand
            and (rule.phase is None or rule.phase == type.phase)
            and (rule.tariff is None or rule.tariff == type.tariff)
            and (rule.location is None or rule.location == type.location)
        ]

    def _watch(self, rule: Rule, device: str, subject: str) -> _Watch:
        kind = _kind(rule)
        return _Watch(rule, device, subject, self._alarms.raised(device, kind, subject) is not None)

    def _due(self, watch: _Watch) -> None:
        rule = watch.rule
        assert isinstance(rule, Silence)  # the only rule with a deadline
        self._ticket += 1
        heapq.heappush(self._deadlines, (watch.heard + rule.seconds, self._ticket, watch))
        if self._deadlines[0][2] is watch:
            self._wake.set()

    def _heard(self, _: str, state: DeviceState) -> None:
        if state.removed:
            self._devices.pop(state.device.id, None)
            return
        known = self._devices.get(state.device.id)
        if state.device.id not in self._devices or (known is not None and known.device != state.device) or (known is None and self._by_site()):
            self._resolve(state.device)
            if known is not None and known.device.site != state.device.site:
                task = asyncio.ensure_future(self._clear_orphans(state.device.id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _clear_orphans(self, device: str | None) -> None:
        """Alarms that no rule looks after any more: the rule is gone, or no longer concerns the device."""
        gone = []
        for alarm in self._alarms.all_raised(_KINDS):
            if device is not None and alarm.device != device:
                continue
            try:
                found = self._registry.admitted(alarm.device)
            except GridloomError:
                continue
            name = alarm.subject.split(" ")[0]
            if not any(rule.name == name and _kind(rule) == alarm.kind and _concerns(rule, found) for rule in self._rules):
                words = "The rule was taken out of the configuration, or no longer concerns the device."
                event = new_event(
                    alarm.kind, alarm.device, self._clock, state=EventState.CLEARED, subject=alarm.subject, severity=alarm.severity, message=words
                )
                gone.append(event)
        if gone:
            await self._record(gone)

    def _by_site(self) -> bool:
        return any(rule.site is not None for rule in self._rules)

    async def _watch_silence(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._look_for_silence()
            except Exception:  # the one loop that watches silence must not itself fall silent
                log.exception("looking for silent devices failed")
                pause = 1.0
            try:
                await self._clock.wait_for(self._wake.wait(), None if pause is None else max(pause, 0.001))
            except TimeoutError:
                continue

    async def _look_for_silence(self) -> float | None:
        """Raise what is due; seconds until the next deadline, None when there is none."""
        now = self._clock.monotonic()
        events = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, watch = heapq.heappop(self._deadlines)
            event = self._silent(watch, now)
            if event is not None:
                events.append(event)
        if events:
            await self._record(events)
        return self._deadlines[0][0] - self._clock.monotonic() if self._deadlines else None

    def _silent(self, watch: _Watch, now: float) -> Event | None:
        rule = watch.rule
        watched = self._devices.get(watch.device)
        if watched is None or watch not in watched.silences or watch.raised:
            return None  # the device is gone, or changed; or it is known already and the next reading sets a new deadline
        assert isinstance(rule, Silence)  # the only rule with a deadline
        if watch.heard + rule.seconds > now:
            self._due(watch)  # it spoke meanwhile
            return None
        watch.raised = True
        what = rule.measurand or "Nothing"
        words = f"{what} was not read for {rule.seconds:g} s." if rule.measurand else f"{what} was read for {rule.seconds:g} s."
        return self._event(watch, EventState.RAISED, None, words, {"seconds": rule.seconds})

    async def _record(self, events: list[Event]) -> None:
        try:
            await self._intake.events(events)
        except GridloomError as error:
            self.forget(events)
            for event in events:  # nothing will come by to find a silence again: try once more after its time
                watched = self._devices.get(event.device)
                for watch in watched.silences if watched is not None else ():
                    if watch.subject == event.subject:
                        watch.heard = self._clock.monotonic()
                        self._due(watch)
            log.error("an alarm of a rule could not be recorded", extra={"events": len(events), "reason": error.message})


def _kind(rule: Rule) -> str:
    return f"alarm.{rule.__struct_config__.tag}"


def _concerns(rule: Rule, device: Device) -> bool:
    if rule.site is not None and rule.site != device.site:
        return False
    return not rule.devices or any(subjects.device_matches(pattern, device.id) for pattern in rule.devices)


def _subject(rule: Threshold | Rate, type: ReadingType) -> str:
    return " ".join(part for part in (rule.name, type.phase, type.tariff, type.location) if part)
