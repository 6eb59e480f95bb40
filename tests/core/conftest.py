"""The core over a real store in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.core.world import METER, World

from gridloom.core.clock import Clock


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Empty but for the admin."""
    made = await World(tmp_path, Clock()).open()
    yield made
    await made.close()


@pytest.fixture
async def fast(tmp_path: Path) -> AsyncIterator[World]:
    """Two hundred times as fast as life."""
    made = await World(tmp_path, Clock(speed=200.0)).open()
    yield made
    await made.close()


@pytest.fixture
async def metered(world: World) -> World:
    """With one known device."""
    await world.registry.register(METER)
    await world.registry.settle()
    return world
