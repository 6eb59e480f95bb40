"""An EVerest charger as a device of the hub, driven over a real Mosquitto, against the simulated one and raw messages."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from tests.core.world import World
from tests.integrations.everest.test_module import _hook, until
from tests.links.mosquitto import Client, Mosquitto

from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.errors import Offline
from gridloom.core.hub import Hub
from gridloom.core.model import Command, CommandState, Transaction, TransactionState
from gridloom.integrations.everest.charger_simulator import EverestCharger
from gridloom.integrations.everest.config import Section
from gridloom.integrations.everest.link import ApiModules
from gridloom.integrations.everest.messages import SignedMeterValue
from gridloom.links import mqtt
from gridloom.links.mqtt import Mqtt

DEVICE = "everest:bay 1"
ALL = dict.fromkeys(("evse_manager", "limits", "tokens", "authorization", "errors", "costs", "session_cost"), "api")
RECORD = SignedMeterValue(signed_meter_data="OCMF|{}|{}", signing_method="", encoding_method="OCMF", public_key="3059")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield made
    made.kill()


class Yard:
    """A hub's core with one EVerest charger on a broker, simulated."""

    def __init__(self, path: Path, server: Mosquitto, prefix: str = "", **settings: Any) -> None:
        self.path, self.server = path, server
        one = {"name": "bay 1", "check_timeout": 0.3, "identification": "GUEST", **(settings or ALL)}
        self.section = msgspec.convert({"broker": server.url, "prefix": prefix, "charger": [one]}, Section, dec_hook=_hook)
        self.world = World(path, Clock())
        self.said: list[str] = []
        self.wire = Mqtt(mqtt.broker(server.url), client_id=f"everest-{path.name[-20:]}", clock=Clock(), random=Random(1))
        self.charger = EverestCharger(self.wire, "api", Clock(), prefix=prefix, energy=1000.5, record=RECORD, tell=self.said.append)
        self.ear = Client(server.port, "#")

    async def open(self) -> Yard:
        await self.world.open()
        await self.wire.start()
        await until(lambda: self.wire.connected)
        self.task = asyncio.create_task(self.charger.run())
        await self.go()
        await until(lambda: self.world.registry.online(DEVICE))
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

    async def close(self) -> None:
        await self.service.stop()
        self.task.cancel()
        await self.wire.stop()
        await self.world.close()
        self.ear.close()

    async def order(self, verb: str, **arguments: Any) -> Command:
        submitted = await self.world.commands.submit(self.world.admin, DEVICE, verb, arguments)
        return await self.world.commands.wait(submitted.id, 20)

    async def transactions(self) -> list[Transaction]:
        return await self.world.transactions.find(device=DEVICE)

    async def value(self, measurand: str, **more: Any) -> float | None:
        found = [one for one in await self.world.registry.latest_values(DEVICE) if one.type.measurand == measurand and one.type.phase is None]
        return float(found[0].value) * 10.0 ** found[0].exponent if found else None

    async def comes(self, check: Any) -> None:
        for _ in range(500):
            if await check():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it did not come to pass")


@pytest.fixture
async def yard(tmp_path: Path, server: Mosquitto) -> AsyncIterator[Yard]:
    made = await Yard(tmp_path, server).open()
    yield made
    await made.close()


async def test_a_session_from_plug_to_receipt(yard: Yard) -> None:
    yard.charger.plug()
    done = await yard.order("charge.start", identification="CARD 7")
    assert done.state is CommandState.DONE, done.error
    await yard.comes(yard.transactions)
    (running,) = await yard.transactions()
    assert (running.key, running.identification, running.state) == (yard.charger.session, "CARD 7", TransactionState.RUNNING)
    assert running.begin is not None
    assert float(running.begin.readings[0].number) == 1000.5
    key = yard.charger.session
    yard.charger.cost(123)
    done = await yard.order("charge.stop", transaction=key, reason="Local")
    assert done.state is CommandState.DONE, done.error

    async def ended() -> bool:
        return (await yard.transactions())[0].state is TransactionState.ENDED

    await yard.comes(ended)
    (transaction,) = await yard.transactions()
    assert transaction.reason == "Local"
    assert transaction.end is not None
    assert (transaction.data["record"], transaction.data["public_key"]) == ("OCMF|{}|{}", "3059")
    assert transaction.data["cost"] == {"amount": "1.23", "currency": "EUR", "status": "Running"}
    yard.charger.unplug()

    async def gone() -> bool:
        return "cable.unplugged occurred" in await yard.world.events()

    await yard.comes(gone)
    told = [one for one in await yard.world.events() if one.split(".")[0] in ("cable", "session", "authorization")]
    expected = ["cable.plugged", "authorization.accepted", "session.started", "session.ended", "cable.unplugged"]
    assert [one.split()[0] for one in told] == expected


