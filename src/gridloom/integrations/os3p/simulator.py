"""Substations that are not there: a driver with believable values, and many of them in one process.

What a simulated station measures is a function of its seed and of the moment, in its local time: transformers of 100 to 630 kVA, load that
rises in the morning and the evening, voltage that sags under it, oil that warms up; registers since the start of 2026. Faults happen now and then, by
the same dice; a station can also be told to have one.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gridloom.core.clock import Clock, from_datetime, to_datetime
from gridloom.core.settings import Secret
from gridloom.core.tasks import OneTask
from gridloom.integrations.os3p import keys
from gridloom.integrations.os3p.client import Settings, Substation
from gridloom.integrations.os3p.driver import Driver, Sample
from gridloom.integrations.os3p.messages import BootNotification
from gridloom.integrations.os3p.state import Fault

if TYPE_CHECKING:
    from gridloom.core.hub import Health

EPOCH = from_datetime(datetime(2026, 1, 1, tzinfo=UTC))
HOUR = 3_600_000_000
SIZES = (100, 160, 250, 400, 630)
"""kVA of transformers."""
PHASES = ("L1", "L2", "L3")
FAULTY = 0.002
"""The part of its hours in which a station has a fault."""
INSTALLING = 2.0
"""Seconds that the simulated installation of firmware takes."""


class Simulated(Driver):
    """Two contactors with feedback, a fault indicator for each of two groups, a meter. ``standing``: faults that somebody has put there."""

    contactors = (1, 2)
    indicators = 2
    poll = 60.0
    installs = True

    def __init__(self, identity: str, clock: Clock, *, seed: int = 0, zone: str = "Europe/Amsterdam", faulty: float = FAULTY) -> None:
        super().__init__("Gridloom", "Simulated RTU", f"{seed:06}"[-10:], f"SIM-{seed:08}"[:25], "1.0.0")
        self.closed = {1: False, 2: False}
        self.overridden: dict[int, bool] = {}
        self.standing: set[Fault] = set()
        self.rating = SIZES[seed % len(SIZES)]
        self._seed = seed
        self._clock = clock
        self._zone = ZoneInfo(zone)
        self._faulty = faulty
        self._testing = False
        self._changed: Callable[[], None] = lambda: None

    async def start(self, changed: Callable[[], None]) -> None:
        """Remember whom to tell."""
        self._changed = changed

    # --------------------------------------------------------------------------------------------------- what somebody does to it

    def pull(self, contactor: int, on: bool) -> None:
        """Somebody moves the contactor by hand."""
        self.closed[contactor] = on
        self._changed()

    def turn(self, on: bool | None) -> None:
        """The local override switch of the station: on, off, or None: as the schedule wants."""
        self.overridden = {} if on is None else dict.fromkeys(self.contactors, on)
        if on is not None:
            self.closed = dict.fromkeys(self.contactors, on)
        self._changed()

    def stand(self, *faults: Fault) -> None:
        """These faults are there from now on, and no others."""
        self.standing = set(faults)
        self._changed()

    # ------------------------------------------------------------------------------------------------------------------ driver

    async def switch(self, contactor: int, on: bool) -> None:
        """At once."""
        self.closed[contactor] = on

    async def lit(self, contactor: int) -> bool | None:
        """The feedback."""
        return self.closed[contactor]

    async def local(self, contactor: int) -> bool | None:
        """The switch."""
        return self.overridden.get(contactor)

    async def meter(self) -> Sequence[Sample]:
        """Table 1 without what few stations have."""
        now = self._clock.now()
        loads = [self._load(now, phase) for phase in range(3)]
        volts = [232.0 - 9.0 * load / (self.rating / 3) + self._noise(now, 90, f"volt {phase}") for phase, load in enumerate(loads)]
        amps = [load * 1000 / volt for load, volt in zip(loads, volts, strict=True)]
        factor = [0.985 - 0.03 * self._dice("factor", phase) for phase in range(3)]
        outside = self._outside(now)
        energy = self._energy(now)
        each = zip(PHASES, volts, amps, loads, factor, strict=True)
        samples = [
            Sample("AmbientTemperature", f"{outside + 6:.1f}", "C"),
            Sample("OilTemperature", f"{outside + 12 + 45 * self._use(now):.1f}", "C"),
        ]
        for phase, volt, amp, load, cosine in each:
            samples += [
                Sample(f"Voltage.{phase}N", f"{volt:.1f}", "V"),  # type: ignore[arg-type]  # one of the names
                Sample(f"Current.{phase}", f"{amp:.2f}", "A"),  # type: ignore[arg-type]
                Sample(f"ActivePower.{phase}", f"{load * 1000 * cosine:.0f}", "W"),  # type: ignore[arg-type]
                Sample(f"PowerFactor.{phase}", f"{cosine:.3f}"),  # type: ignore[arg-type]
            ]
        power = sum(load * cosine for load, cosine in zip(loads, factor, strict=True))
        return [
            *samples,
            Sample("ActivePower.Sum", f"{power * 1000:.0f}", "W"),
            Sample("ApparentPower.Sum", f"{sum(loads) * 1000:.0f}", "VA"),
            Sample("RealEnergyConsumed.Sum", f"{energy * 1000:.0f}", "Wh"),
            Sample("Frequency", f"{50 + 0.02 * self._noise(now, 30, 'hertz'):.3f}", "Hz"),
            Sample("Energy.Active.Import.Register", f"{energy * 0.02:.3f}", "kWh", "P1Meter"),
            Sample("Power.Active.Import", f"{power * 0.02:.3f}", "kW", "P1Meter"),
        ]

    async def faults(self) -> Sequence[Fault]:
        """What somebody put there, what a test shows, and what the dice say for this hour."""
        found = set(self.standing)
        if self._testing:
            found |= {Fault("OverCurrentFailure", f"group {group}") for group in (1, 2)} | {Fault("GroundFailure", "group 1")}
        hour = self._clock.now() // HOUR
        if self._faulty and self._dice("fault", hour) < self._faulty:
            found.add((Fault("WeakSignal", "modem"), Fault("HighTemperature", "cabinet"), Fault("GroundFailure", "group 2"))[hour % 3])
        return sorted(found, key=lambda fault: (fault.code, fault.group))

    async def test_indicators(self) -> None:
        """All of them show what they can."""
        self._testing = True
        self._changed()

    async def reset_indicators(self) -> None:
        """What stands, stands again."""
        self._testing = False

    async def vendor_file(self, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
        """The state of the simulated hardware."""
        return "txt", f"rating {self.rating} kVA\ncontactors {self.closed}\n".encode()

    async def install(self, path: Path) -> None:
        """The version is then the last number of the file's name, or one more than before."""
        await self._clock.sleep(INSTALLING)
        boot = self.identity()
        digits = "".join(letter if letter.isdigit() or letter == "." else " " for letter in path.stem).split()
        version = digits[-1].strip(".") if digits else ""
        version = version or boot.firmwareVersion.rpartition(".")[0] + f".{int(boot.firmwareVersion.rpartition('.')[2]) + 1}"
        self._boot = BootNotification(
            **{name: getattr(boot, name) for name in boot.__struct_fields__ if name != "firmwareVersion"}, firmwareVersion=version
        )

    # ------------------------------------------------------------------------------------------------------------ believable values

    def _dice(self, name: str, number: int) -> float:
        return Random(f"{self._seed} {name} {number}").random()  # noqa: S311  # a transformer, not a secret

    def _noise(self, at: int, seconds: float, name: str) -> float:
        """Smooth, from -1 to 1, changing within about so many seconds."""
        place = at / 1_000_000 / seconds
        before = math.floor(place)
        rest = place - before
        ease = rest * rest * (3 - 2 * rest)
        left, right = self._dice(name, before), self._dice(name, before + 1)
        return (left + (right - left) * ease) * 2 - 1

    def _use(self, at: int) -> float:
        """The part of its rating that is drawn."""
        local = to_datetime(at).astimezone(self._zone)
        hour = local.hour + local.minute / 60
        morning, evening = math.exp(-(((hour - 8) / 2.2) ** 2)), math.exp(-(((hour - 19) / 2.8) ** 2))
        return 0.16 + 0.02 * self._dice("base", 0) + 0.14 * morning + (0.3 if local.weekday() < 5 else 0.26) * evening

    def _load(self, at: int, phase: int) -> float:
        """kVA of a phase."""
        share = 0.9 + 0.2 * self._dice("share", phase)
        return self.rating / 3 * self._use(at) * share * (1 + 0.08 * self._noise(at, 240, f"load {phase}"))

    def _energy(self, at: int) -> float:
        """kWh since the start of 2026: never less than before."""
        return (at - EPOCH) / HOUR * self.rating * 0.27 + self.rating * 0.02 * (1 - math.cos((at - EPOCH) / HOUR / 24 * 2 * math.pi))

    def _outside(self, at: int) -> float:
        local = to_datetime(at).astimezone(self._zone)
        season = -8.0 * math.cos(2 * math.pi * (local.timetuple().tm_yday - 20) / 365)
        return 11.0 + season - 4.0 * math.cos(2 * math.pi * (local.hour - 3) / 24) + self._noise(at, 40_000, "weather")


