"""What an owner may write as a value in the configuration: addresses, zones, durations, secrets, files.

Each is a plain ``str`` or ``float`` that was checked once, when the configuration was read; whoever gets one need not check again. The
sections of integrations (``integrations/NAME/config.py``) are made of these and of ``int``, ``bool``, ``Literal``, enums, lists and Structs.
Raising ValueError with what is allowed is the whole protocol: ``config`` adds key, file and line.
"""

from __future__ import annotations

import re
import stat
import zoneinfo
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec


class Setting(str):
    """Base of the textual settings. ``ALLOWED`` says in words what may be written."""

    ALLOWED: ClassVar[str] = "text"
    __slots__ = ()


class Address(Setting):
    """Where to listen: ``host:port``; IPv6 as ``[::1]:8470``; port 0 is any free port."""

    ALLOWED = 'an address "host:port" with a port from 0 (any free one) to 65535'
    __slots__ = ()

    def __new__(cls, text: str) -> Address:
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError("no port from 0 to 65535 behind the last colon, or no host before it")
        if ":" in host and not bracketed:
            raise ValueError("an IPv6 host is written in brackets: [::1]:8470")
        return super().__new__(cls, text)

    @property
    def host(self) -> str:
        """The host without brackets."""
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """0 to 65535; 0 is any free port."""
        return int(self.rpartition(":")[2])


class Zone(Setting):
    """An IANA time zone that this machine (or the tzdata package) knows."""

    ALLOWED = 'an IANA time zone, e.g. "Europe/Paris"'
    __slots__ = ()

    def __new__(cls, text: str) -> Zone:
        try:
            zoneinfo.ZoneInfo(text)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone") from None
        return super().__new__(cls, text)


class HttpUrl(Setting):
    """A target to post to: ``https://host…`` or ``http://host…``."""

    ALLOWED = "an address that begins with https:// or http:// and names a host"
    __slots__ = ()

    def __new__(cls, text: str) -> HttpUrl:
        parts = urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
            raise ValueError("not an http address with a host")
        return super().__new__(cls, text)


class Origin(Setting):
    """A web origin: scheme, host and port, nothing behind them."""

    ALLOWED = 'a web origin, e.g. "https://example.org" or "http://localhost:3000"'
    __slots__ = ()

    def __new__(cls, text: str) -> Origin:
        if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", text) or not urlsplit(text).hostname:
            raise ValueError("not scheme://host or scheme://host:port alone")
        return super().__new__(cls, text)


class Secret(Setting):
    """A value that is never shown: not in ``repr``, not by ``gridloom check``. Anybody who needs it says ``.reveal()``."""

    ALLOWED = "text (kept secret)"
    __slots__ = ()

    def __new__(cls, text: str) -> Secret:
        if not text:
            raise ValueError("an empty secret")
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def reveal(self) -> str:
        """The secret itself, as a plain ``str``."""
        return str.__str__(self)


class ReadableFile(Setting):
    """The path of a file that must exist and be readable, e.g. a certificate."""

    ALLOWED = "the path of a file that exists and that this user may read"
    __slots__ = ()

    def __new__(cls, text: str) -> ReadableFile:
        try:
            with open(text, "rb") as file:
                file.read(1)
        except OSError as error:
            raise ValueError(f"{error.strerror}") from None
        return super().__new__(cls, text)

    @property
    def path(self) -> Path:
        """The same as a Path."""
        return Path(str(self))


class SecretFile(ReadableFile):
    """The path of a file that holds one secret. A file that other users may read is worth a warning (``exposed``)."""

    ALLOWED = "the path of a file that holds the secret and that this user may read"
    __slots__ = ()

    def __new__(cls, text: str) -> SecretFile:
        return super().__new__(cls, text)  # type: ignore[return-value]  # the base builds an instance of cls

    @property
    def exposed(self) -> bool:
        """Whether users other than the owner may read or write it (group or world)."""
        return bool(Path(str(self)).stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IRGRP | stat.S_IWGRP))

    def read(self) -> Secret:
        """The content without the white space around it. Raises ValueError when it is empty, OSError when it is gone."""
        return Secret(Path(str(self)).read_text(encoding="utf-8").strip())


_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|authorization|api_?key|(?:^|[_-])keys?(?:$|[_-])", re.IGNORECASE)
_CAMEL_KEY = re.compile(r"[a-z]Keys?(?:$|[A-Z])")
_MASKS = (
    (re.compile(r"(\w://)[^/\s@\"']*@"), r"\1***@"),  # credentials in a URL
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"([?&](?:[\w-]*(?:token|key|secret|password|signature|sig))=)[^&\s\"']*", re.IGNORECASE), r"\1***"),
    (re.compile(r"(/key/)[^/?\s\"']+"), r"\1***"),  # EKM's readMeter has its key in the path
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), "***"),  # one of our own tokens: 32 bytes in base64url
)


def is_secret_name(name: str) -> bool:
    """Whether a key of this name holds something that is never shown. ``…_file`` is a path, not a secret."""
    if name.endswith(("_file", "_files", "_path")):
        return False
    return bool(_SECRET_NAME.search(name) or _CAMEL_KEY.search(name))


def masked(text: str) -> str:
    """The text without credentials in URLs, bearer tokens, secret query parameters and tokens of our own."""
    for pattern, instead in _MASKS:
        text = pattern.sub(instead, text)
    return text


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)\s*")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Duration(float):
    """A length of time in seconds: a number of seconds, or text such as ``"15m"``, ``"1h30m"``, ``"250ms"``, ``"2d"``."""

    ALLOWED: ClassVar[str] = 'a duration above 0: seconds as a number, or e.g. "250ms", "30s", "15m", "1h30m", "2d"'
    __slots__ = ()

    def __new__(cls, value: str | float) -> Duration:
        seconds = cls._read(value) if isinstance(value, str) else float(value)
        if not 0 < seconds < float("inf"):
            raise ValueError("not above 0")
        return super().__new__(cls, seconds)

    @staticmethod
    def _read(text: str) -> float:
        position, seconds = 0, 0.0
        while position < len(text) and (part := _DURATION.match(text, position)):
            seconds += float(part[1]) * _SECONDS[part[2]]
            position = part.end()
        if not text or position != len(text):
            try:
                return float(text)
            except ValueError:
                raise ValueError("neither seconds nor a number with one of ms, s, m, min, h, d behind it") from None
        return seconds


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section and table of the configuration: strict, frozen, with defaults where there is a sensible one."""

    def __repr__(self) -> str:
        # Sections land in tracebacks and logs; a URL in them may carry credentials that no Secret wraps.
        values = ", ".join(f"{name}={masked(repr(getattr(self, name)))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({values})"
