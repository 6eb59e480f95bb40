"""The process of ``gridloom ekm gateway``: the buses of this machine with an ``Agent`` in the place of their hub, until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.core.settings import Zone, is_secret_name, masked
from gridloom.integrations.ekm.agent import Agent
from gridloom.integrations.ekm.config import Bus, MacAddress, Section, SerialPort, Unit
from gridloom.integrations.ekm.journal import Memory
from gridloom.integrations.ekm.service import Buses

_PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime"}
"""What every log record has; all else belongs to this message."""


class _Lines(logging.Formatter):
    """The message, and what belongs to it (``extra``), without secrets."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        told = {name: "***" if is_secret_name(name) else masked(str(value)) for name, value in vars(record).items() if name not in _PLAIN}
        return " ".join([masked(super().formatMessage(record)), *(f"{name}={value}" for name, value in told.items())])


def log_to_stderr() -> None:
    """Once, for this process."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def section_of(mac: str, buses: Sequence[str], poll: float, baud: int, zone: str) -> Section:
    """``[ekm]`` as the command line says it. Raises ConfigurationError."""
    try:
        made = tuple(
            Bus(port=SerialPort(port), meters=tuple(Unit(meter) for meter in meters), poll_seconds=poll, baud=baud, timezone=Zone(zone))
            for port, *meters in (line.split() for line in buses)
        )
        return Section(bus=made, gateway_mac=MacAddress(mac))
    except ValueError as error:
        raise ConfigurationError(f"--bus, --mac, --timezone: {error}") from None


def run(url: str, key: str, section: Section, data: Path, ca: Path | None) -> None:
    """Until SIGTERM or SIGINT. Raises ConfigurationError."""
    try:
        tls = ssl.create_default_context(cafile=str(ca)) if ca is not None else None
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"--ca {ca}: expected a certificate in PEM: {error}") from None
    asyncio.run(_run(url, key, section, data, tls))


async def _run(url: str, key: str, section: Section, data: Path, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = Agent(url, key, data, clock=Clock(), timezone=str(section.bus[0].timezone), tls=tls)
    buses = Buses(section, agent.hub, memory=Memory(data))
    await buses.start()
    await agent.start()
    waiting = [asyncio.create_task(one) for one in (stop.wait(), agent.wait(), buses.wait())]
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await buses.stop()
        await agent.stop()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
