"""Every fault of a value, not only the first: a walk over a msgspec type that names each offending path.

msgspec stops at the first error. Decode with msgspec first, which is fast; on failure only, ``collect`` walks the type
again over the plain JSON value and lists everything that is missing, unknown, of a wrong type or out of range. A value that
msgspec refuses for a reason this walk does not know is still listed, with msgspec's own words.

Paths are JSON paths as msgspec writes them: ``$.a``, ``$.a[2]``; a member whose name is no identifier is ``$["odd name"]``.
Strings that came are quoted only where the allowed ones are a closed list, and never under a name listed in ``hide``.
"""

from __future__ import annotations

import datetime
import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from gridloom.core.errors import FieldFault, InvalidInput

T = TypeVar("T")

MOST = 100
"""A walk lists at most this many faults: an array of a million wrong members must not make an answer of a million lines."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MSGSPEC_AT = re.compile(r" - at `(?P<path>(?:\$|key in `?\$).*?)`\Z", re.DOTALL)


def read(type: type[T], data: Any, what: str = "input", *, path: str = "$", hide: Collection[str] = ()) -> T:
    """``data`` (JSON values) as ``type``. Raises InvalidInput with every offending path; ``what`` begins its message."""
    try:
        return msgspec.convert(data, type)
    except (ValueError, RecursionError) as error:
        found = _collect(type, data, path, hide, error)
        raise InvalidInput(summary(what, found), found) from None


def read_json(type: type[T], raw: bytes | str, what: str = "input", *, path: str = "$", hide: Collection[str] = ()) -> T:
    """Like ``read`` for JSON text. Text that is no JSON is one fault with the byte offset in its reason."""
    try:
        return msgspec.json.decode(raw, type=type)
    except (ValueError, RecursionError) as error:  # DecodeError is a ValueError; so is UnicodeDecodeError
        found = _read_again(type, raw, path, hide, error)
    raise InvalidInput(summary(what, found), found) from None


def _read_again(type: Any, raw: bytes | str, path: str, hide: Collection[str], error: Exception) -> tuple[FieldFault, ...]:
    """The faults of a text that was refused: as plain JSON first, then against the type."""
    try:
        data = msgspec.json.decode(raw)
    except ValueError as malformed:
        return (FieldFault(path, str(malformed)),)
    except RecursionError:
        return (FieldFault(path, "nested too deeply"),)
    return _collect(type, data, path, hide, error)


def summary(what: str, faults: tuple[FieldFault, ...]) -> str:
    """One line for people: ``input: $.a is missing (and 2 more)``."""
    if not faults:
        return f"{what} is not valid"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{what}: {faults[0].path}: {faults[0].reason}{more}"


def collect(type: Any, data: Any, *, path: str = "$", hide: Collection[str] = ()) -> tuple[FieldFault, ...]:
    """Every fault of ``data`` (dict, list, str, int, float, bool, None) against a type that msgspec can decode.

    Empty exactly when ``msgspec.convert(data, type)`` would succeed. Values under the member names in ``hide`` are not repeated in reasons.
    """
    try:
        msgspec.convert(data, type)
    except (ValueError, RecursionError) as error:
        return _collect(type, data, path, hide, error)
    return ()


def _collect(type: Any, data: Any, path: str, hide: Collection[str], error: Exception) -> tuple[FieldFault, ...]:
    """The faults of a value that msgspec has refused with ``error``: never empty."""
    walk = _Walk(frozenset(hide))
    try:
        walk.value(_type_info(type), data, path, shown=True)
    except RecursionError:
        walk.add(path, "nested too deeply")
    if not walk.faults:
        walk.faults.append(_from_msgspec(str(error), path) if isinstance(error, ValueError) else FieldFault(path, "nested too deeply"))
    return tuple(walk.faults)


def member(path: str, name: object) -> str:
    """The path of a member of an object: ``$.a`` or ``$["odd name"]`` (at most 60 characters of the name)."""
    text = str(name)
    if _IDENTIFIER.match(text) and len(text) <= 60:
        return f"{path}.{text}"
    return f"{path}[{json.dumps(text[:60], ensure_ascii=False)}]"


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for a name that is close to a known one, else the empty string."""
    close = difflib.get_close_matches(name[:60], list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def kind(data: Any) -> str:
    """What a JSON value is, in words: ``a string``, ``an integer``, ``null``…"""
    if data is None:
        return "null"
    for types, word in _KINDS:
        if isinstance(data, types):
            return word
    return f"a {data.__class__.__name__}"


_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
    (str, "a string"),
    (Mapping, "an object"),
    ((list, tuple, set, frozenset), "an array"),
    ((bytes, bytearray), "bytes"),
)


