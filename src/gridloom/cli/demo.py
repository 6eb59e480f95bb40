"""``gridloom demo``: a hub with simulated devices, on loopback, in a temporary folder."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def demo(
    config: Config = None,
    seconds: Annotated[float | None, typer.Option("--for", metavar="SECONDS", min=0.0, help="Stop by itself after so many seconds.")] = None,
    speed: Annotated[float, typer.Option("--speed", metavar="N", min=0.01, max=10_000, help="Time runs N times faster.")] = 1.0,
) -> None:
    """Run a hub with the simulators of every system. Ports are free ones unless configured; the data goes when it stops."""
    import tempfile

    from gridloom.app import demonstration, load_configuration, run

    configuration = load_configuration(config, os.environ)
    with tempfile.TemporaryDirectory(prefix="gridloom-demo-") as folder:
        raise typer.Exit(run(demonstration(configuration, folder), simulate=True, speed=speed, seconds=seconds))
