"""A Substation of ours against a raw Central System: short waits, and hardware that a test can move."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

from tests.integrations.os3p.central_raw import Central, Line, central

from gridloom.core.clock import Clock
from gridloom.integrations.os3p import simulator
from gridloom.integrations.os3p.client import Settings, Substation
from gridloom.integrations.os3p.simulator import Simulated

IDENTITY = "SUBS 123"
QUIET = {"MeterValuesInterval": "0", "websocketPingInterval": "0"}
"""Keys of a station that says nothing by itself."""


simulator.INSTALLING = 0.1


def made(
    url: str, *, clock: Clock | None = None, folder: Path | None = None, driver: Any = None, keys: dict[str, str] | None = None, **more: Any
) -> Substation:
    """Not started yet."""
    clock = clock or Clock()
    settings = Settings(url=url, identity=more.pop("identity", IDENTITY), keys={**QUIET, **(keys or {})}, **more)
    return Substation(settings, driver or Simulated(settings.identity, clock, seed=1, faulty=0), clock, folder=folder, random=Random(1))


@contextlib.asynccontextmanager
async def running(url: str, **more: Any) -> AsyncIterator[Substation]:
    """Started, and stopped in the end."""
    station = made(url, **more)
    await station.start()
    try:
        yield station
    finally:
        await station.stop()


@contextlib.asynccontextmanager
async def registered(**more: Any) -> AsyncIterator[tuple[Central, Substation, Line]]:
    """A Central System, a station that it has accepted, and their line."""
    async with central() as office, running(office.url, **more) as station:
        line = await office.line()
        await line.asked("BootNotification")
        await office.until(lambda: station.registered)
        yield office, station, line


def profile(id: int = 1, level: int = 1, *periods: tuple[str, str], **more: Any) -> dict[str, Any]:
    """A Daily profile of absolute times."""
    chosen = periods or (("12:00:00", "11:59:59"),)
    days = [{"start": {"kind": "Absolute", "time": start}, "end": {"kind": "Absolute", "time": end}} for start, end in chosen]
    return {"profileId": id, "stackLevel": level, "recurrencyKind": "Daily", "daySchedule": days, **more}


def profiles(contactor: int = 1, *set: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A SetStreetlightProfile."""
    return {"contactorId": contactor, "streetlightProfiles": list(set or (profile(),)), **more}