@lru_cache(maxsize=512)
def _type_info(type: Any) -> inspect.Type:
    return inspect.type_info(type)


def _from_msgspec(message: str, path: str) -> FieldFault:
    """msgspec's own words for a refusal that this walk does not know, with its path behind ours."""
    match = _MSGSPEC_AT.search(message)
    if match is None:
        return FieldFault(path, message)
    return FieldFault(path + match["path"].removeprefix("$"), message[: match.start()])


def _quote(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else text[:57] + "…", ensure_ascii=False)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(_quote(value) if isinstance(value, str) else str(value) for value in values)


def _range(info: Any) -> str:
    """The allowed range of a number in words, empty if there is none."""
    words = [
        f"{word} {bound}"
        for word, bound in (("at least", info.ge), ("above", info.gt), ("at most", info.le), ("below", info.lt), ("a multiple of", info.multiple_of))
        if bound is not None
    ]
    return " and ".join(words)


class _Walk:
    def __init__(self, hide: frozenset[str]) -> None:
        self.faults: list[FieldFault] = []
        self.hide = hide

    def add(self, path: str, reason: str) -> None:
        if len(self.faults) < MOST:
            self.faults.append(FieldFault(path, reason))

    def wrong(self, path: str, expected: str, data: Any) -> None:
        self.add(path, f"expected {expected}, got {kind(data)}")

    def value(self, info: inspect.Type, data: Any, path: str, shown: bool) -> None:  # one case per sort of type
        if len(self.faults) >= MOST:
            return
        match info:
            case inspect.Metadata():
                self.value(info.type, data, path, shown)
            case inspect.NoneType():
                if data is not None:
                    self.wrong(path, "null", data)
            case inspect.BoolType():
                if not isinstance(data, bool):
                    self.wrong(path, "a boolean", data)
            case inspect.IntType():
                if isinstance(data, bool) or not isinstance(data, int):
                    self.wrong(path, "an integer", data)
                else:
                    self.number(info, data, path, shown)
            case inspect.FloatType():
                if isinstance(data, bool) or not isinstance(data, int | float):
                    self.wrong(path, "a number", data)
                else:
                    self.number(info, data, path, shown)
            case inspect.StrType():
                self.string(info, data, path)
            case inspect.EnumType():
                self.choice([member.value for member in info.cls], data, path, shown)
            case inspect.LiteralType():
                self.choice(list(info.values), data, path, shown)
            case inspect.ListType() | inspect.VarTupleType() | inspect.SetType() | inspect.FrozenSetType():
                self.array(info, data, path, shown)
            case inspect.TupleType():
                self.fixed(info, data, path, shown)
            case inspect.DictType():
                self.mapping(info, data, path, shown)
            case inspect.UnionType():
                self.union(info, data, path, shown)
            case inspect.StructType() if not info.array_like:
                self.struct(info, data, path, shown)
            case inspect.DataclassType() | inspect.TypedDictType():
                self.members(info.fields, data, path, shown, forbid=False, tag=None)
            case inspect.DateTimeType():
                self.moment(info, data, path)
            case inspect.DateType():
                self.date(data, path)
            case _:
                pass  # anything goes (Any, Raw), or left to msgspec's own words in _collect()

    def number(self, info: inspect.IntType | inspect.FloatType, data: int | float, path: str, shown: bool) -> None:
        bad = (
            (info.ge is not None and data < info.ge)
            or (info.gt is not None and data <= info.gt)
            or (info.le is not None and data > info.le)
            or (info.lt is not None and data >= info.lt)
            or (info.multiple_of is not None and data % info.multiple_of != 0)
        )
        if bad:
            word = "an integer" if isinstance(info, inspect.IntType) else "a number"
            came = _number(data) if shown else "another"
            self.add(path, f"expected {word} {_range(info)}, got {came}")

    def string(self, info: inspect.StrType, data: Any, path: str) -> None:
        if not isinstance(data, str):
            self.wrong(path, "a string", data)
            return
        if info.min_length is not None and len(data) < info.min_length:
            self.add(path, f"expected at least {info.min_length} characters, got {len(data)}")
        elif info.max_length is not None and len(data) > info.max_length:
            self.add(path, f"expected at most {info.max_length} characters, got {len(data)}")
        elif info.pattern is not None and re.search(info.pattern, data) is None:
            self.add(path, f"expected a string that matches {info.pattern}")

    def choice(self, allowed: list[Any], data: Any, path: str, shown: bool) -> None:
        if any(value == data and isinstance(data, bool) == isinstance(value, bool) for value in allowed):
            return
        if not isinstance(data, str | int) or isinstance(data, bool):
            self.add(path, f"expected one of {_listed(allowed)}, got {kind(data)}")
            return
        came = (_quote(data) if isinstance(data, str) else _number(data)) if shown else "another"
        hint = nearest(data, [value for value in allowed if isinstance(value, str)]) if isinstance(data, str) and shown else ""
        self.add(path, f"expected one of {_listed(allowed)}, got {came}{hint}")

    def array(self, info: Any, data: Any, path: str, shown: bool) -> None:
        if not isinstance(data, list | tuple | set | frozenset):
            self.wrong(path, "an array", data)
            return
        if info.min_length is not None and len(data) < info.min_length:
            self.add(path, f"expected at least {info.min_length} members, got {len(data)}")
        if info.max_length is not None and len(data) > info.max_length:
            self.add(path, f"expected at most {info.max_length} members, got {len(data)}")
            return
        for index, item in enumerate(data):
            self.value(info.item_type, item, f"{path}[{index}]", shown)

    def fixed(self, info: inspect.TupleType, data: Any, path: str, shown: bool) -> None:
        if not isinstance(data, list | tuple):
            self.wrong(path, "an array", data)
        elif len(data) != len(info.item_types):
            self.add(path, f"expected exactly {len(info.item_types)} members, got {len(data)}")
        else:
            for index, (item_type, item) in enumerate(zip(info.item_types, data, strict=True)):
                self.value(item_type, item, f"{path}[{index}]", shown)

    def mapping(self, info: inspect.DictType, data: Any, path: str, shown: bool) -> None:
        if not isinstance(data, Mapping):
            self.wrong(path, "an object", data)
            return
        if info.min_length is not None and len(data) < info.min_length:
            self.add(path, f"expected at least {info.min_length} members, got {len(data)}")
        if info.max_length is not None and len(data) > info.max_length:
            self.add(path, f"expected at most {info.max_length} members, got {len(data)}")
            return
        for key, item in data.items():
            here = member(path, key)
            if isinstance(info.key_type, inspect.StrType | inspect.EnumType | inspect.LiteralType):
                self.value(info.key_type, key, here, shown)
            self.value(info.value_type, item, here, shown and key not in self.hide)

    def union(self, info: inspect.UnionType, data: Any, path: str, shown: bool) -> None:
        members = [unwrapped(part) for part in info.types]
        if data is None and any(isinstance(part, inspect.NoneType) for part in members):
            return
        structs = [part for part in members if isinstance(part, inspect.StructType)]
        if structs and isinstance(data, Mapping):
            self.one_of_structs(structs, data, path, shown)
            return
        for part in members:
            if _may_hold(part, data):
                self.value(part, data, path, shown)
                return
        self.wrong(path, " or ".join(dict.fromkeys(_word(part) for part in members)), data)

    def one_of_structs(self, structs: list[inspect.StructType], data: Mapping[Any, Any], path: str, shown: bool) -> None:
        if len(structs) == 1:
            self.struct(structs[0], data, path, shown)
            return
        field = structs[0].tag_field
        tags = {part.tag: part for part in structs}
        if field is None or field not in data:
            self.add(member(path, field or "type"), f"is missing; expected one of {_listed(tags)}")
            return
        tag = data[field]
        chosen = tags.get(tag) if isinstance(tag, str | int) else None
        if chosen is None:
            self.choice(list(tags), tag, member(path, field), shown)
        else:
            self.struct(chosen, data, path, shown)

    def struct(self, info: inspect.StructType, data: Any, path: str, shown: bool) -> None:
        tag = (info.tag_field, info.tag) if info.tag_field is not None else None
        before = len(self.faults)
        self.members(info.fields, data, path, shown, forbid=info.forbid_unknown_fields, tag=tag)
        if len(self.faults) == before and hasattr(info.cls, "__post_init__"):
            # The type's own rule over several fields: only meaningful once each of them is right.
            try:
                msgspec.convert(data, info.cls)
            except (msgspec.ValidationError, ValueError) as error:
                self.faults.append(_from_msgspec(str(error), path))

    def members(self, fields: tuple[inspect.Field, ...], data: Any, path: str, shown: bool, *, forbid: bool, tag: tuple[str, Any] | None) -> None:
        if not isinstance(data, Mapping):
            self.wrong(path, "an object", data)
            return
        known = [field.encode_name for field in fields]
        for field in fields:
            here = member(path, field.encode_name)
            if field.encode_name in data:
                self.value(field.type, data[field.encode_name], here, shown and field.encode_name not in self.hide)
            elif field.required:
                self.add(here, "is missing")
        if tag is not None:
            name, expected = tag
            if name in data and data[name] != expected:
                self.choice([expected], data[name], member(path, name), shown)
            known.append(name)
        if forbid:
            for key in data:
                if key not in known:
                    self.add(member(path, key), f"is not known here{nearest(str(key), known)}")

    def moment(self, info: inspect.DateTimeType, data: Any, path: str) -> None:
        if isinstance(data, datetime.datetime):
            return
        if not isinstance(data, str):
            self.wrong(path, "a date and time (RFC 3339, as 2026-11-21T00:58:03Z)", data)
            return
        try:
            moment = msgspec.convert(data, datetime.datetime)
        except msgspec.ValidationError:
            self.add(path, "expected a date and time (RFC 3339, as 2026-11-21T00:58:03Z)")
            return
        if info.tz is True and moment.tzinfo is None:
            self.add(path, "expected a time zone: end it with Z or an offset such as +01:00")
        elif info.tz is False and moment.tzinfo is not None:
            self.add(path, "expected no time zone")

    def date(self, data: Any, path: str) -> None:
        try:
            msgspec.convert(data, datetime.date)
        except msgspec.ValidationError:
            self.add(path, "expected a date (as 2026-11-21)")


