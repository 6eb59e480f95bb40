"""What ``gridloom os3p schedule preview`` prints, and what it says about wrong input."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.os3p import walker

from gridloom.core.errors import ConfigurationError
from gridloom.integrations.os3p.preview import preview

NIGHT = {"start": {"kind": "Sunset", "offset": 600}, "end": {"kind": "Absolute", "time": "01:00:00"}}
MORNING = {"start": {"kind": "Absolute", "time": "06:00:00"}, "end": {"kind": "Sunrise", "offset": -600}}
UTRECHT, AMSTERDAM = "[52.09,5.12]", "Europe/Amsterdam"


def absolute(start: str, end: str) -> dict[str, Any]:
    return {"start": {"kind": "Absolute", "time": start}, "end": {"kind": "Absolute", "time": end}}


def profile(*periods: dict[str, Any], id: int = 1, level: int = 0, contactor: int = 1, **more: Any) -> dict[str, Any]:
    return {"contactorId": contactor, "profileId": id, "stackLevel": level, "recurrencyKind": "Daily", "daySchedule": list(periods), **more}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "profiles.json"


def shown(file: Path, content: object, day: str = "2026-03-28", *, contactor: int = 1, geolocation: str = UTRECHT, zone: str = AMSTERDAM) -> str:
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return preview(file, geolocation, zone, contactor, day)


def told(file: Path, content: object, day: str = "2026-03-28", contactor: int = 1) -> Any:
    file.write_text(json.dumps(content))
    return json.loads(preview(file, UTRECHT, AMSTERDAM, contactor, day, as_json=True))


def test_the_json_of_a_night_with_a_change_of_time(file: Path) -> None:
    profiles = [profile(absolute("20:00:00.500", "02:30:00"), absolute("06:00:00", "11:59:59"), id=7, level=2), profile(NIGHT, id=8, level=1)]
    assert told(file, profiles) == {
        "winner": 7,
        "daySchedule": [{"start": "20:00:00.500", "end": "03:00:00"}, {"start": "06:00:00", "end": "11:59:59"}],
        "switching": [
            {"on": "2026-03-28T19:00:00.500Z", "off": "2026-03-29T01:00:00Z"},
            {"on": "2026-03-29T04:00:00Z", "off": "2026-03-29T10:00:00Z"},
        ],
    }


def test_the_json_without_a_winner_and_of_another_contactor(file: Path) -> None:
    profiles = [profile(NIGHT, contactor=2, id=1, validFrom="2026-03-28")]
    assert told(file, profiles, contactor=1) == {"winner": None, "daySchedule": [], "switching": []}
    assert told(file, profiles, day="2026-03-27", contactor=2)["winner"] is None
    assert told(file, profiles, contactor=2)["winner"] == 1


def test_off_tonight_has_a_winner_and_no_periods(file: Path) -> None:
    assert told(file, [profile(absolute("12:00:00", "12:00:00"), id=5)]) == {"winner": 5, "daySchedule": [], "switching": []}


def test_the_sun_of_the_json_is_that_of_astral_within_a_minute(file: Path) -> None:
    from astral import Observer
    from astral.sun import sunrise, sunset

    there, day = Observer(52.09, 5.12, 0), date(2026, 10, 24)
    begin, end = walker.noons(AMSTERDAM, day)
    ((start, stop),) = walker.lit(
        [profile({"start": {"kind": "Sunset", "offset": 0}, "end": {"kind": "Sunrise", "offset": 0}})],
        AMSTERDAM,
        day,
        lambda *_: (int(sunset(there, day).timestamp()), int(sunrise(there, day + timedelta(days=1)).timestamp()), True),
    )
    found = told(file, [profile({"start": {"kind": "Sunset", "offset": 0}, "end": {"kind": "Sunrise", "offset": 0}})], day.isoformat())
    (switching,) = found["switching"]
    assert begin < start < stop < end
    for text, moment in ((switching["on"], start), (switching["off"], stop)):
        assert abs(datetime.fromisoformat(text).timestamp() - moment / 1000) <= 60


def test_people_read_who_wins_and_why_and_see_the_night(file: Path) -> None:
    profiles = [
        profile(NIGHT, MORNING, id=2, level=1, validFrom="2026-02-01"),
        profile(NIGHT, id=1),
        profile(NIGHT, id=3, level=2, recurrencyKind="Weekly", validFrom="2026-01-04"),
        profile(NIGHT, id=4, level=3, validTo="2026-01-04"),
        profile(NIGHT, id=5, level=4, recurrencyKind="None", validFrom="2026-03-27"),
        profile(NIGHT, id=6, level=5, validFrom="2026-03-29"),
    ]
    lines = shown(file, profiles).split("\n")
    assert lines[0] == "contactor 1, from noon of Saturday 2026-03-28 (Europe/Amsterdam, 23 hours; 52.09, 5.12)"
    assert [line.split()[0] for line in lines[2:4]] == ["sunset", "sunrise"]
    assert lines[4:10] == [
        "winner   profile 2: stack level 1, Daily; the highest stack level of 2 active profiles",
        "         not profile 6: stack level 5, Daily; valid from 2026-03-29",
        "         not profile 5: stack level 4, None; only on 2026-03-27",
        "         not profile 4: stack level 3, Daily; valid to 2026-01-04",
        "         not profile 3: stack level 2, Weekly; only on Sundays",
        "         not profile 1: stack level 0, Daily; a lower stack level",
    ]
    assert lines[10:12] == ["period   Sunset + 600 s to 01:00:00", "period   06:00:00 to Sunrise − 600 s"]
    assert lines[13].startswith("on       06:00:00 to 07:1")
    assert lines[15] == "         12 13 14 15 16 17 18 19 20 21 22 23 00 01 03 04 05 06 07 08 09 10 11"
    dark, on = (line[9:] for line in lines[16:18])
    assert (dark.index("▒"), len(dark), on.index("█"), len(on)) == (21, 55, 22, 69)
    assert on[42:45] == "·" * 3  # 03 to 04 local, after the change


def test_people_read_why_a_light_stays_off(file: Path) -> None:
    lines = shown(file, [profile(absolute("06:00:00", "22:00:00"))]).split("\n")
    assert "period   06:00:00 to 22:00:00: never on this day" in lines
    assert "on       never" in lines
    assert any(line.startswith("note: $[0].daySchedule[0]: is never on") for line in lines)
    assert "winner   none: the light is off" in shown(file, []).split("\n")


@pytest.mark.parametrize(
    ("day", "place", "zone", "expected"),
    [
        ("2026-12-21", "[69.65, 18.96]", "Europe/Oslo", "sun      always down: Sunset is noon, and Sunrise the next noon"),
        ("2026-06-21", "[69.65, 18.96]", "Europe/Oslo", "sun      always up: a period with Sunset or Sunrise is off"),
        ("2026-10-26", "[78.22, 15.65]", "Europe/Oslo", "sunrise  none: it is dark until noon, and Sunrise is the next noon"),
        ("2026-02-14", "[78.22, 15.65]", "Europe/Oslo", "sunset   none: it is dark from noon on, and Sunset is noon"),
        (
            "2026-11-30", "[68.97, 33.08]", "Europe/Moscow",
            "         the sun rises before it sets between these noons: a period from Sunset to Sunrise ends before it starts, and is off",
        ),
    ],
)  # fmt: skip
def test_people_read_what_the_sun_does_in_the_far_north(file: Path, day: str, place: str, zone: str, expected: str) -> None:
    assert expected in shown(file, [profile(NIGHT)], day, geolocation=place, zone=zone).split("\n")


def test_people_read_that_a_light_goes_on_over_noon(file: Path) -> None:
    (on,) = [line for line in shown(file, [profile(absolute("12:00:00", "11:59:59"))], "2026-07-01").split("\n") if line.startswith("on       1")]
    assert on == "on       12:00:00 to 11:59:59  (24 h 00 min; 2026-07-01T10:00:00Z to 2026-07-02T10:00:00Z; was on before; goes on after noon)"
    (once,) = [
        line
        for line in shown(file, [profile(absolute("20:00:00", "11:59:59"))], "2026-07-01").split("\n")
        if line.startswith("on       2")
    ]  # fmt: skip
    assert once.endswith("to 2026-07-02T10:00:00Z)")


def test_what_is_odd_is_noted_and_a_high_level_is_no_fault(file: Path) -> None:
    text = shown(file, [profile(NIGHT, level=17, validFrom="2026-01-01T00:00:00Z")])
    assert "note: $[0].validFrom: the offset Z is ignored: the date 2026-01-01 is local" in text
    assert "note: $[0].stackLevel: is 17; a station takes at most 16 by default" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "$: "),
        ({}, "$: expected an array"),
        ([{"profileId": 1}], "$[0].contactorId: is missing"),
        ([profile(NIGHT, contactor=5)], "$[0].contactorId: "),
        ([profile(NIGHT, stacklevel=1)], '$[0].stacklevel: is not known here (did you mean "stackLevel"?)'),
        ([profile()], "$[0].daySchedule: "),
        ([profile(*[NIGHT] * 5)], "$[0].daySchedule: "),
        ([profile(NIGHT), profile(NIGHT, id=2)], "$[1].stackLevel: 0 is that of profile 1; levels are unique for a contactor"),
        ([profile(NIGHT), profile(NIGHT, level=1)], "$[1].profileId: 1 came before; ids are unique for a contactor"),
        ([profile(NIGHT, recurrencyKind="Weekly")], "$[0].validFrom: is missing; Weekly needs it"),
        ([profile(absolute("25:00:00", "1:00:00"))], "$[0].daySchedule[0].end.time: expected HH:mm:ss or HH:mm:ss.mmm, got '1:00:00'"),
        ([profile({"start": {"kind": "Sunset", "offset": 86_401}, "end": {"kind": "Sunrise"}})], "$[0].daySchedule[0].start.offset: "),
    ],
)
def test_a_wrong_file_is_told_with_file_path_and_what_is_expected(file: Path, content: object, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        shown(file, content)
    lines = caught.value.message.split("\n")
    assert all(line.startswith(f"{file}: $") for line in lines)
    assert any(line.startswith(f"{file}: {expected}") for line in lines)


def test_every_fault_of_a_file_is_told(file: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        shown(file, [profile(absolute("25:00:00", "1:00:00")), profile(NIGHT, id=2, validFrom="soon")])
    assert [line.split(": ")[1] for line in caught.value.message.split("\n")] == [
        "$[0].daySchedule[0].start.time", "$[0].daySchedule[0].end.time", "$[1].stackLevel", "$[1].validFrom",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"geolocation": "52.09,5.12"}, "--geolocation: expected [latitude,longitude]"),
        ({"geolocation": "[95,5.12]"}, "--geolocation: expected [latitude,longitude]"),
        ({"zone": "Europe/Utrecht"}, "--timezone: expected an IANA time zone"),
        ({"zone": "../../etc/passwd"}, "--timezone: expected an IANA time zone"),
        ({"contactor": 5}, "--contactor: expected 1 to 4, got 5"),
        ({"day": "28-03-2026"}, "--date: expected a date such as 2026-03-28, got '28-03-2026'"),
        ({"day": "2026-02-30"}, "--date: expected a date"),
        ({"day": "1850-01-01"}, "--date: the date 1850-01-01 is outside the years 1900 to 2200"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(file: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        shown(file, [profile(NIGHT)], **options)
    assert caught.value.message.startswith(expected)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.json: No such file.*expected a JSON list"):
        preview(tmp_path / "nowhere.json", UTRECHT, AMSTERDAM, 1, "2026-03-28")
