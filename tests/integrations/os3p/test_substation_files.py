"""GetFile and UpdateFirmware of the Substation over ftp, sftp and http: verified, tried again, and survived when the power is lost."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.integrations.os3p.central_raw import Central, Line, Refused, central
from tests.integrations.os3p.file_servers import ftp, http, sftp
from tests.integrations.os3p.substation import made, registered, running

from gridloom.core.clock import Clock
from gridloom.integrations.os3p.driver import Driver
from gridloom.integrations.os3p.simulator import Simulated
from gridloom.links.files import Trust

IMAGE = b"an image of firmware " * 20_000
SUM = hashlib.sha256(IMAGE).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "fw-4.5.6.bin").write_bytes(IMAGE)
    return folder


def now() -> str:
    return datetime.now(UTC).isoformat()


async def fetched(line: Line, kind: str, location: str) -> tuple[str, list[str]]:
    """Name and statuses of a GetFile."""
    answer = await line.call("GetFile", {"fileType": kind, "location": location})
    assert answer["status"] == "Accepted"
    told: list[str] = []
    while told[-1:] not in (["Uploaded"], ["UploadFailed"]):
        told.append((await line.asked("GetFileStatusNotification", 20))["status"])
    return answer["fileName"], told


async def updated(office: Central, line: Line, location: str, **more: Any) -> list[str]:
    """Statuses of an UpdateFirmware, on whatever connections they come."""
    office.told.clear()
    assert await line.call("UpdateFirmware", {"retrieveDate": "2026-01-01T00:00:00Z", "location": location, **more}) == {}
    ends = {"Installed", "DownloadFailed", "InstallationFailed"}
    await office.until(lambda: ends & {one["status"] for one in office.all("FirmwareStatusNotification")}, 20)
    return [one["status"] for one in office.all("FirmwareStatusNotification")]


class Quick(Simulated):
    """Installs at once, and remembers what."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__("quick", clock or Clock(), seed=1, faulty=0)
        self.installed = b""
        self.fails = False

    async def install(self, path: Path) -> None:
        if self.fails:
            raise OSError("the flash is worn out")
        self.installed = path.read_bytes()


# ------------------------------------------------------------------------------------------------------------------- uploads


async def test_get_file_to_ftp(served: Path, tmp_path: Path) -> None:
    (served / "in box").mkdir()
    async with registered(folder=tmp_path / "state") as (_, _, line):
        with ftp(served) as url:
            name, told = await fetched(line, "Syslog", f"{url}/in%20box")
    assert told == ["Uploading", "Uploaded"]
    assert "registration: Accepted" in (served / "in box" / name).read_text()
    assert "s3cret" not in (served / "in box" / name).read_text()


async def test_get_file_to_sftp(served: Path, tmp_path: Path) -> None:
    async with sftp(served) as (url, known), registered(folder=tmp_path / "state", trust=Trust(known_hosts=known)) as (_, _, line):
        name, told = await fetched(line, "MeterValueHistory", url)
        assert told == ["Uploading", "Uploaded"]
        assert (served / name).read_text().startswith("timestamp,measurand,value,unit,location\n")


async def test_one_upload_at_a_time_and_its_status() -> None:
    async with registered(call_timeout=5) as (_, _, line):
        reader = asyncio.Event()

        async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.wait()
            writer.close()

        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        location = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        order = {"fileType": "Syslog", "location": location, "requestId": "r7"}
        assert (await line.call("GetFile", order))["status"] == "Accepted"
        assert (await line.asked("GetFileStatusNotification"))["status"] == "Uploading"
        assert await line.call("GetFile", order) == {"status": "Rejected", "fileName": ""}
        await line.call("TriggerMessage", {"requestedMessage": "GetFileStatusNotification"})
        assert await line.asked("GetFileStatusNotification") == {"status": "Uploading", "requestId": "r7"}
        reader.set()
        await asyncio.sleep(0.01)
        server.close()


async def test_an_upload_is_tried_again_and_then_given_up(served: Path) -> None:
    clock = Clock(40)
    async with http(served) as (url, server), central() as office, running(office.url, clock=clock) as station:
        line = await office.line()
        await office.until(lambda: station.registered)
        server.credentials = "nobody:knows"
        name, told = await fetched(line, "Syslog", url)
        assert told == ["Uploading", "UploadFailed"]
        assert len(server.requests) == 3
        assert not (served / name).exists()


async def test_a_name_of_a_host_that_cannot_be_ends_in_failed(tmp_path: Path) -> None:
    async with central() as office, running(office.url, clock=Clock(400)) as station:
        line = await office.line()
        await office.until(lambda: station.registered)
        for _ in range(2):
            assert (await fetched(line, "Syslog", "sftp://foo..bar/x"))[1] == ["Uploading", "UploadFailed"]
        assert (await updated(office, line, "sftp://foo..bar/x", retries=1)) == ["Downloading", "DownloadFailed"]


