"""``ports.Journal`` on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from gridloom.core.errors import FieldFault, InvalidInput, NotFound
from gridloom.core.ports import Entry, JournalFilter, Recorded
from gridloom.storage.sqlite.cursors import Cursors
from gridloom.storage.sqlite.readers import Readers


class SqliteJournal:
    """What happened."""

    def __init__(self, readers: Readers, cursors: Cursors) -> None:
        self._readers = readers
        self._cursors = cursors

    async def entries(
        self, filter: JournalFilter, *, limit: int = 1_000, cursor: str | None = None, descending: bool = True, by_time: bool = False
    ) -> Sequence[Recorded]:
        """See ``ports.Journal.entries``.

        Raises InvalidInput for a limit below 1 or a cursor that is none, NotFound for a cursor of another store, or (by time) of an
        entry that is no longer kept.
        """
        if limit < 1:
            raise InvalidInput(f"$.limit: expected at least 1, got {limit}", (FieldFault("$.limit", f"expected at least 1, got {limit}"),))
        place = None if not cursor else self._cursors.number(cursor)
        found = await self._readers.run(_entries, filter, limit, place, descending, by_time)
        return [Recorded(self._cursors.text(seq), entry) for seq, entry in found]

    async def count(self, filter: JournalFilter) -> int:
        """See ``ports.Journal.count``."""
        return await self._readers.run(_count, filter)


def _where(filter: JournalFilter) -> tuple[list[str], list[Any]]:
    where = ["stream = ?"]
    values: list[Any] = [filter.stream]
    if filter.devices is not None:
        where.append("device IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(filter.devices).decode())
    if filter.kinds is not None:
        either = ["kind IN (SELECT value FROM json_each(?))"]
        values.append(msgspec.json.encode([kind for kind in filter.kinds if not kind.endswith(".*")]).decode())
        for kind in filter.kinds:
            if kind.endswith(".*"):
                either.append("(kind >= ? AND kind < ?)")
                values += [kind[:-1], kind[:-2] + "/"]  # "/" is the character after "."
        where.append("(" + " OR ".join(either) + ")")
    if filter.min_severity > 0:
        where.append("severity >= ?")
        values.append(filter.min_severity)
    if filter.begin is not None:
        where.append("time >= ?")
        values.append(filter.begin)
    if filter.end is not None:
        where.append("time < ?")
        values.append(filter.end)
    return where, values


def _count(connection: sqlite3.Connection, filter: JournalFilter) -> int:
    where, values = _where(filter)
    statement = f"SELECT count(*) FROM journal WHERE {' AND '.join(where)}"  # noqa: S608 - built from our own words; values are bound
    return int(connection.execute(statement, values).fetchone()[0])


def _entries(
    connection: sqlite3.Connection, filter: JournalFilter, limit: int, place: int | None, descending: bool, by_time: bool
) -> list[tuple[int, Entry]]:
    where, values = _where(filter)
    if place is not None:
        before = "<" if descending else ">"
        if by_time:
            row = connection.execute("SELECT time FROM journal WHERE seq = ?", (place,)).fetchone()
            if row is None:
                raise NotFound("the entry of the cursor is no longer kept")
            where.append(f"(time, seq) {before} (?, ?)")
            values.append(row[0])
        else:
            where.append(f"seq {before} ?")
        values.append(place)
    direction = "DESC" if descending else "ASC"
    order = f"time {direction}, seq {direction}" if by_time else f"seq {direction}"
    statement = (
        "SELECT seq, stream, id, time, device, kind, severity, body FROM journal"  # noqa: S608 - built from our own words; values are bound
        f" WHERE {' AND '.join(where)} ORDER BY {order} LIMIT ?"
    )
    return [(seq, Entry(*rest)) for seq, *rest in connection.execute(statement, [*values, limit])]
