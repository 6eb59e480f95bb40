"""The other end of the wire: a Linky in front of a believable house, its tariffs, its faults, its line.

``Simulator`` is a service that speaks on a pseudo-terminal at the pace of the line. What it says comes from a ``Household`` (``meter.Meter`` in
a house of a ``core.ports.World``; one that is given no world lives in ``Alone``) or from ``Captured`` bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

import msgspec

from gridloom.core.clock import Clock
from gridloom.core.hub import Health
from gridloom.core.model import Phase
from gridloom.core.ports import World
from gridloom.core.tasks import OneTask
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.meter import SECOND, Contract, Memory, Meter, Profile, serial_of
from gridloom.integrations.tic.recording import bytes_of
from gridloom.links.pty import Pty

BAUD = {Mode.HISTORIC: 1200, Mode.STANDARD: 9600}
BITS_PER_BYTE = 10
"""7E1 on the wire: start, seven data, parity, stop."""
GAP = (0.0167, 0.0334)
"""Seconds of silence between two frames (Enedis-NOI-CPT_54E)."""
PIECE = 0.016
"""Seconds of line that arrive at once: as long as a USB adapter waits before it hands on what it has."""
PHASES = (Phase.L1, Phase.L2, Phase.L3)
ETX = 3


# ------------------------------------------------------------------------------------------------------------- a house alone


class Alone:
    """The world of a simulator that is given none: one small house that never changes its habits, the same at every place.

    Fridge, a heater with its thermostat, light, water heated at night, and at seven in the evening a kitchen that draws more than 30 A.
    ``solar``: amperes of a roof at noon.
    """

    def __init__(self, clock: Clock, *, phases: int = 1, solar: float = 0.0, zone: str = "Europe/Paris") -> None:
        self._clock, self._phases, self._solar, self._zone = clock, phases, solar, ZoneInfo(zone)

    def now(self) -> int:
        """µs UTC."""
        return self._clock.now()

    def current(self, place: str, phase: Phase) -> float:
        """Amperes drawn on a phase now; negative when the roof gives more."""
        second = self._clock.now() // SECOND
        local = datetime.fromtimestamp(second, self._zone)
        hour = local.hour + local.minute / 60
        roof = self._solar * max(0.0, math.sin((hour - 6.5) * math.pi / 14)) if 6.5 < hour < 20.5 else 0.0
        each = (
            (0.5 if second % 2700 < 900 else 0.1) + (1.2 if 6.5 < hour < 8 or 18 < hour < 23 else 0.2) + (8.0 if 18.9 < hour < 19.4 else 0.0),
            (10.0 if second % 110 < 65 else 0.2) if 18.75 < hour < 19.75 else 0.3,
            (9.0 if second % 1800 < 700 else 0.0) + (9.0 if hour >= 23 or hour < 1 else 0.0) + (6.0 if 19 < hour < 19.25 else 0.0),
        )
        if self._phases == 1:
            return sum(each) - roof if phase is Phase.L1 else 0.0
        # A three-phase house is bigger: each phase has what a small house has twice.
        return 2 * each[PHASES.index(phase)] - roof / 3 if phase in PHASES else 0.0


# ----------------------------------------------------------------------------------------------------------------- the line


class Noise:
    """Damages what is sent: ``rate`` of the bytes (nine of ten by a flipped bit, one is lost), ``rate`` of the frames (cut, or glued to the next).

    What was done is counted. The bits are those that a pseudo-terminal can carry; parity is not among them.
    """

    def __init__(self, rate: float, seed: int = 1) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a rate is 0 to 1, not {rate}")
        self.rate = rate
        self.bytes = self.frames = self.flipped = self.lost = self.cut = self.glued = 0
        self._random = Random(f"noise {seed}")  # noqa: S311  # damage, not secrecy
        self._glue = False

    def damage(self, frame: bytes) -> bytes:
        """The frame as it arrives."""
        self.bytes += len(frame)
        self.frames += 1
        if self.rate == 0:
            return frame
        random = self._random
        damaged = bytearray()
        for byte in frame:
            if random.random() >= self.rate:
                damaged.append(byte)
            elif random.random() < 0.9:
                damaged.append(byte ^ 1 << random.randrange(7))
                self.flipped += 1
            else:
                self.lost += 1
        if self._glue:
            del damaged[:1]
            self._glue = False
        if random.random() < self.rate:
            if random.random() < 0.5:
                del damaged[random.randrange(len(damaged) + 1) :]
                damaged.append(ETX)
                self.cut += 1
            else:
                del damaged[-1:]
                self._glue = True
                self.glued += 1
        return bytes(damaged)


class Fault(msgspec.Struct, frozen=True):
    """Something goes wrong ``after`` seconds of the clock since the start, for ``lasting`` seconds where it has an end.

    ``silence``: the line is dead. ``mode``: the other mode from then on. ``meter``: another meter hangs there. ``cover``: the cover is opened.
    ``clock``: the meter's clock is degraded.
    """

    kind: Literal["silence", "mode", "meter", "cover", "clock"]
    after: float
    lasting: float | None = None


def parse_fault(text: str) -> Fault:
    """``silence@60+10``: the kind, after how many seconds, for how many. Raises ValueError that says what is allowed."""
    kind, _, when = text.partition("@")
    after, plus, lasting = when.partition("+")
    try:
        return msgspec.convert({"kind": kind, "after": float(after), "lasting": float(lasting) if plus else None}, Fault)
    except (ValueError, msgspec.ValidationError):
        raise ValueError(f"{text!r} is no fault; written as KIND@SECONDS or KIND@SECONDS+FOR, KIND is silence, mode, meter, cover or clock") from None


def parse_ranges(text: str) -> tuple[tuple[int, int], ...]:
    """``22:30-6:30,12:00-14:00`` as minutes of the day. Raises ValueError that says what is allowed."""
    found = []
    for one in text.split(","):
        parts = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)-([01]?\d|2[0-3]):([0-5]\d)", one.strip())
        if parts is None:
            raise ValueError(f"{one.strip()!r} is no range of hours; written as 22:30-6:30, several with a comma between them")
        first, second, third, fourth = (int(part) for part in parts.groups())
        found.append((first * 60 + second, third * 60 + fourth))
    return tuple(found)


class Source(Protocol):
    """What a simulator plays."""

    @property
    def baud(self) -> int:
        """The line's own speed now."""
        ...

    def live(self) -> None:
        """Time has passed."""
        ...

    def frame(self) -> bytes:
        """The next frame."""
        ...

    def happen(self, fault: Fault, begins: bool) -> None:
        """A fault begins or ends."""
        ...


