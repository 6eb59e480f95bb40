"""Payloads to messages and back: strict in what is sent, tolerant in what came (FACTS, "Rule used below").

A well-formed message costs one typed decode. What that refuses, or what has more to look at than a type can say, is walked as plain JSON: every
tolerance of FACTS has its ``Kind`` there, puts the value right and leaves a ``Deviation``; then the type judges again. A station that always deviates
the same way is read by the walk for good, so the walk is one pass over a plan that is made once per message.

A deviation with a ``code`` breaks the schema, or a rule that FACTS puts beside it; a strict reader answers it with that code (R20). One without is
only worth telling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from enum import StrEnum
from functools import cache
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import inspect

from gridloom.codecs.ocppj import ErrorCode
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.faults import MOST, collect, member, summary
from gridloom.integrations.os3p.errors import PayloadRefused, RefusedInBody
from gridloom.integrations.os3p.messages import (
    ACTIONS,
    BootNotification,
    ClearSingleStreetlightProfile,
    ConfigurationKey,
    FirmwareStatusNotification,
    GetEffectiveStreetlightDaySchedule,
    GetEffectiveStreetlightDayScheduleResponse,
    GetFile,
    GetFileResponse,
    GetFileStatusNotification,
    Heartbeat,
    Message,
    MeterValue,
    MeterValues,
    Period,
    PeriodBound,
    SampledValue,
    SetStreetlightProfile,
    StatusNotification,
    StreetlightModeStatusNotification,
    StreetlightProfile,
    StreetlightStatusNotification,
    TriggerMessage,
    TriggerMessageResponse,
    UpdateFirmware,
    UpdateFirmwareResponse,
    moment,
)

MOST_OF_A_KIND = 10
"""Deviations of one kind that are named of one message: count messages, not deviations."""
LONGEST_SENT_ID = 25
"""Characters of a requestId that fits into every schema (I6)."""
LONGEST_TEXT = 1_000
"""Characters that are kept of a text or a word, whatever its schema says."""
SCHEMES = ("ftp", "sftp", "http", "https")
"""Of a location that we send (I40)."""


class Kind(StrEnum):
    """What is tolerated: the label of a counter. The number is the line of FACTS."""

    EXTRA = "extra-member"
    """I2, I3, I4, I15, N7: a member that is not known; left out. With a code where the schema forbids it."""
    ALIAS = "alias"
    """I1, I7, I45: another name for a member or a word."""
    CONTRADICTION = "contradiction"
    """I1, I7: alias and member both came and differ. The member holds; SetStreetlightProfile has to be answered Rejected."""
    EMPTY = "empty-member"
    """I30: "" for an optional member; left out."""
    NULL = "null-member"
    """I30 likewise: null for an optional member; left out."""
    MISSING = "missing-member"
    """I17, I40: a required member that a station leaves out; "" instead."""
    LONG_ID = "long-request-id"
    """I6: 26 to 36 characters where the schema says 25."""
    LONG_TEXT = "long-text"
    """A text of a BootNotification or StatusNotification that is longer than the schema allows: vendors do not count. Kept, up to LONGEST_TEXT."""
    DATE = "date-form"
    """I5: a date without a time, or with one that is no RFC 3339."""
    OFFSET = "date-with-offset"
    """I5: the offset of a local date, which counts for nothing."""
    TIME = "time-form"
    """A moment without offset, with a blank for the T, without seconds, or with an offset without colon."""
    NUMBER = "number-for-text"
    """I16: a JSON number as ``value``."""
    UNKNOWN = "unknown-word"
    """N7, I9, I10: a word of a sampledValue, or an errorCode, that no list has; kept as it came, up to LONGEST_TEXT."""
    CASE = "letter-case"
    """I22: a word of a list in other letter case; put right."""
    INCOMPLETE = "incomplete-bound"
    """I34: Absolute without ``time``, or Sunset or Sunrise without ``offset``. To be answered Rejected."""
    EXCLUSIVE = "both-given"
    """I26, S12: ``profileId`` and ``stackLevel``."""


class Deviation(NamedTuple):
    """One thing that was tolerated, where, and what was made of it. ``code``: what a strict reader answers; None: nothing."""

    kind: Kind
    path: str
    note: str
    code: ErrorCode | None = None


class Read(NamedTuple):
    """A message as it is to be understood, and what was tolerated: at most ``MOST_OF_A_KIND`` of each kind."""

    message: Any
    deviations: tuple[Deviation, ...]


_NONE: tuple[Deviation, ...] = ()


def read(
    action: str,
    payload: bytes | msgspec.Raw,
    initiator: Literal["client", "server"] | None = None,
    *,
    response: bool = False,
    strict: bool = False,
    zone: tzinfo = UTC,
) -> Read:
    """The request (or with ``response`` the response) of an action. ``payload``: one JSON object as ``codecs.ocppj`` gives it; null is ``{}`` (R11).

    ``initiator``: who begins it here, to refuse what only the other side may begin. ``strict``: deviations that break the schema are faults.
    ``zone``: of moments that came without offset; a repeated hour is its first. The document's examples are UTC, so that is the default.

    Raises PayloadRefused: with NotImplemented for an action that does not exist, NotSupported for one that the other side begins (R18), else with the
    code of R20 and the path. Raises RefusedInBody (not if ``strict``) for a response that says no in a status of its own invention (I2, I25, I41).
    """
    known = ACTIONS.get(action)
    if known is None:
        raise PayloadRefused((FieldFault("$", f"{action[:60]} is no action of OS³P"),), ErrorCode.NOT_IMPLEMENTED)
    if initiator is not None and known.initiator != initiator:
        raise PayloadRefused((FieldFault("$", f"{action} is not for a {initiator} to begin"),), ErrorCode.NOT_SUPPORTED)
    raw = bytes(payload)
    kind = known.response if response else known.request
    return _at_once(kind, raw) or _closely(kind, raw, strict, zone)


def write(message: Message) -> bytes:
    """The payload of a message. Raises InvalidInput with every JSON path when the schema or a rule of FACTS for senders forbids it."""
    kind = type(message)
    if not kind.__struct_fields__:
        return b"{}"
    data = msgspec.to_builtins(message)
    walk = _Walk(UTC)
    walk.object(_plan(kind), data, ())
    faults = [*collect(kind, data), *walk.faults]
    faults += [FieldFault(path, f"is not sent so: {note}") for named, path, note, _ in walk.deviations if named not in _TYPED]
    if not faults and kind in _SENDING:
        faults += _SENDING[kind](message)
    if faults:
        raise InvalidInput(summary(kind.__name__, tuple(faults)), tuple(faults[:MOST]))
    return _encode(message)


_TYPED = (Kind.LONG_ID, Kind.LONG_TEXT)
"""How long a text may be that is sent says its type."""
_encode = msgspec.json.Encoder().encode


# ----------------------------------------------------------------------------------------------------------------- the quick way

_MOMENTS: dict[type[Message], Callable[[Any], Iterable[str]]] = {
    BootNotification: lambda _: (),
    Heartbeat: lambda _: (),
    MeterValues: lambda message: [entry.timestamp for entry in message.meterValue],
    StreetlightModeStatusNotification: lambda message: (message.timestamp,),
    StreetlightStatusNotification: lambda message: (message.timestamp,),
}
"""What comes often, and the moments in it; besides these a type says all that is to be said of them."""

_decoders = {kind: msgspec.json.Decoder(kind) for kind in _MOMENTS}


def _at_once(kind: type[Message], raw: bytes) -> Read | None:
    """The message, if the type alone can vouch for it. ``null`` it cannot: there None stands for what did not come."""
    decoder = _decoders.get(kind)
    if decoder is None or b"null" in raw:
        return None
    try:
        message = decoder.decode(raw)
    except (ValueError, RecursionError):
        return None
    return Read(message, _NONE) if all(map(_is_moment, _MOMENTS[kind](message))) else None


# ----------------------------------------------------------------------------------------------------------------- the close look


def _closely(kind: type[Message], raw: bytes, strict: bool, zone: tzinfo) -> Read:
    try:
        data = msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:
        raise PayloadRefused((FieldFault("$", str(error)),), ErrorCode.FORMATION_VIOLATION) from None
    if data is None:
        data = {}
    walk = _Walk(zone)
    if not strict:
        _accepted(kind, data)
    plain = walk.object(_plan(kind), data, ())
    broken = [deviation for deviation in walk.deviations if deviation.code is not None] if strict else []
    try:
        message = msgspec.convert(plain, kind)
    except (ValueError, RecursionError):
        walk.faults[:0] = collect(kind, plain)
    if walk.faults or broken:
        faults = (*walk.faults, *(FieldFault(path, note) for _, path, note, _ in broken))
        raise PayloadRefused(faults[:MOST], None if walk.faults else broken[0].code)
    return Read(walk.restored(message), tuple(walk.deviations))


def _accepted(kind: type[Message], data: Any) -> None:
    """Raises RefusedInBody if a response says no where its schema cannot."""
    status = data.get("status") if isinstance(data, dict) else None
    if not isinstance(status, str):
        return
    invented = kind in _WITHOUT_STATUS and status.strip().lower() != "accepted"
    if invented or (kind is TriggerMessageResponse and status.strip().lower() == "notimplemented"):
        raise RefusedInBody(kind.__name__.removesuffix("Response"), status[:60])


_WITHOUT_STATUS = (GetEffectiveStreetlightDayScheduleResponse, UpdateFirmwareResponse)


Where = tuple[int, ...]
"""The index in each array above."""


class _Field(NamedTuple):
    """How one member is read."""

    name: str
    path: str
    """With ``{}`` for each index."""
    optional: bool
    blank: bool = False
    """An optional text of which "" says nothing (I30)."""
    read: Callable[[_Walk, _Field, Any, Where], Any] | None = None
    """None: as it came."""
    words: frozenset[str] = frozenset()
    others: Mapping[str, str] = MappingProxyType({})
    """Other spellings of a word, in lower case."""
    keeps: bool = False
    """A word that no list has stays (N7)."""
    longest: int = 0
    """Characters of a text that may be longer than that (LONG_TEXT)."""
    plan: _Plan | None = None
    """Of the object, or of each object of the array."""


class _Plan(NamedTuple):
    """How one object is read: its members by name."""

    kind: type[msgspec.Struct]
    path: str
    fields: dict[str, _Field]
    required: tuple[str, ...]
    open: bool
    """The schema allows other members (I15)."""


_OPEN = (MeterValue, SampledValue, StreetlightProfile, ConfigurationKey)
_MEMBERS: dict[tuple[type[msgspec.Struct], str], str] = {
    (SetStreetlightProfile, "clearSchedule"): "clearAllSchedules",
    (TriggerMessage, "contactorId"): "connectorId",
}
_WORDS: dict[tuple[type[msgspec.Struct], str], dict[str, str]] = {
    (GetFileStatusNotification, "status"): {"idle": "None"},
    (FirmwareStatusNotification, "status"): {"idle": "None"},
    (StatusNotification, "errorCode"): {"": "NoError"},  # I30: "" says nothing; the status counts
}
_KEPT_WORDS = {(SampledValue, field) for field in SampledValue.__struct_fields__} | {(StatusNotification, "errorCode")}
_LONG_TEXTS = (BootNotification, StatusNotification)


@cache
def _plan(kind: type[msgspec.Struct], path: str = "$") -> _Plan:
    """Made once from the type."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    fields = {field.encode_name: _field(kind, field, f"{path}.{field.encode_name}") for field in info.fields}
    required = tuple(field.encode_name for field in info.fields if field.required)
    return _Plan(kind, path, fields, required, kind in _OPEN)


