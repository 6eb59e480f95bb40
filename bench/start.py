"""How fast the hub is there, and how much memory it takes: start to /readyz, resident memory, ``gridloom --help``; JSON on standard output.

In the same run the floors: an interpreter that does nothing (``python -c pass``), and a bare Litestar on uvicorn that says hello. Run it on a machine
that does nothing else: ``.venv/bin/python bench/start.py``. ``--profile`` prints what the imports cost.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src"
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if not name.startswith("GRIDLOOM")}, "PYTHONPATH": str(SOURCE)}
HELLO = """
import sys
import uvicorn
from litestar import Litestar, get

@get("/readyz")
async def ready() -> dict[str, bool]:
    return {"ready": True}

uvicorn.run(Litestar([ready]), port=int(sys.argv[1]), log_level="warning", loop="uvloop", http="httptools")
"""


def once(arguments: list[str]) -> float:
    """Seconds of one run to its end."""
    begin = time.perf_counter()
    subprocess.run(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def memory(process: int) -> float:
    """Resident megabytes (10**6)."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("no VmRSS")


def until_ready(arguments: list[str], port: int, folder: str, settle: float = 1.0) -> tuple[float, float, float]:
    """Seconds from start to a 200 of /readyz, resident MB then and after ``settle`` seconds and a few requests."""
    begin = time.perf_counter()
    with open(Path(folder) / "log", "ab") as log:
        process = subprocess.Popen(arguments, cwd=folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=log)
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - begin > 30:
                raise RuntimeError((Path(folder) / "log").read_text()[-2000:])
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
                connection.close()
            time.sleep(0.002)
        took, first = time.perf_counter() - begin, memory(process.pid)
        time.sleep(settle)
        for path in ("/readyz", "/", "/openapi.json", "/healthz"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
        return took, first, memory(process.pid)
    finally:
        process.terminate()
        process.wait(15)


def hub(runs: int) -> dict[str, float]:
    """First start (makes the store and the token) and later starts on the same data."""
    first: list[float] = []
    later: list[float] = []
    resident: list[float] = []
    used: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            (Path(folder) / "gridloom.toml").write_text(f'[http]\nlisten = "127.0.0.1:{port}"\n')
            arguments = [sys.executable, "-m", "gridloom", "serve", "--config", "gridloom.toml"]
            first.append(until_ready(arguments, port, folder, 0)[0])
            took, before, after = until_ready(arguments, port, folder)
            later.append(took)
            resident.append(before)
            used.append(after)
    return {
        "first_start_seconds": round(statistics.median(first), 3),
        "start_seconds": round(statistics.median(later), 3),
        "start_seconds_worst": round(max(later), 3),
        "resident_megabytes": round(statistics.median(resident), 1),
        "resident_megabytes_after_requests": round(statistics.median(used), 1),
    }


def hello(runs: int) -> dict[str, float]:
    """The floor: the same framework and server with one route."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs):
            port = free_port()
            found.append(until_ready([sys.executable, "-c", HELLO, str(port)], port, folder, 0))
    return {
        "start_seconds": round(statistics.median(one[0] for one in found), 3),
        "resident_megabytes": round(statistics.median(one[1] for one in found), 1),
    }


def profile() -> None:
    """What the imports of a starting hub cost, the dearest first (µs of the module itself)."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-X", "importtime", "-m", "gridloom", "demo", "--for", "0.5"]
        text = subprocess.run(arguments, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True).stderr
    rows = [line.split("|") for line in text.splitlines() if line.startswith("import time:") and "self" not in line]
    totals: dict[str, int] = {}
    for own, _, name in rows:
        package = name.strip().split(".")[0]
        totals[package] = totals.get(package, 0) + int(own.split(":")[1])
    for package, cost in sorted(totals.items(), key=lambda pair: -pair[1])[:25]:
        print(f"{cost / 1000:8.1f} ms  {package}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.profile:
        profile()
        return
    helps = [once([sys.executable, "-m", "gridloom", "--help"]) for _ in range(options.runs * 2)]
    nothing = [once([sys.executable, "-c", "pass"]) for _ in range(options.runs * 2)]
    ours, floor = hub(options.runs), hello(options.runs)
    result: dict[str, Any] = {
        "bench": "start",
        "python": sys.version.split()[0],
        "runs": options.runs,
        "hub": {**ours, "help_seconds": round(statistics.median(helps), 3)},
        "floor": {"python_seconds": round(statistics.median(nothing), 3), "bare_litestar": floor},
        "targets": {"start_seconds": 1.2, "resident_megabytes": 85, "help_seconds": 0.25},
    }
    result["met"] = {
        "start_seconds": ours["start_seconds"] <= 1.2 and ours["first_start_seconds"] <= 1.2,
        "resident_megabytes": ours["resident_megabytes_after_requests"] <= 85,
        "help_seconds": result["hub"]["help_seconds"] < 0.25,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
