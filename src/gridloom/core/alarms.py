"""What is wrong now: the state of every alarm, made of events and of nothing else.

An alarm is (device, kind, subject). It is raised by an event in state ``raised`` and ended by one in state ``cleared``, or by the occurrence of the
kind that its row of ``core.events.TABLE`` names. Its state is a document that is written in the same commit as the event (``writes``),
its history is the journal. Event time decides: an event that is older than the one that made the present state changes nothing, in
whatever order a device delivers; of equal times the one that came later. An event of a clock that is more than 60 s ahead counts as of its
arrival, so that no alarm is frozen until that time has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from gridloom.core import audit, ids, subjects
from gridloom.core.accounts import Accounts
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, NotFound
from gridloom.core.events import TABLE, clears, new_event
from gridloom.core.model import Event, EventState, Principal, Severity, TimeSource
from gridloom.core.ports import Bus, Delete, JournalFilter, Put, Store, Write
from gridloom.core.registry import CLOCK_AHEAD, Recorder, Registry
from gridloom.core.subjects import DeviceState

SPACE, KIND = "core", "alarm"
KEPT = 90 * 86_400 * 1_000_000
"""µs for which the end of an alarm is remembered after it was heard of, so that an event from before it does not raise it again."""

_KINDS = tuple(sorted({name for row in TABLE.values() if row.alarm for name in (row.name, row.cleared_by)}))


class Acknowledgement(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody has seen it: which account, when (µs), with which note."""

    account: str
    time: int
    note: str = ""


class Alarm(msgspec.Struct, frozen=True, omit_defaults=True):
    """The present state of (device, kind, subject). Times in µs as the events told them.

    ``raised`` is when the condition began, ``cleared`` when it ended; ``updated`` the time of the event that decided the state (its
    arrival when its clock was far ahead) and ``event`` its id; ``count`` how often it was raised since it began.
    """

    id: str
    device: str
    kind: str
    severity: Severity
    state: EventState
    raised: int
    updated: int
    event: str
    subject: str = ""
    message: str = ""
    data: dict[str, object] = {}
    count: int = 1
    cleared: int | None = None
    acknowledged: Acknowledgement | None = None


class AlarmHistory(msgspec.Struct, frozen=True):
    """A page of what happened to alarms, newest first. ``next`` continues, None is the end."""

    events: tuple[Event, ...]
    next: str | None


_decoder = msgspec.json.Decoder(Alarm)
_event_decoder = msgspec.json.Decoder(Event)


