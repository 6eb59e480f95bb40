"""When a line is left alone, and for how long: an overload is seen within 50 ms of its last byte and an ETX within 20 ms, whatever comes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.tic.pty import frame, group, historic, standard

from gridloom.integrations.tic.codec import Frame, Parser
from gridloom.integrations.tic.pace import AT_ONCE, CAREFUL, KNOWN, MOST, Layout, Pace, layout

TOLD = 0.045
"""Seconds within which a group must be seen, so that it is told within 50 ms."""
SERVED = 0.016
"""Seconds within which an ETX must be seen, so that the frame is served within 20 ms."""
NAMES = "|".join(sorted(AT_ONCE)).encode()
CAPTURE = Path(__file__).parents[2] / "data/tic/frames/std_mono_hphc_tic2ws.bin"
LONG = CAPTURE.read_bytes()
"""865 bytes, STGE not at their end."""


def without(data: bytes, label: str) -> bytes:
    """The frame, one group missing."""
    return re.sub(rb"\n%s\t[^\r]*\r" % label.encode(), b"", data)


OTHER = LONG.replace(b"\nURMS1", group("standard", "URMS2", "230") + b"\nURMS1")
"""One more group, so that it is of another length and STGE comes later."""
SAME = without(LONG, "URMS1").replace(b"\nSTGE", group("standard", "URMS2", "230") + b"\nSTGE")
"""Of the same length, but with other groups."""
THREE_PHASES: list[tuple[str, ...]] = [
    ("ADCO", "031664001115"), ("OPTARIF", "BASE"), ("ISOUSC", "30"), ("BASE", "008123456"), ("PTEC", "TH.."),
    ("IINST1", "002"), ("IINST2", "002"), ("IINST3", "002"), ("IMAX1", "060"), ("IMAX2", "060"), ("IMAX3", "060"),
    ("PMAX", "09000"), ("PAPP", "00350"), ("MOTDETAT", "000000"), ("PPOT", "00"),
]  # fmt: skip
SHORT: list[tuple[str, ...]] = [("ADIR2", "035"), ("ADCO", "031664001115"), ("IINST1", "002"), ("IINST2", "035"), ("IINST3", "002")]


class Sent(NamedTuple):
    """What a meter sent."""

    at: float
    byte: bytes


class Seen(NamedTuple):
    """``wakes`` per frame, of the last frames; how long the slowest group and ETX of all waited in the kernel."""

    wakes: float
    group: float
    end: float


def sent(frames: Iterable[bytes], speed: int = 9600, gap: Callable[[], float] = lambda: 0.025, faster: float = 1.0) -> list[Sent]:
    """At the line's pace, or ``faster``."""
    now, out = 10.0, []
    for one in frames:
        for value in one:
            now += 10 / speed / faster
            out.append(Sent(now, bytes([value])))
        now += gap()
    return out


def pieces(line: Sequence[Sent], size: int, timer: float = 0.016) -> list[tuple[float, bytes]]:
    """An adapter hands on ``size`` bytes, or what it has when ``timer`` seconds have gone by since its first."""
    out: list[tuple[float, bytes]] = []
    held: list[Sent] = []
    for one in line:
        if held and one.at > held[0].at + timer:
            out.append((held[0].at + timer, b"".join(part.byte for part in held)))
            held = []
        held.append(one)
        if len(held) == size:
            out.append((one.at, b"".join(part.byte for part in held)))
            held = []
    return out


def watched(
    came: Sequence[tuple[float, bytes]], pace: Pace, speed: int = 9600, *, last: int = 10, late: Callable[[], float] = lambda: 0.0005
) -> Seen:
    """What a link does with the pace; its timers are ``late``. Wakes are counted in the ``last`` frames."""
    parser = Parser()
    now, place, held = 0.0, 0, b""
    wakes: list[int] = [0]
    groups: list[float] = [0.0]
    etx: list[float] = [0.0]
    until = 0.0
    while place < len(came):
        now = until or max(now, came[place][0])
        data, arrivals = b"", []
        while place < len(came) and came[place][0] <= now:
            at, piece = came[place]
            arrivals += [at] * len(piece)
            data += piece
            place += 1
        wakes[-1] += 1
        until = 0.0
        if not data:
            continue
        before = len(held)
        held += data
        done = held.rfind(b"\x03") + 1
        for found in re.finditer(b"(?:" + NAMES + b")[^\r]*\r|\x03", held):
            if found.end() > before:
                waited = now - arrivals[found.end() - before - 1]
                (etx if found[0] == b"\x03" else groups).append(waited)
        for value in parser.feed(data):
            if isinstance(value, Frame):
                pace.ended(value)
                wakes.append(0)
        end = max(0, done - before)
        if done:
            held = held[done:]
        urgent = re.findall(b"\n(?:" + NAMES + b")[^\r]*(\r?)", held)
        pause = pace.heard(len(data), end, urgent, now, speed)
        assert pause <= MOST
        if pause:
            until = now + pause + late()
    return Seen(sum(wakes[-last - 1 : -1]) / last, max(groups), max(etx))


