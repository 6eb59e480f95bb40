"""``gridloom ekm …`` and ``gridloom sim ekm``: Omnimeters on a port of this machine, without a hub.

Whatever is heavy is imported by the verb that needs it. ``gridloom.cli.main`` turns errors into one line and the exit code 1.
"""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gridloom.integrations.ekm.agent_cli import gateway
from gridloom.integrations.ekm.keys_cli import keys

if TYPE_CHECKING:
    from gridloom.integrations.ekm.discovery import Found, Progress
    from gridloom.integrations.ekm.link import Bus, Polled

app = typer.Typer(
    help="Omnimeters on an RS-485 port of this machine: find, read and set them.",
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
)  # fmt: skip
app.add_typer(keys, name="key")
app.command()(gateway)
sim = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

Port = Annotated[str, typer.Argument(metavar="PORT", help="A device (/dev/ttyUSB0, /dev/serial/by-id/…), socket://HOST:PORT or rfc2217://HOST:PORT.")]
Meter = Annotated[str, typer.Argument(metavar="METER", help="ADDRESS or ADDRESS:MODEL (v3, v4, v5); * is the only meter of the bus.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Baud = Annotated[int, typer.Option("--baud", min=300, max=4_000_000, help="Meters have 9600.")]
PasswordOption = Annotated[
    str,
    typer.Option("--password", envvar="GRIDLOOM_EKM_PASSWORD", show_default=False, help="Eight digits; better in the environment."),
]
OPEN_SECONDS = 12.0


@app.command()
def scan(
    port: Port,
    first: Annotated[str | None, typer.Argument(metavar="[FIRST]", help="The first address to ask.")] = None,
    last: Annotated[str | None, typer.Argument(metavar="[LAST]", help="The last address to ask.")] = None,
    baud: Baud = 9600,
    wait: Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0.02, max=5.0, help="How long an answer is waited for.")] = 0.15,
    as_json: JsonOption = False,
) -> None:
    """Ask every address from FIRST to LAST whether a meter is there. Ctrl-C ends it and shows what was found. Without a range: the only meter."""
    from gridloom.integrations.ekm import discovery

    if first is not None and int(_address(first)) > int(_address(last or first)):
        _give_up(f"{last} is below {first}", 2)

    async def search(bus: Bus) -> tuple[Found, ...]:
        if first is None:
            one = await discovery.only(bus)
            return () if one is None else (one,)
        made = discovery.Search(bus, _address(first), _address(last or first), told=_progress, within=wait)
        with _interrupt(made.stop):
            return await made.run()

    found = _on_bus(port, baud, search)
    rows = [{"address": one.address, "model": one.model, "model_code": one.code, "firmware": one.firmware} for one in found]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            words = row["model"] or (f"unknown model {row['model_code']}" if row["model_code"] else "something speaks, but no reply is whole")
            print(f"{row['address']}  {words}  firmware {row['firmware'] or '?'}")
    if not rows:
        print("no meter answered", file=sys.stderr)
        raise typer.Exit(1)


def _progress(progress: Progress) -> None:
    if progress.asked % 20 == 0 or progress.asked == progress.total:
        print(f"{progress.asked} of {progress.total} asked, {len(progress.found)} found; Ctrl-C ends it", file=sys.stderr, flush=True)


@app.command()
def read(port: Port, meter: Meter, baud: Baud = 9600, as_json: JsonOption = False) -> None:
    """Read a meter: every field under EKM's name, in EKM's units."""
    from gridloom.integrations.ekm import codec

    async def work(bus: Bus) -> dict[str, Any]:
        one = await _meter(bus, meter)
        found = await bus.converse(codec.read(one.address, one.model), one.address)
        return {"Meter_Address": found.address, "generation": one.model.name} | dict(codec.values(found, one.model.layouts))

    _print(_on_bus(port, baud, work), as_json)


@app.command(name="set")
def set_(
    port: Port,
    meter: Meter,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="A command of the Settings API (SetRelay) or a verb (relay.set).")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE…", help="Its arguments, e.g. relay=1 state=closed duration_s=5.")
    ] = None,
    password: PasswordOption = "",
    baud: Baud = 9600,
    zone: Annotated[str, typer.Option("--timezone", help="In which the meter's clock is set.")] = "Europe/Paris",
    as_json: JsonOption = False,
) -> None:
    """Set something in a meter. Without a COMMAND that is known: which there are."""
    from gridloom.core import verbs
    from gridloom.integrations.ekm.mapping import WRITES

    names = {setting.lower(): verb for verb, setting in WRITES.items()} | {verb: verb for verb in WRITES}
    verb = names.get(command.lower())
    if verb is None:
        lines = [f"  {setting:<28} {verb}  {' '.join(_arguments_of(verb))}" for verb, setting in WRITES.items()]
        _give_up("\n".join([f"{command!r} is no command for meters; there are:", *lines]), 2)
    given: dict[str, Any] = {}
    for text in arguments or ():
        name, equals, value = text.partition("=")
        if not equals:
            _give_up(f"{text!r}: arguments are written as NAME=VALUE; {command} takes {' '.join(_arguments_of(verb)) or 'none'}", 2)
        given[name] = _value(value)
    if password:
        given["password"] = password
    struct = verbs.validate(verb, given)

    async def work(bus: Bus) -> Any:
        return await _execute(bus, meter, verb, struct, zone)

    result = _on_bus(port, baud, work)
    if result is not None:
        _print(result, as_json)
    elif not as_json:
        print("done")


