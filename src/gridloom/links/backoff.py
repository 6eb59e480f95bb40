"""How long to wait before the next try: exponential with full jitter, so that a thousand links do not come back in step."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.clock import Clock


class Backoff:
    """Waits of ``random.uniform(0, min(cap, first * factor**failures))`` seconds of the clock.

    A link that was up (``up()``) for at least ``stable`` seconds starts again at ``first``; one that flaps does not.
    """

    def __init__(
        self, clock: Clock, random: Random, *, first: float = 0.5, factor: float = 2.0, cap: float = 60.0, stable: float = 60.0, least: float = 0.0
    ) -> None:
        if not (first > 0 and factor >= 1 and cap >= first and 0 <= least <= cap):
            raise ValueError(f"back-off needs first > 0, factor >= 1, cap >= first and least <= cap, not {first}, {factor}, {cap}, {least}")
        self._clock, self._random = clock, random
        self._first, self._factor, self._cap, self._stable, self._least = first, factor, cap, stable, least
        self._since: float | None = None
        self._ceiling = first
        self.failures = 0
        """Tries that failed since the last stable time."""

    def up(self) -> None:
        """It works now; only when it still does after ``stable`` seconds are the failures forgotten."""
        self._since = self._clock.monotonic()

    def next(self) -> float:
        """It failed: the seconds to wait before the next try."""
        if self._since is not None and self._clock.monotonic() - self._since >= self._stable:
            self.failures, self._ceiling = 0, self._first
        self._since = None
        ceiling = self._ceiling
        # The ceiling is multiplied up, not computed as a power: after days of failures a power would overflow.
        self._ceiling = min(self._cap, ceiling * self._factor)
        self.failures += 1
        return max(self._least, self._random.uniform(0, ceiling))

    async def wait(self) -> float:
        """Sleep for ``next()`` seconds of the clock and return them."""
        seconds = self.next()
        await self._clock.sleep(seconds)
        return seconds
