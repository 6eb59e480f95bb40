"""Words and bits: STGE against the project's table and the captured frames, tariffs, colours, relays, profiles, messages, serial numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.integrations.tic import status
from gridloom.integrations.tic.status import STGE, Block, Make

TESTS = Path(__file__).parents[2]
EXPECTED = TESTS / "data" / "tic" / "expected"


def standard_frames() -> list[tuple[str, dict[str, str]]]:
    found = []
    for file in sorted(EXPECTED.glob("std_*.json")):
        for number, frame in enumerate(json.loads(file.read_text(encoding="utf-8"))):
            found.append((f"{file.stem} {number}", {one["label"]: one["value"] for one in frame["groups"] if one["valid"]}))
    return found


# ------------------------------------------------------------------------------------------------------------------------ STGE


def test_fields_are_those_of_the_projects_table_with_every_value_named() -> None:
    text = (TESTS / "data" / "specs" / "tic_STGE.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| (\d+(?:-\d+)?) \| .*? \| (.*?) \|$", text, re.MULTILINE))
    ours = {f"{field.first}" + (f"-{field.last}" if field.last > field.first else ""): field for field in STGE.values()}
    assert set(ours) == set(documented)
    for bits, values in documented.items():
        named = {int(number) for number in re.findall(r"(?:^|[,·…] ?)(\d+)(?= |$)", values)}
        if values.startswith("0 = register 1"):
            named = set(range(10 if bits == "10-13" else 4))
        elif values == "1 yes":
            named = {0, 1}
        elif values == "as above":
            named = {0, 1, 2, 3}
        assert set(ours[bits].values) == named, bits
        words = [word.word for word in ours[bits].values.values()]
        assert len(set(words)) == len(words)
        assert all(word.english and word.french for word in ours[bits].values.values())


def test_fields_do_not_overlap() -> None:
    bits = [bit for field in STGE.values() for bit in range(field.first, field.last + 1)]
    assert len(bits) == len(set(bits)) == 30  # 5 and 18 mean nothing


@pytest.mark.parametrize(("name", "values"), standard_frames(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_captured_registers_agree_with_the_labels_beside_them(name: str, values: dict[str, str]) -> None:
    register = status.stge(values["STGE"])
    assert register is not None
    words = status.words(register)
    assert words["supplier"].word == f"tariff{int(values['NTARF'])}"
    assert STGE["supplier"].of(register) + 1 == int(values["NTARF"])
    assert words["tic"].word == "standard"
    assert words["clock"].word == "right"
    relays = status.relays(values["RELAIS"])
    assert relays is not None
    assert (words["contact"].word == "closed") == relays[0]
    assert (words["behaviour"].word == "producer") == ("EAIT" in values)
    assert status.UNKNOWN not in words.values()


def test_every_named_value_is_read() -> None:
    for name, field in STGE.items():
        for value, word in field.values.items():
            for others in (0, 0xFFFF_FFFF):
                register = (others & ~(((1 << (field.last - field.first + 1)) - 1) << field.first)) | value << field.first
                assert status.words(register)[name] is word
    assert STGE["breaker"].word(7 << 1) is status.UNKNOWN
    assert STGE["euridis"].word(2 << 19) is status.UNKNOWN
    assert STGE["supplier"].word(12 << 10) is status.UNKNOWN


def test_an_example_in_words() -> None:
    register = status.stge("CB2B1393")  # by hand: 1100 1011 0010 1011 0001 0011 1001 0011
    assert register is not None
    assert {name: word.word for name, word in status.words(register).items()} == {
        "contact": "open",
        "breaker": "overpower",
        "cover": "open",
        "overvoltage": "no",
        "overload": "yes",
        "behaviour": "producer",
        "direction": "negative",
        "supplier": "tariff5",
        "distributor": "distributor1",
        "clock": "degraded",
        "tic": "standard",
        "euridis": "enabled",
        "plc": "new-locked",
        "synchronised": "no",
        "today": "red",
        "tomorrow": "white",
        "notice": "none",
        "peak": "PM3",
    }


@pytest.mark.parametrize("text", ["", "003A000", "003A00011", "+03A0001", "003A_001", "003A000G", " 03A0001", "００３A0001"])
def test_what_is_no_register_is_none(text: str) -> None:
    assert status.stge(text) is None


# ------------------------------------------------------------------------------------------------------------- other words


def test_relays() -> None:
    assert status.relays("000") == (False,) * 8
    assert status.relays("001") == (True, *(False,) * 7)
    assert status.relays("130") == (False, True, False, False, False, False, False, True)
    assert status.relays("255") == (True,) * 8
    for wrong in ("", "256", "-01", "0x1", "1.0", "１"):
        assert status.relays(wrong) is None


@pytest.mark.parametrize(
    ("text", "register", "colour"),
    [
        ("TH..", "TH", None),
        ("HC..", "HC", None),
        ("HP..", "HP", None),
        ("HN..", "HN", None),
        ("PM..", "PM", None),
        ("HCJB", "HCJB", "blue"),
        ("HPJB", "HPJB", "blue"),
        ("HCJW", "HCJW", "white"),
        ("HPJW", "HPJW", "white"),
        ("HCJR", "HCJR", "red"),
        ("HPJR", "HPJR", "red"),
        (" HP..", "HP", None),
    ],
)
def test_running_tariffs(text: str, register: str, colour: str | None) -> None:
    assert status.ptec(text) == register
    assert status.PTEC[register].french
    assert status.colour_of(register) == colour


@pytest.mark.parametrize("text", ["", "XX..", "HPn.", "HPJX", "...."])
def test_what_is_no_running_tariff_is_none(text: str) -> None:
    assert status.ptec(text) is None


@pytest.mark.parametrize(
    ("text", "name", "subscription", "programme"),
    [
        ("BASE", "BASE", "BASE", ""),
        ("HC..", "HC", "HCHP", ""),
        ("EJP.", "EJP", "EJP", ""),
        ("BBR(", "BBR", "TEMPO", "("),
        ("BBRx", "BBR", "TEMPO", "x"),
    ],
)
def test_options(text: str, name: str, subscription: str, programme: str) -> None:
    option = status.optarif(text)
    assert option is not None
    assert (option.name, option.subscription, option.programme) == (name, subscription, programme)


def test_what_is_no_option_is_none() -> None:
    assert [status.optarif(text) for text in ("", "XYZ.", "BBR", "BBR((", "HCn.")] == [None, None, status.OPTARIF["BBR"], None, None]


def test_colours_of_tomorrow() -> None:
    assert [status.demain(text) for text in ("BLEU", "BLAN", "ROUG", "----", "VERT", "")] == ["blue", "white", "red", "", None, None]


def test_missing_phases() -> None:
    assert status.missing_phases("00") == (False, False, False)
    assert status.missing_phases("02") == (True, False, False)
    assert status.missing_phases("04") == (False, True, False)
    assert status.missing_phases("08") == (False, False, True)
    assert status.missing_phases("0E") == (True, True, True)
    assert [status.missing_phases(text) for text in ("", "0", "000", "0G")] == [None] * 4


def test_status_words() -> None:
    assert status.motdetat("000000") == ()
    assert status.motdetat("400000") == (22,)
    assert status.motdetat("00000p") is None
    assert set(status.HHPHC) == {"A", "C", "D", "E", "Y"}


def test_padding_goes_and_blanks_inside_are_one() -> None:
    assert status.trimmed(" HEURE  PLEINE  ") == "HEURE PLEINE"
    assert status.trimmed("base            ") == "base"
    assert status.message("     PAS DE          MESSAGE    ") == ""
    assert status.message("PAS DE          MESSAGE         ") == ""
    assert status.message("  COUPURE LE 12 ") == "COUPURE LE 12"


# ------------------------------------------------------------------------------------------------------------------- profiles


def test_profiles_of_the_captured_frames() -> None:
    profiles = {name.split()[0]: values["PJOURF+1"] for name, values in standard_frames()}
    assert status.profile(profiles["std_mono_hphc_nb"]) == (
        Block("00:00", 0x8002, 2, "open"),
        Block("02:00", 0xC001, 1, "closed"),
        Block("08:00", 0x8002, 2, "open"),
        Block("15:00", 0xC001, 1, "closed"),
        Block("17:00", 0x8002, 2, "open"),
    ), "this meter writes hours in hexadecimal: 0F00, 1100"
    assert status.profile(profiles["std_mono_hphc_tic2ws"]) == (
        Block("00:00", 0x8002, 2, "open"),
        Block("01:00", 0xC001, 1, "closed"),
        Block("06:00", 0x8002, 2, "open"),
        Block("12:30", 0xC001, 1, "closed"),
        Block("15:30", 0x8002, 2, "open"),
    )
    assert status.profile(profiles["std_mono_base_linkytic"]) == (Block("00:00", 0xC001, 1, "closed"),)


def test_what_is_no_profile_is_none() -> None:
    assert status.profile("NONUTILE NONUTILE") == ()
    assert status.profile("") == ()
    assert [status.profile(text) for text in ("29608002", "0000800", "x", "NONUTILE 1", "00FF8002")] == [None] * 5


DECODERS: tuple[Callable[[str], object], ...] = (
    *(status.stge, status.relays, status.ptec, status.optarif, status.demain, status.missing_phases),
    *(status.motdetat, status.profile, status.make, status.message, status.colour_of),
)


@given(st.text(max_size=40))
def test_no_decoder_raises(text: str) -> None:
    for decode in (
        status.stge,
        status.relays,
        status.ptec,
        status.optarif,
        status.demain,
        status.missing_phases,
        status.motdetat,
        status.profile,
        status.make,
        status.message,
    ):
        decode(text)


# -------------------------------------------------------------------------------------------------------------- serial numbers


def test_serial_numbers() -> None:
    assert status.make("021762010203") == Make("Sagemcom", "Linky single-phase 90 A G1, feed from below", 2017)
    assert status.make("041775010507") == Make("Landis+Gyr", "Linky single-phase 90 A G3, feed from below", 2017)
    assert status.make("029612345678") == Make("Sagemcom", "", 1996)
    assert status.make("990012345678") == Make("", "", 2000)
    assert [status.make(serial) for serial in ("", "XXXXXXXXXXXX", "02176201020", "0217620102033")] == [None] * 4


def test_tic_types_are_those_of_the_witty_interface() -> None:
    assert set(status.TIC_TYPES.values()) == {"standardMono", "standardTri", "historicMono", "historicTri"}