@app.command()
def schedules(port: Port, meter: Meter, baud: Baud = 9600, as_json: JsonOption = False) -> None:
    """Read the tariff schedules and seasons of a meter."""
    found = _order(port, meter, baud, "ekm.schedules.get")
    _print({name: value for name, value in found.items() if name.startswith(("Schedule", "Season"))}, as_json)


@app.command()
def holidays(port: Port, meter: Meter, baud: Baud = 9600, as_json: JsonOption = False) -> None:
    """Read the holidays of a meter, and which schedules weekends and holidays have."""
    found = _order(port, meter, baud, "ekm.schedules.get")
    _print({name: value for name, value in found.items() if name.startswith(("Holiday", "Weekend"))}, as_json)


@app.command()
def months(port: Port, meter: Meter, baud: Baud = 9600, as_json: JsonOption = False) -> None:
    """Read the energy of the last six months, kWh by tariff."""
    found = _order(port, meter, baud, "ekm.tariff_data.get")
    flat = {f"{'' if way == 'forward' else 'Rev_'}{name}": value for way, values in found.items() for name, value in values.items()}
    _print(found if as_json else flat, as_json)


# ------------------------------------------------------------------------------------------------------------------ simulator


@sim.command()
def ekm(
    context: typer.Context,
    link: Annotated[Path, typer.Option("--link", metavar="PATH", help="Where the line appears.")],
    meter: Annotated[list[str], typer.Option("--meter", metavar="ADDRESS:MODEL", help="A meter on it; may be repeated.")],
    password: Annotated[str, typer.Option("--password", help="Of all meters, eight digits.")] = "00000000",  # noqa: S107  # the maker's default
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="KIND=RATE", help="crc, cut, echo, silence, noise, refuse, lost, glitch; may be repeated."),
    ] = None,
    watts: Annotated[str, typer.Option("--watts", metavar="W,W,W", help="What the three lines draw for ever, below 0 gives back.")] = "",
    place: Annotated[str, typer.Option("--place", help="Or the house of the small world that is measured, e.g. house:1.")] = "",
    baud: Baud = 9600,
    speed: Annotated[float, typer.Option("--speed", metavar="N", min=0.01, max=10_000, help="Meters live N times faster.")] = 1.0,
    zone: Annotated[str, typer.Option("--timezone", help="In which the meters' clocks are set.")] = "Europe/Paris",
    seed: Annotated[int, typer.Option("--seed", help="Of the faults.")] = 1,
) -> None:
    """Simulated Omnimeters on a pseudo-terminal, at the pace of the line, until Ctrl-C."""
    from gridloom.core.clock import Clock
    from gridloom.integrations.ekm import simulator

    clock = Clock(speed)
    try:
        load = None
        if watts:
            load = simulator.steady(*[float(one) for one in watts.split(",")][:3])
        elif place and callable(context.obj):
            load = simulator.of_world(context.obj(clock), place)
        meters = [simulator.meter(text, clock, password=password, zone=zone, load=load) for text in meter]
        line = simulator.Line(meters, rates=simulator.parse_rates(fault or ()), seed=seed)
    except ValueError as error:
        _give_up(str(error), 2)
    made = simulator.Simulator(link, line, baud=baud)

    async def speak() -> None:
        import asyncio

        stop = asyncio.Event()
        with _interrupt(stop.set):
            await made.start()
            named = ", ".join(f"{one.address} ({one.model.name})" for one in meters)
            print(f"{link}: {named} at {baud} baud; Ctrl-C ends it", flush=True)
            waiting = [asyncio.ensure_future(made.wait()), asyncio.ensure_future(stop.wait())]
            try:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            finally:
                for one in waiting:
                    one.cancel()
                await made.stop()

    import asyncio

    asyncio.run(speak())


# --------------------------------------------------------------------------------------------------------------------- helpers


