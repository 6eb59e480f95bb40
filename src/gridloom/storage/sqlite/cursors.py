"""Cursors: places in the one sequence of readings and journal entries, as opaque text ``store-number``.

The store's own name is part of it, so that a cursor from before a quarantine or a restore is recognised and refused, instead of
pointing into a history that is not its own.
"""

from __future__ import annotations

from gridloom.core.errors import FieldFault, InvalidInput, NotFound


class Cursors:
    """The cursors of one store."""

    def __init__(self, store: str) -> None:
        self._prefix = store + "-"

    def text(self, number: int) -> str:
        """The cursor behind this sequence number."""
        return f"{self._prefix}{number}"

    def number(self, cursor: str) -> int:
        """The inverse. Raises InvalidInput for what is no cursor, NotFound for one of another store."""
        store, dash, number = cursor.rpartition("-")
        if not dash or not number.isascii() or not number.isdigit() or len(number) > 18:
            reason = f"expected a cursor that this hub gave, got {cursor[:40]!r}"
            raise InvalidInput(f"$.cursor: {reason}", (FieldFault("$.cursor", reason),))
        if store + "-" != self._prefix:
            raise NotFound("the cursor is of another store: this one was begun anew or restored since")
        return int(number)
