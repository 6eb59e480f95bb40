"""Kill -9 of the gateway and of the hub, real processes on a simulated line: no order is carried out twice, none is left without an answer."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.hub_process import SOURCE, HubProcess, Hubs, environment

from gridloom.core.clock import Clock
from gridloom.integrations.ekm.simulator import Line, Simulator, meter

METER, MAC = "000300000234", "995DAD427614"
KILLS = 8
BAUD = 115_200
FINAL = {"done", "refused", "failed", "expired", "cancelled", "unknown"}


class Gateway:
    """``gridloom ekm gateway`` in a process of its own."""

    def __init__(self, folder: Path, push: str, line: Path, key: str) -> None:
        self.log = folder / "gateway.txt"
        (folder / "key").write_text(key)
        self.command = [
            sys.executable, "-m", "gridloom", "ekm", "gateway", "--hub", f"ws://{push}", "--mac", MAC, "--bus", f"{line} {METER}:v4",
            "--key-file", str(folder / "key"), "--data", str(folder / "gateway"), "--poll", "1", "--baud", str(BAUD),
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, env=environment(SOURCE), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


def states(hub: HubProcess, ids: list[str]) -> dict[str, dict[str, Any]]:
    return {id: hub.get(f"/api/v1/commands/{id}") for id in ids}


def online(hub: HubProcess) -> bool:
    status, found = hub.request("GET", f"/api/v1/devices/ekm:{METER}")
    return status == 200 and bool(found["online"])


async def until(true: Any, log: Any, seconds: float = 40) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not await asyncio.to_thread(true):
        assert asyncio.get_running_loop().time() < end, log()
        await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_no_order_is_carried_out_twice_and_none_is_left_without_an_answer(hubs: Hubs, tmp_path: Path) -> None:
    random = Random(9)
    line = Line([meter(f"{METER}:v4", Clock())])
    simulator = Simulator(tmp_path / "line", line, baud=BAUD)
    await simulator.start()
    push = f"127.0.0.1:{free_port()}"
    hub = hubs(f'[http]\nlisten = "127.0.0.1:0"\n[ekm]\npush_listen = "{push}"\n').start()
    await asyncio.to_thread(hub.ready)
    made = await asyncio.to_thread(hub.cli, "ekm", "key", "create", "admin", "--mac", MAC)
    key = made.stdout.strip()
    gateway = Gateway(tmp_path, push, tmp_path / "line", key)

    def told() -> str:
        return f"{hub.log.read_text()[-2000:]}\n{gateway.log.read_text()[-2000:]}"

    accepted: dict[str, int] = {}
    channel = ""
    try:
        gateway.start()
        await until(lambda: online(hub), told)
        for number in range(KILLS):
            for duration in (2 * number + 1, 2 * number + 2):
                params = {"relay": "Relay_1", "status": "close", "duration": duration}
                body = {"command": "SetRelay", "target": "meter", "target_id": METER, "params": params}
                status, answer = await asyncio.to_thread(hub.request, "POST", f"/sendCommand?key={key}", body)
                assert status == 200, answer
                accepted[answer["msg_id"]] = duration
                channel = answer["response_channel_id"]
            await asyncio.sleep(random.uniform(0, 0.25))
            if number % 2:
                assert hub.process is not None
                hub.process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(hub.process.wait)
                hub.start()
                await asyncio.to_thread(hub.ready)
            else:
                await asyncio.to_thread(gateway.kill)
                gateway.start()
        found: dict[str, dict[str, Any]] = {}

        def all_ended() -> bool:
            found.update(states(hub, list(accepted)))
            return all(one["state"] in FINAL for one in found.values())

        await until(all_ended, told, 90)
        await until(lambda: online(hub), told)
        messages = await replay(push, channel)
        _, read = await asyncio.to_thread(hub.request, "GET", f"/readMeter?key={key}&cnt=3", None, None)
    finally:
        if gateway.process is not None and gateway.process.poll() is None:
            await asyncio.to_thread(gateway.kill)
        await asyncio.to_thread(hub.stop)
        await simulator.stop()
    assert 90 < read[METER][0]["RMS_Volts_Ln_1"] < 260, "what the meter says arrives all the same"
    carried_out = [int(data[1:]) for register, data in line.meters[0].writes if register == "0081"]
    assert len(carried_out) == len(set(carried_out)), "never twice"
    for id, duration in accepted.items():
        state = found[id]["state"]
        assert state != "done" or duration in carried_out, "what is told as done was done"
        assert state not in ("refused", "expired") or duration not in carried_out, "what is told as not sent was not"
        assert id in messages, "and each has its answer on the channel"
    outcome = {state: sum(one["state"] == state for one in found.values()) for state in sorted(FINAL)}
    assert outcome["done"] >= KILLS, (outcome, told())


async def replay(push: str, channel: str) -> str:
    """What the channel has stored."""
    host, _, port = push.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /sub/{channel} HTTP/1.1\r\nHost: x\r\nX-Nginx-PushStream-Mode: polling\r\n\r\n".encode())
    text = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    await writer.wait_closed()
    return text
