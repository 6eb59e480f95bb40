"""How the core's words are written in the hub's own API and its live stream: the same spelling in both.

Times are RFC 3339 in UTC, values exact JSON numbers, absent members absent.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gridloom.core.clock import rfc3339
from gridloom.core.model import (
    Admission,
    Command,
    CommandState,
    Consent,
    Context,
    DeviceKind,
    Event,
    EventState,
    MeterReading,
    Phase,
    Quality,
    Reading,
    ReadingType,
    Severity,
    TimeSource,
    Transaction,
    TransactionState,
)
from gridloom.core.ports import LatestValue, Sample
from gridloom.core.subjects import DeviceState
from gridloom.web.operation import Exact, Moment

_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, which is what RFC 3339 can write."""


def moment(microseconds: int) -> str:
    """RFC 3339 in UTC; a time outside of the years 1 to 9999 (a device's broken clock) is written as the nearest that can be."""
    return rfc3339(min(max(microseconds, _FIRST), _LAST))


def maybe_moment(microseconds: int | None) -> str | None:
    """The same, None stays None."""
    return None if microseconds is None else moment(microseconds)


def number(value: int | float | str, exponent: int) -> int | float | Decimal | str | None:
    """``value * 10**exponent`` exactly; text stays text; a float that is no number is None."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if exponent == 0:
        return value
    if 0 < exponent <= 30:
        return int(value * 10**exponent)
    return Decimal(value).scaleb(exponent)


def value_text(value: int | float | str, exponent: int) -> str:
    """The same as JSON text: digits as the device resolved them (``230.10``), never in binary fractions."""
    if isinstance(value, str):
        return msgspec.json.encode(value).decode()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "null"
    if exponent == 0:
        return str(value)
    if 0 < exponent <= 30:
        return str(value * 10**exponent)
    if -30 <= exponent < 0:
        digits = str(abs(value)).rjust(1 - exponent, "0")
        sign = "-" if value < 0 else ""
        return f"{sign}{digits[:exponent]}.{digits[exponent:]}"
    return f"{value}E{exponent}"


@lru_cache(maxsize=512)
def qualities(quality: Quality) -> tuple[str, ...]:
    """The names of the flags, lower-case."""
    return tuple(flag.name.lower() for flag in Quality if flag and flag in quality and flag.name)


# ---------------------------------------------------------------------------------------------------------------- Structs


class DeviceOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A device and whether it is there."""

    id: Annotated[str, Meta(description="`integration:identity`; percent-encode it once in a URL")]
    integration: str
    identity: str
    kind: DeviceKind
    admission: Admission
    consent: Annotated[Consent, Meta(description="whether the owner lets its readings out")]
    online: bool
    name: str = ""
    site: str = ""
    vendor: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    online_since: Annotated[Moment | None, Meta(description="when `online` changed last")] = None
    last_seen: Annotated[Moment | None, Meta(description="its last word since this hub started")] = None
    reason: Annotated[str, Meta(description="why it is offline")] = ""
    verbs: Annotated[tuple[str, ...], Meta(description="what it can be ordered to do: rows of `/api/v1/verbs`")] = ()
    measurands: Annotated[tuple[str, ...], Meta(description="what it measures: rows of `/api/v1/measurands`")] = ()
    attributes: Annotated[dict[str, str], Meta(description="facts for people")] = {}
    removed: Annotated[bool, Meta(description="only in the live stream: it was removed just now")] = False


