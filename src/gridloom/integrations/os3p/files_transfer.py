"""GetFile and UpdateFirmware on the Substation's side: files are made and uploaded, firmware is fetched, verified and handed over (A7.5, A7.13).

Verification: ``#sha256=HEX`` and ``&size=BYTES`` behind the location say what must come; without them a file ``LOCATION.sha256`` beside it does, if
there is one. Only a server that says that there is none is believed; whatever else keeps us from knowing is a failed attempt. A power loss is
survived: a download goes on where it was, an upload is told as failed, an installation is judged by the version that the station has then.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from gridloom.codecs.ocppj import ErrorCode
from gridloom.core.clock import Clock, rfc3339
from gridloom.core.errors import FieldFault
from gridloom.integrations.os3p import messages
from gridloom.integrations.os3p.driver import Driver, Turns
from gridloom.integrations.os3p.errors import PayloadRefused
from gridloom.integrations.os3p.history import Past
from gridloom.integrations.os3p.messages import FirmwareStatusNotification, GetFileStatusNotification, UpdateFirmware
from gridloom.integrations.os3p.state import Job, Vault, sync_folder
from gridloom.links import files
from gridloom.links.files import NotThere, TransferFailed, Trust

log = logging.getLogger(__name__)

UPLOAD_PAUSES = (0.0, 10.0, 60.0)
"""Seconds before each attempt to upload."""
RETRIES, RETRY_INTERVAL = 3, 60
"""Attempts to fetch firmware, and seconds between them, where UpdateFirmware says nothing."""
LARGEST_SUM = 4_096
_SAID = {"sha256": "[0-9A-Fa-f]{64}", "size": "[0-9]{1,12}"}
"""What may stand behind a location."""
HEARD = 10.0
"""Seconds that the Central System is given to hear of an installation before it begins."""
FILE, FIRMWARE = "file", "firmware"
"""Of the queue: the notifications of each are told in their order."""


class Station(Protocol):
    """What is asked of the Substation."""

    identity: str
    vault: Vault
    driver: Driver
    clock: Clock
    trust: Trust
    syslog: Past
    meters: Past
    folder: Path | None
    ask: Turns

    def now(self) -> int:
        """µs UTC, the station's own."""

    def news(self) -> None:
        """There are events to deliver."""

    def note(self, level: int, text: str, **extra: object) -> None:
        """Log it."""

    def alarm(self, name: str, text: str) -> None:
        """Something is wrong, or with an empty text it is right again."""

    def about(self) -> messages.BootNotification:
        """What the station is now."""

    def first_boot(self) -> None:
        """Register anew (B13)."""


