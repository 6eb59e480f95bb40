"""Samples as columns, and chunks of them as bytes: pure functions that every engine shares; an engine only keeps the blobs.

A chunk holds samples of one series in ascending (time, source). Its bytes: a fixed header, constants of the columns that have one value (the usual
case for source, context, quality and the lag of arrival), then the payload, compressed by zstd where that makes it smaller:

* times: the first, the first difference, then differences of differences (all zero for a regular series: no bytes at all);
* values: of an INTEGERS chunk the first, then differences, under one exponent for the whole chunk (values told with different exponents are
  rescaled, which is exact); of a DECIMALS chunk the same, being floats that are exactly those decimals; of a FLOATS chunk the bits, each XORed with
  the one before; of a RAW chunk (integers, floats and text mixed, or integers that do not fit one exponent) bits, exponents and marks as they are,
  and the texts;
* source, context, quality: only where they vary; when it was received: whole seconds after its time, only where that varies.

Integers of a column are zigzag-coded in the fewest bytes that hold all of them, and stored plane by plane (all lowest bytes first…), so
that many chunks are decoded at once with one numpy operation per plane. Times are µs UTC. This module imports numpy and zstandard: engines import it
where they first need it, not at start.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import zstandard

from gridloom.core.errors import StorageCorrupt
from gridloom.core.model import Context, Quality, ReadingType
from gridloom.core.ports import Sample
from gridloom.storage import head

Array = npt.NDArray[Any]

DAY = 86_400_000_000
"""µs in a UTC day."""
MAX_ROWS = 2048
"""A chunk is cut when it has so many samples."""
SPARSE_ROWS = 128
"""A chunk with fewer samples goes on over the end of the UTC day…"""
SPARSE_DAYS = 32
"""…but not for longer than this."""

INTEGERS, FLOATS, RAW, DECIMALS = range(4)

_ZSTD = 1
_SOURCE_HUB = 2
_SOURCE_ARRAY = 4
_CONTEXT_CONSTANT = 8
_CONTEXT_ARRAY = 16
_QUALITY_CONSTANT = 32
_QUALITY_ARRAY = 64
_LAG = 128
_TEXTS = msgspec.msgpack.Decoder(list[str])
_SECOND = 1_000_000
_HEADER = struct.Struct("<BBIqqqbBB")
_POWERS = np.array([1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6])
_per_thread = threading.local()


class Columns(msgspec.Struct):
    """Samples of one series. ``values`` are int64 or, where ``marks`` says so, the bits of a float64 or the place of a text in ``texts``.

    ``marks`` (``head.INTEGER``, ``FLOAT``, ``TEXT``) is None when all are integers. ``received`` is in µs, to the second where it comes from a
    chunk. Of the others a column of one value is that value.
    """

    times: Array
    values: Array
    received: Array
    sources: int | Array = 1
    exponents: int | Array = 0
    marks: Array | None = None
    contexts: int | Array = 0
    qualities: int | Array = 0
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.times)


def empty() -> Columns:
    """No samples."""
    nothing = np.empty(0, np.int64)
    return Columns(nothing, nothing, nothing)


def spread(column: int | Array, count: int, dtype: Any) -> Array:
    """A column as an array, also where it is one value."""
    return np.full(count, column, dtype) if isinstance(column, int) else column


def _take(column: int | Array, places: Any) -> int | Array:
    return column if isinstance(column, int) else cast(Array, column[places])


def take(columns: Columns, places: Any) -> Columns:
    """The samples at these places (a slice, a mask or indexes)."""
    return Columns(
        columns.times[places],
        columns.values[places],
        columns.received[places],
        _take(columns.sources, places),
        _take(columns.exponents, places),
        None if columns.marks is None else columns.marks[places],
        _take(columns.contexts, places),
        _take(columns.qualities, places),
        columns.texts,
    )


def _join(parts: Sequence[int | Array], counts: Sequence[int], dtype: Any) -> int | Array:
    first = parts[0]
    if isinstance(first, int) and all(isinstance(part, int) and part == first for part in parts):
        return first
    return np.concatenate([spread(part, count, dtype) for part, count in zip(parts, counts, strict=True)])


def join(parts: Sequence[Columns]) -> Columns:
    """One after the other, without sorting."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return empty()
    if len(parts) == 1:
        return parts[0]
    counts = [len(part) for part in parts]
    marks = None
    values = [part.values for part in parts]
    texts: tuple[str, ...] = ()
    if any(part.marks is not None for part in parts):
        marks = np.concatenate([np.zeros(len(part), np.uint8) if part.marks is None else part.marks for part in parts])
        for place, part in enumerate(parts):
            if part.texts:
                if texts and part.marks is not None:
                    values[place] = np.where(part.marks == head.TEXT, part.values + len(texts), part.values)
                texts += part.texts
    return Columns(
        np.concatenate([part.times for part in parts]),
        np.concatenate(values),
        np.concatenate([part.received for part in parts]),
        _join([part.sources for part in parts], counts, np.uint8),
        _join([part.exponents for part in parts], counts, np.int8),
        marks,
        _join([part.contexts for part in parts], counts, np.uint8),
        _join([part.qualities for part in parts], counts, np.uint16),
        texts,
    )


