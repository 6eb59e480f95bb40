"""app: one hub as a process: endpoints, token, lock, screen, stop, demo, busy ports, full and damaged stores, systemd, webhooks."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import trustme
from tests.hub_process import SOURCE, HubProcess, Hubs, environment, gridloom, with_dummy

from gridloom.app import Argon2Hasher
from gridloom.integrations import NAMES

CONFIG = '[http]\nlisten = "127.0.0.1:0"\n'


def ended(hub: HubProcess, seconds: float = 15) -> tuple[int, str]:
    """Exit code and standard error of a hub that ends by itself."""
    assert hub.process is not None
    code = hub.process.wait(seconds)
    return code, hub.log.read_text()


# ------------------------------------------------------------------------------------------------------------ start and stop


def test_start_writes_endpoints_and_token_and_stop_takes_the_endpoints_away(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    assert set(hub.endpoints) == {"http"}
    host, _, port = hub.endpoints["http"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    mode = (hub.data / "admin.token").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert len(hub.token) == 43
    assert stat.S_IMODE(hub.data.stat().st_mode) == 0o700
    assert hub.request("GET", "/api/v1/devices")[0] == 200
    assert hub.request("GET", "/api/v1/devices", token="x" * 43)[0] == 401
    assert hub.get("/readyz")["ready"] is True
    begin = time.monotonic()
    assert hub.stop(signal.SIGTERM) == 0
    assert time.monotonic() - begin < 5
    assert not (hub.data / "endpoints.json").exists()
    assert hub.token not in hub.log.read_text() + hub.said.read_text()


def test_the_admin_token_is_made_at_the_first_start_only(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    token = hub.token
    assert hub.stop(signal.SIGINT) == 0
    (hub.data / "admin.token").unlink()
    hub.start().ready()
    assert not (hub.data / "admin.token").exists(), "an owner who took the file away does not find a new one"
    assert hub.request("GET", "/api/v1/me", token=token)[0] == 200
    assert hub.stop() == 0


def test_started_stopped_and_crashed_are_events(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    assert hub.stop() == 0
    hub.start().ready()
    assert hub.process is not None
    hub.process.kill()
    hub.process.wait()
    hub.start().ready()
    kinds = [one["kind"] for one in reversed(hub.get("/api/v1/events?device=hub")["items"])]
    assert kinds == ["hub.started", "hub.stopped", "hub.started", "hub.crashed", "hub.started"]
    assert hub.stop() == 0


def test_the_screen_says_where_to_look(hubs: Hubs) -> None:
    hub = hubs(None, env={"GRIDLOOM__HTTP__LISTEN": "127.0.0.1:0"}).start().ready()
    time.sleep(0.1)
    said = hub.said.read_text()
    url = f"http://{hub.endpoints['http']}"
    for word in (f"{url}/\n", f"{url}/api/v1/devices", f"{url}/docs", str(hub.data), str(hub.data / "admin.token")):
        assert word in said, word
    for word in ("simulated", "gridloom check", "Ctrl-C", *(("none yet",) if not NAMES else ())):
        assert word in said, word
    assert len(said.splitlines()) <= 24, "one screen"
    assert hub.token not in said
    for path in ("/", "/docs", "/openapi.json"):
        assert hub.request("GET", path, token=None)[0] == 200
    assert hub.stop() == 0


def test_a_second_hub_on_the_same_data_is_refused(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    second = HubProcess(hub.folder, None).start()
    code, said = ended(second)
    assert code == 2
    assert said.strip().splitlines()[-1] == (
        f"hub.data_dir: data is used by process {hub.process.pid if hub.process else 0}; "
        "one hub per folder: stop that one, or give this one its own data_dir"
    )
    assert "Traceback" not in said
    assert hub.get("/readyz")["ready"] is True
    assert hub.stop() == 0


def test_a_busy_port_names_the_key_to_change(hubs: Hubs) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        where = f"127.0.0.1:{busy.getsockname()[1]}"
        hub = hubs(f'[http]\nlisten = "{where}"\n').start()
        code, said = ended(hub)
    assert code == 2
    (line,) = said.strip().splitlines()
    assert "[http] listen" in line and where in line and "another program listens there" in line
    assert line.endswith("(http.listen from gridloom.toml:2)")
    assert not (hub.data / "endpoints.json").exists()
    assert not (hub.data / "gridloom.db.lock").exists(), "the store was closed in order"


def test_a_wrong_configuration_ends_with_2_and_all_faults(hubs: Hubs) -> None:
    hub = hubs('[http]\nlissen = 1\n[hub]\ntimezone = "Mars/Olympus"\n').start()
    code, said = ended(hub)
    assert code == 2
    assert said.splitlines() == [
        'gridloom.toml:2: http.lissen: unknown key, did you mean "listen"?; '
        "allowed here: listen, tls_certificate_file, tls_key_file, local_viewer, cors_origins",
        'gridloom.toml:4: hub.timezone: "Mars/Olympus": no such time zone; allowed: an IANA time zone, e.g. "Europe/Paris"',
    ]
    assert not hub.data.exists()


def test_a_data_dir_that_cannot_be_made(hubs: Hubs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    hub = hubs(CONFIG + f'[hub]\ndata_dir = "{tmp_path}/file/data"\n').start()
    code, said = ended(hub)
    assert code == 2
    assert said.strip().endswith("Not a directory; name a folder that this user may write")


def test_stop_while_it_starts(hubs: Hubs) -> None:
    for wait in (0.25, 0.4, 0.55):
        hub = hubs().start()
        time.sleep(wait)
        code = hub.stop()
        assert code in (0, -signal.SIGTERM), hub.log.read_text()  # before its handlers are set, the signal itself ends it
        assert "Traceback" not in hub.log.read_text()
    assert hub.start().ready().stop() == 0


def test_a_live_stream_does_not_keep_the_hub_from_stopping(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    host, _, port = hub.endpoints["http"].rpartition(":")
    with socket.create_connection((host, int(port))) as stream:
        stream.sendall(f"GET /api/v1/stream HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {hub.token}\r\n\r\n".encode())
        assert b"200 OK" in stream.recv(1000)
        begin = time.monotonic()
        assert hub.stop() == 0
        assert time.monotonic() - begin < 6


def test_systemd_is_told(hubs: Hubs, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(15)
        hub = hubs(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}).start()
        assert manager.recv(100) == b"READY=1"
        assert hub.endpoints, "everything accepts before systemd is told"
        assert manager.recv(100) == b"WATCHDOG=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        assert hub.stop() == 0
        rest = b""
        while b"STOPPING=1" not in rest:
            rest += manager.recv(100)


def test_the_loops_lag_and_the_services_are_measured(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    time.sleep(0.6)
    _, text = hub.request("GET", "/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["gridloom_event_loop_lag_seconds_count"]) >= 2
    assert float(values["gridloom_event_loop_lag_seconds_sum"]) < 1
    assert float(values['gridloom_service_up{service="http"}']) == 1
    assert hub.stop() == 0


def test_tls_and_the_command_line_over_it(hubs: Hubs, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems) + authority.cert_pem.bytes())
    issued.private_key_pem.write_to_path(str(key))
    key.chmod(0o600)
    hub = hubs(CONFIG + f'tls_certificate_file = "{certificate}"\ntls_key_file = "{key}"\n').start()
    end = time.monotonic() + 15
    while not hub.endpoints and time.monotonic() < end:
        time.sleep(0.02)
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    with urllib.request.urlopen(f"https://{hub.endpoints['http']}/readyz", context=context, timeout=10) as answer:
        assert answer.status == 200
    made = hub.cli("token", "create", "--role", "viewer")
    assert made.returncode == 0, made.stderr
    assert len(made.stdout.strip()) == 43
    assert hub.stop() == 0
    assert f"https://{'127.0.0.1'}" in hub.said.read_text()


# ------------------------------------------------------------------------------------------------------------------- demo


def test_demo_stops_by_itself_and_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    begin = time.monotonic()
    found = gridloom("demo", "--for", "5", cwd=tmp_path, TMPDIR=str(temporary))
    took = time.monotonic() - begin
    assert found.returncode == 0, found.stderr
    assert 5 <= took < 12
    assert "Gridloom" in found.stdout
    assert "http://127.0.0.1:" in found.stdout
    assert ":8470" not in found.stdout, "free ports unless they are configured"
    assert list(temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"], "nothing in the working directory"


def test_demo_at_another_speed_and_a_given_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = gridloom("demo", "--for", "0.5", "--speed", "60", cwd=tmp_path, GRIDLOOM__HTTP__LISTEN=f"127.0.0.1:{port}")
    assert found.returncode == 0, found.stderr
    assert f"http://127.0.0.1:{port}/" in found.stdout
    assert gridloom("demo", "--speed", "0", cwd=tmp_path).returncode == 2


# ------------------------------------------------------------------------------------------------------- a store in trouble


def test_a_damaged_store_is_set_aside_told_and_the_hub_runs(hubs: Hubs) -> None:
    hub = hubs().start().ready()
    assert hub.stop() == 0
    store = hub.data / "gridloom.db"
    raw = bytearray(store.read_bytes())
    raw[:4096] = os.urandom(4096)
    store.write_bytes(raw)
    hub.start().ready()
    assert "gridloom restore --from BACKUP" in hub.log.read_text()
    events = {one["kind"]: one for one in hub.get("/api/v1/events?device=hub")["items"]}
    assert "gridloom restore --from BACKUP" in events["storage.quarantined"]["message"]
    assert list(hub.data.glob("gridloom.db.quarantine-*"))
    assert hub.request("GET", "/api/v1/me")[0] == 200, "the new store has an admin, and admin.token is its token"
    # It stays an alarm over later starts, raised once, until somebody says that it was seen.
    assert hub.stop() == 0
    hub.start().ready()
    (alarm,) = hub.get("/api/v1/alarms")["items"]
    assert (alarm["kind"], alarm["severity"], alarm["state"], alarm.get("count", 1)) == ("storage.quarantined", "critical", "raised", 1)
    ready = hub.get("/readyz")
    assert ready["ready"] is True, "the hub does its work"
    assert "gridloom restore --from BACKUP" in ready["reasons"][0]["reason"]
    assert hub.request("POST", f"/api/v1/alarms/{alarm['id']}/acknowledge", {"note": "no backup"})[0] in (200, 204)
    assert hub.get("/readyz")["reasons"] == []
    assert hub.stop() == 0


def test_a_full_disk_pauses_readings_and_the_hub_stays_up_and_says_so(hubs: Hubs, tmp_path: Path) -> None:
    """The disk is full by a limit on the size of the process's files, which is then lifted: SQLite hears EFBIG as it would hear ENOSPC."""
    source = with_dummy(tmp_path / "src")
    config = CONFIG + '[hub]\ndata_dir = "data"\n[dummy]\nevery = "5ms"\n'
    hub = hubs(config, source=source, verb=("demo", "--config", "gridloom.toml"))
    hub.start().ready()
    assert hub.process is not None
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    largest = max(path.stat().st_size for path in hub.data.iterdir())
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (largest + 16384, resource.RLIM_INFINITY))

    def full() -> bool:
        return any(one["kind"] == "storage.full" for one in hub.get("/api/v1/alarms")["items"])

    until(full)
    ready = hub.get("/readyz")
    assert ready["ready"] is True
    assert "store" in [one["part"] for one in ready["reasons"]], "beside simulated devices that were not answered"
    assert "full" in hub.log.read_text()
    _, text = hub.request("GET", "/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values["gridloom_meter_readings_lost_total"]) > 0
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, unlimited)
    until(lambda: not full())
    until(lambda: hub.get("/readyz")["reasons"] == [])
    states = [one["state"] for one in hub.get("/api/v1/events?device=hub&kind=storage.full")["items"]]
    assert states[0] == "cleared"
    assert hub.stop() == 0


