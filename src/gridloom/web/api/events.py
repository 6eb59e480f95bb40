"""Events: the journal of what happened to devices; and alarms, the conditions that events raise and clear."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core.alarms import Alarm
from gridloom.core.clock import from_datetime
from gridloom.core.hub import Hub
from gridloom.core.model import EventState, Principal, Severity
from gridloom.web import wire
from gridloom.web.operation import NO_CONTROLS, Answer, Cursor, Id, Limit, Moment, Time, next_link, operation
from gridloom.web.paging import page
from gridloom.web.wire import EventOut

LINK = {"Link": 'the next page, with `rel="next"`'}


class EventPage(msgspec.Struct, frozen=True):
    """A page of events."""

    items: tuple[EventOut, ...]
    next: str | None


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which events."""

    device: Annotated[tuple[Id, ...], Meta(max_length=100, description="Only of these devices. Repeatable.")] | None = None
    kind: Annotated[tuple[Id, ...], Meta(max_length=100, description="Only these kinds; may end in `.*`. Repeatable.")] | None = None
    severity: Annotated[Severity | None, Meta(description="Only those at least this severe.")] = None
    begin: Annotated[Time | None, Meta(description="From this time on.")] = None
    end: Annotated[Time | None, Meta(description="Before this time.")] = None
    ascending: Annotated[bool, Meta(description="Oldest first; else newest first.")] = False
    by_time: Annotated[bool, Meta(description="In the order in which it happened; else in which the hub heard of it.")] = False
    limit: Limit = 100
    cursor: Cursor | None = None


class AlarmOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A condition of a device, from raised to cleared."""

    id: str
    device: str
    kind: str
    severity: Severity
    state: EventState
    raised: Annotated[Moment, Meta(description="when it began")]
    updated: Moment
    count: Annotated[int, Meta(description="how often it was raised since it began")]
    subject: Annotated[str, Meta(description="which part of the device")] = ""
    message: str = ""
    data: dict[str, Any] = {}
    cleared: Moment | None = None
    acknowledged: Annotated[AcknowledgedOut | None, Meta(description="somebody has seen it")] = None


class AcknowledgedOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who has seen an alarm, and when."""

    account: str
    time: Moment
    note: str = ""


class AlarmPage(msgspec.Struct, frozen=True):
    """A page of alarms, the most severe and newest first."""

    items: tuple[AlarmOut, ...]
    next: str | None


class AlarmQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which alarms."""

    device: Annotated[Id | None, Meta(description="Only of this device.")] = None
    severity: Annotated[Severity | None, Meta(description="Only those at least this severe.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class AlarmHistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose alarms."""

    device: Annotated[Id | None, Meta(description="Only of this device.")] = None
    limit: Limit = 100
    cursor: Cursor | None = None


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the one who has seen an alarm says about it."""

    note: Annotated[str, Meta(max_length=500, pattern=NO_CONTROLS)] = ""


@operation(
    "GET",
    "/api/v1/events",
    summary="What happened",
    tag="events",
    headers=LINK,
    refuses={404: "One of the devices does not exist, or not for this token."},
)
async def list_events(hub: Hub, principal: Principal, query: EventQuery, request: Request[Any, Any, Any]) -> Answer[EventPage]:
    """The journal, newest first, of all devices that the token sees."""
    page = await hub.query.events(
        principal,
        devices=query.device,
        kinds=query.kind,
        min_severity=query.severity,
        begin=None if query.begin is None else from_datetime(query.begin),
        end=None if query.end is None else from_datetime(query.end),
        descending=not query.ascending,
        by_time=query.by_time,
        limit=query.limit,
        cursor=query.cursor,
    )
    return Answer(EventPage(tuple(wire.event(one) for one in page.events), page.next), headers=next_link(request, page.next))


@operation("GET", "/api/v1/alarms", summary="What is wrong now", tag="events", headers=LINK)
async def list_alarms(hub: Hub, principal: Principal, query: AlarmQuery, request: Request[Any, Any, Any]) -> Answer[AlarmPage]:
    """Alarms that are raised, of all devices that the token sees."""
    active = sorted(hub.alarms.active(principal, device=query.device, min_severity=query.severity), key=_place)
    found, cursor = page(active, _place, tuple[int, int, str], query.limit, query.cursor)
    return Answer(AlarmPage(tuple(_alarm(one) for one in found), cursor), headers=next_link(request, cursor))


@operation(
    "GET",
    "/api/v1/alarms/history",
    summary="What was wrong",
    tag="events",
    headers=LINK,
    refuses={404: "There is no such device, or not for this token."},
)
async def alarm_history(hub: Hub, principal: Principal, query: AlarmHistoryQuery, request: Request[Any, Any, Any]) -> Answer[EventPage]:
    """The events that raised, cleared and acknowledged alarms, newest first."""
    page = await hub.alarms.history(principal, device=query.device, limit=query.limit, cursor=query.cursor)
    return Answer(EventPage(tuple(wire.event(one) for one in page.events), page.next), headers=next_link(request, page.next))


@operation("GET", "/api/v1/alarms/{alarm_id}", summary="One alarm", tag="events", refuses={404: "There is no such alarm, or not for this token."})
async def read_alarm(hub: Hub, principal: Principal, alarm_id: str) -> AlarmOut:
    """Raised or cleared."""
    return _alarm(hub.alarms.get(principal, alarm_id))


@operation(
    "POST",
    "/api/v1/alarms/{alarm_id}/acknowledge",
    summary="Say that an alarm was seen",
    tag="events",
    refuses={404: "There is no such alarm, or not for this token.", 409: "It is no longer raised."},
)
async def acknowledge_alarm(hub: Hub, principal: Principal, alarm_id: str, body: Note) -> AlarmOut:
    """It stays raised until the condition ends; everybody sees who has seen it."""
    return _alarm(await hub.alarms.acknowledge(principal, alarm_id, body.note))


def _place(one: Alarm) -> tuple[int, int, str]:
    """The most severe first, of these the newest."""
    return (-one.severity.rank, -one.raised, one.id)


def _alarm(one: Alarm) -> AlarmOut:
    seen = one.acknowledged
    return AlarmOut(
        id=one.id,
        device=one.device,
        kind=one.kind,
        severity=one.severity,
        state=one.state,
        raised=wire.moment(one.raised),
        updated=wire.moment(one.updated),
        count=one.count,
        subject=one.subject,
        message=one.message,
        data=one.data,
        cleared=wire.maybe_moment(one.cleared),
        acknowledged=None if seen is None else AcknowledgedOut(seen.account, wire.moment(seen.time), seen.note),
    )


ROUTES = (list_events, list_alarms, alarm_history, read_alarm, acknowledge_alarm)
