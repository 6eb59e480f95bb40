"""The simulator's line, opened and read with nothing but the standard library."""

from __future__ import annotations

import asyncio
import itertools
import os
import termios
import time
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.tic.naive import frames, lines, values

from gridloom.core.clock import Clock
from gridloom.core.model import Phase
from gridloom.core.ports import World
from gridloom.demo.world import World as Neighbourhood
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.meter import Contract, Profile
from gridloom.integrations.tic.simulator import Alone, Captured, Fault, Household, Noise, Simulator, demo, linky, parse_fault

NOON = 1_768_474_800_000_000
"""2026-01-15 12:00 in Paris."""
STANDARD = Profile(contract=Contract.HCHP)
HISTORIC = Profile(mode=Mode.HISTORIC, contract=Contract.TEMPO, phases=3, subscribed=20)


class Reader:
    """Opens a line and sets its speed, as a program does that reads a meter."""

    def __init__(self, path: Path, speed: int) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.descriptor)
        settings = termios.tcgetattr(self.descriptor)
        settings[4] = settings[5] = {9600: termios.B9600, 1200: termios.B1200}[speed]
        termios.tcsetattr(self.descriptor, termios.TCSANOW, settings)
        self.data = b""

    def read(self) -> bytes:
        """All that came."""
        try:
            while piece := os.read(self.descriptor, 65536):
                self.data += piece
        except BlockingIOError:
            pass
        return self.data

    async def until(self, good: Callable[[bytes], Any], seconds: float = 10) -> Any:
        """What ``good`` makes of the data, once that is something."""
        end = time.monotonic() + seconds
        while not (found := good(self.read())):
            assert time.monotonic() < end, self.data[-300:]
            await asyncio.sleep(0.01)
        return found

    async def frames(self, count: int, seconds: float = 10) -> list[bytes]:
        """So many whole frames."""
        await self.until(lambda data: len(frames(data)) >= count, seconds)
        return frames(self.data)

    def close(self) -> None:
        """Hang up."""
        os.close(self.descriptor)


Start = Callable[[Simulator], Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Simulator] = []

    async def begin(simulator: Simulator) -> Simulator:
        await simulator.start()
        running.append(simulator)
        return simulator

    yield begin
    for simulator in running:
        await simulator.stop()
        assert not simulator.path.is_symlink()
        assert not simulator.health().ok


async def test_a_standard_meter_is_heard_at_9600(tmp_path: Path, start: Start) -> None:
    clock = Clock(20, NOON)
    simulator = await start(linky(tmp_path / "tic", clock, STANDARD))
    assert simulator.health().ok
    reader = Reader(tmp_path / "tic", 9600)
    found = await reader.frames(5)
    for frame in found:
        assert len(lines(frame)) == 38
    assert [int(values(frame)["EAST"]) for frame in found] == sorted(int(values(frame)["EAST"]) for frame in found)
    reader.close()


async def test_a_historic_meter_is_heard_at_1200(tmp_path: Path, start: Start) -> None:
    await start(linky(tmp_path / "tic", Clock(20, NOON), HISTORIC))
    reader = Reader(tmp_path / "tic", 1200)
    for frame in await reader.frames(3):
        assert values(frame)["OPTARIF"] == "BBR("
    reader.close()


@pytest.mark.parametrize(("profile", "wrong"), [(STANDARD, 1200), (HISTORIC, 9600)])
async def test_at_the_wrong_speed_there_is_garbage_only(tmp_path: Path, start: Start, profile: Profile, wrong: int) -> None:
    await start(linky(tmp_path / "tic", Clock(20, NOON), profile))
    reader = Reader(tmp_path / "tic", wrong)
    await reader.until(lambda data: len(data) > 300)
    assert frames(reader.data) == [] or not any(b"AD" in frame for frame in frames(reader.data))
    assert not any(label in reader.data for label in (b"ADCO", b"ADSC", b"EAST", b"PTEC", b"IINST", b"PAPP"))
    settings = termios.tcgetattr(reader.descriptor)
    settings[4] = settings[5] = termios.B1200 if wrong == 9600 else termios.B9600
    termios.tcsetattr(reader.descriptor, termios.TCSANOW, settings)
    await reader.frames(2)
    reader.close()


