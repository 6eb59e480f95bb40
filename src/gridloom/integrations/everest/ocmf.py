"""OCMF, the Open Charge Metering Format up to 1.4.1: build, sign, parse. Pure: bytes and keys only (FACTS §4).

A record is ``OCMF|payload|signature``. What is signed is exactly the bytes between the two pipes; they are kept as they came and never written
again from what was understood, and numbers keep the digits that they are written with.

``parse`` is lenient: whatever real meters write that the format does not allow, but whose meaning is plain, is read and reported as a
``Leniency`` by name (``LENIENCIES``); ``strict=True`` refuses the first one. What cannot be understood raises ``Malformed`` with the byte
offset or the JSON path of the first fault.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from gridloom.core.clock import to_datetime
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.faults import member
from gridloom.integrations.everest import algorithms
from gridloom.integrations.everest.algorithms import Algorithm
from gridloom.integrations.everest.fields import (
    CARRIED,
    ENDS,
    ENERGY,
    EXTENSIONS,
    FLAGS,
    LOSS,
    MIME,
    MOST_FLAGS,
    NEWEST,
    PAGE,
    PAYLOAD,
    READING,
    SIGNATURE,
    TIME,
    USER,
    WRITTEN,
    Field,
    Kind,
    Version,
)

NOTICE = "A signature made by software says who signed and that nothing was changed since; it is not legally calibrated metering."
"""Every document and every answer carries this sentence."""
HEADER = "OCMF"
Encoding = Literal["hex", "base64"]
MOST_BYTES = 1 << 20
"""Of one record. Real ones have about a thousand."""

LENIENCIES: dict[str, str] = {
    "quoted-number": "a number is written as a string",
    "padded-number": "a number is filled up with zeros or blanks",
    "missing-field": "a field that the format demands is absent",
    "null-value": "null stands where the field should be absent",
    "wrong-type": "a number or a boolean stands where text belongs",
    "unknown-value": "the value is not in the list of the format",
    "padded-text": "blanks stand around a code",
    "unknown-field": "the format knows no such field, and it is not a vendor's own",
    "newer-field": "the field came with a later version than the record names",
    "older-field": "the field was given up before the version that the record names",
    "old-identification-status": "IS holds a level, as until version 0.3",
    "unknown-version": "the version is not one of the format",
    "numeric-version": "FV is a number",
    "page-format": "PG is not T or F and a number without leading zeros",
    "time-format": "the time is written otherwise than the format says",
    "too-long": "the text is longer than the format allows",
    "too-many-flags": "more than four flags, or two of one group",
    "incomplete-group": "of RI and RU one is there and the other is not",
    "error-flag": "EF holds other letters than E and t",
    "brainpool-spelling": "the curve is written brainpoolP…",
    "algorithm-spelling": "the algorithm is written otherwise than the format says",
    "signature-encoding": "the signature is not encoded as SE says",
    "raw-signature": "the signature is r and s one behind the other, not DER",
    "embedded-key": "a fourth section holds a public key",
    "encoded-record": "the whole record is written in hexadecimal digits or base64",
}
"""Every leniency by name, with what it means."""


class Malformed(InvalidInput):
    """It is not OCMF, or a field cannot be understood. ``faults`` holds the first fault: ``byte 17`` or ``payload $.RD[0].RV``."""

    code = "ocmf-malformed"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}", (FieldFault(path, reason),))
        self.fault = self.faults[0]


class Leniency(NamedTuple):
    """One thing that the format does not allow and that was read all the same. ``name`` is one of LENIENCIES."""

    name: str
    path: str
    detail: str


class Number(str):
    """A JSON number as it is written."""

    __slots__ = ()


class Signer(Protocol):
    """What signs: a key and its algorithm (``keys.Signer``)."""

    @property
    def algorithm(self) -> Algorithm:
        """Its row."""

    def sign(self, message: bytes) -> bytes:
        """The signature of the message, DER."""


# ------------------------------------------------------------------------------------------------------------------------ frame


class Frame(NamedTuple):
    """The sections of a record. ``start`` is the offset of the payload in it, in bytes."""

    payload: bytes
    signature: str
    key: str | None
    start: int


def split(record: bytes) -> Frame:
    """Cut a record at its pipes. Raises Malformed with the byte offset."""
    if len(record) > MOST_BYTES:
        raise Malformed(f"byte {MOST_BYTES}", f"a record has at most {MOST_BYTES} bytes, this has {len(record)}")
    header, *sections = record.split(b"|")
    if header != b"OCMF":
        agreed = next((index for index, (came, due) in enumerate(zip(header, b"OCMF", strict=False)) if came != due), min(len(header), 4))
        raise Malformed(f"byte {agreed}", f"expected {HEADER}|, got {_shown(record[agreed : agreed + 20])}")
    if len(sections) < 2:
        raise Malformed(f"byte {len(record)}", f"the record ends before its {'signature' if sections else 'payload'} section")
    start = len(header) + 1
    if len(sections) > 3:
        raise Malformed(f"byte {start + sum(len(one) + 1 for one in sections[:3]) - 1}", "a pipe too many: a pipe may not stand inside a section")
    behind = start + len(sections[0]) + 1
    signature = _text(sections[1], behind)
    key = _text(sections[2], behind + len(sections[1]) + 1) if len(sections) == 3 else None
    return Frame(sections[0], signature, key, start)


def unwrap(material: bytes) -> tuple[bytes, bool]:
    """The record in what somebody handed over: as it is, in hexadecimal digits, or in base64; and whether it was encoded."""
    record = material.strip()
    if record.startswith(b"OCMF|"):
        return record, False
    compact = b"".join(record.split())
    for decode in (binascii.unhexlify, _base64):
        try:
            decoded = decode(compact).strip()
        except ValueError:  # binascii.Error is one
            continue
        if decoded.startswith(b"OCMF|"):
            return decoded, True
    return record, False  # split() says where it stops being OCMF


def _base64(data: bytes) -> bytes:
    return base64.b64decode(data, validate=True)


def _shown(data: bytes) -> str:
    return "nothing" if not data else repr(data.decode("utf-8", "replace"))


def _text(data: bytes, offset: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"byte {offset + error.start}", "not UTF-8") from None


# ------------------------------------------------------------------------------------------------------------------------- JSON


class _Twice(dict[str, Any]):
    """An object in which a key occurs twice: no two readers would agree on what it says."""

    key: str


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    twice = _Twice(found)
    twice.key = next(key for index, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:index]))
    return twice


def _not_json(word: str) -> Any:
    raise ValueError(word)


_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', re.DOTALL)
"""The words that Python reads as numbers; strings are stepped over."""
_decoder = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_not_json, object_pairs_hook=_members)


def _object(text: str, section: str, offset: int) -> dict[str, Any]:
    """A section as a JSON object; numbers stay ``Number``. Raises Malformed with the byte offset in the record."""
    try:
        found = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(f"byte {offset + len(text[: error.pos].encode())}", f"the {section} is no JSON: {error.msg}") from None
    except ValueError:  # from _not_json: NaN, Infinity
        at = next(match.start(1) for match in _CONSTANT.finditer(text) if match[1])
        raise Malformed(f"byte {offset + len(text[:at].encode())}", f"the {section} is no JSON: that is no number") from None
    except RecursionError:
        raise Malformed(f"byte {offset}", f"the {section} is nested too deeply") from None
    if not isinstance(found, dict):
        raise Malformed(f"{section} $", f"expected an object, got {_kind(found)}")
    return found


def _kind(value: Any) -> str:
    if isinstance(value, Number):
        return "a number"
    words = {str: "a string", bool: "a boolean", dict: "an object", _Twice: "an object", list: "an array"}
    return words.get(type(value), "null")


# ---------------------------------------------------------------------------------------------------------------------- records


class Moment(NamedTuple):
    """A TM. ``time`` None when it cannot be read; ``status`` U, I, S or R, None when it is absent."""

    time: datetime | None
    status: str | None


class Reading(msgspec.Struct, frozen=True):
    """One reading, with what it carries over from the one before. ``written``: the fields that stand in it. RV and CL as they are written."""

    TM: str | None = None
    TX: str | None = None
    RV: str | None = None
    RI: str | None = None
    RU: str | None = None
    RT: str | None = None
    CL: str | None = None
    EF: str | None = None
    EI: str | None = None
    ST: str | None = None
    moment: Moment = Moment(None, None)
    written: frozenset[str] = frozenset()

    @property
    def value(self) -> Decimal | None:
        """RV, every digit kept. None for a mere error event."""
        return None if self.RV is None else Decimal(self.RV)

    @property
    def energy_wh(self) -> Decimal | None:
        """RV in Wh, exactly. None without a value or an energy unit."""
        power = ENERGY.get((self.RU or "").strip().lower())
        return None if power is None or self.RV is None else Decimal(self.RV).scaleb(power, _EXACT)

    @property
    def begins(self) -> bool:
        """TX is B."""
        return self.TX == "B"

    @property
    def ends(self) -> bool:
        """TX is E, L, R, A or P."""
        return self.TX in ENDS


_EXACT = Context(prec=200)


def difference(end: Decimal, begin: Decimal) -> Decimal:
    """Exactly: the digits of a register are never rounded."""
    return _EXACT.subtract(end, begin)


class Signature(msgspec.Struct, frozen=True):
    """The signature section. ``name`` is SA as it is written (``inside`` the payload, as 0.4 and 0.5 had it), ``algorithm`` its row (None: no
    algorithm of OCMF); ``encoding`` is SE as it is written; ``der`` what SD holds, as DER."""

    name: str
    inside: bool
    algorithm: Algorithm | None
    encoding: str
    mime: str
    der: bytes


class Record(msgspec.Struct, frozen=True, dict=True):
    """One signed record as it was understood. ``payload`` is exactly what was signed; ``fields`` the payload's members without RD."""

    payload: bytes
    fields: dict[str, Any]
    readings: tuple[Reading, ...]
    signature: Signature
    version: Version | None
    key: str | None
    leniencies: tuple[Leniency, ...]

    def text(self, key: str) -> str | None:
        """A field as text, None when it is absent."""
        found = self.fields.get(key)
        return None if found is None else str(found)

    @property
    def context(self) -> str | None:
        """T (transaction) or F (fiscal), from PG."""
        return (self.text("PG") or "")[:1] or None

    @cached_property
    def page(self) -> int | None:
        """The counter of PG, None when it is not written as one."""
        digits = (self.text("PG") or "")[1:].strip()
        return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def parse(material: bytes | str, *, strict: bool = False) -> Record:
    """Read a record. Raises Malformed with the first fault; when ``strict``, also for the first deviation from the format."""
    record, encoded = unwrap(material.encode("utf-8", "surrogatepass") if isinstance(material, str) else material)
    frame = split(record)
    reader = _Reader(strict)
    if encoded:
        reader.lenient("encoded-record", "byte 0", "")
    if frame.key is not None:
        reader.lenient("embedded-key", f"byte {frame.start + len(frame.payload) + len(frame.signature.encode()) + 1}", "")
    payload = _object(_text(frame.payload, frame.start), "payload", frame.start)
    section = _object(frame.signature, "signature", frame.start + len(frame.payload) + 1)
    fields = reader.payload(payload)
    return Record(
        payload=frame.payload,
        fields=fields,
        readings=reader.readings(payload.get("RD")),
        signature=reader.signature(section, fields.get("SA")),
        version=reader.version,
        key=frame.key,
        leniencies=tuple(reader.found),
    )


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\Z", re.ASCII)
_LOOSE_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s*(Z|[+-]\d\d:?(?:\d\d)?)(?:\s+(\S+))?\s*\Z", re.ASCII)
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})\Z", re.ASCII)
_LONGEST_NUMBER = 60