def merge(parts: Sequence[Columns]) -> Columns:
    """All samples in ascending (time, source); of equal keys the one of the later part, and in a part the later one, stays."""
    whole = join(parts)
    times = whole.times
    if len(times) < 2 or bool((times[1:] > times[:-1]).all()):
        return whole
    sources = spread(whole.sources, len(times), np.uint8)
    order = np.lexsort((sources, times))  # stable: what was told later comes later
    times = times[order]
    sources = sources[order]
    last = np.empty(len(times), np.bool_)
    last[-1] = True
    last[:-1] = (times[1:] != times[:-1]) | (sources[1:] != sources[:-1])
    return take(whole, order[last])


def within(columns: Columns, begin: int, end: int) -> Columns:
    """Those with ``begin <= time < end`` of sorted columns."""
    low, high = np.searchsorted(columns.times, (begin, end))
    if low == 0 and high == len(columns):
        return columns
    return take(columns, slice(int(low), int(high)))


# ------------------------------------------------------------------------------------------------------------ the codec


def _compressor() -> zstandard.ZstdCompressor:
    try:
        return cast(zstandard.ZstdCompressor, _per_thread.compressor)
    except AttributeError:
        # No checksum in the frame: damage shows as a wrong length, or in the check of the file.
        _per_thread.compressor = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True, write_dict_id=False)
        return cast(zstandard.ZstdCompressor, _per_thread.compressor)


def _decompressor() -> zstandard.ZstdDecompressor:
    try:
        return cast(zstandard.ZstdDecompressor, _per_thread.decompressor)
    except AttributeError:
        _per_thread.decompressor = zstandard.ZstdDecompressor()
        return cast(zstandard.ZstdDecompressor, _per_thread.decompressor)


def _zigzag(signed: Array) -> Array:
    return ((signed << 1) ^ (signed >> 63)).view(np.uint64)


def _unzigzag(coded: Array) -> Array:
    return (coded >> np.uint64(1)).view(np.int64) ^ -(coded & np.uint64(1)).view(np.int64)


def _width(coded: Array) -> int:
    """Bytes that the largest number needs; 0 when all are zero."""
    return (int(coded.max()).bit_length() + 7) // 8 if len(coded) else 0


def _planes(coded: Array, width: int) -> bytes:
    """The lowest ``width`` bytes of each number, all lowest bytes first."""
    if width == 0:
        return b""
    return coded.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()


def scale(columns: Columns) -> tuple[Array, int] | None:
    """Integer values under one exponent, exactly; None when there are floats or they do not fit 64 bits."""
    if columns.marks is not None and bool(columns.marks.any()):
        return None
    exponents = columns.exponents
    if isinstance(exponents, int):
        return columns.values, exponents
    if len(exponents) == 0:
        return columns.values, 0
    lowest = int(exponents.min())
    steps = exponents.astype(np.int64) - lowest
    most = int(steps.max())
    if most == 0:
        return columns.values, lowest
    # A zero counts nothing: its exponent does not matter.
    steps[columns.values == 0] = 0
    most = int(steps.max())
    if most > 18:
        return None
    factors = 10**steps
    limit = (2**63 - 1) // factors
    if bool(((columns.values > limit) | (columns.values < -limit)).any()):
        return None
    return columns.values * factors, lowest


