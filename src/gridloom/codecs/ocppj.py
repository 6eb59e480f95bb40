"""CALL, CALLRESULT, CALLERROR: the grammar that OS³P and OCPP 1.6J share (OS³P guide chapter 4; CONFORMANCE R1-R24). No clock, no socket.

A ``Connection`` is told every text that came and says what it is, always as a value: ``Call``, ``Result``, ``Failure``, ``Answer`` (send this text)
or ``Ignored``. Nothing that a peer sends raises. ``fault`` of a value is the name of the counter for what was wrong with it, or None.

How far a broken CALL is answered: what shows its id is answered with that very id, whole, even when the id is longer than 36 characters (R6, R13);
what does not (no JSON, no array, id not a string) is ignored (R14). Text that is JSON but for NaN, a lone surrogate or its depth shows its id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum
from functools import cache
from types import GenericAlias
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from gridloom.core.errors import FieldFault
from gridloom.core.faults import kind, member

LONGEST_ID = 36
"""Characters of an id (R7): a UUID fits."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message (R23)."""
MAX_DEPTH = 32
"""Arrays and objects one inside the other, the message's own array included (R23)."""
REMEMBERED = 256
"""Ids of finished CALLs that a connection knows again (R16): eight bytes each, as they come."""
LONGEST_DESCRIPTION = 255
"""Characters of a description that we send."""
LONGEST_HEARD = 500
"""Characters of the code and the description of a CALLERROR that are kept: they are kept for years and shown to people."""
MOST_FAULTS = 20
"""Faults listed in the details of one CALLERROR."""
TOO_BIG = 1009
"""The close code for a message above the limit (RFC 6455 7.4.1)."""


class MessageType(IntEnum):
    """R3."""

    CALL = 2
    CALLRESULT = 3
    CALLERROR = 4


class ErrorCode(StrEnum):
    """What a CALLERROR says (guide Table 7, OCPP-J 1.6 Table 7: the same words with the same spelling mistakes). Sent as spelt here."""

    NOT_IMPLEMENTED = "NotImplemented"
    NOT_SUPPORTED = "NotSupported"
    INTERNAL_ERROR = "InternalError"
    PROTOCOL_ERROR = "ProtocolError"
    SECURITY_ERROR = "SecurityError"
    FORMATION_VIOLATION = "FormationViolation"
    PROPERTY_CONSTRAINT_VIOLATION = "PropertyConstraintViolation"
    OCCURENCE_CONSTRAINT_VIOLATION = "OccurenceConstraintViolation"
    TYPE_CONSTRAINT_VIOLATION = "TypeConstraintViolation"
    GENERIC_ERROR = "GenericError"

    @classmethod
    def read(cls, text: object) -> ErrorCode:
        """Any spelling, in any case; what is no known code is GenericError (R20)."""
        return _SPELLINGS.get(text.strip().lower(), cls.GENERIC_ERROR) if isinstance(text, str) else cls.GENERIC_ERROR


_SPELLINGS = {code.lower(): code for code in ErrorCode} | {
    "formatviolation": ErrorCode.FORMATION_VIOLATION,
    "occurrenceconstraintviolation": ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION,
}


