"""Contactors, overrides and hardware that misbehaves; what a station does after it was off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from tests.integrations.os3p.central_raw import central, moment
from tests.integrations.os3p.substation import made, profile, profiles, registered, running

from gridloom.core.clock import Clock, from_datetime, rfc3339
from gridloom.core.errors import ConfigurationError
from gridloom.integrations.os3p import driver as hardware
from gridloom.integrations.os3p.client import Substation
from gridloom.integrations.os3p.driver import Driver, load
from gridloom.integrations.os3p.simulator import Simulated
from gridloom.integrations.os3p.state import Fault
from gridloom.links.websocket_client import connect

LIGHT = "StreetlightStatusNotification"
MODE = "StreetlightModeStatusNotification"


def simulated(station: Substation) -> Simulated:
    assert isinstance(station.driver, Simulated)
    return station.driver


def at(text: str, speed: float = 1.0) -> Clock:
    return Clock(speed, from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC)))


async def test_a_switching_that_was_missed_is_made_up_at_the_start_and_tells_when_that_was(tmp_path: Path) -> None:
    async with central() as office:
        for start, expected in (("2026-06-01T18:00:00", None), ("2026-06-01T20:00:00", "On"), ("2026-06-01T23:00:00", "Off")):
            clock = at(start)
            office.time = lambda clock=clock: rfc3339(clock.now())  # type: ignore[misc]
            driver = Simulated("x", clock, seed=1, faulty=0)
            driver.closed[1] = expected == "Off"  # a latching contactor: it stays as it was
            async with running(office.url, clock=clock, folder=tmp_path, driver=driver) as station:
                line = await office.line()
                await office.until(lambda: station.registered)
                if expected is None:
                    await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("21:00:00", "00:00:00"))))
                    assert await line.quiet(LIGHT)
                else:
                    told = await line.asked(LIGHT)
                    assert told["status"] == expected
                    assert 0 <= moment(told["timestamp"]) - datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() < 2
                    assert "unexpected" not in told


async def test_a_contactor_that_dropped_in_the_power_loss_is_told_and_switched_again(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
        await line.asked(LIGHT)
        await office.until(lambda: not station.vault.events)
        station.vault.close()
        office.told.clear()
        async with running(office.url, folder=tmp_path) as again:
            await office.until(lambda: again.registered and simulated(again).closed[1])
            await office.until(lambda: len(office.all(LIGHT)) == 2)
            assert [(one["status"], one.get("unexpected", False)) for one in office.all(LIGHT)] == [("Off", True), ("On", False)]


async def test_killed_between_switching_and_storing(tmp_path: Path) -> None:
    """The contactor is as it has to be, but nobody was told yet: it is told now, and is not unexpected."""
    async with registered(folder=tmp_path) as (office, station, _):
        station.contactors.override((1,), "On")
        station.vault.close()
        office.told.clear()
        driver = Simulated("x", Clock(), seed=1, faulty=0)
        driver.closed[1] = True
        async with running(office.url, folder=tmp_path, driver=driver):
            await office.until(lambda: office.all(LIGHT))
            assert [(one["status"], one.get("unexpected", False)) for one in office.all(LIGHT)] == [("On", False)]


async def test_a_contactor_that_does_not_follow_is_a_power_switch_failure() -> None:
    class Stuck(Simulated):
        async def switch(self, contactor: int, on: bool) -> None:
            if self.stuck:
                return
            await super().switch(contactor, on)

        stuck = True

    driver = Stuck("x", Clock(), seed=1, faulty=0)
    async with registered(driver=driver) as (_, _, line):
        assert (await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"}))["status"] == "Accepted"
        told = await line.asked("StatusNotification")
        assert (told["errorCode"], told["info"]) == ("PowerSwitchFailure", "contactor 1")
        assert await line.quiet(LIGHT), "no light went on"
        driver.stuck = False
        driver._changed()
        assert (await line.asked(LIGHT))["status"] == "On"
        assert (await line.asked("StatusNotification"))["info"] == "PowerSwitchFailure resolved"


async def test_hardware_that_raises_is_told_and_does_not_end_the_station() -> None:
    class Broken(Simulated):
        broken = True

        async def switch(self, contactor: int, on: bool) -> None:
            raise RuntimeError("no such pin")

        async def meter(self):  # type: ignore[no-untyped-def]
            if self.broken:
                raise ZeroDivisionError
            return await super().meter()

    driver = Broken("x", Clock(), seed=1, faulty=0)
    async with registered(driver=driver, keys={"MeterValuesInterval": "1"}) as (_, station, line):
        await line.call("OverrideStreetlight", {"action": "On"})
        codes = [(await line.asked("StatusNotification"))["errorCode"] for _ in range(3)]
        assert sorted(codes) == ["PowerMeterFailure", "PowerSwitchFailure", "PowerSwitchFailure"]
        assert not station.health().ok
        driver.broken = False
        await line.asked("MeterValues")
        assert (await line.asked("StatusNotification"))["info"] == "PowerMeterFailure resolved"
        assert (await line.call("TriggerMessage", {"requestedMessage": "MeterValues"}))["status"] == "Accepted"


async def test_a_contactor_without_feedback_is_switched_once_at_each_start(tmp_path: Path) -> None:
    class Blind(Driver):
        contactors = (1,)

        def __init__(self) -> None:
            super().__init__()
            self.done: list[bool] = []

        async def switch(self, contactor: int, on: bool) -> None:
            self.done.append(on)

    driver = Blind()
    async with registered(driver=driver, folder=tmp_path) as (office, station, line):
        await office.until(lambda: driver.done == [False])
        assert await line.quiet(LIGHT), "that was no transition"
        await line.call("OverrideStreetlight", {"action": "On"})
        assert (await line.asked(LIGHT))["status"] == "On"
        await line.call("Reset")
        await line.gone()
        await office.line()
        await office.until(lambda: station.registered)
        await asyncio.sleep(0.1)
        assert driver.done == [False, True, True]


async def test_local_override_moves_the_light_and_that_is_not_unexpected() -> None:
    async with registered() as (_, station, line):
        simulated(station).turn(True)
        told = [await line.asked(LIGHT) for _ in range(2)]
        assert [(one["status"], one.get("unexpected", False)) for one in told] == [("On", False)] * 2


async def test_suspend_holds_a_light_that_somebody_pulls() -> None:
    async with registered() as (_, station, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "Suspend"})
        simulated(station).pull(1, True)
        assert [((one := await line.asked(LIGHT))["status"], one.get("unexpected", False)) for _ in range(2)] == [("On", True), ("Off", False)]


async def test_a_night_at_speed_in_the_night_of_a_change_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.client.connect", partial(connect, connect_timeout=100_000))  # 30 s are 1.5 ms here
    clock = at("2026-10-24T15:00:00", speed=20_000)  # summer time ends at 03:00
    async with central() as office:
        office.time = lambda: rfc3339(clock.now())
        async with running(office.url, clock=clock, call_timeout=100_000, keys={"websocketPingInterval": "0"}) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("19:00:00", "02:30:00"), ("04:00:00", "07:00:00"))))
            told = [await line.asked(LIGHT) for _ in range(4)]
            expected = ["2026-10-24T17:00", "2026-10-25T00:30", "2026-10-25T03:00", "2026-10-25T06:00"]
            for one, when in zip(told, expected, strict=True):
                late = moment(one["timestamp"]) - datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
                assert 0 <= late < 1800, (one, when)
            assert [one["status"] for one in told] == ["On", "Off", "On", "Off"]


async def test_a_clock_that_jumps_is_followed_at_once() -> None:
    """Rule 10: after a jump of the time the lights are as they have to be then."""
    clock = at("2026-06-01T12:00:00")
    async with central() as office:
        office.time = lambda: rfc3339(clock.now())
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("21:00:00", "23:00:00"))))
            assert await line.quiet(LIGHT)
            office.time = lambda: rfc3339(clock.now() + 8 * 3_600_000_000)
            await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
            told = await line.asked(LIGHT, 2)
            assert told["status"] == "On"
            assert told["timestamp"].startswith("2026-06-01T20:00")


async def test_faults_survive_a_restart_and_are_resolved_then(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        simulated(station).stand(Fault("GroundFailure", "group 1"))
        await line.asked("StatusNotification")
        await office.until(lambda: not station.vault.events)
        await station.stop()
        office.told.clear()
        async with running(office.url, folder=tmp_path):
            await office.until(lambda: office.all("StatusNotification"))
        assert [one["info"] for one in office.all("StatusNotification")] == ["Ground failure resolved"]


async def test_damaged_state_is_told(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        await line.call("SetStreetlightProfile", profiles())
        await station.stop()
        content = bytearray((tmp_path / "state.log").read_bytes())
        content[30] ^= 1
        (tmp_path / "state.log").write_bytes(content)
        async with running(office.url, folder=tmp_path) as again:
            told = await (await office.line()).asked("StatusNotification")
            assert (told["errorCode"], told["vendorErrorCode"]) == ("OtherError", "StateDamaged")
            assert "state.damaged-1" in told["info"]
            assert len(again.vault.state.profiles) == 1, "the last good state"


async def test_profiles_that_cannot_be_kept_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.integrations.os3p.central_raw import Refused

    async with registered(folder=tmp_path) as (_, station, line):

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("gridloom.integrations.os3p.state._write_all", full)
        with pytest.raises(Refused) as raised:
            await line.call("SetStreetlightProfile", profiles())
        assert raised.value.code == "InternalError"
        assert station.vault.state.profiles == ()
        monkeypatch.undo()
        assert (await line.call("SetStreetlightProfile", profiles()))["status"] == "Accepted"


# ------------------------------------------------------------------------------------------------------- hardware that fails


@pytest.mark.parametrize("method", ["lit", "local"])
@pytest.mark.parametrize("hangs", [False, True])
async def test_an_input_that_fails_costs_no_other_light(method: str, hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "PATIENCE", 0.1)
    driver = Simulated("x", Clock(), seed=1, faulty=0)
    driver.poll = 0.2
    sound = getattr(driver, method)

    async def broken(contactor: int) -> bool | None:
        if contactor != 1:
            return await sound(contactor)  # type: ignore[no-any-return]
        if hangs:
            await asyncio.Event().wait()
        raise OSError("no such pin")

    async with registered(driver=driver) as (office, station, line):
        setattr(driver, method, broken)
        for contactor in (1, 2):
            await line.call("SetStreetlightProfile", profiles(contactor))
        told = await line.asked("StatusNotification", 3)
        assert (told["status"], told["errorCode"], told["info"]) == ("Faulted", "PowerSwitchFailure", "contactor 1")
        await office.until(lambda: driver.closed == {1: True, 2: True})
        assert {(await line.asked(LIGHT, 3))["contactorId"] for _ in range(2)} == {1, 2}, "and it goes on with what it knew of the first"
        assert "contactors: 1" in station.health().reason
        setattr(driver, method, sound)
        assert (await line.asked("StatusNotification", 3))["info"] == "PowerSwitchFailure resolved"
        await office.until(lambda: station.health().ok)


@pytest.mark.parametrize("hangs", [False, True])
async def test_an_override_is_rejected_where_the_local_switch_cannot_be_read(hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "PATIENCE", 0.1)

    class Deaf(Simulated):
        async def local(self, contactor: int) -> bool | None:
            if hangs:
                await asyncio.Event().wait()
            raise OSError("no such pin")

    async with registered(driver=Deaf("x", Clock(), seed=1, faulty=0)) as (_, station, line):
        assert (await line.call("OverrideStreetlight", {"contactorId": 2, "action": "On"}, timeout=3))["status"] == "Rejected"
        assert station.contactors.lamp(2).remote is None


async def test_a_local_override_stays_where_its_switch_cannot_be_read_any_more() -> None:
    driver = Simulated("x", Clock(), seed=1, faulty=0)
    async with registered(driver=driver) as (_, station, line):
        driver.turn(True)
        for _ in range(2):
            assert (await line.asked(MODE))["mode"] == "LocalOverride"

        async def broken(contactor: int) -> bool | None:
            raise OSError("no such pin")

        driver.local = broken  # type: ignore[method-assign]
        station.changed()
        assert (await line.asked("StatusNotification"))["errorCode"] == "PowerSwitchFailure"
        assert await line.quiet(MODE)
        assert driver.closed == {1: True, 2: True}


async def test_an_override_that_comes_while_the_inputs_are_read_is_kept() -> None:
    class Slow(Simulated):
        async def lit(self, contactor: int) -> bool | None:
            if station and contactor == 1:
                self.closed[1] = True  # something to tell, so that this look writes
                station.pop().contactors.override((1,), "On")
            return self.closed[contactor]

    station: list[Substation] = []
    driver = Slow("x", Clock(), seed=1, faulty=0)
    async with registered(driver=driver) as (_, one, line):
        station.append(one)
        one.changed()
        assert (await line.asked(LIGHT))["status"] == "On"
        assert await line.quiet(LIGHT)
        lamp = one.contactors.lamp(1)
        assert (lamp.remote, lamp.mode, lamp.on) == ("On", "RemoteOverride", True)


async def test_hardware_is_asked_one_thing_at_a_time() -> None:
    class Narrow(Simulated):
        poll = 0.01
        busy, most = 0, 0

        async def _alone(self) -> None:
            Narrow.busy += 1
            Narrow.most = max(Narrow.most, Narrow.busy)
            await asyncio.sleep(0.01)
            Narrow.busy -= 1

        async def local(self, contactor: int) -> bool | None:
            await self._alone()
            return None

        async def meter(self):  # type: ignore[no-untyped-def]
            await self._alone()
            return await super().meter()

        async def faults(self):  # type: ignore[no-untyped-def]
            await self._alone()
            return await super().faults()

        async def vendor_file(self, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
            await self._alone()
            return None

    async with registered(driver=Narrow("x", Clock(), seed=1, faulty=0)) as (_, _, line):
        for _ in range(5):
            await line.call("TriggerMessage", {"requestedMessage": "MeterValues"})
            await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
            await line.call("GetFile", {"fileType": "VendorSpecific", "location": "ftp://127.0.0.1:1/", "requestId": "1"})
        assert Narrow.most == 1


@pytest.mark.parametrize("fails", ["hangs", "raises", "is no file"])
async def test_a_vendor_file_that_fails_is_rejected_and_somebody_is_told(fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "PATIENCE", 0.2)
    order = {"fileType": "VendorSpecific", "location": "ftp://127.0.0.1:1/", "requestId": "1"}

    class Bad(Simulated):
        async def vendor_file(self, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
            if fails == "hangs":
                await asyncio.Event().wait()
            if fails == "raises":
                raise ZeroDivisionError
            return "txt", "text"  # type: ignore[return-value]

    async with registered(driver=Bad("x", Clock(), seed=1, faulty=0)) as (_, station, line):
        assert (await line.call("GetFile", order, timeout=3))["status"] == "Rejected"
        assert "vendor file" in station.health().reason
        assert (await line.call("GetConfiguration", timeout=1))["configurationKey"], "others are answered"


async def test_a_handler_does_not_wait_for_its_turn_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, clock = hardware.Turns(Clock()), Clock()
    release = asyncio.Event()

    async def nothing() -> None:
        pass

    first = asyncio.create_task(turns(release.wait, patience=10))
    await asyncio.sleep(0)
    began = clock.monotonic()
    with pytest.raises(TimeoutError, match="nothing did not return within"):
        await turns(nothing, hurry=True, patience=0.1)
    assert clock.monotonic() - began < 2
    second = asyncio.create_task(turns(nothing, patience=0.05))
    await asyncio.sleep(0.2)
    release.set()
    await asyncio.gather(first, second)  # its time counts from its turn


def test_an_order_waits_for_hardware_for_ten_seconds_at_most() -> None:
    assert hardware.PATIENCE <= 10


# ---------------------------------------------------------------------------------------------------------------- own drivers


def test_a_driver_is_named_by_module_and_factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rtu_of_a_test.py").write_text(
        "from gridloom.integrations.os3p.driver import Driver\n"
        "def make(identity): return Driver(vendor='BrandX', model=identity)\n"
        "def wrong(identity): return 5\n"
        "number = 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load("my_rtu_of_a_test:make")("S 1").identity().model == "S 1"
    with pytest.raises(ConfigurationError, match="made a int"):
        load("my_rtu_of_a_test:wrong")("S 1")
    for spec, words in (
        ("my_rtu_of_a_test", "module:factory"), ("my_rtu_of_a_test:gone", "has no gone"), ("my_rtu_of_a_test:number", "cannot be called"),
        ("no_such_module_here:make", "cannot be imported"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            load(spec)


async def test_stop_before_anything_happened(tmp_path: Path) -> None:
    station = made("ws://127.0.0.1:1/OS3P", folder=tmp_path)
    await station.start()
    await station.stop()
    await station.start()
    await asyncio.sleep(0.05)
    await station.stop()
    assert station.health().reason == "not registered with its Central System"