def _field(kind: type[msgspec.Struct], field: inspect.Field, path: str) -> _Field:
    type, format = _bare(field.type)
    plain = _Field(field.name, path, not field.required)
    match type:
        case inspect.LiteralType():
            words = frozenset(map(str, type.values))
            others = {word.lower(): word for word in words} | _WORDS.get((kind, field.name), {})
            if (kind, field.name) == (SampledValue, "unit"):
                others = {}  # whoever converts units knows more spellings (I9)
            return plain._replace(blank=plain.optional, read=_Walk.word, words=words, others=others, keeps=(kind, field.name) in _KEPT_WORDS)
        case inspect.StructType():
            return plain._replace(read=_Walk.child, plan=_plan(type.cls, path))
        case inspect.VarTupleType(item_type=inspect.StructType(cls=item)):
            return plain._replace(read=_Walk.array, plan=_plan(item, path + "[{}]"))
        case inspect.StrType(max_length=int(longest)) if kind in _LONG_TEXTS:
            return plain._replace(blank=plain.optional, read=_Walk.text, longest=longest)
        case inspect.StrType():
            special = _TEXTS.get((kind, field.name)) or _FORMATS.get(format or "")
            return plain._replace(blank=plain.optional and kind is not ConfigurationKey, read=special)
    return plain


