"""OCMF: what is built and signed is what the format says (pyocmf reads and verifies it), and whatever meters write is read, or refused by name."""

from __future__ import annotations

import base64
import json
import re
import warnings
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyocmf
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.everest.records import CURVES, END, GONE, P256, PUBLISHED, payload, private, readings, sealed, spki

from gridloom.core.errors import InvalidInput, Unsupported
from gridloom.integrations.everest import algorithms, keys, ocmf
from gridloom.integrations.everest.ocmf import Draft, LossCompensation, Malformed, NewReading, build, parse, sign


def draft(**changes: Any) -> Draft:
    """A whole transaction, every field used."""
    reading: dict[str, Any] = {"RI": "1-0:1.8.0", "RU": "kWh", "RT": "AC", "ST": "G", "EF": ""}
    fields: dict[str, Any] = {
        "GI": "Gridloom",
        "GS": "hub-1",
        "GV": "0.1.0",
        "PG": "T12",
        "MV": "EKM",
        "MM": "Omnimeter v4",
        "MS": "000300000234",
        "MF": "1.6",
        "IS": True,
        "IL": "TRUSTED",
        "IF": ("RFID_NONE", "OCPP_RS_TLS"),
        "IT": "CENTRAL",
        "ID": "token",
        "TT": "0.30 €/kWh",
        "CF": "cc 1.2",
        "LC": LossCompensation(LN="cable", LI=1, LR=Decimal("1.50"), LU="mOhm"),
        "CT": "EVSEID",
        "CI": "DE*1",
        "RD": (
            NewReading(TM="2024-05-01T10:00:00,000+0200 S", TX="B", RV=Decimal("1234567.890"), CL=Decimal("0.00"), **reading),
            NewReading(TM="2024-05-01T10:10:00,000+0200 S", TX="S", RV=Decimal("1234568.000"), CL=Decimal("0.01"), **reading),
            NewReading(TM="2024-05-01T10:20:00,000+0200 S", TX="T", RV=Decimal("1234568.100"), CL=Decimal("0.01"), **reading),
            NewReading(TM="2024-05-01T11:00:00,000+0200 S", TX="P", RV=Decimal("1234569.000"), CL=Decimal("0.02"), **reading),
        ),
    }
    return Draft(**(fields | changes))