async def test_telemetry_is_readings_with_the_digits_that_were_meant(yard: Yard) -> None:
    async def power() -> bool:
        return await yard.value("Voltage") is None and await yard.value("Energy.Active.Import.Register") == 1000.5

    await yard.comes(power)
    values = {(one.type.measurand, one.type.phase): (one.value, one.exponent) for one in await yard.world.registry.latest_values(DEVICE)}
    assert values["Energy.Active.Import.Register", None] == (10005, -1)
    assert values["Power.Active.Import", None] == (0, 0)
    assert values["Current.Offered", None] == (32, 0)
    await until(lambda: {"evse_id", "current_a", "connectors"} <= set(yard.world.registry.get(DEVICE).attributes))
    device = yard.world.registry.get(DEVICE)
    assert device.attributes["evse_id"] == "DE*PNX*E12345*1"
    assert device.attributes["connectors"] == "1"
    assert (device.attributes["current_a"], device.attributes["phases"]) == ("6 to 32", "1 to 3")


async def test_every_module_hears_that_the_hub_is_there(yard: Yard) -> None:
    await until(lambda: all(count >= 2 for count in yard.charger.checks.values()))


async def test_pause_resume_unlock_and_availability(yard: Yard) -> None:
    refused = await yard.order("charge.pause")
    assert refused.state is CommandState.FAILED
    assert "answers no to pause_charging" in refused.error
    yard.charger.plug()
    await yard.order("charge.start")
    assert yard.charger.token == "GUEST"
    assert (await yard.order("charge.pause")).state is CommandState.DONE
    assert yard.charger.state == "ChargingPausedEVSE"
    assert (await yard.order("charge.resume")).state is CommandState.DONE
    assert yard.charger.state == "Charging"
    assert (await yard.order("charge.unlock")).state is CommandState.DONE
    assert (await yard.order("charge.availability", available=False)).state is CommandState.DONE
    assert not yard.charger.enabled
    disabled = [topic for topic, payload, _ in yard.ear.drained() if topic.endswith("m2e/enable_disable") and b'"enable_priority":100' in payload]
    assert disabled
    refused = await yard.order("charge.stop", transaction="another")
    assert refused.state is CommandState.REFUSED
    assert "'another' does not run" in refused.error
    assert (await yard.order("charge.pause", connector=2)).state is CommandState.REFUSED


async def test_a_token_that_is_rejected_is_a_failed_start(yard: Yard) -> None:
    yard.charger.enabled = False
    failed = await yard.order("charge.start")
    assert failed.state is CommandState.FAILED
    assert "the token was Rejected" in failed.error


async def test_a_limit_is_set_enforced_and_lifted(yard: Yard) -> None:
    assert (await yard.order("charge.limit", current_a=10, phases=1)).state is CommandState.DONE
    await until(lambda: yard.charger.allowed() == 10)
    sent = json.loads(await asyncio.to_thread(yard.ear.until, "everest_api/1/external_energy_limits_consumer/api/m2e/set_external_limits"))
    entry = sent["schedule_import"][0]
    assert entry["limits_to_root"]["ac_max_current_A"] == {"source": "gridloom", "value": 10.0}
    assert entry["limits_to_root"]["ac_max_phase_count"] == {"source": "gridloom", "value": 1}
    assert (entry["limits_to_leaves"], sent["schedule_export"], sent["schedule_setpoints"]) == ({}, [], [])

    async def offered() -> bool:
        return await yard.value("Current.Offered") == 10

    await yard.comes(offered)
    assert "charge.limit.changed occurred" in await yard.world.events()
    assert (await yard.order("charge.limit.clear")).state is CommandState.DONE
    await until(lambda: yard.charger.allowed() is None)


