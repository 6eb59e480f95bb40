"""Pages of lists that memory holds in order: a cursor is the key of the last item, so that it stays good whatever comes or goes meanwhile."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from gridloom.core.errors import FieldFault, InvalidInput

T = TypeVar("T")
K = TypeVar("K", bound=tuple[Any, ...])

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")


def page(items: Iterable[T], key: Callable[[T], K], kind: type[K], limit: int, cursor: str | None) -> tuple[list[T], str | None]:
    """At most ``limit`` of ``items`` (which are in the order of ``key``) behind the cursor, and the cursor behind those, None at the end.

    Raises InvalidInput (``$.cursor``) for one that no page of this list gave.
    """
    after = None if cursor is None else decode(cursor, kind)
    found: list[T] = []
    for item in items:
        if after is not None and key(item) <= after:
            continue
        if len(found) == limit:
            return found, encode(key(found[-1]))
        found.append(item)
    return found, None


def encode(key: tuple[Any, ...]) -> str:
    """An opaque cursor."""
    return urlsafe_b64encode(msgspec.json.encode(key)).decode("ascii").rstrip("=")


def decode(cursor: str, kind: type[K]) -> K:
    """The key that a cursor holds. Raises InvalidInput."""
    try:
        if not _BASE64URL.match(cursor):
            raise ValueError("not base64url")
        key: K = msgspec.json.decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=kind)
    except ValueError:
        raise InvalidInput("the cursor is not one of this list", (FieldFault("$.cursor", "expected the `next` of a page of this list"),)) from None
    return key
