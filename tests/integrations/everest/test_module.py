"""A powermeter module on a real Mosquitto, against a bare MQTT client that plays EVerest from the wire shapes of samples/."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from tests.core.world import World
from tests.links.mosquitto import Client, Mosquitto

from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Hub
from gridloom.core.model import Device, MeterReading, Phase, Quality, Reading, ReadingType, TransactionState
from gridloom.integrations.everest import ocmf
from gridloom.integrations.everest.config import Section
from gridloom.integrations.everest.keys import public_key
from gridloom.integrations.everest.link import ApiModules

METER = Device(
    id="dummy:m1", integration="dummy", identity="m1", vendor="Maker", model="M 1", serial="SN-7",
    measurands=("Energy.Active.Import.Register", "Power.Active.Import", "Voltage"),
)  # fmt: skip
BASE = "everest_api/1/powermeter/pm/"
REPLY = "everest_api/1/powermeter/pm/m2e/reply/1"
START = {
    "evse_id": "DE*PNX*E12345*1", "identification_data": "DEADBEEF", "identification_flags": [], "identification_status": "ASSIGNED",
    "identification_type": "ISO14443", "tariff_text": "0,30 EUR/kWh", "transaction_id": "t1",
}  # fmt: skip
DOCUMENT = yaml.safe_load((Path(__file__).parent / "documents" / "powermeter_asyncapi.2026-08.yaml").read_text())


def schema(name: str) -> Any:
    """A validator of one message of the AsyncAPI document."""
    return jsonschema_rs.validator_for({**DOCUMENT["components"]["messages"][name]["payload"], "components": DOCUMENT["components"]})


class Bench:
    """A hub's core with one meter, a broker, the powermeters, and EVerest's side of the wire."""

    def __init__(self, path: Path, server: Mosquitto, **settings: Any) -> None:
        self.path, self.server = path, server
        prefix = settings.pop("prefix", "")
        self.prefix = prefix
        one = {"module_id": "pm", "device": METER.id, "max_age": 0.5, "check_timeout": 0.3, **settings}
        self.section = msgspec.convert({"broker": server.url, "prefix": prefix, "powermeter": [one]}, Section, dec_hook=_hook)
        self.world = World(path, Clock())
        self.everest = Client(server.port, "#")

    async def open(self, meter: Device = METER) -> Bench:
        await self.world.open()
        await self.world.registry.register(meter)
        await self.go()
        return self

    async def go(self) -> None:
        world = self.world
        self.hub = Hub(
            clock=world.clock, bus=world.bus, intake=world.intake, commands=world.commands, registry=world.registry,
            transactions=world.transactions, alarms=world.alarms, accounts=world.accounts, outbox=world.outbox,
            documents=Space(world.store, "everest"), query=world.query, metrics=world.metrics, http=lambda: "http://127.0.0.1:1",
            data_dir=self.path, timezone="Europe/Paris",
        )  # fmt: skip
        self.service = ApiModules(self.section, self.hub, Random(1))
        await self.service.start()
        await until(lambda: all(broker.connected for broker in self.service._brokers.values()))

    async def close(self) -> None:
        await self.service.stop()
        await self.world.close()
        self.everest.close()

    async def measure(self, energy: int | float, exponent: int = 0, **more: float) -> None:
        now = self.world.clock.now()
        readings = [Reading(ReadingType("Energy.Active.Import.Register", "Wh"), energy, exponent)]
        units = {"power": ("Power.Active.Import", "W", None), "given": ("Power.Active.Export", "W", None), "u1": ("Voltage", "V", Phase.L1)}
        readings += [Reading(ReadingType(units[name][0], units[name][1], units[name][2]), value) for name, value in more.items()]
        await self.world.intake.readings([MeterReading(METER.id, now, now, tuple(readings))])

    async def hear(self, tail: str, timeout: float = 5) -> Any:
        return json.loads(await asyncio.to_thread(self.everest.until, self.prefix + BASE + tail, timeout))

    async def ask(self, what: str, payload: Any, reply: str = REPLY) -> Any:
        self.everest.publish(f"{self.prefix}{BASE}e2m/{what}", json.dumps({"headers": {"replyTo": reply}, "payload": payload}))
        return json.loads(await asyncio.to_thread(self.everest.until, self.prefix + reply, 15))

    async def transaction(self, key: str = "t1") -> Any:
        found = await self.world.transactions.find(device="everest:pm", key=key)
        return found[0] if found else None

    async def kinds(self) -> list[str]:
        return [event.kind async for event in _events(self.world)]


async def _events(world: World) -> AsyncIterator[Any]:
    from gridloom.core.ports import JournalFilter

    for one in await world.store.journal.entries(JournalFilter()):
        yield one.entry


def _hook(kind: type, value: Any) -> Any:
    return kind(value)


async def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.01)


def verified(reply: Any) -> ocmf.Record:
    """The record of a reply, after its signature was checked with the key in the reply by the bare library."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    value = reply["signed_meter_value"]
    assert (value["signing_method"], value["encoding_method"]) == ("", "OCMF")
    _, payload, signature = value["signed_meter_data"].split("|")
    key = load_der_public_key(bytes.fromhex(value["public_key"]))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(bytes.fromhex(json.loads(signature)["SD"]), payload.encode(), ec.ECDSA(hashes.SHA256()))
    return ocmf.parse(value["signed_meter_data"])


