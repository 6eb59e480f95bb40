"""What a demo shows of EVerest without a broker: the first meter of the hub as a powermeter, a charger in the house, and somebody who charges.

A simulated EVerest stands on the other side of a broker that is not there (``links.nullbroker``). Its transactions, with receipts, are at
``/api/v1/transactions``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gridloom.core.hub import Health, Hub
from gridloom.core.model import Device, DeviceKind, Phase
from gridloom.core.tasks import OneTask

if TYPE_CHECKING:
    from gridloom.integrations.everest.charger_simulator import EverestCharger
    from gridloom.integrations.everest.simulator import Everest

log = logging.getLogger(__name__)

MODULE, CHARGER = "powermeter", "charger"
CARD = "04A1B2C3"
CHARGING, PAUSE = 20.0, 40.0
"""Seconds of the demo's clock."""
REGISTER = "Energy.Active.Import.Register"


@runtime_checkable
class Sockets(Protocol):
    """A world in which a charger can draw current."""

    def plug(self, place: str, name: str, load: Callable[[Phase], float]) -> Callable[[], None]:
        """Until what is returned is called."""
        ...


class Demonstration(OneTask):
    """A service that waits for a meter and then plays; the heavy parts are imported when it does, so that a demo starts at once."""

    name = "everest"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def start(self) -> Mapping[str, str]:
        """Begin to wait for a meter."""
        self.begin(self._play(), self.name)
        return {}

    async def stop(self) -> None:
        """The car leaves."""
        await self.end()

    def health(self) -> Health:
        """A demo is well."""
        return Health(True)

    async def _meter(self) -> Device:
        while True:
            found = self._hub.registry.find(REGISTER, kind=DeviceKind.METER)
            if found:
                return found[0]
            await self._hub.clock.sleep(0.5 * self._hub.clock.speed)

    async def _play(self) -> None:
        meter = await self._meter()
        from gridloom.core.settings import Duration
        from gridloom.integrations.everest.charger_simulator import EverestCharger
        from gridloom.integrations.everest.config import BrokerUrl, Charger, Powermeter, Section
        from gridloom.integrations.everest.link import ApiModules
        from gridloom.integrations.everest.simulator import Everest
        from gridloom.links.nullbroker import NullBroker

        hub, clock = self._hub, self._hub.clock
        patience = Duration(10 * max(1.0, clock.speed))  # the meter's line does not run faster than its baud rate
        section = Section(
            broker=BrokerUrl("mqtt://demo"),
            powermeter=(Powermeter(module_id=MODULE, device=meter.id, max_age=patience, check_timeout=patience),),
            charger=(
                Charger(
                    name=CHARGER, evse_manager=CHARGER, limits=CHARGER, tokens=CHARGER, authorization=CHARGER, errors=CHARGER, costs=CHARGER,
                    session_cost=CHARGER, identification=CARD, check_timeout=patience,
                ),
            ),
        )  # fmt: skip
        broker = NullBroker()
        modules = ApiModules(section, hub, connect=lambda url, name: broker.party())
        wires = broker.party(), broker.party()
        everest = Everest(wires[0], MODULE, clock, check_timeout=patience, tell=_say)
        charger = EverestCharger(wires[1], CHARGER, clock, energy=1_234_567.0, tell=_say)
        world: object = hub.world
        unplug = world.plug("house:1", "everest", charger.current) if isinstance(world, Sockets) else None
        for wire in wires:
            await wire.start()
        await modules.start()
        running = [asyncio.create_task(one) for one in (everest.run(), charger.run(), modules.wait())]
        scene = asyncio.create_task(_charge(everest, charger, hub))
        try:
            await asyncio.wait([*running, scene], return_when=asyncio.FIRST_COMPLETED)
            for task in (*running, scene):
                if task.done():
                    task.result()
        finally:
            if unplug is not None:
                unplug()
            for task in (*running, scene):
                task.cancel()
            await asyncio.gather(*running, scene, return_exceptions=True)
            with contextlib.suppress(asyncio.CancelledError):
                await modules.stop()


async def _charge(everest: Everest, charger: EverestCharger, hub: Hub) -> None:
    """A car comes, charges with a receipt of the house's meter, and leaves; again and again."""
    from gridloom.integrations.everest.simulator import request

    await everest.boot()
    while True:
        charger.plug()
        charger.present(CARD)
        asked = request(charger.session, token=CARD)
        begun = await everest.start(asked)
        await hub.clock.sleep(CHARGING)
        ended = await everest.stop(asked.transaction_id)
        charger.unplug()
        log.info("a demo's charge", extra={"transaction": asked.transaction_id, "start": begun.status, "stop": ended.status})
        await hub.clock.sleep(PAUSE)


def _say(words: str) -> None:
    log.debug("everest demo", extra={"said": words})