def unwrapped(info: inspect.Type) -> inspect.Type:
    """The type without its JSON-schema decoration."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def _number(data: int | float) -> str:
    text = str(data) if isinstance(data, float) or -(10**30) < data < 10**30 else "an integer of more than 30 digits"
    return text[:40]


def _may_hold(info: inspect.Type, data: Any) -> bool:
    """Whether a union should be read as this member, judged by the JSON kind of the value alone."""
    match info:
        case inspect.AnyType() | inspect.RawType():
            return True
        case inspect.BoolType():
            return isinstance(data, bool)
        case inspect.IntType():
            return isinstance(data, int) and not isinstance(data, bool)
        case inspect.FloatType():
            return isinstance(data, int | float) and not isinstance(data, bool)
        case inspect.EnumType() | inspect.LiteralType():
            values = [one.value for one in info.cls] if isinstance(info, inspect.EnumType) else list(info.values)
            return any(isinstance(data, type(value)) and isinstance(data, bool) == isinstance(value, bool) for value in values)
        case inspect.CollectionType() | inspect.TupleType():
            return isinstance(data, list | tuple)
        case inspect.DictType() | inspect.DataclassType() | inspect.TypedDictType():
            return isinstance(data, Mapping)
        case inspect.StructType():
            return isinstance(data, list | tuple) if info.array_like else isinstance(data, Mapping)
        case inspect.NoneType():
            return data is None
        case _:
            return isinstance(data, str)  # str, dates, durations, UUID, Decimal, bytes: all strings in JSON


def _word(info: inspect.Type) -> str:
    match info:
        case inspect.NoneType():
            return "null"
        case inspect.BoolType():
            return "a boolean"
        case inspect.IntType():
            return "an integer"
        case inspect.FloatType():
            return "a number"
        case inspect.CollectionType() | inspect.TupleType():
            return "an array"
        case inspect.StructType() | inspect.DictType() | inspect.DataclassType() | inspect.TypedDictType():
            return "an object"
        case _:
            return "a string"
