"""Push streams against nginx with nchan: what a delivery costs the server, how late the last one hears, what an idle subscriber weighs.

One 200-byte message to 1,000 subscribers, our server and nginx one after the other in the same run, with the same client. Printed as JSON:

- ``deliveries_per_cpu_second``: flat out, to WebSockets. Ours is published to once per turn of its event loop, nchan by eight publishers at once.
- ``last_ms``: at 10 messages a second, from publishing to the last of the 1,000, p50 and p99.
- ``idle_kb``: memory of the server per idle subscriber, by /ws and by /sub.

nginx comes from Debian: ``apt-get install nginx-light libnginx-mod-nchan``. Without it only our figures are printed, and it is said.

    python bench/ekm_push.py [--subscribers 1000] [--messages 2000] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIZE = 200
FRAME = 4 + SIZE
"""A text frame of 200 bytes from a server: two bytes, two of length, no mask."""
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
TARGETS = {"last_ms_p99": 36.0, "idle_kb": 20.0}


def text(number: int) -> bytes:
    """A message that says when it was published."""
    return b'{"msg_id":"%032d","sent":%.6f,"data":"' % (number, time.monotonic()) + b"x" * 200


def message(number: int) -> bytes:
    """Exactly 200 bytes."""
    return text(number)[: SIZE - 2] + b'"}'


# ------------------------------------------------------------------------------------------------------------------- ours


async def serve() -> None:
    """The server process: does what it is told by lines, and says when it is done."""
    from tests.core.world import World

    from gridloom.core.clock import Clock
    from gridloom.core.documents import Space
    from gridloom.core.hub import Hub
    from gridloom.integrations.ekm.channels import ChannelIds
    from gridloom.integrations.ekm.push import Push

    with tempfile.TemporaryDirectory() as folder:
        w = await World(Path(folder), Clock()).open()
        hub = Hub(
            clock=w.clock, bus=w.bus, intake=w.intake, commands=w.commands, registry=w.registry, transactions=w.transactions, alarms=w.alarms,
            accounts=w.accounts, outbox=w.outbox, documents=Space(w.store, "ekm"), query=w.query, metrics=w.metrics, http=lambda: "",
            data_dir=Path(folder), timezone="UTC",
        )  # fmt: skip
        ids = ChannelIds(b"b" * 32)
        push = Push(hub, ids, ("127.0.0.1", 0))
        where = (await push.start())["push"]
        channel = ids.of("bench")
        print(json.dumps({"where": where, "channel": channel}), flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            what, count, extra = line.split()
            before = cpu()
            if what == "flat":
                server = push._server
                assert server is not None
                connections = server.connections[:: max(1, len(server.connections) // 20)]
                for number in range(int(count)):
                    push.publish(channel, message(number))
                    await asyncio.sleep(0)
                    while max((one.buffered for one in connections), default=0) > 65_536:
                        await asyncio.sleep(0.0005)
                while push._tellings:
                    await asyncio.sleep(0.001)
            elif what == "paced":
                for number in range(int(count)):
                    push.publish(channel, message(number))
                    await asyncio.sleep(float(extra))
            print(json.dumps({"cpu": cpu() - before, "subscribers": push.subscribers, "slow": push.slow, "rss": rss(os.getpid())}), flush=True)
        await push.stop()
        await w.close()


def cpu() -> float:
    """CPU-seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss(*processes: int) -> int:
    """Resident bytes of processes."""
    return sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) * resource.getpagesize() for one in processes)


