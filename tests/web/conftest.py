"""Running hubs for the tests of the web room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.web.running import Running

Make = Callable[..., Awaitable[Running]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Makes running hubs with other settings; all are stopped at the end of the test."""
    made: list[Running] = []

    async def one(*, host: str = "127.0.0.1", tls: tuple[str, str] | None = None, routers: Any = (), **settings: Any) -> Running:
        folder = tmp_path / f"hub{len(made)}"
        folder.mkdir()
        running = Running(folder, **settings)
        running.tls, running.routers = tls, routers
        made.append(await running.start(host))
        return running

    yield one
    for running in made:
        await running.stop()


@pytest.fixture
async def hub(make: Make) -> Running:
    """One running hub on loopback."""
    return await make()