class Alarms:
    """All alarms in memory, durable with the events that made them. Only ``core.intake`` changes them."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, registry: Registry, accounts: Accounts) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._accounts = accounts
        self.recorder: Recorder | None = None
        self._alarms: dict[str, Alarm] = {}
        self._raised: dict[str, set[str]] = {}
        self._leave = bus.listen(subjects.ALL_DEVICES, self._heard)

    async def load(self) -> None:
        """Read the state of all alarms. Call once, before the intake opens."""
        for found in await self._store.documents.find(SPACE, KIND):
            self._keep(_decoder.decode(found.body))

    # ------------------------------------------------------------------------------------------------------------ asking

    def active(self, principal: Principal, *, device: str | None = None, min_severity: Severity | None = None) -> list[Alarm]:
        """What is raised and visible to the principal, the most severe and newest first."""
        least = 0 if min_severity is None else min_severity.rank
        found = [
            alarm
            for alarm in self._alarms.values()
            if alarm.state is EventState.RAISED
            and (device is None or alarm.device == device)
            and alarm.severity.rank >= least
            and self._may(principal, "alarms.read", alarm.device)
        ]
        return sorted(found, key=lambda alarm: (-alarm.severity.rank, -alarm.raised, alarm.id))

    def get(self, principal: Principal, id: str) -> Alarm:
        """One alarm, raised or cleared. Raises NotFound."""
        alarm = self._alarms.get(id)
        if alarm is None or not self._may(principal, "alarms.read", alarm.device):
            raise NotFound(f"there is no alarm {id[:60]!r}")
        return alarm

    def raised(self, device: str, kind: str, subject: str = "") -> Alarm | None:
        """The alarm if it is raised now, for the hub's own parts."""
        alarm = self._alarms.get(ids.digest(device, kind, subject))
        return alarm if alarm is not None and alarm.state is EventState.RAISED else None

    def all_raised(self, kinds: Iterable[str] | None = None) -> list[Alarm]:
        """Whatever is raised now (of these kinds), for the hub's own parts."""
        wanted = None if kinds is None else frozenset(kinds)
        return [alarm for alarm in self._alarms.values() if alarm.state is EventState.RAISED and (wanted is None or alarm.kind in wanted)]

    def raised_of(self, device: str) -> list[Alarm]:
        """Whatever is raised of a device now, for the hub's own parts; costs nothing when that is nothing."""
        return [self._alarms[id] for id in self._raised.get(device, ())]

    async def history(self, principal: Principal, *, device: str | None = None, limit: int = 100, cursor: str | None = None) -> AlarmHistory:
        """Raised, cleared and acknowledged (by whom, with which note, in ``data``), newest first. Raises NotFound (a device not visible)."""
        if device is not None:
            if not self._may(principal, "alarms.read", device):
                raise NotFound(f"there is no device {device[:120]!r}")
            devices: tuple[str, ...] | None = (device,)
        elif self._accounts.everywhere(principal, "alarms.read"):
            devices = None
        else:
            devices = tuple(found.id for found in self._registry.devices() if self._accounts.may(principal, "alarms.read", found))
        entries = await self._store.journal.entries(JournalFilter(devices=devices, kinds=_KINDS), limit=limit, cursor=cursor)
        events = tuple(_event_decoder.decode(recorded.entry.body) for recorded in entries)
        return AlarmHistory(events, entries[-1].cursor if len(entries) == limit else None)

    async def acknowledge(self, principal: Principal, id: str, note: str = "") -> Alarm:
        """The principal has seen the alarm. Raises NotFound, Forbidden, Conflict when it is no longer raised."""
        alarm = self.get(principal, id)
        if alarm.device == subjects.HUB:
            if not self._accounts.everywhere(principal, "alarm.acknowledge"):
                self._accounts.require(principal, "hub.manage")
        else:
            self._accounts.require(principal, "alarm.acknowledge", self._registry.get(alarm.device))
        if alarm.state is not EventState.RAISED:
            raise Conflict(f"{alarm.kind} of {alarm.device} is no longer raised")
        if self.recorder is None:
            raise RuntimeError("the alarms are not connected to an intake")
        event = new_event(
            alarm.kind,
            alarm.device,
            self._clock,
            state=EventState.ACKNOWLEDGED,
            subject=alarm.subject,
            severity=alarm.severity,
            message=note,
            data={"account": principal.account, "note": note, "alarm": alarm.id},
        )
        line = audit.entry(
            self._clock, principal, "alarm.acknowledge", alarm.id, "done", device=alarm.device, data={"kind": alarm.kind, "note": note}
        )
        await self.recorder.events([event], [line])
        return self.get(principal, id)

    # ---------------------------------------------------------------------------------------------------- for the intake

    def writes(self, events: Sequence[Event]) -> list[Put]:
        """The documents that belong in the same commit as the events: each takes effect only if its event is new."""
        seen: dict[str, Alarm] = {}
        puts: list[Put] = []
        for event in events:
            for alarm in self._steps(event, seen):
                seen[alarm.id] = alarm
                expires = None if alarm.state is EventState.RAISED else event.received + KEPT
                keys = {"device": alarm.device, "state": alarm.state.value}
                puts.append(Put(SPACE, KIND, alarm.id, msgspec.json.encode(alarm), keys, only_if_new=("event", event.id), expires=expires))
        return puts

    def apply(self, events: Sequence[Event]) -> None:
        """The commit with ``writes`` is done and these events of it were new (or are told although they cannot be stored)."""
        for event in events:
            for alarm in self._steps(event, {}):
                self._keep(alarm)

    def forgotten(self, device: str) -> list[Write]:
        """What must go with a device that is removed."""
        return [Delete(SPACE, KIND, alarm.id) for alarm in self._alarms.values() if alarm.device == device]

    # ---------------------------------------------------------------------------------------------------------- details

    def _steps(self, event: Event, seen: dict[str, Alarm]) -> list[Alarm]:
        """The alarms that the event changes, as they are then. ``seen`` are newer states than memory's, of events before it in the same commit."""
        changed = []
        kinds: Sequence[str] = clears(event.kind)
        state = EventState.CLEARED
        if event.state is not EventState.OCCURRED:
            kinds, state = (event.kind,), event.state
        for kind in kinds:
            id = ids.digest(event.device, kind, event.subject)
            alarm = _step(seen.get(id) or self._alarms.get(id), event, id, kind, state)
            if alarm is not None:
                changed.append(alarm)
        return changed

    def _keep(self, alarm: Alarm) -> None:
        self._alarms[alarm.id] = alarm
        if alarm.state is EventState.RAISED:
            self._raised.setdefault(alarm.device, set()).add(alarm.id)
        elif (raised := self._raised.get(alarm.device)) is not None:
            raised.discard(alarm.id)
            if not raised:
                del self._raised[alarm.device]

    def _may(self, principal: Principal, verb: str, device: str) -> bool:
        try:
            found = self._registry.get(device)
        except NotFound:  # of the hub itself, or of a device that is gone
            return self._accounts.everywhere(principal, verb)
        return self._accounts.may(principal, verb, found)

    def _heard(self, _: str, state: DeviceState) -> None:
        if state.removed:
            self._raised.pop(state.device.id, None)
            for id in [alarm.id for alarm in self._alarms.values() if alarm.device == state.device.id]:
                del self._alarms[id]