async def test_whatever_breaks_a_transfer_is_told_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise LookupError("a driver's own mistake")

    monkeypatch.setattr("gridloom.links.files.upload", broken)
    monkeypatch.setattr("gridloom.links.files.download", broken)
    async with registered(driver=Quick()) as (office, station, line):
        for _ in range(2):
            assert (await fetched(line, "Syslog", "http://h/x"))[1] == ["Uploading", "UploadFailed"]
        assert await updated(office, line, "http://h/x") == ["Downloading", "DownloadFailed"]
        assert station.syslog.text(None, None).count("LookupError: a driver's own mistake") == 3
        assert station.vault.state.job is None


async def test_an_upload_that_the_power_loss_ended_is_told_as_failed(tmp_path: Path) -> None:
    async with registered(folder=tmp_path) as (office, station, line):
        over = asyncio.Event()

        async def stall(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await over.wait()
            writer.close()

        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        location = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await line.call("GetFile", {"fileType": "Syslog", "location": location, "requestId": "r7"})
        await line.asked("GetFileStatusNotification")
        station.vault.close()
        office.told.clear()
        async with running(office.url, folder=tmp_path):
            await office.until(lambda: {"status": "UploadFailed", "requestId": "r7"} in office.all("GetFileStatusNotification"))
        over.set()
        await asyncio.sleep(0.01)
        server.close()


# ------------------------------------------------------------------------------------------------------------------ firmware


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "http"])
async def test_firmware_from_every_kind_of_server(scheme: str, served: Path) -> None:
    driver = Quick()
    async with registered(driver=driver) as (office, _, line):
        fragment = f"/fw-4.5.6.bin#sha256={SUM}&size={len(IMAGE)}"
        if scheme == "ftp":
            with ftp(served) as url:
                told = await updated(office, line, url + fragment)
        elif scheme == "sftp":
            async with sftp(served) as (url, _):
                told = await updated(office, line, url + fragment)
        else:
            async with http(served) as (url, _):
                told = await updated(office, line, url + fragment)
    assert told == ["Downloading", "Downloaded", "Installing", "Installed"]
    assert driver.installed == IMAGE


@pytest.mark.parametrize("fragment", [f"#sha256={'0' * 64}", "#size=17"])
async def test_what_is_not_what_was_announced_is_not_installed(fragment: str, served: Path) -> None:
    driver = Quick()
    async with registered(driver=driver) as (office, _, line), http(served) as (url, _):
        told = await updated(office, line, f"{url}/fw-4.5.6.bin{fragment}", retries=2, retryInterval=0)
    assert told == ["Downloading", "Downloading", "DownloadFailed"]
    assert driver.installed == b""


@pytest.mark.parametrize(
    "fragment", ["#", "#sha256=short", "#sha256=", f"#sha-256={SUM}", "#sha=00", "#x", f"#sha256={SUM}&sha256={SUM}", "#size=1&x=2"]
)
async def test_what_is_announced_in_unknown_words_is_not_installed(fragment: str, served: Path) -> None:
    driver = Quick()
    async with registered(driver=driver) as (office, _, line), http(served) as (url, _):
        assert await updated(office, line, f"{url}/fw-4.5.6.bin{fragment}", retries=1) == ["Downloading", "DownloadFailed"]
    assert driver.installed == b""


@pytest.mark.parametrize(("status", "end"), [(404, "Installed"), (410, "Installed"), (403, "DownloadFailed"), (503, "DownloadFailed")])
async def test_that_nobody_says_what_comes_must_be_said(status: int, end: str, served: Path) -> None:
    async with registered(driver=Quick()) as (office, _, line), http(served) as (url, server):
        server.status = {".sha256": status}
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin", retries=1))[-1] == end


@pytest.mark.parametrize("text", ["", "none\n", SUM[:-1], f"x{SUM}"])
async def test_a_sum_that_cannot_be_read_is_none(text: str, served: Path) -> None:
    (served / "fw-4.5.6.bin.sha256").write_text(text)
    async with registered(driver=Quick()) as (office, _, line), http(served) as (url, _):
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin", retries=1))[-1] == "DownloadFailed"


async def test_a_file_beside_it_says_its_sum(served: Path) -> None:
    (served / "fw-4.5.6.bin.sha256").write_text(f"{'f' * 64}  fw-4.5.6.bin\n")
    async with registered(driver=Quick()) as (office, _, line), http(served) as (url, _):
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin", retries=1))[-1] == "DownloadFailed"
    (served / "fw-4.5.6.bin.sha256").write_text(f"{SUM}  fw-4.5.6.bin\n")
    async with registered(driver=Quick()) as (office, _, line), http(served) as (url, _):
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin", retries=1))[-1] == "Installed"


