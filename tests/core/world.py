"""A hub's core over the real store, as app.py puts it together, for tests; ``again`` opens it anew as after a crash."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gridloom.bus.memory import MemoryBus
from gridloom.core.accounts import Accounts
from gridloom.core.alarms import Alarms
from gridloom.core.clock import Clock
from gridloom.core.commands import Commands
from gridloom.core.intake import Intake
from gridloom.core.metrics import Metrics
from gridloom.core.model import Command, Device, MeterReading, Phase, Principal, Quality, Reading, ReadingType, TimeSource
from gridloom.core.outbox import Outbox, OutboxSettings
from gridloom.core.ports import JournalFilter
from gridloom.core.query import Query
from gridloom.core.registry import Registry
from gridloom.core.transactions import Transactions
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore

DAY = 1_764_000_000_000_000  # µs: some day in November 2025

METER = Device(
    id="dummy:m1", integration="dummy", identity="m1",
    verbs=("relay.set", "device.poll", "charge.limit", "device.identify"), measurands=("Voltage", "Power.Active.Import"),
)  # fmt: skip
VOLTAGE = ReadingType("Voltage", "V", Phase.L1)


def reading(
    value: float | int | str, time: int, *, device: str = METER.id, type: ReadingType = VOLTAGE, native: Any = None, quality: Quality = Quality.GOOD
) -> MeterReading:
    """One value of one device, told by its own clock at ``time`` (µs)."""
    return MeterReading(device, time, time, (Reading(type, value, quality=quality),), TimeSource.DEVICE, native)


class World:
    """Everything of the core, connected."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        node: str | None = None,
        bus: MemoryBus | None = None,
        store: SqliteStore | None = None,
        outbox: OutboxSettings | None = None,
    ) -> None:
        self.path = path
        self.clock = clock
        self.metrics = Metrics()
        self.store = store or SqliteStore(path / "test.db", clock, StorageSettings())
        self.own_store = store is None
        self.bus = bus or MemoryBus(clock)
        self.accounts = Accounts(store=self.store, clock=clock)
        self.registry = Registry(store=self.store, bus=self.bus, clock=clock, accounts=self.accounts, metrics=self.metrics, node=node)
        self.alarms = Alarms(store=self.store, bus=self.bus, clock=clock, registry=self.registry, accounts=self.accounts)
        self.outbox = Outbox(store=self.store, clock=clock, metrics=self.metrics, settings=outbox, jitter=lambda: 1.0)
        self.intake = Intake(
            store=self.store, registry=self.registry, bus=self.bus, clock=clock, alarms=self.alarms, outbox=self.outbox, metrics=self.metrics
        )
        self.commands = Commands(
            store=self.store, registry=self.registry, accounts=self.accounts, bus=self.bus, clock=clock, intake=self.intake, metrics=self.metrics
        )
        self.transactions = Transactions(store=self.store, intake=self.intake, clock=clock)
        self.query = Query(store=self.store, registry=self.registry, accounts=self.accounts, clock=clock)
        self.admin = Principal("admin", ())
        self.abandoned: list[World] = []

    async def open(self) -> World:
        if self.own_store:
            await self.store.open()
        await self.accounts.load()
        await self.accounts.bootstrap()
        self.admin = self.accounts.principal("admin", address="127.0.0.1", client="test")
        await self.registry.load()
        await self.alarms.load()
        await self.outbox.load()
        await self.transactions.load()
        await self.intake.start()
        return self

    async def again(self) -> World:
        """The same hub after a crash at this moment: a new one over a copy of the files as they are; nothing of this one is closed or told."""
        path = self.path / "again"
        path.mkdir()
        log = self.path / "test.db-wal"
        while True:  # a log that was begun anew while we copied the database would lack what the copy lacks: copy again
            begun = log.read_bytes()[:32]
            shutil.copy(self.path / "test.db", path / "test.db")
            shutil.copy(log, path / "test.db-wal")
            if log.read_bytes()[:32] == begun:
                break
        new = World(path, self.clock, outbox=self.outbox._settings)
        new.abandoned = [*self.abandoned, self]
        return await new.open()

    async def close(self) -> None:
        for world in (*self.abandoned, self):
            await world.commands.stop(grace=0.0)
            await world.outbox.stop()
            await world.registry.close()
            await world.intake.stop()
            await world.bus.close()
            if world.own_store:
                await world.store.close()

    async def events(self, kind: str | None = None) -> Sequence[str]:
        """``kind state`` of what the journal has, oldest first."""
        await self.registry.settle()
        found = await self.query.events(self.admin, kinds=None if kind is None else (kind,), descending=False, limit=1_000)
        return [f"{event.kind} {event.state.value}" for event in found.events]

    async def trail(self) -> Sequence[str]:
        """``action target result`` of the audit trail, oldest first."""
        found = await self.store.journal.entries(JournalFilter(stream="audit"), descending=False)
        from gridloom.core import audit

        lines = [audit.decode(one.entry) for one in found]
        return [f"{line.action} {line.target} {line.result}" for line in lines]


class Arm:
    """An executor that notes what it was asked, and answers as told."""

    def __init__(self, answer: Callable[[Command], Any] = lambda command: {"ok": True}) -> None:
        self.seen: list[Command] = []
        self.answer = answer
        self.gate: asyncio.Event | None = None

    async def __call__(self, command: Command) -> Any:
        self.seen.append(command)
        if self.gate is not None:
            await self.gate.wait()
        result = self.answer(command)
        if isinstance(result, BaseException):
            raise result
        return result


async def until(condition: Callable[[], Any], timeout: float = 5.0) -> None:
    """Real seconds until the condition holds."""

    async def look() -> None:
        while not condition():
            await asyncio.sleep(0.002)

    await asyncio.wait_for(look(), timeout)
