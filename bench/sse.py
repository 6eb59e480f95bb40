"""What the live stream costs: 100 devices at one reading per second, told to 200 streams.

The server (real store, intake, bus, web room) and its readers run in processes of their own. Printed as JSON: CPU-seconds of the server
per second with 200 streams and with none (its readings are stored either way), the difference, and the floor measured in the same run: a
bare asyncio server that writes as many bytes as often to as many sockets.

    python bench/sse.py [--streams 200] [--devices 100] [--seconds 15]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

READINGS = (
    ("Energy.Active.Import.Register", "Wh", None),
    ("Power.Active.Import", "W", None),
    ("Power.Apparent.Import", "VA", None),
    ("Voltage", "V", "L1"),
    ("Current.Import", "A", "L1"),
    ("Frequency", "Hz", None),
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


async def hub(devices: int, seconds: float, interval: float) -> None:
    """The server process: waits for a line, then measures for ``seconds``."""
    from gridloom.bus.memory import MemoryBus
    from gridloom.core.accounts import Accounts
    from gridloom.core.alarms import Alarms
    from gridloom.core.clock import Clock
    from gridloom.core.hub import Hub
    from gridloom.core.intake import Intake
    from gridloom.core.metrics import Metrics
    from gridloom.core.model import Device, DeviceKind, MeterReading, Phase, Reading, ReadingType, Role
    from gridloom.core.registry import Registry
    from gridloom.storage.settings import StorageSettings
    from gridloom.storage.sqlite.store import SqliteStore
    from gridloom.web.server import HttpServer, create
    from gridloom.web.settings import WebSettings

    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        store = SqliteStore(Path(folder) / "gridloom.db", clock, StorageSettings())
        await store.open()
        metrics, bus = Metrics(), MemoryBus(clock)
        accounts = Accounts(store=store, clock=clock)
        _, secret = await accounts.create_token(None, account="admin", role=Role.ADMIN)
        registry = Registry(store=store, bus=bus, clock=clock, accounts=accounts, metrics=metrics)
        alarms = Alarms(store=store, bus=bus, clock=clock, registry=registry, accounts=accounts)
        intake = Intake(store=store, registry=registry, bus=bus, clock=clock, alarms=alarms, metrics=metrics)
        registry.recorder = intake
        none: Any = None
        parts = Hub(
            clock=clock, bus=bus, intake=intake, commands=none, registry=registry, transactions=none, alarms=alarms, accounts=accounts,
            outbox=none, documents=none, query=none, metrics=metrics, http=lambda: "", data_dir=Path(folder), timezone="UTC",
        )  # fmt: skip
        ids = [f"tic:{number:012d}" for number in range(devices)]
        types = [ReadingType(name, unit, phase=None if phase is None else Phase(phase)) for name, unit, phase in READINGS]
        for id in ids:
            integration, _, identity = id.partition(":")
            await registry.register(Device(id=id, integration=integration, identity=identity, kind=DeviceKind.METER))
        server = HttpServer(create(parts, (), tuple, WebSettings(loopback=True, stream_interval=interval)), "127.0.0.1", 0)
        where = await server.start()
        say(where=where, secret=secret)
        loop = asyncio.get_running_loop()

        async def speak(place: int, id: str) -> None:
            await asyncio.sleep(place / devices)
            due, count = time.monotonic(), 0
            while True:
                count += 1
                now = clock.now()
                values = tuple(Reading(type, 1_000_000 + 137 * count + place * number, -1 if number else 0) for number, type in enumerate(types))
                await intake.readings([MeterReading(id, now, now, values)])
                due += 1.0
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        speakers = [loop.create_task(speak(place, id)) for place, id in enumerate(ids)]
        while await loop.run_in_executor(None, sys.stdin.readline):
            before, began = cpu(), time.monotonic()
            await asyncio.sleep(seconds)
            say(cpu_per_second=(cpu() - before) / (time.monotonic() - began), rss_mb=memory())
        for speaker in speakers:
            speaker.cancel()
        await asyncio.gather(*speakers, return_exceptions=True)
        await server.stop()
        await store.close()


async def floor(batch: int, interval: float, seconds: float) -> None:
    """The floor: writes ``batch`` bytes to every socket each ``interval``."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    say(where=f"{host}:{port}", secret="")
    content = b"x" * batch

    async def write() -> None:
        while True:
            await asyncio.sleep(interval)
            for writer in writers:
                writer.write(content)

    writing = asyncio.create_task(write())
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        before, began = cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        say(cpu_per_second=(cpu() - before) / (time.monotonic() - began), rss_mb=memory())
    writing.cancel()
    server.close()


