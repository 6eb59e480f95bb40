"""TABLE: what an OCMF record may say, up to version 1.4.1 of the format: fields, code letters, OBIS registers.

Clauses are those of EVerest FACTS §4 (OCMF v1.4.1, tables 1-25). ``since`` is the version in which a field came, ``until`` the last one
that had it, as (major, minor).
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

Version = tuple[int, int]
NEWEST: Version = (1, 4)
"""Of the format that is read here."""
WRITTEN = "1.3"
"""The version of our own records: S.A.F.E. 1.4.1 refuses 1.4 (FACTS §4.5, 1)."""


class Kind(StrEnum):
    """The JSON type of a field."""

    TEXT = "a string"
    NUMBER = "a number"
    FLAG = "true or false"
    TEXTS = "an array of strings"
    OBJECT = "an object"
    ANY = "anything"


class Field(NamedTuple):
    """One field. ``needed``: the format demands it. ``values``: the closed list, if it has one. ``longest`` in characters."""

    key: str
    meaning: str
    kind: Kind = Kind.TEXT
    needed: bool = False
    since: Version = (0, 1)
    until: Version = NEWEST
    values: tuple[str, ...] = ()
    longest: int | None = None


LEVELS = ("NONE", "HEARSAY", "TRUSTED", "VERIFIED", "CERTIFIED", "SECURE", "MISMATCH", "INVALID", "OUTDATED", "UNKNOWN")
BAD_LEVELS = frozenset(LEVELS[6:])
"""Levels that say that the assignment failed."""
FLAGS = (
    *("RFID_NONE", "RFID_PLAIN", "RFID_RELATED", "RFID_PSK"),
    *("OCPP_NONE", "OCPP_RS", "OCPP_AUTH", "OCPP_RS_TLS", "OCPP_AUTH_TLS", "OCPP_CACHE", "OCPP_WHITELIST", "OCPP_CERTIFIED"),
    *("ISO15118_NONE", "ISO15118_PNC"),
    *("PLMN_NONE", "PLMN_RING", "PLMN_SMS"),
)
MOST_FLAGS = 4
TYPES = (
    *("NONE", "DENIED", "UNDEFINED", "ISO14443", "ISO15693", "EMAID", "EVCCID", "EVCOID", "ISO7812", "CARD_TXN_NR"),
    *("CENTRAL", "CENTRAL_1", "CENTRAL_2", "LOCAL", "LOCAL_1", "LOCAL_2", "PHONE_NUMBER", "KEY_CODE"),
)

REASONS = {
    "B": "begin",
    "C": "charging",
    "X": "error, the transaction goes on",
    "E": "end",
    "L": "ended locally",
    "R": "ended remotely",
    "A": "aborted by an error",
    "P": "ended by a power failure",
    "S": "suspended",
    "T": "tariff change",
}
"""TX (table 7)."""
ENDS = frozenset("ELRAP")
STATUSES = {
    "G": "good",
    "N": "meter not present",
    "T": "time-out",
    "D": "disconnected",
    "R": "not found",
    "M": "manipulated",
    "X": "exchanged",
    "I": "incompatible",
    "O": "out of range",
    "S": "substitute value",
    "E": "other error",
    "F": "read error",
}
"""ST (table 10)."""
TIMES = {"U": "unknown", "I": "informative", "S": "synchronised", "R": "relative"}
"""The letter behind a time (table 19)."""
ENERGY = {"wh": 0, "kwh": 3}
"""Power of ten of the energy units, against Wh; keys in lower case."""
UNITS = ("kWh", "Wh", "mOhm", "uOhm")

PAYLOAD: tuple[Field, ...] = (
    Field("FV", "format version"),
    Field("GI", "gateway", since=(0, 4)),
    Field("VI", "gateway (old)", until=(0, 3)),
    Field("GS", "gateway serial", since=(0, 4)),
    Field("GV", "gateway version", since=(0, 4)),
    Field("VV", "gateway version (old)", until=(0, 3)),
    Field("PG", "pagination", needed=True),
    Field("MV", "meter vendor"),
    Field("MM", "meter model"),
    Field("MS", "meter serial", needed=True),
    Field("MF", "meter firmware"),
    Field("IS", "user assigned", Kind.FLAG, needed=True),
    Field("IL", "assignment level", since=(0, 4), values=LEVELS),
    Field("IF", "assignment flags", Kind.TEXTS, needed=True, values=FLAGS),
    Field("IT", "identification type", needed=True, values=TYPES),
    Field("ID", "identification"),
    Field("TT", "tariff", since=(1, 1), longest=250),
    Field("CF", "charge controller firmware", since=(1, 3), longest=25),
    Field("LC", "loss compensation", Kind.OBJECT, since=(1, 2)),
    Field("CT", "charge point identification type", since=(0, 5), values=("EVSEID", "CBIDC")),
    Field("CI", "charge point", since=(0, 5)),
    Field("SA", "signature algorithm (old)", since=(0, 4), until=(0, 5)),
    Field("RD", "readings", Kind.ANY, needed=True),
)
USER = frozenset({"IS", "IL", "IF", "IT", "ID", "TT"})
"""The user assignment: only in records of a transaction."""
EXTENSIONS = frozenset("UVWXYZ")
"""First letters of vendors' own fields, at top level only."""
READING: tuple[Field, ...] = (
    Field("TM", "time", needed=True),
    Field("TX", "reason", values=tuple(REASONS)),
    Field("RV", "value", Kind.NUMBER),
    Field("RI", "register (OBIS)"),
    Field("RU", "unit", needed=True, values=UNITS),
    Field("RT", "current", since=(0, 5), values=("AC", "DC")),
    Field("CL", "cumulated loss", Kind.NUMBER, since=(1, 2)),
    Field("EF", "error flags", since=(0, 5)),
    Field("EI", "event counter (old)", Kind.NUMBER, until=(0, 4)),
    Field("ST", "meter status", needed=True, since=(0, 3), values=tuple(STATUSES)),
)
CARRIED = ("TM", "TX", "RI", "RU", "RT", "EF", "EI", "ST")
"""A reading that leaves one of these out has that of the reading before. RV and CL are never carried: without RV it is a mere error event."""
LOSS: tuple[Field, ...] = (
    Field("LN", "cable", longest=20),
    Field("LI", "cable number", Kind.NUMBER),
    Field("LR", "resistance", Kind.NUMBER, needed=True),
    Field("LU", "unit of the resistance", needed=True, values=("mOhm", "uOhm")),
)
SIGNATURE: tuple[Field, ...] = (
    Field("SA", "algorithm"),
    Field("SE", "encoding", values=("hex", "base64")),
    Field("SM", "MIME type", values=("application/x-der",)),
    Field("SD", "signature", needed=True),
)
MIME = "application/x-der"

TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d),(\d{3})([+-])(\d\d)(\d\d) ([UISR])\Z", re.ASCII)
"""TM as the format writes it: ``2018-07-24T13:22:04,000+0200 S``."""
PAGE = re.compile(r"([TF])(0|[1-9]\d{0,17})\Z", re.ASCII)
"""PG: the context and its counter, without leading zeros."""

# ------------------------------------------------------------------------------------------------------------------------ OBIS

_OBIS = re.compile(r"([0-9a-f]+)-([0-9a-f]*):([0-9a-f]+)\.([0-9a-f]+)(?:\.([0-9a-f]*))?(?:[.*]([0-9a-f]*))?\Z", re.IGNORECASE | re.ASCII)
_RELEVANT_C = frozenset({0x01, 0x98, 0x9E, *range(0xB0, 0xC8)})
_COMPENSATED_C = frozenset({0x98, 0xB1, 0xB3, 0xC1, 0xC3})
# Value group F is read as hexadecimal digits: what people write as 200 and 255 are these numbers (FACTS §4.5, 4).
_RELEVANT_F = frozenset({0x00, 0x200, 0x255, 0xFF})


class Register(NamedTuple):
    """What an OBIS code means for a bill. ``compensated``: losses of the cable are taken off already."""

    relevant: bool
    compensated: bool


@lru_cache(maxsize=1024)
def register(obis: str | None) -> Register:
    """Whether the law cares about this register: A=1, C import total or one of OCMF's own, D=8, F none, 200 or 255 (FACTS §4.5, 4)."""
    match = _OBIS.match(obis.strip()) if obis else None
    if match is None:
        return Register(False, False)
    a, _, c, d, _, f = (int(group or "0", 16) for group in match.groups())
    relevant = a == 1 and d == 8 and c in _RELEVANT_C and f in _RELEVANT_F
    return Register(relevant, relevant and c in _COMPENSATED_C)
