"""The hub's side of gateways elsewhere: who may connect, which devices are theirs, orders out, readings and answers in.

For ``core.commands`` the executor of such a device hands the order on and is done (``LATER``); the answer ends the order whenever it comes. The other
end knows every order it was ever sent, so an order that was under way when either side died is sent again under its id and is still carried out
once (``attach(deduplicates=True)``). Devices of gateways that are away stay attached, offline, so that their orders wait.
"""

from __future__ import annotations

import contextlib
import logging

import msgspec

from gridloom.core import verbs
from gridloom.core.commands import LATER
from gridloom.core.errors import Conflict, DeviceError, DeviceTimeout, Forbidden, GridloomError, NotFound, Offline, Refused, StorageError
from gridloom.core.hub import Hub
from gridloom.core.model import Command, Device, DeviceKind, Event, MeterReading
from gridloom.core.registry import Link
from gridloom.core.subjects import HUB
from gridloom.integrations.ekm.keys import Key, Keys
from gridloom.integrations.ekm.mapping import device_id, gateway_identity
from gridloom.integrations.ekm.upstream import (
    SUBPROTOCOL,
    Batch,
    Condition,
    Ended,
    FromGateway,
    Heard,
    Order,
    Present,
    Said,
    Stored,
    Turned,
    Welcome,
    encode,
    from_gateway,
)
from gridloom.links.websocket import GOING_AWAY, POLICY, TRY_AGAIN, UNSUPPORTED, Accept, Connection, Decision, HandshakeRequest, Reject

log = logging.getLogger(__name__)

INTEGRATION = "ekm"


class _Gateway:
    """One gateway, by its MAC address; whether it is connected or not."""

    def __init__(self, mac: str) -> None:
        self.mac = mac
        self.connection: Connection | None = None
        self.links: dict[str, Link] = {}
        self.open: dict[str, Order] = {}
        """Orders that were handed to it and have no answer yet, in their order."""

    def say(self, message: Said) -> bool:
        """False when it is away."""
        return self.connection is not None and self.connection.send(encode(message))