def peer(record: str, *, strict: bool = False) -> pyocmf.OCMF:
    """The record as pyocmf reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pyocmf.SpecWarning)
        return pyocmf.OCMF.from_string(record, strict=strict)


# ---------------------------------------------------------------------------------------------------------------- build, sign


def test_what_is_built_is_exactly_this_text() -> None:
    text = build(draft(LC=None, RD=draft().RD[:1], ID="a|b", extensions={"U_note": [1, None]}))
    assert text == (
        b'{"FV":"1.3","GI":"Gridloom","GS":"hub-1","GV":"0.1.0","PG":"T12","MV":"EKM","MM":"Omnimeter v4","MS":"000300000234","MF":"1.6",'
        b'"IS":true,"IL":"TRUSTED","IF":["RFID_NONE","OCPP_RS_TLS"],"IT":"CENTRAL","ID":"a\\u007cb","TT":"0.30 \\u20ac/kWh","CF":"cc 1.2",'
        b'"CT":"EVSEID","CI":"DE*1","U_note":[1,null],'
        b'"RD":[{"TM":"2024-05-01T10:00:00,000+0200 S","TX":"B","RV":1234567.890,"RI":"1-0:1.8.0","RU":"kWh","RT":"AC","CL":0.00,"EF":"","ST":"G"}]}'
    )


def test_loss_compensation_and_every_digit_are_written() -> None:
    found = json.loads(build(draft()), parse_float=str)
    assert found["LC"] == {"LN": "cable", "LI": 1, "LR": "1.50", "LU": "mOhm"}
    assert [one["RV"] for one in found["RD"]] == ["1234567.890", "1234568.000", "1234568.100", "1234569.000"]
    assert [one["CL"] for one in found["RD"]] == ["0.00", "0.01", "0.01", "0.02"]
    assert {one["RI"] for one in found["RD"]} == {"1-0:1.8.0"}  # repeated: S.A.F.E. does not carry it
    assert b'"RV":120000,' in build(draft(RD=(NewReading(TM=draft().RD[0].TM, TX="B", RV=Decimal("1.2E5"), RI="1-0:1.8.0", ST="G"),)))
    assert "€".encode() not in build(draft()), "a JVM that is not set to UTF-8 would read other bytes"


def test_characters_beyond_the_basic_plane_are_two_escapes() -> None:
    text = build(draft(ID="\N{ELECTRIC PLUG}"))
    assert b'"ID":"\\ud83d\\udd0c"' in text
    assert parse(sign(text, keys.generate())).fields["ID"] == "\N{ELECTRIC PLUG}"


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_pyocmf_reads_and_verifies_what_is_signed(name: str, encoding: Any) -> None:
    signer = keys.generate(name)
    record = sign(build(draft(TT=None)), signer, encoding)
    found = peer(record, strict=True)
    assert [(reading.RV, reading.CL) for reading in found.payload.RD] == [(one.RV, one.CL) for one in draft().RD]
    assert found.payload.PG == "T12" and found.payload.CF == "cc 1.2"
    if "brainpool384" not in name:  # pyocmf cannot: it takes no key of that curve
        spelled = record.replace("-brainpool256r1", "-brainpoolP256r1")  # as it calls the curve of a key
        assert peer(spelled).verify_signature(signer.public.hex) is True
        assert peer(spelled.replace("1234569.000", "1234569.001")).verify_signature(signer.public.hex) is False
    load_der_public_key(signer.public.spki).verify(  # type: ignore[union-attr,call-arg]  # raises when it is not valid
        bytes.fromhex(found.signature.SD) if encoding == "hex" else base64.b64decode(found.signature.SD),
        record.split("|")[1].encode(),
        ec.ECDSA(hashes.SHA256()),  # type: ignore[arg-type]
    )
    read = parse(record, strict=True)
    assert read.leniencies == ()
    assert algorithms.valid(signer.public.key, read.signature.der, read.payload)


def test_the_signed_bytes_are_those_that_were_given() -> None:
    text = b'{ "FV" : "1.3",\r\n "PG":"T1", "MS":"1","IS":false,"IF":[],"IT":"NONE","RD":[{"TM":"2024-05-01T10:00:00,000+0200 S","TX":"B",'
    text += b'"RV":0.2500,"RI":"1-0:1.8.0","RU":"kWh","ST":"G"}]}'
    record = sign(text, keys.generate())
    assert record.encode().startswith(b"OCMF|" + text + b"|")
    assert parse(record).payload == text
    assert parse(record).readings[0].RV == "0.2500"
    with pytest.raises(InvalidInput, match="byte 8: a pipe"):
        sign(b'{"ID":"a|b"}', keys.generate())
    with pytest.raises(InvalidInput, match="byte 7: the payload is not UTF-8"):
        sign(b'{"ID":"\xff"}', keys.generate())


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"PG": "T012"}, "$.PG"),
    ({"PG": "X1"}, "$.PG"),
    ({"PG": "F1"}, "$.ID"),
    ({"IS": None}, "$.IS"),
    ({"IF": None}, "$.IF"),
    ({"IT": None}, "$.IT"),
    ({"IT": "CARD"}, "$.IT"),
    ({"IL": "SURE"}, "$.IL"),
    ({"IF": ("RFID_NONE", "NOTHING")}, "$.IF[1]"),
    ({"IF": ("RFID_NONE", "RFID_PLAIN")}, "$.IF"),
    ({"TT": "x" * 251}, "$.TT"),
    ({"CF": "x" * 26}, "$.CF"),
    ({"LC": LossCompensation(LN="x" * 21, LR=1, LU="uOhm")}, "$.LC.LN"),
    ({"extensions": {"A": 1}}, "$.A"),
    ({"RD": ()}, "$.RD"),
]
READING_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"TM": "2024-05-01T10:00:00+02:00 S"}, "$.RD[0].TM"),
    ({"TM": "2024-13-01T10:00:00,000+0200 S"}, "$.RD[0].TM"),
    ({"TX": None}, "$.RD[0].TX"),
    ({"TX": "Q"}, "$.RD[0].TX"),
    ({"ST": "Q"}, "$.RD[0].ST"),
    ({"RV": Decimal("NaN")}, "$.RD[0].RV"),
    ({"CL": Decimal("0.1")}, "$.RD[0].CL"),
    ({"EF": "Ex"}, "$.RD[0].EF"),
    ({"RI": ""}, "$.RD[0].RI"),
]


@pytest.mark.parametrize(("changes", "path"), FAULTS)
def test_a_draft_that_the_format_does_not_allow(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        build(draft(**changes))
    assert path in [one.path for one in caught.value.faults]


@pytest.mark.parametrize(("changes", "path"), READING_FAULTS)
def test_a_reading_that_the_format_does_not_allow(changes: dict[str, Any], path: str) -> None:
    fields: dict[str, Any] = {"TM": "2024-05-01T10:00:00,000+0200 S", "TX": "B", "RV": 1, "RI": "1-0:1.8.0", "ST": "G"}
    with pytest.raises(InvalidInput) as caught:
        build(draft(RD=(NewReading(**(fields | changes)),)))
    assert [one.path for one in caught.value.faults] == [path]


def test_a_fiscal_record_has_no_user_and_no_reason() -> None:
    fiscal = Draft(PG="F3", MS="1", RD=(NewReading(TM="2024-05-01T10:00:00,000+0200 S", RV=5, RI="1-0:1.8.0", ST="G"),))
    read = parse(sign(build(fiscal), keys.generate()), strict=True)
    assert (read.context, read.page, read.readings[0].TX) == ("F", 3, None)


def test_times_are_written_in_local_time() -> None:
    moment = 1_714_550_400_123_999  # 2024-05-01T08:00:00.123999Z
    assert ocmf.time_text(moment, "S", ZoneInfo("Europe/Paris")) == "2024-05-01T10:00:00,123+0200 S"
    assert ocmf.time_text(moment, "U") == "2024-05-01T08:00:00,123+0000 U"
    assert ocmf.time_text(moment, "I", timezone(timedelta(hours=-3, minutes=-30))) == "2024-05-01T04:30:00,123-0330 I"


def test_pages_go_on_by_one_in_their_own_context() -> None:
    assert ocmf.next_page(None) == "T1"
    assert ocmf.next_page("T9") == "T10"
    assert ocmf.next_page(None, "F") == "F1"
    assert ocmf.next_page("F41", "F") == "F42"
    for last in ("F1", "T01", "", "T", "T-1"):
        with pytest.raises(InvalidInput):
            ocmf.next_page(last)


# ---------------------------------------------------------------------------------------------------------------------- parse


def names(record: ocmf.Record) -> set[tuple[str, str]]:
    return {(one.name, one.path) for one in record.leniencies}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_records_are_valid_and_one_digit_less_is_not(name: str) -> None:
    one = PUBLISHED[name]
    record = parse(one["record"])
    assert record.payload.decode() == one["record"].split("|")[1]
    if "secp192k1" in name:
        assert record.signature.algorithm is algorithms.BY_NAME["ECDSA-secp192k1-SHA256"]
        with pytest.raises(Unsupported, match="secp192k1"):
            keys.public_key(one["key"], record.signature.algorithm)
        return
    key = keys.public_key(one["key"], record.signature.algorithm)
    assert algorithms.valid(key.key, record.signature.der, record.payload)
    changed = parse(re.sub(r'"PG"( ?: ?)"T(\d+)"', r'"PG"\1"T1\2"', one["record"]))
    assert changed.payload != record.payload
    assert not algorithms.valid(key.key, changed.signature.der, changed.payload)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "htb" not in name])
def test_pyocmf_reads_the_same(name: str) -> None:
    ours, theirs = parse(PUBLISHED[name]["record"]), peer(PUBLISHED[name]["record"])
    assert [one.value for one in ours.readings] == [one.RV for one in theirs.payload.RD]
    assert [one.moment.time for one in ours.readings] == [one.timestamp for one in theirs.payload.RD]
    assert [one.moment.status for one in ours.readings] == [one.time_status for one in theirs.payload.RD]
    assert [(one.TX, one.RI, one.RU, one.ST) for one in ours.readings] == [(one.TX, str(one.RI), one.RU, one.ST) for one in theirs.payload.RD]


def test_rfc_6979_signature_of_another_library() -> None:
    """A.2.5: P-256, SHA-256, message "sample"."""
    x, y = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6", "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299"
    r, s = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716", "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    key = keys.public_key(f"04{x}{y}", algorithms.BY_NAME[P256])
    der = algorithms.raw_to_der(bytes.fromhex(r + s))
    assert algorithms.valid(key.key, der, b"sample")
    assert not algorithms.valid(key.key, der, b"Sample")


def test_fields_are_carried_within_a_record() -> None:
    middle = {"TM": "2024-05-01T10:30:00,000+0200 S", "TX": "C", "RV": 1001.25}
    record = parse(sealed(payload(RD=[readings()[0], middle, {"RV": 1002.5}, {"TX": "E", "RV": 1012.75, "EF": "E", "ST": "F"}])), strict=True)
    first, second, third, last = record.readings
    assert (second.RI, second.RU, second.RT, second.ST, second.EF) == ("1-0:1.8.0", "kWh", "AC", "G", "")
    assert (third.TM, third.TX, third.RV) == (second.TM, "C", "1002.5")
    assert third.moment == second.moment
    assert third.written == {"RV"}
    assert (last.ST, last.EF, first.ST) == ("F", "E", "G")


def test_values_and_losses_are_not_carried() -> None:
    record = parse(sealed(payload(RD=[readings()[0] | {"CL": 0}, {"TX": "X", "EF": "E", "ST": "F"}])), strict=True)
    assert (record.readings[1].RV, record.readings[1].CL, record.readings[1].value) == (None, None, None)


def test_a_mere_error_event_needs_neither_register_nor_unit() -> None:
    event = {"TM": "2024-05-01T09:59:00,000+0200 S", "TX": "X", "EF": "E", "ST": "F"}
    assert parse(sealed(payload(RD=[event, *readings()])), strict=True).leniencies == ()


def test_numbers_keep_their_digits() -> None:
    text = json.dumps(payload()).replace("1012.75", "00.5").replace("1000.5", "0.25970")
    with pytest.raises(Malformed):
        parse(sealed(text))  # 00.5 is no JSON
    record = parse(sealed(text.replace("00.5", "123456789012345678901234567.8900e1")), strict=True)
    assert record.readings[0].RV == "0.25970"
    assert record.readings[1].RV == "123456789012345678901234567.8900e1"
    assert record.readings[1].energy_wh == Decimal("1234567890123456789012345678900")
    assert str(record.readings[0].energy_wh) == "259.70"


MIXED: list[tuple[str, str, str]] = [
    # what is sent in, the leniency, where
    (sealed(payload(RD=readings({"RV": "1000.5"}))), "quoted-number", "payload $.RD[0].RV"),
    (sealed(payload(RD=readings({"RV": "0001000.5"}))), "padded-number", "payload $.RD[0].RV"),
    (sealed(payload(RD=readings({"RV": "  1000.5"}))), "padded-number", "payload $.RD[0].RV"),
    (sealed(payload(MS=GONE)), "missing-field", "payload $.MS"),
    (sealed(payload(IF=GONE)), "missing-field", "payload $.IF"),
    (sealed(payload(RD=readings({"ST": GONE}))), "missing-field", "payload $.RD[0].ST"),
    (sealed(payload(LC={"LU": "mOhm"})), "missing-field", "payload $.LC.LR"),
    (sealed(payload(CF=None)), "null-value", "payload $.CF"),
    (sealed(payload(GS=17)), "wrong-type", "payload $.GS"),
    (sealed(payload(CT=0)), "wrong-type", "payload $.CT"),
    (sealed(payload(IF="RFID_NONE")), "wrong-type", "payload $.IF"),
    (sealed(payload(IS=1)), "wrong-type", "payload $.IS"),
    (sealed(payload(CT="")), "unknown-value", "payload $.CT"),
    (sealed(payload(IT="CARD")), "unknown-value", "payload $.IT"),
    (sealed(payload(), sa="ECDSA-secp521r1-SHA256"), "unknown-value", "signature $.SA"),
    (sealed(payload(RD=readings({"TX": "B "}))), "padded-text", "payload $.RD[0].TX"),
    (sealed(payload(HELLO=1)), "unknown-field", "payload $.HELLO"),
    (sealed(payload(RD=readings({"XX": 1}))), "unknown-field", "payload $.RD[0].XX"),
    (sealed(payload(FV="1.0", TT="tariff")), "newer-field", "payload $.TT"),
    (sealed(payload(FV="1.2", CF="x")), "newer-field", "payload $.CF"),
    (sealed(payload(FV="0.4", CT=GONE, CI="x")), "newer-field", "payload $.CI"),
    (sealed(payload(RD=readings({"EI": 5}, {"EI": 5}))), "older-field", "payload $.RD[0].EI"),
    (sealed(payload(VI="x")), "older-field", "payload $.VI"),
    (sealed(payload(SA=P256)), "older-field", "payload $.SA"),
    (sealed(payload(IS="VERIFIED")), "old-identification-status", "payload $.IS"),
    (sealed(payload(FV="2.0")), "unknown-version", "payload $.FV"),
    (sealed(payload(FV="one")), "unknown-version", "payload $.FV"),
    (sealed(json.dumps(payload()).replace('"1.3"', "1.3")), "numeric-version", "payload $.FV"),
    (sealed(payload(PG="T007")), "page-format", "payload $.PG"),
    (sealed(payload(PG="7")), "page-format", "payload $.PG"),
    (sealed(payload(RD=readings({"TM": "2024-05-01T10:00:00+02:00 S"}))), "time-format", "payload $.RD[0].TM"),
    (sealed(payload(RD=readings({"TM": "2024-05-01T10:00:00,000+0200"}))), "time-format", "payload $.RD[0].TM"),
    (sealed(payload(TT="x" * 251)), "too-long", "payload $.TT"),
    (sealed(payload(CF="x" * 26)), "too-long", "payload $.CF"),
    (sealed(payload(LC={"LN": "x" * 21, "LR": 1, "LU": "uOhm"})), "too-long", "payload $.LC.LN"),
    (sealed(payload(IF=["RFID_NONE", "OCPP_NONE", "ISO15118_NONE", "PLMN_NONE", "OCPP_RS"])), "too-many-flags", "payload $.IF"),
    (sealed(payload(RD=readings({"RI": GONE}))), "incomplete-group", "payload $.RD[0]"),
    (sealed(payload(RD=readings({"EF": "x"}))), "error-flag", "payload $.RD[0].EF"),
    (sealed(payload(), "ECDSA-brainpool256r1-SHA256", sa="ECDSA-brainpoolP256r1-SHA256"), "brainpool-spelling", "signature $.SA"),
    (sealed(payload(), "ECDSA-brainpool384r1-SHA256", sa="ECDSA-brainpoolP384r1-SHA256"), "brainpool-spelling", "signature $.SA"),
    (sealed(payload(), sa="ecdsa-SECP256R1-sha256"), "algorithm-spelling", "signature $.SA"),
    (sealed(payload(), sa="secp256r1"), "algorithm-spelling", "signature $.SA"),
    (sealed(payload(), se="base64").replace('"base64"', '"hex"'), "signature-encoding", "signature $.SD"),
    (sealed(payload(), se="hex").replace('"hex"', '"base64"'), "signature-encoding", "signature $.SD"),
    (sealed(payload(), se="HEX"), "signature-encoding", "signature $.SD"),
    (re.sub(r'("SD": ".{10})', r"\1 ", sealed(payload())), "signature-encoding", "signature $.SD"),
    (sealed(payload(), raw=True), "raw-signature", "signature $.SD"),
    (sealed(payload()) + "|" + spki().hex(), "embedded-key", f"byte {len(sealed(payload()))}"),
    (sealed(payload()).encode().hex(), "encoded-record", "byte 0"),
]


@pytest.mark.parametrize(("record", "name", "path"), MIXED, ids=[f"{name}-{number}" for number, (_, name, _) in enumerate(MIXED)])
def test_what_real_meters_write_is_read_and_named(record: str, name: str, path: str) -> None:
    read = parse(record)
    if name == "embedded-key":
        assert [one.name for one in read.leniencies] == [name]
    else:
        assert (name, path) in names(read)
    with pytest.raises(Malformed) as caught:
        parse(record, strict=True)
    if name not in ("embedded-key", "padded-number", "signature-encoding"):  # those are seen with, or behind, another one
        assert caught.value.fault.path == path
    if name not in ("unknown-value", "older-field") or not path.endswith("SA"):
        algorithm = read.signature.algorithm
        assert algorithm is not None
        key = private(algorithm.name).public_key()
        assert algorithms.valid(key, read.signature.der, read.payload), "however it is written: the signature is that of the text"


def test_every_leniency_is_shown_above() -> None:
    assert {name for _, name, _ in MIXED} == set(ocmf.LENIENCIES)


def test_what_the_format_allows_is_no_leniency() -> None:
    for changes in (
        {},
        {"FV": GONE},
        {"U_vendor": {"x": None}, "Z1": 5},
        {"FV": "0.3", "IS": "VERIFIED", "IL": GONE, "VI": "gateway", "VV": "1", "GI": GONE, "GS": GONE, "GV": GONE, "CT": GONE, "CI": GONE,
         "RD": readings({"EI": 3, "EF": GONE, "RT": GONE}, {"EI": 3, "EF": GONE, "RT": GONE})},
        {"LC": {"LN": "x", "LI": 2, "LR": 0.5, "LU": "mOhm"}, "TT": "x", "CF": "y"},
        {"FV": "1.4", "RD": readings({"RI": "01-00:B0.08.00*FF"}, {"RI": "01-00:B0.08.00*FF"})},
    ):  # fmt: skip
        assert parse(sealed(payload(**changes)), strict=True).leniencies == (), changes
    old = parse(sealed(payload(FV="0.5", SA="ECDSA-secp384r1-SHA256"), "ECDSA-secp384r1-SHA256", sa=GONE), strict=True)
    assert (old.signature.name, old.signature.inside) == ("ECDSA-secp384r1-SHA256", True)
    assert parse(sealed(payload(), sa=GONE)).signature.name == P256


GOOD = sealed(payload())
MALFORMED: list[tuple[bytes, str]] = [
    (b"", "byte 0"),
    (b"OCM", "byte 3"),
    (b"OCMX|{}|{}", "byte 3"),
    (b"XOCMF|{}|{}", "byte 0"),
    (b"OCMF", "byte 4"),
    (b"OCMF|{}", "byte 7"),
    (b"OCMF|{}|{}|{}|{}", "byte 13"),
    (b"OCMF|{'a':1}|{}", "byte 6"),
    (b'OCMF|{"a":"\xc3\xa9\xc3\xa9";}|{}', "byte 16"),
    (b'OCMF|{"a":"\xff"}|{}', "byte 11"),
    (b'OCMF|{"a":"NaN","b":NaN}|{}', "byte 20"),
    (b'OCMF|{"RD":[{}]}|{"SD":}', "byte 23"),
    (b'OCMF|{"RD":[{}]}|{"SD":"\xff"}', "byte 24"),
    (b"OCMF|" + b'{"a":' * 5000 + b"|{}", "byte 5"),
    (b"OCMF|[]|{}", "payload $"),
    (b"OCMF|{}|[]", "signature $"),
    (b"OCMF|{}|{}", "payload $.RD"),
    (b'OCMF|{"RD":[]}|{}', "payload $.RD"),
    (b'OCMF|{"RD":[5]}|{}', "payload $.RD[0]"),
    (b'OCMF|{"PG":"T1","PG":"T2"}|{}', "payload $.PG"),
    (b'OCMF|{"RD":[{"RV":1,"RV":2}]}|{}', "payload $.RD[0].RV"),
    (b'OCMF|{"PG":{}}|{}', "payload $.PG"),
    (b'OCMF|{"IS":[]}|{}', "payload $.IS"),
    (b'OCMF|{"LC":5}|{}', "payload $.LC"),
    (b'OCMF|{"RD":[{"RV":true}]}|{}', "payload $.RD[0].RV"),
    (b'OCMF|{"RD":[{"RV":"1,5"}]}|{}', "payload $.RD[0].RV"),
    (b'OCMF|{"RD":[{"RV":1e999}]}|{}', "payload $.RD[0].RV"),
    (b'OCMF|{"RD":[{}]}|{}', "signature $.SD"),
    (b'OCMF|{"RD":[{}]}|{"SD":"xyz"}', "signature $.SD"),
    (b'OCMF|{"RD":[{}]}|{"SD":""}', "signature $.SD"),
    (b"OCMF|" + b"x" * (1 << 20), "byte 1048576"),
]


@pytest.mark.parametrize(("record", "path"), MALFORMED)
def test_what_cannot_be_read_says_where(record: bytes, path: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(record)
    assert caught.value.fault.path == path
    assert path in caught.value.message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_fault_with_a_place(data: bytes) -> None:
    for text in (data, b"OCMF|" + data, b"OCMF|" + data + b"|{}", b'OCMF|{"RD":[{}]}|' + data):
        with pytest.raises(Malformed) as caught:
            parse(text)
        assert re.match(r"byte \d+\Z|(payload|signature) \$", caught.value.fault.path)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*payload(), "LC", "TT", "CF", "VI", "SA", "TM", "TX", "RV", "RI", "RU", "CL", "EF", "EI", "ST", "?"])


@given(st.dictionaries(KEYS, JSON_VALUES, max_size=5), st.dictionaries(KEYS, JSON_VALUES, max_size=5))
def test_any_field_may_hold_anything(fields: dict[str, Any], reading: dict[str, Any]) -> None:
    text = "OCMF|" + json.dumps(payload(RD=[reading, END]) | fields).replace("|", "") + "|" + GOOD.rpartition("|")[2]
    found: object = ""
    try:
        found = parse(text).readings
    except Malformed as error:
        found = error.fault.path
    assert found


SIGNED = GOOD.encode().index(b"|") + 1, GOOD.encode().rindex(b"|")


@settings(max_examples=300)
@given(st.integers(*SIGNED).map(lambda at: min(at, SIGNED[1] - 1)), st.integers(1, 255))
def test_no_changed_byte_of_the_signed_text_is_valid(at: int, change: int) -> None:
    record = bytearray(GOOD.encode())
    record[at] ^= change
    try:
        read = parse(bytes(record))
    except Malformed:
        return
    assert not algorithms.valid(private().public_key(), read.signature.der, read.payload)


DECIMALS = st.decimals(min_value=0, max_value=10**12, places=4, allow_nan=False)


@given(DECIMALS, DECIMALS, st.text(max_size=30), st.integers(631152000, 4102444800), st.sampled_from("UISR"))
def test_what_is_written_is_read_again(first: Decimal, more: Decimal, text: str, second: int, status: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    moment = second * 1_000_000
    made = [
        NewReading(TM=ocmf.time_text(moment, status, ZoneInfo("Europe/Paris")), TX=reason, RV=value, RI="1-0:1.8.0", ST="G")
        for reason, value in (("B", first), ("E", first + more))
    ]
    read = parse(sign(build(draft(ID=text, RD=tuple(made))), SIGNER), strict=True)
    assert read.fields["ID"] == text
    assert [one.RV for one in read.readings] == [format(first, "f"), format(first + more, "f")]
    assert read.readings[0].moment == (datetime.fromtimestamp(second, UTC), status)


SIGNER = keys.Signer(private())
