"""Answering ``AggregateQuery``: from roll-ups where they say the same as the samples, else from the samples."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from gridloom.core.ports import AggregateQuery, AggregateRow, Operator
from gridloom.storage import figures, head, rollups, steps
from gridloom.storage.rollups import Level
from gridloom.storage.sqlite.catalogue import Catalogue
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.reading import SeriesRow, Snapshot

_TOLD = (Operator.COUNT, Operator.FIRST, Operator.LAST)
"""The operators that see text."""


_TEXT = 4
_MOST_GAPS = 8
"""With more days without ten-minute roll-ups than this, the samples are quicker."""


def aggregate(
    connection: sqlite3.Connection, catalogue: Catalogue, heads: Heads, query: AggregateQuery, zone: str, *, rolled: bool = True
) -> list[AggregateRow]:
    """One row per series that has samples in the interval. ``rolled`` False keeps roll-ups out of it (for tests and measurements).

    Raises InvalidInput.
    """
    borders = steps.boundaries(query.step, query.zone, query.begin, query.end)
    edges = np.array(borders, np.int64)
    snapshot = Snapshot(connection, catalogue, heads)
    level = _level(snapshot, query, edges, zone) if rolled else None
    rows: list[AggregateRow] = []
    for row in snapshot.series_rows(query.filter):
        table = None if level is None else from_rollups(snapshot, row, query, edges, level, zone)
        if table is None:
            table = from_samples(snapshot, row, query, edges)
        buckets = figures.buckets(table, query.operator, borders)
        if buckets:
            rows.append(AggregateRow(snapshot.series(row), buckets))
    return rows


def _level(snapshot: Snapshot, query: AggregateQuery, edges: figures.Array, zone: str) -> Level | None:
    """The coarsest roll-up whose units no step of the question parts, and that is kept for all of it; else the one that is kept longest.

    SUSPECT samples are in no roll-up.
    """
    if query.include_suspect:
        return None
    inner = edges[1:-1]
    fitting = [level for level in (Level.HOUR, Level.TEN_MINUTES) if not bool((inner % level.unit).any())]
    if query.zone == zone and query.step not in steps.FIXED:
        fitting.insert(0, Level.DAY)
    return min(fitting, key=lambda level: max(snapshot.rolled_from(level) - query.begin, 0), default=None)


def from_rollups(snapshot: Snapshot, row: SeriesRow, query: AggregateQuery, edges: figures.Array, level: Level, zone: str) -> figures.Table | None:
    """The lines of the steps: whole units from roll-ups, the rest from samples. None when the samples alone must answer.

    That is so for what roll-ups do not know: text, and the increases of a register whose samples are timed by both clocks.
    """
    if row.rolled is None:
        return None
    waiting = snapshot.head(row)
    text = row.traits & _TEXT or (waiting.marks is not None and bool((waiting.marks == head.TEXT).any()))
    if query.operator in _TOLD and text:
        return None
    sources = _sources(snapshot, row, query)
    if not sources or (query.operator is Operator.DELTA and len(sources) > 1):
        return None
    tables = [_of_source(snapshot, row, source, query, edges, level, zone) for source in sources]
    return tables[0] if len(tables) == 1 else figures.pick(tables[0], tables[1])


def _sources(snapshot: Snapshot, row: SeriesRow, query: AggregateQuery) -> list[int]:
    """The clocks (indexes of ``head.SOURCES``) that the question is about and that the series has samples of."""
    waiting = snapshot.head(row)
    return [
        source
        for source in (0, 1)
        if (query.source is None or head.SOURCES[source] is query.source) and (row.traits & (1 << source) or len(figures.of_clock(waiting, source)))
    ]


def _of_source(
    snapshot: Snapshot, row: SeriesRow, source: int, query: AggregateQuery, edges: figures.Array, level: Level, zone: str
) -> figures.Table:
    begin, end = int(edges[0]), int(edges[-1])
    delta = query.operator is Operator.DELTA
    limit = row.rolled or 0
    waiting = figures.of_clock(snapshot.head(row), source)
    if len(waiting):
        # Units that uncompacted samples fall into, or whose last verdict they may change, are answered from the samples.
        touched = int(waiting.times[0])
        before = snapshot.good_before(row, source, touched) if delta else None
        limit = min(limit, (touched if before is None else before) - 1)
    low = _ceiling(max(begin, snapshot.rolled_from(level)), level, zone)
    high = _floor(min(end, limit), level, zone) if limit > 0 else 0
    if low >= high:
        return _sampled(snapshot, row, source, query, edges, begin, end)
    pairs = [(period, rollups.decode(body, level)) for period, body in snapshot.rollup_rows(row.no, source, level, low, high)]
    parts = [figures.cut(pair.increases if delta else pair.values, low, high) for _, pair in pairs]
    holes: list[tuple[int, int]] = [(begin, low)] if begin < low else []
    if level is Level.TEN_MINUTES:
        holes += _without(pairs, low, high)
        if len(holes) > _MOST_GAPS:
            return _sampled(snapshot, row, source, query, edges, begin, end)
    if high < end:
        holes.append((high, end))
    parts += [_sampled(snapshot, row, source, query, edges, *hole) for hole in holes]
    return figures.regroup(parts, edges) if any(len(part) for part in parts) else figures.nothing()


def _without(pairs: Sequence[tuple[int, rollups.Pair]], low: int, high: int) -> list[tuple[int, int]]:
    """The stretches of ``[low, high)`` whose days have no ten-minute roll-up."""
    period = Level.TEN_MINUTES.period
    have = {number for number, _ in pairs}
    found: list[tuple[int, int]] = []
    for day in range(low // period, (high - 1) // period + 1):
        if day in have:
            continue
        start, stop = max(low, day * period), min(high, (day + 1) * period)
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((start, stop))
    return found


def _ceiling(time: int, level: Level, zone: str) -> int:
    below = _floor(time, level, zone)
    if below == time:
        return time
    return steps.midnight(zone, steps.local_ordinal(zone, time) + 1) if level is Level.DAY else below + level.unit


def _floor(time: int, level: Level, zone: str) -> int:
    return rollups.first_day(zone, time) if level is Level.DAY else time - time % level.unit


def _sampled(snapshot: Snapshot, row: SeriesRow, source: int, query: AggregateQuery, edges: figures.Array, begin: int, end: int) -> figures.Table:
    """The lines of one clock in ``[begin, end)``, cut at the edges that lie in it, from samples."""
    inner = edges[(edges > begin) & (edges < end)]
    borders = np.concatenate(([begin], inner, [end]))
    if query.operator is Operator.DELTA:
        return figures.increase_table(snapshot.surroundings(row, source, begin, end, query.include_suspect), borders, query.include_suspect)
    return figures.value_table(figures.numbers(figures.of_clock(snapshot.window(row, begin, end), source)), borders, query.include_suspect)


def from_samples(snapshot: Snapshot, row: SeriesRow, query: AggregateQuery, edges: figures.Array) -> figures.Table:
    """The lines of the steps between ``edges``, from the samples alone."""
    begin, end = int(edges[0]), int(edges[-1])
    sources = _sources(snapshot, row, query)
    if not sources:
        return figures.nothing()
    if query.operator is Operator.DELTA:
        around = [snapshot.surroundings(row, source, begin, end, query.include_suspect) for source in sources]
        samples = around[0] if len(around) == 1 else figures.mix(around[0], around[1], edges)
        return figures.increase_table(samples, edges, query.include_suspect)
    columns = snapshot.window(row, begin, end)
    text = query.operator in _TOLD and columns.marks is not None and bool((columns.marks == head.TEXT).any())
    tables = []
    for source in sources:
        own = figures.of_clock(columns, source)
        if text:
            tables.append(figures.told_table(own, edges, query.include_suspect))
        elif len(own):
            tables.append(figures.value_table(figures.numbers(own), edges, query.include_suspect))
    if not tables:
        return figures.nothing()
    return tables[0] if len(tables) == 1 else figures.pick(tables[0], tables[1])
