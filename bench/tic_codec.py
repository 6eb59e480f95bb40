"""How fast TIC is read: the codec alone, on whole and on noisy lines, and the translation of frames; JSON on standard output.

In the same run two floors that any parser in Python pays: splitting the same bytes into lines (``bytes.split``), and splitting plus summing each
line with ``sum``. ``.venv/bin/python bench/tic_codec.py [--seconds 2]``; run it on a machine that does nothing else. Each figure is the best of the
rounds that fit into the time. ``--check`` exits with 1 when a limit is not met.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from gridloom.integrations.tic.codec import Damage, Frame, Group, Parser, encode
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.mapping import Mapping
from gridloom.integrations.tic.messages import PortState

FRAMES = Path(__file__).parents[1] / "tests" / "data" / "tic" / "frames"
CHANGING = {"EAST", "EASF02", "EASD02", "SINSTS", "IRMS1", "URMS1"}
LIMIT_MB_S, LIMIT_RECOVERED = 20.0, 0.99
PORT = PortState("/dev/ttyUSB0", "1-1", None, None, None, "reading", "", 0)


def groups_of(name: str) -> list[Group]:
    """The groups of a captured frame."""
    return [one for one in Parser().feed((FRAMES / f"{name}.bin").read_bytes()) if isinstance(one, Group)]


def house(count: int, chooser: random.Random) -> list[list[Group]]:
    """Frames of a house: DATE, power, current, voltage and the running registers differ from one to the next, the rest repeats."""
    template = groups_of("std_mono_hphc_nb")
    made = []
    for number in range(count):
        second, minute = number % 60, number // 60 % 60
        made.append(
            [
                Group("DATE", "", f"H2401041{number // 3600 % 10}{minute:02}{second:02}")
                if one.label == "DATE"
                else Group(one.label, f"{chooser.randrange(10 ** len(one.value)):0{len(one.value)}}")
                if one.label in CHANGING
                else one
                for one in template
            ]
        )
    return made


def random_values(count: int, chooser: random.Random) -> list[list[Group]]:
    """Frames in which no group is like the one before: the worst case."""
    template = groups_of("std_mono_producer_nb_fixck")
    return [[Group(one.label, "".join(chooser.choices("0123456789", k=len(one.value))), one.horodate) for one in template] for _ in range(count)]


def pieces(data: bytes, size: int) -> list[bytes]:
    """The data as a line delivers it."""
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def best(seconds: float, work: Callable[[], None]) -> float:
    """Seconds of the quickest round."""
    work()
    least, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begin)
    return least


def speed(data: bytes, size: int, seconds: float) -> float:
    """Megabytes (10**6) per second of the codec."""
    parts = pieces(data, size)

    def work() -> None:
        parser = Parser()
        for part in parts:
            parser.feed(part)

    return round(len(data) / best(seconds, work) / 1e6, 2)


def floors(data: bytes, size: int, seconds: float) -> dict[str, float]:
    """What nobody can go below in Python."""
    parts = pieces(data, size)

    def split() -> None:
        for part in parts:
            part.split(b"\n")

    def summed() -> None:
        for part in parts:
            for line in part.split(b"\n"):
                sum(line)

    return {
        "split_mb_s": round(len(data) / best(seconds, split) / 1e6, 2),
        "split_and_sum_mb_s": round(len(data) / best(seconds, summed) / 1e6, 2),
    }


def spoil(frames: Sequence[Sequence[Group]], rate: float, chooser: random.Random) -> tuple[bytes, int, int, dict[str, int]]:
    """A line with this share of its bits (7 a byte) turned: its bytes, groups sent, groups that kept every bit from LF to CR, and which these are."""
    out, sent, kept = bytearray(), 0, 0
    clean: dict[str, int] = {}
    for groups in frames:
        frame = bytearray(encode(Mode.STANDARD, groups))
        hurt = set()
        for position in range(len(frame)):
            for bit in range(7):
                if chooser.random() < rate:
                    frame[position] ^= 1 << bit
                    hurt.add(position)
        begin = 1
        for one in groups:
            size = len(one.label) + len(one.value) + (len(one.horodate) + 1 if one.horodate else 0) + 5
            sent += 1
            if hurt.isdisjoint(range(begin, begin + size)):
                kept += 1
                key = f"{one.label}|{one.horodate}|{one.value}"
                clean[key] = clean.get(key, 0) + 1
            begin += size
        out += frame
    return bytes(out), sent, kept, clean


def recovery(frames: Sequence[Sequence[Group]], chooser: random.Random) -> dict[str, Any]:
    """One bad bit in 1,000."""
    data, sent, kept, clean = spoil(frames, 0.001, chooser)
    parser, found, wrong, partial = Parser(), 0, 0, 0
    for part in pieces(data, 62):
        for one in parser.feed(part):
            if isinstance(one, Frame):
                partial += one.partial
            elif isinstance(one, Group) and one.valid:
                key = f"{one.label}|{one.horodate}|{one.value}"
                if clean.get(key, 0) > 0:
                    clean[key] -= 1
                    found += 1
                else:
                    wrong += 1
    return {
        "bit_error_rate": 0.001,
        "groups_sent": sent,
        "groups_undamaged": kept,
        "undamaged_recovered": found,
        "undamaged_recovered_share": round(found / kept, 5),
        "limit_share": LIMIT_RECOVERED,
        "others_valid": wrong,
        "partial_frames": partial,
        "frames": len(frames),
    }


def translation(frames: Sequence[Sequence[Group]], seconds: float) -> dict[str, float]:
    """µs of CPU per frame of the mapping, and of codec and mapping together when the frame comes in pieces."""
    data = b"".join(encode(Mode.STANDARD, groups) for groups in frames)
    read = [one for one in Parser().feed(data) if isinstance(one, Frame)]
    zone = ZoneInfo("Europe/Paris")

    def mapped() -> None:
        mapping = Mapping(zone)
        for number, frame in enumerate(read):
            mapping.frame(frame, 1_704_376_678_000_000 + number * 1_000_000, PORT)

    def both(size: int) -> Callable[[], None]:
        parts = pieces(data, size)

        def work() -> None:
            parser, mapping, now = Parser(), Mapping(zone), 1_704_376_678_000_000
            for part in parts:
                for one in parser.feed(part):
                    if isinstance(one, Frame):
                        now += 1_000_000
                        mapping.frame(one, now, PORT)
                    elif not isinstance(one, Damage):
                        mapping.group_events(one, now)

        return work

    return {
        "mapping_us_per_frame": round(best(seconds, mapped) / len(read) * 1e6, 1),
        "codec_and_mapping_62_bytes_us_per_frame": round(best(seconds, both(62)) / len(read) * 1e6, 1),
        "codec_and_mapping_16_bytes_us_per_frame": round(best(seconds, both(16)) / len(read) * 1e6, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per figure")
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    chooser = random.Random(20261121)
    frames = house(1_000, chooser)
    data = b"".join(encode(Mode.STANDARD, groups) for groups in frames)
    captured = (FRAMES / "std_mono_producer_stream3_fixck.bin").read_bytes() * 300
    worst = b"".join(encode(Mode.STANDARD, groups) for groups in random_values(800, chooser))
    noise = chooser.randbytes(500_000)
    figures = {
        "bench": "tic_codec",
        "limit_mb_s": LIMIT_MB_S,
        "standard_mb_s": {str(size): speed(data, size, given.seconds) for size in (65_536, 4_096, 1_024, 62, 16)},
        "captured_stream_mb_s": speed(captured, 4_096, given.seconds),
        "every_group_new_mb_s": speed(worst, 4_096, given.seconds),
        "random_bytes_mb_s": speed(noise, 4_096, given.seconds),
        "floor": floors(data, 4_096, given.seconds),
        "noise": recovery(frames[:400], chooser),
        "translation": translation(frames, given.seconds),
    }
    print(json.dumps(figures, indent=2))
    if not given.check:
        return 0
    recovered = figures["noise"]
    assert isinstance(recovered, dict)
    speeds = figures["standard_mb_s"]
    assert isinstance(speeds, dict)
    return int(speeds["4096"] < LIMIT_MB_S or recovered["undamaged_recovered_share"] < LIMIT_RECOVERED)


if __name__ == "__main__":
    sys.exit(main())
