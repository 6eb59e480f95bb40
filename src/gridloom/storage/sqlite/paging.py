"""A page of the samples of one series."""

from __future__ import annotations

import sqlite3

from gridloom.core.errors import FieldFault, InvalidInput, NotFound
from gridloom.core.ports import SamplePage
from gridloom.storage import chunks
from gridloom.storage.chunks import Columns
from gridloom.storage.sqlite.catalogue import Catalogue
from gridloom.storage.sqlite.heads import Heads
from gridloom.storage.sqlite.reading import SeriesRow, Snapshot


def page(
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
    """See ``ports.Samples.read``. A cursor is ``time.source`` of the last sample given. Raises NotFound, InvalidInput."""
    snapshot = Snapshot(connection, catalogue, heads)
    row = snapshot.series_row(number)
    if row is None:
        raise NotFound(f"series {number}: no such series")
    after: tuple[int, int] | None = None
    if cursor is not None:
        after = _parse(cursor)
        # Both sources of the cursor's own time are read again; what was given is cut off below.
        if descending:
            end = min(end, after[0] + 1)
        else:
            begin = max(begin, after[0])
    columns = chunks.empty() if begin >= end else _some(snapshot, row, begin, end, limit + 3, descending)
    samples = chunks.samples(columns)
    if descending:
        samples.reverse()
    if after is not None:
        drop = 0
        while drop < len(samples) and samples[drop].time == after[0]:
            source = 0 if samples[drop].source == "device" else 1
            if (source < after[1]) if descending else (source > after[1]):
                break
            drop += 1
        samples = samples[drop:]
    more = len(samples) > limit
    samples = samples[:limit]
    following = None
    if more:
        last = samples[-1]
        following = f"{last.time}.{0 if last.source == 'device' else 1}"
    return SamplePage(snapshot.series(row), tuple(samples), following)


def _parse(cursor: str) -> tuple[int, int]:
    time, _, source = cursor.partition(".")
    if source not in ("0", "1") or not time.isascii() or not time.isdigit() or len(time) > 18:
        reason = f"expected a cursor that this hub gave, got {cursor[:40]!r}"
        raise InvalidInput(f"$.cursor: {reason}", (FieldFault("$.cursor", reason),))
    return int(time), int(source)


def _some(snapshot: Snapshot, row: SeriesRow, begin: int, end: int, wanted: int, descending: bool) -> Columns:
    """At least ``wanted`` samples from one end of the interval (or all there are), decoding no more chunks than that takes."""
    waiting = chunks.within(snapshot.head(row), begin, end)
    statement = (
        "SELECT body, t_min, t_max FROM chunk WHERE series_no = ?1 AND t_min < ?3 AND t_max >= ?2 AND t_min >="  # noqa: S608 - DESC or ASC
        f" coalesce((SELECT max(t_min) FROM chunk WHERE series_no = ?1 AND t_min <= ?2), ?2) ORDER BY t_min {'DESC' if descending else 'ASC'}"
    )
    found: list[Columns] = []
    count = 0
    bound: int | None = None
    for body, t_min, t_max in snapshot.connection.execute(statement, (row.no, begin, end)):
        part = chunks.within(chunks.decode([body]), begin, end)
        found.append(part)
        count += len(part)
        if count >= wanted:
            bound = t_min if descending else t_max + 1
            break
    if bound is not None:
        waiting = chunks.within(waiting, bound, end) if descending else chunks.within(waiting, begin, bound)
    if descending:
        found.reverse()
    merged = chunks.merge([*found, waiting])
    if len(merged) > wanted:
        merged = chunks.take(merged, slice(len(merged) - wanted, None) if descending else slice(0, wanted))
    return merged
