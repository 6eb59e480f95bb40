"""The messages against EVerest's own verdicts (samples/codec_cases.json, made by running EVerest's codec; see samples/INDEX.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gridloom.integrations.everest import messages

SAMPLES = Path(__file__).parent / "samples"
CASES: list[dict[str, Any]] = json.loads((SAMPLES / "codec_cases.json").read_text())
KINDS: dict[str, type[messages.Message]] = {
    "PowermeterValues": messages.Powermeter,
    "ReplyStartTransaction": messages.StartTransactionReply,
    "ReplyStopTransaction": messages.StopTransactionReply,
    "RequestStartTransaction": messages.StartTransactionRequest,
}


def test_there_are_52_cases() -> None:
    assert len(CASES) == 52


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_verdict_is_everests(case: dict[str, Any]) -> None:
    payload = case["input_text"].encode()
    if not case["accepted"]:
        with pytest.raises(msgspec.DecodeError):
            messages.decode(KINDS[case["type"]], payload)
        return
    kept = messages.as_kept_by_everest(messages.decode(KINDS[case["type"]], payload))
    assert kept == case["reserialised"]
    assert json.loads(messages.encode(kept)) == case["reserialised"]


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("doc_powermeter_values.json", messages.Powermeter),
        ("doc_reply_start_transaction.json", messages.StartTransactionReply),
        ("doc_reply_stop_transaction.json", messages.StopTransactionReply),
    ],
)
def test_the_documents_examples_are_read_and_written_unchanged(file: str, kind: type[messages.Message]) -> None:
    text = (SAMPLES / file).read_bytes()
    assert json.loads(messages.encode(messages.decode(kind, text))) == json.loads(text)


def test_absent_members_are_left_out_and_never_null() -> None:
    assert messages.encode(messages.StartTransactionReply(status="OK")) == b'{"status":"OK"}'


def test_members_are_in_alphabetical_order() -> None:
    values = messages.Powermeter(timestamp="t", energy_Wh_import=messages.Totals(total=5, L1=1.5))
    assert messages.encode(values) == b'{"energy_Wh_import":{"L1":1.5,"total":5},"timestamp":"t"}'


def test_both_shapes_of_a_request_have_the_same_envelope() -> None:
    for file in ("wire_request_stop_transaction_bare_string.json", "wire_request_stop_transaction_spec_object.json"):
        request = messages.decode(messages.Request, (SAMPLES / file).read_bytes())
        assert isinstance(request.headers, messages.Headers)
        assert str(request.headers.replyTo).startswith("everest_api/1/powermeter/powermeter_1/m2e/reply/")
