"""EKM's own library (``ekmmeters``, MIT) as a client of the simulated bus: what it reads and sets is what the simulated meters say and become.

The library polls, purges its input behind each request, and opens a pty once: each test has its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ekmmeters  # type: ignore[import-untyped]
import pytest
from tests.integrations.ekm.bus import V3, V4

from gridloom.core.clock import Clock
from gridloom.integrations.ekm import simulator
from gridloom.integrations.ekm.simulator import Line, Simulator

BAUD = 38_400


class Client:
    """The library with a port of ours; ``run`` is called in a thread, as the library blocks."""

    def __init__(self, path: Path, *meters: str) -> None:
        clock = Clock()
        self.path = path / "bus"
        self.line = Line([simulator.meter(text, clock, load=simulator.steady(1500, -700, 300)) for text in meters])
        self.simulator = Simulator(self.path, self.line, baud=BAUD, turnaround=0.015)

    async def run(self, work: Callable[[Any], Any]) -> Any:
        def within() -> Any:
            port = ekmmeters.SerialPort(str(self.path), force_wait=0.005)
            assert port.initPort()
            try:
                return work(port)
            finally:
                port.closePort()

        await self.simulator.start()
        try:
            return await asyncio.to_thread(within)
        finally:
            await self.simulator.stop()


def v4(port: Any) -> Any:
    meter = ekmmeters.V4Meter(V4)
    meter.attachPort(port)
    return meter


async def test_it_reads_a_v4(tmp_path: Path) -> None:
    client = Client(tmp_path, f"{V4}:v4")

    def work(port: Any) -> dict[str, str]:
        meter = v4(port)
        assert meter.request(True)
        names = ("Meter_Address", "RMS_Watts_Ln_2", "RMS_Volts_Ln_1", "kWh_Tot", "kWh_Tariff_2", "Line_Freq", "State_Watts_Dir", "CT_Ratio")
        return {name: meter.getField(name) for name in (*names, "Net_Calc_Watts_Tot", "Power_Factor_Ln_1", "Model")}

    found = await client.run(work)
    meter = client.line.meters[0]
    assert found["Meter_Address"] == V4
    assert (found["RMS_Watts_Ln_2"], found["Net_Calc_Watts_Tot"], found["State_Watts_Dir"]) == ("700", "1100", "3")
    assert (float(found["RMS_Volts_Ln_1"]), float(found["Line_Freq"]), found["CT_Ratio"]) == (230.0, 50.0, "200")
    assert float(found["kWh_Tot"]) == pytest.approx(sum(meter.energy[0]) / 1000, abs=0.02)
    assert float(found["kWh_Tariff_2"]) == pytest.approx(meter.energy[0][1] / 1000, abs=0.02)
    assert found["Power_Factor_Ln_1"] == "97"
    assert found["Model"] == "1024"


async def test_it_reads_a_v3(tmp_path: Path) -> None:
    client = Client(tmp_path, f"{V3}:v3")

    def work(port: Any) -> dict[str, str]:
        meter = ekmmeters.V3Meter(V3)
        meter.attachPort(port)
        assert meter.request(True)
        return {name: meter.getField(name) for name in ("Meter_Address", "RMS_Watts_Tot", "kWh_Tot", "Model", "Max_Demand_Period")}

    found = await client.run(work)
    assert found["Meter_Address"] == V3
    assert found["RMS_Watts_Tot"] == "2500"
    assert float(found["kWh_Tot"]) == pytest.approx(sum(client.line.meters[0].energy[0]) / 1000, abs=0.2)
    assert (found["Model"], found["Max_Demand_Period"]) == ("1017", "1")


async def test_it_sets_what_can_be_set(tmp_path: Path) -> None:
    client = Client(tmp_path, f"{V4}:v4")

    def work(port: Any) -> None:
        meter = v4(port)
        assert meter.setRelay(0, ekmmeters.Relay.Relay2, ekmmeters.RelayState.RelayClose)
        assert meter.setCTRatio(ekmmeters.CTRatio.Amps_400)
        assert meter.setMaxDemandPeriod(ekmmeters.MaxDemandPeriod.At_30_Minutes)
        assert meter.setPulseInputRatio(ekmmeters.Pulse.In2, 55)
        assert meter.setPulseOutputRatio(ekmmeters.PulseOutput.Ratio_40)
        assert meter.setZeroResettableKWH()
        assert meter.setWeekendHolidaySchedules(2, 3)
        assert meter.setLCDCmd([ekmmeters.LCDItems.kWh_Tot, ekmmeters.LCDItems.Line_Freq])
        assert meter.setTime(25, 6, 7, 8, 9, 10)
        assert meter.setMeterPassword("12345678")

    await client.run(work)
    meter = client.line.meters[0]
    assert meter.relays[1] == (1, None)
    assert (meter.ct, meter.demand_period, meter.pulse_ratios, meter.output_ratio) == (400, "2", [1000, 55, 1000], 40)
    assert (meter.weekend, meter.lcd[:6], meter.password) == ("0203", "012800", "12345678")
    assert f"{meter.local():%Y-%m-%d %H:%M}" == "2025-06-07 08:09"


async def test_a_wrong_password_changes_nothing(tmp_path: Path) -> None:
    client = Client(tmp_path, f"{V4}:v4")

    def work(port: Any) -> bool:
        return bool(v4(port).setCTRatio(ekmmeters.CTRatio.Amps_400, "87654321"))

    assert await client.run(work) is False
    assert client.line.meters[0].writes == []


async def test_it_reads_back_the_schedules_and_months_that_it_set(tmp_path: Path) -> None:
    client = Client(tmp_path, f"{V4}:v4")
    client.line.meters[0].months[0][0] = [123_400.0, 100_000.0, 20_000.0, 3_400.0, 0.0]

    def work(port: Any) -> tuple[Any, ...]:
        meter = v4(port)
        assert meter.request(False)
        for period, (hour, tariff) in enumerate(((0, 1), (6, 2), (12, 3), (22, 4))):
            assert meter.assignSchedule(ekmmeters.Schedules.Schedule_5, period, hour, 30, tariff)
        assert meter.setSchedule()
        # As a dictionary: the library's own assignSeasonSchedule takes the month for the day.
        parts = {"Start_Month": (1, 4, 7, 10), "Start_Day": (15, 15, 15, 15), "Schedule": (1, 2, 3, 4)}
        assert meter.setSeasonSchedules({f"Season_{season}_{name}": parts[name][season - 1] for season in range(1, 5) for name in parts})
        for holiday in range(20):
            meter.assignHolidayDate(holiday, holiday % 12 + 1, holiday + 1)
        assert meter.setHolidayDates()
        assert meter.readSchedules(ekmmeters.ReadSchedules.Schedules_1_To_4)
        assert meter.readSchedules(ekmmeters.ReadSchedules.Schedules_5_To_6)
        schedule = [meter.extractSchedule(ekmmeters.Schedules.Schedule_5, period) for period in range(4)]
        assert meter.readHolidayDates()
        holidays = [meter.extractHolidayDate(holiday) for holiday in range(20)]
        assert meter.readMonthTariffs(ekmmeters.ReadMonths.kWh)
        return schedule, holidays, meter.extractMonthTariff(0)

    schedule, holidays, month = await client.run(work)
    assert [(int(one.Hour), int(one.Min), int(one.Tariff)) for one in schedule] == [(0, 30, 1), (6, 30, 2), (12, 30, 3), (22, 30, 4)]
    assert [(int(one.Month), int(one.Day)) for one in holidays] == [(place % 12 + 1, place + 1) for place in range(20)]
    assert float(month.kWh_Tot) == pytest.approx(123.4)
    assert float(month.kWh_Tariff_2) == pytest.approx(20.0)
    meter = client.line.meters[0]
    assert meter.schedules[4] == "003001063002123003223004"
    assert meter.seasons == "011501041502071503101504"
