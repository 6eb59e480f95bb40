"""Who is asking: a bearer token, or a session of this hub's own pages; nothing is ever read from a URL.

``Authorization: Bearer TOKEN`` works everywhere. A browser on the same machine may look without a token when the hub listens on
loopback only (``[http] local_viewer``): opening ``/`` gives it a cookie session with the role viewer. It is granted, and honoured, only when all
of this holds: the listener is a loopback address, the client's address is one, the ``Host`` header is a loopback name (a page that
rebinds its DNS name to 127.0.0.1 still sends its own name), and no proxy has left its mark. A session cookie never authorises an
unsafe method from another site.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request

from gridloom.core.accounts import Accounts
from gridloom.core.errors import Forbidden, Unauthenticated
from gridloom.core.model import Principal, Role
from gridloom.web.settings import WebSettings, is_loopback_name

COOKIE = "gridloom"

_PROXY_MARKS = frozenset((b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"))
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_REALM = "a valid token is needed: send the header Authorization: Bearer TOKEN (gridloom token create --role viewer prints one)"


class Visitor(msgspec.Struct, frozen=True):
    """What the headers of one request say about who sent it. Made once per request."""

    address: str
    client: str
    authorization: str
    cookie: str
    host: str
    origin: str
    fetch_site: str
    proxied: bool

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Visitor:
        """From an ASGI scope. Headers are Latin-1 by HTTP; the client's name is cut to 100 printable characters."""
        found: dict[bytes, bytes] = {}
        proxied = scope.get("http_version") == "1.0"  # browsers speak 1.1; proxies that announce themselves in no other way often 1.0
        for name, value in scope["headers"]:
            if name in _PROXY_MARKS:
                proxied = True
            elif name == b"cookie" and name in found:
                found[name] += b"; " + value
            else:
                found[name] = value
        client = scope.get("client")
        agent = found.get(b"user-agent", b"").decode("latin-1")[:100]
        return cls(
            address=client[0] if client else "",
            client="".join(character for character in agent if character.isprintable()),
            authorization=found.get(b"authorization", b"").decode("latin-1"),
            cookie=found.get(b"cookie", b"").decode("latin-1"),
            host=found.get(b"host", b"").decode("latin-1"),
            origin=found.get(b"origin", b"").decode("latin-1"),
            fetch_site=found.get(b"sec-fetch-site", b"").decode("latin-1"),
            proxied=proxied,
        )


class SignIn:
    """The one place that turns a request into a Principal."""

    def __init__(self, accounts: Accounts, settings: WebSettings) -> None:
        self._accounts = accounts
        self._settings = settings
        self._local_viewer = accounts.system("local-viewer", Role.VIEWER)
        self._local_secret = secrets.token_urlsafe(32)
        """Proves that a browser got its cookie from this process's own first page."""

    def local(self, visitor: Visitor) -> bool:
        """Whether the request comes from a program on this machine that names this machine."""
        return self._settings.loopback and not visitor.proxied and is_loopback_name(visitor.host) and _is_loopback_address(visitor.address)

    async def find(self, scope: Mapping[str, Any]) -> Principal:
        """Who sent this request. Raises Unauthenticated, or Forbidden for a cookie that another site made a browser send."""
        visitor = Visitor.of(scope)
        if visitor.authorization:
            return await self._of_token(visitor)
        if self._is_local_session(visitor, scope):
            if scope["method"] not in _SAFE_METHODS and not _same_origin(visitor, "https" if self._settings.tls else "http"):
                raise Forbidden("this request came from another site's page; its cookie counts for nothing")
            return msgspec.structs.replace(self._local_viewer, address=visitor.address, client=visitor.client)
        raise Unauthenticated(_REALM)

    def watch(self, scope: Mapping[str, Any]) -> Callable[[], bool]:
        """Whether what this request was signed in with still counts, to be asked again and again: one look-up in memory.

        It ends with the token (revoked, expired) and the account (disabled); a local session lasts as long as this process.
        """
        visitor = Visitor.of(scope)
        if not visitor.authorization:
            return lambda: True
        secret = _secret(visitor)
        return lambda: self._accounts.authenticate_token(secret) is not None

    async def scraper(self, scope: Mapping[str, Any]) -> Principal | None:
        """Who reads ``/metrics``; None is a program on this machine, which needs no token (with ``local_viewer``). Raises Unauthenticated."""
        visitor = Visitor.of(scope)
        if not visitor.authorization and self._settings.local_viewer and self.local(visitor):
            return None
        return await self.find(scope)

    def local_cookie(self, scope: Mapping[str, Any]) -> str | None:
        """The ``Set-Cookie`` value that makes this browser a local viewer, or None when it may not be one."""
        if not self._settings.local_viewer or not self.local(Visitor.of(scope)):
            return None
        return f"{_cookie_name(scope)}={self._local_secret}; Path=/; HttpOnly; SameSite=Strict"

    async def _of_token(self, visitor: Visitor) -> Principal:
        principal = await self._accounts.lookup_token(_secret(visitor), visitor.address, visitor.client)
        if principal is None:
            raise Unauthenticated("this token is not valid: unknown, revoked or expired")
        return principal

    def _is_local_session(self, visitor: Visitor, scope: Mapping[str, Any]) -> bool:
        if not visitor.cookie or not self._settings.local_viewer or not self.local(visitor):
            return False
        name = _cookie_name(scope)
        for part in visitor.cookie.split(";"):
            key, _, value = part.strip().partition("=")
            if key == name and hmac.compare_digest(value.encode("latin-1"), self._local_secret.encode()):
                return True
        return False


def _secret(visitor: Visitor) -> str:
    """The token that came. Raises Unauthenticated when the header is not a bearer's."""
    scheme, _, secret = visitor.authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated(_REALM)
    return secret


async def provide_principal(request: Request[Any, Any, Any]) -> Principal:
    """The dependency named ``principal``, for every handler of this application, an integration's too."""
    signin: SignIn = request.app.state["signin"]
    return await signin.find(request.scope)


def _cookie_name(scope: Mapping[str, Any]) -> str:
    """Cookies know no ports: two hubs on one machine must not take each other's."""
    server = scope.get("server")
    return f"{COOKIE}_{server[1]}" if server else COOKIE


def _is_loopback_address(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


def _same_origin(visitor: Visitor, scheme: str) -> bool:
    if visitor.origin:
        return visitor.origin == f"{scheme}://{visitor.host}"
    return visitor.fetch_site == "same-origin"
