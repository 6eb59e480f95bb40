"""The HTTP server: the application put together, and uvicorn's protocol on our own listener, inside our loop.

uvicorn's ``Server`` wants to own the process (signals, a tick every 100 ms, its own logging); what is used here is its HTTP protocol
alone. The listener, the limits on headers and time, and the end in order are ours.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any

import msgspec
from litestar import Litestar, Response
from litestar.config.cors import CORSConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Hub
from gridloom.core.hub import Operation as BroughtOperation
from gridloom.web import metrics, pages, problems, stream
from gridloom.web.api import access, commands, devices, events, outbox, readings, tables
from gridloom.web.front import Front, SlashMiddleware
from gridloom.web.metrics import Readiness
from gridloom.web.operation import Operation, litestar_path, mounted
from gridloom.web.settings import WebSettings
from gridloom.web.signin import SignIn, provide_principal
from gridloom.web.stream import Live

log = logging.getLogger(__name__)

HEADER_SECONDS = 20.0
"""A client has so long to send the request line and all headers."""
BODY_SECONDS = 30.0
"""A client may pause so long within a body."""
LINGER_SECONDS = 2.0
KEEP_ALIVE_SECONDS = 20
STOP_SECONDS = 3.0

OWN_ROUTES = (
    *pages.ROUTES,
    *metrics.ROUTES,
    *devices.ROUTES,
    *readings.ROUTES,
    *events.ROUTES,
    *commands.ROUTES,
    *access.ROUTES,
    *outbox.ROUTES,
    *tables.ROUTES,
    stream.stream,
)


class _App(Litestar):
    """Litestar without the plugins for modelling libraries that this hub does not use, whether or not they happen to be installed:
    pydantic (the tests bring it) costs 0.1 s of every start and 9 MB."""

    @staticmethod
    def _get_default_plugins(plugins: list[Any]) -> list[Any]:
        from litestar.plugins.core import MsgspecDIPlugin

        return [*plugins, MsgspecDIPlugin()]


def create(hub: Hub, routers: Sequence[Any], readiness: Readiness, settings: WebSettings, operations: Sequence[BroughtOperation] = ()) -> Litestar:
    """The application: this hub's own routes, and the ``operations`` and routers that the integrations bring, which are mounted at the root.

    Routers'  handlers may ask for ``principal`` (a Principal; 401 without). ``readiness`` names what is wrong now. Serve it with ``HttpServer``.
    """
    cors = (
        CORSConfig(allow_origins=list(settings.cors_origins), allow_headers=["authorization", "content-type", "last-event-id"])
        if settings.cors_origins
        else None
    )
    live = Live(hub, settings)
    own: list[Any] = [*OWN_ROUTES, *map(mounted, operations)]
    return _App(
        route_handlers=[*_options(own), *own, *routers],
        openapi_config=None,
        cors_config=cors,
        logging_config=None,
        debug=False,
        middleware=[SlashMiddleware],
        exception_handlers=problems.handlers(settings),
        dependencies={"principal": Provide(provide_principal)},
        request_max_body_size=settings.max_body,
        state=State({"hub": hub, "settings": settings, "signin": SignIn(hub.accounts, settings), "live": live, "readiness": readiness}),
    )


def _options(own: Sequence[Any]) -> list[HTTPRouteHandler]:
    """OPTIONS of our own paths. Litestar's answers for the first handler of a path only, when there are several (GET here, PATCH there)."""
    methods: dict[str, set[str]] = {}
    for handler in own:
        known: Operation = handler.opt["operation"]
        if known.path != stream.PATH:  # answers for itself
            methods.setdefault(known.path, {"OPTIONS"}).update(("GET", "HEAD") if known.method == "GET" else (known.method,))
    return [_answer_options(path, ", ".join(sorted(allowed))) for path, allowed in methods.items()]


def _answer_options(path: str, allowed: str) -> HTTPRouteHandler:
    async def options() -> Response[bytes]:
        return Response(b"", status_code=204, headers={"allow": allowed})

    return HTTPRouteHandler(litestar_path(path), http_method="OPTIONS", status_code=200, name=f"OPTIONS {path}")(options)


