"""What a station accepts is kept, verified and asked for again (issue 5, point 3; CONFORMANCE L12, L13). Raw sockets on the station's side."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.core.world import until
from tests.integrations.os3p.central import FIRST, Central, central, section
from tests.integrations.os3p.station import Closed, Station

from gridloom.core.alarms import Alarm
from gridloom.core.clock import Clock, from_datetime
from gridloom.core.errors import StorageFull
from gridloom.core.model import CommandState
from gridloom.core.settings import Duration
from gridloom.integrations.os3p.accepted import Contactor
from gridloom.integrations.os3p.config import Geolocation, Section
from gridloom.integrations.os3p.orders import LARGEST

ACCEPTED = {"status": "Accepted"}
DRIFT = "light.schedule.drift"
EFFECTIVE, SET, CLEAR = "GetEffectiveStreetlightDaySchedule", "SetStreetlightProfile", "ClearSingleStreetlightProfile"
UTRECHT = Geolocation("[52.09, 5.12]")
EVENING = from_datetime(datetime(2026, 11, 20, 21, 0, tzinfo=UTC))
"""22:00 in Amsterdam."""
SUNSET, SUNRISE = "16:40:00", "08:11:00"
"""Of Utrecht in that night, by astral and somewhat less than two minutes off."""


def absolute(start: str = "20:00:00", end: str = "06:00:00") -> dict[str, Any]:
    return {"start": {"kind": "absolute", "time": start}, "end": {"kind": "absolute", "time": end}}


def sunny() -> dict[str, Any]:
    return {"start": {"kind": "sunset", "offset_s": 0}, "end": {"kind": "sunrise", "offset_s": 0}}


def profile(id: int = 1, period: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"profile_id": id, "stack_level": id, "recurrence": "daily", "day_schedule": [period or absolute()], **more}


def schedule(*profiles: dict[str, Any], clear_all: bool = True, contactor: int = 1) -> dict[str, Any]:
    return {"contactor": contactor, "profiles": list(profiles) or [profile()], "clear_all": clear_all}


def says(*periods: tuple[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What a station answers for whatever contactor and day."""
    return lambda asked: {"contactorId": asked["contactorId"], "daySchedule": [{"start": start, "end": end} for start, end in periods]}


RIGHT = says(("20:00:00", "06:00:00"))
WRONG = says(("20:07:00", "06:00:00"))


def ready(station: Station, effective: Any = RIGHT) -> None:
    """It takes everything, and answers so."""
    station.replies |= dict.fromkeys((SET, CLEAR, "OverrideStreetlight", "ResumeStreetlight", "ChangeConfiguration"), ACCEPTED)
    station.replies[EFFECTIVE] = effective


def asked(station: Station) -> list[str]:
    """The CALLs that came."""
    return [message[2] for message in station.messages if message[0] == 2]


def days(station: Station) -> list[str]:
    """The days for which it was asked."""
    return [message[3]["at"] for message in station.messages if message[0] == 2 and message[2] == EFFECTIVE]


async def contactor(one: Central, number: int = 1) -> Contactor:
    found = (await one.show()).schedules
    return Contactor() if found is None else found.of(number)


def alarm(one: Central, number: int = 1) -> Alarm | None:
    return one.world.alarms.raised(f"os3p:{FIRST}", DRIFT, f"contactor:{number}")


def quick(**more: Any) -> Section:
    return section(call_timeout=Duration(0.2), **more)


def at(moment: int = EVENING) -> Clock:
    return Clock(start=moment)


# ------------------------------------------------------------------------------------------------- kept and verified