def _decimals(values: Array) -> tuple[Array, int] | None:
    """Floats that are exactly integers over a power of ten: those integers and the exponent (0 to -6). Bit for bit, or None."""
    if not bool((np.abs(values) < 1e9).all()):
        return None
    for digits in range(7):
        whole = np.rint(values * _POWERS[digits]).astype(np.int64)
        if bool(((whole / _POWERS[digits]).view(np.int64) == values.view(np.int64)).all()):
            return whole, -digits
    return None


def encode(columns: Columns) -> bytes:
    """The bytes of a chunk; ``columns`` sorted by (time, source), at least one sample."""
    count = len(columns)
    times = columns.times
    exponent = first_value = value_width = flags = 0
    scaled = scale(columns)
    kind = INTEGERS
    if scaled is None:
        kind = RAW
        if columns.marks is not None and bool((columns.marks == head.FLOAT).all()):
            kind = FLOATS
            scaled = _decimals(columns.values.view(np.float64))
            if scaled is not None:
                kind = DECIMALS
    steps = np.diff(times)
    first_step = int(steps[0]) if count > 1 else 0
    coded = _zigzag(np.diff(steps))
    time_width = _width(coded)
    payload = [_planes(coded, time_width)]
    texts = b""
    if scaled is not None:
        values, exponent = scaled
        first_value = int(values[0])
        coded = _zigzag(np.diff(values))
        value_width = _width(coded)
        payload.append(_planes(coded, value_width))
    elif kind == FLOATS:
        bits = columns.values.view(np.uint64)
        first_value = int(columns.values[0])
        payload.append(_planes(bits[1:] ^ bits[:-1], 8))
    else:
        values, texts = _own_texts(columns)
        marks = np.zeros(count, np.uint8) if columns.marks is None else columns.marks
        payload += [_planes(values.view(np.uint64), 8), spread(columns.exponents, count, np.int8).tobytes(), marks.astype(np.uint8).tobytes()]
    constants = b""
    sources = _one(columns.sources)
    if isinstance(sources, int):
        flags |= _SOURCE_HUB if sources else 0
    else:
        flags |= _SOURCE_ARRAY
        payload.append(sources.astype(np.uint8).tobytes())
    contexts = _one(columns.contexts)
    if not isinstance(contexts, int):
        flags |= _CONTEXT_ARRAY
        payload.append(contexts.astype(np.uint8).tobytes())
    elif contexts:
        flags |= _CONTEXT_CONSTANT
        constants += struct.pack("<B", contexts)
    qualities = _one(columns.qualities)
    if not isinstance(qualities, int):
        flags |= _QUALITY_ARRAY
        payload.append(_planes(qualities.astype(np.uint64), 2))
    elif qualities:
        flags |= _QUALITY_CONSTANT
        constants += struct.pack("<H", qualities)
    lags = columns.received // _SECOND - times // _SECOND
    if bool(lags.any()):
        flags |= _LAG
        coded = _zigzag(np.diff(lags))
        width = _width(coded)
        constants += struct.pack("<qB", int(lags[0]), width)
        payload.append(_planes(coded, width))
    body = b"".join(payload) + texts
    if len(body) > 24:
        packed = _compressor().compress(body)
        if len(packed) < len(body):
            body = packed
            flags |= _ZSTD
    return _HEADER.pack(kind, flags, count, int(times[0]), first_step, first_value, exponent, time_width, value_width) + constants + body


def _own_texts(columns: Columns) -> tuple[Array, bytes]:
    """Values with the places of texts in a table of this chunk's own, and that table."""
    if columns.marks is None or not columns.texts:
        return columns.values, b""
    where = np.flatnonzero(columns.marks == head.TEXT)
    if len(where) == 0:
        return columns.values, b""
    table: dict[str, int] = {}
    values = columns.values.copy()
    for place in where.tolist():
        values[place] = table.setdefault(columns.texts[int(values[place])], len(table))
    return values, msgspec.msgpack.encode(list(table))


