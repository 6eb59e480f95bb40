"""How long a line may be left alone, so that an adapter that hands on byte by byte does not wake the hub a thousand times a second. Sans-I/O.

A Linky sends without a pause, and its frames are of one length for hours. So in the middle of a frame the bytes can wait in the kernel for
as long as an overload may (50 ms until it is told), and near the end of the frame they are looked at as they come. Adapters that hand on
larger pieces by themselves are never left alone: a pause that wakes us in vain would cost more than it saves.
"""

from __future__ import annotations

LONGEST = 0.036
"""Seconds; with what follows, an overload is told within 50 ms of its last byte."""
CAREFUL = 0.012
"""Seconds, while the length of a frame is not known."""
GAP = 0.014
"""Seconds of silence behind a frame in which nothing is missed: meters are silent for 16.7 to 33.4 ms (Enedis-NOI-CPT_54E)."""
MARGIN = 0.006
"""Seconds before the expected end of a frame from which on bytes are taken as they come."""
WORTH = 0.012
"""Seconds; a shorter pause is none."""
SMALL, OFTEN = 40, 0.025
"""Pieces of fewer bytes than this, that come within so many seconds of the one before, are worth waiting for."""
PROMPT = 0.003
"""Seconds after a pause within which bytes must be there, else the pause was in vain."""


class Pace:
    """Of one line."""

    def __init__(self) -> None:
        self._fine = False  # whether pieces are small and frequent
        self._last = 0.0
        self._until = 0.0  # the end of the last pause; 0: there was none
        self._size = 0  # bytes since the end of the last frame
        self._sizes = (0, 0)  # of the last two frames

    def reset(self) -> None:
        """The port was opened or its speed changed."""
        self._fine, self._until, self._size, self._sizes = False, 0.0, 0, (0, 0)

    def heard(self, count: int, end: int, now: float, speed: int) -> float:
        """``count`` bytes came; ``end`` of them reach up to the end of a frame (0: none ended). Seconds to leave the line alone, or 0."""
        if self._until:
            self._fine = now - self._until < PROMPT
        elif count < SMALL and now - self._last < OFTEN:
            self._fine = True
        self._last, self._until = now, 0.0
        if end:
            self._sizes, self._size = (self._sizes[1], self._size + end), count - end
        else:
            self._size += count
        if not self._fine:
            return 0.0
        pause = self._pause(speed) if self._size else GAP
        if pause < WORTH:
            return 0.0
        self._until = now + pause
        return pause

    def _pause(self, speed: int) -> float:
        if self._sizes[0] != self._sizes[1] or not self._sizes[1]:
            return CAREFUL
        return min(LONGEST, (self._sizes[1] - self._size) * 10 / speed - MARGIN)
