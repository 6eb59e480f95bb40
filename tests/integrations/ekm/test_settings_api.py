"""``POST /sendCommand`` over real sockets: who may, what is refused in which words, what becomes an order, and what comes back on the channel."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integrations.ekm.front import IOSTACK, MAC, METER, OLD_METER, OTHERS_METER, RELAY, Front, front

from gridloom.core.errors import DeviceError, DeviceTimeout, InvalidInput, Unsupported
from gridloom.core.model import Command, Role
from gridloom.core.verbs import TABLE, validate
from gridloom.integrations.ekm import orders
from gridloom.integrations.ekm.messages import COMMANDS

UNKNOWN = {"error": "unknown target: there is no such device for this key"}
PARIS = ZoneInfo("Europe/Paris")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Front]:
    async with front(tmp_path) as made:
        yield made


# ------------------------------------------------------------------------------------------------------------ the whole way


async def test_the_example_of_the_document(hub: Front) -> None:
    status, accepted = await hub.order("SetRelay", RELAY)
    assert status == 200
    assert re.fullmatch(r"[0-9a-f]{32}", accepted["msg_id"])
    assert accepted["response_channel_id"].startswith("response_")
    assert accepted["response_channel_host"] == hub.push
    message = await hub.response(accepted)
    assert (message["success"], message["error"], message["data"]) == (True, None, None)
    assert list(message) == ["msg_id", "timestamp", "success", "error", "data"]
    assert abs(message["timestamp"] - hub.world.clock.now() / 1e6) < 30
    (command,) = hub.done
    assert (command.device, command.verb, command.client) == (f"ekm:{METER}", "relay.set", "tests")
    assert command.arguments == {"relay": 1, "state": "closed", "duration_s": 1, "password": "00000000"}


async def test_the_very_request_of_the_document_by_curl(hub: Front) -> None:
    body = (
        '{"command": "SetRelay", "params": {"duration": 1, "meter_password": "00000000", "relay": "Relay_1", "status": "close"}, '
        f'"target": "meter", "target_id": "{METER}"}}'
    )
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-i", "-X", "POST", f"{hub.url}/sendCommand?key={hub.keys['anna']}", "-H", "Accept: application/json", "-H",
        "Content-Type: application/json", "-H", f"Authorization: Bearer {hub.tokens['anna']}", "--data-raw", body, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out = (await process.communicate())[0].decode()
    assert out.startswith("HTTP/1.1 200 OK\r\n")
    assert "content-type: application/json" in out.lower()
    accepted = json.loads(out.partition("\r\n\r\n")[2])
    assert sorted(accepted) == ["msg_id", "response_channel_host", "response_channel_id"]
    assert (await hub.response(accepted))["success"] is True


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DeviceError("meter 000350000900: the password was not accepted"), "meter 000350000900: the password was not accepted"),
        (DeviceTimeout("meter 000350000900: no answer"), "meter 000350000900: no answer"),
        (Unsupported("not available for this device"), "not available for this device"),
    ],
)
async def test_a_refusal_of_the_meter_comes_on_the_channel(hub: Front, error: Exception, words: str) -> None:
    async def refuse(command: Command) -> Any:
        raise error

    hub.carry_out = refuse
    status, accepted = await hub.order("SetRelay", RELAY)
    assert status == 200, "sent is all that the answer says"
    message = await hub.response(accepted)
    assert (message["success"], message["error"], message["data"]) == (False, words, None)


@pytest.mark.parametrize(
    ("target", "id", "command"),
    [
        ("meter", METER, "GetSchedules"),
        ("meter", METER, "GetTariffData"),
        ("iostack", IOSTACK, "GetStatus"),
        ("iostack", IOSTACK, "ScanOneWire"),
        ("gateway", MAC, "GetStatus"),
    ],
)
async def test_data_is_what_the_device_said(hub: Front, target: str, id: str, command: str) -> None:
    data = {"Schedule_1_Period_1_Hour": 7, "list": [1, 2.5, None]}

    async def tell(_: Command) -> Any:
        return data

    hub.carry_out = tell
    _, accepted = await hub.order(command, target=target, id=id)
    assert (await hub.response(accepted))["data"] == data


async def test_a_command_without_a_value_has_no_data(hub: Front) -> None:
    async def tell(_: Command) -> Any:
        return {"internal": 1}

    hub.carry_out = tell
    _, accepted = await hub.order("SetZeroResettableKWH")
    assert (await hub.response(accepted))["data"] is None


async def test_an_order_for_a_device_that_is_away_waits_for_it(hub: Front) -> None:
    link = hub.world.registry.link(f"ekm:{METER}")
    assert link is not None
    link.offline("unplugged")
    status, accepted = await hub.order("SetRelay", RELAY)
    assert (status, hub.done) == (200, [])
    link.online()
    assert (await hub.response(accepted))["success"] is True


# ----------------------------------------------------------------------------------------------------------------- who may


async def test_who_has_no_valid_token_gets_401(hub: Front) -> None:
    for token in (None, "XZTdu8_5iw62WQuDg4OHIMhG7mcEqJu8VrzHSywCkPk", "-"):
        status, answer = await hub.order("SetRelay", RELAY, token=token)
        assert status == 401, token
        assert "token" in answer["error"]
    status, _ = await hub.post(None, token=None, content=b"{")
    assert status == 401, "strangers learn nothing about their body"
    assert hub.done == []


async def test_a_key_in_the_body_will_do_and_one_in_the_query_wins(hub: Front) -> None:
    body = {"command": "SetRelay", "target": "meter", "target_id": METER, "params": RELAY}
    assert (await hub.post({**body, "key": hub.keys["anna"]}, key=None))[0] == 200
    assert await hub.post({**body, "key": hub.keys["anna"]}, key="bert") == (400, UNKNOWN)
    status, answer = await hub.post(body, key=None)
    assert status == 400
    assert answer["error"].startswith("key: is missing")


@pytest.mark.parametrize(
    ("token", "key", "id", "status"),
    [
        ("anna", "anna", METER, 200),
        ("anna", "anna", OTHERS_METER, 400),
        ("anna", "bert", OTHERS_METER, 400),
        ("anna", "bert", METER, 400),
        ("anna", "nonsense", METER, 400),
        ("group", "anna", METER, 200),
        ("group", "bert", OTHERS_METER, 200),
        ("group", "bert", METER, 400),
        ("admin", "anna", METER, 200),
        ("admin", "bert", METER, 400),
        ("viewer", "anna", METER, 403),
        ("anna", "anna", "999", 400),
    ],
)
async def test_token_and_key_must_both_fit(hub: Front, token: str, key: str, id: str, status: int) -> None:
    hub.tokens["admin"] = (await hub.world.accounts.create_token(None, account="admin", role=Role.ADMIN))[1]
    found, answer = await hub.order("SetRelay", RELAY, token=token, key=key, id=id)
    assert found == status, answer
    if status == 400:
        assert answer == UNKNOWN, "a device of somebody else does not exist"
    if status == 200:
        await hub.response(answer)
    assert len(hub.done) == (status == 200)


async def test_a_gateway_key_is_good_for_the_devices_of_its_gateway(hub: Front) -> None:
    _, hub.keys["here"] = await hub.face.keys.create(hub.world.admin, "anna@example.org", mac=MAC)
    _, hub.keys["there"] = await hub.face.keys.create(hub.world.admin, "anna@example.org", mac="00:11:22:33:44:55")
    assert (await hub.order("SetRelay", RELAY, key="here"))[0] == 400, "no gateway is named for the meter"
    device = hub.world.registry.get(f"ekm:{METER}")
    await hub.world.registry.register(msgspec.structs.replace(device, attributes={**device.attributes, "gateway": MAC}))
    assert (await hub.order("SetRelay", RELAY, key="here"))[0] == 200
    assert await hub.order("SetRelay", RELAY, key="there") == (400, UNKNOWN)
    assert (await hub.order("GetStatus", target="gateway", id="99:5d:ad:42:76:14", key="here"))[0] == 200


async def test_older_generations_only_where_they_are_admitted(tmp_path: Path) -> None:
    async with front(tmp_path, require_token=False, gateway_mac=MAC) as hub:
        assert (await hub.order("SetRelay", RELAY, token=None))[0] == 200, "a key alone"
        assert (await hub.order("SetRelay", RELAY, token=None, gateway=MAC))[0] == 200, "account key and gateway"
        assert await hub.order("SetRelay", RELAY, token=None, gateway="001122334455") == (400, UNKNOWN)
        assert await hub.order("SetRelay", RELAY, token=None, key="bert") == (400, UNKNOWN)
        status, answer = await hub.order("SetRelay", RELAY, token=None, key="nonsense")
        assert status == 401
        assert "valid key" in answer["error"]
        assert (await hub.order("SetRelay", RELAY))[0] == 200, "a token is still good"


async def test_addresses_with_and_without_leading_zeros(hub: Front) -> None:
    _, accepted = await hub.order("SetRelay", RELAY, id=METER.lstrip("0"))
    await hub.response(accepted)
    assert hub.done[0].device == f"ekm:{METER}"


# ----------------------------------------------------------------------------------------------------------------- channels


async def test_the_channel_is_unguessable_holds_no_key_and_stays(hub: Front) -> None:
    _, first = await hub.order("SetRelay", RELAY)
    _, second = await hub.order("SetRelay", RELAY)
    channel = first["response_channel_id"]
    assert second["response_channel_id"] == channel, "who listens already need not listen anew"
    raw = base64.urlsafe_b64decode(channel.removeprefix("response_") + "=")
    assert len(raw) == 32
    key = base64.urlsafe_b64decode(hub.keys["anna"] + "==")
    assert not any(part in raw for part in key.split(b":"))
    _, own = await hub.post({"command": "SetRelay", "target": "meter", "target_id": METER, "params": RELAY, "response_channel_id": "mine"})
    assert own["response_channel_id"] not in ("mine", channel)
    _, again = await hub.post(
        {"command": "SetRelay", "target": "meter", "target_id": METER, "params": RELAY, "response_channel_id": own["response_channel_id"]}
    )
    assert again["response_channel_id"] == own["response_channel_id"]
    body = {"command": "SetRelay", "target": "meter", "target_id": OTHERS_METER, "params": RELAY, "response_channel_id": channel}
    _, stolen = await hub.post(body, token="bert", key="bert")
    assert stolen["response_channel_id"] != channel, "nobody answers into somebody else's channel"


async def test_the_host_is_the_configured_one(tmp_path: Path) -> None:
    async with front(tmp_path, push_host="push.example.org") as hub:
        assert (await hub.order("SetRelay", RELAY))[1]["response_channel_host"] == "push.example.org"


# ----------------------------------------------------------------------------------------------------------------- refusals

GOOD: dict[tuple[str, str], dict[str, Any]] = {
    ("meter", "SetMeterPassword"): {"new_password": "12345678"},
    ("meter", "SetCTRatio"): {"ct_ratio": "200"},
    ("meter", "SetTime"): {"year": "2026", "month": "11", "day": "21", "hour": "05", "minutes": "06", "seconds": "07"},
    ("meter", "SetMaxDemandResetInterval"): {"interval": 1},
    ("meter", "SetMaxDemandResetNow"): {},
    ("meter", "SetMaxDemandPeriod"): {"max_demand_period": 4},
    ("meter", "SetLCD"): {"display_fields": ["kWh_Tot", 12, "47"]},
    ("meter", "SetPulseInputRatio"): {"pulse_line": 1, "pulse_input_ratio": 55},
    ("meter", "SetPulseOutputRatio"): {"pulse_line": 1, "pulse_output_ratio": 40},
    ("meter", "SetZeroResettableKWH"): {},
    ("meter", "SetRelay"): {"relay": "relay_2", "status": "closed", "duration": 0},
    ("meter", "SetHolidayDates"): {"Holiday_1_Month": 12, "Holiday_1_Day": 25, "Holiday_20_Month": 1, "Holiday_20_Day": 1},
    ("meter", "SetSchedule"): {"Schedule": 6, "Hour_1": 0, "Min_1": 0, "Tariff_1": 1, "Hour_2": 7, "Min_2": 30, "Tariff_2": 2},
    ("meter", "SetSeasonSchedules"): {"Season_1_Start_Month": 1, "Season_1_Start_Day": 1, "Season_1_Schedule": 2},
    ("meter", "SetWeekendHolidaySchedules"): {"weekend_schedule": 1, "holiday_schedule": 2},
    ("meter", "GetSchedules"): {},
    ("meter", "GetTariffData"): {},
    ("iostack", "SetPassword"): {"new_password": "new", "password": "old"},
    ("iostack", "ScanOneWire"): {},
    ("iostack", "GetStatus"): {},
    ("iostack", "SetDateTime"): {"year": 2026, "month": 11, "day": 21, "hour": 5, "minutes": 6, "seconds": 7},
    ("iostack", "ResetDICount"): {"pin": 4},
    ("iostack", "SetDOLevel"): {"pin": 1, "level": 1, "clear_watch": True, "password": "p"},
    ("gateway", "GetStatus"): {},
    ("gateway", "ScanMeters"): {"from": "299999999", "to": "000300000234"},
    ("gateway", "StopScan"): {},
    ("gateway", "SetPollInterval"): {"seconds": 60},
}  # fmt: skip


def test_every_command_has_an_example_here() -> None:
    assert set(GOOD) == {(target, command) for target, commands in COMMANDS.items() for command in commands}


@pytest.mark.parametrize(("target", "command"), sorted(GOOD))
def test_every_command_is_an_order_of_the_core(target: str, command: str) -> None:
    verb, arguments = orders.translate(target, command, GOOD[target, command], PARIS)
    validate(verb, arguments)
    if target == "meter" and "password" in TABLE[verb].arguments.__struct_fields__:
        assert arguments["password"] == "00000000", "the default"
        _, given = orders.translate(target, command, {**GOOD[target, command], "meter_password": "11112222"}, PARIS)
        assert given["password"] == "11112222"


def test_what_some_of_them_become() -> None:
    def arguments(command: str, target: str = "meter") -> dict[str, Any]:
        return orders.translate(target, command, GOOD[target, command], PARIS)[1]

    assert arguments("SetTime")["time"] == "2026-11-21T05:06:07+01:00"
    assert arguments("SetMaxDemandPeriod")["period_min"] == 60
    assert arguments("SetMaxDemandResetInterval")["interval"] == "monthly"
    assert arguments("SetLCD")["items"] == [1, 12, 47]
    assert arguments("SetHolidayDates")["dates"] == [{"month": 12, "day": 25}, {"month": 1, "day": 1}]
    assert arguments("SetSchedule")["periods"] == [{"hour": 0, "minute": 0, "tariff": 1}, {"hour": 7, "minute": 30, "tariff": 2}]
    assert arguments("SetRelay") == {"relay": 2, "state": "closed", "duration_s": 0, "password": "00000000"}
    assert arguments("SetPassword", "iostack") == {"new_password": "new", "password": "old"}
    assert arguments("SetDOLevel", "iostack") == {"pin": 1, "level": 1, "clear_watch": True, "password": "p"}


def test_holidays_are_at_least_one_date() -> None:
    with pytest.raises(InvalidInput) as raised:
        orders.translate("meter", "SetHolidayDates", {}, PARIS)
    assert orders.in_words(raised.value) == "params.Holiday_1_Month: is missing: there is at least one date"


@pytest.mark.parametrize(
    ("target", "command", "change", "words"),
    [
        ("meter", "SetRelay", {"relay": "Relay_3"}, "params.relay: expected Relay_1 or Relay_2, got 'Relay_3'"),
        ("meter", "SetRelay", {"relay": 1}, "params.relay: expected a string, got an integer"),
        ("meter", "SetRelay", {"status": "ajar"}, "params.status: expected open or close, got 'ajar'"),
        ("meter", "SetRelay", {"duration": 10_000}, "params.duration: expected an integer at least 0 and at most 9999, got 10000"),
        ("meter", "SetRelay", {"duration": "1"}, "params.duration: expected an integer, got a string"),
        ("meter", "SetRelay", {"duration": True}, "params.duration: expected an integer, got a boolean"),
        ("meter", "SetRelay", {"duration": None}, "params.duration: expected an integer, got null"),
        ("meter", "SetRelay", {"durration": 1}, 'params.durration: is not known here (did you mean "duration"?)'),
        ("meter", "SetRelay", {"meter_password": "1234"}, "params.meter_password: expected a string of 8 digits"),
        ("meter", "SetMeterPassword", {"new_password": "secret12"}, "params.new_password: expected a string of 8 digits"),
        ("meter", "SetCTRatio", {"ct_ratio": "250"}, "params.ct_ratio: expected one of 100, 200, 400, 600"),
        ("meter", "SetTime", {"month": "13"}, "params.month: expected 1 to 12, got 13"),
        ("meter", "SetTime", {"month": "2", "day": "30"}, "params.day: expected a day of 2026-02, got 30"),
        ("meter", "SetTime", {"month": "3", "day": "29", "hour": "2", "minutes": "30"}, "params.hour: there is no 2026-03-29 02:30 in Europe/Paris"),
        ("meter", "SetTime", {"year": "26x"}, "params.year"),
        ("meter", "SetMaxDemandResetInterval", {"interval": 5}, "params.interval: expected an integer at least 0 and at most 4, got 5"),
        ("meter", "SetMaxDemandPeriod", {"max_demand_period": 0}, "params.max_demand_period: expected an integer at least 1 and at most 4, got 0"),
        ("meter", "SetLCD", {"display_fields": ["kWh_Tott"]}, "params.display_fields[0]: expected the name of a field"),
        ("meter", "SetLCD", {"display_fields": []}, "params.display_fields"),
        ("meter", "SetLCD", {"display_fields": [1] * 41}, "params.display_fields"),
        ("meter", "SetLCD", {"display_fields": [46]}, "params.display_fields[0]"),
        ("meter", "SetPulseInputRatio", {"pulse_line": 4}, "params.pulse_line: expected an integer at least 1 and at most 3, got 4"),
        ("meter", "SetPulseOutputRatio", {"pulse_output_ratio": 1601}, "params.pulse_output_ratio"),
        ("meter", "SetHolidayDates", {"Holiday_2_Month": 5}, "params.Holiday_2_Day: is missing"),
        ("meter", "SetHolidayDates", {"Holiday_1_Month": 2, "Holiday_1_Day": 30}, "params.Holiday_1_Day: expected 1 to 29 in month 2, got 30"),
        ("meter", "SetHolidayDates", {"Holiday_20_Month": 4, "Holiday_20_Day": 31}, "params.Holiday_20_Day: expected 1 to 30 in month 4, got 31"),
        (
            "meter",
            "SetSeasonSchedules",
            {"Season_2_Start_Month": 11, "Season_2_Start_Day": 31, "Season_2_Schedule": 1},
            "params.Season_2_Start_Day: expected 1 to 30 in month 11, got 31",
        ),
        ("meter", "SetHolidayDates", {"Holiday_21_Month": 5}, "params.Holiday_21_Month: is not known here"),
        ("meter", "SetSchedule", {"Schedule": 7}, "params.Schedule: expected an integer at least 1 and at most 6, got 7"),
        ("meter", "SetSchedule", {"Hour_3": 24}, "params.Hour_3"),
        ("meter", "SetWeekendHolidaySchedules", {"holiday_schedule": 0}, "params.holiday_schedule"),
        ("iostack", "ResetDICount", {"pin": 5}, "params.pin: expected an integer at least 1 and at most 4, got 5"),
        ("iostack", "SetDOLevel", {"level": 2}, "params.level: expected an integer at least 0 and at most 1, got 2"),
        ("gateway", "ScanMeters", {"from": "9", "to": "8"}, "params.to: expected at least from (9), got 8"),
        ("gateway", "ScanMeters", {"from": "1", "to": "1000001"}, "params.to: expected at most 1000000 addresses from 1 on, got 1000001"),
        ("gateway", "ScanMeters", {"from": "1234567890123"}, "params.from: expected a string of 1 to 12 digits"),
        ("gateway", "SetPollInterval", {"seconds": 0}, "params.seconds: expected an integer at least 1 and at most 86400, got 0"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_named_with_what_is_allowed(target: str, command: str, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        orders.translate(target, command, {**GOOD[target, command], **change}, PARIS)
    said = orders.in_words(raised.value)
    assert words in said
    assert "secret12" not in said
    assert "1234" not in said or command != "SetRelay"


@pytest.mark.parametrize(("target", "command"), sorted(pair for pair, params in GOOD.items() if params))
def test_each_missing_parameter_is_named(target: str, command: str) -> None:
    optional = {"pulse_line", "clear_watch", "password"} if command != "SetPassword" else set()
    for name in GOOD[target, command]:
        if name in optional and command != "SetPulseInputRatio":
            continue
        params = {other: value for other, value in GOOD[target, command].items() if other != name}
        with pytest.raises(InvalidInput) as raised:
            orders.translate(target, command, params, PARIS)
        assert f"{name}: is missing" in orders.in_words(raised.value)


async def test_refusals_are_400_with_error(hub: Front) -> None:
    status, answer = await hub.order("SetRelay", {**RELAY, "duration": -1, "status": 5})
    assert status == 400
    assert "params.duration: expected an integer at least 0 and at most 9999, got -1" in answer["error"]
    assert "params.status: expected a string, got an integer" in answer["error"]
    status, answer = await hub.order("SetRely")
    assert (status, 'did you mean "SetRelay"?' in answer["error"]) == (400, True)
    status, answer = await hub.order("GetStatus", target="toaster")
    assert (status, answer["error"]) == (400, "target: expected one of meter, iostack, gateway, got 'toaster'")
    status, answer = await hub.order("SetRelay", RELAY, id=OLD_METER)
    assert status == 400
    assert "SetRelay is not for this model (Omnimeter v3)" in answer["error"]
    assert hub.done == []


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"1", b'{"command": 1}', b'{"command":"SetRelay"}', b"\xff\xfe", b"[" * 100_000,
        b'{"command":"SetRelay","target":"meter","target_id":"1","params":[]}',
    ],
)  # fmt: skip
async def test_a_body_that_is_none_is_400(hub: Front, content: bytes) -> None:
    status, answer = await hub.post(None, content=content)
    assert status == 400
    assert answer["error"]


async def test_a_body_that_is_too_large(hub: Front) -> None:
    status, answer = await hub.post(None, content=b'{"command":"' + b"x" * 2_000_000)
    assert status == 413
    assert answer["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
WORDS = st.sampled_from([command for commands in COMMANDS.values() for command in commands])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(COMMANDS)), WORDS | st.text(max_size=20), st.data())
def test_whatever_is_asked_it_is_translated_or_refused_in_words(target: str, command: str, data: st.DataObject) -> None:
    good = GOOD.get((target, command), {})
    names = st.sampled_from(sorted(good)) if good else st.text(max_size=8)
    params = {**good, **data.draw(st.dictionaries(names | st.text(max_size=8), JSON, max_size=3))}
    try:
        verb, arguments = orders.translate(target, command, params, PARIS)
    except InvalidInput as error:
        said = orders.in_words(error)
    else:
        validate(verb, arguments)
        said = verb
    assert said


async def test_fuzzed_requests_never_fail_inside(hub: Front) -> None:
    random = Random(7)
    body = json.dumps({"command": "SetRelay", "target": "meter", "target_id": METER, "params": RELAY}).encode()
    async with httpx.AsyncClient(base_url=hub.url, timeout=20, trust_env=False) as client:
        for _ in range(300):
            raw = bytearray(body)
            for _ in range(random.randint(1, 4)):
                raw[random.randrange(len(raw))] = random.randrange(256)
            headers = {"authorization": f"Bearer {hub.tokens['anna']}"}
            answer = await client.post("/sendCommand", params={"key": hub.keys["anna"]}, content=bytes(raw), headers=headers)
            assert answer.status_code in (200, 400), answer.text
            assert ("error" in answer.json()) is (answer.status_code == 400)


async def test_no_secret_is_in_what_is_kept_or_told(hub: Front, caplog: pytest.LogCaptureFixture) -> None:
    _, accepted = await hub.order("SetMeterPassword", {"new_password": "87654321", "meter_password": "12121212"})
    await hub.response(accepted)
    shown = await hub.world.commands.get(accepted["msg_id"], hub.world.admin)
    assert shown.arguments == {"new_password": "***", "password": "***"}
    lines = await hub.world.query.audit(hub.world.admin)
    text = repr(lines) + caplog.text
    assert "87654321" not in text
    assert "12121212" not in text
    assert hub.keys["anna"] not in text
    assert any(line.client == "tests" and line.action == "ekm.password.set" for line in lines.lines), "client goes to the audit trail"
