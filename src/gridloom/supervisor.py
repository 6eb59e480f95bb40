"""Keeps services running: one that ends or raises is logged, counted, shown as unhealthy, and started again after a back-off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError
from gridloom.core.hub import Health, Service
from gridloom.core.metrics import Metrics
from gridloom.links.backoff import Backoff

log = logging.getLogger(__name__)

START_SECONDS = 30.0
"""Real seconds a service has to accept; then it is stopped, and tried again like one that failed."""
STOP_SECONDS = 5.0
"""Real seconds a service has for its orderly stop; then the others are stopped without it."""


class Supervisor:
    """Starts services in order, watches them, stops them in the opposite order. ``changed``: called when ``endpoints`` change later on."""

    def __init__(self, clock: Clock, metrics: Metrics, changed: Callable[[], None], random: Random | None = None) -> None:
        self._clock = clock
        self._changed = changed
        self._random = random if random is not None else Random()  # noqa: S311  # jitter, not secrecy
        self._kept: list[_Kept] = []
        self._restarts = metrics.counter("gridloom_service_restarts_total", "How often a service was started again, by service", ("service",))
        self._up = metrics.gauge("gridloom_service_up", "1 while a service does its work, by service", ("service",), self._states)

    async def start(self, service: Service) -> None:
        """Start it and keep it running. Raises ConfigurationError (a busy port…); any other failure is retried in the background."""
        kept = _Kept(service, Backoff(self._clock, self._random, first=0.5, cap=60, least=0.05))
        try:
            kept.endpoints = dict(await asyncio.wait_for(service.start(), START_SECONDS))
            kept.backoff.up()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a service raises must not end the hub: logged with its traceback and tried again
            self._failed(kept, error)
        self._kept.append(kept)
        kept.task = asyncio.create_task(self._keep(kept), name=f"supervise {service.name}")

    async def stop(self) -> None:
        """Stop all, the newest first. Never raises."""
        for kept in reversed(self._kept):
            if kept.task is not None:
                kept.task.cancel()
                await asyncio.wait([kept.task])
            await self._stop(kept)
        self._kept.clear()

    def endpoints(self) -> dict[str, str]:
        """Where the services that are up listen."""
        return {name: address for kept in self._kept for name, address in kept.endpoints.items()}

    def health(self) -> Mapping[str, Health]:
        """Each service's own word, or why it is being started again."""
        return {kept.service.name: kept.failure or kept.service.health() for kept in self._kept}

    def _states(self) -> Mapping[tuple[str, ...], float]:
        return {(name,): float(health.ok) for name, health in self.health().items()}

    async def _keep(self, kept: _Kept) -> None:
        while True:
            if kept.failure is None:
                try:
                    await kept.service.wait()
                    self._failed(kept, None)
                except Exception as error:  # noqa: BLE001  # as above: a service's failure is logged and answered by a new start
                    self._failed(kept, error)
                await self._stop(kept)
            await kept.backoff.wait()
            self._restarts.inc(service=kept.service.name)
            try:
                kept.endpoints = dict(await asyncio.wait_for(kept.service.start(), START_SECONDS))
            except Exception as error:  # noqa: BLE001  # as above
                self._failed(kept, error)
                continue
            kept.failure = None
            kept.backoff.up()
            log.info("service is up again", extra={"service": kept.service.name})
            self._changed()

    def _failed(self, kept: _Kept, error: Exception | None) -> None:
        reason = "ended by itself" if error is None else f"{type(error).__name__}: {error}".removesuffix(": ")
        required = kept.service.health().required
        kept.failure = Health(ok=False, reason=f"{reason}; it is being started again", required=required)
        kept.endpoints = {}
        log.error("service failed, it will be started again", extra={"service": kept.service.name, "reason": reason}, exc_info=error)

    async def _stop(self, kept: _Kept) -> None:
        try:
            await asyncio.wait_for(kept.service.stop(), STOP_SECONDS)
        except TimeoutError:
            log.error("service did not stop in time", extra={"service": kept.service.name, "seconds": STOP_SECONDS})
        except Exception:  # stop() never raises by contract; one that does must not keep the others from stopping
            log.exception("service failed while it was stopped", extra={"service": kept.service.name})


class _Kept:
    """A service under supervision. ``failure`` while it is down."""

    def __init__(self, service: Service, backoff: Backoff) -> None:
        self.service = service
        self.backoff = backoff
        self.endpoints: dict[str, str] = {}
        self.failure: Health | None = None
        self.task: asyncio.Task[None] | None = None
