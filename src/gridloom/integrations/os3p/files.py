"""Files that stations upload and firmware that they fetch, kept by the hub: GetFile and UpdateFirmware need no other server (A7.5, A7.13).

Who may upload or fetch is told by the link alone, for stations have no accounts of ours: it holds a token of 256 random bits, made for one station,
one order and one file, that ends with its time; only its SHA-256 is kept. An upload that is repeated replaces what came before.

A file is a document and a *blob* below ``data_dir/os3p/files``, whose name is our own: no name that somebody sent ever reaches the file system. A
blob is complete and on disk before its document names it; one that no document names (the hub was killed in between) is removed at the next start.
Disk use is bounded: by ``files_room``, and what is under way by ``MOST_AT_ONCE`` uploads of ``files_max_size``. No station can hold up the others: of
a link only the newest upload goes on, a station has ``MOST_OF_A_STATION``, bytes that come too slowly end it (``SLOWEST``, ``PATIENCE``), and what
operators put has places of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import errno
import hashlib
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

import msgspec

from gridloom.core import audit, clock, ids, verbs
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, FieldFault, GridloomError, InvalidInput, NotFound, Refused, StorageError, StorageFull
from gridloom.core.events import new_event
from gridloom.core.hub import Health, Hub
from gridloom.core.locks import KeyedLock, finish
from gridloom.core.model import Command, Principal
from gridloom.core.ports import Delete, Put
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.orders import request_id
from gridloom.integrations.os3p.stations import device_id

log = logging.getLogger(__name__)

FILE, TICKET = "file", "ticket"
"""The kinds of our documents: their ids are a file's id, and the SHA-256 of a link's token."""
UPLOAD_PATH, DOWNLOAD_PATH = "/os3p/files/upload", "/os3p/files/download"
BLOCK = 262_144
"""Bytes that are written or read at a stretch, in a thread."""
MOST_AT_ONCE = 8
"""Uploads of all stations."""
MOST_OF_A_STATION = 2
MOST_OF_OPERATORS = 2
"""Firmware that comes at once, beside the uploads of stations."""
SLOWEST = 1_024
"""Bytes per second: who sends fewer is ended as soon as he is ``PATIENCE`` behind; who sends more is never more ahead than that."""
PATIENCE = 30.0
"""Seconds."""
TIDY_EVERY = 3_600.0
_ROOM = "*"
"""Locked while it is made: no id of a file."""
_ANY_ADDRESS = ("", "0.0.0.0", "::", None)  # noqa: S104  # compared, not bound
_FIRMWARE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")
_OF_AN_UPLOAD = re.compile(r"[0-9a-f]{32}")


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file. ``id``: 32 hexadecimal digits of an upload, the name of a firmware. Times in µs, ``size`` in bytes.

    ``station``, ``request`` and ``command``: whose upload it is, and of which order; ``what`` was asked for. ``arrived`` and ``blob`` are empty while
    an upload is still expected, which it is until ``expires``. ``fault``: why the last attempt to upload came to nothing.
    """

    id: str
    kind: Literal["upload", "firmware"]
    name: str
    created: int
    station: str = ""
    request: str = ""
    command: str = ""
    what: str = ""
    expires: int = 0
    arrived: int = 0
    size: int = 0
    sha256: str = ""
    blob: str = ""
    fault: str = ""


class Ticket(msgspec.Struct, frozen=True):
    """What a link is good for; ``expires`` in µs."""

    use: Literal["upload", "download"]
    file: str
    station: str
    expires: int


class TooLarge(GridloomError):
    """More bytes than a file may have."""

    code = "too-large"
    status = 413


class TooSlow(GridloomError):
    """An upload whose bytes come so slowly that it only keeps others out."""

    code = "too-slow"
    status = 408


class Truncated(InvalidInput):
    """An upload that ended before all of it came."""


