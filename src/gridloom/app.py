"""The only place where everything is put together: clock, store, bus, core, integrations, web; started, supervised, stopped in order.

Everything optional is imported by string, and only when it is configured. What the parts are to each other is said by ``core.hub.Hub``;
``Service`` says what is started and stopped. One process per ``data_dir``: a lock file keeps a second hub out.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from gridloom import __version__, config, integrations
from gridloom.bus.memory import MemoryBus
from gridloom.config import Configuration
from gridloom.core.accounts import ADMIN_ACCOUNT, Accounts
from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.errors import ConfigurationError, GridloomError
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub, Parts
from gridloom.core.metrics import Metrics
from gridloom.core.model import Role
from gridloom.core.ports import Delete, Put
from gridloom.core.settings import Address
from gridloom.core.subjects import HUB
from gridloom.supervisor import Supervisor

if TYPE_CHECKING:
    from gridloom.core.ports import Store, World, Write
    from gridloom.core.webhook import WebhookTarget
    from gridloom.storage.settings import StorageSettings
    from gridloom.web.metrics import Reason
    from gridloom.web.server import HttpServer

log = logging.getLogger(__name__)

ENDPOINTS = "endpoints.json"
LOCK = "hub.lock"
TOKEN = "admin.token"  # noqa: S105  # a file's name
SPACE, RESTORED = "app", ("restore", "last")
"""The document by which ``gridloom restore`` tells the next start of the hub what it did."""
LAG_SECONDS = 0.25
"""How often the event loop's lag is measured."""


# ---------------------------------------------------------------------------------------------------------- configuration


class _Sections(Mapping[str, type[msgspec.Struct]]):
    """The sections of integrations by name; a type is imported when somebody looks at it."""

    def __getitem__(self, name: str) -> type[msgspec.Struct]:
        if name not in integrations.NAMES:
            raise KeyError(name)
        section: type[msgspec.Struct] = importlib.import_module(f"gridloom.integrations.{name}.config").Section
        return section

    def __iter__(self) -> Iterator[str]:
        return iter(integrations.NAMES)

    def __len__(self) -> int:
        return len(integrations.NAMES)


def load_configuration(path: Path | None, environ: Mapping[str, str]) -> Configuration:
    """The configuration with the sections of all integrations. Raises ConfigurationError."""
    return config.load(config.find(path), _Sections(), environ)


def demonstration(configuration: Configuration, folder: str) -> Configuration:
    """The same for a demo: data in ``folder``, free ports unless they are configured, every integration that can be shown."""
    hub, http = configuration.hub, configuration.http
    if "hub.data_dir" not in configuration.origins:
        hub = msgspec.structs.replace(hub, data_dir=folder)
    if "http.listen" not in configuration.origins:
        http = msgspec.structs.replace(http, listen=Address("127.0.0.1:0"))
    sections = {
        name: section if name in configuration.sections else _on_a_free_port(section)
        for name, section in with_simulated(configuration).sections.items()
    }
    return msgspec.structs.replace(configuration, hub=hub, http=http, sections=sections)


def _on_a_free_port(section: msgspec.Struct) -> msgspec.Struct:
    """The same, listening on any free port of the same host, if it listens at all."""
    listen = getattr(section, "listen", None)
    return msgspec.structs.replace(section, listen=Address(f"{listen.rpartition(':')[0]}:0")) if isinstance(listen, Address) else section


def with_simulated(configuration: Configuration) -> Configuration:
    """The same with the sections that integrations propose for a demo (``demo()`` in their ``config.py``), where they are not configured."""
    sections = dict(configuration.sections)
    for name in integrations.NAMES:
        if name not in sections:
            propose = getattr(importlib.import_module(f"gridloom.integrations.{name}.config"), "demo", None)
            if propose is not None:
                sections[name] = propose()
    return msgspec.structs.replace(configuration, sections=sections)


# --------------------------------------------------------------------------------------------------------------- data_dir