async def test_a_limit_with_an_end_ends_also_when_the_hub_is_gone(yard: Yard) -> None:
    await yard.order("charge.limit", power_w=6900, duration_s=1)
    await until(lambda: yard.charger.allowed() == 10)
    entries = yard.charger.limits.schedule_import
    assert len(entries) == 2
    await until(lambda: yard.charger.allowed() is None, 5)
    await until(lambda: len(yard.charger.limits.schedule_import) == 1, 5)
    assert await yard.hub.documents.get("limit", "bay 1") is None


async def test_the_hub_lifts_its_own_limit_when_it_stops(yard: Yard) -> None:
    await yard.order("charge.limit", current_a=8)
    await until(lambda: yard.charger.allowed() == 8)
    await yard.service.stop()
    await until(lambda: yard.charger.allowed() is None)
    assert await yard.hub.documents.get("limit", "bay 1") is None
    await yard.go()


async def test_a_limit_is_said_again_after_a_crash_and_after_everest_was_restarted(yard: Yard) -> None:
    await yard.order("charge.limit", current_a=8)
    await until(lambda: yard.charger.allowed() == 8)
    await until(lambda: yard.service._modules[0]._heartbeat is not None)
    yard.charger.restart()
    await until(lambda: yard.charger.allowed() == 8)
    assert "device.restarted occurred" in await yard.world.events()
    charger = yard.service._modules[0]
    await yard.service._brokers[yard.server.url].stop()  # the broker hears no more of this hub: as after a crash
    yard.charger.restart()
    await yard.service.stop()
    assert yard.charger.allowed() is None
    assert charger.id == DEVICE
    await yard.go()
    await until(lambda: yard.charger.allowed() == 8)


async def test_a_limit_that_was_being_lifted_when_the_hub_died_is_lifted(yard: Yard) -> None:
    await yard.order("charge.limit", current_a=8)
    await until(lambda: yard.charger.allowed() == 8)
    await yard.service._brokers[yard.server.url].stop()
    with pytest.raises(Offline):
        await yard.service._modules[0]._set_limit(None)  # type: ignore[union-attr]
    await yard.service.stop()
    documents = yard.hub.documents
    await documents.commit([documents.put("limit", "bay 1", b"{}")])  # kept, and not yet said
    await yard.go()
    await until(lambda: yard.charger.allowed() is None)


async def test_a_limit_whose_lifting_the_broker_did_not_take_is_lifted_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.charger.LIFTING", 0.3)
    own = Mosquitto(tmp_path / "broker")
    (tmp_path / "hub").mkdir()
    yard = await Yard(tmp_path / "hub", own).open()
    await yard.order("charge.limit", current_a=8)
    await until(lambda: yard.charger.allowed() == 8)
    os.kill(own.process.pid, signal.SIGSTOP)  # type: ignore[union-attr]  # it takes, and says nothing
    await yard.service.stop()
    own.kill()
    own.start()
    await until(lambda: yard.wire.connected)
    assert yard.charger.allowed() == 8
    assert await yard.hub.documents.get("limit", "bay 1") is not None
    await yard.go()
    await until(lambda: yard.charger.allowed() is None)
    await until(lambda: yard.service._modules[0]._limit is None)  # type: ignore[union-attr]
    assert await yard.hub.documents.get("limit", "bay 1") is None
    await yard.close()
    own.kill()


