"""What web, command line and vendor APIs ask: the store's answers, cut down to what the principal may see, within limits. In one place.

A question is checked as a whole before it is asked: every fault is named, not only the first. A device that the principal does not see does
not exist; one whose owner refused consent tells its readings to an admin of the hub only. What is asked without naming devices is answered for those
that may be seen.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence

import msgspec

from gridloom.core import audit, subjects
from gridloom.core.accounts import Accounts
from gridloom.core.clock import Clock
from gridloom.core.errors import FieldFault, Forbidden, InvalidInput, NotFound
from gridloom.core.faults import nearest
from gridloom.core.measurands import TABLE
from gridloom.core.model import Audit, Device, Event, Principal, Severity
from gridloom.core.ports import (
    AggregateQuery,
    AggregateRow,
    JournalFilter,
    LatestValue,
    Operator,
    Recorded,
    SamplePage,
    Series,
    SeriesFilter,
    Step,
    Store,
)
from gridloom.core.registry import Registry
from gridloom.core.subjects import DeviceState

MOST_BUCKETS = 10_000
MOST_ROWS = 10_000
LATEST = 253_402_300_800_000_000
"""µs: the end of the year 9999."""

_DAY = 86_400_000_000
_STEPS = {
    Step.MINUTE_10: 600_000_000,
    Step.MINUTE_15: 900_000_000,
    Step.HOUR: 3_600_000_000,
    Step.DAY: _DAY,
    Step.WEEK: 7 * _DAY,
    Step.MONTH: 28 * _DAY,
    Step.YEAR: 365 * _DAY,
}

_REGISTERS = tuple(measurand.name for measurand in TABLE.values() if measurand.register)
_event_decoder = msgspec.json.Decoder(Event)


class SamplesPage(msgspec.Struct, frozen=True):
    """Samples, series by series in the store's order. ``next`` continues, None is the end."""

    pages: tuple[SamplePage, ...]
    next: str | None


class EventsPage(msgspec.Struct, frozen=True):
    """Events with the cursors behind them. ``next`` continues, None is the end."""

    events: tuple[Event, ...]
    cursors: tuple[str, ...]
    next: str | None


class AuditPage(msgspec.Struct, frozen=True):
    """Lines of the audit trail. ``next`` continues, None is the end."""

    lines: tuple[Audit, ...]
    next: str | None


