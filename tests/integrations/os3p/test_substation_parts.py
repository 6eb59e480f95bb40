"""The small parts of the Substation: its time, its keys, its past."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.clock import Clock, rfc3339
from gridloom.integrations.os3p import keys
from gridloom.integrations.os3p.history import Past
from gridloom.integrations.os3p.timekeeping import RATE, SLEWED, StationClock

BEGIN = 1_780_000_000_000_000


class Hand(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.stepped = 0.0
        """What somebody made of the wall clock."""

    def now(self) -> int:
        return BEGIN + round((self.passed + self.stepped) * 1_000_000)

    def monotonic(self) -> float:
        return self.passed


def ahead(station: StationClock, clock: Hand) -> float:
    return (station.now() - clock.now()) / 1_000_000


@given(difference=st.floats(-SLEWED, SLEWED), steps=st.lists(st.floats(0, 3_000), min_size=1, max_size=20))
def test_B22_slewed_time_never_jumps_and_never_goes_back(difference: float, steps: list[float]) -> None:
    clock = Hand()
    station = StationClock(clock, "x")
    said = rfc3339(clock.now() + round(difference * 1_000_000))
    assert station.told(said if "." in said else said.replace("Z", ".000Z"), 0.0) == ("slewed" if abs(difference) > 0.001 else "kept")
    before = station.now()
    for step in steps:
        clock.passed += step
        now = station.now()
        assert abs((now - before) / 1_000_000 - step) <= step * RATE + 0.000_002
        before = now
    if sum(steps) * RATE > SLEWED and abs(difference) > 0.001:
        assert ahead(station, clock) == pytest.approx(difference, abs=0.001)


def test_B22_a_large_difference_is_a_step_and_half_the_round_trip_counts() -> None:
    clock = Hand()
    station = StationClock(clock, "x")
    assert station.told(rfc3339(clock.now() + 60_500_000), 3.0) == "stepped"
    assert ahead(station, clock) == pytest.approx(62.0)
    assert station.told(rfc3339(station.now() - 1_500_000).replace("Z", ".000Z" if station.now() % 1_000_000 == 500_000 else "Z"), 3.0) == "kept"


def test_B22_whole_seconds_are_not_more_exact_than_they_are() -> None:
    clock = Hand()
    station = StationClock(clock, "x")
    clock.passed = 0.4
    assert station.told(rfc3339(BEGIN), 0.0) == "kept"
    assert station.told("1999-01-01T00:00:00Z", 0.0) == "refused"


@pytest.mark.parametrize("said", ["kept", "stepped"])
def test_B22_a_step_of_the_machine_s_clock_moves_the_station_only_until_it_was_told_the_time(said: str) -> None:
    clock = Hand()
    clock.stepped = -100_000_000.0
    station = StationClock(clock, "x")
    assert station.now() == clock.now()
    if said == "kept":
        clock.stepped = 0.0
        assert station.now() == BEGIN, "who knows nothing follows"
    assert station.told(rfc3339(BEGIN), 0.0) == said
    before = station.now()
    clock.stepped, clock.passed = 5_000.0, 60.0
    assert (station.now() - before) / 1_000_000 == pytest.approx(60.0, abs=0.1)


@pytest.mark.parametrize("name", ["geolocation", "GEOLOCATION", " Geolocation "])
def test_a_key_is_found_in_any_letter_case(name: str) -> None:
    found = keys.find(name)
    assert found is not None
    assert found.name == "Geolocation"


def test_what_is_read_only_has_no_default_and_defaults_are_valid() -> None:
    for row in keys.TABLE.values():
        assert (row.check is None) == (row.default is None)
        assert row.check is None or (row.default is not None and row.check(row.default))


@pytest.mark.parametrize(
    ("value", "fits"), [("0", True), (" 7 ", True), ("2147483647", True), ("2147483648", False), ("-1", False), ("1.0", False), ("", False)]
)
def test_integers_of_keys(value: str, fits: bool) -> None:
    row = keys.find("websocketPingInterval")
    assert row is not None
    assert row.check is not None
    assert row.check(value) is fits


def test_the_past_is_bounded_on_disk_and_cut_by_time(tmp_path: Path) -> None:
    past = Past(tmp_path / "log", size=2_000, head="head\n")
    for number in range(500):
        past.add(BEGIN + number * 1_000_000, f" line {number}")
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4_200
    lines = past.text(None, None).splitlines()
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    assert lines[0] == "head"
    assert lines[-1].endswith(" line 499")
    assert 40 < len(lines) < 120
    cut = past.text(BEGIN + 490_000_000, BEGIN + 492_000_000).splitlines()
    assert [line.rpartition(" ")[2] for line in cut[1:]] == ["490", "491", "492"]


def test_a_line_that_was_torn_is_left_out(tmp_path: Path) -> None:
    past = Past(tmp_path / "log")
    past.add(BEGIN, " first")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"2026-05-2\xff\n\x00\x00 torn\n")
    past.add(BEGIN + 1, " last")
    assert [line.rpartition(" ")[2] for line in past.text(None, None).splitlines()] == ["first", "last"]


def test_a_full_disk_does_not_stop_the_station(tmp_path: Path) -> None:
    past = Past(tmp_path / "gone" / "log")
    past.add(BEGIN, " x")
    assert past.failing
    assert past.text(None, None) == ""


def test_in_memory_the_newest_stay() -> None:
    past = Past(None, lines=3)
    for number in range(10):
        past.add(BEGIN + number, f" {number}")
    assert [line.rpartition(" ")[2] for line in past.text(None, None).splitlines()] == ["7", "8", "9"]
