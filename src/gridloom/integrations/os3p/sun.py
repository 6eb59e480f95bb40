"""When the sun sets and rises: J. Meeus, Astronomical Algorithms (2nd ed.), chapters 12 and 25: the sun within 0.01°, as in NOAA's calculator.

The upper limb on the horizon of somebody at elevation 0: the centre at −0.833°, which is 34' of standard refraction and 16' of radius. Moments are
µs UTC, in whole seconds; latitudes are degrees north, longitudes degrees east. Sea and air differ from the standard by more than these formulae do.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

HORIZON = math.sin(math.radians(-0.833))
J2000 = 946_728_000
"""Seconds UTC of 2000-01-01 12:00, from which the formulae count."""
HALF_TURN = 43_200
"""Seconds between the sun's highest and its lowest place; the equation of time moves them by less than 16 s."""


class Crossing(NamedTuple):
    """The sun passes the horizon."""

    at: int
    """µs UTC."""
    rises: bool


class Sun(NamedTuple):
    """What the sun does between two moments. A sunset and a sunrise that do not occur are None; then the sun is up, or down, all that time."""

    sunset: int | None
    """The first one, µs UTC."""
    sunrise: int | None
    """The last one, µs UTC: after a sunset it ends the night."""
    up_at_start: bool
    up_at_end: bool


def between(start: int, end: int, latitude: float, longitude: float) -> Sun:
    """The sun of [start, end), µs UTC. Of several sunsets the first and of several sunrises the last, which happens where both come near to noon."""
    found = crossings(start, end, latitude, longitude)
    return Sun(
        next((one.at for one in found if not one.rises), None),
        next((one.at for one in reversed(found) if one.rises), None),
        is_up(start, latitude, longitude),
        is_up(end, latitude, longitude),
    )


def crossings(start: int, end: int, latitude: float, longitude: float) -> list[Crossing]:
    """Every sunset and sunrise in [start, end), µs UTC, in their order; of any length of time."""
    first, last = start // 1_000_000, end // 1_000_000
    turn = first + round((-_hour_angle(first, longitude)) % 180 * 240)  # 15° an hour are 240 s a degree
    bounds = [first, *range(turn, last, HALF_TURN), last]
    found = []
    # From turn to turn the sun only climbs or only sinks, so that two places on different sides of the horizon have one crossing between them.
    was_up = _is_up(first, latitude, longitude)
    for begin, stop in pairwise(bounds):
        now_up = _is_up(stop, latitude, longitude)
        if now_up != was_up:
            found.append(Crossing(_first_second(begin, stop, now_up, latitude, longitude) * 1_000_000, now_up))
        was_up = now_up
    return found


def is_up(at: int, latitude: float, longitude: float) -> bool:
    """Whether the sun is above the horizon at ``at`` (µs UTC)."""
    return _is_up(at / 1_000_000, latitude, longitude)


def _first_second(low: int, high: int, up: bool, latitude: float, longitude: float) -> int:
    """The whole second nearest to the crossing between two moments, after which the sun is ``up`` (or down)."""
    while low < high:
        middle = (low + high) // 2
        if _is_up(middle + 0.5, latitude, longitude) == up:
            high = middle
        else:
            low = middle + 1
    return low


def _is_up(seconds: float, latitude: float, longitude: float) -> bool:
    x, y, z = _direction(seconds)
    turned = math.radians(_sidereal(seconds) + longitude)
    here = math.radians(latitude)
    return math.sin(here) * z + math.cos(here) * (math.cos(turned) * x + math.sin(turned) * y) > HORIZON


def _hour_angle(seconds: float, longitude: float) -> float:
    """Degrees that the sun is west of the meridian."""
    x, y, _ = _direction(seconds)
    return _sidereal(seconds) + longitude - math.degrees(math.atan2(y, x))


def _direction(seconds: float) -> tuple[float, float, float]:
    """Where the sun is seen among the stars: a unit vector to the equinox, 90° east of it on the equator, and the pole (chapter 25)."""
    century = (seconds - J2000) / 3_155_760_000
    anomaly = math.radians(357.52911 + century * (35_999.05029 - 0.0001537 * century))
    node = math.radians(125.04 - 1_934.136 * century)
    mean = 280.46646 + century * (36_000.76983 + 0.0003032 * century)
    centre = (
        (1.914602 - century * (0.004817 + 0.000014 * century)) * math.sin(anomaly)
        + (0.019993 - 0.000101 * century) * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    longitude = math.radians(mean + centre - 0.00569 - 0.00478 * math.sin(node))
    tilt = math.radians(23.4392911 - 0.0130042 * century + 0.00256 * math.cos(node))
    eastward = math.sin(longitude)
    return math.cos(longitude), math.cos(tilt) * eastward, math.sin(tilt) * eastward


def _sidereal(seconds: float) -> float:
    """Degrees that Greenwich has turned from the equinox (chapter 12; what is left out is below a third of a second)."""
    return 280.46061837 + 360.98564736629 * ((seconds - J2000) / 86_400)
