"""CONFORMANCE.md, every line whose role is SS or B, against a raw Central System. One test a line, named by its number."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from tests.integrations.os3p.central_raw import SILENT, Central, Line, Refused, central, moment
from tests.integrations.os3p.file_servers import http_server as served
from tests.integrations.os3p.substation import made, profile, profiles, registered, running

from gridloom.core.clock import Clock, from_datetime, rfc3339
from gridloom.integrations.os3p.client import Substation, connection_url
from gridloom.integrations.os3p.driver import Driver, Sample
from gridloom.integrations.os3p.simulator import Simulated
from gridloom.integrations.os3p.state import Fault
from gridloom.links.websocket_client import connect

LIGHT = "StreetlightStatusNotification"
MODE = "StreetlightModeStatusNotification"
FIELDS = {"vendor": 20, "model": 20, "stationNumber": 10, "serialNumber": 25, "firmwareVersion": 50, "iccid": 20, "imsi": 20}


def simulated(station: Substation) -> Simulated:
    assert isinstance(station.driver, Simulated)
    return station.driver


async def refused(line: Line, action: str, payload: Any) -> Refused:
    with pytest.raises(Refused) as raised:
        await line.call(action, payload)
    return raised.value


async def status(line: Line, action: str, payload: Any = None) -> str:
    return str((await line.call(action, payload))["status"])


async def key(line: Line, name: str) -> Any:
    """The value of a configuration key."""
    answer = await line.call("GetConfiguration", {"key": [name]})
    (found,) = answer["configurationKey"]
    return found.get("value")


async def set_key(line: Line, name: str, value: str) -> str:
    return await status(line, "ChangeConfiguration", {"key": name, "value": value})


def keep(list: list[Any], member: str = "") -> Callable[[Any], Any]:
    """An answer that keeps what it answers: the payload, a member of it, or if it has none the member's name."""

    def answer(payload: Any) -> Any:
        list.append(payload.get(member, member) if member else payload)
        return {}

    return answer


def at(text: str) -> Clock:
    """A clock that begins at a moment of UTC."""
    return Clock(start=from_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC)))


def keep_time(office: Central, clock: Clock) -> None:
    """The Central System has the same time as the station."""
    office.time = lambda: rfc3339(clock.now())


# ====================================================================================================================== C


async def test_C1_the_handshake_is_of_version_13() -> None:
    async with registered() as (_, _, line):
        assert line.headers["sec-websocket-version"] == "13"
        assert line.headers["upgrade"].lower() == "websocket"


async def test_C3_the_identity_stands_behind_the_path() -> None:
    async with registered(identity="SUBS001") as (_, _, line):
        assert line.target == "/OS3P/SUBS001"


@pytest.mark.parametrize(
    ("identity", "target"), [("SUBS 123", "SUBS%20123"), ("a/b?c#d%e", "a%2Fb%3Fc%23d%25e"), ("Zählerhäuschen", "Z%C3%A4hlerh%C3%A4uschen")]
)
async def test_C4_the_identity_is_percent_encoded_once(identity: str, target: str) -> None:
    async with registered(identity=identity) as (_, _, line):
        assert line.target == f"/OS3P/{target}"


def test_C5_no_double_slash_and_the_query_stays_behind() -> None:
    assert connection_url("ws://h/OS3P/", "S 1") == "ws://h/OS3P/S%201"
    assert connection_url("wss://h:1/a/b?token=x/y", "S1") == "wss://h:1/a/b/S1?token=x/y"
    assert connection_url("ws://h", "S1") == "ws://h/S1"


async def test_C6_versions_are_offered_in_order_of_preference() -> None:
    async with central() as office:
        office.protocol = "OS3P1.x"
        async with running(office.url, subprotocols=("OS3P1.0", "OS3P1.x")) as station:
            line = await office.line()
            assert [one.strip() for one in line.headers["sec-websocket-protocol"].split(",")] == ["OS3P1.0", "OS3P1.x"]
            await office.until(lambda: station.registered)


@pytest.mark.parametrize("answered", [None, "OS3P2.0"])
async def test_C10_without_a_common_subprotocol_nothing_is_sent(answered: str | None) -> None:
    async with central() as office:
        office.protocol = answered
        async with running(office.url) as station:
            line = await office.line()
            assert await line.gone() == 1002
            assert line.heard == []
            await office.until(lambda: "configuration" in station.alarms)
            assert not station.health().ok
            office.protocol = "OS3P1.0"
            await office.until(lambda: station.registered, 15)
            assert station.alarms == {}


async def test_C12_wss_with_a_certificate_that_is_checked() -> None:
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(trusting)
    office = Central()
    office._server = await asyncio.start_server(office._accept, "127.0.0.1", 0, ssl=server)
    url = f"wss://localhost:{office._server.sockets[0].getsockname()[1]}/OS3P"
    try:
        async with running(url, tls=trusting) as station:
            await office.until(lambda: station.registered)
        async with running(url) as station:
            await office.until(lambda: any("certificate" in line for line in station.syslog._lines()))
            assert not station.registered
    finally:
        await office.stop()


async def test_C13_no_extension_is_offered() -> None:
    async with registered() as (_, _, line):
        assert "sec-websocket-extensions" not in line.headers


async def test_C15_a_loss_is_answered_at_once_once_and_then_with_back_off() -> None:
    async with registered() as (office, station, line):
        before = asyncio.get_running_loop().time()
        line.cut()
        second = await office.line(1)
        assert asyncio.get_running_loop().time() - before < 0.5
        await office.until(lambda: station.registered)
        second.cut()
        await asyncio.sleep(0.4)
        assert len(office.lines) == 2, "it flaps: not at once again"
        await office.line(5)


async def test_C15_back_off_grows_and_is_jittered() -> None:
    async with central() as office:
        office.refuse = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        clock = Clock(200)
        async with running(office.url, clock=clock) as station:
            await asyncio.sleep(1.5)
            knocks = office.knocks
            assert 2 <= knocks < 60, "300 s of its time at waits of up to 300 s"
            office.refuse = b""
            await office.until(lambda: station.registered)


async def test_C17_the_identity_is_in_no_message() -> None:
    async with registered(identity="UNMISTAKABLE-7") as (_, _, line):
        await line.call("GetConfiguration")
        await line.call("TriggerMessage", {"requestedMessage": "StatusNotification"})
        await line.asked("StatusNotification")
        assert "UNMISTAKABLE-7" not in json.dumps(line.heard)


async def test_C18_websocket_ping_interval() -> None:
    async with registered() as (_, _, line):
        line.frame(9, b"are you there")
        await asyncio.sleep(0.2)
        assert (line.pings, line.pongs) == (0, [b"are you there"])
        assert await set_key(line, "websocketPingInterval", "-1") == "Rejected"
        assert await set_key(line, "websocketPingInterval", "1.5") == "Rejected"
        assert await set_key(line, "websocketPingInterval", "often") == "Rejected"
        assert await set_key(line, "WebSocketPingInterval", "1") == "Accepted"
        await asyncio.sleep(1.3)
        assert line.pings == 1, "without a new connection"
        assert await set_key(line, "websocketPingInterval", "0") == "Accepted"
        await asyncio.sleep(1.2)
        assert line.pings == 1


# ====================================================================================================================== R


async def test_R1_R2_messages_are_ascii_json() -> None:
    async with registered(identity="Zähler") as (_, _, line):
        await line.call("GetConfiguration", {"key": ["naïve"]})
        assert all(isinstance(message, list) for message in line.heard)
        assert all(message[1].isascii() for message in line.heard)


async def test_R3_R8_R9_types_and_element_counts() -> None:
    async with registered() as (_, _, line):
        await line.call("GetConfiguration")
        assert {(message[0], len(message)) for message in line.heard} == {(2, 4), (3, 3)}


async def test_R4_an_unknown_type_is_ignored() -> None:
    async with registered() as (_, _, line):
        line.say([5, "x1", "GetConfiguration", {}])
        assert await line.quiet()
        assert await line.call("GetConfiguration")
        assert not [message for message in line.heard if message[1] == "x1"]


