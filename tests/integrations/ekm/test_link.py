"""The bus over a real pty: read, ordered in between, damaged in every way, unplugged, plugged, taken; nothing ends the reader."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import until
from tests.integrations.ekm.bus import BAUD, V3, V4, Raw, Street, street
from tests.links.test_serial import server

from gridloom.core.errors import DeviceError, DeviceTimeout, Refused
from gridloom.integrations.ekm import codec, simulator
from gridloom.integrations.ekm.codec import Write
from gridloom.integrations.ekm.discovery import Progress, Search, only
from gridloom.integrations.ekm.errors import LineLost, NoAnswer, PasswordRefused, Unsure, WrongMeter
from gridloom.integrations.ekm.link import Bus
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.simulator import Line, Omnimeter
from gridloom.links.serial import Ports

RELAY = Write("0081", "10001", "SetRelay", once=True)
CT = Write("00D0", "0400", "SetCTRatio")
MODEL = MODELS["v4"]


async def opened(bus: Bus) -> Bus:
    await until(lambda: bus.state == "open", 5)
    return bus


async def order(bus: Bus, write: Write = RELAY, address: str = V4, password: str = "00000000") -> Any:
    return await bus.converse(codec.write(address, MODEL, write, password), address)


# ------------------------------------------------------------------------------------------------------------------- polls


async def test_meters_are_read_again_and_again_each_with_its_own_replies(tmp_path: Path) -> None:
    async with street(tmp_path, f"{V4}:v4", f"{V3}:v3") as road:
        await road.bus(f"{V4}:v4", f"{V3}:v3", every=0.1)
        await until(lambda: len(road.ears.reads) >= 6, 5)
        assert {(read.address, read.model, len(read.frames)) for read in road.ears.reads} == {(V4, "v4", 2), (V3, "v3", 1)}
        found = codec.values(road.ears.reads[0], MODELS[road.ears.reads[0].model].layouts)
        assert found["RMS_Watts_Ln_1"] == 1500
        assert all(read.received > 0 and read.reliability == 100 for read in road.ears.reads)
        assert road.count("gridloom_ekm_exchanges_total", meter=V4, result="good") >= 4


async def test_the_session_is_ended_before_another_meter_is_spoken_to(tmp_path: Path) -> None:
    """A password and a setting name no address: of a session that is left open another meter would take them."""
    async with street(tmp_path, f"{V4}:v4", "17:v4") as road:
        bus = await opened(await road.bus(f"{V4}:v4", "000000000017:v4", every=0.1))
        for _ in range(5):
            await order(bus, CT, "000000000017")
        assert road.line.meters[1].ct == 400
        assert road.line.meters[0].ct == 200
        assert road.line.meters[0].writes == []


async def test_a_poll_interval_of_its_own_and_a_new_one_for_the_others(tmp_path: Path) -> None:
    async with street(tmp_path, f"{V4}:v4", f"{V3}:v3") as road:
        bus = await road.bus(f"{V4}:v4", f"{V3}:v3", every=60)
        bus.meters[1].every = 0.1
        await until(lambda: len([read for read in road.ears.reads if read.address == V3]) >= 4, 5)
        assert len([read for read in road.ears.reads if read.address == V4]) == 1
        bus.set_interval(0.1)
        await until(lambda: len([read for read in road.ears.reads if read.address == V4]) >= 3, 5)


async def test_the_wildcard_reads_the_only_meter_under_its_own_address(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        bus = await road.bus(f"{codec.WILDCARD}:v4", every=0.1)
        await until(lambda: len(road.ears.reads) >= 2, 5)
        assert {read.address for read in road.ears.reads} == {V4}
        assert bus.meters[0].identity == V4
        found = await only(bus)
        assert found is not None
        assert (found.address, found.model) == (V4, "v4")


async def test_a_meter_that_is_silent_is_told_as_such_and_comes_back(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        bus = await road.bus(f"{V4}:v4", every=0.05)
        await until(lambda: len(road.ears.reads) >= 1, 5)
        road.line.rates["silence"] = 1.0
        await until(lambda: bus.meters[0].silent, 5)
        assert isinstance(road.ears.failures[-1], NoAnswer)
        before = len(road.line.heard)
        road.ears.failures.clear()
        await until(lambda: len(road.ears.failures) >= 2, 5)
        asked = [one for one in road.line.heard[before:] if one.startswith(b"/?")]
        assert len(asked) <= len(road.ears.failures) + 2, "one that is away is asked once each time"
        road.line.rates.clear()
        count = len(road.ears.reads)
        await until(lambda: len(road.ears.reads) > count, 5)
        assert not bus.meters[0].silent


# ------------------------------------------------------------------------------------------------------------------ orders


async def test_an_order_waits_for_one_exchange_at_most(tmp_path: Path) -> None:
    """Between the A and the B reply of a poll; the poll goes on behind it, and one exchange of it has its turn between two orders."""
    async with street(tmp_path) as road:
        bus = await opened(await road.bus(f"{V4}:v4", every=0.1))
        await until(lambda: len(road.ears.reads) >= 1, 5)
        for place in range(8):
            bus.poll_soon(V4)
            await until(lambda: bus._poll is not None, 2)
            road.line.heard.clear()
            await asyncio.gather(order(bus), order(bus, CT))
            said = [one for one in road.line.heard if one != codec.END]
            first = next(place for place, one in enumerate(said) if one.startswith(b"\x01P1"))
            assert first <= 2, f"round {place}: a poll's exchange, then the order's own read, then its password: {said}"
            between = said[said.index(codec.write_request("0081", "10001")) : said.index(codec.write_request("00D0", "0400"))]
            assert len([one for one in between if one.startswith(b"/?")]) <= 2
        await until(lambda: len(road.ears.reads) >= 3, 5)


async def test_orders_are_carried_out_and_refusals_told(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        bus = await opened(await road.bus())
        await order(bus)
        assert road.meter.relays[0][0] == 1
        with pytest.raises(PasswordRefused, match="nothing was written"):
            await order(bus, CT, password="12345678")
        assert road.meter.writes == [("0081", "10001")]
        with pytest.raises(NoAnswer):
            await order(bus, address="000000000001")
        await asyncio.sleep(1.05)
        road.meter.live()
        assert road.meter.relays[0][0] == 0, "it was a pulse of one second"


async def test_an_order_whose_caller_has_gone_is_never_sent(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        bus = await opened(await road.bus())
        road.line.rates["silence"] = 1.0
        first = asyncio.create_task(order(bus, CT))
        second = asyncio.create_task(order(bus))
        await asyncio.sleep(0.02)
        second.cancel()
        road.line.rates.clear()
        await first
        await asyncio.sleep(0.2)
        assert road.meter.writes == [("00D0", "0400")]


# ------------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("kind", ["crc", "cut", "silence", "noise", "echo", "glitch"])
async def test_every_fault_of_a_reply_is_survived(tmp_path: Path, kind: Any) -> None:
    async with street(tmp_path) as road:
        bus = await road.bus(f"{V4}:v4", every=0.1)
        road.line.fault(kind, kind, kind, kind)
        await until(lambda: len(road.ears.reads) >= 3, 10)
        if kind in ("crc", "cut", "silence", "noise"):
            assert road.count("gridloom_ekm_retries_total", meter=V4) > 0
            results = {"crc": "bad crc", "cut": "cut", "silence": "silence", "noise": "bad crc"}
            assert road.count("gridloom_ekm_exchanges_total", meter=V4, result=results[kind]) + road.count("gridloom_ekm_noise_bytes_total") > 0
            assert bus.meters[0].reliability < 100
        for read in road.ears.reads:
            assert all(codec.is_valid(frame) for frame in read.frames)


async def test_a_line_with_an_echo_reads_and_orders(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        road.line.rates["echo"] = 1.0
        bus = await opened(await road.bus(f"{V4}:v4", every=0.1))
        await order(bus, CT)
        assert road.meter.ct == 400
        await until(lambda: len(road.ears.reads) >= 3, 5)
        assert road.ears.failures == []


@pytest.mark.parametrize("kind", ["lost", "cut", "crc", "noise"])
async def test_a_pulse_whose_acknowledgement_is_lost_happens_once(tmp_path: Path, kind: Any) -> None:
    async with street(tmp_path) as road:
        bus = await opened(await road.bus())
        road.line.rates.clear()
        answers = 0
        original = road.line._answer

        def answer(request: Any) -> bytes:
            nonlocal answers
            if request[0].startswith(b"\x01W1"):
                answers += 1
                road.line.fault(kind)
            return original(request)

        road.line._answer = answer  # type: ignore[method-assign]
        with pytest.raises(DeviceError if kind == "crc" else Unsure):
            await order(bus)
        assert answers == 1
        assert road.meter.writes == [("0081", "10001")]
        with contextlib.suppress(DeviceTimeout, DeviceError):
            await order(bus, CT)
        assert ("00D0", "0400") in road.meter.writes


async def test_a_bad_line_is_read_for_long_and_nothing_wrong_is_taken(tmp_path: Path) -> None:
    async with street(tmp_path, f"{V4}:v4", f"{V3}:v3") as road:
        road.line.rates |= {"crc": 0.15, "cut": 0.05, "noise": 0.1, "silence": 0.05, "glitch": 0.1}
        await road.bus(f"{V4}:v4", f"{V3}:v3", every=0.1)
        await until(lambda: len(road.ears.reads) >= 25, 20)
        for read in road.ears.reads:
            found = codec.values(read, MODELS[read.model].layouts)
            assert (found["Meter_Address"], found["RMS_Watts_Ln_1"], found["RMS_Watts_Tot"]) == (read.address, 1500, 2500)


async def test_two_meters_with_one_address_are_never_believed(tmp_path: Path) -> None:
    async with street(tmp_path, f"{V4}:v4", f"{V4}:v4") as road:
        road.line.meters[1].load = simulator.steady(9, 9, 9)
        await road.bus(f"{V4}:v4", every=0.1)
        await until(lambda: len(road.ears.failures) >= 2, 10)
        assert road.ears.reads == []


async def test_a_meter_that_answers_to_anothers_address_is_told(tmp_path: Path) -> None:
    stranger = Omnimeter("000000000099", MODEL, Street(tmp_path / "x").clock)
    async with Raw(tmp_path / "bus", lambda data: stranger.frame(MODEL.layouts[0]) if data.startswith(b"/?") else b""):
        road = Street(tmp_path / "bus")
        bus = await road.bus(f"{V4}:v4", every=60)
        await until(lambda: bool(road.ears.failures), 5)
        assert isinstance(road.ears.failures[0], WrongMeter)
        assert "000000000099" in road.ears.failures[0].message
        road.buses[0].cancel()
        await asyncio.gather(*road.buses, return_exceptions=True)
        assert bus.state == "starting"


async def test_noise_all_the_time_does_not_end_the_reader(tmp_path: Path) -> None:
    async with Raw(tmp_path / "bus", lambda data: b"") as raw:
        road = Street(tmp_path / "bus")
        bus = await opened(await road.bus(f"{V4}:v4", every=0.1))
        noise = bytes(range(256)) * 2
        for _ in range(40):
            assert raw.pty is not None
            raw.pty.write(noise)
            await asyncio.sleep(0.02)
        assert road.count("gridloom_ekm_noise_bytes_total") > 1000
        assert bus.state == "open"
        line = Line([Omnimeter(V4, MODEL, road.clock)])
        raw.answer = line.hear
        await until(lambda: len(road.ears.reads) >= 1, 5)
        road.buses[0].cancel()
        await asyncio.gather(*road.buses, return_exceptions=True)


# --------------------------------------------------------------------------------------------------------------- the port


async def test_unplugged_and_plugged_again(tmp_path: Path) -> None:
    line = Line([Omnimeter(V4, MODEL, Street(tmp_path / "x").clock)])
    async with Raw(tmp_path / "bus", line.hear) as raw:
        road = Street(tmp_path / "bus")
        bus = await road.bus(f"{V4}:v4", every=0.1)
        await until(lambda: len(road.ears.reads) >= 2, 5)
        raw.unplug()
        await until(lambda: bus.state == "unplugged", 5)
        with pytest.raises(LineLost) as refused:
            await order(bus)
        assert isinstance(refused.value, Refused)
        raw.plug()
        count = len(road.ears.reads)
        await until(lambda: len(road.ears.reads) >= count + 2, 5)
        await order(bus)
        assert line.meters[0].writes == [("0081", "10001")]
        assert [state for state, _ in road.ears.ports] == ["open", "unplugged", "open"]
        road.buses[0].cancel()
        await asyncio.gather(*road.buses, return_exceptions=True)


async def test_a_port_that_goes_away_while_the_meter_thinks_about_a_write_leaves_it_unknown(tmp_path: Path) -> None:
    line = Line([Omnimeter(V4, MODEL, Street(tmp_path / "x").clock)])

    def answer(data: bytes) -> bytes:
        said = line.hear(data)
        if b"W1" in data:
            asyncio.get_running_loop().call_soon(raw.unplug)
            return b""
        return said

    async with Raw(tmp_path / "bus", answer) as raw:
        road = Street(tmp_path / "bus")
        bus = await opened(await road.bus())
        with pytest.raises(Unsure):
            await order(bus)
        road.buses[0].cancel()
        await asyncio.gather(*road.buses, return_exceptions=True)


async def test_a_port_has_one_owner_and_the_other_is_told_who(tmp_path: Path) -> None:
    async with street(tmp_path) as road:
        ports = Ports()
        lease = ports.lease(str(road.path), "tic")
        bus = await road.bus(f"{V4}:v4", ports=ports)
        await until(lambda: bus.state == "busy", 5)
        assert "tic" in bus.reason
        with pytest.raises(LineLost):
            await order(bus)
        lease.release()
        await until(lambda: len(road.ears.reads) >= 1, 10)


async def test_a_port_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    road = Street(tmp_path / "bus")
    bus = await road.bus(f"{V4}:v4")
    await until(lambda: bus.state == "missing", 5)
    await road.simulator.start()
    await until(lambda: len(road.ears.reads) >= 1, 5)
    road.buses[0].cancel()
    await asyncio.gather(*road.buses, return_exceptions=True)
    await road.simulator.stop()


async def test_a_converter_on_the_network(tmp_path: Path) -> None:
    """``socket://``: bytes in any pieces, with the parity in bit 7, and a connection that is closed and comes back."""
    line = Line([Omnimeter(V4, MODEL, Street(tmp_path / "x").clock)])
    connections: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while data := await reader.read(100):
            said = bytes(byte | (byte.bit_count() & 1) << 7 for byte in line.hear(data))
            for at in range(0, len(said), 60):
                writer.write(said[at : at + 60])
                await asyncio.sleep(0.002)

    async with server(handle) as number:
        road = Street(tmp_path / "bus")
        bus = await road.bus(f"{V4}:v4", every=0.1, port=f"socket://127.0.0.1:{number}")
        await until(lambda: len(road.ears.reads) >= 2, 5)
        await order(bus)
        connections[0].close()
        count = len(road.ears.reads)
        await until(lambda: len(road.ears.reads) >= count + 2, 10)
        assert "unplugged" in [state for state, _ in road.ears.ports]
        road.buses[0].cancel()
        await asyncio.gather(*road.buses, return_exceptions=True)


