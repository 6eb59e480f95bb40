"""The Substation's own time: the machine's clock and what the Central System said of it (B4, B22). The machine's clock is never set.

Until the time was told the machine's clock is followed, wherever it jumps; afterwards only how it goes on, not what it says (NTP may step it).
"""

from __future__ import annotations

import logging
from typing import Literal

from gridloom.core.clock import Clock, rfc3339
from gridloom.integrations.os3p.messages import moment

log = logging.getLogger(__name__)

SLEWED = 2.0
"""Seconds up to which a difference is worked off slowly; beyond, the time jumps."""
RATE = 0.0005
"""How much faster or slower the time then goes: 0.5 ms in a second, an hour for two."""
YEARS = (2016, 2200)
"""Of a time that is believed."""


class StationClock:
    """``now`` in µs UTC. It goes on steadily while it is slewed."""

    def __init__(self, clock: Clock, identity: str) -> None:
        self._clock = clock
        self._identity = identity
        self._offset = 0.0
        self._target = 0.0
        self._since = clock.monotonic()
        self._known: tuple[int, float] | None = None

    def now(self) -> int:
        """µs UTC."""
        return self._machine() + round(self._applied() * 1_000_000)

    def _machine(self) -> int:
        """µs UTC by the machine's clock; once the time was told, counted on from then, whatever somebody makes of that clock."""
        if self._known is None:
            return self._clock.now()
        wall, monotonic = self._known
        return wall + round((self._clock.monotonic() - monotonic) * 1_000_000)

    def _applied(self) -> float:
        """Seconds that we are ahead of the machine now."""
        room = (self._clock.monotonic() - self._since) * RATE
        return self._offset + max(-room, min(room, self._target - self._offset))

    def told(self, current_time: str, round_trip: float) -> Literal["kept", "slewed", "stepped", "refused"]:
        """The Central System's time came, ``round_trip`` seconds after we asked. It was on its way for half of that (B22).

        Whole seconds are taken for their middle, and differences within that are none.
        """
        half_digit = 0.0 if "." in current_time else 0.5
        year = int(current_time[:4])
        if not YEARS[0] <= year <= YEARS[1]:
            log.warning("a time that cannot be", extra={"station": self._identity, "time": current_time})
            return "refused"
        if self._known is None:
            self._known = self._clock.now(), self._clock.monotonic()
        ahead = (moment(current_time) - self.now()) / 1_000_000 + round_trip / 2 + half_digit
        if abs(ahead) <= max(half_digit, 0.001):
            return "kept"
        self._offset, self._since = self._applied(), self._clock.monotonic()
        self._target = self._offset + ahead
        if abs(ahead) <= SLEWED:
            log.info("the time is slewed", extra={"station": self._identity, "seconds": round(ahead, 3)})
            return "slewed"
        before = self.now()
        self._offset = self._target
        log.warning(
            "the time jumps", extra={"station": self._identity, "seconds": round(ahead, 3), "from": rfc3339(before), "to": rfc3339(self.now())}
        )
        return "stepped"
