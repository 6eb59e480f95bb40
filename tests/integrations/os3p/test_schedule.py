"""The ten rules of the street-light schedule: by example, against the second-by-second walker, and what holds for every schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integrations.os3p import walker
from tests.integrations.os3p.walker import Json

from gridloom.core.errors import InvalidInput
from gridloom.integrations.os3p import schedule, sun
from gridloom.integrations.os3p.messages import Period, SetStreetlightProfile, StreetlightProfile
from gridloom.integrations.os3p.schedule import Difference, Override, Place, Profile, State, Switch

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
UTRECHT = Place(ZoneInfo("Europe/Amsterdam"), 52.09, 5.12)
TROMSO = Place(ZoneInfo("Europe/Oslo"), 69.65, 18.96)
REYKJAVIK = Place(ZoneInfo("Atlantic/Reykjavik"), 64.1466, -21.9426)
LONGYEARBYEN = Place(ZoneInfo("Europe/Oslo"), 78.22, 15.65)
MURMANSK = Place(ZoneInfo("Europe/Moscow"), 68.97, 33.08)
SUMMER = date(2026, 7, 1)
SPRING, AUTUMN = date(2026, 3, 28), date(2026, 10, 24)
"""The schedule days with the changes of time of Europe: 23 and 25 hours."""

# zone, latitude, longitude, and days around what is odd there
ODD: list[tuple[str, float, float, list[date]]] = [
    ("Europe/Amsterdam", 52.09, 5.12, [date(2026, 3, 27), SPRING, date(2026, 3, 29), date(2026, 10, 23), AUTUMN, date(2026, 10, 25)]),
    ("America/St_Johns", 47.56, -52.71, [date(2026, 3, 7), date(2026, 3, 8), date(2026, 10, 31), date(2006, 4, 1), date(2006, 10, 28)]),  # at 00:01
    ("Australia/Lord_Howe", -31.55, 159.08, [date(2026, 4, 4), date(2026, 4, 5), date(2026, 10, 3), date(2026, 10, 4)]),  # half an hour
    ("Pacific/Apia", -13.83, -171.76, [date(2011, 12, 28), date(2011, 12, 29), date(2011, 12, 30), date(2011, 12, 31)]),  # 30 December never was
    ("Africa/Casablanca", 33.57, -7.59, [date(2026, 2, 14), date(2026, 2, 15), date(2026, 3, 21), date(2026, 3, 22)]),  # back for Ramadan
    ("Asia/Kathmandu", 27.71, 85.32, [date(2026, 6, 1), date(2026, 12, 31)]),
    ("Europe/Oslo", 69.65, 18.96, [date(2026, 1, 15), date(2026, 5, 18), date(2026, 7, 26), date(2026, 11, 25), date(2026, 12, 21), SPRING]),
]


def at(text: str) -> int:
    """µs UTC of RFC 3339."""
    moment = datetime.fromisoformat(text)
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


def clock(time: str) -> Json:
    return {"kind": "Absolute", "time": time}


def sunset(offset: int = 0) -> Json:
    return {"kind": "Sunset", "offset": offset}


def sunrise(offset: int = 0) -> Json:
    return {"kind": "Sunrise", "offset": offset}


def period(start: Json | str, end: Json | str) -> Json:
    return {"start": clock(start) if isinstance(start, str) else start, "end": clock(end) if isinstance(end, str) else end}


def profile(*periods: Json, id: int = 1, level: int = 0, kind: str = "Daily", **more: Any) -> Json:
    return {"profileId": id, "stackLevel": level, "recurrencyKind": kind, "daySchedule": list(periods), **more}


def message(*profiles: Json, contactor: int = 1, clear: bool = False) -> SetStreetlightProfile:
    """As the tolerant reading leaves it: the dates are any text."""
    parts = [{**one, "daySchedule": msgspec.convert(one["daySchedule"], tuple[Period, ...])} for one in profiles]
    return SetStreetlightProfile(
        contactorId=contactor, clearAllSchedules=clear, streetlightProfiles=tuple(StreetlightProfile(**one) for one in parts)
    )


def install(*profiles: Json, contactor: int = 1) -> tuple[Profile, ...]:
    done = schedule.install((), message(*profiles, contactor=contactor))
    assert done.faults == ()
    return done.profiles


def told(profiles: Sequence[Profile], day: date, place: Place = UTRECHT) -> list[tuple[str, str]]:
    return schedule.answer(schedule.effective(profiles, 1, day, place))


def spans(profiles: Sequence[Profile], day: date, place: Place = UTRECHT) -> list[tuple[int, int]]:
    return [(start, end) for start, end in schedule.effective(profiles, 1, day, place).on]


# ---------------------------------------------------------------------------------------------------------- rules 1 and 2


@pytest.mark.parametrize(
    ("zone", "day", "time", "expected"),
    [
        ("Europe/Amsterdam", "2026-07-01", "21:03:00.500", "2026-07-01T19:03:00.500Z"),
        ("Europe/Amsterdam", "2026-10-25", "02:30:00", "2026-10-25T00:30:00Z"),  # repeated: the first
        ("Europe/Amsterdam", "2026-03-29", "02:30:00", "2026-03-29T01:00:00Z"),  # skipped: the change
        ("Europe/Amsterdam", "2026-03-29", "02:00:00", "2026-03-29T01:00:00Z"),
        ("Europe/Amsterdam", "2026-03-29", "03:00:00", "2026-03-29T01:00:00Z"),
        ("Europe/Amsterdam", "2026-03-29", "01:59:59.999", "2026-03-29T00:59:59.999Z"),
        ("Australia/Lord_Howe", "2026-10-04", "02:15:00", "2026-10-03T15:30:00Z"),
        ("Australia/Lord_Howe", "2026-04-05", "01:45:00", "2026-04-04T14:45:00Z"),
        ("Pacific/Apia", "2011-12-30", "18:00:00", "2011-12-30T10:00:00Z"),
        ("America/St_Johns", "2006-04-02", "00:30:00", "2006-04-02T03:31:00Z"),
        ("Asia/Kathmandu", "2026-07-01", "00:00:00", "2026-06-30T18:15:00Z"),
    ],
)
def test_the_instant_of_a_wall_time(zone: str, day: str, time: str, expected: str) -> None:
    milliseconds = schedule.milliseconds(time)
    assert milliseconds is not None
    assert schedule.instant(date.fromisoformat(day), milliseconds, ZoneInfo(zone)) == at(expected)


moments = st.tuples(st.integers(0, 3), st.integers(0, 86_399_999))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ODD), st.data(), moments, moments)
def test_what_is_not_later_on_the_clock_is_not_later(odd: tuple[str, float, float, list[date]], data: st.DataObject, a: Any, b: Any) -> None:
    zone, day = ZoneInfo(odd[0]), data.draw(st.sampled_from(odd[3]))
    (first, early), (second, late) = sorted((a, b))
    before = schedule.instant(day + timedelta(days=first), early, zone)
    after = schedule.instant(day + timedelta(days=second), late, zone)
    assert before <= after


@pytest.mark.parametrize(("day", "hours"), [(SUMMER, 24), (SPRING, 23), (AUTUMN, 25)])
def test_L1_a_schedule_day_is_noon_to_noon(day: date, hours: int) -> None:
    within = schedule.window(day, UTRECHT.zone)
    assert within.end - within.start == hours * HOUR
    assert schedule.window(day + timedelta(days=1), UTRECHT.zone).start == within.end
    assert [schedule.day_of(moment, UTRECHT.zone) for moment in (within.start - 1000, within.start, within.end - 1000, within.end)] == [
        day - timedelta(days=1), day, day, day + timedelta(days=1),
    ]  # fmt: skip


def test_a_date_that_never_was_shares_its_night() -> None:
    """Apia went from the end of 29 December 2011 to 31 December."""
    zone = ZoneInfo("Pacific/Apia")
    eve, never = (schedule.window(date(2011, 12, day), zone) for day in (29, 30))
    assert eve.end == never.start == at("2011-12-30T10:00:00Z")
    assert never.end - never.start == 12 * HOUR
    assert schedule.day_of(never.start, zone) == date(2011, 12, 30)


@pytest.mark.parametrize("day", [date(1899, 12, 31), date(2201, 1, 1), date.max, date.min])
def test_a_date_out_of_reach_is_refused(day: date) -> None:
    with pytest.raises(InvalidInput, match="1900 to 2200"):
        schedule.effective((), 1, day, UTRECHT)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[52.09,5.12]", (52.09, 5.12)), (" [ -33.8 , 151 ] ", (-33.8, 151.0)), ("[90,-180]", (90.0, -180.0)), ("[+1.,.5]", (1.0, 0.5)),
        ("[90.1,0]", None), ("[0,180.01]", None), ("52.09,5.12", None), ("[52.09]", None), ("[1,2,3]", None), ("[1e1,2]", None), ("[nan,0]", None),
        ("", None), ("[٣,4]", None), ("[" + "9" * 400 + ",0]", None),
    ],
)  # fmt: skip
def test_S8_a_geolocation_is_two_reals_in_brackets(text: str, expected: tuple[float, float] | None) -> None:
    assert schedule.coordinates(text) == expected


# ------------------------------------------------------------------------------------------------------------ rules 3 and 4


def on_days(profiles: Sequence[Profile], first: str, last: str) -> list[str]:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    days = [begin + timedelta(days=number) for number in range((end - begin).days + 1)]
    return [day.isoformat()[5:] for day in days if schedule.effective(profiles, 1, day, UTRECHT).on]


def test_L6_valid_from_counts_from_noon_of_its_date() -> None:
    night = install(profile(period("12:00:00", "11:59:59"), validFrom="2026-07-02T18:30:00"))
    assert on_days(night, "2026-06-30", "2026-07-04") == ["07-02", "07-03", "07-04"]
    assert not schedule.is_on(night, 1, at("2026-07-02T11:59:59+02:00"), UTRECHT)
    assert schedule.is_on(night, 1, at("2026-07-02T12:00:00+02:00"), UTRECHT)


def test_L6_a_weekly_profile_has_the_weekday_of_valid_from() -> None:
    assert on_days(install(profile(period("20:00:00", "23:00:00"), kind="Weekly", validFrom="2026-07-03")), "2026-06-24", "2026-07-20") == [
        "07-03", "07-10", "07-17",
    ]  # fmt: skip


def test_L7_valid_to_is_inclusive_until_the_next_noon() -> None:
    night = install(profile(period("12:00:00", "11:59:59"), validTo="2026-07-02T00:00:00"))
    assert on_days(night, "2026-07-01", "2026-07-05") == ["07-01", "07-02"]
    assert schedule.is_on(night, 1, at("2026-07-03T11:59:59.999+02:00"), UTRECHT)
    assert not schedule.is_on(night, 1, at("2026-07-03T12:00:00+02:00"), UTRECHT)


def test_L8_none_is_the_one_day_of_valid_from() -> None:
    once = install(profile(period("20:00:00", "23:00:00"), kind="None", validFrom="2026-07-02T00:00:00", validTo="2026-07-05T00:00:00"))
    assert on_days(once, "2026-06-25", "2026-07-10") == ["07-02"]


def test_L4_the_highest_active_level_rules_the_whole_day_alone() -> None:
    profiles = install(
        profile(period("18:00:00", "23:00:00"), id=1, level=0),
        profile(period("05:00:00", "07:00:00"), id=2, level=3, kind="Weekly", validFrom="2026-07-01"),
        profile(period("12:00:00", "12:00:00"), id=3, level=9, kind="None", validFrom="2026-07-08"),
    )
    assert told(profiles, date(2026, 7, 1)) == [("05:00:00", "07:00:00")]
    assert told(profiles, date(2026, 7, 2)) == [("18:00:00", "23:00:00")]
    assert told(profiles, date(2026, 7, 8)) == []  # I37: off tonight
    winners = [schedule.effective(profiles, 1, date(2026, 7, day), UTRECHT).winner for day in (1, 2, 8)]
    assert [one.id if one else None for one in winners] == [2, 1, 3]


def test_L14_without_an_active_profile_the_light_is_off() -> None:
    day = schedule.effective(install(profile(period("18:00:00", "23:00:00")), contactor=2), 1, SUMMER, UTRECHT)
    assert (day.winner, day.on) == (None, ())


# ---------------------------------------------------------------------------------------------------------- rules 5, 6 and 7


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        ([("20:00:00", "23:00:00")], [("20:00:00", "23:00:00")]),
        ([("23:00:00", "05:30:00")], [("23:00:00", "05:30:00")]),
        ([("05:30:00", "23:00:00")], []),  # L11: end before start
        ([("21:00:00", "21:00:00")], []),
        ([("20:00:00", "11:59:59")], [("20:00:00", "11:59:59")]),
        ([("20:00:00", "11:59:59.250")], [("20:00:00", "11:59:59")]),
        ([("20:00:00", "11:59:58.999")], [("20:00:00", "11:59:58.999")]),
        ([("20:00:00", "12:00:00")], []),  # I35
        ([("12:00:00", "11:59:59")], [("12:00:00", "11:59:59")]),
        ([("12:00:00", "12:00:00")], []),
        ([("21:03:00.5", "21:03:00.750")], [("21:03:00.500", "21:03:00.750")]),
        ([("05:00:00", "07:00:00"), ("20:00:00", "23:00:00")], [("20:00:00", "23:00:00"), ("05:00:00", "07:00:00")]),
        ([("20:00:00", "22:00:00"), ("21:00:00", "23:00:00")], [("20:00:00", "23:00:00")]),
        ([("20:00:00", "22:00:00"), ("22:00:00", "23:00:00")], [("20:00:00", "23:00:00")]),
        ([("20:00:00", "23:00:00"), ("21:00:00", "22:00:00")], [("20:00:00", "23:00:00")]),
        ([("20:00:00", "22:00:00"), ("22:00:00.001", "23:00:00")], [("20:00:00", "22:00:00"), ("22:00:00.001", "23:00:00")]),
    ],
)
def test_L11_periods_of_a_day(periods: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    assert told(install(profile(*(period(*one) for one in periods))), SUMMER) == expected


def test_the_end_of_the_day_is_noon_itself() -> None:
    assert spans(install(profile(period("20:00:00", "11:59:59"))), SUMMER) == [(at("2026-07-01T20:00:00+02:00"), at("2026-07-02T12:00:00+02:00"))]


def test_a_night_in_spring_and_one_in_autumn() -> None:
    profiles = install(profile(period("01:30:00", "02:30:00"), period("04:00:00", "05:00:00")))
    assert told(profiles, SPRING) == [("01:30:00", "03:00:00"), ("04:00:00", "05:00:00")]
    assert spans(profiles, SPRING)[0] == (at("2026-03-29T00:30:00Z"), at("2026-03-29T01:00:00Z"))
    assert told(profiles, AUTUMN) == [("01:30:00", "02:30:00"), ("04:00:00", "05:00:00")]
    assert spans(profiles, AUTUMN)[0] == (at("2026-10-24T23:30:00Z"), at("2026-10-25T00:30:00Z"))
    inside = install(profile(period("02:10:00", "02:50:00")))
    assert told(inside, SPRING) == []
    assert spans(inside, AUTUMN) == [(at("2026-10-25T00:10:00Z"), at("2026-10-25T00:50:00Z"))]


def test_L10_sunset_is_of_the_evening_and_sunrise_of_the_morning_after() -> None:
    profiles = install(profile(period(sunset(-600), sunrise(900))))
    for day in (SUMMER, SPRING, AUTUMN, date(2026, 12, 21)):
        within = schedule.window(day, UTRECHT.zone)
        seen = sun.between(within.start, within.end, UTRECHT.latitude, UTRECHT.longitude)
        assert seen.sunset is not None
        assert seen.sunrise is not None
        assert spans(profiles, day) == [(seen.sunset - 600 * SECOND, seen.sunrise + 900 * SECOND)]
        assert within.start < seen.sunset < seen.sunrise < within.end


def test_L11_offsets_that_cross_an_absolute_time_keep_the_light_off() -> None:
    profiles = install(profile(period("05:00:00", sunrise())))
    assert told(profiles, SUMMER) != told(profiles, date(2026, 12, 21))
    assert told(install(profile(period("06:00:00", sunrise()))), SUMMER) == []


def test_a_sunset_after_midnight_belongs_to_the_day_before() -> None:
    (start, end), = spans(install(profile(period(sunset(), sunrise()))), date(2024, 6, 20), REYKJAVIK)  # fmt: skip
    assert at("2024-06-21T00:00:00Z") < start < end < at("2024-06-21T03:00:00Z")


def test_polar_day_and_polar_night() -> None:
    profiles = install(profile(period(sunset(), sunrise()), period("22:00:00", sunrise()), period("03:00:00", "04:00:00")))
    assert told(profiles, date(2026, 6, 21), TROMSO) == [("03:00:00", "04:00:00")]
    assert told(install(profile(period(sunset(), "23:00:00"), period(sunrise(), "23:00:00"))), date(2026, 6, 21), TROMSO) == []
    assert told(profiles, date(2026, 12, 21), TROMSO) == [("12:00:00", "11:59:59")]
    shifted = install(profile(period(sunset(1800), sunrise(-1800))))
    assert told(shifted, date(2026, 12, 21), TROMSO) == [("12:30:00", "11:30:00")]


def test_where_a_polar_night_begins_it_is_dark_until_noon_and_where_it_ends_from_noon_on() -> None:
    """Longyearbyen: the last sunset has no sunrise after it in its schedule day, the first sunrise no sunset before it."""
    profiles = install(profile(period(sunset(), sunrise())))
    assert [told(profiles, date(2026, 10, day), LONGYEARBYEN) for day in (26, 27)] == [[("12:09:16", "11:59:59")], [("12:00:00", "11:59:59")]]
    assert [told(profiles, date(2026, 2, day), LONGYEARBYEN) for day in (13, 14)] == [[("12:00:00", "11:59:59")], [("12:00:00", "11:57:05")]]


def test_events_in_the_wrong_order_inside_a_day_are_an_end_before_its_start() -> None:
    """Murmansk: on 30 November the sun is up from 12:03 to 13:08. Rules 5 and 6 to the letter."""
    day = schedule.effective(install(profile(period(sunset(), sunrise()))), 1, date(2026, 11, 30), MURMANSK)
    seen = schedule.sun_of(day.window, MURMANSK)
    assert seen.sunset is not None
    assert seen.sunrise is not None
    assert day.window.start < seen.sunrise < seen.sunset < day.window.end
    assert day.on == ()


def test_an_empty_period_is_dropped_before_it_is_cut() -> None:
    """Both bounds are outside the window, the end before the start: clipping would not make it better."""
    assert told(install(profile(period(sunset(-86_400), sunset(-86_400)), period(sunrise(80_000), sunset(-80_000)))), SUMMER) == []
    assert told(install(profile(period(sunset(-86_400), "20:00:00"))), SUMMER) == [("12:00:00", "20:00:00")]


def test_touching_at_noon_is_no_switching() -> None:
    profiles = install(profile(period("20:00:00", "11:59:59"), period("12:00:00", "13:00:00")))
    begin, end = at("2026-07-01T15:00:00+02:00"), at("2026-07-03T15:00:00+02:00")
    assert list(schedule.switches(profiles, 1, begin, end, UTRECHT)) == [
        Switch(at("2026-07-01T20:00:00+02:00"), True), Switch(at("2026-07-02T13:00:00+02:00"), False),
        Switch(at("2026-07-02T20:00:00+02:00"), True), Switch(at("2026-07-03T13:00:00+02:00"), False),
    ]  # fmt: skip
    always = install(profile(period("12:00:00", "11:59:59")))
    assert list(schedule.switches(always, 1, begin, end, UTRECHT)) == []
    assert schedule.is_on(always, 1, begin, UTRECHT)
    assert schedule.next_switch(always, 1, begin, UTRECHT) is None


def test_a_day_that_ends_on_and_one_that_begins_off_switch_at_noon() -> None:
    profiles = install(
        profile(period("20:00:00", "11:59:59"), id=1, validFrom="2026-07-01", validTo="2026-07-01"),
        profile(period("12:00:00", "12:30:00"), id=2, level=1, kind="None", validFrom="2026-07-05"),
    )
    found = list(schedule.switches(profiles, 1, at("2026-07-01T12:00:00+02:00"), at("2026-07-09T12:00:00+02:00"), UTRECHT))
    assert [(schedule.clock(one.at, UTRECHT.zone), one.on) for one in found] == [
        ("20:00:00", True), ("12:00:00", False), ("12:00:00", True), ("12:30:00", False),
    ]  # fmt: skip


def test_the_next_switch_is_later_than_the_moment() -> None:
    profiles = install(profile(period("20:00:00", "23:00:00")))
    on, off = at("2026-07-01T20:00:00+02:00"), at("2026-07-01T23:00:00+02:00")
    assert schedule.next_switch(profiles, 1, on - 1000, UTRECHT) == Switch(on, True)
    assert schedule.next_switch(profiles, 1, on, UTRECHT) == Switch(off, False)
    assert schedule.next_switch(profiles, 1, off, UTRECHT) == Switch(on + DAY, True)
    assert schedule.next_switch((), 1, on, UTRECHT) is None
    far = install(profile(period("20:00:00", "23:00:00"), validFrom="2026-08-01"))
    assert schedule.next_switch(far, 1, on, UTRECHT, days=10) is None
    assert schedule.next_switch(far, 1, on, UTRECHT) == Switch(at("2026-08-01T20:00:00+02:00"), True)


def test_L12_the_answer_has_local_times_and_1159_59_for_the_end_of_the_day() -> None:
    profiles = install(profile(period("12:00:00", "12:00:00.001"), period("20:00:00.040", "01:00:00"), period("06:00:00", "11:59:59")))
    assert told(profiles, SUMMER) == [("12:00:00", "12:00:00.001"), ("20:00:00.040", "01:00:00"), ("06:00:00", "11:59:59")]


# ------------------------------------------------------------------------------------------------- the walker, and properties


def sunlight(latitude: float, longitude: float) -> walker.Sunlight:
    """What the walker is told about the sun."""

    def seen(begin: int, end: int) -> tuple[int | None, int | None, bool]:
        found = sun.between(begin * SECOND, end * SECOND, latitude, longitude)
        seconds = [None if event is None else event // SECOND for event in (found.sunset, found.sunrise)]
        return seconds[0], seconds[1], found.up_at_start

    return seen


@st.composite
def times(draw: st.DrawFn) -> str:
    near = draw(st.sampled_from([None, 0, 1, 2, 3, 11, 12, 23]))
    hour = draw(st.integers(0, 23)) if near is None else near
    second = draw(st.sampled_from([0, 1, 1799, 1800, 1801, 3598, 3599]) | st.integers(0, 3599))
    fraction = draw(st.sampled_from(["", "", ".000", ".001", ".5", ".999"]))
    return f"{hour:02}:{second // 60:02}:{second % 60:02}{fraction}"


bounds = st.one_of(
    times().map(clock),
    st.builds(lambda kind, offset: {"kind": kind, "offset": offset}, st.sampled_from(["Sunset", "Sunrise"]), st.integers(-86_400, 86_400)),
    st.builds(lambda kind, offset: {"kind": kind, "offset": offset}, st.sampled_from(["Sunset", "Sunrise"]), st.integers(-3_600, 3_600)),
)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, Place, date, list[Json]]:
    """A place, a day near something odd, and up to five profiles."""
    zone, latitude, longitude, days = draw(st.sampled_from(ODD))
    day = draw(st.sampled_from(days))
    near = st.integers(-15, 3).map(lambda days: (day + timedelta(days=days)).isoformat())
    profiles = []
    for id, level in enumerate(draw(st.lists(st.integers(0, 16), min_size=1, max_size=5, unique=True))):
        kind = draw(st.sampled_from(["Daily", "Daily", "Weekly", "None"]))
        more: Json = {}
        if kind != "Daily" or draw(st.booleans()):
            more["validFrom"] = draw(near if kind == "Daily" else st.sampled_from([day.isoformat(), (day - timedelta(days=7)).isoformat()]) | near)
        if draw(st.booleans()):
            more["validTo"] = draw(st.integers(-2, 5).map(lambda days: (day + timedelta(days=days)).isoformat())) + "T23:00:00"
        profiles.append(profile(*draw(st.lists(st.builds(period, bounds, bounds), min_size=1, max_size=4)), id=id, level=level, kind=kind, **more))
    return zone, Place(ZoneInfo(zone), latitude, longitude), day, profiles


WALKED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@WALKED
@given(scenes())
def test_the_engine_says_what_the_walker_sees(scene: tuple[str, Place, date, list[Json]]) -> None:
    zone, place, day, profiles = scene
    day_of_engine = schedule.effective(install(*profiles), 1, day, place)
    begin, end = walker.noons(zone, day)
    assert day_of_engine.window == (begin * 1000, end * 1000)
    chosen = walker.winner(profiles, day)
    assert (day_of_engine.winner.id if day_of_engine.winner else None) == (chosen["profileId"] if chosen else None)
    seen = walker.lit(profiles, zone, day, sunlight(place.latitude, place.longitude))
    assert list(day_of_engine.on) == [(start * 1000, stop * 1000) for start, stop in seen]


@settings(WALKED, max_examples=30)
@given(scenes(), st.data())
def test_states_and_switchings_are_those_of_the_walker_over_days(scene: tuple[str, Place, date, list[Json]], data: st.DataObject) -> None:
    zone, place, day, profiles = scene
    installed, first = install(*profiles), day - timedelta(days=1)
    seen = [Switch(moment * 1000, on) for moment, on in walker.switching(profiles, zone, first, 3, sunlight(place.latitude, place.longitude))]
    begin, end = schedule.window(day, place.zone)
    expected = [one for one in seen if begin < one.at < end]
    assert [one for one in schedule.switches(installed, 1, begin, end, place) if one.at < end] == expected
    moment = data.draw(st.integers(begin // 1000, end // 1000 - 1)) * 1000
    lit = [one.on for one in seen if one.at <= moment]
    assert schedule.is_on(installed, 1, moment, place) == (lit[-1] if lit else False)
    later = [one for one in expected if one.at > moment]
    if later:
        assert schedule.next_switch(installed, 1, moment, place) == later[0]


@settings(max_examples=150, deadline=None)
@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_never_matters(scene: tuple[str, Place, date, list[Json]], chooser: random.Random) -> None:
    _, place, day, profiles = scene
    turned = [{**one, "daySchedule": chooser.sample(one["daySchedule"], len(one["daySchedule"]))} for one in profiles]
    chooser.shuffle(turned)
    assert schedule.effective(install(*profiles), 1, day, place).on == schedule.effective(install(*turned), 1, day, place).on


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_a_day_is_sorted_inside_its_window_apart_and_exact_to_the_millisecond(scene: tuple[str, Place, date, list[Json]]) -> None:
    _, place, day, profiles = scene
    found = schedule.effective(install(*profiles), 1, day, place)
    edges = [edge for span in found.on for edge in span]
    assert edges == sorted(set(edges))
    assert all(found.window.start <= edge <= found.window.end and edge % 1000 == 0 for edge in edges)


@settings(max_examples=100, deadline=None)
@given(scenes())
def test_switchings_alternate_and_none_is_at_a_noon_over_which_the_light_is_on(scene: tuple[str, Place, date, list[Json]]) -> None:
    _, place, day, profiles = scene
    installed = install(*profiles)
    begin = schedule.window(day - timedelta(days=2), place.zone).start
    lit = schedule.is_on(installed, 1, begin, place)
    for moment, on in schedule.switches(installed, 1, begin, begin + 5 * DAY, place):
        assert on != lit
        assert schedule.is_on(installed, 1, moment - 1000, place) == lit
        assert schedule.is_on(installed, 1, moment, place) == on
        lit = on


def test_the_sun_of_the_engine_is_that_of_others() -> None:
    """The walker with the sun of astral: the night of Utrecht within a minute."""
    from astral import Observer
    from astral.sun import sunrise as rises
    from astral.sun import sunset as sets

    there = Observer(UTRECHT.latitude, UTRECHT.longitude, 0)
    profiles = [profile(period(sunset(), sunrise()))]
    for number in range(0, 365, 29):
        day = date(2026, 1, 1) + timedelta(days=number)
        events = (int(sets(there, day).timestamp()), int(rises(there, day + timedelta(days=1)).timestamp()), True)
        (start, end), = walker.lit(profiles, "Europe/Amsterdam", day, lambda begin, end, events=events: events)  # type: ignore[misc]  # fmt: skip
        (ours,) = spans(install(*profiles), day)
        assert abs(ours[0] - start * 1000) <= 60 * SECOND
        assert abs(ours[1] - end * 1000) <= 60 * SECOND


# ---------------------------------------------------------------------------------------------------------------- rule 8


@pytest.mark.parametrize("scheduled", [True, False])
@pytest.mark.parametrize("present", [True, False])
def test_local_goes_before_remote_before_the_schedule(scheduled: bool, present: bool) -> None:
    overrides: dict[Override, bool] = {"On": True, "Off": False, "Suspend": present}
    for local in (True, False):
        for remote in (None, *overrides):
            assert schedule.commanded(scheduled=scheduled, present=present, remote=remote, local=local) == State(local, "LocalOverride")
    assert schedule.commanded(scheduled=scheduled, present=present) == State(scheduled, "Schedule")
    for remote, on in overrides.items():
        assert schedule.commanded(scheduled=scheduled, present=present, remote=remote) == State(on, "RemoteOverride")


# ---------------------------------------------------------------------------------------------------------------- install


NIGHT = period("20:00:00", "06:00:00")


def refused(*profiles: Json, present: Sequence[Profile] = (), clear: bool = False, most: int = 16) -> list[str]:
    """The paths of the faults; whatever is wrong, nothing is installed."""
    done = schedule.install(tuple(present), message(*profiles, clear=clear), max_stack_level=most)
    assert done.profiles == tuple(present)
    assert done.faults
    return [fault.path.removeprefix("$.streetlightProfiles") for fault in done.faults]


def warned(*profiles: Json) -> list[str]:
    done = schedule.install((), message(*profiles))
    assert done.faults == ()
    return [warning.path.removeprefix("$.streetlightProfiles") for warning in done.warnings]


def test_L4_two_profiles_of_a_message_may_not_share_a_level() -> None:
    assert refused(profile(NIGHT, id=1, level=3), profile(NIGHT, id=2, level=3)) == ["[1].stackLevel"]


def test_L4_a_level_of_another_installed_profile_is_refused_but_its_own_is_kept() -> None:
    present = install(profile(NIGHT, id=1, level=3))
    assert refused(profile(NIGHT, id=2, level=3), present=present) == ["[0].stackLevel"]
    assert len(schedule.install(present, message(profile(NIGHT, id=1, level=3))).profiles) == 1
    assert schedule.install(present, message(profile(NIGHT, id=2, level=3), clear=True)).faults == ()
    assert schedule.install(present, message(profile(NIGHT, id=2, level=3), contactor=2)).faults == ()
    # The holder of the level leaves it in the same message.
    swapped = schedule.install(present, message(profile(NIGHT, id=2, level=3), profile(NIGHT, id=1, level=4)))
    assert {one.id: one.stack_level for one in swapped.profiles} == {1: 4, 2: 3}


def test_L4_a_level_above_the_highest_is_refused() -> None:
    assert refused(profile(NIGHT, level=17)) == ["[0].stackLevel"]
    assert refused(profile(NIGHT, level=5), most=4) == ["[0].stackLevel"]
    assert install(profile(NIGHT, level=16))


def test_L5_a_profile_id_is_unique_and_an_installed_one_is_replaced() -> None:
    assert refused(profile(NIGHT, id=7, level=1), profile(NIGHT, id=7, level=2)) == ["[1].profileId"]
    present = install(profile(NIGHT, id=7, level=1))
    (only,) = schedule.install(present, message(profile(period("21:00:00", "05:00:00"), id=7, level=2))).profiles
    assert (only.stack_level, only.periods[0].start.milliseconds) == (2, 21 * 3_600_000)


def test_L2_clear_all_schedules_erases_this_contactor_only_and_only_if_all_is_well() -> None:
    present = (*install(profile(NIGHT, id=1, level=1)), *install(profile(NIGHT, id=1, level=1), contactor=2))
    after = schedule.install(present, message(profile(NIGHT, id=5, level=5), clear=True)).profiles
    assert {(one.contactor, one.id) for one in after} == {(1, 5), (2, 1)}
    assert refused(profile(NIGHT, id=5, level=99), present=present, clear=True)
    kept = schedule.install(present, message(profile(NIGHT, id=5, level=5))).profiles
    assert {(one.contactor, one.id) for one in kept} == {(1, 1), (1, 5), (2, 1)}
    replaced = schedule.install(present, message(profile(NIGHT, id=1, level=9))).profiles
    assert {(one.contactor, one.stack_level) for one in replaced} == {(1, 9), (2, 1)}


@pytest.mark.parametrize("kind", ["Weekly", "None"])
def test_L8_weekly_and_none_need_valid_from(kind: str) -> None:
    assert refused(profile(NIGHT, kind=kind)) == ["[0].validFrom"]


@pytest.mark.parametrize("text", ["24:00:00", "12:60:00", "12:00:60", "1:00:00", "12:00", "12:00:00.", "12:00:00.1234", "noon", "", "１２:00:00"])
def test_L9_a_time_is_hours_minutes_seconds_and_perhaps_milliseconds(text: str) -> None:
    assert refused(profile(period(text, "06:00:00"))) == ["[0].daySchedule[0].start.time"]


def test_L9_time_and_offset_are_mandatory_for_their_kinds() -> None:
    assert refused(profile(NIGHT, period({"kind": "Absolute"}, "06:00:00"), period(sunset(), {"kind": "Sunrise", "time": "06:00:00"}))) == [
        "[0].daySchedule[1].start.time", "[0].daySchedule[2].end.offset",
    ]  # fmt: skip


def test_every_fault_is_told_with_what_was_expected() -> None:
    done = schedule.install((), message(profile(period("25:00:00", "06:00:00"), kind="Weekly", level=20, validTo="soon")))
    assert [(one.path, one.reason) for one in done.faults] == [
        ("$.streetlightProfiles[0].stackLevel", "is 20; at most 16 is allowed (StreetlightProfileMaxStackLevel)"),
        ("$.streetlightProfiles[0].validFrom", "is missing; Weekly needs it"),
        ("$.streetlightProfiles[0].validTo", "expected a date (2026-03-28 or 2026-03-28T00:00:00), got 'soon'"),
        ("$.streetlightProfiles[0].daySchedule[0].start.time", "expected HH:mm:ss or HH:mm:ss.mmm, got '25:00:00'"),
    ]


def test_what_is_superfluous_is_ignored_with_a_warning() -> None:
    assert warned(profile(period({**clock("20:00:00"), "offset": 5}, {**sunrise(), "time": "x"}))) == [
        "[0].daySchedule[0].start.offset", "[0].daySchedule[0].end.time",
    ]  # fmt: skip
    assert warned(profile(NIGHT, kind="None", validFrom="2026-07-01", validTo="2026-07-03")) == ["[0].validTo"]
    assert warned(profile(NIGHT, validFrom="2026-07-03", validTo="2026-07-01")) == ["[0].validTo"]


def test_a_period_that_can_never_be_on_is_warned_of_unless_it_says_off_tonight() -> None:
    assert warned(profile(period("20:00:00", "12:00:00"), period("06:00:00", "22:00:00"))) == ["[0].daySchedule[0]", "[0].daySchedule[1]"]
    assert warned(profile(period("12:00:00", "12:00:00"), period("20:00:00", "11:59:59"), period(sunset(), "12:00:01"))) == []


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("2026-07-02", False), ("2026-07-02T00:00:00", False), ("2026-07-02T23:59:59.999", False),
        ("2026-07-02T00:00:00Z", True), ("2026-07-02T23:00:00-11:00", True), ("2026-07-02T01:00:00.5+02:00", True),
    ],
)  # fmt: skip
def test_a_date_is_its_first_ten_characters_and_an_offset_is_warned_of(text: str, offset: bool) -> None:
    (only,) = install(profile(NIGHT, validFrom=text, validTo=text))
    assert only.valid_from == only.valid_to == date(2026, 7, 2)
    assert warned(profile(NIGHT, validFrom=text)) == (["[0].validFrom"] if offset else [])


@pytest.mark.parametrize("text", ["2026-02-30", "2026-7-2", "20260702", "2026-07-02x", "2026-07-02T", "", "0000-01-01"])
def test_what_is_no_date_is_refused(text: str) -> None:
    assert refused(profile(NIGHT, validFrom=text)) == ["[0].validFrom"]


# ------------------------------------------------------------------------------------------------------------------ drift


FIXED = install(profile(period("20:00:00", "23:00:00"), period("05:00:00", "11:59:59")))
SUNNY = install(profile(period(sunset(), "23:00:00"), period("05:00:00", "07:00:00")))


def differences(profiles: Sequence[Profile], answered: list[tuple[str, str]], tolerance: float = 120.0, day: date = date(2026, 12, 1)) -> list[Any]:
    found = schedule.drift(schedule.effective(profiles, 1, day, UTRECHT), answered, tolerance)
    return [(schedule.clock(one.start, UTRECHT.zone), schedule.clock(one.end, UTRECHT.zone), one.ours) for one in found]


def test_a_station_that_agrees_has_no_drift_whatever_the_order_and_the_cut() -> None:
    assert differences(FIXED, [("20:00:00", "23:00:00"), ("05:00:00", "11:59:59")]) == []
    assert differences(FIXED, [("05:00:00", "06:00:00"), ("06:00:00", "11:59:59.9"), ("20:00:00", "21:00:00"), ("20:30:00", "23:00:00")]) == []
    assert differences((), []) == []


def test_a_sunset_may_differ_by_the_tolerance_and_a_fixed_time_may_not() -> None:
    (start, end), morning = told(SUNNY, date(2026, 12, 1))
    told_ms = schedule.milliseconds(start)
    assert told_ms is not None
    for seconds, drifts in ((-119, False), (120, False), (121, True), (-300, True)):
        moved = told_ms // 1000 + seconds
        text = f"{moved // 3600:02}:{moved // 60 % 60:02}:{moved % 60:02}"
        assert bool(differences(SUNNY, [(text, end), morning])) == drifts
        assert bool(differences(SUNNY, [(text, end), morning], tolerance=400)) is False
    assert differences(FIXED, [("20:00:01", "23:00:00"), ("05:00:00", "11:59:59")]) == []
    assert differences(FIXED, [("20:00:00", "23:01:00"), ("05:00:00", "11:59:59")]) == [("23:00:00", "23:01:00", False)]


def test_a_missing_and_an_invented_period_are_told_as_what_we_want() -> None:
    assert differences(FIXED, [("20:00:00", "23:00:00")]) == [("05:00:00", "12:00:00", True)]
    assert differences((), [("20:00:00", "11:59:59")]) == [("20:00:00", "12:00:00", False)]
    assert differences(FIXED, [("21:00:00", "01:00:00"), ("05:00:00", "11:59:59")]) == [
        ("20:00:00", "21:00:00", True),
        ("23:00:00", "01:00:00", False),
    ]


def test_an_answer_in_the_repeated_hour_is_read_as_our_own() -> None:
    profiles = install(profile(period("20:00:00", sunrise(-5 * 3600))))
    for day in (AUTUMN, SPRING):
        assert differences(profiles, told(profiles, day), day=day) == []


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_our_own_answer_never_drifts(scene: tuple[str, Place, date, list[Json]]) -> None:
    _, place, day, profiles = scene
    own = schedule.effective(install(*profiles), 1, day, place)
    assert schedule.drift(own, schedule.answer(own), 0.0) == []


def test_an_answer_that_is_no_time_is_named() -> None:
    with pytest.raises(InvalidInput) as caught:
        differences(FIXED, [("20:00:00", "24:00:00"), ("x", "06:00:00")])
    assert [fault.path for fault in caught.value.faults] == ["$.daySchedule[0].end", "$.daySchedule[1].start"]


def test_a_difference_is_a_plain_value() -> None:
    own = schedule.effective(FIXED, 1, SUMMER, UTRECHT)
    assert schedule.drift(own, [("05:00:00", "11:59:59")]) == [Difference(at("2026-07-01T20:00:00+02:00"), at("2026-07-01T23:00:00+02:00"), True)]
