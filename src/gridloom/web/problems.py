"""Problems (RFC 9457): every refusal of the hub's HTTP, as ``application/problem+json``.

``type`` is ``/docs#problem-CODE`` (a place in this hub's own documentation), ``title`` its short name, ``status``, ``detail``
in words, ``instance`` the request's id as in the log. ``errors`` lists every offending field: ``in`` is ``body``, ``query``, ``path`` or
``header``; ``path`` is its JSON path (``$.arguments.period``, ``$.begin``), as ``core.faults`` writes them; ``reason`` says what
was expected and what came.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import inspect

from gridloom.core import faults
from gridloom.core.errors import FieldFault, GridloomError, InvalidInput, StorageError, Unauthenticated
from gridloom.core.settings import masked
from gridloom.web.settings import WebSettings

T = TypeVar("T")

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"


class Fault(msgspec.Struct, frozen=True):
    """One offending field."""

    location: str = msgspec.field(name="in")
    path: str
    reason: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A refusal, with its reasons (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    errors: tuple[Fault, ...] = ()


TITLES: Mapping[str, str] = {
    "invalid-input": "The request is wrong",
    "malformed": "The request cannot be read",
    "unauthenticated": "A valid token is needed",
    "forbidden": "The role is not enough",
    "not-found": "It does not exist, or not for you",
    "method-not-allowed": "The method is not allowed here",
    "not-acceptable": "None of the accepted formats is available",
    "conflict": "The present state does not allow it",
    "refused": "The order was refused, nothing was sent",
    "unsupported": "The device cannot do this",
    "offline": "The device is not connected",
    "too-large": "The request is too large",
    "too-slow": "The request comes too slowly",
    "unsupported-media-type": "The body must be JSON",
    "device-refused": "The device refused",
    "device-timeout": "The device did not answer in time",
    "unanswered": "The connection ended before the device answered",
    "storage": "The store cannot do it now",
    "storage-full": "The store's disk is full",
    "storage-corrupt": "The store is damaged",
    "internal-error": "The hub failed",
    "configuration": "The hub's configuration is wrong",
    "unavailable": "The hub cannot do it now",
}
"""Every code of a problem, with its title: the documentation page and the OpenAPI document list them."""

_OF_STATUS: Mapping[int, str] = {
    400: "invalid-input",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    413: "too-large",
    415: "unsupported-media-type",
    431: "too-large",
    503: "unavailable",
}


class RequestFault(InvalidInput):
    """A wrong request of whose offending fields it is known where they are: ``body``, ``query``, ``path`` or ``header``."""

    def __init__(self, location: str, found: tuple[FieldFault, ...], *, code: str = "invalid-input", status: int = 400) -> None:
        super().__init__(faults.summary(f"the request's {location}", found), found)
        self.located = tuple(Fault(location, fault.path, fault.reason) for fault in found)
        self.code = code
        self.status = status


def together(found: Sequence[RequestFault]) -> RequestFault:
    """One refusal that names what all of them name; where one is not a plain 400 (the body is no JSON at all), its code and status stand."""
    if len(found) == 1:
        return found[0]
    known = next((one for one in found if one.status != 400), found[0])
    every = RequestFault("request", tuple(fault for one in found for fault in one.faults), code=known.code, status=known.status)
    every.message = "; ".join(one.message for one in found)
    every.located = tuple(fault for one in found for fault in one.located)
    return every


# --------------------------------------------------------------------------------------------------------------- reading


BodyCheck = Callable[[Any], Iterable[FieldFault]]
"""Further faults of a body, given as plain JSON: what its type alone cannot say."""


def body(type: type[T], content_type: str, raw: bytes, hide: Collection[str] = (), check: BodyCheck | None = None) -> T:
    """The JSON body as ``type``. Raises RequestFault: 415 for another media type, 400 with every offending path, those of ``check`` too."""
    media = content_type.partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        came = f"got {media[:60]}" if media else "none came"
        raise RequestFault("header", (FieldFault("$.content-type", f"expected application/json, {came}"),), code="unsupported-media-type", status=415)
    if not raw:
        raise RequestFault("body", (FieldFault("$", "is missing: expected a JSON document"),))
    offending: tuple[FieldFault, ...] = ()
    try:
        found = faults.read_json(type, raw, hide=hide)
    except InvalidInput as error:
        offending = error.faults
    for fault in _beyond_type(raw, check):
        if all(fault.path != other.path for other in offending):
            offending += (fault,)
    if offending:
        raise RequestFault("body", offending[: faults.MOST])
    return found


def _beyond_type(raw: bytes, check: BodyCheck | None) -> list[FieldFault]:
    """Faults of a body that its type does not know of."""
    nul = b"\\u0000" in raw  # a NUL byte itself is no JSON
    if not nul and check is None:
        return []
    try:
        data = msgspec.json.decode(raw)
        found = [FieldFault(path, "holds the character NUL") for path in islice(_nul_paths(data, "$"), faults.MOST)] if nul else []
    except ValueError:
        return []  # no JSON: that was said already
    except RecursionError:
        return [FieldFault("$", "nested too deeply")]
    return found if check is None else [*found, *check(data)]


def query(type: type[T], query_string: bytes) -> T:
    """The query's parameters as a Struct whose members are their names. Raises RequestFault with every offending one.

    A member of a tuple type is a parameter that may be repeated (``device=a&device=b``); any other may come once.
    """
    found: list[FieldFault] = []
    given: dict[str, list[str]] = {}
    for part in query_string.split(b"&"):
        if not part:
            continue
        key, _, value = part.partition(b"=")
        try:
            name = unquote_to_bytes(key.replace(b"+", b" ")).decode()
            text = unquote_to_bytes(value.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            found.append(FieldFault(faults.member("$", key.decode("ascii", "replace")), "is not UTF-8"))
            continue
        if "\0" in text or "\0" in name:
            found.append(FieldFault(faults.member("$", name.replace("\0", "")), "holds the character NUL"))
            continue
        given.setdefault(name, []).append(text)
    data: dict[str, Any] = {}
    asked: Any = type
    known = _parameters(asked)
    for name, texts in given.items():
        info = known.get(name)
        if info is None:
            data[name] = texts[0]
        elif isinstance(info, inspect.VarTupleType):
            data[name] = [_coerced(info.item_type, text) for text in texts]
        elif len(texts) > 1:
            found.append(FieldFault(faults.member("$", name), f"was given {len(texts)} times; it may be given once"))
        else:
            data[name] = _coerced(info, texts[0])
    if found:
        found.extend(fault for fault in faults.collect(type, data) if all(fault.path != other.path for other in found))
        raise RequestFault("query", tuple(found))
    try:
        return faults.read(type, data)
    except InvalidInput as error:
        raise RequestFault("query", error.faults) from None


@lru_cache(maxsize=256)
def _parameters(type: Any) -> dict[str, inspect.Type]:
    info = inspect.type_info(type)
    assert isinstance(info, inspect.StructType)
    return {field.encode_name: _without_none(field.type) for field in info.fields}


def _without_none(info: inspect.Type) -> inspect.Type:
    info = faults.unwrapped(info)
    if isinstance(info, inspect.UnionType):
        others = [part for part in info.types if not isinstance(faults.unwrapped(part), inspect.NoneType)]
        if len(others) == 1:
            return faults.unwrapped(others[0])
    return info


_INTEGER = re.compile(r"-?[0-9]{1,30}\Z")
_DECIMAL = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z")


def _coerced(info: inspect.Type, text: str) -> Any:
    """The JSON value that a parameter's text stands for, by the type it should have; text that is no such value stays text."""
    info = _without_none(info)
    if isinstance(info, inspect.IntType) and _INTEGER.match(text):
        return int(text)
    if isinstance(info, inspect.FloatType) and _DECIMAL.match(text):
        return float(text)
    if isinstance(info, inspect.BoolType) and text in ("true", "false"):
        return text == "true"
    return text


