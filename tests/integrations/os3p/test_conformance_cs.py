"""CONFORMANCE, the Central System's side: a test for each line whose role is CS or B, named by its number.

The other side is a socket and ``json`` (``station.py``); nothing of the product's codecs is imported. The Central System runs over a real store. Each
test fails under the mutation of its number (``mutations_cs.py``); ``docs/reference/os3p-conformance.md`` lists them all.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.core.world import until
from tests.hub_process import Hubs
from tests.integrations.os3p.central import FIRST, Central, central, refused, section
from tests.integrations.os3p.station import BINARY, BOOT, PING, TEXT, Station, knock
from tests.integrations.os3p.station import station as raw_station

from gridloom.core.errors import StorageFull
from gridloom.core.model import Admission, CommandState, Quality
from gridloom.core.settings import Duration, ReadableFile
from gridloom.integrations.os3p.config import Subprotocol, UrlPath
from gridloom.integrations.os3p.preview import preview

SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "schemas.json").read_text())
CLIENT_INITIATED = (
    "BootNotification", "FirmwareStatusNotification", "GetFileStatusNotification", "Heartbeat", "MeterValues", "StatusNotification",
    "StreetlightModeStatusNotification", "StreetlightStatusNotification",
)  # fmt: skip
CONTINUATION = 0
DEVIATIONS = "gridloom_os3p_deviations_total"
AT = "2026-11-20T16:00:00Z"
LIGHT = {"contactorId": 2, "status": "On", "timestamp": AT}
HERTZ = {"value": "50.01", "measurand": "Frequency"}
MODE = {"mode": "LocalOverride", "timestamp": AT}


def status(code: str = "NoError", whole: str = "Ok", **more: Any) -> dict[str, Any]:
    """A StatusNotification."""
    return {"status": whole, "errorCode": code, "timestamp": AT, **more}


def meter(*samples: dict[str, Any], at: str = AT) -> dict[str, Any]:
    """MeterValues of one moment."""
    return {"meterValue": [{"timestamp": at, "sampledValue": list(samples)}]}


class Gate:
    """Holds every commit of the store until it is opened."""

    def __init__(self, one: Central) -> None:
        self._store = one.world.store
        self._commit = self._store.commit
        self._open = asyncio.Event()
        self._store.commit = self._wait  # type: ignore[method-assign]

    async def _wait(self, writes: Any) -> Any:
        await self._open.wait()
        return await self._commit(writes)

    def open(self) -> None:
        """Let them go."""
        self._open.set()
        self._store.commit = self._commit  # type: ignore[method-assign]


def cannot_store(one: Central) -> Callable[[], None]:
    """From now on the disk is full; call the result to make room."""
    commit = one.world.store.commit

    async def full(writes: Any) -> Any:
        raise StorageFull("no space left")

    def again() -> None:
        one.world.store.commit = commit  # type: ignore[method-assign]

    one.world.store.commit = full  # type: ignore[method-assign]
    return again


def calls_to(station: Station) -> list[list[Any]]:
    """The CALLs that the Central System sent."""
    return [message for message in station.messages if message[0] == 2]


def number(value: Any) -> Decimal:
    """Of a stored value."""
    return Decimal(value.value).scaleb(value.exponent)


async def latest(one: Central, identity: str = FIRST) -> list[Any]:
    """The newest value of every series."""
    return list(await one.world.registry.latest_values(f"os3p:{identity}"))


# -------------------------------------------------------------------------------------------------------------- C: connection


async def test_C1_it_speaks_version_13_of_rfc_6455_and_no_other(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        example = await knock(one.where, key="dGhlIHNhbXBsZSBub25jZQ==")  # RFC 6455 section 1.3
        assert (example.status, example.headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        for version in ("8", "12", "14", ""):
            answer = await knock(one.where, version=version)
            assert (answer.status, answer.headers.get("sec-websocket-version")) == (426, "13"), version
        async with one.station() as station:
            station.frame(TEXT, b'[2,"1","Heartbeat",{}]', masked=False)
            assert (await station.closed()).code == 1002
        await until(lambda: one.count(DEVIATIONS) == {"websocket-frame": 1})


async def test_C2_it_offers_an_endpoint_at_any_path(tmp_path: Path) -> None:
    for number, path in enumerate(("/OS3P", "/webServices/OS3P/1.0", "")):
        (folder := tmp_path / str(number)).mkdir()
        async with central(folder, section(path=UrlPath(path))) as one:
            await one.add()
            assert (await knock(one.where, path=path)).status == 101
            assert (await knock(one.where, path="/elsewhere")).status == 404


@pytest.mark.parametrize("identity", ["SUBS 123", "a/b?c#d%e", "%2F", "%2520", "Wijk bij Duurstede – №7", "変電所", ".."])
async def test_C4_an_identity_is_percent_decoded_exactly_once(tmp_path: Path, identity: str) -> None:
    async with central(tmp_path) as one, one.accepted(identity):
        assert [view.identity for view in await one.all() if view.connection is not None] == [identity]
        assert [device.identity for device in one.world.registry.devices()] == [identity]


async def test_C4_the_example_of_the_guide(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add("SUBS 123")
        assert (await knock(one.where, target="/OS3P/SUBS%20123")).status == 101
        assert (await knock(one.where, target="/OS3P/SUBS%2520123")).status == 404
        assert (await knock(one.where, target="/OS3P/SUBS%FF")).status == 400


async def test_C7_the_first_supported_subprotocol_in_the_order_of_the_station_is_echoed(tmp_path: Path) -> None:
    async with central(tmp_path, section(subprotocols=(Subprotocol("OS3P1.0"), Subprotocol("OS3P1.x")))) as one:
        await one.add()
        for offered, chosen in (("OS3P1.0", "OS3P1.0"), ("OS3P1.x, OS3P1.0", "OS3P1.x"), ("OS3P2.0,OS3P1.0,OS3P1.x", "OS3P1.0")):
            answer = await knock(one.where, protocols=[offered])
            assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, chosen), offered


async def test_C8_an_identity_that_is_not_recognised_is_404_and_no_websocket(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        for identity in ("SUBS002", FIRST.lower(), f" {FIRST}"):
            answer = await knock(one.where, identity)
            assert answer.status == 404
            assert {"upgrade", "sec-websocket-accept"}.isdisjoint(answer.headers)
        assert one.count("gridloom_os3p_refused_total")["unknown"] == 3


@pytest.mark.parametrize("offered", [None, ["OS3P2.0"], ["ocpp1.6, os3p1.0"]])
async def test_C9_without_a_common_subprotocol_the_handshake_is_completed_and_closed(tmp_path: Path, offered: list[str] | None) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station(protocols=offered) as station:
            assert (station.answer.status, station.subprotocol) == (101, None)
            assert (await station.closed()).code == 1002
            assert station.messages == []


async def test_C11_header_names_in_any_case_and_the_list_over_several_lines(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        lines = [("sec-websocket-PROTOCOL", "OS3P2.0,"), ("SEC-WEBSOCKET-protocol", " OS3P1.0 ,x")]
        answer = await knock(one.where, protocols=None, headers=lines)
        assert (answer.status, answer.headers.get("sec-websocket-protocol")) == (101, "OS3P1.0")


async def test_C12_wss(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("hub.example")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {name: ReadableFile(str(tmp_path / file)) for name, file in (("tls_certificate_file", "cert.pem"), ("tls_key_file", "key.pem"))}
    async with central(tmp_path, section(**files)) as one:
        async with one.accepted(tls=ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))) as station:
            assert (await station.call("Heartbeat"))["currentTime"]
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await knock(one.where)


async def test_C13_compression_is_neither_agreed_nor_taken(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted(headers=[("Sec-WebSocket-Extensions", "permessage-deflate")]) as station:
        assert "sec-websocket-extensions" not in station.answer.headers
        assert (await station.call("Heartbeat"))["currentTime"]
        station.frame(0x40 | TEXT, b'[2,"z","Heartbeat",{}]')  # RSV1: "this is compressed"
        assert (await station.closed()).code == 1002


async def test_C14_a_version_may_stand_in_the_url(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        for path in ("/OS3P/1.0", "/OS3P/v1.0", "/OS3P/OS3P1.0"):
            assert (await knock(one.where, path=path)).status == 101, path
        assert (await knock(one.where, path="/OS3P/2.0")).status == 404


async def test_C16_the_newest_connection_wins_and_what_waited_on_the_old_one_fails(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as old:
        order = await one.submit("device.configuration.get")
        await old.asked_for("GetConfiguration")
        async with one.station() as new:
            assert (await old.closed()).code == 1008
            assert (await one.world.commands.wait(order.id, 5)).state.final
            assert (await new.call("Heartbeat"))["currentTime"]
            assert one.online()


async def test_C17_the_identity_is_that_of_the_connection_and_of_nothing_in_a_message(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add("A")
        async with one.accepted("B"), one.station("A") as station:
            await station.boot(serialNumber="B", stationNumber="B")
            await station.call("StreetlightStatusNotification", LIGHT)
            device = one.device("A")
            assert (device.identity, device.serial) == ("A", "B")
            found = await one.world.query.events(one.world.admin, kinds=("light.switched",))
            assert [event.device for event in found.events] == ["os3p:A"]
            station.replies["GetConfiguration"] = {}
            await one.order("device.configuration.get", identity="A")
            assert calls_to(station)[-1][2:] == ["GetConfiguration", {}]


async def test_C18_pings_of_a_station_are_answered_a_silent_one_is_pinged_and_its_interval_can_be_set(tmp_path: Path) -> None:
    async with central(tmp_path, section(ping_interval=Duration(0.2))) as one, one.accepted() as station:
        station.frame(PING, b"are you there?")
        await until(lambda: station.pongs == [b"are you there?"])
        await until(lambda: station.pings >= 2)
        station.replies["ChangeConfiguration"] = {"status": "Accepted"}
        order = await one.order("device.configuration.set", {"key": "websocketPingInterval", "value": "0"})
        assert (order.state, calls_to(station)[-1][3]) == (CommandState.DONE, {"key": "websocketPingInterval", "value": "0"})


# -------------------------------------------------------------------------------------------------------------- R: RPC framing


@pytest.mark.parametrize(
    "text", [b"", b"[2", b'[2,"1","Heartbeat",{}', b'[2,"1","Heartbeat",{}][2,"2","Heartbeat",{}]', b'[2,"1","Heartbeat",{}]x', b"[2,'1',{}]"]
)
async def test_R1_what_is_not_one_json_text_is_not_answered(tmp_path: Path, text: bytes) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        before = len(station.messages)
        station.say(text)
        assert (await station.call("Heartbeat", id="after"))["currentTime"]
        assert [message[1] for message in station.messages[before:]] == ["after"]
        assert one.count(DEVIATIONS) == {"not-json": 1}


async def test_R1_text_that_is_not_utf8_ends_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted() as station:
            station.say(b'[2,"1","StatusNotification",{"info":"\xff"}]')
            assert (await station.closed()).code == 1007
        await until(lambda: one.count(DEVIATIONS) == {"not-utf8": 1})
        async with one.station() as station:
            assert (await station.call("Heartbeat"))["currentTime"]


async def test_R2_beyond_ascii_there_is_only_text_for_people(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted("変電所 é") as station:
        station.replies["GetConfiguration"] = {"configurationKey": [{"key": "Ort", "readonly": True, "value": "Zürich"}]}
        order = await one.order("device.configuration.get", identity="変電所 é")
        assert order.result["keys"][0]["value"] == "Zürich"
        await station.call("StatusNotification", status("OtherError", "Faulted", info="Türkontakt offen – №7", vendorId="V", vendorErrorCode="7"))
        found = await one.world.query.events(one.world.admin, kinds=("fault.other",))
        assert found.events[0].data["info"] == "Türkontakt offen – №7"
        assert all(json.dumps(message, ensure_ascii=False).isascii() for message in station.messages)


async def test_R3_types_are_2_3_and_4(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        await station.call("Heartbeat", id="result")
        with refused("NotImplemented"):
            await station.call("Nonsense", id="error")
        station.replies["GetConfiguration"] = {}
        await one.order("device.configuration.get")
        kinds = {message[1]: message[0] for message in station.messages}
        assert (kinds["result"], kinds["error"], calls_to(station)[-1][2]) == (3, 4, "GetConfiguration")


async def test_R4_an_unknown_type_is_ignored_and_counted(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        texts = ['[1,"a","Heartbeat",{}]', '[5,"a",{}]', '["2","a","Heartbeat",{}]', "[]", "[null]", '[2.5,"a","Heartbeat",{}]', "[true]"]
        for text in texts:
            station.say(text)
        assert await station.quiet()
        assert (await station.call("Heartbeat"))["currentTime"]
        assert one.count(DEVIATIONS) == {"unknown-type": len(texts)}


async def test_R5_no_two_calls_of_a_connection_have_the_same_id(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        station.replies["GetConfiguration"] = {}
        for _ in range(12):
            await one.order("device.configuration.get")
        ids = [message[1] for message in calls_to(station)]
        assert len(ids) == len(set(ids)) == 12


@pytest.mark.parametrize("id", ["aB-9", "", " ", 'q"u\\o/te', "é変\U0001f600", "\x7f\t", "0"])
async def test_R6_an_answer_has_the_id_of_its_call(tmp_path: Path, id: str) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        before = len(station.messages)
        station.say([2, id, "Heartbeat", {}])
        station.say([2, id + "X", "Nonsense", {}])
        await until(lambda: len(station.messages) == before + 2)
        assert [message[:2] for message in station.messages[before:]] == [[3, id], [4, id + "X"]]


async def test_R7_an_id_is_a_string_of_at_most_36_characters(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert (await station.call("Heartbeat", id="550e8400-e29b-41d4-a716-446655440000"))["currentTime"]
        assert (await station.call("Heartbeat", id="é" * 36))["currentTime"]
        with refused("PropertyConstraintViolation"):
            await station.call("Heartbeat", id="x" * 37)
        station.replies["GetConfiguration"] = {}
        await one.order("device.configuration.get")
        assert all(isinstance(id, str) and 1 <= len(id) <= 36 for _, id, *_ in calls_to(station))


async def test_R8_a_call_has_four_elements_and_an_action_in_its_own_case(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for message, code in (
            ([2, "a", "Heartbeat"], "ProtocolError"),
            ([2, "b"], "ProtocolError"),
            ([2, "c", "Heartbeat", {}, {}], "FormationViolation"),
            ([2, "d", "HeartBeat", {}], "NotImplemented"),
            ([2, "e", 7, {}], "FormationViolation"),
        ):
            before = len(station.messages)
            station.say(message)
            await until(lambda before=before: len(station.messages) > before)  # type: ignore[misc]
            assert station.messages[-1][:3] == [4, message[1], code]
        station.replies["GetConfiguration"] = {}
        await one.order("device.configuration.get")
        assert len(calls_to(station)[-1]) == 4


async def test_R9_a_result_has_three_elements(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for more, state in ((0, CommandState.DONE), (1, CommandState.FAILED)):
            order = await one.submit("device.configuration.get")
            id, _ = await station.asked_for("GetConfiguration")
            station.say([3, id, {"configurationKey": []}, *[{}] * more])
            assert (await one.world.commands.wait(order.id, 5)).state is state
        await station.call("Heartbeat", id="last")
        assert len(station.messages[-1]) == 3


async def test_R10_an_error_has_five_elements_and_an_object_at_the_end(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        await one.decide(Admission.PENDING)
        for message in ([2, "a", "Heartbeat", {}], [2, "b", "Heartbeat", []], [2, "c"], [2, "c", "Heartbeat", {}]):
            station.say(message)
        await until(lambda: sum(message[0] == 4 for message in station.messages) == 4)
        errors = [message for message in station.messages if message[0] == 4]
        assert all(len(error) == 5 and isinstance(error[3], str) and isinstance(error[4], dict) for error in errors)
        assert errors[0][2:] == ["SecurityError", errors[0][3], {}], "there are no details"


async def test_R10_a_mutilated_error_still_ends_our_call(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for rest in (["NotSupported", "", {}], ["NotSupported"], [], ["NotSupported", "no", {}, 7], ["NotSupported", None, None]):
            order = await one.submit("device.configuration.get")
            id, _ = await station.asked_for("GetConfiguration")
            station.say([4, id, *rest])
            assert (await one.world.commands.wait(order.id, 5)).state is CommandState.FAILED, rest


async def test_R11_an_empty_payload_is_sent_as_an_object_and_null_is_taken_for_one(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        station.say('[2,"n","Heartbeat",null]')
        await until(lambda: station.messages[-1][:2] == [3, "n"])
        assert await station.call("StreetlightStatusNotification", LIGHT) == {}
        order = await one.submit("device.configuration.get")
        id, payload = await station.asked_for("GetConfiguration")
        station.say(f'[3,"{id}",null]')
        assert (payload, (await one.world.commands.wait(order.id, 5)).state) == ({}, CommandState.DONE)
        assert one.count(DEVIATIONS)["null-payload"] == 2


async def test_R12_an_undesired_outcome_is_a_result_on_both_sides(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add("B", Admission.REJECTED)
        async with one.station("B") as rejected:
            assert (await rejected.boot())["status"] == "Rejected"
        async with one.accepted() as station:
            station.replies["ResumeStreetlight"] = {"status": "RejectedLocalOverride"}
            order = await one.order("light.resume", {"contactor": 1})
            assert order.state is CommandState.FAILED
            assert "local override" in order.error


def proper() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every word that a schema lists for a status, in a proper message."""
    for action in CLIENT_INITIATED[1:]:
        plain = {"StatusNotification": status(), "StreetlightModeStatusNotification": MODE, "StreetlightStatusNotification": LIGHT}.get(action, {})
        listed = {name: member["enum"] for name, member in SCHEMAS[action]["properties"].items() if "enum" in member}
        words = [(name, word) for name, some in listed.items() for word in some]
        yield from ((action, {**plain, name: word}) for name, word in words)
    yield "Heartbeat", {}
    yield "MeterValues", meter(HERTZ)
    yield "BootNotification", BOOT


