"""Store first, then tell; once; in order; and what happens when the disk is full."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from tests.core.world import DAY, METER, World, reading, until

from gridloom.core import subjects
from gridloom.core.errors import Conflict, InvalidInput, NotFound, Refused, StorageFull
from gridloom.core.events import new_event
from gridloom.core.model import Admission, Device, EventState, MeterReading, Reading, ReadingType, TimeSource
from gridloom.core.ports import Commit, JournalFilter, Put, SeriesFilter, Write
from gridloom.core.subjects import HUB, Told, ToldEvent


def heard(world: World, pattern: str) -> list[Any]:
    messages: list[Any] = []
    world.bus.listen(pattern, lambda _, message: messages.append(message))
    return messages


async def stored(world: World) -> int:
    return sum(series.count for series in await world.store.samples.series(SeriesFilter()))


# -------------------------------------------------------------------------------------------------------------- readings


async def test_a_reading_is_stored_before_it_is_told(metered: World) -> None:
    order: list[str] = []
    append = metered.store.samples.append

    async def slow(batch: Any) -> Any:
        cursors = await append(batch)
        order.append("stored")
        return cursors

    metered.store.samples.append = slow  # type: ignore[method-assign]
    messages: list[Told] = []

    def hear(_: str, told: Told) -> None:
        order.append("told")
        messages.append(told)

    metered.bus.listen(subjects.readings(METER.id), hear)
    cursors = await metered.intake.readings([reading(230, DAY), reading(231, DAY + 1)])
    assert order == ["stored", "told", "told"]
    assert [(told.cursor, told.reading.readings[0].value) for told in messages] == [(cursors[0], 230), (cursors[1], 231)]
    resumed = [one async for one in metered.store.samples.since(cursors[0])]
    assert [cursor for cursor, _ in resumed] == [cursors[1]]


async def test_readings_are_told_in_the_order_of_their_cursors_also_of_concurrent_callers(metered: World) -> None:
    told = heard(metered, subjects.ALL_READINGS)
    start = (await metered.intake.readings([reading(0, DAY)]))[0]

    async def send(caller: int) -> None:
        for number in range(10):
            await metered.intake.readings([reading(number, DAY + caller * 100 + number + 1) for _ in range(1 + caller % 3)])

    await asyncio.gather(*(send(caller) for caller in range(10)))
    kept = [cursor async for cursor, _ in metered.store.samples.since(start, limit=10_000)]
    assert [one.cursor for one in told[1:]] == kept


async def test_nothing_is_kept_of_a_device_that_is_not_known_or_not_admitted(metered: World) -> None:
    pending = Device("dummy:p", "dummy", "p", admission=Admission.PENDING)
    rejected = Device("dummy:r", "dummy", "r", admission=Admission.REJECTED)
    await metered.registry.register(pending)
    await metered.registry.register(rejected)
    await metered.registry.settle()
    told = heard(metered, ">")
    for device, error in (("dummy:none", NotFound), (pending.id, Refused), (rejected.id, Refused)):
        with pytest.raises(error, match=device):
            await metered.intake.readings([reading(1, DAY), reading(1, DAY, device=device)])
        with pytest.raises(error, match=device):
            await metered.intake.event(new_event("tariff.changed", device, metered.clock))
    assert await stored(metered) == 0
    assert told == []
    refused = metered.metrics.counter("gridloom_intake_refused_total", "", ("reason",))
    assert (refused.value(reason="not-found"), refused.value(reason="refused")) == (2, 4)
    await metered.intake.event(new_event("device.rejected", rejected.id, metered.clock))  # what is about the admission itself is kept


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
async def test_a_value_that_is_not_finite_is_refused_with_its_path(metered: World, value: float) -> None:
    good = Reading(ReadingType("Voltage", "V"), 1.0)
    bad = MeterReading(METER.id, DAY, DAY, (good, Reading(ReadingType("Current.Import", "A"), value)))
    with pytest.raises(InvalidInput) as caught:
        await metered.intake.readings([bad])
    assert caught.value.faults[0].path == "$.readings[1].value"
    assert "Current.Import" in caught.value.message
    assert await stored(metered) == 0


async def test_text_and_native_alone_are_fine(metered: World) -> None:
    class Note(msgspec.Struct, frozen=True, tag="note"):
        text: str

    await metered.intake.readings([reading("ON", DAY, type=ReadingType("State.Relay", "1"))])
    await metered.intake.readings([MeterReading(METER.id, DAY, DAY, (), TimeSource.DEVICE, Note("alone"))])
    assert await metered.registry.native(METER.id, Note) == Note("alone")


async def test_the_hot_path_costs_little_beside_the_store(metered: World) -> None:
    types = [ReadingType("Voltage", "V", tariff=str(number)) for number in range(40)]
    batch = [MeterReading(METER.id, DAY, DAY, tuple(Reading(type, 230) for type in types), TimeSource.DEVICE)]

    async def nothing(batch: Any) -> Any:
        return ("cursor",)

    metered.store.samples.append = nothing  # type: ignore[method-assign]
    metered.bus.listen(subjects.ALL_READINGS, lambda *_: None)

    async def once() -> float:
        began = time.process_time()
        for _ in range(1_000):
            await metered.intake.readings(batch)
        return (time.process_time() - began) / 1_000

    assert min([await once() for _ in range(3)]) < 100e-6


# ---------------------------------------------------------------------------------------------------------------- events


async def test_an_event_is_on_disk_with_its_alarm_and_documents_before_it_is_told(metered: World) -> None:
    batches: list[list[Write]] = []
    commit = metered.store.commit

    async def noted(writes: Any) -> Commit:
        batches.append(list(writes))
        return await commit(writes)

    metered.store.commit = noted  # type: ignore[method-assign]
    told = heard(metered, subjects.ALL_EVENTS)
    metered.intake.accompany(lambda event: [metered.outbox.write("mail", "bob", event.device, {"kind": event.kind})])
    event = new_event("overload", METER.id, metered.clock, subject="L1")
    done = await metered.intake.events([event], [Put("dummy", "note", "1", b"{}")])
    assert len(batches) == 1
    assert {(write.space, write.kind) for write in batches[0] if isinstance(write, Put)} == {("core", "alarm"), ("core", "outbox"), ("dummy", "note")}
    assert told == [ToldEvent(done.cursor, event)]
    again = await metered.again()
    assert again.alarms.raised(METER.id, "overload", "L1") is not None
    assert len(await again.outbox.list(queue="mail")) == 1
    assert await again.store.documents.get("dummy", "note", "1") is not None
    await again.close()


async def test_an_event_delivered_again_changes_nothing(metered: World) -> None:
    metered.intake.accompany(lambda event: [metered.outbox.write("mail", "bob", event.device, {"kind": event.kind})])
    told = heard(metered, subjects.ALL_EVENTS)
    raised = new_event("overload", METER.id, metered.clock, id="from the device: 1")
    cleared = new_event("overload", METER.id, metered.clock, id="from the device: 2", state=EventState.CLEARED)
    first = await metered.intake.events([raised, raised])
    assert first.duplicates == frozenset()
    await metered.intake.event(cleared)
    # The same event, but the device has no clock and the hub stamped it anew: its id tells all the same.
    stamped = msgspec.structs.replace(raised, time=metered.clock.now() + 5, received=metered.clock.now() + 5)
    fresh = new_event("tariff.changed", METER.id, metered.clock)
    second = await metered.intake.events([stamped, fresh])
    assert second.duplicates == {("event", "from the device: 1")}
    assert [one.event.id for one in told] == [raised.id, cleared.id, fresh.id]
    assert metered.alarms.raised(METER.id, "overload") is None
    assert len(await metered.outbox.list(queue="mail")) == 3
    assert metered.metrics.counter("gridloom_events_repeated_total", "").value() == 1
    again = await metered.again()
    third = await again.intake.event(stamped)
    assert third.duplicates == {("event", "from the device: 1")}
    assert again.alarms.raised(METER.id, "overload") is None
    assert len(await again.outbox.list(queue="mail")) == 3
    await again.close()


async def test_all_or_nothing(metered: World) -> None:
    await metered.intake.commit([Put("dummy", "note", "1", b"{}")])
    told = heard(metered, subjects.ALL_EVENTS)
    with pytest.raises(Conflict):
        await metered.intake.events([new_event("overload", METER.id, metered.clock)], [Put("dummy", "note", "1", b"{}", expect=0)])
    assert told == []
    assert metered.alarms.raised(METER.id, "overload") is None
    assert await metered.store.journal.count(JournalFilter(kinds=("overload",))) == 0


async def test_an_unknown_kind_is_refused_with_the_nearest_name(metered: World) -> None:
    event = msgspec.structs.replace(new_event("overload", METER.id, metered.clock), kind="overloud")
    with pytest.raises(InvalidInput, match='did you mean "overload"'):
        await metered.intake.event(event)


async def test_a_caller_who_gives_up_does_not_part_store_and_memory(metered: World) -> None:
    told = heard(metered, subjects.ALL_EVENTS)
    sending = asyncio.ensure_future(metered.intake.event(new_event("overload", METER.id, metered.clock)))
    await asyncio.sleep(0)
    sending.cancel()
    await until(lambda: told)
    assert metered.alarms.raised(METER.id, "overload") is not None


async def test_events_of_many_devices_do_not_wait_for_each_other(world: World) -> None:
    devices = [Device(f"d:{number}", "d", str(number)) for number in range(60)]
    await asyncio.gather(*(world.registry.register(device) for device in devices))
    await world.registry.settle()
    under_way = most = 0
    commit = world.store.commit

    async def counted(writes: Any) -> Commit:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await commit(writes)
        finally:
            under_way -= 1

    world.store.commit = counted  # type: ignore[method-assign]
    await asyncio.gather(*(world.intake.event(new_event("overload", device.id, world.clock)) for device in devices))
    assert most == 60  # so that they share group commits


# ------------------------------------------------------------------------------------------------------------- full disk


class Disk:
    """Makes the store answer as on a full disk."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.full = False
        append, commit = world.store.samples.append, world.store.commit

        async def appended(batch: Any) -> Any:
            if self.full:
                raise StorageFull("no space left")
            return await append(batch)

        async def committed(writes: Any) -> Any:
            if self.full:
                raise StorageFull("no space left")
            return await commit(writes)

        world.store.samples.append = appended  # type: ignore[method-assign]
        world.store.commit = committed  # type: ignore[method-assign]

    def fill(self, full: bool) -> None:
        self.full = full
        self.world.intake._space_changed(full)


