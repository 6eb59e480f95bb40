"""The messages of EVerest's powermeter API (AsyncAPI 1.0.0, also as of 2026-08), spelled as on the wire.

An optional member is left out, never ``null``: EVerest refuses a whole message for one ``null`` (FACTS 2.5). Numbers are doubles here; EVerest
keeps 32-bit floats. EVerest takes ``true`` for 1, so we do when we play its part.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

Status = Literal["OK", "NOT_SUPPORTED", "UNEXPECTED_ERROR"]
IdentificationStatus = Literal["ASSIGNED", "NOT_ASSIGNED"]
IdentificationLevel = Literal[
    "NONE", "HEARSAY", "TRUSTED", "VERIFIED", "CERTIFIED", "SECURE", "MISMATCH", "INVALID", "OUTDATED", "UNKNOWN"
]  # fmt: skip
IdentificationFlag = Literal[
    "RFID_NONE", "RFID_PLAIN", "RFID_RELATED", "RFID_PSK",
    "OCPP_NONE", "OCPP_RS", "OCPP_AUTH", "OCPP_RS_TLS", "OCPP_AUTH_TLS", "OCPP_CACHE", "OCPP_WHITELIST", "OCPP_CERTIFIED",
    "ISO15118_NONE", "ISO15118_PNC",
    "PLMN_NONE", "PLMN_RING", "PLMN_SMS",
]  # fmt: skip
IdentificationType = Literal[
    "NONE", "DENIED", "UNDEFINED", "ISO14443", "ISO15693", "EMAID", "EVCCID", "EVCOID", "ISO7812", "CARD_TXN_NR",
    "CENTRAL", "CENTRAL_1", "CENTRAL_2", "LOCAL", "LOCAL_1", "LOCAL_2", "PHONE_NUMBER", "KEY_CODE",
]  # fmt: skip
Number = float | bool
"""A measured value; a bool is what EVerest's parser lets through as 1 or 0."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all: unknown members are ignored (``additionalProperties: true``), absent ones are left out."""


class Phases(Message, frozen=True, kw_only=True):
    """The lines of an alternating current."""

    L1: Number | UnsetType = UNSET
    L2: Number | UnsetType = UNSET
    L3: Number | UnsetType = UNSET


class Totals(Phases, frozen=True, kw_only=True):
    """Energy in Wh, power in W or reactive power in var: the total is required, the lines need not add up to it."""

    total: Number


class Voltage(Phases, frozen=True, kw_only=True):
    """V, line to neutral."""

    DC: Number | UnsetType = UNSET


class Current(Voltage, frozen=True, kw_only=True):
    """A."""

    N: Number | UnsetType = UNSET


class Frequency(Message, frozen=True, kw_only=True):
    """Hz; a meter that measures it once gives it as L1."""

    L1: Number
    L2: Number | UnsetType = UNSET
    L3: Number | UnsetType = UNSET


class Temperature(Message, frozen=True, kw_only=True):
    """°C of one sensor."""

    temperature: Number
    identification: str | UnsetType = UNSET
    location: str | UnsetType = UNSET


class SignedMeterValue(Message, frozen=True, kw_only=True):
    """``signing_method`` "" and ``encoding_method`` "OCMF" is what meters in the field say (FACTS 2.8)."""

    signed_meter_data: str
    signing_method: str
    encoding_method: str
    public_key: str | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


class SignedPhases(Message, frozen=True, kw_only=True):
    """Signed values, one for each quantity that is signed by itself."""

    total: SignedMeterValue | UnsetType = UNSET
    DC: SignedMeterValue | UnsetType = UNSET
    L1: SignedMeterValue | UnsetType = UNSET
    L2: SignedMeterValue | UnsetType = UNSET
    L3: SignedMeterValue | UnsetType = UNSET
    N: SignedMeterValue | UnsetType = UNSET