class Fault(StrEnum):
    """What was wrong with a message: the label of a counter."""

    TOO_BIG = "too-big"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NOT_AN_ARRAY = "not-an-array"
    UNKNOWN_TYPE = "unknown-type"
    NO_ID = "no-id"
    ID_TOO_LONG = "id-too-long"
    ID_IN_PROGRESS = "id-in-progress"
    ID_USED_BEFORE = "id-used-before"
    MISSING_ELEMENT = "missing-element"
    EXTRA_ELEMENT = "extra-element"
    WRONG_ELEMENT = "wrong-element"
    """The action is no string, or the code, description or details of a CALLERROR are not what they should be."""
    PAYLOAD_NO_OBJECT = "payload-no-object"
    NULL_PAYLOAD = "null-payload"
    """Read as ``{}`` (R11)."""
    DUPLICATE_KEY = "duplicate-key"
    NO_NUMBER = "no-number"
    """NaN, Infinity, or a number that nothing can hold."""
    LONE_SURROGATE = "lone-surrogate"
    """An escape such as ``\\ud800`` alone: no UTF-8 can say it (R1)."""
    TOO_DEEP = "too-deep"
    UNKNOWN_CODE = "unknown-code"
    """A CALLERROR with a code that is in no table: read as GenericError, its text kept."""
    UNKNOWN_ANSWER = "unknown-answer"
    """To no CALL of ours, or to one whose time is over (R17)."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """The peer asks. Answer with ``Connection.result`` or ``.error`` and this id; until then the id is in progress."""

    kind: ClassVar[Literal["call"]] = "call"
    id: str
    action: str
    payload: bytes
    """One JSON object, without duplicate keys; ``{}`` where null came."""
    fault: Fault | None = None


class Result(msgspec.Struct, frozen=True, gc=False):
    """The peer's CALLRESULT to our CALL."""

    kind: ClassVar[Literal["result"]] = "result"
    id: str
    payload: bytes
    fault: Fault | None = None


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Our CALL has failed: a CALLERROR, however mutilated, or a CALLRESULT that cannot be read (then ``fault`` says why)."""

    kind: ClassVar[Literal["failure"]] = "failure"
    id: str
    code: ErrorCode
    text: str
    """The code as the peer spelt it; empty if there was none."""
    description: str
    details: bytes
    """One JSON object."""
    fault: Fault | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A CALL that nobody needs to look at: send ``text``, in the order of the CALLs (R21)."""

    kind: ClassVar[Literal["answer"]] = "answer"
    id: str
    code: ErrorCode
    text: str
    fault: Fault


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """Not to be answered. ``close``: end the connection with this close code (R23), or None."""

    kind: ClassVar[Literal["ignored"]] = "ignored"
    fault: Fault
    close: int | None = None


Heard = Call | Result | Failure | Answer | Ignored