def _nul_paths(data: Any, path: str) -> Iterator[str]:
    """Where strings with the character NUL are: no store keeps one, and no device name has one."""
    if isinstance(data, str):
        if "\0" in data:
            yield path
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _nul_paths(item, f"{path}[{index}]")
    elif isinstance(data, dict):
        for key, item in data.items():
            here = faults.member(path, key)
            if "\0" in key:
                yield here
            yield from _nul_paths(item, here)


# ------------------------------------------------------------------------------------------------------------- answering


def problem(code: str, status: int, detail: str = "", errors: tuple[Fault, ...] = (), instance: str = "") -> Problem:
    """A problem with its type and title."""
    return Problem(f"/docs#problem-{code}", TITLES.get(code, code), status, detail, instance, errors)


def of_error(error: GridloomError, method: str = "GET") -> Problem:
    """The problem that an error of the core is. Where the core named fields, they were in the body, or in the query if there is none."""
    errors: tuple[Fault, ...] = ()
    if isinstance(error, InvalidInput):
        location = "query" if method in ("GET", "HEAD", "DELETE") else "body"
        errors = error.located if isinstance(error, RequestFault) else tuple(Fault(location, one.path, one.reason) for one in error.faults)
    detail = "" if error.status == 500 else error.message
    return problem(error.code, error.status, detail, errors)


