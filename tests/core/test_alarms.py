"""Alarms: made of events and of nothing else, whatever the order they arrive in."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.world import DAY, METER, World

from gridloom.core.alarms import Alarm
from gridloom.core.clock import Clock
from gridloom.core.errors import Conflict, Forbidden, NotFound
from gridloom.core.events import new_event
from gridloom.core.model import Device, Event, EventState, Grant, Principal, Role, Severity, TimeSource
from gridloom.core.subjects import HUB

RAISED, CLEARED = EventState.RAISED, EventState.CLEARED


def fault(
    state: EventState, time: int, *, subject: str = "L1", kind: str = "fault.overcurrent", id: str | None = None, severity: Severity | None = None
) -> Event:
    return new_event(
        kind, METER.id, Clock(), time=DAY + time, source=TimeSource.DEVICE, subject=subject, state=state, severity=severity, message=f"at {time}",
        id=id or f"{kind}/{subject}/{state.value}/{time}",
    )  # fmt: skip


def only(world: World) -> Alarm:
    (alarm,) = world.alarms.active(world.admin)
    return alarm


async def test_raised_acknowledged_cleared_and_the_history_of_it(metered: World) -> None:
    await metered.intake.event(fault(RAISED, 1))
    alarm = only(metered)
    assert (alarm.kind, alarm.subject, alarm.raised, alarm.message, alarm.severity) == ("fault.overcurrent", "L1", DAY + 1, "at 1", Severity.CRITICAL)
    assert metered.alarms.raised(METER.id, "fault.overcurrent", "L1") == alarm
    assert metered.alarms.raised(METER.id, "fault.overcurrent", "L2") is None
    seen = await metered.alarms.acknowledge(metered.admin, alarm.id, "I am on my way")
    assert seen.acknowledged is not None
    assert (seen.acknowledged.account, seen.acknowledged.note) == ("admin", "I am on my way")
    assert abs(seen.acknowledged.time - metered.clock.now()) < 10_000_000
    await metered.intake.event(fault(CLEARED, 9))
    assert metered.alarms.active(metered.admin) == []
    over = metered.alarms.get(metered.admin, alarm.id)
    assert (over.state, over.cleared, over.raised) == (CLEARED, DAY + 9, DAY + 1)
    history = await metered.alarms.history(metered.admin, device=METER.id)
    assert [event.state.value for event in history.events] == ["cleared", "acknowledged", "raised"]
    assert history.events[1].data["note"] == "I am on my way"
    assert history.next is None
    page = await metered.alarms.history(metered.admin, limit=2)
    rest = await metered.alarms.history(metered.admin, limit=2, cursor=page.next)
    assert [event.state.value for event in (*page.events, *rest.events)] == ["cleared", "acknowledged", "raised"]
    assert f"alarm.acknowledge {alarm.id} done" in await metered.trail()
    with pytest.raises(Conflict, match="no longer raised"):
        await metered.alarms.acknowledge(metered.admin, alarm.id)


async def test_alarms_survive_a_crash_as_they_were(metered: World) -> None:
    await metered.intake.events([fault(RAISED, 1), fault(RAISED, 2, subject="L2"), fault(CLEARED, 3, subject="L2")])
    await metered.alarms.acknowledge(metered.admin, only(metered).id, "seen")
    again = await metered.again()
    assert again.alarms.active(again.admin) == metered.alarms.active(metered.admin)
    await again.intake.event(fault(RAISED, 2, subject="L2", id="late one"))  # older than the end that is remembered
    assert len(again.alarms.active(again.admin)) == 1
    await again.close()


async def test_raised_again_while_raised_counts_and_worse_asks_again(metered: World) -> None:
    await metered.intake.event(fault(RAISED, 1, severity=Severity.WARNING))
    await metered.alarms.acknowledge(metered.admin, only(metered).id)
    await metered.intake.event(fault(RAISED, 2, severity=Severity.WARNING))
    alarm = only(metered)
    assert (alarm.count, alarm.raised, alarm.updated) == (2, DAY + 1, DAY + 2)
    assert alarm.acknowledged is not None
    await metered.intake.event(fault(RAISED, 3, severity=Severity.CRITICAL))
    alarm = only(metered)
    assert (alarm.count, alarm.severity, alarm.acknowledged) == (3, Severity.CRITICAL, None)
    await metered.intake.events([fault(CLEARED, 4), fault(RAISED, 5)])
    alarm = only(metered)
    assert (alarm.count, alarm.raised, alarm.acknowledged) == (1, DAY + 5, None)


async def test_one_kind_ends_another_as_the_table_says(metered: World) -> None:
    await metered.intake.event(new_event("line.lost", METER.id, metered.clock, subject="ttyUSB0"))
    await metered.intake.event(new_event("line.busy", METER.id, metered.clock, subject="ttyUSB0"))
    await metered.intake.event(new_event("line.found", METER.id, metered.clock, subject="ttyUSB1"))
    assert {alarm.kind for alarm in metered.alarms.active(metered.admin)} == {"line.lost", "line.busy"}
    await metered.intake.event(new_event("line.found", METER.id, metered.clock, subject="ttyUSB0"))
    assert metered.alarms.active(metered.admin) == []


async def test_an_end_without_a_beginning_leaves_nothing_but_keeps_a_late_beginning_out(metered: World) -> None:
    await metered.intake.event(new_event("device.online", METER.id, metered.clock))
    assert await metered.store.documents.find("core", "alarm") == []  # 10,000 devices that come online are not 10,000 documents
    await metered.intake.event(fault(CLEARED, 5))
    await metered.intake.event(fault(RAISED, 3))
    assert metered.alarms.active(metered.admin) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([RAISED, CLEARED]), st.sampled_from(["L1", "L2"])), min_size=1, max_size=12).flatmap(
        lambda told: st.tuples(
            st.just(told),
            st.permutations(range(len(told))),
            st.lists(st.integers(0, len(told) - 1), max_size=6),
            st.lists(st.integers(1, 4), min_size=len(told) + 6, max_size=len(told) + 6),
        )
    )
)
def test_in_whatever_order_and_however_often_the_newest_event_decides(
    case: tuple[list[tuple[EventState, str]], list[int], list[int], list[int]],
) -> None:
    told, order, repeated, sizes = case
    events = [fault(state, time, subject=subject, id=f"event {time}") for time, (state, subject) in enumerate(told)]
    newest = {subject: state for state, subject in told}
    expected = {subject for subject, state in newest.items() if state is RAISED}

    async def deliver() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = await World(Path(folder), Clock()).open()
            await world.registry.register(METER)
            await world.registry.settle()
            sequence = [events[position] for position in [*order, *repeated]]
            while sequence:
                size = sizes.pop()
                await world.intake.events(sequence[:size])
                del sequence[:size]
            assert {alarm.subject for alarm in world.alarms.active(world.admin)} == expected
            decoded = [msgspec.json.decode(found.body, type=Alarm) for found in await world.store.documents.find("core", "alarm")]
            assert {alarm.subject for alarm in decoded if alarm.state is RAISED} == expected
            assert {alarm.subject: alarm.updated for alarm in decoded} == {
                subject: DAY + max(time for time, (_, where) in enumerate(told) if where == subject) for subject in newest
            }
            assert len(await world.events("fault.overcurrent")) == len(events)
            await world.close()

    asyncio.run(deliver())


async def test_who_sees_and_who_acknowledges(metered: World) -> None:
    other = Device("dummy:m2", "dummy", "m2")
    await metered.registry.register(other)
    site = await metered.accounts.create_site(metered.admin, "Home")
    await metered.registry.update(METER.id, metered.admin, site=site.id)
    await metered.registry.settle()
    people = {}
    for role in (Role.OWNER, Role.VIEWER, Role.INSTALLER):
        account = await metered.accounts.create_account(metered.admin, f"{role}@example.org", role=role, scope=f"site:{site.id}")
        people[role] = Principal(account.id, (Grant(account.id, "*", role),))
    await metered.intake.events(
        [
            fault(RAISED, 1),
            new_event("fault.meter", other.id, metered.clock),
            new_event("storage.low", HUB, metered.clock),
            new_event("fault.signal", METER.id, metered.clock),
        ]
    )
    assert [alarm.kind for alarm in metered.alarms.active(metered.admin)] == ["fault.overcurrent", "fault.meter", "fault.signal", "storage.low"]
    assert [alarm.kind for alarm in metered.alarms.active(metered.admin, min_severity=Severity.ERROR)] == ["fault.overcurrent", "fault.meter"]
    assert [alarm.kind for alarm in metered.alarms.active(metered.admin, device=other.id)] == ["fault.meter"]
    for principal in people.values():
        assert [alarm.kind for alarm in metered.alarms.active(principal)] == ["fault.overcurrent", "fault.signal"]
        assert {event.kind for event in (await metered.alarms.history(principal)).events} == {"fault.overcurrent", "fault.signal"}
        with pytest.raises(NotFound):
            await metered.alarms.history(principal, device=other.id)
    foreign = next(alarm for alarm in metered.alarms.active(metered.admin) if alarm.device == other.id)
    own = next(alarm for alarm in metered.alarms.active(metered.admin) if alarm.device == METER.id)
    hubs = next(alarm for alarm in metered.alarms.active(metered.admin) if alarm.device == HUB)
    with pytest.raises(NotFound):
        metered.alarms.get(people[Role.OWNER], foreign.id)
    with pytest.raises(NotFound):
        await metered.alarms.acknowledge(people[Role.OWNER], hubs.id)
    with pytest.raises(Forbidden):
        await metered.alarms.acknowledge(people[Role.VIEWER], own.id)
    assert (await metered.alarms.acknowledge(people[Role.OWNER], own.id)).acknowledged is not None
    assert (await metered.alarms.acknowledge(metered.admin, hubs.id)).acknowledged is not None


@pytest.mark.parametrize(("first", "second"), [(RAISED, CLEARED), (CLEARED, RAISED)])
async def test_an_event_of_a_clock_far_ahead_does_not_freeze_an_alarm(metered: World, first: EventState, second: EventState) -> None:
    def told(state: EventState, time: int, received: int) -> Event:
        return msgspec.structs.replace(fault(state, time, id=f"{time}"), received=DAY + received)

    await metered.intake.event(told(first, 20 * 365 * 86_400_000_000, 5))
    await metered.intake.event(told(second, 4, 6))  # from before the first one arrived: late
    assert len(metered.alarms.active(metered.admin)) == (first is RAISED)
    await metered.intake.event(told(second, 7, 7))
    assert len(metered.alarms.active(metered.admin)) == (second is RAISED)
    again = await metered.again()
    await again.intake.event(told(first, 8, 8))
    assert len(again.alarms.active(again.admin)) == (first is RAISED)
