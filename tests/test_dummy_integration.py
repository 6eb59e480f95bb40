"""The proof of DESIGN: a new integration is one folder and one name, and nothing else in the tree changes.

The source tree is copied, the folder ``tests/data/dummy`` put into ``integrations`` and its name into ``NAMES``; a hub is run from that copy as its
users run it, and asked through its own doors only: HTTP, command line, metrics.
"""

from __future__ import annotations

import filecmp
import time
from pathlib import Path
from typing import Any

import pytest
from tests.hub_process import SOURCE, HubProcess, Hubs, gridloom, with_dummy

DUMMY = Path(__file__).parent / "data" / "dummy"
CONFIG = """[http]
listen = "127.0.0.1:0"
[dummy]
identity = "00 01/é"
every = "20ms"
pass_key = "hunter2"
"""
DEVICE = "dummy:00%2001%2F%C3%A9"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with one folder and one name more."""
    return with_dummy(tmp_path_factory.mktemp("tree") / "src")


def until(hub: HubProcess, path: str, good: Any, seconds: float = 10) -> Any:
    """The answer once it is good."""
    end = time.monotonic() + seconds
    while True:
        found = hub.get(path)
        if good(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_one_folder_one_name_and_it_is_all_there(tree: Path, hubs: Hubs) -> None:
    # In the demo a hub starts the simulators; here the device itself is the simulator on the other end of the null modem.
    hub = hubs(CONFIG, source=tree, verb=("demo", "--config", "gridloom.toml"), env={"GRIDLOOM__HUB__DATA_DIR": "data"}).start().ready()
    assert hub.endpoints["dummy"] == "null modem"

    device = until(hub, f"/api/v1/devices/{DEVICE}", lambda found: found["online"])
    assert (device["id"], device["kind"], device["verbs"]) == ("dummy:00 01/é", "io", ["relay.set"])

    latest = until(hub, f"/api/v1/devices/{DEVICE}/readings", lambda found: len(found["items"]) == 2)
    values = {value["measurand"]: value for value in latest["items"]}
    assert 230 <= values["Power.Active.Import"]["value"] <= 236
    assert values["Energy.Active.Import.Register"]["value"] > 10_000
    assert values["Energy.Active.Import.Register"]["unit"] == "Wh"
    assert "simulated" in values["Power.Active.Import"]["quality"]

    order = {"verb": "relay.set", "arguments": {"relay": 2, "state": "closed"}}
    status, command = hub.request("POST", f"/api/v1/devices/{DEVICE}/commands?wait=10", order)
    assert status in (200, 201, 202), command
    done = until(hub, f"/api/v1/commands/{command['id']}", lambda found: found["final"])
    assert (done["state"], done["result"]) == ("done", {"relay": 2, "state": "closed"})
    status, problem = hub.request("POST", f"/api/v1/devices/{DEVICE}/commands", {"verb": "relay.set", "arguments": {"relay": 99, "state": "ajar"}})
    assert status == 400
    assert len(problem["errors"]) == 2, problem

    wanted = {"device.booted", "fault.overcurrent"}
    events = until(hub, f"/api/v1/events?device={DEVICE}", lambda found: wanted <= {one["kind"] for one in found["items"]})
    booted = next(one for one in events["items"] if one["kind"] == "device.booted")
    assert booted["data"] == {"count": 1}
    # Raised and cleared by the simulator: its history holds both.
    faults = f"/api/v1/events?device={DEVICE}&kind=fault.overcurrent"
    until(hub, faults, lambda found: [one["state"] for one in found["items"]] == ["cleared", "raised"])

    assert hub.get("/dummy/starts") == {"account": "admin", "count": 1}
    assert hub.request("GET", "/dummy/starts", token=None)[0] == 401

    status, text = hub.request("GET", "/metrics")
    assert status == 200
    assert float(next(line.split()[1] for line in text.splitlines() if line.startswith("gridloom_dummy_bad_lines_total "))) > 0
    assert 'gridloom_service_up{service="dummy"} 1' in text

    audit = hub.get("/api/v1/audit")["items"]
    assert any(line["action"] == "relay.set" and line["target"] for line in audit)

    assert hub.stop() == 0
    assert "hunter2" not in hub.log.read_text() + hub.said.read_text()


def test_an_alarm_is_active_until_it_is_cleared(tree: Path, hubs: Hubs) -> None:
    config = CONFIG.replace("20ms", "400ms")  # raised after 2 s, cleared after 4 s
    hub = hubs(config, source=tree, verb=("demo", "--config", "gridloom.toml"), env={"GRIDLOOM__HUB__DATA_DIR": "data"}).start().ready()
    found = until(hub, "/api/v1/alarms", lambda found: any(one["kind"] == "fault.overcurrent" for one in found["items"]))
    (alarm,) = [one for one in found["items"] if one["kind"] == "fault.overcurrent"]
    assert (alarm["device"], alarm["subject"], alarm["state"], alarm["severity"]) == ("dummy:00 01/é", "L1", "raised", "critical")
    until(hub, "/api/v1/alarms", lambda found: not any(one["kind"] == "fault.overcurrent" for one in found["items"]))


def test_a_document_and_what_was_kept_survive_a_restart(tree: Path, hubs: Hubs) -> None:
    hub = hubs(CONFIG, source=tree).start().ready()
    assert hub.get("/dummy/starts")["count"] == 1
    assert hub.stop() == 0
    hub.start().ready()
    assert hub.get("/dummy/starts")["count"] == 2
    assert hub.get(f"/api/v1/devices/{DEVICE}")["id"] == "dummy:00 01/é"
    # Without simulators the wire is silent, and the order runs into its time-out, which is said.
    status, command = hub.request("POST", f"/api/v1/devices/{DEVICE}/commands", {"verb": "relay.set", "arguments": {"relay": 1, "state": "open"}})
    assert status in (201, 202), command
    done = until(hub, f"/api/v1/commands/{command['id']}", lambda found: found["final"], seconds=15)
    assert done["state"] == "failed"
    assert "no answer to relay 1 within 5 s" in done["error"]
    assert hub.stop() == 0


def test_its_section_is_as_strict_as_ours_and_absent_is_off(tree: Path, tmp_path: Path, hubs: Hubs) -> None:
    (tmp_path / "gridloom.toml").write_text('[dummy]\nidentty = "x"\nevery = "soon"\n')
    found = gridloom("check", cwd=tmp_path, source=tree)
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        'gridloom.toml:2: dummy.identty: unknown key, did you mean "identity"?; allowed here: identity, every, pass_key, ledger',
        'gridloom.toml:3: dummy.every: "soon": neither seconds nor a number with one of ms, s, m, min, h, d behind it; '
        'allowed: a duration above 0: seconds as a number, or e.g. "250ms", "30s", "15m", "1h30m", "2d"',
    ]
    (tmp_path / "gridloom.toml").write_text('[dummy]\npass_key = "hunter2"\n')
    found = gridloom("check", cwd=tmp_path, source=tree, GRIDLOOM__DUMMY__EVERY="1s")
    assert found.returncode == 0
    assert "hunter2" not in found.stdout
    assert [line.split() for line in found.stdout.splitlines() if line.startswith("dummy.")] == [
        ["dummy.identity", '"0001"', "default"],
        ["dummy.every", "1.0", "GRIDLOOM__DUMMY__EVERY"],
        ["dummy.pass_key", "***", "gridloom.toml:2"],
        ["dummy.ledger", '""', "default"],
    ]
    hub = hubs(source=tree).start().ready()
    assert hub.get("/api/v1/devices")["items"] == []
    assert hub.request("GET", "/dummy/starts")[0] == 404
    assert hub.stop() == 0


def test_with_nothing_configured_its_simulator_is_shown_and_with_something_it_is_not(tree: Path, hubs: Hubs) -> None:
    listen = {"GRIDLOOM__HTTP__LISTEN": "127.0.0.1:0"}
    hub = hubs(None, source=tree, env=listen).start().ready()
    until(hub, "/api/v1/devices/dummy:0001/readings", lambda found: len(found["items"]) == 2)
    assert "dummy simulator" in hub.said.read_text()
    assert hub.stop() == 0
    hub = hubs(None, name="other", source=tree, env={**listen, "GRIDLOOM__DUMMY__EVERY": "10ms"}).start().ready()
    time.sleep(0.3)
    assert hub.get("/api/v1/devices/dummy:0001/readings")["items"] == []
    assert "simulated" not in hub.said.read_text()
    assert hub.stop() == 0


def test_its_verbs_are_there_by_its_name_alone(tree: Path, tmp_path: Path) -> None:
    root = gridloom("--help", cwd=tmp_path, source=tree).stdout
    assert "dummy" in root
    assert "A device that does not exist." in root
    assert gridloom("dummy", "decode", "P=230", cwd=tmp_path, source=tree).stdout == "Line(name='P', value=230)\n"
    assert gridloom("sim", "dummy", "--count", "2", cwd=tmp_path, source=tree).stdout == "P=230\nP=231\n"
    assert "dummy" in gridloom("sim", cwd=tmp_path, source=tree).stdout
    assert gridloom("dummy", "decode", "P=230", cwd=tmp_path, source=SOURCE).returncode == 2, "without the name it is not there"


def test_nothing_else_in_the_tree_changed(tree: Path) -> None:
    """Runs last in this file: after all of the above the copy differs by the folder and the one line."""

    def differences(ours: Path, theirs: Path) -> list[str]:
        found = filecmp.dircmp(ours, theirs, ignore=["__pycache__"], hide=[])
        names = [str((theirs / name).relative_to(tree)) for name in [*found.left_only, *found.right_only]]
        _, different, errors = filecmp.cmpfiles(ours, theirs, found.common_files, shallow=False)
        names += [str((theirs / name).relative_to(tree)) for name in [*different, *errors]]
        for name in found.common_dirs:
            names += differences(ours / name, theirs / name)
        return names

    original = tree.with_name("before") / "gridloom"
    assert sorted(differences(original, tree / "gridloom")) == ["gridloom/integrations/__init__.py", "gridloom/integrations/dummy"]
    before = (original / "integrations/__init__.py").read_text().splitlines()
    after = (tree / "gridloom/integrations/__init__.py").read_text().splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 1
    assert all(line.startswith("NAMES") for line in changed[0])
    assert not filecmp.dircmp(DUMMY, tree / "gridloom/integrations/dummy", ignore=["__pycache__"]).diff_files
