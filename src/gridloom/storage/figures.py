"""What is made of samples per step, and how parts of it are put together: the arithmetic of aggregates and roll-ups.

Two tables per series, each with one line per unit of time that has anything in it, in ascending time:

* *values*, of the samples in ``[begin, end)``: count, sum, min, max, first, last, and how many were left out (SUSPECT);
* *increases* (see ``registers``), of the samples in ``(begin, end]``: count of accepted samples, delta, resets, rejected (spikes and SUSPECT),
  and the time of the reading that the first of them counts from.

Both are of the samples of one clock (``TimeSource``), and of numbers: text is seen only by ``told_table``.

Lines can be put together in any grouping (sums add, the first is the first line's first…), so that a roll-up of roll-ups is that of the samples:
exactly for integers, to rounding for sums of floats. Numbers of a table count units of ``10**exponent``, one for the whole table: int64, or Python
integers in an object array where those could overflow, or float64 with exponent 0.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from gridloom.core.errors import StorageCorrupt
from gridloom.core.model import Quality
from gridloom.core.ports import Bucket, Operator
from gridloom.storage import chunks, head, registers
from gridloom.storage.chunks import Columns

Array = npt.NDArray[Any]

_SUSPECT = int(Quality.SUSPECT)
_SAFE = 2**62

VALUES = ("count", "rejected", "sum", "min", "max", "first", "last")
INCREASES = ("count", "rejected", "resets", "since", "delta")
_COUNTS = frozenset(("count", "rejected", "resets", "since"))
_NEVER = 2**62


class Table(msgspec.Struct):
    """Lines by the begin of their unit (µs). ``columns`` by the names of VALUES or INCREASES."""

    begins: Array
    columns: dict[str, Array]
    exponent: int = 0

    def __len__(self) -> int:
        return len(self.begins)


def nothing() -> Table:
    """No lines."""
    return Table(np.empty(0, np.int64), {})


class Numbers(msgspec.Struct):
    """Samples ready for arithmetic: one exponent, one dtype. ``clocks`` only where samples of both clocks are mixed."""

    times: Array
    values: Array
    exponent: int
    suspect: Array | None
    clocks: Array | None = None


def of_clock(columns: Columns, source: int) -> Columns:
    """The samples timed by one clock (an index of ``head.SOURCES``)."""
    if isinstance(columns.sources, int):
        return columns if columns.sources == source else chunks.empty()
    return chunks.take(columns, columns.sources == source)


def _suspects(columns: Columns) -> Array | None:
    if isinstance(columns.qualities, int):
        return np.ones(len(columns), np.bool_) if columns.qualities & _SUSPECT else None
    suspect: Array = (columns.qualities & _SUSPECT) != 0
    return suspect if bool(suspect.any()) else None


def numbers(columns: Columns) -> Numbers:
    """The numbers among the samples under one exponent; floats as soon as one of them is a float."""
    if columns.marks is not None and bool((columns.marks == head.TEXT).any()):
        columns = chunks.take(columns, columns.marks != head.TEXT)
    suspect = _suspects(columns)
    scaled = chunks.scale(columns)
    if scaled is not None:
        return Numbers(columns.times, scaled[0], scaled[1], suspect)
    exponents = chunks.spread(columns.exponents, len(columns), np.int8)
    if columns.marks is not None and bool(columns.marks.any()):
        # Division by a power of ten is exact where multiplication by its inverse is not.
        up = np.maximum(exponents, 0).astype(np.float64)
        down = np.maximum(-exponents.astype(np.int64), 0).astype(np.float64)
        scaled_integers = columns.values.astype(np.float64) * 10.0**up / 10.0**down
        return Numbers(columns.times, np.where(columns.marks == head.FLOAT, columns.values.view(np.float64), scaled_integers), 0, suspect)
    lowest = int(exponents.min())
    whole = np.array([value * 10 ** (exponent - lowest) for value, exponent in zip(columns.values.tolist(), exponents.tolist(), strict=True)], object)
    return Numbers(columns.times, whole, lowest, suspect)


def _summable(values: Array) -> Array:
    """Integers that can be added up without overflow: as they are, or as Python's."""
    if values.dtype == np.int64 and len(values) and max(int(values.max()), -int(values.min())) * len(values) >= _SAFE:
        return values.astype(object)
    return values