class Connection:
    """One side of one connection. About 150 bytes until CALLs come, then at most eight bytes for each of the last ``remembered``."""

    __slots__ = ("_decoder", "_in_progress", "_max_depth", "_max_message", "_number", "_outstanding", "_remembered", "_used")

    def __init__(self, *, max_message: int = MAX_MESSAGE, max_depth: int = MAX_DEPTH, remembered: int = REMEMBERED) -> None:
        self._max_message = max_message
        self._max_depth = max_depth
        self._remembered = remembered * _HASH
        self._decoder = _decoder(min(max_depth, _SHALLOW) - 1)
        self._in_progress: set[str] | None = None
        self._used: bytearray | None = None
        self._number = 0
        self._outstanding: str | None = None

    # ---------------------------------------------------------------------------------------------------------- hearing

    def receive(self, message: str | bytes) -> Heard:
        """What came, as text or as its UTF-8 bytes. Never raises."""
        if len(message) > self._max_message:
            return Ignored(Fault.TOO_BIG, TOO_BIG)
        try:
            raw = message.encode() if isinstance(message, str) else message.decode().encode()
        except UnicodeError:
            return Ignored(Fault.NOT_UTF8)
        if len(raw) > self._max_message:
            return Ignored(Fault.TOO_BIG, TOO_BIG)
        try:
            parts = self._decoder.decode(raw)
        except (ValueError, RecursionError):  # no JSON, no array, deeper than usual, or one of the oddities of _read_closely()
            return self._read_closely(raw)
        written = _encode(parts)
        # What is written again as it came had no key twice, for one of the two would be lost: much quicker than to look at each key.
        if written == raw or written == msgspec.json.format(raw, indent=-1):
            return self._judge(parts, written[len(_encode(parts[:-1])) : -1], None)
        if _has_doubled(raw):
            return self._read_closely(raw)
        return self._judge(parts, _last(raw), None)  # other spellings: escapes, 1E5

    def _read_closely(self, raw: bytes) -> Heard:
        """Slow and exact: which flaw, and where. What is only deeper than usual goes on as if nothing were."""
        try:
            parts = json.loads(raw.decode(), object_pairs_hook=_members, parse_int=_integer)
        except RecursionError:
            head = _HEAD.match(raw)
            parts = json.loads(head[0] + b"]") if head else []
            return self._judge(parts, b"", _Flaw(Fault.TOO_DEEP, "$", "is nested too deeply"))
        except ValueError:
            return Ignored(Fault.NOT_JSON)
        if not isinstance(parts, list):
            return Ignored(Fault.NOT_AN_ARRAY)
        flaw = _flaw_of(parts, self._max_depth)
        return self._judge(parts, b"" if flaw or not parts else _last(raw), flaw)

    def _judge(self, parts: list[Any], last: bytes, flaw: _Flaw | None) -> Heard:
        """``last``: the text of the last element, if there is no flaw."""
        kind = parts[0] if parts else None
        if kind not in _TYPES:
            return Ignored(Fault.UNKNOWN_TYPE)
        id = parts[1] if len(parts) > 1 else None
        if not isinstance(id, str) or _SURROGATE.search(id):
            return Ignored(Fault.NO_ID)
        if kind == MessageType.CALL:
            return self._hear_call(id, parts, last, flaw)
        if id != self._outstanding:
            return Ignored(Fault.UNKNOWN_ANSWER)
        self._outstanding = None
        return _result(id, parts, last, flaw) if kind == MessageType.CALLRESULT else _failure(id, parts, flaw)

    def _hear_call(self, id: str, parts: list[Any], last: bytes, flaw: _Flaw | None) -> Call | Answer:
        if len(id) > LONGEST_ID:
            reason = f"expected at most {LONGEST_ID} characters, got {len(id)}"
            return self._refuse(id, Fault.ID_TOO_LONG, ErrorCode.PROPERTY_CONSTRAINT_VIOLATION, "message[1]", reason)
        if self._in_progress is not None and id in self._in_progress:
            return self._refuse(id, Fault.ID_IN_PROGRESS, ErrorCode.GENERIC_ERROR, "message[1]", "is the id of a CALL that is being handled")
        if not self._first_use(id):
            return self._refuse(id, Fault.ID_USED_BEFORE, ErrorCode.GENERIC_ERROR, "message[1]", "was the id of an earlier CALL on this connection")
        shape = _shape(parts, flaw)
        if shape is not None:
            return self._refuse(id, shape.fault, _SHAPE_CODES.get(shape.fault, ErrorCode.FORMATION_VIOLATION), shape.path, shape.reason)
        if self._in_progress is None:
            self._in_progress = set()
        self._in_progress.add(id)
        return Call(id, parts[2], last) if parts[3] is not None else Call(id, parts[2], b"{}", Fault.NULL_PAYLOAD)

    def _refuse(self, id: str, fault: Fault, code: ErrorCode, path: str, reason: str) -> Answer:
        return Answer(id, code, _error(id, code, f"{path}: {reason}", _details([FieldFault(path, reason)])), fault)

    def _first_use(self, id: str) -> bool:
        """Whether the id is new here; it is not any more. Hashes are kept: Python's are salted, so nobody can look for two ids with the same."""
        key = hash(id).to_bytes(_HASH, "little", signed=True)
        if self._used is None:
            self._used = bytearray()
        used = self._used
        found = used.find(key)
        while found > 0 and found % _HASH:
            found = used.find(key, found + 1)
        if found >= 0:
            return False
        used += key
        if len(used) > self._remembered:
            del used[:_HASH]
        return True

    # ---------------------------------------------------------------------------------------------------------- speaking

    def next_id(self) -> str:
        """For our next CALL: unique on this connection, short (R5, R7)."""
        self._number += 1
        return str(self._number)

    def call(self, id: str, action: str, payload: bytes) -> str:
        """The text of our CALL, which is outstanding from now on. Raises RuntimeError while another one is (R21)."""
        if self._outstanding is not None:
            raise RuntimeError(f"CALL {self._outstanding} is still outstanding")
        text = f"[2,{_quoted(id)},{_quoted(action)},{payload.decode() or '{}'}]"
        self._outstanding = id
        return text

    def timed_out(self, id: str) -> None:
        """Nobody waits for the answer to this CALL of ours any more; if it comes it is ignored (R17). Does nothing if it was answered."""
        if self._outstanding == id:
            self._outstanding = None

    def result(self, id: str, payload: bytes) -> str:
        """The text of the CALLRESULT to the peer's CALL ``id``. ``payload``: one JSON object in UTF-8; empty means ``{}``."""
        self._finish(id)
        return f"[3,{_quoted(id)},{payload.decode() or '{}'}]"

    def error(self, id: str, code: str, description: str = "", details: bytes = b"{}") -> str:
        """The text of the CALLERROR to the peer's CALL ``id``. ``code``: an ErrorCode; ``details``: one JSON object in UTF-8.

        The description is cut to ``LONGEST_DESCRIPTION``.
        """
        self._finish(id)
        return _error(id, code, description, details)

    def _finish(self, id: str) -> None:
        if self._in_progress is not None:
            self._in_progress.discard(id)


