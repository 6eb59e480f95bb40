"""TABLE: what every label of the TIC means, in historic and in standard mode.

Rows are facts of Enedis-NOI-CPT_54E; the clause names the label there. Measurand, phase and tariff register are words of the hub's core (plain
strings here: a table knows nobody); tariff registers are named as the Witty GAPS say ("TIC label to tariff register").
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Mode(enum.StrEnum):
    """How a meter speaks: historic (1200 baud, separator space) or standard (9600 baud, separator tab)."""

    HISTORIC = "historic"
    STANDARD = "standard"


class Kind(enum.StrEnum):
    """What sort of value a label carries."""

    IDENTITY = "identity"  # who the meter or the point of delivery is
    VERSION = "version"
    CLOCK = "clock"  # the meter's own time
    REGISTER = "register"  # cumulative
    INSTANT = "instant"  # as it is now
    WARNING = "warning"  # as it is now, sent only while something is exceeded
    SETTING = "setting"  # a number of the contract
    MAXIMUM = "maximum"  # of a day, or since the meter was reset
    CURVE = "curve"  # a point of the load curve
    AVERAGE = "average"
    NUMBER = "number"  # of a register or a calendar
    NOTICE = "notice"  # announces something
    STATE = "state"  # a word for what is now: a tariff, an option, a colour
    BITS = "bits"
    MOMENT = "moment"  # a horodate without a value
    MESSAGE = "message"
    PROFILE = "profile"  # blocks of times and actions
    UNKNOWN = "unknown"


class Label(msgspec.Struct, frozen=True):
    """One row. ``unit``: as on the wire (``kVA``, ``min``), "" if it has none; in base units a value counts ``factor * 10**exponent``.

    ``horodate``: it carries the time it is of. ``measurand``, ``phase``, ``tariff``: what its number means to the hub, None if nothing.
    ``family``: the tariff option whose registers are summed (``FAMILIES``).
    """

    name: str
    mode: Mode
    unit: str
    kind: Kind
    english: str
    french: str
    measurand: str | None = None
    phase: str | None = None
    tariff: str | None = None
    horodate: bool = False
    family: str = ""
    factor: int = 1
    exponent: int = 0
    clause: str = ""


_STANDARD, _HISTORIC = Mode.STANDARD, Mode.HISTORIC
_IMPORT = "Energy.Active.Import.Register"


def _standard(
    name: str, unit: str, kind: Kind, english: str, french: str, measurand: str = "", phase: str = "", tariff: str = "", *, horodate: bool = False
) -> Label:
    exponent = 3 if unit == "kVA" else 0
    clause = f"Enedis-NOI-CPT_54E, standard mode, {name}"
    return Label(name, _STANDARD, unit, kind, english, french, measurand or None, phase or None, tariff or None, horodate, "", 1, exponent, clause)


def _historic(
    name: str, unit: str, kind: Kind, english: str, french: str, measurand: str = "", phase: str = "", tariff: str = "", *, family: str = ""
) -> Label:
    factor = 60 if unit == "min" else 1
    clause = f"Enedis-NOI-CPT_54E, historic mode, {name}"
    return Label(name, _HISTORIC, unit, kind, english, french, measurand or None, phase or None, tariff or None, False, family, factor, 0, clause)


_PHASES = (1, 2, 3)
_K = Kind

# The columns: name, unit, kind, English, French, measurand, phase, tariff register.
# fmt: off
_STANDARD_ROWS = (
    _standard("ADSC", "", _K.IDENTITY, "Secondary address of the meter: its serial number", "Adresse secondaire du compteur : son numéro de série"),
    _standard("VTIC", "", _K.VERSION, "Version of the TIC", "Version de la TIC"),
    _standard("DATE", "", _K.CLOCK, "Date and time of the meter", "Date et heure courantes du compteur", horodate=True),
    _standard("NGTF", "", _K.STATE, "Name of the supplier's tariff calendar", "Nom du calendrier tarifaire fournisseur"),
    _standard("LTARF", "", _K.STATE, "Name of the supplier's running tariff", "Libellé du tarif fournisseur en cours"),
    _standard("EAST", "Wh", _K.REGISTER, "Active energy taken, total", "Énergie active soutirée totale", _IMPORT),
    *(
        _standard(f"EASF{n:02}", "Wh", _K.REGISTER, f"Active energy taken, supplier register {n}",
            f"Énergie active soutirée fournisseur, index {n:02}", _IMPORT, tariff=f"tariff{n}")
        for n in range(1, 11)
    ),
    *(
        _standard(f"EASD{n:02}", "Wh", _K.REGISTER, f"Active energy taken, distributor register {n}",
            f"Énergie active soutirée distributeur, index {n:02}", _IMPORT, tariff=f"distributor{n}")
        for n in range(1, 5)
    ),
    _standard("EAIT", "Wh", _K.REGISTER, "Active energy given, total", "Énergie active injectée totale", "Energy.Active.Export.Register"),
    *(
        _standard(f"ERQ{n}", "varh", _K.REGISTER, f"Reactive energy, quadrant {n}, total", f"Énergie réactive Q{n} totale",
            f"Energy.Reactive.Q{n}.Register")
        for n in range(1, 5)
    ),
    *(_standard(f"IRMS{n}", "A", _K.INSTANT, f"Current, phase {n}", f"Courant efficace, phase {n}", "Current.Import", f"L{n}") for n in _PHASES),
    *(_standard(f"URMS{n}", "V", _K.INSTANT, f"Voltage, phase {n}", f"Tension efficace, phase {n}", "Voltage", f"L{n}") for n in _PHASES),
    _standard("PREF", "kVA", _K.SETTING, "Apparent power of the contract", "Puissance apparente de référence", "Power.Apparent.Subscribed"),
    _standard("PCOUP", "kVA", _K.SETTING, "Apparent power above which the meter opens", "Puissance apparente de coupure", "Power.Apparent.Breaking"),
    _standard("SINSTS", "VA", _K.INSTANT, "Apparent power taken", "Puissance apparente instantanée soutirée", "Power.Apparent.Import"),
    *(
        _standard(f"SINSTS{n}", "VA", _K.INSTANT, f"Apparent power taken, phase {n}", f"Puissance apparente instantanée soutirée, phase {n}",
            "Power.Apparent.Import", f"L{n}")
        for n in _PHASES
    ),
    _standard("SMAXSN", "VA", _K.MAXIMUM, "Highest apparent power taken today", "Puissance apparente maximale soutirée du jour",
        "DayMax.Power.Apparent.Import", horodate=True),
    *(
        _standard(f"SMAXSN{n}", "VA", _K.MAXIMUM, f"Highest apparent power taken today, phase {n}",
            f"Puissance apparente maximale soutirée du jour, phase {n}", "DayMax.Power.Apparent.Import", f"L{n}", horodate=True)
        for n in _PHASES
    ),
    _standard("SMAXSN-1", "VA", _K.MAXIMUM, "Highest apparent power taken yesterday", "Puissance apparente maximale soutirée de la veille",
        "PreviousDayMax.Power.Apparent.Import", horodate=True),
    *(
        _standard(f"SMAXSN{n}-1", "VA", _K.MAXIMUM, f"Highest apparent power taken yesterday, phase {n}",
            f"Puissance apparente maximale soutirée de la veille, phase {n}", "PreviousDayMax.Power.Apparent.Import", f"L{n}", horodate=True)
        for n in _PHASES
    ),
    _standard("SINSTI", "VA", _K.INSTANT, "Apparent power given", "Puissance apparente instantanée injectée", "Power.Apparent.Export"),
    _standard("SMAXIN", "VA", _K.MAXIMUM, "Highest apparent power given today", "Puissance apparente maximale injectée du jour",
        "DayMax.Power.Apparent.Export", horodate=True),
    _standard("SMAXIN-1", "VA", _K.MAXIMUM, "Highest apparent power given yesterday", "Puissance apparente maximale injectée de la veille",
        "PreviousDayMax.Power.Apparent.Export", horodate=True),
    _standard("CCASN", "W", _K.CURVE, "Load curve, taken, last point", "Point n de la courbe de charge active soutirée",
        "Mean.Power.Active.Import", horodate=True),
    _standard("CCASN-1", "W", _K.CURVE, "Load curve, taken, point before the last", "Point n-1 de la courbe de charge active soutirée",
        "Mean.Power.Active.Import", horodate=True),
    _standard("CCAIN", "W", _K.CURVE, "Load curve, given, last point", "Point n de la courbe de charge active injectée",
        "Mean.Power.Active.Export", horodate=True),
    _standard("CCAIN-1", "W", _K.CURVE, "Load curve, given, point before the last", "Point n-1 de la courbe de charge active injectée",
        "Mean.Power.Active.Export", horodate=True),
    *(
        _standard(f"UMOY{n}", "V", _K.AVERAGE, f"Mean voltage, phase {n}", f"Tension moyenne, phase {n}", "Mean.Voltage", f"L{n}", horodate=True)
        for n in _PHASES
    ),
    _standard("STGE", "", _K.BITS, "Status register, 32 bits in hexadecimal", "Registre de statuts, 32 bits en hexadécimal"),
    *(
        _standard(f"DPM{n}", "", _K.MOMENT, f"Beginning of mobile peak {n}", f"Début de la pointe mobile {n}", horodate=True) for n in _PHASES
    ),
    *(_standard(f"FPM{n}", "", _K.MOMENT, f"End of mobile peak {n}", f"Fin de la pointe mobile {n}", horodate=True) for n in _PHASES),
    _standard("MSG1", "", _K.MESSAGE, "Short message of the distributor", "Message court"),
    _standard("MSG2", "", _K.MESSAGE, "Very short message of the distributor", "Message ultra court"),
    _standard("PRM", "", _K.IDENTITY, "Point of delivery (PRM, 14 digits)", "Point de référence et de mesure (PRM, 14 chiffres)"),
    _standard("RELAIS", "", _K.BITS, "Relays: bit 0 the dry contact, bits 1 to 7 virtual", "Relais : bit 0 le contact sec, bits 1 à 7 virtuels"),
    _standard("NTARF", "", _K.NUMBER, "Number of the running tariff register", "Numéro de l’index tarifaire en cours", "Tariff.Register"),
    _standard("NJOURF", "", _K.NUMBER, "Number of today's calendar day", "Numéro du jour en cours du calendrier fournisseur"),
    _standard("NJOURF+1", "", _K.NUMBER, "Number of tomorrow's calendar day", "Numéro du prochain jour du calendrier fournisseur"),
    _standard("PJOURF+1", "", _K.PROFILE, "Profile of tomorrow", "Profil du prochain jour du calendrier fournisseur"),
    _standard("PPOINTE", "", _K.PROFILE, "Profile of the next peak day", "Profil du prochain jour de pointe"),
)

_HISTORIC_ROWS = (
    _historic("ADCO", "", _K.IDENTITY, "Address of the meter: its serial number", "Adresse du compteur : son numéro de série"),
    _historic("OPTARIF", "", _K.STATE, "Tariff option of the contract", "Option tarifaire choisie"),
    _historic("ISOUSC", "A", _K.SETTING, "Current of the contract", "Intensité souscrite", "Current.Subscribed"),
    _historic("BASE", "Wh", _K.REGISTER, "Register, option Base", "Index option Base", _IMPORT, tariff="TH", family="BASE"),
    _historic("HCHC", "Wh", _K.REGISTER, "Off-peak register", "Index option Heures Creuses : heures creuses", _IMPORT, tariff="HC", family="HC"),
    _historic("HCHP", "Wh", _K.REGISTER, "Peak register", "Index option Heures Creuses : heures pleines", _IMPORT, tariff="HP", family="HC"),
    _historic("EJPHN", "Wh", _K.REGISTER, "Register of normal hours, EJP", "Index option EJP : heures normales", _IMPORT, tariff="HN", family="EJP"),
    _historic("EJPHPM", "Wh", _K.REGISTER, "Register of mobile peak hours, EJP", "Index option EJP : heures de pointe mobile", _IMPORT, tariff="PM",
        family="EJP"),
    *(
        _historic(f"BBR{hours}J{letter}", "Wh", _K.REGISTER, f"{english} register, {day} days, Tempo",
            f"Index option Tempo : {french} jours {jour}", _IMPORT, tariff=f"{hours}J{letter}", family="BBR")
        for letter, day, jour in (("B", "blue", "bleus"), ("W", "white", "blancs"), ("R", "red", "rouges"))
        for hours, english, french in (("HC", "Off-peak", "heures creuses"), ("HP", "Peak", "heures pleines"))
    ),
    _historic("PEJP", "min", _K.NOTICE, "Minutes before the mobile peak, EJP", "Préavis de début EJP (30 minutes)", "Peak.Notice"),
    _historic("PTEC", "", _K.STATE, "Running tariff period", "Période tarifaire en cours"),
    _historic("DEMAIN", "", _K.STATE, "Colour of tomorrow, Tempo", "Couleur du lendemain, Tempo"),
    _historic("IINST", "A", _K.INSTANT, "Current (single phase)", "Intensité instantanée (monophasé)", "Current.Import", "L1"),
    *(
        _historic(f"IINST{n}", "A", _K.INSTANT, f"Current, phase {n}", f"Intensité instantanée, phase {n}", "Current.Import", f"L{n}")
        for n in _PHASES
    ),
    _historic("ADPS", "A", _K.WARNING, "Current while it exceeds the contract (single phase)",
        "Avertissement de dépassement de puissance souscrite (monophasé)", "Current.Overload", "L1"),
    *(
        _historic(f"ADIR{n}", "A", _K.WARNING, f"Current while it exceeds the contract, phase {n}",
            f"Avertissement de dépassement d’intensité de réglage, phase {n}", "Current.Overload", f"L{n}")
        for n in _PHASES
    ),
    _historic("IMAX", "A", _K.MAXIMUM, "Highest current (single phase)", "Intensité maximale appelée (monophasé)", "Max.Current.Import", "L1"),
    *(
        _historic(f"IMAX{n}", "A", _K.MAXIMUM, f"Highest current, phase {n}", f"Intensité maximale appelée, phase {n}", "Max.Current.Import", f"L{n}")
        for n in _PHASES
    ),
    _historic("PMAX", "W", _K.MAXIMUM, "Highest three-phase power of yesterday", "Puissance maximale triphasée atteinte la veille",
        "PreviousDayMax.Power.Active.Import"),
    _historic("PAPP", "VA", _K.INSTANT, "Apparent power, in steps of 10 VA", "Puissance apparente, arrondie à 10 VA", "Power.Apparent.Import"),
    _historic("HHPHC", "", _K.STATE, "Timetable group of peak and off-peak hours", "Groupe horaire heures pleines heures creuses"),
    _historic("MOTDETAT", "", _K.BITS, "Status word of the meter", "Mot d’état du compteur"),
    _historic("PPOT", "", _K.BITS, "Phases without voltage, bits 1 to 3", "Présence des potentiels, bits 1 à 3", "Potential.Missing"),
)
# fmt: on

TABLE: Mapping[str, Label] = MappingProxyType({row.name: row for row in (*_STANDARD_ROWS, *_HISTORIC_ROWS)})
"""Every label by name; no name means two things in the two modes."""

FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {family: tuple(row.name for row in _HISTORIC_ROWS if row.family == family) for family in ("BASE", "HC", "EJP", "BBR")}
)
"""The registers of each tariff option of historic mode; their sum is the total."""


def lookup(name: str, mode: Mode) -> Label:
    """The row of a label; a label that nobody knows is text of that mode (TIC FACTS, end)."""
    return TABLE.get(name) or Label(name, mode, "", Kind.UNKNOWN, "Unknown label", "Étiquette inconnue")
