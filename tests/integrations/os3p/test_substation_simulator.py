"""Simulated substations: values that an engineer would believe, and a fleet as a service of the hub."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integrations.os3p.central_raw import central

from gridloom.core.clock import Clock, from_datetime
from gridloom.integrations.os3p.messages import MeterValue, MeterValues, SampledValue
from gridloom.integrations.os3p.reading import write
from gridloom.integrations.os3p.simulator import Simulated, demo
from gridloom.integrations.os3p.state import Fault


async def values(when: datetime, seed: int = 1) -> dict[str, float]:
    driver = Simulated("x", Clock(1e-9, from_datetime(when)), seed=seed, faulty=0)
    return {f"{one.measurand} {one.location or ''}".strip(): float(one.value) for one in await driver.meter()}


@pytest.mark.parametrize("seed", range(5))
async def test_values_of_a_day_are_believable(seed: int) -> None:
    rating = (100, 160, 250, 400, 630)[seed]
    energy = 0.0
    powers = []
    for hour in range(48):
        found = await values(datetime(2026, 3, 10, tzinfo=UTC) + timedelta(hours=hour / 2), seed)
        powers.append(found["ActivePower.Sum"])
        assert 207 < found["Voltage.L1N"] < 253, "EN 50160"
        assert 49.9 < found["Frequency"] < 50.1
        assert -30 < found["AmbientTemperature"] < 50
        assert found["OilTemperature"] > found["AmbientTemperature"]
        apparent = found["ApparentPower.Sum"]
        assert 0.05 * rating * 1000 < apparent < rating * 1000
        assert 0.9 < found["ActivePower.Sum"] / apparent <= 1.0
        assert found["ActivePower.Sum"] == pytest.approx(sum(found[f"ActivePower.L{phase}"] for phase in (1, 2, 3)), abs=2)
        for phase in (1, 2, 3):
            power = found[f"Voltage.L{phase}N"] * found[f"Current.L{phase}"] * found[f"PowerFactor.L{phase}"]
            assert power == pytest.approx(found[f"ActivePower.L{phase}"], rel=0.01)
        assert found["RealEnergyConsumed.Sum"] > energy, "a register never runs backwards"
        energy = found["RealEnergyConsumed.Sum"]
    assert max(powers) > 1.5 * min(powers), "evening and night"
    begin = (await values(datetime(2026, 3, 10, tzinfo=UTC), seed))["RealEnergyConsumed.Sum"]
    assert (energy - begin) / 23.5 == pytest.approx(sum(powers) / len(powers), rel=0.3), "the register is about the integral of the power"


async def test_what_it_measures_can_be_sent() -> None:
    driver = Simulated("x", Clock(), seed=3)
    samples = tuple(SampledValue(value=one.value, measurand=one.measurand, unit=one.unit, location=one.location) for one in await driver.meter())
    assert write(MeterValues(meterValue=(MeterValue(timestamp="2026-01-01T00:00:00Z", sampledValue=samples),)))


async def test_faults_come_now_and_then() -> None:
    hours = 0
    for hour in range(2_000):
        driver = Simulated("x", Clock(1e-9, from_datetime(datetime(2026, 1, 1, tzinfo=UTC)) + hour * 3_600_000_000), seed=1, faulty=0.02)
        hours += bool(await driver.faults())
    assert 15 < hours < 80
    quiet = Simulated("x", Clock(), seed=1, faulty=0)
    assert await quiet.faults() == []
    quiet.stand(Fault("UnderVoltage"))
    assert await quiet.faults() == [Fault("UnderVoltage")]


async def test_the_demo_is_a_service(tmp_path: Path) -> None:
    async with central() as office:
        fleet = demo(lambda: office.url, Clock(), folder=tmp_path)
        assert not fleet.health().ok
        assert await fleet.start() == {}
        await office.until(lambda: fleet.health().ok)
        assert {line.target for line in office.lines} == {"/OS3P/SUBS%20001", "/OS3P/SUBS%20002", "/OS3P/SUBS%20003"}
        await fleet.stop()
        assert (tmp_path / "SUBS-001" / "state.log").exists()
        await fleet.start()
        await office.until(lambda: fleet.health().ok)
        await fleet.stop()
        assert len(office.all("BootNotification")) == 3, "it remembers"
