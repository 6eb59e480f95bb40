"""What a Substation asks of its hardware: contactors, local switches, MV fault indicators, meter. And how the owner's own code is put in its place.

A driver is a class of the owner's that fills in what his RTU has; ``Driver`` itself is an RTU that has nothing. It is named as ``module:factory``
(``gridloom os3p substation --driver my_rtu:make``) and the factory is called with the identity:

    from gridloom.integrations.os3p.driver import Driver, Sample

    class Rtu(Driver):
        contactors = (1, 2)
        async def switch(self, contactor, on): gpio.write(17 + contactor, on)
        async def lit(self, contactor): return gpio.read(21 + contactor)
        async def meter(self): return [Sample("Voltage.L1N", "230.4", "V")]

    def make(identity): return Rtu(vendor="BrandX", model="SUBS-A1", serial_number="AQ1234")

Methods are called one at a time, from one event loop: what takes long belongs into ``asyncio.to_thread``. What they raise is told to the Central
System and does not end the station. A method that does not return within ``PATIENCE`` seconds is cancelled; ``start``, ``stop`` and ``reset`` may
take ``LONG``. Only ``install`` takes as long as it takes, beside the others: the lights go on and off meanwhile.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, Unsupported
from gridloom.integrations.os3p.messages import BootNotification, Location, Measurand, Unit
from gridloom.integrations.os3p.state import Fault

PATIENCE = 10.0
"""Seconds that the hardware may take for one thing, and that an order of the Central System waits for it."""
LONG = 60.0
"""Seconds for its start, stop and reset."""

T = TypeVar("T")


class Sample(NamedTuple):
    """One measured value: a plain decimal as text (I16), a name and a unit of Table 1."""

    measurand: Measurand
    value: str
    unit: Unit | None = None
    location: Location | None = None


class Driver:
    """Hardware that has nothing. Overwrite what yours has.

    ``contactors``: which of 1 to 4 there are. ``indicators``: how many medium-voltage fault indicators. ``poll``: seconds between two looks at the
    inputs; ``changed()`` of ``start`` makes the station look at once.
    """

    contactors: Sequence[int] = ()
    indicators: int = 0
    poll: float = 1.0
    installs: bool = False
    """Whether ``install`` does something."""

    def __init__(
        self,
        vendor: str = "Gridloom",
        model: str = "Substation",
        station_number: str = "",
        serial_number: str = "",
        firmware_version: str = "",
        iccid: str = "",
        imsi: str = "",
    ) -> None:
        self._boot = BootNotification(
            vendor=vendor, model=model, stationNumber=station_number, serialNumber=serial_number,
            firmwareVersion=firmware_version, iccid=iccid, imsi=imsi,
        )  # fmt: skip

    def identity(self) -> BootNotification:
        """What the station is now; asked at each connection (B15, B18)."""
        return self._boot

    async def start(self, changed: Callable[[], None]) -> None:
        """Get ready. ``changed()`` may be called from the event loop's thread whenever an input changed (``loop.call_soon_threadsafe`` elsewhere)."""

    async def stop(self) -> None:
        """The Substation ends; the contactors stay as they are."""

    async def switch(self, contactor: int, on: bool) -> None:
        """Switch the light of a contactor. Returns when it is done; raises when it cannot."""
        raise Unsupported("there are no contactors")

    async def lit(self, contactor: int) -> bool | None:
        """What the contactor's own feedback says; None: there is none, and it is believed to be as it was switched."""
        return None

    async def local(self, contactor: int) -> bool | None:
        """What the local override switch wants of the light; None: it is not active."""
        return None

    async def meter(self) -> Sequence[Sample]:
        """Fresh readings. Empty: there is no meter."""
        return ()

    async def faults(self) -> Sequence[Fault]:
        """The errors that stand now: of fault indicators (OverCurrentFailure, GroundFailure, MVFaultIndicatorError, with their group) and others."""
        return ()

    async def test_indicators(self) -> None:
        """Put all fault indicators into test; ``faults`` then names what they show, until ``reset_indicators``."""

    async def reset_indicators(self) -> None:
        """Reset all fault indicators. One whose cause is still there shows it again."""

    async def vendor_file(self, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
        """Ending of the name, and content, of what GetFile calls VendorSpecific, between two moments (µs UTC); None: there is none."""
        return None

    async def install(self, path: Path) -> None:
        """Install the firmware at ``path``. May end the process; the station then sees at its next start whether ``identity`` has a new version."""
        raise Unsupported("firmware cannot be installed here")

    async def reset(self) -> None:
        """Reset the hardware. Where it returns the Substation begins anew by itself."""


class Turns:
    """Calls the methods of one driver one at a time, and gives up what hangs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()

    async def __call__(
        self, method: Callable[..., Awaitable[T]], *arguments: object, hurry: bool = False, patience: float | None = None
    ) -> T:  # fmt: skip
        """What the method returns, which has ``patience`` seconds (else PATIENCE) for it. Raises TimeoutError, and whatever the method raises.

        ``hurry``: somebody waits for an answer, and the seconds count from now on, not from its turn.
        """
        seconds = PATIENCE if patience is None else patience
        real = seconds / self._clock.speed
        limit = asyncio.timeout(real if hurry else None)
        try:
            async with limit, self._lock, asyncio.timeout(real) as own:
                return await method(*arguments)
        except TimeoutError as error:
            if limit.expired() or own.expired():
                raise TimeoutError(f"{method.__name__.strip('_')} did not return within {seconds:g} s") from error
            raise


Factory = Callable[[str], Driver]


def load(spec: str) -> Factory:
    """The factory that ``module:factory`` names; modules of the current folder are found, too. Raises ConfigurationError."""
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise ConfigurationError(f"--driver: expected module:factory, such as my_rtu:make, got {spec[:80]!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigurationError(f"--driver: {module} cannot be imported: {error}") from error
    except AttributeError:
        raise ConfigurationError(f"--driver: {module} has no {name}") from None
    if not callable(factory):
        raise ConfigurationError(f"--driver: {spec} cannot be called")

    def made(identity: str) -> Driver:
        driver = factory(identity)
        if not isinstance(driver, Driver):
            raise ConfigurationError(f"--driver: {spec} made a {type(driver).__name__}; expected a gridloom.integrations.os3p.driver.Driver")
        return driver

    return made
