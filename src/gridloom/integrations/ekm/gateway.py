"""What a gateway does, wherever it runs: its buses, its ioStacks, and every order as a conversation on the right one. Knows no hub.

``Gateway`` is used by the hub's own process (``service``) and by the agent on another machine; both hear of readings by a ``Listener``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from gridloom.core import clock as clocks
from gridloom.core.clock import Clock
from gridloom.core.errors import DeviceError, InvalidInput, NotFound, Refused, Unsupported
from gridloom.integrations.ekm import codec, iostack, mapping
from gridloom.integrations.ekm.codec import Read
from gridloom.integrations.ekm.config import IOSTACK, SIMULATED_IOSTACK, Section
from gridloom.integrations.ekm.config import Bus as BusSettings
from gridloom.integrations.ekm.discovery import Found, Progress, Search
from gridloom.integrations.ekm.errors import LineLost
from gridloom.integrations.ekm.link import Bus, Figures, Listener, Polled
from gridloom.integrations.ekm.models import MODELS
from gridloom.links.serial import PORTS, Ports


class Gateway:
    """``section``: its buses; ``zone``: in which meters' clocks are set where a bus names none. ``run`` until cancelled."""

    def __init__(self, section: Section, clock: Clock, listener: Listener, figures: Figures, *, zone: str, ports: Ports = PORTS) -> None:
        self.mac = str(section.gateway_mac or "")
        self.buses: list[Bus] = []
        self.iostacks: dict[str, iostack.Driver] = {}
        self.searches: list[Search] = []
        self._clock, self._zone = clock, zone
        for settings in section.bus:
            self._add(settings, listener, figures, ports)

    @property
    def meters(self) -> list[tuple[Bus, Polled]]:
        """All of them, with the bus that each is on."""
        return [(bus, meter) for bus in self.buses for meter in bus.meters]

    def zone_of(self, bus: Bus) -> ZoneInfo:
        """In which its meters' clocks are set."""
        return ZoneInfo(str(bus.settings.timezone or self._zone))

    def meter(self, address: str) -> tuple[Bus, Polled]:
        """Raises NotFound; of a bus with only one meter (wildcard) as long as that has not answered, too."""
        for bus, meter in self.meters:
            if meter.identity == address:
                return bus, meter
        raise NotFound(f"there is no meter {address} on any bus of this gateway")

    async def run(self) -> None:
        """Read meters until cancelled; raises what is an error of ours."""
        tasks = [asyncio.create_task(bus.run(), name=f"ekm {bus.name}") for bus in self.buses if bus.meters or not self.iostacks]
        try:
            if tasks:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
            else:
                await asyncio.Event().wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def set_interval(self, seconds: float) -> None:
        """How often meters are read that have no interval of their own."""
        for bus in self.buses:
            bus.set_interval(seconds)

    # ------------------------------------------------------------------------------------------------------------- orders

    async def execute(self, target: str, verb: str, arguments: Any) -> Any:
        """Carry out an order. ``target``: the identity of a device (twelve digits, or the gateway's); ``arguments``: the Struct of the verb.

        Returns JSON values or a Struct; None where there is nothing to tell. Raises Refused and InvalidInput (nothing was written), DeviceError,
        DeviceTimeout, as the errors of this integration say.
        """
        if target == mapping.gateway_identity(self.mac):
            return await self._of_gateway(verb, arguments)
        if target in self.iostacks:
            return await self._of_iostack(self.iostacks[target], verb, arguments)
        bus, meter = self.meter(target)
        return await of_meter(bus, meter, verb, arguments, now=self._clock.now, zone=self.zone_of(bus))

    async def _of_iostack(self, driver: iostack.Driver, verb: str, arguments: Any) -> Any:
        match verb:
            case "device.status.get":
                return await driver.get_status()
            case "ekm.one_wire.scan":
                return {"devices": await driver.scan_one_wire()}
            case "ekm.iostack.password.set":
                await driver.set_password(arguments.new_password, arguments.password)
            case "device.clock.set":
                moment = self._clock.now() if arguments.time is None else clocks.from_datetime(arguments.time)
                await driver.set_date_time(clocks.to_datetime(moment).astimezone(ZoneInfo(self._zone)).replace(tzinfo=None))
            case "ekm.digital_input.reset":
                await driver.reset_count(arguments.pin, arguments.password)
            case "ekm.digital_output.set":
                status = await driver.set_output(arguments.pin, arguments.level, arguments.clear_watch, arguments.password)
                return {"status": status}
            case _:
                raise Unsupported(f"{verb} is not for ioStacks")
        return None

    async def _of_gateway(self, verb: str, arguments: Any) -> Any:
        match verb:
            case "device.status.get":
                return self.status()
            case "ekm.poll_interval.set":
                self.set_interval(arguments.interval_s)
                return None
            case "ekm.meters.scan":
                return await self.search(arguments.first, arguments.last)
            case "ekm.meters.scan.stop":
                return {"stopped": self.stop_search()}
        raise Unsupported(f"{verb} is not for gateways")

    def status(self) -> dict[str, Any]:
        """``device.status.get`` of the gateway: its buses, and how its meters are."""
        return {
            "mac": self.mac,
            "buses": [
                {
                    "port": bus.name,
                    "state": bus.state,
                    "reason": bus.reason,
                    "poll_seconds": bus.every,
                    "meters": [
                        {"address": meter.identity or "*", "model": meter.model.name, "silent": meter.silent, "reliability": meter.reliability}
                        for meter in bus.meters
                    ],
                }
                for bus in self.buses
            ],
            "iostacks": [{"address": address, "driver": driver.words} for address, driver in self.iostacks.items()],
        }

    # ------------------------------------------------------------------------------------------------------------- search

    def can_search(self) -> None:
        """Raises Refused while a search goes on, and when no bus can be used."""
        if self.searches:
            raise Refused("a search goes on already; stop it first")
        if not any(bus.state == "open" for bus in self.buses):
            raise Refused("no bus of this gateway can be used now")

    async def search(self, first: str, last: str, told: Callable[[Progress], None] = lambda _: None) -> dict[str, Any]:
        """Ask every address on every bus whose port is open: the ``meters`` that answered, and how far it came on each of the ``buses``.

        Raises Refused while another goes on, DeviceError when every port went away before the end.
        """
        if int(last) < int(first):
            raise InvalidInput("last is below first")
        self.can_search()
        searches = self.searches = [Search(bus, first, last, told=told) for bus in self.buses if bus.state == "open"]
        try:
            lost = await asyncio.gather(*[_until_lost(search) for search in searches])
        finally:
            self.searches = []
        if all(lost):
            ways = "; ".join(
                f"{reason} ({search.progress.asked} of {search.progress.total} asked)" for search, reason in zip(searches, lost, strict=True)
            )
            raise DeviceError(f"the search was not finished: {ways}")
        return {
            "meters": [_told(search.progress.bus, found) for search in searches for found in search.progress.found],
            "buses": [_outcome(search.progress, reason) for search, reason in zip(searches, lost, strict=True)],
        }

    def stop_search(self) -> bool:
        """End the search that goes on; what it has found is its result. Returns whether there was one."""
        for search in self.searches:
            search.stop()
        return bool(self.searches)

    def _add(self, settings: BusSettings, listener: Listener, figures: Figures, ports: Ports) -> None:
        bus = Bus(settings, self._clock, listener, figures, ports=ports)
        for unit in settings.meters:
            if unit.kind == SIMULATED_IOSTACK:
                self.iostacks[unit.address] = iostack.Simulated(self._clock)
            elif unit.kind == IOSTACK:
                self.iostacks[unit.address] = iostack.driver(unit.address, str(settings.port))
            else:
                bus.meters.append(Polled(unit.address, MODELS[unit.kind], unit.poll_seconds, 0.0))
        self.buses.append(bus)