def _bare(type: inspect.Type) -> tuple[inspect.Type, str | None]:
    """The type without its decoration and its None, and its format."""
    format = None
    while isinstance(type, inspect.Metadata | inspect.UnionType):
        if isinstance(type, inspect.Metadata):
            format = (type.extra_json_schema or {}).get("format", format)
            type = type.type
        else:
            (type,) = [one for one in type.types if not isinstance(one, inspect.NoneType)]
    return type, format


class _Walk:
    """One pass over the plain JSON of a message. It copies; what is no fault of the tolerated kinds it leaves for the type to refuse."""

    def __init__(self, zone: tzinfo) -> None:
        self.zone = zone
        self.deviations: list[Deviation] = []
        self.faults: list[FieldFault] = []
        """Of what a type cannot judge."""
        self._named: dict[tuple[Kind, ErrorCode | None], int] = {}
        self._kept: dict[Where, dict[str, str]] = {}

    def note(self, kind: Kind, path: str, where: Where, note: str, code: ErrorCode | None = None, came: str = "") -> None:
        """``path`` has ``{}`` for each index in ``where``, ``note`` for the word that came."""
        count = self._named.get((kind, code), 0)
        if count < MOST_OF_A_KIND:
            self._named[kind, code] = count + 1
            self.deviations.append(Deviation(kind, path.format(*where), note.format(repr(came[:40])), code))

    def restored(self, message: Any) -> Any:
        """The message with the words that no list has and the texts that are too long, which the type was not shown."""
        if () in self._kept:
            message = msgspec.structs.replace(message, **self._kept.pop(()))
        if not self._kept:
            return message
        entries = [list(entry.sampledValue) for entry in message.meterValue]
        for (entry, sample), words in self._kept.items():
            entries[entry][sample] = msgspec.structs.replace(entries[entry][sample], **words)
        pairs = zip(message.meterValue, entries, strict=True)
        return MeterValues(meterValue=tuple(MeterValue(timestamp=entry.timestamp, sampledValue=tuple(samples)) for entry, samples in pairs))

    # ------------------------------------------------------------------------------------------------------- objects and arrays

    def object(self, plan: _Plan, data: Any, where: Where) -> Any:
        if not isinstance(data, dict):
            return data
        read: dict[str, Any] = {}
        fields = plan.fields
        for name, value in data.items():
            field = fields.get(name)
            if field is None:
                self.stranger(plan, name, data, read, where)
            elif value.__class__ is str and value in field.words:  # most of what comes
                read[name] = value
            elif (value is None and field.optional) or (value == "" and field.blank):
                self.absent(field, value, where)
            else:
                read[name] = value if field.read is None else field.read(self, field, value, where)
        for name in plan.required:
            if name not in read and _may_miss(plan.kind, name, read):
                self.note(Kind.MISSING, fields[name].path, where, 'is missing; read as ""', ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION)
                read[name] = ""
        if plan.kind in _TOGETHER:
            _TOGETHER[plan.kind](self, plan, read, where)
        return read

    def stranger(self, plan: _Plan, name: str, data: dict[str, Any], read: dict[str, Any], where: Where) -> None:
        """A member that the plan does not know."""
        path = plan.path + member("", name).replace("{", "{{").replace("}", "}}")
        code = None if plan.open else ErrorCode.FORMATION_VIOLATION
        other = _MEMBERS.get((plan.kind, name))
        if other is None:
            self.note(Kind.EXTRA, path, where, "is not known here; left out", code)
        elif other not in data:
            self.note(Kind.ALIAS, path, where, f"is not known here; read as {other}", code)
            read[other] = data[name]
        elif data[other] == data[name]:
            self.note(Kind.ALIAS, path, where, f"is not known here; left out, {other} says the same", code)
        else:
            self.note(Kind.CONTRADICTION, path, where, f"is not known here; left out, {other} says otherwise", code)

    def absent(self, field: _Field, value: str | None, where: Where) -> None:
        if value is None:
            self.note(Kind.NULL, field.path, where, "is null; read as absent", ErrorCode.TYPE_CONSTRAINT_VIOLATION)
        else:
            listed = field.read in (_Walk.word, _Walk.moment, _Walk.day, _Walk.uri)
            self.note(Kind.EMPTY, field.path, where, "is empty; read as absent", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION if listed else None)

    def child(self, field: _Field, value: Any, where: Where) -> Any:
        assert field.plan is not None
        return self.object(field.plan, value, where)

    def array(self, field: _Field, value: Any, where: Where) -> Any:
        if not isinstance(value, list | tuple):
            return value
        plan = field.plan
        assert plan is not None
        return [self.object(plan, item, (*where, index)) for index, item in enumerate(value)]

    # ------------------------------------------------------------------------------------------------------------------- values

    def word(self, field: _Field, value: Any, where: Where) -> Any:
        if not isinstance(value, str):
            return value
        other = field.others.get(value.lower())
        if other is not None:
            kind = Kind.CASE if other.lower() == value.lower() else Kind.ALIAS
            self.note(kind, field.path, where, f"{{}} is in no list; read as {other}", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, value)
            return other
        if not field.keeps:
            return value
        self.note(Kind.UNKNOWN, field.path, where, "{} is in no list; kept", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, value)
        return self.keep(field, value, where, next(iter(field.words)))

    def text(self, field: _Field, value: Any, where: Where) -> Any:
        if not isinstance(value, str) or len(value) <= field.longest:
            return value
        note = f"has {len(value)} characters where {field.longest} are allowed; {'kept' if len(value) <= LONGEST_TEXT else 'cut'}"
        self.note(Kind.LONG_TEXT, field.path, where, note, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)
        return self.keep(field, value, where, "")

    def keep(self, field: _Field, value: str, where: Where, shown: str) -> str:
        """The type is ``shown`` something that it likes; the message gets what came."""
        self._kept.setdefault(where, {})[field.name] = value[:LONGEST_TEXT]
        return shown

    def number(self, field: _Field, value: Any, where: Where) -> Any:
        """The ``value`` of a sampledValue."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        text = format(Decimal(repr(value)), "f")
        self.note(Kind.NUMBER, field.path, where, "is a number; read as text", ErrorCode.TYPE_CONSTRAINT_VIOLATION)
        return text

    def id(self, field: _Field, value: Any, where: Where) -> Any:
        """The ``requestId`` of a notification. The type refuses what is longer than 36."""
        if isinstance(value, str) and len(value) > LONGEST_SENT_ID:
            note = f"has {len(value)} characters where {LONGEST_SENT_ID} are allowed"
            self.note(Kind.LONG_ID, field.path, where, note, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)
        return value

    def moment(self, field: _Field, value: Any, where: Where) -> Any:
        if not isinstance(value, str) or _is_moment(value):
            return value
        text = _put_right(value, self.zone)
        if text is None:
            self.wrong(field, where, "expected a date and time (RFC 3339, as 2026-11-21T00:58:03Z)")
            return value
        self.note(Kind.TIME, field.path, where, f"is no RFC 3339; read as {text}", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)
        return text

    def day(self, field: _Field, value: Any, where: Where) -> Any:
        if not isinstance(value, str) or _is_moment(value + "Z"):
            return value
        if _is_moment(value):
            self.note(Kind.OFFSET, field.path, where, "has an offset, which counts for nothing")
            return value
        if not _is_day(value[:10]) or value[10:11] not in ("", "T", "t", " "):
            self.wrong(field, where, "expected a date (as 2026-11-21T00:00:00)")
            return value
        text = f"{value[:10]}T00:00:00"
        self.note(Kind.DATE, field.path, where, f"is no date and time; read as {text}", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)
        return text

    def uri(self, field: _Field, value: Any, where: Where) -> Any:
        if isinstance(value, str) and not _is_uri(value):
            self.wrong(field, where, "expected a URI (RFC 3986)")
        return value

    def wrong(self, field: _Field, where: Where, reason: str) -> None:
        if len(self.faults) < MOST:
            self.faults.append(FieldFault(field.path.format(*where), reason))


_FORMATS = {"date-time": _Walk.moment, "local-day": _Walk.day, "uri": _Walk.uri}
_TEXTS: dict[tuple[type[msgspec.Struct], str], Callable[[_Walk, _Field, Any, Where], Any]] = {
    (SampledValue, "value"): _Walk.number,
    (GetFileStatusNotification, "requestId"): _Walk.id,
    (FirmwareStatusNotification, "requestId"): _Walk.id,
}

# ------------------------------------------------------------------------------------------------- what no field says for itself


def _may_miss(kind: type[msgspec.Struct], name: str, read: dict[str, Any]) -> bool:
    """Whether "" is understood where a required member is missing."""
    if kind is GetFileResponse:
        return name == "fileName" and read.get("status") == "Rejected"
    return kind is BootNotification and name not in ("vendor", "model")


def _bound(walk: _Walk, plan: _Plan, read: dict[str, Any], where: Where) -> None:
    kind = read.get("kind")
    needed = "time" if kind == "Absolute" else "offset"
    if kind in ("Absolute", "Sunset", "Sunrise") and needed not in read:
        walk.note(Kind.INCOMPLETE, f"{plan.path}.{needed}", where, f"is needed with {kind}", ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)


def _either(walk: _Walk, plan: _Plan, read: dict[str, Any], where: Where) -> None:
    if "profileId" in read and "stackLevel" in read:
        note = "came with profileId; only one of them may"
        walk.note(Kind.EXCLUSIVE, f"{plan.path}.stackLevel", where, note, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION)


_TOGETHER: dict[type[msgspec.Struct], Callable[[_Walk, _Plan, dict[str, Any], Where], None]] = {
    PeriodBound: _bound,
    ClearSingleStreetlightProfile: _either,
}

# ------------------------------------------------------------------------------------------------------------------ formats

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])", re.ASCII)
_LIKE_A_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)? ?(?:([Zz])|([+-][0-9]{2}):?([0-9]{2})?)?"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECOND = 1_000_000
_DAY_LONG = 86_400 * _SECOND


def _is_moment(text: str) -> bool:
    """RFC 3339 and a moment that the calendar of Python has. A leap second ends a day of UTC."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return False
    try:
        at = moment(text)
    except ValueError:
        return False
    return match[1] != "60" or at % _DAY_LONG < _SECOND