class Household:
    """A meter in a house of the world. ``memory``: the file that keeps its registers, so that they go on growing when the simulator starts again.

    ``baud``: of an adapter that speaks at another speed than the meter.
    """

    def __init__(self, profile: Profile, world: World, place: str, *, memory: Path | None = None, baud: int | None = None) -> None:
        self._world, self._place, self._memory, self._baud = world, place, memory, baud
        self.meter = Meter(profile, world.now(), _remembered(memory))
        self._kept = b""
        self.live()

    @property
    def baud(self) -> int:
        """1200 in historic mode, 9600 in standard mode, unless the adapter has its own."""
        return self._baud or BAUD[self.meter.profile.mode]

    def live(self) -> None:
        """The meter counts what the house drew."""
        self.meter.advance(self._world.now(), [self._world.current(self._place, phase) for phase in PHASES[: self.meter.profile.phases]])

    def frame(self) -> bytes:
        """What the meter says now. What it says it will still know after a crash: registers are kept before they are told."""
        self.live()
        if self._memory is not None:
            memory = msgspec.json.encode(self.meter.memory)
            if memory != self._kept:
                temporary = self._memory.with_name(self._memory.name + ".new")
                temporary.write_bytes(memory)
                temporary.replace(self._memory)
                self._kept = memory
        return self.meter.frame()

    def happen(self, fault: Fault, begins: bool) -> None:
        """Mode, meter, cover or clock."""
        meter = self.meter
        if fault.kind == "cover":
            meter.cover = begins
        elif fault.kind == "clock":
            meter.clock_degraded = begins
        elif fault.kind == "mode":
            other = Mode.STANDARD if meter.profile.mode is Mode.HISTORIC else Mode.HISTORIC
            self._change(msgspec.structs.replace(meter.profile, mode=other), meter.memory)
        elif fault.kind == "meter" and begins:
            seed = meter.profile.seed + 1000
            fresh = Memory(serial_of(seed, meter.profile.phases), [0] * len(meter.memory.supplier), [0] * 4, 0, [0] * 4, [0] * meter.profile.phases)
            self._change(msgspec.structs.replace(meter.profile, seed=seed, serial=fresh.serial), fresh)

    def _change(self, profile: Profile, memory: Memory) -> None:
        self.meter = Meter(profile, self._world.now(), memory)
        self.live()