async def test_an_adapter_may_speak_historic_at_9600(tmp_path: Path, start: Start) -> None:
    await start(linky(tmp_path / "tic", Clock(20, NOON), HISTORIC, baud=9600))
    reader = Reader(tmp_path / "tic", 9600)
    assert "ADCO" in values((await reader.frames(1))[0])
    reader.close()


async def test_the_line_has_the_pace_of_its_bits(tmp_path: Path, start: Start) -> None:
    """865 bytes of ten bits at 9600 baud and a gap of 17 to 33 ms: 0.918 to 0.935 s from frame to frame."""
    await start(linky(tmp_path / "tic", Clock(1, NOON), STANDARD))
    reader = Reader(tmp_path / "tic", 9600)
    await reader.frames(1)
    begin, seen = time.monotonic(), len(frames(reader.data))
    await reader.frames(seen + 3)
    # The first frame may be noticed a little late on a busy machine, which shortens what is measured.
    assert 0.88 < (time.monotonic() - begin) / 3 < 1.0
    reader.close()


async def test_bytes_come_in_small_pieces(tmp_path: Path, start: Start) -> None:
    await start(linky(tmp_path / "tic", Clock(1, NOON), STANDARD))
    reader = Reader(tmp_path / "tic", 9600)
    sizes = []
    for _ in range(60):
        before = len(reader.data)
        if (more := len(reader.read()) - before) > 0:
            sizes.append(more)
        await asyncio.sleep(0.005)
    assert len(sizes) > 8
    assert max(sizes) <= 62
    reader.close()


