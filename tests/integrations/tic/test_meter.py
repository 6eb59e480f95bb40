"""The simulated meter: what it says is read by ``naive``, which shares no code with us; when tariffs change is written here as UTC, by hand."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.tic.naive import Line, horodates, lines, values

from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.meter import Calendar, Contract, Memory, Meter, Profile

SECOND = 1_000_000
HOUR = 3600 * SECOND
PARIS = "Europe/Paris"


def at(text: str) -> int:
    """µs of a moment in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def meter(when: str = "2026-01-15T17:00", **profile: Any) -> Meter:
    """A meter at a moment in UTC."""
    return Meter(Profile(**profile), at(when))


def through(one: Meter, until: int, amperes: float, step: int = HOUR) -> None:
    """Let the same current flow for a while."""
    while one.now < until:
        one.advance(min(until, one.now + step), [amperes] * one.profile.phases)


# ----------------------------------------------------------------------------------------------------------------- the labels

SUPPLIER = [f"EASF{number:02d}" for number in range(1, 11)]
GRID = [f"EASD{number:02d}" for number in range(1, 5)]
STANDARD = [
    *["ADSC", "VTIC", "DATE", "NGTF", "LTARF", "EAST"], *SUPPLIER, *GRID, *["IRMS1", "URMS1", "PREF", "PCOUP", "SINSTS", "SMAXSN", "SMAXSN-1"],
    *["CCASN", "CCASN-1", "UMOY1", "STGE", "MSG1", "PRM", "RELAIS", "NTARF", "NJOURF", "NJOURF+1", "PJOURF+1"],
]  # fmt: skip
"""As in std_mono_hphc_nb.bin."""
PRODUCER = [
    *["ADSC", "VTIC", "DATE", "NGTF", "LTARF", "EAST"], *SUPPLIER, *GRID, *["EAIT", "ERQ1", "ERQ2", "ERQ3", "ERQ4", "IRMS1", "IRMS2", "IRMS3"],
    *["URMS1", "URMS2", "URMS3", "PREF", "PCOUP", "SINSTS", "SINSTS1", "SINSTS2", "SINSTS3", "SMAXSN", "SMAXSN1", "SMAXSN2", "SMAXSN3"],
    *["SMAXSN-1", "SMAXSN1-1", "SMAXSN2-1", "SMAXSN3-1", "SINSTI", "SMAXIN", "SMAXIN-1", "CCASN", "CCASN-1", "CCAIN", "CCAIN-1"],
    *["UMOY1", "UMOY2", "UMOY3", "STGE", "MSG1", "PRM", "RELAIS", "NTARF", "NJOURF", "NJOURF+1", "PJOURF+1", "PPOINTE"],
]  # fmt: skip
"""As std_mono_producer_nb_fixck.bin has them, with those of three phases and of EJP where labels.csv has them."""
TEMPO = ["BBRHCJB", "BBRHPJB", "BBRHCJW", "BBRHPJW", "BBRHCJR", "BBRHPJR", "PTEC", "DEMAIN"]
THREE = ["IINST1", "IINST2", "IINST3", "IMAX1", "IMAX2", "IMAX3", "PMAX", "PAPP"]
HISTORIC: list[tuple[Contract, int, list[str]]] = [
    (Contract.BASE, 1, ["ADCO", "OPTARIF", "ISOUSC", "BASE", "PTEC", "IINST", "IMAX", "PAPP", "MOTDETAT"]),
    (Contract.HCHP, 1, ["ADCO", "OPTARIF", "ISOUSC", "HCHC", "HCHP", "PTEC", "IINST", "IMAX", "PAPP", "HHPHC", "MOTDETAT"]),
    (Contract.EJP, 1, ["ADCO", "OPTARIF", "ISOUSC", "EJPHN", "EJPHPM", "PTEC", "IINST", "IMAX", "PAPP", "HHPHC", "MOTDETAT"]),
    (Contract.TEMPO, 1, ["ADCO", "OPTARIF", "ISOUSC", *TEMPO, "IINST", "IMAX", "PAPP", "HHPHC", "MOTDETAT"]),
    (Contract.HCHP, 3, ["ADCO", "OPTARIF", "ISOUSC", "HCHC", "HCHP", "PTEC", *THREE, "HHPHC", "MOTDETAT", "PPOT"]),
    (Contract.BASE, 3, ["ADCO", "OPTARIF", "ISOUSC", "BASE", "PTEC", *THREE, "MOTDETAT", "PPOT"]),
]


