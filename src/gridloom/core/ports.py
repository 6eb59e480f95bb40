"""What the core asks of storage and bus, and simulators of each other: Protocols and the words they exchange.

A store keeps three things and nothing else: *samples* (readings of devices, by series), a *journal* (what happened, append-only:
events and the audit trail), and *documents* (state: devices, commands, transactions, accounts, alarms, the outbox, and
whatever an integration keeps). The rest of the core is written in these three words, so that an engine stays small and PostgreSQL can
be the second subject of the same contract suite.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from gridloom.core.model import Context, MeterReading, Phase, Quality, ReadingType, TimeSource

# --------------------------------------------------------------------------------------------------------------- samples


class Series(msgspec.Struct, frozen=True):
    """One series of the store: ``number`` is the engine's own, ``first`` and ``last`` the times (µs) of its samples."""

    number: int
    device: str
    type: ReadingType
    first: int
    last: int
    count: int


class SeriesFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which series: an absent member means any. ``tariffs``/``phases``/``locations`` may hold None for the total or none."""

    devices: tuple[str, ...] | None = None
    measurands: tuple[str, ...] | None = None
    phases: tuple[Phase | None, ...] | None = None
    tariffs: tuple[str | None, ...] | None = None
    locations: tuple[str | None, ...] | None = None


class Sample(msgspec.Struct, frozen=True):
    """One stored value of a series, as it was told: nothing is corrected in the store.

    ``received`` is the hub's clock at arrival; in compacted chunks it is kept to the second. A text value stands beside the
    numbers of its series; of the operators only count, first and last see it.
    """

    time: int
    received: int
    source: TimeSource
    value: int | float | str
    exponent: int
    context: Context = Context.PERIODIC
    quality: Quality = Quality.GOOD


class SamplePage(msgspec.Struct, frozen=True):
    """Samples of one series in ascending time. ``next`` continues, None is the end."""

    series: Series
    samples: tuple[Sample, ...]
    next: str | None = None


class Operator(enum.StrEnum):
    """What is made of the values of a step.

    ``delta`` is for registers: the sum of increases, booked in half-open steps ``(begin, end]`` on the step in which the later of
    two readings lies; resets, roll-overs and spikes are recognised and never become energy. The others look at ``[begin, end)``.
    """

    SUM = "sum"
    AVERAGE = "average"
    MINIMUM = "min"
    MAXIMUM = "max"
    COUNT = "count"
    FIRST = "first"
    LAST = "last"
    DELTA = "delta"


class Step(enum.StrEnum):
    """Length of a step. From ``day`` up they are cut by local time in the query's zone; days of 23 and 25 hours exist."""

    MINUTE_10 = "10m"
    MINUTE_15 = "15m"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"
    TOTAL = "total"


class AggregateQuery(msgspec.Struct, frozen=True):
    """One question over any device × measurand × phase × tariff × time × operator × step. ``begin``, ``end`` in µs, half-open.

    ``source``: samples timed by that clock only; None takes, per step, those of the device's clock where it has any, else the hub's, so
    that two clocks that differ never make a register appear to run backwards.
    """

    filter: SeriesFilter
    operator: Operator
    step: Step
    begin: int
    end: int
    zone: str = "UTC"
    include_suspect: bool = False
    source: TimeSource | None = None


class Bucket(msgspec.Struct, frozen=True):
    """One step of one series: exact ``value`` = ``mantissa * 10**exponent`` unless float or text; ``count`` samples were behind it.

    ``resets`` counts register resets and roll-overs met, ``rejected`` the samples left out as spikes or SUSPECT. ``since`` is the
    time of the reading that a delta was counted from: earlier than ``begin`` when it spans a gap.
    """

    begin: int
    end: int
    value: int | float | str
    exponent: int
    count: int
    since: int | None = None
    resets: int = 0
    rejected: int = 0


class AggregateRow(msgspec.Struct, frozen=True):
    """The buckets of one series in ascending time; a step without samples has no bucket: nothing is invented in a gap."""

    series: Series
    buckets: tuple[Bucket, ...]


class LatestValue(msgspec.Struct, frozen=True):
    """The newest value of a series and when it was of.

    Newest is the greatest ``time`` that is not more than 60 s ahead of its ``received`` (a clock that runs ahead must not freeze
    the picture); of equal times the later received.
    """

    device: str
    type: ReadingType
    time: int
    source: TimeSource
    received: int
    value: int | float | str
    exponent: int
    quality: Quality


