"""What the web room has to know about this hub before it listens."""

from __future__ import annotations

import ipaddress

import msgspec


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Made by ``app`` from ``[http]``.

    ``loopback``: the listener is bound to a loopback address only; then, and only then, things may be granted by locality (``local_viewer``,
    ``/metrics`` without a token). ``cors_origins``: web origins (``https://example.org``) whose pages may call the API with a token.
    ``max_body``: bytes of a request body; ``max_header``: bytes of a request line with its headers. Times in seconds.
    """

    loopback: bool
    tls: bool = False
    version: str = ""
    local_viewer: bool = True
    cors_origins: tuple[str, ...] = ()
    max_body: int = 1_048_576
    max_header: int = 32_768
    max_wait: float = 120.0
    heartbeat: float = 15.0
    stream_interval: float = 0.2
    access_log: bool = False


def is_loopback(host: str) -> bool:
    """Whether a host to bind to (``127.0.0.1``, ``::1``, ``localhost``) is reachable from this machine only."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_loopback_name(host_header: str) -> bool:
    """Whether a ``Host`` header names this machine by a loopback name: what a page that plays with DNS cannot fake in a browser."""
    host = host_header.strip().lower()
    host = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(host) or host.endswith(".localhost")
