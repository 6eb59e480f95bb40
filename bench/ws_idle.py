"""What an idle WebSocket costs: resident memory of the server per connected client that says nothing, and what letting them all in costs.

The server and its clients run in processes of their own. Printed as JSON: KB per connection of our server (a handler task that waits in
``receive``, pings on), CPU-seconds and seconds until all are in, and the floor measured in the same run: picows' own listener with no task,
no queue and no pings. Resident memory counts what Python and uvloop hold, not the kernel's socket buffers.

    python bench/ws_idle.py [--connections 10000]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HANDSHAKE = (
    b"GET /os3p/SUBS%%20%05d HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: OS3P1.0\r\n"
    b"Authorization: Basic U1VCUyAwMDAwMTpzZWNyZXQtb2YtdGhlLXN0YXRpb24=\r\nUser-Agent: station/1.0\r\n\r\n"
)
AT_ONCE = 200


def raise_limit() -> None:
    """As many descriptors as the system lets this process have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory() -> float:
    """Resident KB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1_024


def cpu() -> float:
    """CPU-seconds of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(**figures: Any) -> None:
    """A line to the process that started us."""
    print(json.dumps(figures), flush=True)


async def ours() -> tuple[str, Any]:
    """Our server; the address, and how many are in."""
    from gridloom.core.clock import Clock
    from gridloom.links.websocket import Accept, Connection, HandshakeRequest, WebSocketServer

    async def handler(connection: Connection) -> None:
        async for _ in connection:
            pass

    def admit(request: HandshakeRequest) -> Accept:
        return Accept(subprotocol=request.subprotocols[0])

    server = WebSocketServer("127.0.0.1", 0, handler, admit=admit, key="bench", clock=Clock(), ping_interval=300.0)
    return await server.start(), lambda: len(server)


async def bare() -> tuple[str, Any]:
    """The floor: picows' own listener."""
    from picows import WSListener, WSTransport, WSUpgradeRequest, ws_create_server

    inside: set[WSListener] = set()

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            inside.add(self)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            inside.discard(self)

    def admit(request: WSUpgradeRequest) -> WSListener:
        return Listener()

    server = await ws_create_server(admit, "127.0.0.1", 0, read_buffer_init_size=2_048)
    host, port = server.sockets[0].getsockname()[:2]
    await server.start_serving()
    return f"{host}:{port}", lambda: (server, len(inside))[1]


async def serve(which: str, count: int) -> None:
    """The server process: says where, waits until all are in, says what they cost."""
    where, inside = await (ours if which == "ours" else bare)()
    # Warm up what is allocated once: the load opens and closes some connections before the count begins.
    say(where=where)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    gc.collect()
    before, busy, began = memory(), cpu(), time.monotonic()
    say(ready=True)
    while inside() < count:
        await asyncio.sleep(0.05)
    seconds, busy = time.monotonic() - began, cpu() - busy
    await asyncio.sleep(1.0)
    gc.collect()
    say(kb_each=round((memory() - before) / count, 2), seconds=round(seconds, 2), cpu=round(busy, 2), rss_mb=round(memory() / 1_024, 1))
    await loop.run_in_executor(None, sys.stdin.readline)


async def connect_all(where: str, count: int) -> list[socket.socket]:
    """``count`` clients that have completed their handshake and say nothing."""
    host, _, port = where.rpartition(":")
    gate = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def one(number: int) -> socket.socket:
        async with gate:
            line = socket.socket()
            line.setblocking(False)
            await loop.sock_connect(line, (host, int(port)))
            await loop.sock_sendall(line, HANDSHAKE % number)
            answer = await loop.sock_recv(line, 1_024)
            if b" 101 " not in answer:
                raise RuntimeError(f"the server says {answer[:100]!r}")
            return line

    return await asyncio.gather(*[one(number) for number in range(count)])


async def load(where: str, count: int) -> None:
    """The load process: a few that leave again, then all; stays until it is told to end."""
    for line in await connect_all(where, min(500, count)):
        line.close()
    await asyncio.sleep(0.5)
    say(warm=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.readline)
    lines = await connect_all(where, count)
    say(connected=len(lines))
    await loop.run_in_executor(None, sys.stdin.readline)


def start(*arguments: str) -> subprocess.Popen[str]:
    """This file again, in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a process."""
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def tell(process: subprocess.Popen[str]) -> None:
    """Let a process go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def measure(which: str, count: int) -> dict[str, Any]:
    """One server with ``count`` clients."""
    server = start("--serve", which, "--connections", str(count))
    clients = start("--load", hear(server)["where"], "--connections", str(count))
    try:
        hear(clients)
        tell(server)
        hear(server)
        tell(clients)
        hear(clients)
        return hear(server)
    finally:
        for process in (clients, server):
            with contextlib.suppress(BrokenPipeError):
                tell(process)
            process.wait(30)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description="Memory of an idle WebSocket.")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--serve", choices=("ours", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    raise_limit()
    if arguments.serve or arguments.load:
        import uvloop

        job = serve(arguments.serve, arguments.connections) if arguments.serve else load(arguments.load, arguments.connections)
        uvloop.run(job)
        return
    floor, subject = measure("bare", arguments.connections), measure("ours", arguments.connections)
    print(json.dumps({"connections": arguments.connections, "ours": subject, "floor": floor}, indent=2))


if __name__ == "__main__":
    main()
