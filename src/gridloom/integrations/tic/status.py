"""TABLES and decoders of the values that are words or bits: STGE, RELAIS, PTEC, OPTARIF, DEMAIN, PPOT, MOTDETAT, messages, profiles, serial numbers.

A decoder returns None for a value that is none, never raises: damaged lines and unconfigured meters say all sorts of things. Every named value has a
word for machines, English and French.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Word(msgspec.Struct, frozen=True):
    """A value that has a name: ``word`` for machines, and in both languages."""

    word: str
    english: str
    french: str


UNKNOWN = Word("unknown", "unknown", "inconnu")


def _words(*rows: tuple[int, str, str, str]) -> Mapping[int, Word]:
    return MappingProxyType({value: Word(word, english, french) for value, word, english, french in rows})


# ------------------------------------------------------------------------------------------------------------------------ STGE


class Field(msgspec.Struct, frozen=True):
    """Some bits of STGE, ``first`` to ``last`` (0 is the least significant), and what their values mean; an unnamed value is UNKNOWN."""

    name: str
    first: int
    last: int
    english: str
    french: str
    values: Mapping[int, Word]
    clause: str

    def of(self, register: int) -> int:
        """The value of the field in a register."""
        return (register >> self.first) & ((1 << (self.last - self.first + 1)) - 1)

    def word(self, register: int) -> Word:
        """The named value of the field in a register."""
        return self.values.get(self.of(register), UNKNOWN)


_NO_YES = ("no", "no", "non"), ("yes", "yes", "oui")
_COLOURS = _words((0, "none", "no colour", "pas d’annonce"), (1, "blue", "blue", "bleu"), (2, "white", "white", "blanc"), (3, "red", "red", "rouge"))
_PEAKS = _words(
    (0, "none", "none", "aucune"), (1, "PM1", "mobile peak 1", "PM1"), (2, "PM2", "mobile peak 2", "PM2"), (3, "PM3", "mobile peak 3", "PM3")
)


def _flag(no: tuple[str, str, str], yes: tuple[str, str, str]) -> Mapping[int, Word]:
    return _words((0, *no), (1, *yes))


# fmt: off
_FIELDS = (
    ("contact", 0, 0, "Dry contact", "Contact sec", _flag(("closed", "closed", "fermé"), ("open", "open", "ouvert"))),
    ("breaker", 1, 3, "Breaking device", "Organe de coupure", _words(
        (0, "closed", "closed", "fermé"),
        (1, "overpower", "open: too much power", "ouvert sur surpuissance"),
        (2, "overvoltage", "open: voltage too high", "ouvert sur surtension"),
        (3, "shedding", "open: load shedding", "ouvert sur délestage"),
        (4, "order", "open: order by PLC or Euridis", "ouvert sur ordre CPL ou Euridis"),
        (5, "overheating-above", "open: too hot, current above the breaking current",
            "ouvert sur une surchauffe avec une valeur de courant supérieure au courant de commutation maximal"),
        (6, "overheating-below", "open: too hot, current below the breaking current",
            "ouvert sur une surchauffe avec une valeur de courant inférieure au courant de commutation maximal"),
    )),
    ("cover", 4, 4, "Terminal cover", "Cache-bornes", _flag(("closed", "closed", "fermé"), ("open", "open", "ouvert"))),
    ("overvoltage", 6, 6, "Over-voltage on a phase", "Surtension sur une des phases", _flag(*_NO_YES)),
    ("overload", 7, 7, "Reference power exceeded", "Dépassement de la puissance de référence", _flag(*_NO_YES)),
    ("behaviour", 8, 8, "Behaviour", "Fonctionnement", _flag(("consumer", "consumer", "consommateur"), ("producer", "producer", "producteur"))),
    ("direction", 9, 9, "Sign of active energy", "Sens de l’énergie active",
        _flag(("positive", "positive: taken", "positif"), ("negative", "negative: given", "négatif"))),
    ("supplier", 10, 13, "Running supplier register", "Tarif en cours sur le contrat fourniture", _words(
        *((n - 1, f"tariff{n}", f"register {n}", f"index {n}") for n in range(1, 11)))),
    ("distributor", 14, 15, "Running distributor register", "Tarif en cours sur le contrat distributeur", _words(
        *((n - 1, f"distributor{n}", f"register {n}", f"index {n}") for n in range(1, 5)))),
    ("clock", 16, 16, "Clock", "Horloge", _flag(("right", "right", "correcte"), ("degraded", "degraded", "dégradée"))),
    ("tic", 17, 17, "TIC", "Sortie TIC", _flag(("historic", "historic", "historique"), ("standard", "standard", "standard"))),
    ("euridis", 19, 20, "Euridis output", "Sortie Euridis", _words(
        (0, "disabled", "disabled", "désactivée"),
        (1, "enabled", "enabled without security", "activée sans sécurité"),
        (3, "secured", "enabled with security", "activée avec sécurité"),
    )),
    ("plc", 21, 22, "PLC", "Statut du CPL", _words(
        (0, "new-unlocked", "new, unlocked", "nouveau, déverrouillé"),
        (1, "new-locked", "new, locked", "nouveau, verrouillé"),
        (2, "registered", "registered", "enregistré"),
    )),
    ("synchronised", 23, 23, "PLC synchronised", "Synchronisation CPL",
        _flag(("no", "not synchronised", "non synchronisé"), ("yes", "synchronised", "synchronisé"))),
    ("today", 24, 25, "Tempo colour of today", "Couleur du jour (Tempo)", _COLOURS),
    ("tomorrow", 26, 27, "Tempo colour of tomorrow", "Couleur du lendemain (Tempo)", _COLOURS),
    ("notice", 28, 29, "Notice of mobile peak", "Préavis de pointe mobile", _PEAKS),
    ("peak", 30, 31, "Mobile peak running", "Pointe mobile en cours", _PEAKS),
)
# fmt: on

STGE: Mapping[str, Field] = MappingProxyType(
    {
        name: Field(name, first, last, english, french, values, f"STGE.md bits {first}" + (f"-{last}" if last > first else ""))
        for name, first, last, english, french, values in _FIELDS
    }
)
"""Every field of the status register by name."""

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{1,8}")


def hexadecimal(text: str) -> int | None:
    """One to eight hexadecimal digits as a number, None for anything else (``int`` would take signs, blanks and underscores)."""
    return int(text, 16) if _HEXADECIMAL.fullmatch(text) else None


def stge(text: str) -> int | None:
    """The status register as a number; None if the text is not exactly eight hexadecimal digits."""
    return hexadecimal(text) if len(text) == 8 else None


def words(register: int) -> dict[str, Word]:
    """Every field of the status register with its named value."""
    return {name: field.word(register) for name, field in STGE.items()}


# ------------------------------------------------------------------------------------------------------------------- relays

RELAYS = 8


def relays(text: str) -> tuple[bool, ...] | None:
    """RELAIS (decimal, 000 to 255): whether each of the eight is closed; the first is the dry contact, the others are virtual."""
    if not (text.isascii() and text.isdigit()) or int(text) > 255:
        return None
    return tuple(bool(int(text) >> bit & 1) for bit in range(RELAYS))


# -------------------------------------------------------------------------------------------------------------------- tariffs

PTEC: Mapping[str, Word] = MappingProxyType(
    {
        "TH": Word("TH", "all hours", "toutes les heures"),
        "HC": Word("HC", "off-peak hours", "heures creuses"),
        "HP": Word("HP", "peak hours", "heures pleines"),
        "HN": Word("HN", "normal hours", "heures normales"),
        "PM": Word("PM", "mobile peak hours", "heures de pointe mobile"),
        **{
            f"{hours}J{letter}": Word(f"{hours}J{letter}", f"{english}, {day} day", f"{french}, jour {jour}")
            for letter, day, jour in (("B", "blue", "bleu"), ("W", "white", "blanc"), ("R", "red", "rouge"))
            for hours, english, french in (("HC", "off-peak hours", "heures creuses"), ("HP", "peak hours", "heures pleines"))
        },
    }
)
"""The running tariff period of historic mode, by the name of its register; on the wire filled up with full stops to four characters."""


def ptec(text: str) -> str | None:
    """The register that runs (``HP``, ``HCJB``…); None for a word that is not in ``PTEC``."""
    name = text.strip().rstrip(".")
    return name if name in PTEC else None


class Option(msgspec.Struct, frozen=True):
    """A tariff option of historic mode: its name, the grid subscription (Witty GAPS), ``family`` of registers, and the data character of Tempo."""

    name: str
    subscription: str
    family: str
    english: str
    french: str
    programme: str = ""


OPTARIF: Mapping[str, Option] = MappingProxyType(
    {
        "BASE": Option("BASE", "BASE", "BASE", "one tariff", "option Base"),
        "HC": Option("HC", "HCHP", "HC", "peak and off-peak hours", "option Heures Creuses"),
        "EJP": Option("EJP", "EJP", "EJP", "mobile peak days", "option EJP"),
        "BBR": Option("BBR", "TEMPO", "BBR", "Tempo: blue, white and red days", "option Tempo"),
    }
)


def optarif(text: str) -> Option | None:
    """``BASE``, ``HC..``, ``EJP.`` or ``BBRx``; x is data (programmes of the two circuits of water heating) and no part of the name."""
    word = text.strip()
    if len(word) == 4 and word.startswith("BBR"):
        return msgspec.structs.replace(OPTARIF["BBR"], programme=word[3])
    return OPTARIF.get(word.rstrip("."))


DEMAIN: Mapping[str, str] = MappingProxyType({"BLEU": "blue", "BLAN": "white", "ROUG": "red"})
"""The colour of tomorrow in historic mode; ``----``: not known yet."""

_COLOUR_OF_LETTER = {"B": "blue", "W": "white", "R": "red"}


def demain(text: str) -> str | None:
    """``blue``, ``white``, ``red``; "" while it is not known; None for anything else."""
    word = text.strip()
    return "" if word and not word.strip("-") else DEMAIN.get(word)


def colour_of(tariff: str) -> str | None:
    """The colour of the day that a Tempo register belongs to (``HCJB``: blue); None for other registers."""
    return _COLOUR_OF_LETTER.get(tariff[3]) if len(tariff) == 4 and tariff[2] == "J" else None


HHPHC: Mapping[str, Word] = MappingProxyType(
    {letter: Word(letter, f"timetable {letter}", f"horaires {letter}") for letter in ("A", "C", "D", "E", "Y")}
)
"""Groups of peak and off-peak hours; which hours they are is the distributor's."""


