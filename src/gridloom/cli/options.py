"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration. Without it: gridloom.toml in this folder if it is there, else defaults."),
]


def app_of(help: str | None = None) -> typer.Typer:
    """A typer app as all our files make them: plain help, plain errors."""
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