async def test_each_open_after_a_hang_up_gets_a_fresh_terminal(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "tic"
    await start(linky(path, Clock(20, NOON), STANDARD))
    names = []
    for _ in range(4):
        names.append(os.readlink(path))
        reader = Reader(path, 9600)
        await reader.frames(2)
        reader.close()
        end = time.monotonic() + 3
        while os.readlink(path) == names[-1]:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
    assert all(one != other for one, other in itertools.pairwise(names))


async def test_who_comes_falls_into_the_middle_of_a_frame(tmp_path: Path, start: Start) -> None:
    await start(linky(tmp_path / "tic", Clock(20, NOON), STANDARD))
    reader = Reader(tmp_path / "tic", 9600)
    await reader.frames(1)
    assert reader.data[:1] != b"\x02"
    reader.close()


async def test_a_prepared_line_is_there_and_silent_until_the_start(tmp_path: Path, start: Start) -> None:
    simulator = linky(tmp_path / "folder" / "tic", Clock(20, NOON), STANDARD)
    simulator.prepare()
    name = os.readlink(simulator.path)
    reader = Reader(simulator.path, 9600)
    await asyncio.sleep(0.1)
    assert reader.read() == b""
    await start(simulator)
    await reader.frames(1)
    assert os.readlink(simulator.path) == name
    reader.close()


# --------------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05])
def test_noise_damages_the_share_of_bytes_that_was_asked(rate: float) -> None:
    noise = Noise(rate, 7)
    frame = bytes(range(0x20, 0x7F)) * 9
    for _ in range(1000):
        noise.damage(frame)
    assert (noise.flipped + noise.lost) / noise.bytes == pytest.approx(rate, rel=0.1)
    assert noise.lost / (noise.flipped + noise.lost) == pytest.approx(0.1, abs=0.03)
    assert (noise.cut + noise.glued) / noise.frames == pytest.approx(rate, rel=0.5, abs=0.004)


def test_noise_flips_what_it_says_it_flips() -> None:
    noise = Noise(0.02, 3)
    frame = b"x" * 500
    flipped = kept = 0
    for _ in range(200):
        damaged = noise.damage(frame)
        flipped += sum(byte not in b"x\x03" or (byte == 3 and at != len(damaged) - 1) for at, byte in enumerate(damaged))
        kept += len(damaged)
    assert flipped == pytest.approx(noise.flipped, abs=40), "all but those that a cut took away"
    assert Noise(0).damage(frame) == frame
    with pytest.raises(ValueError, match="0 to 1"):
        Noise(2)


def test_a_glued_frame_has_no_end_and_its_follower_no_start() -> None:
    noise = Noise(0.4, 1)
    stream = b"".join(noise.damage(b"\x02\n" + b"A" * 20 + b"\r\x03") for _ in range(300))
    assert noise.glued > 20
    assert noise.cut > 20
    assert stream.count(b"\x02") < 300


async def test_a_noisy_line_still_has_good_groups(tmp_path: Path, start: Start) -> None:
    simulator = await start(linky(tmp_path / "tic", Clock(50, NOON), STANDARD, noise=0.002))
    reader = Reader(tmp_path / "tic", 9600)
    await reader.until(lambda data: len(data) > 20_000)
    assert simulator.noise.flipped > 5
    good = bad = 0
    for text in reader.data.split(b"\n"):
        body, check = text[:-2], text[-2:-1]
        right = text.endswith(b"\r") and check == bytes([(sum(body) & 63) + 32])
        good, bad = good + right, bad + (not right)
    assert bad > 5
    assert good > 10 * bad
    reader.close()


async def test_silence_has_an_end(tmp_path: Path, start: Start) -> None:
    clock = Clock(20, NOON)
    simulator = await start(linky(tmp_path / "tic", clock, STANDARD))
    reader = Reader(tmp_path / "tic", 9600)
    await reader.frames(1)
    simulator.happen(Fault("silence", 0))
    await asyncio.sleep(0.2)
    before = len(reader.read())
    await asyncio.sleep(0.3)
    assert len(reader.read()) == before
    simulator.happen(Fault("silence", 0), begins=False)
    await reader.until(lambda data: len(data) > before + 900)
    reader.close()


async def test_faults_come_when_they_were_ordered(tmp_path: Path, start: Start) -> None:
    faults = [parse_fault("cover@20+30"), parse_fault("clock@20")]
    await start(linky(tmp_path / "tic", Clock(20, NOON), STANDARD, faults=faults))
    reader = Reader(tmp_path / "tic", 9600)
    covers: list[int] = []

    def both(data: bytes) -> bool:
        covers[:] = [int(values(frame)["STGE"], 16) >> 4 & 1 for frame in frames(data)]
        return 1 in covers and covers[-1] == 0

    await reader.until(both)
    assert covers[0] == 0
    degraded = [lines(frame)[2].horodate[0] for frame in frames(reader.data)]
    assert (degraded[0], degraded[-1]) == ("H", "h")
    reader.close()


async def test_the_mode_changes_while_somebody_listens(tmp_path: Path, start: Start) -> None:
    simulator = await start(linky(tmp_path / "tic", Clock(20, NOON), HISTORIC))
    reader = Reader(tmp_path / "tic", 1200)
    before = values((await reader.frames(1))[0])
    simulator.happen(Fault("mode", 0))
    await asyncio.sleep(0.3)
    reader.close()
    await asyncio.sleep(0.2)
    reader = Reader(tmp_path / "tic", 9600)
    after = values((await reader.frames(1))[0])
    assert after["ADSC"] == before["ADCO"]
    assert int(after["EASF01"]) >= int(before["BBRHCJB"])
    reader.close()


async def test_another_meter_hangs_there_with_registers_of_its_own(tmp_path: Path, start: Start) -> None:
    simulator = await start(linky(tmp_path / "tic", Clock(20, NOON), STANDARD))
    reader = Reader(tmp_path / "tic", 9600)
    before = values((await reader.frames(1))[0])
    simulator.happen(Fault("meter", 0))
    await reader.until(lambda data: values(frames(data)[-1])["ADSC"] != before["ADSC"])
    assert int(values(frames(reader.data)[-1])["EAST"]) < 1000
    reader.close()


@pytest.mark.parametrize("text", ["storm@5", "silence", "silence@", "silence@x", "silence@5+", "@5", "meter@5+y"])
def test_a_fault_that_is_none_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="KIND is silence, mode, meter, cover or clock"):
        parse_fault(text)
    assert parse_fault("silence@60+10.5") == Fault("silence", 60.0, 10.5)


# --------------------------------------------------------------------------------------------------------------- houses, bytes