def trimmed(text: str) -> str:
    """NGTF, LTARF and messages without padding; blanks inside are one blank (meters centre, and pad to 16 or 32 characters)."""
    return " ".join(text.split())


NO_MESSAGE = frozenset({"", "PAS DE MESSAGE"})
"""What MSG1 and MSG2 say when there is none."""


def message(text: str) -> str:
    """The distributor's message, "" when there is none."""
    said = trimmed(text)
    return "" if said.upper() in NO_MESSAGE else said


# --------------------------------------------------------------------------------------------------------------------- phases


def missing_phases(text: str) -> tuple[bool, bool, bool] | None:
    """PPOT: whether phase 1, 2, 3 has no voltage (bits 1 to 3); None if it is not two hexadecimal digits."""
    value = hexadecimal(text) if len(text) == 2 else None
    return None if value is None else (bool(value & 2), bool(value & 4), bool(value & 8))


def motdetat(text: str) -> tuple[int, ...] | None:
    """MOTDETAT: the numbers of the bits that are set; their meaning is the maker's. None if it is not six hexadecimal digits."""
    value = hexadecimal(text) if len(text) == 6 else None
    return None if value is None else tuple(bit for bit in range(24) if value >> bit & 1)


# -------------------------------------------------------------------------------------------------------------------- profiles