async def test_R13_a_proper_message_is_never_answered_with_an_error(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        messages = list(proper())
        assert len(messages) > 30
        for action, payload in messages:
            assert isinstance(await station.call(action, payload), dict), (action, payload)
        assert {answer.partition(" ")[2] for answer, count in one.count("gridloom_os3p_calls_total").items() if count} == {"ok"}


async def test_R13_an_error_says_that_it_was_not_processed_or_is_no_message(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        again = cannot_store(one)
        with refused("InternalError"):
            await station.call("StreetlightStatusNotification", LIGHT)
        again()
        with refused("OccurenceConstraintViolation"):
            await station.call("StreetlightStatusNotification", {"status": "On"})
        with refused("PropertyConstraintViolation"):
            await station.call("Heartbeat", id="x" * 40)


@pytest.mark.parametrize("text", ["{}", '"2"', "2", "null", "true", "[2]", '[2,1,"Heartbeat",{}]', '[2,null,"Heartbeat",{}]', '[2,["x"]]'])
async def test_R14_what_shows_no_id_is_ignored(tmp_path: Path, text: str) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        station.say(text)
        before = len(station.messages)
        assert (await station.call("Heartbeat", id="after"))["currentTime"]
        assert [message[1] for message in station.messages[before:]] == ["after"]
        assert sum(one.count(DEVIATIONS).values()) == 1


async def test_R15_the_id_of_a_call_in_progress_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        gate = Gate(one)
        before = len(station.messages)
        station.say([2, "same", "StreetlightStatusNotification", LIGHT])
        station.say([2, "same", "Heartbeat", {}])
        assert await station.quiet()
        gate.open()
        await until(lambda: len(station.messages) == before + 2)
        assert [message[:3] for message in station.messages[before:]] == [[3, "same", {}], [4, "same", "GenericError"]]
        assert one.count(DEVIATIONS) == {"id-in-progress": 1}
        assert await one.events("light.") == ["light.switched occurred"]


async def test_R16_a_used_id_is_refused_and_nothing_is_done_twice_and_memory_of_ids_is_bounded(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        assert await station.call("FirmwareStatusNotification", {"status": "Installed"}, id="same") == {}
        with refused("GenericError"):
            await station.call("FirmwareStatusNotification", {"status": "Installed"}, id="same")
        assert await one.events("device.firmware") == ["device.firmware.installed occurred"]
        for number in range(400):
            await station.call("Heartbeat", id=f"other{number}")
        assert (await station.call("Heartbeat", id="same"))["currentTime"], "of the last ones only"
    async with central(tmp_path) as one, one.station() as station:
        assert (await station.call("Heartbeat", id="same"))["currentTime"], "another connection"


async def test_R17_answers_to_nothing_are_ignored_and_counted(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        order = await one.submit("device.configuration.get")
        id, _ = await station.asked_for("GetConfiguration")
        for message in ([3, id + "x", {"configurationKey": [{"key": "a", "readonly": True}]}], [4, "nobody", "GenericError", "", {}]):
            station.say(message)
        assert await station.quiet()
        assert not (await one.world.commands.get(order.id, one.world.admin)).state.final
        station.result(id, {})
        assert (await one.world.commands.wait(order.id, 5)).result == {"keys": [], "unknown": []}
        station.result(id, {})
        assert (await station.call("Heartbeat"))["currentTime"]
        assert one.count(DEVIATIONS) == {"unknown-answer": 3}


async def test_R18_unknown_actions_are_not_implemented_and_those_of_the_other_side_not_supported(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        actions = {name.removesuffix("Response") for name in SCHEMAS}
        for action in sorted(actions - set(CLIENT_INITIATED)):
            with refused("NotSupported"):
                await station.call(action)
        for action in ("DataTransfer", "heartbeat", "", "MeterValuesResponse", "é"):
            with refused("NotImplemented"):
                await station.call(action)


async def test_R19_the_table_of_error_codes(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        codes = {
            "ProtocolError": [2, "a", "Heartbeat"],
            "FormationViolation": [2, "b", "Heartbeat", 7],
            "PropertyConstraintViolation": [2, "c", "StreetlightStatusNotification", {**LIGHT, "contactorId": 9}],
            "OccurenceConstraintViolation": [2, "d", "StreetlightStatusNotification", {"status": "On"}],
            "TypeConstraintViolation": [2, "e", "StreetlightStatusNotification", {**LIGHT, "timestamp": 7}],
            "NotImplemented": [2, "f", "Nonsense", {}],
            "NotSupported": [2, "g", "Reset", {}],
            "GenericError": [2, "a", "Heartbeat", {}],
        }
        before = len(station.messages)
        for message in codes.values():
            station.say(message)
        await until(lambda: len(station.messages) == before + len(codes))
        assert [message[2] for message in station.messages[before:]] == list(codes)
        again = cannot_store(one)
        with refused("InternalError"):
            await station.call("StreetlightStatusNotification", LIGHT)
        again()
        await one.decide(Admission.PENDING)
        with refused("SecurityError"):
            await station.call("Heartbeat")


FAULTS = [
    ("required", "StreetlightStatusNotification", {"contactorId": 1, "status": "On"}, "OccurenceConstraintViolation", "$.timestamp"),
    ("type", "StreetlightStatusNotification", {**LIGHT, "contactorId": "two"}, "TypeConstraintViolation", "$.contactorId"),
    ("type", "StreetlightStatusNotification", {**LIGHT, "unexpected": "yes"}, "TypeConstraintViolation", "$.unexpected"),
    ("type", "MeterValues", {"meterValue": {}}, "TypeConstraintViolation", "$.meterValue"),
    ("enum", "StreetlightStatusNotification", {**LIGHT, "status": "Dim"}, "PropertyConstraintViolation", "$.status"),
    ("minimum", "StreetlightStatusNotification", {**LIGHT, "contactorId": 0}, "PropertyConstraintViolation", "$.contactorId"),
    ("maximum", "StreetlightStatusNotification", {**LIGHT, "contactorId": 5}, "PropertyConstraintViolation", "$.contactorId"),
    ("maxLength", "BootNotification", {**BOOT, "vendor": "x" * 21}, "PropertyConstraintViolation", "$.vendor"),
    ("format", "StreetlightStatusNotification", {**LIGHT, "timestamp": "yesterday"}, "PropertyConstraintViolation", "$.timestamp"),
    (
        "format",
        "MeterValues",
        meter(HERTZ, at="2026-13-01T00:00:00Z"),
        "PropertyConstraintViolation",
        "$.meterValue[0].timestamp",
    ),
    ("additionalProperties", "StreetlightStatusNotification", {**LIGHT, "colour": "red"}, "FormationViolation", "$.colour"),
    ("required", "MeterValues", meter({"measurand": "Frequency"}), "OccurenceConstraintViolation", "$.meterValue[0].sampledValue[0].value"),
]


@pytest.mark.parametrize(("keyword", "action", "payload", "code", "path"), FAULTS)
async def test_R20_the_code_follows_from_the_keyword_of_the_schema(
    tmp_path: Path, keyword: str, action: str, payload: dict[str, Any], code: str, path: str
) -> None:
    async with central(tmp_path, section(strict=True)) as one, one.accepted() as station:
        with refused(code) as found:
            await station.call(action, payload)
        assert found[0].details["path"] == path, keyword


async def test_R20_every_spelling_of_a_code_is_understood(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for spelt, meant in (
            ("FormatViolation", "FormationViolation"),
            ("FormationViolation", "FormationViolation"),
            ("OccurrenceConstraintViolation", "OccurenceConstraintViolation"),
            ("OccurenceConstraintViolation", "OccurenceConstraintViolation"),
            ("OutOfPaper", "GenericError"),
        ):
            station.replies["GetConfiguration"] = [spelt, "because", {}]
            order = await one.order("device.configuration.get")
            assert f"({meant}: because)" in order.error


async def test_R21_one_call_at_a_time_incoming_ones_are_answered_meanwhile_and_in_order(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        orders = [await one.submit("device.configuration.get") for _ in range(2)]
        id, _ = await station.asked_for("GetConfiguration")
        before = len(station.messages)
        gate = Gate(one)
        station.say([2, "p0", "StreetlightStatusNotification", LIGHT])
        for number in range(1, 12):
            station.say([2, f"p{number}", "Heartbeat", {}])
        assert await station.quiet(0.05)
        gate.open()
        await until(lambda: len(station.messages) >= before + 12)
        assert [message[:2] for message in station.messages[before:]] == [[3, f"p{number}"] for number in range(12)]
        station.result(id, {})
        second, _ = await station.asked_for("GetConfiguration")
        station.result(second, {})
        for order in orders:
            assert (await one.world.commands.wait(order.id, 5)).state is CommandState.DONE


async def test_R22_a_call_that_is_not_answered_fails_and_the_next_one_goes_out(tmp_path: Path) -> None:
    async with central(tmp_path, section(call_timeout=Duration(0.2))) as one, one.accepted() as station:
        order = await one.submit("device.configuration.get")
        id, _ = await station.asked_for("GetConfiguration")
        ended = await one.world.commands.wait(order.id, 5)
        assert ended.state is CommandState.FAILED
        following = await one.submit("device.configuration.get")
        second, _ = await station.asked_for("GetConfiguration")
        station.result(id, {"configurationKey": [{"key": "late", "readonly": True}]})
        station.result(second, {})
        assert (await one.world.commands.wait(following.id, 5)).result == {"keys": [], "unknown": []}


async def test_R23_a_message_above_the_limit_closes_with_1009(tmp_path: Path) -> None:
    async with central(tmp_path, section(max_message=4_096)) as one:
        async with one.accepted() as station:
            station.say(b'[2,"fits","Heartbeat",{}]' + b" " * (4_096 - 25))
            await until(lambda: station.messages[-1][:2] == [3, "fits"])
            station.say(b" " * 4_097)
            assert (await station.closed()).code == 1009
        async with one.station() as station:
            for opcode, fin in ((TEXT, False), (CONTINUATION, False), (CONTINUATION, True)):
                station.frame(opcode, b" " * 2_000, fin=fin)
            assert (await station.closed()).code == 1009
        await until(lambda: one.count(DEVIATIONS) == {"too-big": 2})


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ('{"contactorId":1,"contactorId":2,"status":"On","timestamp":"2026-11-20T16:00:00Z"}', "$.contactorId"),
        ('{"contactorId":NaN,"status":"On","timestamp":"2026-11-20T16:00:00Z"}', "$.contactorId"),
        ('{"contactorId":-Infinity,"status":"On","timestamp":"2026-11-20T16:00:00Z"}', "$.contactorId"),
        ('{"a":' + "[" * 40 + "]" * 40 + "}", "$.a"),
        ('{"a":' + "[" * 200_000 + "]" * 200_000 + "}", "$"),
    ],
    ids=["duplicate key", "NaN", "Infinity", "deep", "very deep"],
)
async def test_R23_json_that_cannot_be_trusted_is_refused(tmp_path: Path, payload: str, path: str) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        station._waiting["bad"] = waiting
        station.say(f'[2,"bad","StreetlightStatusNotification",{payload}]')
        with refused("FormationViolation") as found:
            await station.answered(waiting)
        assert str(found[0].details["path"]).startswith(path)
        assert (await station.call("Heartbeat"))["currentTime"]
        assert await one.events("light.") == []


async def test_R24_a_binary_frame_closes_with_1003(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        station.frame(BINARY, b'[2,"1","Heartbeat",{}]')
        assert (await station.closed()).code == 1003
        assert one.count(DEVIATIONS) == {"binary-frame": 1}


# -------------------------------------------------------------------------------------------------- B: boot, reconnect, time


async def test_B5_a_rejected_station_is_answered_and_then_closed(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add(admission=Admission.REJECTED)
        async with one.station() as station:
            assert (await station.boot())["status"] == "Rejected"
            assert (await station.closed(2)).code == 1000


async def test_B7_a_rejected_station_that_comes_again_is_rejected_again(tmp_path: Path) -> None:
    async with central(tmp_path, section(pending_interval=Duration(90))) as one:
        await one.add(admission=Admission.REJECTED)
        for _ in range(3):
            async with one.station() as station:
                answer = await station.boot()
                assert (answer["status"], answer["interval"]) == ("Rejected", 90)
        assert await one.events("device.booted") == []


async def test_B8_the_connection_of_a_pending_station_stays_open(tmp_path: Path) -> None:
    async with central(tmp_path, section(accept="approve", ping_interval=Duration(0.1))) as one, one.station() as station:
        assert (await station.boot())["status"] == "Pending"
        await until(lambda: station.pings >= 3)
        assert station.ended is None
        station.replies["TriggerMessage"] = {"status": "Accepted"}
        await one.decide(Admission.KNOWN)
        assert (await station.asked_for("TriggerMessage"))[1] == {"requestedMessage": "BootNotification"}
        assert (await station.boot())["status"] == "Accepted"


async def test_B12_a_boot_that_is_repeated_because_no_answer_came_is_answered_like_the_first(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            gate = Gate(one)
            first, second = (station.begin("BootNotification", BOOT, id=id) for id in ("first", "second"))
            assert await station.quiet()
            gate.open()
            assert [(await station.answered(waiting))["status"] for waiting in (first, second)] == ["Accepted", "Accepted"]
        async with one.station() as station:
            assert (await station.boot())["status"] == "Accepted"
        assert len(one.world.registry.devices()) == 1


async def test_B19_a_station_that_was_accepted_needs_not_boot_again_not_even_after_a_restart(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted():
            pass
        async with one.station() as station:
            assert await station.call("StreetlightStatusNotification", LIGHT) == {}
    async with central(tmp_path) as one, one.station() as station:
        assert await station.call("StreetlightStatusNotification", {**LIGHT, "contactorId": 1}) == {}
        assert calls_to(station) == []
        assert len(await one.events("light.switched")) == 2


async def test_B19_a_station_of_which_nothing_is_known_is_asked_to_boot(tmp_path: Path) -> None:
    async with central(tmp_path, section(boot_grace=Duration(0.05))) as one:
        await one.add()
        async with one.station() as station:
            assert (await station.asked_for("TriggerMessage"))[1] == {"requestedMessage": "BootNotification"}
            assert station.ended is None


async def test_B20_what_a_station_tells_before_it_was_accepted_is_refused_not_stored_and_an_alarm(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            for action, payload in (
                ("MeterValues", meter(HERTZ)),
                ("StreetlightStatusNotification", LIGHT),
                ("StatusNotification", status()),
            ):
                with refused("SecurityError"):
                    await station.call(action, payload)
            assert await latest(one) == []
            assert await one.events("light.") == []
            assert [alarm.kind for alarm in one.world.alarms.raised_of(f"os3p:{FIRST}")] == ["device.data.refused"]
            await station.boot()
            assert one.world.alarms.raised_of(f"os3p:{FIRST}") == []


async def test_B23_a_boot_has_seven_fields_of_limited_length_which_may_be_empty(tmp_path: Path) -> None:
    limits = {"vendor": 20, "model": 20, "stationNumber": 10, "serialNumber": 25, "firmwareVersion": 50, "iccid": 20, "imsi": 20}
    async with central(tmp_path) as one:
        await one.add()
        async with one.station() as station:
            for name, most in limits.items():
                assert (await station.boot(**{name: "x" * most}))["status"] == "Accepted", name
            assert (await station.call("BootNotification", dict.fromkeys(limits, "")))["status"] == "Accepted"
            assert one.count(DEVIATIONS) == {}
            for name, most in limits.items():  # vendors do not count (FACTS, "What users complain about" 5)
                assert (await station.boot(**{name: "x" * (most + 1)}))["status"] == "Accepted", name
            assert list(one.count(DEVIATIONS).values()) == [7]
            assert (await one.show()).record.boot.imsi == "x" * 21
            await one.change(strict=True)
            for name, most in limits.items():
                with refused("PropertyConstraintViolation") as found:
                    await station.boot(**{name: "x" * (most + 1)})
                assert found[0].details["path"] == f"$.{name}"
                with refused("OccurenceConstraintViolation") as found:
                    await station.call("BootNotification", {other: value for other, value in BOOT.items() if other != name})
                assert found[0].details["path"] == f"$.{name}"


# --------------------------------------------------------------------------------------------------- N: what stations tell


async def test_N6_deprecated_measurands_are_accepted(tmp_path: Path) -> None:
    names = [f"ReactiveEnergy{kind}.{phase}" for kind in ("Inductive", "Capacitive") for phase in ("L1", "L2", "L3", "Sum")]
    async with central(tmp_path, section(strict=True)) as one, one.accepted() as station:
        assert await station.call("MeterValues", meter(*({"value": "7", "unit": "kvarh", "measurand": name} for name in names))) == {}
        found: set[Any] = {(value.type.measurand, value.type.phase, value.type.unit, number(value)) for value in await latest(one)}
        assert found == {
            (f"Energy.Reactive.{kind}.Register", phase, "varh", 7_000) for kind in ("Inductive", "Capacitive") for phase in ("L1", "L2", "L3", None)
        }


async def test_N7_what_no_list_has_is_kept_normalised_and_flagged(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        samples = [
            {"value": "21.5", "unit": "Celsius", "measurand": "BoardTemperature"},
            {"value": "12", "unit": "Amp", "measurand": "Current.L1"},
            {"value": "13", "unit": "Cel", "measurand": "OilTemperature", "colour": "red"},
            {"value": "n/a", "unit": "V", "measurand": "Voltage.L1N"},
            {"value": "5", "unit": "furlong", "measurand": "Depth.Of.Snow"},
        ]
        assert await station.call("MeterValues", meter(*samples)) == {}
        found = {value.type.measurand: value for value in await latest(one)}
        assert {name: value.value if isinstance(value.value, str) else (value.type.unit, str(number(value))) for name, value in found.items()} == {
            "Temperature.Board": ("°C", "21.5"),
            "Current.Import": ("A", "12"),
            "Temperature.Oil": ("°C", "13"),
            "Voltage": "n/a",
            "Depth.Of.Snow": "5 furlong",
        }
        assert all(found[name].quality & Quality.CONVERTED for name in ("Temperature.Board", "Current.Import", "Temperature.Oil"))
        assert one.count(DEVIATIONS) == {"unknown-word": 1, "extra-member": 1}


async def test_N8_a_measurand_at_the_p1_meter_is_another_series(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        own, other = {"value": "40", "unit": "W", "measurand": "ActivePower.L1"}, {"value": "2", "unit": "kW", "measurand": "ActivePower.L1"}
        assert await station.call("MeterValues", meter(own, {**other, "location": "P1Meter"})) == {}
        assert {value.type.location: number(value) for value in await latest(one)} == {None: 40, "P1Meter": 2_000}


@pytest.mark.parametrize(
    ("code", "info", "kind"),
    [
        ("MVFaultIndicatorError", "Indicator fault (MV) resolved", "fault.indicator"),
        ("OverCurrentFailure", "Over current error (MV) resolved", "fault.overcurrent"),
        ("GroundFailure", " ground failure RESOLVED ", "fault.ground"),
        ("GroundFailure", "Ground failure resolved", "fault.ground"),
    ],
)
async def test_N12_the_fixed_strings_resolve_their_error_and_no_other(tmp_path: Path, code: str, info: str, kind: str) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for raised in (code, "HighTemperature"):
            assert await station.call("StatusNotification", status(raised, "Faulted")) == {}
        assert await station.call("StatusNotification", status(whole="Faulted", info="anything else")) == {}
        assert {alarm.kind for alarm in one.world.alarms.raised_of(f"os3p:{FIRST}")} == {kind, "fault.temperature", "station.faulted"}
        assert await station.call("StatusNotification", status(whole="Faulted", info=info)) == {}
        assert {alarm.kind for alarm in one.world.alarms.raised_of(f"os3p:{FIRST}")} == {"fault.temperature", "station.faulted"}


async def test_N21_what_is_told_twice_is_stored_once_and_what_comes_late_does_not_win(tmp_path: Path) -> None:
    async with central(tmp_path) as one:
        async with one.accepted() as station:
            for clock, state in (("17", "On"), ("16", "Off"), ("17", "On")):
                await station.call("StreetlightStatusNotification", {**LIGHT, "status": state, "timestamp": f"2026-11-20T{clock}:00:00Z"})
            await station.call("StreetlightModeStatusNotification", MODE)
        async with one.station() as station:  # the answers were lost: all of it again
            await station.call("StreetlightStatusNotification", {**LIGHT, "status": "Off"})
            await station.call("StreetlightModeStatusNotification", MODE)
            lights = (await one.show()).lights
            assert lights is not None
            state_now = lights.of(2).status
            assert state_now is not None
            assert state_now.value == "On"
            assert sorted(await one.events("light.")) == ["light.mode.changed occurred", "light.switched occurred", "light.switched occurred"]
            for change in ({"contactorId": 1}, {"status": "Off", "timestamp": "2026-11-20T17:00:00Z"}):
                await station.call("StreetlightStatusNotification", {**LIGHT, **change})
            assert len(await one.events("light.switched")) == 4, "another contactor, another value: another event"


async def test_N22_a_guaranteed_message_is_answered_when_it_is_on_disk_and_not_before(tmp_path: Path) -> None:
    async with central(tmp_path) as one, one.accepted() as station:
        for action, payload in (("StreetlightStatusNotification", LIGHT), ("StreetlightModeStatusNotification", MODE)):
            gate = Gate(one)
            waiting = station.begin(action, payload, id=action)
            assert await station.quiet()
            gate.open()
            assert await station.answered(waiting) == {}
            again = cannot_store(one)
            with refused("InternalError"):
                await station.call(action, {**payload, "timestamp": "2026-11-20T18:00:00Z"})
            again()


# ------------------------------------------------------------------------------------------- S, L: what is asked of stations


async def test_S27_credentials_in_a_location_are_for_the_station_alone(hubs: Hubs) -> None:
    hub = hubs('[http]\nlisten = "127.0.0.1:0"\n[log]\nlevel = "debug"\n[os3p]\nlisten = "127.0.0.1:0"\naccept = "any"\n')
    await asyncio.to_thread(hub.start)
    await asyncio.to_thread(hub.ready)
    location = "ftp://operator:hunter2@files.example/logs"
    async with raw_station(hub.endpoints["os3p"]) as station:
        await station.boot()
        order = {"verb": "device.files.get", "arguments": {"what": "syslog", "location": location}}
        code, submitted = await asyncio.to_thread(hub.request, "POST", f"/api/v1/devices/os3p:{FIRST}/commands", order)
        assert code == 202, submitted
        id, payload = await station.asked_for("GetFile")
        assert payload["location"] == location
        station.error(id, "InternalError", f"cannot reach {location}", {"location": location})
        paths = (f"/api/v1/commands/{submitted['id']}", "/api/v1/commands", "/api/v1/audit", "/api/v1/events")
        shown = submitted
        while shown["state"] in ("accepted", "sent"):
            shown = await asyncio.to_thread(hub.get, paths[0])
        assert (shown["state"], shown["arguments"]["location"]) == ("failed", "***")
        told = [json.dumps(submitted), *[json.dumps(await asyncio.to_thread(hub.get, path)) for path in paths]]
    await asyncio.to_thread(hub.stop)
    told += [hub.log.read_text(), hub.said.read_text()]
    assert not [text for text in told if "hunter2" in text]


def test_L1_a_schedule_day_is_from_noon_to_noon_local_time(tmp_path: Path) -> None:
    def lit(day: str, *periods: tuple[str, str]) -> list[tuple[str, str]]:
        schedule = [{name: {"kind": "Absolute", "time": time} for name, time in zip(("start", "end"), period, strict=True)} for period in periods]
        profile = {"contactorId": 1, "profileId": 1, "stackLevel": 0, "recurrencyKind": "Daily", "daySchedule": schedule}
        (tmp_path / "profiles.json").write_text(json.dumps([profile]))
        found = json.loads(preview(tmp_path / "profiles.json", "[52.09,5.12]", "Europe/Amsterdam", 1, day, as_json=True))
        return [(switching["on"], switching["off"]) for switching in found["switching"]]

    # The local time of Amsterdam is UTC+1 in winter and UTC+2 from 2026-03-29, 2:00 on.
    assert lit("2026-11-20", ("12:00:00", "11:59:59")) == [("2026-11-20T11:00:00Z", "2026-11-21T11:00:00Z")]
    assert lit("2026-11-20", ("11:00:00", "11:30:00")) == [("2026-11-21T10:00:00Z", "2026-11-21T10:30:00Z")]
    assert lit("2026-11-20", ("23:00:00", "01:00:00")) == [("2026-11-20T22:00:00Z", "2026-11-21T00:00:00Z")]
    assert lit("2026-11-20", ("11:00:00", "13:00:00")) == []
    assert lit("2026-03-28", ("12:00:00", "11:59:59")) == [("2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z")]


async def test_L13_many_profiles_go_out_lowest_level_first_between_suspend_and_resume(tmp_path: Path) -> None:
    period = {"start": {"kind": "sunset", "offset_s": 0}, "end": {"kind": "sunrise", "offset_s": 0}}
    profiles = [{"profile_id": level, "stack_level": level, "recurrence": "daily", "day_schedule": [period]} for level in reversed(range(90))]
    async with central(tmp_path) as one, one.accepted() as station:
        station.replies |= {action: {"status": "Accepted"} for action in ("SetStreetlightProfile", "OverrideStreetlight", "ResumeStreetlight")}
        order = await one.order("light.schedule.set", {"contactor": 3, "profiles": profiles, "clear_all": True})
        assert order.state is CommandState.DONE, order.error
        first, *parts, last = calls_to(station)
        assert first[2:] == ["OverrideStreetlight", {"contactorId": 3, "action": "Suspend"}]
        assert last[2:] == ["ResumeStreetlight", {"contactorId": 3}]
        assert len(parts) > 1
        assert {part[2] for part in parts} == {"SetStreetlightProfile"}
        assert [part[3].get("clearAllSchedules", False) for part in parts] == [True, *[False] * (len(parts) - 1)]
        levels = [profile["stackLevel"] for part in parts for profile in part[3]["streetlightProfiles"]]
        assert levels == list(range(90))
