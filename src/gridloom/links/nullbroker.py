"""MQTT without a broker: parties of one process that hear each other's topics, for a demo and for tests. The face of ``links.mqtt.Mqtt``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gridloom.links.mqtt import Handler

log = logging.getLogger(__name__)


class NullBroker:
    """What would be the broker. A message that is retained is kept for those who subscribe later."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self._parties: list[Party] = []

    def party(self) -> Party:
        """Another client."""
        made = Party(self)
        self._parties.append(made)
        return made

    def leave(self, party: Party) -> None:
        """It hears no more."""
        self._parties = [one for one in self._parties if one is not party]

    def publish(self, topic: str, payload: bytes, retain: bool) -> None:
        """To everybody who wants it, not before the sender's turn of the loop is over, as from a wire."""
        if retain:
            self.kept[topic] = payload
        for party in self._parties:
            asyncio.get_running_loop().call_soon(party.hear, topic, payload, False)


class Party:
    """One client of a NullBroker; connected from ``start`` to ``stop``."""

    def __init__(self, broker: NullBroker) -> None:
        self.connected = False
        self.reason = "not connected yet"
        self._broker = broker
        self._handlers: list[tuple[str, Handler, bool]] = []
        self._callbacks: list[Callable[[], None]] = []

    def subscribe(self, topic: str, handler: Handler, *, kept: bool = True) -> None:
        """As ``Mqtt.subscribe``."""
        self._handlers.append((topic, handler, kept))

    def on_connect(self, callback: Callable[[], None]) -> None:
        """As ``Mqtt.on_connect``."""
        self._callbacks.append(callback)

    def send(self, topic: str, payload: bytes | str, *, qos: int = 0, retain: bool = False) -> bool:
        """As ``Mqtt.send``."""
        if self.connected:
            self._broker.publish(topic, payload.encode() if isinstance(payload, str) else payload, retain)
        return self.connected

    async def deliver(self, topic: str, payload: bytes | str, *, retain: bool = False) -> bool:
        """As ``Mqtt.deliver``."""
        return self.send(topic, payload, retain=retain)

    async def start(self) -> None:
        """Connect."""
        self.connected, self.reason = True, ""
        for topic, payload in list(self._broker.kept.items()):
            self.hear(topic, payload, True)
        for callback in self._callbacks:
            callback()

    async def stop(self) -> None:
        """Disconnect."""
        self.connected, self.reason = False, "stopped"
        self._broker.leave(self)

    def hear(self, topic: str, payload: bytes, kept: bool) -> None:
        """Called by the broker."""
        for wanted, handler, takes_kept in self._handlers:
            if not self.connected or not matches(wanted, topic) or (kept and not takes_kept):
                continue
            try:
                handler(topic, payload)
            except Exception:  # as Mqtt: one message's handler must not end the connection for all
                log.exception("mqtt: a handler failed", extra={"topic": topic[:200]})


def matches(wanted: str, topic: str) -> bool:
    """Whether a topic is meant by a filter with ``+`` (one level) and ``#`` (all that follow, and none)."""
    mine, theirs = wanted.split("/"), topic.split("/")
    if mine[-1] == "#":
        mine, theirs = mine[:-1], theirs[: len(mine) - 1]
    return len(mine) == len(theirs) and all(one in ("+", other) for one, other in zip(mine, theirs, strict=True))
