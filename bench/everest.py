"""How soon EVerest is answered while every powermeter speaks: a hub with 50 powermeter modules on a Mosquitto, each with a value a second; JSON.

The hub (``app.App``: store, bus, signing, MQTT) runs in a process of its own and feeds itself the readings of 50 meters, four values each. From
here one start or stop after the other goes to some module, ``--rate`` a second; told are the milliseconds to the reply, and the CPU that the hub
took. The floor in the same run: a bare aiomqtt client that echoes. ``.venv/bin/python bench/everest.py [--seconds 20]``; ``--check`` exits with 1
above the targets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import queue
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

MODULES = 50
P99_MS, CPU_PERCENT = 50.0, 15.0
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def cpu() -> float:
    """CPU-seconds of this process, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(**figures: Any) -> None:
    """A line to the process that started us."""
    print(json.dumps(figures), flush=True)


async def obey(ready: dict[str, Any]) -> None:
    """Tell that we are there, and at each line on standard input how much CPU we took so far."""
    loop = asyncio.get_running_loop()
    say(**ready)
    while await loop.run_in_executor(None, sys.stdin.readline):
        say(cpu=cpu())


async def ours(port: int, folder: str) -> None:
    """The hub, and its meters."""
    from gridloom.app import App, load_configuration
    from gridloom.core.model import Device, MeterReading, Phase, Reading, ReadingType

    lines = ['[http]\nlisten = "127.0.0.1:0"', f'[everest]\nbroker = "mqtt://127.0.0.1:{port}"']
    lines += [f'[[everest.powermeter]]\nmodule_id = "m{number}"\ndevice = "bench:m{number}"' for number in range(MODULES)]
    path = Path(folder) / "gridloom.toml"
    path.write_text(f'[hub]\ndata_dir = "{folder}/data"\n' + "\n".join(lines))
    (Path(folder) / "data").mkdir()
    app = App(load_configuration(path, {}))
    await app.start()
    ids = [f"bench:m{number}" for number in range(MODULES)]
    for id in ids:
        await app.registry.register(Device(id=id, integration="bench", identity=id[6:], serial=id[6:]))
    types = [ReadingType("Energy.Active.Import.Register", "Wh"), ReadingType("Power.Active.Import", "W")]
    types += [ReadingType("Voltage", "V", Phase.L1), ReadingType("Current.Import", "A", Phase.L1)]

    async def meter(id: str, delay: float) -> None:
        await asyncio.sleep(delay)
        energy, due = 123_456_789, time.monotonic()
        while True:
            energy += 1
            now = app.clock.now()
            await app.intake.readings([MeterReading(id, now, now, tuple(Reading(type, energy + n) for n, type in enumerate(types)))])
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    meters = [asyncio.create_task(meter(id, number / MODULES)) for number, id in enumerate(ids)]
    await asyncio.sleep(2)
    await obey({"ready": True})
    for task in meters:
        task.cancel()
    await app.stop()


async def floor(port: int, folder: str) -> None:
    """What anybody pays: the driver of our link, echoing."""
    import aiomqtt

    async with aiomqtt.Client("127.0.0.1", port, identifier="floor") as client:
        for number in range(MODULES):
            await client.subscribe(f"everest_api/1/powermeter/m{number}/e2m/#")

        async def echo() -> None:
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                await client.publish(json.loads(message.payload)["headers"]["replyTo"], b'{"status":"OK"}')

        task = asyncio.create_task(echo())
        await obey({"ready": True})
        task.cancel()


class Asking:
    """EVerest's side: one request after the other, and when each was answered."""

    def __init__(self, port: int) -> None:
        self.heard: queue.Queue[tuple[str, bytes, float]] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.put((message.topic, bytes(message.payload), time.perf_counter()))
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("everest_api/1/powermeter/+/m2e/reply/+")
        self.client.loop_start()
        self.number = 0
        time.sleep(0.2)

    def ask(self, module: str, what: str, payload: Any) -> tuple[float, dict[str, Any]]:
        """Milliseconds to the reply, and the reply."""
        self.number += 1
        where = f"everest_api/1/powermeter/{module}/m2e/reply/{self.number}"
        request = json.dumps({"headers": {"replyTo": where}, "payload": payload})
        begin = time.perf_counter()
        self.client.publish(f"everest_api/1/powermeter/{module}/e2m/{what}", request)
        while True:
            topic, reply, at = self.heard.get(timeout=20)
            if topic == where:
                return (at - begin) * 1_000, json.loads(reply)


