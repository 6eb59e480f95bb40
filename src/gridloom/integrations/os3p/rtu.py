"""The process of a Substation: ``python -m gridloom.integrations.os3p.rtu substation|fleet OPTIONS``, as ``substation_cli`` starts it.

A process of its own, because an RTU has little memory: the command line's libraries take as much as everything here. OPTIONS is a JSON object of
what the command line was given. Exit codes: 0 it was stopped, 1 it ended by itself, 2 an option is wrong.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import resource
import shlex
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridloom.core.clock import Clock
from gridloom.core.errors import ConfigurationError, DeviceError
from gridloom.core.settings import Secret, SecretFile, masked
from gridloom.integrations.os3p import keys
from gridloom.integrations.os3p.client import SUBPROTOCOL, Settings, Substation
from gridloom.integrations.os3p.driver import Driver, load
from gridloom.integrations.os3p.simulator import Fleet, Simulated, station
from gridloom.links.files import Trust

if TYPE_CHECKING:
    from gridloom.core.hub import Service

SETTLED = 10.0
"""Seconds after which everything was loaded that will be."""


def substation(options: dict[str, Any]) -> Service:
    """One Substation. Raises ConfigurationError."""
    clock, tls = Clock(), _tls(options)
    known_hosts = options["known_hosts"]
    settings = Settings(
        url=options["url"], identity=options["identity"], subprotocols=tuple(options["subprotocols"]) or (SUBPROTOCOL,),
        secret=_secret(options["secret_file"]), tls=tls, strict=options["strict"],
        trust=Trust(tls, None if known_hosts is None else Path(known_hosts)),
        keys={keys.GEOLOCATION: options["geolocation"], keys.ZONE: options["timezone"], keys.METER: str(options["meter_every"])},
    )  # fmt: skip
    driver: Driver
    if options["driver"] is None:
        _say("no --driver: the hardware is simulated")
        driver = Simulated(settings.identity, clock, seed=1, zone=options["timezone"])
    else:
        driver = load(options["driver"])(settings.identity)
    if options["install_command"] is not None:
        driver.installs = True
        driver.install = _command(options["install_command"])  # type: ignore[method-assign]  # one hook in the place of another
    if options["reset_command"] is not None:
        driver.reset = _command(options["reset_command"])  # type: ignore[method-assign]
    return Substation(settings, driver, clock, folder=Path(options["state"]))


def fleet(options: dict[str, Any]) -> Service:
    """Many simulated ones. Raises ConfigurationError."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each has a line
    clock, tls, secret, count = Clock(options["speed"]), _tls(options), _secret(options["secret_file"]), int(options["count"])
    names = [f"{options['prefix']}{number:0{len(str(count))}}" for number in range(1, count + 1)]
    folder = None if options["state"] is None else Path(options["state"])
    stations = [
        station(
            options["url"], name, clock, seed=number, secret=secret, meter_every=options["meter_every"], timezone=options["timezone"], tls=tls,
            geolocation=options["geolocation"], faulty=options["faults"], folder=folder and folder / name,
        )
        for number, name in enumerate(names, 1)
    ]  # fmt: skip
    _say(f"{count} stations, {names[0]} to {names[-1]}, towards {masked(options['url'])}; Ctrl-C ends them")
    boot_over = options["boot_over"]
    return Fleet(lambda: stations, clock, count / 100 if boot_over is None else boot_over)


def _secret(file: str | None) -> Secret | None:
    if file is None:
        return None
    try:
        return SecretFile(file).read()
    except ValueError as error:
        raise ConfigurationError(f"--secret-file: expected a file with one secret: {file}: {error}") from None


def _tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    """For wss; checked before anything begins."""
    ca_file, certificate = options["ca_file"], options.get("certificate")
    if options["url"].lower().startswith("ws://"):
        if ca_file is not None or certificate is not None:
            raise ConfigurationError("--url: expected a wss:// URL where there are certificates")
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if certificate is not None:
            context.load_cert_chain(certificate, options["key"])
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"--ca-file, --certificate-file, --key-file: expected readable PEM files: {error}") from None
    return context


def _command(command: str) -> Callable[..., Coroutine[Any, Any, None]]:
    """A hook that runs a program of the owner's, with what it is given behind it."""
    words = shlex.split(command)

    async def run(*arguments: Path) -> None:
        process = await asyncio.create_subprocess_exec(*words, *map(str, arguments))
        code = await process.wait()
        if code:
            raise DeviceError(f"{words[0]} ended with code {code}")

    return run


async def _run(service: Service) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await service.start()
    _give_back()
    loop.call_later(SETTLED, _give_back)
    tasks = [asyncio.ensure_future(one) for one in (service.wait(), stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await service.stop()


def _give_back() -> None:
    """What loading has left over is the system's again (glibc only): a megabyte."""
    gc.freeze()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def main(what: str, given: str) -> int:
    """The exit code."""
    options = json.loads(given)
    level = logging.INFO if options["verbose"] else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(station)s %(message)s", stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_named)
    try:
        asyncio.run(_run({"substation": substation, "fleet": fleet}[what](options)))
    except ConfigurationError as error:
        _say(error.message)
        return 2
    return 0


def _named(record: logging.LogRecord) -> bool:
    record.station = getattr(record, "station", "")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
