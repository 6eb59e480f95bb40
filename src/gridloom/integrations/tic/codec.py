"""GRAMMAR: bytes of a TIC line <-> groups and frames. Knows no clock, no port, and no meaning of a label.

A frame is STX, groups, ETX. A group is LF, label, separator, [horodate, separator,] value, separator, checksum, CR; the separator is a space in
historic mode and a tab in standard mode (Enedis-NOI-CPT_54E). Lines are noisy (TIC FACTS 10.1 to 10.3), so nothing here raises for what a
line says: what cannot be read is a ``Damage``, and costs the group it is in.

**Finding groups.** Every control character except the tab is a boundary; what stands between two boundaries is a group if it has the shape of one
and its checksum is right, whatever the boundaries are. So a group survives when its LF or CR became another control character; when they became a
printable one, the group is tried without it. STX and ETX are believed where they can be true (STX before LF or outside a frame, ETX after a
group); elsewhere they are believed only if what follows agrees, else they are a damaged character of the text that they stand in.

**Checksum** (TIC FACTS 5): six bits of the sum of the characters from the label to the value (rule S1, historic) or to the separator behind it (rule
S2, standard), plus 20 hexadecimal; it is taken by position, because it may be a space. The mode decides the rule. In historic mode the two rules
differ by one bit, so that taking both always would let single damaged bits pass; a line that speaks the other rule throughout (FACTS 10.15) is
recognised at the end of its first frame and read from its second on. A changed bit 6 (``0`` and ``p``) is 64, which no sum modulo 64 shows: only the
line's parity does, so that readers of values do not believe everything that is ``valid``.

**Bit 7** is no part of TIC (7E1): it is removed wherever it is set (a port read as 8N1 shows the parity there), and told once per frame.

**Partial.** A frame is partial, i.e. groups of it may be missing, if one of these holds:

1. it has no STX of its own, or two frames are glued into it (its address comes again), or it overflowed;
2. its first group is undamaged and is neither ADSC, nor ADCO, nor ADIR1 to ADIR3;
3. it does not reach the last label of a whole frame and has fewer groups, damaged ones counted, than that one. A whole frame is the last one of
   this line that was; before there is one, standard frames end in PJOURF+1 or PPOINTE, historic ones in MOTDETAT or PPOT;
4. it is damaged and has fewer groups than the last whole one;
5. a label comes more often than in the last whole one (before there is one: more than once).

Of these 2, 3 and 5 are forgiven to a frame that came undamaged and with the same labels twice running: then this is what the line says now (another
contract, a peak day over). Short three-phase frames (ADIR1 to 3, the currents, no more than the address besides) are whole if they reach IINST3.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from zlib import adler32
from zoneinfo import ZoneInfo

import msgspec

from gridloom.integrations.tic.errors import Unsendable
from gridloom.integrations.tic.labels import Mode as Mode

STX, ETX, EOT, HT, LF, CR, SP = 0x02, 0x03, 0x04, 0x09, 0x0A, 0x0D, 0x20

MAX_GROUP = 256
"""Characters between LF and CR. The longest known group (PJOURF+1) has 109. ``_checksum`` is exact up to this length."""
MAX_GROUPS = 256
"""Groups in a frame; three-phase producers have about 75."""
MAX_RAW = 64
MAX_DAMAGES = 64
"""Damages that a frame carries; all are yielded and counted."""
MAX_LABELS = 256
_MAX_CACHED = 512

Reason = Literal["checksum", "malformed", "delimiter", "parity", "overflow", "truncated", "noise"]
"""checksum: the group's shape is right, its sum is not · malformed: between LF and CR, but no group · delimiter: a good group with a damaged LF, CR,
STX or ETX beside it · parity: bit 7 was set in the frame · overflow: too long for a group, or too many groups · truncated: a group without its end ·
noise: anything else."""


class Group(msgspec.Struct, frozen=True, gc=False):
    """One group as sent, padding included. ``offset``: bytes from the start of its frame to its label. ``valid``: the checksum is right."""

    label: str
    value: str
    horodate: str = ""
    valid: bool = True
    mode: Mode = Mode.STANDARD
    offset: int = 0


class Damage(msgspec.Struct, frozen=True, gc=False):
    """What could not be read. ``label``: best guess, "" unknown.

    ``offset`` as in Group, or from the end of the last frame. ``raw``: the first 64 of its ``size`` bytes.
    """

    reason: Reason
    label: str = ""
    offset: int = 0
    raw: bytes = b""
    size: int = 0


class Frame(msgspec.Struct, frozen=True, gc=False):
    """What stood between STX and ETX: groups in order, also those with a wrong checksum and those that repeat a label.

    ``mode``: of its first good group. ``size``: bytes from STX to ETX. ``damages``: the first 64. ``partial``: see the head of this file.
    """

    mode: Mode
    groups: tuple[Group, ...]
    partial: bool = False
    damages: tuple[Damage, ...] = ()
    size: int = 0


class LabelCount(msgspec.Struct):
    """How often a label came: ``seen`` in the shape of a group, ``bad_checksum`` of these with a wrong sum, ``malformed`` in no shape."""

    seen: int = 0
    bad_checksum: int = 0
    malformed: int = 0


class Statistics(msgspec.Struct):
    """Counted since the parser was made. ``noise``: bytes that belong to no group; ``stripped``: bytes that had bit 7 set.

    ``labels`` holds labels that were right at least once, 256 at most; the others are counted under ``""``.
    """

    labels: dict[str, LabelCount]
    bytes: int = 0
    frames: int = 0
    partial: int = 0
    groups: int = 0
    bad_checksum: int = 0
    malformed: int = 0
    noise: int = 0
    stripped: int = 0


class Horodate(NamedTuple):
    """A time that the meter told. ``time``: µs UTC; ``degraded``: its clock is not to be trusted.

    ``assumed``: no season was told, the zone decided.
    """

    time: int
    degraded: bool
    assumed: bool = False


_TEXT = rb"[^\x00-\x08\x0a-\x1f]"
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f]")
_GROUPS = re.compile(rb"(?:\n" + _TEXT + rb"{1,%d}+\r)++" % MAX_GROUP)
_LABEL = re.compile(r"[A-Z][A-Z0-9+-]{1,15}")
_GUESS = re.compile(rb"([A-Z][A-Z0-9+-]{1,15})[\t ]")
_SEVEN_BITS = bytes(value & 0x7F for value in range(256))
_ASCII = bytes(range(128))

_HISTORIC, _STANDARD = Mode.HISTORIC, Mode.STANDARD
_ADDRESSES = frozenset({"ADSC", "ADCO"})
_SHORT = frozenset({"ADIR1", "ADIR2", "ADIR3"})
_FIRST = _ADDRESSES | _SHORT
_IN_SHORT_FRAMES = _FIRST | {"IINST1", "IINST2", "IINST3"}
_LAST = {Mode.STANDARD: frozenset({"PJOURF+1", "PPOINTE"}), Mode.HISTORIC: frozenset({"MOTDETAT", "PPOT"})}
_KNOWN = tuple(label.encode() for label in sorted(_FIRST))


def _checksum(characters: bytes) -> int:
    """``(sum & 3F) + 20``. Adler-32 holds one plus the sum of the bytes, modulo 65521, in its low half: exact for up to 256 of them, and quick."""
    return ((adler32(characters) - 1) & 0x3F) + SP


def _read(run: bytes, offset: int, historic_s2: bool, standard_s1: bool, labels: Container[str]) -> Group | None:
    """What stood between two boundaries as a group, None if it has not the shape of one. ``labels``: known ones, which need no second look.

    Every group comes through here, so the checksum is written out (see ``_checksum``).
    """
    fields = run.decode("latin-1").split("\t")
    count = len(fields)
    horodate = ""
    if count == 3:
        label, value, check = fields
    elif count == 4:
        label, horodate, value, check = fields
    elif count == 1 and len(run) > 4 and run[-2] == SP:
        text = fields[0]
        label, separator, value = text[:-2].partition(" ")
        if not separator or (label not in labels and _LABEL.fullmatch(label) is None):
            return None
        summed = run[:-1] if historic_s2 else run[:-2]
        return Group(label, value, "", ((adler32(summed) - 1) & 0x3F) + SP == run[-1], _HISTORIC, offset)
    else:
        return None
    if len(check) != 1 or (label not in labels and _LABEL.fullmatch(label) is None):
        return None
    summed = run[:-2] if standard_s1 else run[:-1]
    return Group(label, value, horodate, ((adler32(summed) - 1) & 0x3F) + SP == run[-1], _STANDARD, offset)


def _guess(run: bytes) -> str:
    found = _GUESS.match(run)
    return "" if found is None else found[1].decode("ascii")


class Parser:
    """Bytes in, values out; any cutting of the same bytes gives the same values. One per line; memory does not grow with what comes."""

    def __init__(self) -> None:
        self._labels: dict[str, LabelCount] = {}
        self._others = LabelCount()
        self._counted = Statistics({})
        self.reset()

    @property
    def statistics(self) -> Statistics:
        """What was counted until now. The same object each time; who keeps figures copies them."""
        self._counted.labels = {**self._labels, "": self._others}
        return self._counted

    def reset(self) -> None:
        """Forget the frame under way and what was learnt of the line (it was opened again). The statistics go on."""
        self._tail = b""
        self._position = 0  # of the first byte of the tail, counted since the reset
        self._long_head = b""  # of a text that is already too long for a group
        self._long_size = 0
        self._boundary = -1  # the last one
        self._pending = 0  # an STX, ETX or EOT that the next byte decides about
        self._pending_at = 0
        self._grouped = False  # the last text was a group
        self._open = False
        self._started = False
        self._base = 0
        self._groups: list[Group] = []
        self._damages: list[Damage] = []
        self._lost = 0  # of the damages of this frame, those that stand where a group should
        self._noise: Damage | None = None
        self._raw = b""  # what is being fed, with bit 7, if any byte of it has it
        self._raw_at = 0
        self._raw_mark = 0  # up to here it was looked at
        self._high = False
        self._historic_s2 = False
        self._standard_s1 = False
        self._other_rule = 0  # groups of this frame whose checksum is that of the other rule
        self._cache: dict[bytes, tuple[Group, LabelCount]] = {}  # a meter repeats most groups from frame to frame
        self._whole: tuple[str, ...] = ()
        self._whole_mode: Mode | None = None
        self._last: tuple[str, ...] = ()

    def feed(self, data: bytes) -> list[Group | Damage | Frame]:
        """A group as soon as its CR is there (behind one with a wrong checksum its damage), a frame at its ETX."""
        out: list[Group | Damage | Frame] = []
        self._counted.bytes += len(data)
        raw = self._tail + data if self._tail else data
        start = self._position
        if raw.isascii():
            buffer = raw
        else:
            buffer = raw.translate(_SEVEN_BITS)
            self._raw, self._raw_at, self._raw_mark = raw, start, start
            self._counted.stripped += len(data.translate(None, _ASCII))
        position, end = 0, len(buffer)
        while position < end:
            if buffer[position] == LF and not self._long_size:
                if self._pending == STX:
                    self._begin(out)
                if self._open and not self._pending:
                    found = _GROUPS.match(buffer, position)
                    if found is not None:
                        after = found.end()
                        self._lines(buffer[position + 1 : after - 1].split(b"\r\n"), start + position + 1, out)
                        position = after
                        continue
                if end - position <= MAX_GROUP and _CONTROL.search(buffer, position + 1) is None:
                    break  # a group that is coming
            boundary = _CONTROL.search(buffer, position)
            if boundary is None:
                break
            at = boundary.start()
            self._token(buffer[position:at], buffer[at], start + position, out)
            position = at + 1
        if self._long_size or end - position > MAX_GROUP:
            if not self._long_size:
                self._long_head = buffer[position : position + MAX_RAW]
            self._long_size += end - position
            position = end
        self._tail = raw[position:]
        self._position = start + position
        if self._raw:
            self._look_at(self._position)
            self._raw = b""
        return out

    def finish(self) -> list[Group | Damage | Frame]:
        """The line has ended (unplugged, end of a recording): what was under way, as a partial frame. The next byte is of a new beginning."""
        out: list[Group | Damage | Frame] = []
        if self._open:
            text = self._tail.translate(_SEVEN_BITS).lstrip(b"\n")
            if self._pending != STX and text:
                self._lose("truncated", text, len(text), self._position)
            self._end(0, self._position + len(self._tail) - 1, out)
        else:
            self._flush(out)
        self.reset()
        return out

    # ----------------------------------------------------------------------------------------------------- text and boundaries

    def _lines(self, lines: list[bytes], at: int, out: list[Group | Damage | Frame]) -> None:
        """Groups of a frame that stand between LF and CR as they should. ``at``: position of the first one's label."""
        self._flush(out)
        groups, base, cache, labels = self._groups, self._base, self._cache, self._labels
        s2, s1 = self._historic_s2, self._standard_s1
        shaped = True
        for line in lines:
            found = cache.get(line)
            if self._open and len(groups) < MAX_GROUPS - 1:
                if found is not None:
                    group, count = found
                    if group.offset != at - base:
                        group = Group(group.label, group.value, group.horodate, True, group.mode, at - base)
                        cache[line] = (group, count)
                    count.seen += 1
                    groups.append(group)
                    out.append(group)
                    at += len(line) + 2
                    shaped = True
                    continue
                read = _read(line, at - base, s2, s1, labels)
                if read is not None and read.valid and read.label in labels:
                    count = labels[read.label]
                    count.seen += 1
                    if len(cache) >= _MAX_CACHED:
                        cache.clear()
                    cache[line] = (read, count)
                    groups.append(read)
                    out.append(read)
                    at += len(line) + 2
                    shaped = True
                    continue
            shaped = self._line(line, at, out)
            groups, base, s2, s1 = self._groups, self._base, self._historic_s2, self._standard_s1
            at += len(line) + 2
        self._boundary = CR
        self._grouped = shaped

    def _token(self, run: bytes, control: int, at: int, out: list[Group | Damage | Frame]) -> None:
        """A text (it may be empty) and the control character behind it. ``at``: position of the text."""
        size = self._long_size + len(run)
        at -= self._long_size
        if self._long_size:
            run = self._long_head
            self._long_size, self._long_head = 0, b""
        if self._pending:
            self._decide(run, control, at, out)
        if size > MAX_GROUP:
            self._lose("overflow", run, size, at)
            self._grouped = False
        elif size:
            self._grouped = self._text(run, control, at, out)
        if control == LF:
            self._grouped = False
        elif control == STX:
            self._pending, self._pending_at = STX, at + size
        elif control in (ETX, EOT):
            if self._open:
                if self._grouped or (not size and self._boundary in (CR, STX)):
                    self._end(control, at + size, out)
                else:
                    self._pending, self._pending_at = control, at + size
        elif control != CR:
            self._counted.noise += 1
        self._boundary = control

    def _decide(self, run: bytes, control: int, at: int, out: list[Group | Damage | Frame]) -> None:
        """Whether a doubtful STX, ETX or EOT was one, now that it is known what follows it."""
        pending = self._pending
        if pending == STX:
            if not self._open or (control == LF and not run) or run.startswith(_KNOWN) or run[1:].startswith(_KNOWN):
                self._begin(out)
            else:
                self._counted.noise += 1
        elif run or control == LF:
            self._counted.noise += 1
        else:
            self._end(pending, at - 1, out)
        self._pending = 0

    def _text(self, run: bytes, control: int, at: int, out: list[Group | Damage | Frame]) -> bool:
        """A text between two boundaries: is it a group?"""
        before = self._boundary
        if before == LF and control == CR:
            return self._line(run, at, out)
        if before >= 0:  # the very first text of a line may be the end of something
            for first in (0,) if before == LF else (0, 1):
                for last in (0,) if control == CR else (0, 1):
                    piece = run[first : len(run) - last]
                    group = _read(piece, 0, self._historic_s2, self._standard_s1, self._labels)
                    if group is not None and group.valid:
                        self._keep(group, at + first, out)
                        self._tell(Damage("delimiter", group.label, at + first - self._base, run[:MAX_RAW], len(run)), out)
                        return True
        cut = before == LF and control in (LF, STX, ETX, EOT)
        self._lose("truncated" if cut else "noise", run, len(run), at)
        return False

    def _line(self, run: bytes, at: int, out: list[Group | Damage | Frame]) -> bool:
        """A text between LF and CR. Whether it has the shape of a group."""
        group = _read(run, 0, self._historic_s2, self._standard_s1, self._labels)
        if group is None:
            label = _guess(run)
            self._labels.get(label, self._others).malformed += 1
            self._counted.malformed += 1
            if not self._open:
                self._lose("malformed", run, len(run), at)
            else:
                self._flush(out)
                self._counted.noise += len(run)
                self._lost += 1
                self._tell(Damage("malformed", label, at - self._base, run[:MAX_RAW], len(run)), out)
            return False
        if group.valid:
            self._keep(group, at, out)
            return True
        self._labels.get(group.label, self._others).seen += 1
        self._labels.get(group.label, self._others).bad_checksum += 1
        self._counted.bad_checksum += 1
        if not self._open:
            self._lose("checksum", run, len(run), at)
            return False
        s2 = self._historic_s2 if group.mode is Mode.HISTORIC else not self._standard_s1
        self._other_rule += _checksum(run[:-2] if s2 else run[:-1]) == run[-1]
        self._flush(out)
        group = msgspec.structs.replace(group, offset=at - self._base)
        self._groups.append(group)
        out.append(group)
        self._tell(Damage("checksum", group.label, group.offset, run[:MAX_RAW], len(run)), out)
        if len(self._groups) >= MAX_GROUPS:
            self._overflow(at, out)
        return True

    def _keep(self, group: Group, at: int, out: list[Group | Damage | Frame]) -> None:
        """A good group; outside a frame it begins one whose start was missed."""
        if not self._open:
            self._open, self._started, self._base = True, False, at
        self._flush(out)
        group = msgspec.structs.replace(group, offset=at - self._base)
        count = self._labels.get(group.label)
        if count is None:
            count = self._others
            if len(self._labels) < MAX_LABELS:
                count = self._labels[group.label] = LabelCount()
        count.seen += 1
        self._groups.append(group)
        out.append(group)
        if len(self._groups) >= MAX_GROUPS:
            self._overflow(at, out)

    # ----------------------------------------------------------------------------------------------------------------- damages

    def _tell(self, damage: Damage, out: list[Group | Damage | Frame]) -> None:
        out.append(damage)
        if self._open and len(self._damages) < MAX_DAMAGES:
            self._damages.append(damage)

    def _lose(self, reason: Reason, run: bytes, size: int, at: int) -> None:
        """What is nothing is told together with what follows it, as long as nothing good comes: noise must not fill memory."""
        self._counted.noise += size
        noise = self._noise
        if noise is None:
            self._noise = Damage(reason, _guess(run), at - self._base, run[:MAX_RAW], size)
        else:
            raw = noise.raw if len(noise.raw) == MAX_RAW else (noise.raw + run)[:MAX_RAW]
            self._noise = Damage(noise.reason, noise.label, noise.offset, raw, noise.size + size)

    def _flush(self, out: list[Group | Damage | Frame]) -> None:
        if self._noise is not None:
            noise, self._noise = self._noise, None
            self._lost += 1
            self._tell(noise, out)

    def _look_at(self, until: int) -> None:
        """Whether bit 7 was set anywhere up to this position."""
        if self._raw:
            if not self._high and not self._raw[self._raw_mark - self._raw_at : until - self._raw_at].isascii():
                self._high = True
            self._raw_mark = max(until, self._raw_mark)

    # ------------------------------------------------------------------------------------------------------------------ frames

    def _begin(self, out: list[Group | Damage | Frame]) -> None:
        """The pending STX was one."""
        if self._open:
            self._end(0, self._pending_at - 1, out)
        self._flush(out)
        self._pending = 0
        self._open, self._started, self._base = True, True, self._pending_at
        self._groups, self._damages, self._lost, self._other_rule = [], [], 0, 0

    def _end(self, control: int, at: int, out: list[Group | Damage | Frame]) -> None:
        """The frame under way ends with the character at this position: ETX, or EOT, or (0) nothing that ends a frame."""
        self._flush(out)
        if self._groups and control != ETX:
            raw = b"" if control == 0 else bytes((control,))
            self._tell(Damage("delimiter", "", at - self._base, raw, len(raw)), out)
        self._close(at + 1, control == ETX, out)

    def _overflow(self, at: int, out: list[Group | Damage | Frame]) -> None:
        self._tell(Damage("overflow", "", at - self._base), out)
        self._close(at, False, out, overflow=True)

    def _close(self, until: int, ended: bool, out: list[Group | Damage | Frame], overflow: bool = False) -> None:
        self._look_at(until)
        groups, damages, size = self._groups, self._damages, until - self._base
        if groups:
            labels = tuple([group.label for group in groups])
            intact = self._started and ended and not damages
            if intact and (labels == self._whole or labels == self._last):
                glued, partial = 0, False
            else:
                glued = _seam(labels)
                partial = overflow or glued > 0 or self._lacks(groups, damages, labels)
            if intact:
                self._last = labels
                if not partial and not _is_short(labels):
                    self._whole, self._whole_mode = labels, groups[0].mode
            else:
                self._last = ()
            if self._high:
                self._tell(Damage("parity", size=0), out)
            if glued:
                offset = groups[glued].offset
                self._emit(groups[:glued], [one for one in damages if one.offset < offset], True, offset, out)
                groups, damages, size = groups[glued:], [one for one in damages if one.offset >= offset], size - offset
            self._emit(groups, damages, partial, size, out)
            if self._other_rule >= 3:
                self._learn_rule(groups)
        self._open, self._high, self._base = False, False, until
        self._groups, self._damages, self._lost, self._other_rule = [], [], 0, 0

    def _emit(self, groups: list[Group], damages: list[Damage], partial: bool, size: int, out: list[Group | Damage | Frame]) -> None:
        mode = next((group.mode for group in groups if group.valid), groups[0].mode)
        out.append(Frame(mode, tuple(groups), partial, tuple(damages), size))
        self._counted.frames += 1
        self._counted.partial += partial
        self._counted.groups += len(groups)

    def _lacks(self, groups: list[Group], damages: list[Damage], labels: tuple[str, ...]) -> bool:
        """Rules 1 to 5 at the head of this file, without glue and overflow."""
        if not self._started:
            return True
        first = groups[0]
        known = self._whole if self._whole_mode is first.mode else ()
        if first.valid and first.offset <= 3 and first.label not in _FIRST and (not known or first.label != known[0]):
            return True
        if _is_short(labels):
            return "IINST3" not in labels
        count = len(groups) + self._lost
        reached = {*labels, *(damage.label for damage in damages)}
        if known:
            if count < len(known) and (damages or known[-1] not in reached):
                return True
        elif not reached & _LAST[first.mode]:
            return True
        return len(set(labels)) != len(labels) and any(labels.count(label) > max(1, known.count(label)) for label in set(labels))

    def _learn_rule(self, groups: list[Group]) -> None:
        """Most groups of the frame have the checksum of the other rule: so this line speaks it."""
        if self._other_rule <= sum(group.valid for group in groups):
            return
        if groups[0].mode is Mode.HISTORIC:
            self._historic_s2 = not self._historic_s2
        else:
            self._standard_s1 = not self._standard_s1
        self._cache.clear()