@pytest.mark.parametrize("former", [16, None])
async def test_the_limit_of_a_charge_ends_with_it(yard: Yard, monkeypatch: pytest.MonkeyPatch, former: int | None) -> None:
    if former is not None:
        await yard.order("charge.limit", current_a=former)
        await until(lambda: yard.charger.allowed() == former)
    yard.charger.plug()
    assert (await yard.order("charge.start", current_a=10)).state is CommandState.DONE
    await until(lambda: yard.charger.allowed() == 10)
    await yard.comes(yard.transactions)
    assert (await yard.order("charge.stop")).state is CommandState.DONE
    await until(lambda: yard.charger.allowed() == former)
    yard.charger.unplug()
    yard.charger.enabled = False
    assert "Rejected" in (await yard.order("charge.start", current_a=9)).error
    await until(lambda: yard.charger.allowed() == former)
    monkeypatch.setattr("gridloom.integrations.everest.charger.ANSWER", 0.3)
    monkeypatch.setattr(yard.charger, "_say", lambda *_: None)
    monkeypatch.setattr(yard.charger, "_tell_limit", lambda: None)
    unsaid = await yard.order("charge.start", current_a=7)
    assert "does not say what became of it" in unsaid.error
    await until(lambda: yard.charger.allowed() == former)
    assert await yard.hub.documents.get("former_limit", "bay 1") is None