async def test_R5_R7_ids_are_short_and_used_once() -> None:
    async with registered() as (_, _, line):
        for _ in range(20):
            await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
            await line.asked("Heartbeat")
        ids = [message[1] for message in line.heard if message[0] == 2]
        assert len(ids) == len(set(ids))
        assert all(isinstance(id, str) and len(id) <= 36 for id in ids)


async def test_R6_the_answer_has_the_id_of_the_call() -> None:
    async with registered() as (_, _, line):
        await line.call("GetConfiguration", id='an id with blanks " and quotes')
        with pytest.raises(Refused):
            await line.call("Nonsense", id="x" * 36)


async def test_R7_an_id_that_is_too_long_is_refused_whole() -> None:
    async with registered() as (_, _, line):
        with pytest.raises(Refused):
            await line.call("GetConfiguration", id="x" * 37)


@pytest.mark.parametrize("action", ["getConfiguration", "GETCONFIGURATION", "Nonsense"])
async def test_R8_R18_the_action_is_case_sensitive(action: str) -> None:
    async with registered() as (_, _, line):
        assert (await refused(line, action, {})).code == "NotImplemented"


async def test_R8_wrong_element_counts() -> None:
    async with registered() as (_, _, line):
        line.say([2, "short", "GetConfiguration"])
        line.say([2, "long", "GetConfiguration", {}, {}])
        await line.call("GetConfiguration")
        codes = {message[1]: message[2] for message in line.heard if message[0] == 4}
        assert codes == {"short": "ProtocolError", "long": "FormationViolation"}


async def test_R10_a_callerror_has_five_elements() -> None:
    async with registered() as (_, _, line):
        error = await refused(line, "Nonsense", {})
        assert isinstance(error.description, str)
        assert isinstance(error.details, dict)


async def test_R11_empty_payloads() -> None:
    async with registered() as (_, _, line):
        line.say('[2,"n1","GetConfiguration",null]')
        await line.call("Reset")
        answer = next(message for message in line.heard if message[1] == "n1")
        assert answer[0] == 3
        assert "null" not in json.dumps([message for message in line.heard if message[0] == 2])


async def test_R12_an_undesired_outcome_is_a_result() -> None:
    async with registered() as (_, _, line):
        assert await set_key(line, "NoSuchKey", "1") == "Rejected"
        assert await status(line, "ClearSingleStreetlightProfile", {"profileId": 9}) == "Unknown"


async def test_R13_R20_what_is_no_proper_message_is_an_error() -> None:
    async with registered() as (_, _, line):
        for payload, code in (
            ({"key": "x"}, "OccurenceConstraintViolation"),
            ({"key": 1, "value": "x"}, "TypeConstraintViolation"),
            ({"key": "x", "value": "x"} | {"value": 5}, "TypeConstraintViolation"),
            ([1], "FormationViolation"),
        ):
            assert (await refused(line, "ChangeConfiguration", payload)).code == code
        assert (await refused(line, "OverrideStreetlight", {"action": "Blink"})).code == "PropertyConstraintViolation"
        error = await refused(line, "SetStreetlightProfile", profiles(1, profile(), profile(2, 2, *[("12:00:00", "13:00:00")] * 5)))
        assert error.code == "OccurenceConstraintViolation"
        assert "$.streetlightProfiles[1].daySchedule" in json.dumps(error.details)


@pytest.mark.parametrize("text", ["no json", "{}", "[2]", '[2,7,"GetConfiguration",{}]', "[]", "null", '"text"'])
async def test_R14_what_shows_no_id_is_ignored(text: str) -> None:
    async with registered() as (_, _, line):
        before = len(line.heard)
        line.say(text)
        assert await line.call("GetConfiguration")
        assert len(line.heard) == before + 1


async def test_R15_R16_an_id_that_was_used() -> None:
    async with registered() as (_, station, line):
        gate = asyncio.Event()
        asked = []

        async def slowly() -> Any:
            asked.append(1)
            await gate.wait()
            return [Sample("Voltage.L1N", "230", "V")]

        simulated(station).meter = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(line.call("TriggerMessage", {"requestedMessage": "MeterValues"}, id="same"))
        await asyncio.sleep(0.1)
        line.say([2, "same", "TriggerMessage", {"requestedMessage": "MeterValues"}])
        await asyncio.sleep(0.1)
        gate.set()
        assert (await first)["status"] == "Accepted"
        await line.call("GetConfiguration")
        assert [message[2] for message in line.heard if message[0] == 4] == ["GenericError"]
        line.say([2, "same", "TriggerMessage", {"requestedMessage": "MeterValues"}])
        await line.call("GetConfiguration")
        assert [message[2] for message in line.heard if message[0] == 4] == ["GenericError"] * 2
        assert len(asked) == 1


async def test_R17_an_answer_to_nothing_is_ignored() -> None:
    async with registered() as (_, station, line):
        line.say([3, "999", {}])
        line.say([4, "999", "GenericError", "", {}])
        assert await line.call("GetConfiguration")
        assert station.registered


async def test_R17_an_answer_to_another_call_is_not_taken_for_the_one_that_is_waited_for() -> None:
    async with registered() as (office, station, line):
        office.replies["Heartbeat"] = SILENT
        await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        await line.asked("Heartbeat")
        line.say([3, "999", {"currentTime": "2100-01-01T00:00:00Z"}])
        assert await line.call("GetConfiguration")
        line.say([3, next(message[1] for message in reversed(line.heard) if message[0] == 2), {"currentTime": "2050-01-01T00:00:00Z"}])
        await office.until(lambda: rfc3339(station.now()) > "2049")
        assert rfc3339(station.now()) < "2051"


async def test_R18_a_message_that_only_stations_send_is_not_supported() -> None:
    async with registered() as (_, _, line):
        assert (await refused(line, "MeterValues", {"meterValue": []})).code == "NotSupported"


async def test_R19_a_handler_that_breaks_is_an_internal_error() -> None:
    async with registered() as (_, station, line):
        station.place = None  # type: ignore[method-assign,assignment]
        error = await refused(line, "GetConfiguration", {"key": ["Sunrise"]})
        assert error.code == "InternalError"
        assert "NoneType" not in error.description


async def test_R21_one_call_at_a_time_and_answers_meanwhile() -> None:
    async with registered() as (office, _, line):
        office.replies["StatusNotification"] = SILENT
        await line.call("TriggerMessage", {"requestedMessage": "StatusNotification"})
        await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        await line.asked("StatusNotification")
        assert await line.call("GetConfiguration"), "it answers while its own call waits"
        assert await line.quiet("Heartbeat")
        pending = next(message[1] for message in reversed(line.heard) if message[0] == 2)
        line.say([3, pending, {}])
        await line.asked("Heartbeat")


async def test_R21_pipelined_calls_are_answered_in_order() -> None:
    async with registered() as (_, _, line):
        answers = await asyncio.gather(*(line.call("GetConfiguration", id=f"p{number}") for number in range(30)))
        assert len(answers) == 30
        assert [message[1] for message in line.heard if message[0] == 3][-30:] == [f"p{number}" for number in range(30)]


async def test_R22_after_a_time_out_the_next_call_goes_out() -> None:
    async with registered(call_timeout=0.3) as (office, station, line):
        office.replies["StatusNotification"] = SILENT
        await line.call("TriggerMessage", {"requestedMessage": "StatusNotification"})
        await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        await line.asked("StatusNotification")
        await line.asked("Heartbeat", 2)
        assert line.ended is None
        assert station.registered


async def test_R24_a_binary_frame_ends_the_connection() -> None:
    async with registered() as (_, _, line):
        line.frame(2, b"[]")
        assert await line.gone() == 1003


# ====================================================================================================================== B


async def test_B1_B2_the_first_message_is_a_boot_notification_and_nothing_else_before_it_is_accepted() -> None:
    async with central() as office:
        office.replies["BootNotification"] = SILENT
        async with running(office.url, keys={"MeterValuesInterval": "1"}) as station:
            line = await office.line()
            await line.asked("BootNotification")
            simulated(station).pull(1, True)
            simulated(station).stand(Fault("HighTemperature"))
            assert await line.quiet(seconds=1.3)
            boot = line.heard[0]
            line.say([3, boot[1], office.registered()])
            await line.asked(LIGHT)
            await line.asked("StatusNotification")


