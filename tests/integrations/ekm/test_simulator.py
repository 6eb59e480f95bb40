"""The simulated meters and their line: state, clock, tariffs, relay timers, faults, pace; an ioStack; the tools of the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import termios
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.ekm.bus import V3, V4

from gridloom.core.clock import Clock, from_datetime
from gridloom.core.errors import Unsupported
from gridloom.integrations.ekm import codec, iostack, simulator
from gridloom.integrations.ekm.errors import IoStackRefused
from gridloom.integrations.ekm.iostack import Simulated, Unavailable
from gridloom.integrations.ekm.models import MODELS
from gridloom.integrations.ekm.simulator import Line, Omnimeter, Simulator

START = from_datetime(datetime.fromisoformat("2026-11-20T12:00:00+01:00"))  # a Friday
READ = codec.read_request(V4, MODELS["v4"].layouts[0])


def meter(speed: float = 1.0) -> Omnimeter:
    return Omnimeter(V4, MODELS["v4"], Clock(speed, START), load=simulator.steady(3600, -1800, 0))


def ask(line: Line, *requests: bytes) -> list[bytes]:
    return [line.hear(request) for request in requests]


SESSION = (READ, codec.password_request("00000000"))


def test_a_setting_needs_a_session_and_the_password() -> None:
    line = Line([meter()])
    write = codec.write_request("00D0", "0400")
    assert ask(line, write, codec.password_request("00000000")) == [b"", b""]
    assert ask(line, READ, write)[1] == b""
    assert ask(line, codec.password_request("11111111"), write) == [b"", b""]
    assert ask(line, codec.password_request("00000000"), write) == [b"\x06", b"\x06"]
    assert ask(line, codec.END, write) == [b"", b""]
    assert line.meters[0].writes == [("00D0", "0400")]


def test_a_session_that_nobody_ended_takes_the_setting_of_another() -> None:
    """So that a driver that forgets to end one is found out."""
    line = Line([meter(), Omnimeter("000000000017", MODELS["v4"], Clock())])
    ask(line, *SESSION, codec.read_request("000000000017", MODELS["v4"].layouts[0]), SESSION[1], codec.write_request("00D0", "0400"))
    assert [one.ct for one in line.meters] == [400, 400]


def test_a_damaged_request_is_not_heard() -> None:
    line = Line([meter()])
    ask(line, *SESSION)
    damaged = bytearray(codec.write_request("00D0", "0400"))
    damaged[10] ^= 1
    assert ask(line, bytes(damaged)) == [b""]
    assert line.meters[0].ct == 200


async def test_time_counts_energy_in_the_tariff_that_runs_and_ends_a_pulse() -> None:
    one = meter(speed=3600)
    line = Line([one])
    ask(line, *SESSION, codec.write_request("0070", "000001120002180003" + "0" * 30), codec.write_request("0081", "10060"))
    assert (one.tariff(), one.relays[0][0]) == (2, 1)
    before = [list(way) for way in one.energy]
    await asyncio.sleep(0.5)
    one.live()
    assert one.energy[0][1] - before[0][1] == pytest.approx(1800, rel=0.3), "half an hour of 3600 W"
    assert one.energy[1][1] - before[1][1] == pytest.approx(900, rel=0.3)
    assert one.energy[0][0] == before[0][0]
    assert one.relays[0][0] == 0


@pytest.mark.parametrize(("days", "tariff"), [(0, 1), (1, 3), (2, 3), (5, 4)])
def test_weekends_and_holidays_have_their_schedules(days: int, tariff: int) -> None:
    one = meter()
    for number, period in enumerate(("000001", "000002", "000003", "000004")):
        one.schedules[number] = period + "0" * 18
    one.weekend, one.holidays = "0304", "1125" + "0000" * 19
    one.offset = days * 86_400 * simulator.SECOND
    assert one.tariff() == tariff


def test_two_meters_that_answer_at_once_are_no_frame() -> None:
    line = Line([meter(), Omnimeter("000000000017", MODELS["v4"], Clock())])
    said = line.hear(codec.read_request(codec.WILDCARD, MODELS["v4"].layouts[0]))
    assert not codec.is_valid(said)


@pytest.mark.parametrize("text", ["1", "1:v9", "x:v4"])
def test_a_meter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ADDRESS:MODEL|digits"):
        simulator.meter(text, Clock())
    with pytest.raises(ValueError, match="KIND=RATE"):
        simulator.parse_rates([text])


async def test_the_line_has_the_pace_of_its_bytes_and_a_fresh_terminal_for_each_who_opens_it(tmp_path: Path) -> None:
    made = Simulator(tmp_path / "bus", Line([meter()]), turnaround=0.0)
    await made.start()
    terminals = []
    for _ in range(2):
        terminals.append((tmp_path / "bus").readlink())
        descriptor = os.open(tmp_path / "bus", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        os.write(descriptor, READ)
        got, first = b"", 0.0
        while len(got) < 255 and time.monotonic() - began < 2:
            await asyncio.sleep(0.001)
            try:
                got += os.read(descriptor, 300)
                first = first or time.monotonic() - began
            except BlockingIOError:
                continue
        passed = time.monotonic() - began
        os.close(descriptor)
        assert codec.is_valid(got)
        assert 274 * 10 / 9600 <= passed < 274 * 10 / 9600 + 0.08
        assert first >= 20 * 10 / 9600
        while made.pty.opened < len(terminals):
            await asyncio.sleep(0.01)
    assert terminals[0] != terminals[1]
    await made.stop()
    assert not (tmp_path / "bus").is_symlink()
    assert termios.B9600


# ----------------------------------------------------------------------------------------------------------------- ioStack


async def test_the_simulated_iostack_answers_with_the_status_codes() -> None:
    stack = Simulated(Clock(start=START))
    stack.watches[1] = 32
    with pytest.raises(IoStackRefused, match=r"status 147 \(DO busy\)") as refused:
        await stack.set_output(1, 1, False, None)
    assert refused.value.status == 147
    assert await stack.set_output(1, 1, True, None) == 1
    assert await stack.set_output(1, 0, False, "00000000") == 0
    with pytest.raises(IoStackRefused, match="132"):
        await stack.set_password("new", "wrong")
    with pytest.raises(IoStackRefused, match="133"):
        await stack.reset_count(9, None)
    await stack.set_date_time(datetime(2026, 11, 21, 12, 0))  # noqa: DTZ001
    assert str((await stack.get_status()).date_time).startswith("2026-11-21T12:00:00")
    stack.fail = 253
    with pytest.raises(IoStackRefused, match="process error"):
        await stack.scan_one_wire()


def test_bit_seven_is_an_error_but_for_what_says_that_nothing_was_there() -> None:
    assert [number for number in range(256) if not _fails(number)] == [*range(128), 145, 146]


def _fails(number: int) -> bool:
    try:
        iostack.check(number, "GetStatus")
    except IoStackRefused:
        return True
    return False


async def test_real_iostacks_are_not_available_and_nothing_pretends() -> None:
    driver = iostack.driver("000000000901", "/dev/ttyUSB9")
    assert isinstance(driver, Unavailable)
    orders: list[Any] = [
        driver.get_status(), driver.scan_one_wire(), driver.set_password("a", "b"), driver.set_date_time(datetime(2026, 1, 1)),  # noqa: DTZ001
        driver.reset_count(1, None), driver.set_output(1, 1, False, None),
    ]  # fmt: skip
    for order in orders:
        with pytest.raises(Unsupported, match="not available for this device"):
            await order


# ------------------------------------------------------------------------------------------------------- the command line


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "gridloom"), "ekm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_tools_work_on_a_port_without_a_hub(tmp_path: Path) -> None:
    link = str(tmp_path / "bus")
    fast = ("--baud", "115200")
    command = [str(Path(sys.executable).parent / "gridloom"), "sim", "ekm", "--link", link, "--meter", f"{V4}:v4", "--meter", f"{V3}:v3"]
    with subprocess.Popen([*command, *fast, "--watts", "1500,-700,300", "--password", "12345678"], stdout=subprocess.PIPE, text=True) as made:
        try:
            assert made.stdout is not None
            assert V4 in made.stdout.readline()
            found = run("scan", link, "10015", "10020", "--wait", "0.05", "--json", *fast)
            assert [one["address"] for one in json.loads(found.stdout)] == [V3]
            read = json.loads(run("read", link, V4.lstrip("0"), "--json", *fast).stdout)
            assert (read["RMS_Watts_Ln_1"], read["Net_Calc_Watts_Ln_2"], read["generation"]) == (1500, -700, "v4")
            refused = run("set", link, f"{V4}:v4", "SetRelay", "relay=1", "state=closed", *fast)
            assert refused.returncode == 1
            assert "wrong password" in refused.stderr
            done = run("set", link, f"{V4}:v4", "SetRelay", "relay=1", "state=closed", "--password", "12345678", *fast)
            assert (done.returncode, done.stdout) == (0, "done\n")
            assert json.loads(run("read", link, f"{V4}:v4", "--json", *fast).stdout)["State_Out"] == 3
            unknown = run("set", link, f"{V4}:v4", "SetNothing", *fast)
            assert unknown.returncode == 2
            assert "SetHolidayDates" in unknown.stderr
            assert "Holiday_1_Mon" in run("holidays", link, f"{V4}:v4", *fast).stdout
            descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY)
            try:
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                busy = run("read", link, V4, *fast)
            finally:
                os.close(descriptor)
            assert busy.returncode == 1
            assert f"process {os.getpid()}" in busy.stderr
            assert "hub" in busy.stderr
        finally:
            made.send_signal(signal.SIGINT)
        assert made.wait(10) == 0
    assert not Path(link).is_symlink()
