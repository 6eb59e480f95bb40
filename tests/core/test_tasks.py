"""A service that is one task."""

from __future__ import annotations

import asyncio

import pytest

from gridloom.core.tasks import OneTask


async def test_what_ends_the_task_is_told_to_who_waits() -> None:
    async def fail() -> None:
        raise OSError("the line is gone")

    one = OneTask()
    await one.wait()  # nothing was begun
    one.begin(fail(), "test")
    with pytest.raises(OSError, match="the line is gone"):
        await one.wait()
    assert not one.running
    await one.end()


async def test_a_task_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost += 1

    one = OneTask()
    one.begin(stubborn(), "test")
    await asyncio.sleep(0)
    assert one.running
    await one.end()
    assert (lost, one.running) == (1, False)
    await one.end()
