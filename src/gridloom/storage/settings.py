"""What an owner may set about the store (``[storage]`` of the configuration): how long things are kept, and its limits.

The defaults suit one hub with some hundred devices on a small computer. An engine takes this Struct as it is.
"""

from __future__ import annotations

import msgspec


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many days each kind is kept; None is for ever. Roll-ups outlive the samples they were made of.

    ``samples`` are readings as they were told, ``ten_minutes``, ``hours`` and ``days`` the roll-ups, ``events`` the journal
    (events and the audit trail).
    """

    samples: int | None = None
    ten_minutes: int | None = None
    hours: int | None = None
    days: int | None = None
    events: int | None = None


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and habits of a store. Times in seconds, sizes in bytes or rows.

    ``zone`` (IANA) cuts the days of the day roll-up: questions by day in another zone are answered from finer ones.
    ``resume_seconds``: how long the live stream can be resumed behind a cursor, but over no more than ``resume_rows`` readings.
    ``compact_rows`` / ``compact_seconds``: a device's readings leave the head for chunks when it has so many, or so old ones.
    ``head_rows``: above so many uncompacted readings in all, everything is compacted whatever its age.
    ``group_rows``: at most so many readings in one transaction, so that a ``commit`` never waits long behind them.
    ``queue_rows`` / ``queue_bytes``: what may wait for the writer; beyond it ``append`` waits before it takes more.
    ``probe_seconds``: how often a full disk is tried again. ``check_seconds``: the longest a check at start may take.
    ``quarantine``: whether a damaged store is set aside and a new one begun; else opening it raises StorageCorrupt and touches nothing.
    ``background``: whether compaction, roll-ups and retention run by themselves (tests call ``compact()`` instead).
    """

    retention: Retention = Retention()
    zone: str = "UTC"
    resume_seconds: float = 300.0
    resume_rows: int = 500_000
    compact_rows: int = 256
    compact_seconds: float = 3600.0
    head_rows: int = 200_000
    group_rows: int = 512
    queue_rows: int = 20_000
    queue_bytes: int = 32 * 1024 * 1024
    probe_seconds: float = 1.0
    check_seconds: float = 10.0
    readers: int = 2
    background: bool = True
    quarantine: bool = True