async def test_B2_nothing_else_while_the_registration_fails() -> None:
    async with central() as office:
        office.replies["BootNotification"] = ["InternalError", "", {}]
        async with running(office.url, keys={"MeterValuesInterval": "1"}) as station:
            line = await office.line()
            await line.asked("BootNotification")
            simulated(station).pull(1, True)
            await asyncio.sleep(1.3)
            assert {action for action, _ in line.calls} == {"BootNotification"}


async def test_B3_interval_is_the_heartbeat_period() -> None:
    async with central() as office:
        office.interval = 20
        clock = Clock(20)
        keep_time(office, clock)
        async with running(office.url, clock=clock):
            line = await office.line()
            await line.asked("BootNotification")
            await line.asked("Heartbeat")
            before = clock.monotonic()
            await line.asked("Heartbeat")
            assert 18 < clock.monotonic() - before < 60


async def test_B4_the_time_is_taken_from_the_answer() -> None:
    async with central() as office:
        ahead = timedelta(days=3)
        office.time = lambda: (datetime.now(UTC) + ahead).isoformat()
        async with running(office.url) as station:
            await office.until(lambda: station.registered)
            assert abs(station.now() / 1e6 - (datetime.now(UTC) + ahead).timestamp()) < 0.2


async def test_B6_after_a_rejection_it_stays_away_for_the_interval() -> None:
    async with central() as office:
        office.status, office.interval = "Rejected", 30
        clock = Clock(20)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await line.asked("BootNotification")
            line.close(1000)
            await line.gone()
            before = clock.monotonic()
            office.status, office.interval = "Accepted", 300
            await office.line()
            assert 28 < clock.monotonic() - before < 80
            await office.until(lambda: station.registered)


async def test_B6_a_rejection_without_interval_is_answered_by_back_off_and_the_station_closes_itself() -> None:
    async with central() as office:
        office.status, office.interval = "Rejected", 0
        clock = Clock(20)
        async with running(office.url, clock=clock):
            line = await office.line()
            await line.asked("BootNotification")
            before = clock.monotonic()
            assert await line.gone() == 1000
            assert 9 < clock.monotonic() - before < 30, "I19"
            assert line.heard[1:] == []
            await office.line()


async def test_B8_B9_B10_pending_answers_and_says_nothing() -> None:
    async with central() as office:
        office.status = "Pending"
        async with running(office.url, keys={"MeterValuesInterval": "1"}) as station:
            line = await office.line()
            await line.asked("BootNotification")
            assert await set_key(line, "Geolocation", "[50.0,5.0]") == "Accepted"
            assert await status(line, "SetStreetlightProfile", profiles()) == "Accepted"
            simulated(station).stand(Fault("HighTemperature"))
            await office.until(lambda: simulated(station).closed[1])
            assert await line.quiet(seconds=1.2)
            assert await status(line, "TriggerMessage", {"requestedMessage": "MeterValues"}) == "Accepted"
            await line.asked("MeterValues")
            assert await line.quiet()
            assert line.ended is None


async def test_B11_pending_repeats_after_the_interval_and_when_triggered() -> None:
    async with central() as office:
        office.status, office.interval = "Pending", 20
        clock = Clock(20)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await line.asked("BootNotification")
            before = clock.monotonic()
            await line.asked("BootNotification")
            assert 18 < clock.monotonic() - before < 60
            office.status = "Accepted"
            assert await status(line, "TriggerMessage", {"requestedMessage": "BootNotification"}) == "Accepted"
            await line.asked("BootNotification", 0.5)
            await office.until(lambda: station.registered)


async def test_B12_a_boot_notification_without_an_answer_is_repeated() -> None:
    async with central() as office:
        office.replies["BootNotification"] = SILENT
        clock = Clock(20)
        async with running(office.url, clock=clock, call_timeout=3) as station:
            line = await office.line()
            await line.asked("BootNotification")
            office.replies["BootNotification"] = ["InternalError", "", {}]
            office.after = lambda action: office.replies.update(BootNotification=office.registered)
            await office.until(lambda: station.registered)


async def test_B13_a_firmware_update_is_a_first_boot(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, _, line):
        image = tmp_path / "image-2.0.1.bin"
        image.write_bytes(b"new")
        async with served(tmp_path) as where:
            await line.call("UpdateFirmware", {"retrieveDate": office.time(), "location": f"{where}/image-2.0.1.bin", "requestId": "r1"})
            second = await office.line()
            boot = await second.asked("BootNotification")
            assert boot["firmwareVersion"] == "2.0.1"
            assert second.calls[0][0] == "BootNotification"
            assert (await second.asked("FirmwareStatusNotification"))["status"] == "Installed"


async def test_B14_another_url_is_a_first_boot(tmp_path: Path) -> None:
    async with central() as first, central() as second:
        for office in (first, second):
            async with running(office.url, folder=tmp_path) as station:
                await office.until(lambda: station.registered)
            assert len(office.all("BootNotification")) == 1
        async with running(second.url, folder=tmp_path) as station:
            await second.until(lambda: station.registered)
        assert len(second.all("BootNotification")) == 1


async def test_B15_a_reboot_with_a_changed_field_boots(tmp_path: Path) -> None:
    async with central() as office:
        for version in ("1.0", "1.0", "1.1"):
            async with running(office.url, folder=tmp_path, driver=Driver(firmware_version=version)) as station:
                await office.until(lambda: station.registered)
        assert [boot["firmwareVersion"] for boot in office.all("BootNotification")] == ["1.0", "1.1"]