class Samples(Protocol):
    """Readings of devices. Key: (series, time, source); the last write wins, so that a repeated append changes nothing."""

    async def append(self, batch: Sequence[MeterReading]) -> tuple[str, ...]:
        """Keep the batch, return the cursor of each after the group commit that holds them.

        The writer commits at once when idle and groups what arrives meanwhile. A MeterReading without readings is fine: its native message is kept.

        Raises StorageFull while the disk is full (the hub stays up; the caller counts what it could not keep).
        """
        ...

    async def series(self, filter: SeriesFilter) -> Sequence[Series]:
        """The series that match, ordered by device and type."""
        ...

    async def read(
        self, series: int, begin: int, end: int, *, limit: int = 10_000, cursor: str | None = None, descending: bool = False
    ) -> SamplePage:
        """Samples with ``begin <= time < end``, late ones merged, a page of at most ``limit``."""
        ...

    async def aggregate(self, query: AggregateQuery) -> Sequence[AggregateRow]:
        """Answer the question, from roll-ups where they suffice and from samples where not; the results are the same."""
        ...

    async def latest(self, filter: SeriesFilter) -> Sequence[LatestValue]:
        """The newest value of every series that matches, ordered by device and type."""
        ...

    async def native(self, device: str) -> bytes | None:
        """The newest native message of the device (msgpack of the integration's Struct), or None."""
        ...

    def since(self, cursor: str, *, limit: int = 1_000) -> AsyncIterator[tuple[str, MeterReading]]:
        """What was appended after ``cursor``, oldest first, each with its own cursor, without native messages.

        Raises NotFound when the cursor is older than what is kept for resuming.
        """
        ...


# --------------------------------------------------------------------------------------------------- journal and documents


class Document(msgspec.Struct, frozen=True):
    """State of the core or of an integration. ``body`` is JSON (msgspec-encoded by its owner); ``version`` starts at 1.

    ``keys`` are the declared index keys with their values, each findable by ``Documents.find``.
    """

    space: str
    kind: str
    id: str
    version: int
    body: bytes
    keys: Mapping[str, str]


class Put(msgspec.Struct, frozen=True):
    """Write a document. ``expect``: None whatever is there, 0 only if there is none, else only over that version.

    ``only_if_new`` is the (stream, id) of an Entry in the same commit: if that entry was already in the journal the write is left out (version
    0), so that an event delivered twice has no second effect. ``expires`` (µs): the engine may remove it from then on.
    """

    space: str
    kind: str
    id: str
    body: bytes
    keys: Mapping[str, str] = {}
    expect: int | None = None
    only_if_new: tuple[str, str] | None = None
    expires: int | None = None


class Delete(msgspec.Struct, frozen=True):
    """Remove a document; absent is no error unless ``expect`` names a version."""

    space: str
    kind: str
    id: str
    expect: int | None = None
    only_if_new: tuple[str, str] | None = None


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line for the journal. ``stream`` is ``event`` or ``audit``; (stream, id) is unique: a second entry with it is ignored."""

    stream: str
    id: str
    time: int
    device: str
    kind: str
    severity: int
    body: bytes


class Recorded(msgspec.Struct, frozen=True):
    """An entry as it stands in the journal, with the cursor behind it."""

    cursor: str
    entry: Entry


class Commit(msgspec.Struct, frozen=True):
    """What a ``commit`` did: the cursor behind it, the ids of entries that were already there, and the new versions of the puts."""

    cursor: str
    duplicates: frozenset[tuple[str, str]]
    versions: tuple[int, ...]


Write = Put | Delete | Entry


class JournalFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which entries: an absent member means any. Times in µs, half-open; ``kinds`` may end in ``.*``."""

    stream: str = "event"
    devices: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    min_severity: int = 0
    begin: int | None = None
    end: int | None = None


