"""``gridloom sim everest``: EVerest's side of the wire, for users who want to test their powermeter without EVerest."""
# ruff: noqa: T201  # what a command line says

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gridloom.core.clock import Clock
    from gridloom.integrations.everest.simulator import Everest

sim = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
CONNECT = 10.0
"""Seconds that the broker has to answer."""


@sim.command()
def everest(
    module_id: Annotated[str, typer.Option("--module-id", help="Key of the powermeter module, as in [[everest.powermeter]].")],
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

    record = asyncio.run(_play(module_id, broker, prefix, charge, times, card, check_timeout))
    if record is None:
        raise typer.Exit(1)
    if receipt is not None:
        receipt.write_text(record + "\n")


async def _play(module_id: str, broker: str, prefix: str, charge: float, times: int, card: str, check_timeout: float) -> str | None:
    import asyncio
    import uuid
    from random import Random

    from gridloom.core.clock import Clock
    from gridloom.core.errors import GridloomError
    from gridloom.integrations.everest.simulator import Everest
    from gridloom.links.mqtt import Mqtt
    from gridloom.links.mqtt import broker as parts

    clock = Clock()
    try:
        address = parts(broker)
    except ValueError as error:
        raise GridloomError(f"--broker: {error}") from None
    wire = Mqtt(address, client_id=f"everest-{uuid.uuid4().hex[:12]}", clock=clock, random=Random())  # noqa: S311  back-off
    player = Everest(wire, module_id, clock, prefix=prefix, check_timeout=check_timeout, tell=print)
    connected = asyncio.Event()
    wire.on_connect(connected.set)
    await wire.start()
    try:
        await clock.wait_for(connected.wait(), CONNECT)
    except TimeoutError:
        await wire.stop()
        raise GridloomError(f"{address.url}: no broker answers: {wire.reason}") from None
    running = asyncio.get_running_loop().create_task(player.run())
    try:
        await player.boot()
        return await _charge(player, clock, charge, times, card)
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
