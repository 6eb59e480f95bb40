"""The simulated EVerest: by itself against a bare MQTT client, and as a user runs it against a hub's powermeter."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest
from tests.integrations.everest.test_module import BASE, Bench, until
from tests.links.mosquitto import Client, Mosquitto
from typer.testing import CliRunner

from gridloom.core.clock import Clock
from gridloom.integrations.everest import cli
from gridloom.integrations.everest.simulator import INITIAL, LOST, Everest, request
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield made
    made.kill()


class Played:
    """A simulated EVerest on the broker, and a powermeter that is typed by hand."""

    def __init__(self, server: Mosquitto) -> None:
        self.said: list[str] = []
        self.wire = Mqtt(mqtt.broker(server.url), client_id="everest", clock=Clock(), random=Random(1))
        self.everest = Everest(self.wire, "pm", Clock(), check_timeout=0.4, heartbeat=0.1, reply_timeout=1.0, tell=self.said.append)
        self.meter = Client(server.port, BASE + "e2m/#")

    async def open(self) -> Played:
        await self.wire.start()
        await until(lambda: self.wire.connected)
        self.task = asyncio.create_task(self.everest.run())
        return self

    async def close(self) -> None:
        self.task.cancel()
        await self.wire.stop()
        self.meter.close()

    async def asked(self, what: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(await asyncio.to_thread(self.meter.until, BASE + "e2m/" + what))
        return found


@pytest.fixture
async def played(server: Mosquitto) -> AsyncIterator[Played]:
    made = await Played(server).open()
    yield made
    await made.close()


async def test_heartbeats_count_from_0(played: Played) -> None:
    assert [await asyncio.to_thread(played.meter.until, BASE + "e2m/heartbeat") for _ in range(3)] == [b"0", b"1", b"2"]


async def test_the_fault_of_the_start_is_cleared_by_any_boolean_and_comes_back_with_silence(played: Played) -> None:
    assert played.everest.fault == INITIAL
    played.meter.publish(BASE + "m2e/communication_check", "true")
    await until(lambda: played.everest.fault is None)
    await until(lambda: played.everest.fault == LOST)
    played.meter.publish(BASE + "m2e/communication_check", "false")
    await until(lambda: played.everest.fault is None)
    await asyncio.sleep(0.8)
    assert played.everest.fault is None  # false ends the watch for good


async def test_a_stop_is_a_bare_string_and_a_reply_that_cannot_be_read_is_waited_past(played: Played) -> None:
    asking = asyncio.create_task(played.everest.stop("t 1"))
    asked = await played.asked("stop_transaction")
    assert asked["payload"] == "t 1"
    headers = asked["headers"]
    assert isinstance(headers, dict)
    played.meter.publish(headers["replyTo"], '{"status": "ok"}')
    await asyncio.sleep(0.1)
    assert not asking.done()
    played.meter.publish(headers["replyTo"], '{"status": "NOT_SUPPORTED"}')
    assert (await asking).status == "NOT_SUPPORTED"
    assert any("Deserialization failed" in line for line in played.said)


async def test_no_reply_is_an_unexpected_error_without_words(played: Played) -> None:
    reply = await played.everest.start(request("t1", token="AB"))
    assert json.loads(json.dumps({"status": reply.status})) == {"status": "UNEXPECTED_ERROR"}
    assert not isinstance(reply.error, str)


async def test_at_the_start_what_is_left_over_is_stopped_and_then_whatever_runs(played: Played) -> None:
    played.everest.session = "old"
    booting = asyncio.create_task(played.everest.boot())
    assert (await played.asked("stop_transaction"))["payload"] == "old"
    assert (await played.asked("stop_transaction"))["payload"] == ""
    booting.cancel()


async def test_the_whole_conversation_with_a_hub(tmp_path: Path, server: Mosquitto) -> None:
    bench = await Bench(tmp_path, server, max_age=5).open()

    async def meter() -> None:
        energy = 1000
        while True:
            await bench.measure(energy)
            energy += 10
            await asyncio.sleep(0.1)

    metering = asyncio.create_task(meter())
    receipt = tmp_path / "receipt.ocmf"
    arguments = ["--module-id", "pm", "--broker", server.url, "--charge", "0.5", "--times", "2", "--receipt", str(receipt)]
    result = await asyncio.to_thread(CliRunner().invoke, cli.sim, arguments)
    metering.cancel()
    assert result.exit_code == 0, result.output
    assert result.output.count(": OK") == 4
    assert "no fault" in result.output
    assert receipt.read_text().startswith("OCMF|")
    await bench.close()


def test_no_broker_is_said() -> None:
    result = CliRunner().invoke(cli.sim, ["--module-id", "pm", "--broker", "http://x"])
    assert "does not begin with mqtt://" in str(result.exception)
