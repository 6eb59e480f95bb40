"""codecs/ocppj against CONFORMANCE R1-R24 (names carry the number), against any bytes, and against a second reading by the ``json`` module."""

from __future__ import annotations

import datetime
import json
import tracemalloc
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridloom.codecs import ocppj
from gridloom.codecs.ocppj import KEYWORD_CODES, Answer, Call, Connection, ErrorCode, Failure, Fault, Ignored, Result, keyword_of, payload_fault
from gridloom.core import faults
from gridloom.core.errors import FieldFault

UUID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def hear(message: Any, connection: Connection | None = None) -> ocppj.Heard:
    """What a connection makes of a message: text as it is, anything else as JSON."""
    return (connection or Connection()).receive(message if isinstance(message, str | bytes) else json.dumps(message))


def refused(heard: ocppj.Heard, id: str = "7") -> tuple[str, Fault, str]:
    """Code, counter and path of an Answer that is a proper CALLERROR."""
    assert isinstance(heard, Answer), heard
    kind, came, code, description, details = json.loads(heard.text)
    assert (kind, came, code, heard.id) == (4, id, heard.code, id)
    assert description
    assert details["path"] == details["faults"][0]["path"]
    return code, heard.fault, details["path"]


def asking(id: str = "1") -> Connection:
    connection = Connection()
    connection.call(id, "Reset", b"{}")
    return connection


# ------------------------------------------------------------------------------------------------------- what is not answered


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("", Fault.NOT_JSON),
        ("hello", Fault.NOT_JSON),
        ('[2,"7","Heartbeat",{}', Fault.NOT_JSON),
        ('[2,"7","Heartbeat",{}]]', Fault.NOT_JSON),
        ('\ufeff[2,"7","Heartbeat",{}]', Fault.NOT_JSON),
        ("[" * 100_000, Fault.NO_ID),
        ('{"2":"7"}', Fault.NOT_AN_ARRAY),
        ('"2"', Fault.NOT_AN_ARRAY),
        ("NaN", Fault.NOT_AN_ARRAY),
        ("[]", Fault.UNKNOWN_TYPE),
        ("[2]", Fault.NO_ID),
        ('[2,7,"Heartbeat",{}]', Fault.NO_ID),
        ('[2,null,"Heartbeat",{}]', Fault.NO_ID),
        ('[2,"\\ud800","Heartbeat",{}]', Fault.NO_ID),
        ('[3,["7"],{}]', Fault.NO_ID),
    ],
)
def test_R14_what_shows_no_id_is_ignored_silently_and_counted(message: str, fault: Fault) -> None:
    if message.startswith("[["):
        fault = Fault.UNKNOWN_TYPE  # nested without end: nobody can say what it is
    assert hear(message) == Ignored(fault)


@pytest.mark.parametrize(
    "message", [b'[2,"7","Heartbeat",{"a":"\xff"}]', b'[2,"7","Heartbeat",{"a":"\xed\xa0\x80"}]', b"\xfe\xff\x00[", '[2,"7","\ud800",{}]']
)
def test_R1_what_is_not_utf8_is_ignored(message: str | bytes) -> None:
    assert hear(message) == Ignored(Fault.NOT_UTF8)


def test_R1_bytes_are_read_as_utf8() -> None:
    assert hear('[2,"7","DataTransfer",{"data":"Zähler 😀"}]'.encode()) == Call("7", "DataTransfer", '{"data":"Zähler 😀"}'.encode())


@pytest.mark.parametrize("kind", [0, 1, 5, 6, -2, 10**30, 2.5, "2", "CALL", None, True, [2], {"2": 2}])
def test_R4_an_unknown_type_is_ignored(kind: Any) -> None:
    assert hear([kind, "7", "Heartbeat", {}]) == Ignored(Fault.UNKNOWN_TYPE)


def test_R3_types_are_2_3_and_4() -> None:
    assert isinstance(hear([2, "1", "Heartbeat", {}]), Call)
    assert isinstance(hear([3, "1", {}], asking()), Result)
    assert isinstance(hear([4, "1", "GenericError", "", {}], asking()), Failure)
    connection = Connection()
    assert json.loads(connection.call("1", "Reset", b'{"a":1}')) == [2, "1", "Reset", {"a": 1}]
    assert json.loads(connection.result("2", b'{"a":1}')) == [3, "2", {"a": 1}]
    assert json.loads(connection.error("3", ErrorCode.NOT_SUPPORTED, "no", b'{"a":1}')) == [4, "3", "NotSupported", "no", {"a": 1}]


