"""Bad requests get a problem that names every offending field: queries, bodies, paths, and what never becomes a request."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta
from tests.web.running import Running

from gridloom.core.errors import StorageFull
from gridloom.core.model import Role
from gridloom.web import problems
from gridloom.web.settings import WebSettings


class Asked(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=10)] = 5
    share: Annotated[float, Meta(le=1)] | None = None
    online: bool | None = None
    device: tuple[str, ...] | None = None
    name: str | None = None


def faults(query: bytes) -> dict[str, str]:
    with pytest.raises(problems.RequestFault) as caught:
        problems.query(Asked, query)
    return {fault.path: fault.reason for fault in caught.value.faults}


def test_a_query_is_read_by_its_types() -> None:
    asked = problems.query(Asked, b"limit=7&share=0.25&online=false&device=os3p%3ASUBS+123&device=a%2Fb&name=null")
    assert asked == Asked(limit=7, share=0.25, online=False, device=("os3p:SUBS 123", "a/b"), name="null")


def test_every_fault_of_a_query_is_named() -> None:
    assert faults(b"limit=11&share=much&online=yes&nam=x&name=a&name=b&x=%ff&y=%00") == {
        "$.x": "is not UTF-8",
        "$.y": "holds the character NUL",
        "$.name": "was given 2 times; it may be given once",
        "$.limit": "expected an integer at least 1 and at most 10, got 11",
        "$.share": "expected a number or null, got a string",
        "$.online": "expected a boolean or null, got a string",
        "$.nam": 'is not known here (did you mean "name"?)',
    }


@pytest.mark.parametrize("text", [b"1e3", b"0x5", b" 5", b"5 ", b"\xd9\xa5", b"1_0", b"--5", b"", b"5.0"])
def test_integers_are_digits_only(text: bytes) -> None:
    from urllib.parse import quote_from_bytes

    assert list(faults(b"limit=" + quote_from_bytes(text).encode())) == ["$.limit"]


async def test_a_body_with_many_faults(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        answer = await client.post("/api/v1/accounts", json={"email": "nobody", "rol": "owner", "password": "short", "disabled": 1})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/docs#problem-invalid-input"
    assert (problem["status"], problem["title"]) == (400, "The request is wrong")
    assert problem["instance"] == f"urn:gridloom:request:{answer.headers['x-request-id']}"
    assert {(one["in"], one["path"]) for one in problem["errors"]} == {
        ("body", "$.email"),
        ("body", "$.password"),
        ("body", "$.rol"),
        ("body", "$.disabled"),
    }
    assert "short" not in answer.text


async def test_one_problem_names_the_faults_of_query_body_and_arguments(hub: Running) -> None:
    await hub.device(verbs=("relay.set",))
    order = {"verb": "relay.set", "arguments": {"relay": 0, "state": "ajar"}, "expires_in": 0, "id": "a\0b"}
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        answer = await client.post("/api/v1/devices/tic:021762010203/commands?wait=-1&x=1", json=order)
        unknown = await client.post("/api/v1/devices/tic:021762010203/commands", json={"verb": "relay.sett", "expires_in": 0})
        not_json = await client.post("/api/v1/devices/tic:021762010203/commands?x=1", content=b"x")
    assert answer.status_code == 400
    assert {(one["in"], one["path"]) for one in answer.json()["errors"]} == {
        ("query", "$.wait"),
        ("query", "$.x"),
        ("body", "$.expires_in"),
        ("body", "$.id"),
        ("body", "$.arguments.relay"),
        ("body", "$.arguments.state"),
    }
    assert "query" in answer.json()["detail"]
    assert "body" in answer.json()["detail"]
    assert {one["path"] for one in unknown.json()["errors"]} == {"$.verb", "$.expires_in"}
    assert not_json.status_code == 415
    assert {(one["in"], one["path"]) for one in not_json.json()["errors"]} == {("query", "$.x"), ("header", "$.content-type")}


def test_every_nul_of_a_body_is_named_beside_its_other_faults() -> None:
    with pytest.raises(problems.RequestFault) as caught:
        problems.body(Asked, "application/json", rb'{"name": "a\u0000", "device": ["b", "\u0000"], "limit": 11}')
    assert {fault.path for fault in caught.value.faults} == {"$.name", "$.device[1]", "$.limit"}


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b'{"role": "viewer",, }', {"content-type": "application/json"}, 400, "byte 18"),
        (b"", {"content-type": "application/json"}, 400, "is missing: expected a JSON document"),
        (b'"x"', {"content-type": "application/json; charset=utf-8"}, 400, "expected an object, got a string"),
        (b'{"role": "\xff"}', {"content-type": "application/json"}, 400, ""),
        (b'{"role": "viewer", "name": "a\\u0000b"}', {"content-type": "application/json"}, 400, "$.name"),
        (
            b"role=viewer",
            {"content-type": "application/x-www-form-urlencoded"},
            415,
            "expected application/json, got application/x-www-form-urlencoded",
        ),
        (b"{}", {}, 415, "none came"),
        (b"[" * 200_000, {"content-type": "application/json"}, 400, ""),
        (b'{"name": "' + b"x" * 1_100_000 + b'"}', {"content-type": "application/json"}, 413, "1048576 bytes"),
    ],
)
async def test_bodies_that_cannot_be_read(hub: Running, content: bytes, headers: dict[str, str], status: int, reason: str) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        answer = await client.post("/api/v1/tokens", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert reason in answer.text


async def test_what_does_not_exist_and_what_is_not_allowed(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        nowhere = await client.get("/api/v1/nowhere")
        wrong = await client.put("/api/v1/devices")
        options = await client.options("/api/v1/devices")
    assert (nowhere.status_code, nowhere.json()["type"]) == (404, "/docs#problem-not-found")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/docs#problem-method-not-allowed")
    assert set(wrong.headers["allow"].split(", ")) == set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("path", ["/api/v1/devices/%ff", "/api/v1/devices/a%00b", "/%C0%AF"])
async def test_paths_that_are_no_text(hub: Running, path: str) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["type"] == "/docs#problem-malformed"
    assert answer.json()["errors"][0]["in"] == "path"


async def test_a_failure_of_the_hub_says_nothing_but_where_to_look(hub: Running, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> list[object]:
        raise RuntimeError("the secret is 1234")

    hub.app.state["readiness"] = broken
    async with hub.client() as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 500
    assert answer.json()["type"] == "/docs#problem-internal-error"
    assert "1234" not in answer.text
    assert "the secret is 1234" in caplog.text  # the log has the traceback, under the request's id
    assert answer.json()["instance"]


def test_a_full_disk_is_a_503_that_says_when_to_come_again() -> None:
    assert problems.of_error(StorageFull("no space")).status == 503
    assert problems.headers_of(StorageFull("no space")) == {"retry-after": "5"}


def test_every_code_of_the_core_has_a_title() -> None:
    from gridloom.core import errors

    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.GridloomError)}
    assert len(codes) > 10
    assert codes <= set(problems.TITLES)  # an integration's own code is its own title
    assert WebSettings(loopback=True).max_body == 1_048_576
