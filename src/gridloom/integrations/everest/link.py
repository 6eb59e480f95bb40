"""WIRE: the brokers, one connection for each that is named, and the powermeter modules on them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from random import Random

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, GridloomError
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.model import EventState
from gridloom.integrations.everest import keys
from gridloom.integrations.everest.config import Powermeter, Section
from gridloom.integrations.everest.keys import Keyring, Signer
from gridloom.integrations.everest.module import Module
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt

log = logging.getLogger(__name__)


class Powermeters:
    """Every ``[[everest.powermeter]]``: connects to the brokers for ever, says three times per time-out that the meters are there."""

    name = "everest"

    def __init__(self, section: Section, hub: Hub, random: Random | None = None) -> None:
        self._section = section
        self._hub = hub
        self._random = random or Random()  # noqa: S311  back-off, no secret
        self._brokers: dict[str, Mqtt] = {}
        self._modules: list[Module] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._told: dict[str, bool] = {}
        hub.metrics.gauge("gridloom_everest_connected", "Whether a broker is connected.", ("broker",), self._connected)

    async def start(self) -> Mapping[str, str]:
        """Make the keys, follow the meters, begin to connect. Raises ConfigurationError: a key, a certificate, a meter without an energy register."""
        keyring = Keyring(self._hub.data_dir / "keys")
        self._brokers, self._modules = {}, []
        for index, settings in enumerate(self._section.powermeter):
            prefix = self._section.prefix if settings.prefix is None else settings.prefix
            signer = _signer(keyring, settings, f"[[everest.powermeter]] number {index + 1}")
            self._modules.append(Module(settings, prefix, signer, self._broker(settings), self._hub))
        for module in self._modules:
            reason = module.missing()
            if reason:
                raise ConfigurationError(f"[[everest.powermeter]] {reason}")
        for module in self._modules:
            await module.start()
        for broker in self._brokers.values():
            await broker.start()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_repeat(self._hub.clock, module.settings.check_timeout / 3, module.tick)) for module in self._modules]
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
        reasons = [f"{url}: {broker.reason}" for url, broker in self._brokers.items() if not broker.connected]
        reasons += [f"{module.id}: {module.reason}" for module in self._modules if module.reason]
        return Health(not reasons, "; ".join(reasons))

    # --------------------------------------------------------------------------------------------------------- details

    def _broker(self, settings: Powermeter) -> Mqtt:
        url = settings.broker or self._section.broker
        assert url is not None  # the section has checked it
        found = self._brokers.get(url)
        if found is None:
            ca_file = None if self._section.ca_file is None else str(self._section.ca_file)
            name = f"gridloom-{self._hub.registry.node[-12:]}-{len(self._brokers) + 1}"
            found = self._brokers[url] = Mqtt(mqtt.broker(url), client_id=name, clock=self._hub.clock, random=self._random, ca_file=ca_file)
        return found

    async def _watch(self) -> None:
        """Tell when a broker is lost and when it is back."""
        for broker in self._brokers.values():
            url = broker.broker.url
            if broker.connected == self._told.get(url, True):
                continue
            self._told[url] = broker.connected
            kind, state = ("broker.connected", EventState.OCCURRED) if broker.connected else ("broker.lost", EventState.RAISED)
            await self._hub.intake.event(new_event(kind, subjects.HUB, self._hub.clock, subject=url, state=state, message=broker.reason))

    def _connected(self) -> dict[tuple[str, ...], float]:
        return {(broker.broker.url,): float(broker.connected) for broker in self._brokers.values()}


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
