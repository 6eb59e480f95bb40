"""The MQTT link on a real Mosquitto."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import paho.mqtt.client as paho
import pytest
import trustme
from paho.mqtt.enums import CallbackAPIVersion
from tests.links.mosquitto import Client, Mosquitto, free_port

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt, Will


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path / "mosquitto")
    yield made
    made.kill()


def link(url: str, **more: object) -> Mqtt:
    return Mqtt(mqtt.broker(url), client_id="test", clock=Clock(), random=Random(1), **more)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.01)


async def test_messages_go_both_ways(server: Mosquitto) -> None:
    other = await asyncio.to_thread(Client, server.port, "out/#")
    one, heard = link(server.url), []
    one.subscribe("in/+/x", lambda topic, payload: heard.append((topic, payload)))
    one.subscribe("in/1/x", lambda topic, payload: heard.append(("exact", payload)))
    await one.start()
    await until(lambda: one.connected)
    assert one.send("out/a", "text")
    assert await asyncio.to_thread(other.next) == ("out/a", b"text", False)
    other.publish("in/1/x", b"\xff")
    await until(lambda: len(heard) == 2)
    assert sorted(heard) == [("exact", b"\xff"), ("in/1/x", b"\xff")]
    await one.stop()
    other.close()


async def test_a_broker_that_dies_is_connected_to_again_and_subscriptions_hold(server: Mosquitto) -> None:
    one, heard, connections = link(server.url), [], []
    one.subscribe("in", lambda _, payload: heard.append(payload))
    one.on_connect(lambda: connections.append(1))
    await one.start()
    await until(lambda: one.connected)
    server.kill()
    await until(lambda: not one.connected)
    assert one.reason
    assert not one.send("out", b"late")
    assert one.dropped == 1
    server.start()
    await until(lambda: one.connected)
    assert len(connections) == 2
    other = await asyncio.to_thread(Client, server.port)
    other.publish("in", b"again")
    await until(lambda: heard == [b"again"])
    await one.stop()
    other.close()


async def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    one = link(f"mqtt://127.0.0.1:{port}")
    await one.start()
    await until(lambda: "refused" in one.reason)
    server = Mosquitto(tmp_path / "late", port=port)
    await until(lambda: one.connected)
    await one.stop()
    server.kill()


async def test_the_will_is_said_when_we_are_gone_without_a_word(server: Mosquitto) -> None:
    other = await asyncio.to_thread(Client, server.port, "state")
    one = link(server.url, will=Will("state", b"gone"))
    await one.start()
    await until(lambda: one.connected)
    thief = paho.Client(CallbackAPIVersion.VERSION2, client_id="test")  # the broker drops whoever had this name, without a goodbye
    thief.connect("127.0.0.1", server.port)
    thief.loop_start()
    assert await asyncio.to_thread(other.next) == ("state", b"gone", False)
    thief.disconnect()
    thief.loop_stop()
    await one.stop()
    other.close()


async def test_a_handler_that_fails_does_not_end_the_connection(server: Mosquitto) -> None:
    one, heard = link(server.url), []

    def fail(topic: str, payload: bytes) -> None:
        heard.append(payload)
        raise RuntimeError("a bug")

    one.subscribe("in", fail)
    await one.start()
    await until(lambda: one.connected)
    other = await asyncio.to_thread(Client, server.port)
    other.publish("in", b"1")
    other.publish("in", b"2")
    await until(lambda: heard == [b"1", b"2"])
    assert one.connected
    await one.stop()
    other.close()


async def test_a_message_that_mqtt_forbids_is_dropped_and_counted(server: Mosquitto) -> None:
    other = await asyncio.to_thread(Client, server.port, "good")
    one = link(server.url)
    await one.start()
    await until(lambda: one.connected)
    bad = ("bad/#", "+", "", "nul\0", "a\x1f", "\uffff", "\ufdd0", "\ud800", "/" * 300, "x" * 65_536)
    for topic in bad:
        assert not one.send(topic, b"x")
    assert one.send("good", b"y")
    assert await asyncio.to_thread(other.next) == ("good", b"y", False)
    assert one.dropped == len(bad)
    assert one.connected
    await one.stop()
    other.close()


async def test_delivered_is_what_the_broker_acknowledged(server: Mosquitto) -> None:
    other = await asyncio.to_thread(Client, server.port, "out")
    one = link(server.url)
    assert not await one.deliver("out", b"before")
    await one.start()
    await until(lambda: one.connected)
    assert await one.deliver("out", b"1")
    assert await asyncio.to_thread(other.next) == ("out", b"1", False)
    assert not await one.deliver("out/#", b"2")
    os.kill(server.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]  # it takes, and says nothing
    waiting = asyncio.create_task(one.deliver("out", b"3"))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    server.kill()
    assert not await asyncio.wait_for(waiting, 5)
    assert one.dropped == 3
    await one.stop()
    other.close()


async def test_what_is_thrown_away_at_the_end_is_counted_and_logged(server: Mosquitto, caplog: pytest.LogCaptureFixture) -> None:
    one = link(server.url)
    await one.start()
    await until(lambda: one.connected)
    os.kill(server.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]
    waiting = [asyncio.create_task(one.deliver("out", b"x")) for _ in range(3)]
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(one.stop())
    assert await asyncio.gather(*waiting) == [False] * 3
    os.kill(server.process.pid, signal.SIGCONT)  # type: ignore[union-attr]
    await stopping
    assert one.dropped == 3
    (record,) = [record for record in caplog.records if record.message == "mqtt: stopped before everything was sent"]
    assert record.messages == 3  # type: ignore[attr-defined]


async def test_nothing_waits_behind_an_acknowledgement(server: Mosquitto) -> None:
    one = link(server.url)
    await one.start()
    await until(lambda: one.connected)
    os.kill(server.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]  # no acknowledgement comes
    for number in range(50):
        one.send("key", str(number), qos=1, retain=True)
    one.send("reply", b"x")
    await until(lambda: not one._waiting, 2)
    os.kill(server.process.pid, signal.SIGCONT)  # type: ignore[union-attr]
    await until(lambda: not one._unanswered)
    assert one.dropped == 0
    late = await asyncio.to_thread(Client, server.port, "key")
    assert await asyncio.to_thread(late.next) == ("key", b"49", True)
    late.close()
    await one.stop()


async def test_a_subscription_that_is_refused_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    rights = {"publishClientSend": True, "publishClientReceive": True, "subscribe": True, "unsubscribe": True}
    allowed = [{"acltype": "subscribePattern", "topic": "open/#", "allow": True}]
    group = {"groupname": "all", "roles": [{"rolename": "open"}]}
    security = {
        "defaultACLAccess": rights | {"subscribe": False}, "clients": [], "groups": [group],
        "roles": [{"rolename": "open", "acls": allowed}], "anonymousGroup": "all",
    }  # fmt: skip
    (folder / "security.json").write_text(json.dumps(security))
    plugin = next(Path("/usr/lib").rglob("mosquitto_dynamic_security.so"))
    server = Mosquitto(folder, more=f"allow_anonymous true\nplugin {plugin}\nplugin_opt_config_file {folder}/security.json")
    one = link(server.url)
    one.subscribe("open/a", lambda topic, payload: None)
    one.subscribe("secret/b", lambda topic, payload: None)
    await one.start()
    await until(lambda: one.connected)
    assert one.reason == "the broker refuses us the topic secret/b"
    server.kill()
    await until(lambda: not one.connected)
    server.start()
    await until(lambda: one.connected)
    assert [record.topic for record in caplog.records if record.message == "mqtt: a subscription was refused"] == ["secret/b"]  # type: ignore[attr-defined]
    await one.stop()
    server.kill()


async def test_what_a_slow_broker_does_not_take_is_bounded(server: Mosquitto) -> None:
    one = link(server.url)
    await one.start()
    await until(lambda: one.connected)
    for number in range(mqtt.QUEUE + 10):  # nothing is sent before we give the loop a turn
        one.send("x", str(number))
    assert one.dropped == 10
    assert len(one._waiting) == mqtt.QUEUE
    await one.stop()


async def test_a_user_and_a_password(tmp_path: Path) -> None:
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    (folder / "users").write_text("")
    subprocess.run(["mosquitto_passwd", "-b", str(folder / "users"), "me", "s:e@cret"], check=True, capture_output=True)
    server = Mosquitto(folder, more=f"allow_anonymous false\npassword_file {folder}/users")
    wrong = link(f"mqtt://me:other@127.0.0.1:{server.port}")
    await wrong.start()
    await until(lambda: "not connected" not in wrong.reason)
    assert "uthori" in wrong.reason
    assert "other" not in wrong.reason
    await wrong.stop()
    right = link(f"mqtt://me:s%3Ae%40cret@127.0.0.1:{server.port}")
    await right.start()
    await until(lambda: right.connected)
    await right.stop()
    server.kill()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves the socket of a refused handshake to the collector
async def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    server = Mosquitto(folder, more=f"allow_anonymous true\ncertfile {folder}/cert.pem\nkeyfile {folder}/key.pem")
    one = link(f"mqtts://127.0.0.1:{server.port}", ca_file=str(folder / "ca.pem"))
    await one.start()
    await until(lambda: one.connected)
    await one.stop()
    stranger = link(f"mqtts://127.0.0.1:{server.port}")
    await stranger.start()
    await until(lambda: "certificate" in stranger.reason.lower())
    await stranger.stop()
    server.kill()


async def test_authorities_that_are_none_are_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"ca\.pem"):
        await link("mqtts://127.0.0.1", ca_file=str(tmp_path / "ca.pem")).start()


@pytest.mark.parametrize(
    ("text", "host", "port", "tls"),
    [
        ("mqtt://h", "h", 1883, False),
        ("mqtts://h", "h", 8883, True),
        ("mqtt://h:99/", "h", 99, False),
        ("mqtt://[::1]:5", "::1", 5, False),
    ],
)
def test_the_parts_of_an_address(text: str, host: str, port: int, tls: bool) -> None:
    found = mqtt.broker(text)
    assert (found.host, found.port, found.tls) == (host, port, tls)


@pytest.mark.parametrize("text", ["http://h", "mqtt://", "mqtt://h:99999", "mqtt://h/path", "h:1883", "mqtt://u:secretword@/x"])
def test_an_address_that_is_none_is_refused_without_its_credentials(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        mqtt.broker(text)
    assert "secretword" not in str(refused.value)


def test_credentials_are_not_shown() -> None:
    found = mqtt.broker("mqtt://me:secretword@h")
    assert (found.username, found.password) == ("me", "secretword")
    assert "secretword" not in repr(found)
    assert "me" not in found.url.removeprefix("mqtt://h")
