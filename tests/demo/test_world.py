"""The small world: pure, the same on every machine, and believable."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gridloom.core.clock import Clock
from gridloom.core.model import Phase
from gridloom.core.ports import World as Port
from gridloom.demo.world import VOLTS, House, World, neighbourhood, noise, sunshine, temperature

PARIS = ZoneInfo("Europe/Paris")


def at(*when: int) -> int:
    """µs of a moment in Paris."""
    return int(datetime(*when, tzinfo=PARIS).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


def world(**houses: House) -> World:
    return World(Clock(1e-9, at(2026, 1, 15, 12)), houses)


def day(house: House, *date: int, step: int = 60) -> list[float]:
    """Watts of all phases through a day."""
    begin = at(*date)
    return [sum(house.watts(begin + second * 1_000_000)) for second in range(0, 86_400, step)]


def test_the_same_seed_draws_the_same_in_another_process() -> None:
    source = Path(__file__).parents[2] / "src"
    moments = [at(2026, 1, 15, hour, 7) for hour in range(24)]
    code = f"from gridloom.demo.world import House; print([House(7, phases=3, solar=3000).watts(at) for at in {moments}])"
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source), "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    house = House(7, phases=3, solar=3000)
    assert there.stdout.strip() == str([house.watts(moment) for moment in moments])
    assert [House(8, phases=3, solar=3000).watts(moment) for moment in moments] != [house.watts(moment) for moment in moments]


def test_what_is_drawn_depends_on_the_moment_and_not_on_who_asked_before() -> None:
    one, two = House(3), House(3)
    moments = [at(2026, 3, 1, hour, 13) for hour in range(24)]
    forwards = [one.watts(moment) for moment in moments]
    assert [two.watts(moment) for moment in reversed(moments)] == forwards[::-1]


def test_a_day_of_a_house_is_believable() -> None:
    winter, summer = day(House(1), 2026, 1, 15), day(House(1), 2026, 7, 15)
    for watts in (winter, summer):
        assert min(watts) > 20, "something always draws"
        assert max(watts) < 9000
    assert 15 < sum(winter) / 60_000 < 70, "kWh of a winter day, heated by a heat pump"
    assert 4 < sum(summer) / 60_000 < 20
    assert sum(winter) > 1.5 * sum(summer)


def test_winter_evenings_with_oven_and_heat_pump_are_the_hard_ones() -> None:
    house = House(1)
    evenings, nights = [], []
    for date in range(1, 32):
        evenings.append(max(sum(house.watts(at(2026, 1, date, 19, minute))) for minute in range(0, 60, 2)))
        nights.append(max(sum(house.watts(at(2026, 1, date, 4, minute))) for minute in range(0, 60, 2)))
    assert max(evenings) > 6000, "some evening exceeds 6 kVA"
    assert sorted(evenings)[15] > 1.5 * sorted(nights)[15]
    assert {"oven", "heat pump", "sun", "water", "fridge"} <= set(house.appliances(at(2026, 1, 1)))


def test_appliances_add_up_to_the_house_on_their_phases() -> None:
    three, one = House(5, phases=3, solar=4000), House(5, phases=1, solar=4000)
    for hour in range(24):
        moment = at(2026, 5, 3, hour, 31)
        each = three.appliances(moment).values()
        assert three.watts(moment) == pytest.approx(tuple(sum(watts[phase] for watts in each) for phase in range(3)))
        assert sum(one.watts(moment)) == pytest.approx(sum(three.watts(moment)))
        assert one.watts(moment)[1:] == (0, 0)
        assert three.current(Phase.L2, moment) == pytest.approx(three.watts(moment)[1] / VOLTS)
    assert three.current(Phase.N, at(2026, 5, 3)) == 0


def test_the_sun_shines_by_day_more_in_summer_and_never_more_than_its_peak() -> None:
    house = House(2, solar=6000, heat_pump=0)
    june, december = day(house, 2026, 6, 21), day(house, 2026, 12, 21)
    roof = [house.appliances(at(2026, 6, 21, hour))["sun"] for hour in range(24)]
    assert min(june) < -2000, "it feeds in"
    assert min(december) > min(june)
    assert all(sum(watts) == 0 for watts in (roof[0], roof[2], roof[23]))
    assert all(-6000 <= sum(watts) <= 0 for watts in roof)
    noon = max(range(6 * 60, 21 * 60), key=lambda minute: sunshine_clear(house, minute))
    assert 13.5 * 60 < noon < 14.2 * 60, "in summer time the sun is highest towards two"


def sunshine_clear(house: House, minute: int) -> float:
    """The height of the sun without the weather, which depends on the second alone."""
    moment = house.moment(at(2026, 6, 21) + minute * 60_000_000)
    return sunshine(0, moment._replace(second=0))


def test_the_wall_clock_does_not_move_the_sun() -> None:
    house = House(1)
    before, after = house.moment(at(2026, 3, 28, 12)), house.moment(at(2026, 3, 29, 13))
    assert sunshine(0, before._replace(second=0)) == pytest.approx(sunshine(0, after._replace(second=0)), rel=0.02)


def test_winters_are_cold() -> None:
    house = House(1)

    def mean(month: int) -> float:
        return sum(temperature(1, house.moment(at(2026, month, date, hour))) for date in range(1, 29) for hour in range(0, 24, 3)) / 224

    assert -3 < mean(1) < 8
    assert 15 < mean(7) < 26


def test_noise_is_smooth_and_bounded() -> None:
    values = [noise(1, "x", number / 50) for number in range(5000)]
    assert all(-1 <= value <= 1 for value in values)
    assert max(abs(one - other) for one, other in itertools.pairwise(values)) < 0.1
    assert min(values) < -0.8
    assert max(values) > 0.8


# ------------------------------------------------------------------------------------------------------------------ the world


def test_it_is_what_simulators_ask_for() -> None:
    port: Port = World(Clock(1e-9, at(2026, 1, 15, 19)))
    assert port.now() == at(2026, 1, 15, 19)
    assert all(port.current(place, Phase.L1) > -40 for place in neighbourhood())
    with pytest.raises(KeyError):
        port.current("house:99", Phase.L1)


def test_a_charger_adds_to_what_its_house_draws_until_it_is_unplugged() -> None:
    small = world(a=House(1, phases=3), b=House(2))
    alone = small.current("a", Phase.L2)
    unplug = small.plug("a", "charger", lambda phase: 16.0 if phase is Phase.L2 else 0.0)
    assert small.current("a", Phase.L2) == pytest.approx(alone + 16)
    assert small.current("a", Phase.L1) == small.houses["a"].current(Phase.L1, small.now())
    assert small.current("b", Phase.L1) == small.houses["b"].current(Phase.L1, small.now())
    again = small.plug("a", "charger", lambda phase: 6.0)
    unplug()
    assert small.current("a", Phase.L2) == pytest.approx(alone + 6), "the first one no longer counts, and cannot unplug the second"
    again()
    assert small.current("a", Phase.L2) == pytest.approx(alone)
    with pytest.raises(KeyError):
        small.plug("nowhere", "charger", lambda phase: 0.0)


def test_energy_is_what_power_makes_over_time() -> None:
    small = world(a=House(2, solar=6000, heat_pump=0))
    begin, end = at(2026, 6, 21), at(2026, 6, 22)
    taken, given = small.energy("a", begin, end, 60)
    watts = day(small.houses["a"], 2026, 6, 21)
    assert taken - given == pytest.approx(sum(watts) / 60, rel=1e-6)
    assert taken > 1000
    assert given > 5000
    first, second = small.energy("a", begin, begin + (end - begin) // 2, 60), small.energy("a", begin + (end - begin) // 2, end, 60)
    assert taken == pytest.approx(first[0] + second[0])


def test_a_house_has_one_or_three_phases() -> None:
    with pytest.raises(ValueError, match="1 or 3 phases, not 2"):
        House(phases=2)
