"""The three dialects against what was recorded (tests/data/tic/recorded), and their parts one by one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema_rs
import pytest
import yaml  # type: ignore[import-untyped]
from tests.integrations.tic.api_world import METER, ApiWorld, api_world, normalised

from gridloom.core.clock import Clock
from gridloom.integrations.tic.dialects import DIALECTS, Dialect, Version1, Version2
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import PortState, TicFrame, TicGroup, UsbInfo
from gridloom.integrations.tic.wire import FIELDS, REQUESTS, Identifier, Malformed, Request, Stream, parse

RECORDED = Path(__file__).parents[2] / "data" / "tic" / "recorded"
FRAMES = Path(__file__).parents[2] / "data" / "tic" / "frames"
PARIS = ZoneInfo("Europe/Paris")


def recorded(part: str) -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['from']}: {case.get('send') or case.get('frame') or case.get('error')}")
        for name in DIALECTS
        for case in json.loads((RECORDED / f"{name}.json").read_text())[part]
    ]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with api_world(tmp_path, clock=Clock(speed=20.0)) as made:
        yield made


@pytest.mark.parametrize(("dialect", "case"), recorded("exchanges"))
async def test_recorded_exchange(dialect: str, case: dict[str, Any], api: ApiWorld) -> None:
    async with api.client(f"/{dialect}") as client:
        await client.send(case["send"])
        if "frame" in case:
            while not api.service._reads:
                await client.nothing(0.01)
            await api.feed(api.frame(case["frame"]))
        answer = await client.hear()
        assert normalised(answer, dialect) == case["answer"]
        if not case.get("wait"):
            assert await client.nothing(0.02)


@pytest.mark.parametrize(("dialect", "case"), recorded("events"))
async def test_recorded_event(dialect: str, case: dict[str, Any], api: ApiWorld) -> None:
    async with api.client(f"/{dialect}") as client:
        assert await client.code("SubscribeTIC", {"portName": "/dev/ttyUSB0"}) == 0
        if "frame" in case:
            await api.feed(api.frame(case["frame"]))
        else:
            api.fail(case["error"])
        assert normalised(await client.hear(), dialect) == case["event"]
        assert await client.nothing(0.02)


async def test_members_stand_in_the_documents_order(api: ApiWorld) -> None:
    async with api.client("/document") as client:
        assert list(await client.request("SubscribeTIC")) == ["type", "name", "dateTime", "errorCode"]
        assert list(await client.request("GetAvailableTICs")) == ["type", "name", "dateTime", "errorCode", "data"]
        await api.feed()
        event = await client.hear()
        assert list(event) == ["type", "dateTime", "name", "data"]
        assert list(event["data"]) == ["mode", "captureDateTime", "ticIdentifier", "content"]


async def test_v2_is_laid_out_over_lines_and_the_others_on_one(api: ApiWorld) -> None:
    for dialect, lines in (("document", 1), ("v1", 1), ("v2", 6)):
        async with api.client(f"/{dialect}") as client:
            await client.send('{"type": "REQUEST", "name": "SubscribeTIC"}')
            text = await client.connection.recv()
            assert isinstance(text, str)
            assert len(text.splitlines()) == lines
            if dialect == "v2":
                assert text.startswith('{\n  "datetime": "')


# ----------------------------------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (1_795_212_985_723_272, "2026-11-20T23:16:25.723272"),
        (1_795_212_985_723_000, "2026-11-20T23:16:25.723"),
        (1_795_212_985_000_272, "2026-11-20T23:16:25.000272"),
        (1_795_212_985_000_000, "2026-11-20T23:16:25"),
        (1_795_212_960_000_000, "2026-11-20T23:16"),
        (1_795_212_960_500_000, "2026-11-20T23:16:00.500"),
        (1_795_215_600_000_000, "2026-11-21T00:00"),
    ],
)
def test_v2_prints_time_as_java_does(moment: int, shown: str) -> None:
    dialect = Version2(PARIS)
    assert dialect.time(moment) == shown
    assert dialect.time(moment) == shown, "also from memory"


@pytest.mark.parametrize("name", ["document", "v1"])
def test_time_is_the_hubs_local_time_over_the_change_of_clocks(name: str) -> None:
    dialect = DIALECTS[name](PARIS)
    before, change = 1_792_886_399_999_999, 1_792_886_400_000_000  # 25 October 2026, 03:00 CEST is 02:00 CET
    hour = 3_600_000_000
    assert [dialect.time(moment) for moment in (before - hour, before, change, change + hour)] == [
        "25/10/2026 00:59:59", "25/10/2026 01:59:59", "25/10/2026 02:00:00", "25/10/2026 02:00:00",
    ]  # fmt: skip
    assert DIALECTS[name](ZoneInfo("Indian/Reunion")).time(change) == "25/10/2026 04:00:00"


# ---------------------------------------------------------------------------------------------------------------------- groups


def test_of_a_label_that_came_twice_the_last_counts() -> None:
    groups = (TicGroup("URMS1", "230"), TicGroup("URMS1", "240"), TicGroup("URMS1", "999", valid=False))
    assert DIALECTS["document"](PARIS).groups(groups) == {"URMS1": "240"}
    assert DIALECTS["v2"](PARIS).groups(groups) == {"URMS1": "240", "!URMS1": "999"}


def test_values_are_handed_on_with_their_padding() -> None:
    groups = (TicGroup("NGTF", "      BASE      "), TicGroup("PJOURF+1", "00008001 NONUTILE"), TicGroup("LTARF", ""))
    for kind in DIALECTS.values():
        assert kind(PARIS).groups(groups) == {"NGTF": "      BASE      ", "PJOURF+1": "00008001 NONUTILE", "LTARF": ""}


def test_historic_mode_is_called_so() -> None:
    frame = TicFrame(Mode.HISTORIC, (TicGroup("ADCO", METER),), METER, "/dev/ttyUSB0", None, None, 0)
    assert DIALECTS["document"](PARIS).frame(frame, Stream(METER, "/dev/ttyUSB0", None, None))["mode"] == "HISTORIC"


def test_checksums_of_v1_are_those_of_captured_frames() -> None:
    """Group by group against the checksum byte on the wire, cut out here without our codec."""
    seen = 0
    for name, separator, mode in (("std_mono_producer_nb_fixck.bin", b"\t", Mode.STANDARD), ("his_mono_tempo.bin", b" ", Mode.HISTORIC)):
        groups, expected = [], []
        for raw in (FRAMES / name).read_bytes().strip(b"\x02\x03").split(b"\r"):
            raw = raw.removeprefix(b"\n")
            if not raw:
                continue
            parts = [part.decode("ascii") for part in raw[:-2].split(separator)]
            if mode is Mode.HISTORIC:
                parts = [parts[0], " ".join(parts[1:])]
            label, horodate, value = parts if len(parts) == 3 else (parts[0], "", parts[1])
            groups.append(TicGroup(label, value, horodate))
            expected.append({label: {"data": value, "checksum": raw[-1]} | ({"dateTime": horodate} if horodate else {})})
        frame = TicFrame(mode, (*groups, TicGroup("BAD", "x", valid=False)), METER, "/dev/ttyUSB0", "1-1", None, 0)
        event = Version1(PARIS).error_event(0, "checksum", Stream(METER, "/dev/ttyUSB0", "1-1", None), frame)
        assert event is not None
        told = json.loads(event)["data"]["data"]["partialTICFrame"]
        assert told["ticMode"] == mode.value.upper()
        assert told["ticFrame"] == expected
        seen += len(expected)
    assert seen == 44 + 16


def test_numbers_above_7fff_do_not_fit_v2() -> None:
    port = PortState("/dev/ttyUSB0", None, None, None, None, "reading", "", 0, UsbInfo(0x10C4, 0xEA60))
    assert DIALECTS["v2"](PARIS).modems([port]) == [{"portName": "/dev/ttyUSB0", "modemType": None, "vendorId": 0x10C4}]
    assert DIALECTS["v1"](PARIS).modems([port]) == [{"portName": "/dev/ttyUSB0", "vendorId": 0x10C4, "productId": 0xEA60, "native": False}]
    (told,) = DIALECTS["document"](PARIS).modems([port])
    assert (told["productId"], told["modemType"], told["serialNumber"]) == (0xEA60, None, None)


# --------------------------------------------------------------------------------------------------------------------- requests


WRONG = [
    ("hello", -1, "ErrorResponse", "expected a JSON object: JSON is malformed"),
    ("", -1, "ErrorResponse", "got an empty message"),
    ("[]", -1, "ErrorResponse", "got a list"),
    ("null", -1, "ErrorResponse", "got null"),
    ('"REQUEST"', -1, "ErrorResponse", "got a string"),
    ("12", -1, "ErrorResponse", "got a number"),
    ("true", -1, "ErrorResponse", "got a boolean"),
    ('{"type": "REQUEST", "name": "GetAvailableTICs"} trailing', -1, "ErrorResponse", "JSON is malformed"),
    ("{'type': 'REQUEST', 'name': 'GetAvailableTICs'}", -1, "ErrorResponse", "JSON is malformed"),
    ("{type: REQUEST, name: GetAvailableTICs}", -1, "ErrorResponse", "JSON is malformed"),
    ("[" * 50_000, -1, "ErrorResponse", "expected a JSON object"),
    ('{"a":' * 10_000, -1, "ErrorResponse", "expected a JSON object"),
    ('{"type": "\\ud800"}', -1, "ErrorResponse", "expected a JSON object"),
    (b'{"type": "REQUEST", "name": "GetAvailableTICs"}', -1, "ErrorResponse", "got a binary message"),
    ("{}", -2, "ErrorResponse", 'type: missing, expected "REQUEST"'),
    ('{"name": "ReadTIC"}', -2, "ReadTIC", "type: missing"),
    ('{"type": null, "name": "ReadTIC"}', -2, "ReadTIC", "type: missing"),
    ('{"type": "REQUEST"}', -3, "ErrorResponse", f"name: missing, expected one of {', '.join(REQUESTS)}"),
    ('{"type": "REQUEST", "name": null}', -3, "ErrorResponse", "name: missing"),
    ('{"type": "EVENT", "name": "ReadTIC"}', -4, "ReadTIC", 'type: expected "REQUEST", got "EVENT"'),
    ('{"type": "RESPONSE", "name": "ReadTIC"}', -4, "ReadTIC", 'got "RESPONSE"'),
    ('{"type": "request", "name": "ReadTIC"}', -4, "ReadTIC", 'got "request"'),
    ('{"type": 1, "name": "SubscribeTIC"}', -4, "SubscribeTIC", "got a number"),
    ('{"type": "REQUEST", "name": "GetEverything"}', -5, "ErrorResponse", f'name: expected one of {", ".join(REQUESTS)}, got "GetEverything"'),
    ('{"type": "REQUEST", "name": "readtic"}', -5, "ErrorResponse", 'got "readtic"'),
    ('{"type": "REQUEST", "name": ["ReadTIC"]}', -5, "ErrorResponse", "got a list"),
    ('{"type": "REQUEST", "name": ""}', -5, "ErrorResponse", 'got ""'),
    ('{"type": "REQUEST", "name": "' + "x" * 5_000 + '"}', -5, "ErrorResponse", "x" * 59 + '…"'),
    ('{"type": "REQUEST", "name": "ReadTIC"}', -6, "ReadTIC", "data: expected an object with one of serialNumber, portId, portName, got nothing"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": null}', -6, "ReadTIC", "data: expected"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": []}', -6, "ReadTIC", "got a list"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": [{"portId": "1-1"}]}', -6, "ReadTIC", "got a list"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": "021762010203"}', -6, "ReadTIC", "got a string"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": {}}', -6, "ReadTIC", "data: expected one of serialNumber, portId, portName, got none"),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": {"portId": null}}', -6, "ReadTIC", "got none"),
    (
        '{"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": 21762010203}}',
        -6,
        "ReadTIC",
        "data.serialNumber: expected a string, got a number",
    ),
    ('{"type": "REQUEST", "name": "ReadTIC", "data": {"serialNumber": ""}}', -6, "ReadTIC", "data.serialNumber: expected a string that is not empty"),
    (
        '{"type": "REQUEST", "name": "ReadTIC", "data": {"serial": "1", "portId": "1-1"}}',
        -6,
        "ReadTIC",
        'data: unknown field "serial", expected serialNumber',
    ),
    ('{"type": "REQUEST", "name": "SubscribeTIC", "data": "x"}', -6, "SubscribeTIC", 'a list of such, or nothing for all; got "x"'),
    ('{"type": "REQUEST", "name": "SubscribeTIC", "data": false}', -6, "SubscribeTIC", "got a boolean"),
    ('{"type": "REQUEST", "name": "SubscribeTIC", "data": [{"portId": "1-1"}, 5]}', -6, "SubscribeTIC", "data[1]: expected an object"),
    (
        '{"type": "REQUEST", "name": "SubscribeTIC", "data": [{"portId": "1-1"}, {"portName": []}]}',
        -6,
        "SubscribeTIC",
        "data[1].portName: expected a string, got a list",
    ),
    ('{"type": "REQUEST", "name": "UnsubscribeTIC", "data": {}}', -6, "UnsubscribeTIC", "got none"),
    (
        '{"type": "REQUEST", "name": "SubscribeTIC", "data": [' + ",".join(['{"portId":"1-1"}'] * 1_001) + "]}",
        -6,
        "SubscribeTIC",
        "at most 1000 identifiers, got 1001",
    ),
]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_malformed_request_is_answered_and_the_connection_goes_on(dialect: str, api: ApiWorld) -> None:
    async with api.client(f"/{dialect}") as client:
        for message, code, name, reason in WRONG:
            answer = await client.ask(message)
            said = (answer["type"], answer["name"], answer["errorCode"])
            if dialect == "v2":
                assert said == ("RESPONSE", "ErrorResponse", -1 if code == -1 else -5), message[:100]
            else:
                assert said == ("RESPONSE", name, code), message[:100]
                assert reason in answer["errorMessage"]
                assert len(answer["errorMessage"]) < 400
        assert await client.code("GetAvailableTICs") == 0
        assert (
            api.world.metrics.counter("gridloom_tic_requests_total", "", ("name", "code")).value(
                name="ReadTIC", code="-6" if dialect != "v2" else "-5"
            )
            >= 5
        )


def test_what_more_stands_in_a_request_is_ignored() -> None:
    assert parse('{"type": "REQUEST", "name": "GetModemsInfo", "id": 5, "data": [1, 2]}') == Request("GetModemsInfo")
    assert parse('{"type":"REQUEST","name":"SubscribeTIC","data":null}') == Request("SubscribeTIC")
    assert parse('{"type":"REQUEST","name":"SubscribeTIC","data":[]}') == Request("SubscribeTIC", (), listed=True)
    assert parse('{"type":"REQUEST","name":"ReadTIC","data":{"serialNumber":"1","portId":null,"portName":"x"}}') == Request(
        "ReadTIC", (Identifier("1", None, "x"),)
    )


STREAM = Stream(METER, "/dev/ttyUSB0", "1-1", "pci-0")
YOUNG = Stream(None, "/dev/ttyUSB0", "1-1", None)
NATIVE = Stream(None, "/dev/ttyAMA0", None, None)


@pytest.mark.parametrize(
    ("identifier", "stream", "matches"),
    [
        (Identifier(serial=METER), STREAM, True),
        (Identifier(serial="999"), STREAM, False),
        (Identifier(serial=METER, port_id="9-9", port_name="/dev/other"), STREAM, True),
        (Identifier(serial="999", port_id="1-1", port_name="/dev/ttyUSB0"), STREAM, False),
        (Identifier(port_id="1-1"), STREAM, True),
        (Identifier(port_id="pci-0"), STREAM, True),
        (Identifier(port_id="1-1", port_name="/dev/other"), STREAM, True),
        (Identifier(port_id="9-9", port_name="/dev/ttyUSB0"), STREAM, False),
        (Identifier(port_name="/dev/ttyUSB0"), STREAM, True),
        (Identifier(port_name="/dev/ttyUSB1"), STREAM, False),
        (Identifier(serial=METER), YOUNG, False),
        (Identifier(serial=METER, port_id="1-1"), YOUNG, True),
        (Identifier(serial=METER, port_name="/dev/ttyAMA0"), NATIVE, True),
        (Identifier(port_id="1-1", port_name="/dev/ttyAMA0"), NATIVE, True),
        (Identifier(port_id="1-1"), NATIVE, False),
    ],
)
def test_identifiers_are_compared_in_the_peers_order(identifier: Identifier, stream: Stream, matches: bool) -> None:
    assert identifier.matches(stream) is matches


def test_v1_and_v2_print_every_field_of_an_identifier() -> None:
    asked = Request("SubscribeTIC", ())
    full = Identifier("1", "2", "3")
    assert DIALECTS["v2"](PARIS).not_found(asked, full, 0) == (-10, "Stream {portId=2, portName=3, serialNumber=1} not found! (5)")
    assert DIALECTS["v1"](PARIS).not_found(asked, full, 0) == (-10, 'Stream {"serialNumber":"1","portName":"3","portId":"2"} not found! (5)')


@pytest.mark.parametrize(("name", "code"), [("document", -99), ("v1", -7), ("v2", -7)])
def test_the_code_of_our_own_fault(name: str, code: int) -> None:
    assert DIALECTS[name](PARIS).internal("why") == (code, "why")


def test_the_three_are_all_there_are() -> None:
    assert list(DIALECTS) == ["document", "v1", "v2"]
    assert FIELDS == ("serialNumber", "portId", "portName")
    assert all(issubclass(kind, Dialect) for kind in DIALECTS.values())
    assert DIALECTS["v2"](PARIS).malformed(Malformed(-1, "", "", empty=True))[1] == (-1, "Input JSON string is null or empty")


# ------------------------------------------------------------------------------------------------------- the machine-readable page

ASYNCAPI = Path(__file__).parents[3] / "docs" / "reference" / "tic2websocket.asyncapi.yaml"


def judge(message: str) -> Any:
    """A foreign validator of one message of the AsyncAPI document."""
    document = yaml.safe_load(ASYNCAPI.read_text())
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/components/messages/{message}/payload", "components": document["components"]})


@pytest.mark.parametrize(("request_name", "success"), list(zip(REQUESTS, ("AvailableTICs", "ModemsInfo", "Frame", "Done", "Done"), strict=True)))
async def test_what_we_say_is_what_the_asyncapi_document_says(request_name: str, success: str, api: ApiWorld) -> None:
    data = {"data": {"serialNumber": METER, "portName": None}} if request_name == "ReadTIC" else {}
    asked = {"type": "REQUEST", "name": request_name, **data}
    assert judge(request_name).is_valid(asked)
    async with api.client("/document") as client:
        assert await client.code("SubscribeTIC") == 0
        await client.send(asked)
        if request_name == "ReadTIC":
            while not api.service._reads:
                await client.nothing(0.01)
            await api.feed()
        found = [await client.hear()]
        if request_name == "ReadTIC":
            found.append(await client.hear())
        answer = next(one for one in found if one["type"] == "RESPONSE")
        judge(success).validate(answer)
        judge("Refusal").validate(
            await client.ask({"type": "REQUEST", "name": request_name, "data": 5} if data else {"type": "x", "name": request_name})
        )
        if request_name == "SubscribeTIC":
            await api.feed()
            judge("OnTICData").validate(await client.hear())
            for kind in ("timeout", "unplugged", "unreadable"):
                api.fail(kind)
                judge("OnError").validate(await client.hear())


@pytest.mark.parametrize(
    "wrong", [{"data": {}}, {"data": {"serial": "1"}}, {"data": [5]}, {"data": "x"}, {"type": "EVENT"}, {"data": {"portId": ""}}]
)
def test_the_asyncapi_document_refuses_what_we_refuse(wrong: dict[str, Any]) -> None:
    asked = {"type": "REQUEST", "name": "SubscribeTIC", **wrong}
    assert not judge("SubscribeTIC").is_valid(asked)
    assert isinstance(parse(json.dumps(asked)), Malformed)
