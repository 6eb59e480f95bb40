"""What clients and gateways elsewhere see of this integration, put together: the Settings and read API, keys, and the push port."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Health, Hub, Parts
from gridloom.integrations.ekm import api, keys
from gridloom.integrations.ekm.gateways import Gateways
from gridloom.integrations.ekm.keys import Keys
from gridloom.integrations.ekm.push import Push

if TYPE_CHECKING:
    from gridloom.integrations.ekm.config import Section


class Face:
    """The push port as a service. It is started before orders are taken up again, so that their answers are heard."""

    name = "ekm push"

    def __init__(self, section: Section, hub: Hub) -> None:
        self.keys = Keys(hub, gateway_key=section.gateway_key, gateway_mac=section.gateway_mac or "")
        self.gateways = Gateways(hub, self.keys)
        self.push: Push | None = None
        self._section = section
        self._hub = hub
        self._tls = _tls(hub)

    async def start(self) -> Mapping[str, str]:
        """Listen. Raises ConfigurationError naming ``[ekm] push_listen``."""
        await self.keys.load()
        self.gateways.attach()
        listen = self._section.push_listen
        push = Push(self._hub, self.keys.ids, (listen.host, listen.port), door=self.gateways, tls=self._tls)
        endpoints = await push.start()
        self.push = push
        return endpoints

    async def wait(self) -> None:
        """A listener does not end by itself."""
        assert self.push is not None
        await self.push.wait()

    async def stop(self) -> None:
        """Streams end, gateways are told."""
        self.gateways.stop()
        if self.push is not None:
            await self.push.stop()
            self.push = None

    def health(self) -> Health:
        """Whether it listens."""
        return Health(False, "does not listen") if self.push is None else self.push.health()

    def host(self, asked: str) -> str:
        """``response_channel_host`` for a client whose ``Host`` header is ``asked``: as configured, else as we listen.

        Who listens on all addresses has no address to tell: it is the name by which the client found us.
        """
        if self._section.push_host:
            return self._section.push_host
        address = self.push.address if self.push is not None else str(self._section.push_listen)
        host, _, port = address.rpartition(":")
        if asked and _is_any(host.strip("[]")):
            name = asked.rpartition(":")[0] if asked.rpartition(":")[2].isdigit() else asked
            return f"{name}:{port}"
        return address


def build(section: Section, hub: Hub) -> Parts:
    """Everything but the buses. Its service goes before theirs."""
    face = Face(section, hub)
    desk = api.Desk(hub, face.keys, require_token=section.require_token, host=face.host)
    return Parts(operations=keys.operations(hub, face.keys), routers=api.routers(desk), services=(face,))


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _tls(hub: Hub) -> ssl.SSLContext | None:
    """With the certificate of ``[http]``, if it has one."""
    if hub.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(*hub.certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"[http] tls_certificate_file, tls_key_file: expected a certificate chain and its key in PEM: {error}") from error
    return context
