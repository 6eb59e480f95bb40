"""OS³P: smart secondary substations (meters, street lights, fault indicators), of which the hub is the Central System."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts, Service
    from gridloom.integrations.os3p.config import Section
    from gridloom.integrations.os3p.server import CentralSystem

HELP = "OS³P: secondary substations and their street lights"


def build(section: Section, hub: Hub) -> Parts:
    """The Central System, the files of stations, what the hub's API says of both, and for the demo simulated stations.

    Raises ConfigurationError when a TLS file is not what its key says.
    """
    from gridloom.core.hub import Parts
    from gridloom.integrations.os3p import api
    from gridloom.integrations.os3p.files import Files
    from gridloom.integrations.os3p.server import CentralSystem

    files = Files(section, hub)
    central = CentralSystem(section, hub, files)
    return Parts(
        operations=api.operations(hub, files),
        routers=api.routers(hub, files),
        services=(files, central),
        simulators=_simulators(section, hub, central) if hub.simulate else (),
    )


def _simulators(section: Section, hub: Hub, central: CentralSystem) -> tuple[Service, ...]:
    """The stations of a demo. They connect without TLS, so a section with certificates has none."""
    from gridloom.integrations.os3p import simulator

    if section.tls_certificate_file is not None:
        return ()
    folder = hub.data_dir.resolve() / "simulated" / "os3p"
    zone = section.timezone or hub.timezone
    return (simulator.demo(lambda: f"ws://{central.address}{section.path}", hub.clock, folder=folder, timezone=zone),)
