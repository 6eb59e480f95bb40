"""``GET /readMeter`` for clients that already speak with EKM: the form of a Push3 on the LAN, and the form of its cloud (FACTS 4.6).

The newest read of a meter is its own frames, with every field. Older ones are put together from the store, which keeps what is a reading (energy,
voltage, current, power, factors, frequency, pulses, ratios): a field has the value that it had at that moment.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from gridloom.core.clock import to_datetime
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.hub import Hub
from gridloom.core.model import Device, Phase, Principal, ReadingType
from gridloom.core.ports import Sample, Series, SeriesFilter
from gridloom.integrations.ekm.codec import Read, values
from gridloom.integrations.ekm.keys import HERE, gateway_of
from gridloom.integrations.ekm.mapping import PLANS
from gridloom.integrations.ekm.models import MODELS

MOST = 1_000
"""Reads of a meter in one answer."""
MOST_METERS = 100
_NAMES = {"key", "meters", "ver", "fmt", "cnt", "fields", "tz"}
_ALIASES = {"format": "fmt", "count": "cnt", "timezone": "tz"}
_HIDDEN = ("reserved_", "crc16")
_FIELDS = {plan.type: (plan.field, plan.kilo) for plan in PLANS}
_IMPORT, _EXPORT = "Power.Active.Import", "Power.Active.Export"
_WATTS: tuple[tuple[Phase | None, str], ...] = (
    (Phase.L1, "RMS_Watts_Ln_1"), (Phase.L2, "RMS_Watts_Ln_2"), (Phase.L3, "RMS_Watts_Ln_3"), (None, "RMS_Watts_Tot"),
)  # fmt: skip
_encoder = msgspec.json.Encoder(decimal_format="number")

Value = Decimal | int | str
Row = dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
    """``lan``: in the form of a Push3, which knows no ``meters``. ``fields``: empty means all."""

    key: str
    lan: bool
    meters: tuple[str, ...] = ()
    generation: str = ""
    csv: bool = False
    count: int = 1
    fields: tuple[str, ...] = ()
    zone: ZoneInfo | None = None


class Answer(msgspec.Struct, frozen=True):
    """What is sent."""

    body: bytes
    media_type: str = "application/json"


def asked(query: Iterable[tuple[str, str]], path: str) -> Asked:
    """What is asked by a query or by EKM's path (``v3/key/K/count/N/…``). Raises InvalidInput with every fault; the key is never repeated."""
    given = dict(query)
    words = [word for word in path.split("/") if word]
    if len(words) % 2:
        given["ver"] = words.pop(0)
    given |= dict(zip(words[::2], words[1::2], strict=True))
    given = {_ALIASES.get(name, name): value for name, value in given.items()}
    found = [FieldFault(name[:40], f"is not known here: expected {', '.join(sorted(_NAMES))}") for name in given if name not in _NAMES]
    count, generation, form, zone = given.get("cnt", "1"), given.get("ver", ""), given.get("fmt", "json"), None
    if not (count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= MOST):
        found.append(FieldFault("cnt", f"expected 1 to {MOST}, got {count[:40]!r}"))
    if generation not in ("", "v3", "v4"):
        found.append(FieldFault("ver", f"expected v3 or v4, got {generation[:40]!r}"))
    if form not in ("json", "csv"):
        found.append(FieldFault("fmt", f"expected json or csv, got {form[:40]!r}"))
    meters = tuple(dict.fromkeys(meter for meter in given.get("meters", "").split("~") if meter))
    if len(meters) > MOST_METERS or not all(meter.isascii() and meter.isdigit() and len(meter) <= 12 for meter in meters):
        found.append(FieldFault("meters", f"expected up to {MOST_METERS} addresses of 1 to 12 digits with ~ between"))
    try:
        zone = ZoneInfo(given["tz"].replace("~", "/")) if given.get("tz") else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        found.append(FieldFault("timezone", f"expected an IANA time zone such as America~New_York, got {given['tz'][:40]!r}"))
    if found:
        raise InvalidInput("readMeter", tuple(found))
    fields = tuple(field for field in given.get("fields", "").split("~") if field)
    return Asked(
        given.get("key", ""), "meters" not in given, tuple(meter.zfill(12) for meter in meters), generation, form == "csv", int(count), fields, zone
    )


async def answer(hub: Hub, principal: Principal, asked: Asked, devices: Sequence[Device], local: str) -> Answer:
    """The reads of these devices, which the principal may read. ``local``: as ``gateway_of``."""
    wanted = [device for device in devices if not asked.generation or ("v3" if _generation(device) == "v3" else "v4") == asked.generation]
    sets = [(device, await _reads(hub, principal, device, asked.count)) for device in wanted]
    if asked.lan:
        return Answer(_encoder.encode({device.identity: [_chosen(row, asked.fields) for row in rows] for device, rows in sets if rows}))
    zone = asked.zone or ZoneInfo(hub.timezone)
    dated = [(device, [_dated(row, zone, asked.fields) for row in rows]) for device, rows in sets]
    return _csv(dated) if asked.csv else Answer(_encoder.encode({"readMeter": {"ReadSet": [_set(*one, zone, hub, local) for one in dated]}}))


