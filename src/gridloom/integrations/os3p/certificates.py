"""TLS of the listener: its certificate, its key and the authorities of stations, read again when their files change (FACTS I43).

A certificate lives for months, or for days, and the hub for years: whoever renews the files need not restart it. What is connected stays so; files
that cannot be used change nothing, and are told once.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.integrations.os3p.config import Section

log = logging.getLogger(__name__)

LOOK_EVERY = 60.0
"""Seconds."""
_Stamp = tuple[tuple[int, int, int], ...]
"""Of each file the time of its last change in ns, its size and its inode."""


class Certificates:
    """Tells ``changed`` the new context whenever the files have become others; ``watch`` it."""

    def __init__(self, section: Section, clock: Clock, changed: Callable[[ssl.SSLContext], None]) -> None:
        self._section = section
        self._clock = clock
        self._changed = changed
        self._stamp = _stamp(section)

    async def watch(self) -> None:
        """Does not end by itself."""
        while True:
            await self._clock.sleep(LOOK_EVERY)
            await self.look()

    async def look(self) -> None:
        """Read them if they have changed. Never raises."""
        try:
            stamp = await asyncio.to_thread(_stamp, self._section)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            context = await asyncio.to_thread(server_tls, self._section)
        except (ConfigurationError, OSError) as error:
            log.error("certificates have changed and cannot be used: the old ones stay", extra={"reason": str(error)})
            return
        if context is not None:
            self._changed(context)
            log.info("certificates were read again")


def server_tls(section: Section) -> ssl.SSLContext | None:
    """TLS as the section says, None without; a client certificate is asked for where its authorities are named. Raises ConfigurationError."""
    certificate, key, authorities = section.tls_certificate_file, section.tls_key_file, section.client_ca_file
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate.path, key.path, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigurationError(f"[os3p] tls_certificate_file, tls_key_file: not a certificate and its key in PEM: {error}") from error
    if authorities is not None:
        try:
            context.load_verify_locations(authorities.path)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(f"[os3p] client_ca_file: no certificates in PEM: {error}") from error
        context.verify_mode = ssl.CERT_OPTIONAL  # who brings none is told so by the door
    return context


def _no_password() -> str:
    """OpenSSL must not ask the terminal."""
    raise ValueError("the key has a password")


def _stamp(section: Section) -> _Stamp:
    """Raises OSError."""
    files = (section.tls_certificate_file, section.tls_key_file, section.client_ca_file)
    found = [Path(file.path).stat() for file in files if file is not None]
    return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found)