def value_table(samples: Numbers, borders: Array, include_suspect: bool = False) -> Table:
    """Values of the samples in ``[borders[0], borders[-1])`` by unit: unit k is from border k to border k + 1."""
    low, high = np.searchsorted(samples.times, (borders[0], borders[-1]))
    times = samples.times[low:high]
    values = samples.values[low:high]
    units = np.searchsorted(borders, times, "right") - 1
    rejected: Array | None = None
    if samples.suspect is not None and not include_suspect:
        suspect = samples.suspect[low:high]
        if bool(suspect.any()):
            rejected = suspect
    return _values(borders, units, values, rejected, samples.exponent)


def _values(borders: Array, units: Array, values: Array, rejected: Array | None, exponent: int) -> Table:
    if len(units) == 0:
        return Table(np.empty(0, np.int64), {name: np.empty(0, np.int64) for name in VALUES}, exponent)
    starts = _starts(units)
    lengths = np.diff(np.append(starts, len(units)))
    if rejected is None:
        summed = _summable(values)
        columns = {
            "count": lengths,
            "rejected": np.zeros(len(starts), np.int64),
            "sum": np.add.reduceat(summed, starts),
            "min": np.minimum.reduceat(values, starts),
            "max": np.maximum.reduceat(values, starts),
            "first": values[starts],
            "last": values[starts + lengths - 1],
        }
        return Table(borders[units[starts]], columns, exponent)
    begins = borders[units[starts]]
    left = np.add.reduceat(rejected.astype(np.int64), starts)
    good = _values(borders, units[~rejected], values[~rejected], None, exponent)
    out = Table(begins, {name: np.zeros(len(begins), good.columns[name].dtype) for name in VALUES}, exponent)
    places = np.searchsorted(begins, good.begins)
    for name in VALUES:
        out.columns[name][places] = good.columns[name]
    out.columns["rejected"] = left
    return out


def _starts(units: Array) -> Array:
    """Where each unit's run begins in sorted units."""
    return np.concatenate((np.zeros(1, np.int64), np.flatnonzero(units[1:] != units[:-1]) + 1))


def increase_table(samples: Numbers, borders: Array, include_suspect: bool = False) -> Table:
    """Increases of the samples in ``(borders[0], borders[-1]]`` by unit.

    ``samples`` must reach back to an accepted sample at or before ``borders[0]`` and the one before that, and on to the
    sample after ``borders[-1]``, as far as there are any: verdicts look at neighbours.
    """
    times, values = samples.times, samples.values
    suspect_times: Array | None = None
    if samples.suspect is not None and not include_suspect:
        suspect_times = times[samples.suspect]
        times, values = times[~samples.suspect], values[~samples.suspect]
    verdicts = registers.judge(values, samples.exponent, samples.clocks)
    low, high = np.searchsorted(times, (borders[0], borders[-1]), "right")
    units = np.searchsorted(borders, times[low:high], "left") - 1
    spikes = verdicts.spikes[low:high].astype(np.int64)
    if len(units):
        starts = _starts(units)
        origins = np.where(verdicts.spikes[low:high], _NEVER, times[verdicts.origins[low:high]])
        table = Table(
            borders[units[starts]],
            {
                "count": np.diff(np.append(starts, len(units))) - np.add.reduceat(spikes, starts),
                "rejected": np.add.reduceat(spikes, starts),
                "resets": np.add.reduceat(verdicts.resets[low:high].astype(np.int64), starts),
                "since": np.minimum.reduceat(origins, starts),
                "delta": np.add.reduceat(_summable(verdicts.increases[low:high]), starts),
            },
            samples.exponent,
        )
    else:
        table = Table(np.empty(0, np.int64), {name: np.empty(0, np.int64) for name in INCREASES}, samples.exponent)
    if suspect_times is None:
        return table
    low, high = np.searchsorted(suspect_times, (borders[0], borders[-1]), "right")
    units = np.searchsorted(borders, suspect_times[low:high], "left") - 1
    if len(units) == 0:
        return table
    starts = _starts(units)
    zeros = np.zeros(len(starts), np.int64)
    left = Table(
        borders[units[starts]],
        {
            "count": zeros,
            "rejected": np.diff(np.append(starts, len(units))),
            "resets": zeros,
            "since": np.full(len(starts), _NEVER),
            "delta": np.zeros(len(starts), table.columns["delta"].dtype),
        },
        samples.exponent,
    )
    return regroup([table, left], borders)


