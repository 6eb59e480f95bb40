"""Messages of EVerest that cannot be understood: each counted; told once in a while, with topic and JSON path."""

from __future__ import annotations

import logging

from gridloom.core.hub import Hub

log = logging.getLogger(__name__)

QUIET = 10.0
"""Seconds between two warnings about the same topic: a sender that is wrong once is wrong a thousand times."""


class Misunderstood:
    """Of one module or charger."""

    def __init__(self, hub: Hub, name: str) -> None:
        self._name, self._clock = name, hub.clock
        help = "Messages of EVerest that could not be understood."
        self._count = hub.metrics.counter("gridloom_everest_malformed_total", help, ("module", "topic"))
        self._told: dict[str, float] = {}

    def tell(self, topic: str, reason: str) -> None:
        """``reason`` names the JSON path."""
        what = topic.rpartition("/")[2]
        self._count.inc(module=self._name, topic=what)
        now = self._clock.monotonic()
        if now - self._told.get(what, -QUIET) >= QUIET:
            self._told[what] = now
            log.warning("a message of EVerest cannot be understood", extra={"topic": topic, "reason": reason})
