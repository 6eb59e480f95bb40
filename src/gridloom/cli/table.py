"""Plain tables and pages of lists, for the verbs that show something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gridloom.cli.client import Client


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [list(head), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def pages(client: Client, path: str, limit: int | None = None, **query: Any) -> list[dict[str, Any]]:
    """All items of a list of the API (or the first ``limit``), page by page."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get(path, cursor=cursor, **query)
        items += page["items"]
        cursor = page.get("next")
        if not cursor or (limit is not None and len(items) >= limit):
            return items if limit is None else items[:limit]
