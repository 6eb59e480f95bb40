"""Orders become requests that the schema allows, and responses become results or refusals in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core import verbs
from gridloom.core.errors import DeviceError, DeviceTimeout, GridloomError, InvalidInput, Offline, Refused
from gridloom.core.model import Command
from gridloom.integrations.os3p.messages import ACTIONS, Message, SetStreetlightProfile
from gridloom.integrations.os3p.orders import VERBS, Known, Steps, conversation, execute, request_id
from gridloom.integrations.os3p.reading import read, write
from gridloom.links.calls import CallRefused

NOW = 1_795_222_683_000_000
URL = "https://hub.example/files/1"
ACCEPTED = {"status": "Accepted"}


def order(verb: str, **arguments: Any) -> Command:
    return Command(id="0199b0c5c1a87f3e8d2c4b5a69788796", device="os3p:S", verb=verb, arguments=arguments, account="a", created=NOW, expires=NOW + 1)


class Station:
    """The other end of ``execute``: what it was asked, and what it answers: JSON, or an error."""

    def __init__(self, *answers: dict[str, Any] | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Any]] = []

    async def call(self, action: str, payload: bytes) -> bytes:
        self.asked.append((action, json.loads(payload)))
        answer = self.answers.pop(0) if self.answers else ACCEPTED
        if isinstance(answer, BaseException):
            raise answer
        return json.dumps(answer).encode()

    @property
    def actions(self) -> list[str]:
        return [asked["action"] if action == "OverrideStreetlight" else action for action, asked in self.asked]


async def refused(station: Station, command: Command, error: type[GridloomError], known: Known = Known()) -> str:  # noqa: B008
    with pytest.raises(error) as caught:
        await execute(command, station.call, known)
    return caught.value.message


# --------------------------------------------------------------------------------------------------------------- one request each

MOMENT = "2026-11-21T00:58:03.5+01:00"
REQUESTS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("device.configuration.set", {"key": "KVCBX_LANG", "value": "FR"}, "ChangeConfiguration", {"key": "KVCBX_LANG", "value": "FR"}),
    ("device.configuration.get", {}, "GetConfiguration", {}),
    ("device.configuration.get", {"keys": ["KVCBX_PROFILE"]}, "GetConfiguration", {"key": ["KVCBX_PROFILE"]}),
    ("light.schedule.clear", {"contactor": 1, "profile_id": 2}, "ClearSingleStreetlightProfile", {"contactorId": 1, "profileId": 2}),
    ("light.schedule.clear", {"contactor": 1, "stack_level": 3}, "ClearSingleStreetlightProfile", {"contactorId": 1, "stackLevel": 3}),
    ("light.schedule.clear", {"contactor": 1, "everything": True}, "ClearSingleStreetlightProfile", {"contactorId": 1}),
    ("light.schedule.clear", {"everything": True}, "ClearSingleStreetlightProfile", {}),
    (
        "light.schedule.get",
        {"contactor": 1, "date": "2015-07-07"},
        "GetEffectiveStreetlightDaySchedule",
        {"contactorId": 1, "at": "2015-07-07T00:00:00"},
    ),
    (
        "device.files.get",
        {"what": "meter_value_history", "location": URL, "begin": MOMENT, "end": "2026-11-22T00:00:00Z", "request_id": "r1"},
        "GetFile",
        {
            "requestId": "r1",
            "fileType": "MeterValueHistory",
            "location": URL,
            "startTime": "2026-11-20T23:58:03Z",
            "stopTime": "2026-11-22T00:00:00Z",
        },
    ),
    ("light.override", {"action": "on", "contactor": 1}, "OverrideStreetlight", {"contactorId": 1, "action": "On"}),
    ("light.override", {"action": "off"}, "OverrideStreetlight", {"action": "Off"}),
    ("light.override", {"action": "suspend"}, "OverrideStreetlight", {"action": "Suspend"}),
    ("light.resume", {"contactor": 4}, "ResumeStreetlight", {"contactorId": 4}),
    ("light.resume", {}, "ResumeStreetlight", {}),
    ("device.reset", {}, "Reset", {}),
    ("device.reset", {"kind": "hard"}, "Reset", {}),
    ("os3p.fault_indicator.reset", {}, "ResetMVFaultIndicator", {}),
    ("os3p.fault_indicator.test", {}, "TestMVFaultIndicator", {}),
    ("device.trigger", {"message": "StatusNotification"}, "TriggerMessage", {"requestedMessage": "StatusNotification"}),
    (
        "device.trigger",
        {"message": "StreetlightStatusNotification", "contactor": 2},
        "TriggerMessage",
        {"requestedMessage": "StreetlightStatusNotification", "connectorId": 2},
    ),
    (
        "device.firmware.update",
        {"location": URL, "retrieve_time": MOMENT, "retries": 4, "retry_interval_s": 20, "request_id": "r2"},
        "UpdateFirmware",
        {"retrieveDate": "2026-11-20T23:58:03Z", "location": URL, "retries": 4, "retryInterval": 20, "requestId": "r2"},
    ),
]
RESPONSES: dict[str, dict[str, Any]] = {
    "GetConfiguration": {"configurationKey": [{"key": "KVCBX_PROFILE", "readonly": True, "value": "NQC-ACDC"}], "unknownKey": ["x"]},
    "GetEffectiveStreetlightDaySchedule": {"contactorId": 1, "daySchedule": [{"start": "20:11:00", "end": "23:00:00"}]},
    "GetFile": {"status": "Accepted", "fileName": "f.txt"},
    "UpdateFirmware": {},
}
RESULTS: dict[str, dict[str, Any]] = {
    "GetConfiguration": {"keys": [{"key": "KVCBX_PROFILE", "value": "NQC-ACDC", "readonly": True}], "unknown": ["x"]},
    "GetEffectiveStreetlightDaySchedule": {"contactor": 1, "periods": [{"start": "20:11:00", "end": "23:00:00"}]},
    "GetFile": {"status": "Accepted", "requestId": "r1", "fileName": "f.txt"},
    "UpdateFirmware": {"requestId": "r2"},
}


@pytest.mark.parametrize(("verb", "arguments", "action", "expected"), REQUESTS)
async def test_an_order_is_its_request_and_its_result(verb: str, arguments: dict[str, Any], action: str, expected: dict[str, Any]) -> None:
    station = Station(RESPONSES.get(action, ACCEPTED))
    result = await execute(order(verb, **arguments), station.call)
    assert station.asked == [(action, expected)]
    assert result == RESULTS.get(action, ACCEPTED)
    json.dumps(result)


def test_all_that_a_central_system_can_ask_can_be_ordered() -> None:
    asked = {action for *_, action, _ in REQUESTS} | {"SetStreetlightProfile"}
    assert asked == {name for name, action in ACTIONS.items() if action.initiator == "server"}
    assert len(asked) == 13
    assert {verb for verb, *_ in REQUESTS} | {"light.schedule.set"} == set(VERBS)
    assert all(verb in verbs.TABLE for verb in VERBS)


@pytest.mark.parametrize(
    ("verb", "arguments", "status", "words"),
    [
        ("light.override", {"action": "on"}, "RejectedLocalOverride", "a local override, by a switch in the station, is active"),
        ("light.resume", {}, "RejectedLocalOverride", "a local override, by a switch in the station, is active"),
        ("light.override", {"action": "on"}, "Rejected", "it gives no reason"),
        ("os3p.fault_indicator.test", {}, "RejectedAlreadyFaulted", "in alarm or under test already"),
        ("os3p.fault_indicator.test", {}, "Rejected", "no medium-voltage fault indicator"),
        ("os3p.fault_indicator.reset", {}, "Rejected", "no medium-voltage fault indicator"),
        ("light.schedule.clear", {"profile_id": 9}, "Unknown", "no such profile"),
        ("device.configuration.set", {"key": "Sunset", "value": "x"}, "Rejected", "may only be read"),
        ("device.reset", {}, "Rejected", "it gives no reason"),
        ("device.trigger", {"message": "Heartbeat"}, "NotImplemented", "NotImplemented"),
        ("light.schedule.get", {"contactor": 1, "date": "2026-01-01"}, "Rejected", "Rejected"),
    ],
)
async def test_no_is_told_in_words(verb: str, arguments: dict[str, Any], status: str, words: str) -> None:
    message = await refused(Station({"status": status}), order(verb, **arguments), DeviceError)
    assert words in message
    assert status in message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("NotImplemented", "the station does not have Reset (NotImplemented: sorry)"),
        ("NotSupported", "the station has Reset, but cannot do this (NotSupported: sorry)"),
        ("SecurityError", "the station does not allow Reset"),
        ("OccurenceConstraintViolation", "the station misses something in Reset"),
        ("GenericError", "the station could not carry out Reset"),
    ],
)
async def test_a_callerror_is_told_in_words(code: str, words: str) -> None:
    """A4.2, S1, S2."""
    message = await refused(Station(CallRefused(code, "sorry")), order("device.reset"), DeviceError)
    assert message.startswith(words)


@pytest.mark.parametrize("error", [DeviceTimeout("silence"), Offline("gone"), Refused("too many wait")])
async def test_what_happens_on_the_wire_is_told_as_it_is(error: GridloomError) -> None:
    assert await refused(Station(error), order("device.reset"), type(error)) == error.message


async def test_an_answer_that_makes_no_sense_is_an_error_of_the_station() -> None:
    message = await refused(Station({"status": "Perhaps"}), order("device.reset"), DeviceError)
    assert message.startswith("the station's answer to Reset cannot be understood")


# --------------------------------------------------------------------------------------------------------------- before it is sent


@pytest.mark.parametrize(
    ("verb", "arguments", "path"),
    [
        ("light.override", {"action": "blink"}, "$.action"),
        ("light.override", {"action": "on", "contactor": 5}, "$.contactor"),
        ("light.schedule.clear", {"contactor": 1}, "$"),  # I27: nothing chosen, and nothing confirmed
        ("light.schedule.clear", {"profile_id": 1, "stack_level": 1}, "$"),  # I26
        ("device.reset", {"kind": "soft"}, "$.kind"),
        ("device.trigger", {"message": "LogStatusNotification"}, "$.message"),
        ("device.trigger", {"message": "Heartbeat", "contactor": 1}, "$.contactor"),
        ("device.trigger", {"message": "StreetlightStatusNotification", "connector": 1}, "$.connector"),
        ("device.files.get", {"what": "diagnostics", "location": URL}, "$.what"),
        ("device.files.get", {"what": "syslog", "location": URL, "retries": 1}, "$.retries"),
        ("device.files.get", {"what": "syslog", "location": URL, "retry_interval_s": 1}, "$.retry_interval_s"),
        ("device.files.get", {"what": "syslog", "location": "https://user:se cret@host/"}, "$.location"),
        ("device.firmware.update", {"location": "ftps://user:secret@host/"}, "$.location"),
        ("device.firmware.update", {"location": URL, "install_time": MOMENT}, "$.install_time"),
        ("device.firmware.update", {"location": URL, "signing_certificate": "x", "signature": "y"}, "$.signing_certificate"),
    ],
)
async def test_an_invalid_order_is_refused_by_its_path_and_nothing_is_sent(verb: str, arguments: dict[str, Any], path: str) -> None:
    station = Station()
    with pytest.raises(InvalidInput) as caught:
        await execute(order(verb, **arguments), station.call)
    assert [fault.path for fault in caught.value.faults] == [path]
    assert "cret@" not in str(caught.value) + str(caught.value.faults)
    assert station.asked == []


async def test_files_come_to_the_hub_unless_the_order_says_where() -> None:
    get, update = order("device.files.get", what="syslog"), order("device.firmware.update", file="new.bin")
    for command in (get, update):
        assert "location" in await refused(Station(), command, Refused)
    station = Station({"status": "Accepted", "fileName": "f"}, {})
    for command in (get, update):
        await execute(command, station.call, Known(url=URL))
    assert [asked["location"] for _, asked in station.asked] == [URL, URL]
    assert station.asked[1][1]["retrieveDate"] == "2026-11-21T00:58:03Z"
    assert len({asked["requestId"] for _, asked in station.asked}) == 1  # made of the order's id


def test_i6_request_ids_fit_into_every_schema() -> None:
    assert len(request_id(order("device.files.get"))) == 22
    assert request_id(order("device.files.get")) == request_id(order("device.files.get"))
    assert request_id(order("device.files.get", request_id="mine")) == "mine"
    other = msgspec.structs.replace(order("device.files.get"), id="other")
    assert request_id(other) != request_id(order("device.files.get"))


# --------------------------------------------------------------------------------------------------------------------- schedules


def profile(level: int, **members: Any) -> dict[str, Any]:
    period = {"start": {"kind": "sunset", "offset_s": 3600}, "end": {"kind": "absolute", "time": "01:00:00"}}
    return {"profile_id": 100 + level, "stack_level": level, "recurrence": "daily", "day_schedule": [period], **members}


def schedule(levels: list[int], **members: Any) -> Command:
    return order("light.schedule.set", contactor=1, profiles=[profile(level) for level in levels], **members)


SMALL = Known(largest=700)
"""Room for three profiles in a message."""


async def test_a_schedule_that_fits_is_one_request() -> None:
    """The document's example, spelled right (I1)."""
    station = Station()
    periods = [
        {"start": {"kind": "sunset", "offset_s": 3600, "time": "10:00:00"}, "end": {"kind": "absolute", "time": "01:00:00", "offset_s": 5}},
        {"start": {"kind": "absolute", "time": "06:00:00"}, "end": {"kind": "sunrise", "offset_s": 0}},
    ]
    one = {
        "profile_id": 1,
        "stack_level": 2,
        "recurrence": "daily",
        "day_schedule": periods,
        "valid_from": "2015-06-06",
        "valid_to": "2019-09-06",
    }
    result = await execute(order("light.schedule.set", contactor=1, clear_all=True, profiles=[one]), station.call)
    assert result == {"status": "Accepted", "messages": 1, "profiles": 1}
    sent = {
        "contactorId": 1,
        "clearAllSchedules": True,
        "streetlightProfiles": [
            {
                "profileId": 1,
                "stackLevel": 2,
                "recurrencyKind": "Daily",
                "validFrom": "2015-06-06T00:00:00",
                "validTo": "2019-09-06T00:00:00",
                "daySchedule": [
                    {"start": {"kind": "Sunset", "offset": 3600}, "end": {"kind": "Absolute", "time": "01:00:00"}},  # I34
                    {"start": {"kind": "Absolute", "time": "06:00:00"}, "end": {"kind": "Sunrise", "offset": 0}},
                ],
            }
        ],
    }
    assert station.asked == [("SetStreetlightProfile", sent)]