async def test_what_a_station_accepts_is_kept_and_verified(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        winter = profile(2, valid_from="2026-12-01", recurrence="weekly")
        order = await one.order("light.schedule.set", schedule(profile(), winter))
        assert order.state is CommandState.DONE
        assert order.result == {
            "status": "Accepted", "messages": 1, "profiles": 2,
            "verification": {"verdict": "same", "dates": ["2026-11-20", "2026-12-01"], "differences": [], "reason": ""},
        }  # fmt: skip
        assert days(station) == ["2026-11-20T00:00:00", "2026-12-01T00:00:00"]
        kept = await contactor(one)
        assert ([each.profileId for each in kept.profiles], kept.known, kept.verdict, kept.differences) == ([1, 2], True, "same", ())
        assert abs(kept.changed - one.world.clock.now()) < 10_000_000
        assert await one.events("light.") == ["light.schedule.changed occurred"]
        assert alarm(one) is None
        assert (await one.order("light.schedule.clear", {"contactor": 1, "profile_id": 2})).state is CommandState.DONE
        assert [each.profileId for each in (await contactor(one)).profiles] == [1]
        assert not (await contactor(one, 2)).known


async def test_a_station_that_is_wrong_by_minutes_drifts_until_it_is_right(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station, WRONG)
        order = await one.order("light.schedule.set", schedule())
        assert order.state is CommandState.DONE
        difference = {"date": "2026-11-20", "start": "2026-11-20T19:00:00Z", "end": "2026-11-20T19:07:00Z", "expected": "on"}
        assert order.result["verification"] == {"verdict": "differs", "dates": ["2026-11-20"], "differences": [difference], "reason": ""}
        raised = alarm(one)
        assert raised is not None
        assert raised.message == "contactor 1: from 20:00:00 to 20:07:00 of the night of 2026-11-20 it should be on, the station says off"
        assert raised.data == {"contactor": 1, "differences": [difference]}
        assert (await one.order("light.schedule.set", schedule())).state is CommandState.DONE
        assert await one.events(DRIFT) == [f"{DRIFT} raised"], "it is raised already"
        ready(station)
        assert (await one.order("light.schedule.set", schedule())).result["verification"]["verdict"] == "same"
        assert await one.events(DRIFT) == [f"{DRIFT} raised", f"{DRIFT} cleared"]
        assert alarm(one) is None


async def test_the_sun_of_a_station_may_be_two_minutes_off(tmp_path: Path) -> None:
    for periods, verdict in (((SUNSET, SUNRISE), "same"), (("16:48:00", SUNRISE), "differs")):
        (folder := tmp_path / verdict).mkdir()
        async with central(folder, section(geolocation=UTRECHT), at()) as one, one.accepted() as station:
            ready(station, says(periods))
            order = await one.order("light.schedule.set", schedule(profile(1, sunny())))
            assert order.result["verification"]["verdict"] == verdict, order.result


@pytest.mark.parametrize(
    ("effective", "reason"),
    [
        (["NotImplemented", "", {}], f"the station does not have {EFFECTIVE} (NotImplemented)"),
        (lambda _: None, f"os3p:{FIRST}: no answer to {EFFECTIVE} within 0.2 s"),
        ({"contactorId": 2, "daySchedule": []}, "the station answers of contactor 2"),
        (says(("8 o'clock", "06:00:00")), '$.daySchedule[0].start: expected HH:mm:ss or HH:mm:ss.mmm, got "8 o\'clock"'),
    ],
)
async def test_no_answer_that_can_be_compared_is_no_drift(tmp_path: Path, effective: Any, reason: str) -> None:
    async with central(tmp_path, quick(), at()) as one, one.accepted() as station:
        ready(station, effective)
        order = await one.order("light.schedule.set", schedule(profile(), profile(2, valid_from="2026-12-01")))
        assert order.state is CommandState.DONE
        assert order.result["verification"] == {"verdict": "not known", "dates": [], "differences": [], "reason": reason}
        assert len(days(station)) == 1, "it is not asked again and again"
        kept = await contactor(one)
        assert (kept.known, kept.verdict, kept.reason) == (True, "not known", reason)
        assert alarm(one) is None


async def test_profiles_from_before_us_are_not_known_until_all_are_cleared(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station, WRONG)
        order = await one.order("light.schedule.set", schedule(clear_all=False))
        assert (order.state, order.result["verification"]["verdict"]) == (CommandState.DONE, "not known")
        assert "clear_all" in order.result["verification"]["reason"]
        assert asked(station) == [SET], "there is nothing to compare with"
        got = await one.order("light.schedule.get", {"contactor": 1, "date": "2026-11-20"})
        assert (got.result["own"], got.result["verdict"], got.result["differences"]) == (None, "not known", [])
        assert alarm(one) is None
        assert (await one.order("light.schedule.clear", {"everything": True})).state is CommandState.DONE
        assert all([(await contactor(one, number)).known for number in (1, 2, 3, 4)])
        ready(station)
        assert (await one.order("light.schedule.set", schedule(clear_all=False))).result["verification"]["verdict"] == "same"


async def test_the_stations_answer_and_ours_stand_beside_each_other(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule(profile(7)))
        ready(station, says(("20:00:00", "05:00:00")))
        got = await one.order("light.schedule.get", {"contactor": 1, "date": "2026-11-20"})
        assert got.result == {
            "contactor": 1, "periods": [{"start": "20:00:00", "end": "05:00:00"}],
            "own": {"profile_id": 7, "periods": [{"start": "20:00:00", "end": "06:00:00"}]},
            "verdict": "differs", "reason": "",
            "differences": [{"date": "2026-11-20", "start": "2026-11-21T04:00:00Z", "end": "2026-11-21T05:00:00Z", "expected": "on"}],
        }  # fmt: skip
        assert alarm(one) is not None


# --------------------------------------------------------------------------------------------------------- half-way


def many(count: int = 120) -> dict[str, Any]:
    """More than fits into one message, highest level first."""
    return schedule(*(profile(number) for number in reversed(range(count))))


async def test_L13_a_large_set_is_split_by_bytes_between_suspend_and_resume_and_then_verified(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        order = await one.order("light.schedule.set", many())
        assert order.state is CommandState.DONE
        parts = [message for message in station.messages if message[0] == 2 and message[2] == SET]
        assert order.result["messages"] == len(parts) > 1
        assert asked(station) == ["OverrideStreetlight", *[SET] * len(parts), "ResumeStreetlight", EFFECTIVE]
        assert all(len(json.dumps(part, separators=(",", ":"))) <= LARGEST for part in parts)
        assert [each["stackLevel"] for part in parts for each in part[3]["streetlightProfiles"]] == list(range(120))
        assert [part[3].get("clearAllSchedules", False) for part in parts] == [True, *[False] * (len(parts) - 1)]
        assert len((await contactor(one)).profiles) == 120


def until_part(number: int, then: Any) -> Callable[[dict[str, Any]], Any]:
    """Accepts parts, and does something else at this one."""
    came = []

    def reply(payload: dict[str, Any]) -> Any:
        came.append(payload)
        return ACCEPTED if len(came) < number else then()

    return reply


async def test_a_part_that_is_rejected_leaves_what_came_before_it(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        station.replies[SET] = until_part(2, lambda: {"status": "Rejected"})
        order = await one.order("light.schedule.set", many())
        assert order.state is CommandState.FAILED
        assert "the station has 1 of" in order.error
        assert asked(station) == ["OverrideStreetlight", SET, SET, "ResumeStreetlight"]
        sent = next(message[3]["streetlightProfiles"] for message in station.messages if message[0] == 2 and message[2] == SET)
        kept = await contactor(one)
        assert ([each.profileId for each in kept.profiles], kept.known) == ([each["profileId"] for each in sent], True)


async def test_a_part_that_is_not_answered_makes_it_unknown_and_the_lights_are_resumed(tmp_path: Path) -> None:
    async with central(tmp_path, quick(), at()) as one, one.accepted() as station:
        ready(station)
        assert (await one.order("light.schedule.set", schedule())).state is CommandState.DONE
        station.replies[SET] = until_part(2, lambda: None)
        order = await one.order("light.schedule.set", many())
        assert order.state is CommandState.FAILED
        assert asked(station)[-1] == "ResumeStreetlight"
        assert not (await contactor(one)).known
        assert alarm(one) is None


async def test_a_station_that_goes_offline_in_the_middle(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one:
        async with one.accepted() as station:
            ready(station)
            assert (await one.order("light.schedule.set", schedule())).state is CommandState.DONE
            station.replies[SET] = until_part(2, station.cut)
            order = await one.order("light.schedule.set", many())
            assert order.state is CommandState.FAILED
            assert "the lights of contactor 1 stay suspended" in order.error
        await until(lambda: not one.online())
        assert not (await contactor(one)).known
        async with one.station() as station:
            ready(station)
            await until(one.online)
            assert (await one.order("light.resume", {"contactor": 1})).state is CommandState.DONE
            assert (await one.order("light.schedule.set", schedule())).result["verification"]["verdict"] == "same"


async def test_a_hub_that_dies_while_a_profile_is_written_knows_that_it_does_not_know(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        assert (await one.order("light.schedule.set", schedule())).state is CommandState.DONE
        del station.replies[SET]
        order = await one.submit("light.schedule.set", schedule(profile(2)))
        while True:
            id, payload = await station.asked_for(SET)
            if payload["streetlightProfiles"][0]["profileId"] == 2:
                break
        after = await one.world.again()
        document = await after.store.documents.get("os3p", "schedules", FIRST)
        assert document is not None
        assert not json.loads(document.body)["contactors"]["1"].get("known", False)
        station.result(id, ACCEPTED)
        assert (await one.world.commands.wait(order.id, 5)).state is CommandState.DONE
        assert (await contactor(one)).known
        one.world.abandoned.append(after)


async def test_what_cannot_be_kept_is_not_written(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        assert (await one.order("light.schedule.set", schedule())).state is CommandState.DONE
        station.messages.clear()
        commit = one.world.store.commit

        async def full(writes: Any) -> Any:
            if any(getattr(write, "kind", "") == "schedules" for write in writes):
                raise StorageFull("no space left")
            return await commit(writes)

        one.world.store.commit = full  # type: ignore[method-assign]
        assert (await one.order("light.schedule.set", schedule(profile(2)))).state is CommandState.FAILED
        assert asked(station) == []


async def test_a_restart_of_the_hub_keeps_what_is_known(tmp_path: Path) -> None:
    clock = at()
    async with central(tmp_path, clock=clock) as one, one.accepted() as station:
        ready(station)
        station.replies["GetConfiguration"] = {"configurationKey": [{"key": "TimeZone", "readonly": False, "value": "Atlantic/Azores"}]}
        await one.order("device.configuration.get", {"keys": ["TimeZone"]})
        await one.order("light.schedule.set", schedule())
        before = await one.show()
    settings = section(schedule_check_interval=Duration(0.4))
    async with central(tmp_path, settings, clock) as one:
        after = await one.show()
        assert (after.schedules, after.timezone) == (before.schedules, "Atlantic/Azores")
        async with one.station() as station:
            ready(station, WRONG)
            await until(lambda: alarm(one) is not None)  # it is checked without an order
            assert asked(station)[0] == EFFECTIVE


# ---------------------------------------------------------------------------------------------------------- every day


async def test_every_known_station_is_asked_again_and_drift_is_raised_and_cleared(tmp_path: Path) -> None:
    settings = section(schedule_check_interval=Duration(0.3))
    async with central(tmp_path, settings, at()) as one:
        async with one.accepted() as station:
            ready(station)
            await one.order("light.schedule.set", schedule())
            await one.order("light.schedule.set", schedule(contactor=2, clear_all=False))
            station.messages.clear()
            station.replies[EFFECTIVE] = WRONG
            await until(lambda: alarm(one) is not None)
            station.replies[EFFECTIVE] = RIGHT
            await until(lambda: alarm(one) is None)
            calls = [message for message in station.messages if message[0] == 2]
            assert {(call[2], call[3]["contactorId"], call[3]["at"]) for call in calls} == {(EFFECTIVE, 1, "2026-11-20T00:00:00")}
        await until(lambda: not one.online())
        await asyncio.sleep(0.5)  # longer than the interval: it is looked for again
        async with one.station() as station:
            ready(station, WRONG)
            await until(lambda: alarm(one) is not None)


async def test_a_station_that_refuses_is_asked_once_a_day_whatever_it_has(tmp_path: Path) -> None:
    async with central(tmp_path, section(schedule_check_interval=Duration(0.5)), at()) as one, one.accepted() as station:
        ready(station, ["NotImplemented", "", {}])
        assert (await one.order("light.schedule.clear", {"everything": True})).state is CommandState.DONE
        await until(lambda: len(days(station)) == 2)
        contactors = [message[3]["contactorId"] for message in station.messages if message[0] == 2 and message[2] == EFFECTIVE]
        assert set(contactors) == {1}


async def test_before_noon_it_is_still_the_day_before(tmp_path: Path) -> None:
    morning = EVENING + 13 * 3600 * 1_000_000  # 11:00 in Amsterdam
    async with central(tmp_path, section(schedule_check_interval=Duration(0.3)), at(morning)) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule())
        await until(lambda: len(days(station)) > 1)
        assert set(days(station)) == {"2026-11-20T00:00:00"}


async def test_checks_can_be_switched_off(tmp_path: Path) -> None:
    settings = section(schedule_check_interval=Duration(0.05), schedule_checks=False)
    async with central(tmp_path, settings, at()) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule())
        station.messages.clear()
        assert await station.quiet(0.3)


async def test_a_removed_station_is_forgotten(tmp_path: Path) -> None:
    async with central(tmp_path, section(schedule_check_interval=Duration(0.05)), at()) as one:
        async with one.accepted() as station:
            ready(station)
            await one.order("light.schedule.set", schedule())
            await one.world.registry.remove(f"os3p:{FIRST}", one.world.admin)
            await station.closed()
        await until(lambda: all(job != "check" for _, _, job in one.service._nights._due))
        assert await one.world.store.documents.get("os3p", "schedules", FIRST) is None


async def test_an_order_waits_for_the_check_that_is_under_way(tmp_path: Path) -> None:
    async with central(tmp_path, section(schedule_check_interval=Duration(0.1)), at()) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule())
        del station.replies[EFFECTIVE], station.replies[SET]
        station.asked.clear()
        checking, _ = await station.asked_for(EFFECTIVE)
        order = await one.submit("light.schedule.set", schedule(profile(2)))
        await asyncio.sleep(0.1)
        station.replies[EFFECTIVE] = RIGHT
        station.result(checking, RIGHT({"contactorId": 1}))
        id, _ = await station.asked_for(SET)
        await asyncio.sleep(0.1)
        assert not (await contactor(one)).known, "what the check has kept is from before the order"
        station.result(id, ACCEPTED)
        assert (await one.world.commands.wait(order.id, 5)).state is CommandState.DONE
        assert [each.profileId for each in (await contactor(one)).profiles] == [2]


async def test_a_check_waits_for_the_order_that_is_under_way(tmp_path: Path) -> None:
    async with central(tmp_path, section(schedule_check_interval=Duration(0.1)), at()) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule())
        del station.replies[SET]
        station.asked.clear()
        order = await one.submit("light.schedule.set", schedule(profile(2, absolute("21:00:00"))))
        id, _ = await station.asked_for(SET)
        assert await station.quiet(0.3), "half-way it would be taken for a drift"
        station.replies[EFFECTIVE] = says(("21:00:00", "06:00:00"))
        station.result(id, ACCEPTED)
        assert (await one.world.commands.wait(order.id, 5)).state is CommandState.DONE
        assert await one.events(DRIFT) == []


# ------------------------------------------------------------------------------------------------------- where it stands

KEYS = {"configurationKey": [
    {"key": "Geolocation", "readonly": False, "value": "[52.09,5.12]"},
    {"key": "TimeZone", "readonly": False, "value": "Europe/Amsterdam"},
    {"key": "StreetlightProfileMaxStackLevel", "readonly": True, "value": "3"},
]}  # fmt: skip


async def test_a_station_is_asked_once_after_its_boot_where_it_stands(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_after=Duration(0.05), timezone="UTC"), at()) as one, one.accepted() as station:
        id, payload = await station.asked_for("GetConfiguration")
        assert payload == {"key": ["Geolocation", "TimeZone", "StreetlightProfileMaxStackLevel"]}
        station.result(id, KEYS)
        await until(lambda: one.service._stations.find(FIRST).record.learnt)  # type: ignore[union-attr]
        view = await one.show()
        assert (view.record.geolocation, view.record.timezone, view.record.max_stack_level) == ("[52.09,5.12]", "Europe/Amsterdam", 3)
        assert (view.geolocation, view.timezone) == ("[52.09,5.12]", "Europe/Amsterdam")
        ready(station, says((SUNSET, SUNRISE)))
        assert (await one.order("light.schedule.set", schedule(profile(1, sunny())))).result["verification"]["verdict"] == "same"
        refused = await one.order("light.schedule.set", schedule(profile(4)))
        assert "at most 3" in refused.error
        assert await station.quiet(0.3), "nothing more is asked"
        await station.boot()
        await station.asked_for("GetConfiguration")


async def test_a_schedule_is_checked_when_it_becomes_known_where_the_station_stands(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_after=Duration(0.3)), at()) as one, one.accepted() as station:
        ready(station, WRONG)
        order = await one.order("light.schedule.set", schedule(profile(1, sunny())))
        assert "Geolocation" in order.result["verification"]["reason"]
        station.replies["GetConfiguration"] = KEYS
        await until(lambda: alarm(one) is not None)
        assert asked(station) == [SET, "GetConfiguration", EFFECTIVE]