def _one(column: int | Array) -> int | Array:
    """A column whose values are all the same as that value."""
    if isinstance(column, int):
        return column
    first = column[0]
    return int(first) if bool((column == first).all()) else column


_MOST_BYTES = 64 * 1024 * 1024
"""No chunk unpacks to more: some thousand samples of at most some dozen bytes, and their texts."""


class _Open(msgspec.Struct):
    """A chunk with its header read and its payload unpacked."""

    kind: int
    flags: int
    count: int
    first_time: int
    first_step: int
    first_value: int
    exponent: int
    time_width: int
    value_width: int
    context: int
    quality: int
    lag: int
    lag_width: int
    payload: bytes
    place: int = 0

    def length(self) -> int:
        """Bytes that the payload has, without texts."""
        count = self.count
        length = self.time_width * max(count - 2, 0)
        if self.kind in (INTEGERS, DECIMALS):
            length += self.value_width * (count - 1)
        elif self.kind == FLOATS:
            length += 8 * (count - 1)
        else:
            length += 10 * count
        if self.flags & _SOURCE_ARRAY:
            length += count
        if self.flags & _CONTEXT_ARRAY:
            length += count
        if self.flags & _QUALITY_ARRAY:
            length += 2 * count
        return length + self.lag_width * (count - 1)


def _open(body: bytes) -> _Open:
    try:
        kind, flags, count, *numbers = _HEADER.unpack_from(body)
        place = _HEADER.size
        context = quality = lag = lag_width = 0
        if flags & _CONTEXT_CONSTANT:
            context = body[place]
            place += 1
        if flags & _QUALITY_CONSTANT:
            quality = int.from_bytes(body[place : place + 2], "little")
            place += 2
        if flags & _LAG:
            lag, lag_width = struct.unpack_from("<qB", body, place)
            place += 9
        payload = body[place:]
        if flags & _ZSTD:
            size = zstandard.frame_content_size(payload)
            if size > _MOST_BYTES:  # a damaged frame may claim exabytes, and they would be asked for at once
                raise StorageCorrupt(f"a chunk of {len(body)} bytes says that it unpacks to {size} bytes, more than any chunk")
            payload = _decompressor().decompress(payload)
        first_time, first_step, first_value, exponent, time_width, value_width = numbers
        opened = _Open(
            kind, flags, count, first_time, first_step, first_value, exponent, time_width, value_width, context, quality, lag, lag_width, payload
        )
    except (struct.error, IndexError, zstandard.ZstdError) as error:
        raise StorageCorrupt(f"a chunk of {len(body)} bytes cannot be read: {error}") from error
    length = opened.length()
    if opened.kind == DECIMALS and not -len(_POWERS) < exponent <= 0:
        raise StorageCorrupt(f"a chunk of decimals has the exponent {exponent}")
    if opened.count == 0 or opened.kind > DECIMALS or (len(payload) < length if opened.kind == RAW else len(payload) != length):
        raise StorageCorrupt(f"a chunk of {opened.count} samples (kind {opened.kind}) should unpack to {length} bytes, not {len(payload)}")
    return opened


def first_time(body: bytes) -> int:
    """When a chunk begins. Raises StorageCorrupt."""
    try:
        return int(_HEADER.unpack_from(body)[3])
    except struct.error as error:
        raise StorageCorrupt(f"a chunk of {len(body)} bytes cannot be read: {error}") from error


def _unplane(parts: Sequence[tuple[bytes, int, int, int]]) -> Array:
    """Numbers of many chunks from their planes: each part is (payload, place, numbers, width)."""
    total = sum([part[2] for part in parts])
    coded = np.zeros(total, np.uint64)
    widest = max([part[3] for part in parts], default=0)
    for plane in range(widest):
        joined = b"".join(
            [
                payload[place + plane * count : place + (plane + 1) * count] if plane < width else bytes(count)
                for payload, place, count, width in parts
            ]
        )
        coded |= np.frombuffer(joined, np.uint8).astype(np.uint64) << np.uint64(8 * plane)
    return coded


