"""``[tic]``: which lines are read, and where the TIC2WebSocket API listens."""

from __future__ import annotations

from typing import Literal

from gridloom.core.settings import Address, Duration, Origin, SecretFile, Setting
from gridloom.core.settings import Section as Table
from gridloom.integrations.tic.labels import Mode
from gridloom.links import serial

Dialect = Literal["document", "v1", "v2"]
"""Which of the three wires of TIC2WebSocket is spoken: the published document's, or that of a released version."""


class SerialPort(Setting):
    """A port: a device path, or one on the network."""

    ALLOWED = 'a device path such as "/dev/serial/by-id/usb-…", "socket://host:port" or "rfc2217://host:port"'
    __slots__ = ()

    def __new__(cls, text: str) -> SerialPort:
        return super().__new__(cls, serial.checked(text))


class Section(Table, frozen=True):
    """The keys of ``[tic]``.

    ``mode``: which speed is tried first; whatever the meter speaks is read, also after Enedis switched it. ``discover``: read every TIC modem
    that is plugged in (by its USB ids), unless another section names its port. ``silent_after``: seconds without a group that makes sense
    before clients are told and the port is opened anew. ``origins``: web pages beyond those of this machine that may connect; ``token_file``:
    clients must send the token in that file.
    """

    listen: Address = Address("127.0.0.1:19584")
    dialect: Dialect = "document"
    mode: Literal["auto", "historic", "standard"] = "auto"
    ports: tuple[SerialPort, ...] = ()
    discover: bool = True
    silent_after: Duration = Duration(10)
    origins: tuple[Origin, ...] = ()
    token_file: SecretFile | None = None

    def __post_init__(self) -> None:
        if len(set(self.ports)) != len(self.ports):
            raise ValueError("ports: one port is named twice")

    @property
    def first_mode(self) -> Mode | None:
        """The mode whose speed is tried first; None is auto."""
        return None if self.mode == "auto" else Mode(self.mode)


def demo() -> Section:
    """As it is shown in a demo: no port of this machine is touched."""
    return Section(discover=False)
