"""How long a line may be left alone, so that the hub is woken a few times per frame and not for each handful of bytes. Sans-I/O.

A Linky sends without a pause, and its frames are of one length and layout for hours. So it is known at which byte overloads are told and where
the frame ends, and, from the line's speed, when these bytes will be there. Until then they can wait in the kernel. A line is *known* after some
frames of one layout that followed each other at the line's own pace; then it is looked at when a *moment* is due:

- the end of each group that cannot wait (STGE always; ADPS and ADIR where they were in the last frames),
- where such a group would newly appear: ADPS behind IINST, ADIR1 to ADIR3 at the head of a short frame,
- the end of the frame.

Each moment learns how much later than calculated its bytes come (adapters hand on pieces): it is looked at a little earlier each time, until
that was too early; then the bytes themselves wake us and tell the true time.

What does not fit (a group that cannot wait more or less than expected, bytes that are much too late or early) ends the trust: for the rest of the
frame, or until the line is known again. A line that is not known is left alone for 14 ms at a time, and only if its pieces are small. What cannot
be foreseen is a frame that is shorter than the last ones in front of such a group: once, it is then seen by as much later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gridloom.integrations.tic.codec import Frame, Mode

AT_ONCE = frozenset({"ADPS", "ADIR1", "ADIR2", "ADIR3", "STGE"})
"""Labels whose groups are looked at as soon as they are there: somebody sheds load by them. (The other urgent ones only explain these.)"""

LONGEST = 0.024
"""Seconds by which a moment that cannot wait is looked at late; if the gap was shorter than foreseen, by 17 ms more: it is told within 50 ms."""
LONGEST_END = 0.008
"""The same of the end of a frame, which is to be served within 20 ms."""
MOST = 0.8
"""Seconds; no rest is longer, for while it lasts nobody notices that the port was unplugged."""
KNOWN = 2
"""Frames that were like the one before, after which a line is known."""
LONGEST_GAP = 0.06
"""Seconds between two frames of a line that sends without a pause: 16.7 to 33.4 ms (Enedis-NOI-CPT_54E), and what is lost on the way."""
EARLY = 0.025
"""Seconds that a frame may come earlier than the line's speed allows, because the one before was seen late."""
AFTER = 0.003
"""Seconds behind the calculated time at which a moment is looked at: timers and adapters are no more exact."""
PROBE = 0.001
"""Seconds by which a moment is looked at earlier each time that its bytes were there."""
LATEST = 0.07
"""Seconds that bytes may be later than calculated: the largest piece at 9600 baud, and a gap that was longer than the last ones."""
STEP = 0.004
"""Seconds by which one piece of bytes moves the beginning of frames to later: it may have been us who were late."""
PIECE = 64
"""Bytes of the largest piece that adapters hand on by themselves (USB full speed)."""
_ADPS, _ADIR = len(b"\nADPS 030 A\r"), len(b"\nADIR1 030 A\r")

CAREFUL = 0.014
"""Seconds on a line that is not known: in the gap behind a frame nothing is missed, and elsewhere nothing waits too long."""
WORTH = 0.006
"""Seconds; a shorter rest is none."""
SMALL, OFTEN = 0.01, 0.025
"""Pieces of what a line sends in fewer seconds than this, that come within so many seconds of the one before, are worth waiting for."""
PROMPT = 0.002
"""Seconds after a rest within which bytes must be there, else they were not there when it ended."""


class Layout(NamedTuple):
    """Of frames: bytes from STX to ETX; the moments before that, each with how many groups that cannot wait have begun by then."""

    size: int
    moments: tuple[tuple[int, int], ...]


def layout(frame: Frame) -> Layout | None:
    """Of frames like this one; None for one that is damaged, or of which we do not know where overloads would be told."""
    if frame.partial or frame.damages:
        return None
    ends = [group.offset - 1 for group in frame.groups[1:]] + [frame.size - 1]
    labels = [group.label for group in frame.groups] + [""]
    begun, moments = 0, []
    if frame.mode is Mode.HISTORIC and "IINST1" in labels and labels[0] not in AT_ONCE:
        moments.append((1 + _ADIR, 0))
    for place, end in enumerate(ends):
        if labels[place] in AT_ONCE:
            begun += 1
            moments.append((end, begun))
        elif labels[place] == "IINST" and labels[place + 1] != "ADPS":
            moments.append((min(end + _ADPS, frame.size - 1), begun))
    return Layout(frame.size, tuple(moments)) if moments else None


