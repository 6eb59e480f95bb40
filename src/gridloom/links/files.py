"""Files to and from other machines: ftp, sftp, http and https. One file each time; the caller decides when to try again.

What was begun goes on where it ended: an upload by ftp or sftp at the end of what is there, a download at the end of its target where that is safe:
by http if the server says that the file is still the same (If-Range; its validator is kept beside as ``….validator``), by ftp and sftp if the
caller knows a checksum. ``timeout`` is for each step without progress, in real seconds. Whatever goes wrong is a ``TransferFailed`` that names the
scheme and the host: no credentials, and no path, for a path may be a secret, too. Drivers: ftplib in a thread, asyncssh, httpcore; each imported
when it is used first.

ftp sends passwords and files for everybody on the line to read; sftp checks the host's key only with ``Trust.known_hosts``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from gridloom.core.errors import GridloomError

if TYPE_CHECKING:
    import ftplib

log = logging.getLogger(__name__)

SCHEMES = ("ftp", "sftp", "http", "https")
BLOCK = 65_536
LARGEST = 1 << 30
"""Bytes of a download, if the caller says nothing else."""
MOST_REDIRECTS = 5
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class TransferFailed(GridloomError):
    """It did not work; the file may be there in part."""

    code = "transfer-failed"
    status = 502


class NotThere(TransferFailed):
    """The server says that there is no such file."""


class Trust(NamedTuple):
    """Whom we believe, and as whom we come: ``tls`` for https (None: the system's authorities), the other files for sftp."""

    tls: ssl.SSLContext | None = None
    known_hosts: Path | None = None
    client_keys: Path | None = None


ANYBODY = Trust()


def supported(location: str) -> bool:
    """Whether it is a URL of one of SCHEMES with a host."""
    try:
        parts = urlsplit(location)
        return parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def shown(location: str) -> str:
    """Scheme and host: what may be said of a location."""
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    except ValueError:
        return "the location"


async def upload(source: Path, location: str, name: str, *, timeout: float = 60.0, trust: Trust = ANYBODY) -> None:
    """Put the file ``source`` as ``name`` into the folder ``location``. An http location with a query is the target itself, and gets a PUT.

    A path of ftp counts from where the login lands (RFC 1738), one of sftp from the root. Raises TransferFailed, OSError of the file.
    """
    parts = _split(location)
    target = parts if parts.query and parts.scheme.startswith("http") else parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name, safe='')}")
    with source.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if parts.scheme == "ftp":
            await _in_thread(location, timeout, lambda ftp: _ftp_upload(ftp, target, file, size))
        elif parts.scheme == "sftp":
            async with _sftp(location, target, timeout, trust) as sftp:
                await _sftp_upload(sftp, unquote(target.path), file, size, timeout)
        else:
            await _http_upload(location, target, file, size, timeout, trust)


async def download(location: str, target: Path, *, timeout: float = 60.0, most: int = LARGEST, trust: Trust = ANYBODY, checked: bool = False) -> None:
    """Fetch ``location`` into the file ``target``, behind what is there already. At most ``most`` bytes.

    ``checked``: the caller compares a checksum afterwards. Raises NotThere, TransferFailed, OSError of the file.
    """
    parts = _split(location)
    with target.open("ab") as file:
        if not checked and parts.scheme in ("ftp", "sftp"):  # nobody would see that it is the end of another file
            _restart(file)
        if parts.scheme == "ftp":
            await _in_thread(location, timeout, lambda ftp: _ftp_download(ftp, parts, file, most))
        elif parts.scheme == "sftp":
            async with _sftp(location, parts, timeout, trust) as sftp:
                await _sftp_download(sftp, unquote(parts.path), file, most, timeout)
        else:
            validator = target.with_name(target.name + ".validator")
            await _http_download(location, parts, file, validator, most, timeout, trust)
            validator.unlink(missing_ok=True)
        file.flush()
        os.fsync(file.fileno())


def _split(location: str) -> SplitResult:
    if not supported(location):
        raise TransferFailed(f"{shown(location)}: expected a location of {', '.join(SCHEMES)} with a host")
    return urlsplit(location)._replace(fragment="")


def _credentials(parts: SplitResult) -> tuple[str, str]:
    return unquote(parts.username or ""), unquote(parts.password or "")


def _too_big(most: int) -> TransferFailed:
    return TransferFailed(f"the file is larger than {most} bytes")


# -------------------------------------------------------------------------------------------------------------------------- ftp


