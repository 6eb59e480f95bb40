"""Every name that a source has for a value has a home in the table: source name -> (measurand, phase, tariff, location)."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.core.errors import InvalidInput
from gridloom.core.measurands import BASE_UNITS, SPELLINGS, TABLE, normalise_unit, obis_code
from gridloom.core.model import Phase

SPECS = Path(__file__).parents[1] / "data" / "specs"

Home = tuple[str, Phase | None, str | None, str | None]
L1, L2, L3, N = Phase.L1, Phase.L2, Phase.L3, Phase.N
PHASES = (L1, L2, L3)

IMPORT = "Energy.Active.Import.Register"
EXPORT = "Energy.Active.Export.Register"


def home(measurand: str, phase: Phase | None = None, tariff: str | None = None, location: str | None = None) -> Home:
    return (measurand, phase, tariff, location)


def per_phase(pattern: str, measurand: str, location: str | None = None) -> dict[str, Home]:
    """``IRMS#`` -> IRMS1 on L1, IRMS2 on L2, IRMS3 on L3."""
    return {pattern.replace("#", str(number)): home(measurand, phase, location=location) for number, phase in enumerate(PHASES, 1)}


# --------------------------------------------------------------------------------------------------------------- Linky TIC

TIC: dict[str, Home] = {
    "EAST": home(IMPORT),
    **{f"EASF{number:02}": home(IMPORT, tariff=f"tariff{number}") for number in range(1, 11)},
    **{f"EASD{number:02}": home(IMPORT, tariff=f"distributor{number}") for number in range(1, 5)},
    "EAIT": home(EXPORT),
    **{f"ERQ{quadrant}": home(f"Energy.Reactive.Q{quadrant}.Register") for quadrant in range(1, 5)},
    **per_phase("IRMS#", "Current.Import"),
    **per_phase("URMS#", "Voltage"),
    "PREF": home("Power.Apparent.Subscribed"),
    "PCOUP": home("Power.Apparent.Breaking"),
    "SINSTS": home("Power.Apparent.Import"),
    **per_phase("SINSTS#", "Power.Apparent.Import"),
    "SMAXSN": home("DayMax.Power.Apparent.Import"),
    **per_phase("SMAXSN#", "DayMax.Power.Apparent.Import"),
    "SMAXSN-1": home("PreviousDayMax.Power.Apparent.Import"),
    **per_phase("SMAXSN#-1", "PreviousDayMax.Power.Apparent.Import"),
    "SINSTI": home("Power.Apparent.Export"),
    "SMAXIN": home("DayMax.Power.Apparent.Export"),
    "SMAXIN-1": home("PreviousDayMax.Power.Apparent.Export"),
    "CCASN": home("Mean.Power.Active.Import"),
    "CCASN-1": home("Mean.Power.Active.Import"),  # the point before, with its own horodate: the same series
    "CCAIN": home("Mean.Power.Active.Export"),
    "CCAIN-1": home("Mean.Power.Active.Export"),
    **per_phase("UMOY#", "Mean.Voltage"),
    "ISOUSC": home("Current.Subscribed"),
    "BASE": home(IMPORT, tariff="TH"),
    "HCHC": home(IMPORT, tariff="HC"),
    "HCHP": home(IMPORT, tariff="HP"),
    "EJPHN": home(IMPORT, tariff="HN"),
    "EJPHPM": home(IMPORT, tariff="PM"),
    "BBRHCJB": home(IMPORT, tariff="HCJB"),
    "BBRHPJB": home(IMPORT, tariff="HPJB"),
    "BBRHCJW": home(IMPORT, tariff="HCJW"),
    "BBRHPJW": home(IMPORT, tariff="HPJW"),
    "BBRHCJR": home(IMPORT, tariff="HCJR"),
    "BBRHPJR": home(IMPORT, tariff="HPJR"),
    "PEJP": home("Peak.Notice"),
    "IINST": home("Current.Import", L1),  # single phase: as in standard mode, which says IRMS1
    **{f"IINST{n}": home("Current.Import", phase) for n, phase in enumerate(PHASES, 1)},
    "ADPS": home("Current.Overload", L1),
    **per_phase("ADIR#", "Current.Overload"),
    "IMAX": home("Max.Current.Import", L1),
    **per_phase("IMAX#", "Max.Current.Import"),
    "PMAX": home("PreviousDayMax.Power.Active.Import"),
    "PAPP": home("Power.Apparent.Import"),
}
# labels of the two modes, or of single and three phases, that are the same series of one meter
TIC_SAME_SERIES = {
    frozenset({"CCASN", "CCASN-1"}),
    frozenset({"CCAIN", "CCAIN-1"}),
    frozenset({"SINSTS", "PAPP"}),
    frozenset({"IRMS1", "IINST", "IINST1"}),
    frozenset({"IRMS2", "IINST2"}),
    frozenset({"IRMS3", "IINST3"}),
    frozenset({"ADPS", "ADIR1"}),
    frozenset({"IMAX", "IMAX1"}),
}