@pytest.mark.parametrize(("contract", "phases", "labels"), HISTORIC)
def test_historic_labels_stand_in_the_order_of_the_captured_frames(contract: Contract, phases: int, labels: list[str]) -> None:
    one = meter("2026-07-15T10:00", mode=Mode.HISTORIC, contract=contract, phases=phases)
    assert [line.label for line in lines(one.frame())] == labels


def test_standard_labels_stand_in_the_order_of_the_field() -> None:
    assert [line.label for line in lines(meter(contract=Contract.HCHP).frame())] == STANDARD
    three = meter("2026-07-15T10:00", contract=Contract.EJP, phases=3, producer=True)
    assert [line.label for line in lines(three.frame())] == PRODUCER


def test_a_single_phase_frame_is_as_long_as_those_of_real_meters() -> None:
    assert len(meter(contract=Contract.HCHP).frame()) == 865
    assert len(meter("2026-07-15T10:00", contract=Contract.EJP, phases=3, producer=True).frame()) > 1500


def test_values_have_the_width_of_the_field() -> None:
    said = {line.label: line for line in lines(meter(contract=Contract.HCHP).frame())}
    assert said["NGTF"].value == "H PLEINE/CREUSE "
    assert said["LTARF"].value == " HEURE  PLEINE  "
    assert said["DATE"] == Line("DATE", "", "H260115180000")
    widths = {"ADSC": 12, "VTIC": 2, "EAST": 9, "EASF10": 9, "IRMS1": 3, "URMS1": 3, "PREF": 2, "SINSTS": 5, "CCASN": 5, "UMOY1": 3, "STGE": 8}
    widths |= {"MSG1": 32, "PRM": 14, "RELAIS": 3, "NTARF": 2, "NJOURF": 2, "NJOURF+1": 2, "PJOURF+1": 98}
    assert {label: len(said[label].value) for label in widths} == widths
    assert said["PJOURF+1"].value == "0000C001 06308002 2230C001" + " NONUTILE" * 8


def test_the_same_seed_is_the_same_meter_and_another_is_another() -> None:
    assert meter(seed=5).frame() == meter(seed=5).frame()
    assert values(meter(seed=5).frame())["ADSC"] != values(meter(seed=6).frame())["ADSC"]


# ------------------------------------------------------------------------------------------------------------------ registers


@given(st.lists(st.tuples(st.integers(1, 7200), st.floats(-40, 60), st.floats(-40, 60)), min_size=1, max_size=30))
def test_registers_only_grow_and_always_add_up(steps: list[tuple[int, float, float]]) -> None:
    one = meter("2026-10-24T20:00", contract=Contract.HCHP, phases=3, producer=True)
    before = values(one.frame())
    counted = ["EAST", *SUPPLIER, *GRID, "EAIT", "ERQ1", "ERQ2", "ERQ3", "ERQ4"]
    for seconds, first, second in steps:
        one.advance(one.now + seconds * SECOND, [first, second, 1.0])
        said = values(one.frame())
        assert [label for label in counted if int(said[label]) < int(before[label])] == []
        assert int(said["EAST"]) == sum(int(said[label]) for label in SUPPLIER) == sum(int(said[label]) for label in GRID)
        before = said


def test_energy_is_the_exact_sum_of_power_and_time() -> None:
    one = meter("2026-07-15T10:00", contract=Contract.BASE)
    random = Random(3)
    begin, counted = int(values(one.frame())["EAST"]), 0.0
    for _ in range(2_000):
        seconds = random.choice((0.933, 1.0, 2.7, 59.0))
        until = one.now + round(seconds * SECOND)
        one.advance(until, [random.uniform(0, 30)])
        counted += one.watts * seconds / 3600  # no ten minutes end within: the power of the step is what it was measured at
    assert int(values(one.frame())["EAST"]) - begin == pytest.approx(counted, abs=15)