class Gateways:
    """All gateways elsewhere. Call ``attach`` once the registry is loaded and before orders are taken up."""

    def __init__(self, hub: Hub, keys: Keys) -> None:
        self._hub = hub
        self._keys = keys
        self._gateways: dict[str, _Gateway] = {}
        keys.watch(self._revoked)
        hub.metrics.gauge("gridloom_ekm_gateways", "Gateways elsewhere that are connected.", (), lambda: float(len(self.connected())))
        self._refused = hub.metrics.counter("gridloom_ekm_gateway_refused_total", "Readings and events of devices that are not the gateway's.")

    def attach(self) -> None:
        """Take the orders of the devices whose gateways are elsewhere, for when these come back."""
        for device in self._hub.registry.find(integration=INTEGRATION):
            mac = device.attributes.get("gateway", "")
            if mac and mac != self._keys.mac:
                self._take(self._of(mac), device.id)

    def connected(self) -> list[str]:
        """MAC addresses of those that are connected."""
        return sorted(gateway.mac for gateway in self._gateways.values() if gateway.connection is not None)

    # -------------------------------------------------------------------------------------------------------- connections

    def admit(self, request: HandshakeRequest) -> Decision:
        """By the key of a gateway, as a bearer."""
        scheme, _, text = request.header("authorization").strip().partition(" ")
        key = self._keys.find(text.strip()) if scheme.lower() == "bearer" else None
        if key is None or not key.gateway or not key.digest:
            return Reject(401, "A gateway presents its key: Authorization: Bearer KEY.", (("WWW-Authenticate", 'Bearer realm="gridloom"'),))
        if key.mac == self._keys.mac:
            return Reject(403, "The gateway of this key runs in the hub's own process.")
        if SUBPROTOCOL not in request.subprotocols:
            return Reject(400, f"A gateway speaks {SUBPROTOCOL}.")
        return Accept(subprotocol=SUBPROTOCOL, context=key)

    async def serve(self, connection: Connection) -> None:
        """Until it has gone. The newest connection of a gateway wins."""
        key: Key = connection.context
        gateway = self._of(key.mac)
        if gateway.connection is not None:
            gateway.connection.close(POLICY, "the gateway has connected again")
        gateway.connection = connection
        log.info("a gateway has connected", extra={"gateway": key.mac, "peer": connection.address})
        gateway.say(Welcome(self._hub.clock.now()))
        self._repeat(gateway)
        try:
            async for raw in connection:
                try:
                    message = from_gateway.decode(raw if isinstance(raw, bytes) else raw.encode())
                except (msgspec.DecodeError, RecursionError) as error:
                    log.warning("a gateway said what cannot be understood", extra={"gateway": key.mac, "reason": str(error)})
                    connection.close(UNSUPPORTED, "not a message of this protocol")
                    return
                await self._hear(gateway, key, message)
        except StorageError as error:
            connection.close(TRY_AGAIN, error.message)
        finally:
            if gateway.connection is connection:
                gateway.connection = None
                for link in gateway.links.values():
                    link.offline("its gateway is not connected")
                log.info("a gateway has gone", extra={"gateway": key.mac, "reason": connection.close_reason or connection.close_code})

    def stop(self) -> None:
        """The hub stops."""
        for gateway in self._gateways.values():
            if gateway.connection is not None:
                gateway.connection.close(GOING_AWAY, "the hub is stopping")
            for link in gateway.links.values():
                link.detach("the hub is stopping")

    # ------------------------------------------------------------------------------------------------------------ hearing

    async def _hear(self, gateway: _Gateway, key: Key, message: FromGateway) -> None:
        if isinstance(message, Present):
            await self._present(gateway, key, message.device)
        elif isinstance(message, Condition):
            link = gateway.links.get(message.device)
            if link is not None and link.current:
                link.online() if message.online else link.offline(message.reason)
        elif isinstance(message, Batch):
            await self._batch(gateway, message)
        else:
            await self._ended(gateway, message)

    async def _present(self, gateway: _Gateway, key: Key, device: Device) -> None:
        """A device of this gateway: known from now on, unless it is somebody else's."""
        try:
            self._check(gateway, key, device)
            attributes = {**device.attributes, "gateway": gateway.mac}
            site = device.site if device.site == key.site else key.site
            await self._hub.registry.register(msgspec.structs.replace(device, site=site, attributes=attributes))
        except StorageError:
            raise
        except GridloomError as error:
            log.warning("a device of a gateway is not taken", extra={"gateway": gateway.mac, "device": device.id, "reason": error.message})
            gateway.say(Turned(device.id, error.message))
            return
        link = gateway.links.get(device.id)
        if link is None or not link.current:
            self._take(gateway, device.id)

    def _check(self, gateway: _Gateway, key: Key, device: Device) -> None:
        if device.integration != INTEGRATION:
            raise Refused(f"{device.id} is no device of {INTEGRATION}")
        if device.kind is DeviceKind.GATEWAY and device.identity != gateway_identity(gateway.mac):
            raise Refused(f"{device.id} is not the gateway of this key, which is {gateway.mac}")
        try:
            known = self._hub.registry.get(device.id)
        except NotFound:
            return
        accounts = self._hub.accounts
        if known.attributes.get("gateway") != gateway.mac and not accounts.may(accounts.principal(key.account), "device.manage", known):
            raise Forbidden(f"{device.id} belongs to somebody else")

    def _take(self, gateway: _Gateway, device: str) -> None:
        def replaced() -> None:
            gateway.links.pop(device, None)

        gateway.links[device] = self._hub.registry.attach(device, self._hand_on, replaced=replaced, deduplicates=True)

    async def _batch(self, gateway: _Gateway, batch: Batch) -> None:
        """Stored, then confirmed; what is not this gateway's is dropped, and counted."""
        readings = [one for one in batch.readings if self._mine(gateway, one)]
        here = device_id(gateway_identity(gateway.mac))
        about = [msgspec.structs.replace(one, device=here) if one.device == HUB else one for one in batch.events]  # its own lines and ports
        events = [one for one in about if self._mine(gateway, one)]
        self._refused.inc(len(batch.readings) + len(batch.events) - len(readings) - len(events))
        try:
            if readings:
                await self._hub.intake.readings(readings)
            if events:
                await self._hub.intake.events(events)
        except StorageError:
            raise
        except GridloomError as error:  # it will not be better the next time
            log.warning("a batch of a gateway is not taken", extra={"gateway": gateway.mac, "reason": error.message})
        gateway.say(Stored(batch.number))

    def _mine(self, gateway: _Gateway, said: MeterReading | Event) -> bool:
        try:
            return self._hub.registry.admitted(said.device).attributes.get("gateway") == gateway.mac
        except GridloomError:
            return False

    async def _ended(self, gateway: _Gateway, ended: Ended) -> None:
        """The end of an order, also of one that this process knows nothing of."""
        commands = self._hub.commands
        with contextlib.suppress(NotFound, Conflict):  # it has ended already, and this is only said again
            async with contextlib.aclosing(commands.watch(ended.id)) as watching:
                command = await anext(watching)
            if self._hub.registry.get(command.device).attributes.get("gateway") == gateway.mac:
                await commands.finish(ended.id, ended.result, _error(ended))
        gateway.open.pop(ended.id, None)
        gateway.say(Heard(ended.id))

    # ------------------------------------------------------------------------------------------------------------- orders

    async def _hand_on(self, command: Command) -> object:
        """The executor of all devices of gateways elsewhere."""
        gateway = self._of(self._hub.registry.get(command.device).attributes.get("gateway", ""))
        now = self._hub.clock.now()
        until = min(command.expires, now + int(verbs.TABLE[command.verb].timeout * 1_000_000))
        order = Order(command, until)
        for id in [id for id, one in gateway.open.items() if one.until <= now]:
            del gateway.open[id]  # its time is over; an answer that comes still ends it
        gateway.open[command.id] = order
        if not gateway.say(order):
            del gateway.open[command.id]
            raise Offline(f"{command.device}: its gateway {gateway.mac} is not connected")
        return LATER

    def _repeat(self, gateway: _Gateway) -> None:
        """What the last connection may have lost."""
        now = self._hub.clock.now()
        for order in list(gateway.open.values()):
            if order.until > now:
                gateway.say(order)
            else:
                del gateway.open[order.command.id]

    def _of(self, mac: str) -> _Gateway:
        return self._gateways.setdefault(mac, _Gateway(mac))

    def _revoked(self, key: Key) -> None:
        gateway = self._gateways.get(key.mac)
        if gateway is not None and gateway.connection is not None and gateway.connection.context.number == key.number:
            gateway.connection.close(POLICY, "the key was revoked")


def _error(ended: Ended) -> GridloomError | None:
    if not ended.code:
        return None
    kind: type[GridloomError] = Refused if ended.refused else DeviceTimeout if ended.silent else DeviceError
    error = kind(ended.message)
    error.code = ended.code
    return error
