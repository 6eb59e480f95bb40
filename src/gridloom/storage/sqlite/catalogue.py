"""What the engine knows by heart: numbers of devices, shapes and series, and the newest row of each device and shape.

Only the writer's thread adds numbers; they are handed out at once and written with the next transaction that commits, so that a failed
one loses nothing. The newest rows are read from every thread under one lock.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from gridloom.core.errors import FieldFault, InvalidInput, StorageCorrupt
from gridloom.core.model import MeterReading, Phase, ReadingType
from gridloom.storage import head

Newest = tuple[int, int, int, bytes]
"""(time, source, received, body) of a head row."""

_BY_IDENTITY = 4096
_MOST_SHAPES = 64
_AHEAD = 60_000_000
"""µs that a device's clock may be ahead of ours before its times are not believed."""


def moment(row: Newest) -> tuple[int, int]:
    """What makes a row newer than another: its time, then when it was received.

    The time of a clock that runs ahead is not believed: such a row counts as a minute older than its arrival, so that it never hides a good
    one, and yet is seen when no good ones come any more.
    """
    time, _, received, _ = row
    return (time if time <= received + _AHEAD else received - _AHEAD, received)


def newer(row: Newest, old: Newest) -> bool:
    """Whether a row told later takes the place of ``old``. The usual case (both believed, both later) is decided first."""
    time, _, received, _ = row
    return (old[0] <= time <= received + _AHEAD and received >= old[2]) or moment(row) >= moment(old)


class DeviceRecord(msgspec.Struct, gc=False):
    """A device of the store: its number and the shapes whose series exist."""

    no: int
    id: str
    shapes: set[int]


Kept = tuple[DeviceRecord, int, Newest, bytes | None]
"""A committed row: its device, its shape, itself, and the native message (msgpack)."""


class NewestRows(msgspec.Struct):
    """The newest row per shape of one device; ``loaded``: what earlier runs left is in it too."""

    shapes: dict[int, Newest] = {}
    loaded: bool = False


