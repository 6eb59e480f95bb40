"""Lines over real ptys and sockets: found, read, switched, unplugged, plugged, taken, denied, silent; nothing ends the reader."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.core.world import World, until
from tests.integrations.tic.hub import Ears, hub_of, opened_world
from tests.integrations.tic.pty import HISTORIC_SERIAL, STANDARD_SERIAL, Meter, frame, group, historic, standard
from tests.links.test_serial import AccessServer, server

from gridloom.core import subjects
from gridloom.core.hub import Hub
from gridloom.core.model import DeviceKind
from gridloom.integrations.tic.config import Section, SerialPort
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.link import Manager
from gridloom.integrations.tic.messages import PortState, TicFrame
from gridloom.links.serial import PortInfo, Ports, Stream

EXTRA = [("HHPHC", "A"), ("HCHC", "012345678"), ("HCHP", "012345678"), ("EJPHN", "012345678"), ("EJPHPM", "012345678")]
"""So that a frame is long enough to be left alone."""
ADPS = group("historic", "ADPS", "035")
STANDARD, HISTORIC = f"tic:{STANDARD_SERIAL}", f"tic:{HISTORIC_SERIAL}"


class Bench:
    """A hub that reads one port, and what it told."""

    def __init__(self, world: World, hub: Hub, folder: Path) -> None:
        self.world, self.hub, self.folder = world, hub, folder
        self.ports = Ports()
        self.ears = Ears(hub)
        self.managers: list[Manager] = []
        self.link = folder / "ttyTIC0"

    async def read(self, *ports: str, look: Any = list, **section: Any) -> Manager:
        """Start reading, without discovery unless asked for."""
        section = {"discover": False, "silent_after": 10.0, **section}
        names = tuple(SerialPort(port) for port in ports or (str(self.link),))
        manager = Manager(Section(ports=names, **section), self.hub, ports=self.ports, look=look)
        self.managers.append(manager)
        await manager.start()
        return manager

    @property
    def frames(self) -> list[TicFrame]:
        return [reading.native for reading in self.ears.frames]

    async def frame(self, count: int = 1, timeout: float = 10) -> TicFrame:
        """The newest frame, once so many more have come."""
        wanted = len(self.frames) + count
        await until(lambda: len(self.frames) >= wanted, timeout)
        return self.frames[-1]

    async def state(self, state: str, timeout: float = 10) -> PortState:
        """Wait until the port is in this state."""
        await until(lambda: bool(self.ears.states) and self.ears.states[-1].state == state, timeout)
        return self.ears.states[-1]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened_world(tmp_path) as world:
        made = Bench(world, hub_of(world, tmp_path), tmp_path)
        yield made
        for manager in made.managers:
            await manager.stop()


# ----------------------------------------------------------------------------------------------------- found and read


async def test_standard_mode_is_found_and_every_word_of_a_frame_arrives(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600) as meter:
        manager = await bench.read()
        native = await bench.frame(3)
        assert meter.speeds == [9600]
        assert native.mode is Mode.STANDARD
        assert native.serial == STANDARD_SERIAL
        assert native.port == str(bench.link)
        assert not native.partial
        assert [one.label for one in native.groups][:3] == ["ADSC", "VTIC", "DATE"]
        assert {one.label: one.horodate for one in native.groups}["DATE"] == "H261120233010"
        assert abs(native.captured - bench.hub.clock.now()) < 2_000_000
        device = bench.hub.registry.get(STANDARD)
        assert device.kind is DeviceKind.METER
        assert bench.hub.registry.online(STANDARD)
        values = {value.type.measurand: value.value for value in await bench.hub.registry.latest_values(STANDARD) if value.type.tariff is None}
        assert values["Energy.Active.Import.Register"] == 1234567
        assert manager.health().ok
    assert bench.ears.course()[:3] == ["starting", "searching", "reading"]
    assert bench.ears.kinds("line.")[0] == "line.found occurred"


async def test_historic_mode_is_found_although_the_other_speed_is_tried_first(bench: Bench) -> None:
    async with Meter(bench.link, historic, 1200) as meter:
        await bench.read()
        native = await bench.frame()
        assert meter.speeds == [9600, 1200]
        assert meter.replaced == 0, "the speed was changed without closing the port"
        assert (native.mode, native.serial) == (Mode.HISTORIC, HISTORIC_SERIAL)
        assert bench.hub.registry.online(HISTORIC)
        state = await bench.state("reading")
        assert (state.mode, state.serial) == (Mode.HISTORIC, HISTORIC_SERIAL)


async def test_the_configured_mode_is_tried_first(bench: Bench) -> None:
    async with Meter(bench.link, historic, 1200) as meter:
        await bench.read(mode="historic")
        await bench.frame()
        assert meter.speeds == [1200]


async def test_an_adapter_that_re_emits_historic_frames_at_9600(bench: Bench) -> None:
    """TIC FACTS 10.6; in bursts, with silence between them."""
    async with Meter(bench.link, historic, 9600, gap=0.4) as meter:
        await bench.read(mode="historic")
        native = await bench.frame(2)
        assert meter.speeds == [1200, 9600]
        assert native.mode is Mode.HISTORIC


async def test_a_meter_that_is_switched_overnight_is_read_again_within_seconds(bench: Bench) -> None:
    async with Meter(bench.link, historic, 1200) as meter:
        await bench.read(mode="historic")
        await bench.frame()
        meter.frames, meter.speed = lambda: standard(serial=HISTORIC_SERIAL), 9600
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (await bench.frame()).mode is not Mode.STANDARD:
            pass
        assert loop.time() - began < 6
        assert meter.replaced == 0
        assert bench.hub.registry.online(HISTORIC), "a search of seconds is no outage"
        assert "device.offline raised" not in bench.ears.kinds()
        assert bench.ears.course()[-2:] == ["searching", "reading"]
        assert [error.code_kind for error in bench.ears.errors] == ["unreadable"]
        assert (await bench.state("reading")).mode is Mode.STANDARD


@pytest.mark.parametrize("piece", [62, 16, 1])
async def test_any_cutting_of_the_bytes_gives_the_same_frames(bench: Bench, piece: int) -> None:
    async with Meter(bench.link, standard, 9600, piece=piece, pause=0.0):
        await bench.read()
        native = await bench.frame(3)
        assert len(native.groups) == 16
        assert all(one.valid for one in native.groups)
        assert not native.partial


# --------------------------------------------------------------------------------------------------- hot plug and unplug


async def test_unplugged_in_the_middle_of_a_frame_and_plugged_again(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600, pause=0.005) as meter:
        manager = await bench.read()
        await bench.frame(2)
        meter.unplug()
        state = await bench.state("unplugged")
        assert state.serial == STANDARD_SERIAL, "clients still know whose port it was"
        assert state.reason == f"{bench.link}: unplugged"
        await until(lambda: not bench.hub.registry.online(STANDARD))
        assert [error.code_kind for error in bench.ears.errors] == ["unplugged"]
        assert bench.ears.errors[0].serial == STANDARD_SERIAL
        await until(lambda: "line.lost raised" in bench.ears.kinds() and "device.offline raised" in bench.ears.kinds())
        assert not manager.health().ok
        assert "unplugged" in manager.health().reason
        assert bench.hub.alarms.raised(subjects.HUB, "line.lost", str(bench.link)) is not None
        await asyncio.sleep(0.6)
        meter.plug()
        native = await bench.frame(2)
        assert not native.partial
        assert native.serial == STANDARD_SERIAL
        await until(lambda: bench.hub.registry.online(STANDARD))
        assert bench.ears.kinds("line.") == ["line.found occurred", "line.lost raised", "line.found occurred"]
        assert bench.hub.alarms.raised(subjects.HUB, "line.lost", str(bench.link)) is None
        assert manager.health().ok


async def test_plugged_again_under_another_name_the_same_adapter_is_found_by_its_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pty has no USB number; what the machine's list says of it is said here, everything else is real."""
    names = {"now": str(bench.link)}
    modem = PortInfo("", (), 0x0403, 0x6015, "TINFO", "FTDI", "DA6T9QZS", "pci-0000:00:14.0-usb-0:1:1.0", "1-1")
    monkeypatch.setattr("gridloom.integrations.tic.link.serial.info_of", lambda port: modem._replace(path=port))
    async with Meter(bench.link, standard, 9600) as meter:
        await bench.read(look=lambda: [modem._replace(path=names["now"])])
        await bench.frame(2)
        meter.unplug()
        await bench.state("unplugged")
        names["now"] = str(bench.folder / "ttyTIC1")
        meter.plug(bench.folder / "ttyTIC1")
        native = await bench.frame(1, 15)
        assert (native.port, native.port_id, native.port_path) == (names["now"], "1-1", "pci-0000:00:14.0-usb-0:1:1.0")
        state = await bench.state("reading")
        assert state.name == names["now"]
        assert state.usb is not None
        assert (state.usb.modem_type, state.usb.serial) == ("TELEINFO", "DA6T9QZS")
        assert bench.hub.alarms.raised(subjects.HUB, "line.lost", str(bench.link)) is None


