"""``gridloom os3p …``: tools for substations and their street lights, without a hub. Whatever is heavy is imported by the verb that needs it."""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _app(help: str) -> typer.Typer:
    return typer.Typer(help=help, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True)


app = _app("Look at substations and their street lights.")
schedule = _app("Street-light schedules.")
app.add_typer(schedule, name="schedule")


@app.callback()
def root() -> None:
    """OS³P: secondary substations and their street lights."""


@schedule.callback()
def schedules() -> None:
    """What profiles mean: when a light goes on and off."""


@schedule.command()
def preview(
    profiles: Annotated[
        Path, typer.Argument(metavar="PROFILES.JSON", help="A list of profiles as in SetStreetlightProfile, each with its contactorId.")
    ],
    geolocation: Annotated[str, typer.Option("--geolocation", metavar="[LAT,LNG]", help="Degrees north and east, such as '[52.09,5.12]'.")],
    timezone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="IANA zone of the station, such as Europe/Amsterdam.")],
    day: Annotated[str, typer.Option("--date", metavar="YYYY-MM-DD", help="The day at whose noon the night begins.")],
    contactor: Annotated[int, typer.Option("--contactor", metavar="N", help="1 to 4.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the effective day of a contactor: who wins, and when the light is on. Exit code 2: a file or an option is wrong."""
    from gridloom.integrations.os3p.preview import preview as shown

    print(shown(profiles, geolocation, timezone, contactor, day, as_json))
