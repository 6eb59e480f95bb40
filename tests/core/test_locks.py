"""One at a time per key, without dead ends."""

from __future__ import annotations

import asyncio

import pytest

from gridloom.core.locks import KeyedLock, finish


async def test_one_at_a_time_per_key_and_others_do_not_wait() -> None:
    locks = KeyedLock()
    inside: dict[str, int] = {}
    most: dict[str, int] = {}
    together = 0

    async def enter(key: str) -> None:
        nonlocal together
        async with locks.hold((key,)):
            inside[key] = inside.get(key, 0) + 1
            most[key] = max(most.get(key, 0), inside[key])
            together = max(together, sum(inside.values()))
            await asyncio.sleep(0.001)
            inside[key] -= 1

    await asyncio.gather(*(enter(key) for key in "abc" * 5))
    assert most == {"a": 1, "b": 1, "c": 1}
    assert together == 3
    assert len(locks) == 0


async def test_several_keys_in_any_order_never_wait_for_each_other_for_ever() -> None:
    locks = KeyedLock()

    async def enter(*keys: str) -> None:
        async with locks.hold(keys):
            await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(*(enter(*pair) for pair in [("a", "b"), ("b", "a"), ("a", "a")] * 20)), 2)


async def test_a_cancelled_waiter_leaves_the_key_usable() -> None:
    locks = KeyedLock()
    async with locks.hold(("a",)):
        waiter = asyncio.ensure_future(_enter(locks))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    await asyncio.wait_for(_enter(locks), 1)
    assert len(locks) == 0


async def _enter(locks: KeyedLock) -> None:
    async with locks.hold(("a",)):
        pass


async def test_work_is_finished_although_nobody_waits_any_more() -> None:
    done = asyncio.Event()
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.005)
        done.set()

    waiting = asyncio.ensure_future(finish(work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(done.wait(), 1)