def station(
    url: str,
    identity: str,
    clock: Clock,
    *,
    seed: int = 0,
    secret: Secret | None = None,
    folder: Path | None = None,
    meter_every: int = 60,
    geolocation: str = "[52.09,5.12]",
    timezone: str = "Europe/Amsterdam",
    faulty: float = FAULTY,
    call_timeout: float = 30.0,
    tls: ssl.SSLContext | None = None,
) -> Substation:
    """A simulated Substation that measures every ``meter_every`` seconds."""
    settings = Settings(
        url=url, identity=identity, secret=secret, call_timeout=call_timeout, tls=tls,
        keys={keys.METER: str(meter_every), keys.GEOLOCATION: geolocation, keys.ZONE: timezone},
    )  # fmt: skip
    driver = Simulated(identity, clock, seed=seed, zone=timezone, faulty=faulty)
    return Substation(settings, driver, clock, folder=folder, random=Random(seed), remembered=60)  # noqa: S311  # jitter


class Fleet(OneTask):
    """Many stations, started one after the other over ``boot_over`` seconds. A ``core.hub.Service``.

    ``make`` is called at the start, when it is known where their Central System listens.
    """

    def __init__(self, make: Callable[[], Sequence[Substation]], clock: Clock, boot_over: float = 0.0) -> None:
        self.name = "simulated substations"
        self.stations: Sequence[Substation] = ()
        self._make = make
        self._clock = clock
        self._boot_over = boot_over

    async def start(self) -> dict[str, str]:
        """Begin to start them."""
        self.stations = self.stations or self._make()
        self.begin(self._start_all(), self.name)
        return {}

    async def _start_all(self) -> None:
        for one in self.stations:
            await one.start()
            await self._clock.sleep(self._boot_over / len(self.stations))
        await asyncio.gather(*(one.wait() for one in self.stations))

    async def stop(self) -> None:
        """All of them say goodbye."""
        await self.end()
        await asyncio.gather(*(one.stop() for one in self.stations))

    def health(self) -> Health:
        """How many are registered."""
        from gridloom.core.hub import Health  # as in client

        registered = sum(one.registered for one in self.stations) if self.stations else -1
        return Health(
            registered == len(self.stations), "" if registered == len(self.stations) else f"{registered} of {len(self.stations)} are registered"
        )


def demo(
    endpoint: Callable[[], str],
    clock: Clock,
    *,
    folder: Path | None = None,
    count: int = 3,
    meter_every: int = 60,
    timezone: str = "Europe/Amsterdam",
) -> Fleet:
    """The stations of the demo, ``SUBS 001`` and so on, which connect to ``endpoint()``. With ``folder`` they keep their state there."""

    def make() -> Sequence[Substation]:
        names = [f"SUBS {number:03}" for number in range(1, count + 1)]
        folders = [None if folder is None else folder / name.replace(" ", "-") for name in names]
        return [
            station(endpoint(), name, clock, seed=number, meter_every=meter_every, folder=where, timezone=timezone)
            for number, (name, where) in enumerate(zip(names, folders, strict=True), 1)
        ]

    return Fleet(make, clock)