_BLOCK = re.compile(r"([0-9A-F]{2})([0-9A-F]{2})([0-9A-F]{4})")
UNUSED = "NONUTILE"

CONTACT = _words(
    (0, "unchanged", "unchanged", "pas de changement"),
    (1, "tempo", "Tempo", "tempo"),
    (2, "open", "open", "ouvert"),
    (3, "closed", "closed", "fermé"),
)
"""What a block does with the dry contact (bits 14 and 15 of its action)."""


class Block(msgspec.Struct, frozen=True):
    """From ``time`` (local, HH:MM) on: ``action`` as sent (16 bits), ``tariff`` the register (bits 0 to 3, 0 is none).

    ``contact``: a word of CONTACT.
    """

    time: str
    action: int
    tariff: int
    contact: str


def profile(text: str) -> tuple[Block, ...] | None:
    """PJOURF+1 and PPOINTE: blocks HHMMSSSS, NONUTILE for one that is not used; None if anything else is in it.

    That bits 0 to 3 are the register and bits 14 and 15 the contact is read off the captured frames (``00008002 0100C001``: register 2 with the
    contact open, from 01:00 register 1 with it closed); the bits between are kept in ``action``. Most meters write the time in decimal digits
    (``1230``), some in hexadecimal ones (``0F00`` and then ``1100`` for 15:00 and 17:00, as captured): a profile is read as hexadecimal if it
    cannot be decimal.
    """
    blocks = []
    for word in text.split():
        if word == UNUSED:
            continue
        found = _BLOCK.fullmatch(word)
        if found is None:
            return None
        blocks.append((found[1], found[2], int(found[3], 16)))
    for base in (10, 16):
        if base == 10 and not all((hour + minute).isdecimal() for hour, minute, _ in blocks):
            continue
        times = [(int(hour, base), int(minute, base)) for hour, minute, _ in blocks]
        if all(hour < 24 and minute < 60 for hour, minute in times):
            return tuple(
                Block(f"{hour:02}:{minute:02}", action, action & 0xF, CONTACT[action >> 14].word)
                for (hour, minute), (_, _, action) in zip(times, blocks, strict=True)
            )
    return None


