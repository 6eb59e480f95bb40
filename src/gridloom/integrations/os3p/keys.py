"""The configuration keys of our Substation (guide 6, annex A5): what each may hold, and who may change it. One row a key."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from gridloom.core.settings import Zone
from gridloom.integrations.os3p.schedule import MAX_STACK_LEVEL, coordinates

Check = Callable[[str], bool]
"""Whether a value may be written."""


class Key(NamedTuple):
    """A key as it is spelt; it is found in any letter case (I22). ``check`` None: read only. ``default`` None: it is calculated."""

    name: str
    check: Check | None
    default: str | None
    clause: str


def _integer(most: int) -> Check:
    def check(text: str) -> bool:
        return re.fullmatch(r"\s*[0-9]{1,10}\s*", text, re.ASCII) is not None and int(text) <= most

    return check


def _zone(text: str) -> bool:
    try:
        Zone(text)
    except ValueError:
        return False
    return True


LARGEST = 2_147_483_647
PING, GEOLOCATION, ZONE = "websocketPingInterval", "Geolocation", "TimeZone"
STACK, METER, HEARTBEAT, SUNRISE, SUNSET = "StreetlightProfileMaxStackLevel", "MeterValuesInterval", "HeartbeatInterval", "Sunrise", "Sunset"

_ROWS = (
    Key(PING, _integer(LARGEST), "60", "guide 6 table 8, C18"),
    Key(GEOLOCATION, lambda text: coordinates(text) is not None, "[52.09,5.12]", "A5, A8.2, S8"),
    Key(SUNRISE, None, None, "A5, S9"),
    Key(SUNSET, None, None, "A5, S9"),
    Key(STACK, _integer(LARGEST), str(MAX_STACK_LEVEL), "A7.1 table 9, S10"),
    Key(ZONE, _zone, "Europe/Amsterdam", "FACTS section 3"),
    Key(METER, _integer(86_400), "900", "ours: seconds between MeterValues, 0 for none"),
    Key(HEARTBEAT, None, None, "ours: seconds, as BootNotification was answered"),
)
TABLE: Mapping[str, Key] = {row.name.lower(): row for row in _ROWS}


def find(name: str) -> Key | None:
    """The key of this name."""
    return TABLE.get(name.strip().lower())


def defaults() -> dict[str, str]:
    """Of the keys that are kept."""
    return {row.name: row.default for row in _ROWS if row.default is not None}
