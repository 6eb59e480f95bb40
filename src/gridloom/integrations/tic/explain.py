"""Groups in words, for people: what the label means, and what its value says, in English or French. For tools; the hub's words are in ``mapping``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from gridloom.integrations.tic import status
from gridloom.integrations.tic.codec import parse_horodate
from gridloom.integrations.tic.labels import Mode, lookup

Language = Literal["en", "fr"]

_ALWAYS = frozenset({"contact", "supplier", "distributor", "behaviour"})
"""Fields of STGE that are told whatever their value; the others only when it is not 0, which is what nobody needs to look at."""


def meaning(label: str, mode: Mode, language: Language = "en") -> str:
    """What a label means."""
    row = lookup(label, mode)
    return row.french if language == "fr" else row.english


def said(label: str, value: str, mode: Mode, language: Language = "en") -> str:
    """What a value says: a number with its unit, a word, bits by name; "" when there is nothing to add to the value itself."""
    unit = lookup(label, mode).unit
    if unit and value.isascii() and value.isdigit():
        return f"{int(value)} {unit}"
    return _WORDS[label](value, language) if label in _WORDS else ""


def moment(horodate: str, zone: ZoneInfo, language: Language = "en") -> str:
    """A horodate as local time with its offset; "" when it is none."""
    found = parse_horodate(horodate, zone)
    if found is None:
        return ""
    local = datetime.fromtimestamp(found.time // 1_000_000, zone).isoformat(" ")
    return local + (", horloge dégradée" if language == "fr" else ", clock degraded") * found.degraded


def _of(word: status.Word | status.Option | None, language: Language) -> str:
    return "" if word is None else word.french if language == "fr" else word.english


def _register(value: str, language: Language) -> str:
    number = status.stge(value)
    if number is None:
        return ""
    told = []
    for name, field in status.STGE.items():
        if field.of(number) or name in _ALWAYS:
            told.append(f"{field.french if language == 'fr' else field.english}: {_of(field.word(number), language)}")
    return "; ".join(told)


def _relays(value: str, language: Language) -> str:
    closed = [str(number) for number, one in enumerate(status.relays(value) or (), 1) if one]
    if status.relays(value) is None:
        return ""
    if language == "fr":
        return f"fermés : {', '.join(closed)}" if closed else "tous ouverts"
    return f"closed: {', '.join(closed)}" if closed else "all open"


def _tomorrow(value: str, language: Language) -> str:
    colour = status.demain(value)
    if colour == "":
        return "pas encore connue" if language == "fr" else "not known yet"
    return _of(next((word for word in status.STGE["tomorrow"].values.values() if word.word == colour), None), language)


def _profile(value: str, language: Language) -> str:
    words = {"open": "ouvert", "closed": "fermé", "unchanged": "inchangé"}
    return "; ".join(
        f"{block.time} index {block.tariff}, contact {words.get(block.contact, block.contact)}"
        if language == "fr"
        else f"{block.time} register {block.tariff}, contact {block.contact}"
        for block in status.profile(value) or ()
    )


def _missing(value: str, language: Language) -> str:
    phases = [str(number) for number, one in enumerate(status.missing_phases(value) or (), 1) if one]
    if not phases:
        return ""
    return ("phases absentes : " if language == "fr" else "phases without voltage: ") + ", ".join(phases)


_WORDS = {
    "STGE": _register,
    "RELAIS": _relays,
    "PTEC": lambda value, language: _of(status.PTEC.get(status.ptec(value) or ""), language),
    "OPTARIF": lambda value, language: _of(status.optarif(value), language),
    "DEMAIN": _tomorrow,
    "HHPHC": lambda value, language: _of(status.HHPHC.get(value), language),
    "PPOT": _missing,
    "PJOURF+1": _profile,
    "PPOINTE": _profile,
}
