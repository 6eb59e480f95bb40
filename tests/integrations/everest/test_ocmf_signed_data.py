"""Records are found in whatever they are handed on, with the key beside them, and begin and end are put together."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integrations.everest.records import BEGIN, END, payload, sealed, spki

from gridloom.integrations.everest import many
from gridloom.integrations.everest.ocmf import Malformed, parse
from gridloom.integrations.everest.safe import Value, to_xml
from gridloom.integrations.everest.signed_data import claims, read

ONE = sealed(payload())
FIRST, LAST = sealed(payload(RD=[BEGIN])), sealed(payload(PG="T8", RD=[END]))
KEY = spki().hex()


def texts(data: bytes | str | Any) -> list[str]:
    raw = data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else json.dumps(data).encode()
    return [parse(one.record).payload.decode() for one in read(raw)]


SIGNED = ONE.split("|")[1]


@pytest.mark.parametrize(
    "data",
    [
        ONE,
        f"\n  {ONE}\r\n\n",
        "\ufeff" + ONE,
        ONE.encode().hex(),
        ONE.encode().hex().upper() + "\n",
        "\n".join(ONE.encode().hex()[index : index + 64] for index in range(0, 2 * len(ONE), 64)),
        base64.b64encode(ONE.encode()).decode(),
        base64.encodebytes(ONE.encode()).decode(),
        to_xml([Value(ONE, KEY)]),
        {"signedMeterData": base64.b64encode(ONE.encode()).decode(), "signingMethod": "", "encodingMethod": "OCMF", "publicKey": ""},
        {"signed_meter_data": ONE, "signing_method": "", "encoding_method": "OCMF"},
        {"value": ONE, "format": "SignedData", "measurand": "Energy.Active.Import.Register"},
        [2, "id", "StopTransaction", {"transactionData": [{"sampledValue": [{"value": "12"}, {"value": ONE, "format": "SignedData"}]}]}],
    ],
)  # fmt: skip
def test_one_record_however_it_is_handed_on(data: Any) -> None:
    assert texts(data) == [SIGNED]


def test_many_records_in_a_file() -> None:
    loose = FIRST.replace('"RD"', '\n "RD"')  # not the text that was signed any more, but still one record
    found = read(f"{ONE}\n\n{loose}\n{LAST}\n".encode())
    assert [one.where for one in found] == ["line 1", "line 3", "line 5"]
    assert [one.record.decode() for one in found] == [ONE, loose, LAST]
    found = read(f"{FIRST.encode().hex()}\n\n{LAST.encode().hex()}\n".encode())
    assert [(one.where, parse(one.record).text("PG")) for one in found] == [("line 1", "T7"), ("line 3", "T8")]


def test_what_stands_between_records_spoils_none_of_them() -> None:
    def parts(text: str) -> list[tuple[str, str]]:
        return [(one.where, one.record.decode()) for one in read(text.encode())]

    assert parts(f"{ONE}\ngarbage\n{LAST}\n") == [("line 1", ONE), ("line 2", "garbage"), ("line 3", LAST)]
    assert parts(f"{ONE}\r\n\n\ngarbage\nand more\n") == [("line 1", ONE), ("line 4", "garbage\nand more")]
    assert parts(f"garbage\n{ONE}\n{LAST}") == [("line 1", "garbage"), ("line 2", ONE), ("line 3", LAST)]
    assert parts(f"{ONE}|{KEY}\ngarbage") == [("line 1", f"{ONE}|{KEY}"), ("line 2", "garbage")]
    digits = ONE.encode().hex()
    assert parts(f"{digits}\ngarbage\n{digits}") == [("line 1", digits), ("line 2", "garbage"), ("line 3", digits)]


@pytest.mark.parametrize("behind", [f"|\n{KEY}", f"\n|{KEY}", f"|{KEY[:64]}\n{KEY[64:]}"])
def test_a_key_on_further_lines_still_belongs_to_the_record(behind: str) -> None:
    assert [one.record.decode() for one in read((ONE + behind).encode())] == [ONE + behind]


def test_keys_and_contexts_come_along() -> None:
    ocpp = {
        "transactionId": "abc",
        "meterValue": [
            {"sampledValue": [{"context": "Transaction.Begin", "signedMeterValue": {"signedMeterData": FIRST, "publicKey": KEY}}]},
            {"sampledValue": [{"context": "Transaction.End", "signedMeterValue": {"signedMeterData": LAST, "publicKey": KEY}}]},
        ],
    }
    [claim] = claims(read(json.dumps(ocpp).encode()))
    assert claim.begin is not None
    assert (claim.begin.record.decode(), claim.record.record.decode(), claim.record.key, claim.record.transaction) == (FIRST, LAST, KEY, "abc")
    assert claim.record.where == "$.meterValue[1].sampledValue[0].signedMeterValue"
    assert many.claim(claim, None, False).holds
    everest = {"status": "OK", "start_signed_meter_value": {"signed_meter_data": FIRST}, "signed_meter_value": {"signed_meter_data": LAST}}
    [claim] = claims(read(json.dumps(everest).encode()))
    assert claim.begin is not None
    assert many.claim(claim, KEY, False).holds


def test_an_end_that_holds_its_begin_stands_alone_in_ocpp_but_not_in_the_tools_document() -> None:
    samples = [{"context": f"Transaction.{which}", "format": "SignedData", "value": record} for which, record in (("Begin", FIRST), ("End", ONE))]
    assert [one.begin for one in claims(read(json.dumps({"transactionData": [{"sampledValue": samples}]}).encode()))] == [None, None]
    document = to_xml([Value(FIRST, KEY, "1", "Transaction.Begin"), Value(ONE, KEY, "1", "Transaction.End")])
    [claim] = claims(read(document.encode()))
    verdict = many.claim(claim, None, False)
    assert not verdict.safe.verified
    assert "begin reading" in verdict.safe.reason


def test_records_of_different_transactions_are_not_put_together() -> None:
    for values in (
        [Value(FIRST, KEY, "1", "Transaction.Begin"), Value(LAST, KEY, "2", "Transaction.End")],
        [Value(FIRST, KEY, None, "Transaction.Begin"), Value(LAST, KEY, None, "Transaction.End")],
        [Value(FIRST, KEY, "1", "Transaction.Begin"), Value(LAST, KEY, "1", "Transaction.Begin")],
        [Value(FIRST, KEY, "1", "Transaction.Begin"), Value(LAST, KEY, "1", "Transaction.End"), Value(ONE, KEY, "1", None)],
    ):
        found = claims(read(to_xml(values).encode()))
        assert [one.begin for one in found] == [None] * len(values)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"{", "byte 1"),
        (b'{"a":1} x', "byte 8"),
        (b"{}", "$"),
        (b'{"value": "1", "format": "Raw"}', "$"),
        (b'{"signedMeterData": 5}', "$"),
        (b'{"a":"\xff"}', "byte 6"),
        (b"[" * 100_000, "byte 0"),
        (b"[" * 150 + b"]" * 150, "$" + "[0]" * 66 + "["),
    ],
)
def test_documents_without_a_record(data: bytes, path: str) -> None:
    with pytest.raises(Malformed) as caught:
        read(data)
    assert caught.value.fault.path == path


@given(st.binary(max_size=80), st.sampled_from([b"", b"{", b"<", b"OCMF|", b"[[", b'{"signedMeterData":"']))
def test_any_document_is_read_or_refused(data: bytes, start: bytes) -> None:
    try:
        found = claims(read(start + data))
    except Malformed:
        return
    for one in found:
        with pytest.raises(Malformed):
            many.claim(one, None, False)
