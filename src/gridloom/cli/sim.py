"""``gridloom sim NAME …``: the simulators that integrations offer on the command line (``sim`` in their ``cli.py``)."""

from __future__ import annotations

import importlib
from typing import Any

import typer
import typer.core

from gridloom import integrations
from gridloom.cli.root import Later, has_cli


class Simulators(typer.core.TyperGroup):
    """One verb per integration whose ``cli.py`` has a ``sim``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        return [name for name in integrations.NAMES if self.get_command(ctx, name) is not None]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The simulator's verb, or None."""
        module = f"gridloom.integrations.{cmd_name}"
        if cmd_name not in integrations.NAMES or not has_cli(cmd_name) or not hasattr(importlib.import_module(module + ".cli"), "sim"):
            return None
        return Later(cmd_name, importlib.import_module(module).HELP, module + ".cli", "sim")


app = typer.Typer(cls=Simulators, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.callback(invoke_without_command=True)
def sim(ctx: typer.Context) -> None:
    """Simulated devices, for tests and for users without hardware."""
    if ctx.invoked_subcommand is None:
        names = Simulators.list_commands(ctx.command, ctx)  # type: ignore[arg-type]  # typer gives its own view of our group
        print(ctx.get_help())
        if not names:
            print("\nNo integration of this version offers a simulator.")
        return
    from gridloom.demo.world import World

    ctx.obj = World  # the verb makes it with its own clock
