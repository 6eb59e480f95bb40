"""``gridloom os3p …`` as a user runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hub_process import HubProcess, Hubs
from tests.integrations.os3p import station as raw

PROFILE = {
    "contactorId": 1,
    "profileId": 3,
    "stackLevel": 0,
    "recurrencyKind": "Daily",
    "daySchedule": [{"start": {"kind": "Absolute", "time": "20:00:00"}, "end": {"kind": "Absolute", "time": "02:30:00"}}],
}
OPTIONS = ("--geolocation", "[52.09,5.12]", "--timezone", "Europe/Amsterdam", "--contactor", "1", "--date", "2026-03-28")


def preview(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gridloom", "os3p", "schedule", "preview", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_preview_of_the_issue(tmp_path: Path) -> None:
    file = tmp_path / "profiles.json"
    file.write_text(json.dumps([PROFILE]))
    done = preview(*OPTIONS, "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "winner": 3,
        "daySchedule": [{"start": "20:00:00", "end": "03:00:00"}],
        "switching": [{"on": "2026-03-28T19:00:00Z", "off": "2026-03-29T01:00:00Z"}],
    }
    read = preview(*OPTIONS, str(file))
    assert read.returncode == 0
    assert "winner   profile 3: stack level 0, Daily; the only active profile" in read.stdout


@pytest.mark.parametrize("content", ["[{]", json.dumps([PROFILE, PROFILE])])
def test_a_wrong_file_is_exit_code_2(tmp_path: Path, content: str) -> None:
    file = tmp_path / "profiles.json"
    file.write_text(content)
    done = preview(*OPTIONS, str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{file}: $")


# -------------------------------------------------------------------------------------------------- with a hub that runs

CONFIG = """
[hub]
data_dir = "data"
[http]
listen = "127.0.0.1:0"
[os3p]
listen = "127.0.0.1:0"
accept = "approve"
"""


@pytest.fixture
def hub(hubs: Hubs) -> HubProcess:
    """`gridloom serve` with a Central System."""
    return hubs(CONFIG).start().ready()


async def run(hub: HubProcess, *arguments: str) -> tuple[int, str, str]:
    """`gridloom os3p …` while stations talk."""
    done = await asyncio.to_thread(hub.cli, "os3p", *arguments)
    return done.returncode, done.stdout, done.stderr


async def test_a_day_with_a_station(hub: HubProcess, tmp_path: Path) -> None:
    where = hub.endpoints["os3p"]
    assert await run(hub, "stations") == (0, "no station\n", "")
    async with raw.station(where, "SUBS 123") as one:
        one.replies["TriggerMessage"] = {"status": "Accepted"}
        assert (await one.boot())["status"] == "Pending"
        code, out, _ = await run(hub, "stations", "--pending")
        assert (code, out.splitlines()[1].split()[:3]) == (0, ["SUBS", "123", "waits"])
        assert await run(hub, "approve", "SUBS 123") == (0, "SUBS 123: accepted\n", "")
        await one.asked_for("TriggerMessage")
        assert (await one.boot())["status"] == "Accepted"
        await one.call("StreetlightStatusNotification", {"contactorId": 2, "status": "On", "timestamp": "2026-03-01T19:00:00Z"})
        await one.call("StatusNotification", {"status": "Faulted", "errorCode": "GroundFailure", "timestamp": "2026-03-01T20:00:00Z"})
        code, out, _ = await run(hub, "show", "SUBS 123")
        assert "light 2" in out
        assert "On, mode unknown" in out
        assert "SUBS-A1" in out
        found = json.loads((await run(hub, "stations", "subs", "--alarm", "--online", "--json"))[1])
        assert [each["identity"] for each in found] == ["SUBS 123"]
        code, out, _ = await run(hub, "events", "SUBS 123", "--kind", "light.*")
        assert (code, len(out.splitlines())) == (0, 2), out

        one.replies |= {
            "OverrideStreetlight": {"status": "RejectedLocalOverride"}, "Reset": {"status": "Accepted"},
            "GetFile": {"status": "Accepted", "fileName": "s"}, "UpdateFirmware": {},
        }  # fmt: skip
        code, out, _ = await run(hub, "send", "SUBS 123", "Reset")
        assert (code, json.loads(out)) == (0, {"status": "Accepted"})
        code, out, _ = await run(hub, "send", "SUBS 123", "OverrideStreetlight", '{"action": "On"}')
        assert code == 1
        assert "RejectedLocalOverride" in out
        code, out, error = await run(hub, "send", "SUBS 123", "OverrideStreetlight", '{"action": "Dim"}')
        assert (code, out) == (1, "")
        assert "$.payload.action" in error
        assert 'got "Dim"' in error
        assert (await run(hub, "send", "SUBS 123", "Reset", "{"))[0] == 2

        code, out, _ = await run(hub, "send", "SUBS 123", "GetFile", '{"fileType": "Syslog"}')
        from tests.integrations.os3p.face import raw as http

        assert (await http(one.asked[-1][3]["location"] + "/log.txt", body=[b"the log"]))[0] == 201
        (file,) = json.loads((await run(hub, "files", "list", "--json"))[1])
        target = tmp_path / "fetched.txt"
        assert await run(hub, "files", "get", file["id"], "-o", str(target)) == (0, f"{target}\n", "")
        assert target.read_bytes() == b"the log"
        code, _, error = await run(hub, "files", "get", file["id"], "-o", str(target))
        assert (code, "File exists" in error) == (1, True)
        firmware = tmp_path / "fw-2.bin"
        firmware.write_bytes(b"\x00firmware" * 300_000)
        code, out, _ = await run(hub, "files", "put", str(firmware))
        assert out.startswith("fw-2.bin: 2700000 bytes")
        assert (await run(hub, "send", "SUBS 123", "UpdateFirmware", "--file", "fw-2.bin"))[0] == 0
        assert one.asked[-1][3]["location"].endswith("/fw-2.bin")
        assert (await run(hub, "files", "delete", "fw-2.bin")) == (0, "", "")


async def test_what_a_station_says_does_not_steer_the_terminal(hub: HubProcess) -> None:
    evil = "\x1b]0;x\x07 \x9b31m \u202e\u2066 \x7f \U000e0041"
    harmful = set(evil) - {" ", "]", "0", ";", "x", "3", "1", "m"}
    async with raw.station(hub.endpoints["os3p"], "SUBS001") as one:
        one.replies |= {
            "TriggerMessage": {"status": "Accepted"}, "Reset": ["NotSupported", evil, {}],
            "GetConfiguration": {"configurationKey": [{"key": "K", "readonly": True, "value": evil}]},
        }  # fmt: skip
        await one.boot()
        assert (await run(hub, "approve", "SUBS001"))[0] == 0
        await one.boot(vendor=evil[:20], firmwareVersion=evil)
        await one.call("StatusNotification", {"status": "Faulted", "errorCode": "OtherError", "info": evil[:50], "vendorErrorCode": evil})
        commands = [
            ("stations",), ("stations", "--json"), ("show", "SUBS001"), ("show", "SUBS001", "--json"), ("events", "SUBS001"),
            ("events", "SUBS001", "--json"), ("send", "SUBS001", "GetConfiguration"), ("send", "SUBS001", "GetConfiguration", "--json"),
            ("send", "SUBS001", "Reset"),
        ]  # fmt: skip
        for command in commands:
            _, out, _ = await run(hub, *command)
            assert out, command
            assert not harmful & set(out), (command, out)
        _, out, _ = await run(hub, "send", "SUBS001", "GetConfiguration")
        assert json.loads(out)["keys"][0]["value"] == evil, "JSON reads back what it was"


async def test_all_that_wait_are_rejected_at_once(hub: HubProcess) -> None:
    async with raw.station(hub.endpoints["os3p"], "A") as a, raw.station(hub.endpoints["os3p"], "B") as b:
        await a.boot()
        await b.boot()
        assert await run(hub, "reject", "--all-pending") == (0, "A: rejected\nB: rejected\n", "")
        assert (await a.closed()).code == (await b.closed()).code == 1000
    assert await run(hub, "reject", "--all-pending") == (0, "", "")
    assert (await run(hub, "reject"))[0] == (await run(hub, "reject", "A", "--all-pending"))[0] == 2


async def test_a_secret_a_station_that_is_offline_and_what_is_wrong(hub: HubProcess) -> None:
    assert await run(hub, "add", "SUBS001", "--name", "Dike") == (0, "SUBS001: known\n", "")
    code, secret, _ = await run(hub, "secret", "SUBS001")
    assert (code, len(secret.strip())) == (0, 43)
    assert (await raw.knock(hub.endpoints["os3p"])).status == 401
    assert (await raw.knock(hub.endpoints["os3p"], headers=[raw.basic("SUBS001", secret.strip())])).status == 101
    assert secret.strip() not in (await run(hub, "show", "SUBS001", "--json"))[1]
    assert secret.strip() not in hub.log.read_text()
    assert (await run(hub, "strict", "SUBS001", "on"))[0] == 0
    assert json.loads((await run(hub, "show", "SUBS001", "--json"))[1])["strict"] is True
    assert (await run(hub, "strict", "SUBS001", "maybe"))[0] == 2
    code, out, error = await run(hub, "send", "SUBS001", "Reset")
    assert (code, "offline" in error) == (1, True)
    code, out, _ = await run(hub, "send", "SUBS001", "Reset", "--later", "600", "--wait", "0")
    assert (code, "waits for the station" in out) == (0, True)
    code, _, error = await run(hub, "show", "NOBODY")
    assert (code, error) == (1, "gridloom: the hub answered 404: there is no station 'NOBODY'\n")
    assert (await run(hub, "remove", "SUBS001"))[0] == 0


def test_without_a_hub_it_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gridloom", "os3p", "stations"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "gridloom serve" in done.stderr
