"""Readings: the latest values, raw samples, which series there are, and what becomes of them by time step. As JSON, or as CSV.

CSV is chosen by ``format=csv`` or by an ``Accept`` header that names ``text/csv`` and no JSON. Its columns are those of the JSON; a text cell
that a spreadsheet would take for a formula gets an apostrophe in front.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request
from msgspec import Meta

from gridloom.core.clock import from_datetime
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.hub import Hub
from gridloom.core.model import Phase, Principal, ReadingType, TimeSource
from gridloom.core.ports import AggregateQuery, AggregateRow, Bucket, LatestValue, Operator, Series, SeriesFilter, Step
from gridloom.core.query import LATEST, SamplesPage
from gridloom.web import paging, wire
from gridloom.web.api.devices import NO_DEVICE, seen
from gridloom.web.operation import Answer, Cursor, Exact, Id, Limit, Moment, Name, Time, next_link, operation
from gridloom.web.problems import RequestFault
from gridloom.web.wire import Value

LINK = {"Link": 'the next page, with `rel="next"`'}
BOTH = ("application/json", "text/csv")
NO_DEVICES = {404: "One of the devices does not exist, or not for this token."}

Devices = Annotated[tuple[Id, ...], Meta(max_length=100, description="Only of these devices. Repeatable.")]
Measurands = Annotated[tuple[Id, ...], Meta(max_length=100, description="Only these measurands, see `/api/v1/measurands`. Repeatable.")]
Phases = Annotated[
    tuple[Literal["", "L1", "L2", "L3", "N", "L1-L2", "L2-L3", "L3-L1"], ...],
    Meta(max_length=10, description="Only these phases; empty is the total. Repeatable."),
]
Tariffs = Annotated[tuple[Name, ...], Meta(max_length=100, description="Only these tariff registers; empty is the total. Repeatable.")]
Locations = Annotated[tuple[Name, ...], Meta(max_length=100, description="Only these points of measurement; empty is the main one. Repeatable.")]
Format = Annotated[Literal["json", "csv"] | None, Meta(description="Instead of an `Accept` header.")]
Many = Annotated[int, Meta(ge=1, le=10_000, description="At most this many values.")]


class _Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which series of a device."""

    measurand: Measurands | None = None
    phase: Phases | None = None
    tariff: Tariffs | None = None
    location: Locations | None = None