# ------------------------------------------------------------------------------------------------------------- how often


@pytest.mark.parametrize(("frames", "speed", "most"), [(LONG, 9600, 3.5), (historic(), 1200, 4.0), (frame("historic", THREE_PHASES), 1200, 5.0)])
@pytest.mark.parametrize("piece", [1, 16, 62])
def test_a_line_that_is_known_is_looked_at_a_few_times_per_frame(frames: bytes, speed: int, most: float, piece: int) -> None:
    jitter = Random(piece)
    for gap in (lambda: 0.025, lambda: jitter.uniform(0.0167, 0.0334)):
        seen = watched(pieces(sent([frames] * 40, speed, gap), piece), Pace(), speed)
        assert seen.wakes <= most
        assert seen.group <= TOLD
        assert seen.end <= SERVED


@pytest.mark.parametrize("piece", [1, 8])
def test_small_pieces_of_a_line_that_is_not_known_are_taken_together_and_nothing_waits_long(piece: int) -> None:
    """No frame is like the one before."""
    pace = Pace()
    seen = watched(pieces(sent([LONG, OTHER] * 12), piece, 9), pace)
    assert not pace.known
    assert seen.wakes <= 80, f"instead of {len(LONG) // piece}"
    assert max(seen.group, seen.end) <= CAREFUL + 0.001


@pytest.mark.parametrize("piece", [16, 62, 256])
def test_large_pieces_of_a_line_that_is_not_known_are_taken_as_they_come(piece: int) -> None:
    seen = watched(pieces(sent([LONG, OTHER] * 12), piece, 9), Pace())
    assert seen.wakes <= len(OTHER) / piece + 2
    assert (seen.group, seen.end) == (0, 0)


def test_a_rest_in_vain_is_the_last() -> None:
    pace = Pace()
    assert pace.heard(5, 0, (), 1.000, 9600) == 0
    assert pace.heard(5, 0, (), 1.010, 9600) == CAREFUL
    assert pace.heard(62, 0, (), 1.060, 9600) == 0
    assert pace.heard(62, 0, (), 1.124, 9600) == 0


def test_a_line_whose_speed_changed_is_not_known() -> None:
    pace = Pace()
    watched(pieces(sent([LONG] * 5), 16), pace)
    assert pace.known
    pace.reset()
    assert not pace.known


# ---------------------------------------------------------------------------------------------------------------- layouts


def parsed(data: bytes) -> Frame:
    return next(value for value in Parser().feed(data) if isinstance(value, Frame))


def test_where_overloads_are_told() -> None:
    plain, overloaded = historic(), frame("historic", [("ADCO", "031664001115"), ("IINST", "035"), ("ADPS", "035"), ("MOTDETAT", "000000")])
    assert layout(parsed(plain)) == Layout(len(plain), ((plain.index(b"\nIMAX") + len("\nADPS 035 X\r"), 0),))
    assert layout(parsed(overloaded)) == Layout(len(overloaded), ((overloaded.index(b"\nMOTDETAT"), 1),))
    three, short = frame("historic", THREE_PHASES), frame("historic", SHORT)
    assert layout(parsed(three)) == Layout(len(three), ((len("\x02\nADIR1 035 X\r"), 0),))
    assert layout(parsed(short)) == Layout(len(short), ((short.index(b"\nADCO"), 1),))
    assert layout(parsed(standard())) == Layout(len(standard()), ((standard().index(b"\nRELAIS"), 1),))


def test_nothing_is_foretold_from_what_is_damaged_or_strange() -> None:
    damaged = parsed(standard().replace(b"URMS1\t230", b"URMS1\t231"))
    assert damaged.damages
    assert layout(damaged) is None
    assert layout(parsed(frame("standard", [("ADSC", "021762010203"), ("VTIC", "02"), ("PJOURF+1", "0")]))) is None, "no STGE: where would it come?"


# ---------------------------------------------------------------------------------------------------- what is out of the way


ADPS = group("historic", "ADPS", "035")