def anchored(samples: Numbers, border: int, include_suspect: bool = False) -> bool:
    """Whether the samples reach back far enough for increases after ``border``: two neighbours before an accepted sample at or before it."""
    times, values = samples.times, samples.values
    if samples.suspect is not None and not include_suspect:
        times, values = times[~samples.suspect], values[~samples.suspect]
    before = int(np.searchsorted(times, border, "right"))
    spikes = registers.judge(values[: before + 1], samples.exponent).spikes[:before]
    accepted = np.flatnonzero(~spikes)
    # The oldest sample at hand looks accepted only because its own neighbour was not fetched: it does not count.
    return bool((accepted >= 1).any())


# ------------------------------------------------------------------------------------------------------ putting together


def _common(parts: Sequence[Table], name: str, exponent: int, floats: bool) -> Array:
    """A column of several tables under one exponent."""
    if name in _COUNTS:
        return np.concatenate([part.columns[name] for part in parts])
    arrays = []
    for part in parts:
        array = part.columns[name]
        if floats:
            if array.dtype != np.float64:
                array = np.array([float(Decimal(value).scaleb(part.exponent)) for value in array.tolist()], np.float64)
        elif part.exponent != exponent and len(array):
            array = array.astype(object) * 10 ** (part.exponent - exponent)
        arrays.append(array)
    joined = np.concatenate(arrays)
    if joined.dtype == object and not floats and all(-_SAFE < value < _SAFE for value in joined.tolist()):
        return joined.astype(np.int64)
    return joined


def regroup(parts: Sequence[Table], borders: Array) -> Table:
    """Lines of several tables (ascending, later parts after earlier ones or in the same units) by other, wider units."""
    full = [part for part in parts if len(part)]
    if not full:
        return parts[0] if parts else Table(np.empty(0, np.int64), {})
    names = tuple(full[0].columns)
    floats = any(part.columns[name].dtype == np.float64 for part in full for name in names)
    exponent = 0 if floats else min(part.exponent for part in full)
    begins = np.concatenate([part.begins for part in full])
    columns = {name: _common(full, name, exponent, floats) for name in names}
    if len(full) > 1:
        order = np.argsort(begins, kind="stable")
        if not bool((order[1:] > order[:-1]).all()):
            begins = begins[order]
            columns = {name: column[order] for name, column in columns.items()}
    units = np.searchsorted(borders, begins, "right") - 1
    starts = _starts(units)
    out: dict[str, Array] = {}
    # A line in which everything was left out has no first, no least: it must not speak for its group.
    empty = columns["count"] == 0 if "sum" in columns else None
    if empty is not None and bool(empty.any()):
        return _regroup_with_gaps(begins, columns, exponent, borders, empty)
    ends = np.append(starts[1:], len(units)) - 1
    for name, column in columns.items():
        if name == "first":
            out[name] = column[starts]
        elif name == "last":
            out[name] = column[ends]
        elif name in ("min", "max", "since"):
            out[name] = (np.maximum if name == "max" else np.minimum).reduceat(column, starts)
        else:
            out[name] = np.add.reduceat(_summable(column), starts)
    return Table(borders[units[starts]], out, exponent)


