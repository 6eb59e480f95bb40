"""The buses in a hub: readings in the store, orders by the commands, troubles as alarms, an ioStack, a search."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.core.world import World, until
from tests.integrations.ekm.bus import BAUD, V3, V4, Street, hub_of, street
from tests.integrations.tic.hub import opened_world

from gridloom.core import subjects, verbs
from gridloom.core.clock import Clock
from gridloom.core.commands import LATER
from gridloom.core.errors import Refused, Unsupported
from gridloom.core.model import Command, CommandState, DeviceKind, Phase, Quality, ReadingType, TimeSource
from gridloom.integrations.ekm.agent import Agent
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.config import Bus as Settings
from gridloom.integrations.ekm.config import Section, SerialPort, Unit, with_simulated
from gridloom.integrations.ekm.gateway import Gateway
from gridloom.integrations.ekm.link import Figures
from gridloom.integrations.ekm.service import Buses
from gridloom.integrations.ekm.upstream import Order
from gridloom.links.serial import Ports

METER, OTHER, STACK, GATEWAY = f"ekm:{V4}", f"ekm:{V3}", "ekm:000000000900", "ekm:gateway-995DAD427614"
UNITS = (f"{V4}:v4", f"{V3}:v3", "900:iostack-sim", "901:iostack")


class House:
    """A hub that reads a simulated bus."""

    def __init__(self, world: World, road: Street, path: Path) -> None:
        self.world, self.road = world, road
        self.hub = hub_of(world, path)
        self.ports = Ports()
        self.told: list[Any] = []
        self.started: list[Buses] = []
        self.events: list[Any] = []
        world.bus.listen(subjects.ALL_EVENTS, lambda _, told: self.events.append(told.event))
        world.bus.listen(subjects.ALL_READINGS, lambda _, told: self.told.append(told.reading))

    async def start(self, *units: str, every: float = 0.1) -> Buses:
        port, fast = SerialPort(str(self.road.path)), {"timeout": 0.06, "silent_after": 0.3, "baud": BAUD}
        made = Settings(port=port, meters=tuple(map(Unit, units or UNITS)), poll_seconds=every, **fast)  # type: ignore[arg-type]
        section = Section(bus=(made,), gateway_mac="995DAD427614")  # type: ignore[arg-type]
        buses = Buses(section, self.hub, memory=self.hub.documents, bus=self.world.bus, ports=self.ports)
        await buses.start()
        self.started.append(buses)
        return buses

    async def order(self, device: str, verb: str, **arguments: Any) -> Command:
        submitted = await self.world.commands.submit(self.world.admin, device, verb, arguments)
        return await self.world.commands.wait(submitted.id, 10)

    async def online(self, device: str = METER, state: bool = True) -> None:
        await until(lambda: self.world.registry.online(device) is state, 10)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened_world(tmp_path) as world, street(tmp_path, f"{V4}:v4", f"{V3}:v3") as road:
        await world.commands.recover()
        made = House(world, road, tmp_path)
        yield made
        for buses in made.started:
            with contextlib.suppress(Exception):
                await buses.stop()


async def test_meters_are_devices_and_their_readings_are_in_the_store(house: House) -> None:
    await house.start()
    await house.online()
    await house.online(OTHER)
    registry = house.world.registry
    device = registry.get(METER)
    assert (device.kind, device.serial, device.firmware, device.attributes["generation"]) == (DeviceKind.METER, V4, "1d", "v4")
    assert "relay.set" in device.verbs
    assert "relay.set" not in registry.get(OTHER).verbs
    assert registry.get(GATEWAY).kind is DeviceKind.GATEWAY
    await until(lambda: len(house.told) >= 4, 10)
    values = {one.type: one for one in await registry.latest_values(METER)}
    assert values[ReadingType("Power.Active.Import", "W", Phase.L1)].value == 1500
    assert values[ReadingType("Power.Active.Export", "W", Phase.L2)].value == 700
    assert values[ReadingType("Voltage", "V", Phase.L1)].value == 2300
    reading = next(one for one in house.told if one.device == METER)
    assert reading.source is TimeSource.DEVICE
    assert abs(reading.time - reading.received) < 5_000_000
    assert not reading.readings[0].quality & Quality.SIMULATED
    native = await registry.native(METER, Read)
    assert native is not None
    assert native.address == V4
    assert len(native.frames) == 2


async def test_every_order_reaches_the_meter_and_its_result_comes_back(house: House) -> None:
    await house.start()
    await house.online()
    assert (await house.order(METER, "relay.set", relay=2, state="closed")).state is CommandState.DONE
    assert house.road.meter.relays[1] == (1, None)
    await until(lambda: any(event.kind == "relay.changed" and event.subject == "relay:2" for event in house.events), 5)
    schedules = (await house.order(METER, "ekm.schedules.get")).result
    assert (schedules["Schedule_1_Period_1_Tariff"], schedules["Season_1_Month"], schedules["Weekend_Schd"]) == (1, 1, 1)
    house.road.meter.months[0][1] = [1234.0, 1000.0, 234.0, 0.0, 0.0]
    months = (await house.order(METER, "ekm.tariff_data.get")).result
    assert months["forward"]["Month_2_Tot"] == 1.23
    assert set(months) == {"forward", "reverse"}
    clock = (await house.order(METER, "device.clock.set")).result
    assert clock["weekday"] == f"{house.road.meter.local().isoweekday() % 7 + 1:02d}"
    status = (await house.order(METER, "device.status.get")).result
    assert (status["address"], status["status"], status["State_Out"]) == (V4, "000000", 2)
    assert (await house.order(METER, "ekm.pulse_output.ratio.set", ratio=64)).error.startswith("ekm-pulse-ratio: pulse output ratio 64")
    assert (await house.order(METER, "ekm.password.set", new_password="12345678")).state is CommandState.DONE
    refused = await house.order(METER, "ekm.ct_ratio.set", ct_ratio=400)
    assert refused.state is CommandState.FAILED
    assert "wrong password" in refused.error
    assert house.road.meter.ct == 200
    assert (await house.order(METER, "ekm.ct_ratio.set", ct_ratio=400, password="12345678")).state is CommandState.DONE
    assert {"password.changed", "password.refused", "device.clock.set", "device.settings.changed"} <= {one.split()[0] for one in await _events(house)}
    with pytest.raises(Unsupported):
        await house.order(OTHER, "relay.set", relay=1, state="open")
    assert "12345678" not in str(await _events(house))


async def _events(house: House) -> list[str]:
    await house.started[0]._settle()
    return list(await house.world.events())


async def test_a_relay_order_whose_answer_is_lost_ends_unsure_and_is_not_repeated(house: House) -> None:
    await house.start(f"{V4}:v4", every=60)
    await house.online()
    original = house.road.line._answer

    def answer(request: Any) -> bytes:
        if request[0].startswith(b"\x01W1"):
            house.road.line.fault("lost")
        return original(request)

    house.road.line._answer = answer  # type: ignore[method-assign]
    ended = await house.order(METER, "relay.set", relay=1, state="closed", duration_s=1)
    assert ended.state is CommandState.FAILED
    assert ended.error.startswith("ekm-unsure")
    assert house.road.meter.writes == [("0081", "10001")]


async def test_a_silent_meter_is_offline_and_comes_back(house: House) -> None:
    buses = await house.start()
    await house.online()
    house.road.line.rates["silence"] = 1.0
    await house.online(state=False)
    assert "no answer" in house.world.registry.state(METER).reason
    assert not buses.health().ok
    house.road.line.rates.clear()
    await house.online()
    kinds = await _events(house)
    assert "device.offline raised" in kinds
    await until(lambda: buses.health().ok, 5)


async def test_a_meter_that_was_never_there_is_an_alarm_too(house: House) -> None:
    await house.start("77:v4")
    await until(lambda: house.world.alarms.raised("ekm:000000000077", "device.offline") is not None, 10)


async def test_a_port_that_is_gone_is_an_alarm_and_its_meters_are_offline(house: House) -> None:
    buses = await house.start()
    await house.online()
    await house.road.simulator.stop()
    await house.online(state=False)
    await until(lambda: house.world.alarms.raised(subjects.HUB, "line.lost", str(house.road.path)) is not None, 5)
    assert str(house.road.path) in buses.health().reason
    await house.road.simulator.start()
    await house.online()
    await until(lambda: house.world.alarms.raised(subjects.HUB, "line.lost", str(house.road.path)) is None, 5)


async def test_a_wrong_clock_is_an_alarm_and_the_values_are_of_the_hubs_time(house: House) -> None:
    house.road.meter.offset = 3_600_000_000
    await house.start()
    await until(lambda: house.world.alarms.raised(METER, "device.clock.wrong") is not None, 10)
    assert next(one for one in house.told if one.device == METER).source is TimeSource.HUB
    assert (await house.order(METER, "device.clock.set")).state is CommandState.DONE
    await until(lambda: house.world.alarms.raised(METER, "device.clock.wrong") is None, 10)


async def test_the_iostack_is_simulated_or_says_that_it_is_not_available(house: House) -> None:
    await house.start()
    status = (await house.order(STACK, "device.status.get")).result
    assert [one["pin"] for one in status["digital_inputs"]] == [1, 2, 3, 4]
    assert (await house.order(STACK, "ekm.digital_output.set", pin=2, level=1)).result == {"status": 0}
    assert (await house.order(STACK, "device.status.get")).result["digital_outputs"][1] == {"pin": 2, "level": 1}
    assert (await house.order(STACK, "ekm.one_wire.scan")).result["devices"][0]["family"] == "28"
    wrong = await house.order(STACK, "ekm.digital_input.reset", pin=1, password="x")
    assert "status 132 (wrong password)" in wrong.error
    real = await house.order("ekm:000000000901", "ekm.digital_output.set", pin=2, level=1)
    assert real.state is CommandState.REFUSED
    assert "not available for this device" in real.error


async def test_the_gateway_searches_and_sets_the_interval_for_good(house: House) -> None:
    buses = await house.start(f"{V4}:v4", every=60)
    await house.online()
    found = (await house.order(GATEWAY, "ekm.meters.scan", first="10015", last="10019")).result
    assert found == {"meters": [{"address": V3, "model": "v3", "model_code": "1017", "firmware": "14", "bus": str(house.road.path)}],
                     "buses": [{"bus": str(house.road.path), "asked": 5, "total": 5, "complete": True, "reason": ""}]}  # fmt: skip
    assert any(one.startswith("device.found") for one in await _events(house))
    assert (await house.order(GATEWAY, "ekm.poll_interval.set", interval_s=7)).state is CommandState.DONE
    assert (await house.order(GATEWAY, "device.status.get")).result["buses"][0]["poll_seconds"] == 7
    long = await house.world.commands.submit(house.world.admin, GATEWAY, "ekm.meters.scan", {"first": "1", "last": "1000000"})
    await until(lambda: bool(buses.gateway.searches), 5)
    refused = await house.order(GATEWAY, "ekm.meters.scan", first="1", last="2")
    assert "a search goes on already" in refused.error
    assert (await house.order(GATEWAY, "ekm.meters.scan.stop")).result == {"stopped": True}
    stopped = await house.world.commands.wait(long.id, 5)
    assert stopped.state is CommandState.DONE
    assert [(one["complete"], one["reason"], one["total"]) for one in stopped.result["buses"]] == [(False, "stopped", 1_000_000)]
    assert (await house.order(GATEWAY, "ekm.meters.scan.stop")).result == {"stopped": False}
    await buses.stop()
    again = await house.start(f"{V4}:v4", every=60)
    assert again.gateway.buses[0].every == 7


async def test_a_second_search_never_takes_the_place_of_the_first(house: House) -> None:
    buses = await house.start()
    await house.online()
    ended = await house.order(GATEWAY, "device.status.get")
    command = msgspec.structs.replace(ended, verb="ekm.meters.scan", arguments={"first": "1", "last": "1000000"})
    device = house.world.registry.get(GATEWAY)
    assert await buses._execute(device, command) is LATER
    first = buses._searching
    with pytest.raises(Refused, match="goes on already"):
        await buses._execute(device, command)
    assert buses._searching is first
    assert first is not None
    await buses.stop()
    assert first.cancelled(), "the hub stops, and so does its search"


def test_a_search_that_was_under_way_when_the_hub_died_is_not_begun_anew() -> None:
    assert not verbs.TABLE["ekm.meters.scan"].idempotent


async def test_the_search_of_a_gateway_elsewhere_is_stopped_by_an_order_of_its_own(tmp_path: Path) -> None:
    async with street(tmp_path, "3:v4") as road:
        agent = Agent("ws://127.0.0.1:9/gateway", "x", tmp_path / "data", clock=Clock(), timezone="UTC")
        made = Settings(port=SerialPort(str(road.path)), timeout=0.06, baud=BAUD)  # type: ignore[arg-type]
        buses = Buses(Section(bus=(made,), gateway_mac="995DAD427614"), agent.hub, ports=Ports())  # type: ignore[arg-type]
        await buses.start()
        try:
            await until(lambda: buses.gateway.buses[0].state == "open", 5)
            agent._take(Order(Command("1", GATEWAY, "ekm.meters.scan", {"first": "1", "last": "1000000"}, "", 0, 0), 1 << 62))
            await until(lambda: any(search.progress.asked > 2 for search in buses.gateway.searches), 5)
            agent._take(Order(Command("2", GATEWAY, "ekm.meters.scan.stop", {}, "", 0, 0), 1 << 62))
            await until(lambda: len(agent._journal.unheard()) == 2, 5)
        finally:
            await buses.stop()
            await agent.stop()
        ended = {one.id: one.result for one in agent._journal.unheard()}
        assert ended["2"] == {"stopped": True}
        assert ended["1"]["meters"][0]["address"] == "000000000003"
        assert ended["1"]["buses"][0]["reason"] == "stopped"


async def test_a_search_whose_port_goes_away_is_told_so(house: House) -> None:
    buses = await house.start(every=60)
    await house.online()
    scan = await house.world.commands.submit(house.world.admin, GATEWAY, "ekm.meters.scan", {"first": "1", "last": "1000000"})
    await until(lambda: any(search.progress.asked > 2 for search in buses.gateway.searches), 5)
    await house.road.simulator.stop()
    ended = await house.world.commands.wait(scan.id, 10)
    assert ended.state is CommandState.FAILED
    assert "the search was not finished" in ended.error
    assert "of 1000000 asked" in ended.error


async def test_a_search_that_loses_one_of_its_buses_tells_how_far_each_came(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    async with street(tmp_path, "3:v4") as one, street(tmp_path / "2", "4:v3") as two:
        made = tuple(Settings(port=SerialPort(str(road.path)), timeout=0.06, baud=BAUD) for road in (one, two))  # type: ignore[arg-type]
        gateway = Gateway(Section(bus=made), one.clock, one.ears, Figures(one.metrics), zone="UTC", ports=Ports())
        running = asyncio.create_task(gateway.run())
        try:
            await until(lambda: all(bus.state == "open" for bus in gateway.buses), 5)
            search = asyncio.create_task(gateway.search("1", "8"))
            await until(lambda: bool(gateway.searches) and gateway.searches[1].progress.asked > 1, 5)
            await two.simulator.stop()
            result = await asyncio.wait_for(search, 10)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert [found["address"] for found in result["meters"]][:1] == ["000000000003"]
        whole, cut = result["buses"]
        assert whole == {"bus": str(one.path), "asked": 8, "total": 8, "complete": True, "reason": ""}
        assert (cut["bus"], cut["total"], cut["complete"]) == (str(two.path), 8, False)
        assert 1 < cut["asked"] < 8
        assert str(two.path) in cut["reason"] or "the port went away" in cut["reason"]


def test_what_is_configured_is_checked() -> None:
    assert Unit("234:v4") == "000000000234:v4"
    assert (Unit("*:v3").address, Unit("1:v5@10").poll_seconds, Unit("1:iostack").kind) == ("999999999999", 10.0, "iostack")
    for text in ("1:v6", "1", "1234567890123:v4", "1:v4@0", "x:v4"):
        with pytest.raises(ValueError, match=r"."):
            Unit(text)
    port = SerialPort("/dev/ttyUSB0")
    with pytest.raises(ValueError, match="named twice"):
        Settings(port=port, meters=(Unit("1:v4"), Unit("01:v3")))
    with pytest.raises(ValueError, match="one meter"):
        Settings(port=port, meters=(Unit("*:v4"), Unit("1:v3")))
    one = Settings(port=port, meters=(Unit("1:v4"),))
    with pytest.raises(ValueError, match="one port"):
        Section(bus=(one, one))
    with pytest.raises(ValueError, match="two buses"):
        Section(bus=(one, Settings(port=SerialPort("/dev/ttyUSB1"), meters=(Unit("1:v4"),))))
    assert [bus.port for bus in with_simulated(Section(bus=(one,)), "/tmp/x", ("2:v4",)).bus] == ["/dev/ttyUSB0", "/tmp/x"]