async def test_a_download_goes_on_at_the_next_attempt(served: Path) -> None:
    driver = Quick()
    async with registered(driver=driver) as (office, _, line), http(served) as (url, server):
        server.cut_after = 100_000
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin#sha256={SUM}", retries=10, retryInterval=0))[-2:] == ["Installing", "Installed"]
        assert len([one for one in server.requests if one[1] == "/fw-4.5.6.bin"]) == 5
    assert driver.installed == IMAGE


async def test_a_download_goes_on_after_a_power_loss(served: Path, tmp_path: Path) -> None:
    driver = Quick()
    async with http(served) as (url, server), registered(folder=tmp_path / "state", driver=Quick()) as (office, station, line):
        server.cut_after = 100_000
        order = {"retrieveDate": now(), "location": f"{url}/fw-4.5.6.bin#sha256={SUM}", "retries": 5, "retryInterval": 3600, "requestId": "r1"}
        await line.call("UpdateFirmware", order)
        await office.until(lambda: (tmp_path / "state" / "firmware" / "fw-4.5.6.bin.part").exists() and len(server.requests) == 1)
        await asyncio.sleep(0.1)
        station.vault.close()
        server.cut_after = None
        office.told.clear()
        async with running(office.url, folder=tmp_path / "state", driver=driver):
            await office.until(lambda: {"status": "Installed", "requestId": "r1"} in office.all("FirmwareStatusNotification"))
        assert "range" in server.requests[1][2]
    assert driver.installed == IMAGE


@pytest.mark.parametrize(("version", "told"), [("2.0.0", "Installed"), ("1.0.0", "InstallationFailed")])
async def test_an_installation_that_ends_the_process_is_judged_by_the_version(version: str, told: str, served: Path, tmp_path: Path) -> None:
    class Ends(Driver):
        installs = True

        async def install(self, path: Path) -> None:
            await asyncio.sleep(60)

    async with http(served) as (url, _), registered(folder=tmp_path / "state", driver=Ends(firmware_version="1.0.0")) as (office, station, line):
        await line.call("UpdateFirmware", {"retrieveDate": now(), "location": f"{url}/fw-4.5.6.bin"})
        await office.until(lambda: {"status": "Installing"} in office.all("FirmwareStatusNotification"))
        station.vault.close()
        office.told.clear()
        async with running(office.url, folder=tmp_path / "state", driver=Ends(firmware_version=version)):
            await office.until(lambda: office.all("FirmwareStatusNotification"))
            await asyncio.sleep(0.1)
        assert office.all("FirmwareStatusNotification") == [{"status": told}]
        assert len(office.all("BootNotification")) == (1 if told == "Installed" else 0), "B13"
        assert office.all("StatusNotification") == [], "a restart for firmware is no unexpected behaviour"


async def test_an_installation_that_fails(served: Path) -> None:
    driver = Quick()
    driver.fails = True
    async with registered(driver=driver) as (office, station, line), http(served) as (url, _):
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin"))[-2:] == ["Installing", "InstallationFailed"]
        assert station.registered
        assert station.vault.state.job is None
        assert list(station.firmware._folder().iterdir()) == []


async def test_a_new_order_takes_the_place_of_one_that_waits(served: Path) -> None:
    driver = Quick()
    async with registered(driver=driver) as (office, _, line), http(served) as (url, server):
        await line.call("UpdateFirmware", {"retrieveDate": "2199-01-01T00:00:00Z", "location": f"{url}/never"})
        assert (await updated(office, line, f"{url}/fw-4.5.6.bin", requestId="r2"))[-1] == "Installed"
        assert [one["requestId"] for one in office.all("FirmwareStatusNotification")] == ["r2"] * 4
        assert not [one for one in server.requests if "never" in one[1]]


async def test_what_cannot_be_is_not_supported() -> None:
    async with registered() as (_, _, line):
        for location in ("gopher://h/x", "file:///etc/shadow"):
            with pytest.raises(Refused) as raised:
                await line.call("UpdateFirmware", {"retrieveDate": now(), "location": location})
            assert raised.value.code == "NotSupported"
            assert "$.location" in raised.value.description


async def test_credentials_of_a_location_are_never_logged(served: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with registered(folder=tmp_path / "state", driver=Quick()) as (office, station, line):
        with ftp(served) as url:
            await fetched(line, "Syslog", url)
            await updated(office, line, f"{url}/none", retries=1)
            await updated(office, line, f"{url}/fw-4.5.6.bin")
        assert "s3cret" not in station.syslog.text(None, None)
        state = made("ws://127.0.0.1:1/x").vault.state
        assert state.job is None
    assert "s3cret" not in caplog.text
