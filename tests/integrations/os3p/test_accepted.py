"""What follows from what a station has accepted: pure."""

from __future__ import annotations

from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gridloom.integrations.os3p.accepted import (
    NOWHERE,
    UNKNOWN,
    Contactor,
    Difference,
    Schedules,
    calculated,
    compared,
    differences,
    doubted,
    first_days,
    read,
    written,
)
from gridloom.integrations.os3p.messages import (
    ClearSingleStreetlightProfile,
    Period,
    PeriodBound,
    SetStreetlightProfile,
    StreetlightProfile,
)
from gridloom.integrations.os3p.schedule import Day, answer

ZONE = ZoneInfo("Europe/Amsterdam")
TODAY = date(2026, 11, 20)
NIGHT = Period(start=PeriodBound(kind="Absolute", time="20:00:00"), end=PeriodBound(kind="Absolute", time="06:00:00"))
DARK = Period(start=PeriodBound(kind="Sunset", offset=0), end=PeriodBound(kind="Sunrise", offset=0))


def profile(id: int, level: int | None = None, *periods: Period, **more: Any) -> StreetlightProfile:
    return StreetlightProfile(
        profileId=id, stackLevel=id if level is None else level, recurrencyKind=more.pop("kind", "Daily"), daySchedule=periods or (NIGHT,), **more
    )


def put(*profiles: StreetlightProfile, contactor: int = 1, clear: bool = False) -> SetStreetlightProfile:
    return SetStreetlightProfile(contactorId=contactor, clearAllSchedules=clear, streetlightProfiles=profiles)


def after(*requests: Any, status: str = "Accepted", begin: Schedules = Schedules()) -> Schedules:  # noqa: B008
    for request in requests:
        begin = written(begin, request, status, 7)
    return begin


def has(schedules: Schedules, contactor: int = 1) -> tuple[list[int], bool]:
    one = schedules.of(contactor)
    return [each.profileId for each in one.profiles], one.known


def test_a_contactor_is_known_from_its_clearing_on() -> None:
    assert has(after(put(profile(1)))) == ([1], False)
    assert has(after(put(profile(1), clear=True))) == ([1], True)
    assert has(after(put(profile(1)), ClearSingleStreetlightProfile(contactorId=1))) == ([], True)
    assert has(after(put(profile(1)), put(profile(2), clear=True), put(profile(3)))) == ([2, 3], True)
    assert has(after(put(profile(1), clear=True)), 2) == ([], False)
    assert after(ClearSingleStreetlightProfile()).known == [1, 2, 3, 4]


def test_profiles_replace_those_of_their_id_and_are_erased_by_id_or_level() -> None:
    begin = after(put(profile(1), profile(2, 5), clear=True))
    assert has(after(put(profile(2, 6)), begin=begin)) == ([1, 2], True)
    assert after(put(profile(2, 6)), begin=begin).of(1).profiles[1].stackLevel == 6
    assert has(after(ClearSingleStreetlightProfile(profileId=1), begin=begin)) == ([2], True)
    assert has(after(ClearSingleStreetlightProfile(contactorId=1, stackLevel=5), begin=begin)) == ([1], True)
    assert has(after(ClearSingleStreetlightProfile(profileId=0), begin=begin)) == ([1, 2], True)


def test_what_is_not_accepted_has_changed_nothing_and_what_is_unknown_is_not_there() -> None:
    begin = after(put(profile(1), clear=True))
    assert after(put(profile(2), clear=True), status="Rejected", begin=begin) is begin
    assert after(ClearSingleStreetlightProfile(profileId=1), status="Rejected", begin=begin) is begin
    assert has(after(ClearSingleStreetlightProfile(profileId=1), status="Unknown", begin=begin)) == ([], True)


def test_what_we_would_refuse_and_what_was_not_answered_makes_it_unknown() -> None:
    begin = after(put(profile(1, 5), clear=True))
    assert not after(put(profile(2, 5)), begin=begin).of(1).known, "a stack level twice"
    assert not doubted(begin, put(profile(2))).of(1).known
    assert doubted(after(ClearSingleStreetlightProfile()), put(profile(2), contactor=3)).known == [1, 2, 4]
    assert doubted(after(ClearSingleStreetlightProfile()), ClearSingleStreetlightProfile(profileId=1)).known == []


