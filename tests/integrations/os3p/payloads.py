"""Payloads made from the schemas of OS³P, right and wrong ones, and what FACTS tolerates of them: a judge that knows no code of ours."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data"
SCHEMAS: dict[str, dict[str, Any]] = json.loads((DATA / "schemas.json").read_text())
EXAMPLES: dict[str, dict[str, Any]] = json.loads((DATA / "examples.json").read_text())
VALIDATORS = {name: jsonschema_rs.Draft4Validator(schema, validate_formats=True) for name, schema in SCHEMAS.items()}
_DATE_TIME = jsonschema_rs.Draft4Validator({"format": "date-time"}, validate_formats=True)

Path_ = tuple[str | int, ...]
LOCAL_DAYS = ("at", "validFrom", "validTo")

# R20, written down a second time.
CODES = {
    "required": "OccurenceConstraintViolation",
    "minItems": "OccurenceConstraintViolation",
    "maxItems": "OccurenceConstraintViolation",
    "type": "TypeConstraintViolation",
    "enum": "PropertyConstraintViolation",
    "minimum": "PropertyConstraintViolation",
    "maximum": "PropertyConstraintViolation",
    "maxLength": "PropertyConstraintViolation",
    "format": "PropertyConstraintViolation",
    "additionalProperties": "FormationViolation",
}

# ------------------------------------------------------------------------------------------------------------------- what is right

_offsets = st.one_of(
    st.sampled_from(["Z", "z", "-00:00", "+23:59", "-23:59"]), st.builds("{:+03d}:{:02d}".format, st.integers(-12, 14), st.integers(0, 59))
)
_fractions = st.one_of(st.just(""), st.from_regex(r"\.[0-9]{1,12}", fullmatch=True))
_days = st.dates().filter(lambda day: 1 < day.year < 9999)
moments = st.one_of(
    st.builds("{}{}{}{}{}".format, _days, st.sampled_from("Tt"), st.times().map(lambda time: time.strftime("%H:%M:%S")), _fractions, _offsets),
    st.sampled_from(["2016-12-31T23:59:60Z", "2017-01-01T00:59:60.5+01:00"]),
)
uris = st.one_of(
    st.sampled_from(
        ["ftp://root:root@sftp.oursystem.foo/tmp", "http://[::1]:80/a?b#c", "urn:a:b", "a:", "sftp://[v1.x]/%20", "http://[::ffff:1.2.3.4]/"]
    ),
    st.from_regex(
        r"[a-z][a-z0-9+.-]{0,5}:(//([a-z:]{0,4}@)?[a-zA-Z0-9.-]{0,9}(:[0-9]{0,5})?)?(/[a-z%0-9:@]{0,5}){0,3}(\?[a-z=?/]*)?", fullmatch=True
    ),
)
texts = st.text(st.characters(codec="utf-8"), max_size=6)


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if kind == "object":
        members = {name: values(part) for name, part in schema.get("properties", {}).items()}
        needed = schema.get("required", [])
        return st.fixed_dictionaries(
            {name: members[name] for name in needed}, optional={name: part for name, part in members.items() if name not in needed}
        )
    if kind == "array":
        return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=schema.get("maxItems", 3))
    if kind == "integer":
        return st.integers(schema.get("minimum", -(10**20)), schema.get("maximum", 10**20))
    if kind == "boolean":
        return st.booleans()
    if schema.get("format") == "date-time":
        return moments
    if schema.get("format") == "uri":
        return uris.filter(jsonschema_rs.Draft4Validator({"format": "uri"}, validate_formats=True).is_valid)
    longest = schema.get("maxLength")
    return st.one_of(texts, st.just("x" * longest), st.just("é" * longest)) if longest else texts


# ------------------------------------------------------------------------------------------------------------------- what is wrong

_ODD: list[Any] = [
    None,
    "",
    "x",
    "x" * 37,
    "x" * 200,
    0,
    -1,
    7,
    1.5,
    3.0,
    10**7,
    -(10**7),
    True,
    [],
    {},
    [1],
    {"x": 1},
    "Idle",
    "REJECTED",
    "Amp",
    "°C",
]
_ODD_TIMES = [
    "2013-02-01T15:09:18",
    "2013-02-01 15:09:18Z",
    "2013-02-01 15:09",
    "2013-02-01T15:09:18+0100",
    "2013-02-01T15:09:18,5+01",
    "2013-02-01",
    "2013-02-30T15:09:18Z",
    "2013-02-30",
    "2013-02-01T24:00:00Z",
    "2013-02-01T15:60:00",
    "2013-02-01T15:09:18+24:00",
    "2013-02-01T15:09:18+01:60",
    "2016-12-31T22:59:60Z",
    "2016-12-31T23:59:60",
    "2013-02-01Tnoon",
    "2013-02-01_15:09:18Z",
    "20130201T150918Z",
    "2013-W05-5",
    "٢013-02-01T15:09:18Z",
    "2013-02-01T15:09:18Z\n",
    "1 February 2013",
]
_ODD_URIS = [
    "/x",
    "//x",
    "http://a b",
    "http://é/",
    "http://a/%zz",
    "1a://x",
    "http://a:b/",
    "a:##",
    "http://[::g]/",
    "a:/[]",
    "http://a@b@c/",
    "urn:x|y",
]


def places(schema: dict[str, Any], value: Any, path: Path_ = ()) -> list[tuple[Path_, dict[str, Any], Any]]:
    """Every value in a payload with its schema."""
    found = [(path, schema, value)]
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name in value:
                found += places(part, value[name], (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(schema.get("items", {}), item, (*path, index))
    return found


@st.composite
def payloads(draw: st.DrawFn, name: str, *, wrong: bool) -> Any:
    """A payload for a message; ``wrong``: with up to three changes, which may leave it right."""
    schema = SCHEMAS[name]
    payload = draw(values(schema))
    for _ in range(draw(st.integers(1, 3)) if wrong else 0):
        payload = draw(_changed(schema, payload))
    return payload


@st.composite
def _changed(draw: st.DrawFn, schema: dict[str, Any], payload: Any) -> Any:
    path, part, value = draw(st.sampled_from(places(schema, payload)))
    if isinstance(value, dict) and draw(st.integers(0, 3)):
        changed: dict[str, Any] = copy.copy(value)
        fewer: bool = draw(st.booleans())
        if changed and fewer:
            del changed[draw(st.sampled_from(sorted(changed)))]
        else:
            changed[draw(st.sampled_from(["extra", "type", "Key", "odd name", "{}", "{0}"]))] = draw(st.sampled_from(_ODD))
        return _replaced(payload, path, changed)
    odd = _ODD + (_ODD_TIMES * 2 if part.get("format") == "date-time" else []) + (_ODD_URIS * 2 if part.get("format") == "uri" else [])
    choices: list[st.SearchStrategy[Any]] = [st.sampled_from(odd)]
    if isinstance(value, str):
        choices += [st.just(value.upper()), st.just(value.lower()), st.just(value + "x" * 30)]
    if isinstance(value, list):
        choices += [st.just([]), st.just(value * 5)]
    return _replaced(payload, path, draw(st.one_of(choices)))


def _replaced(payload: Any, path: Path_, value: Any) -> Any:
    if not path:
        return value
    copied = copy.copy(payload)
    copied[path[0]] = _replaced(payload[path[0]], path[1:], value)
    return copied


# ------------------------------------------------------------------------------------------------------------------- the judge


def text_of(path: Path_) -> str:
    """As a JSON path."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" if re.fullmatch(r"\w+", part) else f"[{json.dumps(part)}]" for part in path)
    return "$" + "".join(parts)


