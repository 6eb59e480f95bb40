"""A device that does not exist, over a wire that is not there: the proof that an integration is one folder and one name."""
# ruff: noqa: I001
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.dummy.config import Section

HELP = "A device that does not exist."


def build(section: Section, hub: Hub) -> Parts:
    """Its link, its simulator on the other end of a null modem, its route; the feeder only if a ledger is configured."""
    from gridloom.core.hub import Parts
    from gridloom.integrations.dummy.api import route
    from gridloom.integrations.dummy.feeder import Feeder
    from gridloom.integrations.dummy.link import Link
    from gridloom.integrations.dummy.simulator import Simulator
    from gridloom.links.nullmodem import Nullmodem

    wire = Nullmodem(hub.clock)
    feeder = (Feeder(section, hub),) if section.ledger else ()
    return Parts(routers=(route(hub),), services=(Link(section, hub, wire.a), *feeder), simulators=(Simulator(section, hub.clock, wire.b),))
