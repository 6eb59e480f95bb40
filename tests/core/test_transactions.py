"""Transactions: begun once, ended once, found again after a restart."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.world import DAY, METER, World, reading

from gridloom.core import ids
from gridloom.core.errors import Conflict, NotFound, Refused
from gridloom.core.events import new_event
from gridloom.core.model import Device, Transaction, TransactionState
from gridloom.core.ports import Put

T = TransactionState


class Native(msgspec.Struct, frozen=True, tag="native"):
    text: str


def begun(key: str, at: int, *, location: str | None = "connector:1", device: str = METER.id) -> Transaction:
    return Transaction(id="", device=device, key=key, started=DAY + at, location=location, identification="card 7", begin=reading(100, DAY + at))


async def test_from_begin_to_end(metered: World) -> None:
    transactions = metered.transactions
    running = await transactions.begin(begun("17", 5), events=[new_event("session.started", METER.id, metered.clock)])
    assert running.id.startswith(f"{DAY + 5:013x}")
    assert await transactions.current(METER.id) == running
    assert await transactions.get(running.id) == running
    assert await transactions.last(METER.id) is None
    await transactions.update(METER.id, "17", data={"a": 1, "b": 1}, identification="card 8")
    ended = await transactions.end(METER.id, "17", ended=DAY + 50, end=reading(170, DAY + 50), reason="Local", data={"b": 2})
    assert (ended.state, ended.ended, ended.reason, ended.data, ended.identification) == (T.ENDED, DAY + 50, "Local", {"a": 1, "b": 2}, "card 8")
    assert (ended.begin, ended.end) == (running.begin, reading(170, DAY + 50))
    assert await transactions.current(METER.id) is None
    assert await transactions.last(METER.id) == ended
    assert await metered.events("session.*") == ["session.started occurred"]


async def test_beginning_and_ending_again_changes_nothing(metered: World) -> None:
    transactions = metered.transactions
    both = await asyncio.gather(*(transactions.begin(begun("17", 5 + number)) for number in range(5)))
    assert len({one.id for one in both}) == 1
    ended = await transactions.end(METER.id, "17", ended=DAY + 50)
    again = await transactions.end(METER.id, "17", ended=DAY + 99, reason="Reboot", events=[new_event("session.ended", METER.id, metered.clock)])
    assert again == ended
    assert await transactions.begin(begun("17", 5)) == ended
    assert await metered.events("session.ended") == []
    with pytest.raises(NotFound):
        await transactions.end(METER.id, "18", ended=DAY)
    with pytest.raises(NotFound):
        await transactions.end("dummy:other", "17", ended=DAY)


async def test_what_was_lost_may_still_end(metered: World) -> None:
    transactions = metered.transactions
    await transactions.begin(begun("17", 5))
    assert (await transactions.lose(METER.id, "17", reason="charger away")).state is T.LOST
    assert await transactions.current(METER.id) is None
    ended = await transactions.end(METER.id, "17", ended=DAY + 50)
    assert ended.state is T.ENDED
    with pytest.raises(Conflict):
        await transactions.lose(METER.id, "17")
    with pytest.raises(NotFound):
        await transactions.get("nothing")


async def test_one_truth_across_a_crash(metered: World) -> None:
    for number in range(3):
        await metered.transactions.begin(begun(str(number), number))
        await metered.transactions.end(METER.id, str(number), ended=DAY + number + 1)
    running = await metered.transactions.begin(begun("9", 9))
    again = await metered.again()
    assert await again.transactions.current(METER.id) == running
    last = await again.transactions.last(METER.id)
    assert last is not None
    assert last.key == "2"
    await again.transactions.end(METER.id, "9", ended=DAY + 20)
    assert await again.transactions.current(METER.id) is None
    assert [one.key for one in await again.transactions.find(device=METER.id)] == ["9", "2", "1", "0"]
    assert [one.key for one in await again.transactions.find(device=METER.id, state=T.ENDED, limit=2)] == ["9", "2"]
    page = await again.transactions.find(device=METER.id, limit=2)
    assert [one.key for one in await again.transactions.find(device=METER.id, after=page[-1].id)] == ["1", "0"]
    await again.close()


async def test_several_connectors(metered: World) -> None:
    transactions = metered.transactions
    await transactions.begin(begun("1", 1, location="connector:1"))
    await transactions.begin(begun("2", 2, location="connector:2"))
    for location, key in (("connector:1", "1"), ("connector:2", "2"), (None, "2")):
        current = await transactions.current(METER.id, location)
        assert current is not None
        assert current.key == key
    assert await transactions.current(METER.id, "connector:3") is None
    await transactions.end(METER.id, "2", ended=DAY + 5)
    await transactions.end(METER.id, "1", ended=DAY + 9)
    last = await transactions.last(METER.id, "connector:1")
    assert last is not None
    assert last.key == "1"
    assert [one.key for one in transactions.running(METER.id)] == []


async def test_what_belongs_together_is_one_commit(metered: World) -> None:
    await metered.intake.commit([Put("dummy", "number", "1", b"1")])
    with pytest.raises(Conflict):
        await metered.transactions.begin(begun("17", 5), writes=[Put("dummy", "number", "1", b"2", expect=7)])
    assert await metered.transactions.find(device=METER.id) == []
    assert await metered.transactions.current(METER.id) is None
    await metered.registry.register(Device("dummy:gone", "dummy", "gone"))
    with pytest.raises((NotFound, Refused)):
        await metered.transactions.begin(begun("17", 5), events=[new_event("session.started", "dummy:none", metered.clock)])
    assert await metered.transactions.find(device=METER.id) == []


async def test_a_native_message_is_not_kept_for_years(metered: World) -> None:
    with_native = msgspec.structs.replace(begun("17", 5), begin=reading(1, DAY, native=Native("long")))
    kept = await metered.transactions.begin(with_native)
    assert kept.begin is not None
    assert kept.begin.native is None
    assert await metered.transactions.get(kept.id) == kept


async def test_correcting_what_is_known(metered: World) -> None:
    first = await metered.transactions.begin(begun("17", 5))
    changed = await metered.transactions.update(METER.id, "17", started=DAY + 3, begin=reading(99, DAY + 3), location="connector:2")
    assert (changed.id, changed.started, changed.location) == (first.id, DAY + 3, "connector:2")
    assert await metered.transactions.find(location="connector:2") == [changed]
    assert await metered.transactions.find(location="connector:1") == []
    ended = await metered.transactions.end(METER.id, "17", ended=DAY + 9)
    later = await metered.transactions.update(METER.id, "17", data={"cost": "1.23"})
    assert later == msgspec.structs.replace(ended, data={"cost": "1.23"})


@given(st.integers(0, 2**51), st.integers(0, 2**51), st.text(max_size=5), st.text(max_size=5))
def test_ids_follow_the_start(one: int, other: int, device: str, key: str) -> None:
    if one < other:
        assert ids.at(one, device, key) < ids.at(other, device, key)
