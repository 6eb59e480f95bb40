"""Identifiers: unique, url-safe, and ordered by time where an index is to be read in that order."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode


def unique(now: int) -> str:
    """32 hexadecimal digits laid out as a UUIDv7 (RFC 9562): later ones sort behind earlier ones to about a µs. ``now`` in µs UTC."""
    milliseconds, rest = divmod(max(now, 0), 1000)
    random = secrets.randbits(62) | 1 << 63
    return f"{milliseconds & 0xFFFF_FFFF_FFFF:012x}7{rest * 4096 // 1000:03x}{random:016x}"


def at(moment: int, *parts: str) -> str:
    """32 hexadecimal digits: 13 of the moment (µs UTC), then 19 made of the parts. The same input gives the same id."""
    return f"{min(max(moment, 0), (1 << 52) - 1):013x}{_hashed(parts).hex()[:19]}"


def digest(*parts: str) -> str:
    """22 url-safe characters made of the parts: the same parts give the same id on every node and after every restart."""
    return urlsafe_b64encode(_hashed(parts)[:16]).rstrip(b"=").decode("ascii")


def _hashed(parts: tuple[str, ...]) -> bytes:
    hashed = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(encoded) + encoded)  # with its length, so that ("ab", "c") is not ("a", "bc")
    return hashed.digest()
