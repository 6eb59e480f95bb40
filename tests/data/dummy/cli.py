"""``gridloom dummy …`` and ``gridloom sim dummy``."""
# ruff: noqa: T201  # what a command line says
# mypy: disable-error-code="import-not-found, import-untyped"

from __future__ import annotations

import typer

app = typer.Typer()
sim = typer.Typer()


@app.command()
def decode(text: str) -> None:
    """Decode one line."""
    from gridloom.integrations.dummy.codec import Reader

    for line in Reader().feed(text.encode() + b"\n"):
        print(line)


@sim.command()
def speak(count: int = 3) -> None:
    """Print what the device would say."""
    for number in range(count):
        print(f"P={230 + number}")