async def test_a_station_that_does_not_tell_is_left_alone(tmp_path: Path) -> None:
    for name, reply in {"refuses": ["NotImplemented", "", {}], "silent": lambda _: None, "odd": {"configurationKey": [{"key": 1}]}}.items():
        (folder := tmp_path / name).mkdir()
        async with central(folder, quick(learn_after=Duration(0.05)), at()) as one, one.accepted() as station:
            ready(station)
            station.replies["GetConfiguration"] = reply
            await until(lambda one=one: one.service._stations.find(FIRST).record.learnt)  # type: ignore[misc]
            assert (await one.order("light.schedule.set", schedule())).result["verification"]["verdict"] == "same"
            assert await station.quiet(0.2)
            assert asked(station).count("GetConfiguration") == 1


async def test_what_an_order_has_asked_is_not_asked_again(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_after=Duration(0.2)), at()) as one, one.accepted() as station:
        station.replies["GetConfiguration"] = KEYS
        await one.order("device.configuration.get")
        assert await station.quiet(0.5)
        assert (await one.show()).record.learnt


async def test_learning_can_be_switched_off(tmp_path: Path) -> None:
    async with central(tmp_path, section(learn_after=Duration(0.02), learn_configuration=False), at()) as one, one.accepted() as station:
        assert await station.quiet(0.2)


