"""The client's side of the integration over a real core: HTTP port, push port, accounts with keys, and meters that tests carry orders out for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from tests.core.world import World

from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.hub import Hub
from gridloom.core.model import Command, Device, DeviceKind, Principal, Role
from gridloom.core.settings import Address
from gridloom.integrations.ekm import face
from gridloom.integrations.ekm.config import Section
from gridloom.integrations.ekm.face import Face
from gridloom.integrations.ekm.mapping import IOSTACK_VERBS, gateway_device, meter_device
from gridloom.integrations.ekm.models import MODELS
from gridloom.links.websocket import WebSocketServer
from gridloom.web.server import HttpServer, create
from gridloom.web.settings import WebSettings

METER, OTHERS_METER, OLD_METER, IOSTACK = "000350000900", "000300000234", "000000012345", "000055000001"
MAC = "995DAD427614"
RELAY = {"relay": "Relay_1", "status": "close", "duration": 1, "meter_password": "00000000"}


def section(**more: Any) -> Section:
    """``[ekm]`` on a free port, without a bus."""
    return Section(push_listen=Address("127.0.0.1:0"), **more)


class Front:
    """A hub that clients and gateways speak with. ``carry_out`` is the executor of all its meters."""

    def __init__(self, path: Path, settings: Section, certificate: tuple[str, str] | None = None) -> None:
        self.path = path
        self.settings = settings
        self.certificate = certificate
        self.done: list[Command] = []
        self.carry_out: Callable[[Command], Awaitable[Any]] = self._do
        self.keys: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.url = ""

    async def _do(self, command: Command) -> Any:
        self.done.append(command)

    async def open(self, world: World | None = None) -> Front:
        self.world = world or await World(self.path, Clock()).open()
        w = self.world
        self.hub = Hub(
            clock=w.clock, bus=w.bus, intake=w.intake, commands=w.commands, registry=w.registry, transactions=w.transactions, alarms=w.alarms,
            accounts=w.accounts, outbox=w.outbox, documents=Space(w.store, "ekm"), query=w.query, metrics=w.metrics, http=lambda: self.url,
            data_dir=self.path, timezone="Europe/Paris", certificate=self.certificate,
        )  # fmt: skip
        parts = face.build(self.settings, self.hub)
        (service,) = parts.services
        assert isinstance(service, Face)
        self.face = service
        self.push = (await service.start())["push"]
        await w.commands.recover()
        self.server = HttpServer(
            create(self.hub, parts.routers, list, WebSettings(loopback=True, local_viewer=False), parts.operations), "127.0.0.1", 0
        )
        self.url = f"http://{await self.server.start()}"
        return self

    async def close(self) -> None:
        await self.server.stop()
        await self.world.registry.close()
        await self.face.stop()
        await self.world.close()

    @property
    def sockets(self) -> WebSocketServer:
        """The push port's listener."""
        assert self.face.push is not None
        assert self.face.push._server is not None
        return self.face.push._server

    async def account(self, name: str, role: Role, *devices: str, **key: Any) -> Principal:
        """An account with a token (``tokens[name]``) and a key (``keys[name]``); it owns ``devices``."""
        accounts = self.world.accounts
        scope = "*" if role in (Role.ADMIN, Role.OPERATOR, Role.VIEWER) else None
        made = await accounts.create_account(None, f"{name}@example.org", role=role, scope=scope)
        for device in devices:
            await accounts.grant(None, made.id, f"device:ekm:{device}", role)
        self.tokens[name] = (await accounts.create_token(None, account=made.id, role=role))[1]
        self.keys[name] = (await self.face.keys.create(self.world.admin, made.id, **key))[1]
        return accounts.principal(made.id)

    async def device(self, device: Device, *, online: bool = True) -> None:
        """It is there, and its orders go to ``carry_out``."""

        async def execute(command: Command) -> Any:
            return await self.carry_out(command)

        await self.world.registry.register(device)
        link = self.world.registry.attach(device.id, execute)
        if online:
            link.online()

    async def populate(self) -> Front:
        """Anna owns two meters, an ioStack and the gateway; Bert another meter; there are an operator and a viewer."""
        for address, model in ((METER, "v4"), (OLD_METER, "v3"), (OTHERS_METER, "v4")):
            await self.device(meter_device(address, MODELS[model], "bus", "Europe/Paris"))
        await self.device(Device(f"ekm:{IOSTACK}", "ekm", IOSTACK, DeviceKind.IO, model="ioStack", verbs=IOSTACK_VERBS))
        gateway = gateway_device(MAC)
        await self.device(gateway)
        await self.account("anna", Role.OWNER, METER, OLD_METER, IOSTACK, gateway.identity)
        await self.account("bert", Role.OWNER, OTHERS_METER)
        await self.account("group", Role.OPERATOR)
        await self.account("viewer", Role.VIEWER)
        return self

    async def post(
        self, body: Any, *, token: str | None = "anna", key: str | None = "anna", content: bytes | None = None, **query: str
    ) -> tuple[int, dict[str, Any]]:
        """``POST /sendCommand`` as one of the accounts: status and answer."""
        headers = {} if token is None else {"authorization": f"Bearer {self.tokens.get(token, token)}"}
        params = query if key is None else {"key": self.keys.get(key, key), **query}
        async with httpx.AsyncClient(base_url=self.url, timeout=20, trust_env=False) as client:
            raw = json.dumps(body).encode() if content is None else content
            answer = await client.post("/sendCommand", params=params, content=raw, headers={**headers, "content-type": "application/json"})
        return answer.status_code, answer.json()

    async def order(self, command: str, params: dict[str, Any] | None = None, *, target: str = "meter", id: str = METER, **more: Any) -> Any:
        """Send a command; status and answer."""
        body = {"command": command, "target": target, "target_id": id, "client": "tests"}
        return await self.post(body if params is None else {**body, "params": params}, **more)

    async def response(self, accepted: dict[str, Any]) -> dict[str, Any]:
        """The message of a command, from the stream's replay or later."""
        async with asyncio.timeout(10), subscribed(self.push, f"/sub/{accepted['response_channel_id']}.b20") as stream:
            async for message in stream:
                if message["msg_id"] == accepted["msg_id"]:
                    return message
        raise AssertionError("the stream ended")


@contextlib.asynccontextmanager
async def subscribed(where: str, path: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """A stream, and the JSON values that come on it, without anything between them."""
    async with httpx.AsyncClient(base_url=f"http://{where}", timeout=20, trust_env=False) as client, client.stream("GET", path) as response:
        assert response.status_code == 200, response.status_code

        async def messages() -> AsyncIterator[dict[str, Any]]:
            decoder, text = json.JSONDecoder(), ""
            async for piece in response.aiter_text():
                text = (text + piece).lstrip()
                while text:
                    try:
                        value, end = decoder.raw_decode(text)
                    except ValueError:
                        break
                    text = text[end:].lstrip()
                    yield value

        yield messages()


@contextlib.asynccontextmanager
async def front(path: Path, **settings: Any) -> AsyncIterator[Front]:
    """Open and populated."""
    made = await Front(path, section(**settings)).open()
    try:
        yield await made.populate()
    finally:
        await made.close()
