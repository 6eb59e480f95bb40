"""``gridloom check``: is the configuration right, and where does each value come from."""

from __future__ import annotations

import os
import sys

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def check(config: Config = None) -> None:
    """Check the configuration and show each value with its origin, secrets masked. Exit code 2 when something is wrong."""
    from gridloom.app import load_configuration

    found = load_configuration(config, os.environ)
    values = list(found.values())
    width = max(len(value.key) for value in values)
    shown = max(min(len(value.shown), 48) for value in values)
    for value in values:
        print(f"{value.key:<{width}}  {value.shown:<{shown}}  {value.origin}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    what = "no file, only defaults and environment" if found.path is None else str(found.path)
    print(f"{what}: all right" + (f", with {len(found.warnings)} warnings" if found.warnings else ""))