class Pace:
    """Of one line. Call ``ended`` for each frame, then ``heard`` for the bytes that it came with; ``heard`` alone for all others."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The port was opened or its speed changed."""
        self._fine = False  # whether pieces are small and frequent
        self._last = 0.0
        self._until = 0.0  # the end of the last pause; 0: there was none
        self._size = 0  # bytes since the end of the last frame
        self._frame: Frame | None = None  # that ended now
        self._layout: Layout | None = None
        self._alike = 0
        self._ended = 0.0
        self._period = 0.0
        self._piece = 1
        self._began = 0.0  # when the frame under way began, calculated
        self._late: list[float] = []  # of each moment: seconds behind the calculated time at which it is looked at
        self._aim = -1  # the moment for which we wait; -1: none
        self._lost = False  # this frame is not like the others

    @property
    def known(self) -> bool:
        """Whether it is known when the bytes will come."""
        return self._alike >= KNOWN and not self._lost

    def ended(self, frame: Frame) -> None:
        """A frame came with the bytes that ``heard`` is told next."""
        self._frame = frame

    def heard(self, count: int, end: int, urgent: Sequence[bytes], now: float, speed: int) -> float:
        """``count`` bytes came; ``end`` of them reach up to the end of a frame (0: none ended). Seconds to leave the line alone, or 0.

        ``urgent``: for each group that cannot wait and has begun in the frame that is under way now, its CR, or nothing if that has not come yet.
        """
        byte = 10 / speed
        looked = 0 < now - self._until < PROMPT
        if self._until:
            self._fine = looked
        elif count * byte < SMALL and now - self._last < OFTEN:
            self._fine = True
        if not looked:
            self._piece = min(PIECE, max(self._piece, count))
        self._last, self._until = now, 0.0
        if end:
            self._size += end
            self._meet(looked, now, byte)
            self._end(now, byte)
            self._size, count = 0, count - end
        if count:
            self._size += count
            if self._alike >= KNOWN:
                self._see(urgent, looked, now, byte)
        pause = self._rest(now, byte) if self.known else CAREFUL if self._fine else 0.0
        if pause:
            self._until = now + pause
        return pause

    # ---------------------------------------------------------------------------------------------------------- details

    def _moment(self, number: int) -> int:
        """Bytes from the beginning of the frame to this moment; the last one is the end."""
        assert self._layout is not None
        return self._layout.moments[number][0] if number < len(self._layout.moments) else self._layout.size

    def _see(self, urgent: Sequence[bytes], looked: bool, now: float, byte: float) -> None:
        """Bytes in the middle of a frame: when it must have begun, and whether it is as it should be."""
        assert self._layout is not None
        at_latest = now - self._size * byte
        if looked:
            self._shift(min(max(self._began, at_latest - self._piece * byte), at_latest))
        elif at_latest - self._began > LATEST:
            self._alike = 0
        else:
            self._shift(min(at_latest, self._began + STEP))
        self._meet(looked, now, byte)
        passed, coming = 0, self._layout.moments[-1][1]
        for moment, expected in self._layout.moments:
            if moment > self._size:
                coming = expected
                break
            passed = expected
        if len(urgent) > coming or len(urgent) - urgent.count(b"") < passed:
            self._lost = True

    def _shift(self, began: float) -> None:
        moved = began - self._began
        if moved < -LONGEST:  # bytes come faster than the line can be
            self._alike = 0
        self._period += moved / 4
        self._began = began

    def _meet(self, looked: bool, now: float, byte: float) -> None:
        """Learn from whether the bytes for which we waited are there."""
        if self._aim < 0 or self._alike < KNOWN or self._size < self._moment(self._aim):
            return
        late = self._late[self._aim] - PROBE if looked else now - self._began - self._moment(self._aim) * byte + AFTER
        most = LONGEST_END if self._aim == len(self._late) - 1 else LONGEST
        self._late[self._aim] = max(-most, min(late, most))
        self._aim = -1

    def _end(self, now: float, byte: float) -> None:
        took, self._ended = now - self._ended, now
        frame, self._frame = self._frame, None
        steady = -EARLY < took - self._size * byte < LONGEST_GAP
        if steady and self._alike >= KNOWN and not self._lost and self._layout is not None and self._size == self._layout.size:
            found: Layout | None = self._layout  # what could not wait was where it should be
        else:
            found = None if frame is None else layout(frame)
        if not steady or found is None or found != self._layout:
            self._layout, self._alike = found, 0
        else:
            self._alike += 1
            if self._alike == KNOWN:
                self._period, self._began = took, now - self._size * byte
                self._late = [-LONGEST_END * 2] * len(found.moments) + [-LONGEST_END]  # too early, so that the bytes tell the time
        self._began += self._period
        self._aim, self._lost = -1, False

    def _rest(self, now: float, byte: float) -> float:
        """Until the next moment. Where its bytes are overdue, at least as long as those that are still missing need."""
        number = 0
        while self._moment(number) <= self._size and number < len(self._late) - 1:
            number += 1
        missing = self._moment(number) - self._size
        self._aim = number
        pause = max(self._began + self._moment(number) * byte + self._late[number] - now, (missing - self._piece) * byte)
        if pause < WORTH:
            return 0.0
        if pause > MOST:
            self._aim = -1
        return min(pause, MOST)