def cpu_of(process: int) -> float:
    """CPU-seconds of another process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ours:
    """Our server in a process of its own."""

    name = "gridloom"

    def __init__(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        told = self._answer()
        host, _, port = told["where"].rpartition(":")
        self.address = (host, int(port))
        self.paths = {"ws": f"/ws/{told['channel']}", "sub": f"/sub/{told['channel']}"}

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def do(self, what: str, count: int, extra: float = 0) -> dict[str, Any]:
        """Publish, or nothing (``look``)."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {count} {extra:g}\n")
        self.process.stdin.flush()
        return self._answer()

    def flat(self, count: int) -> float:
        """CPU-seconds of the server."""
        told = self.do("flat", count)
        assert told["slow"] == 0, "a subscriber was cut off: the figure would mean nothing"
        return float(told["cpu"])

    def paced(self, count: int, pause: float) -> None:
        """Publish one after the other."""
        self.do("paced", count, pause)

    def rss(self) -> int:
        """Resident bytes."""
        return int(self.do("look", 0)["rss"])

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


# ------------------------------------------------------------------------------------------------------------------ nchan


class Nchan:
    """nginx with nchan, one worker."""

    name = "nginx+nchan"

    def __init__(self, folder: Path) -> None:
        self.paths = {"ws": "/ws/bench", "sub": "/sub/bench"}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = free.getsockname()
        (folder / "nginx.conf").write_text(f"""
load_module {NCHAN};
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s; keepalive_requests 10000000;
  server {{
    listen {self.address[0]}:{self.address[1]} backlog=4096;
    location ~ /pub/(.*)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 20; nchan_message_timeout 5m; }}
    location ~ /ws/(.*)$ {{ nchan_subscriber websocket; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
    location ~ /sub/(.*)$ {{ nchan_subscriber http-chunked; nchan_channel_id $1; nchan_subscriber_first_message newest; }}
  }}
}}
""")
        self.process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(self.address, 1):
                break
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.05)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.worker = int(children[0])

    def _publish(self, line: socket.socket, number: int) -> None:
        body = message(number)
        line.sendall(b"POST /pub/bench HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += line.recv(4096)
        head, _, rest = got.partition(b"\r\n\r\n")
        length = next(int(one.split(b":")[1]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length"))
        while len(rest) < length:
            rest += line.recv(4096)

    def flat(self, count: int) -> float:
        """CPU-seconds of the worker before; eight publishers keep it busy."""
        before = cpu_of(self.worker)

        def publisher() -> None:
            with socket.create_connection(self.address) as line:
                for number in range(count // 8):
                    self._publish(line, number)

        threads = [threading.Thread(target=publisher) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return before

    def paced(self, count: int, pause: float) -> None:
        """Publish one after the other."""
        with socket.create_connection(self.address) as line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(count):
                self._publish(line, number)
                time.sleep(pause)

    def rss(self) -> int:
        """Resident bytes of the worker."""
        return rss(self.worker)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)


# ---------------------------------------------------------------------------------------------------------------- clients


class Crowd:
    """Many subscribers in one thread: counts what each got, and when the last of all had it."""

    def __init__(self, address: tuple[str, int], path: str, count: int, *, upgrade: bool = True) -> None:
        self.epoll = select.epoll()
        self.places: dict[int, int] = {}
        self.lines: list[socket.socket] = []
        self.bytes = [0] * count
        self.total = 0
        self.sent: dict[int, float] = {}
        self.last: dict[int, float] = {}
        self.heard: dict[int, int] = {}
        self._stop = False
        more = (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            if upgrade
            else ""
        )
        for place in range(count):
            line = socket.create_connection(address)
            line.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode())
            self.lines.append(line)
            if upgrade or place % 50 == 49:
                self._head(line) if upgrade else time.sleep(0.01)
            self.epoll.register(line, select.EPOLLIN)
            self.places[line.fileno()] = place
        if not upgrade:
            time.sleep(1.0)
        self.thread = threading.Thread(target=self._run)
        self.timing = False

    @staticmethod
    def _head(line: socket.socket) -> None:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += line.recv(1)
        assert b" 101 " in got.split(b"\r\n")[0], got

    def start(self, *, timing: bool) -> None:
        """Listen; with ``timing`` what comes is looked into."""
        self.timing = timing
        self.thread.start()

    def _run(self) -> None:
        count = len(self.lines)
        size = 4_096 if self.timing else 262_144  # Python makes room for all of it each time: the client's own time would be in the figures
        while not self._stop:
            for file, _ in self.epoll.poll(0.2, count):
                place = self.places[file]
                data = os.read(file, size)
                if not data:
                    self.epoll.unregister(file)
                    continue
                if self.timing:
                    have = self.bytes[place]
                    for number in range(have // FRAME, (have + len(data)) // FRAME):
                        begin = number * FRAME - have + 4
                        if number not in self.sent and begin >= 0:
                            self.sent[number] = float(data[begin : begin + SIZE].split(b'"sent":')[1].split(b",")[0])
                        heard = self.heard[number] = self.heard.get(number, 0) + 1
                        if heard == count:
                            self.last[number] = time.monotonic()
                self.bytes[place] += len(data)
                self.total += len(data)

    def wait(self, size: int, seconds: float = 120) -> None:
        """Until so many bytes have come in all."""
        end = time.monotonic() + seconds
        while self.total < size:
            assert time.monotonic() < end, f"{self.total} bytes of {size} have come"
            time.sleep(0.02)

    def close(self) -> None:
        """All leave."""
        self._stop = True
        if self.thread.is_alive():
            self.thread.join()
        for line in self.lines:
            line.close()
        self.epoll.close()


@contextlib.contextmanager
def crowd(server: Ours | Nchan, way: str, count: int, *, timing: bool = False, listen: bool = True) -> Iterator[Crowd]:
    """Subscribed."""
    made = Crowd(server.address, server.paths[way], count, upgrade=way == "ws")
    if listen:
        made.start(timing=timing)
    try:
        yield made
    finally:
        made.close()
        time.sleep(0.5)


def measure(server: Ours | Nchan, subscribers: int, messages: int, seconds: float) -> dict[str, Any]:
    """All figures of one server."""
    found: dict[str, Any] = {"deliveries_per_cpu_second": {}, "idle_kb": {}}
    with crowd(server, "ws", 10, listen=False), crowd(server, "sub", 10, listen=False):
        pass  # what is imported and made once
    before = server.rss()
    with crowd(server, "ws", subscribers, listen=False):
        time.sleep(0.5)
        between = server.rss()
        with crowd(server, "sub", subscribers, listen=False):
            time.sleep(0.5)
            after = server.rss()
    found["idle_kb"] = {"ws": round((between - before) / subscribers / 1024, 1), "sub": round((after - between) / subscribers / 1024, 1)}
    with crowd(server, "ws", subscribers) as listeners:
        if isinstance(server, Ours):
            spent = server.flat(messages)
            listeners.wait(messages * subscribers * FRAME)
        else:
            begin = server.flat(messages)
            listeners.wait(messages * subscribers * FRAME)
            spent = cpu_of(server.worker) - begin
    found["deliveries_per_cpu_second"] = round(messages * subscribers / spent)
    with crowd(server, "ws", subscribers, timing=True) as listeners:
        count = int(seconds * 10)
        server.paced(count, 0.1)
        time.sleep(1)
        late = sorted(1000 * (listeners.last[number] - listeners.sent[number]) for number in listeners.last)
    assert len(late) == count, f"{len(late)} of {count} messages reached all"
    found["last_ms"] = {"p50": round(statistics.median(late), 1), "p99": round(late[int(len(late) * 0.99) - 1], 1), "most": round(late[-1], 1)}
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=2_000, help="a multiple of 8")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65_536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    figures: dict[str, Any] = {"subscribers": given.subscribers, "messages": given.messages, "targets": TARGETS}
    ours = Ours()
    try:
        figures[ours.name] = measure(ours, given.subscribers, given.messages, given.seconds)
    finally:
        ours.close()
    if shutil.which("nginx") and NCHAN.exists():
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            peer = Nchan(Path(folder))
            try:
                figures[peer.name] = measure(peer, given.subscribers, given.messages, given.seconds)
            finally:
                peer.close()
    else:
        figures["nginx+nchan"] = "not installed: apt-get install nginx-light libnginx-mod-nchan"
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
