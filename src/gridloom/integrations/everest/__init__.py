"""EVerest powermeter and OCMF: any meter of the hub as a powermeter of an EVerest charger, with signed receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gridloom.core.hub import Hub, Parts
    from gridloom.integrations.everest.config import Section

HELP = "EVerest: any meter as a powermeter module, over MQTT"


def build(section: Section, hub: Hub) -> Parts:
    """The brokers and the modules on them."""
    from gridloom.core.hub import Parts
    from gridloom.integrations.everest.link import ApiModules

    return Parts(services=(ApiModules(section, hub),))
