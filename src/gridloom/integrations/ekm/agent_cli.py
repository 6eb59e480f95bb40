"""``gridloom ekm gateway``: a gateway on a machine of its own. Whatever is heavy is imported when it is called."""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer


def gateway(
    hub: Annotated[
        str, typer.Option("--hub", metavar="URL", help="The hub's push port: wss://HOST:PORT, or ws://HOST:PORT within a network you trust.")
    ],
    mac: Annotated[str, typer.Option("--mac", metavar="MAC", help="The gateway's own address, as its key names it.")],
    bus: Annotated[
        list[str],
        typer.Option("--bus", metavar="'PORT METER…'", help="A line and the meters on it: '/dev/ttyUSB0 000300000234:v4'. Repeat it for more lines."),
    ],
    key: Annotated[str, typer.Option("--key", envvar="GRIDLOOM_EKM_GATEWAY_KEY", help="As `gridloom ekm key create --mac` printed it.")] = "",
    key_file: Annotated[
        Path | None, typer.Option("--key-file", metavar="FILE", help="A file with the key; better than --key, which others can see.")
    ] = None,
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where orders and readings are kept while the hub is away.")] = Path(
        "gateway"
    ),
    poll: Annotated[float, typer.Option("--poll", metavar="SECONDS", min=0.1, max=86_400, help="How often meters are read.")] = 60.0,
    baud: Annotated[int, typer.Option("--baud", min=300, max=4_000_000, help="Meters have 9600.")] = 9600,
    zone: Annotated[str, typer.Option("--timezone", metavar="ZONE", help="In which the meters' clocks are set.")] = "Europe/Paris",
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The authority of the hub's certificate, PEM, if the system does not know it.")
    ] = None,
) -> None:
    """Read meters here for a hub elsewhere, and carry out its orders. Runs until it is stopped."""
    from gridloom.integrations.ekm.agent_main import log_to_stderr, run, section_of

    try:
        text = key_file.read_text().strip() if key_file is not None else key
    except (OSError, UnicodeDecodeError) as error:
        print(f"gridloom: --key-file {key_file}: {getattr(error, 'strerror', 'expected a key in ASCII')}", file=sys.stderr)
        raise typer.Exit(2) from None
    if not all(line.split() for line in bus):
        print("gridloom: --bus: expected 'PORT METER…' such as '/dev/ttyUSB0 000300000234:v4', got nothing", file=sys.stderr)
        raise typer.Exit(2)
    if not text:
        print("gridloom: a gateway needs its key: --key-file FILE", file=sys.stderr)
        raise typer.Exit(2)
    if not re.fullmatch(r"(?:ws|wss)://[^/]+/?", hub):
        print("gridloom: --hub: expected ws://HOST:PORT or wss://HOST:PORT", file=sys.stderr)
        raise typer.Exit(2)
    log_to_stderr()
    run(hub.rstrip("/") + "/gateway", text, section_of(mac, bus, poll, baud, zone), data, ca)