def _running(first: Array, steps: Array, counts: Array) -> Array:
    """Per chunk: its first value, then the sums of its steps (``count - 1`` of them); all chunks at once."""
    ends = np.cumsum(counts)
    starts = ends - counts
    whole = np.empty(int(ends[-1]), np.int64)
    inner = np.ones(len(whole), np.bool_)
    inner[starts] = False
    whole[inner] = steps
    # At each start stands what takes the running sum from the end of the chunk before to this chunk's first value.
    whole[starts] = 0
    sums = np.cumsum(whole)  # wraps round like the differences did
    before = sums[starts]
    running: Array = sums + np.repeat(first - before, counts)
    return running


def decode(bodies: Sequence[bytes]) -> Columns:
    """The samples of chunks that follow each other in time, all at once. Raises StorageCorrupt for a damaged one."""
    if not bodies:
        return empty()
    opened = [_open(body) for body in bodies]
    kind = opened[0].kind
    if kind in (INTEGERS, DECIMALS) and all(one.kind == kind for one in opened):
        return _decode_alike(opened)
    # Rare: a series that changes between integers, floats and text.
    return join([_decode_alike([one]) for one in opened])


def _numbers(opened: Sequence[_Open], counts: Sequence[int], widths: Sequence[int]) -> Array:
    """The next column of each chunk, all chunks one after the other; moves each chunk's place behind it."""
    numbers = _unplane([(one.payload, one.place, count, width) for one, count, width in zip(opened, counts, widths, strict=True)])
    for one, count, width in zip(opened, counts, widths, strict=True):
        one.place += count * width
    return numbers


def _decode_alike(opened: Sequence[_Open]) -> Columns:
    sizes = [one.count for one in opened]
    counts = np.array(sizes, np.int64)
    total = int(counts.sum())
    following = [count - 1 for count in sizes]
    # Steps: per chunk the first step, then the running sum of bends; times: the running sum of steps.
    bends = _unzigzag(_numbers(opened, [max(count - 2, 0) for count in sizes], [one.time_width for one in opened]))
    several = [one for one in opened if one.count > 1]
    steps = bends
    if several:
        steps = _running(np.array([one.first_step for one in several], np.int64), bends, np.array([one.count - 1 for one in several], np.int64))
    times = _running(np.array([one.first_time for one in opened], np.int64), steps, counts)
    kind = opened[0].kind
    marks: Array | None = None
    exponents: int | Array = 0
    texts: tuple[str, ...] = ()
    if kind in (INTEGERS, DECIMALS):
        differences = _unzigzag(_numbers(opened, following, [one.value_width for one in opened]))
        values = _running(np.array([one.first_value for one in opened], np.int64), differences, counts)
        exponents = _join([one.exponent for one in opened], sizes, np.int8)
        if kind == DECIMALS:
            values = (values / _POWERS[-spread(exponents, total, np.int8).astype(np.int64)]).view(np.int64)
            exponents = 0
            marks = np.full(total, head.FLOAT, np.uint8)
    elif kind == FLOATS:
        bits = np.empty(total, np.uint64)
        bits[0] = np.int64(opened[0].first_value).view(np.uint64)
        bits[1:] = _numbers(opened, following, [8])
        values = np.bitwise_xor.accumulate(bits).view(np.int64)
        marks = np.full(total, head.FLOAT, np.uint8)
    else:
        values = _numbers(opened, sizes, [8]).view(np.int64)
        exponents = _numbers(opened, sizes, [1]).astype(np.uint8).view(np.int8)
        marks = _numbers(opened, sizes, [1]).astype(np.uint8)
    sources = _column(opened, sizes, _SOURCE_ARRAY, [1 if one.flags & _SOURCE_HUB else 0 for one in opened], np.uint8)
    contexts = _column(opened, sizes, _CONTEXT_ARRAY, [one.context for one in opened], np.uint8)
    qualities = _column(opened, sizes, _QUALITY_ARRAY, [one.quality for one in opened], np.uint16)
    received = times
    if any(one.flags & _LAG for one in opened):
        changes = _unzigzag(_numbers(opened, following, [one.lag_width for one in opened]))
        received = times // _SECOND * _SECOND + _running(np.array([one.lag for one in opened], np.int64), changes, counts) * _SECOND
    if kind == RAW and opened[0].place < len(opened[0].payload):
        try:
            texts = tuple(_TEXTS.decode(opened[0].payload[opened[0].place :]))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageCorrupt(f"the texts of a chunk cannot be read: {error}") from error
    if kind == RAW and marks is not None:
        places = values[marks == head.TEXT]
        if bool((marks > head.TEXT).any()) or bool(((places < 0) | (places >= len(texts))).any()):
            raise StorageCorrupt(f"a chunk of {total} samples names texts that it does not have")
    return Columns(times, values, received, sources, exponents, marks, contexts, qualities, texts)


