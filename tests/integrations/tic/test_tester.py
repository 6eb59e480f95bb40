"""The test page at /tic/tester: served with a policy that lets exactly its own script run, told where the API listens, used by a real browser."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import until
from tests.integrations.tic.api_world import METER, POWER
from tests.web.running import Running
from websockets.asyncio.client import ClientConnection, connect

from gridloom.core.model import Device, DeviceKind, MeterReading, Reading
from gridloom.core.settings import Address, SecretFile
from gridloom.integrations.tic.api import Entrance, Tic2WebSocket, page, routers, websocket_url
from gridloom.integrations.tic.config import Section
from gridloom.integrations.tic.labels import Mode
from gridloom.integrations.tic.messages import TicFrame, TicGroup

FREE = Address("127.0.0.1:0")


class Served:
    """A hub with the API and its page."""

    def __init__(self, running: Running, service: Tic2WebSocket) -> None:
        self.running = running
        self.service = service
        self.where = ""

    async def feed(self, urms: str) -> None:
        """A frame of a meter."""
        hub = self.running.hub
        groups = (TicGroup("ADSC", METER), TicGroup("DATE", "", "E170915101601"), TicGroup("URMS1", urms))
        now = hub.clock.now()
        frame = TicFrame(Mode.STANDARD, groups, METER, "/dev/ttyUSB0", "1-1", None, now)
        await hub.intake.readings([MeterReading(f"tic:{METER}", now, now, (Reading(POWER, 230),), native=frame)])


@contextlib.asynccontextmanager
async def served(path: Path, section: Section) -> AsyncIterator[Served]:
    running = Running(path)
    made: list[Any] = []

    class Late:
        """The routers need the hub, which needs the routers: they meet at the first request."""

        def __getattr__(self, name: str) -> Any:
            return getattr(running.hub, name)

    running.routers = routers(section, Late())  # type: ignore[arg-type]
    await running.start()
    try:
        await running.hub.registry.register(Device(id=f"tic:{METER}", integration="tic", identity=METER, kind=DeviceKind.METER))
        service = Tic2WebSocket(section, running.hub)
        made.append(service)
        found = Served(running, service)
        found.where = (await service.start())["tic"]
        yield found
    finally:
        for one in made:
            await one.stop()
        await running.stop()


async def test_the_page_may_run_its_own_script_and_reach_the_api_and_nothing_else(tmp_path: Path) -> None:
    async with served(tmp_path, Section(listen=FREE)) as found, found.running.client() as client:
        answer = await client.get("/tic/tester")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
        assert policy["connect-src"] == f"'self' ws://{found.where}"
        for element in ("script", "style"):
            texts = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", answer.text, re.DOTALL)
            hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]
            assert hashes
            assert policy[f"{element}-src"].split() == hashes
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", answer.text), "nothing is loaded from elsewhere"
        assert " onclick" not in answer.text
        assert " style=" not in answer.text, "the policy would not let it work"


async def test_the_page_is_told_where_the_api_listens(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret")
    async with served(tmp_path, Section(listen=FREE, dialect="v2", token_file=SecretFile(str(file)))) as found, found.running.client() as client:
        expected = {"url": f"ws://{found.where}/", "dialect": "v2", "dialects": ["document", "v1", "v2"], "token": True}
        assert (await client.get("/tic/tester.json")).json() == expected
        await found.service.stop()
        for leave in found.service._leave:
            leave()
        answer = (await client.get("/tic/tester.json")).json()
        assert answer == {**expected, "url": "ws://127.0.0.1:0/"}, "what the configuration says, while it is down"
        assert "secret" not in str(answer)


@pytest.mark.parametrize(
    ("address", "host", "url"),
    [
        ("127.0.0.1:19584", "localhost:8470", "ws://127.0.0.1:19584/"),
        ("[::1]:19584", "localhost:8470", "ws://[::1]:19584/"),
        ("0.0.0.0:19584", "hub.example:8470", "ws://hub.example:19584/"),
        ("0.0.0.0:19584", "192.168.1.5", "ws://192.168.1.5:19584/"),
        ("[::]:19584", "[fe80::1]:8470", "ws://[fe80::1]:19584/"),
        ("0.0.0.0:19584", "", "ws://localhost:19584/"),
        ("0.0.0.0:19584", "x; script-src *", "ws://x:19584/"),
        ("0.0.0.0:19584", "' *", "ws://localhost:19584/"),
    ],
)
def test_the_address_is_one_that_the_browser_can_reach_and_cannot_be_abused(address: str, host: str, url: str) -> None:
    assert websocket_url(Entrance(address, "document", False), host) == url


def test_the_page_is_read_once() -> None:
    assert page() is page()


class Browser:
    """A tab of Debian's chromium, driven by its own protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._session = ""
        self.console: list[str] = []

    async def call(self, method: str, **parameters: Any) -> Any:
        """Call, and wait for the result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        await self._connection.send(json.dumps({"id": number, "method": method, "params": parameters, **session}))
        while True:
            message = json.loads(await asyncio.wait_for(self._connection.recv(), 20))
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.console.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def open(self, url: str) -> None:
        """A new tab."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        self._session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        for domain in ("Log", "Runtime", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def text(self, expression: str = "document.body.innerText") -> str:
        """What a person sees, or another expression's value."""
        result = (await self.call("Runtime.evaluate", expression=expression))["result"]
        return str(result.get("value", ""))

    async def sees(self, words: str, seconds: float = 10) -> None:
        """Wait until the words are on the page."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        text = ""
        while loop.time() < end:
            text = await self.text()
            if words in text:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{words!r} is not on the page:\n{text}\n{self.console}")


@contextlib.asynccontextmanager
async def browser(path: Path) -> AsyncIterator[Browser]:
    """Starts it, and ends it."""
    switches = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking", "--disable-sync",
                "--disable-component-update", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={path / 'browser'}"]  # fmt: skip
    process = await asyncio.create_subprocess_exec("/usr/bin/chromium", *switches, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        while b"DevTools listening on " not in (line := await asyncio.wait_for(process.stderr.readline(), 30)):
            assert line, "chromium ended"
        async with connect(line.decode().partition("listening on ")[2].strip(), max_size=None) as connection:
            yield Browser(connection)
    finally:
        process.terminate()
        while await process.stderr.read(65_536):
            pass
        await process.wait()


async def test_a_browser_opens_the_page_subscribes_and_sees_frames(tmp_path: Path) -> None:
    """Policy, origin check, address, dialect and the page's own script, together, as somebody with a browser has them."""
    async with served(tmp_path, Section(listen=FREE)) as found, browser(tmp_path) as tab:
        await found.feed("229")
        await tab.open(f"{found.running.url}/tic/tester")
        await tab.sees(f"Connected to ws://{found.where}")
        await tab.sees(METER)
        await until(lambda: found.service._clients)
        await tab.text("""document.querySelector('[data-ask="SubscribeTIC"]').click()""")
        await until(lambda: any(client.everything for client in found.service._clients.values()))
        await found.feed("231")
        await tab.sees("URMS1")
        await tab.sees("231")
        assert [line for line in tab.console if "Content Security Policy" in line or "exceptionThrown" in line] == []


async def test_a_page_of_another_origin_does_not_get_in(tmp_path: Path) -> None:
    """The same browser, the same machine, another origin: what a web page of somebody else could do."""
    async with served(tmp_path, Section(listen=FREE)) as found, browser(tmp_path) as tab:

        async def page_of_somebody(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            body = b"<!doctype html><title>evil</title><body>begin"
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
            writer.close()

        other = await asyncio.start_server(page_of_somebody, "127.0.0.1", 0)
        await tab.open(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/")
        await tab.sees("begin")
        await tab.text(
            f"const s = new WebSocket('ws://{found.where}/');"
            "s.onopen = () => document.body.textContent = 'let in'; s.onclose = () => document.body.textContent = 'kept out'; 1"
        )
        await tab.sees("kept out")
        assert found.running.hub.metrics.counter("gridloom_tic_clients_refused_total", "", ("reason",)).value(reason="origin") == 1
        other.close()
        await other.wait_closed()