async def test_l13_a_large_set_goes_out_in_parts_while_the_lights_are_suspended() -> None:
    station = Station()
    result = await execute(schedule([7, 1, 6, 2, 5, 3, 4], clear_all=True), station.call, SMALL)
    assert result == {"status": "Accepted", "messages": 3, "profiles": 7}
    assert station.actions == ["Suspend", *["SetStreetlightProfile"] * 3, "ResumeStreetlight"]
    assert [asked["contactorId"] for _, asked in station.asked] == [1] * 5
    parts = [asked for action, asked in station.asked if action == "SetStreetlightProfile"]
    assert [[one["stackLevel"] for one in part["streetlightProfiles"]] for part in parts] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [part.get("clearAllSchedules", False) for part in parts] == [True, False, False]


async def test_without_clear_all_no_part_clears() -> None:
    station = Station()
    await execute(schedule([1, 2, 3, 4]), station.call, SMALL)
    assert not any("clearAllSchedules" in asked for _, asked in station.asked)


async def test_lights_under_a_remote_override_are_neither_suspended_nor_resumed() -> None:
    station = Station()
    await execute(schedule([1, 2, 3, 4]), station.call, Known(largest=700, overridden=frozenset({1})))
    assert station.actions == ["SetStreetlightProfile"] * 2
    await execute(schedule([1, 2, 3, 4]), station.call, Known(largest=700, overridden=frozenset({2})))
    assert station.actions[2:] == ["Suspend", "SetStreetlightProfile", "SetStreetlightProfile", "ResumeStreetlight"]


