"""EKM: Omnimeters and ioStacks on RS-485, read and driven by a gateway, with the Push3 Device Settings API in front of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.ekm.config import Section

HELP = "EKM Omnimeters on RS-485: read, set and find meters"


def build(section: Section, hub: Hub) -> Parts:
    """What clients see (Settings API, push streams, read API), the buses, and for the demo one with two simulated meters, read like any other.

    Raises ConfigurationError when a port is also named by another section.
    """
    from gridloom.core.hub import Parts
    from gridloom.integrations.ekm import face, simulator
    from gridloom.integrations.ekm.config import with_simulated
    from gridloom.integrations.ekm.service import Buses

    simulators = [simulator.demo(hub.data_dir.resolve() / "simulated", hub.clock, hub.world, hub.timezone)] if hub.simulate else []
    for one in simulators:
        one.prepare()  # simulators start last; a line that is there but silent is what a plugged adapter looks like
        section = with_simulated(section, str(one.path), simulator.DEMO_METERS)
    buses = Buses(section, hub, memory=hub.documents, bus=hub.bus, simulated=[str(one.path) for one in simulators])
    seen = face.build(section, hub)
    return Parts(operations=seen.operations, routers=seen.routers, services=(*seen.services, buses), simulators=simulators)
