"""``gridloom token``: through the running hub's API with the admin token of its data_dir, else directly on the store."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Annotated, Any

import typer

from gridloom.cli.options import Config, app_of

app = app_of("Create, list and revoke tokens.")

HUB_WIDE = ("admin", "operator", "viewer")
"""Roles that an account has in the whole hub; the others are had somewhere (a site, a device)."""


@app.command()
def create(
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="admin, operator, owner, installer or viewer: what the token allows at most.")],
    account: Annotated[str, typer.Option("--account", metavar="EMAIL", help="Whose token it is; made if there is no such account.")] = "admin",
    name: Annotated[str, typer.Option("--name", help="A name to know it by.")] = "",
    scope: Annotated[str, typer.Option("--scope", help="* (the hub), site:ID or device:ID.")] = "*",
    config: Config = None,
) -> None:
    """Create a token and print it, alone on its line. It is shown this once."""
    from gridloom.cli.client import running
    from gridloom.core.model import Role

    if role not in list(Role):
        raise typer.BadParameter(f"{role!r} is no role; allowed: {', '.join(Role)}", param_hint="--role")
    client = running(config)
    if client is not None:
        owner = account if account == "admin" else _account(client, account, role, scope)
        print(client.request("POST", "/api/v1/tokens", {"role": role, "account": owner, "scope": scope, "name": name})["secret"])
        return

    async def make() -> str:
        from gridloom.app import load_configuration, offline

        async with offline(load_configuration(config, os.environ)) as accounts:
            _, secret = await accounts.create_token(None, account=account, role=Role(role), scope=scope, name=name)
            return secret

    print(asyncio.run(make()))


@app.command("list")
def list_tokens(config: Config = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the tokens; their secrets are not kept and cannot be shown."""
    from gridloom.cli.client import running
    from gridloom.cli.table import table

    client = running(config)
    found: list[dict[str, Any]] = client.get("/api/v1/tokens")["items"] if client is not None else asyncio.run(_stored(config))
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    rows = [[one["id"], one["account"], _allows(one), one["created"][:10], one.get("name", "")] for one in found]
    print(table(["id", "account", "allows", "created", "name"], rows) if rows else "no token")


@app.command()
def revoke(id: Annotated[str, typer.Argument(metavar="ID", help="As `gridloom token list` shows it.")], config: Config = None) -> None:
    """End a token: it opens nothing from now on."""
    from gridloom.cli.client import running, segment

    client = running(config)
    if client is not None:
        client.request("DELETE", f"/api/v1/tokens/{segment(id)}")
        return

    async def end() -> None:
        from gridloom.app import load_configuration, offline

        async with offline(load_configuration(config, os.environ)) as accounts:
            await accounts.revoke_token(None, id)

    asyncio.run(end())


def _allows(token: dict[str, Any]) -> str:
    return ", ".join(f"{grant['role']} in {grant['scope']}" for grant in token["grants"])


def _account(client: Any, email: str, role: str, scope: str) -> str:
    """The account's id; made as the offline way makes it, if there is none."""
    known = {one["email"].lower(): one["id"] for one in client.get("/api/v1/accounts")["items"]}
    known.update({id: id for id in known.values()})
    if email.lower() not in known:
        body = {"email": email, "role": role}
        if role in HUB_WIDE or scope != "*":
            body["scope"] = scope
        return str(client.request("POST", "/api/v1/accounts", body)["id"])
    return str(known[email.lower()])


async def _stored(config: Any) -> list[dict[str, Any]]:
    from gridloom.app import load_configuration, offline
    from gridloom.core.clock import rfc3339

    async with offline(load_configuration(config, os.environ)) as accounts:
        return [
            {
                "id": one.id,
                "account": one.account,
                "grants": [{"role": grant.role.value, "scope": grant.scope} for grant in one.grants],
                "created": rfc3339(one.created),
                "name": one.name,
            }
            for one in accounts.tokens()
        ]
