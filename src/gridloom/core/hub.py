"""What an integration is given when it is mounted, and what it gives back.

``integrations/NAME/__init__.py`` has ``build(section, hub) -> Parts``. Nothing here knows any integration, any engine or any web framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gridloom.core.clock import Clock
from gridloom.core.ports import Bus, World

if TYPE_CHECKING:
    from gridloom.core.accounts import Accounts
    from gridloom.core.alarms import Alarms
    from gridloom.core.commands import Commands
    from gridloom.core.documents import Space
    from gridloom.core.intake import Intake
    from gridloom.core.metrics import Metrics
    from gridloom.core.outbox import Outbox
    from gridloom.core.query import Query
    from gridloom.core.registry import Registry
    from gridloom.core.transactions import Transactions


class Hub(msgspec.Struct, frozen=True):
    """The doors and services of one running hub. ``timezone`` is an IANA name.

    ``documents`` reads and writes the integration's own space only. ``http()`` is the hub's own base URL (known once it listens), for links
    that others follow: file locations, ``Location`` headers. ``world`` is there when devices are simulated: the one they all live in.
    ``certificate``: the files (chain and key, PEM) with which ``[http]`` serves TLS, for listeners that belong to it.
    """

    clock: Clock
    bus: Bus
    intake: Intake
    commands: Commands
    registry: Registry
    transactions: Transactions
    alarms: Alarms
    accounts: Accounts
    outbox: Outbox
    documents: Space
    query: Query
    metrics: Metrics
    http: Callable[[], str]
    data_dir: Path
    timezone: str
    simulate: bool = False
    world: World | None = None
    certificate: tuple[str, str] | None = None


class Health(msgspec.Struct, frozen=True):
    """Whether a service does its work; ``reason`` in words when not. ``required``: the hub is not ready without it."""

    ok: bool
    reason: str = ""
    required: bool = False


class Service(Protocol):
    """Something that runs while the hub runs: a link, a listener, a loop."""

    @property
    def name(self) -> str:
        """``tic``, ``os3p``… for logs, health and metrics."""
        ...

    async def start(self) -> Mapping[str, str]:
        """Begin; returns once it accepts. The mapping goes to ``endpoints.json`` (``{"tic": "127.0.0.1:19584"}`` or empty).

        Raises ConfigurationError naming the key to change, e.g. when a port is busy. Whatever else it raises is
        logged, and it is started again after a back-off; what a start that fails had begun, it has undone. It has 30 s.
        """
        ...

    async def wait(self) -> None:
        """Wait for its end: returns when it ended although nobody stopped it, or raises what ended it.

        Then it is logged, counted, and started again after a back-off. What cannot end by itself waits for ever.
        """
        ...

    async def stop(self) -> None:
        """End in order; never raises."""
        ...

    def health(self) -> Health:
        """Now."""
        ...


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that an integration adds to the hub's own HTTP API; ``web.operation`` makes a route of it and describes it in OpenAPI.

    ``function`` is a coroutine function whose parameters are ``principal``, ``query``, ``body`` (Structs) and those of the path (``parameters``
    describes these); what it returns is the answer of the ``status``. ``hide`` are members of the body whose values no refusal repeats.
    """

    method: str
    path: str
    function: Callable[..., Awaitable[Any]]
    summary: str
    tag: str
    status: int = 200
    refuses: Mapping[int, str] = {}
    parameters: Mapping[str, str] = {}
    hide: tuple[str, ...] = ()


class Parts(msgspec.Struct, frozen=True):
    """What an integration brings.

    ``operations`` of the hub's own API, ``routers`` (Litestar's) for whatever else it serves by HTTP, services, and simulators (services too,
    started only in the demo).
    """

    operations: Sequence[Operation] = ()
    routers: Sequence[Any] = ()
    services: Sequence[Service] = ()
    simulators: Sequence[Service] = ()