async def test_B16_a_reboot_without_a_change_needs_no_boot_notification(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        assert await status(line, "Reset") == "Accepted"
        await line.gone()
        await office.line()
        await office.until(lambda: station.registered)
        assert len(office.all("BootNotification")) == 1


async def test_B17_a_start_after_a_crash_is_told(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, _):
        station.vault.close()
        crashed = made(office.url, folder=tmp_path)
        await crashed.start()
        try:
            line = await office.line()
            told = await line.asked("StatusNotification")
            assert (told["errorCode"], told["status"]) == ("ResetFailure", "Ok")
        finally:
            await crashed.stop()
        async with running(office.url, folder=tmp_path) as third:
            line = await office.line()
            await office.until(lambda: third.registered)
            assert await line.quiet("StatusNotification"), "it was stopped in order"


async def test_B18_a_reconnect_says_nothing(tmp_path: Path) -> None:
    async with registered() as (office, station, line):
        line.cut()
        second = await office.line()
        await office.until(lambda: station.registered)
        assert await second.quiet()
        assert second.heard == []


async def test_B18_a_reconnect_after_a_change_boots() -> None:
    async with registered() as (office, station, line):
        driver = simulated(station)
        driver._boot = msgspec.structs.replace(driver._boot, iccid="8331")
        line.cut()
        assert (await (await office.line()).asked("BootNotification"))["iccid"] == "8331"


async def test_B20_a_central_system_that_has_forgotten_us_is_told_again() -> None:
    async with registered() as (office, station, line):
        line.cut()
        second = await office.line()
        await office.until(lambda: station.registered)
        office.replies[LIGHT] = ["SecurityError", "who are you", {}]
        simulated(station).pull(1, True)
        await second.asked("BootNotification")
        office.replies[LIGHT] = {}
        await office.until(lambda: not station.vault.events)


async def test_B21_there_is_a_heartbeat_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.client.connect", partial(connect, connect_timeout=100_000))  # 30 s are 1 ms here
    async with central() as office:
        office.interval = 400_000
        clock = Clock(40_000)
        keep_time(office, clock)
        async with running(office.url, clock=clock, call_timeout=100_000):
            line = await office.line()
            await line.asked("BootNotification")
            before = clock.monotonic()
            await line.asked("Heartbeat")
            assert 80_000 < clock.monotonic() - before < 300_000


async def test_B22_half_of_the_round_trip_is_added() -> None:
    async with registered() as (office, station, line):
        said = datetime.now(UTC) + timedelta(seconds=100)
        office.replies["Heartbeat"] = SILENT
        await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        await line.asked("Heartbeat")
        await asyncio.sleep(1.0)
        line.say([3, line.heard[-1][1], {"currentTime": said.isoformat()}])
        asked = datetime.now(UTC)
        await asyncio.sleep(0.1)
        ahead = station.now() / 1e6 - datetime.now(UTC).timestamp()
        expected = said.timestamp() + 0.5 - asked.timestamp()
        assert abs(ahead - expected) < 0.1
        assert any("jumped" in line for line in station.syslog._lines()), "steps are logged"


async def test_B22_a_small_difference_is_slewed() -> None:
    async with registered() as (office, station, line):
        office.time = lambda: (datetime.now(UTC) + timedelta(seconds=1.2)).isoformat()
        await line.call("TriggerMessage", {"requestedMessage": "Heartbeat"})
        await line.asked("Heartbeat")
        await asyncio.sleep(0.2)
        assert abs(station.now() / 1e6 - datetime.now(UTC).timestamp()) < 0.1, "not yet"
        assert abs(station.time._target - 1.2) < 0.1


async def test_B23_what_is_too_long_is_not_sent() -> None:
    async with central() as office, running(office.url, driver=Driver(vendor="V" * 21)) as station:
        await office.until(lambda: station.registered)
        (boot,) = office.all("BootNotification")
        assert all(len(boot[name]) <= length for name, length in FIELDS.items())
        assert "identity" in station.alarms


async def test_B23_all_seven_fields_within_their_lengths() -> None:
    async with registered(driver=Driver()) as (office, _, _):
        (boot,) = office.all("BootNotification")
        assert set(boot) == set(FIELDS)
        assert all(isinstance(boot[name], str) and len(boot[name]) <= length for name, length in FIELDS.items())
        assert boot["iccid"] == ""


# ====================================================================================================================== N


async def test_N1_file_notifications_carry_the_request_id(tmp_path: Path) -> None:
    async with registered() as (_, _, line), served(tmp_path) as where:
        id = "08fb86a4-3e9b-11e6-ac61-9e71128cae77"
        answer = await line.call("GetFile", {"requestId": id, "fileType": "Syslog", "location": where})
        assert answer["status"] == "Accepted"
        assert await line.asked("GetFileStatusNotification") == {"status": "Uploading", "requestId": id}
        assert await line.asked("GetFileStatusNotification") == {"status": "Uploaded", "requestId": id}
        await line.call("GetFile", {"fileType": "Syslog", "location": where})
        assert await line.asked("GetFileStatusNotification") == {"status": "Uploading"}


async def test_N2_firmware_notifications_carry_the_request_id(tmp_path: Path) -> None:
    (tmp_path / "f.bin").write_bytes(b"x")
    async with registered() as (office, _, line), served(tmp_path) as where:
        id = "f" * 36
        assert await line.call("UpdateFirmware", {"retrieveDate": office.time(), "location": f"{where}/f.bin", "requestId": id}) == {}
        assert (await line.asked("FirmwareStatusNotification"))["requestId"] == id


async def test_N3_nothing_under_way_is_none() -> None:
    async with registered() as (_, _, line):
        for action in ("GetFileStatusNotification", "FirmwareStatusNotification"):
            assert await status(line, "TriggerMessage", {"requestedMessage": action}) == "Accepted"
            assert await line.asked(action) == {"status": "None"}


async def test_N4_meter_values_are_as_table_1_says() -> None:
    from gridloom.integrations.os3p.measurands import TABLE

    async with registered(keys={"MeterValuesInterval": "1"}) as (_, _, line):
        told = await line.asked("MeterValues")
        ((entry,),) = (told["meterValue"],)
        assert abs(moment(entry["timestamp"]) - datetime.now(UTC).timestamp()) < 3
        spelt = {"Celsius": "C", "Amp": "A"}
        for sample in entry["sampledValue"]:
            row = TABLE[sample["measurand"], sample.get("location")]
            assert sample.get("unit") == (spelt.get(row.unit, row.unit) if row.unit else None)
            assert re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", sample["value"])
            assert "context" not in sample, "Sample.Periodic is the default"
            assert "format" not in sample


async def test_N5_deprecated_measurands_are_not_sent() -> None:
    class Old(Driver):
        async def meter(self) -> Any:
            return [Sample("ReactiveEnergyInductive.L1", "1", "varh")]

    async with registered(driver=Old(), keys={"MeterValuesInterval": "1"}) as (_, station, line):
        assert await line.quiet("MeterValues", seconds=1.3)
        assert "meter" in station.alarms


async def test_N9_status_is_that_of_the_whole_station() -> None:
    async with registered() as (_, station, line):
        driver = simulated(station)
        driver.stand(Fault("HighTemperature", "cabinet"), Fault("WeakSignal", "modem"))
        assert [(await line.asked("StatusNotification"))["status"] for _ in range(2)] == ["Faulted", "Faulted"]
        driver.stand(Fault("WeakSignal", "modem"))
        told = await line.asked("StatusNotification")
        assert (told["status"], told["errorCode"]) == ("Faulted", "NoError")
        driver.stand()
        told = await line.asked("StatusNotification")
        assert (told["status"], told["errorCode"]) == ("Ok", "NoError")
        assert told["info"] == "WeakSignal resolved"


async def test_N10_other_error_says_whose_and_which() -> None:
    async with registered() as (_, station, line):
        simulated(station).stand(Fault("OtherError", "door", "BrandX", "E17"), Fault("OtherError", "roof"))
        told = [await line.asked("StatusNotification") for _ in range(2)]
        assert all(one["vendorId"] and one["vendorErrorCode"] for one in told)
        assert ("BrandX", "E17") in [(one["vendorId"], one["vendorErrorCode"]) for one in told]


async def test_N11_test_is_true_for_a_hardware_test_only() -> None:
    async with registered() as (_, station, line):
        simulated(station).stand(Fault("HighTemperature"))
        assert "test" not in await line.asked("StatusNotification")
        assert await status(line, "TestMVFaultIndicator") == "Accepted"
        assert all([(await line.asked("StatusNotification"))["test"] for _ in range(3)])
        simulated(station).stand(Fault("HighTemperature"), Fault("WeakSignal"))
        assert "test" not in await line.asked("StatusNotification"), "another error during a test"


async def test_N12_the_three_fixed_texts() -> None:
    async with registered() as (_, station, line):
        texts = {
            "MVFaultIndicatorError": "Indicator fault (MV) resolved",
            "OverCurrentFailure": "Over current error (MV) resolved",
            "GroundFailure": "Ground failure resolved",
        }
        for code, text in texts.items():
            simulated(station).stand(Fault(code, "group 1"), Fault(code, "group 2"))  # type: ignore[arg-type]
            assert {(await line.asked("StatusNotification"))["info"] for _ in range(2)} == {"group 1", "group 2"}
            simulated(station).stand(Fault(code, "group 2"))  # type: ignore[arg-type]
            assert (await line.asked("StatusNotification"))["info"] != text, "one group is still in alarm"
            simulated(station).stand()
            told = await line.asked("StatusNotification")
            assert (told["errorCode"], told["info"], told["status"]) == ("NoError", text, "Ok")


async def test_N13_lights_are_never_told_by_status_notification() -> None:
    async with registered() as (office, station, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
        assert (await line.asked(LIGHT))["status"] == "On"
        simulated(station).pull(2, True)
        assert await line.quiet("StatusNotification"), "while a light is on, and after one was moved by hand"
        simulated(station).turn(False)
        assert (await line.asked(LIGHT))["contactorId"] == 2
        assert await line.quiet("StatusNotification")
        assert office.all("StatusNotification") == []


async def test_N14_every_change_of_mode_is_told_with_its_moment() -> None:
    async with registered() as (_, station, line):
        before = datetime.now(UTC).timestamp()
        assert await status(line, "OverrideStreetlight", {"contactorId": 1, "action": "On"}) == "Accepted"
        told = await line.asked(MODE)
        assert (told["contactorId"], told["mode"]) == (1, "RemoteOverride")
        assert before - 0.1 <= moment(told["timestamp"]) <= datetime.now(UTC).timestamp() + 0.1
        simulated(station).turn(True)
        assert {(await line.asked(MODE))["mode"] for _ in range(2)} == {"LocalOverride"}
        simulated(station).turn(None)
        assert {(one["contactorId"], one["mode"]) for one in [await line.asked(MODE) for _ in range(2)]} == {(1, "RemoteOverride"), (2, "Schedule")}
        assert await status(line, "ResumeStreetlight") == "Accepted"
        assert {(await line.asked(MODE))["mode"] for _ in range(2)} == {"Schedule"}


async def test_N15_N16_a_local_override_is_told_for_all_contactors() -> None:
    async with registered() as (_, station, line):
        simulated(station).turn(True)
        assert [(await line.asked(MODE)).get("contactorId") for _ in range(2)] == [1, 2]


async def test_N17_a_transition_is_told_once_with_the_moment_of_the_switching() -> None:
    clock = at("2026-06-01T18:59:59.500000")  # 20:59:59.5 in Amsterdam
    async with central() as office:
        keep_time(office, clock)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("21:00:00", "21:00:01"))))
            told = await line.asked(LIGHT)
            assert (told["contactorId"], told["status"], told.get("unexpected", False)) == (1, "On", False)
            assert 0 <= moment(told["timestamp"]) - datetime(2026, 6, 1, 19, tzinfo=UTC).timestamp() < 0.25
            told = await line.asked(LIGHT)
            assert told["status"] == "Off"
            assert 0 <= moment(told["timestamp"]) - datetime(2026, 6, 1, 19, 0, 1, tzinfo=UTC).timestamp() < 0.25
            assert await line.quiet(LIGHT)


