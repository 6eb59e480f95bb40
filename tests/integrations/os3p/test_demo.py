"""A demo shows substations that are online, and ends them in order."""

from __future__ import annotations

import time
from typing import Any

from tests.hub_process import HubProcess, Hubs


def stations(hub: HubProcess) -> list[Any]:
    return list(hub.get("/api/v1/os3p/stations?online=true")["items"])


def test_a_demo_shows_stations_and_their_values(hubs: Hubs) -> None:
    hub = hubs("", verb=("demo", "--config", "gridloom.toml"), env={"GRIDLOOM__HUB__DATA_DIR": "data"})
    hub.start().ready()
    end = time.monotonic() + 15
    while len(stations(hub)) < 3:
        assert time.monotonic() < end, "three stations"
        time.sleep(0.1)
    assert [one["identity"] for one in stations(hub)] == ["SUBS 001", "SUBS 002", "SUBS 003"]
    assert {one["admission"] for one in stations(hub)} == {"known"}
    order = {"message": "TriggerMessage", "payload": {"requestedMessage": "MeterValues"}}
    status, answered = hub.request("POST", "/api/v1/os3p/stations/SUBS%20001/messages?wait=10", order)
    assert status in (200, 202), answered
    while not hub.get("/api/v1/devices/os3p%3ASUBS%20001/readings")["items"]:
        assert time.monotonic() < end, "values"
        time.sleep(0.1)
    assert hub.stop() == 0
    log = hub.log.read_text()
    assert "Traceback" not in log
    assert "unclosed" not in log
    assert (hub.data / "simulated" / "os3p" / "SUBS-001" / "state.log").is_file()