# ------------------------------------------------------------------------------------------------------------------ details


def _generation(device: Device) -> str:
    return device.attributes.get("generation", "v4")


async def _reads(hub: Hub, principal: Principal, device: Device, count: int) -> list[Row]:
    """Newest first."""
    newest = await hub.registry.native(device.id, Read)
    rows = [] if newest is None else [_whole(newest)]
    if count > 1:
        before = await _stored(hub, principal, device, count + 1)
        last = rows[0]["Time_Stamp_UTC_ms"] if rows else None
        rows = sorted(rows + [row for row in before if row["Time_Stamp_UTC_ms"] != last], key=lambda row: -row["Time_Stamp_UTC_ms"])
    return rows[:count]


def _whole(read: Read) -> Row:
    found = values(read, MODELS[read.model].layouts)
    row: Row = {name: value for name, value in found.items() if not name.startswith(_HIDDEN)}
    return row | {"Time_Stamp_UTC_ms": read.received // 1000, "Reliability_Ratio": read.reliability}


async def _stored(hub: Hub, principal: Principal, device: Device, count: int) -> list[Row]:
    """Put together from what is stored: at each moment at which something was read, every field as it was last told."""
    series: dict[ReadingType, list[Sample]] = {}
    for one in await hub.query.series(principal, SeriesFilter(devices=(device.id,))):
        if one.type in _FIELDS or one.type.measurand in (_IMPORT, _EXPORT):
            series[one.type] = await _newest(hub, one, count)
    moments = sorted({sample.received // 1_000 for samples in series.values() for sample in samples}, reverse=True)[:count]
    at = {type: [sample.received // 1_000 for sample in samples] for type, samples in series.items()}

    def value(type: ReadingType, moment: int) -> Decimal | None:
        place = bisect_right(at.get(type, []), moment)
        sample = series[type][place - 1] if place else None
        return None if sample is None or isinstance(sample.value, str) else Decimal(sample.value).scaleb(sample.exponent)

    rows = []
    for moment in moments:
        row: Row = {"Meter_Address": device.identity, "Model": device.attributes.get("model_code", ""), "Firmware": device.firmware}
        for type, (field, kilo) in _FIELDS.items():
            known = value(type, moment)
            if known is not None:
                row[field] = known.scaleb(-kilo)
        for phase, field in _WATTS:
            taken, given = (value(ReadingType(measurand, "W", phase), moment) for measurand in (_IMPORT, _EXPORT))
            if taken is not None or given is not None:
                row[field] = max(taken or Decimal(0), given or Decimal(0))
        rows.append(row | {"Time_Stamp_UTC_ms": moment})
    return rows


async def _newest(hub: Hub, series: Series, count: int) -> list[Sample]:
    """In ascending order of their arrival."""
    page = await hub.query.store.samples.read(series.number, 0, series.last + 1, limit=count, descending=True)
    return sorted(page.samples, key=lambda sample: sample.received)


def _chosen(row: Row, fields: tuple[str, ...]) -> Row:
    return {name: row[name] for name in (*fields, "Time_Stamp_UTC_ms") if name in row} if fields else row


def _dated(row: Row, zone: ZoneInfo, fields: tuple[str, ...]) -> Row:
    """As the cloud has it: text, with date and time of the zone."""
    moment = _moment(row).astimezone(zone)
    head = {"Good": 1, "Date": f"{moment:%m/%d/%Y}", "Time": f"{moment:%H:%M:%S}", "Time_Stamp_UTC_ms": str(row["Time_Stamp_UTC_ms"])}
    return head | {name: str(value) for name, value in _chosen(row, fields).items() if name != "Time_Stamp_UTC_ms"}


def _moment(row: Row) -> datetime:
    return to_datetime(int(row["Time_Stamp_UTC_ms"]) * 1000)


def _set(device: Device, rows: list[Row], zone: ZoneInfo, hub: Hub, local: str) -> Row:
    mac = gateway_of(device, local)
    offset = to_datetime(hub.clock.now()).astimezone(zone).utcoffset()
    return {
        "Meter": device.identity, "Group": device.site, "Interval": "", "Protocol": _generation(device),
        "MAC_Addr": "" if mac == HERE else mac, "Tz_Offset_Sec": str(int(offset.total_seconds())) if offset else "0",
        "Bad_Reads": "0", "Good_Reads": str(len(rows)), "Credits": "", "ReadData": rows,
    }  # fmt: skip


def _csv(sets: Sequence[tuple[Device, list[Row]]]) -> Answer:
    names = list(dict.fromkeys(name for _, rows in sets for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["Meter", *names], restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({"Meter": device.identity, **row} for device, rows in sets for row in rows)
    return Answer(text.getvalue().encode(), "text/csv; charset=utf-8")