def _seam(labels: tuple[str, ...]) -> int:
    """Where in the groups a second frame begins, because the address comes again; 0: nowhere."""
    for position in range(len(labels) - 1, 0, -1):
        if labels[position] in _ADDRESSES and labels[position] in labels[:position]:
            return position
    return 0


def _is_short(labels: tuple[str, ...]) -> bool:
    """A short frame of three-phase historic mode, sent while a phase exceeds the subscribed current."""
    return not _SHORT.isdisjoint(labels) and _IN_SHORT_FRAMES.issuperset(labels)


_SERIAL = re.compile(r"[0-9A-Z]{1,16}")


def identity(frame: Frame) -> str | None:
    """The serial number of the meter, from a good ADSC or ADCO only: a damaged address must not make a meter that does not exist.

    Digits, or capitals (anonymised meters): a lower-case letter is a digit with a bit 6 that the checksum does not see.
    """
    for group in frame.groups:
        if group.label in _ADDRESSES and group.valid and _SERIAL.fullmatch(group.value.strip()):
            return group.value.strip()
    return None


def encode(mode: Mode, groups: Iterable[Group]) -> bytes:
    """A frame as a meter of this mode sends it, checksums made; for simulators and recordings.

    A group that is not ``valid`` gets a wrong checksum. ``Group.mode`` and ``offset`` are not looked at; a horodate exists in standard mode only.
    Raises Unsendable for what no frame can hold: control characters, characters beyond ASCII, a tab, a separator in a label.
    """
    parts = ["\x02"]
    for group in groups:
        text = group.horodate + group.value
        if _LABEL.fullmatch(group.label) is None or not (text.isascii() and text.isprintable()):
            said = f"{group.label!r} {group.horodate!r} {group.value!r}"
            raise Unsendable(f"{said} cannot be a group: expected a label of capitals, digits, + and -, and printable ASCII")
        if mode is Mode.STANDARD:
            body = "\t".join((group.label, group.horodate, group.value) if group.horodate else (group.label, group.value)) + "\t"
            check = _checksum(body.encode("ascii"))
        elif group.horodate:
            raise Unsendable(f"{group.label} has the horodate {group.horodate!r}: historic mode has none")
        else:
            body = f"{group.label} {group.value}"
            check = _checksum(body.encode("ascii"))
            body += " "
        parts.append(f"\n{body}{chr(check if group.valid else check ^ 1)}\r")
    parts.append("\x03")
    return "".join(parts).encode("ascii")