@pytest.mark.parametrize(
    ("trouble", "error", "words"),
    [
        ({"status": "Rejected"}, DeviceError, "the station has 1 of 3 parts of the schedule: the station rejects SetStreetlightProfile"),
        (CallRefused("NotSupported", "full"), DeviceError, "the station has 1 of 3 parts of the schedule: the station has SetStreetlightProfile"),
        (DeviceTimeout("silence"), DeviceTimeout, "the station has 1 of 3 parts of the schedule: silence"),
    ],
)
async def test_after_a_refused_part_no_other_is_sent_but_the_lights_are_resumed(trouble: Any, error: type[GridloomError], words: str) -> None:
    station = Station(ACCEPTED, ACCEPTED, trouble)
    message = await refused(station, schedule(list(range(7))), error, SMALL)
    assert message.startswith(words)
    assert station.actions == ["Suspend", "SetStreetlightProfile", "SetStreetlightProfile", "ResumeStreetlight"]


async def test_when_the_first_part_is_refused_nothing_is_written() -> None:
    station = Station(ACCEPTED, {"status": "Rejected"})
    assert (await refused(station, schedule(list(range(7))), DeviceError, SMALL)).startswith("the station rejects SetStreetlightProfile")
    assert station.actions == ["Suspend", "SetStreetlightProfile", "ResumeStreetlight"]