async def _in_thread(location: str, timeout: float, work: Callable[[ftplib.FTP], None]) -> None:
    import ftplib

    ftp = ftplib.FTP(timeout=timeout)  # noqa: S321  # what the Central System asks for

    def run() -> None:
        parts = urlsplit(location)
        user, password = _credentials(parts)
        ftp.connect(parts.hostname or "", parts.port or 21)
        ftp.login(user, password)
        ftp.voidcmd("TYPE I")
        work(ftp)
        with contextlib.suppress(ftplib.Error, OSError, EOFError):
            ftp.quit()

    try:
        await asyncio.to_thread(run)
    except (ftplib.Error, OSError, EOFError, ValueError) as error:
        kind = NotThere if isinstance(error, ftplib.error_perm) and str(error).startswith("550") else TransferFailed
        raise kind(f"{shown(location)}: {_words(error)}") from None
    finally:
        ftp.close()  # also ends the thread when we are cancelled


def _ftp_path(parts: SplitResult) -> str:
    return unquote(parts.path.removeprefix("/"))


def _ftp_size(ftp: ftplib.FTP, path: str) -> int | None:
    import ftplib

    try:
        return ftp.size(path)
    except ftplib.error_perm:  # there is none, or the server does not tell
        return None


def _ftp_upload(ftp: ftplib.FTP, parts: SplitResult, file: IO[bytes], size: int) -> None:
    path = _ftp_path(parts)
    there = _ftp_size(ftp, path) or 0
    begin = there if there < size else 0
    file.seek(begin)
    ftp.storbinary(f"STOR {path}", file, BLOCK, rest=begin or None)
    arrived = _ftp_size(ftp, path)
    if arrived not in (None, size):
        raise TransferFailed(f"{arrived} bytes of {size} arrived")


def _ftp_download(ftp: ftplib.FTP, parts: SplitResult, file: IO[bytes], most: int) -> None:
    path = _ftp_path(parts)
    size = _ftp_size(ftp, path)
    _fit(file, size, most)
    if size == file.tell() != 0:
        return

    def take(block: bytes) -> None:
        if file.tell() + len(block) > most:
            raise _too_big(most)
        file.write(block)

    ftp.retrbinary(f"RETR {path}", take, BLOCK, rest=file.tell() or None)
    if size not in (None, file.tell()):
        raise TransferFailed(f"{file.tell()} bytes of {size} came")


def _fit(file: IO[bytes], size: int | None, most: int) -> None:
    """What is there of a download, unless it cannot be a part of it."""
    if size is not None and size > most:
        raise _too_big(most)
    file.seek(0, os.SEEK_END)
    if size is None or file.tell() > size:
        _restart(file)


def _restart(file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()


# ------------------------------------------------------------------------------------------------------------------------- sftp


@contextlib.asynccontextmanager
async def _sftp(location: str, parts: SplitResult, timeout: float, trust: Trust) -> AsyncIterator[Any]:
    import asyncssh

    if trust.known_hosts is None:
        log.warning("the key of an sftp host is not checked", extra={"host": parts.hostname})
    user, password = _credentials(parts)
    try:
        async with (
            asyncssh.connect(
                parts.hostname or "",
                parts.port or 22,
                username=user or "anonymous",
                password=password or None,
                known_hosts=None if trust.known_hosts is None else str(trust.known_hosts),
                client_keys=None if trust.client_keys is None else [str(trust.client_keys)],
                config=None,
                agent_path=None,
                connect_timeout=timeout,
                login_timeout=timeout,
                keepalive_interval=timeout / 2,
                keepalive_count_max=1,
            ) as connection,
            connection.start_sftp_client() as sftp,
        ):
            yield sftp
    except (asyncssh.Error, TimeoutError, OSError, ValueError) as error:
        kind = NotThere if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath) else TransferFailed
        raise kind(f"{shown(location)}: {_words(error)}") from None


async def _sftp_size(sftp: Any, path: str) -> int | None:
    import asyncssh

    try:
        return (await sftp.stat(path)).size  # type: ignore[no-any-return]
    except asyncssh.SFTPError:
        return None


async def _sftp_upload(sftp: Any, path: str, file: IO[bytes], size: int, timeout: float) -> None:
    there = await _sftp_size(sftp, path) or 0
    begin = there if there < size else 0
    file.seek(begin)
    async with sftp.open(path, "r+b" if begin else "wb") as remote:
        while block := file.read(BLOCK):
            await asyncio.wait_for(remote.write(block, file.tell() - len(block)), timeout)
    arrived = await _sftp_size(sftp, path)
    if arrived not in (None, size):
        raise TransferFailed(f"{arrived} bytes of {size} arrived")


async def _sftp_download(sftp: Any, path: str, file: IO[bytes], most: int, timeout: float) -> None:
    size = await _sftp_size(sftp, path)
    _fit(file, size, most)
    async with sftp.open(path, "rb") as remote:
        while block := await asyncio.wait_for(remote.read(BLOCK, file.tell()), timeout):
            if file.tell() + len(block) > most:
                raise _too_big(most)
            file.write(block)
    if size not in (None, file.tell()):
        raise TransferFailed(f"{file.tell()} bytes of {size} came")


