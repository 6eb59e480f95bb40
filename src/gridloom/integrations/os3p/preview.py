"""What ``gridloom os3p schedule preview`` prints: the effective day of a contactor, as JSON or as a night that people can read.

The file is a list of profiles as in SetStreetlightProfile, each with its ``contactorId``. Whatever is wrong with it or with the options is one
ConfigurationError that names the file and the JSON path, or the option, with what is expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core import faults
from gridloom.core.clock import to_datetime
from gridloom.core.errors import ConfigurationError, FieldFault, InvalidInput
from gridloom.core.settings import Zone
from gridloom.integrations.os3p import messages, schedule, sun
from gridloom.integrations.os3p.schedule import Bound, Day, Place, Profile, Span

PER_HOUR = 3
"""Characters of the bar."""
HOUR = 3600 * schedule.SECOND
LIT, DARK, DAYLIGHT = "█", "▒", " "


class Written(messages.StreetlightProfile, frozen=True, kw_only=True):
    """A profile as the file has it; what its dates may look like says ``schedule``, which takes a bare date, too."""

    contactorId: messages.Contactor
    validFrom: str | None = None
    validTo: str | None = None


class Switching(msgspec.Struct, frozen=True):
    """A period in UTC."""

    on: str
    off: str


class Preview(msgspec.Struct, frozen=True):
    """The JSON. ``winner`` is a profileId; ``daySchedule`` has local times, as GetEffectiveStreetlightDaySchedule tells them; ``switching`` are its
    periods as moments, those of this schedule day only.
    """

    winner: int | None
    daySchedule: tuple[messages.EffectivePeriod, ...]
    switching: tuple[Switching, ...]


def preview(profiles_file: str | Path, geolocation: str, timezone: str, contactor: int, day: str, as_json: bool = False) -> str:
    """The effective schedule of a contactor (1 to 4) from noon of ``day`` (YYYY-MM-DD) on, without a line end. Raises ConfigurationError."""
    place = _place(geolocation, timezone)
    try:
        asked = date.fromisoformat(day)
    except ValueError:
        raise ConfigurationError(f"--date: expected a date such as 2026-03-28, got {day[:40]!r}") from None
    if contactor not in range(1, 5):
        raise ConfigurationError(f"--contactor: expected 1 to 4, got {contactor}")
    profiles, warnings = _profiles(Path(profiles_file))
    try:
        found = schedule.effective(profiles, contactor, asked, place)
        begin, end = found.window
        before, after = (schedule.is_on(profiles, contactor, moment, place) for moment in (begin - 1, end))
    except InvalidInput as error:
        raise ConfigurationError(f"--date: {error.message}") from None
    if as_json:
        return msgspec.json.format(msgspec.json.encode(_as_json(found)), indent=2).decode()
    own = [one for one in profiles if one.contactor == contactor]
    return "\n".join(line.rstrip() for line in _lines(found, own, contactor, place, (before, after), warnings))


def _place(geolocation: str, timezone: str) -> Place:
    where = schedule.coordinates(geolocation)
    if where is None:
        raise ConfigurationError(
            f"--geolocation: expected [latitude,longitude] in degrees north (-90 to 90) and east (-180 to 180), such as '[52.09,5.12]', "
            f"got {geolocation[:40]!r}"
        )
    try:
        zone = ZoneInfo(Zone(timezone))
    except ValueError:
        raise ConfigurationError(f"--timezone: expected {Zone.ALLOWED}, got {timezone[:40]!r}") from None
    return Place(zone, *where)


def _profiles(file: Path) -> tuple[tuple[Profile, ...], tuple[FieldFault, ...]]:
    """The profiles of a file, and what is odd about them."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: {error.strerror}; expected a JSON list of profiles as in SetStreetlightProfile") from None
    try:
        written = faults.read_json(list[Written], raw, str(file))
    except InvalidInput as error:
        raise ConfigurationError(_told(file, error.faults)) from None
    given = [schedule.Given(f"$[{index}]", one.contactorId, one) for index, one in enumerate(written)]
    done = schedule.added((), given, None)
    if done.faults:
        raise ConfigurationError(_told(file, done.faults))
    # The key of the station is not known here, so that a level above its default is no fault.
    high = [
        FieldFault(f"{path}.stackLevel", f"is {one.stackLevel}; a station takes at most {schedule.MAX_STACK_LEVEL} by default")
        for path, _, one in given
        if one.stackLevel > schedule.MAX_STACK_LEVEL
    ]
    return done.profiles, (*done.warnings, *high)


def _told(file: Path, wrong: Sequence[FieldFault]) -> str:
    return "\n".join(f"{file}: {one.path}: {one.reason}" for one in wrong)


def _as_json(day: Day) -> Preview:
    return Preview(
        None if day.winner is None else day.winner.id,
        tuple(messages.EffectivePeriod(start=start, end=end) for start, end in schedule.answer(day)),
        tuple(Switching(_utc(start), _utc(end)) for start, end in day.on),
    )


def _utc(moment: int) -> str:
    """RFC 3339 with milliseconds where there are any."""
    text = to_datetime(moment).isoformat(timespec="milliseconds" if moment % schedule.SECOND else "seconds")
    return text.replace("+00:00", "Z")


