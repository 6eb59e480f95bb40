"""What substations cost the hub: MeterValues, heartbeats, idle connections, and all of them coming back at once. JSON on standard output.

Server and load run in processes of their own; the CPU is that of the server process, user and system, all threads, per 10,000 messages. The server is
the hub itself (``gridloom serve``), the stations speak over plain sockets. In the same run:

- ``floor``: the same bytes over picows' bare listener, parsed by msgspec without a type, and sent back;
- ``peer``: the package ``ocpp`` 2.1.0 on ``websockets``, schema validation on, handlers that do nothing.

MeterValues have 60 sampledValues (7 KB). *Not stored*: decoded, validated and answered; *mapped*: also made into readings,
which a null intake (only here) forgets; *stored*: answered after the group commit.
Idle memory: what connecting 10,000 stations adds to the resident memory of a hub that knows them (``idle``), and what all that it has of them adds to
that of an empty hub (``known_and_idle``, which the limit is for). For the reconnect all lines are cut at once and
all stations come back at once, heeding Retry-After; a station is back when its Heartbeat is answered.

    python bench/os3p.py [--messages 10000] [--stations 10000] [--only meter heartbeat idle] [--check] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

LIMITS = {"meter_not_stored_cpu": 1.1, "meter_stored_cpu": 3.0, "heartbeat_cpu": 0.45, "known_and_idle_kb_each": 28.0, "reconnect_last_seconds": 60.0}
CONFIG = """
[http]
listen = "127.0.0.1:0"
[os3p]
listen = "127.0.0.1:0"
accept = "any"
"""
LINES = 100
"""Stations that send at once; each waits for its answer."""
HUBS = ("read", "null", "hub")
HEARTBEAT = b"{}"
BOOT = b'{"vendor":"BrandX","model":"SUBS-A1","stationNumber":"9876","serialNumber":"AQ12","firmwareVersion":"1.1.0","iccid":"8331","imsi":"0809"}'


def meter_values(number: int) -> bytes:
    """60 sampledValues of the moment ``number`` seconds after midnight."""
    from gridloom.integrations.os3p.messages import Measurand

    moment = time.strftime("2026-11-21T%H:%M:%SZ", time.gmtime(number % 86_400))
    units = {"Voltage": "V", "Current": "A", "ActivePower": "W", "ApparentPower": "VA", "ReactivePower": "var", "Frequency": "Hz"}
    samples = [
        {"value": f"{230 + index}.{number % 10}", "unit": unit, "context": "Sample.Periodic", "location": "Body", "measurand": name}
        for index, name in enumerate(get_args(Measurand))
        if (unit := units.get(name.partition(".")[0], "Wh" if "Energy" in name else "")) and "Reactive" not in name[5:]
    ]
    samples = (samples * 3)[:60]
    return json.dumps({"meterValue": [{"timestamp": moment, "sampledValue": samples}]}).encode()


def ocpp_values(number: int) -> bytes:
    """The same in OCPP 1.6: its measurands and units."""
    moment = time.strftime("2026-11-21T%H:%M:%SZ", time.gmtime(number % 86_400))
    names = (("Voltage", "V"), ("Current.Import", "A"), ("Power.Active.Import", "W"), ("Energy.Active.Import.Register", "Wh"))
    samples = [
        {"value": f"{230 + index}.{number % 10}", "unit": unit, "context": "Sample.Periodic", "location": "Body", "measurand": name}
        for index in range(15)
        for name, unit in names
    ]
    return json.dumps({"connectorId": 1, "meterValue": [{"timestamp": moment, "sampledValue": samples}]}).encode()


def raise_limit() -> None:
    """As many descriptors as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ------------------------------------------------------------------------------------------------------------------- servers


def hub(which: str, profile: str) -> None:
    """``gridloom serve`` in the working directory. ``read``: what is read and validated is answered and forgotten; ``null``: it becomes readings
    which nobody keeps.
    """
    raise_limit()
    from gridloom import cli
    from gridloom.core.intake import Intake
    from gridloom.integrations.os3p import mapping

    async def nowhere(self: Intake, batch: Any) -> tuple[str, ...]:
        return ()

    if which != "hub":
        Intake.readings = nowhere  # type: ignore[method-assign]
    if which == "read":
        mapping.readings = lambda message, device, received: []
    sys.argv = ["gridloom", "serve", "--config", "gridloom.toml"]
    if not profile:
        cli.main()
    import cProfile

    profiler = cProfile.Profile()
    with contextlib.suppress(SystemExit):
        profiler.runcall(cli.main)
    profiler.dump_stats(profile)


