"""Devices over HTTP: lists with filters and pages, one device, changes, removal."""

from __future__ import annotations

from typing import Any

import pytest
from tests.web.running import Running

from gridloom.core.model import Admission, DeviceKind, Role


async def street(hub: Running) -> None:
    await hub.device("tic:1")
    await hub.device("tic:2", admission=Admission.PENDING)
    await hub.device("os3p:SUBS 123", kind=DeviceKind.SUBSTATION, verbs=("light.override",), measurands=())
    await hub.device("ocpp:cp/1", kind=DeviceKind.CHARGER, verbs=("charge.start",), measurands=())
    link = hub.hub.registry.attach("tic:1")
    link.online()


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["ocpp:cp/1", "os3p:SUBS 123", "tic:1", "tic:2"]),
        ("kind=charger", ["ocpp:cp/1"]),
        ("integration=tic", ["tic:1", "tic:2"]),
        ("capability=light.override", ["os3p:SUBS 123"]),
        ("capability=Power.Active.Import", ["tic:1", "tic:2"]),
        ("online=true", ["tic:1"]),
        ("online=false&integration=tic", ["tic:2"]),
        ("admission=pending", ["tic:2"]),
        ("site=nowhere", []),
        ("site=", ["ocpp:cp/1", "os3p:SUBS 123", "tic:1", "tic:2"]),
    ],
)
async def test_lists(hub: Running, query: str, ids: list[str]) -> None:
    await street(hub)
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        answer = await client.get(f"/api/v1/devices?{query}")
        assert [one["id"] for one in answer.json()["items"]] == ids


async def test_pages(hub: Running) -> None:
    await street(hub)
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        seen: list[str] = []
        url = "/api/v1/devices?limit=3"
        while url:
            answer = await client.get(url)
            seen += [one["id"] for one in answer.json()["items"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
        assert seen == ["ocpp:cp/1", "os3p:SUBS 123", "tic:1", "tic:2"]
        for wrong in ("!!!", "YWJj", "W10", "WzFd"):
            answer = await client.get(f"/api/v1/devices?cursor={wrong}")
            assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "$.cursor")


async def test_one_device_says_what_it_can_and_whether_it_is_there(hub: Running) -> None:
    await street(hub)
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        one = (await client.get("/api/v1/devices/ocpp:cp%2F1")).json()
        there = (await client.get("/api/v1/devices/tic:1")).json()
    assert (one["identity"], one["kind"], one["verbs"], one["online"]) == ("cp/1", "charger", ["charge.start"], False)
    assert one["reason"]
    assert there["online"] is True


async def test_a_device_is_named_moved_admitted_and_removed(hub: Running) -> None:
    await street(hub)
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        site = (await client.post("/api/v1/sites", json={"name": "Home", "id": "home", "timezone": "Europe/Paris"})).json()
        changed = await client.patch(
            "/api/v1/devices/tic:2", json={"name": "Cellar", "site": site["id"], "admission": "known", "attributes": {"floor": "-1"}}
        )
        assert changed.status_code == 200, changed.text
        one = (await client.get("/api/v1/devices/tic:2")).json()
        assert (one["name"], one["site"], one["admission"], one["attributes"]) == ("Cellar", "home", "known", {"floor": "-1"})
        assert [one["id"] for one in (await client.get("/api/v1/devices?site=home")).json()["items"]] == ["tic:2"]
        nowhere = await client.patch("/api/v1/devices/tic:2", json={"site": "hom"})
        assert nowhere.status_code in (400, 404)
        assert (await client.get("/api/v1/devices/tic:2")).json()["site"] == "home"
        assert (await client.delete("/api/v1/devices/tic:2")).status_code == 204
        assert (await client.get("/api/v1/devices/tic:2")).status_code == 404
        assert (await client.delete("/api/v1/devices/tic:2")).status_code == 404
        trail = (await client.get("/api/v1/audit?device=tic:2")).json()["items"]
    assert len(trail) >= 2
    assert all(line["account"] and line["address"] == "127.0.0.1" for line in trail)


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"nam": "x"}, {"$.nam"}),
        ({"name": 1, "admission": "maybe", "site": None, "consent": "yes"}, {"$.name", "$.admission", "$.consent"}),
        ({"name": "a\nb"}, {"$.name"}),
        ({"name": "x\n"}, {"$.name"}),
        ({"name": "x" * 201}, {"$.name"}),
        ({"attributes": {"a": 1, "b": None}}, {"$.attributes.a", "$.attributes.b"}),
    ],
)
async def test_a_wrong_change_changes_nothing(hub: Running, body: dict[str, Any], paths: set[str]) -> None:
    await hub.device("tic:1", name="before")
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        answer = await client.patch("/api/v1/devices/tic:1", json=body)
        assert answer.status_code == 400
        assert {one["path"] for one in answer.json()["errors"]} == paths
        assert (await client.get("/api/v1/devices/tic:1")).json()["name"] == "before"


async def test_a_device_of_somebody_else_does_not_exist(hub: Running) -> None:
    await hub.device("tic:1")
    async with hub.client(await hub.token(Role.OWNER)) as stranger:
        gone = await stranger.get("/api/v1/devices/tic:nothing")
        hidden = await stranger.get("/api/v1/devices/tic:1")
        assert gone.status_code == hidden.status_code == 404
        assert gone.json()["detail"].replace("tic:nothing", "tic:1") == hidden.json()["detail"]  # word for word
        assert (await stranger.get("/api/v1/devices")).json()["items"] == []