def _regroup_with_gaps(begins: Array, columns: Mapping[str, Array], exponent: int, borders: Array, empty: Array) -> Table:
    units = np.searchsorted(borders, begins, "right") - 1
    starts = _starts(units)
    where = borders[units[starts]]
    good = Table(begins[~empty], {name: column[~empty] for name, column in columns.items()}, exponent)
    inner = regroup([good], borders) if len(good) else good
    out = Table(where, {name: np.zeros(len(where), column.dtype) for name, column in inner.columns.items()}, exponent)
    places = np.searchsorted(where, inner.begins)
    for name, column in inner.columns.items():
        out.columns[name][places] = column
    out.columns["rejected"] = np.add.reduceat(columns["rejected"], starts)
    return out


def told_table(columns: Columns, borders: Array, include_suspect: bool = False) -> Table:
    """Count, first and last of samples of which some are text. The exponents of first and last stand beside them."""
    columns = chunks.within(columns, int(borders[0]), int(borders[-1]))
    suspect = None if include_suspect else _suspects(columns)
    units = np.searchsorted(borders, columns.times, "right") - 1
    values = chunks.values_of(columns)
    exponents = chunks.spread(columns.exponents, len(columns), np.int8).tolist()
    lines: dict[int, list[Any]] = {}
    for place, unit in enumerate(units.tolist()):
        line = lines.setdefault(unit, [0, 0, None, None, 0, 0])
        if suspect is not None and suspect[place]:
            line[1] += 1
            continue
        if line[0] == 0:
            line[2], line[4] = values[place], exponents[place]
        line[3], line[5] = values[place], exponents[place]
        line[0] += 1
    table = Table(borders[list(lines)] if lines else np.empty(0, np.int64), {})
    for number, name in enumerate(("count", "rejected", "first", "last", "first_exponent", "last_exponent")):
        column = np.empty(len(lines), object)
        column[:] = [line[number] for line in lines.values()]
        table.columns[name] = column
    return table


def pick(device: Table, hub: Table) -> Table:
    """Per unit the line of the device's clock where there is one, else the hub's."""
    if len(hub) == 0:
        return device
    if len(device) == 0:
        return hub
    others = ~np.isin(hub.begins, device.begins)
    rest = Table(hub.begins[others], {name: column[others] for name, column in hub.columns.items()}, hub.exponent)
    if "first_exponent" in device.columns:
        order = np.argsort(np.concatenate((device.begins, rest.begins)))
        joined = {name: np.concatenate((device.columns[name], rest.columns[name]))[order] for name in device.columns}
        return Table(np.concatenate((device.begins, rest.begins))[order], joined)
    return regroup([device, rest], np.append(np.union1d(device.begins, rest.begins), _NEVER))


