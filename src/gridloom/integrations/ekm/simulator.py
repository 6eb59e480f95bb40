"""The other end of the wire: Omnimeters on an RS-485 line, with state, clock, password, relays, tariffs, and a line that misbehaves on demand.

``Omnimeter`` is one meter: it hears requests and says what a meter says. ``Line`` puts several of them on one line: all of them hear everything,
and a session that nobody ended stays open. ``Simulator`` plays the line on a pseudo-terminal at the pace of its bytes, as a ``core.hub.Service``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from gridloom.core import clock as clocks
from gridloom.core.clock import Clock
from gridloom.core.hub import Health
from gridloom.core.model import Phase
from gridloom.core.ports import World
from gridloom.core.tasks import OneTask
from gridloom.integrations.ekm import codec
from gridloom.integrations.ekm.models import MODELS, Model
from gridloom.integrations.ekm.models.fields import Kind, Layout
from gridloom.integrations.ekm.models.settings import SETTINGS
from gridloom.links.pty import Pty

SECOND = 1_000_000
BITS_PER_BYTE = 10
PIECE = 0.016
"""Seconds of line that arrive at once: as long as a USB adapter waits before it hands on what it has."""
TURNAROUND = 0.002
"""Seconds that a meter thinks before it answers."""
BACKLOG = 4096
_VOLTS = 230.0
_MONTHS = 6
_REQUEST = re.compile(rb"/\?([0-9]{12})([0-9]{2})?!\r\n|\x01B0\x03u|\x01([PRW]1)\x02([0-9A-F]{4})?\(([0-9]*)\)\x03(..)", re.DOTALL)

Load = Callable[[int], Sequence[float]]
"""µs UTC -> watts of the three lines; below 0 gives back."""
FaultKind = Literal["crc", "cut", "echo", "silence", "noise", "refuse", "lost", "glitch"]
FAULTS: tuple[str, ...] = get_args(FaultKind)
"""``crc``: a bit of the reply is flipped. ``cut``: the reply ends early. ``echo``: the line repeats what is sent. ``silence``: no answer, and the
request was not heard. ``lost``: the meter acts, its answer is lost. ``noise``: bytes before and within the reply. ``refuse``: it answers NAK.
``glitch``: a NUL before the reply, as a line gives that changes its direction."""


def steady(*watts: float) -> Load:
    """The same for ever."""
    return lambda _: watts


def breathing(seed: int) -> Load:
    """A small house that is never quite the same."""

    def load(moment: int) -> Sequence[float]:
        hours = moment / SECOND / 3600
        return [250 * (1 + line) + 200 * math.sin(hours * (2 + line) + seed) + 60 * math.sin(hours * 37 + line) for line in range(3)]

    return load


def of_world(world: World, place: str) -> Load:
    """The currents of a place of the small world."""
    return lambda _: [world.current(place, phase) * _VOLTS for phase in (Phase.L1, Phase.L2, Phase.L3)]


class Omnimeter:
    """One meter. Its registers are in Wh, exact to what its load draws; everything that can be set is as a meter keeps it."""

    def __init__(
        self,
        address: str,
        model: Model,
        clock: Clock,
        *,
        password: str = codec.DEFAULT_PASSWORD,
        zone: str = "Europe/Paris",
        load: Load | None = None,
    ) -> None:
        seed = int(address) % 997
        random = Random(f"omnimeter {address}")  # noqa: S311  # registers of a meter, not secrets
        self.address, self.model, self.password = address, model, password
        self.load = breathing(seed) if load is None else load
        self.code = b"\x10\x17" if model.name == "v3" else b"\x10\x24"
        self.firmware = b"\x14" if model.name == "v3" else b"\x1d"
        self.scale = 1 if model.name == "v3" else 2
        self.offset = 0
        """µs by which the meter's clock differs from local time."""
        self.energy = [[random.uniform(100_000, 3_000_000) for _ in range(4)], [random.uniform(0, 50_000) for _ in range(4)]]
        """Wh by way (taken, given) and tariff."""
        self.lines = [[sum(way) / 3] * 3 for way in self.energy]
        self.resettable = [0.0, 0.0]
        self.reactive = random.uniform(0, 100_000)
        self.pulses, self.inputs = [seed, 0, 0], [0, 0, 0]
        self.relays: list[tuple[int, int | None]] = [(0, None)] * model.relays
        """Of each: 1 while closed, and when that ends (µs)."""
        self.pulse_ratios = [1000, 1000, 1000]
        self.ct, self.output_ratio, self.lcd = 200, 800, "01" + "00" * 39
        self.demand_period, self.demand_reset, self.max_demand = "1", "1", 0.0
        self.schedules = ["000001" + "000000" * 3] * 6
        self.seasons, self.holidays, self.weekend = "010101" + "000000" * 3, "0000" * 20, "0101"
        self.months = [[[0.0] * 5 for _ in range(_MONTHS)] for _ in range(2)]
        self.writes: list[tuple[str, str]] = []
        """Every setting that was accepted, in order: register and data."""
        self.session = self.authenticated = False
        self._clock, self._zone = clock, ZoneInfo(zone)
        self._lived = clock.now()
        self._month = self.local().month

    # --------------------------------------------------------------------------------------------------------------- life

    def local(self) -> datetime:
        """What the meter's clock says."""
        return clocks.to_datetime(self._clock.now()).astimezone(self._zone).replace(tzinfo=None) + timedelta(microseconds=self.offset)

    def live(self) -> None:
        """Time has passed: energy is counted in the tariff that runs, relay timers end, the month may be another."""
        now = self._clock.now()
        hours, self._lived = (now - self._lived) / SECOND / 3600, now
        tariff = self.tariff() - 1
        for line, watts in enumerate(self.load(now)):
            way, energy = int(watts < 0), abs(watts) * hours
            self.energy[way][tariff] += energy
            self.lines[way][line] += energy
            self.resettable[way] += energy
            for place in (0, tariff + 1):
                self.months[way][0][place] += energy
        self.reactive += abs(sum(self.load(now))) * hours * 0.1
        self.max_demand = max(self.max_demand, sum(max(0.0, watts) for watts in self.load(now)))
        self.relays = [(0, None) if until is not None and now >= until else (state, until) for state, until in self.relays]
        month = self.local().month
        if month != self._month:
            self._month = month
            self.months = [[[0.0] * 5, *way[:-1]] for way in self.months]

    def tariff(self) -> int:
        """Which of the four tariffs runs now, by season, weekend, holiday and schedule."""
        now = self.local()
        today = f"{now:%m%d}"
        seasons = sorted(self.seasons[at : at + 6] for at in range(0, 24, 6) if self.seasons[at : at + 6] != "000000")
        schedule = int(([one for one in seasons if one[:4] <= today] or seasons[-1:] or ["010101"])[-1][4:])
        if today in [self.holidays[at : at + 4] for at in range(0, 80, 4)]:
            schedule = int(self.weekend[2:])
        elif now.isoweekday() >= 6:
            schedule = int(self.weekend[:2])
        periods = self.schedules[min(max(schedule, 1), 6) - 1]
        running = [periods[at + 4 : at + 6] for at in range(0, 24, 6) if periods[at + 4 : at + 6] != "00" and periods[at : at + 4] <= f"{now:%H%M}"]
        return min(max(int(running[-1]), 1), 4) if running else 1

    # --------------------------------------------------------------------------------------------------------------- wire

    def hear(self, request: re.Match[bytes]) -> bytes:
        """One request; what the meter says to it, nothing for what does not concern it."""
        address, kind, command, register, data, crc = request.groups()
        if address is not None:
            return self._called(address.decode(), kind)
        if command is None:
            self.session = self.authenticated = False
            return b""
        if not self.session or crc != codec.checksum(request[0][1:-2]):
            return b""
        if command == b"P1":
            self.authenticated = data.decode() == self.password
            return bytes((codec.ACK,)) if self.authenticated else b""
        if command == b"R1":
            return self._block(register.decode()) if register else b""
        if not self.authenticated or register is None or not self._write(register.decode(), data.decode()):
            return b""
        return bytes((codec.ACK,))

    def _called(self, address: str, kind: bytes | None) -> bytes:
        if address not in (self.address, codec.WILDCARD):
            return b""  # a session that is open stays open: who does not end it will be sorry
        layout = self.model.layouts[-1 if kind == b"01" else 0]
        self.session = True
        return self.frame(layout)

    def frame(self, layout: Layout) -> bytes:
        """A reply as it is now."""
        self.live()
        values = self._values()
        body = bytearray(b"0" * codec.FRAME)
        for field in layout.fields:
            value = values.get(field.name)
            if value is None:
                continue
            raw = value if isinstance(value, bytes) else (f"{value:0{field.size}d}" if isinstance(value, int) else value).encode("ascii")
            if field.kind is Kind.DIGITS:
                raw = raw[-field.size :]  # a register that is full begins anew
            body[field.offset : field.offset + field.size] = raw
        if layout.request_type:
            body[247:249] = layout.request_type
        body[249:253] = b"!\r\n\x03"
        return _finished(body)

    def _values(self) -> dict[str, int | str | bytes]:
        watts = [round(one) for one in self.load(self._clock.now())]
        found: dict[str, int | str | bytes] = {
            "Model": self.code, "Firmware": self.firmware, "Meter_Address": self.address, "Meter_Time": self._time(),
            "kWh_Scale": self.scale, "Reactive_Energy_Tot": self._kwh(self.reactive), "Line_Freq": 5000, "RMS_Watts_Tot": sum(map(abs, watts)),
            "Reactive_Pwr_Tot": sum(map(abs, watts)) // 10, "RMS_Watts_Max_Demand": round(self.max_demand * 10),
            "Max_Demand_Period": int(self.demand_period), "Max_Demand_Rst": int(self.demand_reset), "CT_Ratio": self.ct,
            "CF_Ratio": self.output_ratio, "State_Watts_Dir": _direction(watts), "Meter_Status_Code": b"\x00",
            "Meter_Status_Code_A": b"\x00", "Meter_Status_Code_B": b"\x00",
            "Meter_Status_Code_C": b"\x00",
        }  # fmt: skip
        found["State_Inputs"] = "".join(map(str, self.inputs)) if self.model.name == "v3" else int("".join(map(str, self.inputs)), 2)
        if self.relays:
            found["State_Out"] = 1 + 2 * self.relays[0][0] + self.relays[1][0]
        for way, prefix in enumerate(("", "Rev_")):
            found[f"{prefix}kWh_Tot"] = self._kwh(sum(self.energy[way]))
            found[f"{prefix}kWh_Rst"] = self._kwh(self.resettable[way])
            found |= {f"{prefix}kWh_Tariff_{number}": self._kwh(energy) for number, energy in enumerate(self.energy[way], 1)}
            found |= {f"{prefix}kWh_Ln_{number}": self._kwh(energy) for number, energy in enumerate(self.lines[way], 1)}
        for line, watt in enumerate(watts, 1):
            found |= {
                f"RMS_Volts_Ln_{line}": round(_VOLTS * 10), f"Amps_Ln_{line}": round(abs(watt) / _VOLTS * 10), f"RMS_Watts_Ln_{line}": abs(watt),
                f"Cos_Theta_Ln_{line}": "L097" if watt else "C000", f"Reactive_Pwr_Ln_{line}": abs(watt) // 10,
                f"Pulse_Cnt_{line}": self.pulses[line - 1], f"Pulse_Ratio_{line}": self.pulse_ratios[line - 1],
            }  # fmt: skip
        return found

    def _kwh(self, watt_hours: float) -> int:
        return int(watt_hours / 1000 * 10**self.scale)

    def _time(self) -> str:
        now = self.local()
        return f"{now:%y%m%d}{now.isoweekday() % 7 + 1:02d}{now:%H%M%S}"

    def _block(self, register: str) -> bytes:
        self.live()
        body = bytearray(b"\x02" + register.encode() + b"(" + b"0" * 249)
        if register in (codec.SCHEDULES_1_4, codec.SCHEDULES_5_6):
            first = 0 if register == codec.SCHEDULES_1_4 else 4
            for place, schedule in enumerate(self.schedules[first : first + 4]):
                body[6 + 48 * place : 6 + 48 * place + 24] = schedule.encode()
            if first == 0:
                body[198:222] = self.seasons.encode()
        elif register in (codec.MONTHS, codec.MONTHS_REVERSE):
            for month, energies in enumerate(self.months[int(register == codec.MONTHS_REVERSE)]):
                body[6 + 40 * month : 46 + 40 * month] = b"".join(b"%08d" % self._kwh(energy) for energy in energies)
        elif register == codec.HOLIDAYS:
            body[6:86], body[86:90] = self.holidays.encode(), self.weekend.encode()
        else:
            return b""
        body[249:253] = b"!\r\n\x03"
        return _finished(body)

    def _write(self, register: str, data: str) -> bool:
        """A setting, if this model has it and the data are such."""
        name = next((row.name for row in SETTINGS.values() if _covers(row.name, row.register, register)), "")
        if not name or not self.model.can(name) or len(data) != SETTINGS[name].size:
            return False
        self.live()
        place = int(register[3], 16)
        match name:
            case "SetMeterPassword":
                self.password = data
            case "SetMaxDemandResetNow":
                self.max_demand = 0.0
            case "SetMaxDemandPeriod":
                self.demand_period = data
            case "SetTime":
                wanted = datetime.strptime(data[:6] + data[8:], "%y%m%d%H%M%S")  # noqa: DTZ007  # a meter knows no zone
                self.offset += round((wanted - self.local()) / timedelta(microseconds=1))
            case "SetSchedule":
                self.schedules[place] = data[:24]
            case "SetSeasonSchedules":
                self.seasons = data[:24]
            case "SetRelay":
                until = None if data[1:] == "0000" else self._clock.now() + int(data[1:]) * SECOND
                self.relays[place - 1] = int(data[0]), until
            case "SetPulseInputRatio":
                self.pulse_ratios[place] = int(data)
            case "SetHolidayDates":
                self.holidays = data
            case "SetWeekendHolidaySchedules":
                self.weekend = data
            case "SetCTRatio":
                self.ct = int(data)
            case "SetLCD":
                self.lcd = data
            case "SetZeroResettableKWH":
                self.resettable = [0.0, 0.0]
            case "SetPulseOutputRatio":
                self.output_ratio = int(data)
            case "SetMaxDemandResetInterval":
                self.demand_reset = data
        self.writes.append((register, data))
        return True


