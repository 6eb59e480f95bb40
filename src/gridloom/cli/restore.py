"""``gridloom restore --from BACKUP``: a verified backup takes the place of the store; the old file is kept aside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of()


@app.command()
def restore(
    source: Annotated[Path, typer.Option("--from", metavar="BACKUP", help="A file that `gridloom backup` wrote.")], config: Config = None
) -> None:
    """Put a backup in the place of the store. The hub must not run; the backup is verified first; the old store is kept beside it."""
    from gridloom.app import load_configuration
    from gridloom.app import restore as put_back

    done = put_back(load_configuration(config, os.environ), source)
    print("restored" + (f"; the store that was there is now {done.aside}" if done.aside is not None else ""))
    if done.token is not None:
        print(f"the admin token in {done.token} was none of the restored store: a new one was made and written there")