class ReadingQuery(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which values of a device."""

    begin: Annotated[Time | None, Meta(description="Raw samples from this time on. Without `begin` and `end`: the latest value of each series.")] = (
        None
    )
    end: Annotated[Time | None, Meta(description="Raw samples before this time.")] = None
    descending: Annotated[bool, Meta(description="Newest first within each series.")] = False
    limit: Many = 1000
    cursor: Cursor | None = None
    format: Format = None


class LatestQuery(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which latest values."""

    device: Devices | None = None
    limit: Many = 1000
    cursor: Cursor | None = None
    format: Format = None


class SeriesQuery(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which series."""

    device: Devices | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class AggregationQuery(_Selection, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question over any device × measurand × phase × tariff × location × time × operator × step."""

    operator: Annotated[Operator, Meta(description="`delta` is for registers: increases, with resets, roll-overs and spikes recognised.")]
    step: Annotated[Step, Meta(description="From `day` up, steps are cut by local time in `zone`; days of 23 and 25 hours exist.")]
    begin: Annotated[Time, Meta(description="From this time on.")]
    end: Annotated[Time, Meta(description="Before this time; at most 10,000 steps after `begin`.")]
    zone: Annotated[Name | None, Meta(description="IANA time zone; absent: the hub's.")] = None
    device: Devices | None = None
    source: Annotated[TimeSource | None, Meta(description="Only samples timed by this clock; absent: the device's where it has one.")] = None
    include_suspect: Annotated[bool, Meta(description="Also values that were marked implausible.")] = False
    limit: Many = 10_000
    cursor: Cursor | None = None
    format: Format = None


class DeviceValue(Value, frozen=True, omit_defaults=True, kw_only=True):
    """One value of one series of a device."""

    device: str


class ReadingsPage(msgspec.Struct, frozen=True):
    """A page of values, series by series."""

    items: tuple[DeviceValue, ...]
    next: str | None


class SeriesOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One series: a device and what its numbers mean; what the store has of it."""

    device: str
    measurand: str
    unit: str
    first: Annotated[Moment, Meta(description="time of its oldest sample")]
    last: Annotated[Moment, Meta(description="time of its newest sample")]
    count: Annotated[int, Meta(description="samples")]
    phase: Phase | None = None
    tariff: str | None = None
    location: str | None = None


class SeriesPage(msgspec.Struct, frozen=True):
    """A page of series, by device and type."""

    items: tuple[SeriesOut, ...]
    next: str | None


class BucketOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One step. One without samples is absent: nothing is invented in a gap."""

    begin: Moment
    end: Moment
    value: Annotated[Exact, Meta(description="a number; text where the device tells states")]
    count: Annotated[int, Meta(description="samples behind it")]
    since: Annotated[Moment | None, Meta(description="time of the reading a delta was counted from")] = None
    resets: Annotated[int, Meta(description="resets and roll-overs of the register met")] = 0
    rejected: Annotated[int, Meta(description="samples left out as implausible")] = 0


class AggregateOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The steps of one series."""

    device: str
    measurand: str
    unit: str
    phase: Phase | None = None
    tariff: str | None = None
    location: str | None = None
    buckets: tuple[BucketOut, ...]


class AggregatePage(msgspec.Struct, frozen=True):
    """A page of steps, series by series; a series may go on in the next page."""

    items: tuple[AggregateOut, ...]
    next: str | None


# ---------------------------------------------------------------------------------------------------------- operations


@operation(
    "GET",
    "/api/v1/devices/{device_id}/readings",
    summary="Values of a device",
    tag="readings",
    headers=LINK,
    produces=BOTH,
    refuses=NO_DEVICE,
)
async def device_readings(
    hub: Hub, principal: Principal, device_id: str, query: ReadingQuery, request: Request[Any, Any, Any]
) -> Answer[ReadingsPage]:
    """The latest value of each series; with `begin` or `end` the raw samples as they were told, each in its own exact digits."""
    seen(hub, principal, device_id)
    filter = _filter(query, (device_id,))
    if query.begin is None and query.end is None:
        with _named():
            values = await hub.query.latest(principal, filter)
        return _latest_page(values, query.limit, query.cursor, query.format, request)
    begin = 0 if query.begin is None else from_datetime(query.begin)
    end = LATEST if query.end is None else from_datetime(query.end)
    with _named():
        page = await hub.query.samples(principal, filter, begin=begin, end=end, limit=query.limit, cursor=query.cursor, descending=query.descending)
    headers = next_link(request, page.next)
    if _wants_csv(query.format, request):
        rows = [_sample_row(one.series, sample) for one in page.pages for sample in one.samples]
        return _csv(_VALUE_COLUMNS, rows, headers)
    return Answer(await _samples_json(page), headers=headers)


@operation(
    "GET", "/api/v1/readings/latest", summary="The latest values of many devices", tag="readings", headers=LINK, produces=BOTH, refuses=NO_DEVICES
)
async def latest_readings(hub: Hub, principal: Principal, query: LatestQuery, request: Request[Any, Any, Any]) -> Answer[ReadingsPage]:
    """The newest value of each series of all devices that the token sees."""
    with _named():
        values = await hub.query.latest(principal, _filter(query, query.device))
    return _latest_page(values, query.limit, query.cursor, query.format, request)


@operation("GET", "/api/v1/readings/series", summary="Which series there are", tag="readings", headers=LINK, refuses=NO_DEVICES)
async def list_series(hub: Hub, principal: Principal, query: SeriesQuery, request: Request[Any, Any, Any]) -> Answer[SeriesPage]:
    """By device and type, with the times of their first and last samples."""
    with _named():
        found = await hub.query.series(principal, _filter(query, query.device))
    ordered = sorted(found, key=_series_key)
    items, cursor = paging.page(ordered, _series_key, tuple[str, str, str, str, str, str], query.limit, query.cursor)
    page = SeriesPage(
        tuple(
            SeriesOut(
                device=one.device,
                measurand=one.type.measurand,
                unit=one.type.unit,
                phase=one.type.phase,
                tariff=one.type.tariff,
                location=one.type.location,
                first=wire.moment(one.first),
                last=wire.moment(one.last),
                count=one.count,
            )
            for one in items
        ),
        cursor,
    )
    return Answer(page, headers=next_link(request, cursor))


@operation("GET", "/api/v1/readings/aggregate", summary="Values by time step", tag="readings", headers=LINK, produces=BOTH, refuses=NO_DEVICES)
async def aggregate_readings(hub: Hub, principal: Principal, query: AggregationQuery, request: Request[Any, Any, Any]) -> Answer[AggregatePage]:
    """Sum, average, least, greatest, count, first, last, or the increase of a register, per step, for every series that matches."""
    question = AggregateQuery(
        filter=_filter(query, query.device),
        operator=query.operator,
        step=query.step,
        begin=from_datetime(query.begin),
        end=from_datetime(query.end),
        zone=query.zone or hub.timezone,
        include_suspect=query.include_suspect,
        source=query.source,
    )
    with _named():
        rows = await hub.query.aggregate(principal, question)
    flat = ((row.series, bucket) for row in sorted(rows, key=_row_key) for bucket in row.buckets)
    items, cursor = paging.page(flat, _bucket_key, tuple[str, str, str, str, str, str, int], query.limit, query.cursor)
    headers = next_link(request, cursor)
    if _wants_csv(query.format, request):
        return _csv(_BUCKET_COLUMNS, [_bucket_row(series, bucket) for series, bucket in items], headers)
    return Answer(AggregatePage(tuple(_grouped(items)), cursor), headers=headers)


# ------------------------------------------------------------------------------------------------------------- details


def _filter(query: _Selection, devices: tuple[str, ...] | None) -> SeriesFilter:
    return SeriesFilter(
        devices=devices,
        measurands=query.measurand,
        phases=None if query.phase is None else tuple(Phase(one) if one else None for one in query.phase),
        tariffs=None if query.tariff is None else tuple(one or None for one in query.tariff),
        locations=None if query.location is None else tuple(one or None for one in query.location),
    )


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """The core names members of its own question; here they have the names of the parameters."""
    try:
        yield
    except InvalidInput as error:
        found = tuple(FieldFault(fault.path.replace("$.measurands[", "$.measurand["), fault.reason) for fault in error.faults)
        raise RequestFault("query", found) from None


def _wants_csv(format: str | None, request: Request[Any, Any, Any]) -> bool:
    if format is not None:
        return format == "csv"
    accept = request.headers.get("accept", "")
    return "text/csv" in accept and "application/json" not in accept


def _type_key(type: ReadingType) -> tuple[str, str, str, str, str]:
    return (type.measurand, type.unit, type.phase or "", type.tariff or "", type.location or "")


def _series_key(one: Series) -> tuple[str, str, str, str, str, str]:
    return (one.device, *_type_key(one.type))


def _latest_key(one: LatestValue) -> tuple[str, str, str, str, str, str]:
    return (one.device, *_type_key(one.type))


def _row_key(row: AggregateRow) -> tuple[str, str, str, str, str, str]:
    return _series_key(row.series)


def _bucket_key(one: tuple[Series, Bucket]) -> tuple[str, str, str, str, str, str, int]:
    return (*_series_key(one[0]), one[1].begin)


def _latest_page(
    values: Sequence[LatestValue], limit: int, cursor: str | None, format: str | None, request: Request[Any, Any, Any]
) -> Answer[ReadingsPage]:
    ordered = sorted(values, key=_latest_key)
    items, after = paging.page(ordered, _latest_key, tuple[str, str, str, str, str, str], limit, cursor)
    headers = next_link(request, after)
    if _wants_csv(format, request):
        return _csv(_VALUE_COLUMNS, [_latest_row(one) for one in items], headers)
    return Answer(ReadingsPage(tuple(_of_device(one.device, wire.latest(one)) for one in items), after), headers=headers)


def _of_device(device: str, value: Value) -> DeviceValue:
    return DeviceValue(device=device, **{name: getattr(value, name) for name in value.__struct_fields__})


async def _samples_json(page: SamplesPage) -> bytes:
    """``ReadingsPage`` written straight: ten thousand samples are no reason to keep everybody else waiting."""
    parts: list[str] = []
    for one in page.pages:
        device = msgspec.json.encode(one.series.device).decode()
        prefix = wire.type_prefix(one.series.type)
        for sample in one.samples:
            parts.append(f'{prefix},"device":{device},{wire.sample_members(sample)}}}')
            if len(parts) % 500 == 0:
                await asyncio.sleep(0)
    return b'{"items":[%b],"next":%b}' % (",".join(parts).encode(), msgspec.json.encode(page.next))


def _grouped(items: Iterable[tuple[Series, Bucket]]) -> Iterator[AggregateOut]:
    """Buckets under their series again."""
    series: Series | None = None
    buckets: list[BucketOut] = []
    for one, bucket in items:
        if series is not None and one.number != series.number:
            yield _aggregate(series, buckets)
            buckets = []
        series = one
        buckets.append(
            BucketOut(
                begin=wire.moment(bucket.begin),
                end=wire.moment(bucket.end),
                value=wire.number(bucket.value, bucket.exponent),
                count=bucket.count,
                since=wire.maybe_moment(bucket.since),
                resets=bucket.resets,
                rejected=bucket.rejected,
            )
        )
    if series is not None:
        yield _aggregate(series, buckets)


def _aggregate(series: Series, buckets: Sequence[BucketOut]) -> AggregateOut:
    it = series.type
    return AggregateOut(
        device=series.device,
        measurand=it.measurand,
        unit=it.unit,
        phase=it.phase,
        tariff=it.tariff,
        location=it.location,
        buckets=tuple(buckets),
    )


# ----------------------------------------------------------------------------------------------------------------- CSV

_TYPE_COLUMNS = ("device", "measurand", "unit", "phase", "tariff", "location")
_VALUE_COLUMNS = (*_TYPE_COLUMNS, "time", "source", "received", "value", "context", "quality")
_BUCKET_COLUMNS = (*_TYPE_COLUMNS, "begin", "end", "value", "count", "since", "resets", "rejected")


def _type_cells(device: str, type: ReadingType) -> tuple[str, ...]:
    return (device, type.measurand, type.unit, type.phase or "", type.tariff or "", type.location or "")


def _number_cell(value: int | float | str, exponent: int) -> str:
    return value if isinstance(value, str) else wire.value_text(value, exponent)


def _sample_row(series: Series, one: Any) -> tuple[str, ...]:
    cells = _type_cells(series.device, series.type)
    quality = " ".join(wire.qualities(one.quality))
    value = _number_cell(one.value, one.exponent)
    return (*cells, wire.moment(one.time), one.source.value, wire.moment(one.received), value, one.context.value, quality)


def _latest_row(one: LatestValue) -> tuple[str, ...]:
    cells = _type_cells(one.device, one.type)
    quality = " ".join(wire.qualities(one.quality))
    return (*cells, wire.moment(one.time), one.source.value, wire.moment(one.received), _number_cell(one.value, one.exponent), "", quality)


def _bucket_row(series: Series, one: Bucket) -> tuple[str, ...]:
    cells = _type_cells(series.device, series.type)
    since = "" if one.since is None else wire.moment(one.since)
    value = _number_cell(one.value, one.exponent)
    return (*cells, wire.moment(one.begin), wire.moment(one.end), value, str(one.count), since, str(one.resets), str(one.rejected))


def _csv(columns: Sequence[str], rows: Iterable[tuple[str, ...]], headers: dict[str, str]) -> Answer[Any]:
    """RFC 4180 with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return Answer(text.getvalue().encode(), media_type="text/csv", headers={**headers, "content-disposition": 'inline; filename="readings.csv"'})


def _cell(text: str) -> str:
    """A spreadsheet would run ``=…``; a negative number is none of that."""
    if text[:1] in ("=", "+", "@", "\t", "\r") or (text[:1] == "-" and not text[1:2].isdigit()):
        return "'" + text
    return text


ROUTES = (device_readings, latest_readings, list_series, aggregate_readings)