# ------------------------------------------------------------------------------------------------------------------------ ids


def test_R5_our_ids_are_unique_on_a_connection_and_short() -> None:
    connection = Connection()
    ids = [connection.next_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 5


def test_R6_an_answer_has_the_very_id_of_its_call() -> None:
    connection = Connection()
    for id in ("", " 7 ", "é😀", 'a"b\\c\n', UUID):
        heard = hear([2, id, "Heartbeat", {}], connection)
        assert heard == Call(id, "Heartbeat", b"{}")
        assert json.loads(connection.result(id, b"{}")) == [3, id, {}]
        assert json.loads(connection.error(id, "GenericError")) == [4, id, "GenericError", "", {}]


def test_R7_an_id_has_at_most_36_characters_and_a_longer_one_is_refused_under_the_whole_id() -> None:
    assert isinstance(hear([2, UUID, "Heartbeat", {}]), Call)
    assert isinstance(hear([2, "é" * 36, "Heartbeat", {}]), Call)
    for long in (UUID + "0", "x" * 50_000):
        assert refused(hear([2, long, "Heartbeat", {}]), long) == ("PropertyConstraintViolation", Fault.ID_TOO_LONG, "message[1]")


def test_R15_an_id_in_progress_is_refused_and_the_first_call_goes_on() -> None:
    connection = Connection()
    assert isinstance(hear([2, "7", "BootNotification", {}], connection), Call)
    for _ in range(2):
        assert refused(hear([2, "7", "Heartbeat", {}], connection)) == ("GenericError", Fault.ID_IN_PROGRESS, "message[1]")
    assert connection.result("7", b"{}") == '[3,"7",{}]'


@pytest.mark.parametrize("finish", ["result", "error"])
def test_R16_an_id_that_was_used_is_refused(finish: str) -> None:
    connection = Connection()
    hear([2, "7", "BootNotification", {}], connection)
    connection.result("7", b"{}") if finish == "result" else connection.error("7", "GenericError")
    assert refused(hear([2, "7", "Heartbeat", {}], connection)) == ("GenericError", Fault.ID_USED_BEFORE, "message[1]")
    assert isinstance(hear([2, "7", "Heartbeat", {}]), Call), "on another connection it is new"


def test_R16_memory_of_ids_is_bounded_and_the_last_ones_are_known() -> None:
    connection = Connection(remembered=8)
    for number in range(1_000):
        assert isinstance(hear([2, str(number), "Heartbeat", {}], connection), Call)
        connection.result(str(number), b"{}")
    assert all(isinstance(hear([2, str(number), "Heartbeat", {}], connection), Answer) for number in range(992, 1_000))
    assert isinstance(hear([2, "991", "Heartbeat", {}], connection), Call)
    assert connection._used is not None
    assert len(connection._used) == 64
    assert not connection._in_progress or connection._in_progress == {"991"}


def test_R16_a_key_is_found_only_where_a_key_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hashes side by side hold others across their border: those are no ids."""
    hashes = {"a": 0x0202020201010101, "b": 0x0404040403030303, "across": 0x0303030302020202, "next": 0x0101010102020202}
    monkeypatch.setattr(ocppj, "hash", hashes.__getitem__, raising=False)
    connection = Connection()
    for id in ("a", "b", "across", "next"):
        assert connection._first_use(id), id
    for id in ("a", "b", "across", "next"):
        assert not connection._first_use(id), id


def test_R17_answers_to_nothing_and_answers_too_late_are_ignored() -> None:
    assert hear([3, "1", {}]) == Ignored(Fault.UNKNOWN_ANSWER)
    assert hear([4, "1", "GenericError", "", {}]) == Ignored(Fault.UNKNOWN_ANSWER)
    connection = asking()
    assert hear([3, "2", {}], connection) == Ignored(Fault.UNKNOWN_ANSWER)
    connection.timed_out("2")
    assert hear([3, "1", {"a": 1}], connection) == Result("1", b'{"a":1}')
    assert hear([3, "1", {}], connection) == Ignored(Fault.UNKNOWN_ANSWER), "answered already"
    connection.call("2", "Reset", b"")
    connection.timed_out("2")
    assert hear([3, "2", {}], connection) == Ignored(Fault.UNKNOWN_ANSWER)


def test_R21_one_call_of_ours_at_a_time_and_theirs_meanwhile() -> None:
    connection = asking()
    with pytest.raises(RuntimeError):
        connection.call("2", "Reset", b"{}")
    assert isinstance(hear([2, "1", "Heartbeat", {}], connection), Call), "the same id in the other direction is another id"
    assert isinstance(hear([2, "2", "Heartbeat", {}], connection), Call)
    assert isinstance(hear([3, "1", {}], connection), Result)
    assert json.loads(connection.call("2", "Reset", b"")) == [2, "2", "Reset", {}]


# ---------------------------------------------------------------------------------------------------------------------- shapes


def test_R8_a_call_has_four_elements_and_its_action_is_kept_as_spelt() -> None:
    assert hear([2, "7", "heartBeat", {"a": [1]}]) == Call("7", "heartBeat", b'{"a":[1]}')
    assert refused(hear([2, "7"])) == ("ProtocolError", Fault.MISSING_ELEMENT, "message[2]")
    assert refused(hear([2, "7", "Heartbeat"])) == ("ProtocolError", Fault.MISSING_ELEMENT, "message[3]")
    assert refused(hear([2, "7", "Heartbeat", {}, {}])) == ("FormationViolation", Fault.EXTRA_ELEMENT, "message[4]")
    wrong: list[Any] = [None, 7, {}, ["Heartbeat"]]
    for action in wrong:
        assert refused(hear([2, "7", action, {}])) == ("FormationViolation", Fault.WRONG_ELEMENT, "message[2]")


@pytest.mark.parametrize("payload", [[], [{}], "{}", 0, 1.5, True, False])
def test_R20_a_payload_that_is_no_object_is_a_formation_violation(payload: Any) -> None:
    assert refused(hear([2, "7", "Heartbeat", payload])) == ("FormationViolation", Fault.PAYLOAD_NO_OBJECT, "$")
    heard = hear([3, "1", payload], asking())
    assert isinstance(heard, Failure)
    assert (heard.code, heard.fault) == (ErrorCode.FORMATION_VIOLATION, Fault.PAYLOAD_NO_OBJECT)


def test_R9_a_result_has_three_elements_else_our_call_has_failed() -> None:
    assert hear([3, "1", {"a": 1}], asking()) == Result("1", b'{"a":1}')
    short, long = hear([3, "1"], asking()), hear([3, "1", {}, {}], asking())
    assert isinstance(short, Failure)
    assert isinstance(long, Failure)
    assert (short.code, short.fault) == (ErrorCode.PROTOCOL_ERROR, Fault.MISSING_ELEMENT)
    assert (long.code, long.fault) == (ErrorCode.FORMATION_VIOLATION, Fault.EXTRA_ELEMENT)
    assert "CALLRESULT" in short.description
    assert json.loads(short.details)["path"] == "message[2]"


def test_R10_an_error_has_five_elements_with_an_object_at_the_end() -> None:
    heard = hear([4, "1", "NotSupported", "no", {"a": 1}], asking())
    assert heard == Failure("1", ErrorCode.NOT_SUPPORTED, "NotSupported", "no", b'{"a":1}')
    connection = Connection()
    assert connection.error("1", "GenericError") == '[4,"1","GenericError","",{}]'
    assert json.loads(connection.error("1", "GenericError", "é" * 300, b""))[3:] == ["é" * 255, {}]
    assert json.loads(connection.error("1", "GenericError", "a\ud800"))[3] == "a\ufffd"


@pytest.mark.parametrize(
    ("rest", "code", "text", "description", "fault"),
    [
        ([], "GenericError", "", "", Fault.MISSING_ELEMENT),
        (["NotSupported"], "NotSupported", "NotSupported", "", Fault.MISSING_ELEMENT),
        (["NotSupported", "no"], "NotSupported", "NotSupported", "no", Fault.MISSING_ELEMENT),
        (["NotSupported", "no", {"a": 1}, 5], "NotSupported", "NotSupported", "no", Fault.EXTRA_ELEMENT),
        ([None, None, None], "GenericError", "", "", Fault.WRONG_ELEMENT),
        (["NotSupported", 7, []], "NotSupported", "NotSupported", "", Fault.WRONG_ELEMENT),
        (["NotSupported", "no", []], "NotSupported", "NotSupported", "no", Fault.WRONG_ELEMENT),
        (["MyOwnError", "no", {}], "GenericError", "MyOwnError", "no", Fault.UNKNOWN_CODE),
        (["NotSupported", "no", None], "NotSupported", "NotSupported", "no", None),
    ],
)
def test_R10_a_mutilated_error_still_tells_that_our_call_has_failed(
    rest: list[Any], code: str, text: str, description: str, fault: Fault | None
) -> None:
    heard = hear([4, "1", *rest], asking())
    assert isinstance(heard, Failure)
    assert (heard.code, heard.text, heard.description, heard.fault) == (code, text, description, fault)
    assert isinstance(json.loads(heard.details), dict)


def test_R11_null_is_read_as_empty_and_empty_is_sent_as_an_object() -> None:
    assert hear([2, "7", "Heartbeat", None]) == Call("7", "Heartbeat", b"{}", Fault.NULL_PAYLOAD)
    assert hear([3, "1", None], asking()) == Result("1", b"{}", Fault.NULL_PAYLOAD)
    connection = Connection()
    assert connection.call("1", "Heartbeat", b"") == '[2,"1","Heartbeat",{}]'
    assert connection.result("1", b"") == '[3,"1",{}]'


def test_R13_the_last_fault_of_a_broken_call_does_not_hide_an_earlier_id() -> None:
    """A CALL that was refused has used its id too (R5)."""
    connection = Connection()
    hear([2, "7"], connection)
    assert refused(hear([2, "7", "Heartbeat", {}], connection)) == ("GenericError", Fault.ID_USED_BEFORE, "message[1]")


@pytest.mark.parametrize("code", ErrorCode)
def test_R20_every_spelling_of_a_code_is_read(code: ErrorCode) -> None:
    for spelt in (code.value, code.value.lower(), f" {code.value.upper()} "):
        assert ErrorCode.read(spelt) is code
    assert ErrorCode.read("FormatViolation") is ErrorCode.FORMATION_VIOLATION
    assert ErrorCode.read("OccurrenceConstraintViolation") is ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION
    for unknown in ("", "RpcFrameworkError", None, 7, ["NotSupported"]):
        assert ErrorCode.read(unknown) is ErrorCode.GENERIC_ERROR


# ------------------------------------------------------------------------------------------------------------------ R23: limits


def test_R23_a_message_above_the_limit_ends_the_connection_with_1009() -> None:
    text = '[2,"7","Heartbeat",{}]'
    assert isinstance(hear(text, Connection(max_message=len(text))), Call)
    assert hear(text, Connection(max_message=len(text) - 1)) == Ignored(Fault.TOO_BIG, 1009)
    assert hear('[2,"7","é",{}]', Connection(max_message=14)) == Ignored(Fault.TOO_BIG, 1009), "bytes are counted"


@pytest.mark.parametrize(
    ("payload", "fault", "path"),
    [
        ('{"a":NaN}', Fault.NO_NUMBER, "$.a"),
        ('{"a":[0,-Infinity]}', Fault.NO_NUMBER, "$.a[1]"),
        ('{"a":1e999}', Fault.NO_NUMBER, "$.a"),
        ('{"a":' + "9" * 5_000 + "}", Fault.NO_NUMBER, "$.a"),
        ('{"a":1,"a":1}', Fault.DUPLICATE_KEY, "$.a"),
        ('{"x":[{"odd name":1},{"odd name":1,"b":2,"odd name":3}]}', Fault.DUPLICATE_KEY, '$.x[1]["odd name"]'),
        ('{"a":1,"\\u0061":1}', Fault.DUPLICATE_KEY, "$.a"),
        ('{"a" : 1 , "a" : 2 }', Fault.DUPLICATE_KEY, "$.a"),
        ('{"a":1e5,"b":{},"a":"\\u00e9"}', Fault.DUPLICATE_KEY, "$.a"),
        ('{"a":{"b":"x\\ud800y"}}', Fault.LONE_SURROGATE, "$.a.b"),
        ('{"a":{"\\udc00":1}}', Fault.LONE_SURROGATE, "$.a"),
        ('{"\\udc00":1,"\\udc00":2}', Fault.LONE_SURROGATE, "$"),
        ('{"a":' + "[" * 5_000 + "]" * 5_000 + "}", Fault.TOO_DEEP, "$"),
        ('{"a":' * 31 + "{}" + "}" * 31, Fault.TOO_DEEP, "$" + ".a" * 31),
    ],
)
def test_R23_json_that_cannot_be_trusted_is_refused_with_its_path(payload: str, fault: Fault, path: str) -> None:
    assert refused(hear(f'[2,"7","DataTransfer",{payload}]')) == ("FormationViolation", fault, path)
    heard = hear(f'[3,"1",{payload}]', asking())
    assert isinstance(heard, Failure)
    assert heard.fault == fault
    lenient = hear(f'[4,"1","NotSupported","no",{payload}]', asking())
    assert isinstance(lenient, Failure)
    assert (lenient.fault, lenient.details) == (fault if fault is not Fault.TOO_DEEP or path != "$" else Fault.MISSING_ELEMENT, b"{}")


def test_R23_the_depth_that_is_allowed_is_allowed() -> None:
    for depth in (1, 6, 7, 8, 9, 31):
        payload = '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)
        assert hear(f'[2,"7","DataTransfer",{payload}]') == Call("7", "DataTransfer", payload.encode())
    assert isinstance(hear('[2,"7","DataTransfer",{"a":[]}]', Connection(max_depth=3)), Call)
    assert isinstance(hear('[2,"7","DataTransfer",{"a":[[]]}]', Connection(max_depth=3)), Answer)


# ----------------------------------------------------------------------------------------------------------- any input at all

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=12)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)
messages = (
    st.tuples(st.just(2), st.text(max_size=40), st.text(max_size=8), objects).map(list)
    | st.tuples(st.just(3), st.just("1"), objects).map(list)
    | st.tuples(st.just(4), st.just("1"), st.sampled_from(list(ErrorCode)), st.text(max_size=8), objects).map(list)
    | st.lists(st.sampled_from([2, 3, 4, "1", "a"]) | values, max_size=6)
)
spellings = st.sampled_from(
    [
        {"separators": (",", ":")},
        {"separators": (",", ":"), "ensure_ascii": False},
        {},
        {"indent": 1, "ensure_ascii": False},
    ]
)


def spelt(message: Any, how: dict[str, Any]) -> bytes:
    return json.dumps(message, **how).encode(errors="surrogatepass")


def check(heard: ocppj.Heard) -> None:
    """Whatever it is, it keeps its promise."""
    if isinstance(heard, Call):
        assert len(heard.id) <= 36
        assert isinstance(json.loads(heard.payload), dict)
    elif isinstance(heard, Answer):
        assert json.loads(heard.text)[:3] == [4, heard.id, heard.code]
    elif isinstance(heard, Failure):
        heard.description.encode()
        assert isinstance(json.loads(heard.details), dict)
    elif isinstance(heard, Result):
        assert isinstance(json.loads(heard.payload), dict)


@given(st.binary() | st.text(st.characters(exclude_categories=())))
def test_any_bytes_and_any_text_are_survived(message: bytes | str) -> None:
    check(hear(message))


@given(messages, spellings, st.data())
def test_damaged_messages_are_survived(message: list[Any], how: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(spelt(message, how))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)))
        cut = data.draw(st.integers(0, 5))
        raw[at : at + cut] = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"{", b"}", b",", b":", b"\\u", b"NaN", b'"a":1,']))
    check(hear(bytes(raw), asking()))


@given(messages, spellings, st.integers(0, 200))
def test_truncated_messages_are_not_json_and_not_answered(message: list[Any], how: dict[str, Any], length: int) -> None:
    raw = spelt(message, how)
    cut = raw[: min(length, len(raw) - 1)]
    assert isinstance(hear(cut, asking()), Ignored)


class Doubled(Exception):
    """The second reader found a key twice."""


def second_reading(raw: bytes) -> tuple[str, Any]:
    """The verdict on one message by plain ``json``: what kind, and with what. One CALL of ours, "1", is outstanding."""
    flawed = False

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal flawed
        flawed = flawed or len({name for name, _ in members}) < len(members)
        return dict(members)

    try:
        text = raw.decode()
        parts = json.loads(text, object_pairs_hook=pairs)
    except ValueError:
        return "ignored", None
    try:
        json.dumps(parts, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        flawed = True
    if not isinstance(parts, list) or len(parts) < 2 or type(parts[0]) is bool or parts[0] not in (2, 3, 4):
        return "ignored", None
    kind, id, *rest = parts
    if not isinstance(id, str) or any("\ud800" <= character <= "\udfff" for character in id):
        return "ignored", None
    if kind == 2:
        right = len(id) <= 36 and len(rest) == 2 and isinstance(rest[0], str) and isinstance(rest[1], dict | None) and not flawed
        return ("call", [id, rest[0], rest[1] or {}]) if right else ("answer", id)
    if id != "1":
        return "ignored", None
    right = kind == 3 and len(rest) == 1 and isinstance(rest[0], dict | None) and not flawed
    return ("result", rest[0] or {}) if right else ("failure", id)


@given(messages, spellings, st.sampled_from([None, b'{"a":1,"a":2}', b"[NaN]", b'"\\ud800"', b'{"\\u0061":1.0,"b":1E2}']))
def test_the_verdict_is_that_of_a_second_reading(message: list[Any], how: dict[str, Any], graft: bytes | None) -> None:
    raw = spelt(message, how)
    if graft is not None:
        raw = raw.replace(b"null", graft)
    heard = hear(raw, asking())
    kind, what = second_reading(raw)
    assert heard.kind == kind
    if isinstance(heard, Call):
        assert [heard.id, heard.action, json.loads(heard.payload)] == what
    elif isinstance(heard, Result):
        assert json.loads(heard.payload) == what
    elif isinstance(heard, Answer | Failure):
        assert heard.id == what


def test_numbers_keep_every_digit_they_came_with() -> None:
    for payload in ('{"a":1.50}', '{"a": 12345678901234567890.10}', '{"a":1E5,"b":"\\u00e9"}'):
        heard = hear(f'[2,"7","DataTransfer",{payload}]')
        assert isinstance(heard, Call)
        assert heard.payload.replace(b" ", b"") == payload.replace(" ", "").encode()


def test_an_idle_connection_costs_less_than_a_kilobyte() -> None:
    Connection()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        many = [Connection() for _ in range(100)]
        fresh = tracemalloc.get_traced_memory()[0]
        for connection in many:
            for number in range(20):
                hear(f'[2,"{number}","Heartbeat",{{}}]', connection)
                connection.result(str(number), b"{}")
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (fresh - before) / len(many) < 256
    assert (used - before) / len(many) < 1_024


# ---------------------------------------------------------------------------------------------------- R20: faults of a payload


class Colour(Enum):
    RED = "Red"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    value: str


class Everything(msgspec.Struct, forbid_unknown_fields=True):
    """One field for each keyword."""

    needed: str
    number: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    real: Annotated[float, msgspec.Meta(gt=0, lt=5)] = 1.0
    tens: Annotated[int, msgspec.Meta(multiple_of=10)] = 10
    short: Annotated[str, msgspec.Meta(min_length=1, max_length=3)] = "a"
    shaped: Annotated[str, msgspec.Meta(pattern="^a+$")] = "a"
    colour: Colour | None = None
    word: Literal["A", "B"] = "A"
    some: Annotated[list[Inner], msgspec.Meta(min_length=1, max_length=2)] = msgspec.field(default_factory=lambda: [Inner("a")])


@pytest.mark.parametrize(
    ("change", "keyword", "path"),
    [
        ({"needed": ...}, "required", "$.needed"),
        ({"some": [{"value": "a"}, {}]}, "required", "$.some[1].value"),
        ({"needed": 7}, "type", "$.needed"),
        ({"needed": None}, "type", "$.needed"),
        ({"number": "1"}, "type", "$.number"),
        ({"number": 1.5}, "type", "$.number"),
        ({"word": 5}, "type", "$.word"),
        ({"word": -(10**40)}, "type", "$.word"),
        ({"word": ", got 5"}, "enum", "$.word"),
        ({"colour": 5}, "type", "$.colour"),
        ({"some": {}}, "type", "$.some"),
        ({"some": [7]}, "type", "$.some[0]"),
        ({"word": "C"}, "enum", "$.word"),
        ({"colour": "Green"}, "enum", "$.colour"),
        ({"number": 0}, "minimum", "$.number"),
        ({"real": 0}, "minimum", "$.real"),
        ({"number": 5}, "minimum", "$.number"),  # a range is one fault; either keyword has the same code
        ({"tens": 11}, "multipleOf", "$.tens"),
        ({"short": ""}, "minLength", "$.short"),
        ({"short": "abcd"}, "maxLength", "$.short"),
        ({"shaped": "b"}, "pattern", "$.shaped"),
        ({"some": []}, "minItems", "$.some"),
        ({"some": [{"value": "a"}] * 3}, "maxItems", "$.some"),
        ({"more": 1}, "additionalProperties", "$.more"),
        ({"some": [{"value": "a", "got, a string": 1}]}, "additionalProperties", '$.some[0]["got, a string"]'),
    ],
)
def test_R20_each_keyword_has_its_code_and_path(change: dict[str, Any], keyword: str, path: str) -> None:
    data = {name: value for name, value in ({"needed": "a"} | change).items() if value is not ...}
    found = faults.collect(Everything, data)
    assert keyword_of(found[0]) == keyword
    said = payload_fault(found)
    assert (said.code, said.path) == (KEYWORD_CODES[keyword], path)
    assert said.description.startswith(f"{path}: ")
    assert json.loads(said.details) == {"path": path, "faults": [{"path": path, "reason": found[0].reason}]}


@pytest.mark.parametrize(
    ("keywords", "code"),
    [
        ("required minItems maxItems", "OccurenceConstraintViolation"),
        ("type", "TypeConstraintViolation"),
        ("enum minimum maximum maxLength format pattern", "PropertyConstraintViolation"),
        ("additionalProperties", "FormationViolation"),
    ],
)
def test_R20_the_table(keywords: str, code: str) -> None:
    assert {KEYWORD_CODES[keyword].value for keyword in keywords.split()} == {code}


def test_R20_dates_rules_of_our_own_and_payloads_that_are_no_object() -> None:
    class Dated(msgspec.Struct):
        at: Annotated[datetime.datetime, msgspec.Meta(tz=True)]

    assert payload_fault(faults.collect(Dated, {"at": "yesterday"})).code == "PropertyConstraintViolation"
    assert payload_fault(faults.collect(Dated, {"at": "2026-01-01T00:00:00"})).code == "PropertyConstraintViolation"
    assert payload_fault(faults.collect(Dated, {"at": 5})).code == "TypeConstraintViolation"
    assert payload_fault([FieldFault("$.a", "may not be after $.b")]).code == "PropertyConstraintViolation"
    assert payload_fault(faults.collect(Dated, [])).code == "FormationViolation"


def test_R20_many_faults_are_counted_and_listed_up_to_a_bound() -> None:
    said = payload_fault(faults.collect(Everything, {"some": [{}] * 2, **{f"x{number}": 1 for number in range(50)}}))
    assert said.description.endswith("(and 52 more)")
    assert len(json.loads(said.details)["faults"]) == ocppj.MOST_FAULTS
    assert said.path == "$.needed"


@pytest.mark.timeout(20)
def test_a_doubled_key_among_very_many_is_found_in_one_pass() -> None:
    """A look for each of the 100,000 keys would take minutes, and the hub would stand still for everybody."""
    names = "".join(f'"k{number}":1,' for number in range(100_000))
    heard = hear(f'[2,"7","Heartbeat",{{{names}"last":1,"last":2}}]', Connection(max_message=4_000_000))
    assert refused(heard) == ("FormationViolation", Fault.DUPLICATE_KEY, "$.last")


def test_what_a_peer_says_of_a_failure_is_kept_at_a_bounded_length() -> None:
    long = "x" * 300_000
    heard = hear([4, "1", long, long, {"more": long}], asking())
    assert isinstance(heard, Failure)
    assert (len(heard.text), len(heard.description), heard.details) == (ocppj.LONGEST_HEARD, ocppj.LONGEST_HEARD, b"{}")