async def readers(where: str, secret: str, streams: int) -> None:
    """The readers' process: counts what comes on every stream; answers each line with the counts since the last."""
    host, _, port = where.rpartition(":")
    got, messages = [0] * streams, [0] * streams

    async def read(place: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET /api/v1/stream HTTP/1.1\r\nhost: {where}\r\nauthorization: Bearer {secret}\r\n\r\n".encode())
        while chunk := await reader.read(262_144):
            got[place] += len(chunk)
            messages[place] += chunk.count(b"event: reading")

    tasks = [asyncio.create_task(read(place)) for place in range(streams)]
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        say(bytes=sum(got), fewest=min(messages, default=0), most=max(messages, default=0))
        got[:], messages[:] = [0] * streams, [0] * streams
    for task in tasks:
        task.cancel()


class Child:
    """A process of this file."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, wait: float = 0) -> dict[str, Any]:
        """One line in, one line out."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def main() -> None:
    """Run all of it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--interval", type=float, default=0.2)
    parser.add_argument("--part", choices=["hub", "floor", "readers"])
    parser.add_argument("--where", default="")
    parser.add_argument("--secret", default="")
    parser.add_argument("--batch", type=int, default=0)
    given = parser.parse_args()
    if given.part == "hub":
        import uvloop

        uvloop.run(hub(given.devices, given.seconds, given.interval))
    elif given.part == "floor":
        import uvloop

        uvloop.run(floor(given.batch, given.interval, given.seconds))
    elif given.part == "readers":
        asyncio.run(readers(given.where, given.secret, given.streams))
    else:
        measure(given)


def measure(given: argparse.Namespace) -> None:
    """Server alone, server with readers, floor with readers."""
    common = ["--devices", str(given.devices), "--seconds", str(given.seconds), "--interval", str(given.interval), "--streams", str(given.streams)]
    server = Child("--part", "hub", *common)
    where = server.line()
    time.sleep(2)
    alone = server.ask()
    listening = Child("--part", "readers", "--where", where["where"], "--secret", where["secret"], *common)
    time.sleep(3)
    listening.ask()
    began = time.monotonic()
    busy = server.ask()
    heard = listening.ask()
    took = time.monotonic() - began
    listening.end()
    server.end()
    batch = int(heard["bytes"] / given.streams / took * given.interval)
    bare = Child("--part", "floor", "--batch", str(batch), *common)
    where = bare.line()
    listening = Child("--part", "readers", "--where", where["where"], "--secret", "-", *common)
    time.sleep(2)
    least = bare.ask()
    listening.end()
    bare.end()
    print(
        json.dumps(
            {
                "bench": "sse",
                "devices": given.devices,
                "streams": given.streams,
                "interval_seconds": given.interval,
                "server_cpu_percent": round(busy["cpu_per_second"] * 100, 2),
                "server_cpu_percent_without_streams": round(alone["cpu_per_second"] * 100, 2),
                "streams_cpu_percent": round((busy["cpu_per_second"] - alone["cpu_per_second"]) * 100, 2),
                "floor_cpu_percent": round(least["cpu_per_second"] * 100, 2),
                "limit_cpu_percent": 20,
                "megabytes_per_second": round(heard["bytes"] / took / 1e6, 3),
                "readings_per_stream_and_second": [round(heard["fewest"] / took, 1), round(heard["most"] / took, 1)],
                "server_rss_mb": round(busy["rss_mb"], 1),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