def start_request(key: str) -> dict[str, Any]:
    """As the EvseManager fills it."""
    return {
        "evse_id": "DE*PNX*E1*1", "identification_data": "04A1B2C3", "identification_flags": [], "identification_status": "ASSIGNED",
        "identification_type": "ISO14443", "transaction_id": key,
    }  # fmt: skip


def measure(role: str, port: int, seconds: float, rate: float) -> dict[str, float]:
    """Run one server and ask it for some time."""
    with tempfile.TemporaryDirectory(prefix="gridloom-bench-") as folder:
        command = [sys.executable, __file__, "--role", role, "--port", str(port), "--folder", folder]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdout.readline()
        asking = Asking(port)
        times: dict[str, list[float]] = {"start": [], "stop": []}

        def used() -> float:
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write("\n")
            server.stdin.flush()
            return float(json.loads(server.stdout.readline())["cpu"])

        time.sleep(3)
        idle_begin, idle_at = used(), time.perf_counter()
        time.sleep(min(5.0, seconds))
        idle = (used() - idle_begin) / (time.perf_counter() - idle_at)
        before, began, due, count = used(), time.perf_counter(), time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            module, key = f"m{count // 2 % MODULES}", f"t{count // 2}"
            what = "stop" if count % 2 else "start"
            took, reply = asking.ask(module, f"{what}_transaction", key if count % 2 else start_request(key))
            assert reply["status"] == "OK", reply
            times[what].append(took)
            count += 1
            due += 1 / rate
            time.sleep(max(0.0, due - time.perf_counter()))
        busy = (used() - before) / (time.perf_counter() - began)
        asking.client.disconnect()
        asking.client.loop_stop()
        server.stdin.close()
        server.wait(20)
        server.stdout.close()
    found = {
        f"{what}_{name}_ms": round(value, 2) for what, each in times.items() for name, value in (("p50", statistics.median(each)), ("p99", p99(each)))
    }
    return {**found, "asked": count, "cpu_percent_of_a_core": round(100 * busy, 1), "cpu_percent_only_values": round(100 * idle, 1)}


def p99(values: list[float]) -> float:
    """The value below which 99 of 100 are."""
    return sorted(values)[min(len(values) - 1, round(0.99 * len(values)))]


def main() -> int:
    """Print the figures; 1 with ``--check`` when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=20, help="requests a second")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--role", choices=("ours", "floor"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is not None:
        import uvloop

        uvloop.run({"ours": ours, "floor": floor}[options.role](options.port, options.folder))
        return 0
    with socket.socket() as free, tempfile.TemporaryDirectory(prefix="gridloom-bench-") as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        configuration = Path(folder) / "mosquitto.conf"
        configuration.write_text(f"user root\npersistence false\nlog_type none\nlistener {port} 127.0.0.1\nallow_anonymous true\n")
        broker = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        try:
            figures = {role: measure(role, port, options.seconds, options.rate) for role in ("floor", "ours")}
        finally:
            broker.terminate()
            broker.wait()
    worst = max(figures["ours"]["start_p99_ms"], figures["ours"]["stop_p99_ms"])
    holds = worst <= P99_MS and figures["ours"]["cpu_percent_of_a_core"] <= CPU_PERCENT
    print(json.dumps({"modules": MODULES, **figures, "targets": {"p99_ms": P99_MS, "cpu_percent_of_a_core": CPU_PERCENT}, "holds": holds}, indent=2))
    return 1 if options.check and not holds else 0


if __name__ == "__main__":
    sys.exit(main())
