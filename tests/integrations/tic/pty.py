"""A meter on a pty, for tests: it shares no code with the product.

A pty carries no parity and takes any speed, so the meter looks (``tcgetattr`` on its side) at the speed that was set: at any but its own it
sends garbage. Each pty is used for one open only: when the reader closes, a fresh one takes its place behind the same symbolic link.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Self

SPEEDS = {1200: termios.B1200, 9600: termios.B9600}


def group(mode: str, label: str, value: str, horodate: str | None = None) -> bytes:
    """One group as a meter sends it."""
    separator = " " if mode == "historic" else "\t"
    text = separator.join([label, value] if horodate is None else [label, horodate, value])
    summed = text if mode == "historic" else text + separator
    return b"\n" + f"{text}{separator}{chr((sum(summed.encode()) & 0x3F) + 0x20)}".encode() + b"\r"


def frame(mode: str, groups: Sequence[tuple[str, ...]]) -> bytes:
    """STX, groups ``(label, value)`` or ``(label, value, horodate)``, ETX."""
    return b"\x02" + b"".join(group(mode, *one) for one in groups) + b"\x03"


HISTORIC_SERIAL, STANDARD_SERIAL = "031664001115", "021762010203"


def historic(power: int = 350, *, extra: Sequence[tuple[str, ...]] = (), serial: str = HISTORIC_SERIAL) -> bytes:
    """A small frame of a single-phase meter."""
    groups = [("ADCO", serial), ("OPTARIF", "BASE"), ("ISOUSC", "30"), ("BASE", "008123456"), ("PTEC", "TH.."), ("IINST", "002")]
    return frame("historic", [*groups, ("IMAX", "090"), ("PAPP", f"{power:05d}"), *extra, ("MOTDETAT", "000000")])


def standard(power: int = 350, *, serial: str = STANDARD_SERIAL, stge: str = "003A0001", east: int = 1234567) -> bytes:
    """A small frame of a single-phase meter, with a clock."""
    groups: list[tuple[str, ...]] = [
        ("ADSC", serial), ("VTIC", "02"), ("DATE", "", "H261120233010"), ("NGTF", "      BASE      "), ("LTARF", "      BASE      "),
        ("EAST", f"{east:09d}"), ("EASF01", f"{east:09d}"), ("IRMS1", "002"), ("URMS1", "230"), ("PREF", "06"), ("PCOUP", "06"),
        ("SINSTS", f"{power:05d}"), ("STGE", stge), ("RELAIS", "000"), ("NTARF", "01"), ("PJOURF+1", "00008001" + " NONUTILE" * 10),
    ]  # fmt: skip
    return frame("standard", groups)


class Pty:
    """The meter's end of one pty. ``name`` is what the reader opens; ours is never the one that has it open."""

    def __init__(self) -> None:
        self.master = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        fcntl.ioctl(self.master, 0x40045431, struct.pack("i", 0))  # TIOCSPTLCK: unlock
        number = struct.unpack("i", fcntl.ioctl(self.master, 0x80045430, struct.pack("i", 0)))[0]  # TIOCGPTN
        self.name = f"/dev/pts/{number}"
        self._opened = False

    @property
    def speed(self) -> int:
        """What the reader has set, in baud; 0 for one that no meter has."""
        found = termios.tcgetattr(self.master)[5]
        return next((speed for speed, code in SPEEDS.items() if code == found), 0)

    def left(self) -> bool:
        """Whether somebody had it open and has closed it."""
        try:
            os.read(self.master, 4096)
        except BlockingIOError:
            self._opened = True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return self._opened
        return False

    def write(self, data: bytes) -> int:
        """How much of it went out; the rest is lost, as on a line that nobody reads."""
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return 0

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            os.close(self.master)


class Meter:
    """Sends frames to whoever opens ``link``, in pieces of ``piece`` bytes, ``pause`` real seconds after each and ``gap`` after each frame."""

    def __init__(
        self, link: Path, frames: Callable[[], bytes], speed: int, *, piece: int = 62, pause: float = 0.001, gap: float = 0.002, seed: int = 1
    ) -> None:
        self.link = link
        self.frames = frames
        self.speed = speed
        self.piece, self.pause, self.gap = piece, pause, gap
        self.silent = False
        self.sent = 0
        """Frames that went out whole, at the right speed."""
        self.replaced = 0
        """How often a reader closed."""
        self.speeds: list[int] = []
        """The speeds that were seen, without repetitions."""
        self.pty: Pty | None = None
        self._random = Random(seed)
        self._task: asyncio.Task[None] | None = None

    def plug(self, link: Path | None = None) -> None:
        """A fresh pty, under another name if one is given."""
        self.link = self.link if link is None else link
        self.pty = Pty()
        new = self.link.with_name(self.link.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(self.pty.name)
        new.replace(self.link)

    def unplug(self) -> None:
        """The device is gone, and its name with it."""
        self.link.unlink(missing_ok=True)
        if self.pty is not None:
            self.pty.close()
            self.pty = None

    async def __aenter__(self) -> Self:
        self.plug()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()
        self.unplug()

    async def _run(self) -> None:
        while True:
            data = self.frames()
            whole = True
            for start in range(0, len(data), self.piece):
                whole &= self._send(data[start : start + self.piece])
                await asyncio.sleep(self.pause)
            self.sent += whole
            await asyncio.sleep(self.gap)

    def _send(self, data: bytes) -> bool:
        pty = self.pty
        if pty is None:
            return False
        if pty.left():
            self.replaced += 1
            pty.close()
            self.plug()
            return False
        if self.silent:
            return False
        speed = pty.speed
        if speed and (not self.speeds or self.speeds[-1] != speed):
            self.speeds.append(speed)
        if speed != self.speed:
            # What a receiver makes of a speed that is not its own: as many bytes as bits allow, most with a wrong parity (told as NUL).
            count = max(1, len(data) * (speed or 9600) // self.speed)
            data = bytes(self._random.choice((0, 0, 0, self._random.randrange(256))) for _ in range(min(count, 400)))
        return pty.write(data) == len(data) and speed == self.speed
