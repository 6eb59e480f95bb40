"""links/http: posts to a real server; refuses addresses of the hub's own network, also behind a name; is bounded in time and size."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme

from gridloom.links import http
from gridloom.links.http import AddressRefused, Poster, allowed

Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answering, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A real HTTP server on loopback that reads one request and lets ``answer`` say something; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
            await answer(head + await reader.readexactly(length), writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await asyncio.sleep(0.02)


def saying(answer: bytes, seen: list[bytes] | None = None) -> Answering:
    async def say(request: bytes, writer: asyncio.StreamWriter) -> None:
        if seen is not None:
            seen.append(request)
        writer.write(answer)

    return say


async def test_posts_headers_and_body_and_gives_the_status() -> None:
    seen: list[bytes] = []
    poster = Poster(allow_private=True, agent="gridloom/test")
    async with server(saying(b"HTTP/1.1 202 Accepted\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\nok", seen)) as port:
        answer = await poster.request(f"http://u%40x:p@127.0.0.1:{port}/hook?a=1#part", {"Webhook-Id": "7"}, b'{"a":1}', 5)
    await poster.close()
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (202, b"ok", "7")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /hook?a=1 HTTP/1.1"
    assert body == b'{"a":1}'
    lowered = {line.split(b":")[0].lower(): line.split(b": ", 1)[1] for line in lines[1:]}
    assert lowered[b"webhook-id"] == b"7"
    assert lowered[b"user-agent"] == b"gridloom/test"
    assert lowered[b"authorization"] == b"Basic dUB4OnA="  # u@x:p
    assert lowered[b"content-length"] == b"7"


async def test_a_redirect_is_not_followed() -> None:
    seen: list[bytes] = []
    poster = Poster(allow_private=True)
    async with server(saying(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n", seen)) as port:
        assert await poster.post(f"http://127.0.0.1:{port}/", {}, b"", 5) == 302
    await poster.close()
    assert len(seen) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254", "10.0.0.1", "2130706433"])
async def test_the_hubs_own_network_is_refused_before_a_connection(host: str) -> None:
    seen: list[bytes] = []
    poster = Poster()
    async with server(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen)) as port:
        with pytest.raises(AddressRefused, match="not on the public network"):
            await poster.post(f"http://{host}:{port}/", {}, b"", 5)
    await poster.close()
    assert seen == []


async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that says a public address first and loopback afterwards gets nothing: the name is resolved once."""
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo
    asked: list[object] = []
    connected: list[str] = []

    async def lying(host: str, port: int, **rest: object) -> list[tuple[object, ...]]:
        if host == "rebind.example":
            asked.append(host)
            address = "192.0.2.7" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        connected.append(host)
        return list(await real(host, port, **rest))  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "getaddrinfo", lying)
    monkeypatch.setattr(http, "allowed", lambda address: address == "192.0.2.7")
    seen: list[bytes] = []
    poster = Poster()
    async with server(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen)) as port:
        with pytest.raises((ConnectionError, TimeoutError)):
            await poster.post(f"http://rebind.example:{port}/", {}, b"", 0.3)
    await poster.close()
    assert asked == ["rebind.example"]
    assert set(connected) <= {"192.0.2.7"}
    assert seen == []


def test_addresses() -> None:
    for public in ("8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "::ffff:8.8.8.8"):
        assert allowed(public), public
    for own in (
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "192.0.2.1",
    ):  # fmt: skip
        assert not allowed(own), own


async def test_hanging_slow_and_dribbling_servers_cost_only_the_timeout() -> None:
    async def hang(_request: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async def dribble(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    for answer in (hang, dribble):
        poster = Poster(allow_private=True)
        async with server(answer) as port:
            with pytest.raises(TimeoutError, match=f"127.0.0.1:{port}"):
                async with asyncio.timeout(2):
                    await poster.post(f"http://secret:word@127.0.0.1:{port}/", {}, b"", 0.2)
            await poster.close()


async def test_an_endless_answer_is_cut() -> None:
    async def endless(_request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    poster = Poster(allow_private=True, limit=10_000)
    async with server(endless) as port:
        answer = await poster.request(f"http://127.0.0.1:{port}/", {}, b"", 5)
        await poster.close()
    assert (answer.status, len(answer.body)) == (200, 10_000)


async def test_no_server_and_no_http_are_connection_errors_without_credentials() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    poster = Poster(allow_private=True)
    with pytest.raises(ConnectionError) as caught:
        await poster.post(f"http://user:hunter2@127.0.0.1:{port}/?token=abc", {}, b"", 2)
    assert "hunter2" not in str(caught.value)
    assert "abc" not in str(caught.value)
    async with server(saying(b"SSH-2.0-OpenSSH\r\n")) as port:
        with pytest.raises(ConnectionError):
            await poster.post(f"http://127.0.0.1:{port}/", {}, b"", 2)
    with pytest.raises(ConnectionError, match="resolved"):
        await poster.post("http://no-such-host.invalid/", {}, b"", 5)
    for wrong in ("ftp://x/", "http://", "file:///etc/passwd", "nonsense"):
        with pytest.raises(ValueError, match="not an http"):
            await poster.post(wrong, {}, b"", 2)
    await poster.close()


async def test_tls_checks_the_name_of_the_url_although_we_connect_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(http, "_context", lambda: trusting)
    poster = Poster(allow_private=True)
    async with server(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), context) as port:
        assert await poster.post(f"https://localhost:{port}/", {}, b"", 5) == 200
        with pytest.raises(ConnectionError, match=r"(?i)certificate"):
            await poster.post(f"https://127.0.0.1:{port}/", {}, b"", 5)
    await poster.close()
