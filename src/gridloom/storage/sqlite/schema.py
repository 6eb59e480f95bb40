"""The tables, and the steps from each version of them to the next (``PRAGMA user_version``).

A step once released is never edited: a change is a new step. Before a store that holds anything is migrated, it is copied to
``NAME.before-vN``, which is the owner's to remove.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence

from gridloom.core.errors import StorageError

PAGE_SIZE = 4096

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE device (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, compacted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE shape (no INTEGER PRIMARY KEY, types BLOB NOT NULL UNIQUE);
CREATE TABLE series (
    no INTEGER PRIMARY KEY, device_no INTEGER NOT NULL, measurand TEXT NOT NULL, unit TEXT NOT NULL, phase TEXT, tariff TEXT, location TEXT,
    first INTEGER, last INTEGER, count INTEGER NOT NULL DEFAULT 0, traits INTEGER NOT NULL DEFAULT 0,
    chunks INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX series_device ON series (device_no);
CREATE INDEX series_measurand ON series (measurand);

CREATE TABLE head (
    seq INTEGER PRIMARY KEY, device_no INTEGER NOT NULL, shape_no INTEGER NOT NULL,
    time INTEGER NOT NULL, source INTEGER NOT NULL, received INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE latest (
    device_no INTEGER NOT NULL, shape_no INTEGER NOT NULL, time INTEGER NOT NULL, source INTEGER NOT NULL, received INTEGER NOT NULL,
    body BLOB NOT NULL, PRIMARY KEY (device_no, shape_no)
) WITHOUT ROWID;
CREATE TABLE native (device_no INTEGER PRIMARY KEY, time INTEGER NOT NULL, body BLOB NOT NULL);

CREATE TABLE chunk (
    series_no INTEGER NOT NULL, t_min INTEGER NOT NULL, t_max INTEGER NOT NULL, count INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (series_no, t_min)
) WITHOUT ROWID;

CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, id TEXT NOT NULL, time INTEGER NOT NULL, device TEXT NOT NULL,
    kind TEXT NOT NULL, severity INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (stream, id)
);
CREATE INDEX journal_device ON journal (stream, device);
CREATE INDEX journal_time ON journal (time);

CREATE TABLE document (
    space TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL, keys TEXT NOT NULL,
    expires INTEGER, PRIMARY KEY (space, kind, id)
);
CREATE INDEX document_expires ON document (expires) WHERE expires IS NOT NULL;
CREATE TABLE document_key (
    space TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (space, kind, name, value, id)
) WITHOUT ROWID;
CREATE INDEX document_key_id ON document_key (space, kind, id);
"""

_ROLLUPS = """
CREATE TABLE rollup (
    series_no INTEGER NOT NULL, source INTEGER NOT NULL, level INTEGER NOT NULL, period INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (series_no, source, level, period)
) WITHOUT ROWID;
ALTER TABLE series ADD COLUMN rolled INTEGER;
"""

Step = Callable[[sqlite3.Connection], None]


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Each statement by itself: ``executescript`` would commit, and a step is all or nothing."""
    for statement in script.split(";"):
        if statement.strip():
            connection.execute(statement)


def _tables(connection: sqlite3.Connection) -> None:
    _run(connection, _FIRST)
    connection.execute("INSERT INTO meta VALUES ('store', ?), ('floor', 0), ('seq', 0)", (secrets.token_hex(4),))


def _rollups(connection: sqlite3.Connection) -> None:
    _run(connection, _ROLLUPS)


STEPS: Sequence[Step] = (_tables, _rollups)
"""STEPS[n] brings a store from version n to n + 1."""


def version(connection: sqlite3.Connection) -> int:
    """The version of the tables in this file; 0 is an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> tuple[int, int]:
    """Bring the tables up to date; (version before, version after). Each step is one transaction with its version number.

    Raises StorageError for a file that a newer Gridloom has written.
    """
    before = version(connection)
    if before > len(steps):
        raise StorageError(f"the store has version {before}, this Gridloom knows up to {len(steps)}: use the newer Gridloom that wrote it")
    for number in range(before, len(steps)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            steps[number](connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return before, len(steps)
