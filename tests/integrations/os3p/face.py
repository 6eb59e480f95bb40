"""A Central System with the hub's HTTP before it, as ``app`` puts both together; and a raw HTTP client that can do everything wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from tests.core.world import World
from tests.integrations.os3p.central import Central, hub_of, section

from gridloom.core.clock import Clock
from gridloom.core.model import Role
from gridloom.integrations import os3p
from gridloom.integrations.os3p.config import Section
from gridloom.integrations.os3p.files import Files
from gridloom.integrations.os3p.server import CentralSystem
from gridloom.web.server import HttpServer, create
from gridloom.web.settings import WebSettings


class Face(Central):
    """Also listens for operators, at ``url``."""

    def __init__(self, world: World, settings: Section, path: Path) -> None:
        super().__init__(world, settings, path)
        self.url = ""
        self.hub = msgspec.structs.replace(hub_of(world, path), http=lambda: self.url)
        self.parts = os3p.build(settings, self.hub)
        self.files, self.service = self._services()

    def _services(self) -> tuple[Files, CentralSystem]:
        files, service = self.parts.services
        assert isinstance(files, Files)
        assert isinstance(service, CentralSystem)
        return files, service

    async def open(self) -> Face:
        """Both listen."""
        await self.files.start()
        await self.start()
        settings = WebSettings(loopback=True, local_viewer=False, access_log=True)
        app = create(self.hub, self.parts.routers, list, settings, self.parts.operations)
        self.server = HttpServer(app, "127.0.0.1", 0)
        self.url = f"http://{await self.server.start()}"
        return self

    async def close(self) -> None:
        """Nothing listens."""
        await self.server.stop()
        await self.service.stop()
        await self.files.stop()

    async def token(self, role: Role) -> str:
        """Of an account that has the role in the whole hub."""
        return (await self.world.accounts.create_token(None, account=f"{role.value}@example.org", role=role))[1]

    def client(self, token: str | None) -> httpx.AsyncClient:
        """Over a real socket."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20, verify=False)  # no TLS here

    async def admin(self) -> httpx.AsyncClient:
        """An operator who may everything."""
        return self.client(await self.token(Role.ADMIN))

    def blobs(self) -> list[Path]:
        """What is on disk."""
        folder = self.hub.data_dir / "os3p" / "files"
        return sorted(folder.iterdir()) if folder.exists() else []


@contextlib.asynccontextmanager
async def face(path: Path, clock: Clock | None = None, **more: Any) -> AsyncIterator[Face]:
    """Started, and stopped in the end."""
    world = await World(path, clock or Clock()).open()
    try:
        made = await Face(world, section(**more), path).open()
        await world.commands.recover()
        try:
            yield made
        finally:
            await world.registry.close()
            await made.close()
    finally:
        await world.close()


async def raw(
    url: str, method: str = "PUT", body: Sequence[bytes] = (), headers: Sequence[tuple[str, str]] = (), *, cut: bool = False
) -> tuple[int, Any]:
    """One request, byte by byte as given; with ``cut`` the line ends after the body, whatever was announced. Status (0: no answer) and JSON."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [f"{method} {parts.path} HTTP/1.1", "host: hub", *(f"{name}: {value}" for name, value in headers)]
    if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
        lines.append(f"content-length: {sum(map(len, body))}")
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    try:
        for piece in body:
            writer.write(piece)
            await writer.drain()
        if cut:
            writer.close()
            return 0, None
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0, None
    length = next((int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
    content = await reader.readexactly(length)
    writer.close()
    return int(head.split()[1]), json.loads(content) if content else None
