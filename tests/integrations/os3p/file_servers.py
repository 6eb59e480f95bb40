"""Servers for files: http of our own hand, ftp by pyftpdlib, sftp by asyncssh. Each serves a folder, for reading and writing."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncssh

USER, PASSWORD = "rtu", "s3cret"


class Http:
    """What a test may change: ``cut_after`` bytes of an answer's body; ``credentials`` that it wants; ``ranges``: whether it knows them;
    ``validator``: the header that says which file it is, or empty; ``status``: what it answers to paths that end so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut_after: int | None = None
        self.credentials = ""
        self.ranges = True
        self.validator = "ETag"
        self.if_range = True
        self.status: dict[str, int] = {}
        self.redirect = ""
        self.stall = False
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
            self.requests.append((method, target, headers))
            if self.stall:
                await reader.read()
                return
            status, more, body = await self._answer(method, target, headers, reader)
            cut = body if self.cut_after is None else body[: self.cut_after]
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *more]
            writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + cut)
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, target: str, headers: dict[str, str], reader: asyncio.StreamReader) -> tuple[int, list[str], bytes]:
        wanted = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        if self.credentials and headers.get("authorization") != wanted:
            return 401, [], b""
        if self.redirect:
            to, self.redirect = self.redirect, ""
            return 302, [f"Location: {to}"], b""
        path = self.folder / unquote(target.partition("?")[0]).lstrip("/")
        if method in ("PUT", "POST"):
            path.write_bytes(await reader.readexactly(int(headers["content-length"])))
            return 201, [], b""
        for ending, status in self.status.items():
            if target.endswith(ending):
                return status, [], b"not now"
        if not path.is_file():
            return 404, [], b"not here"
        content = path.read_bytes()
        value = f'"{hashlib.sha256(content).hexdigest()[:8]}"' if self.validator == "ETag" else formatdate(path.stat().st_mtime, usegmt=True)
        says = [f"{self.validator}: {value}"] if self.validator else []
        if self.ranges and "range" in headers and (not self.if_range or (headers.get("if-range") or value) == value):
            begin = int(headers["range"].removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                return 416, [f"Content-Range: bytes */{len(content)}"], b""
            return 206, [f"Content-Range: bytes {begin}-{len(content) - 1}/{len(content)}", *says], content[begin:]
        return 200, says, content


@contextlib.asynccontextmanager
async def http(folder: Path) -> AsyncIterator[tuple[str, Http]]:
    """URL and server."""
    served = Http(folder)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await served.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", served
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def http_server(folder: Path) -> AsyncIterator[str]:
    """The URL of a server that does what it should."""
    async with http(folder) as (url, _):
        yield url


@contextlib.contextmanager
def ftp(folder: Path) -> Iterator[str]:
    """The URL of an ftp server, with credentials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it stands on asyncore
        from pyftpdlib.authorizers import DummyAuthorizer  # type: ignore[import-untyped]
        from pyftpdlib.handlers import FTPHandler  # type: ignore[import-untyped]
        from pyftpdlib.servers import FTPServer  # type: ignore[import-untyped]

    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, str(folder), perm="elradfmw")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer})
    server = FTPServer(("127.0.0.1", 0), handler)
    server._log_start = lambda *_, **__: None  # it says so again at each turn of the loop
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            server.serve_forever(timeout=0.02, blocking=False)
        server.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"ftp://{USER}:{PASSWORD}@127.0.0.1:{server.address[1]}"
    finally:
        over.set()
        thread.join()


@contextlib.asynccontextmanager
async def sftp(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """The URL of an sftp server whose root is the folder, with credentials; and a known_hosts file with its key."""

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return True

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    key = asyncssh.generate_private_key("ssh-ed25519")

    def factory(channel: Any) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=bytes(folder))

    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], sftp_factory=factory)
    port = server.get_port()
    known = folder.parent / f"known-{port}"
    known.write_text(f"[127.0.0.1]:{port} {key.export_public_key().decode()}")
    try:
        yield f"sftp://{USER}:{PASSWORD}@127.0.0.1:{port}", known
    finally:
        server.close()
        await server.wait_closed()
