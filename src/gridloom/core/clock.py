"""The only clock of the hub, so that a demo or a test can run time faster.

Everything that asks what time it is, or that sleeps, asks a Clock. A lint rule and a test ban ``time.time``,
``datetime.now`` and friends elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Wall time in microseconds UTC and monotonic time in seconds, both ``speed`` times as fast as the machine's.

    ``start`` (µs UTC) sets the wall time at creation; without it the machine's own is taken.
    """

    def __init__(self, speed: float = 1.0, start: int | None = None) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self.speed = speed
        self._real = speed == 1.0 and start is None
        self._zero = time.monotonic()
        self._wall_zero = time.time_ns() // 1000 if start is None else start

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        if self._real:
            return time.time_ns() // 1000
        return self._wall_zero + int((time.monotonic() - self._zero) * self.speed * 1_000_000)

    def monotonic(self) -> float:
        """Seconds that never go backwards, at this clock's speed."""
        return time.monotonic() if self._real else (time.monotonic() - self._zero) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds`` of this clock."""
        await asyncio.sleep(seconds / self.speed)

    async def wait_for(self, awaitable: Awaitable[T], seconds: float | None) -> T:
        """Await at most ``seconds`` of this clock. Raises TimeoutError."""
        return await asyncio.wait_for(awaitable, None if seconds is None else seconds / self.speed)


def to_datetime(microseconds: int) -> datetime:
    """An aware UTC datetime from microseconds since the epoch."""
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def from_datetime(moment: datetime) -> int:
    """Microseconds since the epoch. Raises ValueError for a datetime without a zone: nothing is guessed."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def rfc3339(microseconds: int) -> str:
    """``2026-11-21T00:58:03.123456Z``; the fraction is left out when it is zero."""
    return to_datetime(microseconds).isoformat().replace("+00:00", "Z")


def synchronised() -> bool:
    """Whether the machine's clock is held by a time service (NTP, PTP): the kernel knows, whatever the service. False where it cannot be asked."""
    import ctypes

    timex = ctypes.create_string_buffer(1024)  # struct timex with modes 0: it is read, nothing is set
    try:
        state: int = ctypes.CDLL(None).adjtimex(timex)
    except (OSError, AttributeError):
        return False
    return 0 <= state < 5  # 5 is TIME_ERROR: not synchronised
