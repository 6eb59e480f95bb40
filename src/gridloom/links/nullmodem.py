"""Two ends of a wire that is not there: what one end writes, the other reads. For simulators and tests.

The ends read and write like asyncio's streams. The wire can be as slow as a serial line (``bits_per_second``, through the Clock) and can be
damaged on demand: ``noise`` flips bits, ``drop`` loses bytes, ``cut`` unplugs it. Both directions are independent.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.clock import Clock

BITS_PER_BYTE = 10
"""Start bit, seven or eight data bits, parity or none, stop bit: ten on the wire for 7E1 and for 8N1."""
LIMIT = 64 * 1024
"""Bytes that may wait unread in one direction; then the oldest go and ``dropped`` counts, as in a receiver that overruns."""


class End:
    """One end. Made by ``Nullmodem``; ``read`` from it what the other end wrote."""

    def __init__(self, wire: Nullmodem, name: str) -> None:
        self.name = name
        self.dropped = 0
        """Bytes lost because nobody read them in time."""
        self._wire = wire
        self._unread = bytearray()
        self._changed = asyncio.Event()
        self._ended = False
        self._closing = False
        self._queue = bytearray()  # written at this end, not yet on the other side (a paced wire only)
        self._pump: asyncio.Task[None] | None = None
        self.other: End = self

    async def read(self, most: int = -1) -> bytes:
        """What is there, at most ``most`` bytes (-1: all that is there), waiting for the first byte; ``b""`` when the wire has ended."""
        while not self._unread and not self._ended:
            await self._wait()
        taken = bytes(self._unread if most < 0 else self._unread[:most])
        self._take(len(taken))
        return taken

    async def readexactly(self, count: int) -> bytes:
        """``count`` bytes. Raises asyncio.IncompleteReadError when the wire ends before."""
        while len(self._unread) < count:
            if self._ended:
                raise asyncio.IncompleteReadError(self._take(len(self._unread)), count)
            await self._wait()
        return self._take(count)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Up to and including the separator. Raises asyncio.IncompleteReadError when the wire ends before."""
        while (found := self._unread.find(separator)) < 0:
            if self._ended:
                raise asyncio.IncompleteReadError(self._take(len(self._unread)), None)
            await self._wait()
        return self._take(found + len(separator))

    def write(self, data: bytes) -> None:
        """Send. Raises ConnectionResetError when the wire was cut or this end closed."""
        if self._closing or self._ended:
            raise ConnectionResetError(f"null modem, end {self.name}: the wire is {'closed' if self._closing else 'cut'}")
        if self._wire.bits_per_second is None:
            self.other._arrive(self._wire._damaged(data))
            return
        self._queue += data
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(self._wire.bits_per_second), name=f"nullmodem {self.name}")

    async def drain(self) -> None:
        """Wait until what was written is on the other side, and has been read down to half of the limit."""
        while self._queue or len(self.other._unread) > LIMIT // 2:
            if self.is_closing() or self.other.is_closing():
                return
            await self._wait()

    def close(self) -> None:
        """Close this end: the other reads what was sent, then the end."""
        if self._closing:
            return
        self._closing = True
        self._finish()
        if self._pump is None or self._pump.done():
            self.other._finish()

    def is_closing(self) -> bool:
        """Whether this end was closed, or the wire cut."""
        return self._closing or self._ended

    async def wait_closed(self) -> None:
        """Wait until what was sent before ``close`` has arrived."""
        if self._pump is not None:
            await asyncio.wait([self._pump])

    async def _run(self, bits_per_second: float) -> None:
        # A piece is what the line carries in about 5 ms, at least a byte: as a serial driver hands bytes on.
        piece = max(1, int(bits_per_second / BITS_PER_BYTE * 0.005))
        while self._queue:
            data = bytes(self._queue[:piece])
            await self._wire.clock.sleep(len(data) * BITS_PER_BYTE / bits_per_second)
            del self._queue[: len(data)]
            self.other._arrive(self._wire._damaged(data))
            self._tell()
        if self._closing:
            self.other._finish()

    def _arrive(self, data: bytes) -> None:
        if self._ended:
            return
        self._unread += data
        excess = len(self._unread) - LIMIT
        if excess > 0:
            del self._unread[:excess]
            self.dropped += excess
        self._tell()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._unread[:count])
        del self._unread[:count]
        self.other._tell()
        return taken

    def _finish(self) -> None:
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _cut(self) -> None:
        self._queue.clear()
        if self._pump is not None:
            self._pump.cancel()
        self._finish()


class Nullmodem:
    """A wire between ``a`` and ``b``.

    ``bits_per_second`` None is at once. ``noise`` is the chance per byte of one flipped bit; it may be changed at any time.
    """

    def __init__(self, clock: Clock, *, bits_per_second: float | None = None, noise: float = 0.0, random: Random | None = None) -> None:
        self.clock = clock
        self.bits_per_second = bits_per_second
        self.noise = noise
        self._random = random if random is not None else Random(0)  # noqa: S311  # damage, not secrecy; the same every time unless asked
        self._losing = 0
        self.a, self.b = End(self, "a"), End(self, "b")
        self.a.other, self.b.other = self.b, self.a

    def drop(self, count: int) -> None:
        """Lose the next ``count`` bytes, in whichever direction they go."""
        self._losing += count

    def cut(self) -> None:
        """Unplug: both ends read what had arrived, then the end; writing raises."""
        self.a._cut()
        self.b._cut()

    def _damaged(self, data: bytes) -> bytes:
        if self._losing:
            lost = min(self._losing, len(data))
            self._losing -= lost
            data = data[lost:]
        if self.noise:
            return bytes(byte ^ (1 << self._random.randrange(8)) if self._random.random() < self.noise else byte for byte in data)
        return data
