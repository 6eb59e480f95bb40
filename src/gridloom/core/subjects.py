"""The words of the bus: which subject carries what, and how a device's id becomes one word of it.

=================  ==============  ======================================================================
subject            message         told by
=================  ==============  ======================================================================
readings.<device>  Told            core.intake, after the store has the reading
events.<device>    ToldEvent       core.intake, after the store has the event
command.<id>       Command         core.commands, at each state, arguments masked
device.<device>    DeviceState     core.registry, at registration, change, online, offline, removal
order.<device>     str             asked, not told: the id of an order, answered by the node that holds the link
own.<integration>  any             what the rooms of one integration tell each other
=================  ==============  ======================================================================
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from urllib.parse import unquote

import msgspec

from gridloom.core.model import Device, Event, MeterReading

ALL_READINGS = "readings.*"
ALL_EVENTS = "events.*"
ALL_COMMANDS = "command.*"
ALL_DEVICES = "device.*"

HUB = "hub"
"""The device of events about the hub itself (``storage.full``…); no integration is called so without a colon."""


class Told(msgspec.Struct, frozen=True):
    """A reading that the store has; ``cursor`` is where a live stream resumes after it."""

    cursor: str
    reading: MeterReading


class ToldEvent(msgspec.Struct, frozen=True):
    """An event that the store has. ``cursor`` is empty for the one event that cannot be stored: that the disk is full."""

    cursor: str
    event: Event


class DeviceState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A device and whether it is there.

    Times in µs: ``since`` the last change of ``online``, ``last_seen`` its last word in this process. ``node`` is the hub process that holds (or
    held last) its link; ``reason`` why it is offline.
    """

    device: Device
    online: bool
    since: int
    last_seen: int | None = None
    reason: str = ""
    node: str = ""
    removed: bool = False


_OUTSIDE = re.compile(rb"[^A-Za-z0-9_:-]")


@lru_cache(maxsize=65_536)
def word(id: str) -> str:
    """One word that NATS accepts, whatever the id holds: all but ``A-Z a-z 0-9 _ : -`` is percent-encoded UTF-8; the empty id is ``%``."""
    if not id:
        return "%"
    return _OUTSIDE.sub(lambda found: b"%%%02X" % found[0][0], id.encode("utf-8", "surrogatepass")).decode("ascii")


def unword(word: str) -> str:
    """The id that became this word."""
    return "" if word == "%" else unquote(word, errors="surrogatepass")


def readings(device: str) -> str:
    """Where the readings of a device are told."""
    return "readings." + word(device)


def event(device: str) -> str:
    """Where the events of a device are told."""
    return "events." + word(device)


def command(id: str) -> str:
    """Where the states of an order are told."""
    return "command." + word(id)


def order(device: str) -> str:
    """Who holds the link of the device answers here."""
    return "order." + word(device)


def device(device: str) -> str:
    """Where a device's registration and liveness are told."""
    return "device." + word(device)


def of(integration: str, *words: str) -> str:
    """A subject of an integration's own, for bytes or Structs that only its own rooms understand; each word is encoded."""
    return ".".join(["own", word(integration), *map(word, words)])


def device_matches(pattern: str, device: str) -> bool:
    """Whether a device is meant by what an owner wrote: its id, or with ``*`` for any characters. Brackets and question marks are plain."""
    return pattern == device or ("*" in pattern and fnmatchcase(device, pattern.replace("[", "[[]").replace("?", "[?]")))
