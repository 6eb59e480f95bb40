"""Begin, end, and the readings that bound them: the metered intervals somebody may be billed for.

A transaction is known by its device and the vendor's own key; beginning or ending it again (a charger repeats itself after an outage) changes
nothing. Its id begins with the moment it started, so that the newest of a device is one step of an index, also after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from gridloom.core import ids
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, NotFound
from gridloom.core.intake import Intake
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.model import Event, MeterReading, Transaction, TransactionState
from gridloom.core.ports import Put, Store, Write

SPACE, KIND = "core", "transaction"
_NOWHERE = "-"

_decoder = msgspec.json.Decoder(Transaction)


class Transactions:
    """All transactions; those that run are in memory. ``events`` and ``writes`` of a change go into the same commit."""

    def __init__(self, *, store: Store, intake: Intake, clock: Clock) -> None:
        self._store = store
        self._intake = intake
        self._clock = clock
        self._running: dict[tuple[str, str], tuple[Transaction, int]] = {}
        self._locks = KeyedLock()

    async def load(self) -> None:
        """Read those that run. Call once."""
        for found in await self._store.documents.find(SPACE, KIND, {"state": TransactionState.RUNNING.value}):
            transaction = _decoder.decode(found.body)
            self._running[transaction.device, transaction.key] = (transaction, found.version)

    async def begin(self, transaction: Transaction, *, events: Sequence[Event] = (), writes: Sequence[Write] = ()) -> Transaction:
        """Keep a new transaction; its ``id`` is given here. One with the same device and key is returned as it is, and nothing is written.

        Raises what ``intake.events`` raises.
        """
        return await finish(self._begin(transaction, events, writes))

    async def update(
        self,
        device: str,
        key: str,
        *,
        data: dict[str, Any] | None = None,
        begin: MeterReading | None = None,
        identification: str | None = None,
        started: int | None = None,
        location: str | None = None,
        events: Sequence[Event] = (),
        writes: Sequence[Write] = (),
    ) -> Transaction:
        """What became known later; ``data`` is merged. The id stays, also when ``started`` is corrected. Raises NotFound."""
        changes = {"identification": identification, "started": started, "location": location, "begin": _plain(begin)}
        return await finish(self._change(device, key, {name: value for name, value in changes.items() if value is not None}, data, events, writes))

    async def end(
        self,
        device: str,
        key: str,
        *,
        ended: int,
        end: MeterReading | None = None,
        reason: str = "",
        data: dict[str, Any] | None = None,
        events: Sequence[Event] = (),
        writes: Sequence[Write] = (),
    ) -> Transaction:
        """It ended at ``ended`` (µs) with this reading, also if it was thought lost. One that has ended is returned as it is, and nothing is written.

        Raises NotFound.
        """
        changes = {"state": TransactionState.ENDED, "ended": ended, "end": _plain(end), "reason": reason}
        return await finish(self._change(device, key, changes, data, events, writes))

    async def lose(self, device: str, key: str, *, reason: str = "", events: Sequence[Event] = (), writes: Sequence[Write] = ()) -> Transaction:
        """Its end was not told and cannot be found now; ``end`` may still come. Raises NotFound, Conflict when it has ended."""
        return await finish(self._change(device, key, {"state": TransactionState.LOST, "reason": reason}, None, events, writes))

    async def get(self, id: str) -> Transaction:
        """Raises NotFound. Who may see it is asked by the caller (``transactions.read`` on its device)."""
        found = await self._store.documents.get(SPACE, KIND, id)
        if found is None:
            raise NotFound(f"there is no transaction {id[:60]!r}")
        return _decoder.decode(found.body)

    async def find(
        self,
        *,
        device: str | None = None,
        key: str | None = None,
        location: str | None = None,
        state: TransactionState | None = None,
        limit: int = 100,
        after: str = "",
    ) -> list[Transaction]:
        """Those that match, newest start first; ``after`` the id of the last one seen."""
        wanted = {"device": device, "key": key, "location": location, "state": None if state is None else state.value}
        keys = {name: value for name, value in wanted.items() if value is not None}
        found = await self._store.documents.find(SPACE, KIND, keys, limit=limit, after=after, descending=True)
        return [_decoder.decode(document.body) for document in found]

    def running(self, device: str) -> list[Transaction]:
        """Those of a device that run, oldest start first. From memory."""
        found = [transaction for (owner, _), (transaction, _) in self._running.items() if owner == device]
        return sorted(found, key=lambda transaction: (transaction.started, transaction.id))

    async def current(self, device: str, location: str | None = None) -> Transaction | None:
        """The one that runs (the newest start if there are more), at this location or anywhere."""
        found = [transaction for transaction in self.running(device) if location is None or transaction.location == location]
        return found[-1] if found else None

    async def last(self, device: str, location: str | None = None) -> Transaction | None:
        """The newest that has ended."""
        found = await self.find(device=device, location=location, state=TransactionState.ENDED, limit=1)
        return found[0] if found else None

    # ---------------------------------------------------------------------------------------------------------- details

    async def _lookup(self, device: str, key: str) -> tuple[Transaction, int] | None:
        running = self._running.get((device, key))
        if running is not None:
            return running
        found = await self._store.documents.find(SPACE, KIND, {"device": device, "key": key}, limit=1)
        return (_decoder.decode(found[0].body), found[0].version) if found else None

    async def _begin(self, transaction: Transaction, events: Sequence[Event], writes: Sequence[Write]) -> Transaction:
        async with self._locks.hold((transaction.device,)):
            existing = await self._lookup(transaction.device, transaction.key)
            if existing is not None:
                return existing[0]
            new = msgspec.structs.replace(
                transaction,
                id=ids.at(transaction.started, transaction.device, transaction.key),
                begin=_plain(transaction.begin),
                end=_plain(transaction.end),
            )
            await self._keep(new, 0, events, writes)
            return new

    async def _change(
        self, device: str, key: str, changes: dict[str, Any], data: dict[str, Any] | None, events: Sequence[Event], writes: Sequence[Write]
    ) -> Transaction:
        async with self._locks.hold((device,)):
            existing = await self._lookup(device, key)
            if existing is None:
                raise NotFound(f"{device} has no transaction {key[:60]!r}")
            old, version = existing
            if old.state is TransactionState.ENDED and "state" in changes:
                if changes["state"] is TransactionState.ENDED:
                    return old
                raise Conflict(f"transaction {key} of {device} has ended")
            new = msgspec.structs.replace(old, **changes, data=old.data | data if data else old.data)
            if new != old or events or writes:
                await self._keep(new, version, events, writes)
            return new

    async def _keep(self, transaction: Transaction, expect: int, events: Sequence[Event], writes: Sequence[Write]) -> None:
        keys = {
            "device": transaction.device,
            "key": transaction.key,
            "state": transaction.state.value,
            "location": transaction.location or _NOWHERE,
        }
        put = Put(SPACE, KIND, transaction.id, msgspec.json.encode(transaction), keys, expect=expect)
        await self._intake.events(events, [put, *writes])
        # The put is not the first of its commit (alarms and notifications stand before it), but its version is known: one more than before.
        if transaction.state is TransactionState.RUNNING:
            self._running[transaction.device, transaction.key] = (transaction, expect + 1)
        else:
            self._running.pop((transaction.device, transaction.key), None)


def _plain(reading: MeterReading | None) -> MeterReading | None:
    """Without the native message: a transaction is kept for years and read by everybody."""
    return None if reading is None else msgspec.structs.replace(reading, native=None)
