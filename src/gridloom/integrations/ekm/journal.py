"""The gateway's own small files: which orders it was ever given and how they ended, and what its meters said while the hub was away.

Both survive ``kill -9`` at any moment: what was half written when the process died is recognised and left out.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import IO, Any

import msgspec

from gridloom.core.documents import Space
from gridloom.core.errors import ConfigurationError, StorageError
from gridloom.core.model import Event, MeterReading
from gridloom.core.ports import Commit, Delete, Document, Put
from gridloom.integrations.ekm.upstream import Ended, encode

log = logging.getLogger(__name__)

KEPT = 7 * 86_400_000_000
"""µs for which an order is remembered; none lives longer than a day."""
_MOST_LINES = 2_000
_INTERRUPTED = "the gateway stopped while the order was under way: whether the device acted is not known"


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """``begun`` (µs), or how it ended, or that the hub has heard it."""

    id: str
    begun: int = 0
    ended: Ended | None = None
    heard: bool = False


class _Known(msgspec.Struct):
    begun: int
    ended: Ended | None = None
    heard: bool = False


class Journal:
    """Orders by id, in a file of lines. ``begin`` and ``end`` are on disk (fsync) when they return."""

    def __init__(self, path: Path, now: int) -> None:
        self._path = path
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lines = 0
        self._file: FileIO | None = None
        self._read()
        for id, known in self._known.items():
            if known.ended is None:  # nobody will ever know
                known.ended = Ended(id, code="interrupted", message=_INTERRUPTED, silent=True)
        self._rewrite(now)

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def ended(self, id: str) -> Ended | None:
        """How an order ended; None while it is under way, or when it is not known."""
        known = self._known.get(id)
        return None if known is None else known.ended

    def unheard(self) -> list[Ended]:
        """What the hub has not confirmed, oldest first."""
        return [known.ended for known in self._known.values() if known.ended is not None and not known.heard]

    def begin(self, id: str, now: int) -> bool:
        """From now on this order is known; False when it already was, and must not be carried out. Raises OSError: it must not either."""
        if id in self._known:
            return False
        self._known[id] = _Known(now)
        try:
            self._write(_Line(id, begun=now), now)
        except OSError:
            del self._known[id]
            raise
        return True

    def end(self, ended: Ended, now: int) -> None:
        """How it ended."""
        known = self._known.setdefault(ended.id, _Known(now))
        known.ended = ended
        self._write(_Line(ended.id, ended=ended), now)

    def hear(self, id: str, now: int) -> None:
        """The hub knows."""
        known = self._known.get(id)
        if known is not None and not known.heard:
            known.heard = True
            self._write(_Line(id, heard=True), now, durable=False)  # if it is lost the end is told once more

    def close(self) -> None:
        """No more."""
        if self._file is not None:
            self._file.close()

    def _read(self) -> None:
        try:
            lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            if not line:
                continue
            try:
                found = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:
                log.warning("a line of the journal is damaged and left out", extra={"path": str(self._path)})
                continue
            known = self._known.setdefault(found.id, _Known(found.begun))
            known.ended = found.ended or known.ended
            known.heard = known.heard or found.heard

    def _rewrite(self, now: int) -> None:
        """Without what is old. Raises OSError; the file that was is then still the journal."""
        for id in [id for id, known in self._known.items() if known.begun < now - KEPT and known.heard]:
            del self._known[id]
        new = self._path.with_name(self._path.name + ".new")
        lines = [_Line(id, known.begun, known.ended, known.heard) for id, known in self._known.items()]
        file = FileIO(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "ab")
        try:
            _append(file, b"".join(msgspec.json.encode(line) + b"\n" for line in lines), durable=True)
            new.replace(self._path)
        except OSError:
            file.close()
            raise
        self.close()
        self._file = file
        self._lines = len(lines)
        self._limit = max(_MOST_LINES, 4 * self._lines)
        _sync_folder(self._path.parent)

    def _write(self, line: _Line, now: int, *, durable: bool = True) -> None:
        assert self._file is not None
        _append(self._file, msgspec.json.encode(line) + b"\n", durable=durable)
        self._lines += 1
        if self._lines > self._limit:
            try:
                self._rewrite(now)
            except OSError as error:  # the line is written; the file is longer than it need be
                self._limit += _MOST_LINES
                log.error("the journal cannot be made shorter", extra={"path": str(self._path), "reason": error.strerror})


class Memory(Space):
    """What is ordered at run time, for a gateway that has no store: one small file per document, ``KIND-ID.json`` in ``folder``."""

    def __init__(self, folder: Path) -> None:
        none: Any = None
        super().__init__(none, "ekm")
        self._folder = folder

    async def get(self, kind: str, id: str) -> Document | None:
        """The document, or None. Raises ConfigurationError when its file cannot be read."""
        path = self._path(kind, id)
        try:
            body = path.read_bytes()
            msgspec.json.decode(body)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigurationError(f"{path}: {error}; remove it") from None
        return Document(self.space, kind, id, 1, body, {})

    async def commit(self, writes: Sequence[Put | Delete]) -> Commit:
        """On disk when it returns, each file whole or as it was. Raises StorageError."""
        for write in writes:
            path = self._path(write.kind, write.id)
            try:
                if isinstance(write, Delete):
                    path.unlink(missing_ok=True)
                else:
                    _replace(path, write.body)
                _sync_folder(self._folder)
            except OSError as error:
                raise StorageError(f"the gateway cannot write {path}: {error.strerror}") from error
        return Commit("", frozenset(), (1,) * len(writes))

    def _path(self, kind: str, id: str) -> Path:
        return self._folder / f"{kind}-{id}.json"


class Held(msgspec.Struct, frozen=True):
    """What is kept for the hub: a reading or an event."""

    reading: MeterReading | None = None
    event: Event | None = None


class Spool:
    """What was said and is not confirmed, in files of ``segment`` bytes; the oldest goes when there are more than ``size`` bytes, and is counted.

    It is in the system's hands when ``put`` returns, and forced to disk whenever a file is full: a gateway that dies loses nothing, a power cut at
    most the last file. What is confirmed is forgotten file by file, so that the last one may be told twice, which changes nothing at the hub.
    """

    def __init__(self, folder: Path, *, size: int = 268_435_456, segment: int = 1_048_576) -> None:
        self.dropped = 0
        """Files that went unsent."""
        self._folder = folder
        self._most = max(2, size // segment)
        self._segment = segment
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"--data {folder}: {error.strerror}") from None
        self._numbers = deque(sorted(int(path.stem) for path in folder.glob("*.spool") if path.stem.isdigit()))
        self._file: IO[bytes] | None = None
        self._offset = 0
        self._taken = (0, 0)

    def put(self, *held: Held) -> None:
        """Keep it. Raises OSError when the disk is full."""
        data = b"".join(len(raw).to_bytes(4, "big") + raw for raw in map(encode, held))
        if self._file is None:
            self._begin()
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        if self._file.tell() >= self._segment:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    @property
    def empty(self) -> bool:
        """Whether everything is confirmed."""
        return not self._find(1)[0]

    def take(self, limit: int = 500) -> list[Held]:
        """The oldest that is not confirmed; the same again until ``confirm``. Empty: there is nothing."""
        found, end = self._find(limit)
        self._taken = (self._numbers[0], end) if found else (0, 0)
        return found

    def _find(self, limit: int) -> tuple[list[Held], int]:
        while self._numbers:
            number = self._numbers[0]
            found, end = self._load(number, limit)
            if found or self._is_last(number):
                return found, end
            self._forget()
        return [], 0

    def confirm(self) -> None:
        """What was taken is stored."""
        number, end = self._taken
        if self._numbers and self._numbers[0] == number:
            self._offset = end

    def close(self) -> None:
        """No more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_last(self, number: int) -> bool:
        return self._file is not None and number == self._numbers[-1]

    def _begin(self) -> None:
        number = self._numbers[-1] + 1 if self._numbers else 1
        self._file = open(self._path(number), "xb")  # noqa: SIM115  # until it is full
        self._numbers.append(number)
        while len(self._numbers) > self._most:
            self.dropped += 1
            log.warning("the hub is away for too long: the oldest readings are dropped", extra={"files": self.dropped})
            self._forget()

    def _forget(self) -> None:
        self._path(self._numbers.popleft()).unlink(missing_ok=True)
        self._offset = 0

    def _load(self, number: int, limit: int) -> tuple[list[Held], int]:
        found: list[Held] = []
        offset = self._offset
        with open(self._path(number), "rb") as file:
            file.seek(offset)
            while len(found) < limit:
                head = file.read(4)
                raw = file.read(int.from_bytes(head, "big")) if len(head) == 4 else b""
                if len(head) < 4 or len(raw) < int.from_bytes(head, "big"):
                    break  # the end, or what was half written when the process died
                offset += 4 + len(raw)
                try:
                    found.append(msgspec.msgpack.decode(raw, type=Held))
                except msgspec.DecodeError:
                    log.warning("a record of the spool is damaged and left out", extra={"path": str(self._path(number))})
        return found, offset

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:010}.spool"


def _append(file: FileIO, data: bytes, *, durable: bool) -> None:
    """All of it, or nothing: what raised OSError is not in the file later either."""
    size = os.fstat(file.fileno()).st_size
    try:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), size)
        raise


def _replace(path: Path, body: bytes) -> None:
    new = path.with_name(path.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