async def test_orders_about_the_configuration_teach_us_too(tmp_path: Path) -> None:
    async with central(tmp_path, clock=at()) as one, one.accepted() as station:
        ready(station)
        await one.order("device.configuration.set", {"key": "Geolocation", "value": "[52.09, 5.12]"})
        assert (await one.show()).record.geolocation == "[52.09, 5.12]"
        station.replies["ChangeConfiguration"] = {"status": "Rejected"}
        await one.order("device.configuration.set", {"key": "Geolocation", "value": "[1, 1]"})
        assert (await one.show()).record.geolocation == "[52.09, 5.12]"
        pairs = {"TimeZone": "Mars/Olympus", "StreetlightProfileMaxStackLevel": "many", "Geolocation": "home"}
        odd = {"configurationKey": [{"key": key, "readonly": False, "value": value} for key, value in pairs.items()]}
        station.replies["GetConfiguration"] = odd
        await one.order("device.configuration.get")
        record = (await one.show()).record
        assert (record.geolocation, record.timezone, record.max_stack_level) == ("", "", None)
        station.replies["GetConfiguration"] = KEYS
        await one.order("device.configuration.get")
        assert (await one.show()).record.max_stack_level == 3
        station.replies["GetConfiguration"] = {"unknownKey": ["StreetlightProfileMaxStackLevel"]}
        await one.order("device.configuration.get", {"keys": ["StreetlightProfileMaxStackLevel"]})
        assert (await one.show()).record.max_stack_level is None


