"""An integration's own shelf in the store: documents of its space and of no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gridloom.core.errors import Forbidden
from gridloom.core.ports import Commit, Delete, Document, Put, Store


class Space:
    """Reads and writes documents of one ``space`` (an integration's name). ``commit`` is durable when it returns."""

    def __init__(self, store: Store, space: str) -> None:
        self._store = store
        self.space = space

    async def get(self, kind: str, id: str) -> Document | None:
        """The document, or None."""
        return await self._store.documents.get(self.space, kind, id)

    async def find(
        self, kind: str, keys: Mapping[str, str] | None = None, *, limit: int | None = None, after: str = "", descending: bool = False
    ) -> Sequence[Document]:
        """Documents whose index keys have all these values, ordered by id."""
        return await self._store.documents.find(self.space, kind, keys, limit=limit, after=after, descending=descending)

    def put(
        self, kind: str, id: str, body: bytes, keys: Mapping[str, str] | None = None, *, expect: int | None = None, expires: int | None = None
    ) -> Put:
        """A write for ``commit``, or to go into the same commit as an event or an order's end."""
        return Put(self.space, kind, id, body, keys or {}, expect=expect, expires=expires)

    def delete(self, kind: str, id: str, *, expect: int | None = None) -> Delete:
        """A removal for ``commit``."""
        return Delete(self.space, kind, id, expect=expect)

    async def commit(self, writes: Sequence[Put | Delete]) -> Commit:
        """All of the writes or none. Raises Conflict when an ``expect`` is not met, Forbidden for a write to another space."""
        for write in writes:
            if write.space != self.space:
                raise Forbidden(f"{self.space} may not write documents of {write.space}")
        return await self._store.commit(writes)
