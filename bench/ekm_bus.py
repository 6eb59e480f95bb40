"""One RS-485 bus at 9600 baud, polled at the line's limit: time per exchange against the line's own, and the CPU that it costs.

A simulated v4 on a pty, in a process of its own, paces its bytes at ten bit times each and thinks 2 ms before it answers. The whole hub (buses,
translation, store) reads it again and again, in a process of its own. Printed as JSON: the time of a poll (A and B reply, end of the session) and
of an exchange, the theoretical ones (bytes at ten bit times, and the meter's 2 ms), their ratio, and CPU per cent of the hub (all threads), with
the same when idle (nothing to poll) beside it.

    python bench/ekm_bus.py [--seconds 30]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METER = "000300000234"
BYTE = 10 / 9600
THINKS = 0.002
REQUEST, REPLY, END = 19, 255, 5
EXCHANGE = (REQUEST + REPLY) * BYTE + THINKS
POLL = 2 * EXCHANGE + END * BYTE


async def line(link: str) -> None:
    """The simulated bus, until its standard input ends."""
    from gridloom.core.clock import Clock
    from gridloom.integrations.ekm.simulator import Line, Simulator, meter

    simulator = Simulator(Path(link), Line([meter(f"{METER}:v4", Clock())]), turnaround=THINKS)
    await simulator.start()
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await simulator.stop()


async def hub(link: str, folder: str, every: float) -> None:
    """The whole hub, as ``gridloom serve`` runs it; answers each line with its figures."""
    from gridloom.app import App, load_configuration

    Path(folder, "gridloom.toml").write_text(
        f'[hub]\ndata_dir = "{folder}/data"\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[ekm]\npush_listen = "127.0.0.1:0"\n[[ekm.bus]]\nport = "{link}"\nmeters = ["{METER}:v4"]\npoll_seconds = {every}\n'
    )
    app = App(load_configuration(Path(folder, "gridloom.toml"), {}), environ={})
    await app.start()
    gc.collect()
    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        reads = next((value.value for family in app.metrics.collect() if family.name == "gridloom_ekm_reads_total" for value in family.values), 0.0)
        print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "reads": reads, "at": time.monotonic(), "switches": usage.ru_nvcsw}), flush=True)
    await app.stop()


class Child:
    """A process of this file."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


def measured(link: str, every: float, seconds: float) -> dict[str, float]:
    """Over so many seconds, when the hub is warm. From poll to poll, so that no part of one is counted."""
    with tempfile.TemporaryDirectory() as folder:
        child = Child("--part", "hub", "--link", link, "--folder", folder, "--every", str(every))
        time.sleep(4)
        begin = turned(child) if every < 1 else child.ask()
        time.sleep(seconds)
        end = turned(child) if every < 1 else child.ask()
        child.end()
    passed = end["at"] - begin["at"]
    polls = end["reads"] - begin["reads"]
    return {
        "polls": polls,
        "poll_ms": round(passed / polls * 1000, 2) if polls else 0.0,
        "cpu_percent": round((end["cpu"] - begin["cpu"]) / passed * 100, 3),
        "wake_ups_per_second": round((end["switches"] - begin["switches"]) / passed, 1),
    }


def turned(child: Child) -> dict[str, Any]:
    """The figures at the moment at which a poll ends."""
    before = child.ask()["reads"]
    while True:
        found = child.ask()
        if found["reads"] != before:
            return found
        time.sleep(0.02)  # a look costs the hub CPU, too


def main() -> None:
    """Run all of it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--part", choices=["hub", "line"])
    parser.add_argument("--link", default="")
    parser.add_argument("--folder", default="")
    parser.add_argument("--every", type=float, default=0.1)
    given = parser.parse_args()
    if given.part is not None:
        import uvloop

        sys.setswitchinterval(0.0005)  # as ``gridloom serve``
        uvloop.run(line(given.link) if given.part == "line" else hub(given.link, given.folder, given.every))
        return
    with tempfile.TemporaryDirectory() as folder:
        link = str(Path(folder, "bus"))
        simulator = Child("--part", "line", "--link", link)
        busy = measured(link, 0.1, given.seconds)
        idle = measured(link, 3600, min(given.seconds, 10.0))
        simulator.end()
    ratio = busy["poll_ms"] / 1000 / POLL
    report = {
        "theory": {"exchange_ms": round(EXCHANGE * 1000, 2), "poll_ms": round(POLL * 1000, 2)},
        "polling": busy | {"exchange_ms": round((busy["poll_ms"] - END * BYTE * 1000) / 2, 2), "of_theory": round(ratio, 4)},
        "idle": idle,
        "cpu_percent_of_polling": round(busy["cpu_percent"] - idle["cpu_percent"], 3),
        "targets": {"of_theory": 1.05, "cpu_percent": 1.0},
        "load": os.getloadavg()[0],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
