"""``[dummy]``."""

from __future__ import annotations

from gridloom.core.settings import Duration, Secret
from gridloom.core.settings import Section as Table


class Section(Table, frozen=True):
    """``every``: how often the simulated device speaks. ``ledger``: for kill tests, where the feeder notes what was acknowledged."""

    identity: str = "0001"
    every: Duration = Duration(0.1)
    pass_key: Secret | None = None
    ledger: str = ""


def demo() -> Section:
    """As it is shown in a demo."""
    return Section()