class Value(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One value of one series, in base units."""

    measurand: str
    unit: str
    value: Annotated[Exact, Meta(description="a number; text where the device tells a state, or something that nobody could read")]
    phase: Phase | None = None
    tariff: Annotated[str | None, Meta(description="tariff register; absent is the total")] = None
    location: str | None = None
    time: Annotated[Moment | None, Meta(description="what moment the value is of")] = None
    source: Annotated[TimeSource | None, Meta(description="whose clock said so")] = None
    received: Annotated[Moment | None, Meta(description="when the hub received it, by the hub's clock")] = None
    context: Annotated[str, Meta(description="why it was taken; absent is the default")] = Context.PERIODIC.value
    quality: Annotated[tuple[str, ...], Meta(description="what to know before trusting it; empty is good")] = ()


class MeterReadingOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """All that one device said at one moment."""

    device: str
    time: Moment
    received: Moment
    source: TimeSource
    readings: tuple[Value, ...]


class EventOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something that happened to a device."""

    id: str
    kind: str
    device: str
    time: Moment
    received: Moment
    severity: Severity
    state: EventState
    source: TimeSource
    subject: Annotated[str, Meta(description="which part of the device")] = ""
    message: str = ""
    data: dict[str, Any] = {}


class CommandOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An order to a device. Secret arguments read `***`."""

    id: str
    device: str
    verb: str
    arguments: dict[str, Any]
    state: CommandState
    final: Annotated[bool, Meta(description="nothing more will be heard of it")]
    account: str
    created: Moment
    expires: Moment
    wait_online: bool = False
    client: str = ""
    address: str = ""
    sent: Moment | None = None
    ended: Moment | None = None
    result: Any = None
    error: str = ""


class TransactionOut(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A metered interval, bounded by two readings."""

    id: str
    device: str
    key: Annotated[str, Meta(description="the vendor's own number of it")]
    state: TransactionState
    started: Moment
    location: str | None = None
    identification: str = ""
    begin: MeterReadingOut | None = None
    end: MeterReadingOut | None = None
    ended: Moment | None = None
    reason: str = ""
    data: dict[str, Any] = {}


# ------------------------------------------------------------------------------------------------------------ translation


def device(state: DeviceState) -> DeviceOut:
    """A device as it is answered."""
    it = state.device
    return DeviceOut(
        id=it.id,
        integration=it.integration,
        identity=it.identity,
        kind=it.kind,
        admission=it.admission,
        consent=it.consent,
        online=state.online,
        name=it.name,
        site=it.site,
        vendor=it.vendor,
        model=it.model,
        serial=it.serial,
        firmware=it.firmware,
        online_since=moment(state.since) if state.since else None,
        last_seen=maybe_moment(state.last_seen),
        reason=state.reason,
        verbs=it.verbs,
        measurands=it.measurands,
        attributes=it.attributes,
        removed=state.removed,
    )


def _value(type: ReadingType, value: int | float | str, exponent: int, quality: Quality, **more: Any) -> Value:
    return Value(
        measurand=type.measurand,
        unit=type.unit,
        phase=type.phase,
        tariff=type.tariff,
        location=type.location,
        value=number(value, exponent),
        quality=qualities(quality),
        **more,
    )


def reading(it: Reading) -> Value:
    """One value inside of a MeterReading, whose time it shares."""
    return _value(it.type, it.value, it.exponent, it.quality, context=it.context.value)


def latest(it: LatestValue) -> Value:
    """The newest value of a series."""
    return _value(it.type, it.value, it.exponent, it.quality, time=moment(it.time), source=it.source, received=moment(it.received))


def meter_reading(it: MeterReading) -> MeterReadingOut:
    """A MeterReading without its native message."""
    return MeterReadingOut(
        device=it.device,
        time=moment(it.time),
        received=moment(it.received),
        source=it.source,
        readings=tuple(reading(one) for one in it.readings),
    )


def event(it: Event) -> EventOut:
    """An event as it is answered."""
    return EventOut(
        id=it.id,
        kind=it.kind,
        device=it.device,
        time=moment(it.time),
        received=moment(it.received),
        severity=it.severity,
        state=it.state,
        source=it.source,
        subject=it.subject,
        message=it.message,
        data=it.data,
    )


def command(it: Command) -> CommandOut:
    """An order as it is answered; who hands it in has masked its secrets."""
    return CommandOut(
        id=it.id,
        device=it.device,
        verb=it.verb,
        arguments=it.arguments,
        state=it.state,
        final=it.state.final,
        account=it.account,
        created=moment(it.created),
        expires=moment(it.expires),
        wait_online=it.wait_online,
        client=it.client,
        address=it.address,
        sent=maybe_moment(it.sent),
        ended=maybe_moment(it.ended),
        result=it.result,
        error=it.error,
    )


def transaction(it: Transaction) -> TransactionOut:
    """A transaction as it is answered."""
    return TransactionOut(
        id=it.id,
        device=it.device,
        key=it.key,
        state=it.state,
        started=moment(it.started),
        location=it.location,
        identification=it.identification,
        begin=None if it.begin is None else meter_reading(it.begin),
        end=None if it.end is None else meter_reading(it.end),
        ended=maybe_moment(it.ended),
        reason=it.reason,
        data=it.data,
    )


# ------------------------------------------------------------------------------------------------- the fast way of a stream


@lru_cache(maxsize=16_384)
def type_prefix(type: ReadingType) -> str:
    """The members of a Value that its type says, as JSON text without the closing brace."""
    members = {"measurand": type.measurand, "unit": type.unit, "phase": type.phase, "tariff": type.tariff, "location": type.location}
    return msgspec.json.encode({name: value for name, value in members.items() if value is not None}).decode()[:-1]


def stream_reading(it: MeterReading, measurands: frozenset[str] | None) -> bytes:
    """``MeterReadingOut`` as JSON text, written straight: this is done once per reading and second, for all streams together.

    Only the measurands asked for; empty if none is among them.
    """
    values = []
    for one in it.readings:
        if measurands is not None and one.type.measurand not in measurands:
            continue
        text = f'{type_prefix(one.type)},"value":{value_text(one.value, one.exponent)}'
        if one.context is not Context.PERIODIC:
            text += f',"context":"{one.context}"'
        if one.quality:
            text += f',"quality":{msgspec.json.encode(qualities(one.quality)).decode()}'
        values.append(text + "}")
    if not values:
        return b""
    device = msgspec.json.encode(it.device).decode()
    head = f'{{"device":{device},"time":"{moment(it.time)}","received":"{moment(it.received)}","source":"{it.source}","readings":['
    return (head + ",".join(values) + "]}").encode()


def sample_members(it: Sample) -> str:
    """The members of a Value that a stored sample says, as JSON text."""
    text = f'"time":"{moment(it.time)}","source":"{it.source}","received":"{moment(it.received)}","value":{value_text(it.value, it.exponent)}'
    if it.context is not Context.PERIODIC:
        text += f',"context":"{it.context}"'
    if it.quality:
        text += f',"quality":{msgspec.json.encode(qualities(it.quality)).decode()}'
    return text
