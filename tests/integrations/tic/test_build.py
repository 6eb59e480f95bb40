"""The whole hub as its owner starts it: with nothing configured, and with a line of its own. Clients share no code with us."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import websockets
from tests.hub_process import HubProcess, Hubs
from tests.integrations.tic.pty import HISTORIC_SERIAL, Meter, historic


async def within(seconds: float, look: Callable[[], Any]) -> Any:
    """What ``look`` gives once it is true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = await asyncio.to_thread(look)
        if found:
            return found
        assert loop.time() < end, f"not within {seconds} s"
        await asyncio.sleep(0.1)


async def ask(hub: HubProcess, name: str, data: Any = None) -> Any:
    """One request to the TIC2WebSocket API."""
    async with websockets.connect(f"ws://{hub.endpoints['tic']}") as client:
        await client.send(json.dumps({"type": "REQUEST", "name": name} | ({} if data is None else {"data": data})))
        return json.loads(await asyncio.wait_for(client.recv(), 15))


def online(hub: HubProcess) -> list[Any]:
    return [device for device in hub.get("/api/v1/devices")["items"] if device["online"] and device["id"].startswith("tic:")]


def has_energy(hub: HubProcess, id: str) -> bool:
    return "Energy.Active.Import.Register" in {value["measurand"] for value in hub.get(f"/api/v1/devices/{id}/readings")["items"]}


async def test_with_nothing_configured_two_simulated_linkys_are_read_and_served(hubs: Hubs) -> None:
    listen = {"GRIDLOOM__HTTP__LISTEN": "127.0.0.1:0", "GRIDLOOM__TIC__LISTEN": "127.0.0.1:0"}
    hub = await asyncio.to_thread(hubs(None, env=listen, verb=("demo", "--for", "60")).start)
    hub.data = await within(15, lambda: _data_of(hub))
    await asyncio.to_thread(hub.ready)
    devices = await within(20, lambda: found if len(found := online(hub)) == 2 else None)
    assert {device["attributes"]["mode"] for device in devices} == {"historic", "standard"}
    available = await ask(hub, "GetAvailableTICs")
    assert {one["serialNumber"] for one in available["data"]} == {device["serial"] for device in devices}
    read = await ask(hub, "ReadTIC", {"serialNumber": devices[0]["serial"]})
    assert read["errorCode"] == 0
    for device in devices:
        await within(20, partial(has_energy, hub, device["id"]))
    assert hub.get("/readyz") == {"ready": True, "reasons": []}
    raised = [event["kind"] for event in hub.get("/api/v1/events")["items"] if event.get("state") == "raised"]
    assert raised == [], "a demo begins without alarms"
    assert await asyncio.to_thread(hub.stop) == 0


def _data_of(hub: HubProcess) -> Path | None:
    """Where a demo keeps its data: it says so on its screen."""
    lines = [line for line in hub.said.read_text().splitlines() if line.startswith("  data ")]
    return Path(lines[0].split()[1]) if lines else None


async def test_a_line_of_the_owner_is_read_and_its_loss_is_health_and_alarm(hubs: Hubs, tmp_path: Path) -> None:
    link = tmp_path / "ttyTIC0"
    config = f'[http]\nlisten = "127.0.0.1:0"\n[tic]\nlisten = "127.0.0.1:0"\nports = ["{link}"]\ndiscover = false\nmode = "historic"\n'
    async with Meter(link, historic, 1200) as meter:
        hub = await asyncio.to_thread(lambda: hubs(config).start().ready())
        devices = await within(15, lambda: online(hub))
        assert [device["id"] for device in devices] == [f"tic:{HISTORIC_SERIAL}"]
        frame = await ask(hub, "ReadTIC", {"portName": str(link)})
        assert frame["data"]["content"]["ADCO"] == HISTORIC_SERIAL
        assert not (hub.data / "simulated").exists(), "with a configuration nothing is simulated"
        meter.unplug()
        ready = await within(10, lambda: found if (found := hub.get("/readyz"))["reasons"] else None)
        assert ready["ready"] is True
        assert [(one["part"], one["reason"]) for one in ready["reasons"]] == [("tic.lines", f"{link}: unplugged")]
        kinds = await within(10, lambda: found if len(found := _alarms(hub)) >= 2 else None)
        assert kinds == {"line.lost", "device.offline"}
        meter.plug()
        await within(10, lambda: not _alarms(hub))
        assert hub.get("/readyz")["reasons"] == []
        _, text = hub.request("GET", "/metrics")
        assert f'gridloom_tic_line_quality_ratio{{port="{link}"}}' in text
        assert "gridloom_tic_frames_total" in text
        assert hub.stop() == 0


def _alarms(hub: HubProcess) -> set[str]:
    return {alarm["kind"] for alarm in hub.get("/api/v1/alarms")["items"]}


def test_a_wrong_port_is_refused_with_what_is_allowed_and_without_its_credentials(hubs: Hubs) -> None:
    hub = hubs('[tic]\nports = ["http://owner:pass@meter:80"]\n')
    check = hub.cli("check", "--config", "gridloom.toml")
    assert check.returncode == 2
    assert "gridloom.toml:2: tic.ports" in check.stderr
    assert "rfc2217://host:port" in check.stderr
    assert "pass@" not in check.stderr + check.stdout