class Powermeter(Message, frozen=True, kw_only=True):
    """``m2e/powermeter_values``: what a meter measured at one moment. Positive power is import; ``timestamp`` RFC 3339."""

    timestamp: str
    energy_Wh_import: Totals
    meter_id: str | UnsetType = UNSET
    phase_seq_error: bool | UnsetType = UNSET
    energy_Wh_export: Totals | UnsetType = UNSET
    power_W: Totals | UnsetType = UNSET
    voltage_V: Voltage | UnsetType = UNSET
    VAR: Totals | UnsetType = UNSET
    current_A: Current | UnsetType = UNSET
    frequency_Hz: Frequency | UnsetType = UNSET
    energy_Wh_import_signed: SignedPhases | UnsetType = UNSET
    energy_Wh_export_signed: SignedPhases | UnsetType = UNSET
    power_W_signed: SignedPhases | UnsetType = UNSET
    voltage_V_signed: SignedPhases | UnsetType = UNSET
    VAR_signed: SignedPhases | UnsetType = UNSET
    current_A_signed: SignedPhases | UnsetType = UNSET
    frequency_Hz_signed: SignedPhases | UnsetType = UNSET
    signed_meter_value: SignedMeterValue | UnsetType = UNSET
    temperatures: tuple[Temperature, ...] | UnsetType = UNSET


class StartTransactionRequest(Message, frozen=True, kw_only=True, omit_defaults=False):
    """``e2m/start_transaction``: whom the charge is for. Flags may be absent, contrary to the document (FACTS 2.5)."""

    evse_id: str
    transaction_id: str
    identification_status: IdentificationStatus
    identification_type: IdentificationType
    identification_flags: Annotated[tuple[IdentificationFlag, ...], Meta(max_length=4)] = ()
    identification_level: IdentificationLevel | UnsetType = UNSET
    identification_data: str | UnsetType = UNSET
    tariff_text: Annotated[str, Meta(max_length=250)] | UnsetType = UNSET


class StopTransactionRequest(Message, frozen=True, kw_only=True):
    """``e2m/stop_transaction`` as the document has it. At run time the payload is the id alone, a bare string (FACTS 2.2)."""

    transaction_id: str


class StartTransactionReply(Message, frozen=True, kw_only=True):
    """``signed_meter_value`` is of the document of 2026-08: the record of the start, where a meter gives one."""

    status: Status
    error: str | UnsetType = UNSET
    transaction_min_stop_time: str | UnsetType = UNSET
    transaction_max_stop_time: str | UnsetType = UNSET
    signed_meter_value: SignedMeterValue | UnsetType = UNSET


class StopTransactionReply(Message, frozen=True, kw_only=True):
    """The receipt is ``signed_meter_value``; ``start_signed_meter_value`` where the meter signs start and stop apart."""

    status: Status
    error: str | UnsetType = UNSET
    signed_meter_value: SignedMeterValue | UnsetType = UNSET
    start_signed_meter_value: SignedMeterValue | UnsetType = UNSET


class Headers(Message, frozen=True, kw_only=True):
    """``replyTo`` names the topic of the answer, without the broker's external prefix (FACTS 2.1)."""

    replyTo: str | UnsetType = UNSET


class Request(Message, frozen=True, kw_only=True):
    """What stands around every request."""

    payload: Raw
    headers: Headers | UnsetType = UNSET


T = TypeVar("T")
_encoder = msgspec.json.Encoder(order="sorted")


def decode(kind: type[T], payload: bytes) -> T:
    """One message, with EVerest's own verdict on what is one (``samples/codec_cases.json``). Raises msgspec.ValidationError or DecodeError."""
    return msgspec.json.decode(payload.removeprefix(b"\xef\xbb\xbf"), type=kind)


def encode(message: object) -> bytes:
    """Compact JSON, members in alphabetical order as EVerest writes them."""
    return _encoder.encode(message)


def as_kept_by_everest(message: Message) -> Any:
    """The message as plain JSON values after it went through EVerest, which keeps every number in 32 bits (FACTS 2.5)."""
    return _single(msgspec.to_builtins(message))


def _single(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: value[name] if name == "phase_seq_error" else _single(value[name]) for name in value}
    if isinstance(value, list | tuple):
        return [_single(one) for one in value]
    if isinstance(value, int | float):
        return struct.unpack("f", struct.pack("f", value))[0]
    return value


class _Where(Message, frozen=True, kw_only=True):
    headers: Headers


def reply_to(payload: bytes) -> str:
    """Where the answer to a request goes that cannot be understood otherwise; empty when it does not say."""
    try:
        where = decode(_Where, payload).headers.replyTo
    except msgspec.DecodeError:
        return ""
    return where if isinstance(where, str) else ""
