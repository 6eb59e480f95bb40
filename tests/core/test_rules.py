"""Alarms by configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.core.world import DAY, METER, VOLTAGE, World, reading, until

from gridloom.core.clock import Clock
from gridloom.core.errors import InvalidInput, StorageFull
from gridloom.core.model import Device, MeterReading, Phase, Quality, Reading, ReadingType, Severity
from gridloom.core.rules import Rate, Rule, Rules, Silence, Threshold, check

SECOND = 1_000_000
HIGH = Threshold(name="high", measurand="Voltage", above=250, hysteresis=5)


@pytest.fixture
async def ruled(tmp_path: Path) -> AsyncIterator[Any]:
    """``await ruled(rule, …)`` is a world with the device and these rules."""
    made: list[tuple[World, Rules]] = []

    async def make(*rules: Rule, speed: float = 1.0, world: World | None = None) -> tuple[World, Rules]:
        if world is None:
            world = await World(tmp_path, Clock(speed=speed)).open()
            await world.registry.register(METER)
            await world.registry.settle()
        started = Rules(rules, registry=world.registry, alarms=world.alarms, intake=world.intake, bus=world.bus, clock=world.clock)
        await started.start()
        made.append((world, started))
        return world, started

    yield make
    for _, rules in made:
        await rules.stop()
    await made[-1][0].close()


async def states(world: World, *readings: MeterReading) -> list[str]:
    """After each reading, what is raised: subjects with a space for none."""
    seen = []
    for one in readings:
        await world.intake.readings([one])
        seen.append(",".join(sorted(alarm.subject for alarm in world.alarms.all_raised())))
    return seen


# -------------------------------------------------------------------------------------------------------- configuration


def test_rules_are_read_from_configuration() -> None:
    told = [
        {"type": "threshold", "name": "high", "measurand": "Voltage", "above": 250, "hysteresis": 5, "devices": ["tic:*"], "severity": "error"},
        {"type": "silence", "name": "quiet", "seconds": 300},
        {"type": "rate", "name": "jump", "measurand": "Power.Active.Import", "rises": 3000, "within_seconds": 10},
    ]
    rules = msgspec.convert(told, tuple[Rule, ...])
    assert rules[0] == Threshold(name="high", measurand="Voltage", above=250, hysteresis=5, devices=("tic:*",), severity=Severity.ERROR)
    assert isinstance(rules[1], Silence)
    assert isinstance(rules[2], Rate)
    check(rules)
    with pytest.raises(msgspec.ValidationError, match="obove"):
        msgspec.convert([told[0] | {"obove": 3}], tuple[Rule, ...])


def test_every_fault_of_the_rules_is_named() -> None:
    wrong = (
        Threshold(name="a", measurand="Voltaje", above=1),
        Threshold(name="b", measurand="Voltage"),
        Threshold(name="b", measurand="Voltage", above=10, below=9, hysteresis=1),
        Rate(name="c", measurand="Voltage"),
        Silence(name="d", seconds=1, measurand="Nonsense"),
    )
    with pytest.raises(InvalidInput) as caught:
        check(wrong)
    assert [fault.path for fault in caught.value.faults] == [
        "$.rule[0].measurand", "$.rule[1]", "$.rule[2].name", "$.rule[2].below", "$.rule[3]", "$.rule[4].measurand",
    ]  # fmt: skip
    assert 'did you mean "Voltage"' in caught.value.faults[0].reason


# ------------------------------------------------------------------------------------------------------------ threshold


async def test_a_threshold_with_hysteresis(ruled: Any) -> None:
    world, _ = await ruled(HIGH)
    values = (249, 250, 251, 249, 246, 245, 251)
    assert await states(world, *(reading(value, DAY + number) for number, value in enumerate(values))) == [
        "", "", "high L1", "high L1", "high L1", "", "high L1",
    ]  # fmt: skip
    (alarm,) = world.alarms.active(world.admin)
    assert (alarm.kind, alarm.severity, alarm.data) == (
        "alarm.threshold", Severity.WARNING, {"rule": "high", "value": 251.0, "limit": 250.0, "since": DAY + 6, "time": DAY + 6},
    )  # fmt: skip
    assert alarm.message == "Voltage is 251 V, above 250."
    assert await world.events("alarm.threshold") == ["alarm.threshold raised", "alarm.threshold cleared", "alarm.threshold raised"]


async def test_a_threshold_below(ruled: Any) -> None:
    world, _ = await ruled(Threshold(name="low", measurand="Voltage", below=200, hysteresis=2, message="Brown-out!"))
    assert await states(world, *(reading(value, DAY + number) for number, value in enumerate((200, 199, 201, 202)))) == ["", "low L1", "low L1", ""]
    (event,) = (await world.query.events(world.admin, kinds=["alarm.threshold"], limit=2, descending=False)).events[:1]
    assert event.message == "Brown-out!"


async def test_a_threshold_must_hold_for_its_time(ruled: Any) -> None:
    world, _ = await ruled(Threshold(name="high", measurand="Voltage", above=250, for_seconds=10))
    told = [(251, 0), (251, 9), (249, 9.5), (251, 10), (260, 19.9), (251, 20)]
    assert await states(world, *(reading(value, DAY + int(at * SECOND)) for value, at in told)) == ["", "", "", "", "", "high L1"]


async def test_each_series_has_an_alarm_of_its_own_unless_the_rule_narrows_it(ruled: Any) -> None:
    world, _ = await ruled(HIGH, Threshold(name="only2", measurand="Voltage", above=250, phase=Phase.L2))
    second = ReadingType("Voltage", "V", Phase.L2, location="P1Meter")
    both = MeterReading(METER.id, DAY, DAY, (Reading(VOLTAGE, 2_510, -1), Reading(second, 2_520, -1)))
    assert await states(world, both) == ["high L1,high L2 P1Meter,only2 L2 P1Meter"]


async def test_a_reading_of_a_clock_far_ahead_does_not_switch_rules_off(ruled: Any) -> None:
    world, _ = await ruled(HIGH, Rate(name="jump", measurand="Voltage", rises=15, within_seconds=10))

    def told(value: int, time: int, received: int) -> MeterReading:
        return MeterReading(METER.id, DAY + time, DAY + received, (Reading(VOLTAGE, value),))

    years = 20 * 365 * 86_400 * SECOND
    assert await states(
        world,
        told(240, years, 0),
        told(260, SECOND, SECOND),
        told(240, years, 12 * SECOND),  # is looked at, too, as of its arrival
        told(240, 12 * SECOND + 60 * SECOND, 12 * SECOND),  # the last that is believed
        told(260, 70 * SECOND, 70 * SECOND),  # which makes this one late
        told(260, 73 * SECOND, 73 * SECOND),
    ) == ["", "high L1,jump L1", "", "", "", "high L1,jump L1"]


async def test_late_doubtful_and_textual_values_are_not_looked_at(ruled: Any) -> None:
    world, _ = await ruled(HIGH)
    assert await states(
        world,
        reading(240, DAY + 10),
        reading(999, DAY + 5),
        reading(999, DAY + 10),
        reading(999, DAY + 11, quality=Quality.SUSPECT),
        reading("ON", DAY + 12),
    ) == ["", "", "", "", ""]


async def test_which_devices_a_rule_concerns(ruled: Any) -> None:
    devices = {"tic:1": "", "tic:[2]": "", "ocpp:3": "home"}
    world, _ = await ruled(
        Threshold(name="a", measurand="Voltage", above=250, devices=("tic:*",)),
        Threshold(name="b", measurand="Voltage", above=250, devices=("tic:[2]",)),
        Threshold(name="c", measurand="Voltage", above=250, site="home"),
        Threshold(name="d", measurand="Voltage", above=250, devices=("ocpp:*", "tic:1"), site="home"),
    )
    raised = {}
    for id, site in devices.items():
        integration, _, identity = id.partition(":")
        await world.registry.register(Device(id, integration, identity, site=site))
        await world.intake.readings([reading(300, DAY, device=id)])
        raised[id] = sorted(alarm.subject[0] for alarm in world.alarms.all_raised() if alarm.device == id)
    assert raised == {"tic:1": ["a"], "tic:[2]": ["a", "b"], "ocpp:3": ["c", "d"]}


async def test_a_device_without_rules_costs_one_lookup(ruled: Any) -> None:
    _, rules = await ruled(Threshold(name="a", measurand="Voltage", above=250, devices=("tic:*",)))
    types = [ReadingType("Voltage", "V", tariff=str(number)) for number in range(1_000)]
    large = [MeterReading(METER.id, DAY, DAY, tuple(Reading(type, 300) for type in types))]
    small = [MeterReading(METER.id, DAY, DAY, (Reading(VOLTAGE, 300),))]

    def cost(batch: list[MeterReading]) -> float:
        began = time.perf_counter()
        for _ in range(2_000):
            rules.evaluate(batch)
        return time.perf_counter() - began

    assert min(cost(large) for _ in range(5)) < 3 * min(cost(small) for _ in range(5)) + 0.001


async def test_after_a_restart_a_rule_goes_on_where_it_was(ruled: Any) -> None:
    world, _ = await ruled(HIGH)
    await world.intake.readings([reading(260, DAY)])
    again = await world.again()
    await ruled(HIGH, world=again)
    await again.intake.readings([reading(261, DAY + 1)])
    assert await again.events("alarm.threshold") == ["alarm.threshold raised"]
    await again.intake.readings([reading(240, DAY + 2)])
    assert again.alarms.all_raised() == []


async def test_alarms_of_rules_that_are_gone_are_cleared_at_the_start(ruled: Any) -> None:
    world, _ = await ruled(HIGH, Threshold(name="kept", measurand="Voltage", above=250))
    await world.intake.readings([reading(260, DAY)])
    assert len(world.alarms.all_raised()) == 2
    again = await world.again()
    await ruled(Threshold(name="kept", measurand="Voltage", above=250), world=again)
    assert [alarm.subject for alarm in again.alarms.all_raised()] == ["kept L1"]


async def test_a_device_that_moves_leaves_the_rules_of_its_old_site(ruled: Any) -> None:
    world, _ = await ruled(Threshold(name="home", measurand="Voltage", above=250, site="home"))
    await world.accounts.create_site(world.admin, "Home", id="home")
    await world.intake.readings([reading(260, DAY)])
    assert world.alarms.all_raised() == []
    await world.registry.update(METER.id, world.admin, site="home")
    await world.intake.readings([reading(260, DAY + 1)])
    assert [alarm.subject for alarm in world.alarms.all_raised()] == ["home L1"]
    await world.registry.update(METER.id, world.admin, site="")
    await until(lambda: world.alarms.all_raised() == [])


async def test_an_alarm_that_could_not_be_recorded_is_found_again(ruled: Any) -> None:
    world, _ = await ruled(HIGH)
    commit = world.store.commit

    async def full(writes: Any) -> Any:
        raise StorageFull("no space")

    world.store.commit = full
    await world.intake.readings([reading(260, DAY)])  # the reading itself is kept and told
    assert world.alarms.all_raised() == []
    world.store.commit = commit
    await world.intake.readings([reading(260, DAY + 1)])
    assert [alarm.subject for alarm in world.alarms.all_raised()] == ["high L1"]


# ------------------------------------------------------------------------------------------------------------------ rate


async def test_a_value_that_rises_or_falls_too_fast(ruled: Any) -> None:
    world, _ = await ruled(Rate(name="jump", measurand="Voltage", rises=10, falls=20, within_seconds=10))
    told = [(230, 0), (235, 5), (241, 9), (241, 12), (241, 20), (222, 25), (220, 26), (220, 60)]
    assert await states(world, *(reading(value, DAY + at * SECOND) for value, at in told)) == [
        "", "", "jump L1", "", "", "", "jump L1", "",
    ]  # fmt: skip
    events = (await world.query.events(world.admin, kinds=["alarm.rate"], descending=False)).events
    assert [event.data.get("change") for event in events] == [11, None, -21, None]


async def test_a_long_window_is_thinned_and_bounded(ruled: Any) -> None:
    world, rules = await ruled(Rate(name="drift", measurand="Voltage", rises=10, within_seconds=10_000))
    for batch in range(10):
        await world.intake.readings([reading(230 + batch / 10, DAY + (batch * 100 + number) * SECOND) for number in range(100)])
    (watches,) = rules._devices[METER.id].by_type.values()
    assert len(watches[0].samples) <= 258
    assert await states(world, reading(240.5, DAY + 1_000 * SECOND)) == ["drift L1"]


# --------------------------------------------------------------------------------------------------------------- silence


async def test_a_device_that_falls_silent_and_one_that_never_spoke(ruled: Any) -> None:
    world, _ = await ruled(Silence(name="quiet", seconds=60, severity=Severity.ERROR), speed=400.0)
    await until(lambda: [alarm.device for alarm in world.alarms.all_raised()] == [METER.id])
    (alarm,) = world.alarms.all_raised()
    assert (alarm.kind, alarm.subject, alarm.severity, alarm.message) == ("alarm.silence", "quiet", Severity.ERROR, "Nothing was read for 60 s.")
    await world.intake.readings([reading(1, DAY)])
    assert world.alarms.all_raised() == []
    await world.registry.register(Device("dummy:new", "dummy", "new"))
    for number in range(20):  # one speaks, the new one does not
        await world.intake.readings([reading(1, DAY + number + 1)])
        await asyncio.sleep(0.02)
    assert [alarm.device for alarm in world.alarms.all_raised()] == ["dummy:new"]
    events = (await world.query.events(world.admin, devices=[METER.id], kinds=["alarm.silence"], descending=False)).events
    assert [event.state.value for event in events] == ["raised", "cleared"]  # while it spoke nobody missed it
    await until(lambda: len(world.alarms.all_raised()) == 2)


async def test_silence_of_one_measurand(ruled: Any) -> None:
    world, _ = await ruled(Silence(name="volts", seconds=60, measurand="Voltage"), speed=400.0)
    power = ReadingType("Power.Active.Import", "W")

    async def speak(type: ReadingType) -> None:
        for number in range(20):
            await world.intake.readings([reading(1, world.clock.now() + number, type=type)])
            await asyncio.sleep(0.02)

    await speak(VOLTAGE)
    assert world.alarms.all_raised() == []
    await speak(power)
    assert [alarm.message for alarm in world.alarms.all_raised()] == ["Voltage was not read for 60 s."]
    await world.intake.readings([reading(1, world.clock.now())])
    assert world.alarms.all_raised() == []


async def test_a_removed_device_is_not_missed(ruled: Any) -> None:
    world, rules = await ruled(Silence(name="quiet", seconds=60), speed=400.0)
    await world.registry.remove(METER.id, world.admin)
    await asyncio.sleep(0.3)
    assert world.alarms.all_raised() == []
    assert rules._loop is not None
    assert not rules._loop.done()
