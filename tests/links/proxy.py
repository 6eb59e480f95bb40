"""A TCP proxy inside the test that makes a good network bad: delays, throttles, repeats, cuts (FIN or RST) and half-opens connections.

    proxy = Proxy("127.0.0.1:1234")
    url = f"ws://{await proxy.start()}/"
    proxy.delay = 0.2            # from now on, both ways, on all connections
    proxy.half_open()            # connections of now: everything is swallowed, nothing ends, as when a mobile cell vanished
    await proxy.stop()

It shares no code with us and asks no clock of ours: real seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

CHUNK = 16_384
UP, DOWN = "up", "down"
"""Towards the server, towards the client."""


class Cable:
    """One connection through the proxy. ``passed``: bytes that were let through, each way."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.passed = {UP: 0, DOWN: 0}
        self.swallowed = 0
        self._proxy = proxy
        self._swallows: set[str] = set()

    def half_open(self, *ways: str) -> None:
        """Swallow everything (of these ways) from now on; neither side hears that the other one ends."""
        self._swallows.update(ways or (UP, DOWN))

    def cut(self, *, reset: bool = False) -> None:
        """End both lines: FIN, or RST."""
        for writer in (self.client, self.server):
            if reset:
                line: socket.socket = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()

    async def carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way, until it ends."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if self._proxy.speed:
                    data = await self._throttled(way, data, writer)
                self._let(way, self._proxy.change(way, data), writer)
                await writer.drain()
                if self._proxy.cut_after is not None and sum(self.passed.values()) >= self._proxy.cut_after:
                    self.cut(reset=self._proxy.cut_by_reset)
                    return
        if way not in self._swallows:
            writer.close()

    async def _throttled(self, way: str, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Lets all but the last piece of a twentieth of a second pass."""
        assert self._proxy.speed is not None
        piece = max(1, self._proxy.speed // 20)
        while len(data) > piece:
            self._let(way, self._proxy.change(way, data[:piece]), writer)
            data = data[piece:]
            await asyncio.sleep(0.05)
        return data

    def _let(self, way: str, data: bytes, writer: asyncio.StreamWriter) -> None:
        if way in self._swallows:
            self.swallowed += len(data)
            return
        cut_after = self._proxy.cut_after
        if cut_after is not None:
            data = data[: max(0, cut_after - sum(self.passed.values()))]
        self.passed[way] += len(data)
        writer.write(data)


class Proxy:
    """Listens on a free port, connects on to ``target`` (``host:port``, can be changed). What is set holds at once, for all connections.

    ``delay``: seconds each piece takes; ``speed``: bytes per second and way, None: as fast as it goes; ``cut_after``: bytes of a connection, both
    ways together, behind which it is cut (by RST with ``cut_by_reset``); ``refusing``: connections are reset as soon as they come; ``deaf``: they
    are taken, but nothing is behind; ``change``: called with way and bytes, gives the bytes that pass (damage, repetition: see ``twice``).
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.delay = 0.0
        self.speed: int | None = None
        self.cut_after: int | None = None
        self.cut_by_reset = False
        self.refusing = False
        self.deaf = False
        self.change: Callable[[str, bytes], bytes] = lambda way, data: data
        self.cables: list[Cable] = []
        self.opened = 0
        self.address = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        """Listen (again on the same port); returns ``host:port``."""
        port = int(self.address.rpartition(":")[2] or 0)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self.address

    async def stop(self) -> None:
        """No more come in, all are reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut(reset=True)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self, *, reset: bool = False) -> None:
        """All connections of now."""
        for cable in tuple(self.cables):
            cable.cut(reset=reset)

    def half_open(self, *ways: str) -> None:
        """All connections of now; new ones work."""
        for cable in self.cables:
            cable.half_open(*ways)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.opened += 1
        try:
            with contextlib.suppress(asyncio.CancelledError):  # by stop(); asyncio would log it
                await self._carry(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            Cable(self, writer, writer).cut(reset=True)
            return
        if self.deaf:
            await reader.read(-1)
            return
        host, _, port = self.target.rpartition(":")
        try:
            back_reader, back = await asyncio.open_connection(host.strip("[]"), int(port))
        except OSError:
            return
        cable = Cable(self, writer, back)
        self.cables.append(cable)
        try:
            await asyncio.gather(cable.carry(UP, reader, back), cable.carry(DOWN, back_reader, writer))
        finally:
            self.cables.remove(cable)
            back.transport.abort()


def twice(way: str, data: bytes) -> bytes:
    """A ``change`` that repeats every piece: what a broken gateway does to a stream (TCP itself never does)."""
    return data + data