async def test_a_full_disk_loses_readings_counts_them_and_says_so(metered: World) -> None:
    disk = Disk(metered)
    told = heard(metered, ">")
    disk.fill(True)
    disk.fill(True)
    for _ in range(3):
        with pytest.raises(StorageFull):
            await metered.intake.readings([reading(1, DAY)])
    assert metered.intake.lost() == {METER.id: 3}
    assert [type(one) for one in told] == [ToldEvent]
    assert (told[0].cursor, told[0].event.kind, told[0].event.state) == ("", "storage.full", EventState.RAISED)
    assert metered.alarms.raised(HUB, "storage.full") is not None
    disk.fill(False)
    await until(lambda: metered.alarms.raised(HUB, "storage.full") is None)
    assert await metered.events("storage.full") == ["storage.full raised", "storage.full cleared"]
    assert told[-1].event.data == {"lost": 3}
    await metered.intake.readings([reading(1, DAY)])
    assert await stored(metered) == 1


async def test_urgent_events_are_told_although_they_cannot_be_kept(metered: World) -> None:
    disk = Disk(metered)
    disk.fill(True)
    told = heard(metered, subjects.event(METER.id))
    with pytest.raises(StorageFull):
        await metered.intake.event(new_event("overload", METER.id, metered.clock))
    with pytest.raises(StorageFull):
        await metered.intake.event(new_event("tariff.changed", METER.id, metered.clock))
    assert [(one.cursor, one.event.kind) for one in told] == [("", "overload")]
    assert metered.alarms.raised(METER.id, "overload") is not None


async def test_the_store_tells_the_intake_about_space(metered: World) -> None:
    told: list[Any] = []
    watched = metered.store.watch_space

    def watch(hear: Any) -> None:
        told.append(hear)
        watched(hear)

    metered.store.watch_space = watch  # type: ignore[method-assign,assignment]
    await metered.intake.start()
    await asyncio.to_thread(told[0], True)  # engines tell it from their own threads
    await until(lambda: metered.alarms.raised(HUB, "storage.full") is not None)
    await asyncio.to_thread(told[0], False)
    await until(lambda: metered.alarms.raised(HUB, "storage.full") is None)
