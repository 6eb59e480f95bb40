"""One small world that the simulators share: houses with their appliances, sun and weather, and what others draw in them (a car).

What a house draws is a pure function of its seed and of the moment, in the local time of its place: no state, no clock, the same on every
machine. Only what other simulators plug in (``World.plug``: a charger) has a life of its own. ``World`` is what ``core.ports.World`` asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

from gridloom.core.clock import Clock
from gridloom.core.model import Phase

VOLTS = 230.0
"""Nominal voltage of a phase; amperes here are watts divided by it."""
PHASES = (Phase.L1, Phase.L2, Phase.L3)
LATITUDE = 46.5
"""Degrees north: the middle of France."""

Watts = tuple[float, float, float]
Load = Callable[[Phase], float]
"""Amperes that something plugged in draws on a phase now; negative when it feeds in."""


class Moment(NamedTuple):
    """A moment in the local time of a house: ``day`` counts days, ``hour`` is 0 to 24, ``year`` the part of the year gone (0 to 1)."""

    second: int
    day: int
    weekday: int
    hour: float
    year: float
    offset: float


def noise(seed: int, name: str, at: float) -> float:
    """Smooth noise from -1 to 1 that changes over about one unit of ``at``: the same for the same seed, name and moment."""
    before = math.floor(at)
    rest = at - before
    left, right = _dice(seed, name, before), _dice(seed, name, before + 1)
    ease = rest * rest * (3 - 2 * rest)
    return (left + (right - left) * ease) * 2 - 1


@lru_cache(maxsize=4096)
def _dice(seed: int, name: str, number: int) -> float:
    """A number from 0 to 1, evenly spread, from these three alone (a string seeds the same on every machine)."""
    return Random(f"{seed} {name} {number}").random()  # noqa: S311  # a house, not a secret


# ------------------------------------------------------------------------------------------------------------------- weather


def temperature(seed: int, moment: Moment) -> float:
    """Outside, in °C: the season, the time of day, and weather that lasts some days."""
    season = 12.0 - 9.0 * math.cos(2 * math.pi * (moment.year - 0.05))
    day = -4.0 * math.cos(2 * math.pi * (moment.hour - 3.5) / 24)
    return season + day + 4.0 * noise(seed, "weather", moment.second / (2.5 * 86_400))


def sunshine(seed: int, moment: Moment) -> float:
    """How much of its peak a solar roof gives, 0 to 1: the sun's height, and clouds that pass."""
    declination = math.radians(-23.44 * math.cos(2 * math.pi * (moment.year + 10 / 365)))
    latitude = math.radians(LATITUDE)
    # The sun is highest about 50 minutes after noon of winter time here; summer time moves the clock, not the sun.
    angle = math.radians(15 * (moment.hour - moment.offset - 12.85))
    height = math.sin(latitude) * math.sin(declination) + math.cos(latitude) * math.cos(declination) * math.cos(angle)
    clouds = 0.5 + 0.5 * noise(seed, "sky", moment.second / 30_000) + 0.25 * noise(seed, "clouds", moment.second / 400)
    return max(0.0, height) * (1 - 0.75 * min(1.0, max(0.0, clouds)))


# -------------------------------------------------------------------------------------------------------------- one household


