"""``gridloom everest``: the powermeter modules of the running hub and their keys; ``gridloom sim everest``: EVerest's side of the wire, simulated."""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gridloom.core.clock import Clock
    from gridloom.integrations.everest.simulator import Everest
    from gridloom.links.mqtt import Mqtt

app = typer.Typer(
    help="The powermeter modules of the running hub, and their signing keys.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
sim = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
CONNECT = 10.0
"""Seconds that the broker has to answer."""


Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="The configuration of the running hub.")]


@app.command()
def powermeters(context: typer.Context, config: Config = None) -> None:
    """List the powermeter modules with their meters and public keys."""
    for one in context.obj(config).get("/api/v1/everest/powermeters")["items"]:
        _print_module(one)


@app.command("rotate-key")
def rotate_key(
    context: typer.Context, module_id: Annotated[str, typer.Argument(metavar="MODULE_ID", help="Of a [[everest.powermeter]].")], config: Config = None
) -> None:
    """Sign with a new key from now on. Records of the old one stay verifiable: its public key is kept."""
    from urllib.parse import quote

    _print_module(context.obj(config).request("POST", f"/api/v1/everest/powermeters/{quote(module_id, safe='')}/rotate-key"))


def _print_module(one: dict[str, Any]) -> None:
    print(f"{one['module_id']}: {one['meter']}{', ' + one['reason'] if one['reason'] else ''}")
    print(f"  {one['algorithm']} {one['fingerprint']}\n  public key {one['public_key']}")
    for key in one["former_keys"]:
        print(f"  before     {key}")
    print(f"  {one['notice']}")


@sim.command()
def everest(
    module_id: Annotated[str | None, typer.Option("--module-id", help="Key of the powermeter module, as in [[everest.powermeter]].")] = None,
    charger: Annotated[
        str | None, typer.Option("--charger", help="Play a charger with a car instead; the key of all its API modules, as in [[everest.charger]].")
    ] = None,
    broker: Annotated[str, typer.Option("--broker", help="mqtt://[user:password@]host[:port], or mqtts://…")] = "mqtt://127.0.0.1:1883",
    prefix: Annotated[str, typer.Option("--prefix", help="EVerest's mqtt_external_prefix.")] = "",
    charge: Annotated[float, typer.Option("--charge", min=0, help="Begin a transaction and end it after so many seconds; 0: none.")] = 0,
    times: Annotated[int, typer.Option("--times", min=1, help="How many transactions, one after the other.")] = 1,
    card: Annotated[str, typer.Option("--card", help="Who charges: the UID of an RFID card, hexadecimal.")] = "DEADBEEF",
    check_timeout: Annotated[float, typer.Option("--check-timeout", min=0, help="cfg_communication_check_to_s; 0 is off.")] = 5,
    receipt: Annotated[Path | None, typer.Option("--receipt", help="Write the last signed record to this file.")] = None,
) -> None:
    """Play EVerest (its powermeter API and EvseManager) on a broker: heartbeats, time-outs, start and stop; print what the powermeter says."""
    import asyncio

    if (module_id is None) == (charger is None):
        raise typer.BadParameter("expected either --module-id or --charger")
    if charger is not None:
        asyncio.run(_drive(charger, broker, prefix, charge, card))
        return
    assert module_id is not None
    record = asyncio.run(_play(module_id, broker, prefix, charge, times, card, check_timeout))
    if record is None:
        raise typer.Exit(1)
    if receipt is not None:
        receipt.write_text(record + "\n")


async def _play(module_id: str, broker: str, prefix: str, charge: float, times: int, card: str, check_timeout: float) -> str | None:
    from gridloom.core.clock import Clock
    from gridloom.integrations.everest.simulator import Everest

    clock = Clock()
    wire = _wire(broker, clock)
    player = Everest(wire, module_id, clock, prefix=prefix, check_timeout=check_timeout, tell=print)
    async with _running(wire, clock, player.run):
        await player.boot()
        return await _charge(player, clock, charge, times, card)


async def _drive(module_id: str, broker: str, prefix: str, charge: float, card: str) -> None:
    """A charger with a car in it; with ``charge`` somebody holds a card to it, and the car leaves after so many seconds."""
    import asyncio

    from gridloom.core.clock import Clock
    from gridloom.integrations.everest.charger_simulator import EverestCharger

    clock = Clock()
    wire = _wire(broker, clock)
    player = EverestCharger(wire, module_id, clock, prefix=prefix, tell=print)
    async with _running(wire, clock, player.run):
        player.plug()
        print("a car is plugged in")
        if charge == 0:
            await asyncio.Event().wait()
        player.present(card)
        await clock.sleep(charge)
        player.unplug()


def _wire(broker: str, clock: Clock) -> Mqtt:
    import uuid
    from random import Random

    from gridloom.core.errors import GridloomError
    from gridloom.links.mqtt import Mqtt
    from gridloom.links.mqtt import broker as parts

    try:
        address = parts(broker)
    except ValueError as error:
        raise GridloomError(f"--broker: {error}") from None
    return Mqtt(address, client_id=f"everest-{uuid.uuid4().hex[:12]}", clock=clock, random=Random())  # noqa: S311  back-off


@contextlib.asynccontextmanager
async def _running(wire: Mqtt, clock: Clock, run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Connected, with ``run`` beside it."""
    import asyncio

    from gridloom.core.errors import GridloomError

    connected = asyncio.Event()
    wire.on_connect(connected.set)
    await wire.start()
    try:
        await clock.wait_for(connected.wait(), CONNECT)
    except TimeoutError:
        await wire.stop()
        raise GridloomError(f"{wire.broker.url}: no broker answers: {wire.reason}") from None
    running = asyncio.get_running_loop().create_task(run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await wire.stop()


async def _charge(player: Everest, clock: Clock, charge: float, times: int, card: str) -> str | None:
    """The transactions; the last signed record, or None when one of them gave none."""
    import asyncio

    from gridloom.integrations.everest.messages import SignedMeterValue
    from gridloom.integrations.everest.simulator import request

    _show(player)
    if charge == 0:
        await asyncio.Event().wait()
    record = None
    for _ in range(times):
        asked = request(token=card)
        begun = await player.start(asked)
        print(f"start {asked.transaction_id}: {begun.status}{_words(begun.error)}")
        await clock.sleep(charge)
        _show(player)
        ended = await player.stop(asked.transaction_id)
        print(f"stop {asked.transaction_id}: {ended.status}{_words(ended.error)}")
        value = ended.signed_meter_value
        if not isinstance(value, SignedMeterValue):
            return None
        record = value.signed_meter_data
        print(record)
    return record


def _show(player: Everest) -> None:
    print(f"powermeter: {'no values' if player.values is None else f'{player.values.energy_Wh_import.total:g} Wh'}; {player.fault or 'no fault'}")


def _words(error: object) -> str:
    return f": {error}" if isinstance(error, str) else ""
