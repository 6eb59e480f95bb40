"""A WebSocket client made of a socket and RFC 6455: it shares no code with us, and may break every rule."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import ClassVar, NamedTuple

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # both from RFC 6455 section 1.3
TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


class Frame(NamedTuple):
    """What came from the server; ``first`` is the whole first byte."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def code(self) -> int:
        """Of a close frame."""
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0])


class Answer(NamedTuple):
    """An HTTP answer. Names of header fields in lower case."""

    status: int
    headers: dict[str, str]


def handshake(path: str = "/", *lines: str, host: str | None = "localhost", key: str = KEY, version: str = "13", without: str = "") -> bytes:
    """A request with the usual header fields and ``lines``; ``without`` leaves out the fields whose name begins so."""
    fields = [f"Host: {host}"] if host is not None else []
    fields += ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Version: {version}"]
    fields = [field for field in fields if not without or not field.lower().startswith(without.lower())]
    return ("\r\n".join([f"GET {path} HTTP/1.1", *fields, *lines]) + "\r\n\r\n").encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True, size: int | None = None, wide: int = 0) -> bytes:
    """A frame of a client. ``size``: the length it claims; ``wide``: bytes of the length field, if not the shortest."""
    claimed = len(payload) if size is None else size
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if wide == 2 or (not wide and 126 <= claimed < 65_536):
        head = struct.pack("!BBH", first, bit | 126, claimed)
    elif wide == 8 or claimed >= 65_536:
        head = struct.pack("!BBQ", first, bit | 127, claimed)
    else:
        head = struct.pack("!BB", first, bit | claimed)
    if not mask:
        return head + payload
    mask_bytes = os.urandom(4)
    masked = bytes(byte ^ mask_bytes[place % 4] for place, byte in enumerate(payload)) if len(payload) < 4_096 else _masked(payload, mask_bytes)
    return head + mask_bytes + masked


def _masked(payload: bytes, mask: bytes) -> bytes:
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(payload), "big")


class Raw:
    """A line to the server. ``close_all`` at the end of a test closes what it opened."""

    opened: ClassVar[list[Raw]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened.append(self)

    @classmethod
    async def close_all(cls) -> None:
        """Of all lines."""
        while cls.opened:
            raw = cls.opened.pop()
            raw.hang_up()
            with contextlib.suppress(OSError):
                await raw.writer.wait_closed()

    @classmethod
    async def connect(cls, where: str, limit: int = 65_536) -> Raw:
        """Only the line; nothing is asked yet."""
        host, _, port = where.rpartition(":")
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port), limit=limit))

    @classmethod
    async def open(cls, where: str, path: str = "/", *lines: str) -> Raw:
        """With a complete handshake."""
        raw = await cls.connect(where)
        answer = await raw.ask(handshake(path, *lines))
        assert answer.status == 101, answer
        assert answer.headers["sec-websocket-accept"] == ACCEPT
        return raw

    async def ask(self, request: bytes) -> Answer:
        """Send a request, read the head of its answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> Answer:
        """Read the head of an answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        fields = [line.partition(":") for line in lines]
        return Answer(int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in fields})

    async def body(self, answer: Answer) -> str:
        """The text behind an answer's head."""
        return (await asyncio.wait_for(self.reader.readexactly(int(answer.headers["content-length"])), 5)).decode()

    def send(self, *frames: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(b"".join(frames))

    def text(self, message: str) -> None:
        """A text message."""
        self.send(frame(TEXT, message.encode()))

    async def frame(self, timeout: float = 5) -> Frame:
        """The next frame of the server. It must not be masked (RFC 6455 section 5.1)."""

        async def read() -> Frame:
            first, second = await self.reader.readexactly(2)
            assert not second & 0x80, "a server does not mask"
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return Frame(first, await self.reader.readexactly(size))

        return await asyncio.wait_for(read(), timeout)

    async def ended(self, timeout: float = 5) -> bool:
        """Whether the line ends without another byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), timeout) == b""
        except ConnectionError:
            return True

    def hang_up(self) -> None:
        """End the line without a word."""
        self.writer.transport.abort()