def mix(device: Numbers, hub: Numbers, borders: Array) -> Numbers:
    """One sequence for a register's increases: per unit ``(begin, end]`` the device's samples where it has any, else the hub's.

    Before the first unit and after the last the samples of the clock that its neighbour is of.
    """
    begin, end = int(borders[0]), int(borders[-1])
    units = [np.searchsorted(borders, one.times, "left") - 1 for one in (device, hub)]
    inside = [(one.times > begin) & (one.times <= end) for one in (device, hub)]
    keep_hub = inside[1] & ~np.isin(units[1], units[0][inside[0]])
    first_hub, last_hub = _outer(device.times[inside[0]], hub.times[keep_hub])
    keep = [inside[0].copy(), keep_hub]
    keep[1 if first_hub else 0] |= (hub if first_hub else device).times <= begin
    keep[1 if last_hub else 0] |= (hub if last_hub else device).times > end
    floats = any(one.values.dtype == np.float64 for one in (device, hub))
    exponent = 0 if floats else min(device.exponent, hub.exponent)
    parts = []
    for one, chosen in zip((device, hub), keep, strict=True):
        values = one.values[chosen]
        if floats and values.dtype != np.float64:
            values = np.array([float(Decimal(value).scaleb(one.exponent)) for value in values.tolist()], np.float64)
        elif one.exponent != exponent:
            values = values.astype(object) * 10 ** (one.exponent - exponent)
        parts.append(values)
    times = np.concatenate([one.times[chosen] for one, chosen in zip((device, hub), keep, strict=True)])
    clocks = np.repeat(np.array([0, 1], np.uint8), [len(parts[0]), len(parts[1])])
    suspect = np.concatenate(
        [
            (np.zeros(len(one.times), np.bool_) if one.suspect is None else one.suspect)[chosen]
            for one, chosen in zip((device, hub), keep, strict=True)
        ]
    )
    order = np.lexsort((clocks, times))
    return Numbers(times[order], np.concatenate(parts)[order], exponent, suspect[order] if bool(suspect.any()) else None, clocks[order])


def _outer(device: Array, hub: Array) -> tuple[bool, bool]:
    """Whether the first, and the last, of the chosen samples is the hub's."""
    if len(device) == 0 or len(hub) == 0:
        return len(device) == 0, len(device) == 0
    return bool(hub[0] < device[0]), bool(hub[-1] > device[-1])


def cut(table: Table, begin: int, end: int) -> Table:
    """The lines with ``begin <= line < end``."""
    low, high = np.searchsorted(table.begins, (begin, end))
    return Table(table.begins[low:high], {name: column[low:high] for name, column in table.columns.items()}, table.exponent)


_COLUMN = {
    Operator.SUM: "sum",
    Operator.AVERAGE: "sum",
    Operator.MINIMUM: "min",
    Operator.MAXIMUM: "max",
    Operator.COUNT: "count",
    Operator.FIRST: "first",
    Operator.LAST: "last",
    Operator.DELTA: "delta",
}


def buckets(table: Table, operator: Operator, borders: Sequence[int]) -> tuple[Bucket, ...]:
    """The answer to a question: one bucket per line that has samples."""
    if len(table) == 0:
        return ()
    ends = dict(itertools.pairwise(borders))
    begins = table.begins.tolist()
    counts = table.columns["count"].tolist()
    rejected = table.columns["rejected"].tolist()
    name = _COLUMN[operator]
    results = table.columns[name].tolist()
    floats = table.columns[name].dtype == np.float64
    exponents = [0 if floats or operator in (Operator.COUNT, Operator.AVERAGE) else table.exponent] * len(begins)
    if name + "_exponent" in table.columns:
        exponents = table.columns[name + "_exponent"].tolist()
    if operator is Operator.DELTA:
        resets, since = table.columns["resets"].tolist(), table.columns["since"].tolist()
        return tuple(
            [
                Bucket(begins[k], ends[begins[k]], results[k], exponents[k], count, since[k], resets[k], rejected[k])
                for k, count in enumerate(counts)
                if count
            ]
        )
    if operator is Operator.AVERAGE:
        results = [_average(total, count, table.exponent, floats) if count else 0.0 for total, count in zip(results, counts, strict=True)]
    return tuple(
        [
            Bucket(begin, ends[begin], result, exponent, count, None, 0, left)
            for begin, result, exponent, count, left in zip(begins, results, exponents, counts, rejected, strict=True)
            if count
        ]
    )


def _average(total: Any, count: int, exponent: int, floats: bool) -> float:
    """Correctly rounded: integers of any size divide exactly before they become a float."""
    if floats:
        return float(total) / count
    whole = int(total)
    return float(whole * 10**exponent / count) if exponent >= 0 else float(whole / (count * 10**-exponent))