class HttpServer:
    """One listener. ``host`` and ``port`` as configured; port 0 is any free one. With certificate and key files it speaks TLS."""

    def __init__(self, app: Litestar, host: str, port: int, tls_cert: str | None = None, tls_key: str | None = None) -> None:
        self._app = app
        self._host = host.strip("[]")
        self._port = port
        self._tls_cert = tls_cert
        self._tls_key = tls_key
        self._server: asyncio.Server | None = None
        self._state = ServerState()
        self._dating: asyncio.TimerHandle | None = None
        self._hub: Hub = app.state["hub"]
        self._live: Live = app.state["live"]
        self._hub.metrics.gauge("gridloom_http_connections", "Open HTTP connections.", read=lambda: float(len(self._state.connections)))

    async def start(self) -> str:
        """Listen; returns ``host:port`` as others can reach it. Raises ConfigurationError naming the key to change."""
        settings: WebSettings = self._app.state["settings"]
        front = Front(self._app, self._hub.clock, settings, self._hub.metrics)  # type: ignore[arg-type]  # Litestar's own ASGI types
        config = Config(
            front,
            http=_protocol(settings),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
        )
        config.load()
        loop = asyncio.get_running_loop()
        await self._live.start()  # before the first reader can come
        try:
            self._server = await loop.create_server(
                lambda: config.http_protocol_class(config=config, server_state=self._state, app_state={}, _loop=loop),  # type: ignore[call-arg]
                host=self._host,
                port=self._port,
                ssl=self._tls(),
                backlog=1024,
                ssl_handshake_timeout=HEADER_SECONDS if self._tls_cert else None,
            )
        except OSError as error:
            self._live.close()
            raise ConfigurationError(self._cannot_listen(error)) from error
        self._tell_date()
        bound = self._server.sockets[0].getsockname()
        host = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        return f"{host}:{bound[1]}"

    async def stop(self) -> None:
        """End in order: no new connections, streams end, answers under way are given at most 3 s; never raises."""
        if self._server is None:
            return
        server, self._server = self._server, None
        if self._dating is not None:
            self._dating.cancel()
        server.close()
        self._live.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=STOP_SECONDS)
        left = list(self._state.tasks)
        if left:
            log.warning("requests were cut off at the end", extra={"requests": len(left)})
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=STOP_SECONDS)
        for connection in list(self._state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await asyncio.sleep(0)
        await server.wait_closed()

    def _tls(self) -> ssl.SSLContext | None:
        if self._tls_cert is None and self._tls_key is None:
            return None
        if self._tls_cert is None or self._tls_key is None:
            raise ConfigurationError("[http] tls_certificate_file and tls_key_file must both be given")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._tls_cert, self._tls_key)
        except (OSError, ssl.SSLError) as error:  # an SSLError of a wrong PEM names no file
            files = f"tls_certificate_file = {self._tls_cert!r}, tls_key_file = {self._tls_key!r}"
            raise ConfigurationError(f"[http] {files}: expected a certificate chain and its key in PEM: {error}") from error
        return context

    def _cannot_listen(self, error: OSError) -> str:
        where = f"{self._host}:{self._port}"
        what = {
            errno.EADDRINUSE: "another program listens there already; stop it, or choose another port",
            errno.EACCES: "this user may not listen on that port; choose one from 1024 up",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(error.errno or 0)
        if isinstance(error, socket.gaierror):
            what = "there is no such host name"
        return f"[http] listen = {where!r}: cannot listen: {what or error.strerror or error}"

    def _tell_date(self) -> None:
        """The Date header of the answers of the next second."""
        self._state.default_headers = [(b"date", formatdate(self._hub.clock.now() / 1_000_000, usegmt=True).encode())]
        self._dating = asyncio.get_running_loop().call_later(1.0, self._tell_date)


def _protocol(settings: WebSettings) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with the limits that it has not: on the bytes of a request's headers, and on the time to send them."""
    too_large = _refusal(431, "Request Header Fields Too Large", f"a request line with its headers holds at most {settings.max_header} bytes")
    malformed = _refusal(400, "Bad Request", "this is not an HTTP/1.1 request")

    class Protocol(HttpToolsProtocol):
        _head = 0
        _in_head = True
        _in_body = False
        _deadline: asyncio.TimerHandle | None = None
        _refused = False

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.access_log = False  # uvicorn's would tell whole query strings, whoever has configured a root logger; ours is in web.front

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._within(HEADER_SECONDS)

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_deadline()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._in_head:
                self._head += len(data)
                if self._deadline is None:
                    self._within(HEADER_SECONDS)
            super().data_received(data)
            if self._in_head and self._head > settings.max_header:
                self._refuse(too_large)
            elif self._in_body:
                self._within(BODY_SECONDS)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._in_head = True

        def on_url(self, url: bytes) -> None:
            super().on_url(url)
            if len(self.url) > settings.max_header:
                self._refuse(too_large)

        def on_headers_complete(self) -> None:
            self._in_head, self._in_body = False, True
            self._head = 0
            self._forget_deadline()
            if self._refused:
                return
            if sum(len(name) + len(value) + 4 for name, value in self.headers) + len(self.url) > settings.max_header:
                self._refuse(too_large)
                return
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            if not self._refused:
                super().on_body(body)

        def on_message_complete(self) -> None:
            self._in_head, self._in_body = True, False
            self._forget_deadline()
            if not self._refused:
                super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._in_body and not self._refused:  # answered before all of the body came (it is too large): the rest is not read
                self._linger()

        def send_400_response(self, msg: str) -> None:
            self._refuse(malformed)

        def _within(self, seconds: float) -> None:
            """What is being received must go on within so many seconds."""
            self._forget_deadline()
            self._deadline = self.loop.call_later(seconds, self._too_slow)

        def _too_slow(self) -> None:
            self._deadline = None
            answering = self.cycle is not None and not self.cycle.response_complete
            if not self.transport.is_closing() and (self._in_body or not answering):
                self.transport.close()

        def _forget_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _refuse(self, answer: bytes) -> None:
            """Once, and only if no other answer has begun on this connection; then the connection is closed."""
            if self._refused:
                return
            if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
                self.transport.write(answer)
            self._linger()

        def _linger(self) -> None:
            """Close so that the answer arrives: a close with unread bytes in the socket would reset the connection under the reader's eyes."""
            self._refused = True
            self._forget_deadline()
            self._unset_keepalive_if_required()
            if self.transport.is_closing():
                return
            if self.transport.can_write_eof():
                self.transport.write_eof()
                self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            else:
                self.transport.close()

    return Protocol


def _refusal(status: int, title: str, detail: str) -> bytes:
    """A whole HTTP answer with a problem, for requests that never become one."""
    code = "too-large" if status == 431 else "malformed"
    content = msgspec.json.encode(problems.problem(code, status, detail))
    head = f"HTTP/1.1 {status} {title}\r\ncontent-type: {problems.MEDIA_TYPE}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n\r\n"
    return head.encode("ascii") + content