def tic_labels() -> dict[str, str]:
    with (SPECS / "tic_labels.csv").open(encoding="utf-8") as file:
        return {row["label"]: row["unit"] for row in csv.DictReader(file)}


def test_every_tic_label_with_a_unit_has_a_home() -> None:
    with_unit = {label: unit for label, unit in tic_labels().items() if unit}
    assert set(TIC) == set(with_unit)
    for label, unit in with_unit.items():
        assert TABLE[TIC[label][0]].unit == normalise_unit(unit).unit, label


def test_tic_labels_share_a_series_only_where_they_are_the_same_value() -> None:
    labels_of: dict[Home, set[str]] = {}
    for label, where in TIC.items():
        labels_of.setdefault(where, set()).add(label)
    assert {frozenset(labels) for labels in labels_of.values() if len(labels) > 1} == TIC_SAME_SERIES


# --------------------------------------------------------------------------------------------------------------- OS³P

OS3P_STEMS = {
    "AmbientTemperature": "Temperature.Ambient",
    "OilTemperature": "Temperature.Oil",
    "BoardTemperature": "Temperature.Board",
    "Voltage": "Voltage",
    "Current": "Current.Import",
    "PowerFactor": "Power.Factor",
    "ActivePower": "Power.Active.Import",
    "ApparentPower": "Power.Apparent.Import",
    "ReactivePower": "Power.Reactive.Import",
    "RealEnergyConsumed": IMPORT,
    "RealEnergyDelivered": EXPORT,
    "ApparentEnergy": "Energy.Apparent.Import.Register",
    "ReactiveEnergy": "Energy.Reactive.Import.Register",
    "THDv": "THD.Voltage",
    "THDc": "THD.Current",
    "Frequency": "Frequency",
    "Energy.Active.Import.Register": IMPORT,
    "Power.Active.Import": "Power.Active.Import",
    "DayMax.Voltage": "DayMax.Voltage",
    "DayMax.Current": "DayMax.Current.Import",
    "DayMax.ActivePower": "DayMax.Power.Active.Import",
    "DayMax.ReactivePower": "DayMax.Power.Reactive.Import",
    "DayMax.Energy.Active.Import.Register": "DayMax.Energy.Active.Import.Register",
    "DayMin.Voltage": "DayMin.Voltage",
    "DayMin.ActivePower": "DayMin.Power.Active.Import",
    "DayMin.ReactivePower": "DayMin.Power.Reactive.Import",
    "ReactiveEnergyInductive": "Energy.Reactive.Inductive.Register",
    "ReactiveEnergyCapacitive": "Energy.Reactive.Capacitive.Register",
}
OS3P_PHASES = {"L1": L1, "L2": L2, "L3": L3, "L1N": L1, "L2N": L2, "L3N": L3, "N": N, "Sum": None}


