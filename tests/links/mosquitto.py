"""A private Mosquitto (Debian's) on a free port, in a folder of its own; and a bare client that shares no code with ``links.mqtt``."""

from __future__ import annotations

import contextlib
import queue
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

BINARY = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Mosquitto:
    """Starts at once; ``stop``, ``kill`` and ``start`` again on the same port."""

    def __init__(self, folder: Path, *, more: str = "allow_anonymous true", port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True, parents=True)
        # as root it would drop its privileges and could not read its own folder
        (folder / "mosquitto.conf").write_text(f"user root\npersistence false\nlog_dest file {folder}/log\nlistener {self.port} 127.0.0.1\n{more}\n")
        self.start()

    @property
    def url(self) -> str:
        """As the configuration names it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it accepts."""
        self.process = subprocess.Popen(
            [BINARY, "-c", str(self.folder / "mosquitto.conf")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("mosquitto does not accept")

    def kill(self) -> None:
        """As if the cable was pulled."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Client:
    """Another party on the broker: paho alone, in a thread of its own."""

    def __init__(self, port: int, *topics: str, username: str | None = None, password: str | None = None) -> None:
        self.heard: queue.Queue[tuple[str, bytes, bool]] = queue.Queue()
        subscribed: queue.Queue[int] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if username is not None:
            self._client.username_pw_set(username, password)
        self._client.on_message = lambda client, data, message: self.heard.put((message.topic, bytes(message.payload), message.retain))
        self._client.on_subscribe = lambda client, data, id, codes, properties: subscribed.put(id)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        for topic in topics:
            self._client.subscribe(topic)
            subscribed.get(timeout=5)

    def publish(self, topic: str, payload: bytes | str, retain: bool = False) -> None:
        """QoS 0, as EVerest does."""
        self._client.publish(topic, payload, retain=retain)

    def next(self, timeout: float = 5) -> tuple[str, bytes, bool]:
        """The next message: topic, payload, whether it was kept for us."""
        return self.heard.get(timeout=timeout)

    def until(self, topic: str, timeout: float = 5) -> bytes:
        """The payload of the next message on this topic; others on the way are dropped."""
        end = time.monotonic() + timeout
        while True:
            found, payload, _ = self.heard.get(timeout=max(0.01, end - time.monotonic()))
            if found == topic:
                return payload

    def drained(self) -> list[tuple[str, bytes, bool]]:
        """What is there now."""
        found: list[Any] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.heard.get_nowait())
        return found

    def close(self) -> None:
        """Goodbye."""
        self._client.disconnect()
        self._client.loop_stop()