@pytest.mark.parametrize("piece", [1, 16, 62])
@pytest.mark.parametrize(
    ("usual", "other", "speed"),
    [
        (historic(), historic().replace(b"\nIMAX", ADPS + b"\nIMAX"), 1200),
        (historic(), historic().replace(b"\nIMAX", ADPS + b"\nIMAX"), 9600),
        (frame("historic", THREE_PHASES), frame("historic", SHORT), 1200),
        (frame("historic", THREE_PHASES), frame("historic", [("ADIR1", "035"), ("ADIR2", "035"), ("ADIR3", "035"), *SHORT[1:]]), 1200),
        (LONG, OTHER, 9600),
        (LONG, SAME, 9600),
        (LONG, without(LONG, "MSG1"), 9600),
    ],
    ids=["ADPS", "ADPS at 9600", "ADIR", "three ADIR", "later", "other groups", "shorter behind it"],
)
def test_an_overload_that_newly_appears_or_is_shifted_is_seen_in_time(usual: bytes, other: bytes, speed: int, piece: int) -> None:
    pace = Pace()
    frames = [usual] * 12 + [other] + [usual] * 3 + [other] * 8 + [usual] * 6
    assert watched(pieces(sent(frames, speed), piece, 0.016), pace, speed).group <= TOLD
    assert pace.known


def test_a_frame_that_is_damaged_but_as_long_as_the_others_ends_no_trust() -> None:
    pace = Pace()
    watched(pieces(sent([*[LONG] * 5, LONG.replace(b"URMS1\t230", b"URMS1\t231")]), 16), pace)
    assert pace.known


def test_bytes_that_come_faster_than_the_line_are_not_waited_for() -> None:
    """A recording played into the port, an adapter that hands on whole frames, a simulator whose time runs faster."""
    for faster in (1.3, 5, 50):
        pace = Pace()
        seen = watched(pieces(sent([LONG] * 20, faster=faster, gap=lambda: 0.002), 62, 9), pace)
        assert not pace.known
        assert (seen.group, seen.end) == (0, 0)


def test_frames_in_bursts_with_silence_between_them() -> None:
    for silence in (0.5, len(LONG) / 960):  # the second one: as many frames per second as on the line itself
        seen = watched(pieces(sent([LONG] * 30, faster=100, gap=partial(float, silence)), 62, 0.001), Pace())
        assert seen.group <= TOLD
        assert seen.end <= SERVED


def test_a_line_that_falls_silent_or_loses_bytes_is_known_again_soon() -> None:
    cut = LONG[: len(LONG) // 2]
    gaps = iter([0.025] * 8 + [5.0] + [0.025] * 40)
    pace = Pace()
    seen = watched(pieces(sent([*[LONG] * 8, cut, LONG, LONG, cut + LONG[300:], *[LONG] * (KNOWN + 3)], gap=lambda: next(gaps)), 16), pace)
    assert pace.known
    assert seen.group <= TOLD
    assert seen.end <= SERVED


def test_a_loop_that_was_held_up_does_not_make_the_line_late_for_long() -> None:
    jitter = Random(3)
    pace = Pace()
    watched(pieces(sent([LONG] * 12), 16), pace, late=lambda: 0.06 if jitter.random() < 0.2 else 0.0005)
    seen = watched(pieces([one._replace(at=one.at + 100) for one in sent([LONG] * 12)], 16), pace)
    assert seen.group <= TOLD
    assert seen.end <= SERVED


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_the_frames_the_pieces_and_the_gaps_are_nothing_waits_too_long(data: st.DataObject) -> None:
    """Groups in any number, STGE anywhere among them. A frame that is shorter than the last ones is foreseen by as much too late, once."""
    size, timer = data.draw(st.integers(1, 100)), data.draw(st.sampled_from([0.001, 0.016, 9.0]))
    jitter = Random(data.draw(st.integers(0, 99)))
    speed = data.draw(st.sampled_from([9600, 1200]))
    kinds = []
    for _ in range(data.draw(st.integers(1, 3))):
        groups = [(f"SINSTS{number % 4}", "0" * data.draw(st.integers(1, 9))) for number in range(data.draw(st.integers(0, 12)))]
        groups.insert(data.draw(st.integers(0, len(groups))), ("STGE", "003A0001"))
        kinds.append(frame("standard", [("ADSC", "021762010203"), ("VTIC", "02"), *groups, ("PJOURF+1", "0")]))
    frames = [kind for kind in kinds for _ in range(data.draw(st.integers(1, 6)))] * 2
    seen = watched(pieces(sent(frames, speed, lambda: jitter.uniform(0.0167, 0.0334)), size, timer), Pace(), speed)
    sizes = {len(one) for one in kinds}
    earlier = (max(sizes) - min(sizes)) * 10 / speed + 0.0167 if len(kinds) > 1 else 0.0
    assert seen.end <= SERVED + earlier
    assert seen.group <= TOLD + earlier
