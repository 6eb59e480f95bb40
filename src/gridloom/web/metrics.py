"""How the hub is: ``/metrics`` for Prometheus, ``/healthz``, ``/readyz`` with reasons, ``/version``."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from litestar import Request

from gridloom.core.hub import Hub
from gridloom.core.metrics import Family, Metrics
from gridloom.web.operation import Answer, operation

PROMETHEUS = "text/plain; version=0.0.4"  # the framework adds the charset


class Reason(msgspec.Struct, frozen=True):
    """Why the hub is not ready, or not whole: the part and the reason in words. Only ``required`` ones keep it from being ready."""

    part: str
    reason: str
    required: bool = True


Readiness = Callable[[], Sequence[Reason]]
"""What is wrong now; empty when all is well."""


class Exposition:
    """Renders the core's metrics, and the process's own, with prometheus_client: own registry, nothing global."""

    def __init__(self, metrics: Metrics) -> None:
        # Imported when first asked: most starts of a hub are looked at by nobody's Prometheus in their first second.
        from prometheus_client import CollectorRegistry
        from prometheus_client.process_collector import ProcessCollector

        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_CoreCollector(metrics))
        ProcessCollector(namespace="gridloom", registry=self._registry)

    def render(self) -> bytes:
        """The text exposition format 0.0.4."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)


class _CoreCollector:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Any]:
        return [_family(family) for family in self._metrics.collect()]


def _family(family: Family) -> Any:
    from prometheus_client.core import Metric

    # prometheus_client wants a counter's family without its suffix and its samples with it
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    found = Metric(name, family.help, family.kind)
    for one in family.values:
        suffix = "_total" if family.kind == "counter" else one.suffix
        found.add_sample(name + suffix, dict(one.labels), one.value)
    return found


class Health(msgspec.Struct, frozen=True):
    """The process lives and its event loop turns."""

    status: str


class Ready(msgspec.Struct, frozen=True):
    """Whether the hub can do its work; ``reasons`` name what is wrong, also what does not keep it from working."""

    ready: bool
    reasons: tuple[Reason, ...]


class Version(msgspec.Struct, frozen=True):
    """Which hub this is."""

    version: str
    python: str
    name: str = "gridloom"


@operation("GET", "/healthz", summary="Whether the process lives", tag="hub", anonymous=True)
async def healthz() -> Health:
    """Answers 200 as long as the hub's event loop turns. It says nothing about devices: see `/readyz`."""
    return Health("ok")


@operation(
    "GET",
    "/readyz",
    summary="Whether the hub can do its work",
    tag="hub",
    anonymous=True,
    refuses={503: "It is not ready; `errors` has one entry per part, with the reason."},
)
async def readyz(request: Request[Any, Any, Any]) -> Answer[Ready]:
    """Answers 200 when every part that is needed works, else 503 with the reasons."""
    readiness: Readiness = request.app.state["readiness"]
    reasons = tuple(readiness())
    ready = not any(reason.required for reason in reasons)
    return Answer(Ready(ready, reasons), status=200 if ready else 503)


@operation("GET", "/version", summary="Which hub this is", tag="hub", anonymous=True)
async def version(request: Request[Any, Any, Any]) -> Version:
    """The hub's version and Python's."""
    return Version(request.app.state["settings"].version, platform.python_version())


@operation(
    "GET",
    "/metrics",
    summary="Metrics for Prometheus",
    tag="hub",
    anonymous=True,
    produces=(PROMETHEUS,),
    refuses={401: "No valid token came with the request, and it is not from this machine.", 403: "The role of the token is not enough for this."},
)
async def metrics(request: Request[Any, Any, Any]) -> bytes:
    """Prometheus text format, base units, prefix `gridloom_`.

    A token of an admin or operator is needed, except from the hub's own machine while it listens on loopback only and `[http] local_viewer` is on.
    """
    state = request.app.state
    hub: Hub = state["hub"]
    principal = await state["signin"].scraper(request.scope)
    if principal is not None:
        hub.accounts.require(principal, "hub.read")
    exposition: Exposition | None = state.get("exposition")
    if exposition is None:
        exposition = state["exposition"] = Exposition(hub.metrics)
    return exposition.render()


ROUTES = (healthz, readyz, version, metrics)
