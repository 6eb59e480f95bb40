"""``ports.Samples`` on SQLite. numpy is imported by the first question that needs it, in a reader's thread, not at start."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence

from gridloom.core.errors import FieldFault, InvalidInput, NotFound
from gridloom.core.model import MeterReading, ReadingType
from gridloom.core.ports import AggregateQuery, AggregateRow, LatestValue, SamplePage, Series, SeriesFilter
from gridloom.storage import head
from gridloom.storage.sqlite.catalogue import Catalogue, Newest, moment
from gridloom.storage.sqlite.cursors import Cursors
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.readers import Readers
from gridloom.storage.sqlite.writer import Writer

_FEW_DEVICES = 16
"""Up to so many devices are answered on the event loop itself."""


class SqliteSamples:
    """Readings of devices."""

    def __init__(self, writer: Writer, readers: Readers, catalogue: Catalogue, heads: Heads, cursors: Cursors, zone: str) -> None:
        self._writer = writer
        self._readers = readers
        self._catalogue = catalogue
        self._heads = heads
        self._cursors = cursors
        self._zone = zone

    async def append(self, batch: Sequence[MeterReading]) -> tuple[str, ...]:
        """See ``ports.Samples.append``. Raises InvalidInput for a value that cannot be kept: then nothing of the batch is."""
        if not batch:
            return ()
        last = await self._writer.append(batch)
        text = self._cursors.text
        return tuple([text(number) for number in range(last - len(batch) + 1, last + 1)])

    async def series(self, filter: SeriesFilter) -> Sequence[Series]:
        """See ``ports.Samples.series``."""
        return await self._readers.run(_series, self._catalogue, self._heads, filter)

    async def read(
        self, series: int, begin: int, end: int, *, limit: int = 10_000, cursor: str | None = None, descending: bool = False
    ) -> SamplePage:
        """See ``ports.Samples.read``. Raises NotFound for an unknown series, InvalidInput for a limit below 1 or a cursor that is none."""
        if limit < 1:
            raise InvalidInput(f"$.limit: expected at least 1, got {limit}", (FieldFault("$.limit", f"expected at least 1, got {limit}"),))
        return await self._readers.run(_read, self._catalogue, self._heads, series, begin, end, limit, cursor, descending)

    async def aggregate(self, query: AggregateQuery) -> Sequence[AggregateRow]:
        """See ``ports.Samples.aggregate``; a series without an answer has no row. Raises InvalidInput for a wrong zone or interval."""
        return await self._readers.run(_aggregate, self._catalogue, self._heads, query, self._zone)

    async def latest(self, filter: SeriesFilter) -> Sequence[LatestValue]:
        """See ``ports.Samples.latest``. From memory; what earlier runs left is read from disk the first time it is asked for."""
        wanted = filter.devices
        catalogue = self._catalogue
        if wanted is None or len(wanted) > _FEW_DEVICES:
            return await self._readers.run(_all_latest, catalogue, self._heads, filter)
        rows: list[tuple[str, list[tuple[int, Newest]]]] = []
        for device in sorted(set(wanted)):
            loaded, newest = catalogue.newest_rows(device)
            if not loaded:
                await self._readers.run(_load_newest, catalogue, self._heads, device)
                _, newest = catalogue.newest_rows(device)
            rows.append((device, newest))
        if any(catalogue.types(None, shape_no) is None for _, newest in rows for shape_no, _ in newest):
            await self._readers.run(_load_shapes, catalogue, [shape_no for _, newest in rows for shape_no, _ in newest])
        return [value for device, newest in rows for value in _latest_values(catalogue, filter, device, newest)]

    async def native(self, device: str) -> bytes | None:
        """See ``ports.Samples.native``."""
        return await self._readers.run(_native, device)

    async def since(self, cursor: str, *, limit: int = 1_000) -> AsyncIterator[tuple[str, MeterReading]]:
        """See ``ports.Samples.since``: at most ``limit`` in all. The empty cursor stands before the oldest that is kept.

        Raises InvalidInput for a cursor that is none, NotFound for one too old or of another store.
        """
        after = None if cursor == "" else self._cursors.number(cursor)
        for seq, reading in await self._readers.run(_since, self._catalogue, after, limit):
            yield self._cursors.text(seq), reading


def _series(connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads, filter: SeriesFilter) -> list[Series]:
    from gridloom.storage.sqlite.reading import Snapshot

    snapshot = Snapshot(connection, catalogue, heads)
    return [series for series in map(snapshot.series, snapshot.series_rows(filter)) if series.count]


def _read(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    heads: Heads,
    number: int,
    begin: int,
    end: int,
    limit: int,
    cursor: str | None,
    descending: bool,
) -> SamplePage:
    from gridloom.storage.sqlite.paging import page

    return page(connection, catalogue, heads, number, begin, end, limit, cursor, descending)


def _aggregate(connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads, query: AggregateQuery, zone: str) -> list[AggregateRow]:
    from gridloom.storage.sqlite.aggregation import aggregate

    return aggregate(connection, catalogue, heads, query, zone)


def _load_newest(connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads, device: str) -> None:
    """Put the newest row of each shape of a device into memory: those left by compaction, and the uncompacted ones."""
    row = connection.execute("SELECT no, compacted FROM device WHERE id = ?", (device,)).fetchone()
    if row is None:
        return
    no, compacted = row
    newest: dict[int, Newest] = {}
    for shape_no, *rest in connection.execute("SELECT shape_no, time, source, received, body FROM latest WHERE device_no = ?", (no,)):
        newest[shape_no] = (rest[0], rest[1], rest[2], rest[3])
    for _, shape_no, time, source, received, body in heads.read(connection, no, compacted):
        one: Newest = (time, source, received, body)
        old = newest.get(shape_no)
        if old is None or moment(one) >= moment(old):
            newest[shape_no] = one
    catalogue.merge_newest(device, newest)


def _all_latest(connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads, filter: SeriesFilter) -> list[LatestValue]:
    """The same for many devices, in a reader's thread."""
    if not catalogue.everything:
        for (device,) in connection.execute("SELECT id FROM device").fetchall():
            if not catalogue.newest_rows(device)[0]:
                _load_newest(connection, catalogue, heads, device)
        catalogue.everything = True
    values: list[LatestValue] = []
    for device in catalogue.devices() if filter.devices is None else sorted(set(filter.devices)):
        _, newest = catalogue.newest_rows(device)
        _load_shapes(connection, catalogue, [shape_no for shape_no, _ in newest])
        values += _latest_values(catalogue, filter, device, newest)
    return values