def _step(alarm: Alarm | None, event: Event, id: str, kind: str, state: EventState) -> Alarm | None:
    """The alarm after the event, or None when it changes nothing."""
    if state is EventState.ACKNOWLEDGED:
        if alarm is None or alarm.state is not EventState.RAISED:
            return None
        account, note = str(event.data.get("account", "")), str(event.data.get("note", ""))
        return msgspec.structs.replace(alarm, acknowledged=Acknowledgement(account, event.time, note))
    moment = event.time if event.time <= event.received + CLOCK_AHEAD else event.received
    if alarm is not None and moment < alarm.updated:
        return None  # late: something newer is known
    if state is EventState.CLEARED:
        if alarm is None:
            if event.source is TimeSource.HUB:
                return None  # the hub's own clock never runs late: there is nothing to end
            # The raise may still come (it is older): this keeps it from raising an alarm that is over.
            return Alarm(id, event.device, kind, event.severity, state, event.time, moment, event.id, event.subject, count=0, cleared=event.time)
        if alarm.state is EventState.CLEARED:
            return msgspec.structs.replace(alarm, updated=moment, event=event.id) if moment > alarm.updated else None
        return msgspec.structs.replace(alarm, state=state, updated=moment, event=event.id, cleared=event.time)
    if alarm is None or alarm.state is EventState.CLEARED:
        return Alarm(id, event.device, kind, event.severity, state, event.time, moment, event.id, event.subject, event.message, dict(event.data))
    return msgspec.structs.replace(
        alarm,
        severity=event.severity,
        updated=moment,
        event=event.id,
        message=event.message or alarm.message,
        data=dict(event.data) or alarm.data,
        count=alarm.count + 1,
        # What has become worse since somebody saw it should be seen again.
        acknowledged=alarm.acknowledged if event.severity.rank <= alarm.severity.rank else None,
    )