async def test_values_go_out_once_and_are_what_the_meter_said(bench: Bench) -> None:
    await bench.measure(123_456_789, power=500, given=200, u1=230.5)
    values = await bench.hear("m2e/powermeter_values")
    schema("send_powermeter_values").validate(values)
    assert values["energy_Wh_import"] == {"total": 123_456_789}
    assert values["power_W"] == {"total": 300}
    assert values["voltage_V"] == {"L1": 230.5}
    assert values["meter_id"] == "SN-7"
    assert "current_A" not in values
    await asyncio.sleep(0.8)
    assert not [topic for topic, _, _ in bench.everest.drained() if topic.endswith("powermeter_values")]


async def test_the_communication_check_stops_with_the_values_and_comes_back(bench: Bench) -> None:
    await bench.measure(1)
    assert await bench.hear("m2e/communication_check") is True
    await asyncio.sleep(0.8)
    bench.everest.drained()
    await asyncio.sleep(0.4)
    assert not [topic for topic, _, _ in bench.everest.drained() if topic.endswith("communication_check")]
    assert "powermeter.lost" in await bench.kinds()
    assert "has not told its energy register" in bench.service.health().reason
    await bench.measure(2)
    assert await bench.hear("m2e/communication_check") is True


async def test_values_and_checks_are_not_retained_and_the_key_is(bench: Bench) -> None:
    await bench.measure(1)
    await bench.hear("m2e/communication_check")
    late = await asyncio.to_thread(Client, bench.server.port, "#")
    await asyncio.sleep(0.2)
    kept = {topic: payload for topic, payload, retained in late.drained() if retained}
    late.close()
    assert list(kept) == [BASE + "m2e/public_key_ocmf"]
    key = json.loads(kept[BASE + "m2e/public_key_ocmf"])
    assert key == key.upper()
    assert public_key(key).hex == key


async def test_the_key_is_sent_again_when_everest_was_restarted(bench: Bench) -> None:
    bench.everest.publish(BASE + "e2m/heartbeat", "41")
    bench.everest.publish(BASE + "e2m/heartbeat", "42")
    await asyncio.sleep(0.2)
    bench.everest.drained()
    bench.everest.publish(BASE + "e2m/heartbeat", "0")
    assert isinstance(await bench.hear("m2e/public_key_ocmf"), str)


@pytest.mark.parametrize("stop", ["t1", {"transaction_id": "t1"}, ""])
async def test_a_transaction_from_start_to_receipt(bench: Bench, stop: Any) -> None:
    await bench.measure(123_456_789_1, -1)
    reply = await bench.ask("start_transaction", START)
    schema("send_reply_start_transaction").validate(reply)
    assert reply == {"status": "OK"}
    await bench.measure(123_460_000)
    reply = await bench.ask("stop_transaction", stop)
    schema("send_reply_stop_transaction").validate(reply)
    assert reply["status"] == "OK"
    record = verified(reply)
    payload = json.loads(reply["signed_meter_value"]["signed_meter_data"].split("|")[1])
    assert payload["PG"] == "T1"
    assert (payload["MV"], payload["MM"], payload["MS"]) == ("Maker", "M 1", "SN-7")
    assert (payload["IS"], payload["IT"], payload["ID"], payload["TT"], payload["CI"]) == (
        True, "ISO14443", "DEADBEEF", "0,30 EUR/kWh", "DE*PNX*E12345*1",
    )  # fmt: skip
    assert [(reading["TX"], reading["RI"], reading["ST"]) for reading in payload["RD"]] == [("B", "1-0:1.8.0", "G"), ("E", "1-0:1.8.0", "G")]
    assert '"RV":123456789.1' in reply["signed_meter_value"]["signed_meter_data"]  # every digit, although EVerest rounds to 32 bits
    assert [reading.energy_wh for reading in record.readings][1] == 123_460_000
    kept = await bench.transaction()
    assert kept.state is TransactionState.ENDED
    assert kept.data["record"] == reply["signed_meter_value"]["signed_meter_data"]