async def test_N18_what_nobody_commanded_is_unexpected() -> None:
    async with registered() as (_, station, line):
        simulated(station).pull(1, True)
        assert [((one := await line.asked(LIGHT))["status"], one.get("unexpected", False)) for _ in range(2)] == [("On", True), ("Off", False)]
        assert simulated(station).closed[1] is False, "the schedule is put into force again"


async def test_N19_events_are_told_until_they_are_answered() -> None:
    async with registered(call_timeout=0.3) as (office, station, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
        await line.asked(LIGHT)
        await office.until(lambda: not station.vault.events)
        office.replies[LIGHT] = SILENT
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "Off"})
        first = await line.asked(LIGHT)
        line.cut()
        second = await office.line()
        assert await second.asked(LIGHT) == first
        office.replies[LIGHT] = {}
        await office.until(lambda: not station.vault.events, 15)


async def test_N20_the_queue_survives_a_power_loss_in_order_with_its_moments(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        office.replies[LIGHT] = office.replies[MODE] = ["InternalError", "no room", {}]
        told: list[Any] = []
        for action in ("On", "Off", "On"):
            await line.call("OverrideStreetlight", {"contactorId": 1, "action": action})
            await office.until(lambda: simulated(station).closed[1] is (action == "On"))  # noqa: B023
            await asyncio.sleep(0.05)
        waiting = [event.payload for event in station.vault.events.values()]
        assert [event["status"] for event in waiting if "status" in event] == ["On", "Off", "On"]
        station.vault.close()
        office.told.clear()
        office.replies[LIGHT] = office.replies[MODE] = keep(told)
        again = made(office.url, folder=tmp_path)
        simulated(again).closed[1] = True
        await again.start()
        try:
            await office.until(lambda: not again.vault.events)
        finally:
            await again.stop()
        assert [one for one in told if "status" in one or "mode" in one][: len(waiting)] == waiting


async def test_N20_a_refused_event_holds_back_only_its_contactor() -> None:
    async with registered() as (office, station, line):
        office.replies[LIGHT] = lambda payload: ["InternalError", "", {}] if payload["contactorId"] == 1 else {}
        simulated(station).pull(1, True)
        simulated(station).pull(2, True)
        await office.until(lambda: sum(one["contactorId"] == 2 for one in office.all(LIGHT)) == 2)
        assert {event.key for event in station.vault.events.values()} == {"1"}
        ids = [message[1] for message in line.heard if message[0] == 2]
        office.replies[LIGHT] = {}
        await office.until(lambda: not station.vault.events, 15)
        assert len(ids) == len(set(ids))


async def test_N20_a_full_queue_gives_up_the_oldest_with_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.os3p.state.MOST_EVENTS", 5)
    async with central() as office:
        office.replies["BootNotification"] = SILENT
        async with running(office.url) as station:
            for _ in range(6):
                simulated(station).pull(1, True)
                await asyncio.sleep(0.02)
            assert len(station.vault.events) == 5
            assert "queue" in station.alarms
            assert not station.health().ok


async def test_N23_the_oldest_goes_first_and_live_messages_have_their_turn() -> None:
    async with central() as office:
        office.status = "Pending"
        async with running(office.url) as station:
            line = await office.line()
            await line.asked("BootNotification")
            for _ in range(20):
                simulated(station).pull(1, True)
                await asyncio.sleep(0.01)
            order: list[str] = []
            office.replies[LIGHT] = keep(order, "timestamp")
            office.replies["StatusNotification"] = keep(order, "live")
            office.status = "Accepted"
            line.say([2, "t1", "TriggerMessage", {"requestedMessage": "BootNotification"}])
            line.say([2, "t2", "TriggerMessage", {"requestedMessage": "StatusNotification"}])
            await office.until(lambda: station.registered and not station.vault.events)
            moments = [one for one in order if one != "live"]
            assert moments == sorted(moments)
            assert "live" in order
            assert order.index("live") < 5


# ====================================================================================================================== S


async def test_S1_an_optional_request_that_is_not_implemented() -> None:
    async with registered(without=frozenset({"GetFile"})) as (_, _, line):
        for payload in ({}, {"fileType": "Syslog", "location": "ftp://h/"}):
            assert (await refused(line, "GetFile", payload)).code == "NotImplemented"


async def test_S2_implemented_but_not_possible() -> None:
    async with registered(driver=Driver()) as (office, _, line):
        error = await refused(line, "UpdateFirmware", {"retrieveDate": office.time(), "location": "http://h/x"})
        assert error.code == "NotSupported"
        assert (await refused(line, "GetEffectiveStreetlightDaySchedule", {"contactorId": 4, "at": "2026-06-01T00:00:00"})).code == "NotSupported"


async def test_S3_what_is_triggered_is_sent_at_once_and_fresh() -> None:
    async with registered() as (_, _, line):
        assert await status(line, "TriggerMessage", {"requestedMessage": "MeterValues"}) == "Accepted"
        told = await line.asked("MeterValues")
        assert {sample["context"] for sample in told["meterValue"][0]["sampledValue"]} == {"Trigger"}
        assert await status(line, "TriggerMessage", {"requestedMessage": "Heartbeat"}) == "Accepted"
        await line.asked("Heartbeat")
        assert await status(line, "TriggerMessage", {"requestedMessage": "StatusNotification"}) == "Accepted"
        assert (await line.asked("StatusNotification"))["errorCode"] == "NoError"
        assert (await refused(line, "TriggerMessage", {"requestedMessage": "Nonsense"})).code == "PropertyConstraintViolation"


async def test_S3_what_cannot_be_is_rejected() -> None:
    async with registered(driver=Driver()) as (_, _, line):
        assert await status(line, "TriggerMessage", {"requestedMessage": "MeterValues"}) == "Rejected"
        assert await status(line, "TriggerMessage", {"requestedMessage": LIGHT}) == "Rejected"


async def test_S4_the_answer_comes_before_what_was_triggered() -> None:
    async with registered() as (_, _, line):
        for action in ("BootNotification", "Heartbeat", "MeterValues", "StatusNotification", LIGHT, MODE):
            before = len(line.heard)
            await line.call("TriggerMessage", {"requestedMessage": action, "connectorId": 1})
            await line.asked(action)
            assert [message[0] for message in line.heard[before : before + 2]] == [3, 2], (action, line.heard[before:])


async def test_S5_connector_id_is_a_contactor() -> None:
    async with registered() as (_, _, line):
        for payload, expected in (({"connectorId": 2}, [2]), ({"contactorId": 1}, [1]), ({"connectorId": 0}, [1, 2]), ({}, [1, 2])):
            for action in (LIGHT, MODE):
                assert await status(line, "TriggerMessage", {"requestedMessage": action, **payload}) == "Accepted"
                assert [(await line.asked(action))["contactorId"] for _ in expected] == expected
        assert await status(line, "TriggerMessage", {"requestedMessage": LIGHT, "connectorId": 4}) == "Rejected"
        assert await status(line, "TriggerMessage", {"requestedMessage": "StatusNotification", "connectorId": 9}) == "Accepted"


async def test_S6_read_only_and_unknown_keys_are_rejected() -> None:
    async with registered() as (_, _, line):
        for name in ("Sunrise", "Sunset", "sunset", "NoSuchKey"):
            assert await set_key(line, name, "2026-01-01T00:00:00Z") == "Rejected"
        assert await set_key(line, "Geolocation", "[1,2]") == "Accepted"
        keys = {one["key"]: one["readonly"] for one in (await line.call("GetConfiguration"))["configurationKey"]}
        assert keys["Sunrise"] is keys["Sunset"] is True
        assert keys["Geolocation"] is False


async def test_S7_all_keys_and_unknown_ones() -> None:
    async with registered() as (_, _, line):
        everything = await line.call("GetConfiguration")
        assert await line.call("GetConfiguration", {"key": []}) == everything
        some = await line.call("GetConfiguration", {"key": ["geolocation", "Nonsense"]})
        assert [one["key"] for one in some["configurationKey"]] == ["Geolocation"]
        assert some["unknownKey"] == ["Nonsense"]


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("[52.09,5.12]", "Accepted"), ("[ -90 , 180 ]", "Accepted"), ("[1.5,+2]", "Accepted"), ("[90.1,0]", "Rejected"), ("[0,-180.5]", "Rejected"),
        ("52.09,5.12", "Rejected"), ("[52.09]", "Rejected"), ("[a,b]", "Rejected"), ("[1,2,3]", "Rejected"),
        ("", "Rejected"), ("[1e1,2]", "Rejected"),
    ],
)  # fmt: skip
async def test_S8_geolocation(value: str, answer: str) -> None:
    async with registered() as (_, _, line):
        assert await set_key(line, "Geolocation", value) == answer


