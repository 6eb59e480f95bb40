"""A real hub behind a real socket, for the tests of the web room: every part is the shipped one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from gridloom.bus.memory import MemoryBus
from gridloom.core.accounts import Accounts
from gridloom.core.alarms import Alarms
from gridloom.core.clock import Clock
from gridloom.core.commands import Commands
from gridloom.core.documents import Space
from gridloom.core.hub import Hub
from gridloom.core.intake import Intake
from gridloom.core.metrics import Metrics
from gridloom.core.model import Device, DeviceKind, Event, MeterReading, Phase, Quality, Reading, ReadingType, Role
from gridloom.core.outbox import Outbox
from gridloom.core.query import Query
from gridloom.core.registry import Registry
from gridloom.core.transactions import Transactions
from gridloom.storage.settings import StorageSettings
from gridloom.storage.sqlite.store import SqliteStore
from gridloom.web.metrics import Reason
from gridloom.web.server import HttpServer, create
from gridloom.web.settings import WebSettings

ENERGY = ReadingType("Energy.Active.Import.Register", "Wh")
POWER = ReadingType("Power.Active.Import", "W", phase=Phase.L1)
VOLTAGE = ReadingType("Voltage", "V", phase=Phase.L1)


class PlainHasher:
    """Stands where argon2 stands in the real hub (``app`` gives that): the web room does not care how a password is hashed."""

    def hash(self, password: str) -> str:
        return "plain:" + password

    def verify(self, hash: str, password: str) -> bool:
        return hash == "plain:" + password


class Running:
    """One hub, listening."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.clock = Clock()
        self.settings = WebSettings(**{"loopback": True, "version": "0.0-test", "heartbeat": 0.3, "stream_interval": 0.02, **settings})
        self.reasons: list[Reason] = []
        self.store = SqliteStore(path / "gridloom.db", self.clock, StorageSettings())
        self.tls: tuple[str, str] | None = None
        self.routers: Sequence[Any] = ()
        self.url = ""
        self.tokens: dict[str, str] = {}

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Running:
        await self.store.open()
        store, clock = self.store, self.clock
        metrics, bus = Metrics(), MemoryBus(clock)
        accounts = Accounts(store=store, clock=clock, hasher=PlainHasher())
        await accounts.load()
        registry = Registry(store=store, bus=bus, clock=clock, accounts=accounts, metrics=metrics)
        await registry.load()
        alarms = Alarms(store=store, bus=bus, clock=clock, registry=registry, accounts=accounts)
        await alarms.load()
        outbox = Outbox(store=store, clock=clock, metrics=metrics)
        await outbox.load()
        intake = Intake(store=store, registry=registry, bus=bus, clock=clock, alarms=alarms, outbox=outbox, metrics=metrics)
        registry.recorder = intake
        alarms.recorder = intake
        commands = Commands(store=store, bus=bus, clock=clock, registry=registry, accounts=accounts, intake=intake, metrics=metrics)
        transactions = Transactions(store=store, intake=intake, clock=clock)
        await transactions.load()
        query = Query(store=store, registry=registry, accounts=accounts, clock=clock)
        self.hub = Hub(
            clock=clock,
            bus=bus,
            intake=intake,
            commands=commands,
            registry=registry,
            transactions=transactions,
            alarms=alarms,
            accounts=accounts,
            outbox=outbox,
            documents=Space(store, "test"),
            query=query,
            metrics=metrics,
            http=lambda: self.url,
            data_dir=self.path,
            timezone="Europe/Paris",
        )
        await intake.start()
        await outbox.start()
        await commands.recover()
        cert, key = self.tls or (None, None)
        self.app = create(self.hub, self.routers, lambda: self.reasons, self.settings)
        self.server = HttpServer(self.app, host, port, cert, key)
        bound = await self.server.start()
        self.url = f"{'https' if cert else 'http'}://{bound}"
        self.port = int(bound.rpartition(":")[2])
        return self

    async def stop(self) -> None:
        await self.server.stop()
        await self.hub.commands.stop()
        await self.hub.outbox.stop()
        await self.hub.intake.stop()
        await self.hub.registry.close()
        await self.hub.bus.close()
        await self.store.close()

    async def restart(self) -> None:
        """The same store, a new process's memory (the port is another)."""
        await self.stop()
        self.store = SqliteStore(self.path / "gridloom.db", self.clock, StorageSettings())
        await self.start()

    async def token(self, role: Role, account: str = "") -> str:
        """A token of an account that has the role in the whole hub (owners and installers: nowhere yet)."""
        name = account or f"{role.value}@example.org"
        if name not in self.tokens:
            _, self.tokens[name] = await self.hub.accounts.create_token(None, account=name, role=role)
        return self.tokens[name]

    def client(self, token: str | None = None, **more: Any) -> httpx.AsyncClient:
        """A client that shares no code with us, over a real socket."""
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        return httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=10, verify=False, **more
        )  # no TLS here: reading the trust store takes 20 ms

    async def device(self, id: str = "tic:021762010203", **more: Any) -> Device:
        integration, _, identity = id.partition(":")
        given = {"kind": DeviceKind.METER, "measurands": (ENERGY.measurand, POWER.measurand), **more}
        device = await self.hub.registry.register(Device(id=id, integration=integration, identity=identity, **given))
        await self.hub.registry.settle()  # its event is recorded in the background: no test should meet it by chance
        return device

    async def reading(self, device: str = "tic:021762010203", power: int = 1234, time: int | None = None, energy: int = 1_000_000) -> MeterReading:
        """One MeterReading, told as an integration tells it: 230.10 V as 23010 × 10^-2."""
        now = self.clock.now()
        told = MeterReading(
            device=device,
            time=now if time is None else time,
            received=now,
            readings=(Reading(ENERGY, energy), Reading(POWER, power), Reading(VOLTAGE, 23010, -2, quality=Quality.ESTIMATED)),
        )
        await self.hub.intake.readings([told])
        return told

    async def event(self, kind: str, device: str = "tic:021762010203", **more: Any) -> Event:
        from gridloom.core.events import new_event

        event = new_event(kind, device, self.clock, **more)
        await self.hub.intake.event(event)
        return event


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that happens soon."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")
