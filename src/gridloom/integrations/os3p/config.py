"""``[os3p]``: where substations connect, who is let in, and how they are treated."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from gridloom.core.settings import Address, Duration, HttpUrl, ReadableFile, Setting, Zone
from gridloom.core.settings import Section as Table

Accept = Literal["known", "approve", "any"]
"""Who may register: ``known`` stations only, whoever comes once an operator ``approve``s, or ``any``."""


class UrlPath(Setting):
    """The path of an endpoint: begins with a slash, ends without one."""

    ALLOWED = 'the path of an endpoint such as "/OS3P" or "/webServices/OS3P/1.0": no slash at its end, nothing percent-encoded'
    __slots__ = ()

    def __new__(cls, text: str) -> UrlPath:
        if not re.fullmatch(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*", text):
            raise ValueError("not words of A-Z a-z 0-9 - . _ ~ with one slash before each")
        return super().__new__(cls, text)


class Subprotocol(Setting):
    """The name of a WebSocket subprotocol."""

    ALLOWED = 'the name of a WebSocket subprotocol such as "OS3P1.0"'
    __slots__ = ()

    def __new__(cls, text: str) -> Subprotocol:
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", text):
            raise ValueError("not one word of letters, digits and !#$%&'*+-.^_`|~")
        return super().__new__(cls, text)


class Geolocation(Setting):
    """Where stations stand."""

    ALLOWED = 'degrees north and east such as "[52.09, 5.12]"'
    __slots__ = ()

    def __new__(cls, text: str) -> Geolocation:
        from gridloom.integrations.os3p.schedule import coordinates  # not for every start of the hub

        if coordinates(text) is None:
            raise ValueError("not [latitude, longitude] with -90 to 90 and -180 to 180")
        return super().__new__(cls, text)


class Section(Table, frozen=True):
    """The keys of ``[os3p]``.

    ``path``: the endpoint is ``ws://LISTEN/PATH`` (or ``wss://``), and a station connects to ``PATH/IDENTITY``. ``accept``: an unknown identity gets
    404 (``known``), waits as Pending until an operator accepts or rejects it (``approve``, at most ``max_pending`` of them: one more takes the place
    of the oldest that is not connected), or is taken at once (``any``). ``timezone`` and ``geolocation``: of the stations that do not tell theirs,
    for their street-light schedules and for times without an offset; without ``timezone`` the hub's. ``subprotocols``: the names that are understood
    as this protocol; the first that a station offers is taken.

    ``tls_certificate_file`` and ``tls_key_file``: PEM files, listen with TLS. ``client_ca_file``: a station's certificate is checked against these
    authorities, and one of its names must be the identity in the URL; ``client_certificate``: whether it must bring one. All three files are read
    again when they change. ``basic_auth``: whether a station for which no secret was set may connect without one.

    ``ping_interval``: how often a silent station is pinged; without an answer for as long again it is closed. ``heartbeat_interval``: what accepted
    stations are told; heartbeats set their clocks, it is the pings that tell whether they are there. ``pending_interval``: after how long a station
    that waits, or is rejected, should ask again. ``boot_grace``: how long a station that never registered may be silent before it is asked to.
    ``call_timeout``: how long an answer to a message of ours is waited for. ``max_message`` in bytes; ``max_connections`` and
    ``handshakes_per_second``: more are told to come again later. ``strict``: messages that deviate from the document are refused instead of only
    counted; an operator may say otherwise for single stations.

    ``learn_configuration``: a station that has booted is asked once for Geolocation, TimeZone and StreetlightProfileMaxStackLevel, after
    ``learn_after`` or up to twice that, so that not all are asked at once. ``schedule_checks``: in each ``schedule_check_interval`` every station
    whose profiles are known is asked for the effective schedule of the day, which is compared with our calculation. ``schedule_tolerance``: how far
    switching times that follow the sun may be apart.

    ``files_url``: under which stations reach the hub's ``[http]`` listener, for the files that they upload and the firmware that they fetch; without
    it the address that it listens on. ``files_max_size``: bytes of one file. ``files_room``: bytes of all of them; the oldest uploads make room for
    new ones. ``files_kept``: uploads that are older are removed. ``files_link_lifetime``: how long a station may use the link it was given.
    """

    listen: Address = Address("127.0.0.1:8471")
    path: UrlPath = UrlPath("/OS3P")
    accept: Accept = "known"
    max_pending: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    timezone: Zone | None = None
    subprotocols: tuple[Subprotocol, ...] = (Subprotocol("OS3P1.0"),)
    tls_certificate_file: ReadableFile | None = None
    tls_key_file: ReadableFile | None = None
    client_ca_file: ReadableFile | None = None
    client_certificate: Literal["optional", "required"] = "required"
    basic_auth: Literal["optional", "required"] = "optional"
    ping_interval: Duration = Duration("60s")
    heartbeat_interval: Duration = Duration("12h")
    pending_interval: Duration = Duration("5m")
    boot_grace: Duration = Duration("5s")
    call_timeout: Duration = Duration("30s")
    max_message: Annotated[int, Meta(ge=4_096, le=67_108_864)] = 1_048_576
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000
    handshakes_per_second: Annotated[int, Meta(ge=1, le=100_000)] = 500
    strict: bool = False
    geolocation: Geolocation | None = None
    learn_configuration: bool = True
    learn_after: Duration = Duration("1m")
    schedule_checks: bool = True
    schedule_check_interval: Duration = Duration("1d")
    schedule_tolerance: Duration = Duration("2m")
    files_url: HttpUrl | None = None
    files_max_size: Annotated[int, Meta(ge=1, le=4_294_967_296)] = 67_108_864
    files_room: Annotated[int, Meta(ge=1, le=1_099_511_627_776)] = 1_073_741_824
    files_kept: Duration = Duration("90d")
    files_link_lifetime: Duration = Duration("3d")

    def __post_init__(self) -> None:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file are given together")
        if self.client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("client_ca_file needs tls_certificate_file and tls_key_file")
        if not self.subprotocols:
            raise ValueError("subprotocols: at least one")
        if self.files_room < self.files_max_size:
            raise ValueError("files_room: at least files_max_size")


def demo() -> Section:
    """As it is shown in a demo: on a free port, and whoever comes is let in."""
    return Section(listen=Address("127.0.0.1:0"), accept="any")