async def floor() -> None:
    """picows' bare listener: parse, echo."""
    import msgspec
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

    class Echo(WSListener):
        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.TEXT:
                message = frame.get_payload_as_bytes()
                msgspec.json.decode(message)
                transport.send(WSMsgType.TEXT, message)

    def admit(request: WSUpgradeRequest) -> WSListener:
        return Echo()

    server = await ws_create_server(admit, "127.0.0.1", 0)
    announce(server.sockets[0].getsockname()[1])
    await server.start_serving()
    await asyncio.Event().wait()


async def peer() -> None:
    """The package ``ocpp`` as its examples use it."""
    import logging
    from datetime import UTC, datetime

    import websockets
    from ocpp.routing import on  # type: ignore[import-untyped]
    from ocpp.v16 import ChargePoint, call_result  # type: ignore[import-untyped]

    logging.disable(logging.CRITICAL)

    class Charger(ChargePoint):  # type: ignore[misc]  # it has no types
        @on("MeterValues")  # type: ignore[untyped-decorator]  # likewise
        def on_meter_values(self, **payload: Any) -> Any:
            return call_result.MeterValues()

        @on("Heartbeat")  # type: ignore[untyped-decorator]  # likewise
        def on_heartbeat(self) -> Any:
            return call_result.Heartbeat(current_time=datetime.now(UTC).isoformat())

    async def handler(connection: Any) -> None:
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            await Charger(connection.request.path, connection).start()

    server = await websockets.serve(handler, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("OS3P1.0")])
    announce(next(iter(server.sockets)).getsockname()[1])
    await asyncio.Event().wait()


def announce(port: int) -> None:
    """Where it listens, as the hub says it."""
    Path("data").mkdir()
    Path("data/endpoints.json").write_text(json.dumps({"os3p": f"127.0.0.1:{port}"}))


class Server:
    """One of them in a process of its own, in a folder of its own."""

    def __init__(self, which: str, folder: Path, profile: str = "") -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "gridloom.toml").write_text(CONFIG)
        command = [sys.executable, __file__, "--serve", which, "--profile", profile]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        file = folder / "data" / "endpoints.json"
        while not file.is_file() or not file.read_text():
            if self.process.poll() is not None:
                raise RuntimeError(f"{which} did not start")
            time.sleep(0.05)
        self.where = json.loads(file.read_text())["os3p"]

    def cpu(self) -> float:
        """CPU-seconds, user and system, of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident KB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1_024

    def stop(self) -> None:
        """In order."""
        self.process.terminate()
        self.process.wait(120)


# ---------------------------------------------------------------------------------------------------------------------- load


def frame(payload: bytes) -> bytes:
    """A text frame masked with zeros, which leave it as it is."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + bytes(4) + payload
    return b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + payload


class Line(asyncio.Protocol):
    """A station: its handshake, then one message after the other."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.came = b""
        self.open = False
        self.status = 0
        self.retry_after = 0.0
        self.number = 0
        self.asked = b""
        self.transport: Any = None
        self.waiting: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # cut means reset
        request = (
            f"GET /OS3P/{self.identity} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: OS3P1.0\r\n\r\n"
        )
        transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        self.came += data
        if not self.open:
            head, end, rest = self.came.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split()[1])
            self.retry_after = next((float(line[12:]) for line in head.lower().split(b"\r\n") if line.startswith(b"retry-after:")), 0.0)
            self.open, self.came = True, rest
            self.tell(b"")
        while len(self.came) >= 2:
            size, begin = self.came[1], 2
            if size == 126:
                size, begin = int.from_bytes(self.came[2:4], "big"), 4
            if len(self.came) < begin + size:
                return
            opcode, payload = self.came[0] & 15, self.came[begin : begin + size]
            self.came = self.came[begin + size :]
            if opcode == 9:
                self.transport.write(b"\x8a\x80" + bytes(4))
            elif opcode == 1 and (not payload.startswith(b"[2,") or self.asked in payload[:60]):  # a CALL of the hub, or an echo
                self.tell(payload)

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionResetError())

    def tell(self, payload: bytes) -> None:
        """Who waits."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(payload)

    async def answer(self) -> bytes:
        """What comes next."""
        self.waiting = asyncio.get_running_loop().create_future()
        return await self.waiting

    async def call(self, action: str, payload: bytes) -> bytes:
        """Ask, and wait for the answer. Raises RuntimeError for an error."""
        self.number += 1
        self.asked = b'"%b"' % action.encode()
        self.transport.write(frame(b'[2,"%d","%s",%b]' % (self.number, action.encode(), payload)))
        answer = await self.answer()
        if answer.startswith(b"[4"):
            raise RuntimeError(answer[:300].decode())
        return answer


