"""The TIC2WebSocket API over a real core, with ports that answer on the bus as the link does, and frames that enter by the intake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from tests.core.world import World
from tests.integrations.tic.hub import hub_of, opened_world
from websockets.asyncio.client import ClientConnection, connect

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.hub import Hub
from gridloom.core.model import Consent, Device, DeviceKind, MeterReading, Reading, ReadingType
from gridloom.core.settings import Address
from gridloom.integrations.tic.api import Tic2WebSocket
from gridloom.integrations.tic.config import Section
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import ErrorKind, LineError, PortState, TicFrame, TicGroup, UsbInfo

METER, OTHER = "021762010203", "041775010507"
PATHS = {"/dev/ttyUSB0": "pci-0000:00:14.0-usb-0:1:1.0", "/dev/ttyUSB2": "pci-0000:00:14.0-usb-0:2:1.0"}
ASKED = {
    "available": {"type": "REQUEST", "name": "GetAvailableTICs"},
    "modems": {"type": "REQUEST", "name": "GetModemsInfo"},
}
POWER = ReadingType("Power.Apparent.Import", "VA")

GROUPS = {
    "example": (TicGroup("ADSC", "010203040506"), TicGroup("URMS1", "230")),
    "horodate": (TicGroup("ADSC", METER), TicGroup("DATE", "", "E170915101601"), TicGroup("SMAXSN", "00000", "E170915100926")),
    "damaged": (TicGroup("ADSC", METER), TicGroup("URMS1", "231", valid=False)),
}


def ports() -> list[PortState]:
    """See tests/data/tic/recorded/SOURCE.md."""
    michaud = UsbInfo(0x0403, 0x6001, None, "FTDI", "DA2VYTKGA", "MICHAUD")
    teleinfo = UsbInfo(0x0403, 0x6015, "FT230X Basic UART", "FTDI", None, "TELEINFO")
    return [
        PortState("/dev/ttyUSB0", "1-1", PATHS["/dev/ttyUSB0"], METER, Mode.STANDARD, "reading", "", 1, michaud),
        PortState("/dev/ttyUSB2", "1-2", PATHS["/dev/ttyUSB2"], OTHER, Mode.STANDARD, "reading", "", 1, teleinfo),
        PortState("/dev/ttyAMA0", None, None, None, None, "searching", "", 1, None),
        PortState("/dev/ttyUSB9", "1-9", None, "099999999999", Mode.STANDARD, "unplugged", "it was unplugged", 1, michaud),
    ]


class ApiWorld:
    """A running API and what feeds it."""

    def __init__(self, world: World, hub: Hub, service: Tic2WebSocket, where: str) -> None:
        self.world = world
        self.hub = hub
        self.service = service
        self.where = where
        self.ports = ports()
        self.asked = 0
        self._leave: Any = None

    def plug_in(self) -> None:
        """Answer ``tic.ports`` from now on."""

        async def answer(_: object) -> list[PortState]:
            self.asked += 1
            return self.ports

        self._leave = self.hub.bus.serve(subjects.of("tic", "ports"), answer)

    def silence(self) -> None:
        """The link is gone."""
        self._leave()

    def tell(self, port: PortState) -> None:
        """A port changed."""
        self.ports = [port if known.name == port.name else known for known in self.ports]
        if port not in self.ports:
            self.ports.append(port)
        self.hub.bus.publish(subjects.of("tic", "port", port.name), port)

    def fail(self, kind: ErrorKind, port: str = "/dev/ttyUSB0", serial: str | None = METER, frame: TicFrame | None = None) -> None:
        """A line error is told."""
        self.hub.bus.publish(subjects.of("tic", "error", port), LineError(port, serial, kind, frame))

    def frame(self, groups: str | tuple[TicGroup, ...] = "example", serial: str = METER, port: str = "/dev/ttyUSB0", **more: Any) -> TicFrame:
        """A native message as the link makes it."""
        if isinstance(groups, str):
            groups = GROUPS[groups]
        known = next((one for one in self.ports if one.name == port), None)
        found: dict[str, Any] = {"port_id": known and known.port_id, "port_path": known and known.port_path, "captured": self.hub.clock.now(), **more}
        return TicFrame(Mode.STANDARD, groups, serial, port, **found)

    async def feed(self, frame: TicFrame | None = None, device: str = METER) -> None:
        """A frame enters by the intake, as the link's do."""
        now = self.hub.clock.now()
        await self.hub.intake.readings([MeterReading(f"tic:{device}", now, now, (Reading(POWER, 230),), native=frame or self.frame())])

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/", **more: Any) -> AsyncIterator[Client]:
        """A client of the ``websockets`` project."""
        async with connect(f"ws://{self.where}{path}", compression=None, **more) as connection:
            yield Client(connection)


class Client:
    """A foreign client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        """Text or bytes as they are, anything else as JSON."""
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def hear(self, timeout: float = 5.0) -> Any:
        """The next message."""
        text = await asyncio.wait_for(self.connection.recv(), timeout)
        assert isinstance(text, str)
        return json.loads(text)

    async def ask(self, message: Any) -> Any:
        """Send, and take the next message as the answer."""
        await self.send(message)
        return await self.hear()

    async def request(self, name: str, *data: Any) -> Any:
        """A request; ``data`` only if given."""
        return await self.ask({"type": "REQUEST", "name": name, **({"data": data[0]} if data else {})})

    async def code(self, name: str, *data: Any) -> int:
        """Its error code."""
        answer = await self.request(name, *data)
        assert answer["name"] == name
        return int(answer["errorCode"])

    async def nothing(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes."""
        try:
            await self.hear(seconds)
        except TimeoutError:
            return True
        return False


@contextlib.asynccontextmanager
async def api_world(
    path: Path, section: Section | None = None, clock: Clock | None = None, *, plugged: bool = True, **more: Any
) -> AsyncIterator[ApiWorld]:
    """Started, with both meters registered and their ports answering; stopped in the end. ``more`` replaces members of the hub."""
    async with opened_world(path, clock) as world:
        hub = msgspec.structs.replace(hub_of(world, path), **more)
        for serial in (METER, OTHER, "010203040506"):
            await hub.registry.register(Device(id=f"tic:{serial}", integration="tic", identity=serial, kind=DeviceKind.METER))
        service = Tic2WebSocket(section or Section(listen=Address("127.0.0.1:0")), hub)
        made = ApiWorld(world, hub, service, (await service.start())["tic"])
        if plugged:
            made.plug_in()
        try:
            yield made
        finally:
            await service.stop()


FORMATS = {
    "document": re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"),
    "v1": re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"),
    "v2": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{3}(\d{3}(\d{3})?)?)?)?"),
}


def normalised(message: Any, dialect: str) -> Any:
    """The message with its times, whose format is checked, as ``<time>``."""
    if isinstance(message, dict):
        found = {}
        for key, value in message.items():
            if key in ("dateTime", "datetime", "captureDateTime") and key != ("dateTime" if dialect == "v2" else "datetime"):
                assert FORMATS[dialect].fullmatch(value), (key, value)
                value = "<time>"
            found[key] = normalised(value, dialect)
        return found
    return [normalised(one, dialect) for one in message] if isinstance(message, list) else message


def refuse(device: Device) -> Device:
    """Its owner does not consent."""
    return msgspec.structs.replace(device, consent=Consent.REFUSED)