async def test_where_it_stands_is_its_own_word_then_its_devices_then_the_sections(tmp_path: Path) -> None:
    async with central(tmp_path, section(geolocation=Geolocation("[1,1]"), timezone="Asia/Tokyo"), at()) as one, one.accepted() as station:
        ready(station)
        assert ((await one.show()).geolocation, (await one.show()).timezone) == ("[1,1]", "Asia/Tokyo")
        for said, expected in (("nowhere", "[1,1]"), ("[2, 2]", "[2, 2]")):
            await one.world.registry.update(f"os3p:{FIRST}", one.world.admin, attributes={"geolocation": said})
            assert (await one.show()).geolocation == expected
        await one.order("device.configuration.set", {"key": "Geolocation", "value": "[3,3]"})
        await one.order("device.configuration.set", {"key": "TimeZone", "value": "Europe/Paris"})
        assert ((await one.show()).geolocation, (await one.show()).timezone) == ("[3,3]", "Europe/Paris")
    async with central(tmp_path, clock=at()) as one:
        assert (await one.show()).timezone == "Europe/Paris"


async def test_a_moment_without_offset_is_of_the_stations_zone(tmp_path: Path) -> None:
    async with central(tmp_path, section(timezone="Europe/Paris")) as one, one.accepted() as station:
        local = (datetime.now(ZoneInfo("Asia/Tokyo")) - timedelta(hours=1)).replace(tzinfo=None, microsecond=0)
        ready(station)
        await one.order("device.configuration.set", {"key": "TimeZone", "value": "Asia/Tokyo"})
        await station.call("StreetlightStatusNotification", {"contactorId": 1, "status": "On", "timestamp": local.isoformat()})
        lights = (await one.show()).lights
        assert lights is not None
        told = lights.of(1).status
        assert told is not None
        assert told.time == from_datetime(local.replace(tzinfo=ZoneInfo("Asia/Tokyo")))


