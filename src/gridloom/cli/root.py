"""``gridloom``: which verbs there are, each by the file that holds it; those of integrations by their folder's name."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import typer
import typer.core
import typer.main

from gridloom import __version__, integrations

VERBS: dict[str, tuple[str, str]] = {
    "serve": ("gridloom.cli.serve", "Run the hub."),
    "demo": ("gridloom.cli.demo", "Run a hub with simulated devices on loopback; nothing is kept."),
    "check": ("gridloom.cli.check", "Check the configuration and show where each value comes from."),
    "token": ("gridloom.cli.token", "Create, list and revoke tokens."),
    "devices": ("gridloom.cli.devices", "List the devices of the running hub."),
    "readings": ("gridloom.cli.readings", "Show the latest values of a device."),
    "events": ("gridloom.cli.events", "List what happened."),
    "webhook": ("gridloom.cli.webhook", "Test, follow and repeat deliveries to webhooks."),
    "backup": ("gridloom.cli.backup", "Copy the store to a file, also while the hub runs."),
    "restore": ("gridloom.cli.restore", "Put a backup in the place of the store."),
    "ocmf": ("gridloom.integrations.everest.ocmf_cli", "Verify, read, sign and export OCMF charging receipts."),
    "sim": ("gridloom.cli.sim", "Simulated devices, for tests and for users without hardware."),
}
"""Each verb with its file (whose ``app`` is a typer app) and its line in ``gridloom --help``."""


def has_cli(name: str) -> bool:
    """Whether an integration brings verbs, without importing them."""
    return importlib.util.find_spec(f"gridloom.integrations.{name}.cli") is not None


class Later(typer.core.TyperGroup):
    """A verb that is known by its line of help; the file behind it is loaded when somebody uses it."""

    def __init__(self, name: str, help: str, module: str, attribute: str = "app", group: bool = False) -> None:
        super().__init__(name=name, help=help, rich_markup_mode=None)
        self.module = module
        self.attribute = attribute
        self.group = group

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Called when the verb is used: the real one takes over."""
        made = getattr(importlib.import_module(self.module), self.attribute)
        command: Any = typer.main.get_group(made) if self.group else typer.main.get_command(made)
        command.help = command.help or self.help
        return command.make_context(info_name, args, parent=parent, **extra)


class Root(typer.core.TyperGroup):
    """All verbs, by string."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Ours in the order of VERBS, then the integrations that bring verbs."""
        return [*VERBS, *(name for name in integrations.NAMES if has_cli(name))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb, or None."""
        if cmd_name in VERBS:
            module, help = VERBS[cmd_name]
            return Later(cmd_name, help, module)
        if cmd_name in integrations.NAMES and has_cli(cmd_name):
            help = importlib.import_module(f"gridloom.integrations.{cmd_name}").HELP
            return Later(cmd_name, help, f"gridloom.integrations.{cmd_name}.cli", group=True)
        return None


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gridloom {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Root,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(
    ctx: typer.Context, version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and end.")
) -> None:
    """Gridloom: a self-hosted hub for the low-voltage edge of the grid."""
    ctx.obj = _hub  # how a verb that lives in an integration finds the running hub


def _hub(config: Path | None) -> Any:
    from gridloom.cli.client import connect

    return connect(config)
