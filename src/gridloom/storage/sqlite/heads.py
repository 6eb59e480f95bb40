"""Which rows of the head are not compacted yet, by device: in memory, because an index would cost more than the rows.

(An index of the head by device puts every row of a group on another page: a hundred meters that speak once a second would make the WAL grow
by a page for each row.) A row stands here from the commit that wrote it until after the commit that compacted it; so a reader who looks here and
then keeps only rows above its own snapshot's ``device.compacted`` has them all, except when a compaction ended in between: ``trimmed`` tells.
"""

from __future__ import annotations

import sqlite3
import threading
from array import array
from collections.abc import Sequence

import msgspec

from gridloom.storage.sqlite.catalogue import Catalogue, Kept

_PAGE = 4000

HeadRow = tuple[int, int, int, int, int, bytes]
"""(seq, shape, time, source, received, body)."""


class Pending(msgspec.Struct):
    """Uncompacted rows of a device in ascending order; those up to ``trimmed`` are compacted and no longer listed."""

    seqs: array[int]
    trimmed: int = 0


class Heads:
    """Used by the writer's thread (``add``), maintenance (``trim``) and readers, under one lock.

    What an earlier run left is loaded when it is first needed.
    """

    def __init__(self, opened_at: int, catalogue: Catalogue) -> None:
        self._opened_at = opened_at
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._loaded = False
        self._devices: dict[int, Pending] = {}
        self._rows = 0
        self._samples = 0
        self._table_rows = 0

    def add(self, first: int, kept: Sequence[Kept], samples: int) -> None:
        """Rows that have just been committed, with consecutive numbers from ``first``, and how many readings they hold."""
        with self._lock:
            devices = self._devices
            for seq, one in enumerate(kept, first):
                pending = devices.get(one[0].no)
                if pending is None:
                    pending = devices[one[0].no] = Pending(array("q"))
                pending.seqs.append(seq)
            self._rows += len(kept)
            self._table_rows += len(kept)
            self._samples += samples

    def trim(self, device_no: int, upto: int, samples: int) -> None:
        """The rows of a device up to this one have been compacted (committed); they held so many readings."""
        with self._lock:
            pending = self._devices[device_no]
            keep = array("q", [seq for seq in pending.seqs if seq > upto])
            self._rows -= len(pending.seqs) - len(keep)
            pending.seqs = keep
            pending.trimmed = max(pending.trimmed, upto)
            self._samples -= samples

    def forgotten(self, rows: int) -> None:
        """So many compacted rows have been removed from the table."""
        with self._lock:
            self._table_rows -= rows

    def load(self, connection: sqlite3.Connection) -> None:
        """Find the uncompacted rows that were there when the store was opened, once."""
        with self._loading:
            if not self._loaded:
                self._find(connection)

    def _find(self, connection: sqlite3.Connection) -> None:
        text = connection.execute(
            "SELECT group_concat(h.seq || ',' || h.device_no, ';') FROM head h JOIN device d ON d.no = h.device_no"
            " WHERE h.seq > d.compacted AND h.seq <= ?",
            (self._opened_at,),
        ).fetchone()[0]
        shapes = connection.execute(
            "SELECT h.shape_no, count(*) FROM head h JOIN device d ON d.no = h.device_no WHERE h.seq > d.compacted AND h.seq <= ? GROUP BY 1",
            (self._opened_at,),
        ).fetchall()
        samples = sum([count * len(self._catalogue.types(connection, shape_no) or ()) for shape_no, count in shapes])
        table_rows = connection.execute("SELECT count(*) FROM head WHERE seq <= ?", (self._opened_at,)).fetchone()[0]
        found: dict[int, list[int]] = {}
        for row in text.split(";") if text else []:
            seq, _, device_no = row.partition(",")
            found.setdefault(int(device_no), []).append(int(seq))
        with self._lock:
            for no, seqs in found.items():
                pending = self._devices.setdefault(no, Pending(array("q")))
                pending.seqs = array("q", sorted(seqs)) + pending.seqs
                self._rows += len(seqs)
            self._samples += samples
            self._table_rows += table_rows
            self._loaded = True

    def counts(self) -> dict[int, tuple[int, int]]:
        """Per device that has any: (how many uncompacted rows, the first)."""
        with self._lock:
            return {no: (len(pending.seqs), pending.seqs[0]) for no, pending in self._devices.items() if pending.seqs}

    def sizes(self) -> tuple[int, int, int]:
        """(rows of the table, uncompacted ones of them, readings in these)."""
        with self._lock:
            return self._table_rows, self._rows, self._samples

    def up_to(self, seq: int) -> list[int]:
        """All uncompacted rows up to this one, in no order."""
        with self._lock:
            return [one for pending in self._devices.values() if pending.seqs and pending.seqs[0] <= seq for one in pending.seqs if one <= seq]

    def read(self, connection: sqlite3.Connection, device_no: int, compacted: int, limit: int | None = None) -> list[HeadRow]:
        """The uncompacted rows of a device in order: those above ``compacted``, as the connection's transaction sees it."""
        self.load(connection)
        with self._lock:
            pending = self._devices.get(device_no)
            seqs = [] if pending is None else [seq for seq in pending.seqs if seq > compacted]
            trimmed = 0 if pending is None else pending.trimmed
        rows: list[HeadRow] = []
        if trimmed > compacted:
            # A compaction ended after the transaction began: to the transaction these rows are still uncompacted.
            rows += _packed(connection, "seq > ? AND seq <= ? AND device_no = ?", (compacted, trimmed, device_no))
        if limit is not None:
            seqs = seqs[:limit]
        for start in range(0, len(seqs), _PAGE):
            rows += _packed(connection, "seq IN (SELECT value FROM json_each(?))", (msgspec.json.encode(seqs[start : start + _PAGE]).decode(),))
        rows.sort()
        return rows


def _packed(connection: sqlite3.Connection, where: str, values: tuple[int | str, ...]) -> list[HeadRow]:
    """Head rows as one text: sqlite3 gives the interpreter up for every row it fetches, and getting it back beside a busy event loop costs more
    than packing and unpacking them."""
    statement = (
        "SELECT group_concat(seq || ',' || shape_no || ',' || time || ',' || source || ',' || received || ',' || hex(body), ';')"  # noqa: S608
        f" FROM head WHERE {where}"
    )
    text = connection.execute(statement, values).fetchone()[0]
    if text is None:
        return []
    rows = []
    for row in text.split(";"):
        seq, shape_no, time, source, received, body = row.split(",")
        rows.append((int(seq), int(shape_no), int(time), int(source), int(received), bytes.fromhex(body)))
    return rows
