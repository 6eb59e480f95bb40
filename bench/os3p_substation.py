"""The Substation (issue 5): memory and idle load of one, and a thousand simulated ones in one process with MeterValues each per minute.

Floors of the same run: an empty asyncio process of the same Python for memory. The Central System is the raw one of the tests, in this process.
Prints JSON. ``GRIDLOOM_BENCH_STATIONS`` and ``GRIDLOOM_BENCH_SECONDS`` change the size of the fleet and how long it is watched.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.integrations.os3p.central_raw import Central, central  # noqa: E402

STATIONS = int(os.environ.get("GRIDLOOM_BENCH_STATIONS", "1000"))
SECONDS = float(os.environ.get("GRIDLOOM_BENCH_SECONDS", "60"))
GRIDLOOM = str(Path(sys.executable).with_name("gridloom"))
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds of processor that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> dict[str, float]:
    """MB (of 1024 KB) resident, and the part that is shared with nobody."""
    found = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return {name.lower(): round(int(found[name].split()[0]) / 1024, 1) for name in ("Rss", "Pss")}


async def one(office: Central, folder: str) -> dict[str, object]:
    """One Substation: nothing happens but its pings and a MeterValues in a quarter of an hour."""
    process = await asyncio.create_subprocess_exec(
        GRIDLOOM, "os3p", "substation", "--url", office.url, "--id", "ONE", "--state", folder, stderr=asyncio.subprocess.DEVNULL
    )  # fmt: skip
    await (await office.line()).asked("BootNotification")
    await asyncio.sleep(15)
    before, began = cpu(process.pid), time.monotonic()
    await asyncio.sleep(SECONDS)
    idle = (cpu(process.pid) - before) / (time.monotonic() - began)
    found = {"memory_mb": memory(process.pid), "idle_percent_of_a_core": round(100 * idle, 3)}
    process.terminate()
    await process.wait()
    return found


async def fleet(office: Central) -> dict[str, object]:
    """A thousand: they connect within ten seconds, then each measures once a minute."""
    office.interval = 86_400
    process = await asyncio.create_subprocess_exec(
        GRIDLOOM, "sim", "os3p", "--url", office.url, "--count", str(STATIONS), "--faults", "0", stderr=asyncio.subprocess.DEVNULL
    )  # fmt: skip
    began = time.monotonic()
    await office.until(lambda: len(office.all("BootNotification")) >= STATIONS, 120)
    booted = time.monotonic() - began
    starting = cpu(process.pid)
    await asyncio.sleep(5)
    before, began, told = cpu(process.pid), time.monotonic(), len(office.all("MeterValues"))
    await asyncio.sleep(SECONDS)
    took = time.monotonic() - began
    found = {
        "stations": STATIONS,
        "percent_of_a_core": round(100 * (cpu(process.pid) - before) / took, 1),
        "meter_values_per_minute": round((len(office.all("MeterValues")) - told) / took * 60),
        "seconds_to_boot_all": round(booted, 1),
        "cpu_seconds_to_boot_all": round(starting, 1),
        "memory_mb": memory(process.pid),
        "kb_per_station": round(memory(process.pid)["rss"] * 1024 / STATIONS, 1),
    }
    process.terminate()
    await process.wait()
    return found


async def floor() -> dict[str, float]:
    """What an asyncio process takes that does nothing."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-OO", "-c", "import asyncio, ssl; asyncio.run(asyncio.sleep(60))")
    await asyncio.sleep(1)
    found = memory(process.pid)
    process.kill()
    await process.wait()
    return found


async def main() -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        async with central() as office:
            single = await one(office, folder)
        async with central() as office:
            many = await fleet(office)
    print(json.dumps({"one": single, "fleet": many, "floor_memory_mb": await floor()}, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