def os3p_home(name: str, location: str | None) -> tuple[str, Home]:
    stem, _, last = name.rpartition(".")
    if last in OS3P_PHASES:
        return stem, home(OS3P_STEMS[stem], OS3P_PHASES[last], location=location)
    return name, home(OS3P_STEMS[name], location=location)


def os3p_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((SPECS / "os3p_measurands.json").read_text(encoding="utf-8"))
    return rows


def test_every_os3p_measurand_has_a_home_of_its_own_and_the_right_unit() -> None:
    homes = set()
    for row in os3p_rows():
        stem, where = os3p_home(row["measurand"], row["location"])
        known = TABLE[where[0]]
        assert stem in known.os3p, row
        assert known.unit == normalise_unit(row["unit"] or "-").unit, row
        homes.add(where)
    assert len(homes) == len(os3p_rows()) == 88


def test_the_os3p_column_says_nothing_else() -> None:
    assert {name: row.name for row in TABLE.values() for name in row.os3p} == OS3P_STEMS
    assert {os3p_home(row["measurand"], None)[0] for row in os3p_rows()} == set(OS3P_STEMS)


def test_os3p_enum_of_the_schema_has_a_home() -> None:
    schema = json.loads((SPECS / "os3p_client_initiated.json").read_text(encoding="utf-8"))["MeterValues"]
    sampled = schema["properties"]["meterValue"]["items"]["properties"]["sampledValue"]["items"]["properties"]
    for name in sampled["measurand"]["enum"]:
        assert os3p_home(name, None)[1][0] in TABLE
    for unit in sampled["unit"]["enum"]:
        assert normalise_unit(unit).unit in BASE_UNITS


# --------------------------------------------------------------------------------------------------------------- EKM

# field: (home, the unit it is sent in)
EKM: dict[str, tuple[Home, str]] = {
    "kWh_Tot": (home(IMPORT), "kWh"),
    "Rev_kWh_Tot": (home(EXPORT), "kWh"),
    **{f"kWh_Tariff_{n}": (home(IMPORT, tariff=str(n)), "kWh") for n in range(1, 5)},
    **{f"Rev_kWh_Tariff_{n}": (home(EXPORT, tariff=str(n)), "kWh") for n in range(1, 5)},
    **{f"kWh_Ln_{n}": (home(IMPORT, phase), "kWh") for n, phase in enumerate(PHASES, 1)},
    **{f"Rev_kWh_Ln_{n}": (home(EXPORT, phase), "kWh") for n, phase in enumerate(PHASES, 1)},
    "kWh_Rst": (home("Energy.Active.Import.Resettable"), "kWh"),
    "Rev_kWh_Rst": (home("Energy.Active.Export.Resettable"), "kWh"),
    "Reactive_Energy_Tot": (home("Energy.Reactive.Import.Register"), "kVARh"),
    **{f"RMS_Volts_Ln_{n}": (home("Voltage", phase), "V") for n, phase in enumerate(PHASES, 1)},
    **{f"Amps_Ln_{n}": (home("Current.Import", phase), "Amps") for n, phase in enumerate(PHASES, 1)},
    **{f"RMS_Watts_Ln_{n}": (home("Power.Active.Import", phase), "W") for n, phase in enumerate(PHASES, 1)},
    "RMS_Watts_Tot": (home("Power.Active.Import"), "W"),
    **{f"Cos_Theta_Ln_{n}": (home("Power.Factor", phase), "1") for n, phase in enumerate(PHASES, 1)},
    **{f"Reactive_Pwr_Ln_{n}": (home("Power.Reactive.Import", phase), "VAR") for n, phase in enumerate(PHASES, 1)},
    "Reactive_Pwr_Tot": (home("Power.Reactive.Import"), "VAR"),
    "Line_Freq": (home("Frequency"), "Hz"),
    "RMS_Watts_Max_Demand": (home("MaxDemand.Power.Active.Import"), "W"),
    "Max_Demand_Period": (home("Demand.Period"), "min"),
    "Max_Demand_Rst": (home("Demand.Reset.Interval"), "1"),
    "CT_Ratio": (home("CT.Ratio"), "1"),
    "CF_Ratio": (home("Pulse.Output.Ratio"), "1"),
    "kWh_Scale": (home("Energy.Scale"), "1"),
    **{f"Pulse_Cnt_{n}": (home("Pulse.Count", location=f"input:{n}"), "1") for n in range(1, 4)},
    **{f"Pulse_Ratio_{n}": (home("Pulse.Ratio", location=f"input:{n}"), "1") for n in range(1, 4)},
    "State_Inputs": (home("Input.State", location="input:1"), "1"),  # one field, a bit per input
    "State_Out": (home("Relay.State", location="relay:1"), "1"),  # likewise
    "State_Watts_Dir": (home("Power.Direction", L1), "1"),  # likewise, per phase
}
# what the ioStack says (FACTS 9); a name of ours, the wire is not public
IOSTACK: dict[str, Home] = {
    "digital_inputs.level": home("Level.Digital", location="digital_input:1"),
    "digital_inputs.count": home("Pulse.Count", location="digital_input:1"),
    "digital_outputs.level": home("Level.Digital", location="digital_output:1"),
    "analog_inputs.volts": home("Voltage.Analog", location="analog_input:1"),
    "devices.celsius": home("Temperature", location="one_wire:28FF"),
}