async def test_S8_a_new_place_takes_effect_at_once() -> None:
    clock = at("2026-06-01T20:30:00")  # the sun is down in Utrecht (22:30), up in New York
    async with central() as office:
        keep_time(office, clock)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            night = profile()
            night["daySchedule"] = [{"start": {"kind": "Sunset", "offset": 0}, "end": {"kind": "Sunrise", "offset": 0}}]
            assert await status(line, "SetStreetlightProfile", profiles(1, night)) == "Accepted"
            assert (await line.asked(LIGHT))["status"] == "On"
            assert await set_key(line, "Geolocation", "[40.7,-74.0]") == "Accepted"
            assert (await line.asked(LIGHT))["status"] == "Off"


async def test_S9_sunrise_and_sunset_of_today() -> None:
    clock = at("2026-06-01T10:00:00")
    async with central() as office:
        keep_time(office, clock)
        async with running(office.url, clock=clock):
            line = await office.line()
            await line.asked("BootNotification")
            rise, fall = await key(line, "Sunrise"), await key(line, "Sunset")
            assert rise.endswith("Z")
            # Utrecht, by the almanac: 05:25 and 21:51 of local summer time.
            assert abs(moment(rise) - datetime(2026, 6, 1, 3, 25, tzinfo=UTC).timestamp()) < 120
            assert abs(moment(fall) - datetime(2026, 6, 1, 19, 50, tzinfo=UTC).timestamp()) < 120
            await set_key(line, "Geolocation", "[80,20]")
            assert await key(line, "Sunset") is None, "the sun does not set there"


async def test_S10_the_greatest_stack_level() -> None:
    async with registered() as (_, _, line):
        assert await key(line, "StreetlightProfileMaxStackLevel") == "16"
        assert await status(line, "SetStreetlightProfile", profiles(1, profile(1, 17))) == "Rejected"
        assert await set_key(line, "StreetlightProfileMaxStackLevel", "-1") == "Rejected"
        assert await set_key(line, "StreetlightProfileMaxStackLevel", "17") == "Accepted"
        assert await status(line, "SetStreetlightProfile", profiles(1, profile(1, 17))) == "Accepted"
        assert await set_key(line, "StreetlightProfileMaxStackLevel", "3") == "Rejected", "a profile is above"


async def test_S11_what_is_cleared() -> None:
    async with registered() as (_, station, line):

        async def left(message: Any, answer: str = "Accepted") -> set[tuple[int, int]]:
            station.vault.commit(profiles=())
            for contactor in (1, 2):
                both = profiles(contactor, profile(1, 1), profile(2, 2))
                assert await status(line, "SetStreetlightProfile", both) == "Accepted"
            assert await status(line, "ClearSingleStreetlightProfile", message) == answer
            return {(one.contactor, one.id) for one in station.vault.state.profiles}

        every = {(1, 1), (1, 2), (2, 1), (2, 2)}
        assert await left({"profileId": 1}) == {(1, 2), (2, 2)}
        assert await left({"contactorId": 1, "profileId": 1}) == every - {(1, 1)}
        assert await left({"contactorId": 2, "stackLevel": 2}) == every - {(2, 2)}
        assert await left({"contactorId": 1}) == {(2, 1), (2, 2)}
        assert await left({}) == set()
        assert await left({"profileId": 7}, "Unknown") == every


async def test_S12_profile_and_stack_level_both() -> None:
    async with registered() as (_, station, line):
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 5), profile(2, 6)))
        assert await status(line, "ClearSingleStreetlightProfile", {"profileId": 1, "stackLevel": 6}) == "Rejected"
        assert len(station.vault.state.profiles) == 2
        assert await status(line, "ClearSingleStreetlightProfile", {"profileId": 1, "stackLevel": 5}) == "Accepted"
        assert await status(line, "ClearSingleStreetlightProfile", {"profileId": 1}) == "Unknown"
    async with registered(strict=True) as (_, _, line):
        assert (await refused(line, "ClearSingleStreetlightProfile", {"profileId": 1, "stackLevel": 5})).code == "PropertyConstraintViolation"


async def test_S13_an_override_holds_until_resume_and_suspend_keeps_the_state() -> None:
    async with registered() as (office, _, line):
        await line.call("SetStreetlightProfile", profiles())
        assert (await line.asked(LIGHT))["status"] == "On"
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "Suspend"})
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("12:00:00", "12:00:00")), clearAllSchedules=True))
        assert await line.quiet(LIGHT), "the light stays as it is"
        assert len(office.all(LIGHT)) == 1
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "Off"})
        assert (await line.asked(LIGHT))["status"] == "Off"
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
        assert (await line.asked(LIGHT))["status"] == "On"
        await line.call("ResumeStreetlight", {"contactorId": 1})
        assert (await line.asked(LIGHT))["status"] == "Off"


async def test_S14_local_override_rejects() -> None:
    async with registered() as (_, station, line):
        simulated(station).turn(True)
        await line.asked(MODE)
        assert await status(line, "OverrideStreetlight", {"contactorId": 1, "action": "Off"}) == "RejectedLocalOverride"
        assert await status(line, "ResumeStreetlight", {}) == "RejectedLocalOverride"
        assert station.contactors.lamp(1).remote is None


async def test_S15_override_and_resume_are_told_even_if_the_mode_was_that_already() -> None:
    async with registered() as (_, _, line):
        for action in ("On", "Off"):
            await line.call("OverrideStreetlight", {"contactorId": 1, "action": action})
            assert (await line.asked(MODE))["mode"] == "RemoteOverride"
        for _ in range(2):
            await line.call("ResumeStreetlight", {"contactorId": 1})
            assert (await line.asked(MODE))["mode"] == "Schedule"


