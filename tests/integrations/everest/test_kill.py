"""Kill -9 of a whole hub at any moment between the start and the stop of transactions: a Linky on a pty, EVerest on a real Mosquitto.

Whatever was answered holds after the restart; a record is right, by verifiers that share no code with ours; no page comes twice.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pyocmf.core.ocmf import OCMF
from tests.hub_process import HubProcess, Hubs
from tests.integrations.everest.test_module import until
from tests.integrations.tic.pty import STANDARD_SERIAL, Meter, standard
from tests.links.mosquitto import Mosquitto

from gridloom.core.clock import Clock
from gridloom.integrations.everest.messages import SignedMeterValue, StopTransactionReply
from gridloom.integrations.everest.simulator import Everest, request
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt

KILLS = 10
CONFIG = """
[http]
listen = "127.0.0.1:0"
[tic]
listen = "127.0.0.1:0"
ports = ["{port}"]
discover = false
mode = "standard"
[everest]
broker = "{broker}"
[[everest.powermeter]]
module_id = "pm"
device = "tic:{serial}"
check_timeout = 0.6
"""


class Site:
    """A meter, a broker, EVerest; and a hub that dies."""

    def __init__(self, tmp_path: Path, hubs: Hubs) -> None:
        self.east = 1_000_000
        self.broker = Mosquitto(tmp_path / "broker")
        self.meter = Meter(tmp_path / "linky", self.frame, 9600, gap=0.1)
        self.hub: HubProcess = hubs(CONFIG.format(port=tmp_path / "linky", broker=self.broker.url, serial=STANDARD_SERIAL))
        self.wire = Mqtt(mqtt.broker(self.broker.url), client_id="everest", clock=Clock(), random=Random(1))
        self.everest = Everest(self.wire, "pm", Clock(), check_timeout=3, reply_timeout=2.0)
        self.pages: list[int] = []

    def frame(self) -> bytes:
        self.east += 1
        return standard(east=self.east)

    async def begin(self) -> None:
        await self.meter.__aenter__()
        await self.wire.start()
        self.watch = asyncio.create_task(self.everest.run())

    async def end(self) -> None:
        self.watch.cancel()
        await self.wire.stop()
        await self.meter.__aexit__()
        self.broker.kill()

    async def live(self) -> None:
        """The hub runs, and EVerest hears the meter."""
        self.everest.values = None
        await asyncio.to_thread(lambda: self.hub.start().ready())
        await until(lambda: self.everest.values is not None, 20)

    async def die(self) -> None:
        assert self.hub.process is not None
        self.hub.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(self.hub.process.wait)

    def right(self, reply: StopTransactionReply, token: str, low: int, high: int) -> str:
        """The record of a stop, after strangers found it right: whose it is, and registers within what the meter had then."""
        assert reply.status == "OK", reply
        assert not isinstance(reply.error, str), reply.error
        value = reply.signed_meter_value
        assert isinstance(value, SignedMeterValue)
        _, payload, signature = value.signed_meter_data.split("|")
        assert isinstance(value.public_key, str)
        key = load_der_public_key(bytes.fromhex(value.public_key))
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(bytes.fromhex(json.loads(signature)["SD"]), payload.encode(), ec.ECDSA(hashes.SHA256()))
        assert OCMF.from_string(value.signed_meter_data).verify_signature(value.public_key)
        fields = json.loads(payload, parse_float=Decimal)
        assert (fields["ID"], fields["MS"]) == (token, STANDARD_SERIAL)
        begin, end = fields["RD"]
        assert (begin["TX"], end["TX"]) == ("B", "E")
        assert low <= begin["RV"] <= end["RV"] <= high
        self.pages.append(int(fields["PG"][1:]))
        return value.signed_meter_data


@pytest.fixture
async def site(tmp_path: Path, hubs: Hubs) -> AsyncIterator[Site]:
    made = Site(tmp_path, hubs)
    await made.begin()
    yield made
    await made.end()


@pytest.mark.timeout(180)
async def test_kills_between_start_and_stop(site: Site) -> None:
    random = Random(6)
    records: dict[str, str] = {}
    for number in range(KILLS):
        await site.live()
        key, token = f"t{number}", f"AB0102{number:02}"
        low = site.east - 100  # what the meter said in the last ten seconds
        asked = asyncio.create_task(site.everest.start(request(key, token=token)))
        stopping: asyncio.Task[StopTransactionReply] | None = None
        if number % 3:  # let it be answered; every third time the hub may die before
            assert (await asked).status == "OK"
        if number % 3 == 2:
            stopping = asyncio.create_task(site.everest.stop(key))
        await asyncio.sleep(random.uniform(0, 0.02))
        await site.die()
        acknowledged = (await asked).status == "OK"
        answered = None if stopping is None else await stopping
        await site.live()
        if answered is not None and answered.status == "OK":
            records[key] = site.right(answered, token, low, site.east + 1)
            site.pages.pop()
        if acknowledged:
            asking = "" if number % 3 == 1 else key  # whatever runs, as EVerest asks at its start: it is found again
            again = site.right(await site.everest.stop(asking), token, low, site.east + 1)
            assert records.setdefault(key, again) == again, "what was handed out once is the same for ever"
        assert (await site.everest.stop("")).status == "OK"
        await asyncio.to_thread(site.hub.stop)
    assert len(records) >= KILLS * 2 // 3
    assert site.pages == sorted(set(site.pages)), "no page twice"
    await site.live()
    for key, record in records.items():
        value = (await site.everest.stop(key)).signed_meter_value
        assert isinstance(value, SignedMeterValue)
        assert value.signed_meter_data == record
    listed: Any = await asyncio.to_thread(site.hub.get, "/api/v1/transactions?device=everest:pm&limit=1000")
    assert set(records) <= {one["key"] for one in listed["items"]}
    assert [one["state"] for one in listed["items"]] == ["ended"] * len(listed["items"]), listed["items"]
    exported = await asyncio.to_thread(site.hub.cli, "ocmf", "export", listed["items"][0]["id"], "-o", "receipt.xml")
    assert exported.returncode == 0, exported.stderr
    verified = await asyncio.to_thread(site.hub.cli, "ocmf", "verify", "receipt.xml", "--json")
    assert json.loads(verified.stdout)["signature"] == "valid"


@pytest.mark.timeout(120)
async def test_a_broker_that_dies_and_a_meter_that_falls_silent_in_the_middle(site: Site) -> None:
    await site.live()
    low = site.east - 100
    assert (await site.everest.start(request("t1", token="AB010203"))).status == "OK"
    site.broker.kill()
    await asyncio.sleep(0.5)
    site.broker.start()
    await until(lambda: site.wire.connected, 20)
    site.everest.values = None
    await until(lambda: site.everest.values is not None, 40)  # the hub is back on the broker
    first = site.right(await site.everest.stop("t1"), "AB010203", low, site.east + 1)
    assert (await site.everest.start(request("t2", token="CD010203"))).status == "OK"
    await until(lambda: site.everest.fault is None, 20)
    site.meter.silent = True
    await until(lambda: site.everest.fault is not None, 20)  # EVerest sees that the meter is gone
    site.everest._reply_timeout = 20.0
    reply = await site.everest.stop("t2")
    assert reply.status == "UNEXPECTED_ERROR"
    assert not isinstance(reply.signed_meter_value, SignedMeterValue)
    assert isinstance(reply.error, str)
    assert "has not told its energy register" in reply.error
    site.meter.silent = False
    await until(lambda: site.everest.fault is None, 20)
    late = await site.everest.stop("t2")  # the register of the first stop is gone for good: what was drawn since is not billed
    assert late.status == "UNEXPECTED_ERROR"
    assert not isinstance(late.signed_meter_value, SignedMeterValue)
    assert (await site.everest.start(request("t3", token="EF010203"))).status == "OK"
    third = site.right(await site.everest.stop("t3"), "EF010203", low, site.east + 1)
    assert first != third
    assert site.pages == [1, 2]
    await asyncio.to_thread(site.hub.stop)
