"""When a street light is on: the schedule engine of OS³P (annex A7.10; FACTS section 3, whose ten rules are cited here by number).

Pure functions of profiles, a date or a moment, and a place; nothing here knows what time it is. Moments are µs UTC and exact to the millisecond.
Whatever has two readings in the document is decided in FACTS; what these functions decide themselves is said at the function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.integrations.os3p import messages, sun

SECOND = 1_000_000
NOON = 43_200_000
"""Milliseconds after midnight."""
MAX_STACK_LEVEL = 16
"""The default of the key StreetlightProfileMaxStackLevel."""
END_OF_DAY = "11:59:59"
YEARS = range(1900, 2201)
"""Of schedule days; the formulae for the sun hold there."""
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # wall times have no zone of their own
MILLISECOND = timedelta(milliseconds=1)
CACHED_DAYS = 512
"""Windows and suns kept, so that a year of all contactors at a place is calculated once."""


# ---------------------------------------------------------------------------------------------------------------------- nouns


Kind = Literal["Absolute", "Sunset", "Sunrise"]
Override = Literal["On", "Off", "Suspend"]
"""An OverrideStreetlight that was not resumed yet."""


class Bound(msgspec.Struct, frozen=True):
    """Where a period begins or ends. ``milliseconds`` count from midnight on the local clock, or from the sunset or the sunrise."""

    kind: Kind
    milliseconds: int


class Period(msgspec.Struct, frozen=True):
    """The light is on from ``start`` until just before ``end``."""

    start: Bound
    end: Bound


class Profile(msgspec.Struct, frozen=True):
    """One profile of one contactor. ``id`` and ``stack_level`` are unique there."""

    contactor: int
    id: int
    stack_level: int
    recurrence: Literal["None", "Daily", "Weekly"]
    valid_from: date | None
    valid_to: date | None
    periods: tuple[Period, ...]

    def active(self, day: date) -> bool:
        """Rule 3."""
        if (self.valid_from is not None and day < self.valid_from) or (self.valid_to is not None and day > self.valid_to):
            return False
        if self.recurrence == "Daily":
            return True
        if self.valid_from is None:  # ``install`` lets no such profile in
            return False
        apart = (day - self.valid_from).days
        return apart % 7 == 0 if self.recurrence == "Weekly" else apart == 0

    @property
    def follows_the_sun(self) -> bool:
        """Whether any bound is a sunset or a sunrise."""
        return any(bound.kind != "Absolute" for period in self.periods for bound in (period.start, period.end))


class Place(NamedTuple):
    """Where a station stands: its zone, degrees north and degrees east (elevation 0)."""

    zone: ZoneInfo
    latitude: float
    longitude: float


def coordinates(text: str) -> tuple[float, float] | None:
    """Latitude and longitude of a Geolocation (``[52.09, 5.12]``, degrees north and east), or None if the text is none (S8)."""
    found = _COORDINATES.fullmatch(text)
    if found is None:
        return None
    latitude, longitude = float(found[1]), float(found[2])
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


_REAL = r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*"
_COORDINATES = re.compile(rf"\s*\[{_REAL},{_REAL}\]\s*", re.ASCII)


class Span(NamedTuple):
    """[start, end), µs UTC."""

    start: int
    end: int


class Day(NamedTuple):
    """The effective schedule of one contactor on one schedule day."""

    date: date
    window: Span
    """From noon of ``date`` to noon of the next (rule 2)."""
    winner: Profile | None
    on: tuple[Span, ...]
    """When the light is on: inside the window, in order, apart from each other (rule 7)."""
    zone: ZoneInfo


class Switch(NamedTuple):
    """The light goes on or off at ``at``, µs UTC."""

    at: int
    on: bool


# ------------------------------------------------------------------------------------------------------------ days and clocks


def instant(day: date, milliseconds: int, zone: ZoneInfo) -> int:
    """The first moment (µs UTC) at which the clock on the wall shows this time of this day, or a later one (rule 1).

    A repeated hour is thus its first occurrence, a skipped one the moment of the change; and what is not later on the clock is not later here.
    """
    wall = datetime.combine(day, time()) + milliseconds * MILLISECOND
    shown, before, after = _of(wall - EPOCH), _offset(wall, zone), _offset(wall.replace(fold=1), zone)
    if before >= after:
        return shown - before
    # Skipped: the change lies in between, at a whole second.
    low, high = (shown - after) // SECOND, -((before - shown) // SECOND)
    while low < high:
        middle = (low + high) // 2
        if _of(_wall(middle * SECOND, zone) - EPOCH) >= shown:
            high = middle
        else:
            low = middle + 1
    return low * SECOND


@lru_cache(maxsize=CACHED_DAYS)
def window(day: date, zone: ZoneInfo) -> Span:
    """The schedule day, noon to noon: 23, 24 or 25 hours, and half of one where a zone skips a date (rule 2). Raises InvalidInput outside YEARS."""
    if day.year not in YEARS:
        raise InvalidInput(f"the date {day} is outside the years {YEARS.start} to {YEARS.stop - 1}")
    return Span(instant(day, NOON, zone), instant(day + timedelta(days=1), NOON, zone))


def day_of(moment: int, zone: ZoneInfo) -> date:
    """The schedule day to which a moment belongs (rule 2)."""
    wall = _wall(moment, zone)
    return wall.date() if wall.hour >= 12 else wall.date() - timedelta(days=1)


def clock(moment: int, zone: ZoneInfo) -> str:
    """What a clock on the wall shows: ``HH:mm:ss``, with ``.mmm`` where there are milliseconds."""
    wall = _wall(moment, zone)
    return wall.strftime("%H:%M:%S") + (f".{wall.microsecond // 1000:03}" if wall.microsecond else "")


def milliseconds(text: str) -> int | None:
    """Milliseconds after midnight of ``HH:mm:ss[.mmm]`` (one to three digits), or None if it is no such time."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds, fraction = found.groups("0")
    return (int(hours) * 3600 + int(minutes) * 60 + int(seconds)) * 1000 + int(fraction.ljust(3, "0"))


