"""``gridloom webhook``: try a configured target, see what was delivered, deliver again."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from gridloom.cli.options import Config, app_of

app = app_of("Test, follow and repeat deliveries to webhooks.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The target's name in [[alarms.webhook]].")]


@app.command("test")
def send_test(name: Name, config: Config = None) -> None:
    """Send a signed test event to a target now, past the outbox, and say what it answered. Exit code 1 unless it is 2xx."""
    from gridloom.app import HookPoster, load_configuration, webhook_targets
    from gridloom.core import ids
    from gridloom.core.clock import Clock
    from gridloom.core.errors import NotFound
    from gridloom.core.model import Event
    from gridloom.core.subjects import HUB
    from gridloom.core.webhook import TIMEOUT, cloud_event, headers, secret_key

    configuration = load_configuration(config, os.environ)
    targets = {target.name: target for target in webhook_targets(configuration)}
    if name not in targets:
        raise NotFound(f"there is no webhook {name!r}; configured: {', '.join(targets) or 'none'}")
    target, now = targets[name], Clock().now()
    event = Event(id=ids.unique(now), kind="hub.test", device=HUB, time=now, received=now, message="a test by `gridloom webhook test`")

    async def post() -> int:
        import msgspec

        poster = HookPoster(configuration)
        body = msgspec.json.encode(cloud_event(event, "/gridloom"))
        try:
            return await poster.post(target.url, headers(event.id, now // 1_000_000, body, secret_key(target.secret)), body, TIMEOUT)
        finally:
            await poster.close()

    status = asyncio.run(post())
    print(f"{name} answered {status}")
    raise typer.Exit(0 if 200 <= status < 300 else 1)


@app.command()
def log(name: Name, limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50, config: Config = None) -> None:
    """Show the last attempts to deliver to a target, newest first."""
    from gridloom.app import load_configuration
    from gridloom.cli.client import connect
    from gridloom.cli.table import table

    client = connect(config)
    configured = [target.name for target in load_configuration(config, os.environ).alarms.webhook]
    if name not in configured:
        raise typer.BadParameter(f"there is no webhook {name!r}; configured: {', '.join(configured) or 'none'}", param_hint="NAME")
    found = client.get("/api/v1/outbox/log", queue="webhook", target=name, limit=limit)["items"]
    rows = [[one["attempt"]["time"], one["entry"], one["state"], str(one["attempt"].get("status", "")), one["attempt"]["result"]] for one in found]
    print(table(["time", "entry", "state", "status", "result"], rows) if rows else "nothing was tried yet")


@app.command()
def replay(id: Annotated[str, typer.Argument(metavar="ENTRY", help="As `gridloom webhook log` shows it.")], config: Config = None) -> None:
    """Deliver a dead or delivered entry again, under the same id."""
    from gridloom.cli.client import connect, segment

    connect(config).request("POST", f"/api/v1/outbox/{segment(id)}/replay")
    print("it is delivered again")
