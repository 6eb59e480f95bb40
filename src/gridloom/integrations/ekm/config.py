"""``[ekm]`` and ``[[ekm.bus]]``: which RS-485 lines there are, which meters on them, and how the Settings API and the push streams are served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from gridloom.core.settings import Address, Duration, Secret, Setting, Zone
from gridloom.core.settings import Section as Table
from gridloom.integrations.ekm.codec import WILDCARD, address_of
from gridloom.integrations.ekm.models import MODELS
from gridloom.links import serial

IOSTACK, SIMULATED_IOSTACK = "iostack", "iostack-sim"
KINDS = (*MODELS, IOSTACK, SIMULATED_IOSTACK)


class SerialPort(Setting):
    """A port: a device path, or one on the network."""

    ALLOWED = 'a device path such as "/dev/serial/by-id/usb-…", "socket://host:port" or "rfc2217://host:port"'
    __slots__ = ()

    def __new__(cls, text: str) -> SerialPort:
        return super().__new__(cls, serial.checked(text))


class Unit(Setting):
    """A device on a bus: its address and what it is, and how often it is read if not as often as the others: ``000300000234:v4@10``."""

    ALLOWED = f'"ADDRESS:KIND" such as "000300000234:v4", or "ADDRESS:KIND@SECONDS"; KIND is one of {", ".join(KINDS)}; ADDRESS * is the only meter'
    __slots__ = ()

    def __new__(cls, text: str) -> Unit:
        found = re.fullmatch(r"([0-9]{1,12}|\*):([a-z0-9-]+)(?:@([0-9]+(?:\.[0-9]+)?))?", text)
        if found is None or found[2] not in KINDS:
            raise ValueError(f"{text[:60]!r} is no address with a kind behind it")
        if found[3] is not None and not 0.1 <= float(found[3]) <= 86_400:
            raise ValueError(f"{found[3]} is not from 0.1 to 86400 seconds")
        address = WILDCARD if found[1] == "*" else address_of(found[1])
        return super().__new__(cls, f"{address}:{found[2]}{'' if found[3] is None else '@' + found[3]}")

    @property
    def address(self) -> str:
        """Twelve digits."""
        return self[:12]

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self[13:].partition("@")[0]

    @property
    def poll_seconds(self) -> float | None:
        """How often this one is read; None: as the others."""
        return float(seconds) if (seconds := self.partition("@")[2]) else None


class MacAddress(Setting):
    """Twelve hexadecimal digits, with or without colons between them."""

    ALLOWED = 'a MAC address such as "995DAD427614"'
    __slots__ = ()

    def __new__(cls, text: str) -> MacAddress:
        digits = text.replace(":", "").upper()
        if not re.fullmatch(r"[0-9A-F]{12}", digits):
            raise ValueError("not twelve hexadecimal digits")
        return super().__new__(cls, digits)


class Bus(Table, frozen=True):
    """One RS-485 line.

    ``poll_seconds``: how often its meters are read. ``timeout``: how long the first byte of an answer is waited for. ``silent_after``: how long a
    meter may be silent before it is offline. ``timezone``: in which the clocks of its meters are set; without it the hub's. ``baud``: meters have
    9600. ``quiet``: the silence that is kept between two exchanges.
    """

    port: SerialPort
    meters: tuple[Unit, ...] = ()
    poll_seconds: Annotated[float, Meta(ge=0.1, le=86_400)] = 60.0
    timeout: Duration = Duration("600ms")
    silent_after: Duration = Duration("2m")
    timezone: Zone | None = None
    baud: Annotated[int, Meta(ge=300, le=4_000_000)] = 9600
    quiet: Duration = Duration("3ms")

    def __post_init__(self) -> None:
        addresses = [unit.address for unit in self.meters]
        if len(set(addresses)) != len(addresses):
            raise ValueError("meters: one address is named twice")
        if WILDCARD in addresses and len(addresses) > 1:
            raise ValueError('meters: the address "*" is for a bus with one meter')


class Section(Table, frozen=True):
    """The keys of ``[ekm]``.

    ``gateway_key`` and ``gateway_mac``: of the gateway that runs in the hub's own process. ``require_token``: clients of the Settings API must send a
    bearer token; without it, a key alone will do, as in older versions of that API. ``push_listen``: where the push streams are;
    ``push_host``: how clients reach them, as ``host`` or ``host:port``, where a proxy is in between.
    """

    bus: tuple[Bus, ...] = ()
    gateway_key: Secret | None = None
    gateway_mac: MacAddress | None = None
    require_token: bool = True
    push_listen: Address = Address("127.0.0.1:8473")
    push_host: str = ""

    def __post_init__(self) -> None:
        ports = [bus.port for bus in self.bus]
        if len(set(ports)) != len(ports):
            raise ValueError("bus: one port is named twice")
        addresses = [unit.address for bus in self.bus for unit in bus.meters if unit.address != WILDCARD]
        if len(set(addresses)) != len(addresses):
            raise ValueError("bus: one address is on two buses")


def demo() -> Section:
    """As it is shown in a demo: no port of this machine is touched, and any free one is listened on."""
    return Section(push_listen=Address("127.0.0.1:0"))


def with_simulated(section: Section, port: str, meters: Sequence[str]) -> Section:
    """The section with a bus of simulated meters more, and an ioStack, read often: somebody is watching."""
    units = tuple(Unit(meter) for meter in (*meters, f"000000000900:{SIMULATED_IOSTACK}"))
    return msgspec.structs.replace(section, bus=(*section.bus, Bus(port=SerialPort(port), meters=units, poll_seconds=5.0)))