# -------------------------------------------------------------------------------------------------------------- serial numbers

MAKERS: Mapping[str, str] = MappingProxyType(
    {
        "01": "Monetel",
        "02": "Sagemcom",
        "03": "Itron",
        "04": "Landis+Gyr",
        "05": "Stepper Energie",
        "06": "Itron",
        "07": "MAEC",
        "08": "Enerdis",
        "09": "Faure-Herman",
        "10": "SEVME",
        "11": "Elster",
        "27": "Iskraemeco",
        "34": "Elster",
        "39": "ZIV",
        "70": "Landis+Gyr",
        "71": "Stepper Energie",
        "81": "Sagemcom",
        "82": "Landis+Gyr",
        "83": "Elster",
        "84": "Sagemcom",
        "85": "Itron",
    }
)
"""Maker by the first two digits of a serial number (Euridis, list of identifiers of 2019)."""

MODELS: Mapping[str, str] = MappingProxyType(
    {
        "61": "Linky single-phase 60 A G3, feed from above",
        "62": "Linky single-phase 90 A G1, feed from below",
        "63": "Linky three-phase 60 A G1, feed from below",
        "64": "Linky single-phase 60 A G3, feed from below",
        "70": "Linky single-phase 60 A G3, pilot",
        "71": "Linky three-phase 60 A G3, pilot",
        "75": "Linky single-phase 90 A G3, feed from below",
        "76": "Linky three-phase 60 A G3, feed from below",
    }
)
"""Model by the fifth and sixth digit of a serial number (Enedis-NOI-CPT_54E, ADSC)."""


class Make(msgspec.Struct, frozen=True):
    """What a serial number says: maker, model ("" if not known) and year of make."""

    vendor: str
    model: str
    year: int


def make(serial: str) -> Make | None:
    """Maker (2 digits), year (2), model (2), number (6); None if it has not 12 digits (there are meters with 11, and anonymised ones)."""
    if len(serial) != 12 or not (serial.isascii() and serial.isdigit()):
        return None
    year = int(serial[2:4])
    return Make(MAKERS.get(serial[:2], ""), MODELS.get(serial[4:6], ""), year + (1900 if year >= 80 else 2000))


# -------------------------------------------------------------------------------------------------------------------- ticType

TIC_TYPES: Mapping[tuple[bool, bool], str] = MappingProxyType(
    {(True, False): "standardMono", (True, True): "standardTri", (False, False): "historicMono", (False, True): "historicTri"}
)
"""ticType of the Witty interface by (standard mode, three phases)."""
