"""The native message of a TIC meter, and what the link tells of its ports. The vendor API's own wire messages are in ``wire``.

These Structs travel on the bus and with the readings (``MeterReading.native``); the API answers from them and never sees the link.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from gridloom.integrations.tic.labels import Mode

State = Literal["starting", "searching", "reading", "silent", "busy", "missing", "denied", "unplugged"]
"""What a port is doing. ``searching``: bytes may come, but no frame was understood yet."""

ErrorKind = Literal["timeout", "unplugged", "unreadable", "checksum"]
"""Why a client is told an error instead of a frame. ``checksum``: a group of the frame that comes with it is damaged."""


class TicGroup(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One group as the meter sent it, padding included. ``valid``: its checksum was right."""

    label: str
    value: str
    horodate: str = ""
    valid: bool = True


class TicFrame(msgspec.Struct, frozen=True, tag="tic.frame"):
    """One frame: the native message of a TIC meter.

    ``serial``: ADSC or ADCO, from a group whose checksum was right: of this frame, or, if its own address is damaged, of one before it on the
    line. ``port``: path or URL without credentials; ``port_id``: USB path such as ``1-1``; ``port_path``: udev's ID_PATH. ``captured``: µs UTC of
    the hub's clock at the last byte. ``partial``: groups may be missing.
    """

    mode: Mode
    groups: tuple[TicGroup, ...]
    serial: str | None
    port: str
    port_id: str | None
    port_path: str | None
    captured: int
    partial: bool = False


class UsbInfo(msgspec.Struct, frozen=True):
    """What the operating system says of a USB adapter; None where it does not say. ``modem_type``: MICHAUD, TELEINFO or None."""

    vendor_id: int | None = None
    product_id: int | None = None
    product: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    modem_type: str | None = None


class PortState(msgspec.Struct, frozen=True):
    """A port now. ``name``: path or URL, never with credentials; ``serial``: of the meter behind it, once a frame has told; ``since``: µs UTC."""

    name: str
    port_id: str | None
    port_path: str | None
    serial: str | None
    mode: Mode | None
    state: State
    reason: str
    since: int
    usb: UsbInfo | None = None


class LineError(msgspec.Struct, frozen=True):
    """Something clients are to be told instead of a frame. ``frame``: the damaged one, where there is one."""

    port: str
    serial: str | None
    code_kind: ErrorKind
    frame: TicFrame | None = None
