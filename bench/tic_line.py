"""What one TIC frame of 865 bytes costs, from the serial byte to stored and served, and how long after its last byte a client has it.

A meter in this process writes frames to a pty, in pieces as an adapter hands them on; the whole hub, in a process of its own, reads, stores
and serves them to one WebSocket client, which is here again. Printed as JSON: CPU milliseconds of the hub per frame (all threads, what it
costs when idle taken off and told), the time from the last byte to the client's message, and the floor of the same run: a bare process that
reads the same bytes from a pty as they come, and commits one row to SQLite per frame.

    python bench/tic_line.py [--frames 30]

Targets (issue 3): at most 1.0 ms of CPU per frame in pieces of 62 bytes, 2.0 ms in pieces of 16; at most 20 ms from the last byte to the client.
At a line's pace a process is woken from sleep for each piece, and finds its caches cold: that is most of what the floor costs, and why the hub
leaves a line alone that it knows (``tic.pace``). The hub is heard for a minute before it is measured: what it does once after its start (the first
compaction brings numpy in, 0.3 s) is of no frame.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.integrations.tic.pty import Pty, group

CAPTURE = Path(__file__).parents[1] / "tests/data/tic/frames/std_mono_hphc_tic2ws.bin"
SERIAL = "031664001115"
BYTE_SECONDS = 10 / 9600


def cpu() -> float:
    """CPU-seconds of this process, user and system, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(**figures: Any) -> None:
    """A line to the process that started us."""
    print(json.dumps(figures), flush=True)


def frames() -> Iterator[bytes]:
    """The captured frame, again and again: register, power, current and clock move as in a meter."""
    groups = CAPTURE.read_bytes().removeprefix(b"\x02\n").removesuffix(b"\r\x03").split(b"\r\n")
    parsed = [one.decode("ascii").split("\t")[:-1] for one in groups]
    count = 0
    while True:
        count += 1
        moved = {
            "EAST": f"{1_000_000 + count:09d}",
            "EASF01": f"{500_000 + count:09d}",
            "SINSTS": f"{1000 + count % 700:05d}",
            "IRMS1": f"{4 + count % 3:03d}",
        }
        out = [b"\x02"]
        for fields in parsed:
            label = fields[0]
            if len(fields) == 3:
                clock = (
                    f"H2611{count // 3600 % 20 + 1:02d}{count // 60 % 24:02d}{count // 60 % 60:02d}{count % 60:02d}" if label == "DATE" else fields[1]
                )
                out.append(group("standard", label, moved.get(label, fields[2]), clock))
            else:
                out.append(group("standard", label, moved.get(label, fields[1])))
        yield b"".join([*out, b"\x03"])


# ------------------------------------------------------------------------------------------------------------ the children


async def hub(link: str, folder: str) -> None:
    """The whole hub, as ``gridloom serve`` runs it; answers each line with its CPU-seconds."""
    from gridloom.app import App, load_configuration

    Path(folder, "gridloom.toml").write_text(
        f'[hub]\ndata_dir = "{folder}/data"\n[http]\nlisten = "127.0.0.1:0"\n[tic]\nlisten = "127.0.0.1:0"\nports = ["{link}"]\ndiscover = false\n'
    )
    app = App(load_configuration(Path(folder, "gridloom.toml"), {}), environ={})
    await app.start()
    await answer(where=app.endpoints["tic"])
    await app.stop()


