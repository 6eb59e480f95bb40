"""Our Substation at our Central System: what an operator orders happens at the station, and what happens there reaches the store."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integrations.os3p.central import central, ended, section
from tests.integrations.os3p.substation import running

from gridloom.core.model import CommandState
from gridloom.core.ports import SeriesFilter
from gridloom.integrations.os3p.simulator import Simulated, demo
from gridloom.integrations.os3p.state import Fault


async def until(condition: object, timeout: float = 10) -> None:
    async def look() -> None:
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), timeout)


async def test_orders_and_events(tmp_path: Path) -> None:
    async with central(tmp_path / "hub", section(accept="any")) as hub:
        url, folder = f"ws://{hub.where}/OS3P", tmp_path / "station"
        async with running(url, identity="SUBS001", folder=folder, keys={"MeterValuesInterval": "1"}) as station:
            await until(lambda: station.registered)
            driver = station.driver
            assert isinstance(driver, Simulated)
            assert ended(await hub.order("light.override", {"contactor": 1, "action": "on"}))[0] is CommandState.DONE
            await until(lambda: driver.closed[1])
            assert ended(await hub.order("light.resume", {}))[0] is CommandState.DONE
            await until(lambda: not driver.closed[1])
            driver.stand(Fault("GroundFailure", "group 1"))
            driver.pull(2, True)
            await until(lambda: not station.vault.events)
            await asyncio.sleep(1.2)
            kinds = {line.split()[0] for line in await hub.events()}
            assert {"light.switched", "light.mode.changed"} <= kinds, kinds
            found = await hub.world.store.samples.latest(SeriesFilter(devices=("os3p:SUBS001",), measurands=("Voltage",)))
            assert len(found) == 3
            view = await hub.show("SUBS001")
            assert view.deviations == {}, "what we send deviates in nothing"


async def test_the_demo_at_the_hub(tmp_path: Path) -> None:
    async with central(tmp_path / "hub", section(accept="any")) as hub:
        fleet = demo(lambda: f"ws://{hub.where}/OS3P", hub.world.clock, folder=tmp_path / "stations")
        await fleet.start()
        try:
            await until(lambda: fleet.health().ok)
            assert {one.identity for one in await hub.all()} == {"SUBS 001", "SUBS 002", "SUBS 003"}
        finally:
            await fleet.stop()
