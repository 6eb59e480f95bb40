"""``gridloom devices``: what the running hub knows."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def devices(config: Config = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the devices of the running hub."""
    from gridloom.cli.client import connect
    from gridloom.cli.table import pages, table

    found = pages(connect(config), "/api/v1/devices")
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [[one["id"], one.get("kind", ""), one.get("name", ""), "online" if one.get("online") else "offline"] for one in found]
    print(table(["id", "kind", "name", "state"], rows) if rows else "no device yet")
