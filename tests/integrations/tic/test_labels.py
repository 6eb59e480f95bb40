"""The table of labels against the project's list, and against the hub's own words."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from gridloom.core.measurands import TABLE as MEASURANDS
from gridloom.core.measurands import normalise_unit
from gridloom.core.model import Phase
from gridloom.integrations.tic.labels import FAMILIES, TABLE, Kind, Label, Mode, lookup

SPECS = Path(__file__).parents[2] / "data" / "specs"


def rows() -> list[dict[str, str]]:
    with (SPECS / "tic_labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


# What each label with a unit means, written down here a second time: (measurand, phase, tariff register).
IMPORT = "Energy.Active.Import.Register"
MEANING: dict[str, tuple[str, str | None, str | None]] = {
    "EAST": (IMPORT, None, None),
    "EASF01": (IMPORT, None, "tariff1"),
    "EASF02": (IMPORT, None, "tariff2"),
    "EASF03": (IMPORT, None, "tariff3"),
    "EASF04": (IMPORT, None, "tariff4"),
    "EASF05": (IMPORT, None, "tariff5"),
    "EASF06": (IMPORT, None, "tariff6"),
    "EASF07": (IMPORT, None, "tariff7"),
    "EASF08": (IMPORT, None, "tariff8"),
    "EASF09": (IMPORT, None, "tariff9"),
    "EASF10": (IMPORT, None, "tariff10"),
    "EASD01": (IMPORT, None, "distributor1"),
    "EASD02": (IMPORT, None, "distributor2"),
    "EASD03": (IMPORT, None, "distributor3"),
    "EASD04": (IMPORT, None, "distributor4"),
    "EAIT": ("Energy.Active.Export.Register", None, None),
    "ERQ1": ("Energy.Reactive.Q1.Register", None, None),
    "ERQ2": ("Energy.Reactive.Q2.Register", None, None),
    "ERQ3": ("Energy.Reactive.Q3.Register", None, None),
    "ERQ4": ("Energy.Reactive.Q4.Register", None, None),
    "IRMS1": ("Current.Import", "L1", None),
    "IRMS2": ("Current.Import", "L2", None),
    "IRMS3": ("Current.Import", "L3", None),
    "URMS1": ("Voltage", "L1", None),
    "URMS2": ("Voltage", "L2", None),
    "URMS3": ("Voltage", "L3", None),
    "PREF": ("Power.Apparent.Subscribed", None, None),
    "PCOUP": ("Power.Apparent.Breaking", None, None),
    "SINSTS": ("Power.Apparent.Import", None, None),
    "SINSTS1": ("Power.Apparent.Import", "L1", None),
    "SINSTS2": ("Power.Apparent.Import", "L2", None),
    "SINSTS3": ("Power.Apparent.Import", "L3", None),
    "SMAXSN": ("DayMax.Power.Apparent.Import", None, None),
    "SMAXSN1": ("DayMax.Power.Apparent.Import", "L1", None),
    "SMAXSN2": ("DayMax.Power.Apparent.Import", "L2", None),
    "SMAXSN3": ("DayMax.Power.Apparent.Import", "L3", None),
    "SMAXSN-1": ("PreviousDayMax.Power.Apparent.Import", None, None),
    "SMAXSN1-1": ("PreviousDayMax.Power.Apparent.Import", "L1", None),
    "SMAXSN2-1": ("PreviousDayMax.Power.Apparent.Import", "L2", None),
    "SMAXSN3-1": ("PreviousDayMax.Power.Apparent.Import", "L3", None),
    "SINSTI": ("Power.Apparent.Export", None, None),
    "SMAXIN": ("DayMax.Power.Apparent.Export", None, None),
    "SMAXIN-1": ("PreviousDayMax.Power.Apparent.Export", None, None),
    "CCASN": ("Mean.Power.Active.Import", None, None),
    "CCASN-1": ("Mean.Power.Active.Import", None, None),
    "CCAIN": ("Mean.Power.Active.Export", None, None),
    "CCAIN-1": ("Mean.Power.Active.Export", None, None),
    "UMOY1": ("Mean.Voltage", "L1", None),
    "UMOY2": ("Mean.Voltage", "L2", None),
    "UMOY3": ("Mean.Voltage", "L3", None),
    "ISOUSC": ("Current.Subscribed", None, None),
    "BASE": (IMPORT, None, "TH"),
    "HCHC": (IMPORT, None, "HC"),
    "HCHP": (IMPORT, None, "HP"),
    "EJPHN": (IMPORT, None, "HN"),
    "EJPHPM": (IMPORT, None, "PM"),
    "BBRHCJB": (IMPORT, None, "HCJB"),
    "BBRHPJB": (IMPORT, None, "HPJB"),
    "BBRHCJW": (IMPORT, None, "HCJW"),
    "BBRHPJW": (IMPORT, None, "HPJW"),
    "BBRHCJR": (IMPORT, None, "HCJR"),
    "BBRHPJR": (IMPORT, None, "HPJR"),
    "PEJP": ("Peak.Notice", None, None),
    "IINST": ("Current.Import", "L1", None),
    "IINST1": ("Current.Import", "L1", None),
    "IINST2": ("Current.Import", "L2", None),
    "IINST3": ("Current.Import", "L3", None),
    "ADPS": ("Current.Overload", "L1", None),
    "ADIR1": ("Current.Overload", "L1", None),
    "ADIR2": ("Current.Overload", "L2", None),
    "ADIR3": ("Current.Overload", "L3", None),
    "IMAX": ("Max.Current.Import", "L1", None),
    "IMAX1": ("Max.Current.Import", "L1", None),
    "IMAX2": ("Max.Current.Import", "L2", None),
    "IMAX3": ("Max.Current.Import", "L3", None),
    "PMAX": ("PreviousDayMax.Power.Active.Import", None, None),
    "PAPP": ("Power.Apparent.Import", None, None),
}


def test_the_table_has_every_label_of_the_list_and_no_other() -> None:
    assert set(TABLE) == {row["label"] for row in rows()}
    assert len(TABLE) == len(rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["label"])
def test_a_label_is_as_the_list_says(row: dict[str, str]) -> None:
    label = TABLE[row["label"]]
    assert label.mode == Mode(row["mode"])
    assert label.unit == row["unit"]
    assert label.horodate == (row["note"].startswith("horodate"))
    assert (label.kind is Kind.BITS) == (row["note"] == "bits" or row["label"] == "MOTDETAT")
    assert (label.kind is Kind.WARNING) == (row["note"] == "only while exceeded")
    assert label.english
    assert label.french
    assert row["label"] in label.clause
    if row["unit"]:
        assert (label.measurand, label.phase, label.tariff) == MEANING[row["label"]]
    for phase in "123":
        assert (f"phase {phase}" in row["meaning"]) == (f"phase {phase}" in label.english) == (f"phase {phase}" in label.french)
        if f"phase {phase}" in row["meaning"]:
            assert label.phase == f"L{phase}"


@pytest.mark.parametrize("label", [label for label in TABLE.values() if label.measurand is not None], ids=lambda label: label.name)
def test_what_a_label_means_is_a_word_of_the_hub(label: Label) -> None:
    measurand = MEASURANDS[label.measurand or ""]
    assert measurand.register == (label.kind is Kind.REGISTER)
    if label.unit:
        conversion = normalise_unit(label.unit)
        assert conversion.unit == measurand.unit
        assert conversion.apply(1) == label.factor * 10**label.exponent
    if label.phase is not None:
        assert Phase(label.phase)


def test_meanings_in_words_differ_and_french_is_french() -> None:
    for language in ("english", "french"):
        words = [(label.mode, getattr(label, language)) for label in TABLE.values()]
        assert len(set(words)) == len(words), language
    assert TABLE["EAST"].french == "Énergie active soutirée totale"


def test_families_are_the_registers_of_the_options() -> None:
    assert FAMILIES == {
        "BASE": ("BASE",),
        "HC": ("HCHC", "HCHP"),
        "EJP": ("EJPHN", "EJPHPM"),
        "BBR": ("BBRHCJB", "BBRHPJB", "BBRHCJW", "BBRHPJW", "BBRHCJR", "BBRHPJR"),
    }


def test_an_unknown_label_is_text_of_its_mode() -> None:
    found = lookup("NEW+1", Mode.STANDARD)
    assert (found.name, found.mode, found.kind, found.measurand) == ("NEW+1", Mode.STANDARD, Kind.UNKNOWN, None)
    assert lookup("EAST", Mode.STANDARD) is TABLE["EAST"]