async def test_the_hub_stops_while_a_station_is_asked(tmp_path: Path) -> None:
    async with central(tmp_path, section(schedule_check_interval=Duration(0.1)), at()) as one, one.accepted() as station:
        ready(station)
        await one.order("light.schedule.set", schedule())
        station.replies[EFFECTIVE] = lambda _: None
        station.asked.clear()
        await station.asked_for(EFFECTIVE)
        await asyncio.wait_for(one.service.stop(), 5)
        with pytest.raises(Closed):
            await station.asked_for("Reset")
        assert (await one.world.store.documents.get("os3p", "schedules", FIRST)) is not None


# ---------------------------------------------------------------------------------------------- a light that stands still


async def suspended_and_cut(one: Central) -> None:
    """A set during which the line is cut: the station has heard Suspend, and never Resume."""
    async with one.accepted() as station:
        ready(station)
        station.replies[SET] = until_part(2, station.cut)
        order = await one.order("light.schedule.set", many())
        assert order.state is CommandState.FAILED
        assert "stay suspended" in order.error
    assert (await contactor(one)).suspended


async def test_a_light_that_we_suspended_is_resumed_when_the_station_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.nights.RESUME_EVERY", 0.2)
    async with central(tmp_path, clock=at()) as one:
        await suspended_and_cut(one)
        async with one.accepted() as station:
            ready(station)
            await until(lambda: "ResumeStreetlight" in asked(station))
            assert [message[3] for message in station.messages if message[2] == "ResumeStreetlight"] == [{"contactorId": 1}]
        await asyncio.sleep(0.3)
        assert not (await contactor(one)).suspended


async def test_a_set_after_a_light_was_left_suspended_resumes_it(tmp_path: Path) -> None:
    """The station tells RemoteOverride of it, but nobody has overridden it: only we have."""
    async with central(tmp_path, clock=at()) as one:
        await suspended_and_cut(one)
        async with one.accepted() as station:
            ready(station)
            await station.call("StreetlightModeStatusNotification", {"contactorId": 1, "mode": "RemoteOverride", "timestamp": "2026-11-20T19:00:00Z"})
            assert (await one.order("light.schedule.set", many())).state is CommandState.DONE
            assert (asked(station)[0], asked(station)[-2]) == ("OverrideStreetlight", "ResumeStreetlight")
        assert not (await contactor(one)).suspended


async def test_an_operator_who_overrides_the_light_meanwhile_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.nights.RESUME_EVERY", 1.0)
    async with central(tmp_path, clock=at()) as one:
        await suspended_and_cut(one)
        async with one.accepted() as station:
            ready(station)
            assert (await one.order("light.override", {"action": "on", "contactor": 1})).state is CommandState.DONE
            await asyncio.sleep(1.5)
            assert "ResumeStreetlight" not in asked(station)
