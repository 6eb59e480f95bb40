"""Every route × every role, from the application's own route table: a route without a line here fails the test.

The expectations are written down by hand, from DESIGN and from what each role is for; they share nothing with ``core.verbs``.
"""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote

import pytest
from litestar import Litestar
from tests.web.conftest import Make
from tests.web.running import Running

from gridloom.core.model import Device, DeviceKind, EventState, Role, Transaction
from gridloom.web import openapi
from gridloom.web.server import OWN_ROUTES

ROLES = ("admin", "operator", "viewer", "owner", "installer", "outsider", "nobody")
"""admin, operator and viewer of the whole hub; owner and installer of the site the device is in; owner of another site; no token."""

OPEN = "200 200 200 200 200 200 200"
"""For everybody, also without a token."""
ANY_TOKEN = "200 200 200 200 200 200 401"
STAFF = "200 200 403 403 403 403 401"
ADMINS = "200 403 403 403 403 403 401"
SEES_DEVICE = "200 200 200 200 200 404 401"
SEES_VALUES = "200 200 200 200 403 404 401"
ORDERS = "202 202 403 202 403 404 401"
DEVICE_MANAGERS = "200 200 403 200 403 404 401"

EXPECTED: dict[str, str] = {
    "GET /": OPEN,
    "GET /docs": OPEN,
    "GET /static/{name}": OPEN,
    "GET /openapi.json": OPEN,
    "GET /api/v1/openapi.json": OPEN,
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /version": OPEN,
    "GET /metrics": STAFF,  # on a listener beyond loopback
    "GET /api/v1/me": ANY_TOKEN,
    "GET /api/v1/measurands": ANY_TOKEN,
    "GET /api/v1/verbs": ANY_TOKEN,
    "GET /api/v1/event-kinds": ANY_TOKEN,
    "GET /api/v1/devices": ANY_TOKEN,
    "GET /api/v1/devices/{device_id}": SEES_DEVICE,
    "PATCH /api/v1/devices/{device_id}": DEVICE_MANAGERS,
    "DELETE /api/v1/devices/{device_id}": DEVICE_MANAGERS.replace("200", "204"),
    "GET /api/v1/devices/{device_id}/readings": SEES_VALUES,
    "GET /api/v1/devices/{device_id}/commands": SEES_VALUES,
    "POST /api/v1/devices/{device_id}/commands": ORDERS,
    "GET /api/v1/commands": ANY_TOKEN,
    "GET /api/v1/commands/{command_id}": "200 200 200 200 404 404 401",
    "DELETE /api/v1/commands/{command_id}": "200 200 403 200 404 404 401",
    "GET /api/v1/readings/latest": ANY_TOKEN,
    "GET /api/v1/readings/series": ANY_TOKEN,
    "GET /api/v1/readings/aggregate": ANY_TOKEN,
    "GET /api/v1/events": ANY_TOKEN,
    "GET /api/v1/alarms": ANY_TOKEN,
    "GET /api/v1/alarms/history": ANY_TOKEN,
    "GET /api/v1/alarms/{alarm_id}": SEES_DEVICE,
    "POST /api/v1/alarms/{alarm_id}/acknowledge": DEVICE_MANAGERS,
    "GET /api/v1/transactions": ANY_TOKEN,
    "GET /api/v1/transactions/{transaction_id}": "200 200 200 200 404 404 401",
    "GET /api/v1/audit": ANY_TOKEN,
    "GET /api/v1/tokens": ANY_TOKEN,
    "POST /api/v1/tokens": "201 403 403 403 403 403 401",  # a token for another account
    "DELETE /api/v1/tokens/{token_id}": "204 404 404 404 404 404 401",
    "GET /api/v1/accounts": ADMINS,
    "POST /api/v1/accounts": ADMINS.replace("200", "201"),
    "GET /api/v1/accounts/{account_id}": ADMINS,
    "PATCH /api/v1/accounts/{account_id}": ADMINS,
    "PUT /api/v1/accounts/{account_id}/password": ADMINS.replace("200", "204"),
    "GET /api/v1/sites": ANY_TOKEN,
    "POST /api/v1/sites": "201 201 403 201 403 201 401",
    "GET /api/v1/sites/{site_id}": SEES_DEVICE,
    "PATCH /api/v1/sites/{site_id}": DEVICE_MANAGERS,
    "DELETE /api/v1/sites/{site_id}": DEVICE_MANAGERS.replace("200", "204"),
    "GET /api/v1/grants": ANY_TOKEN,
    "PUT /api/v1/grants": "200 403 403 200 403 404 401",
    "DELETE /api/v1/grants": "204 403 403 204 403 404 401",
    "GET /api/v1/outbox": STAFF,
    "GET /api/v1/outbox/log": STAFF,
    "GET /api/v1/outbox/{entry_id}": STAFF,
    "POST /api/v1/outbox/{entry_id}/replay": "409 409 403 403 403 403 401",  # it waits anyway
    "GET /api/v1/stream": ANY_TOKEN,
}