# ---------------------------------------------------------------------------------------------------------------- search


async def test_a_search_finds_every_meter_of_the_range_while_polls_go_on(tmp_path: Path) -> None:
    async with street(tmp_path, "3:v4", "9:v3", "500:v4") as road:
        bus = await opened(await road.bus("000000000003:v4", every=0.1))
        told: list[Progress] = []
        before = len(road.ears.reads)
        found = await Search(bus, "1", "12", told=told.append, within=0.03).run()
        assert [(one.address, one.model, one.code, one.firmware) for one in found] == [
            ("000000000003", "v4", "1024", "1d"), ("000000000009", "v3", "1017", "14"),
        ]  # fmt: skip
        assert [one.asked for one in told] == list(range(1, 13))
        assert (told[-1].total, told[-1].at) == (12, "000000000012")
        assert len(road.ears.reads) > before
        await order(bus, CT, "000000000500")
        assert [meter.ct for meter in road.line.meters] == [200, 200, 400], "the search left no session open"


@pytest.mark.parametrize("noise", ["the line repeats what is sent", "nobody speaks, and the line crackles"])
async def test_a_search_on_a_bad_line_invents_no_meter(tmp_path: Path, noise: str) -> None:
    def answer(data: bytes) -> bytes:
        return codec.END + data if noise.startswith("the line") else b"\x7f\x15u"

    async with Raw(tmp_path / "raw", answer), street(tmp_path) as road:
        bus = await opened(await road.bus(port=str(tmp_path / "raw"), quiet=0.002))
        assert await Search(bus, "1", "3", within=0.03).run() == ()


