"""Accounts, sites, grants, tokens and the audit trail over HTTP."""

from __future__ import annotations

from tests.web.running import Running

from gridloom.core.model import Role


async def test_a_token_is_made_shown_once_used_and_revoked(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as admin:
        answer = await admin.post("/api/v1/tokens", json={"role": "viewer", "name": "wall display", "expires": "2100-01-01T00:00:00+01:00"})
        assert answer.status_code == 201
        token, secret = answer.json()["token"], answer.json()["secret"]
        assert (token["name"], token["expires"]) == ("wall display", "2099-12-31T23:00:00Z")
        assert len(secret) == 43
        assert secret not in (await admin.get("/api/v1/tokens")).text
        assert secret not in (await admin.get("/api/v1/audit")).text
        async with hub.client(secret) as client:
            assert (await client.get("/api/v1/me")).json()["token"] == token["id"]
            assert (await client.get("/api/v1/accounts")).status_code == 403  # the account is an admin's, this token only looks
            assert (await admin.delete(answer.headers["location"])).status_code == 204
            assert (await client.get("/api/v1/me")).status_code == 401
        assert (await admin.delete(answer.headers["location"])).status_code == 404
        late = await admin.post("/api/v1/tokens", json={"role": "viewer", "expires": "2020-01-01T00:00:00Z"})
        assert [one["path"] for one in late.json()["errors"]] == ["$.expires"]
        naive = await admin.post("/api/v1/tokens", json={"role": "viewer", "expires": "2100-01-01T00:00:00"})
        assert [one["path"] for one in naive.json()["errors"]] == ["$.expires"]


async def test_nobody_makes_more_of_themselves(hub: Running) -> None:
    async with hub.client(await hub.token(Role.VIEWER)) as viewer, hub.client(await hub.token(Role.ADMIN)) as admin:
        assert (await viewer.post("/api/v1/tokens", json={"role": "viewer"})).status_code == 201
        assert (await viewer.post("/api/v1/tokens", json={"role": "admin"})).status_code == 403
        assert (await viewer.post("/api/v1/tokens", json={"role": "viewer", "account": "admin@example.org"})).status_code == 403
        assert (await viewer.put("/api/v1/grants", json={"account": "viewer@example.org", "scope": "*", "role": "admin"})).status_code == 403
        own = (await viewer.get("/api/v1/tokens")).json()["items"]
        everybody = (await admin.get("/api/v1/tokens")).json()["items"]
        assert {one["account"] for one in own} == {hub.hub.accounts.account("viewer@example.org").id}
        assert len(everybody) == len(own) + 1
        others = next(one["id"] for one in everybody if one not in own)
        assert (await viewer.delete(f"/api/v1/tokens/{others}")).status_code == 404


async def test_a_lesser_token_of_the_same_account_reaches_no_other(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as admin:
        own = (await admin.get("/api/v1/me")).json()["token"]
        made = (await admin.post("/api/v1/tokens", json={"role": "viewer", "expires": "2100-01-01T00:00:00Z"})).json()
        async with hub.client(made["secret"]) as viewer:
            assert [one["id"] for one in (await viewer.get("/api/v1/tokens")).json()["items"]] == [made["token"]["id"]]
            assert (await viewer.delete(f"/api/v1/tokens/{own}")).status_code == 404
            child = (await viewer.post("/api/v1/tokens", json={"role": "viewer"})).json()
            assert (child["token"]["parent"], child["token"]["expires"]) == (made["token"]["id"], "2100-01-01T00:00:00Z")
            assert "parent" not in made["token"]
        async with hub.client(child["secret"]) as second:
            assert (await second.get("/api/v1/me")).status_code == 200
            assert (await admin.delete(f"/api/v1/tokens/{made['token']['id']}")).status_code == 204
            assert (await second.get("/api/v1/me")).status_code == 401


async def test_accounts(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as admin:
        made = await admin.post(
            "/api/v1/accounts", json={"email": "ann@example.org", "name": "Ann", "role": "viewer", "scope": "*", "password": "correct horse"}
        )
        assert made.status_code == 201, made.text
        assert "correct horse" not in made.text
        url = made.headers["location"]
        assert (await admin.post("/api/v1/accounts", json={"email": "Ann@example.org"})).status_code == 409
        one = (await admin.get(url)).json()
        assert (one["email"], one["role"], one["grants"][0]["scope"]) == ("ann@example.org", "viewer", "*")
        assert (await admin.patch(url, json={"name": "Anna", "disabled": False})).json()["name"] == "Anna"
        assert "ann@example.org" in [one["email"] for one in (await admin.get("/api/v1/accounts")).json()["items"]]
        assert (await admin.get("/api/v1/accounts/nobody")).status_code == 404
        token = (await admin.post("/api/v1/tokens", json={"role": "viewer", "account": "ann@example.org"})).json()["secret"]
        async with hub.client(token) as ann:
            assert (await ann.get(url)).status_code == 200  # oneself
            assert (await ann.get("/api/v1/accounts")).status_code == 403
            assert (await ann.patch(url, json={"role": "admin"})).status_code == 403
            assert (await ann.put(f"{url}/password", json={"password": "battery staple", "old": "wrong"})).status_code == 403
            assert (await ann.put(f"{url}/password", json={"password": "battery staple", "old": "correct horse"})).status_code == 204
            assert (await ann.put(f"{url}/password", json={"password": "battery staple 2", "old": "correct horse"})).status_code == 403
            assert (await admin.patch(url, json={"disabled": True})).status_code == 200
            assert (await ann.get("/api/v1/me")).status_code == 401
        assert (await admin.put(f"{url}/password", json={"password": "set by admin"})).status_code == 204
        me = hub.hub.accounts.account("admin@example.org").id
        last = await admin.patch(f"/api/v1/accounts/{me}", json={"disabled": True})
        assert last.status_code == 409


async def test_sites_and_grants(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as admin, hub.client(await hub.token(Role.OWNER)) as owner:
        made = await owner.post("/api/v1/sites", json={"name": "Home", "id": "home", "timezone": "Europe/Paris"})
        assert (made.status_code, made.headers["location"]) == (201, "/api/v1/sites/home")
        assert (await owner.post("/api/v1/sites", json={"name": "x", "id": "home"})).status_code == 409
        assert [one["path"] for one in (await owner.post("/api/v1/sites", json={"name": "x", "timezone": "Mars/Base"})).json()["errors"]] == [
            "$.timezone"
        ]
        assert [one["path"] for one in (await owner.post("/api/v1/sites", json={"name": "x", "id": "a b"})).json()["errors"]] == ["$.id"]
        assert (await owner.patch("/api/v1/sites/home", json={"name": "House"})).json()["name"] == "House"
        assert [one["id"] for one in (await owner.get("/api/v1/sites")).json()["items"]] == ["home"]
        installer = await hub.token(Role.INSTALLER)
        async with hub.client(installer) as other:
            assert (await other.get("/api/v1/sites/home")).status_code == 404
            assert (
                await owner.put("/api/v1/grants", json={"account": "installer@example.org", "scope": "site:home", "role": "installer"})
            ).status_code == 200
            assert (await other.get("/api/v1/sites/home")).status_code == 200
            assert (await other.patch("/api/v1/sites/home", json={"name": "mine"})).status_code == 403
            assert (await other.delete("/api/v1/sites/home")).status_code == 403
            everybody = (await owner.get("/api/v1/grants?scope=site:home")).json()["items"]
            assert {one["role"] for one in everybody} == {"owner", "installer"}
            own = (await other.get("/api/v1/grants")).json()["items"]
            assert [one["scope"] for one in own] == ["site:home"]
            assert (await owner.delete("/api/v1/grants?account=installer@example.org&scope=site:home")).status_code == 204
            assert (await owner.delete("/api/v1/grants?account=installer@example.org&scope=site:home")).status_code == 404
            assert (await other.get("/api/v1/sites/home")).status_code == 404
        missing = await owner.delete("/api/v1/grants")
        assert {one["path"] for one in missing.json()["errors"]} == {"$.account", "$.scope"}
        assert (await admin.delete("/api/v1/sites/home")).status_code == 204
        assert (await admin.get("/api/v1/sites/home")).status_code == 404


async def test_whether_an_account_exists_is_not_told_to_strangers(hub: Running) -> None:
    async with hub.client(await hub.token(Role.VIEWER)) as viewer:
        await hub.token(Role.ADMIN)
        there = await viewer.get("/api/v1/grants?account=nobody@example.org")
        assert (there.status_code, there.json()) == (200, {"items": []})


async def test_the_audit_trail_says_who_when_from_where_with_which_result(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN), headers={"user-agent": "my-script/1.0"}) as admin:
        await admin.post("/api/v1/sites", json={"name": "Home", "id": "home"})
        await admin.delete("/api/v1/sites/home")
        lines = (await admin.get("/api/v1/audit?action=site.*&limit=1")).json()
        assert len(lines["items"]) == 1
        assert lines["next"]
        line = lines["items"][0]
        assert (line["action"], line["target"], line["result"], line["address"], line["client"]) == (
            "site.manage",
            "home",
            "done",
            "127.0.0.1",
            "my-script/1.0",
        )
        assert line["account"] == hub.hub.accounts.account("admin@example.org").id
        assert line["token"] == (await admin.get("/api/v1/me")).json()["token"]
        made = (await admin.post("/api/v1/tokens", json={"role": "admin", "name": "wall display"})).json()
        async with hub.client(made["secret"]) as other:
            await other.post("/api/v1/sites", json={"name": "Lab", "id": "lab"})
        latest = "/api/v1/audit?action=site.*&limit=1"
        used = (await admin.get(latest)).json()["items"][0]
        assert (used["target"], used["token"], used["token_name"]) == ("lab", made["token"]["id"], "wall display")
        await admin.delete(f"/api/v1/tokens/{used['token']}")
        gone = (await admin.get(latest)).json()["items"][0]
        assert gone["token"] == used["token"]
        assert "token_name" not in gone
    async with hub.client(await hub.token(Role.VIEWER)) as viewer:
        assert (await viewer.get("/api/v1/audit")).json()["items"] == []