def test_what_is_fed_in_is_counted_apart() -> None:
    one = meter("2026-07-15T10:00", producer=True)
    one.advance(one.now, [-10.0])
    before = values(one.frame())
    one.advance(one.now + HOUR, [-10.0])
    after = values(one.frame())
    assert before["EAST"] == after["EAST"]
    assert 2200 < int(after["EAIT"]) - int(before["EAIT"]) < 2500
    assert (after["SINSTS"], after["IRMS1"]) == ("00000", "010")
    assert 2200 < int(after["SINSTI"]) < 2500
    assert int(after["STGE"], 16) >> 8 & 3 == 3, "producer, and the sign of the energy"
    assert int(after["SMAXIN"]) >= int(after["SINSTI"])


def test_a_meter_goes_on_from_what_it_remembers() -> None:
    one = meter(contract=Contract.HCHP, seed=9)
    through(one, one.now + 5 * HOUR, 12.0)
    kept = msgspec.json.decode(msgspec.json.encode(one.memory), type=Memory)
    again = Meter(one.profile, one.now, kept)
    assert values(again.frame())["EAST"] == values(one.frame())["EAST"]
    other = Meter(Profile(contract=Contract.HCHP, seed=10), one.now, kept)
    assert values(other.frame())["EAST"] != values(one.frame())["EAST"], "another meter does not take over what is not its own"


# -------------------------------------------------------------------------------------------------------------------- tariffs


