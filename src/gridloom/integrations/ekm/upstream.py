"""What a gateway elsewhere and its hub say to each other, at ``/gateway`` of the push port: MessagePack in binary WebSocket messages.

The gateway presents its key as ``Authorization: Bearer KEY``. It says which devices it has and how they fare, what they said (again and again until
the hub says that it is stored), and how each order ended (until the hub says that it heard). The hub sends orders; one that it sends twice has the
same id. Ours; the maker's own gateways poll an HTTP stream whose content is not published.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gridloom.core.model import Command, Device, Event, MeterReading

SUBPROTOCOL = "gridloom-gateway-1"
LARGEST = 4_194_304
"""Bytes of a message."""


class Said(msgspec.Struct, frozen=True, tag_field="what"):
    """Base of all."""


class Welcome(Said, frozen=True, tag="welcome"):
    """The hub's first word: its clock (µs), by which orders expire."""

    now: int


class Present(Said, frozen=True, tag="present"):
    """A device of the gateway, and that it takes orders for it."""

    device: Device


class Condition(Said, frozen=True, tag="condition"):
    """Whether a device can be reached, and why not."""

    device: str
    online: bool
    reason: str = ""


class Batch(Said, frozen=True, tag="batch"):
    """Readings and events, in their order. Sent again with the same ``number`` until it is stored."""

    number: int
    readings: tuple[MeterReading, ...] = ()
    events: tuple[Event, ...] = ()


class Stored(Said, frozen=True, tag="stored"):
    """The hub has it on disk."""

    number: int


class Order(Said, frozen=True, tag="order"):
    """To be carried out once, and not from ``until`` on (µs of the hub's clock)."""

    command: Command
    until: int


class Ended(Said, frozen=True, tag="ended"):
    """How an order ended. ``code``: empty when it is done; ``refused``: nothing was sent to the device; ``silent``: it may have acted, or not."""

    id: str
    result: Any = None
    code: str = ""
    message: str = ""
    refused: bool = False
    silent: bool = False


class Heard(Said, frozen=True, tag="heard"):
    """The hub knows how this order ended."""

    id: str


class Turned(Said, frozen=True, tag="turned"):
    """The hub does not take this device from this gateway, and why."""

    device: str
    reason: str


FromGateway = Present | Condition | Batch | Ended
FromHub = Welcome | Stored | Order | Heard | Turned


def _plain(value: Any) -> str:
    """Settings are a kind of text that the encoder does not take for one."""
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be sent to the hub")


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
from_gateway = msgspec.msgpack.Decoder(FromGateway)
from_hub: msgspec.msgpack.Decoder[FromHub] = msgspec.msgpack.Decoder(FromHub)
