"""Devices: what is connected, what it can do, and what people say of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core.errors import NotFound
from gridloom.core.hub import Hub
from gridloom.core.model import Admission, Consent, Device, DeviceKind, Principal
from gridloom.core.subjects import DeviceState
from gridloom.web import wire
from gridloom.web.operation import Answer, Cursor, Id, Limit, Name, next_link, operation
from gridloom.web.paging import page
from gridloom.web.wire import DeviceOut

NO_DEVICE = {404: "There is no such device, or not for this token."}


class DevicePage(msgspec.Struct, frozen=True):
    """A page of devices, by id."""

    items: tuple[DeviceOut, ...]
    next: str | None


class DeviceQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which devices."""

    capability: Annotated[Id | None, Meta(description="Only those that can do this: a verb or a measurand.")] = None
    kind: Annotated[DeviceKind | None, Meta(description="Only this sort of thing.")] = None
    site: Annotated[Name | None, Meta(description="Only in this site; empty: in none.")] = None
    integration: Annotated[Id | None, Meta(description="Only of this system: `tic`, `os3p`, `ocpp`, `ekm`, `everest`…")] = None
    admission: Annotated[Admission | None, Meta(description="Only known, pending or rejected ones.")] = None
    online: Annotated[bool | None, Meta(description="Only those that are connected, or are not.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class DeviceChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to change; what is absent stays."""

    name: Name | None = None
    site: Annotated[Name | None, Meta(description="a site's id; empty: none")] = None
    admission: Admission | None = None
    consent: Consent | None = None
    attributes: Annotated[dict[Name, Name], Meta(max_length=50)] | None = None


@operation("GET", "/api/v1/devices", summary="Devices", tag="devices", headers={"Link": 'the next page, with `rel="next"`'})
async def list_devices(hub: Hub, principal: Principal, query: DeviceQuery, request: Request[Any, Any, Any]) -> Answer[DevicePage]:
    """Those that the token sees, by id."""
    wanted = (state for state in hub.registry.states() if _wanted(state, query) and hub.accounts.visible(principal, state.device))
    found, cursor = page(wanted, lambda state: (state.device.id,), tuple[str], query.limit, query.cursor)
    return Answer(DevicePage(tuple(wire.device(state) for state in found), cursor), headers=next_link(request, cursor))


@operation("GET", "/api/v1/devices/{device_id}", summary="One device", tag="devices", refuses=NO_DEVICE)
async def read_device(hub: Hub, principal: Principal, device_id: str) -> DeviceOut:
    """What it is, what it can do, and whether it is there."""
    seen(hub, principal, device_id)
    return wire.device(hub.registry.state(device_id))


@operation("PATCH", "/api/v1/devices/{device_id}", summary="Name, move or admit a device", tag="devices", refuses=NO_DEVICE)
async def update_device(hub: Hub, principal: Principal, device_id: str, body: DeviceChange) -> DeviceOut:
    """What people say of it; the device itself never overwrites that.

    Each member needs its own right: `device.manage`, `device.approve` (admission), `consent.manage`.
    """
    device = seen(hub, principal, device_id)
    if all(value is None for value in msgspec.structs.asdict(body).values()):
        hub.accounts.require(principal, "device.manage", device)
    await hub.registry.update(
        device_id, principal, name=body.name, site=body.site, admission=body.admission, consent=body.consent, attributes=body.attributes
    )
    return wire.device(hub.registry.state(device_id))


@operation("DELETE", "/api/v1/devices/{device_id}", summary="Remove a device", tag="devices", status=204, refuses=NO_DEVICE)
async def remove_device(hub: Hub, principal: Principal, device_id: str) -> None:
    """The device and its alarms go; its readings, events and the audit trail stay. If it presents itself again it is a new one."""
    seen(hub, principal, device_id)
    await hub.registry.remove(device_id, principal)


def seen(hub: Hub, principal: Principal, device_id: str, verb: str = "device.read") -> Device:
    """The device, if the principal may use the verb on it. Raises NotFound when it does not exist for the principal, Forbidden."""
    device = hub.registry.get(device_id)
    if not hub.accounts.visible(principal, device):
        raise NotFound(f"there is no device {device_id[:120]!r}")  # word for word as for one that does not exist
    hub.accounts.require(principal, verb, device)
    return device


def _wanted(state: DeviceState, query: DeviceQuery) -> bool:
    device = state.device
    return (
        (query.capability is None or query.capability in device.verbs or query.capability in device.measurands)
        and (query.kind is None or device.kind is query.kind)
        and (query.site is None or device.site == query.site)
        and (query.integration is None or device.integration == query.integration)
        and (query.admission is None or device.admission is query.admission)
        and (query.online is None or state.online is query.online)
    )


ROUTES = (list_devices, read_device, update_device, remove_device)