QUERIES = {
    "GET /api/v1/readings/aggregate": "operator=count&step=total&begin=2026-01-01T00:00:00Z&end=2026-02-01T00:00:00Z",
    "GET /api/v1/outbox/log": "queue=webhook&target=x",
    "GET /api/v1/stream": "seconds=0.05",
}

numbers = itertools.count(1)


def routes() -> set[str]:
    app = Litestar(list(OWN_ROUTES), openapi_config=None, logging_config=None)
    return {f"{one.method} {one.path}" for one in openapi.operations(app)}


def test_no_route_is_forgotten() -> None:
    assert routes() == set(EXPECTED)
    assert all(len(line.split()) == len(ROLES) for line in EXPECTED.values())


class World:
    """One hub with people in all roles, and makers of what a route may need."""

    def __init__(self, hub: Running) -> None:
        self.hub = hub
        self.tokens: dict[str, str | None] = {"nobody": None}

    async def people(self) -> World:
        accounts = self.hub.hub.accounts
        for role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER, Role.OWNER, Role.INSTALLER):
            self.tokens[role.value] = await self.hub.token(role)
        _, self.tokens["outsider"] = await accounts.create_token(None, account="outsider@example.org", role=Role.OWNER)
        await accounts.create_account(None, "third@example.org", role=Role.VIEWER, scope="*")
        self.admin = accounts.principal("admin@example.org")
        await accounts.create_site(self.admin, "Home", id="home")
        await accounts.create_site(self.admin, "Away", id="away")
        await accounts.grant(None, "owner@example.org", "site:home", Role.OWNER)
        await accounts.grant(None, "installer@example.org", "site:home", Role.INSTALLER)
        await accounts.grant(None, "outsider@example.org", "site:away", Role.OWNER)
        return self

    async def device(self) -> str:
        id = f"ekm:{next(numbers)}"
        given = Device(id=id, integration="ekm", identity=id[4:], kind=DeviceKind.IO, site="home", verbs=("relay.set",))
        await self.hub.hub.registry.register(given)
        return id

    async def values(self, wanted: str) -> dict[str, str]:
        """Fresh things for one request, by the names of path parameters (those in ``wanted``)."""
        hub, n = self.hub.hub, next(numbers)
        found = {"name": "app.js", "email": "third@example.org"}
        if any(name in wanted for name in ("device_id", "command_id", "alarm_id", "transaction_id")):
            device = found["device_id"] = await self.device()
        if "command_id" in wanted:
            order = await hub.commands.submit(self.admin, device, "relay.set", {"relay": 1, "state": "open"}, wait_online=True)
            found["command_id"] = order.id
        if "alarm_id" in wanted:
            await self.hub.event("alarm.silence", device, state=EventState.RAISED)
            found["alarm_id"] = next(one.id for one in hub.alarms.active(self.admin) if (one.device, one.kind) == (device, "alarm.silence"))
        if "transaction_id" in wanted:
            found["transaction_id"] = (await hub.transactions.begin(Transaction("", device, "1", 1_767_225_600_000_000))).id
        if "token_id" in wanted:
            found["token_id"] = (await hub.accounts.create_token(None, account="admin@example.org", role=Role.VIEWER))[0].id
        if "account_id" in wanted or "grants" in wanted:
            account = await hub.accounts.create_account(None, f"somebody{n}@example.org")
            found |= {"account_id": account.id, "email": account.email}
        if "site_id" in wanted or "grants" in wanted:
            site = await hub.accounts.create_site(self.admin, "S", id=f"s{n}")
            await hub.accounts.grant(None, "owner@example.org", f"site:{site.id}", Role.OWNER)
            await hub.accounts.grant(None, "installer@example.org", f"site:{site.id}", Role.INSTALLER)
            await hub.accounts.grant(None, found["email"], f"site:{site.id}", Role.VIEWER)
            found["site_id"] = site.id
        if "entry_id" in wanted:
            put = hub.outbox.write("webhook", "x", "k", {"n": n})
            await hub.intake.commit([put])
            found["entry_id"] = put.id
        return found