# ------------------------------------------------------------------------------------------------------------ one message

_HASH = 8
_SHALLOW = 9
"""Depth that the quick way reads. Its type doubles with each level; what the systems send has seven at most."""
_TYPES = tuple(MessageType)
_HEAD = re.compile(rb'\s*\[\s*[0-9]{1,9}\s*,\s*"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"')
"""Type and id of a message whose rest cannot be read."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_DIGITS = 4_300
"""Of an integer that Python, and so msgspec, reads."""
_ELEMENTS = {MessageType.CALL: 4, MessageType.CALLRESULT: 3}
_SHAPE_CODES = {Fault.MISSING_ELEMENT: ErrorCode.PROTOCOL_ERROR}
"""R19, R20: every other fault of the shape is a FormationViolation."""
_encode = msgspec.json.Encoder().encode


class _Flaw(NamedTuple):
    fault: Fault
    path: str
    """From the payload's root ``$``, or ``message[1]`` for the elements before it."""
    reason: str


class _Doubled(dict[str, Any]):
    """An object in which ``key`` came more than once."""

    key = ""


@cache
def _decoder(depth: int) -> msgspec.json.Decoder[list[Any]]:
    """Reads an array of JSON values that have at most ``depth`` levels, as quickly as if any depth were right."""
    scalar: Any = None | bool | int | float | str
    value = scalar
    for _ in range(depth):
        value = scalar | GenericAlias(list, (value,)) | GenericAlias(dict, (str, value))
    return msgspec.json.Decoder(GenericAlias(list, (value,)))


def _last(raw: bytes) -> bytes:
    """The last element of an array, as it was written."""
    return bytes(msgspec.json.decode(raw, type=list[msgspec.Raw])[-1])