@pytest.mark.parametrize(
    ("trouble", "error"),
    [({"status": "RejectedLocalOverride"}, DeviceError), (CallRefused("NotImplemented", ""), DeviceError), (Offline("gone"), Offline)],
)
async def test_when_the_lights_cannot_be_suspended_nothing_else_is_sent(trouble: Any, error: type[GridloomError]) -> None:
    station = Station(trouble)
    await refused(station, schedule(list(range(7))), error, SMALL)
    assert station.actions == ["Suspend"]


async def test_when_nobody_knows_whether_they_were_suspended_they_are_resumed() -> None:
    station = Station(DeviceTimeout("silence"))
    assert await refused(station, schedule(list(range(7))), DeviceTimeout, SMALL) == "silence"
    assert station.actions == ["Suspend", "ResumeStreetlight"]


async def test_lights_that_stay_suspended_are_told() -> None:
    words = "the lights of contactor 1 stay suspended: the station rejects ResumeStreetlight"
    station = Station(ACCEPTED, ACCEPTED, ACCEPTED, {"status": "Rejected"})
    assert f"the schedule is written, but {words}" in await refused(station, schedule([1, 2, 3, 4]), DeviceError, SMALL)
    station = Station(ACCEPTED, {"status": "Rejected"}, {"status": "Rejected"})
    message = await refused(station, schedule([1, 2, 3, 4]), DeviceError, SMALL)
    assert message.startswith("the station rejects SetStreetlightProfile")
    assert words in message