def _put_right(text: str, zone: tzinfo) -> str | None:
    """RFC 3339 for what is nearly one, or None. ``zone``: for what has no offset."""
    match = _LIKE_A_MOMENT.fullmatch(text)
    if match is None:
        return None
    day, minute, second, fraction, z, hours, minutes = match.groups()
    local = f"{day}T{minute}:{second or '00'}{f'.{fraction}' if fraction else ''}"
    try:
        offset = "Z" if z else f"{hours}:{minutes or '00'}"
        right = local + offset if z or hours else datetime.fromisoformat(local).replace(tzinfo=zone).isoformat()
    except ValueError:
        return None
    return right if _is_moment(right) else None


def _is_day(text: str) -> bool:
    try:
        return _DAY.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


_PLAIN = r"A-Za-z0-9._~!$&'()*+,;=\-"
_SEGMENT = rf"(?:[{_PLAIN}:@]|%[0-9A-Fa-f]{{2}})*"
_TAIL = rf"(?:[{_PLAIN}:@/?]|%[0-9A-Fa-f]{{2}})*"
_HOST = rf"(?:\[(?:(?P<ipv6>[0-9A-Fa-f:.]+)|[Vv][0-9A-Fa-f]+\.[{_PLAIN}:]+)\]|(?:[{_PLAIN}]|%[0-9A-Fa-f]{{2}})*)"
_URI = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.\-]*:(?://(?:(?:[{_PLAIN}:]|%[0-9A-Fa-f]{{2}})*@)?{_HOST}(?::[0-9]*)?(?:/{_SEGMENT})*|(?!//){_SEGMENT}(?:/{_SEGMENT})*)"
    rf"(?:\?{_TAIL})?(?:\#{_TAIL})?"
)


