"""What the TIC2WebSocket API costs: one 865-byte frame a second, told to 500 and to 5,000 subscribers.

The server (real store, intake, bus, API) and its clients (plain sockets in one process) run in processes of their own, on uvloop as the hub does.
Printed as JSON: the share of a core that the server takes, with subscribers and with none; per frame the time from the first subscriber that
has it to the last (``spread``), and from the frame's end to the last (``latency``); and the floor of the same run: a bare asyncio server that
writes the same pre-framed bytes to as many sockets. The clients' own reading is part of spread and latency, of the floor's as well.

    python bench/tic_api.py [--subscribers 500,5000] [--seconds 20] [--dialect document]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

FRAMES = Path(__file__).parents[1] / "tests" / "data" / "tic" / "frames"
METER = "021762010203"
TARGETS = {500: {"cpu_percent": 4.0, "spread_p99_ms": 20.0}, 5_000: {"cpu_percent": 35.0}}
"""Issue 3, Speed. The peer (TIC2WebSocket 2.0.0, Java), measured by us earlier: 500 subscribers 22 % of a core, spread p99 119 ms."""
HANDSHAKE = (
    b"GET /%b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def cpu() -> float:
    """CPU-seconds of this process, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory() -> float:
    """Resident MB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1_048_576


def say(**figures: Any) -> None:
    """A line to the process that started us."""
    print(json.dumps(figures), flush=True)


def groups() -> list[tuple[str, str, str]]:
    """Label, value and horodate of every group of a captured standard frame (cut out here: the codec is not what is measured)."""
    found = []
    for raw in (FRAMES / "std_mono_hphc_nb.bin").read_bytes().strip(b"\x02\x03").split(b"\r"):
        parts = raw.removeprefix(b"\n")[:-2].decode("ascii").split("\t")
        if parts[0]:
            found.append((parts[0], parts[-1], parts[1] if len(parts) == 3 else ""))
    return found


async def commands(measured: Any) -> None:
    """Each line on standard input is a number of seconds to measure; an empty one ends us."""
    loop = asyncio.get_running_loop()
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        measured.clear()
        before, began = cpu(), time.monotonic()
        await asyncio.sleep(float(line))
        say(cpu_percent=100 * (cpu() - before) / (time.monotonic() - began), rss_mb=memory())


async def api() -> None:
    """The server process."""
    from gridloom.bus.memory import MemoryBus
    from gridloom.core.accounts import Accounts
    from gridloom.core.alarms import Alarms
    from gridloom.core.clock import Clock
    from gridloom.core.hub import Hub
    from gridloom.core.intake import Intake
    from gridloom.core.metrics import Metrics
    from gridloom.core.model import Device, DeviceKind, MeterReading, Reading, ReadingType
    from gridloom.core.registry import Registry
    from gridloom.core.settings import Address
    from gridloom.integrations.tic.api import Tic2WebSocket
    from gridloom.integrations.tic.config import Section
    from gridloom.integrations.tic.labels import Mode
    from gridloom.integrations.tic.messages import TicFrame, TicGroup
    from gridloom.storage.settings import StorageSettings
    from gridloom.storage.sqlite.store import SqliteStore

    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        store = SqliteStore(Path(folder) / "gridloom.db", clock, StorageSettings())
        await store.open()
        metrics, bus = Metrics(), MemoryBus(clock)
        accounts = Accounts(store=store, clock=clock)
        registry = Registry(store=store, bus=bus, clock=clock, accounts=accounts, metrics=metrics)
        alarms = Alarms(store=store, bus=bus, clock=clock, registry=registry, accounts=accounts)
        intake = Intake(store=store, registry=registry, bus=bus, clock=clock, alarms=alarms, metrics=metrics)
        none: Any = None
        hub = Hub(
            clock=clock, bus=bus, intake=intake, commands=none, registry=registry, transactions=none, alarms=alarms, accounts=accounts, outbox=none,
            documents=none, query=none, metrics=metrics, http=lambda: "", data_dir=Path(folder), timezone="Europe/Paris",
        )  # fmt: skip
        await registry.register(Device(id=f"tic:{METER}", integration="tic", identity=METER, kind=DeviceKind.METER))
        service = Tic2WebSocket(Section(listen=Address("127.0.0.1:0")), hub)
        where = (await service.start())["tic"]
        content = tuple(TicGroup(label, value, horodate) for label, value, horodate in groups())
        power = ReadingType("Power.Apparent.Import", "VA")

        async def speak() -> None:
            due = time.monotonic()
            while True:
                due += 1.0
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                now = clock.now()
                # When the frame ended, for the clients' figures; as a group, so that it is at the same place in every dialect's text.
                stamped = (*content, TicGroup("STAMP", str(time.monotonic_ns())))
                frame = TicFrame(Mode.STANDARD, stamped, METER, "/dev/ttyUSB0", "1-1", "pci-0000:00:14.0-usb-0:1:1.0", now)
                await intake.readings([MeterReading(f"tic:{METER}", now, now, (Reading(power, 230),), native=frame)])

        speaking = asyncio.create_task(speak())
        say(where=where)
        await commands([])
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await service.stop()
        await store.close()


async def floor(size: int) -> None:
    """The floor: writes a frame of ``size`` bytes to every socket once a second."""
    writers: list[asyncio.Transport] = []

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            if data.startswith(b"GET"):
                self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                writers.append(self.transport)

    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0, backlog=1_024)
    host, port = server.sockets[0].getsockname()

    async def write() -> None:
        due = time.monotonic()
        while True:
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            payload = f'{{"STAMP":"{time.monotonic_ns()}"'.encode().ljust(size - 4, b"x")
            frame = b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
            for writer in writers:
                writer.write(frame)

    writing = asyncio.create_task(write())
    say(where=f"{host}:{port}")
    await commands([])
    writing.cancel()
    server.close()


def clients(where: str, number: int, dialect: str, asks: bool) -> None:
    """The clients' process: subscribes ``number`` times; for each line of seconds tells the spread and latency of the frames of that time."""
    host, _, port = where.rpartition(":")
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    request = b'{"type":"REQUEST","name":"SubscribeTIC"}'
    masked = bytes(byte ^ mask for byte, mask in zip(request, b"abcd" * 20, strict=False))
    subscribe = b"\x81" + bytes([0x80 | len(request)]) + b"abcd" + masked
    for _ in range(number):
        one = socket.create_connection((host, int(port)))
        one.sendall(HANDSHAKE % dialect.encode())
        buffer = b""
        while b"\r\n\r\n" not in buffer:
            buffer += one.recv(4_096)
        if asks:
            one.sendall(subscribe)
            buffer = b""
            while b'"SubscribeTIC"' not in buffer:
                buffer += one.recv(4_096)
        one.setblocking(False)
        sockets[one.fileno()] = one
        poll.register(one.fileno(), select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    say(ready=len(sockets))
    partly: dict[int, bytes] = {}
    arrivals: dict[int, list[int]] = {}
    size, end = 0, float("inf")
    began = cpu()
    while True:
        for descriptor, _ in poll.poll(0.2):
            if descriptor == sys.stdin.fileno():
                line = sys.stdin.readline().strip()
                if not line:
                    return
                arrivals.clear()
                end, began = time.monotonic() + float(line), cpu()
                continue
            data = partly.pop(descriptor, b"") + sockets[descriptor].recv(8_192)
            while len(data) >= 4:
                length = int.from_bytes(data[2:4], "big") + 4 if data[1] == 126 else data[1] + 2
                if len(data) < length:
                    break
                place = data.find(b'"STAMP"', 0, length)
                if place >= 0:
                    arrivals.setdefault(int(data[place + 8 : place + 40].split(b'"')[1]), []).append(time.monotonic_ns())
                    size = length
                data = data[length:]
            if data:
                partly[descriptor] = data
        if time.monotonic() > end:
            whole = {stamp: times for stamp, times in arrivals.items() if len(times) == number}
            spread = sorted((times[-1] - times[0]) / 1e6 for times in whole.values())
            latency = sorted((times[-1] - stamp) / 1e6 for stamp, times in whole.items())
            used = 100 * (cpu() - began) / max(1, len(arrivals))
            say(frames=len(whole), incomplete=len(arrivals) - len(whole), bytes=size, spread=spread, latency=latency, clients_cpu_percent=used)
            end = float("inf")


class Child:
    """A process of ours that talks by lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def tell(self, line: str) -> None:
        """A line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """A line from it."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """In order."""
        with contextlib.suppress(BrokenPipeError):
            self.tell("")
        self.process.wait(20)


def quantile(values: list[float], share: float) -> float:
    """Of sorted values; the nearest rank."""
    return values[min(len(values) - 1, max(0, round(share * len(values) + 0.5) - 1))] if values else float("nan")


def measured(server: Child, number: int, seconds: float, dialect: str, asks: bool) -> dict[str, Any]:
    """With that many subscribers."""
    reader = Child("--clients", server_where[server], str(number), dialect, str(int(asks)))
    reader.hear()
    time.sleep(1.5)
    reader.tell(str(seconds))
    server.tell(str(seconds))
    used, seen = server.hear(), reader.hear()
    reader.end()
    spread, latency = seen.pop("spread"), seen.pop("latency")
    return {
        "cpu_percent": round(used["cpu_percent"], 2),
        "rss_mb": round(used["rss_mb"], 1),
        **{f"spread_p{int(share * 100)}_ms": round(quantile(spread, share), 2) for share in (0.5, 0.99)},
        **{f"latency_to_last_p{int(share * 100)}_ms": round(quantile(latency, share), 2) for share in (0.5, 0.99)},
        **{key: round(value, 2) if isinstance(value, float) else value for key, value in seen.items()},
    }


server_where: dict[Child, str] = {}


def started(*arguments: str) -> Child:
    """A server that listens."""
    server = Child(*arguments)
    server_where[server] = server.hear()["where"]
    return server


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", default="500,5000")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--dialect", choices=("document", "v1", "v2"), default="document")
    parser.add_argument("--serve", choices=("api", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--clients", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if given.clients:
        clients(given.clients[0], int(given.clients[1]), given.clients[2], bool(int(given.clients[3])))
        return
    if given.serve:
        import uvloop

        serving: Coroutine[Any, Any, None] = api() if given.serve == "api" else floor(given.size)
        uvloop.run(serving)
        return
    server = started("--serve", "api")
    server.tell(str(given.seconds / 2))
    idle = server.hear()
    server.end()
    results = []
    for number in (int(word) for word in given.subscribers.split(",")):
        server = started("--serve", "api")
        found = measured(server, number, given.seconds, given.dialect, True)
        server.end()
        bare = started("--serve", "floor", "--size", str(found["bytes"]))
        lowest = measured(bare, number, given.seconds, given.dialect, False)
        bare.end()
        target = TARGETS.get(number, {})
        met = all(found[key] <= limit for key, limit in target.items())
        times_floor = round(found["cpu_percent"] / lowest["cpu_percent"], 2)
        results.append({"subscribers": number, **found, "floor": lowest, "times_floor": times_floor, "target": target, "met": met})
    print(
        json.dumps(
            {
                "bench": "tic_api",
                "dialect": given.dialect,
                "nobody_listening_cpu_percent": round(idle["cpu_percent"], 2),
                "results": results,
                "peer": {
                    "what": "TIC2WebSocket 2.0.0 (Java), from the issue, not of this run",
                    "subscribers": 500,
                    "cpu_percent": 22,
                    "spread_p99_ms": 119,
                },
                "met": all(result["met"] for result in results),
            },
            indent=2,
        )
    )
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    main()