_HORODATE = re.compile(r"([EHeh ])" + r"([0-9]{2})" * 6)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - only ever compared with other local times of which the offset is subtracted by hand
_HOUR = timedelta(hours=1)


def parse_horodate(text: str, zone: ZoneInfo) -> Horodate | None:
    """``SAAMMJJhhmmss`` (Enedis-NOI-CPT_54E) as µs UTC; None if it is none (also 24:00, and days that do not exist).

    The season letter decides, not a table of dates: H is the zone's standard time, E one hour more (UTC+1 and UTC+2 in Paris). In lower case the
    meter's clock is degraded. A space says nothing of the season: the zone decides (of a repeated hour, the first).
    """
    found = _HORODATE.fullmatch(text)
    if found is None:
        return None
    season = found[1]
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[1:])
    try:
        local = datetime(2000 + year, month, day, hour, minute, second)  # noqa: DTZ001
    except ValueError:
        return None
    there = local.replace(tzinfo=zone)
    offset = there.utcoffset() or timedelta()
    if season != " ":
        offset = offset - (there.dst() or timedelta()) + (_HOUR if season in "Ee" else timedelta())
    since = local - _EPOCH - offset
    return Horodate((since.days * 86_400 + since.seconds) * 1_000_000, season in "eh", season == " ")
