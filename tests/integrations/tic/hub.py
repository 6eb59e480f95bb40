"""A hub's core over the real store, with what the rooms of the TIC integration are given."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.core.world import World

from gridloom.core import subjects
from gridloom.core.clock import Clock
from gridloom.core.documents import Space
from gridloom.core.hub import Hub
from gridloom.core.model import Event
from gridloom.core.subjects import ToldEvent
from gridloom.integrations.tic.messages import LineError, PortState


def hub_of(world: World, path: Path) -> Hub:
    """As ``app`` makes it for the integration."""
    return Hub(
        clock=world.clock, bus=world.bus, intake=world.intake, commands=world.commands, registry=world.registry, transactions=world.transactions,
        alarms=world.alarms, accounts=world.accounts, outbox=world.outbox, documents=Space(world.store, "tic"), query=world.query,
        metrics=world.metrics, http=lambda: "http://127.0.0.1:1", data_dir=path, timezone="Europe/Paris",
    )  # fmt: skip


class Ears:
    """Hears what is told of ports, errors and events, in order."""

    def __init__(self, hub: Hub) -> None:
        self.states: list[PortState] = []
        self.errors: list[LineError] = []
        self.events: list[Event] = []
        self.frames: list[Any] = []
        hub.bus.listen("own.tic.port.*", lambda _, state: self.states.append(state))
        hub.bus.listen("own.tic.error.*", lambda _, error: self.errors.append(error))
        hub.bus.listen(subjects.ALL_EVENTS, self._event)
        hub.bus.listen(subjects.ALL_READINGS, self._reading)

    def _event(self, _: str, told: ToldEvent) -> None:
        self.events.append(told.event)

    def _reading(self, _: str, told: Any) -> None:
        if told.reading.native is not None:
            self.frames.append(told.reading)

    def kinds(self, prefix: str = "") -> list[str]:
        """``kind state`` of the events, oldest first."""
        return [f"{event.kind} {event.state.value}" for event in self.events if event.kind.startswith(prefix)]

    def course(self) -> list[str]:
        """The states of all ports in order, without repetitions."""
        found: list[str] = []
        for state in self.states:
            if not found or found[-1] != state.state:
                found.append(state.state)
        return found


@contextlib.asynccontextmanager
async def opened_world(path: Path, clock: Clock | None = None) -> AsyncIterator[World]:
    """A world that is closed in the end."""
    world = await World(path, clock or Clock()).open()
    try:
        yield world
    finally:
        await world.close()
