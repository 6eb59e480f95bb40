"""WIRE: the brokers, one connection for each that is named, and the powermeter modules and chargers on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random
from typing import Protocol

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, Conflict, GridloomError, NotFound
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.model import EventState
from gridloom.integrations.everest import keys
from gridloom.integrations.everest.charger import Charger
from gridloom.integrations.everest.config import BrokerUrl, Powermeter, Section
from gridloom.integrations.everest.keys import Keyring, PublicKey, Signer
from gridloom.integrations.everest.module import Module, Wire
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt

log = logging.getLogger(__name__)

SETTLING = 5.0
"""Seconds that a broker has after the start before it counts as lost."""


class Connection(Wire, Protocol):
    """A Wire with a life of its own."""

    @property
    def reason(self) -> str:
        """Why it is not connected, or what it cannot hear; else empty."""
        ...

    async def start(self) -> None:
        """Begin to connect."""
        ...

    async def stop(self) -> None:
        """Disconnect."""
        ...


Connect = Callable[[BrokerUrl, str], Connection]
"""Makes a connection to a broker under a client's name."""


class ApiModules:
    """Every ``[[everest.powermeter]]`` and ``[[everest.charger]]``: connects to the brokers for ever, says often enough that the hub is there.

    ``connect`` is for those who have a broker of their own (a demo).
    """

    name = "everest"

    def __init__(self, section: Section, hub: Hub, random: Random | None = None, connect: Connect | None = None) -> None:
        self._section = section
        self._hub = hub
        self._random = random or Random()  # noqa: S311  back-off, no secret
        self._keyring = Keyring(hub.data_dir / "keys")
        self._connect = connect or self._mqtt
        self._brokers: dict[str, Connection] = {}
        self._modules: list[Module | Charger] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = hub.clock.monotonic()
        hub.metrics.gauge("gridloom_everest_connected", "Whether a broker is connected.", ("broker",), self._connected)

    async def start(self) -> Mapping[str, str]:
        """Make the keys, follow the meters, begin to connect. Raises ConfigurationError: a key, a certificate, a meter without an energy register."""
        self._brokers, self._modules, self._begun = {}, [], self._hub.clock.monotonic()
        for index, meter in enumerate(self._section.powermeter):
            signer = _signer(self._keyring, meter, f"[[everest.powermeter]] number {index + 1}")
            self._modules.append(Module(meter, self._prefix(meter.prefix), signer, self._broker(meter.broker), self._hub))
        for charger in self._section.charger:
            self._modules.append(Charger(charger, self._prefix(charger.prefix), self._broker(charger.broker), self._hub))
        for module in self._modules:
            reason = module.missing()
            if reason:
                raise ConfigurationError(f"[[everest.powermeter]] {reason}")
        for module in self._modules:
            await module.start()
        for broker in self._brokers.values():
            await broker.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_repeat(self._hub.clock, module.period, module.tick)) for module in self._modules]
        self._tasks.append(loop.create_task(_repeat(self._hub.clock, 1.0, self._watch)))
        return {}

    async def wait(self) -> None:
        """Does not end by itself; raises what ended a loop."""
        if self._tasks:
            done, _ = await asyncio.wait([*self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Say goodbye."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for module in self._modules:
            await module.stop()
        for broker in self._brokers.values():
            await broker.stop()

    def health(self) -> Health:
        """Which brokers and meters are missing."""
        reasons = [f"{shown}: {broker.reason}" for shown, broker in self._shown() if broker.reason or not broker.connected]
        reasons += [f"{module.id}: {module.reason}" for module in self._modules if module.reason]
        return Health(not reasons, "; ".join(reasons))

    # ------------------------------------------------------------------------------------------------------------- keys

    def powermeters(self) -> list[Module]:
        """Those of the configuration."""
        return [one for one in self._modules if isinstance(one, Module)]

    def former(self, name: str) -> list[PublicKey]:
        """Every public key that a module had before."""
        mine = {one.public_key.fingerprint for one in self.powermeters() if one.name == name}
        return [key for fingerprint, key in self._keyring.publics(name).items() if fingerprint not in mine]

    async def rotate(self, name: str) -> None:
        """A new key from now on. Raises Conflict when the key is the owner's own file, NotFound."""
        for one in self.powermeters():
            if one.name == name:
                if one.settings.signing_key_file is not None:
                    raise Conflict(f"the key of {name!r} is {one.settings.signing_key_file}: put another file there and start the hub again")
                await one.sign_with(await asyncio.to_thread(self._keyring.rotate, name))
                return
        raise NotFound(f"there is no powermeter {name[:60]!r}")

    # --------------------------------------------------------------------------------------------------------- details

    def _prefix(self, own: str | None) -> str:
        return self._section.prefix if own is None else own

    def _broker(self, own: BrokerUrl | None) -> Connection:
        url = own or self._section.broker
        assert url is not None  # the section has checked it
        found = self._brokers.get(url)
        if found is None:
            found = self._brokers[url] = self._connect(url, f"gridloom-{self._hub.registry.node[-12:]}-{len(self._brokers) + 1}")
        return found

    def _mqtt(self, url: BrokerUrl, name: str) -> Connection:
        ca_file = None if self._section.ca_file is None else str(self._section.ca_file)
        return Mqtt(mqtt.broker(url), client_id=name, clock=self._hub.clock, random=self._random, ca_file=ca_file)

    async def _watch(self) -> None:
        """Tell when a broker is lost and when it is back, also when it was lost before the hub was started."""
        early = self._hub.clock.monotonic() - self._begun < SETTLING
        for shown, broker in self._shown():
            lost = self._hub.alarms.raised(subjects.HUB, "broker.lost", shown) is not None
            if broker.connected != lost or (early and not broker.connected):
                continue
            kind, state = ("broker.connected", EventState.OCCURRED) if broker.connected else ("broker.lost", EventState.RAISED)
            await self._hub.intake.event(new_event(kind, subjects.HUB, self._hub.clock, subject=shown, state=state, message=broker.reason))

    def _connected(self) -> dict[tuple[str, ...], float]:
        return {(shown,): float(broker.connected) for shown, broker in self._shown()}

    def _shown(self) -> list[tuple[str, Connection]]:
        """The brokers by their addresses without credentials."""
        return [(mqtt.broker(url).url, broker) for url, broker in self._brokers.items()]


def _signer(keyring: Keyring, settings: Powermeter, where: str) -> Signer:
    """The key of a module. Raises ConfigurationError naming the key of the configuration."""
    name = settings.module_id
    try:
        if settings.signing_key_file is None:
            return keyring.signer(name)
        file = Path(str(settings.signing_key_file))
        if keys.open_to_others(file):
            log.warning("a signing key can be read by others", extra={"file": str(file), "remedy": f"chmod 600 {file}"})
        found = keys.signer(file)
        keyring.remember(name, found.public)
        return found
    except (GridloomError, OSError) as error:
        raise ConfigurationError(f"{where}: signing_key_file of {name!r}: {error}") from None


async def _repeat(clock: Clock, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Call it again and again; a store that is full is no reason to stop."""
    while True:
        try:
            await act()
        except GridloomError as error:
            log.warning("everest: could not be recorded", extra={"reason": error.message})
        await clock.sleep(seconds)
