"""The head: one compact row per MeterReading, in arrival order, until compaction turns it into chunks.

A *shape* is the tuple of ReadingTypes of a MeterReading; it is interned by the engine, so that a row holds only numbers.
Row body: one byte of flags, then for n readings n values of 8 bytes (int64, the bits of a float64, or which of the row's texts), then
only what is not default: n exponents (int8), n marks of what the values are (u8: INTEGER, FLOAT or TEXT), n contexts (u8), n qualities (u16), and
the texts (msgpack array). Little-endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from gridloom.core.errors import FieldFault, InvalidInput, StorageCorrupt
from gridloom.core.model import Context, MeterReading, Quality, Reading, ReadingType, TimeSource

EXPONENTS = 1
MARKS = 2
CONTEXTS = 4
QUALITIES = 8

INTEGER, FLOAT, TEXT = range(3)
_KINDS = "qdq"

SOURCES: tuple[TimeSource, ...] = (TimeSource.DEVICE, TimeSource.HUB)
"""A time's source by its number in the store: fixed for ever, as is the order of CONTEXT_NUMBERS."""

CONTEXT_NUMBERS: tuple[Context, ...] = (
    Context.PERIODIC,
    Context.CLOCK,
    Context.TRIGGER,
    Context.BEGIN,
    Context.END,
    Context.INTERRUPTION_BEGIN,
    Context.INTERRUPTION_END,
    Context.OTHER,
)
_LONGEST_TEXT = 4096
_CONTEXT_NUMBER = {context: number for number, context in enumerate(CONTEXT_NUMBERS)}
_SHAPE_DECODER = msgspec.msgpack.Decoder(tuple[ReadingType, ...])
_TEXTS_DECODER = msgspec.msgpack.Decoder(list[str])
LAST_TIME = 253_370_764_800_000_000
"""µs of 9999-01-01T00:00:00Z: times are below it, so that calendars can be asked about them."""


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A MeterReading as the head keeps it; ``source`` is an index of SOURCES."""

    seq: int
    device_no: int
    shape_no: int
    time: int
    source: int
    received: int
    body: bytes


@lru_cache(maxsize=1024)
def _packer(kinds: str) -> Callable[..., bytes]:
    return struct.Struct("<B" + kinds).pack


_single = struct.Struct("<Bq").pack


@lru_cache(maxsize=256)
def _ints(count: int) -> Callable[..., bytes]:
    return struct.Struct(f"<B{count}q").pack


def encode(reading: MeterReading) -> bytes:
    """The body of the head row. Raises InvalidInput naming every reading that cannot be kept.

    That is an integer outside int64, a float that is not finite, text that is not Unicode or longer than 4096 characters, an exponent outside
    -100..100, a time before 1970 or after 9998.
    """
    if not (0 <= reading.time < LAST_TIME and 0 <= reading.received < LAST_TIME):
        raise _fault(reading)
    readings = reading.readings
    count = len(readings)
    if count == 1:
        one = readings[0]
        if type(one.value) is int and one.exponent == 0 and one.context is Context.PERIODIC and one.quality is Quality.GOOD:
            try:
                return _single(0, one.value)
            except struct.error:
                raise _fault(reading) from None
    values = [r.value for r in readings]
    exponents = [r.exponent for r in readings]
    contexts = [r.context for r in readings]
    qualities = [r.quality for r in readings]
    flags = 0
    tail = b""
    if exponents.count(0) != count:
        flags |= EXPONENTS
        if not all(-100 <= exponent <= 100 for exponent in exponents):
            raise _fault(reading)
        tail = struct.pack(f"<{count}b", *exponents)
    texts = b""
    try:
        head = _ints(count)(flags, *values)
    except struct.error:
        flags |= MARKS
        head, marks, texts = _mixed(reading, values)
        tail += marks
    if contexts.count(Context.PERIODIC) != count:
        flags |= CONTEXTS
        tail += bytes([_CONTEXT_NUMBER[context] for context in contexts])
    if qualities.count(Quality.GOOD) != count:
        flags |= QUALITIES
        tail += struct.pack(f"<{count}H", *qualities)
    if flags:
        return bytes((flags,)) + head[1:] + tail + texts
    return head


def _mixed(reading: MeterReading, values: Sequence[int | float | str]) -> tuple[bytes, bytes, bytes]:
    """Values that are not all integers: (a byte of flags and the values, the marks, the texts)."""
    marks = bytes([FLOAT if isinstance(value, float) else TEXT if isinstance(value, str) else INTEGER for value in values])
    texts: list[str] = []
    numbers: list[int | float] = []
    for value in values:
        if isinstance(value, str):
            numbers.append(len(texts))
            texts.append(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise _fault(reading)
        else:
            numbers.append(value)
    if any(len(text) > _LONGEST_TEXT for text in texts):
        raise _fault(reading)
    try:
        return (
            _packer("".join([_KINDS[mark] for mark in marks]))(0, *numbers),
            marks,
            msgspec.msgpack.encode(texts) if texts else b"",
        )
    except (struct.error, UnicodeEncodeError):
        raise _fault(reading) from None


def _fault(reading: MeterReading) -> InvalidInput:
    """Name everything of the MeterReading that cannot be kept."""
    faults = []
    for name, time in (("time", reading.time), ("received", reading.received)):
        if not 0 <= time < LAST_TIME:
            faults.append(FieldFault(f"$.{name}", f"expected µs from 0 to {LAST_TIME - 1}, got {time}"))
    for index, one in enumerate(reading.readings):
        value = one.value
        if isinstance(value, float):
            if not math.isfinite(value):
                faults.append(FieldFault(f"$.readings[{index}].value", f"expected a finite number, got {value}"))
        elif isinstance(value, str):
            if len(value) > _LONGEST_TEXT or not _is_unicode(value):
                faults.append(FieldFault(f"$.readings[{index}].value", f"expected at most {_LONGEST_TEXT} characters of Unicode, got {len(value)}"))
        elif not -(2**63) <= value < 2**63:
            faults.append(FieldFault(f"$.readings[{index}].value", f"expected an integer of 64 bits, got {value}"))
        if not -100 <= one.exponent <= 100:
            faults.append(FieldFault(f"$.readings[{index}].exponent", f"expected -100..100, got {one.exponent}"))
    if not faults:
        faults.append(FieldFault("$.readings", "expected integers, finite floats or text"))
    return InvalidInput(f"{reading.device}: {faults[0].path}: {faults[0].reason}", tuple(faults))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode(types: Sequence[ReadingType], body: bytes) -> tuple[Reading, ...]:
    """The readings of a row, as they were told. Raises StorageCorrupt when the body does not fit the shape."""
    count = len(types)
    try:
        flags = body[0]
        place = 1 + 8 * count
        exponents: Sequence[int] | None = None
        values: Sequence[int | float | str]
        if flags & EXPONENTS:
            exponents = struct.unpack_from(f"<{count}b", body, place)
            place += count
        marks = b""
        if flags & MARKS:
            marks = body[place : place + count]
            place += count
            values = struct.unpack_from("<" + "".join([_KINDS[mark] for mark in marks]), body, 1)
        else:
            values = struct.unpack_from(f"<{count}q", body, 1)
        contexts: Sequence[int] | None = None
        if flags & CONTEXTS:
            contexts = body[place : place + count]
            place += count
        qualities: Sequence[int] | None = None
        if flags & QUALITIES:
            qualities = struct.unpack_from(f"<{count}H", body, place)
            place += 2 * count
        if TEXT in marks:
            texts = _TEXTS_DECODER.decode(body[place:])
            place = len(body)
            values = [texts[int(value)] if mark == TEXT else value for value, mark in zip(values, marks, strict=True)]
        if place != len(body):
            raise ValueError(f"expected {place} bytes, got {len(body)}")
        return tuple(
            [
                Reading(
                    types[i],
                    values[i],
                    exponents[i] if exponents is not None else 0,
                    CONTEXT_NUMBERS[contexts[i]] if contexts is not None else Context.PERIODIC,
                    Quality(qualities[i]) if qualities is not None else Quality.GOOD,
                )
                for i in range(count)
            ]
        )
    except (struct.error, IndexError, ValueError, msgspec.MsgspecError) as error:
        raise StorageCorrupt(f"a head row of {count} readings cannot be read: {error}") from error


def texts_of(count: int, body: bytes) -> list[str]:
    """The texts of a row that has MARKS; empty when none of its values is text."""
    flags = body[0]
    place = 1 + 8 * count + (count if flags & EXPONENTS else 0)
    marks = body[place : place + count]
    if TEXT not in marks:
        return []
    place += count + (count if flags & CONTEXTS else 0) + (2 * count if flags & QUALITIES else 0)
    return _TEXTS_DECODER.decode(body[place:])


def encode_shape(types: Sequence[ReadingType]) -> bytes:
    """The types of a shape as msgpack, to be kept once."""
    return msgspec.msgpack.encode(tuple(types))


def decode_shape(body: bytes) -> tuple[ReadingType, ...]:
    """The inverse of ``encode_shape``. Raises msgspec.DecodeError for a damaged one."""
    return _SHAPE_DECODER.decode(body)


def meter_reading(device: str, types: Sequence[ReadingType], row: Row) -> MeterReading:
    """The MeterReading of a row, without its native message."""
    return MeterReading(device, row.time, row.received, decode(types, row.body), SOURCES[row.source])