# ------------------------------------------------------------------------------------------------------------------------- http


async def _http_upload(location: str, target: SplitResult, file: IO[bytes], size: int, timeout: float, trust: Trust) -> None:
    async def blocks() -> AsyncIterator[bytes]:
        while block := file.read(BLOCK):
            yield block

    headers = {"content-length": str(size), "content-type": "application/octet-stream"}
    async with _http(location, "PUT", target, headers, blocks(), timeout, trust) as response:
        await response.aread()
        if response.status // 100 != 2:
            raise TransferFailed(f"{shown(location)}: the server answers {response.status}")


async def _http_download(location: str, parts: SplitResult, file: IO[bytes], beside: Path, most: int, timeout: float, trust: Trust) -> None:
    known = _known(file, beside)
    for _ in range(MOST_REDIRECTS):
        begin = file.seek(0, os.SEEK_END)
        headers = {"accept-encoding": "identity", **({"range": f"bytes={begin}-", "if-range": known} if begin else {})}
        async with _http(location, "GET", parts, headers, None, timeout, trust) as response:
            fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in (301, 302, 303, 307, 308) and "location" in fields:
                parts = _redirected(parts, fields["location"])
                continue
            if response.status == 416 and fields.get("content-range", "") == f"bytes */{begin}":
                return  # it is complete already
            if response.status in (404, 410):
                raise NotThere(f"{shown(location)}: the server answers {response.status}")
            same = not known.startswith('"') or fields.get("etag", known) == known
            came = _RANGE.fullmatch(fields.get("content-range", "")) if response.status == 206 and same else None
            if response.status not in (200, 206) or (response.status == 206 and (came is None or int(came[1]) != begin)):
                if begin and response.status in (206, 416):  # another file by now
                    _restart(file)
                raise TransferFailed(f"{shown(location)}: the server answers {response.status}")
            if response.status == 200:
                _begin_anew(file, beside, fields)
            async for block in response.aiter_stream():
                if file.tell() + len(block) > most:
                    raise _too_big(most)
                file.write(block)
            return
    raise TransferFailed(f"{shown(location)}: more than {MOST_REDIRECTS} redirections")


def _known(file: IO[bytes], beside: Path) -> str:
    """The validator of what is there of the file; without one that is nothing."""
    known = beside.read_text("latin-1") if beside.exists() else ""
    if not known:
        _restart(file)
    return known


def _begin_anew(file: IO[bytes], beside: Path, fields: dict[str, str]) -> None:
    """Keep what If-Range may say of this answer (RFC 9110, 13.1.5): a strong ETag, or the date of the last change; or nothing."""
    _restart(file)
    os.fsync(file.fileno())  # a power loss must not leave the old bytes with the new validator
    tag = fields.get("etag", "")
    known = tag if tag.startswith('"') else fields.get("last-modified", "")
    beside.write_text(known if known.isascii() else "", "latin-1")


def _redirected(parts: SplitResult, to: str) -> SplitResult:
    new = urlsplit(urljoin(parts.geturl(), to))
    if new.scheme not in ("http", "https") or (parts.scheme == "https" and new.scheme == "http"):
        raise TransferFailed(f"{shown(parts.geturl())}: redirects to {new.scheme}")
    if new.hostname == parts.hostname and new.username is None and parts.username is not None:
        new = new._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{new.netloc}")
    return new


@contextlib.asynccontextmanager
async def _http(
    location: str, method: str, target: SplitResult, headers: dict[str, str], content: AsyncIterator[bytes] | None, timeout: float, trust: Trust
) -> AsyncIterator[Any]:
    import httpcore

    user, password = _credentials(target)
    if target.username is not None:
        headers = {**headers, "authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    url = target._replace(netloc=target.netloc.rpartition("@")[2]).geturl()
    limits = dict.fromkeys(("connect", "read", "write", "pool"), timeout)
    context = trust.tls or ssl.create_default_context()
    try:
        async with (
            httpcore.AsyncConnectionPool(ssl_context=context) as pool,
            pool.stream(method, url.encode("ascii"), headers=list(headers.items()), content=content, extensions={"timeout": limits}) as response,
        ):
            yield response
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
        raise TransferFailed(f"{shown(location)}: {_words(error)}") from None


def _words(error: BaseException) -> str:
    """What went wrong. Servers repeat what they were sent, so only the number of an ftp answer is told."""
    text = str(error) or type(error).__name__
    if isinstance(error, TransferFailed):
        return error.message
    return f"the server answers {text[:3]}" if re.match(r"[345][0-9][0-9][ -]", text) else text[:200]