async def test_a_search_is_stopped_and_lets_orders_through(tmp_path: Path) -> None:
    async with street(tmp_path, "3:v4") as road:
        bus = await opened(await road.bus())
        search = Search(bus, "1", "999999999999", within=0.03)
        running = asyncio.create_task(search.run())
        await until(lambda: search.progress.asked >= 5, 5)
        await asyncio.wait_for(order(bus, RELAY, "000000000003"), 1)
        search.stop()
        found = await asyncio.wait_for(running, 1)
        assert [one.address for one in found] == ["000000000003"]


# ------------------------------------------------------------------------------------------------------------------- pace


async def test_the_line_is_left_alone_until_a_reply_is_due(tmp_path: Path) -> None:
    """Once a meter is known, an exchange costs a wake-up or two and not one for each piece."""
    async with street(tmp_path) as road:
        road.simulator._baud = 9600
        bus = await road.bus(f"{V4}:v4", every=0.1)
        bus._byte = 10 / 9600
        await until(lambda: len(road.ears.reads) >= 2, 10)
        pieces: list[int] = []
        original = bus._heard
        assert bus._stream is not None

        def hear(data: bytes) -> None:
            pieces.append(len(data))
            original(data)

        bus._stream.listen(hear)
        count = len(road.ears.reads)
        await until(lambda: len(road.ears.reads) >= count + 3, 10)
        assert sum(pieces) >= 3 * 510
        assert len(pieces) <= 6 * 3, f"{len(pieces)} wake-ups for 6 exchanges of 17 pieces: {pieces}"
        assert BAUD > 9600
