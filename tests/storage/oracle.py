"""What a store must answer, worked out slowly from a plain list of samples. Shares no code with the store, not even its arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from gridloom.core.model import MeterReading, Quality, ReadingType, TimeSource
from gridloom.core.ports import Operator, Step

Number = Fraction | float
Told = tuple[int, TimeSource, Number | str, bool]
"""(time, clock, value in base units or text, SUSPECT)."""
Answer = dict[tuple[int, int], tuple[Any, int, int, int]]
"""(begin, end) of a step -> (value, count, resets, rejected)."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIXED = {Step.MINUTE_10: 600, Step.MINUTE_15: 900, Step.HOUR: 3600}


def samples(batch: Iterable[MeterReading], device: str, type: ReadingType) -> list[Told]:
    """What a store holds of one series: the last one told of a time and clock."""
    found: dict[tuple[int, bool], Told] = {}
    for one in batch:
        if one.device != device:
            continue
        for reading in one.readings:
            if reading.type == type:
                value = reading.value
                number = value if isinstance(value, (float, str)) else value * Fraction(10) ** reading.exponent
                found[one.time, one.source is TimeSource.HUB] = (one.time, one.source, number, bool(reading.quality & Quality.SUSPECT))
    return [found[key] for key in sorted(found)]


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def borders(step: Step, zone: str, begin: int, end: int) -> list[int]:
    """Begin, the borders of steps between, end: by walking the calendar day by day."""
    if step is Step.TOTAL:
        return [begin, end]
    if step in FIXED:
        length = FIXED[step] * 1_000_000
        return [begin, *(at for at in range(begin // length * length, end, length) if at > begin), end]
    where = ZoneInfo(zone)
    day = (EPOCH + timedelta(microseconds=begin)).astimezone(where).date() - timedelta(days=1)
    found: list[int] = []
    while True:
        day += timedelta(days=1)
        at = _micros(datetime(day.year, day.month, day.day, tzinfo=where).astimezone(UTC))
        if at >= end:
            return [begin, *found, end]
        starts = (
            step is Step.DAY
            or (step is Step.WEEK and day.isoweekday() == 1)
            or (step is Step.MONTH and day.day == 1)
            or (step is Step.YEAR and day.timetuple().tm_yday == 1)
        )
        if starts and at > begin:
            found.append(at)


def _increases(points: list[tuple[int, Number]]) -> list[tuple[int, Number, bool, bool]]:
    """(time, increase, reset, spike) of each sample of a register."""
    found: list[tuple[int, Number, bool, bool]] = []
    before: Number | None = None
    for place, (time, value) in enumerate(points):
        if 0 < place < len(points) - 1:
            left, right = points[place - 1][1], points[place + 1][1]
            if (left <= right and right < value) or (value < left and left <= right):
                found.append((time, Fraction(0), False, True))
                continue
        increase: Number = Fraction(0)
        reset = False
        if before is not None and value >= before:
            increase = value - before
        elif before is not None:
            reset = True
            if before > 0 and value >= 0:
                wrap: Any = 10**6
                while wrap <= before:
                    wrap *= 10
                if (wrap - before + value) * 100 <= wrap:
                    increase = wrap - before + value
        before = value
        found.append((time, increase, reset, False))
    return found


def _of(operator: Operator, kept: list[Any]) -> Any:
    if operator is Operator.SUM:
        return sum(kept)
    if operator is Operator.AVERAGE:
        return sum(kept) / len(kept)
    if operator is Operator.MINIMUM:
        return min(kept)
    if operator is Operator.MAXIMUM:
        return max(kept)
    if operator is Operator.COUNT:
        return len(kept)
    return kept[0] if operator is Operator.FIRST else kept[-1]


def _of_clock(told: list[Told], operator: Operator, edges: list[int], include_suspect: bool) -> Answer:
    out: Answer = {}
    pairs = list(pairwise(edges))
    if operator is Operator.DELTA:
        numbers = [one for one in told if not isinstance(one[2], str)]
        good = [(time, value) for time, _, value, bad in numbers if (include_suspect or not bad) and not isinstance(value, str)]
        increases = _increases(good)
        for begin, end in pairs:
            mine = [one for one in increases if begin < one[0] <= end]
            left = 0 if include_suspect else sum(1 for time, _, _, bad in numbers if bad and begin < time <= end)
            rejected = left + sum(1 for one in mine if one[3])
            count = sum(1 for one in mine if not one[3])
            if count or rejected:
                out[begin, end] = (sum((one[1] for one in mine), Fraction(0)), count, sum(1 for one in mine if one[2]), rejected)
        return out
    sees_text = operator in (Operator.COUNT, Operator.FIRST, Operator.LAST)
    for begin, end in pairs:
        mine_told = [one for one in told if begin <= one[0] < end and (sees_text or not isinstance(one[2], str))]
        kept: list[Any] = [one[2] for one in mine_told if include_suspect or not one[3]]
        rejected = len(mine_told) - len(kept)
        if not mine_told:
            continue
        out[begin, end] = (_of(operator, kept) if kept else None, len(kept), 0, rejected)
    return out


def aggregate(
    told: list[Told],
    operator: Operator,
    step: Step,
    zone: str,
    begin: int,
    end: int,
    *,
    include_suspect: bool = False,
    source: TimeSource | None = None,
) -> Answer:
    """Per step: (value, count, resets, rejected); steps without counted samples are left out.

    Without ``source`` and with samples of both clocks: per step the device's where it has any (not for DELTA: see the tests of mixing).
    """
    edges = borders(step, zone, begin, end)
    if source is not None:
        out = _of_clock([one for one in told if one[1] is source], operator, edges, include_suspect)
    else:
        out = _of_clock([one for one in told if one[1] is TimeSource.HUB], operator, edges, include_suspect)
        out.update(_of_clock([one for one in told if one[1] is TimeSource.DEVICE], operator, edges, include_suspect))
    return {key: line for key, line in out.items() if line[1]}
