"""Which meters are on a bus: every address of a range is asked, as EKM does it, or the only meter by the wildcard. No broadcast exists (FACTS 1.2).

A miss costs the request and a short wait for a first byte. The search takes turns with the polls of the bus and can be stopped at any time.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from gridloom.integrations.ekm import codec
from gridloom.integrations.ekm.errors import Garbled
from gridloom.integrations.ekm.link import Bus
from gridloom.integrations.ekm.models import MODELS, model_of
from gridloom.integrations.ekm.models.fields import V3, A

WITHIN = 0.15
"""Seconds that a first byte is waited for: longer than a meter thinks, short enough to get on."""
LAST = 999_999_999_998
"""The highest address that is no wildcard."""


class Found(msgspec.Struct, frozen=True):
    """A meter. ``model`` is one of MODELS; empty when its code is not known, or when what came was damaged each time (``code`` is empty then)."""

    address: str
    model: str
    code: str
    firmware: str


class Progress(msgspec.Struct, frozen=True):
    """How far a search has come: ``asked`` of ``total`` addresses, the last of them ``at``."""

    bus: str
    asked: int
    total: int
    at: str
    found: tuple[Found, ...]


class Search:
    """One search on one bus. ``told`` hears of each address; ``stop`` ends it behind the one that is being asked."""

    def __init__(self, bus: Bus, first: str, last: str, *, told: Callable[[Progress], None] = lambda _: None, within: float = WITHIN) -> None:
        self._bus, self._told, self._within = bus, told, within
        self._first, self._last = int(first), min(int(last), LAST)
        self._stopped = False
        self.progress = Progress(bus.name, 0, max(0, self._last - self._first + 1), codec.address_of(first), ())

    def stop(self) -> None:
        """Enough."""
        self._stopped = True

    async def run(self) -> tuple[Found, ...]:
        """The meters that answered. Raises LineLost when the port goes away."""
        for number in range(self._first, self._last + 1):
            if self._stopped:
                break
            address = f"{number:012d}"
            one = await ask(self._bus, address, within=self._within)
            found = self.progress.found if one is None else (*self.progress.found, one)
            self.progress = msgspec.structs.replace(self.progress, asked=self.progress.asked + 1, at=address, found=found)
            self._told(self.progress)
        return self.progress.found


async def only(bus: Bus) -> Found | None:
    """The only meter of the bus, whatever its address; None if there is none. With more than one, what comes is damaged."""
    return await ask(bus, codec.WILDCARD, within=float(bus.settings.timeout))


async def ask(bus: Bus, address: str, *, within: float) -> Found | None:
    """Whether somebody is there; noise is nobody. Raises LineLost."""
    try:
        frame = await bus.converse(codec.find(address, V3), address, patient=True, within=within)
        if frame is None:
            return None
        address, code = codec.meter_of(frame), codec.model_code(frame)
        model = model_of(code)
        if model is None and await bus.converse(codec.find(address, A), address, patient=True, within=within) is not None:
            model = MODELS["v4"]  # it answers as one
    except Garbled:  # a reply began, and was damaged: worth telling
        return Found(address, "", "", "")
    return Found(address, "" if model is None else model.name, code, codec.firmware(frame))
