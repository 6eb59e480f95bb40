"""``gridloom os3p substation`` and ``gridloom sim os3p``: a real Substation for an RTU, and many simulated ones. ``cli`` hooks them in.

The options are read here; what runs is ``rtu``. Log lines go to standard error. SIGTERM and Ctrl-C end in order; a second start with the same
``--state`` goes on where the first one ended, also after a power loss.
"""

from __future__ import annotations

import json
import os
import sys
import zoneinfo
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

_MAIN = "gridloom.integrations.os3p.rtu"
sim = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="The endpoint of the Central System, ws://… or wss://…, without the identity.", show_default=False)
]
SecretFile = Annotated[
    Path | None, typer.Option("--secret-file", metavar="FILE", help="The station's secret, sent by HTTP Basic with its identity as user.")
]
CaFile = Annotated[Path | None, typer.Option("--ca-file", metavar="FILE", help="Trust these authorities (PEM) instead of the system's.")]
Geolocation = Annotated[str, typer.Option("--geolocation", metavar="[LAT,LNG]", help="At the first start; then the key Geolocation holds.")]
Timezone = Annotated[str, typer.Option("--timezone", metavar="ZONE", help="At the first start; then the key TimeZone holds.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log everything that happens, not only what is odd.")]


def substation(
    url: Url,
    identity: Annotated[str, typer.Option("--id", metavar="IDENTITY", help="As the Central System knows it.", show_default=False)],
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="Where everything is kept that a power loss must not take.", show_default=False)
    ],
    secret_file: SecretFile = None,
    ca_file: CaFile = None,
    certificate: Annotated[Path | None, typer.Option("--certificate-file", metavar="FILE", help="The station's own certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="The key of the certificate (PEM).")] = None,
    driver: Annotated[
        str | None,
        typer.Option("--driver", metavar="MODULE:FACTORY", help="Your hardware; see gridloom.integrations.os3p.driver. Without it: simulated."),
    ] = None,
    timezone: Timezone = "Europe/Amsterdam",
    geolocation: Geolocation = "[52.09,5.12]",
    meter_every: Annotated[
        int, typer.Option("--meter-every", metavar="SECONDS", min=0, max=86_400, help="At the first start: MeterValuesInterval.")
    ] = 900,
    subprotocol: Annotated[list[str] | None, typer.Option("--subprotocol", metavar="NAME", help="Offered in this order; may be repeated.")] = None,
    install_command: Annotated[
        str | None, typer.Option("--install-command", metavar="COMMAND", help="Installs firmware: called with the path of the file behind it.")
    ] = None,
    reset_command: Annotated[str | None, typer.Option("--reset-command", metavar="COMMAND", help="Resets the hardware.")] = None,
    known_hosts: Annotated[
        Path | None, typer.Option("--known-hosts", metavar="FILE", help="Keys of sftp hosts; without it they are not checked.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse messages that deviate from the document.")] = False,
    verbose: Verbose = False,
) -> None:
    """Run a Substation against any Central System, until SIGTERM or Ctrl-C. Exit code 2: an option is wrong."""
    _check(url, {"Geolocation": geolocation, "TimeZone": timezone}, identity)
    _leanly(
        "substation", url=url, identity=identity, state=state, secret_file=secret_file, ca_file=ca_file, certificate=certificate, key=key,
        driver=driver, timezone=timezone, geolocation=geolocation, meter_every=meter_every,
        subprotocols=subprotocol or [], install_command=install_command,
        reset_command=reset_command, known_hosts=known_hosts, strict=strict, verbose=verbose,
    )  # fmt: skip


@sim.command()
def os3p(
    url: Url,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=100_000, help="So many stations.")] = 1,
    speed: Annotated[float, typer.Option("--speed", metavar="N", min=0.01, max=10_000, help="Their time runs N times faster.")] = 1.0,
    prefix: Annotated[str, typer.Option("--prefix", help="What their identities begin with; a number follows.")] = "SIM-",
    meter_every: Annotated[int, typer.Option("--meter-every", metavar="SECONDS", min=0, max=86_400, help="Between MeterValues; 0: none.")] = 60,
    boot_over: Annotated[
        float | None, typer.Option("--boot-over", metavar="SECONDS", min=0, help="Connect one after the other, in so long. Without it: 100 a second.")
    ] = None,
    faults: Annotated[float, typer.Option("--faults", metavar="PART", min=0, max=1, help="Of their hours, that have a fault.")] = 0.002,
    secret_file: SecretFile = None,
    state: Annotated[Path | None, typer.Option("--state", metavar="DIR", help="Keep their state below it; without it they begin anew.")] = None,
    ca_file: CaFile = None,
    timezone: Timezone = "Europe/Amsterdam",
    geolocation: Geolocation = "[52.09,5.12]",
    verbose: Verbose = False,
) -> None:
    """Simulated Substations with believable values, in one process, until Ctrl-C. The Central System has to accept their identities."""
    _check(url, {"Geolocation": geolocation, "TimeZone": timezone}, prefix)
    _leanly(
        "fleet", url=url, count=count, speed=speed, prefix=prefix, meter_every=meter_every, boot_over=boot_over, faults=faults,
        secret_file=secret_file, state=state, ca_file=ca_file, timezone=timezone, geolocation=geolocation, verbose=verbose,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------- helpers


def _check(url: str, given: dict[str, str], identity: str) -> None:
    """What needs no file. Raises ConfigurationError."""
    from gridloom.core.errors import ConfigurationError
    from gridloom.integrations.os3p import keys

    if not url.lower().startswith(("ws://", "wss://")):
        raise ConfigurationError("--url: expected ws:// or wss:// and the path of the endpoint")
    if not identity:
        raise ConfigurationError("--id: expected an identity of at least one character")
    for name, value in given.items():
        row = keys.find(name)
        if row is None or row.check is None or not row.check(value):
            raise ConfigurationError(f"--{name.lower()}: expected a value of the key {name}, got {value[:40]!r}")


def _leanly(what: str, **options: Any) -> NoReturn:
    """Go on as a process (the same one, for whoever watches it) that has not loaded what a command line needs: it is much smaller."""
    given = json.dumps({name: str(value) if isinstance(value, Path) else value for name, value in options.items()})
    path = os.pathsep.join(one for one in sys.path if one)
    # Without PYTHONTZPATH zoneinfo loads how Python was built.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONTZPATH": os.pathsep.join(zoneinfo.TZPATH)}
    os.execve(sys.executable, [sys.executable, "-OO", "-X", "no_debug_ranges", "-m", _MAIN, what, given], environment)  # noqa: S606  # ourselves