class _Coming:
    """Bytes that become a blob: the upload ``file`` of a station, or (both are empty) a firmware."""

    def __init__(self, file: str, station: str) -> None:
        self.blob = secrets.token_hex(16)
        self.file = file
        self.station = station
        self.replaced = False
        self._waiting: asyncio.Timeout | None = None

    def replace(self) -> None:
        """The same link is used again: this one is ended, unless it has all of its bytes already."""
        self.replaced = True
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(asyncio.get_running_loop().time())

    async def chunks(self, content: AsyncIterator[bytes], clock: Clock) -> AsyncIterator[bytes]:
        """As they come. Raises TooSlow, and Conflict when it is replaced; only what is waited for counts, not what is done with a chunk."""
        left = PATIENCE
        while not self.replaced:
            began = clock.monotonic()
            try:
                async with asyncio.timeout(left / clock.speed) as self._waiting:
                    chunk = await anext(content, None)
            except TimeoutError:
                break
            finally:
                self._waiting = None
            if chunk is None:
                return
            left = min(PATIENCE, left - (clock.monotonic() - began) + len(chunk) / SLOWEST)
            yield chunk
        if self.replaced:
            raise Conflict("the same link is used again: only the newest upload goes on")
        raise TooSlow(f"the file comes too slowly: expected {SLOWEST} bytes per second or more")


_files = msgspec.json.Decoder(File)
_tickets = msgspec.json.Decoder(Ticket)


