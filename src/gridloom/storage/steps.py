"""Where the steps of a question begin and end: UTC multiples up to the hour, local days, ISO weeks, months and years above.

All times are µs UTC. A local day is from one local midnight to the next: 23 or 25 hours where the clocks change, and where a zone skips
midnight itself it begins with the first moment of that date.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gridloom.core.clock import from_datetime, to_datetime
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.ports import Step
from gridloom.storage.head import LAST_TIME

MINUTE = 60_000_000
HOUR = 60 * MINUTE
FIXED = {Step.MINUTE_10: 10 * MINUTE, Step.MINUTE_15: 15 * MINUTE, Step.HOUR: HOUR}
MOST_BUCKETS = 100_000
"""The store's own limit of steps in one question; the API's is lower."""


def zone(name: str) -> ZoneInfo:
    """The zone of this IANA name. Raises InvalidInput (``$.zone``) for an unknown one."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        fault = FieldFault("$.zone", f"expected an IANA time zone, got {name!r}")
        raise InvalidInput(f"$.zone: {fault.reason}", (fault,)) from None


@lru_cache(maxsize=65536)
def midnight(name: str, ordinal: int) -> int:
    """The first moment of a local date (proleptic ordinal) in a zone."""
    local = datetime.fromordinal(ordinal).replace(tzinfo=zone(name))
    # A midnight that the clocks skip maps (fold=0, the offset before the gap) to the moment the gap begins: the date's first moment.
    # One that happens twice maps to its first occurrence: the day begins there.
    return from_datetime(local.astimezone(UTC))


def local_ordinal(name: str, moment: int) -> int:
    """The local date of a moment, as a proleptic ordinal."""
    return to_datetime(moment).astimezone(zone(name)).toordinal()


def _start(step: Step, day: date) -> date:
    if step is Step.WEEK:
        return day - timedelta(days=day.weekday())
    if step is Step.MONTH:
        return day.replace(day=1)
    if step is Step.YEAR:
        return day.replace(month=1, day=1)
    return day


def _next(step: Step, day: date) -> date:
    if step is Step.DAY:
        return day + timedelta(days=1)
    if step is Step.WEEK:
        return day + timedelta(days=7)
    if step is Step.MONTH:
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return date(day.year + 1, 1, 1)


def boundaries(step: Step, name: str, begin: int, end: int) -> list[int]:
    """``begin``, every border of a step between, ``end``: step k is from the k-th to the (k+1)-th.

    The first and the last step are cut to the question. Raises InvalidInput for ``end <= begin``, times outside 1970..9998, an unknown zone, or
    more than MOST_BUCKETS steps.
    """
    if not 0 <= begin < end < LAST_TIME:
        reason = f"expected 0 <= begin < end < {LAST_TIME}, got {begin} and {end}"
        raise InvalidInput(f"$.end: {reason}", (FieldFault("$.end", reason),))
    zone(name)
    if step is Step.TOTAL:
        return [begin, end]
    if step in FIXED:
        length = FIXED[step]
        first = begin - begin % length + length
        if (end - begin) // length > MOST_BUCKETS:
            raise _too_many()
        return [begin, *range(first, end, length), end]
    found = [begin]
    day = _start(step, date.fromordinal(local_ordinal(name, begin)))
    while True:
        day = _next(step, day)
        border = midnight(name, day.toordinal())
        if border >= end:
            break
        if border > found[-1]:
            found.append(border)
        if len(found) > MOST_BUCKETS:
            raise _too_many()
    found.append(end)
    return found


def _too_many() -> InvalidInput:
    reason = f"expected at most {MOST_BUCKETS} steps"
    return InvalidInput(f"$.step: {reason}", (FieldFault("$.step", reason),))
