"""Devices, their links, and what they said last."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest
from tests.core.world import DAY, METER, VOLTAGE, World, reading

from gridloom.core import subjects
from gridloom.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused
from gridloom.core.model import Admission, Consent, Device, DeviceKind, Grant, Principal, ReadingType, Role
from gridloom.core.ports import SeriesFilter
from gridloom.core.subjects import DeviceState


class Frame(msgspec.Struct, frozen=True, tag="frame"):
    """A native message."""

    text: str


class Other(msgspec.Struct, frozen=True, tag="other"):
    """Another integration's."""

    number: int


def told(world: World) -> list[DeviceState]:
    heard: list[DeviceState] = []
    world.bus.listen(subjects.ALL_DEVICES, lambda _, state: heard.append(state))
    return heard


async def versions(world: World) -> int:
    document = await world.store.documents.get("core", "device", METER.id)
    return 0 if document is None else document.version


# --------------------------------------------------------------------------------------------------------------- devices


async def test_a_device_is_durable_and_told(world: World) -> None:
    heard = told(world)
    kept = await world.registry.register(METER)
    assert kept.created > 0
    assert heard[-1].device == kept
    assert not heard[-1].online
    assert world.registry.get(METER.id) == kept
    assert await world.events("device.registered") == ["device.registered occurred"]
    again = await world.again()
    assert again.registry.get(METER.id) == kept
    assert again.registry.devices() == [kept]
    await again.close()


async def test_registering_an_unchanged_device_costs_no_commit(metered: World) -> None:
    before = await versions(metered)
    heard = told(metered)
    for _ in range(3):
        await metered.registry.register(METER)
    assert await versions(metered) == before
    assert heard == []


async def test_what_people_set_is_kept_and_what_the_link_learns_is_added(metered: World) -> None:
    await metered.registry.update(METER.id, metered.admin, name="Kitchen", attributes={"contract": "HC"})
    kept = await metered.registry.register(
        msgspec.structs.replace(METER, name="Linky", kind=DeviceKind.METER, vendor="X", attributes={"port": "/dev/ttyUSB0"}, verbs=("device.poll",))
    )
    assert (kept.name, kept.kind, kept.vendor) == ("Kitchen", DeviceKind.METER, "X")
    assert kept.attributes == {"contract": "HC", "port": "/dev/ttyUSB0"}
    assert kept.verbs == ("device.poll",)
    kept = await metered.registry.register(Device(METER.id, "dummy", "m1"))  # a link that knows nothing yet takes nothing away
    assert (kept.name, kept.vendor, kept.verbs, kept.measurands) == ("Kitchen", "X", ("device.poll",), METER.measurands)


async def test_registering_at_once_from_several_places_loses_nothing(world: World) -> None:
    await asyncio.gather(*(world.registry.register(msgspec.structs.replace(METER, attributes={str(number): "x"})) for number in range(20)))
    assert len(world.registry.get(METER.id).attributes) == 20
    again = await world.again()
    assert len(again.registry.get(METER.id).attributes) == 20
    await again.close()


