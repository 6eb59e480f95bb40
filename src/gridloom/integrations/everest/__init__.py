"""EVerest powermeter and OCMF: any meter of the hub as a powermeter of an EVerest charger, with signed receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.everest.config import Section

HELP = "EVerest: any meter as a powermeter module, over MQTT"


def build(section: Section, hub: Hub) -> Parts:
    """The brokers with the modules on them; for a demo in which none is configured, a simulated EVerest without a broker."""
    from gridloom.core.hub import Parts

    if hub.simulate and not (section.powermeter or section.charger):
        from gridloom.integrations.everest.demonstration import Demonstration

        return Parts(simulators=(Demonstration(hub),))
    from gridloom.integrations.everest.api import operations
    from gridloom.integrations.everest.link import ApiModules

    modules = ApiModules(section, hub)
    return Parts(operations=operations(modules, hub.accounts), services=(modules,))