def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_secrets_in_the_log_are_masked(hubs: Hubs, tmp_path: Path) -> None:
    secret = tmp_path / "hook"
    secret.write_text("https://user:hunter2@192.0.2.1/x?token=hunter2")
    secret.chmod(0o644)
    hub = hubs(CONFIG + f'[log]\nlevel = "debug"\nformat = "json"\n[[alarms.webhook]]\nname = "a"\nurl_file = "{secret}"\nmin_severity = "info"\n')
    hub.start().ready()
    assert hub.stop() == 0
    lines = [json.loads(line) for line in hub.log.read_text().splitlines()]
    assert any("can be read by other users" in line["event"] and "chmod 600" in line["event"] for line in lines)
    assert "hunter2" not in hub.log.read_text()


# ---------------------------------------------------------------------------------------------------------------- webhooks


@contextlib.contextmanager
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], Any]]]]:
    """A real HTTP server that notes what it is told."""
    got: list[tuple[dict[str, str], Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_events_go_out_by_the_configured_webhook(hubs: Hubs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
    secret.chmod(0o600)
    with hook() as (url, got):
        table = f'[[alarms.webhook]]\nname = "mine"\nurl = "{url}"\nmin_severity = "info"\nsecret_file = "{secret}"\n'
        refused = hubs(CONFIG + table, name="refused").start().ready()
        time.sleep(0.5)
        assert refused.stop() == 0
        assert got == [], "a private address is not posted to unless the owner allows it"

        hub = hubs(CONFIG + table + "allow_private = true\n").start().ready()
        end = time.monotonic() + 10
        while not got and time.monotonic() < end:
            time.sleep(0.02)
        headers, event = got[0]
        assert event["type"] == "gridloom.hub.started"
        assert headers["webhook-signature"].startswith("v1,")
        assert headers["webhook-id"] == event["id"]
        logged = hub.cli("webhook", "log", "mine")
        assert logged.returncode == 0, logged.stderr
        assert "204" in logged.stdout
        tried = hub.cli("webhook", "test", "mine")
        assert (tried.returncode, tried.stdout) == (0, "mine answered 204\n"), tried.stderr
        assert got[-1][1]["type"] == "gridloom.hub.test"
        assert hub.cli("webhook", "test", "other").stderr.startswith("gridloom: there is no webhook 'other'; configured: mine")
        entry = logged.stdout.splitlines()[1].split()[1]
        before = len(got)
        assert hub.cli("webhook", "replay", entry).returncode == 0
        end = time.monotonic() + 10
        while len(got) == before and time.monotonic() < end:
            time.sleep(0.02)
        assert got[-1][0]["webhook-id"] == headers["webhook-id"]
        assert hub.stop() == 0


# --------------------------------------------------------------------------------------------------------------- the hasher


def test_argon2_hasher() -> None:
    hasher = Argon2Hasher()
    first, second = hasher.hash("hunter2"), hasher.hash("hunter2")
    assert first.startswith("$argon2id$")
    assert first != second
    assert hasher.verify(first, "hunter2")
    assert not hasher.verify(first, "hunter3")
    assert not hasher.verify("no hash", "hunter2")


def test_argon2_and_httpcore_are_not_imported_by_a_start(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, json\n"
        "from pathlib import Path\n"
        "from gridloom import app\n"
        "async def go():\n"
        "    hub = app.App(app.load_configuration(None, {'GRIDLOOM__HTTP__LISTEN': '127.0.0.1:0', 'GRIDLOOM__HUB__DATA_DIR': 'data'}))\n"
        "    with app.locked(hub.folder):\n"
        "        await hub.start()\n"
        "        await hub.stop()\n"
        "asyncio.run(go())\n"
        "print(json.dumps(sorted(set(sys.modules))))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(SOURCE), capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    loaded = {name.split(".")[0] for name in json.loads(found.stdout)}
    assert loaded & {"argon2", "httpcore", "httpx", "typer", "rich", "pydantic", "cryptography", "prometheus_client"} == set()
