"""What tests of whole processes share: a hub as its users start it, and the command line. (The fixture ``hubs`` is in conftest.py.)"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src"


def environment(source: Path, **more: str) -> dict[str, str]:
    """Ours without any GRIDLOOM__ variable, and with ``source`` in front of what is installed."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("GRIDLOOM")}
    return {**kept, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", **more}


class HubProcess:
    """``gridloom serve`` (or another verb) in a process of its own, in a folder of its own."""

    def __init__(
        self, folder: Path, config: str | None, *, source: Path = SOURCE, verb: tuple[str, ...] = ("serve",), env: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        folder.mkdir(exist_ok=True)
        self.source = source
        self.env = environment(source, **(env or {}))
        self.arguments = [sys.executable, "-m", "gridloom", *verb]
        if config is not None:
            (folder / "gridloom.toml").write_text(config)
        self.log = folder / "stderr.txt"
        self.said = folder / "stdout.txt"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> HubProcess:
        """Start; ``ready()`` waits until it accepts."""
        with open(self.log, "ab") as err, open(self.said, "wb") as out:
            self.process = subprocess.Popen(self.arguments, cwd=self.folder, env=self.env, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        return self

    @property
    def endpoints(self) -> dict[str, str]:
        """What it wrote; empty before all of it accepts."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, str] = json.loads((self.data / "endpoints.json").read_text())
            return found
        return {}

    def ready(self, seconds: float = 20) -> HubProcess:
        """Wait for endpoints.json and a 200 of /readyz."""
        assert self.process is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"the hub ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            if self.endpoints:
                with contextlib.suppress(OSError, KeyError):  # the file of a hub that was killed goes away in between
                    if self.request("GET", "/readyz", token=None)[0] == 200:
                        return self
            time.sleep(0.02)
        raise AssertionError(f"the hub was not ready in {seconds} s:\n{self.log.read_text()[-3000:]}")

    @property
    def token(self) -> str:
        """The admin token of the first start."""
        return (self.data / "admin.token").read_text().strip()

    def request(self, method: str, path: str, body: Any = None, token: str | None = "admin") -> tuple[int, Any]:
        """Status and JSON (or text) of an answer. ``token`` ``admin`` is the hub's own admin token."""
        host, _, port = self.endpoints["http"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        headers = {"content-type": "application/json"} if body is not None else {}
        if token is not None:
            headers["authorization"] = f"Bearer {self.token if token == 'admin' else token}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(raw)
        except ValueError:
            return response.status, raw.decode("utf-8", "replace")

    def get(self, path: str) -> Any:
        """The JSON of a 200."""
        status, found = self.request("GET", path)
        assert status == 200, (status, found)
        return found

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``gridloom …`` in the same folder."""
        return gridloom(*arguments, cwd=self.folder, source=self.source)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        """End it; returns its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


def gridloom(*arguments: str, cwd: Path, source: Path = SOURCE, **env: str) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    command = [sys.executable, "-m", "gridloom", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(source, **env), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def with_dummy(source: Path) -> Path:
    """A copy of our source at ``source`` with one folder more (tests/data/dummy) and its one name; ``before`` beside it is without them."""
    ignored = shutil.ignore_patterns("__pycache__")
    before = source.with_name("before")
    shutil.copytree(SOURCE / "gridloom", before / "gridloom", ignore=ignored)
    shutil.copytree(before, source)
    shutil.copytree(Path(__file__).parent / "data" / "dummy", source / "gridloom" / "integrations" / "dummy", ignore=ignored)
    names = source / "gridloom" / "integrations" / "__init__.py"
    lines = names.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith("NAMES"))
    others = lines[at].partition("=")[2].strip().strip("()").strip().rstrip(",")
    lines[at] = f'NAMES: tuple[str, ...] = ({others + ", " if others else ""}"dummy",)\n'
    names.write_text("".join(lines))
    return source


Hubs = Callable[..., HubProcess]
