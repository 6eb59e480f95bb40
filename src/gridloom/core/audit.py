"""The audit trail: who ordered or changed what, when, from where, with which result. One helper, so that all lines look alike.

Lines are journal entries of the stream ``audit``, written in the same commit as what they speak of. Secrets never come here: who calls masks
them first (``core.verbs.masked`` for orders).
"""

from __future__ import annotations

from typing import Any

import msgspec

from gridloom.core import ids
from gridloom.core.clock import Clock
from gridloom.core.model import Audit, Principal, Severity
from gridloom.core.ports import Entry

STREAM = "audit"
HUB_ACCOUNT = "hub"
"""The account of what the hub did by itself (an order that expired, a first token)."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Audit)


def entry(
    clock: Clock,
    principal: Principal | None,
    action: str,
    target: str,
    result: str,
    *,
    device: str = "",
    data: dict[str, Any] | None = None,
) -> Entry:
    """One line, to be put in somebody's commit.

    ``action`` is a verb of ``core.verbs.TABLE`` where there is one; ``result`` is ``done``, ``accepted``, or what kept it from being
    done in words; ``device`` makes it findable by device; ``data`` JSON values without secrets. No principal: the hub itself.
    """
    line = Audit(
        id=ids.unique(clock.now()),
        time=clock.now(),
        account=HUB_ACCOUNT if principal is None else principal.account,
        action=action,
        target=target,
        result=result,
        address="" if principal is None else principal.address,
        client="" if principal is None else principal.client,
        token="" if principal is None else principal.token,
        data=data or {},
    )
    severity = Severity.INFO if result in ("done", "accepted") else Severity.WARNING
    return Entry(STREAM, line.id, line.time, device, action, severity.rank, _encoder.encode(line))


def decode(entry: Entry) -> Audit:
    """The line that a journal entry holds."""
    return _decoder.decode(entry.body)
