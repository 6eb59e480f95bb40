"""The door of the building: what every request passes, whoever answers it.

It gives each request an id, refuses what no handler should see (a path that is not UTF-8, or holds NUL), lets an encoded slash
stay inside its segment of the path, and lays the protective header fields over every answer.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from gridloom.core.clock import Clock
from gridloom.core.metrics import Metrics
from gridloom.core.settings import masked
from gridloom.web.problems import MEDIA_TYPE, Fault, problem
from gridloom.web.settings import WebSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("gridloom.web.access")

SLASH = "\x00"
"""What stands for an encoded slash inside a segment of a path on its way through the router; no path may hold it itself."""

CONTENT_SECURITY_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Front:
    """An ASGI application around the Litestar one."""

    def __init__(self, app: App, clock: Clock, settings: WebSettings, metrics: Metrics) -> None:
        self.app = app
        self._clock = clock
        self._access_log = settings.access_log
        self._tls = settings.tls
        self._boot = secrets.token_hex(3)
        self._numbers = itertools.count(1)
        self._requests = metrics.counter("gridloom_http_requests_total", "HTTP requests answered.", ("method", "route", "status"))
        self._seconds = metrics.histogram("gridloom_http_request_seconds", "Time to answer, streams left out.", ("route",), _SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"{self._boot}-{next(self._numbers):x}"
        scope.setdefault("state", {})["request_id"] = request_id
        status, streams = 0, False

        async def guarded(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                streams = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
                message["headers"] = self._headers(headers, request_id)
            await send(message)

        began = self._clock.monotonic()
        try:
            await self._answer(scope, receive, guarded, _path(scope), request_id)
        finally:
            self._count(scope, status, None if streams else self._clock.monotonic() - began)

    def _count(self, scope: Scope, status: int, seconds: float | None) -> None:
        """For the metrics by route (its template: labels must not grow with what is asked), for the log as it was asked, without the query."""
        route = scope.get("path_template") or "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._requests.inc(method=method, route=route, status=str(status))
        if seconds is not None:
            self._seconds.observe(seconds, route=route)
        if self._access_log:
            path = masked(scope.get("raw_path", b"").decode("ascii", "replace"))  # some paths hold a token
            address = scope["client"][0] if scope.get("client") else ""
            given = {"id": scope["state"]["request_id"], "method": method, "path": path, "status": status, "address": address}
            log.info("request", extra=given if seconds is None else {**given, "seconds": round(seconds, 6)})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, fault: str, request_id: str) -> None:
        if not fault:
            await self.app(scope, receive, send)
            return
        found = problem("malformed", 400, f"the path {fault}", (Fault("path", "$", fault),), f"urn:gridloom:request:{request_id}")
        content = msgspec.json.encode(found)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _headers(self, headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
        """An answer's own header fields win: a page of an integration may need another policy, and then says so itself."""
        present = {name for name, _ in headers}
        headers.extend((name, value) for name, value in _ALWAYS if name not in present)
        if b"content-security-policy" not in present:
            headers.append((b"content-security-policy", CONTENT_SECURITY_POLICY))
        if b"cache-control" not in present:
            headers.append((b"cache-control", b"no-store"))
        if self._tls and b"strict-transport-security" not in present:
            headers.append((b"strict-transport-security", b"max-age=31536000"))
        headers.append((b"x-request-id", request_id.encode()))
        return headers


def _path(scope: Scope) -> str:
    """Read the path as it was sent; what is wrong with it, or the empty string. A ``%2F`` stays inside its segment, as SLASH."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%" not in raw:
        return "" if scope["path"].isascii() else "is not percent-encoded"
    segments = []
    for segment in raw.split(b"/"):
        try:
            text = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            return "is not UTF-8 once percent-decoded"
        if "\0" in text:
            return "holds the character NUL"
        segments.append(text.replace("/", SLASH))
    scope["path"] = "/".join(segments)
    return ""


class SlashMiddleware:
    """Behind the router: path parameters get their slashes back, for whatever handler comes (an integration's too)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        parameters = scope.get("path_params")
        if parameters and any(isinstance(value, str) and SLASH in value for value in parameters.values()):
            scope["path_params"] = {name: value.replace(SLASH, "/") if isinstance(value, str) else value for name, value in parameters.items()}
        await self.app(scope, receive, send)
