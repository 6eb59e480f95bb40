"""The live state of the street lights of a station, made of notifications that may come late, twice and in any order (CONFORMANCE N14 to N21)."""

from __future__ import annotations

from typing import Literal

import msgspec

from gridloom.core.registry import CLOCK_AHEAD

CONTACTORS = range(1, 5)
ALL = "all"
"""The key of what was told of all contactors at once (N15)."""


class Told(msgspec.Struct, frozen=True):
    """One value, when it became so by the station's clock, and the moment (µs) that decides what is newer."""

    value: str
    time: int
    moment: int


class Light(msgspec.Struct, frozen=True, omit_defaults=True):
    """One contactor, or all: ``status`` is On or Off, ``mode`` Schedule, LocalOverride or RemoteOverride; None: never told."""

    status: Told | None = None
    mode: Told | None = None


class Lights(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document: by contactor (``1`` to ``4``, ``all``) what was told of it. Of a contactor the newer of its own and ``all`` holds."""

    contactors: dict[str, Light] = {}

    def of(self, contactor: int) -> Light:
        """What holds for one contactor."""
        own, every = (self.contactors.get(key, Light()) for key in (str(contactor), ALL))
        return Light(_newer(every.status, own.status), _newer(every.mode, own.mode))

    def overridden(self) -> frozenset[int]:
        """The contactors that are under a remote override."""
        modes = {contactor: self.of(contactor).mode for contactor in CONTACTORS}
        return frozenset(contactor for contactor, mode in modes.items() if mode is not None and mode.value == "RemoteOverride")


def updated(lights: Lights, contactor: int | None, field: Literal["status", "mode"], value: str, time: int, received: int) -> Lights | None:
    """The state after a notification, or None when something newer is known (N21).

    ``time``: by the station's clock, ``received`` by ours, µs. A clock that runs ahead must not freeze the state: then its arrival counts. Of equal
    times the one that came later holds.
    """
    key = ALL if contactor is None else str(contactor)
    known = lights.contactors.get(key, Light())
    told = Told(value, time, time if time <= received + CLOCK_AHEAD else received)
    if _newer(getattr(known, field), told) is not told:
        return None
    return Lights({**lights.contactors, key: msgspec.structs.replace(known, **{field: told})})


def _newer(first: Told | None, second: Told | None) -> Told | None:
    """The newer; the second of equals."""
    if first is None or second is None:
        return first or second
    return second if second.moment >= first.moment else first
