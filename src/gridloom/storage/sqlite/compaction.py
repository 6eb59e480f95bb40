"""Turning the head into chunks, chunks into roll-ups, and forgetting what is older than its retention.

All thinking is done in a maintenance thread on a reading connection; what comes out is written by the writer's thread in slices of
one device (or some series) each, so that nobody waits long behind one. Only maintenance writes chunks and roll-ups: what it read is still true when
its slice is written. A slice moves ``device.compacted`` with the chunks it made of the rows up to there: a crash between slices loses and
doubles nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from gridloom.core.clock import Clock
from gridloom.storage import chunks, figures, head, rollups
from gridloom.storage.chunks import DAY, Columns
from gridloom.storage.rollups import Level
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.catalogue import Catalogue, Newest, newer
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.readers import Readers
from gridloom.storage.sqlite.reading import SeriesRow, Snapshot
from gridloom.storage.sqlite.writer import Writer

log = logging.getLogger(__name__)

_SLICE_ROWS = 4000
_SLICE_SAMPLES = 120_000
_SLICE_DELETES = 2000
_ROLL_DAYS = 31
_TEXT = 4

Statement = tuple[str, list[tuple[Any, ...]]]


class _Merged(msgspec.Struct):
    """What a slice makes of the new samples of one series."""

    deletes: list[tuple[Any, ...]]
    inserts: list[tuple[Any, ...]]
    update: tuple[Any, ...]


class ForgottenHead(msgspec.Struct):
    """Head rows up to ``upto`` are removed, but for those ``left`` that were not compacted when we came by."""

    upto: int = 0
    left: set[int] = set()


class Compaction:
    """The steps of maintenance. Not thread-safe: one at a time (``Maintenance`` sees to that)."""

    def __init__(self, writer: Writer, readers: Readers, catalogue: Catalogue, heads: Heads, clock: Clock, settings: StorageSettings) -> None:
        self._writer = writer
        self._readers = readers
        self._catalogue = catalogue
        self._heads = heads
        self._clock = clock
        self._settings = settings

    # ------------------------------------------------------------------------------------------------------ the head

    def due(self, everything: bool) -> list[int]:
        """The devices whose head rows should become chunks now."""
        return self._readers.call(self._due, everything)

    def _due(self, connection: sqlite3.Connection, everything: bool) -> list[int]:
        self._heads.load(connection)
        counts = self._heads.counts()
        if everything or self._heads.sizes()[1] > self._settings.head_rows:
            return sorted(counts)
        old = self._clock.now() - int(self._settings.compact_seconds * 1e6)
        due = []
        for no, (count, first) in sorted(counts.items()):
            if count >= self._settings.compact_rows or connection.execute("SELECT received FROM head WHERE seq = ?", (first,)).fetchone()[0] <= old:
                due.append(no)
        return due

    def compact_device(self, device_no: int, stopped: Callable[[], bool]) -> None:
        """Turn all uncompacted rows of a device into chunks, slice by slice, then bring its roll-ups up to date."""
        while not stopped():
            plan = self._readers.call(self._plan_device, device_no)
            if plan is None:
                break
            statements, upto, samples = plan
            self._write(statements)
            self._heads.trim(device_no, upto, samples)
        self.roll_device(device_no, stopped)

    def _write(self, statements: Sequence[Statement]) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for statement, values in statements:
                connection.executemany(statement, values)

        self._writer.run_slice(work)

    def _plan_device(self, connection: sqlite3.Connection, device_no: int) -> tuple[list[Statement], int, int] | None:
        compacted = connection.execute("SELECT compacted FROM device WHERE no = ?", (device_no,)).fetchone()[0]
        shapes: dict[int, list[tuple[int, int, int, bytes]]] = {}
        seqs: dict[int, list[int]] = {}
        samples = 0
        upto = compacted
        for seq, shape_no, time, source, received, body in self._heads.read(connection, device_no, compacted, _SLICE_ROWS):
            shapes.setdefault(shape_no, []).append((time, source, received, body))
            seqs.setdefault(shape_no, []).append(seq)
            samples += len(body) // 8
            upto = seq
            if samples >= _SLICE_SAMPLES:
                break
        if upto == compacted:
            return None
        found: dict[Any, tuple[list[Columns], list[int]]] = {}
        samples = 0
        for shape_no, rows in shapes.items():
            types = self._catalogue.types(connection, shape_no) or ()
            samples += len(types) * len(rows)
            for type, columns in zip(types, chunks.rows_to_columns(len(types), rows, range(len(types))), strict=True):
                parts, order = found.setdefault(type, ([], []))
                parts.append(columns)
                order.extend(seqs[shape_no])
        snapshot = Snapshot(connection, self._catalogue, self._heads)
        series = {row.type: row for row in snapshot.device_series(device_no)}
        merged: list[_Merged] = []
        oldest = self._oldest_kept()
        for type, (parts, order) in found.items():
            whole = chunks.join(parts)
            if len(parts) > 1:
                whole = chunks.take(whole, np.argsort(np.array(order), kind="stable"))
            new = chunks.merge([whole])
            row = series[type]
            if oldest and row.rolled is not None and int(new.times[0]) < min(oldest, row.rolled):
                told = len(new)
                new = chunks.within(new, min(oldest, row.rolled), 2**62)
                log.info("late samples older than the retention left out", extra={"device": row.device, "samples": told - len(new)})
            if len(new):
                merged.append(_merge_series(snapshot, row, new))
        statements: list[Statement] = [
            ("DELETE FROM chunk WHERE series_no = ? AND t_min = ?", [key for one in merged for key in one.deletes]),
            ("INSERT INTO chunk VALUES (?,?,?,?,?)", [row for one in merged for row in one.inserts]),
            (
                "UPDATE series SET first = min(coalesce(first, ?1), ?1), last = max(coalesce(last, ?2), ?2), count = count + ?3,"
                " traits = traits | ?4, rolled = ?5, chunks = chunks + ?6 WHERE no = ?7",
                [one.update for one in merged],
            ),
            (
                "INSERT INTO latest VALUES (?,?,?,?,?,?) ON CONFLICT DO UPDATE SET time = excluded.time, source = excluded.source,"
                " received = excluded.received, body = excluded.body",
                _newest(connection, device_no, shapes),
            ),
            ("UPDATE device SET compacted = ? WHERE no = ?", [(upto, device_no)]),
        ]
        return statements, upto, samples

    def _oldest_kept(self) -> int:
        """Late samples from before this (µs) are not taken in: theirs would be a day whose other samples may be gone, and its roll-up wrong."""
        days = self._settings.retention.samples
        return 0 if days is None else max(rollups.floor_day(self._clock.now()) - (days - 2) * DAY, 0)

    # ------------------------------------------------------------------------------------------------------- roll-ups

    def roll_device(self, device_no: int, stopped: Callable[[], bool]) -> None:
        """Bring the roll-ups of a device's series up to date, in slices of at most a month per series."""
        while not stopped():
            statements = self._readers.call(self._plan_rolls, device_no)
            if not statements:
                return
            self._write(statements)

    def unrolled(self) -> list[int]:
        """The devices of which some series has a day that is over and not rolled up."""
        return self._readers.call(self._unrolled)

    def _unrolled(self, connection: sqlite3.Connection) -> list[int]:
        rows = connection.execute("SELECT device_no, last, rolled FROM series WHERE last IS NOT NULL").fetchall()
        now = self._clock.now()
        return sorted({device_no for device_no, last, rolled in rows if rollups.target(last, now) > (rolled or 0)})

    def _plan_rolls(self, connection: sqlite3.Connection, device_no: int) -> list[Statement]:
        snapshot = Snapshot(connection, self._catalogue, self._heads)
        now = self._clock.now()
        deletes: list[tuple[Any, ...]] = []
        inserts: list[tuple[Any, ...]] = []
        updates: list[tuple[Any, ...]] = []
        for row in snapshot.device_series(device_no):
            if row.last is None or row.first is None:
                continue
            goal = rollups.target(row.last, now)
            begin = row.rolled
            if begin is None:
                # Of the first day that is left the samples before it may be gone: what was rolled up with them is better.
                begin = rollups.floor_day(row.first)
                begin += DAY if snapshot.has_rollups(row.no, begin) else 0
            if goal <= begin:
                continue
            # Years without samples (a clock that was wrong) are leapt over, but not the local day that may reach over the border.
            following = snapshot.next_time(row.no, begin - 2 * DAY)
            if following is not None and following > begin + 2 * DAY:
                begin = min(rollups.floor_day(following) - DAY, goal - DAY)
            end = min(goal, begin + _ROLL_DAYS * DAY)
            for source in (0, 1):
                if row.traits & (1 << source):
                    self._roll(snapshot, row, source, begin, end, deletes, inserts)
            updates.append((end, row.no))
            if len(inserts) >= 300:
                break
        if not updates:
            return []
        return [
            ("DELETE FROM rollup WHERE series_no = ? AND source = ? AND level = ? AND period = ?", deletes),
            ("INSERT OR REPLACE INTO rollup VALUES (?,?,?,?,?)", inserts),
            ("UPDATE series SET rolled = ? WHERE no = ?", updates),
        ]

    def _roll(
        self, snapshot: Snapshot, row: SeriesRow, source: int, begin: int, end: int, deletes: list[tuple[Any, ...]], inserts: list[tuple[Any, ...]]
    ) -> None:
        zone = self._settings.zone
        local = rollups.first_day(zone, begin)
        samples = snapshot.surroundings(row, source, min(local, begin) - 1, end, include_suspect=False, compacted_only=True)
        built = rollups.build(samples, begin, end, zone, keep_few=self._settings.retention.samples is not None)
        for level, pair in built.items():
            start = local if level is Level.DAY else begin
            old = snapshot.rollup_rows(row.no, source, level, start, end)
            wanted = set(rollups.periods(pair, level)) | {period for period, _ in old}
            for period in sorted(wanted):
                new = rollups.of_period(pair, level, period)
                before = next((body for number, body in old if number == period), None)
                if before is not None:
                    # A local day that is not over yet has no new line, and must keep none: it ends behind ``end``.
                    new = rollups.replaced(rollups.decode(before, level), new, start, end)
                if len(new.values) or len(new.increases):
                    inserts.append((row.no, source, int(level), period, rollups.encode(new, level)))
                elif before is not None:
                    deletes.append((row.no, source, int(level), period))

    # ------------------------------------------------------------------------------------------------------ forgetting

    def forget_head(self, floor: int, behind: ForgottenHead, stopped: Callable[[], bool]) -> None:
        """Remove compacted head rows up to ``floor``: the live stream cannot be resumed behind it any more."""
        self._readers.call(self._heads.load)
        uncompacted = self._heads.up_to(floor)
        gone = sorted(behind.left - set(uncompacted))
        for start in range(0, len(gone), _SLICE_DELETES):
            some = msgspec.json.encode(gone[start : start + _SLICE_DELETES]).decode()
            self._heads.forgotten(self._writer.run_slice(partial(_forget_rows, "seq IN (SELECT value FROM json_each(?))", (some,), floor)))
            behind.left.difference_update(gone[start : start + _SLICE_DELETES])
        if behind.upto == 0:
            first = self._readers.call(lambda connection: connection.execute("SELECT min(seq) FROM head").fetchone()[0])
            behind.upto = floor if first is None else min(first - 1, floor)
        while behind.upto < floor and not stopped():
            upto = min(behind.upto + _SLICE_DELETES, floor)
            stay = [seq for seq in uncompacted if behind.upto < seq <= upto]
            where = "seq > ? AND seq <= ? AND seq NOT IN (SELECT value FROM json_each(?))"
            values = (behind.upto, upto, msgspec.json.encode(stay).decode())
            self._heads.forgotten(self._writer.run_slice(partial(_forget_rows, where, values, floor)))
            behind.left.update(stay)
            behind.upto = upto

    def forget(self, stopped: Callable[[], bool]) -> None:
        """Apply the retention of every kind, and remove documents that have expired."""
        now = self._clock.now()
        retention = self._settings.retention
        if retention.samples is not None:
            self._forget_samples(rollups.floor_day(now) - retention.samples * DAY, stopped)
        for level, days in ((Level.TEN_MINUTES, retention.ten_minutes), (Level.HOUR, retention.hours), (Level.DAY, retention.days)):
            if days is not None:
                self._forget_rollups(level, rollups.floor_day(now) - days * DAY, stopped)
        if retention.events is not None:
            self._repeat("DELETE FROM journal WHERE seq IN (SELECT seq FROM journal WHERE time < ? LIMIT ?)", now - retention.events * DAY, stopped)
        more = True
        while more and not stopped():
            more = self._writer.run_slice(lambda connection: _forget_documents(connection, now))

    def _repeat(self, statement: str, cutoff: int, stopped: Callable[[], bool]) -> None:
        def work(connection: sqlite3.Connection) -> bool:
            # The numbering must not fall back when the youngest rows go.
            connection.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'seq'", (self._writer.sequence,))
            return connection.execute(statement, (cutoff, _SLICE_DELETES)).rowcount == _SLICE_DELETES

        while not stopped() and self._writer.run_slice(work):
            pass

    def _forget_samples(self, cutoff: int, stopped: Callable[[], bool]) -> None:
        """Chunks that ended before the cutoff and are rolled up."""
        due = self._readers.call(
            lambda connection: connection.execute("SELECT no FROM series WHERE first < ? AND rolled IS NOT NULL ORDER BY no", (cutoff,)).fetchall()
        )
        for start in range(0, len(due), 50):
            if stopped():
                return
            numbers = [row[0] for row in due[start : start + 50]]
            self._writer.run_slice(partial(_forget_chunks, numbers=numbers, cutoff=cutoff))

    def _forget_rollups(self, level: Level, cutoff: int, stopped: Callable[[], bool]) -> None:
        """Whole blobs whose period ended before the cutoff."""
        period = cutoff // level.period
        key = f"rolled_from_{int(level)}"
        if int(self._readers.call(_meta, key)) >= period * level.period:
            return
        numbers = [row[0] for row in self._readers.call(lambda connection: connection.execute("SELECT no FROM series ORDER BY no").fetchall())]

        def work(connection: sqlite3.Connection, some: list[int]) -> None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (key, period * level.period))
            connection.executemany(
                "DELETE FROM rollup WHERE series_no = ? AND source IN (0, 1) AND level = ? AND period < ?", [(no, int(level), period) for no in some]
            )

        for start in range(0, len(numbers), 200):
            if stopped():
                return
            self._writer.run_slice(partial(work, some=numbers[start : start + 200]))


