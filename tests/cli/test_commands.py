"""The command line as a user types it: help, exit codes, clean errors, tokens with and without a running hub, backup and restore, lists."""

from __future__ import annotations

import importlib
import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hub_process import SOURCE, HubProcess, Hubs, environment, gridloom

from gridloom.config import OWN
from gridloom.integrations import NAMES

VERBS = ("serve", "demo", "check", "token", "devices", "readings", "events", "webhook", "backup", "restore", "sim")


def test_help_lists_every_verb_and_imports_nothing_heavy(tmp_path: Path) -> None:
    found = gridloom("--help", cwd=tmp_path)
    assert found.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} " in found.stdout, verb
    code = "import sys\nsys.argv = ['gridloom', '--help']\nfrom gridloom.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
    code += "print('MODULES', *sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(SOURCE), capture_output=True, text=True, timeout=30).stdout
    loaded = {name.split(".")[0] for name in said.partition("MODULES ")[2].split()}
    assert "typer" in loaded
    assert loaded & {"litestar", "uvicorn", "numpy", "httpx", "httpcore", "structlog", "argon2", "rich", "sqlite3", "asyncio"} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str, tmp_path: Path) -> None:
    found = gridloom(verb, "--help", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert f"Usage: gridloom {verb}" in found.stdout


def test_version_and_wrong_usage(tmp_path: Path) -> None:
    found = gridloom("--version", cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, "gridloom 0.1.0\n")
    for wrong in (("srve",), ("serve", "--cnfig", "x"), ("token", "create"), ("token", "create", "--role", "king"), ("restore",)):
        found = gridloom(*wrong, cwd=tmp_path)
        assert found.returncode == 2, wrong
        assert "Traceback" not in found.stderr
        assert found.stdout == ""


def test_check_shows_values_origins_and_warnings(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o644)
    text = f'[hub]\ntimezone = "Europe/Amsterdam"\n[[alarms.webhook]]\nname = "a"\nurl = "https://u:hunter2@h/"\nsecret_file = "{secret}"\n'
    (tmp_path / "gridloom.toml").write_text(text)
    found = gridloom("check", cwd=tmp_path, GRIDLOOM__LOG__LEVEL="debug")
    assert found.returncode == 0
    lines = {line.split()[0]: line.split()[1:] for line in found.stdout.splitlines()}
    assert lines["hub.timezone"] == ['"Europe/Amsterdam"', "gridloom.toml:2"]
    assert lines["log.level"] == ['"debug"', "GRIDLOOM__LOG__LEVEL"]
    assert lines["http.listen"] == ['"127.0.0.1:8470"', "default"]
    assert lines["alarms.webhook[0].url"] == ['"https://***@h/"', "gridloom.toml:5"]
    assert found.stdout.splitlines()[-1] == "gridloom.toml: all right, with 1 warnings"
    assert found.stderr == f"warning: gridloom.toml:6: alarms.webhook[0].secret_file: {secret} can be read by other users; " + (
        f"make it yours alone: chmod 600 {secret}\n"
    )
    assert "hunter2" not in found.stdout + found.stderr


def test_check_of_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[hub]\ndata_dri = 1\n\n[loog]\n")
    found = gridloom("check", "--config", "other.toml", cwd=tmp_path)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.splitlines() == [
        'other.toml:2: hub.data_dri: unknown key, did you mean "data_dir"?; allowed here: data_dir, timezone',
        f'other.toml:4: loog: unknown section, did you mean "log"?; allowed here: {", ".join([*OWN, *NAMES])}',
    ]
    found = gridloom("check", "--config", "missing.toml", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (2, "missing.toml: cannot be read: No such file or directory\n")
    found = gridloom("check", cwd=tmp_path, GRIDLOOM__HTTP__LISEN="x")
    assert found.returncode == 2
    assert "GRIDLOOM__HTTP__LISEN: unknown key" in found.stderr


def test_tokens_without_a_running_hub(tmp_path: Path, hubs: Hubs) -> None:
    hub = hubs()
    made = hub.cli("token", "create", "--role", "viewer", "--account", "ann@example.org", "--name", "phone")
    assert made.returncode == 0, made.stderr
    (secret,) = made.stdout.splitlines()
    assert len(secret) == 43
    admin = hub.cli("token", "create", "--role", "admin").stdout.strip()
    assert stat.S_IMODE((hub.data / "admin.token").stat().st_mode) == 0o600
    listed = hub.cli("token", "list")
    assert "viewer in *" in listed.stdout
    assert "phone" in listed.stdout
    assert secret not in listed.stdout
    hub.start().ready()
    assert hub.request("GET", "/api/v1/me", token=secret)[1]["grants"][0]["role"] == "viewer"
    assert hub.request("GET", "/api/v1/me", token=admin)[1]["account"] == "admin"
    assert hub.get("/api/v1/me")["account"] == "admin", "the token of admin.token is valid, whoever made the store"
    assert hub.stop() == 0


def test_tokens_with_a_running_hub(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    for role, account in (("viewer", None), ("owner", "bob@example.org"), ("operator", "eve@example.org"), ("viewer", "eve@example.org")):
        made = hub.cli("token", "create", "--role", role, *(("--account", account) if account else ()))
        assert made.returncode == 0, made.stderr
        (secret,) = made.stdout.splitlines()
        status, me = hub.request("GET", "/api/v1/me", token=secret)
        assert (status, me["grants"][0]["role"]) == (200, role)
    listed = json.loads(hub.cli("token", "list", "--json").stdout)
    assert len(listed) == 5
    (bob,) = [one for one in listed if one["grants"][0]["role"] == "owner"]
    assert hub.cli("token", "revoke", bob["id"]).returncode == 0
    assert len(json.loads(hub.cli("token", "list", "--json").stdout)) == 4
    missing = hub.cli("token", "revoke", "nonsense")
    assert missing.returncode == 1
    assert missing.stderr.startswith("gridloom: the hub answered 404: ")
    assert len(missing.stderr.splitlines()) == 1
    assert hub.stop() == 0


def test_a_token_of_a_viewer_may_look_only(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    viewer = hub.cli("token", "create", "--role", "viewer", "--account", "ann@example.org").stdout.strip()
    assert hub.request("GET", "/api/v1/devices", token=viewer)[0] == 200
    assert hub.request("POST", "/api/v1/tokens", {"role": "admin"}, token=viewer)[0] == 403
    assert hub.stop() == 0


def test_lists_of_a_running_hub_and_none_without(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    assert hub.cli("devices").stdout == "no device yet\n"
    events = hub.cli("events")
    assert "hub.started" in events.stdout, events.stderr
    assert json.loads(hub.cli("events", "--json", "--limit", "1").stdout)[0]["device"] == "hub"
    missing = hub.cli("readings", "tic:1")
    assert missing.returncode == 1
    assert missing.stderr.startswith("gridloom: the hub answered 404: ")
    assert hub.stop() == 0
    for verb in (("devices",), ("events",), ("readings", "x"), ("webhook", "log", "a")):
        found = hub.cli(*verb)
        assert (found.returncode, found.stderr) == (1, "gridloom: no hub runs on this data_dir; start it with: gridloom serve\n")


def test_backup_while_it_runs_and_restore_when_it_does_not(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    first = hub.cli("token", "create", "--role", "viewer", "--name", "before").stdout.strip()
    copy = hub.folder / "copy.db"
    made = hub.cli("backup", str(copy))
    assert (made.returncode, made.stdout) == (0, f"{copy}\n"), made.stderr
    again = hub.cli("backup", str(copy))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    second = hub.cli("token", "create", "--role", "viewer", "--name", "after").stdout.strip()
    refused = hub.cli("restore", "--from", str(copy))
    assert refused.returncode == 2
    assert "is used by process" in refused.stderr
    assert hub.get("/readyz")["ready"] is True
    assert hub.stop() == 0
    copied = copy.read_bytes()
    (hub.folder / "bad.db").write_bytes(copied[: len(copied) // 2])
    bad = hub.cli("restore", "--from", "bad.db")
    assert bad.returncode == 2
    assert bad.stderr.startswith("gridloom: bad.db: ")
    assert hub.cli("restore", "--from", "none.db").stderr == "gridloom: none.db: no such file\n"
    done = hub.cli("restore", "--from", str(copy))
    assert done.returncode == 0, done.stderr
    assert "the store that was there is now" in done.stdout
    assert "admin.token" not in done.stdout, "it opens the restored store: it stays"
    assert len(list(hub.data.glob("gridloom.db.replaced-*"))) >= 1
    assert copy.exists()
    hub.start().ready()
    assert hub.request("GET", "/api/v1/me", token=first)[0] == 200
    assert hub.request("GET", "/api/v1/me", token=second)[0] == 401, "it was made after the backup"
    assert hub.stop() == 0


def damage(hub: HubProcess) -> bytes:
    """Overwrite the beginning of its store; returns what the file holds now."""
    store = hub.data / "gridloom.db"
    with open(store, "r+b") as file:
        file.write(b"no database " * 400)
    return store.read_bytes()


def test_a_restore_after_a_quarantine_gives_an_admin_token_that_opens_it(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    copy = hub.folder / "copy.db"
    assert hub.cli("backup", str(copy)).returncode == 0
    old = hub.token
    assert hub.stop() == 0
    damage(hub)
    hub.start().ready()
    assert hub.token != old, "the new store has a new admin"
    (alarm,) = hub.get("/api/v1/alarms")["items"]
    assert (alarm["kind"], alarm["state"]) == ("storage.quarantined", "raised")
    assert hub.stop() == 0
    other = hub.token
    done = hub.cli("restore", "--from", str(copy))
    assert done.returncode == 0, done.stderr
    assert "admin.token" in done.stdout.splitlines()[1]
    assert hub.token not in (old, other)
    assert hub.token not in done.stdout + done.stderr
    assert stat.S_IMODE((hub.data / "admin.token").stat().st_mode) == 0o600
    hub.start().ready()
    assert hub.get("/api/v1/me")["account"] == "admin"
    assert hub.cli("devices").returncode == 0, "the command line is not locked out"
    told = [one for one in hub.get("/api/v1/events?device=hub")["items"] if one["kind"] == "storage.restored"]
    assert [one["message"] for one in told] == [f"from {copy}"]
    assert hub.get("/api/v1/alarms")["items"] == []
    assert hub.stop() == 0
    hub.start().ready()
    kinds = [one["kind"] for one in hub.get("/api/v1/events?device=hub")["items"]]
    assert kinds.count("storage.restored") == 1, "only the first start tells of it"
    assert hub.stop() == 0


def test_a_restore_without_an_admin_token_file_makes_one(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    copy = hub.folder / "copy.db"
    assert hub.cli("backup", str(copy)).returncode == 0
    assert hub.stop() == 0
    (hub.data / "admin.token").unlink()
    assert "admin.token" in hub.cli("restore", "--from", str(copy)).stdout
    hub.start().ready()
    assert hub.get("/api/v1/me")["account"] == "admin"
    assert hub.stop() == 0


def test_verbs_without_a_hub_leave_a_damaged_store_alone_and_say_how_to_go_back(hubs: Hubs) -> None:
    hub = hubs()
    assert hub.cli("token", "list").returncode == 0
    damaged = damage(hub)
    for verb in (("token", "list"), ("token", "create", "--role", "viewer"), ("backup", "copy.db")):
        found = hub.cli(*verb)
        assert found.returncode == 2, (verb, found.stderr)
        (line,) = found.stderr.splitlines()
        assert line.startswith("gridloom: data/gridloom.db: the store is damaged: "), line
        assert line.endswith("gridloom restore --from BACKUP")
        assert (hub.data / "gridloom.db").read_bytes() == damaged
    assert not list(hub.data.glob("*quarantine*"))
    assert not (hub.folder / "copy.db").exists()


def test_the_log_of_a_webhook_that_is_not_configured(hubs: Hubs) -> None:
    hub = hubs('[http]\nlisten = "127.0.0.1:0"\n[[alarms.webhook]]\nname = "pager"\nurl = "http://192.0.2.1/"\n').start().ready()
    wrong = hub.cli("webhook", "log", "pagr")
    assert wrong.returncode == 2
    assert "there is no webhook 'pagr'; configured: pager" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert hub.cli("webhook", "log", "pager").returncode == 0
    assert hub.stop() == 0


def test_sim_lists_what_there_is(tmp_path: Path) -> None:
    found = gridloom("sim", cwd=tmp_path)
    assert found.returncode == 0
    offered = [name for name in NAMES if hasattr(importlib.import_module(f"gridloom.integrations.{name}.cli"), "sim")]
    assert ("No integration of this version offers a simulator." in found.stdout) == (not offered)
    assert all(name in found.stdout for name in offered)