async def test_pages_go_up_by_one_and_survive_a_restart(bench: Bench) -> None:
    pages = []
    for number in range(3):
        await bench.measure(1000 + number)
        assert (await bench.ask("start_transaction", START | {"transaction_id": f"n{number}"}))["status"] == "OK"
        reply = await bench.ask("stop_transaction", f"n{number}")
        pages.append(json.loads(reply["signed_meter_value"]["signed_meter_data"].split("|")[1])["PG"])
        await bench.service.stop()
        await bench.go()
    assert pages == ["T1", "T2", "T3"]


async def test_a_second_start_is_refused_and_the_same_start_is_answered_again(bench: Bench) -> None:
    await bench.measure(1)
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    reply = await bench.ask("start_transaction", START | {"identification_data": "C0FFEE"})
    assert (reply["status"], "was asked for otherwise" in reply["error"]) == ("UNEXPECTED_ERROR", True)
    await bench.measure(2)
    reply = await bench.ask("start_transaction", START | {"transaction_id": "t2"})
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert "'t1' runs" in reply["error"]


async def test_a_stop_is_answered_again_with_the_same_record_also_after_a_restart(bench: Bench) -> None:
    await bench.measure(1)
    await bench.ask("start_transaction", START)
    first = await bench.ask("stop_transaction", "t1")
    assert await bench.ask("stop_transaction", "t1") == first
    await bench.service.stop()
    await bench.go()
    assert await bench.ask("stop_transaction", "t1") == first
    assert await bench.ask("stop_transaction", "") == {"status": "OK"}
    reply = await bench.ask("stop_transaction", "never heard")
    assert reply["signed_meter_value"] == first["signed_meter_value"]
    assert "'never heard' is not known" in reply["error"]


async def test_the_last_record_is_given_for_an_unknown_id_only_after_a_restart(bench: Bench) -> None:
    await bench.measure(1)
    bench.everest.publish(BASE + "e2m/heartbeat", "41")
    await bench.ask("start_transaction", START)
    mine = await bench.ask("stop_transaction", "t1")
    reply = await bench.ask("stop_transaction", "never heard")
    assert (reply["status"], "signed_meter_value" in reply) == ("UNEXPECTED_ERROR", False)
    bench.everest.publish(BASE + "e2m/heartbeat", "0")  # EVerest was restarted
    reply = await bench.ask("stop_transaction", "never heard")
    assert reply["signed_meter_value"] == mine["signed_meter_value"]


async def test_who_was_misunderstood_at_the_start_never_gets_the_record_of_another(bench: Bench) -> None:
    await bench.measure(1)
    await bench.ask("start_transaction", START)
    await bench.ask("stop_transaction", "t1")
    for key in ("t2", "3" * 200):
        assert "tariff_text" in (await bench.ask("start_transaction", START | {"transaction_id": key, "tariff_text": "x" * 251}))["error"]
        await bench.service.stop()
        await bench.go()
        reply = await bench.ask("stop_transaction", key)
        assert (reply["status"], "signed_meter_value" in reply) == ("NOT_SUPPORTED", False)
        await bench.measure(1)


async def test_of_several_flags_of_a_group_the_first_is_recorded(bench: Bench) -> None:
    await bench.measure(1)
    flags = ["OCPP_AUTH", "RFID_PLAIN", "OCPP_RS_TLS"]
    assert (await bench.ask("start_transaction", START | {"identification_flags": flags}))["status"] == "OK"
    assert verified(await bench.ask("stop_transaction", "t1")).fields["IF"] == ("OCPP_AUTH", "RFID_PLAIN")
    metric = next(one for one in bench.world.metrics.collect() if one.name == "gridloom_everest_malformed_total")
    assert [value.value for value in metric.values] == [1.0]


async def test_a_stop_of_the_unknown_without_any_record_is_an_honest_error(bench: Bench) -> None:
    reply = await bench.ask("stop_transaction", "x")
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert "not known" in reply["error"]
    assert await bench.ask("stop_transaction", "") == {"status": "OK"}


async def test_a_transaction_is_found_again_after_power_was_lost(bench: Bench) -> None:
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await bench.service.stop()
    await bench.go()
    await bench.measure(250)
    record = verified(await bench.ask("stop_transaction", "t1"))
    assert [int(reading.energy_wh or 0) for reading in record.readings] == [100, 250]


