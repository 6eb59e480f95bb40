"""Fixtures that several rooms' tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.hub_process import HubProcess, Hubs


@pytest.fixture
def hubs(tmp_path: Path) -> Iterator[Hubs]:
    """Makes hubs; whatever still runs at the end of the test is killed."""
    made: list[HubProcess] = []

    def make(config: str | None = '[http]\nlisten = "127.0.0.1:0"\n', name: str = "hub", **more: Any) -> HubProcess:
        made.append(HubProcess(tmp_path / name, config, **more))
        return made[-1]

    yield make
    for hub in made:
        if hub.process is not None and hub.process.poll() is None:
            hub.process.kill()
            hub.process.wait()
