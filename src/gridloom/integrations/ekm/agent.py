"""A gateway on a machine of its own: the same buses as in the hub's process, with a hub that is elsewhere.

``Agent.hub`` stands where the buses expect their hub. What they register, say and answer goes up one WebSocket; orders come down it. While the hub is
away everything is kept: readings in the ``Spool``, how orders ended in the ``Journal``, and the connection is tried again with back-off.

An order is carried out once: it is in the journal before anything is sent to the device, and one that is known is never carried out again, only
answered. One that was under way when this process died is answered as not known.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from gridloom.core import verbs
from gridloom.core.clock import Clock
from gridloom.core.commands import LATER
from gridloom.core.errors import ConfigurationError, DeviceTimeout, GridloomError, InvalidInput, NotFound, Refused
from gridloom.core.hub import Hub
from gridloom.core.metrics import Metrics
from gridloom.core.model import Command, Device, Event, MeterReading
from gridloom.core.ports import Write
from gridloom.core.registry import Executor
from gridloom.integrations.ekm.journal import Held, Journal, Spool
from gridloom.integrations.ekm.upstream import (
    LARGEST,
    SUBPROTOCOL,
    Batch,
    Condition,
    Ended,
    Heard,
    Order,
    Present,
    Said,
    Stored,
    Turned,
    Welcome,
    encode,
    from_hub,
)
from gridloom.links.backoff import Backoff
from gridloom.links.websocket_client import ClientConnection, ConnectFailed, HandshakeRefused, connect

log = logging.getLogger(__name__)

PING_SECONDS = 20.0
BATCH = 200
"""Readings and events that are sent at once; one batch is under way at a time."""


class AgentLink:
    """As ``core.registry.Link``."""

    def __init__(self, agent: Agent, device: str, executor: Executor | None) -> None:
        self.device = device
        self.executor = executor
        self.current = True
        self.is_online = False
        self.reason = "not reached yet"
        self._agent = agent

    def online(self) -> None:
        """The device can be reached."""
        self._set(True, "")

    def offline(self, reason: str) -> None:
        """It cannot, and why."""
        self._set(False, reason)

    def detach(self, reason: str = "the connection was closed") -> None:
        """The link is gone."""
        self._set(False, reason)
        self.current = False

    def _set(self, online: bool, reason: str) -> None:
        if self.current and (online, reason) != (self.is_online, self.reason):
            self.is_online, self.reason = online, reason
            self._agent._say(Condition(self.device, online, reason))


class AgentRegistry:
    """What the buses ask of ``core.registry``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.devices_known: dict[str, Device] = {}
        self.links: dict[str, AgentLink] = {}

    async def register(self, device: Device, principal: object = None) -> Device:
        """The device is there."""
        if self.devices_known.get(device.id) != device:
            self.devices_known[device.id] = device
            self._agent._say(Present(device))
        return device

    def get(self, id: str) -> Device:
        """Raises NotFound."""
        try:
            return self.devices_known[id]
        except KeyError:
            raise NotFound(f"there is no device {id[:120]!r}") from None

    admitted = get

    def attach(
        self, device_id: str, executor: Executor | None = None, *, replaced: Callable[[], None] | None = None, deduplicates: bool = False
    ) -> AgentLink:
        """Orders for the device go to ``executor``."""
        self.get(device_id)
        link = self.links[device_id] = AgentLink(self._agent, device_id, executor)
        return link

    def online(self, id: str) -> bool:
        """Whether it can be reached."""
        return id in self.links and self.links[id].is_online

    def seen(self, id: str, time: int) -> None:
        """The hub sees by itself."""


class AgentIntake:
    """What the buses ask of ``core.intake``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def readings(self, batch: Sequence[MeterReading]) -> tuple[str, ...]:
        """Kept until the hub has stored them."""
        self._agent._keep([Held(reading=one) for one in batch])
        return ()

    async def events(self, batch: Sequence[Event], documents: Sequence[Write] = ()) -> None:
        """Kept until the hub has stored them."""
        self._agent._keep([Held(event=one) for one in batch])

    async def event(self, event: Event) -> None:
        """As ``events``."""
        await self.events([event])


class AgentCommands:
    """What the buses ask of ``core.commands``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def arguments(self, command: Command) -> Any:
        """As the Struct of its verb."""
        return verbs.validate(command.verb, command.arguments)

    async def finish(self, id: str, result: Any = None, error: GridloomError | None = None) -> None:
        """The end of an order whose executor returned ``LATER``."""
        self._agent._end(Ended(id, msgspec.to_builtins(result)) if error is None else _ended(id, error))