class Flaw(NamedTuple):
    """What the reference validator says of one place: the keywords that are violated there."""

    path: Path_
    keywords: frozenset[str]
    value: Any


def flaws(name: str, payload: Any) -> list[Flaw]:
    """By place; a missing or unknown member is its own place."""
    found: dict[Path_, tuple[set[str], Any]] = {}
    for error in VALIDATORS[name].iter_errors(payload):
        here: Path_ = tuple(error.instance_path)
        if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required):
            where = [(*here, error.kind.property)]
        elif isinstance(error.kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            where = [(*here, member) for member in error.kind.unexpected]
        else:
            where = [here]
        for path in where:
            found.setdefault(path, (set(), error.instance))[0].add(error.kind.name)
    return [Flaw(path, frozenset(keywords), value) for path, (keywords, value) in found.items()]


def schema_at(name: str, path: Path_) -> dict[str, Any]:
    """The schema of one place."""
    part = SCHEMAS[name]
    for step in path:
        part = part["items"] if isinstance(step, int) else part["properties"][step]
    return part


def is_local_day(text: Any) -> bool:
    """I5: a date and time without offset."""
    return isinstance(text, str) and bool(_DATE_TIME.is_valid(text + "Z")) and not is_beyond(text)


def is_beyond(text: str) -> bool:
    """A date that the schema allows and no calendar of ours has."""
    return text.startswith("0000")


_MANY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_NEARLY_A_TIME = re.compile(
    _MANY + r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)? ?(z|Z|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?\Z", re.ASCII
)
_NEARLY_A_DAY = re.compile(_MANY + r"([Tt ][\s\S]*)?\Z", re.ASCII)


def _is_date(text: str) -> bool:
    return bool(_DATE_TIME.is_valid(text[:10] + "T00:00:00Z")) and not is_beyond(text)


def tolerated(name: str, flaw: Flaw, payload: dict[str, Any]) -> str | None:
    """The tolerance of FACTS that this flaw falls under: the name of its kind (empty: not even worth telling), or None if it is a fault."""
    *_, last = flaw.path or ("",)
    value = flaw.value
    if "additionalProperties" in flaw.keywords:
        return "extra-member"  # I2, I3, I4, I15
    if "required" in flaw.keywords:
        boot = name == "BootNotification" and last not in ("vendor", "model")  # I17
        file = name == "GetFileResponse" and last == "fileName" and str(payload.get("status")).lower() == "rejected"  # I40
        return "missing-member" if boot or file else None
    if not flaw.path or isinstance(last, int):
        return None
    schema = schema_at(name, flaw.path)
    optional = last not in schema_at(name, flaw.path[:-1]).get("required", [])
    if value is None and optional:
        return "null-member"  # I30
    if value == "" and optional and schema["type"] == "string":
        return "empty-member"  # I30
    if name == "MeterValues" and last == "value" and isinstance(value, int | float) and not isinstance(value, bool):
        return "number-for-text"  # I16
    if not isinstance(value, str):
        return None
    if "enum" in flaw.keywords:
        return _tolerated_word(name, last, value, schema["enum"])
    if "maxLength" in flaw.keywords:
        short = last == "requestId" and len(value) <= 36  # I6
        if name in ("BootNotification", "StatusNotification"):
            return "long-text"  # "What users complain about" 5
        return "long-request-id" if short else None
    if schema.get("format") == "date-time" and last in LOCAL_DAYS:
        if is_local_day(value):
            return ""  # I5
        return "date-form" if _NEARLY_A_DAY.match(value) and _is_date(value) else None  # I5
    if schema.get("format") == "date-time":
        return "time-form" if _NEARLY_A_TIME.match(value) and _is_date(value) else None
    return None


def _tolerated_word(name: str, member: str, value: str, words: list[str]) -> str | None:
    if value.lower() == "idle" and name in ("GetFileStatusNotification", "FirmwareStatusNotification"):
        return "alias"  # I45
    if (name, member) == ("StatusNotification", "errorCode") and value == "":
        return "alias"  # I30
    if value.lower() in [word.lower() for word in words] and member != "unit":
        return "letter-case"  # I22
    return "unknown-word" if name == "MeterValues" or member == "errorCode" else None  # N7, I9, I10; an error of the vendor's own


def beside_the_schema(name: str, payload: Any) -> list[tuple[str, Path_]]:
    """What FACTS forbids a strict peer though the schema allows it."""
    found: list[tuple[str, Path_]] = []
    if not isinstance(payload, dict):
        return found
    if name == "ClearSingleStreetlightProfile" and {"profileId", "stackLevel"} <= {key for key, value in payload.items() if value is not None}:
        found.append(("both-given", ("stackLevel",)))  # I26, S12
    if name == "SetStreetlightProfile":
        for path, schema, value in places(SCHEMAS[name], payload):
            kind = value.get("kind") if isinstance(value, dict) and "kind" in schema.get("properties", {}) else None
            kind = {"absolute": "time", "sunset": "offset", "sunrise": "offset"}.get(kind.lower()) if isinstance(kind, str) else None
            if kind is not None and value.get(kind) in (None, "") and (kind == "time" or value.get(kind) != ""):
                found.append(("incomplete-bound", (*path, kind)))  # I34
    return found