def _column(opened: Sequence[_Open], sizes: Sequence[int], flag: int, constants: Sequence[int], dtype: Any) -> int | Array:
    if not any(one.flags & flag for one in opened):
        return _join(constants, sizes, dtype)
    width = np.dtype(dtype).itemsize
    parts: list[int | Array] = []
    for one, size, constant in zip(opened, sizes, constants, strict=True):
        parts.append(_numbers([one], [size], [width]).astype(dtype) if one.flags & flag else constant)
    return _join(parts, sizes, dtype)


def compress(raw: bytes) -> bytes:
    """zstd, with the content's size in the frame."""
    return _compressor().compress(raw)


def decompress(packed: bytes) -> bytes:
    """The inverse. Raises ValueError for damaged bytes."""
    try:
        return _decompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error


def pack_integers(numbers: Array) -> bytes:
    """An int64 column: first value, width, planes of zigzag differences. At least one number."""
    coded = _zigzag(np.diff(numbers.astype(np.int64, copy=False)))
    width = _width(coded)
    return struct.pack("<qB", int(numbers[0]), width) + _planes(coded, width)


def unpack_integers(raw: bytes, place: int, count: int) -> tuple[Array, int]:
    """The inverse, from ``raw[place:]``: (numbers, the place behind them). Raises ValueError when there are too few bytes."""
    first, width = struct.unpack_from("<qB", raw, place)
    place += 9
    end = place + width * (count - 1)
    if end > len(raw):
        raise ValueError(f"a column of {count} numbers ends at byte {end} of {len(raw)}")
    numbers = np.empty(count, np.int64)
    numbers[0] = first
    numbers[1:] = _unzigzag(_unplane([(raw, place, count - 1, width)]))
    return np.cumsum(numbers), end


# ------------------------------------------------------------------------------------------------------ cutting and rows


def cuts(times: Array) -> list[int]:
    """Where sorted samples are cut into chunks: the indexes at which each chunk ends.

    A chunk ends at the end of its UTC day, or at MAX_ROWS; one with fewer than SPARSE_ROWS samples goes on over the end of the
    day for up to SPARSE_DAYS. Two samples of one time are never parted.
    """
    count = len(times)
    days = times // DAY
    edges = [*(np.flatnonzero(days[1:] != days[:-1]) + 1).tolist(), count]
    ends: list[int] = []
    start = 0
    for edge in edges:
        while edge - start > MAX_ROWS:
            start += MAX_ROWS
            while start < edge and times[start] == times[start - 1]:
                start += 1
            ends.append(start)
        if edge == start:
            continue
        enough = edge - start >= SPARSE_ROWS
        if edge == count or enough or int(days[edge]) - int(days[start]) >= SPARSE_DAYS:
            ends.append(edge)
            start = edge
    return ends


def closed(t_min: int, t_max: int, count: int, time: int) -> bool:
    """Whether a sample at ``time``, after the chunk's last, begins a new chunk."""
    if count >= MAX_ROWS:
        return True
    if time // DAY == t_max // DAY and t_max // DAY == t_min // DAY:
        return False
    return count >= SPARSE_ROWS or time // DAY - t_min // DAY >= SPARSE_DAYS


