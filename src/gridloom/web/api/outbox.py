"""The outbox: what waits to be delivered to others (webhooks…), what was, and what could not be."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core.hub import Hub
from gridloom.core.model import Principal
from gridloom.core.outbox import Attempt, Outgoing, State
from gridloom.web import wire
from gridloom.web.operation import Answer, Cursor, Id, Limit, Moment, next_link, operation

NO_ENTRY = {404: "There is no such entry."}


class AttemptOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt to deliver."""

    time: Moment
    seconds: Annotated[float, Meta(description="how long it took")]
    result: str
    status: Annotated[int | None, Meta(description="the target's answer, if it gave one")] = None


class EntryOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One thing to deliver."""

    id: str
    queue: str
    target: str
    key: Annotated[str, Meta(description="entries with the same queue, target and key leave in order")]
    state: State
    created: Moment
    due: Annotated[Moment, Meta(description="when it is tried next, or was last")]
    expires: Annotated[Moment, Meta(description="when it is given up")]
    tries: int
    payload: Any = None
    attempts: tuple[AttemptOut, ...] = ()


class EntryPage(msgspec.Struct, frozen=True):
    """A page of entries, newest first."""

    items: tuple[EntryOut, ...]
    next: str | None


class EntryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which entries."""

    queue: Annotated[Id | None, Meta(description="Only of this queue.")] = None
    target: Annotated[Id | None, Meta(description="Only for this target.")] = None
    state: Annotated[State | None, Meta(description="Only in this state.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose log."""

    queue: Annotated[Id, Meta(description="The queue.")]
    target: Annotated[Id, Meta(description="The target.")]
    limit: Limit = 100


class LogLine(msgspec.Struct, frozen=True):
    """One attempt, of one entry."""

    entry: str
    state: State
    attempt: AttemptOut


class Log(msgspec.Struct, frozen=True):
    """Attempts, newest first."""

    items: tuple[LogLine, ...]


@operation("GET", "/api/v1/outbox", summary="What waits to be delivered", tag="outbox", headers={"Link": 'the next page, with `rel="next"`'})
async def list_outbox(hub: Hub, principal: Principal, query: EntryQuery, request: Request[Any, Any, Any]) -> Answer[EntryPage]:
    """Entries that wait, were delivered or are dead, newest first. For admins and operators."""
    hub.accounts.require(principal, "hub.read")
    found = await hub.outbox.list(queue=query.queue, target=query.target, state=query.state, limit=query.limit + 1, after=query.cursor or "")
    page = found[: query.limit]
    cursor = page[-1].id if len(found) > query.limit else None
    return Answer(EntryPage(tuple(_entry(one) for one in page), cursor), headers=next_link(request, cursor))


@operation("GET", "/api/v1/outbox/log", summary="The last attempts to deliver to a target", tag="outbox")
async def outbox_log(hub: Hub, principal: Principal, query: LogQuery) -> Log:
    """Newest first. For admins and operators."""
    hub.accounts.require(principal, "hub.read")
    found = await hub.outbox.log(query.queue, query.target, limit=query.limit)
    return Log(tuple(LogLine(entry.id, entry.state, _attempt(attempt)) for entry, attempt in found))


@operation("GET", "/api/v1/outbox/{entry_id}", summary="One entry of the outbox", tag="outbox", refuses=NO_ENTRY)
async def read_outbox_entry(hub: Hub, principal: Principal, entry_id: str) -> EntryOut:
    """With its attempts. For admins and operators."""
    hub.accounts.require(principal, "hub.read")
    return _entry(await hub.outbox.get(entry_id))


@operation(
    "POST",
    "/api/v1/outbox/{entry_id}/replay",
    summary="Deliver an entry again",
    tag="outbox",
    refuses={**NO_ENTRY, 409: "It waits to be delivered anyway."},
)
async def replay_outbox_entry(hub: Hub, principal: Principal, entry_id: str) -> EntryOut:
    """A dead or delivered one, as if it were new, under the same id. For admins and operators."""
    hub.accounts.require(principal, "outbox.manage")
    return _entry(await hub.outbox.replay(entry_id, principal))


def _attempt(one: Attempt) -> AttemptOut:
    return AttemptOut(wire.moment(one.time), one.seconds, one.result, one.status)


def _entry(one: Outgoing) -> EntryOut:
    return EntryOut(
        id=one.id,
        queue=one.queue,
        target=one.target,
        key=one.key,
        state=one.state,
        created=wire.moment(one.created),
        due=wire.moment(one.due),
        expires=wire.moment(one.expires),
        tries=one.tries,
        payload=one.payload,
        attempts=tuple(_attempt(attempt) for attempt in one.attempts),
    )


ROUTES = (list_outbox, outbox_log, read_outbox_entry, replay_outbox_entry)