class Files:
    """The files of all stations: a service, which keeps them tidy."""

    name = "os3p.files"

    def __init__(self, section: Section, hub: Hub) -> None:
        self._section = section
        self._hub = hub
        self._folder = hub.data_dir / "os3p" / "files"
        self._locks = KeyedLock()
        self._coming: dict[str, _Coming] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._uploads = hub.metrics.counter("gridloom_os3p_uploads_total", "Uploads of stations by how they ended.", ("end",))

    # ------------------------------------------------------------------------------------------------------------ service

    async def start(self) -> Mapping[str, str]:
        """Remove what nobody knows or needs any more, now and from time to time."""
        await self._remove_strays()
        self._tidying = asyncio.create_task(self._keep_tidy(), name=self.name)
        return {}

    async def wait(self) -> None:
        """Raises what ended it."""
        if self._tidying is not None:
            await asyncio.wait([self._tidying])
            if not self._tidying.cancelled():
                self._tidying.result()

    async def stop(self) -> None:
        """Never raises."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.gather(self._tidying, return_exceptions=True)

    def health(self) -> Health:
        """Whether old files are removed."""
        running = self._tidying is not None and not self._tidying.done()
        return Health(running, "" if running else "old files are not removed")

    # ------------------------------------------------------------------------------------------------------ links of orders

    async def location(self, command: Command, identity: str) -> str | None:
        """Where the station is to upload the file of this order, or to fetch its firmware; None when the order says so itself.

        Raises Refused when there is no such firmware, or nobody said where stations reach the hub.
        """
        arguments = verbs.validate(command.verb, command.arguments)
        if isinstance(arguments, verbs.DeviceFilesGet) and arguments.location is None:
            return await self._expect(command, arguments, identity)
        if isinstance(arguments, verbs.DeviceFirmwareUpdate) and arguments.file is not None:
            return await self._offer(arguments.file, arguments.retrieve_time, identity)
        return None

    async def _expect(self, command: Command, arguments: verbs.DeviceFilesGet, identity: str) -> str:
        url, now = self._url(), self._hub.clock.now()
        request = request_id(command)
        file = File(
            id=ids.unique(now), kind="upload", name=f"{arguments.what}-{request}", created=now, station=identity, request=request, command=command.id,
            what=arguments.what, expires=self._expiry(now),
        )  # fmt: skip
        token, ticket = self._ticket(Ticket("upload", file.id, identity, file.expires))
        await self._hub.documents.commit([self._put(file), ticket])
        return f"{url}{UPLOAD_PATH}/{token}"

    async def _offer(self, name: str, retrieve: datetime.datetime | None, identity: str) -> str:
        try:
            file = await self.firmware(name)
        except NotFound as error:
            raise Refused(error.message) from None
        url, now = self._url(), self._hub.clock.now()
        begin = now if retrieve is None else max(now, clock.from_datetime(retrieve))
        token, ticket = self._ticket(Ticket("download", file.id, identity, self._expiry(begin)))
        await self._hub.documents.commit([ticket])
        return f"{url}{DOWNLOAD_PATH}/{token}/{file.name}"

    def _ticket(self, ticket: Ticket) -> tuple[str, Put]:
        token = secrets.token_urlsafe(32)
        return token, self._hub.documents.put(TICKET, _hashed(token), msgspec.json.encode(ticket), expires=ticket.expires)

    def _expiry(self, begin: int) -> int:
        return begin + int(self._section.files_link_lifetime * 1_000_000)

    def _url(self) -> str:
        """Under which stations reach us. Raises Refused when nobody told."""
        url = self._section.files_url or self._hub.http()
        if urlsplit(url).hostname in _ANY_ADDRESS:
            raise Refused(
                "the hub listens on all of its addresses, and does not know which one stations reach: set [os3p] files_url, or give a location"
            )
        return url.rstrip("/")

    async def opened(self, token: str, use: Literal["upload", "download"]) -> File:
        """The file that a link is for. Raises NotFound: word for word the same whether it never was one, or is one no more."""
        found = await self._hub.documents.get(TICKET, _hashed(token)) if len(token) <= 100 else None
        ticket = None if found is None else _tickets.decode(found.body)
        if ticket is not None and ticket.use == use and self._hub.clock.now() < ticket.expires and self._admitted(ticket.station):
            file = await self._get(ticket.file)
            if file is not None:
                return file
        raise NotFound("this link is not, or no longer, good for anything")

    def _admitted(self, identity: str) -> bool:
        try:
            self._hub.registry.admitted(device_id(identity))
        except GridloomError:
            return False
        return True

    # ---------------------------------------------------------------------------------------------------------- bytes come

    async def upload(self, token: str, name: str, content: AsyncIterator[bytes], length: int | None) -> File:
        """What a station uploads by its link: on disk when this returns. ``name`` as the station calls it, or empty; ``length`` if it was announced.

        Raises NotFound (the link), TooLarge, TooSlow, Truncated, Conflict (the link is used again), StorageError (also when too many come at once),
        StorageFull.
        """
        expected = await self.opened(token, "upload")
        coming = _Coming(expected.id, expected.station)
        try:
            blob, size, sha256 = await self._written(coming, content, length)
        except GridloomError as error:
            self._uploads.inc(end=error.code)
            if not coming.replaced:  # else the newer one says what becomes of the file
                await finish(self._failed(expected.id, error.message))
            raise
        self._uploads.inc(end="done")
        return await finish(self._arrived(expected.id, _shown(name), blob, size, sha256))

    async def put_firmware(self, principal: Principal, name: str, content: AsyncIterator[bytes], length: int | None) -> File:
        """Keep a firmware under this name, instead of what had it. Raises as ``upload``; InvalidInput for the name."""
        if not _FIRMWARE_NAME.fullmatch(name) or _OF_AN_UPLOAD.fullmatch(name):
            reason = "expected 1 to 120 of A-Z a-z 0-9 . _ + = -, beginning with a letter or digit (and not 32 hexadecimal digits, an upload's id)"
            raise InvalidInput(f"name of a firmware: {reason}", (FieldFault("$.name", reason),))
        blob, size, sha256 = await self._written(_Coming("", ""), content, length)
        now = self._hub.clock.now()
        file = File(id=name, kind="firmware", name=name, created=now, arrived=now, size=size, sha256=sha256, blob=blob)
        return await finish(self._put_firmware(principal, file))

    async def _put_firmware(self, principal: Principal, file: File) -> File:
        async with self._becoming(file.id, file.blob):
            await self._make_room(file)
            old = await self._get(file.id)
            data = {"size": file.size, "sha256": file.sha256}
            line = audit.entry(self._hub.clock, principal, "file.manage", f"os3p firmware {file.name}", "done", data=data)
            await self._hub.intake.commit([self._put(file), line])
        await self._unlink(old)
        return file

    async def _arrived(self, id: str, name: str, blob: str, size: int, sha256: str) -> File:
        hub = self._hub
        async with self._becoming(id, blob):
            old = await self._get(id)
            if old is None:
                raise NotFound("this upload was removed meanwhile")
            file = msgspec.structs.replace(old, name=name or old.name, arrived=hub.clock.now(), size=size, sha256=sha256, blob=blob, fault="")
            await self._make_room(file)
            data = {"requestId": file.request, "file": file.id, "name": file.name, "size": size, "sha256": sha256}
            event = new_event(
                "device.file.uploaded", device_id(file.station), hub.clock, id=f"os3p.file:{id}:{sha256}", message="The file has arrived at the hub.",
                data=data,
            )  # fmt: skip
            await hub.intake.events([event], [self._put(file)])
        await self._unlink(old)
        return file

    async def _failed(self, id: str, why: str) -> None:
        """So that an operator sees it; what came before stays."""
        async with self._locks.hold((id,)):
            file = await self._get(id)
            if file is None:
                return
            try:
                await self._hub.documents.commit([self._put(msgspec.structs.replace(file, fault=why))])
            except StorageError as error:
                log.warning("why an upload failed could not be kept", extra={"file": id, "why": why, "reason": error.message})

    def _begin(self, coming: _Coming) -> None:
        """Give it a place. Raises StorageError when there is none; an older upload of the same link gives up its own."""
        older = [one for one in self._coming.values() if coming.file and one.file == coming.file and not one.replaced]
        others = [one for one in self._coming.values() if bool(one.file) is bool(coming.file) and not one.replaced and one not in older]
        if len(others) >= (MOST_AT_ONCE if coming.file else MOST_OF_OPERATORS):
            raise StorageError(f"{len(others)} files are coming already: try again in a moment")
        if coming.file and sum(one.station == coming.station for one in others) >= MOST_OF_A_STATION:
            raise StorageError(f"{MOST_OF_A_STATION} files of this station are coming already: try again in a moment")
        for one in older:
            one.replace()
        self._coming[coming.blob] = coming

    async def _written(self, coming: _Coming, content: AsyncIterator[bytes], length: int | None) -> tuple[str, int, str]:
        """A blob on disk, its size and SHA-256; nothing is left of it when this raises."""
        most = self._section.files_max_size
        if length is not None and length > most:
            raise TooLarge(f"a file holds at most {most} bytes, this one would be {length}")
        self._begin(coming)
        blob = coming.blob
        try:
            size, sha256 = await self._write(self._folder / blob, coming.chunks(content, self._hub.clock), most)
        except BaseException as error:
            await finish(asyncio.to_thread((self._folder / blob).unlink, missing_ok=True))
            self._coming.pop(blob, None)
            if isinstance(error, OSError):
                raise _storage_error(error) from error
            raise
        return blob, size, sha256

    async def _write(self, path: Path, content: AsyncIterator[bytes], most: int) -> tuple[int, str]:
        hashed, size, waiting, held = hashlib.sha256(), 0, [], 0
        file = await asyncio.to_thread(_create, path)
        try:
            async for chunk in content:
                size += len(chunk)
                if size > most:
                    raise TooLarge(f"a file holds at most {most} bytes, this one has more")
                waiting.append(chunk)
                held += len(chunk)
                if held >= BLOCK:
                    await asyncio.to_thread(_append, file, hashed, waiting)
                    waiting, held = [], 0
            await asyncio.to_thread(_append, file, hashed, waiting)
            await asyncio.to_thread(_settle, file, path.parent)
        finally:
            file.close()
        return size, hashed.hexdigest()

    @contextlib.asynccontextmanager
    async def _becoming(self, id: str, blob: str) -> AsyncIterator[None]:
        """While inside, and alone, a blob is made that of a file; it is removed when that fails."""
        try:
            async with self._locks.hold((id, _ROOM)):
                yield
        except BaseException:
            await asyncio.to_thread((self._folder / blob).unlink, missing_ok=True)
            raise
        finally:
            self._coming.pop(blob, None)

    async def _make_room(self, new: File) -> None:
        """Remove the oldest uploads until this one fits. Raises StorageFull when even then it does not."""
        room = self._section.files_room - new.size
        others = [file for file in await self.all() if file.blob and file.id != new.id]
        used = sum(file.size for file in others)
        uploads = sorted((file for file in others if file.kind == "upload"), key=lambda file: file.arrived)
        if used - sum(file.size for file in uploads) > room:
            raise StorageFull(f"no room for {new.size} bytes more: [os3p] files_room is {self._section.files_room}")
        for file in uploads:
            if used <= room:
                return
            used -= file.size
            await self._remove(file)
            log.warning("an upload made room for a newer one", extra={"file": file.id, "station": file.station})

    # -------------------------------------------------------------------------------------------------------- for operators

    async def all(self) -> list[File]:
        """Every file, the oldest upload first."""
        return [_files.decode(document.body) for document in await self._hub.documents.find(FILE)]

    async def find(self, id: str) -> File:
        """Raises NotFound."""
        file = await self._get(id)
        if file is None:
            raise NotFound(f"there is no file {id[:120]!r}")
        return file

    async def firmware(self, name: str) -> File:
        """Raises NotFound."""
        file = await self._get(name)
        if file is None or file.kind != "firmware":
            raise NotFound(f"the hub has no firmware {name[:120]!r}: put it there first")
        return file

    async def delete(self, principal: Principal, id: str) -> None:
        """The file is gone, and links to it lead nowhere. Raises NotFound."""
        async with self._locks.hold((id,)):
            file = await self.find(id)
            device = device_id(file.station) if file.station else ""
            target = f"os3p {file.kind} {file.name}"
            line = audit.entry(self._hub.clock, principal, "file.manage", target, "done", device=device, data={"removed": id})
            await self._hub.intake.commit([self._hub.documents.delete(FILE, id), line])
        await self._unlink(file)

    async def open(self, file: File) -> IO[bytes]:
        """To read its bytes, also when it is removed or replaced meanwhile. Raises NotFound when there are none."""
        if not file.blob:
            raise NotFound(f"the file {file.id!r} has not arrived")
        try:
            return await asyncio.to_thread((self._folder / file.blob).open, "rb")
        except OSError as error:
            raise NotFound(f"the file {file.id!r} cannot be read: {error.strerror}") from error

    # ------------------------------------------------------------------------------------------------------------- details

    async def _get(self, id: str) -> File | None:
        found = await self._hub.documents.get(FILE, id)
        return None if found is None else _files.decode(found.body)

    def _put(self, file: File) -> Put:
        return self._hub.documents.put(FILE, file.id, msgspec.json.encode(file), {"station": file.station})

    async def _remove(self, file: File) -> None:
        removal: Delete = self._hub.documents.delete(FILE, file.id)
        await self._hub.documents.commit([removal])
        await self._unlink(file)

    async def _unlink(self, file: File | None) -> None:
        if file is not None and file.blob:
            await asyncio.to_thread((self._folder / file.blob).unlink, missing_ok=True)

    async def _keep_tidy(self) -> None:
        while True:
            try:
                await self.tidy()
            except (GridloomError, OSError) as error:
                log.warning("old files could not be removed", extra={"reason": str(error)})
            await self._hub.clock.sleep(TIDY_EVERY)

    async def tidy(self) -> None:
        """Remove uploads that are older than ``files_kept``."""
        before = self._hub.clock.now() - int(self._section.files_kept * 1_000_000)
        for file in await self.all():
            if file.kind == "upload" and max(file.created, file.arrived) < before:
                async with self._locks.hold((file.id,)):
                    await self._remove(file)

    async def _remove_strays(self) -> None:
        """Blobs that no document names: the hub was killed while they came. Nothing comes yet."""
        known = {file.blob for file in await self.all()}
        for stray in await asyncio.to_thread(_listed, self._folder):
            if stray not in known and stray not in self._coming:
                await asyncio.to_thread((self._folder / stray).unlink, missing_ok=True)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(name: str) -> str:
    """A name that may be shown and offered for saving: nothing of it can leave a folder or a header."""
    return re.sub(r"[^A-Za-z0-9._+=,@-]", "_", name)[-120:].lstrip(".")


def _storage_error(error: OSError) -> StorageError:
    words = f"the file cannot be kept: {error.strerror}"
    return StorageFull(words) if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError(words)


def _listed(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return [one.name for one in folder.iterdir()]


def _create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)


def _append(file: IO[bytes], hashed: Any, chunks: list[bytes]) -> None:
    block = b"".join(chunks)
    hashed.update(block)
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _settle(file: IO[bytes], folder: Path) -> None:
    """On disk, and so is its name."""
    os.fsync(file.fileno())
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
