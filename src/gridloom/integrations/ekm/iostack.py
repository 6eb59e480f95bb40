"""The ioStack: its commands, its status codes, and who speaks with it.

**The wire of an ioStack is not public to us** (FACTS 3.2): no frame, no command code, no speed is known. What is here is the device as its
published documents describe it (FACTS 3.1), behind ``Driver``. ``Simulated`` is one in memory. For real hardware a driver can be plugged in (an
entry point of the group ``gridloom.ekm.iostack``); as long as there is none, ``Unavailable`` answers every order "not available for this device".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from gridloom.core.clock import Clock, rfc3339
from gridloom.core.errors import Unsupported
from gridloom.integrations.ekm.errors import IoStackRefused

GROUP = "gridloom.ekm.iostack"
PINS = 4
DEFAULT_PASSWORD = "00000000"  # noqa: S105  # ours: the maker has published none


class Status(NamedTuple):
    """A row: ``error`` by bit 7 of the number, but for those that say that there was nothing to end."""

    number: int
    meaning: str
    error: bool


_ROWS = (
    Status(0, "OK", False),
    Status(1, "OK, a previous watch was cleared", False),
    Status(129, "CRC error", True),
    Status(130, "unknown command", True),
    Status(131, "bad length", True),
    Status(132, "wrong password", True),
    Status(133, "bad parameter", True),
    Status(134, "DI increment too large", True),
    Status(135, "command not implemented", True),
    Status(145, "no watch on pin", False),
    Status(146, "no waveform on pin", False),
    Status(147, "DO busy", True),
    Status(148, "DI busy", True),
    Status(149, "firmware update block error", True),
    Status(251, "NVRAM verify error", True),
    Status(252, "NVRAM update error", True),
    Status(253, "process error", True),
    Status(254, "internal error", True),
)
STATUSES: Mapping[int, Status] = MappingProxyType({row.number: row for row in _ROWS})
"""Status codes (FACTS 3.1; of 251 to 254 the pairs are named there together)."""
WATCHES: Mapping[int, str] = MappingProxyType(
    {16: "DO waveform", 32: "DI count watch", 48: "DI level watch", 64: "DI rate watch", 80: "AI level watch"}
)
"""Who can own a pin."""


def check(status: int, what: str) -> int:
    """The status if it is no error; raises IoStackRefused."""
    row = STATUSES.get(status)
    if row.error if row is not None else status & 0x80:
        raise IoStackRefused(f"ioStack: {what}: status {status} ({row.meaning if row is not None else 'unknown'})", status)
    return status


class DigitalInput(msgspec.Struct):
    """Pin, level and pulse count."""

    pin: int
    level: int = 0
    count: int = 0


class DigitalOutput(msgspec.Struct):
    """Pin and level."""

    pin: int
    level: int = 0


class AnalogInput(msgspec.Struct):
    """Pin and voltage."""

    pin: int
    volts: float = 0.0


class OneWireDevice(msgspec.Struct, frozen=True):
    """On one of the four 1-Wire ports: ``rom`` and ``family`` in hexadecimal."""

    port: int
    rom: str
    family: str
    celsius: float | None = None


class GetStatus(msgspec.Struct):
    """What GetStatus answers (ours, FACTS 9)."""

    status: int
    digital_inputs: list[DigitalInput]
    digital_outputs: list[DigitalOutput]
    analog_inputs: list[AnalogInput]
    date_time: str | None


class Driver(Protocol):
    """Speaks with one ioStack. Every method raises IoStackRefused with the status of a refusal, DeviceTimeout, Offline, Unsupported."""

    @property
    def words(self) -> str:
        """What speaks, for people."""
        ...

    async def set_password(self, new: str, password: str) -> None:
        """SetPassword."""
        ...

    async def scan_one_wire(self) -> list[OneWireDevice]:
        """ScanOneWire."""
        ...

    async def get_status(self) -> GetStatus:
        """GetStatus."""
        ...

    async def set_date_time(self, local: datetime) -> None:
        """SetDateTime: wall time."""
        ...

    async def reset_count(self, pin: int, password: str | None) -> None:
        """ResetDICount."""
        ...

    async def set_output(self, pin: int, level: int, clear_watch: bool, password: str | None) -> int:
        """SetDOLevel; the status, 0 or 1 (a watch was cleared)."""
        ...


class Unavailable:
    """What stands for a real ioStack as long as nobody has plugged a driver in."""

    words = "none: the ioStack's serial protocol is not public"

    def __init__(self, address: str) -> None:
        self._address = address

    def _no(self, what: str) -> Unsupported:
        return Unsupported(
            f"ioStack {self._address}: {what}: not available for this device: its serial protocol is not public, and no driver is installed"
        )

    async def set_password(self, new: str, password: str) -> None:
        """Not available."""
        raise self._no("SetPassword")

    async def scan_one_wire(self) -> list[OneWireDevice]:
        """Not available."""
        raise self._no("ScanOneWire")

    async def get_status(self) -> GetStatus:
        """Not available."""
        raise self._no("GetStatus")

    async def set_date_time(self, local: datetime) -> None:
        """Not available."""
        raise self._no("SetDateTime")

    async def reset_count(self, pin: int, password: str | None) -> None:
        """Not available."""
        raise self._no("ResetDICount")

    async def set_output(self, pin: int, level: int, clear_watch: bool, password: str | None) -> int:
        """Not available."""
        raise self._no("SetDOLevel")


class Simulated:
    """An ioStack in memory. ``watches``: the owner of an output pin; ``fail``: the status that the next command is answered with."""

    words = "simulated"

    def __init__(self, clock: Clock, *, password: str = DEFAULT_PASSWORD) -> None:
        self.password = password
        self.inputs = [DigitalInput(pin) for pin in range(1, PINS + 1)]
        self.outputs = [DigitalOutput(pin) for pin in range(1, PINS + 1)]
        self.analog = [AnalogInput(pin, 0.5 * pin) for pin in range(1, PINS + 1)]
        self.one_wire = [OneWireDevice(1, "28ff641e8d16c3a5", "28", 21.5)]
        self.watches: dict[int, int] = {}
        self.fail: int | None = None
        self._clock = clock
        self._set: tuple[datetime, int] | None = None

    async def set_password(self, new: str, password: str) -> None:
        """SetPassword."""
        self._answer("SetPassword", password)
        self.password = new

    async def scan_one_wire(self) -> list[OneWireDevice]:
        """ScanOneWire."""
        self._answer("ScanOneWire")
        return list(self.one_wire)

    async def get_status(self) -> GetStatus:
        """GetStatus."""
        status = self._answer("GetStatus")
        return GetStatus(status, self.inputs, self.outputs, self.analog, self._date_time())

    async def set_date_time(self, local: datetime) -> None:
        """SetDateTime."""
        self._answer("SetDateTime")
        self._set = local, self._clock.now()

    async def reset_count(self, pin: int, password: str | None) -> None:
        """ResetDICount."""
        self._answer("ResetDICount", password, pin=pin)
        self.inputs[pin - 1].count = 0

    async def set_output(self, pin: int, level: int, clear_watch: bool, password: str | None) -> int:
        """SetDOLevel. A pin that a watch owns is busy, unless the watch is to be cleared."""
        self._answer("SetDOLevel", password, pin=pin, parameter=level in (0, 1))
        if pin in self.watches and not clear_watch:
            check(147, "SetDOLevel")
        self.outputs[pin - 1].level = level
        return int(self.watches.pop(pin, None) is not None)

    def _answer(self, what: str, password: str | None = None, *, pin: int = 1, parameter: bool = True) -> int:
        failed, self.fail = self.fail, None
        if failed is None:
            failed = 132 if password not in (None, self.password) else 0 if 1 <= pin <= PINS and parameter else 133
        return check(failed, what)

    def _date_time(self) -> str:
        if self._set is None:
            return rfc3339(self._clock.now())
        local, at = self._set
        return (local + timedelta(microseconds=self._clock.now() - at)).isoformat()


def driver(address: str, port: str) -> Driver:
    """Who speaks with a real ioStack on ``port``: a driver that is plugged in (``make(address, port) -> Driver``), else nobody."""
    for plugged in entry_points(group=GROUP):
        made: Driver = plugged.load()(address, port)
        return made
    return Unavailable(address)