async def test_without_a_fresh_register_a_start_is_not_supported(bench: Bench) -> None:
    reply = await bench.ask("start_transaction", START)
    assert reply["status"] == "NOT_SUPPORTED"
    assert "dummy:m1 has not told" in reply["error"]
    await bench.measure(1)
    await asyncio.sleep(0.7)
    assert (await bench.ask("start_transaction", START))["status"] == "NOT_SUPPORTED"
    assert await bench.transaction() is None


async def test_a_suspect_value_is_no_register(bench: Bench) -> None:
    now = bench.world.clock.now()
    value = Reading(ReadingType("Energy.Active.Import.Register", "Wh"), 5, quality=Quality.SUSPECT)
    await bench.world.intake.readings([MeterReading(METER.id, now, now, (value,))])
    assert (await bench.ask("start_transaction", START))["status"] == "NOT_SUPPORTED"


async def test_a_meter_that_falls_silent_leaves_no_receipt_and_blocks_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.PATIENCE", 0.3)
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await asyncio.sleep(0.6)
    reply = await bench.ask("stop_transaction", "t1")
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert "signed_meter_value" not in reply
    assert "has not told its energy register" in reply["error"]
    assert "ocmf.failed" in await bench.kinds()
    await bench.measure(200)
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "OK"
    # the meter is back: but the first one's end would hold the energy of the second
    await bench.measure(210)
    assert (await bench.ask("stop_transaction", "t2"))["status"] == "OK"
    reply = await bench.ask("stop_transaction", "t1")
    assert "signed_meter_value" not in reply
    assert "had no end when 't2' began" in reply["error"]


async def test_what_is_drawn_after_a_stop_without_an_end_is_never_billed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.PATIENCE", 0.3)
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await asyncio.sleep(0.6)
    assert (await bench.ask("stop_transaction", "t1"))["status"] == "UNEXPECTED_ERROR"
    for restarted in (False, True):
        if restarted:
            await bench.service.stop()
            await bench.go()
        await bench.measure(210)
        reply = await bench.ask("stop_transaction", "t1")
        assert (reply["status"], "signed_meter_value" in reply) == ("UNEXPECTED_ERROR", False)
        assert "its stop was asked at 20" in reply["error"]


