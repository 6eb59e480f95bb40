"""``gridloom readings DEVICE``: its latest values."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def readings(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Its id, as `gridloom devices` shows it.")],
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the latest values of a device."""
    from gridloom.cli.client import connect, segment
    from gridloom.cli.table import table

    found = connect(config).get(f"/api/v1/devices/{segment(device)}/readings", limit=1000)["items"]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [
        [one["measurand"], one.get("phase", ""), one.get("tariff", ""), one.get("location", ""), str(one["value"]), one["unit"], one["time"]]
        for one in found
    ]
    print(table(["measurand", "phase", "tariff", "location", "value", "unit", "time"], rows) if rows else "no value yet")
