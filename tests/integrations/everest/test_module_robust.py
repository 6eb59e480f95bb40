"""A powermeter module where the world is not as it should be: other meters, two brokers, floods, hubs in the same place, keys that change."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.integrations.everest.test_module import BASE, METER, REPLY, START, Bench, _hook, schema, until, verified
from tests.integrations.tic.pty import historic, standard
from tests.integrations.tic.test_mapping import Line
from tests.links.mosquitto import Client, Mosquitto

from gridloom.core.model import Consent, Device, MeterReading, Phase, Quality, Reading, ReadingType, TransactionState
from gridloom.integrations.everest import keys, safe
from gridloom.integrations.everest.config import Section
from gridloom.integrations.everest.mapping import Values, powermeter
from gridloom.integrations.tic.codec import Frame, Parser
from gridloom.web import wire

R, P = Reading, ReadingType


# ---------------------------------------------------------------------------------------------------------------- whatever meter


def told(*readings: Reading, location: str | None = None) -> Any:
    values = Values(location)
    values.take(MeterReading("m:1", 1_000_000, 1_000_000, readings), 10.0)
    made = powermeter(values, 9.0, "m")
    return None if made is None else json.loads(msgspec.json.encode(made))


ENERGY = R(P("Energy.Active.Import.Register", "Wh"), 100)


def test_a_meter_that_measures_each_phase() -> None:
    """As an EKM Omnimeter: totals and lines, both directions, reactive, frequency."""
    said = told(
        ENERGY,
        R(P("Energy.Active.Import.Register", "Wh", Phase.L1), 333, -1),
        R(P("Energy.Active.Export.Register", "Wh"), 7),
        R(P("Power.Active.Import", "W"), 690),
        R(P("Power.Active.Import", "W", Phase.L1), 230),
        R(P("Power.Active.Export", "W", Phase.L2), 100),
        R(P("Power.Reactive.Import", "var"), 50),
        R(P("Power.Reactive.Export", "var"), 80),
        *(R(P("Voltage", "V", phase), 2301, -1) for phase in (Phase.L1, Phase.L2, Phase.L3)),
        R(P("Current.Import", "A"), 30, -1),
        R(P("Current.Import", "A", Phase.L1), 10, -1),
        R(P("Current.Import", "A", Phase.N), 1, -1),
        R(P("Frequency", "Hz"), 4998, -2),
        R(P("Temperature.Board", "°C"), 31),
        R(P("Temperature", "°C", location="probe 1"), 21),
        R(P("Phase.Sequence.Error", "1"), 0),
    )
    schema("send_powermeter_values").validate(said)
    assert said == {
        "timestamp": "1970-01-01T00:00:01.000Z",
        "meter_id": "m",
        "energy_Wh_import": {"total": 100.0, "L1": 33.3},
        "energy_Wh_export": {"total": 7.0},
        "power_W": {"total": 690.0, "L1": 230.0, "L2": -100.0},
        "VAR": {"total": -30.0},
        "voltage_V": {"L1": 230.1, "L2": 230.1, "L3": 230.1},
        "current_A": {"L1": 1.0, "N": 0.1},
        "frequency_Hz": {"L1": 49.98},
        "phase_seq_error": False,
        "temperatures": [{"temperature": 31.0, "location": "Board"}, {"temperature": 21.0, "location": "probe 1"}],
    }


def test_a_sum_of_several_phases_is_never_told_as_the_first() -> None:
    said = told(ENERGY, R(P("Current.Import", "A"), 30), R(P("Voltage", "V", Phase.L2), 230))
    assert "current_A" not in said
    assert said["voltage_V"] == {"L2": 230.0}
    assert told(ENERGY, R(P("Current.Import", "A"), 30))["current_A"] == {"L1": 30.0}


def test_a_feeder_of_a_substation_is_one_of_its_places() -> None:
    here, there = (R(P("Energy.Active.Import.Register", "Wh", location=place), number) for place, number in (("P1Meter", 5), ("P2Meter", 9)))
    oil = R(P("Temperature.Oil", "°C"), 60)
    assert told(here, there, oil, location="P1Meter")["energy_Wh_import"] == {"total": 5.0}
    assert "temperatures" not in told(here, there, oil, location="P1Meter")
    assert told(here, there) is None


def test_a_tariff_register_text_and_values_that_nobody_should_trust_are_no_register() -> None:
    assert told(R(P("Energy.Active.Import.Register", "Wh", tariff="HC"), 5)) is None
    assert told(R(P("Energy.Active.Import.Register", "Wh"), "5")) is None
    for quality in (Quality.SUSPECT, Quality.LATE, Quality.TEST):
        assert told(R(P("Energy.Active.Import.Register", "Wh"), 5, quality=quality)) is None
    assert told(R(P("Energy.Active.Import.Register", "Wh"), 5, quality=Quality.DERIVED)) is not None


def test_direct_current() -> None:
    said = told(ENERGY, R(P("Voltage.DC", "V"), 400), R(P("Current.DC", "A"), 50))
    assert (said["voltage_V"], said["current_A"]) == ({"DC": 400.0}, {"DC": 50.0})


@pytest.mark.parametrize("frame", [historic, standard])
async def test_a_linky_in_both_modes(tmp_path: Path, server: Mosquitto, frame: Any) -> None:
    (read,) = [one for one in Parser().feed(frame()) if isinstance(one, Frame)]
    (reading,), _ = Line().hear(read)
    meter = Device(id=reading.device, integration="tic", identity=reading.device[4:], measurands=("Energy.Active.Import.Register",))
    bench = await Bench(tmp_path, server, device=reading.device).open(meter)
    now = bench.world.clock.now()
    await bench.world.intake.readings([msgspec.structs.replace(reading, received=now, native=None)])
    values = await bench.hear("m2e/powermeter_values")
    schema("send_powermeter_values").validate(values)
    assert values["energy_Wh_import"]["total"] in (8_123_456, 1_234_567)
    assert values["current_A"] == {"L1": 2}
    assert "power_W" not in values  # a Linky tells apparent power only
    await bench.close()


# ----------------------------------------------------------------------------------------------------- clocks, ages, slow meters


async def test_a_clock_that_is_set_back_neither_hides_values_nor_makes_old_ones_fresh(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    now = bench.world.clock.now
    monkeypatch.setattr(bench.world.clock, "now", lambda: now() - 3_600_000_000)
    await bench.measure(120)
    assert (await bench.hear("m2e/powermeter_values"))["energy_Wh_import"]["total"] in (100, 120)
    reply = await bench.ask("stop_transaction", "t1")
    assert "signed_meter_value" not in reply
    assert "clock was set back" in reply["error"]
    await asyncio.sleep(0.7)
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "NOT_SUPPORTED"
    monkeypatch.undo()
    await bench.measure(130)
    assert "signed_meter_value" not in await bench.ask("stop_transaction", "t1")  # whether 130 is of the first stop's time, no clock says


async def test_a_slow_meter_needs_a_register_of_after_the_begin(tmp_path: Path, server: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.PATIENCE", 0.4)
    bench = await Bench(tmp_path, server, max_age=900).open()
    await bench.measure(100)
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    reply = await bench.ask("stop_transaction", "t1")
    assert "since the begin" in reply["error"]
    assert (await bench.transaction()).state is TransactionState.LOST
    await bench.measure(140)
    assert "the register of then is not known" in (await bench.ask("stop_transaction", "t1"))["error"]
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "OK"
    await bench.measure(150)
    assert verified(await bench.ask("stop_transaction", "t2")).readings[1].energy_wh == 150
    await bench.close()


@pytest.mark.parametrize("held", [True, False])
async def test_the_letter_of_the_clock_is_that_of_each_moment(bench: Bench, monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.synchronised", lambda: held)
    await bench.measure(1)
    await bench.ask("start_transaction", START)
    monkeypatch.setattr("gridloom.integrations.everest.module.synchronised", lambda: not held)
    reply = await bench.ask("stop_transaction", "t1")
    times = [reading["TM"][-1] for reading in json.loads(reply["signed_meter_value"]["signed_meter_data"].split("|")[1])["RD"]]
    assert times == (["S", "I"] if held else ["I", "S"])


# ------------------------------------------------------------------------------------------------------ several modules, brokers


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path / "other")
    yield made
    made.kill()


async def test_two_modules_on_two_brokers_with_prefixes_of_their_own(tmp_path: Path, server: Mosquitto, other: Mosquitto) -> None:
    bench = Bench(tmp_path, server)
    first = {"module_id": "pm", "device": METER.id, "max_age": 0.5, "check_timeout": 0.3}
    second = first | {"module_id": "pm2", "broker": other.url, "prefix": "b/"}
    bench.section = msgspec.convert({"broker": server.url, "powermeter": [first, second]}, Section, dec_hook=_hook)
    await bench.open()
    ear = await asyncio.to_thread(Client, other.port, "#")
    await bench.measure(7)
    topic = "b/everest_api/1/powermeter/pm2/m2e/powermeter_values"
    assert json.loads(await asyncio.to_thread(ear.until, topic))["energy_Wh_import"]["total"] == 7
    assert (await bench.hear("m2e/powermeter_values"))["energy_Wh_import"]["total"] == 7
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    request = {"headers": {"replyTo": "everest_api/1/powermeter/pm2/m2e/reply/9"}, "payload": START}
    ear.publish("b/everest_api/1/powermeter/pm2/e2m/start_transaction", json.dumps(request))
    reply = json.loads(await asyncio.to_thread(ear.until, "b/everest_api/1/powermeter/pm2/m2e/reply/9"))
    assert reply == {"status": "OK"}  # one meter, two modules, two transactions with the same id
    assert {one.device for one in await bench.world.transactions.find(key="t1")} == {"everest:pm", "everest:pm2"}
    ear.close()
    await bench.close()


async def test_another_hub_in_the_same_place_is_seen(tmp_path: Path, bench: Bench) -> None:
    await until(lambda: bench.service.powermeters()[0]._echoed)
    (tmp_path / "other").mkdir()
    other = await Bench(tmp_path / "other", bench.server).open()
    await bench.measure(1)
    await until(lambda: "two hubs" in bench.service.health().reason)
    await other.close()


async def test_credentials_of_a_broker_are_in_no_health_metric_or_event(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    server = Mosquitto(tmp_path / "b")
    bench = Bench(folder, server)
    bench.section = msgspec.structs.replace(bench.section, broker=type(bench.section.broker)(server.url.replace("//", "//joe:hunter2@")))  # type: ignore[misc]
    await bench.open()
    server.kill()
    await until(lambda: "not connected" in bench.service.health().reason or "127.0.0.1" in bench.service.health().reason)
    said = bench.service.health().reason + repr(bench.service._connected()) + repr(bench.section)
    assert "hunter2" not in said
    await bench.close()


# ------------------------------------------------------------------------------------------------------------ bad input in bulk


async def test_a_retained_request_is_not_carried_out(tmp_path: Path, server: Mosquitto) -> None:
    client = await asyncio.to_thread(Client, server.port)
    client.publish(BASE + "e2m/start_transaction", json.dumps({"headers": {"replyTo": REPLY}, "payload": START}), retain=True)
    await asyncio.sleep(0.1)
    bench = await Bench(tmp_path, server).open()
    await bench.measure(1)
    await asyncio.sleep(0.3)
    assert await bench.transaction() is None
    client.publish(BASE + "e2m/start_transaction", b"", retain=True)
    await asyncio.sleep(0.1)
    client.close()
    await bench.close()


async def test_a_huge_request_is_counted_and_not_read(bench: Bench) -> None:
    await bench.measure(1)
    bench.everest.publish(BASE + "e2m/start_transaction", json.dumps({"headers": {"replyTo": REPLY}, "payload": START | {"x": "y" * 70_000}}))
    assert (await bench.ask("start_transaction", START))["status"] == "OK"
    metric = next(one for one in bench.world.metrics.collect() if one.name == "gridloom_everest_malformed_total")
    assert [value.value for value in metric.values] == [1.0]


@pytest.mark.parametrize("where", ["\0", "a\x1fb", "/" * 300, "\uffff", "\ufdd0", "+", "x" * 65_530])
async def test_a_reply_topic_that_the_broker_would_not_take_is_malformed(bench: Bench, where: str) -> None:
    await bench.measure(1)
    where = f"everest_api/{where}"
    for payload in (START, None):
        request = {"headers": {"replyTo": where}, "payload": payload}
        bench.everest.publish(BASE + "e2m/start_transaction", json.dumps(request, ensure_ascii=False))
    await until(lambda: _malformed(bench) == 2)
    assert await bench.transaction() is None
    (broker,) = bench.service._brokers.values()
    assert (broker.connected, broker.dropped) == (True, 0)  # type: ignore[attr-defined]
    assert (await bench.ask("start_transaction", START))["status"] == "OK"


def _malformed(bench: Bench) -> float:
    metric = next(one for one in bench.world.metrics.collect() if one.name == "gridloom_everest_malformed_total")
    return sum(value.value for value in metric.values)


async def test_a_flood_is_answered_within_bounds_and_warned_of_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.measure(1)
    caplog.set_level(logging.WARNING)
    for number in range(400):
        bench.everest.publish(f"{BASE}e2m/stop_transaction", json.dumps({"headers": {"replyTo": f"everest_api/r/{number}"}, "payload": 5}))
    for number in range(400):
        await asyncio.to_thread(bench.everest.until, f"everest_api/r/{number}")
    warnings = [record for record in caplog.records if record.message == "a message of EVerest cannot be understood"]
    assert len(warnings) == 1
    assert warnings[0].topic == BASE + "e2m/stop_transaction"  # type: ignore[attr-defined]
    assert "$.payload" in warnings[0].reason  # type: ignore[attr-defined]
    assert len(bench.service.powermeters()[0]._requests) == 0
    assert "transaction.refused" not in await bench.kinds()
    await bench.measure(1)
    assert (await bench.ask("start_transaction", START))["status"] == "OK"


async def test_who_was_refused_at_the_start_never_gets_the_record_of_another(bench: Bench) -> None:
    await bench.measure(1)
    await bench.ask("start_transaction", START)
    assert (await bench.ask("start_transaction", START | {"transaction_id": "late"}))["status"] == "UNEXPECTED_ERROR"
    assert (await bench.ask("stop_transaction", "t1"))["status"] == "OK"
    await asyncio.sleep(0.7)
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "NOT_SUPPORTED"
    await bench.service.stop()
    await bench.go()
    for key in ("late", "t2"):
        reply = await bench.ask("stop_transaction", key)
        assert (reply["status"], "signed_meter_value" in reply) == ("NOT_SUPPORTED", False)
    await bench.measure(2)
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "OK"  # asked again, and taken
    assert (await bench.ask("stop_transaction", "t2"))["status"] == "OK"


async def test_text_that_would_break_a_record_is_escaped(bench: Bench) -> None:
    await bench.measure(1)
    await bench.ask("start_transaction", START | {"tariff_text": "0,30 €|kWh", "identification_data": "a|b"})
    reply = await bench.ask("stop_transaction", "t1")
    record = verified(reply)
    assert (record.fields["TT"], record.fields["ID"]) == ("0,30 €|kWh", "a|b")
    assert reply["signed_meter_value"]["signed_meter_data"].isascii()


# ------------------------------------------------------------------------------------------------------- the meter, its owner


async def test_an_owner_who_refuses_is_obeyed(bench: Bench) -> None:
    await bench.measure(1)
    await bench.ask("start_transaction", START)
    await bench.world.registry.update(METER.id, bench.world.admin, consent=Consent.REFUSED)
    await asyncio.sleep(0.1)
    bench.everest.drained()
    await bench.measure(2)
    await asyncio.sleep(0.3)
    assert not [topic for topic, _, _ in bench.everest.drained() if "m2e/powermeter_values" in topic or "communication_check" in topic]
    assert "refused" in bench.service.health().reason
    reply = await bench.ask("start_transaction", START | {"transaction_id": "t2"})
    assert reply["status"] == "UNEXPECTED_ERROR"  # t1 runs
    await bench.world.registry.update(METER.id, bench.world.admin, consent=Consent.CONSENT)
    await bench.measure(3)
    assert verified(await bench.ask("stop_transaction", "t1")).readings[1].energy_wh == 3


async def test_a_meter_that_is_removed_or_exchanged_leaves_no_wrong_receipt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.module.PATIENCE", 0.3)
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await bench.world.registry.remove(METER.id, bench.world.admin)
    reply = await bench.ask("stop_transaction", "t1")
    assert "signed_meter_value" not in reply
    assert (await bench.ask("start_transaction", START | {"transaction_id": "t2"}))["status"] == "NOT_SUPPORTED"
    await bench.world.registry.register(msgspec.structs.replace(METER, serial="SN-8"))
    await bench.measure(5000)
    reply = await bench.ask("stop_transaction", "t1")
    assert "began with the meter SN-7 and SN-8 is there now" in reply["error"]
    assert "signed_meter_value" not in reply


async def test_alarms_of_before_a_restart_are_cleared(bench: Bench) -> None:
    await until(lambda: bench.world.alarms.raised("everest:pm", "powermeter.lost") is not None)
    await bench.service.stop()
    await bench.measure(1)
    await bench.go()
    await bench.measure(1)
    await until(lambda: bench.world.alarms.raised("everest:pm", "powermeter.lost") is None)


async def test_values_from_before_a_restart_keep_their_age(bench: Bench) -> None:
    await bench.measure(1)
    await bench.service.stop()
    await asyncio.sleep(0.6)
    await bench.go()
    assert (await bench.ask("start_transaction", START))["status"] == "NOT_SUPPORTED"


# ------------------------------------------------------------------------------------------------------------------- keys


async def test_a_new_key_is_told_and_old_records_stay_verifiable(tmp_path: Path, server: Mosquitto) -> None:
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        keys.generate().write(file)
    bench = await Bench(tmp_path, server, records="two", signing_key_file=str(first)).open()
    await bench.measure(100)
    start = await bench.ask("start_transaction", START)
    await bench.service.stop()
    one = msgspec.structs.replace(bench.section.powermeter[0], signing_key_file=type(bench.section.powermeter[0].signing_key_file)(str(second)))  # type: ignore[misc]
    bench.section = msgspec.structs.replace(bench.section, powermeter=(one,))
    await bench.go()
    assert (await bench.kinds()).count("signing_key.changed") == 1
    await bench.measure(150)
    stop = await bench.ask("stop_transaction", "t1")
    verified(start)
    verified(stop)
    assert stop["start_signed_meter_value"] == start["signed_meter_value"]
    assert start["signed_meter_value"]["public_key"] != stop["signed_meter_value"]["public_key"]
    ring = keys.Keyring(tmp_path / "keys")
    assert {key.hex for key in ring.publics("pm").values()} == {reply["signed_meter_value"]["public_key"] for reply in (start, stop)}
    await bench.close()


async def test_the_transaction_as_the_api_gives_it_is_what_export_takes(bench: Bench) -> None:
    await bench.measure(100)
    await bench.ask("start_transaction", START)
    await bench.measure(150)
    await bench.ask("stop_transaction", "t1")
    plain = msgspec.json.decode(msgspec.json.encode(wire.transaction(await bench.transaction())))
    (value,) = safe.exported(plain)
    assert value.key == plain["data"]["public_key"]
    assert "calibrated" in plain["data"]["notice"]


# ------------------------------------------------------------------------------------------------ every message, its schema

SCHEMAS = {
    "e2m/start_transaction": "receive_request_start_transaction", "e2m/heartbeat": "receive_heartbeat",
    "m2e/powermeter_values": "send_powermeter_values", "m2e/public_key_ocmf": "send_public_key_ocmf",
    "m2e/communication_check": "send_communication_check",
}  # fmt: skip


async def test_every_message_that_is_seen_is_as_the_document_says(bench: Bench) -> None:
    from gridloom.core.clock import Clock
    from gridloom.integrations.everest.simulator import Everest, request
    from gridloom.links import mqtt
    from gridloom.links.mqtt import Mqtt

    link = Mqtt(mqtt.broker(bench.server.url), client_id="ev", clock=Clock(), random=Random(1))
    everest = Everest(link, "pm", Clock(), heartbeat=0.1)
    await link.start()
    await until(lambda: link.connected)
    running = asyncio.create_task(everest.run())
    await bench.measure(5, power=3, u1=230)
    await everest.boot()
    for key in ("a", "b"):
        await bench.measure(6)
        await everest.start(request(key, token="AB"))
        await bench.measure(7)
        await everest.stop(key)
    await asyncio.sleep(0.3)
    bench.everest.publish(BASE + "e2m/heartbeat", "0")
    await asyncio.sleep(0.3)
    running.cancel()
    await link.stop()
    seen: dict[str, int] = {}
    asked: dict[str, str] = {}
    for topic, payload, _ in bench.everest.drained():
        tail = topic.removeprefix(BASE)
        message = json.loads(payload)
        if tail in ("e2m/start_transaction", "e2m/stop_transaction"):
            asked[message["headers"]["replyTo"]] = tail.rpartition("/")[2]
        if tail.startswith("m2e/reply/"):
            schema(f"send_reply_{asked[topic]}").validate(message)
        elif tail != "e2m/stop_transaction":  # a bare string at run time, contrary to the document (FACTS 2.2)
            schema(SCHEMAS[tail]).validate(message)
        seen[tail.split("reply")[0]] = seen.get(tail.split("reply")[0], 0) + 1
    assert set(seen) == {*SCHEMAS, "e2m/stop_transaction", "m2e/"}
    assert seen["m2e/"] == 5
