"""``gridloom events``: what happened, newest first."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def events(
    device: Annotated[str | None, typer.Option("--device", metavar="ID", help="Only of this device.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind; may end in .*")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")] = 50,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what happened, newest first."""
    from gridloom.cli.client import connect
    from gridloom.cli.table import pages, table

    found = pages(connect(config), "/api/v1/events", limit, device=device, kind=kind)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [[one["time"], one["severity"], one["device"], one["kind"], one["state"], one.get("message", "")] for one in found]
    print(table(["time", "severity", "device", "kind", "state", "message"], rows) if rows else "nothing happened yet")
