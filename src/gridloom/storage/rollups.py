"""Roll-ups: the figures of whole units of time, kept beside the samples and longer than they.

Three levels: ten minutes and hours (UTC multiples), and days (local, in the zone of the configuration). Each is kept per series and clock as blobs of
many units (``figures.encode_pair``), by *period*: the whole number of ``Level.period`` µs since 1970 in which a unit begins. Everything up to a
series' ``rolled`` (a UTC midnight) is rolled up; what is newer is answered from the samples. A UTC day of few samples has no ten-minute roll-up:
its samples are as quickly read.
"""

from __future__ import annotations

import enum

import msgspec
import numpy as np

from gridloom.storage import figures, steps
from gridloom.storage.chunks import DAY
from gridloom.storage.figures import Numbers, Table

FEW = 216
"""Up to so many samples a day have no ten-minute roll-up (1.5 per unit)."""


class Level(enum.IntEnum):
    """How long a unit is. The number is part of the stored key."""

    TEN_MINUTES = 0
    HOUR = 1
    DAY = 2

    @property
    def unit(self) -> int:
        """µs that every unit of the level begins at a multiple of (local days: whole seconds)."""
        return (10 * steps.MINUTE, steps.HOUR, 1_000_000)[self]

    @property
    def period(self) -> int:
        """µs of one blob."""
        return (DAY, 32 * DAY, 512 * DAY)[self]


class Pair(msgspec.Struct):
    """Values and increases of the same units."""

    values: Table
    increases: Table


def floor_day(time: int) -> int:
    """The UTC midnight at or before."""
    return time - time % DAY


def target(last: int, now: int) -> int:
    """Up to where a series whose last sample is at ``last`` can be rolled up: the days before the last one, and that too once it is over."""
    over = floor_day(last) + DAY
    return over if now >= over + DAY // 4 else min(floor_day(last), floor_day(now))


def first_day(zone: str, begin: int) -> int:
    """The beginning of the local day that contains ``begin``."""
    return steps.midnight(zone, steps.local_ordinal(zone, begin))


def build(samples: Numbers, begin: int, end: int, zone: str, keep_few: bool) -> dict[Level, Pair]:
    """The roll-ups of the UTC days ``[begin, end)`` and of the local days that end in ``(begin, end]``.

    ``samples`` (one clock) must reach back to ``first_day`` and as far beyond both ends as increases need. ``keep_few``: also days of few samples get
    ten-minute units.
    """
    out: dict[Level, Pair] = {}
    for level in (Level.TEN_MINUTES, Level.HOUR):
        borders = np.arange(begin, end + 1, level.unit)
        out[level] = Pair(figures.value_table(samples, borders), figures.increase_table(samples, borders))
    if not keep_few:
        fine = out[Level.TEN_MINUTES]
        low, high = np.searchsorted(samples.times, (begin, end))
        days, counts = np.unique(samples.times[low:high] // DAY, return_counts=True)
        many = days[counts > FEW]
        out[Level.TEN_MINUTES] = Pair(*(_of_days(table, many) for table in (fine.values, fine.increases)))
    local = [first_day(zone, begin)]
    while local[-1] <= end:
        local.append(steps.midnight(zone, steps.local_ordinal(zone, local[-1]) + 1))
    whole = [border for border in local if border <= end]
    if len(whole) > 1:
        edges = np.array(whole, np.int64)
        out[Level.DAY] = Pair(figures.value_table(samples, edges), figures.increase_table(samples, edges))
    return out


def _of_days(table: Table, days: figures.Array) -> Table:
    chosen = np.isin(table.begins // DAY, days)
    return Table(table.begins[chosen], {name: column[chosen] for name, column in table.columns.items()}, table.exponent)


def periods(pair: Pair, level: Level) -> list[int]:
    """The periods that have lines."""
    begins = np.concatenate((pair.values.begins, pair.increases.begins))
    return [int(period) for period in np.unique(begins // level.period)]


def of_period(pair: Pair, level: Level, period: int) -> Pair:
    """The lines of one period."""
    begin = period * level.period
    return Pair(figures.cut(pair.values, begin, begin + level.period), figures.cut(pair.increases, begin, begin + level.period))


def replaced(old: Pair, new: Pair, begin: int, end: int) -> Pair:
    """``old`` with everything in ``[begin, end)`` taken from ``new``."""
    return Pair(*(_replaced(a, b, begin, end) for a, b in ((old.values, new.values), (old.increases, new.increases))))


def _replaced(old: Table, new: Table, begin: int, end: int) -> Table:
    parts = [part for part in (figures.cut(old, 0, begin), new, figures.cut(old, end, 2**62)) if len(part)]
    if not parts:
        return new
    borders = np.append(np.concatenate([part.begins for part in parts]), 2**62)
    return figures.regroup(parts, borders)


def encode(pair: Pair, level: Level) -> bytes:
    """The blob of a period."""
    return figures.encode_pair(pair.values, pair.increases, level.unit)


def decode(body: bytes, level: Level) -> Pair:
    """The inverse. Raises StorageCorrupt."""
    return Pair(*figures.decode_pair(body, level.unit))
