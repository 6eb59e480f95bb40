"""The hub's own pages: the first page, the documentation of the API, their script and style. Nothing is loaded from elsewhere."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources
from typing import Any

import msgspec
from litestar import Request

from gridloom.core.errors import NotFound
from gridloom.web import openapi
from gridloom.web.operation import Answer, operation

_MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}  # the framework adds the charset


class File(msgspec.Struct, frozen=True):
    """A static file, read once."""

    content: bytes
    media_type: str
    etag: str


@lru_cache(maxsize=64)
def file(name: str) -> File | None:
    """A file of ``web/static``, or None. Names are flat: there are no folders to climb out of."""
    suffix = name[name.rfind(".") :] if "." in name else ""
    if suffix not in _MEDIA or "/" in name or "\\" in name or name.startswith("."):
        return None
    entry = resources.files("gridloom.web").joinpath("static", name)
    if not entry.is_file():
        return None
    content = entry.read_bytes()
    return File(content, _MEDIA[suffix], f'"{hashlib.sha256(content).hexdigest()[:20]}"')


def _serve(name: str, request: Request[Any, Any, Any], extra: dict[str, str] | None = None) -> Answer[bytes]:
    found = file(name)
    if found is None:
        raise NotFound(f"there is no file {name[:100]!r}")
    headers = {"etag": found.etag, "cache-control": "no-cache", **(extra or {})}
    if found.etag in request.headers.get("if-none-match", ""):
        return Answer(None, status=304, headers=headers, media_type=found.media_type)
    return Answer(found.content, headers=headers, media_type=found.media_type)


_HTML = ("text/html",)


@operation("GET", "/", summary="The first page", tag="hub", anonymous=True, produces=_HTML, refuses={304: "It has not changed."})
async def index(request: Request[Any, Any, Any]) -> Answer[bytes]:
    """Devices and their values, live. A browser on the hub's own machine becomes a viewer by opening it (`[http] local_viewer`)."""
    cookie = request.app.state["signin"].local_cookie(request.scope)
    return _serve("index.html", request, {"set-cookie": cookie} if cookie else None)


@operation("GET", "/docs", summary="This API, to read", tag="hub", anonymous=True, produces=_HTML, refuses={304: "It has not changed."})
async def docs(request: Request[Any, Any, Any]) -> Answer[bytes]:
    """The same as `/openapi.json`, for people."""
    return _serve("docs.html", request)


@operation(
    "GET",
    "/static/{name}",
    summary="A file of the hub's pages",
    tag="hub",
    anonymous=True,
    produces=("text/javascript", "text/css", "text/html", "image/svg+xml"),
    refuses={304: "It has not changed.", 404: "There is no such file."},
)
async def static_file(name: str, request: Request[Any, Any, Any]) -> Answer[bytes]:
    """Scripts and styles of the pages."""
    return _serve(name, request)


@operation("GET", "/openapi.json", summary="This API, for machines", tag="hub", anonymous=True)
async def openapi_document(request: Request[Any, Any, Any]) -> bytes:
    """OpenAPI 3.1."""
    return _openapi(request)


@operation("GET", "/api/v1/openapi.json", summary="This API, for machines, under its own path", tag="hub", anonymous=True)
async def openapi_document_v1(request: Request[Any, Any, Any]) -> bytes:
    """The same document as `/openapi.json`."""
    return _openapi(request)


def _openapi(request: Request[Any, Any, Any]) -> bytes:
    """Built when it is first asked for, from the routes of this application."""
    state = request.app.state
    found: bytes | None = state.get("openapi")
    if found is None:
        document = openapi.document(openapi.operations(request.app), state["settings"].version)
        found = state["openapi"] = msgspec.json.encode(document)
    return found


ROUTES = (index, docs, static_file, openapi_document, openapi_document_v1)