class Journal(Protocol):
    """What happened, append-only."""

    async def entries(
        self, filter: JournalFilter, *, limit: int = 1_000, cursor: str | None = None, descending: bool = True, by_time: bool = False
    ) -> Sequence[Recorded]:
        """Entries that match, in the order they were recorded in (or by their ``time``); ``cursor`` continues behind an entry.

        No entry ever appears behind a cursor that was already given out: who tails the journal from a kept cursor misses nothing.
        """
        ...

    async def count(self, filter: JournalFilter) -> int:
        """How many entries match."""
        ...


class Documents(Protocol):
    """Versioned JSON documents by (space, kind, id). ``space`` is ``core`` or the integration's name."""

    async def get(self, space: str, kind: str, id: str) -> Document | None:
        """The document, or None."""
        ...

    async def find(
        self, space: str, kind: str, keys: Mapping[str, str] | None = None, *, limit: int | None = None, after: str = "", descending: bool = False
    ) -> Sequence[Document]:
        """Documents whose index keys have all these values, ordered by id, those behind ``after``."""
        ...


class StoreStats(msgspec.Struct, frozen=True):
    """For metrics and the doctor. Bytes and counts; ``full`` while readings are paused."""

    samples: int
    series: int
    head_rows: int
    chunks: int
    bytes: int
    full: bool
    quarantined: str | None


class Store(Protocol):
    """A storage engine."""

    samples: Samples
    journal: Journal
    documents: Documents

    async def open(self) -> None:
        """Open, check and migrate. A damaged store is set aside (``stats().quarantined``) and a new one begun."""
        ...

    async def close(self) -> None:
        """Commit what is waiting and close."""
        ...

    async def commit(self, writes: Sequence[Write]) -> Commit:
        """All of the writes or none, on disk (fsync) before it returns. Raises Conflict when an ``expect`` is not met.

        Samples and journal share one sequence: the cursor of a commit (an empty one, too) is behind everything kept before it, and
        good for both.
        """
        ...

    async def compact(self) -> None:
        """Turn settled head rows into chunks, refresh roll-ups and apply retention now (else in the background, in slices)."""
        ...

    async def backup(self, path: str) -> None:
        """A consistent copy of everything while the store is in use."""
        ...

    async def stats(self) -> StoreStats:
        """Sizes and counts."""
        ...

    def watch_space(self, told: Callable[[bool], None]) -> None:
        """``told(True)`` when the disk is found full and readings pause, ``told(False)`` when they go on."""
        ...


# ------------------------------------------------------------------------------------------------------------------- bus


class Subscription(Protocol):
    """A bounded queue of messages; when it is full the oldest goes and ``dropped`` counts."""

    dropped: int

    def __aiter__(self) -> AsyncIterator[tuple[str, Any]]:
        """Yields (subject, message) until closed."""
        ...

    def close(self) -> None:
        """End it; a waiting iteration stops."""
        ...


class Bus(Protocol):
    """Tells, after the store has kept. Subjects are dotted words built by ``core.subjects``; ``*`` is one word, ``>`` the rest.

    Messages are the core's Structs. One that nobody hears is gone: what must not be lost is in the store.
    """

    def publish(self, subject: str, message: Any) -> None:
        """Tell everybody who listens. Never blocks, never raises for a slow listener."""
        ...

    def subscribe(self, pattern: str, *, size: int = 1_000) -> Subscription:
        """A queue of what matches."""
        ...

    def listen(self, pattern: str, hear: Callable[[str, Any], None]) -> Callable[[], None]:
        """Call ``hear`` (quick, synchronous) for what matches; the return value ends it."""
        ...

    def serve(self, subject: str, answer: Callable[[Any], Awaitable[Any]]) -> Callable[[], None]:
        """Be the one who answers this subject (the node that holds the link); the return value ends it."""
        ...

    async def request(self, subject: str, message: Any, timeout: float) -> Any:
        """Ask the one who serves the subject. Raises Offline when nobody does, DeviceTimeout when no answer came in time."""
        ...

    async def close(self) -> None:
        """End all subscriptions."""
        ...


# ------------------------------------------------------------------------------------------------ simulators of each other


class World(Protocol):
    """What a simulator asks of the small world it lives in (``demo.world``): the time, and the currents that others draw."""

    def now(self) -> int:
        """µs UTC of the world's own clock."""
        ...

    def current(self, place: str, phase: Phase) -> float:
        """Amperes drawn on a phase of a place (``house:1``…) now; negative when it feeds in. Raises KeyError for a place that is none."""
        ...