_SPANS = {"SetSchedule": 6, "SetRelay": 2, "SetPulseInputRatio": 3}


def _covers(name: str, register: str, asked: str) -> bool:
    return register[:3] == asked[:3] and 0 <= int(asked[3], 16) - int(register[3], 16) < _SPANS.get(name, 1)


def _direction(watts: Sequence[float]) -> int:
    signs = tuple(-1 if watt < 0 else 1 for watt in watts)
    return next(state for state in range(1, 9) if codec.directions(state) == signs)


def _finished(body: bytearray) -> bytes:
    body[0] = codec.STX
    return bytes(body[:253]) + codec.checksum(bytes(body[1:253]))


# ------------------------------------------------------------------------------------------------------------------ line


class Line:
    """Meters on one line. ``rates``: the share of replies that each kind of fault befalls; ``fault`` asks for some of them next."""

    def __init__(self, meters: Sequence[Omnimeter], *, rates: Mapping[str, float] | None = None, seed: int = 1) -> None:
        self.meters = list(meters)
        self.rates = dict(rates or {})
        self.heard: list[bytes] = []
        """Requests that came whole, in order."""
        self._next: list[FaultKind] = []
        self._held = b""
        self._random = Random(f"faults {seed}")  # noqa: S311  # damage, not secrecy

    def fault(self, *kinds: FaultKind) -> None:
        """The next requests meet these faults, one each."""
        self._next += kinds

    def hear(self, data: bytes) -> bytes:
        """Bytes came from the line; what comes back on it."""
        self._held += data
        said = data if self.rates.get("echo", 0) >= 1 else b""
        while (request := _REQUEST.search(self._held)) is not None:
            self._held = self._held[request.end() :]
            self.heard.append(request[0])
            said += self._answer(request)
        self._held = self._held[-200:]
        return said

    def _answer(self, request: re.Match[bytes]) -> bytes:
        fault = self._fault() if request[0] != codec.END else None
        if fault == "silence":
            return b""
        replies = [reply for meter in self.meters if (reply := meter.hear(request))]
        reply = replies[0] if replies else b""
        for other in replies[1:]:  # they speak at once: what arrives is neither
            reply = bytes(a ^ b for a, b in zip(reply.ljust(len(other), b"\x55"), other.ljust(len(reply), b"\x33"), strict=True))
        match fault:
            case "echo":
                return request[0] + reply
            case "lost":
                return b""
            case "refuse":
                return b"\x15"
            case _ if not reply:
                return b""
            case "crc":
                place = self._random.randrange(1, len(reply)) if len(reply) > 1 else 0
                return reply[:place] + bytes((reply[place] ^ 1 << self._random.randrange(7),)) + reply[place + 1 :]
            case "cut":
                return reply[: self._random.randrange(1, len(reply))] if len(reply) > 1 else b""
            case "noise":
                return self._noise(8) + (reply[: len(reply) // 2] + self._noise(5) + reply[len(reply) // 2 :])
            case "glitch":
                return b"\x00" + reply
        return reply

    def _fault(self) -> str | None:
        if self._next:
            return self._next.pop(0)
        return next((kind for kind, rate in self.rates.items() if kind != "echo" and self._random.random() < rate), None)

    def _noise(self, size: int) -> bytes:
        return bytes(self._random.randrange(256) for _ in range(size))


class Simulator(OneTask):
    """A line on a pseudo-terminal behind ``path``, at the pace of its bytes: ten bits each, in real time. A ``core.hub.Service``."""

    def __init__(self, path: Path, line: Line, *, baud: int = 9600, turnaround: float = TURNAROUND) -> None:
        self.name = f"simulated {path.name}"
        self.path, self.line = path, line
        self.pty = Pty(path)
        self._baud, self._turnaround = baud, turnaround
        self._clock = Clock()
        self._prepared = False
        self._came = asyncio.Event()
        self._reading: int | None = None

    def prepare(self) -> None:
        """Make the line, dead yet, so that it is there for who looks before the simulator starts. Raises OSError when it cannot be made."""
        if not self._prepared:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.pty.open(self._baud)
            self._prepared = True

    async def start(self) -> Mapping[str, str]:
        """Make the line, unless it is made, and listen. Raises OSError when ``path`` cannot be made."""
        self.prepare()
        self.begin(self._run(), self.name)
        return {}

    async def stop(self) -> None:
        """Hang up and remove the link."""
        await self.end()
        self.pty.close()
        self._prepared = False

    def health(self) -> Health:
        """Well while it listens."""
        return Health(self.running, "" if self.running else "does not listen")

    async def _run(self) -> None:
        clock = self._clock
        ready = clock.monotonic()  # until then bytes of earlier requests and replies are on the line
        try:
            while True:
                self._watch(False)  # before the terminal is replaced
                if not self.pty.look(self._baud):
                    for meter in self.line.meters:
                        meter.session = meter.authenticated = False
                    await clock.sleep(0.02)
                    continue
                self._watch(True)
                # Looked at once in a while as well: a hang-up is told by nothing but looking.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await self._came.wait()
                self._came.clear()
                data = self.pty.receive()
                if data:
                    said = self.line.hear(data)
                    ready = max(ready, clock.monotonic()) + self._seconds(len(data))
                    if said:
                        ready = await self._say(said, ready + self._turnaround)
        finally:
            self._watch(False)

    async def _say(self, said: bytes, begin: float) -> float:
        """In pieces as an adapter hands them on, each when its last byte has come; returns when the line is free."""
        size = max(1, int(PIECE / self._seconds(1)))
        for at in range(0, len(said), size):
            piece = said[at : at + size]
            begin += self._seconds(len(piece))
            await self._clock.sleep(max(0.0, begin - self._clock.monotonic()))
            self.pty.write(piece)
        return begin

    def _seconds(self, size: int) -> float:
        return size * BITS_PER_BYTE / self._baud

    def _watch(self, watched: bool) -> None:
        """Be woken by bytes; not while nobody has the line open, for then the terminal says all the time that it hung up."""
        loop = asyncio.get_running_loop()
        wanted = self.pty.fileno() if watched else None
        if wanted != self._reading:
            if self._reading is not None:
                loop.remove_reader(self._reading)
            if wanted is not None:
                loop.add_reader(wanted, self._woken)
            self._reading = wanted

    def _woken(self) -> None:
        """There are bytes, or it hung up. Looked at by the task; until then nothing more is told."""
        self._watch(False)
        self._came.set()


def parse_rates(texts: Sequence[str]) -> dict[str, float]:
    """``crc=0.1`` or ``echo``: kinds of faults and their rates. Raises ValueError that says what is allowed."""
    rates = {}
    for text in texts:
        kind, equals, rate = text.partition("=")
        try:
            value = float(rate) if equals else 1.0
        except ValueError:
            value = -1.0
        if kind not in FAULTS or not 0 <= value <= 1:
            raise ValueError(f"{text!r} is no fault; written as KIND=RATE, RATE is 0 to 1, KIND is one of {', '.join(FAULTS)}")
        rates[kind] = value
    return rates


def meter(text: str, clock: Clock, *, password: str = codec.DEFAULT_PASSWORD, zone: str = "Europe/Paris", load: Load | None = None) -> Omnimeter:
    """``000300000234:v4``. Raises ValueError that says what is allowed."""
    address, _, name = text.partition(":")
    if name not in MODELS:
        raise ValueError(f"{text[:60]!r} is no simulated meter; written as ADDRESS:MODEL, MODEL is one of {', '.join(MODELS)}")
    return Omnimeter(codec.address_of(address), MODELS[name], clock, password=password, zone=zone, load=load)


DEMO_METERS = ("000300000234:v4", "000000010017:v3")


def demo(folder: Path, clock: Clock, world: World | None = None, zone: str = "Europe/Paris") -> Simulator:
    """The bus of the demo: a v4 and a v3, in houses of the world if there is one."""
    loads = [None, None] if world is None else [of_world(world, "house:1"), of_world(world, "house:3")]
    meters = [meter(text, clock, zone=zone, load=load) for text, load in zip(DEMO_METERS, loads, strict=True)]
    return Simulator(folder / "ekm-bus", Line(meters))