_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9])(?:\.([0-9]{1,3}))?", re.ASCII)


def _wall(moment: int, zone: ZoneInfo) -> datetime:
    """The wall time, without its zone."""
    seconds, rest = divmod(moment, SECOND)
    return datetime.fromtimestamp(seconds, UTC).astimezone(zone).replace(microsecond=rest, tzinfo=None)


def _offset(wall: datetime, zone: ZoneInfo) -> int:
    """Microseconds that a zone is ahead of UTC at a wall time."""
    offset = zone.utcoffset(wall)
    assert offset is not None  # it is for zones without dates only
    return _of(offset)


def _of(span: timedelta) -> int:
    return (span.days * 86_400 + span.seconds) * SECOND + span.microseconds


# -------------------------------------------------------------------------------------------------------------- the schedule


def effective(profiles: Iterable[Profile], contactor: int, day: date, place: Place) -> Day:
    """What the profiles say for a contactor on a schedule day (rules 2 to 7); their order does not matter. Raises InvalidInput outside YEARS."""
    within = window(day, place.zone)
    active = (one for one in profiles if one.contactor == contactor and one.active(day))
    # Stack levels are unique (``install``); the id only makes the answer certain where somebody brings two alike.
    winner = max(active, key=lambda one: (one.stack_level, one.id), default=None)
    spans = [] if winner is None else [span_of(period, day, within, place) for period in winner.periods]
    return Day(day, within, winner, _union(spans, within), place.zone)


def sun_of(within: Span, place: Place) -> sun.Sun:
    """The sun of a schedule day."""
    return _sun(within, place.latitude, place.longitude)


@lru_cache(maxsize=CACHED_DAYS)
def _sun(within: Span, latitude: float, longitude: float) -> sun.Sun:
    return sun.between(within.start, within.end, latitude, longitude)


def span_of(period: Period, day: date, within: Span, place: Place) -> Span:
    """From when until when a period of a day is on (rule 5), not yet cut to the window ``within`` of the day; b ≤ a: it never is."""
    start = _instant(period.start, day, within, place)
    end = within.end if _ends_the_day(period.end) else _instant(period.end, day, within, place)
    return within._replace(end=within.start) if start is None or end is None else Span(start, end)


def _ends_the_day(end: Bound) -> bool:
    """11:59:59, with or without milliseconds."""
    return end.kind == "Absolute" and NOON - 1000 <= end.milliseconds < NOON