def _is_uri(text: str) -> bool:
    """RFC 3986, appendix A: absolute."""
    match = _URI.fullmatch(text)
    try:
        return match is not None and (match["ipv6"] is None or bool(IPv6Address(match["ipv6"])))
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------------- rules for senders

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_CLOCK = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,3})?")
_DEPRECATED = ("ReactiveEnergyInductive.", "ReactiveEnergyCapacitive.")
_MIDNIGHT = "T00:00:00"


def _send_meter_values(message: MeterValues) -> Iterator[FieldFault]:
    """I15: nothing empty. N5: nothing deprecated. I16: plain decimals."""
    if not message.meterValue:
        yield FieldFault("$.meterValue", "expected at least 1 members, got 0")
    for index, entry in enumerate(message.meterValue):
        path = f"$.meterValue[{index}].sampledValue"
        if not entry.sampledValue:
            yield FieldFault(path, "expected at least 1 members, got 0")
        for number, sample in enumerate(entry.sampledValue):
            if sample.measurand.startswith(_DEPRECATED):
                yield FieldFault(f"{path}[{number}].measurand", f"{sample.measurand} is deprecated and not sent (N5)")
            if sample.format == "Raw" and _DECIMAL.fullmatch(sample.value) is None:
                yield FieldFault(f"{path}[{number}].value", "expected a plain decimal, as 230.1 (I16)")


