"""The Central System: the listener that stations connect to, and everything that lives as long as it does."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping

from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Health, Hub
from gridloom.integrations.os3p import orders
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.conversation import Conversation, Office
from gridloom.integrations.os3p.door import Door, Visitor
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.reports import Reports
from gridloom.integrations.os3p.stations import Stations
from gridloom.links.websocket import POLICY, Connection, WebSocketServer

log = logging.getLogger(__name__)

_BACKLOG = 4_096
"""Connections that the operating system holds until we come round to them: a mass reconnect shall not be answered with resets."""

_CLOSE_TIMEOUT = 2.0
"""Seconds for a station to answer our close frame: fewer than the hub gives a service for its stop."""


class CentralSystem:
    """A service."""

    name = "os3p"

    def __init__(self, section: Section, hub: Hub, files: Files | None = None) -> None:
        self._section = section
        self._hub = hub
        self._tls = server_tls(section)
        self._reports = Reports(hub)
        self._stations = Stations(section, hub, orders.VERBS)
        self._office = Office(section, hub, self._stations, self._reports, files or Files(section, hub))
        self._door = Door(section, hub, self._stations, self._reports)
        self._server: WebSocketServer | None = None
        hub.metrics.gauge("gridloom_os3p_connections", "Stations that are connected.", (), lambda: float(len(self._server or ())))

    async def start(self) -> Mapping[str, str]:
        """Listen. Raises ConfigurationError naming ``[os3p] listen``."""
        section = self._section
        server = WebSocketServer(
            section.listen.host, section.listen.port, self._serve, admit=self._door.admit, key="[os3p] listen", clock=self._hub.clock,
            max_message=section.max_message, ping_interval=section.ping_interval, max_connections=section.max_connections, backlog=_BACKLOG,
            handshakes_per_second=section.handshakes_per_second, close_timeout=_CLOSE_TIMEOUT, tls=self._tls,
        )  # fmt: skip
        await self._stations.start()
        try:
            address = await server.start()
        except ConfigurationError:
            await self._stations.stop()
            raise
        self._server = server
        return {"os3p": address}

    async def wait(self) -> None:
        """Does not end by itself."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stations are told, the port is free. Never raises."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        await self._office.stop()
        await self._stations.stop()
        await self._reports.settle()

    def health(self) -> Health:
        """Whether it listens."""
        return Health(self._server is not None, "" if self._server is not None else "does not listen")

    async def _serve(self, connection: Connection) -> None:
        visitor: Visitor = connection.context
        station = self._stations.find(visitor.identity) or self._stations.newcomer(visitor.identity)
        if station is None:  # removed since its handshake, or as many as may wait came first
            connection.close(POLICY, "this station is not known here any more")
            return
        await Conversation(self._office, station, connection, visitor).run()


def server_tls(section: Section) -> ssl.SSLContext | None:
    """TLS as the section says, None without; a client certificate is asked for where its authorities are named. Raises ConfigurationError."""
    certificate, key, authorities = section.tls_certificate_file, section.tls_key_file, section.client_ca_file
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate.path, key.path, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigurationError(f"[os3p] tls_certificate_file, tls_key_file: not a certificate and its key in PEM: {error}") from error
    if authorities is not None:
        try:
            context.load_verify_locations(authorities.path)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"[os3p] client_ca_file: no certificates in PEM: {error}") from error
        context.verify_mode = ssl.CERT_OPTIONAL  # who brings none is told so by the door
    return context


def _no_password() -> str:
    """OpenSSL must not ask the terminal."""
    raise ValueError("the key has a password")
