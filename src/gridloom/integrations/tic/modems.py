"""TABLE: the USB modems that are made for the TIC, by what they say of themselves.

Only these are opened without being named in the configuration: any other adapter may belong to something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Modem(msgspec.Struct, frozen=True):
    """One row. ``type`` as the TIC2WebSocket API calls it."""

    type: str
    vendor_id: int
    product_id: int
    clause: str


# fmt: off
_ROWS = (
    Modem("MICHAUD",  0x0403, 0x6001, "TIC FACTS 5, Modem detection"),
    Modem("TELEINFO", 0x0403, 0x6015, "TIC FACTS 5, Modem detection"),
)
# fmt: on

TABLE: Mapping[tuple[int, int], Modem] = MappingProxyType({(row.vendor_id, row.product_id): row for row in _ROWS})
"""By USB vendor and product."""


def modem_type(vendor_id: int | None, product_id: int | None) -> str | None:
    """``MICHAUD``, ``TELEINFO``, or None for what is no TIC modem that we know."""
    if vendor_id is None or product_id is None:
        return None
    row = TABLE.get((vendor_id, product_id))
    return None if row is None else row.type
