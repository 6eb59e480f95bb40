"""The device's end of a serial line that is not there: a pseudo-terminal behind a symbolic link, for simulators and replays.

A pseudo-terminal carries no parity and takes any speed, and some programs cannot open the same one twice. Hence: the speed that the other
end set is looked at, and what it set wrongly makes it read what a UART at that speed would make of the line (``misread``); and after a
hang-up terminal and link are replaced by fresh ones. Linux.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import tty
from pathlib import Path

_TCGETS2 = 0x802C542A
"""The ioctl that tells any speed as a number (Linux; not on MIPS, PowerPC and SPARC, where the table below has to do)."""
_SPEEDS = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit()}


class Pty:
    """One end of the line; whoever opens ``path`` is the other. Not thread-safe; nothing here waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        """Bytes that nobody read in time, or that were sent while nobody had the line open."""
        self.opened = 0
        """How many hang-ups there were: each time terminal and link were replaced."""
        self._master: int | None = None
        self._name = ""
        self._seen = False
        self._fresh: list[object] = []

    def open(self, speed: int) -> None:
        """Make terminal and link. ``speed`` (baud) is what the line has before somebody sets another.

        Raises FileExistsError when ``path`` is there and is no symbolic link; OSError when the link cannot be made.
        """
        if not self.path.is_symlink() and self.path.exists():
            raise FileExistsError(errno.EEXIST, "exists and is no symbolic link; name a path that is free", str(self.path))
        self._replace(speed)

    def close(self) -> None:
        """Hang up, and remove the link if it is still ours."""
        if self._master is None:
            return
        with contextlib.suppress(OSError):
            if os.readlink(self.path) == self._name:
                self.path.unlink()
        os.close(self._master)
        self._master = None

    def look(self, speed: int) -> bool:
        """Whether somebody has the line open now. After a hang-up terminal and link are fresh, at ``speed`` again."""
        master = self._descriptor()
        poll = select.poll()
        poll.register(master, select.POLLIN)
        hung_up = any(event & select.POLLHUP for _, event in poll.poll(0))
        if not hung_up:
            self._seen = True
            return True
        # One that came and went between two looks is known by the settings that it left behind.
        if self._seen or termios.tcgetattr(master) != self._fresh:
            self.opened += 1
            self._replace(speed)  # before the old one is closed: else the new one would get its number
            os.close(master)
        return False

    def speed(self) -> int:
        """The speed in baud that the other end has set; 0 if it is none that is known."""
        master = self._descriptor()
        settings = array.array("B", bytes(44))
        try:
            fcntl.ioctl(master, _TCGETS2, settings)
        except OSError:
            return _SPEEDS.get(termios.tcgetattr(master)[5], 0)
        return int(struct.unpack_from("I", settings, 40)[0])

    def send(self, data: bytes, speed: int) -> None:
        """Put what a device says at ``speed`` on the line, as the other end hears it. Nobody there or nobody reading: it is lost, and counted."""
        if not self.look(speed):
            self.lost += len(data)
            return
        set_to = self.speed()
        heard = data if set_to == speed else misread(data, speed, set_to)
        self.lost += len(heard) - self.write(heard)

    async def deliver(self, data: bytes, speed: int) -> None:
        """As ``send``, but waits for room while somebody has the line open: no byte is lost to a reader that is slow."""
        if not self.look(speed):
            self.lost += len(data)
            return
        set_to = self.speed()
        heard = data if set_to == speed else misread(data, speed, set_to)
        while heard := heard[self.write(heard) :]:
            await asyncio.sleep(0.005)
            if not self.look(speed):
                self.lost += len(heard)
                return

    def write(self, data: bytes) -> int:
        """Put bytes on the line as they are, whatever the speed; how many found room."""
        try:
            return os.write(self._descriptor(), data)
        except BlockingIOError:
            return 0

    def fileno(self) -> int:
        """The descriptor of this end, for who waits for what the other end writes; another one after a hang-up."""
        return self._descriptor()

    def receive(self) -> bytes:
        """What the other end wrote meanwhile; empty when that is nothing."""
        try:
            return os.read(self._descriptor(), 4096)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return b""
            raise

    def _descriptor(self) -> int:
        if self._master is None:
            raise ValueError(f"{self.path}: the line is not open")
        return self._master

    def _replace(self, speed: int) -> None:
        master, slave = os.openpty()
        try:
            tty.setraw(slave)
            settings = termios.tcgetattr(slave)
            settings[4] = settings[5] = next((code for code, baud in _SPEEDS.items() if baud == speed), termios.B38400)
            termios.tcsetattr(slave, termios.TCSANOW, settings)
            os.set_blocking(master, False)
            self._name = os.ttyname(slave)
            # The link is always there: the new one takes the place of the old one in one step.
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(self._name)
            temporary.replace(self.path)
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        self._master, self._seen = master, False
        self._fresh = termios.tcgetattr(master)


def misread(data: bytes, sent: int, read: int) -> bytes:
    """What a UART set to ``read`` baud makes of bytes sent as 7E1 at ``sent`` baud, the line being idle before and after.

    It waits for the edge of a start bit, looks at the middle of each bit that it expects, and takes what it saw, as drivers do that are not
    asked to check: fewer bytes when it is too slow, more of them when it is too fast, never what was meant.
    """
    if read <= 0:
        return b""
    line = bytearray()
    for byte in data:
        bits = [byte >> bit & 1 for bit in range(7)]
        line += bytes([0, *bits, sum(bits) & 1, 1])
    found = bytearray()
    at = 0  # a bit of the line
    while (start := line.find(0, at)) >= 0:
        # The middle of bit k of the reader lies (k + 1/2) / read seconds behind the edge, which begins bit ``start`` of the line.
        middles = [start + (2 * k + 1) * sent // (2 * read) for k in range(10)]
        seen = [line[middle] if middle < len(line) else 1 for middle in middles]
        if seen[0] == 0:
            found.append(sum(bit << place for place, bit in enumerate(seen[1:8])))
            at = middles[9]
            if seen[9] == 0:  # a framing error: it waits for the line to be idle before it looks for an edge
                at = line.find(1, at)
                if at < 0:
                    break
        at = max(at, start + 1)
    return bytes(found)
