"""A broker for each file of tests, and a hub with one meter on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integrations.everest.test_module import Bench
from tests.links.mosquitto import Mosquitto


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path_factory.mktemp("broker"))
    yield made
    made.kill()


@pytest.fixture
async def bench(tmp_path: Path, server: Mosquitto) -> AsyncIterator[Bench]:
    made = await Bench(tmp_path, server).open()
    yield made
    await made.close()
