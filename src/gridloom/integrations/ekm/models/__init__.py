"""TABLES of the Omnimeter's models: which replies each has, what it can do, where things stand in its frames, what can be written into it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gridloom.integrations.ekm.models.fields import V3, A, B, Layout
from gridloom.integrations.ekm.models.settings import SETTINGS


class Model(NamedTuple):
    """A generation of meters. ``hour`` is the digit that it has for a demand period of 60 minutes; ``relays`` how many it has."""

    name: str
    layouts: tuple[Layout, ...]
    relays: int
    hour: str

    def can(self, setting: str) -> bool:
        """Whether it takes this command of the Settings API (FACTS 1.8)."""
        return self.name != "v3" or SETTINGS[setting].v3


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "v3": Model("v3", (V3,), 0, "3"),
        "v4": Model("v4", (A, B), 2, "3"),  # 3 by EKM's library for it
        "v5": Model("v5", (A, B), 2, "4"),  # 4 by EKM's newer library; no frame of a v5 is public, it is read as a v4 (FACTS 1.1)
    }
)

CODES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("1011", "1012", "1013", "1014", "1015", "1016", "1017", "1018", "1020", "1022"), "v3") | {"1024": "v4"}
)
"""The field Model (hexadecimal) -> the generation; those before 1017 are older and speak as a v3."""


def model_of(code: str) -> Model | None:
    """The model with this code; None for one that nobody has described (the v5's is not public)."""
    name = CODES.get(code)
    return None if name is None else MODELS[name]
