"""Samples out of the tables: chunks and uncompacted head rows of one moment, merged.

Everything here runs in a reader's thread inside one read transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gridloom.core.model import Phase, ReadingType
from gridloom.core.ports import Series, SeriesFilter
from gridloom.storage import chunks, figures, rollups
from gridloom.storage.chunks import Columns
from gridloom.storage.sqlite.catalogue import Catalogue
from gridloom.storage.sqlite.heads import Heads

Array = npt.NDArray[Any]

EVER = 2**62


def chunk_bodies(connection: sqlite3.Connection, series_no: int, begin: int, end: int) -> list[bytes]:
    """The chunks of a series that overlap ``[begin, end)``, in ascending time; as one text, for the same reason as ``heads``."""
    text = connection.execute(
        "SELECT group_concat(hex(body), ',') FROM (SELECT body FROM chunk WHERE series_no = ?1 AND t_min < ?3 AND t_max >= ?2 AND t_min >="
        " coalesce((SELECT max(t_min) FROM chunk WHERE series_no = ?1 AND t_min <= ?2), ?2) ORDER BY t_min)",
        (series_no, begin, end),
    ).fetchone()[0]
    return [] if text is None else sorted([bytes.fromhex(one) for one in text.split(",")], key=chunks.first_time)


class SeriesRow(msgspec.Struct, frozen=True):
    """A row of ``series`` with its device; ``first``, ``last``, ``count`` of its chunks alone; ``rolled``: roll-ups cover what is before."""

    no: int
    device_no: int
    device: str
    compacted: int
    type: ReadingType
    first: int | None
    last: int | None
    count: int
    rolled: int | None
    traits: int


class _Rows(msgspec.Struct):
    """Uncompacted rows of one device in one shape."""

    types: tuple[ReadingType, ...]
    seqs: list[int]
    rows: list[tuple[int, int, int, bytes]]


class Snapshot:
    """The store as one read transaction sees it."""

    def __init__(self, connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads) -> None:
        self.connection = connection
        self._uncompacted = heads
        self._catalogue = catalogue
        self._heads: dict[int, list[_Rows]] = {}
        self._head_columns: dict[int, Columns] = {}
        self._chunks: dict[tuple[int, int], Columns] = {}

    # ------------------------------------------------------------------------------------------------------- series

    def series_rows(self, filter: SeriesFilter) -> list[SeriesRow]:
        """The series that match, ordered by device and type."""
        where: list[str] = []
        values: list[Any] = []
        for column, wanted in (
            ("d.id", filter.devices),
            ("s.measurand", filter.measurands),
            ("s.phase", filter.phases),
            ("s.tariff", filter.tariffs),
            ("s.location", filter.locations),
        ):
            if wanted is None:
                continue
            given = [str(one) for one in wanted if one is not None]
            either = [f"{column} IN (SELECT value FROM json_each(?))"] if given else []  # noqa: S608 - our own words
            if given:
                values.append(msgspec.json.encode(given).decode())
            if None in wanted:
                either.append(column + " IS NULL")
            where.append("(" + " OR ".join(either or ["0"]) + ")")
        return self._series(" AND ".join(where) or "1", values)

    def series_row(self, number: int) -> SeriesRow | None:
        """The series of this number."""
        rows = self._series("s.no = ?", [number])
        return rows[0] if rows else None

    def device_series(self, device_no: int) -> list[SeriesRow]:
        """All series of a device."""
        return self._series("s.device_no = ?", [device_no])

    def _series(self, where: str, values: Sequence[Any]) -> list[SeriesRow]:
        statement = (
            "SELECT s.no, s.device_no, d.id, d.compacted, s.measurand, s.unit, s.phase, s.tariff, s.location,"  # noqa: S608 - our own words
            f" s.first, s.last, s.count, s.rolled, s.traits FROM series s JOIN device d ON d.no = s.device_no WHERE {where}"
            " ORDER BY d.id, s.measurand, s.phase, s.tariff, s.location, s.unit"
        )
        rows = self.connection.execute(statement, values)
        return [
            SeriesRow(no, device_no, device, compacted, ReadingType(measurand, unit, Phase(phase) if phase else None, tariff, location), *rest)
            for no, device_no, device, compacted, measurand, unit, phase, tariff, location, *rest in rows
        ]

    def series(self, row: SeriesRow) -> Series:
        """The series as the port speaks of it, uncompacted samples counted in, each key once."""
        waiting = self.head(row)
        first, last, count = row.first, row.last, row.count
        if len(waiting):
            times = waiting.times
            if last is not None and int(times[0]) <= last:
                late = chunks.within(waiting, 0, last + 1)
                old = self.chunk_columns(row.no, int(late.times[0]), last + 1)
                count += len(chunks.merge([chunks.within(old, int(late.times[0]), last + 1), late])) - len(
                    chunks.within(old, int(late.times[0]), last + 1)
                )
                count += len(waiting) - len(late)
            else:
                count += len(waiting)
            first = int(times[0]) if first is None else min(first, int(times[0]))
            last = int(times[-1]) if last is None else max(last, int(times[-1]))
        return Series(row.no, row.device, row.type, first or 0, last or 0, count)

    # -------------------------------------------------------------------------------------------------------- samples

    def _head_rows(self, device_no: int, compacted: int) -> list[_Rows]:
        found = self._heads.get(device_no)
        if found is None:
            shapes: dict[int, _Rows] = {}
            for seq, shape_no, time, source, received, body in self._uncompacted.read(self.connection, device_no, compacted):
                rows = shapes.get(shape_no)
                if rows is None:
                    rows = shapes[shape_no] = _Rows(self._catalogue.types(self.connection, shape_no) or (), [], [])
                rows.seqs.append(seq)
                rows.rows.append((time, source, received, body))
            found = self._heads[device_no] = list(shapes.values())
        return found

    def head(self, row: SeriesRow) -> Columns:
        """The uncompacted samples of a series, merged."""
        known = self._head_columns.get(row.no)
        if known is not None:
            return known
        parts: list[Columns] = []
        seqs: list[int] = []
        for rows in self._head_rows(row.device_no, row.compacted):
            places = chunks.place_in_shape(rows.types, row.type)
            if places:
                for columns in chunks.rows_to_columns(len(rows.types), rows.rows, places):
                    parts.append(columns)
                    seqs.extend(rows.seqs)
        whole = chunks.join(parts)
        if len(parts) > 1:
            whole = chunks.take(whole, np.argsort(np.array(seqs), kind="stable"))
        merged = self._head_columns[row.no] = chunks.merge([whole])
        return merged

    def chunk_columns(self, series_no: int, begin: int, end: int) -> Columns:
        """The samples of all chunks that overlap ``[begin, end)``, whole chunks."""
        return chunks.decode(chunk_bodies(self.connection, series_no, begin, end))

    def window(self, row: SeriesRow, begin: int, end: int) -> Columns:
        """The samples of a series with ``begin <= time < end``."""
        old = chunks.within(self.chunk_columns(row.no, begin, end), begin, end)
        return chunks.merge([old, chunks.within(self.head(row), begin, end)])

    def chunk_headers(self, series_no: int, time: int) -> list[tuple[int, int, int]]:
        """(t_min, t_max, count) of the chunk that ``time`` lies in or behind, and of all later ones."""
        return self.connection.execute(
            "SELECT t_min, t_max, count FROM chunk WHERE series_no = ?1 AND t_min >="
            " coalesce((SELECT max(t_min) FROM chunk WHERE series_no = ?1 AND t_min <= ?2), ?2) ORDER BY t_min",
            (series_no, time),
        ).fetchall()

    def chunk(self, series_no: int, t_min: int) -> Columns:
        """The samples of one chunk."""
        known = self._chunks.get((series_no, t_min))
        if known is None:
            body = self.connection.execute("SELECT body FROM chunk WHERE series_no = ? AND t_min = ?", (series_no, t_min)).fetchone()[0]
            known = self._chunks[series_no, t_min] = chunks.decode([body])
        return known

    def good_before(self, row: SeriesRow, source: int, time: int) -> int | None:
        """The time of the last sample of a clock in the chunks, before ``time``, that is a number and not SUSPECT."""
        if not row.traits & (1 << source):
            return None
        for (t_min,) in self.connection.execute("SELECT t_min FROM chunk WHERE series_no = ? AND t_min < ? ORDER BY t_min DESC", (row.no, time)):
            samples = figures.numbers(figures.of_clock(chunks.within(self.chunk(row.no, t_min), 0, time), source))
            times = samples.times if samples.suspect is None else samples.times[~samples.suspect]
            if len(times):
                return int(times[-1])
        return None

    def next_time(self, series_no: int, time: int) -> int | None:
        """The begin of the first chunk that reaches beyond ``time``."""
        row = self.connection.execute(
            "SELECT t_min FROM chunk WHERE series_no = ?1 AND t_max >= ?2 AND t_min >="
            " coalesce((SELECT max(t_min) FROM chunk WHERE series_no = ?1 AND t_min <= ?2), ?2) ORDER BY t_min LIMIT 1",
            (series_no, time),
        ).fetchone()
        return None if row is None else int(row[0])

    def rollup_rows(self, series_no: int, source: int, level: rollups.Level, begin: int, end: int) -> list[tuple[int, bytes]]:
        """(period, blob) of the roll-ups that may have units beginning in ``[begin, end)``."""
        return self.connection.execute(
            "SELECT period, body FROM rollup WHERE series_no = ? AND source = ? AND level = ? AND period BETWEEN ? AND ? ORDER BY period",
            (series_no, source, int(level), begin // level.period, (end - 1) // level.period),
        ).fetchall()

    def has_rollups(self, series_no: int, before: int) -> bool:
        """Whether hours from before this time are rolled up."""
        level = rollups.Level.HOUR
        return (
            self.connection.execute(
                "SELECT 1 FROM rollup WHERE series_no = ? AND source IN (0, 1) AND level = ? AND period <= ? LIMIT 1",
                (series_no, int(level), (before - 1) // level.period),
            ).fetchone()
            is not None
        )

    def rolled_from(self, level: rollups.Level) -> int:
        """Before this time (µs) roll-ups of the level are no longer kept."""
        row = self.connection.execute("SELECT value FROM meta WHERE key = ?", (f"rolled_from_{int(level)}",)).fetchone()
        return 0 if row is None else int(row[0])

    def surroundings(
        self, row: SeriesRow, source: int, begin: int, end: int, include_suspect: bool, *, compacted_only: bool = False
    ) -> figures.Numbers:
        """The samples of one clock around ``(begin, end]`` that the judgement of a register needs (see ``figures.increase_table``)."""
        back = 1
        ahead = 1
        while True:
            earlier = self.connection.execute(
                "SELECT t_min FROM chunk WHERE series_no = ? AND t_min <= ? ORDER BY t_min DESC LIMIT ?", (row.no, begin, back)
            ).fetchall()
            later = self.connection.execute(
                "SELECT t_min, t_max FROM chunk WHERE series_no = ? AND t_min > ? ORDER BY t_min LIMIT ?", (row.no, end, ahead)
            ).fetchall()
            low = earlier[-1][0] if earlier else begin
            high = later[-1][1] if later else end
            all_back = len(earlier) < back
            all_ahead = len(later) < ahead
            old = self.chunk_columns(row.no, low, high + 1)
            waiting = chunks.empty() if compacted_only else self.head(row)
            # Uncompacted samples from before the oldest chunk at hand would stand in the middle of what is not at hand.
            waiting = chunks.within(waiting, 0 if all_back else low, EVER if all_ahead else high + 1)
            samples = figures.numbers(figures.of_clock(chunks.merge([old, waiting]), source))
            enough_back = all_back or figures.anchored(samples, begin, include_suspect)
            times = samples.times if samples.suspect is None or include_suspect else samples.times[~samples.suspect]
            enough_ahead = all_ahead or (len(times) > 0 and int(times[-1]) > end)
            if enough_back and enough_ahead:
                return samples
            if not enough_back:
                back *= 4
            if not enough_ahead:
                ahead *= 4
