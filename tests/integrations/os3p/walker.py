"""The oracle of the schedule: walks through a night second by second and looks at the clock on the wall. It shares no import with the engine.

A time of a schedule is reached as soon as the clock on the wall shows it or has gone past it. Nothing is turned round: no instant is calculated from
a wall time. Profiles are the JSON of SetStreetlightProfile; what the sun does is given as data. Moments are milliseconds UTC.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

Json = dict[str, Any]
Spans = list[tuple[int, int]]
Sunlight = Callable[[int, int], tuple[int | None, int | None, bool]]
"""Of a window in seconds UTC: sunset and sunrise in it (seconds UTC or None), and whether the sun is up when it begins."""
HOUR, DAY = 3600, 86_400


@lru_cache(maxsize=64)
def hand(zone: str, day: date) -> tuple[int, array[int]]:
    """The second (UTC) at which the walk of a day begins, and for each second the furthest (ms) that the wall clock has shown until then."""
    begin = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) - 16 * HOUR
    furthest, shown, offset = array("q"), -(10**18), 0
    for second in range(begin, begin + DAY + 32 * HOUR):
        if second % 60 == 0:  # clocks are changed at whole minutes nowadays
            there = datetime.fromtimestamp(second, UTC).astimezone(ZoneInfo(zone)).utcoffset()
            assert there is not None
            offset = int(there.total_seconds())
        shown = max(shown, (second + offset) * 1000)
        furthest.append(shown)
    return begin, furthest


def reached(zone: str, walk: date, day: date, milliseconds: int) -> int:
    """When, on the walk of one day, the clock reaches a time of a day."""
    begin, furthest = hand(zone, walk)
    wanted = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000 + milliseconds
    for index, shown in enumerate(furthest):
        if shown + 1000 > wanted:
            return (begin + index) * 1000 + max(0, wanted - shown)
    raise AssertionError("the walk is too short")


@lru_cache(maxsize=64)
def noons(zone: str, day: date) -> tuple[int, int]:
    """From noon to noon."""
    return reached(zone, day, day, DAY * 500), reached(zone, day, day + timedelta(days=1), DAY * 500)


def time_of_day(text: str) -> int:
    clock, _, fraction = text.partition(".")
    hours, minutes, seconds = clock.split(":")
    return int(hours) * 3_600_000 + int(minutes) * 60_000 + int(seconds) * 1000 + int((fraction + "000")[:3])


def winner(profiles: Sequence[Json], day: date) -> Json | None:
    """The active profile on top of the stack."""
    for profile in sorted(profiles, key=lambda one: -one["stackLevel"]):
        since = date.fromisoformat(profile["validFrom"][:10]) if "validFrom" in profile else None
        until = date.fromisoformat(profile["validTo"][:10]) if "validTo" in profile else None
        kind = profile["recurrencyKind"]
        if since is not None and since > day:
            continue
        if until is not None and until < day:
            continue
        if kind == "Weekly" and since is not None and since.weekday() != day.weekday():
            continue
        if kind == "None" and since != day:
            continue
        return profile
    return None


def moment(bound: Json, zone: str, day: date, is_end: bool, sunlight: Sunlight) -> int | None:
    """When a bound of a period comes, in ms UTC; None while the sun does not set."""
    begin, end = noons(zone, day)
    if bound["kind"] == "Absolute":
        if is_end and bound["time"].startswith("11:59:59"):
            return end
        told = time_of_day(bound["time"])
        return reached(zone, day, day if told >= DAY * 500 else day + timedelta(days=1), told)
    sunset, sunrise, up = sunlight(begin // 1000, end // 1000)
    if sunset is None and sunrise is None and up:
        return None
    event = sunset if bound["kind"] == "Sunset" else sunrise
    if event is None:  # dark from the noon on, or until the noon
        event = begin // 1000 if bound["kind"] == "Sunset" else end // 1000
    offset: int = bound["offset"]
    return (event + offset) * 1000


def lit(profiles: Sequence[Json], zone: str, day: date, sunlight: Sunlight) -> Spans:
    """When the light is on in a schedule day: the state is looked at in every second, and where a bound lies inside a second, there too."""
    begin, end = noons(zone, day)
    chosen = winner(profiles, day)
    periods = []
    for period in chosen["daySchedule"] if chosen else []:
        start = moment(period["start"], zone, day, False, sunlight)
        stop = moment(period["end"], zone, day, True, sunlight)
        if start is not None and stop is not None:
            periods.append((start, stop))
    fine = sorted({bound for period in periods for bound in period if begin <= bound < end and bound % 1000})
    spans: Spans = []
    since = None
    for now in looks(begin, end, fine):
        on = False
        for start, stop in periods:
            if start <= now < stop:
                on = True
        if on and since is None:
            since = now
        elif not on and since is not None:
            spans.append((since, now))
            since = None
    if since is not None:
        spans.append((since, end))
    return spans


def looks(begin: int, end: int, fine: Sequence[int]) -> Iterator[int]:
    """Every second, and the given moments between them, in order."""
    waiting = list(fine)
    for second in range(begin, end, 1000):
        yield second
        while waiting and waiting[0] < second + 1000:
            yield waiting.pop(0)


def switching(profiles: Sequence[Json], zone: str, first: date, count: int, sunlight: Sunlight) -> list[tuple[int, bool]]:
    """Switchings (ms UTC, on or off) over consecutive days, seen as one long night: what ends where the next begins does not switch."""
    joined: list[list[int]] = []
    for number in range(count):
        for start, end in lit(profiles, zone, first + timedelta(days=number), sunlight):
            if joined and joined[-1][1] == start:
                joined[-1][1] = end
            else:
                joined.append([start, end])
    return [edge for start, end in joined for edge in ((start, True), (end, False))]
