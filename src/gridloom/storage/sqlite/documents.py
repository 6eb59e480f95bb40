"""``ports.Documents`` on SQLite. Writing is ``Store.commit``."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from gridloom.core.ports import Document
from gridloom.storage.sqlite.readers import Readers

_keys = msgspec.json.Decoder(dict[str, str])


class SqliteDocuments:
    """State of the core and of integrations."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def get(self, space: str, kind: str, id: str) -> Document | None:
        """See ``ports.Documents.get``."""
        return await self._readers.run(_get, space, kind, id)

    async def find(
        self, space: str, kind: str, keys: Mapping[str, str] | None = None, *, limit: int | None = None, after: str = "", descending: bool = False
    ) -> Sequence[Document]:
        """See ``ports.Documents.find``."""
        return await self._readers.run(_find, space, kind, dict(keys or {}), limit, after, descending)


def _get(connection: sqlite3.Connection, space: str, kind: str, id: str) -> Document | None:
    row = connection.execute("SELECT version, body, keys FROM document WHERE space = ? AND kind = ? AND id = ?", (space, kind, id)).fetchone()
    return None if row is None else Document(space, kind, id, row[0], row[1], _keys.decode(row[2]))


def _find(
    connection: sqlite3.Connection, space: str, kind: str, keys: dict[str, str], limit: int | None, after: str, descending: bool
) -> list[Document]:
    where = "d.space = ? AND d.kind = ?"
    values: list[str | int] = [space, kind]
    if after:
        where += " AND d.id < ?" if descending else " AND d.id > ?"
        values.append(after)
    for name, value in keys.items():
        where += " AND d.id IN (SELECT id FROM document_key WHERE space = ? AND kind = ? AND name = ? AND value = ?)"
        values += [space, kind, name, value]
    statement = (
        f"SELECT d.id, d.version, d.body, d.keys FROM document d WHERE {where}"  # noqa: S608 - built from our own words; values are bound
        f" ORDER BY d.id {'DESC' if descending else 'ASC'} LIMIT ?"
    )
    rows = connection.execute(statement, [*values, -1 if limit is None else limit])
    return [Document(space, kind, id, version, body, _keys.decode(found)) for id, version, body, found in rows]