async def test_S16_without_a_contactor_all_are_meant() -> None:
    async with registered() as (_, _, line):
        await line.call("OverrideStreetlight", {"action": "On"})
        assert {(await line.asked(LIGHT))["contactorId"] for _ in range(2)} == {1, 2}
        await line.call("ResumeStreetlight")
        assert {(await line.asked(LIGHT))["status"] for _ in range(2)} == {"Off"}


async def test_S17_a_remote_override_survives_and_comes_back_after_a_local_one(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "On"})
        await line.asked(MODE)
        await line.call("Reset")
        await line.gone()
        line = await office.line()
        await office.until(lambda: station.registered)
        assert station.contactors.lamp(1).remote == "On"
        simulated(station).turn(False)
        assert {(await line.asked(MODE))["mode"] for _ in range(2)} == {"LocalOverride"}
        simulated(station).turn(None)
        assert {(one["contactorId"], one["mode"]) for one in [await line.asked(MODE) for _ in range(2)]} == {(1, "RemoteOverride"), (2, "Schedule")}
        await office.until(lambda: simulated(station).closed[1])


async def test_S18_resume_applies_the_schedule_at_once() -> None:
    async with registered() as (_, _, line):
        await line.call("OverrideStreetlight", {"contactorId": 1, "action": "Off"})
        await line.call("SetStreetlightProfile", profiles())
        assert await line.quiet(LIGHT)
        await line.call("ResumeStreetlight", {"contactorId": 1})
        assert (await line.asked(LIGHT, 1))["status"] == "On"


async def test_S19_reset_is_answered_before_it_happens() -> None:
    done: list[str] = []

    class Board(Driver):
        async def reset(self) -> None:
            done.append("reset")

    async with registered(driver=Board()) as (office, station, line):
        assert await status(line, "Reset", {"type": "Soft"}) == "Accepted"
        assert await line.gone() == 1001
        await office.line()
        assert done == ["reset"]
        await office.until(lambda: station.registered)


async def test_S20_S22_a_test_shows_every_indicator_until_the_reset() -> None:
    async with registered() as (_, station, line):
        assert await status(line, "TestMVFaultIndicator") == "Accepted"
        told = [await line.asked("StatusNotification") for _ in range(3)]
        assert [one["errorCode"] for one in told].count("OverCurrentFailure") == 2
        assert all(one["test"] is True for one in told)
        assert await line.quiet("StatusNotification"), "it stays"
        assert station.faults.indicated()


async def test_S20_a_broken_indicator() -> None:
    async with registered() as (_, station, line):
        simulated(station).stand(Fault("MVFaultIndicatorError", "group 2"))
        assert (await line.asked("StatusNotification"))["errorCode"] == "MVFaultIndicatorError"


async def test_S21_a_test_is_rejected() -> None:
    async with registered(driver=Driver()) as (_, _, line):
        assert await status(line, "TestMVFaultIndicator") == "Rejected"
    async with registered() as (_, station, line):
        assert await status(line, "TestMVFaultIndicator") == "Accepted"
        assert await status(line, "TestMVFaultIndicator") == "RejectedAlreadyFaulted"
        await line.asked("StatusNotification")
        await line.call("ResetMVFaultIndicator")
        await asyncio.sleep(0.1)
        simulated(station).stand(Fault("GroundFailure", "group 1"))
        await asyncio.sleep(0.1)
        assert await status(line, "TestMVFaultIndicator") == "RejectedAlreadyFaulted"


async def test_S23_reset_of_a_fault_whose_cause_is_still_there() -> None:
    async with registered(driver=Driver()) as (_, _, line):
        assert await status(line, "ResetMVFaultIndicator") == "Rejected"
    async with registered() as (_, station, line):
        simulated(station).stand(Fault("GroundFailure", "group 1"))
        assert (await line.asked("StatusNotification"))["errorCode"] == "GroundFailure"
        assert await status(line, "ResetMVFaultIndicator") == "Accepted"
        again = await line.asked("StatusNotification")
        assert (again["errorCode"], again["status"]) == ("GroundFailure", "Faulted")


async def test_S24_a_successful_reset_is_told_by_the_fixed_texts() -> None:
    async with registered() as (_, _, line):
        await line.call("TestMVFaultIndicator")
        for _ in range(3):
            await line.asked("StatusNotification")
        await line.call("ResetMVFaultIndicator")
        told = [await line.asked("StatusNotification") for _ in range(3)]
        assert {one["errorCode"] for one in told} == {"NoError"}
        assert all(one["test"] for one in told)
        assert {"Over current error (MV) resolved", "Ground failure resolved"} <= {one["info"] for one in told}
        assert told[-1]["status"] == "Ok"


async def test_S25_get_file_uploads_what_it_names(tmp_path: Path) -> None:
    async with registered(keys={"MeterValuesInterval": "1"}) as (_, _, line), served(tmp_path) as where:
        await line.asked("MeterValues")
        for kind, word in (("Syslog", "connected"), ("MeterValueHistory", "Voltage.L1N"), ("VendorSpecific", "kVA")):
            answer = await line.call("GetFile", {"fileType": kind, "location": where})
            assert answer["status"] == "Accepted"
            while (await line.asked("GetFileStatusNotification"))["status"] != "Uploaded":
                pass
            assert word in (tmp_path / answer["fileName"]).read_text()
        for wrong in ({"location": "gopher://h/x"}, {"startTime": "2026-01-02T00:00:00Z", "stopTime": "2026-01-01T00:00:00Z"}):
            answer = await line.call("GetFile", {"fileType": "Syslog", "location": where} | wrong)
            assert answer == {"status": "Rejected", "fileName": ""}


async def test_S25_a_period_is_cut_out(tmp_path: Path) -> None:
    async with registered(keys={"MeterValuesInterval": "1"}) as (_, station, line), served(tmp_path) as where:
        await line.asked("MeterValues")
        later = rfc3339(station.now() + 3_600_000_000)
        answer = await line.call("GetFile", {"fileType": "MeterValueHistory", "location": where, "startTime": later})
        while (await line.asked("GetFileStatusNotification"))["status"] != "Uploaded":
            pass
        assert (tmp_path / answer["fileName"]).read_text() == "timestamp,measurand,value,unit,location\n"


async def test_S26_update_firmware_tells_every_status(tmp_path: Path) -> None:
    image = b"firmware" * 1000
    (tmp_path / "fw-3.2.1.bin").write_bytes(image)
    async with registered() as (office, station, line), served(tmp_path) as where:
        due = datetime.now(UTC) + timedelta(seconds=0.7)
        location = f"{where}/fw-3.2.1.bin#sha256={hashlib.sha256(image).hexdigest()}&size={len(image)}"
        assert await line.call("UpdateFirmware", {"retrieveDate": due.isoformat(), "location": location}) == {}
        assert await line.quiet("FirmwareStatusNotification", seconds=0.4), "not before its time"
        told = [(await line.asked("FirmwareStatusNotification"))["status"] for _ in range(3)]
        assert told == ["Downloading", "Downloaded", "Installing"]
        assert await status(line, "TriggerMessage", {"requestedMessage": "FirmwareStatusNotification"}) == "Accepted"
        assert (await line.asked("FirmwareStatusNotification"))["status"] == "Installing"
        second = await office.line()
        assert (await second.asked("FirmwareStatusNotification"))["status"] == "Installed"
        assert station.driver.identity().firmwareVersion == "3.2.1"


async def test_S26_retries_and_failure(tmp_path: Path) -> None:
    clock = Clock(20)
    async with central() as office, served(tmp_path) as where:
        keep_time(office, clock)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            payload = {"retrieveDate": office.time(), "location": f"{where}/none", "retries": 3, "retryInterval": 4}
            before = clock.monotonic()
            await line.call("UpdateFirmware", payload)
            told = [(await line.asked("FirmwareStatusNotification"))["status"] for _ in range(4)]
            assert told == ["Downloading"] * 3 + ["DownloadFailed"]
            assert clock.monotonic() - before > 8


# ====================================================================================================================== L


async def effective(line: Line, day: str, contactor: int = 1) -> list[tuple[str, str]]:
    answer = await line.call("GetEffectiveStreetlightDaySchedule", {"contactorId": contactor, "at": day})
    assert answer["contactorId"] == contactor
    return [(one["start"], one["end"]) for one in answer["daySchedule"]]


