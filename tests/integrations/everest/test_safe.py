"""What S.A.F.E. 1.4.1 says, against expectations written by hand from FACTS §4.5; and its transport XML, read without entities, written so that
others read it.

No expectation here is computed: each row says in words what the tool was seen, or must be expected, to do.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyocmf import OcmfContainer
from tests.integrations.everest.records import BEGIN, CURVES, END, GONE, PUBLISHED, payload, point, readings, sealed, spki

from gridloom.core.errors import InvalidInput
from gridloom.integrations.everest import safe
from gridloom.integrations.everest.ocmf import NOTICE, Malformed, parse
from gridloom.integrations.everest.safe import Value, read_xml, to_xml
from gridloom.integrations.everest.verification import verify

AT = "2024-05-01T10:00:00,000+0200"
LATER = "2024-05-01T11:00:00,000+0200"

Row = tuple[str, str, bool, str]


def rows(*made: tuple[str, dict[str, Any], bool, str]) -> list[Row]:
    return [(what, sealed(payload(**changes)), verified, said) for what, changes, verified, said in made]


def both(**changes: Any) -> dict[str, Any]:
    """The same change in begin and end."""
    return {"RD": readings(changes, changes)}


def times(begin: str, end: str) -> dict[str, Any]:
    return {"RD": readings({"TM": begin}, {"TM": end})}


EXPECTED: list[Row] = [
    *rows(
        ("a good record", {}, True, "law checks hold"),
        # 1. version
        ("no FV", {"FV": GONE}, False, "FV is missing"),
        ("FV 0.0", {"FV": "0.0"}, False, "FV"),
        ("FV 0.1", {"FV": "0.1"}, True, ""),
        ("FV 0.4", {"FV": "0.4"}, True, ""),
        ("FV 1.0", {"FV": "1.0"}, True, ""),
        ("FV 1.2", {"FV": "1.2"}, True, ""),
        ("FV 1.4 is refused", {"FV": "1.4"}, False, "0.1 to 1.3"),
        ("FV as a number", {"FV": 1.3}, True, ""),
        ("FV in words", {"FV": "one"}, False, "FV"),
        # 3. a record that is no whole transaction is not looked into
        ("begin only", {"RD": [BEGIN | {"ST": "F"}]}, True, "not checked further"),
        ("end only", {"RD": [END | {"ST": "F"}]}, True, "not checked further"),
        ("charging only", {"RD": [BEGIN | {"TX": "C"}]}, True, "not checked further"),
        ("fiscal", {"PG": "F7", "RD": readings({"RV": 9}, {"RV": 1})}, True, "not checked further"),
        ("no PG crashes it", {"PG": GONE}, False, "breaks off"),
        # 4. which registers count
        ("export register", both(RI="1-0:2.8.0"), False, "no start values"),
        ("F 198", both(RI="1-0:1.8.0*198"), False, "no start values"),
        ("F 100", both(RI="1-0:1.8.0*100"), False, "no start values"),
        ("1-b alone", both(RI="1-b"), False, "no start values"),
        ("gas", both(RI="7-0:1.8.0"), False, "no start values"),
        ("power instead of energy", both(RI="1-0:1.7.0"), False, "no start values"),
        ("F 255", both(RI="1-0:1.8.0*255"), True, ""),
        ("F 200", both(RI="1-0:1.8.0*200"), True, ""),
        ("F FF", both(RI="1-0:1.8.0*FF"), True, ""),
        ("F ff", both(RI="1-0:98.8.0.ff"), True, ""),
        ("1-b:1.8.0", both(RI="1-b:1.8.0"), True, ""),
        ("tariff e", both(RI="1-b:1.8.e"), True, ""),
        ("9E", both(RI="1-0:9E.8.0"), True, ""),
        ("B0", both(RI="01-00:B0.08.00*FF"), True, ""),
        ("C7", both(RI="01-00:C7.08.00*FF"), True, ""),
        ("C8", both(RI="01-00:C8.08.00*FF"), False, "no start values"),
        ("AF", both(RI="01-00:AF.08.00*FF"), False, "no start values"),
        ("RI is not carried: the end has none", {"RD": readings({}, {"RI": GONE})}, False, "no stop values"),
        ("no RI at all", both(RI=GONE), False, "no start values"),
        ("compensated ones alone count", {"RD": [*readings({"RI": "1-0:B1.8.0", "RV": 1}, {"RI": "1-0:B1.8.0", "RV": 2}), *readings()]}, True, ""),
        ("also when they are wrong", {"RD": [*readings({"RI": "1-0:98.8.0", "RV": 3}, {"RI": "1-0:98.8.0", "RV": 2}), *readings()]}, False, "higher"),
        ("two registers that count", {"RD": [*readings({"RI": "1-0:B0.8.0"}, {"RI": "1-0:B0.8.0"}), *readings()]}, False, "multiple start values"),
        # exactly one begin and one end
        ("two begins", {"RD": [BEGIN, BEGIN, END]}, False, "multiple start values"),
        ("two ends", {"RD": [BEGIN, END, END | {"TX": "R"}]}, False, "multiple stop values"),
        ("begin on another register", {"RD": readings({"RI": "1-0:2.8.0"})}, False, "no start values"),
        *((f"ended by {letter}", {"RD": readings({}, {"TX": letter})}, True, "") for letter in "ELRAP"),
        ("TX with a blank", {"RD": readings({"TX": "B "}, {"TX": " E"})}, True, ""),
        # ST and RU may be carried
        ("ST carried", {"RD": readings({}, {"ST": GONE})}, True, ""),
        ("RU carried", {"RD": readings({}, {"RU": GONE})}, True, ""),
        ("no ST", both(ST=GONE), False, "ST is missing"),
        ("no RU", both(RU=GONE), False, "RU is missing"),
        ("ST of the begin", {"RD": readings({"ST": "T"})}, False, "meter status"),
        ("ST of the end", {"RD": readings({}, {"ST": "M"})}, False, "meter status"),
        ("a bad reading between is not seen", {"RD": readings({}, {}, {"ST": "F", "RV": 1001})}, True, ""),
        ("an exception between is not seen", {"RD": readings({}, {}, {"TX": "X", "RV": 1001})}, True, ""),
        # values and times
        ("equal values", {"RD": readings({}, {"RV": 1000.5})}, True, ""),
        ("falling values", {"RD": readings({}, {"RV": 1000.4})}, False, "higher"),
        ("quoted and padded values", {"RD": readings({"RV": "0001000.5"}, {"RV": "  1012.75"})}, True, ""),
        ("units are not compared", {"RD": readings({"RU": "Wh"}, {"RU": "kWh", "RV": 1012.75})}, True, ""),
        ("a missing value crashes it", {"RD": readings({}, {"RV": GONE})}, False, "breaks off"),
        ("time backwards", times(f"{LATER} S", f"{AT} S"), False, "after the stop time"),
        ("equal times", times(f"{AT} S", f"{AT} S"), True, ""),
        ("time backwards in a form that it does not read", times("2024-05-01T11:00:00+02:00 S", "2024-05-01T10:00:00+02:00 S"), True, ""),
        ("time backwards with a colon in the offset", times("2024-05-01T11:00:00,000+02:00 S", f"{AT} S"), True, ""),
        ("U and U", times(f"{AT} U", f"{LATER} U"), True, ""),
        ("I and R", times(f"{AT} I", f"{LATER} R"), True, ""),
        ("S and S", times(f"{AT} S", f"{LATER} S"), True, ""),
        ("R and R", times(f"{AT} R", f"{LATER} R"), True, ""),
        ("R and S", times(f"{AT} R", f"{LATER} S"), False, "relative at the start only"),
        ("R and I", times(f"{AT} R", f"{LATER} I"), False, "relative at the start only"),
        ("no time status at the begin", times(AT, f"{LATER} S"), False, "no time status"),
        ("no time status at the end", times(f"{AT} S", LATER), True, ""),
        # identification level
        *((f"IL {level}", {"IL": level}, False, f"identification level is {level}") for level in ("MISMATCH", "INVALID", "OUTDATED", "UNKNOWN")),
        *((f"IL {level}", {"IL": level}, True, "") for level in ("NONE", "HEARSAY", "TRUSTED", "VERIFIED", "CERTIFIED", "SECURE")),
        ("no IL", {"IL": GONE}, True, ""),
        # flags and counters
        ("EF E", {"RD": readings({}, {"EF": "E"})}, False, "error flag for energy"),
        ("EF E at the begin", {"RD": readings({"EF": "E"})}, False, "error flag for energy"),
        ("EF Et", {"RD": readings({}, {"EF": "Et"})}, False, "error flag for energy"),
        ("EF t passes", both(EF="t"), True, ""),
        ("EI differs in 0.4", {"FV": "0.4", "RD": readings({"EI": 3}, {"EI": 4})}, False, "event counters differ"),
        ("EI equal in 0.4", {"FV": "0.4", "RD": readings({"EI": 3}, {"EI": 3})}, True, ""),
        ("EI differs in 1.0", {"FV": "1.0", "RD": readings({"EI": 3}, {"EI": 4})}, True, ""),
        # what it does not ask for
        ("no MS", {"MS": GONE}, True, ""),
        ("no GS, no MS", {"MS": GONE, "GS": GONE}, True, ""),
        ("no IT, no IS, no IF", {"IT": GONE, "IS": GONE, "IF": GONE}, True, ""),
        ("PG with zeros", {"PG": "T007"}, True, ""),
        ("vendor fields anywhere", {"WHAT": 1, "RD": readings({"XX": 5})}, True, ""),
    ),
    # 2. signature section
    ("no SA is secp256r1", sealed(payload(), sa=GONE), True, ""),
    ("curve in capitals", sealed(payload(), sa="ECDSA-SECP256R1-SHA256"), True, ""),
    ("ECDSA in small letters", sealed(payload(), sa="ecdsa-secp256r1-SHA256"), False, "does not know the algorithm"),
    ("two parts", sealed(payload(), sa="ECDSA-secp256r1"), False, "does not know the algorithm"),
    ("curve unknown", sealed(payload(), sa="ECDSA-curve25519-SHA256"), False, "does not know the algorithm"),
    ("the hash name is ignored", sealed(payload(), sa="ECDSA-secp256r1-SHA512"), True, ""),
    ("brainpoolP", sealed(payload(), "ECDSA-brainpool256r1-SHA256", sa="ECDSA-brainpoolP256r1-SHA256"), True, ""),
    ("base64", sealed(payload(), se="base64"), True, ""),
    ("HEX", sealed(payload(), se="HEX"), False, "SE is 'HEX'"),
    ("Base64", sealed(payload(), se="base64").replace('"base64"', '"Base64"'), False, "SE is 'Base64'"),
    ("hex said to be base64", sealed(payload(), se="hex").replace('"hex"', '"base64"'), False, "SD is not encoded as SE says"),
    ("SM is ignored", sealed(payload(), SM="text/plain"), True, ""),
    ("r and s", sealed(payload(), raw=True), False, "DER"),
    ("SA inside the payload is not read", sealed(payload(FV="0.5", SA="ECDSA-secp384r1-SHA256"), "ECDSA-secp384r1-SHA256", sa=GONE), False, ""),
    # 3. signature
    ("changed text", sealed(payload()).replace("1012.75", "1012.76"), False, "does not match"),
    ("text that is not ASCII", sealed(json.dumps(payload(ID="é"), ensure_ascii=False)), True, "UTF-8"),
    ("text that is escaped", sealed(payload(ID="é")), True, ""),
]  # fmt: skip


@pytest.mark.parametrize(("what", "record", "verified", "said"), EXPECTED, ids=[what for what, *_ in EXPECTED])
def test_the_verdict_of_the_tool(what: str, record: str, verified: bool, said: str) -> None:
    read = parse(record)
    name = read.signature.algorithm.name if read.signature.algorithm is not None else "ECDSA-secp256r1-SHA256"
    verdict = verify(read, spki(name)).safe
    assert (verdict.verified, said in verdict.reason) == (verified, True), verdict
    assert ("UTF-8" in verdict.reason) == (what == "text that is not ASCII")


PAIRS: list[tuple[str, dict[str, Any], dict[str, Any], bool, str]] = [
    ("begin and end", {}, {}, True, "law checks hold"),
    ("pages are not looked at", {"PG": "T9"}, {"PG": "T3"}, True, ""),
    ("serial numbers are not compared", {}, {"MS": "other", "GS": "other"}, True, ""),
    ("an end in the begin", {"RD": [BEGIN, END]}, {}, False, "the start record holds an end reading"),
    ("a begin in the end", {}, {"RD": [BEGIN, END]}, False, "the end record holds a begin reading"),
    ("falling", {}, {"RD": [END | {"RV": 1}]}, False, "higher"),
    ("level of the begin", {"IL": "MISMATCH"}, {}, False, "MISMATCH"),
    ("level of the end", {}, {"IL": "UNKNOWN"}, False, "UNKNOWN"),
    ("readings between", {"RD": [BEGIN, BEGIN | {"TX": "C"}]}, {"RD": [END | {"TX": "S"}, END]}, True, ""),
    ("no end", {}, {"RD": [END | {"TX": "C"}]}, False, "no stop values"),
    ("version of the begin", {"FV": "1.4"}, {}, False, "FV"),
]


@pytest.mark.parametrize(("what", "begin", "end", "verified", "said"), PAIRS, ids=[what for what, *_ in PAIRS])
def test_the_verdict_on_two_records(what: str, begin: dict[str, Any], end: dict[str, Any], verified: bool, said: str) -> None:
    first, second = (parse(sealed(payload(**({"RD": [one]} | changes)))) for one, changes in ((BEGIN, begin), (END, end)))
    verdict = verify(second, spki(), begin=first).safe
    assert (verdict.verified, said in verdict.reason) == (verified, True), verdict


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "no public key is given"),
        (point(), "the tool takes a key as SPKI only; this one is a point"),
        (point()[1:], "this one is a bare x,y"),
        ("nonsense", "the form of the key is wrong"),
        (spki("ECDSA-secp256k1-SHA256"), "the tool reads it as a point of secp256r1"),
        (spki(number=2), "the signature does not match"),
    ],
)
def test_keys_that_the_tool_does_not_take(key: Any, said: str) -> None:
    verdict = verify(parse(sealed(payload())), key)
    assert not verdict.safe.verified
    assert said in verdict.safe.reason


@pytest.mark.parametrize("name", CURVES)
def test_the_tool_takes_every_curve(name: str) -> None:
    assert verify(parse(sealed(payload(), name)), spki(name)).safe.verified


def test_the_tool_and_secp192k1() -> None:
    one = PUBLISHED["htb-secp192k1"]
    verdict = verify(parse(one["record"]), one["key"]).safe
    assert (verdict.verified, "not supported here" in verdict.reason) == (False, True)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "htb" not in name])
def test_the_tool_verifies_its_own_test_documents(name: str) -> None:
    assert verify(parse(PUBLISHED[name]["record"]), PUBLISHED[name]["key"]).safe.verified


# ------------------------------------------------------------------------------------------------------------------------- XML


def test_what_is_written_is_read_by_us_and_by_others(tmp_path: Any) -> None:
    records = [sealed(payload(PG="T7", IT="CENTRAL", ID="<&>\"' é", RD=[BEGIN])), sealed(payload(PG="T8", RD=[END]))]
    values = [Value(record, spki().hex().upper(), "1", context) for record, context in zip(records, (safe.BEGIN, safe.END), strict=True)]
    text = to_xml(values)
    assert NOTICE in text
    assert [one._replace(line=0) for one in read_xml(text.encode())] == values
    file = tmp_path / "values.xml"
    file.write_text(text, encoding="utf-8")
    entries = OcmfContainer.from_xml(file, strict=True).entries
    assert [(one.verify_signature(), one.transaction_id, one.context) for one in entries] == [(True, 1, safe.BEGIN), (True, 1, safe.END)]
    assert [one.is_compliant for one in OcmfContainer.from_xml(file).check_eichrecht(errors_only=True)] == [True]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.sampled_from("\r\n\t <&>"), max_size=60))
def test_the_signed_bytes_survive_the_document(text: str) -> None:
    text = "".join(one for one in text if one not in "\ufffe\uffff")
    record = f"OCMF|{{{text}}}|{{}}"
    assert read_xml(to_xml([Value(record, None)]).encode())[0].record == record


def test_documents_as_others_write_them() -> None:
    one = PUBLISHED["ebee-begin-key-with-blanks"]
    text = (
        f'<?xml version="1.0"?>\n<values >\n<value transactionld="15060" context="Transaction.End">\n<signedData>\n  {one["record"]}\n</signedData>'
        f"<publicKey> {one['key']}\n</publicKey><meter><signedData>inside</signedData></meter></value><other/></values>"
    )
    [found] = read_xml(text.encode())
    assert (found.record, found.key, found.transaction, found.context, found.line) == (one["record"], one["key"], "15060", "Transaction.End", 3)
    encoded = f"<values><value><encodedData format='OCMF'>{one['record'].encode().hex()}</encodedData></value></values>"
    assert parse(read_xml(encoded.encode())[0].record).text("MS") == "000033022620"


BOMB = (
    '<!DOCTYPE values [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><values><value><signedData>&b;</signedData></value></values>'
)
FILE = '<!DOCTYPE values [<!ENTITY x SYSTEM "file:///etc/passwd">]><values><value><signedData>&x;</signedData></value></values>'


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        (BOMB, "byte 17", "document type"),
        (FILE, "byte 17", "document type"),
        ('<!DOCTYPE values SYSTEM "http://127.0.0.1:1/x.dtd"><values/>', "byte 50", "document type"),
        ("<values><value><signedData>&x;</signedData></value></values>", "byte 27", "undefined entity"),
        ("<values><value></values>", "byte 17", "mismatched tag"),
        ("<values>", "byte 8", "no element found"),
        ("<results/>", "byte 0", "expected <values>"),
        ("<values/>", "byte 0", "holds no <value>"),
        ("<values><value><signedData> </signedData></value></values>", "byte 0", "holds no <value>"),
    ],
)
def test_documents_that_are_refused(text: str, at: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_xml(text.encode())
    assert caught.value.fault.path == at
    assert said in caught.value.fault.reason


@given(st.binary(max_size=100))
def test_any_document_is_read_or_refused(data: bytes) -> None:
    for text in (data, b"<values>" + data + b"</values>"):
        with pytest.raises(Malformed):
            read_xml(text)


def test_a_transaction_of_the_hub_is_exported() -> None:
    data = {"record": "OCMF|{}|{}", "public_key": "3059", "other": 1}
    assert safe.exported({"id": "1", "device": "d", "data": data}) == [Value("OCMF|{}|{}", "3059", "1", safe.END)]
    both = safe.exported({"id": "1", "device": "d", "data": data | {"begin_record": "OCMF|{ }|{}"}})
    assert [(one.record, one.key, one.context) for one in both] == [("OCMF|{ }|{}", "3059", safe.BEGIN), ("OCMF|{}|{}", "3059", safe.END)]
    both = safe.exported({"id": "1", "device": "d", "data": data | {"begin_record": "OCMF|{ }|{}", "begin_public_key": "3060"}})
    assert [one.key for one in both] == ["3060", "3059"], "the key was changed in between"
    for other in ({}, {"record": "something else"}):
        with pytest.raises(InvalidInput, match="transaction 7 of tic:1 has no signed record"):
            safe.exported({"id": "7", "device": "tic:1", "data": other})