async def test_a_connection_that_ends_between_parts_is_no_refusal() -> None:
    """A refusal would promise that nothing was sent."""
    station = Station(ACCEPTED, Offline("gone"), Offline("gone"))
    message = await refused(station, schedule([1, 2, 3, 4]), DeviceError, SMALL)
    assert message == "gone; the lights of contactor 1 stay suspended: gone"
    station = Station(ACCEPTED, Offline("gone"))
    assert await refused(station, schedule([1, 2, 3, 4]), DeviceError, SMALL) == "gone"
    station = Station(ACCEPTED, Offline("gone"))
    await refused(station, schedule([1, 2, 3, 4]), DeviceError, Known(largest=700, overridden=frozenset({1})))


async def test_an_order_that_is_given_up_still_resumes_the_lights() -> None:
    station = Station(ACCEPTED, ACCEPTED)
    waiting = asyncio.Event()

    async def call(action: str, payload: bytes) -> bytes:
        if len(station.asked) == 2:
            station.asked.append((action, json.loads(payload)))
            waiting.set()
            await asyncio.Event().wait()
        return await station.call(action, payload)

    task = asyncio.create_task(execute(schedule(list(range(7))), call, SMALL))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert station.actions == ["Suspend", "SetStreetlightProfile", "SetStreetlightProfile", "ResumeStreetlight"]