async def test_L1_a_schedule_day_begins_at_noon() -> None:
    clock = at("2026-06-02T09:00:00")  # 11:00 in Amsterdam: still the schedule day of 1 June
    async with central() as office:
        keep_time(office, clock)
        async with running(office.url, clock=clock) as station:
            line = await office.line()
            await office.until(lambda: station.registered)
            one_day = profile(recurrencyKind="None", validFrom="2026-06-01T00:00:00")
            assert await status(line, "SetStreetlightProfile", profiles(1, one_day)) == "Accepted"
            assert (await line.asked(LIGHT))["status"] == "On"
            assert await effective(line, "2026-06-01T00:00:00") == [("12:00:00", "11:59:59")]
            assert await effective(line, "2026-06-02T00:00:00") == []


async def test_L2_clear_all_schedules_erases_this_contactor_only_and_atomically() -> None:
    async with registered() as (_, station, line):
        for contactor in (1, 2):
            await line.call("SetStreetlightProfile", profiles(contactor, profile(1, 1)))
        bad = profiles(1, profile(2, 1), profile(3, 1), clearAllSchedules=True)
        assert await status(line, "SetStreetlightProfile", bad) == "Rejected"
        assert {(one.contactor, one.id) for one in station.vault.state.profiles} == {(1, 1), (2, 1)}
        assert await status(line, "SetStreetlightProfile", profiles(1, profile(2, 1), clearAllSchedules=True)) == "Accepted"
        assert {(one.contactor, one.id) for one in station.vault.state.profiles} == {(1, 2), (2, 1)}
        assert await status(line, "SetStreetlightProfile", {**profiles(1, profile(4, 1)), "clearSchedule": True}) == "Accepted", "I1"
        assert {(one.contactor, one.id) for one in station.vault.state.profiles} == {(1, 4), (2, 1)}
        both = {**profiles(1, profile(5, 5)), "clearSchedule": True, "clearAllSchedules": False}
        assert await status(line, "SetStreetlightProfile", both) == "Rejected", "I1"


async def test_L3_at_least_one_profile_and_one_to_four_periods() -> None:
    async with registered() as (_, _, line):
        assert (await refused(line, "SetStreetlightProfile", profiles() | {"streetlightProfiles": []})).code == "OccurenceConstraintViolation"
        for count in (0, 5):
            broken = profile() | {"daySchedule": profile()["daySchedule"] * count}
            assert (await refused(line, "SetStreetlightProfile", profiles(1, broken))).code == "OccurenceConstraintViolation"


async def test_L4_stack_levels_are_unique_and_the_higher_one_wins() -> None:
    async with registered() as (_, _, line):
        evening, night = profile(1, 1, ("20:00:00", "22:00:00")), profile(2, 3, ("23:00:00", "01:00:00"))
        assert await status(line, "SetStreetlightProfile", profiles(1, evening, night)) == "Accepted"
        assert await effective(line, "2026-06-01T00:00:00") == [("23:00:00", "01:00:00")]
        assert await status(line, "SetStreetlightProfile", profiles(1, profile(3, 3))) == "Rejected"


async def test_L5_an_existing_profile_is_replaced() -> None:
    async with registered() as (_, _, line):
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("20:00:00", "22:00:00"))))
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("21:00:00", "22:00:00"))))
        assert await effective(line, "2026-06-01T00:00:00") == [("21:00:00", "22:00:00")]
        assert await status(line, "SetStreetlightProfile", profiles(1, profile(7, 7), profile(7, 8))) == "Rejected"


async def test_L6_L7_validity_is_by_date_and_inclusive() -> None:
    async with registered() as (_, _, line):
        weekly = profile(recurrencyKind="Weekly", validFrom="2026-06-03T23:59:59Z", validTo="2026-06-17T00:00:00")
        assert await status(line, "SetStreetlightProfile", profiles(1, weekly)) == "Accepted"
        lit = [day for day in range(1, 30) if await effective(line, f"2026-06-{day:02}T00:00:00")]
        assert lit == [3, 10, 17]


async def test_L8_recurrence() -> None:
    async with registered() as (_, _, line):
        for kind in ("None", "Weekly"):
            assert await status(line, "SetStreetlightProfile", profiles(1, profile(recurrencyKind=kind))) == "Rejected"
        once = profile(recurrencyKind="None", validFrom="2026-06-03T00:00:00", validTo="2026-06-20T00:00:00")
        await line.call("SetStreetlightProfile", profiles(1, once))
        assert [day for day in range(1, 9) if await effective(line, f"2026-06-{day:02}T00:00:00")] == [3]
        await line.call("SetStreetlightProfile", profiles(1, profile()))
        assert await effective(line, "2031-01-01T00:00:00")


async def test_L9_bounds() -> None:
    async with registered() as (_, _, line):

        def period(start: dict[str, Any]) -> dict[str, Any]:
            return profile() | {"daySchedule": [{"start": start, "end": {"kind": "Absolute", "time": "11:59:59.999"}}]}

        assert await status(line, "SetStreetlightProfile", profiles(1, period({"kind": "Absolute", "time": "20:00:00.250"}))) == "Accepted"
        assert await effective(line, "2026-06-01T00:00:00") == [("20:00:00.250", "11:59:59")]
        for wrong in ({"kind": "Absolute"}, {"kind": "Sunset"}, {"kind": "Absolute", "time": "24:00:00"}, {"kind": "Absolute", "time": "8:00"}):
            assert await status(line, "SetStreetlightProfile", profiles(1, period(wrong))) == "Rejected"
        assert (
            await refused(line, "SetStreetlightProfile", profiles(1, period({"kind": "Sunset", "offset": 86401})))
        ).code == "PropertyConstraintViolation"


async def test_L10_the_sun_of_each_day() -> None:
    async with registered() as (_, _, line):
        night = profile()
        night["daySchedule"] = [{"start": {"kind": "Sunset", "offset": -600}, "end": {"kind": "Sunrise", "offset": 600}}]
        await line.call("SetStreetlightProfile", profiles(1, night))
        ((summer, _),) = await effective(line, "2026-06-21T00:00:00")
        ((winter, _),) = await effective(line, "2026-12-21T00:00:00")
        assert summer.startswith("21:5"), "sunset 22:04 by the almanac"
        assert winter.startswith(("16:1", "16:2")), "sunset 16:29"


async def test_L11_an_end_that_is_not_after_the_start() -> None:
    async with registered() as (_, _, line):
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("22:00:00", "20:00:00"), ("01:00:00", "01:00:00"))))
        assert await effective(line, "2026-06-01T00:00:00") == []


async def test_L12_only_the_date_of_at_counts() -> None:
    async with registered() as (_, _, line):
        once = profile(recurrencyKind="None", validFrom="2026-06-03T00:00:00")
        await line.call("SetStreetlightProfile", profiles(1, once))
        for text in ("2026-06-03T00:00:00", "2026-06-03T23:00:00", "2026-06-03T23:59:59-11:00", "2026-06-03"):
            assert await effective(line, text)
        assert (await refused(line, "GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": "tomorrow"})).code == "PropertyConstraintViolation"
        assert (
            await refused(line, "GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": "0001-01-01"})
        ).code == "PropertyConstraintViolation"


async def test_L14_wholly_or_not_at_all_and_off_without_a_profile() -> None:
    async with registered() as (_, station, line):
        half = profiles(1, profile(1, 1), profile(2, 2, ("20:00:00", "nonsense")))
        assert await status(line, "SetStreetlightProfile", half) == "Rejected"
        assert station.vault.state.profiles == ()
        assert await effective(line, "2026-06-01T00:00:00") == []
        assert simulated(station).closed == {1: False, 2: False}


async def test_L15_profiles_survive_a_power_loss(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        await line.call("SetStreetlightProfile", profiles(1, profile(1, 1, ("20:00:00", "22:00:00"))))
        station.vault.close()  # what a power loss leaves is on disk; test_state kills at each step
        async with running(office.url, folder=tmp_path):
            assert await effective(await office.line(), "2026-06-01T00:00:00") == [("20:00:00", "22:00:00")]