def _instant(bound: Bound, day: date, within: Span, place: Place) -> int | None:
    """µs UTC; None for a sunset or a sunrise while the sun is always up."""
    if bound.kind == "Absolute":
        return instant(day if bound.milliseconds >= NOON else day + timedelta(days=1), bound.milliseconds, place.zone)
    seen = sun_of(within, place)
    # Where only one of the two occurs, a polar night begins or ends: it is dark to that side of the day, as it is to both in a polar night.
    if bound.kind == "Sunset":
        event = seen.sunset if seen.sunset is not None else None if seen.up_at_start else within.start
    else:
        event = seen.sunrise if seen.sunrise is not None else None if seen.up_at_end else within.end
    return None if event is None else event + bound.milliseconds * 1000


def _union(spans: Iterable[Span], within: Span) -> tuple[Span, ...]:
    """Rules 6 and 7: what overlaps or touches is one. What ends before it starts stays empty when it is cut to the window, and is left out."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        cut = Span(max(start, within.start), min(end, within.end))
        if cut.start >= cut.end:
            continue
        if merged and cut.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, cut.end))
        else:
            merged.append(cut)
    return tuple(merged)


def is_on(profiles: Sequence[Profile], contactor: int, moment: int, place: Place) -> bool:
    """Whether the schedule wants the light to be on at a moment (µs UTC)."""
    return covered(effective(profiles, contactor, day_of(moment, place.zone), place).on, moment)


def switches(profiles: Sequence[Profile], contactor: int, after: int, until: int, place: Place) -> Iterator[Switch]:
    """Every switching in (after, until], µs UTC, in order. What goes on over a noon does not switch there (rule 7)."""
    day = day_of(after, place.zone)
    last = day_of(until, place.zone)
    lit = is_on(profiles, contactor, window(day, place.zone).start - 1, place)
    while day <= last:
        for switch in _switches(effective(profiles, contactor, day, place), lit):
            lit = switch.on
            if after < switch.at <= until:
                yield switch
        day += timedelta(days=1)


def _switches(day: Day, lit: bool) -> Iterator[Switch]:
    """Those of a day that began with the light ``lit``. A span that reaches the end leaves its switching off, if there is one, to the next day."""
    if lit and not (day.on and day.on[0].start == day.window.start):
        yield Switch(day.window.start, False)
        lit = False
    for start, end in day.on:
        if not lit:
            yield Switch(start, True)
        lit = end == day.window.end
        if not lit:
            yield Switch(end, False)


def next_switch(profiles: Sequence[Profile], contactor: int, after: int, place: Place, *, days: int = 366) -> Switch | None:
    """The next switching later than a moment (µs UTC), or None if there is none within so many days: ask again on the next day (rule 10)."""
    return next(switches(profiles, contactor, after, after + days * 86_400 * SECOND, place), None)


def answer(day: Day) -> list[tuple[str, str]]:
    """Start and end of each period as GetEffectiveStreetlightDaySchedule tells them: local, the end of the day as 11:59:59 (rule 9)."""
    return [(clock(start, day.zone), END_OF_DAY if end == day.window.end else clock(end, day.zone)) for start, end in day.on]


# ----------------------------------------------------------------------------------------------------------------- precedence


class State(NamedTuple):
    """What a light has to be, and who wants it."""

    on: bool
    mode: messages.Mode


def commanded(*, scheduled: bool, present: bool, remote: Override | None = None, local: bool | None = None) -> State:
    """Rule 8. ``present`` is the light as it is, which Suspend keeps; ``local`` what the local switch wants, None when it leaves the light alone."""
    if local is not None:
        return State(local, "LocalOverride")
    if remote is None:
        return State(scheduled, "Schedule")
    return State(present if remote == "Suspend" else remote == "On", "RemoteOverride")


# -------------------------------------------------------------------------------------------------------- taking profiles in


class Installed(NamedTuple):
    """The profiles that a station then has. With a fault the message is Rejected, and nothing has changed; warnings do not hinder."""

    profiles: tuple[Profile, ...]
    faults: tuple[FieldFault, ...]
    warnings: tuple[FieldFault, ...]


class Given(NamedTuple):
    """A profile as it came: for which contactor, and its JSON path."""

    path: str
    contactor: int
    profile: messages.StreetlightProfile


def install(present: Sequence[Profile], message: messages.SetStreetlightProfile, *, max_stack_level: int = MAX_STACK_LEVEL) -> Installed:
    """SetStreetlightProfile on a station with the profiles ``present``: wholly or not at all (L2, L4, L5, L8, L9, L14; I31 to I35)."""
    kept = [one for one in present if not (message.clearAllSchedules and one.contactor == message.contactorId)]
    came = [Given(f"$.streetlightProfiles[{index}]", message.contactorId, one) for index, one in enumerate(message.streetlightProfiles)]
    done = added(kept, came, max_stack_level)
    return done._replace(profiles=tuple(present)) if done.faults else done


def added(kept: Sequence[Profile], came: Sequence[Given], max_stack_level: int | None) -> Installed:
    """``kept`` with what came; one that has the id of a kept one takes its place. ``max_stack_level`` None: any."""
    notes = _Notes()
    replaced = {(one.contactor, one.profile.profileId) for one in came}
    stays = [one for one in kept if (one.contactor, one.id) not in replaced]
    ids: set[tuple[int, int]] = set()
    levels = {(one.contactor, one.stack_level): one.id for one in stays}
    new = []
    for given in came:
        path, contactor, profile = given
        id, level = (contactor, profile.profileId), (contactor, profile.stackLevel)
        if id in ids:
            notes.fault(f"{path}.profileId", f"{profile.profileId} came before; ids are unique for a contactor")
        elif level in levels:
            notes.fault(f"{path}.stackLevel", f"{profile.stackLevel} is that of profile {levels[level]}; levels are unique for a contactor")
        if max_stack_level is not None and profile.stackLevel > max_stack_level:
            notes.fault(f"{path}.stackLevel", f"is {profile.stackLevel}; at most {max_stack_level} is allowed (StreetlightProfileMaxStackLevel)")
        ids.add(id)
        levels.setdefault(level, profile.profileId)
        new.append(_read(given, notes))
    return Installed((*stays, *new), tuple(notes.faults), tuple(notes.warnings))


class _Notes:
    """What is wrong, and what is odd."""

    def __init__(self) -> None:
        self.faults: list[FieldFault] = []
        self.warnings: list[FieldFault] = []

    def fault(self, path: str, reason: str) -> None:
        self.faults.append(FieldFault(path, reason))

    def warn(self, path: str, reason: str) -> None:
        self.warnings.append(FieldFault(path, reason))


def _read(given: Given, notes: _Notes) -> Profile:
    """The profile; where something is wrong, with anything in its place, for then it is not installed."""
    path, contactor, came = given
    if came.validFrom is None and came.recurrencyKind != "Daily":
        notes.fault(f"{path}.validFrom", f"is missing; {came.recurrencyKind} needs it")
    since, until = _date(f"{path}.validFrom", came.validFrom, notes), _date(f"{path}.validTo", came.validTo, notes)
    if since is not None and until is not None:
        if until < since:
            notes.warn(f"{path}.validTo", "is before validFrom: the profile is never active")
        elif until > since and came.recurrencyKind == "None":
            notes.warn(f"{path}.validTo", "is ignored: None is the one day validFrom; use Daily for a range of days")
    periods = tuple(_period(f"{path}.daySchedule[{index}]", one, notes) for index, one in enumerate(came.daySchedule))
    return Profile(contactor, came.profileId, came.stackLevel, came.recurrencyKind, since, until, periods)


def _date(path: str, text: str | None, notes: _Notes) -> date | None:
    """The first ten characters, whatever offset stands behind them (I5)."""
    if text is None:
        return None
    found = _DATE.fullmatch(text)
    try:
        day = date.fromisoformat(found["date"]) if found else None
    except ValueError:
        day = None
    if found is None or day is None:
        notes.fault(path, f"expected a date (2026-03-28 or 2026-03-28T00:00:00), got {text[:40]!r}")
    elif found["offset"]:
        notes.warn(path, f"the offset {found['offset']} is ignored: the date {day} is local")
    return day


_DATE = re.compile(r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?(?P<offset>[Zz]|[+-][0-9]{2}:?[0-9]{2})?)?")


def _period(path: str, came: messages.Period, notes: _Notes) -> Period:
    before = len(notes.faults)
    period = Period(_read_bound(f"{path}.start", came.start, notes), _read_bound(f"{path}.end", came.end, notes))
    start, end = period.start, period.end
    if len(notes.faults) == before and start.kind == end.kind == "Absolute" and not _ends_the_day(end):
        begins, ends = ((one.milliseconds - NOON) % (2 * NOON) for one in (start, end))
        if ends <= begins and (begins, ends) != (0, 0):  # 12:00:00 to 12:00:00 is how one says "off tonight" (I37)
            notes.warn(path, "is never on: a day is from noon to noon, and this ends before it begins (the end of the day is 11:59:59)")
    return period


def _read_bound(path: str, came: messages.PeriodBound, notes: _Notes) -> Bound:
    """Table 18. What the kind does not need is ignored (I34)."""
    if came.kind == "Absolute":
        if came.offset is not None:
            notes.warn(f"{path}.offset", "is ignored: the kind is Absolute")
        told = milliseconds(came.time) if came.time is not None else None
        if told is None:
            got = "is missing; Absolute needs it" if came.time is None else f"expected HH:mm:ss or HH:mm:ss.mmm, got {came.time[:40]!r}"
            notes.fault(f"{path}.time", got)
        return Bound("Absolute", told or 0)
    if came.time is not None:
        notes.warn(f"{path}.time", f"is ignored: the kind is {came.kind}")
    if came.offset is None:
        notes.fault(f"{path}.offset", f"is missing; {came.kind} needs it")
    return Bound(came.kind, (came.offset or 0) * 1000)


# ---------------------------------------------------------------------------------------------- what another one answered


class Difference(NamedTuple):
    """From ``start`` until ``end`` (µs UTC) a station's schedule is not ours: ``ours`` is whether we want the light to be on."""

    start: int
    end: int
    ours: bool


