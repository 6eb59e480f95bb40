"""One HTTP operation of the hub's own API: what it reads, does and answers, said once, by the types of a function.

A handler is a plain coroutine. Its parameters are found by name: ``hub``, ``principal``, ``query`` and ``body`` (Structs, read from
the query and the body with every fault named), ``request`` (the ASGI request, rarely), and the path's own. What it returns is
encoded as its annotation says; ``Answer`` where status or header fields depend on what happened. The OpenAPI document is built from the same
annotations (``web.openapi``), so that it cannot say anything else than what happens.
"""

from __future__ import annotations

import datetime
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlencode

import msgspec
from litestar import Request, Response
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from gridloom.core import hub
from gridloom.core.errors import FieldFault
from gridloom.core.model import Principal
from gridloom.web import problems

T = TypeVar("T")

ENCODER = msgspec.json.Encoder(decimal_format="number")
"""JSON of every answer: decimals are exact JSON numbers, never strings and never binary fractions."""

Exact = Annotated[Any, Meta(extra_json_schema={"type": ["number", "string", "null"]})]
"""A value in base units: int, Decimal or (only if the device itself gave a binary fraction) float; text where the device tells a state; or None."""

Moment = Annotated[str, Meta(description="RFC 3339, in UTC with Z", extra_json_schema={"format": "date-time"})]
"""A time as it is answered."""

Time = Annotated[datetime.datetime, Meta(tz=True)]
"""A time as it is asked for: RFC 3339 with any offset; without one it is refused."""

NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$(?!\n)"
"""No control characters; the look-ahead because Python's ``$`` would let one newline pass at the end."""

Name = Annotated[str, Meta(max_length=200, pattern=NO_CONTROLS)]
"""A short text that people give."""

Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=NO_CONTROLS)]
"""An identifier that is asked for in a query."""

Limit = Annotated[int, Meta(ge=1, le=1000, description="At most this many items.")]
Cursor = Annotated[str, Meta(max_length=1000, description="Continues behind a page: the `next` of its answer.")]


class Answer(msgspec.Struct, Generic[T]):
    """An answer whose status or header fields depend on what happened. ``content`` is a Struct, or bytes with their ``media_type``."""

    content: T | bytes | None = None
    status: int | None = None
    headers: dict[str, str] = {}
    media_type: str = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about one operation; kept in its route's ``opt``."""

    method: str
    path: str
    name: str
    summary: str
    description: str
    tag: str
    status: int
    query: Any = None
    body: Any = None
    answer: Any = None
    body_schema: Callable[[Any], dict[str, Any]] | None = None
    produces: tuple[str, ...] = ("application/json",)
    refuses: Mapping[int, str]
    headers: Mapping[str, str]
    parameters: Mapping[str, str] = {}
    anonymous: bool = False
    hide: tuple[str, ...] = ()


