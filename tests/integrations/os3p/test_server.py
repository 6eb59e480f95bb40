"""The Central System and its stations: registration, what they tell, what is ordered of them. Raw sockets on the station's side."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import until
from tests.integrations.os3p.central import FIRST, Central, central, refused, section
from tests.integrations.os3p.station import BINARY, BOOT, Refused, basic, connected, knock

from gridloom.core.clock import Clock, from_datetime
from gridloom.core.errors import StorageFull
from gridloom.core.events import new_event
from gridloom.core.model import Admission, CommandState, Device, DeviceKind
from gridloom.core.ports import JournalFilter
from gridloom.core.settings import Duration
from gridloom.integrations.os3p import orders
from gridloom.integrations.os3p.lights import Lights, updated
from gridloom.integrations.os3p.stations import MOST_KINDS, MOST_REPLACED, Record, Station
from gridloom.integrations.os3p.statuses import MOST_SUBJECTS

LIGHT = {"contactorId": 2, "status": "On", "timestamp": "2026-11-20T16:00:00Z"}
MODE = {"mode": "LocalOverride", "timestamp": "2026-11-20T16:00:00Z"}
METER = {
    "meterValue": [
        {
            "timestamp": "2026-11-20T16:52:16Z",
            "sampledValue": [
                {"value": "12", "unit": "A", "measurand": "Current.L1"},
                {"value": "300", "unit": "kWh", "measurand": "Energy.Active.Import.Register"},
                {"value": "40", "unit": "kW", "location": "P1Meter", "measurand": "ActivePower.L1"},
            ],
        }
    ]
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def status(code: str = "NoError", whole: str = "Ok", **more: Any) -> dict[str, Any]:
    """A StatusNotification."""
    return {"status": whole, "errorCode": code, "timestamp": "2026-11-20T16:00:00Z", **more}


# -------------------------------------------------------------------------------------------------------------- registration


async def test_B1_a_known_station_boots_and_is_accepted(tmp_path: Path) -> None:
    async with central(tmp_path, section(heartbeat_interval=Duration("2h"))) as one:
        await one.add()
        async with one.station() as station:
            answer = await station.boot()
            assert answer.keys() == {"status", "currentTime", "interval"}
            assert (answer["status"], answer["interval"]) == ("Accepted", 7_200)
            assert TIME.fullmatch(answer["currentTime"])
            told = from_datetime(__import__("datetime").datetime.fromisoformat(answer["currentTime"]))
            assert abs(told - one.world.clock.now()) < 2_000_000
            device = one.device()
            assert (device.kind, device.vendor, device.model, device.serial, device.firmware) == (
                DeviceKind.SUBSTATION, "BrandX", "SUBS-A1", "AQ1234VB5678", "1.1.0",
            )  # fmt: skip
            assert device.attributes == {"stationNumber": "987654321", "iccid": BOOT["iccid"], "imsi": BOOT["imsi"]}
            assert "light.override" in device.verbs
            assert one.online()
            view = await one.show()
            assert view.record.boots == 1
            assert view.record.status == "Accepted"
            assert view.connection is not None
            assert (view.connection.address, view.connection.subprotocol, view.connection.secure) == ("127.0.0.1", "OS3P1.0", False)
        await until(lambda: not one.online())
        assert await one.events("device.booted") == ["device.booted occurred"]


async def test_B3_an_interval_of_its_own(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert (await station.boot())["interval"] == 43_200
        await one.change(heartbeat_interval=600)
        assert (await station.boot())["interval"] == 600
        await one.change(heartbeat_interval=None)
        assert (await station.boot())["interval"] == 43_200
        assert sum(line.startswith("device.manage") for line in await one.world.trail()) == 3  # added, and two changes


async def test_B7_a_rejected_station_is_told_so_then_closed_and_told_again_when_it_comes_again(tmp_path: Path) -> None:
    async with central(tmp_path, section(pending_interval=Duration(90))) as one:
        await one.add(admission=Admission.REJECTED)
        for _ in range(2):
            station = await connected(one.where)
            assert await station.boot() | {"currentTime": ""} == {"status": "Rejected", "interval": 90, "currentTime": ""}
            assert (await station.closed()).code == 1000
        assert not one.online()
        assert await one.events("device.booted") == []


async def test_B8_B11_a_station_that_waits_is_asked_to_boot_when_it_is_accepted(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", pending_interval=Duration(900))) as one, one.station("NEW 1") as station:
        station.replies["TriggerMessage"] = {"status": "Accepted"}
        answer = await station.boot()
        assert (answer["status"], answer["interval"]) == ("Pending", 900)
        assert one.device("NEW 1").admission is Admission.PENDING
        assert one.online("NEW 1")
        assert await one.events("device.pending") == ["device.pending raised"]
        assert (await station.boot())["status"] == "Pending"
        await one.decide(Admission.KNOWN, "NEW 1")
        assert (await station.asked_for("TriggerMessage"))[1] == {"requestedMessage": "BootNotification"}
        with refused("SecurityError"):
            await station.call("MeterValues", METER)
        assert (await station.boot())["status"] == "Accepted"
        assert await station.call("MeterValues", METER) == {}
        assert await one.events("device.data.refused") == ["device.data.refused raised", "device.data.refused cleared"]


async def test_B5_a_station_that_waits_is_closed_when_it_is_rejected(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve")) as one:
        async with one.station() as station:
            assert (await station.boot())["status"] == "Pending"
            await one.decide(Admission.REJECTED)
            assert (await station.closed()).code == 1000
        async with one.station() as station:
            assert (await station.boot())["status"] == "Rejected"


async def test_accept_any_takes_whoever_comes(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="any")) as one, one.station() as station:
        assert (await station.boot())["status"] == "Accepted"
        assert one.device().admission is Admission.KNOWN
        assert await station.call("MeterValues", METER) == {}


async def test_a_newcomer_that_boots_is_not_asked_to(tmp_path: Path) -> None:
    for policy in ("any", "approve"):
        (folder := tmp_path / policy).mkdir()
        async with central(folder, section(accept=policy)) as one, one.station() as station:
            await station.boot()
            assert await station.quiet()
            assert [message[0] for message in station.messages] == [3]


async def test_accept_any_takes_those_who_waited_but_nobody_who_was_rejected(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="any")) as one:
        await one.add("A", Admission.PENDING)
        await one.add("B", Admission.REJECTED)
        async with one.station("A") as waited, one.station("B") as rejected:
            assert (await waited.boot())["status"] == "Accepted"
            assert (await rejected.boot())["status"] == "Rejected"


async def test_so_many_may_wait_and_no_more(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", max_pending=2)) as one:
        async with one.station("A") as first, one.station("B") as second, one.station("C") as third:
            for station in (first, second, third):
                assert (await station.boot())["status"] == "Pending"
            assert one.service._stations.admission("C") is None, "it may ask again, and nothing is kept of it"
            with pytest.raises(Refused, match="503"):
                await connected(one.where, "D")
            await one.decide(Admission.KNOWN, "A")
            assert (await third.boot())["status"] == "Pending"
            assert one.device("C").admission is Admission.PENDING
        await until(lambda: not one.online("C"))
        assert set(one.service._stations._stations) >= {"A", "B", "C"}


async def test_so_many_may_wait_however_many_come_at_once(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", max_pending=3)) as one:
        stations = [await connected(one.where, f"S{number}") for number in range(12)]
        assert {answer["status"] for answer in await asyncio.gather(*(station.boot() for station in stations))} == {"Pending"}
        assert len(await one.all()) == 3
        commit = one.world.store.commit

        async def full(writes: Any) -> Any:
            raise StorageFull("no space left")

        await one.decide(Admission.REJECTED, next(view.identity for view in await one.all()))
        unknown = next(station for number, station in enumerate(stations) if one.service._stations.admission(f"S{number}") is None)
        one.world.store.commit = full  # type: ignore[method-assign]
        with refused("InternalError"):
            await unknown.boot()
        one.world.store.commit = commit  # type: ignore[method-assign]
        assert (await unknown.boot())["status"] == "Pending"
        assert len(await one.all()) == 4, "what could not be stored did not take a place"
        for station in stations:
            station.cut()


async def test_strangers_that_are_gone_do_not_keep_others_out(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", max_pending=2)) as one:
        for identity in ("Z", "A"):
            async with one.station(identity) as station:
                assert (await station.boot())["status"] == "Pending"
        await until(lambda: not one.online("Z") and not one.online("A"))
        async with one.station("A"), one.station("NEW") as new:
            assert (await new.boot())["status"] == "Pending"
            assert {view.identity for view in await one.all()} == {"A", "NEW"}, "the oldest that is not connected made room"
            with pytest.raises(Refused, match="503"):
                await connected(one.where, "Z")


async def test_a_place_is_not_lost_when_it_cannot_be_taken(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", max_pending=1)) as one:
        async with one.station("A") as station:
            await station.boot()
        await until(lambda: not one.online("A"))
        commit = one.world.store.commit

        async def full(writes: Any) -> Any:
            raise StorageFull("no space left")

        async with one.station("B") as station:
            one.world.store.commit = full  # type: ignore[method-assign]
            with refused("InternalError"):
                await station.boot()
            one.world.store.commit = commit  # type: ignore[method-assign]
            assert one.service._stations._pending == {"A"}
            assert (await station.boot())["status"] == "Pending"
            assert [view.identity for view in await one.all()] == ["B"]


async def test_of_a_stranger_who_only_looks_in_nothing_is_kept(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve")) as one:
        async with one.station() as station:
            with refused("SecurityError"):
                await station.call("Heartbeat")
            assert one.service._stations.admission(FIRST) is None
        await until(lambda: not one.service._stations._stations)
        assert await one.all() == []
        assert await one.events("device.") == []


async def test_C16_who_is_closed_is_told_that_a_newer_one_came(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as old, one.station():
        closed = await old.closed()
        assert (closed.code, closed.reason) == (1008, "a newer connection of this identity is here")


async def test_C16_two_stations_of_one_identity_are_damped_and_an_alarm_says_so(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_configuration=False)) as one:
        async with one.accepted():
            pass
        await until(lambda: not one.online())
        stations = [await connected(one.where) for _ in range(1 + MOST_REPLACED)]
        for _ in range(3):
            with pytest.raises(Refused, match="503") as refusal:
                await connected(one.where)
            assert 1 <= int(refusal.value.answer.headers["retry-after"]) <= 60
        assert await stations[-1].call("Heartbeat"), "the one that is there stays"
        assert await one.events("address.conflict") == ["address.conflict raised"]
        assert one.world.alarms.raised(f"os3p:{FIRST}", "address.conflict") is not None
        stations[-1].cut()
        await until(lambda: not one.online())
        async with one.station() as station:  # nobody is there: nothing to take
            assert await station.call("Heartbeat")
        for station in stations:
            station.cut()


async def test_C16_a_fight_is_over_when_a_connection_has_lasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.conversation.PEACE", 0.1)
    async with central(tmp_path, section(learn_configuration=False)) as one, one.accepted():
        raised = new_event("address.conflict", f"os3p:{FIRST}", one.world.clock)
        await one.world.intake.event(raised)
        async with one.station():
            await until(lambda: one.world.alarms.raised(f"os3p:{FIRST}", "address.conflict") is None)


def test_C16_the_damping_of_one_identity_ends_with_its_minute() -> None:
    station = Station(FIRST, Record())
    station.connection = object()  # type: ignore[assignment]
    for times in range(1, MOST_REPLACED):
        assert station.replaced(100.0 + times) == times
    assert station.contested(110.0) == 0
    station.replaced(110.0)
    assert station.contested(111.0) == 50.0
    assert station.contested(162.0) == 0
    assert station.replaced(162.0) == 1
    assert station.contested(163.0) == 0


async def test_C16_the_newest_wins_also_of_strangers(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve")) as one, one.station() as old, one.station() as new:
        assert (await old.closed()).code == 1008
        assert (await new.boot())["status"] == "Pending"
        assert await one.events("device.connection") == []


async def test_B18_B19_a_station_that_was_accepted_needs_not_boot_again_also_after_a_restart(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted():
            pass
        async with one.station() as station:
            assert await station.call("MeterValues", METER) == {}
            assert await station.quiet()
        await until(lambda: not one.online())
        world = await one.world.again()
        world.abandoned.clear()
        again = await Central(world, one.settings, tmp_path / "again").start()
        try:
            async with again.station() as station:
                assert await station.call("MeterValues", METER) == {}
                assert (await again.show()).record.boots == 1
        finally:
            await again.service.stop()
            await world.close()


async def test_B19_a_station_that_never_booted_here_is_asked_to_when_it_says_nothing(tmp_path: Path) -> None:
    async with central(tmp_path, section(boot_grace=Duration(0.05))) as one:
        await one.add()
        async with one.station() as station:
            assert (await station.asked_for("TriggerMessage"))[1] == {"requestedMessage": "BootNotification"}
            station.error("1", "NotImplemented")
            assert await station.quiet()
            assert (await station.boot())["status"] == "Accepted"
        async with one.station() as station:
            assert await station.quiet(), "it is remembered"


async def test_B20_what_a_station_tells_before_it_is_accepted_is_not_kept(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            station.replies["TriggerMessage"] = ["NotImplemented", "", {}]
            for action, payload in (("MeterValues", METER), ("StreetlightStatusNotification", LIGHT), ("Heartbeat", {}), ("NoSuchThing", {})):
                with refused("SecurityError"):
                    await station.call(action, payload)
            assert len([message for message in station.messages if message[0] == 2]) == 1, "it is asked to boot, once"
            assert await one.events("device.data.refused") == ["device.data.refused raised"]
            assert await one.events("light.") == []
            assert await one.world.registry.latest_values(f"os3p:{FIRST}") == []
            assert (await station.boot())["status"] == "Accepted"
            assert await station.call("StreetlightStatusNotification", LIGHT) == {}
            assert await one.events("device.data.refused") == ["device.data.refused raised", "device.data.refused cleared"]


async def test_B15_a_boot_with_another_firmware_is_told(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        await station.boot()
        await station.boot(firmwareVersion="1.2.0", iccid="89")
        assert one.device().firmware == "1.2.0"
        assert one.device().attributes["iccid"] == "89"
        found = await one.world.query.events(one.world.admin, kinds=("device.firmware.changed",))
        assert [event.data for event in found.events] == [{"from": "1.1.0", "to": "1.2.0"}]


async def test_B23_I17_a_boot_without_what_a_station_does_not_know(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            assert (await station.call("BootNotification", {"vendor": "VendorX", "model": "MDL1"}))["status"] == "Accepted"
            view = await one.show()
            assert view.deviations.keys() == {"missing-member"}
            assert view.record.boot.vendor == "VendorX"
            with refused("OccurenceConstraintViolation"):
                await station.call("BootNotification", {"model": "MDL1"})


async def test_a_removed_station_is_closed_and_has_to_register_again(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted() as station:
            await station.call("StreetlightStatusNotification", LIGHT)
            await one.world.registry.remove(f"os3p:{FIRST}", one.world.admin)
            closed = await station.closed()
            assert (closed.code, closed.reason) == (1008, "this station was removed")
        with pytest.raises(Refused, match="404"):
            await connected(one.where)
        await until(lambda: not one.service._stations._forgetting)
        await one.add()
        assert (await one.show()).record.boots == 0
        assert (await one.show()).lights is None


async def test_what_a_removed_station_still_says_does_not_bring_it_back(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        append, gate = one.world.store.samples.append, asyncio.Event()

        async def slow(batch: Any) -> Any:
            await gate.wait()
            return await append(batch)

        one.world.store.samples.append = slow  # type: ignore[method-assign]
        for number in range(3):
            station.begin("MeterValues", METER, id=f"m{number}")
        assert await station.quiet()
        await one.world.registry.remove(f"os3p:{FIRST}", one.world.admin)
        one.world.store.samples.append = append  # type: ignore[method-assign]
        gate.set()
        assert (await station.closed()).code == 1008
        await asyncio.sleep(0.1)
        assert one.service._stations.admission(FIRST) is None


async def test_an_operator_who_puts_a_station_back_stops_its_data(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        await one.decide(Admission.PENDING)
        await station.asked_for("TriggerMessage")
        with refused("SecurityError"):
            await station.call("MeterValues", METER)
        assert (await station.boot())["status"] == "Pending"


# ----------------------------------------------------------------------------------------------------------- what it tells


async def test_B21_a_heartbeat_is_answered_with_the_time_and_costs_no_commit(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        commits = one.world.store.commit
        one.world.store.commit = None  # type: ignore[assignment,method-assign]
        try:
            before = one.world.registry.state(f"os3p:{FIRST}").last_seen
            answer = await station.call("Heartbeat")
        finally:
            one.world.store.commit = commits  # type: ignore[method-assign]
        assert answer.keys() == {"currentTime"}
        assert TIME.fullmatch(answer["currentTime"])
        seen = one.world.registry.state(f"os3p:{FIRST}").last_seen
        assert before is not None
        assert seen is not None
        assert seen > before


async def test_N4_N8_meter_values_are_stored_before_the_answer(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert await station.call("MeterValues", METER) == {}
        values = {value.type.measurand: value for value in await one.world.registry.latest_values(f"os3p:{FIRST}")}
        energy, power = values["Energy.Active.Import.Register"], values["Power.Active.Import"]
        assert (energy.type.unit, energy.value * 10**energy.exponent) == ("Wh", 300_000)
        assert (power.type.location, power.type.unit, power.value * 10**power.exponent) == ("P1Meter", "W", 40_000)
        assert values["Current.Import"].type.location is None
        assert "Energy.Active.Import.Register" in one.device().measurands


async def test_meter_values_on_a_full_disk_are_refused_so_that_they_are_told_again(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        await station.call("MeterValues", METER)
        append = one.world.store.samples.append

        async def full(batch: Any) -> Any:
            raise StorageFull("no space left")

        one.world.store.samples.append = full  # type: ignore[method-assign]
        with refused("InternalError") as found:
            await station.call("MeterValues", METER)
        assert found[0].description == "not kept: tell it again later"
        one.world.store.samples.append = append  # type: ignore[method-assign]
        assert await station.call("MeterValues", METER) == {}


async def test_N9_N12_a_status_raises_and_ends_alarms(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert await station.call("StatusNotification", status("OverCurrentFailure", "Faulted")) == {}
        raised = {alarm.kind for alarm in one.world.alarms.raised_of(f"os3p:{FIRST}")}
        assert raised == {"fault.overcurrent", "station.faulted"}
        again = await one.world.again()
        assert {alarm.kind for alarm in again.alarms.raised_of(f"os3p:{FIRST}")} == raised, "also after a restart"
        again.abandoned.clear()
        await again.close()
        resolved = status(info="Over current error (MV) resolved", timestamp="2026-11-20T16:01:00Z")
        assert await station.call("StatusNotification", resolved) == {}
        assert one.world.alarms.raised_of(f"os3p:{FIRST}") == []


async def test_N21_a_notification_that_comes_twice_is_stored_once(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted() as station:
            for _ in range(3):
                assert await station.call("StreetlightStatusNotification", LIGHT) == {}
        async with one.station() as station:
            assert await station.call("StreetlightStatusNotification", LIGHT) == {}
            assert await station.call("StreetlightModeStatusNotification", MODE) == {}
            assert await station.call("StreetlightModeStatusNotification", MODE) == {}
        assert await one.events("light.") == ["light.switched occurred", "light.mode.changed occurred"]


async def test_N21_a_late_event_is_kept_and_does_not_overwrite_a_newer_state(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:

        async def lights() -> dict[str, str]:
            view = (await one.show()).lights
            assert view is not None
            return {key: light.status.value for key, light in view.contactors.items() if light.status is not None}

        await station.call("StreetlightStatusNotification", {**LIGHT, "timestamp": "2026-11-20T17:00:00Z"})
        await station.call("StreetlightStatusNotification", {**LIGHT, "status": "Off", "timestamp": "2026-11-20T16:00:00Z"})
        assert await lights() == {"2": "On"}
        await station.call("StreetlightStatusNotification", {**LIGHT, "status": "Off", "timestamp": "2026-11-20T18:00:00Z"})
        await station.call("StreetlightStatusNotification", {**LIGHT, "contactorId": 1})
        assert await lights() == {"2": "Off", "1": "On"}
        # The same moment, then the first again as a retry: the first was already told, and changes nothing.
        await station.call("StreetlightStatusNotification", {**LIGHT, "status": "On", "timestamp": "2026-11-20T18:00:00Z"})
        await station.call("StreetlightStatusNotification", {**LIGHT, "status": "Off", "timestamp": "2026-11-20T18:00:00Z"})
        assert await lights() == {"2": "On", "1": "On"}
        assert len(await one.events("light.switched")) == 5


async def test_a_switch_is_also_a_value_for_charts_but_never_at_the_cost_of_the_answer(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert await station.call("StreetlightStatusNotification", LIGHT) == {}
        values = await one.world.registry.latest_values(f"os3p:{FIRST}")
        assert [(value.type.measurand, value.type.location, value.value) for value in values] == [("Contactor.State", "contactor:2", 1)]

        async def full(batch: Any) -> Any:
            raise StorageFull("no space left")

        one.world.store.samples.append = full  # type: ignore[method-assign]
        assert await station.call("StreetlightStatusNotification", {**LIGHT, "contactorId": 3}) == {}


async def test_L13_a_contactor_under_a_remote_override_is_not_suspended_for_a_schedule(tmp_path: Path) -> None:
    period = {"start": {"kind": "sunset", "offset_s": 0}, "end": {"kind": "sunrise", "offset_s": 0}}
    profiles = [
        {"profile_id": number, "stack_level": number, "recurrence": "daily", "day_schedule": [period], "valid_from": "2026-11-20"}
        for number in range(60)
    ]
    asked = {"contactor": 1, "profiles": profiles, "clear_all": True}
    async with central(tmp_path) as one, one.accepted() as station:
        station.replies |= {action: {"status": "Accepted"} for action in ("SetStreetlightProfile", "OverrideStreetlight", "ResumeStreetlight")}
        assert (await one.order("light.schedule.set", asked)).state is CommandState.DONE
        actions = [message[2] for message in station.messages if message[0] == 2]
        assert (actions[0], actions[-1]) == ("OverrideStreetlight", "ResumeStreetlight")
        await station.call("StreetlightModeStatusNotification", {**MODE, "mode": "RemoteOverride"})
        station.messages.clear()
        assert (await one.order("light.schedule.set", asked)).state is CommandState.DONE
        assert {message[2] for message in station.messages if message[0] == 2} == {"SetStreetlightProfile"}


async def test_N22_a_notification_is_not_answered_before_it_is_on_disk(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        commit, gate = one.world.store.commit, asyncio.Event()

        async def slow(writes: Any) -> Any:
            await gate.wait()
            return await commit(writes)

        one.world.store.commit = slow  # type: ignore[method-assign]
        waiting = station.begin("StreetlightStatusNotification", LIGHT, id="x")
        assert await station.quiet()
        gate.set()
        assert await station.answered(waiting) == {}
        one.world.store.commit = commit  # type: ignore[method-assign]


async def test_N22_a_notification_that_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        commit = one.world.store.commit

        async def full(writes: Any) -> Any:
            raise StorageFull("no space left")

        one.world.store.commit = full  # type: ignore[method-assign]
        with refused("InternalError"):
            await station.call("StreetlightModeStatusNotification", MODE)
        one.world.store.commit = commit  # type: ignore[method-assign]
        assert await station.call("StreetlightModeStatusNotification", MODE) == {}
        assert await one.events("light.") == ["light.mode.changed occurred"]


def test_N21_the_live_state_of_a_clock_that_runs_ahead_is_not_frozen() -> None:
    now = 1_000_000_000
    ahead = updated(Lights(), 1, "status", "On", now + 10**12, now)
    assert ahead is not None
    later = updated(ahead, 1, "status", "Off", now + 1_000_000, now + 1_000_000)
    assert later is not None
    status = later.of(1).status
    assert status is not None
    assert status.value == "Off"


def test_N15_what_is_told_of_all_contactors_holds_for_each_until_something_newer_is_told() -> None:
    lights = updated(Lights(), 2, "mode", "Schedule", 10, 10)
    assert lights is not None
    lights = updated(lights, None, "mode", "LocalOverride", 20, 20)
    assert lights is not None
    lights = updated(lights, 3, "mode", "RemoteOverride", 30, 30)
    assert lights is not None
    modes = [light.mode.value if (light := lights.of(contactor)).mode is not None else None for contactor in (1, 2, 3)]
    assert modes == ["LocalOverride", "LocalOverride", "RemoteOverride"]
    assert updated(lights, 3, "mode", "Schedule", 29, 31) is None


async def test_N1_the_progress_of_a_transfer_is_an_event(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for state in ("None", "Uploading", "Uploaded"):
            assert await station.call("GetFileStatusNotification", {"status": state, "requestId": "08fb86a4-3e9b-11e6-ac61-9e71128cae77"}) == {}
        assert await station.call("FirmwareStatusNotification", {"status": "Installed"}) == {}
        assert await one.events("device.file") == ["device.file.progress occurred", "device.file.uploaded occurred"]
        assert await one.events("device.firmware") == ["device.firmware.installed occurred"]


# -------------------------------------------------------------------------------------------------- what is wrong with it


async def test_the_alarms_of_a_station_are_bounded(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for number in range(MOST_SUBJECTS + 20):
            error = status("OtherError", "Faulted", vendorId="V", vendorErrorCode=f"E{number}", timestamp=None)
            assert await station.call("StatusNotification", {key: value for key, value in error.items() if value}) == {}
            if number % 50 == 49:
                assert await station.call("StatusNotification", {"status": "Ok", "errorCode": "NoError"}) == {}
        known = {alarm.subject for alarm in one.world.alarms._alarms.values() if alarm.kind == "fault.other"}
        assert len(known) == MOST_SUBJECTS + 1, "also of those that have ended"
        assert "other" in known


async def test_who_tells_more_than_he_may_waits_for_his_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.stations.EVENTS_AT_ONCE", 5)
    async with central(tmp_path) as one, one.accepted() as station:
        began = one.world.clock.monotonic()
        for _ in range(8):
            await station.call("FirmwareStatusNotification", {"status": "Downloading"})
        assert one.world.clock.monotonic() - began > 0.25
        assert 3 <= (await one.show()).deviations["too-many-events"] <= 5
        assert len(await one.events("device.firmware")) == 8, "nothing is lost"


async def test_the_series_of_a_station_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.stations.MOST_SERIES", 5)
    async with central(tmp_path) as one, one.accepted() as station:
        await station.call("MeterValues", METER)
        for number in range(4):
            sampled = [{"value": "1", "unit": "W", "measurand": "Mine", "location": f"place {number}"}]
            await station.call("MeterValues", {"meterValue": [{"timestamp": "2026-11-20T16:53:16Z", "sampledValue": sampled}]})
        await station.call("MeterValues", METER)
        values = await one.world.registry.latest_values(f"os3p:{FIRST}")
        assert {value.type.location for value in values if value.type.measurand == "Mine"} == {"place 0", "place 1"}
        assert len(values) == 5
        assert (await one.show()).deviations["too-many-series"] == 2


async def test_the_measurands_of_a_station_are_bounded_also_in_one_message(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        sampled = [{"value": "1", "unit": "W", "measurand": f"Mine {number}"} for number in range(MOST_KINDS + 50)]
        await station.call("MeterValues", {"meterValue": [{"timestamp": "2026-11-20T16:53:16Z", "sampledValue": sampled}]})
        assert len(one.device().measurands) == MOST_KINDS


async def test_strangers_do_not_silence_what_stations_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.reports.MOST", 3)
    async with central(tmp_path) as one:
        await one.add()
        await one.world.accounts.set_credential(None, f"os3p:{FIRST}", "right")
        for number in range(6):
            assert (await knock(one.where, f"STRANGER{number}")).status == 404
        for _ in range(2):
            assert (await knock(one.where, headers=[basic(FIRST, "wrong")])).status == 401
        assert await one.events("device.unknown") == ["device.unknown occurred"] * 3
        assert await one.events("device.credential.refused") == ["device.credential.refused occurred"]


async def test_S27_credentials_in_what_a_station_says_are_masked(tmp_path: Path) -> None:
    secret = "ftp://joe:SEKRET7@10.0.0.1/fw"
    async with central(tmp_path) as one, one.accepted() as station:
        station.replies["GetConfiguration"] = {
            "configurationKey": [{"key": "Url", "readonly": False, "value": secret}, {"key": "ApnPassword", "readonly": False, "value": "SEKRET7"}]
        }
        station.replies["GetFile"] = {"status": "Accepted", "fileName": secret}
        station.replies["ChangeConfiguration"] = {"status": "Accepted"}
        station.replies["Reset"] = ["NotSupported", f"not from {secret}", {}]
        error = status("OtherError", "Faulted", vendorId=secret, vendorErrorCode=secret[:50], info=secret)
        assert await station.call("StatusNotification", error) == {}
        ended = [
            await one.order("device.configuration.get"),
            await one.order("device.files.get", {"what": "syslog", "location": secret}),
            await one.order("device.configuration.set", {"key": "Url", "value": secret}),
            await one.order("device.configuration.set", {"key": "ApnPassword", "value": "SEKRET7"}),
            await one.order("device.reset"),
        ]
        assert [order.state for order in ended] == [CommandState.DONE] * 4 + [CommandState.FAILED]
        sent = [message[3].get("value") for message in station.messages if message[0] == 2 and message[2] == "ChangeConfiguration"]
        assert sent == [secret, "SEKRET7"], "the station gets it"
        assert ended[1].result["fileName"] == "ftp://***@10.0.0.1/fw"
        events = await one.world.query.events(one.world.admin)
        trail = await one.world.store.journal.entries(JournalFilter(), limit=1_000)
        told = json.dumps([str(ended), str(events), str([entry.entry.body for entry in trail]), str(one.world.alarms.raised_of(f"os3p:{FIRST}"))])
        assert "SEKRET7" not in told


async def test_a_station_that_is_gone_before_it_could_be_asked_to_boot_is_nothing_of_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "gridloom.integrations.os3p")
    async with central(tmp_path, section(boot_grace=Duration(0.01))) as one:
        await one.add()
        async with one.station() as station:
            await station.asked_for("TriggerMessage")
        words = "a station was asked to boot and did not say that it will"
        await until(lambda: any(record.message == words for record in caplog.records))
        assert {record.levelname for record in caplog.records if record.message == words} == {"DEBUG"}


async def test_R18_an_unknown_action_is_not_implemented_and_one_of_ours_not_supported(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        with refused("NotImplemented"):
            await station.call("heartbeat")
        with refused("NotImplemented"):
            await station.call("x" * 10_000)
        with refused("NotSupported"):
            await station.call("Reset")
        assert await station.call("Heartbeat")
        assert one.count("gridloom_os3p_calls_total")["unknown NotImplemented"] == 2
        assert (await one.show()).refused == 3
        assert await one.events("device.message.refused") == ["device.message.refused occurred"]


async def test_R20_a_payload_that_does_not_fit_is_refused_with_code_and_path(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        with refused("OccurenceConstraintViolation") as found:
            await station.call("StreetlightStatusNotification", {"contactorId": 1, "status": "On"})
        assert found[0].details["path"] == "$.timestamp"
        with refused("TypeConstraintViolation") as found:
            await station.call("StreetlightStatusNotification", {**LIGHT, "contactorId": "two"})
        assert found[0].details["path"] == "$.contactorId"


async def test_deviations_are_counted_by_station_and_kind_and_refused_in_strict_mode(tmp_path: Path) -> None:
    deviating = {"status": "Ok", "errorCode": "NoError", "colour": "blue"}
    async with central(tmp_path) as one, one.accepted("A") as station, one.accepted("B"):
        for _ in range(2):
            assert await station.call("StatusNotification", deviating) == {}
        assert (await one.show("A")).deviations == {"extra-member": 2}
        assert (await one.show("B")).deviations == {}
        assert one.count("gridloom_os3p_deviations_total")["extra-member"] == 2
        assert (await one.change("A", strict=True)).strict
        with refused("FormationViolation"):
            await station.call("StatusNotification", deviating)
        assert not (await one.show("B")).strict
        assert not (await one.change("A", strict=None)).strict
        assert await station.call("StatusNotification", deviating) == {}
        assert {view.identity: view.refused for view in await one.all()} == {"A": 1, "B": 0}


async def test_strict_for_all_but_one(tmp_path: Path) -> None:
    async with central(tmp_path, section(strict=True)) as one, one.accepted() as station:
        with refused("FormationViolation"):
            await station.call("Heartbeat", {"a": 1})
        await one.change(strict=False)
        assert await station.call("Heartbeat", {"a": 1})


async def test_R14_R15_R24_the_grammar_is_spoken_and_its_faults_are_counted(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for text in ("", "nonsense", "{}", "[]", "[2]", '[9,"1",{}]', '[2,1,"Heartbeat",{}]', '[3,"77",{}]'):
            station.say(text)
        assert await station.quiet()
        assert await station.call("Heartbeat", id="same")
        with refused("GenericError"):
            await station.call("Heartbeat", id="same")
        view = await one.show()
        assert {"not-json", "unknown-type", "no-id", "unknown-answer", "id-used-before"} <= view.deviations.keys()
        station.frame(BINARY, b"x")
        assert (await station.closed()).code == 1003


async def test_R21_calls_in_both_directions_at_once(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        order = await one.submit("device.configuration.get")
        id, _ = await station.asked_for("GetConfiguration")
        waiting = [station.begin("Heartbeat", id=f"p{number}") for number in range(10)]
        for future in waiting:
            assert await station.answered(future)
        ids = [message[1] for message in station.messages if message[0] == 3 and message[1].startswith("p")]
        assert ids == [f"p{number}" for number in range(10)]
        station.result(id, {"configurationKey": [{"key": "Sunrise", "readonly": True, "value": "x"}]})
        assert (await one.world.commands.wait(order.id, 5)).state is CommandState.DONE


async def test_R23_a_message_above_the_limit_closes_with_1009(tmp_path: Path) -> None:
    async with central(tmp_path, section(max_message=4_096)) as one, one.accepted() as station:
        station.say(b"[" + b" " * 5_000)
        assert (await station.closed()).code == 1009


# ------------------------------------------------------------------------------------------------------ what is ordered


async def test_R22_an_order_that_is_not_answered_fails_and_the_next_goes_out(tmp_path: Path) -> None:
    async with central(tmp_path, section(call_timeout=Duration(0.2))) as one, one.accepted() as station:
        ended = await one.order("device.configuration.get")
        assert ended.state is CommandState.FAILED
        assert "GetConfiguration" in ended.error
        station.replies["GetConfiguration"] = {}
        assert (await one.order("device.configuration.get")).state is CommandState.DONE


async def test_an_order_waits_for_a_station_that_is_offline_if_it_shall(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted():
            pass
        await until(lambda: not one.online())
        waiting = await one.submit("device.configuration.get", wait_online=True)
        async with one.station() as station:
            id, payload = await station.asked_for("GetConfiguration")
            assert payload == {}
            station.result(id, {"configurationKey": []})
            assert (await one.world.commands.wait(waiting.id, 5)).state is CommandState.DONE


@pytest.mark.parametrize("policy", ["known", "approve"])
async def test_an_order_waits_until_the_answer_to_the_boot_is_sent(tmp_path: Path, policy: str) -> None:
    """Of a station that was never accepted; the commit of its boot takes its time."""
    async with central(tmp_path, section(accept=policy)) as one:
        await one.world.registry.register(Device(f"os3p:{FIRST}", "os3p", FIRST, verbs=orders.VERBS), one.world.admin)  # as the API adds it
        waiting = await one.submit("device.configuration.get", wait_online=True)
        async with one.station() as station:
            assert await station.quiet(), "nothing is sent to who has not booted"
            assert not one.online()
            assert one.world.registry.state(f"os3p:{FIRST}").reason == "it is connected, but has not been accepted yet"
            commit = one.world.store.commit

            async def slow(writes: Any) -> Any:
                done = await commit(writes)
                await asyncio.sleep(0.05)
                return done

            one.world.store.commit = slow  # type: ignore[method-assign]
            await station.boot()
            one.world.store.commit = commit  # type: ignore[method-assign]
            id, _ = await station.asked_for("GetConfiguration")
            assert [message[0] for message in station.messages[:2]] == [3, 2], "the answer, then the order"
            station.result(id, {"configurationKey": []})
            assert (await one.world.commands.wait(waiting.id, 5)).state is CommandState.DONE


async def test_a_station_that_was_put_back_and_accepted_again_can_be_reached(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_configuration=False)) as one:
        async with one.accepted():
            await one.decide(Admission.PENDING)
        await until(lambda: not one.online())
        async with one.station() as station:
            assert await station.quiet(0.05)
            assert not one.online()
            await one.decide(Admission.KNOWN)
            await until(one.online)


async def test_an_order_for_a_station_that_waits_is_refused(tmp_path: Path) -> None:
    from gridloom.core.errors import Refused as OrderRefused

    async with central(tmp_path, section(accept="approve")) as one, one.station() as station:
        await station.boot()
        with pytest.raises(OrderRefused):
            await one.submit("device.configuration.get")


# ------------------------------------------------------------------------------------------------------------ life and death


async def test_C18_a_silent_station_is_pinged_and_one_that_does_not_answer_is_closed(tmp_path: Path) -> None:
    async with central(tmp_path, section(ping_interval=Duration(0.2))) as one, one.accepted() as station:
        await until(lambda: station.pings >= 2)
        station._listening.cancel()  # from now on it neither reads nor answers
        await until(lambda: not one.online())
        assert await one.events("device.o") == ["device.online occurred", "device.offline raised"]


async def test_the_hub_stops_in_order(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted() as station:
            await one.world.registry.close()
            await one.service.stop()
            assert (await station.closed()).code == 1001
        assert await one.events("device.offline") == []
        with pytest.raises(ConnectionError):
            await connected(one.where)


async def test_the_clock_of_a_demo_may_run_faster(tmp_path: Path) -> None:
    async with central(tmp_path, section(boot_grace=Duration(50)), Clock(speed=1_000.0)) as one:
        await one.add()
        async with one.station() as station:
            await station.asked_for("TriggerMessage")


async def test_many_stations_at_once(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="any")) as one:
        stations = await asyncio.gather(*(connected(one.where, f"S{number}") for number in range(100)))
        assert {answer["status"] for answer in await asyncio.gather(*(station.boot() for station in stations))} == {"Accepted"}
        await asyncio.gather(*(station.call("MeterValues", METER) for station in stations))
        views = await one.all()
        assert len(views) == 100
        assert all(view.connection is not None for view in views)
        for station in stations:
            station.cut()
        await until(lambda: len(one.service._server or ()) == 0)


def test_what_other_rooms_are_told_can_be_written_as_json() -> None:
    import msgspec

    from gridloom.integrations.os3p.stations import StationView

    view = StationView("a", "os3p:a", Admission.KNOWN, False, Record(), {"alias": 1})
    assert json.loads(msgspec.json.encode(view))["identity"] == "a"
