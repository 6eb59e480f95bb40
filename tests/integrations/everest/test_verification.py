"""Each check says no for its own reason alone; the signature is never valid by mistake; the energy is exact."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integrations.everest.records import BEGIN, CURVES, END, GONE, P256, PUBLISHED, payload, point, readings, sealed, spki

from gridloom.integrations.everest import verification
from gridloom.integrations.everest.keys import PublicKey, WrongKey, public_key
from gridloom.integrations.everest.ocmf import NOTICE, Malformed, parse
from gridloom.integrations.everest.verification import Verdict, signature_matches, verify

NAMES = [
    "signature", "key-source", "begin-and-end", "pagination", "same-meter", "identification-level",
    "units", "values", "time-order", "time-status", "meter-status", "error-flags", "register",
]  # fmt: skip


def judged(record: str, key: Any = None, **more: Any) -> Verdict:
    return verify(parse(record), spki().hex() if key is None else key, **more)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.ok]


def test_a_good_record_passes_every_check_by_name() -> None:
    verdict = judged(sealed(payload()))
    assert (verdict.signature, verdict.energy_wh, verdict.holds) == ("valid", Decimal("12250"), True)
    assert [check.name for check in verdict.checks] == [*NAMES, "notice"]
    assert verdict.checks[-1].detail == NOTICE
    assert "not legally calibrated" in NOTICE


def test_the_json_is_exactly_this() -> None:
    text = judged(sealed(payload())).to_json()
    found = json.loads(text)
    assert list(found) == ["signature", "checks", "energy_wh", "safe"]
    assert all(list(check) == ["name", "ok", "detail"] for check in found["checks"])
    assert found["safe"] == {"verified": True, "reason": "the signature is valid and the law checks hold"}
    assert '"energy_wh": 12250,' in text
    tiny = readings({"RV": "9007199254740993.0001"}, {"RV": "9007199254740993.0003"})
    assert '"energy_wh": 0.2,' in judged(sealed(payload(RD=tiny))).to_json()
    assert '"energy_wh": null,' in judged(sealed(payload(RD=readings()[:1]))).to_json()


FAILING: list[tuple[dict[str, Any], str]] = [
    ({"RD": [BEGIN]}, "begin-and-end"),
    ({"RD": [END]}, "begin-and-end"),
    ({"RD": [BEGIN, BEGIN, END]}, "begin-and-end"),
    ({"RD": [BEGIN, END, END]}, "begin-and-end"),
    ({"RD": readings({"RI": "1-0:2.8.0"}, {"RI": "1-0:2.8.0"})}, "begin-and-end"),
    ({"RD": readings({"RI": GONE}, {"RI": GONE})}, "begin-and-end"),
    ({"PG": GONE}, "pagination"),
    ({"PG": "X7"}, "pagination"),
    ({"PG": "T"}, "pagination"),
    ({"MS": GONE, "GS": GONE}, "same-meter"),
    ({"IL": "MISMATCH"}, "identification-level"),
    ({"IL": "INVALID"}, "identification-level"),
    ({"IL": "OUTDATED"}, "identification-level"),
    ({"IL": "UNKNOWN"}, "identification-level"),
    ({"RD": readings({"RU": "mOhm"}, {"RU": "mOhm"})}, "units"),
    ({"RD": readings({"RU": GONE}, {"RU": GONE})}, "units"),
    ({"RD": readings({}, {"RV": 1000.4})}, "values"),
    ({"RD": readings({}, {}, {"RV": 999.0})}, "values"),
    ({"RD": readings({}, {"RU": "Wh"})}, "values"),
    ({"RD": readings({}, {"TM": "2024-05-01T09:00:00,000+0200 S"})}, "time-order"),
    ({"RD": readings({}, {}, {"TM": "2024-05-01T12:00:00,000+0200 S"})}, "time-order"),
    ({"RD": readings({"TM": "yesterday S"}, {"TM": "yesterday S"})}, "time-order"),
    ({"RD": readings({"TM": "2024-05-01T10:00:00,000+0200"})}, "time-status"),
    ({"RD": readings({"TM": "2024-05-01T10:00:00,000+0200 R"})}, "time-status"),
    ({"RD": readings({"ST": "T"})}, "meter-status"),
    ({"RD": readings({}, {"ST": "M"})}, "meter-status"),
    ({"RD": readings({"ST": GONE}, {"ST": GONE})}, "meter-status"),
    ({"RD": readings({}, {}, {"ST": "F", "RV": 1001})}, "meter-status"),
    ({"RD": readings({}, {"EF": "E"})}, "error-flags"),
    ({"RD": readings({}, {"EF": "tE"})}, "error-flags"),
    ({"RD": readings({}, {}, {"TX": "X", "RV": 1001})}, "error-flags"),
    ({"RD": readings({"RI": "1-0:1.8.1"}, {"RI": "1-0:1.8.2"})}, "register"),
    ({"RD": readings({"EI": 3}, {"EI": 4})}, "event-counter"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name"), FAILING, ids=[f"{name}-{number}" for number, (_, name) in enumerate(FAILING)])
def test_each_check_fails_for_its_own_reason(changes: dict[str, Any], name: str) -> None:
    verdict = judged(sealed(payload(**changes)))
    if name == "time-order" and "yesterday" in str(changes):
        assert failed(verdict) == ["time-order", "time-status"]
    else:
        assert failed(verdict) == [name]
    assert verdict.signature == "valid"
    assert not verdict.holds
    assert all(check.detail for check in verdict.checks)


def test_every_check_failed_above() -> None:
    assert {name for _, name in FAILING} == {*NAMES, "event-counter"} - {"signature", "key-source"}, "those two have their own tests"


PASSING: list[tuple[dict[str, Any], str]] = [
    ({"RD": readings({"TM": "2024-05-01T10:00:00,000+0200 U"}, {"TM": "2024-05-01T10:00:00,000+0200 U"})}, "12250"),
    ({"RD": readings({"TM": "2024-05-01T10:00:00,000+0200 I"}, {"TM": "2024-05-01T10:00:10,000+0200 R"})}, "12250"),
    ({"RD": readings({}, {"RV": 1000.5})}, "0"),
    ({"RD": readings({}, {"EF": "t"})}, "12250"),
    ({"RD": readings({}, {"TX": "P"})}, "12250"),
    ({"RD": readings({}, {"TX": "L"}, {"TX": "S", "RV": 1001}, {"TX": "T", "RV": 1002})}, "12250"),
    ({"RD": readings({"RV": 1}, {"RV": 1500, "RU": "Wh"})}, "500"),
    ({"RD": [*readings({"RI": "1-0:98.8.0.FF", "RV": 0}, {"RI": "1-0:98.8.0.FF", "RV": 2}), *readings()]}, "2000"),
    ({"RD": [*readings({"RI": "1-0:2.8.0"}, {"RI": "1-0:2.8.0"}), *readings()]}, "12250"),
    ({"MS": GONE}, "12250"),
    ({"RD": [readings()[0], {"TX": "E", "RV": 1012.75, "TM": "2024-05-01T11:30:00,000+0200 S"}]}, "12250"),
    ({"RD": readings({"EI": 3}, {"EI": 3})}, "12250"),
    ({"RD": readings({"RI": "01-00:B2.08.00*FF"}, {"RI": "01-00:b2.08.00*FF"})}, "12250"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "energy"), PASSING)
def test_what_the_law_accepts(changes: dict[str, Any], energy: str) -> None:
    verdict = judged(sealed(payload(**changes)))
    assert failed(verdict) == []
    assert verdict.energy_wh == Decimal(energy)


def test_a_fiscal_record_has_no_begin_and_no_end() -> None:
    user = dict.fromkeys(("IS", "IL", "IF", "IT", "ID"), GONE)
    verdict = judged(sealed(payload(PG="F9", RD=[{key: value for key, value in BEGIN.items() if key != "TX"}], **user)))
    assert verdict.holds
    assert verdict.energy_wh is None
    assert "begin-and-end" not in [check.name for check in verdict.checks]


# --------------------------------------------------------------------------------------------------------------- two records


def pair(begin: dict[str, Any] | None = None, end: dict[str, Any] | None = None) -> Verdict:
    first = parse(sealed(payload(**({"PG": "T7", "RD": [BEGIN]} | (begin or {})))))
    return verify(parse(sealed(payload(**({"PG": "T9", "RD": [END]} | (end or {}))))), spki(), begin=first)


def test_begin_and_end_in_two_records() -> None:
    verdict = pair()
    assert (failed(verdict), verdict.energy_wh, verdict.signature) == ([], Decimal(12250), "valid")


@pytest.mark.parametrize(
    ("begin", "end", "name"),
    [
        ({}, {"MS": "M-43"}, "same-meter"),
        ({}, {"GS": "G-2"}, "same-meter"),
        ({}, {"PG": "T7"}, "pagination"),
        ({}, {"PG": "T6"}, "pagination"),
        ({}, {"PG": "F9"}, "pagination"),
        ({"RD": [BEGIN, END]}, {}, "begin-and-end"),
        ({}, {"RD": [BEGIN, END]}, "begin-and-end"),
        ({"IL": "OUTDATED"}, {}, "identification-level"),
        ({}, {"RD": [END | {"RV": 5}]}, "values"),
        ({}, {"RD": [END | {"TM": "2024-04-30T11:30:00,000+0200 S"}]}, "time-order"),
    ],
)
def test_two_records_that_do_not_belong_together(begin: dict[str, Any], end: dict[str, Any], name: str) -> None:
    assert failed(pair(begin, end)) == [name]


def test_each_of_two_records_has_its_own_signature() -> None:
    first, second = sealed(payload(RD=[BEGIN])), sealed(payload(PG="T8", RD=[END]), number=2)
    verdict = verify(parse(second), spki(number=2), begin=parse(first))
    assert verdict.signature == "invalid"
    verdict = verify(parse(second), spki(number=2), begin=parse(first), begin_key=spki(number=1))
    assert (verdict.signature, verdict.holds) == ("valid", True)
    changed = parse(first.replace("1000.5", "1012.0"))
    assert verify(parse(second), spki(number=2), begin=changed, begin_key=spki(number=1)).signature == "invalid"


# ----------------------------------------------------------------------------------------------------------------- signature


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("how", [{}, {"se": "base64"}, {"raw": True}])
def test_every_algorithm(name: str, how: dict[str, Any]) -> None:
    record = sealed(payload(), name, **how)
    assert judged(record, spki(name)).signature == "valid"
    assert judged(record, point(name)[1:].hex()).signature == "valid"
    assert judged(record.replace("1012.75", "1012.76"), spki(name)).signature == "invalid"
    assert judged(record, spki(name, 2)).signature == "invalid"
    assert signature_matches(parse(record), public_key(spki(name)))
    assert not signature_matches(parse(record.replace("1012.75", "1012.76")), public_key(spki(name)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_records(name: str) -> None:
    one = PUBLISHED[name]
    verdict = judged(one["record"], one["key"])
    expected = {
        "keba-secp256r1": ("valid", [], Decimal("0.1")),
        "secp256k1-quoted-compensated": ("valid", [], Decimal(1000)),
        "htb-secp192k1": ("unchecked", ["signature", "begin-and-end", "error-flags"], None),
    }
    assert (verdict.signature, failed(verdict), verdict.energy_wh) == expected.get(name, ("valid", ["begin-and-end"], None))


def test_published_begin_and_end() -> None:
    begin, end = (PUBLISHED[f"nzr-brainpoolP256r1-{which}"] for which in ("begin", "end"))
    verdict = judged(end["record"], end["key"], begin=parse(begin["record"]))
    assert (verdict.holds, verdict.energy_wh) == (True, Decimal(0))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nonsense", "the form of the key is wrong"),
        (spki("ECDSA-secp384r1-SHA256"), "the curve of the key is wrong: the key is on secp384r1, the record was signed on secp256r1"),
        (public_key(spki("ECDSA-secp256k1-SHA256")), "the curve of the key is wrong"),
        (b"\x04" + bytes(64), "the value of the key is wrong"),
    ],
)
def test_a_key_that_cannot_be_used_leaves_the_signature_unchecked(key: Any, said: str) -> None:
    verdict = judged(sealed(payload()), key)
    assert verdict.signature == "unchecked"
    assert failed(verdict) == ["signature"]
    assert verdict.checks[0].detail.startswith(said)
    assert not verdict.safe.verified


def test_another_key_of_the_right_form_and_curve_is_said_to_be_so() -> None:
    verdict = judged(sealed(payload()), spki(number=2))
    assert verdict.signature == "invalid"
    assert "right form, right curve" in verdict.checks[0].detail


def test_without_a_key_and_with_one_that_came_along() -> None:
    record = sealed(payload())
    assert verify(parse(record)).signature == "unchecked"
    assert verify(parse(record)).checks[0].detail == "no public key is given"
    verdict = verify(parse(f"{record}|{spki().hex()}"))
    assert verdict.signature == "valid"
    assert failed(verdict) == ["key-source"], "it vouches for itself"
    assert "came inside the record" in verdict.checks[1].detail
    assert verify(parse(f"{record}|{spki().hex()}"), trust_enclosed=True).holds
    assert verify(parse(f"{record}|{spki().hex()}"), spki(number=2)).signature == "invalid", "a given key goes before"


@pytest.mark.parametrize("name", ["ECDSA-secp521r1-SHA256", "RSA-2048-SHA256", "ECDSA-secp256r1-SHA512"])
def test_an_algorithm_that_ocmf_does_not_have(name: str) -> None:
    verdict = judged(sealed(payload(), sa=name))
    assert verdict.signature == "unchecked"
    assert "is no algorithm of OCMF" in verdict.checks[0].detail


def test_a_signature_that_is_none() -> None:
    verdict = judged(sealed(payload(), SD="00FF"))
    assert verdict.signature == "invalid"
    assert "SD holds no signature" in verdict.checks[0].detail


def test_the_weaker_source_of_two_keys_counts() -> None:
    first, second = parse(f"{sealed(payload(RD=[BEGIN]))}|{spki().hex()}"), parse(sealed(payload(PG="T8", RD=[END])))
    both = parse(f"{sealed(payload(PG='T8', RD=[END]))}|{spki().hex()}")
    assert failed(verify(both, begin=first)) == ["key-source"]
    assert failed(verify(both, begin=first, begin_key=spki())) == ["key-source"]
    assert verify(second, spki(), begin=first, beside=True).holds


def test_the_signature_step_refuses_another_curve() -> None:
    with pytest.raises(WrongKey, match="curve"):
        signature_matches(parse(sealed(payload())), public_key(spki("ECDSA-secp256k1-SHA256")))


def test_the_judgement_uses_the_step_that_the_bench_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "signature_matches", lambda record, key: False)
    assert judged(sealed(payload())).signature == "invalid"


def test_leniencies_are_told_by_name() -> None:
    verdict = judged(sealed(payload(RD=readings({"RV": "0001000.5"}))))
    found = {check.name: check for check in verdict.checks}
    assert found["leniency:quoted-number"].ok
    assert found["leniency:padded-number"].detail.startswith("payload $.RD[0].RV: ")
    assert verdict.holds


RECORD = sealed(payload())
START, STOP = RECORD.index("|") + 1, RECORD.rindex("|")


@settings(max_examples=200)
@given(st.integers(START, STOP - 1), st.binary(max_size=3))
def test_a_changed_text_is_never_valid(at: int, other: bytes) -> None:
    data = RECORD.encode()
    changed = data[:at] + other + data[at + 1 :]
    if changed.split(b"|")[1:2] == data.split(b"|")[1:2]:
        return
    try:
        verdict = verify(parse(changed), PublicKey(public_key(spki()).key, public_key(spki()).algorithm))
    except Malformed:
        return
    assert verdict.signature != "valid"
    assert not verdict.holds
    assert not verdict.safe.verified


VALUES = st.integers(0, 10**9).map(lambda number: f"{number // 1000}.{number % 1000:03}")


@given(VALUES, VALUES, st.sampled_from(["kWh", "Wh"]))
def test_the_energy_is_the_difference_to_the_last_digit(first: str, last: str, unit: str) -> None:
    text = json.dumps(payload(RD=readings({"RU": unit}, {"RU": unit}))).replace("1000.5", first, 1).replace("1012.75", last, 1)
    verdict = judged(sealed(text))
    expected = (Decimal(last) - Decimal(first)) * (1000 if unit == "kWh" else 1)
    assert verdict.energy_wh == (expected if expected >= 0 else None)
    assert ("values" in failed(verdict)) == (expected < 0)
    assert P256 in verdict.checks[0].detail