class Agent:
    """One gateway. ``url`` of the hub's push port (``ws://host:port/gateway`` or ``wss:``); ``folder`` keeps journal and spool."""

    name = "ekm-agent"

    def __init__(self, url: str, key: str, folder: Path, *, clock: Clock, timezone: str, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._key, self._tls = url, key, tls
        self._clock = clock
        self.connected = False
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = open(folder / "lock", "w")  # noqa: SIM115  # for as long as it runs; goes with the process, however that ends
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._journal = Journal(folder / "orders.journal", clock.now())
        except BlockingIOError:
            raise ConfigurationError(f"--data {folder}: another gateway uses it; each has a folder of its own") from None
        except OSError as error:
            raise ConfigurationError(f"--data {folder}: {error.strerror}") from None
        self._spool = Spool(folder / "readings")
        self._registry = AgentRegistry(self)
        none: Any = None
        self.hub = Hub(
            clock=clock, bus=none, intake=AgentIntake(self), commands=AgentCommands(self), registry=self._registry,  # type: ignore[arg-type]
            transactions=none, alarms=none, accounts=none, outbox=none, documents=none, query=none, metrics=Metrics(), http=lambda: "",
            data_dir=folder, timezone=timezone,
        )  # fmt: skip
        self._backoff = Backoff(clock, Random(), first=0.5, cap=30.0, stable=30.0)  # noqa: S311  # jitter, not secrecy
        self._connection: ClientConnection | None = None
        self._ahead = 0  # how far the hub's clock is ahead of ours, µs
        self._queues: dict[str, deque[Order]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._news = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._number = 0
        self._running: asyncio.Task[None] | None = None

    # ---------------------------------------------------------------------------------------------------------- service

    async def start(self) -> Mapping[str, str]:
        """Begin to connect; does not wait for the hub."""
        self._running = asyncio.create_task(self._run(), name="ekm agent")
        return {}

    async def wait(self) -> None:
        """Until it ends."""
        assert self._running is not None
        await self._running

    async def stop(self) -> None:
        """Say goodbye; what is not sent is kept."""
        tasks = [task for task in (self._running, *self._workers.values()) if task is not None]
        while pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.5)  # again: wait_for of Python 3.11 loses a cancellation when it ends at that moment
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
        self._journal.close()
        self._spool.close()
        self._lock.close()

    async def _run(self) -> None:
        while True:
            try:
                connection = await connect(
                    self._url, clock=self._clock, subprotocols=(SUBPROTOCOL,), headers=(("Authorization", f"Bearer {self._key}"),), tls=self._tls,
                    max_message=LARGEST, ping_interval=PING_SECONDS,
                )  # fmt: skip
            except HandshakeRefused as error:
                said = "the hub refused the key" if error.http_status == 401 else "the hub refused the gateway"
                log.error(said, extra={"reason": error.message})
            except ConnectFailed as error:
                log.warning("the hub cannot be reached", extra={"reason": error.message})
            else:
                self._backoff.up()
                await self._talk(connection)
                log.warning("the hub has gone", extra={"code": connection.close_code, "reason": connection.close_reason})
            await self._backoff.wait()

    async def _talk(self, connection: ClientConnection) -> None:
        """While the connection lasts."""
        sending = None
        try:
            async for raw in connection:
                try:
                    message = from_hub.decode(raw if isinstance(raw, bytes) else raw.encode())
                except msgspec.DecodeError as error:
                    log.warning("the hub said what cannot be understood", extra={"reason": str(error)})
                    continue
                if isinstance(message, Welcome):
                    self._ahead = message.now - self._clock.now()
                    self._connection, self.connected = connection, True
                    self._introduce()
                    sending = sending or asyncio.create_task(self._send_kept(connection), name="ekm agent readings")
                else:
                    self._hear(message)
        finally:
            self._connection, self.connected = None, False
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            connection.close()

    def _introduce(self) -> None:
        """First how orders ended: the hub may be about to send them again. Then the devices, then how they fare."""
        for ended in self._journal.unheard():
            self._say(ended)
        for device in self._registry.devices_known.values():
            self._say(Present(device))
        for link in self._registry.links.values():
            if link.current:
                self._say(Condition(link.device, link.is_online, link.reason))

    def _say(self, message: Said) -> None:
        """To the hub if it is there; what must not be lost is in the journal or the spool."""
        if self._connection is not None:
            self._connection.send(encode(message))

    def _hear(self, message: Order | Heard | Stored | Turned) -> None:
        if isinstance(message, Order):
            self._take(message)
        elif isinstance(message, Heard):
            try:
                self._journal.hear(message.id, self._clock.now())
            except OSError as error:  # the end is told once more after a restart
                log.error("the journal cannot be written", extra={"command": message.id, "reason": error.strerror})
        elif isinstance(message, Stored):
            if message.number == self._number:
                self._confirmed.set()
        else:
            log.error("the hub does not take a device", extra={"device": message.device, "reason": message.reason})

    # ---------------------------------------------------------------------------------------------------------- readings

    def _keep(self, held: Sequence[Held]) -> None:
        try:
            self._spool.put(*held)
        except OSError as error:
            log.error("what the meters said cannot be kept", extra={"reason": error.strerror, "lost": len(held)})
        self._news.set()

    async def _send_kept(self, connection: ClientConnection) -> None:
        """One batch after the other, each until it is confirmed."""
        while connection.open:
            self._news.clear()
            held = self._spool.take(BATCH)
            if not held:
                await self._news.wait()
                continue
            self._number += 1
            self._confirmed.clear()
            readings = tuple(one.reading for one in held if one.reading is not None)
            self._say(Batch(self._number, readings, tuple(one.event for one in held if one.event is not None)))
            await self._confirmed.wait()
            self._spool.confirm()

    # ------------------------------------------------------------------------------------------------------------ orders

    def _take(self, order: Order) -> None:
        id, device = order.command.id, order.command.device
        if id in self._journal:
            ended = self._journal.ended(id)
            if ended is not None:
                self._say(ended)
            return  # else it is under way, and its end will be told
        queue = self._queues.setdefault(device, deque())
        if any(waiting.command.id == id for waiting in queue):
            return
        queue.append(order)
        if device not in self._workers:
            self._workers[device] = asyncio.create_task(self._work(device, queue), name=f"ekm agent {device}")

    async def _work(self, device: str, queue: deque[Order]) -> None:
        """The orders of one device, one after the other."""
        try:
            while queue:
                order = queue[0]  # stays there while it is under way: the hub may send it again
                try:
                    await self._carry_out(order)
                except Exception as error:  # a bug ends this order with its reason, never the queue of the device
                    log.exception("an executor failed", extra={"device": device, "verb": order.command.verb, "command": order.command.id})
                    self._end(Ended(order.command.id, code="internal-error", message=type(error).__name__, silent=True))
                queue.popleft()
        finally:
            self._workers.pop(device, None)
            self._queues.pop(device, None)

    async def _carry_out(self, order: Order) -> None:
        command, now = order.command, self._clock.now()
        link = self._registry.links.get(command.device)
        try:
            if not self._journal.begin(command.id, now):
                return
        except OSError as error:  # what cannot be remembered is not done
            message = f"the gateway cannot write its journal: {error.strerror}"
            self._say(Ended(command.id, code="storage", message=message, refused=True))
            return
        if now + self._ahead >= order.until:
            self._end(Ended(command.id, code="expired", message="expired before it reached the device", refused=True))
            return
        if link is None or link.executor is None or command.verb not in verbs.TABLE:
            self._end(Ended(command.id, code="unsupported", message=f"this gateway has no {command.device} for {command.verb}", refused=True))
            return
        timeout = verbs.TABLE[command.verb].timeout
        try:
            result = await self._clock.wait_for(link.executor(command), timeout)
            if result is not LATER:
                self._end(Ended(command.id, msgspec.to_builtins(result)))
        except GridloomError as error:
            self._end(_ended(command.id, error))
        except TimeoutError:
            self._end(_ended(command.id, DeviceTimeout(f"{command.device} did not answer {command.verb} within {timeout:g} s")))

    def _end(self, ended: Ended) -> None:
        """The hub is told in any case, also by a gateway whose disk is full."""
        self._say(ended)
        try:
            self._journal.end(ended, self._clock.now())
        except OSError as error:
            log.error("the journal cannot be written", extra={"command": ended.id, "reason": error.strerror})


def _ended(id: str, error: GridloomError) -> Ended:
    refused = isinstance(error, Refused | InvalidInput)
    return Ended(id, code=error.code, message=error.message, refused=refused, silent=isinstance(error, DeviceTimeout))