def _remembered(memory: Path | None) -> Memory | None:
    try:
        return None if memory is None else msgspec.json.decode(memory.read_bytes(), type=Memory)
    except (OSError, msgspec.DecodeError):
        return None  # the first start, or a file that is none of ours: the meter begins with registers of its own


class Captured:
    """Captured frames, again and again. Takes frames as they are, and recordings of ``gridloom tic record``."""

    def __init__(self, data: bytes, *, baud: int | None = None) -> None:
        data = bytes_of(data)
        if not data:
            raise ValueError("there is nothing in it")
        self._frames = [piece + bytes([ETX]) for piece in data.split(bytes([ETX])) if piece]
        if not data.endswith(bytes([ETX])):
            self._frames[-1] = self._frames[-1][:-1]
        self._baud = baud or BAUD[Mode.STANDARD if b"\t" in data else Mode.HISTORIC]
        self._next = 0

    @property
    def baud(self) -> int:
        """9600 where there are tabs, else 1200, unless it is given."""
        return self._baud

    def live(self) -> None:
        """Nothing lives here."""

    def frame(self) -> bytes:
        """The next, after the last the first."""
        frame = self._frames[self._next]
        self._next = (self._next + 1) % len(self._frames)
        return frame

    def happen(self, fault: Fault, begins: bool) -> None:
        """What is captured does not change; silence is the simulator's own."""


