"""The one durable queue: what must leave the hub some day, in order, however long the other side is away.

An entry is a document; it is put into somebody's own commit (``write``), so that there is never an event without its notification nor a notification
without its event, and survives a crash. Entries of one lane (queue, target, key) are delivered one after the other in the order they were
written; lanes do not wait for each other, and a target that is slow or failing holds only its own few places. Failing entries are tried again
with exponential back-off and jitter for 72 h and then kept as dead, for somebody to look at and to replay. At least once: after a
crash between delivery and commit an entry is delivered again, under the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from random import SystemRandom
from typing import Any, Literal

import msgspec

from gridloom.core import audit, ids
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, NotFound, StorageError
from gridloom.core.metrics import Metrics
from gridloom.core.model import Principal
from gridloom.core.ports import Delete, Put, Store, Write
from gridloom.core.settings import masked as without_credentials

log = logging.getLogger(__name__)

SPACE, KIND = "core", "outbox"
State = Literal["waiting", "delivered", "dead"]


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits. Times in seconds. ``waiting``/``dead``/``delivered``: entries kept per target; the oldest go first, and are counted.

    ``at_once``: deliveries under way per target. ``first_pause`` doubles with each failure up to ``longest_pause``.
    """

    patience: float = 72 * 3600.0
    first_pause: float = 5.0
    longest_pause: float = 3600.0
    at_once: int = 4
    attempts_kept: int = 10
    waiting: int = 20_000
    dead: int = 1_000
    delivered: int = 100


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try: when (µs), for how long (s), with which result in words and, if there was one, the other side's status. Holds no secrets."""

    time: int
    seconds: float
    result: str
    status: int | None = None


