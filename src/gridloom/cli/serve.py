"""``gridloom serve``: the hub."""

from __future__ import annotations

import os

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def serve(config: Config = None) -> None:
    """Run the hub until Ctrl-C or SIGTERM. With nothing configured: defaults, data in ./data, simulated devices."""
    from gridloom.app import load_configuration, run

    configuration = load_configuration(config, os.environ)
    raise typer.Exit(run(configuration, simulate=configuration.path is None and not configuration.sections))
