"""At which speed a line speaks, found by listening. Sans-I/O: told what came and what time it is, it says what to do.

Two speeds are tried in turn until groups make sense: 9600 baud (standard mode, and adapters that re-emit historic frames) and 1200 baud
(historic mode). What the groups are decides the mode, never the speed (TIC FACTS 10.5 and 10.6). A line that was read and no longer makes sense
(the distributor switched the meter overnight) is searched again. Times are seconds of any clock that does not go backwards.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from gridloom.integrations.tic.codec import Group
from gridloom.integrations.tic.labels import Mode

SPEEDS = (9600, 1200)
"""Enedis-NOI-CPT_54E, 5.2 (standard) and 4.2 (historic)."""

PATIENCE = {9600: 0.75, 1200: 1.5}
"""Seconds of bytes without a good group after which the other speed is tried: the time of several groups."""
DOUBT = 3.0
"""The same when groups come in the right shape, but with wrong checksums: a noisy line, not a wrong speed."""
ENOUGH = 120
"""Bytes that must have come in that time; the longest group of a Linky has 109."""
CONFUSED = 2.0
"""Seconds without a good group, while bytes come, after which a line that was read is searched again."""
PROOF = 2
"""Good groups of one mode, one behind the other, that prove a speed: noise has a right six-bit checksum now and then."""


class Verdict(enum.Enum):
    """What to do with the port now."""

    STAY = enum.auto()
    OTHER = enum.auto()  # search on at the other speed
    CONFUSED = enum.auto()  # it was read, and what comes makes no sense any more: search, at the other speed first
    SILENT = enum.auto()  # nothing came for too long: open the port anew
    NONSENSE = enum.auto()  # bytes came, but no good group for too long: likewise


class Tuning:
    """Of one line. ``first``: the mode whose speed is tried first; ``silent_after``: seconds without a good group that are too long."""

    def __init__(self, first: Mode | None = None, silent_after: float = 10.0) -> None:
        self.speed = 1200 if first is Mode.HISTORIC else 9600
        self.found = False
        """Whether the speed is proved."""
        self.searches = 0
        self._silent_after = silent_after
        self._sense = 0.0  # when the last good group came, or the port was opened
        self._tuned = 0.0
        self._began = 0.0  # when the first byte at this speed came
        self._bytes = 0  # at this speed
        self._senseless = 0  # bytes since the last good group or the opening, at any speed
        self._shapes = 0
        self._proof: list[Mode] = []

    def opened(self, now: float) -> None:
        """The port was opened, at ``speed``."""
        self._sense, self._senseless = now, 0
        self._start(now)

    def other(self, now: float) -> int:
        """Search on at the other speed, which is returned."""
        self.speed = SPEEDS[1 - SPEEDS.index(self.speed)]
        self._start(now)
        return self.speed

    def heard(self, count: int, groups: Iterable[Group], now: float) -> None:
        """Bytes came, and with them the ends of these groups."""
        if not self._bytes:
            self._began = now
        self._bytes += count
        self._senseless += count
        for group in groups:
            if not group.valid:
                self._shapes += 1
                continue
            self._sense, self._senseless = now, 0
            if not self.found:
                self._prove(group.mode)

    def verdict(self, now: float) -> Verdict:
        """What to do now. Ask a few times a second."""
        if now - self._sense >= self._silent_after:
            return Verdict.NONSENSE if self._senseless >= ENOUGH else Verdict.SILENT
        if self.found:
            lost = self._senseless >= ENOUGH and now - self._sense >= CONFUSED
            return Verdict.CONFUSED if lost else Verdict.STAY
        if not self._bytes:
            # Silence says little about the speed; but some adapters swallow what they cannot read.
            return Verdict.OTHER if now - self._tuned >= self._silent_after / 3 else Verdict.STAY
        patience = DOUBT if self._shapes >= PROOF else PATIENCE[self.speed]
        return Verdict.OTHER if self._bytes >= ENOUGH and now - self._began >= patience else Verdict.STAY

    def _start(self, now: float) -> None:
        self.found = False
        self.searches += 1
        self._tuned, self._bytes, self._shapes = now, 0, 0
        self._proof = []

    def _prove(self, mode: Mode) -> None:
        if self._proof and self._proof[-1] is not mode:
            self._proof = []
        self._proof.append(mode)
        self.found = len(self._proof) >= PROOF
