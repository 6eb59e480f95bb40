"""Posting to somebody else's HTTP server, with a guard: a target may not make the hub talk to its own network (SSRF).

Names are resolved here, every address is checked, and the connection goes to the very address that was checked: an answer of the DNS that
changes in between changes nothing. Redirects are not followed, answers are bounded, proxies of the environment are not used.
httpcore is the driver, imported at the first post.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import httpcore

LIMIT = 64 * 1024
"""Bytes of an answer that are read; the connection is closed on more."""


class AddressRefused(ConnectionError):
    """The target lies on an address that the hub does not talk to (loopback, link-local, private, reserved)."""


class Answer(NamedTuple):
    """What the server said: header names in lower case; at most LIMIT bytes of body."""

    status: int
    headers: dict[str, str]
    body: bytes


def allowed(address: str) -> bool:
    """Whether an IP address is on the public Internet, also when it is wrapped (IPv4 in IPv6, 6to4, NAT64, Teredo)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner: list[ipaddress.IPv4Address] = [one for one in (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())) if one is not None]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(not allowed(str(one)) for one in inner):
            return False
        if ip.ipv4_mapped is not None or ip in _NAT64:
            return True
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Poster:
    """Posts; keeps connections alive between posts. ``allow_private``: the owner allows targets on the hub's own network."""

    def __init__(self, *, allow_private: bool = False, limit: int = LIMIT, agent: str = "gridloom") -> None:
        self._allow_private = allow_private
        self._limit = limit
        self._agent = agent
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> int:
        """The status of the answer. Raises as ``request``."""
        return (await self.request(url, headers, body, timeout)).status

    async def request(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float, method: str = "POST") -> Answer:
        """Send and read the answer within ``timeout`` real seconds, all in all.

        Raises ValueError for a URL that is none, AddressRefused, TimeoutError, ConnectionError (with the reason, without credentials).
        """
        import httpcore

        target, credentials = _split(url)
        sent = {"user-agent": self._agent, "content-length": str(len(body)), **credentials}
        sent.update((name.lower(), value) for name, value in headers.items())
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=_context(),
                max_connections=32,
                max_keepalive_connections=8,
                keepalive_expiry=30,
                network_backend=_guard(self._allow_private),
            )
        try:
            async with asyncio.timeout(timeout), self._pool.stream(method, target, headers=list(sent.items()), content=body) as response:
                received = bytearray()
                async for piece in response.aiter_stream():
                    received += piece
                    if len(received) > self._limit:
                        del received[self._limit :]
                        break  # leaving the stream unread makes the pool close the connection
                names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
                return Answer(response.status, names, bytes(received))
        except httpcore.TimeoutException as error:
            raise TimeoutError(f"{_host(url)}: no answer in time") from error
        except TimeoutError:
            raise TimeoutError(f"{_host(url)}: no answer within {timeout:g} s") from None
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise ConnectionError(f"{_host(url)}: {error or error.__class__.__name__}") from error

    async def close(self) -> None:
        """Close the connections that were kept."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None


def _split(url: str) -> tuple[str, dict[str, str]]:
    """The URL without credentials, and these as a header."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{_host(url)}: not an http:// or https:// address with a host")
    if parts.username is None:
        return parts._replace(fragment="").geturl(), {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, fragment="").geturl(), {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _host(url: str) -> str:
    """Host and port alone: what may be said in a message."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the address"


def _context() -> ssl.SSLContext:
    """The system's authorities: what the owner of the machine trusts."""
    return ssl.create_default_context()


def _guard(allow_private: bool) -> httpcore.AsyncNetworkBackend:
    import httpcore

    inner = httpcore.AnyIOBackend()

    class Guard(httpcore.AsyncNetworkBackend):
        """Resolves, checks, and connects to what it checked."""

        async def connect_tcp(
            self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Iterable[Any] | None = None
        ) -> httpcore.AsyncNetworkStream:
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError as error:
                raise httpcore.ConnectError(f"the name cannot be resolved: {error.strerror}") from error
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
            usable = [address for address in addresses if allow_private or allowed(address)]
            if not usable:
                raise AddressRefused(f"{host}: {', '.join(addresses)} is not on the public network; the owner has to allow such a target")
            failure: httpcore.ConnectError | None = None
            for address in usable:
                try:
                    return await inner.connect_tcp(address, port, timeout, local_address, socket_options)
                except httpcore.ConnectError as error:
                    failure = error
            raise failure if failure is not None else httpcore.ConnectError("no address")

        async def sleep(self, seconds: float) -> None:
            await inner.sleep(seconds)

    return Guard()