class Timed(Meter):
    """Speaks at the line's pace in pieces of 16 bytes, and notes when the last byte of ``mark`` went out first."""

    def __init__(self, link: Path, frames: Any, mark: bytes) -> None:
        super().__init__(link, frames, 9600, piece=16, gap=0.02)
        self.mark, self.told = mark, 0.0
        self._out = b""

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            data = self.frames()
            for start in range(0, len(data), self.piece):
                due += len(data[start : start + self.piece]) * 10 / self.speed
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self._send(data[start : start + self.piece])
                self._out = (self._out + data[start : start + self.piece])[-64:]
                if not self.told and self.mark in self._out:
                    self.told = time.monotonic()
            due += self.gap


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long lines were left alone."""
    found: list[float] = []
    real = Stream.rest

    def rest(stream: Stream, seconds: float) -> None:
        found.append(seconds)
        real(stream, seconds)

    monkeypatch.setattr(Stream, "rest", rest)
    return found


@pytest.mark.parametrize(
    ("usual", "overloaded", "mark"),
    [
        (lambda: historic(extra=EXTRA), lambda: historic(extra=EXTRA).replace(b"\nIMAX", ADPS + b"\nIMAX"), ADPS),
        (standard, lambda: standard(stge="003A0081"), group("standard", "STGE", "003A0081")),
    ],
    ids=["ADPS", "STGE"],
)
async def test_an_overload_that_appears_in_a_line_that_is_left_alone_is_told_in_time(
    bench: Bench, rests: list[float], usual: Any, overloaded: Any, mark: bytes
) -> None:
    told: list[float] = []
    bench.hub.bus.listen(subjects.ALL_EVENTS, lambda _, one: told.append(time.monotonic()) if one.event.kind == "overload" else None)
    async with Timed(bench.link, usual, mark) as meter:
        await bench.read()
        await until(lambda: any(rest > 0.08 for rest in rests), 15)
        meter.frames = overloaded
        await until(lambda: bool(told), 5)
        assert told[0] - meter.told < 0.05
        assert "overload raised" in bench.ears.kinds()
        rests.clear()
        await until(lambda: any(rest > 0.08 for rest in rests), 15)


async def test_unplugged_while_it_is_left_alone(bench: Bench, rests: list[float]) -> None:
    async with Timed(bench.link, standard, b"never") as meter:
        await bench.read()
        await until(lambda: any(rest > 0.08 for rest in rests), 15)
        rests.clear()
        await until(lambda: bool(rests) and rests[-1] > 0.08, 5)
        began = time.monotonic()
        meter.unplug()
        await bench.state("unplugged", 2)
        assert time.monotonic() - began < 1.0


async def test_a_port_that_is_not_there_is_waited_for(bench: Bench) -> None:
    manager = await bench.read()
    state = await bench.state("missing")
    assert state.reason == f"{bench.link}: it is not there"
    await until(lambda: "line.lost raised" in bench.ears.kinds())
    assert not manager.health().ok
    assert not manager.health().required
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    await asyncio.sleep(1.0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 0.2, "waiting is no busy loop"
    assert bench.ears.course() == ["starting", "missing"]
    async with Meter(bench.link, standard, 9600):
        await bench.frame()
        assert bench.ears.kinds("line.") == ["line.lost raised", "line.found occurred"]


# --------------------------------------------------------------------------------------------------------- discovery


async def test_a_modem_that_is_plugged_in_is_read_without_being_named_and_nothing_else_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    other, foreign = bench.folder / "ttyOther", bench.folder / "ttyEkm"
    found: list[PortInfo] = []
    by_path = {
        str(bench.link): PortInfo(str(bench.link), (), 0x0403, 0x6001, "TIC", "MICHAUD", "1", None, "1-1"),
        str(other): PortInfo(str(other), (), 0x10C4, 0xEA60, "CP2102", "Silabs", "2", None, "1-2"),
        str(foreign): PortInfo(str(foreign), (), 0x0403, 0x6001, "FT232", "FTDI", "3", None, "1-3"),
    }
    monkeypatch.setattr("gridloom.integrations.tic.link.serial.info_of", by_path.__getitem__)
    bench.ports.reserve(str(foreign), "ekm.bus 1")
    async with Meter(bench.link, standard, 9600), Meter(other, historic, 1200) as untouched, Meter(foreign, historic, 1200) as reserved:
        manager = Manager(Section(discover=True), bench.hub, ports=bench.ports, look=lambda: found)
        bench.managers.append(manager)
        await manager.start()
        assert manager.lines == []
        assert manager.health().ok, "no port is no illness"
        found.extend(by_path.values())
        native = await bench.frame(1, 15)
        assert native.port == str(bench.link)
        assert [line.state.name for line in manager.lines] == [str(bench.link)]
        assert untouched.speeds == reserved.speeds == [0] or (untouched.sent, reserved.sent) == (0, 0)
        ports = await bench.hub.bus.request(subjects.of("tic", "ports"), None, 1)
        assert [(port.name, port.usb.modem_type, port.state) for port in ports] == [(str(bench.link), "MICHAUD", "reading")]


def test_a_port_that_another_section_names_is_refused_at_the_start(tmp_path: Path) -> None:
    from gridloom.core.errors import ConfigurationError

    ports = Ports()
    ports.reserve(str(tmp_path / "tty"), "ekm.bus 1")
    hub: Any = type("Hub", (), {"metrics": __import__("gridloom.core.metrics", fromlist=["Metrics"]).Metrics()})
    with pytest.raises(ConfigurationError, match=r"tic\.ports: .*also named by ekm\.bus 1"):
        Manager(Section(ports=(SerialPort(str(tmp_path / "tty")),)), hub, ports=ports)


# ------------------------------------------------------------------------------------------------------ busy, silent, noisy


async def test_a_busy_port_is_told_with_who_has_it_and_read_when_it_is_free(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600):
        lock = f"fcntl.flock(os.open({str(bench.link)!r}, os.O_RDWR | os.O_NOCTTY), fcntl.LOCK_EX)"
        script = f"import fcntl, os, time; {lock}; print(1, flush=True); time.sleep(60)"
        thief = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        try:
            assert thief.stdout is not None
            thief.stdout.readline()
            await bench.read()
            state = await bench.state("busy")
            assert f"process {thief.pid} (python" in state.reason
            await until(lambda: "line.busy raised" in bench.ears.kinds())
        finally:
            thief.kill()
            thief.communicate()
        await bench.frame(1, 15)
        assert bench.ears.kinds("line.") == ["line.busy raised", "line.found occurred"]


async def test_a_silent_line_is_told_and_read_when_it_speaks(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600) as meter:
        meter.silent = True
        manager = await bench.read(silent_after=0.6)
        state = await bench.state("silent")
        assert state.reason == f"{bench.link}: nothing came for 0.6 s"
        await until(lambda: "line.silent raised" in bench.ears.kinds() and len(bench.ears.errors) >= 2)
        assert {error.code_kind for error in bench.ears.errors} == {"timeout"}
        assert bench.ears.course() == ["starting", "searching", "silent"], "opening anew is no change"
        assert meter.replaced >= 1, "the watchdog opened the port anew"
        assert not manager.health().ok
        meter.silent = False
        await bench.frame(1, 15)
        await until(lambda: bench.ears.kinds("line.") == ["line.found occurred", "line.silent raised", "line.silent cleared"])
        assert manager.health().ok


async def test_a_meter_that_falls_silent_is_offline_after_the_time_that_is_configured(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600) as meter:
        await bench.read(silent_after=0.8)
        await bench.frame()
        meter.silent = True
        await until(lambda: not bench.hub.registry.online(STANDARD))
        assert "nothing came for 0.8 s" in bench.hub.registry.state(STANDARD).reason
        assert [error.code_kind for error in bench.ears.errors] == ["timeout"]
        meter.silent = False
        await until(lambda: bench.hub.registry.online(STANDARD))


async def test_megabytes_of_noise_do_not_end_the_reader_and_memory_stays_flat(bench: Bench) -> None:
    noise = Random(3)
    chunks = [noise.randbytes(65_536) for _ in range(8)]
    good = standard()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for turn in range(160):  # 10 MB
                writer.write(chunks[turn % 8])
                await writer.drain()
            while True:
                writer.write(good)
                await asyncio.sleep(0.01)

    async with server(handle) as number:
        manager = await bench.read(f"socket://127.0.0.1:{number}")
        gc.collect()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        read = bench.hub.metrics.counter("gridloom_tic_read_bytes_total", "", ("port",))
        await until(lambda: read.value(port=f"socket://127.0.0.1:{number}") > 1.5e6, 30)  # the rest was overrun, as in any receiver
        quality = manager.lines[0].delivery.quality
        assert quality < 0.2
        native = await bench.frame(3, 30)
        assert native.serial == STANDARD_SERIAL
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 30_000, "kB"
        await until(lambda: manager.lines[0].delivery.quality > 0.95, 30)
        assert "line.noise raised" in bench.ears.kinds()
        await until(lambda: "line.noise cleared" in bench.ears.kinds(), 30)


async def test_one_damaged_group_costs_one_group(bench: Bench) -> None:
    good = standard()
    damaged = good.replace(b"\nURMS1\t230", b"\nURMS1\t231")
    assert damaged != good
    async with Meter(bench.link, lambda: damaged, 9600):
        await bench.read()
        native = await bench.frame(2)
        assert [one.label for one in native.groups if not one.valid] == ["URMS1"]
        assert "Voltage" not in {value.type.measurand for value in await bench.hub.registry.latest_values(STANDARD)}
        counter = bench.hub.metrics.counter("gridloom_tic_groups_total", "", ("port", "label", "result"))
    await bench.managers[0].stop()
    assert counter.value(port=str(bench.link), label="ADSC", result="good") >= 2
    assert counter.value(port=str(bench.link), label="other", result="bad_checksum") >= 2, "a label that was never right is none"


async def test_a_damaged_frame_with_another_number_is_no_other_meter(bench: Bench) -> None:
    """Six bits of checksum let a damaged number pass now and then (TIC FACTS 5: a phantom meter appeared)."""
    phantom = standard(serial="021762010209").replace(b"\nURMS1\t230", b"\nURMS1\t231")
    frames = [standard()] * 4 + [phantom] + [standard()] * 100_000
    async with Meter(bench.link, iter(frames).__next__, 9600):
        await bench.read()
        await bench.frame(6)
        assert [device.id for device in bench.hub.registry.devices()] == [STANDARD]
        refused = bench.hub.metrics.counter("gridloom_tic_frames_refused_total", "", ("port", "reason"))
        assert refused.value(port=str(bench.link), reason="no-serial") >= 1


async def test_another_meter_on_the_line_is_another_device(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600) as meter:
        await bench.read()
        await bench.frame(2)
        meter.frames = lambda: standard(serial="041876097767")
        await until(lambda: bench.hub.registry.online("tic:041876097767"))
        await until(lambda: not bench.hub.registry.online(STANDARD))
        await until(lambda: bench.ears.states[-1].serial == "041876097767")
        await until(lambda: "meter.changed" in [event.kind for event in bench.ears.events])


# ------------------------------------------------------------------------------------------------------- pace and overload


def adps() -> bytes:
    """The group of a single-phase meter that exceeds its current, without what comes behind it."""
    return group("historic", "ADPS", "045")


async def test_an_overload_is_told_before_its_frame_has_ended(bench: Bench) -> None:
    """The meter stops in the middle of the frame until the overload was heard: it cannot have waited for the frame."""
    heard = asyncio.Event()
    bench.hub.bus.listen(subjects.event(HISTORIC), lambda _, told: heard.set() if told.event.kind == "overload" else None)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(historic())
            await asyncio.sleep(0.02)
        await until(lambda: bench.hub.registry.online(HISTORIC))
        head, tail = historic(extra=[("ADPS", "045")]).split(adps())
        writer.write(head + adps())
        await heard.wait()
        writer.write(tail)
        while True:
            await asyncio.sleep(0.05)
            writer.write(historic())

    async with server(handle) as number:
        await bench.read(f"socket://127.0.0.1:{number}")
        await asyncio.wait_for(heard.wait(), 10)
        events = [event for event in bench.ears.events if event.kind == "overload"]
        assert events[0].device == HISTORIC
        assert bench.hub.alarms.raised(HISTORIC, "overload", events[0].subject) is not None


async def test_when_storing_lags_the_newest_frame_is_kept_and_the_others_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    gate.set()
    store = bench.world.intake.readings

    async def slowly(batch: Any) -> Any:
        await gate.wait()
        return await store(batch)

    monkeypatch.setattr(bench.world.intake, "readings", slowly)
    power = iter(range(100, 100_000))
    async with Meter(bench.link, lambda: standard(next(power)), 9600, pause=0.0, gap=0.005) as meter:
        await bench.read()
        await bench.frame(2)
        gate.clear()
        await asyncio.sleep(0.02)
        sent = meter.sent
        stored = len(bench.frames)
        await until(lambda: meter.sent > sent + 20)
        assert len(bench.frames) == stored
        gate.set()
        await until(lambda: len(bench.frames) >= stored + 2)
        values = [next(one.value for one in native.groups if one.label == "SINSTS") for native in bench.frames[stored : stored + 2]]
        assert int(values[1]) - int(values[0]) > 10, "behind the one that was under way comes the newest"
        dropped = bench.hub.metrics.counter("gridloom_tic_frames_dropped_total", "", ("port",)).value(port=str(bench.link))
        assert dropped >= 10


async def test_a_full_disk_loses_frames_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from gridloom.core.errors import StorageFull

    store = bench.world.intake.readings
    full = True

    async def refuse(batch: Any) -> Any:
        if full:
            raise StorageFull("the disk is full")
        return await store(batch)

    monkeypatch.setattr(bench.world.intake, "readings", refuse)
    async with Meter(bench.link, standard, 9600):
        await bench.read()
        refused = bench.hub.metrics.counter("gridloom_tic_frames_refused_total", "", ("port", "reason"))
        await until(lambda: refused.value(port=str(bench.link), reason="storage-full") > 3)
        full = False
        await bench.frame()


async def test_what_the_mapping_remembers_outlives_the_hub(bench: Bench) -> None:
    async with Meter(bench.link, standard, 9600):
        manager = await bench.read()
        await bench.frame(2)
        await manager.stop()
        document = await bench.hub.documents.get("meter", STANDARD_SERIAL)
        assert document is not None
        assert b"BASE" in document.body
        told = len(bench.ears.events)
        manager = await bench.read()
        await bench.frame(3)
        await manager.stop()
    await bench.hub.registry.settle()
    again = {event.kind for event in bench.ears.events[told:]}
    assert again <= {"device.online", "device.offline", "line.found", "device.registered"}, "the same contract, the same meter: nothing to tell"


# ------------------------------------------------------------------------------------------------------------- the network


async def test_a_socket_that_closes_is_opened_again(bench: Bench) -> None:
    calls = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        for _ in range(3):
            writer.write(standard())
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()

    async with server(handle) as number:
        await bench.read(f"socket://owner:pass@127.0.0.1:{number}")
        await until(lambda: calls >= 3, 15)
        assert (await bench.frame()).port == f"socket://127.0.0.1:{number}"
    told = repr((bench.ears.states, bench.ears.errors, bench.ears.events))
    assert "pass" not in told


async def test_rfc2217_is_searched_like_a_port_of_this_machine(bench: Bench) -> None:
    access = AccessServer()

    async def speak() -> None:
        while True:
            await asyncio.sleep(0.01)
            if access.writer is not None and access.set.get(1):
                right = access.set[1][-1] == (1200).to_bytes(4, "big")
                access.send(historic() if right else os.urandom(150))

    async with server(access.handle) as number:
        speaker = asyncio.create_task(speak())
        await bench.read(f"rfc2217://127.0.0.1:{number}")
        native = await bench.frame(1, 15)
        assert native.serial == HISTORIC_SERIAL
        assert [int.from_bytes(value, "big") for value in access.set[1]] == [9600, 1200]
        speaker.cancel()


async def test_a_short_frame_of_a_three_phase_overload_is_read(bench: Bench) -> None:
    """TIC FACTS 5: the peer loses these. They carry no address when they begin with ADIR1; the line knows whose they are."""
    short = frame("historic", [("ADIR1", "045"), ("ADCO", HISTORIC_SERIAL), ("IINST1", "045"), ("IINST2", "001"), ("IINST3", "001")])
    turn = iter(range(1_000_000))
    async with Meter(bench.link, lambda: short if next(turn) % 3 == 2 else historic(), 1200):
        await bench.read(mode="historic")
        await until(lambda: any(native.groups[0].label == "ADIR1" for native in bench.frames))
        await until(lambda: any(event.kind == "overload" and event.device == HISTORIC for event in bench.ears.events))