def _send_status(message: StatusNotification) -> Iterator[FieldFault]:
    """N10."""
    for name in ("vendorId", "vendorErrorCode"):
        if message.errorCode == "OtherError" and getattr(message, name) is None:
            yield FieldFault(f"$.{name}", "is missing: OtherError needs it (N10)")


def _send_trigger(message: TriggerMessage) -> Iterator[FieldFault]:
    """I7."""
    if message.connectorId is None:
        return
    if not message.requestedMessage.startswith("Streetlight"):
        yield FieldFault("$.connectorId", f"{message.requestedMessage} has no contactor (I7)")
    elif not 1 <= message.connectorId <= 4:
        yield FieldFault("$.connectorId", f"expected an integer at least 1 and at most 4, got {message.connectorId}")


def _send_location(message: GetFile | UpdateFirmware) -> Iterator[FieldFault]:
    """I6, I40."""
    if message.requestId is not None and len(message.requestId) > LONGEST_SENT_ID:
        yield FieldFault("$.requestId", f"expected at most {LONGEST_SENT_ID} characters, got {len(message.requestId)} (I6)")
    if message.location.partition(":")[0].lower() not in SCHEMES:
        yield FieldFault("$.location", f"expected one of the schemes {', '.join(SCHEMES)} (I40)")