# ----------------------------------------------------------------------------------------------------------------- for people


def _lines(
    day: Day, profiles: Sequence[Profile], contactor: int, place: Place, around: tuple[bool, bool], warnings: Sequence[FieldFault]
) -> Iterator[str]:
    """``around``: whether the light is on just before the first noon, and from the second one."""
    hours = (day.window.end - day.window.start) / HOUR
    changes = "" if hours == 24 else f", {hours:g} hours"
    yield f"contactor {contactor}, from noon of {day.date:%A} {day.date} ({place.zone.key}{changes}; {place.latitude}, {place.longitude})"
    yield ""
    yield from _sun(day, place)
    yield from _winner(day, profiles)
    yield from _periods(day, place, *around)
    yield ""
    yield from _bar(day, place)
    if warnings:
        yield ""
        yield from (f"note: {one.path}: {one.reason}" for one in warnings)


def _sun(day: Day, place: Place) -> Iterator[str]:
    seen = schedule.sun_of(day.window, place)
    for name, event in (("sunset", seen.sunset), ("sunrise", seen.sunrise)):
        if event is not None:
            yield f"{name:<8} {schedule.clock(event, day.zone)}  {_utc(event)}"
    if seen.sunset is None and seen.sunrise is None:
        always = "up: a period with Sunset or Sunrise is off" if seen.up_at_start else "down: Sunset is noon, and Sunrise the next noon"
        yield f"sun      always {always}"
    elif seen.sunset is None:
        yield "sunset   none: it is dark from noon on, and Sunset is noon"
    elif seen.sunrise is None:
        yield "sunrise  none: it is dark until noon, and Sunrise is the next noon"
    elif seen.sunrise <= seen.sunset:
        yield "         the sun rises before it sets between these noons: a period from Sunset to Sunrise ends before it starts, and is off"


def _winner(day: Day, profiles: Sequence[Profile]) -> Iterator[str]:
    if day.winner is None:
        yield "winner   none: the light is off"
    else:
        active = sum(one.active(day.date) for one in profiles)
        why = "the only active profile" if active == 1 else f"the highest stack level of {active} active profiles"
        yield f"winner   profile {day.winner.id}: {_named(day.winner)}; {why}"
    for one in sorted(profiles, key=lambda one: -one.stack_level):
        if one != day.winner:
            yield f"         not profile {one.id}: {_named(one)}; {_why_not(one, day.date)}"


def _named(profile: Profile) -> str:
    return f"stack level {profile.stack_level}, {profile.recurrence}"


def _why_not(profile: Profile, day: date) -> str:
    if profile.active(day):
        return "a lower stack level"
    if profile.valid_from is not None and day < profile.valid_from:
        return f"valid from {profile.valid_from}"
    if profile.valid_to is not None and day > profile.valid_to:
        return f"valid to {profile.valid_to}"
    return f"only on {profile.valid_from:%A}s" if profile.recurrence == "Weekly" else f"only on {profile.valid_from}"


def _periods(day: Day, place: Place, before: bool, after: bool) -> Iterator[str]:
    for period in () if day.winner is None else day.winner.periods:
        start, end = schedule.span_of(period, day.date, day.window, place)
        yield f"period   {_bound(period.start)} to {_bound(period.end)}{'' if start < end else ': never on this day'}"
    for span, (start_text, end_text) in zip(day.on, schedule.answer(day), strict=True):
        was_on = "; was on before" if before and span.start == day.window.start else ""
        goes_on = "; goes on after noon" if after and span.end == day.window.end else ""
        yield f"on       {start_text} to {end_text}  ({_long(span)}; {_utc(span.start)} to {_utc(span.end)}{was_on}{goes_on})"
    if not day.on:
        yield "on       never"


def _bound(bound: Bound) -> str:
    if bound.kind == "Absolute":
        return (schedule.EPOCH + timedelta(milliseconds=bound.milliseconds)).strftime("%H:%M:%S") + _fraction(bound.milliseconds)
    seconds = bound.milliseconds // 1000
    return bound.kind if seconds == 0 else f"{bound.kind} {'+' if seconds > 0 else '−'} {abs(seconds)} s"


def _fraction(milliseconds: int) -> str:
    return f".{milliseconds % 1000:03}" if milliseconds % 1000 else ""


def _long(span: Span) -> str:
    minutes = round((span.end - span.start) / (60 * schedule.SECOND))
    return f"{minutes // 60} h {minutes % 60:02} min"


def _bar(day: Day, place: Place) -> Iterator[str]:
    """The day from noon to noon: hours, the dark, the light. A character shows what holds in its middle."""
    step = HOUR // PER_HOUR
    count = round((day.window.end - day.window.start) / step)
    middles = [day.window.start + step * index + step // 2 for index in range(count)]
    hours = [schedule.clock(day.window.start + HOUR * index, day.zone)[:2] for index in range(-(-count // PER_HOUR))]
    yield "         " + "".join(f"{hour:<{PER_HOUR}}" for hour in hours)
    yield "dark     " + "".join(DAYLIGHT if sun.is_up(one, place.latitude, place.longitude) else DARK for one in middles)
    yield "on       " + "".join(LIT if schedule.covered(day.on, one) else "·" for one in middles)
