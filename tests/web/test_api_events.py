"""Events and alarms over HTTP."""

from __future__ import annotations

import pytest
from tests.web.running import Running

from gridloom.core.model import EventState, Role

METER = "tic:021762010203"


async def test_the_journal_with_filters_and_pages(hub: Running) -> None:
    await hub.device()
    await hub.device("os3p:SUBS 123")
    for number in range(5):
        await hub.event("device.clock.set", message=f"m{number}")
    await hub.event("alarm.silence", "os3p:SUBS 123", state=EventState.RAISED)
    async with hub.client(await hub.token(Role.VIEWER)) as client:

        async def messages(query: str) -> list[str]:
            answer = await client.get(f"/api/v1/events?{query}")
            assert answer.status_code == 200, answer.text
            return [one.get("message", "") for one in answer.json()["items"]]

        assert await messages("kind=device.clock.set") == ["m4", "m3", "m2", "m1", "m0"]
        assert await messages("kind=device.clock.*&ascending=true&limit=2") == ["m0", "m1"]
        assert await messages("kind=device.clock.*&device=os3p:SUBS+123") == []
        assert len(await messages("kind=alarm.silence&severity=warning&device=os3p:SUBS+123&by_time=true")) == 1
        assert await messages("kind=device.clock.*&begin=2100-01-01T00:00:00Z") == []
        seen, url = [], "/api/v1/events?kind=device.clock.*&limit=2"
        while url:
            answer = await client.get(url)
            seen += [one["message"] for one in answer.json()["items"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
        assert seen == ["m4", "m3", "m2", "m1", "m0"]
        first = (await client.get("/api/v1/events?kind=device.clock.*&limit=1")).json()["items"][0]
        assert (first["device"], first["severity"], first["state"], first["time"][-1]) == (METER, "info", "occurred", "Z")
        for wrong, path in (
            ("cursor=x", "$.cursor"),
            ("begin=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "$.end"),
            ("begin=2026-01-02", "$.begin"),
        ):
            answer = await client.get(f"/api/v1/events?{wrong}")
            assert (answer.status_code, [one["path"] for one in answer.json()["errors"]]) == (400, [path])
        assert (await client.get("/api/v1/events?device=tic:nothing")).status_code in (200, 404)


async def test_an_alarm_from_raised_to_cleared(hub: Running) -> None:
    await hub.device()
    await hub.event("alarm.silence", state=EventState.RAISED, subject="L2", message="nothing for 5 min")
    async with hub.client(await hub.token(Role.OPERATOR)) as client:
        (alarm,) = (await client.get("/api/v1/alarms")).json()["items"]
        assert (alarm["device"], alarm["kind"], alarm["subject"], alarm["state"], alarm["count"]) == (METER, "alarm.silence", "L2", "raised", 1)
        seen = await client.post(f"/api/v1/alarms/{alarm['id']}/acknowledge", json={"note": "on my way"})
        assert seen.status_code == 200, seen.text
        shown = (await client.get(f"/api/v1/alarms/{alarm['id']}")).json()["acknowledged"]
        assert (shown["account"], shown["note"]) == (hub.hub.accounts.account("operator@example.org").id, "on my way")
        await hub.event("alarm.silence", state=EventState.CLEARED, subject="L2")
        assert (await client.get("/api/v1/alarms")).json()["items"] == []
        again = await client.post(f"/api/v1/alarms/{alarm['id']}/acknowledge", json={})
        assert (again.status_code, again.json()["type"]) == (409, "/docs#problem-conflict")
        history = (await client.get(f"/api/v1/alarms/history?device={METER}")).json()["items"]
        assert [one["state"] for one in history if one["kind"] == "alarm.silence"][-1] == "raised"
        assert (await client.get("/api/v1/alarms/nothing")).status_code == 404
        assert (await client.post("/api/v1/alarms/nothing/acknowledge", json={})).status_code == 404


async def test_alarms_in_pages_the_most_severe_first(hub: Running) -> None:
    for number in range(5):
        await hub.device(f"tic:{number}")
        await hub.event("alarm.silence", f"tic:{number}", state=EventState.RAISED)
    async with hub.client(await hub.token(Role.VIEWER)) as client:
        seen, url = [], "/api/v1/alarms?limit=2"
        while url:
            answer = await client.get(url)
            seen += [one["device"] for one in answer.json()["items"]]
            url = answer.links["next"]["url"] if "next" in answer.links else ""
            if len(seen) == 2:  # what is cleared between two pages breaks nothing
                await hub.event("alarm.silence", seen[-1], state=EventState.CLEARED)
        assert len(seen) == len(set(seen)) == 5


@pytest.mark.parametrize("role", [Role.VIEWER, Role.INSTALLER])
async def test_who_may_only_look_acknowledges_nothing(hub: Running, role: Role) -> None:
    await hub.device()
    await hub.event("alarm.silence", state=EventState.RAISED)
    async with hub.client(await hub.token(Role.ADMIN)) as admin, hub.client(await hub.token(role)) as client:
        (alarm,) = (await admin.get("/api/v1/alarms")).json()["items"]
        answer = await client.post(f"/api/v1/alarms/{alarm['id']}/acknowledge", json={})
        assert answer.status_code == (403 if role is Role.VIEWER else 404)  # an installer without a site sees no device
        assert "acknowledged" not in (await admin.get(f"/api/v1/alarms/{alarm['id']}")).json()