class Query:
    """Every method takes the principal first and raises NotFound for what is not visible, Forbidden for what the role does not allow."""

    def __init__(self, *, store: Store, registry: Registry, accounts: Accounts, clock: Clock) -> None:
        self.store = store
        self._registry = registry
        self._accounts = accounts
        self._clock = clock

    # ---------------------------------------------------------------------------------------------------------- devices

    def devices(self, principal: Principal) -> list[DeviceState]:
        """Devices the principal sees, ordered by id."""
        return [state for state in self._registry.states() if self._accounts.visible(principal, state.device)]

    def device(self, principal: Principal, id: str) -> DeviceState:
        """One of them. Raises NotFound."""
        state = self._registry.state(id)
        self._accounts.require(principal, "device.read", state.device)
        return state

    # ---------------------------------------------------------------------------------------------------------- readings

    async def series(self, principal: Principal, filter: SeriesFilter) -> Sequence[Series]:
        """The series that match. Raises InvalidInput (``$.measurands[0]``…)."""
        allowed = await self._filter(principal, filter, [])
        return [] if allowed is None else await self.store.samples.series(allowed)

    async def latest(self, principal: Principal, filter: SeriesFilter) -> Sequence[LatestValue]:
        """The newest value of every series that matches. Raises InvalidInput."""
        allowed = await self._filter(principal, filter, [])
        return [] if allowed is None else await self.store.samples.latest(allowed)

    async def samples(
        self,
        principal: Principal,
        filter: SeriesFilter,
        *,
        begin: int,
        end: int,
        limit: int = 1_000,
        cursor: str | None = None,
        descending: bool = False,
    ) -> SamplesPage:
        """Samples with ``begin <= time < end`` (µs), at most ``limit`` in all.

        Raises InvalidInput (``$.begin``, ``$.end``, ``$.limit``, ``$.cursor``, ``$.measurands[…]``).
        """
        faults = _range(begin, end)
        if not 1 <= limit <= MOST_ROWS:
            faults.append(FieldFault("$.limit", f"expected 1 to {MOST_ROWS}, got {limit}"))
        number, inner = 0, ""
        if cursor is not None:
            series, _, inner = cursor.partition(":")
            if series.isascii() and series.isdigit() and len(series) < 19:
                number = int(series)
            else:
                faults.append(FieldFault("$.cursor", "expected the next of a page of this question"))
        allowed = await self._filter(principal, filter, faults)
        if allowed is None:
            return SamplesPage((), None)
        found = sorted(await self.store.samples.series(allowed), key=lambda one: one.number)
        pages: list[SamplePage] = []
        room = limit
        for one in found:
            if one.number < number:
                continue
            if room == 0:
                return SamplesPage(tuple(pages), f"{one.number}:")
            from_here = inner if one.number == number and inner else None
            page = await self.store.samples.read(one.number, begin, end, limit=room, cursor=from_here, descending=descending)
            if page.samples:
                pages.append(page)
                room -= len(page.samples)
            if page.next is not None:
                return SamplesPage(tuple(pages), f"{one.number}:{page.next}")
        return SamplesPage(tuple(pages), None)

    async def aggregate(self, principal: Principal, query: AggregateQuery) -> Sequence[AggregateRow]:
        """One question over any device × measurand × phase × tariff × time × operator × step.

        Raises InvalidInput with every fault: ``$.begin``, ``$.end`` (begins after it ends, more than 10,000 buckets per series), ``$.zone``,
        ``$.measurands[…]``, ``$.operator`` (delta of what is no register). Without measurands delta is of all registers.
        """
        faults = _range(query.begin, query.end)
        if not faults and query.step in _STEPS:
            buckets = -(-(query.end - query.begin) // _STEPS[query.step])
            if buckets > MOST_BUCKETS:
                reason = f"expected at most {MOST_BUCKETS} steps of {query.step.value} between begin and end, got {buckets}"
                faults.append(FieldFault("$.end", reason))
        faults += _zone(query.zone)
        if query.operator is Operator.DELTA:
            for measurand in query.filter.measurands or ():
                if measurand in TABLE and not TABLE[measurand].register:
                    faults.append(FieldFault("$.operator", f"delta is for registers, and {measurand} is none"))
        allowed = await self._filter(principal, query.filter, faults)
        if allowed is None:
            return []
        if query.operator is Operator.DELTA and allowed.measurands is None:
            allowed = msgspec.structs.replace(allowed, measurands=_REGISTERS)
        return await self.store.samples.aggregate(msgspec.structs.replace(query, filter=allowed))

    # ----------------------------------------------------------------------------------------------------------- journal

    async def events(
        self,
        principal: Principal,
        *,
        devices: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        min_severity: Severity | None = None,
        begin: int | None = None,
        end: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        descending: bool = True,
        by_time: bool = False,
    ) -> EventsPage:
        """What happened; times in µs, half-open; ``kinds`` may end in ``.*``. In the order it was recorded, or (``by_time``) in which it happened."""
        wanted = self._journal(principal, "events.read", "event", devices, kinds, min_severity, begin, end, limit)
        found = [] if wanted is None else await self.store.journal.entries(wanted, limit=limit, cursor=cursor, descending=descending, by_time=by_time)
        events = tuple(_event_decoder.decode(one.entry.body) for one in found)
        return EventsPage(events, tuple(one.cursor for one in found), _next(found, limit))

    async def audit(
        self,
        principal: Principal,
        *,
        devices: Sequence[str] | None = None,
        actions: Sequence[str] | None = None,
        begin: int | None = None,
        end: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
        descending: bool = True,
    ) -> AuditPage:
        """Who ordered or changed what; ``actions`` may end in ``.*``. Lines about no device are for those who may see the trail of the whole hub."""
        wanted = self._journal(principal, "audit.read", audit.STREAM, devices, actions, None, begin, end, limit)
        found = [] if wanted is None else await self.store.journal.entries(wanted, limit=limit, cursor=cursor, descending=descending)
        return AuditPage(tuple(audit.decode(one.entry) for one in found), _next(found, limit))

    # ---------------------------------------------------------------------------------------------------------- details

    def _journal(
        self,
        principal: Principal,
        verb: str,
        stream: str,
        devices: Sequence[str] | None,
        kinds: Sequence[str] | None,
        min_severity: Severity | None,
        begin: int | None,
        end: int | None,
        limit: int,
    ) -> JournalFilter | None:
        faults = _range(begin if begin is not None else 0, end if end is not None else LATEST)
        if not 1 <= limit <= MOST_ROWS:
            faults.append(FieldFault("$.limit", f"expected 1 to {MOST_ROWS}, got {limit}"))
        _refuse(faults)
        allowed = self._devices(principal, verb, None if devices is None else tuple(devices))
        if allowed == ():
            return None
        severity = 0 if min_severity is None else min_severity.rank
        return JournalFilter(stream, allowed, None if kinds is None else tuple(kinds), severity, begin, end)

    async def _filter(self, principal: Principal, filter: SeriesFilter, faults: list[FieldFault]) -> SeriesFilter | None:
        """The filter cut down to what may be seen; None when that is nothing. Raises what is in ``faults`` and what is found here, together."""
        for position, measurand in enumerate(filter.measurands or ()):
            if measurand not in TABLE and not self._registry.find(measurand):
                known = await self.store.samples.series(SeriesFilter(measurands=(measurand,)))
                if not known:
                    reason = f"{measurand[:80]!r} is no measurand{nearest(measurand, TABLE)}"
                    faults.append(FieldFault(f"$.measurands[{position}]", reason))
        _refuse(faults)
        devices = self._devices(principal, "readings.read", filter.devices)
        return None if devices == () else msgspec.structs.replace(filter, devices=devices)

    def _devices(self, principal: Principal, verb: str, asked: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The devices of a question: None for all of the hub, the empty tuple for none. Raises NotFound, Forbidden."""
        everywhere = self._accounts.everywhere(principal, verb)
        if asked is None:
            if everywhere and (verb != "readings.read" or not self._registry.refusing()):
                return None
            found = [device.id for device in self._registry.devices() if self._accounts.may(principal, verb, device)]
            return tuple([*found, subjects.HUB] if everywhere else found)
        for id in asked:
            self._check(principal, verb, id, everywhere)
        return tuple(dict.fromkeys(asked))

    def _check(self, principal: Principal, verb: str, id: str, everywhere: bool) -> None:
        try:
            device: Device | None = self._registry.get(id)
        except NotFound:
            if not everywhere:  # the hub itself, or a device that was removed: its history stays for those who see all
                raise
            return
        try:
            self._accounts.require(principal, verb, device)
        except Forbidden:
            if id in self._registry.refusing():
                raise Forbidden(f"the owner of {id} does not let its readings out") from None
            raise


def _range(begin: int, end: int) -> list[FieldFault]:
    faults = [
        FieldFault(path, f"expected a moment from 1970 to 9999, got {moment} µs")
        for path, moment in (("$.begin", begin), ("$.end", end))
        if not 0 <= moment <= LATEST
    ]
    if not faults and end <= begin:
        faults.append(FieldFault("$.end", "expected an end after the begin"))
    return faults


def _zone(zone: str) -> list[FieldFault]:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(zone, zoneinfo.available_timezones())
        return [FieldFault("$.zone", f"expected an IANA time zone, got {zone[:60]!r}{hint}")]
    return []


def _refuse(faults: list[FieldFault]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InvalidInput(f"the question: {faults[0].path}: {faults[0].reason}{more}", tuple(faults))


def _next(found: Sequence[Recorded], limit: int) -> str | None:
    return found[-1].cursor if len(found) == limit else None
