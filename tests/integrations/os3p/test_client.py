"""The Substation as a whole: it boots, speaks, stops, and starts again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.integrations.os3p.central_raw import central
from tests.integrations.os3p.substation import made, registered, running

from gridloom.core.clock import Clock
from gridloom.integrations.os3p.driver import Driver
from gridloom.integrations.os3p.simulator import Fleet


async def test_a_station_registers_and_says_goodbye() -> None:
    async with central() as office:
        async with running(office.url) as station:
            line = await office.line()
            assert line.target == "/OS3P/SUBS%20123"
            assert set(await line.asked("BootNotification")) == {
                "vendor", "model", "stationNumber", "serialNumber", "firmwareVersion", "iccid", "imsi"
            }  # fmt: skip
            await office.until(lambda: station.registered)
            assert station.health().ok
        assert await line.gone() == 1001


async def test_the_next_process_knows_what_was_accepted(tmp_path: Path) -> None:
    async with central() as office:
        async with running(office.url, folder=tmp_path) as station:
            await (await office.line()).asked("BootNotification")
            await office.until(lambda: station.registered)
        async with running(office.url, folder=tmp_path) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            assert await line.asked("Heartbeat") == {}
            assert office.all("BootNotification") == office.all("BootNotification")[:1]


async def test_configuration() -> None:
    async with registered() as (_, _, line):
        answer = await line.call("GetConfiguration")
        assert {key["key"] for key in answer["configurationKey"]} >= {"Sunrise", "Sunset", "Geolocation", "websocketPingInterval"}


async def test_a_reset_that_fails_is_told_and_the_station_goes_on() -> None:
    class Board(Driver):
        async def reset(self) -> None:
            raise OSError("no watchdog")

    async with registered(driver=Board()) as (office, station, line):
        assert (await line.call("Reset"))["status"] == "Accepted"
        assert await line.gone() == 1001
        line = await office.line()
        told = await line.asked("StatusNotification")
        assert (told["status"], told["errorCode"], told["info"]) == ("Ok", "ResetFailure", "not reset: OSError: no watchdog")
        assert "no watchdog" in station.health().reason
        assert (await line.call("GetConfiguration"))["configurationKey"]


async def test_hardware_that_does_not_start_or_stop_is_tried_again() -> None:
    class Board(Driver):
        starts = 0

        async def start(self, changed: object) -> None:
            self.starts += 1
            if self.starts == 1:
                raise OSError("no bus")

        async def stop(self) -> None:
            raise OSError("no bus")

    board = Board()
    async with central() as office, running(office.url, driver=board) as station:
        await office.until(lambda: "no bus" in station.health().reason)
        line = await office.line()
        await office.until(lambda: station.health().ok)
        assert board.starts == 2
        await line.call("Reset")
        await office.line()
        await office.until(lambda: station.registered)
        assert board.starts == 3


async def test_a_station_whose_hardware_never_starts_can_be_stopped_and_ends_no_fleet() -> None:
    class Board(Driver):
        async def start(self, changed: object) -> None:
            raise OSError("no bus")

    clock = Clock()
    async with central() as office:
        broken, sound = made(office.url, driver=Board(), identity="A"), made(office.url, identity="B")
        fleet = Fleet(lambda: [broken, sound], clock)
        await fleet.start()
        try:
            await office.until(lambda: sound.registered and "no bus" in broken.health().reason)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(fleet.wait(), 0.2)
            assert sound.registered
        finally:
            began = clock.monotonic()
            await fleet.stop()
        assert clock.monotonic() - began < 3