async def connect(where: str, identity: str) -> Line:
    """A station that has completed its handshake; ``status`` says how."""
    host, _, port = where.rpartition(":")
    _, line = await asyncio.get_running_loop().create_connection(lambda: Line(identity), host, int(port))
    waiting = line.answer()
    if not line.open:
        await waiting
    else:
        waiting.close()
    return line


async def pool(jobs: list[Callable[[], Awaitable[Any]]], at_once: int) -> None:
    """All of them, so many at once."""
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            await job()

    await asyncio.gather(*(work() for _ in range(at_once)))


async def send(where: str, action: str, count: int, payload: Callable[[int], bytes], boots: bool) -> float:
    """``count`` messages over ``LINES`` connections, each waiting for its answer; seconds."""
    lines = [await connect(where, f"BENCH{number}") for number in range(LINES)]
    if boots:
        await asyncio.gather(*(line.call("BootNotification", BOOT) for line in lines))
    each = max(1, count // LINES)
    payloads = [payload(number) for number in range(each)]
    report(ready=True)
    await hear()
    began = time.monotonic()

    async def station(line: Line) -> None:
        for one in payloads:
            await line.call(action, one)

    await asyncio.gather(*(station(line) for line in lines))
    seconds = time.monotonic() - began
    for line in lines:
        line.transport.abort()
    return seconds


def report(**figures: Any) -> None:
    """A line to the process that started us."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


async def hear() -> None:
    """Wait until the process that started us says so."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def load(options: argparse.Namespace) -> None:
    """The load process."""
    if options.load == "crowd":
        await crowd(options.where, options.stations, options.steps)
        return
    action, payload = {"meter": ("MeterValues", meter_values), "ocpp": ("MeterValues", ocpp_values)}.get(
        options.load, ("Heartbeat", lambda _: HEARTBEAT)
    )
    report(seconds=round(await send(options.where, action, options.messages, payload, options.boots), 2))


async def crowd(where: str, count: int, steps: list[str]) -> None:
    """All stations come when they are told to: ``boot`` for the first time, ``known`` already, or all at ``once``; then they say nothing."""
    lines: dict[str, Line] = {}

    async def come(identity: str, back: list[float], began: float, *, boots: bool = False) -> None:
        while True:
            try:
                line = await connect(where, identity)
                if line.status != 101:
                    line.transport.abort()
                    refused[0] += 1
                    await asyncio.sleep(line.retry_after * random.uniform(1.0, 1.1))
                    continue
                if boots:
                    await line.call("BootNotification", BOOT)
                else:
                    await line.call("Heartbeat", HEARTBEAT)
            except (ConnectionError, OSError):
                failed[0] += 1
                await asyncio.sleep(random.uniform(0.5, 1.5))
                continue
            lines[identity] = line
            back.append(time.monotonic() - began)
            return

    identities = [f"CROWD{number:05}" for number in range(count)]
    refused, failed = [0], [0]
    for step in steps:
        await hear()
        refused[0] = failed[0] = 0
        for line in lines.values():
            line.transport.abort()
        back: list[float] = []
        began = time.monotonic()
        gc.disable()
        if step == "once":
            await asyncio.gather(*(come(identity, back, began) for identity in identities))
        else:
            boots = step == "boot"
            await pool([partial(come, identity, back, began, boots=boots) for identity in identities], 200)
        gc.enable()
        figures = {"last_seconds": max(back), "median_seconds": statistics.median(back), "told_to_wait": refused[0], "broken": failed[0]}
        report(back=len(back), **{name: round(value, 2) for name, value in figures.items()})
    await hear()


class Load:
    """The load in a process of its own."""

    def __init__(self, what: str, where: str, *more: str) -> None:
        command = [sys.executable, __file__, "--load", what, "--where", where, *more]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def go(self) -> None:
        """On."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next figures."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> None:
        """It has gone."""
        with contextlib.suppress(BrokenPipeError):
            self.go()
        self.process.wait(60)


# ------------------------------------------------------------------------------------------------------------------- figures


def cost(server: Server, what: str, messages: int, *, boots: bool) -> dict[str, float]:
    """CPU-seconds of the server per 10,000 messages, after a warm-up."""
    more = ["--boots"] if boots else []
    for count in (min(messages, 1_000), messages):
        client = Load(what, server.where, "--messages", str(count), *more)
        client.hear()
        before = server.cpu()
        client.go()
        seconds = client.hear()["seconds"]
        used = server.cpu() - before
        client.end()
    return {"cpu": round(used * 10_000 / (messages // LINES * LINES), 3), "seconds": seconds}


def idle(folder: Path, stations: int) -> dict[str, Any]:
    """Memory of stations that say nothing, and how long all of them take to come back."""

    def start(count: int, *steps: str) -> Load:
        return Load("crowd", server.where, "--stations", str(count), "--steps", *steps)

    server = Server("hub", folder)
    empty = server.memory()
    client = start(stations, "boot")
    client.go()
    found: dict[str, Any] = {"first_boots": client.hear()}
    client.end()
    server.stop()
    server = Server("hub", folder)
    client = start(200, "known", "known")  # warms up what is allocated once
    for _ in range(2):
        client.go()
        client.hear()
    client.end()
    time.sleep(1)
    client = start(stations, "known", "once")
    before = server.memory()
    client.go()
    found["connect"] = client.hear()
    time.sleep(3)
    found["idle_kb_each"] = round((server.memory() - before) / stations, 2)
    found["known_and_idle_kb_each"] = round((server.memory() - empty) / stations, 2)
    found["idle_rss_mb"] = round(server.memory() / 1_024, 1)
    busy = server.cpu()
    client.go()
    found["reconnect"] = client.hear()
    found["reconnect_cpu"] = round(server.cpu() - busy, 2)
    found["reconnect_last_seconds"] = found["reconnect"]["last_seconds"]
    client.end()
    server.stop()
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All that is asked for."""
    found: dict[str, Any] = {"messages": options.messages, "stations": options.stations, "load_average": os.getloadavg()[0]}
    for name, which, what, boots, part in (
        ("meter_floor", "floor", "meter", False, "meter"),
        ("meter_peer_ocpp", "peer", "ocpp", False, "meter"),
        ("meter_not_stored", "read", "meter", True, "meter"),
        ("meter_mapped_not_stored", "null", "meter", True, "meter"),
        ("meter_stored", "hub", "meter", True, "meter"),
        ("heartbeat_floor", "floor", "heartbeat", False, "heartbeat"),
        ("heartbeat_peer_ocpp", "peer", "heartbeat", False, "heartbeat"),
        ("heartbeat", "hub", "heartbeat", True, "heartbeat"),
    ):
        if part in options.only:
            profile = f"{options.profile}.{name}" if options.profile and which in HUBS else ""
            server = Server(which, folder / name, profile)
            messages = min(options.messages, 1_000) if which == "peer" and what == "ocpp" else options.messages
            figures = cost(server, what, messages, boots=boots)
            server.stop()
            found |= {f"{name}_{unit}": value for unit, value in figures.items()}
    if "idle" in options.only:
        found |= idle(folder / "idle", options.stations)
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--stations", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", default=["meter", "heartbeat", "idle"], choices=("meter", "heartbeat", "idle"))
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is not met")
    parser.add_argument("--profile", default="", help="write profiles of the hub to FILE.NAME")
    parser.add_argument("--serve", choices=(*HUBS, "floor", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--where", help=argparse.SUPPRESS)
    parser.add_argument("--boots", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--steps", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    raise_limit()
    if options.serve in HUBS:
        hub(options.serve, options.profile)
        return 0
    if options.serve or options.load:
        import uvloop

        uvloop.run({"floor": floor, "peer": peer}[options.serve]() if options.serve else load(options))
        return 0
    with tempfile.TemporaryDirectory(prefix="gridloom-bench-") as folder:
        found = measure(options, Path(folder))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return int(options.check and any(found.get(name, 0.0) > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
