"""A command's way through the hub while its bus is idle, on loopback: out to the wire, and back to the subscriber.

Three processes: the whole hub as ``gridloom serve`` runs it, a simulated v4 on a pty, and a client with one kept-alive HTTP connection and one
WebSocket at ``/ws/CHANNEL``. One order at a time (``SetRelay``: not idempotent), sent when the poll that follows each order is over and nothing is
due for an hour. All three read the same monotonic clock. Printed as JSON, in milliseconds, p50, p99 and most:

- ``out``: from before the POST is written to the first byte of the conversation at the pty's other end.
- ``back``: from before the meter's end writes the acknowledgement of the setting to the message at the subscriber's socket.
- ``floor``: what no hub on this disk can avoid: one append of 8 KB and its fsync (as SQLite's WAL), alternating with the orders, and one message
  there and back between two sockets. Each way has one durable commit: the order with its audit line before the first byte, its end before the answer.

The line is faster than a real one (115,200 baud), so that there are many orders in a short time; no byte of it is in the figures.

    python bench/ekm_path.py [--orders 300] [--data /dev/shm]

``--data``: where the store and the floor's file are; in memory the figures are what the hub itself takes, without any disk.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METER, BAUD = "000300000234", 115_200
PAUSE = 0.2
"""Seconds of a silent line after which it is idle: longer than the pauses within a conversation and before the poll behind it."""
PAGE = 8192
TARGETS = {"out_ms_p99": 5.0, "back_ms_p99": 5.0}
BODY = {
    "command": "SetRelay",
    "target": "meter",
    "target_id": METER,
    "params": {"relay": "Relay_1", "status": "close", "duration": 1, "meter_password": "00000000"},
}


async def line(link: str) -> None:
    """The meter's end, until its standard input ends; for each line of input: when a conversation began, its last acknowledgement, its last byte."""
    from gridloom.core.clock import Clock
    from gridloom.integrations.ekm.codec import ACK
    from gridloom.integrations.ekm.simulator import Line, Simulator, meter
    from gridloom.links.pty import Pty

    class Watched(Pty):
        """Notes when bytes pass."""

        first = last = acknowledged = 0.0

        def receive(self) -> bytes:
            data = super().receive()
            if data:
                now = time.monotonic()
                self.first = self.first or now
                self.last = now
            return data

        def write(self, data: bytes) -> int:
            self.last = time.monotonic()
            if data == bytes((ACK,)):
                self.acknowledged = self.last
            return super().write(data)

    simulator = Simulator(Path(link), Line([meter(f"{METER}:v4", Clock())]), baud=BAUD)
    watched = simulator.pty = Watched(Path(link))
    await simulator.start()
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while asked := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps({"first": watched.first, "acknowledged": watched.acknowledged, "last": watched.last}), flush=True)
        if asked.strip() == "anew":
            watched.first = 0.0
    await simulator.stop()