class Catalogue:
    """Numbers in memory, loaded device by device as they are needed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.newest: dict[str, NewestRows] = {}
        self.everything = False
        self.unsaved: list[tuple[str, tuple[Any, ...]]] = []
        self._devices: dict[str, DeviceRecord] = {}
        self._shapes: dict[tuple[ReadingType, ...], int] = {}
        self._types: dict[int, tuple[ReadingType, ...]] = {}
        self._series: dict[int, dict[ReadingType, int]] = {}
        # Links give the same ReadingType objects again and again: their identities find the shape without hashing every field.
        self._identities: dict[tuple[int, ...], tuple[tuple[ReadingType, ...], int]] = {}
        self._next = {"device": 1, "shape": 1, "series": 1}

    def load(self, connection: sqlite3.Connection) -> None:
        """Where numbering goes on."""
        for table in self._next:
            self._next[table] = int(connection.execute(f"SELECT coalesce(max(no), 0) + 1 FROM {table}").fetchone()[0])  # noqa: S608 - our own names

    # -------------------------------------------------------------------------------------------- the writer's thread

    def place(self, connection: sqlite3.Connection, reading: MeterReading) -> tuple[DeviceRecord, int]:
        """The device and the number of the shape of a reading, made where they are new."""
        device = self._devices.get(reading.device)
        if device is None:
            device = self._device(connection, reading.device)
        identity = tuple([id(one.type) for one in reading.readings])
        known = self._identities.get(identity)
        if known is not None:
            shape_no = known[1]
        else:
            shape = tuple([one.type for one in reading.readings])
            shape_no = self._shape(connection, shape)
            if len(self._identities) >= _BY_IDENTITY:
                self._identities.clear()
            self._identities[identity] = (shape, shape_no)  # the tuple keeps the objects alive, so that an identity stays theirs
        if shape_no not in device.shapes:
            self._make_series(connection, device, [one.type for one in reading.readings])
            device.shapes.add(shape_no)
        return device, shape_no

    def _number(self, table: str) -> int:
        number = self._next[table]
        self._next[table] = number + 1
        return number

    def _device(self, connection: sqlite3.Connection, name: str) -> DeviceRecord:
        try:
            row = connection.execute("SELECT no FROM device WHERE id = ?", (name,)).fetchone()
        except UnicodeEncodeError:
            raise InvalidInput(f"{name!r}: $.device: expected Unicode text", (FieldFault("$.device", "expected Unicode text"),)) from None
        if row is None:
            device = DeviceRecord(self._number("device"), name, set())
            self.unsaved.append(("INSERT INTO device (no, id) VALUES (?,?)", (device.no, name)))
        else:
            device = DeviceRecord(int(row[0]), name, set())
        self._devices[name] = device
        return device

    def _shape(self, connection: sqlite3.Connection, types: tuple[ReadingType, ...]) -> int:
        number = self._shapes.get(types)
        if number is None:
            try:
                body = head.encode_shape(types)
            except UnicodeEncodeError:
                raise InvalidInput("$.readings: expected types in Unicode text", (FieldFault("$.readings", "expected Unicode text"),)) from None
            row = connection.execute("SELECT no FROM shape WHERE types = ?", (body,)).fetchone()
            if row is None:
                number = self._number("shape")
                self.unsaved.append(("INSERT INTO shape VALUES (?,?)", (number, body)))
            else:
                number = int(row[0])
            self._shapes[types] = number
            self._types[number] = types
        return number

    def _make_series(self, connection: sqlite3.Connection, device: DeviceRecord, types: Sequence[ReadingType]) -> None:
        existing = self._series.get(device.no)
        if existing is None:
            existing = load_series(connection, device.no)
            self._series[device.no] = existing
        for one in types:
            if one not in existing:
                number = existing[one] = self._number("series")
                self.unsaved.append(
                    (
                        "INSERT INTO series (no, device_no, measurand, unit, phase, tariff, location) VALUES (?,?,?,?,?,?,?)",
                        (number, device.no, one.measurand, one.unit, one.phase, one.tariff, one.location),
                    )
                )

    def save(self, connection: sqlite3.Connection) -> None:
        """Write new numbers; part of the writer's transaction."""
        for statement, values in self.unsaved:
            connection.execute(statement, values)

    def saved(self) -> None:
        """The transaction of ``save`` has been committed."""
        self.unsaved.clear()

    def remember(self, kept: Sequence[Kept]) -> None:
        """Rows that have just been committed may be the newest of their device and shape."""
        with self.lock:
            newest = self.newest
            for device, shape_no, row, _ in kept:
                entry = newest.get(device.id)
                if entry is None:
                    entry = newest[device.id] = NewestRows()
                old = entry.shapes.get(shape_no)
                if old is None or newer(row, old):
                    entry.shapes[shape_no] = row
                    if len(entry.shapes) > _MOST_SHAPES:
                        self._prune(entry)

    def _prune(self, entry: NewestRows) -> None:
        """Forget rows that say nothing which a newer one does not say: a device may speak in ever new combinations of types."""
        seen: set[ReadingType] = set()
        for shape_no, _ in sorted(entry.shapes.items(), key=lambda one: moment(one[1]), reverse=True):
            types = self._types.get(shape_no)
            if types is not None and seen.issuperset(types):
                del entry.shapes[shape_no]
            else:
                seen.update(types or ())

    # ---------------------------------------------------------------------------------------------------- any thread

    def merge_newest(self, device: str, rows: dict[int, Newest]) -> NewestRows:
        """What a reader found for a device; what was committed meanwhile is newer."""
        with self.lock:
            entry = self.newest.get(device)
            if entry is None:
                entry = self.newest[device] = NewestRows()
            for shape_no, row in rows.items():
                old = entry.shapes.get(shape_no)
                if old is None or moment(row) > moment(old):
                    entry.shapes[shape_no] = row
            entry.loaded = True
            return entry

    def newest_rows(self, device: str) -> tuple[bool, list[tuple[int, Newest]]]:
        """(whether all of it is in memory, the rows)."""
        with self.lock:
            entry = self.newest.get(device)
            if entry is None:
                return self.everything, []
            return entry.loaded or self.everything, list(entry.shapes.items())

    def devices(self) -> list[str]:
        """The devices whose newest rows are in memory."""
        with self.lock:
            return sorted(self.newest)

    def types(self, connection: sqlite3.Connection | None, shape_no: int) -> tuple[ReadingType, ...] | None:
        """The types of a shape; None when it is not in memory and no connection was given."""
        types = self._types.get(shape_no)
        if types is None and connection is not None:
            row = connection.execute("SELECT types FROM shape WHERE no = ?", (shape_no,)).fetchone()
            if row is None:
                raise StorageCorrupt(f"shape {shape_no} is missing from the store")
            types = head.decode_shape(row[0])
            self._types[shape_no] = types
        return types


def load_series(connection: sqlite3.Connection, device_no: int) -> dict[ReadingType, int]:
    """The series of a device by type."""
    return {
        ReadingType(measurand, unit, None if phase is None else Phase(phase), tariff, location): number
        for number, measurand, unit, phase, tariff, location in connection.execute(
            "SELECT no, measurand, unit, phase, tariff, location FROM series WHERE device_no = ?", (device_no,)
        )
    }
