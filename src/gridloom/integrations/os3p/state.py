"""What a Substation must still know after a power loss: one small log file of changes, checksummed line by line (N20, S17, L15).

A *commit* is one line: its CRC-32 and a JSON object of what is set, which events are added, which are done. It is on disk when ``commit`` returns and
holds all of its changes or none. A file begins with a snapshot; when it has grown it is written anew (beside, synced, renamed, folder synced), and
the one before is kept as ``state.previous``. A line that was cut off by the power loss was never confirmed to anybody and is dropped. A file that
is damaged in another way is set aside (``state.damaged-N``, kept); what its good lines, and where the snapshot is gone the previous generation, say
is the last good state. It stays in its place, too, until that state, which names it in ``set_aside``, takes it.

Writing blocks the process: a commit is a few hundred bytes some times a day, and nothing may happen between it and what it records.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gridloom.core.errors import ConfigurationError
from gridloom.integrations.os3p.messages import BootNotification, ErrorCode, GetFile, Mode, UpdateFirmware
from gridloom.integrations.os3p.schedule import Override, Profile

log = logging.getLogger(__name__)

MOST_EVENTS = 10_000
"""Events that wait to be delivered: years of nights. Beyond, the oldest is given up, with an alarm."""
GROWN = 65_536
"""Bytes from which a log is written anew, if that makes it less than half."""
LIGHTS = ("StreetlightModeStatusNotification", "StreetlightStatusNotification")
"""The actions whose delivery is guaranteed (N19)."""


def _no_step(name: str) -> None:
    """Nothing happens between two steps."""


step: Callable[[str], None] = _no_step
"""Called before each single thing that is done to a file. A test puts something here that ends the process."""


class Accepted(msgspec.Struct, frozen=True):
    """What was last accepted: the BootNotification, the Central System (a digest of its URL), and the heartbeat interval in seconds."""

    boot: BootNotification
    url: str
    interval: int


class Lamp(msgspec.Struct, frozen=True):
    """One contactor as it was last told. ``since`` and ``mode_since``: µs UTC of the switching and of the change of mode."""

    contactor: int
    on: bool = False
    since: int = 0
    mode: Mode = "Schedule"
    mode_since: int = 0
    remote: Override | None = None


class Fault(msgspec.Struct, frozen=True):
    """An error that stands. ``group``: which indicator or what else it is about (``info`` of StatusNotification)."""

    code: ErrorCode
    group: str = ""
    vendor_id: str | None = None
    vendor_code: str | None = None


class Raised(msgspec.Struct, frozen=True):
    """A fault that was told: since when, and whether a test has made it (N11)."""

    fault: Fault
    since: int
    test: bool = False


class Job(msgspec.Struct, frozen=True):
    """A firmware update under way. ``installing`` from the moment on at which the file is handed over; ``version``: the one before."""

    order: UpdateFirmware
    attempt: int = 0
    installing: bool = False
    version: str = ""


class Event(msgspec.Struct, frozen=True):
    """Something that the Central System is told until it has answered. Those with one ``key`` are told in their order."""

    seq: int
    key: str
    action: str
    payload: dict[str, Any]

    @property
    def guaranteed(self) -> bool:
        """N19: never given up."""
        return self.action in LIGHTS


class State(msgspec.Struct):
    """Everything that is kept but the events."""

    accepted: Accepted | None = None
    keys: dict[str, str] = {}
    profiles: tuple[Profile, ...] = ()
    lamps: tuple[Lamp, ...] = ()
    raised: tuple[Raised, ...] = ()
    testing: bool = False
    job: Job | None = None
    upload: GetFile | None = None
    """The upload under way."""
    running: bool = False
    """It was started, and has not been stopped in order yet (B17)."""
    set_aside: tuple[str, ...] = ()
    """Damaged files that nobody has been told of yet."""


_TYPES = {field.name: field.type for field in msgspec.structs.fields(State)}
_encode = msgspec.json.Encoder().encode


class Line(msgspec.Struct, omit_defaults=True):
    """One commit. ``whole``: it is a snapshot."""

    set: dict[str, Any] = {}
    add: tuple[Event, ...] = ()
    done: tuple[int, ...] = ()
    whole: bool = False


_lines = msgspec.json.Decoder(Line)


class Vault:
    """The state of one Substation, in ``folder`` or, without one, in memory only. A folder that can only be read is ``failing``.

    Raises ConfigurationError when the folder cannot be, or another process has it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.state = State()
        self.events: dict[int, Event] = {}
        """Oldest first."""
        self.lost = 0
        """Guaranteed events that were given up because there was no room."""
        self.failing = ""
        """Why the last commit is in memory only, or empty."""
        self._folder = folder
        self._next = 1
        self._file = -1
        self._size = 0
        self._lock = -1
        self._damaged: list[Path] = []
        """Files that are still to be set aside."""
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = _locked(folder)
                self._load(folder)
            except OSError as error:
                self.close()
                raise ConfigurationError(f"{folder}: the state of the station cannot be kept there: {error.strerror}") from error
            try:
                self._renew(folder)
            except OSError as error:  # a full disk must not keep the lights from being switched
                self._fail(error)

    def close(self) -> None:
        """Let go of the folder."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    # ---------------------------------------------------------------------------------------------------------- commits

    def commit(self, *, add: Iterable[tuple[str, msgspec.Struct]] = (), done: Sequence[int] = (), must: bool = False, **changes: Any) -> None:
        """Set members of the state, add events (key, message) and end others: all of it or nothing.

        Without ``must`` what cannot be written is kept in memory, ``failing`` says why, and the next commit tries again.

        Raises OSError with ``must``.
        """
        events = [Event(self._next + number, key, type(message).__name__, msgspec.to_builtins(message)) for number, (key, message) in enumerate(add)]
        dropped = self._surplus(len(events))
        line = Line(changes, tuple(events), (*done, *dropped))
        try:
            self._write(line, synced=bool(changes or events))
            self.failing = ""
        except OSError as error:
            if must:
                raise
            self._fail(error)
        self._next += len(events)
        self._apply(line, converted=False)

    def _fail(self, error: OSError) -> None:
        if not self.failing:
            log.error("the state cannot be written; it is kept in memory", exc_info=error)
        self.failing = error.strerror or str(error)

    def _surplus(self, more: int) -> list[int]:
        """Events that have to make room; first those whose delivery nobody guarantees."""
        too_many = len(self.events) + more - MOST_EVENTS
        if too_many <= 0:
            return []
        chosen = sorted(self.events.values(), key=lambda event: (event.guaranteed, event.seq))[:too_many]
        self.lost += sum(event.guaranteed for event in chosen)
        return [event.seq for event in chosen]

    def _apply(self, line: Line, converted: bool = True) -> None:
        for name, value in line.set.items():
            if name in _TYPES:  # a later version may have kept more
                setattr(self.state, name, msgspec.convert(value, _TYPES[name]) if converted else value)
        for event in line.add:
            self.events[event.seq] = event
        for seq in line.done:
            self.events.pop(seq, None)

    def _snapshot(self) -> Line:
        return Line({name: getattr(self.state, name) for name in _TYPES}, tuple(self.events.values()), (), True)

    # ------------------------------------------------------------------------------------------------------------ files

    def _write(self, line: Line, synced: bool) -> None:
        if self._folder is None:
            return
        if self.failing or self._file < 0:  # what is only in memory goes to disk first
            self._renew(self._folder)
        text = _text(line)
        try:
            step("append")
            _write_all(self._file, text)
            if synced:  # an event that is done and comes back is only told twice
                step("sync")
                os.fsync(self._file)
        except OSError:
            self._size = 0  # what stands at its end is unknown: it is written anew
            os.close(self._file)
            self._file = -1
            raise
        self._size += len(text)
        if self._size > GROWN:
            self._shrink(self._folder, line)

    def _shrink(self, folder: Path, line: Line) -> None:
        """Write anew if that is worth it. ``line`` is in the file, but not yet in memory; so it is put behind the snapshot."""
        whole = _text(self._snapshot()) + _text(line)
        if 2 * len(whole) < self._size:
            self._replace(folder, whole)

    def _renew(self, folder: Path) -> None:
        while self._damaged:
            self._put_aside(self._damaged[0])
            del self._damaged[0]
        self._replace(folder, _text(self._snapshot()))

    def _replace(self, folder: Path, content: bytes) -> None:
        current, previous = folder / "state.log", folder / "state.previous"
        with contextlib.suppress(FileNotFoundError):
            old = current.read_bytes()
            if _good_head(old):
                _put(previous, old)
        _put(current, content)
        file = os.open(current, os.O_WRONLY | os.O_APPEND)
        if self._file >= 0:
            os.close(self._file)
        self._file = file
        self._size = len(content)

    def _load(self, folder: Path) -> None:
        current, previous = folder / "state.log", folder / "state.previous"
        known = current.exists() or previous.exists()
        lines, damaged = _read(current)
        if damaged:
            self._damaged.append(current)
        if not lines or not lines[0].whole:
            older, damaged = _read(previous)
            if damaged:
                self._damaged.append(previous)
            lines = older + lines
        for line in lines:
            if line.whole:
                self.state, self.events = State(), {}
            try:
                self._apply(line)
            except msgspec.ValidationError:  # checksummed, so it is one of another version: what is understood of it holds
                log.warning("a line of the state is not understood", extra={"folder": str(folder)})
            self._next = max([self._next, *(event.seq + 1 for event in line.add), *(seq + 1 for seq in line.done)])
        if known and not lines:
            log.error("nothing of the kept state can be read: the station begins anew", extra={"folder": str(folder)})

    def _put_aside(self, path: Path) -> None:
        """Keep a damaged file under another name, too; once, however often a start is cut off."""
        content, number = path.read_bytes(), 1
        while (aside := path.with_name(f"state.damaged-{number}")).exists() and aside.read_bytes() != content:
            number += 1
        if not aside.exists():
            step("set aside")
            try:
                os.link(path, aside)
            except OSError:  # a file system without links
                _put(aside, content)
        if aside.name not in self.state.set_aside:
            self.state.set_aside += (aside.name,)
        log.error("a file of the state is damaged and was set aside", extra={"file": str(aside)})


def _text(line: Line) -> bytes:
    body = _encode(line)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _read(path: Path) -> tuple[list[Line], bool]:
    """The good lines of a file, and whether it has others; a last one that was cut off is none."""
    try:
        pieces = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return [], False
    found: list[Line] = []
    damaged = False
    for piece in pieces[:-1]:
        line = _checked(piece)
        if line is None:
            damaged = True
        else:
            found.append(line)
    return found, damaged


def _checked(piece: bytes) -> Line | None:
    try:
        if int(piece[:8], 16) != zlib.crc32(piece[9:]):
            return None
        return _lines.decode(piece[9:])
    except ValueError:
        return None


def _good_head(content: bytes) -> bool:
    line = _checked(content.partition(b"\n")[0])
    return line is not None and line.whole


def _put(path: Path, content: bytes) -> None:
    """Write a whole file so that at any moment there is either the old one or the new one."""
    new = path.with_name(path.name + ".new")
    step("create")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _write_all(descriptor, content)
        step("sync")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    step("rename")
    new.replace(path)
    step("sync folder")
    sync_folder(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    half = len(content) // 2
    for part in (content[:half], content[half:]):
        while part:
            part = part[os.write(descriptor, part) :]
        step("write")


def sync_folder(folder: Path) -> None:
    """What was renamed or removed in it stays so after a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        descriptor = os.open(folder / "lock" if (folder / "lock").exists() else folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigurationError(f"{folder}: another Substation uses this folder; give each its own") from None
    return descriptor
