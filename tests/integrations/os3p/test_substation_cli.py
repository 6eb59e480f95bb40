"""``gridloom os3p substation`` and ``gridloom sim os3p`` as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integrations.os3p.central_raw import central
from tests.integrations.os3p.file_servers import http
from tests.integrations.os3p.substation import profile, profiles

GRIDLOOM = Path(sys.executable).with_name("gridloom")
LIGHT = "StreetlightStatusNotification"


@contextlib.asynccontextmanager
async def process(*arguments: str, cwd: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A verb that runs, and is gone in the end."""
    one = await asyncio.create_subprocess_exec(str(GRIDLOOM), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=cwd)
    try:
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
        await one.communicate()


async def test_a_substation_runs_until_sigterm_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret\n")
    async with central() as office:
        options = (
            "os3p",
            "substation",
            "--url",
            office.url,
            "--id",
            "SUBS 123",
            "--state",
            str(tmp_path / "state"),
            "--secret-file",
            str(secret),
            "-v",
        )
        async with process(*options) as one:
            line = await office.line(20)
            assert line.target == "/OS3P/SUBS%20123"
            assert line.headers["authorization"] == "Basic U1VCUyAxMjM6YS1zZWNyZXQ="
            await line.asked("BootNotification")
            assert (await line.call("SetStreetlightProfile", profiles()))["status"] == "Accepted"
            await line.asked(LIGHT)
            one.send_signal(signal.SIGTERM)
            _, said = await one.communicate()
            assert one.returncode == 0
            assert await line.gone() == 1001
            assert b"registration: Accepted" in said
            assert b"a-secret" not in said
        async with process(*options):
            line = await office.line(20)
            await line.asked("Heartbeat", 20)
            assert len(office.all("BootNotification")) == 1
            answer = await line.call("GetEffectiveStreetlightDaySchedule", {"contactorId": 1, "at": "2026-06-01T00:00:00"})
            assert answer["daySchedule"] == [{"start": "12:00:00", "end": "11:59:59"}]


@pytest.mark.timeout(110)
async def test_N19_N20_kill_9_of_the_process_at_any_moment_loses_no_event(tmp_path: Path) -> None:
    """Its contactors are switched by orders; it is killed after each, at another moment; every state that was ordered and done is told in the end."""
    async with central() as office:
        options = ("os3p", "substation", "--url", office.url, "--id", "S1", "--state", str(tmp_path / "state"))
        wanted = []
        for number in range(6):
            action = "Off" if number % 2 else "On"
            async with process(*options) as one:
                line = await office.line(20)
                await office.until(lambda: line.calls, 20)  # noqa: B023
                office.replies[LIGHT] = ["InternalError", "not yet", {}]
                assert (await line.call("OverrideStreetlight", {"contactorId": 1, "action": action}))["status"] == "Accepted"
                wanted.append(action)
                await asyncio.sleep(0.004 * number)
                one.kill()
                await one.wait()
        office.replies[LIGHT] = {}
        async with process(*options):
            await office.until(lambda: not _waiting(office.all(LIGHT)) and len(office.lines) == 7 and len(office.all(LIGHT)) > 3, 20)
            await asyncio.sleep(0.5)
        modes = [one for one in office.all("StreetlightModeStatusNotification") if one["contactorId"] == 1]
        assert len({one["timestamp"] for one in modes}) >= 6, "every order that was accepted was told as a change of mode"
        told = list(dict.fromkeys((one["timestamp"], one["status"]) for one in office.all(LIGHT)))
        assert told == sorted(told)
        assert told[-1][1] == wanted[-1]


def _waiting(told: list[object]) -> bool:
    return not told


async def test_own_hardware_and_hooks(tmp_path: Path) -> None:
    (tmp_path / "my_board.py").write_text(
        "from pathlib import Path\n"
        "from gridloom.integrations.os3p.driver import Driver, Sample\n"
        "class Board(Driver):\n"
        "    contactors = (3,)\n"
        "    def identity(self):\n"
        "        return self._boot\n"
        "    async def switch(self, contactor, on): Path('switched').write_text(f'{contactor} {on}')\n"
        "    async def meter(self): return [Sample('Voltage.L1N', '229.9', 'V')]\n"
        "def make(identity): return Board(vendor='BrandX', firmware_version='7')\n"
    )
    (tmp_path / "fw").mkdir()
    (tmp_path / "fw" / "new.bin").write_bytes(b"image")
    async with central() as office, http(tmp_path / "fw") as (url, _):
        options = ("os3p", "substation", "--url", office.url, "--id", "S1", "--state", "state", "--driver", "my_board:make", "--meter-every", "1")
        async with process(*options, "--install-command", f"cp -t {tmp_path}", cwd=tmp_path):
            line = await office.line(20)
            boot = await line.asked("BootNotification")
            assert (boot["vendor"], boot["firmwareVersion"]) == ("BrandX", "7")
            told = await line.asked("MeterValues")
            assert told["meterValue"][0]["sampledValue"] == [{"value": "229.9", "measurand": "Voltage.L1N", "unit": "V"}]
            await line.call("OverrideStreetlight", {"action": "On"})
            assert (await line.asked(LIGHT))["contactorId"] == 3
            assert (tmp_path / "switched").read_text() == "3 True"
            await line.call("UpdateFirmware", {"retrieveDate": office.time(), "location": f"{url}/new.bin"})
            await office.until(lambda: {"status": "Installed"} in office.all("FirmwareStatusNotification"), 20)
            assert (tmp_path / "new.bin").read_bytes() == b"image"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--url", "http://h/x"), "--url: expected ws://"), (("--geolocation", "here"), "--geolocation: expected"),
        (("--timezone", "Nowhere"), "--timezone:"),
        (("--id", ""), "--id:"), (("--driver", "nothing"), "--driver: expected module:factory"), (("--ca-file", "/none"), "--url: expected a wss://"),
        (("--url", "wss://h/x", "--ca-file", "/none"), "--ca-file"), (("--secret-file", "/none"), "--secret-file: expected"),
        (("--state", "/proc/nowhere"), "cannot be kept there"),
    ],
)  # fmt: skip
async def test_wrong_options_end_with_2_and_one_line(wrong: tuple[str, ...], words: str, tmp_path: Path) -> None:
    options = ("os3p", "substation", "--url", "ws://127.0.0.1:1/x", "--id", "S1", "--state", str(tmp_path / "state"), *wrong)
    async with process(*options) as one:
        _, said = await asyncio.wait_for(one.communicate(), 20)
        assert one.returncode == 2
        assert words in said.decode()
        assert "Traceback" not in said.decode()


async def test_a_simulated_fleet(tmp_path: Path) -> None:
    async with central() as office:
        pace = ("--speed", "100", "--meter-every", "60", "--boot-over", "20", "--faults", "0.3")
        options = ("sim", "os3p", "--url", office.url, "--count", "30", *pace)
        async with process(*options) as one:
            await office.until(lambda: len(office.all("MeterValues")) >= 60 and office.all("StatusNotification"), 30)
            assert len({line.target for line in office.lines}) == 30
            assert "/OS3P/SIM-07" in {line.target for line in office.lines}
            boots = [json.dumps(boot) for boot in office.all("BootNotification")]
            assert len(set(boots)) == 30
            one.send_signal(signal.SIGINT)
            await one.communicate()
            assert one.returncode == 0


def test_profile_helper_is_a_whole_day() -> None:
    assert profile()["daySchedule"][0]["start"]["time"] == "12:00:00"
