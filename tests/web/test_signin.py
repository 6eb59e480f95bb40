"""Who gets in: tokens everywhere, a viewer's session for a browser on this machine, nobody else."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.web.conftest import Make
from tests.web.running import Running

from gridloom.core.model import Role
from gridloom.web.settings import is_loopback, is_loopback_name

DEVICES = "/api/v1/devices"


async def test_a_token_opens_and_nothing_else_does(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    async with hub.client() as client:
        assert (await client.get(DEVICES, headers={"authorization": f"Bearer {token}"})).status_code == 200
        assert (await client.get(DEVICES, headers={"authorization": f"bearer {token}"})).status_code == 200
        for wrong in ("", "Bearer", f"Basic {token}", "Bearer nonsense", f"Bearer {token}x", f"Bearer {'x' * 5000}"):
            answer = await client.get(DEVICES, headers={"authorization": wrong} if wrong else {})
            assert answer.status_code == 401, wrong
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["type"] == "/docs#problem-unauthenticated"
            assert token not in answer.text
        assert (await client.get(DEVICES, params={"token": token})).status_code == 401  # never from a URL


async def test_a_revoked_token_opens_nothing(hub: Running) -> None:
    token = await hub.token(Role.VIEWER)
    async with hub.client(await hub.token(Role.ADMIN)) as admin, hub.client(token) as client:
        assert (await client.get(DEVICES)).status_code == 200
        account = hub.hub.accounts.account("viewer@example.org").id
        ids = [one["id"] for one in (await admin.get("/api/v1/tokens")).json()["items"] if one["account"] == account]
        assert (await admin.delete(f"/api/v1/tokens/{ids[0]}")).status_code == 204
        assert (await client.get(DEVICES)).status_code == 401


async def test_a_browser_on_this_machine_looks_without_a_token(hub: Running) -> None:
    await hub.device()
    async with hub.client() as browser:
        assert (await browser.get(DEVICES)).status_code == 401
        page = await browser.get("/")
        cookie = page.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert [one["id"] for one in (await browser.get(DEVICES)).json()["items"]] == ["tic:021762010203"]
        me = (await browser.get("/api/v1/me")).json()
        assert [grant["role"] for grant in me["grants"]] == ["viewer"]
        # it looks, and does nothing else
        assert (await browser.patch(f"{DEVICES}/tic:021762010203", json={"name": "x"}, headers={"origin": hub.url})).status_code == 403
        assert (await browser.post("/api/v1/tokens", json={"role": "viewer"}, headers={"origin": hub.url})).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:80"},  # DNS rebinding: the name of the page, resolved to 127.0.0.1
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"x-forwarded-for": "203.0.113.9"},  # through a proxy on this machine
        {"forwarded": "for=203.0.113.9"},
        {"via": "1.1 proxy"},
        {"x-real-ip": "203.0.113.9"},
    ],
)
async def test_who_only_seems_to_be_local_gets_nothing(hub: Running, headers: dict[str, str]) -> None:
    async with hub.client() as browser:
        good = await browser.get("/")
        session = good.headers["set-cookie"].partition(";")[0]
        page = await browser.get("/", headers=headers)
        assert "set-cookie" not in page.headers
        answer = await browser.get(DEVICES, headers={**headers, "cookie": session})
        assert answer.status_code == 401
        assert (await browser.get("/metrics", headers=headers)).status_code == 401


async def test_an_unsafe_request_by_cookie_from_another_site_counts_for_nothing(hub: Running) -> None:
    async with hub.client() as browser:
        await browser.get("/")
        for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}, {}):
            answer = await browser.post("/api/v1/sites", json={"name": "x"}, headers=headers)
            assert answer.status_code == 403
            assert "another site" in answer.json()["detail"]
        own = await browser.post("/api/v1/sites", json={"name": "x"}, headers={"origin": hub.url})
        assert "another site" not in own.json()["detail"]  # refused for its role, not for its origin


async def test_the_local_viewer_can_be_switched_off(make: Make) -> None:
    hub = await make(local_viewer=False)
    async with hub.client() as browser:
        assert "set-cookie" not in (await browser.get("/")).headers
        assert (await browser.get(DEVICES)).status_code == 401


async def test_beyond_loopback_tokens_are_in_force_everywhere(make: Make) -> None:
    hub = await make(loopback=False)
    async with hub.client() as anybody, hub.client(await hub.token(Role.OPERATOR)) as operator, hub.client(await hub.token(Role.VIEWER)) as viewer:
        assert "set-cookie" not in (await anybody.get("/")).headers
        assert (await anybody.get(DEVICES)).status_code == 401
        assert (await anybody.get("/metrics")).status_code == 401
        assert (await operator.get("/metrics")).status_code == 200
        assert (await viewer.get("/metrics")).status_code == 403
        for open_to_all in ("/", "/healthz", "/readyz", "/version", "/docs", "/openapi.json", "/static/app.js"):
            assert (await anybody.get(open_to_all)).status_code == 200


async def test_without_a_local_viewer_metrics_need_a_token_too(make: Make) -> None:
    hub = await make(local_viewer=False)
    async with hub.client() as anybody, hub.client(await hub.token(Role.OPERATOR)) as operator:
        assert (await anybody.get("/metrics")).status_code == 401
        assert (await operator.get("/metrics")).status_code == 200


async def test_another_hubs_cookie_is_not_ours(make: Make) -> None:
    one, other = await make(), await make()
    async with one.client() as browser:
        await browser.get("/")
        value = next(iter(browser.cookies.values())) if hasattr(browser.cookies, "values") else ""
    async with httpx.AsyncClient(base_url=other.url) as client:
        assert (await client.get(DEVICES, headers={"cookie": f"gridloom_{other.port}={value}"})).status_code == 401


def test_names_of_loopback() -> None:
    for good in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST."):
        assert is_loopback(good), good
    for bad in ("0.0.0.0", "::", "192.168.1.2", "hub.example", "127.0.0.1.nip.io", ""):
        assert not is_loopback(bad), bad
    for good in ("localhost:8470", "127.0.0.1", "[::1]:8470", "hub.localhost:80"):
        assert is_loopback_name(good), good
    for bad in ("localhost.evil.example", "evil.example", "", "[::2]:80", "192.168.0.1:8470"):
        assert not is_loopback_name(bad), bad


async def test_a_token_of_the_command_line_works_at_once(hub: Running) -> None:
    """`gridloom token create` writes into the store from another process: memory does not know it yet."""
    from gridloom.core.accounts import Accounts

    elsewhere = Accounts(store=hub.store, clock=hub.clock)
    await elsewhere.load()
    _, secret = await elsewhere.create_token(None, account="new@example.org", role=Role.VIEWER)
    async with hub.client(secret) as client:
        assert (await client.get(DEVICES)).status_code == 200
    await asyncio.sleep(0)
