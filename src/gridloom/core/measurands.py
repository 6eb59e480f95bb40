"""What a number can mean: one row per measurand, with base unit, OBIS code and the names other systems have for it.

Names are OCPP 1.6's where it has one (``Energy.Active.Import.Register``), else made in its style. A measurand says neither phase nor
tariff nor place: those are members of ``model.ReadingType`` of their own, so that ``Voltage`` on ``L2`` is the measurand ``Voltage``.

Prefixes: ``DayMax``, ``DayMin`` are of the running day of the device, ``PreviousDayMax`` of the day before, ``Max`` and ``MaxDemand`` since
the device was reset, ``Mean`` over the device's own averaging period. All values are in base units; import and export are both positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from gridloom.core import faults
from gridloom.core.errors import FieldFault, InvalidInput
from gridloom.core.model import Phase

BASE_UNITS = frozenset({"W", "Wh", "V", "A", "VA", "VAh", "var", "varh", "Hz", "°C", "%", "s", "1"})
"""Every unit a stored reading can have; ``1`` is a ratio, a count or a state."""


class Measurand(msgspec.Struct, frozen=True):
    """One row. ``unit`` is one of BASE_UNITS. ``register``: cumulative, so that the difference of two readings is a quantity.

    ``obis`` is the code A-B:C.D.E of the total (phases and tariff registers: ``obis_code``), None where there is none.
    ``ocpp`` is OCPP 1.6's name, None where it has none; ``os3p`` are OS³P's names without their phase, () where it has none.
    """

    name: str
    unit: str
    register: bool
    obis: str | None
    ocpp: str | None
    os3p: tuple[str, ...]
    meaning: str
    clause: str


def _value(name: str, unit: str, obis: str, ocpp: str, os3p: str, meaning: str, clause: str = "") -> Measurand:
    return Measurand(name, unit, False, obis or None, name if ocpp else None, tuple(os3p.split()), meaning, clause)


def _register(name: str, unit: str, obis: str, ocpp: str, os3p: str, meaning: str, clause: str = "") -> Measurand:
    return Measurand(name, unit, True, obis or None, name if ocpp else None, tuple(os3p.split()), meaning, clause)


# The columns: name, unit, OBIS, "ocpp" if OCPP 1.6 has it by this very name, OS³P's names, meaning, clause.
# fmt: off
_ROWS = (
    # energy
    _register("Energy.Active.Import.Register",      "Wh",   "1-0:1.8.0",  "ocpp", "RealEnergyConsumed Energy.Active.Import.Register",
        "Active energy taken from the grid.", "TIC EAST, EASFnn, BASE…; EKM kWh_*; EVerest energy_Wh_import; OS³P A6.5"),
    _register("Energy.Active.Export.Register",      "Wh",   "1-0:2.8.0",  "ocpp", "RealEnergyDelivered",
        "Active energy given to the grid.", "TIC EAIT; EKM Rev_kWh_*; EVerest energy_Wh_export; OS³P A6.5"),
    _register("Energy.Reactive.Import.Register",    "varh", "1-0:3.8.0",  "ocpp", "ReactiveEnergy",
        "Reactive energy taken from the grid.", "EKM Reactive_Energy_Tot; OS³P A6.5"),
    _register("Energy.Reactive.Export.Register",    "varh", "1-0:4.8.0",  "ocpp", "", "Reactive energy given to the grid.", "OCPP Measurand"),
    _register("Energy.Reactive.Q1.Register",        "varh", "1-0:5.8.0",  "",     "", "Reactive energy, quadrant 1.", "TIC ERQ1"),
    _register("Energy.Reactive.Q2.Register",        "varh", "1-0:6.8.0",  "",     "", "Reactive energy, quadrant 2.", "TIC ERQ2"),
    _register("Energy.Reactive.Q3.Register",        "varh", "1-0:7.8.0",  "",     "", "Reactive energy, quadrant 3.", "TIC ERQ3"),
    _register("Energy.Reactive.Q4.Register",        "varh", "1-0:8.8.0",  "",     "", "Reactive energy, quadrant 4.", "TIC ERQ4"),
    _register("Energy.Reactive.Inductive.Register", "varh", "",           "",     "ReactiveEnergyInductive",
        "Reactive energy, inductive (no longer used by OS³P).", "OS³P A6.5 table 2"),
    _register("Energy.Reactive.Capacitive.Register", "varh", "",          "",     "ReactiveEnergyCapacitive",
        "Reactive energy, capacitive (no longer used by OS³P).", "OS³P A6.5 table 2"),
    _register("Energy.Apparent.Import.Register",    "VAh",  "1-0:9.8.0",  "",     "ApparentEnergy",
        "Apparent energy taken from the grid.", "OS³P A6.5"),
    _register("Energy.Apparent.Export.Register",    "VAh",  "1-0:10.8.0", "",     "", "Apparent energy given to the grid."),
    _register("Energy.Active.Import.Resettable",    "Wh",   "",           "",     "", "Active energy taken since somebody zeroed it.", "EKM kWh_Rst"),
    _register("Energy.Active.Export.Resettable",    "Wh",   "",           "",     "",
        "Active energy given since somebody zeroed it.", "EKM Rev_kWh_Rst"),
    _register("Energy.Active.Loss.Register",        "Wh",   "",           "",     "",
        "Active energy lost in the cable since the transaction began.", "OCMF CL"),
    _value("Energy.Active.Import.Interval",         "Wh",   "",           "ocpp", "", "Active energy taken in the interval.", "OCPP Measurand"),
    _value("Energy.Active.Export.Interval",         "Wh",   "",           "ocpp", "", "Active energy given in the interval.", "OCPP Measurand"),
    _value("Energy.Reactive.Import.Interval",       "varh", "",           "ocpp", "", "Reactive energy taken in the interval.", "OCPP Measurand"),
    _value("Energy.Reactive.Export.Interval",       "varh", "",           "ocpp", "", "Reactive energy given in the interval.", "OCPP Measurand"),
    _value("DayMax.Energy.Active.Import.Register",  "Wh",   "",           "",     "DayMax.Energy.Active.Import.Register",
        "Active energy taken during the day; starts again each day.", "OS³P A6.5"),

    # power
    _value("Power.Active.Import",                   "W",    "1-0:1.7.0",  "ocpp", "ActivePower Power.Active.Import",
        "Active power taken from the grid.", "EKM RMS_Watts_*; EVerest power_W; OS³P A6.5"),
    _value("Power.Active.Export",                   "W",    "1-0:2.7.0",  "ocpp", "",
        "Active power given to the grid.", "EKM State_Watts_Dir; EVerest power_W below 0"),
    _value("Power.Reactive.Import",                 "var",  "1-0:3.7.0",  "ocpp", "ReactivePower",
        "Reactive power taken from the grid.", "EKM Reactive_Pwr_*; EVerest VAR; OS³P A6.5"),
    _value("Power.Reactive.Export",                 "var",  "1-0:4.7.0",  "ocpp", "", "Reactive power given to the grid.", "EVerest VAR below 0"),
    _value("Power.Apparent.Import",                 "VA",   "1-0:9.7.0",  "",     "ApparentPower",
        "Apparent power taken.", "TIC PAPP, SINSTS; OS³P A6.5"),
    _value("Power.Apparent.Export",                 "VA",   "1-0:10.7.0", "",     "", "Apparent power given.", "TIC SINSTI"),
    _value("Power.Factor",                          "1",    "1-0:13.7.0", "ocpp", "PowerFactor",
        "Power factor, cos φ.", "EKM Cos_Theta_*; OS³P A6.5"),
    _value("Power.Offered",                         "W",    "",           "ocpp", "", "The most power offered to the car.", "OCPP Measurand"),
    _value("Power.Apparent.Subscribed",             "VA",   "",           "",     "", "Apparent power of the contract.", "TIC PREF"),
    _value("Power.Apparent.Breaking",               "VA",   "",           "",     "",
        "Apparent power above which the breaking device opens.", "TIC PCOUP"),
    _value("Power.Direction",                       "1",    "",           "",     "",
        "1 while energy is taken, -1 while it is given.", "EKM State_Watts_Dir; STGE 9"),
    _value("Mean.Power.Active.Import",              "W",    "1-0:1.5.0",  "",     "", "Point of the load curve, taken.", "TIC CCASN, CCASN-1"),
    _value("Mean.Power.Active.Export",              "W",    "1-0:2.5.0",  "",     "", "Point of the load curve, given.", "TIC CCAIN, CCAIN-1"),
    _value("MaxDemand.Power.Active.Import",         "W",    "1-0:1.6.0",  "",     "",
        "Highest mean power of a demand period.", "EKM RMS_Watts_Max_Demand"),
    _value("DayMax.Power.Active.Import",            "W",    "",           "",     "DayMax.ActivePower",
        "Highest active power of the day.", "OS³P A6.5"),
    _value("DayMin.Power.Active.Import",            "W",    "",           "",     "DayMin.ActivePower",
        "Lowest active power of the day.", "OS³P A6.5"),
    _value("DayMax.Power.Reactive.Import",          "var",  "",           "",     "DayMax.ReactivePower",
        "Highest reactive power of the day.", "OS³P A6.5"),
    _value("DayMin.Power.Reactive.Import",          "var",  "",           "",     "DayMin.ReactivePower",
        "Lowest reactive power of the day.", "OS³P A6.5"),
    _value("DayMax.Power.Apparent.Import",          "VA",   "",           "",     "", "Highest apparent power taken today.", "TIC SMAXSN"),
    _value("DayMax.Power.Apparent.Export",          "VA",   "",           "",     "", "Highest apparent power given today.", "TIC SMAXIN"),
    _value("PreviousDayMax.Power.Active.Import",    "W",    "",           "",     "", "Highest active power of yesterday.", "TIC PMAX"),
    _value("PreviousDayMax.Power.Apparent.Import",  "VA",   "",           "",     "", "Highest apparent power taken yesterday.", "TIC SMAXSN-1"),
    _value("PreviousDayMax.Power.Apparent.Export",  "VA",   "",           "",     "", "Highest apparent power given yesterday.", "TIC SMAXIN-1"),

    # current
    _value("Current.Import",                        "A",    "1-0:11.7.0", "ocpp", "Current",
        "Current; without a phase the sum of the phases.", "TIC IINST, IRMS1-3; EKM Amps_*; EVerest current_A; OS³P A6.5"),
    _value("Current.Export",                        "A",    "",           "ocpp", "", "Current towards the grid.", "OCPP Measurand"),
    _value("Current.Offered",                       "A",    "",           "ocpp", "", "The most current offered to the car.", "OCPP Measurand"),
    _value("Current.DC",                            "A",    "",           "",     "", "Direct current.", "EVerest current_A.DC"),
    _value("Current.Subscribed",                    "A",    "",           "",     "", "Current of the contract.", "TIC ISOUSC"),
    _value("Current.Overload",                      "A",    "",           "",     "",
        "Current while it exceeds the subscribed one.", "TIC ADPS, ADIR1-3"),
    _value("Max.Current.Import",                    "A",    "1-0:11.6.0", "",     "",
        "Highest current since the meter was reset.", "TIC IMAX, IMAX1-3"),
    _value("DayMax.Current.Import",                 "A",    "",           "",     "DayMax.Current", "Highest current of the day.", "OS³P A6.5"),

    # voltage, quality
    _value("Voltage",                               "V",    "1-0:12.7.0", "ocpp", "Voltage",
        "Voltage of a phase against neutral, or between two phases.", "TIC URMS1-3; EKM RMS_Volts_*; EVerest voltage_V; OS³P A6.5"),
    _value("Voltage.DC",                            "V",    "",           "",     "", "Direct voltage.", "EVerest voltage_V.DC"),
    _value("Voltage.Analog",                        "V",    "",           "",     "", "Voltage at an analog input.", "EKM FACTS 9 analog_inputs"),
    _value("Mean.Voltage",                          "V",    "1-0:12.5.0", "",     "", "Mean voltage of the meter's period.", "TIC UMOY1-3"),
    _value("DayMax.Voltage",                        "V",    "",           "",     "DayMax.Voltage", "Highest voltage of the day.", "OS³P A6.5"),
    _value("DayMin.Voltage",                        "V",    "",           "",     "DayMin.Voltage", "Lowest voltage of the day.", "OS³P A6.5"),
    _value("THD.Voltage",                           "%",    "",           "",     "THDv", "Total harmonic distortion of the voltage.", "OS³P A6.5"),
    _value("THD.Current",                           "%",    "",           "",     "THDc", "Total harmonic distortion of the current.", "OS³P A6.5"),
    _value("Frequency",                             "Hz",   "1-0:14.7.0", "ocpp", "Frequency",
        "Frequency.", "EKM Line_Freq; EVerest frequency_Hz; OS³P A6.5"),
    _value("Phase.Sequence.Error",                  "1",    "",           "",     "",
        "1 while the phases turn the wrong way.", "EVerest phase_seq_error"),
    _value("Potential.Missing",                     "1",    "",           "",     "", "1 while a phase has no voltage.", "TIC PPOT"),

    # temperature, car, charger
    _value("Temperature",                           "°C",   "",           "ocpp", "",
        "Temperature of what the location names.", "EVerest temperatures; EKM FACTS 9 celsius"),
    _value("Temperature.Ambient",                   "°C",   "",           "",     "AmbientTemperature",
        "Temperature of the air around.", "OS³P A6.5"),
    _value("Temperature.Oil",                       "°C",   "",           "",     "OilTemperature",
        "Temperature of the transformer's oil.", "OS³P A6.5"),
    _value("Temperature.Board",                     "°C",   "",           "",     "BoardTemperature",
        "Temperature of the device's board.", "OS³P A6.5"),
    _value("SoC",                                   "%",    "",           "ocpp", "", "State of charge of the car.", "OCPP Measurand"),
    _value("RPM",                                   "1",    "",           "ocpp", "", "Speed of a fan, revolutions per minute.", "OCPP Measurand"),

    # counters, states, settings that are numbers
    _register("Pulse.Count",                        "1",    "",           "",     "",
        "Pulses counted at an input.", "EKM Pulse_Cnt_1-3, ResetDICount"),
    _value("Pulse.Ratio",                           "1",    "",           "",     "",
        "Pulses per unit of what is counted at an input.", "EKM Pulse_Ratio_1-3"),
    _value("Pulse.Output.Ratio",                    "1",    "",           "",     "", "Pulses per kWh of an output.", "EKM CF_Ratio"),
    _value("CT.Ratio",                              "1",    "",           "",     "",
        "Amperes on the primary side of the current transformer.", "EKM CT_Ratio"),
    _value("Energy.Scale",                          "1",    "",           "",     "",
        "How many decimals the energy registers have.", "EKM kWh_Scale"),
    _value("Demand.Period",                         "s",    "",           "",     "", "Over how long demand is averaged.", "EKM Max_Demand_Period"),
    _value("Demand.Reset.Interval",                 "1",    "",           "",     "",
        "When demand is reset: 0 never, 1 month, 2 week, 3 day, 4 hour.", "EKM Max_Demand_Rst"),
    _value("Tariff.Register",                       "1",    "",           "",     "",
        "Number of the running tariff register.", "TIC NTARF; STGE 10-13"),
    _value("Tariff.Running",                        "1",    "",           "",     "",
        "Name of the running tariff register, as text; told when it changes.", "TIC PTEC, NTARF"),
    _value("Peak.Notice",                           "s",    "",           "",     "", "Time until the mobile peak.", "TIC PEJP"),
    _value("Relay.State",                           "1",    "",           "",     "",
        "1 while a relay or output is closed or on.", "TIC RELAIS; EKM State_Out"),
    _value("Input.State",                           "1",    "",           "",     "", "1 while a contact input is closed.", "EKM State_Inputs"),
    _value("Level.Digital",                         "1",    "",           "",     "",
        "Level of a digital pin, 0 or 1.", "EKM FACTS 9 digital_inputs, SetDOLevel"),
    _value("Contactor.State",                       "1",    "",           "",     "", "1 while a contactor is on.", "OS³P A6.8"),
)
# fmt: on

TABLE: Mapping[str, Measurand] = MappingProxyType({row.name: row for row in _ROWS})
"""Every measurand by name, in the order of this file."""

_PHASE_GROUP: Mapping[Phase | None, int] = MappingProxyType({None: 0, Phase.L1: 20, Phase.L2: 40, Phase.L3: 60, Phase.N: 80})


def obis_code(measurand: str, phase: Phase | None = None, tariff: int | None = None) -> str | None:
    """The OBIS code of a measurand on a phase and in a tariff register (1 to 63), e.g. ``1-0:32.7.0`` for the voltage of L1; None if it has none."""
    row = TABLE.get(measurand)
    if row is None or row.obis is None or phase not in _PHASE_GROUP:
        return None
    medium, _, rest = row.obis.partition(":")
    quantity, kind, register = (int(part) for part in rest.split("."))
    if phase is Phase.N and quantity not in (11, 12):  # only current and voltage are measured in the neutral conductor
        return None
    return f"{medium}:{quantity + _PHASE_GROUP[phase]}.{kind}.{register if tariff is None else tariff}"


# ----------------------------------------------------------------------------------------------------------------- units


class Conversion(NamedTuple):
    """How a unit becomes a base unit: ``base = (value + offset) * factor / divisor``, exact as long as ``divisor`` is 1."""

    unit: str
    factor: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    divisor: Decimal = Decimal(1)

    def apply(self, value: Decimal | int) -> Decimal:
        """The value in the base unit."""
        result = (value + self.offset) * self.factor
        return result if self.divisor == 1 else result / self.divisor


_KILO, _MEGA, _MILLI = Decimal(1_000), Decimal(1_000_000), Decimal("0.001")

_PREFIXED = ("W", "Wh", "VA", "VAh", "var", "varh", "V", "A", "Hz")

SPELLINGS: Mapping[str, Conversion] = MappingProxyType(
    {
        **{
            prefix + unit: Conversion(unit, factor)
            for unit in _PREFIXED
            for prefix, factor in (("", Decimal(1)), ("k", _KILO), ("M", _MEGA), ("m", _MILLI))
        },
        **{word: Conversion("A") for word in ("Amp", "Amps", "Ampere", "Amperes")},
        **{word: Conversion("V") for word in ("Volt", "Volts")},
        **{word: Conversion("W") for word in ("Watt", "Watts")},
        "Hertz": Conversion("Hz"),
        # Celcius: so spelled in the first edition of OCPP 1.6 and in chargers since
        **{word: Conversion("°C") for word in ("°C", "C", "Cel", "Celsius", "Celcius", "degC")},
        **{word: Conversion("°C", offset=Decimal("-273.15")) for word in ("K", "Kelvin")},
        **{word: Conversion("°C", Decimal(5), Decimal(-32), Decimal(9)) for word in ("°F", "F", "Fahrenheit", "degF")},
        **{word: Conversion("%") for word in ("%", "Percent")},
        **{word: Conversion("s") for word in ("s", "sec", "second", "seconds")},
        "ms": Conversion("s", _MILLI),
        **{word: Conversion("s", Decimal(60)) for word in ("min", "minute", "minutes")},
        **{word: Conversion("s", Decimal(3_600)) for word in ("h", "hour", "hours")},
        **{word: Conversion("1") for word in ("1", "-", "none")},
    }
)
"""Every exact spelling that ``normalise_unit`` knows."""


def _folded() -> dict[str, Conversion]:
    """Spellings in lower case, without those that would mean two things (``mW`` and ``MW``)."""
    meanings: dict[str, set[Conversion]] = {}
    for spelling, conversion in SPELLINGS.items():
        meanings.setdefault(spelling.lower(), set()).add(conversion)
    return {spelling: one.pop() for spelling, one in meanings.items() if len(one) == 1}


_FOLDED = MappingProxyType(_folded())


def normalise_unit(unit: str) -> Conversion:
    """The base unit of a spelling and how to convert to it; exact spelling first, then in any letter case (``KWH``, ``kvarH``).

    Raises InvalidInput for an unknown spelling, also for the empty one (whoever knows the source takes its document's unit), and for
    one that letter case would decide (``mw``: milli or mega).
    """
    text = unit.strip()
    found = SPELLINGS.get(text) or _FOLDED.get(text.lower())
    if found is None:
        near = faults.nearest(text, SPELLINGS) if text else ""
        reason = f"{text[:20]!r} is no unit that is known here{near}"
        raise InvalidInput(reason, (FieldFault("$.unit", reason),))
    return found
