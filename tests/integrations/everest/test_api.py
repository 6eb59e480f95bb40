"""Powermeter modules and their keys over the hub's API and command line, and the simulated charger as a user starts it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.hub_process import Hubs, environment
from tests.integrations.everest.test_demo import within
from tests.links.mosquitto import Mosquitto

CONFIG = """
[http]
listen = "127.0.0.1:0"
[everest]
broker = "{broker}"
[[everest.powermeter]]
module_id = "pm one"
device = "tic:021762010203"
[[everest.powermeter]]
module_id = "pm2"
device = "tic:021762010203"
signing_key_file = "own.pem"
[[everest.charger]]
name = "bay"
evse_manager = "bay"
tokens = "bay"
"""


async def test_modules_keys_and_a_charger_from_the_command_line(tmp_path: Path, hubs: Hubs) -> None:
    broker = Mosquitto(tmp_path / "broker")
    hub = hubs(CONFIG.format(broker=broker.url))
    await asyncio.to_thread(hub.cli, "ocmf", "keygen", "own.pem")
    await asyncio.to_thread(lambda: hub.start().ready())
    listed = await asyncio.to_thread(hub.cli, "everest", "powermeters")
    assert listed.returncode == 0, listed.stderr
    assert "pm one: tic:021762010203, " in listed.stdout
    assert "calibrated" in listed.stdout
    before = hub.get("/api/v1/everest/powermeters")["items"][0]
    rotated = await asyncio.to_thread(hub.cli, "everest", "rotate-key", "pm one")
    assert rotated.returncode == 0, rotated.stderr
    after = hub.get("/api/v1/everest/powermeters")["items"][0]
    assert after["public_key"] != before["public_key"]
    assert after["former_keys"] == [before["public_key"]]
    assert after["public_key"] in rotated.stdout
    assert [one["kind"] for one in hub.get("/api/v1/events?kind=signing_key.changed")["items"]] == ["signing_key.changed"]
    owned = await asyncio.to_thread(hub.cli, "everest", "rotate-key", "pm2")
    assert owned.returncode == 1
    assert "own.pem" in owned.stderr
    assert (await asyncio.to_thread(hub.cli, "everest", "rotate-key", "nobody")).returncode == 1
    said = json.dumps(hub.get("/api/v1/everest/powermeters")) + listed.stdout + hub.log.read_text()
    private = [line for file in hub.folder.rglob("*.pem") if "public" not in str(file) for line in file.read_text().splitlines() if "--" not in line]
    assert private
    assert not [line for line in private if line in said]
    viewer = (await asyncio.to_thread(hub.cli, "token", "create", "--role", "viewer")).stdout.strip()
    assert hub.request("POST", "/api/v1/everest/powermeters/pm2/rotate-key", token=viewer)[0] == 403
    document = hub.get("/openapi.json")["paths"]
    assert set(document["/api/v1/everest/powermeters/{module_id}/rotate-key"]) == {"post"}

    command = [sys.executable, "-m", "gridloom", "sim", "everest", "--charger", "bay", "--broker", broker.url]
    playing = subprocess.Popen(command, cwd=tmp_path, env=environment(hub.source), stdout=subprocess.PIPE, text=True)
    try:
        await within(20, lambda: [one for one in hub.get("/api/v1/devices")["items"] if one["id"] == "everest:bay" and one["online"]])
        order = {"verb": "charge.start", "arguments": {"identification": "CARD"}}
        status, done = await asyncio.to_thread(hub.request, "POST", "/api/v1/devices/everest%3Abay/commands?wait=20", order)
        assert (status, done["state"]) == (200, "done"), done
        await within(5, lambda: hub.get("/api/v1/transactions?device=everest:bay")["items"])
    finally:
        playing.kill()
        playing.communicate()
    assert hub.stop() == 0
    broker.kill()