async def of_meter(bus: Bus, meter: Polled, verb: str, arguments: Any, *, now: Callable[[], int], zone: ZoneInfo) -> Any:
    """An order for a meter. ``now`` (µs UTC) and ``zone`` are for its clock. Raises as ``Gateway.execute``."""
    address, model = meter.identity, meter.model
    match verb:
        case "device.poll":
            await _read(bus, meter)
            return None
        case "device.status.get":
            return mapping.status(model, await _read(bus, meter))
        case "ekm.schedules.get":
            registers = (codec.SCHEDULES_1_4, codec.SCHEDULES_5_6, codec.HOLIDAYS)
            _, first, second, holidays = await bus.converse(codec.blocks(address, model, registers), address)
            return codec.schedules(first, second, holidays)
        case "ekm.tariff_data.get":
            frame, forward, reverse = await bus.converse(codec.blocks(address, model, (codec.MONTHS, codec.MONTHS_REVERSE)), address)
            decimals = codec.months_decimals(model, frame)
            return {"forward": codec.months(forward, decimals), "reverse": codec.months(reverse, decimals)}
    if verb not in mapping.WRITES:
        raise Unsupported(f"meter {address}: {verb} is not for meters")
    sent: list[int] = []

    def moment() -> int:
        sent.append(now())
        return sent[-1]

    order = mapping.write(verb, arguments, model, now=moment, zone=zone)
    after = await bus.converse(codec.write(address, model, order, mapping.password_of(arguments)), address)
    bus.poll_soon(address)  # so that what it changed is seen at once
    if after is None:
        return None
    wanted = sent[-1] if sent else clocks.from_datetime(arguments.time)
    return mapping.clock_after(address, model, after, mapping.time_digits(wanted, zone))


async def _read(bus: Bus, meter: Polled) -> Read:
    return bus.heard(meter, await bus.converse(codec.read(meter.identity, meter.model), meter.identity))


async def _until_lost(search: Search) -> str:
    """A port that goes away ends the search there; what was found is kept. Returns why it went away, or nothing."""
    try:
        await search.run()
    except LineLost as error:
        return error.message
    return ""


def _outcome(progress: Progress, lost: str) -> dict[str, Any]:
    complete = progress.asked == progress.total
    reason = lost or ("" if complete else "stopped")
    return {"bus": progress.bus, "asked": progress.asked, "total": progress.total, "complete": complete, "reason": reason}


def _told(bus: str, found: Found) -> dict[str, Any]:
    return {"address": found.address, "model": found.model, "model_code": found.code, "firmware": found.firmware, "bus": bus}
