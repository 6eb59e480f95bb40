"""Orders to devices, from acceptance to their end; and transactions."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core import faults, verbs
from gridloom.core.errors import DeviceTimeout, FieldFault, Forbidden, InvalidInput, NotFound
from gridloom.core.hub import Hub
from gridloom.core.model import CommandState, Principal, Transaction, TransactionState
from gridloom.web import wire
from gridloom.web.api.devices import NO_DEVICE, seen
from gridloom.web.operation import Answer, Cursor, Id, Limit, next_link, operation
from gridloom.web.settings import WebSettings
from gridloom.web.wire import CommandOut, TransactionOut

LINK = {"Link": 'the next page, with `rel="next"`'}


CommandId = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")]


class CommandPage(msgspec.Struct, frozen=True):
    """A page of orders, newest first."""

    items: tuple[CommandOut, ...]
    next: str | None


class CommandQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which orders."""

    state: Annotated[CommandState | None, Meta(description="Only in this state.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class NewCommand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An order: a verb of the device, with its arguments."""

    verb: Annotated[str, Meta(min_length=1, max_length=100)]
    arguments: dict[str, Any] = {}
    expires_in: Annotated[float, Meta(gt=0, le=2_592_000, description="seconds until it is no longer to be carried out")] | None = None
    wait_online: Annotated[bool, Meta(description="wait for a device that is not connected, until it expires; else that is a refusal")] = False
    id: (
        Annotated[CommandId, Meta(description="the client's own id; who repeats it gets the order that has it, and nothing is ordered twice")] | None
    ) = None


class SubmitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long to wait for the end of the order."""

    wait: Annotated[float, Meta(ge=0, le=120, description="Answer only when the order has ended, or after so many seconds.")] = 0


class TransactionPage(msgspec.Struct, frozen=True):
    """A page of transactions."""

    items: tuple[TransactionOut, ...]
    next: str | None


class TransactionQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which transactions."""

    device: Annotated[Id | None, Meta(description="Only of this device.")] = None
    state: Annotated[TransactionState | None, Meta(description="Only in this state.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


def _submit_schema(components: dict[str, Any]) -> dict[str, Any]:
    """One alternative per verb, with its own arguments: what would be refused is refused by the schema already."""
    orders = [row for row in verbs.TABLE.values() if row.kind == "order"]
    schemas, found = msgspec.json.schema_components([row.arguments for row in orders], ref_template="#/components/schemas/{name}")
    components.update(found)
    _, own = msgspec.json.schema_components([NewCommand], ref_template="#/components/schemas/{name}")
    common = own["NewCommand"]["properties"]
    alternatives = []
    for row, schema in zip(orders, schemas, strict=True):
        target = components[schema["$ref"].rpartition("/")[2]]
        for name in row.secrets:
            target["properties"][name]["writeOnly"] = True
        needed = ["verb", "arguments"] if target.get("required") else ["verb"]
        properties = {"verb": {"const": row.name, "description": row.meaning}, "arguments": schema}
        properties |= {name: common[name] for name in ("expires_in", "wait_online", "id")}
        alternatives.append({"type": "object", "title": row.name, "properties": properties, "required": needed, "additionalProperties": False})
    return {"oneOf": alternatives}


def _order_faults(data: Any) -> tuple[FieldFault, ...]:
    """What the verb says about an order, beside the faults of its other members."""
    verb, arguments = (data.get("verb"), data.get("arguments", {})) if isinstance(data, dict) else (None, None)
    if not isinstance(verb, str):
        return ()
    row = verbs.TABLE.get(verb)
    if row is None or row.kind != "order":
        orders = [name for name, one in verbs.TABLE.items() if one.kind == "order"]
        return (FieldFault("$.verb", f"there is no order {verb[:60]!r}{faults.nearest(verb, orders)}"),)
    if not isinstance(arguments, dict):
        return ()
    try:
        verbs.validate(verb, arguments)
    except InvalidInput as error:
        return tuple(FieldFault(fault.path.replace("$", "$.arguments", 1), fault.reason) for fault in error.faults)
    return ()


@operation("GET", "/api/v1/commands", summary="Orders to all devices", tag="commands", headers=LINK)
async def list_commands(hub: Hub, principal: Principal, query: CommandQuery, request: Request[Any, Any, Any]) -> Answer[CommandPage]:
    """Of all devices that the token sees, newest first."""
    return await _page(hub, principal, None, query, request)


@operation("GET", "/api/v1/devices/{device_id}/commands", summary="Orders to one device", tag="commands", headers=LINK, refuses=NO_DEVICE)
async def list_device_commands(
    hub: Hub, principal: Principal, device_id: str, query: CommandQuery, request: Request[Any, Any, Any]
) -> Answer[CommandPage]:
    """Newest first."""
    seen(hub, principal, device_id, "commands.read")
    return await _page(hub, principal, device_id, query, request)


@operation(
    "POST",
    "/api/v1/devices/{device_id}/commands",
    summary="Order a device to do something",
    tag="commands",
    status=202,
    body_schema=_submit_schema,
    check=_order_faults,
    headers={"Location": "the order, to ask how it goes on"},
    refuses={
        200: "The order has ended within `wait`; its state says how.",
        **NO_DEVICE,
        409: "The device cannot do this (`unsupported`), or is not connected and the order does not wait (`offline`); nothing was sent.",
        503: "The store cannot keep the order, so it was not accepted.",
    },
)
async def submit_command(
    hub: Hub, principal: Principal, device_id: str, query: SubmitQuery, body: NewCommand, request: Request[Any, Any, Any]
) -> Answer[CommandOut]:
    """Accepted means kept on disk: the order survives a crash of the hub. Its `Location` tells how it goes on, and so does the stream.

    The arguments are those of the verb, see `/api/v1/verbs`. An order that is not idempotent is never sent twice.
    """
    accepted = await hub.commands.submit(
        principal,
        device_id,
        body.verb,
        body.arguments,
        expires_in=body.expires_in,
        wait_online=body.wait_online,
        client=principal.client,
        id=body.id,
    )
    settings: WebSettings = request.app.state["settings"]
    if query.wait and not accepted.state.final:
        try:
            accepted = await hub.commands.wait(accepted.id, min(query.wait, settings.max_wait), principal)
        except DeviceTimeout:
            accepted = await hub.commands.get(accepted.id, principal)
    status = 200 if accepted.state.final else 202
    return Answer(wire.command(accepted), status=status, headers={"location": f"/api/v1/commands/{quote(accepted.id, safe='')}"})


@operation(
    "GET", "/api/v1/commands/{command_id}", summary="One order", tag="commands", refuses={404: "There is no such order, or not for this token."}
)
async def read_command(hub: Hub, principal: Principal, command_id: str, query: SubmitQuery) -> CommandOut:
    """How it is now; with `wait`, once it has ended or after so many seconds."""
    found = await hub.commands.get(command_id, principal)
    if query.wait and not found.state.final:
        try:
            found = await hub.commands.wait(command_id, query.wait, principal)
        except DeviceTimeout:
            found = await hub.commands.get(command_id, principal)
    return wire.command(found)


@operation(
    "DELETE",
    "/api/v1/commands/{command_id}",
    summary="Take an order back",
    tag="commands",
    refuses={404: "There is no such order, or not for this token.", 409: "It was sent already, or has ended."},
)
async def cancel_command(hub: Hub, principal: Principal, command_id: str) -> CommandOut:
    """Only one that was not sent yet."""
    return wire.command(await hub.commands.cancel(command_id, principal))


async def _page(hub: Hub, principal: Principal, device: str | None, query: CommandQuery, request: Request[Any, Any, Any]) -> Answer[CommandPage]:
    found = await hub.commands.list(principal, device=device, state=query.state, limit=query.limit + 1, after=query.cursor or "")
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return Answer(CommandPage(tuple(wire.command(one) for one in page), cursor), headers=next_link(request, cursor))


@operation(
    "GET",
    "/api/v1/transactions",
    summary="Metered intervals",
    tag="transactions",
    headers=LINK,
    refuses={404: "There is no such device, or not for this token."},
)
async def list_transactions(hub: Hub, principal: Principal, query: TransactionQuery, request: Request[Any, Any, Any]) -> Answer[TransactionPage]:
    """Of all devices that the token sees, newest start first."""
    if query.device is not None:
        _readable(hub, principal, query.device)
    found: list[Transaction] = []
    after = query.cursor or ""
    while len(found) <= query.limit:
        page = await hub.transactions.find(device=query.device, state=query.state, limit=500, after=after)
        found.extend(one for one in page if query.device is not None or _may_read(hub, principal, one.device))
        if len(page) < 500:
            break
        after = page[-1].id
    shown = found[: query.limit]
    cursor = shown[-1].id if len(found) > query.limit else None
    return Answer(TransactionPage(tuple(wire.transaction(one) for one in shown), cursor), headers=next_link(request, cursor))


@operation(
    "GET",
    "/api/v1/transactions/{transaction_id}",
    summary="One metered interval",
    tag="transactions",
    refuses={404: "There is no such transaction, or not for this token."},
)
async def read_transaction(hub: Hub, principal: Principal, transaction_id: str) -> TransactionOut:
    """With the readings that bound it."""
    found = await hub.transactions.get(transaction_id)
    if not _may_read(hub, principal, found.device):
        raise NotFound(f"there is no transaction {transaction_id[:60]!r}")  # word for word as for one that does not exist
    return wire.transaction(found)


def _readable(hub: Hub, principal: Principal, device: str) -> None:
    """Raises NotFound, Forbidden. The transactions of a removed device stay for those who see all."""
    try:
        found = hub.registry.get(device)
    except NotFound:
        if not hub.accounts.everywhere(principal, "transactions.read"):
            raise
    else:
        hub.accounts.require(principal, "transactions.read", found)


def _may_read(hub: Hub, principal: Principal, device: str) -> bool:
    try:
        _readable(hub, principal, device)
    except (NotFound, Forbidden):
        return False
    return True


ROUTES = (list_commands, list_device_commands, submit_command, read_command, cancel_command, list_transactions, read_transaction)