async def test_a_register_of_the_time_of_the_first_stop_ends_a_lost_transaction(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.PATIENCE", 2.0)
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await bench.measure(50)
    assert "from 100 to 50 Wh" in (await bench.ask("stop_transaction", "t1"))["error"]
    await bench.measure(101)  # it had told one wrong value
    record = verified(await bench.ask("stop_transaction", "t1"))
    assert [int(reading.energy_wh or 0) for reading in record.readings] == [100, 101]


async def test_a_stop_waits_a_moment_for_the_meter(bench: Bench) -> None:
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await asyncio.sleep(0.7)
    asking = asyncio.ensure_future(bench.ask("stop_transaction", "t1"))
    await asyncio.sleep(0.3)
    assert not asking.done()
    await bench.measure(150)
    assert (await asking)["status"] == "OK"


async def test_a_register_that_went_backwards_gives_no_receipt(bench: Bench) -> None:
    await bench.measure(1000)
    await bench.ask("start_transaction", START)
    await bench.measure(10)
    reply = await bench.ask("stop_transaction", "t1")
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert "from 1000 to 10 Wh" in reply["error"]
    assert (await bench.transaction()).state is TransactionState.LOST


@pytest.mark.parametrize(
    ("what", "payload", "field"),
    [
        ("start_transaction", START | {"identification_type": "CARD"}, "$.payload.identification_type"),
        ("start_transaction", {"transaction_id": "t1"}, "$.payload.evse_id"),
        ("start_transaction", START | {"identification_level": None}, "$.payload.identification_level"),
        ("start_transaction", START | {"transaction_id": ""}, "$.payload.transaction_id"),
        ("start_transaction", "t1", "$.payload"),
        ("stop_transaction", {"id": "t1"}, "$.payload.transaction_id"),
        ("stop_transaction", 5, "$.payload"),
        ("stop_transaction", None, "$.payload"),
    ],
)
async def test_a_malformed_request_is_answered_with_its_field_and_changes_nothing(bench: Bench, what: str, payload: Any, field: str) -> None:
    await bench.measure(1)
    reply = await bench.ask(what, payload)
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert field in reply["error"]
    assert await bench.transaction() is None
    metric = next(one for one in bench.world.metrics.collect() if one.name == "gridloom_everest_malformed_total")
    assert [(value.labels, value.value) for value in metric.values] == [((("module", "pm"), ("topic", what)), 1.0)]


async def test_a_request_that_is_cut_is_counted_and_survived(bench: Bench) -> None:
    for payload in (b"", b"{", b'{"headers":{"replyTo":5},"payload":""}', b"\xff\xfe", b"[]", b'{"payload":' + b"[" * 5000):
        bench.everest.publish(BASE + "e2m/stop_transaction", payload)
        bench.everest.publish(BASE + "e2m/heartbeat", payload)
    await bench.measure(1)
    assert (await bench.ask("start_transaction", START))["status"] == "OK"


async def test_an_envelope_without_a_payload_that_names_a_reply_topic_is_answered(bench: Bench) -> None:
    bench.everest.publish(BASE + "e2m/stop_transaction", json.dumps({"headers": {"replyTo": REPLY}}))
    reply = await bench.hear("m2e/reply/1")
    assert reply["status"] == "UNEXPECTED_ERROR"
    assert "payload" in reply["error"]


async def test_without_a_reply_topic_a_request_is_carried_out_and_nothing_is_said(bench: Bench) -> None:
    await bench.measure(1)
    bench.everest.drained()
    bench.everest.publish(BASE + "e2m/start_transaction", json.dumps({"payload": START}))
    await until(lambda: bool(bench.world.transactions.running("everest:pm")))
    await asyncio.sleep(0.2)
    assert not [topic for topic, _, _ in bench.everest.drained() if "reply" in topic]


async def test_two_records_where_the_start_is_signed_by_itself(tmp_path: Path, server: Mosquitto) -> None:
    bench = await Bench(tmp_path, server, records="two", shortest=2, longest=3600).open()
    await bench.measure(100)
    start = await bench.ask("start_transaction", START)
    schema("send_reply_start_transaction").validate(start)
    assert start["transaction_min_stop_time"] < start["transaction_max_stop_time"]
    begin = verified(start)
    await bench.measure(150)
    stop = await bench.ask("stop_transaction", "t1")
    assert stop["start_signed_meter_value"] == start["signed_meter_value"]
    end = verified(stop)
    assert [reading.begins for reading in begin.readings] == [True]
    assert [reading.ends for reading in end.readings] == [True]
    assert (begin.page, end.page) == (1, 2)
    await bench.close()


async def test_the_external_prefix_stands_before_every_topic_also_of_the_reply(tmp_path: Path, server: Mosquitto) -> None:
    bench = await Bench(tmp_path, server, prefix="site/7/").open()
    await bench.measure(1)
    assert (await bench.hear("m2e/powermeter_values"))["energy_Wh_import"]["total"] == 1
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    await bench.close()


async def test_a_broker_that_restarts_in_the_middle_loses_no_transaction(tmp_path: Path) -> None:
    server = Mosquitto(tmp_path / "broker")
    bench = await Bench(tmp_path, server).open()
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    server.kill()
    await until(lambda: not bench.service._brokers[server.url].connected)
    await until(lambda: "not connected" in bench.world.registry.state("everest:pm").reason)
    await bench.measure(170)
    server.start()
    await until(lambda: bench.service._brokers[server.url].connected)
    bench.everest.close()
    bench.everest = await asyncio.to_thread(Client, server.port, "#")
    await bench.measure(180)
    record = verified(await bench.ask("stop_transaction", "t1"))
    assert [int(reading.energy_wh or 0) for reading in record.readings] == [100, 180]
    await bench.close()
    server.kill()


async def test_a_meter_without_the_energy_register_is_refused_at_the_start(tmp_path: Path, server: Mosquitto) -> None:
    bench = Bench(tmp_path, server)
    await bench.world.open()
    await bench.world.registry.register(msgspec.structs.replace(METER, measurands=("Voltage",)))
    with pytest.raises(ConfigurationError, match=r"module_id = 'pm': dummy:m1 cannot give energy_Wh_import\.total.*it gives Voltage"):
        await bench.go()
    bench.everest.close()
    await bench.world.close()


async def test_no_secret_is_in_what_is_kept_or_said(bench: Bench) -> None:
    await bench.measure(1)
    private = bench.path / "keys" / "pm.pem"
    assert private.stat().st_mode & 0o077 == 0
    lines = [line for line in private.read_text().splitlines() if "-----" not in line]
    await bench.ask("start_transaction", START)
    await bench.ask("stop_transaction", "t1")
    said = b"".join(payload for _, payload, _ in bench.everest.drained()) + repr(bench.service.powermeters()[0]._signer).encode()
    assert not [line for line in lines if line.encode() in said]
