"""Webhooks against a real HTTP server, whose side checks signatures with nothing of ours."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.core.world import DAY, METER, World, until

from gridloom.core.clock import Clock
from gridloom.core.errors import InvalidInput
from gridloom.core.events import new_event
from gridloom.core.model import Device, EventState, Severity, TimeSource
from gridloom.core.outbox import OutboxSettings
from gridloom.core.webhook import Webhooks, WebhookTarget, kind_matches, secret_key, sign

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver:
    """Somebody else's server. ``answers`` are statuses for the next requests; then 204."""

    def __init__(self) -> None:
        receiver = self
        self.requests: list[tuple[Mapping[str, str], bytes]] = []
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


async def post(url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> int:
    """As app.py injects it, with the standard library."""

    def send() -> int:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        try:
            connection.request("POST", parts.path, body, dict(headers))
            return connection.getresponse().status
        finally:
            connection.close()

    return await asyncio.to_thread(send)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    settings = OutboxSettings(patience=600.0, first_pause=1.0, longest_pause=4.0)
    made = await World(tmp_path, Clock(speed=100.0), outbox=settings).open()
    await made.registry.register(METER)
    await made.registry.settle()
    await made.outbox.start()
    yield made
    await made.close()


def connect(world: World, *targets: WebhookTarget, **more: Any) -> Webhooks:
    hooks = Webhooks(targets, outbox=world.outbox, clock=world.clock, post=post, **more)
    world.intake.accompany(hooks.writes)
    return hooks


async def test_an_alarm_arrives_as_a_signed_cloud_event(world: World, receiver: Receiver) -> None:
    connect(world, WebhookTarget(name="ops", url=receiver.url, secret=SECRET), source="https://hub.example/gridloom")
    await world.registry.register(Device("os3p:SUBS 1", "os3p", "SUBS 1"))
    event = new_event(
        "fault.overcurrent", "os3p:SUBS 1", world.clock, id="evt 1", time=DAY + 250_000, source=TimeSource.DEVICE, subject="L2", message="Too much.",
        data={"code": 7},
    )  # fmt: skip
    await world.intake.event(event)
    await until(lambda: receiver.requests)
    headers, body = receiver.requests[0]
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-id"] == "evt 1"
    assert abs(int(headers["webhook-timestamp"]) - world.clock.now() // 1_000_000) < 100
    expected = hmac.new(KEY, f"evt 1.{headers['webhook-timestamp']}.".encode() + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    told = json.loads(body)
    assert {name: told[name] for name in told if name != "data"} == {
        "specversion": "1.0",
        "id": "evt 1",
        "source": "https://hub.example/gridloom",
        "type": "gridloom.fault.overcurrent",
        "subject": "/devices/os3p:SUBS%201/L2",
        "time": "2025-11-24T16:00:00.250000Z",
        "datacontenttype": "application/json",
        "severity": "critical",
    }
    assert told["data"]["message"] == "Too much."
    assert told["data"]["data"] == {"code": 7}
    assert told["data"]["state"] == "raised"


def test_the_signature_of_the_standards_own_example() -> None:
    """The vector that the libraries of Standard Webhooks are tested with."""
    key = secret_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_failures_are_tried_again_under_the_same_id_and_in_order(world: World, receiver: Receiver) -> None:
    connect(world, WebhookTarget(name="ops", url=receiver.url, secret=SECRET))
    receiver.answers = [500, 302, 429]
    for number in range(3):
        state = EventState.RAISED if number % 2 == 0 else EventState.CLEARED
        await world.intake.event(new_event("overload", METER.id, world.clock, id=f"e{number}", state=state))
    await until(lambda: len(receiver.requests) == 6)
    assert [headers["webhook-id"] for headers, _ in receiver.requests] == ["e0", "e0", "e0", "e0", "e1", "e2"]
    assert len({headers["webhook-signature"] for headers, _ in receiver.requests[:4]}) >= 2  # each is signed with its own time
    log = [(attempt.result, attempt.status) for _, attempt in reversed(await world.outbox.log("webhook", "ops"))]
    assert log[:4] == [("answered 500", 500), ("answered 302", 302), ("answered 429", 429), ("delivered", 204)]


async def test_a_target_that_is_gone_is_asked_no_more(world: World, receiver: Receiver) -> None:
    connect(world, WebhookTarget(name="ops", url=receiver.url))
    receiver.answers = [410]
    await world.intake.event(new_event("overload", METER.id, world.clock, id="e0"))
    await until(lambda: receiver.requests)
    await until(lambda: world.outbox._target("webhook", "ops").waiting == 0)
    assert [entry.state for entry in await world.outbox.list()] == ["dead"]
    assert "webhook-signature" not in receiver.requests[0][0]  # no secret, no signature


async def test_each_target_gets_what_it_asked_for(world: World, receiver: Receiver) -> None:
    await world.registry.register(Device("dummy:m2", "dummy", "m2"))
    await world.registry.settle()
    hooks = Webhooks(
        [
            WebhookTarget(name="all", url=receiver.url, min_severity=Severity.DEBUG),
            WebhookTarget(name="severe", url=receiver.url, min_severity=Severity.CRITICAL),
            WebhookTarget(name="faults", url=receiver.url, kinds=("fault.*", "overload")),
            WebhookTarget(name="second", url=receiver.url, devices=("dummy:m2",), min_severity=Severity.INFO),
        ],
        outbox=world.outbox, clock=world.clock, post=post,
    )  # fmt: skip

    def targets(kind: str, device: str = METER.id) -> list[str]:
        return [put.keys["target"] for put in hooks.writes(new_event(kind, device, world.clock))]

    assert targets("tariff.changed") == ["all"]
    assert targets("overload") == ["all", "faults"]
    assert targets("fault.ground", "dummy:m2") == ["all", "severe", "faults", "second"]
    assert kind_matches("fault.*", "fault.ground")
    assert not kind_matches("fault.*", "faults.ground")
    assert not kind_matches("fault.ground", "fault.groundx")


@pytest.mark.parametrize(
    ("pattern", "device", "wanted"),
    [
        ("tic:*", "tic:021762010203", True),
        ("tic:*", "ocpp:tic:1", False),
        ("*", "hub", True),
        ("ocpp:CP[1]*", "ocpp:CP[1]7", True),
        ("ocpp:CP[1]*", "ocpp:CP1", False),
        ("ocpp:CP?*", "ocpp:CPx", False),
        ("ocpp:C?", "ocpp:C?", True),
        ("TIC:*", "tic:1", False),
    ],
)
def test_devices_are_patterns_as_in_rules(pattern: str, device: str, wanted: bool) -> None:
    target = WebhookTarget(name="ops", url="http://h/", devices=("other:1", pattern))
    assert target.wants(new_event("overload", device, Clock())) is wanted


async def test_nobody_listens_there(world: World, receiver: Receiver) -> None:
    receiver.close()
    connect(world, WebhookTarget(name="ops", url=receiver.url, secret=SECRET))
    await world.intake.event(new_event("overload", METER.id, world.clock))
    await until(lambda: world.outbox._target("webhook", "ops").lanes[METER.id].due)
    (entry,) = await world.outbox.list()
    assert entry.attempts[0].result.startswith("ConnectionRefusedError")
    receiver.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # for the fixture to close
    receiver.thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,), daemon=True)
    receiver.thread.start()


async def test_nothing_is_lost_by_a_crash(world: World, receiver: Receiver) -> None:
    connect(world, WebhookTarget(name="ops", url=receiver.url))
    world.outbox.hold("webhook", "ops")
    await world.intake.event(new_event("overload", METER.id, world.clock, id="e0"))
    again = await world.again()
    connect(again, WebhookTarget(name="ops", url=receiver.url))
    await again.outbox.start()
    await until(lambda: receiver.requests)
    assert receiver.told()[0]["id"] == "e0"
    again.abandoned = []
    await again.close()


async def test_a_target_that_was_taken_out_of_the_configuration(world: World) -> None:
    connect(world, WebhookTarget(name="ops", url="http://127.0.0.1:1/"))
    world.outbox.hold("webhook", "ops")
    await world.intake.event(new_event("overload", METER.id, world.clock))
    Webhooks([], outbox=world.outbox, clock=world.clock, post=post)
    world.outbox.release("webhook", "ops")
    await until(lambda: world.outbox._target("webhook", "ops").dead)
    (entry,) = await world.outbox.list(state="dead")
    assert "no longer configured" in entry.attempts[0].result


def test_secrets() -> None:
    assert secret_key(SECRET) == KEY
    assert secret_key("plain text") == b"plain text"
    for wrong in ("whsec_", "whsec_$$$", "whsec_abc"):
        with pytest.raises(InvalidInput) as caught:
            secret_key(wrong)
        assert caught.value.faults[0].path == "$.secret"
    target = WebhookTarget(name="ops", url="https://user:hunter2@example.org/", secret=SECRET)
    assert "hunter2" not in repr(target)
    assert SECRET not in repr(target)


async def test_names_are_unique(world: World) -> None:
    with pytest.raises(InvalidInput, match="same name"):
        connect(world, WebhookTarget(name="a", url="http://x/"), WebhookTarget(name="a", url="http://y/"))