def switches(one: Meter, begin: str, end: str) -> list[tuple[str, str]]:
    """When the running tariff changed, to the minute, in UTC, and to what."""
    found = []
    through(one, at(begin), 5.0)
    before = values(one.frame())["PTEC"]
    while one.now < at(end):
        one.advance(one.now + 60 * SECOND, [5.0])
        running = values(one.frame())["PTEC"]
        if running != before:
            found.append((datetime.fromtimestamp(one.now // SECOND, UTC).strftime("%m-%dT%H:%M"), running))
            before = running
    return found


def test_off_peak_hours_are_those_of_the_wall_clock_in_the_night_of_the_spring_change() -> None:
    one = meter("2026-03-28T12:00", mode=Mode.HISTORIC, contract=Contract.HCHP)
    assert switches(one, "2026-03-28T12:00", "2026-03-29T23:00") == [("03-28T21:30", "HC.."), ("03-29T04:30", "HP.."), ("03-29T20:30", "HC..")]


def test_off_peak_hours_are_those_of_the_wall_clock_in_the_night_of_the_autumn_change() -> None:
    one = meter("2026-10-24T12:00", mode=Mode.HISTORIC, contract=Contract.HCHP)
    assert switches(one, "2026-10-24T12:00", "2026-10-25T23:00") == [("10-24T20:30", "HC.."), ("10-25T05:30", "HP.."), ("10-25T21:30", "HC..")]


def test_a_tempo_day_begins_at_six_also_on_the_days_of_the_change() -> None:
    for begin, first, second in (("2026-03-28T12:00", "03-29T04:00", "03-28T21:00"), ("2026-10-24T12:00", "10-25T05:00", "10-24T20:00")):
        one = meter(begin, mode=Mode.HISTORIC, contract=Contract.TEMPO)
        found = switches(one, begin, (datetime.fromisoformat(begin) + timedelta(hours=20)).isoformat())
        assert [when for when, _ in found] == [second, first]


def test_the_night_of_the_change_counts_seven_and_nine_hours() -> None:
    for day, hours in (("2026-03-28", 7), ("2026-10-24", 9), ("2026-06-13", 8)):
        one = meter(f"{day}T12:00", contract=Contract.HCHP)
        before = int(values(one.frame())["EASF01"])
        through(one, one.now + 20 * HOUR, 10.0, step=600 * SECOND)
        assert int(values(one.frame())["EASF01"]) - before == pytest.approx(hours * 10 * 231.5 * 0.97, rel=0.02)


def test_several_ranges_to_the_minute() -> None:
    one = Meter(
        Profile(mode=Mode.HISTORIC, contract=Contract.HCHP, off_peak=((2 * 60 + 26, 7 * 60 + 56), (14 * 60 + 26, 16 * 60 + 56))),
        at("2026-07-01T00:00"),
    )
    found = switches(one, "2026-07-01T00:00", "2026-07-01T20:00")
    assert found == [("07-01T00:26", "HC.."), ("07-01T05:56", "HP.."), ("07-01T12:26", "HC.."), ("07-01T14:56", "HP..")]


@pytest.mark.parametrize("seed", range(1, 21))
def test_every_season_has_43_white_22_red_and_22_peak_days(seed: int) -> None:
    for year in (2023, 2024, 2025):
        days = [date(year, 9, 1) + timedelta(number) for number in range((date(year + 1, 9, 1) - date(year, 9, 1)).days)]
        tempo, ejp = Calendar(Contract.TEMPO, seed=seed, zone=PARIS), Calendar(Contract.EJP, seed=seed, zone=PARIS)
        assert Counter(tempo.colour(day) for day in days) == {1: len(days) - 65, 2: 43, 3: 22}
        assert sum(ejp.peak_day(day) for day in days) == 22


def test_a_tempo_year_has_its_colours() -> None:
    """A whole season through the meter by hours: colours by STGE, energy by register, and every frame agrees with itself."""
    one = meter("2025-09-01T04:00", contract=Contract.TEMPO)
    one.advance(one.now, [1.0])
    first = values(one.frame())
    days: list[tuple[datetime, int]] = []
    announced = 0
    while one.now < at("2026-09-01T04:00"):
        one.advance(one.now + HOUR, [10.0])
        said = values(one.frame())
        status = int(said["STGE"], 16)
        today, tomorrow = status >> 24 & 3, status >> 26 & 3
        assert status >> 10 & 15 == int(said["NTARF"]) - 1 == 2 * (today - 1) + (0 if said["RELAIS"] == "001" else 1)
        assert status & 1 == 1 - int(said["RELAIS"]) & 1
        assert said["LTARF"].split() == [["HP", "HC"][said["RELAIS"] == "001"], ["", "BLEU", "BLANC", "ROUGE"][today]]
        local = said_at(one)
        if local.hour == 12:
            days.append((local, today))
            assert tomorrow == 0
            if announced:
                assert today == announced, "the day came as it was announced the evening before"
        if local.hour == 21:
            announced = tomorrow
            assert announced
    assert Counter(colour for _, colour in days) == {1: 300, 2: 43, 3: 22}
    red = [day for day, colour in days if colour == 3]
    assert all(day.weekday() < 5 and (day.month >= 11 or day.month <= 3) for day in red)
    assert not any((day.month, day.day) in {(11, 11), (12, 25), (1, 1)} for day in red)
    assert all(day.weekday() < 6 for day, colour in days if colour == 2)
    last = values(one.frame())
    hour = 10 * 232.3 * 0.97
    gained = [int(last[label]) - int(first[label]) for label in SUPPLIER[:6]]
    assert gained == [pytest.approx(count * hours * hour, rel=0.01) for count in (300, 43, 22) for hours in (8, 16)]


def said_at(one: Meter) -> datetime:
    """The local time that the frame says."""
    return datetime.strptime(horodates(one.frame())["DATE"][1:], "%y%m%d%H%M%S")  # noqa: DTZ007


def test_a_winter_of_ejp_has_22_peaks_of_eighteen_hours_each_with_notice() -> None:
    one = meter("2025-11-01T08:00", mode=Mode.HISTORIC, contract=Contract.EJP)
    one.advance(one.now, [1.0])
    before = int(values(one.frame())["EJPHPM"])
    begun, warned, previous = 0, 0, ""
    while one.now < at("2026-04-15T00:00"):
        one.advance(one.now + 1800 * SECOND, [10.0])
        said = values(one.frame())
        if "PEJP" in said:
            assert (said["PEJP"], said["PTEC"]) == ("30", "HN..")
            warned += 1
        if said["PTEC"] == "PM.." != previous:
            begun += 1
            assert warned == begun, "every peak is announced half an hour before"
        previous = said["PTEC"]
    assert (begun, warned) == (22, 22)
    assert int(values(one.frame())["EJPHPM"]) - before == pytest.approx(22 * 18 * 10 * 232.3 * 0.97, rel=0.01)


def test_a_mobile_peak_in_standard_mode_is_noticed_then_runs() -> None:
    calendar = Calendar(Contract.EJP, zone=PARIS)
    day = next(day for day in (datetime(2025, 11, 2, tzinfo=UTC) + timedelta(number) for number in range(150)) if calendar.peak_day(day.date()))
    one = meter((day - timedelta(days=1)).strftime("%Y-%m-%dT18:30"), contract=Contract.EJP)
    evening = values(one.frame())
    assert int(evening["STGE"], 16) >> 28 == 0
    assert "DPM1" not in evening
    through(one, one.now + 2 * HOUR, 1.0)
    noticed = values(one.frame())
    assert int(noticed["STGE"], 16) >> 28 == 0b0001
    told = horodates(one.frame())
    assert told["DPM1"] == day.strftime(" %y%m%d070000")
    assert told["FPM1"] == (day + timedelta(days=1)).strftime(" %y%m%d010000")
    assert (noticed["NTARF"], noticed["NJOURF+1"], noticed["PJOURF+1"][:17]) == ("01", "01", "0000C001 07008002")
    through(one, one.now + 12 * HOUR, 1.0)
    running = values(one.frame())
    assert int(running["STGE"], 16) >> 28 == 0b0100
    assert (running["NTARF"], running["RELAIS"], running["LTARF"]) == ("02", "000", "HEURE DE POINTE ")


def test_an_ordinary_day_is_shown_until_tomorrow_is_announced() -> None:
    calendar = Calendar(Contract.TEMPO, zone=PARIS)
    day = next(day for day in (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(number) for number in range(90)) if calendar.colour(day.date()) == 3)
    one = meter((day - timedelta(days=1)).strftime("%Y-%m-%dT18:50"), contract=Contract.TEMPO)
    assert "8006" not in values(one.frame())["PJOURF+1"]
    through(one, one.now + 600 * SECOND, 1.0)
    assert "06008006 2200C005" in values(one.frame())["PJOURF+1"]


# ------------------------------------------------------------------------------------------------------------------ overloads


def test_a_single_phase_overload_says_adps_while_it_lasts() -> None:
    one = meter(mode=Mode.HISTORIC, contract=Contract.BASE)
    one.advance(one.now + SECOND, [34.0])
    said = values(one.frame())
    assert (said["ADPS"], said["IINST"], said["IMAX"]) == ("034", "034", "034")
    one.advance(one.now + SECOND, [30.0])
    assert "ADPS" not in values(one.frame())
    assert values(one.frame())["IMAX"] == "034"


def test_a_three_phase_overload_says_short_frames_for_a_minute_then_whole_ones() -> None:
    one = meter(mode=Mode.HISTORIC, contract=Contract.HCHP, phases=3, subscribed=20)
    one.advance(one.now + SECOND, [25.0, 4.0, 22.0])
    assert [(line.label, line.value) for line in lines(one.frame())][:2] == [("ADIR1", "025"), ("ADIR3", "022")]
    assert [line.label for line in lines(one.frame())][2:] == ["ADCO", "IINST1", "IINST2", "IINST3"]
    one.advance(one.now + 61 * SECOND, [25.0, 4.0, 3.0])
    whole = values(one.frame())
    assert whole["ADIR1"] == "025"
    assert "ADIR3" not in whole
    assert "HCHC" in whole
    one.advance(one.now + SECOND, [5.0, 4.0, 3.0])
    assert "ADIR1" not in values(one.frame())


def test_an_overload_in_standard_mode_sets_its_bit() -> None:
    one = meter(contract=Contract.BASE)
    one.advance(one.now + SECOND, [20.0])
    assert int(values(one.frame())["STGE"], 16) >> 7 & 1 == 0
    one.advance(one.now + SECOND, [29.0])
    assert int(values(one.frame())["STGE"], 16) >> 7 & 1 == 1
    assert int(values(one.frame())["SINSTS"]) > 6000


def test_cover_breaker_and_clock_are_told() -> None:
    one = meter(contract=Contract.BASE)
    one.cover, one.breaker, one.clock_degraded, one.message = True, 2, True, "TRAVAUX"
    said = values(one.frame())
    status = int(said["STGE"], 16)
    assert (status >> 4 & 1, status >> 1 & 7, status >> 16 & 1, status >> 17 & 1) == (1, 2, 1, 1)
    assert said["MSG1"] == "TRAVAUX".ljust(32)
    assert horodates(one.frame())["DATE"] == "h260115180000"


# ---------------------------------------------------------------------------------------------------------- values with a time


def test_each_value_with_a_time_has_its_own_rhythm() -> None:
    one = meter("2026-01-15T22:00", contract=Contract.BASE, phases=3)
    through(one, at("2026-01-15T22:47"), 4.0, step=30 * SECOND)
    one.advance(one.now + SECOND, [8.0, 4.0, 4.0])
    when = one.now
    through(one, at("2026-01-15T22:58"), 4.0, step=30 * SECOND)
    times = horodates(one.frame())
    assert times["UMOY1"] == times["UMOY3"] == "H260115235000"
    assert (times["CCASN"], times["CCASN-1"]) == ("H260115233000", "H260115230000")
    assert times["SMAXSN"] == times["SMAXSN1"] == datetime.fromtimestamp(when // SECOND + 3600, UTC).strftime("H%y%m%d%H%M%S")
    highest = values(one.frame())["SMAXSN"]
    through(one, at("2026-01-15T23:01"), 3.0, step=30 * SECOND)
    after, times = values(one.frame()), horodates(one.frame())
    assert after["SMAXSN-1"] == highest
    assert after["SMAXSN"] < highest
    assert times["SMAXSN"].startswith("H260116000")
    assert int(after["CCASN"]) == pytest.approx(3 * 4 * 232 * 0.97, rel=0.03), "the mean power of the half hour"
    assert values(one.frame())["UMOY1"].isdigit()


def test_the_season_letter_turns_with_the_clock() -> None:
    one = meter("2026-10-25T00:59:59", contract=Contract.BASE)
    assert horodates(one.frame())["DATE"] == "E261025025959"
    one.advance(one.now + SECOND, [1.0])
    assert horodates(one.frame())["DATE"] == "H261025020000"
    one = meter("2026-03-29T00:59:59", contract=Contract.BASE)
    one.advance(one.now + SECOND, [1.0])
    assert horodates(one.frame())["DATE"] == "E260329030000"


def test_voltage_stays_around_230_and_gives_way_under_load() -> None:
    idle, loaded = meter(phases=3), meter(phases=3)
    seen: list[float] = []
    for _ in range(200):
        idle.advance(idle.now + 600 * SECOND, [0.0] * 3)
        loaded.advance(loaded.now + 600 * SECOND, [30.0] * 3)
        seen += idle.volts + loaded.volts
        assert all(high > low for high, low in zip(idle.volts, loaded.volts, strict=True))
    assert 222 < min(seen) < max(seen) < 242


def test_a_moment_that_is_past_changes_nothing_that_is_counted() -> None:
    one = meter(contract=Contract.BASE)
    through(one, one.now + HOUR, 10.0)
    said = values(one.frame())["EAST"]
    one.advance(one.now - HOUR, [10.0])
    assert values(one.frame())["EAST"] == said


def test_a_meter_with_two_phases_is_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 phases, not 2"):
        Meter(Profile(phases=2), 0)
    with pytest.raises(ValueError, match="3 phases, 1 currents"):
        Meter(Profile(phases=3), 0).advance(1, [1.0])