class House:
    """A household: what it draws is the sum of its appliances, each on its phase.

    ``phases`` 1 or 3; ``solar`` the peak of the roof in watts (0: none); ``heat_pump`` its greatest electrical power in watts (0: none);
    ``size`` scales the rest. ``zone`` is an IANA name.
    """

    def __init__(
        self, seed: int = 1, *, phases: int = 1, solar: float = 0.0, heat_pump: float = 2200.0, size: float = 1.0, zone: str = "Europe/Paris"
    ) -> None:
        if phases not in (1, 3):
            raise ValueError(f"a house has 1 or 3 phases, not {phases}")
        self.seed, self.phases, self.solar, self.heat_pump, self.size = seed, phases, solar, heat_pump, size
        self._zone = ZoneInfo(zone)
        self._last: tuple[int, Watts] = (-1, (0.0, 0.0, 0.0))

    def moment(self, at: int) -> Moment:
        """``at`` (µs UTC) in the house's own time."""
        second = at // 1_000_000
        local = datetime.fromtimestamp(second, self._zone)
        shift = local.utcoffset()
        offset = 0.0 if shift is None else shift.total_seconds() / 3600
        hour = local.hour + local.minute / 60 + local.second / 3600
        return Moment(second, local.toordinal(), local.weekday(), hour, (local.timetuple().tm_yday - 1 + hour / 24) / 365.25, offset - 1)

    def appliances(self, at: int) -> dict[str, Watts]:
        """Watts of everything in the house at ``at`` (µs UTC), by name and phase; the roof is negative."""
        moment = self.moment(at)
        size = self.size
        return {
            "base": (size * (95 + 35 * noise(self.seed, "base", moment.second / 240)), size * 25.0, size * 15.0),
            "fridge": (self._fridge(moment), 0.0, 0.0),
            "light": (size * self._light(moment), size * 0.4 * self._light(moment), 0.0),
            "kettle": (0.0, self._kettle(moment), 0.0),
            "oven": (0.0, self._oven(moment), 0.0),
            "hob": (self._hob(moment), 0.0, 0.0),
            "washing": (0.0, 0.0, self._washing(moment)),
            "water": (0.0, 0.0, self._water(moment)),
            "heat pump": self._heating(moment),
            "sun": self._roof(moment),
        }

    def watts(self, at: int) -> Watts:
        """Active power by phase at ``at`` (µs UTC); of a single-phase house all is on the first. Negative feeds in."""
        if self._last[0] == at:
            return self._last[1]
        each = list(self.appliances(at).values())
        total = (sum(w[0] for w in each), sum(w[1] for w in each), sum(w[2] for w in each))
        if self.phases == 1:
            total = (sum(total), 0.0, 0.0)
        self._last = (at, total)
        return total

    def current(self, phase: Phase, at: int) -> float:
        """Amperes on a phase at ``at`` (µs UTC), negative when it feeds in; 0 on a phase that it has not."""
        return self.watts(at)[PHASES.index(phase)] / VOLTS if phase in PHASES else 0.0

    # Each of the following says what one appliance draws in watts.

    def _fridge(self, moment: Moment) -> float:
        cycle = 2400 + 600 * _dice(self.seed, "fridge", 0)
        return 85.0 if moment.second % cycle < 0.35 * cycle else 2.0

    def _light(self, moment: Moment) -> float:
        at_home = moment.hour < 8.5 or moment.hour > 17
        awake = 6.5 < moment.hour < 23 + 0.7 * noise(self.seed, "bedtime", moment.day)
        dark = sunshine(0, moment) < 0.12
        return (110 + 60 * noise(self.seed, "light", moment.second / 900)) if at_home and awake and dark else 0.0

    def _kettle(self, moment: Moment) -> float:
        return 2000.0 if any(self._during(moment, f"kettle {hour}", hour, 0.06, 0.8) for hour in (6.9, 8.2, 16.3, 20.8)) else 0.0

    def _oven(self, moment: Moment) -> float:
        noon = moment.weekday >= 5 and self._during(moment, "oven noon", 11.6, 0.9, 0.7)
        if not noon and not self._during(moment, "oven", 18.7, 0.9, 0.6):
            return 0.0
        return 2300.0 if moment.second % 110 < 65 else 40.0  # the thermostat

    def _hob(self, moment: Moment) -> float:
        cooking = self._during(moment, "hob", 19.0, 0.6, 0.9) or self._during(moment, "hob noon", 12.1, 0.4, 0.5)
        return 1800.0 if cooking and moment.second % 40 < 24 else 0.0

    def _washing(self, moment: Moment) -> float:
        if self._during(moment, "washing heats", 9.8, 0.4, 0.4):
            return 2000.0
        return 150.0 + 100 * noise(self.seed, "drum", moment.second / 5) if self._during(moment, "washing", 10.2, 1.1, 0.4) else 0.0

    def _water(self, moment: Moment) -> float:
        """A tank that is heated in the off-peak hours of the night."""
        hours = 1.8 + 0.8 * noise(self.seed, "tank", moment.day if moment.hour > 12 else moment.day - 1)
        since = (moment.hour - 22.75) % 24
        return 2000.0 * self.size if since < hours else 0.0

    def _heating(self, moment: Moment) -> Watts:
        if self.heat_pump == 0:
            return (0.0, 0.0, 0.0)
        cold = max(0.0, 15.0 - temperature(self.seed, moment))
        part = min(1.0, cold / 20)
        # It runs for a part of every 25 minutes, the longer the colder; at full cold it never stops.
        on = (moment.second + 700 * _dice(self.seed, "heating", 0)) % 1500 < 1500 * min(1.0, part * 1.1)
        power = self.heat_pump * (0.4 + 0.6 * part) / 3 if on else 8.0
        return (power, power, power)

    def _roof(self, moment: Moment) -> Watts:
        power = -self.solar * sunshine(self.seed, moment) / 3
        return (power, power, power)

    def _during(self, moment: Moment, name: str, begin: float, hours: float, chance: float) -> bool:
        """Whether a habit goes on: on a day with this chance it begins at about that hour and lasts about that long."""
        if not begin - 0.5 <= moment.hour <= begin + 0.5 + 1.3 * hours:
            return False
        if _dice(self.seed, f"{name} at all", moment.day) > chance:
            return False
        begins = begin + 0.5 * (2 * _dice(self.seed, name, moment.day) - 1)
        return begins <= moment.hour < begins + hours * (0.7 + 0.6 * _dice(self.seed, f"{name} long", moment.day))


