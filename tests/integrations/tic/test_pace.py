"""When a line is left alone, and for how long."""

from __future__ import annotations

import pytest

from gridloom.integrations.tic.pace import CAREFUL, GAP, LONGEST, Pace

BYTE = 10 / 9600
FRAME = 865


def told(pace: Pace, piece: int, frames: int) -> tuple[int, float, float]:
    """A meter at 9600 baud behind an adapter that hands on ``piece`` bytes: how often we were woken per frame, how long a group and an ETX waited."""
    sent = [(number * (FRAME * BYTE + 0.025) + byte * BYTE, byte == FRAME - 1) for number in range(frames) for byte in range(FRAME)]
    came = []  # (when the adapter hands it on, whether an ETX)
    for begin in range(0, len(sent), piece):
        part = sent[begin : begin + piece]
        came += [(part[-1][0], end) for _, end in part]
    now, taken, wakes, late, late_end = 0.0, 0, 0, 0.0, 0.0
    while taken < len(came):
        now = max(now, came[taken][0])
        got = taken
        while got < len(came) and came[got][0] <= now:
            got += 1
        if taken > FRAME * 3:  # from then on it knows the line
            late = max(late, now - came[taken][0])
            late_end = max([late_end, *(now - when for when, end in came[taken:got] if end)])
        ends = [place - taken + 1 for place in range(taken, got) if came[place][1]]
        wakes += 1
        pause = pace.heard(got - taken, ends[-1] if ends else 0, now, 9600)
        taken = got
        if pause:
            now += pause
    return wakes // frames, late, late_end


@pytest.mark.parametrize(("piece", "most"), [(1, 48), (8, 40), (16, 32)])
def test_small_pieces_are_taken_together_and_nothing_waits_too_long(piece: int, most: int) -> None:
    wakes, late, late_end = told(Pace(), piece, 12)
    assert wakes <= most, f"instead of {FRAME // piece}"
    assert late <= LONGEST + 0.001
    assert late_end <= 0.005, "the end of a frame is known beforehand"


@pytest.mark.parametrize("piece", [62, 256])
def test_large_pieces_are_taken_as_they_come(piece: int) -> None:
    wakes, late, _ = told(Pace(), piece, 12)
    assert wakes <= FRAME // piece + 1
    assert late == 0


def test_as_long_as_the_length_of_a_frame_is_not_known_pauses_are_short() -> None:
    pace = Pace()
    assert pace.heard(10, 0, 1.000, 9600) == 0
    assert pace.heard(10, 0, 1.010, 9600) == CAREFUL
    pace.heard(10, 10, 1.023, 9600)
    assert pace.heard(10, 0, 1.100, 9600) == 0, "the pause in the gap was in vain"
    assert pace.heard(10, 0, 1.110, 9600) == CAREFUL


def test_behind_a_frame_there_is_a_gap() -> None:
    pace = Pace()
    pace.heard(10, 0, 1.000, 9600)
    assert pace.heard(10, 10, 1.010, 9600) == GAP


def test_a_pause_in_vain_is_the_last() -> None:
    pace = Pace()
    pace.heard(10, 0, 1.000, 9600)
    assert pace.heard(10, 0, 1.010, 9600) > 0
    assert pace.heard(62, 0, 1.060, 9600) == 0
    assert pace.heard(62, 0, 1.124, 9600) == 0
