"""The operator's view over HTTP: a real Central System, raw stations, and roles written down by hand."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from tests.integrations.os3p import station as raw
from tests.integrations.os3p.face import Face, face
from tests.web.test_schemathesis import schemathesis

from gridloom.core import verbs
from gridloom.core.errors import InvalidInput
from gridloom.core.model import Admission, Device, Role
from gridloom.integrations.os3p import orders, sending
from gridloom.integrations.os3p.messages import ACTIONS

API = "/api/v1/os3p"
STATION = f"{API}/stations/SUBS001"
LIGHT = {"contactorId": 1, "timestamp": "2026-03-01T19:00:00Z"}


async def put(client: httpx.AsyncClient, name: str = "fw.bin") -> None:
    assert (await client.put(f"{API}/files/{name}/content", content=b"firmware")).status_code == 200


# ------------------------------------------------------------------------------------------------------------------- stations


async def test_a_station_as_an_operator_sees_it(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        await one.call("StreetlightStatusNotification", {**LIGHT, "status": "On"})
        await one.call("StreetlightModeStatusNotification", {"mode": "RemoteOverride", "timestamp": "2026-03-01T20:00:00Z"})
        await one.call("StatusNotification", {"status": "Faulted", "errorCode": "GroundFailure", "timestamp": "2026-03-01T20:00:00Z", "info": ""})
        seen = (await admin.get(STATION)).json()
        assert (seen["identity"], seen["device"], seen["admission"], seen["online"]) == ("SUBS001", "os3p:SUBS001", "known", True)
        assert seen["registration"]["status"] == "Accepted"
        assert seen["registration"]["boots"] == 1
        assert seen["registration"]["boot"]["stationNumber"] == "987654321"
        assert seen["connection"]["subprotocol"] == "OS3P1.0"
        assert seen["deviations"] == {"empty-member": 1}
        assert (seen["strict"], seen.get("secret", False)) == (False, False)
        assert {alarm["kind"] for alarm in seen["alarms"]} >= {"station.faulted"}
        first, *others = seen["lights"]
        assert (first["contactor"], first["status"], first["mode"]) == (1, "On", "RemoteOverride")
        assert first["status_since"] == "2026-03-01T19:00:00Z"
        assert [(light["contactor"], light.get("status")) for light in others] == [(2, None), (3, None), (4, None)]
        assert seen["last_seen"] >= seen["connection"]["since"]
        await one.close()
        listed = (await admin.get(f"{API}/stations")).json()["items"]
        assert [(line["identity"], line["online"]) for line in listed] == [("SUBS001", False)]
        assert "lights" not in listed[0]
        assert listed[0]["alarms"]


async def test_thousands_of_stations_are_listed_page_by_page_and_searched(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        for number in range(3_000):
            admission = Admission.PENDING if number % 1_000 == 7 else Admission.KNOWN
            hub.world.registry._remember(Device(f"os3p:S {number:04}", "os3p", f"S {number:04}", name=f"Dike {number % 10}", admission=admission), 1)
        began = time.perf_counter()
        first = (await admin.get(f"{API}/stations")).json()
        seconds = time.perf_counter() - began
        assert seconds < 0.5, seconds
        assert [one["identity"] for one in first["items"]] == [f"S {number:04}" for number in range(100)]
        found, cursor = first["items"], first["next"]
        while cursor:
            page = (await admin.get(f"{API}/stations", params={"cursor": cursor, "limit": 1_000})).json()
            found, cursor = found + page["items"], page["next"]
        assert [one["identity"] for one in found] == [f"S {number:04}" for number in range(3_000)]
        assert len((await admin.get(f"{API}/stations?q=dIKE+3&limit=1000")).json()["items"]) == 300
        assert len((await admin.get(f"{API}/stations?admission=pending")).json()["items"]) == 3
        assert (await admin.get(f"{API}/stations?online=true")).json()["items"] == []
        assert (await admin.get(f"{API}/stations?alarm=true")).json()["items"] == []
        wrong = await admin.get(f"{API}/stations?cursor=%C3%A9")
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "$.cursor")
        assert (await admin.get(f"{API}/stations/S%200007")).json()["admission"] == "pending"


async def test_a_stranger_is_approved_or_rejected(tmp_path: Path) -> None:
    async with face(tmp_path, accept="approve") as hub, await hub.admin() as admin, hub.station("NEW 1") as one, hub.station("NEW 2") as two:
        assert (await one.boot())["status"] == (await two.boot())["status"] == "Pending"
        waiting = (await admin.get(f"{API}/stations?admission=pending")).json()["items"]
        assert [each["identity"] for each in waiting] == ["NEW 1", "NEW 2"]
        assert (await admin.patch(f"{API}/stations/NEW%201", json={"admission": "known"})).json()["admission"] == "known"
        await one.asked_for("TriggerMessage")
        assert (await one.boot())["status"] == "Accepted"
        assert (await admin.patch(f"{API}/stations/NEW%202", json={"admission": "rejected"})).json()["admission"] == "rejected"
        assert (await two.closed()).code == 1000


async def test_added_known_by_a_secret_that_is_shown_once_and_removed(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        assert (await raw.knock(hub.where)).status == 404
        added = await admin.post(f"{API}/stations", json={"identity": "SUBS001", "name": "Dike Road"})
        assert (added.status_code, added.json()["name"]) == (201, "Dike Road")
        assert (await admin.post(f"{API}/stations", json={"identity": "SUBS001"})).status_code == 409
        secret = (await admin.put(f"{STATION}/secret", json={})).json()["secret"]
        assert len(secret) == 43
        assert (await raw.knock(hub.where)).status == 401
        assert (await raw.knock(hub.where, headers=[raw.basic("SUBS001", secret)])).status == 101
        for path in (STATION, f"{API}/stations", "/api/v1/audit"):
            assert secret not in (await admin.get(path)).text
        assert (await admin.get(STATION)).json()["secret"] is True
        chosen = await admin.put(f"{STATION}/secret", json={"secret": "of the operator"})
        assert chosen.json()["secret"] == "of the operator"
        too_long = await admin.put(f"{STATION}/secret", json={"secret": "x" * 201})
        assert too_long.status_code == 400
        assert "xxx" not in too_long.text
        assert (await admin.delete(f"{STATION}/secret")).status_code == 204
        assert (await admin.delete(f"{STATION}/secret")).status_code == 404
        assert (await admin.put(f"{STATION}/secret", json={})).status_code == 200
        assert (await admin.delete(STATION)).status_code == 204
        assert (await admin.get(STATION)).status_code == 404
        assert not hub.world.accounts.has_credential("os3p:SUBS001")


async def test_a_secret_that_changes_closes_who_came_without_it(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        async with hub.accepted() as one:
            secret = (await admin.put(f"{STATION}/secret", json={})).json()["secret"]
            closed = await one.closed()
            assert (closed.code, closed.reason) == (1008, "the secret of this station has changed")
        async with hub.station(headers=[raw.basic("SUBS001", secret)]) as one:
            await admin.put(f"{STATION}/secret", json={})
            assert (await one.closed()).code == 1008


async def test_an_identity_that_the_door_refuses_is_not_added(tmp_path: Path) -> None:
    async with face(tmp_path, accept="any") as hub, await hub.admin() as admin:
        for identity in ("a\u202eb", "\x85", "x\xa0y", "\u0378"):
            refused = await admin.post(f"{API}/stations", json={"identity": identity})
            assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "$.identity"), identity
            assert (await raw.knock(hub.where, identity)).status == 400


async def test_a_change_is_made_wholly_or_not_at_all(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        await hub.add()
        wrong = await admin.patch(STATION, json={"name": "N", "site": "nowhere", "strict": True})
        assert (wrong.status_code, wrong.json()["errors"][0]["path"]) == (400, "$.site")
        assert (await admin.get(STATION)).json()["strict"] is False
        await hub.service.stop()
        assert (await admin.patch(STATION, json={"name": "N", "strict": True})).status_code == 503
        assert hub.device().name == ""


async def test_who_may_not_manage_secrets_does_not_remove_a_station_that_has_one(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        accounts = hub.world.accounts
        site = (await accounts.create_site(hub.world.admin, "Dike")).id
        _, token = await accounts.create_token(None, account="owner@example.org", role=Role.OWNER, scope=f"site:{site}")
        owner = hub.client(token)
        await admin.post(f"{API}/stations", json={"identity": "SUBS001", "site": site})
        await admin.put(f"{STATION}/secret", json={})
        assert (await owner.delete(STATION)).status_code == 403
        assert accounts.has_credential("os3p:SUBS001")
        assert (await admin.get(STATION)).status_code == 200
        await admin.delete(f"{STATION}/secret")
        assert (await owner.delete(STATION)).status_code == 204
        await owner.aclose()


async def test_strict_and_heartbeat_of_one_station(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        changed = await admin.patch(STATION, json={"strict": True, "heartbeat_interval": 77})
        assert (changed.json()["strict"], changed.json()["heartbeat_interval"]) == (True, 77)
        assert (await one.boot())["interval"] == 77
        untouched = await admin.patch(STATION, json={"name": "N"})
        assert (untouched.json()["strict"], untouched.json()["name"]) == (True, "N")
        back = await admin.patch(STATION, json={"strict": None, "heartbeat_interval": None})
        assert (back.json()["strict"], back.json().get("heartbeat_interval")) == (False, None)


async def test_without_the_central_system_it_is_said(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        await hub.add()
        await hub.service.stop()
        answer = await admin.get(STATION)
        assert (answer.status_code, answer.json()["type"]) == (503, "/docs#problem-unavailable")


# ------------------------------------------------------------------------------------------------------------------- messages

PROFILES = [
    {
        "profileId": 3, "stackLevel": 0, "recurrencyKind": "Weekly", "validFrom": "2026-03-01T00:00:00", "validTo": "2026-04-01T00:00:00",
        "daySchedule": [{"start": {"kind": "Sunset", "offset": -60}, "end": {"kind": "Absolute", "time": "23:00:00"}}],
    }
]  # fmt: skip
EVERY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ChangeConfiguration": ({"key": "Geolocation", "value": "[52.1,5.1]"}, {"status": "Accepted"}),
    "ClearSingleStreetlightProfile": ({"contactorId": 2, "stackLevel": 1}, {"status": "Accepted"}),
    "GetConfiguration": ({"key": ["Sunset"]}, {"configurationKey": [{"key": "Sunset", "readonly": True, "value": "x"}]}),
    "GetEffectiveStreetlightDaySchedule": (
        {"contactorId": 1, "at": "2026-03-01T00:00:00"},
        {"contactorId": 1, "daySchedule": [{"start": "20:00:00", "end": "23:00:00"}]},
    ),
    "GetFile": (
        {
            "fileType": "MeterValueHistory", "location": "ftp://u:p@h.example/tmp", "startTime": "2026-03-01T00:00:00Z",
            "stopTime": "2026-03-02T00:00:00Z", "requestId": "r1",
        },
        {"status": "Accepted", "fileName": "a.txt"},
    ),
    "OverrideStreetlight": ({"contactorId": 1, "action": "Suspend"}, {"status": "Accepted"}),
    "Reset": ({}, {"status": "Accepted"}),
    "ResetMVFaultIndicator": ({}, {"status": "Accepted"}),
    "ResumeStreetlight": ({}, {"status": "Accepted"}),
    "SetStreetlightProfile": ({"contactorId": 1, "clearAllSchedules": True, "streetlightProfiles": PROFILES}, {"status": "Accepted"}),
    "TestMVFaultIndicator": ({}, {"status": "Accepted"}),
    "TriggerMessage": ({"requestedMessage": "StreetlightStatusNotification", "connectorId": 4}, {"status": "Accepted"}),
    "UpdateFirmware": (
        {"retrieveDate": "2026-03-01T00:00:00Z", "location": "http://h.example/fw", "retries": 2, "retryInterval": 60, "requestId": "r2"}, {},
    ),
}  # fmt: skip


def test_every_message_to_a_station_has_its_order() -> None:
    assert set(EVERY) == set(sending.MESSAGES) == {name for name, action in ACTIONS.items() if action.initiator == "server"}
    assert set(sending.VERBS) == set(orders.VERBS)


@pytest.mark.parametrize("message", EVERY)
async def test_what_an_operator_writes_is_what_the_station_gets(tmp_path: Path, message: str) -> None:
    payload, reply = EVERY[message]
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        one.replies |= {"GetEffectiveStreetlightDaySchedule": ["NotImplemented", "", {}], message: reply}  # a profile is verified
        answer = await admin.post(f"{STATION}/messages", params={"wait": 10}, json={"message": message, "payload": payload})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["state"], answer.json()["final"]) == ("done", True), answer.text
        _, got = await one.asked_for(message)
        ours = {"requestId"} if "requestId" in got and "requestId" not in payload else set()
        assert {name: value for name, value in got.items() if name not in ours} == payload
        order = (await admin.get(f"/api/v1/commands/{answer.json()['id']}")).json()
        assert order["state"] == "done"
        assert order["arguments"].get("location", "***") == "***"


async def test_one_that_never_left_because_of_its_payload_names_the_path(tmp_path: Path) -> None:
    bad: list[tuple[str, dict[str, Any], str]] = [
        ("OverrideStreetlight", {"action": "Dim"}, "$.payload.action"),
        ("OverrideStreetlight", {"action": "On", "contactorId": 5}, "$.payload.contactorId"),
        ("OverrideStreetlight", {"action": "On", "contactor": 1}, "$.payload.contactor"),
        ("OverrideStreetlight", {}, "$.payload.action"),
        ("ChangeConfiguration", {"key": "", "value": "1"}, "$.payload.key"),
        ("GetConfiguration", {"key": [""]}, "$.payload.key[0]"),
        ("GetFile", {"fileType": "Syslog", "location": "gopher://u:pa55@h/"}, "$.payload.location"),
        ("GetFile", {"fileType": "Syslog", "startTime": "tomorrow"}, "$.payload.startTime"),
        ("GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": "2026-02-30T00:00:00"}, "$.payload.at"),
        ("SetStreetlightProfile", {"contactorId": 1, "streetlightProfiles": []}, "$.payload.streetlightProfiles"),
        ("SetStreetlightProfile", {"contactorId": 1, "streetlightProfiles": PROFILES * 2}, "$.payload.streetlightProfiles[1].stackLevel"),
        (
            "SetStreetlightProfile",
            {"contactorId": 1, "streetlightProfiles": [{**PROFILES[0], "validFrom": "2026-13-01T00:00:00"}]},
            "$.payload.streetlightProfiles[0].validFrom",
        ),
        ("TriggerMessage", {"requestedMessage": "Heartbeat", "connectorId": 1}, "$.payload.connectorId"),
        ("UpdateFirmware", {"retrieveDate": "2026-03-01T00:00:00Z"}, "$.payload.location"),
        ("UpdateFirmware", {"location": "http://h/", "retries": -1}, "$.payload.retries"),
        ("ClearSingleStreetlightProfile", {}, "$.everything"),
        ("Overridestreetlight", {"action": "On"}, "$.message"),
        ("Heartbeat", {}, "$.message"),
    ]
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        for message, payload, path in bad:
            answer = await admin.post(f"{STATION}/messages", json={"message": message, "payload": payload})
            assert answer.status_code == 400, (message, payload, answer.text)
            assert path in [error["path"] for error in answer.json()["errors"]], (message, payload, answer.text)
            assert "pa55" not in answer.text
        assert one.asked == []
        assert (await admin.get("/api/v1/commands")).json()["items"] == []


async def test_a_viewer_is_not_told_what_is_wrong_with_an_order(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted(), hub.client(await hub.token(Role.VIEWER)) as viewer:
        answer = await viewer.post(f"{STATION}/messages", json={"message": "OverrideStreetlight", "payload": {"action": "Dim"}})
        assert answer.status_code == 403


async def test_clearing_everything_has_to_be_said(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        one.replies["ClearSingleStreetlightProfile"] = {"status": "Accepted"}
        body = {"message": "ClearSingleStreetlightProfile", "everything": True}
        assert (await admin.post(f"{STATION}/messages?wait=10", json=body)).json()["state"] == "done"
        assert one.asked[-1][3] == {}
        wrong = await admin.post(f"{STATION}/messages", json={"message": "Reset", "everything": True})
        assert wrong.json()["errors"][0]["path"] == "$.everything"


async def test_offline_is_refused_at_once_or_waits_until_it_expires(tmp_path: Path) -> None:
    body = {"message": "ResumeStreetlight", "payload": {"contactorId": 3}}
    async with face(tmp_path) as hub, await hub.admin() as admin:
        await admin.post(f"{API}/stations", json={"identity": "SUBS001"})
        refused = await admin.post(f"{STATION}/messages", json=body)
        assert (refused.status_code, refused.json()["type"]) == (409, "/docs#problem-offline")
        short = (await admin.post(f"{STATION}/messages", json={**body, "wait_online": True, "expires_in": 0.1})).json()
        waits = (await admin.post(f"{STATION}/messages", json={**body, "wait_online": True, "expires_in": 60, "id": "mine"})).json()
        assert (waits["state"], waits["final"], waits["id"]) == ("accepted", False, "mine")
        again = (await admin.post(f"{STATION}/messages", json={**body, "wait_online": True, "id": "mine"})).json()
        assert again["created"] == waits["created"]
        await asyncio.sleep(0.2)
        async with hub.accepted() as one:
            id, payload = await one.asked_for("ResumeStreetlight")
            assert payload == {"contactorId": 3}
            one.result(id, {"status": "Accepted"})
            assert (await admin.get("/api/v1/commands/mine?wait=10")).json()["state"] == "done"
            assert one.asked == []
        assert (await admin.get(f"/api/v1/commands/{short['id']}")).json()["state"] == "expired"


async def test_a_station_that_says_no_is_quoted(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin:
        one.replies["OverrideStreetlight"] = {"status": "RejectedLocalOverride"}
        body = {"message": "OverrideStreetlight", "payload": {"action": "On"}}
        sent = (await admin.post(f"{STATION}/messages?wait=10", json=body)).json()
        assert sent["state"] == "failed"
        assert "RejectedLocalOverride" in sent["error"]


async def test_the_hubs_own_files_by_wire_names(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted() as one, await hub.admin() as admin, hub.client(None) as station:
        one.replies |= {"GetFile": {"status": "Accepted", "fileName": "s.txt"}, "UpdateFirmware": {}}
        sent = (await admin.post(f"{STATION}/messages?wait=10", json={"message": "GetFile", "payload": {"fileType": "Syslog"}})).json()
        assert (await admin.get(f"{API}/files?station=SUBS001")).json()["items"][0]["state"] == "expected"
        assert (await station.put(f"{one.asked[-1][3]['location']}/s.txt", content=b"log")).status_code == 201
        (file,) = (await admin.get(f"{API}/files?kind=upload")).json()["items"]
        assert (file["state"], file["size"], file["name"], file["command"]) == ("arrived", 3, "s.txt", sent["id"])
        assert file["request"] == sent["result"]["requestId"]
        content = await admin.get(f"{API}/files/{file['id']}/content")
        assert (content.content, content.headers["content-disposition"]) == (b"log", 'attachment; filename="s.txt"')
        body = {"message": "UpdateFirmware", "file": "fw.bin"}
        none = await admin.post(f"{STATION}/messages", json=body)
        assert (none.status_code, none.json()["errors"][0]["path"]) == (400, "$.file")
        await put(admin)
        assert (await admin.post(f"{STATION}/messages?wait=10", json=body)).json()["state"] == "done"
        assert (await station.get(one.asked[-1][3]["location"])).content == b"firmware"
        for name in ("..", ".x", "a b", "0" * 32, "x" * 121):
            wrong = await admin.put(f"{API}/files/{name.replace('..', '%2E%2E').replace(' ', '%20')}/content", content=b"x")
            assert wrong.status_code in (400, 404), name
        assert (await admin.delete(f"{API}/files/fw.bin")).status_code == 204
        assert (await station.get(one.asked[-1][3]["location"])).status_code == 404
        assert (await admin.get(f"{API}/files/fw.bin/content")).status_code == 404
        assert (await admin.get(f"{API}/files/{file['id']}")).json()["sha256"]


def test_paths_of_faults_are_in_the_words_of_the_message() -> None:
    with pytest.raises(InvalidInput) as refused:
        verbs.validate(
            "light.schedule.set", {"contactor": 1, "profiles": [{"profile_id": 1, "stack_level": 0, "recurrence": "weekly", "day_schedule": []}]}
        )
    moved = InvalidInput("", tuple(type(one)(one.path.replace("$", "$.arguments", 1), one.reason) for one in refused.value.faults))
    assert {one.path for one in sending.in_its_words("SetStreetlightProfile", moved).faults} == {"$.payload.streetlightProfiles[0].daySchedule"}


# ---------------------------------------------------------------------------------------------------------------------- roles

ROLES = ("admin", "operator", "viewer", "owner", "nobody")
"""Of the whole hub; the owner owns nothing here; nobody has no token."""
ACCESS: dict[str, tuple[dict[str, Any] | bytes | None, str]] = {
    f"GET {API}/stations": (None, "200 200 200 200 401"),
    f"POST {API}/stations": ({"identity": "{n}"}, "201 201 403 201 401"),
    f"GET {STATION}": (None, "200 200 200 404 401"),
    f"PATCH {STATION}": ({"strict": True}, "200 200 403 404 401"),
    f"PATCH {STATION}?": ({"admission": "known"}, "200 200 403 404 401"),
    f"DELETE {API}/stations/GOES": (None, "204 204 403 404 401"),
    f"PUT {STATION}/secret": ({}, "200 200 403 404 401"),
    f"DELETE {STATION}/secret": (None, "204 204 403 404 401"),
    f"POST {STATION}/messages": ({"message": "ResumeStreetlight", "wait_online": True}, "200 200 403 404 401"),
    f"GET {API}/files": (None, "200 200 403 403 401"),
    f"GET {API}/files/fw.bin": (None, "200 200 403 403 401"),
    f"GET {API}/files/fw.bin/content": (None, "200 200 403 403 401"),
    f"PUT {API}/files/fw.bin/content": (b"x", "200 200 403 403 401"),
    f"DELETE {API}/files/fw.bin": (None, "204 204 403 403 401"),
}


def given(body: dict[str, Any] | bytes | None, role: str) -> dict[str, Any]:
    """The body of a request; ``{n}`` in it is different for each role."""
    if isinstance(body, bytes):
        return {"content": body}
    return {} if body is None else {"json": {name: role if value == "{n}" else value for name, value in body.items()}}


async def test_every_route_for_every_role(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        await admin.post(f"{API}/stations", json={"identity": "SUBS001"})
        routes = {f"{one.method} {one.path.format(identity='SUBS001', file_id='fw.bin')}" for one in hub.parts.operations}
        assert routes <= {line.rstrip("?").replace("GOES", "SUBS001") for line in ACCESS}
        tokens = {role: await hub.token(Role(role)) if role != "nobody" else None for role in ROLES}
        for line, (body, expected) in ACCESS.items():
            method, _, path = line.partition(" ")
            for role, status in zip(ROLES, expected.split(), strict=True):
                await put(admin)
                await admin.post(f"{API}/stations", json={"identity": "GOES"})
                await admin.put(f"{STATION}/secret", json={})
                async with hub.client(tokens[role]) as client:
                    answer = await client.request(method, path.rstrip("?"), **given(body, role))
                assert answer.status_code == int(status), (line, role, answer.text)


# -------------------------------------------------------------------------------------------------------------------- OpenAPI


async def document(hub: Face) -> dict[str, Any]:
    async with hub.client(None) as client:
        found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


async def test_the_operations_are_described_and_answer_as_they_say(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, hub.accepted(), await hub.admin() as admin:
        await put(admin)
        found = await document(hub)
        for operation in hub.parts.operations:
            described = found["paths"][operation.path][operation.method.lower()]
            assert described["summary"]
            assert described["description"]
            assert all(parameter["description"] for parameter in described.get("parameters", ()))
        for path, asked in (("stations", f"{API}/stations"), ("stations/{identity}", STATION), ("files", f"{API}/files")):
            schema = found["paths"][f"{API}/{path}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema_rs.validator_for({**schema, "components": found["components"]}).validate((await admin.get(asked)).json())
        async with hub.client(None) as client:
            assert (await client.options(STATION)).headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


@pytest.mark.timeout(120)
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    async with face(tmp_path) as hub, await hub.admin() as admin:
        await admin.post(f"{API}/stations", json={"identity": "SUBS001"})
        await put(admin)
        only = ("--include-path-regex", "/os3p/", "--max-examples", "3", "--phases", "examples,coverage,fuzzing")
        code, said = await schemathesis(hub, await hub.token(Role.ADMIN), tmp_path, *only)  # type: ignore[arg-type]
        assert code == 0, said[-12_000:]
