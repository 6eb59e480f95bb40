"""Keys: their form, who may make them, what is kept of them, and the command line."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.hub_process import Hubs
from tests.integrations.ekm.front import Front, front

from gridloom.core.errors import Conflict, Forbidden, NotFound
from gridloom.core.settings import Secret
from gridloom.integrations.ekm.keys import Keys, spelled


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Front]:
    async with front(tmp_path) as made:
        yield made


async def test_a_key_is_base64url_of_digits_and_a_secret(hub: Front) -> None:
    key, text = await hub.face.keys.create(hub.world.admin, "anna@example.org", number="1010")
    number, _, secret = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
    assert (number, "=" in text, len(secret)) == ("1010", False, 32)
    assert hub.face.keys.find(text) == key
    document = await hub.hub.documents.get("key", "1010")
    assert document is not None
    assert secret not in document.body.decode(), "of the secret only a hash is kept"
    with pytest.raises(Conflict):
        await hub.face.keys.create(hub.world.admin, "anna@example.org", number="1010")


async def test_what_is_no_key(hub: Front) -> None:
    keys = hub.face.keys
    text = hub.keys["anna"]
    number = base64.urlsafe_b64decode(text + "==").partition(b":")[0]
    wrong = base64.urlsafe_b64encode(number + b":wrong").rstrip(b"=").decode()
    for other in ("", "MTAxMDoyMDIw", wrong, text[:-4], "ä", ":", "=" * 10, "A" * 5_000, number.decode()):
        assert keys.find(other) is None, other


@given(st.text(max_size=80))
def test_no_text_is_too_strange(text: str) -> None:
    keys = Keys.__new__(Keys)
    keys._keys, keys._own = {}, Secret("own")
    assert keys.find(text) is None


async def test_keys_survive_a_restart_and_end_when_revoked(hub: Front) -> None:
    again = Keys(hub.hub)
    await again.load()
    assert [key.number for key in again.all()] == [key.number for key in hub.face.keys.all()]
    assert again.ids.of("a") == hub.face.keys.ids.of("a"), "and so do the ids of channels"
    found = again.find(hub.keys["anna"])
    assert found is not None
    await again.revoke(hub.world.admin, found.number)
    assert again.find(hub.keys["anna"]) is None
    with pytest.raises(NotFound):
        await again.revoke(hub.world.admin, found.number)
    lines = (await hub.world.query.audit(hub.world.admin, actions=("key.manage",))).lines
    assert lines[0].target == found.number


async def test_only_staff_makes_keys(hub: Front) -> None:
    anna = hub.world.accounts.principal("anna@example.org")
    with pytest.raises(Forbidden):
        await hub.face.keys.create(anna, "anna@example.org")
    with pytest.raises(NotFound):
        await hub.face.keys.create(hub.world.admin, "nobody@example.org")
    async with httpx.AsyncClient(base_url=hub.url, headers={"authorization": f"Bearer {hub.tokens['anna']}"}, trust_env=False) as client:
        assert (await client.get("/api/v1/ekm/keys")).status_code == 403
        assert (await client.post("/api/v1/ekm/keys", json={"account": "anna@example.org"})).status_code == 403


async def test_the_hubs_own_api(hub: Front) -> None:
    headers = {"authorization": f"Bearer {hub.tokens['group']}"}
    async with httpx.AsyncClient(base_url=hub.url, headers=headers, trust_env=False) as client:
        made = await client.post("/api/v1/ekm/keys", json={"account": "anna@example.org", "mac": "99:5d:ad:42:76:14", "name": "cellar"})
        assert made.status_code == 201, made.text
        key = hub.face.keys.find(made.json()["key"])
        assert key is not None
        assert (key.mac, key.name) == ("995DAD427614", "cellar")
        page = (await client.get("/api/v1/ekm/keys")).json()
        assert {"number", "kind", "account", "created", "mac", "name"} == set(next(one for one in page["items"] if one["kind"] == "gateway"))
        assert made.json()["key"] not in json.dumps(page)
        assert (await client.post("/api/v1/ekm/keys", json={"account": "anna@example.org", "mac": "nonsense"})).status_code == 400
        assert (await client.delete(f"/api/v1/ekm/keys/{key.number}")).status_code == 204
        assert (await client.delete(f"/api/v1/ekm/keys/{key.number}")).status_code == 404


async def test_the_configured_key_is_that_of_the_gateway_here(tmp_path: Path) -> None:
    async with front(tmp_path, gateway_key=Secret("MTAxMDoyMDIw"), gateway_mac="995DAD427614") as hub:
        key = hub.face.keys.find("MTAxMDoyMDIw")
        assert key is not None
        assert (key.mac, key.gateway) == ("995DAD427614", True)
        assert "MTAxMDoyMDIw" not in repr(hub.settings)


def test_addresses_are_spelled_one_way() -> None:
    assert spelled("99:5d:ad:42:76:14") == spelled("99-5D-AD-42-76-14") == spelled("995DAD427614") == "995DAD427614"


def test_the_command_line(hubs: Hubs) -> None:
    hub = hubs('[http]\nlisten = "127.0.0.1:0"\n[ekm]\npush_listen = "127.0.0.1:0"\n').start().ready()
    made = hub.cli("ekm", "key", "create", "admin", "--mac", "995DAD427614", "--name", "cellar")
    assert made.returncode == 0, made.stderr
    text = made.stdout.strip()
    number = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")[0]
    listed = json.loads(hub.cli("ekm", "key", "list", "--json").stdout)
    assert [(one["number"], one["mac"], one["name"]) for one in listed] == [(number, "995DAD427614", "cellar")]
    assert "995DAD427614" in hub.cli("ekm", "key", "list").stdout
    assert hub.cli("ekm", "key", "revoke", number).returncode == 0
    assert hub.cli("ekm", "key", "list").stdout == "no key\n"
    wrong = hub.cli("ekm", "key", "revoke", number)
    assert (wrong.returncode, "there is no key" in wrong.stderr) == (1, True)
    nowhere = hub.cli("ekm", "key", "list", "--data-dir", "nowhere")
    assert (nowhere.returncode, "no hub runs" in nowhere.stderr) == (1, True)
