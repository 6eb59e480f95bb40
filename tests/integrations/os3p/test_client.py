"""The Substation as a whole: it boots, speaks, stops, and starts again."""

from __future__ import annotations

from pathlib import Path

from tests.integrations.os3p.central_raw import central
from tests.integrations.os3p.substation import registered, running


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