def _send_day(path: str, text: str | None) -> Iterator[FieldFault]:
    """I5."""
    if text is not None and text[10:] != _MIDNIGHT:
        yield FieldFault(path, f"expected YYYY-MM-DD{_MIDNIGHT}: only the date counts (I5)")


def _send_profiles(message: SetStreetlightProfile) -> Iterator[FieldFault]:
    """I5, I31, I33, L9."""
    ids: set[int] = set()
    levels: set[int] = set()
    for index, profile in enumerate(message.streetlightProfiles):
        path = f"$.streetlightProfiles[{index}]"
        yield from _send_day(f"{path}.validFrom", profile.validFrom)
        yield from _send_day(f"{path}.validTo", profile.validTo)
        if profile.validFrom is None and profile.recurrencyKind != "Daily":
            yield FieldFault(f"{path}.validFrom", f"is missing: {profile.recurrencyKind} needs it (I31)")
        for name, value, seen in (("profileId", profile.profileId, ids), ("stackLevel", profile.stackLevel, levels)):
            if value in seen:
                yield FieldFault(f"{path}.{name}", f"{value} is already that of another profile (I33)")
            seen.add(value)
        for number, period in enumerate(profile.daySchedule):
            yield from _send_period(f"{path}.daySchedule[{number}]", period)


def _send_period(path: str, period: Period) -> Iterator[FieldFault]:
    for name, bound in (("start", period.start), ("end", period.end)):
        if bound.time is not None and _CLOCK.fullmatch(bound.time) is None:
            yield FieldFault(f"{path}.{name}.time", "expected HH:mm:ss or HH:mm:ss.mmm (L9)")


_SENDING: dict[type[Message], Callable[[Any], Iterator[FieldFault]]] = {
    MeterValues: _send_meter_values,
    StatusNotification: _send_status,
    TriggerMessage: _send_trigger,
    GetFile: _send_location,
    UpdateFirmware: _send_location,
    GetEffectiveStreetlightDaySchedule: lambda message: _send_day("$.at", message.at),
    SetStreetlightProfile: _send_profiles,
}