def rows_to_columns(count: int, rows: Sequence[tuple[int, int, int, bytes]], wanted: Sequence[int]) -> list[Columns]:
    """The columns ``wanted`` (places in the shape of ``count`` readings) of head rows (time, source, received, body), in the order of the rows."""
    times = np.array([row[0] for row in rows], np.int64)
    received = np.array([row[2] for row in rows], np.int64)
    sources: int | Array = _one(np.array([row[1] for row in rows], np.uint8))
    plain = 1 + 8 * count
    bodies = [row[3] for row in rows]
    whole = b"".join([body[1:plain] for body in bodies])
    if len(whole) != 8 * count * len(rows):
        raise StorageCorrupt(f"head rows of {count} readings have the wrong length")
    values = np.frombuffer(whole, "<i8").reshape(len(rows), count)
    flags = [body[0] for body in bodies]
    if not any(flags):
        return [Columns(times, np.ascontiguousarray(values[:, place]), received, sources) for place in wanted]
    # Rows with the same flags lie alike: read them together.
    exponents = np.zeros((len(rows), count), np.int8)
    marks = np.zeros((len(rows), count), np.uint8)
    contexts = np.zeros((len(rows), count), np.uint8)
    qualities = np.zeros((len(rows), count), np.uint16)
    texts: list[str] = []
    for flag in set(flags):
        if not flag:
            continue
        chosen = [index for index, one in enumerate(flags) if one == flag]
        width = count * (bool(flag & head.EXPONENTS) + bool(flag & head.MARKS) + bool(flag & head.CONTEXTS) + 2 * bool(flag & head.QUALITIES))
        rest = b"".join([bodies[index][plain : plain + width] for index in chosen])
        if len(rest) != width * len(chosen):
            raise StorageCorrupt(f"head rows of {count} readings have the wrong length")
        table = np.frombuffer(rest, np.uint8).reshape(len(chosen), width)
        place = 0
        if flag & head.EXPONENTS:
            exponents[chosen] = table[:, place : place + count].view(np.int8)
            place += count
        if flag & head.MARKS:
            marks[chosen] = table[:, place : place + count]
            place += count
            if bool((marks[chosen] == head.TEXT).any()):
                values = values.copy()
                for index in chosen:
                    own = head.texts_of(count, bodies[index])
                    values[index, marks[index] == head.TEXT] += len(texts)
                    texts += own
        if flag & head.CONTEXTS:
            contexts[chosen] = table[:, place : place + count]
            place += count
        if flag & head.QUALITIES:
            pairs = table[:, place : place + 2 * count].astype(np.uint16)
            qualities[chosen] = pairs[:, 0::2] | (pairs[:, 1::2] << 8)
    shared = tuple(texts)
    return [
        Columns(
            times,
            np.ascontiguousarray(values[:, place]),
            received,
            sources,
            _one(exponents[:, place]),
            np.ascontiguousarray(marks[:, place]) if bool(marks[:, place].any()) else None,
            _one(contexts[:, place]),
            _one(qualities[:, place]),
            shared if bool((marks[:, place] == head.TEXT).any()) else (),
        )
        for place in wanted
    ]


_CONTEXTS: tuple[Context, ...] = head.CONTEXT_NUMBERS


def values_of(columns: Columns) -> list[Any]:
    """The values as they were told: int, float or str."""
    values: list[Any] = columns.values.tolist()
    if columns.marks is None:
        return values
    floats = columns.values.view(np.float64).tolist()
    texts = columns.texts
    return [
        value if mark == head.INTEGER else number if mark == head.FLOAT else texts[value]
        for value, number, mark in zip(values, floats, columns.marks.tolist(), strict=True)
    ]


def samples(columns: Columns) -> list[Sample]:
    """As the port speaks of them."""
    count = len(columns)
    sources = [head.SOURCES[one] for one in spread(columns.sources, count, np.uint8).tolist()]
    exponents = spread(columns.exponents, count, np.int8).tolist()
    contexts = [_CONTEXTS[one] for one in spread(columns.contexts, count, np.uint8).tolist()]
    qualities = [Quality(one) for one in spread(columns.qualities, count, np.uint16).tolist()]
    return list(map(Sample, columns.times.tolist(), columns.received.tolist(), sources, values_of(columns), exponents, contexts, qualities))


def place_in_shape(types: Sequence[ReadingType], wanted: ReadingType) -> list[int]:
    """Where a type stands in a shape: no place, one, or (a device that repeats itself) several."""
    return [index for index, one in enumerate(types) if one == wanted]