class Simulator(OneTask):
    """Speaks on a pseudo-terminal behind ``path`` what its source says, at the pace of the line and by the clock. A ``core.hub.Service``.

    Like a meter it speaks whether somebody listens or not: whoever opens the line falls into the middle of a frame.
    """

    def __init__(self, path: Path, source: Source, clock: Clock, *, noise: Noise | None = None, faults: Sequence[Fault] = (), seed: int = 1) -> None:
        self.name = f"simulated {path.name}"
        self.path = path
        self.source = source
        self.noise = noise if noise is not None else Noise(0)
        self.pty = Pty(path)
        self.frames = 0
        """Frames that were sent to somebody, whole or the rest of one."""
        self._clock = clock
        self._faults = sorted([(fault.after, fault, True) for fault in faults] + _ends(faults), key=lambda one: one[0])
        self._silent = 0
        self._prepared = False
        self._random = Random(f"line {seed}")  # noqa: S311  # gaps of a line, not secrets

    def prepare(self) -> None:
        """Make the line, silent yet, so that it is there for who looks before the simulator starts. Raises OSError when ``path`` cannot be made."""
        if not self._prepared:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.pty.open(self.source.baud)
            self._prepared = True

    async def start(self) -> Mapping[str, str]:
        """Make the line, unless it is made, and begin to speak. Raises OSError when ``path`` cannot be made."""
        self.prepare()
        self.begin(self._run(), self.name)
        return {}

    async def stop(self) -> None:
        """Hang up and remove the link."""
        await self.end()
        self.pty.close()
        self._prepared = False

    def health(self) -> Health:
        """Well while it speaks."""
        return Health(self.running, "" if self.running else "does not speak")

    def happen(self, fault: Fault, begins: bool = True) -> None:
        """Let a fault begin or end now."""
        if fault.kind == "silence":
            self._silent += 1 if begins else -1
        else:
            self.source.happen(fault, begins)

    async def _run(self) -> None:
        clock, pty = self._clock, self.pty
        zero = due = clock.monotonic()
        heard = False
        while True:
            while self._faults and clock.monotonic() - zero >= self._faults[0][0]:
                _, fault, begins = self._faults.pop(0)
                self.happen(fault, begins)
            baud = self.source.baud
            open_now = pty.look(baud)
            if self._silent or not open_now:
                # Nobody hears it: the house lives on, but no frame is made. Looked at often, in real time, so that who comes is heard soon.
                heard = False
                self.source.live()
                await clock.sleep(0.05 * clock.speed)
                due = clock.monotonic()
                continue
            frame = self.noise.damage(self.source.frame())
            if not heard:
                frame, heard = frame[self._random.randrange(len(frame) or 1) :], True
            self.frames += 1
            # Pieces of what a USB adapter hands on; coarser when the clock runs faster, as no machine wakes up 10,000 times a second.
            size = max(1, int(baud / BITS_PER_BYTE * max(PIECE, 0.005 * clock.speed)))
            for begin in range(0, len(frame), size):
                piece = frame[begin : begin + size]
                due += len(piece) * BITS_PER_BYTE / baud
                await clock.sleep(max(0.0, due - clock.monotonic()))
                pty.send(piece, baud)
            due = max(due + self._random.uniform(*GAP), clock.monotonic() - 1.0)
            await clock.sleep(max(0.0, due - clock.monotonic()))


def _ends(faults: Sequence[Fault]) -> list[tuple[float, Fault, bool]]:
    return [(fault.after + fault.lasting, fault, False) for fault in faults if fault.lasting is not None]


def linky(
    path: Path,
    clock: Clock,
    profile: Profile,
    *,
    world: World | None = None,
    place: str = "",
    noise: float = 0.0,
    faults: Sequence[Fault] = (),
    memory: Path | None = None,
    baud: int | None = None,
) -> Simulator:
    """A simulated Linky on a line at ``path``. Without a world it has one of its own; ``place``: else the world's house that suits the meter."""
    if world is None:
        world = Alone(clock, phases=profile.phases, solar=24.0 if profile.producer else 0.0, zone=profile.zone)
    place = place or ("house:2" if profile.producer else "house:1" if profile.phases == 3 else "house:3")
    source = Household(profile, world, place, memory=memory, baud=baud)
    return Simulator(path, source, clock, noise=Noise(noise, profile.seed), faults=faults, seed=profile.seed)


def demo(folder: Path, clock: Clock, world: World | None = None, zone: str = "Europe/Paris") -> tuple[Simulator, Simulator]:
    """The two meters of the demo: a historic three-phase one with Tempo, and a standard one of a producer. Their lines are in ``folder``."""
    # With 20 A the house's mornings are an overload, in which such a meter tells nothing but currents: a demo should not begin so.
    tempo = Profile(mode=Mode.HISTORIC, contract=Contract.TEMPO, phases=3, subscribed=40, seed=1, zone=zone)
    producer = Profile(mode=Mode.STANDARD, contract=Contract.BASE, producer=True, seed=2, zone=zone)
    return (
        linky(folder / "tic-historic", clock, tempo, world=world, memory=folder / "tic-historic.memory"),
        linky(folder / "tic-producer", clock, producer, world=world, memory=folder / "tic-producer.memory"),
    )
