"""The schemas as judge: our verdict, code and path against a draft-04 validator, but for the tolerances that FACTS names."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integrations.os3p.payloads import CODES, SCHEMAS, Flaw, beside_the_schema, flaws, is_local_day, payloads, text_of, tolerated

from gridloom.core.errors import InvalidInput
from gridloom.integrations.os3p.errors import PayloadRefused
from gridloom.integrations.os3p.messages import ACTIONS, day, midnight, moment
from gridloom.integrations.os3p.reading import MOST_OF_A_KIND, Read, read, write

quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def reading(name: str, payload: Any, *, strict: bool = False) -> Read:
    return read(name.removesuffix("Response"), json.dumps(payload).encode(), response=name.endswith("Response"), strict=strict)


def by_our_path(found: list[Flaw]) -> dict[str, set[str]]:
    """The codes that R20 allows at each place."""
    codes: dict[str, set[str]] = {}
    for flaw in found:
        codes[text_of(flaw.path)] = {CODES[keyword] for keyword in flaw.keywords}
    if "$" in codes:
        codes["$"] = {"FormationViolation"}  # the payload is no object
    return codes


def test_every_action_has_both_schemas_and_both_types() -> None:
    types = [kind.__name__ for action in ACTIONS.values() for kind in (action.request, action.response)]
    assert sorted(types) == sorted(SCHEMAS)
    assert all(action.request.__name__ == name and action.response.__name__ == f"{name}Response" for name, action in ACTIONS.items())
    assert [action.initiator for action in ACTIONS.values()].count("client") == 8


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_members_and_required_members_are_those_of_the_schema(name: str) -> None:
    def compare(schema: dict[str, Any], info: Any) -> None:
        while not isinstance(info, msgspec.inspect.StructType | msgspec.inspect.VarTupleType):
            if isinstance(info, msgspec.inspect.Metadata):
                info = info.type
            elif isinstance(info, msgspec.inspect.UnionType):
                info = info.types[0]
            else:
                return
        if isinstance(info, msgspec.inspect.VarTupleType):
            compare(schema["items"], info.item_type)
            return
        assert {field.encode_name for field in info.fields} == set(schema["properties"])
        assert {field.encode_name for field in info.fields if field.required} == set(schema.get("required", []))
        for field in info.fields:
            compare(schema["properties"][field.encode_name], field.type)

    action = ACTIONS[name.removesuffix("Response")]
    compare(SCHEMAS[name], msgspec.inspect.type_info(action.response if name.endswith("Response") else action.request))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@quick
@given(data=st.data())
def test_a_strict_reader_agrees_with_the_schema(name: str, data: st.DataObject) -> None:
    payload = data.draw(payloads(name, wrong=data.draw(st.booleans())))
    judged = {} if payload is None else payload  # R11
    codes = by_our_path([flaw for flaw in flaws(name, judged) if tolerated(name, flaw, judged) != ""])  # "": I5
    for _, path in beside_the_schema(name, judged):
        codes.setdefault(text_of(path), set()).add("PropertyConstraintViolation")
    if not codes:
        assert all(deviation.code is None for deviation in reading(name, payload, strict=True).deviations)
        return
    with pytest.raises(PayloadRefused) as refused:
        reading(name, payload, strict=True)
    assert refused.value.path in codes
    assert refused.value.error_code in codes[refused.value.path]
    assert json.loads(refused.value.details)["path"] == refused.value.path


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@quick
@given(data=st.data())
def test_a_tolerant_reader_agrees_but_for_the_named_tolerances(name: str, data: st.DataObject) -> None:
    payload = data.draw(payloads(name, wrong=data.draw(st.booleans())))
    judged = {} if payload is None else payload  # R11
    found = [(flaw, tolerated(name, flaw, judged)) for flaw in flaws(name, judged)]
    faults = by_our_path([flaw for flaw, kind in found if kind is None])
    if faults:
        with pytest.raises(PayloadRefused) as refused:
            reading(name, payload)
        assert refused.value.path in faults
        assert refused.value.error_code in faults[refused.value.path]
        return
    told = [(deviation.kind.value, deviation.path) for deviation in reading(name, payload).deviations if deviation.code is not None]
    expected = {(kind, text_of(flaw.path)) for flaw, kind in found if kind} | {
        (kind, text_of(path)) for kind, path in beside_the_schema(name, judged)
    }
    counted = Counter(kind for kind, _ in expected)
    assert set(told) <= expected
    assert Counter(kind for kind, _ in told) == {kind: min(count, MOST_OF_A_KIND) for kind, count in counted.items()}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
@quick
@given(data=st.data())
def test_what_is_written_satisfies_the_schema_and_is_read_back_without_deviation(name: str, data: st.DataObject) -> None:
    message = reading(name, data.draw(payloads(name, wrong=False))).message
    try:
        written = write(message)
    except InvalidInput:  # one of the rules for senders; test_messages names each
        return
    plain = json.loads(written)
    assert [flaw for flaw in flaws(name, plain) if not is_local_day(flaw.value)] == []  # I5
    again = read(name.removesuffix("Response"), written, response=name.endswith("Response"), strict=True)
    assert again.message == message
    assert again.deviations == ()


@given(st.dates())
def test_a_local_day_is_its_first_ten_characters(date: Any) -> None:
    assert day(midnight(date)) == date
    assert day(midnight(date)[:10] + "T23:59:59-12:00") == date


def test_moments_are_exact() -> None:
    assert moment("1970-01-01T00:00:00Z") == 0
    assert moment("2013-02-01t16:09:18.1234567+01:00") == moment("2013-02-01T15:09:18.123456Z") == 1_359_731_358_123_456
    assert moment("2016-12-31T23:59:60Z") == moment("2017-01-01T00:00:00Z")
    with pytest.raises(ValueError, match="beyond the calendar"):
        moment("0001-01-01T00:00:00+01:00")