async def test_the_limit_of_a_charge_that_ended_unheard_ends(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.charger.PROBE", 0.5)
    yard.charger.plug()
    await yard.order("charge.start", current_a=10)
    await yard.comes(yard.transactions)
    await until(lambda: yard.charger.allowed() == 10)
    await yard.service._brokers[yard.server.url].stop()  # as after a crash
    await yard.service.stop()
    yard.charger.unplug()
    await yard.go()
    await until(lambda: yard.service._modules[0]._there)  # type: ignore[union-attr]
    assert yard.charger.allowed() == 10
    yard.charger.tell_state()
    await until(lambda: yard.charger.allowed() is None)


async def test_a_limit_that_is_ordered_during_a_charge_stays(yard: Yard) -> None:
    yard.charger.plug()
    await yard.order("charge.start", current_a=10)
    await yard.comes(yard.transactions)
    await yard.order("charge.limit", current_a=12)
    await until(lambda: yard.charger.allowed() == 12)
    await yard.order("charge.stop")

    async def ended() -> bool:
        return (await yard.transactions())[0].state is TransactionState.ENDED

    await yard.comes(ended)
    assert yard.charger.allowed() == 12


async def test_errors_are_alarms_and_those_that_were_cleared_unheard_are_found(yard: Yard) -> None:
    yard.charger.fail("evse_board_support/MREC4OverCurrentFailure", "too much")
    await until(lambda: yard.world.alarms.raised(DEVICE, "fault.other", "yeti/evse_board_support/MREC4OverCurrentFailure") is not None)
    done = await yard.order("everest.errors.get")
    assert [one["type"] for one in done.result["errors"]] == ["evse_board_support/MREC4OverCurrentFailure"]
    yard.charger.fail("powermeter/CommunicationFault", "no answer")
    await until(lambda: yard.world.alarms.raised(DEVICE, "fault.communication", "yeti/powermeter/CommunicationFault") is not None)
    yard.charger.repair("powermeter/CommunicationFault")
    await until(lambda: yard.world.alarms.raised(DEVICE, "fault.communication", "yeti/powermeter/CommunicationFault") is None)
    yard.charger.errors.clear()  # unheard
    await yard.order("everest.errors.get")
    assert yard.world.alarms.raised_of(DEVICE) == []


async def test_withdraw_costs_and_tariff(yard: Yard) -> None:
    yard.charger.plug()
    await yard.order("charge.start", identification="A")
    failed = await yard.order("everest.authorization.withdraw", identification="B")
    assert "answers AuthorizationNotFound" in failed.error
    assert (await yard.order("everest.authorization.withdraw", identification="A")).state is CommandState.DONE
    assert not yard.charger.transaction
    cost = {"session": yard.charger.session, "currency": "EUR", "amount": "12.345", "final": True}
    assert (await yard.order("everest.session_cost.set", **cost)).state is CommandState.DONE
    assert (await yard.order("everest.tariff_message.set", text="0,30 €/kWh", language="de")).state is CommandState.DONE
    await until(lambda: "display: 0,30 €/kWh" in yard.said)
    assert any('"value":12345' in line and '"decimals":3' in line and '"Finished"' in line for line in yard.said)


async def test_a_transaction_whose_end_was_not_heard_is_lost_and_found_again(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.charger.PROBE", 0.5)
    yard.charger.plug()
    await yard.order("charge.start")
    await yard.comes(yard.transactions)
    key = yard.charger.session
    heard: list[tuple[str, object]] = []
    event, yard.charger._event = yard.charger._event, lambda name, **more: heard.append((name, more))  # type: ignore[method-assign]
    yard.charger.unplug()

    async def lost() -> bool:
        return (await yard.transactions())[0].state is TransactionState.LOST

    await yard.comes(lost)
    assert "session.lost occurred" in await yard.world.events()
    yard.charger._event = event  # type: ignore[method-assign]
    yard.charger.session = key
    name, more = heard[0]
    assert name == "TransactionFinished"
    event(name, **more)  # type: ignore[arg-type]

    async def ended() -> bool:
        return (await yard.transactions())[0].state is TransactionState.ENDED

    await yard.comes(ended)


async def test_everest_that_does_not_answer_is_offline_and_orders_are_refused(
    tmp_path: Path, server: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.charger.ANSWER", 0.3)
    monkeypatch.setattr("gridloom.integrations.everest.charger.PROBE", 0.5)
    yard = await Yard(tmp_path, server).open()
    yard.task.cancel()
    await yard.wire.stop()
    await until(lambda: not yard.world.registry.online(DEVICE))
    await until(lambda: "does not answer" in yard.world.registry.state(DEVICE).reason)
    assert "does not answer" in yard.service.health().reason
    await yard.close()


async def test_an_order_whose_answer_was_lost_with_the_broker_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridloom.integrations.everest.charger.ANSWER", 1.0)
    own = Mosquitto(tmp_path / "broker")
    (tmp_path / "hub").mkdir()
    yard = await Yard(tmp_path / "hub", own).open()
    await yard.wire.stop()  # EVerest hears nothing more
    ordering = asyncio.create_task(yard.order("charge.pause"))
    await asyncio.to_thread(yard.ear.until, "everest_api/1/evse_manager_consumer/api/m2e/pause_charging")
    own.kill()
    assert (await ordering).state is CommandState.UNKNOWN
    await yard.close()


async def test_the_external_prefix_stands_before_every_topic_also_of_replies(tmp_path: Path, server: Mosquitto) -> None:
    yard = await Yard(tmp_path, server, prefix="site/7/").open()
    yard.charger.plug()
    assert (await yard.order("charge.start")).state is CommandState.DONE
    assert (await yard.order("charge.pause")).state is CommandState.DONE
    topics = {topic for topic, _, _ in yard.ear.drained()}
    assert all(topic.startswith("site/7/everest_api/1/") for topic in topics)
    await yard.close()


async def test_only_what_the_named_modules_can_is_a_capability(tmp_path: Path, server: Mosquitto) -> None:
    yard = await Yard(tmp_path, server, evse_manager="api").open()
    verbs = yard.world.registry.get(DEVICE).verbs
    assert set(verbs) == {"charge.stop", "charge.pause", "charge.resume", "charge.availability", "charge.unlock"}
    await yard.close()


async def test_what_cannot_be_understood_is_counted_and_survived(yard: Yard) -> None:
    base = "everest_api/1/evse_manager_consumer/api/e2m/"
    for tail in ("session_event", "session_info", "powermeter", "enforced_limits", "hw_capabilities", "evse_id", "ev_info", "heartbeat"):
        for payload in (b"", b"null", b"{}", b"[]", b"\xff", b'{"uuid":1}', b"9" * 70_000, b'{"event":"New","uuid":"u","timestamp":"?"}'):
            yard.ear.publish(base + tail, payload)
    yard.ear.publish(base + "get_evse/nobody", b"x")
    yard.charger.plug()
    assert (await yard.order("charge.start")).state is CommandState.DONE
    metric = next(one for one in yard.world.metrics.collect() if one.name == "gridloom_everest_malformed_total")
    assert sum(value.value for value in metric.values) > 40