class _Reader:
    """Walks the sections against the tables; collects leniencies, or raises for the first one."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.found: list[Leniency] = []
        self.version: Version | None = None

    def lenient(self, name: str, path: str, detail: str) -> None:
        if self.strict:
            raise Malformed(path, LENIENCIES[name] + (f": {detail}" if detail else ""))
        self.found.append(Leniency(name, path, detail))

    def payload(self, members: dict[str, Any]) -> dict[str, Any]:
        where = "payload $"
        self.version = self._version(members.get("FV"))
        fields = self._fields(members, _PAYLOAD, where, extensions=True)
        page = fields.get("PG")
        if page is not None and PAGE.match(page) is None:
            self.lenient("page-format", f"{where}.PG", repr(page[:40]))
        fiscal = page is not None and page.startswith("F")
        for field in PAYLOAD:
            # The user assignment belongs to a transaction; what has given way to another field since, or came later, is not missed.
            due = field.needed and not (fiscal and field.key in USER) and self._in_version(field)
            if due and field.key != "RD" and field.key not in fields:
                self.lenient("missing-field", f"{where}.{field.key}", field.meaning)
        self._flags(fields.get("IF", ()), f"{where}.IF")
        return fields

    def _version(self, value: Any) -> Version | None:
        path = "payload $.FV"
        if value is None:
            return None
        if isinstance(value, Number):
            self.lenient("numeric-version", path, value)
        match = _VERSION.match(value) if isinstance(value, str) else None
        version = (int(match[1]), int(match[2])) if match else None
        if version is None or not (0, 1) <= version <= NEWEST:
            self.lenient("unknown-version", path, str(value)[:40])
        return version

    def _in_version(self, field: Field) -> bool:
        return self.version is None or (field.since <= self.version and (field.until == NEWEST or self.version <= field.until))

    def _fields(self, members: dict[str, Any], table: Mapping[str, Field], where: str, *, extensions: bool = False) -> dict[str, Any]:
        if isinstance(members, _Twice):
            raise Malformed(member(where, members.key), "the field stands there twice")
        fields: dict[str, Any] = {}
        for key, value in members.items():
            field = table.get(key)
            if field is None:
                if not (extensions and key[:1] in EXTENSIONS):
                    self.lenient("unknown-field", member(where, key), "")
                fields[key] = value
                continue
            if field.kind is Kind.ANY:
                continue
            path = f"{where}.{key}"
            if value is None:
                self.lenient("null-value", path, "")
                continue
            if self.version is not None:
                if field.since > self.version:
                    self.lenient("newer-field", path, f"since {field.since[0]}.{field.since[1]}")
                elif field.until < NEWEST and self.version > field.until:
                    self.lenient("older-field", path, f"until {field.until[0]}.{field.until[1]}")
            fields[key] = self._value(field, value, path)
        return fields

    def _value(self, field: Field, value: Any, path: str) -> Any:
        match field.kind:
            case Kind.TEXT:
                return self._code(field, value, path)
            case Kind.NUMBER:
                return self._number(value, path)
            case Kind.FLAG:
                return self._flag(value, path)
            case Kind.TEXTS:
                if not isinstance(value, list):
                    self.lenient("wrong-type", path, f"expected an array of strings, got {_kind(value)}")
                    value = [value]
                return tuple(self._code(field, one, f"{path}[{index}]") for index, one in enumerate(value))
            case Kind.OBJECT:
                if not isinstance(value, dict):
                    raise Malformed(path, f"expected an object, got {_kind(value)}")
                return self._loss(value, path)
        raise AssertionError(field.kind)

    def _code(self, field: Field, value: Any, path: str) -> str:
        if isinstance(value, Number | bool):
            if field.key != "FV":  # a numeric version has its own name
                self.lenient("wrong-type", path, f"expected a string, got {_kind(value)}")
            value = str(value) if isinstance(value, Number) else str(value).lower()
        elif not isinstance(value, str):
            raise Malformed(path, f"expected a string, got {_kind(value)}")
        text: str = value
        if field.values and text not in field.values:
            if text.strip() in field.values:
                self.lenient("padded-text", path, repr(text[:40]))
                return text.strip()
            self.lenient("unknown-value", path, repr(text[:40]))
        if field.longest is not None and len(text) > field.longest:
            self.lenient("too-long", path, f"{len(text)} characters; at most {field.longest}")
        return text

    def _number(self, value: Any, path: str) -> str:
        """The digits as they are written, without quotes and blanks. At most 60 characters and an exponent of two digits."""
        if not isinstance(value, str):
            raise Malformed(path, f"expected a number, got {_kind(value)}")
        digits = value.strip()
        if _NUMBER.match(digits) is None or len(digits) > _LONGEST_NUMBER:
            raise Malformed(path, f"expected a number of at most {_LONGEST_NUMBER} characters, got {value[:_LONGEST_NUMBER]!r}")
        if not isinstance(value, Number):
            self.lenient("quoted-number", path, repr(value))
            if digits != value or re.match(r"[+-]?0\d", digits):
                self.lenient("padded-number", path, repr(value))
        return digits

    def _flag(self, value: Any, path: str) -> bool | str:
        if isinstance(value, bool):
            return value
        if isinstance(value, Number):
            self.lenient("wrong-type", path, f"expected true or false, got {value}")
        elif not isinstance(value, str):
            raise Malformed(path, f"expected true or false, got {_kind(value)}")
        elif self.version is None or self.version > (0, 3):
            self.lenient("old-identification-status", path, repr(value[:40]))
        return str(value)

    def _loss(self, members: dict[str, Any], path: str) -> dict[str, Any]:
        fields = self._fields(members, _LOSS, path)
        for field in LOSS:
            if field.needed and field.key not in fields:
                self.lenient("missing-field", f"{path}.{field.key}", field.meaning)
        return fields

    def _flags(self, flags: Sequence[str], path: str) -> None:
        groups = [flag.partition("_")[0] for flag in flags]
        if len(flags) > MOST_FLAGS or len(set(groups)) < len(groups):
            self.lenient("too-many-flags", path, ", ".join(flags)[:80])

    # ------------------------------------------------------------------------------------------------------------- readings

    def readings(self, value: Any) -> tuple[Reading, ...]:
        path = "payload $.RD"
        if not isinstance(value, list) or not value:
            raise Malformed(path, f"expected an array of readings, got {'an empty array' if value == [] else _kind(value)}")
        readings: list[Reading] = []
        for index, one in enumerate(value):
            if not isinstance(one, dict):
                raise Malformed(f"{path}[{index}]", f"expected an object, got {_kind(one)}")
            readings.append(self._reading(one, f"{path}[{index}]", readings[-1] if readings else None))
        return tuple(readings)

    def _reading(self, members: dict[str, Any], path: str, before: Reading | None) -> Reading:
        fields = self._fields(members, _READING, path)
        written = frozenset(fields)
        if before is not None:
            for key in CARRIED:
                if key not in fields:
                    fields[key] = getattr(before, key)
        self._whole(fields, written, path)
        flags = fields.get("EF") or ""
        if set(flags) - {"E", "t"} and "EF" in written:
            self.lenient("error-flag", f"{path}.EF", repr(flags[:40]))
        known = {key: fields.get(key) for key in _READING}
        when = before.moment if before is not None and "TM" not in written else self._moment(fields.get("TM"), f"{path}.TM")
        return Reading(**known, moment=when, written=written)

    def _whole(self, fields: dict[str, Any], written: frozenset[str], path: str) -> None:
        """Fields that a reading must have; a mere error event (no RV) needs no unit, and a value needs its group of register and unit."""
        event = fields.get("RV") is None
        for field in READING:
            if field.needed and fields.get(field.key) is None and not (event and field.key == "RU") and self._in_version(field):
                self.lenient("missing-field", f"{path}.{field.key}", field.meaning)
        if ("RI" in written) != ("RU" in written) and not event:
            self.lenient("incomplete-group", path, "RI without RU" if "RI" in written else "RU without RI")

    def _moment(self, text: str | None, path: str) -> Moment:
        if text is None:
            return Moment(None, None)
        if TIME.match(text) is None:
            self.lenient("time-format", path, repr(text[:60]))
        return moment(text)

    # ------------------------------------------------------------------------------------------------------------ signature

    def signature(self, members: dict[str, Any], inside: str | None) -> Signature:
        """``inside``: SA of the payload, where 0.4 and 0.5 had it."""
        where = "signature $"
        fields = self._fields(members, _SIGNATURE, where)
        name = fields.get("SA") or inside or algorithms.DEFAULT
        algorithm, spelling = algorithms.find(name)
        if algorithm is None:
            self.lenient("unknown-value", f"{where}.SA", repr(name[:60]))
        elif spelling:
            self.lenient(spelling, f"{where}.SA", repr(name[:60]))
        encoding = fields.get("SE", "hex")
        if "SD" not in fields:
            raise Malformed(f"{where}.SD", "the signature is missing")
        data = self._decoded(fields["SD"], encoding, f"{where}.SD")
        if algorithm is not None and len(data) == 2 * algorithm.bytes and not algorithms.is_der(data):
            self.lenient("raw-signature", f"{where}.SD", f"{len(data)} bytes")
            data = algorithms.raw_to_der(data)
        return Signature(name, "SA" not in fields and inside is not None, algorithm, encoding, fields.get("SM", MIME), data)

    def _decoded(self, text: str, encoding: str, path: str) -> bytes:
        said = encoding.strip().lower()
        if said == "hex" or said not in ("hex", "base64"):
            order: tuple[Encoding, Encoding] = ("hex", "base64")
        else:
            order = ("base64", "hex")
        compact = "".join(text.split())
        if said == "base64" and _hexadecimal(compact) and algorithms.is_der(bytes.fromhex(compact)):
            order = ("hex", "base64")  # hexadecimal digits are base64, too; what they say as such is a signature
        for way in order:
            data = _decode(compact, way)
            if data:
                if way != encoding or compact != text:
                    self.lenient("signature-encoding", path, f"{way}, said to be {encoding[:20]!r}" if way != encoding else "with blanks")
                return data
        raise Malformed(path, f"expected the signature in {said if said in ('hex', 'base64') else 'hex or base64'}, got {text[:40]!r}")


_PAYLOAD = {field.key: field for field in PAYLOAD}
_READING = {field.key: field for field in READING}
_LOSS = {field.key: field for field in LOSS}
_SIGNATURE = {field.key: field for field in SIGNATURE}


def _hexadecimal(text: str) -> bool:
    return re.fullmatch(r"(?:[0-9a-fA-F]{2})+", text) is not None


def _decode(text: str, way: Encoding) -> bytes | None:
    try:
        return bytes.fromhex(text) if way == "hex" else base64.b64decode(text, validate=True)
    except ValueError:
        return None


def moment(text: str) -> Moment:
    """A TM as the format writes it, or as ISO 8601 otherwise. What cannot be read has no time."""
    match = TIME.match(text)
    if match is not None:
        sign = -1 if match[8] == "-" else 1
        fraction, hours, minutes, status = match[7], match[9], match[10], match[11]
    else:
        match = _LOOSE_TIME.match(text)
        if match is None:
            return Moment(None, None)
        zone = "+0000" if match[8] == "Z" else match[8].replace(":", "").ljust(5, "0")
        sign = -1 if zone[0] == "-" else 1
        fraction, hours, minutes, status = match[7] or "0", zone[1:3], zone[3:5], match[9]
    try:
        offset = timezone(sign * timedelta(hours=int(hours), minutes=int(minutes)))
        year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
        time = datetime(year, month, day, hour, minute, second, int(fraction.ljust(6, "0")[:6]), offset)
    except ValueError:
        return Moment(None, status)
    return Moment(time, status)


# ---------------------------------------------------------------------------------------------------------------------- writing


class LossCompensation(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """LC: the cable whose losses are taken off. ``LR`` in ``LU``."""

    LN: str | None = None
    LI: int | None = None
    LR: Decimal | int
    LU: Literal["mOhm", "uOhm"]


class NewReading(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One reading to be signed. ``TM`` is made by ``time_text``. ``RV`` and ``CL`` (same unit) are written with exactly their digits."""

    TM: str
    TX: str | None = None
    RV: Decimal | int
    RI: str
    RU: Literal["Wh", "kWh"] = "Wh"
    RT: Literal["AC", "DC"] | None = None
    CL: Decimal | int | None = None
    EF: str | None = None
    ST: str