async def floor(link: str, folder: str) -> None:
    """Reads the pty as barely as this loop can, commits a row for each ETX."""
    database = sqlite3.connect(Path(folder, "floor.db"), isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE frame (id INTEGER PRIMARY KEY, body BLOB)")
    descriptor = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(descriptor)
    settings = termios.tcgetattr(descriptor)
    settings[4] = settings[5] = termios.B9600
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    held = bytearray()

    def read() -> None:
        held.extend(os.read(descriptor, 4096))
        while (end := held.find(b"\x03")) >= 0:
            database.execute("INSERT INTO frame (body) VALUES (?)", (bytes(held[: end + 1]),))
            del held[: end + 1]

    asyncio.get_running_loop().add_reader(descriptor, read)
    await answer(where="")
    os.close(descriptor)


async def answer(**first: Any) -> None:
    """Says what is given, then the CPU-seconds for each line that comes."""
    gc.collect()
    gc.freeze()
    say(**first)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        say(cpu=cpu(), rss_mb=int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1_048_576)


class Child:
    """A process of this file."""

    def __init__(self, part: str, link: Path, folder: str) -> None:
        command = [sys.executable, __file__, "--part", part, "--link", str(link), "--folder", folder]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.where = self.line()["where"]

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def cpu(self) -> float:
        """CPU-seconds until now."""
        return float(self.ask()["cpu"])

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


# --------------------------------------------------------------------------------------------------------------- measuring


class Meter:
    """Writes frames to a pty and notes when the last byte of each went out."""

    def __init__(self, folder: str) -> None:
        self.pty = Pty()
        self.link = Path(folder, "ttyTIC0")
        self.link.symlink_to(self.pty.name)
        self.frames = frames()
        self.ended: list[float] = []

    async def speak(self, count: int, piece: int) -> None:
        due = time.monotonic()
        for _ in range(count):
            frame = next(self.frames)
            for begin in range(0, len(frame), piece):
                part = frame[begin : begin + piece]
                due += len(part) * BYTE_SECONDS
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.pty.write(part)
            self.ended.append(time.monotonic())
            due += 0.025  # the silence between two frames


async def per_frame(child: Child, meter: Meter, count: int, piece: int) -> dict[str, float]:
    """CPU milliseconds per frame, with the idle cost of that time taken off, and without."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(3.0)
    idle_before, idle_began = await loop.run_in_executor(None, child.cpu), time.monotonic()
    await asyncio.sleep(6.0)
    idle = (await loop.run_in_executor(None, child.cpu) - idle_before) / (time.monotonic() - idle_began)
    await meter.speak(10, piece)
    before, began = await loop.run_in_executor(None, child.cpu), time.monotonic()
    await meter.speak(count, piece)
    seconds = time.monotonic() - began
    used = await loop.run_in_executor(None, child.cpu) - before
    return {
        "cpu_ms_per_frame": round((used - idle * seconds) * 1000 / count, 3),
        "with_idle_ms_per_frame": round(used * 1000 / count, 3),
        "idle_cpu_ms_per_second": round(idle * 1000, 2),
    }


async def measure(count: int) -> None:
    """The floor, then the hub, then its latency."""
    import websockets

    report: dict[str, Any] = {"frame_bytes": len(next(frames())), "frames": count}
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(folder)
        child = Child("floor", meter.link, folder)
        report["floor"] = {f"pieces_{piece}": await per_frame(child, meter, count, piece) for piece in (62, 16)}
        child.end()
        meter.pty.close()
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter(folder)
        child = Child("hub", meter.link, folder)
        await meter.speak(60, 62)  # found, registered, warm
        async with websockets.connect(f"ws://{child.where}", compression=None) as client:
            await client.send(json.dumps({"type": "REQUEST", "name": "SubscribeTIC"}))
            await client.recv()
            heard: list[float] = []

            async def hear() -> None:
                while True:
                    await client.recv()
                    heard.append(time.monotonic())

            hearing = asyncio.create_task(hear())
            report["hub"] = {f"pieces_{piece}": await per_frame(child, meter, count, piece) for piece in (62, 16)}
            await asyncio.sleep(0.5)
            report["hub"]["frames_heard_of_sent"] = [len(heard), 2 * (count + 10)]
            latency = {}
            for piece in (62, 16):
                heard.clear()
                meter.ended.clear()
                await meter.speak(25, piece)
                await asyncio.sleep(0.3)
                late = sorted((there - ended) * 1000 for ended, there in zip(meter.ended, heard, strict=True))
                latency[f"pieces_{piece}"] = {"median": round(statistics.median(late), 2), "most": round(late[-1], 2)}
            report["ms_after_etx"] = latency
            hearing.cancel()
        report["hub"]["rss_mb"] = round((await asyncio.get_running_loop().run_in_executor(None, child.ask))["rss_mb"], 1)
        child.end()
        meter.pty.close()
    report["targets"] = {"cpu_ms_per_frame": {"pieces_62": 1.0, "pieces_16": 2.0}, "ms_after_etx": 20}
    report["load"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


def main() -> None:
    """Run all of it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--part", choices=["hub", "floor"])
    parser.add_argument("--link", default="")
    parser.add_argument("--folder", default="")
    given = parser.parse_args()
    if given.part is None:
        asyncio.run(measure(given.frames))
        return
    import uvloop

    sys.setswitchinterval(0.0005)  # as ``gridloom serve``
    uvloop.run((hub if given.part == "hub" else floor)(given.link, given.folder))


if __name__ == "__main__":
    main()