async def hub(link: str, folder: str) -> None:
    """The whole hub, with an account that may everything; says where it is and what opens it."""
    from gridloom.app import App, load_configuration
    from gridloom.core.model import Role

    Path(folder, "gridloom.toml").write_text(
        f'[hub]\ndata_dir = "{folder}/data"\n[http]\nlisten = "127.0.0.1:0"\n[ekm]\npush_listen = "127.0.0.1:0"\n'
        f'[[ekm.bus]]\nport = "{link}"\nmeters = ["{METER}:v4"]\npoll_seconds = 3600\nbaud = {BAUD}\n'
    )
    app = App(load_configuration(Path(folder, "gridloom.toml"), {}), environ={})
    await app.start()
    accounts = app.accounts
    owner = await accounts.create_account(None, "bench@example.org", role=Role.ADMIN, scope="*")
    token = (await accounts.create_token(None, account=owner.id, role=Role.ADMIN))[1]
    gc.collect()
    gc.freeze()
    print(json.dumps({**app.endpoints, "token": token, "account": owner.id}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await app.stop()


class Child:
    """A process of this file."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, what: str = "") -> dict[str, Any]:
        """One line there, one back."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self._line()

    def end(self) -> None:
        """Let it end by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


class Client:
    """One HTTP connection, and one subscriber."""

    def __init__(self, told: dict[str, str]) -> None:
        host, _, port = told["http"].rpartition("//")[2].rpartition(":")
        self._http = socket.create_connection((host, int(port)))
        self._http.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._token = told["token"]
        key = self._post(self._request("/api/v1/ekm/keys", {"account": told["account"]}))["key"]
        self._order = self._request(f"/sendCommand?key={key}", BODY)
        self._push: socket.socket | None = None
        self._where = told["push"]

    def _request(self, path: str, content: dict[str, Any]) -> bytes:
        body = json.dumps(content).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def order(self) -> tuple[float, dict[str, Any]]:
        """When it was sent, and the answer."""
        began = time.monotonic()
        return began, self._post(self._order)

    def _post(self, request: bytes) -> dict[str, Any]:
        self._http.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._http.recv(65_536)
        head, _, rest = got.partition(b"\r\n\r\n")
        length = next(int(row.split(b":")[1]) for row in head.lower().split(b"\r\n") if row.startswith(b"content-length"))
        while len(rest) < length:
            rest += self._http.recv(65_536)
        assert b" 20" in head.split(b"\r\n")[0], got
        found: dict[str, Any] = json.loads(rest)
        return found

    def subscribe(self, channel: str) -> None:
        """At ``/ws/CHANNEL``."""
        host, _, port = self._where.rpartition(":")
        self._push = socket.create_connection((host, int(port)))
        self._push.sendall(
            f"GET /ws/{channel} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += self._push.recv(1)

    def hear(self) -> tuple[float, bytes]:
        """When the next message came, and its frame."""
        assert self._push is not None
        data = self._push.recv(65_536)
        return time.monotonic(), data


def synced(file: int) -> float:
    """Seconds of one append and its fsync."""
    begin = time.monotonic()
    os.write(file, b"x" * PAGE)
    os.fdatasync(file)
    return time.monotonic() - begin


def hops(count: int) -> list[float]:
    """Seconds of a message there and back to another process, between bare sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = os.fork()
        if child == 0:
            with socket.create_connection(server.getsockname()) as echo:
                while data := echo.recv(4096):
                    echo.sendall(data)
            os._exit(0)
        line, _ = server.accept()
        found = []
        with line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                begin = time.monotonic()
                line.sendall(b"x" * 400)
                line.recv(4096)
                found.append(time.monotonic() - begin)
                time.sleep(0.002)
        os.waitpid(child, 0)
        return found


def figures(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(seconds)
    count = len(ordered)
    places = {"p50": count // 2, "p99": min(count - 1, -(-count * 99 // 100) - 1), "most": count - 1}
    return {name: round(ordered[place] * 1000, 2) for name, place in places.items()}


def idle(meter: Child) -> None:
    """Wait until nothing has been on the line for a while."""
    while time.monotonic() - meter.ask()["last"] < PAUSE:
        time.sleep(0.05)


def measured(client: Client, meter: Child, orders: int, file: int) -> dict[str, list[float]]:
    """Seconds of each order and of the floor beside it; the first ones only warm up."""
    found: dict[str, list[float]] = {"out": [], "back": [], "fsync": []}
    warm = 10
    for number in range(orders + warm):
        idle(meter)
        sync = synced(file)
        time.sleep(0.02)
        meter.ask("anew")
        began, answer = client.order()
        if number == 0:
            client.subscribe(answer["response_channel_id"] + ".b1")
        came, frame = client.hear()
        assert answer["msg_id"].encode() in frame, frame
        assert b'"success":true' in frame, frame
        if number < warm:
            continue
        wire = meter.ask()
        found["out"].append(wire["first"] - began)
        found["back"].append(came - wire["acknowledged"])
        found["fsync"].append(sync)
    return found


def main() -> None:
    """Run all of it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=300)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--part", choices=["hub", "line"], help=argparse.SUPPRESS)
    parser.add_argument("--link", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is not None:
        import uvloop

        sys.setswitchinterval(0.0005)  # as ``gridloom serve``
        uvloop.run(line(given.link) if given.part == "line" else hub(given.link, given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.data) as folder:
        link = str(Path(folder, "bus"))
        meter = Child("--part", "line", "--link", link)
        served = Child("--part", "hub", "--link", link, "--folder", folder)
        time.sleep(1)
        file = os.open(Path(folder, "floor"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        found = measured(Client(served.told), meter, given.orders, file)
        os.close(file)
        served.end()
        meter.end()
    hop = figures(hops(given.orders))
    report = {
        "orders": given.orders,
        "data": str(given.data or tempfile.gettempdir()),
        "out_ms": figures(found["out"]),
        "back_ms": figures(found["back"]),
        "floor": {"fsync_ms": figures(found["fsync"]), "there_and_back_ms": hop},
        "targets": TARGETS,
        "load": os.getloadavg()[0],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