class Outgoing(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry. Times in µs: ``due`` when it is tried next, ``expires`` when it is given up. ``attempts`` are the last few, ``tries`` counts all."""

    id: str
    queue: str
    target: str
    key: str
    payload: Any
    created: int
    due: int
    expires: int
    state: State = "waiting"
    tries: int = 0
    attempts: tuple[Attempt, ...] = ()


class DeliveryFailed(Exception):
    """The other side did not take it.

    ``status`` is its answer if there was one; ``retry_after`` (s) what it asked for; ``permanent``: it is not tried again.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None, permanent: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.permanent = permanent


Deliver = Callable[[Outgoing], Awaitable[int | None]]
"""Delivers one entry: returns the other side's status if it has such a thing; raises DeliveryFailed, OSError or TimeoutError."""

_decoder = msgspec.json.Decoder(Outgoing)


class _Lane:
    """Entries that go one after the other."""

    __slots__ = ("busy", "due", "ids", "key", "queued", "target", "timer")

    def __init__(self, target: _Target, key: str) -> None:
        self.target = target
        self.key = key
        self.ids: list[str] = []
        self.due = 0
        self.busy = False
        self.queued = False
        self.timer = 0  # the moment it is to be woken at, if it is


class _Target:
    """Where entries of one queue go: its lanes, and what is under way."""

    __slots__ = ("active", "dead", "delivered", "held", "lanes", "name", "queue", "ready", "waiting")

    def __init__(self, queue: str, name: str) -> None:
        self.queue = queue
        self.name = name
        self.lanes: dict[str, _Lane] = {}
        self.ready: deque[_Lane] = deque()
        self.active = 0
        self.held = False
        self.waiting = 0
        self.dead: list[str] = []
        self.delivered: list[str] = []


class Outbox:
    """Memory knows the ids of what waits, by lane; contents stay in the store until they are due. ``jitter`` gives numbers from 0 to 1."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        metrics: Metrics | None = None,
        settings: OutboxSettings | None = None,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings or OutboxSettings()
        self._jitter = jitter or SystemRandom().random
        self._deliver: dict[str, Deliver] = {}
        self._targets: dict[tuple[str, str], _Target] = {}
        self._due: list[tuple[int, int, _Lane]] = []
        self._ticket = 0
        self._last = ""
        self._running = False
        self._wake = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        metrics = metrics or Metrics()
        self._attempts = metrics.counter("gridloom_outbox_attempts_total", "Deliveries tried, by queue and result.", ("queue", "result"))
        self._dropped = metrics.counter("gridloom_outbox_dropped_total", "Entries dropped because a bound was reached.", ("queue", "state"))
        self._seconds = metrics.histogram("gridloom_outbox_delivery_seconds", "How long deliveries took.", ("queue",))
        metrics.gauge("gridloom_outbox_entries", "Entries by queue and state.", ("queue", "state"), self._counts)

    # ----------------------------------------------------------------------------------------------------------- writing

    def write(self, queue: str, target: str, key: str, payload: Any) -> Put:
        """The write that queues ``payload`` (JSON values or a Struct, without secrets) for a target; to be put into a commit of the intake.

        Entries of one (queue, target, key) leave in the order of these calls. With ``only_if_new`` the write belongs to an event
        (``intake.accompany`` sees to that).
        """
        now = self._clock.now()
        id = ids.unique(now)
        if id <= self._last:  # the same µs, or a clock that was set back: order is by id
            id = f"{int(self._last, 16) + 1:032x}"
        self._last = id
        entry = Outgoing(id, queue, target, key, payload, now, now, now + int(self._settings.patience * 1_000_000))
        return _put(entry, expect=0)

    def told(self, writes: Sequence[Write]) -> None:
        """These writes are committed: deliver the entries among them. (The intake does this for its own commits.)"""
        for write in writes:
            if isinstance(write, Put) and write.space == SPACE and write.kind == KIND and write.keys.get("state") == "waiting":
                self._enqueue(write.id, write.keys["queue"], write.keys["target"], write.keys["key"], 0)

    # ---------------------------------------------------------------------------------------------------------- running

    def register(self, queue: str, deliver: Deliver) -> None:
        """Who delivers the entries of a queue. Entries of a queue that nobody has registered wait."""
        self._deliver[queue] = deliver
        for target in self._targets.values():
            if target.queue == queue:
                self._release(target)

    async def load(self) -> None:
        """Find what is to be delivered, and what was. Call once, before ``start`` and before the intake opens."""
        for state in ("delivered", "dead", "waiting"):
            after = ""
            while True:
                found = await self._store.documents.find(SPACE, KIND, {"state": state}, limit=1_000, after=after)
                for document in found:
                    keys = document.keys
                    self._last = max(self._last, document.id)
                    target = self._target(keys["queue"], keys["target"])
                    if state == "waiting":
                        entry = _decoder.decode(document.body)
                        self._enqueue(entry.id, entry.queue, entry.target, entry.key, entry.due)
                    else:
                        (target.dead if state == "dead" else target.delivered).append(document.id)
                if len(found) < 1_000:
                    break
                after = found[-1].id

    async def start(self) -> None:
        """Begin to deliver."""
        self._running = True
        self._timer = asyncio.ensure_future(self._watch())
        for target in self._targets.values():
            self._release(target)

    async def stop(self) -> None:
        """Deliver no more; what is under way is given up and will be delivered again after the next start."""
        self._running = False
        tasks = [*self._tasks, *([self._timer] if self._timer is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._timer = None

    def hold(self, queue: str, target: str) -> None:
        """Deliver nothing to this target until ``release``; what comes waits."""
        self._target(queue, target).held = True

    def release(self, queue: str, target: str) -> None:
        """Go on, at once."""
        found = self._target(queue, target)
        found.held = False
        for lane in found.lanes.values():
            lane.due = 0
        self._release(found)

    async def discard(self, queue: str, target: str) -> int:
        """Forget all entries of a target (its subscription is gone), also delivered and dead ones. Returns how many."""
        found = self._targets.pop((queue, target), None)
        if found is not None:
            found.held = True
            for lane in found.lanes.values():
                lane.ids.clear()
        gone = 0
        while True:
            documents = await self._store.documents.find(SPACE, KIND, {"queue": queue, "target": target}, limit=500)
            if not documents:
                return gone
            await self._store.commit([Delete(SPACE, KIND, document.id) for document in documents])
            gone += len(documents)

    # ---------------------------------------------------------------------------------------------------------- looking

    async def get(self, id: str) -> Outgoing:
        """Raises NotFound."""
        document = await self._store.documents.get(SPACE, KIND, id)
        if document is None:
            raise NotFound(f"there is no outbox entry {id[:60]!r}")
        return _decoder.decode(document.body)

    async def list(
        self, *, queue: str | None = None, target: str | None = None, state: State | None = None, limit: int = 100, after: str = ""
    ) -> Sequence[Outgoing]:
        """Entries, newest first; ``after`` the id of the last one seen. Who may see them is asked by the caller (``hub.read``, ``webhooks.read``)."""
        keys = {name: value for name, value in (("queue", queue), ("target", target), ("state", state)) if value is not None}
        found = await self._store.documents.find(SPACE, KIND, keys, limit=limit, after=after, descending=True)
        return [_decoder.decode(document.body) for document in found]

    async def log(self, queue: str, target: str, *, limit: int = 100) -> Sequence[tuple[Outgoing, Attempt]]:
        """The last attempts to deliver to a target, newest first."""
        entries = await self.list(queue=queue, target=target, limit=limit)
        attempts = [(entry, attempt) for entry in entries for attempt in entry.attempts]
        return sorted(attempts, key=lambda pair: pair[1].time, reverse=True)[:limit]

    async def replay(self, id: str, principal: Principal | None = None) -> Outgoing:
        """Deliver a dead or delivered entry again, as if it were new but under the same id. Raises NotFound, Conflict when it waits anyway."""
        document = await self._store.documents.get(SPACE, KIND, id)
        if document is None:
            raise NotFound(f"there is no outbox entry {id[:60]!r}")
        entry = _decoder.decode(document.body)
        if entry.state == "waiting":
            raise Conflict(f"{id} waits to be delivered anyway")
        now = self._clock.now()
        again = msgspec.structs.replace(entry, state="waiting", due=now, expires=now + int(self._settings.patience * 1_000_000), tries=0)
        data = {"replayed": entry.state, "queue": entry.queue, "target": entry.target}
        line = audit.entry(self._clock, principal, "outbox.manage", id, "done", data=data)
        put = _put(again, expect=document.version)
        await self._store.commit([put, line])
        target = self._target(entry.queue, entry.target)
        for kept in (target.dead, target.delivered):
            if id in kept:
                kept.remove(id)
        self.told([put])
        return again

    # ---------------------------------------------------------------------------------------------------------- details

    def _target(self, queue: str, name: str) -> _Target:
        found = self._targets.get((queue, name))
        if found is None:
            found = self._targets[(queue, name)] = _Target(queue, name)
        return found

    def _enqueue(self, id: str, queue: str, name: str, key: str, due: int) -> None:
        target = self._target(queue, name)
        lane = target.lanes.get(key)
        if lane is None:
            lane = target.lanes[key] = _Lane(target, key)
        place = bisect_left(lane.ids, id)
        if place < len(lane.ids) and lane.ids[place] == id:
            return
        if place == 0 and not lane.busy:
            lane.due = due
        insort(lane.ids, id)
        target.waiting += 1
        if target.waiting > self._settings.waiting:
            self._drop_oldest(target)
        self._ready(lane)

    def _drop_oldest(self, target: _Target) -> None:
        """A target that is away for too long loses its oldest entries, and that is counted; what is under way is left alone."""
        lanes = [lane for lane in target.lanes.values() if len(lane.ids) > (1 if lane.busy else 0)]
        if not lanes:
            return
        lane = min(lanes, key=lambda lane: lane.ids[1 if lane.busy else 0])
        id = lane.ids.pop(1 if lane.busy else 0)
        target.waiting -= 1
        self._dropped.inc(queue=target.queue, state="waiting")
        log.warning("an entry that waited too long was dropped", extra={"queue": target.queue, "target": target.name, "id": id})
        self._spawn(self._forget([id]))

    async def _forget(self, gone: Sequence[str]) -> None:
        try:
            await self._store.commit([Delete(SPACE, KIND, id) for id in gone])
        except StorageError as error:
            log.error("entries of the outbox could not be removed", extra={"entries": len(gone), "reason": error.message})

    def _release(self, target: _Target) -> None:
        for lane in list(target.lanes.values()):
            self._ready(lane)

    def _ready(self, lane: _Lane) -> None:
        """Deliver the lane's next entry as soon as it is due and there is a place."""
        target = lane.target
        if not self._running or lane.busy or lane.queued or not lane.ids or target.held or target.queue not in self._deliver:
            return
        if lane.due > self._clock.now():
            if lane.timer == lane.due:
                return
            lane.timer = lane.due
            self._ticket += 1
            heapq.heappush(self._due, (lane.due, self._ticket, lane))
            if self._due[0][2] is lane:
                self._wake.set()
            return
        lane.queued = True
        target.ready.append(lane)
        self._pump(target)

    def _pump(self, target: _Target) -> None:
        while self._running and not target.held and target.ready and target.active < self._settings.at_once:
            lane = target.ready.popleft()
            lane.queued = False
            if not lane.ids or lane.busy:
                continue
            lane.busy = True
            target.active += 1
            self._spawn(self._turn(lane))
        if target.held:
            for lane in target.ready:
                lane.queued = False
            target.ready.clear()

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _turn(self, lane: _Lane) -> None:
        """One entry of a lane, then it is the next lane's turn."""
        target = lane.target
        try:
            await self._head(lane)
        except StorageError as error:
            lane.due = self._clock.now() + int(self._settings.first_pause * 1_000_000)
            log.error("the outbox cannot use the store", extra={"queue": target.queue, "target": target.name, "reason": error.message})
        finally:
            lane.busy = False
            target.active -= 1
            if not lane.ids and target.lanes.get(lane.key) is lane:
                del target.lanes[lane.key]
        self._ready(lane)
        self._pump(target)

    async def _head(self, lane: _Lane) -> None:
        id = lane.ids[0]
        document = await self._store.documents.get(SPACE, KIND, id)
        entry = None if document is None else _decoder.decode(document.body)
        if document is None or entry is None or entry.state != "waiting":
            self._leave(lane, id)
            return
        began = self._clock.monotonic()
        failure: DeliveryFailed | None = None
        status: int | None = None
        try:
            status = await self._deliver[entry.queue](entry)
        except DeliveryFailed as failed:
            failure = failed
        except (OSError, TimeoutError) as error:
            failure = DeliveryFailed(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        except Exception as error:  # somebody's delivery is broken: that entry fails, the outbox goes on
            log.exception("a delivery failed unexpectedly", extra={"queue": entry.queue, "target": entry.target, "id": id})
            failure = DeliveryFailed(f"internal error: {type(error).__name__}")
        seconds = self._clock.monotonic() - began
        now = self._clock.now()
        self._seconds.observe(seconds, queue=entry.queue)
        result = "delivered" if failure is None else without_credentials(failure.message)[:300]
        attempt = Attempt(now, round(seconds, 3), result, status if failure is None else failure.status)
        attempts = (*entry.attempts, attempt)[-self._settings.attempts_kept :]
        entry = msgspec.structs.replace(entry, tries=entry.tries + 1, attempts=attempts)
        if failure is None:
            await self._settle(lane, entry, "delivered", document.version)
        elif failure.permanent or now >= entry.expires:
            where = {"queue": entry.queue, "target": entry.target, "id": id, "result": result}
            log.error("an entry could not be delivered and is given up", extra=where)
            await self._settle(lane, entry, "dead", document.version)
        else:
            self._attempts.inc(queue=entry.queue, result="failed")
            pause = min(self._settings.first_pause * 2 ** min(entry.tries - 1, 30), self._settings.longest_pause)
            pause *= 0.5 + 0.5 * self._jitter()
            if failure.retry_after is not None:
                pause = min(max(pause, failure.retry_after), self._settings.longest_pause)
            entry = msgspec.structs.replace(entry, due=min(now + int(pause * 1_000_000), entry.expires))
            lane.due = entry.due
            await self._commit([_put(entry, expect=document.version)])

    async def _settle(self, lane: _Lane, entry: Outgoing, state: State, version: int) -> None:
        """The entry is done with, one way or the other; the oldest of its kind beyond the bound goes with the same commit."""
        target = lane.target
        self._attempts.inc(queue=entry.queue, result=state)
        kept = target.dead if state == "dead" else target.delivered
        most = self._settings.dead if state == "dead" else self._settings.delivered
        gone = kept[: max(len(kept) + 1 - most, 0)]
        entry = msgspec.structs.replace(entry, state=state)
        writes: list[Write] = [_put(entry, expect=version), *(Delete(SPACE, KIND, id) for id in gone)]
        if most == 0:
            writes = [Delete(SPACE, KIND, entry.id)]
        await self._commit(writes)
        if state == "dead" and gone:
            self._dropped.inc(len(gone), queue=entry.queue, state="dead")
        del kept[: len(gone)]
        if most:
            kept.append(entry.id)
        self._leave(lane, entry.id)

    async def _commit(self, writes: Sequence[Write]) -> None:
        # Discarded, or replayed, while it was under way: what the store says now is looked at in the next turn.
        with contextlib.suppress(Conflict):
            await self._store.commit(writes)

    def _leave(self, lane: _Lane, id: str) -> None:
        place = bisect_left(lane.ids, id)
        if place < len(lane.ids) and lane.ids[place] == id:
            del lane.ids[place]
            lane.target.waiting -= 1
        lane.due = 0

    async def _watch(self) -> None:
        """Wakes lanes whose pause is over."""
        while True:
            self._wake.clear()
            now = self._clock.now()
            while self._due and self._due[0][0] <= now:
                lane = heapq.heappop(self._due)[2]
                lane.timer = 0
                self._ready(lane)
            pause = None if not self._due else max((self._due[0][0] - now) / 1_000_000, 0.001)
            try:
                await self._clock.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue

    def _counts(self) -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for target in self._targets.values():
            for state, number in (("waiting", target.waiting), ("dead", len(target.dead)), ("delivered", len(target.delivered))):
                counts[target.queue, state] = counts.get((target.queue, state), 0) + number
        return counts


def _put(entry: Outgoing, *, expect: int) -> Put:
    keys = {"queue": entry.queue, "target": entry.target, "key": entry.key, "state": entry.state}
    return Put(SPACE, KIND, entry.id, msgspec.json.encode(entry), keys, expect=expect)