def _has_doubled(raw: bytes) -> bool:
    """Whether any object of this valid text has a key twice."""
    found = False

    def look(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found = found or len(dict(pairs)) != len(pairs)

    json.loads(raw.decode(), object_pairs_hook=look, parse_int=float)
    return found


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    doubled = _Doubled(members)
    seen: set[str] = set()
    for doubled.key, _ in pairs:
        if doubled.key in seen:
            break
        seen.add(doubled.key)
    return doubled


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _flaw_of(parts: list[Any], max_depth: int) -> _Flaw | None:
    """The first flaw of a message that was read leniently. The elements before the last are named ``message[…]``, the last is ``$``."""
    for index, part in enumerate(parts):
        found = _find_flaw(part, max_depth - 1)
        if found is not None:
            root = "$" if index == len(parts) - 1 and index > 1 else f"message[{index}]"
            return found._replace(path=root + found.path)
    return None


def _find_flaw(value: Any, levels: int) -> _Flaw | None:
    """The first flaw of a value, its path without the root. It stops where ``levels`` are used up."""
    if isinstance(value, str):
        return _Flaw(Fault.LONE_SURROGATE, "", "has half a surrogate pair, which is no character") if _SURROGATE.search(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else _Flaw(Fault.NO_NUMBER, "", "is no number of JSON, or one beyond all bounds")
    if not isinstance(value, list | dict):
        return None
    if levels == 0:
        return _Flaw(Fault.TOO_DEEP, "", "is nested too deeply")
    if isinstance(value, list):
        return _first_flaw(enumerate(value), levels)
    if any(_SURROGATE.search(name) for name in value):  # before a name stands in a path
        return _Flaw(Fault.LONE_SURROGATE, "", "has a name with half a surrogate pair, which is no character")
    if isinstance(value, _Doubled):
        return _Flaw(Fault.DUPLICATE_KEY, member("", value.key), "came more than once")
    return _first_flaw(value.items(), levels)


def _first_flaw(children: Iterable[tuple[int | str, Any]], levels: int) -> _Flaw | None:
    for key, child in children:
        found = _find_flaw(child, levels - 1)
        if found is not None:
            return found._replace(path=(f"[{key}]" if isinstance(key, int) else member("", key)) + found.path)
    return None


def _shape(parts: list[Any], flaw: _Flaw | None) -> _Flaw | None:
    """What is wrong with a CALL or CALLRESULT whose type and id are right."""
    count = _ELEMENTS[parts[0]]
    if flaw is not None:
        return flaw
    if len(parts) < count:
        return _Flaw(Fault.MISSING_ELEMENT, f"message[{len(parts)}]", f"is missing: expected {count} elements, got {len(parts)}")
    if len(parts) > count:
        return _Flaw(Fault.EXTRA_ELEMENT, f"message[{count}]", f"is too many: expected {count} elements, got {len(parts)}")
    if count == _ELEMENTS[MessageType.CALL] and not isinstance(parts[2], str):
        return _Flaw(Fault.WRONG_ELEMENT, "message[2]", f"expected the action, a string, got {kind(parts[2])}")
    if parts[-1] is not None and not isinstance(parts[-1], dict):
        return _Flaw(Fault.PAYLOAD_NO_OBJECT, "$", f"expected an object, got {kind(parts[-1])}")
    return None


def _result(id: str, parts: list[Any], last: bytes, flaw: _Flaw | None) -> Result | Failure:
    shape = _shape(parts, flaw)
    if shape is not None:
        code = _SHAPE_CODES.get(shape.fault, ErrorCode.FORMATION_VIOLATION)
        description = f"the CALLRESULT cannot be read: {shape.path}: {shape.reason}"
        return Failure(id, code, "", description, _details([FieldFault(shape.path, shape.reason)]), shape.fault)
    return Result(id, last) if parts[2] is not None else Result(id, b"{}", Fault.NULL_PAYLOAD)


def _failure(id: str, parts: list[Any], flaw: _Flaw | None) -> Failure:
    """A CALLERROR, read leniently: whatever is missing or wrong, our CALL has failed."""
    text, description, details = [*parts[2:5], *_NOTHING[len(parts[2:5]) :]]
    fault = flaw.fault if flaw is not None else None
    if len(parts) != _CALLERROR_ELEMENTS:
        fault = Fault.MISSING_ELEMENT if len(parts) < _CALLERROR_ELEMENTS else Fault.EXTRA_ELEMENT
    elif not (isinstance(text, str) and isinstance(description, str) and isinstance(details, dict | None)):
        fault = Fault.WRONG_ELEMENT
    elif fault is None and text.strip().lower() not in _SPELLINGS:
        fault = Fault.UNKNOWN_CODE
    more = _encode(details) if flaw is None and isinstance(details, dict) else b"{}"
    words = [_text(word)[:LONGEST_HEARD] for word in (text, description)]
    return Failure(id, ErrorCode.read(text), words[0], words[1], more if len(more) <= _LONGEST_DETAILS else b"{}", fault)


_CALLERROR_ELEMENTS = 5
_LONGEST_DETAILS = 4_096
_NOTHING: tuple[Any, ...] = ("", "", {})
"""For the elements that a mutilated CALLERROR does not have."""


def _text(value: Any) -> str:
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else ""


def _error(id: str, code: str, description: str, details: bytes) -> str:
    return f"[4,{_quoted(id)},{_quoted(code)},{_quoted(_text(description)[:LONGEST_DESCRIPTION])},{details.decode() or '{}'}]"


def _quoted(text: str) -> str:
    return _encode(text).decode()


def _details(faults: Sequence[FieldFault]) -> bytes:
    return _encode({"path": faults[0].path, "faults": faults[:MOST_FAULTS]})


# --------------------------------------------------------------------------------------------------- faults of a payload

KEYWORD_CODES: dict[str, ErrorCode] = {
    "required": ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION,
    "minItems": ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION,
    "maxItems": ErrorCode.OCCURENCE_CONSTRAINT_VIOLATION,
    "type": ErrorCode.TYPE_CONSTRAINT_VIOLATION,
    "enum": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "minimum": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "maximum": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "multipleOf": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "minLength": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "maxLength": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "format": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "pattern": ErrorCode.PROPERTY_CONSTRAINT_VIOLATION,
    "additionalProperties": ErrorCode.FORMATION_VIOLATION,
}
"""R20: which code a violated keyword of JSON Schema gets."""


class PayloadFault(NamedTuple):
    """What to say about a payload that does not fit: the parts of a CALLERROR, and the path that decided them."""

    code: ErrorCode
    path: str
    description: str
    details: bytes
    """``{"path": "$.a", "faults": [{"path": "$.a", "reason": "is missing"}, …]}``"""


_KIND = r"(?:null|a boolean|an integer|a number|a string|an object|an array|bytes)"
_KEYWORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(words), keyword)
    for words, keyword in (
        (r"is missing", "required"),
        (r"is not known here", "additionalProperties"),
        (r"nested too deeply", "additionalProperties"),
        (rf"expected .*, got {_KIND}\Z", "type"),
        (r'expected one of ".*, got (?:-?\d+|an integer of more than 30 digits)\Z', "type"),
        (r"expected at least \d+ members", "minItems"),
        (r"expected (?:at most|exactly) \d+ members", "maxItems"),
        (r"expected at least \d+ characters", "minLength"),
        (r"expected at most \d+ characters", "maxLength"),
        (r"expected one of ", "enum"),
        (r"expected a string that matches ", "pattern"),
        (r"expected (?:a date|a time zone|no time zone)", "format"),
        (r"expected (?:an integer|a number) (?:at least|above) ", "minimum"),
        (r"expected (?:an integer|a number) (?:at most|below) ", "maximum"),
        (r"expected (?:an integer|a number) a multiple of ", "multipleOf"),
    )
)
"""How ``core.faults`` words the violation of each keyword. The first that fits."""


def keyword_of(fault: FieldFault) -> str:
    """The keyword of JSON Schema that a fault of ``core.faults`` violates; a rule that is in no schema is ``format``: a value that will not do."""
    return next((keyword for words, keyword in _KEYWORDS if words.match(fault.reason)), "format")


def payload_fault(faults: Sequence[FieldFault]) -> PayloadFault:
    """The CALLERROR for a payload with these faults (of ``core.faults``, at least one). The first fault decides code and path (R20)."""
    first = faults[0]
    code = KEYWORD_CODES[keyword_of(first)]
    if first.path == "$" and keyword_of(first) == "type":
        code = ErrorCode.FORMATION_VIOLATION
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return PayloadFault(code, first.path, f"{first.path}: {first.reason}{more}", _details(faults))