def operation(
    method: str,
    path: str,
    *,
    summary: str,
    tag: str,
    status: int = 200,
    refuses: Mapping[int, str] | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    produces: tuple[str, ...] = ("application/json",),
    body_schema: Callable[[Any], dict[str, Any]] | None = None,
    anonymous: bool = False,
    hide: tuple[str, ...] = (),
    check: problems.BodyCheck | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], HTTPRouteHandler]:
    """Make a route of a coroutine. ``path`` is written ``/devices/{device_id}``; ``refuses`` adds statuses with their reasons,
    ``parameters`` describes those of the path that ``web.openapi`` does not know.

    ``hide`` are members of the body whose values no refusal repeats; ``check`` finds faults of the body that its type cannot;
    ``anonymous`` needs nobody to be signed in. One refusal names the faults of path, query and body together.
    """

    def decorate(function: Callable[..., Awaitable[Any]]) -> HTTPRouteHandler:
        hints = get_type_hints(function, include_extras=True)
        names = list(inspect.signature(function).parameters)
        takes_query, takes_body = hints.get("query"), hints.get("body")
        wants_hub, wants_principal, wants_request = "hub" in names, "principal" in names, "request" in names
        path_names = [name for name in names if name not in ("hub", "principal", "query", "body", "request")]
        if any("{" + name + "}" not in path for name in path_names):
            raise TypeError(f"{function.__name__}: {path_names} must all stand in {path}")
        returned = hints.get("return")
        answer = get_args(returned)[0] if get_origin(returned) is Answer else returned
        known = Operation(
            method=method,
            path=path,
            name=function.__name__,
            summary=summary,
            description=inspect.cleandoc(function.__doc__ or ""),
            tag=tag,
            status=status,
            query=takes_query,
            body=takes_body,
            answer=None if answer is type(None) else answer,
            body_schema=body_schema,
            produces=produces,
            refuses=_refuses(refuses or {}, body=takes_body is not None, anonymous=anonymous),
            headers=headers or {},
            parameters=parameters or {},
            anonymous=anonymous,
            hide=hide,
        )

        async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
            scope = request.scope
            state = request.app.state
            arguments: dict[str, Any] = {}
            if not anonymous:
                principal: Principal = await state["signin"].find(scope)  # before anything else is looked at
                if wants_principal:
                    arguments["principal"] = principal
            wrong: list[problems.RequestFault] = []
            try:
                for name in path_names:
                    arguments[name] = _path_value(name, scope["path_params"][name])
            except problems.RequestFault as fault:
                wrong.append(fault)
            try:
                if takes_query is not None:
                    arguments["query"] = problems.query(takes_query, scope["query_string"])
                elif scope["query_string"]:
                    problems.query(_Nothing, scope["query_string"])
            except problems.RequestFault as fault:
                wrong.append(fault)
            try:
                if takes_body is not None:
                    content_type = request.headers.get("content-type", "")
                    arguments["body"] = problems.body(takes_body, content_type, await request.body(), hide, check)
            except problems.RequestFault as fault:
                wrong.append(fault)
            if wrong:
                raise problems.together(wrong)
            if wants_hub:
                arguments["hub"] = state["hub"]
            if wants_request:
                arguments["request"] = request
            return _respond(await function(**arguments), status, produces[0])

        handle.__name__ = function.__name__
        handle.__doc__ = function.__doc__
        methods: Any = ["GET", "HEAD"] if method == "GET" else [method]
        return HTTPRouteHandler(litestar_path(path), http_method=methods, name=f"{method} {path}", status_code=200, opt={"operation": known})(handle)

    return decorate


def mounted(one: hub.Operation) -> HTTPRouteHandler:
    """The route of an operation that an integration brings."""
    given = {name: getattr(one, name) for name in ("summary", "tag", "status", "refuses", "parameters", "hide")}
    return operation(one.method, one.path, **given)(one.function)


def litestar_path(path: str) -> str:
    """``/devices/{device_id}`` as Litestar writes it."""
    return re.sub(r"{(\w+)}", r"{\1:str}", path)


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The query of an operation that takes none."""


def _path_value(name: str, text: str) -> str:
    if len(text) > 500:
        raise problems.RequestFault("path", (FieldFault(f"$.{name}", f"expected at most 500 characters, got {len(text)}"),))
    return text


def _respond(result: Any, status: int, media_type: str) -> Response[bytes]:
    headers: dict[str, str] | None = None
    if isinstance(result, Answer):
        headers, status = result.headers or None, result.status or status
        media_type = result.media_type
        result = result.content
    if result is None:
        content = b""
    elif isinstance(result, bytes):
        content = bytes(result)
    else:
        content = ENCODER.encode(result)
    return Response(content, status_code=status, media_type=media_type, headers=headers)


def _refuses(own: Mapping[int, str], *, body: bool, anonymous: bool) -> Mapping[int, str]:
    every = {
        400: "A parameter or member is missing, unknown, of a wrong type or out of range; `errors` names each.",
        431: "The request line and its headers are longer than the hub reads.",
    }
    if not anonymous:
        every[401] = "No valid token came with the request."
        every[403] = "The role of the token is not enough for this."
    if body:
        every[413] = "The body is larger than the hub reads."
        every[415] = "The body is not JSON."
    return dict(sorted({**every, **own}.items()))


def next_link(request: Request[Any, Any, Any], cursor: str | None) -> dict[str, str]:
    """The ``Link`` header of a page: the same question with the cursor behind it; none on the last page."""
    if cursor is None:
        return {}
    kept = [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]
    raw_path = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return {"link": f'<{raw_path.decode("ascii")}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'}