# ------------------------------------------------------------------------------------------------------------------ the world


class World:
    """Places (``house:1``…) at one clock. What is plugged in at a place adds to what its house draws."""

    def __init__(self, clock: Clock, houses: Mapping[str, House] | None = None) -> None:
        self.clock = clock
        self.houses = dict(houses) if houses is not None else neighbourhood()
        self._plugged: dict[str, dict[str, Load]] = {place: {} for place in self.houses}

    def now(self) -> int:
        """µs UTC of the world's own clock."""
        return self.clock.now()

    def current(self, place: str, phase: Phase) -> float:
        """Amperes drawn at a place now, negative when it feeds in. Raises KeyError for a place that is none."""
        return self.houses[place].current(phase, self.clock.now()) + sum(load(phase) for load in self._plugged[place].values())

    def plug(self, place: str, name: str, load: Load) -> Callable[[], None]:
        """Let a charger (or anything with a life of its own) draw current at a place; the return value unplugs it.

        A second one with the same name takes the place of the first. Raises KeyError for a place that is none.
        """
        plugged = self._plugged[place]
        plugged[name] = load

        def unplug() -> None:
            if plugged.get(name) is load:
                del plugged[name]

        return unplug

    def energy(self, place: str, begin: int, end: int, step: float = 10.0) -> tuple[float, float]:
        """Wh that the house of a place took and gave between two moments (µs UTC), all phases netted, by steps of seconds.

        Without what is plugged in: nobody knows what that drew before. Raises KeyError for a place that is none.
        """
        house = self.houses[place]
        taken = given = 0.0
        at = begin
        while at < end:
            until = min(end, at + int(step * 1_000_000))
            energy = sum(house.watts(at)) * (until - at) / 3_600_000_000
            taken, given = taken + max(0.0, energy), given + max(0.0, -energy)
            at = until
        return taken, given


def neighbourhood() -> dict[str, House]:
    """The demo's houses: ``house:1`` three-phase with a heat pump, ``house:2`` with a solar roof, ``house:3`` a small one with a heat pump."""
    return {"house:1": House(1, phases=3, heat_pump=4500.0, size=1.4), "house:2": House(2, solar=6000.0, heat_pump=0.0), "house:3": House(3)}