# ------------------------------------------------------------------------------------------------- tables as bytes (roll-ups)

_INT, _FLOAT, _BIG, _SAME, _ZERO = range(5)
_TABLE = struct.Struct("<Bb")


def encode_pair(values: Table, increases: Table, unit: int) -> bytes:
    """Both tables of some units as bytes. ``unit``: what all begins are multiples of (µs), 1 if of nothing."""
    parts = [_encode_table(values, VALUES, unit), _encode_table(increases, INCREASES, unit)]
    raw = struct.pack("<I", len(parts[0])) + parts[0] + parts[1]
    packed = chunks.compress(raw)
    return b"\x01" + packed if len(packed) < len(raw) else b"\x00" + raw


def _encode_table(table: Table, names: Sequence[str], unit: int) -> bytes:
    count = len(table)
    out = [struct.pack("<Hb", count, table.exponent)]
    if count == 0:
        return out[0]
    begins = table.begins // unit
    out.append(chunks.pack_integers(begins))
    seen: list[tuple[int, Array]] = []
    for place, name in enumerate(names):
        column = table.columns[name]
        if column.dtype == object and all(-(2**63) <= value < 2**63 for value in column.tolist()):
            column = column.astype(np.int64)
        twin = next((number for number, other in seen if other.dtype == column.dtype and bool((other == column).all())), None)
        if twin is not None:
            out.append(bytes((_SAME, twin)))
            continue
        seen.append((place, column))
        if column.dtype == np.float64:
            out.append(bytes((_FLOAT,)) + column.astype("<f8").tobytes())
        elif column.dtype == object:
            text = msgspec.json.encode([str(value) for value in column.tolist()])
            out.append(bytes((_BIG,)) + struct.pack("<I", len(text)) + text)
        elif not bool(column.any()):
            out.append(bytes((_ZERO,)))
        else:
            out.append(bytes((_INT,)) + chunks.pack_integers(column))
    return b"".join(out)


def decode_pair(body: bytes, unit: int) -> tuple[Table, Table]:
    """The inverse of ``encode_pair``. Raises StorageCorrupt for damaged bytes."""
    try:
        raw = chunks.decompress(body[1:]) if body[0] else body[1:]
        (length,) = struct.unpack_from("<I", raw)
        return _decode_table(raw[4 : 4 + length], VALUES, unit), _decode_table(raw[4 + length :], INCREASES, unit)
    except (struct.error, IndexError, ValueError, msgspec.DecodeError) as error:
        raise StorageCorrupt(f"a roll-up of {len(body)} bytes cannot be read: {error}") from error


def _decode_table(raw: bytes, names: Sequence[str], unit: int) -> Table:
    count, exponent = struct.unpack_from("<Hb", raw)
    place = 3
    if count == 0:
        return Table(np.empty(0, np.int64), {name: np.empty(0, np.int64) for name in names}, exponent)
    begins, place = chunks.unpack_integers(raw, place, count)
    columns: dict[str, Array] = {}
    for name in names:
        code = raw[place]
        place += 1
        if code == _SAME:
            columns[name] = columns[names[raw[place]]]
            place += 1
        elif code == _FLOAT:
            columns[name] = np.frombuffer(raw, "<f8", count, place)
            place += 8 * count
        elif code == _BIG:
            (length,) = struct.unpack_from("<I", raw, place)
            texts = cast(list[str], msgspec.json.decode(raw[place + 4 : place + 4 + length]))
            columns[name] = np.array([int(text) for text in texts], object)
            place += 4 + length
        elif code == _ZERO:
            columns[name] = np.zeros(count, np.int64)
        elif code == _INT:
            columns[name], place = chunks.unpack_integers(raw, place, count)
        else:
            raise ValueError(f"column code {code}")
    return Table(begins * unit, columns, exponent)