async def test_a_simple_order_that_is_given_up_is_cancelled() -> None:
    async def call(action: str, payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(execute(order("device.reset"), call), 0.01)


async def test_what_was_written_is_verified_when_the_lights_are_resumed() -> None:
    def verify(contactor: int, profiles: Any) -> Steps:
        response = yield next(conversation(order("light.schedule.get", contactor=contactor, date="2026-01-01")))
        return f"{len(response.daySchedule)} periods of {len(profiles)} profiles"

    effective = {"contactorId": 1, "daySchedule": []}
    station = Station(ACCEPTED, ACCEPTED, ACCEPTED, ACCEPTED, effective)
    result = await execute(schedule([1, 2, 3, 4]), station.call, SMALL, verify=verify)
    assert station.actions[3:] == ["ResumeStreetlight", "GetEffectiveStreetlightDaySchedule"]
    assert result == {"status": "Accepted", "messages": 2, "profiles": 4, "verification": "0 periods of 4 profiles"}
    station = Station({"status": "Rejected"})
    with pytest.raises(DeviceError):
        await execute(schedule([1]), station.call, verify=verify)
    assert station.actions == ["SetStreetlightProfile"]


async def test_a_profile_is_refused_by_its_path_before_anything_is_sent() -> None:
    station = Station()
    profiles = [profile(4), profile(3), profile(20)]
    with pytest.raises(InvalidInput) as caught:
        await execute(order("light.schedule.set", contactor=1, profiles=profiles), station.call, Known(largest=300, max_stack_level=16))
    assert [(fault.path, fault.reason) for fault in caught.value.faults] == [("$.profiles[2].stack_level", "expected at most 16, got 20")]
    profiles[1]["day_schedule"][0]["start"]["offset_s"] = 90_000
    with pytest.raises(InvalidInput) as caught:
        await execute(order("light.schedule.set", contactor=1, profiles=profiles), station.call, SMALL)
    assert [fault.path for fault in caught.value.faults] == ["$.profiles[1].day_schedule[0].start.offset_s"]
    assert station.asked == []


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=40, unique=True), st.integers(1, 4_000), st.booleans())
def test_parts_hold_every_profile_once_in_order_and_no_more_than_fits(levels: list[int], largest: int, clear: bool) -> None:
    sent = run(conversation(schedule(levels, clear_all=clear), Known(largest=largest)), lambda _: ACCEPTED)
    parts = [one for one in sent if isinstance(one, SetStreetlightProfile)]
    assert [one.stackLevel for part in parts for one in part.streetlightProfiles] == sorted(levels)
    assert [part.clearAllSchedules for part in parts] == [clear] + [False] * (len(parts) - 1)
    assert all(len(write(part)) + 60 <= largest or len(part.streetlightProfiles) == 1 for part in parts)
    assert (len(sent) == len(parts) == 1) or [type(one).__name__ for one in (sent[0], sent[-1])] == ["OverrideStreetlight", "ResumeStreetlight"]


def run(steps: Steps, answer: Callable[[Message], dict[str, Any]]) -> list[Message]:
    """All requests of a conversation."""
    sent = []
    try:
        request = next(steps)
        while True:
            sent.append(request)
            action = type(request).__name__
            request = steps.send(read(action, json.dumps(answer(request)).encode(), "server", response=True).message)
    except StopIteration:
        return sent
