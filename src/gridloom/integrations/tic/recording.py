"""Recordings of a line: bytes with the times at which they arrived, in a file that a person can read and that a crash cannot spoil.

The format, version 1. Text, one record per line, each ended by LF:

- the first line is ``gridloom-tic-recording 1`` and a space, then a JSON object: ``port`` (path or URL without credentials), ``baud``,
  ``started`` (RFC 3339, UTC); more keys may follow;
- every other line is the microseconds since ``started`` in decimal, a space, and the bytes that arrived then in hexadecimal.

A line goes to the file whole, in one write, as soon as its bytes are there. A last line without LF was cut by a crash and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gridloom.core.clock import Clock, rfc3339
from gridloom.core.errors import InvalidInput

MAGIC = b"gridloom-tic-recording "
VERSION = 1
SYNC_SECONDS = 5.0
"""The disk is asked to keep what was written every so often; a crash of the process alone loses nothing at all."""


class Piece(NamedTuple):
    """Bytes, and the microseconds since the start of the recording at which they arrived."""

    after: int
    data: bytes


class Recorder:
    """Writes a recording. Raises OSError, FileExistsError when the file is there: a recording is never written over.

    ``began``: when it started, in the clock's monotonic seconds, if that was before now.
    """

    def __init__(self, path: Path, clock: Clock, *, port: str, baud: int, began: float | None = None) -> None:
        self.bytes = 0
        self._clock = clock
        now = clock.monotonic()
        self._zero = now if began is None else began
        self._synced = now
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        header = {"port": port, "baud": baud, "started": rfc3339(clock.now() - round((now - self._zero) * 1_000_000))}
        self._line(MAGIC + f"{VERSION} {json.dumps(header)}\n".encode())

    def write(self, data: bytes, at: float | None = None) -> None:
        """Keep what arrived now, or at a moment before (monotonic seconds)."""
        now = self._clock.monotonic()
        self._line(b"%d %s\n" % (max(0, round(((now if at is None else at) - self._zero) * 1_000_000)), data.hex().encode()))
        self.bytes += len(data)
        if now - self._synced >= SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = now

    def close(self) -> None:
        """End it, on disk."""
        os.fsync(self._file)
        os.close(self._file)

    def _line(self, line: bytes) -> None:
        while line:  # a disk that is nearly full takes a part; the rest then fails with the reason
            line = line[os.write(self._file, line) :]


class Recording:
    """A recording that is read. ``cut``: its last line was not whole."""

    def __init__(self, data: bytes) -> None:
        """Raises InvalidInput, naming the line."""
        head, _, rest = data.partition(b"\n")
        words = head[len(MAGIC) :].split(b" ", 1)
        if not head.startswith(MAGIC) or len(words) != 2:
            raise InvalidInput("line 1: this is no recording; its first line would begin with `gridloom-tic-recording 1`")
        if words[0] != str(VERSION).encode():
            raise InvalidInput(f"line 1: a recording of version {words[0].decode('ascii', 'replace')}; this program reads version {VERSION}")
        try:
            self.header: dict[str, Any] = json.loads(words[1])
        except ValueError:
            raise InvalidInput("line 1: what follows the version is no JSON object") from None
        if not isinstance(self.header, dict):
            raise InvalidInput("line 1: what follows the version is no JSON object")
        lines = rest.split(b"\n")
        self.cut = lines.pop() != b""
        self.pieces = [_piece(number, line) for number, line in enumerate(lines, 2)]

    @property
    def data(self) -> bytes:
        """All bytes, one after the other."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def seconds(self) -> float:
        """From the start to the last piece."""
        return self.pieces[-1].after / 1_000_000 if self.pieces else 0.0

    def __iter__(self) -> Iterator[Piece]:
        """The pieces in the order of the file."""
        return iter(self.pieces)


def _piece(number: int, line: bytes) -> Piece:
    after, _, text = line.partition(b" ")
    try:
        if not after.isdigit():
            raise ValueError
        return Piece(int(after), bytes.fromhex(text.decode("ascii")))
    except ValueError:
        raise InvalidInput(f"line {number}: expected microseconds, a space and hexadecimal bytes, got {line[:40]!r}") from None


def is_recording(data: bytes) -> bool:
    """Whether these are the first bytes of a recording, of whatever version."""
    return data.startswith(MAGIC)


def bytes_of(data: bytes) -> bytes:
    """What was on the line: of a recording its bytes, of anything else the bytes themselves. Raises InvalidInput for a broken recording."""
    return Recording(data).data if is_recording(data) else data