class Uploads:
    """One at a time."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._task: asyncio.Task[None] | None = None

    def resume(self) -> None:
        """After a start: what was under way has failed."""
        left = self._station.vault.state.upload
        if left is not None:
            self._station.vault.commit(add=[(FILE, GetFileStatusNotification(status="UploadFailed", requestId=left.requestId))], upload=None)
            self._station.note(logging.ERROR, "a file was not uploaded", why="the station was stopped meanwhile")

    def stop(self) -> None:
        """Give up what is under way; it is told at the next start."""
        if self._task is not None:
            self._task.cancel()

    def status(self) -> GetFileStatusNotification:
        """How far it is (N1, N3)."""
        order = self._station.vault.state.upload
        return GetFileStatusNotification(status="None") if order is None else GetFileStatusNotification(status="Uploading", requestId=order.requestId)

    async def begin(self, order: messages.GetFile) -> messages.GetFileResponse:
        """Make the file, and upload it after the answer. Rejected: one is under way, the location or the time cannot be, or there is no such file."""
        station = self._station
        start = None if order.startTime is None else messages.moment(order.startTime)
        stop = None if order.stopTime is None else messages.moment(order.stopTime)
        backwards = start is not None and stop is not None and stop < start
        made = None
        if station.vault.state.upload is None and files.supported(order.location) and not backwards:
            made = await self._make(order, start, stop)
        if made is None:
            return messages.GetFileResponse(status="Rejected", fileName="")
        ending, content = made
        name = f"{_safe(station.identity)}_{order.fileType}_{re.sub('[-:]', '', rfc3339(station.now()))[:15]}Z.{ending}"
        station.vault.commit(add=[(FILE, GetFileStatusNotification(status="Uploading", requestId=order.requestId))], must=True, upload=order)
        self._task = asyncio.create_task(self._upload(order, name, content), name="os3p upload")
        return messages.GetFileResponse(status="Accepted", fileName=name)

    async def _make(self, order: messages.GetFile, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
        if order.fileType == "Syslog":
            return "log", self._station.syslog.text(start, stop).encode()
        if order.fileType == "MeterValueHistory":
            return "csv", self._station.meters.text(start, stop).encode()
        return await self._vendor_file(start, stop)

    async def _vendor_file(self, start: int | None, stop: int | None) -> tuple[str, bytes] | None:
        """None also where the hardware fails: then somebody is told here, and the order is rejected."""
        station, failure, made = self._station, "", None
        try:
            found = await station.ask(station.driver.vendor_file, start, stop, hurry=True)
            made = None if found is None else (str(found[0]), bytes(found[1]))
        except Exception as error:  # noqa: BLE001  # the owner's code may raise anything
            failure = f"{type(error).__name__}: {error}"[:200]
        station.alarm("vendor file", failure)
        return made

    async def _upload(self, order: messages.GetFile, name: str, content: bytes) -> None:
        station = self._station
        station.news()
        try:
            done = await self._uploaded(order, name, content)
        except Exception as error:  # noqa: BLE001  # whatever it is, the Central System hears that it failed, and the next file can come
            done = False
            station.note(logging.ERROR, "a file could not be made or sent", file=name, why=f"{type(error).__name__}: {error}")
        status = GetFileStatusNotification(status="Uploaded" if done else "UploadFailed", requestId=order.requestId)
        station.note(logging.INFO, "a file was uploaded" if done else "a file was not uploaded", file=name)
        station.vault.commit(add=[(FILE, status)], upload=None)
        station.news()

    async def _uploaded(self, order: messages.GetFile, name: str, content: bytes) -> bool:
        station = self._station
        with tempfile.TemporaryDirectory(dir=station.folder, prefix="upload-") as folder:
            source = Path(folder) / name
            source.write_bytes(content)
            for pause in UPLOAD_PAUSES:
                await station.clock.sleep(pause)
                try:
                    await files.upload(source, order.location, name, trust=station.trust)
                except (TransferFailed, OSError) as error:
                    station.note(logging.WARNING, "a file could not be uploaded", file=name, why=str(error))
                else:
                    return True
        return False


class Firmware:
    """One update at a time; a new order takes the place of one that is not being installed yet."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._task: asyncio.Task[None] | None = None
        self._doing: messages.FirmwareStatus = "None"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def resume(self) -> None:
        """After a start: an installation is judged, a download goes on."""
        station = self._station
        job = station.vault.state.job
        if job is None:
            return
        if not job.installing:
            self._begin()
            return
        version = station.about().firmwareVersion
        self._end(job, installed=version != job.version)
        station.note(logging.INFO, "an installation has ended the process", before=job.version, now=version)

    def stop(self) -> None:
        """A download goes on at the next start."""
        if self._task is not None:
            self._task.cancel()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def status(self) -> FirmwareStatusNotification:
        """How far it is (N2, N3)."""
        job = self._station.vault.state.job
        return FirmwareStatusNotification(status=self._doing, requestId=None if job is None else job.order.requestId)

    def order(self, order: UpdateFirmware) -> None:
        """Take an order. Raises PayloadRefused (NotSupported, I41) when it cannot be carried out, OSError."""
        station = self._station
        if not station.driver.installs:
            raise _not_supported("$", "firmware cannot be installed here")
        if not files.supported(order.location):
            raise _not_supported("$.location", f"expected a location of {', '.join(files.SCHEMES)}")
        running = station.vault.state.job
        if running is not None and running.installing:
            raise _not_supported("$", "firmware is being installed")
        station.vault.commit(must=True, job=Job(order, version=station.about().firmwareVersion))
        if self._task is not None:
            self._task.cancel()
        for left in self._folder().iterdir():
            left.unlink()
        self._begin()

    def _begin(self) -> None:
        self._doing = "None"
        self._task = asyncio.create_task(self._run(), name="os3p firmware")

    def _folder(self) -> Path:
        if self._station.folder is not None:
            folder = self._station.folder / "firmware"
            folder.mkdir(exist_ok=True)
            return folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="os3p-firmware-")
        return Path(self._temporary.name)

    async def _run(self) -> None:
        station = self._station
        job = station.vault.state.job
        assert job is not None
        try:
            due = messages.moment(job.order.retrieveDate)
            while (wait := (due - station.now()) / 1_000_000) > 0:
                await station.clock.sleep(min(wait, 600.0))  # again and again: the time may jump
            path = await self._fetch(job)
        except Exception as error:  # noqa: BLE001  # whatever it is, the Central System hears that it failed, also after a restart
            path = None
            station.note(logging.ERROR, "firmware could not be fetched or kept", why=f"{type(error).__name__}: {error}")
        if path is None:
            self._tell(job.order, "DownloadFailed", job=None)
            return
        self._tell(job.order, "Downloaded")
        job = msgspec.structs.replace(job, installing=True)
        self._tell(job.order, "Installing", job=job)
        await self._heard()
        try:
            await station.driver.install(path)
        except Exception as error:  # noqa: BLE001  # the owner's code: whatever it raises, it is not installed
            station.note(logging.ERROR, "firmware could not be installed", why=f"{type(error).__name__}: {error}")
            self._end(job, installed=False)
        else:
            self._end(job, installed=True)
        with contextlib.suppress(OSError):  # the next order removes it
            path.unlink(missing_ok=True)

    async def _fetch(self, job: Job) -> Path | None:
        station, order = self._station, job.order
        path = self._folder() / _safe(unquote(urlsplit(order.location).path).rpartition("/")[2] or "firmware")
        attempts = max(1, RETRIES if order.retries is None else order.retries)
        for attempt in range(max(1, job.attempt), attempts + 1):  # one that a power loss ended counts again
            self._tell(order, "Downloading", job=msgspec.structs.replace(job, attempt=attempt))
            try:
                await self._download(order.location, path)
                return path
            except (TransferFailed, OSError) as error:
                station.note(logging.WARNING, "firmware could not be fetched", attempt=attempt, of=attempts, why=str(error))
            if attempt < attempts:
                await station.clock.sleep(float(RETRY_INTERVAL if order.retryInterval is None else max(0, order.retryInterval)))
        return None

    async def _download(self, location: str, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        expected, size = await self._expected(location, path)
        await files.download(location, part, trust=self._station.trust, checked=expected is not None)
        actual = await asyncio.to_thread(_digest, part)
        if size not in (None, part.stat().st_size) or expected not in (None, actual):
            part.unlink()
            raise TransferFailed("the file is not the one that was announced: its size or its SHA-256 differs")
        part.replace(path)
        sync_folder(path.parent)

    async def _expected(self, location: str, path: Path) -> tuple[str | None, int | None]:
        """SHA-256 and size that the file must have, as far as somebody says so. Raises TransferFailed where that is not known, or makes no sense."""
        parts = urlsplit(location)
        if "#" in location:
            pairs = parse_qsl(parts.fragment, keep_blank_values=True)
            said = dict(pairs)
            if not said or len(said) < len(pairs) or not all(name in _SAID and re.fullmatch(_SAID[name], text) for name, text in pairs):
                raise TransferFailed("behind the location: expected sha256=64 hexadecimal digits, size=bytes")
            return (said["sha256"].lower() if "sha256" in said else None), (int(said["size"]) if "size" in said else None)
        beside = path.with_name(path.name + ".sha256")
        beside.unlink(missing_ok=True)
        try:
            await files.download(parts._replace(path=parts.path + ".sha256").geturl(), beside, most=LARGEST_SUM, trust=self._station.trust)
            found = re.match(rb"\s*([0-9A-Fa-f]{64})(?:\s|$)", beside.read_bytes())
        except NotThere:
            self._station.note(logging.INFO, "nobody says what the firmware must be")
            return None, None
        finally:
            beside.unlink(missing_ok=True)
        if found is None:
            raise TransferFailed("the .sha256 file beside the firmware does not begin with 64 hexadecimal digits")
        return found[1].decode().lower(), None

    async def _heard(self) -> None:
        """Until what was told is answered, for the installation may end the process; not for long."""
        deadline = self._station.clock.monotonic() + HEARD
        while any(event.key == FIRMWARE for event in self._station.vault.events.values()) and self._station.clock.monotonic() < deadline:
            await self._station.clock.sleep(0.1)

    def _end(self, job: Job, installed: bool) -> None:
        if installed:
            self._tell(job.order, "Installed", job=None, accepted=None)
            self._station.first_boot()
        else:
            self._tell(job.order, "InstallationFailed", job=None)

    def _tell(self, order: UpdateFirmware, status: messages.FirmwareStatus, **changes: Any) -> None:
        self._doing = "None" if status in ("Installed", "DownloadFailed", "InstallationFailed") else status
        self._station.vault.commit(add=[(FIRMWARE, FirmwareStatusNotification(status=status, requestId=order.requestId))], **changes)
        self._station.note(logging.INFO, f"firmware: {status}")
        self._station.news()


def _safe(name: str) -> str:
    """As the name of a file of ours."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:80] or "_"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_supported(path: str, reason: str) -> PayloadRefused:
    return PayloadRefused((FieldFault(path, reason),), ErrorCode.NOT_SUPPORTED)