def _meta(connection: sqlite3.Connection, key: str) -> Any:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return 0 if row is None else row[0]


def _forget_rows(where: str, values: tuple[int | str, ...], floor: int, connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE meta SET value = max(value, ?) WHERE key IN ('floor', 'seq')", (floor,))
    return connection.execute(f"DELETE FROM head WHERE {where}", values).rowcount  # noqa: S608 - our own words


def _forget_documents(connection: sqlite3.Connection, now: int) -> bool:
    rows = connection.execute("SELECT space, kind, id FROM document WHERE expires <= ? LIMIT ?", (now, _SLICE_DELETES)).fetchall()
    connection.executemany("DELETE FROM document WHERE space = ? AND kind = ? AND id = ?", rows)
    connection.executemany("DELETE FROM document_key WHERE space = ? AND kind = ? AND id = ?", rows)
    return len(rows) == _SLICE_DELETES


def _forget_chunks(connection: sqlite3.Connection, numbers: Sequence[int], cutoff: int) -> None:
    for number in numbers:
        where = "series_no = ? AND t_min < ? AND t_max < min(?, (SELECT rolled FROM series WHERE no = ?))"
        values = (number, cutoff, cutoff, number)
        statement = f"SELECT count(*), sum(count) FROM chunk WHERE {where}"  # noqa: S608 - our own words
        gone, samples = connection.execute(statement, values).fetchone()
        if not gone:
            continue
        connection.execute(f"DELETE FROM chunk WHERE {where}", values)  # noqa: S608 - our own words
        connection.execute(
            "UPDATE series SET count = count - ?1, chunks = chunks - ?2, first = (SELECT min(t_min) FROM chunk WHERE series_no = ?3),"
            " last = (SELECT max(t_max) FROM chunk WHERE series_no = ?3) WHERE no = ?3",
            (samples, gone, number),
        )


def _newest(connection: sqlite3.Connection, device_no: int, shapes: dict[int, list[tuple[int, int, int, bytes]]]) -> list[tuple[Any, ...]]:
    """The newest row per shape of what leaves the head, and of what left it before."""
    rows: list[tuple[Any, ...]] = []
    for shape_no, found in shapes.items():
        best: Newest = found[0]
        old = connection.execute(
            "SELECT time, source, received, body FROM latest WHERE device_no = ? AND shape_no = ?", (device_no, shape_no)
        ).fetchone()
        if old is not None:
            best = old
        for row in found:
            if newer(row, best):
                best = row
        rows.append((device_no, shape_no, *best))
    return rows


def _merge_series(snapshot: Snapshot, row: SeriesRow, new: Columns) -> _Merged:
    """Put new samples (merged among themselves) into the chunks of their series: only chunks that they touch are written again."""
    headers = snapshot.chunk_headers(row.no, int(new.times[0]))
    places = np.searchsorted(np.array([header[0] for header in headers], np.int64), new.times, "right") - 1
    deletes: list[tuple[Any, ...]] = []
    inserts: list[tuple[Any, ...]] = []
    added = 0
    for place in np.unique(places).tolist():
        own = chunks.take(new, places == place)
        if place >= 0:
            t_min, t_max, count = headers[place]
            first = int(own.times[0])
            if first <= t_max or not chunks.closed(t_min, t_max, count, first):
                own = chunks.merge([snapshot.chunk(row.no, t_min), own])
                deletes.append((row.no, t_min))
                added -= count
        added += len(own)
        start = 0
        for end in chunks.cuts(own.times):
            part = chunks.take(own, slice(start, end))
            inserts.append((row.no, int(part.times[0]), int(part.times[-1]), end - start, chunks.encode(part)))
            start = end
    traits = 0
    rolled = row.rolled if row.rolled is not None else rollups.floor_day(int(new.times[0]))
    for source in (0, 1):
        mine = figures.of_clock(new, source)
        if not len(mine):
            continue
        traits |= 1 << source
        if mine.marks is not None and bool((mine.marks == head.TEXT).any()):
            traits |= _TEXT
        # The sample before the first new one had no neighbour, or another: its verdict is new too.
        touched = int(mine.times[0])
        before = snapshot.good_before(row, source, touched)
        if before is not None:
            touched = before
        rolled = min(rolled, rollups.floor_day(max(touched - 1, 0)))
    update = (int(new.times[0]), int(new.times[-1]), added, traits, rolled, len(inserts) - len(deletes), row.no)
    return _Merged(deletes, inserts, update)