def drift(own: Day, answered: Sequence[tuple[str, str]], tolerance: float = 120.0) -> list[Difference]:
    """Where a station's answer to GetEffectiveStreetlightDaySchedule (pairs of start and end) differs from our calculation.

    A difference of up to ``tolerance`` seconds is none if the day follows the sun, whose times two stations calculate differently; where all times
    are absolute only one second is allowed, for stations that do not tell milliseconds. Both are compared as they are told: an answer that is
    ambiguous in the night of a change of time is read in the same way on both sides. Raises InvalidInput with the path of each text that is no time.
    """
    ours, theirs = _told(own, answer(own)), _told(own, answered)
    allowed = (tolerance if own.winner is not None and own.winner.follows_the_sun else 1.0) * SECOND
    edges = sorted({edge for span in (*ours, *theirs) for edge in span})
    found: list[Difference] = []
    for start, end in pairwise(edges):
        wanted = covered(ours, start)
        if wanted == covered(theirs, start):
            continue
        if found and found[-1].end == start and found[-1].ours == wanted:
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Difference(start, end, wanted))
    return [one for one in found if one.end - one.start > allowed]


def _told(day: Day, pairs: Sequence[tuple[str, str]]) -> tuple[Span, ...]:
    """Told periods as spans of the day (rules 1, 5 to 7)."""
    spans, faults = [], []
    for index, pair in enumerate(pairs):
        bounds = []
        for name, text in zip(("start", "end"), pair, strict=True):
            told = milliseconds(text)
            if told is None:
                faults.append(FieldFault(f"$.daySchedule[{index}].{name}", f"expected HH:mm:ss or HH:mm:ss.mmm, got {text[:40]!r}"))
            else:
                bounds.append(Bound("Absolute", told))
        if len(bounds) == 2:
            spans.append(span_of(Period(bounds[0], bounds[1]), day.date, day.window, Place(day.zone, 0.0, 0.0)))
    if faults:
        raise InvalidInput(f"{faults[0].path}: {faults[0].reason}", tuple(faults))
    return _union(spans, day.window)


def covered(spans: Iterable[Span], moment: int) -> bool:
    """Whether a moment is inside one of them."""
    return any(start <= moment < end for start, end in spans)
