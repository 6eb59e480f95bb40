"""FACE: one route of its own."""
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import json
from typing import Any

from litestar import get

from gridloom.core.hub import Hub
from gridloom.core.model import Principal


def route(hub: Hub) -> Any:
    """``GET /dummy/starts``: what the document holds, for whoever may see the hub."""

    @get("/dummy/starts")
    async def starts(principal: Principal) -> dict[str, Any]:
        """How often the link was started."""
        document = await hub.documents.get("start", "count")
        return {"account": principal.account, "count": json.loads(document.body)["count"] if document is not None else 0}

    return starts
