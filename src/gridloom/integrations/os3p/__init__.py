"""OS³P: smart secondary substations (meters, street lights, fault indicators), of which the hub is the Central System."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.os3p.config import Section

HELP = "OS³P: secondary substations and their street lights"


def build(section: Section, hub: Hub) -> Parts:
    """The Central System, the files of stations, and what the hub's API says of both.

    Raises ConfigurationError when a TLS file is not what its key says.
    """
    from gridloom.core.hub import Parts
    from gridloom.integrations.os3p import api
    from gridloom.integrations.os3p.files import Files
    from gridloom.integrations.os3p.server import CentralSystem

    files = Files(section, hub)
    return Parts(operations=api.operations(hub, files), routers=api.routers(hub, files), services=(files, CentralSystem(section, hub, files)))