class Draft(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A record to be signed: version 1.3, every field in every reading. The true meter is named in MV, MM, MS; what signs in GI, GS, GV."""

    GI: str | None = None
    GS: str | None = None
    GV: str | None = None
    PG: str
    MV: str | None = None
    MM: str | None = None
    MS: str
    MF: str | None = None
    IS: bool | None = None
    IL: str | None = None
    IF: tuple[str, ...] | None = None
    IT: str | None = None
    ID: str | None = None
    TT: str | None = None
    CF: str | None = None
    LC: LossCompensation | None = None
    CT: Literal["EVSEID", "CBIDC"] | None = None
    CI: str | None = None
    RD: tuple[NewReading, ...]
    extensions: dict[str, Any] = {}


_encoder = msgspec.json.Encoder(decimal_format="number")
_OUTSIDE = re.compile(r"[^\x00-\x7b\x7d-\x7f]")


def time_text(moment: int, status: str, zone: tzinfo = UTC) -> str:
    """A TM: ``moment`` in µs UTC, written in local time of ``zone`` with its offset, and the letter U, I, S or R."""
    local = to_datetime(moment).astimezone(zone)
    return f"{local:%Y-%m-%dT%H:%M:%S},{local.microsecond // 1000:03d}{local:%z}"[:28] + f" {status}"


def next_page(last: str | None, context: Literal["T", "F"] = "T") -> str:
    """The PG behind ``last`` (None before the first) of its own context: one more. Raises InvalidInput when ``last`` is of another context.

    Keep the page that was given before the record leaves: a page is never given twice, also when the record was not needed in the end.
    """
    if last is None:
        return f"{context}1"
    match = PAGE.match(last)
    if match is None or match[1] != context:
        raise InvalidInput(f"the last page is {last[:40]!r}; expected {context} and a number")
    return f"{context}{int(match[2]) + 1}"


def build(draft: Draft) -> bytes:
    """The payload of a record: compact, plain ASCII, no pipe. Raises InvalidInput with every field that the format does not allow."""
    faults = tuple(_faults(draft))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InvalidInput(f"OCMF record: {faults[0].path}: {faults[0].reason}{more}", faults)
    members = {"FV": WRITTEN, **msgspec.structs.asdict(draft)}
    members.update(members.pop("extensions"))
    readings = members.pop("RD")
    payload = {key: value for key, value in members.items() if value is not None} | {"RD": [_numbers(reading) for reading in readings]}
    if draft.LC is not None:
        payload["LC"] = _numbers(draft.LC)
    # Non-ASCII text fails in a S.A.F.E. tool whose JVM is not set to UTF-8, and a pipe would end the section: both are escaped (FACTS §4.5, 2).
    return _OUTSIDE.sub(_escaped, _encoder.encode(payload).decode()).encode("ascii")


def _numbers(struct: msgspec.Struct) -> dict[str, Any]:
    """Members that are there; decimals as plain digits, never with an exponent."""
    found = {key: value for key, value in msgspec.structs.asdict(struct).items() if value is not None}
    return {key: msgspec.Raw(format(value, "f").encode()) if isinstance(value, Decimal) else value for key, value in found.items()}


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\u{int.from_bytes(pair):04x}" for pair in _pairs(match[0].encode("utf-16-be", "surrogatepass")))


def _pairs(data: bytes) -> Iterable[bytes]:
    return (data[index : index + 2] for index in range(0, len(data), 2))


def _faults(draft: Draft) -> Iterable[FieldFault]:
    """What the format (1.3) does not allow."""
    page = PAGE.match(draft.PG)
    fiscal = page is not None and page[1] == "F"
    if page is None:
        yield FieldFault("$.PG", f"expected T or F and a number without leading zeros, got {draft.PG[:40]!r}")
    for key in sorted(USER):
        if fiscal and getattr(draft, key) is not None:
            yield FieldFault(f"$.{key}", "belongs to a transaction, not to a fiscal record")
        elif not fiscal and key in ("IS", "IF", "IT") and getattr(draft, key) is None:
            yield FieldFault(f"$.{key}", "is missing; a record of a transaction has it")
    for field in PAYLOAD:
        yield from _text_faults(field, getattr(draft, field.key, None), f"$.{field.key}")
    for index, flag in enumerate(draft.IF or ()):
        if flag not in FLAGS:
            yield FieldFault(f"$.IF[{index}]", f"is no flag of the format: {flag[:40]!r}")
    groups = [flag.partition("_")[0] for flag in draft.IF or ()]
    if len(groups) > MOST_FLAGS or len(set(groups)) < len(groups):
        yield FieldFault("$.IF", "expected at most four flags, one of a group")
    for key in draft.extensions:
        if key[:1] not in EXTENSIONS:
            yield FieldFault(member("$", key), "the name of a vendor's own field begins with U to Z")
    if draft.LC is not None:
        yield from _text_faults(_LOSS["LN"], draft.LC.LN, "$.LC.LN")
    if not draft.RD:
        yield FieldFault("$.RD", "expected at least one reading")
    for index, reading in enumerate(draft.RD):
        yield from _reading_faults(reading, fiscal, f"$.RD[{index}]")


def _text_faults(field: Field, value: Any, path: str) -> Iterable[FieldFault]:
    if isinstance(value, str):
        if field.values and value not in field.values:
            yield FieldFault(path, f"expected one of {', '.join(field.values)}, got {value[:40]!r}")
        if field.longest is not None and len(value) > field.longest:
            yield FieldFault(path, f"expected at most {field.longest} characters, got {len(value)}")


def _reading_faults(reading: NewReading, fiscal: bool, path: str) -> Iterable[FieldFault]:
    if TIME.match(reading.TM) is None or moment(reading.TM).time is None:
        yield FieldFault(f"{path}.TM", f"expected YYYY-MM-DDTHH:MM:SS,mmm+hhmm and U, I, S or R, got {reading.TM[:40]!r}")
    if fiscal != (reading.TX is None):
        yield FieldFault(f"{path}.TX", "a reading outside of a transaction has no reason" if fiscal else "a reading of a transaction has a reason")
    for field in READING:
        if field.key != "RU":
            yield from _text_faults(field, getattr(reading, field.key, None), f"{path}.{field.key}")
    for key, value in (("RV", reading.RV), ("CL", reading.CL)):
        if isinstance(value, Decimal) and not value.is_finite():
            yield FieldFault(f"{path}.{key}", f"expected a number, got {value}")
    if set(reading.EF or "") - {"E", "t"}:
        yield FieldFault(f"{path}.EF", f"expected letters of E and t, got {(reading.EF or '')[:40]!r}")
    if reading.TX == "B" and reading.CL:
        yield FieldFault(f"{path}.CL", "the cumulated loss is 0 at the begin")
    if not reading.RI:
        yield FieldFault(f"{path}.RI", "is missing; S.A.F.E. does not carry it from the reading before")


def sign(payload: bytes, signer: Signer, encoding: Encoding = "hex") -> str:
    """The whole record: exactly these bytes of payload, signed. Raises InvalidInput for a payload with a pipe or that is not UTF-8."""
    if b"|" in payload:
        raise InvalidInput(f"byte {payload.index(b'|')}: a pipe may not stand in the payload; write it as \\u007c")
    der = signer.sign(payload)
    data = der.hex().upper() if encoding == "hex" else base64.b64encode(der).decode()
    how = "" if encoding == "hex" else '"SE":"base64",'
    try:
        return f'OCMF|{payload.decode()}|{{"SA":"{signer.algorithm.name}",{how}"SM":"{MIME}","SD":"{data}"}}'
    except UnicodeDecodeError as error:
        raise InvalidInput(f"byte {error.start}: the payload is not UTF-8") from None
