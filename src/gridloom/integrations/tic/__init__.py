"""Linky TIC: what a French meter tells on its customer output, served to clients of TIC2WebSocket and to the rest of the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.tic.config import Section

HELP = "Linky TIC: read French meters, historic and standard mode"


def build(section: Section, hub: Hub) -> Parts:
    """The lines, the TIC2WebSocket API with its test page, and for the demo two simulated meters, whose lines are read like any other.

    Raises ConfigurationError when a port is also named by another section.
    """
    from gridloom.core.hub import Parts
    from gridloom.integrations.tic import simulator
    from gridloom.integrations.tic.api import Tic2WebSocket, routers
    from gridloom.integrations.tic.link import Manager

    folder = hub.data_dir.resolve() / "simulated"
    simulators = simulator.demo(folder, hub.clock, hub.world, zone=hub.timezone) if hub.simulate else ()
    for one in simulators:
        one.prepare()  # simulators start last; a line that is there but silent is what a plugged modem looks like
    lines = Manager(section, hub, more=tuple(str(one.path) for one in simulators))
    return Parts(routers=routers(section, hub), services=(lines, Tic2WebSocket(section, hub)), simulators=simulators)
