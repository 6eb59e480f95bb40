"""Every fault of a value, each with its path; and never another verdict than msgspec's."""

from __future__ import annotations

import datetime
import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta, Struct

from gridloom.core import faults
from gridloom.core.errors import InvalidInput


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Point(Struct, forbid_unknown_fields=True):
    x: Annotated[int, Meta(ge=0, le=10)]
    y: Literal["up", "down"] = "up"


class Cat(Struct, tag="cat", forbid_unknown_fields=True):
    lives: int


class Dog(Struct, tag="dog", forbid_unknown_fields=True):
    name: str


class Pair(Struct, forbid_unknown_fields=True):
    begin: int
    end: int

    def __post_init__(self) -> None:
        if self.end < self.begin:
            raise ValueError("end is before begin")


class Everything(Struct, forbid_unknown_fields=True, kw_only=True):
    text: Annotated[str, Meta(min_length=1, max_length=5, pattern="^[a-z]*$")]
    points: Annotated[list[Point], Meta(max_length=3)] = []
    colour: Colour = Colour.RED
    when: Annotated[datetime.datetime, Meta(tz=True)] | None = None
    share: Annotated[float, Meta(gt=0, lt=1)] | None = None
    flags: dict[str, bool] = {}
    animal: Cat | Dog | None = None
    either: int | str | None = None
    two: tuple[int, str] | None = None
    pair: Pair | None = None
    secret: Annotated[int, Meta(le=9)] = 0
    anything: Any = None


GOOD: dict[str, Any] = {
    "text": "abc",
    "points": [{"x": 1}],
    "when": "2026-11-21T00:58:03+01:00",
    "animal": {"type": "cat", "lives": 9},
    "pair": {"begin": 1, "end": 2},
}


def paths(data: Any, type: Any = Everything, **more: Any) -> dict[str, str]:
    return {fault.path: fault.reason for fault in faults.collect(type, data, **more)}


def test_a_good_value_has_no_fault() -> None:
    assert faults.collect(Everything, GOOD) == ()
    assert faults.read(Everything, GOOD).points == [Point(1)]


def test_every_offending_path_is_named_at_once() -> None:
    found = paths(
        {
            "points": [{"x": 11, "y": "upp"}, {"z": 1}],
            "colour": "gren",
            "when": "2026-11-21T00:58:03",
            "share": 1,
            "flags": {"a b": 1},
            "animal": {"type": "cow"},
            "either": [],
            "two": [1],
            "pair": {"begin": 2, "end": 1},
            "texd": "x",
        }
    )
    assert found == {
        "$.text": "is missing",
        "$.points[0].x": "expected an integer at least 0 and at most 10, got 11",
        "$.points[0].y": 'expected one of "down", "up", got "upp" (did you mean "up"?)',
        "$.points[1].x": "is missing",
        "$.points[1].z": "is not known here",
        "$.colour": 'expected one of "red", "green", got "gren" (did you mean "green"?)',
        "$.when": "expected a time zone: end it with Z or an offset such as +01:00",
        "$.share": "expected a number above 0 and below 1, got 1",
        '$.flags["a b"]': "expected a boolean, got an integer",
        "$.animal.type": 'expected one of "cat", "dog", got "cow"',
        "$.either": "expected an integer or a string or null, got an array",
        "$.two": "expected exactly 2 members, got 1",
        "$.pair": "end is before begin",
        "$.texd": 'is not known here (did you mean "text"?)',
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"text": ""}, "expected at least 1 characters, got 0"),
        ({"text": "abcdef"}, "expected at most 5 characters, got 6"),
        ({"text": "ABC"}, "expected a string that matches ^[a-z]*$"),
        ({"text": None}, "expected a string, got null"),
        ({"text": True}, "expected a string, got a boolean"),
    ],
)
def test_strings_are_refused_without_being_repeated(data: dict[str, Any], reason: str) -> None:
    assert paths(data) == {"$.text": reason}


def test_hidden_members_are_not_repeated() -> None:
    assert "1234" in paths({"text": "a", "secret": 1234})["$.secret"]
    assert "1234" not in paths({"text": "a", "secret": 1234}, hide=("secret",))["$.secret"]


def test_a_million_faults_make_a_short_answer() -> None:
    assert len(faults.collect(list[int], ["x"] * 1_000_000)) == faults.MOST


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    with pytest.raises(InvalidInput) as caught:
        faults.read_json(Everything, b'{"text":"a","anything":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert caught.value.faults[0].reason == "nested too deeply"


def test_text_that_is_no_json_names_its_byte() -> None:
    with pytest.raises(InvalidInput) as caught:
        faults.read_json(Everything, b'{"text": "a",, }')
    assert caught.value.faults[0].path == "$"
    assert "byte 13" in caught.value.faults[0].reason


def test_what_the_walk_does_not_know_is_said_in_msgspecs_words() -> None:
    class Odd(Struct):
        when: datetime.date
        code: bytes

    found = paths({"when": "yesterday", "code": "AA=="}, Odd)
    assert list(found) == ["$.when"]
    assert found["$.when"]


def test_the_message_counts_the_rest() -> None:
    with pytest.raises(InvalidInput, match=r"order: \$\.text: is missing \(and 1 more\)"):
        faults.read(Everything, {"bogus": 1}, "order")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["red", "cat", "up", "2026-01-01T00:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "type", "lives", "name", "begin", "end", "q w"]), inner, max_size=3)
    ),
    max_leaves=6,
)
MEMBERS = ["text", "points", "colour", "when", "share", "flags", "animal", "either", "two", "pair", "secret", "anything", "bogus"]


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=6))
def test_the_verdict_is_always_msgspecs(data: dict[str, Any]) -> None:
    try:
        msgspec.convert(data, Everything)
    except msgspec.ValidationError:
        assert faults.collect(Everything, data)
    else:
        assert faults.collect(Everything, data) == ()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=6))
def test_msgspecs_own_fault_is_among_those_found(data: dict[str, Any]) -> None:
    try:
        msgspec.convert(data, Everything)
    except msgspec.ValidationError as error:
        message = str(error)
        path = message[message.rindex("`$") + 1 : -1] if "`$" in message else "$"
        found = [fault.path for fault in faults.collect(Everything, data)]
        # an object's missing or unknown member is msgspec's fault of the object, ours of the member
        assert any(one.startswith(path.replace("[...]", "")) for one in found), (message, found)