class Fixed:
    """A world in which 12 A flow on every phase; its clock is set by hand."""

    def __init__(self) -> None:
        self.time = NOON

    def now(self) -> int:
        return self.time

    def current(self, place: str, phase: Phase) -> float:
        return {"house:1": 12.0, "house:3": 7.0}[place] if phase in (Phase.L1, Phase.L2, Phase.L3) else 0.0


def test_the_current_is_that_of_the_house_where_it_hangs(tmp_path: Path) -> None:
    world: World = Fixed()
    simulator = linky(tmp_path / "tic", Clock(), HISTORIC, world=world)
    assert [values(simulator.source.frame())[f"IINST{phase}"] for phase in (1, 2, 3)] == ["012", "012", "012"]
    simulator = linky(tmp_path / "tic", Clock(), STANDARD, world=world)
    assert values(simulator.source.frame())["IRMS1"] == "007"


def test_registers_survive_a_restart_of_the_simulator(tmp_path: Path) -> None:
    world = Fixed()
    first = Household(STANDARD, world, "house:1", memory=tmp_path / "memory")
    first.frame()
    world.time += 3600 * 1_000_000
    told = values(first.frame())
    again = Household(STANDARD, world, "house:1", memory=tmp_path / "memory")
    assert values(again.frame())["EAST"] == told["EAST"]
    (tmp_path / "memory").write_text("{")
    assert int(values(Household(STANDARD, world, "house:1", memory=tmp_path / "memory").frame())["EAST"]) > 0


@pytest.mark.parametrize("phases", [1, 3])
def test_a_house_alone_is_quiet_at_night_and_exceeds_its_contract_in_the_evening(phases: int) -> None:
    def currents(hour: int, minutes: int = 60, **more: Any) -> list[float]:
        found = []
        for minute in range(minutes):
            world = Alone(Clock(1e-9, NOON + ((hour - 12) * 60 + minute) * 60_000_000), phases=phases, **more)
            found.append(max(world.current("anywhere", phase) for phase in (Phase.L1, Phase.L2, Phase.L3)[:phases]))
        return found

    assert max(currents(3)) < 20
    assert max(currents(19)) > (30 if phases == 1 else 20)
    assert min(currents(12, solar=24.0)) < -5
    assert min(currents(3, solar=24.0)) > 0
    assert Alone(Clock(), phases=phases).current("anywhere", Phase.N) == 0


def test_the_demo_is_a_historic_tempo_house_and_a_producer(tmp_path: Path) -> None:
    clock = Clock(1, NOON)
    tempo, producer = demo(tmp_path, clock, Neighbourhood(clock))
    said = values(tempo.source.frame())
    assert said["OPTARIF"].startswith("BBR")
    assert "IINST3" in said
    said = values(producer.source.frame())
    assert int(said["EAIT"]) > 0
    assert int(said["STGE"], 16) >> 8 & 1 == 1
    assert tempo.path != producer.path
    assert tempo.name != producer.name


def test_the_houses_of_the_neighbourhood_exceed_nothing_absurd() -> None:
    clock = Clock(1e-9, NOON)
    world = Neighbourhood(clock)
    assert all(-40 < world.current(place, phase) < 60 for place in world.houses for phase in (Phase.L1, Phase.L2, Phase.L3))


async def test_captured_bytes_are_played_again_and_again(tmp_path: Path, start: Start) -> None:
    captured = b"\x02\nADCO 022672001765 =\r\nPAPP 00160 (\r\x03\x02\nADCO 022672001765 =\r\nPAPP 00170 )\r\x03"
    source = Captured(captured)
    assert source.baud == 1200
    assert b"".join(source.frame() for _ in range(4)) == captured * 2
    await start(Simulator(tmp_path / "tic", source, Clock(50)))
    reader = Reader(tmp_path / "tic", 1200)
    found = await reader.frames(6)
    assert set(found) == set(frames(captured))
    reader.close()


def test_captured_bytes_are_played_as_they_are_even_without_an_end() -> None:
    source = Captured(b"\x02\nDATE\tE220901163656\t\tG\r\x03noise without an end")
    assert source.baud == 9600
    assert [source.frame(), source.frame(), source.frame()[:1]] == [b"\x02\nDATE\tE220901163656\t\tG\r\x03", b"noise without an end", b"\x02"]
    with pytest.raises(ValueError, match="nothing"):
        Captured(b"")