def _order(port: str, meter: str, baud: int, verb: str) -> Any:
    """What an order that takes no arguments tells."""
    from gridloom.core import verbs

    struct = verbs.validate(verb, {})
    return _on_bus(port, baud, lambda bus: _execute(bus, meter, verb, struct, "UTC"))


async def _execute(bus: Bus, text: str, verb: str, arguments: Any, zone: str) -> Any:
    """As a gateway does it."""
    from zoneinfo import ZoneInfo

    from gridloom.core.clock import Clock
    from gridloom.integrations.ekm.gateway import of_meter

    return await of_meter(bus, await _meter(bus, text), verb, arguments, now=Clock().now, zone=ZoneInfo(zone))


async def _meter(bus: Bus, text: str) -> Polled:
    """The meter that is meant; its model is asked if it was not given."""
    from gridloom.core.errors import InvalidInput
    from gridloom.integrations.ekm import codec, discovery
    from gridloom.integrations.ekm.link import Polled
    from gridloom.integrations.ekm.models import MODELS

    number, colon, name = text.partition(":")
    address = codec.WILDCARD if number == "*" else _address(number)
    if name not in MODELS or address == codec.WILDCARD:
        if colon and name not in MODELS:
            raise InvalidInput(f"{name!r} is no model: expected one of {', '.join(MODELS)}")
        found = await discovery.ask(bus, address, within=float(bus.settings.timeout))
        if found is None or not (name or found.model):
            raise InvalidInput(f"meter {number}: " + ("no answer" if found is None else "its model is not known: write ADDRESS:MODEL"))
        address, name = found.address, name or found.model
    return Polled(address, MODELS[name], None, 0.0)


def _on_bus(port: str, baud: int, work: Callable[[Bus], Coroutine[Any, Any, Any]]) -> Any:
    """Do it on the port. Raises PortError in words: who has the port, what to do."""
    import asyncio

    return asyncio.run(_with_bus(port, baud, work))


async def _with_bus(port: str, baud: int, work: Callable[[Bus], Coroutine[Any, Any, Any]]) -> Any:
    async with _opened(port, baud) as bus:
        return await work(bus)


@contextlib.asynccontextmanager
async def _opened(port: str, baud: int) -> AsyncIterator[Bus]:
    import asyncio

    from gridloom.core.clock import Clock
    from gridloom.core.errors import InvalidInput, Offline
    from gridloom.core.metrics import Metrics
    from gridloom.integrations.ekm.config import Bus as Settings
    from gridloom.integrations.ekm.config import SerialPort
    from gridloom.integrations.ekm.link import Bus, Figures, Quiet, State

    try:
        settings = Settings(port=SerialPort(port), baud=baud)
    except ValueError as error:
        raise InvalidInput(f"PORT: {error}") from None
    known: asyncio.Future[tuple[State, str]] = asyncio.get_running_loop().create_future()

    class Listener(Quiet):
        """Hears whether the port can be used."""

        def port(self, bus: Bus, state: State, reason: str) -> None:
            if not known.done():
                known.set_result((state, reason))

    clock = Clock()
    bus = Bus(settings, clock, Listener(), Figures(Metrics()), owner="gridloom ekm")
    running = asyncio.create_task(bus.run())
    try:
        state, reason = await clock.wait_for(known, OPEN_SECONDS)
        if state != "open":
            hint = "; if it is a gridloom hub, order through it: gridloom devices, or its API" if state == "busy" else ""
            raise Offline(reason + hint)
        yield bus
    except TimeoutError:
        raise Offline(f"{bus.name}: it cannot be opened") from None
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.contextmanager
def _interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end what goes on in order. Within a running loop."""
    import asyncio
    import signal

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _address(text: str) -> str:
    from gridloom.integrations.ekm import codec

    try:
        return codec.address_of(text)
    except ValueError as error:
        _give_up(str(error), 2)


def _value(text: str) -> Any:
    """JSON where it is some, but digits with a zero before them stay text (a password)."""
    if text[:1] == "0" and len(text) > 1 and text.isdigit():
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _arguments_of(verb: str) -> list[str]:
    from gridloom.core import verbs

    return [name for name in verbs.TABLE[verb].arguments.__struct_fields__ if name != "password"]


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    from decimal import Decimal

    if as_json:
        print(json.dumps({name: float(value) if isinstance(value, Decimal) else value for name, value in found.items()}, indent=2))
        return
    width = max(map(len, found), default=0)
    for name, value in found.items():
        print(f"{name:<{width}}  {'?' if value is None else value}")


def _give_up(message: str, code: int = 1) -> NoReturn:
    print(f"gridloom: {message}", file=sys.stderr)
    raise typer.Exit(code)
