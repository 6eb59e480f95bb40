"""FACE: the Push3 Device Settings API, ``POST /sendCommand``, and the read API, ``GET /readMeter``, at the root of the hub's HTTP port.

Who may: by default a bearer token says who asks, and a key which devices are meant; both must fit (FACTS 9). A device of somebody else does not
exist: every reason why a target is not one of yours has the same answer. A 200 means that the command is on disk and on its way; how it ends is
told on the response channel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from litestar import Request, Response, get, post
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gridloom.core import faults
from gridloom.core.errors import Forbidden, GridloomError, InvalidInput, NotFound, Refused, Unauthenticated
from gridloom.core.hub import Hub
from gridloom.core.model import Device, DeviceKind, Principal
from gridloom.integrations.ekm import orders, readmeter
from gridloom.integrations.ekm.keys import Key, Keys, gateway_of, spelled
from gridloom.integrations.ekm.messages import Accepted, Failure, SendCommand

log = logging.getLogger(__name__)

AnyRequest = Request[Any, Any, Any]
API = "ekm"
WAITS = 120.0
"""Seconds that a command waits for a gateway that is away; then its channel is told that it has expired."""
_KINDS = {"meter": DeviceKind.METER, "iostack": DeviceKind.IO, "gateway": DeviceKind.GATEWAY}
_UNKNOWN = "unknown target: there is no such device for this key"


class Desk:
    """Answers clients. ``host``: of the push port as a client that reached us by this name reaches it."""

    def __init__(self, hub: Hub, keys: Keys, *, require_token: bool, host: Callable[[str], str]) -> None:
        self._hub = hub
        self._keys = keys
        self._require_token = require_token
        self._host = host

    async def send_command(self, request: AnyRequest) -> Accepted:
        """Raises Unauthenticated, Forbidden, InvalidInput, Refused, StorageFull."""
        raw = await request.body()
        asked: SendCommand | InvalidInput
        try:
            asked = faults.read_json(SendCommand, raw, "the body")
        except InvalidInput as error:
            asked = error
        text = request.query_params.get("key") or (asked.key if isinstance(asked, SendCommand) else None) or ""
        key = self._keys.find(text)
        client = asked.client if isinstance(asked, SendCommand) else None
        principal = await self._who(request, key, client or "")
        if isinstance(asked, InvalidInput):
            raise asked
        if not text:
            raise InvalidInput("key: is missing: the key of the account or gateway, in the query or in the body")
        kind = orders.kind_of(asked.target, asked.command)
        device = self._target(asked.target, asked.target_id)
        if device is None or key is None or not self._belongs(principal, key, device, kind.verb, request.query_params.get("gateway", "")):
            raise InvalidInput(_UNKNOWN)
        if kind.verb not in device.verbs:
            raise InvalidInput(f"command: {asked.command} is not for this model ({device.model or device.kind.value}): it has no such setting")
        zone = ZoneInfo(device.attributes.get("timezone", self._hub.timezone))
        verb, arguments = orders.translate(asked.target, asked.command, asked.params or {}, zone)
        channel = self._keys.ids.of(f"{principal.account}/{key.number}", asked.response_channel_id or "")
        origin = {"api": API, "channel": channel, "target": asked.target, "command": asked.command}
        command = await self._hub.commands.submit(
            principal, device.id, verb, arguments, expires_in=WAITS, wait_online=True, client=asked.client or "", origin=origin
        )
        return Accepted(command.id, channel, self._host(request.headers.get("host", "")))

    async def read_meter(self, request: AnyRequest) -> readmeter.Answer:
        """Raises Unauthenticated, InvalidInput."""
        asked = readmeter.asked(request.query_params.multi_items(), str(request.path_params.get("path", "")))
        key = self._keys.find(asked.key)
        if key is None:
            raise Unauthenticated("key: expected the key of an account or of a gateway")
        principal = self._of_key(request, key, "")
        mine = {device.identity: device for device in self._meters(principal, key)}
        devices = list(mine.values()) if asked.lan else [mine[meter] for meter in asked.meters if meter in mine]
        return await readmeter.answer(self._hub, principal, asked, devices, self._keys.mac)

    # ---------------------------------------------------------------------------------------------------------- details

    async def _who(self, request: AnyRequest, key: Key | None, client: str) -> Principal:
        scheme, _, secret = request.headers.get("authorization", "").strip().partition(" ")
        address = request.client.host if request.client else ""
        if scheme.lower() == "bearer" and secret:
            found = await self._hub.accounts.lookup_token(secret.strip(), address, client)
            if found is not None:
                return found
        if not self._require_token and key is not None:
            return self._of_key(request, key, client)
        raise Unauthenticated("a valid token is needed: Authorization: Bearer TOKEN" + ("" if self._require_token else ", or a valid key"))

    def _of_key(self, request: AnyRequest, key: Key, client: str) -> Principal:
        try:
            return self._hub.accounts.principal(key.account, address=request.client.host if request.client else "", client=client)
        except NotFound:
            raise Unauthenticated("the account of this key is gone") from None

    def _target(self, target: str, id: str) -> Device | None:
        """The device that is meant: a meter with or without leading zeros, a gateway by its MAC address."""
        kind = _KINDS[target]
        for device in self._hub.registry.find(kind=kind, integration=API):
            if kind is DeviceKind.GATEWAY:
                if spelled(id) == device.attributes.get("mac", "") or id == device.identity:
                    return device
            elif device.identity == id or (id.isascii() and id.isdigit() and device.identity == id.zfill(12)):
                return device
        return None

    def _belongs(self, principal: Principal, key: Key, device: Device, verb: str, mac: str) -> bool:
        """Whether the key is tied to the device, and the device is there for who asks. Raises Forbidden if it is, but not for this."""
        accounts = self._hub.accounts
        mine = device.attributes.get("mac") or gateway_of(device, self._keys.mac)
        if mac and spelled(mac) != mine:
            return False
        if key.gateway:
            tied = key.mac == mine
        else:
            try:
                tied = accounts.may(accounts.principal(key.account), "device.read", device)
            except NotFound:
                return False
        if not tied or not accounts.visible(principal, device):
            return False
        accounts.require(principal, verb, device)
        return True

    def _meters(self, principal: Principal, key: Key) -> list[Device]:
        accounts, found = self._hub.accounts, self._hub.registry.find(kind=DeviceKind.METER, integration=API)
        if key.gateway:
            found = [device for device in found if gateway_of(device, self._keys.mac) == key.mac]
        return [device for device in found if accounts.may(principal, "readings.read", device)]


def routers(desk: Desk) -> list[HTTPRouteHandler]:
    """What is mounted at the root of the hub's HTTP port."""

    @post("/sendCommand", status_code=200)
    async def send_command(request: AnyRequest) -> Response[bytes]:
        """Order something of a device."""
        try:
            return _json(200, await desk.send_command(request))
        except (GridloomError, HTTPException) as error:
            return _refusal(error)

    @get(["/readMeter", "/readMeter/{path:path}"], status_code=200)
    async def read_meter(request: AnyRequest) -> Response[bytes]:
        """The newest reads of meters."""
        try:
            answer = await desk.read_meter(request)
        except (GridloomError, HTTPException) as error:
            return _refusal(error)
        return Response(answer.body, media_type=answer.media_type)

    return [send_command, read_meter]


def _json(status: int, content: msgspec.Struct, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json", headers=headers or {})


def _refusal(error: GridloomError | HTTPException) -> Response[bytes]:
    """Whatever is wrong is said in ``error``."""
    if isinstance(error, HTTPException):
        return _json(error.status_code, Failure(str(error.detail)))
    if isinstance(error, InvalidInput):
        return _json(400, Failure(orders.in_words(error)))
    if isinstance(error, Unauthenticated):
        return _json(401, Failure(error.message), {"www-authenticate": 'Bearer realm="gridloom"'})
    if isinstance(error, Refused | NotFound):
        return _json(400, Failure(error.message))
    if not isinstance(error, Forbidden):
        log.warning("a request could not be answered", extra={"code": error.code, "reason": error.message})
    return _json(error.status, Failure(error.message))
