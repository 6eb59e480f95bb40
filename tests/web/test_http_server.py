"""The listener: limits, TLS, a busy port, encoded slashes, protective headers, and an end in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from pathlib import Path

import httpx
import pytest
import trustme
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from tests.web.conftest import Make
from tests.web.running import Running

from gridloom.core.errors import ConfigurationError
from gridloom.core.model import Principal, Role
from gridloom.web import server
from gridloom.web.server import HttpServer


async def raw(hub: Running, request: bytes, wait: float = 5) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), wait)
    finally:
        writer.close()


async def test_protective_headers_on_every_answer(hub: Running) -> None:
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        for path in ("/", "/static/app.js", "/api/v1/devices", "/nowhere", "/healthz", "/openapi.json"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff", path
            assert headers["referrer-policy"] == "no-referrer"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-request-id"]
            assert "server" not in headers
            assert headers["date"].endswith("GMT")
        assert (await client.get("/api/v1/devices")).headers["cache-control"] == "no-store"


async def test_a_request_id_per_request(hub: Running) -> None:
    async with hub.client() as client:
        ids = {(await client.get("/healthz")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("id", ["os3p:SUBS 123", "x:a/b", "x:a%2Fb", "x:é+&?#;=", "x:.", "ekm:*>"])
async def test_ids_are_percent_encoded_once(hub: Running, id: str) -> None:
    from urllib.parse import quote

    await hub.device(id)
    await hub.reading(id)
    async with hub.client(await hub.token(Role.ADMIN)) as client:
        for suffix in ("", "/commands"):
            answer = await client.get(f"/api/v1/devices/{quote(id, safe='')}{suffix}")
            assert answer.status_code == 200, answer.text
        assert (await client.get(f"/api/v1/devices/{quote(id, safe='')}")).json()["id"] == id


async def test_routers_of_integrations_get_the_principal_and_their_slashes(make: Make) -> None:
    @get("/vendor/{name:str}")
    async def vendor(principal: NamedDependency[Principal], name: FromPath[str]) -> dict[str, str]:
        return {"account": principal.account, "name": name}

    hub = await make(routers=[vendor])
    async with hub.client(await hub.token(Role.VIEWER)) as client, hub.client() as nobody:
        answer = await client.get("/vendor/a%2Fb%20c")
        assert answer.json() == {"account": hub.hub.accounts.account("viewer@example.org").id, "name": "a/b c"}
        assert (await nobody.get("/vendor/x")).status_code == 401


async def test_headers_have_a_limit(hub: Running) -> None:
    started = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
    many = started + b"".join(b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(40)) + b"\r\n"
    endless = started + b"x: " + b"y" * 200_000
    long_line = b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"
    for request in (many, endless, long_line):
        answer = await raw(hub, request)
        assert answer.startswith(b"HTTP/1.1 431 "), answer[:100]
        assert b"application/problem+json" in answer
        assert b"/docs#problem-too-large" in answer
    async with hub.client() as client:
        assert (await client.get("/healthz", headers={"x": "y" * 20_000})).status_code == 200


async def test_what_is_no_http_is_told_so(hub: Running) -> None:
    answer = await raw(hub, b"\x16\x03\x01\x02\x00nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"/docs#problem-malformed" in answer


async def test_a_silent_client_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    hub = await make()
    began = time.monotonic()
    assert await raw(hub, b"GET /healthz HTTP/1.1\r\nhost: loc") == b""
    assert await raw(hub, b"") == b""
    assert time.monotonic() - began < 3


async def test_a_stalled_body_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_SECONDS", 0.3)
    hub = await make()
    token = (await hub.token(Role.ADMIN)).encode()
    head = (
        b"POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
        + token
        + b"\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    )
    began = time.monotonic()
    await raw(hub, head)
    assert time.monotonic() - began < 3


async def test_chunked_bodies_have_the_limit_too(hub: Running) -> None:
    """A body that never ends: the answer comes while it is being sent, and then nobody listens any more."""
    token = (await hub.token(Role.ADMIN)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    head = b"POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + token
    writer.write(head + b"\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")

    async def endless() -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()

    sending = asyncio.create_task(endless())
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    await asyncio.wait_for(sending, 5)
    writer.close()


async def test_a_busy_port_names_the_key_to_change(hub: Running) -> None:
    second = HttpServer(hub.app, "127.0.0.1", hub.port)
    with pytest.raises(ConfigurationError, match=rf"\[http\] listen = '127.0.0.1:{hub.port}': .*another port"):
        await second.start()
    with pytest.raises(ConfigurationError, match=r"\[http\] listen = '192.0.2.1:8470': .*does not have that address"):
        await HttpServer(hub.app, "192.0.2.1", 8470).start()


async def test_tls_by_certificate_files(make: Make, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    hub = await make(tls=(str(cert), str(key)), loopback=False)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with httpx.AsyncClient(verify=context) as client:
        answer = await client.get(f"https://localhost:{hub.port}/healthz")
    assert answer.status_code == 200
    assert "strict-transport-security" not in answer.headers or hub.settings.tls
    with pytest.raises(ConfigurationError, match="tls_certificate_file"):
        await HttpServer(hub.app, "127.0.0.1", 0, str(key), str(key)).start()
    with pytest.raises(ConfigurationError, match="both"):
        await HttpServer(hub.app, "127.0.0.1", 0, str(cert), None).start()


async def test_ipv6(make: Make) -> None:
    hub = await make(host="::1")
    assert hub.url.startswith("http://[::1]:")
    async with hub.client() as browser:
        await browser.get("/")
        assert (await browser.get("/api/v1/devices")).status_code == 200


async def test_stop_ends_streams_and_finishes_answers(make: Make) -> None:
    hub = await make()
    token = await hub.token(Role.ADMIN)
    began = asyncio.Event()

    async def read() -> bytes:
        async with hub.client(token) as client, client.stream("GET", "/api/v1/stream") as answer:
            began.set()
            return b"".join([chunk async for chunk in answer.aiter_bytes()])

    reading = asyncio.create_task(read())
    await began.wait()
    start = time.monotonic()
    await hub.server.stop()
    assert time.monotonic() - start < 2
    assert b"retry:" in await asyncio.wait_for(reading, 2)  # the response ended well, it was not cut
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", hub.port)
    await hub.server.stop()  # a second time does no harm


async def test_stop_does_not_wait_for_ever(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0.3)

    @get("/slow")
    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    hub = await make(routers=[slow])
    async with hub.client() as client:
        asking = asyncio.create_task(client.get("/slow"))
        await asyncio.sleep(0.1)
        start = time.monotonic()
        await hub.server.stop()
        assert time.monotonic() - start < 2
        with contextlib.suppress(httpx.HTTPError):
            assert (await asking).status_code == 500


async def test_the_access_log_is_off_by_default_and_holds_no_query(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    quiet, talking = await make(), await make(access_log=True)
    token = await quiet.token(Role.ADMIN)
    async with quiet.client(token) as client:
        await client.get("/api/v1/devices")
    assert [one for one in caplog.records if one.name.startswith("gridloom.web")] == []
    secret = await talking.token(Role.ADMIN)
    async with talking.client(secret) as client:
        answer = await client.get("/api/v1/devices?name=hidden")
    line = next(one for one in caplog.records if one.name == "gridloom.web.access")
    assert (line.__dict__["id"], line.__dict__["status"], line.__dict__["path"]) == (answer.headers["x-request-id"], 400, "/api/v1/devices")
    assert all(secret not in str(one.__dict__) and "hidden" not in str(one.__dict__) for one in caplog.records if one.name.startswith("gridloom"))


async def test_other_origins_may_call_only_where_configured(make: Make) -> None:
    closed, opened = await make(), await make(cors_origins=("https://panel.example",))
    asked = {"origin": "https://panel.example", "access-control-request-method": "PATCH", "access-control-request-headers": "authorization"}
    async with closed.client() as client:
        answer = await client.options("/api/v1/devices/x:1", headers=asked)
        assert "access-control-allow-origin" not in answer.headers
    async with opened.client(await opened.token(Role.VIEWER)) as client:
        answer = await client.options("/api/v1/devices/x:1", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://panel.example"
        assert "authorization" in answer.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in answer.headers
        assert (await client.get("/api/v1/devices", headers={"origin": "https://panel.example"})).headers[
            "access-control-allow-origin"
        ] == "https://panel.example"
        assert "access-control-allow-origin" not in (await client.get("/api/v1/devices", headers={"origin": "https://evil.example"})).headers