def body_of(route: str, values: dict[str, str]) -> Any:
    n = next(numbers)
    return {
        "PATCH /api/v1/devices/{device_id}": {"name": "x"},
        "POST /api/v1/devices/{device_id}/commands": {"verb": "relay.set", "arguments": {"relay": 1, "state": "open"}, "wait_online": True},
        "POST /api/v1/alarms/{alarm_id}/acknowledge": {},
        "POST /api/v1/tokens": {"role": "viewer", "account": "third@example.org"},
        "POST /api/v1/accounts": {"email": f"new{n}@example.org"},
        "PATCH /api/v1/accounts/{account_id}": {"name": "x"},
        "PUT /api/v1/accounts/{account_id}/password": {"password": "correct horse"},
        "POST /api/v1/sites": {"name": "x"},
        "PATCH /api/v1/sites/{site_id}": {"name": "x"},
        "PUT /api/v1/grants": {"account": values["email"], "scope": f"site:{values.get('site_id')}", "role": "viewer"},
    }.get(route)


@pytest.fixture
async def world(make: Make) -> World:
    return await World(await make(loopback=False)).people()


async def test_every_route_for_every_role(world: World) -> None:
    wrong: dict[str, str] = {}
    for route, expected in EXPECTED.items():
        found = [await status(world, route, role) for role in ROLES]
        if found != expected.split():
            wrong[route] = f"expected {expected}, got {' '.join(found)} ({', '.join(ROLES)})"
    assert wrong == {}


async def status(world: World, route: str, role: str) -> str:
    method, _, template = route.partition(" ")
    values = await world.values(route)
    path = template
    for name, value in values.items():
        path = path.replace("{" + name + "}", quote(value, safe=""))
    query = QUERIES.get(route, "")
    if route == "DELETE /api/v1/grants":
        query = f"account={values['email']}&scope=site:{values['site_id']}"
    async with world.hub.client(world.tokens[role]) as client:
        answer = await client.request(method, f"{path}?{query}" if query else path, json=body_of(route, values))
    return str(answer.status_code)


@pytest.mark.parametrize("path", ["devices", "commands", "readings/latest", "readings/series", "events", "alarms", "transactions", "sites", "audit"])
async def test_lists_hold_only_what_one_may_see(world: World, path: str) -> None:
    """The outsider gets an empty list where the admin gets something."""
    values = await world.values("device_id command_id alarm_id transaction_id site_id")
    await world.hub.reading(values["device_id"])
    async with world.hub.client(world.tokens["admin"]) as admin, world.hub.client(world.tokens["outsider"]) as outsider:
        assert (await admin.get(f"/api/v1/{path}")).json()["items"] != []
        seen = (await outsider.get(f"/api/v1/{path}")).json()["items"]
    assert [one for one in seen if one.get("id") != "away"] == []