def ekm_fields() -> dict[str, str]:
    with (SPECS / "ekm_frames.csv").open(encoding="utf-8") as file:
        return {row["field"]: row["type"] for row in csv.DictReader(file)}


def test_the_ekm_frames_are_whole() -> None:
    with (SPECS / "ekm_frames.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for frame in ("V3", "V4-A", "V4-B"):
        assert sum(int(row["length"]) for row in rows if row["frame"] == frame) == 255


def test_every_numeric_ekm_field_has_a_home() -> None:
    numeric = {field for field, kind in ekm_fields().items() if kind in ("float", "int", "pf")}
    assert set(EKM) == numeric
    for where, unit in EKM.values():
        assert TABLE[where[0]].unit == normalise_unit(unit).unit
    assert len({where for where, _ in EKM.values()}) == len(EKM)


def test_what_an_iostack_says_has_a_home() -> None:
    assert all(where[0] in TABLE for where in IOSTACK.values())
    assert len(set(IOSTACK.values())) == len(IOSTACK)


# --------------------------------------------------------------------------------------------------------------- EVerest

EVEREST_PHASES = {"total": None, "L1": L1, "L2": L2, "L3": L3, "N": N}


def parts(member: str, measurand: str, *names: str) -> dict[str, Home]:
    return {f"{member}.{name}": home(measurand, EVEREST_PHASES[name]) for name in names}


EVEREST: dict[str, Home] = {
    **parts("energy_Wh_import", IMPORT, "total", "L1", "L2", "L3"),
    **parts("energy_Wh_export", EXPORT, "total", "L1", "L2", "L3"),
    **parts("power_W", "Power.Active.Import", "total", "L1", "L2", "L3"),  # below 0: Power.Active.Export
    **parts("VAR", "Power.Reactive.Import", "total", "L1", "L2", "L3"),  # below 0: Power.Reactive.Export
    **parts("voltage_V", "Voltage", "L1", "L2", "L3"),
    **parts("current_A", "Current.Import", "L1", "L2", "L3", "N"),
    **parts("frequency_Hz", "Frequency", "L1", "L2", "L3"),
    "voltage_V.DC": home("Voltage.DC"),
    "current_A.DC": home("Current.DC"),
    "temperatures.temperature": home("Temperature", location="sensor"),
    "phase_seq_error": home("Phase.Sequence.Error"),
}
EVEREST_TEXT = {"timestamp", "meter_id", "temperatures.identification", "temperatures.location"}


def test_every_member_of_everest_powermeter_has_a_home() -> None:
    members: dict[str, Any] = json.loads((SPECS / "everest_powermeter.json").read_text(encoding="utf-8"))
    plain = {name: inner for name, inner in members.items() if not name.endswith("_signed") and name != "signed_meter_value"}
    names = {f"{name}.{part}" for name, inner in plain.items() if isinstance(inner, list) for part in inner}
    names |= {name for name, inner in plain.items() if isinstance(inner, str)}
    assert set(EVEREST) == names - EVEREST_TEXT
    assert all(where[0] in TABLE for where in EVEREST.values())
    assert len(set(EVEREST.values())) == len(EVEREST)
    units = {"Wh": "Wh", "W": "W", "V": "V", "A": "A", "Hz": "Hz", "VAR": "var"}
    for name, where in EVEREST.items():
        unit = name.partition(".")[0].replace("_import", "").replace("_export", "").rpartition("_")[2]
        if unit in units:
            assert TABLE[where[0]].unit == units[unit], name


def test_a_signed_member_is_a_value_that_has_a_home() -> None:
    members: dict[str, Any] = json.loads((SPECS / "everest_powermeter.json").read_text(encoding="utf-8"))
    for name, inner in members.items():
        if name.endswith("_signed"):
            assert {f"{name.removesuffix('_signed')}.{part}" for part in inner} <= set(EVEREST)


# --------------------------------------------------------------------------------------------------------------- OCPP 1.6

OCPP = {
    "Current.Export": "A",
    "Current.Import": "A",
    "Current.Offered": "A",
    "Energy.Active.Export.Register": "Wh",
    "Energy.Active.Import.Register": "Wh",
    "Energy.Reactive.Export.Register": "varh",
    "Energy.Reactive.Import.Register": "varh",
    "Energy.Active.Export.Interval": "Wh",
    "Energy.Active.Import.Interval": "Wh",
    "Energy.Reactive.Export.Interval": "varh",
    "Energy.Reactive.Import.Interval": "varh",
    "Frequency": "Hz",
    "Power.Active.Export": "W",
    "Power.Active.Import": "W",
    "Power.Factor": "1",
    "Power.Offered": "W",
    "Power.Reactive.Export": "var",
    "Power.Reactive.Import": "var",
    "RPM": "1",
    "SoC": "%",
    "Temperature": "°C",
    "Voltage": "V",
}
OCPP_UNITS = ("Wh", "kWh", "varh", "kvarh", "W", "kW", "VA", "kVA", "var", "kvar", "A", "V", "Celsius", "Celcius", "Fahrenheit", "K", "Percent")


def test_ocpp_measurands_have_their_own_names() -> None:
    assert {row.ocpp: row.unit for row in TABLE.values() if row.ocpp} == OCPP
    assert all(row.ocpp in (None, row.name) for row in TABLE.values())


@pytest.mark.parametrize("unit", OCPP_UNITS)
def test_ocpp_units_are_understood(unit: str) -> None:
    assert normalise_unit(unit).unit in BASE_UNITS


# --------------------------------------------------------------------------------------------------------------- the table itself


def test_rows_are_complete() -> None:
    for name, row in TABLE.items():
        assert name == row.name
        assert row.unit in BASE_UNITS, name
        assert row.meaning.endswith("."), name
    codes = [row.obis for row in TABLE.values() if row.obis]
    assert len(codes) == len(set(codes))


def test_registers_are_energies_and_counters() -> None:
    for row in TABLE.values():
        assert row.register == (row.name == "Pulse.Count" or (row.name.startswith("Energy.") and row.name.endswith((".Register", ".Resettable")))), (
            row.name
        )


def test_no_row_can_be_changed() -> None:
    with pytest.raises(AttributeError):
        TABLE["Voltage"].unit = "kV"  # type: ignore[misc]
    with pytest.raises(TypeError):
        TABLE["x"] = TABLE["Voltage"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("measurand", "phase", "tariff", "code"),
    [
        (IMPORT, None, None, "1-0:1.8.0"),
        (IMPORT, None, 4, "1-0:1.8.4"),
        (IMPORT, L1, None, "1-0:21.8.0"),
        (EXPORT, L3, None, "1-0:62.8.0"),
        ("Voltage", L1, None, "1-0:32.7.0"),
        ("Voltage", L2, None, "1-0:52.7.0"),
        ("Voltage", L3, None, "1-0:72.7.0"),
        ("Current.Import", L1, None, "1-0:31.7.0"),
        ("Current.Import", N, None, "1-0:91.7.0"),
        ("Power.Active.Import", L2, None, "1-0:41.7.0"),
        ("Power.Active.Import", N, None, None),
        ("Voltage", Phase.L1_L2, None, None),
        ("SoC", None, None, None),
        ("no such thing", None, None, None),
    ],
)
def test_obis_codes_of_phases_and_tariffs(measurand: str, phase: Phase | None, tariff: int | None, code: str | None) -> None:
    assert obis_code(measurand, phase, tariff) == code


# --------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("spelling", "value", "unit", "base"),
    [
        ("kWh", "652", "Wh", "652000"),
        ("kwh", "0.001", "Wh", "1.000"),
        ("kW", "1.5", "W", "1500.0"),
        ("kVA", "6", "VA", "6000"),
        ("kvar", "2", "var", "2000"),
        ("kVARh", "2", "varh", "2000"),
        ("VAR", "7", "var", "7"),
        ("MWh", "1", "Wh", "1000000"),
        ("mW", "1", "W", "0.001"),
        ("MW", "1", "W", "1000000"),
        ("K", "300", "°C", "26.85"),
        ("C", "21.5", "°C", "21.5"),
        ("Celsius", "21.5", "°C", "21.5"),
        ("CELSIUS", "21.5", "°C", "21.5"),
        ("Cel", "21.5", "°C", "21.5"),
        ("Fahrenheit", "212", "°C", "100"),
        ("Amp", "12", "A", "12"),
        ("Amps", "12", "A", "12"),
        ("amps", "12", "A", "12"),
        (" A ", "12", "A", "12"),
        ("min", "30", "s", "1800"),
        ("Percent", "50", "%", "50"),
        ("-", "0.97", "1", "0.97"),
    ],
)
def test_units_become_base_units_exactly(spelling: str, value: str, unit: str, base: str) -> None:
    conversion = normalise_unit(spelling)
    assert conversion.unit == unit
    assert conversion.apply(Decimal(value)) == Decimal(base)


@pytest.mark.parametrize("spelling", ["", "  ", "furlong", "mw", "MWH.", "kilo", "\x00"])
def test_an_unknown_or_ambiguous_unit_is_refused(spelling: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        normalise_unit(spelling)
    assert [fault.path for fault in refused.value.faults] == ["$.unit"]


def test_a_unit_that_letter_case_would_decide_is_refused() -> None:
    assert normalise_unit("mWh").factor * 1_000_000_000 == normalise_unit("MWh").factor
    for ambiguous in ("mwh", "Mwh", "MVARH"):
        with pytest.raises(InvalidInput):
            normalise_unit(ambiguous)


@given(st.sampled_from(sorted(SPELLINGS)), st.integers(-(10**15), 10**15), st.integers(0, 9))
def test_conversion_is_exact_and_keeps_order(spelling: str, number: int, places: int) -> None:
    conversion = normalise_unit(spelling)
    assert conversion.unit in BASE_UNITS
    value = Decimal(number).scaleb(-places)
    if conversion.divisor == 1:
        assert conversion.apply(value) / conversion.factor - conversion.offset == value
    assert conversion.apply(value) < conversion.apply(value + 1)