def _load_shapes(connection: sqlite3.Connection, catalogue: Catalogue, numbers: Sequence[int]) -> None:
    for number in numbers:
        catalogue.types(connection, number)


def _latest_values(catalogue: Catalogue, filter: SeriesFilter, device: str, rows: Sequence[tuple[int, Newest]]) -> list[LatestValue]:
    found: dict[ReadingType, LatestValue] = {}
    everything = filter.measurands is None and filter.phases is None and filter.tariffs is None and filter.locations is None
    # The newest row last: of a type that several shapes have it is the one that stays.
    for shape_no, (time, source, received, body) in sorted(rows, key=lambda row: moment(row[1])):
        origin = head.SOURCES[source]
        for one in head.decode(catalogue.types(None, shape_no) or (), body):
            type = one.type
            if everything or _matches(filter, type):
                found[type] = LatestValue(device, type, time, origin, received, one.value, one.exponent, one.quality)
    return sorted(found.values(), key=_order)


def _matches(filter: SeriesFilter, type: ReadingType) -> bool:
    return (
        (filter.measurands is None or type.measurand in filter.measurands)
        and (filter.phases is None or type.phase in filter.phases)
        and (filter.tariffs is None or type.tariff in filter.tariffs)
        and (filter.locations is None or type.location in filter.locations)
    )


def _order(value: LatestValue) -> tuple[str, str, str, str, str]:
    """As the series are ordered: an absent member before any."""
    one = value.type
    return one.measurand, one.phase or "", one.tariff or "", one.location or "", one.unit


def _native(connection: sqlite3.Connection, device: str) -> bytes | None:
    row = connection.execute("SELECT body FROM native JOIN device ON device.no = native.device_no WHERE device.id = ?", (device,)).fetchone()
    return None if row is None else bytes(row[0])


def _since(connection: sqlite3.Connection, catalogue: Catalogue, after: int | None, limit: int) -> list[tuple[int, MeterReading]]:
    floor = int(connection.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()[0])
    if after is None:
        after = floor
    if after < floor:
        raise NotFound("the cursor is older than what is kept for resuming the stream; read the samples instead and go on from now")
    found: list[tuple[int, MeterReading]] = []
    for seq, device, shape_no, time, source, received, body in connection.execute(
        "SELECT h.seq, d.id, h.shape_no, h.time, h.source, h.received, h.body FROM head h JOIN device d ON d.no = h.device_no"
        " WHERE h.seq > ? ORDER BY h.seq LIMIT ?",
        (after, limit),
    ):
        types = catalogue.types(connection, shape_no) or ()
        found.append((seq, MeterReading(device, time, received, head.decode(types, body), head.SOURCES[source])))
    return found