async def test_an_id_is_integration_and_identity(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.registry.register(Device("dummy:x", "dummy", "y"))
    assert caught.value.faults[0].path == "$.id"
    await world.registry.register(METER)
    with pytest.raises(InvalidInput):
        await world.registry.register(msgspec.structs.replace(METER, integration="other"))
    await world.registry.register(Device("a:b:c", "a", "b:c"))
    with pytest.raises(Conflict):
        await world.registry.register(Device("a:b:c", "a:b", "c"))


async def test_finding_by_capability(world: World) -> None:
    await world.registry.register(METER)
    charger = Device("ocpp:c", "ocpp", "c", DeviceKind.CHARGER, verbs=("charge.start", "charge.limit"), measurands=("Voltage",), site="")
    await world.registry.register(charger)
    await world.registry.register(Device("ocpp:p", "ocpp", "p", DeviceKind.CHARGER, verbs=("charge.start",), admission=Admission.PENDING))

    def ids(**asked: Any) -> list[str]:
        return [device.id for device in world.registry.find(**asked)]

    assert ids(capability="Voltage") == ["dummy:m1", "ocpp:c"]
    assert ids(capability="charge.start") == ["ocpp:c"]
    assert ids(kind=DeviceKind.CHARGER) == ["ocpp:c"]
    assert ids(capability="charge.limit", integration="dummy") == ["dummy:m1"]
    assert ids(capability="nothing") == []
    await world.registry.register(msgspec.structs.replace(charger, verbs=("charge.stop",)))
    assert ids(capability="charge.start") == []
    assert ids(capability="charge.stop") == ["ocpp:c"]
    await world.registry.remove("ocpp:c", world.admin)
    assert ids(capability="Voltage") == ["dummy:m1"]


async def test_people_change_devices_as_their_role_allows(metered: World) -> None:
    site = await metered.accounts.create_site(metered.admin, "Home")
    bob = await metered.accounts.create_account(metered.admin, "bob@example.org", role=Role.OWNER)
    bobs = Principal(bob.id, (Grant(bob.id, "*", Role.OWNER),), address="10.0.0.9")
    with pytest.raises(NotFound):
        await metered.registry.update(METER.id, bobs, name="Mine")
    await metered.accounts.grant(metered.admin, bob.id, f"site:{site.id}", Role.OWNER)
    await metered.registry.update(METER.id, metered.admin, site=site.id)
    assert (await metered.registry.update(METER.id, bobs, name="Mine")).name == "Mine"
    with pytest.raises(Forbidden):
        await metered.registry.update(METER.id, bobs, admission=Admission.REJECTED)
    for wrong in ("lab", "nowhere"):
        with pytest.raises(InvalidInput) as caught:
            await metered.registry.update(METER.id, bobs, site=wrong)
        assert caught.value.faults[0].path == "$.site"
    assert (await metered.registry.update(METER.id, bobs, consent=Consent.REFUSED)).consent is Consent.REFUSED
    assert metered.registry.refusing() == {METER.id}
    assert "device.manage dummy:m1 done" in await metered.trail()
    assert "consent.manage dummy:m1 done" in await metered.trail()
    assert "consent.changed occurred" in await metered.events()
    found = await metered.query.audit(metered.admin, devices=[METER.id], actions=["consent.manage"])
    assert (found.lines[0].account, found.lines[0].address, found.lines[0].data) == (bob.id, "10.0.0.9", {"consent": "refused"})


async def test_a_pending_device_is_an_alarm_until_somebody_decides(world: World) -> None:
    pending = msgspec.structs.replace(METER, admission=Admission.PENDING)
    await world.registry.register(pending)
    await world.registry.settle()
    assert world.alarms.raised(METER.id, "device.pending") is not None
    with pytest.raises(Refused, match="pending"):
        world.registry.admitted(METER.id)
    await world.registry.update(METER.id, world.admin, admission=Admission.KNOWN)
    await world.registry.settle()
    assert world.alarms.raised(METER.id, "device.pending") is None
    assert world.registry.admitted(METER.id).admission is Admission.KNOWN
    assert (await world.registry.register(pending)).admission is Admission.KNOWN  # what people decided stays
    assert "device.approve dummy:m1 done" in await world.trail()


async def test_a_removed_device_is_gone_with_its_alarms_and_its_link(metered: World) -> None:
    gone: list[str] = []
    link = metered.registry.attach(METER.id, replaced=lambda: gone.append("closed"))
    link.online()
    link.offline("unplugged")
    await metered.registry.settle()
    assert metered.alarms.raised(METER.id, "device.offline") is not None
    heard = told(metered)
    await metered.registry.remove(METER.id, metered.admin)
    assert gone == ["closed"]
    assert heard[-1].removed
    with pytest.raises(NotFound):
        metered.registry.get(METER.id)
    assert metered.alarms.active(metered.admin) == []
    assert (await metered.events())[-1] == "device.removed occurred"
    link.online()  # nobody listens to it any more
    link.detach()
    assert "device.manage dummy:m1 done" in await metered.trail()
    again = await metered.again()
    assert again.registry.devices() == []
    assert again.alarms.active(again.admin) == []
    await again.close()


# ----------------------------------------------------------------------------------------------------------------- links


async def test_going_online_and_offline_is_told_and_recorded(metered: World) -> None:
    heard = told(metered)
    link = metered.registry.attach(METER.id)
    assert not metered.registry.online(METER.id)
    link.online()
    link.online()
    assert metered.registry.online(METER.id)
    link.offline("no carrier")
    assert (metered.registry.state(METER.id).online, metered.registry.state(METER.id).reason) == (False, "no carrier")
    link.online()
    link.detach("socket closed")
    assert [(state.online, state.reason) for state in heard] == [(True, ""), (False, "no carrier"), (True, ""), (False, "socket closed")]
    assert all(state.node == metered.registry.node for state in heard)
    assert [event for event in await metered.events() if event.startswith(("device.online", "device.offline"))] == [
        "device.online occurred", "device.offline raised", "device.online occurred", "device.offline raised",
    ]  # fmt: skip
    alarm = metered.alarms.raised(METER.id, "device.offline")
    assert alarm is not None
    assert alarm.message == "socket closed"


async def test_the_newest_link_wins(metered: World, caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []
    first = metered.registry.attach(METER.id, replaced=lambda: closed.append("first"))
    first.online()

    def stubborn() -> None:
        raise RuntimeError("will not go")

    second = metered.registry.attach(METER.id, replaced=stubborn)
    assert closed == ["first"]
    first.offline("the old socket is closed")
    first.detach()
    assert metered.registry.online(METER.id)
    second.online()
    third = metered.registry.attach(METER.id)
    assert "failed to let go" in caplog.text
    assert metered.registry.link(METER.id) is third
    third.detach()
    assert not metered.registry.online(METER.id)
    with pytest.raises(NotFound):
        metered.registry.attach("dummy:none")


async def test_a_thousand_devices_that_come_back_are_few_commits(world: World) -> None:
    devices = [Device(f"d:{number}", "d", str(number)) for number in range(300)]
    await asyncio.gather(*(world.registry.register(device) for device in devices))
    await world.registry.settle()
    commits = 0
    commit = world.store.commit

    async def counted(writes: Any) -> Any:
        nonlocal commits
        commits += 1
        return await commit(writes)

    world.store.commit = counted  # type: ignore[method-assign]
    for device in devices:
        world.registry.attach(device.id).online()
    await world.registry.settle()
    assert commits <= 3
    assert (await world.events("device.online")).count("device.online occurred") == 300


async def test_a_hub_that_stops_is_no_outage(metered: World) -> None:
    link = metered.registry.attach(METER.id)
    link.online()
    await metered.registry.close()
    link.detach("the hub stops")
    await metered.registry.settle()
    assert "device.offline raised" not in await metered.events()
    assert metered.alarms.active(metered.admin) == []


async def test_two_nodes_know_of_each_others_links(metered: World) -> None:
    other = await World(metered.path, metered.clock, bus=metered.bus, store=metered.store).open()
    replaced: list[str] = []
    here = metered.registry.attach(METER.id, replaced=lambda: replaced.append("here"))
    here.online()
    assert other.registry.online(METER.id)
    assert other.registry.state(METER.id).node == metered.registry.node
    there = other.registry.attach(METER.id)
    there.online()
    there.offline("x")
    there.online()
    assert replaced == ["here"]
    assert metered.registry.state(METER.id).node == other.registry.node
    assert not here.current
    await other.registry.register(Device("d:new", "d", "new"))
    assert metered.registry.get("d:new").identity == "new"
    await other.registry.remove("d:new", other.admin)
    with pytest.raises(NotFound):
        metered.registry.get("d:new")
    await metered.registry.settle()
    await other.registry.settle()


# ---------------------------------------------------------------------------------------------------------------- values


async def test_latest_is_the_newest_and_rather_one_with_a_native_message(metered: World) -> None:
    assert metered.registry.latest(METER.id) is None
    plain = reading(1, DAY)
    await metered.intake.readings([plain])
    assert metered.registry.latest(METER.id) == plain
    native = reading(2, DAY + 10, native=Frame("hello"))
    await metered.intake.readings([native])
    await metered.intake.readings([reading(3, DAY + 20), reading(0, DAY - 5, native=Frame("late"))])
    assert metered.registry.latest(METER.id) == native
    assert await metered.registry.native(METER.id, Frame) == Frame("hello")
    assert await metered.registry.native(METER.id, Other) is None
    assert metered.registry.state(METER.id).last_seen == DAY + 20


async def test_a_clock_that_runs_ahead_does_not_freeze_the_picture(metered: World) -> None:
    ahead = msgspec.structs.replace(reading(9, DAY + 61_000_000), received=DAY)
    now = reading(1, DAY)
    await metered.intake.readings([ahead])
    assert metered.registry.latest(METER.id) is None
    await metered.intake.readings([now])
    assert metered.registry.latest(METER.id) == now


async def test_after_a_restart_values_and_native_come_from_the_store(metered: World) -> None:
    await metered.intake.readings([reading(230, DAY, native=Frame("hello"))])
    again = await metered.again()
    assert again.registry.latest(METER.id) is None
    assert await again.registry.native(METER.id, Frame) == Frame("hello")
    assert await again.registry.native(METER.id, Other) is None
    assert [(value.value, value.time) for value in await again.registry.latest_values(METER.id)] == [(230, DAY)]
    with pytest.raises(NotFound):
        await again.registry.latest_values("dummy:none")
    with pytest.raises(NotFound):
        await again.registry.native("dummy:none", Frame)
    await again.close()


async def test_following_a_device(metered: World) -> None:
    other = ReadingType("Power.Active.Import", "W")
    await metered.intake.readings([reading(230, DAY, native=Frame("old")), reading(1_000, DAY, type=other)])
    follow = await metered.registry.follow(METER.id)
    assert {value.type: value.value for value in follow.values()} == {VOLTAGE: 230, other: 1_000}
    assert follow.native(Frame) == Frame("old")
    await metered.intake.readings([reading(231, DAY + 5, native=Frame("new"))])
    await metered.intake.readings([reading(229, DAY + 3, native=Frame("late"))])
    value = follow.get(VOLTAGE)
    assert value is not None
    assert (value.value, value.time) == (231, DAY + 5)
    assert follow.native(Frame) == Frame("new")
    assert follow.native(Other) is None
    assert follow.get(ReadingType("Current.Import", "A")) is None
    follow.close()
    await metered.intake.readings([reading(240, DAY + 50)])
    value = follow.get(VOLTAGE)
    assert value is not None
    assert value.value == 231
    with pytest.raises(NotFound):
        await metered.registry.follow("dummy:none")


async def test_what_one_follows_is_what_the_store_says(metered: World) -> None:
    follow = await metered.registry.follow(METER.id)
    for value, time in ((1, 5), (2, 3), (3, 7), (4, 7), (5, 1)):
        await metered.intake.readings([reading(value, DAY + time)])
    stored = await metered.store.samples.latest(SeriesFilter(devices=(METER.id,)))
    assert follow.values() == list(stored)
    follow.close()


async def test_following_is_not_frozen_by_a_stored_value_of_a_clock_far_ahead(metered: World) -> None:
    ahead = msgspec.structs.replace(reading(1, DAY), time=DAY + 20 * 365 * 86_400_000_000)
    await metered.intake.readings([ahead])  # all that the store has
    follow = await metered.registry.follow(METER.id)
    await metered.intake.readings([reading(2, DAY + 1)])
    assert [value.value for value in follow.values()] == [2]
    assert follow.values() == list(await metered.store.samples.latest(SeriesFilter(devices=(METER.id,))))
    follow.close()


async def test_seen_keeps_the_newest(metered: World) -> None:
    metered.registry.seen(METER.id, 50)
    metered.registry.seen(METER.id, 40)
    metered.registry.seen("dummy:none", 40)
    assert metered.registry.state(METER.id).last_seen == 50


async def test_events_that_cannot_be_recorded_are_counted(metered: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def full(writes: Any) -> Any:
        from gridloom.core.errors import StorageFull

        raise StorageFull("no space")

    metered.store.commit = full  # type: ignore[method-assign]
    metered.registry.attach(METER.id).online()
    await metered.registry.settle()
    assert metered.metrics.counter("gridloom_registry_events_dropped_total", "").value() == 1
    assert "could not be recorded" in caplog.text
    assert metered.registry.online(METER.id)