def data_dir(configuration: Configuration) -> Path:
    """The folder where everything is kept."""
    return Path(configuration.hub.data_dir).expanduser()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own the data_dir while inside. Raises ConfigurationError when another hub has it, or when it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(folder / LOCK, "a+")  # noqa: SIM115  # it is closed below; the lock lives as long as it is open
    except OSError as error:
        raise ConfigurationError(f"hub.data_dir: {folder}: {error.strerror}; name a folder that this user may write") from None
    with file:
        # Whoever asks `is_locked` holds it for a moment: that is not another hub.
        if not any(_flock(file) or threading.Event().wait(0.02) for _ in range(10)):
            file.seek(0)
            owner = file.read(40).strip()
            who = f"process {owner}" if owner else "another process"
            raise ConfigurationError(f"hub.data_dir: {folder} is used by {who}; one hub per folder: stop that one, or give this one its own data_dir")
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a hub has this data_dir now."""
    try:
        with open(folder / LOCK) as file:
            return not _flock(file)
    except OSError:
        return False


def _flock(file: IO[str]) -> bool:
    """Take the lock if it is free. It goes when the file is closed, also by kill -9."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_endpoints(folder: Path) -> dict[str, str]:
    """What the running hub listens on; empty before all of it accepts, and after it stopped."""
    try:
        found: dict[str, str] = json.loads((folder / ENDPOINTS).read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Whole or not at all, also for a reader in between."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


# ------------------------------------------------------------------------------------------------------- small, by itself


class Argon2Hasher:
    """Hashes people's passwords (``core.accounts.PasswordHasher``): argon2id with the library's parameters; imported at the first use."""

    def hash(self, password: str) -> str:
        """The encoded hash with salt and parameters. Takes tens of milliseconds: call it in a thread."""
        from argon2 import PasswordHasher

        return PasswordHasher().hash(password)

    def verify(self, hash: str, password: str) -> bool:
        """Whether it is the password of this hash; False also for a hash that is none."""
        from argon2 import PasswordHasher
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            return PasswordHasher().verify(hash, password)
        except (VerificationError, InvalidHashError):
            return False


class Notifier:
    """Tells systemd how we are (sd_notify), if it asked: ``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``. Nothing without NOTIFY_SOCKET."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watchdog = environ.get("WATCHDOG_USEC", "") if environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()) else ""
        self.interval = int(watchdog) / 2_000_000 if watchdog.isdigit() and int(watchdog) else None
        """Real seconds between two signs of life, half of what systemd allows; None when it wants none."""

    def tell(self, message: str) -> None:
        """One datagram. A manager that does not listen any more is no reason to fail."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as unix:
                unix.sendto(message.encode(), address)
        except OSError as error:
            log.debug("systemd does not listen", extra={"reason": str(error)})


def webhook_targets(configuration: Configuration) -> list[WebhookTarget]:
    """``[[alarms.webhook]]`` as the core wants it. Raises ConfigurationError when a file that holds an address or a secret is wrong."""
    from gridloom.core.webhook import WebhookTarget, secret_key

    targets = []
    for table in configuration.alarms.webhook:
        try:
            secret = "" if table.secret_file is None else table.secret_file.read().reveal()
            secret_key(secret)
            url = table.address()
        except (OSError, ValueError, GridloomError) as error:
            raise ConfigurationError(f"alarms.webhook {table.name!r}: its secret_file or url_file: {error}") from None
        targets.append(
            WebhookTarget(name=table.name, url=url, secret=secret, min_severity=table.min_severity, kinds=table.kinds, devices=table.devices)
        )
    return targets


class HookPoster:
    """Posts to webhooks, to the hub's own network only where the owner allowed it for that very address."""

    def __init__(self, configuration: Configuration) -> None:
        from gridloom.links.http import Poster

        agent = f"gridloom/{__version__}"
        self._public, self._private = Poster(agent=agent), Poster(agent=agent, allow_private=True)
        self._allowed = {table.address() for table in configuration.alarms.webhook if table.allow_private}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> int:
        """As ``core.webhook.Post``."""
        return await (self._private if url in self._allowed else self._public).post(url, headers, body, timeout)

    async def close(self) -> None:
        """Close what was kept open."""
        await self._public.close()
        await self._private.close()


class _Lag:
    """Measures how late the event loop comes, and tells systemd's watchdog that it comes at all.

    In real time, the loop's own: in a demo that runs 60 times faster the loop is not later for it.
    """

    def __init__(self, metrics: Metrics, notifier: Notifier) -> None:
        self._histogram = metrics.histogram("gridloom_event_loop_lag_seconds", "How late the event loop woke up.")
        self._notifier = notifier
        self._timer: asyncio.TimerHandle | None = None
        self._bark = 0.0

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_SECONDS
        self._timer = loop.call_at(due, self._tick, loop, due)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._histogram.observe(max(0.0, now - due))
        if self._notifier.interval is not None and now >= self._bark:
            self._notifier.tell("WATCHDOG=1")
            self._bark = now + self._notifier.interval
        self._timer = loop.call_at(now + LAG_SECONDS, self._tick, loop, now + LAG_SECONDS)


class _Web:
    """The web server as a service."""

    name = "http"

    def __init__(self, server: HttpServer, origin: str, told: Callable[[str], None]) -> None:
        self._server = server
        self._origin = origin
        self._told = told
        self._listens = False
        self._ended = asyncio.Event()

    async def start(self) -> Mapping[str, str]:
        """Listen. Raises ConfigurationError naming ``[http] listen`` when the port is busy."""
        try:
            address = await self._server.start()
        except ConfigurationError as error:
            raise ConfigurationError(f"{error} ({self._origin})") from error
        self._listens = True
        self._told(address)
        return {"http": address}

    async def wait(self) -> None:
        """A listener does not end by itself."""
        await self._ended.wait()

    async def stop(self) -> None:
        """Answers under way are given a moment."""
        self._listens = False
        await self._server.stop()

    def health(self) -> Health:
        """Needed: without it nobody can ask."""
        return Health(self._listens, "" if self._listens else "does not listen", required=True)


def _simulated_world(clock: Clock) -> World:
    """The one in which all simulated devices live."""
    from gridloom.demo.world import World as SimulatedWorld

    return SimulatedWorld(clock)


# ------------------------------------------------------------------------------------------------------------------ the hub


class App:
    """One hub: made from a configuration, started once, stopped once. The caller holds the data_dir's lock."""

    def __init__(
        self, configuration: Configuration, *, clock: Clock | None = None, simulate: bool = False, environ: Mapping[str, str] | None = None
    ) -> None:
        self.configuration = configuration
        self.clock = Clock() if clock is None else clock
        self.simulate = simulate
        self._world = _simulated_world(self.clock) if simulate else None
        self.folder = data_dir(configuration)
        self.metrics = Metrics()
        self.simulators: list[str] = []
        """Names of the simulated devices' services that run."""
        self.endpoints: dict[str, str] = {}
        self._notifier = Notifier(os.environ if environ is None else environ)
        self._started = False
        self._url = ""
        self._stopping = contextlib.AsyncExitStack()

    # -- start

    async def start(self) -> None:
        """Everything runs and accepts when it returns. Raises ConfigurationError, StorageError; what was started is stopped then."""
        try:
            await self._start()
        except BaseException:
            await self._stopping.aclose()
            raise

    async def _start(self) -> None:
        crashed = (self.folder / ENDPOINTS).exists()
        (self.folder / ENDPOINTS).unlink(missing_ok=True)
        store = await self._open_store()
        self.bus = MemoryBus(self.clock)
        self._stopping.push_async_callback(self.bus.close)
        await self._make_core(store)
        token = await self.accounts.bootstrap()
        if token is not None:
            _write_atomically(self.folder / TOKEN, token + "\n", 0o600)
        await self._begin_core(store, crashed)
        parts = self._build()
        self.supervisor = Supervisor(self.clock, self.metrics, self._endpoints_changed)
        self._stopping.push_async_callback(self.supervisor.stop)
        for part in parts:
            for service in part.services:
                await self.supervisor.start(service)
        # Orders that the last process left are taken up once the links are there, and before anybody can submit new ones.
        self._stopping.push_async_callback(self.registry.close)
        self._stopping.push_async_callback(self.commands.stop)
        await self.commands.recover()
        await self.supervisor.start(self._make_web(parts))
        for part in parts:
            for simulator in part.simulators if self.simulate else ():
                await self.supervisor.start(simulator)
                self.simulators.append(simulator.name.removeprefix("simulated "))
        lag = _Lag(self.metrics, self._notifier)
        lag.start()
        self._stopping.callback(lag.stop)
        self._stopping.callback((self.folder / ENDPOINTS).unlink, missing_ok=True)
        self._started = True
        self._endpoints_changed()
        self._notifier.tell("READY=1")
        log.info("the hub is up", extra={"version": __version__, **self.endpoints})

    async def stop(self) -> None:
        """End in order: no new work, then services, the core, and last the store."""
        self._notifier.tell("STOPPING=1")
        self._started = False
        await self._stopping.aclose()

    # -- the parts

    async def _open_store(self) -> Store:
        from gridloom.storage.sqlite.store import SqliteStore

        store = SqliteStore(store_path(self.configuration), self.clock, storage_settings(self.configuration))
        await store.open()
        self._stopping.push_async_callback(store.close)
        self._store: Store = store
        return store

    async def _make_core(self, store: Store) -> None:
        from gridloom.core.alarms import Alarms
        from gridloom.core.commands import Commands
        from gridloom.core.intake import Intake
        from gridloom.core.outbox import Outbox
        from gridloom.core.query import Query
        from gridloom.core.registry import Registry
        from gridloom.core.rules import Rules
        from gridloom.core.transactions import Transactions
        from gridloom.core.webhook import Webhooks

        clock, bus, metrics = self.clock, self.bus, self.metrics
        self.accounts = Accounts(store=store, clock=clock, hasher=Argon2Hasher())
        self.registry = Registry(store=store, bus=bus, clock=clock, accounts=self.accounts, metrics=metrics)
        self.alarms = Alarms(store=store, bus=bus, clock=clock, registry=self.registry, accounts=self.accounts)
        self.outbox = Outbox(store=store, clock=clock, metrics=metrics)
        self.intake = Intake(store=store, registry=self.registry, bus=bus, clock=clock, alarms=self.alarms, outbox=self.outbox, metrics=metrics)
        self.commands = Commands(
            store=store, bus=bus, clock=clock, registry=self.registry, accounts=self.accounts, intake=self.intake, metrics=metrics
        )
        self.transactions = Transactions(store=store, intake=self.intake, clock=clock)
        self.query = Query(store=store, registry=self.registry, accounts=self.accounts, clock=clock)
        self.rules = Rules(
            self.configuration.alarms.rule, registry=self.registry, alarms=self.alarms, intake=self.intake, bus=bus, clock=clock, metrics=metrics
        )
        poster = HookPoster(self.configuration)
        self._stopping.push_async_callback(poster.close)
        self.webhooks = Webhooks(webhook_targets(self.configuration), outbox=self.outbox, clock=clock, post=poster.post)
        self.intake.accompany(self.webhooks.writes)
        await self.accounts.load()
        await self.registry.load()
        await self.alarms.load()
        await self.outbox.load()
        await self.transactions.load()

    def _build(self) -> list[Parts]:
        parts = []
        for name, section in self.configuration.sections.items():
            module = importlib.import_module(f"gridloom.integrations.{name}")
            parts.append(module.build(section, self.hub(name)))
        return parts

    def hub(self, space: str) -> Hub:
        """What an integration is given: the doors, and its own shelf of documents."""
        http = self.configuration.http
        return Hub(
            clock=self.clock,
            bus=self.bus,
            intake=self.intake,
            commands=self.commands,
            registry=self.registry,
            transactions=self.transactions,
            alarms=self.alarms,
            accounts=self.accounts,
            outbox=self.outbox,
            documents=Space(self._store, space),
            query=self.query,
            metrics=self.metrics,
            http=lambda: self._url,
            data_dir=self.folder,
            timezone=str(self.configuration.hub.timezone),
            simulate=self.simulate,
            world=self._world,
            certificate=None if http.tls_certificate_file is None else (str(http.tls_certificate_file), str(http.tls_key_file)),
        )

    def _make_web(self, parts: Sequence[Parts]) -> _Web:
        from gridloom.web.server import HttpServer, create
        from gridloom.web.settings import WebSettings, is_loopback

        section = self.configuration.http
        certificate, key = section.tls_certificate_file, section.tls_key_file
        settings = WebSettings(
            loopback=is_loopback(section.listen.host),
            tls=certificate is not None,
            version=__version__,
            local_viewer=section.local_viewer,
            cors_origins=tuple(str(origin) for origin in section.cors_origins),
        )
        routers = [router for part in parts for router in part.routers]
        operations = [operation for part in parts for operation in part.operations]
        app = create(self.hub("web"), routers, self.readiness, settings, operations)
        files = (None, None) if certificate is None or key is None else (str(certificate), str(key))
        server = HttpServer(app, section.listen.host, section.listen.port, *files)

        def told(address: str) -> None:
            self._url = f"{'http' if certificate is None else 'https'}://{address}"

        origin = self.configuration.origins.get("http.listen")
        return _Web(server, "http.listen is the default" if origin is None else f"http.listen from {origin}", told)

    async def _begin_core(self, store: Store, crashed: bool) -> None:
        await self.intake.start()
        self._stopping.push_async_callback(self.intake.stop)
        await self._say_how_it_was(store, crashed)
        await self.rules.start()
        self._stopping.push_async_callback(self.rules.stop)
        await self.outbox.start()
        self._stopping.push_async_callback(self.outbox.stop)

    async def _say_how_it_was(self, store: Store, crashed: bool) -> None:
        """Events about this start and the last end."""
        quarantined = (await store.stats()).quarantined
        if quarantined is not None and self.alarms.raised(HUB, "storage.quarantined") is None:
            remedy = "to go back to a backup stop the hub and run: gridloom restore --from BACKUP"
            await self._tell("storage.quarantined", f"the store was damaged; it is kept as {quarantined}; {remedy}")
        restored = await store.documents.get(SPACE, *RESTORED)
        if restored is not None:
            await self._tell("storage.restored", f"from {json.loads(restored.body)['from']}", [Delete(SPACE, *RESTORED)])
        if crashed:
            await self._tell("hub.crashed", "the hub had not stopped in order the last time")
        await self._tell("hub.started", f"version {__version__}")
        self._stopping.push_async_callback(self._tell, "hub.stopped", "in order")

    async def _tell(self, kind: str, message: str, writes: Sequence[Write] = ()) -> None:
        """An event about the hub itself, in one commit with ``writes``. A full disk is no reason not to run."""
        try:
            await self.intake.events([new_event(kind, HUB, self.clock, message=message)], writes)
        except GridloomError as error:
            log.error("an event about the hub could not be kept", extra={"kind": kind, "event_message": message, "reason": str(error)})

    # -- while it runs

    def readiness(self) -> list[Reason]:
        """What is wrong now; empty when all is well."""
        from gridloom.web.metrics import Reason

        reasons = [] if self._started else [Reason("hub", "it is starting or stopping")]
        reasons += [Reason(name, health.reason, health.required) for name, health in self.supervisor.health().items() if not health.ok]
        if self.alarms.raised(HUB, "storage.full") is not None:
            reasons.append(Reason("store", "the disk is full: readings are not stored until there is space", required=False))
        quarantined = self.alarms.raised(HUB, "storage.quarantined")
        if quarantined is not None and quarantined.acknowledged is None:
            reasons.append(Reason("store", quarantined.message, required=False))
        return reasons

    def _endpoints_changed(self) -> None:
        self.endpoints = self.supervisor.endpoints()
        if self._started:
            try:
                _write_atomically(self.folder / ENDPOINTS, json.dumps(self.endpoints, indent=2) + "\n")
            except OSError as error:  # a full disk: the hub runs on, only others do not find it by this file
                log.error("endpoints.json cannot be written", extra={"path": str(self.folder / ENDPOINTS), "reason": error.strerror})

    def screen(self) -> str:
        """Where to look and how to stop, in one screen."""
        where = self.configuration.path
        shown = ", ".join(self.simulators) if self.simulators else "none yet: no integration of this version brings one"
        listening = [f"  {name:<10}{address}" for name, address in self.endpoints.items() if name != "http"]
        lines = [
            f"Gridloom {__version__} is running.",
            "",
            f"  page      {self._url}/",
            f"  API       {self._url}/api/v1/devices   described at {self._url}/docs",
            *listening,
            f"  data      {self.folder.resolve()}",
            f"  token     {(self.folder / TOKEN).resolve()}   (admin; send it as: Authorization: Bearer TOKEN)",
            *([f"  simulated {shown}"] if self.simulate else []),
            f"  settings  {where if where is not None else 'no gridloom.toml here: defaults, shown by `gridloom check`'}",
            "",
            "Ctrl-C stops it.",
        ]
        return "\n".join(lines)


# ------------------------------------------------------------------------------------------------- without a running hub


def store_path(configuration: Configuration) -> Path:
    """Where the store's file is."""
    return data_dir(configuration) / configuration.storage.url.name


def storage_settings(configuration: Configuration) -> StorageSettings:
    """``[storage]`` as the engine wants it."""
    from gridloom.storage.settings import Retention, StorageSettings

    section = configuration.storage
    return StorageSettings(
        retention=Retention(**msgspec.structs.asdict(section.retention)), zone=str(configuration.hub.timezone), resume_seconds=float(section.resume)
    )


class Restored(msgspec.Struct, frozen=True):
    """What a restore did: where the store went that was there, and the file of the admin token when a new one had to be made."""

    aside: Path | None
    token: Path | None


@contextlib.asynccontextmanager
async def _store_offline(configuration: Configuration) -> AsyncIterator[tuple[Store, Accounts]]:
    """The store and its accounts, without a hub. Setting a damaged store aside is for the hub, not for somebody who only looks."""
    from gridloom.storage.sqlite.store import SqliteStore

    clock = Clock()
    settings = msgspec.structs.replace(storage_settings(configuration), background=False, quarantine=False)
    store = SqliteStore(store_path(configuration), clock, settings)
    await store.open()
    try:
        accounts = Accounts(store=store, clock=clock)
        await accounts.load()
        yield store, accounts
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def offline(configuration: Configuration) -> AsyncIterator[Accounts]:
    """The accounts, directly on the store, while no hub runs on it. Raises ConfigurationError when one does, StorageCorrupt, StorageError."""
    with locked(data_dir(configuration)):
        async with _store_offline(configuration) as (_, accounts):
            secret = await accounts.bootstrap()
            if secret is not None:  # the first start of all: what the hub would have written
                _write_atomically(data_dir(configuration) / TOKEN, secret + "\n", 0o600)
            yield accounts


def back_up(configuration: Configuration, target: Path) -> None:
    """A consistent copy of the store, also while a hub runs on it. Raises StorageError, StorageCorrupt when the store is damaged."""
    from gridloom.core.errors import StorageError
    from gridloom.storage.sqlite import files

    path = store_path(configuration)
    if not path.exists():
        raise StorageError(f"{path}: there is no store yet")
    files.backup_file(path, target)


def restore(configuration: Configuration, source: Path) -> Restored:
    """Put a backup in the place of the store. Raises ConfigurationError while a hub runs, StorageError.

    A restored store knows only the tokens of its own time. When the one in admin.token is none of them (its store was damaged, and the hub had
    begun a new one), a new one is made: else nobody could get in. Whoever may restore may read the store anyway.
    """
    from gridloom.storage.sqlite import files

    with locked(data_dir(configuration)):
        aside = files.restore(source, store_path(configuration), Clock())
        return Restored(aside, asyncio.run(_settle(configuration, source)))


async def _settle(configuration: Configuration, source: Path) -> Path | None:
    """Leave word for the next start, and see that the admin token opens the restored store; returns its file when a new one was made."""
    file = data_dir(configuration) / TOKEN
    async with _store_offline(configuration) as (store, accounts):
        await store.commit([Put(SPACE, *RESTORED, json.dumps({"from": str(source)}).encode())])
        try:
            known = file.read_text().strip()
        except (OSError, ValueError):
            known = ""
        if accounts.authenticate_token(known) is not None:
            return None
        _, secret = await accounts.create_token(None, account=ADMIN_ACCOUNT, role=Role.ADMIN, name="restore")
        _write_atomically(file, secret + "\n", 0o600)
        return file


# -------------------------------------------------------------------------------------------------------------- running it


def run(configuration: Configuration, *, simulate: bool = False, speed: float = 1.0, seconds: float | None = None) -> int:
    """Run the hub until SIGTERM or SIGINT, or for ``seconds`` real seconds. Returns the exit code. Raises ConfigurationError, StorageError."""
    import uvloop

    from gridloom import logs

    logs.configure(configuration.log.level, configuration.log.format)
    for warning in configuration.warnings:
        log.warning(warning)
    if simulate:
        configuration = with_simulated(configuration)
    # The store's writer thread holds the interpreter for long stretches; the loop shall get it back soon (bench/store.py measures 5, 1 and 0.5 ms).
    sys.setswitchinterval(0.0005)
    # Ten thousand stations are as many descriptors; the soft limit of most systems is 1,024 for the sake of programs that use select().
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with locked(data_dir(configuration)), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(App(configuration, clock=Clock(speed), simulate=simulate), seconds))


async def _run(app: App, seconds: float | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def asked() -> None:
        if stop.is_set():  # asked twice: whoever insists does not want to wait
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    starting = asyncio.create_task(app.start(), name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])
            return 0
        starting.result()
        print(app.screen(), flush=True)  # noqa: T201  # what a person who typed `gridloom serve` is told
        if seconds is not None:
            loop.call_later(seconds, stop.set)
        await stopping
        log.info("the hub stops")
        await app.stop()
    finally:
        stopping.cancel()
    log.info("the hub has stopped")
    return 0
