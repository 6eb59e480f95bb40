"""``gridloom backup PATH``: a consistent copy of the store, also while the hub runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def backup(path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write; it must not exist.")], config: Config = None) -> None:
    """Copy the store to a file, also while the hub runs. `gridloom restore --from PATH` puts it back."""
    from gridloom.app import back_up, load_configuration

    back_up(load_configuration(config, os.environ), path)
    print(path)