def headers_of(error: Exception) -> dict[str, str]:
    """Header fields that belong to the answer beside its problem."""
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": 'Bearer realm="gridloom"'}
    if isinstance(error, StorageError):
        return {"retry-after": "5"}
    return {}


ExceptionHandler = Callable[[Request[Any, Any, Any], Any], Response[bytes]]


def handlers(settings: WebSettings) -> dict[int | type[Exception], ExceptionHandler]:
    """Litestar's exception handlers of the whole application; a vendor's API may lay its own over them."""

    def answer(request: Request[Any, Any, Any], found: Problem, headers: dict[str, str]) -> Response[bytes]:
        instance = request.scope.get("state", {}).get("request_id", "")
        document = msgspec.structs.replace(found, instance=f"urn:gridloom:request:{instance}" if instance else "")
        return Response(msgspec.json.encode(document), status_code=found.status, media_type=MEDIA_TYPE, headers=headers)

    def of_gridloom(request: Request[Any, Any, Any], error: GridloomError) -> Response[bytes]:
        if error.status >= 500:
            log.warning("request failed", extra={"code": error.code, "path": masked(request.scope["path"]), "reason": error.message})
        return answer(request, of_error(error, request.method), headers_of(error))

    def of_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        status = error.status_code
        detail = _LITESTAR_DETAIL.get(status, "")
        if status == 413:
            detail = f"a request body holds at most {settings.max_body} bytes"
        if status >= 500:
            return of_other(request, error)
        found = problem(_OF_STATUS.get(status, "invalid-input"), status, detail or str(error.detail), _litestar_faults(error))
        return answer(request, found, {key.lower(): value for key, value in (error.headers or {}).items()})

    def of_other(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        log.error("request failed", extra={"path": masked(request.scope["path"]), "method": request.method}, exc_info=error)
        return answer(request, problem("internal-error", 500, "the hub's log has the reason under this request's id"), {})

    return {GridloomError: of_gridloom, HTTPException: of_http, Exception: of_other}


_LITESTAR_DETAIL = {
    404: "there is nothing at this address",
    405: "see the Allow header for the methods of this address",
}


def _litestar_faults(error: HTTPException) -> tuple[Fault, ...]:
    """Offending fields as Litestar names them (only for handlers that let Litestar read the request)."""
    extra = error.extra
    if not isinstance(extra, list):
        return ()
    return tuple(
        Fault(str(item.get("source", "body")), faults.member("$", item["key"]) if item.get("key") else "$", str(item.get("message", "")))
        for item in extra
        if isinstance(item, dict)
    )