def test_a_change_forgets_the_comparisons_before_it() -> None:
    begin = Schedules({"1": Contactor((profile(1),), True, 1, 2, "differs", "", (Difference("2026-11-20", 1, 2, "on"),))})
    assert after(put(profile(2)), begin=begin).of(1) == Contactor((profile(1), profile(2)), True, 7)


def test_nothing_is_calculated_of_what_is_not_known() -> None:
    sunny, plain = (Contactor((profile(1, 1, period),), True) for period in (DARK, NIGHT))
    assert calculated(Contactor((profile(1),)), 1, TODAY, ZONE, (52.09, 5.12)) == UNKNOWN
    assert calculated(sunny, 1, TODAY, ZONE, None) == NOWHERE
    night = calculated(plain, 1, TODAY, ZONE, None)
    assert isinstance(night, Day)
    assert answer(night) == [("20:00:00", "06:00:00")]
    assert "1900" in str(calculated(plain, 1, date(2300, 1, 1), ZONE, None))


@pytest.mark.parametrize(("day", "told"), [(date(2026, 12, 21), [("12:00:00", "11:59:59")]), (date(2026, 6, 21), [])])
def test_polar_night_and_polar_day(day: date, told: list[tuple[str, str]]) -> None:
    one = Contactor((profile(1, 1, DARK),), True)
    found = calculated(one, 1, day, ZoneInfo("Europe/Oslo"), (69.65, 18.96))
    assert isinstance(found, Day)
    assert answer(found) == told
    assert differences(found, told, 120) == ()
    assert len(differences(found, [("18:00:00", "20:00:00")], 120)) in (1, 2)


def test_differences_stay_until_their_day_is_over_or_is_compared_again() -> None:
    tomorrow = date(2026, 11, 21)
    far, near = Difference("2026-11-21", 5, 6, "on"), Difference("2026-11-20", 3, 4, "off")
    one = compared(Contactor((), True), tomorrow, TODAY, 1, (far,))
    one = compared(one, TODAY, TODAY, 2, (near,))
    assert (one.verdict, one.differences) == ("differs", (near, far))
    one = compared(one, TODAY, TODAY, 3, ())
    assert (one.verdict, one.differences) == ("differs", (far,)), "tomorrow is still wrong"
    unknown = compared(one, TODAY, TODAY, 4, "it does not answer")
    assert (unknown.verdict, unknown.reason, unknown.differences) == ("not known", "it does not answer", (far,))
    assert compared(one, tomorrow, tomorrow, 5, ()).verdict == "same"
    assert compared(one, date(2026, 11, 22), date(2026, 11, 22), 5, ()).differences == ()


def test_the_days_that_are_verified() -> None:
    def days(*profiles: StreetlightProfile, most: int = 8) -> list[str]:
        return [day.isoformat()[5:] for day in first_days(read(1, profiles).profiles, TODAY, most)]

    assert days(profile(1)) == ["11-20"]
    assert days(profile(1, validFrom="2026-12-01T00:00:00")) == ["11-20", "12-01"]
    assert days(profile(1, validFrom="2026-11-01T00:00:00", validTo="2026-11-19T00:00:00")) == ["11-20"]
    assert days(profile(1, kind="Weekly", validFrom="2026-11-01T00:00:00")) == ["11-20", "11-22"]
    assert days(profile(1, kind="None", validFrom="2026-12-24T00:00:00")) == ["11-20", "12-24"]
    assert days(profile(1, kind="None", validFrom="2026-11-19T00:00:00")) == ["11-20"]
    assert days(profile(1, validFrom="9999-12-31T00:00:00"), profile(2, validFrom="1000-01-01T00:00:00")) == ["11-20"]
    many = [profile(number, kind="None", validFrom=f"2026-12-{number:02}T00:00:00") for number in range(1, 32)]
    assert days(*many, most=3) == ["11-20", "12-01", "12-02"]
