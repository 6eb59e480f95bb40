"""The Central System: the listener that stations connect to, and everything that lives as long as it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Health, Hub
from gridloom.integrations.os3p import orders
from gridloom.integrations.os3p.certificates import Certificates, server_tls
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.conversation import Conversation, Office
from gridloom.integrations.os3p.door import Door, Visitor
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.nights import Nights
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

    def __init__(self, section: Section, hub: Hub, files: Files) -> None:
        self.address = ""
        """Where it listens, ``HOST:PORT``; empty until it does."""
        self._section = section
        self._hub = hub
        self._tls = server_tls(section)
        self._reports = Reports(hub)
        self._stations = Stations(section, hub, orders.VERBS)
        self._nights = Nights(section, hub, self._stations)
        self._office = Office(section, hub, self._stations, self._reports, files, self._nights)
        self._door = Door(section, hub, self._stations, self._reports)
        self._server: WebSocketServer | None = None
        self._watching: asyncio.Task[None] | None = None
        hub.metrics.gauge("gridloom_os3p_connections", "Stations that are connected.", (), lambda: float(len(self._server or ())))

    async def start(self) -> Mapping[str, str]:
        """Listen. Raises ConfigurationError naming ``[os3p] listen``."""
        section = self._section
        server = WebSocketServer(
            section.listen.host, section.listen.port, self._serve, admit=self._door.admit, key="[os3p] listen", clock=self._hub.clock,
            max_message=section.max_message, ping_interval=section.ping_interval, max_connections=section.max_connections, backlog=_BACKLOG,
            handshakes_per_second=section.handshakes_per_second, close_timeout=_CLOSE_TIMEOUT, tls=self._tls,
            unsecured=self._door.unsecured,
        )  # fmt: skip
        await self._stations.start()
        await self._nights.start()
        try:
            address = await server.start()
        except ConfigurationError:
            await self._nights.stop()
            await self._stations.stop()
            raise
        self._server, self.address = server, address
        if self._tls is not None:
            self._watching = asyncio.create_task(Certificates(section, self._hub.clock, server.secure).watch(), name="os3p certificates")
        return {"os3p": address}

    async def wait(self) -> None:
        """Does not end by itself."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stations are told, the port is free. Never raises."""
        server, self._server = self._server, None
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._nights.stop()
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
